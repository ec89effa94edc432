//! Plain HTTP: one canonical path, query and form without two readings, and headers that nobody can use to override them.
//!
//! Nothing is repaired. A path that a second reader would normalise, decode again or cut differently is refused, so
//! that the path on which policy decided is the path that the upstream serves.

use std::borrow::Cow;
use std::collections::HashSet;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, header};

use super::{ambiguous, malformed};
use crate::call::{Stage, Stop, StopKind};
use crate::json::fold;

const PATH_BYTES_MAX: usize = 8192;
const QUERY_BYTES_MAX: usize = 32768;
const PAIRS_MAX: usize = 1024;

/// Headers that mean one thing, and must come once.
const SINGLE: [HeaderName; 4] =
    [header::AUTHORIZATION, header::CONTENT_TYPE, header::HOST, HeaderName::from_static("idempotency-key")];
const OVERRIDES: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];
/// Headers that some frameworks take for the path, in place of the request line.
const TARGETS: [&str; 5] =
    ["x-original-uri", "x-original-url", "x-override-url", "x-rewrite-uri", "x-rewrite-url"];
/// What `Connection` may name although it is there: fields that are for one connection anyway.
const CONNECTION_OPTIONS: [&str; 5] = ["close", "connection", "keep-alive", "proxy-connection", "te"];
/// Headers on which something is decided, and which some servers also read when they are written with `_`.
const DECIDING: [&str; 12] = [
    "content-encoding",
    "content-length",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
    "holdpoint-record",
    "holdpoint-task",
];

/// A decoded name and its decoded value.
pub type Pair<'u> = (Cow<'u, str>, Cow<'u, str>);

/// The target of a request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'u> {
    /// The canonical path, which is what is matched and what is forwarded: as sent, with escapes in upper case.
    pub path: String,
    /// The decoded segments; the last is empty when the path ends in `/`.
    pub segments: Vec<String>,
    /// The decoded pairs of the query, in order, no key twice.
    pub query: Vec<Pair<'u>>,
    /// The path as sent.
    pub raw_path: &'u str,
    /// The query as sent, without `?`.
    pub raw_query: Option<&'u str>,
}

/// Understands a path and a query, as raw text.
pub fn target<'u>(path: &'u str, query: Option<&'u str>) -> Result<Target<'u>, Box<Stop>> {
    let oversize = |text| Err(Stop::new(Stage::Decode, StopKind::Oversize, "target", text));
    if path.len() > PATH_BYTES_MAX {
        return oversize("the path is longer than 8192 bytes");
    }
    if query.is_some_and(|query| query.len() > QUERY_BYTES_MAX) {
        return oversize("the query is longer than 32768 bytes");
    }
    let Some(relative) = path.strip_prefix('/') else {
        return Err(malformed("target-form", "the request target must be a path"));
    };
    let (canonical, decoded) = unescaped_path(path)?;
    if relative.split('/').rev().skip(1).any(str::is_empty) {
        return Err(ambiguous("empty-segment", "the path has an empty segment"));
    }
    let segments: Vec<String> = decoded.split('/').skip(1).map(str::to_owned).collect();
    Ok(Target {
        path: canonical,
        segments,
        query: query.map(|query| pairs(query, Place::Query)).transpose()?.unwrap_or_default(),
        raw_path: path,
        raw_query: query,
    })
}

/// The upstream's name and the path below it: `/crm/v1/x` is `crm` and `/v1/x`.
pub fn route(path: &str) -> Option<(&str, &str)> {
    let relative = path.strip_prefix('/')?;
    let (name, rest) = relative.split_at_checked(relative.find('/').unwrap_or(relative.len()))?;
    (!name.is_empty()).then_some((name, rest))
}

/// Understands a form body [`application/x-www-form-urlencoded`] by the rules of a query; values may have line breaks.
pub fn form(bytes: &[u8]) -> Result<Vec<Pair<'_>>, Box<Stop>> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("form-utf8", "the form is not UTF-8"))?;
    if text.starts_with(['{', '[']) {
        return Err(ambiguous("form-json", "the form begins as JSON does, and some servers read it as such"));
    }
    pairs(text, Place::Form)
}

