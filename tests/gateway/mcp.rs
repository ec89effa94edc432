//! MCP of both eras: what passes unchanged, what is denied, limited and held, and whose sessions are whose.

use holdpoint::demo::agent::Answer;
use serde_json::{Value, json};

use crate::fake::{Does, Fake, json as reply};
use crate::harness::{World, call};

const LEGACY: (&str, &str) = ("mcp-protocol-version", "2025-11-25");
const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn is_error(answer: &Answer) -> bool {
    answer.json().pointer("/result/isError") == Some(&json!(true))
}

#[tokio::test]
async fn a_legacy_session_goes_from_the_handshake_to_a_call() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let opened = agent.rpc("mail", "initialize", hello).await.unwrap();
    assert_eq!(opened.status, 200);
    let session = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let headers = [LEGACY, ("mcp-session-id", &*session)];
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(agent.message("mail", ready, &headers).await.unwrap().status, 202);
    let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    let tools = agent.message("mail", list, &headers).await.unwrap();
    assert_eq!(tools.json()["result"]["tools"].as_array().unwrap().len(), 5);
    let message = call(3, "search_customers", json!({"name": "Ana"})).to_string();
    let found = agent.message("mail", message, &headers).await.unwrap();
    assert!(found.json()["result"]["content"][0]["text"].as_str().unwrap().contains("C-1007"));

    let seen = world.mail.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen[1..].iter().all(|seen| seen.headers["mcp-session-id"] == *session));
    assert_eq!(world.outcome(&found)["status"], "executed");
    let intent = world.record(&found.record(), "intent");
    assert_eq!((&intent["class"], &intent["upstream"]), (&json!("read"), &json!("mail")));
    assert!(intent["run"].as_str().unwrap().starts_with("session:"), "{intent:#}");
    assert!(world.records().iter().all(|record| !record.to_string().contains(&session)));
    drop(agent);
    world.down().await;
    world.join().await;
}

#[tokio::test]
async fn a_modern_call_passes_with_its_mirrored_headers() {
    let world = World::start().await;
    let agent = world.agent("support");
    let discover =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{"_meta":{META}}}}}"#);
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "server/discover")];
    let answer = agent.message("mail", discover, &headers).await.unwrap();
    assert_eq!(answer.json()["result"]["resultType"], "complete", "{answer:?}");

    let message = modern("search_customers");
    let answer = agent.message("mail", message, &modern_headers("search_customers")).await.unwrap();
    assert_eq!((answer.status.as_u16(), is_error(&answer)), (200, false), "{answer:?}");
    let seen = world.mail.seen();
    assert_eq!(seen[1].headers["mcp-method"], "tools/call");
    assert_eq!(seen[1].headers["mcp-name"], "search_customers");
    assert_eq!(seen[1].headers["mcp-protocol-version"], "2026-07-28");
    world.join().await;
}

fn modern(tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"m1","method":"tools/call","params":{{"name":"{tool}","arguments":{{}},"_meta":{META}}}}}"#
    )
}

fn modern_headers(tool: &str) -> [(&'static str, &str); 3] {
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", tool)]
}

#[tokio::test]
async fn a_modern_header_that_differs_from_the_body_is_refused() {
    let world = World::start().await;
    let agent = world.agent("support");
    let cases: [(&[(&str, &str)], &str); 6] = [
        (
            &[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "note")],
            "header-mismatch",
        ),
        (
            &[
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/list"),
                ("mcp-name", "search_customers"),
            ],
            "header-mismatch",
        ),
        (&[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")], "header-missing"),
        (&[("mcp-protocol-version", "2026-07-28"), ("mcp-name", "search_customers")], "header-missing"),
        (
            &[
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "=?base64?!?="),
            ],
            "header-encoding",
        ),
        (
            &[
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "note"),
                ("mcp-name", "search_customers"),
            ],
            "duplicate-header",
        ),
    ];
    for (headers, reason) in cases {
        let answer = agent.message("mail", modern("search_customers"), headers).await.unwrap();
        assert_eq!(answer.status, 400, "{headers:?}");
        assert_eq!(answer.json()["error"]["code"], -32020, "{headers:?}");
        world.refused(&answer, reason);
    }
    world.join().await;
}

