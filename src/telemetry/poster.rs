//! Sends single JSON documents by HTTP POST, for what is published beside traces.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};

use super::transport::Transport;

/// How long one may take.
const POST_TIME_MAX: Duration = Duration::from_secs(10);

/// One address, over one kept connection.
pub struct Poster {
    url: http::Uri,
    transport: Transport,
}

impl Poster {
    /// Posts to an `http` or `https` address.
    pub fn new(url: &str) -> Result<Poster, String> {
        let url: http::Uri = url.parse().map_err(|error| format!("`{url}` is no URL: {error}"))?;
        match (url.scheme_str(), url.host()) {
            (Some("http" | "https"), Some(_)) => Ok(Poster { url, transport: Transport::default() }),
            _ => Err(format!("`{url}` is no http or https URL")),
        }
    }

    /// The address of the logs of an OTLP endpoint.
    pub fn otlp_logs(endpoint: &str) -> Result<Poster, String> {
        Poster::new(&format!("{}/v1/logs", endpoint.trim_end_matches('/')))
    }

    /// Sends one document; anything but a success within the time is a failure, in words.
    pub async fn post(&self, json: Bytes) -> Result<(), String> {
        let request = http::Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("holdpoint/", env!("CARGO_PKG_VERSION")))
            .body(json)
            .map_err(|error| error.to_string())?;
        match tokio::time::timeout(POST_TIME_MAX, self.transport.send(&request)).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(format!("{} answered {}", self.url, response.status())),
            Ok(Err(loss)) => Err(format!("{}: {loss:?}", self.url)),
            Err(_) => Err(format!("{} did not answer in time", self.url)),
        }
    }
}
