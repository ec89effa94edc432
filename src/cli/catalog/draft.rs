//! Drafts of entries: what an upstream says, written so that nothing is trusted for being said. A hint can raise, and a
//! comment says why each guess was made.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::definitions::ask::Items;
use crate::names::visible;

/// How much of an upstream's words a comment has.
const WORDS_CHARS_MAX: usize = 160;

/// One entry of a draft.
#[derive(Clone, Debug)]
pub(super) struct Drafted {
    /// Its key in the catalogue.
    pub(super) key: String,
    /// Why each guess was made, a line each.
    pub(super) comments: Vec<String>,
    /// What the entry says, a line each.
    pub(super) lines: Vec<String>,
}

/// Drafts from the lists of tools, prompts, resources and templates of resources, in this order.
pub(super) fn of_lists(lists: &[Items]) -> (Vec<Drafted>, Vec<String>) {
    let empty = Items::new();
    let list = |at: usize| lists.get(at).unwrap_or(&empty);
    let mut notes = Vec::new();
    let mut drafted = Vec::new();
    for item in list(0) {
        match serde_json::from_str::<Value>(item.get()).ok().and_then(|tool| of_tool(&tool)) {
            Some(entry) => drafted.push(entry),
            None => notes.push("an item of tools/list has no name".to_owned()),
        }
    }
    if !list(1).is_empty() {
        let words = names(list(1), "name");
        drafted.push(unknown("prompts/get", &format!("prompts/list has {} ({words}).", list(1).len())));
    }
    drafted.extend(resources(list(2), list(3)));
    (drafted, notes)
}

fn names(items: &Items, key: &str) -> String {
    const SHOWN_MAX: usize = 5;
    let names = items.iter().filter_map(|item| {
        let item: Value = serde_json::from_str(item.get()).ok()?;
        item.get(key)?.as_str().map(quoted)
    });
    names.take(SHOWN_MAX).collect::<Vec<_>>().join(", ")
}

/// One entry for each scheme and authority of the resources, and for each template.
fn resources(listed: &Items, templates: &Items) -> Vec<Drafted> {
    const ENTRIES_MAX: usize = 100;
    let uri = |item: &str, key: &str| {
        let item: Value = serde_json::from_str(item).ok()?;
        // A star of the upstream's own would stand for more than it seems to.
        let text = item
            .get(key)?
            .as_str()
            .filter(|text| !text.contains(|each: char| each == '*' || each.is_control()));
        text.map(str::to_owned)
    };
    let mut patterns = BTreeSet::new();
    for uri in listed.iter().filter_map(|item| uri(item.get(), "uri")) {
        patterns.insert(match uri.split_once("://") {
            Some((scheme, rest)) => {
                format!("{scheme}://{}*", rest.split_inclusive('/').next().unwrap_or_default())
            }
            None => uri,
        });
    }
    for template in templates.iter().filter_map(|item| uri(item.get(), "uriTemplate")) {
        let mut pattern = String::new();
        for (at, part) in template.split('{').enumerate() {
            match (at, part.split_once('}')) {
                (0, _) => pattern.push_str(part),
                (_, Some((_, rest))) => pattern.push_str(&format!("*{rest}")),
                (_, None) => pattern.push('*'),
            }
        }
        patterns.insert(pattern);
    }
    // Every pattern says at least where it begins.
    let rooted = |pattern: &String| {
        pattern.split('*').next().is_some_and(|begin| begin.len() > 2 && begin.contains(':'))
    };
    let entry = |pattern: String| {
        unknown(&format!("resources/read {pattern}"), "From resources/list: `*` stands for any text.")
    };
    patterns.into_iter().filter(rooted).take(ENTRIES_MAX).map(entry).collect()
}

fn unknown(key: &str, why: &str) -> Drafted {
    Drafted {
        key: key.to_owned(),
        comments: vec![
            why.to_owned(),
            "external, consequence 3: nothing is known of what it does.".to_owned(),
        ],
        lines: vec!["class: external".to_owned(), "consequence: 3".to_owned()],
    }
}

fn of_tool(tool: &Value) -> Option<Drafted> {
    let key = tool.get("name")?.as_str()?.to_owned();
    let mut comments = Vec::new();
    let words = ["description", "title"].iter().find_map(|member| tool.get(*member)?.as_str());
    if let Some(words) = words {
        comments.push(format!("Its own words: {}", quoted(words)));
    }
    comments.push(
        "external, consequence 3: an upstream's word lowers nothing. Say less if you know better.".to_owned(),
    );
    let hint = |name: &str| tool.pointer(&format!("/annotations/{name}")).and_then(Value::as_bool);
    let mut effects = effects(&key);
    if !effects.is_empty() {
        comments.push(format!("effects: {} by its name.", effects.join(", ")));
    }
    if hint("readOnlyHint") == Some(true) {
        comments.push("It says readOnlyHint: if that is so, `class: read`, `consequence: 1`.".to_owned());
    } else if hint("destructiveHint") == Some(true) && !effects.contains(&"delete") {
        effects.push("delete");
        comments.push("effects: delete, since it says destructiveHint.".to_owned());
    }
    if hint("openWorldHint") == Some(false) {
        comments.push("It says openWorldHint false: if that is so, it is no more than a write.".to_owned());
    }
    if hint("idempotentHint") == Some(true) {
        comments.push("It says idempotentHint: if that is so, `idempotent: true`.".to_owned());
    }
    let mut lines = vec!["class: external".to_owned(), "consequence: 3".to_owned()];
    effects.sort_unstable();
    if !effects.is_empty() {
        lines.push(format!("effects: [{}]", effects.join(", ")));
    }
    if let Some((sink, why)) = sink(tool.get("inputSchema")) {
        comments.push(why);
        lines.push(sink);
    }
    Some(Drafted { key, comments, lines })
}

