//! One kept HTTP/1.1 connection to the collector, plain or TLS, whose every answer is bounded in size.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::export::Loss;

/// The largest answer that is read from a collector.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A connection to the collector, made when needed and kept while it lasts.
#[derive(Debug, Default)]
pub(super) struct Transport {
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
    tls: std::sync::OnceLock<Arc<rustls::ClientConfig>>,
}

impl Transport {
    /// Sends one request and reads the whole answer. [`Loss::Connect`] means that the request was not sent.
    pub(super) async fn send(&self, request: &http::Request<Bytes>) -> Result<http::Response<Bytes>, Loss> {
        // A connection that is dropped halfway, by a timeout too, is never kept: it left the slot when it was taken.
        let mut kept = self.kept.lock().await;
        let mut message = on_the_wire(request)?;
        if let Some(mut sender) = kept.take().filter(SendRequest::is_ready) {
            match sender.try_send_request(message).await {
                Ok(response) => return whole(response, sender, &mut kept).await,
                // It was closed between two batches: the same request over a new connection.
                Err(mut unsent) => message = unsent.take_message().ok_or(Loss::Disconnected)?,
            }
        }
        let mut sender = self.connect(request.uri()).await?;
        let response = sender
            .send_request(message)
            .await
            .map_err(|error| if error.is_parse() { Loss::Garbage } else { Loss::Disconnected })?;
        whole(response, sender, &mut kept).await
    }

    async fn connect(&self, uri: &http::Uri) -> Result<SendRequest<Full<Bytes>>, Loss> {
        let tls = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or(Loss::Internal)?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(|_| Loss::Connect)?;
        let _ = stream.set_nodelay(true);
        if !tls {
            return handshake(stream).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Loss::Internal)?;
        let connector = TlsConnector::from(self.tls()?);
        handshake(connector.connect(name, stream).await.map_err(|_| Loss::Connect)?).await
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, Loss> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| Loss::Internal)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Loss>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(ANSWER_BYTES_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Loss::Connect)?;
    // It ends by itself when its sender is dropped.
    tokio::spawn(connection);
    Ok(sender)
}

/// The request in origin form, with a `Host` that has no user information.
fn on_the_wire(request: &http::Request<Bytes>) -> Result<http::Request<Full<Bytes>>, Loss> {
    let uri = request.uri();
    let host = uri.host().ok_or(Loss::Internal)?;
    let host = uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut message = http::Request::post(path)
        .header(http::header::HOST, host)
        .body(Full::new(request.body().clone()))
        .map_err(|_| Loss::Internal)?;
    for (name, value) in request.headers() {
        message.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(message)
}

async fn whole(
    response: http::Response<hyper::body::Incoming>,
    sender: SendRequest<Full<Bytes>>,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<http::Response<Bytes>, Loss> {
    let (parts, body) = response.into_parts();
    let body = read(body, ANSWER_BYTES_MAX).await?;
    *kept = Some(sender);
    Ok(http::Response::from_parts(parts, body))
}

/// A whole body of at most `bytes_max`.
pub(super) async fn read(mut body: hyper::body::Incoming, bytes_max: usize) -> Result<Bytes, Loss> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Loss::Disconnected)?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > bytes_max {
                return Err(Loss::TooLarge);
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}
