//! The way out: requests to the gateway over TLS 1.3 with the workload's SVID, on HTTP/2 where it speaks that.
//!
//! Each SVID has connections of its own. When it is replaced, new requests take new connections, and those under way
//! end on theirs, which live no longer than the certificate they were made with.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::CertificateError;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::identity::{Current, Identity};

/// How long connecting and the handshake may take together.
const CONNECT_SECONDS_MAX: u64 = 10;
/// How long a connection without requests is kept.
const IDLE_SECONDS_MAX: u64 = 60;
/// The most connections without requests that are kept, where the gateway speaks HTTP/1.1 alone.
const IDLE_CONNECTIONS_MAX: usize = 8;
/// How often a connection with requests on it is asked whether it still stands, and how long it may take to say so.
const PING_SECONDS: u64 = 20;
/// How much of a reply on HTTP/2 may be under way before it is read.
const WINDOW_BYTES: u32 = 1 << 20;
/// The port of `https` without one.
const HTTPS_PORT: u16 = 443;

/// What is sent: an agent's request as it streams in, or a message from standard input.
pub type Outgoing = Either<Incoming, Full<Bytes>>;

/// The gateway's address, and the upstream that is spoken to there.
#[derive(Clone, Debug)]
pub struct Place {
    authority: Authority,
    upstream: String,
}

impl Place {
    /// Reads `--gateway` and `--upstream`; an error names the flag and what was expected.
    pub fn read(gateway: &str, upstream: &str) -> Result<Place, String> {
        let wrong = |what: &str| {
            format!("--gateway {gateway}: {what}; expected https://HOST or https://HOST:PORT, without a path")
        };
        let uri: Uri = gateway.parse().map_err(|_| wrong("not a URL"))?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(wrong("not https"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("no host"))?.clone();
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong("not a host and a port"));
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(wrong("has a path"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if upstream.is_empty() || upstream.starts_with('.') || !upstream.bytes().all(plain) {
            return Err(format!(
                "--upstream {upstream}: expected the name of an upstream as the gateway has it"
            ));
        }
        Ok(Place { authority, upstream: upstream.to_owned() })
    }

    /// The gateway's host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The upstream's name.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// Where a path of the upstream is at the gateway; `None` when the result is no path.
    pub fn uri(&self, path: &str) -> Option<Uri> {
        let path = PathAndQuery::try_from(format!("/{}{path}", self.upstream)).ok()?;
        let parts = Uri::builder().scheme(Scheme::HTTPS).authority(self.authority.clone());
        parts.path_and_query(path).build().ok()
    }
}

/// Why there is no reply: in words, without a body of the gateway's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreached(String);

/// The gateway, reached by the SVID of the moment.
#[derive(Clone)]
pub struct Gateway {
    place: Arc<Place>,
    identities: watch::Receiver<Current>,
    /// The SVID that was used last, with its connections.
    in_use: Arc<Mutex<Option<InUse>>>,
}

struct InUse {
    identity: Arc<Identity>,
    client: Client<Dialer, Outgoing>,
}

impl Gateway {
    /// The gateway of a place. Nothing is sent yet.
    pub fn new(place: Place, identities: watch::Receiver<Current>) -> Gateway {
        Gateway { place: Arc::new(place), identities, in_use: Arc::default() }
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Sends a request, whose URI is one of [`Place::uri`]; dropping this cancels it, and so does dropping the body.
    ///
    /// It is sent again only when nothing of it was: on a connection that had closed meanwhile.
    pub async fn send(&self, request: Request<Outgoing>) -> Result<Response<Incoming>, Unreached> {
        let client = self.client()?;
        client.request(request).await.map_err(|error| {
            let step = if error.is_connect() { "cannot be reached" } else { "broke the exchange off" };
            Unreached(format!("the gateway at {} {step}: {}", self.place.authority, causes(&error)))
        })
    }

    fn client(&self) -> Result<Client<Dialer, Outgoing>, Unreached> {
        let identity = self.identities.borrow().clone().map_err(Unreached)?;
        let mut in_use = self.in_use.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(current) = in_use.as_ref().filter(|current| Arc::ptr_eq(&current.identity, &identity)) {
            return Ok(current.client.clone());
        }
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(IDLE_SECONDS_MAX))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http2_initial_stream_window_size(WINDOW_BYTES)
            .http2_initial_connection_window_size(4 * WINDOW_BYTES)
            .http2_keep_alive_interval(Duration::from_secs(PING_SECONDS))
            .http2_keep_alive_timeout(Duration::from_secs(PING_SECONDS))
            .build(Dialer { identity: identity.clone() });
        *in_use = Some(InUse { identity, client: client.clone() });
        Ok(client)
    }
}

/// An error with everything that led to it, since the outermost one says little.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Makes connections that prove themselves by one SVID.
#[derive(Clone)]
struct Dialer {
    identity: Arc<Identity>,
}

impl tower_service::Service<Uri> for Dialer {
    type Response = Wire;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let identity = self.identity.clone();
        Box::pin(async move {
            let wait = Duration::from_secs(CONNECT_SECONDS_MAX);
            let dialed = tokio::time::timeout(wait, dial(&identity, &uri)).await;
            dialed.unwrap_or_else(|_| Err(io::Error::other(format!("not within {CONNECT_SECONDS_MAX} s"))))
        })
    }
}

async fn dial(identity: &Identity, uri: &Uri) -> io::Result<Wire> {
    let left = identity.not_after.duration_since(SystemTime::now());
    let left = left.map_err(|_| io::Error::other("the workload's own SVID has expired"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let socket = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(HTTPS_PORT))).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = TlsConnector::from(identity.tls.clone()).connect(name, socket).await.map_err(in_words)?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Wire { stream: TokioIo::new(stream), is_h2, end: Box::pin(tokio::time::sleep(left)) })
}

/// A failed handshake; what was wrong with the gateway's SVID is said as [`crate::identify`] says it.
fn in_words(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(wrong))) => {
            io::Error::other(format!("its certificate is refused: {}", wrong.0))
        }
        _ => error,
    }
}

/// A connection that breaks when the certificate it was made with expires.
struct Wire {
    stream: TokioIo<TlsStream<TcpStream>>,
    is_h2: bool,
    end: Pin<Box<Sleep>>,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        if self.is_h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::other("the workload's SVID of this connection has expired")));
        }
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }
}
