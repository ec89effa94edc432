//! What people approve: one text that has everything of a call that would have an effect, and its SHA-256.
//!
//! The text is what approvers are shown, what is kept encrypted while the call waits, and what is hashed, so that the
//! three cannot differ. It has all that would be forwarded but for an enumerated list: the JSON-RPC id, the progress
//! token, trace context, the MCP session, the framing of the body, and `Prefer`, which is asked of this gateway. JSON
//! is compared as a value: keys in any order, strings unescaped, numbers as they were written, since 9007199254740993
//! and 9007199254740992 are two calls even where a double holds them as one. Everything else is compared as bytes.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Uri};

use crate::call::hex;
use crate::classify::Facts;
use crate::decode::jsonrpc::Message;
use crate::decode::{Call, Payload};
use crate::json::{Kind, Value};

/// The headers that do not make another call of a call.
const PASSING_HEADERS: [&str; 7] =
    ["baggage", "content-length", "last-event-id", "mcp-session-id", "prefer", "traceparent", "tracestate"];
/// The headers that people are not shown: what is approved has their SHA-256.
const SECRET_HEADERS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];
/// The members of `params` by which a call goes on from the leg before [MCP 2026-07-28, multi round-trip requests].
const LEG_PARAMS: [&str; 2] = ["inputResponses", "requestState"];
/// The members of `params._meta` that do not make another call of a call.
const PASSING_META: [&str; 4] = ["baggage", "progressToken", "traceparent", "tracestate"];

/// What is approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The text, JSON.
    pub text: String,
    /// Its SHA-256.
    pub digest: [u8; 32],
}

/// What of a call is not in the call itself.
#[derive(Clone, Debug)]
pub struct Facing<'a> {
    /// Where it goes, as it would be sent.
    pub uri: &'a Uri,
    /// The end-to-end headers, as they would be sent, without credential and trace context.
    pub headers: &'a HeaderMap,
    /// What the upstream would be shown for it, by name and never by value.
    pub credential: &'a str,
    /// The orchestrator's task; empty when there is none.
    pub task: &'a str,
}

/// The subject of a call; `None` when its body streams unread, so that nobody can know what they approve.
pub fn subject(call: &Call, facts: &Facts, facing: &Facing<'_>) -> Option<Subject> {
    let text = text(call, facts, facing, &[])?;
    let digest = sha256(text.as_bytes());
    Some(Subject { text, digest })
}

/// The digest of what all legs of a call have in common: it without the answers and the state that one of them brings.
pub fn base(call: &Call, facts: &Facts, facing: &Facing<'_>) -> Option<[u8; 32]> {
    Some(sha256(text(call, facts, facing, &LEG_PARAMS)?.as_bytes()))
}

/// The text of a call but for some members of its `params`.
fn text(call: &Call, facts: &Facts, facing: &Facing<'_>, without: &[&str]) -> Option<String> {
    let mut text = String::with_capacity(call.payload().len() + 1024);
    text.push_str("{\"v\":1");
    // Where no entry names it, the name that the agent asked for is in the body.
    let asked = &facts.resource.name;
    for (name, value) in [
        ("agent", call.agent().id().as_str()),
        ("task", facing.task),
        ("upstream", &facts.resource.upstream),
        ("tool", asked),
        ("definition", facts.definition.as_deref().unwrap_or_default()),
        ("action", facts.action.as_str()),
        ("credential", facing.credential),
        ("method", call.head().method.as_str()),
        ("target", &facing.uri.to_string()),
    ] {
        text.push(',');
        quote(name, &mut text);
        text.push(':');
        quote(value, &mut text);
    }
    text.push_str(",\"headers\":[");
    headers(facing.headers, &mut text);
    // Where it would go, as the gateway understands it: what may be remembered.
    text.push_str("],\"destinations\":[");
    for (at, (kind, place)) in facts.goes.to.iter().enumerate() {
        text.push_str(if at > 0 { ",[" } else { "[" });
        quote(kind.as_str(), &mut text);
        text.push(',');
        quote(place, &mut text);
        text.push(']');
    }
    text.push_str("],\"body\":");
    match call.payload() {
        Payload::None => text.push_str("null"),
        Payload::Opaque(_) => return None,
        Payload::Form(bytes, _) | Payload::Other(bytes) => {
            text.push_str("{\"base64\":\"");
            STANDARD.encode_string(bytes, &mut text);
            text.push_str("\"}");
        }
        Payload::Json(document) => {
            text.push_str("{\"json\":");
            canonical(document.root(), &mut text);
            text.push('}');
        }
        Payload::Rpc(message) => {
            text.push_str("{\"json\":");
            rpc(message, without, &mut text);
            text.push('}');
        }
    }
    text.push('}');
    Some(text)
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; 32];
    out.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    out
}

