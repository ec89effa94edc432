//! Takes hops off the queue on a thread of its own and brings their spans to the collector, or counts them as lost.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::hop::{HoldMoment, Hop};
use super::metrics::Metrics;
use super::otlp::{Batch, Origin};
use super::transport::Transport;
use super::{Stages, spans};

/// Attempts for one batch.
const ATTEMPTS_MAX: u32 = 4;
/// The wait before the second attempt; doubled for each that follows.
const RETRY_FIRST: Duration = Duration::from_millis(200);

/// Why spans did not reach the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The collector could not be reached.
    Connect,
    /// The collector broke off after the request was sent; it may have taken it.
    Disconnected,
    /// The collector's answer was not OTLP.
    Garbage,
    /// The exporter could not make the request.
    Internal,
    /// The queue was full.
    QueueFull,
    /// The collector sent us elsewhere, which is not followed.
    Redirect,
    /// The collector took the batch and rejected these spans (partial success).
    Rejected,
    /// The program ended first.
    Shutdown,
    /// The collector answered with an error status.
    Status,
    /// The collector took too long.
    Timeout,
    /// The collector's answer was too large.
    TooLarge,
}

impl Loss {
    /// Every reason.
    pub const ALL: [Loss; 11] = [
        Loss::Connect,
        Loss::Disconnected,
        Loss::Garbage,
        Loss::Internal,
        Loss::QueueFull,
        Loss::Redirect,
        Loss::Rejected,
        Loss::Shutdown,
        Loss::Status,
        Loss::Timeout,
        Loss::TooLarge,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Loss::Connect => "connect",
            Loss::Disconnected => "disconnected",
            Loss::Garbage => "garbage",
            Loss::Internal => "internal",
            Loss::QueueFull => "queue_full",
            Loss::Redirect => "redirect",
            Loss::Rejected => "rejected",
            Loss::Shutdown => "shutdown",
            Loss::Status => "status",
            Loss::Timeout => "timeout",
            Loss::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Loss {}

/// What waits in the queue.
#[derive(Debug)]
pub(super) enum Item {
    Hop(Box<Hop>),
    Moment(Box<HoldMoment>),
}

impl Item {
    pub(super) fn count(&self, stages: Stages) -> u64 {
        match self {
            Item::Hop(hop) => spans::count(hop, stages),
            Item::Moment(_) => 1,
        }
    }

    fn write(&self, stages: Stages, batch: &mut Batch) {
        match self {
            Item::Hop(hop) => spans::of_hop(hop, stages, batch),
            Item::Moment(moment) => spans::of_moment(moment, batch),
        }
    }
}

/// The queue's reading end. Whatever is still in it when it goes is counted as lost, even if the thread dies.
pub(super) struct Intake {
    pub(super) items: mpsc::Receiver<Item>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stages: Stages,
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.items.close();
        while let Ok(item) = self.items.try_recv() {
            self.metrics.lost(Loss::Shutdown, item.count(self.stages));
        }
    }
}

/// The exporter's limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) batch_spans_max: usize,
    pub(super) delay: Duration,
    pub(super) export_timeout: Duration,
    pub(super) flush_timeout: Duration,
}

/// The exporter thread's work.
pub(super) struct Worker {
    pub(super) intake: Intake,
    pub(super) exporter: SpanExporter,
    pub(super) answer: Arc<LastAnswer>,
    pub(super) pace: Pace,
    pub(super) wake: Arc<Notify>,
    /// When flushing must be over; none while the program runs.
    pub(super) stop: watch::Receiver<Option<Instant>>,
    pub(super) batch: Batch,
    /// Who makes the spans.
    pub(super) origin: Origin,
    /// The body of the export under way, for [`Client`].
    pub(super) body: Arc<Mutex<Bytes>>,
}

impl Worker {
    /// Exports until told to stop, or until nobody is left who could send; then flushes what is there, for a bounded time.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.clone();
        loop {
            let first = tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => None,
                item = self.intake.items.recv() => item,
            };
            let Some(first) = first else { break };
            self.add(first).await;
            tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(self.pace.delay) => {}
            }
            self.drain().await;
        }
        self.intake.items.close();
        self.drain().await;
    }

    async fn drain(&mut self) {
        while let Ok(item) = self.intake.items.try_recv() {
            self.add(item).await;
        }
        self.export().await;
    }

    async fn add(&mut self, item: Item) {
        let spans = usize::try_from(item.count(self.intake.stages)).unwrap_or(usize::MAX);
        if self.batch.len().saturating_add(spans) > self.pace.batch_spans_max {
            self.export().await;
        }
        item.write(self.intake.stages, &mut self.batch);
    }

    /// Brings one batch to the collector; every span of it ends up in exactly one counter.
    async fn export(&mut self) {
        if self.batch.len() == 0 {
            return;
        }
        let spans = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = self.batch.take(&self.origin).into();
        let metrics = Arc::clone(&self.intake.metrics);
        self.answer.clear();
        let answer = tokio::select! {
            biased;
            () = flush_over(self.stop.clone(), self.pace.flush_timeout) => Err(Loss::Shutdown),
            () = tokio::time::sleep(self.pace.export_timeout) => Err(Loss::Timeout),
            // It knows where to send and with which headers; the spans themselves are in `body`.
            done = self.exporter.export(Vec::new()) => match (self.answer.take(), done) {
                (Some(Ok(rejected)), Ok(())) => Ok(rejected.min(spans)),
                (Some(Err(loss)), _) => Err(loss),
                (_, _) => Err(Loss::Internal),
            },
        };
        match answer {
            Ok(rejected) => {
                metrics.sent(spans - rejected);
                metrics.lost(Loss::Rejected, rejected);
            }
            Err(loss) => metrics.lost(loss, spans),
        }
    }
}

