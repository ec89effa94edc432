//! What the gateway says about itself: one trace per call and its own figures, off the path and never in its way.

mod export;
pub mod hop;
mod metrics;
mod otlp;
pub mod poster;
pub mod sink;
pub mod spans;
mod transport;

pub use export::Loss;
pub use hop::Hop;
pub use metrics::{Delivery, Metrics};

use std::hash::Hasher as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _,
    WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::bench::{self, Control};
use export::{Client, Intake, Item, LastAnswer, Pace, Worker};
use hop::HoldMoment;

/// How telemetry is sent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where traces go; none keeps only metrics, unless an `OTEL_EXPORTER_OTLP_*` variable names an endpoint.
    pub otlp: Option<Otlp>,
    /// The share of uneventful traces that is exported, 0 to 1. Refused, held and failed calls always are.
    pub sample: f64,
    /// Mixed into the choice of traces, so that an agent that makes up trace ids cannot choose. Equal in all replicas.
    pub sample_seed: u64,
    /// How the stages of a call appear.
    pub stages: Stages,
    /// Calls that may wait to be exported; more are counted as lost.
    pub queue_max: usize,
    /// Spans in one export.
    pub batch_spans_max: usize,
    /// How long a span waits for others before it is exported.
    pub batch_delay: Duration,
    /// How long one export may take, retries included.
    pub export_timeout: Duration,
    /// How long the last export may take when the program ends.
    pub flush_timeout: Duration,
    /// Names this process in the trace (`service.instance.id`); empty for a random one.
    pub instance: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            otlp: None,
            sample: 1.0,
            sample_seed: 0,
            stages: Stages::Spans,
            queue_max: 4096,
            batch_spans_max: 512,
            batch_delay: Duration::from_secs(1),
            export_timeout: Duration::from_secs(5),
            flush_timeout: Duration::from_secs(5),
            instance: String::new(),
        }
    }
}

/// An OTLP/HTTP collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Its base URL, such as `http://127.0.0.1:4318`; `/v1/traces` is added.
    pub endpoint: String,
}

/// How the stages of a call appear in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// Each is a span of its own.
    Spans,
    /// Each is an event on the server span: cheaper to store.
    Events,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The collector's address, or an `OTEL_*` variable, cannot be used.
    #[error("telemetry.otlp: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The exporter's thread could not be started.
    #[error("telemetry: {0}")]
    Thread(#[from] std::io::Error),
}

/// Takes what is known of each call. Nothing here ever waits, or fails a call.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    stages: Stages,
    sample: f64,
    sample_seed: u64,
    queue: Option<Queue>,
}

#[derive(Debug)]
struct Queue {
    items: mpsc::Sender<Item>,
    wake: Arc<Notify>,
    wake_at: usize,
    flush_timeout: Duration,
    stop: watch::Sender<Option<Instant>>,
    ended: watch::Receiver<()>,
}

impl Telemetry {
    /// Starts the exporter's thread, if there is somewhere to export to.
    pub fn start(config: &Config) -> Result<Telemetry, StartError> {
        let metrics = Arc::new(Metrics::new());
        let queue = wanted(config).then(|| Queue::start(config, &metrics)).transpose()?;
        Ok(Telemetry {
            metrics,
            stages: config.stages,
            sample: config.sample,
            sample_seed: config.sample_seed,
            queue,
        })
    }

    /// The figures, for `/metrics` and for the parts of the gateway that count.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Takes a call that ended: counts it at once, and queues its spans. Never blocks.
    pub fn finished(&self, hop: Box<Hop>) {
        if bench::off(Control::Spans) {
            return;
        }
        self.metrics.count(&hop);
        if self.queue.is_some() && (hop.is_notable() || self.sampled(&hop.trace.trace_id)) {
            self.push(Item::Hop(hop));
        }
    }

    /// Takes a moment in a hold's life, which is exported at once, not when the call ends. Never blocks.
    pub fn hold_moment(&self, moment: Box<HoldMoment>) {
        self.push(Item::Moment(moment));
    }

    /// Exports what is queued, within `flush_timeout`, and ends the thread. What comes later is counted as lost.
    pub async fn shutdown(&self) {
        let Some(queue) = &self.queue else { return };
        let end = Instant::now() + queue.flush_timeout;
        queue.stop.send_if_modified(|stop| {
            stop.is_none() && {
                *stop = Some(end);
                true
            }
        });
        let mut ended = queue.ended.clone();
        // The thread drops its sender when it is done; it bounds itself, and half a second more is for its end.
        let done = async { while ended.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(queue.flush_timeout + Duration::from_millis(500), done).await;
    }

    fn push(&self, item: Item) {
        let Some(queue) = &self.queue else { return };
        match queue.items.try_send(item) {
            Ok(()) => {
                if queue.items.max_capacity() - queue.items.capacity() >= queue.wake_at {
                    queue.wake.notify_one();
                }
            }
            Err(mpsc::error::TrySendError::Full(item)) => {
                self.metrics.lost(Loss::QueueFull, item.count(self.stages));
            }
            Err(mpsc::error::TrySendError::Closed(item)) => {
                self.metrics.lost(Loss::Shutdown, item.count(self.stages));
            }
        }
    }

    /// Whether an uneventful trace is exported: the same answer for every hop of it.
    fn sampled(&self, trace_id: &[u8; 16]) -> bool {
        if self.sample >= 1.0 {
            return true;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(self.sample_seed);
        hasher.write(trace_id);
        // 32 bits are exact in a float.
        let share = f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX)) / 4_294_967_296.0;
        share < self.sample
    }
}

