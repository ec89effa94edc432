//! Upstreams that are programs, through the front door: the gateway starts this very test binary as an MCP server.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdpoint::config::{self, ListenerKind};
use holdpoint::demo::agent::{Agent, Answer};
use holdpoint::{app, decide, pki};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const WAIT: Duration = Duration::from_secs(20);

// === the server that is started ===

/// No test: this is what the gateway runs, with `SEEN` in its environment. It writes down there whatever it is sent.
/// What the test harness itself prints on standard output is for the gateway to drop.
#[test]
#[ignore = "the gateway starts it"]
fn the_server() {
    let Ok(seen) = std::env::var("SEEN") else { return };
    let server = Server { seen: seen.into() };
    server.note("start");
    // The harness may have begun a line.
    server.write(b"\n");
    if std::env::var("DIES").is_ok() {
        std::process::exit(3);
    }
    let mut pairs = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        server.note(&line);
        let message: Value = serde_json::from_str(&line).unwrap();
        server.message(&message, &mut pairs);
    }
    server.note("eof");
    while std::env::var("STAYS").is_ok() {
        std::thread::sleep(Duration::from_secs(1));
    }
    std::process::exit(0);
}

struct Server {
    seen: PathBuf,
}

impl Server {
    fn note(&self, line: &str) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.seen).unwrap();
        file.write_all(format!("{} {line}\n", std::process::id()).as_bytes()).unwrap();
    }

    fn say(&self, message: &Value) {
        self.write(format!("{message}\n").as_bytes());
    }

    fn write(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).unwrap();
        out.flush().unwrap();
    }

    fn result(&self, id: &Value, result: &Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn text(&self, id: &Value, text: &str) {
        let result = json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
        self.result(id, &result);
    }

    fn message(&self, message: &Value, pairs: &mut Vec<Value>) {
        let id = &message["id"];
        match message["method"].as_str() {
            Some("initialize") => {
                let capabilities = json!({"tools": {}});
                let info = json!({"name": "stdio", "version": std::process::id().to_string()});
                let result = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info});
                self.result(id, &result);
            }
            Some("tools/call") => self.tool(message, pairs),
            Some("subscriptions/listen") => {
                let meta = json!({"io.modelcontextprotocol/subscriptionId": id});
                let acknowledged = "notifications/subscriptions/acknowledged";
                self.say(&json!({"jsonrpc": "2.0", "method": acknowledged, "params": {"_meta": meta}}));
                self.result(id, &json!({"resultType": "complete", "_meta": meta}));
            }
            None => {
                // The answer to what `ask` asked.
                if let Some(text) = message.pointer("/error/message").and_then(Value::as_str) {
                    self.text(&message["id"].as_str().unwrap()[4..].parse::<i64>().unwrap().into(), text);
                }
            }
            Some(_) => {}
        }
    }

    fn progress(&self, token: &Value, progress: i64) {
        let params = json!({"progressToken": token, "progress": progress});
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
    }

    fn tool(&self, message: &Value, pairs: &mut Vec<Value>) {
        let (id, arguments) = (&message["id"], &message["params"]["arguments"]);
        let token = &message["params"]["_meta"]["progressToken"];
        match message["params"]["name"].as_str().unwrap() {
            "echo" => self.text(id, arguments["text"].as_str().unwrap()),
            "read" => {
                let file = arguments["file"].as_str().unwrap();
                self.text(id, &std::fs::read_to_string(file).unwrap().replace('\0', "\n"));
            }
            "progress" => {
                self.progress(token, 1);
                self.progress(token, 2);
                self.text(id, "done");
            }
            "pair" => {
                pairs.push(message.clone());
                // Both are under way at once, and are answered in the other order.
                if pairs.len() == 2 {
                    for message in pairs.drain(..).rev() {
                        self.progress(&message["params"]["_meta"]["progressToken"], 1);
                        let label = message["params"]["arguments"]["label"].as_str().unwrap();
                        self.text(&message["id"], &format!("{label} by {}", std::process::id()));
                    }
                }
            }
            "ask" => {
                let asks = json!({"jsonrpc": "2.0", "id": format!("ask-{id}"), "method": "roots/list"});
                self.say(&asks);
            }
            "announce" => {
                self.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
                self.text(id, "announced");
            }
            "flood" => {
                for n in 0..2000 {
                    eprintln!("\u{1b}[31m noise {n}");
                }
                self.write(b"not json\n[1,2]\n{\"jsonrpc\":\"2.0\",\"id\":99999,\"result\":{}}\n\xff\xfe\n");
                self.write(&[b'x'; 17 << 20]);
                self.write(b"\n");
                self.text(id, "dry");
            }
            "die" => std::process::exit(3),
            _ => {}
        }
    }
}