// === paths ===

/// The canonical path, and the path decoded; segments correspond, since no escape hides a slash.
fn unescaped_path(path: &str) -> Result<(String, String), Box<Stop>> {
    let mut canonical = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (byte, after) = escape(after)?;
                path_escape(byte)?;
                canonical.push_str(&format!("%{byte:02X}"));
                decoded.push(byte);
                rest = after;
            }
            b'\\' => return Err(ambiguous("path-backslash", "the path has a backslash")),
            b';' => return Err(ambiguous("path-parameter", "the path has a parameter")),
            b'#' => return Err(ambiguous("fragment", "the request target has a fragment")),
            0x80.. => {
                return Err(ambiguous("path-not-ascii", "the path has characters that must be escaped"));
            }
            b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' => {
                canonical.push(char::from(*byte));
                decoded.push(*byte);
            }
            unreserved if is_unreserved(*unreserved) => {
                canonical.push(char::from(*unreserved));
                decoded.push(*unreserved);
            }
            _ => return Err(malformed("path-character", "the path has a character that must be escaped")),
        }
    }
    let decoded = String::from_utf8(decoded)
        .map_err(|_| malformed("path-utf8", "the path does not decode to UTF-8"))?;
    if decoded.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(ambiguous("dot-segment", "the path has a dot segment"));
    }
    if decoded.chars().any(char::is_control) {
        return Err(ambiguous("encoded-control", "the path has an escaped control character"));
    }
    if decodes_again(&decoded) {
        return Err(ambiguous("double-encoding", "the path is escaped twice"));
    }
    Ok((canonical, decoded))
}

fn path_escape(byte: u8) -> Result<(), Box<Stop>> {
    match byte {
        b'/' => Err(ambiguous("encoded-slash", "the path has an escaped slash")),
        b'\\' => Err(ambiguous("encoded-backslash", "the path has an escaped backslash")),
        b';' => Err(ambiguous("path-parameter", "the path has an escaped semicolon")),
        b'.' => Err(ambiguous("encoded-dot", "the path has an escaped dot")),
        0..0x20 | 0x7f => Err(ambiguous("encoded-control", "the path has an escaped control character")),
        other if is_unreserved(other) => {
            Err(ambiguous("encoded-unreserved", "the path escapes a character that needs no escape"))
        }
        _ => Ok(()),
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether a second decoding would change the text.
fn decodes_again(text: &str) -> bool {
    text.split('%').skip(1).any(|after| {
        let mut bytes = after.bytes();
        bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit())
            && bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit())
    })
}

/// The byte of an escape whose `%` was read, and what follows.
fn escape(rest: &[u8]) -> Result<(u8, &[u8]), Box<Stop>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match rest {
        [high, low, after @ ..] => match (digit(high), digit(low)) {
            (Some(high), Some(low)) => Ok((high << 4 | low, after)),
            _ => Err(malformed("percent-escape", "a percent sign is not followed by two hexadecimal digits")),
        },
        _ => Err(malformed("percent-escape", "a percent sign is not followed by two hexadecimal digits")),
    }
}

// === pairs ===

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Form,
    Query,
}

