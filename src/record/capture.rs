//! What of a call's payload the audit keeps: its digest always, and by choice its shape or a sealed copy.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;

use super::seal::Auditor;
use crate::call::hex;
use crate::classify::Facts;
use crate::decode::mcp::McpAction;
use crate::decode::{Action, Call, Payload};
use crate::json::{Kind, Value};

/// The longest name of a member that a redacted payload has in clear.
const NAME_CHARS_MAX: usize = 64;
/// The longest number that it has in clear, and the longest text that the catalogue keeps.
const SCALAR_BYTES_MAX: usize = 256;
/// How deep it goes.
const DEPTH_MAX: usize = 16;
/// How large it becomes, about; what goes beyond is left out.
const REDACTED_BYTES_MAX: usize = 16 << 10;
/// How much of a reply is sealed.
pub const REPLY_BYTES_MAX: usize = 64 << 10;

/// What of payloads is kept.
#[derive(Clone, Default)]
pub enum Capture {
    /// Their digests.
    #[default]
    Digest,
    /// Their shape: numbers, booleans and structure, and the texts that the catalogue keeps.
    Redacted,
    /// A copy that only the auditor can read.
    Sealed(Arc<Auditor>),
}

/// SHA-256 over what the agent sent, as `sha256:` and hexadecimal: of a tool call its arguments; of an HTTP request its
/// method, path and query as one line, then its body.
pub(super) fn arguments_digest(call: &Call) -> Option<String> {
    let mut context = digest::Context::new(&digest::SHA256);
    if let Action::Http { path, raw_query, .. } = call.action() {
        let query = raw_query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        context.update(format!("{} {path}{query}\n", call.head().method).as_bytes());
    }
    context.update(payload(call)?);
    Some(format!("sha256:{}", hex(context.finish().as_ref())))
}

/// What the agent sent: of a tool call its arguments, of an HTTP request its body. `None` when it is streamed unread.
pub(super) fn payload(call: &Call) -> Option<&[u8]> {
    match call.payload() {
        Payload::Rpc(message) => {
            let params = message.params();
            Some(params.map(|params| params.get("arguments").unwrap_or(params).raw()).unwrap_or_default())
        }
        Payload::Json(document) => Some(document.bytes()),
        Payload::Form(bytes, _) | Payload::Other(bytes) => Some(bytes),
        Payload::None => Some(&[]),
        Payload::Opaque(_) => None,
    }
}

/// What was asked for in the agent's own words: kept where the catalogue has no name for it, so that an operator can
/// give it one. Never arguments or a query.
pub(super) fn asked(call: &Call) -> Option<String> {
    const CHARS_MAX: usize = 256;
    let asked = match call.action() {
        Action::Http { path, .. } => format!("{} {path}", call.head().method),
        Action::Mcp(envelope) => match &envelope.action {
            McpAction::CallTool { name } | McpAction::GetPrompt { name } => name.to_string(),
            _ => return None,
        },
    };
    Some(asked.chars().take(CHARS_MAX).collect())
}

/// The payload as JSON with every text in it replaced, unless the catalogue keeps it. `None` when it is no JSON.
pub(super) fn redacted(call: &Call, facts: &Facts) -> Option<String> {
    let kept = facts.entry.as_ref().map(|entry| entry.kept.as_slice()).unwrap_or_default();
    match call.payload() {
        Payload::Rpc(message) => {
            let params = message.params()?;
            Some(shape(params.get("arguments").unwrap_or(params), kept.iter().map(|pointer| &**pointer)))
        }
        // Pointers of an HTTP operation begin with the part of the request that they are in.
        Payload::Json(document) => {
            Some(shape(document.root(), kept.iter().filter_map(|pointer| pointer.strip_prefix("/body"))))
        }
        Payload::Form(..) | Payload::Other(_) | Payload::None | Payload::Opaque(_) => None,
    }
}