#[tokio::test]
async fn a_reply_is_byte_for_byte_that_of_the_upstream() {
    let odd = Fake::that(|_| {
        Does::Writes(reply(
            "{ \"jsonrpc\": \"2.0\",\n\t\"id\":1, \"result\":{\"a\":1.00,\"ü\":\"\\u00fc\"} }",
        ))
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    let answer = agent.tool("oddmcp", "search_customers", json!({})).await.unwrap();
    assert_eq!(
        answer.body,
        "{ \"jsonrpc\": \"2.0\",\n\t\"id\":1, \"result\":{\"a\":1.00,\"ü\":\"\\u00fc\"} }".as_bytes()
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    world.join().await;
}

#[tokio::test]
async fn a_request_reaches_the_upstream_byte_for_byte_but_for_its_trace_context() {
    let world = World::start().await;
    let agent = world.agent("support");
    let message = "{\"jsonrpc\":\"2.0\" , \"id\": 7,\"method\":\"tools/call\",\n \"params\":{ \"name\":\"search_customers\",\"arguments\":{\"n\":1.00,\"t\":\"\\u00e9\"} } }";
    let answer = agent.message("mail", message, &[LEGACY]).await.unwrap();
    assert_eq!(answer.status, 200);
    let seen = world.mail.seen();
    let body = std::str::from_utf8(&seen[0].body).unwrap();
    let (before, rest) = body.split_once("\"_meta\":{").unwrap();
    let (context, after) = rest.split_once("},").unwrap();
    assert!(context.starts_with("\"traceparent\":\"00-"), "{context}");
    let without = format!("{before}{after}");
    assert_eq!(without, message);
    world.join().await;
}

#[tokio::test]
async fn a_read_only_agent_is_told_that_it_may_not_write() {
    let world = World::start().await;
    let answer = world.agent("reader").tool("mail", "note", json!({"text": "x"})).await.unwrap();
    assert_eq!((answer.status.as_u16(), is_error(&answer)), (200, true));
    assert_eq!(answer.outcome(), "denied");
    world.refused(&answer, "policy");
    world.join().await;
}

#[tokio::test]
async fn a_tool_call_over_the_limit_is_an_error_that_the_model_reads() {
    let world = World::with("limits: [{per: [agent, tool], rate: 1/1h}]").await;
    let agent = world.agent("support");
    assert_eq!(agent.tool("mail", "search_customers", json!({})).await.unwrap().outcome(), "allowed");
    let answer = agent.tool("mail", "search_customers", json!({})).await.unwrap();
    assert_eq!((answer.status.as_u16(), is_error(&answer)), (200, true));
    assert_eq!(answer.outcome(), "limited");
    assert!(answer.decision().unwrap()["retry_after_ms"].as_u64().unwrap() > 3_000_000);
    assert_eq!(world.record(&answer.record(), "refused")["reason"], "rate");
    assert_eq!(world.mail.seen().len(), 1);
    world.join().await;
}

#[tokio::test]
async fn a_grave_call_waits_for_people() {
    let world = World::start().await;
    let answer =
        world.agent("support").tool("mail", "delete_customer", json!({"id": "C-1007"})).await.unwrap();
    assert_eq!((answer.status.as_u16(), is_error(&answer)), (200, true));
    assert_eq!(answer.outcome(), "pending");
    assert_eq!(world.record(&answer.record(), "held")["reason"], "held");
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn a_tool_that_nobody_described_is_held_and_a_strict_upstream_denies_it() {
    let world = World::start().await;
    let agent = world.agent("support");
    let held = agent.tool("mail", "format_disk", json!({})).await.unwrap();
    assert_eq!(held.outcome(), "pending");
    world.record(&held.record(), "held");
    let denied = agent.tool("strict", "format_disk", json!({})).await.unwrap();
    assert_eq!(denied.outcome(), "denied");
    world.refused(&denied, "unlisted");
    world.join().await;
}

#[tokio::test]
async fn mail_that_was_read_does_not_leave_and_a_restart_forgets_nothing() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    let outside = json!({"to": "mallory@outside.test", "body": "the customer list"});
    let sent = agent.tool("mail", "send_email", outside.clone()).await.unwrap();
    assert_eq!(sent.outcome(), "allowed", "{sent:?}");
    assert_eq!(agent.tool("mail", "read_inbox", json!({})).await.unwrap().outcome(), "allowed");
    let held = agent.tool("mail", "send_email", outside.clone()).await.unwrap();
    assert_eq!(held.outcome(), "pending");
    let record = world.record(&held.record(), "held");
    assert_eq!(record["decision"]["policies"], json!(["hold-flow"]));
    assert_eq!(record["labels"], json!(["confidential", "untrusted"]));
    assert_eq!(record["findings"], json!(["planted-destination", "trifecta"]));
    assert!(!held.json().to_string().contains("planted"), "the agent is not told what matched");

    drop(agent);
    world.down().await;
    world.up().await;
    let agent = world.agent("support");
    let held = agent.tool("mail", "send_email", outside.clone()).await.unwrap();
    assert_eq!(held.outcome(), "pending", "the labels came back");
    let other = world.agent("other").tool("mail", "send_email", outside).await.unwrap();
    assert_eq!(other.outcome(), "allowed", "another agent has read nothing");
    assert_eq!(world.mail.seen().len(), 3);
    world.join().await;
}

#[tokio::test]
async fn a_session_is_its_agents_alone() {
    let world = World::start().await;
    let owner = world.agent("support");
    let opened = owner.rpc("mail", "initialize", json!({"protocolVersion": "2025-11-25"})).await.unwrap();
    let session = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let headers = [LEGACY, ("mcp-session-id", &*session)];
    let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    for (name, upstream, headers) in [
        ("other", "mail", headers),
        ("support", "strict", headers),
        ("support", "mail", [LEGACY, ("mcp-session-id", "made-up")]),
    ] {
        let answer = world.agent(name).message(upstream, list, &headers).await.unwrap();
        assert_eq!(answer.status, 404, "{name}");
        assert_eq!(world.record(&answer.record(), "refused")["reason"], "session");
    }
    assert_eq!(world.mail.seen().len(), 1);
    assert_eq!(owner.message("mail", list, &headers).await.unwrap().status, 200);

    // A session that was ended is nobody's.
    let end = http::Request::delete("/mail/mcp").header("host", "localhost");
    let end = end.header("mcp-session-id", &*session).header("mcp-protocol-version", "2025-11-25");
    assert_eq!(owner.send(end.body(Default::default()).unwrap()).await.unwrap().status, 200);
    assert_eq!(owner.message("mail", list, &headers).await.unwrap().status, 404);
    world.join().await;
}

#[tokio::test]
async fn what_two_parsers_read_differently_reaches_none() {
    let world = World::start().await;
    let agent = world.agent("support");
    for (body, reason) in differential() {
        let answer = agent.message("mail", body.clone(), &[LEGACY]).await.unwrap();
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}");
        let record = world.record(&answer.record(), "refused");
        assert_eq!(record["reason"], reason, "{shown}");
        assert_eq!(record["stage"], "decode");
    }
    world.nothing_upstream();
    world.join().await;
}

/// Messages that parsers in use read in different ways, each with the reason for which it is refused.
fn differential() -> Vec<(Vec<u8>, &'static str)> {
    let whole =
        |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let with_id = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"search_customers"}}}}"#
        )
    };
    let deep = |depth: usize| {
        whole(&format!(
            r#"{{"name":"search_customers","arguments":{{"x":{}{}}}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        ))
    };
    let params = r#"{"name":"search_customers"}"#;
    let utf16: Vec<u8> = whole(params).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut cases: Vec<(Vec<u8>, &'static str)> = vec![
        (whole(r#"{"name":"search_customers","name":"delete_customer"}"#).into(), "duplicate-key"),
        (whole(r#"{"name":"search_customers","na\u006de":"delete_customer"}"#).into(), "duplicate-key"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"note"}}"#.into(), "duplicate-key"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"note"},"params":{"name":"note"}}"#.into(), "duplicate-key"),
        (whole(r#"{"name":"search_customers","arguments":{"a":{"b":1,"b":2}}}"#).into(), "duplicate-key"),
        (whole(r#"{"name":"search_customers","Name":"delete_customer"}"#).into(), "case-folded-key"),
        (whole(r#"{"NAME":"delete_customer"}"#).into(), "reserved-key-spelling"),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"},\"param\u{17f}\":{\"name\":\"b\"}}".into(), "case-folded-key"),
        (whole(r#"{"name":"search_customers","name\u0000":"x"}"#).into(), "key-control-character"),
        (whole(r#"{"name":"search_customers","arguments":{"q":"\ud800"}}"#).into(), "surrogate"),
        ([whole(r#"{"name":"search_customers","arguments":{"q":""#).trim_end_matches('}').as_bytes(), b"\xff\"}}}"].concat(), "utf8"),
        ([whole(r#"{"name":"search_customers","arguments":{"q":""#).trim_end_matches('}').as_bytes(), b"\xc0\xaf\"}}}"].concat(), "utf8"),
        ([b"\xef\xbb\xbf", whole(params).as_bytes()].concat(), "byte-order-mark"),
        (with_id("9007199254740993").into(), "id"),
        (with_id("18446744073709551617").into(), "id"),
        (with_id("1e400").into(), "number"),
        (with_id("1.0").into(), "id"),
        (with_id("null").into(), "id"),
        (with_id("{}").into(), "id"),
        (with_id("NaN").into(), "syntax"),
        (whole(r#"["delete_customer"]"#).into(), "params"),
        (format!("[{}]", whole(params)).into(), "batch"),
        (deep(200).into(), "depth"),
        (deep(20_000).into(), "depth"),
        (format!("{} {}", whole(params), whole(params)).into(), "trailing-data"),
    ];
    cases.push((utf16, "syntax"));
    cases
}

#[tokio::test]
async fn the_codes_of_json_rpc_tell_broken_text_from_a_broken_message() {
    let world = World::start().await;
    let agent = world.agent("support");
    for (body, code) in [
        ("{\"jsonrpc\":", -32700),
        ("", -32700),
        ("tools/call", -32700),
        ("{} {}", -32700),
        ("[]", -32600),
        ("{}", -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, -31004),
    ] {
        let answer = agent.message("mail", body, &[LEGACY]).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (400, &json!(code)), "{body}");
        assert!(answer.json()["id"].is_null());
    }
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn what_is_refused_beside_tool_calls_gets_the_error_of_its_era() {
    let world = World::start().await;
    let agent = world.agent("support");
    let legacy = agent.rpc("mail", "resources/read", json!({"uri": "https://outside.test/"})).await.unwrap();
    assert_eq!((legacy.status.as_u16(), &legacy.json()["error"]["code"]), (200, &json!(-31003)));
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{{"uri":"ws:b","_meta":{META}}}}}"#
    );
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "resources/read"), ("mcp-name", "ws:b")];
    let modern = agent.message("mail", body, &headers).await.unwrap();
    assert_eq!((modern.status.as_u16(), &modern.json()["error"]["code"]), (503, &json!(-31003)));

    // An answer to a question that the upstream never asked goes nowhere; nobody waits for its fate.
    let answer = r#"{"jsonrpc":"2.0","id":9,"result":{"text":"the customer list"}}"#;
    let dropped = agent.message("mail", answer, &[LEGACY]).await.unwrap();
    assert_eq!((dropped.status.as_u16(), dropped.body.len()), (202, 0));
    assert_eq!(world.record(&dropped.record(), "refused")["reason"], "reply-unasked");
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn a_session_that_the_agent_did_not_ask_for_is_not_bound() {
    let odd = Fake::that(|_| {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        Does::Writes(reply(body).replacen("\r\n", "\r\nmcp-session-id: planted\r\n", 1))
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    agent.tool("oddmcp", "search_customers", json!({})).await.unwrap();
    let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    let answer = agent.message("oddmcp", list, &[LEGACY, ("mcp-session-id", "planted")]).await.unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(world.odd.seen().len(), 1);
    world.join().await;
}

#[tokio::test]
async fn what_is_no_call_that_the_gateway_knows_is_refused() {
    let world = World::start().await;
    let agent = world.agent("support");
    let unknown = agent.rpc("mail", "tools/destroy", json!({})).await.unwrap();
    assert_eq!(unknown.json()["error"]["code"], -32601);
    world.refused(&unknown, "method-unknown");
    let no_id = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"note"}}"#;
    let answer = agent.message("mail", no_id, &[LEGACY]).await.unwrap();
    world.refused(&answer, "id");
    let both = [("mcp-protocol-version", "2025-11-25"), ("mcp-session-id", "x")];
    let answer = agent.message("mail", modern("note"), &both).await.unwrap();
    world.refused(&answer, "era");
    let put = http::Request::put("/mail/mcp").header("host", "localhost").body(Default::default()).unwrap();
    let answer = agent.send(put).await.unwrap();
    assert_eq!(answer.status, 405);
    world.refused(&answer, "method-not-allowed");
    world.join().await;
}

#[tokio::test]
async fn a_stream_without_a_session_is_the_upstreams_to_refuse() {
    let world = World::start().await;
    let get =
        http::Request::get("/mail/mcp").header("host", "localhost").header("accept", "text/event-stream");
    let answer = world.agent("support").send(get.body(Default::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status, 405);
    assert_eq!(world.outcome(&answer)["http_status"], 405);
    world.join().await;
}

#[tokio::test]
async fn events_arrive_as_they_are_sent_and_the_stream_ends_at_its_response() {
    let note = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#;
    let done = r#"{"jsonrpc":"2.0","id":5,"result":{"content":[]}}"#;
    let event = |data: &str| format!("data: {data}\n\n");
    let chunk = |text: String| format!("{:x}\r\n{text}\r\n", text.len());
    let first = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{}",
        chunk(event(note))
    );
    // After the response the upstream sends more, and never ends the stream.
    let then = chunk(event(done) + &event(r#"{"jsonrpc":"2.0","method":"notifications/late"}"#));
    let odd = Fake::that(move |_| Does::WritesThen(first.clone(), then.clone())).await;
    let world = World::odd(odd, "", "").await;
    let mut raw = world.raw("support").await;
    raw.message("oddmcp", &call(5, "countdown", json!({}))).await;
    assert!(raw.until("notifications/progress").await);
    assert!(!raw.text().contains("\"result\""), "the result is not there yet");
    world.odd.go_on();
    assert!(raw.until("\"result\"").await);
    assert!(raw.until("\r\n0\r\n").await, "the stream has ended: {}", raw.text());
    assert!(!raw.text().contains("notifications/late"));
    let intent = raw.header("holdpoint-record");
    assert_eq!(world.outcome_of(&intent)["status"], "executed");
    drop(raw);
    world.join().await;
}

#[tokio::test]
async fn what_the_upstream_calls_an_error_is_told_apart() {
    let odd = Fake::that(|seen| {
        let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no"}}"#;
        let tool = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#;
        let note = String::from_utf8_lossy(&seen.body).contains("note");
        Does::Writes(reply(if note { tool } else { error }))
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    let answer = agent.tool("oddmcp", "note", json!({})).await.unwrap();
    assert_eq!(world.outcome(&answer)["status"], "tool-error");
    let answer = agent.tool("oddmcp", "search_customers", json!({})).await.unwrap();
    let outcome = world.outcome(&answer);
    assert_eq!((&outcome["status"], &outcome["rpc_code"]), (&json!("error"), &json!(-32000)));
    let _: Value = answer.json();
    world.join().await;
}

#[tokio::test]
async fn a_resource_is_what_its_uri_makes_it() {
    let world = World::odd(
        Fake::that(|_| Does::Writes(reply(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#))).await,
        "",
        "",
    )
    .await;
    let agent = world.agent("support");
    for (uri, tool) in [("note://a", "resources/read note://*"), ("file:///srv/x", "resources/read")] {
        let read = agent.rpc("oddmcp", "resources/read", json!({"uri": uri})).await.unwrap();
        assert_eq!(read.outcome(), "allowed", "{read:?}");
        let intent = world.record(&read.record(), "intent");
        assert_eq!((&intent["tool"], &intent["class"]), (&json!(tool), &json!("read")));
    }
    for uri in ["https://outside.test/?q=secret", "HTTPS://outside.test/"] {
        let held = agent.rpc("oddmcp", "resources/read", json!({"uri": uri})).await.unwrap();
        assert_eq!(held.json()["error"]["code"], -31003, "{uri}");
        assert_eq!(world.record(&held.record(), "held")["class"], "external");
    }
    assert_eq!(world.odd.seen().len(), 2);
    world.join().await;
}

#[tokio::test]
async fn a_method_beyond_those_of_mcp_passes_where_it_is_configured() {
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete"}}"#;
    let odd = Fake::that(move |_| Does::Writes(reply(answer))).await;
    let world = World::odd(odd, ", methods: [acme/reindex]", "").await;
    let agent = world.agent("support");
    let legacy = agent.rpc("oddmcp", "acme/reindex", json!({})).await.unwrap();
    assert_eq!(world.record(&legacy.record(), "intent")["class"], "write");
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"acme/reindex","params":{{"_meta":{META}}}}}"#);
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "acme/reindex")];
    assert_eq!(agent.message("oddmcp", body, &headers).await.unwrap().body, answer);
    let reader = world.agent("reader").rpc("oddmcp", "acme/reindex", json!({})).await.unwrap();
    assert_eq!(world.record(&reader.record(), "refused")["reason"], "policy");
    assert_eq!(world.odd.seen().len(), 2);
    let elsewhere = agent.rpc("mail", "acme/reindex", json!({})).await.unwrap();
    assert_eq!(elsewhere.json()["error"]["code"], -32601);
    assert!(world.mail.seen().is_empty());
    world.join().await;
}

#[tokio::test]
async fn a_page_of_another_origin_and_another_name_are_refused() {
    let world = World::start().await;
    let agent = world.agent("support");
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for origin in ["https://evil.example.com", "null", "https://localhost.evil.example.com", "localhost", ""]
    {
        let answer = agent.message("mail", ping, &[LEGACY, ("origin", origin)]).await.unwrap();
        assert_eq!(answer.status, 403, "{origin}");
        world.refused(&answer, "origin");
    }
    let own = agent.message("mail", ping, &[LEGACY, ("origin", "https://localhost:8443")]).await.unwrap();
    assert_eq!(own.status, 200);
    assert!(!world.mail.seen()[0].headers.contains_key("origin"));
    world.join().await;

    let mut world = World::start().await;
    world.down().await;
    world.hosts = "gateway.example.org".to_owned();
    world.up().await;
    let agent = world.agent("support");
    let answer = agent.message("mail", ping, &[LEGACY]).await.unwrap();
    assert_eq!(answer.status, 403);
    world.refused(&answer, "host");
    let named = http::Request::get("/crm/v1/invoices/1001").header("host", "Gateway.example.org:8443");
    assert_eq!(agent.send(named.body(Default::default()).unwrap()).await.unwrap().status, 200);
    world.join().await;
}