fn pairs(text: &str, place: Place) -> Result<Vec<Pair<'_>>, Box<Stop>> {
    let mut found = Vec::new();
    let mut exact = HashSet::new();
    let mut folded = HashSet::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decoded(key)?, decoded(value)?);
        if key.is_empty() {
            return Err(ambiguous("empty-key", "the query or form has a value without a key"));
        }
        let breaks = |char: char| place == Place::Form && matches!(char, '\t' | '\n' | '\r');
        if key.chars().any(char::is_control) || value.chars().any(|char| char.is_control() && !breaks(char)) {
            return Err(ambiguous("encoded-control", "the query or form has a control character"));
        }
        let fold = fold(&key);
        if fold == "_method" || OVERRIDES.contains(&&*fold) {
            return Err(method_override());
        }
        if !exact.insert(key.to_string()) {
            return Err(ambiguous("duplicate-key", "the query or form has a key twice"));
        }
        if !folded.insert(fold) {
            return Err(ambiguous("case-folded-key", "the query or form has a key in two cases"));
        }
        if found.len() >= PAIRS_MAX {
            let text = "the query or form has more than 1024 pairs";
            return Err(Stop::new(Stage::Decode, StopKind::Oversize, "pairs", text));
        }
        found.push((key, value));
    }
    Ok(found)
}

/// Half a pair, decoded.
fn decoded(text: &str) -> Result<Cow<'_, str>, Box<Stop>> {
    for byte in text.bytes() {
        match byte {
            b';' => {
                return Err(ambiguous(
                    "semicolon",
                    "the query or form has a semicolon, which some read as a separator",
                ));
            }
            b'#' => return Err(ambiguous("fragment", "the request target has a fragment")),
            0x21..0x7f => {}
            _ => {
                return Err(malformed(
                    "query-character",
                    "the query or form has a character that must be escaped",
                ));
            }
        }
    }
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (byte, after) = escape(after)?;
                out.push(byte);
                rest = after;
            }
            b'+' => out.push(b' '),
            other => out.push(*other),
        }
    }
    String::from_utf8(out)
        .map(Cow::Owned)
        .map_err(|_| malformed("query-utf8", "the query or form does not decode to UTF-8"))
}

fn method_override() -> Box<Stop> {
    ambiguous("method-override", "the request overrides its own method")
}

// === headers ===

/// Refuses headers that come twice, that override the method, or that some servers would read under another name.
pub fn headers(headers: &HeaderMap) -> Result<(), Box<Stop>> {
    for name in headers.keys() {
        let name = name.as_str();
        let dashed = match name.contains('_') {
            true => Cow::Owned(name.replace('_', "-")),
            false => Cow::Borrowed(name),
        };
        if OVERRIDES.contains(&&*dashed) {
            return Err(method_override());
        }
        if TARGETS.contains(&&*dashed) {
            return Err(ambiguous("target-override", "the request overrides its own path"));
        }
        if dashed != name && (DECIDING.contains(&&*dashed) || SINGLE.iter().any(|name| *name == *dashed)) {
            return Err(ambiguous(
                "header-underscore",
                "a header that decides is written with an underscore",
            ));
        }
    }
    if let Some(name) = SINGLE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        return Err(ambiguous("duplicate-header", &format!("the header {name} came more than once")));
    }
    // What Connection names is not passed on: then the upstream would not see what was decided on.
    let named =
        headers.get_all(header::CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let names_one = named.map(|name| name.trim_ascii().to_ascii_lowercase()).any(|name| {
        headers.contains_key(&*String::from_utf8_lossy(&name))
            && !CONNECTION_OPTIONS.iter().any(|option| option.as_bytes() == name)
    });
    if names_one {
        return Err(ambiguous("connection-option", "Connection names a header that is to be passed on"));
    }
    Ok(())
}

/// What a body says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// `application/x-www-form-urlencoded` in UTF-8.
    Form,
    /// `application/json`, or a type that ends in `+json`, in UTF-8.
    Json,
    /// No Content-Type.
    None,
    /// Any other type, in lower case and without parameters.
    Other(String),
}

/// Reads Content-Type; a body that must be read must not be encoded or in another character set.
pub fn content(headers: &HeaderMap) -> Result<Content, Box<Stop>> {
    let Some(media) = media_type(headers)? else { return Ok(Content::None) };
    let content = match &*media.essence {
        "application/x-www-form-urlencoded" => Content::Form,
        "application/json" => Content::Json,
        other if other.ends_with("+json") => Content::Json,
        other => return Ok(Content::Other(other.to_owned())),
    };
    if !media.utf8() {
        return Err(ambiguous("charset", "the body must be in UTF-8"));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(malformed("content-encoding", "request bodies must not be encoded"));
    }
    Ok(content)
}

