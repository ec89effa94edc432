//! The life of a hold as spans, each emitted when it happens.
//!
//! A hold has a trace of its own, by its id, so that what people do hours later and after a restart is found with what was
//! held. Its first span is linked to the call that was held, the span of its release to the call that executes it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Gate;
use crate::call::{RecordId, TraceContext};
use crate::store::holds::{Hold, HoldState};
use crate::telemetry::hop::{HoldMoment, MomentKind, Outcome};

/// Flags of a trace that is sampled [W3C Trace Context §3.2.2.5].
const SAMPLED: u8 = 1;

impl Gate {
    /// Emits the span of a moment. `call` is the call that it happened to, where one did.
    pub(super) fn emit(&self, kind: MomentKind, hold: &Hold, call: Option<TraceContext>) {
        let opening = opening(hold.id);
        let (trace, parent) = match kind {
            MomentKind::Opened => (opening, None),
            _ => (TraceContext { span_id: bytes_of(RecordId::new()).1, ..opening }, Some(opening)),
        };
        let now = SystemTime::now();
        // What took time is how long it waited; opening and release are instants.
        let (start, took) = match kind {
            MomentKind::Opened | MomentKind::Released => (now, Duration::ZERO),
            MomentKind::Decided | MomentKind::Ended => {
                (hold.opened, now.duration_since(hold.opened).unwrap_or_default())
            }
        };
        self.evidence.telemetry.hold_moment(Box::new(HoldMoment {
            kind,
            trace,
            parent,
            link: call.or(parent),
            hold: Arc::from(hold.id.to_string()),
            agent: Some(hold.about.agent.clone()),
            upstream: Arc::from(&*hold.about.upstream),
            rule: Arc::from(&*hold.about.rule),
            outcome: outcome(hold.state),
            approvers: hold.votes.iter().map(|vote| Arc::from(&*vote.by)).collect(),
            start,
            took,
        }));
    }
}

/// What became of a hold, in the words of calls.
pub(super) fn outcome(state: HoldState) -> Outcome {
    match state {
        HoldState::Pending => Outcome::Held,
        HoldState::Approved | HoldState::Releasing => Outcome::Allowed,
        HoldState::Executed => Outcome::Executed,
        HoldState::Expired | HoldState::Withdrawn => Outcome::Expired,
        HoldState::Denied => Outcome::Denied,
        HoldState::Failed | HoldState::Indeterminate => Outcome::Unavailable,
    }
}

/// The first span of a hold's trace.
fn opening(hold: RecordId) -> TraceContext {
    let (trace_id, span_id) = bytes_of(hold);
    TraceContext { trace_id, span_id, flags: SAMPLED }
}

/// An id, and the half of it that is random; a UUID has neither all zero [RFC 9562].
fn bytes_of(id: RecordId) -> ([u8; 16], [u8; 8]) {
    let number = id.as_u128();
    let random = u64::try_from(number & u128::from(u64::MAX)).unwrap_or(1);
    (number.to_be_bytes(), random.to_be_bytes())
}
