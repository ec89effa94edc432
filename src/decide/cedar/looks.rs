//! What policies look at, read from their own syntax trees, so that a decision is remembered only under all of it.

use cedar_policy::Policy as Rule;
use serde_json::{Map, Value};

/// What a policy, or a set of them, looks at of a question. What cannot be told counts as looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looks {
    /// Something that differs from call to call: the clock, the source address, counts, facts, the instance.
    pub(super) changing: bool,
    /// Of the agent, one bit for each of [`ATTRIBUTES`].
    pub(super) agent: u16,
    /// The agent itself: its id, its membership in a group or a trust domain.
    pub(super) identity: bool,
}

/// The attributes of an agent that many agents share.
pub(super) const ATTRIBUTES: [&str; 8] =
    ["autonomy", "groups", "owned", "owner", "region", "risk", "team", "vendor"];

/// What stands in the key of every remembered decision, or is not there when one is remembered.
const STEADY: [&[&str]; 14] = [
    &["approval"],
    &["auth", "bound"],
    &["auth", "method"],
    &["break_glass"],
    &["class"],
    &["consequence"],
    &["destinations_internal"],
    &["effects"],
    &["on_behalf_of"],
    &["run", "findings"],
    &["run", "labels"],
    &["run", "profile"],
    &["task"],
    &["tiers"],
];

impl Looks {
    /// What one policy looks at.
    pub(super) fn of(rule: &Rule) -> Looks {
        let Ok(json) = rule.to_json() else { return Looks { changing: true, agent: 0, identity: true } };
        let mut looks = Looks::default();
        let scope = json.get("principal").and_then(|scope| scope.get("op")).and_then(Value::as_str);
        looks.identity = scope != Some("All");
        match json.get("conditions") {
            Some(conditions) => looks.walk(conditions),
            None => looks.changing = true,
        }
        looks
    }

    /// What either looks at.
    pub(super) fn and(self, other: Looks) -> Looks {
        Looks {
            changing: self.changing || other.changing,
            agent: self.agent | other.agent,
            identity: self.identity || other.identity,
        }
    }

    fn walk(&mut self, tree: &Value) {
        match tree {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(node) => match path(node) {
                Some((var, path)) => self.look(var, &path),
                // A literal has no variables in it.
                None => {
                    node.iter().filter(|(name, _)| *name != "Value").for_each(|(_, tree)| self.walk(tree))
                }
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn look(&mut self, var: &str, path: &[&str]) {
        match var {
            "action" | "resource" => {}
            "context" => self.changing |= !STEADY.iter().any(|steady| path.starts_with(steady)),
            "principal" => {
                let attribute =
                    path.first().and_then(|name| ATTRIBUTES.iter().position(|known| known == name));
                match attribute {
                    Some(bit) => self.agent |= 1 << bit,
                    None => self.identity = true,
                }
            }
            _ => *self = Looks { changing: true, agent: self.agent, identity: true },
        }
    }
}

/// The variable and the attributes that a node reads, as in `context.run.labels` or `context has approval`.
fn path(node: &Map<String, Value>) -> Option<(&str, Vec<&str>)> {
    if let Some(Value::String(var)) = node.get("Var").filter(|_| node.len() == 1) {
        return Some((var, Vec::new()));
    }
    let read = node.get(".").or_else(|| node.get("has")).filter(|_| node.len() == 1)?;
    let (var, mut attributes) = path(read.get("left")?.as_object()?)?;
    attributes.push(read.get("attr")?.as_str()?);
    Some((var, attributes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(condition: &str) -> Looks {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        Looks::of(&Rule::parse(None, text).unwrap())
    }

    #[test]
    fn what_changes_from_call_to_call_is_seen_wherever_it_stands() {
        for condition in [
            "context.now < datetime(\"2030-01-01\")",
            "context.hour_utc > 8",
            "context.source_ip.isLoopback()",
            "context.run.calls > 3",
            "context.run == {labels: [], findings: [], profile: \"strict\", calls: 1}",
            "context.auth.instance == \"01\"",
            "context has facts",
            "context.facts has amount && context.facts.amount.lessThan(decimal(\"5.0\"))",
            "if context.class == \"read\" then context.hour_utc > 8 else true",
            "[context.now].contains(context.now)",
            "{a: context}.a.class == \"read\"",
            "{Var: context.hour_utc} == {Var: 3}",
            "context == context",
        ] {
            assert!(looks(condition).changing, "{condition}");
        }
    }

    #[test]
    fn what_stands_in_the_key_may_be_looked_at() {
        for condition in [
            "context.class == \"read\" && context.consequence < 3",
            "context.run.labels.contains(\"secret\") || context.run.findings.isEmpty()",
            "context has approval && context.approval.count >= 2",
            "context has task && context.task.purpose like \"pay*\"",
            "context.auth.bound && resource.trusted",
            "context.class == \"context.now\"",
        ] {
            assert_eq!(looks(condition), Looks::default(), "{condition}");
        }
    }

    #[test]
    fn of_an_agent_only_what_is_read_counts() {
        let bit = |name| 1 << ATTRIBUTES.iter().position(|known| *known == name).unwrap();
        assert_eq!(
            looks("principal.autonomy == \"delegated\" && principal.risk < 2").agent,
            bit("autonomy") | bit("risk")
        );
        assert_eq!(looks("principal has vendor").agent, bit("vendor"));
        assert_eq!(looks("principal.groups.contains(\"g\")").agent, bit("groups"));
        for condition in ["principal in Holdpoint::AgentGroup::\"g\"", "principal == principal"] {
            assert!(looks(condition).identity, "{condition}");
        }
        let scoped = "permit (principal in Holdpoint::AgentGroup::\"g\", action, resource);";
        assert!(Looks::of(&Rule::parse(None, scoped).unwrap()).identity);
    }
}
