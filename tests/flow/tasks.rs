//! Task scopes: what an orchestrator grants, who may show its token, and that a token only adds.

use holdpoint::config::{self, ListenerKind};
use holdpoint::demo::agent::{Agent, Answer};
use serde_json::{Value, json};

use crate::world::{FIGURES, KEY, World, mail};

const SUPPORT: &str = "spiffe://example.org/agent/support";
const OTHER: &str = "spiffe://example.org/agent/other";

fn task(agent: &str, to: &[&str]) -> Value {
    json!({"agent": agent, "destinations": to, "purpose": "the quarterly report", "ttl": "30m"})
}

/// A tool call under a task.
async fn call(agent: &Agent, token: &str, upstream: &str, tool: &str, arguments: Value) -> Answer {
    let params = json!({"name": tool, "arguments": arguments});
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let headers = [("mcp-protocol-version", "2025-11-25"), ("holdpoint-task", token)];
    agent.message(upstream, message.to_string(), &headers).await.unwrap()
}

async fn send(agent: &Agent, token: &str, to: &str, body: &str) -> Answer {
    call(agent, token, "mail", "send_email", mail(to, body)).await
}

#[tokio::test]
async fn what_a_task_names_is_known_in_its_run_and_nothing_else_is() {
    let world = World::start().await;
    let agent = world.agent("support");
    let granted = json!({"agent": SUPPORT, "destinations": ["Bank <reports@bank.test>"], "systems": ["mail", "drive"],
        "purpose": "the quarterly report", "ttl": "30m"});
    let token = world.token(granted).await;
    call(&agent, &token, "drive", "read_drive", json!({})).await;
    let sent = send(&agent, &token, "reports@bank.test", FIGURES).await;
    assert_eq!((sent.outcome().as_str(), world.count("send_email")), ("allowed", 1));
    let record = world.record(&sent);
    let task = &record["input"]["task"];
    assert_eq!(task["purpose"], "the quarterly report");
    assert_eq!(task["systems"], json!(["drive", "mail"]));
    assert_eq!(record["run"], format!("task:{}", task["id"].as_str().unwrap()));
    let seen = world.upstream.seen();
    assert!(!seen.last().unwrap().head.to_lowercase().contains("holdpoint-task"), "the token stays here");
    // Another destination, and the same one without the token, wait for people.
    assert_eq!(send(&agent, &token, "eve@bank.test", FIGURES).await.outcome(), "pending");
    assert_eq!(crate::world::send(&agent, "reports@bank.test", FIGURES).await.outcome(), "pending");
    assert_eq!(world.count("send_email"), 1);
    let opened = world.records().into_iter().find(|record| record["type"] == "task").unwrap();
    assert_eq!(
        (&opened["what"], &opened["by"]["id"]),
        (&json!("open"), &json!("spiffe://jobs.example.org/planner"))
    );
    assert!(!opened.to_string().contains("bank.test"), "{opened}");
}

#[tokio::test]
async fn a_token_that_does_not_hold_refuses_the_call_and_nothing_is_sent() {
    let mut world = World::start().await;
    let support = world.agent("support");
    let opened = world.opens("planner", task(SUPPORT, &["bob@partner.test"])).await.json();
    let (id, token) =
        (opened["id"].as_str().unwrap().to_owned(), opened["token"].as_str().unwrap().to_owned());
    let refused = async |agent: &Agent, token: &str, reason: &str| {
        let answer = send(agent, token, "ana@example.org", "hello").await;
        assert_eq!(answer.outcome(), "denied", "{reason}: {answer:?}");
        let record = world.record(&answer);
        assert_eq!((&record["type"], &record["reason"]), (&json!("refused"), &json!(reason)), "{record}");
        assert!(token.len() < 9 || !record.to_string().contains(token), "{record}");
    };
    refused(&world.agent("other"), &token, "task-agent").await;
    let (signed, _) = token.rsplit_once('.').unwrap();
    refused(&support, &format!("{signed}.AAAA"), "task-forged").await;
    refused(&support, "me", "task-forged").await;
    let bound = json!({"agent": SUPPORT, "purpose": "x", "ttl": "30m", "instance": "0badcafe"});
    refused(&support, &world.token(bound).await, "task-instance").await;
    let short = json!({"agent": SUPPORT, "purpose": "x", "ttl": "1s"});
    let short = world.token(short).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    refused(&support, &short, "task-over").await;
    // Another orchestrator's task is not there to close.
    let close = format!("/v1/tasks/{id}");
    let rival = world.at(ListenerKind::Tasks, "rival").http("DELETE", &close, None).await.unwrap();
    assert_eq!(rival.status, 404);
    let closed = world.at(ListenerKind::Tasks, "planner").http("DELETE", &close, None).await.unwrap();
    assert_eq!(closed.status, 200, "{closed:?}");
    refused(&support, &token, "task-over").await;
    assert!(world.upstream.seen().is_empty(), "{:?}", world.arrived());
    world.down().await;
    world.up().await;
    assert_eq!(
        send(&world.agent("support"), &token, "ana@example.org", "x").await.outcome(),
        "denied",
        "for good"
    );
}

