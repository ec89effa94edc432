//! Resources of MCP by their URI: which entry of the catalogue speaks for one, and which leave the upstream.

/// The key of an entry for some resources begins so; a pattern follows.
const KEY: &str = "resources/read ";
/// Schemes by which an upstream fetches from elsewhere, so that a read is an external call [MCP 2025-11-25, resources].
const FETCHED: [&str; 8] = ["ftp", "ftps", "http", "https", "sftp", "smb", "ws", "wss"];

/// URIs that are alike: `*` stands for any text, the empty one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern in a catalogue key such as `resources/read file:///srv/*`.
    pub fn of_key(key: &str) -> Option<Pattern> {
        key.strip_prefix(KEY).map(|pattern| Pattern(pattern.trim().to_owned()))
    }

    /// How much of it is literal, in bytes: the entry of the pattern that says more speaks for a URI.
    pub fn literal_bytes(&self) -> usize {
        self.0.bytes().filter(|byte| *byte != b'*').count()
    }

    /// Whether the URI is one of these. One that a server could take for another than it is written is none of them.
    pub fn fits(&self, uri: &str) -> bool {
        is_plain(uri) && fits(self.0.as_bytes(), uri.as_bytes())
    }
}

/// Whether an upstream fetches this from elsewhere, as far as the URI tells. Case and space around are not believed.
pub fn is_fetched(uri: &str) -> bool {
    let scheme = uri.split(':').next().unwrap_or_default().trim();
    !uri.contains(':') || FETCHED.iter().any(|fetched| scheme.eq_ignore_ascii_case(fetched))
}

/// Nothing in it that is resolved, decoded or cut off before it is looked up.
fn is_plain(uri: &str) -> bool {
    let escapes = || {
        let lower = uri.to_ascii_lowercase();
        ["%2e", "%2f", "%5c", "%00", "%25"].iter().any(|escape| lower.contains(escape))
    };
    let climbs = |segment: &str| matches!(segment, "." | "..");
    !uri.contains(['\\', '#', '@']) && !uri.split(['/', '?', ';']).any(climbs) && !escapes()
}

/// Matches without going back further than the last `*`: linear in the URI for each `*`.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(from) {
        match pattern.get(at) {
            Some(b'*') => {
                last = Some((at + 1, from));
                at += 1;
            }
            Some(expected) if expected == byte => (at, from) = (at + 1, from + 1),
            _ => match last {
                Some((after, start)) => {
                    last = Some((after, start + 1));
                    (at, from) = (after, start + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_what_it_says_and_nothing_that_climbs_out() {
        let fits = |pattern: &str, uri: &str| Pattern(pattern.to_owned()).fits(uri);
        for (pattern, uri) in [
            ("test://static-text", "test://static-text"),
            ("file:///srv/*", "file:///srv/a/b.txt"),
            ("file:///srv/*", "file:///srv/"),
            ("db://*/tables/*", "db://main/tables/customers"),
            ("*", "note:1"),
            ("a*b*c", "abbc"),
        ] {
            assert!(fits(pattern, uri), "{pattern} {uri}");
        }
        for (pattern, uri) in [
            ("test://static-text", "test://static-text2"),
            ("file:///srv/*", "file:///srv"),
            ("file:///srv/*", "file:///srv/../etc/passwd"),
            ("file:///srv/*", "file:///srv/..;x/etc/passwd"),
            ("file:///srv/*", "file:///srv/%2E%2e/etc/passwd"),
            ("file:///srv/*", "file:///srv/%252e%252e/etc"),
            ("file:///srv/*", "file:///srv/..\\etc"),
            ("file:///srv/*", "FILE:///srv/a"),
            ("a*b*c", "abb"),
        ] {
            assert!(!fits(pattern, uri), "{pattern} {uri}");
        }
    }

    #[test]
    fn what_is_fetched_from_elsewhere_is_told_by_its_scheme() {
        for uri in ["https://x.test/", "HTTP://x", " https://x", "ws:x", "no-scheme"] {
            assert!(is_fetched(uri), "{uri}");
        }
        for uri in ["file:///x", "test://x", "urn:isbn:1", "httpx://y"] {
            assert!(!is_fetched(uri), "{uri}");
        }
    }
}
