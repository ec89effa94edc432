//! What is understood of a request, and above all what is refused: tables of the cases that parsers read differently.
#![expect(clippy::unwrap_used, reason = "helpers of tests stop at what they did not expect")]

use bytes::Bytes;
use holdpoint::call::{Era, Stop, StopKind};
use holdpoint::decode::http::{Content, authority, content, form, headers as check_headers, route, target};
use holdpoint::decode::jsonrpc::{Form, Id, Message};
use holdpoint::decode::mcp::{Envelope, McpAction, TaskVerb, envelope};
use holdpoint::decode::splice::trace_context;
use holdpoint::decode::sse::{Event, ReplyKind, Scanner, is_response, outcome, outcome_of};
use holdpoint::json::{Document, Limits};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(text: impl AsRef<[u8]>) -> Result<Message, Box<Stop>> {
    Message::read(Bytes::copy_from_slice(text.as_ref()), &Limits::default())
}

fn message(text: impl AsRef<[u8]>) -> Message {
    read(text).unwrap()
}

fn reason<T>(result: Result<T, Box<Stop>>) -> &'static str {
    result.map_or_else(|stop| stop.reason, |_| "accepted")
}

fn header_map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

fn post(headers: &[(&str, &str)], body: &str) -> Result<Envelope, Box<Stop>> {
    let mut map = header_map(headers);
    map.append("content-type", HeaderValue::from_static("application/json"));
    envelope(&Method::POST, &map, Some(&message(body)), &[])
}

fn modern_body(method: &str, mut params: Value) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    params.as_object_mut().unwrap().insert("_meta".to_owned(), meta);
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

/// Headers, the body, and the era or the reason.
type Case<'c> = (&'c [(&'c str, &'c str)], &'c str, &'c str);

const V: (&str, &str) = ("MCP-Protocol-Version", "2026-07-28");
const CALL: (&str, &str) = ("Mcp-Method", "tools/call");

// === JSON-RPC ===