// === the stage ===

/// A gateway before one upstream that is a program, in a directory of its own.
struct Stage {
    dir: PathBuf,
    gateway: Option<app::Running>,
}

impl Stage {
    async fn set() -> Stage {
        Stage::with("", "").await
    }

    /// `env` and `more` are further members of the program's environment and configuration.
    async fn with(env: &str, more: &str) -> Stage {
        let mut stage = Stage::prepared();
        let seen = stage.dir.join("seen/lines").display().to_string();
        let upstream =
            format!("stdio: {{command: {}, {} env: {{SEEN: \"{seen}\", {env}}}, {more}}}", command(), user());
        let loaded = stage.load(&upstream).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
        stage.gateway = Some(app::start(loaded).await.unwrap());
        stage
    }

    fn prepared() -> Stage {
        holdpoint::stdio::process::launch_by(env!("CARGO_BIN_EXE_holdpoint").into());
        let dir = std::env::temp_dir().join(format!("holdpoint-stdio-{}", uuid::Uuid::now_v7()));
        pki::init(&dir.join("pki")).unwrap();
        std::fs::create_dir(dir.join("policies")).unwrap();
        std::fs::create_dir(dir.join("seen")).unwrap();
        for (name, text) in decide::cedar::SHIPPED {
            std::fs::write(dir.join("policies").join(name), text).unwrap();
        }
        let mut agents = String::new();
        for (name, autonomy) in [("one", "constrained"), ("two", "constrained"), ("reader", "read-only")] {
            pki::issue_agent(&dir.join("pki"), &format!("agent/{name}")).unwrap();
            agents += &format!(
                "- {{id: spiffe://example.org/agent/{name}, autonomy: {autonomy}, risk: 1,\n   \
                 owner: {{business: a@example.org, technical: b@example.org, risk: c@example.org}}}}\n"
            );
        }
        std::fs::write(dir.join("agents.yaml"), agents).unwrap();
        std::fs::write(dir.join("tools.yaml"), TOOLS).unwrap();
        Stage { dir, gateway: None }
    }

