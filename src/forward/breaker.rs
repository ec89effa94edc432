//! A breaker for each upstream: after several failures in a row calls are refused at once, and one at a time tries.
//!
//! Only failures of the upstream count: it is not reached, does not reply in time, breaks off, or replies 502, 503 or 504.
//! What an agent can bring about alone never opens it for others: apart from failures to connect, which no agent causes,
//! each agent counts for at most half of what opens it, and an agent that tried in vain lets others try first.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::call::{AgentId, BreakerPhase};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Failures in a row that open it, at least 1.
    pub failures: u32,
    /// How long nothing is sent once it is open, and how long one call that tries keeps others waiting.
    pub open_for: Duration,
}

impl Config {
    /// The most failures that may be asked for; what is remembered of them is bounded by it.
    pub const FAILURES_MAX: u32 = 1000;
    /// The longest that an upstream may be left alone.
    pub const OPEN_FOR_MAX: Duration = Duration::from_secs(60 * 60);
}

impl Default for Config {
    fn default() -> Config {
        Config { failures: 5, open_for: Duration::from_secs(10) }
    }
}

/// Is told of each change, by the upstream's name.
pub type OnChange = Arc<dyn Fn(&Arc<str>, BreakerPhase) + Send + Sync>;

/// Whose failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The upstream was not reached, which is no agent's doing.
    Unreached,
    /// It did not reply as it should, which the very call may have brought about.
    Reply,
}

/// The breaker of one upstream.
pub struct Breaker {
    name: Arc<str>,
    config: Config,
    state: Mutex<State>,
    changed: OnceLock<OnChange>,
}

struct State {
    phase: BreakerPhase,
    /// While it is not closed: when the next call may try.
    until: Instant,
    /// How often a call was let through to try; tells the one that tries now from those before it.
    round: u64,
    /// Who tries now, or tried last and met a failure that may have been its own doing.
    prober: Option<AgentId>,
    /// While it is closed, in a row: failures to connect.
    unreached: u32,
    /// While it is closed, in a row: other failures by agent. Each entry counts, so there are never more than `failures`.
    failed: Vec<(AgentId, u32)>,
}

/// A call that a breaker lets through. How it ended must be told; one that is dropped says nothing about the upstream.
pub struct Pass<'a> {
    held: Option<Held<'a>>,
}

struct Held<'a> {
    breaker: &'a Breaker,
    agent: &'a AgentId,
    /// The round in which this call tries for all others.
    probe: Option<u64>,
}

impl Breaker {
    /// When it opens, and for how long.
    pub fn config(&self) -> Config {
        self.config
    }

    /// A closed one.
    pub fn new(name: Arc<str>, config: Config) -> Breaker {
        let state = State {
            phase: BreakerPhase::Closed,
            until: Instant::now(),
            round: 0,
            prober: None,
            unreached: 0,
            failed: Vec::new(),
        };
        Breaker { name, config, state: Mutex::new(state), changed: OnceLock::new() }
    }

    /// From now on changes are told; the first is what it is now.
    pub(super) fn watch(&self, changed: OnChange) {
        changed(&self.name, self.state().phase);
        // Invariant: the wiring does this once.
        let _ = self.changed.set(changed);
    }

    /// Lets a call through, or says how long to wait.
    pub(super) fn admit<'a>(&'a self, agent: &'a AgentId, now: Instant) -> Result<Pass<'a>, Duration> {
        let mut state = self.state();
        let probe = match state.phase {
            BreakerPhase::Closed => None,
            BreakerPhase::Open | BreakerPhase::Probing => {
                let own = state.prober.as_ref() == Some(agent);
                let from = if own { state.until + self.config.open_for } else { state.until };
                if now < from {
                    return Err(from - now);
                }
                state.round += 1;
                state.prober = Some(agent.clone());
                state.until = now + self.config.open_for;
                self.turn(&mut state, BreakerPhase::Probing);
                Some(state.round)
            }
        };
        Ok(Pass { held: Some(Held { breaker: self, agent, probe }) })
    }

    fn succeeded(&self, probe: Option<u64>) {
        let mut state = self.state();
        if state.tries(probe) {
            self.turn(&mut state, BreakerPhase::Closed);
        }
        if state.phase == BreakerPhase::Closed {
            state.unreached = 0;
            state.failed.clear();
            state.prober = None;
        }
    }

