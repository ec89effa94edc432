//! What people and dashboards are told of holds, and of a gate that nobody attends.

use std::time::Duration;

use holdpoint::config;
use holdpoint::telemetry::sink::{SeenSpan, Sink};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

/// A receiver that answers each request with the next status, and then with 204; it gives what it was sent.
async fn receiver(mut statuses: Vec<u16>) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = Vec::new();
            while !whole(&text) {
                let mut piece = [0; 4096];
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => text.extend_from_slice(&piece[..read]),
                }
            }
            let status = if statuses.is_empty() { 204 } else { statuses.remove(0) };
            let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = sender.send(String::from_utf8(text).unwrap()).await;
        }
    });
    (port, receiver)
}

/// Whether a request has all of its body.
fn whole(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    body.len() >= length.trim().parse().unwrap()
}

fn header<'t>(request: &'t str, name: &str) -> &'t str {
    request.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn next(told: &mut tokio::sync::mpsc::Receiver<String>) -> String {
    tokio::time::timeout(SOON, told.recv()).await.unwrap().unwrap()
}

/// The section of configuration for one webhook. Its secret is where the test put it.
fn section(port: u16, secret: &std::path::Path, events: &str) -> String {
    format!(
        "notify:\n  console: https://gateway.internal\n  webhooks:\n    - {{name: chat, url: \"http://127.0.0.1:{port}/\", secret_file: {}, events: [{events}]}}\n",
        secret.display()
    )
}

fn secret(mode: u32) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = std::env::temp_dir().join(format!("hp-secret-{}", holdpoint::call::RecordId::new()));
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[tokio::test]
async fn people_are_told_in_order_and_again_until_they_have_it() {
    let (port, mut told) = receiver(vec![503]).await;
    let key = secret(0o600);
    let world = World::having("wait: 0s", &section(port, &key, "hold.opened, hold.voted, hold.ended")).await;
    let secretive = json!({"to": "bob@example.com", "subject": "the very words"});
    world.agent("support").tool("mail", "send_email", secretive).await.unwrap();
    let hold = world.pending(1).await.remove(0);
    assert_eq!(world.says("olga", "deny", &hold).await.status, 200);
    let (failed, again, voted, ended) =
        (next(&mut told).await, next(&mut told).await, next(&mut told).await, next(&mut told).await);
    assert_eq!(header(&failed, "webhook-id"), header(&again, "webhook-id"), "it is the same, told again");
    assert_ne!(header(&again, "webhook-id"), header(&voted, "webhook-id"));
    let kinds: Vec<Value> = [&failed, &again, &voted, &ended].map(|one| body(one)["type"].clone()).into();
    assert_eq!(kinds, ["hold.opened", "hold.opened", "hold.voted", "hold.ended"]);
    assert_eq!(body(&again)["data"]["state"], "pending", "it tells what was so then");
    assert_eq!(body(&ended)["data"]["state"], "denied");
    let link = format!("https://gateway.internal/holds/{}", hold["id"].as_str().unwrap());
    assert_eq!(body(&ended)["link"], link);
    for request in [failed, again, voted, ended] {
        assert!(header(&request, "webhook-signature").starts_with("v1,"), "{request}");
        assert!(!request.contains("the very words") && !request.contains("bob@example.com"), "{request}");
    }
    world.join().await;
    std::fs::remove_file(key).unwrap();
}

