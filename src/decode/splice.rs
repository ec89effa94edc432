//! Puts the gateway's trace context into a message, and changes no other byte of it.
//!
//! What was decided on is what is sent: the message is not serialised again, but cut at `params._meta`.

use std::ops::Range;

use bytes::Bytes;

use super::jsonrpc::{Form, Message};
use crate::call::TraceContext;
use crate::json::{Kind, Value, fold};

/// The message with `params._meta.traceparent` set, and `tracestate` set if given.
///
/// An older `tracestate` stays only while the trace stays. `baggage` goes: it carries whatever an agent likes into
/// every service behind the upstream. A request without params is given them; a notification without is left alone, as
/// is a response.
pub fn trace_context(message: &Message, traceparent: &str, tracestate: Option<&str>) -> Bytes {
    let bytes = message.bytes();
    let members = members(traceparent, tracestate);
    let root = message.document().root();
    let (at, insertion): (Range<usize>, String) = match (message.params(), message.meta()) {
        (Some(_), Some(meta)) if meta.kind() == Kind::Object => {
            (meta.range(), rewritten(bytes, meta, traceparent, tracestate))
        }
        (Some(_), Some(_)) => return bytes.clone(),
        (Some(params), None) => opening(params, ["\"_meta\":{", &members, "}"].concat()),
        (None, _) if matches!(message.form(), Form::Request { .. }) => {
            opening(root, ["\"params\":{\"_meta\":{", &members, "}}"].concat())
        }
        (None, _) => return bytes.clone(),
    };
    let mut out = Vec::with_capacity(bytes.len() + insertion.len());
    out.extend_from_slice(bytes.get(..at.start).unwrap_or_default());
    out.extend_from_slice(insertion.as_bytes());
    out.extend_from_slice(bytes.get(at.end..).unwrap_or_default());
    Bytes::from(out)
}

fn members(traceparent: &str, tracestate: Option<&str>) -> String {
    // What the gateway writes itself has nothing to escape.
    let mut members = ["\"traceparent\":\"", traceparent, "\""].concat();
    if let Some(state) = tracestate {
        members.push_str(",\"tracestate\":");
        members.push_str(&quoted(state));
    }
    members
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A member put first into an object, as a place and what goes there.
fn opening(object: Value<'_>, member: String) -> (Range<usize>, String) {
    let at = object.range().start + 1;
    let comma = if object.members().next().is_some() { "," } else { "" };
    (at..at, member + comma)
}

/// `_meta` with the new context, every other member as it was written.
fn rewritten(bytes: &[u8], meta: Value<'_>, traceparent: &str, tracestate: Option<&str>) -> String {
    let text =
        |range: Range<usize>| std::str::from_utf8(bytes.get(range).unwrap_or_default()).unwrap_or_default();
    let before = meta.get("traceparent").and_then(|value| trace(&value.string()?));
    let keep_state = before.is_some() && before == trace(traceparent);

    let mut end = meta.range().start + 1;
    let mut pieces = Vec::new();
    let (mut parent_set, mut state_set) = (false, false);
    for (key, value) in meta.members() {
        let value_range = value.range();
        // Between two members there is white space and one comma.
        let before = text(end..value_range.start);
        let start = if pieces_precede(end, meta) {
            before.find(',').map_or(end, |comma| end + comma + 1)
        } else {
            end
        };
        end = value_range.end;
        let prefix = text(start..value_range.start);
        match &*key {
            "traceparent" => {
                parent_set = true;
                pieces.push(format!("{prefix}{}", quoted(traceparent)));
            }
            "tracestate" => {
                if let Some(state) = tracestate {
                    state_set = true;
                    pieces.push(format!("{prefix}{}", quoted(state)));
                } else if keep_state {
                    pieces.push(text(start..end).to_owned());
                }
            }
            other if is_context(other) => {}
            _ => pieces.push(text(start..end).to_owned()),
        }
    }
    if !parent_set {
        pieces.push(format!("\"traceparent\":{}", quoted(traceparent)));
    }
    if let Some(state) = tracestate.filter(|_| !state_set) {
        pieces.push(format!("\"tracestate\":{}", quoted(state)));
    }
    format!("{{{}{}", pieces.join(","), text(end..meta.range().end))
}

/// Whether the member that is next is not the first.
fn pieces_precede(end: usize, meta: Value<'_>) -> bool {
    end > meta.range().start + 1
}

/// Whether a lax reader would take this key for one of the trace context.
fn is_context(key: &str) -> bool {
    matches!(&*fold(key), "baggage" | "traceparent" | "tracestate")
}

fn trace(traceparent: &str) -> Option<[u8; 16]> {
    TraceContext::parse(traceparent).map(|context| context.trace_id)
}
