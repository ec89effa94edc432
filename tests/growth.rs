//! How the cost of a call grows with what there is: policies, agents, runs, records, arguments.
//!
//! Nothing here asserts. Each test prints one JSON line for each point; `integration/bench/growth.py` runs them, draws
//! `docs/plots` and writes the block of `docs/performance.md`.

#![expect(clippy::unwrap_used, reason = "a measurement ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use holdpoint::call::{
    AgentId, AgentProfile, Auth, Autonomy, Class, Consequence, Integrity, PolicyAction, PolicyInput, Profile,
    RecordId, ResourceKind, ResourceProfile,
};
use holdpoint::classify::catalog::{Catalog, UpstreamConfig, UpstreamKind};
use holdpoint::classify::sink::Internal;
use holdpoint::classify::{self, Question, Subject};
use holdpoint::config::catalog::{Source, catalog};
use holdpoint::decide::Policy;
use holdpoint::decide::cedar::SHIPPED;
use holdpoint::decide::schema::Facts;
use holdpoint::decode::jsonrpc::Message;
use holdpoint::flow::text::FlowKey;
use holdpoint::flow::{self, Label, RunKey, Runs};
use holdpoint::json::{Limits, Members};
use holdpoint::limit::{self, Dimension, Meters, Rate, Rule};
use holdpoint::record::verify::{Status, verify};
use holdpoint::record::{Config, Durability, Entry, Kind, Ledger, restore};
use holdpoint::store::Place;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;

/// The allocator of the program: memory is measured as there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 9;
/// How long one round takes at least.
const ROUND_TIME: Duration = Duration::from_millis(40);

/// Prints a point: where it lies, and what each round gave.
fn point(plot: &str, series: &str, x: usize, values: &[f64]) {
    println!("{}", json!({"plot": plot, "series": series, "x": x, "values": values}));
}

/// Nanoseconds of one call, in each of several rounds; the call is given its number.
fn nanoseconds(mut call: impl FnMut(usize)) -> Vec<f64> {
    let mut number = 0;
    let mut round = |at_least: Duration| {
        let (start, before) = (Instant::now(), number);
        while start.elapsed() < at_least {
            for _ in 0..16 {
                call(number);
                number += 1;
            }
        }
        start.elapsed().as_nanos() as f64 / (number - before) as f64
    };
    round(ROUND_TIME / 4);
    (0..ROUNDS).map(|_| round(ROUND_TIME)).collect()
}

/// One of so many, evenly and without an order that a table could profit from or be defeated by.
fn any(number: usize, count: usize) -> usize {
    let mut mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % count as u64) as usize
}

fn resident_bytes() -> f64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

fn profile(number: usize) -> Arc<AgentProfile> {
    Arc::new(AgentProfile {
        id: AgentId::from_normalised(&format!("spiffe://example.org/agent/worker-{number}")),
        owner: "ana@example.org".into(),
        owned: true,
        team: "care".into(),
        groups: vec!["tier-1".into()],
        purpose: "answers what customers ask".into(),
        autonomy: Autonomy::Constrained,
        risk: 1,
        region: "eu".into(),
        vendor: None,
    })
}

fn input(agent: &Arc<AgentProfile>, resource: &Arc<ResourceProfile>) -> PolicyInput {
    PolicyInput {
        agent: Arc::clone(agent),
        action: PolicyAction::of(Class::Read),
        resource: Arc::clone(resource),
        class: Class::Read,
        consequence: Consequence::new(1).unwrap(),
        effects: vec![],
        labels: vec!["confidential".into()],
        findings: vec![],
        profile: Default::default(),
        calls: 7,
        task: None,
        facts: BTreeMap::new(),
        tiers: vec![],
        destinations_internal: false,
        on_behalf_of: None,
        auth: Auth { method: "mtls", bound: true, instance: "01".into() },
        now: SystemTime::now(),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        approval: None,
        break_glass: None,
    }
}

