//! Flow: what a run has read, so that policy can see a chain of harmless steps.
//!
//! This version keeps labels: `confidential`, `secret` and `untrusted`, from what the catalogue says a reply brings.
//! A run is labelled from the moment a call is sent, so that a parallel call sees it, and its intent carries the
//! labels, so that they come back after a restart. A call is judged by the union of all runs of its agent within the
//! window: a new session, trace or connection cleans nothing. This stage never stops a call; it only finds.

pub mod canary;
pub mod chain;
pub mod finding;
pub mod history;
pub mod index;
pub mod learn;
pub mod lineage;
mod matching;
pub mod provenance;
pub mod secret;
pub mod text;
pub mod view;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::bench::{self, Control};
use crate::call::{AgentId, Confidentiality, Integrity, Returns, hex};
use crate::decode::Call;
use crate::secret::PseudonymKey;

/// How flow state is kept.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long labels are remembered; `secret` is remembered for at least a day.
    pub window: Duration,
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

/// How long a `secret` label stands at least.
const SECRET_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// How far a clock may be ahead for a while without a label being taken for ended that is not.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many runs of one agent are counted; beyond it the oldest are forgotten (their labels are the agent's and stay).
const RUNS_MAX: usize = 1024;
/// How many are forgotten together, so that who makes up a run for each call does not pay for the search each time.
const RUNS_FORGOTTEN: usize = RUNS_MAX / 4;

/// What all runs have read.
pub struct Runs {
    window: Duration,
    agents: Arc<DashMap<AgentId, History, RandomState>>,
}

#[derive(Default)]
struct History {
    /// When each label was last brought, in the order of [`Label::ALL`].
    labelled: [Option<SystemTime>; 3],
    /// The calls of each run, and when the last one was, in calls of the agent.
    runs: HashMap<Arc<str>, (u64, u64)>,
    calls: u64,
}

/// What policy may know of the run that a call belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The run's id, keyed under its agent.
    pub run: Arc<str>,
    /// The labels in force, sorted.
    pub labels: Vec<Label>,
    /// Calls of this run before this one.
    pub calls: u64,
}

/// The run that a call belongs to: its MCP session, else its trace, else the agent itself.
pub fn run_of(call: &Call, key: &PseudonymKey) -> Arc<str> {
    if let Some(session) = call.envelope().and_then(|envelope| envelope.session.as_deref()) {
        // A session id is a handle that upstreams act on, so records name it by a pseudonym.
        return Arc::from(format!("session:{}", key.pseudonym(session.as_bytes())));
    }
    match call.trace().parent {
        Some(parent) => Arc::from(format!("trace:{}", hex(&parent.trace_id))),
        None => Arc::from(format!("agent:{}", call.agent().id())),
    }
}

/// Enters a call into its run and says what the agent's runs remember at this moment.
pub fn enter(runs: &Runs, agent: &AgentId, run: Arc<str>, now: SystemTime) -> Entry {
    if bench::off(Control::Flow) {
        return Entry { run, labels: Vec::new(), calls: 0 };
    }
    let mut history = runs.agents.entry(agent.clone()).or_default();
    let labels = history.in_force(runs.window, now);
    let calls = history.count(&run);
    Entry { run, labels, calls }
}

/// Labels the agent's runs with what a call that is about to be sent will bring.
pub fn sent(runs: &Runs, agent: &AgentId, brings: &[Label], now: SystemTime) {
    if brings.is_empty() || bench::off(Control::Flow) {
        return;
    }
    let mut history = runs.agents.entry(agent.clone()).or_default();
    for label in brings {
        if let Some(at) = history.labelled.get_mut(*label as usize) {
            *at = Some(at.map_or(now, |before| before.max(now)));
        }
    }
}

/// Tells whether the agent has no other labels than these: what streams was decided on before its bytes were there, and
/// must not carry out what was read since.
pub fn steady(runs: &Runs, agent: &AgentId, known: Vec<Label>) -> impl Fn() -> bool + Send + Sync + use<> {
    let (window, agents, agent) = (runs.window, Arc::clone(&runs.agents), agent.clone());
    move || {
        let now = agents.get(&agent).map(|history| history.in_force(window, SystemTime::now()));
        now.unwrap_or_default().iter().all(|label| known.contains(label))
    }
}

// === impl Runs ===

impl Runs {
    /// No runs yet.
    pub fn new(config: Config) -> Runs {
        Runs { window: config.window, agents: Arc::default() }
    }

    /// How long any label stands.
    pub fn longest(&self) -> Duration {
        self.window.max(SECRET_WINDOW)
    }

