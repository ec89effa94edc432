//! Sockets in: TLS with a verified SPIFFE ID, HTTP/1.1 and HTTP/2 with bounds, one detached task per call.

mod activity;
mod framing;
mod gone;
mod h2guard;
mod head;
mod open;
pub mod tls;

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::call::{AgentId, Stage, Stop, StopKind};
use crate::identify::svid::{Leaf, Role, Trust};
use activity::Activity;
pub use gone::Gone;
use gone::{Presence, Watched};
pub use open::Connections;
use open::Entered;

/// How long a connection that must end may still finish its calls.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long accepting pauses when the process has no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// TCP keep-alive of a silent peer.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// HTTP/2 windows, as an Envoy at the edge has them, in bytes.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 streams that a peer may reset before they were accepted.
const PENDING_RESETS_MAX: usize = 20;
/// HTTP/2 pings: how often, and how long an answer may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT_MAX: Duration = Duration::from_secs(20);

/// What a listener accepts at most.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections at one time.
    pub connections_max: usize,
    /// Handshakes at one time.
    pub handshakes_max: usize,
    /// A TLS handshake, in seconds.
    pub handshake_seconds_max: u64,
    /// The head of a request, from its first byte, in seconds.
    pub head_seconds_max: u64,
    /// The head of a request, in bytes.
    pub headers_bytes_max: usize,
    /// Header fields of a request.
    pub headers_max: usize,
    /// HTTP/2 streams at one time on one connection.
    pub streams_max: u32,
    /// A connection without a call, in seconds.
    pub idle_seconds_max: u64,
    /// A connection's whole life, in seconds.
    pub connection_seconds_max: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections_max: 10_000,
            handshakes_max: 256,
            handshake_seconds_max: 5,
            head_seconds_max: 10,
            headers_bytes_max: 64 * 1024,
            headers_max: 100,
            streams_max: 100,
            idle_seconds_max: 300,
            connection_seconds_max: 86_400,
        }
    }
}

/// The facts of one connection. Only [`serve`] makes one, after the peer's certificate was verified.
#[derive(Debug)]
pub struct Conn {
    peer: SocketAddr,
    local: SocketAddr,
    leaf: Leaf,
    fingerprint: [u8; 32],
    h2: bool,
    fault: Arc<OnceLock<&'static str>>,
}

impl Conn {
    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address that the peer connected to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The verified SPIFFE ID.
    pub fn agent_id(&self) -> &AgentId {
        &self.leaf.id
    }

    /// The certificate's serial number, in hexadecimal.
    pub fn serial(&self) -> &Arc<str> {
        &self.leaf.serial
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// When the certificate stops being valid.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// Whether HTTP/2 is spoken.
    pub fn is_h2(&self) -> bool {
        self.h2
    }

    /// The first framing fault of the connection: what a body that ended in an error ended for.
    pub fn framing_fault(&self) -> Option<&'static str> {
        self.fault.get().copied()
    }

    /// The fault that this request stands for; such a request is answered and recorded, never acted on.
    ///
    /// It is an extension that only this module can make, so nothing a peer sends looks like one or hides one.
    pub fn framing_fault_of<B>(&self, request: &Request<B>) -> Option<&'static str> {
        request.extensions().get::<Fault>().map(|fault| fault.0)
    }
}

/// Marks a request that has no single meaning.
#[derive(Clone, Copy, Debug)]
struct Fault(&'static str);

/// The other end of a connection on which no certificate was presented. It is nobody until its requests say more, and
/// only a door that is open to guests lets one in.
#[derive(Debug)]
pub struct Guest {
    peer: SocketAddr,
    h2: bool,
    fault: Arc<OnceLock<&'static str>>,
}

impl Guest {
    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The fault that this request stands for, as [`Conn::framing_fault_of`] gives it.
    pub fn framing_fault_of<B>(&self, request: &Request<B>) -> Option<&'static str> {
        request.extensions().get::<Fault>().map(|fault| fault.0)
    }
}

