//! How many calls wait, told apart only by what decides who may see them: a count for everybody, without a list of all.

use super::Answer;
use crate::call::AgentId;

/// Groups of calls that are counted at most. The largest come first.
pub const WAITING_MAX: usize = 256;

/// What waits for people.
pub trait Inbox: Send + Sync {
    /// The calls that wait and whose time is not over, in groups that policy cannot tell apart; at most [`WAITING_MAX`].
    fn waiting(&self) -> Answer<'_, Vec<Waiting>>;
}

/// Calls that wait, of one agent and alike in everything that policy goes by when it says who may decide them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Whose calls they are.
    pub agent: AgentId,
    /// Their consequence, 0 to 4.
    pub consequence: u8,
    /// The roles that must be among those who approve.
    pub approvers: Vec<String>,
    /// On whose behalf they are made; empty when nobody was named.
    pub on_behalf_of: String,
    /// How many they are.
    pub calls: u64,
}
