//! What runs remember, keyed by run under the agent, each agent behind a lock of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::canary::Canaries;
use super::chain::Progresses;
use super::finding::Finding;
use super::history::History;
use super::isolated::{Callers, Unplaced};
use super::lineage::{Memory, SECRET_WINDOW};
use super::text::FlowKey;
use super::written::Written;
use super::{Config, Label, RunKey};
use crate::call::{AgentId, RecordId};

/// How far a clock may be ahead for a while without a label being taken for ended that is not.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many runs of one agent are counted; beyond it the oldest are forgotten (their labels are the agent's and stay).
const RUNS_MAX: usize = 1024;
/// How many are forgotten together, so that who makes up a run for each call does not pay for the search each time.
const RUNS_FORGOTTEN: usize = RUNS_MAX / 4;
/// How many traces are known by who used them; beyond it those that were used last by one agent alone go first.
const TRACES_MAX: usize = 1 << 17;
/// How many agents of one trace are known.
const TRACE_AGENTS_MAX: usize = 16;
/// How many agents one agent may have met.
const MET_MAX: usize = 256;
/// Calls of one agent that flow findings stopped and that are remembered.
const STOPPED_MAX: usize = 64;
/// More calls than this, that findings stopped in one run, freeze the run.
const STOPPED_IN_RUN_MAX: usize = 3;
/// So many of one agent within the window freeze the agent.
const STOPPED_OF_AGENT: usize = 10;
/// Calls of one run in which something was found and that are remembered for people.
const FOUND_MAX: usize = 32;

/// A memory that one agent's calls share.
pub(super) type Shared<T> = Arc<RwLock<T>>;

/// What all runs have read.
pub struct Runs {
    config: Config,
    agents: DashMap<AgentId, Arc<Mutex<Past>>, RandomState>,
    /// Who used a trace, and when last.
    traces: DashMap<[u8; 16], Vec<(AgentId, SystemTime)>, RandomState>,
    /// What agents of a trust domain read that is secret, by domain.
    pub(super) secrets: DashMap<String, Vec<(AgentId, Shared<Memory>)>, RandomState>,
    /// Under which everything is hashed.
    pub(super) key: Arc<FlowKey>,
    /// Tokens that must never leave.
    pub(super) canaries: ArcSwap<Canaries>,
    /// How far sequences of all agents of a trust domain got, by domain.
    pub(super) chains: DashMap<String, Progresses, RandomState>,
}

/// What is remembered of one agent.
#[derive(Default)]
pub(super) struct Past {
    /// When each label was last brought, in the order of [`Label::ALL`].
    labelled: [Option<SystemTime>; 3],
    /// Those labels of which it is not known which run brought them.
    pub(super) unplaced: Unplaced,
    pub(super) runs: HashMap<Arc<str>, Run, RandomState>,
    calls: u64,
    /// What runs remember that have no room for a memory of their own.
    pub(super) shared: Option<Shared<Memory>>,
    /// What was read that is secret.
    pub(super) secrets: Option<Shared<Memory>>,
    /// What was sent, and where.
    pub(super) sent: Shared<History>,
    /// The agents that used the same trace, and when they were last seen to.
    met: HashMap<AgentId, SystemTime>,
    /// Calls that findings stopped, the oldest first.
    stopped: Vec<Stopped>,
    /// Since when the agent is frozen as a whole.
    frozen: Option<SystemTime>,
    /// How far sequences of the agent's calls got.
    pub(super) chains: Progresses,
}

#[derive(Default)]
pub(super) struct Run {
    calls: u64,
    /// The agent's number of its last call.
    last: u64,
    at: Option<SystemTime>,
    pub(super) brought: Vec<Brought>,
    /// The certificates that have read in it.
    pub(super) callers: Callers,
    frozen: Option<SystemTime>,
    pub(super) memory: Option<Shared<Memory>>,
    /// What the journal has of it, of the last moments.
    pub(super) written: Written,
    found: Vec<Found>,
    /// How far sequences of the run's calls got.
    pub(super) chains: Progresses,
}

/// A label of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brought {
    /// The label.
    pub label: Label,
    /// When it was brought last.
    pub at: SystemTime,
    /// The record that brought it, where it is known.
    pub record: Option<RecordId>,
}

