//! Cases about people: may this person do that?

use std::sync::Arc;

use serde::Deserialize;

use super::{Case, agent, arcs, resource};
use crate::call::{AgentId, Class, Consequence, Person, PersonAction};
use crate::decide::cedar::{Decision, HeldCall, Object, PersonInput, Policy};
use crate::decide::wire;

/// A person. Whoever the case does not describe has no role and no team.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPerson {
    id: Option<String>,
    email: String,
    roles: Vec<String>,
    teams: Vec<String>,
    /// The capacities in which the person owns the agent; by default as its business owner, when the address is hers.
    owns_as: Option<Vec<String>>,
    /// Whether the held call is made on behalf of this person.
    on_behalf: bool,
}

/// Asks what a case asks, adding what cannot be understood of it.
pub(super) fn ask(policy: &Policy, case: &Case, raw: &RawPerson, problems: &mut Vec<String>) -> Decision {
    let id = raw.id.as_deref().unwrap_or("spiffe://people.example.org/someone");
    let person = Person {
        id: AgentId::from_normalised(id),
        email: Arc::from(raw.email.as_str()),
        roles: arcs(&raw.roles),
        teams: arcs(&raw.teams),
    };
    let action = case.act.as_deref().and_then(PersonAction::parse).unwrap_or_else(|| {
        problems.push(
            "act: must be view, export, suspend, resume, pin, approve, endorse or breakglass".to_owned(),
        );
        PersonAction::View
    });
    let agent = agent(&case.agent, problems);
    let upstream = resource(&case.resource, Class::Read, Consequence::NONE, problems);
    let business =
        case.on.is_none() && !agent.owner.is_empty() && agent.owner.eq_ignore_ascii_case(&person.email);
    let said = |capacity: &&str| match &raw.owns_as {
        Some(owns) => owns.iter().any(|own| own == capacity),
        None => *capacity == "business" && business,
    };
    let owns: Vec<&'static str> = ["business", "technical", "risk"].into_iter().filter(said).collect();
    let approvers = case.approvers.clone().unwrap_or_default();
    let hold = (action == PersonAction::Approve).then(|| HeldCall {
        consequence: case.call.consequence.unwrap_or(Consequence::UNLISTED.level()),
        approvers: &approvers,
        on_behalf: raw.on_behalf,
    });
    let object = match case.on.as_deref() {
        None => Object::Agent(&agent),
        Some("gateway") => Object::Gateway,
        Some("team") => Object::Team(&agent.team),
        Some("upstream") => Object::Upstream(&upstream),
        Some(other) => {
            problems.push(format!("on: {other:?} is none of gateway, team, upstream"));
            Object::Gateway
        }
    };
    let noon = case.call.now.as_deref().unwrap_or("2026-11-20T12:00:00Z");
    let now = wire::time(noon).unwrap_or_else(|| {
        problems.push(format!("call.now: {noon:?} is no time"));
        std::time::SystemTime::UNIX_EPOCH
    });
    policy.permits(&PersonInput { person: &person, action, object, owns: &owns, hold, now })
}
