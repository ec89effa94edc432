//! `/v1/holds`: calls that wait for people, the very text that is approved, and what people say of it.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::agents::moment;
use super::body::{Asked, Told};
use super::caller::{Caller, Target};
use super::endorsements;
use super::order;
use super::problem::Problem;
use crate::call::{Person, PersonAction, RecordId, hex, unhex};
use crate::decide::Outcome;
use crate::identify::directory::Known;
use crate::store::holds::{self, HoldState, Says, Voted, Wanted};
use crate::store::standing::{
    STANDING_CONSEQUENCE_MAX, STANDING_TIME_MAX, STANDING_TIMES_MAX, StandingTerms,
};
use crate::units;

/// From which consequence on an approval needs a reason.
pub(super) const REASON_FROM: u8 = 4;

/// Which holds are wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// In this state, or in several with commas between them: `pending`, `approved`, `denied`, `expired`, `withdrawn`,
    /// `releasing`, `executed`, `failed`, `indeterminate`.
    state: Option<String>,
}

/// What a person said.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Vote {
    /// Who: a SPIFFE ID.
    pub by: String,
    /// Their e-mail address.
    pub email: String,
    /// Their roles at that time.
    pub roles: Vec<String>,
    /// `approve` or `deny`.
    pub says: &'static str,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
}

/// A held call.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Hold {
    /// Its id.
    pub id: String,
    /// `pending`, `approved`, `denied`, `expired`, `withdrawn`, `releasing`, `executed`, `failed` or `indeterminate`.
    pub state: &'static str,
    /// SHA-256 of the text that is approved, `sha256:` and hexadecimal.
    pub digest: String,
    /// Whose call it is.
    pub agent: String,
    /// Who answers for the agent in business.
    pub owner: String,
    /// The agent's team.
    pub team: String,
    /// The orchestrator's task; empty when there is none.
    pub task: String,
    /// The run that it was held in.
    pub run: String,
    /// The person or system on whose behalf it is made; empty when nobody was named.
    pub on_behalf_of: String,
    /// The upstream.
    pub upstream: String,
    /// The tool or operation.
    pub tool: String,
    /// `read`, `write` or `external`.
    pub class: &'static str,
    /// 0 to 4.
    pub consequence: u8,
    /// The rule that held it.
    pub rule: String,
    /// Why it is held.
    pub reason: String,
    /// How many people must approve.
    pub quorum: u32,
    /// The roles that must be among theirs.
    pub approvers: Vec<String>,
    /// When it was opened, RFC 3339.
    pub opened: String,
    /// When its time is over.
    pub expires: String,
    /// When it was escalated; none while it was not.
    pub escalated: Option<String>,
    /// When it changed last.
    pub changed: String,
    /// What people said, in order.
    pub votes: Vec<Vote>,
    /// The record of the call that executed it.
    pub record: Option<String>,
    /// What came of it.
    pub detail: String,
    /// The standing approval that it is executed by, if people let their approval stand.
    pub standing: Option<String>,
}

/// Every hold that the caller may see.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Holds {
    /// The oldest first while they are open, else the newest first; at most 1000.
    pub holds: Vec<Hold>,
}

/// One held call, and exactly what is approved.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// The hold.
    pub hold: Hold,
    /// The text whose SHA-256 is the digest: JSON with everything that would be sent. It is erased when the hold ends.
    pub text: Option<String>,
}

/// What is said of a hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// The digest of what was seen; required, so that nobody decides what they have not seen.
    pub digest: String,
    /// Why: required for a denial, and for an approval of consequence 4.
    #[serde(default)]
    pub reason: String,
    /// For how long the call's destinations are remembered for its agent, as in `30d`: only by whoever completes an
    /// approval, and never for what is secret.
    pub remember: Option<String>,
    /// That the approval stands for more than one execution of this very call: only by whoever completes an approval, and
    /// never for consequence 4.
    pub standing: Option<StandingWish>,
}

/// For how long, and how often, exactly this call may be executed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandingWish {
    /// For how long, as in `30m`; at most 24h.
    #[serde(rename = "for")]
    pub time: String,
    /// How often, the first time among them; at most 100.
    pub times: u32,
}

/// `GET /v1/holds`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Asked(which): Asked<Which>,
) -> Result<Json<Holds>, Problem> {
    let mut states = Vec::new();
    for word in which.state.iter().flat_map(|words| words.split(',')) {
        let unknown = || Problem::Invalid(format!("`{word}` is no state of a hold"));
        states.push(HoldState::parse(word.trim()).ok_or_else(unknown)?);
    }
    let holds = seen(&admin, &caller, Wanted { states, agent: None }).await?;
    Ok(Json(Holds { holds: holds.iter().map(told).collect() }))
}

/// The wanted holds that the caller may see.
pub(super) async fn seen(
    admin: &Admin,
    caller: &Caller,
    wanted: Wanted,
) -> Result<Vec<holds::Hold>, Problem> {
    let mut holds = admin.gate().list(wanted).await?;
    holds.retain(|hold| may_see(admin, caller, hold));
    Ok(holds)
}

