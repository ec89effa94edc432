//! What runs remember of what they read and sent, and examining what leaves by all of it.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use super::canary::Canaries;
use super::chain::{Advanced, Chain, Passing, Per, Progress, Progresses};
use super::finding::{Evidence, Examined, Outgoing, Remembered, examine};
use super::history::{History, Step};
use super::isolated::Whose;
use super::journal::{Frame, Kind, Readable};
use super::lineage::{Learnt, Memory};
use super::run::{Froze, Shared, Stopped, lock};
use super::{Label, RunKey, Runs, written};
use crate::call::{AgentId, Confidentiality};

/// Memories of one agent's runs; further runs share one, which is full sooner.
const MEMORIES_MAX: usize = 128;
/// Agents of one trust domain whose secrets are remembered for all of it.
const SECRET_AGENTS_MAX: usize = 4096;

/// What a call is examined by.
pub(super) struct Reading {
    /// What its agent remembers.
    pub(super) own: Vec<Shared<Memory>>,
    /// What others remember that it was joined with.
    pub(super) joined: Vec<Shared<Memory>>,
    /// What its trust domain remembers of secrets.
    pub(super) secrets: Vec<Shared<Memory>>,
    /// What its agent sent.
    pub(super) sent: Shared<History>,
}

impl Runs {
    /// Remembers what a reply brought to a run.
    pub fn remember(&self, at: &RunKey, learnt: &Learnt, now: SystemTime) {
        write(&self.memory(at, now)).learn(learnt, now);
        if let Some(secrets) = learnt.secrets() {
            write(&self.secrets_of(&at.agent, now)).learn(&secrets, now);
        }
    }

    /// Whether the journal has just this of the run already, by its digest.
    pub(super) fn has_written(&self, at: &RunKey, digest: u64, now: SystemTime) -> bool {
        let past = self.past(&at.agent);
        let past = lock(&past);
        past.runs.get(&at.run).is_some_and(|run| run.written.has(digest, now, self.config().window))
    }

    /// Notes that the journal has this of the run, by its digest.
    pub(super) fn note_written(&self, at: &RunKey, digest: u64, when: SystemTime) {
        let past = self.past(&at.agent);
        lock(&past).run(&at.run).written.note(digest, when);
    }

    /// Notes what a call did that left, or would have; what that freezes is given.
    pub fn step(&self, at: &RunKey, step: &Step, now: SystemTime) -> Vec<Froze> {
        let sent = Arc::clone(&lock(&self.past(&at.agent)).sent);
        write(&sent).note(step, now, self.config().window);
        match step {
            Step::Stopped { digest, .. } => {
                self.stopped(&at.agent, Stopped { call: *digest, run: Arc::clone(&at.run), at: now })
            }
            Step::Approved { digest } => {
                self.approve(&at.agent, *digest);
                Vec::new()
            }
            Step::Sent { .. } => Vec::new(),
        }
    }

    /// Whether the agent brought all of these places up before.
    pub(super) fn has_introduced(&self, agent: &AgentId, places: &[u64]) -> bool {
        let sent = Arc::clone(&lock(&self.past(agent)).sent);
        let sent = read(&sent);
        places.iter().all(|place| sent.introduced(*place))
    }

    /// Keeps the end of what was sent to these places, to be joined with what comes next.
    pub fn keep_tail(&self, at: &RunKey, places: &[u64], text: &str, now: SystemTime) {
        let sent = Arc::clone(&lock(&self.past(&at.agent)).sent);
        let mut sent = write(&sent);
        for place in places {
            sent.keep_tail(*place, text, now, self.config().window);
        }
    }

    /// Examines a call by what the agent's runs remember, those of agents that it met, and the secrets of its trust
    /// domain; or by what its task is judged by, where that is isolated.
    pub fn examine(&self, at: &RunKey, outgoing: &Outgoing<'_>, now: SystemTime) -> Examined {
        let Reading { own, joined, secrets, sent } = match &at.isolated {
            Some(kin) => self.reading_of(at, kin),
            None => self.reading(at, now),
        };
        // Each lock is taken once, and whoever writes holds one alone.
        let (own, joined, secrets) = (Read::all(&own), Read::all(&joined), Read::all(&secrets));
        let (own, joined, secrets) = (own.memories(), joined.memories(), secrets.memories());
        let canaries: Arc<Canaries> = self.canaries.load_full();
        let history = read(&sent);
        let remembered = Remembered {
            own: &own,
            joined: &joined,
            secrets: &secrets,
            history: &history,
            canaries: &canaries,
        };
        let mut examined = examine(&self.key, self.config().window, remembered, outgoing, now);
        if at.isolated.is_some() {
            // A secret of its own run is its agent's too, and is told once.
            examined.findings.iter_mut().for_each(|finding| once_each(&mut finding.evidence));
        }
        examined
    }

