//! Server-sent events as they pass [WHATWG HTML §9.2]: where each ends, and whether one is the answer that is waited for.
//!
//! The scanner never changes a byte. It says up to which offset a stream is understood, so that what was learnt from an
//! event can be made durable before the event is released.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::value::RawValue;

use super::jsonrpc::Id;
use crate::json::{Kind, Value};

/// The longest wait before a reconnection that a server may ask for.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// One complete event that has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The `event` field; empty stands for `message`.
    pub kind: Vec<u8>,
    /// The `data` lines, joined by line feeds.
    pub data: Vec<u8>,
    /// The offset in the stream just after the blank line. Where that line ends in CR LF, it lies between the two, since
    /// a reader may act on the CR alone; [`Scanner::boundary`] is after both.
    pub end: u64,
}

/// Where a client can take a stream up again.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// The id of the last event that had one.
    pub last_id: Option<String>,
    /// How long the server wants clients to wait before they reconnect.
    pub retry: Option<Duration>,
}

/// Finds events in a stream however it is cut into chunks.
#[derive(Debug)]
pub struct Scanner {
    event_bytes_max: usize,
    line: Vec<u8>,
    kind: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// Whether a field was read since the last blank line.
    open: bool,
    first_line: bool,
    after_cr: bool,
    at: u64,
    boundary: u64,
    opaque: bool,
    position: Position,
    /// The id of the event that is being read: it counts when the event is whole.
    id: Option<String>,
}

impl Scanner {
    /// A scanner that gives up on an event of more than this many bytes.
    pub fn new(event_bytes_max: usize) -> Scanner {
        Scanner {
            event_bytes_max,
            line: Vec::new(),
            kind: Vec::new(),
            data: Vec::new(),
            has_data: false,
            open: false,
            first_line: true,
            after_cr: false,
            at: 0,
            boundary: 0,
            opaque: false,
            position: Position::default(),
            id: None,
        }
    }

    /// A scanner of a stream that goes on from a position.
    pub fn resuming(event_bytes_max: usize, position: Position) -> Scanner {
        Scanner { position, ..Scanner::new(event_bytes_max) }
    }

    /// Where the stream can be taken up again.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Takes the next bytes of the stream, and gives the events that they complete.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = chunk;
        while !self.opaque {
            rest = self.line_feed_of_crlf(rest);
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                self.take(rest);
                rest = &[];
                break;
            };
            let (line, terminated) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            self.take(line);
            let Some((terminator, after)) = terminated.split_first() else { break };
            rest = after;
            self.at += 1;
            self.after_cr = *terminator == b'\r';
            events.extend(self.line_ended());
        }
        if self.opaque {
            self.at += rest.len() as u64;
            self.boundary = self.at;
        }
        events
    }

    /// The offset up to which nothing is half understood: these bytes can be released. It passes blank lines, and comments
    /// between events. A scanner that became opaque lets everything pass.
    pub fn boundary(&self) -> u64 {
        self.boundary
    }

    /// Whether an event was over the bound, so that the stream is no longer understood.
    pub fn opaque(&self) -> bool {
        self.opaque
    }

    /// What the stream's end left unfinished. The standard discards it, yet a lax reader may act on it.
    pub fn finish(mut self) -> Option<Event> {
        if !self.opaque && !self.line.is_empty() {
            self.field();
        }
        (self.has_data && !self.opaque).then_some(Event { kind: self.kind, data: self.data, end: self.at })
    }

    /// Steps over the LF of a CR LF of which the CR has already ended the line.
    fn line_feed_of_crlf<'c>(&mut self, rest: &'c [u8]) -> &'c [u8] {
        match rest.split_first() {
            Some((b'\n', after)) if self.after_cr => {
                if self.boundary == self.at {
                    self.boundary += 1;
                }
                self.at += 1;
                self.after_cr = false;
                after
            }
            Some(_) => {
                self.after_cr = false;
                rest
            }
            None => rest,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        if self.line.len() + self.data.len() + self.kind.len() + bytes.len() > self.event_bytes_max {
            self.opaque = true;
            self.line = Vec::new();
            self.data = Vec::new();
            return;
        }
        self.line.extend_from_slice(bytes);
    }

    fn line_ended(&mut self) -> Option<Event> {
        if self.opaque {
            return None;
        }
        self.strip_byte_order_mark();
        if !self.line.is_empty() {
            if self.line.first() == Some(&b':') {
                self.line.clear();
            } else {
                self.field();
            }
            if !self.open {
                self.boundary = self.at;
            }
            return None;
        }
        self.boundary = self.at;
        self.open = false;
        if let Some(id) = self.id.take() {
            // An empty id takes the last one back.
            self.position.last_id = Some(id).filter(|id| !id.is_empty());
        }
        let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        std::mem::take(&mut self.has_data).then_some(Event { kind, data, end: self.at })
    }

    fn strip_byte_order_mark(&mut self) {
        if std::mem::take(&mut self.first_line) && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
    }

    fn field(&mut self) {
        self.strip_byte_order_mark();
        self.open = true;
        let line = std::mem::take(&mut self.line);
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at_checked(colon).unwrap_or((&line, &[]));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.kind = value.to_vec(),
            b"id" if !value.contains(&0) => self.id = std::str::from_utf8(value).ok().map(str::to_owned),
            b"retry" => {
                let millis = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.position.retry = millis.map(|millis| Duration::from_millis(millis).min(RETRY_MAX));
            }
            _ => {}
        }
        self.line = line;
        self.line.clear();
    }
}