/// What was found in a call: the sink of what its evidence names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The record of the call.
    pub record: RecordId,
    /// When.
    pub at: SystemTime,
    /// The upstream that it went to, or would have gone to.
    pub upstream: Arc<str>,
    /// The tool or operation.
    pub tool: Arc<str>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// A call that findings stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The digest of what was called with what: the same call again is no other one.
    pub call: u64,
    /// The run.
    pub run: Arc<str>,
    /// When.
    pub at: SystemTime,
}

/// What was frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Froze {
    /// The run; none for the agent as a whole.
    pub run: Option<Arc<str>>,
    /// Why, as an operator reads it.
    pub why: String,
}

/// What is remembered when a call enters its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The labels in force, sorted.
    pub labels: Vec<Label>,
    /// Calls of the run before this one.
    pub calls: u64,
    /// Whether the run, or its agent, is frozen.
    pub frozen: bool,
}

/// A run as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunView {
    /// Whose it is.
    pub agent: AgentId,
    /// Its id; empty for the agent as a whole.
    pub run: Arc<str>,
    /// Its calls.
    pub calls: u64,
    /// When it was last seen; unknown when only its labels came back from the disk.
    pub at: Option<SystemTime>,
    /// Its labels.
    pub labels: Vec<Brought>,
    /// Since when it is frozen.
    pub frozen: Option<SystemTime>,
    /// How many of its calls findings stopped, of those that are remembered.
    pub stopped: usize,
}

impl Runs {
    /// No runs yet.
    pub fn new(config: Config, key: FlowKey) -> Runs {
        Runs {
            config,
            agents: DashMap::default(),
            traces: DashMap::default(),
            secrets: DashMap::default(),
            key: Arc::new(key),
            canaries: ArcSwap::default(),
            chains: DashMap::default(),
        }
    }

    /// Under which everything is hashed.
    pub fn key(&self) -> &Arc<FlowKey> {
        &self.key
    }

    /// How flow state is kept.
    pub fn config(&self) -> Config {
        self.config
    }

    /// How long any label stands.
    pub fn longest(&self) -> Duration {
        self.config.window.max(SECRET_WINDOW)
    }

    /// Counts a call of a run, and says what is remembered of its agent and of those that it met, or what it is judged by
    /// where it is isolated.
    pub(super) fn enter(&self, place: &RunKey, now: SystemTime) -> Judged {
        self.meet(place, now);
        let (calls, frozen, mut labels, met) = {
            let past = self.past(&place.agent);
            let mut past = lock(&past);
            let calls = past.count(&place.run, now);
            let run = past.runs.get(&place.run).and_then(|run| run.frozen);
            let frozen = past.frozen.or(run).is_some();
            (calls, frozen, past.in_force(self.config.window, now), past.met(self.config.window, now))
        };
        self.add_labels(&met, &mut labels, now);
        Judged { labels: self.narrowed(place, labels, now), calls, frozen }
    }

    /// The labels in force for a call of a run, sorted: those of its agent and of agents that it met, or those that it is
    /// judged by where it is isolated.
    pub fn in_force(&self, place: &RunKey, now: SystemTime) -> Vec<Label> {
        let Some(past) = self.agents.get(&place.agent).map(|past| Arc::clone(&past)) else {
            return Vec::new();
        };
        let (mut labels, met) = {
            let past = lock(&past);
            (past.in_force(self.config.window, now), past.met(self.config.window, now))
        };
        self.add_labels(&met, &mut labels, now);
        self.narrowed(place, labels, now)
    }

    fn narrowed(&self, place: &RunKey, labels: Vec<Label>, now: SystemTime) -> Vec<Label> {
        match &place.isolated {
            Some(kin) => self.labels_of(kin, &labels, now),
            None => labels,
        }
    }

    /// One lock at a time, so that agents who met each other cannot wait for each other.
    fn add_labels(&self, met: &[AgentId], labels: &mut Vec<Label>, now: SystemTime) {
        for other in met {
            let Some(past) = self.agents.get(other).map(|past| Arc::clone(&past)) else { continue };
            let theirs = lock(&past).in_force(self.config.window, now);
            labels.extend(theirs.into_iter().filter(|label| !labels.contains(label)).collect::<Vec<_>>());
        }
        labels.sort();
    }

