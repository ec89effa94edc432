//! MCP over Streamable HTTP: which era a request belongs to, and which of the known actions it is.
//!
//! Each request is read in the era in which it came [MCP 2026-07-28, basic/versioning], and one whose markers point to
//! both is read in none: a legacy upstream and a modern one would act on different parts of it. In the modern era the
//! body decides and the headers must repeat it, so that whoever routes by headers has seen the same call.

mod action;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, header};

use super::http::media_type;
use super::jsonrpc::{Form, Message};
use super::{ambiguous, malformed};
use crate::call::{Era, Stage, Stop, StopKind};
use crate::json::{Kind, Value};
pub use action::{McpAction, TaskVerb};

/// The first revision without sessions.
const MODERN_SINCE: &str = "2026-07-28";
const LEGACY_VERSIONS: [&str; 5] = ["2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// How the ids of tasks begin that are the gateway's own.
pub const OWN_TASK_PREFIX: &str = "holdpoint-";

const NAME_BYTES_MAX: usize = 256;
const URI_BYTES_MAX: usize = 8192;
const SESSION_BYTES_MAX: usize = 256;
const VERSION_BYTES_MAX: usize = 64;

/// A request understood: its era, what it wants, and what its headers and `_meta` say about it.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The era in which it is read, relayed and answered.
    pub era: Era,
    /// What it wants.
    pub action: McpAction,
    /// The protocol version that it names.
    pub version: Option<Arc<str>>,
    /// Where at the upstream it goes, when that is not the one endpoint of Streamable HTTP.
    pub endpoint: Option<PathAndQuery>,
    /// The legacy session that it names.
    pub session: Option<Arc<str>>,
    /// Whether `Mcp-Session-Id` and `Last-Event-ID` came although the modern era has none: they must not be forwarded.
    pub drop_session: bool,
    /// Whether it asks for progress.
    pub progress_token: bool,
    /// Whether the client declares the tasks extension, and so may be answered with a task.
    pub tasks_extension: bool,
    /// `_meta.traceparent`, unchecked.
    pub traceparent: Option<Arc<str>>,
    /// `_meta.tracestate`, unchecked.
    pub tracestate: Option<Arc<str>>,
}

/// Whether a request carries a modern marker, so that even its refusal is in the modern shape.
pub fn claims_modern(headers: &HeaderMap, message: Option<&Message>) -> bool {
    let header = headers.get(VERSION).and_then(|value| value.to_str().ok());
    header.is_some_and(|version| version >= MODERN_SINCE)
        || message.and_then(Message::meta).is_some_and(|meta| meta.get(META_VERSION).is_some())
}

/// The legacy session that a request names.
pub fn session(headers: &HeaderMap) -> Result<Option<Arc<str>>, Box<Stop>> {
    Routing::read(headers, None)?.session()
}

/// Understands the request that opens a session of the transport of 2024-11-05, at this path of the upstream.
pub fn open_session(method: &Method, headers: &HeaderMap, at: &PathAndQuery) -> Result<Envelope, Box<Stop>> {
    if method != Method::GET {
        return Err(method_not_allowed());
    }
    if !accepts_events(headers) {
        return Err(malformed("accept", "GET needs Accept: text/event-stream"));
    }
    if headers.contains_key("last-event-id") || headers.contains_key(SESSION) {
        return Err(malformed("session-id", "MCP 2024-11-05 names no session and resumes no stream"));
    }
    let stream = Routing::read(headers, None)?.bodiless(McpAction::OpenSession)?;
    Ok(Envelope { endpoint: Some(at.clone()), ..stream })
}

/// Understands one request on an MCP endpoint; `message` is its body, when it has one, and `methods` are those that
/// configuration adds to the protocol's.
pub fn envelope(
    method: &Method,
    headers: &HeaderMap,
    message: Option<&Message>,
    methods: &[Arc<str>],
) -> Result<Envelope, Box<Stop>> {
    let routing = Routing::read(headers, message)?;
    match (method, message) {
        (&Method::POST, Some(message)) => {
            content(headers)?;
            match routing.era(message)? {
                Era::Legacy => routing.legacy(message, methods),
                Era::Modern => routing.modern(headers, message, methods),
            }
        }
        (&Method::POST, None) => Err(malformed("empty-body", "POST needs a JSON-RPC message")),
        (&Method::DELETE, None) => routing.bodiless(McpAction::EndSession),
        (&Method::GET, None) => {
            let stream = routing.bodiless(McpAction::OpenStream)?;
            if stream.session.is_none() && headers.contains_key("last-event-id") {
                // It could be an event of somebody else's stream.
                return Err(malformed("last-event-id", "Last-Event-ID needs the session of its stream"));
            }
            if !accepts_events(headers) {
                return Err(malformed("accept", "GET needs Accept: text/event-stream"));
            }
            Ok(stream)
        }
        (&Method::DELETE | &Method::GET, Some(_)) => {
            Err(malformed("body-unexpected", "only POST has a body"))
        }
        _ => Err(method_not_allowed()),
    }
}

