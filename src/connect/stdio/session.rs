//! The session of a legacy upstream: its id, its revision, and its standalone stream
//! [MCP 2025-11-25, basic/transports: session management].

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use tokio::task::AbortHandle;

use super::exchange::{Passing, is_stream};
use super::{Bridge, locked};
use crate::decode::sse::Position;

/// The header of a session's id.
pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// How long ending a session may hold up the end of the process.
const END_SECONDS_MAX: u64 = 2;
/// How long a client waits before it opens a stream again, when the server does not say.
pub const RETRY: Duration = Duration::from_secs(1);
/// The longest such wait, which grows while nothing comes.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What a legacy upstream said when it was initialized.
#[derive(Default)]
pub struct Session {
    id: Option<HeaderValue>,
    version: Option<HeaderValue>,
    /// Whether the host has ever sent `initialize`.
    has_begun: bool,
    listening: Option<AbortHandle>,
}

impl Session {
    /// The host initializes: nothing of a session before counts.
    pub fn begin(&mut self) {
        self.lose();
        self.has_begun = true;
    }

    /// Whether the host speaks the legacy era.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The upstream has answered `initialize`.
    pub fn opened(&mut self, id: Option<HeaderValue>, result: &Value) {
        let version = result.get("protocolVersion").and_then(Value::as_str);
        self.version = version.and_then(|version| HeaderValue::try_from(version).ok());
        self.id = id;
    }

    /// The upstream does not know it any more.
    pub fn lose(&mut self) {
        self.id = None;
        self.version = None;
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }

    /// Whether the upstream gave it an id.
    pub fn is_named(&self) -> bool {
        self.id.is_some()
    }

    /// Adds its headers.
    pub fn put(&self, headers: &mut HeaderMap) {
        for (name, value) in [(SESSION, &self.id), (VERSION, &self.version)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }
}

impl Bridge {
    /// Opens the stream on which the upstream speaks by itself, and keeps it open.
    pub fn listen(self: &Arc<Self>) {
        let bridge = self.clone();
        let mut session = locked(&self.session);
        let listening = tokio::spawn(async move { bridge.listening().await });
        if let Some(before) = session.listening.replace(listening.abort_handle()) {
            before.abort();
        }
    }

    async fn listening(&self) {
        let (mut position, mut wait) = (Position::default(), RETRY);
        loop {
            let opened = self.exchange(Method::GET, None, position.last_id.as_deref()).await;
            match opened {
                Ok(response) if is_stream(&response) => {
                    let mut passing = Passing::of_the_session();
                    match self.events(response.into_body(), &mut position, &mut passing).await {
                        Ok(0) => {}
                        Ok(_) => wait = RETRY,
                        Err(error) => tracing::warn!(error = %error.message, "the upstream's stream is left"),
                    }
                }
                // It has no such stream, or not for us; 429 only says that it is too early.
                Ok(response) if !response.status().is_server_error() && response.status().as_u16() != 429 => {
                    tracing::debug!(status = response.status().as_u16(), "no stream of the upstream's own");
                    return;
                }
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(position.retry.unwrap_or(wait)).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Ends the session, so that the upstream need not keep it.
    pub async fn end_session(&self) {
        if !locked(&self.session).is_named() {
            return;
        }
        let ending = self.exchange(Method::DELETE, None, None);
        // The upstream may not allow it, and nothing depends on it.
        let _ = tokio::time::timeout(Duration::from_secs(END_SECONDS_MAX), ending).await;
        locked(&self.session).lose();
    }
}