fn lookup() -> Arc<ResourceProfile> {
    Arc::new(ResourceProfile {
        kind: ResourceKind::Tool,
        upstream: "mail".into(),
        name: "lookup".into(),
        listed: true,
        class: Class::Read,
        consequence: Consequence::new(1).unwrap(),
        reversible: true,
        idempotent: true,
        integrity: Integrity::Trusted,
        environment: "".into(),
        region: "".into(),
        data_domain: "".into(),
        inside: true,
        trusted: true,
        pinned: true,
        drift: None,
    })
}

/// The policies that are shipped, and more.
fn policy(more: String) -> Policy {
    let mut files = SHIPPED.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
    files.push(("more.cedar".to_owned(), more));
    Policy::load(&files, &Facts::new()).unwrap()
}

/// `cargo test --release --test growth policies -- --exact --ignored --nocapture`.
#[test]
#[ignore = "prints figures and asserts nothing"]
fn policies() {
    type Concerns = fn(usize) -> String;
    let kinds: [(&str, Concerns); 2] = [
        ("about other tools", |at| format!("Holdpoint::Tool::\"other/{at}\"")),
        ("about this tool", |_| "Holdpoint::Tool::\"mail/lookup\"".to_owned()),
    ];
    let (agent, resource) = (profile(0), lookup());
    for (kind, concerns) in kinds {
        for count in [10, 30, 100, 300, 1_000] {
            let rules = (0..count).map(|at| {
                format!(
                    "@id(\"x{at}\") forbid (principal, action, resource == {}) when {{ principal.risk >= 3 && \
                     context.consequence >= 2 }};\n",
                    concerns(at)
                )
            });
            let policy = policy(rules.collect());
            let call = input(&agent, &resource);
            let known = nanoseconds(|_| drop(black_box(policy.evaluate(&call))));
            let anew = nanoseconds(|_| drop(black_box(policy.evaluate_fresh(&call))));
            point("policies", &format!("remembered, {kind}"), count, &known);
            point("policies", &format!("anew, {kind}"), count, &anew);
        }
    }
}

fn rate(count: u32) -> Rate {
    let count = NonZeroU32::new(count).unwrap();
    Rate { count, period: Duration::from_secs(60), burst: count }
}

/// The limits of an ordinary deployment, too generous to be reached here.
fn meters() -> Meters {
    let rule = |name: &str, per: &[Dimension], concurrency| Rule {
        name: name.to_owned(),
        per: per.to_vec(),
        class: None,
        rate: Some(rate(1 << 30)),
        concurrency,
    };
    Meters::new(limit::Config {
        certificate: rate(1 << 30),
        rules: vec![
            rule("agent", &[Dimension::Agent], None),
            rule("agent-tool", &[Dimension::Agent, Dimension::Tool], Some(1000)),
        ],
    })
}

fn runs() -> Runs {
    let config = flow::Config { window: Duration::from_secs(1800), profile: Profile::Balanced };
    Runs::new(config, FlowKey::new(&[7; 32]))
}

fn at(agent: &AgentId, run: &Arc<str>) -> RunKey {
    RunKey { agent: agent.clone(), run: Arc::clone(run), trace: None, instance: None, isolated: None }
}

