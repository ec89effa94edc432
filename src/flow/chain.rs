//! An operator's sequences: steps that are harmless one by one, matched as calls go by, with bounded state.
//!
//! A sequence is compiled once. What is kept of its progress is a moment for each time that a step must be taken, so
//! that neither many calls nor long waits make it grow. Steps must follow one another within the sequence's time. A call
//! is asked about before it is decided, which changes nothing, and is a step from the moment it is sent; the journal
//! has each step that was taken, so that a restart begins nothing anew.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::call::{Class, Word};

/// Sequences that there may be.
pub const CHAINS_MAX: usize = 64;
/// Steps that one sequence may have.
pub const STEPS_MAX: usize = 16;
/// How often one step may have to be taken.
pub const COUNT_MAX: u32 = 1000;
/// The longest time of a sequence.
pub const WITHIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A sequence, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name: the finding is `chain:NAME`.
    pub name: Arc<str>,
    /// By what its progress is known: a digest of all that it says, so that one that was changed begins anew.
    pub id: u64,
    /// Its steps, in order; the last one is the call that is found.
    pub steps: Vec<Step>,
    /// From the first step to the last.
    pub within: Duration,
    /// Whose calls it is matched against.
    pub per: Per,
    /// What becomes of the last step.
    pub then: Then,
}

/// One step: calls that have all of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Of this class; any when not said.
    pub class: Option<Class>,
    /// To this upstream; any when not said.
    pub upstream: Option<Arc<str>>,
    /// Of this tool or operation; any when not said.
    pub tool: Option<Arc<str>>,
    /// With all of these labels: of what its reply brings for a read, of its run for any other call.
    pub labels: BTreeSet<Arc<str>>,
    /// So many of them: one when not said, [`COUNT_MAX`] at most.
    pub at_least: u32,
}

/// Whose calls a sequence is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// One agent's.
    Agent,
    /// One run's.
    Run,
    /// All of the trust domain's.
    TrustDomain,
}

/// What becomes of the call that completes a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// It is found and goes on.
    Note,
    /// It waits for people.
    Hold,
    /// It is refused.
    Deny,
}

impl Then {
    /// The finding that the shipped policies go by, beside the sequence's own.
    pub fn word(self) -> Option<Word> {
        match self {
            Then::Note => None,
            Then::Hold => Some(Word::Borrowed("chain-hold")),
            Then::Deny => Some(Word::Borrowed("chain-deny")),
        }
    }
}

/// A call as sequences see it.
#[derive(Clone, Debug)]
pub struct Passing<'a> {
    /// Its class.
    pub class: Class,
    /// Its upstream.
    pub upstream: &'a str,
    /// Its tool or operation.
    pub tool: &'a str,
    /// The labels that its reply brings for a read; of its run for any other call.
    pub labels: &'a [&'a str],
}

/// How far a sequence got, for one run, agent or trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// For each step: when it was taken last, as often as it must be.
    taken: Vec<VecDeque<Taken>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    /// When the first step that this one counts on was taken.
    began: SystemTime,
}

/// How far sequences got, for one run, agent or trust domain.
#[derive(Debug, Default)]
pub struct Progresses(Vec<(u64, Progress)>);

/// That steps of a sequence were taken, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// The sequence.
    pub id: u64,
    /// Whose progress it is.
    pub per: Per,
    /// The steps: which, how many of it count, and when what it counts on began.
    steps: Vec<(u8, u16, SystemTime)>,
}

impl Chain {
    /// Whether this call would be the last step of the sequence. Nothing changes by asking.
    pub fn would_complete(&self, progress: &Progress, call: &Passing<'_>, now: SystemTime) -> bool {
        let Some((last, before)) = self.steps.split_last() else { return false };
        if !last.fits(call) {
            return false;
        }
        let at = before.len();
        let led = at.checked_sub(1).is_none_or(|before| self.reached(progress, before, now).is_some());
        led && self.fresh(progress, at, now).count() + 1 >= last.count()
    }

