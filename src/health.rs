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
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::record::Evidence;

/// Connections at one time: a scraper and a few probes.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Serves until `drain` turns true. While draining, `/readyz` says so.
pub async fn serve(listener: TcpListener, evidence: Arc<Evidence>, mut drain: watch::Receiver<bool>) {
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
        let evidence = Arc::clone(&evidence);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&evidence, &request);
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

fn answer(evidence: &Evidence, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" => {
            let lost = evidence.ledger.stats().lost;
            let open = evidence.telemetry.metrics().breakers_open();
            let state = if lost > 0 || !open.is_empty() { "degraded" } else { "ready" };
            let body = json!({
                "status": state,
                "audit": {"lost": lost},
                "upstreams": {"breaker_open": open},
            });
            text(StatusCode::OK, "application/json", format!("{body}\n"))
        }
        "/metrics" => {
            let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            text(StatusCode::OK, format, evidence.telemetry.metrics().render())
        }
        _ => text(StatusCode::NOT_FOUND, "text/plain", "no such page\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
