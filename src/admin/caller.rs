//! Who asks: a person, or whoever is root at the machine's own socket; and whether they may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::Admin;
use super::problem::Problem;
use super::proof::{self, Proof};
use crate::call::{AgentId, Person, PersonAction, ResourceProfile};
use crate::decide::{Decision, HeldCall, Object, Outcome, PersonInput};
use crate::identify::directory::Known;
use crate::json::Members;
use crate::record::fold::Refusal;
use crate::record::{Durability, Entry, Kind};
use crate::store::Who;
use crate::store::holds::Hold;
use crate::store::inbox::Waiting;

/// The other end of a connection, as it was verified. It is among the request's extensions.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A certificate of a domain of people.
    Certificate {
        /// Its SPIFFE ID.
        id: AgentId,
        /// Its serial number.
        serial: Arc<str>,
        /// From where.
        address: SocketAddr,
    },
    /// Somebody without a certificate: their requests say who they are.
    Guest {
        /// From where.
        address: SocketAddr,
    },
    /// A process of this machine, by its user.
    Local {
        /// The user.
        uid: u32,
    },
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Whoever is root on this machine, or the gateway's own user.
    Local {
        /// The user.
        uid: u32,
        /// The person that they name, who answers for an emergency lift.
        named: Option<Arc<Person>>,
    },
    /// A person.
    Person {
        /// Who.
        person: Arc<Person>,
        /// How they have shown that.
        proof: Proof,
        /// From where.
        address: SocketAddr,
    },
}

/// Whoever may have what tells nothing: somebody, or a guest who has yet to log in.
pub(super) struct Visitor;

/// What a caller would act on.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// An agent.
    Agent(&'a AgentId, &'a Known),
    /// The gateway itself.
    Gateway,
    /// A held call of an agent.
    Hold(&'a Known, &'a Hold),
    /// An upstream with its catalogue.
    Upstream(&'a ResourceProfile),
    /// Calls of an agent that wait, and that policy cannot tell apart.
    Waiting(&'a Known, &'a Waiting),
}

impl FromRequestParts<Arc<Admin>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Caller, Problem> {
        match parts.extensions.get::<Peer>() {
            Some(Peer::Local { uid }) => Ok(Caller::Local { uid: *uid, named: None }),
            Some(Peer::Guest { address }) => proof::guest(admin, parts, *address).await,
            // Who shows two things could be two people.
            Some(Peer::Certificate { .. })
                if admin.logins.is_some() && parts.headers.contains_key(AUTHORIZATION) =>
            {
                Err(Problem::Invalid("show a certificate or a token, and not both".to_owned()))
            }
            Some(Peer::Certificate { id, serial, address }) => match admin.people.load().find(id) {
                Some(person) => {
                    let proof = Proof::Certificate(Arc::clone(serial));
                    Ok(Caller::Person { person, proof, address: *address })
                }
                None => {
                    stranger(admin, id, serial, *address);
                    Err(Problem::Forbidden(format!("{id} is not among the people of this gateway")))
                }
            },
            None => Err(Problem::Forbidden("the other end of this connection is not known".to_owned())),
        }
    }
}

impl FromRequestParts<Arc<Admin>> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Visitor, Problem> {
        match parts.extensions.get::<Peer>() {
            Some(Peer::Guest { .. }) if admin.logins.is_some() => Ok(Visitor),
            _ => Caller::from_request_parts(parts, admin).await.map(|_| Visitor),
        }
    }
}

/// Records who came with a certificate and without an entry; a flood of them is folded.
fn stranger(admin: &Admin, id: &AgentId, serial: &str, address: SocketAddr) {
    let rule = "unknown-person";
    admin.evidence().stranger_refused(rule, rule, Some(address), |members| {
        members.text("kind", "unknown");
        members.text("id", id.as_str());
        members.text("instance", serial);
    });
}

/// The rule of the machine's own socket, as records name it.
pub(super) const LOCAL: &str = "local-socket";