fn method_not_allowed() -> Box<Stop> {
    Stop::new(
        Stage::Decode,
        StopKind::NotFound,
        "method-not-allowed",
        "this endpoint does not have that HTTP method",
    )
}

fn content(headers: &HeaderMap) -> Result<(), Box<Stop>> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(malformed("content-encoding", "request bodies must not be encoded"));
    }
    match media_type(headers)? {
        Some(media) if media.essence == "application/json" && media.utf8() => Ok(()),
        _ => Err(malformed("content-type", "Content-Type must be application/json in UTF-8")),
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case("text/event-stream"))
}

// === routing headers ===

/// The headers that MCP routes by, each at most once.
struct Routing<'h> {
    version: Option<&'h str>,
    method: Option<&'h str>,
    name: Option<&'h str>,
    session: Option<&'h str>,
}

impl<'h> Routing<'h> {
    fn read(headers: &'h HeaderMap, message: Option<&Message>) -> Result<Routing<'h>, Box<Stop>> {
        let header_modern = headers
            .get_all(VERSION)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| is_modern(text.trim())));
        let kind = if header_modern || message.is_some_and(|message| meta(message, META_VERSION).is_some()) {
            StopKind::HeaderMismatch
        } else {
            StopKind::Ambiguous
        };
        let single = |name| single(headers, name, kind);
        Ok(Routing {
            version: single(VERSION)?,
            method: single(METHOD)?,
            name: single(NAME)?,
            session: single(SESSION)?,
        })
    }

    fn era(&self, message: &Message) -> Result<Era, Box<Stop>> {
        let disagree = || ambiguous("era", "the request has markers of two eras of MCP");
        let header = self.version.is_some_and(is_modern);
        let body = meta(message, META_VERSION);
        if message.method() == Some("initialize") && header != body.is_some() {
            return Err(disagree());
        }
        match (header, body) {
            (false, None) => Ok(Era::Legacy),
            (true, _) => Ok(Era::Modern),
            (false, Some(_)) if self.session.is_some() => Err(disagree()),
            (false, Some(body)) => match self.version.filter(|version| LEGACY_VERSIONS.contains(version)) {
                Some(legacy) if body.string().as_deref() == Some(legacy) => Err(disagree()),
                _ => Ok(Era::Modern),
            },
        }
    }

    fn bodiless(&self, action: McpAction) -> Result<Envelope, Box<Stop>> {
        if self.version.is_some_and(is_modern) {
            return Err(method_not_allowed());
        }
        self.legacy_version()?;
        Ok(Envelope {
            era: Era::Legacy,
            action,
            version: self.version.map(Arc::from),
            endpoint: None,
            session: self.session()?,
            drop_session: false,
            progress_token: false,
            tasks_extension: false,
            traceparent: None,
            tracestate: None,
        })
    }

    fn legacy(&self, message: &Message, methods: &[Arc<str>]) -> Result<Envelope, Box<Stop>> {
        self.legacy_version()?;
        let action = match message.form() {
            Form::Request { method, .. } => asked(Era::Legacy, method, message.params(), methods)?,
            Form::Notification { method } => told(Era::Legacy, method, methods)?,
            Form::Response { is_error, empty, .. } => {
                McpAction::Reply { to: Arc::from(""), empty_or_error: *is_error || *empty }
            }
        };
        // Legacy clients send neither header; somebody on the way may still route by them.
        let repeated = |header: Option<&str>, body: Option<&str>| {
            header.is_none_or(|text| decoded(text).as_deref() == body)
        };
        if !repeated(self.method, message.method())
            || self.name.is_some() && !repeated(self.name, action.mirrored())
        {
            return Err(ambiguous("header-mismatch", "Mcp-Method or Mcp-Name differs from the body"));
        }
        let session = self.session()?;
        Ok(Envelope {
            version: self.version.map(Arc::from),
            session,
            ..described(Era::Legacy, action, message)
        })
    }

    fn modern(
        &self,
        headers: &HeaderMap,
        message: &Message,
        methods: &[Arc<str>],
    ) -> Result<Envelope, Box<Stop>> {
        let version = self.modern_version(message)?;
        let action = match message.form() {
            Form::Request { method, .. } => {
                mirror("Mcp-Method", self.method, method)?;
                if !meta(message, META_CAPABILITIES).is_some_and(|value| value.kind() == Kind::Object) {
                    return Err(malformed(
                        "meta-missing",
                        "_meta needs io.modelcontextprotocol/clientCapabilities",
                    ));
                }
                asked(Era::Modern, method, message.params(), methods)?
            }
            Form::Notification { method } => {
                if self.method.is_some() {
                    mirror("Mcp-Method", self.method, method)?;
                }
                told(Era::Modern, method, methods)?
            }
            Form::Response { .. } => {
                return Err(malformed("response-unexpected", "MCP 2026-07-28 has no responses from clients"));
            }
        };
        if let Some(name) = action.mirrored() {
            mirror("Mcp-Name", self.name, name)?;
        }
        let drop_session = self.session.is_some() || headers.contains_key("last-event-id");
        Ok(Envelope { version: Some(version), drop_session, ..described(Era::Modern, action, message) })
    }

    /// The version of a modern message, on which header and body agree.
    fn modern_version(&self, message: &Message) -> Result<Arc<str>, Box<Stop>> {
        let body = match (meta(message, META_VERSION), message.form()) {
            (Some(value), _) => {
                value.string().ok_or_else(|| malformed("meta", "the protocol version must be a string"))?
            }
            (None, Form::Request { .. }) => {
                return Err(malformed("meta-missing", "_meta needs io.modelcontextprotocol/protocolVersion"));
            }
            (None, Form::Notification { .. } | Form::Response { .. }) => {
                self.version.unwrap_or_default().into()
            }
        };
        mirror("MCP-Protocol-Version", self.version, &body)?;
        // A version that the upstream does not speak is the upstream's to refuse, with the list of those it does.
        if !is_version(&body) {
            return Err(malformed("protocol-version", "the protocol version is not a version"));
        }
        Ok(Arc::from(&*body))
    }

    fn legacy_version(&self) -> Result<(), Box<Stop>> {
        match self.version {
            Some(text) if !is_version(text) => {
                Err(malformed("protocol-version", "MCP-Protocol-Version is not a version"))
            }
            _ => Ok(()),
        }
    }

    fn session(&self) -> Result<Option<Arc<str>>, Box<Stop>> {
        let Some(text) = self.session else { return Ok(None) };
        if text.is_empty()
            || text.len() > SESSION_BYTES_MAX
            || !text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(malformed("session-id", "Mcp-Session-Id must be 1 to 256 visible ASCII characters"));
        }
        Ok(Some(Arc::from(text)))
    }
}

