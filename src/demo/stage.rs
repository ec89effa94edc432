//! The demo's stage: a directory with a CA and a configuration, two upstreams, a collector and the gateway.

use std::path::{Path, PathBuf};

use super::agent::Agent;
use super::door::Door;
use super::sample::Sample;
use crate::config::{self, ListenerKind};
use crate::telemetry::sink::Sink;
use crate::{app, decide, pki};

/// Who looks after the demo's agents.
const PERSON: &str = "olga";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Everything that the demo runs on; the directory goes when it ends.
pub struct Scene {
    /// The working directory.
    pub dir: PathBuf,
    /// The gateway.
    pub gateway: app::Running,
    /// The MCP server.
    pub mail: Sample,
    /// The HTTP API.
    pub billing: Sample,
    /// The collector.
    pub sink: Sink,
}

impl Scene {
    /// Sets everything up, on free ports.
    pub async fn set() -> Result<Scene, Failure> {
        let dir = std::env::temp_dir().join(format!("holdpoint-demo-{}", uuid::Uuid::now_v7()));
        let (mail, billing, sink) = (Sample::mcp().await?, Sample::http().await?, Sink::start().await?);
        pki::init(&dir.join("pki"))?;
        pki::issue_agent(&dir.join("pki"), "agent/assistant")?;
        pki::issue_agent(&dir.join("pki"), "agent/reporter")?;
        pki::issue_person(&dir.join("pki"), PERSON)?;
        std::fs::create_dir(dir.join("policies"))?;
        for (name, text) in decide::cedar::SHIPPED {
            std::fs::write(dir.join("policies").join(name), text)?;
        }
        std::fs::write(dir.join("agents.yaml"), include_str!("files/agents.yaml"))?;
        std::fs::write(dir.join("people.yaml"), include_str!("files/people.yaml"))?;
        std::fs::write(dir.join("mail.yaml"), include_str!("files/mail.yaml"))?;
        std::fs::write(dir.join("billing.yaml"), include_str!("files/billing.yaml"))?;
        let config = dir.join("holdpoint.yaml");
        std::fs::write(&config, configuration(&mail, &billing, &sink))?;
        let loaded = config::load(&config)
            .map_err(|mistakes| mistakes.iter().map(|mistake| format!("{mistake}\n")).collect::<String>())?;
        let gateway = app::start(loaded).await?;
        Ok(Scene { dir, gateway, mail, billing, sink })
    }

    /// An agent of the registry, with its certificate.
    pub fn agent(&self, name: &str) -> Result<Agent, Failure> {
        let address =
            self.gateway.address(ListenerKind::Agents).ok_or("the gateway has no agents' listener")?;
        let pki = self.dir.join("pki");
        let file = |end: &str| pki.join(format!("{name}{end}"));
        Agent::new(address, &file(".pem"), &file("-key.pem"), &pki.join("example.org.pem"))
    }

    /// The demo's person, on the admin listener.
    pub fn person(&self) -> Result<Agent, Failure> {
        let address = self.gateway.address(ListenerKind::Admin).ok_or("the gateway has no admin listener")?;
        let pki = self.dir.join("pki");
        let (cert, key) = (pki.join(format!("{PERSON}.pem")), pki.join(format!("{PERSON}-key.pem")));
        Agent::new(address, &cert, &key, &pki.join("example.org.pem"))
    }

    /// A way to the console for a browser, as the demo's person.
    pub async fn door(&self) -> Result<Door, Failure> {
        Door::open(self.person()?).await
    }

    /// Where the audit is.
    pub fn audit(&self) -> PathBuf {
        self.dir.join("state/audit")
    }

    /// Ends everything and removes the directory.
    pub async fn strike(self) {
        self.gateway.drain().await;
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    // What is left in the temporary directory does no harm.
    let _ = std::fs::remove_dir_all(dir);
}

fn configuration(mail: &Sample, billing: &Sample, sink: &Sink) -> String {
    format!(
        r#"organization: {{name: example, internal: ["*@example.org", "*.example.org"]}}
trust:
  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}
  domains:
    example.org: {{bundle: pki/example.org.pem, roles: [agents]}}
    people.example.org: {{bundle: pki/people.pem, roles: [people]}}
listeners:
  - {{name: agents, kind: agents, address: "127.0.0.1:0"}}
  - {{name: admin, kind: admin, address: "127.0.0.1:0", socket: admin.sock}}
  - {{name: health, kind: health, address: "127.0.0.1:0"}}
agents: agents.yaml
people: people.yaml
store: {{sqlite: state/holdpoint.db}}
upstreams:
  - {{name: mail, kind: mcp, url: "http://{}/mcp", catalog: mail.yaml, boundary: inside, environment: production}}
  - {{name: billing, kind: http, url: "http://{}", catalog: billing.yaml, boundary: inside, environment: production}}
policy: {{cedar: policies/}}
limits:
  - {{per: agent, rate: 50/s, burst: 100}}
  - {{per: [agent, tool], class: read, rate: 3/1m}}
flow: {{window: 30m}}
holds: {{wait: 0s}}
audit: {{dir: state/audit}}
keys: {{dir: state/keys}}
telemetry: {{otlp: {{endpoint: "{}"}}}}
"#,
        mail.address(),
        billing.address(),
        sink.endpoint(),
    )
}
