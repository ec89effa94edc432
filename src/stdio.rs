//! Upstreams that are programs: MCP over the standard input and output of children that the gateway starts and attends.
//!
//! To the rest of the gateway such an upstream is an MCP server over Streamable HTTP like any other. It is spoken to
//! through memory instead of a socket, so every control works as for HTTP. Behind that, this module hands messages to
//! children:
//!
//! - Legacy MCP: `initialize` starts a child, which is the session. Nobody else's messages reach it.
//! - Modern MCP has no sessions: an agent's requests share a child, which no other agent uses. They may come from
//!   several clients, so ids and progress tokens are numbered on the way in and put back on the way out.
//!
//! A child that dies breaks what was under way. The next is started when it is needed, after a pause that grows. What
//! is run, and as whom, is configuration alone: nothing that an agent sends becomes a part of a command.

mod children;
mod http;
mod line;
mod link;
mod log;
pub mod process;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::DuplexStream;

use crate::call::hex;
use crate::net::Inside;
use children::Children;
use process::Program;

/// A message, in either direction.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// One upstream whose servers are children of the gateway.
pub struct Config {
    /// The upstream's name, for the log.
    pub name: Arc<str>,
    /// What is run.
    pub program: Program,
    /// Children at one time.
    pub children_max: usize,
    /// Children of one agent at one time.
    pub children_per_agent_max: usize,
    /// How long a child stays that nobody waits for.
    pub idle_time_max: Duration,
    /// How long a request may wait for its answer before a stream is opened for it.
    pub head_time_max: Duration,
}

/// The server inside this process.
pub struct Server {
    children: Arc<Children>,
}

impl Server {
    /// A server without children.
    pub fn new(config: Config) -> Server {
        Server { children: Children::new(config) }
    }
}

impl Inside for Server {
    fn accept(&self, stream: DuplexStream) {
        let children = Arc::clone(&self.children);
        let service = service_fn(move |request| http::answer(Arc::clone(&children), request));
        let serving =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        // A connection that breaks off is told at its other end, which is ours as well.
        tokio::spawn(async move { drop(serving.await) });
    }

    fn is_idle(&self) -> bool {
        self.children.are_idle()
    }

    fn end(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.children.end())
    }
}

/// An id that cannot be guessed: 128 random bits.
fn session_id() -> Option<Arc<str>> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(Arc::from(hex(&bytes)))
}
