//! Hosts that start the connector as their MCP server.

use serde_json::{Value, json};

use crate::fake::{Does, Fake, Seen, json as reply};
use crate::harness::World;
use crate::side::{Host, call, files, untouched};

const META: &str = "io.modelcontextprotocol/protocolVersion";

fn modern(id: &str, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({META: "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn message(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap_or_default()
}

fn header(seen: &Seen, name: &str) -> Option<String> {
    let line = seen.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
    Some(line.split_once(':').unwrap().1.trim().to_owned())
}

fn result(seen: &Seen, result: &Value) -> Does {
    Does::Writes(reply(&json!({"jsonrpc": "2.0", "id": message(seen)["id"], "result": result}).to_string()))
}

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
const NO_STREAM: &str = "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n";

/// A legacy upstream with sessions; what it does with calls is the test's.
async fn legacy(calls: impl Fn(&Seen) -> Does + Send + Sync + 'static) -> Fake {
    Fake::that(move |seen| match message(seen)["method"].as_str() {
        Some("initialize") => {
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "f", "version": "1"}});
            let body = json!({"jsonrpc": "2.0", "id": message(seen)["id"], "result": result}).to_string();
            Does::Writes(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: s-1\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ))
        }
        Some("notifications/initialized" | "notifications/cancelled") => Does::Writes(ACCEPTED.to_owned()),
        _ if seen.head.starts_with("DELETE") => {
            Does::Writes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned())
        }
        _ => calls(seen),
    })
    .await
}

#[tokio::test]
async fn a_legacy_session_goes_from_the_handshake_to_its_end() {
    let world = World::start().await;
    let mut host = Host::start(&world, "mail");
    let opened = host.initializes().await;
    assert_eq!(opened["result"]["serverInfo"]["name"], "sample");
    host.say(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})).await;
    assert_eq!(host.hears().await["result"]["tools"].as_array().unwrap().len(), 5);
    // Two at a time: one with progress on a stream, one that overtakes it.
    let mut slow = call(3, "countdown");
    slow["params"]["arguments"] = json!({"from": 2, "pause_ms": 300});
    slow["params"]["_meta"] = json!({"progressToken": "p"});
    host.say(&slow).await;
    host.say(&call(4, "search_customers")).await;
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(host.hears().await);
    }
    let at = |found: &dyn Fn(&Value) -> bool| heard.iter().position(found).unwrap();
    let progress = at(&|heard| heard["params"]["progress"] == 1);
    let lift_off = at(&|heard| heard["id"] == 3);
    assert!(progress < lift_off, "{heard:#?}");
    assert!(heard[at(&|heard| heard["id"] == 4)]["result"].to_string().contains("C-1007"));

    let (lines, code) = host.leaves().await;
    assert_eq!((lines.len(), code), (0, 0), "{lines:?}");
    let seen = world.mail.seen();
    let session = seen[1].headers["mcp-session-id"].clone();
    assert!(seen[1..].iter().all(|seen| seen.headers["mcp-session-id"] == session));
    assert!(seen[1..].iter().all(|seen| seen.headers["mcp-protocol-version"] == "2025-11-25"));
    assert_eq!(seen.last().unwrap().method, http::Method::DELETE);
    world.join().await;
}

#[tokio::test]
async fn a_refused_call_is_a_result_and_the_session_goes_on() {
    let world = World::start().await;
    let arguments =
        [crate::side::place(&world, "mail"), files(&world, "reader"), vec!["--stdio".to_owned()]].concat();
    let mut host = Host::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    host.say(&call(1, "note")).await;
    let refused = host.hears().await;
    assert_eq!((&refused["id"], &refused["result"]["isError"]), (&json!(1), &json!(true)), "{refused}");
    world.nothing_upstream();
    host.say(&call(2, "search_customers")).await;
    assert_eq!(host.hears().await["id"], 2);
    assert_eq!(host.leaves().await.1, 0);
    world.join().await;
}

