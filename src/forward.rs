//! Forward: the one place that sends an agent's call, and only one that the ledger has.
//!
//! What is sent is what was decided on: the very bytes that were parsed, but for trace context. Hop-by-hop headers end
//! here, headers by which agents could claim an identity are dropped, and nothing that may have had an effect is sent
//! twice.

mod addresses;
pub mod breaker;
pub mod outgoing;
pub mod pool;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, response};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::call::{AgentId, BreakerPhase, Class, Era, RecordId, Stage, Stop, StopKind, TraceContext};
use crate::credential::Lease;
use crate::decode::jsonrpc::{Form, Id, Message};
use crate::decode::{Action, Call, Payload, splice};
use crate::net::{self, Dial, Inside};
use crate::record::{Committed, RECORD_HEADER};
use breaker::{Breaker, Fault, OnChange, Pass};
use outgoing::{Outgoing, Steady, Upload};
use pool::{Failure, Lent, Pool};

/// One upstream, as sending sees it.
pub struct Upstream {
    /// The connections to it.
    pub pool: Arc<Pool>,
    /// A digest of all that the connections rest on. Where it stays the same, they outlive a change of configuration.
    pub rests_on: [u8; 32],
    /// The `Host` it is sent.
    pub authority: HeaderValue,
    /// The path before every call's own: a base path for HTTP, the whole endpoint for MCP.
    pub path: PathAndQuery,
    /// How long the head of a reply may take.
    pub timeout: Duration,
    /// What stops calls to it while it fails; none sends every one.
    pub breaker: Option<Arc<Breaker>>,
    /// Whether the agent's own `Authorization` is passed on.
    pub pass_authorization: bool,
}

/// Every upstream by name.
#[derive(Default)]
pub struct Upstreams {
    by_name: HashMap<Arc<str>, Upstream, RandomState>,
    /// Is told when a breaker turns.
    changed: Option<OnChange>,
}

/// The head of a reply, and the body as it arrives.
pub struct Reply {
    /// Status and headers, hop-by-hop ones already dropped.
    pub head: response::Parts,
    /// The body.
    pub body: Incoming,
    /// The connection, to be given back when the body ends.
    pub lent: Lent,
    /// What is to be expected of it.
    pub expects: Expects,
}

/// What is to be expected of a reply.
#[derive(Clone, Debug)]
pub struct Expects {
    /// The id of the JSON-RPC request that it answers.
    pub id: Option<Id>,
    /// Whether it is MCP.
    pub mcp: bool,
    /// Whether its outcome must be known even when the agent has left.
    pub drains: bool,
    /// Whether it may stay silent without end, before its head and after.
    pub standing: bool,
    /// Whether the response may come on another stream of the agent's: MCP before 2026-07-28 lets streams be resumed.
    pub resumes: bool,
}

/// What the upstream is told of this hop.
#[derive(Clone, Copy, Debug)]
pub struct HopHeaders {
    /// The record.
    pub record: RecordId,
    /// The client span.
    pub context: TraceContext,
    /// The hold by which it was released: its id is the idempotency key of a call that has none.
    pub hold: Option<RecordId>,
}

/// Whether calls are sent to this upstream just now. A refusal comes before the intent, since nothing was sent.
pub fn admit<'a>(upstreams: &'a Upstreams, name: &str, agent: &'a AgentId) -> Result<Pass<'a>, Box<Stop>> {
    let Some(breaker) = upstreams.by_name.get(name).and_then(|upstream| upstream.breaker.as_ref()) else {
        return Ok(Pass::free());
    };
    breaker.admit(agent, Instant::now()).map_err(|wait| {
        let text =
            "the upstream failed several times in a row, and is left alone for a moment; nothing was sent";
        Stop::new(Stage::Forward, StopKind::Unavailable, "upstream-breaker", text).retry_after(wait)
    })
}

