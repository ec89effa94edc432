//! Batches of JSON-RPC, which MCP had in the revision 2025-03-26 alone: each message becomes a request of its own.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, header};

use super::jsonrpc::refusal;
use super::session::Dialogue;
use super::{Bounds, Inbound, malformed, session_unknown};
use crate::call::Stop;
use crate::json::{Document, Kind};

/// The revision that has batches, and the one that is assumed of a client that names none.
const REVISION: &str = "2025-03-26";
/// Messages in a batch.
const MESSAGES_MAX: usize = 100;

/// Whether a body is an array.
pub(super) fn is_batch(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// Takes a batch apart. Each message keeps its own bytes and gets the headers of all; whatever is wrong with one is its
/// own refusal.
pub(super) fn split(
    bounds: &Bounds,
    dialogue: &Dialogue,
    head: &Parts,
    bytes: Bytes,
) -> Result<Vec<Request<Inbound>>, Box<Stop>> {
    if !dialogue.is_bound() {
        return Err(session_unknown());
    }
    let named = head.headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok());
    let agreed = dialogue.version();
    let revision = agreed.as_deref().or(named).unwrap_or(REVISION);
    if revision != REVISION || named.is_some_and(|named| named != REVISION) || head.method != Method::POST {
        return Err(malformed("batch", "only MCP 2025-03-26 has batches: send one message a request"));
    }
    let document = Document::parse(bytes, &bounds.json).map_err(refusal)?;
    let messages: Vec<Bytes> =
        document.root().items().map(|message| document.bytes().slice_ref(message.raw())).collect();
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        return Err(malformed("batch", "a batch must have 1 to 100 messages"));
    }
    let begins = |message: crate::json::Value<'_>| {
        message.kind() == Kind::Array
            || message.get("method").and_then(|method| method.string()).as_deref() == Some("initialize")
    };
    if document.root().items().any(begins) {
        return Err(malformed("batch", "a batch must have neither `initialize` nor another batch in it"));
    }
    Ok(messages.into_iter().map(|message| alone(head, message)).collect())
}

fn alone(head: &Parts, message: Bytes) -> Request<Inbound> {
    let mut request = Request::new(Inbound::Whole(message));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers.clone();
    request.headers_mut().remove(header::CONTENT_LENGTH);
    *request.extensions_mut() = head.extensions.clone();
    request
}
