//! An agent's side: mTLS with its own certificate, MCP and plain HTTP calls.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An agent with a certificate, and a gateway to call.
pub struct Agent {
    gateway: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    connection: Mutex<Option<http1::SendRequest<Full<Bytes>>>>,
    ids: std::sync::atomic::AtomicU64,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// Every header.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What an agent takes of a reply at most.
const REPLY_BYTES_MAX: usize = 64 << 20;

impl Agent {
    /// An agent that proves itself by a certificate chain and key, and believes a bundle (all PEM files).
    pub fn new(gateway: SocketAddr, cert: &Path, key: &Path, bundle: &Path) -> Result<Agent, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(bundle)? {
            roots.add(root?)?;
        }
        let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Agent { gateway, tls: Arc::new(tls), connection: Mutex::default(), ids: 1.into() })
    }

    /// Sends one HTTP request, on the connection of the last one where it still stands.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let mut connection = self.connection.lock().await;
        let kept = match connection.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let (head, body) = sender.send_request(request).await?.into_parts();
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let body = Limited::new(body, REPLY_BYTES_MAX).collect().await?.to_bytes();
        *connection = Some(sender);
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn connect(&self) -> Result<http1::SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.gateway).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A plain HTTP call; a body is sent as JSON.
    pub async fn http(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.send(request.body(Full::new(Bytes::from(body)))?).await
    }

    /// An MCP request of the newest legacy revision.
    pub async fn rpc(&self, upstream: &str, method: &str, params: Value) -> Result<Answer, Failure> {
        let id = self.ids.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.message(upstream, message.to_string(), &[("mcp-protocol-version", "2025-11-25")]).await
    }

    /// Exactly these bytes, as an MCP message.
    pub async fn message(
        &self,
        upstream: &str,
        message: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let mut request = Request::post(format!("/{upstream}/mcp"))
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(message.into()))?).await
    }

    /// A tool call.
    pub async fn tool(&self, upstream: &str, name: &str, arguments: Value) -> Result<Answer, Failure> {
        self.rpc(upstream, "tools/call", json!({"name": name, "arguments": arguments})).await
    }
}

impl Answer {
    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The id of this call's record.
    pub fn record(&self) -> String {
        let header = self.headers.get("holdpoint-record").and_then(|value| value.to_str().ok());
        header.unwrap_or_default().to_owned()
    }

    /// The gateway's decision, when the gateway itself answered.
    pub fn decision(&self) -> Option<Value> {
        const KEY: &str = "dev.holdpoint/decision";
        let body = self.json();
        let places = [
            body.get(KEY),
            body.pointer("/result/_meta").and_then(|meta| meta.get(KEY)),
            body.pointer("/error/data").and_then(|data| data.get(KEY)),
        ];
        places.into_iter().flatten().next().cloned()
    }

    /// `allowed`, or the outcome that the gateway told.
    pub fn outcome(&self) -> String {
        let told = self
            .decision()
            .and_then(|decision| decision.get("outcome").and_then(Value::as_str).map(str::to_owned));
        told.unwrap_or_else(|| "allowed".to_owned())
    }
}