    fn load(&self, upstream: &str) -> Result<config::Loaded, Vec<String>> {
        let text = format!(
            "organization: {{name: example}}\n\
             trust:\n  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}\n  domains:\n    \
             example.org: {{bundle: pki/example.org.pem, roles: [agents]}}\n\
             listeners: [{{name: agents, kind: agents, address: \"127.0.0.1:0\"}}]\n\
             agents: agents.yaml\n\
             upstreams: [{{name: tools, kind: mcp, catalog: tools.yaml, boundary: inside, list_every: never, {upstream}}}]\n\
             policy: {{cedar: policies/}}\naudit: {{dir: audit}}\nkeys: {{dir: keys}}\n"
        );
        let file = self.dir.join("holdpoint.yaml");
        std::fs::write(&file, text).unwrap();
        config::load(&file).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    fn address(&self) -> SocketAddr {
        self.gateway.as_ref().unwrap().address(ListenerKind::Agents).unwrap()
    }

    /// A connection of an agent.
    fn agent(&self, name: &str) -> Agent {
        let pki = self.dir.join("pki");
        let file = |end: &str| pki.join(format!("{name}{end}"));
        Agent::new(self.address(), &file(".pem"), &file("-key.pem"), &pki.join("example.org.pem")).unwrap()
    }

    /// A session of legacy MCP, begun.
    async fn session(&self, name: &str) -> Session {
        let agent = self.agent(name);
        let answer = initialize(&agent).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.headers["mcp-session-id"].to_str().unwrap().to_owned();
        let pid = answer.json().pointer("/result/serverInfo/version").unwrap().as_str().unwrap().to_owned();
        Session { agent, id, pid }
    }

    /// What the children of this stage were sent so far, each line after the pid of the child.
    fn seen(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("seen/lines")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The first line of what was seen that has all these words, as soon as there is one.
    async fn sees(&self, words: &[&str]) -> String {
        let found = || self.seen().into_iter().find(|line| words.iter().all(|word| line.contains(word)));
        until(&format!("{words:?}"), found).await
    }

    /// A raw connection of an agent, with this request written.
    async fn raw(&self, name: &str, request: &str) -> TlsStream<TcpStream> {
        let tls = client(&self.dir.join("pki"), name);
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// The reasons of refusals and failures in the audit.
    async fn recorded(&self, words: &str) {
        let found = || {
            let files = std::fs::read_dir(self.dir.join("audit")).ok()?;
            let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
            texts.collect::<String>().contains(words).then_some(())
        };
        until(words, found).await;
    }

    async fn drain(&mut self) {
        self.gateway.take().unwrap().drain().await;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct Session {
    agent: Agent,
    id: String,
    pid: String,
}

impl Session {
    async fn send(&self, message: Value) -> Answer {
        let headers = [("mcp-protocol-version", "2025-11-25"), ("mcp-session-id", &self.id)];
        self.agent.message("tools", message.to_string(), &headers).await.unwrap()
    }

    async fn call(&self, id: i64, tool: &str, arguments: Value) -> Answer {
        let params = json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": "mine"}});
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})).await
    }
}

const TOOLS: &str = r#"
tools:
  echo: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  read: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  progress: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  pair: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  ask: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  announce: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  flood: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  die: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  never: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  change: {class: write, consequence: 0, reversible: true}
"#;

/// This very binary, as the server.
fn command() -> String {
    let program = std::env::current_exe().unwrap();
    json!([program, "the_server", "--exact", "--ignored", "--nocapture"]).to_string()
}

/// Whoever runs the tests runs the children; root must say so.
fn user() -> &'static str {
    if is_root() { "user: root," } else { "" }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

async fn until<T>(what: &str, found: impl Fn() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn initialize(agent: &Agent) -> Answer {
    let info = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
    agent.rpc("tools", "initialize", params).await.unwrap()
}

/// A modern message, and the headers that repeat it.
fn modern(id: &Value, method: &str, tool: &str, arguments: &Value) -> (String, Vec<(String, String)>) {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": "t",
    });
    let mut params = json!({"_meta": meta});
    let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
    if !tool.is_empty() {
        params["name"] = tool.into();
        params["arguments"] = arguments.clone();
        headers.push(("mcp-name", tool));
    }
    let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    (
        message.to_string(),
        headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    )
}

async fn call_modern(agent: &Agent, id: Value, tool: &str, arguments: Value) -> Answer {
    let (message, headers) = modern(&id, "tools/call", tool, &arguments);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    agent.message("tools", message, &headers).await.unwrap()
}

fn client(pki: &Path, name: &str) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(pki.join("example.org.pem")).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let chain = CertificateDer::pem_file_iter(pki.join(format!("{name}.pem"))).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(pki.join(format!("{name}-key.pem"))).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    Arc::new(tls)
}

