//! Tasks in the store: what orchestrators opened, until it has ended.

use std::time::SystemTime;

use super::{Answer, Changed};
use crate::call::{AgentId, RecordId};

/// The most tasks that are open at one time.
pub const TASKS_MAX: usize = 10_000;

/// Task scopes.
pub trait Tasks: Send + Sync {
    /// Keeps a task, and forgets those that ended before it was opened.
    ///
    /// Errors: [`super::StoreError::Full`] beyond [`TASKS_MAX`], or the database's.
    fn open_task(&self, task: Task) -> Answer<'_, ()>;

    /// Every task that is kept and was not closed, the oldest first.
    fn tasks(&self) -> Answer<'_, Vec<Task>>;

    /// Forgets a task.
    fn close_task(&self, id: RecordId) -> Answer<'_, Changed>;
}

/// What an orchestrator said that a piece of work needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: RecordId,
    /// Who opened it: the orchestrator's SPIFFE ID.
    pub by: String,
    /// The agents that may show its token.
    pub agents: Vec<AgentId>,
    /// Where it may send, as the orchestrator wrote it.
    pub destinations: Vec<String>,
    /// The upstreams that it needs, by name.
    pub systems: Vec<String>,
    /// What it is for.
    pub purpose: String,
    /// The serial number of the one certificate that may show its token; `None` for any of its agents.
    pub instance: Option<String>,
    /// The task that it is a part of.
    pub parent: Option<RecordId>,
    /// Whether its calls are judged by less than all that its agent has read. Then `instance` says which certificate.
    pub isolated: bool,
    /// The agents of that task and of those above it.
    pub above: Vec<AgentId>,
    /// When it was opened.
    pub at: SystemTime,
    /// When it ends.
    pub until: SystemTime,
}
