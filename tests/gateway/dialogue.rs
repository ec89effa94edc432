//! What MCP upstreams ask and tell: their questions, lists, tasks, and batches of the one revision that has them.

use serde_json::{Value, json};

use crate::fake::{Does, Fake, Seen, eventually, json as reply};
use crate::harness::{World, call};

const LEGACY: (&str, &str) = ("mcp-protocol-version", "2025-11-25");
const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
const SAMPLING: &str =
    r#"{"jsonrpc":"2.0","id":"s1","method":"sampling/createMessage","params":{"messages":[]}}"#;
const DONE: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}"#;

fn events(events: &[&str]) -> String {
    let body: String = events.iter().map(|event| format!("event: message\ndata: {event}\n\n")).collect();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn accepted() -> String {
    "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned()
}

/// An upstream that asks while it works, and takes answers.
async fn asking(question: &'static str) -> Fake {
    Fake::that(move |seen| match message(seen) {
        message if message.get("method").is_some() => Does::Writes(events(&[question, DONE])),
        _ => Does::Writes(accepted()),
    })
    .await
}

fn message(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap_or_default()
}

fn modern_call(tool: &str, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}{more},"_meta":{META}}}}}"#
    )
}

const MODERN: [(&str, &str); 3] =
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "search_customers")];

#[tokio::test]
async fn an_upstream_may_not_ask_for_the_agents_model_and_is_told_so() {
    let world = World::odd(asking(SAMPLING).await, "", "").await;
    let agent = world.agent("support");
    let message = call(1, "search_customers", json!({})).to_string();
    let answer = agent.message("oddmcp", message, &[LEGACY]).await.unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("done") && !text.contains("sampling"), "{text}");
    let outcome = world.outcome(&answer);
    assert_eq!(
        (&outcome["status"], &outcome["withheld"]),
        (&json!("executed"), &json!(["sampling/createMessage"]))
    );

    world.odd.has_seen(2).await;
    let told = self::message(&world.odd.seen()[1]);
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!("s1"), &json!(-31001)));
    world.join().await;
}

#[tokio::test]
async fn an_upstream_that_may_ask_is_answered_once_and_by_the_agent_it_asked() {
    let odd = asking(SAMPLING).await;
    let world = World::odd(odd, ", may_ask: [sampling]", "").await;
    let agent = world.agent("support");
    let answered =
        r#"{"jsonrpc":"2.0","id":"s1","result":{"role":"assistant","content":{"type":"text","text":"hi"}}}"#;
    let early = agent.message("oddmcp", answered, &[LEGACY]).await.unwrap();
    assert_eq!(world.record(&early.record(), "refused")["reason"], "reply-unasked");

    let message = call(1, "search_customers", json!({})).to_string();
    let asked = agent.message("oddmcp", message, &[LEGACY]).await.unwrap();
    assert!(String::from_utf8_lossy(&asked.body).contains(SAMPLING));
    let stranger = world.agent("other").message("oddmcp", answered, &[LEGACY]).await.unwrap();
    assert_eq!(world.record(&stranger.record(), "refused")["reason"], "reply-unasked");
    assert_eq!(world.odd.seen().len(), 1);

    // The catalogue says what an answer to this question is.
    let given = agent.message("oddmcp", answered, &[LEGACY]).await.unwrap();
    assert_eq!(given.status, 202);
    assert_eq!(world.record(&given.record(), "intent")["tool"], "sampling/createMessage");
    assert_eq!(world.odd.seen()[1].body, answered.as_bytes());
    let again = agent.message("oddmcp", answered, &[LEGACY]).await.unwrap();
    assert_eq!(world.record(&again.record(), "refused")["reason"], "reply-unasked");
    world.join().await;
}