#[tokio::test]
async fn a_modern_call_is_repeated_in_headers_with_what_the_list_annotates() {
    let tools = json!({"tools": [{"name": "search_customers", "inputSchema": {"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"}}}}], "ttlMs": 0, "cacheScope": "private",
        "resultType": "complete"});
    let upstream = Fake::that(move |seen| match message(seen)["method"].as_str() {
        Some("tools/list") => result(seen, &tools),
        _ => result(seen, &json!({"content": [], "resultType": "complete"})),
    });
    let world = World::odd(upstream.await, "", "").await;
    let mut host = Host::start(&world, "oddmcp");
    host.say(&modern("a", "tools/list", json!({}))).await;
    assert_eq!(host.hears().await["id"], "a");
    host.say(&modern(
        "b",
        "tools/call",
        json!({"name": "search_customers", "arguments": {"region": "Zürich"}}),
    ))
    .await;
    let answer = host.hears().await;
    assert_eq!(
        (&answer["id"], &answer["result"]["resultType"]),
        (&json!("b"), &json!("complete")),
        "{answer}"
    );
    assert_eq!(host.leaves().await.1, 0);

    let seen = world.odd.seen();
    assert_eq!(seen.len(), 2, "no session was opened, so none is ended: {seen:?}");
    let of = |name| header(&seen[1], name);
    assert_eq!(of("mcp-protocol-version").as_deref(), Some("2026-07-28"));
    assert_eq!(of("mcp-method").as_deref(), Some("tools/call"));
    assert_eq!(of("mcp-name").as_deref(), Some("search_customers"));
    assert_eq!(of("mcp-param-region").as_deref(), Some("=?base64?WsO8cmljaA==?="));
    assert_eq!(of("mcp-session-id"), None);
    world.join().await;
}

#[tokio::test]
async fn a_modern_request_is_cancelled_by_closing_its_exchange() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let note = r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    let chunk = format!("{head}{:x}\r\n{note}\n\n\r\n", note.len() + 2);
    let upstream = Fake::that(move |_| Does::WritesThen(chunk.clone(), String::new()));
    let world = World::odd(upstream.await, "", "").await;
    let mut host = Host::start(&world, "oddmcp");
    host.say(&modern("a", "tools/call", json!({"name": "search_customers", "arguments": {}}))).await;
    assert_eq!(host.hears().await["method"], "notifications/message");
    host.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "a"}}))
        .await;
    world.odd.was_left(1).await;
    let (lines, code) = host.leaves().await;
    assert_eq!((lines.len(), code), (0, 0), "nothing more is said about it: {lines:?}");
    assert_eq!(world.odd.seen().len(), 1, "the notification itself is not sent");
    world.join().await;
}

#[tokio::test]
async fn a_legacy_cancellation_is_passed_on_and_nothing_is_made_up() {
    let upstream = legacy(|seen| match seen.head.starts_with("GET") {
        true => Does::Writes(NO_STREAM.to_owned()),
        false => Does::WritesThen(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_owned(),
            "0\r\n\r\n".to_owned(),
        ),
    });
    let world = World::odd(upstream.await, "", "").await;
    let mut host = Host::start(&world, "oddmcp");
    host.initializes().await;
    host.say(&call(5, "search_customers")).await;
    let calls =
        |method: &str| world.odd.seen().iter().filter(|seen| message(seen)["method"] == method).count();
    crate::fake::eventually(|| calls("tools/call") == 1, "the call never came").await;
    host.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}))
        .await;
    crate::fake::eventually(|| calls("notifications/cancelled") == 1, "the cancellation never came").await;
    world.odd.go_on();
    let (lines, code) = host.leaves().await;
    assert_eq!((lines.len(), code), (0, 0), "{lines:?}");
    world.join().await;
}

#[tokio::test]
async fn the_upstreams_own_stream_is_taken_up_where_it_broke() {
    let event = |id: u32| {
        let data = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": id}});
        format!("retry: 10\nid: e-{id}\ndata: {data}\n\n")
    };
    let (first, second) = (event(1), event(2));
    let upstream = legacy(move |seen| {
        let stream = |event: &str| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{event}",
                event.len()
            )
        };
        match header(seen, "last-event-id").as_deref() {
            None => Does::Writes(stream(&first)),
            Some("e-1") => Does::Writes(stream(&second)),
            Some(_) => Does::Nothing,
        }
    });
    let world = World::odd(upstream.await, "", "").await;
    let mut host = Host::start(&world, "oddmcp");
    host.initializes().await;
    assert_eq!(host.hears().await["params"]["data"], 1);
    assert_eq!(host.hears().await["params"]["data"], 2);
    assert_eq!(host.leaves().await.1, 0);
    let seen = world.odd.seen();
    let streams: Vec<_> = seen.iter().filter(|seen| seen.head.starts_with("GET")).collect();
    assert!(
        streams.iter().all(|seen| header(seen, "mcp-session-id").as_deref() == Some("s-1")),
        "{streams:?}"
    );
    world.join().await;
}

