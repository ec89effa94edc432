//! Files are followed, however they are changed, and SIGHUP asks for the same.

use std::os::unix::fs::symlink;
use std::time::Duration;

use holdpoint::pki;
use serde_json::{Value, json};

use crate::harness::{SOON, World};
use crate::place::{edit, generation, generations, metric, ready, replace, world};

/// Waits for a generation.
async fn comes(world: &World, number: u64) {
    let end = tokio::time::Instant::now() + SOON * 3;
    while generation(world) < number {
        assert!(
            tokio::time::Instant::now() < end,
            "generation {number} never comes: {:#}",
            ready(world).await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(generation(world), number);
}

#[tokio::test]
async fn a_file_is_followed_when_it_is_written_replaced_and_added() {
    let mut world = world("").await;
    world.running.as_mut().unwrap().follow();
    let first = generation(&world);
    edit(&world, "agents.yaml", |text| text.replacen("risk: 1", "risk: 2", 1));
    comes(&world, first + 1).await;

    let text = std::fs::read_to_string(world.dir.join("agents.yaml")).unwrap();
    replace(&world.dir.join("agents.yaml"), text.replacen("risk: 2", "risk: 3", 1));
    comes(&world, first + 2).await;

    let forbids = "@id(\"no-notes\") @public(\"quiet\")\nforbid (principal, action, resource)\n\
                   when { resource.name == \"note\" };\n";
    std::fs::write(world.dir.join("policies/quiet.cedar"), forbids).unwrap();
    comes(&world, first + 3).await;
    let answer = world.agent("support").tool("mail", "note", json!({})).await.unwrap();
    assert_eq!(answer.decision().unwrap()["rule"], "quiet");
    world.nothing_upstream();
    std::fs::remove_file(world.dir.join("policies/quiet.cedar")).unwrap();
    comes(&world, first + 4).await;
    world.join().await;
}

#[tokio::test]
async fn a_file_that_is_touched_without_a_change_makes_no_generation() {
    let mut world = world("").await;
    world.running.as_mut().unwrap().follow();
    let first = generation(&world);
    let path = world.dir.join("agents.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    replace(&path, &text);
    std::fs::write(world.dir.join("policies/.quiet.cedar.swp"), "an editor's own").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What comes next is the change that is one.
    replace(&path, text.replacen("risk: 1", "risk: 2", 1));
    comes(&world, first + 1).await;
    assert_eq!(generations(&world).len() as u64, first + 1);
    world.join().await;
}

#[tokio::test]
async fn a_mounted_volume_that_is_swapped_whole_is_followed() {
    let mut world = world("").await;
    let volume = world.dir.join("volume");
    let version = |name: &str, risk: u8| {
        let text = std::fs::read_to_string(world.dir.join("agents.yaml")).unwrap();
        std::fs::create_dir_all(volume.join(name)).unwrap();
        std::fs::write(
            volume.join(name).join("agents.yaml"),
            text.replacen("risk: 1", &format!("risk: {risk}"), 1),
        )
        .unwrap();
    };
    version("..one", 2);
    symlink("..one", volume.join("..data")).unwrap();
    symlink("..data/agents.yaml", volume.join("agents.yaml")).unwrap();
    edit(&world, "holdpoint.yaml", |text| text.replace("agents: agents.yaml", "agents: volume/agents.yaml"));
    let first = crate::place::reload(&world).await;
    world.running.as_mut().unwrap().follow();

    version("..two", 3);
    symlink("..two", volume.join("..data_tmp")).unwrap();
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    std::fs::remove_dir_all(volume.join("..one")).unwrap();
    comes(&world, first + 1).await;
    world.join().await;
}

#[tokio::test]
async fn a_certificate_that_comes_before_its_key_is_waited_for() {
    let mut world = world("").await;
    world.running.as_mut().unwrap().follow();
    let first = generation(&world);
    let pki = world.dir.join("pki");
    pki::issue_gateway(&pki, "second").unwrap();
    std::fs::rename(pki.join("second.pem"), pki.join("gateway.pem")).unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(world.knock("support", b"http/1.1").await.is_ok(), "the pair before is still presented");
    assert_eq!(generation(&world), first);
    std::fs::rename(pki.join("second-key.pem"), pki.join("gateway-key.pem")).unwrap();
    comes(&world, first + 1).await;
    assert_eq!(ready(&world).await["configuration"]["refused"], Value::Null);
    world.join().await;
}

#[tokio::test]
async fn a_mistake_in_a_followed_file_is_told_and_its_repair_found() {
    let mut world = world("").await;
    world.running.as_mut().unwrap().follow();
    let first = generation(&world);
    let path = world.dir.join("mcp.yaml");
    let good = std::fs::read_to_string(&path).unwrap();
    replace(&path, "tools: [");
    let end = tokio::time::Instant::now() + SOON * 3;
    while ready(&world).await["configuration"]["refused"].is_null() {
        assert!(tokio::time::Instant::now() < end, "nobody tells of the mistake");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(metric(&world, "holdpoint_reload_failures_total").await, 1.0);
    assert_eq!(world.agent("support").tool("mail", "note", json!({})).await.unwrap().outcome(), "allowed");
    // What was there before is no change, and the mistake is gone.
    replace(&path, &good);
    let end = tokio::time::Instant::now() + SOON * 3;
    while !ready(&world).await["configuration"]["refused"].is_null() {
        assert!(tokio::time::Instant::now() < end, "the repair is not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(generation(&world), first);
    replace(
        &path,
        good.replace("note: {class: write, consequence: 1", "note: {class: write, consequence: 2"),
    );
    comes(&world, first + 1).await;
    world.join().await;
}

#[tokio::test]
async fn sighup_asks_the_program_to_read_everything_anew() {
    let mut world = world("").await;
    world.down().await;
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_holdpoint"))
        .args(["serve", "--json", "--config"])
        .arg(world.dir.join("holdpoint.yaml"))
        .stderr(std::fs::File::create(world.dir.join("log")).unwrap())
        .spawn()
        .unwrap();
    let log = || std::fs::read_to_string(world.dir.join("log")).unwrap();
    let until = async |text: &str| {
        let end = tokio::time::Instant::now() + SOON * 3;
        while !log().contains(text) {
            assert!(tokio::time::Instant::now() < end, "`{text}` is not in {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let signal = |name: &str, program: &std::process::Child| {
        let sent = std::process::Command::new("kill").args([name, &program.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    until("\"kind\":\"Health\"").await;
    signal("-HUP", &program);
    until("reload.in_force").await;
    std::fs::write(world.dir.join("mcp.yaml"), "tools: [").unwrap();
    signal("-HUP", &program);
    until("reload.refused").await;
    until("mcp.yaml: not valid YAML").await;
    signal("-TERM", &program);
    assert!(program.wait().unwrap().success());
    // The next start would be refused; that is no part of this.
    std::fs::remove_file(world.dir.join("mcp.yaml")).unwrap();
    assert!(generations(&world).len() >= 4);
    world.join().await;
}
