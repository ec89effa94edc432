//! The health listener: `/healthz`, `/readyz` and `/metrics` in plain HTTP, and nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::app::reload::{Refused, Standing};
use crate::record::Evidence;
use crate::record::space::Room;

/// Connections at one time: a scraper and a few probes.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Serves until `drain` turns true. While draining, `/readyz` says so.
pub async fn serve(
    listener: TcpListener,
    evidence: Arc<Evidence>,
    standing: Arc<Standing>,
    mut drain: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.wait_for(|drain| *drain) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (evidence, standing) = (Arc::clone(&evidence), Arc::clone(&standing));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&evidence, &standing, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            // A probe that breaks off is no event.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

fn answer(evidence: &Evidence, standing: &Standing, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" => {
            let (ledger, lost) = (&evidence.ledger, evidence.ledger.stats().lost);
            let (room, refused) = (ledger.room(), standing.refused.load());
            let open = evidence.telemetry.metrics().breakers_open();
            let unmanned = standing.unmanned.load();
            let whole = lost == 0 && open.is_empty() && refused.is_none() && unmanned.is_empty();
            // Not ready is who cannot serve an allowed read; with less than that, writes are refused one by one.
            let (status, state) = match (room, ledger.failure()) {
                (Room::Floor, _) | (_, Some(_)) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
                (Room::Ample, None) if whole => (StatusCode::OK, "ready"),
                (Room::Ample | Room::Low, None) => (StatusCode::OK, "degraded"),
            };
            let audit = json!({"lost": lost, "room": room.as_str(), "free_bytes": ledger.free_bytes(), "failure": ledger.failure()});
            let configuration = json!({
                "restart_needed_for": **standing.restart.load(),
                "refused": refused.as_ref().map(|refused| told(refused)),
            });
            let upstreams = json!({"breaker_open": open});
            let unmanned: Vec<String> = unmanned.iter().map(ToString::to_string).collect();
            let body = json!({"status": state, "audit": audit, "upstreams": upstreams, "configuration": configuration,
                "holds": {"unmanned": unmanned}});
            text(status, "application/json", format!("{body}\n"))
        }
        "/metrics" => {
            let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            text(StatusCode::OK, format, evidence.telemetry.metrics().render())
        }
        _ => text(StatusCode::NOT_FOUND, "text/plain", "no such page\n".to_owned()),
    }
}

/// Mistakes that are told; the log has all.
const MISTAKES_MAX: usize = 20;

/// When and why a configuration was refused.
fn told(refused: &Refused) -> Value {
    let at = OffsetDateTime::from(refused.at).format(&Rfc3339).unwrap_or_default();
    let mistakes: Vec<String> = refused.mistakes.iter().take(MISTAKES_MAX).map(ToString::to_string).collect();
    json!({"at": at, "mistakes": mistakes})
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
