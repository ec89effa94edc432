//! Who gets in: hostile certificates and hostile framing against a real listener, with what the handler then saw.

#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use holdpoint::accept::{self, Bounds, Conn, Door, Handler, tls};
use holdpoint::config::ListenerKind;
use holdpoint::demo::sample::Sample;
use holdpoint::identify::svid::{DomainSource, Role, Trust};
use holdpoint::record::tail::{self, Format};
use holdpoint::record::verify::{Status, verify};
use holdpoint::{app, config};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose as Eku,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose as Ku, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::client::TlsStream;

type Failure = Box<dyn Error + Send + Sync>;
type Client = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

const REVOKED: u64 = 666;
/// An agent in good standing.
const AGENT: &str = "spiffe://a.example/agent";

/// A certificate authority of the tests.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Ku::KeyCertSign, Ku::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, params: &CertificateParams) -> Client {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], key)
    }

    fn crl(&self) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(REVOKED),
            revocation_time: now - time::Duration::HOUR,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - time::Duration::HOUR,
            next_update: now + time::Duration::HOUR,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A good SVID.
fn svid(id: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Ku::DigitalSignature];
    params.extended_key_usages = vec![Eku::ClientAuth, Eku::ServerAuth];
    params.not_before = now - time::Duration::MINUTE;
    params.not_after = now + time::Duration::MINUTE * 5;
    params
}

fn with(id: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = svid(id);
    change(&mut params);
    params
}

/// Writes down everything that reaches it.
#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<String>>,
    refused: Mutex<Vec<&'static str>>,
    /// Calls of `/until` under way, which are answered once they are let go.
    waiting: AtomicUsize,
    go: Notify,
}

impl Handler for Recorder {
    type Body = BoxBody<Bytes, Failure>;

    async fn call(self: Arc<Self>, conn: Arc<Conn>, request: Request<Incoming>) -> Response<Self::Body> {
        let mut status = 200;
        let line = match conn.framing_fault_of(&request) {
            Some(reason) => {
                status = 400;
                format!("fault {reason}")
            }
            None => {
                let gone = request.extensions().get::<accept::Gone>().unwrap().clone();
                if request.uri().path() == "/wait" {
                    gone.wait().await;
                    self.calls.lock().unwrap().push("gone".to_owned());
                }
                if request.uri().path() == "/until" {
                    self.waiting.fetch_add(1, Ordering::SeqCst);
                    self.go.notified().await;
                }
                let line = format!("{} {} by {}", request.method(), request.uri().path(), conn.agent_id());
                let mut body = request.into_body();
                loop {
                    match body.frame().await {
                        Some(Ok(_)) => {}
                        Some(Err(_)) => break format!("broken {}", conn.framing_fault().unwrap_or("?")),
                        None => break line,
                    }
                }
            }
        };
        self.calls.lock().unwrap().push(line);
        let body = Full::from("ok").map_err(|never: Infallible| match never {}).boxed();
        Response::builder().status(status).body(body).unwrap()
    }

    fn refused(&self, _peer: SocketAddr, reason: &'static str, _detail: String) {
        self.refused.lock().unwrap().push(reason);
    }
}

struct Gateway {
    address: SocketAddr,
    a: Ca,
    b: Ca,
    people: Ca,
    recorder: Arc<Recorder>,
    trust: Arc<ArcSwap<Trust>>,
    drain: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

/// The gateway's own certificate and key, as PEM.
fn gateway_certificate(ca: &Ca) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut own = svid("spiffe://a.example/gateway");
    own.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
    (own.signed_by(&key, &ca.issuer).unwrap().pem(), key.serialize_pem())
}

async fn gateway() -> Gateway {
    gateway_within(Bounds::default()).await
}

