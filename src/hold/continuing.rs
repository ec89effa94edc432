//! Approved calls whose upstream asked its client for more [MCP 2026-07-28, multi round-trip requests]: the leg in which
//! the client brings it is the same call, so people are not asked again, once, and only where nothing but the answers is
//! new and the answers give no reason of their own to ask. The reply itself is not touched, so that the upstream's state
//! comes back to it byte for byte; it is known here by its SHA-256.
//!
//! This is in memory. What is not known after a restart is held anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::call::{AgentId, Approval, RecordId};

/// Legs that are expected at one time; beyond it one that comes is held anew.
const EXPECTED_MAX: usize = 10_000;

/// What a leg must be to be the expected one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leg {
    /// Whose call it is.
    pub agent: AgentId,
    /// SHA-256 of the call without answers and state.
    pub base: [u8; 32],
    /// SHA-256 of the state that the upstream gave; of nothing where it gave none.
    pub state: [u8; 32],
}

/// What a leg continues.
#[derive(Clone, Debug)]
pub struct Continued {
    /// The hold in which its call was approved.
    pub hold: RecordId,
    /// What people said of it.
    pub approval: Approval,
    /// The policies that asked for people, by id.
    pub policies: Vec<Arc<str>>,
    /// Legs since the approval.
    pub legs: u8,
    /// Until when it may come.
    pub until: SystemTime,
}

/// The legs that are expected.
#[derive(Default)]
pub struct Legs(Mutex<HashMap<Leg, Continued>>);

impl Legs {
    /// Expects a leg, if there is room for one more.
    pub fn expect(&self, leg: Leg, continued: Continued, now: SystemTime) {
        let mut expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.len() >= EXPECTED_MAX {
            expected.retain(|_, continued| continued.until > now);
        }
        if expected.len() < EXPECTED_MAX {
            expected.insert(leg, continued);
        } else {
            tracing::warn!(event = "hold.legs_full", "the next leg of an approved call will be held anew");
        }
    }

    /// Takes a leg that is expected and for which no other policies ask for people than those that had: nobody can take
    /// it a second time.
    pub fn take(&self, leg: &Leg, policies: &[Arc<str>], now: SystemTime) -> Option<Continued> {
        let mut expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let continued = expected.get(leg)?;
        let asked = policies.iter().all(|policy| continued.policies.contains(policy));
        if continued.until <= now || !asked {
            return None;
        }
        expected.remove(leg)
    }
}
