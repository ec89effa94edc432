//! Which user is at the other end of a local connection, as the kernel knows it.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

/// The most connections of the machine that are looked through for one.
const ROWS_MAX: usize = 1_000_000;
/// The state of a connection that stands [Linux, `TCP_ESTABLISHED`].
const ESTABLISHED: &str = "01";

/// The user who owns the agent's end of a TCP connection between two addresses of this machine.
///
/// Fails when the kernel lists no such connection, so that whoever cannot be told is refused.
pub fn owner(agent: SocketAddr, listener: SocketAddr) -> io::Result<u32> {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let file = match std::fs::File::open(table) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        for row in BufReader::new(file).lines().take(ROWS_MAX) {
            if let Some(uid) = owner_in(&row?, agent, listener) {
                return Ok(uid);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the kernel does not list the agent's end of the connection"))
}

/// The owner in one row, when the row is of this connection as its agent sees it [proc(5): `/proc/net/tcp`].
fn owner_in(row: &str, agent: SocketAddr, listener: SocketAddr) -> Option<u32> {
    let mut fields = row.split_ascii_whitespace().skip(1);
    let (local, remote) = (fields.next()?, fields.next()?);
    if fields.next()? != ESTABLISHED || !is(local, agent) || !is(remote, listener) {
        return None;
    }
    // Left out: both queues, the timer, retransmissions.
    fields.nth(3)?.parse().ok()
}

/// Whether a column is this address: in its own family, or an IPv4 address as a socket of IPv6 has it.
fn is(column: &str, address: SocketAddr) -> bool {
    let Some((ip, port)) = column.split_once(':') else { return false };
    if u16::from_str_radix(port, 16) != Ok(address.port()) {
        return false;
    }
    let as_listed = |bytes: &[u8]| -> String {
        // The kernel prints words of 32 bits in its own byte order.
        let words = bytes.chunks_exact(4).filter_map(|word| <[u8; 4]>::try_from(word).ok());
        words.map(|word| format!("{:08X}", u32::from_ne_bytes(word))).collect()
    };
    match address.ip() {
        IpAddr::V4(v4) => ip == as_listed(&v4.octets()) || ip == as_listed(&v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => ip == as_listed(&v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_row_gives_its_owner_only_for_exactly_this_connection_while_it_stands() {
        let row = |state: &str| {
            format!(
                "  12: 0100007F:9C40 0100007F:20FB {state} 00000000:00000000 00:00000000 00000000  1000 0 99 1"
            )
        };
        let (agent, listener) = ("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:8443".parse().unwrap());
        assert_eq!(owner_in(&row("01"), agent, listener), Some(1000));
        // After its end the kernel lists the connection without its owner.
        assert_eq!(owner_in(&row("06"), agent, listener), None);
        assert_eq!(owner_in(&row("01"), listener, agent), None);
        assert_eq!(owner_in(&row("01"), "127.0.0.2:40000".parse().unwrap(), listener), None);
        assert_eq!(owner_in(&row("01"), agent, "127.0.0.1:8444".parse().unwrap()), None);
        let mapped =
            "1: 0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:20FB 01 0:0 0:0 0 7 0";
        assert_eq!(owner_in(mapped, agent, listener), Some(7));
        let v6 =
            "1: 00000000000000000000000001000000:9C40 00000000000000000000000001000000:20FB 01 0:0 0:0 0 8 0";
        assert_eq!(owner_in(v6, "[::1]:40000".parse().unwrap(), "[::1]:8443".parse().unwrap()), Some(8));
    }

    #[test]
    fn the_kernel_tells_who_owns_a_real_connection() {
        use std::os::unix::fs::MetadataExt;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, agent) = listener.accept().unwrap();
        let me = std::fs::metadata("/proc/self").unwrap().uid();
        assert_eq!(owner(agent, listener.local_addr().unwrap()).unwrap(), me);
        drop(client);
        assert!(owner("127.0.0.1:1".parse().unwrap(), listener.local_addr().unwrap()).is_err());
    }
}
