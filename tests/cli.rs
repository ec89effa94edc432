//! The program from outside, as operators and scripts meet it: what each command says, and the code it ends with.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "these are tests")]

#[path = "gateway/fake.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod fake;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fake::{Does, Fake, json};
use holdpoint::call::RecordId;
use holdpoint::demo::agent::{Agent, Answer};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

/// Longer than anything here takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// What a command said, and its code.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Ended with this code, and everything that went wrong is on standard error.
    fn ends(self, code: i32) -> Said {
        assert_eq!(self.code, code, "{self:?}");
        assert!(code != 0 || self.err.is_empty(), "{self:?}");
        assert!(code < 2 || !self.err.is_empty() || !self.out.is_empty(), "{self:?}");
        self
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}\n--- out\n{}\n--- err\n{}", self.code, self.out, self.err)
    }
}

/// The program, with nothing of this environment's configuration.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.env_remove("HOLDPOINT_CONFIG").env_remove("HOLDPOINT_LOG").stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
fn say(arguments: &[&str]) -> Said {
    let program = program();
    let mut command = Command::new("timeout");
    command.arg(SOON.as_secs().to_string()).arg(program.get_program()).args(arguments);
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const CATALOG: &str = "
tools:
  \"GET /v1/{rest}\": {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  \"POST /v1/payments\": {class: external, consequence: 3, effects: [spend]}
";

const AGENTS: &str = "
- id: spiffe://example.org/agent/support
  owner: {business: ana@example.org, technical: sre@example.org, risk: risk@example.org}
  autonomy: constrained
  state: active
  risk: 1
";

/// An operator's directory: certificates that the program made, a configuration, and the shipped policies.
struct Site(PathBuf);

impl Site {
    fn new(upstream: SocketAddr) -> Site {
        let site = Site(std::env::temp_dir().join(format!("holdpoint-cli-{}", RecordId::new())));
        fs::create_dir_all(&site.0).unwrap();
        let pki = site.path("pki");
        say(&["pki", "init", "--dir", &pki]).ends(0);
        say(&["pki", "issue", "--agent", "agent/support", "--dir", &pki]).ends(0);
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        fs::create_dir(site.0.join("policies")).unwrap();
        for file in fs::read_dir(policies).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&file, site.0.join("policies").join(file.file_name().unwrap())).unwrap();
        }
        site.write("agents.yaml", AGENTS);
        site.write("crm.yaml", CATALOG);
        site.write("holdpoint.yaml", &configuration(upstream));
        site
    }

    /// A site whose upstream is never called.
    fn unused() -> Site {
        Site::new(SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn config(&self) -> String {
        self.path("holdpoint.yaml")
    }

    fn audit(&self) -> String {
        self.path("audit")
    }

    async fn serve(&self) -> Serving {
        Serving::start(&self.config()).await
    }

    fn agent(&self, gateway: SocketAddr) -> Agent {
        let pki = self.0.join("pki");
        let (cert, key) = (pki.join("support.pem"), pki.join("support-key.pem"));
        Agent::new(gateway, &cert, &key, &pki.join("example.org.pem")).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn configuration(upstream: SocketAddr) -> String {
    format!(
        "organization: {{name: example, internal: [\"*@example.org\"]}}
trust:
  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}
  domains: {{example.org: {{bundle: pki/example.org.pem, roles: [agents]}}}}
listeners:
  - {{name: agents, kind: agents, address: \"127.0.0.1:0\"}}
agents: agents.yaml
upstreams:
  - {{name: crm, kind: http, url: \"http://{upstream}\", catalog: crm.yaml, boundary: inside}}
policy: {{cedar: policies}}
audit: {{dir: audit}}
keys: {{dir: keys}}
"
    )
}

/// `holdpoint serve` in a process of its own; killed when dropped.
struct Serving {
    process: tokio::process::Child,
    log: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    agents: SocketAddr,
}

impl Serving {
    async fn start(config: &str) -> Serving {
        let mut command = tokio::process::Command::from(program());
        command.args(["serve", "--json", "--config", config]).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        let agents = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut serving = Serving { process, log, agents };
        let fields = serving.says("listening").await;
        serving.agents = fields["address"].as_str().unwrap().parse().unwrap();
        serving
    }

    /// Waits for a message in the log, and gives its fields.
    async fn says(&mut self, message: &str) -> Value {
        let reading = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                if line["fields"]["message"] == message {
                    return line["fields"].clone();
                }
            }
            panic!("the log ended before `{message}`");
        };
        tokio::time::timeout(SOON, reading).await.unwrap()
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for its end; `None` when a signal ended it.
    async fn ended(mut self) -> Option<i32> {
        tokio::time::timeout(SOON, self.process.wait()).await.unwrap().unwrap().code()
    }

    /// Tells it to end, and waits for that.
    async fn end(self) {
        self.signal("TERM");
        assert_eq!(self.ended().await, Some(0));
    }
}

async fn get(agent: &Agent, path: &str) -> Answer {
    tokio::time::timeout(SOON, agent.http("GET", path, None)).await.unwrap().unwrap()
}

#[test]
fn bad_usage_is_64_and_help_is_0() {
    let bad: [&[&str]; 12] = [
        &[],
        &["frobnicate"],
        &["help"],
        &["serve", "--port", "1"],
        &["check", "extra"],
        &["demo", "--twice"],
        &["pki", "issue"],
        &["pki", "issue", "--agent", "agent/a", "--person", "b"],
        &["pki", "issue", "--agent", "../a"],
        &["policy", "can"],
        &["policy", "explain"],
        &["audit", "verify"],
    ];
    for arguments in bad {
        let said = say(arguments).ends(64);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{arguments:?}: {said:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["policy", "--help"]] {
        assert!(say(arguments).ends(0).out.contains("holdpoint"), "{arguments:?}");
    }
}

#[test]
fn a_development_ca_is_made_once_and_issues() {
    let site = Site::unused();
    let pki = site.path("pki");
    let before = fs::read(site.0.join("pki/example.org.pem")).unwrap();
    let again = say(&["pki", "init", "--dir", &pki]).ends(2);
    assert!(again.err.contains("already there; nothing was changed"), "{again:?}");
    say(&["pki", "issue", "--agent", "agent/support", "--dir", &pki]).ends(2);
    assert_eq!(fs::read(site.0.join("pki/example.org.pem")).unwrap(), before);

    for (whom, name) in [("--agent", "agent/other"), ("--person", "ana"), ("--gateway", "second")] {
        let made = say(&["pki", "issue", whom, name, "--dir", &pki, "--json"]).ends(0).json();
        let files = made["files"].as_array().unwrap();
        assert_eq!(files.len(), 2, "{made}");
        assert!(files.iter().all(|file| Path::new(file.as_str().unwrap()).exists()), "{made}");
    }
    let nowhere = say(&["pki", "issue", "--agent", "agent/a", "--dir", &site.path("nowhere")]).ends(2);
    assert!(nowhere.err.contains("holdpoint pki init"), "{nowhere:?}");
}

#[test]
fn check_tells_every_mistake_of_every_file_with_its_place() {
    let site = Site::unused();
    let fine = say(&["check", "--config", &site.config()]).ends(0);
    assert!(fine.out.contains("1 agent, 1 upstream with 2 catalogued tools"), "{fine:?}");
    assert_eq!(say(&["check", "--json", "--config", &site.config()]).ends(0).json()["ok"], true);

    let bad = configuration(SocketAddr::from(([127, 0, 0, 1], 9)))
        .replace("127.0.0.1:0", "localhost")
        .replace("audit: {dir: audit}", "audit: {dir: audit, retain: forever}")
        + "holds: {ttl: 48h}\nsurprise: 1\nbounds: {body_bytes_max: big}\n";
    site.write("holdpoint.yaml", &bad);
    site.write("agents.yaml", &AGENTS.replace("constrained", "free"));
    site.write("crm.yaml", &CATALOG.replace("class: read", "class: harmless"));
    site.write("policies/own.cedar", "permit(\n");
    let told = [
        ("holdpoint.yaml", "surprise", "unknown field"),
        ("holdpoint.yaml", "holds.ttl", "at most 24h"),
        ("holdpoint.yaml", "audit.retain", "must be a duration"),
        ("holdpoint.yaml", "listeners[0].address", "must be an address and a port"),
        ("holdpoint.yaml", "bounds.body_bytes_max", "must be a size"),
        ("agents.yaml", "[0].autonomy", "read-only"),
        ("crm.yaml", "tools.GET /v1/{rest}.class", "read"),
        ("policies/own.cedar", "line 1", "unexpected end"),
    ];
    let text = say(&["check", "--config", &site.config()]).ends(64);
    let json = say(&["check", "--json", "--config", &site.config()]).ends(64).json();
    let mistakes = json["mistakes"].as_array().unwrap();
    for (file, place, problem) in told {
        let begins = format!("{}: {place}", site.path(file));
        let line = text.err.lines().find(|line| line.starts_with(&begins));
        assert!(line.is_some_and(|line| line.contains(problem)), "{begins}\n{text:?}");
        let found = mistakes.iter().any(|one| one["file"] == site.path(file) && one["path"] == place);
        assert!(found || place.starts_with("line "), "{begins}\n{json:#}");
    }
    assert_eq!(mistakes.len(), told.len(), "{json:#}");
    let ending = format!("\n{} mistakes\n", told.len());
    assert!(text.out.is_empty() && text.err.ends_with(&ending), "{text:?}");

    // Nothing is started on such a configuration, and one that is not there is one mistake.
    let unserved = say(&["serve", "--config", &site.config()]).ends(64);
    assert_eq!(unserved.err, text.err);
    assert_eq!(say(&["serve", "--json", "--config", &site.config()]).ends(64).json(), json);
    assert!(!site.0.join("audit").exists() && !site.0.join("keys").exists());
    say(&["check", "--config", &site.path("nowhere.yaml")]).ends(64);
}

#[test]
fn the_configuration_is_found_by_its_variable() {
    let site = Site::unused();
    let output = program().arg("check").env("HOLDPOINT_CONFIG", site.config()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn policies_are_checked_tested_and_questioned() {
    let site = Site::unused();
    let (config, policies) = (site.config(), site.path("policies"));
    for place in [["--config", &config], ["--policies", &policies]] {
        say(&["policy", "check", place[0], place[1]]).ends(0);
        let tested = say(&["policy", "test", "--json", place[0], place[1]]).ends(0).json();
        assert!(tested["cases"].as_array().unwrap().len() > 20, "{tested:#}");
    }
    let can = say(&["policy", "can", "--json", "--agent", "support", "--config", &config]).ends(0).json();
    let outcome = |tool: &str| can.as_array().unwrap().iter().find(|row| row["tool"] == tool).unwrap();
    assert_eq!(outcome("GET /v1/{rest}")["outcome"], "allow");
    assert_eq!(outcome("POST /v1/payments")["outcome"], "hold");
    let nobody = say(&["policy", "can", "--agent", "nobody", "--config", &config]).ends(1);
    assert!(nobody.out.contains("no agent `nobody`"), "{nobody:?}");

    // A case that fails is found wanting; one that cannot be read is a mistake; so is a policy.
    site.write("policies/own.cases.yaml", "- {name: all is lost, call: {class: read}, expect: deny}\n");
    let failed = say(&["policy", "test", "--policies", &policies]).ends(1);
    assert!(failed.out.contains("own.cases.yaml: all is lost: "), "{failed:?}");
    site.write("policies/own.cases.yaml", "- {name: a, call: {class: harmless}, expect: deny}\n");
    let unread = say(&["policy", "test", "--policies", &policies]).ends(64);
    assert!(unread.err.contains(&format!("{policies}/own.cases.yaml: ")), "{unread:?}");
    fs::remove_file(site.0.join("policies/own.cases.yaml")).unwrap();
    site.write("policies/one.cedar", "permit(principal, action, resource);\n");
    site.write("policies/two.cedar", "permit(\n");
    for place in [["--config", &config], ["--policies", &policies]] {
        let wrong = say(&["policy", "check", place[0], place[1]]).ends(64);
        for file in ["one.cedar", "two.cedar"] {
            assert!(wrong.err.contains(&format!("{policies}/{file}: ")), "{wrong:?}");
        }
    }
}

#[tokio::test]
async fn a_served_call_is_explained_and_its_audit_verified() {
    let upstream = Fake::polite().await;
    let site = Site::new(upstream.address());
    let serving = site.serve().await;
    let agent = site.agent(serving.agents);
    let allowed = get(&agent, "/crm/v1/a").await;
    assert_eq!(allowed.status, 200);
    let held = agent.http("POST", "/crm/v1/payments", Some(Value::Null)).await.unwrap();
    assert_eq!((held.status.as_u16(), upstream.seen().len()), (503, 1));

    let config = site.config();
    let explain = |record: &str| say(&["policy", "explain", record, "--config", &config]);
    assert!(explain(&held.record()).ends(0).out.contains("hold"));
    let json = say(&["policy", "explain", &held.record(), "--json", "--config", &config]).ends(0).json();
    assert!(json.is_object(), "{json}");
    let unknown = explain("nothing-like-it").ends(1);
    assert!(unknown.out.contains("no record or trace"), "{unknown:?}");
    say(&["policy", "explain", "x", "--config", &config, "--audit", &site.path("nowhere")]).ends(2);

    let (dir, running) = (site.audit(), say(&["audit", "verify", &site.audit(), "--json"]).ends(0).json());
    assert_eq!((&running["status"], &running["live"]), (&"ok".into(), &true.into()), "{running:#}");
    serving.end().await;
    let fine = say(&["audit", "verify", &dir]).ends(0);
    assert!(fine.out.starts_with("ok: "), "{fine:?}");
    let tail = say(&["audit", "tail", &dir, "--json", "-n", "1000"]).ends(0);
    let records: Vec<Value> = tail.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.iter().any(|record| record["type"] == "held" && record["id"] == held.record()));

    let segment = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let segment =
        segment.into_iter().find(|path| path.extension().is_some_and(|end| end == "jsonl")).unwrap();
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, text.replacen("agent/support", "agent/another", 1)).unwrap();
    let tampered = say(&["audit", "verify", &dir]).ends(1);
    assert!(tampered.out.starts_with("TAMPERED: "), "{tampered:?}");
    assert_eq!(say(&["audit", "verify", &dir, "--json"]).ends(1).json()["status"], "tampered");
    for command in ["verify", "tail"] {
        let unread = say(&["audit", command, &site.path("nowhere")]).ends(2);
        assert!(unread.out.is_empty() && unread.err.contains("nowhere"), "{unread:?}");
        let unread = say(&["audit", command, &site.path("nowhere"), "--json"]).ends(2).json();
        assert!(unread["error"].is_string(), "{unread}");
    }
    // What was tampered with is no audit to go on with.
    let refused = say(&["serve", "--config", &config]).ends(2);
    assert!(refused.err.contains("restore it from a copy that verifies"), "{refused:?}");
}

#[tokio::test]
async fn one_command_leads_from_the_trace_of_a_refused_call_to_rule_evidence_and_owner() {
    let upstream = Fake::polite().await;
    let site = Site::new(upstream.address());
    let mut agents = AGENTS.to_owned();
    for (name, how) in [("reader", "autonomy: read-only"), ("stopped", "state: suspended")] {
        say(&["pki", "issue", "--agent", &format!("agent/{name}"), "--dir", &site.path("pki")]).ends(0);
        agents += &format!(
            "- id: spiffe://example.org/agent/{name}\n  owner: {{business: pia@example.org, technical: t@example.org, \
             risk: r@example.org}}\n  risk: 1\n  {how}\n"
        );
    }
    site.write("agents.yaml", &agents);
    let strict = format!(
        "upstreams:\n  - {{name: strict, kind: http, url: \"http://{}\", catalog: crm.yaml, strict: true}}\n",
        upstream.address()
    );
    let limits = "limits: [{per: agent, class: read, rate: 1/1h, burst: 1}]\npolicy:";
    let config =
        configuration(upstream.address()).replace("upstreams:\n", &strict).replace("policy:", limits);
    site.write("holdpoint.yaml", &config);
    let serving = site.serve().await;
    let agent = |name: &str| {
        let pki = site.0.join("pki");
        let (cert, key) = (pki.join(format!("{name}.pem")), pki.join(format!("{name}-key.pem")));
        Agent::new(serving.agents, &cert, &key, &pki.join("example.org.pem")).unwrap()
    };
    let pays =
        async |name: &str| agent(name).http("POST", "/crm/v1/payments", Some(Value::Null)).await.unwrap();
    let denied = pays("reader").await;
    assert_eq!(get(&agent("support"), "/crm/v1/a").await.status, 200);
    let limited = get(&agent("support"), "/crm/v1/a").await;
    let unlisted = agent("support").http("DELETE", "/strict/v1/a", None).await.unwrap();
    let suspended = pays("stopped").await;
    assert_eq!([denied.status, limited.status, unlisted.status, suspended.status], [403, 429, 403, 403]);
    assert_eq!(upstream.seen().len(), 1, "what was refused was not sent");

    let tail = say(&["audit", "tail", &site.audit(), "--json", "-n", "1000"]).ends(0);
    let records: Vec<Value> = tail.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = [
        // The answer, its agent, what stopped it, what is known of it, and who answers for the agent.
        (denied, "agent/reader", "read-only", "external", "pia@example.org"),
        (limited, "agent/support", "rate", "GET /v1/{rest}", "ana@example.org"),
        (unlisted, "agent/support", "unlisted", "strict", "ana@example.org"),
        (suspended, "agent/stopped", "suspended", "identify", "pia@example.org"),
    ];
    for (answer, agent, rule, evidence, owner) in refused {
        let record = records.iter().find(|record| record["id"] == answer.record()).unwrap();
        let trace = record["trace_id"].as_str().unwrap();
        let told = say(&["policy", "explain", trace, "--config", &site.config()]).ends(0).out;
        for text in [agent, rule, evidence, owner] {
            assert!(told.contains(text), "no `{text}` for {rule}: {told}\n{record:#}");
        }
        let json = say(&["policy", "explain", trace, "--json", "--config", &site.config()]).ends(0).json();
        assert!(json.to_string().contains(owner) && json["rule"].is_string(), "{json:#}");
    }
    serving.end().await;
}

#[tokio::test]
async fn a_call_under_way_is_answered_when_the_program_is_told_to_end() {
    for signal in ["TERM", "INT"] {
        let slow = Fake::that(|_| Does::WritesThen(String::new(), json("{\"late\":true}"))).await;
        let site = Site::new(slow.address());
        let mut serving = site.serve().await;
        let (agent, address) = (site.agent(serving.agents), serving.agents);
        let call = tokio::spawn(async move { get(&agent, "/crm/v1/a").await });
        slow.has_seen(1).await;
        serving.signal(signal);
        serving.says("draining").await;
        // Nobody new gets in while the call goes on.
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, refused).await.unwrap();
        assert!(!call.is_finished());
        slow.go_on();
        let answer = call.await.unwrap();
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"{\"late\":true}"[..]));
        assert_eq!(serving.ended().await, Some(0));
        let report = say(&["audit", "verify", &site.audit(), "--json"]).ends(0).json();
        assert_eq!(report["open_intents"], 0, "{report:#}");
        assert_eq!(slow.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_program_that_was_killed_leaves_an_incomplete_audit_and_the_next_one_completes_it() {
    let slow = Fake::that(|_| Does::Nothing).await;
    let site = Site::new(slow.address());
    let serving = site.serve().await;
    let agent = site.agent(serving.agents);
    let call = tokio::spawn(async move { agent.http("GET", "/crm/v1/a", None).await.is_err() });
    slow.has_seen(1).await;
    serving.signal("KILL");
    assert_eq!(serving.ended().await, None);
    assert!(call.await.unwrap());
    let report = say(&["audit", "verify", &site.audit(), "--json"]).ends(1).json();
    assert_eq!((&report["status"], &report["open_intents"]), (&"incomplete".into(), &1.into()), "{report:#}");

    site.serve().await.end().await;
    let report = say(&["audit", "verify", &site.audit(), "--json"]).ends(0).json();
    assert_eq!(report["open_intents"], 0, "{report:#}");
    assert_eq!(slow.seen().len(), 1, "nothing is sent twice");
}

#[tokio::test]
async fn what_another_program_has_cannot_be_taken() {
    let site = Site::unused();
    let serving = site.serve().await;
    let locked = say(&["serve", "--config", &site.config()]).ends(2);
    assert!(locked.err.contains("in use by another gateway"), "{locked:?}");
    let taken = configuration(SocketAddr::from(([127, 0, 0, 1], 9)))
        .replace("127.0.0.1:0", &serving.agents.to_string())
        .replace("audit: {dir: audit}", "audit: {dir: other}");
    site.write("taken.yaml", &taken);
    let bound = say(&["serve", "--config", &site.path("taken.yaml")]).ends(2);
    assert!(bound.err.contains(&format!("listener `agents` at {}", serving.agents)), "{bound:?}");
    assert!(TcpStream::connect(serving.agents).await.is_ok(), "the first one goes on");
    serving.end().await;
}

#[test]
fn the_demo_is_as_it_says() {
    let played = say(&["demo", "--once", "--json"]).ends(0).json();
    assert_eq!((&played["as_expected"], &played["audit"]["status"]), (&true.into(), &"ok".into()));
    assert!(played["steps"].as_array().unwrap().len() >= 10);
}

#[tokio::test]
async fn keys_are_listed_and_rotated_and_one_record_is_proven_offline() {
    let site = Site::unused();
    let (config, dir) = (site.config(), site.audit());
    let first = say(&["keys", "rotate", "audit-signing", "--config", &config]).ends(0);
    assert!(first.out.contains("is in use"), "{first:?}");
    assert!(
        say(&["keys", "rotate", "sealing-public", "--config", &config])
            .ends(64)
            .err
            .contains("--private FILE")
    );
    assert!(
        say(&["keys", "rotate", "nothing", "--config", &config])
            .ends(64)
            .err
            .contains("none of audit-signing")
    );
    let private = site.path("auditor.key");
    say(&["keys", "rotate", "sealing-public", "--private", &private, "--config", &config]).ends(0);
    assert!(std::fs::read_to_string(&private).unwrap().trim().len() == 44);
    let listed = say(&["keys", "list", "--json", "--config", &config]).ends(0).json();
    let slots: Vec<String> = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| format!("{} {}", key["purpose"].as_str().unwrap(), key["slot"].as_str().unwrap()))
        .collect();
    assert_eq!(slots, ["audit-signing current", "audit-signing previous", "sealing-public current"]);

    // Every rotation is on the record, and the record is proven to who has nothing but the proof and the key.
    let key = site.path("keys/audit-signing.pub");
    let verified = say(&["audit", "verify", "--config", &config, "--key", &key, "--json"]).ends(0).json();
    assert_eq!(verified["status"], "ok", "{verified:#}");
    let copies = say(&["audit", "export", "--format", "jsonl", "--audit", &dir]).ends(0);
    let records: Vec<serde_json::Value> =
        copies.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rotated: Vec<_> = records.iter().filter(|record| record["action"] == "key-rotated").collect();
    assert_eq!(rotated.len(), 2);
    let id = rotated[0]["id"].as_str().unwrap();
    let proof = say(&["audit", "prove", id, "--audit", &dir]).ends(0);
    site.write("proof.json", &proof.out);
    let file = site.path("proof.json");
    assert!(say(&["audit", "verify", "--proof", &file, "--key", &key]).ends(0).out.starts_with("ok: record"));
    site.write("proof.json", &proof.out.replace("key-rotated", "key-removed"));
    assert!(say(&["audit", "verify", "--proof", &file, "--key", &key]).ends(1).out.contains("NOT PROVEN"));
    say(&["audit", "prove", "0192", "--audit", &dir]).ends(1);
    say(&["audit", "open", id, "--key", &private, "--audit", &dir]).ends(1);
    say(&["audit", "export", "--format", "cef", "--audit", &dir]).ends(64);
    say(&["audit", "export", "--format", "ocsf", "--audit", &site.path("nowhere")]).ends(2);
}