#[tokio::test]
async fn an_upstream_whose_question_is_answered_in_vain_is_told_so() {
    const ASKS: &str =
        r#"{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"message":"Your name?"}}"#;
    let world = World::odd(asking(ASKS).await, ", may_ask: [elicitation]", "").await;
    let agent = world.agent("support");
    agent.message("oddmcp", call(1, "search_customers", json!({})).to_string(), &[LEGACY]).await.unwrap();
    // No entry of the catalogue says that users' answers may go there, so people would have to approve it.
    let answered =
        r#"{"jsonrpc":"2.0","id":7,"result":{"action":"accept","content":{"name":"the customer list"}}}"#;
    let given = agent.message("oddmcp", answered, &[LEGACY]).await.unwrap();
    world.record(&given.record(), "held");
    world.odd.has_seen(2).await;
    let told = &world.odd.seen()[1];
    assert!(!String::from_utf8_lossy(&told.body).contains("customer"));
    assert_eq!((&message(told)["id"], &message(told)["error"]["code"]), (&json!(7), &json!(-31001)));
    world.join().await;
}

#[tokio::test]
async fn a_question_that_hides_in_a_json_reply_reaches_nobody() {
    for hidden in [
        SAMPLING.to_owned(),
        SAMPLING.replace("method", "m\\u0065thod"),
        format!("[{DONE},{SAMPLING}]"),
        format!("{{\"pad\":\"{}\",{}", "x".repeat(300 << 10), &SAMPLING[1..]),
    ] {
        let body = hidden.clone();
        let world = World::odd(Fake::that(move |_| Does::Writes(reply(&body))).await, "", "").await;
        let agent = world.agent("support");
        let message = call(1, "search_customers", json!({})).to_string();
        let answer = agent.message("oddmcp", message, &[LEGACY]).await;
        assert!(answer.is_err(), "{answer:?}");
        let outcome = world.eventually("broken").await;
        assert_eq!(outcome["withheld"], json!(["request-of-upstream"]));
        world.join().await;
    }
}

#[tokio::test]
async fn a_question_on_the_standing_stream_is_held_to_the_same() {
    let stream = Fake::that(|seen| match seen.head.starts_with("GET") {
        true => Does::Writes(events(&[
            SAMPLING,
            r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
        ])),
        false => Does::Writes(accepted()),
    })
    .await;
    let world = World::odd(stream, "", "").await;
    let get =
        http::Request::get("/oddmcp/mcp").header("host", "localhost").header("accept", "text/event-stream");
    let answer = world.agent("support").send(get.body(Default::default()).unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("list_changed") && !text.contains("sampling"), "{text}");
    world.odd.has_seen(2).await;
    world.join().await;
}

#[tokio::test]
async fn a_modern_upstream_may_not_ask_either() {
    const ASKS: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"a b+/=","inputRequests":{"q":{"method":"sampling/createMessage","params":{}}}}}"#;
    for (told, size) in [(reply(ASKS), "small"), (events(&[ASKS]), "stream")] {
        let does = told.clone();
        let world = World::odd(Fake::that(move |_| Does::Writes(does.clone())).await, "", "").await;
        let answer = world
            .agent("support")
            .message("oddmcp", modern_call("search_customers", ""), &MODERN)
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
        let body: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&body["result"]["isError"], &body["id"]), (&json!(true), &json!(1)), "{size}: {text}");
        assert_eq!(body["result"]["_meta"]["dev.holdpoint/decision"]["rule"], "upstream-asks");
        assert!(!text.contains("sampling"), "{size}: {text}");
        assert_eq!(world.outcome(&answer)["withheld"][0], "sampling/createMessage");
        world.join().await;

        let does = told.clone();
        let odd = Fake::that(move |_| Does::Writes(does.clone())).await;
        let world = World::odd(odd, ", may_ask: [sampling]", "").await;
        let answer = world
            .agent("support")
            .message("oddmcp", modern_call("search_customers", ""), &MODERN)
            .await
            .unwrap();
        assert!(String::from_utf8_lossy(&answer.body).contains(ASKS), "it passes byte for byte");
        world.join().await;
    }
}