fn single(headers: &HeaderMap, name: HeaderName, kind: StopKind) -> Result<Option<&str>, Box<Stop>> {
    let mut values = headers.get_all(&name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let text = format!("the header {name} came more than once");
        return Err(Stop::new(Stage::Decode, kind, "duplicate-header", text));
    }
    let text = first.to_str().map_err(|_| {
        let text = format!("the header {name} has characters that are not visible ASCII");
        Stop::new(Stage::Decode, kind, "header-encoding", text)
    })?;
    Ok(Some(text.trim_matches([' ', '\t'])))
}

/// Holds a header to the value in the body that it must repeat.
fn mirror(name: &str, header: Option<&str>, body: &str) -> Result<(), Box<Stop>> {
    let mismatch = |reason, text| Err(Stop::new(Stage::Decode, StopKind::HeaderMismatch, reason, text));
    let Some(header) = header else {
        return mismatch("header-missing", format!("the header {name} is required"));
    };
    match decoded(header) {
        Some(value) if value == body => Ok(()),
        Some(_) => mismatch("header-mismatch", format!("the header {name} differs from the body")),
        None => mismatch("header-encoding", format!("the header {name} is not valid Base64 of UTF-8")),
    }
}

/// The value of a header that may be wrapped as `=?base64?…?=`; `None` when it is wrapped and cannot be read.
fn decoded(header: &str) -> Option<String> {
    match header.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
        None => Some(header.to_owned()),
    }
}

/// Whether a text can be a version at all, known or not.
fn is_version(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=VERSION_BYTES_MAX).contains(&text.len()) && text.bytes().all(token)
}

fn is_date(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
}

fn is_modern(text: &str) -> bool {
    is_date(text) && text >= MODERN_SINCE
}

// === actions ===

fn meta<'m>(message: &'m Message, key: &str) -> Option<Value<'m>> {
    message.meta()?.get(key)
}

/// What `_meta` says about a message, beside its version.
fn described(era: Era, action: McpAction, message: &Message) -> Envelope {
    let text = |key| meta(message, key).and_then(|value| value.string()).map(|text| Arc::from(&*text));
    let tasks = || meta(message, META_CAPABILITIES)?.get("extensions")?.get(TASKS);
    Envelope {
        era,
        action,
        version: None,
        endpoint: None,
        session: None,
        drop_session: false,
        progress_token: meta(message, "progressToken").is_some(),
        tasks_extension: tasks().is_some_and(|value| value.kind() == Kind::Object),
        traceparent: text("traceparent"),
        tracestate: text("tracestate"),
    }
}

