//! Who decides, and what their votes do.

use std::time::Duration;

use holdpoint::call::RecordId;
use holdpoint::store::Store as _;
use holdpoint::store::holds::{Claim, Holds as _};
use holdpoint::store::sqlite::Sqlite;
use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::*;

async fn held(world: &World, tool: &str, arguments: Value) -> Value {
    let before = world.holds("oda", "pending").await.len();
    world.agent("support").tool("mail", tool, arguments).await.unwrap();
    world.pending(before + 1).await.pop().unwrap()
}

#[tokio::test]
async fn consequence_four_needs_two_people_and_their_reasons() {
    let world = World::start().await;
    let call =
        async || world.agent("support").tool("mail", "delete_customer", json!({"id": 1})).await.unwrap();
    let hold = held(&world, "delete_customer", json!({"id": 1})).await;
    assert_eq!((&hold["quorum"], &hold["approvers"]), (&json!(2), &json!(["oncall"])));
    let path = format!("/v1/holds/{}/approve", hold["id"].as_str().unwrap());
    let silent =
        world.person("olga").http("POST", &path, Some(json!({"digest": hold["digest"]}))).await.unwrap();
    assert_eq!(silent.status, 400, "consequence 4 needs a reason: {silent:?}");
    world.approved("olga", &hold).await;
    assert_eq!(world.says("olga", "approve", &hold).await.status, 409, "nobody votes twice");
    assert_eq!((outcome(&call().await.json()).as_str(), world.ran()), ("pending", 0));
    // Who runs the agent does not decide its gravest calls; its business owner does.
    assert_eq!(world.says("sre", "approve", &hold).await.status, 403);
    world.approved("ana", &hold).await;
    assert_eq!((outcome(&call().await.json()).as_str(), world.ran()), ("allowed", 1));
    let votes = world.records().into_iter().filter(|record| record["type"] == "vote").collect::<Vec<_>>();
    assert_eq!(votes.len(), 2);
    assert!(
        votes.iter().all(|vote| vote["seen"] == hold["digest"] && vote["by"]["evidence"] != ""),
        "{votes:#?}"
    );
    world.join().await;
}

#[tokio::test]
async fn one_denial_ends_it_and_the_agent_is_told() {
    let world = World::start().await;
    let hold = held(&world, "send_email", json!({"to": "bob@example.com"})).await;
    let path = format!("/v1/holds/{}/deny", hold["id"].as_str().unwrap());
    let silent =
        world.person("olga").http("POST", &path, Some(json!({"digest": hold["digest"]}))).await.unwrap();
    assert_eq!(silent.status, 400, "a denial needs a reason");
    assert_eq!(world.says("olga", "deny", &hold).await.status, 200);
    assert_eq!(world.says("oda", "approve", &hold).await.status, 409, "it is over");
    let answer =
        world.agent("support").tool("mail", "send_email", json!({"to": "bob@example.com"})).await.unwrap();
    let told = answer.json();
    assert_eq!((outcome(&told).as_str(), &told["result"]["isError"]), ("denied", &json!(true)));
    assert_eq!(world.ran(), 0);
    let shown = world.hold(hold["id"].as_str().unwrap()).await;
    assert_eq!(shown["text"], Value::Null, "what was held is erased");
    assert!(shown["hold"]["detail"].as_str().unwrap().contains("olga"), "{shown:#}");
    world.join().await;
}

#[tokio::test]
async fn nobody_decides_from_anywhere_else() {
    let world = World::start().await;
    let hold = held(&world, "send_email", json!({"to": "bob@example.com"})).await;
    let path = format!("/v1/holds/{}/approve", hold["id"].as_str().unwrap());
    let body = || Some(json!({"digest": hold["digest"], "reason": "mine"}));
    // An auditor sees it and decides nothing.
    assert_eq!(
        world.person("auditor").http("POST", &path, body()).await.unwrap().status,
        StatusCode::FORBIDDEN
    );
    // An agent finds nothing of the kind on its listener, and is nobody on the other.
    let agent = world.agent("support");
    assert_eq!(agent.http("POST", &path, body()).await.unwrap().status, StatusCode::NOT_FOUND);
    assert!(world.stranger("support").http("POST", &path, body()).await.is_err());
    // Whoever is root on the machine stops agents, and approves nothing.
    let socket = world.dir.join("admin.sock");
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let body = http_body_util::Full::new(bytes::Bytes::from(body().unwrap().to_string()));
    let request =
        http::Request::post(&path).header("host", "localhost").header("content-type", "application/json");
    let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.pending(1).await[0]["votes"], json!([]));
    assert_eq!(world.ran(), 0);
    world.join().await;
}

