//! What went wrong in other gates of this kind, each a story that must end well here.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn a_gate_that_no_shipped_path_reached() {
    let world = World::start().await;
    let agent = world.agent("support");
    let mail = json!({"to": "bob@example.com"});
    // With the policies that are shipped, over each protocol that agents speak.
    let legacy = agent.tool("mail", "send_email", mail.clone()).await.unwrap();
    assert_eq!(outcome(&legacy.json()), "pending", "{legacy:?}");
    let modern =
        modern_call(&agent, json!({"name": "send_email", "arguments": {"to": "eve@example.com"}})).await;
    assert_eq!(outcome(&modern.json()), "pending", "{modern:?}");
    let http = agent.http("POST", "/crm/v1/invoices", Some(json!({"total": 1}))).await.unwrap();
    assert_eq!(http.status, 503);
    assert!(http.headers.contains_key("retry-after"));
    let read = agent.rpc("mail", "resources/read", json!({"uri": "note://x"})).await.unwrap();
    assert_eq!(read.json()["error"]["code"], -31003, "what is no tool call is held as well");
    assert_eq!((world.ran(), world.pending(4).await.len()), (0, 4));
    world.join().await;
}

#[tokio::test]
async fn a_call_released_on_a_superseded_decision() {
    let world = World::start().await;
    let forbid = "@id(\"no-secrets\") @public(\"no-secrets\") forbid (principal, action in Holdpoint::Action::\"invoke\", resource) when { context.class == \"external\" && context.run.labels.contains(\"secret\") };";
    std::fs::write(world.dir.join("policies/no-secrets.cedar"), forbid).unwrap();
    world.reload().await;
    let agent = world.agent("support");
    let call = async || agent.tool("mail", "send_email", json!({"to": "bob@example.com"})).await.unwrap();
    call().await;
    let hold = world.pending(1).await.remove(0);
    world.approved("olga", &hold).await;
    // Since then the agent has read a secret.
    agent.tool("mail", "read_vault", json!({})).await.unwrap();
    let ran = world.ran();
    let denied = call().await;
    assert_eq!(outcome(&denied.json()), "denied", "a new label wins over an old approval: {denied:?}");

    // Another agent, whose policy changes after the approval.
    let other = world.agent("other");
    let call = async || other.tool("mail", "send_email", json!({"to": "bob@example.com"})).await.unwrap();
    call().await;
    let hold = world.pending(1).await.remove(0);
    world.approved("olga", &hold).await;
    let forbid = "@id(\"no-mail\") @public(\"no-mail\") forbid (principal, action in Holdpoint::Action::\"invoke\", resource) when { context.class == \"external\" };";
    std::fs::write(world.dir.join("policies/no-mail.cedar"), forbid).unwrap();
    world.reload().await;
    let denied = call().await;
    assert_eq!(outcome(&denied.json()), "denied", "{denied:?}");
    std::fs::remove_file(world.dir.join("policies/no-mail.cedar")).unwrap();
    std::fs::write(world.dir.join("agents.yaml"), agents("suspended")).unwrap();
    world.reload().await;
    assert_eq!(world.ran(), ran, "nothing ran");
    let allowed = call().await;
    assert_eq!(outcome(&allowed.json()), "allowed", "with the policy of before it runs: {allowed:?}");
    world.join().await;
}

#[tokio::test]
async fn an_argument_hash_computed_and_compared_with_nothing() {
    let world = World::start().await;
    let agent = world.agent("support");
    let call = async |to: &str| agent.tool("mail", "send_email", json!({"to": to})).await.unwrap();
    call("bob@example.com").await;
    let hold = world.pending(1).await.remove(0);
    let other = json!(format!("sha256:{}", "0".repeat(64)));
    let refused = world.says_of("olga", "approve", &hold["id"], &other).await;
    assert_eq!(refused.status, 409, "a vote for another call does not count: {refused:?}");
    assert_eq!(world.hold(hold["id"].as_str().unwrap()).await["hold"]["state"], "pending");

    // What people see is what is hashed.
    let shown = world.hold(hold["id"].as_str().unwrap()).await;
    let text = shown["text"].as_str().unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown["hold"]["digest"], format!("sha256:{hex}"));
    assert!(text.contains("bob@example.com"), "{text}");

    world.approved("olga", &hold).await;
    let another = call("eve@example.com").await;
    assert_eq!(
        (outcome(&another.json()).as_str(), world.ran()),
        ("pending", 0),
        "another call needs its own"
    );
    let done = call("bob@example.com").await;
    assert_eq!((outcome(&done.json()).as_str(), world.ran()), ("allowed", 1));
    assert!(String::from_utf8_lossy(&world.mail.seen()[0].body).contains("bob@example.com"));
    world.join().await;
}

#[tokio::test]
async fn an_expiry_read_by_nothing_after_restart() {
    let mut world = World::with("wait: 0s, ttl: 3s").await;
    let call = async |world: &World| {
        let agent = world.agent("support");
        outcome(&agent.tool("mail", "send_email", json!({"to": "bob@example.com"})).await.unwrap().json())
    };
    assert_eq!(call(&world).await, "pending");
    let hold = world.pending(1).await.remove(0);
    world.approved("olga", &hold).await;
    world.down().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.up().await;
    assert_eq!(world.hold(hold["id"].as_str().unwrap()).await["hold"]["state"], "expired");
    assert_eq!(call(&world).await, "pending", "it must be approved anew");
    assert_eq!(world.ran(), 0);
    let story = world.story(&hold["id"]);
    assert_eq!(story.last().map(String::as_str), Some("held ended expired"), "{story:?}");
    world.join().await;
}

