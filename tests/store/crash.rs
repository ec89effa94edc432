//! What `kill -9` leaves: children of this program are killed while they write, and what they were promised is there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use holdpoint::app::{keep_labels, restore_labels};
use holdpoint::call::{AgentId, Profile, RecordId};
use holdpoint::flow::text::FlowKey;
use holdpoint::flow::{self, Label, RunKey, Runs};
use holdpoint::json::Members;
use holdpoint::record::restore::Since;
use holdpoint::record::{Config, Durability, Entry, Kind, Ledger};
use holdpoint::store::sqlite::Sqlite;

use super::*;

const WINDOW: flow::Config = flow::Config { window: Duration::from_secs(1800), profile: Profile::Balanced };

fn at(agent: &AgentId) -> RunKey {
    RunKey { agent: agent.clone(), run: Arc::from("run"), trace: None, instance: None, isolated: None }
}

/// A process that runs one of the ignored tests below in a directory.
fn child(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("crash::{test}"), "--ignored", "--nocapture"])
        .env("HOLDPOINT_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the child when it was promised so many things, and gives all of them.
fn promised_until_killed(test: &str, dir: &Path, promises: usize) -> Vec<String> {
    let mut child = child(test, dir);
    let mut promised = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap_or_default();
        // The last line may be cut off in its middle.
        if let Some(promise) = line.strip_prefix("promised ").and_then(|line| line.strip_suffix(" .")) {
            promised.push(promise.to_owned());
            if promised.len() == promises {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(promised.len() >= promises, "the child ended by itself");
    promised
}

fn promise(what: impl std::fmt::Display) {
    writeln!(std::io::stdout().lock(), "\npromised {what} .").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below"]
async fn suspends_until_killed() {
    let Ok(dir) = std::env::var("HOLDPOINT_TEST_DIR") else { return };
    let store = Arc::new(Sqlite::open(&Path::new(&dir).join("holdpoint.db")).await.unwrap());
    let begin = in_force(&*store).await.len();
    for number in begin.. {
        let name = format!("agent-{number:06}");
        store.suspend(order(&name, ana(), "because", 1)).await.unwrap();
        promise(&name);
    }
}

#[tokio::test]
async fn suspensions_that_were_promised_survive_kill_9() {
    let dir = Dir::new();
    let mut promised = Vec::new();
    for round in 1..=4 {
        promised.extend(promised_until_killed("suspends_until_killed", &dir.0, 20 * round));
    }
    let store = Sqlite::open(&dir.file("holdpoint.db")).await.unwrap();
    let there = in_force(&store).await;
    // What was written last may not have been promised yet.
    assert!(promised.iter().all(|name| there.contains(name)), "{promised:?}\n{there:?}");
    assert!(there.len() <= promised.len() + 4);
}

/// An intent that brings labels, as the path writes it.
fn intent(agent: &AgentId, brings: Label) -> Entry {
    let mut members = Members::default();
    members.object("agent", |members| {
        members.text("id", agent.as_str());
        members.text("instance", "01");
    });
    members.texts("brings", [brings.as_str()]);
    Entry::new(Kind::Intent, None, members)
}

fn small_segments(dir: &Path) -> Config {
    Config { segment_bytes_max: 20_000, ..Config::new(dir.join("audit")) }
}

/// What a gateway does with labels, all at once: calls bring them, and snapshots are kept meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below"]
async fn labels_until_killed() {
    let Ok(dir) = std::env::var("HOLDPOINT_TEST_DIR") else { return };
    let dir = PathBuf::from(dir);
    let store = Arc::new(Sqlite::open(&dir.join("holdpoint.db")).await.unwrap());
    let (ledger, _) = Ledger::open(small_segments(&dir)).unwrap();
    let runs = Arc::new(Runs::new(WINDOW, FlowKey::new(&[7; 32])));
    restore_labels(&runs, &*store, &dir.join("audit"), (ledger.end())()).await.unwrap();
    for task in 0..4 {
        let (ledger, runs) = (ledger.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            for number in 0.. {
                let agent = agent(&format!("{}-{task}-{number}", std::process::id()));
                let label = Label::ALL[number % Label::ALL.len()];
                flow::sent(&runs, &at(&agent), &[label], RecordId::new(), SystemTime::now());
                let written = ledger.append(intent(&agent, label), Durability::Written).await;
                written.unwrap();
                promise(format!("{agent} {}", label.as_str()));
            }
        });
    }
    loop {
        keep_labels(&runs, &*store, ledger.end()).await.unwrap();
        promise("a snapshot");
    }
}

#[tokio::test]
async fn a_label_is_never_lost_by_kill_9_at_any_point() {
    let dir = Dir::new();
    let (mut promised, mut snapshots, mut from_snapshot) = (Vec::new(), 0, 0);
    for round in 0..8 {
        promised.extend(promised_until_killed("labels_until_killed", &dir.0, 40 + 67 * round));
        let (taken, labels): (Vec<_>, Vec<_>) = promised.drain(..).partition(|what| what == "a snapshot");
        (snapshots, promised) = (snapshots + taken.len(), labels);

        let store = Sqlite::open(&dir.file("holdpoint.db")).await.unwrap();
        let (ledger, _) = Ledger::open(small_segments(&dir.0)).unwrap();
        let runs = Runs::new(WINDOW, FlowKey::new(&[7; 32]));
        let since = restore_labels(&runs, &store, &dir.file("audit"), (ledger.end())()).await.unwrap();
        from_snapshot += usize::from(since == Since::Snapshot);
        for label in &promised {
            let (agent, label) = label.split_once(' ').unwrap();
            let agent = AgentId::from_normalised(agent);
            let there = flow::enter(&runs, &at(&agent), SystemTime::now()).labels;
            assert_eq!(there, [Label::parse(label).unwrap()], "round {round}: {agent}");
        }
    }
    assert!(snapshots > 8 && from_snapshot > 4, "{snapshots} snapshots, {from_snapshot} used");
}