/// Reads a connection until what came contains this.
async fn read_until(stream: &mut TlsStream<TcpStream>, words: &str) -> String {
    let mut text = String::new();
    let reading = async {
        let mut buffer = vec![0; 16 << 10];
        while !text.contains(words) {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "it ended without {words:?}: {text}");
            text += &String::from_utf8_lossy(&buffer[..read]);
        }
    };
    let done = tokio::time::timeout(WAIT, reading).await.is_ok();
    assert!(done, "never {words:?}: {text}");
    text
}

/// The text of a tool's result.
fn said(answer: &Answer) -> String {
    let body = answer.json();
    let text = body.pointer("/result/content/0/text").and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&answer.body))).to_owned()
}

/// The messages of an event stream.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.headers["content-type"], "text/event-stream", "{answer:?}");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn is_running(pid: &str) -> bool {
    // A process that ended and was not waited for is still there, as a zombie.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

// === legacy MCP ===

#[tokio::test]
async fn a_call_reaches_the_session_that_it_names_and_the_answer_is_plain_json() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    assert_eq!(one.id.len(), 32);
    let answer = one.call(7, "echo", json!({"text": "a\nb"})).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(said(&answer), "a\nb");
    assert_eq!(answer.json()["id"], 7);
    let line = stage.sees(&["tools/call"]).await;
    assert!(
        line.starts_with(&one.pid)
            && line.contains(r#""id":7"#)
            && line.contains(r#""progressToken":"mine""#)
    );
    stage.recorded(r#""status":"executed""#).await;
    stage.drain().await;
}

#[tokio::test]
async fn what_policy_denies_or_holds_reaches_no_child() {
    let mut stage = Stage::set().await;
    let reader = stage.session("reader").await;
    let denied = reader.call(1, "change", json!({})).await;
    assert_eq!((denied.status.as_u16(), denied.outcome().as_str()), (200, "denied"));
    let held = stage.session("one").await.call(1, "unlisted", json!({})).await;
    assert_eq!(held.outcome(), "pending");
    // The child is asked something after, so what was before it has been seen.
    said(&reader.call(2, "echo", json!({"text": "x"})).await);
    assert!(!stage.seen().iter().any(|line| line.contains("change") || line.contains("unlisted")));
    stage.drain().await;
}

#[tokio::test]
async fn each_session_is_a_child_of_its_own_and_nobody_elses() {
    let mut stage = Stage::set().await;
    let (one, again, two) =
        (stage.session("one").await, stage.session("one").await, stage.session("two").await);
    assert!(one.pid != again.pid && one.pid != two.pid && one.id != again.id);
    let thief = Session { agent: stage.agent("two"), id: one.id.clone(), pid: String::new() };
    let answer = thief.call(1, "echo", json!({"text": "stolen"})).await;
    assert_eq!(answer.status, 404);
    let stranger = Session { agent: stage.agent("one"), id: "0".repeat(32), pid: String::new() };
    assert_eq!(stranger.call(1, "echo", json!({"text": "stolen"})).await.status, 404);
    let without = stage.agent("one").tool("tools", "echo", json!({"text": "stolen"})).await.unwrap();
    assert_eq!(without.status, 400);
    said(&one.call(1, "echo", json!({"text": "mine"})).await);
    assert!(!stage.seen().iter().any(|line| line.contains("stolen")));
    stage.drain().await;
}

#[tokio::test]
async fn a_header_cannot_name_another_agent() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    let as_one = ("holdpoint-agent", "spiffe://example.org/agent/one");
    let (message, _) = modern(&json!(1), "tools/call", "echo", &json!({"text": "x"}));
    let headers: Vec<_> = headers.into_iter().chain([as_one]).collect();
    said(&stage.agent("two").message("tools", message, &headers).await.unwrap());
    said(&call_modern(&stage.agent("one"), json!(1), "echo", json!({"text": "y"})).await);
    let pid = |line: String| line.split_once(' ').unwrap().0.to_owned();
    let (two, own) = (pid(stage.sees(&[r#""text":"x""#]).await), pid(stage.sees(&[r#""text":"y""#]).await));
    assert!(two != own && own != one.pid);
    stage.drain().await;
}

#[tokio::test]
async fn progress_comes_before_the_answer_as_a_stream_of_events() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    let events = events(&one.call(3, "progress", json!({})).await);
    let progress = |n: usize| (&events[n]["params"]["progressToken"], &events[n]["params"]["progress"]);
    assert_eq!(progress(0), (&json!("mine"), &json!(1)));
    assert_eq!(progress(1), (&json!("mine"), &json!(2)));
    assert_eq!((events.len(), &events[2]["id"]), (3, &json!(3)));
    stage.drain().await;
}

#[tokio::test]
async fn a_request_of_the_server_reaches_the_client_and_its_reply_the_server() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    let other = Session { agent: stage.agent("one"), id: one.id.clone(), pid: one.pid.clone() };
    let calling = tokio::spawn(async move { one.call(5, "ask", json!({})).await });
    stage.sees(&["tools/call", "ask"]).await;
    let refusal = json!({"code": -32601, "message": "no roots here"});
    let reply = other.send(json!({"jsonrpc": "2.0", "id": "ask-5", "error": refusal})).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (202, 0));
    let events = events(&calling.await.unwrap());
    assert_eq!((&events[0]["method"], &events[0]["id"]), (&json!("roots/list"), &json!("ask-5")));
    assert_eq!(events[1].pointer("/result/content/0/text"), Some(&json!("no roots here")));
    stage.drain().await;
}

#[tokio::test]
async fn what_belongs_to_no_request_goes_to_the_standalone_stream() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    let get = format!(
        "GET /tools/mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
         mcp-protocol-version: 2025-11-25\r\nmcp-session-id: {}\r\n\r\n",
        one.id
    );
    let mut stream = stage.raw("one", &get).await;
    read_until(&mut stream, "text/event-stream").await;
    let mut second = stage.raw("one", &get).await;
    assert!(read_until(&mut second, "\r\n").await.starts_with("HTTP/1.1 409"));
    let answer = one.call(1, "announce", json!({})).await;
    assert_eq!(
        (answer.headers["content-type"].to_str().unwrap(), &*said(&answer)),
        ("application/json", "announced")
    );
    read_until(&mut stream, "notifications/tools/list_changed").await;
    drop((stream, second));
    stage.drain().await;
}

#[tokio::test]
async fn a_session_that_is_deleted_ends_its_child_in_good_order() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    let delete = format!(
        "DELETE /tools/mcp HTTP/1.1\r\nhost: localhost\r\nmcp-protocol-version: 2025-11-25\r\nmcp-session-id: {}\r\n\r\n",
        one.id
    );
    let mut stream = stage.raw("one", &delete).await;
    assert!(read_until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 200"));
    stage.sees(&[&one.pid, "eof"]).await;
    until("the child's end", || (!is_running(&one.pid)).then_some(())).await;
    assert_eq!(one.call(1, "echo", json!({"text": "late"})).await.status, 404);
    assert!(!stage.seen().iter().any(|line| line.contains("late")));
    stage.drain().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_legacy_mcp_cancels_nothing() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "never", "arguments": {}}})
        .to_string();
    let post = format!(
        "POST /tools/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\n\
         mcp-session-id: {}\r\ncontent-length: {}\r\n\r\n{message}",
        one.id,
        message.len()
    );
    let stream = stage.raw("one", &post).await;
    stage.sees(&["never"]).await;
    drop(stream);
    stage.recorded("client-gone").await;
    said(&one.call(2, "echo", json!({"text": "still here"})).await);
    assert!(!stage.seen().iter().any(|line| line.contains("notifications/cancelled")));
    // What the client itself tells the child is passed on as it is.
    let params = json!({"requestId": 1, "reason": "enough"});
    one.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    stage.sees(&["notifications/cancelled", "enough"]).await;
    stage.drain().await;
}