/// How a reply ended, as its JSON says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// A result.
    Ok,
    /// A JSON-RPC error with this code.
    RpcError(i64),
    /// A result with `isError: true`.
    ToolError,
    /// No JSON-RPC response.
    Unreadable,
}

type Members<'d> = BTreeMap<String, &'d RawValue>;

/// Whether an event's data, or a JSON reply, is the response to the request of this id. Upstreams are read leniently:
/// their bytes pass untouched whatever this says.
pub fn is_response(data: &[u8], id: &Id) -> bool {
    responses(data).iter().any(|members| members.get("id").is_some_and(|raw| same_id(raw, id)))
}

/// How the reply in this data ended.
pub fn outcome(data: &[u8]) -> ReplyKind {
    let responses = responses(data);
    let Some(members) = responses.first() else { return ReplyKind::Unreadable };
    if let Some(error) = members.get("error") {
        let error: Members<'_> = serde_json::from_str(error.get()).unwrap_or_default();
        let code = error.get("code").and_then(|code| serde_json::from_str(code.get()).ok());
        return code.map_or(ReplyKind::Unreadable, ReplyKind::RpcError);
    }
    let result: Members<'_> =
        members.get("result").and_then(|result| serde_json::from_str(result.get()).ok()).unwrap_or_default();
    match result.get("isError").map(|raw| raw.get()) {
        Some("true") => ReplyKind::ToolError,
        _ => ReplyKind::Ok,
    }
}

/// The same of a reply that has been parsed.
pub fn outcome_of(root: Value<'_>) -> ReplyKind {
    let messages = match root.kind() {
        Kind::Array => root.items().collect(),
        _ => vec![root],
    };
    let answers = |message: &&Value<'_>| {
        message.get("method").is_none() && (message.get("result").is_some() || message.get("error").is_some())
    };
    let objects = messages.iter().all(|message| message.kind() == Kind::Object);
    let Some(response) = messages.iter().find(answers).filter(|_| objects) else {
        return ReplyKind::Unreadable;
    };
    if let Some(error) = response.get("error") {
        let code = error.get("code").and_then(|code| code.number()?.parse().ok());
        return code.map_or(ReplyKind::Unreadable, ReplyKind::RpcError);
    }
    match response.get("result").and_then(|result| result.get("isError")?.boolean()) {
        Some(true) => ReplyKind::ToolError,
        _ => ReplyKind::Ok,
    }
}

/// The responses in a message, or in a batch of 2025-03-26.
fn responses(data: &[u8]) -> Vec<Members<'_>> {
    let messages: Vec<Members<'_>> = match data.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => serde_json::from_slice(data).unwrap_or_default(),
        _ => serde_json::from_slice(data).map(|message| vec![message]).unwrap_or_default(),
    };
    let answers = |members: &Members<'_>| {
        !members.contains_key("method") && (members.contains_key("result") || members.contains_key("error"))
    };
    messages.into_iter().filter(answers).collect()
}

fn same_id(raw: &RawValue, id: &Id) -> bool {
    match id {
        Id::Text(text) => serde_json::from_str::<String>(raw.get()).is_ok_and(|found| *found == **text),
        // A server that keeps numbers as doubles may answer `1.0`.
        Id::Number(number) => {
            serde_json::from_str::<f64>(raw.get()).is_ok_and(|found| found == *number as f64)
        }
    }
}
