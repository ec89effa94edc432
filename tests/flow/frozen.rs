//! Probing, and what freezes.

use serde_json::json;

use crate::world::{FIGURES, World, send};

#[tokio::test]
async fn another_try_waits_too_and_padding_between_tries_hides_nothing() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    let stopped = send(&agent, "partner@new.test", FIGURES).await;
    assert_eq!(stopped.outcome(), "pending");
    assert_eq!(
        send(&agent, "partner@new.test", FIGURES).await.outcome(),
        "pending",
        "the same again is the same"
    );
    let mut tries = 1;
    for to in ["partner@new.test", "second@new.test", "third@other.test"] {
        for number in 0..8 {
            agent.tool("drive", "read_drive", json!({"page": number})).await.unwrap();
        }
        let probe = send(&agent, to, &format!("nothing special for {to}")).await;
        assert_eq!(probe.outcome(), "pending", "{to}");
        assert!(world.findings(&probe).contains(&"probing".to_owned()));
        tries += 1;
    }
    assert_eq!(tries, 4);
    // Four distinct calls of this run were stopped: it is frozen, for reads too, and a restart does not thaw it.
    let reads = world.count("read_drive");
    assert_eq!(agent.tool("drive", "read_drive", json!({})).await.unwrap().outcome(), "denied");
    drop(agent);
    world.down().await;
    world.up().await;
    let agent = world.agent("support");
    let refused = agent.tool("drive", "read_drive", json!({})).await.unwrap();
    assert_eq!(refused.outcome(), "denied");
    assert_eq!(world.findings(&refused), ["frozen"]);
    assert_eq!((world.count("read_drive"), world.count("send_email")), (reads, 0));
    let told = world.records().into_iter().find(|record| record["what"] == "frozen").unwrap();
    assert_eq!(told["type"], "finding");
    assert_eq!(
        world.agent("other").tool("drive", "read_drive", json!({})).await.unwrap().outcome(),
        "allowed"
    );
}

#[tokio::test]
async fn a_planted_token_leaves_by_no_way_not_even_in_shadow() {
    let mut world = World::prepared("{}").await;
    let until = time::OffsetDateTime::now_utc().date() + time::Duration::days(7);
    world.mail = format!(", enforcement: {{mode: shadow, until: {until}}}");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_holdpoint"))
        .args(["--json", "canary", "new", "--name", "board minutes", "--config"])
        .arg(world.config())
        .output()
        .unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap().to_owned();
    world.up().await;
    let agent = world.agent("support");
    for body in [token.clone(), format!("see {token} there"), base64(&token)] {
        let denied = send(&agent, "ana@elsewhere.test", &body).await;
        assert_eq!((denied.outcome().as_str(), world.count("send_email")), ("denied", 0), "{body}");
        assert!(world.findings(&denied).contains(&"canary".to_owned()));
    }
    let found = world.records().into_iter().find(|record| record["type"] == "finding").unwrap();
    assert_eq!(found["canary"], "board minutes", "whoever looks is told which one");
    let kept = std::fs::read_to_string(world.dir.join("state/canaries.jsonl")).unwrap();
    assert!(kept.contains("board minutes") && !kept.contains(&token));
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
