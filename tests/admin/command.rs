//! `holdpoint agents`, over mutual TLS and over the machine's own socket.

use std::process::Output;

use holdpoint::config::ListenerKind;
use serde_json::Value;
use tokio::process::Command;

use crate::harness::World;

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the command as somebody whose settings are in the environment.
async fn run(world: &World, person: &str, arguments: &[&str]) -> Said {
    let port = world.address(ListenerKind::Admin).port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command
        .arg("agents")
        .args(arguments)
        .env("HOLDPOINT_ADDR", format!("https://localhost:{port}"))
        .env("HOLDPOINT_CERT", world.pem(person))
        .env("HOLDPOINT_KEY", world.pem(&format!("{person}-key")))
        .env("HOLDPOINT_CACERT", world.pem("example.org"));
    said(command.output().await.unwrap())
}

#[tokio::test]
async fn a_person_stops_an_agent_from_the_command_line() {
    let world = World::start().await;
    let list = run(&world, "oncall", &["list"]).await;
    assert!(
        list.code == 0 && list.out.contains("agent/support") && !list.out.contains("payer"),
        "{}",
        list.out
    );
    let foreseen = run(&world, "oncall", &["suspend", "--team", "care", "--dry-run", "--reason", "x"]).await;
    assert!(
        foreseen.code == 0 && foreseen.out.contains("Nothing was done"),
        "{}{}",
        foreseen.out,
        foreseen.err
    );
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");
    let stopped = run(&world, "oncall", &["suspend", "agent/support", "--reason", "it loops"]).await;
    assert!(stopped.code == 0 && stopped.out.contains("is now suspended"), "{}{}", stopped.out, stopped.err);
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    let shown = run(&world, "oncall", &["show", "spiffe://example.org/agent/support", "--json"]).await;
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["agent"]["suspension"]["reason"], "it loops");
    let refused = run(&world, "pia", &["resume", "agent/support", "--reason", "please"]).await;
    assert!(refused.code == 1 && refused.out.contains("may not resume"), "{}{}", refused.out, refused.err);
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    let due = run(&world, "oncall", &["review"]).await;
    assert!(due.code == 0 && due.out.contains("No review is due"), "{}", due.out);
}

#[tokio::test]
async fn whoever_owns_the_machine_stops_agents_without_a_certificate() {
    let world = World::start().await;
    let socket = format!("unix://{}", world.dir.join("admin.sock").display());
    let local = |arguments: &'static [&'static str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
        command.args(["agents", "--addr", &socket]).args(arguments);
        async move { said(command.output().await.unwrap()) }
    };
    let list = local(&["list"]).await;
    assert!(list.code == 0 && list.out.contains("agent/payer"), "{}{}", list.out, list.err);
    let stopped = local(&["suspend", "--all", "--reason", "incident"]).await;
    assert!(stopped.code == 0 && stopped.out.contains("3 changed"), "{}{}", stopped.out, stopped.err);
    assert_eq!(world.calls(&world.agent("payer")).await.status, 403);
    world.nothing_upstream();
    let order = world.orders().pop().unwrap();
    assert_eq!((&order["by"]["kind"], &order["decision"]["rule"]), (&"local".into(), &"local-socket".into()));
    let resumed = local(&["resume", "agent/payer", "--reason", "over"]).await;
    assert!(resumed.code == 0, "{}{}", resumed.out, resumed.err);
    assert_eq!(world.calls(&world.agent("payer")).await.outcome(), "allowed");
}

#[tokio::test]
async fn what_cannot_be_done_says_why_and_by_its_exit_code() {
    let world = World::start().await;
    let cases: [(&[&str], i32, &str); 5] = [
        (&["suspend", "agent/support"], 64, "--reason"),
        (&["suspend", "agent/support", "--all", "--reason", "x"], 64, "cannot be used with"),
        (&["suspend", "agent/support", "--reason", " "], 64, "must say something"),
        (&["show", "agent/nobody"], 1, "no agent"),
        (&["--addr", "ftp://x", "list"], 64, "expected https://"),
    ];
    for (arguments, code, words) in cases {
        let told = run(&world, "oncall", arguments).await;
        assert_eq!(told.code, code, "{arguments:?}: {}{}", told.out, told.err);
        assert!((told.out + &told.err).contains(words), "{arguments:?}");
    }
    let away = run(&world, "oncall", &["--addr", "https://localhost:1", "list"]).await;
    assert_eq!(away.code, 2, "{}", away.err);
    // The gateway of somebody else, by its certificate.
    let other = run(&world, "oncall", &["--cacert", world.pem("people").to_str().unwrap(), "list"]).await;
    assert_eq!(other.code, 2, "{}", other.err);
    assert!(world.orders().is_empty());
}