impl Caller {
    /// Who it is, for the store.
    pub(super) fn who(&self) -> Who {
        match self {
            Caller::Local { .. } => Who::LocalSocket,
            Caller::Person { person, .. } => Who::Person(person.id.to_string()),
        }
    }

    /// Who it is, for a page.
    pub(super) fn name(&self) -> &str {
        match self {
            Caller::Local { .. } => "local socket",
            Caller::Person { person, .. } if person.email.is_empty() => person.id.as_str(),
            Caller::Person { person, .. } => &person.email,
        }
    }

    /// The person, and how they have shown who they are.
    pub(super) fn person(&self) -> Option<(&Arc<Person>, &Proof)> {
        match self {
            Caller::Local { .. } => None,
            Caller::Person { person, proof, .. } => Some((person, proof)),
        }
    }

    /// How a person has shown who they are.
    pub(super) fn proof(&self) -> Option<&Proof> {
        self.person().map(|(_, proof)| proof)
    }

    /// What policy says. The local socket sees, suspends and resumes, opens an emergency lift in the name of a person who
    /// may, and nothing else.
    pub(super) fn asks(&self, admin: &Admin, action: PersonAction, target: Target<'_>) -> Decision {
        let person = match self {
            Caller::Person { person, .. } => person,
            Caller::Local { named: Some(person), .. } if action == PersonAction::BreakGlass => person,
            Caller::Local { .. } => {
                let may = matches!(action, PersonAction::Resume | PersonAction::Suspend | PersonAction::View);
                return Decision {
                    outcome: if may { Outcome::Allow } else { Outcome::Deny },
                    policies: Vec::new(),
                    rule: Arc::from(LOCAL),
                    reason: "the local socket sees, suspends and resumes, and nothing else".to_owned(),
                    errors: Vec::new(),
                    shadow: None,
                };
            }
        };
        let today = time::OffsetDateTime::now_utc().date();
        let known = match target {
            Target::Agent(_, known) | Target::Hold(known, _) | Target::Waiting(known, _) => Some(known),
            Target::Gateway | Target::Upstream(_) => None,
        };
        let hold = match target {
            Target::Hold(_, hold) => Some(HeldCall {
                consequence: hold.about.consequence,
                approvers: &hold.terms.approvers,
                on_behalf: super::holds::acts_for(person, &hold.about.on_behalf_of),
            }),
            Target::Waiting(_, waiting) => Some(HeldCall {
                consequence: waiting.consequence,
                approvers: &waiting.approvers,
                on_behalf: super::holds::acts_for(person, &waiting.on_behalf_of),
            }),
            Target::Agent(..) | Target::Gateway | Target::Upstream(_) => None,
        };
        let profile = known.map(|known| known.profile_today(today));
        let owns = known.map(|known| known.entry().owners.held_by(&person.email)).unwrap_or_default();
        let object = match (target, &profile) {
            (Target::Upstream(upstream), _) => Object::Upstream(upstream),
            (_, Some(profile)) => Object::Agent(profile),
            (_, None) => Object::Gateway,
        };
        let now = SystemTime::now();
        admin.policy().permits(&PersonInput { person, action, object, owns: &owns, hold, now })
    }

    /// Whether the caller is still somebody here: people change while a stream lasts.
    pub(super) fn stands(&self, admin: &Admin) -> bool {
        match self {
            Caller::Local { .. } => true,
            Caller::Person { person, proof, .. } => {
                let people = admin.people.load();
                let now = match proof.authentication() {
                    None => people.find(&person.id),
                    Some(authentication) => people.named(&authentication.issuer, &authentication.subject),
                };
                now.is_some_and(|now| now == *person) && proof.stands(admin)
            }
        }
    }

    /// Whether policy lets this caller see something.
    pub(super) fn sees(&self, admin: &Admin, target: Target<'_>) -> bool {
        self.asks(admin, PersonAction::View, target).outcome == Outcome::Allow
    }

