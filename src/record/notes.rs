//! What intents and refusals say of the decision on a call, member by member.

use crate::call::{Stop, WouldBe};
use crate::decide::{Judged, Verdict};
use crate::json::Members;
use crate::telemetry::hop;

/// What was decided and why, and what would have been.
pub(super) fn decision(members: &mut Members, judged: &Judged, would_be: Option<&WouldBe>, revision: &str) {
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
}

/// What stopped a call.
pub(super) fn stop(members: &mut Members, stop: &Stop) {
    members.text("stage", stop.stage.as_str());
    members.text("reason", stop.reason);
    members.text("detail", &stop.operator);
}