#[tokio::test]
async fn whoever_may_see_a_hold_sees_what_nobody_was_told_of_it_and_has_it_told_again() {
    let (port, mut told) = receiver(vec![410]).await;
    let key = secret(0o600);
    let world = World::having("wait: 0s", &section(port, &key, "hold.opened")).await;
    world.agent("support").tool("mail", "send_email", json!({"to": "bob@example.com"})).await.unwrap();
    let first = next(&mut told).await;
    let dead = async |person: &str| {
        let answer = world.person(person).http("GET", "/v1/notifications?state=dead", None).await.unwrap();
        answer.json()["notifications"].as_array().unwrap().clone()
    };
    let end = tokio::time::Instant::now() + SOON;
    while dead("oda").await.is_empty() {
        assert!(tokio::time::Instant::now() < end, "a receiver that is gone is told nothing more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let [one] = &dead("oda").await[..] else { panic!("one") };
    assert_eq!(one["id"], header(&first, "webhook-id"));
    assert_eq!((&one["event"], &one["failure"]), (&json!("hold.opened"), &json!("it answered 410 Gone")));
    assert_eq!(dead("pia").await, [] as [Value; 0], "another team sees nothing of it");
    let path = format!("/v1/notifications/{}/retry", one["id"].as_str().unwrap());
    assert_eq!(world.person("pia").http("POST", &path, None).await.unwrap().status, 404);
    let retried = world.person("oda").http("POST", &path, None).await.unwrap();
    assert_eq!(retried.status, 200, "{retried:?}");
    assert_eq!(retried.json()["state"], "waiting");
    assert_eq!(header(&next(&mut told).await, "webhook-id"), header(&first, "webhook-id"));
    assert_eq!(
        world.person("oda").http("GET", "/v1/notifications?state=lost", None).await.unwrap().status,
        400
    );
    world.join().await;
    std::fs::remove_file(key).unwrap();
}

#[tokio::test]
async fn the_life_of_a_hold_is_a_trace_that_is_linked_to_its_calls() {
    let sink = Sink::start().await.unwrap();
    let telemetry =
        format!("telemetry: {{otlp: {{endpoint: \"{}\", protocol: http/protobuf}}}}\n", sink.endpoint());
    let mut world = World::having("wait: 0s", &telemetry).await;
    let send = async || {
        world
            .agent("support")
            .tool("mail", "send_email", json!({"to": "bob@example.com"}))
            .await
            .unwrap()
            .json()
    };
    assert_eq!(outcome(&send().await), "pending");
    let hold = world.pending(1).await.remove(0);
    world.approved("olga", &hold).await;
    assert_eq!(outcome(&send().await), "allowed");
    world.down().await;
    let all = sink.all();
    let trace = hold["id"].as_str().unwrap().replace('-', "");
    let of: Vec<&SeenSpan> = all.iter().filter(|span| span.trace_id == trace).collect();
    let one = |name: &str| {
        let found: Vec<_> = of.iter().filter(|span| span.name == format!("holdpoint.hold.{name}")).collect();
        let [span] = found.as_slice() else { panic!("{name}: {of:#?}") };
        **span
    };
    let (opened, decided, released, ended) = (one("opened"), one("decided"), one("released"), one("ended"));
    assert_eq!(opened.parent_id, "");
    for after in [decided, released, ended] {
        assert_eq!(after.parent_id, opened.span_id);
    }
    let calls: Vec<&SeenSpan> =
        all.iter().filter(|span| span.kind == "SERVER" && span.name.starts_with("tools/call")).collect();
    let [held, executed] = calls.as_slice() else { panic!("{calls:#?}") };
    assert_eq!(opened.links, std::slice::from_ref(&held.span_id), "the call that was held");
    assert_eq!(released.links, std::slice::from_ref(&executed.span_id), "the call that goes on");
    assert_eq!(decided.links, std::slice::from_ref(&opened.span_id));
    assert!(decided.attributes["holdpoint.hold.approvers"].contains("olga"), "{decided:#?}");
    assert_eq!(ended.attributes["holdpoint.decision"], "executed");
    world.join().await;
}

#[tokio::test]
async fn people_are_told_of_an_emergency_of_its_end_and_of_a_review_that_nobody_makes() {
    use sqlx::ConnectOptions as _;
    let (port, mut told) = receiver(vec![503]).await;
    let key = secret(0o600);
    let all = holdpoint::webhook::EVENTS.into_iter().filter(|event| event.starts_with("breakglass."));
    let mut world =
        World::having("wait: 0s", &section(port, &key, &all.collect::<Vec<_>>().join(", "))).await;
    let wish = json!({"rules": ["hold-high-consequence"], "agents": ["agent/support"], "for": "30m", "reason": "the very words"});
    let lift = world.person("gus").http("POST", "/v1/breakglass", Some(wish)).await.unwrap().json();
    let path = format!("/v1/breakglass/{}", lift["id"].as_str().unwrap());
    let (failed, opened) = (next(&mut told).await, next(&mut told).await);
    assert_eq!(header(&failed, "webhook-id"), header(&opened, "webhook-id"), "it is the same, told again");
    let close = json!({"reason": "it is out"});
    let closed = world.person("olga").http("DELETE", &path, Some(close)).await.unwrap();
    assert_eq!(closed.status, 200, "{closed:?}");
    let ended = next(&mut told).await;
    // Half a day later.
    world.down().await;
    let store = sqlx::sqlite::SqliteConnectOptions::new().filename(world.dir.join("state/holdpoint.db"));
    let mut store = store.connect().await.unwrap();
    let half_a_day = holdpoint::store::lifts::UNREVIEWED_AFTER.as_micros() as i64;
    sqlx::query("UPDATE lift SET closed_at = closed_at - ?")
        .bind(half_a_day)
        .execute(&mut store)
        .await
        .unwrap();
    drop(store);
    world.up().await;
    let mut unreviewed = next(&mut told).await;
    // What was told just before the gateway went down may not have been noted: it is told once more, as the same.
    while header(&unreviewed, "webhook-id") == header(&ended, "webhook-id") {
        unreviewed = next(&mut told).await;
    }
    let review = json!({"reason": "looked at"});
    let reviewed =
        world.person("auditor").http("POST", &format!("{path}/review"), Some(review)).await.unwrap();
    assert_eq!(reviewed.status, 200, "{reviewed:?}");
    let reviewed = next(&mut told).await;
    let requests = [opened, ended, unreviewed, reviewed];
    let said = requests.each_ref().map(|one| (body(one)["type"].clone(), body(one)["data"]["state"].clone()));
    let expected =
        [("opened", "open"), ("closed", "ended"), ("unreviewed", "ended"), ("reviewed", "reviewed")];
    assert_eq!(said, expected.map(|(word, state)| (json!(format!("breakglass.{word}")), json!(state))));
    for request in &requests {
        assert!(header(request, "webhook-signature").starts_with("v1,"), "{request}");
        assert!(
            !request.contains("the very words") && !request.contains("it is out"),
            "why is not told: {request}"
        );
        let body = body(request);
        let link = format!("https://gateway.internal/breakglass#{}", lift["id"].as_str().unwrap());
        assert_eq!((&body["link"], &body["data"]["lift"]), (&json!(link), &lift["id"]));
        assert_eq!(body["data"]["agents"], json!(["spiffe://example.org/agent/support"]));
    }
    let words: Vec<Value> = world
        .records()
        .into_iter()
        .filter(|record| record["type"] == "breakglass")
        .map(|record| record["what"].clone())
        .collect();
    assert_eq!(words, ["opened", "closed", "unreviewed", "reviewed"], "each once");
    world.join().await;
    std::fs::remove_file(key).unwrap();
}

#[tokio::test]
async fn what_nobody_was_told_of_an_emergency_is_seen_by_all_and_told_again_by_who_sees_everything() {
    let (port, mut told) = receiver(vec![410]).await;
    let key = secret(0o600);
    let world = World::having("wait: 0s", &section(port, &key, "breakglass.opened")).await;
    let wish =
        json!({"rules": ["hold-high-consequence"], "agents": ["agent/support"], "for": "30m", "reason": "x"});
    let lift = world.person("gus").http("POST", "/v1/breakglass", Some(wish)).await.unwrap().json();
    let first = next(&mut told).await;
    let dead = async |person: &str| {
        let answer = world.person(person).http("GET", "/v1/notifications?state=dead", None).await.unwrap();
        answer.json()["notifications"].as_array().unwrap().clone()
    };
    let end = tokio::time::Instant::now() + SOON;
    while dead("pia").await.is_empty() {
        assert!(tokio::time::Instant::now() < end, "a receiver that is gone is told nothing more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let [one] = &dead("pia").await[..] else { panic!("one") };
    assert_eq!((&one["lift"], &one["hold"]), (&lift["id"], &Value::Null));
    let path = format!("/v1/notifications/{}/retry", one["id"].as_str().unwrap());
    assert_eq!(world.person("pia").http("POST", &path, None).await.unwrap().status, 403);
    assert_eq!(dead("pia").await.len(), 1, "it stays as it was");
    let retried = world.person("auditor").http("POST", &path, None).await.unwrap();
    assert_eq!(retried.status, 200, "{retried:?}");
    assert_eq!(header(&next(&mut told).await, "webhook-id"), header(&first, "webhook-id"));
    world.join().await;
    std::fs::remove_file(key).unwrap();
}

/// The configuration of a world, changed.
fn changed(world: &World, from: &str, to: &str) -> Result<config::Loaded, Vec<String>> {
    let file = world.dir.join("holdpoint.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    let other = world.dir.join("changed.yaml");
    std::fs::write(&other, text.replace(from, to)).unwrap();
    config::load(&other)
        .map_err(|mistakes| mistakes.iter().map(|one| format!("{}: {}", one.path, one.problem)).collect())
}

#[tokio::test]
async fn a_gate_that_nobody_attends_is_seen_before_a_call_waits_at_it() {
    let mut world = World::start().await;
    let manned = changed(&world, "audit: {dir", "audit: {dir").unwrap();
    assert_eq!(config::unmanned(&manned), [], "people with every role are there");
    let warned = config::warnings(&manned);
    assert!(warned.iter().any(|warning| warning.contains("no webhook tells anybody")), "{warned:#?}");

    // Nobody is on call.
    let people = std::fs::read_to_string(world.dir.join("people.yaml")).unwrap();
    std::fs::write(world.dir.join("people.yaml"), people.replace("oncall", "offcall")).unwrap();
    let unmanned = config::unmanned(&changed(&world, "audit: {dir", "audit: {dir").unwrap());
    assert!(unmanned.iter().any(|one| one.why == "nobody has the role `oncall`"), "{unmanned:#?}");
    world.reload().await;
    let reload = world.running.as_ref().unwrap().reload();
    assert_eq!(**reload.standing().unmanned.load(), unmanned);
    let metrics = world.running.as_ref().unwrap().gateway().evidence.telemetry.metrics().render();
    assert!(metrics.contains(&format!("holdpoint_holds_unmanned {}\n", unmanned.len())), "{metrics}");

    // Nobody can come in.
    let nobody =
        changed(&world, "  - {name: admin, kind: admin, address: \"127.0.0.1:0\", socket: admin.sock}\n", "");
    let unmanned = config::unmanned(&nobody.unwrap());
    assert!(
        !unmanned.is_empty() && unmanned.iter().all(|one| one.why.contains("no listener of kind `admin`"))
    );
    world.down().await;
    world.join().await;
}

#[tokio::test]
async fn a_webhook_that_could_not_be_trusted_is_a_mistake() {
    let (private, open) = (secret(0o600), secret(0o644));
    let world = World::start().await;
    let with = |webhook: &str, more: &str| {
        let section = format!(
            "notify:\n  console: https://gateway.internal\n{more}  webhooks:\n    - {{name: chat, {webhook}}}\naudit: {{dir"
        );
        changed(&world, "audit: {dir", &section).err().unwrap_or_default()
    };
    let private_file = private.display();
    let told = |found: Vec<String>, expected: &str| {
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:#?}");
    };
    told(
        with(&format!("url: \"http://chat.example.org/\", secret_file: {private_file}"), ""),
        "notify.webhooks[0].url: must be an https URL",
    );
    told(
        with(&format!("url: \"https://u:p@chat.example.org/\", secret_file: {private_file}"), ""),
        "notify.webhooks[0].url: must be an https URL",
    );
    told(
        with(&format!("url: \"http://127.0.0.1:1/\", secret_file: {}", open.display()), ""),
        "others may read it: chmod 600",
    );
    told(
        with("url: \"http://127.0.0.1:1/\"", ""),
        "notify.webhooks[0]: needs a `secret_file` or a `key_file`",
    );
    told(
        with(&format!("url: \"http://127.0.0.1:1/\", key_file: {private_file}"), ""),
        "must be a PEM file, or whsk_ and base64",
    );
    told(
        with(&format!("url: \"http://127.0.0.1:1/\", secret_file: {private_file}, events: [hold.lost]"), ""),
        "`hold.lost` is none of hold.opened",
    );
    told(
        with(&format!("url: \"http://127.0.0.1:1/\", secret_file: {private_file}"), "  give_up_after: 30d\n"),
        "notify.give_up_after: must be more than 0s and at most 7d",
    );
    world.join().await;
    for file in [private, open] {
        std::fs::remove_file(file).unwrap();
    }
}