    /// Takes note of a call that was sent; gives the steps that it was, if it was any.
    pub fn advance(&self, progress: &mut Progress, call: &Passing<'_>, now: SystemTime) -> Option<Advanced> {
        let mut steps = Vec::new();
        // From the last step to the first, so that one call is one step.
        for (at, step) in self.steps.iter().enumerate().rev() {
            let began = match at.checked_sub(1) {
                None => Some(now),
                Some(before) => self.reached(progress, before, now),
            };
            let Some(began) = began.filter(|_| step.fits(call)) else { continue };
            progress.take((at, step.count()), began);
            steps.push((at as u8, step.count() as u16, began));
        }
        (!steps.is_empty()).then_some(Advanced { id: self.id, per: self.per, steps })
    }

    /// When the calls that completed a step began.
    fn reached(&self, progress: &Progress, at: usize, now: SystemTime) -> Option<SystemTime> {
        let step = self.steps.get(at)?;
        let mut fresh = self.fresh(progress, at, now);
        let first = fresh.next()?;
        (fresh.count() + 1 >= step.count()).then_some(first)
    }

    /// A clock that went back must not forget: an age that cannot be told counts as none.
    fn fresh(&self, progress: &Progress, at: usize, now: SystemTime) -> impl Iterator<Item = SystemTime> {
        let fresh = move |at: &SystemTime| now.duration_since(*at).unwrap_or_default() <= self.within;
        progress.taken.get(at).into_iter().flatten().map(|taken| taken.began).filter(fresh)
    }
}

impl Progress {
    /// Only the newest count: with them the sequence is complete longest.
    fn take(&mut self, (at, count): (usize, usize), began: SystemTime) {
        if self.taken.len() <= at {
            self.taken.resize(at + 1, VecDeque::new());
        }
        if let Some(taken) = self.taken.get_mut(at) {
            taken.push_back(Taken { began });
            let excess = taken.len().saturating_sub(count);
            taken.drain(..excess);
        }
    }
}

impl Progresses {
    /// How far one sequence got.
    pub fn of(&self, id: u64) -> Option<&Progress> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, progress)| progress)
    }

    /// The same, to note a step in. Sequences that are no more make room, the oldest first.
    pub fn get(&mut self, id: u64) -> Option<&mut Progress> {
        let at = self.0.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            if self.0.len() >= 2 * CHAINS_MAX {
                self.0.remove(0);
            }
            self.0.push((id, Progress::default()));
            self.0.len() - 1
        });
        self.0.get_mut(at).map(|(_, progress)| progress)
    }

    /// Takes steps that the journal has.
    pub fn restore(&mut self, advanced: &Advanced) {
        if let Some(progress) = self.get(advanced.id) {
            for (at, count, began) in &advanced.steps {
                progress.take((usize::from(*at), usize::from(*count)), *began);
            }
        }
    }
}

impl Advanced {
    /// The form that the journal keeps, little-endian: the sequence (u64), whose it is (u8), and for each step its number
    /// (u8), its count (u16) and the microseconds since 1970 at which it began (u64).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + 11 * self.steps.len());
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.push(match self.per {
            Per::Agent => 0,
            Per::Run => 1,
            Per::TrustDomain => 2,
        });
        for (at, count, began) in &self.steps {
            let micros = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            bytes.push(*at);
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&u64::try_from(micros).unwrap_or(u64::MAX).to_le_bytes());
        }
        bytes
    }

    /// What was written, read back; `None` where it is nothing of that form.
    pub fn decode(bytes: &[u8]) -> Option<Advanced> {
        let (id, rest) = bytes.split_first_chunk::<8>()?;
        let (per, mut rest) = rest.split_first()?;
        let per = match per {
            0 => Per::Agent,
            1 => Per::Run,
            2 => Per::TrustDomain,
            _ => return None,
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (at, after) = rest.split_first()?;
            let (count, after) = after.split_first_chunk::<2>()?;
            let (micros, after) = after.split_first_chunk::<8>()?;
            let began = UNIX_EPOCH.checked_add(Duration::from_micros(u64::from_le_bytes(*micros)))?;
            if usize::from(*at) >= STEPS_MAX {
                return None;
            }
            steps.push((*at, u16::from_le_bytes(*count).min(COUNT_MAX as u16), began));
            rest = after;
        }
        Some(Advanced { id: u64::from_le_bytes(*id), per, steps })
    }
}

impl Step {
    fn count(&self) -> usize {
        self.at_least.clamp(1, COUNT_MAX) as usize
    }

