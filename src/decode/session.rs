//! Legacy MCP sessions, each bound to the agent and upstream for which it was opened.
//!
//! A session id is no proof of identity [MCP 2025-11-25, security best practices]: one that another agent presents, or
//! that this gateway never saw, is answered like an ended one, and the client initializes again.

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;

use crate::call::AgentId;

/// Sessions of one agent with one upstream that are remembered; the oldest goes first.
const SESSIONS_MAX: usize = 256;

/// The open sessions.
#[derive(Default)]
pub struct Sessions {
    open: DashMap<(AgentId, Arc<str>), VecDeque<Arc<str>>>,
}

impl Sessions {
    /// Remembers a session that the upstream opened for this agent.
    pub fn bind(&self, agent: &AgentId, upstream: &Arc<str>, session: &str) {
        let mut open = self.open.entry((agent.clone(), Arc::clone(upstream))).or_default();
        if open.len() >= SESSIONS_MAX {
            open.pop_front();
        }
        open.push_back(Arc::from(session));
    }

    /// Whether the session was opened for this agent by this upstream.
    pub fn is_bound(&self, agent: &AgentId, upstream: &Arc<str>, session: &str) -> bool {
        let open = self.open.get(&(agent.clone(), Arc::clone(upstream)));
        open.is_some_and(|open| open.iter().any(|id| **id == *session))
    }

    /// Forgets a session that ended.
    pub fn end(&self, agent: &AgentId, upstream: &Arc<str>, session: &str) {
        if let Some(mut open) = self.open.get_mut(&(agent.clone(), Arc::clone(upstream))) {
            open.retain(|id| **id != *session);
        }
    }
}
