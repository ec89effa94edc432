//! Flow: what a run has read, so that policy can see a chain of harmless steps.
//!
//! Labels (`confidential`, `secret`, `untrusted`) come from what the catalogue says a reply brings. A run is labelled
//! from the moment a call is sent, so that a parallel call sees it, and its intent carries the labels, so that they come
//! back after a restart. A call is judged by the union of all runs of its agent within the window, and of agents that
//! used the same trace: a new session, trace or connection cleans nothing. This stage never stops a call; it only finds.

pub mod canary;
pub mod chain;
pub mod finding;
pub mod history;
pub mod index;
pub mod journal;
pub mod keep;
pub mod learn;
pub mod lineage;
mod matching;
pub mod outgoing;
pub mod provenance;
mod remember;
mod run;
pub mod secret;
pub mod text;
pub mod view;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::bench::{self, Control};
use crate::call::{AgentId, Confidentiality, Integrity, Profile, RecordId, Returns, Word, hex};
use crate::decode::Call;
use crate::secret::PseudonymKey;

pub use run::{Brought, Froze, Judged, RunView, Runs, Stopped};

/// How flow state is kept.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long labels are remembered; `secret` is remembered for at least a day.
    pub window: Duration,
    /// How strictly findings are taken where nothing secret was read.
    pub profile: Profile,
}

/// A label of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// Something `internal` or `secret` was read.
    Confidential,
    /// Something `secret` was read.
    Secret,
    /// Something that outsiders could have written was read.
    Untrusted,
}

impl Label {
    /// Every label.
    pub const ALL: [Label; 3] = [Label::Confidential, Label::Secret, Label::Untrusted];

    /// The word in policy, records and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Label::Confidential => "confidential",
            Label::Secret => "secret",
            Label::Untrusted => "untrusted",
        }
    }

    /// The label that a word names.
    pub fn parse(word: &str) -> Option<Label> {
        Label::ALL.into_iter().find(|label| label.as_str() == word)
    }
}

/// The labels that a reply brings, by its catalogue entry.
pub fn brings(returns: Returns) -> Vec<Label> {
    let mut labels = Vec::new();
    if returns.confidentiality >= Confidentiality::Internal {
        labels.push(Label::Confidential);
    }
    if returns.confidentiality == Confidentiality::Secret {
        labels.push(Label::Secret);
    }
    if returns.integrity != Integrity::Trusted {
        labels.push(Label::Untrusted);
    }
    labels
}

/// What policy may know of the run that a call belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The run's id, keyed under its agent.
    pub run: Arc<str>,
    /// The labels in force, sorted.
    pub labels: Vec<Label>,
    /// What was found in this call, sorted.
    pub findings: Vec<Word>,
    /// By which profile it is judged.
    pub profile: Profile,
    /// Calls of this run before this one.
    pub calls: u64,
}

/// The finding of a run that goes no further until a person has looked.
pub const FROZEN: &str = "frozen";

/// Where a call belongs.
#[derive(Clone, Debug)]
pub struct RunKey {
    /// Whose it is.
    pub agent: AgentId,
    /// Its run, keyed under its agent.
    pub run: Arc<str>,
    /// The trace that it came in, by which agents meet.
    pub trace: Option<[u8; 16]>,
}

impl RunKey {
    /// Where a call belongs: its run is its MCP session, else its trace, else the agent itself.
    pub fn of(call: &Call, key: &PseudonymKey) -> RunKey {
        let trace = call.trace().parent.map(|parent| parent.trace_id);
        let session = call.envelope().and_then(|envelope| envelope.session.as_deref());
        let run = match (session, trace) {
            // A session id is a handle that upstreams act on, so records name it by a pseudonym.
            (Some(session), _) => format!("session:{}", key.pseudonym(session.as_bytes())),
            (None, Some(trace)) => format!("trace:{}", hex(&trace)),
            (None, None) => format!("agent:{}", call.agent().id()),
        };
        RunKey { agent: call.agent().id().clone(), run: Arc::from(run), trace }
    }
}

/// Enters a call into its run and says what is remembered at this moment.
pub fn enter(runs: &Runs, place: &RunKey, now: SystemTime) -> Entry {
    if bench::off(Control::Flow) {
        let (run, profile) = (Arc::clone(&place.run), Profile::Balanced);
        return Entry { run, labels: Vec::new(), findings: Vec::new(), profile, calls: 0 };
    }
    let Judged { labels, calls, frozen } = runs.enter(place, now);
    let profile = match labels.contains(&Label::Secret) {
        true => Profile::Strict,
        false => runs.config().profile,
    };
    let findings = if frozen { vec![Word::Borrowed(FROZEN)] } else { Vec::new() };
    Entry { run: Arc::clone(&place.run), labels, findings, profile, calls }
}

/// Labels a run with what a call that is about to be sent will bring.
pub fn sent(runs: &Runs, place: &RunKey, brings: &[Label], record: RecordId, now: SystemTime) {
    if !brings.is_empty() && !bench::off(Control::Flow) {
        runs.label(place, brings, Some(record), now);
    }
}

/// Tells whether no other labels are in force for the agent than these: what streams was decided on before its bytes
/// were there, and must not carry out what was read since.
pub fn steady(runs: &Arc<Runs>, agent: &AgentId, known: Vec<Label>) -> impl Fn() -> bool + Send + Sync + use<> {
    let (runs, agent) = (Arc::clone(runs), agent.clone());
    move || runs.in_force(&agent, SystemTime::now()).iter().all(|label| known.contains(label))
}
