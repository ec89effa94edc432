//! Agents: who sees them, who stops them, and what that does.

use holdpoint::config::ListenerKind;
use serde_json::{Value, json};

use crate::harness::{World, of, text};

fn ids(body: &Value) -> Vec<String> {
    let agents = body["agents"].as_array().unwrap();
    agents.iter().map(|agent| agent["id"].as_str().unwrap().replace("spiffe://example.org/", "")).collect()
}

#[tokio::test]
async fn everybody_sees_the_agents_of_their_own_teams() {
    let world = World::start().await;
    let seen = |name: &'static str| {
        let person = world.person(name);
        async move { ids(&person.get("/v1/agents").await.json()) }
    };
    assert_eq!(seen("oncall").await, ["agent/stopped", "agent/support"]);
    assert_eq!(seen("pia").await, ["agent/payer"]);
    assert_eq!(seen("auditor").await, ["agent/payer", "agent/stopped", "agent/support"]);
    let support = world.person("oncall").get(&of("support", "")).await.json();
    assert_eq!(support["agent"]["state"], "active");
    assert_eq!(support["agent"]["owner"]["business"], "ana@example.org");
    let whole = world.person("oncall").get("/v1/agents/spiffe%3A%2F%2Fexample.org%2Fagent%2Fsupport").await;
    assert_eq!(whole.json(), support);
    // An agent below a wildcard is there once it has called.
    world.calls(&world.agent("one")).await;
    assert_eq!(seen("oncall").await, ["agent/stopped", "agent/support", "batch/one"]);
}

#[tokio::test]
async fn a_suspended_agent_is_refused_at_its_next_call_until_it_is_resumed() {
    let mut world = World::start().await;
    let (agent, oncall) = (world.agent("support"), world.person("oncall"));
    assert_eq!(world.calls(&agent).await.outcome(), "allowed");
    let sent = world.mail.seen().len();

    let stopped = oncall.post(&of("support", "/suspend"), json!({"reason": "it deletes too much"})).await;
    assert_eq!(
        (stopped.status.as_u16(), &stopped.json()["changed"]),
        (200, &json!(true)),
        "{}",
        text(&stopped)
    );
    assert_eq!(stopped.json()["agent"]["state"], "suspended");
    // The answer came after the audit had it, with who and why.
    let order = world.orders().pop().unwrap();
    assert_eq!(order["id"], stopped.json()["record"]);
    assert_eq!((&order["action"], &order["reason"]), (&json!("suspend"), &json!("it deletes too much")));
    assert_eq!(order["by"]["id"], "spiffe://people.example.org/oncall");
    assert_eq!(order["agent"]["id"], "spiffe://example.org/agent/support");
    assert_eq!(order["decision"]["rule"], "own-team");
    // On the connection that it has, and on a new one.
    assert_eq!(world.calls(&agent).await.status, 403);
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    assert_eq!(world.mail.seen().len(), sent);

    // Each refusal says whose it was.
    let refused: Vec<_> = world.records().into_iter().filter(|record| record["type"] == "refused").collect();
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|record| record["agent"]["id"] == "spiffe://example.org/agent/support"));

    // It outlives the gateway.
    world.down().await;
    world.up().await;
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    assert_eq!(world.mail.seen().len(), sent);
    let oncall = world.person("oncall");
    let shown = oncall.get(&of("support", "")).await.json();
    assert_eq!(shown["agent"]["suspension"]["reason"], "it deletes too much");

    let again = oncall.post(&of("support", "/resume"), json!({"reason": "repaired"})).await;
    assert_eq!(again.json()["agent"]["state"], "active", "{}", text(&again));
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");
    let history = oncall.get(&of("support", "")).await.json();
    assert_eq!(history["history"][0]["resumed"]["reason"], "repaired");
}

#[tokio::test]
async fn a_call_on_its_way_is_refused_when_its_agent_is_suspended() {
    let world = World::start().await;
    let mut raw = world.raw("support", ListenerKind::Agents).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "search_customers", "arguments": {}}})
    .to_string();
    let (first, rest) = body.split_at(20);
    let head = format!(
        "POST /mail/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    raw.send(&head).await;
    // The gateway reads the body now: it knows who calls already.
    assert!(raw.until("100 Continue").await);
    raw.send(first).await;
    let stopped = world.person("admin").post(&of("support", "/suspend"), json!({"reason": "now"})).await;
    assert_eq!(stopped.status, 200);
    // Its connection was cut with the call on it.
    raw.try_send(rest).await;
    assert!(!raw.until("HTTP/1.1 200").await, "{}", raw.text());
    world.nothing_upstream();
    let refused = world.records().into_iter().find(|record| record["type"] == "refused").unwrap();
    // What the cut connection never sent, or what was sent after the order.
    assert!(["body-broken", "suspended"].contains(&refused["reason"].as_str().unwrap()), "{refused:#}");
}