/// `GET /v1/holds/{id}`
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Problem> {
    let hold = find(&admin, &caller, &id).await?;
    let text = admin.gate().text(&hold).await?;
    Ok(Json(Shown { hold: told(&hold), text }))
}

/// `POST /v1/holds/{id}/approve`
pub(super) async fn approve(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Told(say): Told<Say>,
) -> Result<Json<Hold>, Problem> {
    vote(&admin, &caller, &id, Says::Approve, &say).await.map(|hold| Json(told(&hold)))
}

/// `POST /v1/holds/{id}/deny`
pub(super) async fn deny(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Told(say): Told<Say>,
) -> Result<Json<Hold>, Problem> {
    vote(&admin, &caller, &id, Says::Deny, &say).await.map(|hold| Json(told(&hold)))
}

/// Counts what a person says, if they may say it; the hold as it is then.
pub(super) async fn vote(
    admin: &Admin,
    caller: &Caller,
    id: &str,
    says: Says,
    say: &Say,
) -> Result<holds::Hold, Problem> {
    let remember = match (&say.remember, says) {
        (None, _) => None,
        (Some(_), Says::Deny) => {
            return Err(Problem::Invalid("`remember` belongs to an approval".to_owned()));
        }
        (Some(time), Says::Approve) => Some(endorsements::time(time)?),
    };
    let hold = find(admin, caller, id).await?;
    let standing = standing(say, says, &hold)?;
    let digest = say.digest.strip_prefix("sha256:").unwrap_or(&say.digest);
    let invalid = || Problem::Invalid("`digest` must be `sha256:` and 64 hexadecimal digits".to_owned());
    let digest: [u8; 32] = unhex(digest).ok_or_else(invalid)?;
    let reason = match says {
        Says::Deny => order::reason(&say.reason)?,
        Says::Approve if hold.about.consequence >= REASON_FROM => order::reason(&say.reason)?,
        Says::Approve => say.reason.trim(),
    };
    let known = known(admin, &hold)?;
    let target = Target::Hold(&known, &hold);
    // Refused for whoever is at the machine's own socket, whatever the policies say.
    caller.may(admin, PersonAction::Approve, target, reason).await?;
    let (person, proof) = caller.person().ok_or_else(|| {
        Problem::Forbidden("only a person decides, with a certificate or a login of their own".to_owned())
    })?;
    if acts_for(person, &hold.about.on_behalf_of) {
        return Err(Problem::Forbidden("nobody decides a call that is made on their own behalf".to_owned()));
    }
    let remembered = match remember {
        Some(time) => endorsements::of_hold(admin, caller, (&known, &hold), time, reason).await?,
        None => Vec::new(),
    };
    let vote = holds::Vote {
        by: person.id.to_string(),
        email: person.email.to_string(),
        roles: person.roles.iter().map(|role| role.to_string()).collect(),
        says,
        reason: reason.to_owned(),
        digest,
        evidence: proof.evidence(),
        at: SystemTime::now(),
    };
    let voted = match standing {
        Some(terms) => admin.gate().stand(hold.id, vote, terms).await?,
        None => admin.gate().vote(hold.id, vote).await?,
    };
    match voted {
        Voted::Counted(hold) => {
            if hold.state == HoldState::Approved {
                for one in remembered {
                    // The approval stands, whatever becomes of what is remembered beside it.
                    endorsements::keep(admin, caller, one).await?;
                }
            }
            Ok(hold)
        }
        Voted::Digest(hold) => Err(Problem::Conflict(format!(
            "the digest is not that of hold {}, which is sha256:{}: look at it again",
            hold.id,
            hex(&hold.digest)
        ))),
        Voted::Again(hold) => Err(Problem::Conflict(format!("you have voted on hold {} before", hold.id))),
        Voted::Over(hold) => {
            let state = if hold.state == HoldState::Pending { HoldState::Expired } else { hold.state };
            Err(Problem::Conflict(format!("hold {} is {} already", hold.id, state.as_str())))
        }
        Voted::Unknown => Err(unknown(id)),
    }
}

/// Whether a person could decide a hold that waits; why not, as they read it.
pub(super) fn may_decide(admin: &Admin, caller: &Caller, hold: &holds::Hold) -> Result<(), String> {
    let Some((person, _)) = caller.person() else {
        return Err("Only a person decides, with a certificate of their own.".to_owned());
    };
    if let Some(vote) = hold.votes.iter().find(|vote| vote.by == person.id.as_str()) {
        return Err(format!("You have voted already: you said {}.", vote.says.as_str()));
    }
    if acts_for(person, &hold.about.on_behalf_of) {
        return Err("The call is made on your own behalf: somebody else decides it.".to_owned());
    }
    let known = known(admin, hold).map_err(|problem| problem.detail())?;
    let decision = caller.asks(admin, PersonAction::Approve, Target::Hold(&known, hold));
    match decision.outcome {
        Outcome::Allow => Ok(()),
        _ => Err(format!("Policy does not let you decide this call: {}.", decision.reason)),
    }
}

