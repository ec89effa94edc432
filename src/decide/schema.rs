//! What policies may look at: the shipped schema, and in it the facts that this deployment's catalogues lift.

use std::collections::BTreeMap;
use std::sync::Arc;

use cedar_policy::{Schema, SchemaFragment};

use crate::call::FactType;

/// The schema file, as it is in `policies/`.
pub const SHIPPED: &str = include_str!("../../policies/schema.cedarschema");

/// The line of the schema file in whose place the facts of a deployment are written.
const FACTS_LINE: &str = "type Facts = {};";

/// The line of the schema file with which the part for people begins, which goes to the end of the namespace.
const PEOPLE_LINE: &str = "  // === People ===\n";

/// The facts of a deployment, by name.
pub type Facts = BTreeMap<Arc<str>, FactType>;

/// The name of a fact's type in Cedar.
fn cedar(kind: FactType) -> &'static str {
    match kind {
        FactType::Bool => "Bool",
        FactType::Decimal => "decimal",
        FactType::Long => "Long",
        FactType::Text => "String",
    }
}

/// The schema's text for a deployment: what an operator's editor and Cedar's own tools need.
pub fn text(facts: &Facts) -> String {
    let fields: Vec<String> =
        facts.iter().map(|(name, kind)| format!("{name:?}?: {}", cedar(*kind))).collect();
    SHIPPED.replacen(FACTS_LINE, &format!("type Facts = {{ {} }};", fields.join(", ")), 1)
}

/// The part of a schema's text that agents are asked by.
pub(super) fn of_agents(text: &str) -> String {
    text.split_once(PEOPLE_LINE).map_or_else(|| text.to_owned(), |(agents, _)| format!("{agents}}}\n"))
}

/// The schema itself; the error is a sentence.
pub(super) fn build(text: &str) -> Result<Schema, String> {
    match Schema::from_cedarschema_str(text) {
        Ok((schema, _warnings)) => Ok(schema),
        Err(error) => Err(format!("the schema cannot be used: {error}")),
    }
}

/// Whether a schema file beside the policies says what the gateway's own says, with or without this deployment's facts.
pub(super) fn same(operators: &str, facts: &Facts) -> bool {
    let meaning = |text: &str| {
        let (fragment, _warnings) = SchemaFragment::from_cedarschema_str(text).ok()?;
        fragment.to_json_value().ok()
    };
    let theirs = meaning(operators);
    theirs.is_some() && (theirs == meaning(SHIPPED) || theirs == meaning(&text(facts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_take_the_place_of_one_line() {
        assert_eq!(SHIPPED.matches(FACTS_LINE).count(), 1);
        assert_eq!(SHIPPED.matches(PEOPLE_LINE).count(), 1);
        build(&of_agents(SHIPPED)).unwrap();
        assert!(!of_agents(SHIPPED).contains("Person"));
        let facts: Facts =
            [(Arc::from("amount"), FactType::Decimal), (Arc::from("a \"b\""), FactType::Text)].into();
        let text = text(&facts);
        assert!(text.contains(r#""amount"?: decimal"#), "{text}");
        build(&text).unwrap();
        assert!(same(&text, &facts) && same(SHIPPED, &facts) && !same("entity A;", &facts));
    }
}