fn headers(headers: &HeaderMap, text: &mut String) {
    let mut named: Vec<_> =
        headers.iter().filter(|(name, _)| !PASSING_HEADERS.contains(&name.as_str())).collect();
    // Stable: the values of one name keep their order.
    named.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    for (at, (name, value)) in named.into_iter().enumerate() {
        text.push_str(if at > 0 { ",[" } else { "[" });
        quote(name.as_str(), text);
        text.push(',');
        match std::str::from_utf8(value.as_bytes()) {
            _ if SECRET_HEADERS.contains(&name.as_str()) => {
                text.push_str("{\"sha256\":\"");
                text.push_str(&hex(&sha256(value.as_bytes())));
                text.push_str("\"}");
            }
            Ok(value) => quote(value, text),
            Err(_) => {
                text.push_str("{\"base64\":\"");
                STANDARD.encode_string(value.as_bytes(), text);
                text.push_str("\"}");
            }
        }
        text.push(']');
    }
}

/// A message without what does not make another call of it, and without some members of its `params`.
fn rpc(message: &Message, without: &[&str], text: &mut String) {
    object(message.document().root(), text, |key, value, text| match key {
        "id" => false,
        "params" => {
            name(key, text);
            object(value, text, |key, value, text| {
                let empty = key == "_meta" && value.members().all(|(key, _)| PASSING_META.contains(&&*key));
                if empty || without.contains(&key) {
                    return false;
                }
                name(key, text);
                match key {
                    "_meta" => object(value, text, |key, value, text| {
                        let stays = !PASSING_META.contains(&key);
                        if stays {
                            name(key, text);
                            canonical(value, text);
                        }
                        stays
                    }),
                    _ => canonical(value, text),
                }
                true
            });
            true
        }
        _ => {
            name(key, text);
            canonical(value, text);
            true
        }
    });
}

/// Writes a value in its one form: keys in the order of their bytes, strings as short as they can be, numbers as they
/// were written.
pub fn canonical(value: Value<'_>, text: &mut String) {
    match value.kind() {
        Kind::Object => object(value, text, |key, value, text| {
            name(key, text);
            canonical(value, text);
            true
        }),
        Kind::Array => {
            text.push('[');
            for (at, item) in value.items().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        Kind::String => quote(&value.string().unwrap_or_default(), text),
        Kind::Bool | Kind::Null | Kind::Number => {
            text.push_str(std::str::from_utf8(value.raw()).unwrap_or_default());
        }
    }
}

/// Writes the members that `write` writes, in the order of their keys. It says whether it wrote one.
fn object(value: Value<'_>, text: &mut String, mut write: impl FnMut(&str, Value<'_>, &mut String) -> bool) {
    let mut members: Vec<_> = value.members().collect();
    members.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    text.push('{');
    let mut first = true;
    for (key, value) in members {
        let before = text.len();
        if !first {
            text.push(',');
        }
        if write(&key, value, text) {
            first = false;
        } else {
            text.truncate(before);
        }
    }
    text.push('}');
}

fn name(key: &str, text: &mut String) {
    quote(key, text);
    text.push(':');
}

fn quote(value: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(value).to_string());
}
