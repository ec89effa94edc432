//! What people must still be told of holds and emergency lifts, in the store: an event is written with the change that it tells of, becomes
//! one notification for each webhook that wants it, and is gone only when that webhook has confirmed it.

use std::time::{Duration, SystemTime};

use super::{Answer, Changed};
use crate::call::RecordId;

/// The longest list of notifications that is given at once.
pub const NOTIFICATIONS_LISTED_MAX: usize = 1000;
/// Events that become notifications in one transaction.
pub const EVENTS_AT_ONCE_MAX: usize = 500;
/// Notifications of one webhook that may wait to be delivered; what comes beyond is dead at once.
pub const WAITING_MAX: usize = 100_000;
/// Dead notifications that are kept; the oldest make room.
pub const DEAD_MAX: usize = 10_000;
/// The longest reason of a failure that is kept, in bytes of UTF-8.
pub const FAILURE_BYTES_MAX: usize = 500;

/// Notifications, in order for each topic and webhook, until they are delivered or dead.
pub trait Notifications: Send + Sync {
    /// Makes the first events into notifications for these webhooks, in one transaction; at most [`EVENTS_AT_ONCE_MAX`].
    /// What waits for a webhook that is none of these is dead from now on. Gives how many events there were.
    fn address(&self, to: Vec<Addressee>) -> Answer<'_, usize>;

    /// What may be delivered to a webhook now, the first one of each topic, in the order of their time.
    fn due(&self, webhook: String, most: usize) -> Answer<'_, Vec<Notification>>;

    /// The webhook has it: it is gone.
    fn delivered(&self, id: RecordId) -> Answer<'_, ()>;

    /// The webhook does not have it: it is tried again after a while, or never, when `again` is `None`.
    fn undelivered(&self, id: RecordId, again: Option<Duration>, why: String) -> Answer<'_, ()>;

    /// Those that wait or are dead, the oldest first; at most [`NOTIFICATIONS_LISTED_MAX`].
    fn notifications(&self, state: Option<NotificationState>) -> Answer<'_, Vec<Notification>>;

    /// One of them.
    fn notification(&self, id: RecordId) -> Answer<'_, Option<Notification>>;

    /// Tries a dead one again from now on, as if it were new, and one that waits at once.
    fn retry(&self, id: RecordId) -> Answer<'_, Changed>;

    /// How many there are.
    fn backlog(&self) -> Answer<'_, Backlog>;
}

/// A webhook, and what it wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressee {
    /// Its configured name.
    pub webhook: String,
    /// The kinds of events.
    pub kinds: Vec<&'static str>,
}

/// What one webhook should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Its id: the same each time it is sent, by which a receiver knows it again.
    pub id: RecordId,
    /// The webhook.
    pub webhook: String,
    /// What happened: `hold.opened`, `breakglass.opened` and so on.
    pub kind: String,
    /// What it happened to.
    pub topic: Topic,
    /// When it happened.
    pub at: SystemTime,
    /// What was so then, JSON without the braces.
    pub data: Vec<u8>,
    /// How often it was tried.
    pub attempts: u32,
    /// Since when it has been tried.
    pub since: SystemTime,
    /// When it is tried next.
    pub next: SystemTime,
    /// Waiting, or dead.
    pub state: NotificationState,
    /// Why it was not delivered; empty while it was not tried.
    pub failure: String,
}

/// What something happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A hold.
    Hold(RecordId),
    /// An emergency lift.
    Lift(RecordId),
}

impl Topic {
    /// The id of the hold or lift.
    pub fn id(self) -> RecordId {
        match self {
            Topic::Hold(id) | Topic::Lift(id) => id,
        }
    }
}

/// Where a notification stands. What is delivered is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationState {
    /// It is tried, again and again.
    Waiting,
    /// It is not tried any more.
    Dead,
}

impl NotificationState {
    /// The word in answers and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            NotificationState::Waiting => "waiting",
            NotificationState::Dead => "dead",
        }
    }

    /// The state that a word names.
    pub fn parse(word: &str) -> Option<NotificationState> {
        [NotificationState::Waiting, NotificationState::Dead].into_iter().find(|state| state.as_str() == word)
    }
}

/// How many notifications there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events that are not addressed yet.
    pub events: u64,
    /// That wait to be delivered.
    pub waiting: u64,
    /// That are not tried any more.
    pub dead: u64,
}
