//! Decode: from a request to a [`Call`] with a closed [`Action`], or a refusal of what could be read in two ways.
//!
//! The route is found first, since it says which protocol the body must be in. A body is read whole up to
//! `body_bytes_max`, parsed once and kept: what was decided on is what is forwarded. Only operations that the catalogue
//! marks `body: opaque` are streamed unread.

mod batch;
pub mod http;
pub mod jsonrpc;
pub mod mcp;
pub mod session;
pub mod splice;
pub mod sse;
pub mod told;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ::http::request::Parts;
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, Method, Request};
use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::call::{Asked, Era, Protocol, Shape, Stage, Stop, StopKind, TraceContext};
use crate::identify::Agent;
use crate::json::{Document, Limits};
use jsonrpc::{Form, Message};
use mcp::{Envelope, McpAction, OWN_TASK_PREFIX, TaskVerb};
use session::{Dialogue, Sessions};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Owned pairs of a query or a form.
pub type Pairs = Vec<(Cow<'static, str>, Cow<'static, str>)>;

/// What a body may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A body that is read whole, in bytes.
    pub body_bytes_max: usize,
    /// How long it may take to arrive.
    pub body_time_max: Duration,
    /// What JSON may be.
    pub json: Limits,
}

/// Where requests may go, and what they may be.
pub struct Decoder {
    /// What a body may be.
    pub bounds: Bounds,
    /// What bodies of all calls may take together.
    pub room: Room,
    /// Every upstream.
    pub routes: Routes,
    /// The names by which the gateway may be addressed, in lower case; empty for any.
    pub hosts: HashSet<String>,
    /// Legacy MCP sessions.
    pub sessions: Arc<Sessions>,
}

/// The memory that bodies share, so that many calls at once cannot use up the machine's. A body gives its part back when
/// the last of its bytes has gone.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

/// A body with its part of the [`Room`].
struct Kept {
    bytes: Bytes,
    _part: OwnedSemaphorePermit,
}

/// The upstreams by name and by host.
#[derive(Default)]
pub struct Routes {
    by_name: HashMap<Arc<str>, Arc<Route>, RandomState>,
    by_host: HashMap<String, Arc<Route>, RandomState>,
}

/// One upstream as routing sees it.
pub struct Route {
    /// Its name: the first segment of the agents' path.
    pub name: Arc<str>,
    /// Its protocol.
    pub kind: RouteKind,
    /// The host under which agents may reach it as well.
    pub host: Option<String>,
}

/// Whether the bodies of a method and path are streamed unread.
pub type IsOpaque = Box<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// The protocol of an upstream, and what routing must know of it.
pub enum RouteKind {
    /// Plain HTTP; the function says which method and path stream their bodies unread.
    Http(IsOpaque),
    /// MCP.
    Mcp(McpRoute),
}

/// What routing must know of an MCP upstream.
#[derive(Clone, Debug)]
pub struct McpRoute {
    /// Methods beyond those of MCP that are configured.
    pub methods: Vec<Arc<str>>,
    /// Whether it speaks Streamable HTTP.
    pub streamable: bool,
    /// Where it opens sessions of the transport of 2024-11-05, if it speaks that.
    pub sse: Option<PathAndQuery>,
}

/// A call, understood. It is moved, never cloned: what is decided on is what is sent. It goes its way in a box, so that
/// moving it is cheap and nothing that awaits it grows by it.
pub struct Call {
    agent: Agent,
    route: Arc<Route>,
    action: Action,
    head: Parts,
    payload: Payload,
    trace: Trace,
}

/// The body of a request as it comes in.
pub enum Inbound {
    /// From an agent, as it arrives.
    Arriving(Incoming),
    /// Made by the gateway.
    Whole(Bytes),
}

/// What a call wants.
#[derive(Debug)]
pub enum Action {
    /// A plain HTTP request.
    Http {
        /// The canonical path at the upstream.
        path: String,
        /// The query as sent, without `?`.
        raw_query: Option<String>,
        /// The query, decoded.
        query: Pairs,
    },
    /// An MCP message.
    Mcp(Envelope),
}