    fn failed(&self, agent: &AgentId, probe: Option<u64>, fault: Fault, now: Instant) {
        let mut state = self.state();
        let opens = match state.phase {
            BreakerPhase::Closed => {
                state.count(agent, fault);
                state.weight(self.config.failures) >= self.config.failures
            }
            // What was sent before it opened says nothing new.
            BreakerPhase::Open | BreakerPhase::Probing => state.tries(probe),
        };
        if opens {
            if fault == Fault::Unreached || state.phase == BreakerPhase::Closed {
                state.prober = None;
            }
            state.until = now + self.config.open_for;
            state.unreached = 0;
            state.failed.clear();
            self.turn(&mut state, BreakerPhase::Open);
        }
    }

    /// The call that tried ended without an answer to what it tried: another may try at once.
    fn gave_up(&self, probe: u64, now: Instant) {
        let mut state = self.state();
        if state.tries(Some(probe)) {
            state.until = now;
            self.turn(&mut state, BreakerPhase::Open);
        }
    }

    fn turn(&self, state: &mut State, phase: BreakerPhase) {
        if state.phase == phase {
            return;
        }
        state.phase = phase;
        let upstream = &*self.name;
        match phase {
            BreakerPhase::Closed => {
                tracing::info!(event = "breaker.closed", upstream, "calls are sent again")
            }
            BreakerPhase::Probing => tracing::info!(event = "breaker.probing", upstream, "one call tries"),
            BreakerPhase::Open => tracing::warn!(event = "breaker.open", upstream, "no calls are sent"),
        }
        if let Some(changed) = self.changed.get() {
            changed(&self.name, phase);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tries(&self, probe: Option<u64>) -> bool {
        self.phase == BreakerPhase::Probing && probe == Some(self.round)
    }

    fn count(&mut self, agent: &AgentId, fault: Fault) {
        if fault == Fault::Unreached {
            self.unreached = self.unreached.saturating_add(1);
            return;
        }
        match self.failed.iter_mut().find(|(known, _)| known == agent) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.failed.push((agent.clone(), 1)),
        }
    }

    /// How much the failures in a row weigh, of which no agent has more than half.
    fn weight(&self, failures: u32) -> u32 {
        let half = (failures / 2).max(1);
        let counts = self.failed.iter().map(|(_, count)| (*count).min(half));
        counts.fold(self.unreached, u32::saturating_add)
    }
}

impl<'a> Pass<'a> {
    /// For an upstream without a breaker.
    pub(super) fn free() -> Pass<'a> {
        Pass { held: None }
    }

    /// The upstream replied, with anything but a gateway's error.
    pub(super) fn succeeded(mut self) {
        if let Some(held) = self.held.take() {
            held.breaker.succeeded(held.probe);
        }
    }