/// A parsed Content-Type.
pub(super) struct MediaType {
    /// `type/subtype` in lower case.
    pub essence: String,
    charset: Option<String>,
}

impl MediaType {
    /// Whether the text is UTF-8, by declaration or by default.
    pub fn utf8(&self) -> bool {
        self.charset.as_deref().is_none_or(|charset| matches!(charset, "utf-8" | "utf8"))
    }
}

/// Parses Content-Type [RFC 9110 §8.3.1], if there is one.
pub(super) fn media_type(headers: &HeaderMap) -> Result<Option<MediaType>, Box<Stop>> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ambiguous("duplicate-header", "the header content-type came more than once"));
    }
    let refused = || malformed("content-type", "Content-Type is not a media type");
    let text = first.to_str().map_err(|_| refused())?;
    let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
    if !essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype)) {
        return Err(refused());
    }
    let mut charset = None;
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(refused)?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if name.eq_ignore_ascii_case("charset") && charset.replace(value.to_ascii_lowercase()).is_some() {
            return Err(ambiguous("charset", "Content-Type has two character sets"));
        }
    }
    Ok(Some(MediaType { essence, charset }))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The one authority of a request, in lower case: `:authority` or an absolute target, and Host, must agree.
pub fn authority(parts: &http::request::Parts) -> Result<String, Box<Stop>> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().unwrap_or("\u{0}"));
    if hosts.next().is_some() {
        return Err(ambiguous("duplicate-header", "the header host came more than once"));
    }
    let host = host.map(normal).transpose()?;
    let target = parts.uri.authority().map(|authority| normal(authority.as_str())).transpose()?;
    match (target, host) {
        (Some(target), Some(host)) if target != host => {
            Err(ambiguous("authority", "Host and the request target name different authorities"))
        }
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(malformed("authority-missing", "the request names no host")),
    }
}

/// The host of an authority in its one spelling.
pub fn host(authority: &str) -> &str {
    let bare =
        |(host, port): (&str, &str)| port.bytes().all(|byte| byte.is_ascii_digit()).then_some(host.len());
    authority.get(..authority.rsplit_once(':').and_then(bare).unwrap_or(authority.len())).unwrap_or(authority)
}

/// Refuses a request that a page of another origin makes [MCP 2025-11-25, basic/transports, security]: a browser says
/// where it comes from, and an agent of ours has no such header or its gateway's own.
pub fn same_origin(headers: &HeaderMap, authority: &str) -> Result<(), Box<Stop>> {
    let same = |origin: &http::HeaderValue| {
        let origin = origin.to_str().ok()?;
        let from = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))?;
        normal(from).ok().filter(|from| host(from) == host(authority))
    };
    match headers.get_all(header::ORIGIN).iter().all(|origin| same(origin).is_some()) {
        true => Ok(()),
        false => {
            let text = "requests of pages of another origin are not taken";
            Err(Stop::new(Stage::Decode, StopKind::Denied, "origin", text))
        }
    }
}

/// One authority in its one spelling, without the default port of HTTPS.
fn normal(text: &str) -> Result<String, Box<Stop>> {
    if text.contains('@') {
        return Err(ambiguous("authority-userinfo", "the authority must not have user information"));
    }
    let refused = || malformed("authority", "the authority is not a host with an optional port");
    let authority: Authority = text.parse().map_err(|_| refused())?;
    let host = authority.host();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.ends_with('.') && host.bytes().all(plain),
    };
    let port = text.strip_prefix(host).unwrap_or_default();
    if !fits || !(port.is_empty() || port.len() > 1 && authority.port_u16().is_some()) {
        return Err(refused());
    }
    let host = host.to_ascii_lowercase();
    Ok(match authority.port_u16() {
        None | Some(443) => host,
        Some(port) => format!("{host}:{port}"),
    })
}
