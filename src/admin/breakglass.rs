//! `/v1/breakglass`: emergency lifts. A person opens one for policies that let themselves be lifted, for agents that are
//! theirs to answer for, and for an hour at most; everybody here sees it; somebody else reviews it afterwards.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::agents::{Reason, moment};
use super::body::Told;
use super::caller::{Caller, Target};
use super::order;
use super::problem::Problem;
use crate::breakglass::{LiftError, TIME_MAX};
use crate::call::{AgentId, PersonAction, RecordId};
use crate::decide::Outcome;
use crate::identify::directory::Known;
use crate::store::lifts::{self, Lifted, NewLift, Reviewed, Scope};
use crate::units;

/// The rules, agents, groups or upstreams that one lift names at most, each.
const NAMES_MAX: usize = 100;

/// What is to be lifted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The policies, by `@id`. Each must let itself be lifted by break-glass in its own condition.
    pub rules: Vec<String>,
    /// For calls of these agents, by SPIFFE ID or the path of it.
    #[serde(default)]
    pub agents: Vec<String>,
    /// For calls of the agents in these groups of the registry.
    #[serde(default)]
    pub groups: Vec<String>,
    /// For calls to these upstreams alone, where any are named. One of agents, groups and upstreams must be.
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// For how long, as in `30m`; at most 60m.
    #[serde(rename = "for")]
    pub time: String,
    /// Why: it is what the record says later.
    pub reason: String,
    /// Who answers for it, by SPIFFE ID or e-mail address: over the machine's own socket alone, and required there.
    pub person: Option<String>,
}

/// An emergency lift.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Lift {
    /// Its id: records of calls that it decided name it in `break_glass`.
    pub id: String,
    /// `open`, `ended` (a review is owed) or `reviewed`.
    pub state: &'static str,
    /// The policies that it lifts.
    pub rules: Vec<String>,
    /// The agents that it is for; with no group either, all agents.
    pub agents: Vec<String>,
    /// The groups that it is for.
    pub groups: Vec<String>,
    /// The upstreams that it is for; all when none is named.
    pub upstreams: Vec<String>,
    /// Who opened it: a SPIFFE ID.
    pub by: String,
    /// How they came.
    pub evidence: String,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
    /// Until when at most.
    pub until: String,
    /// Who closed it before its time, why and when.
    pub closed: Option<Done>,
    /// Who reviewed it, what they said and when.
    pub reviewed: Option<Done>,
}

/// Who did something, why and when.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Done {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
}

/// Every lift, and what could be lifted.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Lifts {
    /// Those that are open or not reviewed first, then the newest first; at most 1000.
    pub lifts: Vec<Lift>,
    /// The policies in force that break-glass may lift.
    pub liftable: Vec<String>,
}

/// `GET /v1/breakglass`. Everybody who is somebody here sees every lift.
pub(super) async fn list(State(admin): State<Arc<Admin>>, _caller: Caller) -> Result<Json<Lifts>, Problem> {
    let all = admin.gateway.lifts.all().await?;
    let liftable = admin.policy().liftable().iter().map(|id| id.to_string()).collect();
    Ok(Json(Lifts { lifts: all.iter().map(told).collect(), liftable }))
}

