//! Isolated tasks: one certificate works apart, and is judged by what it has read, by what was read above it, and by
//! secrets. Nothing that an agent chooses makes it so.

use holdpoint::demo::agent::{Agent, Answer};
use holdpoint::pki;
use serde_json::{Value, json};

use crate::world::{FIGURES, KEY, World, mail};

const SUPPORT: &str = "spiffe://example.org/agent/support";
const OTHER: &str = "spiffe://example.org/agent/other";
const MINUTES: &str = "Minutes of the board: the merger with Nordwind stays confidential until the spring.";

/// A tool call that shows a token.
async fn call(agent: &Agent, token: &str, upstream: &str, tool: &str, arguments: Value) -> Answer {
    let params = json!({"name": tool, "arguments": arguments});
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let headers = [("mcp-protocol-version", "2025-11-25"), ("holdpoint-task", token)];
    agent.message(upstream, message.to_string(), &headers).await.unwrap()
}

async fn send(agent: &Agent, token: &str, to: &str, body: &str) -> Answer {
    call(agent, token, "mail", "send_email", mail(to, body)).await
}

/// A further certificate of an agent, under a name of its own.
fn certificate(world: &World, of: &str, name: &str) {
    let file = |stem: &str, end: &str| world.dir.join("pki").join(format!("{stem}{end}.pem"));
    for end in ["", "-key"] {
        std::fs::rename(file(of, end), file("aside", end)).unwrap();
    }
    pki::issue_agent(&world.dir.join("pki"), &format!("agent/{of}")).unwrap();
    for end in ["", "-key"] {
        std::fs::rename(file(of, end), file(name, end)).unwrap();
        std::fs::rename(file("aside", end), file(of, end)).unwrap();
    }
}

/// The serial number of whoever calls, as records have it. The call brings nothing.
async fn serial(world: &World, agent: &Agent) -> String {
    let answer = agent.tool("mail", "note", json!({})).await.unwrap();
    world.record(&answer)["agent"]["instance"].as_str().unwrap().to_owned()
}

fn isolated(agent: &str, serial: &str) -> Value {
    json!({"agent": agent, "purpose": "one letter", "ttl": "30m", "instance": serial, "isolated": true})
}

#[tokio::test]
async fn an_isolated_run_is_not_held_for_what_another_run_of_its_agent_read() {
    let mut world = World::start().await;
    certificate(&world, "support", "apart");
    let (support, apart) = (world.agent("support"), world.agent("apart"));
    let number = serial(&world, &apart).await;
    let token = world.token(isolated(SUPPORT, &number)).await;
    support.tool("drive", "read_drive", json!({})).await.unwrap();
    let sent = send(&apart, &token, "partner@new.test", FIGURES).await;
    assert_eq!((sent.outcome().as_str(), world.count("send_email")), ("allowed", 1));
    let record = world.record(&sent);
    assert_eq!(record["labels"], json!([]), "{record}");
    // It is the same after a restart.
    world.down().await;
    world.up().await;
    let (support, apart) = (world.agent("support"), world.agent("apart"));
    let sent = send(&apart, &token, "partner@new.test", FIGURES).await;
    assert_eq!((sent.outcome().as_str(), world.count("send_email")), ("allowed", 2));
    assert_eq!(world.record(&sent)["labels"], json!([]));
    // The same certificate without the token, and with one that isolates nothing, is its agent like any other.
    let bound = json!({"agent": SUPPORT, "purpose": "x", "ttl": "30m", "instance": number});
    let bound = world.token(bound).await;
    assert_eq!(send(&apart, &bound, "partner@new.test", FIGURES).await.outcome(), "pending");
    assert_eq!(crate::world::send(&apart, "partner@new.test", FIGURES).await.outcome(), "pending");
    assert_eq!(crate::world::send(&support, "partner@new.test", FIGURES).await.outcome(), "pending");
    assert_eq!(world.count("send_email"), 2);
    let opened = world.records().into_iter().find(|record| record["type"] == "task").unwrap();
    assert_eq!(opened["isolated"], true, "{opened}");
}

