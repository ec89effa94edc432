//! Break-glass: which forbids an emergency may lift, and what it did lift.
//!
//! A policy can be lifted only where its own condition says so, by its own id. So whoever reads a forbid sees whether it
//! stands in an emergency, and whoever opens a grant for a rule lifts that rule and no other.

use std::sync::Arc;

use cedar_policy::{Effect, Policy as Rule};
use serde_json::Value;

use super::terms::{attribute, flatten, has, is_context, speaks_of};
use super::{Decision, Policy};
use crate::call::PolicyInput;

/// The attribute of the context.
const GLASS: &str = "break_glass";

/// Whether break-glass may lift a policy. One that speaks of it in any other way than by its own id is a mistake.
pub(super) fn liftable(rule: &Rule, id: &str) -> Result<bool, String> {
    let json = rule.to_json().map_err(|error| format!("its condition cannot be read: {error}"))?;
    let conditions = json.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let expected = format!("`unless {{ context has {GLASS} && context.{GLASS}.rules.contains({id:?}) }}`");
    let mut liftable = false;
    for condition in conditions {
        let Some(body) = condition.get("body").filter(|body| speaks_of(body, GLASS)) else { continue };
        if rule.effect() != Effect::Forbid {
            return Err("speaks of break-glass, which lifts a forbid and permits nothing".to_owned());
        }
        if condition.get("kind").and_then(Value::as_str) != Some("unless") {
            return Err(format!("its `when` speaks of break-glass; expected {expected}"));
        }
        let mut parts = Vec::new();
        flatten(body, "||", &mut parts);
        for part in parts.into_iter().filter(|part| speaks_of(part, GLASS)) {
            let mut conjuncts = Vec::new();
            flatten(part, "&&", &mut conjuncts);
            let asks = conjuncts.iter().any(|conjunct| has(conjunct, is_context, GLASS));
            if !asks || !conjuncts.iter().any(|conjunct| names(conjunct, id)) {
                return Err(format!(
                    "an alternative of its `unless` speaks of break-glass and not of this policy alone; expected {expected}"
                ));
            }
            liftable = true;
        }
    }
    Ok(liftable)
}

/// Whether an expression is `context.break_glass.rules.contains("id")`.
fn names(expression: &Value, id: &str) -> bool {
    let is_glass = |value: &Value| attribute(value, is_context, GLASS);
    expression.get("contains").is_some_and(|operands| {
        let rules = operands.get("left").and_then(|left| left.get("."));
        rules.is_some_and(|rules| {
            rules.get("left").is_some_and(is_glass) && rules.get("attr").is_some_and(|attr| attr == "rules")
        }) && operands.pointer("/right/Value").and_then(Value::as_str) == Some(id)
    })
}

impl Policy {
    /// The policies that break-glass may lift, sorted by id.
    pub fn liftable(&self) -> Vec<Arc<str>> {
        let liftable = self.rules.values().filter(|rule| rule.liftable);
        let mut all: Vec<_> = liftable.map(|rule| Arc::clone(&rule.id)).collect();
        all.sort();
        all
    }

    /// The policies that break-glass lifted for this call: those that it names and without which it was decided otherwise.
    pub fn lifted(&self, input: &PolicyInput, decision: &Decision) -> Vec<Arc<str>> {
        let Some(glass) = &input.break_glass else { return Vec::new() };
        let without = self.evaluate_fresh(&PolicyInput { break_glass: None, ..input.clone() });
        if without.outcome == decision.outcome {
            return Vec::new();
        }
        without.policies.iter().filter(|id| glass.rules.contains(id)).cloned().collect()
    }
}