/// `cargo test --release --test growth agents -- --exact --ignored --nocapture`.
#[test]
#[ignore = "prints figures and asserts nothing"]
fn agents() {
    let grouped =
        "@id(\"staff\") forbid (principal in Holdpoint::AgentGroup::\"staff\", action, resource);\n";
    for count in [10, 100, 1_000, 10_000, 100_000] {
        let resource = lookup();
        let ids: Vec<Arc<AgentProfile>> = (0..count).map(profile).collect();
        let own: Vec<Arc<str>> = (0..count).map(|at| Arc::from(format!("run-of-{at}"))).collect();
        let (meters, runs, now) = (meters(), runs(), SystemTime::now());
        let limited = |at: usize| {
            let agent = &ids[at].id;
            let (upstream, tool) = (&resource.upstream, &resource.name);
            drop(limit::acquire(&meters, limit::Subject { agent, upstream, tool, class: Class::Read }));
        };
        let entered = |at: usize| {
            let place = self::at(&ids[at].id, &own[at]);
            black_box(flow::enter(&runs, &place, now));
            flow::sent(&runs, &place, &[Label::Confidential], RecordId::new(), now);
        };
        for at in 0..count {
            entered(at);
            limited(at);
        }
        point("agents", "entering flow", count, &nanoseconds(|number| entered(any(number, count))));
        point("agents", "entering limits", count, &nanoseconds(|number| limited(any(number, count))));
        for (series, more) in [("by attributes", ""), ("by identity", grouped)] {
            let policy = policy(more.to_owned());
            let decided = |at: usize| drop(black_box(policy.evaluate(&input(&ids[at], &resource))));
            (0..count).for_each(decided);
            let taken = nanoseconds(|number| decided(any(number, count)));
            point("agents", &format!("decision {series}"), count, &taken);
        }
    }
}

/// `cargo test --release --test growth sessions -- --exact --ignored --nocapture`.
#[test]
#[ignore = "prints figures and asserts nothing"]
fn sessions() {
    for count in [10, 100, 1_000, 10_000, 100_000] {
        let (runs, agent, now) = (runs(), profile(0), SystemTime::now());
        let own: Vec<Arc<str>> = (0..count).map(|at| Arc::from(format!("trace:{at:032x}"))).collect();
        let entered = |at: usize| drop(black_box(flow::enter(&runs, &self::at(&agent.id, &own[at]), now)));
        (0..count.min(10_000)).for_each(entered);
        let taken = nanoseconds(|number| entered(any(number, count)));
        point("runs", "runs of one agent", count, &taken);
    }
}

/// In a process of its own, so that nothing that was freed before is taken again:
/// `cargo test --release --test growth memory -- --exact --ignored --nocapture`.
#[test]
#[ignore = "prints figures and asserts nothing"]
fn memory() {
    let (resource, now) = (lookup(), SystemTime::now());
    let trace = |at: usize| -> Arc<str> { Arc::from(format!("trace:{at:032x}")) };
    let ids: Vec<AgentId> = (0..100_000).map(|at| profile(at).id.clone()).collect();
    let (meters, runs) = (meters(), runs());
    let (mut from, before) = (0, resident_bytes());
    for count in [1_000, 10_000, 100_000] {
        for (at, agent) in ids.iter().enumerate().take(count).skip(from) {
            black_box(flow::enter(&runs, &self::at(agent, &trace(at)), now));
            let (upstream, tool) = (&resource.upstream, &resource.name);
            let _ = limit::acquire(&meters, limit::Subject { agent, upstream, tool, class: Class::Read });
        }
        from = count;
        point("agent-memory", "flow and limits", count, &[(resident_bytes() - before) / count as f64]);
    }
    let (agents, before) = (1_000, resident_bytes());
    for agent in &ids[..agents] {
        (0..1_023).for_each(|at| drop(flow::enter(&runs, &self::at(agent, &trace(200_000 + at)), now)));
    }
    point("run-memory", "a run", 1_024, &[(resident_bytes() - before) / (1_023 * agents) as f64]);
}

