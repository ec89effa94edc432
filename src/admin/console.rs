//! The console: pages made on the server, without a script. They show what the API tells, to whom the API tells it.

mod agents;
pub(super) mod page;
mod records;
mod shadow;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::Admin;
use super::caller::{Caller, Visitor};
use super::problem::Problem;

/// The style of every page.
const STYLE: &str = include_str!("console/style.css");
/// The mark in front of the name, and in the browser's tab.
const MARK: &str = include_str!("console/mark.svg");
/// What a page may load and do: its own style and its own forms.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                                       base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The pages.
pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/", get(agents::list))
        .route("/agents/{id}", get(agents::show))
        .route("/agents/{id}/suspend", post(agents::suspend))
        .route("/agents/{id}/resume", post(agents::resume))
        .route("/records", get(records::list))
        .route("/records/{id}", get(records::story))
        .route("/shadow", get(shadow::show))
        .route("/tools", get(tools::list))
        .route("/mark.svg", get(mark))
        .route("/style.css", get(style))
}

async fn mark(_visitor: Visitor) -> Response {
    // Opened as a page of its own it does nothing either.
    let headers =
        [(header::CONTENT_TYPE, "image/svg+xml"), (header::CONTENT_SECURITY_POLICY, "default-src 'none'")];
    (headers, MARK).into_response()
}

async fn style(_visitor: Visitor) -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

/// What is answered where nothing is: a page for a browser, and for a program what the API says.
pub(super) fn refused(admin: &Admin, caller: &Caller, request: &Request, problem: Problem) -> Response {
    let accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let is_browser = accepted.into_iter().any(|accept| accept.contains("text/html"));
    if is_browser && !request.uri().path().starts_with("/v1/") {
        answer(admin, caller, Err(problem))
    } else {
        problem.into_response()
    }
}

/// A page, or the page that says what went wrong.
fn answer(admin: &Admin, caller: &Caller, made: Result<maud::Markup, Problem>) -> Response {
    let (status, markup) = match made {
        Ok(markup) => (None, markup),
        // The listener makes the page from which one logs in.
        Err(problem @ Problem::Challenged(_)) => return problem.into_response(),
        Err(problem) => (Some(problem.face().0), page::problem(admin, caller, &problem)),
    };
    let mut response = shown(&markup);
    if let Some(status) = status {
        *response.status_mut() = status;
    }
    response
}

/// A page for whoever has yet to log in; with a path, the browser goes there next.
pub(super) fn bare(title: &str, next: Option<&str>, content: &maud::Markup) -> Response {
    shown(&page::bare(title, next, content))
}

fn shown(markup: &maud::Markup) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    (headers, markup.0.clone()).into_response()
}
