//! Shadow: what would be stopped passes and is shown, for so long, for these agents, and never where it must not.

use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::harness::World;

/// A gateway whose samples' upstreams are in shadow until so many days from now.
async fn shadowed(days: i64, more: &str, extra: &str) -> World {
    let mut world = World::with(extra).await;
    world.down().await;
    let until = OffsetDateTime::now_utc().date() + Duration::days(days);
    world.samples = format!(", enforcement: {{mode: shadow, until: {until}{more}}}");
    world.up().await;
    world
}

#[tokio::test]
async fn what_would_be_held_passes_and_the_record_says_what_would_have_been() {
    let world = shadowed(7, "", "").await;
    let body = json!({"account": "DE1", "amount": "1.00", "reason": "x"});
    let answer = world.agent("support").http("POST", "/crm/v1/payments", Some(body)).await.unwrap();
    assert!(answer.json()["type"].as_str().is_none(), "{:?}", answer.json());
    assert_eq!(world.crm.seen().len(), 1);
    let intent = world.record(&answer.record(), "intent");
    assert_eq!(intent["decision"]["outcome"], "allowed");
    assert_eq!(intent["would_be"]["outcome"], "held", "{intent:#}");
    assert!(!intent["would_be"]["policies"].as_array().unwrap().is_empty());
    let metrics = world.page("/metrics").await;
    assert!(metrics.lines().any(|line| line.starts_with("holdpoint_calls") && line.contains("shadow")));
    let left =
        metrics.lines().find(|line| line.starts_with("holdpoint_shadow_seconds{name=\"crm\"}")).unwrap();
    let left: f64 = left.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(left > 6.0 * 86_400.0 && left < 9.0 * 86_400.0, "{left}");
    world.join().await;
}

#[tokio::test]
async fn an_agent_that_may_only_read_writes_in_shadow_and_a_tool_that_is_not_listed_runs() {
    let world = shadowed(7, "", "").await;
    let reader = world.agent("reader");
    let written = reader.tool("mail", "note", json!({"text": "hello"})).await.unwrap();
    assert_eq!(world.record(&written.record(), "intent")["would_be"]["outcome"], "denied");
    let unlisted = world.agent("support").tool("strict", "nobody_knows", json!({})).await.unwrap();
    let intent = world.record(&unlisted.record(), "intent");
    assert_eq!(intent["would_be"]["reason"], "unlisted", "{intent:#}");
    assert_eq!((&intent["class"], &intent["consequence"]), (&json!("external"), &json!(3)));
    assert_eq!(world.mail.seen().len(), 2);
    world.join().await;
}

#[tokio::test]
async fn a_limit_in_shadow_counts_and_lets_pass() {
    let limits = "limits:\n  - {per: agent, rate: 1/1m, burst: 1}";
    let world = shadowed(7, "", limits).await;
    let agent = world.agent("support");
    agent.http("GET", "/crm/v1/invoices/1", None).await.unwrap();
    let second = agent.http("GET", "/crm/v1/invoices/2", None).await.unwrap();
    assert_eq!(world.crm.seen().len(), 2);
    let would_be = &world.record(&second.record(), "intent")["would_be"];
    assert_eq!((&would_be["outcome"], &would_be["reason"]), (&json!("limited"), &json!("rate")));
    world.join().await;
}

#[tokio::test]
async fn nothing_of_consequence_four_is_ever_in_shadow() {
    let world = shadowed(7, "", "limits:\n  - {per: agent, class: write, rate: 1/1h, burst: 1}").await;
    let agent = world.agent("support");
    let held = agent.tool("mail", "delete_customer", json!({"id": 1})).await.unwrap();
    assert_eq!(held.outcome(), "pending");
    let limited = agent.tool("mail", "delete_customer", json!({"id": 2})).await.unwrap();
    assert_eq!(limited.outcome(), "limited");
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn suspension_and_what_cannot_be_parsed_are_never_in_shadow() {
    let world = shadowed(7, "", "").await;
    let suspended = world.agent("suspended").http("GET", "/crm/v1/invoices/1", None).await.unwrap();
    assert_eq!(suspended.status, 403);
    let mut raw = world.raw("support").await;
    let twice = "{\"a\":1,\"a\":2}";
    let length = twice.len();
    let (status, _) = raw
        .ask(&format!(
            "POST /crm/v1/invoices HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{twice}"
        ))
        .await;
    assert_eq!(status, 400);
    world.nothing_upstream();
    drop(raw);
    world.join().await;
}

#[tokio::test]
async fn past_its_day_and_for_other_groups_everything_is_enforced() {
    let body = json!({"account": "DE1", "amount": "1.00", "reason": "x"});
    for (days, more) in [(-1, ""), (7, ", groups: [tier-9]")] {
        let world = shadowed(days, more, "").await;
        let agent = world.agent("support");
        let answer = agent.http("POST", "/crm/v1/payments", Some(body.clone())).await.unwrap();
        assert_eq!(answer.outcome(), "pending");
        world.nothing_upstream();
        world.join().await;
    }
    let world = shadowed(7, ", groups: [tier-1]", "").await;
    world.agent("support").http("POST", "/crm/v1/payments", Some(body.clone())).await.unwrap();
    let other = world.agent("other").http("POST", "/crm/v1/payments", Some(body)).await.unwrap();
    assert_eq!(other.outcome(), "pending");
    assert_eq!(world.crm.seen().len(), 1);
    world.join().await;
}

#[tokio::test]
async fn a_list_shows_in_shadow_what_a_call_would_reach() {
    let mut world = shadowed(7, "", "").await;
    world.down().await;
    std::fs::write(world.dir.join("mcp.yaml"), "tools:\n  search_customers: {class: read, consequence: 0}\n")
        .unwrap();
    world.up().await;
    let tools = async |world: &World| {
        let answer = world.agent("support").rpc("strict", "tools/list", json!({})).await.unwrap();
        answer.json()["result"]["tools"].as_array().unwrap().len()
    };
    assert!(tools(&world).await > 1);
    world.down().await;
    world.samples.clear();
    world.up().await;
    assert_eq!(tools(&world).await, 1);
    world.join().await;
}
