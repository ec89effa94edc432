//! Telemetry through its front door: what a collector sees, and that no collector can slow or stop anything.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holdpoint::call::{AgentId, Class, Consequence, Era, Protocol, Stage, TraceContext, hex};
use holdpoint::telemetry::hop::{ErrorType, HoldMoment, MomentKind, Outcome, StageTime};
use holdpoint::telemetry::sink::{SeenSpan, Sink};
use holdpoint::telemetry::{Config, Hop, Loss, Otlp, Stages, Telemetry, spans};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const WAIT: Duration = Duration::from_secs(20);

fn config(endpoint: &str) -> Config {
    Config {
        otlp: Some(Otlp { endpoint: endpoint.to_owned() }),
        batch_delay: Duration::from_millis(20),
        export_timeout: Duration::from_secs(1),
        ..Config::default()
    }
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A tool call that was allowed: three stages, and 5 of its 10 ms upstream. Five spans.
fn tool_call() -> Box<Hop> {
    let parent = TraceContext { trace_id: spans::begin(None).trace_id, span_id: [7; 8], flags: 0 };
    let mut hop = Hop::new(Protocol::Mcp(Era::Legacy), spans::begin(Some(parent)), SystemTime::now());
    hop.parent = Some(parent);
    hop.link = Some(TraceContext { span_id: [9; 8], ..parent });
    hop.target.method = Arc::from("tools/call");
    hop.target.tool = Some(Arc::from("read_mail"));
    hop.target.rpc_id = Some(Arc::from("17"));
    hop.target.mcp_version = Some(Arc::from("2025-11-25"));
    hop.target.session = Some(Arc::from("s-1"));
    hop.target.http_method = Arc::from("POST");
    hop.target.route = Some(Arc::from("/mail/mcp?token=hush"));
    hop.caller.agent = Some(AgentId::from_normalised("spiffe://example.org/agent/support"));
    hop.caller.address = Some("127.0.0.1".parse().unwrap());
    hop.caller.port = Some(4711);
    hop.upstream.name = Arc::from("mail");
    hop.upstream.address = Some(Arc::from("user:hush@mail.internal"));
    hop.upstream.port = Some(8080);
    hop.upstream.span = spans::new_span_id();
    hop.upstream.status = Some(200);
    hop.decision.class = Some(Class::Read);
    hop.decision.consequence = Consequence::new(1);
    hop.decision.labels = vec!["confidential".into(), "untrusted".into()];
    hop.status = Some(200);
    hop.timing.total = millis(10);
    hop.timing.upstream = Some((millis(4), millis(9)));
    hop.timing.stages = [Stage::Accept, Stage::Identify, Stage::Decode, Stage::Decide, Stage::Forward]
        .into_iter()
        .zip(0..)
        .map(|(stage, n)| StageTime { stage, start: millis(n), end: millis(n + 1) })
        .collect();
    hop.into()
}

const SPANS: u64 = 5;

fn named<'a>(spans: &'a [SeenSpan], name: &str) -> &'a SeenSpan {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

fn kind<'a>(spans: &'a [SeenSpan], kind: &str) -> &'a SeenSpan {
    spans.iter().find(|span| span.kind == kind).unwrap_or_else(|| panic!("no {kind} in {spans:#?}"))
}