/// Refuses a request whose framing, on the bytes, has no single meaning.
pub fn sound<B>(conn: &Conn, request: &Request<B>) -> Result<(), Box<Stop>> {
    match conn.framing_fault_of(request) {
        Some(reason) => {
            let text = format!("the request is not framed or headed as HTTP requires ({reason})");
            Err(Stop::new(Stage::Accept, StopKind::Ambiguous, reason, text))
        }
        None => Ok(()),
    }
}

/// What a listener's calls are given to.
pub trait Handler: Send + Sync + 'static {
    /// The response's body.
    type Body: http_body::Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>> + Send + 'static;

    /// Serves one call. It runs in a task of its own and is not cut off when the client leaves: [`Gone`] among the
    /// request's extensions tells.
    fn call(
        self: Arc<Self>,
        conn: Arc<Conn>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Serves one call of somebody without a certificate, where the door is open to guests. `None` ends the connection.
    fn guest(
        self: Arc<Self>,
        _guest: Arc<Guest>,
        _request: Request<Incoming>,
    ) -> impl Future<Output = Option<Response<Self::Body>>> + Send {
        async { None }
    }

    /// Is told of every connection that came to nothing, so that it can be recorded.
    fn refused(&self, peer: SocketAddr, reason: &'static str, detail: String);
}

/// Who is let in by a listener.
pub struct Door {
    tls: Arc<ServerConfig>,
    trust: Arc<ArcSwap<Trust>>,
    role: Role,
    connections: Arc<Connections>,
    /// Connections without a certificate that are let in at one time; none where a certificate is required.
    guests: Option<Arc<Semaphore>>,
}

impl Door {
    /// A door for a role, by the trust in force; who comes in is entered among the connections.
    pub fn new(
        trust: &Arc<ArcSwap<Trust>>,
        role: Role,
        identity: Arc<tls::Identity>,
        connections: &Arc<Connections>,
    ) -> Result<Door, String> {
        let tls = tls::server_config(Arc::clone(trust), role, identity, tls::Proof::Required)?;
        let (trust, connections) = (Arc::clone(trust), Arc::clone(connections));
        Ok(Door { tls, trust, role, connections, guests: None })
    }

    /// A door that asks for a certificate and lets in so many at one time who present none. A wrong certificate is refused
    /// as by any door.
    pub fn with_guests(
        trust: &Arc<ArcSwap<Trust>>,
        role: Role,
        identity: Arc<tls::Identity>,
        connections: &Arc<Connections>,
        guests_max: usize,
    ) -> Result<Door, String> {
        let tls = tls::server_config(Arc::clone(trust), role, identity, tls::Proof::Asked)?;
        let (trust, connections) = (Arc::clone(trust), Arc::clone(connections));
        Ok(Door { tls, trust, role, connections, guests: Some(Arc::new(Semaphore::new(guests_max))) })
    }
}

struct Listener<H> {
    acceptor: TlsAcceptor,
    door: Door,
    bounds: Bounds,
    handler: Arc<H>,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    drain: watch::Receiver<bool>,
    /// Held by every call's task, so that the end can be waited for.
    alive: mpsc::Sender<()>,
}

/// The other end of a connection that was let in.
enum Party {
    /// Its certificate was verified.
    Certified(Entered),
    /// It has none; the place is given up with the connection.
    Guest { guest: Arc<Guest>, _place: OwnedSemaphorePermit },
}

/// Whom the calls of a connection come from.
#[derive(Clone)]
enum Whose {
    Certified(Arc<Conn>),
    Guest(Arc<Guest>),
}

/// What requests come over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Serves a listener until `drain` turns true (or its sender is gone), then ends connections gracefully.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    door: Door,
    bounds: Bounds,
    handler: Arc<H>,
    mut drain: watch::Receiver<bool>,
) {
    let (alive, mut ended) = mpsc::channel::<()>(1);
    let shared = Arc::new(Listener {
        acceptor: TlsAcceptor::from(Arc::clone(&door.tls)),
        door,
        connections: Arc::new(Semaphore::new(bounds.connections_max)),
        handshakes: Arc::new(Semaphore::new(bounds.handshakes_max)),
        bounds,
        handler,
        drain: drain.clone(),
        alive,
    });
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = drained(&mut drain) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => shared.clone().admit(socket, peer, &mut tasks),
                Err(error) => {
                    // Out of files, or the peer is gone already: neither may end the listener.
                    tracing::warn!(event = "accept.failed", error = %error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drop(shared);
    let all_ended = async {
        while tasks.join_next().await.is_some() {}
        let _ = ended.recv().await;
    };
    if tokio::time::timeout(DRAIN_MAX + Duration::from_secs(1), all_ended).await.is_err() {
        tracing::warn!(event = "accept.drain_overdue");
    }
}

/// Waits for the drain to begin; a sender that is gone begins it too.
async fn drained(drain: &mut watch::Receiver<bool>) {
    let _ = drain.wait_for(|drain| *drain).await;
}

/// A connection on its way to its end.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<H: Handler> Listener<H> {
    fn admit(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, tasks: &mut JoinSet<()>) {
        let permits =
            (self.connections.clone().try_acquire_owned(), self.handshakes.clone().try_acquire_owned());
        match permits {
            (Ok(connection), Ok(handshake)) => {
                tasks.spawn(self.connection(socket, peer, connection, handshake));
            }
            (Err(_), _) => self.handler.refused(peer, "overload", "connections_max is reached".to_owned()),
            (_, Err(_)) => self.handler.refused(peer, "overload", "handshakes_max is reached".to_owned()),
        }
    }

    async fn connection(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        _connection: OwnedSemaphorePermit,
        handshake: OwnedSemaphorePermit,
    ) {
        #[cfg(feature = "bench")]
        if crate::bench::off(crate::bench::Control::Tls) {
            return self.plain(socket, peer).await;
        }
        // Each in a box of its own, so that an idle connection holds neither the other nor the handshake.
        let accepted = Box::pin(Arc::clone(&self).accepted(socket, peer)).await;
        drop(handshake);
        let (serving, fault) = match accepted {
            Ok(accepted) => accepted,
            Err((reason, detail)) => return self.handler.refused(peer, reason, detail),
        };
        serving.await;
        if fault.get() == Some(&"h2-control-flood") {
            self.handler.refused(peer, "h2-control-flood", "too many HTTP/2 control frames".to_owned());
        }
    }

    /// A connection whose handshake is done, being served, and where the first fault of its framing is noted. What serves
    /// is put together before it is awaited: what an async function is given, and what it makes of that, would take their
    /// room side by side as long as it runs.
    async fn accepted(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> Result<(Serving, Arc<OnceLock<&'static str>>), (&'static str, String)> {
        let (stream, party) = self.handshake(socket, peer).await?;
        let (h2, fault) = party.framing();
        let serving: Serving = match h2 {
            true => Box::pin(self.serve_h2(stream, party)),
            false => Box::pin(self.serve_h1(stream, party)),
        };
        Ok((serving, fault))
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> Result<(TlsStream<TcpStream>, Party), (&'static str, String)> {
        let trust = self.door.trust.load_full();
        // A peer that is gone already fails the handshake below, which is what is reported.
        let _ = socket.set_nodelay(true);
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
        let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive);
        let local = socket.local_addr().map_err(|error| ("disconnected", error.to_string()))?;
        let wait = Duration::from_secs(self.bounds.handshake_seconds_max);
        let stream = match tokio::time::timeout(wait, self.acceptor.accept(socket)).await {
            Err(_) => return Err(("handshake-timeout", format!("not done in {} s", wait.as_secs()))),
            Ok(Err(error)) => return Err(tls::handshake_failure(&error)),
            Ok(Ok(stream)) => stream,
        };
        let (_, session) = stream.get_ref();
        let h2 = session.alpn_protocol() == Some(b"h2");
        let chain = session.peer_certificates().unwrap_or_default();
        if let (Some(guests), true) = (&self.door.guests, chain.is_empty()) {
            let place = Arc::clone(guests).try_acquire_owned();
            let place = place.map_err(|_| ("overload", "too many without a certificate".to_owned()))?;
            let guest = Guest { peer, h2, fault: Arc::default() };
            return Ok((stream, Party::Guest { guest: Arc::new(guest), _place: place }));
        }
        let der = chain.first().ok_or_else(|| ("no-certificate", "the peer presented none".to_owned()))?;
        let leaf = Leaf::read(der).map_err(|error| (error.reason(), error.to_string()))?;
        let mut fingerprint = [0; 32];
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        for (to, from) in fingerprint.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        let conn = Conn { peer, local, leaf, fingerprint, h2, fault: Arc::default() };
        let entered = self.door.connections.enter(Arc::new(conn), chain, self.door.role);
        // Invariant: what is withdrawn from here on cuts this connection, and what was before is found now.
        let now = self.door.trust.load_full();
        if !Arc::ptr_eq(&trust, &now) {
            entered.verify(&now).map_err(|error| (error.reason(), error.to_string()))?;
        }
        Ok((stream, Party::Certified(entered)))
    }

    /// A connection without TLS, for benchmarks alone.
    #[cfg(feature = "bench")]
    async fn plain(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let _ = socket.set_nodelay(true);
        let Ok(local) = socket.local_addr() else { return };
        let not_after = SystemTime::now() + Duration::from_secs(86_400);
        let leaf = Leaf { id: crate::bench::agent(), serial: Arc::from("00"), not_after };
        let conn = Conn { peer, local, leaf, fingerprint: [0; 32], h2: false, fault: Arc::default() };
        let entered = self.door.connections.enter(Arc::new(conn), &[], self.door.role);
        Box::pin(Arc::clone(self).serve_h1(socket, Party::Certified(entered))).await;
    }

    fn serve_h1<S: Stream>(self: Arc<Self>, stream: S, party: Party) -> impl Future<Output = ()> {
        let (fault, activity) = (party.framing().1, Arc::new(Activity::new()));
        let head = framing::HeadBounds {
            bytes_max: self.bounds.headers_bytes_max,
            fields_max: self.bounds.headers_max,
            wait_max: Duration::from_secs(self.bounds.head_seconds_max),
        };
        let stream = framing::Framing::new(stream, head, fault);
        let (listener, from, busy) = (Arc::clone(&self), party.whose(), Arc::clone(&activity));
        let service = service_fn(move |request| listener.call(from.clone(), &busy, request));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // Framing bounds a head's own time, and idleness ends a connection in good order before this does.
            .header_read_timeout(Duration::from_secs(self.bounds.idle_seconds_max + 1))
            .max_buf_size((self.bounds.headers_bytes_max + 8 * 1024).max(16 * 1024));
        if self.bounds.headers_max > 100 {
            builder.max_headers(self.bounds.headers_max);
        }
        let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
        async move {
            let end = |connection: Pin<&mut _>| http1::Connection::graceful_shutdown(connection);
            self.until_done(connection.as_mut(), end, &party, &activity).await;
        }
    }

    fn serve_h2<S: Stream>(self: Arc<Self>, stream: S, party: Party) -> impl Future<Output = ()> {
        let (fault, activity) = (party.framing().1, Arc::new(Activity::new()));
        let stream = h2guard::H2Guard::new(stream, fault);
        let (listener, from, busy) = (Arc::clone(&self), party.whose(), Arc::clone(&activity));
        let service = service_fn(move |request| listener.call(from.clone(), &busy, request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(self.bounds.streams_max)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_header_list_size(u32::try_from(self.bounds.headers_bytes_max).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WAIT_MAX);
        let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
        async move {
            let end = |connection: Pin<&mut _>| http2::Connection::graceful_shutdown(connection);
            self.until_done(connection.as_mut(), end, &party, &activity).await;
        }
    }

    /// Gives one request to a task of its own.
    fn call(
        &self,
        from: Whose,
        activity: &Arc<Activity>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Watched<H::Body>>, Box<dyn Error + Send + Sync>>> + Send + use<H>
    {
        let (presence, gone) = Presence::new(activity.begin());
        match &from {
            Whose::Certified(conn) => mark(conn.h2, &conn.fault, &mut request),
            Whose::Guest(guest) => mark(guest.h2, &guest.fault, &mut request),
        }
        request.extensions_mut().insert(gone);
        let (sender, receiver) = oneshot::channel();
        let (handler, alive) = (self.handler.clone(), self.alive.clone());
        // Boxed here: the state of a call is large, and spawning moves it several times.
        tokio::spawn(Box::pin(async move {
            let response = match from {
                Whose::Certified(conn) => Some(handler.call(conn, request).await),
                Whose::Guest(guest) => handler.guest(guest, request).await,
            };
            // The client may be gone; then nobody takes the response, and dropping its body tells its maker.
            let _ = response.map(|response| sender.send(response));
            drop(alive);
        }));
        async move {
            let response = receiver.await.map_err(|_| "the call's task ended without a response")?;
            Ok(response.map(|body| Watched::new(body, presence)))
        }
    }

    /// Drives a connection to its end, and asks it to end when it is idle, too old, past its certificate, or at drain.
    /// One whose peer is trusted no more is not asked: it is dropped, with all its streams.
    async fn until_done<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        end: impl Fn(Pin<&mut C>),
        party: &Party,
        activity: &Activity,
    ) {
        let life = party.valid_for().min(Duration::from_secs(self.bounds.connection_seconds_max));
        let idle = Duration::from_secs(self.bounds.idle_seconds_max);
        let mut drain = self.drain.clone();
        tokio::select! {
            _ = connection.as_mut() => return,
            () = party.cut() => return,
            () = tokio::time::sleep(life) => {}
            () = activity.idle_for(idle) => {}
            () = drained(&mut drain) => {}
        }
        end(connection.as_mut());
        tokio::select! {
            _ = tokio::time::timeout(DRAIN_MAX, connection) => {}
            () = party.cut() => {}
        }
    }
}

impl Party {
    /// Whether HTTP/2 is spoken, and where the first fault of framing is noted.
    fn framing(&self) -> (bool, Arc<OnceLock<&'static str>>) {
        match self {
            Party::Certified(entered) => (entered.conn().h2, Arc::clone(&entered.conn().fault)),
            Party::Guest { guest, .. } => (guest.h2, Arc::clone(&guest.fault)),
        }
    }

    fn whose(&self) -> Whose {
        match self {
            Party::Certified(entered) => Whose::Certified(Arc::clone(entered.conn())),
            Party::Guest { guest, .. } => Whose::Guest(Arc::clone(guest)),
        }
    }

    /// How long what it proved itself by is still valid.
    fn valid_for(&self) -> Duration {
        match self {
            Party::Certified(entered) => {
                entered.conn().not_after().duration_since(SystemTime::now()).unwrap_or_default()
            }
            Party::Guest { .. } => Duration::MAX,
        }
    }

    /// Waits until the connection is to be cut.
    async fn cut(&self) {
        match self {
            Party::Certified(entered) => entered.cut().await,
            Party::Guest { .. } => std::future::pending().await,
        }
    }
}

/// Turns the framing layer's mark, and what is ambiguous in a request over HTTP/2, into a [`Fault`].
fn mark(h2: bool, fault: &OnceLock<&'static str>, request: &mut Request<Incoming>) {
    if h2 {
        if let Err(reason) = head::check_h2(request) {
            request.extensions_mut().insert(Fault(reason));
        }
        return;
    }
    const MARK: HeaderName = HeaderName::from_static(framing::MARK);
    let marked = request.headers().get(MARK).is_some_and(|mark| mark == framing::TOKEN.as_str());
    if marked {
        request.headers_mut().remove(MARK);
        request.extensions_mut().insert(Fault(fault.get().copied().unwrap_or("framing")));
    }
}
