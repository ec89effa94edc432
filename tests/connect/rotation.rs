//! A new SVID takes the place of the old one under way.

use std::time::Duration;

use crate::fake::{Does, Fake};
use crate::harness::World;
use crate::side::{SOON, Side, files, status};

/// Calls until the gateway knows the caller by another id.
pub async fn becomes(world: &World, side: &Side, agent: &str) {
    let id = format!("spiffe://example.org/agent/{agent}");
    let end = tokio::time::Instant::now() + SOON;
    loop {
        let answer = side.ask(&format!("GET /v1/now HTTP/1.1\r\nhost: {}", side.host()), "").await;
        assert_eq!(status(&answer), 200, "no call fails while the SVID is replaced: {answer}");
        let last = world.records().into_iter().rev().find(|record| record["type"] == "intent").unwrap();
        if last.to_string().contains(&id) {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "never {agent}: {last}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An upstream whose event streams wait, and whose other replies do not.
pub async fn upstream() -> Fake {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    Fake::that(move |seen| {
        if seen.head.starts_with("GET /v1/events") {
            Does::WritesThen(
                format!("{head}d\r\ndata: first\n\n\r\n"),
                "c\r\ndata: last\n\n\r\n0\r\n\r\n".to_owned(),
            )
        } else {
            Does::Writes(crate::fake::json("{}"))
        }
    })
    .await
}

#[tokio::test]
async fn files_are_replaced_under_a_call_that_goes_on() {
    let world = World::odd(upstream().await, "", "").await;
    let (from, own) = (files(&world, "support"), world.dir.join("own"));
    std::fs::create_dir(&own).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| own.join(name).display().to_string());
    std::fs::copy(&from[1], &cert).unwrap();
    std::fs::copy(&from[3], &key).unwrap();
    let mut identity = from.clone();
    (identity[1], identity[3]) = (cert.clone(), key.clone());
    let side = Side::with(&world, "odd", &identity, &["--listen", "127.0.0.1:0", "--no-local-auth"]).await;
    becomes(&world, &side, "support").await;
    let mut stream = side.begin(&format!("GET /v1/events HTTP/1.1\r\nhost: {}", side.host()), "").await;
    stream.until("data: first").await;

    // The certificate without its key is not used; calls go on with the SVID before.
    let other = files(&world, "other");
    std::fs::copy(&other[1], &cert).unwrap();
    becomes(&world, &side, "support").await;
    std::fs::copy(&other[3], &key).unwrap();
    becomes(&world, &side, "other").await;

    world.odd.go_on();
    let whole = stream.rest().await;
    assert!(whole.contains("data: last") && whole.ends_with("0\r\n\r\n"), "{whole}");
    drop(side);
    world.join().await;
}
