//! Destinations: what is an address or a host, whether it is internal, and how it is written canonically.

use std::fmt;

/// The kind of thing that leaves by a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the word that the catalogue uses")]
pub enum SinkKind {
    Dns,
    Form,
    Grant,
    Http,
    Invite,
    Message,
    Payment,
    Publish,
    Share,
}

impl SinkKind {
    /// Every kind.
    pub const ALL: [SinkKind; 9] = [
        SinkKind::Dns,
        SinkKind::Form,
        SinkKind::Grant,
        SinkKind::Http,
        SinkKind::Invite,
        SinkKind::Message,
        SinkKind::Payment,
        SinkKind::Publish,
        SinkKind::Share,
    ];

    /// The kind that a word names.
    pub fn parse(word: &str) -> Option<SinkKind> {
        SinkKind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word used in configuration and records.
    pub fn as_str(self) -> &'static str {
        match self {
            SinkKind::Dns => "dns",
            SinkKind::Form => "form",
            SinkKind::Grant => "grant",
            SinkKind::Http => "http",
            SinkKind::Invite => "invite",
            SinkKind::Message => "message",
            SinkKind::Payment => "payment",
            SinkKind::Publish => "publish",
            SinkKind::Share => "share",
        }
    }
}

/// One destination of a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// How it is reached.
    pub kind: SinkKind,
    /// `address:…`, `host:…` or, for what is neither, `other:…`; the same destination always reads the same.
    pub canonical: String,
}

/// Exactly one place, in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An e-mail address: local part and host, in lower case.
    Address(String, String),
    /// A host, in lower case, without a trailing dot.
    Host(String),
}

impl Place {
    /// Parses a text that is exactly one address, host or URL; everything that two readers could take for something
    /// else is `None`.
    pub fn parse(text: &str) -> Option<Place> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return url_host(scheme, rest).map(Place::Host);
        }
        match text.split_once('@') {
            Some((local, domain)) => Some(Place::Address(local_part(local)?, host(domain)?)),
            None => host(text).map(Place::Host),
        }
    }

    /// The destination of this kind at a text, whether or not it is exactly one place.
    pub(super) fn destination(kind: SinkKind, text: &str) -> Destination {
        let canonical = match Place::parse(text) {
            Some(place) => place.to_string(),
            None => format!("other:{}", text.trim().to_lowercase()),
        };
        Destination { kind, canonical }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Address(local, host) => write!(f, "address:{local}@{host}"),
            Place::Host(host) => write!(f, "host:{host}"),
        }
    }
}

/// What counts as inside: `organization.internal`.
#[derive(Clone, Debug, Default)]
pub struct Internal {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// `None` for hosts, otherwise the local part of addresses, or any.
    local: Option<Option<String>>,
    host: String,
    /// Whether hosts below `host` are meant, rather than `host` itself.
    below: bool,
}

impl Internal {
    /// Adds a pattern: `*@example.org`, `name@example.org`, `*.example.org` or `host.example.org`.
    pub fn add(&mut self, pattern: &str) -> Result<(), String> {
        let parsed = Pattern::parse(pattern).ok_or_else(|| {
            format!(
                "`{pattern}` is no pattern: expected *@example.org, name@example.org, *.example.org or host.example.org"
            )
        })?;
        self.patterns.push(parsed);
        Ok(())
    }

    /// Whether a place is inside.
    pub fn contains(&self, place: &Place) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(place))
    }

    /// Whether a text is exactly one place, and that is inside.
    pub fn contains_text(&self, text: &str) -> bool {
        Place::parse(text).is_some_and(|place| self.contains(&place))
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        let (local, domain) = match text.split_once('@') {
            Some(("*", domain)) => (Some(None), domain),
            Some((local, domain)) => (Some(Some(local_part(local)?)), domain),
            None => (None, text),
        };
        let (below, domain) = domain.strip_prefix("*.").map_or((false, domain), |rest| (true, rest));
        // A single label is a whole top-level domain, or a slip: neither is anybody's inside.
        let host = host(domain).filter(|host| host.contains('.') || host == "localhost")?;
        Some(Pattern { local, host, below })
    }

    fn matches(&self, place: &Place) -> bool {
        let (local, host) = match (&self.local, place) {
            (Some(wanted), Place::Address(local, host)) => (wanted.as_ref().is_none_or(|w| w == local), host),
            (None, Place::Host(host)) => (true, host),
            _ => return false,
        };
        let host_fits = if self.below {
            host.strip_suffix(&*self.host).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            *host == self.host
        };
        local && host_fits
    }
}

/// A local part that no mailer reads as anything else: no quoting, no comments, no `%` or `!` routes, no option.
fn local_part(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    let sound = (1..=64).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with(['.', '-'])
        && !text.ends_with('.')
        && !text.contains("..");
    sound.then(|| text.to_ascii_lowercase())
}

/// A host name in ASCII [RFC 1123 §2.1], in lower case, without the root's dot.
fn host(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let sound = name.len() <= 253 && name.split('.').all(label);
    sound.then(|| name.to_ascii_lowercase())
}

/// The host of an absolute URL that every parser takes for the same: no user information, nothing escaped in the
/// authority, no backslash, nothing beyond visible ASCII.
fn url_host(scheme: &str, rest: &str) -> Option<String> {
    let first = scheme.bytes().next()?;
    let scheme_sound = first.is_ascii_alphabetic()
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !scheme_sound || !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end)?;
    // Some parsers look for the last @ before the first slash, whatever comes between.
    if authority.contains('@') || (!tail.starts_with('/') && tail.contains('@')) {
        return None;
    }
    let name = match authority.split_once(':') {
        Some((name, port)) => {
            let sound = port.len() <= 5 && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            sound.then_some(name)?
        }
        None => authority,
    };
    host(name)
}
