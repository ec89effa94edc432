//! An upstream that asks for more before it does what was approved: the leg in which the agent brings it is the same
//! call, once, and nothing else is.

use holdpoint::demo::agent::Agent;
use serde_json::{Value, json};

use crate::harness::*;

/// One leg of a transfer, with what the upstream said before and the answer to it, if there is one.
async fn leg(agent: &Agent, amount: u32, rounds: u32, brought: Option<(&Value, &str)>) -> Value {
    let mut params = json!({"name": "transfer", "arguments": {"amount": amount, "rounds": rounds}});
    if let Some((state, code)) = brought {
        params["requestState"] = state.clone();
        params["inputResponses"] = json!({"code": {"action": "accept", "content": {"code": code}}});
    }
    modern_call(agent, params).await.json()
}

/// A transfer that is approved, up to what its upstream asks: the hold, and the state that it gave.
async fn asked(world: &World, agent: &Agent, rounds: u32) -> (Value, Value) {
    assert_eq!(outcome(&leg(agent, 5, rounds, None).await), "pending");
    let hold = world.pending(1).await.remove(0);
    world.approved("olga", &hold).await;
    let reply = leg(agent, 5, rounds, None).await;
    let state = reply["result"]["requestState"].clone();
    assert_eq!(state, "of the upstream: \"é\" a+b/= -1", "what it asks passes untouched: {reply:#}");
    assert_eq!(reply["result"]["inputRequests"]["code"]["method"], "elicitation/create");
    assert_eq!(world.ran(), 1);
    (hold, state)
}

fn text(reply: &Value) -> &str {
    reply["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn the_leg_that_an_approved_call_asks_for_goes_on_once() {
    let world = World::start().await;
    let agent = world.agent("support");
    let (hold, state) = asked(&world, &agent, 1).await;
    let done = leg(&agent, 5, 1, Some((&state, "1234"))).await;
    assert_eq!(text(&done), "transferred", "{done:#}");
    assert_eq!((world.ran(), world.pending(0).await.len()), (2, 0), "nobody was asked again");
    let seen = world.mail.seen();
    let sent: Value = serde_json::from_slice(&seen[1].body).unwrap();
    assert_eq!(sent["params"]["requestState"], state);
    assert_eq!(sent["params"]["inputResponses"]["code"]["content"]["code"], "1234");
    assert!(!seen[1].headers.contains_key("idempotency-key"), "it is no repetition: {:?}", seen[1].headers);
    // The evidence of both legs names the hold.
    let intents = world.records();
    let intents = intents.iter().filter(|record| record["type"] == "intent" && record["hold"] == hold["id"]);
    assert_eq!(intents.count(), 2);
    // With the same state once more, it is a call that nobody approved.
    assert_eq!(outcome(&leg(&agent, 5, 1, Some((&state, "1234"))).await), "pending");
    assert_eq!((world.ran(), world.pending(1).await.len()), (2, 1));
    world.join().await;
}

#[tokio::test]
async fn each_leg_that_the_upstream_asks_for_goes_on() {
    let world = World::start().await;
    let agent = world.agent("support");
    let (_, state) = asked(&world, &agent, 2).await;
    let second = leg(&agent, 5, 2, Some((&state, "1"))).await;
    let next = &second["result"]["requestState"];
    assert_eq!(next, "of the upstream: \"é\" a+b/= -2", "{second:#}");
    assert_eq!(text(&leg(&agent, 5, 2, Some((next, "2"))).await), "transferred");
    assert_eq!((world.ran(), world.pending(0).await.len()), (3, 0));
    world.join().await;
}

#[tokio::test]
async fn a_leg_with_anything_else_in_it_is_held_anew() {
    let world = World::start().await;
    let agent = world.agent("support");
    let (_, state) = asked(&world, &agent, 1).await;
    let other = Value::from("of the upstream: \"é\" a+b/= -7");
    assert_eq!(outcome(&leg(&agent, 6, 1, Some((&state, "1234"))).await), "pending", "another amount");
    assert_eq!(outcome(&leg(&agent, 5, 1, Some((&other, "1234"))).await), "pending", "another state");
    let foreign = leg(&world.agent("other"), 5, 1, Some((&state, "1234"))).await;
    assert_eq!(outcome(&foreign), "pending", "another agent");
    assert_eq!((world.ran(), world.pending(3).await.len()), (1, 3));
    // None of them has used it up.
    assert_eq!(text(&leg(&agent, 5, 1, Some((&state, "1234"))).await), "transferred");
    assert_eq!(world.ran(), 2);
    world.join().await;
}

#[tokio::test]
async fn a_leg_is_judged_by_what_is_so_when_it_comes() {
    let world = World::start().await;
    let agent = world.agent("support");
    let (_, state) = asked(&world, &agent, 1).await;
    // What policy asks for now, people have not been asked.
    let asks = "@id(\"new-rule\") @public(\"new-rule\") @hold(\"approval\") @quorum(\"1\") @approvers(\"oncall\") @ttl(\"30m\")
forbid (principal, action in Holdpoint::Action::\"invoke\", resource)
when { context.consequence >= 3 }
unless { context has approval && context.approval.digest_ok && context.approval.count >= 1 };
";
    let file = world.dir.join("policies/new-rule.cedar");
    std::fs::write(&file, asks).unwrap();
    world.reload().await;
    assert_eq!(outcome(&leg(&agent, 5, 1, Some((&state, "1234"))).await), "pending");
    assert_eq!((world.ran(), world.pending(1).await.len()), (1, 1));
    std::fs::remove_file(&file).unwrap();
    // And whoever is suspended sends nothing. Its connections are cut, so it comes with a new one.
    std::fs::write(world.dir.join("agents.yaml"), agents("suspended")).unwrap();
    world.reload().await;
    let refused = leg(&world.agent("support"), 5, 1, Some((&state, "1234"))).await;
    assert_eq!(refused["type"], "urn:holdpoint:problem:suspended", "{refused:#}");
    assert_eq!(world.ran(), 1);
    world.join().await;
}