/// What the upstream's side of a standing stream takes by itself: a connection of hyper's client for HTTP/1.1, on which a
/// reply is under way: `cargo test --test growth standing -- --exact --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints figures and asserts nothing"]
async fn standing() {
    const CONNECTIONS: usize = 8_000;
    const REPLY: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                           8\r\n: open\n\n\r\n";
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = std::thread::spawn(move || {
        let mut open = Vec::with_capacity(CONNECTIONS);
        while open.len() < CONNECTIONS {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 1024]).unwrap();
            socket.write_all(REPLY).unwrap();
            open.push(socket);
        }
        open
    });
    let mut open = Vec::with_capacity(CONNECTIONS);
    let mut before = resident_bytes();
    for at in 0..CONNECTIONS {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("/mcp").header("host", "upstream").body(Empty::<Bytes>::new()).unwrap();
        let mut reply = sender.send_request(request).await.unwrap().into_body();
        assert_eq!(reply.frame().await.unwrap().unwrap().into_data().unwrap(), ": open\n\n");
        open.push((sender, reply));
        if at + 1 == CONNECTIONS / 10 {
            before = resident_bytes();
        }
    }
    let taken = (resident_bytes() - before) / (CONNECTIONS - CONNECTIONS / 10) as f64;
    point("standing", "an upstream's connection", CONNECTIONS, &[taken]);
    drop((open, upstream.join().unwrap()));
}

/// A directory that goes with the measurement.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let root = std::env::var_os("HOLDPOINT_GROWTH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = root.join(format!("holdpoint-{}", RecordId::new()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn open(&self) -> (Ledger, holdpoint::record::Recovered) {
        Ledger::open(Config { queue_max: 1 << 15, ..Config::new(&self.0) }).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An intent of the size that a call of a tool has, and its outcome.
fn pair(number: usize) -> [Entry; 2] {
    let mut said = Members::default();
    said.object("agent", |agent| {
        agent.text("id", &format!("spiffe://example.org/agent/worker-{}", number % 1_000));
    });
    said.text("upstream", "mail");
    said.text("tool", "lookup");
    let mut members = said.clone();
    members.texts("brings", ["confidential"]);
    members.text("input", &"x".repeat(800));
    let intent = Entry::new(Kind::Intent, Some([7; 16]), members);
    said.text("status", "executed");
    said.text("reply", &"x".repeat(150));
    let outcome = Entry::outcome(intent.id(), Some([7; 16]), said);
    [intent, outcome]
}

/// Fills a log up to this many records.
async fn fill(ledger: &Ledger, from: usize, to: usize) {
    for number in from / 2..to / 2 {
        let [intent, outcome] = pair(number);
        ledger.append_detached(intent);
        if number % 512 == 511 || number + 1 == to / 2 {
            ledger.append(outcome, Durability::Written).await.unwrap();
        } else {
            ledger.append_detached(outcome);
        }
    }
    assert_eq!(ledger.stats().lost, 0);
}

/// Microseconds of one append, one after the other.
async fn written(ledger: &Ledger) -> f64 {
    let start = Instant::now();
    for number in 0..200 {
        for entry in pair(number) {
            ledger.append(entry, Durability::Written).await.unwrap();
        }
    }
    start.elapsed().as_secs_f64() * 1e6 / 400.0
}

