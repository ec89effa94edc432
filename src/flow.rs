//! Flow: what a run has read, so that policy can see a chain of harmless steps.
//!
//! Labels (`confidential`, `secret`, `untrusted`) come from what the catalogue says a reply brings. A run is labelled
//! from the moment a call is sent, so that a parallel call sees it, and its intent carries the labels, so that they come
//! back after a restart. A call is judged by the union of all runs of its agent within the window, and of agents that
//! used the same trace: a new session, trace or connection cleans nothing. Only a task that its orchestrator isolated is
//! judged by less ([`isolated`]). This stage never stops a call; it only finds.

mod blocks;
pub mod canary;
pub mod canon;
pub mod chain;
pub mod endorsed;
pub mod finding;
pub mod history;
pub mod index;
pub mod isolated;
pub mod journal;
pub mod keep;
pub mod learn;
pub mod lineage;
mod masks;
mod matching;
pub mod outgoing;
pub mod planted;
mod pointed;
pub mod provenance;
mod remember;
mod run;
pub mod secret;
mod sorted;
mod spelled;
pub mod text;
pub mod view;
mod winnow;
mod wire;
mod words;
mod written;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::bench::{self, Control};
use crate::call::{AgentId, Confidentiality, Integrity, Profile, RecordId, Returns, Task, Word, hex};
use crate::decode::Call;
use crate::secret::PseudonymKey;

use chain::{Chain, Then};
pub use finding::{Evidence, Finding};
use finding::{FindingKind, How, Outgoing};
use history::Step;
use isolated::Kin;
pub use remember::restore;
pub use run::{Brought, Found, Froze, Judged, RunView, Runs, Stopped};

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

    /// These labels as bits, in the order of their declaration.
    pub fn bits(labels: &[Label]) -> u8 {
        labels.iter().fold(0, |bits, label| bits | 1 << (*label as u8))
    }

    /// The labels that bits stand for.
    pub fn of_bits(bits: u8) -> Vec<Label> {
        Label::ALL.into_iter().filter(|label| bits & 1 << (*label as u8) != 0).collect()
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

/// Whether flow control is turned off, in a binary for benchmarks.
pub fn is_off() -> bool {
    bench::off(Control::Flow)
}

/// What policy may know of the run that a call belongs to.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The run's id, keyed under its agent.
    pub run: Arc<str>,
    /// The labels in force, sorted.
    pub labels: Vec<Label>,
    /// What was found in this call, sorted.
    pub findings: Vec<Word>,
    /// By which profile it is judged.
    pub profile: Profile,
    /// The tiers of its destinations, sorted; `None` where nothing looked at them.
    pub tiers: Option<Vec<Word>>,
    /// Calls of this run before this one.
    pub calls: u64,
    /// The orchestrator's task, when its token came with the call.
    pub task: Option<Task>,
    /// The endorsements by which a destination counts as known.
    pub endorsements: Vec<RecordId>,
}

/// What came of examining a call, for what becomes of it.
#[derive(Debug)]
pub struct Leaving {
    /// What was found, with its evidence.
    pub findings: Vec<Finding>,
    /// Who everything that it carries belongs to: what it makes is theirs too.
    pub parties: Vec<u64>,
    /// A digest of the whole call.
    digest: u64,
    /// What is noted when it is sent; `None` when nothing is.
    sent: Option<Step>,
    /// What is noted when a finding stops it; `None` when none could.
    stopped: Option<Step>,
    /// Its destinations, by which the end of what it carries is kept.
    places: Vec<u64>,
    /// The end of what it carries.
    tail: String,
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
    /// The serial number of the certificate that it came with; none where that is not known.
    pub instance: Option<Arc<str>>,
    /// What it is judged by, where its task is isolated.
    pub isolated: Option<Arc<[Kin]>>,
}

impl RunKey {
    /// Where a call belongs: its run is its task, else its MCP session, else its trace, else the agent itself.
    pub fn of(call: &Call, task: Option<RecordId>, key: &PseudonymKey) -> RunKey {
        let trace = call.trace().parent.map(|parent| parent.trace_id);
        let session = call.envelope().and_then(|envelope| envelope.session.as_deref());
        let run = match (task, session, trace) {
            (Some(task), _, _) => format!("task:{task}"),
            // A session id is a handle that upstreams act on, so records name it by a pseudonym.
            (None, Some(session), _) => format!("session:{}", key.pseudonym(session.as_bytes())),
            (None, None, Some(trace)) => format!("trace:{}", hex(&trace)),
            (None, None, None) => format!("agent:{}", call.agent().id()),
        };
        let instance = Some(Arc::clone(call.agent().instance()));
        RunKey { agent: call.agent().id().clone(), run: Arc::from(run), trace, instance, isolated: None }
    }
}

/// Enters a call into its run and says what is remembered at this moment.
pub fn enter(runs: &Runs, place: &RunKey, now: SystemTime) -> Entry {
    if bench::off(Control::Flow) {
        let (run, profile) = (Arc::clone(&place.run), Profile::Balanced);
        return Entry {
            run,
            labels: Vec::new(),
            findings: Vec::new(),
            profile,
            tiers: None,
            calls: 0,
            task: None,
            endorsements: Vec::new(),
        };
    }
    let Judged { labels, calls, frozen } = runs.enter(place, now);
    let profile = match labels.contains(&Label::Secret) {
        true => Profile::Strict,
        false => runs.config().profile,
    };
    let findings = if frozen { vec![Word::Borrowed(FROZEN)] } else { Vec::new() };
    let run = Arc::clone(&place.run);
    Entry { run, labels, findings, profile, tiers: None, calls, task: None, endorsements: Vec::new() }
}

