//! The store: what must outlive the process beside the audit, behind one trait that more than one database can serve.
//!
//! No call but a held one waits for the store. What calls need of it (who is suspended, what runs have read) is kept in memory,
//! and read from here when the gateway starts. The index of the audit's records is a trait of its own, [`Records`],
//! because it can be thrown away and made again.

pub mod holds;
pub mod inbox;
pub mod lifts;
pub mod notifications;
mod records;
pub mod resolve;
pub mod sqlite;
pub mod standing;
pub mod tasks;

pub use records::{
    Filter, PAGE_RECORDS_MAX, PAGE_RECORDS_USUAL, Page, Records, Row, STORY_RECORDS_MAX, Shadowed, Subject,
};

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::SystemTime;

use crate::call::AgentId;

/// Agents that may be suspended at one time; a request for more is refused.
pub const SUSPENSIONS_MAX: usize = 100_000;
/// Runs that may be frozen at one time; beyond it the agent is frozen as a whole, in memory alone.
pub const FROZEN_MAX: usize = 100_000;
/// The longest reason that is kept, in bytes of UTF-8.
pub const REASON_BYTES_MAX: usize = 2000;
/// The largest definition of a tool that is kept, in bytes of JSON.
pub const DEFINITION_BYTES_MAX: usize = 256 << 10;
/// Definitions that one upstream may have shown; what it shows beyond is refused, so it cannot fill the disk.
pub const SIGHTS_MAX: usize = 20_000;
/// What the definitions of one upstream may weigh together, in bytes.
pub const SIGHTS_BYTES_MAX: usize = 64 << 20;

/// What a store answers, once it has.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is on the disk is no database, or is damaged.
    #[error(
        "{path}: the database is damaged: {detail}. Nothing was changed. Move the file away and restore it from a \
         backup; without one, start anew: suspensions made since the last backup must then be made again"
    )]
    Corrupt {
        /// The database's file.
        path: PathBuf,
        /// What the database says.
        detail: String,
    },
    /// The database did not do it, now or for good.
    #[error("the store cannot be used: {0}")]
    Failed(String),
    /// There is no room for more of this kind.
    #[error("the store takes no more {0}")]
    Full(&'static str),
    /// The file cannot be read or prepared.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has this store open.
    #[error("{0} is in use by another gateway: every gateway on this machine needs a store of its own")]
    Locked(PathBuf),
    /// A later version of Holdpoint wrote it.
    #[error(
        "{path}: its format is {found}, and this version of Holdpoint knows up to {known}: run the version that wrote \
         it, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The database's file.
        path: PathBuf,
        /// The format of what is there.
        found: i64,
        /// The newest format that is known here.
        known: i64,
    },
    /// What was to be kept is larger than allowed.
    #[error("{what} is longer than {bytes_max} bytes")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// How long it may be.
        bytes_max: usize,
    },
}

/// What must outlive the process. Every change is durable, also against loss of power, when its answer is there.
pub trait Store:
    holds::Holds
    + holds::Grants
    + inbox::Inbox
    + lifts::Lifts
    + notifications::Notifications
    + resolve::Resolutions
    + standing::Standings
    + tasks::Tasks
    + Send
    + Sync
{
    /// Suspends an agent. One that is suspended already keeps its first suspension.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::TooLarge`], or the database's.
    fn suspend(&self, order: Order) -> Answer<'_, Changed>;

    /// Lifts an agent's suspension; the history keeps it.
    fn resume(&self, order: Order) -> Answer<'_, Changed>;

    /// Every suspension in force, by agent.
    fn suspensions(&self) -> Answer<'_, Vec<Suspension>>;

    /// The last suspensions of one agent, in force or lifted, the newest first; at most [`PAGE_RECORDS_MAX`].
    fn history(&self, agent: AgentId) -> Answer<'_, Vec<Suspension>>;

    /// Notes that an upstream showed these definitions at a moment, all or none, and says of each whether it is new.
    ///
    /// Errors: [`StoreError::TooLarge`] for a definition, [`StoreError::Full`] for an upstream that showed too many.
    fn sight(&self, upstream: String, shown: Vec<Definition>, at: SystemTime) -> Answer<'_, Vec<Seen>>;

    /// Every definition that an upstream has shown, by tool and first sight.
    fn sights(&self, upstream: String) -> Answer<'_, Vec<Sight>>;

    /// What each tool of an upstream is held to, by tool: the definition that was accepted last, else the one that was
    /// seen first.
    fn held(&self, upstream: String) -> Answer<'_, Vec<Sight>>;

    /// The JSON of a definition that was seen.
    fn definition(&self, seen: Sighted) -> Answer<'_, Option<String>>;

    /// Notes that a person accepted a definition; [`Changed::Not`] when it was never seen or is accepted already.
    fn accept(&self, seen: Sighted, by: Who, at: SystemTime) -> Answer<'_, Changed>;

    /// Replaces the snapshot of labels by a newer one, whole or not at all.
    fn keep_labels(&self, snapshot: Snapshot) -> Answer<'_, ()>;

    /// The last snapshot of labels.
    fn labels(&self) -> Answer<'_, Option<Snapshot>>;

    /// Keeps that a run is frozen. One that is frozen already keeps its first freezing.
    ///
    /// Errors: [`StoreError::Full`], or the database's.
    fn freeze(&self, frozen: Frozen) -> Answer<'_, Changed>;

    /// Lets a run go on; an empty run is the agent as a whole.
    fn unfreeze(&self, agent: AgentId, run: String) -> Answer<'_, Changed>;

    /// Everything that is frozen, by agent and run.
    fn frozen(&self) -> Answer<'_, Vec<Frozen>>;

    /// Ends its work and closes the database; nothing may be asked of it afterwards.
    fn close(&self) -> Answer<'_, ()>;
}