#[tokio::test]
async fn an_mcp_call_arrives_with_its_names_attributes_and_parentage() {
    let sink = Sink::start().await.unwrap();
    let telemetry = Telemetry::start(&config(&sink.endpoint())).unwrap();
    let hop = tool_call();
    assert_eq!(hop.timing.overhead(), millis(5));
    let (trace, record) = (hop.trace, hop.record.to_string());
    telemetry.finished(hop);
    let spans = sink.trace(trace.trace_id, WAIT).await;
    assert_eq!(spans.len() as u64, SPANS, "{spans:#?}");

    let server = kind(&spans, "SERVER");
    assert_eq!(server.name, "tools/call read_mail");
    assert_eq!((server.span_id.clone(), server.parent_id.clone()), (hex(&trace.span_id), hex(&[7; 8])));
    assert_eq!(server.links, [hex(&[9; 8])]);
    assert!(!server.status_error);
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "read_mail"),
        ("gen_ai.operation.name", "execute_tool"),
        ("jsonrpc.request.id", "17"),
        ("mcp.protocol.version", "2025-11-25"),
        ("mcp.session.id", "s-1"),
        ("network.protocol.name", "http"),
        ("network.protocol.version", "1.1"),
        ("network.transport", "tcp"),
        ("client.address", "127.0.0.1"),
        ("client.port", "4711"),
        ("http.request.method", "POST"),
        ("http.route", "/mail/mcp"),
        ("http.response.status_code", "200"),
        ("holdpoint.agent.id", "spiffe://example.org/agent/support"),
        ("holdpoint.upstream", "mail"),
        ("holdpoint.class", "read"),
        ("holdpoint.consequence", "1"),
        ("holdpoint.decision", "allowed"),
        ("holdpoint.labels", "confidential,untrusted"),
        ("holdpoint.record.id", &record),
    ] {
        assert_eq!(server.attributes.get(key).map(String::as_str), Some(value), "{key}");
    }

    let client = kind(&spans, "CLIENT");
    assert_eq!(client.parent_id, server.span_id);
    assert_eq!(client.attributes["server.address"], "mail.internal");
    assert_eq!(client.attributes["server.port"], "8080");
    assert_eq!(client.end_ns - client.start_ns, 5_000_000);
    for stage in ["holdpoint.identify", "holdpoint.decode", "holdpoint.decide"] {
        assert_eq!(named(&spans, stage).parent_id, server.span_id);
    }
    assert!(!format!("{spans:?}").contains("hush"));
    let tree = spans::tree_text(&spans);
    assert!(tree.starts_with("tools/call read_mail"), "{tree}");
    assert!(tree.contains("\n  holdpoint.decide"), "{tree}");

    assert_eq!(sink.resource()["service.name"], "holdpoint");
    assert_eq!(sink.resource()["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(sink.last_request().0, "/v1/traces");
    telemetry.shutdown().await;
}

#[tokio::test]
async fn stages_can_be_events_and_modern_calls_have_no_session() {
    let sink = Sink::start().await.unwrap();
    let config = Config { stages: Stages::Events, ..config(&sink.endpoint()) };
    let telemetry = Telemetry::start(&config).unwrap();
    let mut hop = tool_call();
    hop.protocol = Protocol::Mcp(Era::Modern);
    hop.target.tool = Some(Arc::from(format!("a\u{1b}[2J\u{202e}b{}", "x".repeat(1_000_000)).as_str()));
    let trace = hop.trace;
    telemetry.finished(hop);
    let spans = sink.trace(trace.trace_id, WAIT).await;
    assert_eq!(spans.len(), 2);
    let server = kind(&spans, "SERVER");
    assert_eq!(server.events, ["holdpoint.identify", "holdpoint.decode", "holdpoint.decide"]);
    assert!(!server.attributes.contains_key("mcp.session.id"));
    assert_eq!(server.attributes["gen_ai.tool.name"].chars().count(), 256);
    assert!(server.attributes["gen_ai.tool.name"].starts_with("a\u{fffd}[2J\u{fffd}b"));
    telemetry.shutdown().await;
}

#[tokio::test]
async fn refusals_are_errors_and_always_exported_whatever_the_sampling() {
    let sink = Sink::start().await.unwrap();
    let telemetry = Telemetry::start(&Config { sample: 0.0, ..config(&sink.endpoint()) }).unwrap();
    telemetry.finished(tool_call());
    for (outcome, error) in
        [(Outcome::Denied, "denied"), (Outcome::Held, "held"), (Outcome::Limited, "limited")]
    {
        let mut hop = tool_call();
        hop.decision.outcome = outcome;
        hop.timing.upstream = None;
        let trace = hop.trace;
        telemetry.finished(hop);
        let spans = sink.trace(trace.trace_id, WAIT).await;
        let server = kind(&spans, "SERVER");
        assert!(server.status_error);
        assert_eq!(server.attributes["error.type"], error);
        assert!(spans.iter().all(|span| span.kind != "CLIENT"), "nothing was sent upstream");
    }
    let mut hop = tool_call();
    hop.error = Some(ErrorType::Tool);
    let trace = hop.trace;
    telemetry.finished(hop);
    let spans = sink.trace(trace.trace_id, WAIT).await;
    assert!(kind(&spans, "CLIENT").status_error && kind(&spans, "SERVER").status_error);
    telemetry.shutdown().await;
    assert_eq!(sink.total(), 3 * (SPANS - 1) + SPANS);
    assert_eq!(telemetry.metrics().dropped(), 0);
}

#[tokio::test]
async fn a_hold_is_seen_while_it_waits() {
    let sink = Sink::start().await.unwrap();
    let telemetry = Telemetry::start(&config(&sink.endpoint())).unwrap();
    let trace = spans::begin(None);
    telemetry.hold_moment(Box::new(HoldMoment {
        kind: MomentKind::Opened,
        trace,
        parent: None,
        link: None,
        hold: Arc::from("h-1"),
        agent: None,
        upstream: Arc::from("mail"),
        rule: Arc::from("exfiltration"),
        outcome: Outcome::Held,
        approvers: Vec::new(),
        start: SystemTime::now(),
        took: Duration::ZERO,
    }));
    telemetry.shutdown().await;
    let all = sink.all();
    assert_eq!(named(&all, "holdpoint.hold.opened").attributes["holdpoint.hold.id"], "h-1");
}

/// How a bad collector behaves after a connection.
#[derive(Clone, Copy)]
enum Bad {
    Silent,
    Says(&'static [u8]),
    Drips,
}

async fn collector(bad: Bad) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                match bad {
                    Bad::Silent => tokio::time::sleep(Duration::from_secs(600)).await,
                    Bad::Says(answer) => {
                        while let Ok(1..) = stream.read(&mut buffer).await {
                            if stream.write_all(answer).await.is_err() {
                                return;
                            }
                        }
                    }
                    Bad::Drips => {
                        let _ = stream.read(&mut buffer).await;
                        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
                        for byte in head.iter().chain(std::iter::repeat(&b'x')) {
                            if stream.write_all(&[*byte]).await.is_err() {
                                return;
                            }
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    }
                }
            });
        }
    });
    endpoint
}

