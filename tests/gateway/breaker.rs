//! An upstream that fails is left alone, and no agent can bring that about for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::fake::{Does, Fake, json as reply};
use crate::harness::World;

/// What an upstream says when what is behind it fails.
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// Opens after so many failures, and stays open for longer than any test runs.
fn opens_after(failures: u32) -> String {
    format!(", breaker: {{failures: {failures}, open_for: 1h}}")
}

fn of_type(world: &World, kind: &str) -> usize {
    world.records().iter().filter(|record| record["type"] == kind).count()
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_left_alone_for_everybody() {
    let odd = Fake::polite().await;
    odd.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let world = World::odd(odd, &opens_after(3), "").await;
    let (support, other) = (world.agent("support"), world.agent("other"));
    for _ in 0..3 {
        assert_eq!(support.http("POST", "/odd/v1/invoices", Some(json!({}))).await.unwrap().status, 502);
    }
    let intents = of_type(&world, "intent");

    let answer = other.http("POST", "/odd/v1/invoices", Some(json!({}))).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.outcome()), (503, "unavailable".to_owned()));
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    // What policy said stands beside it: it was not policy that stopped the call.
    let record = world.record(&answer.record(), "refused");
    assert_eq!(record["reason"], "upstream-breaker");
    assert_eq!(record["decision"]["outcome"], "allowed");
    assert_eq!(of_type(&world, "intent"), intents, "nothing was sent, so nothing was intended");

    // The other upstream at the same address has a breaker of its own.
    let answer = support.tool("oddmcp", "note", json!({})).await.unwrap();
    assert_eq!(world.outcome(&answer)["reason"], "upstream-connect");
    for _ in 0..2 {
        support.tool("oddmcp", "note", json!({})).await.unwrap();
    }
    let answer = support.tool("oddmcp", "note", json!({})).await.unwrap();
    assert_eq!(answer.json()["error"]["code"], -31010, "{answer:?}");
    let decision = &answer.json()["error"]["data"]["dev.holdpoint/decision"];
    assert_eq!(decision["outcome"], "unavailable");
    assert!(decision["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{decision}");
    world.join().await;
}

#[tokio::test]
async fn what_operators_see_of_an_open_breaker() {
    let odd = Fake::polite().await;
    odd.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let world = World::odd(odd, &opens_after(1), "").await;
    let closed = "holdpoint_upstream_breaker{holdpoint_upstream=\"odd\"} 0\n";
    assert!(world.page("/metrics").await.contains(closed), "it is there before anything fails");
    assert!(world.page("/readyz").await.contains("\"breaker_open\":[]"));
    world.agent("support").http("GET", "/odd/v1/invoices/1", None).await.unwrap();
    let page = world.page("/metrics").await;
    assert!(page.contains("holdpoint_upstream_breaker{holdpoint_upstream=\"odd\"} 2\n"), "{page}");
    let ready = world.page("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"status\":\"degraded\""), "{ready}");
    assert!(ready.contains("\"breaker_open\":[\"odd\"]"), "{ready}");
    world.join().await;
}

#[tokio::test]
async fn one_agent_cannot_open_it_for_others() {
    // Whatever `support` sends makes the upstream say 503, or say nothing in time; it may be the call that does it.
    let odd = Fake::that(|seen| {
        if seen.head.starts_with("GET /v1/bad") {
            Does::Writes(UNAVAILABLE.into())
        } else {
            Does::Writes(reply("{}"))
        }
    })
    .await;
    let world = World::odd(odd, &opens_after(4), "").await;
    let (support, other) = (world.agent("support"), world.agent("other"));
    for _ in 0..12 {
        assert_eq!(support.http("GET", "/odd/v1/bad", None).await.unwrap().status, 503);
    }
    assert_eq!(world.odd.seen().len(), 12, "each was the upstream's own answer");
    assert_eq!(other.http("GET", "/odd/v1/good", None).await.unwrap().status, 200);
    assert_eq!(world.odd.seen().len(), 13);
    world.join().await;
}