/// Who changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Somebody at the machine's own socket, who is root there.
    LocalSocket,
    /// A person, by the id that was verified.
    Person(String),
}

/// What is asked to be done to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The concrete agent; never a wildcard.
    pub agent: AgentId,
    /// Who asks.
    pub by: Who,
    /// Why, in their words.
    pub reason: String,
    /// When.
    pub at: SystemTime,
}

/// Whether something was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It was as asked already.
    Not,
    /// It is from now on as asked.
    Now,
}

/// A suspension, in force or lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// The order that began it.
    pub suspended: Order,
    /// The order that ended it; none while it is in force.
    pub resumed: Option<Order>,
}

/// A tool's definition as an upstream shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The tool's name.
    pub tool: String,
    /// The definition's digest, `sha256:` and hexadecimal.
    pub digest: String,
    /// The definition itself, JSON.
    pub json: String,
}

/// Which definition of which tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighted {
    /// The upstream that shows it.
    pub upstream: String,
    /// The tool's name.
    pub tool: String,
    /// The definition's digest.
    pub digest: String,
}

/// Whether a definition is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was seen before.
    Again,
    /// This is its first sight.
    First,
}

/// A definition that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Which one.
    pub sighted: Sighted,
    /// When it was seen first.
    pub first: SystemTime,
    /// When it was seen last.
    pub last: SystemTime,
    /// Who accepted it, and when; none while nobody has.
    pub accepted: Option<(Who, SystemTime)>,
}

/// A place in the audit: just behind one of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first record of the segment, by which the segment is named.
    pub segment: u64,
    /// How many bytes of the segment lie before the place.
    pub bytes: u64,
    /// The number of the record before it; 0 before the first one.
    pub seq: u64,
    /// That record's hash; zeros before the first one. By it a log that was replaced is told from the one that was read.
    pub leaf: [u8; 32],
}

/// Which labels were in force when the audit had come to a place: at least all that its records up to there brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How far the audit had come.
    pub place: Place,
    /// The labels, in no particular order.
    pub labels: Vec<Labelled>,
}

/// A label, and when it was brought last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The agent that has it.
    pub agent: AgentId,
    /// The agent's run that has it; empty for a label that all its runs have.
    pub run: String,
    /// Its word.
    pub label: String,
    /// When it was brought last.
    pub at: SystemTime,
}

/// A run that goes no further until a person has looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// The agent.
    pub agent: AgentId,
    /// Its run; empty for all of them.
    pub run: String,
    /// Since when.
    pub at: SystemTime,
    /// Why, as an operator reads it.
    pub why: String,
}

// === impl Who ===

impl Who {
    /// What stands for the local socket where a person's id would stand; no id looks like it.
    const LOCAL_SOCKET: &'static str = "local socket";

    /// The text by which records and answers name who it was.
    pub fn as_str(&self) -> &str {
        match self {
            Who::LocalSocket => Who::LOCAL_SOCKET,
            Who::Person(id) => id,
        }
    }

    /// The word for what they are in records: `person`, or `local` for the machine's own socket.
    pub fn kind(&self) -> &'static str {
        match self {
            Who::LocalSocket => "local",
            Who::Person(_) => "person",
        }
    }

    /// Who a text names.
    pub fn parse(text: &str) -> Who {
        if text == Who::LOCAL_SOCKET { Who::LocalSocket } else { Who::Person(text.to_owned()) }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Place ===

impl Place {
    /// Before the first record of a log.
    pub const BEGIN: Place = Place { segment: 0, bytes: 0, seq: 0, leaf: [0; 32] };
}