/// The body of a call.
pub enum Payload {
    /// A form, and the bytes it was parsed from.
    Form(Bytes, Pairs),
    /// JSON.
    Json(Document),
    /// There is none.
    None,
    /// Not read: it streams.
    Opaque(Incoming),
    /// Read whole, and neither JSON nor a form.
    Other(Bytes),
    /// A JSON-RPC message.
    Rpc(Message),
}

/// Where a call comes from in its trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace {
    /// The caller's span: from `_meta`, else from the header.
    pub parent: Option<TraceContext>,
    /// The header's, when `_meta` gave the parent.
    pub link: Option<TraceContext>,
}

/// What a request is.
pub enum Decoded {
    /// Several messages, each a call of its own [MCP 2025-03-26, basic: batching].
    Batch(Vec<Request<Inbound>>),
    /// One call.
    One(Box<Call>),
}

/// Understands a request. `shape` is brought up to date as soon as more is known of how to answer.
pub async fn call(
    decoder: &Decoder,
    agent: Agent,
    request: Request<Inbound>,
    shape: &mut Shape,
) -> Result<Decoded, Box<Stop>> {
    let (head, body) = request.into_parts();
    let authority = http::authority(&head)?;
    http::headers(&head.headers)?;
    if !decoder.hosts.is_empty() && !decoder.hosts.contains(http::host(&authority)) {
        let text = "this gateway is not addressed by that name";
        return Err(Stop::new(Stage::Decode, StopKind::Denied, "host", text));
    }
    let (route, path) = decoder.routes.find(&authority, head.uri.path())?;
    match &route.kind {
        RouteKind::Http(opaque) => {
            let action = http_action(&path, &head)?;
            let payload = match body {
                Inbound::Arriving(body) if opaque(head.method.as_str(), &path_of(&action)) => {
                    Payload::Opaque(body)
                }
                body => http_payload(decoder, &head.headers, body).await?,
            };
            let trace = Trace { parent: header_context(&head.headers), link: None };
            Ok(Decoded::One(Box::new(Call { agent, route, action, head, payload, trace })))
        }
        RouteKind::Mcp(mcp) => {
            http::same_origin(&head.headers, &authority)?;
            shape.protocol = Protocol::Mcp(Era::Legacy);
            let place = Place::of(mcp, &path, &route.name)?;
            let bytes = read(decoder, body).await?;
            if place == Place::Endpoint && batch::is_batch(&bytes) {
                let dialogue =
                    Dialogue::new(&decoder.sessions, agent.id(), &route.name, mcp::session(&head.headers)?);
                return batch::split(&decoder.bounds, &dialogue, &head, bytes).map(Decoded::Batch);
            }
            let (envelope, payload) =
                mcp_payload(decoder, (&agent, &route, mcp), place, &head, bytes, shape)?;
            let trace = mcp_trace(&envelope, &head.headers);
            let action = Action::Mcp(envelope);
            Ok(Decoded::One(Box::new(Call { agent, route, action, head, payload, trace })))
        }
    }
}

fn path_of(action: &Action) -> Cow<'_, str> {
    match action {
        Action::Http { path, .. } => Cow::Borrowed(path),
        Action::Mcp(_) => Cow::Borrowed("/mcp"),
    }
}

fn http_action(path: &str, head: &Parts) -> Result<Action, Box<Stop>> {
    let target = http::target(path, head.uri.query())?;
    let query = target.query.into_iter().map(|(key, value)| (own(key), own(value))).collect();
    Ok(Action::Http { path: target.path, raw_query: target.raw_query.map(str::to_owned), query })
}

