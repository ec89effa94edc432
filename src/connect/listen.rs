//! The local HTTP server: connections of agents, each with the user at its other end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

use super::gateway::Gateway;
use super::local::Names;
use super::socket::{Listener, Socket};
use super::{Admission, Failure, peer, relay};

/// The most connections of agents at a time.
const CONNECTIONS_MAX: usize = 512;
/// How long an agent may take to send the head of a request, and to begin the next one.
const HEAD_SECONDS_MAX: u64 = 60;
/// The largest head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long requests under way may take to end when the connector does.
const DRAIN_SECONDS_MAX: u64 = 5;
/// How long to wait after a connection that the system could not give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection needs.
struct Share {
    gateway: Gateway,
    names: Names,
    admission: Admission,
    /// The listener's own address, when it has one.
    own: Option<SocketAddr>,
}

/// Serves a socket until it is told to stop; `ready` hears where it listens.
pub async fn serve(
    listener: Listener,
    admission: Admission,
    gateway: Gateway,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let own = if let Listener::Tcp(_, address) = &listener { Some(*address) } else { None };
    let share = Arc::new(Share { gateway, names: listener.names(), admission, own });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (end, ending) = watch::channel(false);
    ready(&listener.url());
    let mut stop = pin!(stop);
    loop {
        let place = tokio::select! {
            () = &mut stop => break,
            place = places.clone().acquire_owned() => place,
        };
        let socket = tokio::select! {
            () = &mut stop => break,
            socket = listener.accept() => socket,
        };
        match (place, socket) {
            (Ok(place), Ok(socket)) => {
                let (share, ending) = (share.clone(), ending.clone());
                tokio::spawn(async move {
                    connection(&share, socket, ending).await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    let _ = end.send(true);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS_MAX), places.acquire_many(all)).await;
    Ok(())
}

async fn connection(share: &Share, socket: Socket, ending: watch::Receiver<bool>) {
    match socket {
        Socket::Tcp(stream, agent) => {
            let user = match (&share.admission, share.own) {
                (Admission::Uid(_), Some(own)) => owner(agent, own).await,
                _ => None,
            };
            exchange(share, stream, user, ending).await;
        }
        Socket::Unix(stream) => {
            let user = stream.peer_cred().map(|peer| peer.uid()).ok();
            exchange(share, stream, user, ending).await;
        }
    }
}

async fn owner(agent: SocketAddr, own: SocketAddr) -> Option<u32> {
    let asked = tokio::task::spawn_blocking(move || peer::owner(agent, own)).await;
    match asked.ok()? {
        Ok(uid) => Some(uid),
        Err(error) => {
            tracing::warn!(%agent, %error, "refused, because it is not known whose process this is");
            None
        }
    }
}

/// Serves HTTP/1.1 on a connection. An agent that leaves drops what is under way, and with it the gateway's request.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    share: &Share,
    stream: S,
    user: Option<u32>,
    mut ending: watch::Receiver<bool>,
) {
    let service = service_fn(|request| async {
        let answer = relay::answer(&share.gateway, share.names, &share.admission, user, request).await;
        Ok::<_, Infallible>(answer)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_SECONDS_MAX))
        .max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let end = pin!(async move {
        // The connector's own end counts as the same.
        let _ = ending.wait_for(|ending| *ending).await;
    });
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an agent's connection ended");
    }
}
