//! Held calls in the store: what waits, who voted, what came of it, and what must still be told.
//!
//! Each change is one transaction: the hold, its vote, a row for whoever is notified and a row for the audit. Time is
//! the store's own, so that no two gateways disagree on whether a hold has expired.

use std::time::{Duration, SystemTime};

use super::resolve::Resolution;
use super::standing::Use;
use super::{Answer, Changed};
use crate::call::{AgentId, Class, Confidentiality, RecordId, hex};
use crate::json::Members;

/// The longest list of holds that is given at once.
pub const HOLDS_LISTED_MAX: usize = 1000;
/// The largest held call that is kept, in bytes after encryption.
pub const HELD_BYTES_MAX: usize = 8 << 20;
/// Rows for the audit that are taken at once.
pub const AUDIT_ROWS_MAX: usize = 64;
/// How long a hold that has ended is still found.
pub const ENDED_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Holds: `pending → approved | denied | expired | withdrawn`, and
/// `approved → releasing → executed | failed | indeterminate`; an approval that nobody used expires too.
pub trait Holds: Send + Sync {
    /// Joins the hold of exactly this call whose time is not over, or opens one.
    fn open_hold(&self, new: NewHold) -> Answer<'_, Opened>;

    /// One hold.
    fn hold(&self, id: RecordId) -> Answer<'_, Option<Hold>>;

    /// Holds, the oldest first while they are open and the newest first when they have ended; at most
    /// [`HOLDS_LISTED_MAX`].
    fn holds(&self, wanted: Wanted) -> Answer<'_, Vec<Hold>>;

    /// The encrypted call, as long as the hold has not ended.
    fn held_bytes(&self, id: RecordId) -> Answer<'_, Option<Vec<u8>>>;

    /// Keeps the sealed result of an execution until the hold's time is over.
    fn keep_result(&self, id: RecordId, bytes: Vec<u8>) -> Answer<'_, ()>;

    /// The sealed result of an execution.
    fn result(&self, id: RecordId) -> Answer<'_, Option<Vec<u8>>>;

    /// A person's vote. The last approval that was missing approves the hold, and one denial denies it.
    fn vote(&self, id: RecordId, vote: Vote) -> Answer<'_, Voted>;

    /// The agent itself takes its call back. Only what is pending or approved can be.
    fn withdraw(&self, id: RecordId, agent: AgentId) -> Answer<'_, Option<Hold>>;

    /// Takes an approved hold for execution, if its digest is this one, its time is not over and nobody was faster.
    /// `None` when that is not so.
    fn release(&self, id: RecordId, digest: [u8; 32], lease: Claim) -> Answer<'_, Option<Hold>>;

    /// Goes on with everything that this gateway executes.
    fn renew(&self, by: String, time: Duration) -> Answer<'_, ()>;

    /// Says what came of an execution, for whoever has its lease: `None` when it is not theirs any more.
    fn settle(&self, id: RecordId, end: End) -> Answer<'_, Option<Hold>>;

    /// Executions whose gateway is gone: their lease ran out.
    fn lapsed(&self) -> Answer<'_, Vec<Hold>>;

    /// Ends what ran out of time and says what should be escalated now and what expires soon, each once.
    fn expire(&self) -> Answer<'_, Swept>;

    /// How many holds are pending.
    fn pending(&self) -> Answer<'_, u64>;

    /// The first rows that the audit does not have yet, in their order; at most [`AUDIT_ROWS_MAX`].
    fn audit_rows(&self) -> Answer<'_, Vec<AuditRow>>;

    /// The audit has every row up to this one.
    fn audited(&self, place: i64) -> Answer<'_, ()>;

    /// The store's clock.
    fn clock(&self) -> Answer<'_, SystemTime>;
}

/// Where a hold stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldState {
    /// Waits for people.
    Pending,
    /// People approved it; it has not run.
    Approved,
    /// A person denied it.
    Denied,
    /// Its time is over.
    Expired,
    /// The agent took it back.
    Withdrawn,
    /// A gateway executes it.
    Releasing,
    /// It ran, and how it ended is on record.
    Executed,
    /// It did not run, or the upstream was not reached.
    Failed,
    /// It may have run: nobody knows.
    Indeterminate,
}

impl HoldState {
    /// Every state.
    pub const ALL: [HoldState; 9] = [
        HoldState::Pending,
        HoldState::Approved,
        HoldState::Denied,
        HoldState::Expired,
        HoldState::Withdrawn,
        HoldState::Releasing,
        HoldState::Executed,
        HoldState::Failed,
        HoldState::Indeterminate,
    ];

