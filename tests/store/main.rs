//! The store through its traits, so that another database must pass the same; then what is SQLite's own; and what a
//! crash leaves.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod conformance;
mod crash;
mod holds;
mod index;
mod sqlite;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holdpoint::call::{AgentId, RecordId};
use holdpoint::store::{Order, Place, REASON_BYTES_MAX, Row, Store, Who};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let dir = std::env::temp_dir().join(format!("holdpoint-store-{}", RecordId::new()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn agent(name: &str) -> AgentId {
    AgentId::from_normalised(&format!("spiffe://example.org/agent/{name}"))
}

/// So many seconds after some moment.
fn second(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + number)
}

fn ana() -> Who {
    Who::Person("spiffe://people.example.org/ana".to_owned())
}

fn order(name: &str, by: Who, reason: &str, at: u64) -> Order {
    Order { agent: agent(name), by, reason: reason.to_owned(), at: second(at) }
}

async fn in_force(store: &dyn Store) -> Vec<String> {
    let all = store.suspensions().await.unwrap();
    all.iter().map(|one| one.suspended.agent.as_str().rsplit('/').next().unwrap().to_owned()).collect()
}

fn row(seq: u64) -> Row {
    let id = RecordId::from_u128(u128::from(seq) + 1000);
    Row {
        id,
        seq,
        segment: 1,
        offset: seq * 100,
        at: second(seq),
        kind: "intent".to_owned(),
        call: id,
        agent: agent(if seq.is_multiple_of(2) { "even" } else { "odd" }).as_str().to_owned(),
        owner: "ana@example.org".to_owned(),
        team: "care".to_owned(),
        upstream: "mail".to_owned(),
        tool: format!("tool-{}", seq % 3),
        class: "read".to_owned(),
        outcome: if seq.is_multiple_of(5) { "denied" } else { "allowed" }.to_owned(),
        would_be: if seq.is_multiple_of(7) { "held" } else { "" }.to_owned(),
        reason: String::new(),
        rule: "read".to_owned(),
        trace: (!seq.is_multiple_of(4)).then_some([(seq % 4) as u8; 16]),
        run: "r".to_owned(),
        hold: String::new(),
        lifts: String::new(),
    }
}

fn after(seq: u64) -> Place {
    Place { segment: 1, bytes: seq * 100 + 100, seq, leaf: [seq as u8; 32] }
}
