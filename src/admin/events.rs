//! `GET /v1/events`: records as they are written, as server-sent events [HTML, §9.2].
//!
//! One task follows the index while somebody reads. A reader that is too slow loses records and is told how many; it
//! holds nobody else up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::Admin;
use super::caller::Caller;
use super::problem::Problem;
use super::records::{self, Record, Sight};
use crate::record::Kind;
use crate::store::{Filter, PAGE_RECORDS_MAX};

/// How often the index is looked at while somebody reads.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a silent stream says that it lives, and that its reader is looked up again.
const BEAT_EVERY: Duration = Duration::from_secs(15);
/// Events on their way to one reader.
const QUEUE_MAX: usize = 16;

/// What readers are told.
#[derive(Clone, Debug)]
pub(super) enum Live {
    /// More records were written than are looked at together.
    Dropped(u64),
    /// A record.
    Written(Arc<Record>),
}

/// Follows the index until the drain.
pub(super) async fn follow(admin: &Admin) {
    let mut drain = admin.drain.clone();
    let mut last = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = drain.wait_for(|drain| *drain) => return,
        }
        if admin.live.receiver_count() == 0 {
            last = None;
            continue;
        }
        match look(admin, last).await {
            Ok(seq) => last = Some(seq),
            Err(problem) => {
                tracing::warn!(
                    detail = problem.detail(),
                    "the index was not read for events; it is tried again"
                );
            }
        }
    }
}

/// Tells what was written after a record, and gives the last one.
async fn look(admin: &Admin, last: Option<u64>) -> Result<u64, Problem> {
    let newest = admin.index.indexed().seq;
    let Some(last) = last else { return Ok(newest) };
    if newest <= last {
        return Ok(last);
    }
    let page = admin.index.records(Filter { limit: Some(PAGE_RECORDS_MAX), ..Filter::default() }).await?;
    let mut rows: Vec<_> = page.rows.into_iter().filter(|row| row.seq > last).collect();
    rows.reverse();
    let Some(first) = rows.first() else { return Ok(last) };
    // The log's numbers have no gaps, so what is missing between was written and is not in the page.
    let dropped = first.seq.saturating_sub(last + 1);
    // Whoever has left in the meantime needs nothing.
    let tell = |live| drop(admin.live.send(live));
    if dropped > 0 {
        tell(Live::Dropped(dropped));
    }
    let newest = rows.last().map_or(last, |row| row.seq);
    rows.into_iter().for_each(|row| tell(Live::Written(Arc::new(records::record(admin, row)))));
    Ok(newest)
}

/// `GET /v1/events`
pub(super) async fn stream(State(admin): State<Arc<Admin>>, caller: Caller) -> Result<Response, Problem> {
    let place = Arc::clone(&admin.streams).try_acquire_owned();
    let place = place.map_err(|_| Problem::Busy("too many read events already; try again later"))?;
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        read(&admin, &caller, &sender).await;
        drop(place);
    });
    let mut response = Response::new(Body::from_stream(Events(receiver)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// Passes events on to one reader, until it leaves, is nobody any more, or the gateway ends.
async fn read(admin: &Admin, caller: &Caller, sender: &mpsc::Sender<Bytes>) {
    let mut live = admin.live.subscribe();
    let mut drain = admin.drain.clone();
    let mut beat = tokio::time::interval(BEAT_EVERY);
    loop {
        let event = tokio::select! {
            _ = beat.tick() => ": \n\n".to_owned(),
            _ = drain.wait_for(|drain| *drain) => return,
            () = sender.closed() => return,
            received = live.recv() => match received {
                Ok(Live::Dropped(records)) | Err(RecvError::Lagged(records)) => dropped(records),
                Ok(Live::Written(record)) if shows(admin, caller, &record) => written(&record),
                Ok(Live::Written(_)) => continue,
                Err(RecvError::Closed) => return,
            },
        };
        if !caller.stands(admin) || sender.send(Bytes::from(event)).await.is_err() {
            return;
        }
    }
}

/// Whether a record is told to a reader. What happens to an emergency lift is everybody's to see.
fn shows(admin: &Admin, caller: &Caller, record: &Record) -> bool {
    record.kind == Kind::BreakGlass.as_str() || Sight::new(admin, caller).shows(&record.agent)
}

fn dropped(records: u64) -> String {
    format!("event: dropped\ndata: {{\"records\":{records}}}\n\n")
}

fn written(record: &Record) -> String {
    // JSON has no line breaks outside of strings, and inside they are escaped.
    let json = serde_json::to_string(record).unwrap_or_default();
    format!("event: record\nid: {}\ndata: {json}\n\n", record.seq)
}

/// What is on its way to one reader.
struct Events(mpsc::Receiver<Bytes>);

impl Stream for Events {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|event| event.map(Ok))
    }
}
