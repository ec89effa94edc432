//! When something ends before its time: clients, upstreams, the disk, the collector, the gateway itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fake::{Does, Fake, eventually, json as reply};
use crate::harness::{World, call};

#[tokio::test]
async fn an_agent_that_leaves_a_read_ends_it_upstream() {
    let odd = Fake::that(|_| Does::Nothing).await;
    let world = World::odd(odd, "", "").await;
    let mut raw = world.raw("support").await;
    raw.send("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    world.odd.has_seen(1).await;
    drop(raw);
    world.odd.was_left(1).await;
    assert_eq!(world.eventually("client-gone").await["reason"], "client-gone");
    world.join().await;
}

#[tokio::test]
async fn an_agent_that_leaves_within_a_reply_that_it_reads_ends_it_upstream() {
    let first = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nbegin".to_owned();
    let odd = Fake::that(move |_| Does::WritesThen(first.clone(), String::new())).await;
    let world = World::odd(odd, "", "").await;
    let mut raw = world.raw("support").await;
    raw.send("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(raw.until("begin").await);
    drop(raw);
    world.odd.was_left(1).await;
    assert_eq!(world.eventually("client-gone").await["reply"]["bytes"], 5);
    world.join().await;
}

#[tokio::test]
async fn a_write_goes_on_when_its_agent_leaves() {
    let message = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
    let text = reply(message);
    let (head, rest) = text.split_at(text.len() - 10);
    let (head, rest) = (head.to_owned(), rest.to_owned());
    let odd = Fake::that(move |seen| {
        let early = seen.head.starts_with("POST /v1/invoices");
        let first = if early { String::new() } else { head.clone() };
        Does::WritesThen(first, if early { reply("{}") } else { rest.clone() })
    })
    .await;
    let world = World::odd(odd, "", "").await;

    // Before the reply began.
    let mut raw = world.raw("support").await;
    raw.send("POST /odd/v1/invoices HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    world.odd.has_seen(1).await;
    drop(raw);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.odd.left(), 0);
    world.odd.go_on();
    assert_eq!(world.eventually("executed").await["upstream"], "odd");

    // Within the reply.
    let mut raw = world.raw("support").await;
    raw.message("oddmcp", &call(1, "note", json!({}))).await;
    assert!(raw.until("jsonrpc").await);
    drop(raw);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.odd.left(), 0);
    world.odd.go_on();
    eventually(
        || {
            let records = world.records();
            let executed = records.iter().filter(|record| record["status"] == "executed");
            executed.count() == 2
        },
        "the write has no outcome",
    )
    .await;
    world.join().await;
}

#[tokio::test]
async fn an_agent_that_leaves_a_modern_call_or_a_stream_ends_it_upstream() {
    let first =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"begun\":1}\n\n".to_owned();
    let odd = Fake::that(move |_| Does::WritesThen(first.clone(), String::new())).await;
    let world = World::odd(odd, "", "").await;
    let mut raw = world.raw("support").await;
    raw.message("oddmcp", &call(1, "countdown", json!({}))).await;
    assert!(raw.until("begun").await);
    drop(raw);
    world.odd.was_left(1).await;

    // A modern write is the client's to end as well: that is how that era cancels.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"note","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let mut raw = world.raw("support").await;
    raw.send(format!(
        "POST /oddmcp/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: note\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    assert!(raw.until("begun").await, "{}", raw.text());
    drop(raw);
    world.odd.was_left(2).await;
    let gone = || world.records().iter().filter(|record| record["status"] == "client-gone").count() == 2;
    eventually(gone, "both outcomes say that the agent left").await;
    world.join().await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_was_sent_nothing() {
    let odd = Fake::polite().await;
    odd.stop();
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = agent.http("POST", "/odd/v1/invoices", Some(json!({}))).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.outcome()), (502, "unavailable".to_owned()));
    let outcome = world.outcome(&answer);
    assert_eq!((&outcome["status"], &outcome["reason"]), (&json!("failed"), &json!("upstream-connect")));
    let answer = agent.tool("oddmcp", "note", json!({})).await.unwrap();
    assert_eq!(answer.json()["error"]["code"], -31010, "{answer:?}");
    assert_eq!(world.outcome(&answer)["reason"], "upstream-connect");
    world.join().await;
}

#[tokio::test]
async fn an_upstream_that_never_replies_is_not_waited_for_without_end() {
    let odd = Fake::that(|_| Does::Nothing).await;
    let world = World::odd(odd, ", timeout: 1s", "").await;
    let answer = world.agent("support").http("POST", "/odd/v1/invoices", Some(json!({}))).await.unwrap();
    assert_eq!(answer.status, 504);
    let outcome = world.outcome(&answer);
    assert_eq!((&outcome["status"], &outcome["reason"]), (&json!("failed"), &json!("upstream-timeout")));
    world.odd.was_left(1).await;
    assert_eq!(world.odd.seen().len(), 1);
    world.join().await;
}

#[tokio::test]
async fn a_reply_that_breaks_off_breaks_off_for_the_agent_too() {
    let odd = Fake::that(|_| {
        Does::WritesAndCloses(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"half\":"
                .to_owned(),
        )
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let mut raw = world.raw("support").await;
    raw.send("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(raw.until("half").await);
    assert!(!raw.until("never").await, "the connection ends short of its length");
    assert_eq!(world.eventually("broken").await["intent"], raw.header("holdpoint-record"));
    world.join().await;
}

#[tokio::test]
async fn what_may_have_reached_the_upstream_is_never_sent_again() {
    let odd = Fake::that(|_| Does::WritesAndCloses(String::new())).await;
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    for (method, path) in [("POST", "/odd/v1/invoices"), ("GET", "/odd/v1/invoices/1")] {
        let before = world.odd.seen().len();
        let answer = agent.http(method, path, None).await.unwrap();
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(world.outcome(&answer)["reason"], "upstream-broken");
        assert_eq!(world.odd.seen().len(), before + 1);
    }
    world.join().await;
}

#[tokio::test]
async fn on_a_kept_connection_nothing_is_sent_again_either() {
    let odd = Fake::that(|seen| {
        if seen.head.starts_with("GET") {
            Does::Writes(reply("{}"))
        } else {
            Does::WritesAndCloses(String::new())
        }
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    assert_eq!(agent.http("GET", "/odd/v1/invoices/1", None).await.unwrap().status, 200);
    let answer = agent.http("POST", "/odd/v1/invoices", Some(json!({}))).await.unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(world.odd.seen().len(), 2);
    world.join().await;
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_closed_costs_no_call() {
    let odd = Fake::that(|_| Does::WritesAndCloses(reply("{}"))).await;
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    for round in 0..20 {
        let body = (round % 2 == 0).then(|| json!({}));
        let (method, path) =
            if body.is_some() { ("POST", "/odd/v1/invoices") } else { ("GET", "/odd/v1/invoices/1") };
        assert_eq!(agent.http(method, path, body).await.unwrap().status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.odd.seen().len(), 20);
    world.join().await;
}

#[tokio::test]
async fn a_collector_that_is_not_there_changes_nothing() {
    let world = World::with("telemetry: {otlp: {endpoint: \"http://127.0.0.1:9\"}}").await;
    let agent = world.agent("support");
    for _ in 0..20 {
        assert_eq!(agent.tool("mail", "search_customers", json!({})).await.unwrap().outcome(), "allowed");
    }
    drop(agent);
    world.join().await;
}

#[tokio::test]
async fn a_call_under_way_is_finished_before_the_gateway_ends() {
    let text = reply("{\"slow\":true}");
    let odd = Fake::that(move |_| Does::WritesThen(String::new(), text.clone())).await;
    let mut world = World::odd(odd, "", "").await;
    let mut raw = world.raw("support").await;
    raw.send("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    world.odd.has_seen(1).await;
    let running = world.running.take().unwrap();
    let ending = tokio::spawn(running.drain());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!ending.is_finished(), "a call is under way");
    world.odd.go_on();
    assert!(raw.until("slow").await, "{}", raw.text());
    tokio::time::timeout(crate::harness::SOON, ending).await.unwrap().unwrap();
    assert_eq!(world.outcome_of(&raw.header("holdpoint-record"))["status"], "executed");
    world.join().await;
}

#[tokio::test]
async fn two_gateways_never_write_one_audit() {
    let world = World::start().await;
    let file = world.dir.join("holdpoint.yaml");
    let with_its_own_store =
        std::fs::read_to_string(&file).unwrap() + "store: {sqlite: other/holdpoint.db}\n";
    std::fs::write(&file, with_its_own_store).unwrap();
    let loaded = holdpoint::config::load(&world.dir.join("holdpoint.yaml"));
    let Ok(loaded) = loaded else { panic!("the configuration is good") };
    let second = holdpoint::app::start(loaded).await;
    assert!(matches!(second, Err(holdpoint::app::StartError::Audit(_))));
    assert_eq!(world.agent("support").tool("mail", "note", json!({})).await.unwrap().outcome(), "allowed");
    world.join().await;
}

/// A tiny file system of its own at the audit's place; `None` where that is not allowed.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(dir: &std::path::Path) -> Option<Disk> {
        std::fs::create_dir_all(dir).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Disk(dir.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        // The gateway's own end could not remove what was mounted.
        let _ = self.0.parent().map(std::fs::remove_dir_all);
    }
}

#[tokio::test]
async fn without_room_for_the_record_nothing_leaves_and_it_recovers() {
    let dir = std::env::temp_dir().join(format!("holdpoint-gateway-{}", holdpoint::call::RecordId::new()));
    let Some(disk) = Disk::mount(&dir.join("audit")) else {
        eprintln!("skipped: mounting a file system is not allowed here");
        return;
    };
    let world = World::odd_in(dir, Fake::polite().await, "", "").await;
    let agent = world.agent("support");
    assert_eq!(agent.tool("mail", "note", json!({})).await.unwrap().outcome(), "allowed");
    let ballast = world.dir.join("audit/ballast");
    let filled = std::fs::write(&ballast, vec![0; 2 << 20]);
    assert!(filled.is_err(), "the disk is full");

    // What is left of the last page still takes a small record.
    let small = async |tool| {
        agent.tool("mail", tool, json!({})).await.is_ok_and(|answer| answer.outcome() != "allowed")
    };
    for _ in 0..20 {
        if small("note").await && small("search_customers").await && small("note").await {
            break;
        }
    }
    let seen = world.mail.seen().len();
    for tool in ["search_customers", "note"] {
        let answer = agent.tool("mail", tool, json!({})).await.unwrap();
        assert_eq!(answer.json()["error"]["code"], -31010, "{tool}: {answer:?}");
        assert_eq!(answer.outcome(), "unavailable");
    }
    for (method, path) in [("GET", "/crm/v1/invoices/1001"), ("POST", "/crm/v1/invoices")] {
        let answer = agent.http(method, path, None).await.unwrap();
        assert_eq!(answer.status, 503, "{method}");
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(world.mail.seen().len(), seen);
    assert!(world.crm.seen().is_empty());

    std::fs::remove_file(&ballast).unwrap();
    let mut last = Value::Null;
    for _ in 0..200 {
        let answer = agent.tool("mail", "note", json!({})).await.unwrap();
        last = answer.json();
        if answer.outcome() == "allowed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(last.get("result").is_some(), "{last:#}");
    drop(agent);
    let mut world = world;
    world.down().await;
    // Calls whose outcome found no room are told of by the next start.
    world.up().await;
    world.join().await;
    drop(disk);
}

#[tokio::test]
async fn a_write_whose_outcome_finds_no_room_is_not_called_unsent() {
    const CALLS: usize = 24;
    let dir = std::env::temp_dir().join(format!("holdpoint-gateway-{}", holdpoint::call::RecordId::new()));
    let Some(disk) = Disk::mount(&dir.join("audit")) else {
        eprintln!("skipped: mounting a file system is not allowed here");
        return;
    };
    let odd =
        Fake::that(|_| Does::WritesThen(String::new(), "HTTP/1.1 204 No Content\r\n\r\n".to_owned())).await;
    let mut world = World::odd_in(dir, odd, "", "").await;
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let mut raw = world.raw("support").await;
        raw.send("POST /odd/v1/invoices HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
        calls.push(raw);
    }
    world.odd.has_seen(CALLS).await;
    // The last page of the log has room for some outcomes, and not for all.
    assert!(std::fs::write(world.dir.join("audit/ballast"), vec![0; 2 << 20]).is_err());
    let mut unrecorded = 0;
    for _ in 0..CALLS {
        world.odd.go_on();
    }
    for raw in &mut calls {
        assert!(raw.until("\r\n\r\n").await);
        if !raw.text().starts_with("HTTP/1.1 204") {
            assert!(raw.until("may have had its effect").await, "{}", raw.text());
            assert_eq!(raw.header("retry-after"), "");
            unrecorded += 1;
        }
    }
    assert!(unrecorded > 0);
    drop(calls);
    std::fs::remove_file(world.dir.join("audit/ballast")).unwrap();
    world.down().await;
    world.up().await;
    let unknown = world.records().iter().filter(|record| record["status"] == "unknown").count();
    assert_eq!(unknown, unrecorded, "the next start tells of each");
    world.join().await;
    drop(disk);
}