    /// Labels a run, and so its agent; or the agent as a whole, where the run is not known.
    pub fn label(&self, place: &RunKey, brings: &[Label], record: Option<RecordId>, now: SystemTime) {
        let past = self.past(&place.agent);
        let mut past = lock(&past);
        for label in brings {
            if let Some(at) = past.labelled.get_mut(*label as usize) {
                *at = Some(at.map_or(now, |before| before.max(now)));
            }
            if place.run.is_empty() {
                past.unplaced.tell(*label, now);
            } else {
                let run = past.run(&place.run);
                run.callers.note(place.instance.as_ref());
                run.brought(Brought { label: *label, at: now, record });
            }
        }
    }

    /// Notes a call that findings stopped, and says what that freezes.
    pub fn stopped(&self, agent: &AgentId, stopped: Stopped) -> Vec<Froze> {
        let (now, run) = (stopped.at, Arc::clone(&stopped.run));
        let past = self.past(agent);
        let mut past = lock(&past);
        let old = |one: &Stopped| now.duration_since(one.at).unwrap_or_default() > self.config.window;
        past.stopped.retain(|one| !old(one) && one.call != stopped.call);
        if past.stopped.len() >= STOPPED_MAX {
            past.stopped.remove(0);
        }
        past.stopped.push(stopped);
        let mut froze = Vec::new();
        let in_run = past.stopped.iter().filter(|one| one.run == run).count();
        let of_agent = past.stopped.len();
        let state = past.run(&run);
        if in_run > STOPPED_IN_RUN_MAX && state.frozen.is_none() {
            state.frozen = Some(now);
            let why = format!("findings stopped {in_run} of its calls");
            froze.push(Froze { run: Some(run), why });
        }
        if of_agent >= STOPPED_OF_AGENT && past.frozen.is_none() {
            past.frozen = Some(now);
            let why = format!("findings stopped {of_agent} calls of the agent within the window");
            froze.push(Froze { run: None, why });
        }
        froze
    }

    /// A call that findings stopped was approved by people, and counts no more.
    pub(super) fn approve(&self, agent: &AgentId, call: u64) {
        let past = self.past(agent);
        lock(&past).stopped.retain(|one| one.call != call);
    }

    /// Notes for people what was found in a call.
    pub fn find(&self, key: &RunKey, found: Found) {
        let past = self.past(&key.agent);
        let mut past = lock(&past);
        let run = past.run(&key.run);
        if run.found.len() >= FOUND_MAX {
            run.found.remove(0);
        }
        run.found.push(found);
    }

    /// What was found in the calls of a run, the oldest first; of the agent's runs all when it is empty.
    pub fn found(&self, agent: &AgentId, run: &str) -> Vec<Found> {
        let past = self.past(agent);
        let past = lock(&past);
        let runs = past.runs.iter().filter(|(id, _)| run.is_empty() || ***id == *run);
        let mut found: Vec<Found> = runs.flat_map(|(_, run)| run.found.iter().cloned()).collect();
        found.sort_by_key(|found| found.at);
        found
    }

    /// Freezes a run, or the agent as a whole.
    pub fn freeze(&self, agent: &AgentId, run: Option<&Arc<str>>, at: SystemTime) {
        let past = self.past(agent);
        let mut past = lock(&past);
        match run {
            Some(run) => past.run(run).frozen = Some(at),
            None => past.frozen = Some(at),
        }
    }

    /// Lets a run go on, or the agent as a whole. What was stopped before counts no more: a person has looked. Gives
    /// whether it was frozen, and those calls.
    pub fn unfreeze(&self, agent: &AgentId, run: Option<&Arc<str>>) -> (bool, Vec<u64>) {
        let past = self.past(agent);
        let mut past = lock(&past);
        let meant = |one: &Stopped| run.is_none_or(|run| one.run == *run);
        let calls = past.stopped.iter().filter(|one| meant(one)).map(|one| one.call).collect();
        past.stopped.retain(|one| !meant(one));
        let frozen = match run {
            Some(run) => past.run(run).frozen.take(),
            None => past.frozen.take(),
        };
        (frozen.is_some(), calls)
    }

