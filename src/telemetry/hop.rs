//! Everything there is to say about one call when it ends: spans, metrics and the audit record are all made from it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::call::{
    AgentId, Class, Consequence, Protocol, RecordId, Stage, Stop, StopKind, TraceContext, Word,
};

/// One call through the gateway, from its first byte to its last.
///
/// Never holds arguments, tokens, header values, query strings or bodies.
#[derive(Clone, Debug)]
pub struct Hop {
    /// The server span's own context; its ids are made by the gateway, its trace id may come from the parent.
    pub trace: TraceContext,
    /// The caller's span: from `params._meta`, else from the HTTP header.
    pub parent: Option<TraceContext>,
    /// The HTTP header's context, when `_meta` gave the parent.
    pub link: Option<TraceContext>,
    /// The id of this hop's record, in the reply, the audit and the trace alike.
    pub record: RecordId,
    /// The protocol in which the call came.
    pub protocol: Protocol,
    /// What was asked for, in the words of its protocol.
    pub target: Target,
    /// Who called, over what.
    pub caller: Caller,
    /// Where it went, or would have gone.
    pub upstream: Upstream,
    /// What was decided and why.
    pub decision: Decision,
    /// What went wrong, if something did.
    pub error: Option<ErrorType>,
    /// When, and how long each part took.
    pub timing: Timing,
    /// The HTTP status that the agent got.
    pub status: Option<u16>,
    /// The JSON-RPC error code of the answer.
    pub rpc_code: Option<i64>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the reply's body.
    pub response_bytes: u64,
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The MCP method, `tools/call` for one; empty for plain HTTP.
    pub method: Arc<str>,
    /// The tool's name.
    pub tool: Option<Arc<str>>,
    /// The prompt's name.
    pub prompt: Option<Arc<str>>,
    /// The JSON-RPC id as text.
    pub rpc_id: Option<Arc<str>>,
    /// The MCP revision that was spoken.
    pub mcp_version: Option<Arc<str>>,
    /// The MCP session, which only legacy revisions have.
    pub session: Option<Arc<str>>,
    /// The HTTP method.
    pub http_method: Arc<str>,
    /// The configured route template, never the path itself.
    pub route: Option<Arc<str>>,
}

/// Who called.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The verified id; none when identification failed.
    pub agent: Option<AgentId>,
    /// The run that the call belongs to.
    pub run: Option<Arc<str>>,
    /// The task, when an orchestrator named one.
    pub task: Option<Arc<str>>,
    /// Where the connection comes from.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// The HTTP version spoken with the agent.
    pub http: HttpVersion,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2.
    Two,
}

impl HttpVersion {
    /// The value of `network.protocol.version`.
    pub fn as_str(self) -> &'static str {
        match self {
            HttpVersion::One => "1.1",
            HttpVersion::Two => "2",
        }
    }
}

/// Where the call went.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// The configured name; empty when no route matched.
    pub name: Arc<str>,
    /// The host, as configured.
    pub address: Option<Arc<str>>,
    /// Its port.
    pub port: Option<u16>,
    /// The client span's id; its context is what the upstream was sent.
    pub span: [u8; 8],
    /// The HTTP status that the upstream gave.
    pub status: Option<u16>,
    /// Whether the upstream is spoken to over TLS, plain, or through a pipe.
    pub transport: Transport,
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Plain HTTP over TCP.
    #[default]
    Plain,
    /// HTTP over TLS.
    Tls,
    /// Standard input and output of a process.
    Pipe,
}

/// What was decided and why.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What became of the call.
    pub outcome: Outcome,
    /// What would have become of it, had shadow mode not let it pass.
    pub would_be: Option<Outcome>,
    /// The rule, by its public alias; empty when none decided.
    pub rule: Arc<str>,
    /// The class; none when the call was not understood.
    pub class: Option<Class>,
    /// The consequence; none when the call was not understood.
    pub consequence: Option<Consequence>,
    /// The labels of the run at that moment.
    pub labels: Vec<Word>,
    /// What flow analysis found.
    pub findings: Vec<Word>,
    /// The hold that the call waited in, or waits in.
    pub hold: Option<Arc<str>>,
    /// Ids of the people who approved.
    pub approvers: Vec<Arc<str>>,
    /// The emergency lifts without which it would have been decided otherwise.
    pub break_glass: Vec<Arc<str>>,
}

