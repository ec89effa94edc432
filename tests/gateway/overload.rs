//! More connections than there may be: the next one is refused at once and on record, and nobody else notices.

use std::time::Instant;

use crate::fake::eventually;
use crate::harness::{SOON, World};

const REQUEST: &str = "GET /crm/v1/invoices/1001 HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn a_connection_too_many_is_refused_at_once_and_there_is_room_when_another_ends() {
    let world = World::with("bounds: {connections_max: 2}").await;
    let (mut first, mut second) = (world.raw("support").await, world.raw("other").await);
    let since = Instant::now();
    for (version, count) in [(&b"http/1.1"[..], 1), (b"h2", 2)] {
        assert!(world.knock("support", version).await.is_err());
        assert!(since.elapsed() < SOON / 2, "it waited: {:?}", since.elapsed());
        let overload = || world.records().into_iter().filter(|record| record["reason"] == "overload");
        eventually(|| overload().count() == count, "the refusal is not on record").await;
        let record = overload().next_back().unwrap();
        assert_eq!((&record["type"], &record["stage"]), (&"refused".into(), &"accept".into()), "{record:#}");
        assert_eq!(record["detail"], "connections_max is reached", "{record:#}");
    }
    world.nothing_upstream();
    let metrics = world.page("/metrics").await;
    assert!(metrics.contains("holdpoint_refused_connections_total{reason=\"overload\"} 2"), "{metrics}");

    // Those that were there go on, and the place of one that leaves is another's.
    assert_eq!((first.ask(REQUEST).await.0, second.ask(REQUEST).await.0), (200, 200));
    drop(first);
    let mut third = loop {
        assert!(since.elapsed() < SOON, "no place became free");
        if let Ok(stream) = world.knock("support", b"http/1.1").await {
            break crate::harness::Raw::over(stream);
        }
    };
    assert_eq!((third.ask(REQUEST).await.0, second.ask(REQUEST).await.0), (200, 200));
    assert_eq!(world.crm.seen().len(), 4);
    drop((second, third));
    world.join().await;
}