fn own(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

async fn http_payload(decoder: &Decoder, headers: &HeaderMap, body: Inbound) -> Result<Payload, Box<Stop>> {
    let content = http::content(headers)?;
    let bytes = read(decoder, body).await?;
    let bounds = &decoder.bounds;
    if bytes.is_empty() {
        return Ok(Payload::None);
    }
    match content {
        http::Content::Json => {
            Ok(Payload::Json(Document::parse(bytes, &bounds.json).map_err(jsonrpc::refusal)?))
        }
        http::Content::Form => {
            let pairs = http::form(&bytes)?.into_iter().map(|(key, value)| (own(key), own(value))).collect();
            Ok(Payload::Form(bytes, pairs))
        }
        http::Content::None | http::Content::Other(_) => Ok(Payload::Other(bytes)),
    }
}

/// Where below an MCP upstream's name a request goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `/mcp`: Streamable HTTP.
    Endpoint,
    /// `/messages`: messages of a session of the transport of 2024-11-05.
    Messages,
    /// `/sse`: where such a session opens.
    Open,
}

impl Place {
    fn of(mcp: &McpRoute, path: &str, name: &str) -> Result<Place, Box<Stop>> {
        match path {
            "/mcp" if mcp.streamable => Ok(Place::Endpoint),
            "/messages" if mcp.sse.is_some() => Ok(Place::Messages),
            "/sse" if mcp.sse.is_some() => Ok(Place::Open),
            _ if mcp.streamable => Err(not_found(&format!("the MCP endpoint of `{name}` is /{name}/mcp"))),
            _ => Err(not_found(&format!("MCP sessions of `{name}` open at /{name}/sse"))),
        }
    }
}

fn mcp_payload(
    decoder: &Decoder,
    (agent, route, mcp): (&Agent, &Route, &McpRoute),
    place: Place,
    head: &Parts,
    bytes: Bytes,
    shape: &mut Shape,
) -> Result<(Envelope, Payload), Box<Stop>> {
    let dialogue = |session| Dialogue::new(&decoder.sessions, agent.id(), &route.name, session);
    if place == Place::Open {
        no_query(head)?;
        let at = mcp.sse.as_ref().filter(|_| bytes.is_empty());
        let at = at.ok_or_else(|| malformed("body", "only POST may have a body"))?;
        return Ok((mcp::open_session(&head.method, &head.headers, at)?, Payload::None));
    }
    let message = if head.method == Method::POST {
        let message = Message::read(bytes, &decoder.bounds.json)?;
        shape.asked = asked(&message);
        Some(message)
    } else if bytes.is_empty() {
        None
    } else {
        return Err(malformed("body", "only POST may have a body"));
    };
    if mcp::claims_modern(&head.headers, message.as_ref()) {
        shape.protocol = Protocol::Mcp(Era::Modern);
    }
    let mut envelope = mcp::envelope(&head.method, &head.headers, message.as_ref(), &mcp.methods)?;
    shape.protocol = Protocol::Mcp(envelope.era);
    if place == Place::Messages {
        if envelope.era == Era::Modern || message.is_none() {
            return Err(malformed("transport", "MCP 2024-11-05 posts its messages here, and nothing else"));
        }
        let session = head.uri.query().and_then(|query| query.strip_prefix("session=")).map(Arc::from);
        envelope.endpoint = dialogue(session.clone()).endpoint();
        envelope.session = Some(session.filter(|_| envelope.endpoint.is_some()).ok_or_else(session_unknown)?);
        envelope.drop_session = true;
    } else {
        no_query(head)?;
    }
    belongs(&dialogue(envelope.session.clone()), &mut envelope, message.as_ref())?;
    Ok((envelope, message.map_or(Payload::None, Payload::Rpc)))
}

fn no_query(head: &Parts) -> Result<(), Box<Stop>> {
    match head.uri.query() {
        Some(_) => Err(malformed("query", "an MCP endpoint takes no query")),
        None => Ok(()),
    }
}

fn session_unknown() -> Box<Stop> {
    let text = "no such session: initialize again";
    Stop::new(Stage::Decode, StopKind::SessionUnknown, "session", text)
}