    /// The word in answers, records and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            HoldState::Pending => "pending",
            HoldState::Approved => "approved",
            HoldState::Denied => "denied",
            HoldState::Expired => "expired",
            HoldState::Withdrawn => "withdrawn",
            HoldState::Releasing => "releasing",
            HoldState::Executed => "executed",
            HoldState::Failed => "failed",
            HoldState::Indeterminate => "indeterminate",
        }
    }

    /// The state that a word names.
    pub fn parse(word: &str) -> Option<HoldState> {
        HoldState::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing changes any more.
    pub fn is_end(self) -> bool {
        !matches!(self, HoldState::Pending | HoldState::Approved | HoldState::Releasing)
    }
}

/// What a call is about, as people are told and as the audit keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The record of the call that opened it; `None` for one that a version before format 7 opened.
    pub call: Option<RecordId>,
    /// Whose call it is.
    pub agent: AgentId,
    /// Who answers for the agent in business.
    pub owner: String,
    /// The agent's team.
    pub team: String,
    /// The orchestrator's task; empty when there is none.
    pub task: String,
    /// The person or system on whose behalf it is made; empty when nobody was named.
    pub on_behalf_of: String,
    /// The upstream.
    pub upstream: String,
    /// The tool or operation.
    pub tool: String,
    /// The class of the call.
    pub class: Class,
    /// Its consequence, 0 to 4.
    pub consequence: u8,
    /// The rule that held it, by its public alias.
    pub rule: String,
    /// Why it is held, as an operator reads it.
    pub reason: String,
    /// The run at that time; it is judged afresh at release.
    pub run: String,
    /// The revision of the policies that held it.
    pub revision: String,
    /// Whether doing it twice is doing it once.
    pub idempotent: bool,
}

/// What people must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How many must approve.
    pub quorum: u32,
    /// The roles that must be among theirs, sorted.
    pub approvers: Vec<String>,
}

/// A call that is to be held.
#[derive(Clone, Debug)]
pub struct NewHold {
    /// The id that it gets if it is the first.
    pub id: RecordId,
    /// SHA-256 of the call.
    pub digest: [u8; 32],
    /// A digest of the call's `Idempotency-Key`, where it has one.
    pub idempotency: Option<[u8; 32]>,
    /// What it is about.
    pub about: About,
    /// What people must say.
    pub terms: Terms,
    /// How long it may wait.
    pub ttl: Duration,
    /// The encrypted call.
    pub bytes: Vec<u8>,
    /// How many holds of this agent may be pending.
    pub pending_max: u32,
}

/// What became of a call that was to be held.
#[derive(Clone, Debug, PartialEq)]
pub enum Opened {
    /// It waits now.
    New(Hold),
    /// The same call is held already, or was, and its time is not over.
    Joined(Hold),
    /// The agent has too many that wait.
    TooMany,
    /// The same `Idempotency-Key` came with another call.
    KeyReused,
}

/// A held call.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Its id, which is also that of the record that opened it.
    pub id: RecordId,
    /// Where it stands.
    pub state: HoldState,
    /// SHA-256 of the call.
    pub digest: [u8; 32],
    /// What it is about.
    pub about: About,
    /// What people must say.
    pub terms: Terms,
    /// When it was opened.
    pub opened: SystemTime,
    /// When its time is over.
    pub expires: SystemTime,
    /// When it was escalated.
    pub escalated: Option<SystemTime>,
    /// When its state changed last.
    pub changed: SystemTime,
    /// What people said, in order.
    pub votes: Vec<Vote>,
    /// The record of the call that executed it.
    pub record: Option<RecordId>,
    /// What came of it, as an operator reads it; empty while it is open.
    pub detail: String,
    /// The standing approval that it is executed by, if it is executed by one.
    pub executes: Option<Use>,
}

/// What a person says of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The person's verified id.
    pub by: String,
    /// Their e-mail address; empty when there is none.
    pub email: String,
    /// Their roles, sorted.
    pub roles: Vec<String>,
    /// What they say.
    pub says: Says,
    /// Why.
    pub reason: String,
    /// SHA-256 of what they saw.
    pub digest: [u8; 32],
    /// How they proved who they are: `mtls`, and the certificate's serial number.
    pub evidence: String,
    /// When; the store's time, whatever is put here.
    pub at: SystemTime,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It may run.
    Approve,
    /// It may not.
    Deny,
}

