//! Connections: several calls on one, HTTP/2, bodies that stream or stall, and headers of one hop only.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::fake::{Does, Fake, eventually};
use crate::harness::World;

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Full::default()).unwrap()
}

#[tokio::test]
async fn calls_on_one_http2_connection_are_decided_one_by_one() {
    let first = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab".to_owned();
    let odd = Fake::that(move |_| Does::WritesThen(first.clone(), "cd".to_owned())).await;
    let world = World::odd(odd, "", "").await;
    let sender = world.h2("reader").await;
    let (mut slow, mut quick, mut denied) = (sender.clone(), sender.clone(), sender.clone());
    let slow = tokio::spawn(async move { slow.send_request(get("/odd/v1/invoices/1")).await.unwrap() });
    world.odd.has_seen(1).await;
    let answer = quick.send_request(get("/crm/v1/invoices/1001")).await.unwrap();
    assert_eq!(answer.status(), 200);
    let post = Request::post("https://localhost/crm/v1/invoices").body(Full::default()).unwrap();
    assert_eq!(denied.send_request(post).await.unwrap().status(), 403);
    assert_eq!(world.crm.seen().len(), 1);
    drop(slow.await.unwrap());
    world.odd.was_left(1).await;
    assert_eq!(world.eventually("client-gone").await["upstream"], "odd");
    drop((sender, quick, denied));
    world.join().await;
}

#[tokio::test]
async fn an_http2_request_without_one_authority_is_refused() {
    let world = World::start().await;
    let mut sender = world.h2("support").await;
    let mut request = get("/crm/v1/invoices/1001");
    request.headers_mut().insert("host", http::HeaderValue::from_static("elsewhere.test"));
    assert_eq!(sender.send_request(request).await.unwrap().status(), 400);
    world.nothing_upstream();
    drop(sender);
    world.join().await;
}