/// Holds a message to what this agent has begun with this upstream: its session, its task, the question that it answers.
fn belongs(dialogue: &Dialogue, envelope: &mut Envelope, message: Option<&Message>) -> Result<(), Box<Stop>> {
    let stop = |kind, reason, text: &str| Err(Stop::new(Stage::Decode, kind, reason, text));
    if !dialogue.is_bound() {
        return Err(session_unknown());
    }
    match &mut envelope.action {
        McpAction::Reply { to, .. } => {
            match message.and_then(Message::id).and_then(|id| dialogue.question(id)) {
                Some(question) => *to = question,
                None => {
                    return stop(
                        StopKind::Denied,
                        "reply-unasked",
                        "the upstream has asked nothing under this id",
                    );
                }
            }
        }
        McpAction::Task { .. } if envelope.era == Era::Modern && !envelope.tasks_extension => {
            return stop(
                StopKind::TaskUnknown,
                "tasks-undeclared",
                "the client does not declare io.modelcontextprotocol/tasks",
            );
        }
        // Whose it is, is seen where it is kept.
        McpAction::Task { id, .. } if envelope.era == Era::Modern && id.starts_with(OWN_TASK_PREFIX) => {}
        McpAction::Task { verb, id, tool } if *verb != TaskVerb::List => match dialogue.tool_of(id) {
            Some(begun) => *tool = begun,
            None => return stop(StopKind::TaskUnknown, "task-unknown", "no such task"),
        },
        _ => {}
    }
    Ok(())
}

fn asked(message: &Message) -> Asked {
    match message.form() {
        Form::Request { id, method } if &**method == "tools/call" => {
            Asked::ToolCall(id.to_json().to_string())
        }
        Form::Request { id, .. } => Asked::Request(id.to_json().to_string()),
        Form::Notification { .. } | Form::Response { .. } => Asked::Notification,
    }
}

/// The context in the one `traceparent` header [W3C Trace Context §3.2]; several say nothing.
pub fn header_context(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| TraceContext::parse(first)).flatten()
}

fn mcp_trace(envelope: &Envelope, headers: &HeaderMap) -> Trace {
    let header = header_context(headers);
    match envelope.traceparent.as_deref().and_then(TraceContext::parse) {
        Some(parent) => Trace { parent: Some(parent), link: header },
        None => Trace { parent: header, link: None },
    }
}

/// Reads a body whole, within its bounds.
async fn read(decoder: &Decoder, body: Inbound) -> Result<Bytes, Box<Stop>> {
    let bounds = &decoder.bounds;
    let body = match body {
        Inbound::Arriving(body) => body,
        Inbound::Whole(bytes) => return Ok(bytes),
    };
    let reading = tokio::time::timeout(
        bounds.body_time_max,
        read_unbounded_time(bounds.body_bytes_max, &decoder.room, body),
    );
    reading.await.unwrap_or_else(|_| {
        Err(Stop::new(Stage::Decode, StopKind::Malformed, "body-slow", "the body took too long to arrive"))
    })
}

async fn read_unbounded_time(bytes_max: usize, room: &Room, mut body: Incoming) -> Result<Bytes, Box<Stop>> {
    let oversize = || {
        let text = format!("the body is larger than {bytes_max} bytes");
        Stop::new(Stage::Decode, StopKind::Oversize, "body-size", text)
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(oversize());
    }
    let mut part = room.take(0)?;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Stop::new(Stage::Decode, StopKind::Malformed, "body-broken", "the body broke off")
                .operator(error.to_string())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > bytes_max {
            return Err(oversize());
        }
        part.merge(room.take(data.len())?);
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    let bytes = if rest.is_empty() {
        first
    } else {
        let mut whole = BytesMut::with_capacity(first.len() + rest.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&rest);
        whole.freeze()
    };
    Ok(if bytes.is_empty() { bytes } else { Bytes::from_owner(Kept { bytes, _part: part }) })
}

fn not_found(text: &str) -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::NotFound, "route", text)
}

// === impl Room ===

impl Room {
    /// What all bodies may take at least, and how many of the largest ones must fit.
    const BYTES_MIN: usize = 256 << 20;
    const BODIES_MIN: usize = 16;