/// Sends a committed call that the breaker lets through, and waits for the head of its reply.
pub async fn send(
    upstreams: &Upstreams,
    committed: Committed,
    lease: Lease,
    hop: HopHeaders,
    steady: Steady,
    pass: Pass<'_>,
) -> Result<Reply, Box<Stop>> {
    let upstream = upstreams.of(&committed).ok_or_else(|| failed("unknown upstream", "upstream-unknown"))?;
    let expects = expects(&committed);
    let (uploading, uploaded) = oneshot::channel();
    let external = committed.facts().class == Class::External;
    let upload = Upload { ended: uploading, steady: external.then_some(steady) };
    let request = request(upstream, committed, lease, hop, upload)?;
    let sending = upstream.pool.send(request);
    // An upload may take as long as its agent's connection lives; the reply is due once it has ended.
    let overdue = async {
        let _ = uploaded.await;
        tokio::time::sleep(upstream.timeout).await;
    };
    let sent = tokio::select! {
        biased;
        sent = sending => sent,
        () = overdue, if !expects.standing => Err(Failure::TimedOut),
    };
    match fault(&sent) {
        Ok(()) => pass.succeeded(),
        Err(Some(fault)) => pass.failed(fault),
        // The agent's own upload broke off.
        Err(None) => drop(pass),
    }
    let (response, lent) = sent.map_err(|failure| broken(&failure))?;
    if let Some(reason) = unsent(upstream, &response) {
        return Err(failed(NOT_REACHED, "upstream-connect").operator(reason));
    }
    if response.status().is_informational() {
        return Err(failed("the upstream changed the protocol, which nobody asked for", "upstream-protocol"));
    }
    let (mut head, body) = response.into_parts();
    // Another way to the gateway is not an upstream's to name.
    strip(&mut head.headers, |name| name.starts_with(OURS) || name == "alt-svc");
    Ok(Reply { head, body, lent, expects })
}

/// What a reply, or its absence, says about the upstream.
fn fault(sent: &Result<(Response<Incoming>, Lent), Failure>) -> Result<(), Option<Fault>> {
    match sent {
        Ok((response, _)) => match response.status().as_u16() {
            502..=504 => Err(Some(Fault::Reply)),
            _ => Ok(()),
        },
        Err(Failure::Connect(_)) => Err(Some(Fault::Unreached)),
        Err(Failure::Broken(error)) if error.is_user() => Err(None),
        Err(Failure::Broken(_) | Failure::TimedOut) => Err(Some(Fault::Reply)),
    }
}

/// Why a server inside this process sent nothing on, when it says so.
fn unsent<B>(upstream: &Upstream, response: &Response<B>) -> Option<String> {
    upstream.pool.dial().inside.as_ref()?;
    let reason = response.headers().get(net::UNSENT_HEADER)?;
    Some(String::from_utf8_lossy(reason.as_bytes()).into_owned())
}

/// What becomes of work when the agent leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It is given up.
    Ends,
    /// It goes on to its end.
    Stays,
}

/// Whether a call goes on when its agent leaves: a legacy or HTTP one that may have had an effect does.
pub fn leave(committed: &Committed) -> Leave {
    let modern = committed.call().envelope().is_some_and(|envelope| envelope.era == Era::Modern);
    if committed.facts().class != Class::Read && !modern { Leave::Stays } else { Leave::Ends }
}

fn expects(committed: &Committed) -> Expects {
    let call = committed.call();
    Expects {
        id: match call.message().map(Message::form) {
            Some(Form::Request { id, .. }) => Some(id.clone()),
            _ => None,
        },
        mcp: call.envelope().is_some(),
        drains: leave(committed) == Leave::Stays,
        standing: call.is_standing(),
        resumes: call.envelope().is_some_and(|envelope| envelope.era == Era::Legacy),
    }
}

