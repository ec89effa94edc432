//! Who may use a local socket: its own names against DNS rebinding, and the user or the token.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use super::Admission;
use super::problem::Problem;

/// The port of `http` without one.
const HTTP_PORT: u16 = 80;

/// The names by which a socket may be called.
#[derive(Clone, Copy, Debug)]
pub enum Names {
    /// `localhost`, `127.0.0.1`, `[::1]` or the address itself, with this port.
    Loopback(SocketAddr),
    /// `localhost` or another name of one label: no browser reaches a Unix socket, and clients there invent a host.
    Single,
}

impl Names {
    /// Whether these are the socket's own host and port.
    fn include(self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host();
        match self {
            Names::Loopback(address) => {
                // A port that cannot be read is none of ours: `port_u16` alone would take it for an absent one.
                let port = if has_port(&authority) { authority.port_u16() } else { Some(HTTP_PORT) };
                let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
                let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), address.ip()];
                port == Some(address.port())
                    && (host.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| own.contains(&ip)))
            }
            Names::Single => {
                let label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
                // A number is an address in another spelling.
                host.bytes().all(label)
                    && host.bytes().any(|b| b.is_ascii_alphabetic())
                    && !host.starts_with("0x")
            }
        }
    }
}

fn has_port(authority: &Authority) -> bool {
    authority.as_str().len() > authority.host().len()
}

/// Checks that a request was meant for this socket, and comes from no web page of another origin
/// [MCP 2025-11-25, basic/transports: security].
pub fn named(names: Names, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().ok_or(Problem::Malformed("There must be a Host header."))?;
    if hosts.next().is_some() {
        return Err(Problem::Malformed("There must be one Host header."));
    }
    let own = |value: &http::HeaderValue| value.to_str().is_ok_and(|host| names.include(host));
    if !own(host) || uri.authority().is_some_and(|authority| !names.include(authority.as_str())) {
        return Err(Problem::ForeignHost);
    }
    let own_origin = |value: &http::HeaderValue| {
        value
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://"))
            .is_some_and(|host| names.include(host))
    };
    if headers.get_all(ORIGIN).iter().all(own_origin) { Ok(()) } else { Err(Problem::ForeignOrigin) }
}

/// Checks that a request comes from who may use the identity. A token is taken out: it is not the gateway's.
///
/// `user` is the user at the other end, when the kernel could tell.
pub fn admitted(admission: &Admission, user: Option<u32>, headers: &mut HeaderMap) -> Result<(), Problem> {
    match admission {
        Admission::Anyone => Ok(()),
        Admission::Uid(uid) if user == Some(*uid) => Ok(()),
        Admission::Uid(_) => Err(Problem::WrongUser),
        Admission::Token(token) => {
            let mut sent = headers.get_all(AUTHORIZATION).iter();
            let bearer = sent.next().and_then(|value| bearer(value.as_bytes()));
            let only = sent.next().is_none();
            let token = token.expose().as_bytes();
            let right = bearer.is_some_and(|bearer| {
                aws_lc_rs::constant_time::verify_slices_are_equal(bearer, token).is_ok()
            });
            if !right || !only {
                return Err(Problem::WrongToken);
            }
            headers.remove(AUTHORIZATION);
            Ok(())
        }
    }
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter [RFC 9110 §11.1].
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_called_by_its_own_names_alone() {
        let names = Names::Loopback("127.0.0.1:8080".parse().unwrap());
        for own in ["localhost:8080", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"] {
            assert!(names.include(own), "{own}");
        }
        for foreign in [
            "",
            "localhost",
            "localhost:",
            "localhost:81",
            "127.0.0.1",
            "127.0.0.2:8080",
            "evil.example.com:8080",
            "localhost.evil.example.com:8080",
            "a@localhost:8080",
            "localhost:8080 ",
            "localhost:08080x",
            "2130706433:8080",
            "[::1]",
            "localhost:99999999",
        ] {
            assert!(!names.include(foreign), "{foreign}");
        }
        assert!(Names::Loopback("127.0.0.1:80".parse().unwrap()).include("localhost"));
        assert!(Names::Loopback("127.0.0.5:81".parse().unwrap()).include("127.0.0.5:81"));
    }

    #[test]
    fn a_unix_socket_is_called_by_one_label() {
        for own in ["localhost", "holdpoint", "mail:80", "a-b"] {
            assert!(Names::Single.include(own), "{own}");
        }
        for foreign in
            ["", "127.0.0.1", "[::1]", "evil.example.com", "2130706433", "0x7f000001", "localhost."]
        {
            assert!(!Names::Single.include(foreign), "{foreign}");
        }
    }
}