#[tokio::test]
async fn a_token_takes_nothing_away_from_what_was_read_without_it_or_under_another() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    let (clean, other) =
        (world.token(task(SUPPORT, &["bob@partner.test"])).await, world.token(task(SUPPORT, &[])).await);
    let later = world.token(task(OTHER, &["bob@partner.test"])).await;
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    call(&agent, &other, "drive", "read_vault", json!({})).await;
    assert_eq!(send(&agent, &clean, "eve@new.test", FIGURES).await.outcome(), "pending");
    // A grant is for no secret: that is what people are asked for.
    let held = send(&agent, &clean, "bob@partner.test", &format!("the key: {KEY}")).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
    assert!(world.findings(&held).contains(&"secret-lineage".to_owned()));
    // What a task grants is still so after a restart, and so is what was read.
    world.agent("other").tool("drive", "read_drive", json!({})).await.unwrap();
    world.down().await;
    world.up().await;
    assert_eq!(send(&world.agent("support"), &clean, "eve@new.test", FIGURES).await.outcome(), "pending");
    let other = world.agent("other");
    assert_eq!(send(&other, &later, "bob@partner.test", FIGURES).await.outcome(), "allowed");
    assert_eq!(send(&other, &later, "eve@new.test", FIGURES).await.outcome(), "pending");
    assert_eq!(world.count("send_email"), 1);
}

#[tokio::test]
async fn a_task_below_another_inherits_what_was_read_there_and_ends_with_it() {
    let world = World::start().await;
    let parent = world.opens("planner", task(SUPPORT, &[])).await.json();
    let mut below = task(OTHER, &[]);
    below["parent"] = parent["id"].clone();
    let rival = world.opens("rival", below.clone()).await;
    assert_eq!(rival.status, 404, "a task of another orchestrator is nobody's parent");
    let child = world.token(below).await;
    let (reader, sender) = (world.agent("support"), world.agent("other"));
    call(&reader, parent["token"].as_str().unwrap(), "drive", "read_drive", json!({})).await;
    let held = send(&sender, &child, "partner@new.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
    // Leaving the token away changes nothing.
    assert_eq!(crate::world::send(&sender, "p2@new.test", FIGURES).await.outcome(), "pending");
    let close = format!("/v1/tasks/{}", parent["id"].as_str().unwrap());
    world.at(ListenerKind::Tasks, "planner").http("DELETE", &close, None).await.unwrap();
    let denied = send(&sender, &child, "ana@example.org", "x").await;
    assert_eq!((denied.outcome().as_str(), world.count("send_email")), ("denied", 0));
}

#[tokio::test]
async fn only_orchestrators_reach_the_listener_and_only_tasks_are_there() {
    let mut world = World::prepared("{}").await;
    world.people = true;
    world.up().await;
    for stranger in ["support", "oda"] {
        let answer =
            world.at(ListenerKind::Tasks, stranger).http("POST", "/v1/tasks", Some(task(SUPPORT, &[]))).await;
        assert!(answer.is_err(), "{stranger}: {answer:?}");
    }
    assert!(world.at(ListenerKind::Admin, "planner").http("GET", "/v1/holds", None).await.is_err());
    let planner = world.at(ListenerKind::Tasks, "planner");
    for path in ["/v1/holds", "/v1/agents", "/", "/openapi.json"] {
        assert_eq!(planner.http("GET", path, None).await.unwrap().status, 404, "{path}");
    }
    let wrong = [
        (json!({"agent": "spiffe://example.org/nobody", "purpose": "x", "ttl": "1m"}), 404),
        (json!({"purpose": "x", "ttl": "1m"}), 400),
        (json!({"agent": SUPPORT, "purpose": "", "ttl": "1m"}), 400),
        (json!({"agent": SUPPORT, "purpose": "x", "ttl": "25h"}), 400),
        (json!({"agent": SUPPORT, "purpose": "x", "ttl": "1m", "destinations": ["*@bank.test"]}), 400),
        (json!({"agent": SUPPORT, "purpose": "x", "ttl": "1m", "systems": ["nowhere"]}), 400),
        (json!({"agent": SUPPORT, "purpose": "x", "ttl": "1m", "isolated": true}), 400),
        (json!({"agent": SUPPORT, "purpose": "x", "ttl": "1m", "admin": true}), 400),
    ];
    for (body, status) in wrong {
        let answer = world.opens("planner", body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    // One root cannot vouch for two kinds of peers.
    let file = world.config();
    let text = std::fs::read_to_string(&file).unwrap().replace("pki/jobs.pem", "pki/people.pem");
    std::fs::write(&file, text).unwrap();
    let mistakes = config::load(&file).err().unwrap();
    assert!(mistakes.iter().any(|mistake| mistake.path.starts_with("trust.domains")), "{mistakes:#?}");
}