#[tokio::test]
async fn a_large_modern_reply_that_asks_breaks_off() {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"pad":"{}","resultType":"input_required","inputRequests":{{"q":{{"method":"sampling/createMessage"}}}}}}}}"#,
        "x".repeat(300 << 10)
    );
    let world = World::odd(Fake::that(move |_| Does::Writes(reply(&body))).await, "", "").await;
    let answer = world.agent("support").message("oddmcp", modern_call("search_customers", ""), &MODERN).await;
    assert!(answer.is_err(), "{answer:?}");
    world.eventually("broken").await;
    world.join().await;
}

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[ {"name":"search_customers"},{"name":"delete_customer"},{"name":"unheard_of"}],"cacheScope":"public","ttlMs":5}}"#;

#[tokio::test]
async fn a_list_shows_what_the_agent_may_discover() {
    let list = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{META}}}}}"#);
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
    for told in [reply(LIST), events(&[LIST])] {
        let world =
            World::odd(Fake::that(move |_| Does::Writes(told.clone())).await, ", strict: true", "").await;
        let answer = world.agent("support").message("oddmcp", list.clone(), &headers).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
        let body: Value = serde_json::from_str(data).unwrap();
        let names: Vec<&Value> =
            body["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["search_customers", "delete_customer"]);
        assert_eq!(body["result"]["cacheScope"], "private", "no shared cache may keep what is one agent's");
        assert_eq!(world.outcome(&answer)["status"], "executed");
        world.join().await;
    }
    let world = World::odd(Fake::that(|_| Does::Writes(reply(LIST))).await, "", "").await;
    let answer = world.agent("support").message("oddmcp", list, &headers).await.unwrap();
    assert_eq!(answer.body, LIST.as_bytes(), "where everything may be seen, nothing changes");
    world.join().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_no_list() {
    for told in
        ["{\"result\":{\"tools\":[NaN]},\"id\":1,\"jsonrpc\":\"2.0\"}".to_owned(), "x".repeat(5 << 20)]
    {
        let world = World::odd(Fake::that(move |_| Does::Writes(reply(&told))).await, "", "").await;
        let answer = world.agent("support").rpc("oddmcp", "tools/list", json!({})).await.unwrap();
        assert_eq!(answer.json()["error"]["code"], -31010, "{answer:?}");
        world.eventually("broken").await;
        world.join().await;
    }
}

#[tokio::test]
async fn a_stream_that_can_be_resumed_begins_with_an_event_without_a_message() {
    let list = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"search_customers"}]}}"#;
    let body = format!("id: 0\nretry: 3000\ndata: \n\nid: 1\ndata: {list}\n\n");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length:";
    let stream = format!("{head} {}\r\n\r\n{body}", body.len());
    let world = World::odd(Fake::that(move |_| Does::Writes(stream.clone())).await, "", "").await;
    let answer = world.agent("support").rpc("oddmcp", "tools/list", json!({})).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.body), body);
    assert_eq!(world.outcome(&answer)["status"], "executed");
    world.join().await;
}

#[tokio::test]
async fn a_client_that_does_not_declare_tasks_is_told_what_it_lacks() {
    let world = World::odd(obliging().await, "", "").await;
    let message = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{{"taskId":"t-1","_meta":{META}}}}}"#
    );
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tasks/get"), ("mcp-name", "t-1")];
    let refused = world.agent("support").message("oddmcp", message, &headers).await.unwrap();
    let error = &refused.json()["error"];
    assert_eq!((refused.status.as_u16(), &error["code"]), (400, &json!(-32021)));
    let needed = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    assert_eq!(error["data"]["requiredCapabilities"], needed);
    assert!(world.odd.seen().is_empty(), "nothing was sent");
    world.join().await;
}

