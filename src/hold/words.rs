//! What agents are told of holds.

use std::sync::Arc;
use std::time::Duration;

use super::RETRY;
use crate::call::{RecordId, Stage, Stop, StopKind};
use crate::store::holds::{Hold, HoldState};

/// What a call is told that was held before and has come to an end, or that waits.
pub fn told(hold: &Hold) -> Box<Stop> {
    let id = hold.id;
    let record = hold.record.map(|record| format!(", record {record}")).unwrap_or_default();
    let (kind, reason, text) = match hold.state {
        HoldState::Pending | HoldState::Approved => return pending(hold),
        HoldState::Releasing => (
            StopKind::Held,
            "releasing",
            format!("It was approved and is being executed (hold {id}{record}). Do not send it again."),
        ),
        HoldState::Denied => (
            StopKind::Denied,
            "denied-by-people",
            format!("People denied this call (hold {id}). Do not retry it."),
        ),
        HoldState::Expired if hold.executes.is_some() => (
            StopKind::Expired,
            "stood",
            format!(
                "The approval that this call stood on has ended (hold {id}). Repeat it: it is held anew."
            ),
        ),
        HoldState::Expired => (
            StopKind::Expired,
            "expired",
            format!("Nobody decided in time (hold {id}). The same call would have to be approved anew."),
        ),
        HoldState::Withdrawn => {
            (StopKind::Expired, "withdrawn", format!("This call was taken back (hold {id})."))
        }
        HoldState::Executed => (
            StopKind::Settled,
            "executed",
            format!(
                "This very call was approved and executed already (hold {id}{record}). It was not executed again."
            ),
        ),
        HoldState::Failed => (
            StopKind::Settled,
            "failed",
            format!(
                "This very call was approved, and was not carried out (hold {id}{record}). It is not tried again."
            ),
        ),
        HoldState::Indeterminate => (
            StopKind::Settled,
            "indeterminate",
            format!(
                "This very call was approved and began; whether it took effect is not known (hold {id}{record}). It is \
                 not executed again: a person must find out."
            ),
        ),
    };
    let mut stop = Stop::new(Stage::Hold, kind, reason, text).operator(format!("hold {id}: {}", hold.detail));
    stop.rule = Arc::from(&*hold.about.rule);
    stop.hold = Some(Arc::from(id.to_string()));
    stop
}

/// Says that the call waits for people; the same call may be repeated, and joins its hold.
pub fn pending(hold: &Hold) -> Box<Stop> {
    let until = crate::units::moment(hold.expires.into(), 0);
    let people = match hold.terms.approvers.as_slice() {
        [] => "an approver".to_owned(),
        roles => roles.join(" or "),
    };
    let mut stop = Stop::new(
        Stage::Hold,
        StopKind::Held,
        "held",
        format!(
            "Hold {}, until {until}. Repeat the same call with the same arguments after approval.",
            hold.id
        ),
    )
    .operator(format!("waits for {} approval(s) by {people}", hold.terms.quorum))
    .retry_after(RETRY);
    stop.rule = Arc::from(&*hold.about.rule);
    stop.hold = Some(Arc::from(hold.id.to_string()));
    stop
}

/// Says that a call whose body nobody can read before it is sent cannot be approved.
pub fn unreadable(rule: &Arc<str>) -> Box<Stop> {
    let text = "This call needs people's approval, and its body is streamed unread, so that nobody could know what they approve.";
    let mut stop = Stop::new(Stage::Hold, StopKind::Denied, "hold-opaque", text);
    stop.rule = Arc::clone(rule);
    stop
}

/// Says that the next leg of an approved call needs more than its approval.
pub fn unmet(hold: RecordId) -> Box<Stop> {
    let text = "The approval of this call does not cover this any more. Nothing was sent. Repeat it: it is held anew.";
    let mut stop = Stop::new(Stage::Hold, StopKind::Denied, "hold-unmet", text);
    stop.hold = Some(Arc::from(hold.to_string()));
    stop
}

/// Says that what was approved is not what would be sent now.
pub fn altered(hold: &Hold) -> Box<Stop> {
    let text = "What was approved is not what this call is now. Repeat it: it is held anew.";
    let mut stop = Stop::new(Stage::Hold, StopKind::Denied, "hold-altered", text);
    stop.hold = Some(Arc::from(hold.id.to_string()));
    stop
}

/// Says that the agent left, so that nothing was sent for it.
pub fn left() -> Box<Stop> {
    Stop::new(
        Stage::Hold,
        StopKind::Held,
        "client-gone",
        "the agent left while its call waited; nothing was sent",
    )
}

pub(super) fn too_many(most: u32, rule: Arc<str>) -> Box<Stop> {
    let text = format!(
        "{most} calls of this agent wait for approval already. Wait for one of them to be decided, then try again."
    );
    let mut stop = Stop::new(Stage::Hold, StopKind::Limited, "holds-pending", text).retry_after(RETRY);
    stop.rule = rule;
    stop.limited("holds-pending", most, RETRY)
}

pub(super) fn key_reused() -> Box<Stop> {
    let text = "The same Idempotency-Key came with another call. Nothing was sent.";
    Stop::new(Stage::Hold, StopKind::KeyReused, "idempotency-key", text)
}

pub(super) fn unavailable(detail: &str) -> Box<Stop> {
    let text =
        "This call needs people's approval, and it cannot be held just now; nothing was sent. Try again.";
    Stop::new(Stage::Hold, StopKind::Unavailable, "hold", text)
        .operator(detail)
        .retry_after(Duration::from_secs(5))
}
