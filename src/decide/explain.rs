//! Says why a decision is what it is, and what would change it: to operators only, never to agents.

use serde_json::{Value, json};

use super::cedar::{Decision, NO_PERMIT, Outcome, Policy};
use super::wire;
use crate::call::PolicyInput;

/// What would have to be different for the call to go; empty when it goes.
pub fn cure(decision: &Decision) -> String {
    match &decision.outcome {
        Outcome::Allow => String::new(),
        Outcome::Hold(terms) => terms.sentence(),
        Outcome::Deny if !decision.errors.is_empty() => {
            "repair what could not be evaluated; until then it is denied".to_owned()
        }
        Outcome::Deny if &*decision.rule == NO_PERMIT => {
            "a policy that permits it; no approval would help".to_owned()
        }
        Outcome::Deny => "no approval would help: the call, the agent or the policy must change".to_owned(),
    }
}

/// The explanation as JSON, with the whole input.
pub fn to_json(policy: &Policy, input: &PolicyInput, decision: &Decision) -> Value {
    let policies: Vec<Value> = decision
        .policies
        .iter()
        .map(|id| {
            let (file, public) = policy.describe(id).unwrap_or_default();
            json!({"id": &**id, "file": &*file, "public": &*public})
        })
        .collect();
    let hold = match &decision.outcome {
        Outcome::Hold(terms) => {
            let approvers: Vec<&str> = terms.approvers.iter().map(|role| &**role).collect();
            json!({"quorum": terms.quorum, "approvers": approvers, "ttl_seconds": terms.ttl.as_secs()})
        }
        Outcome::Allow | Outcome::Deny => Value::Null,
    };
    json!({
        "outcome": decision.outcome.as_str(),
        "rule": &*decision.rule,
        "reason": decision.reason,
        "policies": policies,
        "errors": decision.errors,
        "hold": hold,
        "cure": cure(decision),
        "revision": &**policy.revision(),
        "input": wire::to_json(input),
    })
}

/// The explanation as text.
pub fn to_text(policy: &Policy, input: &PolicyInput, decision: &Decision) -> String {
    let (agent, resource) = (&input.agent, &input.resource);
    let mut lines = vec![
        format!("{} {} {}/{}", agent.id, input.action.as_str(), resource.upstream, resource.name),
        format!("  {}: {}", decision.outcome.as_str(), decision.reason),
    ];
    for id in &decision.policies {
        let (file, public) = policy.describe(id).unwrap_or_default();
        lines.push(format!("  policy    {id} ({file}), told to the agent as \"{public}\""));
    }
    for error in &decision.errors {
        lines.push(format!("  error     {error}"));
    }
    let cure = cure(decision);
    if !cure.is_empty() {
        lines.push(format!("  to go     {cure}"));
    }
    lines.push(format!("  revision  {}", policy.revision()));
    lines.push("What policy saw:".to_owned());
    seen("", &wire::to_json(input), &mut lines);
    lines.join("\n") + "\n"
}

/// One line per value, with its path; what is empty is left out.
fn seen(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                seen(&format!("{path}{dot}{name}"), value, lines);
            }
        }
        Value::Null => {}
        Value::Array(items) if items.is_empty() => {}
        Value::String(text) if text.is_empty() => {}
        other => lines.push(format!("  {path:<28} {other}")),
    }
}
