//! The connector as a process, and what an agent on its machine can do with it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::World;
use holdpoint::config::ListenerKind;

/// Longer than anything here takes, even on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// `holdpoint connect`, with nothing of this environment's configuration.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    for name in ["HOLDPOINT_CONFIG", "HOLDPOINT_LOG", "SPIFFE_ENDPOINT_SOCKET"] {
        command.env_remove(name);
    }
    command.arg("connect").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The gateway's address and the upstream, as flags.
pub fn place(world: &World, upstream: &str) -> Vec<String> {
    let gateway = format!("https://{}", world.address(ListenerKind::Agents));
    ["--gateway", &gateway, "--upstream", upstream].map(str::to_owned).to_vec()
}

/// The files of an agent's SVID, as flags.
pub fn files(world: &World, agent: &str) -> Vec<String> {
    let pki = world.dir.join("pki");
    let file = |name: String| pki.join(name).display().to_string();
    vec![
        "--cert".to_owned(),
        file(format!("{agent}.pem")),
        "--key".to_owned(),
        file(format!("{agent}-key.pem")),
        "--bundle".to_owned(),
        file("example.org.pem".to_owned()),
    ]
}

/// A file with the token that only its owner can read.
pub fn token_file(world: &World) -> String {
    let file = world.dir.join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.display().to_string()
}

/// Whether the audit tells of nothing that anybody asked.
pub fn heard_nothing(world: &World) -> bool {
    let asked = |record: &serde_json::Value| {
        ["held", "intent", "refused"].contains(&record["type"].as_str().unwrap())
    };
    !world.records().iter().any(asked)
}

/// Stops a gateway that never heard of anything.
pub async fn untouched(mut world: World) {
    world.down().await;
    world.nothing_upstream();
    assert!(heard_nothing(&world), "{:#?}", world.records());
}

/// The user that runs this test.
pub fn me() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// A connector that listens.
pub struct Side {
    _child: Child,
    place: Place,
}

enum Place {
    Tcp(String),
    Unix(PathBuf),
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Side {
    /// The support agent's connector on a free port, for everybody.
    pub async fn open(world: &World, upstream: &str) -> Side {
        Side::with(world, upstream, &files(world, "support"), &["--listen", "127.0.0.1:0", "--no-local-auth"])
            .await
    }

    pub async fn with(world: &World, upstream: &str, identity: &[String], local: &[&str]) -> Side {
        let mut arguments = place(world, upstream);
        arguments.extend_from_slice(identity);
        arguments.extend(local.iter().map(|text| (*text).to_owned()));
        arguments.push("--json".to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut child = program(&arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = async {
            let mut said = String::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                let told: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(url) = told["listening"].as_str() {
                    return url.to_owned();
                }
                said.push_str(&line);
            }
            panic!("ended before it listened: {said}");
        };
        let url = tokio::time::timeout(SOON, listening).await.unwrap();
        // Whatever it says later must not block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let place = match url.strip_prefix("unix://") {
            Some(path) => Place::Unix(Path::new(path).to_owned()),
            None => Place::Tcp(url.strip_prefix("http://").unwrap().to_owned()),
        };
        Side { _child: child, place }
    }

    /// Its own name, for `Host`.
    pub fn host(&self) -> String {
        match &self.place {
            Place::Tcp(address) => address.clone(),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }

    pub async fn stream(&self) -> Box<dyn Stream> {
        match &self.place {
            Place::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
            Place::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        }
    }

    /// One request on a connection of its own, and the whole answer.
    pub async fn ask(&self, head: &str, body: &str) -> String {
        let mut asked = self.begin(head, body).await;
        asked.rest().await
    }

    /// The same, with the answer still to come.
    pub async fn begin(&self, head: &str, body: &str) -> Asked {
        let mut stream = self.stream().await;
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{head}\r\n{length}connection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        Asked { stream, read: String::new() }
    }

    /// A call of MCP with more headers.
    pub async fn call(&self, tool: &str, headers: &str) -> String {
        self.ask(&self.mcp(headers), &call(1, tool).to_string()).await
    }

    /// The head of a message of legacy MCP.
    pub fn mcp(&self, headers: &str) -> String {
        format!(
            "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25{headers}",
            self.host()
        )
    }
}

/// A request whose answer is still to come.
pub struct Asked {
    stream: Box<dyn Stream>,
    read: String,
}

impl Asked {
    /// Reads until the answer so far contains this.
    pub async fn until(&mut self, text: &str) {
        while !self.read.contains(text) {
            assert!(self.more().await, "ended before {text:?}: {}", self.read);
        }
    }

    /// Reads to the end.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        self.read.clone()
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(SOON, self.stream.read(&mut buffer)).await;
        let count = read.unwrap_or_else(|_| panic!("nothing more after {}", self.read)).unwrap_or(0);
        self.read.push_str(&String::from_utf8_lossy(&buffer[..count]));
        count > 0
    }
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    let word = answer.split(' ').nth(1).unwrap_or_else(|| panic!("no status line: {answer:?}"));
    word.parse().unwrap()
}

pub fn call(id: u32, tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
}

/// A connector on standard input and output, as a host has it.
pub struct Host {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Host {
    pub fn start(world: &World, upstream: &str) -> Host {
        let arguments =
            [place(world, upstream), files(world, "support"), vec!["--stdio".to_owned()]].concat();
        Host::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn run(arguments: &[&str]) -> Host {
        let mut command = program(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Host { input: child.stdin.take(), child, output }
    }

    pub async fn say(&mut self, message: &Value) {
        self.line(&message.to_string()).await;
    }

    pub async fn line(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        input.flush().await.unwrap();
    }

    /// The next line, which must be a message.
    pub async fn hears(&mut self) -> Value {
        let line = tokio::time::timeout(SOON, self.output.next_line()).await.expect("a line").unwrap();
        let line = line.expect("a line before the end");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Opens a legacy session.
    pub async fn initializes(&mut self) -> Value {
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        self.say(&json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": hello})).await;
        let opened = self.hears().await;
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        opened
    }

    /// Closes standard input; gives the lines that still came, and the code.
    pub async fn leaves(mut self) -> (Vec<String>, i32) {
        drop(self.input.take());
        let mut lines = Vec::new();
        let ended = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                lines.push(line);
            }
            self.child.wait().await.unwrap().code().unwrap()
        };
        let code = tokio::time::timeout(SOON * 4, ended).await.expect("an end");
        (lines, code)
    }
}