#[tokio::test]
async fn nobody_stops_an_agent_of_another_team_and_the_attempt_is_on_record() {
    let world = World::start().await;
    for (person, agent) in [("pia", "support"), ("oncall", "payer"), ("auditor", "support")] {
        let tried = world.person(person).post(&of(agent, "/suspend"), json!({"reason": "because"})).await;
        assert_eq!(tried.status, 403, "{person}");
        assert_eq!(tried.headers["content-type"], "application/problem+json");
        let id = format!("spiffe://people.example.org/{person}");
        let order = world.tried(|order| order["by"]["id"] == id).await;
        assert_eq!((&order["decision"]["outcome"], &order["action"]), (&json!("denied"), &json!("suspend")));
        assert_eq!(order["reason"], "because");
        assert_eq!(world.calls(&world.agent(agent)).await.outcome(), "allowed");
    }
    assert_eq!(world.person("pia").get(&of("support", "")).await.status, 403);
}

#[tokio::test]
async fn nobody_lifts_what_stands_against_an_agent_of_their_own() {
    let world = World::start().await;
    let (ana, admin) = (world.person("ana"), world.person("admin"));
    assert_eq!(ana.post(&of("support", "/suspend"), json!({"reason": "mine"})).await.status, 200);
    let tried = ana.post(&of("support", "/resume"), json!({"reason": "mine"})).await;
    assert!(tried.status == 403 && text(&tried).contains("not-ones-own"), "{}", text(&tried));
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    assert_eq!(admin.post(&of("support", "/resume"), json!({"reason": "ok"})).await.status, 200);
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");
}

#[tokio::test]
async fn an_order_without_a_reason_or_with_something_unknown_in_it_does_nothing() {
    let world = World::start().await;
    let oncall = world.person("oncall");
    let path = of("support", "/suspend");
    for body in [
        json!({}),
        json!({"reason": ""}),
        json!({"reason": "  \n"}),
        json!({"reason": "x", "until": "tomorrow"}),
        json!({"reason": ["x"]}),
        json!({"reason": "x".repeat(3000)}),
        json!([]),
    ] {
        let tried = oncall.post(&path, body.clone()).await;
        assert_eq!(tried.status, 400, "{body}");
    }
    assert_eq!(oncall.post(&path, json!({"reason": "x".repeat(100_000)})).await.status, 413);
    assert_eq!(oncall.post(&of("nobody", "/suspend"), json!({"reason": "x"})).await.status, 404);
    assert_eq!(oncall.get(&path).await.status, 405);
    assert_eq!(oncall.get("/v1/nothing").await.status, 404);
    assert_eq!(oncall.post(&of("stopped", "/resume"), json!({"reason": "x"})).await.status, 409);
    assert!(world.orders().is_empty());
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");
}

#[tokio::test]
async fn many_are_stopped_at_once_after_a_look_at_who_is_meant() {
    let world = World::start().await;
    let admin = world.person("admin");
    world.calls(&world.agent("one")).await;
    let order = json!({"owner": "ANA@example.org", "reason": "incident 7", "dry_run": true});
    let foreseen = admin.post("/v1/agents/suspend", order).await.json();
    assert_eq!(ids(&foreseen), ["agent/stopped", "agent/support", "batch/one"]);
    assert_eq!(foreseen["not_covered"], json!(["spiffe://example.org/batch/*"]));
    assert!(world.orders().is_empty());
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");

    let done =
        admin.post("/v1/agents/suspend", json!({"owner": "ana@example.org", "reason": "incident 7"})).await;
    assert_eq!((&done.json()["changed"], &done.json()["failed"]), (&json!(3), &json!(0)), "{}", text(&done));
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    assert_eq!(world.calls(&world.agent("one")).await.status, 403);
    assert_eq!(world.calls(&world.agent("payer")).await.outcome(), "allowed");
    assert_eq!(world.orders().len(), 3);

    // Everyone, for somebody with one team: those of the team.
    let all =
        world.person("pia").post("/v1/agents/suspend", json!({"all": true, "reason": "panic"})).await.json();
    assert_eq!(ids(&all), ["agent/payer"]);
    // A team that is not one's own: each is refused.
    let team =
        world.person("pia").post("/v1/agents/resume", json!({"team": "care", "reason": "why not"})).await;
    assert_eq!((&team.json()["changed"], &team.json()["refused"]), (&json!(0), &json!(3)));
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    for wrong in [
        json!({"reason": "x"}),
        json!({"reason": "x", "all": false}),
        json!({"reason": "x", "all": true, "team": "care"}),
    ] {
        assert_eq!(admin.post("/v1/agents/suspend", wrong).await.status, 400);
    }
    assert_eq!(admin.post("/v1/agents/suspend", json!({"reason": "x", "team": "none"})).await.status, 404);
}
