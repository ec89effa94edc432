//! `/v1/agents`: who is registered, in which state, and orders to stop them or let them go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Admin;
use super::body::Told;
use super::caller::{Caller, Target};
use super::order::{self, What};
use super::problem::Problem;
use crate::call::{AgentId, PersonAction};
use crate::identify::directory::{self, Known, Standing};
use crate::store::{Changed, Suspension};
use crate::units;

/// The accountable people, by e-mail.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Owners {
    /// For the business.
    pub business: Option<String>,
    /// For operation.
    pub technical: Option<String>,
    /// For the risk.
    pub risk: Option<String>,
}

/// An order that stopped an agent, and the one that let it go on.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Suspended {
    /// Who stopped it: a SPIFFE ID, or `local socket`.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub reason: String,
    /// Who let it go on, when and why; absent while it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Box<Suspended>>,
}

/// One agent.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Agent {
    /// The SPIFFE ID.
    pub id: String,
    /// What is in force today, the stricter of registry and orders: `active`, `read-only`, `suspended`, `retired` or
    /// `review-overdue`.
    pub state: String,
    /// The state in the registry: `active`, `suspended` or `retired`.
    pub registered: String,
    /// The autonomy in force today: `read-only`, `constrained` or `delegated`.
    pub autonomy: String,
    /// The accountable people.
    pub owner: Owners,
    /// The owning team.
    pub team: String,
    /// Groups for policy and limits.
    pub groups: Vec<String>,
    /// What it is for.
    pub purpose: String,
    /// 0 to 4.
    pub risk: u8,
    /// Where it runs.
    pub region: String,
    /// The vendor that manages it.
    pub vendor: Option<String>,
    /// The day by which its entry must be reviewed, as in `2027-03-01`.
    pub review_due: Option<String>,
    /// The order that stopped it, when one is in force.
    pub suspension: Option<Suspended>,
}

/// Every agent that the caller may see.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Agents {
    /// By id.
    pub agents: Vec<Agent>,
    /// Entries of the registry that stand for agents below a path. Those that have called are among `agents`.
    pub wildcards: Vec<String>,
}

/// One agent, and the orders that were given about it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// The agent.
    pub agent: Agent,
    /// The newest first.
    pub history: Vec<Suspended>,
}

/// Why an agent is stopped, or may go on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// What the record says later; required.
    pub reason: String,
}

/// An order about many agents. Exactly one of `owner`, `team` and `all` says which.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Many {
    /// Those that this person owns, in whatever capacity, by e-mail.
    pub owner: Option<String>,
    /// Those of this team.
    pub team: Option<String>,
    /// `true`: everyone.
    pub all: Option<bool>,
    /// What the record says later; required.
    pub reason: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What an order did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ordered {
    /// The agent as it is now.
    pub agent: Agent,
    /// Whether anything changed.
    pub changed: bool,
    /// Connections that were cut.
    pub connections_cut: usize,
    /// The record of the order.
    pub record: String,
}

/// What became of one agent of an order about many.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OrderedOne {
    /// The agent.
    pub id: String,
    /// Its team.
    pub team: String,
    /// `changed`, `unchanged`, `refused` or `failed`.
    pub outcome: String,
    /// Why it was refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What an order about many agents did, or would do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OrderedMany {
    /// Nothing was done.
    pub dry_run: bool,
    /// Every agent that was meant.
    pub agents: Vec<OrderedOne>,
    /// How many changed.
    pub changed: usize,
    /// How many were so already.
    pub unchanged: usize,
    /// How many the caller may not act on, or cannot be acted on.
    pub refused: usize,
    /// How many could not be carried out.
    pub failed: usize,
    /// Connections that were cut.
    pub connections_cut: usize,
    /// Wildcard entries that were meant too: agents below them that have not called since the gateway started are not
    /// stopped by this order. Change the registry for them.
    pub not_covered: Vec<String>,
}