    fn reading(&self, at: &RunKey, now: SystemTime) -> Reading {
        let (own, sent, met) = {
            let past = self.past(&at.agent);
            let past = lock(&past);
            let own = past.memories(&Whose::All).cloned().collect();
            (own, Arc::clone(&past.sent), past.met(self.config().window, now))
        };
        let mut joined = Vec::new();
        for other in &met {
            let past = self.past(other);
            joined.extend(lock(&past).memories(&Whose::All).cloned());
        }
        let secrets = self.secrets_but(&at.agent, &met);
        Reading { own, joined, secrets, sent }
    }

    /// What agents of its trust domain remember of secrets, but for an agent and some others.
    pub(super) fn secrets_but(&self, agent: &AgentId, others: &[AgentId]) -> Vec<Shared<Memory>> {
        let Some(all) = self.secrets.get(agent.trust_domain()) else { return Vec::new() };
        let meant = all.iter().filter(|(each, _)| each != agent && !others.contains(each));
        meant.map(|(_, memory)| Arc::clone(memory)).collect()
    }

    /// The sequences of which this call would be the last step. Nothing changes by asking.
    pub fn completes<'a>(
        &self,
        chains: &'a [Chain],
        at: &RunKey,
        call: &Passing<'_>,
        now: SystemTime,
    ) -> Vec<&'a Chain> {
        let would = |chain: &&Chain| {
            self.progress(chain.per, at, |all| match all.of(chain.id) {
                Some(progress) => chain.would_complete(progress, call, now),
                None => chain.would_complete(&Progress::default(), call, now),
            })
        };
        chains.iter().filter(would).collect()
    }

    /// Takes note of a call that is sent, and gives what the journal must have, each with the time of its sequence.
    pub fn passes(
        &self,
        chains: &[Chain],
        at: &RunKey,
        call: &Passing<'_>,
        now: SystemTime,
    ) -> Vec<(Advanced, Duration)> {
        let advance = |chain: &Chain| {
            let taken = self.progress(chain.per, at, |all| chain.advance(all.get(chain.id)?, call, now));
            taken.map(|advanced| (advanced, chain.within))
        };
        chains.iter().filter_map(advance).collect()
    }

    /// Takes steps that the journal has.
    fn passed(&self, at: &RunKey, advanced: &Advanced) {
        self.progress(advanced.per, at, |all| all.restore(advanced));
    }

    fn progress<T>(&self, per: Per, at: &RunKey, with: impl FnOnce(&mut Progresses) -> T) -> T {
        match per {
            Per::Agent => with(&mut lock(&self.past(&at.agent)).chains),
            Per::Run => with(&mut lock(&self.past(&at.agent)).run(&at.run).chains),
            Per::TrustDomain => with(&mut self.chains.entry(at.agent.trust_domain().to_owned()).or_default()),
        }
    }

    /// The tokens that must never leave, from now on.
    pub fn plant(&self, canaries: Canaries) {
        self.canaries.store(Arc::new(canaries));
    }

    /// The memory of a run, made when it has none.
    fn memory(&self, at: &RunKey, now: SystemTime) -> Shared<Memory> {
        let window = self.config().window;
        let past = self.past(&at.agent);
        let mut past = lock(&past);
        past.run(&at.run).callers.note(at.instance.as_ref());
        if let Some(memory) = past.runs.get(&at.run).and_then(|run| run.memory.as_ref()) {
            return Arc::clone(memory);
        }
        if past.runs.values().filter(|run| run.memory.is_some()).count() >= MEMORIES_MAX {
            for run in past.runs.values_mut() {
                let over = run.memory.as_ref().is_some_and(|memory| read(memory).is_over(now));
                if over {
                    run.memory = None;
                }
            }
        }
        let full = past.runs.values().filter(|run| run.memory.is_some()).count() >= MEMORIES_MAX;
        let place = match full {
            true => &mut past.shared,
            false => &mut past.run(&at.run).memory,
        };
        Arc::clone(place.get_or_insert_with(|| Arc::new(RwLock::new(Memory::new(window)))))
    }

    /// What an agent read that is secret, where its trust domain finds it.
    fn secrets_of(&self, agent: &AgentId, now: SystemTime) -> Shared<Memory> {
        let window = self.config().window;
        let past = self.past(agent);
        let mut past = lock(&past);
        if let Some(memory) = &past.secrets {
            return Arc::clone(memory);
        }
        let memory = Arc::new(RwLock::new(Memory::new(window)));
        past.secrets = Some(Arc::clone(&memory));
        drop(past);
        let mut all = self.secrets.entry(agent.trust_domain().to_owned()).or_default();
        if all.len() >= SECRET_AGENTS_MAX {
            all.retain(|(_, memory)| !read(memory).is_over(now));
        }
        if all.len() < SECRET_AGENTS_MAX {
            all.push((agent.clone(), Arc::clone(&memory)));
        } else {
            tracing::error!(%agent, "more agents have read secrets than are remembered for their trust domain");
        }
        memory
    }
}

