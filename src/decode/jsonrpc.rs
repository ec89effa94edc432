//! JSON-RPC 2.0 as MCP uses it: one message whose kind is decided once, with every reserved word in its one spelling.
//!
//! Go folds the case of keys, so `{"NAME": "rm"}` is a call of `rm` to one server and of nothing to another. Reserved
//! words are therefore refused in any spelling but their own, even where the right one is absent.

use std::sync::Arc;

use bytes::Bytes;

use super::{ambiguous, malformed};
use crate::call::Stop;
use crate::json::{Document, Fault, Kind, Limits, Value, fold};

const ID_BYTES_MAX: usize = 256;
const METHOD_BYTES_MAX: usize = 128;
/// Up to here every reader, JavaScript included, holds an integer exactly.
const ID_MAX: u64 = 1 << 53;

const TOP: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: [&str; 10] = [
    "name",
    "uri",
    "arguments",
    "_meta",
    "cursor",
    "protocolVersion",
    "taskId",
    "task",
    "requestState",
    "inputResponses",
];
const META: [&str; 3] = [
    "progressToken",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
];

/// The id of a request, in the JSON type in which it came: `1` and `"1"` are two ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// An integer within ±2^53.
    Number(i64),
    /// A string of at most 256 bytes.
    Text(Arc<str>),
}

impl Id {
    /// The id as JSON, for an answer that repeats it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Id::Number(number) => serde_json::Value::from(*number),
            Id::Text(text) => serde_json::Value::from(&**text),
        }
    }

    fn parse(value: Value<'_>) -> Result<Id, Box<Stop>> {
        let refused =
            || malformed("id", "id must be a string of at most 256 bytes, or an integer within ±2^53");
        match value.kind() {
            Kind::String => {
                let text = value.string().unwrap_or_default();
                if text.len() > ID_BYTES_MAX { Err(refused()) } else { Ok(Id::Text(Arc::from(&*text))) }
            }
            Kind::Number => integer(value.number().unwrap_or_default()).map(Id::Number).ok_or_else(refused),
            Kind::Array | Kind::Bool | Kind::Null | Kind::Object => Err(refused()),
        }
    }
}

/// An integer that every reader holds alike, written without point, exponent or `-0`.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && text != "-0";
    let number = plain.then(|| text.parse::<i64>().ok()).flatten()?;
    (number.unsigned_abs() <= ID_MAX).then_some(number)
}

/// The three kinds of message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Wants an answer.
    Request {
        /// By which the answer will refer to it.
        id: Id,
        /// What is asked.
        method: Arc<str>,
    },
    /// Wants no answer.
    Notification {
        /// What is told.
        method: Arc<str>,
    },
    /// Answers a request of the other side.
    Response {
        /// The id of that request.
        id: Id,
        /// Whether it is an error rather than a result.
        is_error: bool,
        /// Whether its result is `{}`.
        empty: bool,
    },
}

/// One JSON-RPC message, with the very bytes that it was parsed from.
#[derive(Clone, Debug)]
pub struct Message {
    document: Document,
    form: Form,
}

impl Message {
    /// Parses the bytes of a body.
    pub fn read(bytes: Bytes, limits: &Limits) -> Result<Message, Box<Stop>> {
        Message::parse(Document::parse(bytes, limits).map_err(refusal)?)
    }

    /// Understands a document as one message.
    pub fn parse(document: Document) -> Result<Message, Box<Stop>> {
        let form = form(document.root())?;
        Ok(Message { document, form })
    }

    /// What kind of message this is.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// The id of a request or of a response.
    pub fn id(&self) -> Option<&Id> {
        match &self.form {
            Form::Request { id, .. } | Form::Response { id, .. } => Some(id),
            Form::Notification { .. } => None,
        }
    }

    /// The method of a request or a notification.
    pub fn method(&self) -> Option<&str> {
        match &self.form {
            Form::Request { method, .. } | Form::Notification { method } => Some(method),
            Form::Response { .. } => None,
        }
    }