/// Messages, and why they are refused.
const DIFFERENTIAL: &[(&str, &str)] = &[
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"x","params":{"name":"read"}}"#,
        "duplicate-key",
    ),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{},"params":{"name":"rm"}}"#, "duplicate-key"),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","name":"rm"}}"#,
        "duplicate-key",
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","Name":"rm"}}"#,
        "case-folded-key",
    ),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"NAME":"rm"}}"#, "reserved-key-spelling"),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"r","Arguments":{}}}"#,
        "reserved-key-spelling",
    ),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_META":{}}}"#, "reserved-key-spelling"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","paramſ":{"name":"rm"}}"#, "reserved-key-spelling"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{},"paramſ":{}}"#, "case-folded-key"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"na\u006de":"read"}}"#, "accepted"),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","na\u006de":"rm"}}"#,
        "duplicate-key",
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name\u0000":"rm"}}"#,
        "key-control-character",
    ),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}"#, "surrogate"),
    (r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":18446744073709551617,"method":"ping"}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":1e400,"method":"ping"}"#, "number"),
    (r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":1e3,"method":"ping"}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":NaN,"method":"ping"}"#, "syntax"),
    (r#"{"jsonrpc":"2.0","id":-9007199254740992,"method":"ping"}"#, "accepted"),
    (r#"{"jsonrpc":"2.0","id":"1","method":"ping"}"#, "accepted"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["rm"]}"#, "params"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":null}"#, "params"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":[]}}"#, "meta"),
    (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "batch"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{}"#, "trailing-data"),
    (r#"{"id":1,"method":"ping"}"#, "jsonrpc-version"),
    (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, "jsonrpc-version"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping","x":1}"#, "unknown-member"),
    (r#"{"jsonrpc":"2.0","id":1,"Method":"ping"}"#, "reserved-key-spelling"),
    (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, "method"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"pi ng"}"#, "method"),
    (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "method"),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "request-and-response"),
    (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, "result-and-error"),
    (r#"{"jsonrpc":"2.0","id":1,"error":1}"#, "error"),
    (r#"{"jsonrpc":"2.0","result":{}}"#, "id"),
    (r#"{"jsonrpc":"2.0","id":1}"#, "method"),
    (r#""ping""#, "not-an-object"),
];

#[test]
fn a_call_that_parsers_read_differently_is_refused() {
    for (text, expected) in DIFFERENTIAL {
        assert_eq!(reason(read(text)), *expected, "{text}");
    }
    let call = |inner: &[u8]| {
        [br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":""#, inner, br#""}}"#].concat()
    };
    assert_eq!(reason(read(call(b"\xff"))), "utf8");
    assert_eq!(reason(read(call(b"\xc0\xaf"))), "utf8");
    assert_eq!(reason(read([b"\xef\xbb\xbf".as_slice(), &call(b"read")].concat())), "byte-order-mark");
    let utf16: Vec<u8> = "{\"jsonrpc\":\"2.0\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_ne!(reason(read(utf16)), "accepted");
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"r","arguments":{{"a":{deep}}}}}}}"#
    );
    assert_eq!(reason(read(deep)), "depth");
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "x".repeat(257));
    assert_eq!(reason(read(long)), "id");
}

#[test]
fn two_readings_are_ambiguous_and_no_reading_is_malformed() {
    let kind = |text: &str| read(text).unwrap_err().kind;
    assert_eq!(kind(r#"{"jsonrpc":"2.0","jsonrpc":"2.0"}"#), StopKind::Ambiguous);
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"method":"a","Params":{}}"#), StopKind::Ambiguous);
    assert_eq!(kind("{"), StopKind::Malformed);
    assert_eq!(kind("[]"), StopKind::Malformed);
}

#[test]
fn the_kinds_of_message_are_told_apart() {
    let id = Id::Text("a".into());
    assert_eq!(
        message(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#).form(),
        &Form::Request { id: id.clone(), method: "ping".into() }
    );
    assert_eq!(
        message(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).form(),
        &Form::Notification { method: "notifications/initialized".into() }
    );
    assert_eq!(
        message(r#"{"jsonrpc":"2.0","id":"a","result":{ }}"#).form(),
        &Form::Response { id: id.clone(), is_error: false, empty: true }
    );
    assert_eq!(
        message(r#"{"jsonrpc":"2.0","id":"a","error":{"code":1,"message":""}}"#).form(),
        &Form::Response { id, is_error: true, empty: false }
    );
}

// === MCP ===

#[test]
fn the_era_is_decided_by_markers_that_agree() {
    let legacy = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let initialize =
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    let modern = &modern_body("tools/list", json!({}));
    let ancient = &modern.replace("2026-07-28", "1999-01-01");
    let unknown = &modern.replace("2026-07-28", "v999.0.0");
    let words = &modern.replace("2026-07-28", "two words");
    let old_meta = &modern.replace("2026-07-28", "2025-11-25");
    let list = ("Mcp-Method", "tools/list");
    let session = ("Mcp-Session-Id", "s1");
    let cases: &[Case<'_>] = &[
        (&[], legacy, "Legacy"),
        (&[session], legacy, "Legacy"),
        (&[("MCP-Protocol-Version", "2025-06-18"), session], legacy, "Legacy"),
        (&[("MCP-Protocol-Version", "nonsense")], legacy, "Legacy"),
        (&[("MCP-Protocol-Version", "two words")], legacy, "protocol-version"),
        (&[("Mcp-Session-Id", "two words")], legacy, "session-id"),
        (&[session, session], legacy, "duplicate-header"),
        (&[("Mcp-Method", "tools/call")], legacy, "header-mismatch"),
        (&[], initialize, "Legacy"),
        (&[V], initialize, "era"),
        (&[V, list], modern, "Modern"),
        (&[V, list, session], modern, "Modern"),
        (&[V, list], legacy, "meta-missing"),
        (&[list, session], modern, "era"),
        (&[list], modern, "header-missing"),
        (&[("MCP-Protocol-Version", "2025-11-25"), list], modern, "header-mismatch"),
        (&[("MCP-Protocol-Version", "2026-09-01"), list], modern, "header-mismatch"),
        (&[("MCP-Protocol-Version", "2025-11-25"), list], old_meta, "era"),
        (&[("MCP-Protocol-Version", "1999-01-01"), list], ancient, "Modern"),
        // Known or not, it is the upstream's to refuse, with the list of those it speaks.
        (&[("MCP-Protocol-Version", "v999.0.0"), list], unknown, "Modern"),
        (&[("MCP-Protocol-Version", "v999.0.0"), list, session], unknown, "era"),
        (&[("MCP-Protocol-Version", "2026-07-28"), list], unknown, "header-mismatch"),
        (&[("MCP-Protocol-Version", "two words"), list], words, "protocol-version"),
        (&[V, V, list], modern, "duplicate-header"),
    ];
    for (headers, body, expected) in cases {
        let found = match post(headers, body) {
            Ok(envelope) => format!("{:?}", envelope.era),
            Err(stop) => stop.reason.to_owned(),
        };
        assert_eq!(found, *expected, "{headers:?} {body}");
    }
    let dropped = post(&[V, list, session], modern).unwrap();
    assert!(dropped.drop_session && dropped.session.is_none());
    assert_eq!(post(&[session], legacy).unwrap().session.as_deref(), Some("s1"));
    assert_eq!(post(&[list, session], modern).unwrap_err().kind, StopKind::Ambiguous);
}

#[test]
fn headers_must_repeat_the_body() {
    let body = &modern_body("tools/call", json!({"name": "send_email"}));
    let umlaut = &modern_body("tools/call", json!({"name": "grüße"}));
    let sentinel = &modern_body("tools/call", json!({"name": "=?base64?eA==?="}));
    let name = |value| ("Mcp-Name", value);
    let cases: &[Case<'_>] = &[
        (&[V, CALL, name("send_email")], body, "accepted"),
        (&[V, CALL, name("  send_email ")], body, "accepted"),
        (&[V, CALL, name("=?base64?c2VuZF9lbWFpbA==?=")], body, "accepted"),
        (&[V, CALL, name("=?BASE64?c2VuZF9lbWFpbA==?=")], body, "header-mismatch"),
        (&[V, CALL, name("=?base64?c2VuZF9lbWFpbA?=")], body, "header-encoding"),
        (&[V, CALL, name("=?base64?!!?=")], body, "header-encoding"),
        (&[V, CALL, name("=?base64?c2VuZF9lbWFpbA0K?=")], body, "header-mismatch"),
        (&[V, CALL, name("=?base64?c2VuZF9lbWFpbA0KCg==?=")], body, "header-mismatch"),
        (&[V, CALL, name("Send_Email")], body, "header-mismatch"),
        (&[V, CALL, name("read_email")], body, "header-mismatch"),
        (&[V, CALL, name("")], body, "header-mismatch"),
        (&[V, CALL], body, "header-missing"),
        (&[V, name("send_email")], body, "header-missing"),
        (&[V, ("Mcp-Method", "TOOLS/CALL"), name("send_email")], body, "header-mismatch"),
        (&[V, ("Mcp-Method", "tools/list"), name("send_email")], body, "header-mismatch"),
        (&[V, CALL, CALL, name("send_email")], body, "duplicate-header"),
        (&[V, CALL, name("send_email"), name("send_email")], body, "duplicate-header"),
        (&[V, CALL, name("=?base64?Z3LDvMOfZQ==?=")], umlaut, "accepted"),
        (&[V, CALL, name("grüße")], umlaut, "header-encoding"),
        (&[V, CALL, name("=?base64?eA==?=")], sentinel, "header-mismatch"),
        (&[V, CALL, name("=?base64?PT9iYXNlNjQ/ZUE9PT89?=")], sentinel, "accepted"),
    ];
    for (headers, body, expected) in cases {
        let result = post(headers, body);
        if let Err(stop) = &result {
            assert_eq!(stop.kind, StopKind::HeaderMismatch, "{headers:?} {stop:?}");
        }
        assert_eq!(reason(result), *expected, "{headers:?} {body}");
    }
    let read = &modern_body("resources/read", json!({"uri": "file:///a"}));
    assert_eq!(reason(post(&[V, ("Mcp-Method", "resources/read"), name("file:///a")], read)), "accepted");
    assert_eq!(
        reason(post(&[V, ("Mcp-Method", "resources/read"), name("file:///b")], read)),
        "header-mismatch"
    );
    let task = &modern_body("tasks/get", json!({"taskId": "t1"}));
    assert_eq!(reason(post(&[V, ("Mcp-Method", "tasks/get")], task)), "header-missing");
    assert_eq!(
        post(&[V, ("Mcp-Method", "tasks/get"), name("t1")], task).unwrap().action,
        McpAction::Task { verb: TaskVerb::Get, id: "t1".into(), tool: "".into() }
    );
}

#[test]
fn the_modern_envelope_is_required() {
    let list = [V, ("Mcp-Method", "tools/list")];
    let with = |meta: Value| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}).to_string()
    };
    let version = "io.modelcontextprotocol/protocolVersion";
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    assert_eq!(reason(post(&list, &with(json!({})))), "meta-missing");
    assert_eq!(reason(post(&list, &with(json!({version: "2026-07-28"})))), "meta-missing");
    assert_eq!(reason(post(&list, &with(json!({capabilities: {}})))), "meta-missing");
    assert_eq!(reason(post(&list, &with(json!({version: 1, capabilities: {}})))), "meta");
    let declared = with(json!({
        version: "2026-07-28",
        capabilities: {"extensions": {"io.modelcontextprotocol/tasks": {}}},
        "progressToken": 1, "traceparent": "t", "tracestate": "s",
    }));
    let envelope = post(&list, &declared).unwrap();
    assert!(envelope.tasks_extension && envelope.progress_token);
    assert_eq!((envelope.traceparent.as_deref(), envelope.tracestate.as_deref()), (Some("t"), Some("s")));
    assert_eq!(envelope.version.as_deref(), Some("2026-07-28"));
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(reason(post(&[V], response)), "response-unexpected");
    assert_eq!(post(&[], response).unwrap().action, McpAction::Reply { to: "".into(), empty_or_error: true });
}

#[test]
fn methods_belong_to_their_era() {
    let legacy =
        |method: &str| reason(post(&[], &json!({"jsonrpc": "2.0", "id": 1, "method": method}).to_string()));
    let modern = |method: &str| reason(post(&[V, ("Mcp-Method", method)], &modern_body(method, json!({}))));
    for method in ["initialize", "ping", "logging/setLevel"] {
        assert_eq!((legacy(method), modern(method)), ("accepted", "method-unknown"), "{method}");
    }
    for method in ["server/discover", "subscriptions/listen"] {
        assert_eq!((legacy(method), modern(method)), ("method-unknown", "accepted"), "{method}");
    }
    for method in
        ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "completion/complete"]
    {
        assert_eq!((legacy(method), modern(method)), ("accepted", "accepted"), "{method}");
    }
    for method in ["tools/destroy", "TOOLS/LIST", "tools/list/", "x"] {
        assert_eq!((legacy(method), modern(method)), ("method-unknown", "method-unknown"), "{method}");
    }
    assert_eq!(legacy("notifications/initialized"), "id-unexpected");
    let told = |method: &str| reason(post(&[], &json!({"jsonrpc": "2.0", "method": method}).to_string()));
    assert_eq!(told("notifications/initialized"), "accepted");
    assert_eq!(told("notifications/nonsense"), "method-unknown");
    assert_eq!(told("tools/call"), "id");
}

#[test]
fn names_are_what_they_look_like() {
    let call = |params: Value| {
        reason(post(
            &[],
            &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string(),
        ))
    };
    assert_eq!(call(json!({"name": "read"})), "accepted");
    assert_eq!(call(json!({"name": "lire été"})), "accepted");
    for name in ["", " read", "re\u{200b}ad", "re\u{202e}ad", "re\nad", "re\u{e0041}ad", &"x".repeat(257)] {
        assert_eq!(call(json!({"name": name})), "name", "{name:?}");
    }
    assert_eq!(call(json!({"name": 1})), "name");
    assert_eq!(call(json!({})), "name");
    assert_eq!(call(json!({"name": "read", "arguments": ["x"]})), "arguments");
    assert_eq!(call(json!({"name": "read", "arguments": {"a": 1}})), "accepted");
}

#[test]
fn streams_and_sessions_are_legacy() {
    let events = ("Accept", "application/json, text/event-stream; q=1");
    let bodiless =
        |method: Method, headers: &[(&str, &str)]| envelope(&method, &header_map(headers), None, &[]);
    assert_eq!(bodiless(Method::GET, &[events]).unwrap().action, McpAction::OpenStream);
    assert_eq!(bodiless(Method::GET, &[events]).unwrap().era, Era::Legacy);
    assert_eq!(reason(bodiless(Method::GET, &[])), "accept");
    assert_eq!(bodiless(Method::DELETE, &[("Mcp-Session-Id", "s")]).unwrap().action, McpAction::EndSession);
    for method in [Method::GET, Method::DELETE] {
        let stop = bodiless(method, &[V, events]).unwrap_err();
        assert_eq!((stop.kind, stop.reason), (StopKind::NotFound, "method-not-allowed"));
    }
    assert_eq!(reason(bodiless(Method::PUT, &[])), "method-not-allowed");
    assert_eq!(reason(bodiless(Method::POST, &[])), "empty-body");
}

#[test]
fn a_message_is_json_in_utf8() {
    let body = message(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let with =
        |headers: &[(&str, &str)]| reason(envelope(&Method::POST, &header_map(headers), Some(&body), &[]));
    let json = ("Content-Type", "application/json");
    assert_eq!(with(&[json]), "accepted");
    assert_eq!(with(&[("Content-Type", "Application/JSON; charset=\"UTF-8\"")]), "accepted");
    for other in [
        "text/plain",
        "application/json; charset=utf-16",
        "multipart/form-data",
        "application/x+json",
        "json",
        "",
    ] {
        assert_eq!(with(&[("Content-Type", other)]), "content-type", "{other}");
    }
    assert_eq!(with(&[]), "content-type");
    assert_eq!(with(&[json, json]), "duplicate-header");
    assert_eq!(with(&[json, ("Content-Encoding", "gzip")]), "content-encoding");
}

// === splice ===

const PARENT: &str = "00-11111111111111111111111111111111-2222222222222222-01";

#[test]
fn only_the_trace_context_changes() {
    let other = "00-33333333333333333333333333333333-2222222222222222-01";
    let same = "00-11111111111111111111111111111111-4444444444444444-01";
    let cases: &[(&str, Option<&str>, &str)] = &[
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#,
            None,
            r#"{"params":{"_meta":{"traceparent":"P"}},"jsonrpc":"2.0","id":1,"method":"m"}"#,
        ),
        (r#"{"jsonrpc":"2.0","method":"m"}"#, None, r#"{"jsonrpc":"2.0","method":"m"}"#),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, None, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
        (
            r#"{"jsonrpc":"2.0","method":"m","params": { } }"#,
            None,
            r#"{"jsonrpc":"2.0","method":"m","params": {"_meta":{"traceparent":"P"} } }"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{ "a" : 1.50 }}"#,
            Some("k=v"),
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"traceparent":"P","tracestate":"k=v"}, "a" : 1.50 }}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{ }}}"#,
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"traceparent":"P" }}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"baggage":"x", "k" : [1] }}}"#,
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{ "k" : [1],"traceparent":"P" }}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"a":"{,","traceparent" : "OTHER","tracestate":"s","b":2}}}"#,
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"a":"{,","traceparent" : "P","b":2}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"tracestate":"s","traceparent":"SAME","Baggage":1}}}"#,
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"tracestate":"s","traceparent":"P"}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"tracestate":"s","traceparent":7}}}"#,
            Some("n=1"),
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"tracestate":"n=1","traceparent":"P"}}}"#,
        ),
    ];
    for (before, state, after) in cases {
        let before = before.replace("OTHER", other).replace("SAME", same);
        let found = trace_context(&message(&before), PARENT, *state);
        assert_eq!(
            String::from_utf8_lossy(&found),
            after.replace("\"P\"", &format!("\"{PARENT}\"")),
            "{before}"
        );
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z\"\\\\{},: é]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z,{}\"]{1,6}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn a_spliced_message_is_the_same_but_for_the_trace(
        meta in prop::option::of(prop::collection::btree_map(
            prop_oneof!["[a-z,]{1,6}", Just("traceparent".to_owned()), Just("tracestate".to_owned()), Just("baggage".to_owned())],
            any_value(), 0..6)),
        arguments in any_value(),
        pretty in any::<bool>(),
        state in prop::option::of("[a-z=\"]{1,8}"),
    ) {
        let mut value = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "x", "arguments": arguments}});
        if let Some(meta) = meta {
            value["params"]["_meta"] = json!(meta);
        }
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let spliced = trace_context(&message(&text), PARENT, state.as_deref());
        prop_assert!(read(&spliced).is_ok(), "{}", String::from_utf8_lossy(&spliced));
        let mut found: Value = serde_json::from_slice(&spliced).unwrap();
        prop_assert_eq!(&found["params"]["_meta"]["traceparent"], &json!(PARENT));
        prop_assert_eq!(found["params"]["_meta"].get("tracestate").and_then(Value::as_str), state.as_deref());
        prop_assert!(found["params"]["_meta"].get("baggage").is_none());
        for side in [&mut found, &mut value] {
            if side["params"].get("_meta").is_none() {
                side["params"]["_meta"] = json!({});
            }
            for key in ["traceparent", "tracestate", "baggage"] {
                side["params"]["_meta"].as_object_mut().unwrap().remove(key);
            }
        }
        prop_assert_eq!(found, value);
    }

    #[test]
    fn events_do_not_depend_on_chunks(
        lines in prop::collection::vec(
            (prop_oneof![Just("data: é\u{1f600}"), Just("data:"), Just("data"), Just(": ping"), Just(""), Just(""), Just("id: 1"),
                Just("event: x"), Just("retry: 5"), Just("data: {\"a\":1}"), Just("\u{feff}data: b")],
             prop_oneof![Just("\n"), Just("\r"), Just("\r\n")]), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        bound in prop_oneof![Just(1usize << 20), 8usize..40],
    ) {
        let text: String = lines.iter().flat_map(|(line, end)| [*line, *end]).collect();
        let mut whole = Scanner::new(bound);
        let expected = whole.feed(text.as_bytes());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut scanner = Scanner::new(bound);
        let mut found = Vec::new();
        for pair in cuts.windows(2) {
            found.extend(scanner.feed(&text.as_bytes()[pair[0]..pair[1]]));
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(scanner.opaque(), whole.opaque());
        prop_assert_eq!(scanner.boundary(), whole.boundary());
        prop_assert_eq!(scanner.finish(), whole.finish());
    }

    #[test]
    fn an_accepted_path_is_one_path(path in "/[a-z.%0-9/A-F;\\\\é]{0,12}") {
        if let Ok(found) = target(&path, None) {
            let again = found.path.clone();
            let second = target(&again, None).unwrap();
            prop_assert_eq!(&second.path, &found.path);
            prop_assert_eq!(&second.segments, &found.segments);
            prop_assert!(found.segments.iter().all(|segment| !segment.contains(['/', '\\']) && segment != ".."));
        }
    }
}

// === events ===

fn events(text: &[u8]) -> Vec<(String, u64)> {
    let text_of = |event: Event| (String::from_utf8(event.data).unwrap(), event.end);
    Scanner::new(1000).feed(text).into_iter().map(text_of).collect()
}

#[test]
fn events_are_found_as_the_standard_says() {
    let one = |data: &str, end| vec![(data.to_owned(), end)];
    assert_eq!(events(b"data: a\n\n"), one("a", 9));
    assert_eq!(events(b"data: a\r\r"), one("a", 9));
    assert_eq!(events(b"data: a\r\n\r\n"), one("a", 10));
    assert_eq!(events(b"data: a\ndata: b\r\ndata:  c\r\n\n"), one("a\nb\n c", 28));
    assert_eq!(events(b"\xef\xbb\xbfdata: a\n\n"), one("a", 12));
    assert_eq!(events(b": c\n\nid: 1\nretry: 2\nevent: x\n\n"), vec![]);
    assert_eq!(events(b"data\n\n"), one("", 6));
    assert_eq!(events(b"data: a\n"), vec![]);
    assert_eq!(events(b"data: event: x\\n\\ndata: y\n\n"), one("event: x\\n\\ndata: y", 27));
    assert_eq!(events("data: é\n\n".as_bytes()), one("é", 10));
}

#[test]
fn the_boundary_holds_back_only_what_is_half_understood() {
    let mut scanner = Scanner::new(100);
    scanner.feed(b": ping\r\n");
    assert_eq!(scanner.boundary(), 8);
    scanner.feed(b"data: a");
    assert_eq!(scanner.boundary(), 8);
    let found = scanner.feed(b"\r\n\r");
    assert_eq!((found.len(), found[0].end, scanner.boundary()), (1, 18, 18));
    scanner.feed(b"\n");
    assert_eq!(scanner.boundary(), 19);
    scanner.feed(b"event: message\ndata: unfinished");
    assert_eq!(scanner.boundary(), 19);
    let rest = scanner.finish().unwrap();
    assert_eq!(
        (rest.kind.as_slice(), rest.data.as_slice()),
        (b"message".as_slice(), b"unfinished".as_slice())
    );

    let mut scanner = Scanner::new(10);
    assert!(scanner.feed(b"data: a\n\n").len() == 1 && !scanner.opaque());
    assert!(scanner.feed(b"data: 0123456789\n\ndata: b\n\n").is_empty());
    assert!(scanner.opaque());
    assert_eq!(scanner.boundary(), 36);
}

#[test]
fn the_response_that_is_waited_for_is_recognised() {
    let number = Id::Number(7);
    let text = Id::Text("7".into());
    assert!(is_response(br#"{"jsonrpc":"2.0","id":7,"result":{}}"#, &number));
    assert!(is_response(br#"{"jsonrpc":"2.0","id":7.0,"error":{"code":-1,"message":""}}"#, &number));
    assert!(!is_response(br#"{"jsonrpc":"2.0","id":7,"result":{}}"#, &text));
    assert!(is_response(br#"{"jsonrpc":"2.0","id":"\u0037","result":{}}"#, &text));
    assert!(!is_response(br#"{"jsonrpc":"2.0","id":8,"result":{}}"#, &number));
    assert!(!is_response(br#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#, &number));
    assert!(!is_response(br#"{"jsonrpc":"2.0","method":"notifications/progress"}"#, &number));
    assert!(!is_response(b"", &number));
    assert!(is_response(br#"[{"id":1,"result":{}},{"id":7,"result":{}}]"#, &number));

    assert_eq!(outcome(br#"{"id":7,"result":{"isError":true}}"#), ReplyKind::ToolError);
    assert_eq!(outcome(br#"{"id":7,"result":{"isError":false}}"#), ReplyKind::Ok);
    assert_eq!(outcome(br#"{"id":7,"result":{}}"#), ReplyKind::Ok);
    assert_eq!(outcome(br#"{"id":7,"error":{"code":-32601,"message":"x"}}"#), ReplyKind::RpcError(-32601));
    assert_eq!(outcome(b"<html>"), ReplyKind::Unreadable);
    assert_eq!(outcome(br#"{"id":7}"#), ReplyKind::Unreadable);
}

#[test]
fn a_reply_that_was_parsed_ended_as_its_bytes_say() {
    for text in [
        r#"{"id":7,"result":{"isError":true}}"#,
        r#"{"id":7,"result":{"isError":"true"}}"#,
        r#"{"id":7,"result":{"isError":false}}"#,
        r#"{"id":7,"result":{}}"#,
        r#"{"id":7,"result":null}"#,
        r#"{"id":7,"result":[{"isError":true}]}"#,
        r#"{"id":7,"error":{"code":-32601,"message":"x"}}"#,
        r#"{"id":7,"error":{"code":1e3,"message":"x"}}"#,
        r#"{"id":7,"error":{"code":"-1"}}"#,
        r#"{"id":7,"error":"none","result":{}}"#,
        r#"{"id":7,"method":"ping","result":{}}"#,
        r#"{"id":7}"#,
        r#"[{"method":"x"},{"id":7,"error":{"code":-5}},{"id":8,"result":{}}]"#,
        r#"[{"id":7,"result":{"isError":true}}]"#,
        r#"[{"id":7,"result":{}},5]"#,
        "[]",
        "5",
        r#""result""#,
    ] {
        let document = Document::parse(text.into(), &Limits::default()).unwrap();
        assert_eq!(outcome_of(document.root()), outcome(text.as_bytes()), "{text}");
    }
}

// === HTTP ===

#[test]
fn a_path_has_one_reading_or_none() {
    let cases: &[(&str, &str)] = &[
        ("/", "accepted"),
        ("/crm/v1/customers/42", "accepted"),
        ("/crm/v1/", "accepted"),
        ("/a/caf%C3%A9/x%20y:z@1", "accepted"),
        ("/a/100%25", "accepted"),
        ("/a/...", "accepted"),
        ("/a/../admin", "dot-segment"),
        ("/a/..", "dot-segment"),
        ("/a/./b", "dot-segment"),
        ("/a/%2e%2e/admin", "encoded-dot"),
        ("/a/.%2E/admin", "encoded-dot"),
        ("/a/%252e%252e/admin", "double-encoding"),
        ("/a%252fb", "double-encoding"),
        ("/a%25%32%66b", "encoded-unreserved"),
        ("/a%2fb", "encoded-slash"),
        ("/a%2Fb", "encoded-slash"),
        ("/a%5cb", "encoded-backslash"),
        ("/a\\b", "path-backslash"),
        ("//a", "empty-segment"),
        ("/a//b", "empty-segment"),
        ("/a//", "empty-segment"),
        ("/a;x=../b", "path-parameter"),
        ("/a%3bx", "path-parameter"),
        ("/a%00", "encoded-control"),
        ("/a%0d%0ab", "encoded-control"),
        ("/a%7f", "encoded-control"),
        ("/a%C2%85", "encoded-control"),
        ("/a%c0%ae", "path-utf8"),
        ("/a%ff", "path-utf8"),
        ("/a%ED%A0%80", "path-utf8"),
        ("/é", "path-not-ascii"),
        ("/a#b", "fragment"),
        ("/%61dmin", "encoded-unreserved"),
        ("/a%2", "percent-escape"),
        ("/a%zz", "percent-escape"),
        ("/a%+1", "percent-escape"),
        ("/a b", "path-character"),
        ("/a\"b", "path-character"),
        ("a", "target-form"),
        ("*", "target-form"),
        ("", "target-form"),
    ];
    for (path, expected) in cases {
        assert_eq!(reason(target(path, None)), *expected, "{path}");
    }
    assert_eq!(target(&format!("/{}", "a".repeat(65536)), None).unwrap_err().kind, StopKind::Oversize);
    let found = target("/a/caf%c3%a9/", Some("q=a+b&r=%26")).unwrap();
    assert_eq!((found.path.as_str(), found.raw_path), ("/a/caf%C3%A9/", "/a/caf%c3%a9/"));
    assert_eq!(found.segments, ["a", "café", ""]);
    assert_eq!(found.query, [("q".into(), "a b".into()), ("r".into(), "&".into())]);
    assert_eq!(route("/crm/v1/x"), Some(("crm", "/v1/x")));
    assert_eq!(route("/crm"), Some(("crm", "")));
    assert_eq!(route("/"), None);
}

#[test]
fn a_query_or_form_has_one_reading_or_none() {
    let cases: &[(&str, &str)] = &[
        ("", "accepted"),
        ("a=1&b=2&c", "accepted"),
        ("url=https://x/?y=z", "accepted"),
        ("a=1&a=2", "duplicate-key"),
        ("a=1&%61=2", "duplicate-key"),
        ("a=1&A=2", "case-folded-key"),
        ("a=1;b=2", "semicolon"),
        ("=1", "empty-key"),
        ("a=%", "percent-escape"),
        ("a=%g0", "percent-escape"),
        ("a=%00", "encoded-control"),
        ("a%0a=1", "encoded-control"),
        ("a=%ff", "query-utf8"),
        ("a=é", "query-character"),
        ("a=1#b", "fragment"),
        ("_method=DELETE", "method-override"),
        ("_Method=DELETE", "method-override"),
        ("%5fmethod=DELETE", "method-override"),
        ("X-HTTP-Method-Override=PUT", "method-override"),
    ];
    for (text, expected) in cases {
        assert_eq!(reason(target("/", Some(text))), *expected, "{text}");
        assert_eq!(reason(form(text.as_bytes())), *expected, "{text}");
    }
    assert_eq!(reason(form(b"text=a%0d%0ab")), "accepted");
    assert_eq!(reason(target("/", Some("text=a%0d%0ab"))), "encoded-control");
    assert_eq!(reason(form(b"a=\xff")), "form-utf8");
}

#[test]
fn headers_that_decide_come_once_and_under_their_name() {
    let with = |pairs: &[(&str, &str)]| reason(check_headers(&header_map(pairs)));
    assert_eq!(with(&[("Accept", "a"), ("Accept", "b"), ("x_request_id", "1")]), "accepted");
    for name in ["Authorization", "Content-Type", "Idempotency-Key", "Host"] {
        assert_eq!(with(&[(name, "a"), (name, "a")]), "duplicate-header", "{name}");
    }
    for name in ["X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "x_http_method_override"] {
        assert_eq!(with(&[(name, "DELETE")]), "method-override", "{name}");
    }
    for name in ["X-Original-URL", "X-Rewrite-URL", "x_original_url"] {
        assert_eq!(with(&[(name, "/admin")]), "target-override", "{name}");
    }
    assert_eq!(with(&[("Connection", "keep-alive, X-Dry"), ("X-Dry", "1")]), "connection-option");
    assert_eq!(
        with(&[("Connection", "close"), ("Connection", "x-dry"), ("X-Dry", "1")]),
        "connection-option"
    );
    assert_eq!(with(&[("Connection", "close, TE, absent"), ("TE", "trailers")]), "accepted");
    assert_eq!(with(&[("mcp_session_id", "a")]), "header-underscore");
    assert_eq!(with(&[("content_type", "a")]), "header-underscore");
}

#[test]
fn a_body_is_what_its_type_says() {
    let of = |pairs: &[(&str, &str)]| content(&header_map(pairs));
    let typed = |value| of(&[("Content-Type", value)]);
    assert_eq!(typed("application/json").unwrap(), Content::Json);
    assert_eq!(typed("application/vnd.api+json; charset=utf-8").unwrap(), Content::Json);
    assert_eq!(typed("application/x-www-form-urlencoded").unwrap(), Content::Form);
    assert_eq!(typed("Image/PNG; x=y").unwrap(), Content::Other("image/png".to_owned()));
    assert_eq!(of(&[]).unwrap(), Content::None);
    assert_eq!(reason(typed("application/json; charset=utf-16")), "charset");
    assert_eq!(reason(typed("application/json; charset=utf-8; charset=utf-16")), "charset");
    assert_eq!(reason(typed("application/json, text/plain")), "content-type");
    assert_eq!(
        reason(of(&[("Content-Type", "text/plain"), ("Content-Type", "application/json")])),
        "duplicate-header"
    );
    assert_eq!(
        reason(of(&[("Content-Type", "application/json"), ("Content-Encoding", "gzip")])),
        "content-encoding"
    );
}

#[test]
fn a_request_names_one_authority() {
    let of = |uri: &str, hosts: &[&str]| {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        authority(&request.body(()).unwrap().into_parts().0)
    };
    assert_eq!(of("/x", &["Gateway.Example"]).unwrap(), "gateway.example");
    assert_eq!(of("https://gw:8443/x", &["gw:8443"]).unwrap(), "gw:8443");
    assert_eq!(of("https://gw/x", &["gw:443"]).unwrap(), "gw");
    assert_eq!(of("https://gw/x", &[]).unwrap(), "gw");
    assert_eq!(of("/x", &["[::1]:8443"]).unwrap(), "[::1]:8443");
    assert_eq!(reason(of("https://gw/x", &["other"])), "authority");
    assert_eq!(reason(of("https://user@gw/x", &["gw"])), "authority-userinfo");
    assert_eq!(reason(of("/x", &["user@gw"])), "authority-userinfo");
    assert_eq!(reason(of("/x", &["gw", "gw"])), "duplicate-header");
    assert_eq!(reason(of("/x", &[])), "authority-missing");
    for host in ["", "gw.", "gw:", "gw:x", "gw/x", "gw,other", "[gw]"] {
        assert_eq!(reason(of("/x", &[host])), "authority", "{host}");
    }
}

#[test]
fn a_stream_is_taken_up_again_after_its_last_whole_event() {
    let text = "\u{feff}: hello\r\nid: 1\r\ndata:\r\n\r\nretry: 50\nid: 2\nevent: message\ndata: {}\n\n\
                event: other\ndata: no\n\nid: 3\r\rid: 4\ndata: half";
    for size in [1, 2, 3, 7, text.len()] {
        let mut scanner = Scanner::new(100);
        for chunk in text.as_bytes().chunks(size) {
            scanner.feed(chunk);
        }
        assert_eq!(scanner.position().last_id.as_deref(), Some("3"), "in chunks of {size}");
        assert_eq!(scanner.position().retry, Some(std::time::Duration::from_millis(50)));
        let mut resumed = Scanner::resuming(100, scanner.position().clone());
        resumed.feed(b"data: 1\n\n");
        assert_eq!(resumed.position().last_id.as_deref(), Some("3"), "an event without an id moves nothing");
        resumed.feed(b"id:\n\n");
        assert_eq!(resumed.position().last_id, None, "an empty id takes the last one back");
    }
}
