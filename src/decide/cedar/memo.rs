//! Decisions that were made before, each under everything that its policies look at.
//!
//! A remembered decision holds for the same resource and action, the same steady part of the context, and an agent that
//! is the same in all that the slice looks at. A question with an approval or a break-glass grant is never remembered,
//! and neither is one whose slice looks at what changes from call to call.

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Decision;
use super::kept::Kept;
use super::looks::{ATTRIBUTES, Looks};
use crate::call::{AgentProfile, PolicyInput};

/// How many decisions are kept.
const DECISIONS_MAX: usize = 16_384;

/// The decisions of one generation of policy.
pub(super) struct Memo {
    known: Kept<Arc<Remembered>>,
    keys: RandomState,
}

struct Remembered {
    input: PolicyInput,
    decision: Arc<Decision>,
}

impl Default for Memo {
    fn default() -> Memo {
        Memo { known: Kept::new(DECISIONS_MAX), keys: RandomState::default() }
    }
}

impl Memo {
    /// The decision on this question, if it was made before; else it is made now and remembered.
    pub(super) fn decide(
        &self,
        looks: Looks,
        input: &PolicyInput,
        decide: impl FnOnce() -> Decision,
    ) -> Arc<Decision> {
        if looks.changing || input.approval.is_some() || input.break_glass.is_some() {
            return Arc::new(decide());
        }
        let key = self.key(looks, input);
        if let Some(known) = self.known.find(key, |known| same(looks, &known.input, input)) {
            return Arc::clone(&known.decision);
        }
        let decision = Arc::new(decide());
        if decision.errors.is_empty() {
            let remembered = Remembered { input: input.clone(), decision: Arc::clone(&decision) };
            self.known.put(key, Arc::new(remembered));
        }
        decision
    }

    fn key(&self, looks: Looks, input: &PolicyInput) -> u64 {
        let mut hasher = self.keys.build_hasher();
        Arc::as_ptr(&input.resource).addr().hash(&mut hasher);
        input.action.hash(&mut hasher);
        steady(input).hash(&mut hasher);
        agent(looks, &input.agent, &mut hasher);
        hasher.finish()
    }
}

/// Whether two questions differ in nothing that matters. Keys may collide, so everything is compared.
// Invariant: the remembered input keeps its resource alive, so no other can have its address.
fn same(looks: Looks, known: &PolicyInput, input: &PolicyInput) -> bool {
    Arc::ptr_eq(&known.resource, &input.resource)
        && known.action == input.action
        && steady(known) == steady(input)
        && (Arc::ptr_eq(&known.agent, &input.agent) || same_agent(looks, &known.agent, &input.agent))
}

/// The part of the context that stands in the key: what [`Looks`] takes for steady.
fn steady(input: &PolicyInput) -> impl Hash + PartialEq {
    (
        (input.class, input.consequence, &input.effects, input.destinations_internal),
        (&input.labels, &input.findings, input.profile, &input.tiers),
        input.task.as_ref().map(|task| (&task.id, &task.purpose)),
        &input.on_behalf_of,
        (input.auth.method, input.auth.bound),
    )
}

fn agent(looks: Looks, agent: &AgentProfile, hasher: &mut impl Hasher) {
    if looks.identity {
        return agent.id.hash(hasher);
    }
    attributes(looks).for_each(|name| attribute(agent, name).hash(hasher));
}

fn same_agent(looks: Looks, one: &AgentProfile, other: &AgentProfile) -> bool {
    if looks.identity {
        return one == other;
    }
    attributes(looks).all(|name| attribute(one, name) == attribute(other, name))
}

fn attributes(looks: Looks) -> impl Iterator<Item = &'static str> {
    ATTRIBUTES
        .into_iter()
        .enumerate()
        .filter(move |(bit, _)| looks.agent & (1 << bit) != 0)
        .map(|(_, name)| name)
}

/// One attribute as something to hash and compare: a number, a word, or words.
fn attribute<'a>(agent: &'a AgentProfile, name: &str) -> (u8, Option<&'a str>, &'a [Arc<str>]) {
    match name {
        "autonomy" => (0, Some(agent.autonomy.as_str()), &[]),
        "groups" => (0, None, &agent.groups),
        "owned" => (u8::from(agent.owned), None, &[]),
        "owner" => (0, Some(&agent.owner), &[]),
        "region" => (0, Some(&agent.region), &[]),
        "risk" => (agent.risk, None, &[]),
        "team" => (0, Some(&agent.team), &[]),
        _ => (0, agent.vendor.as_deref(), &[]),
    }
}
