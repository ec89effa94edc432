//! What the stories share: a gateway with an admin listener, agents of two teams, and people of several kinds.

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
use http::Request;
use http_body_util::Full;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Longer than anything here takes, even on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

const AGENTS: &str = "
- id: spiffe://example.org/agent/support
  owner: {business: ana@example.org, technical: sre@example.org, risk: risk@example.org}
  team: care
  purpose: answers tickets
  autonomy: constrained
  risk: 1
  review_due: 2099-01-01
- id: spiffe://example.org/agent/payer
  owner: {business: pia@example.org, technical: sre@example.org, risk: risk@example.org}
  team: payments
  autonomy: constrained
  risk: 1
- id: spiffe://example.org/agent/stopped
  owner: {business: ana@example.org, technical: sre@example.org, risk: risk@example.org}
  team: care
  state: suspended
- id: spiffe://example.org/batch/*
  owner: {business: ana@example.org, technical: sre@example.org, risk: risk@example.org}
  team: care
  autonomy: constrained
  risk: 1
";

const PEOPLE: &str = "
- {id: spiffe://people.example.org/oncall, email: olga@example.org, roles: [oncall], teams: [care]}
- {id: spiffe://people.example.org/ana, email: Ana@example.org, roles: [admin]}
- {id: spiffe://people.example.org/pia, email: pia@example.org, roles: [approver], teams: [payments]}
- {id: spiffe://people.example.org/auditor, email: aud@example.org, roles: [auditor]}
- {id: spiffe://people.example.org/admin, email: root@example.org, roles: [admin]}
";

const CATALOG: &str = "
tools:
  search_customers: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  read_inbox: {class: read, consequence: 1, returns: {confidentiality: internal, integrity: mixed}}
  send_email:
    class: external
    consequence: 1
    sink: {kind: message, destinations: [/to], payload: [/body]}
    returns: {confidentiality: public, integrity: trusted}
  transfer: {class: write, consequence: 3, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  delete_customer:
    class: write
    consequence: 4
    effects: [delete]
    returns: {confidentiality: public, integrity: trusted}
";

/// A gateway, its people and its agents.
pub struct World {
    pub dir: PathBuf,
    pub mail: Sample,
    pub running: Option<Running>,
    /// More of the upstream's entry.
    upstream: String,
    /// More sections.
    pub more: String,
}

impl World {
    pub async fn start() -> World {
        let mut world = World::prepared().await;
        world.up().await;
        world
    }

    /// Everything but the gateway itself.
    pub async fn prepared() -> World {
        let dir = std::env::temp_dir().join(format!("hp-admin-{}", RecordId::new()));
        std::fs::create_dir_all(&dir).unwrap();
        let pki = dir.join("pki");
        pki::init(&pki).unwrap();
        for agent in ["agent/support", "agent/payer", "agent/stopped", "batch/one"] {
            pki::issue_agent(&pki, agent).unwrap();
        }
        for person in ["oncall", "ana", "pia", "auditor", "admin", "nobody"] {
            pki::issue_person(&pki, person).unwrap();
        }
        std::fs::write(dir.join("agents.yaml"), AGENTS).unwrap();
        std::fs::write(dir.join("people.yaml"), PEOPLE).unwrap();
        std::fs::write(dir.join("mail.yaml"), CATALOG).unwrap();
        let mail = Sample::mcp().await.unwrap();
        World { dir, mail, running: None, upstream: String::new(), more: String::new() }
    }

    /// Starts the gateway in its directory.
    pub async fn up(&mut self) {
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let yaml = format!(
            "organization: {{name: example, internal: [\"*@example.org\"]}}
trust:
  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}
  domains:
    example.org: {{bundle: pki/example.org.pem, roles: [agents]}}
    people.example.org: {{bundle: pki/people.pem, roles: [people]}}
listeners:
  - {{name: agents, kind: agents, address: \"127.0.0.1:0\"}}
  - {{name: admin, kind: admin, address: \"127.0.0.1:0\", socket: admin.sock}}
agents: agents.yaml
people: people.yaml
upstreams:
  - {{name: mail, kind: mcp, url: \"http://{}/mcp\", catalog: mail.yaml{}}}
policy: {{cedar: \"{}\"}}
holds: {{wait: 0s}}
store: {{sqlite: state/holdpoint.db}}
audit: {{dir: audit}}
keys: {{dir: keys}}
{}",
            self.mail.address(),
            self.upstream,
            policies.display(),
            self.more,
        );
        let file = self.dir.join("holdpoint.yaml");
        std::fs::write(&file, yaml).unwrap();
        let loaded = config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
        self.running = Some(app::start(loaded).await.unwrap());
    }

    /// From its next start on, the upstream is in shadow.
    pub fn shadowed(&mut self) {
        let until = time::OffsetDateTime::now_utc().date() + time::Duration::days(7);
        self.upstream = format!(", enforcement: {{mode: shadow, until: {until}}}");
    }

    /// Stops the gateway in an orderly way.
    pub async fn down(&mut self) {
        if let Some(running) = self.running.take() {
            running.drain().await;
        }
    }

    pub fn address(&self, kind: ListenerKind) -> SocketAddr {
        self.running.as_ref().unwrap().address(kind).unwrap()
    }

    pub fn pem(&self, stem: &str) -> PathBuf {
        self.dir.join("pki").join(format!("{stem}.pem"))
    }

    fn client(&self, stem: &str, kind: ListenerKind) -> Agent {
        let key = self.pem(&format!("{stem}-key"));
        Agent::new(self.address(kind), &self.pem(stem), &key, &self.pem("example.org")).unwrap()
    }

    /// An agent, by the last word of its path.
    pub fn agent(&self, stem: &str) -> Agent {
        self.client(stem, ListenerKind::Agents)
    }

    /// A person.
    pub fn person(&self, name: &str) -> Person {
        Person(self.client(name, ListenerKind::Admin))
    }

    /// Whoever has this certificate, at a listener of this kind.
    pub fn at(&self, stem: &str, kind: ListenerKind) -> Person {
        Person(self.client(stem, kind))
    }

    /// A TLS connection on which any bytes can be sent.
    pub async fn raw(&self, stem: &str, kind: ListenerKind) -> Raw {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.pem("example.org")).unwrap()).unwrap();
        let chain = CertificateDer::pem_file_iter(self.pem(stem)).unwrap().collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_file(self.pem(&format!("{stem}-key"))).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(holdpoint::accept::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.unwrap(), key)
            .unwrap();
        let stream = TcpStream::connect(self.address(kind)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        Raw { stream, read: Vec::new() }
    }

    /// Every record so far.
    pub fn records(&self) -> Vec<Value> {
        let mut out = Vec::new();
        tail::last(&self.dir.join("audit"), 100_000, Format::Json, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The records of what people did or tried.
    pub fn orders(&self) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["type"] == "admin").collect()
    }

    /// Waits for the record of what somebody tried and may not: nobody waits for it when they are told so.
    pub async fn tried(&self, is: impl Fn(&Value) -> bool) -> Value {
        let end = tokio::time::Instant::now() + SOON;
        loop {
            if let Some(record) = self.orders().into_iter().find(&is) {
                return record;
            }
            assert!(tokio::time::Instant::now() < end, "no such record: {:#?}", self.orders());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the record of a connection that a listener refused: nobody waits for it when the connection ends.
    pub async fn refusal_at(&self, listener: &str) -> Value {
        let end = tokio::time::Instant::now() + SOON;
        loop {
            if let Some(record) = self.records().into_iter().find(|record| record["listener"] == listener) {
                return record;
            }
            assert!(tokio::time::Instant::now() < end, "no refusal at {listener}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn nothing_upstream(&self) {
        assert!(self.mail.seen().is_empty(), "{:?}", self.mail.seen());
    }

    /// A call of an agent that nothing forbids; once more over a new connection when the one it had was cut.
    pub async fn calls(&self, agent: &Agent) -> Answer {
        let call = || agent.tool("mail", "search_customers", json!({"query": "x"}));
        match call().await {
            Ok(answer) => answer,
            Err(_) => call().await.unwrap(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Somebody with a certificate, at the admin listener.
pub struct Person(Agent);

impl Person {
    pub async fn get(&self, path: &str) -> Answer {
        self.0.http("GET", path, None).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.0.http("POST", path, Some(body)).await.unwrap()
    }

    pub async fn sends(&self, request: Request<Full<Bytes>>) -> Answer {
        self.0.send(request).await.unwrap()
    }

    /// Whether this listener lets the certificate in at all.
    pub async fn is_shut_out(&self, path: &str) -> bool {
        self.0.http("GET", path, None).await.is_err()
    }

    /// Submits a form of the console.
    pub async fn submits(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let mut request = Request::post(path)
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sends(request.body(Full::new(Bytes::from(body.join("&")))).unwrap()).await
    }
}

pub fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The path of an agent's resource.
pub fn of(agent: &str, verb: &str) -> String {
    format!("/v1/agents/agent%2F{agent}{verb}")
}

/// A connection that writes its own HTTP.
pub struct Raw {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Raw {
    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends to an other side that may have gone.
    pub async fn try_send(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes()).await;
        let _ = self.stream.flush().await;
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

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}
