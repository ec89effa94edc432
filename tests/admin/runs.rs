//! Runs: who sees what they have read and what was found, and who lets a frozen one go on.

use serde_json::{Value, json};

use crate::harness::{World, text};

#[tokio::test]
async fn a_frozen_run_goes_on_once_a_person_has_looked() {
    let world = World::start().await;
    let (agent, oncall) = (world.agent("support"), world.person("oncall"));
    let read = agent.tool("mail", "read_inbox", json!({})).await.unwrap();
    assert_eq!(read.outcome(), "allowed");
    for number in 0..4 {
        let mail = json!({"to": "mallory@outside.test", "body": format!("number {number}")});
        assert_eq!(agent.tool("mail", "send_email", mail).await.unwrap().outcome(), "pending");
    }
    let sent = world.mail.seen().len();
    assert_eq!(world.calls(&agent).await.outcome(), "denied");

    let runs = oncall.get("/v1/runs").await.json();
    let run = runs["runs"][0].clone();
    assert!(run["frozen"].is_string(), "{runs:#}");
    assert_eq!((&run["stopped"], &run["agent"]), (&json!(4), &json!("spiffe://example.org/agent/support")));
    let labels: Vec<&Value> = run["labels"].as_array().unwrap().iter().map(|one| &one["label"]).collect();
    assert_eq!(labels, ["confidential", "untrusted"]);
    assert_eq!(run["labels"][0]["record"], read.record());
    let path = |verb: &str| {
        let id: String = run["id"].as_str().unwrap().bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("/v1/runs/{id}{verb}")
    };
    let shown = oncall.get(&path("")).await.json();
    let mails = shown["findings"].as_array().unwrap().iter().filter(|found| found["tool"] == "send_email");
    assert_eq!(mails.count(), 4, "{shown:#}");

    // Another team sees nothing of it, and cannot lift it; nor is it lifted without a reason.
    let reason = json!({"reason": "checked with Ana"});
    assert_eq!(world.person("pia").get("/v1/runs").await.json()["runs"], json!([]));
    assert_eq!(world.person("pia").get(&path("")).await.status, 403);
    assert_eq!(world.person("pia").post(&path("/unfreeze"), reason.clone()).await.status, 403);
    assert_eq!(oncall.post(&path("/unfreeze"), json!({"reason": " "})).await.status, 400);
    assert_eq!(oncall.get("/v1/runs/none").await.status, 404);
    assert_eq!(world.calls(&agent).await.outcome(), "denied");
    assert_eq!(world.mail.seen().len(), sent);

    let lifted = oncall.post(&path("/unfreeze"), reason).await;
    assert_eq!((lifted.status.as_u16(), &lifted.json()["changed"]), (200, &json!(true)), "{}", text(&lifted));
    let order = world.orders().pop().unwrap();
    assert_eq!((&order["id"], &order["what"]), (&lifted.json()["record"], &json!("unfreeze")));
    assert_eq!((&order["action"], &order["reason"]), (&json!("resume"), &json!("checked with Ana")));
    assert_eq!(world.calls(&agent).await.outcome(), "allowed");
    assert_eq!(world.mail.seen().len(), sent + 1);
}

#[tokio::test]
async fn the_page_of_a_hold_shows_what_was_found_in_its_own_call_and_no_other() {
    let world = World::start().await;
    let (agent, oncall) = (world.agent("support"), world.person("oncall"));
    let read = agent.tool("mail", "read_inbox", json!({})).await.unwrap();
    let read = read.json()["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    // Two calls of one tool, by one run, at one moment.
    let page = async |body: &str| {
        let mail = json!({"to": "bob@outside.test", "body": body});
        let held = agent.tool("mail", "send_email", mail).await.unwrap();
        let hold = held.json()["result"]["_meta"]["dev.holdpoint/decision"]["hold"].clone();
        format!("/holds/{}", hold.as_str().unwrap())
    };
    let (carries, carries_nothing) = (page(&read).await, page("See you on Monday.").await);
    let (carries, carries_nothing) = (oncall.get(&carries).await, oncall.get(&carries_nothing).await);
    assert!(text(&carries).contains("read_inbox"), "{}", text(&carries));
    assert!(!text(&carries_nothing).contains("read_inbox"), "{}", text(&carries_nothing));
}
