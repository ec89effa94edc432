//! What commands ask a running gateway by: HTTP over mutual TLS, or over the machine's own socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::USAGE;
use super::policy::Said;
use crate::accept::tls::provider;
use crate::admin::literal;
use crate::identify::svid::read_roots;

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// The longest answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where the gateway is, and who asks.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Gateway {
    /// The admin listener, as in https://gateway.internal:8480, or its socket, as in unix:///run/holdpoint/admin.sock.
    #[arg(long, global = true, env = "HOLDPOINT_ADDR", default_value = "https://localhost:8480")]
    addr: String,
    /// Your certificate, PEM.
    #[arg(long, global = true, env = "HOLDPOINT_CERT")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, global = true, env = "HOLDPOINT_KEY")]
    key: Option<PathBuf>,
    /// A file with an access token of the identity provider, in place of a certificate.
    #[arg(long, global = true, env = "HOLDPOINT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The roots of the gateway's certificate, PEM.
    #[arg(long, global = true, env = "HOLDPOINT_CACERT")]
    cacert: Option<PathBuf>,
}

/// Why nothing came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The settings are wrong.
    Usage(String),
    /// The gateway was not reached, or broke off.
    Unreached(String),
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Value,
}

impl Gateway {
    /// Asks, in a runtime of its own.
    pub(super) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::Unreached(error.to_string()))?;
        runtime.block_on(async {
            match tokio::time::timeout(ANSWER_TIME_MAX, self.exchange(method, path, body)).await {
                Ok(reply) => reply,
                Err(_) => Err(Failure::Unreached(format!("{}: no answer in time", self.addr))),
            }
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply, Failure> {
        let unreached = |error: &dyn std::fmt::Display| Failure::Unreached(format!("{}: {error}", self.addr));
        if let Some(socket) = self.addr.strip_prefix("unix://") {
            let stream = UnixStream::connect(socket).await.map_err(|error| unreached(&error))?;
            return self.over(stream, "localhost", method, path, body).await;
        }
        let uri: Uri = self.addr.parse().map_err(|_| self.usage())?;
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(self.usage()) };
        if !matches!(uri.path(), "" | "/") {
            return Err(self.usage());
        }
        let tls = self.tls()?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| self.usage())?;
        let port = uri.port_u16().unwrap_or(443);
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| unreached(&error))?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        let stream = stream.map_err(|error| unreached(&error))?;
        let authority = uri.authority().map_or_else(|| host.to_owned(), ToString::to_string);
        self.over(stream, &authority, method, path, body).await
    }

    fn usage(&self) -> Failure {
        Failure::Usage(format!(
            "--addr {}: expected https://HOST:PORT or unix:///PATH (or HOLDPOINT_ADDR)",
            self.addr
        ))
    }

    fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        let read = |path: &Option<PathBuf>, flag: &str, variable: &str| {
            let Some(path) = path else {
                return Err(Failure::Usage(format!("--{flag} FILE is required (or {variable})")));
            };
            std::fs::read(path).map_err(|error| bad(path, &error))
        };
        let bundle = read(&self.cacert, "cacert", "HOLDPOINT_CACERT")?;
        let wrong = |what: &str, error: &dyn std::fmt::Display| Failure::Usage(format!("{what}: {error}"));
        let roots = read_roots(&bundle).map_err(|error| wrong("--cacert", &error))?;
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong("TLS", &error))?
            .with_root_certificates(roots);
        // One proof is shown, and the token is the one that was asked for by name.
        if self.token_file.is_some() {
            return Ok(builder.with_no_client_auth());
        }
        let chain = read(&self.cert, "cert", "HOLDPOINT_CERT")?;
        let key = read(&self.key, "key", "HOLDPOINT_KEY")?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| wrong("--cert", &error))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong("--key", &error))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| wrong("--cert and --key", &error))
    }

    /// The header that shows the token; none without one, and none over the machine's own socket.
    fn authorization(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(file) = self.token_file.as_ref().filter(|_| !self.addr.starts_with("unix://")) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(file).map_err(|error| bad(file, &error))?;
        let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
        let mut value = value.map_err(|_| bad(file, &"is no token"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        authority: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let unreached = |error: &dyn std::fmt::Display| Failure::Unreached(format!("{}: {error}", self.addr));
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreached(&error))?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, authority);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = self.authorization()? {
            request = request.header(AUTHORIZATION, authorization);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| unreached(&error))?;
        // A server that refuses a certificate says so only now: TLS 1.3 asks for it last.
        let response = sender.send_request(request).await.map_err(|error| unreached(&error))?;
        let status = response.status().as_u16();
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unreached(&error))?.to_bytes();
        let body = serde_json::from_slice(&body)
            .map_err(|_| unreached(&"what answered is no admin listener of Holdpoint"))?;
        Ok(Reply { status, body })
    }
}

fn bad(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Usage(format!("{}: {error}", path.display()))
}

/// A text as one segment of a path, or one value of a query.
pub(super) fn segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// What a reply says, or why it says nothing.
pub(super) fn said(reply: Reply, text: impl FnOnce(&Value) -> String) -> Said {
    if reply.status == 200 {
        return Said { code: 0, text: text(&reply.body), json: reply.body };
    }
    let detail = reply.body.get("detail").and_then(Value::as_str).unwrap_or("refused");
    let code = match reply.status {
        400 => USAGE,
        500.. => 2,
        _ => 1,
    };
    Said { code, text: format!("{}\n", literal::plain(detail)), json: reply.body }
}

/// A member as text that moves no cursor.
pub(super) fn word(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => literal::plain(text),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Array(words)) if !words.is_empty() => {
            let words: Vec<String> = words.iter().filter_map(Value::as_str).map(literal::plain).collect();
            words.join(", ")
        }
        _ => "-".to_owned(),
    }
}

pub(super) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
