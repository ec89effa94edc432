//! The index of the audit's records: where each lies and what it can be found by. The audit stays the truth.

use std::time::SystemTime;

use super::{Answer, Place};
use crate::call::RecordId;

/// The most records in one page.
pub const PAGE_RECORDS_MAX: usize = 1000;
/// The records in a page when nobody says how many.
pub const PAGE_RECORDS_USUAL: usize = 100;
/// The most records that one story tells.
pub const STORY_RECORDS_MAX: usize = 1000;

/// Where the audit's records lie and what they can be found by. It may be emptied at any time and filled again.
pub trait Records: Send + Sync {
    /// How far the audit is indexed; `None` when nothing is, or nothing that can be used.
    fn place(&self) -> Answer<'_, Option<Place>>;

    /// Adds rows, in the log's order, and moves the place behind them, all or nothing. Records up to the last one that is
    /// there stay as they are.
    fn add(&self, rows: Vec<Row>, place: Place) -> Answer<'_, ()>;

    /// Drops rows of records before this one, whose segments are no longer here; says how many. One call drops a
    /// bounded number, so it is repeated until it drops none.
    fn forget(&self, before: u64) -> Answer<'_, u64>;

    /// Drops everything.
    fn clear(&self) -> Answer<'_, ()>;

    /// The records that a filter lets through, the newest first. A page may have fewer than were asked for and still be
    /// followed by another: looking for what is rare takes bounded work, too.
    fn page(&self, filter: Filter) -> Answer<'_, Page>;

    /// The record of that id.
    fn record(&self, id: RecordId) -> Answer<'_, Option<Row>>;

    /// Everything about one call or one trace, in the log's order; at most [`STORY_RECORDS_MAX`].
    fn related(&self, subject: Subject) -> Answer<'_, Vec<Row>>;

    /// Closes the database; nothing may be asked of it afterwards.
    fn close(&self) -> Answer<'_, ()>;
}

/// What a story is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The call that this record belongs to: its own, or the one that it closes, or a hold's.
    Call(RecordId),
    /// Everything of a trace.
    Trace([u8; 16]),
}

/// What the index keeps of one record. A text is empty where the record does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The record's own id.
    pub id: RecordId,
    /// Its number in the log.
    pub seq: u64,
    /// The first record of its segment.
    pub segment: u64,
    /// Where its line begins in the segment, in bytes.
    pub offset: u64,
    /// When it was written.
    pub at: SystemTime,
    /// Its type: `intent`, `outcome`, `refused` and so on.
    pub kind: String,
    /// The record of the call that it belongs to: for an outcome its intent, else itself.
    pub call: RecordId,
    /// The agent's id.
    pub agent: String,
    /// Who answers for the agent in business.
    pub owner: String,
    /// The team that owns the agent.
    pub team: String,
    /// The upstream.
    pub upstream: String,
    /// The tool or operation.
    pub tool: String,
    /// `read`, `write` or `external`.
    pub class: String,
    /// What was decided (`allowed`, `denied`, `held` and so on), or how the call ended (`executed` and so on).
    pub outcome: String,
    /// What would have become of a call that shadow let pass: `held`, `denied` or `limited`.
    pub would_be: String,
    /// Why.
    pub reason: String,
    /// The rule that decided; where shadow let the call pass, the one that would have stopped it.
    pub rule: String,
    /// The trace.
    pub trace: Option<[u8; 16]>,
    /// The run.
    pub run: String,
    /// The hold.
    pub hold: String,
    /// The emergency lifts that it is about, or that decided the call: their ids with blanks between.
    pub lifts: String,
}

/// Which records are wanted. What is `None` lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this agent.
    pub agent: Option<String>,
    /// Of this upstream.
    pub upstream: Option<String>,
    /// Of this tool or operation.
    pub tool: Option<String>,
    /// Decided so, or ended so.
    pub outcome: Option<String>,
    /// Let pass by shadow.
    pub would_be: Option<Shadowed>,
    /// About this emergency lift, or decided by it.
    pub lift: Option<RecordId>,
    /// Of this trace.
    pub trace: Option<[u8; 16]>,
    /// Written at this moment or later.
    pub from: Option<SystemTime>,
    /// Written before this moment.
    pub to: Option<SystemTime>,
    /// Only records before this number: the cursor of the page before.
    pub cursor: Option<u64>,
    /// How many; [`PAGE_RECORDS_USUAL`] when not said, and never more than [`PAGE_RECORDS_MAX`].
    pub limit: Option<usize>,
}

/// What would have become of calls that shadow let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shadowed {
    /// Anything but passing.
    Any,
    /// This: `held`, `denied` or `limited`.
    As(String),
}

impl Shadowed {
    /// Whether a record says so, where it says this.
    pub fn is(&self, would_be: &str) -> bool {
        match self {
            Shadowed::Any => !would_be.is_empty(),
            Shadowed::As(wanted) => wanted == would_be,
        }
    }

    /// The word; empty for anything.
    pub fn word(&self) -> &str {
        match self {
            Shadowed::Any => "",
            Shadowed::As(wanted) => wanted,
        }
    }
}

/// Some records, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub rows: Vec<Row>,
    /// Where the next page begins; none when this is the last.
    pub next: Option<u64>,
}