/// `POST /v1/breakglass`
pub(super) async fn open(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Told(wish): Told<Wish>,
) -> Result<Json<Lift>, Problem> {
    let reason = order::reason(&wish.reason)?;
    let time = time(&wish.time)?;
    let rules = rules(&admin, &wish.rules)?;
    let scope = scope(&admin, &wish)?;
    let caller = answering(&admin, caller, wish.person.as_deref())?;
    let concerned = concerned(&admin, &scope);
    // Otherwise nobody would be asked whether they may, and agents that join within the hour would be under it.
    if concerned.is_empty() {
        return Err(Problem::Invalid("no agent of the registry is one that it would be for".to_owned()));
    }
    // Each agent that it would be for, so that nobody lifts by a group what they may not lift by name.
    for known in concerned {
        let target = Target::Agent(&known.profile().id, &known);
        caller.may(&admin, PersonAction::BreakGlass, target, reason).await?;
    }
    let (by, evidence) = match &caller {
        Caller::Local { uid, named } => {
            let named = named.as_ref().map(|person| person.id.to_string());
            (named, format!("local socket, user {uid}"))
        }
        Caller::Person { person, proof, .. } => (Some(person.id.to_string()), proof.evidence()),
    };
    let by = by.ok_or_else(unnamed)?;
    let new = NewLift { id: RecordId::new(), rules, scope, by, evidence, reason: reason.to_owned(), time };
    match admin.gateway.lifts.open(new).await? {
        Lifted::Open(lift) => Ok(Json(told(&lift))),
        Lifted::Owed(id) => Err(Problem::Conflict(format!(
            "{id} of the same person is open, or nobody has reviewed it: somebody else must do so first"
        ))),
        Lifted::TooMany => {
            let most = lifts::LIFTS_OPEN_MAX;
            Err(Problem::Conflict(format!("{most} emergency lifts are open: close those that nobody needs")))
        }
    }
}

/// `DELETE /v1/breakglass/{id}`
pub(super) async fn close(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Told(said): Told<Reason>,
) -> Result<Json<Lift>, Problem> {
    closed(&admin, &caller, &id, &said.reason).await.map(|lift| Json(told(&lift)))
}

/// Ends a lift, for whoever may.
pub(super) async fn closed(
    admin: &Admin,
    caller: &Caller,
    id: &str,
    reason: &str,
) -> Result<lifts::Lift, Problem> {
    let (reason, found) = (order::reason(reason)?, find(admin, id).await?);
    if !may_close(admin, caller, &found) {
        caller.may(admin, PersonAction::BreakGlass, Target::Gateway, reason).await?;
    }
    let closed = admin.gateway.lifts.close(found.id, caller.who().to_string(), reason.to_owned()).await?;
    closed.ok_or_else(|| Problem::Conflict(format!("{id} has ended before")))
}

/// `POST /v1/breakglass/{id}/review`
pub(super) async fn review(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Told(said): Told<Reason>,
) -> Result<Json<Lift>, Problem> {
    reviewed(&admin, &caller, &id, &said.reason).await.map(|lift| Json(told(&lift)))
}

/// Counts a person's review of a lift that has ended.
pub(super) async fn reviewed(
    admin: &Admin,
    caller: &Caller,
    id: &str,
    reason: &str,
) -> Result<lifts::Lift, Problem> {
    let (reason, found) = (order::reason(reason)?, find(admin, id).await?);
    let (person, _) = caller.person().ok_or_else(|| {
        Problem::Forbidden("only a person reviews, with a certificate of their own".to_owned())
    })?;
    // Whoever sees all that was done may say that they have looked. Where its agents are gone, that is whoever sees what
    // belongs to no team.
    let concerned = concerned(admin, &found.scope);
    if concerned.is_empty() {
        caller.may(admin, PersonAction::View, Target::Gateway, reason).await?;
    }
    for known in concerned {
        let target = Target::Agent(&known.profile().id, &known);
        caller.may(admin, PersonAction::View, target, reason).await?;
    }
    let by = person.id.to_string();
    match admin.gateway.lifts.review(found.id, by, reason.to_owned()).await? {
        Reviewed::Now(lift) => Ok(lift),
        Reviewed::Before(lift) => {
            let by = lift.reviewed.map(|done| done.by).unwrap_or_default();
            Err(Problem::Conflict(format!("{by} has reviewed {id} before")))
        }
        Reviewed::Open => Err(Problem::Conflict(format!("{id} is still open: close it first"))),
        Reviewed::Own => Err(Problem::Forbidden("nobody reviews what they opened themselves".to_owned())),
        Reviewed::Unknown => Err(unknown(id)),
    }
}

