//! What goes wrong on the admin listener, and the answer it gets: a problem [RFC 9457].

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::identify::suspended::OrderError;
use crate::store::StoreError;

/// What somebody is asked for who has not shown who they are, or not well enough. It is among the extensions of the answer.
#[derive(Clone, Debug)]
pub(super) enum Challenge {
    /// Nobody said who asks.
    Absent,
    /// Who asks is known, and must be authenticated anew [RFC 9470].
    Again {
        /// Why.
        text: String,
        /// How long ago that may be.
        max_age: Duration,
        /// In which way: one of these values of `acr`, with blanks between; empty for any.
        acr: String,
    },
    /// A token is not believed, and why.
    Token(String),
}

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) enum Problem {
    /// Who asks has not shown who they are, or not well enough.
    Challenged(Challenge),
    /// It contradicts what is so.
    Conflict(String),
    /// Policy, or the place it came from, does not permit it.
    Forbidden(String),
    /// It cannot be understood.
    Invalid(String),
    /// Another method is needed.
    Method,
    /// There is no such thing.
    NotFound(String),
    /// Too many do this at one time.
    Busy(&'static str),
    /// The body is too long.
    TooLarge(String),
    /// The body took too long.
    TooSlow,
    /// The body is of another type.
    Type(&'static str),
    /// The audit or the store did not do its part.
    Unavailable(String),
}

impl Problem {
    pub(super) fn no_agent(name: &str) -> Problem {
        Problem::NotFound(format!("no agent `{name}` in the registry"))
    }

    /// The status, the word in the type's name, and the title.
    pub(super) fn face(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Problem::Challenged(_) => (StatusCode::UNAUTHORIZED, "login", "Log in"),
            Problem::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many at one time"),
            Problem::Conflict(_) => (StatusCode::CONFLICT, "conflict", "It contradicts what is so"),
            Problem::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", "Not permitted"),
            Problem::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid", "Not understood"),
            Problem::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", "Another method is needed"),
            Problem::NotFound(_) => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Problem::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large"),
            Problem::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too-slow", "Too slow"),
            Problem::Type(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Another type is needed"),
            Problem::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
        }
    }

    /// What went wrong, as a sentence.
    pub(super) fn detail(&self) -> String {
        match self {
            Problem::Challenged(challenge) => challenge.detail().to_owned(),
            Problem::Conflict(text)
            | Problem::Forbidden(text)
            | Problem::Invalid(text)
            | Problem::NotFound(text)
            | Problem::TooLarge(text)
            | Problem::Unavailable(text) => text.clone(),
            Problem::Busy(text) | Problem::Type(text) => (*text).to_owned(),
            Problem::Method => "the page exists, but not for this method".to_owned(),
            Problem::TooSlow => "the body did not arrive in time".to_owned(),
        }
    }
}

impl Challenge {
    fn detail(&self) -> &str {
        match self {
            Challenge::Absent => "log in, or show an access token or a certificate of a person",
            Challenge::Again { text, .. } | Challenge::Token(text) => text,
        }
    }

    /// The value of `WWW-Authenticate` [RFC 6750 §3, RFC 9470 §3].
    fn header(&self) -> String {
        const REALM: &str = "Bearer realm=\"holdpoint\"";
        // What is quoted here must not end the quotes.
        let told = self.detail().replace(['"', '\\'], "'");
        match self {
            Challenge::Absent => REALM.to_owned(),
            Challenge::Token(_) => {
                format!("{REALM}, error=\"invalid_token\", error_description=\"{told}\"")
            }
            Challenge::Again { max_age, acr, .. } => {
                let acr = if acr.is_empty() { String::new() } else { format!(", acr_values=\"{acr}\"") };
                let seconds = max_age.as_secs();
                format!(
                    "{REALM}, error=\"insufficient_user_authentication\", error_description=\"{told}\", \
                     max_age=\"{seconds}\"{acr}"
                )
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, word, title) = self.face();
        let body = json!({
            "type": format!("urn:holdpoint:problem:{word}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail(),
        });
        let mut response = (status, body.to_string()).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Problem::Challenged(challenge) = &self {
            if let Ok(value) = HeaderValue::from_str(&challenge.header()) {
                response.headers_mut().insert(WWW_AUTHENTICATE, value);
            }
            response.extensions_mut().insert(challenge.clone());
        }
        if matches!(self, Problem::Method) {
            response.headers_mut().entry(ALLOW).or_insert(HeaderValue::from_static("DELETE, GET, POST"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match error {
            StoreError::TooLarge { .. } => Problem::Invalid(error.to_string()),
            other => Problem::Unavailable(other.to_string()),
        }
    }
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Problem {
        match error {
            OrderError::Refused(error) => error.into(),
            OrderError::Forgettable(_) => Problem::Unavailable(error.to_string()),
        }
    }
}

/// See another page instead, with GET [RFC 9110 §15.4.4].
pub(super) fn see_other(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(http::header::LOCATION, location)]).into_response(),
        Err(_) => Problem::Invalid("there is no such page".to_owned()).into_response(),
    }
}
