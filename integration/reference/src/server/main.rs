//! An MCP server on rmcp with the fixture names of the official conformance suite, in both eras.
//!
//! It listens on 127.0.0.1 at `PORT` and serves `/mcp`. What it is asked is written to `HOLDPOINT_SEEN`, one JSON object
//! a line, so that a test can say that it saw nothing.

// Sampling, roots and logging are on their way out of MCP; legacy agents still use them, so they are shown here.
#![allow(deprecated)]

mod ask;
mod fixtures;
mod handler;
mod jobs;
mod seen;
mod tools;

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rmcp::transport::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::tower::StreamableHttpServerConfig;
use tokio::net::TcpListener;

use handler::Reference;
use seen::Seen;

/// The largest request that it reads.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Pages of this machine, at any port, may ask; every other origin is a rebound name.
const ORIGINS: [&str; 2] = ["http://127.0.0.1:*", "http://localhost:*"];

type Mcp = StreamableHttpService<Reference, LocalSessionManager>;
type Answer = hyper::Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let port: u16 = std::env::var("PORT")?.parse()?;
    let seen = Arc::new(Seen::open(std::env::var_os("HOLDPOINT_SEEN"))?);
    let reference = Reference::new(Arc::clone(&seen))?;
    let config = StreamableHttpServerConfig::default().with_allowed_origins(ORIGINS);
    let sessions = Arc::new(LocalSessionManager::default());
    let mcp = StreamableHttpService::new(move || Ok(reference.clone()), sessions, config);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (mcp, seen) = (mcp.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(mcp.clone(), Arc::clone(&seen), request));
            // A client that breaks off is no news.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "`Limited` bounds what is collected")]
async fn answer(mcp: Mcp, seen: Arc<Seen>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Ok(status(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let body = body.to_bytes();
    seen.request(&head, &body);
    if head.uri.path() != "/mcp" {
        return Ok(status(StatusCode::NOT_FOUND));
    }
    Ok(mcp.handle(Request::from_parts(head, Full::new(body))).await)
}

fn status(status: StatusCode) -> Answer {
    let mut answer = Answer::new(http_body_util::Empty::new().boxed());
    *answer.status_mut() = status;
    answer
}
