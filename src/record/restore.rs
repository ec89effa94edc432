//! What a restart takes from the audit: the labels that recent intents brought to their agents.

pub mod since;

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use memchr::memmem::Finder;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::stretch;
use crate::call::{AgentId, RecordId};
use crate::flow::Label;
use crate::store::Place;

/// From where the audit is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The first record that any label could still stand by.
    Oldest,
    /// The place of a snapshot that has all before it.
    Snapshot,
}

/// Calls `restored` for each label that an intent brought after the place of a snapshot, with its agent and its time.
/// Without a snapshot, or when the log that ends at `end` does not have its place, everything is read that was written
/// so long ago that a label could still stand: then labels come that the snapshot has too.
///
/// The log can hold millions of records, so a line is not parsed but searched: a quote inside a JSON string is escaped,
/// so what is looked for stands only where it is a member.
pub fn labels(
    dir: &Path,
    snapshot: Option<Place>,
    end: Place,
    back: Duration,
    mut restored: impl FnMut(&AgentId, Label, SystemTime),
) -> io::Result<Since> {
    let known = match snapshot {
        Some(place) if stretch::contains(dir, place, end)? => Some(place),
        _ => None,
    };
    let since = SystemTime::now().checked_sub(back).unwrap_or(SystemTime::UNIX_EPOCH);
    let finders = Finders::new();
    for stretch in stretch::between(dir, known.unwrap_or(Place::BEGIN), end)? {
        if known.is_none() && std::fs::metadata(&stretch.path)?.modified()? < since {
            continue;
        }
        let mut unreadable = None;
        stretch.lines(|line| {
            if !finders.concerns(line.bytes) {
                return ControlFlow::Continue(());
            }
            match finders.read(line.bytes) {
                Some(found) => found.labels.iter().for_each(|label| restored(&found.agent, *label, found.at)),
                None => unreadable = Some(line.number),
            }
            if unreadable.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(number) = unreadable {
            let path = stretch.path.display();
            let at = format!(
                "{path}: line {number} from where reading began: the labels of this intent cannot be read"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, at));
        }
    }
    Ok(if known.is_some() { Since::Snapshot } else { Since::Oldest })
}

/// What the log says of some ids since a moment: those that have a record of their own, and how calls ended whose
/// intent they are. Only what was written since then is read.
pub fn about(dir: &Path, end: Place, since: SystemTime, ids: &HashSet<RecordId>) -> io::Result<Known> {
    let (record, intent, status) =
        (Finder::new(b"\"id\":\""), Finder::new(b"\"intent\":\""), Finder::new(b"\"status\":\""));
    let outcome = Finder::new(b"\"type\":\"outcome\"");
    let named = |line: &[u8], finder: &Finder<'_>| {
        until(line, finder, "\"").and_then(RecordId::parse).filter(|id| ids.contains(id))
    };
    let mut known = Known::default();
    for stretch in stretch::between(dir, Place::BEGIN, end)? {
        if std::fs::metadata(&stretch.path)?.modified()? < since {
            continue;
        }
        stretch.lines(|line| {
            let head = head(line.bytes);
            known.records.extend(named(head, &record));
            if outcome.find(head).is_some()
                && let Some(id) = named(line.bytes, &intent)
            {
                let status = until(line.bytes, &status, "\"").unwrap_or_default();
                known.ended.insert(id, status.to_owned());
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(known)
}

/// What the log says of some ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Those that have a record of their own.
    pub records: HashSet<RecordId>,
    /// The status of the outcome of those that are an intent.
    pub ended: HashMap<RecordId, String>,
}

/// What an intent says of labels.
struct Found {
    at: SystemTime,
    agent: AgentId,
    labels: Vec<Label>,
}

struct Finders {
    intent: Finder<'static>,
    brings: Finder<'static>,
    agent: Finder<'static>,
    ts: Finder<'static>,
}

impl Finders {
    fn new() -> Finders {
        Finders {
            intent: Finder::new(b"\"type\":\"intent\""),
            brings: Finder::new(b"\"brings\":[\""),
            agent: Finder::new(b"\"agent\":{\"id\":\""),
            ts: Finder::new(b"\"ts\":\""),
        }
    }

    /// Whether a line is an intent that brought labels.
    fn concerns(&self, line: &[u8]) -> bool {
        self.intent.find(head(line)).is_some() && self.brings.find(line).is_some()
    }

    /// The labels of such a line.
    fn read(&self, line: &[u8]) -> Option<Found> {
        let brings = until(line, &self.brings, "]")?.trim_end_matches('"');
        let labels = brings.split("\",\"").map(Label::parse).collect::<Option<Vec<_>>>()?;
        let agent = AgentId::from_normalised(until(line, &self.agent, "\"")?);
        let at = OffsetDateTime::parse(until(head(line), &self.ts, "\"")?, &Rfc3339).ok()?;
        Some(Found { at: at.into(), agent, labels })
    }
}

/// Where the common members of a record lie.
fn head(line: &[u8]) -> &[u8] {
    line.get(..HEAD_BYTES).unwrap_or(line)
}

/// The text from the end of what is found to the next `end`.
fn until<'l>(line: &'l [u8], finder: &Finder<'_>, end: &str) -> Option<&'l str> {
    let rest = line.get(finder.find(line)? + finder.needle().len()..)?;
    let rest = rest.get(..memchr::memmem::find(rest, end.as_bytes())?)?;
    std::str::from_utf8(rest).ok()
}

/// The common members of a record lie within this.
const HEAD_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_intent_brought_is_read() {
        let finders = Finders::new();
        let intent = br#"{"v":1,"ts":"2026-11-21T01:02:03.5Z","type":"intent","agent":{"id":"spiffe://a.example/x","instance":"1"},"brings":["confidential","untrusted"],"tool":"t"}"#;
        assert!(finders.concerns(intent));
        let found = finders.read(intent).unwrap();
        assert_eq!(found.agent.as_str(), "spiffe://a.example/x");
        assert_eq!(found.labels, [Label::Confidential, Label::Untrusted]);
        let inside = br#"{"v":1,"ts":"2026-11-21T01:02:03.5Z","type":"intent","agent":{"id":"spiffe://a.example/x"},"tool":"\"brings\":[\"secret\"]","brings":[]}"#;
        assert!(!finders.concerns(inside));
        let outcome = br#"{"v":1,"ts":"2026-11-21T01:02:03.5Z","type":"outcome","agent":{"id":"x"},"brings":["secret"]}"#;
        assert!(!finders.concerns(outcome));
        let unknown =
            br#"{"v":1,"ts":"2026-11-21T01:02:03.5Z","type":"intent","agent":{"id":"x"},"brings":["later"]}"#;
        assert!(
            finders.concerns(unknown) && finders.read(unknown).is_none(),
            "a label that is not known is not dropped"
        );
    }
}