/// What became of a vote.
#[derive(Clone, Debug, PartialEq)]
pub enum Voted {
    /// It counts; the hold as it is now.
    Counted(Hold),
    /// The person saw another call.
    Digest(Hold),
    /// The person has voted before.
    Again(Hold),
    /// Nothing waits for votes: it was decided, or its time is over.
    Over(Hold),
    /// There is no such hold.
    Unknown,
}

/// Who executes, and for how long they may be silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The gateway, by an id of this run of it.
    pub by: String,
    /// For how long.
    pub time: Duration,
    /// The record of the call that executes it.
    pub record: RecordId,
}

/// What came of an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Executed, failed or indeterminate; approved again where doing it twice is doing it once and its gateway is gone.
    pub state: HoldState,
    /// Whose lease it was: the record that executed it.
    pub record: RecordId,
    /// What came of it, as an operator reads it.
    pub detail: String,
}

/// Which holds are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// In one of these states; empty for every state.
    pub states: Vec<HoldState>,
    /// Of this agent.
    pub agent: Option<AgentId>,
}

/// What ran out of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Swept {
    /// Holds that expired now.
    pub expired: Vec<Hold>,
    /// Holds that are to be escalated now.
    pub escalated: Vec<Hold>,
    /// Holds that have a quarter of their time left now.
    pub expiring: Vec<Hold>,
    /// In how long something else does.
    pub next: Option<Duration>,
}

/// A record that the audit must get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place among all rows.
    pub place: i64,
    /// The id of the record, by which a row that was written twice is known.
    pub id: RecordId,
    /// The type of the record: `held`, `vote` or `released`.
    pub kind: String,
    /// When it was made.
    pub at: SystemTime,
    /// The members of the record, JSON without the braces.
    pub members: Vec<u8>,
}

/// Something that happens to a hold, as the audit and whoever is notified see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment<'a> {
    /// It waits now.
    Opened,
    /// A person voted.
    Voted(&'a Vote),
    /// Nobody has decided, and half of its time is over.
    Escalated,
    /// Nobody has decided, and a quarter of its time is left.
    Expiring,
    /// It is executed from now on.
    Released,
    /// It came to an end, or back to being approved.
    Ended,
    /// A person said what came of it.
    Resolved(&'a Resolution),
}

// === impl Moment ===

impl Moment<'_> {
    /// The type of its record.
    pub fn kind(self) -> &'static str {
        match self {
            Moment::Voted(_) => "vote",
            Moment::Released => "released",
            Moment::Opened | Moment::Escalated | Moment::Expiring | Moment::Ended | Moment::Resolved(_) => {
                "held"
            }
        }
    }

    /// The word for it in records and events.
    pub fn word(self) -> &'static str {
        match self {
            Moment::Opened => "opened",
            Moment::Voted(_) => "voted",
            Moment::Escalated => "escalated",
            Moment::Expiring => "expiring",
            Moment::Released => "released",
            Moment::Ended => "ended",
            Moment::Resolved(_) => "resolved",
        }
    }

    /// The members of its record.
    pub fn members(self, hold: &Hold) -> Members {
        let (about, mut members) = (&hold.about, Members::default());
        members.text("what", self.word());
        members.plain("hold", hold.id);
        members.object("agent", |members| members.text("id", about.agent.as_str()));
        members.text("owner", &about.owner);
        members.text("team", &about.team);
        members.text("upstream", &about.upstream);
        members.text("tool", &about.tool);
        members.text("class", about.class.as_str());
        members.number("consequence", about.consequence);
        members.text("state", hold.state.as_str());
        members.plain("digest", format_args!("sha256:{}", hex(&hold.digest)));
        if let Some(by) = hold.executes {
            members.plain("standing", by.standing);
            members.number("use", by.number);
        }
        match self {
            Moment::Opened | Moment::Escalated | Moment::Expiring => {
                members.text("reason", &about.reason);
                members.text("rule", &about.rule);
                members.number("quorum", hold.terms.quorum);
                members.texts("approvers", hold.terms.approvers.iter().map(String::as_str));
                members.text("run", &about.run);
                members.text("revision", &about.revision);
                members.plain("expires", timestamp(hold.expires));
            }
            Moment::Voted(vote) => {
                members.text("vote", vote.says.as_str());
                members.object("by", |members| {
                    members.text("kind", "person");
                    members.text("id", &vote.by);
                    members.text("email", &vote.email);
                    members.texts("roles", vote.roles.iter().map(String::as_str));
                    members.text("evidence", &vote.evidence);
                });
                members.text("reason", &vote.reason);
                members.plain("seen", format_args!("sha256:{}", hex(&vote.digest)));
            }
            Moment::Resolved(said) => {
                members.text("found", said.found.as_str());
                members.object("by", |members| {
                    members.text("kind", "person");
                    members.text("id", &said.by);
                });
                members.text("reason", &said.reason);
            }
            Moment::Released | Moment::Ended => {
                if let Some(record) = hold.record {
                    members.plain("intent", record);
                }
                members.text("detail", &hold.detail);
                members.texts("approved_by", hold.approvals().map(|vote| vote.by.as_str()));
            }
        }
        members
    }

    /// What happened, for people who are told of it elsewhere. Nothing of the call's arguments is in it, nor of why it is
    /// held, since that may quote them.
    pub fn told(self, hold: &Hold) -> Members {
        let (about, mut members) = (&hold.about, Members::default());
        members.plain("hold", hold.id);
        members.text("state", hold.state.as_str());
        members.text("agent", about.agent.as_str());
        members.text("owner", &about.owner);
        members.text("team", &about.team);
        members.text("upstream", &about.upstream);
        // An agent may have made up the name of a tool.
        members.text("tool", &about.tool.chars().take(TOOL_CHARS_MAX).collect::<String>());
        members.text("class", about.class.as_str());
        members.number("consequence", about.consequence);
        members.text("rule", &about.rule);
        members.plain("digest", format_args!("sha256:{}", hex(&hold.digest)));
        members.plain("opened", timestamp(hold.opened));
        members.plain("expires", timestamp(hold.expires));
        members.number("quorum", hold.terms.quorum);
        members.texts("approvers", hold.terms.approvers.iter().map(String::as_str));
        members.texts("approved_by", hold.approvals().map(|vote| vote.by.as_str()));
        if let Moment::Voted(vote) = self {
            members.text("vote", vote.says.as_str());
            members.text("by", &vote.by);
        }
        members
    }
}