/// When, and how long each part took. Offsets are monotonic, from `start`.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The wall-clock time of the first byte.
    pub start: SystemTime,
    /// How long the whole call took.
    pub total: Duration,
    /// Each stage that ran.
    pub stages: Vec<StageTime>,
    /// From the first byte sent upstream to the last received; none when nothing was sent.
    pub upstream: Option<(Duration, Duration)>,
    /// How long people were waited for.
    pub people: Duration,
}

impl Timing {
    /// The time that the gateway itself took: the total less waiting for the upstream and for people.
    pub fn overhead(&self) -> Duration {
        let upstream = self.upstream.map_or(Duration::ZERO, |(from, to)| to.saturating_sub(from));
        self.total.saturating_sub(upstream).saturating_sub(self.people)
    }
}

/// When one stage ran, as offsets from the start of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTime {
    /// Which stage.
    pub stage: Stage,
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the outcome of that name; see docs/interfaces")]
pub enum Outcome {
    Allowed,
    Denied,
    Limited,
    Held,
    Pending,
    Executed,
    Expired,
    Unavailable,
    Malformed,
}

impl Outcome {
    /// The word used in records, spans, metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Denied => "denied",
            Outcome::Limited => "limited",
            Outcome::Held => "held",
            Outcome::Pending => "pending",
            Outcome::Executed => "executed",
            Outcome::Expired => "expired",
            Outcome::Unavailable => "unavailable",
            Outcome::Malformed => "malformed",
        }
    }

    /// The outcome that a stop amounts to.
    pub fn of(kind: StopKind) -> Outcome {
        match kind {
            StopKind::Denied
            | StopKind::NotFound
            | StopKind::SessionUnknown
            | StopKind::TaskUnknown
            | StopKind::Unidentified => Outcome::Denied,
            StopKind::Expired => Outcome::Expired,
            StopKind::Held => Outcome::Held,
            StopKind::Settled => Outcome::Executed,
            StopKind::Limited => Outcome::Limited,
            StopKind::Unavailable => Outcome::Unavailable,
            StopKind::UpstreamFailed => Outcome::Allowed,
            StopKind::Ambiguous
            | StopKind::HeaderMismatch
            | StopKind::KeyReused
            | StopKind::Malformed
            | StopKind::MethodUnknown
            | StopKind::Oversize => Outcome::Malformed,
        }
    }

    /// The error that this outcome is on the server span; none when the call went through.
    fn error(self) -> Option<ErrorType> {
        match self {
            Outcome::Allowed | Outcome::Executed => None,
            Outcome::Denied => Some(ErrorType::Denied),
            Outcome::Limited => Some(ErrorType::Limited),
            Outcome::Held | Outcome::Pending | Outcome::Expired => Some(ErrorType::Held),
            Outcome::Unavailable => Some(ErrorType::Unavailable),
            Outcome::Malformed => Some(ErrorType::Malformed),
        }
    }
}

/// The value of `error.type`: our own refusals, or what the conventions give for upstream failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// Policy said no.
    Denied,
    /// Over a limit.
    Limited,
    /// Waiting for people, or they did not answer in time.
    Held,
    /// Not what its protocol says it must be.
    Malformed,
    /// The gateway could not do its duty.
    Unavailable,
    /// The tool itself says that it failed (`isError: true`).
    Tool,
    /// The upstream answered with this JSON-RPC error code.
    Rpc(i64),
    /// The upstream answered with this HTTP status.
    Status(u16),
    /// The upstream took too long.
    Timeout,
    /// The upstream could not be reached, or broke off.
    Connection,
    /// The agent left before the end.
    Cancelled,
    /// The gateway itself failed.
    Internal,
}

impl ErrorType {
    /// What a stop says beyond its outcome.
    pub fn of(stop: &Stop) -> Option<ErrorType> {
        match (stop.kind, stop.reason) {
            (_, "client-gone") => Some(ErrorType::Cancelled),
            (StopKind::UpstreamFailed, "upstream-timeout") => Some(ErrorType::Timeout),
            (StopKind::UpstreamFailed, _) => Some(ErrorType::Connection),
            _ => None,
        }
    }

    /// Whether the upstream's side, not the gateway, is where it went wrong.
    pub fn is_upstream(self) -> bool {
        matches!(
            self,
            ErrorType::Tool
                | ErrorType::Rpc(_)
                | ErrorType::Status(_)
                | ErrorType::Timeout
                | ErrorType::Connection
                | ErrorType::Cancelled
        )
    }