#[tokio::test]
async fn a_second_request_in_the_same_packet_is_decided_on_its_own() {
    let world = World::start().await;
    let mut raw = world.raw("reader").await;
    raw.send(
        "GET /crm/v1/invoices/1001 HTTP/1.1\r\nhost: localhost\r\n\r\n\
         POST /crm/v1/invoices HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await;
    assert!(raw.until("HTTP/1.1 403").await, "{}", raw.text());
    assert!(raw.text().starts_with("HTTP/1.1 200"));
    assert_eq!(world.crm.seen().len(), 1);
    drop(raw);
    world.join().await;
}

#[tokio::test]
async fn the_rest_of_a_refused_body_never_becomes_a_request() {
    let world = World::with("bounds: {body_bytes_max: 1KiB}").await;
    let mut raw = world.raw("support").await;
    let hidden = "GET /crm/v1/invoices/1001 HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    raw.send(format!(
        "POST /crm/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{hidden}",
        hidden.len()
    ))
    .await;
    assert!(raw.until("HTTP/1.1 413").await);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
    let world = World::with("bounds: {body_time_max: 1s}").await;
    let mut raw = world.raw("support").await;
    raw.send("POST /crm/v1/invoices HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{").await;
    assert!(raw.until("HTTP/1.1 400").await, "{}", raw.text());
    let id = raw.header("holdpoint-record");
    assert_eq!(world.record(&id, "refused")["reason"], "body-slow");
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn an_opaque_upload_reaches_the_upstream_before_it_has_ended() {
    let world = World::start().await;
    let head = "PUT /odd/echo HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n";
    let mut raw = world.raw("support").await;
    raw.send(format!("{head}content-length: 10\r\n\r\nbegin")).await;
    eventually(|| world.odd.begun() == 1, "the upload does not stream").await;
    assert!(world.odd.seen().is_empty());
    raw.send("ended").await;
    assert!(raw.until("\"ok\"").await, "{}", raw.text());
    assert_eq!(world.odd.seen()[0].body, b"beginended");

    // One that breaks off is never a whole one upstream.
    let mut raw = world.raw("support").await;
    raw.send(format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nbegin\r\n")).await;
    eventually(|| world.odd.begun() == 2, "the upload does not stream").await;
    drop(raw);
    assert_eq!(world.eventually("failed").await["upstream"], "odd");
    assert_eq!(world.odd.seen().len(), 1);

    let mut raw = world.raw("reader").await;
    let (status, text) = raw.ask(&format!("{head}content-length: 5\r\n\r\nbegin")).await;
    assert_eq!(status, 403, "{text}");
    assert_eq!(world.odd.begun(), 2);
    drop(raw);
    world.join().await;
}

#[tokio::test]
async fn headers_of_one_hop_end_there_and_all_others_come_back() {
    let odd = Fake::that(|_| {
        Does::Writes(
            "HTTP/1.1 203 Fine\r\ncontent-type: application/json\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
             x-own: yes\r\netag: \"1\"\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
             holdpoint-record: forged\r\ncontent-length: 2\r\n\r\n{}"
                .to_owned(),
        )
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let answer = world.agent("support").http("GET", "/odd/v1/invoices/1", None).await.unwrap();
    assert_eq!((answer.status.as_u16(), &*answer.body), (203, &b"{}"[..]));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(
        (&answer.headers["x-own"], &answer.headers["etag"]),
        (&"yes".parse().unwrap(), &"\"1\"".parse().unwrap())
    );
    for hop in ["x-hop", "keep-alive", "connection"] {
        assert!(!answer.headers.contains_key(hop), "{hop}");
    }
    assert_eq!(answer.headers.get_all("holdpoint-record").iter().count(), 1);
    assert_eq!(world.outcome(&answer)["http_status"], 203);
    world.join().await;
}

#[tokio::test]
async fn a_chunked_reply_and_an_empty_one_pass() {
    let odd = Fake::that(|seen| {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let empty = "HTTP/1.1 204 No Content\r\n\r\n";
        Does::Writes(if seen.head.starts_with("GET") { chunked } else { empty }.to_owned())
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    let read = agent.http("GET", "/odd/v1/invoices/1", None).await.unwrap();
    assert_eq!(&*read.body, b"abcde");
    assert_eq!(world.outcome(&read)["reply"]["bytes"], 5);
    let made = agent.http("POST", "/odd/v1/invoices", Some(json!({}))).await.unwrap();
    assert_eq!((made.status.as_u16(), made.body.len()), (204, 0));
    assert_eq!(world.outcome(&made)["status"], "executed");
    assert_eq!(agent.http("GET", "/odd/v1/invoices/1", None).await.unwrap().body, "abcde");
    world.join().await;
}

#[tokio::test]
async fn a_reply_without_a_body_was_executed_when_it_arrives() {
    let odd = Fake::that(|seen| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
        let unchanged = "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 100\r\n\r\n";
        Does::Writes(if seen.head.starts_with("HEAD") { head } else { unchanged }.to_owned())
    })
    .await;
    let world = World::odd(odd, "", "").await;
    let agent = world.agent("support");
    let answer = agent.http("HEAD", "/odd/v1/invoices/1", None).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(answer.headers["content-length"], "100");
    assert_eq!(world.outcome(&answer)["status"], "executed");
    let answer = agent.http("GET", "/odd/v1/invoices/1", None).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0));
    let outcome = world.outcome(&answer);
    assert_eq!((&outcome["status"], &outcome["http_status"]), (&json!("executed"), &json!(304)));
    world.join().await;
}

#[tokio::test]
async fn a_certificate_over_its_limit_is_refused_before_its_body_is_read() {
    let world = World::with("limits: [{per: certificate, rate: 1/1h}]").await;
    let agent = world.agent("support");
    assert_eq!(agent.http("GET", "/crm/v1/invoices/1001", None).await.unwrap().status, 200);
    let mut raw = world.raw("support").await;
    raw.send("POST /crm/v1/invoices HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n").await;
    assert!(raw.until("HTTP/1.1 429").await, "{}", raw.text());
    let record = world.record(&raw.header("holdpoint-record"), "refused");
    assert_eq!((&record["reason"], &record["stage"]), (&json!("rate"), &json!("limit")));
    assert_eq!(world.crm.seen().len(), 1);
    world.join().await;
}