// === modern MCP ===

#[tokio::test]
async fn equal_ids_and_tokens_of_several_clients_do_not_meet() {
    let mut stage = Stage::set().await;
    let calls =
        [("one", "a", json!(7)), ("one", "b", json!(7)), ("two", "c", json!("7")), ("two", "d", json!(7))];
    let calls = calls.map(|(name, label, id)| {
        let agent = stage.agent(name);
        tokio::spawn(async move {
            let answer = call_modern(&agent, id.clone(), "pair", json!({"label": label})).await;
            let events = events(&answer);
            assert_eq!((events.len(), &events[0]["params"]["progressToken"]), (2, &json!("t")), "{label}");
            assert_eq!(events[1]["id"], id, "{label}");
            let text = events[1].pointer("/result/content/0/text").unwrap().as_str().unwrap();
            let (found, pid) = text.split_once(" by ").unwrap();
            assert_eq!(found, label);
            pid.to_owned()
        })
    });
    let mut pids = Vec::new();
    for call in calls {
        pids.push(call.await.unwrap());
    }
    assert_eq!(pids[0], pids[1], "an agent's requests share a child");
    assert_eq!(pids[2], pids[3]);
    assert_ne!(pids[0], pids[2], "two agents never do");
    stage.drain().await;
}

#[tokio::test]
async fn a_subscription_is_known_to_the_client_by_the_id_that_it_chose() {
    let mut stage = Stage::set().await;
    let (message, headers) = modern(&json!("sub"), "subscriptions/listen", "", &Value::Null);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let answer = stage.agent("one").message("tools", message, &headers).await.unwrap();
    let events = events(&answer);
    let meta = "/params/_meta/io.modelcontextprotocol~1subscriptionId";
    assert_eq!(events[0].pointer(meta), Some(&json!("sub")));
    assert_eq!(events[1]["id"], "sub");
    stage.drain().await;
}