    /// The decision when policy permits it, and who asks has been authenticated as it needs; else the refusal, which is on
    /// record when this returns.
    pub(super) async fn may(
        &self,
        admin: &Admin,
        action: PersonAction,
        target: Target<'_>,
        reason: &str,
    ) -> Result<Decision, Problem> {
        let decision = self.asks(admin, action, target);
        if decision.outcome == Outcome::Allow {
            self.proof().map_or(Ok(()), |proof| proof.suffices(admin, action))?;
            return Ok(decision);
        }
        let entry = self.entry(admin, action, target, reason, &decision);
        if let Some(entry) = entry
            && let Err(error) = admin.evidence().ledger.append(entry, Durability::Written).await
        {
            // It stays refused.
            tracing::error!(%error, "a refused attempt of a person could not be recorded");
        }
        let (who, what) = (self.name(), action.as_str());
        Err(Problem::Forbidden(match target {
            Target::Agent(id, _) => format!("{who} may not {what} {id} (rule {})", decision.rule),
            Target::Gateway => format!("{who} may not {what} this (rule {})", decision.rule),
            Target::Upstream(upstream) => {
                format!("{who} may not {what} the upstream {} (rule {})", upstream.upstream, decision.rule)
            }
            Target::Hold(_, hold) => {
                format!("{who} may not {what} a call of {} (rule {})", hold.about.agent, decision.rule)
            }
            Target::Waiting(_, waiting) => {
                format!("{who} may not {what} calls of {} (rule {})", waiting.agent, decision.rule)
            }
        }))
    }

    /// The record of what was asked and decided; none for a refusal that is folded into a later one.
    pub(super) fn entry(
        &self,
        admin: &Admin,
        action: PersonAction,
        target: Target<'_>,
        reason: &str,
        decision: &Decision,
    ) -> Option<Entry> {
        let allowed = decision.outcome == Outcome::Allow;
        let refused = || admin.evidence().folds.admit(Refusal::of_person(&decision.rule));
        let folded = if allowed { 0 } else { refused()? };
        let mut members = Members::default();
        members.text("action", action.as_str());
        let about = match target {
            Target::Agent(id, known) => Some((id, known)),
            Target::Hold(known, hold) => {
                members.plain("hold", hold.id);
                Some((&hold.about.agent, known))
            }
            Target::Waiting(known, waiting) => Some((&waiting.agent, known)),
            Target::Gateway | Target::Upstream(_) => None,
        };
        if let Some((id, known)) = about {
            members.object("agent", |members| members.text("id", id.as_str()));
            members.text("owner", known.entry().owners.business.as_deref().unwrap_or_default());
            members.text("team", &known.entry().team);
        }
        if let Target::Upstream(upstream) = target {
            members.text("upstream", &upstream.upstream);
        }
        members.object("by", |members| self.describe(members));
        if let Caller::Person { address, .. } = self {
            members.plain("peer", address);
        }
        members.text("reason", reason);
        if folded > 0 {
            members.number("folded", folded);
        }
        members.object("decision", |members| {
            members.text("outcome", if allowed { "allowed" } else { "denied" });
            members.text("rule", &decision.rule);
            members.texts("policies", decision.policies.iter().map(|id| &**id));
            members.text("reason", &decision.reason);
            members.text("revision", admin.policy().revision());
        });
        Some(Entry::new(Kind::Admin, None, members))
    }

    pub(super) fn describe(&self, members: &mut Members) {
        match self {
            Caller::Local { uid, named } => {
                members.text("kind", "local");
                members.number("uid", *uid);
                if let Some(person) = named {
                    members.text("named", person.id.as_str());
                }
            }
            Caller::Person { person, proof, .. } => {
                members.text("kind", "person");
                members.text("id", person.id.as_str());
                members.text("email", &person.email);
                members.texts("roles", person.roles.iter().map(|role| &**role));
                members.texts("teams", person.teams.iter().map(|team| &**team));
                proof.describe(members);
            }
        }
    }
}