/// The action of a request.
fn asked(
    era: Era,
    method: &str,
    params: Option<Value<'_>>,
    methods: &[Arc<str>],
) -> Result<McpAction, Box<Stop>> {
    use Era::{Legacy, Modern};
    Ok(match (era, method) {
        (Legacy, "initialize") => McpAction::Initialize,
        (Legacy, "logging/setLevel") => McpAction::SetLevel,
        (Legacy, "ping") => McpAction::Ping,
        (Legacy, "resources/subscribe") => McpAction::Subscribe { uri: uri(params)? },
        (Legacy, "resources/unsubscribe") => McpAction::Unsubscribe { uri: uri(params)? },
        (Legacy, "tasks/list") => {
            McpAction::Task { verb: TaskVerb::List, id: Arc::from(""), tool: Arc::from("") }
        }
        (Legacy, "tasks/result") => task(TaskVerb::Result, params)?,
        (Modern, "server/discover") => McpAction::Discover,
        (Modern, "subscriptions/listen") => McpAction::Listen,
        (Modern, "tasks/update") => task(TaskVerb::Update, params)?,
        (_, "completion/complete") => McpAction::Complete,
        (_, "prompts/get") => McpAction::GetPrompt { name: invoked(params)? },
        (_, "prompts/list") => McpAction::ListPrompts,
        (_, "resources/list") => McpAction::ListResources,
        (_, "resources/read") => McpAction::ReadResource { uri: uri(params)? },
        (_, "resources/templates/list") => McpAction::ListResourceTemplates,
        (_, "tasks/cancel") => task(TaskVerb::Cancel, params)?,
        (_, "tasks/get") => task(TaskVerb::Get, params)?,
        (_, "tools/call") => McpAction::CallTool { name: invoked(params)? },
        (_, "tools/list") => McpAction::ListTools,
        _ if method.starts_with("notifications/") => {
            return Err(malformed("id-unexpected", "a notification has no id"));
        }
        _ => return other(method, methods),
    })
}

/// A method that is not of MCP: one that is configured, or none.
fn other(method: &str, methods: &[Arc<str>]) -> Result<McpAction, Box<Stop>> {
    let configured = methods.iter().find(|configured| ***configured == *method);
    configured.map(|method| McpAction::Other { method: Arc::clone(method) }).ok_or_else(unknown)
}

/// The action of a notification.
fn told(era: Era, method: &str, methods: &[Arc<str>]) -> Result<McpAction, Box<Stop>> {
    Ok(match (era, method) {
        (_, "notifications/cancelled") => McpAction::Cancelled,
        (Era::Legacy, "notifications/initialized") => McpAction::Initialized,
        (Era::Legacy, "notifications/progress") => McpAction::Progress,
        (Era::Legacy, "notifications/roots/list_changed") => McpAction::RootsChanged,
        // Some servers execute a request without an id, and answer nobody.
        _ if !method.starts_with("notifications/") => return Err(malformed("id", "a request needs an id")),
        _ => return other(method, methods),
    })
}

fn unknown() -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::MethodUnknown, "method-unknown", "no such method")
}

/// The name of a tool or prompt whose arguments, when there are any, are an object.
fn invoked(params: Option<Value<'_>>) -> Result<Arc<str>, Box<Stop>> {
    let arguments = params.and_then(|params| params.get("arguments"));
    if arguments.is_some_and(|value| !matches!(value.kind(), Kind::Object | Kind::Null)) {
        return Err(malformed("arguments", "params.arguments must be an object"));
    }
    text(params, "name", NAME_BYTES_MAX)
        .ok_or_else(|| malformed("name", "params.name must be 1 to 256 printable bytes"))
}

fn uri(params: Option<Value<'_>>) -> Result<Arc<str>, Box<Stop>> {
    text(params, "uri", URI_BYTES_MAX)
        .ok_or_else(|| malformed("uri", "params.uri must be 1 to 8192 printable bytes"))
}

fn task(verb: TaskVerb, params: Option<Value<'_>>) -> Result<McpAction, Box<Stop>> {
    let id = text(params, "taskId", NAME_BYTES_MAX)
        .ok_or_else(|| malformed("task-id", "params.taskId must be 1 to 256 printable bytes"))?;
    Ok(McpAction::Task { verb, id, tool: Arc::from("") })
}

fn text(params: Option<Value<'_>>, key: &str, bytes_max: usize) -> Option<Arc<str>> {
    let text = params?.get(key)?.string()?;
    let fits = (1..=bytes_max).contains(&text.len());
    (fits && text.trim().len() == text.len() && !text.chars().any(hidden)).then(|| Arc::from(&*text))
}

/// Characters that people do not see, or that change how they see others: a name with one is not what it looks like.
fn hidden(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