#[tokio::test]
async fn a_modern_client_that_leaves_cancels_its_request_and_no_other() {
    let mut stage = Stage::set().await;
    let (message, headers) = modern(&json!("x"), "tools/call", "never", &json!({}));
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let post = format!(
        "POST /tools/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n{headers}content-length: {}\r\n\r\n{message}",
        message.len()
    );
    let stream = stage.raw("one", &post).await;
    let line = stage.sees(&["never"]).await;
    let (_, sent) = line.split_once(' ').unwrap();
    let sent: Value = serde_json::from_str(sent).unwrap();
    drop(stream);
    let line = stage.sees(&["notifications/cancelled"]).await;
    let (_, told) = line.split_once(' ').unwrap();
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!(told["params"]["requestId"], sent["id"]);
    said(&call_modern(&stage.agent("one"), json!("x"), "echo", json!({"text": "on"})).await);
    stage.drain().await;
}

// === what goes wrong ===

#[tokio::test]
async fn a_child_that_dies_breaks_the_call_and_the_session_is_unknown() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    let answer = one.call(1, "die", json!({})).await;
    assert_ne!(answer.outcome(), "executed");
    assert!(!answer.json().to_string().contains("content\":[{\"text\":\"ok"), "{answer:?}");
    stage.recorded("upstream-broken").await;
    assert_eq!(one.call(2, "echo", json!({"text": "x"})).await.status, 404);
    // The next child comes after a pause.
    let deadline = tokio::time::Instant::now() + WAIT;
    while initialize(&stage.agent("one")).await.headers.get("mcp-session-id").is_none() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = stage.session("one").await;
    assert_ne!(again.pid, one.pid);
    assert_eq!(said(&again.call(1, "echo", json!({"text": "back"})).await), "back");
    stage.drain().await;
}

#[tokio::test]
async fn a_program_that_dies_at_once_is_not_started_for_every_call() {
    const CALLS: usize = 40;
    let mut stage = Stage::with("DIES: \"1\"", "").await;
    let agent = stage.agent("one");
    for _ in 0..CALLS {
        let answer = initialize(&agent).await;
        assert!(answer.headers.get("mcp-session-id").is_none(), "{answer:?}");
    }
    stage.recorded("upstream-connect").await;
    let starts = stage.seen().len();
    assert!(starts < CALLS / 2, "{starts} starts for {CALLS} calls");
    // One agent's pause is not another's.
    initialize(&stage.agent("two")).await;
    assert_eq!(stage.seen().len(), starts + 1);
    stage.drain().await;
}

