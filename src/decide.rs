//! Decide: one policy input from all that is known of a call, one explained decision, and the proof that it may go.
//!
//! [`Permitted`] has private fields and is made here alone, so that nothing can be committed or sent without it.

pub mod cases;
pub mod cedar;
pub mod explain;
pub mod schema;
pub mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::call::{
    Approval, Auth, BreakGlass, Consequence, PolicyAction, PolicyInput, Shade, Stage, Stop, StopKind, WouldBe,
};
use crate::classify::Facts;
use crate::classify::catalog::Upstream;
use crate::decode::{Call, Payload};
use crate::flow::Entry;

pub use cedar::{Decision, HeldCall, HoldTerms, Object, Outcome, PersonInput, Policy};

/// A call that policy permits, with everything that the decision went by.
pub struct Permitted {
    call: Box<Call>,
    facts: Facts,
    entry: Entry,
}

/// A call that people must approve first.
pub struct Held {
    call: Box<Call>,
    facts: Facts,
    /// The run that it belongs to.
    pub run: Arc<str>,
    /// What policy asks of them.
    pub terms: HoldTerms,
    /// The rule, by its public alias.
    pub rule: Arc<str>,
    /// Why, as an operator reads it.
    pub reason: String,
}

/// What is to become of a call.
pub enum Verdict {
    /// It goes.
    Allow(Permitted),
    /// It does not.
    Deny(Box<Stop>),
    /// It waits for people.
    Hold(Held),
}

/// A verdict with what it went by and why.
pub struct Judged {
    /// What is to become of the call.
    pub verdict: Verdict,
    /// Why.
    pub decision: Arc<Decision>,
    /// What policy was asked.
    pub input: Box<PolicyInput>,
    /// The policies that would have decided otherwise, had an emergency not lifted them.
    pub lifted: Vec<Arc<str>>,
}

/// Decides a call at this moment. What is in shadow passes, and its shade keeps what would have been.
#[inline(never)] // integration/bench/gate.py counts its instructions by name
pub fn call(
    policy: &Policy,
    call: Box<Call>,
    facts: Facts,
    entry: Entry,
    moment: Moment,
    shade: &mut Shade,
) -> Judged {
    let input = Box::new(input(&call, &facts, &entry, moment));
    judged(policy, call, facts, entry, input, shade)
}

/// Decides a held call again that people have approved, by what is so at this moment.
pub fn release(
    policy: &Policy,
    call: Box<Call>,
    facts: Facts,
    entry: Entry,
    (moment, approval): (Moment, Approval),
    shade: &mut Shade,
) -> Judged {
    let asked = input(&call, &facts, &entry, moment);
    let input = Box::new(PolicyInput { approval: Some(approval), ..asked });
    judged(policy, call, facts, entry, input, shade)
}

fn judged(
    policy: &Policy,
    call: Box<Call>,
    facts: Facts,
    entry: Entry,
    input: Box<PolicyInput>,
    shade: &mut Shade,
) -> Judged {
    let decision = policy.evaluate(&input);
    let lifted = policy.lifted(&input, &decision);
    let covered = shade.covers(facts.consequence) && !input.is_enforced();
    if let Some(would_be) = would_be(&decision, covered) {
        shade.note(would_be);
    }
    let verdict = match &decision.outcome {
        _ if covered => Verdict::Allow(Permitted { call, facts, entry }),
        Outcome::Allow => Verdict::Allow(Permitted { call, facts, entry }),
        Outcome::Deny => Verdict::Deny(denied(&decision)),
        // A body that streams cannot wait, and nobody could see what they approve.
        Outcome::Hold(_) if matches!(call.payload(), Payload::Opaque(_)) => Verdict::Deny(denied(&decision)),
        Outcome::Hold(terms) => {
            let (terms, rule, reason) = (terms.clone(), Arc::clone(&decision.rule), decision.reason.clone());
            Verdict::Hold(Held { call, facts, run: entry.run, terms, rule, reason })
        }
    };
    Judged { verdict, decision, input, lifted }
}