/// `GET /v1/agents`
pub(super) async fn list(State(admin): State<Arc<Admin>>, caller: Caller) -> Result<Json<Agents>, Problem> {
    Ok(Json(Agents { agents: seen(&admin, &caller).await?, wildcards: wildcards(&admin, |_| true) }))
}

/// The agents that a caller may see, by id.
pub(super) async fn seen(admin: &Admin, caller: &Caller) -> Result<Vec<Agent>, Problem> {
    let suspensions = admin.suspensions().all().await?;
    let suspensions: HashMap<&AgentId, &Suspension> =
        suspensions.iter().map(|one| (&one.suspended.agent, one)).collect();
    let agents = admin.agents().await?;
    let visible = agents.iter().filter(|(id, known)| caller.sees(admin, Target::Agent(id, known)));
    Ok(visible.map(|(id, known)| agent(admin, id, known, suspensions.get(id).copied())).collect())
}

/// `GET /v1/agents/{id}`
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Shown>, Problem> {
    Ok(Json(shown(&admin, &caller, &name).await?))
}

/// One agent with its history, for a caller that may see it.
pub(super) async fn shown(admin: &Admin, caller: &Caller, name: &str) -> Result<Shown, Problem> {
    let (id, known) = admin.agent(name)?;
    caller.may(admin, PersonAction::View, Target::Agent(&id, &known), "").await?;
    let history = admin.suspensions().history(id.clone()).await?;
    let in_force = history.iter().find(|one| one.resumed.is_none());
    let agent = agent(admin, &id, &known, in_force);
    Ok(Shown { agent, history: history.iter().map(suspended).collect() })
}

/// `POST /v1/agents/{id}/suspend`
pub(super) async fn suspend(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(name): Path<String>,
    Told(told): Told<Reason>,
) -> Result<Json<Ordered>, Problem> {
    ordered(&admin, &caller, What::Suspend, &name, &told.reason).await.map(Json)
}

/// `POST /v1/agents/{id}/resume`
pub(super) async fn resume(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(name): Path<String>,
    Told(told): Told<Reason>,
) -> Result<Json<Ordered>, Problem> {
    ordered(&admin, &caller, What::Resume, &name, &told.reason).await.map(Json)
}

/// Carries out an order about one agent.
pub(super) async fn ordered(
    admin: &Admin,
    caller: &Caller,
    what: What,
    name: &str,
    reason: &str,
) -> Result<Ordered, Problem> {
    let reason = order::reason(reason)?;
    let (id, known) = admin.agent(name)?;
    let done = order::one(admin, caller, what, &id, &known, reason).await?;
    let history = admin.suspensions().history(id.clone()).await?;
    let in_force = history.iter().find(|one| one.resumed.is_none());
    Ok(Ordered {
        agent: agent(admin, &id, &known, in_force),
        changed: done.changed == Changed::Now,
        connections_cut: done.cut,
        record: done.record,
    })
}

/// `POST /v1/agents/suspend`
pub(super) async fn suspend_many(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Told(many): Told<Many>,
) -> Result<Json<OrderedMany>, Problem> {
    ordered_many(&admin, &caller, What::Suspend, &many).await.map(Json)
}

/// `POST /v1/agents/resume`
pub(super) async fn resume_many(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Told(many): Told<Many>,
) -> Result<Json<OrderedMany>, Problem> {
    ordered_many(&admin, &caller, What::Resume, &many).await.map(Json)
}

