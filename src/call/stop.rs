//! Why a call did not go on: which stage, who is to blame, what the agent may read and what the operator may read.

use std::sync::Arc;
use std::time::Duration;

/// A stage of the path of a call, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the stage of that name; see ARCHITECTURE.md")]
pub enum Stage {
    Accept,
    Identify,
    Decode,
    Classify,
    Limit,
    Flow,
    Decide,
    Hold,
    Commit,
    Credential,
    Forward,
    Observe,
    Answer,
}

impl Stage {
    /// The stage's word, as in span names.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Accept => "accept",
            Stage::Identify => "identify",
            Stage::Decode => "decode",
            Stage::Classify => "classify",
            Stage::Limit => "limit",
            Stage::Flow => "flow",
            Stage::Decide => "decide",
            Stage::Hold => "hold",
            Stage::Commit => "commit",
            Stage::Credential => "credential",
            Stage::Forward => "forward",
            Stage::Observe => "observe",
            Stage::Answer => "answer",
        }
    }
}

/// The kinds of ending that are not the upstream's own reply. [`crate::answer`] turns each into bytes, exhaustively.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopKind {
    /// Can be read in two ways, so it is read in none.
    Ambiguous,
    /// Policy said no, or nothing said yes.
    Denied,
    /// Nobody decided in time, or the call was taken back; nothing was sent.
    Expired,
    /// Waiting for people; nothing was sent.
    Held,
    /// A header of MCP 2026-07-28 that must mirror the body does not (−32020).
    HeaderMismatch,
    /// An `Idempotency-Key` that came before, with another call.
    KeyReused,
    /// Over a limit.
    Limited,
    /// Not what its protocol says it must be.
    Malformed,
    /// No such MCP method, or one that is not configured.
    MethodUnknown,
    /// No such route, or an HTTP method that the endpoint does not have.
    NotFound,
    /// Larger than a bound.
    Oversize,
    /// An MCP session that is not this agent's, or that ended.
    SessionUnknown,
    /// Held, decided and ended before: it is not done again.
    Settled,
    /// An MCP task that is not this agent's, or that nobody began (−32602).
    TaskUnknown,
    /// The gateway cannot do its duty just now (audit, store, credential).
    Unavailable,
    /// Not in the registry, suspended, or not trusted.
    Unidentified,
    /// The upstream could not be reached, or broke off.
    UpstreamFailed,
}

/// An ending before the upstream's reply.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The stage that stopped it.
    pub stage: Stage,
    /// What kind of ending this is.
    pub kind: StopKind,
    /// A stable word for records and metrics, such as `duplicate-key`.
    pub reason: &'static str,
    /// What the agent may read.
    pub public: String,
    /// What the operator may read: the record and the span.
    pub operator: String,
    /// The rule's public alias; empty when no rule is involved.
    pub rule: Arc<str>,
    /// When to try again, if that makes sense.
    pub retry_after: Option<Duration>,
    /// The hold that now waits.
    pub hold: Option<Arc<str>>,
    /// The limit that was exceeded.
    pub limit: Option<Limited>,
}

/// A limit as agents are told of it [draft-ietf-httpapi-ratelimit-headers].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The limit's name.
    pub name: String,
    /// How many it allows.
    pub quota: u32,
    /// In how long.
    pub window: Duration,
}

impl Stop {
    /// A stop whose two readers are told the same.
    pub fn new(stage: Stage, kind: StopKind, reason: &'static str, text: impl Into<String>) -> Box<Stop> {
        let public = text.into();
        Box::new(Stop {
            stage,
            kind,
            reason,
            operator: public.clone(),
            public,
            rule: Arc::from(""),
            retry_after: None,
            hold: None,
            limit: None,
        })
    }

    /// Adds what only the operator may read.
    pub fn operator(mut self: Box<Stop>, text: impl Into<String>) -> Box<Stop> {
        self.operator = text.into();
        self
    }

    /// Says which limit was exceeded.
    pub fn limited(mut self: Box<Stop>, name: &str, quota: u32, window: Duration) -> Box<Stop> {
        self.limit = Some(Limited { name: name.to_owned(), quota, window });
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self: Box<Stop>, wait: Duration) -> Box<Stop> {
        self.retry_after = Some(wait);
        self
    }
}