#[tokio::test]
async fn noise_on_both_outputs_is_dropped_and_the_call_goes_on() {
    let mut stage = Stage::set().await;
    let one = stage.session("one").await;
    assert_eq!(said(&one.call(1, "flood", json!({})).await), "dry");
    assert_eq!(said(&one.call(2, "echo", json!({"text": "after"})).await), "after");
    stage.drain().await;
}

#[tokio::test]
async fn a_child_has_no_environment_but_what_is_configured() {
    let file = std::env::temp_dir().join(format!("holdpoint-stdio-secret-{}", uuid::Uuid::now_v7()));
    std::fs::write(&file, "from a file\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // Cargo sets this for tests: the gateway in this process has it, and its children must not.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let env =
        format!("TOKEN: \"${{env:CARGO_PKG_NAME}}\", HELD: \"${{file:{}}}\", PLAIN: text", file.display());
    let mut stage = Stage::with(&env, "").await;
    let one = stage.session("one").await;
    let text = said(&one.call(1, "read", json!({"file": "/proc/self/environ"})).await);
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HELD", "HOME", "LANG", "PATH", "PLAIN", "SEEN", "TOKEN"]);
    for line in ["TOKEN=holdpoint", "HELD=from a file", "PLAIN=text"] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    std::fs::remove_file(&file).unwrap();
    stage.drain().await;
}

#[tokio::test]
async fn limits_are_in_force() {
    let mut stage =
        Stage::with("", "limits: {memory: 512MiB, processes: 4096, files: 77, cpu_seconds: 99}").await;
    let one = stage.session("one").await;
    let text = said(&one.call(1, "read", json!({"file": "/proc/self/limits"})).await);
    let limit = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max data size"), ["536870912", "536870912"]);
    assert_eq!(limit("Max processes"), ["4096", "4096"]);
    assert_eq!(limit("Max open files"), ["77", "77"]);
    assert_eq!(limit("Max cpu time"), ["99", "99"]);
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    stage.drain().await;
}

#[tokio::test]
async fn an_agent_with_as_many_children_as_it_may_have_loses_its_oldest_and_no_others() {
    let mut stage = Stage::with("", "children_per_agent_max: 2").await;
    let two = stage.session("two").await;
    let (first, second) = (stage.session("one").await, stage.session("one").await);
    let third = stage.session("one").await;
    assert_eq!(first.call(1, "echo", json!({"text": "x"})).await.status, 404);
    assert!(!is_running(&first.pid));
    for session in [second, third, two] {
        assert_eq!(said(&session.call(1, "echo", json!({"text": "x"})).await), "x");
    }
    stage.drain().await;
}

#[tokio::test]
async fn children_end_with_the_gateway_even_those_that_would_not() {
    let mut stage = Stage::with("STAYS: \"1\"", "").await;
    let (one, two) = (stage.session("one").await, stage.session("two").await);
    stage.drain().await;
    let seen = stage.seen();
    for pid in [one.pid, two.pid] {
        assert!(seen.contains(&format!("{pid} eof")), "its input was closed first");
        assert!(!is_running(&pid), "{pid}");
    }
}

// === configuration ===

#[tokio::test]
async fn a_child_runs_as_the_user_that_is_named_and_no_one_else() {
    if !is_root() {
        // Only root can run a child as somebody else, and `check` refuses it for anybody else: see below.
        return;
    }
    let stage = Stage::prepared();
    // Anybody may run this copy, and write down what it sees.
    let public = std::env::temp_dir().join(format!("holdpoint-stdio-public-{}", uuid::Uuid::now_v7()));
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::create_dir(&public).unwrap();
    std::fs::set_permissions(&public, mode(0o777)).unwrap();
    let program = public.join("server");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, mode(0o755)).unwrap();
    let upstream = format!(
        "stdio: {{command: [\"{}\", the_server, --exact, --ignored, --nocapture], user: nobody, env: {{SEEN: \"{}\"}}}}",
        program.display(),
        public.join("lines").display()
    );
    let loaded = stage.load(&upstream).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    let mut stage = Stage { gateway: Some(app::start(loaded).await.unwrap()), dir: stage.dir.clone() };
    let one = stage.session("one").await;
    let status = said(&one.call(1, "read", json!({"file": "/proc/self/status"})).await);
    let row = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let nobody = row("Uid:");
    assert!(nobody.iter().all(|id| *id == nobody[0] && id != "0"), "{nobody:?}");
    assert!(row("Gid:").iter().all(|id| id != "0"));
    assert_eq!(row("Groups:"), Vec::<String>::new());
    stage.drain().await;
    std::fs::remove_dir_all(&public).unwrap();
}

