//! The addresses of an upstream's host: one that cannot be connected to is left out for a while.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};

/// How long an address is left out.
const LEFT_OUT_FOR: Duration = Duration::from_secs(30);
/// How long one address may take while others are left to try: a black hole must not use up the whole time.
const ADDRESS_TIME_MAX: Duration = Duration::from_secs(1);
/// Addresses that are tried for one connection, and as many are left out at one time.
const ADDRESSES_MAX: usize = 16;

/// Which addresses of one host failed of late.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    left_out: Mutex<Vec<(SocketAddr, Instant)>>,
}

impl Addresses {
    /// Connects to the first address of the host that takes the connection, those that failed of late last.
    pub(super) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let found: Vec<SocketAddr> = lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect();
        self.connect_to(found).await
    }

    async fn connect_to(&self, found: Vec<SocketAddr>) -> io::Result<TcpStream> {
        let mut problem = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let order = self.order(found, Instant::now());
        let last = order.len().saturating_sub(1);
        for (at, address) in order.into_iter().enumerate() {
            let connecting = TcpStream::connect(address);
            let connected = if at == last {
                connecting.await
            } else {
                tokio::time::timeout(ADDRESS_TIME_MAX, connecting).await.unwrap_or_else(|_| Err(slow()))
            };
            match connected {
                Ok(stream) => {
                    self.take_in(address);
                    return Ok(stream);
                }
                Err(error) => {
                    // Of a host with one address there is nothing to choose.
                    if last > 0 {
                        self.leave_out(address, Instant::now());
                    }
                    problem = error;
                }
            }
        }
        Err(problem)
    }

    /// Those that are not left out first. The others still come, since all of them may have failed.
    fn order(&self, mut found: Vec<SocketAddr>, now: Instant) -> Vec<SocketAddr> {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.retain(|(_, until)| *until > now);
        found.sort_by_key(|address| left_out.iter().any(|(other, _)| other == address));
        found
    }

    fn leave_out(&self, address: SocketAddr, now: Instant) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.retain(|(other, _)| *other != address);
        if left_out.len() >= ADDRESSES_MAX {
            left_out.remove(0);
        }
        left_out.push((address, now + LEFT_OUT_FOR));
    }

    fn take_in(&self, address: SocketAddr) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.retain(|(other, _)| *other != address);
    }
}

fn slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the address takes no connection in time")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// An address of this machine that takes connections, and one of the same port that refuses them.
    async fn two() -> (TcpListener, SocketAddr, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let bad = SocketAddr::new("127.0.0.3".parse().unwrap(), good.port());
        (listener, good, bad)
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_left_out_for_a_while() {
        let (_listener, good, bad) = two().await;
        let addresses = Addresses::default();
        assert_eq!(addresses.connect_to(vec![bad, good]).await.unwrap().peer_addr().unwrap(), good);
        let now = Instant::now();
        assert_eq!(addresses.order(vec![bad, good], now), [good, bad], "it comes last now");
        assert_eq!(addresses.order(vec![bad, good], now + LEFT_OUT_FOR), [bad, good], "and first again");
    }

    #[tokio::test]
    async fn what_is_left_out_is_still_tried_when_nothing_else_is_there() {
        let (listener, good, bad) = two().await;
        let addresses = Addresses::default();
        drop(listener);
        assert!(addresses.connect_to(vec![bad, good]).await.is_err());
        assert_eq!(addresses.left_out.lock().unwrap().len(), 2);
        let _again = TcpListener::bind(good).await.unwrap();
        assert_eq!(addresses.connect_to(vec![bad, good]).await.unwrap().peer_addr().unwrap(), good);
        let left_out: Vec<SocketAddr> =
            addresses.left_out.lock().unwrap().iter().map(|(address, _)| *address).collect();
        assert_eq!(left_out, [bad], "one that takes a connection is in again");
    }

    #[tokio::test]
    async fn a_single_address_is_never_left_out_and_the_list_is_bounded() {
        let (_listener, _, bad) = two().await;
        let addresses = Addresses::default();
        assert!(addresses.connect_to(vec![bad]).await.is_err());
        assert!(addresses.left_out.lock().unwrap().is_empty());
        assert!(addresses.connect_to(vec![]).await.is_err());
        for port in 1..100 {
            addresses.leave_out(SocketAddr::new(bad.ip(), port), Instant::now());
        }
        assert_eq!(addresses.left_out.lock().unwrap().len(), ADDRESSES_MAX);
    }
}