/// Microseconds for each of many that are synced, 64 at once.
async fn synced(ledger: &Ledger) -> f64 {
    let start = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                for number in 0..4 {
                    for entry in pair(task * 4 + number) {
                        ledger.append(entry, Durability::Synced).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    start.elapsed().as_secs_f64() * 1e6 / 512.0
}

fn milliseconds(mut what: impl FnMut()) -> f64 {
    let start = Instant::now();
    what();
    start.elapsed().as_secs_f64() * 1e3
}

fn restored(dir: &Dir, end: Place) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut labels = 0;
    restore::labels(&dir.0, None, end, DAY, |_, _, _| labels += 1).unwrap();
    black_box(labels);
}

/// `cargo test --release --test growth records -- --exact --ignored --nocapture`; HOLDPOINT_GROWTH_RECORDS_MAX says
/// how far it goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures and asserts nothing"]
async fn records() {
    let most = std::env::var("HOLDPOINT_GROWTH_RECORDS_MAX").map_or(1_000_000, |most| most.parse().unwrap());
    let mut dir = Dir::new();
    let mut count = 0;
    for x in [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000] {
        if x > most {
            break;
        }
        let (ledger, _) = dir.open();
        fill(&ledger, count, x).await;
        drop(ledger);
        count = x;
        let rounds = if x > 1_000_000 { 3 } else { 5 };
        let opened = (0..rounds).map(|_| milliseconds(|| drop(dir.open())));
        point("reopen", "reopening the audit", x, &opened.collect::<Vec<_>>());
        let end = (dir.open().0.end())();
        let labels = (0..rounds).map(|_| milliseconds(|| restored(&dir, end)));
        point("reopen", "labels", x, &labels.collect::<Vec<_>>());
        let checked = (0..rounds.min(3)).map(|_| {
            let start = Instant::now();
            assert_eq!(verify(&dir.0).unwrap().status, Status::Ok);
            start.elapsed().as_secs_f64() * 1e3
        });
        point("reopen", "verification", x, &checked.collect::<Vec<_>>());
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (ledger, _) = dir.open();
            alone.push(written(&ledger).await);
            together.push(synced(&ledger).await);
            drop(ledger);
            count += 400 + 512;
            if x < 10_000 {
                // A small log would not stay one: each round has its own.
                dir = Dir::new();
                let (ledger, _) = dir.open();
                fill(&ledger, 0, x).await;
                count = x;
            }
        }
        point("append", "written", x, &alone);
        point("append", "synced", x, &together);
    }
    let bytes: u64 = fs::read_dir(&dir.0).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    point("record-bytes", "bytes of a record", count, &[bytes as f64 / count as f64]);
}

fn mail() -> Catalog {
    let none: Arc<str> = Arc::from("");
    let config = UpstreamConfig {
        name: Arc::from("mail"),
        kind: UpstreamKind::Mcp,
        environment: none.clone(),
        region: none.clone(),
        data_domain: none,
        inside: true,
        trusted: false,
        strict: false,
        asks: holdpoint::classify::catalog::Asks::usual(false),
        methods: Vec::new(),
        shadow: None,
    };
    let mut internal = Internal::default();
    internal.add("*@example.org").unwrap();
    let text = include_str!("../catalog/mail.yaml");
    let mut mistakes = Vec::new();
    let catalog =
        catalog(internal, vec![Source { upstream: config, file: Some(("mail.yaml", text)) }], &mut mistakes);
    assert!(mistakes.is_empty(), "{mistakes:?}");
    catalog
}

/// So many parts, joined by commas, that there are this many bytes of them.
fn parts(bytes: usize, part: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        text += if number == 0 { "" } else { "," };
        text += &part(number);
    }
    text
}

/// `cargo test --release --test growth arguments -- --exact --ignored --nocapture`.
#[test]
#[ignore = "prints figures and asserts nothing"]
fn arguments() {
    let mail = mail();
    let upstream = mail.upstreams().next().unwrap();
    for kib in [1, 4, 16, 64] {
        let bytes = kib << 10;
        let to = r#""recipients":["ana@example.org"]"#;
        for (series, arguments) in [
            ("one long text", format!(r#"{to},"body":"{}""#, "w ".repeat(bytes / 2))),
            ("many short members", format!("{to},{}", parts(bytes, |at| format!(r#""key-{at}":{at}"#)))),
            (
                "many recipients",
                format!(r#""recipients":[{}]"#, parts(bytes, |at| format!(r#""person-{at}@example.org""#))),
            ),
        ] {
            let text = Bytes::from(format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"send_email","arguments":{{{arguments}}}}}}}"#
            ));
            let taken = nanoseconds(|_| {
                let message = Message::read(text.clone(), &Limits::default()).unwrap();
                let arguments = message.params().and_then(|params| params.get("arguments"));
                let subject = Subject::Tool { name: "send_email", arguments };
                drop(black_box(classify::facts(&mail, &Question { upstream, subject }).unwrap()));
            });
            point("arguments", series, kib, &taken);
        }
    }
}
