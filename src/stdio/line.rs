//! One line of a child's standard output: a JSON-RPC message, read no further than it must be to know whose it is.
//!
//! Every byte that need not change passes as it was written. A line whose reserved members come twice belongs to nobody:
//! it could be somebody else's answer to a second reader.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use crate::decode::jsonrpc::Id;

/// A message of the child, with the places of what may have to be written anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It answers a request.
    Response {
        /// The request's id as the child knows it.
        id: Id,
        /// Where the id stands.
        at: Range<usize>,
        /// The code, when it is an error.
        code: Option<i64>,
    },
    /// It asks something of the client.
    Request {
        /// The id, as written.
        id: String,
    },
    /// It tells something.
    Notification {
        /// What it belongs to.
        of: Of,
    },
}

/// What a notification belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The request that asked for progress under this token, which stands there.
    Progress(Id, Range<usize>),
    /// The subscription that this request opened; its id stands there.
    Subscription(Id, Range<usize>),
    /// Nothing that it names.
    Nothing,
}

#[derive(Deserialize)]
struct Message<'l> {
    #[serde(borrow)]
    jsonrpc: Cow<'l, str>,
    #[serde(borrow)]
    id: Option<&'l RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'l, str>>,
    #[serde(borrow)]
    params: Option<&'l RawValue>,
    #[serde(borrow)]
    error: Option<&'l RawValue>,
}

#[derive(Deserialize)]
struct Params<'l> {
    #[serde(borrow, rename = "progressToken")]
    token: Option<&'l RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'l RawValue>,
}

#[derive(Deserialize)]
struct Meta<'l> {
    #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'l RawValue>,
}

#[derive(Deserialize)]
struct Failed {
    code: i64,
}

/// Reads a line; `None` when it is no JSON-RPC message that everybody would read alike.
pub(super) fn read(line: &[u8]) -> Option<Line> {
    let message: Message<'_> = serde_json::from_slice(line).ok()?;
    if message.jsonrpc != "2.0" {
        return None;
    }
    match (&message.method, message.id) {
        (Some(_), Some(id)) => Some(Line::Request { id: id.get().to_owned() }),
        (Some(method), None) => Some(Line::Notification { of: of(line, method, message.params)? }),
        (None, Some(id)) => {
            let code = message.error.and_then(|error| serde_json::from_str(error.get()).ok());
            let code = code.map(|failed: Failed| failed.code);
            Some(Line::Response { id: key(id)?, at: place(line, id), code })
        }
        (None, None) => None,
    }
}

fn of(line: &[u8], method: &str, params: Option<&RawValue>) -> Option<Of> {
    let Some(params) = params else { return Some(Of::Nothing) };
    let params: Params<'_> = serde_json::from_str(params.get()).ok()?;
    let named = |raw: Option<&RawValue>| raw.and_then(|raw| Some((key(raw)?, place(line, raw))));
    if method == "notifications/progress" {
        return Some(named(params.token).map_or(Of::Nothing, |(token, at)| Of::Progress(token, at)));
    }
    let Some(meta) = params.meta else { return Some(Of::Nothing) };
    let meta: Meta<'_> = serde_json::from_str(meta.get()).ok()?;
    Some(named(meta.subscription).map_or(Of::Nothing, |(id, at)| Of::Subscription(id, at)))
}

/// An id or a token. A child that keeps numbers as doubles may write `1.0`.
fn key(raw: &RawValue) -> Option<Id> {
    match serde_json::from_str(raw.get()).ok()? {
        serde_json::Value::String(text) => Some(Id::Text(text.into())),
        serde_json::Value::Number(number) => {
            let whole = || number.as_f64().filter(|float| float.fract() == 0.0).map(|float| float as i64);
            number.as_i64().or_else(whole).map(Id::Number)
        }
        _ => None,
    }
}

/// The id or token that stands there as JSON.
pub(super) fn token(json: &[u8]) -> Option<Id> {
    key(serde_json::from_slice(json).ok()?)
}

