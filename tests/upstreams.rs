//! Upstreams over TLS: HTTP/2 and HTTP/1.1, by host name and by SPIFFE ID.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holdpoint::config::{self, ListenerKind};
use holdpoint::demo::agent::Agent;
use holdpoint::{app, decide, pki};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An HTTPS API with the certificate `crm`; remembers version, authority and path of each request.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    async fn run(pki: &Path, alpn: &[&[u8]]) -> Upstream {
        let chain = CertificateDer::pem_file_iter(pki.join("crm.pem"))
            .unwrap()
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_file(pki.join("crm-key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Upstream { address, seen: Arc::default(), connections: Arc::default() };
        let (seen, connections) = (Arc::clone(&upstream.seen), Arc::clone(&upstream.connections));
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, acceptor) = (Arc::clone(&seen), acceptor.clone());
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| answer(Arc::clone(&seen), request));
                    let io = TokioIo::new(stream);
                    let _ = if h2 {
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await
                    } else {
                        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                    };
                });
            }
        });
        upstream
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(
    seen: Arc<Mutex<Vec<String>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let authority = request.uri().authority().map(ToString::to_string);
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    let line = format!(
        "{:?} {} {}",
        request.version(),
        authority.or(host).unwrap_or_default(),
        request.uri().path()
    );
    seen.lock().unwrap().push(line);
    Ok(Response::new(Full::new(Bytes::from_static(b"{}"))))
}

struct Stage {
    dir: PathBuf,
}

impl Stage {
    fn new(name: &str) -> Stage {
        let dir = std::env::temp_dir().join(format!("holdpoint-upstreams-{name}-{}", uuid::Uuid::now_v7()));
        pki::init(&dir.join("pki")).unwrap();
        pki::issue_agent(&dir.join("pki"), "agent/support").unwrap();
        pki::issue_gateway(&dir.join("pki"), "crm").unwrap();
        std::fs::create_dir(dir.join("policies")).unwrap();
        for (name, text) in decide::cedar::SHIPPED {
            std::fs::write(dir.join("policies").join(name), text).unwrap();
        }
        let agent = "- {id: spiffe://example.org/agent/support, autonomy: constrained, risk: 1,\n   \
                     owner: {business: a@example.org, technical: b@example.org, risk: c@example.org}}\n";
        std::fs::write(dir.join("agents.yaml"), agent).unwrap();
        std::fs::write(dir.join("crm.yaml"), "tools:\n  \"GET /v1/x\": {class: read, consequence: 0}\n")
            .unwrap();
        Stage { dir }
    }

    async fn gateway(&self, upstream: SocketAddr, tls: &str) -> (app::Running, Agent) {
        let text = format!(
            "organization: {{name: example}}\n\
             trust:\n  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}\n  domains:\n    \
             example.org: {{bundle: pki/example.org.pem, roles: [agents]}}\n\
             listeners: [{{name: agents, kind: agents, address: \"127.0.0.1:0\"}}]\n\
             agents: agents.yaml\n\
             upstreams: [{{name: crm, kind: http, url: \"https://localhost:{}\", catalog: crm.yaml, tls: {tls}}}]\n\
             policy: {{cedar: policies/}}\naudit: {{dir: audit}}\nkeys: {{dir: keys}}\n",
            upstream.port()
        );
        std::fs::write(self.dir.join("holdpoint.yaml"), text).unwrap();
        let loaded = match config::load(&self.dir.join("holdpoint.yaml")) {
            Ok(loaded) => loaded,
            Err(mistakes) => panic!("{mistakes:#?}"),
        };
        let running = app::start(loaded).await.unwrap();
        let pki = self.dir.join("pki");
        let address = running.address(ListenerKind::Agents).unwrap();
        let agent = Agent::new(
            address,
            &pki.join("support.pem"),
            &pki.join("support-key.pem"),
            &pki.join("example.org.pem"),
        );
        (running, agent.unwrap())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test]
async fn many_calls_share_one_http2_connection() {
    let stage = Stage::new("h2");
    let upstream = Upstream::run(&stage.dir.join("pki"), &[b"h2"]).await;
    let (gateway, agent) = stage.gateway(upstream.address, "{bundle: pki/example.org.pem}").await;
    for _ in 0..5 {
        let answer = agent.http("GET", "/crm/v1/x", None).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{}"[..]));
    }
    let expected = format!("HTTP/2.0 localhost:{} /v1/x", upstream.address.port());
    assert_eq!(upstream.seen(), vec![expected; 5]);
    assert_eq!(upstream.connections.load(Ordering::Relaxed), 1);
    gateway.drain().await;
}

#[tokio::test]
async fn calls_in_turn_reuse_one_http1_connection() {
    let stage = Stage::new("h1");
    let upstream = Upstream::run(&stage.dir.join("pki"), &[b"http/1.1"]).await;
    let (gateway, agent) = stage.gateway(upstream.address, "{bundle: pki/example.org.pem}").await;
    for _ in 0..5 {
        assert_eq!(agent.http("GET", "/crm/v1/x", None).await.unwrap().status, 200);
    }
    let expected = format!("HTTP/1.1 localhost:{} /v1/x", upstream.address.port());
    assert_eq!(upstream.seen(), vec![expected; 5]);
    assert_eq!(upstream.connections.load(Ordering::Relaxed), 1);
    gateway.drain().await;
}

#[tokio::test]
async fn an_upstream_must_be_the_workload_that_was_named() {
    let stage = Stage::new("spiffe");
    let upstream = Upstream::run(&stage.dir.join("pki"), &[b"h2", b"http/1.1"]).await;
    let right = "{bundle: pki/example.org.pem, spiffe_id: \"spiffe://example.org/crm\"}";
    let (gateway, agent) = stage.gateway(upstream.address, right).await;
    assert_eq!(agent.http("GET", "/crm/v1/x", None).await.unwrap().status, 200);
    assert_eq!(upstream.seen().len(), 1);
    gateway.drain().await;
    let wrong = "{bundle: pki/example.org.pem, spiffe_id: \"spiffe://example.org/other\"}";
    let (gateway, agent) = stage.gateway(upstream.address, wrong).await;
    assert_eq!(agent.http("GET", "/crm/v1/x", None).await.unwrap().status, 502);
    gateway.drain().await;
    let foreign = "{bundle: pki/people.pem}";
    let (gateway, agent) = stage.gateway(upstream.address, foreign).await;
    assert_eq!(agent.http("GET", "/crm/v1/x", None).await.unwrap().status, 502);
    assert_eq!(upstream.seen().len(), 1, "nothing was sent to an upstream that is somebody else");
    gateway.drain().await;
}