#[tokio::test]
async fn a_reply_whose_stream_broke_comes_on_the_next_one() {
    let upstream = legacy(|seen| {
        let stream = |text: &str| {
            let length = text.len();
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{text}"
            )
        };
        match (message(seen)["method"].as_str(), header(seen, "last-event-id").as_deref()) {
            (Some("tools/call"), _) => Does::Writes(stream("retry: 10\nid: c-1\ndata:\n\n")),
            (None, Some("c-1")) => Does::Writes(stream(
                "id: c-2\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":9,\"result\":{\"content\":[]}}\n\n",
            )),
            _ => Does::Writes(NO_STREAM.to_owned()),
        }
    });
    let world = World::odd(upstream.await, "", "").await;
    let mut host = Host::start(&world, "oddmcp");
    host.initializes().await;
    host.say(&call(9, "search_customers")).await;
    let answer = host.hears().await;
    assert_eq!((&answer["id"], &answer["result"]["content"]), (&json!(9), &json!([])), "{answer}");
    assert_eq!(host.leaves().await.1, 0);
    world.join().await;
}

#[tokio::test]
async fn a_lost_session_is_told_and_another_can_begin() {
    let upstream = legacy(|seen| match seen.head.starts_with("GET") {
        true => Does::Writes(NO_STREAM.to_owned()),
        false => Does::Writes("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()),
    });
    let world = World::odd(upstream.await, "", "").await;
    let mut host = Host::start(&world, "oddmcp");
    host.initializes().await;
    host.say(&call(7, "search_customers")).await;
    let told = host.hears().await;
    assert_eq!(told["id"], 7, "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("initialize again"), "{told}");
    assert_eq!(told["error"]["data"]["status"], 404);
    assert!(host.initializes().await["result"].is_object());
    assert_eq!(host.leaves().await.1, 0);
    let seen = world.odd.seen();
    let again = seen.iter().filter(|seen| message(seen)["method"] == "initialize").nth(1).unwrap();
    assert_eq!(header(again, "mcp-session-id"), None);
    world.join().await;
}

#[tokio::test]
async fn every_request_is_answered_even_without_a_gateway() {
    let mut world = World::start().await;
    let mut host = Host::start(&world, "mail");
    world.down().await;
    host.say(&call(1, "search_customers")).await;
    let told = host.hears().await;
    assert_eq!(told["id"], 1, "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("cannot be reached"), "{told}");
    // A notification is owed nothing, and neither is an empty line.
    host.line("").await;
    host.say(&json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})).await;
    host.line("{not json").await;
    assert_eq!(host.hears().await["error"]["code"], -32700);
    let (lines, code) = host.leaves().await;
    assert_eq!((lines.len(), code), (0, 0), "{lines:?}");
    untouched(world).await;
}

#[tokio::test]
async fn an_agent_that_is_not_admitted_reads_why() {
    let world = World::start().await;
    let arguments =
        [crate::side::place(&world, "mail"), files(&world, "suspended"), vec!["--stdio".to_owned()]].concat();
    let mut host = Host::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    host.say(&call(1, "search_customers")).await;
    let told = host.hears().await;
    assert_eq!((&told["id"], &told["error"]["data"]["status"]), (&json!(1), &json!(403)), "{told}");
    assert!(told["error"]["data"]["problem"]["dev.holdpoint/decision"]["record"].is_string(), "{told}");
    assert_eq!(host.leaves().await.1, 0);
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn replies_that_are_owed_still_come_when_the_host_closes_its_end() {
    let upstream = Fake::that(|seen| {
        let body = json!({"jsonrpc": "2.0", "id": message(seen)["id"], "result": {}}).to_string();
        Does::WritesThen(String::new(), reply(&body.replace(',', ",\r\n")))
    });
    let world = World::odd(upstream.await, "", "").await;
    let mut host = Host::start(&world, "oddmcp");
    host.say(&call(1, "search_customers")).await;
    world.odd.has_seen(1).await;
    world.odd.go_on();
    let (lines, code) = host.leaves().await;
    assert_eq!((lines.len(), code), (1, 0), "one line, whatever line breaks it had: {lines:?}");
    assert_eq!(serde_json::from_str::<Value>(&lines[0]).unwrap()["id"], 1);
    world.join().await;
}

#[tokio::test]
async fn a_line_over_the_bound_is_refused_and_the_next_one_is_not() {
    let world = World::start().await;
    let mut host = Host::start(&world, "mail");
    host.line(&format!("{{\"a\":\"{}\"}}", "x".repeat(5 << 20))).await;
    let told = host.hears().await;
    assert_eq!((&told["id"], &told["error"]["code"]), (&Value::Null, &json!(-32600)), "{told}");
    world.nothing_upstream();
    host.say(&call(2, "search_customers")).await;
    assert_eq!(host.hears().await["id"], 2);
    assert_eq!(host.leaves().await.1, 0);
    world.join().await;
}
