//! The ground that other modules stand on to reach a peer.

pub mod tls;

use std::sync::Arc;

use http::uri::Authority;

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
}
