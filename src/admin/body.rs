//! What requests bring: queries and bodies, read whole, bounded, and refused where anything in them is not known.

use std::time::Duration;

use axum::Form;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::Method;
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The longest body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long a body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// A query of which every key is known.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Asked<T>, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(error) => Err(Problem::Invalid(error.body_text())),
        }
    }
}

/// A JSON body of which every member is known.
///
/// Its type must be said: a web page of another origin cannot send `application/json` without asking first, and nobody
/// here answers such a question.
pub(super) struct Told<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Told<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Told<T>, Problem> {
        let kind =
            request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::Type("the body must be application/json"));
        }
        let bytes = read(request.into_body()).await?;
        serde_json::from_slice(&bytes)
            .map(Told)
            .map_err(|error| Problem::Invalid(format!("the body cannot be understood: {error}")))
    }
}

/// A form of which every field is known.
pub(super) struct Filled<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Filled<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Filled<T>, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read(body).await?;
        let request = Request::from_parts(head, Body::from(bytes));
        match Form::<T>::from_request(request, state).await {
            Ok(Form(filled)) => Ok(Filled(filled)),
            Err(error) => Err(Problem::Invalid(error.body_text())),
        }
    }
}

async fn read(body: Body) -> Result<bytes::Bytes, Problem> {
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIME_MAX, reading).await {
        Err(_) => Err(Problem::TooSlow),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Problem::TooLarge(format!("the body is longer than {BODY_BYTES_MAX} bytes")))
        }
        Ok(Err(_)) => Err(Problem::Invalid("the body broke off".to_owned())),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
    }
}

/// Refuses a change that a web page of another origin asked a person's browser for: it would come with the person's
/// certificate. Browsers say where a request comes from; programs say nothing and are not asked.
pub(super) fn own_origin<B>(request: &http::Request<B>) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let foreign_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host =
        authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
    let own = format!("https://{host}");
    let foreign_origin = headers.get_all(ORIGIN).iter().any(|origin| origin.as_bytes() != own.as_bytes());
    if foreign_site || foreign_origin {
        return Err(Problem::Forbidden("the request comes from a page of another origin".to_owned()));
    }
    Ok(())
}