#[tokio::test]
async fn a_policy_update_that_dropped_the_gate() {
    let world = World::start().await;
    let agent = world.agent("support");
    let call = async || agent.tool("mail", "send_email", json!({"to": "bob@example.com"})).await.unwrap();
    call().await;
    let hold = world.pending(1).await.remove(0);
    // A change that has nothing to do with it orphans nothing, and lets nothing through.
    let more = "@id(\"more\") @public(\"more\") permit (principal, action in Holdpoint::Action::\"invoke\", resource) when { context.class == \"read\" && context.consequence == 0 };";
    std::fs::write(world.dir.join("policies/more.cedar"), more).unwrap();
    world.reload().await;
    assert_eq!((outcome(&call().await.json()).as_str(), world.ran()), ("pending", 0));
    assert_eq!(world.pending(1).await[0]["id"], hold["id"], "it is the same hold");
    world.approved("olga", &hold).await;
    std::fs::write(world.dir.join("policies/more.cedar"), format!("// again\n{more}")).unwrap();
    world.reload().await;
    assert_eq!((outcome(&call().await.json()).as_str(), world.ran()), ("allowed", 1));
    world.join().await;
}

#[tokio::test]
async fn approvals_visible_across_tenants() {
    let world = World::start().await;
    let (support, other) = (world.agent("support"), world.agent("other"));
    let call = json!({"to": "bob@example.com"});
    support.tool("mail", "send_email", call.clone()).await.unwrap();
    let hold = world.pending(1).await.remove(0);
    let id = hold["id"].as_str().unwrap();
    assert_eq!(world.holds("pia", "pending").await.len(), 0, "people of another team see nothing");
    for (method, path) in
        [("GET", String::new()), ("POST", "/approve".to_owned()), ("POST", "/deny".to_owned())]
    {
        let body = (method == "POST").then(|| json!({"digest": hold["digest"], "reason": "mine"}));
        let answer = world.person("pia").http(method, &format!("/v1/holds/{id}{path}"), body).await.unwrap();
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    world.approved("olga", &hold).await;
    // The same call of another agent is another call.
    let theirs = other.tool("mail", "send_email", call).await.unwrap();
    assert_eq!((outcome(&theirs.json()).as_str(), world.ran()), ("pending", 0));
    let status = format!("/.well-known/holdpoint/holds/{id}");
    assert_eq!(support.http("GET", &status, None).await.unwrap().json()["state"], "approved");
    assert_eq!(other.http("GET", &status, None).await.unwrap().status, 404);
    world.join().await;
}

#[tokio::test]
async fn a_hold_that_died_with_its_connection() {
    let world = World::patient().await;
    let agent = Arc::new(world.agent("support"));
    let left = calls(&agent, "send_email", json!({"to": "bob@example.com"}));
    let hold = world.pending(1).await.remove(0);
    left.abort();
    drop(agent);
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.approved("olga", &hold).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.ran(), 0, "it runs only while its agent is there");
    assert_eq!(world.hold(hold["id"].as_str().unwrap()).await["hold"]["state"], "approved");
    // Another connection, another JSON-RPC id, a session: the same call.
    let again = Arc::new(world.agent("support"));
    let done = calls(&again, "send_email", json!({"to": "bob@example.com"})).await.unwrap();
    assert_eq!((outcome(&done).as_str(), world.ran()), ("allowed", 1));
    world.join().await;
}

#[tokio::test]
async fn a_retry_that_made_a_second_hold() {
    let world = World::patient().await;
    let agents: Vec<_> = (0..6).map(|_| Arc::new(world.agent("support"))).collect();
    let waiting: Vec<_> =
        agents.iter().map(|agent| calls(agent, "send_email", json!({"to": "bob@example.com"}))).collect();
    let hold = world.pending(1).await.remove(0);
    // Keys in another order and escapes in a string make no other call.
    let body = "{\"id\":99,\"params\":{\"arguments\":{\"to\":\"bob\\u0040example.com\"},\"name\":\"send_email\"},\"method\":\"tools/call\",\"jsonrpc\":\"2.0\"}";
    let spelled = world.agent("support");
    let spelled = tokio::spawn(async move {
        let version = [("mcp-protocol-version", "2025-11-25")];
        message(&spelled.message("mail", body, &version).await.unwrap())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.pending(1).await.len(), 1);
    world.approved("olga", &hold).await;
    let mut outcomes = vec![outcome(&spelled.await.unwrap())];
    for one in waiting {
        outcomes.push(outcome(&one.await.unwrap()));
    }
    outcomes.sort();
    assert_eq!(world.ran(), 1, "one execution for all that joined");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "allowed").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "executed").count(), 6, "{outcomes:?}");
    let story = world.story(&hold["id"]);
    assert_eq!(
        story,
        ["held opened pending", "vote voted approved", "released released releasing", "held ended executed"]
    );
    // A lost reply is not a reason to do it again.
    let again = message(
        &world.agent("support").tool("mail", "send_email", json!({"to": "bob@example.com"})).await.unwrap(),
    );
    assert_eq!((outcome(&again).as_str(), world.ran()), ("executed", 1));
    world.join().await;
}
