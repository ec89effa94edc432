//! What a hold asks of people, and whether a policy's condition asks the same as its annotations.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::call::Approval;

/// What must be approved, by how many and whom, and for how long it may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldTerms {
    /// How many people must approve.
    pub quorum: u32,
    /// The roles that must be among theirs, sorted; empty when the condition asks for none.
    pub approvers: Vec<Arc<str>>,
    /// How long the hold waits before it expires.
    pub ttl: Duration,
}

impl HoldTerms {
    /// What satisfies both: the larger quorum, every role, the shorter wait.
    pub(super) fn join(mut self, other: &HoldTerms) -> HoldTerms {
        self.quorum = self.quorum.max(other.quorum);
        self.ttl = self.ttl.min(other.ttl);
        self.approvers.extend(other.approvers.iter().cloned());
        self.approvers.sort();
        self.approvers.dedup();
        self
    }

    /// The approval that these terms ask for, as if people had given it.
    pub(super) fn approval(&self) -> Approval {
        Approval {
            id: Arc::from("counterfactual"),
            digest_ok: true,
            count: self.quorum,
            roles: self.approvers.clone(),
        }
    }

    /// Whether an approval is what these terms ask for.
    pub(super) fn met_by(&self, approval: &Approval) -> bool {
        approval.digest_ok
            && approval.count >= self.quorum
            && self.approvers.iter().all(|role| approval.roles.contains(role))
    }

    /// The terms as an operator reads them.
    pub fn sentence(&self) -> String {
        let people = if self.quorum == 1 { "person".to_owned() } else { format!("{} people", self.quorum) };
        let one = if self.quorum == 1 { "one " } else { "" };
        match self.approvers.join(" and ").as_str() {
            "" => format!("approval of this very call by {one}{people}"),
            roles => format!("approval of this very call by {one}{people}, with the role {roles} among them"),
        }
    }
}

/// Checks that the approval which lifts a hold is exactly the one its annotations promise.
///
/// Only one form is understood, so that there is nothing to guess: a chain of `||` in one `unless`, of which exactly
/// one part speaks of the approval, and that part is a chain of `&&` of the conditions named in [`expected`].
pub(super) fn compare(policy: &Value, terms: &HoldTerms) -> Result<(), String> {
    let found = lifting(policy).map_err(|problem| format!("{problem}; expected {}", expected(terms)))?;
    let mut problems = Vec::new();
    if !found.present {
        problems.push("its `unless` does not ask `context has approval`".to_owned());
    }
    if !found.digest {
        problems.push("its `unless` does not ask `context.approval.digest_ok`".to_owned());
    }
    match found.count {
        None => problems.push("its `unless` does not compare `context.approval.count`".to_owned()),
        Some(count) if count != i64::from(terms.quorum) => {
            problems.push(format!("@quorum says {} and its `unless` asks for {count}", terms.quorum));
        }
        Some(_) => {}
    }
    // Roles left out of the condition are still asked for: `Policy::evaluate` holds an approval to the annotations.
    if !found.roles.is_empty() && found.roles != terms.approvers {
        problems.push(format!(
            "@approvers says \"{}\" and its `unless` asks for \"{}\"",
            terms.approvers.join(", "),
            found.roles.join(", ")
        ));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("{}; expected {}", problems.join("; "), expected(terms)))
}

/// The condition that these terms ask for, as an operator may write it.
fn expected(terms: &HoldTerms) -> String {
    let count = terms.quorum;
    let roles = match terms.approvers.as_slice() {
        [] => String::new(),
        [role] => format!(" && context.approval.roles.contains({role:?})"),
        roles => format!(" && context.approval.roles.containsAll({roles:?})"),
    };
    format!(
        "`unless {{ context has approval && context.approval.digest_ok && context.approval.count >= {count}{roles} }}`"
    )
}

/// What a condition asks of an approval.
#[derive(Default)]
struct Lifting {
    present: bool,
    digest: bool,
    count: Option<i64>,
    roles: Vec<Arc<str>>,
}

fn lifting(policy: &Value) -> Result<Lifting, String> {
    let none = Vec::new();
    let conditions = policy.get("conditions").and_then(Value::as_array).unwrap_or(&none);
    let mut bodies = Vec::new();
    for condition in conditions {
        let Some(body) = condition.get("body").filter(|body| speaks(body)) else { continue };
        if condition.get("kind").and_then(Value::as_str) != Some("unless") {
            return Err("its `when` speaks of the approval".to_owned());
        }
        bodies.push(body);
    }
    let [body] = bodies.as_slice() else {
        return Err(match bodies.len() {
            0 => "no approval would ever lift it: it has no `unless` that speaks of `context.approval`",
            _ => "more than one `unless` speaks of the approval",
        }
        .to_owned());
    };
    let mut parts = Vec::new();
    flatten(body, "||", &mut parts);
    parts.retain(|part| speaks(part));
    let [part] = parts.as_slice() else {
        return Err("more than one alternative of its `unless` speaks of the approval".to_owned());
    };
    let mut conjuncts = Vec::new();
    flatten(part, "&&", &mut conjuncts);
    let mut lifting = Lifting::default();
    for conjunct in conjuncts {
        learn(conjunct, &mut lifting)?;
    }
    lifting.roles.sort();
    lifting.roles.dedup();
    Ok(lifting)
}

