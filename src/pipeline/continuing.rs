//! The next leg of a call that people approved: its upstream asked the client for more, and the client brings it. The
//! approval covers it once. It is identified, classified, examined and decided afresh, answers included; where they give
//! a reason of their own to ask people, it is held like any other call, and people see the answers.

use std::sync::Arc;
use std::time::SystemTime;

use http::Response;

use super::held::{self, Waiting};
use super::{Gateway, Generation, Going, Passed, replied, stopped};
use crate::accept::{Conn, Gone};
use crate::call::Era;
use crate::classify::Facts;
use crate::decode::Call;
use crate::forward;
use crate::hold;
use crate::hold::continuing::{Continued, Leg};
use crate::hold::digest::{self, Facing};
use crate::hold::ladder::LEGS_MAX;
use crate::observe::Body;
use crate::record::Record;

/// What a held call continues, if it is the expected leg of an approved one. Whatever becomes of it, it is not expected
/// any more.
pub(super) fn of(gw: &Gateway, generation: &Generation, waiting: &Waiting) -> Option<Continued> {
    let (held, input) = (&waiting.held, &waiting.input);
    // One that waits for people already goes on waiting; and what was found in it is for people to see.
    if waiting.carried.is_some() || !input.findings.is_empty() {
        return None;
    }
    let state = brought(held.call())?;
    let task = input.task.as_ref().map(|task| Arc::clone(&task.id)).unwrap_or_default();
    let base = base(generation, held.call(), held.facts(), &task)?;
    let leg = Leg { agent: held.call().agent().id().clone(), base, state: digest::sha256(state.as_bytes()) };
    gw.gate.legs().take(&leg, &waiting.policies, SystemTime::now())
}

/// Serves a leg that continues an approved call.
pub(super) async fn serve(
    gw: &Arc<Gateway>,
    conn: &Arc<Conn>,
    gone: Gone,
    mut record: Record,
    (call, continued): (Box<Call>, Continued),
) -> Response<Body> {
    let generation = gw.in_force.load_full();
    let outcome = async {
        let approved = (continued.hold, continued.approval.clone());
        let judged =
            held::judged_again(gw, &generation, conn, &mut record, call, approved, |_, _, _| Ok(())).await?;
        let Some(mut going) = judged else { return Err(hold::unmet(continued.hold)) };
        if gone.is_gone() {
            return Err(hold::left());
        }
        let legs = continued.legs.saturating_add(1);
        expect(gw, &generation, &mut going, Continued { legs, ..continued });
        super::act(gw, &generation, &gone, &mut record, going).await
    };
    match outcome.await {
        Ok(Passed::Reply(reply, slot, judging)) => replied(record, reply, slot, judging, &gone).await,
        // A leg that was judged is one that is sent or stopped, and nothing else.
        Ok(_) => stopped(record, &hold::left()).await,
        Err(stop) => stopped(record, &stop).await,
    }
}

/// Has the next leg of an approved call go on, should the reply ask for one.
pub(super) fn expect(gw: &Gateway, generation: &Generation, going: &mut Going<'_>, continued: Continued) {
    let call = going.permitted.call();
    let modern = call.envelope().is_some_and(|envelope| envelope.era == Era::Modern);
    if !modern || continued.legs >= LEGS_MAX {
        return;
    }
    let task = going.input.task.as_ref().map(|task| Arc::clone(&task.id)).unwrap_or_default();
    let (agent, gate) = (call.agent().id().clone(), Arc::clone(&gw.gate));
    let base = base(generation, call, going.permitted.facts(), &task);
    let (Some(base), Some(judge)) = (base, going.judging.judge.as_mut()) else { return };
    judge.continuing(Box::new(move |state| {
        let leg = Leg { agent: agent.clone(), base, state: digest::sha256(state.as_bytes()) };
        gate.legs().expect(leg, continued.clone(), SystemTime::now());
    }));
}

/// The state that a leg brings back, empty when it brings answers alone; `None` when it brings nothing.
fn brought(call: &Call) -> Option<String> {
    call.envelope().filter(|envelope| envelope.era == Era::Modern)?;
    let params = call.message()?.params()?;
    match (params.get("requestState"), params.get("inputResponses")) {
        (Some(state), _) => Some(state.string()?.into_owned()),
        (None, Some(_)) => Some(String::new()),
        (None, None) => None,
    }
}

/// SHA-256 of what all legs of a call have in common.
fn base(generation: &Generation, call: &Call, facts: &Facts, task: &str) -> Option<[u8; 32]> {
    let (uri, headers) = forward::facing(&generation.upstreams, call).ok()?;
    let credential = generation.broker.scope(&call.route().name);
    digest::base(call, facts, &Facing { uri: &uri, headers: &headers, credential: &credential, task })
}