/// Examines a call by what is remembered, and notes in its entry what was found, with the sequences that it completes. A
/// body that is not `readable` may carry anything that was read.
pub fn examine(
    runs: &Runs,
    key: &RunKey,
    entry: &mut Entry,
    (outgoing, readable, completes): (&Outgoing<'_>, Readable, &[&Chain]),
    now: SystemTime,
) -> Leaving {
    let mut examined = runs.examine(key, outgoing, now);
    let confidential = entry.labels.iter().any(|label| *label != Label::Untrusted);
    if readable == Readable::No && examined.leaves && confidential && !examined.has(&FindingKind::Lineage) {
        let evidence = Evidence { origin: None, how: How::Unknown, matched: 0, bytes: 0 };
        examined.findings.push(Finding { kind: FindingKind::Lineage, evidence: vec![evidence] });
    }
    let stops = examined.findings.iter().any(|finding| match finding.kind {
        FindingKind::Trifecta | FindingKind::PlantedArgument => entry.profile == Profile::Strict,
        _ => true,
    });
    let stops = stops || completes.iter().any(|chain| chain.then != Then::Note);
    examined.findings.extend(
        completes
            .iter()
            .map(|chain| Finding { kind: FindingKind::Chain(Arc::clone(&chain.name)), evidence: Vec::new() }),
    );
    entry.findings.extend(completes.iter().filter_map(|chain| chain.then.word()));
    entry.findings.extend(examined.findings.iter().map(|finding| finding.kind.word()));
    entry.findings.sort();
    entry.findings.dedup();
    entry.tiers = Some(examined.tiers.iter().map(|tier| Word::Borrowed(tier.as_str())).collect());
    Leaving {
        digest: outgoing.digest,
        sent: examined.sent(),
        stopped: stops.then(|| examined.stopped(outgoing)),
        places: examined.places.iter().map(|(place, _)| *place).collect(),
        tail: tail(outgoing),
        parties: std::mem::take(&mut examined.parties),
        findings: std::mem::take(&mut examined.findings),
    }
}

/// Whether the body of a call was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// It streams unread, or is of a kind that nobody described.
    No,
    /// All of it.
    Yes,
}

/// The end of what a call carries, which is joined with the next one to the same place.
fn tail(outgoing: &Outgoing<'_>) -> String {
    let mut parts = Vec::new();
    let mut left = history::JOINED_BYTES_MAX;
    for text in outgoing.payload.iter().rev() {
        let from = text.len().saturating_sub(left);
        let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        let part = text.get(from..).unwrap_or_default();
        left -= part.len();
        parts.push(part);
        if left == 0 {
            break;
        }
    }
    parts.reverse();
    parts.concat()
}

impl Leaving {
    /// Whether anything was found that a shipped policy stops; what else was found is on the span and with the intent.
    pub fn is_evidence(&self) -> bool {
        self.stopped.is_some()
    }
}

/// Notes that an examined call is sent, and gives what the journal must have.
pub fn leaves(runs: &Runs, key: &RunKey, leaving: &Leaving, now: SystemTime) -> Option<Step> {
    let step = leaving.sent.as_ref()?;
    let introduces = match step {
        Step::Sent { introduced, .. } => !runs.has_introduced(&key.agent, introduced),
        Step::Approved { .. } | Step::Stopped { .. } => false,
    };
    runs.step(key, step, now);
    if !leaving.tail.is_empty() {
        runs.keep_tail(key, &leaving.places, &leaving.tail, now);
    }
    match step {
        Step::Sent { url_bytes, carried, .. } => {
            let tells = introduces || *url_bytes > 0 || !carried.is_empty();
            tells.then(|| step.clone())
        }
        Step::Approved { .. } | Step::Stopped { .. } => None,
    }
}

/// Notes that an examined call was stopped, where a finding could have done it; gives what the journal must have, and
/// what that freezes.
pub fn stopped(runs: &Runs, key: &RunKey, leaving: &Leaving, now: SystemTime) -> Option<(Step, Vec<Froze>)> {
    let step = leaving.stopped.clone()?;
    let froze = runs.step(key, &step, now);
    Some((step, froze))
}

/// Notes that people approved a call that findings stopped, and gives what the journal must have: it counts no more.
pub fn approved(runs: &Runs, key: &RunKey, leaving: &Leaving, now: SystemTime) -> Step {
    let step = Step::Approved { digest: leaving.digest };
    runs.step(key, &step, now);
    step
}

/// Labels a run with what a call that is about to be sent will bring.
pub fn sent(runs: &Runs, place: &RunKey, brings: &[Label], record: RecordId, now: SystemTime) {
    if !brings.is_empty() && !bench::off(Control::Flow) {
        runs.label(place, brings, Some(record), now);
    }
}

/// Tells whether no other labels are in force for the call than these: what streams was decided on before its bytes
/// were there, and must not carry out what was read since.
pub fn steady(
    runs: &Arc<Runs>,
    place: &RunKey,
    known: Vec<Label>,
) -> impl Fn() -> bool + Send + Sync + use<> {
    let (runs, place) = (Arc::clone(runs), place.clone());
    move || runs.in_force(&place, SystemTime::now()).iter().all(|label| known.contains(label))
}