#[tokio::test]
async fn a_task_is_its_agents_alone() {
    let odd = Fake::that(|seen| {
        Does::Writes(reply(match message(seen)["method"].as_str() {
            Some("tools/call") => {
                r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"t-1","status":"working"}}}"#
            }
            Some("tasks/list") => {
                r#"{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"taskId":"t-1"},{"taskId":"t-2"}]}}"#
            }
            _ => r#"{"jsonrpc":"2.0","id":1,"result":{"taskId":"t-1","status":"completed"}}"#,
        }))
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let (agent, other) = (world.agent("support"), world.agent("other"));
    let begun = json!({"name": "search_customers", "arguments": {}, "task": {"ttl": 60000}});
    agent.rpc("oddmcp", "tools/call", begun).await.unwrap();
    let asked = agent.rpc("oddmcp", "tasks/get", json!({"taskId": "t-1"})).await.unwrap();
    assert_eq!(asked.json()["result"]["status"], "completed", "{asked:?}");
    let intent = world.record(&asked.record(), "intent");
    assert_eq!((&intent["tool"], &intent["class"]), (&json!("search_customers"), &json!("read")));
    for (agent, task) in [(&other, "t-1"), (&agent, "t-2")] {
        let refused = agent.rpc("oddmcp", "tasks/get", json!({"taskId": task})).await.unwrap();
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (200, &json!(-32602)));
        assert_eq!(world.record(&refused.record(), "refused")["reason"], "task-unknown");
    }
    assert_eq!(world.odd.seen().len(), 2);
    let list = agent.rpc("oddmcp", "tasks/list", json!({})).await.unwrap();
    assert_eq!(list.json()["result"]["tasks"], json!([{"taskId": "t-1"}]));
    world.join().await;
}

/// Answers each message by its id; knows batches of none.
async fn obliging() -> Fake {
    Fake::that(|seen| {
        let message = message(seen);
        match message.get("id") {
            Some(id) if id == 3 => {
                Does::Writes("HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n".to_owned())
            }
            Some(id) => {
                Does::Writes(reply(&format!("{{\"jsonrpc\":\"2.0\",\n\"id\":{id},\"result\":{{}}}}")))
            }
            None => Does::Writes(accepted()),
        }
    })
    .await
}

#[tokio::test]
async fn each_message_of_a_batch_is_decided_alone() {
    let world = World::odd(obliging().await, "", "").await;
    let agent = world.agent("support");
    let batch = json!([
        call(1, "search_customers", json!({})),
        call(2, "delete_customer", json!({"id": "C-1"})),
        call(3, "search_customers", json!({})),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/destroy"},
        {"jsonrpc": "2.0", "id": "5", "method": "ping"},
    ]);
    let headers = [("mcp-protocol-version", "2025-03-26")];
    let answer = agent.message("oddmcp", batch.to_string(), &headers).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.headers["content-type"].to_str().unwrap()),
        (200, "text/event-stream")
    );
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let mut told: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    told.sort_by_key(|message| message["id"].to_string());
    assert_eq!(told.len(), 5, "{text}");
    let by = |id: Value| told.iter().find(|message| message["id"] == id).unwrap();
    assert_eq!(by(json!(1))["result"], json!({}));
    assert_eq!(by(json!(2))["result"]["isError"], true, "it is held");
    assert_eq!(by(json!(3))["error"]["code"], -31010, "the upstream gave no answer");
    assert_eq!(by(json!(4))["error"]["code"], -32601);
    assert_eq!(by(json!("5"))["result"], json!({}));
    let seen: Vec<Value> = world.odd.seen().iter().map(message).collect();
    assert_eq!(seen.len(), 4, "what is held and what is unknown went nowhere: {seen:?}");
    assert!(seen.iter().all(Value::is_object));
    let of_calls = |record: &&Value| record["what"].is_null();
    let count =
        |kind: &str| world.records().iter().filter(of_calls).filter(|record| record["type"] == kind).count();
    assert_eq!((count("intent"), count("held"), count("refused")), (4, 1, 1));

    let told = agent
        .message("oddmcp", r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#, &headers)
        .await;
    assert_eq!(told.unwrap().status, 202);
    world.join().await;
}