    /// Every run that is remembered, and each agent that is frozen as a whole.
    pub fn views(&self) -> Vec<RunView> {
        let agents: Vec<_> =
            self.agents.iter().map(|entry| (entry.key().clone(), Arc::clone(entry.value()))).collect();
        let mut views = Vec::new();
        for (agent, past) in agents {
            let past = lock(&past);
            let stopped = |run: &Arc<str>| past.stopped.iter().filter(|one| one.run == *run).count();
            if past.frozen.is_some() {
                views.push(RunView {
                    agent: agent.clone(),
                    run: Arc::from(""),
                    calls: past.calls,
                    at: None,
                    labels: Vec::new(),
                    frozen: past.frozen,
                    stopped: past.stopped.len(),
                });
            }
            views.extend(past.runs.iter().map(|(id, run)| RunView {
                agent: agent.clone(),
                run: Arc::clone(id),
                calls: run.calls,
                at: run.at,
                labels: run.brought.clone(),
                frozen: run.frozen,
                stopped: stopped(id),
            }));
        }
        views.sort_by(|a, b| (a.agent.as_str(), &a.run).cmp(&(b.agent.as_str(), &b.run)));
        views
    }

    /// Every label of every agent, and when it was brought last, without those that ended long ago.
    pub fn labels(&self, now: SystemTime) -> Vec<(AgentId, Label, SystemTime)> {
        let mut labels = Vec::new();
        for entry in self.agents.iter() {
            for (label, at) in Label::ALL.into_iter().zip(lock(&entry).labelled) {
                let ended =
                    |at| now.duration_since(at).unwrap_or_default() > self.longest() + CLOCK_ERROR_MAX;
                if let Some(at) = at.filter(|at| !ended(*at)) {
                    labels.push((entry.key().clone(), label, at));
                }
            }
        }
        labels
    }

    pub(super) fn past(&self, agent: &AgentId) -> Arc<Mutex<Past>> {
        if let Some(past) = self.agents.get(agent) {
            return Arc::clone(&past);
        }
        Arc::clone(&self.agents.entry(agent.clone()).or_default())
    }

    /// Notes who uses a trace. Whoever used it within the window has met whoever uses it now, and the other way round.
    pub(super) fn meet(&self, place: &RunKey, now: SystemTime) {
        let Some(trace) = place.trace else { return };
        if self.traces.len() >= TRACES_MAX {
            self.forget_traces(now);
        }
        let others: Vec<AgentId> = {
            let mut users = self.traces.entry(trace).or_default();
            if let Some((_, at)) = users.iter_mut().find(|(agent, _)| *agent == place.agent) {
                *at = now;
            } else if users.len() < TRACE_AGENTS_MAX {
                users.push((place.agent.clone(), now));
            }
            let fresh = |at: SystemTime| now.duration_since(at).unwrap_or_default() <= self.config.window;
            users
                .iter()
                .filter(|(agent, at)| *agent != place.agent && fresh(*at))
                .map(|(agent, _)| agent.clone())
                .collect()
        };
        for other in others {
            lock(&self.past(&other)).meets(&place.agent, now);
            lock(&self.past(&place.agent)).meets(&other, now);
        }
    }

    /// Notes that agents work on one task: each has met the others, and has met the agents of the tasks above it, but
    /// not they it.
    pub fn meet_by_task(&self, agents: &[AgentId], above: &[AgentId], now: SystemTime) {
        for agent in agents {
            let others = agents.iter().chain(above).filter(|other| *other != agent);
            let past = self.past(agent);
            let mut past = lock(&past);
            others.for_each(|other| past.meets(other, now));
        }
    }

    /// Forgets traces that nobody used within the window; when all are fresh, those that only one agent used.
    fn forget_traces(&self, now: SystemTime) {
        let old = |at: SystemTime| now.duration_since(at).unwrap_or_default() > self.config.window;
        self.traces.retain(|_, users| users.iter().any(|(_, at)| !old(*at)));
        if self.traces.len() >= TRACES_MAX {
            self.traces.retain(|_, users| users.len() > 1);
        }
        if self.traces.len() >= TRACES_MAX {
            // Who met whom stands with the agents.
            self.traces.clear();
        }
    }
}