    /// The room for bodies of these bounds.
    pub fn new(bounds: &Bounds) -> Room {
        let bytes = bounds.body_bytes_max.saturating_mul(Room::BODIES_MIN).max(Room::BYTES_MIN);
        Room(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Box<Stop>> {
        let part = u32::try_from(bytes).ok().and_then(|n| Arc::clone(&self.0).try_acquire_many_owned(n).ok());
        part.ok_or_else(|| {
            let text = "too many bodies are under way; nothing was sent. Try again.";
            Stop::new(Stage::Decode, StopKind::Unavailable, "overload", text)
                .retry_after(Duration::from_secs(1))
        })
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Routes ===

impl Routes {
    /// The routes to these upstreams.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Routes {
        let mut made = Routes::default();
        for route in routes.into_iter().map(Arc::new) {
            if let Some(host) = &route.host {
                made.by_host.insert(host.clone(), Arc::clone(&route));
            }
            made.by_name.insert(Arc::clone(&route.name), route);
        }
        made
    }

    /// The upstream of a request, by host or by the first segment of its path, and the path there.
    fn find(&self, authority: &str, path: &str) -> Result<(Arc<Route>, String), Box<Stop>> {
        let host = http::host(authority);
        if let Some(route) = self.by_host.get(authority).or_else(|| self.by_host.get(host)) {
            return Ok((Arc::clone(route), path.to_owned()));
        }
        let found = http::route(path).and_then(|(name, rest)| Some((self.by_name.get(name)?, rest)));
        let (route, rest) = found.ok_or_else(|| not_found("no such upstream"))?;
        Ok((Arc::clone(route), if rest.is_empty() { "/".to_owned() } else { rest.to_owned() }))
    }
}

// === impl Payload ===

impl Payload {
    /// Its size in bytes; 0 for one that streams.
    pub fn len(&self) -> usize {
        match self {
            Payload::Form(bytes, _) | Payload::Other(bytes) => bytes.len(),
            Payload::Json(document) => document.bytes().len(),
            Payload::None | Payload::Opaque(_) => 0,
            Payload::Rpc(message) => message.bytes().len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Payload::None)
    }
}

// === impl Call ===

impl Call {
    /// Who calls.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Where it goes.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// What it wants.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Method and headers as they came.
    pub fn head(&self) -> &Parts {
        &self.head
    }

    /// Its body.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Where it comes from in its trace.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// The MCP envelope, when it is one.
    pub fn envelope(&self) -> Option<&Envelope> {
        match &self.action {
            Action::Mcp(envelope) => Some(envelope),
            Action::Http { .. } => None,
        }
    }

    /// The MCP message, when there is one.
    pub fn message(&self) -> Option<&Message> {
        match &self.payload {
            Payload::Rpc(message) => Some(message),
            _ => None,
        }
    }

    /// Whether this is a stream that may stay open without end.
    pub fn is_standing(&self) -> bool {
        self.envelope().is_some_and(|envelope| {
            matches!(envelope.action, McpAction::Listen | McpAction::OpenSession | McpAction::OpenStream)
        })
    }

    /// The same call with another message.
    pub(crate) fn speaking(mut self: Box<Self>, message: Message) -> Box<Call> {
        self.payload = Payload::Rpc(message);
        self
    }

    /// The same call by what is known of its agent now.
    pub(crate) fn renewed(mut self: Box<Self>, agent: Agent) -> Box<Call> {
        self.agent = agent;
        self
    }

    /// Takes the call apart, to send it.
    pub(crate) fn into_parts(self) -> (Arc<Route>, Action, Parts, Payload) {
        (self.route, self.action, self.head, self.payload)
    }
}

// === refusals ===

fn malformed(reason: &'static str, text: &str) -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::Malformed, reason, text)
}

fn ambiguous(reason: &'static str, text: &str) -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::Ambiguous, reason, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_all_calls_together_have_a_bound() {
        let bounds = Bounds { body_bytes_max: 1, body_time_max: Duration::ZERO, json: Limits::default() };
        let room = Room::new(&bounds);
        let body = |bytes| Some(Kept { bytes: Bytes::from_static(b"x"), _part: room.take(bytes).ok()? });
        let large = Bytes::from_owner(body(Room::BYTES_MIN - 1).unwrap());
        let slice = large.slice(..1);
        assert!(body(1).is_some());
        assert!(body(2).is_none());
        drop(large);
        assert!(body(2).is_none());
        drop(slice);
        assert!(body(2).is_some());
    }
}
