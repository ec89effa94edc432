//! Streamable HTTP on one side, messages of a child on the other, in both eras of MCP.
//!
//! An answer is plain JSON when nothing comes before it. When something does, or when it takes long, it comes at the
//! end of a stream of events.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};

use super::children::{Children, Key, Unavailable};
use super::link::{Answered, Event, Exchange, Link, Standalone, Unsent, Waits};
use super::{MESSAGE_BYTES_MAX, session_id};
use crate::decode::jsonrpc::{Form, Message};
use crate::decode::mcp::claims_modern;
use crate::json::Limits;
use crate::net::{AGENT_HEADER, UNSENT_HEADER};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// A comment keeps a stream from looking dead to whoever reads it.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// What is read here was read before, within the operator's own bounds.
const LIMITS: Limits = Limits { depth_max: 256, nodes_max: usize::MAX };

/// The body of an answer.
pub(super) type Answer = Either<Full<Bytes>, Events>;

/// The child is gone, and whether it acted is not known: the connection breaks off.
#[derive(Debug, thiserror::Error)]
#[error("the child ended without an answer")]
pub(super) struct Broke;

/// Why a request comes to its end early.
enum Stop {
    Broke,
    Unsent(String),
    Refused(StatusCode, &'static str),
}

/// Answers one request of the gateway.
pub(super) async fn answer(
    children: Arc<Children>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Broke> {
    let (head, body) = request.into_parts();
    let agent = head.headers.get(AGENT_HEADER).and_then(|value| value.to_str().ok());
    // Invariant: nobody gets a child who is not somebody.
    let Some(agent) = agent.map(Arc::<str>::from) else {
        return Ok(refused(StatusCode::FORBIDDEN, "no agent is named"));
    };
    let answered = match head.method {
        Method::POST => post(&children, &agent, &head.headers, body).await,
        Method::GET => open(&children, &agent, &head.headers),
        Method::DELETE => end(&children, &agent, &head.headers),
        _ => Err(Stop::Refused(StatusCode::METHOD_NOT_ALLOWED, "an MCP endpoint has POST, GET and DELETE")),
    };
    match answered {
        Ok(response) => Ok(response),
        Err(Stop::Broke) => Err(Broke),
        Err(Stop::Unsent(reason)) => Ok(unsent(&reason)),
        Err(Stop::Refused(status, text)) => Ok(refused(status, text)),
    }
}

async fn post(
    children: &Arc<Children>,
    agent: &Arc<str>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<Answer>, Stop> {
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let read = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
    let bytes = read.map_err(|_| Stop::Refused(StatusCode::PAYLOAD_TOO_LARGE, "the message is too large"))?;
    let message = Message::read(bytes.to_bytes(), &LIMITS)
        .map_err(|_| Stop::Refused(StatusCode::BAD_REQUEST, "the body is no JSON-RPC message"))?;
    let asks = matches!(message.form(), Form::Request { .. });
    if claims_modern(headers, Some(&message)) {
        if !asks {
            // A modern client cancels by leaving, and tells nothing else over HTTP.
            return Ok(empty(StatusCode::ACCEPTED));
        }
        let child = children.start(&Key::Agent(Arc::clone(agent)), agent).await?;
        let exchange = child.ask(&message)?;
        return reply(children, exchange, modern_status).await;
    }
    if message.method() == Some("initialize") && asks {
        return initialize(children, agent, &message).await;
    }
    let child = session(children, agent, headers)?;
    if asks {
        return reply(children, child.ask(&message)?, |_| StatusCode::OK).await;
    }
    child.tell(&message)?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Starts a child for a new session. One that refuses to begin, or whose client does not wait for it, ends again.
async fn initialize(
    children: &Arc<Children>,
    agent: &Arc<str>,
    message: &Message,
) -> Result<Response<Answer>, Stop> {
    let id = session_id().ok_or_else(|| Stop::Unsent("there are no random numbers".to_owned()))?;
    let child = children.start(&Key::Session(Arc::clone(&id)), agent).await?;
    let mut opening = Opening(Some(child));
    let exchange = match &opening.0 {
        Some(child) => child.ask(message)?,
        None => return Err(Stop::Broke),
    };
    let mut failed = false;
    let mut response = reply(children, exchange, |code| {
        failed = code.is_some();
        StatusCode::OK
    })
    .await?;
    if !failed {
        opening.0 = None;
        let id = HeaderValue::from_str(&id).map_err(|_| Stop::Broke)?;
        response.headers_mut().insert(SESSION, id);
    }
    Ok(response)
}

/// A child whose session has not begun; dropped with it inside, the child ends.
struct Opening(Option<Arc<Link>>);

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            child.end();
        }
    }
}

/// The standalone stream of a session.
fn open(children: &Children, agent: &str, headers: &HeaderMap) -> Result<Response<Answer>, Stop> {
    let child = session(children, agent, headers)?;
    let Some(Standalone { events, waits }) = child.listen() else {
        return Err(Stop::Refused(StatusCode::CONFLICT, "the session's stream is open already"));
    };
    Ok(stream(Events { first: None, events, response: None, comments: comments(), _waits: waits }))
}

fn end(children: &Children, agent: &str, headers: &HeaderMap) -> Result<Response<Answer>, Stop> {
    session(children, agent, headers)?.end();
    Ok(empty(StatusCode::OK))
}

fn session(children: &Children, agent: &str, headers: &HeaderMap) -> Result<Arc<Link>, Stop> {
    let Some(id) = headers.get(SESSION).and_then(|value| value.to_str().ok()) else {
        return Err(Stop::Refused(StatusCode::BAD_REQUEST, "Mcp-Session-Id is missing: initialize first"));
    };
    children
        .session(agent, id)
        .ok_or(Stop::Refused(StatusCode::NOT_FOUND, "no such session: initialize again"))
}

/// Waits for what comes first: the answer, something before it, or the moment when a head is due.
async fn reply(
    children: &Children,
    exchange: Exchange,
    status: impl FnOnce(Option<i64>) -> StatusCode,
) -> Result<Response<Answer>, Stop> {
    let Exchange { mut events, mut response, waits } = exchange;
    let due = pin!(tokio::time::sleep(children.config.head_time_max));
    let first = tokio::select! {
        biased;
        Some(event) = events.recv() => Some(event),
        answered = &mut response => {
            let Answered { bytes, code } = answered.map_err(|_| Stop::Broke)?;
            return Ok(json(status(code), bytes));
        }
        () = due => None,
    };
    Ok(stream(Events { first, events, response: Some(response), comments: comments(), _waits: waits }))
}

/// The statuses by which a modern client tells refusals of the protocol from answers [MCP 2026-07-28].
fn modern_status(code: Option<i64>) -> StatusCode {
    match code {
        Some(-32601) => StatusCode::NOT_FOUND,
        Some(-32700 | -32600 | -32022..=-32020) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

// === streams of events ===

/// What belongs to a request or a session, as it comes; the answer ends it.
pub(super) struct Events {
    first: Option<Event>,
    events: tokio::sync::mpsc::Receiver<Event>,
    /// `None` for a standalone stream, and after the answer.
    response: Option<oneshot::Receiver<Answered>>,
    comments: Interval,
    _waits: Waits,
}

fn comments() -> Interval {
    let mut comments = tokio::time::interval(COMMENT_EVERY);
    comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
    comments.reset();
    comments
}

impl Body for Events {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(framed(&first.bytes))));
        }
        // The end of the events of a request says nothing: its answer does.
        match self.events.poll_recv(cx) {
            Poll::Ready(Some(event)) => return Poll::Ready(Some(Ok(framed(&event.bytes)))),
            Poll::Ready(None) if self.response.is_none() => return Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => {}
        }
        if let Some(response) = &mut self.response
            && let Poll::Ready(answered) = Pin::new(response).poll(cx)
        {
            self.response = None;
            self.events.close();
            return Poll::Ready(Some(answered.map(|answered| framed(&answered.bytes)).map_err(|_| Broke)));
        }
        ready!(self.comments.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b":\n\n")))))
    }
}