    fn fits(&self, call: &Passing<'_>) -> bool {
        self.class.is_none_or(|class| class == call.class)
            && self.upstream.as_deref().is_none_or(|upstream| upstream == call.upstream)
            && self.tool.as_deref().is_none_or(|tool| tool == call.tool)
            && self.labels.iter().all(|label| call.labels.contains(&&**label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect_then_send() -> Chain {
        let read = Step {
            class: Some(Class::Read),
            labels: BTreeSet::from(["confidential".into()]),
            at_least: 3,
            ..Step::default()
        };
        let send = Step { class: Some(Class::External), ..Step::default() };
        Chain {
            name: "collect-then-send".into(),
            steps: vec![read, send],
            within: Duration::from_secs(600),
            per: Per::Agent,
            id: 7,
            then: Then::Hold,
        }
    }

    fn read(labels: &'static [&'static str]) -> Passing<'static> {
        Passing { class: Class::Read, upstream: "mail", tool: "search", labels }
    }

    const SEND: Passing<'static> =
        Passing { class: Class::External, upstream: "mail", tool: "send", labels: &[] };

    #[test]
    fn a_sequence_is_complete_with_its_last_step_and_not_before() {
        let (chain, mut progress, now) = (collect_then_send(), Progress::default(), SystemTime::now());
        for _ in 0..2 {
            assert!(chain.advance(&mut progress, &read(&["confidential"]), now).is_some());
        }
        assert!(
            chain.advance(&mut progress, &read(&[]), now).is_none(),
            "a read of nothing confidential is no step"
        );
        assert!(!chain.would_complete(&progress, &SEND, now));
        chain.advance(&mut progress, &read(&["confidential"]), now);
        assert!(chain.would_complete(&progress, &SEND, now));
        assert!(chain.would_complete(&progress, &SEND, now), "asking changes nothing");
        let late = now + Duration::from_secs(601);
        assert!(!chain.would_complete(&progress, &SEND, late));
    }

    #[test]
    fn waiting_between_steps_starts_nothing_anew() {
        let (chain, mut progress, start) = (collect_then_send(), Progress::default(), SystemTime::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [0, 590, 700] {
            chain.advance(&mut progress, &read(&["confidential"]), at(seconds));
        }
        assert!(
            !chain.would_complete(&progress, &SEND, at(750)),
            "three reads within the time, and only two are"
        );
        chain.advance(&mut progress, &read(&["confidential"]), at(760));
        assert!(chain.would_complete(&progress, &SEND, at(800)));
    }

    #[test]
    fn padding_with_other_calls_hides_nothing() {
        let (chain, mut progress, now) = (collect_then_send(), Progress::default(), SystemTime::now());
        for _ in 0..3 {
            chain.advance(&mut progress, &read(&["confidential"]), now);
            for _ in 0..1000 {
                chain.advance(&mut progress, &read(&[]), now);
            }
        }
        assert!(chain.would_complete(&progress, &SEND, now));
    }

    #[test]
    fn what_the_journal_has_brings_a_sequence_to_where_it_was() {
        let now = UNIX_EPOCH + Duration::from_micros(1_800_000_000_123_456);
        let (chain, mut progress, mut restored) =
            (collect_then_send(), Progress::default(), Progresses::default());
        for call in [read(&["confidential"]), read(&["confidential"]), read(&["confidential"]), SEND] {
            let advanced = chain.advance(&mut progress, &call, now).unwrap();
            let back = Advanced::decode(&advanced.encode()).unwrap();
            assert_eq!(back, advanced);
            restored.restore(&back);
        }
        assert_eq!(restored.of(chain.id), Some(&progress));
        assert!(restored.of(chain.id + 1).is_none(), "a sequence that was changed begins anew");
        assert_eq!(Advanced::decode(b"too short"), None);
    }

    #[test]
    fn the_last_step_too_may_have_to_be_taken_several_times() {
        let mut chain = collect_then_send();
        chain.steps.last_mut().unwrap().at_least = 2;
        let (mut progress, now) = (Progress::default(), SystemTime::now());
        for _ in 0..3 {
            chain.advance(&mut progress, &read(&["confidential"]), now);
        }
        assert!(!chain.would_complete(&progress, &SEND, now));
        chain.advance(&mut progress, &SEND, now);
        assert!(chain.would_complete(&progress, &SEND, now));
    }
}
