//! How the admin listener is reached: by mutual TLS with a certificate of a domain of people, and by a Unix socket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use super::caller::{LOCAL, Peer};
use super::problem::Problem;
use super::{Admin, api, body, login, tasks};
use crate::accept::{Bounds, Conn, Guest, Handler};
use crate::pipeline::Gateway;

/// Connections of people at one time.
const PEOPLE_CONNECTIONS_MAX: usize = 256;
/// Connections at one time of those who have no certificate: they leave room for those who have one.
pub const GUEST_CONNECTIONS_MAX: usize = 128;
/// Connections of the machine's own socket at one time.
const LOCAL_CONNECTIONS_MAX: usize = 16;
/// How long a request's head may take on the machine's own socket.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long accepting pauses when the process has no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection of the machine's own socket may still finish what it is at.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The listener for people.
pub struct People {
    admin: Arc<Admin>,
    name: String,
    routes: Router,
}

impl People {
    /// A listener of this name: the API and the console.
    pub fn new(admin: Arc<Admin>, name: &str) -> Arc<People> {
        Arc::new(People { routes: api::router(&admin), admin, name: name.to_owned() })
    }

    /// What connections of people may be at most, where the agents' are these.
    pub fn bounds(agents: &Bounds) -> Bounds {
        Bounds { connections_max: PEOPLE_CONNECTIONS_MAX, ..agents.clone() }
    }
}

impl Handler for People {
    type Body = Answer;

    async fn call(self: Arc<Self>, conn: Arc<Conn>, request: Request<Incoming>) -> Response<Answer> {
        certified(self.routes.clone(), &conn, request).await
    }

    async fn guest(
        self: Arc<Self>,
        guest: Arc<Guest>,
        request: Request<Incoming>,
    ) -> Option<Response<Answer>> {
        if guest.framing_fault_of(&request).is_some() {
            return Some(badly_framed());
        }
        Some(served(self.routes.clone(), Peer::Guest { address: guest.peer() }, request).await)
    }

    fn refused(&self, peer: SocketAddr, reason: &'static str, detail: String) {
        self.admin.evidence().connection_refused(&self.name, peer, reason, &detail);
    }
}

/// The listener for orchestrators: tasks, and nothing else.
pub struct Orchestrators {
    gateway: Arc<Gateway>,
    name: String,
    routes: Router,
}

impl Orchestrators {
    /// A listener of this name.
    pub fn new(gateway: Arc<Gateway>, name: &str) -> Arc<Orchestrators> {
        Arc::new(Orchestrators { routes: tasks::router(&gateway), gateway, name: name.to_owned() })
    }
}

impl Handler for Orchestrators {
    type Body = Answer;

    async fn call(self: Arc<Self>, conn: Arc<Conn>, request: Request<Incoming>) -> Response<Answer> {
        certified(self.routes.clone(), &conn, request).await
    }

    fn refused(&self, peer: SocketAddr, reason: &'static str, detail: String) {
        self.gateway.evidence.connection_refused(&self.name, peer, reason, &detail);
    }
}

/// Serves a request that came over mutual TLS.
async fn certified(routes: Router, conn: &Conn, request: Request<Incoming>) -> Response<Answer> {
    if conn.framing_fault_of(&request).is_some() {
        return badly_framed();
    }
    let peer = Peer::Certificate {
        id: conn.agent_id().clone(),
        serial: Arc::clone(conn.serial()),
        address: conn.peer(),
    };
    served(routes, peer, request).await
}

fn badly_framed() -> Response<Answer> {
    let text = "the request is not framed or headed as HTTP requires".to_owned();
    Problem::Invalid(text).into_response().map(Answer)
}

async fn served(mut routes: Router, peer: Peer, request: Request<Incoming>) -> Response<Answer> {
    let mut request = request.map(Body::new);
    if let Err(problem) = body::own_origin(&request) {
        return problem.into_response().map(Answer);
    }
    request.extensions_mut().insert(peer);
    let navigation = login::Navigation::of(&request);
    let answered: Result<_, Infallible> = routes.call(request).await;
    let mut response = match answered {
        Ok(response) => login::instead(navigation, response),
        Err(never) => match never {},
    };
    // What is answered here is for one person at one moment, and is no page of anybody else's.
    for (name, value) in [
        (http::header::CACHE_CONTROL, "no-store"),
        (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` browsers do not name the origin of a form either, and it would be refused [Fetch, `Origin` header].
        (http::header::REFERRER_POLICY, "same-origin"),
        (http::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response.map(Answer)
}

/// An answer's body, with errors as the listener has them.
pub struct Answer(Body);

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Serves the machine's own socket until `drain` turns true: the API without the console, for root and for the
/// gateway's own user, whom the kernel names [unix(7): `SO_PEERCRED`].
pub async fn local(listener: UnixListener, admin: Arc<Admin>, mut drain: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(LOCAL_CONNECTIONS_MAX));
    let own = nix::unistd::Uid::effective().as_raw();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.wait_for(|drain| *drain) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let uid = match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == own => peer.uid(),
            Ok(peer) => {
                foreign(&admin, peer.uid());
                continue;
            }
            Err(_) => continue,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (routes, drain) = (api::local(&admin), drain.clone());
        tasks.spawn(async move {
            connection(stream, routes, uid, drain).await;
            drop(place);
        });
    }
    drop(listener);
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, ended).await.is_err() {
        tasks.shutdown().await;
    }
}

async fn connection(stream: UnixStream, routes: Router, uid: u32, mut drain: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(served(routes, Peer::Local { uid }, request).await) }
    });
    let mut connection = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    // Whoever breaks off is no event.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = drain.wait_for(|drain| *drain) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Records a user who came to the socket and is neither root nor the gateway's own.
fn foreign(admin: &Admin, uid: u32) {
    admin.evidence().stranger_refused("foreign-user", LOCAL, None, |members| {
        members.text("kind", "local");
        members.number("uid", uid);
    });
}
