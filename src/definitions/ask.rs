//! Asking an MCP server for its lists, as a client of its own: no agent's session, no agent's credential.
//!
//! It begins in the legacy era, in a session that it ends again, and goes on in the modern one where the server knows no
//! other. It declares no capability, so the server has nothing to ask. What is read is bounded in every direction: bytes,
//! items, pages, and time.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::decode::jsonrpc::Id;
use crate::decode::sse::{self, Scanner};
use crate::decode::told::Members;
use crate::forward::Upstream;
use crate::forward::outgoing::Outgoing;
use crate::forward::pool::Lent;
use crate::net::AGENT_HEADER;

/// Who asks, to a server inside this process, which keeps callers apart. It is no SPIFFE ID, so it is no agent's.
pub const CALLER: &str = "holdpoint-gateway";
/// How the gateway names itself to upstreams.
pub const AGENT: &str = concat!("holdpoint/", env!("CARGO_PKG_VERSION"));

/// Items in one list.
pub const ITEMS_MAX: usize = 16_384;
/// Pages of one list.
pub const PAGES_MAX: usize = 1_024;
/// All pages of one list, in bytes.
pub const LIST_BYTES_MAX: usize = 32 << 20;
/// One page, in bytes.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// One whole conversation.
pub const CONVERSATION_TIME_MAX: Duration = Duration::from_secs(60);
/// The end of a session is told, and not waited for longer than this.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// What is offered in the legacy era; the server may answer with an earlier one.
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The server answered with an error.
    #[error("it answered `{method}` with the error {code}: {message}")]
    Error {
        /// What was asked.
        method: &'static str,
        /// The code.
        code: i64,
        /// Its words, cut short.
        message: String,
    },
    /// It does not end, or is larger than can be kept.
    #[error("its list has more than {0}")]
    Endless(String),
    /// It is not there, or broke off.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The conversation took too long.
    #[error("it took longer than {} s", CONVERSATION_TIME_MAX.as_secs())]
    Slow,
    /// It refused with this status.
    #[error("it answered `{method}` with status {status}")]
    Status {
        /// What was asked.
        method: &'static str,
        /// The status.
        status: u16,
    },
    /// What it said is no list.
    #[error("its answer to `{0}` cannot be read")]
    Unreadable(&'static str),
}

/// A list that an MCP server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
    /// `tools/list`.
    Tools,
}

impl List {
    fn method(self) -> &'static str {
        match self {
            List::Prompts => "prompts/list",
            List::Resources => "resources/list",
            List::Templates => "resources/templates/list",
            List::Tools => "tools/list",
        }
    }

    fn array(self) -> &'static str {
        match self {
            List::Prompts => "prompts",
            List::Resources => "resources",
            List::Templates => "resourceTemplates",
            List::Tools => "tools",
        }
    }
}

/// The items of one list, as they were written.
pub type Items = Vec<Box<RawValue>>;

/// Asks for these lists, in this order.
pub async fn lists(
    upstream: &Upstream,
    credential: Option<(HeaderName, HeaderValue)>,
    lists: &[List],
) -> Result<Vec<Items>, Problem> {
    let mut client = Client { upstream, credential, said: HeaderMap::new(), modern: false, next_id: 1 };
    let asking = async {
        client.begin().await?;
        let mut found = Vec::with_capacity(lists.len());
        for list in lists {
            found.push(client.list(*list).await?);
        }
        Ok(found)
    };
    let answered = tokio::time::timeout(CONVERSATION_TIME_MAX, asking).await.unwrap_or(Err(Problem::Slow));
    client.end().await;
    answered
}

/// One conversation.
struct Client<'u> {
    upstream: &'u Upstream,
    credential: Option<(HeaderName, HeaderValue)>,
    /// What every later request repeats: version, session.
    said: HeaderMap,
    modern: bool,
    next_id: i64,
}

