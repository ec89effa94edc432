//! Hold: a call that people must see first. In this version nobody can decide yet: the agent is told that approval is
//! pending, and nothing is sent.

use std::sync::Arc;

use crate::call::{Stage, Stop, StopKind};
use crate::decide::HoldTerms;

/// Says that the call waits for people. The agent may repeat it; each time it is decided afresh.
pub fn pending(terms: &HoldTerms, rule: &Arc<str>) -> Box<Stop> {
    let people = match terms.approvers.as_slice() {
        [] => "an approver".to_owned(),
        roles => roles.join(" or "),
    };
    let mut stop = Stop::new(
        Stage::Hold,
        StopKind::Held,
        "held",
        "This call needs people's approval before it may run. Repeat the same call with the same arguments after approval.",
    )
    .operator(format!("waits for {} approval(s) by {people}", terms.quorum))
    .retry_after(RETRY);
    stop.rule = Arc::clone(rule);
    stop
}

/// When an agent may sensibly ask again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(30);
