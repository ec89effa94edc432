//! Operators' sequences: steps that are harmless one by one, found when the last of them is asked for.

use serde_json::json;

use crate::around::{call, traceparent};
use crate::world::World;

const COLLECT: &str = "
chains:
  - name: collect
    steps: [{class: read, labels: [confidential], at_least: 3}, {class: write, tool: note}]
    within: 10m
    per: agent
  - name: everybody
    steps: [{class: read, upstream: drive, tool: read_vault, at_least: 2}, {class: write, tool: note}]
    within: 40m
    per: trust-domain
    then: deny
";

async fn world(chains: &str) -> World {
    let world = World::prepared("{chains: chains.yaml}").await;
    std::fs::write(world.dir.join("chains.yaml"), chains).unwrap();
    let mut world = world;
    world.up().await;
    world
}

#[tokio::test]
async fn the_last_step_of_a_sequence_waits_and_the_steps_before_it_do_not() {
    let mut world = world(COLLECT).await;
    let note = json!({"text": "call back on Tuesday"});
    for reads in 0..3 {
        let agent = world.agent("support");
        agent.tool("drive", "read_drive", json!({})).await.unwrap();
        // A reply that is public is no step, and padding hides none.
        agent.tool("drive", "echo", json!({})).await.unwrap();
        if reads < 2 {
            assert_eq!(
                agent.tool("drive", "note", note.clone()).await.unwrap().outcome(),
                "allowed",
                "{reads}"
            );
        }
    }
    // A new connection and a restart begin nothing anew.
    world.down().await;
    world.up().await;
    let agent = world.agent("support");
    let before = world.count("note");
    let held = agent.tool("drive", "note", note.clone()).await.unwrap();
    assert_eq!((held.outcome().as_str(), world.count("note")), ("pending", before));
    assert_eq!(world.findings(&held), ["chain-hold", "chain:collect"]);
    assert_eq!(world.record(&held)["decision"]["policies"], json!(["hold-flow"]));
    let other = world.agent("other").tool("drive", "note", note).await.unwrap();
    assert_eq!(other.outcome(), "allowed", "another agent has read nothing");
}

#[tokio::test]
async fn a_step_that_cannot_be_kept_is_not_sent() {
    let mut world = world(COLLECT).await;
    let note = json!({"text": "call back on Tuesday"});
    let agent = world.agent("support");
    std::fs::remove_dir_all(world.dir.join("state/flow")).unwrap();
    for tool in ["read_drive", "read_vault"] {
        let refused = agent.tool("drive", tool, json!({})).await.unwrap();
        assert_eq!(refused.outcome(), "unavailable", "{tool}");
        assert_eq!(world.record(&refused)["reason"], "flow-journal", "{tool}");
    }
    assert!(world.upstream.seen().is_empty(), "{:?}", world.arrived());
    let echo = agent.tool("drive", "echo", json!({})).await.unwrap();
    assert_eq!(echo.outcome(), "allowed", "what is no step goes on");
    // Once the disk takes them again, the sequence is found, after a restart too.
    std::fs::create_dir_all(world.dir.join("state/flow")).unwrap();
    for _ in 0..3 {
        assert_eq!(agent.tool("drive", "read_drive", json!({})).await.unwrap().outcome(), "allowed");
    }
    world.down().await;
    world.up().await;
    let held = world.agent("support").tool("drive", "note", note).await.unwrap();
    assert_eq!((held.outcome().as_str(), world.count("note")), ("pending", 0));
}

#[tokio::test]
async fn agents_that_share_the_steps_of_a_sequence_are_found_where_it_is_the_trust_domains() {
    let world = world(COLLECT).await;
    for name in ["support", "other"] {
        world.agent(name).tool("drive", "read_vault", json!({})).await.unwrap();
    }
    let refused = world.agent("third").tool("drive", "note", json!({"text": "hello"})).await.unwrap();
    assert_eq!((refused.outcome().as_str(), world.count("note")), ("denied", 0));
    assert_eq!(world.findings(&refused), ["chain-deny", "chain:everybody"]);
}

#[tokio::test]
async fn a_sequence_of_one_run_is_not_another_runs_and_what_is_noted_goes_on() {
    let world = world(
        "
chains:
  - name: one-run
    steps: [{tool: read_drive}, {tool: note}]
    within: 10m
    per: run
    then: note
  - name: no-reads-twice
    steps: [{tool: read_inbox, at_least: 2}]
    within: 10m
    per: run
",
    )
    .await;
    let agent = world.agent("support");
    let tool = async |trace, upstream, tool| {
        let trace = traceparent(trace);
        call(&agent, upstream, tool, json!({}), &[("traceparent", &trace)]).await
    };
    tool(1, "drive", "read_drive").await;
    let elsewhere = tool(2, "drive", "note").await;
    let here = tool(1, "drive", "note").await;
    assert_eq!((elsewhere.outcome().as_str(), here.outcome().as_str()), ("allowed", "allowed"));
    assert!(world.findings(&elsewhere).is_empty());
    assert_eq!(world.findings(&here), ["chain:one-run"]);
    let reads = async |trace| tool(trace, "mail", "read_inbox").await.outcome();
    assert_eq!((reads(3).await.as_str(), reads(4).await.as_str()), ("allowed", "allowed"));
    assert_eq!((reads(3).await.as_str(), world.count("read_inbox")), ("pending", 2));
}
