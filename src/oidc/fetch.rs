//! How the provider is asked: one request on a connection of its own, bounded in time and size, and never sent elsewhere
//! by an answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one question may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest answer.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Asks one provider.
pub(super) struct Fetch {
    /// Whether the provider itself is plain HTTP on this machine.
    plain: Plain,
    tls: Arc<rustls::ClientConfig>,
}

/// Whether plain HTTP to this machine is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Never,
    OnThisMachine,
}

/// A form that is posted, and what proves who posts it.
pub(super) struct Form {
    /// The body.
    pub(super) body: String,
    /// The value of `Authorization`.
    pub(super) authorization: Option<HeaderValue>,
}

/// Whether an address may be a provider's: https, or http on this machine.
pub fn is_acceptable(address: &str) -> bool {
    let Ok(uri) = address.parse::<Uri>() else { return false };
    let whole = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    match uri.scheme_str() {
        Some("https") => whole,
        Some("http") => whole && uri.host().is_some_and(is_this_machine),
        _ => false,
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl Fetch {
    /// Asks this issuer, and what it names.
    pub(super) fn new(issuer: &str, tls: Arc<rustls::ClientConfig>) -> Fetch {
        let plain = if issuer.starts_with("http://") { Plain::OnThisMachine } else { Plain::Never };
        Fetch { plain, tls }
    }

    /// Whether the provider may name this address. One that is reached by TLS names none without.
    pub(super) fn allowed(&self, address: &str) -> Result<(), String> {
        let plain = address.starts_with("http://");
        match is_acceptable(address) && (!plain || self.plain == Plain::OnThisMachine) {
            true => Ok(()),
            false => Err(format!("the provider names `{address}`, which is no https address")),
        }
    }

    /// The body of a document.
    pub(super) async fn get(&self, address: &str) -> Result<Bytes, String> {
        self.ask(Method::GET, address, None).await
    }

    /// The body of the answer to a form.
    pub(super) async fn post(&self, address: &str, form: Form) -> Result<Bytes, String> {
        self.ask(Method::POST, address, Some(form)).await
    }

    async fn ask(&self, method: Method, address: &str, form: Option<Form>) -> Result<Bytes, String> {
        self.allowed(address)?;
        let asked = tokio::time::timeout(ANSWER_TIME_MAX, self.exchange(method, address, form)).await;
        asked
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(|why| format!("{address}: {why}"))
    }

    async fn exchange(&self, method: Method, address: &str, form: Option<Form>) -> Result<Bytes, String> {
        let uri: Uri = address.parse().map_err(|_| "no address")?;
        let host = uri.host().ok_or("no host")?;
        let bare = host.trim_matches(['[', ']']);
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| error.to_string())?;
        let request = request(method, &uri, form)?;
        if !tls {
            return over(stream, request).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        over(stream, request).await
    }
}

fn request(method: Method, uri: &Uri, form: Option<Form>) -> Result<Request<Full<Bytes>>, String> {
    let host = uri.host().unwrap_or_default();
    let host = uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("holdpoint/", env!("CARGO_PKG_VERSION")));
    let mut body = Bytes::new();
    if let Some(form) = form {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = form.authorization {
            request = request.header(http::header::AUTHORIZATION, authorization);
        }
        body = Bytes::from(form.body);
    }
    request.body(Full::new(body)).map_err(|error| error.to_string())
}

async fn over<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // It ends by itself when its sender is dropped.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    // A redirect is no success either: the provider is where it was configured to be.
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    Ok(body)
}
