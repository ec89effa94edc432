//! What outlives the process, however it ends.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::world::{FIGURES, World, send};

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    drop(agent);
    world.down().await;
    world.up().await;
    let held = send(&world.agent("support"), "partner@new.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
    assert_eq!(world.findings(&held), ["lineage"]);
}

/// A gateway in a process of its own, which is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below"]
async fn a_gateway_until_it_is_killed() {
    let Ok(file) = std::env::var("HOLDPOINT_TEST_CONFIG") else { return };
    let loaded = holdpoint::config::load(std::path::Path::new(&file)).unwrap();
    let running = holdpoint::app::start(loaded).await.unwrap();
    println!("\nat {}", running.address(holdpoint::config::ListenerKind::Agents).unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_between_the_read_and_the_send_changes_nothing() {
    let mut world = World::prepared("{}").await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kept::a_gateway_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
        .env("HOLDPOINT_TEST_CONFIG", world.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.unwrap().strip_prefix("at ").map(str::to_owned)).unwrap();
    let agent = world.agent_at(address.parse().unwrap(), "support");
    let read = agent.tool("drive", "read_drive", json!({})).await.unwrap();
    assert!(
        String::from_utf8_lossy(&read.body).contains("revenue"),
        "what was released is what must be kept"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    drop(agent);
    world.up().await;
    let held = send(&world.agent("support"), "partner@new.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
    assert_eq!(world.findings(&held), ["lineage"]);
}

#[tokio::test]
async fn where_nothing_can_be_kept_nothing_confidential_is_read() {
    let world = World::start().await;
    let agent = world.agent("support");
    std::fs::remove_dir_all(world.dir.join("state/flow")).unwrap();
    // The first one finds out, and what it read is not released.
    let first = agent.tool("drive", "read_drive", json!({})).await.unwrap();
    assert!(!String::from_utf8_lossy(&first.body).contains("revenue"), "{first:?}");
    let second = agent.tool("drive", "read_drive", json!({})).await.unwrap();
    assert_eq!(second.outcome(), "unavailable");
    assert_eq!(world.count("read_drive"), 1, "the second one is not even sent");
    assert_eq!(agent.tool("mail", "note", json!({})).await.unwrap().outcome(), "allowed");
    std::fs::create_dir_all(world.dir.join("state/flow")).unwrap();
    assert_eq!(agent.tool("drive", "read_drive", json!({})).await.unwrap().outcome(), "allowed");
}