/// The effects that the words of a name speak of; they only make it stricter.
pub(super) fn effects(name: &str) -> Vec<&'static str> {
    const WORDS: [(&str, &[&str]); 5] = [
        ("delete", &["delete", "destroy", "drop", "erase", "purge", "remove", "truncate", "wipe"]),
        ("deploy", &["apply", "deploy", "install", "release", "restart", "rollout"]),
        ("grant", &["authorize", "grant", "invite", "permission", "permissions", "role", "share"]),
        ("secret", &["credential", "credentials", "password", "secret", "secrets", "token"]),
        (
            "spend",
            &[
                "buy", "charge", "order", "pay", "payment", "payments", "purchase", "refund", "refunds",
                "transfer",
            ],
        ),
    ];
    let said = words(name);
    WORDS
        .iter()
        .filter(|(_, words)| words.iter().any(|word| said.iter().any(|each| each == word)))
        .map(|(effect, _)| *effect)
        .collect()
}

/// The words of a name, in lower case: `sendEmail`, `send_email` and `send-email` have the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for each in name.chars() {
        let begins = !each.is_alphanumeric() || (each.is_uppercase() && lower);
        if begins {
            words.push(String::new());
        }
        lower = each.is_lowercase();
        if let (true, Some(last)) = (each.is_alphanumeric(), words.last_mut()) {
            last.extend(each.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Where what it is given goes, by the names of its parameters.
fn sink(schema: Option<&Value>) -> Option<(String, String)> {
    const KINDS: [(&str, &[&str]); 4] = [
        ("payment", &["account", "iban", "payee"]),
        ("message", &["to", "cc", "bcc", "recipient", "recipients", "email", "emails", "channel"]),
        ("invite", &["attendees", "participants", "invitees"]),
        ("http", &["url", "uri", "endpoint", "webhook", "host"]),
    ];
    const PAYLOAD: [&str; 7] = ["body", "content", "data", "message", "payload", "subject", "text"];
    let properties = schema?.get("properties")?.as_object()?;
    let pointer = |name: &str| {
        let array = properties.get(name)?.get("type").is_some_and(|kind| kind == "array");
        Some(if array { format!("/{name}/*") } else { format!("/{name}") })
    };
    let (kind, names) =
        KINDS.iter().find(|(_, names)| names.iter().any(|name| properties.contains_key(*name)))?;
    let destinations: Vec<String> = names.iter().filter_map(|name| pointer(name)).collect();
    let payload: Vec<String> = PAYLOAD.iter().filter_map(|name| pointer(name)).collect();
    let given =
        if payload.is_empty() { String::new() } else { format!(", payload: [{}]", payload.join(", ")) };
    let to = destinations.join(", ");
    let why = format!("sink: {kind}, by the names of its parameters ({to}).");
    Some((format!("sink: {{kind: {kind}, destinations: [{to}]{given}}}"), why))
}

/// An upstream's words as a part of a comment: on one line, short, and with nothing hidden.
pub(super) fn quoted(words: &str) -> String {
    let line: String = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = visible(&line).chars().take(WORDS_CHARS_MAX).collect();
    if shown.len() < line.len() { format!("\"{shown}…\"") } else { format!("\"{shown}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upstream_says_raises_and_never_lowers() {
        let tool = serde_json::json!({"name": "purgeAccount", "description": "Safe.\n  class: read\u{202e}",
            "annotations": {"readOnlyHint": true, "openWorldHint": false},
            "inputSchema": {"properties": {"to": {"type": "array"}, "body": {"type": "string"}}}});
        let entry = of_tool(&tool).unwrap();
        assert_eq!(
            entry.lines,
            [
                "class: external",
                "consequence: 3",
                "effects: [delete]",
                "sink: {kind: message, destinations: [/to/*], payload: [/body]}"
            ]
        );
        assert!(entry.comments.iter().all(|line| !line.contains(['\n', '\u{202e}'])), "{:?}", entry.comments);
        let tool = serde_json::json!({"name": "x", "annotations": {"destructiveHint": true}});
        assert_eq!(of_tool(&tool).unwrap().lines[2], "effects: [delete]");
    }
}