async fn ordered_many(
    admin: &Arc<Admin>,
    caller: &Caller,
    what: What,
    many: &Many,
) -> Result<OrderedMany, Problem> {
    let reason = order::reason(&many.reason)?;
    let meant = |entry: &directory::Entry| match (&many.owner, &many.team, many.all) {
        (Some(owner), None, None) => Ok(entry.owners.include(owner)),
        (None, Some(team), None) => Ok(*entry.team == **team && !team.is_empty()),
        (None, None, Some(true)) => Ok(true),
        _ => Err(Problem::Invalid("exactly one of `owner`, `team` and `all: true` must be given".to_owned())),
    };
    let mut agents = Vec::new();
    for (id, known) in admin.agents().await? {
        if meant(known.entry())? {
            agents.push((id, known));
        }
    }
    // What the caller may not even see is not named, unless it is of the team or owner that was asked for.
    if many.all == Some(true) {
        agents.retain(|(id, known)| caller.sees(admin, Target::Agent(id, known)));
    }
    let done = if many.dry_run {
        order::foreseen(admin, caller, what, agents)
    } else {
        order::many(admin, caller, what, agents, reason).await
    };
    let mut told = OrderedMany {
        dry_run: many.dry_run,
        agents: Vec::with_capacity(done.len()),
        changed: 0,
        unchanged: 0,
        refused: 0,
        failed: 0,
        connections_cut: 0,
        not_covered: wildcards(admin, |entry| meant(entry).unwrap_or(false)),
    };
    for one in done {
        let (outcome, count) = match &one.result {
            Ok(done) if done.changed == Changed::Now => ("changed", &mut told.changed),
            Ok(_) => ("unchanged", &mut told.unchanged),
            Err(Problem::Unavailable(_)) => ("failed", &mut told.failed),
            Err(_) => ("refused", &mut told.refused),
        };
        *count += 1;
        told.connections_cut += one.result.as_ref().map_or(0, |done| done.cut);
        told.agents.push(OrderedOne {
            id: one.id.to_string(),
            team: one.known.entry().team.to_string(),
            outcome: outcome.to_owned(),
            detail: one.result.err().map(|problem| problem.detail()),
        });
    }
    if told.agents.is_empty() && told.not_covered.is_empty() {
        return Err(Problem::NotFound("no agent is meant by this".to_owned()));
    }
    Ok(told)
}

fn wildcards(admin: &Admin, meant: impl Fn(&directory::Entry) -> bool) -> Vec<String> {
    let directory = admin.directory();
    let entries = directory.entries().filter(|entry| entry.wildcard && meant(entry));
    let mut wildcards: Vec<String> = entries.map(|entry| format!("{}*", entry.id)).collect();
    wildcards.sort();
    wildcards
}

fn agent(admin: &Admin, id: &AgentId, known: &Known, suspension: Option<&Suspension>) -> Agent {
    let (entry, today) = (known.entry(), OffsetDateTime::now_utc().date());
    let standing = entry.standing(today);
    // What calls go by is in memory; the store says who and why.
    let ordered = admin.suspensions().includes(id);
    let state = match standing {
        Standing::Retired => "retired",
        Standing::Suspended => "suspended",
        _ if ordered => "suspended",
        Standing::ReviewOverdue => "review-overdue",
        Standing::Reduced => "read-only",
        Standing::InForce => "active",
    };
    let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
    Agent {
        id: id.to_string(),
        state: state.to_owned(),
        registered: match entry.state {
            directory::State::Active => "active",
            directory::State::Retired => "retired",
            directory::State::Suspended => "suspended",
        }
        .to_owned(),
        autonomy: known.profile_today(today).autonomy.as_str().to_owned(),
        owner: Owners {
            business: text(&entry.owners.business),
            technical: text(&entry.owners.technical),
            risk: text(&entry.owners.risk),
        },
        team: entry.team.to_string(),
        groups: entry.groups.iter().map(|group| group.to_string()).collect(),
        purpose: entry.purpose.to_string(),
        risk: entry.risk,
        region: entry.region.to_string(),
        vendor: text(&entry.vendor),
        review_due: entry.review_due.map(|day| day.to_string()),
        suspension: suspension.filter(|_| ordered).map(suspended),
    }
}

fn suspended(one: &Suspension) -> Suspended {
    let told = |order: &crate::store::Order| Suspended {
        by: order.by.to_string(),
        at: moment(order.at),
        reason: order.reason.clone(),
        resumed: None,
    };
    Suspended { resumed: one.resumed.as_ref().map(|order| Box::new(told(order))), ..told(&one.suspended) }
}

/// A moment, RFC 3339 with milliseconds.
pub(super) fn moment(at: SystemTime) -> String {
    units::moment(at.into(), 3).to_string()
}