async fn gateway_within(bounds: Bounds) -> Gateway {
    let (a, b, people) = (Ca::new("a"), Ca::new("b"), Ca::new("people"));
    let source = |name: &str, role, ca: &Ca, crls: Option<String>| DomainSource {
        name: name.to_owned(),
        role,
        bundle: ca.pem.clone().into_bytes(),
        crls: crls.map(String::into_bytes),
    };
    let sources = [
        source("a.example", Role::Agents, &a, Some(a.crl())),
        source("b.example", Role::Agents, &b, None),
        source("people.example", Role::People, &people, None),
    ];
    let trust = Arc::new(ArcSwap::from_pointee(Trust::build(&sources, &tls::provider()).unwrap()));
    let (own, key) = gateway_certificate(&a);
    let identity = tls::Identity::read(own.as_bytes(), key.as_bytes()).unwrap();
    let door = Door::new(&trust, Role::Agents, Arc::new(identity), &Arc::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let recorder = Arc::new(Recorder::default());
    let (drain, drained) = watch::channel(false);
    let bounds =
        Bounds { handshake_seconds_max: 1, head_seconds_max: 1, headers_bytes_max: 16 * 1024, ..bounds };
    let serving = tokio::spawn(accept::serve(listener, door, bounds, recorder.clone(), drained));
    Gateway { address, a, b, people, recorder, trust, drain, serving }
}

fn client_config(root: &Ca, client: Option<Client>, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = rustls::pki_types::pem::PemObject::from_pem_slice(root.pem.as_bytes()).unwrap();
    roots.add(pem).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

async fn connect(
    address: SocketAddr,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, socket).await
}

impl Gateway {
    async fn connect(&self, client: Option<Client>, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_by(self.client_config(client, alpn)).await
    }

    fn client_config(&self, client: Option<Client>, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
        client_config(&self.a, client, alpn)
    }

    async fn connect_by(&self, config: Arc<rustls::ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.address, config).await
    }

    /// Sends raw bytes over HTTP/1.1 and gives everything that comes back until the end, or for a short while.
    async fn raw(&self, bytes: &[u8]) -> String {
        let client = self.a.sign(&svid("spiffe://a.example/agent"));
        let mut stream = self.connect(Some(client), b"http/1.1").await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_millis(400), read).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn refusal(&self) -> Vec<&'static str> {
        for _ in 0..300 {
            let refused = std::mem::take(&mut *self.recorder.refused.lock().unwrap());
            if !refused.is_empty() {
                return refused;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Vec::new()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.recorder.calls.lock().unwrap())
    }

    async fn join(self) {
        self.drain.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.serving).await.unwrap().unwrap();
    }
}