/// Takes one conjunct into account, or says that it is none that a hold may ask.
fn learn(conjunct: &Value, lifting: &mut Lifting) -> Result<(), String> {
    if has(conjunct, is_context, "approval") {
        lifting.present = true;
        return Ok(());
    }
    if is_field(conjunct, "digest_ok") {
        lifting.digest = true;
        return Ok(());
    }
    // `context has approval.count` reads as two questions; the second is always true.
    if conjunct.get("has").and_then(|has| has.get("left")).is_some_and(is_approval) {
        return Ok(());
    }
    if let Some(count) = count(conjunct) {
        lifting.count = Some(lifting.count.map_or(count, |other| other.max(count)));
        return Ok(());
    }
    if let Some(mut roles) = roles(conjunct) {
        lifting.roles.append(&mut roles);
        return Ok(());
    }
    Err("its `unless` asks more of an approved call than annotations can say, so an approval might not lift it"
        .to_owned())
}

fn count(conjunct: &Value) -> Option<i64> {
    let side = |operator: &str, field: &str, number: &str| {
        let operands = conjunct.get(operator)?;
        let (field, number) = (operands.get(field)?, operands.get(number)?);
        if is_field(field, "count") { number.get("Value")?.as_i64() } else { None }
    };
    side(">=", "left", "right").or_else(|| side("<=", "right", "left"))
}

fn roles(conjunct: &Value) -> Option<Vec<Arc<str>>> {
    let role = |value: &Value| value.get("Value").and_then(Value::as_str).map(Arc::from);
    if let Some(operands) = conjunct.get("contains") {
        let asked = is_field(operands.get("left")?, "roles");
        return if asked { Some(vec![role(operands.get("right")?)?]) } else { None };
    }
    let operands = conjunct.get("containsAll")?;
    if !is_field(operands.get("left")?, "roles") {
        return None;
    }
    let right = operands.get("right")?;
    match right.get("Set") {
        Some(set) => set.as_array()?.iter().map(role).collect(),
        None => right.get("Value")?.as_array()?.iter().map(|role| role.as_str().map(Arc::from)).collect(),
    }
}

pub(super) fn flatten<'a>(expression: &'a Value, operator: &str, parts: &mut Vec<&'a Value>) {
    let sides =
        expression.get(operator).and_then(|operands| Some((operands.get("left")?, operands.get("right")?)));
    match sides {
        Some((left, right)) => {
            flatten(left, operator, parts);
            flatten(right, operator, parts);
        }
        None => parts.push(expression),
    }
}

/// Whether an expression looks at `context.approval`, or at the context as a whole.
fn speaks(expression: &Value) -> bool {
    speaks_of(expression, "approval")
}

/// Whether an expression looks at an attribute of the context, or at the context as a whole.
pub(super) fn speaks_of(expression: &Value, name: &str) -> bool {
    match expression {
        Value::Object(fields) => {
            if is_context(expression) {
                return true;
            }
            for operator in [".", "has"] {
                if let Some(operands) = fields.get(operator)
                    && operands.get("left").is_some_and(is_context)
                {
                    return operands.get("attr").is_none_or(|attr| attr == name);
                }
            }
            fields.values().any(|value| speaks_of(value, name))
        }
        Value::Array(items) => items.iter().any(|item| speaks_of(item, name)),
        _ => false,
    }
}

pub(super) fn is_context(expression: &Value) -> bool {
    expression.get("Var").is_some_and(|var| var == "context")
}

fn is_approval(expression: &Value) -> bool {
    attribute(expression, is_context, "approval")
}

fn is_field(expression: &Value, field: &str) -> bool {
    attribute(expression, is_approval, field)
}

pub(super) fn attribute(expression: &Value, of: fn(&Value) -> bool, name: &str) -> bool {
    expression.get(".").is_some_and(|operands| {
        operands.get("left").is_some_and(of) && operands.get("attr").is_some_and(|attr| attr == name)
    })
}

pub(super) fn has(expression: &Value, of: fn(&Value) -> bool, name: &str) -> bool {
    expression.get("has").is_some_and(|operands| {
        operands.get("left").is_some_and(of) && operands.get("attr").is_some_and(|attr| attr == name)
    })
}