pub(super) fn lock(past: &Mutex<Past>) -> MutexGuard<'_, Past> {
    // Each change is whole.
    past.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a label that was brought then still stands.
pub(super) fn is_fresh(label: Label, at: SystemTime, window: Duration, now: SystemTime) -> bool {
    let window = if label == Label::Secret { window.max(SECRET_WINDOW) } else { window };
    // A clock that went back must not clean a run: an age that cannot be told counts as none.
    now.duration_since(at).unwrap_or_default() <= window
}

// === impl Past ===

impl Past {
    pub(super) fn in_force(&self, window: Duration, now: SystemTime) -> Vec<Label> {
        let fresh = |label: &Label| {
            let at = self.labelled.get(*label as usize).copied().flatten();
            at.is_some_and(|at| is_fresh(*label, at, window, now))
        };
        Label::ALL.into_iter().filter(fresh).collect()
    }

    /// Counts a call of the run and gives the number before it.
    fn count(&mut self, run: &Arc<str>, now: SystemTime) -> u64 {
        self.calls += 1;
        let calls = self.calls;
        let run = self.run(run);
        (run.calls, run.last, run.at) = (run.calls + 1, calls, Some(now));
        run.calls - 1
    }

    pub(super) fn run(&mut self, run: &Arc<str>) -> &mut Run {
        if self.runs.len() >= RUNS_MAX && !self.runs.contains_key(run) {
            self.forget_oldest();
        }
        let last = self.calls;
        self.runs.entry(Arc::clone(run)).or_insert_with(|| Run { last, ..Run::default() })
    }

    /// A run that is frozen is never forgotten: freezing stands until a person lifts it. Nor is one that has a memory;
    /// of those there are few.
    fn forget_oldest(&mut self) {
        let mut last: Vec<u64> = self.runs.values().map(|run| run.last).collect();
        if last.len() > RUNS_FORGOTTEN {
            let (_, kept, _) = last.select_nth_unstable(RUNS_FORGOTTEN);
            let unplaced = &mut self.unplaced;
            self.runs.retain(|_, run| {
                let stays = run.last >= *kept || run.frozen.is_some() || run.memory.is_some();
                if !stays {
                    unplaced.forget(&run.brought);
                }
                stays
            });
        }
    }

    fn meets(&mut self, other: &AgentId, now: SystemTime) {
        if self.met.len() >= MET_MAX && !self.met.contains_key(other) {
            let oldest = self.met.iter().min_by_key(|(_, at)| **at).map(|(agent, _)| agent.clone());
            oldest.map(|agent| self.met.remove(&agent));
        }
        self.met.insert(other.clone(), now);
    }

    pub(super) fn met(&self, window: Duration, now: SystemTime) -> Vec<AgentId> {
        let fresh = |at: &SystemTime| now.duration_since(*at).unwrap_or_default() <= window;
        self.met.iter().filter(|(_, at)| fresh(at)).map(|(agent, _)| agent.clone()).collect()
    }
}