/// Certificates that must not get in, and none at all, each with the reason that is recorded.
fn hostile(a: &Ca, b: &Ca, people: &Ca) -> Vec<(&'static str, Option<Client>)> {
    let good = AGENT;
    let now = OffsetDateTime::now_utc();
    let day = time::Duration::DAY;
    let mut cases: Vec<(&str, Client)> = vec![
        ("two-uri-sans", a.sign(&with(good, |p| p.subject_alt_names.push(uri("spiffe://a.example/other"))))),
        ("two-uri-sans", a.sign(&with(good, |p| p.subject_alt_names.push(uri("https://a.example/"))))),
        ("no-uri-san", a.sign(&with(good, |p| p.subject_alt_names.clear()))),
        (
            "no-uri-san",
            a.sign(&with(good, |p| {
                p.subject_alt_names = vec![SanType::DnsName("agent.a.example".try_into().unwrap())];
            })),
        ),
        ("unknown-issuer", b.sign(&svid(good))),
        ("unknown-issuer", Ca::new("a").sign(&svid(good))),
        ("unknown-trust-domain", a.sign(&svid("spiffe://c.example/agent"))),
        ("wrong-role", people.sign(&svid("spiffe://people.example/ana"))),
        ("ca-certificate", a.sign(&with(good, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)))),
        ("basic-constraints", a.sign(&with(good, |p| p.is_ca = IsCa::NoCa))),
        ("key-usage", a.sign(&with(good, |p| p.key_usages.push(Ku::KeyCertSign)))),
        ("key-usage", a.sign(&with(good, |p| p.key_usages.push(Ku::CrlSign)))),
        ("key-usage", a.sign(&with(good, |p| p.key_usages.clear()))),
        ("key-usage", a.sign(&with(good, |p| p.key_usages = vec![Ku::KeyAgreement]))),
        ("extended-key-usage", a.sign(&with(good, |p| p.extended_key_usages = vec![Eku::ServerAuth]))),
        ("extended-key-usage", a.sign(&with(good, |p| p.extended_key_usages = vec![Eku::ClientAuth]))),
        (
            "expired",
            a.sign(&with(good, |p| {
                (p.not_before, p.not_after) = (now - day * 2, now - day);
            })),
        ),
        (
            "not-yet-valid",
            a.sign(&with(good, |p| {
                (p.not_before, p.not_after) = (now + day, now + day * 2);
            })),
        ),
        ("revoked", a.sign(&with(good, |p| p.serial_number = Some(SerialNumber::from(REVOKED))))),
    ];
    for (reason, id) in [
        ("not-spiffe", "http://a.example/agent"),
        ("root-path", "spiffe://a.example"),
        ("root-path", "spiffe://a.example/"),
        ("path", "spiffe://a.example/agent/"),
        ("path", "spiffe://a.example//agent"),
        ("path", "spiffe://a.example/x/../agent"),
        ("path", "spiffe://a.example/agent?x=1"),
        ("path", "spiffe://a.example/agent#x"),
        ("path", "spiffe://a.example/ag%65nt"),
        ("trust-domain", "spiffe://a.example:8443/agent"),
        ("trust-domain", "spiffe://user@a.example/agent"),
    ] {
        cases.push((reason, a.sign(&svid(id))));
    }
    let long = format!("spiffe://a.example/{}", "x".repeat(2048));
    cases.push(("too-long", a.sign(&svid(&long))));
    let cases = cases.into_iter().map(|(reason, client)| (reason, Some(client)));
    std::iter::once(("no-certificate", None)).chain(cases).collect()
}

/// Everything that comes back for a request on a connection that should not be served; an error is nothing.
async fn answered(address: SocketAddr, config: Arc<rustls::ClientConfig>, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Ok(mut stream) = connect(address, config).await {
        // In TLS 1.3 a client learns of its refusal only when it reads.
        let _ = stream.write_all(request).await;
        let _ = stream.read_to_end(&mut answer).await;
    }
    answer
}

#[tokio::test]
async fn hostile_certificates_are_refused_by_name() {
    let gateway = gateway().await;
    for (reason, client) in hostile(&gateway.a, &gateway.b, &gateway.people) {
        let config = gateway.client_config(client, b"http/1.1");
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert_eq!(answered(gateway.address, config, request).await, b"", "{reason}");
        assert_eq!(gateway.refusal().await, [reason]);
    }
    assert_eq!(gateway.calls(), Vec::<String>::new());
    gateway.join().await;
}

