//! What the connector itself answers: problems [RFC 9457], each with what to do.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

/// Why a request does not go to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No Host, more than one, or a target that is no path.
    Malformed(&'static str),
    /// Host is not one of the connector's own names.
    ForeignHost,
    /// Origin is not one of the connector's own.
    ForeignOrigin,
    /// The process at the other end is not of the user who may.
    WrongUser,
    /// No bearer token, or a wrong one.
    WrongToken,
    /// There is no reply of the gateway's.
    Unreached(String),
}

impl Problem {
    /// The answer.
    pub fn response(&self) -> Response<Bytes> {
        let (status, kind, title) = match self {
            Problem::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed", "Malformed request"),
            Problem::ForeignHost => (StatusCode::FORBIDDEN, "foreign-host", "Not a name of this socket"),
            Problem::ForeignOrigin => {
                (StatusCode::FORBIDDEN, "foreign-origin", "Not an origin of this socket")
            }
            Problem::WrongUser => (StatusCode::FORBIDDEN, "local-user", "Not admitted"),
            Problem::WrongToken => (StatusCode::UNAUTHORIZED, "local-token", "Not admitted"),
            Problem::Unreached(_) => (StatusCode::BAD_GATEWAY, "gateway-unreached", "Gateway not reached"),
        };
        let detail = match self {
            Problem::Malformed(what) => *what,
            Problem::ForeignHost => {
                "Host must be localhost or the loopback address, with the port of this socket."
            }
            Problem::ForeignOrigin => "Web pages may not use this socket.",
            Problem::WrongUser => "This socket is for processes of another user.",
            Problem::WrongToken => "Send the token of --token-file as Authorization: Bearer.",
            Problem::Unreached(why) => why,
        };
        let body = json!({
            "type": format!("urn:holdpoint:problem:{kind}"),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
        });
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if *self == Problem::WrongToken {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