/// 20,000 calls against a collector: nothing blocks, and every span is either confirmed or counted as lost.
async fn everything_is_accounted_for(endpoint: &str, expected: Loss) {
    let config = Config {
        queue_max: 256,
        export_timeout: Duration::from_millis(300),
        flush_timeout: Duration::from_millis(600),
        ..config(endpoint)
    };
    let telemetry = Telemetry::start(&config).unwrap();
    let calls = 20_000;
    // No await between them: on this single thread nothing but `finished` itself could make them wait.
    for _ in 0..calls {
        telemetry.finished(tool_call());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    telemetry.shutdown().await;
    let metrics = telemetry.metrics();
    assert_eq!(metrics.exported() + metrics.dropped(), calls * SPANS, "{}", metrics.render());
    assert!(metrics.dropped_by(expected) > 0, "{}", metrics.render());
    telemetry.finished(tool_call());
    assert_eq!(
        metrics.exported() + metrics.dropped(),
        (calls + 1) * SPANS,
        "what comes later is counted too"
    );
}

#[tokio::test]
async fn a_collector_that_is_not_there_changes_nothing() {
    everything_is_accounted_for("http://127.0.0.1:1", Loss::QueueFull).await;
}

#[tokio::test]
async fn a_black_hole_changes_nothing() {
    let endpoint = collector(Bad::Silent).await;
    everything_is_accounted_for(&endpoint, Loss::Timeout).await;
}

#[tokio::test]
async fn a_byte_a_second_changes_nothing() {
    let endpoint = collector(Bad::Drips).await;
    everything_is_accounted_for(&endpoint, Loss::Timeout).await;
}

/// One call against a collector that answers so; the reason for which its spans are lost.
async fn lost_by(answer: &'static [u8], expected: Loss, spans: u64) {
    let telemetry = Telemetry::start(&config(&collector(Bad::Says(answer)).await)).unwrap();
    telemetry.finished(tool_call());
    telemetry.shutdown().await;
    let metrics = telemetry.metrics();
    assert_eq!(metrics.dropped_by(expected), spans, "{}", metrics.render());
    assert_eq!(metrics.exported(), SPANS - spans);
    assert_eq!(metrics.dropped(), spans);
}

#[tokio::test]
async fn a_lying_collector_is_not_believed() {
    lost_by(b"\x00\x01garbage\r\n\r\n", Loss::Garbage, SPANS).await;
    lost_by(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
        Loss::Garbage,
        SPANS,
    )
    .await;
    lost_by(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 6\r\n\r\n<html>",
        Loss::Garbage,
        SPANS,
    )
    .await;
    lost_by(
        b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        Loss::Redirect,
        SPANS,
    )
    .await;
    lost_by(b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n", Loss::Status, SPANS).await;
    // Partial success: 2 of 5 rejected; then more than there are.
    lost_by(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 4\r\n\r\n\x0a\x02\x08\x02",
        Loss::Rejected,
        2,
    )
    .await;
    lost_by(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 4\r\n\r\n\x0a\x02\x08\x63",
        Loss::Rejected,
        SPANS,
    )
    .await;
}

#[tokio::test]
async fn a_busy_collector_is_asked_again_within_the_bound() {
    let telemetry = Telemetry::start(&Config {
        export_timeout: Duration::from_secs(4),
        ..config(&collector(Bad::Says(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")).await)
    })
    .unwrap();
    telemetry.finished(tool_call());
    telemetry.shutdown().await;
    assert_eq!(telemetry.metrics().dropped_by(Loss::Status), SPANS);
}

#[tokio::test]
async fn export_resumes_when_the_collector_is_back() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = port.local_addr().unwrap();
    drop(port);
    let telemetry = Telemetry::start(&config(&format!("http://{address}"))).unwrap();
    telemetry.finished(tool_call());
    while telemetry.metrics().dropped() == 0 {
        tokio::time::sleep(millis(20)).await;
    }
    let sink = Sink::start_at(address).await.unwrap();
    let hop = tool_call();
    let trace = hop.trace;
    telemetry.finished(hop);
    assert_eq!(sink.trace(trace.trace_id, WAIT).await.len() as u64, SPANS);
    telemetry.shutdown().await;
    let metrics = telemetry.metrics();
    assert_eq!((metrics.exported(), metrics.dropped()), (SPANS, SPANS));
}

#[tokio::test]
async fn shutdown_flushes_what_is_queued() {
    let sink = Sink::start().await.unwrap();
    let telemetry =
        Telemetry::start(&Config { batch_delay: Duration::from_secs(3600), ..config(&sink.endpoint()) })
            .unwrap();
    for _ in 0..100 {
        telemetry.finished(tool_call());
    }
    telemetry.shutdown().await;
    assert_eq!((sink.total(), telemetry.metrics().exported()), (100 * SPANS, 100 * SPANS));
}

#[tokio::test]
async fn the_environment_wins() {
    let sink = Sink::start().await.unwrap();
    let run = async |disabled: &str| {
        tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_with_an_environment", "--ignored", "--nocapture"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint())
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "3000")
            .env("OTEL_SERVICE_NAME", "edge")
            .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=test")
            .env("OTEL_SDK_DISABLED", disabled)
            .status()
            .await
            .unwrap()
    };
    assert!(run("true").await.success());
    assert_eq!(sink.total(), 0);
    assert!(run("").await.success());
    assert_eq!(sink.total(), SPANS);
    assert_eq!(sink.resource()["service.name"], "edge");
    assert_eq!(sink.resource()["deployment.environment"], "test");
    let (path, headers) = sink.last_request();
    assert_eq!((path.as_str(), headers["x-tenant"].as_str()), ("/v1/traces", "blue"));
}

#[tokio::test]
#[ignore = "run by the_environment_wins, in a process of its own"]
async fn child_with_an_environment() {
    let telemetry = Telemetry::start(&config("http://127.0.0.1:1")).unwrap();
    telemetry.finished(tool_call());
    telemetry.shutdown().await;
}

#[test]
fn metrics_are_well_formed_and_agents_cannot_add_series() {
    let telemetry = Telemetry::start(&Config::default()).unwrap();
    let series = |n: usize| {
        let mut hop = tool_call();
        hop.target.method = Arc::from(format!("evil/{n}").as_str());
        hop.target.tool = Some(Arc::from(format!("evil_tool_{n}").as_str()));
        hop.target.http_method = Arc::from(format!("EVIL{n}").as_str());
        hop.error = Some(ErrorType::Rpc(n as i64));
        hop.timing.people = millis(2);
        telemetry.finished(hop);
        telemetry.metrics().render().lines().count()
    };
    telemetry.finished(tool_call());
    let first = series(0);
    for n in 1..200 {
        assert_eq!(series(n), first);
    }
    let metrics = telemetry.metrics();
    metrics.holds_pending(3);
    metrics.hold_ended(Outcome::Executed, Duration::from_secs(90));
    metrics.audit_committed(1234, millis(1));
    metrics.connection_refused("no_certificate");
    metrics.trust_expiry(&Arc::from("server"), 3600.0);
    metrics.reviews_due(2);
    let text = metrics.render();
    assert!(!text.to_lowercase().contains("evil"), "{text}");
    well_formed(&text);
    for line in [
        "mcp_server_operation_duration_seconds_count{mcp_method_name=\"tools/call\",holdpoint_upstream=\"mail\",error_type=\"\"} 1",
        "holdpoint_calls_total{class=\"read\",decision=\"allowed\",mode=\"enforce\"} 201",
        "holdpoint_holds_pending 3",
        "holdpoint_audit_bytes_total 1234",
        "holdpoint_telemetry_dropped_total{reason=\"queue_full\"} 0",
        "holdpoint_refused_connections_total{reason=\"no_certificate\"} 1",
        "holdpoint_trust_expiry_seconds{name=\"server\"} 3600.0",
        "holdpoint_reviews_due 2",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line}\nnot in\n{text}");
    }
    for name in ["mcp_client_operation_duration_seconds", "http_server_request_duration_seconds"] {
        assert!(text.contains(&format!("# TYPE {name} histogram")), "{name}\n{text}");
    }
}

/// What `promtool check metrics` looks at first: every line parses, every sample belongs to a typed family, no series twice.
fn well_formed(text: &str) {
    assert!(text.ends_with("# EOF\n"));
    let sample =
        regex::Regex::new(r#"^([a-z_][a-z0-9_]*)(\{([a-z_]+="[^"]*",?)*\})? (-?[0-9.e+-]+|NaN|\+Inf)$"#)
            .unwrap();
    let mut families = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(rest.split(' ').next().unwrap().to_owned()), "twice: {line}");
        } else if !line.starts_with('#') {
            let parts = sample.captures(line).unwrap_or_else(|| panic!("not a sample: {line}"));
            let name = &parts[1];
            let suffixes = ["", "_total", "_bucket", "_sum", "_count"];
            let of_family =
                |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|base| families.contains(base));
            assert!(suffixes.iter().any(of_family), "no TYPE: {line}");
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
        }
    }
}

#[test]
#[ignore = "prints a figure; run it with --release"]
fn cost_of_finished() {
    let telemetry = Telemetry::start(&Config { queue_max: 300_000, ..config("http://127.0.0.1:1") }).unwrap();
    let hops: Vec<_> = (0..100_000).map(|_| tool_call()).collect();
    let start = std::time::Instant::now();
    for hop in hops {
        telemetry.finished(hop);
    }
    println!("finished_ns: {}", start.elapsed().as_nanos() / 100_000);
}