    /// The upstream failed.
    pub(super) fn failed(mut self, fault: Fault) {
        if let Some(held) = self.held.take() {
            held.breaker.failed(held.agent, held.probe, fault, Instant::now());
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(Held { breaker, probe: Some(probe), .. }) = self.held.take() {
            breaker.gave_up(probe, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(10);

    fn breaker(failures: u32) -> Breaker {
        Breaker::new("crm".into(), Config { failures, open_for: OPEN_FOR })
    }

    fn agent(name: &str) -> AgentId {
        AgentId::from_normalised(&format!("spiffe://example.org/agent/{name}"))
    }

    fn fail(breaker: &Breaker, agent: &AgentId, fault: Fault, now: Instant) {
        breaker.failed(agent, None, fault, now);
    }

    /// A pass whose end is told by hand, at a time of our own.
    fn admitted(breaker: &Breaker, agent: &AgentId, now: Instant) -> Option<u64> {
        let mut pass = breaker.admit(agent, now).ok().unwrap();
        pass.held.take().unwrap().probe
    }

    fn refused(breaker: &Breaker, agent: &AgentId, now: Instant) -> Duration {
        breaker.admit(agent, now).err().unwrap()
    }

    #[test]
    fn an_upstream_that_is_not_reached_is_left_alone_until_one_call_tries() {
        let (breaker, a, b, now) = (breaker(3), agent("a"), agent("b"), Instant::now());
        for _ in 0..3 {
            assert_eq!(admitted(&breaker, &a, now), None);
            fail(&breaker, &a, Fault::Unreached, now);
        }
        assert_eq!(refused(&breaker, &b, now + Duration::from_secs(4)), Duration::from_secs(6));
        let later = now + OPEN_FOR;
        let probe = admitted(&breaker, &a, later);
        assert!(probe.is_some());
        assert_eq!(refused(&breaker, &b, later), OPEN_FOR, "one call tries");
        breaker.failed(&a, probe, Fault::Unreached, later);
        assert_eq!(refused(&breaker, &a, later), OPEN_FOR);
        let probe = admitted(&breaker, &a, later + OPEN_FOR);
        breaker.succeeded(probe);
        assert_eq!(admitted(&breaker, &b, later + OPEN_FOR), None, "it is closed");
    }

    #[test]
    fn one_agent_alone_never_opens_it() {
        let (breaker, a, b, now) = (breaker(5), agent("a"), agent("b"), Instant::now());
        for _ in 0..100 {
            fail(&breaker, &a, Fault::Reply, now);
        }
        assert_eq!(admitted(&breaker, &b, now), None);
        fail(&breaker, &b, Fault::Reply, now);
        fail(&breaker, &b, Fault::Reply, now);
        assert_eq!(admitted(&breaker, &b, now), None, "two of each are four");
        fail(&breaker, &agent("c"), Fault::Reply, now);
        assert_eq!(refused(&breaker, &b, now), OPEN_FOR);
        assert!(breaker.state().failed.is_empty());
    }

    #[test]
    fn a_reply_ends_the_row() {
        let (breaker, a, now) = (breaker(2), agent("a"), Instant::now());
        for _ in 0..5 {
            fail(&breaker, &a, Fault::Unreached, now);
            breaker.succeeded(None);
        }
        assert_eq!(admitted(&breaker, &a, now), None);
    }

    #[test]
    fn who_tried_in_vain_lets_others_try_first() {
        let (breaker, a, b, now) = (breaker(1), agent("a"), agent("b"), Instant::now());
        fail(&breaker, &a, Fault::Reply, now);
        let later = now + OPEN_FOR;
        let probe = admitted(&breaker, &a, later);
        breaker.failed(&a, probe, Fault::Reply, later);
        assert_eq!(refused(&breaker, &a, later + OPEN_FOR), OPEN_FOR);
        let probe = admitted(&breaker, &b, later + OPEN_FOR);
        breaker.succeeded(probe);
        assert_eq!(admitted(&breaker, &a, later + OPEN_FOR), None);
    }

    #[test]
    fn a_try_that_hangs_or_is_given_up_blocks_nobody_for_long() {
        let (breaker, a, b, now) = (breaker(1), agent("a"), agent("b"), Instant::now());
        fail(&breaker, &a, Fault::Unreached, now);
        let hangs = admitted(&breaker, &a, now + OPEN_FOR);
        let second = admitted(&breaker, &b, now + 2 * OPEN_FOR);
        assert!(second.is_some() && second != hangs, "another tries meanwhile");
        breaker.failed(&a, hangs, Fault::Reply, now + 2 * OPEN_FOR);
        assert_eq!(breaker.state().phase, BreakerPhase::Probing, "the first says nothing any more");
        breaker.gave_up(second.unwrap(), now + 2 * OPEN_FOR);
        let third = admitted(&breaker, &a, now + 3 * OPEN_FOR);
        breaker.succeeded(third);
        assert_eq!(breaker.state().phase, BreakerPhase::Closed);
    }

    #[test]
    fn a_pass_that_is_dropped_says_nothing_but_that_another_may_try() {
        let (breaker, a, b, now) = (breaker(1), agent("a"), agent("b"), Instant::now());
        for _ in 0..100 {
            drop(breaker.admit(&a, now));
        }
        assert_eq!(breaker.state().phase, BreakerPhase::Closed);
        fail(&breaker, &a, Fault::Unreached, now);
        drop(breaker.admit(&a, now + OPEN_FOR));
        assert!(breaker.state().until <= Instant::now());
        assert!(admitted(&breaker, &b, now + OPEN_FOR).is_some());
    }
}