/// Brings back what a frame of the journal has. What was hashed with another key, or cannot be read, is not known any
/// more, and the run counts as one that may have read anything.
pub fn restore(runs: &Runs, frame: Frame, readable: Readable) {
    let (at, run) = (frame.at, Arc::from(frame.run));
    let instance = frame.instance.map(Arc::from);
    let key = RunKey { agent: frame.agent, run, trace: frame.trace, instance, isolated: None };
    // The same may have been read again since then, and not written again.
    let until = at.checked_add(written::stands(runs.config().window)).unwrap_or(at);
    let read_at = until.min(SystemTime::now()).max(at);
    runs.meet(&key, read_at);
    match frame.kind {
        Kind::Learnt => {
            let learnt = Learnt::decode(&frame.data);
            let record = learnt.as_ref().map(|learnt| learnt.reply);
            let labels = Label::of_bits(frame.labels);
            runs.label(&key, &labels, record, at);
            runs.place(&key.agent, &labels, read_at);
            match learnt {
                Some(learnt) if readable == Readable::Wholly => runs.remember(&key, &learnt, read_at),
                Some(learnt) => {
                    let unknown = learnt.confidentiality != Confidentiality::Public;
                    let bare = Learnt { unknown, ..emptied(learnt) };
                    runs.remember(&key, &bare, read_at);
                }
                None => tracing::error!(agent = %key.agent, "what a run has learnt cannot be read"),
            }
        }
        Kind::Sent => match Step::decode(&frame.data).filter(|_| readable == Readable::Wholly) {
            Some(step) => drop(runs.step(&key, &step, at)),
            None => tracing::warn!(agent = %key.agent, "what a run has sent cannot be read"),
        },
        Kind::Passed => match Advanced::decode(&frame.data) {
            Some(advanced) => runs.passed(&key, &advanced),
            None => tracing::warn!(agent = %key.agent, "how far a sequence got cannot be read"),
        },
        Kind::Probe => {}
    }
}

fn emptied(learnt: Learnt) -> Learnt {
    Learnt {
        fragments: Vec::new(),
        known: Vec::new(),
        planted: Vec::new(),
        words: Vec::new(),
        urls: Vec::new(),
        ..learnt
    }
}

fn once_each(evidence: &mut Vec<Evidence>) {
    let mut told: Vec<Evidence> = Vec::with_capacity(evidence.len());
    for one in evidence.drain(..) {
        if !told.contains(&one) {
            told.push(one);
        }
    }
    *evidence = told;
}

/// Memories that are looked at.
struct Read<'a>(Vec<RwLockReadGuard<'a, Memory>>);

impl<'a> Read<'a> {
    fn all(memories: &'a [Shared<Memory>]) -> Read<'a> {
        Read(memories.iter().map(|memory| read(memory)).collect())
    }

    fn memories(&self) -> Vec<&Memory> {
        self.0.iter().map(|memory| &**memory).collect()
    }
}

// Each change of what is behind these locks is whole.

pub(super) fn read<T>(shared: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(shared: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    shared.write().unwrap_or_else(PoisonError::into_inner)
}