fn framed(message: &[u8]) -> Frame<Bytes> {
    let mut event = Vec::with_capacity(message.len() + 32);
    event.extend_from_slice(b"event: message\ndata: ");
    event.extend_from_slice(message);
    event.extend_from_slice(b"\n\n");
    Frame::data(event.into())
}

// === answers ===

fn stream(events: Events) -> Response<Answer> {
    let mut response = Response::new(Either::Right(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn json(status: StatusCode, bytes: Bytes) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// A refusal of the transport itself; the child has seen nothing.
fn refused(status: StatusCode, text: &str) -> Response<Answer> {
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{{\"code\":-32600,\"message\":{}}}}}",
        serde_json::Value::from(text)
    );
    let mut response = json(status, body.into());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
    }
    response
}

/// The gateway answers for this in the agent's protocol, and its operator reads why.
fn unsent(reason: &str) -> Response<Answer> {
    let mut response = empty(StatusCode::SERVICE_UNAVAILABLE);
    let visible: String =
        reason.chars().map(|char| if char.is_ascii_graphic() { char } else { ' ' }).collect();
    let reason = HeaderValue::from_str(&visible).unwrap_or_else(|_| HeaderValue::from_static("-"));
    response.headers_mut().insert(UNSENT_HEADER, reason);
    response
}

impl From<Unavailable> for Stop {
    fn from(unavailable: Unavailable) -> Stop {
        Stop::Unsent(unavailable.text)
    }
}

impl From<Unsent> for Stop {
    fn from(unsent: Unsent) -> Stop {
        match unsent {
            Unsent::Over => Stop::Unsent("the child has just ended".to_owned()),
            Unsent::Busy => Stop::Unsent("the child does not keep up with its requests".to_owned()),
            Unsent::SameId => Stop::Refused(StatusCode::BAD_REQUEST, "a request of this id is under way"),
        }
    }
}