fn request(
    upstream: &Upstream,
    committed: Committed,
    lease: Lease,
    hop: HopHeaders,
    upload: Upload,
) -> Result<Request<Outgoing>, Box<Stop>> {
    let drop_session = committed.call().envelope().is_some_and(|envelope| envelope.drop_session);
    let tracestate = tracestate(committed.call());
    let agent = named_inside(upstream, &committed)?;
    let (_, action, mut head, payload) = committed.into_call().into_parts();
    head.uri = target(upstream, &action)?;
    head.version = http::Version::HTTP_11;
    let mcp = matches!(action, Action::Mcp(_));
    own_headers(&mut head.headers, upstream, mcp, drop_session);
    if let Some(hold) = hop.hold {
        // What a preference asks was asked of the gateway, and people did not see it.
        head.headers.remove(HeaderName::from_static("prefer"));
        let key = head.headers.entry(HeaderName::from_static("idempotency-key"));
        key.or_insert_with(|| {
            HeaderValue::from_str(&hold.to_string()).unwrap_or(HeaderValue::from_static(""))
        });
    }
    let traceparent = hop.context.to_traceparent();
    trace_headers(&mut head.headers, hop.record, &traceparent, tracestate.as_deref());
    if let Some(agent) = agent {
        head.headers.insert(HeaderName::from_static(net::AGENT_HEADER), agent);
    }
    if let Some((name, value)) = lease.into_header() {
        head.headers.insert(name, value);
    }
    let body = match payload {
        Payload::None => Outgoing::Whole([].into()),
        Payload::Opaque(incoming) => Outgoing::Stream(incoming, upload),
        Payload::Form(bytes, _) | Payload::Other(bytes) => whole(bytes),
        Payload::Json(document) => whole(document.bytes().clone()),
        Payload::Rpc(message) => whole(splice::trace_context(&message, &traceparent, tracestate.as_deref())),
    };
    if let Outgoing::Whole(pieces) = &body {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        head.headers.remove(header::CONTENT_LENGTH);
        if length > 0 || head.method == http::Method::POST || head.method == http::Method::PUT {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    Ok(request)
}

/// The agent, for a server inside this process, which keeps agents apart.
fn named_inside(upstream: &Upstream, committed: &Committed) -> Result<Option<HeaderValue>, Box<Stop>> {
    if upstream.pool.dial().inside.is_none() {
        return Ok(None);
    }
    let agent = HeaderValue::from_str(committed.call().agent().id().as_str());
    agent.map(Some).map_err(|_| failed("the agent cannot be named", "agent"))
}

fn whole(bytes: Bytes) -> Outgoing {
    Outgoing::Whole(if bytes.is_empty() { [].into() } else { [bytes].into() })
}

fn target(upstream: &Upstream, action: &Action) -> Result<Uri, Box<Stop>> {
    let text = match action {
        Action::Mcp(envelope) => {
            return Ok(Uri::from(envelope.endpoint.as_ref().unwrap_or(&upstream.path).clone()));
        }
        Action::Http { path, raw_query, .. } => {
            let base = upstream.path.path().trim_end_matches('/');
            match raw_query {
                Some(query) => format!("{base}{path}?{query}"),
                None => format!("{base}{path}"),
            }
        }
    };
    text.parse().map_err(|_| failed("the target cannot be sent", "target"))
}

/// Whether an agent could claim by a header of this name to be somebody, or to have come through something.
fn is_claim(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "forwarded"
                | "via"
                | "x-agent-id"
                | "x-client-cert"
                | "x-real-ip"
                | "x-remote-user"
                | "x-spiffe-id"
        )
}

/// The target and the end-to-end headers with which a call would be sent, without credential and trace context.
pub fn facing(upstreams: &Upstreams, call: &Call) -> Result<(Uri, HeaderMap), Box<Stop>> {
    let upstream = upstreams.by_name.get(&call.route().name);
    let upstream = upstream.ok_or_else(|| failed("unknown upstream", "upstream-unknown"))?;
    let uri = target(upstream, call.action())?;
    let mut headers = call.head().headers.clone();
    let envelope = call.envelope();
    let drop_session = envelope.is_some_and(|envelope| envelope.drop_session);
    own_headers(&mut headers, upstream, envelope.is_some(), drop_session);
    Ok((uri, headers))
}

fn own_headers(headers: &mut HeaderMap, upstream: &Upstream, mcp: bool, drop_session: bool) {
    // A reply that is compressed passes without being understood, and how it ended must be known. An origin is the
    // gateway's own, which has been checked, and not the upstream's.
    let also = |name: &str| {
        (mcp && matches!(name, "accept-encoding" | "origin"))
            || (drop_session && matches!(name, "mcp-session-id" | "last-event-id"))
    };
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip(headers, |name| {
        also(name)
            || is_claim(name)
            || name.starts_with(OURS)
            || matches!(name, "baggage" | "expect" | "tracestate")
            || (name == "authorization" && !upstream.pass_authorization)
    });
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(header::HOST, upstream.authority.clone());
}

/// How headers begin that only the gateway may set.
const OURS: &str = "holdpoint-";

/// Drops the headers of such names, and those that are for one connection only [RFC 9110 §7.6.1].
fn strip(headers: &mut HeaderMap, such: impl Fn(&str) -> bool) {
    const END_TO_END: [HeaderName; 4] =
        [header::AUTHORIZATION, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::HOST];
    let listed = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !END_TO_END.contains(name));
    let such = headers.keys().filter(|name| is_hop_by_hop(name.as_str()) || such(name.as_str())).cloned();
    for name in listed.chain(such).collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The agent's own trace state, when it belongs to the trace that goes on.
fn tracestate(call: &Call) -> Option<String> {
    let from_meta = call.envelope().and_then(|envelope| envelope.tracestate.as_deref());
    let header = || call.head().headers.get(TRACESTATE).and_then(|value| value.to_str().ok());
    let state = if call.trace().link.is_some() { from_meta } else { from_meta.or_else(header) };
    call.trace().parent.and(state).filter(|state| state.len() <= 512).map(str::to_owned)
}

fn trace_headers(headers: &mut HeaderMap, record: RecordId, traceparent: &str, tracestate: Option<&str>) {
    if let Some(value) = tracestate.and_then(|state| HeaderValue::from_str(state).ok()) {
        headers.insert(TRACESTATE, value);
    }
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        headers.insert(TRACEPARENT, value);
    }
    if let Ok(value) = HeaderValue::from_str(&record.to_string()) {
        headers.insert(RECORD_HEADER, value);
    }
}