    /// Whether it is the caller's fault alone, which the conventions do not count as a server's error.
    pub fn is_callers(self) -> bool {
        match self {
            ErrorType::Rpc(code) => matches!(code, -32700 | -32002 | -32602..=-32600),
            ErrorType::Status(status) => status < 500,
            _ => false,
        }
    }

    /// The span attribute's value.
    pub fn to_text(self) -> String {
        match self {
            ErrorType::Rpc(code) => code.to_string(),
            ErrorType::Status(status) => status.to_string(),
            other => other.word().to_owned(),
        }
    }

    /// The metric label's value, from a closed set: codes that upstreams make up are `other`.
    pub fn label(self) -> &'static str {
        match self {
            ErrorType::Rpc(-32700) => "-32700",
            ErrorType::Rpc(-32603) => "-32603",
            ErrorType::Rpc(-32602) => "-32602",
            ErrorType::Rpc(-32601) => "-32601",
            ErrorType::Rpc(-32600) => "-32600",
            ErrorType::Rpc(-32002) => "-32002",
            ErrorType::Status(status) => status_label(status),
            other => other.word(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            ErrorType::Denied => "denied",
            ErrorType::Limited => "limited",
            ErrorType::Held => "held",
            ErrorType::Malformed => "malformed",
            ErrorType::Unavailable => "unavailable",
            ErrorType::Tool => "tool_error",
            ErrorType::Timeout => "timeout",
            ErrorType::Connection => "connection",
            ErrorType::Cancelled => "cancelled",
            ErrorType::Internal => "internal",
            ErrorType::Rpc(_) | ErrorType::Status(_) => "other",
        }
    }
}

/// A status code as a metric label, from a closed set.
pub(super) fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        301 => "301",
        302 => "302",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        406 => "406",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        501 => "501",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}

/// How many stages a call passes that is sent.
const STAGES: usize = 10;

impl Hop {
    /// A hop that has just begun: allowed until something says otherwise.
    pub fn new(protocol: Protocol, trace: TraceContext, start: SystemTime) -> Hop {
        Hop {
            trace,
            parent: None,
            link: None,
            record: RecordId::new(),
            protocol,
            target: Target::default(),
            caller: Caller::default(),
            upstream: Upstream::default(),
            decision: Decision {
                outcome: Outcome::Allowed,
                would_be: None,
                rule: Arc::from(""),
                class: None,
                consequence: None,
                labels: Vec::new(),
                findings: Vec::new(),
                hold: None,
                approvers: Vec::new(),
                break_glass: Vec::new(),
            },
            error: None,
            timing: Timing {
                start,
                total: Duration::ZERO,
                stages: Vec::with_capacity(STAGES),
                upstream: None,
                people: Duration::ZERO,
            },
            status: None,
            rpc_code: None,
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    /// What went wrong: said outright, or what the outcome amounts to. A refusal can therefore never look like a success.
    pub fn error_type(&self) -> Option<ErrorType> {
        self.error.or_else(|| self.decision.outcome.error())
    }

    /// Whether it must be exported whatever the sampling: refused, held or failed.
    pub fn is_notable(&self) -> bool {
        self.error_type().is_some() || self.decision.hold.is_some()
    }
}

/// One moment in a hold's life. Each is its own span, so that a hold is seen while it still waits.
#[derive(Clone, Debug)]
pub struct HoldMoment {
    /// Which moment.
    pub kind: MomentKind,
    /// The span's own context.
    pub trace: TraceContext,
    /// The span under which it happened: the opening's, for the moments that follow it.
    pub parent: Option<TraceContext>,
    /// The server span of the call that was held or goes on; else the opening's span.
    pub link: Option<TraceContext>,
    /// The hold.
    pub hold: Arc<str>,
    /// Whose call is held.
    pub agent: Option<AgentId>,
    /// The upstream's configured name.
    pub upstream: Arc<str>,
    /// The rule that held it, by its public alias.
    pub rule: Arc<str>,
    /// What became of it; `Held` while it waits.
    pub outcome: Outcome,
    /// Ids of the people who decided.
    pub approvers: Vec<Arc<str>>,
    /// When the moment began.
    pub start: SystemTime,
    /// How long it took.
    pub took: Duration,
}

/// A moment in a hold's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentKind {
    /// It was opened.
    Opened,
    /// People decided.
    Decided,
    /// The call went on.
    Released,
    /// It came to an end.
    Ended,
}