impl Client<'_> {
    async fn begin(&mut self) -> Result<(), Problem> {
        let info = json!({"name": "holdpoint", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": info});
        match self.ask("initialize", params).await {
            Ok((text, headers)) => {
                let version = result(&text).and_then(|result| result.text("protocolVersion"));
                let version = version.and_then(|version| HeaderValue::from_str(&version).ok());
                self.said.insert(VERSION, version.ok_or(Problem::Unreadable("initialize"))?);
                if let Some(session) = headers.get(SESSION) {
                    self.said.insert(SESSION, session.clone());
                }
                self.tell("notifications/initialized").await
            }
            // It knows no handshake [MCP 2026-07-28, basic/versioning].
            Err(Problem::Error { .. }) => self.go_modern(),
            Err(Problem::Status { status: 400 | 404 | 405, .. }) => self.go_modern(),
            Err(problem) => Err(problem),
        }
    }

    fn go_modern(&mut self) -> Result<(), Problem> {
        self.modern = true;
        self.said.insert(VERSION, HeaderValue::from_static(MODERN));
        Ok(())
    }

    async fn list(&mut self, list: List) -> Result<Items, Problem> {
        let method = list.method();
        let mut items: Items = Vec::new();
        let (mut cursor, mut bytes) = (None::<String>, 0);
        for _ in 0..PAGES_MAX {
            let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let text = match self.ask(method, params).await {
                Ok((text, _)) => text,
                // A server without such things need not know the method.
                Err(Problem::Error { code: -32601, .. }) if cursor.is_none() => return Ok(items),
                Err(problem) => return Err(problem),
            };
            bytes += text.len();
            if bytes > LIST_BYTES_MAX {
                return Err(Problem::Endless(format!("{LIST_BYTES_MAX} bytes")));
            }
            let result = result(&text).ok_or(Problem::Unreadable(method))?;
            let page =
                result.get(list.array()).and_then(|page| serde_json::from_str::<Items>(page.get()).ok());
            items.extend(page.ok_or(Problem::Unreadable(method))?);
            if items.len() > ITEMS_MAX {
                return Err(Problem::Endless(format!("{ITEMS_MAX} items")));
            }
            match result.text("nextCursor") {
                None => return Ok(items),
                next if next == cursor => {
                    return Err(Problem::Endless("one page that follows itself".to_owned()));
                }
                next => cursor = next,
            }
        }
        Err(Problem::Endless(format!("{PAGES_MAX} pages")))
    }

    /// Asks, and gives the whole response, which has a result.
    async fn ask(
        &mut self,
        method: &'static str,
        mut params: Value,
    ) -> Result<(Vec<u8>, HeaderMap), Problem> {
        let id = self.next_id;
        self.next_id += 1;
        if self.modern {
            let info = json!({"name": "holdpoint", "version": env!("CARGO_PKG_VERSION")});
            if let Some(params) = params.as_object_mut() {
                params.insert(
                    "_meta".to_owned(),
                    json!({"io.modelcontextprotocol/protocolVersion": MODERN,
                        "io.modelcontextprotocol/clientCapabilities": {}, "io.modelcontextprotocol/clientInfo": info}),
                );
            }
        }
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let (response, lent) = self.send(Method::POST, Some(&message), method).await?;
        let (head, body) = response.into_parts();
        let text = answer(body, &head.headers, lent, &Id::Number(id), method).await;
        if !head.status.is_success() {
            // A modern server refuses with a status and says in the body what it refused.
            return Err(text
                .ok()
                .and_then(|text| error(&text, method))
                .unwrap_or(Problem::Status { method, status: head.status.as_u16() }));
        }
        let text = text?;
        match error(&text, method) {
            Some(problem) => Err(problem),
            None => Ok((text, head.headers)),
        }
    }

    async fn tell(&mut self, method: &'static str) -> Result<(), Problem> {
        let message = json!({"jsonrpc": "2.0", "method": method});
        let (response, _lent) = self.send(Method::POST, Some(&message), method).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(Problem::Status { method, status: status.as_u16() }),
        }
    }

    async fn end(mut self) {
        if self.said.contains_key(SESSION) {
            // Whether the server heard it is its own affair.
            let ending = self.send(Method::DELETE, None, "the end");
            drop(tokio::time::timeout(FAREWELL_TIME_MAX, ending).await);
        }
    }

    async fn send(
        &mut self,
        verb: Method,
        message: Option<&Value>,
        method: &'static str,
    ) -> Result<(Response<Incoming>, Lent), Problem> {
        let body = message.map(|message| Bytes::from(message.to_string()));
        let mut request = Request::new(Outgoing::Whole(body.iter().cloned().collect()));
        *request.method_mut() = verb;
        *request.uri_mut() = Uri::from(self.upstream.path.clone());
        let headers = request.headers_mut();
        headers.extend(self.said.clone());
        headers.insert(HOST, self.upstream.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(body) = &body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if self.modern {
            headers.insert(METHOD, HeaderValue::from_static(method));
        }
        if self.upstream.pool.dial().inside.is_some() {
            headers.insert(HeaderName::from_static(AGENT_HEADER), HeaderValue::from_static(CALLER));
        }
        if let Some((name, value)) = &self.credential {
            headers.insert(name.clone(), value.clone());
        }
        let sent = tokio::time::timeout(self.upstream.timeout, self.upstream.pool.send(request)).await;
        match sent {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(failure)) => Err(Problem::Unreachable(failure.to_string())),
            Err(_) => Err(Problem::Slow),
        }
    }
}

/// Reads a body up to the response with this id: the whole of a JSON text, or the one event of a stream.
async fn answer(
    mut body: Incoming,
    headers: &HeaderMap,
    mut lent: Lent,
    id: &Id,
    method: &'static str,
) -> Result<Vec<u8>, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut events = kind.trim_start().starts_with("text/event-stream").then(|| Scanner::new(PAGE_BYTES_MAX));
    let (mut whole, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::Unreachable(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len();
        if bytes > PAGE_BYTES_MAX {
            return Err(Problem::Endless(format!("{PAGE_BYTES_MAX} bytes on one page")));
        }
        match &mut events {
            None => whole.extend_from_slice(&data),
            Some(scanner) => {
                let found = scanner.feed(&data).into_iter().find(|event| sse::is_response(&event.data, id));
                if let Some(event) = found {
                    return Ok(event.data);
                }
            }
        }
    }
    lent.give_back();
    if events.is_some() || !sse::is_response(&whole, id) {
        return Err(Problem::Unreadable(method));
    }
    Ok(whole)
}

fn result(text: &[u8]) -> Option<Members<'_>> {
    crate::decode::told::result(text)
}

/// The error that a response is, if it is one.
fn error(text: &[u8], method: &'static str) -> Option<Problem> {
    const MESSAGE_CHARS_MAX: usize = 200;
    let error = Members::read(std::str::from_utf8(text).ok()?)?.object("error")?;
    let code = error.get("code").and_then(|code| code.get().parse().ok()).unwrap_or_default();
    let message = error.text("message").unwrap_or_default();
    let message = crate::names::visible(&message).chars().take(MESSAGE_CHARS_MAX).collect();
    Some(Problem::Error { method, code, message })
}