fn failed(text: &str, reason: &'static str) -> Box<Stop> {
    Stop::new(Stage::Forward, StopKind::UpstreamFailed, reason, text)
}

const NOT_REACHED: &str = "the upstream cannot be reached; nothing was sent";

fn broken(failure: &Failure) -> Box<Stop> {
    let (reason, text) = match failure {
        Failure::Connect(_) => ("upstream-connect", NOT_REACHED),
        Failure::Broken(_) => ("upstream-broken", "the upstream broke off; whether it acted is not known"),
        Failure::TimedOut => {
            ("upstream-timeout", "the upstream did not reply in time; whether it acted is not known")
        }
    };
    failed(text, reason).operator(failure.to_string())
}

// === impl Upstreams ===

impl Upstreams {
    /// These upstreams.
    pub fn new(upstreams: impl IntoIterator<Item = (Arc<str>, Upstream)>) -> Upstreams {
        Upstreams { by_name: upstreams.into_iter().collect(), changed: None }
    }

    /// From now on, tells the phase of each breaker, of later upstreams too, beginning with what it is now.
    #[must_use]
    pub fn watched(mut self, changed: OnChange) -> Upstreams {
        for breaker in self.by_name.values().filter_map(|upstream| upstream.breaker.as_ref()) {
            breaker.watch(Arc::clone(&changed));
        }
        self.changed = Some(changed);
        self
    }

    /// These upstreams, with the connections of those before that rest on the same, and breakers as they stand.
    pub fn then(&self, upstreams: impl IntoIterator<Item = (Arc<str>, Upstream)>) -> Upstreams {
        let kept = |(name, mut upstream): (Arc<str>, Upstream)| {
            if let Some(before) = self.by_name.get(&name).filter(|old| old.rests_on == upstream.rests_on) {
                upstream.pool = Arc::clone(&before.pool);
                let standing = before.breaker.as_ref().zip(upstream.breaker.as_ref());
                if let Some((old, _)) = standing.filter(|(old, new)| old.config() == new.config()) {
                    upstream.breaker = Some(Arc::clone(old));
                }
            }
            (name, upstream)
        };
        let next = Upstreams::new(upstreams.into_iter().map(kept));
        let Some(changed) = &self.changed else { return next };
        for name in self.by_name.keys().filter(|name| !next.by_name.contains_key(*name)) {
            changed(name, BreakerPhase::Closed);
        }
        next.watched(Arc::clone(changed))
    }

    /// The servers inside this process that these use and the next do not.
    pub fn left_by(&self, next: &Upstreams) -> Vec<Arc<dyn Inside>> {
        let goes_on = |pool: &Arc<Pool>| next.by_name.values().any(|other| Arc::ptr_eq(&other.pool, pool));
        let left = self.by_name.values().map(|upstream| &upstream.pool).filter(|pool| !goes_on(pool));
        left.filter_map(|pool| pool.dial().inside.clone()).collect()
    }

    /// Where a committed call goes.
    pub fn dial(&self, committed: &Committed) -> Option<&Dial> {
        self.of(committed).map(|upstream| upstream.pool.dial())
    }

    /// The authority of the upstream of this name, as it is called there.
    pub fn authority(&self, name: &str) -> Option<&HeaderValue> {
        self.by_name.get(name).map(|upstream| &upstream.authority)
    }

    /// The upstream of this name: the gateway's own questions go the same way as calls.
    pub fn named(&self, name: &str) -> Option<&Upstream> {
        self.by_name.get(name)
    }

    /// Ends what runs inside this process for upstreams, all at once and in bounded time.
    pub async fn end(&self) {
        let ending = self.by_name.values().filter_map(|upstream| upstream.pool.dial().inside.clone());
        let mut tasks: tokio::task::JoinSet<()> =
            ending.map(|inside| async move { inside.end().await }).collect();
        while tasks.join_next().await.is_some() {}
    }

    fn of(&self, committed: &Committed) -> Option<&Upstream> {
        self.by_name.get(&committed.call().route().name)
    }
}