/// A whole gateway whose trust is that of the tests: two domains of agents, one with a CRL, and one of people.
async fn whole(dir: &Path, [a, b, people]: [&Ca; 3], upstream: SocketAddr) -> app::Running {
    let (own, key) = gateway_certificate(a);
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let owner = "{business: a@example.org, technical: b@example.org, risk: c@example.org}";
    let yaml = format!(
        "organization: {{name: example}}
trust:
  identity: {{cert: gateway.pem, key: gateway-key.pem}}
  domains:
    a.example: {{bundle: a.pem, crl: a.crl, roles: [agents]}}
    b.example: {{bundle: b.pem, roles: [agents]}}
    people.example: {{bundle: people.pem, roles: [people]}}
listeners:
  - {{name: agents, kind: agents, address: \"127.0.0.1:0\"}}
agents: agents.yaml
upstreams:
  - {{name: crm, kind: http, url: \"http://{upstream}\", catalog: crm.yaml}}
policy: {{cedar: \"{}\"}}
audit: {{dir: audit}}
keys: {{dir: keys}}
",
        policies.display()
    );
    std::fs::create_dir_all(dir).unwrap();
    for (name, text) in [
        ("a.pem", a.pem.clone()),
        ("a.crl", a.crl()),
        ("b.pem", b.pem.clone()),
        ("people.pem", people.pem.clone()),
        ("gateway.pem", own),
        ("gateway-key.pem", key),
        (
            "agents.yaml",
            format!("- {{id: \"{AGENT}\", owner: {owner}, autonomy: constrained, state: active}}\n"),
        ),
        ("crm.yaml", "tools: {\"GET /v1/invoices/{id}\": {class: read, consequence: 0}}\n".to_owned()),
        ("holdpoint.yaml", yaml),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let loaded = config::load(&dir.join("holdpoint.yaml"));
    app::start(loaded.unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))).await.unwrap()
}

/// The records of refused connections, when there are so many.
async fn refused_records(audit: &Path, count: usize) -> Vec<Value> {
    for _ in 0..500 {
        let mut out = Vec::new();
        tail::last(audit, 1000, Format::Json, &mut out).unwrap();
        let records = out.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let refused: Vec<Value> = records.filter(|record: &Value| record["type"] == "refused").collect();
        if refused.len() >= count {
            return refused;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there are fewer than {count} records of refusals");
}

#[tokio::test]
async fn hostile_certificates_reach_no_upstream_and_each_refusal_is_on_record() {
    let dir = std::env::temp_dir().join(format!("holdpoint-hostile-{}", std::process::id()));
    let (a, b, people) = (Ca::new("a"), Ca::new("b"), Ca::new("people"));
    let upstream = Sample::http().await.unwrap();
    let running = whole(&dir, [&a, &b, &people], upstream.address()).await;
    let address = running.address(ListenerKind::Agents).unwrap();
    let request = b"GET /crm/v1/invoices/1001 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    // The same request with a good certificate gets through, so that it is the certificate that is refused below.
    let good = client_config(&a, Some(a.sign(&svid(AGENT))), b"http/1.1");
    let answer = answered(address, good, request).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(upstream.seen().len(), 1);

    let cases = hostile(&a, &b, &people);
    let count = cases.len();
    for (at, (reason, client)) in cases.into_iter().enumerate() {
        let config = client_config(&a, client, b"http/1.1");
        assert_eq!(answered(address, config, request).await, b"", "{reason}");
        let refused = refused_records(&dir.join("audit"), at + 1).await;
        let record = refused.last().unwrap();
        assert_eq!((&record["reason"], &record["stage"]), (&reason.into(), &"accept".into()), "{record:#}");
        assert_eq!(record["decision"]["outcome"], "denied", "{record:#}");
        assert_eq!(refused.len(), at + 1);
    }
    assert!(count > 30, "{count}");
    assert_eq!(upstream.seen().len(), 1, "nothing was sent for any of them");
    running.drain().await;
    assert_eq!(verify(&dir.join("audit")).unwrap().status, Status::Ok);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn good_svids_of_two_domains_are_served_over_both_versions() {
    let gateway = gateway().await;
    let clients = [
        (gateway.a.sign(&svid("spiffe://A.example/agent")), b"http/1.1".as_slice()),
        (gateway.b.sign(&svid("spiffe://b.example/x/y")), b"h2".as_slice()),
    ];
    for (client, alpn) in clients {
        let stream = gateway.connect(Some(client), alpn).await.unwrap();
        let request = Request::get("https://localhost/x").header("host", "localhost");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let io = TokioIo::new(stream);
        let response = if alpn == b"h2" {
            let (mut sender, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(driver);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(driver);
            let (mut parts, body) = request.into_parts();
            parts.uri = "/x".parse().unwrap();
            sender.send_request(Request::from_parts(parts, body)).await.unwrap()
        };
        assert_eq!(response.status(), 200);
    }
    assert_eq!(gateway.calls(), ["GET /x by spiffe://a.example/agent", "GET /x by spiffe://b.example/x/y"]);
    gateway.join().await;
}

#[tokio::test]
async fn trust_taken_away_is_felt_at_the_next_handshake() {
    let gateway = gateway().await;
    let client = gateway.a.sign(&svid("spiffe://a.example/agent"));
    let config = gateway.client_config(Some(client), b"http/1.1");
    // The second connection has the first one's session store: nothing was put there with which to resume.
    for _ in 0..2 {
        let mut stream = gateway.connect_by(config.clone()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: l\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let session = stream.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
    gateway.trust.store(Arc::new(Trust::default()));
    if let Ok(mut stream) = gateway.connect_by(config).await {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(gateway.refusal().await, ["unknown-trust-domain"]);
    gateway.join().await;
}

#[tokio::test]
async fn a_slow_handshake_is_cut() {
    let gateway = gateway().await;
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    socket.write_all(&[0x16, 0x03]).await.unwrap();
    assert_eq!(gateway.refusal().await, ["handshake-timeout"]);
    gateway.join().await;
}

#[test]
fn one_root_under_two_roles_is_a_mistake() {
    let ca = Ca::new("both");
    let source = |name: &str, role| DomainSource {
        name: name.to_owned(),
        role,
        bundle: ca.pem.clone().into_bytes(),
        crls: None,
    };
    let sources = [source("a.example", Role::Agents), source("people.example", Role::People)];
    let mistakes = Trust::build(&sources, &tls::provider()).unwrap_err();
    assert!(mistakes[0].contains("also a root of a.example"), "{mistakes:?}");
}

#[tokio::test]
async fn framing_that_can_be_read_two_ways_is_refused_by_name() {
    let gateway = gateway().await;
    let get = "GET / HTTP/1.1\r\nhost: l\r\n";
    let post = "POST / HTTP/1.1\r\nhost: l\r\n";
    let cases: Vec<(&str, String)> = vec![
        ("te-and-cl", format!("{post}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("te-and-cl", format!("{post}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n")),
        ("duplicate-content-length", format!("{post}content-length: 1\r\ncontent-length: 1\r\n\r\nx")),
        ("content-length", format!("{post}content-length: 1, 1\r\n\r\nx")),
        ("content-length", format!("{post}content-length: +1\r\n\r\nx")),
        ("content-length", format!("{post}content-length: 0x1\r\n\r\nx")),
        ("content-length", format!("{post}content-length: 99999999999999999999\r\n\r\nx")),
        ("transfer-encoding", format!("{post}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("transfer-encoding", format!("{post}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("transfer-encoding", format!("{post}transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n")),
        (
            "duplicate-transfer-encoding",
            format!("{post}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("control-byte", format!("{post}transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n")),
        ("control-byte", format!("{post}transfer-encoding: \x0cchunked\r\n\r\n0\r\n\r\n")),
        ("space-before-colon", format!("{post}transfer-encoding : chunked\r\n\r\n0\r\n\r\n")),
        ("obs-fold", format!("{get}a: b\r\n c\r\n\r\n")),
        ("bare-lf", "GET / HTTP/1.1\nhost: l\n\n".to_owned()),
        ("bare-lf", format!("{get}a: b\nc: d\r\n\r\n")),
        ("bare-cr", format!("{get}a: b\rc: d\r\n\r\n")),
        ("control-byte", format!("{get}a: b\0c\r\n\r\n")),
        ("underscore", format!("{get}mcp_session_id: x\r\n\r\n")),
        ("header-name", format!("{get}a b: x\r\n\r\n")),
        ("header-name", format!("{get}nothing\r\n\r\n")),
        ("no-host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("duplicate-host", format!("{get}host: m\r\n\r\n")),
        ("host", "GET / HTTP/1.1\r\nhost: user@l\r\n\r\n".to_owned()),
        ("host", "GET / HTTP/1.1\r\nhost: l/x\r\n\r\n".to_owned()),
        ("target", "GET http://l/ HTTP/1.1\r\nhost: l\r\n\r\n".to_owned()),
        ("target", "GET /a#b HTTP/1.1\r\nhost: l\r\n\r\n".to_owned()),
        ("target", "GET /a\\b HTTP/1.1\r\nhost: l\r\n\r\n".to_owned()),
        ("target", "OPTIONS * HTTP/1.1\r\nhost: l\r\n\r\n".to_owned()),
        ("request-line", "GET  / HTTP/1.1\r\nhost: l\r\n\r\n".to_owned()),
        ("method", "CONNECT l:443 HTTP/1.1\r\nhost: l\r\n\r\n".to_owned()),
        ("method", "get / HTTP/1.1\r\nhost: l\r\n\r\n".to_owned()),
        ("version", "GET / HTTP/1.0\r\nhost: l\r\n\r\n".to_owned()),
        ("upgrade", format!("{get}connection: upgrade\r\nupgrade: websocket\r\n\r\nGET /x")),
        ("expect", format!("{post}expect: magic\r\ncontent-length: 1\r\n\r\nx")),
        ("empty-line", format!("\r\n{get}\r\n")),
        ("head-too-long", format!("{get}a: {}\r\n\r\n", "x".repeat(17 * 1024))),
        ("too-many-headers", format!("{get}{}\r\n", "a: b\r\n".repeat(100))),
        ("slow-head", format!("{get}a: b")),
    ];
    for (reason, bytes) in cases {
        let answer = if reason == "slow-head" {
            let client = gateway.a.sign(&svid("spiffe://a.example/agent"));
            let mut stream = gateway.connect(Some(client), b"http/1.1").await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            answer
        } else {
            gateway.raw(bytes.as_bytes()).await
        };
        assert!(answer.starts_with("HTTP/1.1 400"), "{reason}: {bytes:?}: {answer}");
        assert_eq!(gateway.calls(), [format!("fault {reason}")], "{bytes:?}");
    }
    gateway.join().await;
}

#[tokio::test]
async fn bodies_that_break_their_framing_end_in_an_error() {
    let gateway = gateway().await;
    let chunked = "POST / HTTP/1.1\r\nhost: l\r\ntransfer-encoding: chunked\r\n\r\n";
    for (reason, body) in [
        ("bare-lf", "1\nx\r\n0\r\n\r\n".to_owned()),
        ("chunk-size", "g\r\nx\r\n0\r\n\r\n".to_owned()),
        ("chunk-size", "1 \r\nx\r\n0\r\n\r\n".to_owned()),
        ("chunk-size", format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(16))),
        ("chunk-extension", format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(300))),
        ("chunk-end", "1\r\nxy\r\n0\r\n\r\n".to_owned()),
        ("trailers", "1\r\nx\r\n0\r\nbad trailer\r\n\r\n".to_owned()),
    ] {
        gateway.raw(format!("{chunked}{body}").as_bytes()).await;
        assert_eq!(gateway.calls(), [format!("broken {reason}")], "{body:?}");
    }
    gateway.join().await;
}

#[tokio::test]
async fn pipelined_requests_are_each_checked() {
    let gateway = gateway().await;
    let one = "POST /1 HTTP/1.1\r\nhost: l\r\ncontent-length: 3\r\n\r\nabc";
    let two =
        "POST /2 HTTP/1.1\r\nhost: l\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: v\r\n\r\n";
    let three = "GET /3 HTTP/1.1\r\nhost: l\r\nconnection: close\r\n\r\n";
    let answer = gateway.raw(format!("{one}{two}{three}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    let by = "by spiffe://a.example/agent";
    assert_eq!(gateway.calls(), [format!("POST /1 {by}"), format!("POST /2 {by}"), format!("GET /3 {by}")]);

    let bad = "GET /4 HTTP/1.1\r\nhost: l\r\nx-holdpoint-framing: 00\r\nhost: m\r\n\r\n";
    let answer = gateway.raw(format!("{one}{bad}{three}").as_bytes()).await;
    assert!(answer.contains("HTTP/1.1 200 OK") && answer.contains("HTTP/1.1 400"), "{answer}");
    assert_eq!(gateway.calls(), [format!("POST /1 {by}"), "fault duplicate-host".to_owned()]);
    gateway.join().await;
}

#[tokio::test]
async fn a_flood_of_pings_ends_the_connection() {
    let gateway = gateway().await;
    let client = gateway.a.sign(&svid("spiffe://a.example/agent"));
    let mut stream = gateway.connect(Some(client), b"h2").await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for _ in 0..1100 {
        bytes.extend_from_slice(b"\0\0\x08\x06\0\0\0\0\0pingping");
    }
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    assert_eq!(gateway.refusal().await, ["h2-control-flood"]);
    gateway.join().await;
}

#[tokio::test]
async fn a_development_ca_serves_agents_and_upstreams() {
    let dir = std::env::temp_dir().join(format!("holdpoint-pki-{}", std::process::id()));
    let written = holdpoint::pki::init(&dir).unwrap();
    assert_eq!(written.len(), 8);
    holdpoint::pki::issue_agent(&dir, "agent/support").unwrap();
    holdpoint::pki::issue_person(&dir, "ana").unwrap();
    assert!(holdpoint::pki::init(&dir).unwrap_err().contains("already there"));
    assert!(holdpoint::pki::issue_agent(&dir, "other/support").is_err());
    assert!(holdpoint::pki::issue_agent(&dir, "../x").is_err());
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let mode = |name: &str| {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.join(name)).unwrap().permissions())
    };
    assert_eq!(mode("support-key.pem") & 0o777, 0o600);
    let pem = rustls::pki_types::pem::PemObject::from_pem_slice(&read("support.pem")).unwrap();
    let leaf: CertificateDer<'static> = pem;
    let sources = [
        ("example.org", Role::Agents, "example.org.pem"),
        ("people.example.org", Role::People, "people.pem"),
    ]
    .map(|(name, role, file)| DomainSource {
        name: name.to_owned(),
        role,
        bundle: read(file),
        crls: None,
    });
    let trust = Trust::build(&sources, &tls::provider()).unwrap();
    let verified = trust.verify(Role::Agents, &leaf, &[], rustls::pki_types::UnixTime::now()).unwrap();
    assert_eq!(verified.id.as_str(), "spiffe://example.org/agent/support");

    // The gateway's certificate, as an upstream's: by name, by its exact id, and not by another id.
    let key: PrivateKeyDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&read("gateway-key.pem")).unwrap();
    let chain = rustls::pki_types::pem::PemObject::from_pem_slice(&read("gateway.pem")).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let (own, people) = (read("example.org.pem"), read("people.pem"));
    let id = Some("spiffe://example.org/gateway");
    for (bundle, id, name, works) in [
        (&own, None, "localhost", true),
        (&own, None, "elsewhere", false),
        (&own, id, "elsewhere", true),
        (&own, Some("spiffe://example.org/other"), "localhost", false),
        (&people, id, "localhost", false),
    ] {
        let config = holdpoint::net::tls::client_config(Some(bundle), id, &[]).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(name).unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let (client, _server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        assert_eq!(client.is_ok(), works, "{id:?}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn a_call_goes_on_and_learns_that_its_client_left() {
    let gateway = gateway().await;
    let client = gateway.a.sign(&svid("spiffe://a.example/agent"));
    let mut stream = gateway.connect(Some(client), b"http/1.1").await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: l\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(gateway.calls(), Vec::<String>::new());
    drop(stream);
    for _ in 0..200 {
        if gateway.recorder.calls.lock().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(gateway.calls(), ["gone", "GET /wait by spiffe://a.example/agent"]);
    gateway.join().await;
}

/// How long a connection may be without a call in the stories below.
const IDLE: Duration = Duration::from_secs(1);

async fn idle_gateway() -> (Gateway, Client) {
    let gateway = gateway_within(Bounds { idle_seconds_max: IDLE.as_secs(), ..Bounds::default() }).await;
    let client = gateway.a.sign(&svid(AGENT));
    (gateway, client)
}

/// Waits until a call of `/until` is under way.
async fn under_way(gateway: &Gateway) {
    for _ in 0..500 {
        if gateway.recorder.waiting.load(Ordering::SeqCst) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the call never came");
}

#[tokio::test]
async fn a_connection_of_http1_without_a_call_is_closed_and_one_that_works_is_not() {
    let (gateway, client) = idle_gateway().await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: l\r\n\r\n");
    let client = || (client.0.clone(), client.1.clone_key());
    let mut works = gateway.connect(Some(client()), b"http/1.1").await.unwrap();
    works.write_all(request("/until").as_bytes()).await.unwrap();
    under_way(&gateway).await;

    // Opened later than the one that works, and closed all the same: once without any call, once after one.
    for called in [false, true] {
        let mut idle = gateway.connect(Some(client()), b"http/1.1").await.unwrap();
        if called {
            idle.write_all(request("/once").as_bytes()).await.unwrap();
        }
        let (since, mut answer) = (Instant::now(), Vec::new());
        let end = tokio::time::timeout(IDLE * 10, idle.read_to_end(&mut answer)).await;
        end.expect("it is closed").unwrap();
        assert!(since.elapsed() > IDLE * 9 / 10, "{:?}", since.elapsed());
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), called, "{}", String::from_utf8_lossy(&answer));
    }

    for path in ["/until", "/again"] {
        if path == "/until" {
            gateway.recorder.go.notify_one();
        } else {
            works.write_all(request(path).as_bytes()).await.unwrap();
        }
        let mut answer = [0; 12];
        works.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut last = [0; 2];
        while &last != b"ok" {
            last = [last[1], works.read_u8().await.unwrap()];
        }
    }
    drop(works);
    let calls = ["GET /once by", "GET /until by", "GET /again by"].map(|call| format!("{call} {AGENT}"));
    assert_eq!(gateway.calls(), calls);
    gateway.join().await;
}

#[tokio::test]
async fn a_connection_of_http2_without_a_call_is_closed_and_one_that_works_is_not() {
    let (gateway, client) = idle_gateway().await;
    let open = async || {
        let client = (client.0.clone(), client.1.clone_key());
        let stream = gateway.connect(Some(client), b"h2").await.unwrap();
        let (sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        (sender, tokio::spawn(driver))
    };
    let request = |path: &str| {
        let request = Request::get(format!("https://localhost{path}"));
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let (mut works, driver) = open().await;
    let until = tokio::spawn(works.send_request(request("/until")));
    under_way(&gateway).await;

    for called in [false, true] {
        let (mut idle, closed) = open().await;
        if called {
            let answer = idle.send_request(request("/once")).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        }
        let since = Instant::now();
        tokio::time::timeout(IDLE * 10, closed).await.expect("it is closed").unwrap().unwrap();
        assert!(since.elapsed() > IDLE * 9 / 10, "{:?}", since.elapsed());
        assert!(idle.is_closed());
    }

    assert!(!driver.is_finished());
    gateway.recorder.go.notify_one();
    assert_eq!(until.await.unwrap().unwrap().status(), 200);
    assert_eq!(works.send_request(request("/again")).await.unwrap().status(), 200);
    drop(works);
    let calls = ["GET /once by", "GET /until by", "GET /again by"].map(|call| format!("{call} {AGENT}"));
    assert_eq!(gateway.calls(), calls);
    gateway.join().await;
}