#[test]
fn every_mistake_of_a_program_is_told_with_its_path() {
    let stage = Stage::prepared();
    let root = is_root();
    let stranger = if root { "no-such-user" } else { "root" };
    let cases = [
        (format!("url: \"http://a/mcp\", stdio: {{command: [sh], {}}}", user()), "cannot stand beside `url`"),
        ("timeout: 1s".to_owned(), "needs `url` or `stdio`"),
        (format!("stdio: {{command: [], {}}}", user()), "upstreams[0].stdio.command: must be a program"),
        (
            format!("stdio: {{command: [no-such-program], {}}}", user()),
            "there is no program `no-such-program` in /usr",
        ),
        (format!("stdio: {{command: [/etc/passwd], {}}}", user()), "/etc/passwd: no program"),
        (format!("stdio: {{command: [sh], user: {stranger}}}"), "upstreams[0].stdio.user: "),
        (
            format!("stdio: {{command: [sh], {} env: {{A: \"${{env:NO_SUCH_NAME}}\"}}}}", user()),
            "upstreams[0].stdio.env.A: ",
        ),
        (
            format!("stdio: {{command: [sh], {} env: {{A: \"${{file:no-such-file}}\"}}}}", user()),
            "no-such-file: No such file",
        ),
        (
            format!("stdio: {{command: [sh], {} env: {{A: \"${{file:pki/example.org.pem}}\"}}}}", user()),
            "others may read it",
        ),
        (format!("stdio: {{command: [sh], {} env: {{A: \"x${{env:HOME}}\"}}}}", user()), "stand alone"),
        (
            format!("stdio: {{command: [sh], {} limits: {{files: 0}}}}", user()),
            "limits.files: must be at least 1",
        ),
        (format!("stdio: {{command: [sh], {} directory: /no/such}}", user()), "/no/such: no such directory"),
        (format!("tls: {{}}, stdio: {{command: [sh], {}}}", user()), "upstreams[0].tls: has no meaning"),
        (
            format!("authorization: pass, stdio: {{command: [sh], {}}}", user()),
            "upstreams[0].authorization: has no",
        ),
        (
            format!("credential: {{file: agents.yaml}}, stdio: {{command: [sh], {}}}", user()),
            "upstreams[0].credential: has no",
        ),
        (format!("stdio: {{command: [sh], {} shell: true}}", user()), "shell"),
    ];
    for (upstream, expected) in &cases {
        let Err(mistakes) = stage.load(upstream) else { panic!("{upstream} was accepted") };
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{upstream}: {mistakes:#?}");
    }
    if root {
        let Err(mistakes) = stage.load("stdio: {command: [sh]}") else {
            panic!("root was taken without a word")
        };
        assert!(
            mistakes.iter().any(|mistake| mistake.contains("this gateway runs as root")),
            "{mistakes:#?}"
        );
    }
}
