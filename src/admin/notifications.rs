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
use crate::store::notifications::{self, NotificationState};

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
    /// `hold.opened`, `hold.voted`, `hold.escalated`, `hold.expiring`, `hold.released` or `hold.ended`.
    pub event: String,
    /// The hold.
    pub hold: String,
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
    /// The oldest first; of the oldest 1000 those about holds that you may see.
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
        let hold = admin.gate().show(one.hold).await?;
        if hold.is_some_and(|hold| may_see(&admin, &caller, &hold)) {
            seen.push(told(&one));
        }
    }
    Ok(Json(Notifications { notifications: seen }))
}

/// `POST /v1/notifications/{id}/retry`. Whoever may see the hold may have it told again: it says nothing new, and goes
/// nowhere but where the operator has it go.
pub(super) async fn retry(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Notification>, Problem> {
    let one = find(&admin, &id).await?;
    let hold = match &one {
        Some(one) => admin.gate().show(one.hold).await?.filter(|hold| may_see(&admin, &caller, hold)),
        None => None,
    };
    let (Some(one), Some(hold)) = (one, hold) else { return Err(unknown(&id)) };
    let known = known(&admin, &hold)?;
    let target = Target::Hold(&known, &hold);
    let decision = caller.asks(&admin, PersonAction::View, target);
    let reason = format!("notification {} is tried again", one.id);
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
        hold: one.hold.to_string(),
        at: moment(one.at),
        state: one.state.as_str(),
        attempts: one.attempts,
        next: waiting.then(|| moment(one.next)),
        failure: one.failure.clone(),
    }
}
