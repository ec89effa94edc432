//! One POST to one receiver: a connection of its own, within a bounded time, with no redirect followed and no more of the
//! answer read than matters.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Webhook;
use super::sign::signatures;
use crate::call::RecordId;

/// How long one may take, from the name's look-up to the answer's head.
const POST_TIME_MAX: Duration = Duration::from_secs(15);
/// The largest head of an answer, and the most of its body that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long the body of an answer is read. It is read at all so that a receiver can end what it says.
const BODY_TIME_MAX: Duration = Duration::from_secs(1);

/// Why a receiver does not have it.
#[derive(Debug)]
pub struct Refusal {
    /// In words, with no byte of the answer's body.
    pub why: String,
    /// How long the receiver asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the receiver wants no more of it.
    pub gone: bool,
}

/// Sends a body, signed at this moment. Anything but a success of the receiver is a refusal.
pub async fn post(webhook: &Webhook, id: RecordId, body: Vec<u8>) -> Result<(), Refusal> {
    let refused = |why: String| Refusal { why, retry_after: None, gone: false };
    match tokio::time::timeout(POST_TIME_MAX, send(webhook, id, body)).await {
        Err(_) => Err(refused(format!("no answer within {} s", POST_TIME_MAX.as_secs()))),
        Ok(Err(why)) => Err(refused(why)),
        Ok(Ok(response)) => {
            let status = response.status();
            let asked =
                response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            #[expect(clippy::disallowed_methods, reason = "the body is limited")]
            let rest = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
            // What it says beside the status is nothing to go by.
            let _ = tokio::time::timeout(BODY_TIME_MAX, rest).await;
            if status.is_success() {
                return Ok(());
            }
            let retry_after = asked.map(Duration::from_secs);
            Err(Refusal { why: format!("it answered {status}"), retry_after, gone: status.as_u16() == 410 })
        }
    }
}

async fn send(webhook: &Webhook, id: RecordId, body: Vec<u8>) -> Result<Response<Incoming>, String> {
    let url = &webhook.url;
    let (host, tls) = (url.host().unwrap_or_default(), webhook.tls.as_ref());
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| format!("not reached: {error}"))?;
    let request = request(webhook, id, body).map_err(|error| error.to_string())?;
    let Some(tls) = tls else {
        // Without TLS it leaves this machine on no account, whatever a name resolves to.
        let local = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        return if local { exchange(stream, request).await } else { Err("not on this machine".to_owned()) };
    };
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    exchange(stream.map_err(|error| format!("TLS: {error}"))?, request).await
}

fn request(webhook: &Webhook, id: RecordId, body: Vec<u8>) -> Result<Request<Full<Bytes>>, http::Error> {
    let url = &webhook.url;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let host = url.host().unwrap_or_default();
    let host = url.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Request::post(url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("holdpoint/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", id.to_string())
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signatures(&webhook.keys, id, seconds, &body))
        .body(Full::new(Bytes::from(body)))
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(ANSWER_BYTES_MAX);
    let shaken = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    // It ends by itself when its sender and its answer are dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|error| format!("it broke off: {error}"))
}
