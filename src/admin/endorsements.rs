//! `/v1/endorsements`: destinations that people remembered. One is `known` for one agent and one kind of sink, up to a
//! confidentiality and a consequence, until it expires or is taken back.

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
use crate::call::{Confidentiality, PersonAction, RecordId};
use crate::classify::sink::SinkKind;
use crate::flow::endorsed::Endorsed;
use crate::flow::provenance::Place;
use crate::identify::directory::Known;
use crate::record::{Durability, Entry, Kind};
use crate::store::Changed;
use crate::store::holds::{self, HOLDS_LISTED_MAX, Hold};
use crate::units;

/// The longest that a destination is remembered.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The longest destination, in bytes.
const DESTINATION_BYTES_MAX: usize = 1024;
/// The destinations of one call that are remembered at once.
const DESTINATIONS_MAX: usize = 20;
/// The gravest call that a destination is ever remembered for.
pub(super) const CONSEQUENCE_MAX: u8 = 3;

/// What is to be remembered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The agent, by its SPIFFE ID or the path of it.
    pub agent: String,
    /// The kind of sink, by the catalogue's word: `message`, `invite`, `share`, `payment`, `publish`, `form`, `grant`,
    /// `http` or `dns`.
    pub sink: String,
    /// The destination: an address, a host, an account.
    pub destination: String,
    /// What may go there at most: `public`, `internal` or `secret`. `internal` when absent; secrets must be named.
    pub confidentiality: Option<String>,
    /// The gravest call that it is for, 0 to 3; 2 when absent.
    pub consequence_max: Option<u8>,
    /// For how long, as in `30d`; at most 365d.
    #[serde(rename = "for")]
    pub time: String,
    /// Why: it is what the record says later.
    pub reason: String,
}

/// A remembered destination.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Endorsement {
    /// Its id: records of calls that went by it name it in `endorsements`.
    pub id: String,
    /// The agent's SPIFFE ID.
    pub agent: String,
    /// The kind of sink.
    pub sink: String,
    /// The destination in its canonical form: `mail:…`, `host:…` (its registrable domain) or `name:…`.
    pub destination: String,
    /// What may go there at most.
    pub confidentiality: String,
    /// The gravest call that it is for.
    pub consequence_max: u8,
    /// The rule that held the call that it was made from; empty when it was made from none.
    pub rule: String,
    /// The hold that it was made from.
    pub hold: Option<String>,
    /// Who gave it: a SPIFFE ID.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
    /// Until when.
    pub until: String,
    /// `in-force`, `expired` or `revoked`.
    pub state: &'static str,
    /// Who took it back.
    pub revoked_by: Option<String>,
    /// Why it was taken back.
    pub revoked_reason: Option<String>,
}

/// Every endorsement that the caller may see.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Endorsements {
    /// Those in force first, then the newest first; at most 1000.
    pub endorsements: Vec<Endorsement>,
}

/// What became of an order to take one back.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Revoked {
    /// The endorsement.
    pub id: String,
    /// Whether it was in force.
    pub changed: bool,
    /// The record of the order.
    pub record: String,
}

/// `GET /v1/endorsements`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
) -> Result<Json<Endorsements>, Problem> {
    let mut all = admin.gateway.store.endorsements().await?;
    all.retain(|one| match admin.directory().find(&one.agent) {
        Some(known) => caller.sees(&admin, Target::Agent(&one.agent, &known)),
        None => caller.sees(&admin, Target::Gateway),
    });
    Ok(Json(Endorsements { endorsements: all.iter().map(told).collect() }))
}

/// `POST /v1/endorsements`
pub(super) async fn endorse(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Told(wish): Told<Wish>,
) -> Result<Json<Endorsement>, Problem> {
    let reason = order::reason(&wish.reason)?;
    let time = time(&wish.time)?;
    let unknown = || Problem::Invalid(format!("`{}` is no kind of sink", wish.sink));
    let sink = SinkKind::parse(&wish.sink).ok_or_else(unknown)?;
    let word = wish.confidentiality.as_deref().unwrap_or("internal");
    let confidentiality = Confidentiality::parse(word)
        .ok_or_else(|| Problem::Invalid("`confidentiality` must be public, internal or secret".to_owned()))?;
    let consequence_max = wish.consequence_max.unwrap_or(2);
    ceiling(consequence_max)?;
    let (agent, known) = admin.agent(&wish.agent)?;
    caller.may(&admin, PersonAction::Endorse, Target::Agent(&agent, &known), reason).await?;
    let now = SystemTime::now();
    let one = holds::Endorsement {
        id: RecordId::new(),
        agent,
        upstream: String::new(),
        tool: String::new(),
        sink: sink.as_str().to_owned(),
        destination: canonical(sink, &wish.destination)?,
        confidentiality,
        consequence_max,
        rule: String::new(),
        hold: None,
        by: giver(&caller)?,
        reason: reason.to_owned(),
        at: now,
        until: now + time,
        revoked: None,
    };
    let answer = told(&one);
    keep(&admin, &caller, one).await?;
    Ok(Json(answer))
}

