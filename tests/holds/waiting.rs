//! How clients wait, rung by rung, and how an approval reaches them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdpoint::demo::agent::{Agent, Answer};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::*;

async fn preferring(agent: &Agent, prefer: &str, body: &str) -> Answer {
    let request = Request::post("/crm/v1/invoices").header("host", "localhost").header("prefer", prefer);
    let request = request.header("content-type", "application/json");
    agent.send(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_legacy_client_waits_on_a_stream_and_gets_its_result() {
    let world = World::patient().await;
    let agent = Arc::new(world.agent("support"));
    let waiting = calls(&agent, "send_email", json!({"to": "bob@example.com"}));
    let hold = world.pending(1).await.remove(0);
    // Beyond the time in which a plain reply was still possible.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!waiting.is_finished());
    world.approved("olga", &hold).await;
    let told = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!(told["result"]["content"][0]["text"], "sent to \"bob@example.com\"", "{told:#}");
    assert_eq!(world.ran(), 1);
    world.join().await;
}

#[tokio::test]
async fn a_legacy_client_that_asks_for_progress_is_told_that_its_call_waits() {
    let world = World::patient().await;
    let agent = world.agent("support");
    let params = json!({"name": "countdown", "arguments": {"from": 2}, "_meta": {"progressToken": "p\"7"}});
    let waiting = tokio::spawn(async move { agent.rpc("mail", "tools/call", params).await.unwrap() });
    let hold = world.pending(1).await.remove(0);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.approved("olga", &hold).await;
    let answer = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.starts_with(": waiting\n\n"), "{text}");
    let messages: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let progress: Vec<f64> = messages
        .iter()
        .filter(|message| message["method"] == "notifications/progress")
        .inspect(|message| assert_eq!(message["params"]["progressToken"], "p\"7"))
        .map(|message| message["params"]["progress"].as_f64().unwrap())
        .collect();
    assert_eq!(progress.len(), 3, "one of the gateway and two of the upstream: {text}");
    assert!(progress.is_sorted_by(|one, other| one < other), "{progress:?}");
    assert_eq!(message(&answer)["result"]["content"][0]["text"], "lift-off");
    assert_eq!(answer.headers["x-accel-buffering"], "no");
    world.join().await;
}

#[tokio::test]
async fn a_denial_reaches_whoever_waits() {
    let world = World::patient().await;
    let agent = Arc::new(world.agent("support"));
    let waiting = calls(&agent, "send_email", json!({"to": "bob@example.com"}));
    let hold = world.pending(1).await.remove(0);
    world.says("olga", "deny", &hold).await;
    let told = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!((outcome(&told).as_str(), world.ran()), ("denied", 0));
    world.join().await;
}

#[tokio::test]
async fn an_instant_decision_is_answered_as_if_nothing_had_waited() {
    let world = World::patient().await;
    let agent = world.agent("support");
    let call =
        tokio::spawn(async move { agent.tool("mail", "send_email", json!({"to": "b"})).await.unwrap() });
    let hold = world.pending(1).await.remove(0);
    let begun = Instant::now();
    world.approved("olga", &hold).await;
    let answer = tokio::time::timeout(SOON, call).await.unwrap().unwrap();
    println!("from the approval to the reply: {:?}", begun.elapsed());
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!((outcome(&answer.json()).as_str(), world.ran()), ("allowed", 1));
    let seen = world.mail.seen();
    assert_eq!(seen[0].headers["idempotency-key"], hold["id"].as_str().unwrap());
    world.join().await;
}

#[tokio::test]
async fn a_modern_client_comes_back_with_a_state_that_only_the_gateway_can_make() {
    let world = World::with("wait: 3s").await;
    let agent = world.agent("support");
    let params = json!({"name": "send_email", "arguments": {"to": "bob@example.com"}});
    let first = modern_call(&agent, params.clone()).await.json();
    assert_eq!(first["result"]["resultType"], "input_required", "{first:#}");
    let state = first["result"]["requestState"].as_str().unwrap().to_owned();
    assert!(first["result"].get("inputRequests").is_none());
    let with = |state: &str, to: &str| json!({"name": "send_email", "arguments": {"to": to}, "requestState": state, "inputResponses": {}});
    let other = if &state[40..41] == "A" { "B" } else { "A" };
    let forged = format!("{}{other}{}", &state[..40], &state[41..]);
    // Forged, or of another call or agent: refused, and nothing waits for it.
    for (agent, params) in [
        (&agent, with(&forged, "bob@example.com")),
        (&agent, with(&state, "eve@example.com")),
        (&world.agent("other"), with(&state, "bob@example.com")),
    ] {
        let refused = modern_call(agent, params).await;
        assert_eq!(refused.json()["error"]["code"], -32602, "{refused:?}");
    }
    let hold = world.pending(1).await.remove(0);
    let second = modern_call(&agent, with(&state, "bob@example.com")).await.json();
    assert_eq!(second["result"]["resultType"], "input_required");
    assert_ne!(second["result"]["requestState"], state.as_str());
    world.approved("olga", &hold).await;
    let state = second["result"]["requestState"].as_str().unwrap();
    let done = modern_call(&agent, with(state, "bob@example.com")).await.json();
    assert_eq!(done["result"]["resultType"], "complete", "{done:#}");
    assert_eq!(world.ran(), 1);
    let sent: Value = serde_json::from_slice(&world.mail.seen()[0].body).unwrap();
    assert!(sent["params"].get("requestState").is_none(), "the gateway's state is its own: {sent:#}");
    world.join().await;
}

#[tokio::test]
async fn plain_http_waits_as_long_as_it_prefers_and_the_repeat_joins() {
    let world = World::patient().await;
    let (agent, repeating) = (world.agent("support"), world.agent("support"));
    let waiting = tokio::spawn(async move { preferring(&agent, "wait=60", "{\"total\": 1}").await });
    let hold = world.pending(1).await.remove(0);
    let told = preferring(&repeating, "wait=1", "{ \"total\":1 }").await;
    assert_eq!(told.status, 503, "{told:?}");
    assert!(told.headers.contains_key("retry-after"));
    assert_eq!(told.json()["type"], "urn:holdpoint:problem:hold-pending");
    assert_eq!(world.pending(1).await[0]["id"], hold["id"]);
    // Numbers are compared as they were written.
    let other = preferring(&repeating, "wait=0", "{\"total\":1.0}").await;
    assert_eq!(other.status, 503);
    assert_eq!(world.pending(2).await.len(), 2);
    world.approved("olga", &hold).await;
    let done = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!((done.status.as_u16(), world.ran()), (201, 1));
    assert!(!world.crm.seen()[0].headers.contains_key("prefer"));
    let again = preferring(&repeating, "wait=1", "{\"total\":1}").await;
    assert_eq!((again.status.as_u16(), world.ran()), (409, 1), "it was done already: {again:?}");
    world.join().await;
}

#[tokio::test]
async fn plain_http_that_asks_not_to_wait_is_told_where_to_look() {
    let world = World::patient().await;
    let agent = world.agent("support");
    let told = preferring(&agent, "respond-async", "{\"total\": 1}").await;
    assert_eq!(told.status, 202, "{told:?}");
    let location = told.headers["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with("/.well-known/holdpoint/holds/"), "{location}");
    let hold = world.pending(1).await.remove(0);
    assert_eq!(agent.http("GET", &location, None).await.unwrap().json()["state"], "pending");
    world.approved("olga", &hold).await;
    assert_eq!(agent.http("GET", &location, None).await.unwrap().json()["state"], "approved");
    assert_eq!(world.ran(), 0, "it runs when its agent is there to receive it");
    assert_eq!(preferring(&agent, "respond-async", "{\"total\": 1}").await.status, 201);
    let status = agent.http("GET", &location, None).await.unwrap().json();
    assert_eq!((&status["state"], world.ran()), (&json!("executed"), 1), "{status:#}");
    world.join().await;
}

#[tokio::test]
async fn the_same_idempotency_key_with_other_bytes_is_refused() {
    let world = World::start().await;
    let agent = world.agent("support");
    let send = async |key: &str, total: u32| {
        let request =
            Request::post("/crm/v1/invoices").header("host", "localhost").header("idempotency-key", key);
        let request = request.header("content-type", "application/json");
        agent
            .send(request.body(Full::new(Bytes::from(json!({"total": total}).to_string()))).unwrap())
            .await
            .unwrap()
    };
    assert_eq!(send("k-1", 1).await.status, 503);
    assert_eq!(send("k-1", 2).await.status, 422);
    assert_eq!(send("k-1", 1).await.status, 503);
    let hold = world.pending(1).await.remove(0);
    world.approved("olga", &hold).await;
    assert_eq!(send("k-1", 1).await.status, 201);
    assert_eq!(world.crm.seen()[0].headers["idempotency-key"], "k-1", "the agent's own is never overwritten");
    assert_eq!(world.ran(), 1);
    world.join().await;
}

#[tokio::test]
async fn what_streams_unread_cannot_be_approved() {
    let world = World::start().await;
    let request = Request::put("/crm/echo")
        .header("host", "localhost")
        .header("content-type", "application/octet-stream");
    let answer =
        world.agent("support").send(request.body(Full::new(Bytes::from("x"))).unwrap()).await.unwrap();
    assert_eq!((answer.status.as_u16(), world.ran()), (403, 0), "{answer:?}");
    assert_eq!(world.pending(0).await.len(), 0);
    world.join().await;
}

fn tasks() -> Value {
    json!({"extensions": {"io.modelcontextprotocol/tasks": {}}})
}

#[tokio::test]
async fn a_client_that_declares_tasks_is_given_one_and_its_first_question_after_the_approval_runs_it() {
    let world = World::patient().await;
    let agent = world.agent("support");
    let params =
        json!({"name": "send_email", "arguments": {"to": "bob@example.com", "n": 9_007_199_254_740_993_u64}});
    let begun = modern_request(&agent, "tools/call", "send_email", params, tasks()).await.json();
    assert_eq!(
        (&begun["result"]["resultType"], &begun["result"]["status"]),
        (&json!("task"), &json!("working"))
    );
    let task = begun["result"]["taskId"].as_str().unwrap().to_owned();
    let ask = async |agent: &Agent, method: &str| {
        modern_request(agent, method, &task, json!({"taskId": task}), tasks()).await.json()
    };
    assert_eq!(ask(&agent, "tasks/get").await["result"]["status"], "working");
    assert_eq!(
        ask(&world.agent("other"), "tasks/get").await["error"]["code"],
        -32602,
        "a task is its agent's"
    );
    assert_eq!(ask(&world.agent("other"), "tasks/cancel").await["error"]["code"], -32602);
    let hold = world.pending(1).await.remove(0);
    world.approved("olga", &hold).await;
    assert_eq!(world.ran(), 0, "nobody has asked since");
    let done = ask(&agent, "tasks/get").await;
    assert_eq!(done["result"]["status"], "completed", "{done:#}");
    assert_eq!(done["result"]["result"]["content"][0]["text"], "sent to \"bob@example.com\"");
    assert_eq!(ask(&agent, "tasks/get").await["result"]["result"], done["result"]["result"], "it is kept");
    assert_eq!(world.ran(), 1);
    let sent = String::from_utf8(world.mail.seen()[0].body.to_vec()).unwrap();
    assert!(sent.contains("9007199254740993"), "{sent}");
    world.join().await;
}

#[tokio::test]
async fn a_task_that_is_cancelled_is_withdrawn_and_never_runs() {
    let world = World::patient().await;
    let agent = world.agent("support");
    let params = json!({"name": "send_email", "arguments": {"to": "bob@example.com"}});
    let begun = modern_request(&agent, "tools/call", "send_email", params, tasks()).await.json();
    let task = begun["result"]["taskId"].as_str().unwrap().to_owned();
    let hold = world.pending(1).await.remove(0);
    let ask = async |method: &str| {
        modern_request(&agent, method, &task, json!({"taskId": task}), tasks()).await.json()
    };
    assert_eq!(ask("tasks/cancel").await["result"]["resultType"], "complete");
    assert_eq!(ask("tasks/get").await["result"]["status"], "cancelled");
    assert_eq!(world.says("olga", "approve", &hold).await.status, 409);
    assert_eq!((ask("tasks/get").await["result"]["status"].as_str(), world.ran()), (Some("cancelled"), 0));
    world.join().await;
}

#[tokio::test]
async fn people_are_not_shown_what_an_agent_proves_itself_with() {
    let world = World::start().await;
    let agent = world.agent("support");
    let send = async |key: &str| {
        let request = Request::post("/crm/v1/invoices").header("host", "localhost").header("x-api-key", key);
        let request = request.header("content-type", "application/json");
        agent.send(request.body(Full::new(Bytes::from("{}"))).unwrap()).await.unwrap()
    };
    send("very-secret-1").await;
    let hold = world.pending(1).await.remove(0);
    let shown = world.hold(hold["id"].as_str().unwrap()).await;
    assert!(!shown.to_string().contains("very-secret"), "{shown:#}");
    world.approved("olga", &hold).await;
    assert_eq!(send("very-secret-2").await.status, 503, "with another one it is another call");
    assert_eq!(send("very-secret-1").await.status, 201);
    assert_eq!(world.ran(), 1);
    world.join().await;
}