impl Run {
    fn brought(&mut self, brought: Brought) {
        match self.brought.iter_mut().find(|one| one.label == brought.label) {
            Some(one) if one.at <= brought.at => *one = brought,
            Some(_) => {}
            None => self.brought.push(brought),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{brings, enter, sent};
    use super::*;
    use crate::call::{Confidentiality, Integrity, Profile, Returns};

    fn at(agent: &str, run: &str) -> RunKey {
        let agent = AgentId::from_normalised(&format!("spiffe://example.org/{agent}"));
        RunKey { agent, run: Arc::from(run), trace: None, instance: None, isolated: None }
    }

    fn within(seconds: u64) -> Runs {
        let config = Config { window: Duration::from_secs(seconds), profile: Profile::Balanced };
        Runs::new(config, FlowKey::new(&[7; 32]))
    }

    const MAIL: Returns = Returns { confidentiality: Confidentiality::Internal, integrity: Integrity::Mixed };

    #[test]
    fn a_new_run_of_the_same_agent_is_judged_by_what_the_last_one_read() {
        let runs = within(1800);
        let now = SystemTime::now();
        assert!(enter(&runs, &at("a", "one"), now).labels.is_empty());
        sent(&runs, &at("a", "one"), &brings(MAIL), RecordId::new(), now);
        let entry = enter(&runs, &at("a", "two"), now);
        assert_eq!(entry.labels, [Label::Confidential, Label::Untrusted]);
        assert_eq!(entry.calls, 0);
        assert_eq!(enter(&runs, &at("a", "two"), now).calls, 1);
        assert!(enter(&runs, &at("b", "one"), now).labels.is_empty());
    }

    #[test]
    fn agents_meet_by_a_trace_that_both_used_whoever_read_first() {
        let runs = within(1800);
        let now = SystemTime::now();
        let traced = |agent: &str| RunKey { trace: Some([7; 16]), ..at(agent, "trace:07") };
        // The second agent was there before the first one read.
        enter(&runs, &traced("b"), now);
        enter(&runs, &traced("a"), now);
        sent(&runs, &traced("a"), &brings(MAIL), RecordId::new(), now);
        let elsewhere = enter(&runs, &at("b", "session:1"), now);
        assert_eq!(elsewhere.labels, [Label::Confidential, Label::Untrusted], "in any of its runs");
        assert!(enter(&runs, &at("c", "session:1"), now).labels.is_empty());
        let later = now + Duration::from_secs(1801);
        assert!(enter(&runs, &at("b", "session:1"), later).labels.is_empty());
    }

    #[test]
    fn an_agent_that_makes_up_runs_costs_no_more_than_the_bound() {
        let runs = within(60);
        let now = SystemTime::now();
        for run in 0..3 * RUNS_MAX {
            enter(&runs, &at("a", &format!("made-up-{run}")), now);
            let calls = enter(&runs, &at("a", "kept"), now).calls;
            assert_eq!(calls, run as u64, "a run that goes on is not forgotten");
        }
        let kept = lock(&runs.past(&at("a", "").agent)).runs.len();
        assert!((RUNS_MAX - RUNS_FORGOTTEN..=RUNS_MAX).contains(&kept), "{kept}");
    }

    #[test]
    fn labels_go_with_the_window_and_secrets_stay_a_day() {
        let runs = within(60);
        let now = SystemTime::now();
        let secret = Returns { confidentiality: Confidentiality::Secret, integrity: Integrity::Trusted };
        sent(&runs, &at("a", "r"), &brings(secret), RecordId::new(), now);
        let later = |seconds| enter(&runs, &at("a", "r"), now + Duration::from_secs(seconds)).labels;
        assert_eq!(later(59), [Label::Confidential, Label::Secret]);
        assert_eq!(later(3600), [Label::Secret]);
        assert!(later(90_000).is_empty());
        let back = enter(&runs, &at("a", "r"), now - Duration::from_secs(9000)).labels;
        assert_eq!(back, [Label::Confidential, Label::Secret]);
    }

    #[test]
    fn the_fourth_distinct_call_that_is_stopped_freezes_the_run_and_the_tenth_the_agent() {
        let runs = within(1800);
        let now = SystemTime::now();
        let stop = |call: u64, run: &str| {
            let stopped = Stopped { call, run: Arc::from(run), at: now };
            runs.stopped(&at("a", run).agent, stopped)
        };
        for call in [1, 1, 2, 2, 3, 3, 3] {
            assert!(stop(call, "one").is_empty(), "the same call again is no other one");
        }
        assert_eq!(stop(4, "one").first().and_then(|froze| froze.run.clone()).as_deref(), Some("one"));
        assert_eq!(enter(&runs, &at("a", "one"), now).findings, ["frozen"]);
        assert!(enter(&runs, &at("a", "two"), now).findings.is_empty());
        assert_eq!(runs.unfreeze(&at("a", "").agent, Some(&Arc::from("one"))), (true, vec![1, 2, 3, 4]));
        assert!(enter(&runs, &at("a", "one"), now).findings.is_empty());
        for call in 0..9 {
            assert!(stop(call, &format!("run-{call}")).is_empty());
        }
        assert_eq!(stop(9, "last").first().map(|froze| froze.run.clone()), Some(None));
        assert_eq!(enter(&runs, &at("a", "any"), now).findings, ["frozen"]);
        assert!(enter(&runs, &at("b", "any"), now).findings.is_empty());
    }
}
