//! Emergency lifts ("break-glass") in the store: who opened one, for what, until when, and who reviewed it afterwards.
//!
//! Each change is one transaction with its row for the audit. Time is the store's own.

use std::time::{Duration, SystemTime};

use super::holds::Revoked;
use super::{Answer, Who};
use crate::call::{AgentId, RecordId};
use crate::json::Members;

/// Lifts that may be open at one time.
pub const LIFTS_OPEN_MAX: usize = 16;
/// The longest list of lifts that is given at once.
pub const LIFTS_LISTED_MAX: usize = 1000;
/// How long after its end a lift that nobody has reviewed is told of once more.
pub const UNREVIEWED_AFTER: Duration = Duration::from_secs(12 * 60 * 60);
/// How long a lift that was reviewed is still listed.
pub const REVIEWED_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Emergency lifts. One is open until its time is over or somebody closes it; then a review is owed.
pub trait Lifts: Send + Sync {
    /// Opens one from now on, unless its person still has one that nobody reviewed.
    fn open_lift(&self, new: NewLift) -> Answer<'_, Lifted>;

    /// Every lift: those that are open or not reviewed first, then the newest first; at most [`LIFTS_LISTED_MAX`].
    fn lifts(&self) -> Answer<'_, Vec<Lift>>;

    /// Ends one before its time. `None` when there is none of this id that is open.
    fn close_lift(&self, id: RecordId, by: String, reason: String) -> Answer<'_, Option<Lift>>;

    /// Ends those whose time is over, and notes those that nobody has reviewed for [`UNREVIEWED_AFTER`].
    fn end_lifts(&self) -> Answer<'_, Ended>;

    /// Says that somebody other than who opened it has looked at what was done under a lift that ended.
    fn review_lift(&self, id: RecordId, by: String, reason: String) -> Answer<'_, Reviewed>;
}

/// Which calls a lift is for. Of these agents or groups, where any are named, and to these upstreams, where any are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Agents by id.
    pub agents: Vec<AgentId>,
    /// Groups of the registry.
    pub groups: Vec<String>,
    /// Upstreams by name.
    pub upstreams: Vec<String>,
}

/// A lift that is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLift {
    /// Its id, which is also that of the record that opens it.
    pub id: RecordId,
    /// The policies that it lifts, by `@id`, sorted.
    pub rules: Vec<String>,
    /// For which calls.
    pub scope: Scope,
    /// Who opens it: a person's id.
    pub by: String,
    /// How they came: `mtls` and the certificate's serial number, or the machine's own socket and its user.
    pub evidence: String,
    /// Why.
    pub reason: String,
    /// For how long.
    pub time: Duration,
}

/// An emergency lift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lift {
    /// Its id.
    pub id: RecordId,
    /// The policies that it lifts, by `@id`, sorted.
    pub rules: Vec<String>,
    /// For which calls.
    pub scope: Scope,
    /// Who opened it.
    pub by: String,
    /// How they came.
    pub evidence: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// Who closed it before its time, why and when.
    pub closed: Option<Revoked>,
    /// Who reviewed it, what they say and when.
    pub reviewed: Option<Revoked>,
}

/// What became of a lift that was to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// It is open.
    Open(Box<Lift>),
    /// The same person has one that is open, or that nobody has reviewed: this one.
    Owed(RecordId),
    /// There are too many.
    TooMany,
}

/// What became of a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reviewed {
    /// It is reviewed.
    Now(Lift),
    /// It was reviewed before.
    Before(Lift),
    /// It has not ended.
    Open,
    /// Nobody reviews what they opened themselves.
    Own,
    /// There is no such lift.
    Unknown,
}

/// What became of lifts by the clock alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Their time is over.
    pub expired: Vec<Lift>,
    /// They ended long ago, and nobody has reviewed them: told once.
    pub unreviewed: Vec<Lift>,
}

/// Something that happens to a lift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiftMoment {
    /// It is open.
    Opened,
    /// Somebody closed it.
    Closed,
    /// Its time is over.
    Expired,
    /// It ended long ago, and nobody has reviewed it.
    Unreviewed,
    /// Somebody reviewed it.
    Reviewed,
}

impl LiftMoment {
    /// The word in records and events.
    pub fn as_str(self) -> &'static str {
        match self {
            LiftMoment::Opened => "opened",
            LiftMoment::Closed => "closed",
            LiftMoment::Expired => "expired",
            LiftMoment::Unreviewed => "unreviewed",
            LiftMoment::Reviewed => "reviewed",
        }
    }
}

impl Lift {
    /// Whether it is in force at a moment.
    pub fn is_open(&self, now: SystemTime) -> bool {
        self.closed.is_none() && self.at <= now && now < self.until
    }

    /// The members of the record of something that happens to it.
    pub fn members(&self, moment: LiftMoment) -> Members {
        let mut members = Members::default();
        members.text("what", moment.as_str());
        members.plain("lift", self.id);
        members.texts("rules", self.rules.iter().map(String::as_str));
        members.object("scope", |members| {
            members.texts("agents", self.scope.agents.iter().map(AgentId::as_str));
            members.texts("groups", self.scope.groups.iter().map(String::as_str));
            members.texts("upstreams", self.scope.upstreams.iter().map(String::as_str));
        });
        let done = match moment {
            LiftMoment::Closed => self.closed.as_ref(),
            LiftMoment::Reviewed => self.reviewed.as_ref(),
            LiftMoment::Opened | LiftMoment::Expired | LiftMoment::Unreviewed => None,
        };
        let by = Who::parse(done.map_or(&*self.by, |done| &done.by));
        members.object("by", |members| {
            members.text("kind", by.kind());
            members.text("id", by.as_str());
            if done.is_none() {
                members.text("evidence", &self.evidence);
            }
        });
        if done.is_some() {
            members.text("opened_by", &self.by);
        }
        members.text("reason", done.map_or(&*self.reason, |done| &done.reason));
        members.plain("until", timestamp(self.until));
        members
    }

    /// What happened, for people who are told of it elsewhere. Why is not in it, since that may quote anything.
    pub fn told(&self, moment: LiftMoment) -> Members {
        let mut members = Members::default();
        members.plain("lift", self.id);
        let state = match moment {
            LiftMoment::Opened => "open",
            LiftMoment::Closed | LiftMoment::Expired | LiftMoment::Unreviewed => "ended",
            LiftMoment::Reviewed => "reviewed",
        };
        members.text("state", state);
        members.texts("rules", self.rules.iter().map(String::as_str));
        members.texts("agents", self.scope.agents.iter().map(AgentId::as_str));
        members.texts("groups", self.scope.groups.iter().map(String::as_str));
        members.texts("upstreams", self.scope.upstreams.iter().map(String::as_str));
        members.text("opened_by", &self.by);
        members.plain("opened", timestamp(self.at));
        members.plain("until", timestamp(self.until));
        for (done, by, at) in
            [(&self.closed, "closed_by", "closed"), (&self.reviewed, "reviewed_by", "reviewed")]
        {
            if let Some(done) = done {
                members.text(by, &done.by);
                members.plain(at, timestamp(done.at));
            }
        }
        members
    }
}

fn timestamp(at: SystemTime) -> impl std::fmt::Display {
    crate::units::moment(at.into(), 6)
}