    /// The parameters, an object, where they lie.
    pub fn params(&self) -> Option<Value<'_>> {
        self.document.root().get("params")
    }

    /// The result of a response, where it lies.
    pub fn result(&self) -> Option<Value<'_>> {
        self.document.root().get("result")
    }

    /// `params._meta`, an object, where it lies.
    pub fn meta(&self) -> Option<Value<'_>> {
        self.params()?.get("_meta")
    }

    /// The whole document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The bytes that were parsed, untouched.
    pub fn bytes(&self) -> &Bytes {
        self.document.bytes()
    }
}

/// The stop for a text that is no acceptable JSON.
pub fn refusal(fault: Fault) -> Box<Stop> {
    let text = format!("the body is not acceptable JSON: {fault}");
    match fault.reason {
        "byte-order-mark"
        | "case-folded-key"
        | "duplicate-key"
        | "key-control-character"
        | "surrogate"
        | "utf8" => ambiguous(fault.reason, &text),
        _ => malformed(fault.reason, &text),
    }
}

fn form(root: Value<'_>) -> Result<Form, Box<Stop>> {
    match root.kind() {
        Kind::Object => {}
        Kind::Array => {
            return Err(malformed("batch", "JSON-RPC batches are not supported: send one message a request"));
        }
        Kind::Bool | Kind::Null | Kind::Number | Kind::String => {
            return Err(malformed("not-an-object", "a JSON-RPC message must be an object"));
        }
    }
    spelled(root, &TOP)?;
    if root.members().any(|(key, _)| !TOP.contains(&&*key)) {
        return Err(malformed(
            "unknown-member",
            "a JSON-RPC message has no members but jsonrpc, id, method, params, result, error",
        ));
    }
    if root.get("jsonrpc").and_then(|version| version.string()).as_deref() != Some("2.0") {
        return Err(malformed("jsonrpc-version", "jsonrpc must be \"2.0\""));
    }
    let answer = root.get("result").is_some() || root.get("error").is_some();
    match root.get("method") {
        Some(_) if answer => {
            Err(ambiguous("request-and-response", "a message is a request or a response, not both"))
        }
        Some(method) => call(root, method),
        None => response(root),
    }
}

fn call(root: Value<'_>, method: Value<'_>) -> Result<Form, Box<Stop>> {
    let method = method
        .string()
        .filter(|text| {
            (1..=METHOD_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        })
        .map(|text| Arc::<str>::from(&*text))
        .ok_or_else(|| malformed("method", "method must be 1 to 128 visible ASCII characters"))?;
    if let Some(params) = root.get("params") {
        if params.kind() != Kind::Object {
            return Err(malformed("params", "params must be an object"));
        }
        spelled(params, &PARAMS)?;
        if let Some(meta) = params.get("_meta") {
            if meta.kind() != Kind::Object {
                return Err(malformed("meta", "params._meta must be an object"));
            }
            spelled(meta, &META)?;
        }
    }
    Ok(match root.get("id") {
        Some(id) => Form::Request { id: Id::parse(id)?, method },
        None => Form::Notification { method },
    })
}

fn response(root: Value<'_>) -> Result<Form, Box<Stop>> {
    if root.get("params").is_some() {
        return Err(malformed("method", "a message with params needs a method"));
    }
    let id = root.get("id").ok_or_else(|| malformed("id", "a response needs the id of its request"))?;
    let id = Id::parse(id)?;
    match (root.get("result"), root.get("error")) {
        (Some(_), Some(_)) => {
            Err(ambiguous("result-and-error", "a response has a result or an error, not both"))
        }
        (Some(result), None) => {
            let empty = result.kind() == Kind::Object && result.members().next().is_none();
            Ok(Form::Response { id, is_error: false, empty })
        }
        (None, Some(error)) if error.kind() == Kind::Object => {
            Ok(Form::Response { id, is_error: true, empty: false })
        }
        (None, Some(_)) => Err(malformed("error", "error must be an object")),
        (None, None) => Err(malformed("method", "a message needs a method, a result or an error")),
    }
}

/// Refuses a key that a case-folding reader would take for a reserved one.
fn spelled(object: Value<'_>, reserved: &[&str]) -> Result<(), Box<Stop>> {
    for (key, _) in object.members() {
        if reserved.contains(&&*key) {
            continue;
        }
        let folded = fold(&key);
        if reserved.iter().any(|word| word.eq_ignore_ascii_case(&folded)) {
            return Err(ambiguous("reserved-key-spelling", "a reserved key is written in another case"));
        }
    }
    Ok(())
}
