//! `/v1/notifications`: what webhooks should be told and have not confirmed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::agents::moment;
use super::body::Asked;
use super::caller::{Caller, Target};
use super::holds::{known, may_see};
use super::problem::Problem;
use crate::call::{PersonAction, RecordId};
use crate::record::Durability;
use crate::store::holds::Hold;
use crate::store::notifications::{self, NotificationState, Topic};

/// Which notifications are wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// `waiting` or `dead`; both when not given.
    state: Option<String>,
}

/// Something that one webhook should be told.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Notification {
    /// Its id, which the receiver sees as `webhook-id`.
    pub id: String,
    /// The webhook's name.
    pub webhook: String,
    /// What happened: `hold.opened`, `hold.voted`, `hold.escalated`, `hold.expiring`, `hold.released`, `hold.ended`, or
    /// `breakglass.` and `opened`, `closed`, `expired`, `unreviewed` or `reviewed`.
    pub event: String,
    /// The hold; none for an emergency lift.
    pub hold: Option<String>,
    /// The emergency lift; none for a hold.
    pub lift: Option<String>,
    /// When it happened, RFC 3339.
    pub at: String,
    /// `waiting` or `dead`.
    pub state: &'static str,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next; none when it is dead.
    pub next: Option<String>,
    /// Why it was not delivered; empty while it was not tried.
    pub failure: String,
}

/// What the caller may see of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Notifications {
    /// The oldest first; of the oldest 1000 those about emergency lifts and about holds that you may see.
    pub notifications: Vec<Notification>,
}

/// `GET /v1/notifications`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Asked(which): Asked<Which>,
) -> Result<Json<Notifications>, Problem> {
    let state = match which.state.as_deref() {
        None => None,
        Some(word) => {
            let unknown = || Problem::Invalid(format!("`{word}` is neither `waiting` nor `dead`"));
            Some(NotificationState::parse(word).ok_or_else(unknown)?)
        }
    };
    let mut seen = Vec::new();
    for one in admin.gateway.store.notifications(state).await? {
        if topic(&admin, &caller, one.topic).await?.is_some() {
            seen.push(told(&one));
        }
    }
    Ok(Json(Notifications { notifications: seen }))
}

/// What a caller may see of what a notification is about. An emergency lift is everybody's to see.
enum Seen {
    Hold(Box<Hold>),
    Lift,
}

async fn topic(admin: &Admin, caller: &Caller, topic: Topic) -> Result<Option<Seen>, Problem> {
    let Topic::Hold(id) = topic else { return Ok(Some(Seen::Lift)) };
    let hold = admin.gate().show(id).await?.filter(|hold| may_see(admin, caller, hold));
    Ok(hold.map(|hold| Seen::Hold(Box::new(hold))))
}

/// `POST /v1/notifications/{id}/retry`. Whoever may see the hold may have it told again, and of an emergency lift whoever
/// sees what belongs to no team: it says nothing new, and goes nowhere but where the operator has it go.
pub(super) async fn retry(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Notification>, Problem> {
    let one = find(&admin, &id).await?.ok_or_else(|| unknown(&id))?;
    let seen = topic(&admin, &caller, one.topic).await?.ok_or_else(|| unknown(&id))?;
    let reason = format!("notification {} is tried again", one.id);
    let known = match &seen {
        Seen::Hold(hold) => Some(known(&admin, hold)?),
        Seen::Lift => None,
    };
    let (target, decision) = match (&seen, &known) {
        (Seen::Hold(hold), Some(known)) => {
            let target = Target::Hold(known, hold);
            (target, caller.asks(&admin, PersonAction::View, target))
        }
        _ => (Target::Gateway, caller.may(&admin, PersonAction::View, Target::Gateway, &reason).await?),
    };
    if let Some(entry) = caller.entry(&admin, PersonAction::View, target, &reason, &decision) {
        let written = admin.evidence().ledger.append(entry, Durability::Synced).await;
        written.map_err(|error| Problem::Unavailable(format!("the audit cannot have it: {error}")))?;
    }
    admin.gateway.store.retry(one.id).await?;
    let one = find(&admin, &id).await?.ok_or_else(|| unknown(&id))?;
    Ok(Json(told(&one)))
}

async fn find(admin: &Admin, id: &str) -> Result<Option<notifications::Notification>, Problem> {
    match RecordId::parse(id) {
        Some(id) => Ok(admin.gateway.store.notification(id).await?),
        None => Ok(None),
    }
}

fn unknown(id: &str) -> Problem {
    Problem::NotFound(format!("no notification `{id}`: what a webhook has confirmed is gone"))
}

fn told(one: &notifications::Notification) -> Notification {
    let waiting = one.state == NotificationState::Waiting;
    Notification {
        id: one.id.to_string(),
        webhook: one.webhook.clone(),
        event: one.kind.clone(),
        hold: matches!(one.topic, Topic::Hold(_)).then(|| one.topic.id().to_string()),
        lift: matches!(one.topic, Topic::Lift(_)).then(|| one.topic.id().to_string()),
        at: moment(one.at),
        state: one.state.as_str(),
        attempts: one.attempts,
        next: waiting.then(|| moment(one.next)),
        failure: one.failure.clone(),
    }
}