    /// Every label of every agent, and when it was brought last, without those that ended long ago.
    pub fn labels(&self, now: SystemTime) -> Vec<(AgentId, Label, SystemTime)> {
        let mut labels = Vec::new();
        for entry in self.agents.iter() {
            for (label, at) in Label::ALL.into_iter().zip(entry.labelled) {
                let ended =
                    |at| now.duration_since(at).unwrap_or_default() > self.longest() + CLOCK_ERROR_MAX;
                if let Some(at) = at.filter(|at| !ended(*at)) {
                    labels.push((entry.key().clone(), label, at));
                }
            }
        }
        labels
    }
}

// === impl History ===

impl History {
    fn in_force(&self, window: Duration, now: SystemTime) -> Vec<Label> {
        let fresh = |label: &Label| {
            let window = if *label == Label::Secret { window.max(SECRET_WINDOW) } else { window };
            let at = self.labelled.get(*label as usize).copied().flatten();
            // A clock that went back must not clean a run: an age that cannot be told counts as none.
            at.is_some_and(|at| now.duration_since(at).unwrap_or_default() <= window)
        };
        Label::ALL.into_iter().filter(fresh).collect()
    }

    /// Counts a call of the run and gives the number before it.
    fn count(&mut self, run: &Arc<str>) -> u64 {
        self.calls += 1;
        if let Some((calls, last)) = self.runs.get_mut(run) {
            (*calls, *last) = (*calls + 1, self.calls);
            return *calls - 1;
        }
        if self.runs.len() >= RUNS_MAX {
            self.forget_oldest();
        }
        self.runs.insert(Arc::clone(run), (1, self.calls));
        0
    }

    fn forget_oldest(&mut self) {
        let mut last: Vec<u64> = self.runs.values().map(|(_, last)| *last).collect();
        if last.len() > RUNS_FORGOTTEN {
            let (_, kept, _) = last.select_nth_unstable(RUNS_FORGOTTEN);
            self.runs.retain(|_, (_, last)| *last >= *kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentId {
        AgentId::from_normalised(&format!("spiffe://example.org/{name}"))
    }

    const MAIL: Returns = Returns { confidentiality: Confidentiality::Internal, integrity: Integrity::Mixed };

    #[test]
    fn a_new_run_of_the_same_agent_is_judged_by_what_the_last_one_read() {
        let runs = Runs::new(Config { window: Duration::from_secs(1800) });
        let now = SystemTime::now();
        assert!(enter(&runs, &agent("a"), Arc::from("one"), now).labels.is_empty());
        sent(&runs, &agent("a"), &brings(MAIL), now);
        let entry = enter(&runs, &agent("a"), Arc::from("two"), now);
        assert_eq!(entry.labels, [Label::Confidential, Label::Untrusted]);
        assert_eq!(entry.calls, 0);
        assert_eq!(enter(&runs, &agent("a"), Arc::from("two"), now).calls, 1);
        assert!(enter(&runs, &agent("b"), Arc::from("one"), now).labels.is_empty());
    }

    #[test]
    fn an_agent_that_makes_up_runs_costs_no_more_than_the_bound() {
        let runs = Runs::new(Config { window: Duration::from_secs(60) });
        let now = SystemTime::now();
        for run in 0..3 * RUNS_MAX {
            enter(&runs, &agent("a"), Arc::from(format!("made-up-{run}")), now);
            let calls = enter(&runs, &agent("a"), Arc::from("kept"), now).calls;
            assert_eq!(calls, run as u64, "a run that goes on is not forgotten");
        }
        let kept = runs.agents.get(&agent("a")).unwrap().runs.len();
        assert!((RUNS_MAX - RUNS_FORGOTTEN..=RUNS_MAX).contains(&kept), "{kept}");
    }

    #[test]
    fn labels_go_with_the_window_and_secrets_stay_a_day() {
        let runs = Runs::new(Config { window: Duration::from_secs(60) });
        let now = SystemTime::now();
        let secret = Returns { confidentiality: Confidentiality::Secret, integrity: Integrity::Trusted };
        sent(&runs, &agent("a"), &brings(secret), now);
        let later =
            |seconds| enter(&runs, &agent("a"), Arc::from("r"), now + Duration::from_secs(seconds)).labels;
        assert_eq!(later(59), [Label::Confidential, Label::Secret]);
        assert_eq!(later(3600), [Label::Secret]);
        assert!(later(90_000).is_empty());
        let back = enter(&runs, &agent("a"), Arc::from("r"), now - Duration::from_secs(9000)).labels;
        assert_eq!(back, [Label::Confidential, Label::Secret]);
    }
}