/// Where a part of a line stands in it.
fn place(line: &[u8], part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr().saturating_sub(line.as_ptr().addr());
    start..start + part.get().len()
}

/// The bytes with each place filled anew; places in rising order.
pub(super) fn with(bytes: &[u8], changes: &[(Range<usize>, &[u8])]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + 32);
    let mut at = 0;
    for (place, new) in changes {
        out.extend_from_slice(bytes.get(at..place.start).unwrap_or_default());
        out.extend_from_slice(new);
        at = place.end;
    }
    out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    out.into()
}

/// A message as one line. Line breaks in JSON stand only between its tokens, so each may as well be a space.
pub(super) fn one_line(message: &[u8]) -> Bytes {
    let flat = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    message.iter().map(flat).chain([b'\n']).collect()
}

/// What came on an output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The beginning of a line that was longer than the bound; the rest is passed over.
    TooLong(Vec<u8>),
}

/// The next line, of which at most `bytes_max` are kept; `None` at the end of the output.
pub(super) async fn next(output: &mut (impl AsyncBufRead + Unpin), bytes_max: usize) -> Option<Read> {
    let mut line = Vec::new();
    let mut long = false;
    loop {
        let chunk = output.fill_buf().await.ok()?;
        if chunk.is_empty() {
            return (!line.is_empty()).then(|| finished(line, long));
        }
        let end = memchr::memchr(b'\n', chunk);
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let fits = part.get(..bytes_max.saturating_sub(line.len())).unwrap_or(part);
        long |= fits.len() < part.len();
        line.extend_from_slice(fits);
        let used = part.len() + usize::from(end.is_some());
        output.consume(used);
        if end.is_some() {
            return Some(finished(line, long));
        }
    }
}

fn finished(line: Vec<u8>, long: bool) -> Read {
    if long { Read::TooLong(line) } else { Read::Line(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whose_id_it_names() {
        let line = br#" {"result":{"id":9},"id": 7 ,"jsonrpc":"2.0"}"#;
        let Some(Line::Response { id, at, code: None }) = read(line) else { panic!() };
        assert_eq!(id, Id::Number(7));
        let back = with(line, &[(at, b"\"seven\"")]);
        assert_eq!(&back[..], br#" {"result":{"id":9},"id": "seven" ,"jsonrpc":"2.0"}"#);
        let error = br#"{"jsonrpc":"2.0","id":1.0,"error":{"code":-32601,"message":"\ud800"}}"#;
        let found = read(error);
        assert!(matches!(found, Some(Line::Response { id: Id::Number(1), code: Some(-32601), .. })));
    }

    #[test]
    fn a_notification_says_what_it_belongs_to() {
        let progress =
            br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":"t"}}"#;
        let Some(Line::Notification { of: Of::Progress(token, at) }) = read(progress) else { panic!() };
        assert_eq!((token, &progress[at]), (Id::Text("t".into()), &b"\"t\""[..]));
        let tagged = br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":3}}}"#;
        let found = read(tagged);
        assert!(matches!(found, Some(Line::Notification { of: Of::Subscription(Id::Number(3), _) })));
    }

    #[test]
    fn what_could_be_read_in_two_ways_belongs_to_nobody() {
        for line in [
            &br#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#[..],
            br#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"result":{}}"#,
            br#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            br#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#,
            br#"{"jsonrpc":"2.0","id":1,"result":{}} x"#,
            br#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
            br#"{"jsonrpc":"2.0","result":{}}"#,
            b"Server listening",
            b"\xff",
            b"",
        ] {
            assert_eq!(read(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    #[tokio::test]
    async fn a_line_is_kept_up_to_a_bound() {
        let mut output = &b"one\n\nfour and more\nfive"[..];
        let mut lines = Vec::new();
        while let Some(line) = next(&mut output, 5).await {
            lines.push(line);
        }
        let line = |text: &str| Read::Line(text.into());
        assert_eq!(lines, [line("one"), line(""), Read::TooLong(b"four ".to_vec()), line("five")]);
    }
}
