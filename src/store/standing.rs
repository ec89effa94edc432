//! Standing approvals in the store: people approved one call for some time and so many executions.
//!
//! One is for exactly the call that they saw, by its digest. Each execution is a hold of its own that is approved from its
//! beginning, judged again at its release, and counted in the same transaction, before anything is sent.

use std::time::{Duration, SystemTime};

use super::holds::{Hold, Revoked, Vote, Voted};
use super::{Answer, Who};
use crate::call::{AgentId, RecordId, hex};
use crate::json::Members;

/// The longest that an approval stands.
pub const STANDING_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The most executions that it stands for.
pub const STANDING_TIMES_MAX: u32 = 100;
/// The gravest call that an approval ever stands for.
pub const STANDING_CONSEQUENCE_MAX: u8 = 3;
/// The state of one that stands.
pub const IN_FORCE: &str = "in-force";
/// The longest list of standing approvals that is given at once.
pub const STANDING_LISTED_MAX: usize = 1000;

/// Standing approvals.
pub trait Standings: Send + Sync {
    /// A person's approval that stands, if it is the one that completes the hold's; else it is a vote like any other.
    fn stand(&self, id: RecordId, vote: Vote, terms: StandingTerms) -> Answer<'_, Voted>;

    /// Standing approvals: those in force first, then the newest first; at most [`STANDING_LISTED_MAX`].
    fn standings(&self) -> Answer<'_, Vec<Standing>>;

    /// Takes one back, with every hold that it approved and that has not run: those are given. `None` when there is none
    /// of this id in force.
    fn revoke_standing(
        &self,
        id: RecordId,
        by: String,
        reason: String,
    ) -> Answer<'_, Option<(Standing, Vec<Hold>)>>;
}

/// For how long, and for how many executions, the first one among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingTerms {
    /// For how long; at most [`STANDING_TIME_MAX`].
    pub time: Duration,
    /// For how many executions; at most [`STANDING_TIMES_MAX`].
    pub times: u32,
}

/// A standing approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub id: RecordId,
    /// The hold whose approval it is.
    pub hold: RecordId,
    /// SHA-256 of the call.
    pub digest: [u8; 32],
    /// Whose call it is.
    pub agent: AgentId,
    /// The upstream.
    pub upstream: String,
    /// The tool or operation.
    pub tool: String,
    /// The gravest that the call may have become.
    pub consequence_max: u8,
    /// Everybody who approved, in order.
    pub people: Vec<String>,
    /// Who let it stand: the last of them.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// For how many executions.
    pub times: u32,
    /// How many there were.
    pub used: u32,
    /// Who took it back, why and when.
    pub revoked: Option<Revoked>,
}

/// The standing approval that a hold is executed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which one.
    pub standing: RecordId,
    /// Which use it is, from 1; 0 until it is released.
    pub number: u32,
}

impl Standing {
    /// `in-force`, `used-up`, `expired` or `revoked`.
    pub fn state(&self, now: SystemTime) -> &'static str {
        match &self.revoked {
            Some(_) => "revoked",
            None if self.used >= self.times => "used-up",
            None if now < self.until => IN_FORCE,
            None => "expired",
        }
    }

    /// The members of the record that it stands from now on, or that it was taken back.
    pub fn members(&self) -> Members {
        let mut members = Members::default();
        members.text("what", if self.revoked.is_some() { "standing-revoked" } else { "standing" });
        members.plain("standing", self.id);
        members.plain("hold", self.hold);
        members.object("agent", |members| members.text("id", self.agent.as_str()));
        members.text("upstream", &self.upstream);
        members.text("tool", &self.tool);
        members.plain("digest", format_args!("sha256:{}", hex(&self.digest)));
        let (by, reason) = match &self.revoked {
            Some(revoked) => (&revoked.by, &revoked.reason),
            None => (&self.by, &self.reason),
        };
        let by = Who::parse(by);
        members.object("by", |members| {
            members.text("kind", by.kind());
            members.text("id", by.as_str());
        });
        members.text("reason", reason);
        members.texts("approved_by", self.people.iter().map(String::as_str));
        members.number("times", self.times);
        members.number("used", self.used);
        members.plain("until", crate::units::moment(self.until.into(), 6));
        members
    }
}
