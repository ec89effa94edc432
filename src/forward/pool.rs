//! Connections to one upstream: HTTP/1.1 ones are checked out and given back, an HTTP/2 one is shared.
//!
//! A request that hyper gives back unsent is tried once more on a new connection; anything that may have reached the
//! upstream is never sent again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::uri::Scheme;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::addresses::Addresses;
use super::outgoing::Outgoing;
use crate::net::Dial;

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing reached the upstream.
    #[error("cannot connect to {0}")]
    Connect(String),
    /// The request may have reached the upstream.
    #[error("the upstream broke off: {0}")]
    Broken(#[source] hyper::Error),
    /// The request reached the upstream, and no reply began in time.
    #[error("the upstream did not reply in time")]
    TimedOut,
}

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const IDLE_TIME_MAX: Duration = Duration::from_secs(50);
const READY_TIME_MAX: Duration = Duration::from_millis(10);
const IDLE_CONNECTIONS_MAX: usize = 256;
/// What is under way in either direction of a connection to a server inside this process.
const INSIDE_BYTES_MAX: usize = 64 << 10;

type Http1 = http1::SendRequest<Outgoing>;
type Http2 = http2::SendRequest<Outgoing>;
/// What went wrong, with the request when it was not sent.
type Broken = (hyper::Error, Option<Box<Request<Outgoing>>>);

/// The connections to one upstream.
pub struct Pool {
    dial: Dial,
    addresses: Addresses,
    idle: Arc<Mutex<Vec<(Http1, Instant)>>>,
    shared: Mutex<Option<Http2>>,
}

enum Connection {
    One(Http1),
    Two(Http2),
}

/// An HTTP/1.1 connection in use; it goes back to the pool when its reply has been read to the end.
pub struct Lent {
    connection: Option<Http1>,
    idle: Arc<Mutex<Vec<(Http1, Instant)>>>,
}

impl Pool {
    /// A pool without connections.
    pub fn new(dial: Dial) -> Pool {
        Pool { dial, addresses: Addresses::default(), idle: Arc::default(), shared: Mutex::new(None) }
    }

    /// Where this pool connects to.
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Sends one request and waits for the head of its reply.
    pub async fn send(&self, request: Request<Outgoing>) -> Result<(Response<Incoming>, Lent), Failure> {
        let unsent = match self.reuse().await {
            None => request,
            Some(connection) => match self.send_on(connection, request).await {
                Ok(reply) => return Ok(reply),
                // It was closed meanwhile: the same request over a new connection.
                Err((_, Some(unsent))) => *unsent,
                Err((error, None)) => return Err(Failure::Broken(error)),
            },
        };
        // Connecting is seldom, and too large a state to be a part of every call's.
        Box::pin(self.send_anew(unsent)).await
    }

    async fn send_anew(&self, request: Request<Outgoing>) -> Result<(Response<Incoming>, Lent), Failure> {
        let connection = self.connect().await?;
        self.send_on(connection, request).await.map_err(|failure| self.failure(failure))
    }

    /// What hyper gives back has not been sent.
    fn failure(&self, (error, unsent): Broken) -> Failure {
        match unsent {
            Some(_) => Failure::Connect(format!("{}:{}: {error}", self.dial.host, self.dial.port)),
            None => Failure::Broken(error),
        }
    }

    async fn reuse(&self) -> Option<Connection> {
        if let Some(shared) = self.shared.lock().ok()?.as_ref().filter(|shared| shared.is_ready()) {
            return Some(Connection::Two(shared.clone()));
        }
        while let Some((mut connection, since)) = self.idle.lock().ok().and_then(|mut idle| idle.pop()) {
            if since.elapsed() >= IDLE_TIME_MAX {
                continue;
            }
            // The connection's task may not have noticed yet that the last reply was read to its end.
            if let Ok(Ok(())) = tokio::time::timeout(READY_TIME_MAX, connection.ready()).await {
                return Some(Connection::One(connection));
            }
        }
        None
    }

    async fn send_on(
        &self,
        connection: Connection,
        request: Request<Outgoing>,
    ) -> Result<(Response<Incoming>, Lent), Broken> {
        let unsent = |mut error: TrySendError<Request<Outgoing>>| {
            let request = error.take_message().map(Box::new);
            (error.into_error(), request)
        };
        let mut lent = Lent { connection: None, idle: Arc::clone(&self.idle) };
        let response = match connection {
            Connection::One(mut connection) => {
                let response = connection.try_send_request(relative(request)).await.map_err(unsent)?;
                lent.connection = Some(connection);
                response
            }
            Connection::Two(mut connection) => {
                connection.try_send_request(self.absolute(request)).await.map_err(unsent)?
            }
        };
        Ok((response, lent))
    }

    /// HTTP/2 takes scheme and authority from the target; `Host` says the same [RFC 9113 §8.3.1].
    fn absolute(&self, mut request: Request<Outgoing>) -> Request<Outgoing> {
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.dial.authority.clone());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
            *request.version_mut() = Version::HTTP_2;
        }
        request
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let connecting = tokio::time::timeout(CONNECT_TIME_MAX, self.connect_now());
        match connecting.await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                Err(Failure::Connect(format!("{}:{}: {error}", self.dial.host, self.dial.port)))
            }
            Err(_) => Err(Failure::Connect(format!("{}:{}: timed out", self.dial.host, self.dial.port))),
        }
    }

    async fn connect_now(&self) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        if let Some(inside) = &self.dial.inside {
            let (ours, theirs) = tokio::io::duplex(INSIDE_BYTES_MAX);
            inside.accept(theirs);
            return Ok(Connection::One(handshake1(TokioIo::new(ours)).await?));
        }
        let stream = self.addresses.connect(&self.dial.host, self.dial.port).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.dial.tls else {
            return Ok(Connection::One(handshake1(TokioIo::new(stream)).await?));
        };
        let name = ServerName::try_from(self.dial.host.clone())?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Ok(Connection::One(handshake1(TokioIo::new(stream)).await?));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        if let Ok(mut shared) = self.shared.lock() {
            *shared = Some(sender.clone());
        }
        Ok(Connection::Two(sender))
    }
}

/// HTTP/1.1 wants the path alone, also of a request that an HTTP/2 connection gave back [RFC 9112 §3.2.1].
fn relative(mut request: Request<Outgoing>) -> Request<Outgoing> {
    if request.uri().authority().is_some() {
        *request.uri_mut() = request.uri().path_and_query().cloned().map(Uri::from).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
    }
    request
}

async fn handshake1<S>(io: TokioIo<S>) -> Result<Http1, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new().handshake(io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Lent {
    /// Takes the connection out of a reply that another task goes on reading.
    pub fn take(&mut self) -> Lent {
        Lent { connection: self.connection.take(), idle: Arc::clone(&self.idle) }
    }

    /// Gives the connection back; called when the reply has been read to its end.
    pub fn give_back(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if connection.is_closed() {
            return;
        }
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < IDLE_CONNECTIONS_MAX
        {
            idle.push((connection, Instant::now()));
        }
    }
}
