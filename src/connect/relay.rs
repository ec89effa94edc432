//! One request of a local socket on its way to the gateway and back, its bodies passed as they come.

use bytes::Bytes;
use http::header::{
    CONNECTION, EXPECT, HOST, HeaderName, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Request, Response, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use super::Admission;
use super::gateway::{Gateway, Place};
use super::local::{self, Names};
use super::problem::Problem;

/// Headers of one connection, which mean nothing on the next [RFC 9110 §7.6.1].
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What an agent gets: the gateway's body as it streams, or a problem.
pub type Body = Either<Incoming, Full<Bytes>>;

/// Answers one request. Nothing goes out before it is known that it may.
pub async fn answer(
    gateway: &Gateway,
    names: Names,
    admission: &Admission,
    user: Option<u32>,
    request: Request<Incoming>,
) -> Response<Body> {
    let relayed = async {
        let outgoing = outgoing(gateway.place(), names, admission, user, request)?;
        gateway.send(outgoing).await.map_err(|error| Problem::Unreached(error.to_string()))
    };
    match relayed.await {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            drop_hop_by_hop(&mut head.headers);
            head.version = Version::HTTP_11;
            Response::from_parts(head, Either::Left(body))
        }
        Err(problem) => problem.response().map(|body| Either::Right(Full::new(body))),
    }
}

fn outgoing(
    place: &Place,
    names: Names,
    admission: &Admission,
    user: Option<u32>,
    request: Request<Incoming>,
) -> Result<Request<Either<Incoming, Full<Bytes>>>, Problem> {
    let (mut head, body) = request.into_parts();
    local::named(names, &head.uri, &head.headers)?;
    local::admitted(admission, user, &mut head.headers)?;
    head.uri = target(place, &head.uri)?;
    // The gateway has a name of its own, and waiting for `100 Continue` was between the agent and this process.
    head.headers.remove(HOST);
    // It was checked here, and is the socket's own: to the gateway it would be another's.
    head.headers.remove(ORIGIN);
    head.headers.remove(EXPECT);
    drop_hop_by_hop(&mut head.headers);
    head.version = Version::default();
    Ok(Request::from_parts(head, Either::Left(body)))
}

/// The target at the gateway. A path that could lead out of the upstream's is refused here already.
fn target(place: &Place, uri: &Uri) -> Result<Uri, Problem> {
    let path = uri.path();
    let dots =
        |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if !path.starts_with('/') || path.split(['/', '\\']).any(dots) {
        return Err(Problem::Malformed("The target must be a path without dot segments."));
    }
    let path = uri.path_and_query().map_or(path, |whole| whole.as_str());
    place.uri(path).ok_or(Problem::Malformed("The target must be a path."))
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}