/// Returns when flushing must be over, which is never while the program runs.
async fn flush_over(mut stop: watch::Receiver<Option<Instant>>, flush_timeout: Duration) {
    let end = match stop.wait_for(Option::is_some).await {
        Ok(end) => end.unwrap_or_else(Instant::now),
        // The owner is gone without a word: the same bound from now on.
        Err(_) => Instant::now() + flush_timeout,
    };
    tokio::time::sleep_until(end).await;
}

/// What the collector said last: how many spans it rejected, or why none arrived.
///
/// The exporter's own result is only a sentence, and it does not tell partial success from success.
#[derive(Debug, Default)]
pub(super) struct LastAnswer(Mutex<Option<Result<u64, Loss>>>);

impl LastAnswer {
    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn take(&self) -> Option<Result<u64, Loss>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, answer: Result<u64, Loss>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

/// Our own HTTP client under the OTLP exporter: bounded in time, size and attempts, and it reads what is answered.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) transport: Transport,
    pub(super) answer: Arc<LastAnswer>,
    /// What is sent in place of the exporter's own body, which is empty.
    pub(super) body: Arc<Mutex<Bytes>>,
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(&'a self, mut request: http::Request<Bytes>) -> Sending<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            *request.body_mut() =
                std::mem::take(&mut *self.body.lock().unwrap_or_else(PoisonError::into_inner));
            match self.attempt(request).await {
                Ok((response, rejected)) => {
                    self.answer.set(Ok(rejected));
                    Ok(response)
                }
                Err(loss) => {
                    self.answer.set(Err(loss));
                    Err(loss.into())
                }
            }
        })
    }
}

impl Client {
    /// Sends until something final is answered. The caller bounds the time.
    async fn attempt(&self, request: http::Request<Bytes>) -> Result<(http::Response<Bytes>, u64), Loss> {
        let mut wait = RETRY_FIRST;
        let mut attempt = 1;
        loop {
            let (loss, asked) = match self.transport.send(&request).await {
                Ok(response) => match judge(&response) {
                    Ok(rejected) => return Ok((response, rejected)),
                    Err(loss) if retryable(response.status()) => (loss, retry_after(&response)),
                    Err(loss) => return Err(loss),
                },
                // Nothing was sent, so nothing can arrive twice.
                Err(Loss::Connect) => (Loss::Connect, None),
                Err(loss) => return Err(loss),
            };
            if attempt == ATTEMPTS_MAX {
                return Err(loss);
            }
            attempt += 1;
            // One batch may wait no longer than it would for its last attempt: the queue behind it fills meanwhile.
            tokio::time::sleep(asked.unwrap_or(wait).min(RETRY_FIRST * 8)).await;
            wait *= 2;
        }
    }
}

fn retryable(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn retry_after(response: &http::Response<Bytes>) -> Option<Duration> {
    let value = response.headers().get(http::header::RETRY_AFTER)?;
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// How many spans an answer says it rejected; an answer that is not OTLP is none.
fn judge(response: &http::Response<Bytes>) -> Result<u64, Loss> {
    if response.status().is_redirection() {
        return Err(Loss::Redirect);
    }
    if !response.status().is_success() {
        return Err(Loss::Status);
    }
    let kind = response.headers().get(http::header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let body = response.body();
    let kind = kind.split(';').next().unwrap_or("").trim();
    match kind {
        "application/x-protobuf" | "application/protobuf" => rejected_in_protobuf(body),
        // Some collectors answer a protobuf request in JSON.
        "application/json" if !body.is_empty() => rejected_in_json(body),
        _ if body.is_empty() => Ok(0),
        _ => Err(Loss::Garbage),
    }
}

fn rejected_in_protobuf(body: &[u8]) -> Result<u64, Loss> {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
    use prost::Message as _;
    let response = ExportTraceServiceResponse::decode(body).map_err(|_| Loss::Garbage)?;
    let rejected = response.partial_success.map_or(0, |partial| partial.rejected_spans);
    Ok(u64::try_from(rejected).unwrap_or(0))
}

fn rejected_in_json(body: &[u8]) -> Result<u64, Loss> {
    let response: serde_json::Value = serde_json::from_slice(body).map_err(|_| Loss::Garbage)?;
    let object = response.as_object().ok_or(Loss::Garbage)?;
    let rejected = object.get("partialSuccess").and_then(|partial| partial.get("rejectedSpans"));
    // Protobuf's JSON writes 64-bit numbers as strings.
    Ok(rejected.and_then(|n| n.as_u64().or_else(|| n.as_str()?.parse().ok())).unwrap_or(0))
}