/// `DELETE /v1/endorsements/{id}`
pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Told(said): Told<Reason>,
) -> Result<Json<Revoked>, Problem> {
    let reason = order::reason(&said.reason)?;
    let unknown = || Problem::NotFound(format!("no endorsement `{id}`"));
    let number = RecordId::parse(&id).ok_or_else(unknown)?;
    let all = admin.gateway.store.endorsements().await?;
    let one = all.into_iter().find(|one| one.id == number).ok_or_else(unknown)?;
    let known = admin.directory().find(&one.agent);
    let target = known.as_deref().map_or(Target::Gateway, |known| Target::Agent(&one.agent, known));
    // Whoever may stop an agent may take from it what it was let.
    let decision = match caller.asks(&admin, PersonAction::Suspend, target).outcome {
        crate::decide::Outcome::Allow => caller.asks(&admin, PersonAction::Suspend, target),
        _ => caller.may(&admin, PersonAction::Endorse, target, reason).await?,
    };
    // Out of force first, whatever the disk does.
    admin.gateway.endorsed.rcu(|now| Endorsed::clone(now).without(number));
    let entry = caller.entry(&admin, PersonAction::Endorse, target, reason, &decision);
    let entry = entry.ok_or_else(|| Problem::Unavailable("the order cannot be recorded".to_owned()))?;
    let entry = entry.also("what", "revoke").also("endorsement", &id);
    let record = entry.id().to_string();
    let forgotten = |error: &dyn std::fmt::Display| {
        Problem::Unavailable(format!("endorsement {id} is out of force, but not for good: {error}"))
    };
    let appended = admin.evidence().ledger.append(entry, Durability::Synced).await;
    appended.map_err(|error| forgotten(&error))?;
    let kept = admin.gateway.store.revoke_endorsement(number, giver(&caller)?, reason.to_owned()).await;
    let changed = kept.map_err(|error| forgotten(&error))? == Changed::Now;
    Ok(Json(Revoked { id, changed, record }))
}

/// For how long something is remembered.
pub(super) fn time(text: &str) -> Result<Duration, Problem> {
    let time = units::duration(text).filter(|time| !time.is_zero() && *time <= TIME_MAX);
    time.ok_or_else(|| Problem::Invalid(format!("`{text}` must be a time such as 30d, at most 365d")))
}

fn ceiling(consequence: u8) -> Result<(), Problem> {
    if consequence <= CONSEQUENCE_MAX {
        return Ok(());
    }
    let text = format!("nothing is remembered for calls of a consequence above {CONSEQUENCE_MAX}");
    Err(Problem::Invalid(text))
}

/// Only a person remembers, and takes back what people remembered.
fn giver(caller: &Caller) -> Result<String, Problem> {
    let person = caller.person().map(|(person, _)| person.id.to_string());
    person.ok_or_else(|| {
        Problem::Forbidden("only a person endorses, with a certificate or a login of their own".to_owned())
    })
}

fn canonical(sink: SinkKind, text: &str) -> Result<String, Problem> {
    let place = Place::of(sink, text).canonical();
    if place.ends_with(':') || text.len() > DESTINATION_BYTES_MAX || text.contains('*') {
        let most = DESTINATION_BYTES_MAX;
        return Err(Problem::Invalid(format!(
            "`destination` must be exactly one address, host or account, of at most {most} bytes"
        )));
    }
    Ok(place)
}

/// What of the text that is approved is read here.
#[derive(Deserialize)]
struct Approved {
    destinations: Vec<(String, String)>,
}

