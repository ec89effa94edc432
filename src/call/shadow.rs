//! Shadow: what would have been refused or held passes for a while, and everybody who should know sees what would have
//! been. It never covers authentication, suspension, parsing, recording, or a call of consequence 4.

use std::sync::Arc;
use std::time::SystemTime;

use super::{AgentProfile, Consequence, Stop, StopKind};

/// The shadow that an upstream is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// When it ends: from here on everything is enforced.
    pub until: SystemTime,
    /// For the agents of these groups; empty for all.
    pub groups: Vec<Arc<str>>,
}

impl Shadow {
    /// Whether this agent's calls are in shadow at this moment.
    pub fn covers(&self, agent: &AgentProfile, now: SystemTime) -> bool {
        now < self.until
            && (self.groups.is_empty() || self.groups.iter().any(|group| agent.groups.contains(group)))
    }
}

/// What would have become of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WouldBe {
    /// `Denied`, `Held` or `Limited`.
    pub kind: StopKind,
    /// The stage's stable word, such as `unlisted`, `rate` or `policy`.
    pub reason: &'static str,
    /// The rule, by its public alias.
    pub rule: Arc<str>,
    /// The policies by which, where policy would have stopped it.
    pub policies: Vec<Arc<str>>,
    /// Why, as an operator reads it.
    pub detail: String,
}

/// Whether one call is in shadow, and what would have become of it so far. By default it is not.
#[derive(Clone, Debug, Default)]
pub struct Shade {
    covered: bool,
    would_be: Option<Box<WouldBe>>,
}

impl Shade {
    /// The shade that an agent's call to an upstream is in.
    pub fn of(shadow: Option<&Shadow>, agent: &AgentProfile, now: SystemTime) -> Shade {
        Shade { covered: shadow.is_some_and(|shadow| shadow.covers(agent, now)), would_be: None }
    }

    /// Whether a call of this consequence passes whatever would stop it.
    pub fn covers(&self, consequence: Consequence) -> bool {
        self.covered && !consequence.is_enforced()
    }

    /// Lets pass what is in shadow, and keeps why it would have been stopped; gives any other stop back.
    pub fn pass(&mut self, stop: Box<Stop>, consequence: Consequence) -> Result<(), Box<Stop>> {
        if !self.covers(consequence) {
            return Err(stop);
        }
        let Stop { kind, reason, rule, operator: detail, .. } = *stop;
        self.note(WouldBe { kind, reason, rule, policies: Vec::new(), detail });
        Ok(())
    }

    /// Keeps what would have become of the call; only the first that would have stopped it counts.
    pub fn note(&mut self, would_be: WouldBe) {
        self.would_be.get_or_insert_with(|| Box::new(would_be));
    }

    /// What would have become of the call, when it would not have gone.
    pub fn would_be(&self) -> Option<&WouldBe> {
        self.would_be.as_deref()
    }
}
