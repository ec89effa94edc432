//! The ground that other modules stand on to reach a peer.

pub mod tls;
pub mod unix;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::uri::Authority;
use tokio::io::DuplexStream;

/// How to reach an upstream.
#[derive(Clone)]
pub struct Dial {
    /// Host name or address.
    pub host: String,
    /// The same, for records.
    pub name: Arc<str>,
    /// The authority as configured, for HTTP/2.
    pub authority: Authority,
    /// TCP port.
    pub port: u16,
    /// TLS, when the upstream speaks it.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// A server inside this process; then nothing is dialled.
    pub inside: Option<Arc<dyn Inside>>,
}

/// An HTTP/1.1 server inside this process. It is told by [`AGENT_HEADER`] on whose behalf each request comes.
pub trait Inside: Send + Sync {
    /// Takes a connection.
    fn accept(&self, stream: DuplexStream);

    /// Whether nobody waits for anything of it now.
    fn is_idle(&self) -> bool;

    /// Ends what it has begun, in bounded time.
    fn end(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The SPIFFE ID of the agent, on requests to a server inside this process alone. It begins as only the gateway's own
/// headers may, so an agent cannot send it.
pub const AGENT_HEADER: &str = "holdpoint-agent";
/// On a 503 of a server inside this process: nothing was sent, and the operator reads why.
pub const UNSENT_HEADER: &str = "holdpoint-unsent";
