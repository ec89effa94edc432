//! What the head of an HTTP/1.1 request must be, read strictly: one meaning, or a stable reason why not.

/// The methods that are spoken here; `CONNECT` and `TRACE` never are.
const METHODS: [&[u8]; 7] = [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"];
/// The most digits of a content length: below 2^63, so that no reader overflows.
const LENGTH_DIGITS_MAX: usize = 18;

/// How the body after a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// By a transfer coding.
    Chunked,
    /// By its length; 0 without a body.
    Length(u64),
}

/// Finds the end of a head (after its empty line), looking from `seen` on. Lines end in CRLF and nothing else.
pub fn find_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, &'static str> {
    let at = |at: Option<usize>| at.and_then(|at| bytes.get(at)).copied();
    // A CR that ended what was seen is looked at again, with what follows it.
    let from = seen.saturating_sub(1);
    for found in memchr::memchr3_iter(b'\r', b'\n', 0, bytes.get(from..).unwrap_or_default()) {
        let here = from + found;
        match at(Some(here)) {
            Some(b'\r') => match at(Some(here + 1)) {
                Some(b'\n') | None => {}
                Some(_) => return Err("bare-cr"),
            },
            Some(b'\n') if at(here.checked_sub(1)) != Some(b'\r') => return Err("bare-lf"),
            Some(b'\n') if here < 2 => return Err("empty-line"),
            Some(b'\n') if at(here.checked_sub(2)) == Some(b'\n') => return Ok(Some(here + 1)),
            Some(b'\n') => {}
            _ => return Err("control-byte"),
        }
    }
    Ok(None)
}

/// Checks a whole head, its empty line included.
pub fn check(head: &[u8], fields_max: usize) -> Result<Content, &'static str> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or("head")?;
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    check_request_line(lines.next().ok_or("request-line")?)?;
    let mut fields = Fields::default();
    for line in lines {
        fields.count += 1;
        if fields.count > fields_max {
            return Err("too-many-headers");
        }
        let (name, value) = split_field(line)?;
        fields.take(name, value)?;
    }
    fields.content()
}

/// Checks a trailer section, its empty line included: fields, and none that could change what the message is.
pub fn check_trailers(section: &[u8]) -> Result<(), &'static str> {
    let text = section.strip_suffix(b"\r\n").unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for line in lines.filter(|line| !line.is_empty()) {
        split_field(line).map_err(|_| "trailers")?;
    }
    Ok(())
}

fn check_request_line(line: &[u8]) -> Result<(), &'static str> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("request-line");
    };
    if !METHODS.contains(&method) {
        return Err("method");
    }
    if version != b"HTTP/1.1" {
        return Err("version");
    }
    if target.first() != Some(&b'/') || !is_visible(target) {
        return Err("target");
    }
    Ok(())
}

/// Whether a target is of visible ASCII without a fragment and without what some readers take for a slash.
fn is_visible(target: &[u8]) -> bool {
    target.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\'))
}

/// A field's name and its value without the white space around it.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("obs-fold");
    }
    let colon = memchr::memchr(b':', line).ok_or("header-name")?;
    let (name, rest) = line.split_at_checked(colon).ok_or("header-name")?;
    if matches!(name.last(), Some(b' ' | b'\t')) {
        return Err("space-before-colon");
    }
    check_name(name)?;
    let value = rest.strip_prefix(b":").unwrap_or_default();
    // Before trimming, which would take some control bytes for white space.
    let control = |byte: u8| (byte < 0x20 && byte != b'\t') | (byte == 0x7f);
    if value.iter().fold(false, |found, byte| found | control(*byte)) {
        return Err("control-byte");
    }
    Ok((name, value.trim_ascii()))
}

/// A token without `_`, which some upstreams cannot tell from `-`.
pub fn check_name(name: &[u8]) -> Result<(), &'static str> {
    let token = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'`' | b'|' | b'~')
    };
    if !name.is_empty() && name.iter().all(token) {
        return Ok(());
    }
    Err(if name.contains(&b'_') { "underscore" } else { "header-name" })
}

/// A host with an optional port; no user information.
pub fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value.iter().rposition(|byte| *byte == b':') {
        Some(colon) if value.last() != Some(&b']') => {
            let (host, port) = value.split_at_checked(colon).unwrap_or_default();
            (host, port.strip_prefix(b":"))
        }
        _ => (value, None),
    };
    let port_ok =
        port.is_none_or(|port| !port.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit));
    let host_ok = match host {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
        }
        _ => {
            !host.is_empty()
                && host.len() <= 255
                && host.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        }
    };
    port_ok && host_ok
}

#[derive(Default)]
struct Fields {
    count: usize,
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Fields {
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        if is("host") {
            if std::mem::replace(&mut self.host, true) {
                return Err("duplicate-host");
            }
            if !is_authority(value) {
                return Err("host");
            }
        } else if is("content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| digits && value.len() <= LENGTH_DIGITS_MAX);
            let length = text.and_then(|text| text.parse().ok()).ok_or("content-length")?;
            if self.length.replace(length).is_some() {
                return Err("duplicate-content-length");
            }
        } else if is("transfer-encoding") {
            if std::mem::replace(&mut self.chunked, true) {
                return Err("duplicate-transfer-encoding");
            }
            if value != b"chunked" {
                return Err("transfer-encoding");
            }
        } else if is("upgrade") {
            return Err("upgrade");
        } else if is("expect") && !value.eq_ignore_ascii_case(b"100-continue") {
            return Err("expect");
        } else if is("connection") {
            let asked = |word: &[u8]| word.trim_ascii().eq_ignore_ascii_case(b"upgrade");
            if value.split(|byte| *byte == b',').any(asked) {
                return Err("upgrade");
            }
        }
        Ok(())
    }

    fn content(&self) -> Result<Content, &'static str> {
        if !self.host {
            return Err("no-host");
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err("te-and-cl"),
            (true, None) => Ok(Content::Chunked),
            (false, length) => Ok(Content::Length(length.unwrap_or(0))),
        }
    }
}

/// Checks what a request over HTTP/2 could still carry that has two meanings; hyper and h2 refuse the rest.
pub fn check_h2(parts: &http::Request<hyper::body::Incoming>) -> Result<(), &'static str> {
    if !METHODS.contains(&parts.method().as_str().as_bytes()) {
        return Err("method");
    }
    let target = parts.uri().path_and_query().map(|target| target.as_str().as_bytes()).unwrap_or_default();
    if target.first() != Some(&b'/') || !is_visible(target) {
        return Err("target");
    }
    let authority = parts.uri().authority().map(|authority| authority.as_str());
    let mut hosts = parts.headers().get_all(http::header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("duplicate-host");
    }
    match (authority, host) {
        (None, None) => return Err("no-host"),
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            return Err("host-differs");
        }
        (Some(authority), _) if !is_authority(authority.as_bytes()) => return Err("host"),
        (None, Some(host)) if !is_authority(host.as_bytes()) => return Err("host"),
        _ => {}
    }
    parts.headers().keys().try_for_each(|name| check_name(name.as_str().as_bytes()))
}
