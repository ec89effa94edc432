//! The console: pages made on the server. They show what the API tells, to whom the API tells it. The pages of holds
//! have one small script, which asks for them again when something has changed; without it they are reloaded by hand.

mod agents;
mod breakglass;
mod call;
mod evidence;
mod hold;
mod holds;
pub(super) mod page;
mod path;
mod records;
mod runs;
mod shadow;
mod standing;
mod tools;
mod waiting;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use maud::Markup;

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

/// The same for pages that keep themselves up to date: this gateway's own script as well, which makes no markup.
const LIVE_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; \
                                    img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
                                    require-trusted-types-for 'script'; trusted-types 'none'";
/// What keeps such pages up to date.
const LIVE: &str = include_str!("console/live.js");
/// Where it is.
const LIVE_PATH: &str = "/live.js";

/// The pages.
pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/", get(holds::front))
        .route("/agents", get(agents::list))
        .route("/agents/{id}", get(agents::show))
        .route("/agents/{id}/suspend", post(agents::suspend))
        .route("/agents/{id}/resume", post(agents::resume))
        .route("/breakglass", get(breakglass::list))
        .route("/breakglass/{id}/close", post(breakglass::close))
        .route("/breakglass/{id}/review", post(breakglass::review))
        .route("/holds", get(holds::list))
        .route("/holds/{id}", get(hold::show))
        .route("/holds/{id}/approve", post(hold::approve))
        .route("/holds/{id}/deny", post(hold::deny))
        .route("/holds/{id}/remember", post(hold::remember))
        .route("/records", get(records::list))
        .route("/records/{id}", get(records::story))
        .route("/runs", get(runs::list))
        .route("/runs/{id}", get(runs::show))
        .route("/runs/{id}/unfreeze", post(runs::unfreeze))
        .route("/shadow", get(shadow::show))
        .route("/standing", get(standing::list))
        .route("/standing/{id}/revoke", post(standing::revoke))
        .route("/tools", get(tools::list))
        .route(LIVE_PATH, get(live))
        .route("/mark.svg", get(mark))
        .route("/style.css", get(style))
}

async fn mark(_visitor: Visitor) -> Response {
    // Opened as a page of its own it does nothing either.
    let headers =
        [(header::CONTENT_TYPE, "image/svg+xml"), (header::CONTENT_SECURITY_POLICY, "default-src 'none'")];
    (headers, MARK).into_response()
}

async fn live(_caller: Caller) -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], LIVE).into_response()
}

async fn style(_visitor: Visitor) -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

/// What is answered where nothing is: a page for a browser, and for a program what the API says.
pub(super) async fn refused(
    admin: &Admin,
    caller: &Caller,
    (headers, uri): (&HeaderMap, &Uri),
    problem: Problem,
) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let is_browser = accepted.into_iter().any(|accept| accept.contains("text/html"));
    if is_browser && !uri.path().starts_with("/v1/") {
        answer(admin, caller, Err(problem)).await
    } else {
        problem.into_response()
    }
}

/// A page, or the page that says what went wrong.
async fn answer(admin: &Admin, caller: &Caller, made: Result<Markup, Problem>) -> Response {
    match made {
        Ok(markup) => faced(None, CONTENT_SECURITY_POLICY, markup),
        // The listener makes the page from which one logs in.
        Err(problem @ Problem::Challenged(_)) => problem.into_response(),
        Err(problem) => {
            faced(Some(&problem), CONTENT_SECURITY_POLICY, page::problem(admin, caller, &problem).await)
        }
    }
}

/// A page that keeps itself up to date, or the page that says what went wrong.
async fn answer_live(admin: &Admin, caller: &Caller, made: Result<Markup, Problem>) -> Response {
    match made {
        Ok(markup) => faced(None, LIVE_SECURITY_POLICY, markup),
        Err(problem) => answer(admin, caller, Err(problem)).await,
    }
}

/// A page with the status of what went wrong on it, if anything did.
fn faced(problem: Option<&Problem>, policy: &'static str, markup: Markup) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    let mut response = (headers, markup.into_string()).into_response();
    if let Some(problem) = problem {
        *response.status_mut() = problem.face().0;
    }
    response
}

/// A page for whoever has yet to log in; with a path, the browser goes there next.
pub(super) fn bare(title: &str, next: Option<&str>, content: &Markup) -> Response {
    faced(None, CONTENT_SECURITY_POLICY, page::bare(title, next, content))
}