#[tokio::test]
async fn several_agents_that_meet_gateway_errors_open_it() {
    let odd = Fake::that(|_| Does::Writes(UNAVAILABLE.into())).await;
    let world = World::odd(odd, &opens_after(4), "").await;
    for name in ["support", "other"] {
        for _ in 0..2 {
            assert_eq!(world.agent(name).http("GET", "/odd/v1/invoices/1", None).await.unwrap().status, 503);
        }
    }
    assert_eq!(world.odd.seen().len(), 4);
    let answer = world.agent("reader").http("GET", "/odd/v1/invoices/1", None).await.unwrap();
    assert_eq!(world.record(&answer.record(), "refused")["reason"], "upstream-breaker");
    assert_eq!(world.odd.seen().len(), 4, "it saw nothing of this one");
    world.join().await;
}

#[tokio::test]
async fn bad_requests_and_agents_that_leave_never_count() {
    let odd = Fake::that(|seen| match seen.head.split(' ').nth(1) {
        Some("/v1/nothing") => Does::Nothing,
        Some("/v1/fine") => Does::Writes(reply("{}")),
        _ => Does::Writes("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".into()),
    })
    .await;
    let world = World::odd(odd, &opens_after(1), "").await;
    for path in ["/odd/v1/one", "/odd/v1/two"] {
        assert_eq!(world.agent("support").http("GET", path, None).await.unwrap().status, 400);
    }
    for left in 1..=3 {
        let mut raw = world.raw("support").await;
        raw.send("GET /odd/v1/nothing HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        world.odd.has_seen(2 + left).await;
        drop(raw);
        world.odd.was_left(left).await;
    }
    // An upload that breaks off is its agent's doing as well.
    let mut raw = world.raw("support").await;
    let head = "PUT /odd/echo HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\ncontent-length: 1000000\r\n\r\nhalf";
    raw.send(head).await;
    crate::fake::eventually(|| world.odd.begun() >= 6, "the upload never began").await;
    drop(raw);
    world.eventually("failed").await;
    assert_eq!(world.agent("other").http("GET", "/odd/v1/fine", None).await.unwrap().status, 200);
    world.join().await;
}

#[tokio::test]
async fn one_call_tries_and_its_reply_lets_all_others_through() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let odd = Fake::that(move |_| {
        if is_down.load(Ordering::SeqCst) {
            Does::Writes(UNAVAILABLE.into())
        } else {
            Does::Writes(reply("{}"))
        }
    })
    .await;
    let world = World::odd(odd, ", breaker: {failures: 1, open_for: 200ms}", "").await;
    let get = |name: &'static str| {
        let agent = world.agent(name);
        async move { agent.http("GET", "/odd/v1/invoices/1", None).await.unwrap() }
    };
    let end = tokio::time::Instant::now() + crate::harness::SOON;
    // It replies to the first call and to one in a while; in between nobody reaches it.
    while of_type(&world, "refused") == 0 {
        assert!(tokio::time::Instant::now() < end, "it never opened");
        assert_eq!(get("support").await.status, 503);
        assert_eq!(get("other").await.status, 503);
    }
    let records = world.records();
    let refused = records.iter().filter(|record| record["type"] == "refused");
    assert!(refused.clone().all(|record| record["reason"] == "upstream-breaker"));
    assert_eq!(world.odd.seen().len(), of_type(&world, "intent"), "what was refused was not sent");
    down.store(false, Ordering::SeqCst);
    while get("support").await.status != 200 {
        assert!(tokio::time::Instant::now() < end, "it never closed again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for name in ["support", "other", "reader"] {
        assert_eq!(get(name).await.status, 200);
    }
    assert!(world.page("/readyz").await.contains("\"breaker_open\":[]"));
    world.join().await;
}

#[tokio::test]
async fn zero_failures_means_no_breaker() {
    let odd = Fake::polite().await;
    odd.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let world = World::odd(odd, ", breaker: {failures: 0}", "").await;
    for _ in 0..12 {
        let answer = world.agent("support").http("GET", "/odd/v1/invoices/1", None).await.unwrap();
        assert_eq!(world.outcome(&answer)["reason"], "upstream-connect");
    }
    world.join().await;
}
