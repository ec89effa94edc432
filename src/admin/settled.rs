//! `/v1/standing`, approvals that stand for more than one execution of exactly one call, and
//! `/v1/holds/{id}/resolve`, what came of a call of which nobody knew.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::agents::{Reason, moment};
use super::body::Told;
use super::caller::{Caller, Target};
use super::holds::{self, Hold};
use super::order;
use super::problem::Problem;
use crate::call::{PersonAction, RecordId, hex};
use crate::decide::Outcome;
use crate::store::resolve::{Found, Resolution, Resolved};
use crate::store::standing;

/// An approval that stands.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Standing {
    /// Its id: holds that it approved, and their records, name it in `standing`.
    pub id: String,
    /// `in-force`, `used-up`, `expired` or `revoked`.
    pub state: &'static str,
    /// The hold whose approval it is.
    pub hold: String,
    /// SHA-256 of the call, `sha256:` and hexadecimal.
    pub digest: String,
    /// Whose call it is.
    pub agent: String,
    /// The upstream.
    pub upstream: String,
    /// The tool or operation.
    pub tool: String,
    /// Everybody who approved, in order.
    pub people: Vec<String>,
    /// Who let it stand.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, RFC 3339.
    pub at: String,
    /// Until when.
    pub until: String,
    /// For how many executions.
    pub times: u32,
    /// How many there were.
    pub used: u32,
    /// Who took it back.
    pub revoked_by: Option<String>,
    /// Why it was taken back.
    pub revoked_reason: Option<String>,
}

/// Every standing approval that the caller may see.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Standings {
    /// Those in force first, then the newest first; at most 1000.
    pub standing: Vec<Standing>,
}

/// What came of a call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// `executed`, `failed`, or `again`: it may be done again, where the catalogue says that twice is once.
    pub found: String,
    /// How you know: it is what the record says later.
    pub reason: String,
}

/// `GET /v1/standing`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
) -> Result<Json<Standings>, Problem> {
    let all = seen(&admin, &caller).await?;
    Ok(Json(Standings { standing: all.iter().map(told).collect() }))
}

/// The standing approvals that the caller may see, those in force first.
pub(super) async fn seen(admin: &Admin, caller: &Caller) -> Result<Vec<standing::Standing>, Problem> {
    let mut all = admin.gate().standings().await?;
    all.retain(|one| may(admin, caller, one, PersonAction::View));
    Ok(all)
}

/// `DELETE /v1/standing/{id}`
pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Told(said): Told<Reason>,
) -> Result<Json<Standing>, Problem> {
    revoked(&admin, &caller, &id, &said.reason).await.map(|one| Json(told(&one)))
}

/// Takes a standing approval back, for whoever may.
pub(super) async fn revoked(
    admin: &Admin,
    caller: &Caller,
    id: &str,
    reason: &str,
) -> Result<standing::Standing, Problem> {
    let reason = order::reason(reason)?;
    let unknown = || Problem::NotFound(format!("no standing approval `{id}`"));
    let number = RecordId::parse(id).ok_or_else(unknown)?;
    let all = admin.gate().standings().await?;
    let one = all.into_iter().find(|one| one.id == number).ok_or_else(unknown)?;
    if !may_revoke(admin, caller, &one) {
        let known = admin.directory().find(&one.agent);
        let target = known.as_deref().map_or(Target::Gateway, |known| Target::Agent(&one.agent, known));
        caller.may(admin, PersonAction::Approve, target, reason).await?;
    }
    let revoked = admin.gate().revoke_standing(number, caller.who().to_string(), reason.to_owned()).await?;
    revoked.ok_or_else(|| Problem::Conflict(format!("{id} is {} already", one.state(SystemTime::now()))))
}

/// To take one back is the safe way: whoever let it stand may, and so may whoever may stop the agent.
pub(super) fn may_revoke(admin: &Admin, caller: &Caller, one: &standing::Standing) -> bool {
    let own =
        caller.person().is_some_and(|(person, _)| one.people.iter().any(|by| *by == *person.id.as_str()));
    own || may(admin, caller, one, PersonAction::Suspend)
}

/// `POST /v1/holds/{id}/resolve`
pub(super) async fn resolve(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Told(said): Told<Finding>,
) -> Result<Json<Hold>, Problem> {
    let reason = order::reason(&said.reason)?;
    let invalid = || Problem::Invalid("`found` must be executed, failed or again".to_owned());
    let found = Found::parse(&said.found).ok_or_else(invalid)?;
    let hold = holds::find(&admin, &caller, &id).await?;
    let known = holds::known(&admin, &hold)?;
    caller.may(&admin, PersonAction::Approve, Target::Hold(&known, &hold), reason).await?;
    let (person, _) = caller.person().ok_or_else(|| {
        Problem::Forbidden("only a person says what came of it, with a certificate of their own".to_owned())
    })?;
    let said = Resolution { found, by: person.id.to_string(), reason: reason.to_owned() };
    match admin.gate().resolve(hold.id, said).await? {
        Resolved::Now(hold) => Ok(Json(holds::told(&hold))),
        Resolved::NotAgain(hold) => {
            let why = if hold.about.idempotent {
                "its time is over: the same call is held anew"
            } else {
                "the catalogue does not say that doing it twice is doing it once"
            };
            Err(Problem::Conflict(format!("hold {} cannot be released again: {why}", hold.id)))
        }
        Resolved::Known(hold) => {
            let state = hold.state.as_str();
            Err(Problem::Conflict(format!("hold {} is {state}: there is nothing to find out", hold.id)))
        }
        Resolved::Unknown => Err(holds::unknown(&id)),
    }
}

fn may(admin: &Admin, caller: &Caller, one: &standing::Standing, action: PersonAction) -> bool {
    let known = admin.directory().find(&one.agent);
    let target = known.as_deref().map_or(Target::Gateway, |known| Target::Agent(&one.agent, known));
    caller.asks(admin, action, target).outcome == Outcome::Allow
}

fn told(one: &standing::Standing) -> Standing {
    Standing {
        id: one.id.to_string(),
        state: one.state(SystemTime::now()),
        hold: one.hold.to_string(),
        digest: format!("sha256:{}", hex(&one.digest)),
        agent: one.agent.to_string(),
        upstream: one.upstream.clone(),
        tool: one.tool.clone(),
        people: one.people.clone(),
        by: one.by.clone(),
        reason: one.reason.clone(),
        at: moment(one.at),
        until: moment(one.until),
        times: one.times,
        used: one.used,
        revoked_by: one.revoked.as_ref().map(|revoked| revoked.by.clone()),
        revoked_reason: one.revoked.as_ref().map(|revoked| revoked.reason.clone()),
    }
}