#[tokio::test]
async fn a_batch_of_another_revision_or_shape_is_refused() {
    let opens = Fake::that(|seen| {
        let version = message(seen)["params"]["protocolVersion"].as_str().unwrap_or("2025-06-18").to_owned();
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"protocolVersion":"{version}"}}}}"#);
        Does::Writes(reply(&body).replacen("\r\n", &format!("\r\nmcp-session-id: s-{version}\r\n"), 1))
    })
    .await;
    let world = World::odd(opens, "", "").await;
    let agent = world.agent("support");
    for version in ["2025-03-26", "2025-06-18"] {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version}});
        agent.message("oddmcp", hello.to_string(), &[]).await.unwrap();
    }
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}});
    let many: Vec<Value> = std::iter::repeat_n(ping.clone(), 101).collect();
    let old = ("mcp-session-id", "s-2025-03-26");
    for (batch, headers) in [
        (json!([ping]), vec![LEGACY]),
        (json!([ping]), vec![("mcp-session-id", "s-2025-06-18")]),
        (json!([ping]), vec![old, LEGACY]),
        (json!([]), vec![old]),
        (json!([[ping]]), vec![old]),
        (json!([ping, begin]), vec![old]),
        (json!(many), vec![old]),
    ] {
        let answer = agent.message("oddmcp", batch.to_string(), &headers).await.unwrap();
        assert_eq!(answer.status, 400, "{batch} {headers:?}");
        assert_eq!(world.record(&answer.record(), "refused")["reason"], "batch");
    }
    assert_eq!(world.odd.seen().len(), 2);
    let foreign =
        agent.message("oddmcp", json!([ping]).to_string(), &[("mcp-session-id", "s-made-up")]).await;
    assert_eq!(foreign.unwrap().status, 404);
    let passed = agent.message("oddmcp", json!([ping]).to_string(), &[old]).await.unwrap();
    assert_eq!(passed.status, 200);
    eventually(|| world.odd.seen().len() == 3, "the ping of the session that has batches").await;
    world.join().await;
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// An upstream of the transport of 2024-11-05: the stream names this endpoint, and then says this when it is let go.
async fn old(endpoint: &'static str, then: &'static str) -> Fake {
    Fake::that(move |seen| match seen.head.starts_with("GET") {
        true => {
            Does::WritesThen(format!("{STREAM}event: endpoint\r\ndata: {endpoint}\r\n\r\n"), then.to_owned())
        }
        false => Does::Writes("HTTP/1.1 202 Accepted\r\ncontent-length: 8\r\n\r\nAccepted".to_owned()),
    })
    .await
}

async fn speaking_old(odd: Fake) -> World {
    let sse = format!(", sse: \"http://{}/old/sse\"", odd.address());
    World::odd(odd, &sse, "").await
}

const OPEN: &str = "GET /oddmcp/sse HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";

fn posted(endpoint: &str, message: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    http::Request::post(endpoint)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(message.to_owned().into())
        .unwrap()
}

#[tokio::test]
async fn a_session_of_the_oldest_transport_is_answered_on_its_stream() {
    const THEN: &str = "event: message\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"s1\",\"method\":\"sampling/createMessage\"}\r\n\r\n\
        event: message\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[],\"isError\":true}}\r\n\r\n\
        event: message\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\r\n\r\n";
    let world = speaking_old(old("messages/?sessionId=7", THEN).await).await;
    let mut stream = world.raw("support").await;
    stream.send(OPEN).await;
    assert!(stream.until("event: endpoint").await && stream.until("\n\n").await);
    assert!(!stream.text().contains("sessionId"), "the upstream's own endpoint is not the agent's to know");
    let text = stream.text();
    let endpoint = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().trim().to_owned();
    assert!(endpoint.starts_with("/oddmcp/messages?session="), "{endpoint}");

    let agent = world.agent("support");
    let taken =
        agent.send(posted(&endpoint, &call(1, "search_customers", json!({})).to_string())).await.unwrap();
    assert_eq!((taken.status.as_u16(), &*taken.body), (202, &b"Accepted"[..]));
    assert!(
        world.odd.seen()[1].head.starts_with("POST /old/messages/?sessionId=7 "),
        "{}",
        world.odd.seen()[1].head
    );
    let outcomes =
        |id: &str| world.records().iter().filter(|r| r["intent"] == id && r["type"] == "outcome").count();
    assert_eq!(outcomes(&taken.record()), 0, "what became of the call is not known yet");

    world.odd.go_on();
    assert!(stream.until("isError").await && stream.until("notifications/message").await);
    assert!(!stream.text().contains("sampling"), "{}", stream.text());
    let outcome = world.outcome(&taken);
    assert_eq!(outcome["status"], "tool-error", "{outcome:#}");
    world.odd.has_seen(3).await;
    let told = &world.odd.seen()[2];
    assert!(told.head.starts_with("POST /old/messages/?sessionId=7 "), "{}", told.head);
    assert_eq!((&message(told)["id"], &message(told)["error"]["code"]), (&json!("s1"), &json!(-31001)));

    // The session is the agent's alone, and it ends with its stream.
    let ping = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
    assert_eq!(world.agent("other").send(posted(&endpoint, ping)).await.unwrap().status, 404);
    assert_eq!(agent.send(posted("/oddmcp/messages?session=made-up", ping)).await.unwrap().status, 404);
    assert_eq!(agent.send(posted("/oddmcp/messages", ping)).await.unwrap().status, 404);
    assert_eq!(world.odd.seen().len(), 3);
    drop(stream);
    world.join().await;
}