fn time(text: &str) -> Result<Duration, Problem> {
    let time = units::duration(text).filter(|time| !time.is_zero() && *time <= TIME_MAX);
    time.ok_or_else(|| Problem::Invalid(format!("`for`: `{text}` must be a time such as 30m, at most 60m")))
}

/// The policies, each of which lets itself be lifted.
fn rules(admin: &Admin, wanted: &[String]) -> Result<Vec<String>, Problem> {
    let liftable = admin.policy().liftable();
    let mut rules = named("rules", wanted)?;
    if rules.is_empty() {
        return Err(Problem::Invalid("`rules` names no policy".to_owned()));
    }
    rules.sort();
    rules.dedup();
    match rules.iter().find(|rule| !liftable.iter().any(|id| **id == **rule)) {
        None => Ok(rules),
        Some(rule) => {
            let these = liftable.join(", ");
            let these = if these.is_empty() { "none is" } else { &these };
            Err(Problem::Invalid(format!(
                "`rules`: `{rule}` is no policy that break-glass may lift; those that are: {these}"
            )))
        }
    }
}

fn scope(admin: &Admin, wish: &Wish) -> Result<Scope, Problem> {
    let mut scope = Scope {
        agents: Vec::new(),
        groups: named("groups", &wish.groups)?,
        upstreams: named("upstreams", &wish.upstreams)?,
    };
    for name in named("agents", &wish.agents)? {
        scope.agents.push(admin.agent(&name)?.0);
    }
    if scope == Scope::default() {
        let text = "say for which calls: one of `agents`, `groups` and `upstreams` at least";
        return Err(Problem::Invalid(text.to_owned()));
    }
    let directory = admin.directory();
    let is_group =
        |name: &String| directory.entries().any(|entry| entry.groups.iter().any(|one| **one == **name));
    if let Some(name) = scope.groups.iter().find(|name| !is_group(name)) {
        return Err(Problem::Invalid(format!("`groups`: no agent of the registry is in `{name}`")));
    }
    let generation = admin.gateway.in_force.load_full();
    let is_upstream =
        |name: &String| generation.catalog.upstreams().any(|upstream| *upstream.config().name == **name);
    if let Some(name) = scope.upstreams.iter().find(|name| !is_upstream(name)) {
        return Err(Problem::Invalid(format!("`upstreams`: there is no upstream `{name}`")));
    }
    Ok(scope)
}

fn named(what: &str, names: &[String]) -> Result<Vec<String>, Problem> {
    if names.len() > NAMES_MAX {
        return Err(Problem::Invalid(format!("`{what}` has more than {NAMES_MAX} names")));
    }
    Ok(names.to_vec())
}

/// The caller, with the person who answers for what is ordered over the machine's own socket.
fn answering(admin: &Admin, caller: Caller, person: Option<&str>) -> Result<Caller, Problem> {
    match (caller, person) {
        (Caller::Local { uid, .. }, Some(name)) => {
            let people = admin.people.load();
            let is =
                |id: &str, email: &str| id == name || (!email.is_empty() && email.eq_ignore_ascii_case(name));
            let mut found = people.iter().filter(|person| is(person.id.as_str(), &person.email));
            let unknown =
                || Problem::Invalid(format!("`person`: `{name}` is not one of the people of this gateway"));
            let named = found.next().filter(|_| found.next().is_none()).cloned().ok_or_else(unknown)?;
            Ok(Caller::Local { uid, named: Some(named) })
        }
        (Caller::Local { .. }, None) => Err(unnamed()),
        (Caller::Person { .. }, Some(_)) => {
            let text = "`person` is for the machine's own socket: you answer for what you open".to_owned();
            Err(Problem::Invalid(text))
        }
        (caller, None) => Ok(caller),
    }
}

fn unnamed() -> Problem {
    let text =
        "`person` is required over the machine's own socket: a person answers for every emergency lift";
    Problem::Invalid(text.to_owned())
}

