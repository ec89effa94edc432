//! Words for what happened to a call: what its record says of a decision, of a stop, and of the audit itself.

use std::sync::Arc;
use std::time::Duration;

use super::Durability;
use crate::call::{Class, PolicyAction, Protocol, RecordId, Stage, Stop, StopKind, WouldBe};
use crate::classify::Facts;
use crate::decide::{Judged, Verdict};
use crate::json::Members;
use crate::telemetry::hop;

/// The path template of a catalogued HTTP operation, `METHOD /path`; nothing else has a route.
pub(super) fn route(protocol: Protocol, operation: &str) -> Option<Arc<str>> {
    let (_, path) = operation.split_once(' ')?;
    (protocol == Protocol::Http).then(|| Arc::from(path))
}

pub(super) fn durability(facts: &Facts) -> Durability {
    if facts.action == PolicyAction::Discover || facts.class == Class::Read {
        Durability::Written
    } else {
        Durability::Synced
    }
}

/// The emergency lifts that decided a call, said aloud.
pub(super) fn note_lifted(
    members: &mut Members,
    judged: &Judged,
    record: RecordId,
    hop: Option<&mut hop::Hop>,
) {
    let glass = judged.input.break_glass.as_ref().filter(|_| !judged.lifted.is_empty());
    let grants = glass.map(|glass| glass.grants.clone()).unwrap_or_default();
    if !grants.is_empty() {
        members.texts("break_glass", grants.iter().map(|id| &**id));
        tracing::warn!(event = "breakglass.used", %record, grants = %grants.join(","), "an emergency lift decided a call");
    }
    if let Some(hop) = hop {
        hop.decision.break_glass = grants;
    }
}

/// What was decided and why, what would have been, and what flow control found.
pub(super) fn note_decision(
    members: &mut Members,
    judged: &Judged,
    would_be: Option<&WouldBe>,
    revision: &str,
) {
    let decision = &judged.decision;
    members.object("decision", |members| {
        let outcome = match judged.verdict {
            Verdict::Allow(_) => "allowed",
            Verdict::Deny(_) => "denied",
            Verdict::Hold(_) => "held",
        };
        members.text("outcome", outcome);
        members.text("rule", &decision.rule);
        members.texts("policies", decision.policies.iter().map(|id| &**id));
        members.text("reason", &decision.reason);
        if !decision.errors.is_empty() {
            members.texts("errors", decision.errors.iter().map(String::as_str));
        }
        members.text("revision", revision);
        if !judged.lifted.is_empty() {
            members.texts("lifted", judged.lifted.iter().map(|id| &**id));
        }
    });
    if let Some(would_be) = would_be {
        members.object("would_be", |members| {
            members.text("outcome", hop::Outcome::of(would_be.kind).as_str());
            members.text("rule", &would_be.rule);
            members.texts("policies", would_be.policies.iter().map(|id| &**id));
            members.text("reason", would_be.reason);
            members.text("detail", &would_be.detail);
        });
    }
    members.texts("findings", judged.input.findings.iter().map(|finding| &**finding));
}

pub(super) fn note_stop(members: &mut Members, stop: &Stop) {
    members.text("stage", stop.stage.as_str());
    members.text("reason", stop.reason);
    members.text("detail", &stop.operator);
}

pub(super) fn unavailable(detail: &str) -> Box<Stop> {
    Stop::new(
        Stage::Commit,
        StopKind::Unavailable,
        "audit",
        "the audit is not available; nothing was sent. Try again.",
    )
    .operator(detail)
    .retry_after(Duration::from_secs(5))
}

/// The call was made, so the agent must not be invited to make it again.
pub(super) fn unrecorded(detail: &str) -> Box<Stop> {
    let text =
        "the upstream has replied, but the audit could not record it; the call may have had its effect";
    Stop::new(Stage::Observe, StopKind::Unavailable, "audit", text).operator(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Era;

    #[test]
    fn only_catalogued_http_operations_have_a_route() {
        assert_eq!(route(Protocol::Http, "GET /v1/notes/{id}").as_deref(), Some("/v1/notes/{id}"));
        assert_eq!(route(Protocol::Http, "*unlisted*"), None);
        assert_eq!(route(Protocol::Mcp(Era::Legacy), "send mail"), None);
    }
}
