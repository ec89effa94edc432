//! A whole gateway in a directory of its own, before servers whose definitions matter.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdpoint::app::{self, Running};
use holdpoint::call::RecordId;
use holdpoint::config::{self, ListenerKind};
use holdpoint::definitions::canonical;
use holdpoint::demo::agent::{Agent, Answer};
use holdpoint::pki;
use holdpoint::record::tail::{self, Format};
use holdpoint::record::verify::{Status, verify};
use serde_json::Value;

const AGENTS: &str = "- {id: \"spiffe://example.org/agent/support\", owner: {business: ana@example.org, technical: \
                      sre@example.org, risk: risk@example.org}, autonomy: constrained, state: active, risk: 1}\n";

pub struct World {
    pub dir: PathBuf,
    running: Option<Running>,
}

/// The digest of a tool as it would be pinned.
pub fn pin(tool: &Value) -> String {
    canonical::read(tool.to_string().as_bytes()).unwrap().digest.to_string()
}

/// An entry of a read that brings nothing, with more in it.
pub fn read(name: &str, more: &str) -> String {
    format!(
        "  {name}: {{class: read, consequence: 0, returns: {{confidentiality: public, integrity: trusted}}{more}}}\n"
    )
}

impl World {
    /// A directory with a configuration of these upstreams (lines of YAML) and these catalogues; nothing runs yet.
    pub fn with(upstreams: &str, catalogs: &[(&str, String)]) -> World {
        let dir = std::env::temp_dir().join(format!("holdpoint-catalog-{}", RecordId::new()));
        std::fs::create_dir_all(&dir).unwrap();
        pki::init(&dir.join("pki")).unwrap();
        pki::issue_agent(&dir.join("pki"), "agent/support").unwrap();
        std::fs::write(dir.join("agents.yaml"), AGENTS).unwrap();
        for (name, text) in catalogs {
            std::fs::write(dir.join(name), format!("tools:\n{text}")).unwrap();
        }
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let yaml = format!(
            "organization: {{name: example, internal: [\"*@example.org\"]}}
trust:
  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}
  domains: {{example.org: {{bundle: pki/example.org.pem, roles: [agents]}}}}
listeners:
  - {{name: agents, kind: agents, address: \"127.0.0.1:0\"}}
  - {{name: health, kind: health, address: \"127.0.0.1:0\"}}
agents: agents.yaml
upstreams:
{upstreams}
policy: {{cedar: \"{}\"}}
audit: {{dir: audit}}
keys: {{dir: keys}}
",
            policies.display()
        );
        std::fs::write(dir.join("holdpoint.yaml"), yaml).unwrap();
        World { dir, running: None }
    }

    pub async fn up(&mut self) {
        let loaded = match config::load(&self.dir.join("holdpoint.yaml")) {
            Ok(loaded) => loaded,
            Err(mistakes) => panic!("{mistakes:#?}"),
        };
        self.running = Some(app::start(loaded).await.unwrap());
    }

    /// Starts, and waits until these upstreams are listed.
    pub async fn listed(mut self, upstreams: &[&str]) -> World {
        self.up().await;
        for upstream in upstreams {
            self.until(|world| {
                world.running().gateway().in_force.load().definitions.served(upstream).is_some()
            })
            .await;
        }
        self
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Waits for what must become true.
    pub async fn until(&self, happened: impl Fn(&World) -> bool) {
        for _ in 0..1500 {
            if happened(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it never came: {:#?}", self.records());
    }

    pub fn agent(&self) -> Agent {
        let pem = |stem: &str| self.dir.join("pki").join(format!("{stem}.pem"));
        let gateway = self.running().address(ListenerKind::Agents).unwrap();
        Agent::new(gateway, &pem("support"), &pem("support-key"), &pem("example.org")).unwrap()
    }

    pub fn records(&self) -> Vec<Value> {
        let mut out = Vec::new();
        match tail::last(&self.dir.join("audit"), 100_000, Format::Json, &mut out) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            read => drop(read.unwrap()),
        }
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The record of an answer, of this type.
    pub fn record(&self, answer: &Answer, kind: &str) -> Value {
        let id = answer.record();
        let records = self.records();
        let found = records.iter().find(|record| {
            record["type"] == kind && (record["id"] == id.as_str() || record["intent"] == id.as_str())
        });
        found.unwrap_or_else(|| panic!("no {kind} of {id} in {records:#?}")).clone()
    }

    /// The reasons of the findings about one tool.
    pub fn findings(&self, tool: &str) -> Vec<String> {
        let records = self.records();
        let about = records.iter().filter(|record| record["type"] == "finding" && record["tool"] == tool);
        about.map(|record| record["reason"].as_str().unwrap().to_owned()).collect()
    }

    /// Runs a command of the program: its exit code and what it wrote.
    pub fn holdpoint(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_holdpoint"))
            .args(arguments)
            .arg("--config")
            .arg(self.dir.join("holdpoint.yaml"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    /// Stops: the audit must be whole, with an outcome for every intent.
    pub async fn join(mut self) {
        self.running.take().unwrap().drain().await;
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
