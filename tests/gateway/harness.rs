//! What the stories share: a whole gateway in a directory of its own, its agents, and its audit read back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdpoint::app::{self, Running};
use holdpoint::call::RecordId;
use holdpoint::config::{self, ListenerKind};
use holdpoint::demo::agent::{Agent, Answer};
use holdpoint::demo::sample::Sample;
use holdpoint::pki;
use holdpoint::record::tail::{self, Format};
use holdpoint::record::verify::{Status, verify};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::fake::Fake;

/// Longer than anything here takes, even on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

const AGENTS: [&str; 8] =
    ["support", "other", "reader", "ownerless", "suspended", "retired", "overdue", "stranger"];

const OWNER: &str = "{business: ana@example.org, technical: sre@example.org, risk: risk@example.org}";

const MCP_CATALOG: &str = "
tools:
  search_customers: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  read_inbox: {class: read, consequence: 1, returns: {confidentiality: internal, integrity: mixed}}
  countdown: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  note: {class: write, consequence: 1, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  send_email:
    class: external
    consequence: 1
    sink: {kind: message, destinations: [/to], payload: [/body]}
    returns: {confidentiality: public, integrity: trusted}
  delete_customer:
    class: write
    consequence: 4
    effects: [delete]
    returns: {confidentiality: public, integrity: trusted}
  \"resources/read note://*\": {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  resources/read: {class: read, consequence: 1}
  acme/reindex: {class: write, consequence: 1, returns: {confidentiality: public, integrity: trusted}}
  sampling/createMessage: {class: write, consequence: 1, returns: {confidentiality: public, integrity: trusted}}
";

const HTTP_CATALOG: &str = "
tools:
  \"GET /v1/invoices/{id}\": {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  \"GET /v1/{rest}\": {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  \"POST /v1/invoices\": {class: write, consequence: 1, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  \"POST /v1/payments\":
    class: external
    consequence: 3
    effects: [spend]
    sink: {kind: payment, destinations: [/body/account], payload: [/body/reason]}
  \"POST /echo\": {class: write, consequence: 1, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  \"PUT /echo\":
    class: write
    consequence: 1
    reversible: true
    body: opaque
    content: [application/octet-stream]
    returns: {confidentiality: public, integrity: trusted}
";

/// A gateway with samples behind it, and fakes that misbehave.
pub struct World {
    pub dir: PathBuf,
    pub mail: Sample,
    pub crm: Sample,
    pub odd: Fake,
    pub running: Option<Running>,
    extra: String,
    odd_settings: String,
    /// More settings of the samples' upstreams.
    pub samples: String,
    /// The name by which the gateway may be addressed; empty for any.
    pub hosts: String,
    /// More keys of the audit's section, each with a comma before it.
    pub audit: String,
}

impl World {
    /// The usual gateway.
    pub async fn start() -> World {
        World::with("").await
    }

    /// A gateway with more sections in its configuration.
    pub async fn with(extra: &str) -> World {
        World::odd(Fake::polite().await, "", extra).await
    }

    /// A gateway whose upstreams `odd` (HTTP) and `oddmcp` are this fake.
    pub async fn odd(odd: Fake, odd_settings: &str, extra: &str) -> World {
        let dir = std::env::temp_dir().join(format!("holdpoint-gateway-{}", RecordId::new()));
        World::odd_in(dir, odd, odd_settings, extra).await
    }

    pub async fn odd_in(dir: PathBuf, odd: Fake, odd_settings: &str, extra: &str) -> World {
        std::fs::create_dir_all(&dir).unwrap();
        pki::init(&dir.join("pki")).unwrap();
        for name in AGENTS {
            pki::issue_agent(&dir.join("pki"), &format!("agent/{name}")).unwrap();
        }
        std::fs::write(dir.join("agents.yaml"), agents()).unwrap();
        std::fs::write(dir.join("mcp.yaml"), MCP_CATALOG).unwrap();
        std::fs::write(dir.join("http.yaml"), HTTP_CATALOG).unwrap();
        let mut world = World {
            dir,
            mail: Sample::mcp().await.unwrap(),
            crm: Sample::http().await.unwrap(),
            odd,
            running: None,
            extra: extra.to_owned(),
            odd_settings: odd_settings.to_owned(),
            samples: String::new(),
            hosts: String::new(),
            audit: String::new(),
        };
        world.up().await;
        world
    }

    /// Starts the gateway in its directory.
    pub async fn up(&mut self) {
        let file = self.dir.join("holdpoint.yaml");
        std::fs::write(&file, self.yaml()).unwrap();
        let loaded = match config::load(&file) {
            Ok(loaded) => loaded,
            Err(mistakes) => panic!("{mistakes:#?}"),
        };
        self.running = Some(app::start(loaded).await.unwrap());
    }

    fn yaml(&self) -> String {
        let (mail, crm, odd) = (self.mail.address(), self.crm.address(), self.odd.address());
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let World { extra, odd_settings, samples, hosts, audit, .. } = self;
        // What the fake sees is what agents sent; a strict upstream must be listed.
        let unlisted = if odd_settings.contains("strict") { "" } else { ", list_every: never" };
        // These settings are for MCP alone.
        let odd_http = [", may_ask", ", methods", ", sse"]
            .iter()
            .fold(odd_settings.as_str(), |rest, word| rest.split(word).next().unwrap_or_default());
        format!(
            "organization: {{name: example, internal: [\"*@example.org\"]}}
trust:
  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}
  domains: {{example.org: {{bundle: pki/example.org.pem, roles: [agents]}}}}
listeners:
  - {{name: agents, kind: agents, address: \"127.0.0.1:0\", hosts: [{hosts}]}}
  - {{name: health, kind: health, address: \"127.0.0.1:0\"}}
agents: agents.yaml
upstreams:
  - {{name: mail, kind: mcp, url: \"http://{mail}/mcp\", catalog: mcp.yaml, list_every: never{samples}}}
  - {{name: strict, kind: mcp, url: \"http://{mail}/mcp\", catalog: mcp.yaml, strict: true{samples}}}
  - {{name: crm, kind: http, url: \"http://{crm}\", catalog: http.yaml{samples}}}
  - {{name: odd, kind: http, url: \"http://{odd}\", catalog: http.yaml{odd_http}}}
  - {{name: oddmcp, kind: mcp, url: \"http://{odd}/mcp\", catalog: mcp.yaml{unlisted}{odd_settings}}}
policy: {{cedar: \"{}\"}}
audit: {{dir: audit{audit}}}
keys: {{dir: keys}}
{extra}
",
            policies.display()
        )
    }

    pub fn address(&self, kind: ListenerKind) -> SocketAddr {
        self.running.as_ref().unwrap().address(kind).unwrap()
    }

    fn pem(&self, stem: &str) -> PathBuf {
        self.dir.join("pki").join(format!("{stem}.pem"))
    }

    /// An agent of that name.
    pub fn agent(&self, name: &str) -> Agent {
        let key = self.pem(&format!("{name}-key"));
        let gateway = self.address(ListenerKind::Agents);
        Agent::new(gateway, &self.pem(name), &key, &self.pem("example.org")).unwrap()
    }

    /// A connection on which any bytes can be sent as an agent of that name.
    pub async fn raw(&self, name: &str) -> Raw {
        Raw::over(self.connect(name, b"http/1.1").await)
    }

    /// An HTTP/2 connection of an agent of that name.
    pub async fn h2(&self, name: &str) -> http2::SendRequest<Full<Bytes>> {
        let stream = self.connect(name, b"h2").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn connect(&self, name: &str, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.knock(name, alpn).await.unwrap()
    }

    /// Tries to connect; an error when there is no place.
    pub async fn knock(&self, name: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.pem("example.org")).unwrap()).unwrap();
        let chain =
            CertificateDer::pem_file_iter(self.pem(name)).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(self.pem(&format!("{name}-key"))).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address(ListenerKind::Agents)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let server = ServerName::try_from("localhost").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
        tls.connect(server, stream).await
    }

    /// A page of the health listener.
    pub async fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address(ListenerKind::Health)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Every record so far.
    pub fn records(&self) -> Vec<Value> {
        let mut out = Vec::new();
        match tail::last(&self.dir.join("audit"), 100_000, Format::Json, &mut out) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            read => drop(read.unwrap()),
        }
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The record of that id and type.
    pub fn record(&self, id: &str, kind: &str) -> Value {
        let found = |record: &Value| record["type"] == kind && record["id"] == id;
        let records = self.records();
        let record = records.iter().find(|record| found(record));
        record.unwrap_or_else(|| panic!("no {kind} {id} in {records:#?}")).clone()
    }

    /// How the call of this answer ended; the outcome is there before the reply's end.
    pub fn outcome(&self, answer: &Answer) -> Value {
        self.outcome_of(&answer.record())
    }

    pub fn outcome_of(&self, intent: &str) -> Value {
        let records = self.records();
        let found = records.iter().find(|record| record["type"] == "outcome" && record["intent"] == intent);
        found.unwrap_or_else(|| panic!("no outcome of {intent} in {records:#?}")).clone()
    }

    /// Waits for the next outcome of any call, and gives its status.
    pub async fn eventually(&self, status: &str) -> Value {
        let end = tokio::time::Instant::now() + SOON;
        loop {
            let records = self.records();
            let ended = |record: &&Value| record["type"] == "outcome" && record["status"] == status;
            if let Some(record) = records.iter().rev().find(ended) {
                return record.clone();
            }
            assert!(tokio::time::Instant::now() < end, "no outcome `{status}` in {records:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The refusal is on record with its reason, and no upstream saw anything.
    pub fn refused(&self, answer: &Answer, reason: &str) {
        let record = self.record(&answer.record(), "refused");
        assert_eq!(record["reason"], reason, "{record:#}");
        self.nothing_upstream();
    }

    pub fn nothing_upstream(&self) {
        assert!(self.mail.seen().is_empty(), "{:?}", self.mail.seen());
        assert!(self.crm.seen().is_empty(), "{:?}", self.crm.seen());
        assert!(self.odd.seen().is_empty(), "{:?}", self.odd.seen());
    }

    /// Stops the gateway in an orderly way.
    pub async fn down(&mut self) {
        if let Some(running) = self.running.take() {
            running.drain().await;
        }
    }

    /// Stops everything: the audit must be whole, with an outcome for every intent.
    pub async fn join(mut self) {
        self.down().await;
        let report = verify(&self.dir.join("audit")).unwrap();
        assert_eq!(report.status, Status::Ok, "{report:#?}");
        assert_eq!(report.open_intents, 0, "{report:#?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn agents() -> String {
    let entry = |name: &str, more: &str| format!("- {{id: \"spiffe://example.org/agent/{name}\", {more}}}\n");
    let able = format!("owner: {OWNER}, autonomy: constrained, state: active, risk: 1");
    [
        entry("support", &format!("{able}, groups: [tier-1]")),
        entry("other", &able),
        entry("reader", &format!("owner: {OWNER}, autonomy: read-only, state: active, risk: 1")),
        entry("ownerless", "autonomy: constrained, state: active, risk: 1"),
        entry("suspended", &format!("owner: {OWNER}, autonomy: constrained, state: suspended")),
        entry("retired", &format!("owner: {OWNER}, autonomy: constrained, state: retired")),
        entry("overdue", &format!("{able}, review_due: 2020-01-01")),
    ]
    .concat()
}

/// A connection as an agent that writes its own HTTP.
pub struct Raw {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Raw {
    pub fn over(stream: TlsStream<TcpStream>) -> Raw {
        Raw { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// An MCP message with its framing.
    pub async fn message(&mut self, upstream: &str, message: &Value) {
        let body = message.to_string();
        let head = format!(
            "POST /{upstream}/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(head).await;
    }

    /// Reads until the text so far contains this; false when the other side ended before.
    pub async fn until(&mut self, text: &str) -> bool {
        let reading = async {
            loop {
                if String::from_utf8_lossy(&self.read).contains(text) {
                    return true;
                }
                let mut buffer = [0; 4096];
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return false,
                    Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                }
            }
        };
        tokio::time::timeout(SOON, reading).await.unwrap_or_else(|_| panic!("never came: {text:?}"))
    }

    /// What came so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    pub fn header(&self, name: &str) -> String {
        let text = self.text();
        let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }

    /// One request on this connection whose answer has a length; the status and the reply's text.
    pub async fn ask(&mut self, request: &str) -> (u16, String) {
        self.read.clear();
        self.send(request).await;
        if !self.until("\r\n\r\n").await {
            return (self.status(), self.text());
        }
        let length: usize = self.header("content-length").parse().unwrap_or(0);
        let head = self.text().find("\r\n\r\n").unwrap() + 4;
        while self.read.len() < head + length {
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                break;
            }
            self.read.extend_from_slice(&buffer[..count]);
        }
        (self.status(), self.text())
    }

    fn status(&self) -> u16 {
        self.text().split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

/// A legacy `tools/call`.
pub fn call(id: u64, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}