impl Queue {
    fn start(config: &Config, metrics: &Arc<Metrics>) -> Result<Queue, StartError> {
        let answer = Arc::new(LastAnswer::default());
        let body = Arc::default();
        let exporter = exporter(config, &answer, &body)?;
        let (items, receiver) = mpsc::channel(config.queue_max.max(1));
        let (stop, stopping) = watch::channel(None);
        let (ending, ended) = watch::channel(());
        let wake = Arc::new(Notify::new());
        let worker = Worker {
            intake: Intake { items: receiver, metrics: Arc::clone(metrics), stages: config.stages },
            exporter,
            answer,
            pace: Pace {
                batch_spans_max: config.batch_spans_max,
                delay: config.batch_delay,
                export_timeout: env_timeout().unwrap_or(config.export_timeout),
                flush_timeout: config.flush_timeout,
            },
            wake: Arc::clone(&wake),
            stop: stopping,
            batch: otlp::Batch::default(),
            origin: otlp::Origin::new(&resource(config)),
            body,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("telemetry".to_owned()).spawn(move || {
            stand_back();
            runtime.block_on(worker.run());
            // A name lookup that hangs must not keep the thread.
            runtime.shutdown_background();
            drop(ending);
        })?;
        // A call is about a dozen spans at most; an eighth of a batch of calls fills a batch.
        let wake_at = (config.batch_spans_max / 8).min(config.queue_max / 2).max(1);
        Ok(Queue { items, wake, wake_at, flush_timeout: config.flush_timeout, stop, ended })
    }
}

/// Lets every other thread of the process go before this one, where they want the same core: a batch of spans takes
/// milliseconds, and a call must not wait for it. A tenth of a core is still this thread's when calls want all of it.
pub(crate) fn stand_back() {
    const NICE: i32 = 10;
    // Linux takes "the calling process" for the calling thread [setpriority(2), notes].
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "this thread competes with calls");
    }
}

/// Whether there is somewhere to export to. The environment wins.
fn wanted(config: &Config) -> bool {
    let disabled = env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || env("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    !disabled && (config.otlp.is_some() || env_endpoint())
}

/// The real OTLP exporter over our own client. What a variable says is left to the exporter to read.
fn exporter(
    config: &Config,
    answer: &Arc<LastAnswer>,
    body: &Arc<Mutex<Bytes>>,
) -> Result<SpanExporter, StartError> {
    let transport = transport::Transport::default();
    let client = Client { transport, answer: Arc::clone(answer), body: Arc::clone(body) };
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        // Its own retries sleep the whole thread; ours, in `export`, do not.
        .with_retry_policy(RetryPolicy::disabled());
    if let Some(otlp) = config.otlp.as_ref().filter(|_| !env_endpoint()) {
        builder = builder.with_endpoint(traces_url(&otlp.endpoint));
    }
    if env_timeout().is_none() {
        builder = builder.with_timeout(config.export_timeout);
    }
    Ok(builder.build()?)
}

fn traces_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

/// Who sends: our defaults, over them what `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say.
fn resource(config: &Config) -> Resource {
    let instance = Some(config.instance.clone()).filter(|instance| !instance.is_empty());
    let instance = instance.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let defaults = [
        KeyValue::new("service.name", "holdpoint"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    let mut builder = Resource::builder_empty()
        .with_attributes(defaults)
        .with_attributes(host_name().map(|host| KeyValue::new("host.name", host)))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = env("OTEL_SERVICE_NAME") {
        builder = builder.with_service_name(name);
    }
    builder.build()
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn env_endpoint() -> bool {
    env(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT).or_else(|| env(OTEL_EXPORTER_OTLP_ENDPOINT)).is_some()
}

/// The timeout that a variable sets, in milliseconds.
fn env_timeout() -> Option<Duration> {
    let value = env(OTEL_EXPORTER_OTLP_TRACES_TIMEOUT).or_else(|| env(OTEL_EXPORTER_OTLP_TIMEOUT))?;
    value.parse().ok().map(Duration::from_millis)
}

/// A variable that is set to something. An empty one counts as unset [OTel specification].
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