/// Whether a person could have the destinations of a held call remembered.
pub(super) fn may_remember(admin: &Admin, caller: &Caller, hold: &holds::Hold) -> bool {
    let Ok(known) = known(admin, hold) else { return false };
    hold.about.consequence <= endorsements::CONSEQUENCE_MAX
        && caller.asks(admin, PersonAction::Endorse, Target::Hold(&known, hold)).outcome == Outcome::Allow
}

/// For how long and how often the approval is to stand, if it is.
fn standing(say: &Say, says: Says, hold: &holds::Hold) -> Result<Option<StandingTerms>, Problem> {
    let Some(wish) = &say.standing else { return Ok(None) };
    if says == Says::Deny {
        return Err(Problem::Invalid("`standing` belongs to an approval".to_owned()));
    }
    if say.remember.is_some() {
        let text =
            "`remember` or `standing`: with the destinations remembered, the call may not be held again";
        return Err(Problem::Invalid(text.to_owned()));
    }
    let time = units::duration(&wish.time).filter(|time| !time.is_zero() && *time <= STANDING_TIME_MAX);
    let time = time.ok_or_else(|| {
        Problem::Invalid(format!("`standing.for`: `{}` must be a time such as 30m, at most 24h", wish.time))
    })?;
    if !(1..=STANDING_TIMES_MAX).contains(&wish.times) {
        return Err(Problem::Invalid(format!("`standing.times` must be 1 to {STANDING_TIMES_MAX}")));
    }
    if hold.about.consequence > STANDING_CONSEQUENCE_MAX {
        let text = format!("no approval of a call of a consequence above {STANDING_CONSEQUENCE_MAX} stands");
        return Err(Problem::Invalid(text));
    }
    Ok(Some(StandingTerms { time, times: wish.times }))
}

/// Whether a call that is made on behalf of somebody is made on behalf of this person.
pub(super) fn acts_for(person: &Person, on_behalf: &str) -> bool {
    !on_behalf.is_empty() && (person.id.as_str() == on_behalf || person.email.eq_ignore_ascii_case(on_behalf))
}

/// A hold that the caller may see. One that they may not see is not there.
pub(super) async fn find(admin: &Admin, caller: &Caller, id: &str) -> Result<holds::Hold, Problem> {
    let hold = match RecordId::parse(id) {
        Some(id) => admin.gate().show(id).await?,
        None => None,
    };
    hold.filter(|hold| may_see(admin, caller, hold)).ok_or_else(|| unknown(id))
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::NotFound(format!("no hold `{id}`"))
}

/// Whoever sees the agent sees what of it waits, and so does whoever may decide it.
pub(super) fn may_see(admin: &Admin, caller: &Caller, hold: &holds::Hold) -> bool {
    let Ok(known) = known(admin, hold) else { return caller.sees(admin, Target::Gateway) };
    let target = Target::Hold(&known, hold);
    [PersonAction::View, PersonAction::Approve]
        .into_iter()
        .any(|action| caller.asks(admin, action, target).outcome == Outcome::Allow)
}

pub(super) fn known(admin: &Admin, hold: &holds::Hold) -> Result<Arc<Known>, Problem> {
    let gone = || Problem::Conflict(format!("{} is not in the registry any more", hold.about.agent));
    admin.directory().find(&hold.about.agent).ok_or_else(gone)
}

pub(super) fn told(hold: &holds::Hold) -> Hold {
    let about = &hold.about;
    Hold {
        id: hold.id.to_string(),
        state: hold.state.as_str(),
        digest: format!("sha256:{}", hex(&hold.digest)),
        agent: about.agent.to_string(),
        owner: about.owner.clone(),
        team: about.team.clone(),
        task: about.task.clone(),
        run: about.run.clone(),
        on_behalf_of: about.on_behalf_of.clone(),
        upstream: about.upstream.clone(),
        tool: about.tool.clone(),
        class: about.class.as_str(),
        consequence: about.consequence,
        rule: about.rule.clone(),
        reason: about.reason.clone(),
        quorum: hold.terms.quorum,
        approvers: hold.terms.approvers.clone(),
        opened: moment(hold.opened),
        expires: moment(hold.expires),
        escalated: hold.escalated.map(moment),
        changed: moment(hold.changed),
        votes: hold
            .votes
            .iter()
            .map(|vote| Vote {
                by: vote.by.clone(),
                email: vote.email.clone(),
                roles: vote.roles.clone(),
                says: vote.says.as_str(),
                reason: vote.reason.clone(),
                at: moment(vote.at),
            })
            .collect(),
        record: hold.record.map(|record| record.to_string()),
        detail: hold.detail.clone(),
        standing: hold.executes.map(|by| by.standing.to_string()),
    }
}
