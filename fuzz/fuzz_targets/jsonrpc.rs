//! JSON-RPC: a message that is accepted names one method, one tool and one set of arguments to every reader, a reader that
//! ignores the case of keys among them, before and after the trace context is put in.
#![no_main]

use bytes::Bytes;
use holdpoint::decode::jsonrpc::{Form, Message};
use holdpoint::decode::mcp::{McpAction, claims_modern, envelope};
use holdpoint::decode::splice::trace_context;
use holdpoint::json::{Limits, fold};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fuzz_target!(|data: &[u8]| {
    let (method, headers, body) = request(data);
    let limits = Limits::default();
    let Ok(message) = Message::read(Bytes::copy_from_slice(body), &limits) else {
        let _ = envelope(&method, &headers, None, &[]);
        return;
    };
    let read: Value = serde_json::from_slice(body).expect("serde_json reads what was accepted");
    agrees(&message, &read);

    claims_modern(&headers, Some(&message));
    if let Ok(envelope) = envelope(&method, &headers, Some(&message), &[]) {
        let params = lax(&read, "params");
        let at = |key| params.and_then(|params| lax(params, key)).and_then(Value::as_str);
        match &envelope.action {
            McpAction::CallTool { name } | McpAction::GetPrompt { name } => {
                assert_eq!(at("name"), Some(&**name), "another tool");
                let arguments = params.and_then(|params| lax(params, "arguments"));
                assert!(arguments.is_none_or(|value| value.is_object() || value.is_null()));
            }
            McpAction::ReadResource { uri } => assert_eq!(at("uri"), Some(&**uri), "another resource"),
            _ => {}
        }
    }

    for state in [None, Some("a=b")] {
        let sent = trace_context(&message, TRACEPARENT, state);
        let again = Message::read(sent.clone(), &limits).expect("what is sent is read as before");
        assert_eq!(again.form(), message.form(), "the trace context changed the message");
        let mut before = read.clone();
        let mut after: Value = serde_json::from_slice(&sent).expect("JSON");
        without_trace(&mut before);
        without_trace(&mut after);
        assert_eq!(before, after, "more than the trace context changed");
    }
});

/// A method, header lines and a body: the head ends at the first empty line.
fn request(data: &[u8]) -> (Method, HeaderMap, &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((&b"POST"[..], data), |end| (&data[..end], &data[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let method = lines.next().and_then(|line| Method::from_bytes(line).ok()).unwrap_or(Method::POST);
    let mut headers = HeaderMap::new();
    for line in lines.take(16) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    (method, headers, body)
}

/// What a reader finds that ignores case and takes the last of several; it must be what an exact one finds.
fn lax<'v>(object: &'v Value, key: &str) -> Option<&'v Value> {
    let found: Vec<_> = object.as_object()?.iter().filter(|(name, _)| fold(name) == fold(key)).collect();
    assert!(found.len() <= 1, "{key} is there twice");
    assert!(found.iter().all(|(name, _)| *name == key), "{key} is there in another case");
    found.first().map(|(_, value)| *value)
}

fn agrees(message: &Message, read: &Value) {
    let (id, method) = (lax(read, "id"), lax(read, "method").and_then(Value::as_str));
    assert_eq!(message.method(), method, "another method");
    assert_eq!(message.id().map(|id| id.to_json()).as_ref(), id, "another id");
    let answers = lax(read, "result").is_some() || lax(read, "error").is_some();
    assert_eq!(matches!(message.form(), Form::Response { .. }), answers, "another kind of message");
}

/// Takes out what may differ, and the objects that were made to hold it.
fn without_trace(message: &mut Value) {
    let Some(object) = message.as_object_mut() else { return };
    let Some(params) = object.get_mut("params").and_then(Value::as_object_mut) else { return };
    if let Some(meta) = params.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.retain(|key, _| !matches!(&*fold(key), "baggage" | "traceparent" | "tracestate"));
        if meta.is_empty() {
            params.remove("_meta");
        }
    }
    if params.is_empty() {
        object.remove("params");
    }
}