#[tokio::test]
async fn an_isolated_run_is_held_for_what_it_read_itself_and_so_is_every_other_run_of_its_agent() {
    let mut world = World::start().await;
    certificate(&world, "support", "apart");
    let (support, apart) = (world.agent("support"), world.agent("apart"));
    let number = serial(&world, &apart).await;
    let token = world.token(isolated(SUPPORT, &number)).await;
    call(&apart, &token, "drive", "read_drive", json!({})).await;
    let held = send(&apart, &token, "partner@new.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.findings(&held)), ("pending", vec!["lineage".to_owned()]));
    // Isolation takes nothing from what the others are judged by.
    let held = crate::world::send(&support, "p2@new.test", MINUTES).await;
    assert_eq!(held.outcome(), "pending");
    assert!(world.findings(&held).contains(&"lineage".to_owned()));
    world.down().await;
    world.up().await;
    for agent in ["apart", "support"] {
        let agent = world.agent(agent);
        let headers = if serial(&world, &agent).await == number { token.as_str() } else { "" };
        let held = match headers {
            "" => crate::world::send(&agent, "p3@new.test", MINUTES).await,
            token => send(&agent, token, "p3@new.test", MINUTES).await,
        };
        assert_eq!(held.outcome(), "pending");
        assert!(world.findings(&held).contains(&"lineage".to_owned()), "after a restart");
    }
    assert_eq!(world.count("send_email"), 0);
}

#[tokio::test]
async fn an_agent_cannot_isolate_what_it_reads_by_leaving_the_token_out_or_showing_another() {
    let mut world = World::start().await;
    certificate(&world, "support", "apart");
    let apart = world.agent("apart");
    let number = serial(&world, &apart).await;
    let before = world.token(isolated(SUPPORT, &number)).await;
    call(&apart, &before, "drive", "read_drive", json!({})).await;
    apart.tool("mail", "read_inbox", json!({})).await.unwrap();
    // A task that is opened for the same certificate afterwards cleans nothing either.
    let token = world.token(isolated(SUPPORT, &number)).await;
    let held = send(&apart, &token, "partner@new.test", FIGURES).await;
    assert_eq!(held.outcome(), "pending");
    assert!(world.findings(&held).contains(&"lineage".to_owned()), "read under the other token");
    world.down().await;
    world.up().await;
    let apart = world.agent("apart");
    let held = send(&apart, &token, "p2@new.test", MINUTES).await;
    assert!(world.findings(&held).contains(&"lineage".to_owned()), "{held:?}");
    let planted = send(&apart, &token, "collector@evil.test", "hello").await;
    assert!(world.findings(&planted).contains(&"planted-destination".to_owned()), "read without a token");
    assert_eq!(world.count("send_email"), 0);
}

#[tokio::test]
async fn an_isolated_run_is_held_for_what_was_read_in_the_tasks_above_it() {
    let mut world = World::start().await;
    for (of, name) in [("support", "apart"), ("other", "above")] {
        certificate(&world, of, name);
    }
    let (apart, above) = (world.agent("apart"), world.agent("above"));
    let (mine, theirs) = (serial(&world, &apart).await, serial(&world, &above).await);
    let parent = world.opens("planner", isolated(OTHER, &theirs)).await.json();
    let below = |parent: &Value| {
        let mut task = isolated(SUPPORT, &mine);
        task["parent"] = parent["id"].clone();
        task
    };
    let token = world.token(below(&parent)).await;
    // What another run of the parent's agent reads is not the parent's.
    world.agent("other").tool("drive", "read_drive", json!({})).await.unwrap();
    let sent = send(&apart, &token, "partner@new.test", FIGURES).await;
    assert_eq!((sent.outcome().as_str(), world.count("send_email")), ("allowed", 1));
    call(&above, parent["token"].as_str().unwrap(), "drive", "read_drive", json!({})).await;
    let held = send(&apart, &token, "p2@new.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.findings(&held)), ("pending", vec!["lineage".to_owned()]));
    world.down().await;
    world.up().await;
    let held = send(&world.agent("apart"), &token, "p3@new.test", MINUTES).await;
    assert!(world.findings(&held).contains(&"lineage".to_owned()), "after a restart");
    assert_eq!(world.count("send_email"), 1);
}

#[tokio::test]
async fn a_task_above_that_is_not_isolated_brings_all_that_its_agent_read() {
    let world = World::start().await;
    certificate(&world, "support", "apart");
    let apart = world.agent("apart");
    let mut task = isolated(SUPPORT, &serial(&world, &apart).await);
    let parent = json!({"agent": OTHER, "purpose": "the whole mailing", "ttl": "30m"});
    task["parent"] = world.opens("planner", parent).await.json()["id"].clone();
    let token = world.token(task).await;
    world.agent("other").tool("drive", "read_drive", json!({})).await.unwrap();
    let held = send(&apart, &token, "partner@new.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.findings(&held)), ("pending", vec!["lineage".to_owned()]));
    assert_eq!(world.count("send_email"), 0);
}

#[tokio::test]
async fn a_secret_is_held_whichever_run_read_it() {
    let world = World::start().await;
    certificate(&world, "support", "apart");
    let apart = world.agent("apart");
    let token = world.token(isolated(SUPPORT, &serial(&world, &apart).await)).await;
    for reader in ["support", "other"] {
        world.says("read_vault", &json!({"api_key": format!("{reader}{KEY}")}));
        world.agent(reader).tool("drive", "read_vault", json!({})).await.unwrap();
    }
    for (number, reader) in ["support", "other"].into_iter().enumerate() {
        let to = format!("p{number}@new.test");
        let denied = send(&apart, &token, &to, &format!("the key: {reader}{KEY}")).await;
        assert_eq!(denied.outcome(), "denied", "{reader}");
        assert!(world.findings(&denied).contains(&"secret-lineage".to_owned()), "{reader}");
        assert_eq!(world.record(&denied)["input"]["run"]["profile"], "strict");
    }
    assert_eq!(world.count("send_email"), 0);
}

#[tokio::test]
async fn only_one_certificate_of_one_agent_can_be_isolated() {
    let world = World::start().await;
    certificate(&world, "support", "apart");
    let (support, apart) = (world.agent("support"), world.agent("apart"));
    let number = serial(&world, &apart).await;
    let mut unbound = isolated(SUPPORT, &number);
    unbound.as_object_mut().unwrap().remove("instance");
    let mut two = isolated(SUPPORT, &number);
    two["agents"] = json!([OTHER]);
    for (task, why) in [(unbound, "`isolated` needs `instance`"), (two, "`isolated` is for one agent")] {
        let refused = world.opens("planner", task).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.body).contains(why), "{refused:?}");
    }
    assert!(world.records().iter().all(|record| record["type"] != "task"), "nothing was opened");
    let token = world.token(isolated(SUPPORT, &number)).await;
    let arrived = world.arrived();
    let denied = send(&support, &token, "ana@example.org", "hello").await;
    assert_eq!(
        (denied.outcome().as_str(), &world.record(&denied)["reason"]),
        ("denied", &json!("task-instance"))
    );
    assert_eq!(world.arrived(), arrived, "nothing was sent");
}