#[tokio::test]
async fn one_agent_cannot_flood_people() {
    let world = World::with("wait: 0s, pending_max: 3").await;
    let agent = world.agent("support");
    for number in 0..3 {
        agent.tool("mail", "send_email", json!({"to": number})).await.unwrap();
    }
    let over = agent.tool("mail", "send_email", json!({"to": "one more"})).await.unwrap();
    assert_eq!(outcome(&over.json()), "limited", "{over:?}");
    let same = agent.tool("mail", "send_email", json!({"to": 1})).await.unwrap();
    assert_eq!(outcome(&same.json()), "pending", "what waits already is joined");
    world.agent("other").tool("mail", "send_email", json!({"to": 1})).await.unwrap();
    assert_eq!((world.pending(4).await.len(), world.ran()), (4, 0));
    world.join().await;
}

#[tokio::test]
async fn what_was_decided_survives_a_restart() {
    let mut world = World::start().await;
    let call = async |world: &World, to: &str| {
        outcome(&world.agent("support").tool("mail", "send_email", json!({"to": to})).await.unwrap().json())
    };
    for to in ["a", "b", "c"] {
        assert_eq!(call(&world, to).await, "pending");
    }
    let holds = world.pending(3).await;
    world.approved("olga", &holds[0]).await;
    world.says("olga", "deny", &holds[1]).await;
    world.restart().await;
    assert_eq!((call(&world, "a").await, world.ran()), ("allowed".to_owned(), 1));
    assert_eq!(call(&world, "b").await, "denied");
    assert_eq!(call(&world, "c").await, "pending");
    world.restart().await;
    assert_eq!((call(&world, "a").await, world.ran()), ("executed".to_owned(), 1));
    let held: Vec<_> = world.records().into_iter().filter(|record| record["what"] == "opened").collect();
    assert_eq!(held.len(), 3, "each change is in the audit once");
    world.join().await;
}

/// As if a gateway had been killed after it had taken a hold: the store says that it executes, and nobody does.
async fn taken_by_a_gateway_that_died(world: &World, hold: &Value) {
    let store = Sqlite::open(&world.dir.join("state/holdpoint.db")).await.unwrap();
    let id = RecordId::parse(hold["id"].as_str().unwrap()).unwrap();
    let digest = store.hold(id).await.unwrap().unwrap().digest;
    let claim = Claim { by: "dead".to_owned(), time: Duration::from_secs(3600), record: RecordId::new() };
    assert!(store.release(id, digest, claim).await.unwrap().is_some());
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_execution_whose_gateway_died_is_not_done_again_unless_that_does_no_harm() {
    let mut world = World::start().await;
    let call = async |world: &World, tool: &str| {
        let answer =
            world.agent("support").tool("mail", tool, json!({"to": "bob@example.com"})).await.unwrap();
        answer.json()
    };
    for tool in ["send_email", "read_again"] {
        call(&world, tool).await;
    }
    let holds = world.pending(2).await;
    for hold in &holds {
        world.approved("olga", hold).await;
    }
    world.down().await;
    for hold in &holds {
        taken_by_a_gateway_that_died(&world, hold).await;
    }
    world.up().await;
    let told = call(&world, "send_email").await;
    assert!(told["result"]["content"][0]["text"].as_str().unwrap().contains("not known"), "{told:#}");
    assert_eq!(world.ran(), 0, "a person must find out");
    assert_eq!(world.story(&holds[0]["id"]).last().unwrap(), "held ended indeterminate");
    call(&world, "read_again").await;
    assert_eq!(world.ran(), 1, "doing it twice is doing it once, so the approval stands");
    world.join().await;
}
