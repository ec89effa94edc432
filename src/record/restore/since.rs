//! What the audit knows that a restored store does not: what became of holds, who was suspended, what was frozen, and which
//! endorsements were taken back.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::SystemTime;

use memchr::memmem::Finder;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::{AgentId, RecordId};
use crate::record::stretch;
use crate::store::holds::HoldState;
use crate::store::sqlite::backup::{Became, Later};
use crate::store::{Frozen, Order, Place, Who};

/// Reads the whole log for these holds, and for what was stopped since a moment and not let go again.
pub fn later(dir: &Path, holds: &HashSet<RecordId>, since: SystemTime) -> io::Result<Later> {
    let end = Place { segment: u64::MAX, ..Place::BEGIN };
    let wanted = [
        Finder::new(b"\"hold\":\""),
        Finder::new(b"\"type\":\"admin\""),
        Finder::new(b"\"type\":\"endorsement\""),
        Finder::new(b"\"what\":\"frozen\""),
    ];
    let mut later = Later::default();
    let mut suspended: HashMap<AgentId, Order> = HashMap::new();
    let mut frozen: HashMap<(AgentId, String), Frozen> = HashMap::new();
    for stretch in stretch::between(dir, Place::BEGIN, end)? {
        let mut unreadable = None;
        stretch.lines(|line| {
            if wanted.iter().all(|word| word.find(line.bytes).is_none()) {
                return ControlFlow::Continue(());
            }
            let Ok(record) = serde_json::from_slice::<Value>(line.bytes) else {
                unreadable = Some(line.number);
                return ControlFlow::Break(());
            };
            became(&record, holds, &mut later.holds);
            ordered(&record, since, &mut suspended);
            froze(&record, since, &mut frozen);
            later.revoked.extend(revoked(&record));
            ControlFlow::Continue(())
        })?;
        if let Some(number) = unreadable {
            let at = format!("{}: line {number} cannot be read", stretch.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, at));
        }
    }
    later.suspensions = suspended.into_values().collect();
    later.frozen = frozen.into_values().collect();
    Ok(later)
}

/// Notes what a record of a hold's life says of it.
fn became(record: &Value, wanted: &HashSet<RecordId>, holds: &mut HashMap<RecordId, Became>) {
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    // Records of requests that waited name the hold too, and say nothing of its state.
    let life = matches!(text("type"), Some("held" | "vote" | "released")) && text("what").is_some();
    let Some(hold) = text("hold").and_then(RecordId::parse).filter(|hold| life && wanted.contains(hold))
    else {
        return;
    };
    let known = holds.entry(hold).or_default();
    known.state = text("state").and_then(HoldState::parse).or(known.state);
    known.released |= text("type") == Some("released");
    known.record = text("intent").and_then(RecordId::parse).or(known.record);
}

/// Notes a suspension that was ordered, or forgets one that was lifted.
fn ordered(record: &Value, since: SystemTime, suspended: &mut HashMap<AgentId, Order>) {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
    if text("/type") != Some("admin") || text("/decision/outcome") != Some("allowed") {
        return;
    }
    let at = text("/ts").and_then(|ts| OffsetDateTime::parse(ts, &Rfc3339).ok()).map(SystemTime::from);
    let (Some(at), Some(agent)) = (at.filter(|at| *at >= since), text("/agent/id")) else { return };
    let agent = AgentId::from_normalised(agent);
    match text("/action") {
        Some("suspend") => {
            let by = match text("/by/id") {
                Some(id) => Who::Person(id.to_owned()),
                None => Who::LocalSocket,
            };
            let reason = text("/reason").unwrap_or_default().to_owned();
            suspended.insert(agent.clone(), Order { agent, by, reason, at });
        }
        // A run that was let go on is another order of the same right.
        Some("resume") if text("/what").is_none() => drop(suspended.remove(&agent)),
        _ => {}
    }
}

/// Notes a run that was frozen, or forgets one that a person let go on.
fn froze(record: &Value, since: SystemTime, frozen: &mut HashMap<(AgentId, String), Frozen>) {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
    let at = text("/ts").and_then(|ts| OffsetDateTime::parse(ts, &Rfc3339).ok()).map(SystemTime::from);
    let (Some(at), Some(agent), Some(run)) = (at.filter(|at| *at >= since), text("/agent/id"), text("/run"))
    else {
        return;
    };
    // All of an agent's runs are `*` in the audit, and nothing in the store.
    let run = if run == "*" { String::new() } else { run.to_owned() };
    let agent = AgentId::from_normalised(agent);
    match (text("/type"), text("/what")) {
        (Some("finding"), Some("frozen")) => {
            let why = text("/reason").unwrap_or_default().to_owned();
            frozen.insert((agent.clone(), run.clone()), Frozen { agent, run, at, why });
        }
        (Some("admin"), Some("unfreeze")) => drop(frozen.remove(&(agent, run))),
        _ => {}
    }
}

/// The endorsement that a record takes back.
fn revoked(record: &Value) -> Option<RecordId> {
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    text("endorsement").filter(|_| text("what") == Some("revoke")).and_then(RecordId::parse)
}
