//! A tiny OTLP/HTTP receiver in this process: `holdpoint demo` prints the trace from it, and tests read spans back.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::transport;
use crate::call::hex;

/// The largest request that is read.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Spans that are remembered; the oldest go first.
const SPANS_MAX: usize = 65_536;
/// How long a trace must be quiet before it counts as complete.
const QUIET: Duration = Duration::from_millis(50);

/// A span as a collector sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSpan {
    /// The trace, in hexadecimal.
    pub trace_id: String,
    /// The span's name.
    pub name: String,
    /// `SERVER`, `CLIENT`, `INTERNAL`, ….
    pub kind: &'static str,
    /// The span's id, in hexadecimal.
    pub span_id: String,
    /// The parent's id, in hexadecimal; empty for a root.
    pub parent_id: String,
    /// When it began, in nanoseconds since 1970.
    pub start_ns: u64,
    /// When it ended, in nanoseconds since 1970.
    pub end_ns: u64,
    /// Whether its status is ERROR.
    pub status_error: bool,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The names of its events.
    pub events: Vec<String>,
    /// The span ids that it links to, in hexadecimal.
    pub links: Vec<String>,
}

#[derive(Debug, Default)]
struct Seen {
    spans: VecDeque<SeenSpan>,
    resource: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    path: String,
    total: u64,
}

/// The receiver. It ends when it is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    arrivals: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> std::io::Result<Sink> {
        Sink::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens at an address.
    pub async fn start_at(address: SocketAddr) -> std::io::Result<Sink> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (arrivals, _) = watch::channel(0);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&seen), arrivals.clone()));
        Ok(Sink { address, seen, arrivals, accepting })
    }

    /// What belongs in `telemetry.otlp.endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The spans of a trace, in the order of their starts: as soon as it has a root and is quiet, else after `wait`.
    pub async fn trace(&self, trace_id: [u8; 16], wait: Duration) -> Vec<SeenSpan> {
        let trace_id = hex(&trace_id);
        let end = tokio::time::Instant::now() + wait;
        let mut arrivals = self.arrivals.subscribe();
        loop {
            arrivals.mark_unchanged();
            let spans = self.spans(&trace_id);
            let next = if spans.iter().any(|span| span.kind == "SERVER") {
                end.min(tokio::time::Instant::now() + QUIET)
            } else {
                end
            };
            if !matches!(tokio::time::timeout_at(next, arrivals.changed()).await, Ok(Ok(()))) {
                return self.spans(&trace_id);
            }
        }
    }

    /// Every span that is remembered.
    pub fn all(&self) -> Vec<SeenSpan> {
        self.lock().spans.iter().cloned().collect()
    }

    /// How many spans have arrived.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    /// The attributes of the resource that sent last.
    pub fn resource(&self) -> BTreeMap<String, String> {
        self.lock().resource.clone()
    }

    /// The path and the headers of the last request.
    pub fn last_request(&self) -> (String, BTreeMap<String, String>) {
        let seen = self.lock();
        (seen.path.clone(), seen.headers.clone())
    }

    fn spans(&self, trace_id: &str) -> Vec<SeenSpan> {
        let mut spans: Vec<SeenSpan> =
            self.lock().spans.iter().filter(|span| span.trace_id == trace_id).cloned().collect();
        spans.sort_by_key(|span| (span.start_ns, std::cmp::Reverse(span.end_ns)));
        spans
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Seen>>, arrivals: watch::Sender<u64>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (seen, arrivals) = (Arc::clone(&seen), arrivals.clone());
                let service = service_fn(move |request| answer(request, Arc::clone(&seen), arrivals.clone()));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { drop(connection.await) });
            }
        }
    }
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    seen: Arc<Mutex<Seen>>,
    arrivals: watch::Sender<u64>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = transport::read(body, REQUEST_BYTES_MAX).await else {
        return Ok(empty(http::StatusCode::PAYLOAD_TOO_LARGE));
    };
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return Ok(empty(http::StatusCode::BAD_REQUEST));
    };
    {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.path = parts.uri.path().to_owned();
        seen.headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        seen.take(request);
        arrivals.send_replace(seen.total);
    }
    let body = ExportTraceServiceResponse::default().encode_to_vec();
    let mut response = http::Response::new(Full::new(Bytes::from(body)));
    let kind = http::HeaderValue::from_static("application/x-protobuf");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}

fn empty(status: http::StatusCode) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::default());
    *response.status_mut() = status;
    response
}

impl Seen {
    fn take(&mut self, request: ExportTraceServiceRequest) {
        for resource in request.resource_spans {
            self.resource = attributes(resource.resource.map(|resource| resource.attributes));
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if self.spans.len() == SPANS_MAX {
                    self.spans.pop_front();
                }
                self.spans.push_back(seen(span));
                self.total += 1;
            }
        }
    }
}

fn seen(span: Span) -> SeenSpan {
    SeenSpan {
        trace_id: hex(&span.trace_id),
        kind: kind(span.kind()),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        status_error: span.status.is_some_and(|status| status.code() == StatusCode::Error),
        name: span.name,
        attributes: attributes(Some(span.attributes)),
        events: span.events.into_iter().map(|event| event.name).collect(),
        links: span.links.into_iter().map(|link| hex(&link.span_id)).collect(),
    }
}

fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "UNSPECIFIED",
        SpanKind::Internal => "INTERNAL",
        SpanKind::Server => "SERVER",
        SpanKind::Client => "CLIENT",
        SpanKind::Producer => "PRODUCER",
        SpanKind::Consumer => "CONSUMER",
    }
}

fn attributes(attributes: Option<Vec<KeyValue>>) -> BTreeMap<String, String> {
    attributes.into_iter().flatten().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
