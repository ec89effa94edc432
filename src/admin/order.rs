//! Stopping agents and letting them go on: durable in the store and in the audit before it is answered, in force at once.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Admin;
use super::caller::{Caller, Target};
use super::problem::Problem;
use crate::call::{AgentId, PersonAction};
use crate::decide::{Decision, Outcome};
use crate::identify::directory::{Known, State};
use crate::record::Durability;
use crate::store::{Changed, Order, REASON_BYTES_MAX};

/// Orders of one request that are carried out at one time.
const AT_ONCE_MAX: usize = 64;

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Lift a suspension.
    Resume,
    /// Stop.
    Suspend,
}

/// What became of an order.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// Whether it changed anything.
    pub(super) changed: Changed,
    /// Connections that were cut.
    pub(super) cut: usize,
    /// The record of it.
    pub(super) record: String,
}

/// One agent of an order for many, and what became of it.
pub(super) struct One {
    pub(super) id: AgentId,
    pub(super) known: Arc<Known>,
    pub(super) result: Result<Done, Problem>,
}

impl What {
    /// What policy is asked.
    pub(super) fn action(self) -> PersonAction {
        match self {
            What::Resume => PersonAction::Resume,
            What::Suspend => PersonAction::Suspend,
        }
    }
}

/// A reason that says something, and fits.
pub(super) fn reason(given: &str) -> Result<&str, Problem> {
    let reason = given.trim();
    if reason.is_empty() {
        return Err(Problem::Invalid("a reason is required: it is what the record says later".to_owned()));
    }
    if reason.len() > REASON_BYTES_MAX {
        return Err(Problem::Invalid(format!("the reason is longer than {REASON_BYTES_MAX} bytes")));
    }
    Ok(reason)
}

/// Carries out an order about one agent.
pub(super) async fn one(
    admin: &Admin,
    caller: &Caller,
    what: What,
    id: &AgentId,
    known: &Known,
    reason: &str,
) -> Result<Done, Problem> {
    let target = Target::Agent(id, known);
    let decision = caller.may(admin, what.action(), target, reason).await?;
    sensible(admin, what, id, known)?;
    let order =
        Order { agent: id.clone(), by: caller.who(), reason: reason.to_owned(), at: SystemTime::now() };
    match what {
        What::Suspend => {
            // In force first: an agent that must be stopped is stopped, whatever the disk does. What cannot be kept is
            // told, but not before the connections are cut and the audit was asked to keep it.
            let kept = admin.suspensions().suspend(order).await;
            let cut = (admin.cut)(id);
            let record = written(admin, caller, what, target, reason, &decision).await;
            let changed = kept?;
            let record = record.map_err(|error| {
                Problem::Unavailable(format!("{id} is suspended, but the audit does not have it: {error}"))
            })?;
            Ok(Done { changed, cut, record })
        }
        What::Resume => {
            // The audit first: what it does not have is not lifted.
            let record = written(admin, caller, what, target, reason, &decision).await.map_err(|error| {
                Problem::Unavailable(format!("{id} is not resumed: the audit cannot have it: {error}"))
            })?;
            let changed = admin.suspensions().resume(order).await?;
            Ok(Done { changed, cut: 0, record })
        }
    }
}

/// What an order cannot change is refused before anything is done.
fn sensible(admin: &Admin, what: What, id: &AgentId, known: &Known) -> Result<(), Problem> {
    let ordered = admin.suspensions().includes(id);
    match (what, known.entry().state) {
        (What::Resume, State::Suspended) if !ordered => {
            Err(Problem::Conflict(format!("the registry suspends {id}: change its `state` there")))
        }
        (What::Resume, State::Retired) => Err(Problem::Conflict(format!("{id} is retired in the registry"))),
        _ => Ok(()),
    }
}

async fn written(
    admin: &Admin,
    caller: &Caller,
    what: What,
    target: Target<'_>,
    reason: &str,
    decision: &Decision,
) -> Result<String, String> {
    let entry = caller.entry(admin, what.action(), target, reason, decision);
    let entry = entry.ok_or("a permitted order is never folded")?;
    let id = entry.id().to_string();
    let appended = admin.evidence().ledger.append(entry, Durability::Synced).await;
    appended.map(|_| id).map_err(|error| error.to_string())
}

/// Which of these agents an order would change, which not, and which are not the caller's; nothing is done or recorded.
pub(super) fn foreseen(
    admin: &Admin,
    caller: &Caller,
    what: What,
    agents: Vec<(AgentId, Arc<Known>)>,
) -> Vec<One> {
    let foresee = |(id, known): (AgentId, Arc<Known>)| {
        let decision = caller.asks(admin, what.action(), Target::Agent(&id, &known));
        let result = match decision.outcome {
            Outcome::Allow => sensible(admin, what, &id, &known).map(|()| {
                let would = admin.suspensions().includes(&id) != (what == What::Suspend);
                let changed = if would { Changed::Now } else { Changed::Not };
                Done { changed, cut: 0, record: String::new() }
            }),
            _ => Err(Problem::Forbidden(format!("rule {}", decision.rule))),
        };
        One { id, known, result }
    };
    agents.into_iter().map(foresee).collect()
}

/// Carries out an order about many agents, each on its own: one that fails leaves the others as ordered.
pub(super) async fn many(
    admin: &Arc<Admin>,
    caller: &Caller,
    what: What,
    agents: Vec<(AgentId, Arc<Known>)>,
    reason: &str,
) -> Vec<One> {
    let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let mut tasks = JoinSet::new();
    for (id, known) in agents {
        let place = Arc::clone(&places).acquire_owned().await;
        let (admin, caller, reason) = (Arc::clone(admin), caller.clone(), reason.to_owned());
        tasks.spawn(async move {
            let result = one(&admin, &caller, what, &id, &known, &reason).await;
            drop(place);
            One { id, known, result }
        });
    }
    let mut done = Vec::new();
    while let Some(one) = tasks.join_next().await {
        match one {
            Ok(one) => done.push(one),
            Err(error) => tracing::error!(%error, "an order about an agent broke off"),
        }
    }
    done.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    done
}