fn shape<'k>(value: Value<'_>, kept: impl Iterator<Item = &'k str>) -> String {
    let found = kept.flat_map(|pointer| value.pointer(pointer));
    let kept = found.map(|value| value.range().start).collect();
    let mut shape = Shape { kept, text: String::new() };
    shape.value(value, 0);
    shape.text
}

/// Writes a payload's shape.
struct Shape {
    /// Where the texts begin that are kept.
    kept: HashSet<usize>,
    text: String,
}

impl Shape {
    fn value(&mut self, value: Value<'_>, depth: usize) {
        if depth > DEPTH_MAX || self.is_full() {
            return self.text.push_str("\"…\"");
        }
        let raw = || str::from_utf8(value.raw()).ok().filter(|raw| raw.len() <= SCALAR_BYTES_MAX);
        match value.kind() {
            Kind::Null | Kind::Bool | Kind::Number => self.text.push_str(raw().unwrap_or("\"[number]\"")),
            Kind::String if self.kept.contains(&value.range().start) => {
                self.text.push_str(raw().unwrap_or("\"[text]\""));
            }
            Kind::String => self.text.push_str("\"[text]\""),
            Kind::Array => {
                self.text.push('[');
                for (at, item) in value.items().enumerate() {
                    self.comma(at);
                    self.value(item, depth + 1);
                    if self.is_full() {
                        break;
                    }
                }
                self.text.push(']');
            }
            Kind::Object => {
                self.text.push('{');
                for (at, (name, member)) in value.members().enumerate() {
                    self.comma(at);
                    // Writing to memory cannot fail.
                    let _ = match is_plain(&name) {
                        true => write!(self.text, "\"{name}\":"),
                        false => write!(self.text, "\"[name {}]\":", at + 1),
                    };
                    self.value(member, depth + 1);
                    if self.is_full() {
                        break;
                    }
                }
                self.text.push('}');
            }
        }
    }

    fn comma(&mut self, at: usize) {
        if at > 0 {
            self.text.push(',');
        }
    }

    fn is_full(&self) -> bool {
        self.text.len() > REDACTED_BYTES_MAX
    }
}

/// A name as programs choose them. Others may be data themselves.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
    !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::json::{Document, Limits};

    fn redacted(json: &str, kept: &[&str]) -> String {
        let document = Document::parse(Bytes::from(json.to_owned()), &Limits::default()).unwrap();
        let shape = shape(document.root(), kept.iter().copied());
        serde_json::from_str::<serde_json::Value>(&shape).unwrap();
        shape
    }

    #[test]
    fn only_numbers_booleans_structure_and_what_is_kept_stay() {
        let json = r#"{"to":["a@example.org"],"n":[1,-2.5e3,true,null],"folder":"in\"box","deep":{"x":{"y":"secret"}}}"#;
        assert_eq!(
            redacted(json, &["/folder"]),
            r#"{"to":["[text]"],"n":[1,-2.5e3,true,null],"folder":"in\"box","deep":{"x":{"y":"[text]"}}}"#
        );
        assert_eq!(redacted(r#""secret""#, &["/folder"]), r#""[text]""#);
    }

    #[test]
    fn names_that_may_be_data_and_sizes_without_end_are_cut() {
        let json = format!(r#"{{"ana@example.org":1,"{}":2,"ok_1":{}}}"#, "x".repeat(65), "9".repeat(300));
        assert_eq!(redacted(&json, &[]), r#"{"[name 1]":1,"[name 2]":2,"ok_1":"[number]"}"#);
        let long = format!("[{}]", vec!["\"x\""; 100_000].join(","));
        assert!(redacted(&long, &[]).len() < REDACTED_BYTES_MAX + 100);
        let deep = format!("{}\"x\"{}", "[".repeat(60), "]".repeat(60));
        assert!(redacted(&deep, &[]).contains('…'));
        let kept = format!(r#"{{"folder":"{}"}}"#, "x".repeat(1000));
        assert_eq!(redacted(&kept, &["/folder"]), r#"{"folder":"[text]"}"#);
    }
}
