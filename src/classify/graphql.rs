//! Whether a GraphQL document only queries.

use graphql_parser::query::{Definition, OperationDefinition, parse_query};

/// The longest document that is looked at.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Whether every operation of a document is a query. What cannot be parsed, or could be lexed in two ways, is not.
pub fn reads(document: &str) -> bool {
    // The keywords cannot be escaped, so a document without these words has no such operation, however it is lexed.
    let suspicious = document.len() > DOCUMENT_BYTES_MAX
        || ["mutation", "subscription", "\"\"\""].iter().any(|word| document.contains(word))
        || document.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    if suspicious {
        return false;
    }
    // The parser's own limit of nesting (50) bounds its stack.
    let Ok(parsed) = parse_query::<&str>(document) else { return false };
    let mut operations = 0;
    for definition in &parsed.definitions {
        match definition {
            Definition::Operation(OperationDefinition::Query(_) | OperationDefinition::SelectionSet(_)) => {
                operations += 1;
            }
            Definition::Operation(
                OperationDefinition::Mutation(_) | OperationDefinition::Subscription(_),
            ) => return false,
            Definition::Fragment(_) => {}
        }
    }
    operations > 0
}
