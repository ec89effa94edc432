//! Where a call goes, and what is known of the place.
//!
//! A destination is compared in two forms. What makes it trusted, or a party, goes by its exact form, so that nobody
//! gains trust by a name that only looks like another. What makes it suspect goes by its folded form, so that case,
//! punctuation and look-alikes do not hide where it came from.

use std::borrow::Cow;
use std::net::IpAddr;

use super::canon::Canon;
use super::text::{FlowKey, Kind};
use crate::classify::sink::SinkKind;

/// What is known of a destination, from the most trusted to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Inside the organization, by configuration.
    Internal,
    /// From a trusted structured field, granted by the task, or endorsed.
    Known,
    /// Only a party of a record that outsiders can write.
    Party,
    /// Never seen.
    New,
    /// From the free text of outsiders, and not known.
    Planted,
}

impl Tier {
    /// The word in policy, records and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Internal => "internal",
            Tier::Known => "known",
            Tier::Party => "party",
            Tier::New => "new",
            Tier::Planted => "planted",
        }
    }
}

/// One place that something can be sent to, in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A mail address: local part and host, in lower case.
    Mail(String),
    /// A host: its registrable domain, or its address.
    Host(String),
    /// An account, a user, a channel, a path: letters and digits, in lower case.
    Name(String),
}

impl Place {
    /// The place that a destination of this kind of sink is.
    pub fn of(kind: SinkKind, text: &str) -> Place {
        match kind {
            SinkKind::Dns | SinkKind::Form | SinkKind::Http | SinkKind::Publish => {
                host_of(text).map_or_else(|| Place::guess(text), Place::Host)
            }
            SinkKind::Grant | SinkKind::Invite | SinkKind::Message | SinkKind::Payment | SinkKind::Share => {
                Place::guess(text)
            }
        }
    }

    /// The place that a text names, by what it looks like: an address, a URL or a host with a public suffix, else a
    /// name.
    pub fn guess(text: &str) -> Place {
        let text = text.trim();
        let text = text.strip_prefix("mailto:").unwrap_or(text);
        // `Ana Example <ana@example.org>`
        let named = text.strip_suffix('>').and_then(|inner| inner.rsplit_once('<'));
        let text = named.map_or(text, |(_, address)| address);
        if text.contains(':') && text.contains("://") {
            return host_of(text).map_or_else(|| Place::name(text), Place::Host);
        }
        if let Some((local, domain)) = text.rsplit_once('@')
            && !local.is_empty()
            && !domain.is_empty()
        {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            if local.is_ascii() && domain.bytes().all(plain) && !domain.ends_with('.') {
                // Nearly every address reads as it is written.
                return Place::Mail(text.to_ascii_lowercase());
            }
            let domain = ascii_host(domain).unwrap_or_else(|| domain.to_lowercase());
            return Place::Mail(format!("{}@{domain}", local.to_lowercase()));
        }
        match host_of(text) {
            Some(host) if has_public_suffix(&host) => Place::Host(host),
            _ => Place::name(text),
        }
    }

    fn name(text: &str) -> Place {
        let lower = text.trim().to_lowercase();
        let kept = |each: &char| each.is_alphanumeric() || matches!(each, '/' | '.' | '_' | '#' | '@' | ':');
        // White space and hyphens are how account numbers and handles are laid out for reading.
        Place::Name(lower.chars().filter(kept).collect())
    }

    /// The canonical form, as it may be pseudonymised: `mail:…`, `host:…`, `name:…`.
    pub fn canonical(&self) -> String {
        match self {
            Place::Mail(text) => format!("mail:{text}"),
            Place::Host(text) => format!("host:{text}"),
            Place::Name(text) => format!("name:{text}"),
        }
    }

    /// The hash by which it is known, or a party: of its exact form.
    pub fn exact(&self, key: &FlowKey) -> u64 {
        let (kind, text) = match self {
            Place::Mail(text) => (Kind::Mail, text),
            Place::Host(text) => (Kind::Host, text),
            Place::Name(text) => (Kind::Name, text),
        };
        key.hash(kind, text.as_bytes())
    }

    /// The hash by which it is found in the free text of outsiders.
    pub fn folded(&self, key: &FlowKey) -> u64 {
        let (Place::Mail(text) | Place::Host(text) | Place::Name(text)) = self;
        key.hash(Kind::Name, &Canon::of(text).bytes)
    }
}

/// A URL: the place it leads to, and what it carries beside that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url<'t> {
    /// Its registrable domain, or its address.
    pub host: String,
    /// Labels below the registrable domain, without `www`.
    pub labels: String,
    /// Path, query and fragment, as written.
    pub rest: &'t str,
}