/// What policy would have said, when that is not what becomes of the call.
fn would_be(decision: &Decision, covered: bool) -> Option<WouldBe> {
    let decision = match (&decision.outcome, &decision.shadow) {
        (Outcome::Deny | Outcome::Hold(_), _) if covered => decision,
        (Outcome::Deny, _) | (_, None) => return None,
        (Outcome::Allow | Outcome::Hold(_), Some(shadow)) => shadow,
    };
    Some(WouldBe {
        kind: if matches!(decision.outcome, Outcome::Hold(_)) { StopKind::Held } else { StopKind::Denied },
        reason: "policy",
        rule: Arc::clone(&decision.rule),
        policies: decision.policies.clone(),
        detail: decision.reason.clone(),
    })
}

/// What of an upstream's lists an agent may see, as policy says at the moment of its call.
pub struct Sight {
    policy: Arc<Policy>,
    upstream: Arc<Upstream>,
    input: Box<PolicyInput>,
    shade: Shade,
}

impl Sight {
    /// The sight of the agent whose call this was decided for.
    pub fn new(policy: &Arc<Policy>, upstream: &Arc<Upstream>, input: &PolicyInput, shade: &Shade) -> Sight {
        let (policy, upstream) = (Arc::clone(policy), Arc::clone(upstream));
        Sight { policy, upstream, input: Box::new(input.clone()), shade: shade.clone() }
    }

    /// Whether policy lets the agent discover the item of this name in this list.
    pub fn shows(&self, list: &str, name: &str) -> bool {
        let Some(profile) = self.upstream.listed(list, name) else {
            return self.shade.covers(Consequence::UNLISTED);
        };
        if self.shade.covers(profile.consequence) {
            return true;
        }
        let input = PolicyInput {
            action: PolicyAction::Discover,
            resource: Arc::clone(profile),
            class: profile.class,
            consequence: profile.consequence,
            ..(*self.input).clone()
        };
        self.policy.evaluate(&input).outcome == Outcome::Allow
    }
}

/// When and from where a call is decided, and what is lifted at that moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Now.
    pub now: SystemTime,
    /// The agent's address.
    pub source_ip: IpAddr,
    /// The emergency lifts in force for it.
    pub break_glass: Option<BreakGlass>,
}

fn input(call: &Call, facts: &Facts, entry: &Entry, moment: Moment) -> PolicyInput {
    PolicyInput {
        agent: Arc::clone(call.agent().profile()),
        action: facts.action,
        resource: Arc::clone(&facts.resource),
        class: facts.class,
        consequence: facts.consequence,
        effects: facts.effects.clone(),
        labels: entry.labels.iter().map(|label| label.as_str().into()).collect(),
        findings: entry.findings.clone(),
        profile: entry.profile,
        calls: entry.calls,
        task: entry.task.clone(),
        facts: facts.lifted.clone(),
        tiers: entry.tiers.clone().unwrap_or_else(|| facts.tiers.clone()),
        destinations_internal: facts.destinations_internal,
        on_behalf_of: None,
        auth: Auth { method: "mtls", bound: true, instance: Arc::clone(call.agent().instance()) },
        now: moment.now,
        source_ip: moment.source_ip,
        approval: None,
        break_glass: moment.break_glass,
    }
}

fn denied(decision: &Decision) -> Box<Stop> {
    let public =
        "Policy does not permit this call. Do not retry it unchanged; ask the agent's owner if it is needed.";
    let mut stop =
        Stop::new(Stage::Decide, StopKind::Denied, "policy", public).operator(decision.reason.clone());
    stop.rule = Arc::clone(&decision.rule);
    stop
}

// === impl Held ===

impl Held {
    /// The call.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// What it does.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes the call out, to decide it again.
    pub(crate) fn take(self) -> Box<Call> {
        self.call
    }
}

// === impl Permitted ===

impl Permitted {
    /// The call.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// What it does.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Its run.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Takes the permit apart, to commit it.
    pub(crate) fn into_parts(self) -> (Box<Call>, Facts) {
        (self.call, self.facts)
    }
}