/// What is remembered with the approval of a held call: each of its destinations, for what is internal, for its agent
/// and its kinds of sinks, and for calls that are no graver.
pub(super) async fn of_hold(
    admin: &Admin,
    caller: &Caller,
    (known, hold): (&Known, &Hold),
    time: Duration,
    reason: &str,
) -> Result<Vec<holds::Endorsement>, Problem> {
    ceiling(hold.about.consequence)?;
    caller.may(admin, PersonAction::Endorse, Target::Hold(known, hold), reason).await?;
    let text = admin.gate().text(hold).await?;
    let approved: Option<Approved> = text.and_then(|text| serde_json::from_str(&text).ok());
    let to = approved.map(|approved| approved.destinations).unwrap_or_default();
    if to.is_empty() || to.len() > DESTINATIONS_MAX {
        let text = format!(
            "the call has none, or more than {DESTINATIONS_MAX}, destinations: nothing can be remembered"
        );
        return Err(Problem::Conflict(text));
    }
    let (now, by) = (SystemTime::now(), giver(caller)?);
    let mut all = Vec::new();
    for (sink, text) in to {
        let gone = || Problem::Conflict(format!("`{sink}` is no kind of sink"));
        let kind = SinkKind::parse(&sink).ok_or_else(gone)?;
        all.push(holds::Endorsement {
            id: RecordId::new(),
            agent: hold.about.agent.clone(),
            upstream: hold.about.upstream.clone(),
            tool: hold.about.tool.clone(),
            sink: kind.as_str().to_owned(),
            destination: canonical(kind, &text)?,
            confidentiality: Confidentiality::Internal,
            consequence_max: hold.about.consequence,
            rule: hold.about.rule.clone(),
            hold: Some(hold.id),
            by: by.clone(),
            reason: reason.to_owned(),
            at: now,
            until: now + time,
            revoked: None,
        });
    }
    Ok(all)
}

/// Remembers: in the audit first, then in the store, then in force.
pub(super) async fn keep(admin: &Admin, caller: &Caller, one: holds::Endorsement) -> Result<(), Problem> {
    let now = SystemTime::now();
    let kept = admin.gateway.store.endorsements().await?;
    if kept.iter().filter(|one| state(one, now) == IN_FORCE).count() >= HOLDS_LISTED_MAX {
        let text = format!("{HOLDS_LISTED_MAX} endorsements are in force: take back those that nobody needs");
        return Err(Problem::Conflict(text));
    }
    let entry = recorded(admin, caller, &one);
    let appended = admin.evidence().ledger.append(entry, Durability::Synced).await;
    appended.map_err(|error| Problem::Unavailable(format!("nothing is remembered: the audit: {error}")))?;
    admin.gateway.store.endorse(one.clone()).await?;
    admin.gateway.endorsed.rcu(|now| Endorsed::clone(now).with(&one));
    Ok(())
}

fn recorded(admin: &Admin, caller: &Caller, one: &holds::Endorsement) -> Entry {
    let mut members = crate::json::Members::default();
    members.text("what", "endorse");
    members.object("agent", |members| members.text("id", one.agent.as_str()));
    members.object("by", |members| caller.describe(members));
    members.text("sink", &one.sink);
    // The destination itself is the operator's to list; the audit has the pseudonym by which calls name it.
    members.text("destination", &admin.evidence().pseudonyms.pseudonym(one.destination.as_bytes()));
    members.text("confidentiality", one.confidentiality.as_str());
    members.number("consequence_max", one.consequence_max);
    if let Some(hold) = one.hold {
        members.plain("hold", hold);
        members.text("rule", &one.rule);
    }
    members.text("reason", &one.reason);
    members.text("until", &moment(one.until));
    Entry::of(one.id, Kind::Endorsement, None, members)
}

const IN_FORCE: &str = "in-force";

fn state(one: &holds::Endorsement, now: SystemTime) -> &'static str {
    match &one.revoked {
        Some(_) => "revoked",
        None if now < one.until => IN_FORCE,
        None => "expired",
    }
}

fn told(one: &holds::Endorsement) -> Endorsement {
    Endorsement {
        id: one.id.to_string(),
        agent: one.agent.to_string(),
        sink: one.sink.clone(),
        destination: one.destination.clone(),
        confidentiality: one.confidentiality.as_str().to_owned(),
        consequence_max: one.consequence_max,
        rule: one.rule.clone(),
        hold: one.hold.map(|hold| hold.to_string()),
        by: one.by.clone(),
        reason: one.reason.clone(),
        at: moment(one.at),
        until: moment(one.until),
        state: state(one, SystemTime::now()),
        revoked_by: one.revoked.as_ref().map(|revoked| revoked.by.clone()),
        revoked_reason: one.revoked.as_ref().map(|revoked| revoked.reason.clone()),
    }
}