impl<'t> Url<'t> {
    /// Reads a URL, with or without a scheme.
    pub fn parse(text: &'t str) -> Option<Url<'t>> {
        let text = text.trim();
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end)?;
        // What stands before an @ is no part of the host, and goes along.
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let full = ascii_host(name)?;
        let registrable = registrable(&full);
        let below = full.strip_suffix(&*registrable).unwrap_or_default().trim_end_matches('.');
        let below = below.strip_prefix("www").map_or(below, |rest| rest.trim_start_matches('.'));
        let labels = if user.is_empty() { below.to_owned() } else { format!("{user} {below}") };
        Some(Url { host: registrable.into_owned(), labels, rest })
    }

    /// How many bytes it carries beside its place.
    pub fn carries_bytes(&self) -> usize {
        self.labels.len() + self.rest.trim_matches('/').len()
    }

    /// The hash by which it is known to have been read as it is. The scheme, a last slash and a full stop that ended
    /// the sentence make no difference.
    pub fn hash(&self, key: &FlowKey) -> u64 {
        let rest = self.rest.trim_end_matches(['.', ',', ';', ':', '!', '/', '?', '#']);
        key.hash(Kind::Url, format!("{}\n{}\n{rest}", self.host, self.labels).as_bytes())
    }
}

/// The URLs in a text, with a scheme or as a host with a public suffix, as written.
pub fn urls<'t>(text: &'t str, canon: &Canon, mut each: impl FnMut(Url<'t>)) {
    let mut done = 0;
    let hosts = canon.odd_pieces().filter(|(_, piece)| piece.has_dotted_letters() && !piece.has_at());
    for (_, piece) in hosts {
        let start = piece.raw_start as usize;
        if start < done {
            continue;
        }
        let rest = text.get(start..).unwrap_or_default();
        let end = rest.find(|c: char| c.is_whitespace() || "\"'<>()[]{}|`".contains(c)).unwrap_or(rest.len());
        let written = rest.get(..end).unwrap_or_default().trim_end_matches(['.', ',', ';', ':', '!', '?']);
        let Some(url) = Url::parse(written) else { continue };
        if has_public_suffix(&url.host) || text.get(..start).is_some_and(|before| before.ends_with("://")) {
            done = start + end;
            each(url);
        }
    }
}

/// The registrable domain of the host of a URL or of a host alone.
fn host_of(text: &str) -> Option<String> {
    Url::parse(text).map(|url| url.host)
}

/// A host in ASCII and lower case, without the root's dot.
fn ascii_host(text: &str) -> Option<String> {
    let text = text.trim_end_matches('.');
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c == '/') {
        return None;
    }
    if text.is_ascii() {
        let sound = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'[' | b']' | b':')
        };
        return text.bytes().all(sound).then(|| text.to_ascii_lowercase());
    }
    idna::domain_to_ascii(text).ok()
}

fn registrable(host: &str) -> Cow<'_, str> {
    if host.parse::<IpAddr>().is_ok() {
        return Cow::Borrowed(host);
    }
    Cow::Borrowed(psl::domain_str(host).unwrap_or(host))
}

/// Whether a host ends in a suffix under which names can be registered, by the Public Suffix List.
fn has_public_suffix(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok() || psl::suffix(host.as_bytes()).is_some_and(|suffix| suffix.is_known())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_the_same_meaning_are_the_same() {
        for (kind, one, two) in [
            (SinkKind::Message, "Ana@Example.org", "Ana Example <ana@example.org>"),
            (SinkKind::Message, "mailto:ana@example.org", "ana@example.org."),
            (SinkKind::Publish, "www.evil.example.com/x?y=1", "https://a.b.example.com:8443/z"),
            (SinkKind::Http, "http://EXAMPLE.co.uk./", "data.example.co.uk"),
            (SinkKind::Payment, "GB29 NWBK 6016 1331 9268 19", "gb29nwbk60161331926819"),
        ] {
            assert_eq!(Place::of(kind, one), Place::of(kind, two), "{one} {two}");
        }
        for (kind, one, two) in [
            (SinkKind::Message, "ana@example.org", "ana@exam-ple.org"),
            (SinkKind::Http, "one.github.io", "two.github.io"),
            (SinkKind::Http, "example.co.uk", "other.co.uk"),
            (SinkKind::Message, "ana@example.org", "a.na@example.org"),
        ] {
            assert_ne!(Place::of(kind, one), Place::of(kind, two), "{one} {two}");
        }
    }

    #[test]
    fn a_url_carries_its_path_its_query_and_its_subdomains() {
        let url = Url::parse("https://c2FsYXJ5.evil.com/a/b?c=d").unwrap();
        assert_eq!((&*url.host, &*url.labels, url.rest), ("evil.com", "c2fsyxj5", "/a/b?c=d"));
        assert_eq!(Url::parse("www.example.com").unwrap().carries_bytes(), 0);
        let key = FlowKey::new(&[7; 32]);
        let hash = |text| Url::parse(text).unwrap().hash(&key);
        assert_eq!(hash("https://www.example.com/a/"), hash("example.com/a."));
        assert_ne!(hash("https://www.example.com/a"), hash("example.com/b"));
    }
}
