//! An operator's sequences: steps that are harmless one by one, matched as calls go by, with bounded state.
//!
//! A sequence is compiled once. What is kept of its progress is a moment for each time that a step must be taken, so
//! that neither many calls nor long waits make it grow. Steps must follow one another within the sequence's time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::call::Class;

/// Steps that one sequence may have.
pub const STEPS_MAX: usize = 16;
/// How often one step may have to be taken.
pub const COUNT_MAX: u32 = 1000;

/// A sequence, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name: the finding is `chain:NAME`.
    pub name: Arc<str>,
    /// Its steps, in order; the last one is the call that is found.
    pub steps: Vec<Step>,
    /// From the first step to the last.
    pub within: Duration,
    /// Whose calls it is matched against.
    pub per: Per,
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
    /// With all of these labels, of the run or of what the reply brings.
    pub labels: BTreeSet<Arc<str>>,
    /// So many of them: one when not said, [`COUNT_MAX`] at most.
    pub at_least: u32,
}

/// Whose calls a sequence is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// One agent's.
    Agent,
    /// One run's.
    Run,
    /// All of the trust domain's.
    TrustDomain,
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
    /// The labels of its run and of what its reply brings.
    pub labels: &'a [&'a str],
}

/// How far a sequence got, for one run, agent or trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// For each step: when it was taken last, as often as it must be, and when the calls that led there began.
    taken: Vec<VecDeque<Taken>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    /// When the first step that this one counts on was taken.
    began: SystemTime,
}

impl Chain {
    /// Whether this call would be the last step of the sequence. Nothing changes by asking.
    pub fn would_complete(&self, progress: &Progress, call: &Passing<'_>, now: SystemTime) -> bool {
        let mut ahead = progress.clone();
        self.advance(&mut ahead, call, now)
    }

    /// Takes note of a call that was sent; tells whether the sequence is complete with it.
    pub fn advance(&self, progress: &mut Progress, call: &Passing<'_>, now: SystemTime) -> bool {
        progress.taken.resize(self.steps.len(), VecDeque::new());
        let fresh = |at: SystemTime| now.duration_since(at).unwrap_or_default() <= self.within;
        for taken in &mut progress.taken {
            taken.retain(|taken| fresh(taken.began));
        }
        let mut complete = false;
        // From the last step to the first, so that one call is one step.
        for (at, step) in self.steps.iter().enumerate().rev() {
            let began = match at.checked_sub(1) {
                None => Some(now),
                Some(before) => self.reached(progress, before),
            };
            let Some(began) = began.filter(|_| step.fits(call)) else { continue };
            if let Some(taken) = progress.taken.get_mut(at) {
                taken.push_back(Taken { began });
                // Only the newest count: with them the sequence is complete longest.
                let excess = taken.len().saturating_sub(step.count());
                taken.drain(..excess);
                complete |= at + 1 == self.steps.len() && taken.len() >= step.count();
            }
        }
        complete
    }

    /// When the calls that completed a step began.
    fn reached(&self, progress: &Progress, at: usize) -> Option<SystemTime> {
        let (taken, step) = (progress.taken.get(at)?, self.steps.get(at)?);
        (taken.len() >= step.count()).then(|| taken.front().map(|taken| taken.began))?
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
            assert!(!chain.advance(&mut progress, &read(&["confidential"]), now));
        }
        assert!(!chain.advance(&mut progress, &read(&[]), now), "a read of nothing confidential is no step");
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
        assert!(chain.advance(&mut progress, &SEND, now));
    }
}
