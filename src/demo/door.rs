//! A way to the demo's console for a browser that has no certificate: it stands on loopback, lets in whoever has the
//! link that the demo printed, and goes to the admin listener with the certificate of the demo's person.
//!
//! It is the demo's alone. A browser of somebody who looks after real agents presents a certificate of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::agent::{Agent, Answer};
use crate::call::hex;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connections at one time.
const CONNECTIONS_MAX: usize = 32;
/// How long the head of a request may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest body of a form.
const BODY_BYTES_MAX: usize = 64 << 10;
/// What the admin listener calls itself: its certificate is for this name.
const INNER: &str = "localhost";
/// By which the admin listener tells its own forms from those of other pages. They are passed on as they are.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The door, open as long as this lives.
pub struct Door {
    address: SocketAddr,
    key: String,
    task: JoinHandle<()>,
}

struct Inside {
    person: Agent,
    /// The authority under which the door is reached; no other name leads in, wherever it points.
    authority: String,
    key: String,
}

impl Door {
    /// Opens a door on a free port of loopback, behind which everybody is this person.
    pub async fn open(person: Agent) -> Result<Door, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut key = [0; 16];
        SystemRandom::new().fill(&mut key).map_err(|_| "no random numbers")?;
        let key = hex(&key);
        let inside = Arc::new(Inside { person, authority: address.to_string(), key: key.clone() });
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let task = tokio::spawn(async move {
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let inside = Arc::clone(&inside);
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let inside = Arc::clone(&inside);
                        async move { Ok::<_, Infallible>(inside.serve(request).await) }
                    });
                    // A connection that breaks off is the browser's affair.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIME_MAX)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    drop(place);
                });
            }
        });
        Ok(Door { address, key, task })
    }

    /// The link by which a browser comes in.
    pub fn link(&self) -> String {
        format!("http://{}/enter?key={}", self.address, self.key)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inside {
    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let host = request.headers().get(HOST).map(|host| host.as_bytes());
        if host != Some(self.authority.as_bytes()) {
            return said(403, "this door has another name");
        }
        let path = request.uri().path();
        if path == "/enter" {
            return self.enter(request.uri().query().unwrap_or_default());
        }
        if !self.has_cookie(request.headers()) {
            return said(403, "open the link that the demo printed");
        }
        // The console alone: programs have the certificate itself.
        if path.starts_with("/v1/") || !matches!(*request.method(), Method::GET | Method::POST) {
            return said(404, "there is only the console here");
        }
        match self.passed(request).await {
            Ok(Answer { status, mut headers, body }) => {
                // These are about the connection behind the door.
                for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
                    headers.remove(name);
                }
                let mut response = Response::new(Full::new(body));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                response
            }
            Err(error) => said(502, &format!("the admin listener did not answer: {error}")),
        }
    }

    /// Gives the key to the browser as a cookie that no page of another site can use.
    fn enter(&self, query: &str) -> Response<Full<Bytes>> {
        let key = query.strip_prefix("key=").unwrap_or_default();
        if !self.is_key(key) {
            return said(403, "open the link that the demo printed");
        }
        let mut response = said(303, "");
        let cookie = format!("{}={key}; HttpOnly; SameSite=Strict; Path=/", self.cookie_name());
        for (name, value) in [(SET_COOKIE, cookie.as_str()), (LOCATION, "/")] {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// Cookies do not tell ports apart, so its name does.
    fn cookie_name(&self) -> String {
        let port = self.authority.rsplit(':').next().unwrap_or_default();
        format!("holdpoint-demo-{port}")
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(key, value)| key == name && self.is_key(value))
    }

    fn is_key(&self, key: &str) -> bool {
        verify_slices_are_equal(key.as_bytes(), self.key.as_bytes()).is_ok()
    }

    /// Asks the admin listener as the person. What it judges a form by is passed on: only the door's own origin becomes
    /// the listener's own.
    async fn passed(&self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let (head, body) = request.into_parts();
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await?.to_bytes();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut inner = Request::builder().method(head.method).uri(target).header(HOST, INNER);
        for name in [CONTENT_TYPE, SITE] {
            if let Some(value) = head.headers.get(&name) {
                inner = inner.header(name, value);
            }
        }
        let own = format!("http://{}", self.authority);
        for origin in head.headers.get_all(ORIGIN) {
            // Whoever else it is, it is not the listener itself.
            let named = if origin.as_bytes() == own.as_bytes() {
                format!("https://{INNER}")
            } else {
                "null".to_owned()
            };
            inner = inner.header(ORIGIN, named);
        }
        self.person.send(inner.body(Full::new(body))?).await
    }
}

fn said(status: u16, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