#[tokio::test]
async fn a_call_of_the_oldest_transport_whose_stream_ends_has_no_outcome_but_that() {
    let world = speaking_old(old("/m", "").await).await;
    let mut stream = world.raw("support").await;
    stream.send(OPEN).await;
    assert!(stream.until("session=").await && stream.until("\n\n").await);
    let text = stream.text();
    let endpoint = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().trim().to_owned();
    let agent = world.agent("support");
    let held =
        agent.send(posted(&endpoint, &call(1, "delete_customer", json!({})).to_string())).await.unwrap();
    assert_eq!(held.json()["result"]["isError"], true, "{held:?}");
    let taken =
        agent.send(posted(&endpoint, &call(2, "search_customers", json!({})).to_string())).await.unwrap();
    assert_eq!(taken.status, 202);
    drop(stream);
    assert_eq!(world.eventually("abandoned").await["intent"], taken.record());
    eventually(|| world.odd.left() == 1, "the upstream's stream stayed open").await;
    world.join().await;
}

#[tokio::test]
async fn an_endpoint_of_somebody_else_ends_the_session_before_it_begins() {
    for endpoint in ["http://evil.example.com/messages", "//evil.example.com/messages"] {
        let world = speaking_old(old(endpoint, "").await).await;
        let mut stream = world.raw("support").await;
        stream.send(OPEN).await;
        assert!(!stream.until("evil").await, "{}", stream.text());
        assert_eq!(world.eventually("broken").await["withheld"], json!(["endpoint-foreign"]));
        world.join().await;
    }
}

#[tokio::test]
async fn a_stream_that_is_silent_for_hours_stays_up() {
    const EVENT: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n";
    let odd = Fake::that(|_| Does::WritesThen(format!("{STREAM}: open\n\n"), EVENT.to_owned())).await;
    let world = World::odd(odd, "", "").await;
    let mut stream = world.raw("support").await;
    let get = "GET /oddmcp/mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
    stream.send(get).await;
    assert!(stream.until(": open").await);
    tokio::time::pause();
    for _ in 0..300 {
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
    }
    tokio::time::resume();
    assert_eq!(world.odd.left(), 0, "the upstream's stream was left");
    world.odd.go_on();
    assert!(stream.until("notifications/message").await, "{}", stream.text());
    drop(stream);
    world.join().await;
}

#[tokio::test]
async fn an_agent_that_leaves_while_its_list_is_read_leaves_the_upstream_too() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    let odd = Fake::that(move |_| Does::WritesThen(head.to_owned(), String::new())).await;
    let world = World::odd(odd, "", "").await;
    let mut agent = world.raw("support").await;
    agent.message("oddmcp", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await;
    world.odd.has_seen(1).await;
    drop(agent);
    world.odd.was_left(1).await;
    world.eventually("client-gone").await;
    world.join().await;
}
