//! One trace of every hop: the agent's span, the gateway's, its stages, and the one that the upstream is told.

use holdpoint::telemetry::sink::{SeenSpan, Sink};
use serde_json::{Value, json};

use crate::harness::{SOON, World};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn trace_id() -> [u8; 16] {
    u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes()
}

fn one<'s>(spans: &'s [SeenSpan], kind: &str) -> &'s SeenSpan {
    let mut of_kind = spans.iter().filter(|span| span.kind == kind);
    let first = of_kind.next().unwrap_or_else(|| panic!("no {kind} in {spans:#?}"));
    assert!(of_kind.next().is_none(), "{spans:#?}");
    first
}

#[tokio::test]
async fn every_span_of_a_call_hangs_where_it_belongs() {
    let sink = Sink::start().await.unwrap();
    let world = World::with(&format!("telemetry: {{otlp: {{endpoint: \"{}\"}}}}", sink.endpoint())).await;
    let agent = world.agent("support");
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "search_customers", "arguments": {"q": "span-canary"},
        "_meta": {"traceparent": format!("00-{TRACE}-{PARENT}-01"), "tracestate": "vendor=1", "baggage": "user=ana"}}});
    let headers = [
        ("mcp-protocol-version", "2025-11-25"),
        ("traceparent", "00-11111111111111111111111111111111-2222222222222222-01"),
    ];
    let answer = agent.message("mail", message.to_string(), &headers).await.unwrap();
    assert_eq!(answer.outcome(), "allowed");

    let spans = sink.trace(trace_id(), SOON).await;
    let (server, client) = (one(&spans, "SERVER"), one(&spans, "CLIENT"));
    assert_eq!(server.name, "tools/call search_customers");
    assert_eq!(server.parent_id, PARENT);
    assert_eq!(server.links, ["2222222222222222"], "the header's span is linked");
    assert_eq!(client.parent_id, server.span_id);
    assert!(!server.status_error && !client.status_error);
    let stages: Vec<&str> =
        spans.iter().filter(|span| span.kind == "INTERNAL").map(|span| &*span.name).collect();
    for stage in
        ["identify", "decode", "classify", "limit", "flow", "decide", "commit", "credential", "observe"]
    {
        assert!(stages.contains(&&*format!("holdpoint.{stage}")), "{stage} in {stages:?}");
    }
    let inside = |span: &&SeenSpan| span.kind != "SERVER";
    assert!(spans.iter().filter(inside).all(|span| span.parent_id == server.span_id));
    assert!(spans.iter().all(|span| span.start_ns >= server.start_ns && span.end_ns <= server.end_ns));
    let attribute = |name: &str| server.attributes.get(name).map(String::as_str);
    assert_eq!(attribute("holdpoint.agent.id"), Some("spiffe://example.org/agent/support"));
    assert_eq!(attribute("holdpoint.decision"), Some("allowed"));
    assert_eq!(attribute("holdpoint.record.id"), Some(&*answer.record()));
    assert!(spans.iter().all(|span| span.attributes.values().all(|value| !value.contains("span-canary"))));

    let seen = world.mail.seen();
    let told = format!("00-{TRACE}-{}-01", client.span_id);
    assert_eq!(seen[0].headers["traceparent"], told);
    let body: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(body["params"]["_meta"], json!({"traceparent": told, "tracestate": "vendor=1"}));
    assert_eq!(world.record(&answer.record(), "intent")["trace_id"], TRACE);
    world.join().await;
}

#[tokio::test]
async fn a_refusal_is_a_trace_too() {
    let sink = Sink::start().await.unwrap();
    let world =
        World::with(&format!("telemetry: {{otlp: {{endpoint: \"{}\"}}, sample: 0}}", sink.endpoint())).await;
    let agent = world.agent("reader");
    let request = http::Request::post("/crm/v1/invoices").header("host", "localhost");
    let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-00"));
    let answer = agent.send(request.body(Default::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status, 403);
    let spans = sink.trace(trace_id(), SOON).await;
    let server = one(&spans, "SERVER");
    assert_eq!(server.parent_id, PARENT);
    assert!(server.status_error);
    assert_eq!(server.attributes.get("error.type").map(String::as_str), Some("denied"));
    assert_eq!(server.attributes.get("holdpoint.decision").map(String::as_str), Some("denied"));
    assert!(spans.iter().all(|span| span.kind != "CLIENT"));
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn the_metric_of_the_audit_counts_every_record_and_not_intents_alone() {
    let world = World::start().await;
    // What the gateway's own list of the strict upstream puts on the record comes first.
    let listed = || world.records().iter().any(|record| record["type"] == "trust");
    crate::fake::eventually(listed, "the strict upstream was never listed").await;
    let agent = world.agent("support");
    for (tool, outcome) in
        [("search_customers", "allowed"), ("note", "allowed"), ("delete_customer", "pending")]
    {
        let answer = agent.tool("mail", tool, json!({})).await.unwrap();
        assert_eq!(answer.outcome(), outcome, "{tool}");
    }
    let refused = world.agent("stranger").tool("mail", "note", json!({})).await.unwrap();
    assert_eq!(refused.status, 403);
    let kinds: Vec<String> =
        world.records().iter().map(|record| record["type"].as_str().unwrap().to_owned()).collect();
    let own = ["checkpoint", "finding", "policy", "trust"];
    let of_calls: Vec<&String> = kinds.iter().filter(|kind| !own.contains(&kind.as_str())).collect();
    // The hold has a record of its own, beside that of the call.
    assert_eq!(of_calls, ["intent", "outcome", "intent", "outcome", "held", "held", "refused"]);

    let segments = std::fs::read_dir(world.dir.join("audit")).unwrap().map(|entry| entry.unwrap());
    let segments = segments.filter(|entry| entry.path().extension().is_some_and(|end| end == "jsonl"));
    let bytes: u64 = segments.map(|segment| segment.metadata().unwrap().len()).sum();
    let metrics = world.page("/metrics").await;
    for line in [
        format!("holdpoint_audit_bytes_total {bytes}\n"),
        format!("holdpoint_audit_commit_duration_seconds_count {}\n", kinds.len()),
    ] {
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    drop(agent);
    world.join().await;
}