/// The longest name of a tool that people are told elsewhere.
const TOOL_CHARS_MAX: usize = 128;

fn timestamp(at: SystemTime) -> impl std::fmt::Display {
    crate::units::moment(at.into(), 6)
}

// === impl Says ===

impl Says {
    /// The word in records and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Says::Approve => "approve",
            Says::Deny => "deny",
        }
    }

    /// What a word says.
    pub fn parse(word: &str) -> Option<Says> {
        [Says::Approve, Says::Deny].into_iter().find(|says| says.as_str() == word)
    }
}

// === impl Hold ===

impl Hold {
    /// The votes that approve.
    pub fn approvals(&self) -> impl Iterator<Item = &Vote> {
        self.votes.iter().filter(|vote| vote.says == Says::Approve)
    }

    /// Whether what was voted is what the terms ask: enough people, and every role among theirs.
    pub fn is_carried(&self) -> bool {
        let roles = |role: &String| self.approvals().any(|vote| vote.roles.contains(role));
        self.approvals().count() >= self.terms.quorum.max(1) as usize
            && self.terms.approvers.iter().all(roles)
    }

    /// The state after one more vote.
    pub fn after(&self, vote: &Vote) -> HoldState {
        match vote.says {
            Says::Deny => HoldState::Denied,
            Says::Approve if self.is_carried() => HoldState::Approved,
            Says::Approve => HoldState::Pending,
        }
    }
}

/// What people give beside votes: endorsements of destinations.
pub trait Grants: Send + Sync {
    /// Remembers a destination.
    fn endorse(&self, endorsement: Endorsement) -> Answer<'_, ()>;

    /// Endorsements: those in force first, then the newest first; at most [`HOLDS_LISTED_MAX`].
    fn endorsements(&self) -> Answer<'_, Vec<Endorsement>>;

    /// Takes an endorsement back.
    fn revoke_endorsement(&self, id: RecordId, by: String, reason: String) -> Answer<'_, Changed>;
}

/// A destination that a person remembered, for one agent and one kind of sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// Its id.
    pub id: RecordId,
    /// The agent.
    pub agent: AgentId,
    /// The upstream of the call that it was made from; empty when it was made from none.
    pub upstream: String,
    /// The tool or operation of that call.
    pub tool: String,
    /// The kind of sink, by the catalogue's word.
    pub sink: String,
    /// The destination in its canonical form.
    pub destination: String,
    /// What is at most so confidential may go there.
    pub confidentiality: Confidentiality,
    /// The highest consequence that it is for.
    pub consequence_max: u8,
    /// The rule that held that call, by its public alias.
    pub rule: String,
    /// The hold that it was made from, if any.
    pub hold: Option<RecordId>,
    /// Who gave it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// Who took it back, why and when.
    pub revoked: Option<Revoked>,
}

/// Who took something back, why and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: SystemTime,
}
