//! Plain HTTP: what passes unchanged, limits and holds in its own words, and bodies that stream.

use http_body_util::Full;
use serde_json::json;

use crate::fake::{Does, Fake, json as reply};
use crate::harness::World;

#[tokio::test]
async fn an_allowed_call_passes_unchanged() {
    let world = World::start().await;
    let agent = world.agent("support");
    let read = agent.http("GET", "/crm/v1/invoices/1001?expand=lines%20all&x=", None).await.unwrap();
    assert_eq!(read.status, 200);
    assert_eq!(read.body, r#"{"id":"1001","customer":"C-1007","total":"420.00"}"#);
    let body = json!({"customer": "C-1007", "total": 1.5});
    let made = agent.http("POST", "/crm/v1/invoices", Some(body.clone())).await.unwrap();
    assert_eq!(made.status, 201);
    let seen = world.crm.seen();
    assert_eq!(seen[0].target, "/v1/invoices/1001?expand=lines%20all&x=");
    assert_eq!(seen[1].body, body.to_string());
    assert_eq!(seen[1].headers["holdpoint-record"], made.record());
    let outcome = world.outcome(&made);
    assert_eq!((&outcome["status"], &outcome["http_status"]), (&json!("executed"), &json!(201)));
    world.join().await;
}

#[tokio::test]
async fn a_denied_call_is_a_problem_with_403() {
    let world = World::start().await;
    let answer = world.agent("reader").http("POST", "/crm/v1/invoices", Some(json!({}))).await.unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.outcome(), "denied");
    world.refused(&answer, "policy");
    world.join().await;
}

#[tokio::test]
async fn a_limited_call_is_told_when_to_come_back() {
    let world = World::with("limits: [{per: agent, rate: 1/1h}]").await;
    let agent = world.agent("support");
    assert_eq!(agent.http("GET", "/crm/v1/invoices/1001", None).await.unwrap().status, 200);
    let answer = agent.http("GET", "/crm/v1/invoices/1001", None).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.outcome()), (429, "limited".to_owned()));
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(answer.headers["ratelimit-policy"], "\"agent\";q=1;w=3600");
    assert_eq!(answer.headers["ratelimit"], format!("\"agent\";r=0;t={wait}"));
    assert_eq!(world.record(&answer.record(), "refused")["reason"], "rate");
    assert_eq!(world.crm.seen().len(), 1);
    assert_eq!(world.agent("other").http("GET", "/crm/v1/invoices/1001", None).await.unwrap().status, 200);
    world.join().await;
}

#[tokio::test]
async fn a_payment_waits_for_people_and_never_looks_done() {
    let world = World::start().await;
    let body = json!({"account": "CH93", "reason": "invoice 1001"});
    let answer = world.agent("support").http("POST", "/crm/v1/payments", Some(body)).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.outcome()), (503, "pending".to_owned()));
    assert_eq!(answer.json()["type"], "urn:holdpoint:problem:hold-pending");
    assert!(answer.headers.contains_key("retry-after"));
    world.record(&answer.record(), "held");
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn a_large_body_passes_only_where_it_need_not_be_read() {
    let world = World::with("bounds: {body_bytes_max: 64KiB}").await;
    let agent = world.agent("support");
    let large = vec![b'x'; 1 << 20];
    let request = |method: &str| {
        let request = http::Request::builder().method(method).uri("/crm/echo").header("host", "localhost");
        let request = request.header("content-type", "application/octet-stream");
        request.body(Full::from(large.clone())).unwrap()
    };
    let answer = agent.send(request("POST")).await.unwrap();
    assert_eq!(answer.status, 413);
    world.refused(&answer, "body-size");
    let agent = world.agent("support");
    let answer = agent.send(request("PUT")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body == large, "the upload came back as it was sent");
    assert!(world.crm.seen()[0].body == large);
    world.join().await;
}

#[tokio::test]
async fn an_upload_without_a_length_is_bounded_too() {
    let world = World::with("bounds: {body_bytes_max: 64KiB}").await;
    let mut raw = world.raw("support").await;
    raw.send("POST /crm/echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-type: text/plain\r\n\r\n").await;
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    raw.send(chunk.repeat(3)).await;
    assert!(raw.until("\r\n\r\n").await);
    assert!(raw.text().starts_with("HTTP/1.1 413"), "{}", raw.text());
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn a_huge_reply_passes_whole_and_its_size_is_on_record() {
    let body = "y".repeat(8 << 20);
    let text = reply(&body);
    let odd = Fake::that(move |_| Does::Writes(text.clone())).await;
    let world = World::odd(odd, "", "").await;
    let answer = world.agent("support").http("GET", "/odd/v1/invoices/1", None).await.unwrap();
    assert!(answer.body == body);
    assert_eq!(world.outcome(&answer)["reply"]["bytes"], 8 << 20);
    world.join().await;
}

#[tokio::test]
async fn a_place_under_a_concurrency_limit_is_free_again_when_the_stream_ends() {
    let first = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nab".to_owned();
    let odd = Fake::that(move |_| Does::WritesThen(first.clone(), "cd".to_owned())).await;
    let world = World::odd(odd, "", "limits: [{per: agent, concurrency: 1}]").await;
    let mut raw = world.raw("support").await;
    raw.send("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(raw.until("\r\n\r\nab").await);
    let agent = world.agent("support");
    let refused = agent.http("GET", "/odd/v1/invoices/2", None).await.unwrap();
    assert_eq!(refused.status, 429);
    assert_eq!(world.record(&refused.record(), "refused")["reason"], "concurrency");
    world.odd.go_on();
    assert!(raw.until("abcd").await);
    world.odd.go_on();
    let free = agent.http("GET", "/odd/v1/invoices/3", None).await.unwrap();
    assert_eq!(free.status, 200);
    assert_eq!(world.odd.seen().len(), 2);
    world.join().await;
}

#[tokio::test]
async fn metrics_count_by_class_and_decision_and_repeat_nothing_that_an_agent_chose() {
    let world = World::start().await;
    let agent = world.agent("support");
    agent.tool("mail", "search_customers", json!({"q": "metric-canary-argument"})).await.unwrap();
    agent.tool("mail", "metric-canary-tool", json!({})).await.unwrap();
    agent.rpc("mail", "metric/canary", json!({})).await.unwrap();
    agent.http("GET", "/crm/metric-canary-path", None).await.unwrap();
    let strange = http::Request::builder().method("CANARY").uri("/crm/v1/x").header("host", "localhost");
    agent.send(strange.body(Full::default()).unwrap()).await.unwrap();
    world.agent("reader").tool("mail", "note", json!({})).await.unwrap();
    let page = world.page("/metrics").await;
    for (class, decision) in [("read", "allowed"), ("external", "held"), ("write", "denied")] {
        let counted = page.lines().any(|line| {
            line.starts_with("holdpoint_calls_total{")
                && line.contains(&format!("class=\"{class}\""))
                && line.contains(&format!("decision=\"{decision}\""))
        });
        assert!(counted, "{class} {decision} in {page}");
    }
    assert!(!page.to_ascii_lowercase().contains("canary"), "{page}");
    // Nobody could approve what is held here, which is said and keeps no call away.
    let ready = world.page("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"unmanned\":[\""), "{ready}");
    assert!(world.page("/healthz").await.starts_with("HTTP/1.1 200"));
    world.join().await;
}
