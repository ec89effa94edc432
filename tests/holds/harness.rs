//! What the stories share: a gateway with agents of two teams, people of several kinds, and upstreams that remember what
//! they saw.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdpoint::app::{self, Running};
use holdpoint::call::RecordId;
use holdpoint::config::{self, ListenerKind};
use holdpoint::demo::agent::{Agent, Answer};
use holdpoint::demo::sample::Sample;
use holdpoint::pki;
use holdpoint::record::tail::{self, Format};
use holdpoint::record::verify::{Status, verify};
use serde_json::{Value, json};
use tokio::process::Command;

/// Longer than anything here takes, even on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

const OWNER: &str = "{business: ana@example.org, technical: sre@example.org, risk: risk@example.org}";

const PEOPLE: &str = "
- {id: spiffe://people.example.org/olga, email: olga@example.org, roles: [oncall], teams: [care]}
- {id: spiffe://people.example.org/oda, email: oda@example.org, roles: [oncall, approver], teams: [care]}
- {id: spiffe://people.example.org/sre, email: sre@example.org, roles: [oncall], teams: [care]}
- {id: spiffe://people.example.org/ana, email: Ana@example.org}
- {id: spiffe://people.example.org/pia, email: pia@example.org, roles: [oncall, approver], teams: [payments]}
- {id: spiffe://people.example.org/gus, email: gus@example.org, roles: [breakglass], teams: [care]}
- {id: spiffe://people.example.org/ada, email: risk@example.org, roles: [admin]}
- {id: spiffe://people.example.org/auditor, email: aud@example.org, roles: [auditor]}
";

const MCP: &str = "
tools:
  search_customers: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  read_inbox: {class: read, consequence: 1, returns: {confidentiality: internal, integrity: mixed}}
  read_vault: {class: read, consequence: 1, returns: {confidentiality: secret, integrity: trusted}}
  send_email: {class: external, consequence: 3, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  transfer: {class: write, consequence: 3, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  countdown: {class: write, consequence: 3, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  read_again: {class: write, consequence: 3, reversible: true, idempotent: true, returns: {confidentiality: public, integrity: trusted}}
  delete_customer:
    class: write
    consequence: 4
    reversible: true
    returns: {confidentiality: public, integrity: trusted}
";

const HTTP: &str = "
tools:
  \"GET /v1/invoices/{id}\": {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  \"POST /v1/invoices\": {class: write, consequence: 3, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  \"POST /echo\": {class: write, consequence: 3, reversible: true, returns: {confidentiality: public, integrity: trusted}}
  \"PUT /echo\":
    class: write
    consequence: 3
    reversible: true
    body: opaque
    content: [application/octet-stream]
    returns: {confidentiality: public, integrity: trusted}
";

pub struct World {
    pub dir: PathBuf,
    pub mail: Sample,
    pub crm: Sample,
    pub running: Option<Running>,
    holds: String,
    more: String,
}

impl World {
    /// A gateway whose calls are answered at once as pending.
    pub async fn start() -> World {
        World::with("wait: 0s").await
    }

    /// A gateway whose calls wait.
    pub async fn patient() -> World {
        World::with("wait: 280s").await
    }

    pub async fn with(holds: &str) -> World {
        World::having(holds, "").await
    }

    /// A gateway with more sections of configuration.
    pub async fn having(holds: &str, more: &str) -> World {
        let dir = std::env::temp_dir().join(format!("hp-holds-{}", RecordId::new()));
        std::fs::create_dir_all(&dir).unwrap();
        let pki = dir.join("pki");
        pki::init(&pki).unwrap();
        for agent in ["agent/support", "agent/other", "agent/payer"] {
            pki::issue_agent(&pki, agent).unwrap();
        }
        for person in ["olga", "oda", "sre", "ana", "pia", "gus", "ada", "auditor"] {
            pki::issue_person(&pki, person).unwrap();
        }
        std::fs::write(dir.join("agents.yaml"), agents("active")).unwrap();
        std::fs::write(dir.join("people.yaml"), PEOPLE).unwrap();
        std::fs::write(dir.join("mcp.yaml"), MCP).unwrap();
        std::fs::write(dir.join("http.yaml"), HTTP).unwrap();
        let policies = dir.join("policies");
        std::fs::create_dir(&policies).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        for file in std::fs::read_dir(shipped).unwrap().map(|file| file.unwrap().path()) {
            std::fs::copy(&file, policies.join(file.file_name().unwrap())).unwrap();
        }
        let mail = Sample::mcp().await.unwrap();
        let crm = Sample::http().await.unwrap();
        let mut world =
            World { dir, mail, crm, running: None, holds: holds.to_owned(), more: more.to_owned() };
        world.up().await;
        world
    }

    /// Starts the gateway in its directory.
    pub async fn up(&mut self) {
        let (mail, crm) = (self.mail.address(), self.crm.address());
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
  - {{name: mail, kind: mcp, url: \"http://{mail}/mcp\", catalog: mcp.yaml, list_every: never, may_ask: [elicitation]}}
  - {{name: crm, kind: http, url: \"http://{crm}\", catalog: http.yaml}}
policy: {{cedar: policies}}
holds: {{{}}}
store: {{sqlite: state/holdpoint.db}}
audit: {{dir: audit}}
keys: {{dir: keys}}
{}",
            self.holds, self.more
        );
        let file = self.dir.join("holdpoint.yaml");
        std::fs::write(&file, yaml).unwrap();
        let loaded = config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
        self.running = Some(app::start(loaded).await.unwrap());
    }

    /// Stops the gateway in an orderly way.
    pub async fn down(&mut self) {
        if let Some(running) = self.running.take() {
            running.drain().await;
        }
    }

    pub async fn restart(&mut self) {
        self.down().await;
        self.up().await;
    }

    /// Takes what changed in the files.
    pub async fn reload(&self) {
        self.running.as_ref().unwrap().reload().now().await.unwrap();
    }

    fn pem(&self, stem: &str) -> PathBuf {
        self.dir.join("pki").join(format!("{stem}.pem"))
    }

    fn address(&self, kind: ListenerKind) -> SocketAddr {
        self.running.as_ref().unwrap().address(kind).unwrap()
    }

    fn client(&self, stem: &str, kind: ListenerKind) -> Agent {
        self.client_at(stem, self.address(kind))
    }

    /// Somebody at a gateway that runs elsewhere.
    pub fn client_at(&self, stem: &str, gateway: SocketAddr) -> Agent {
        let key = self.pem(&format!("{stem}-key"));
        Agent::new(gateway, &self.pem(stem), &key, &self.pem("example.org")).unwrap()
    }

    /// Gives a command what it needs to speak to this gateway as a person.
    pub fn speaks_as<'c>(&self, command: &'c mut Command, person: &str) -> &'c mut Command {
        command
            .env("HOLDPOINT_ADDR", format!("https://localhost:{}", self.address(ListenerKind::Admin).port()))
            .env("HOLDPOINT_CERT", self.pem(person))
            .env("HOLDPOINT_KEY", self.pem(&format!("{person}-key")))
            .env("HOLDPOINT_CACERT", self.pem("example.org"))
    }

    pub fn agent(&self, stem: &str) -> Agent {
        self.client(stem, ListenerKind::Agents)
    }

    pub fn person(&self, stem: &str) -> Agent {
        self.client(stem, ListenerKind::Admin)
    }

    /// Somebody of this kind at a listener that is not theirs.
    pub fn stranger(&self, stem: &str) -> Agent {
        self.client(stem, ListenerKind::Admin)
    }

    /// The holds in a state that a person sees.
    pub async fn holds(&self, person: &str, state: &str) -> Vec<Value> {
        let path = format!("/v1/holds?state={state}");
        let answer = self.person(person).http("GET", &path, None).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["holds"].as_array().unwrap().clone()
    }

    /// Waits until so many holds are pending, and gives them.
    pub async fn pending(&self, count: usize) -> Vec<Value> {
        let end = tokio::time::Instant::now() + SOON;
        loop {
            let holds = self.holds("oda", "pending").await;
            if holds.len() == count {
                return holds;
            }
            assert!(tokio::time::Instant::now() < end, "{holds:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn hold(&self, id: &str) -> Value {
        let answer = self.person("oda").http("GET", &format!("/v1/holds/{id}"), None).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// What a person says of a hold, having seen it.
    pub async fn says(&self, person: &str, verb: &str, hold: &Value) -> Answer {
        self.says_of(person, verb, &hold["id"], &hold["digest"]).await
    }

    pub async fn says_of(&self, person: &str, verb: &str, id: &Value, digest: &Value) -> Answer {
        let path = format!("/v1/holds/{}/{verb}", id.as_str().unwrap());
        let body = json!({"digest": digest, "reason": "it was looked at"});
        self.person(person).http("POST", &path, Some(body)).await.unwrap()
    }

    pub async fn approved(&self, person: &str, hold: &Value) {
        let answer = self.says(person, "approve", hold).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Every record so far.
    pub fn records(&self) -> Vec<Value> {
        let mut out = Vec::new();
        tail::last(&self.dir.join("audit"), 100_000, Format::Json, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The records about a hold that are no call's own, by type and what they tell.
    pub fn story(&self, id: &Value) -> Vec<String> {
        let records = self.records();
        let of = records.iter().filter(|record| record["hold"] == *id && record["what"].is_string());
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        of.map(|record| {
            format!("{} {} {}", word(&record["type"]), word(&record["what"]), word(&record["state"]))
        })
        .collect()
    }

    /// How often an upstream was really called.
    pub fn ran(&self) -> usize {
        let calls = |sample: &Sample| {
            let seen = sample.seen();
            seen.iter().filter(|seen| !seen.body.is_empty()).count()
        };
        calls(&self.mail) + calls(&self.crm)
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

/// The registry, with this state of the agent `support`.
pub fn agents(state: &str) -> String {
    let entry = |name: &str, team: &str, state: &str| {
        format!(
            "- {{id: \"spiffe://example.org/agent/{name}\", owner: {OWNER}, team: {team}, autonomy: constrained, \
             state: {state}, risk: 1, groups: [{team}]}}\n"
        )
    };
    [entry("support", "care", state), entry("other", "care", "active"), entry("payer", "payments", "active")]
        .concat()
}

/// The message of an answer, also when it came on a stream of events.
pub fn message(answer: &Answer) -> Value {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if !text.contains("data: ") {
        return answer.json();
    }
    let messages = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let messages: Vec<Value> = messages.map(|data| serde_json::from_str(data).unwrap()).collect();
    messages.into_iter().rev().find(|message| message.get("id").is_some()).unwrap_or_default()
}

/// The outcome that a message tells, or `allowed`.
pub fn outcome(message: &Value) -> String {
    let decision = &message["result"]["_meta"]["dev.holdpoint/decision"];
    decision["outcome"].as_str().unwrap_or("allowed").to_owned()
}

/// A call in a task of its own.
pub fn calls(agent: &Arc<Agent>, tool: &'static str, arguments: Value) -> tokio::task::JoinHandle<Value> {
    let agent = Arc::clone(agent);
    tokio::spawn(async move { message(&agent.tool("mail", tool, arguments).await.unwrap()) })
}

/// The ids and headers of a modern request.
pub fn modern(params: &Value, capabilities: &Value) -> Value {
    let mut params = params.clone();
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    params
}

/// A modern `tools/call`.
pub async fn modern_call(agent: &Agent, params: Value) -> Answer {
    let name = params["name"].as_str().unwrap().to_owned();
    modern_request(agent, "tools/call", &name, params, json!({})).await
}

/// A modern request of a client with these capabilities, about what has this name.
pub async fn modern_request(
    agent: &Agent,
    method: &str,
    name: &str,
    params: Value,
    capabilities: Value,
) -> Answer {
    let params = modern(&params, &capabilities);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method), ("mcp-name", name)];
    agent.message("mail", body.to_string(), &headers).await.unwrap()
}