/// Every agent of the registry that a lift is for, and those that it names below a wildcard.
fn concerned(admin: &Admin, scope: &Scope) -> Vec<Arc<Known>> {
    let directory = admin.directory();
    let everybody = scope.agents.is_empty() && scope.groups.is_empty();
    let is_in = |known: &Known| {
        known.entry().groups.iter().any(|one| scope.groups.iter().any(|name| **name == **one))
    };
    let by_group = directory.known().filter(|known| everybody || is_in(known));
    let by_name = scope.agents.iter().filter_map(|id: &AgentId| directory.find(id));
    by_group.chain(by_name).collect()
}

/// Ending one is always the safe way, so whoever could have opened it, or may stop one of its agents, may end it.
pub(super) fn may_close(admin: &Admin, caller: &Caller, lift: &lifts::Lift) -> bool {
    let own = caller.person().is_some_and(|(person, _)| person.id.as_str() == lift.by);
    let may = |known: &Arc<Known>| {
        let target = Target::Agent(&known.profile().id, known);
        [PersonAction::Suspend, PersonAction::BreakGlass]
            .into_iter()
            .any(|action| caller.asks(admin, action, target).outcome == Outcome::Allow)
    };
    own || matches!(caller, Caller::Local { .. }) || concerned(admin, &lift.scope).iter().any(may)
}

/// Whether a person could review a lift that has ended; why not, as they read it.
pub(super) fn may_review(admin: &Admin, caller: &Caller, lift: &lifts::Lift) -> Result<(), &'static str> {
    let concerned = concerned(admin, &lift.scope);
    let sees = |known: &Arc<Known>| caller.sees(admin, Target::Agent(&known.profile().id, known));
    match caller.person() {
        None => Err("Only a person reviews."),
        Some((person, _)) if person.id.as_str() == lift.by => Err("You opened it: somebody else reviews it."),
        Some(_) if concerned.is_empty() && !caller.sees(admin, Target::Gateway) => {
            Err("Its agents are gone from the registry: an administrator or an auditor reviews it.")
        }
        Some(_) if concerned.iter().all(sees) => Ok(()),
        Some(_) => Err("It was for agents that you may not see: somebody who sees all of them reviews it."),
    }
}

async fn find(admin: &Admin, id: &str) -> Result<lifts::Lift, Problem> {
    let number = RecordId::parse(id).ok_or_else(|| unknown(id))?;
    let all = admin.gateway.lifts.all().await?;
    all.into_iter().find(|lift| lift.id == number).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Problem {
    Problem::NotFound(format!("no emergency lift `{id}`"))
}

impl From<LiftError> for Problem {
    fn from(error: LiftError) -> Problem {
        match error {
            LiftError::Store(error) => error.into(),
            LiftError::Audit(_) | LiftError::Forgettable(_) => Problem::Unavailable(error.to_string()),
        }
    }
}

fn told(lift: &lifts::Lift) -> Lift {
    let done = |done: &crate::store::holds::Revoked| Done {
        by: done.by.clone(),
        reason: done.reason.clone(),
        at: moment(done.at),
    };
    let state = match (&lift.reviewed, lift.is_open(SystemTime::now())) {
        (Some(_), _) => "reviewed",
        (None, true) => "open",
        (None, false) => "ended",
    };
    Lift {
        id: lift.id.to_string(),
        state,
        rules: lift.rules.clone(),
        agents: lift.scope.agents.iter().map(ToString::to_string).collect(),
        groups: lift.scope.groups.clone(),
        upstreams: lift.scope.upstreams.clone(),
        by: lift.by.clone(),
        evidence: lift.evidence.clone(),
        reason: lift.reason.clone(),
        at: moment(lift.at),
        until: moment(lift.until),
        closed: lift.closed.as_ref().map(done),
        reviewed: lift.reviewed.as_ref().map(done),
    }
}
