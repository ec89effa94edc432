//! What agents and MCP upstreams have begun with each other: legacy sessions, questions of upstreams, tasks.
//!
//! A session id is no proof of identity [MCP 2025-11-25, security best practices]: one that another agent presents, or
//! that this gateway never saw, is answered like an ended one, and the client initializes again. The same holds for a
//! task's id. An answer to a question that the upstream never asked is not passed on: it would carry data to somebody
//! who did not ask for any.

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;
use http::uri::PathAndQuery;

use super::jsonrpc::Id;
use crate::call::AgentId;

/// Sessions of one agent with one upstream that are remembered; the oldest goes first.
const SESSIONS_MAX: usize = 256;
/// Questions of an upstream within one session that wait for their answer; the oldest goes first.
const QUESTIONS_MAX: usize = 64;
/// Tasks of one agent at one upstream that are remembered; the oldest goes first.
const TASKS_MAX: usize = 1024;

/// All that is open.
#[derive(Default)]
pub struct Sessions {
    open: DashMap<(AgentId, Arc<str>), Open>,
}

/// What one agent has open with one upstream.
#[derive(Default)]
struct Open {
    sessions: VecDeque<Session>,
    /// Questions of an upstream that keeps no sessions.
    questions: VecDeque<Question>,
    tasks: VecDeque<(Arc<str>, Arc<str>)>,
}

struct Session {
    id: Arc<str>,
    /// The protocol version on which both agreed, once it is known.
    version: Option<Arc<str>>,
    /// Where messages go, where the upstream speaks the transport of MCP 2024-11-05.
    endpoint: Option<PathAndQuery>,
    questions: VecDeque<Question>,
}

/// A request of the upstream: its id, and what it asks.
type Question = (Id, Arc<str>);

/// One agent's dialogue with one upstream, in one session where the upstream keeps them.
#[derive(Clone)]
pub struct Dialogue {
    sessions: Arc<Sessions>,
    agent: AgentId,
    upstream: Arc<str>,
    session: Option<Arc<str>>,
}

// === impl Dialogue ===

impl Dialogue {
    /// The dialogue of an agent with an upstream.
    pub fn new(
        sessions: &Arc<Sessions>,
        agent: &AgentId,
        upstream: &Arc<str>,
        session: Option<Arc<str>>,
    ) -> Dialogue {
        Dialogue {
            sessions: Arc::clone(sessions),
            agent: agent.clone(),
            upstream: Arc::clone(upstream),
            session,
        }
    }

    /// The agent.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Goes on in the session that the upstream has just opened.
    pub fn open(&mut self, session: &str) {
        self.opens(Arc::from(session), None);
    }

    /// Goes on in a session that the gateway has named, whose messages go to this endpoint of the upstream.
    pub fn open_at(&mut self, session: &Arc<str>, endpoint: PathAndQuery) {
        self.opens(Arc::clone(session), Some(endpoint));
    }

    fn opens(&mut self, id: Arc<str>, endpoint: Option<PathAndQuery>) {
        self.with(|open| {
            let session =
                Session { id: Arc::clone(&id), version: None, endpoint, questions: VecDeque::new() };
            remember(&mut open.sessions, session, SESSIONS_MAX);
        });
        self.session = Some(id);
    }

    /// Where the messages of its session go, where the gateway has named it.
    pub fn endpoint(&self) -> Option<PathAndQuery> {
        let id = self.session.as_ref()?;
        self.look(|open| open.session(id)?.endpoint.clone()).flatten()
    }

    /// Whether its session was opened for this agent by this upstream; without a session there is nothing to doubt.
    pub fn is_bound(&self) -> bool {
        let Some(id) = &self.session else { return true };
        self.look(|open| open.session(id).is_some()).unwrap_or(false)
    }

    /// Forgets the session, which has ended.
    pub fn end(&self) {
        if let Some(id) = &self.session {
            self.with(|open| open.sessions.retain(|session| session.id != *id));
        }
    }

    /// Notes the protocol version on which both agreed.
    pub fn agreed(&self, version: &str) {
        let Some(id) = &self.session else { return };
        self.with(|open| {
            if let Some(session) = open.sessions.iter_mut().find(|session| session.id == *id) {
                session.version = Some(Arc::from(version));
            }
        });
    }

    /// The protocol version on which both agreed, where it is known.
    pub fn version(&self) -> Option<Arc<str>> {
        let id = self.session.as_ref()?;
        self.look(|open| open.session(id)?.version.clone()).flatten()
    }

    /// Notes what the upstream asks the agent.
    pub fn asked(&self, id: Id, method: Arc<str>) {
        self.with(|open| {
            if let Some(questions) = open.questions(self.session.as_deref()) {
                questions.retain(|(open, _)| *open != id);
                remember(questions, (id, method), QUESTIONS_MAX);
            }
        });
    }

    /// What the upstream asked under this id.
    pub fn question(&self, id: &Id) -> Option<Arc<str>> {
        self.look(|open| {
            let questions = match &self.session {
                Some(session) => &open.session(session)?.questions,
                None => &open.questions,
            };
            questions.iter().find(|(asked, _)| asked == id).map(|(_, method)| Arc::clone(method))
        })
        .flatten()
    }

    /// Notes that a question has its answer.
    pub fn answered(&self, id: &Id) {
        self.with(|open| {
            if let Some(questions) = open.questions(self.session.as_deref()) {
                questions.retain(|(asked, _)| asked != id);
            }
        });
    }

    /// Notes a task that a call of this tool has become.
    pub fn became(&self, task: &str, tool: &Arc<str>) {
        let task = (Arc::from(task), Arc::clone(tool));
        self.with(|open| remember(&mut open.tasks, task, TASKS_MAX));
    }

    /// The tool of a task that this agent began.
    pub fn tool_of(&self, task: &str) -> Option<Arc<str>> {
        let tool =
            |open: &Open| open.tasks.iter().find(|(id, _)| **id == *task).map(|(_, tool)| Arc::clone(tool));
        self.look(tool).flatten()
    }

    fn with(&self, change: impl FnOnce(&mut Open)) {
        change(&mut self.sessions.open.entry((self.agent.clone(), Arc::clone(&self.upstream))).or_default());
    }

    fn look<T>(&self, at: impl FnOnce(&Open) -> T) -> Option<T> {
        self.sessions.open.get(&(self.agent.clone(), Arc::clone(&self.upstream))).map(|open| at(&open))
    }
}

impl Open {
    fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| *session.id == *id)
    }

    fn questions(&mut self, session: Option<&str>) -> Option<&mut VecDeque<Question>> {
        match session {
            Some(id) => self.sessions.iter_mut().find(|s| *s.id == *id).map(|s| &mut s.questions),
            None => Some(&mut self.questions),
        }
    }
}

fn remember<T>(list: &mut VecDeque<T>, one: T, max: usize) {
    if list.len() >= max {
        list.pop_front();
    }
    list.push_back(one);
}
