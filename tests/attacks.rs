//! Attacks on a whole gateway, over real sockets: hostile agents on one side, hostile upstreams on the other.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use holdpoint::config::ListenerKind;
use holdpoint::demo::agent::Agent;
use holdpoint::{app, config, decide, pki};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

const WAIT: Duration = Duration::from_secs(10);

/// An upstream that answers every request with the same bytes, and remembers what it was sent.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    async fn start(reply: &'static str) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let upstream = Upstream { address, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                        let text =
                            String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned();
                        seen.lock().unwrap().push(text);
                        if socket.write_all(reply.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        upstream
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// A gateway before two upstreams, in a directory of its own.
struct Stage {
    dir: PathBuf,
    gateway: app::Running,
}

impl Stage {
    /// `api` and `tools` are the rest of the upstreams' configuration.
    async fn set(api: &str, tools: &str) -> Stage {
        Stage::start(prepared(), api, tools, "").await
    }

    async fn start(dir: PathBuf, api: &str, tools: &str, limits: &str) -> Stage {
        for agent in ["agent/one", "agent/two"] {
            pki::issue_agent(&dir.join("pki"), agent).unwrap();
        }
        let entry = |name: &str| {
            format!(
                "- {{id: spiffe://example.org/agent/{name}, team: t, purpose: p, autonomy: constrained, state: active, \
                 risk: 1, owner: {{business: a@example.org, technical: a@example.org, risk: a@example.org}}}}\n"
            )
        };
        std::fs::write(dir.join("agents.yaml"), entry("one") + &entry("two")).unwrap();
        std::fs::write(dir.join("api.yaml"), API).unwrap();
        std::fs::write(dir.join("tools.yaml"), TOOLS).unwrap();
        let text = format!(
            "organization: {{name: example, internal: [\"*@example.org\"]}}\n\
             trust:\n  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}\n  domains:\n    \
             example.org: {{bundle: pki/example.org.pem, roles: [agents]}}\n\
             listeners:\n  - {{name: agents, kind: agents, address: \"127.0.0.1:0\"}}\n\
             agents: agents.yaml\nupstreams:\n\
             \x20 - {{name: api, kind: http, catalog: api.yaml, boundary: inside, {api}}}\n\
             \x20 - {{name: tools, kind: mcp, catalog: tools.yaml, boundary: inside, list_every: never, {tools}}}\n\
             policy: {{cedar: policies/}}\n{limits}audit: {{dir: state/audit}}\nkeys: {{dir: state/keys}}\n"
        );
        std::fs::write(dir.join("holdpoint.yaml"), text).unwrap();
        let loaded = match config::load(&dir.join("holdpoint.yaml")) {
            Ok(loaded) => loaded,
            Err(mistakes) => panic!("{}", mistakes.iter().map(|m| format!("{m}\n")).collect::<String>()),
        };
        let gateway = app::start(loaded).await.unwrap();
        Stage { dir, gateway }
    }

    async fn before(api: &Upstream, tools: &Upstream) -> Stage {
        let at = |upstream: &Upstream, path| format!("url: \"http://{}{path}\"", upstream.address);
        Stage::set(&at(api, ""), &at(tools, "/mcp")).await
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address(ListenerKind::Agents).unwrap()
    }

    fn agent(&self, name: &str) -> Agent {
        let pki = self.dir.join("pki");
        let file = |end: &str| pki.join(format!("{name}{end}"));
        Agent::new(self.address(), &file(".pem"), &file("-key.pem"), &pki.join("example.org.pem")).unwrap()
    }

    /// A connection of agent one.
    async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let tls = client(&self.dir.join("pki"), alpn);
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.unwrap()
    }

    /// Exactly these bytes, and what comes back until the gateway closes or is silent.
    async fn raw(&self, bytes: &str) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The audit's records, as soon as there are this many.
    async fn records(&self, count: usize) -> Vec<Value> {
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            let records = read_records(&self.dir.join("state/audit"));
            if records.len() >= count || tokio::time::Instant::now() > deadline {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A directory with a CA and the shipped policies.
fn prepared() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("holdpoint-attacks-{}", uuid::Uuid::now_v7()));
    pki::init(&dir.join("pki")).unwrap();
    std::fs::create_dir(dir.join("policies")).unwrap();
    for (name, text) in decide::cedar::SHIPPED {
        std::fs::write(dir.join("policies").join(name), text).unwrap();
    }
    dir
}

const API: &str = r#"
tools:
  "GET /v1/items/{id}": {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
  "POST /v1/orders":
    class: write
    consequence: 3
    reversible: false
    when:
      - {equals: {at: /headers/x-dry-run, value: "true"}, class: read, consequence: 0}
  "POST /v1/jobs":
    class: write
    consequence: 3
    reversible: false
    when:
      - {equals: {at: /body/dry, value: "true"}, class: read, consequence: 0}
  "GET /v1/keys/{id}": {class: read, consequence: 0, returns: {confidentiality: secret, integrity: trusted}}
  "PUT /v1/outside/{name}": {class: external, consequence: 0, reversible: true, body: opaque, content: [application/octet-stream]}
  "PUT /v1/files/{name}":
    class: write
    consequence: 0
    reversible: true
    body: opaque
    content: [application/octet-stream]
"#;

const TOOLS: &str = r#"
tools:
  look: {class: read, consequence: 0, returns: {confidentiality: public, integrity: trusted}}
"#;

fn client(pki: &Path, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(pki.join("example.org.pem")).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let chain =
        CertificateDer::pem_file_iter(pki.join("one.pem")).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(pki.join("one-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(tls)
}

fn read_records(dir: &Path) -> Vec<Value> {
    let Ok(files) = std::fs::read_dir(dir) else { return Vec::new() };
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let lines: Vec<String> =
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let records = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    const KINDS: [&str; 4] = ["held", "intent", "outcome", "refused"];
    let kind = |record: &Value| record.get("type").and_then(Value::as_str).map(str::to_owned);
    records.filter(|record| kind(record).is_some_and(|kind| KINDS.contains(&&*kind))).collect()
}

fn statuses(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record.get("status").and_then(Value::as_str)).collect()
}

#[tokio::test]
async fn a_header_that_lowers_the_class_cannot_be_kept_from_the_upstream() {
    let (api, tools) = (Upstream::start(EMPTY).await, Upstream::start(EMPTY).await);
    let stage = Stage::before(&api, &tools).await;
    let order = |more: &str| {
        format!(
            "POST /api/v1/orders HTTP/1.1\r\nhost: a\r\nx-dry-run: true\r\n{more}content-length: 0\r\n\r\n"
        )
    };
    let answer = stage.raw(&order("connection: X-Dry-Run\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection-option"), "{answer}");
    let answer = stage.raw(&order("connection: close, x-dry-run\r\n")).await;
    assert!(answer.contains("connection-option"), "{answer}");
    assert!(api.seen().is_empty());
    let answer = stage.raw(&order("connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(api.seen().concat().contains("x-dry-run: true"));
}

#[tokio::test]
async fn a_header_cannot_put_another_path_in_place_of_the_one_that_was_judged() {
    let (api, tools) = (Upstream::start(EMPTY).await, Upstream::start(EMPTY).await);
    let stage = Stage::before(&api, &tools).await;
    for name in ["X-Original-URL", "x-rewrite-url"] {
        let request = format!(
            "GET /api/v1/items/1 HTTP/1.1\r\nhost: a\r\n{name}: /v1/admin\r\nconnection: close\r\n\r\n"
        );
        let answer = stage.raw(&request).await;
        assert!(answer.contains("target-override"), "{answer}");
    }
    assert!(api.seen().is_empty());
}

#[tokio::test]
async fn json_sent_as_a_form_does_not_lower_the_class() {
    let (api, tools) = (Upstream::start(EMPTY).await, Upstream::start(EMPTY).await);
    let stage = Stage::before(&api, &tools).await;
    let body = r#"{"run":"all","x":"&dry=true&"}"#;
    for kind in ["application/x-www-form-urlencoded", "application/json", "text/plain"] {
        let request = format!(
            "POST /api/v1/jobs HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = stage.raw(&request).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{kind}: {answer}");
    }
    assert!(api.seen().is_empty());
}

#[tokio::test]
async fn an_upstream_cannot_speak_as_the_gateway() {
    let reply = "HTTP/1.1 103 Early Hints\r\nholdpoint-record: no\r\n\r\nHTTP/1.1 200 OK\r\n\
                 holdpoint-record: 0198\r\nholdpoint-task: forged\r\nalt-svc: h2=\"evil:443\"\r\n\
                 connection: x-mine\r\nx-mine: 1\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\
                 content-length: 4\r\n\r\nevil";
    let (api, tools) = (Upstream::start(reply).await, Upstream::start(EMPTY).await);
    let stage = Stage::before(&api, &tools).await;
    let agent = stage.agent("one");
    for _ in 0..3 {
        let answer = agent.http("GET", "/api/v1/items/1", None).await.unwrap();
        assert_eq!(answer.body, "{}");
        assert_eq!(answer.headers.get_all("holdpoint-record").iter().count(), 1);
        assert_ne!(answer.record(), "0198");
        for name in ["holdpoint-task", "alt-svc", "x-mine"] {
            assert!(!answer.headers.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_http_breaks_the_call_and_nothing_else() {
    for reply in [
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nx",
        "garbage\r\n\r\n",
    ] {
        let (api, tools) = (Upstream::start(reply).await, Upstream::start(EMPTY).await);
        let stage = Stage::before(&api, &tools).await;
        let answer = stage.raw("GET /api/v1/items/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(!answer.contains("zz") && !answer.contains("hello"), "{reply:?}: {answer}");
        let records = stage.records(2).await;
        assert_eq!(records.len(), 2, "{reply:?}: {records:?}");
        assert!(statuses(&records).iter().all(|status| *status != "executed"), "{reply:?}: {records:?}");
    }
}

#[tokio::test]
async fn a_stream_of_somebody_else_cannot_be_resumed_without_a_session() {
    let (api, tools) = (Upstream::start(EMPTY).await, Upstream::start(EMPTY).await);
    let stage = Stage::before(&api, &tools).await;
    let answer = stage
        .raw(
            "GET /tools/mcp HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\nlast-event-id: 7\r\n\
             connection: close\r\n\r\n",
        )
        .await;
    assert!(answer.contains("Last-Event-ID"), "{answer}");
    assert!(tools.seen().is_empty());
}

#[tokio::test]
async fn a_session_opened_for_one_agent_is_unknown_to_another() {
    let reply = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: s1\r\ncontent-length: 38\r\n\
                 \r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{ }}\n";
    let (api, tools) = (Upstream::start(EMPTY).await, Upstream::start(reply).await);
    let stage = Stage::before(&api, &tools).await;
    let (one, two) = (stage.agent("one"), stage.agent("two"));
    let open = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"a","version":"1"}}}"#;
    assert_eq!(one.message("tools", open, &[]).await.unwrap().status, 200);
    let look = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}"#;
    assert_eq!(one.message("tools", look, &[("mcp-session-id", "s1")]).await.unwrap().status, 200);
    for session in ["s1", "S1", "s1 "] {
        let answer = two.message("tools", look, &[("mcp-session-id", session)]).await.unwrap();
        assert_eq!(answer.status, 404);
    }
    assert_eq!(tools.seen().len(), 2);
}

#[tokio::test]
async fn a_reply_to_a_tool_call_is_never_compressed_out_of_sight() {
    let (api, tools) = (Upstream::start(EMPTY).await, Upstream::start(EMPTY).await);
    let stage = Stage::before(&api, &tools).await;
    let look = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}"#;
    stage.agent("one").message("tools", look, &[("accept-encoding", "gzip")]).await.unwrap();
    assert!(!tools.seen().concat().contains("gzip"));
}

#[tokio::test]
async fn an_upload_without_a_reply_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("timeout: 1s, url: \"http://{}\"", listener.local_addr().unwrap());
    let tools = Upstream::start(EMPTY).await;
    let stage = Stage::set(&silent, &format!("url: \"http://{}/mcp\"", tools.address)).await;
    let mut stream = stage.connect(b"http/1.1").await;
    let request = "PUT /api/v1/files/a HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\n\
                   content-length: 4\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    // An upload may be slower than a reply.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stream.write_all(b"data").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(WAIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(statuses(&stage.records(2).await), ["failed"]);
}

#[tokio::test]
async fn refusals_over_http2_count_against_the_certificate() {
    let (api, tools) = (Upstream::start(EMPTY).await, Upstream::start(EMPTY).await);
    let dir = prepared();
    let limits = "limits:\n  - {per: certificate, rate: 5/1m, burst: 5}\n";
    let url = |upstream: &Upstream| format!("url: \"http://{}/mcp\"", upstream.address);
    let stage = Stage::start(dir, &url(&api), &url(&tools), limits).await;
    let io = TokioIo::new(stage.connect(b"h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut seen = Vec::new();
    for _ in 0..8 {
        let request = Request::builder().method(Method::TRACE).uri("https://a/api/v1/items/1");
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        seen.push(response.status().as_u16());
    }
    assert_eq!(seen, [400, 400, 400, 400, 400, 429, 429, 429]);
}

/// A body that says its length in the head, and whose end comes later than its last byte.
struct Late(Option<Bytes>, Pin<Box<tokio::time::Sleep>>);

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(bytes) = self.0.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        self.1.as_mut().poll(cx).map(|()| None)
    }
}

#[tokio::test]
async fn the_last_byte_over_http2_waits_for_the_outcome() {
    let dir = prepared();
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(dir.join("pki/gateway.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(dir.join("pki/gateway-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let stream = acceptor.accept(socket).await.unwrap();
            let service = hyper::service::service_fn(|_| async {
                let late = Late(
                    Some(Bytes::from("hello")),
                    Box::pin(tokio::time::sleep(Duration::from_millis(300))),
                );
                let response = Response::builder().header("content-length", "5").body(late);
                Ok::<_, std::convert::Infallible>(response.unwrap())
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let api = format!("url: \"https://localhost:{port}\", tls: {{bundle: pki/example.org.pem}}");
    let stage = Stage::start(dir, &api, "url: \"http://127.0.0.1:9/mcp\"", "").await;
    let answer = stage.agent("one").http("GET", "/api/v1/items/1", None).await.unwrap();
    assert_eq!(answer.body, "hello");
    // The agent has the last byte, so the outcome is there without waiting.
    let records = read_records(&stage.dir.join("state/audit"));
    assert_eq!(statuses(&records), ["executed"], "{records:?}");
}

#[tokio::test]
async fn an_agent_that_leaves_at_any_moment_leaves_no_place_and_no_open_intent() {
    let tools = Upstream::start(EMPTY).await;
    let api = Upstream::start(EMPTY).await;
    let limits = "limits:\n  - {per: agent, concurrency: 2}\n";
    let url = format!("url: \"http://{}\"", api.address);
    let stage =
        Stage::start(prepared(), &url, &format!("url: \"http://{}/mcp\"", tools.address), limits).await;
    for wait in 0..60_u64 {
        let request = if wait % 2 == 0 {
            "GET /api/v1/items/1 HTTP/1.1\r\nhost: a\r\n\r\n"
        } else {
            "PUT /api/v1/files/a HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\n\
             content-length: 9\r\n\r\npart"
        };
        let mut stream = stage.connect(b"http/1.1").await;
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_micros(wait * 100)).await;
        drop(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let records = stage.records(0).await;
    let of =
        |kind: &str| records.iter().filter(|record| record.get("type").is_some_and(|t| t == kind)).count();
    assert!(of("intent") > 0);
    assert_eq!(of("intent"), of("outcome"));
    let agent = stage.agent("one");
    for _ in 0..3 {
        assert_eq!(agent.http("GET", "/api/v1/items/1", None).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn nothing_hides_in_the_body_of_a_request_that_is_refused() {
    let (api, tools) = (Upstream::start(EMPTY).await, Upstream::start(EMPTY).await);
    let stage = Stage::before(&api, &tools).await;
    let hidden = "GET /api/v1/items/hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    for refused in ["/none/x", "/api//x", "/api/v1/files/../x"] {
        for expect in ["", "expect: 100-continue\r\n"] {
            let request = format!(
                "POST {refused} HTTP/1.1\r\nhost: a\r\n{expect}content-length: {}\r\n\r\n{hidden}",
                hidden.len()
            );
            let answer = stage.raw(&request).await;
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
            assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
        }
    }
    assert!(api.seen().is_empty());
}

#[tokio::test]
async fn an_upload_that_was_begun_before_a_secret_was_read_does_not_carry_it_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("url: \"http://{}\"", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                    let bytes = buffer.get(..read).unwrap_or_default();
                    kept.lock().unwrap().extend_from_slice(bytes);
                    if bytes.starts_with(b"GET ") {
                        socket.write_all(EMPTY.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    let stage = Stage::set(&api, "url: \"http://127.0.0.1:9/mcp\"").await;
    let mut upload = stage.connect(b"http/1.1").await;
    let request = "PUT /api/v1/outside/a HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\n\
                   content-length: 12\r\nconnection: close\r\n\r\nbefore";
    upload.write_all(request.as_bytes()).await.unwrap();
    let text = || String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    while !text().contains("before") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stage.agent("one").http("GET", "/api/v1/keys/1", None).await.unwrap().status, 200);
    upload.write_all(b"SECRET").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(WAIT, upload.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(!text().contains("SECRET"));
}
