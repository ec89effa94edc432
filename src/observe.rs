//! Observe: a reply passes as it arrives, and what must be known of it is learnt in passing.
//!
//! The end of a reply is released only when the audit has its outcome: the last bytes of a sized body, the response
//! event of a stream, or else the end itself, wait for that. When the agent leaves, a read and every modern MCP call
//! end upstream at once; any other is drained for a bounded time, so that its outcome is known.

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::call::{AgentId, Stop, hex};
use crate::decode::Call;
use crate::decode::session::Sessions;
use crate::decode::sse::{self, ReplyKind, Scanner};
use crate::forward::pool::Lent;
use crate::forward::{Expects, Reply};
use crate::limit::Slot;
use crate::record::{Ending, RECORD_HEADER, Record, ReplyFacts};

/// What of a JSON reply is looked at; a longer one passes without being understood.
const WINDOW_BYTES_MAX: usize = 256 << 10;
/// The largest event that is understood.
const EVENT_BYTES_MAX: usize = 4 << 20;
/// How long a reply may be silent, unless it is a stream.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// How long a reply is drained after its agent has left.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);

type Failure = Box<dyn Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    /// The gateway's own words.
    Own(Option<Bytes>),
    /// An upstream's reply, passing.
    Reply(Box<Passing>),
}

/// Who a reply is for, and where its sessions are kept.
pub struct Audience {
    /// The agent.
    pub agent: AgentId,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The sessions.
    pub sessions: Arc<Sessions>,
}

impl Audience {
    /// The audience of a call's reply.
    pub fn of(call: &Call, sessions: &Arc<Sessions>) -> Audience {
        let agent = call.agent().id().clone();
        Audience { agent, upstream: Arc::clone(&call.route().name), sessions: Arc::clone(sessions) }
    }
}

/// Begins to pass a reply on. One without a body has ended already, and is released when the audit has its outcome.
pub async fn reply(
    reply: Reply,
    slot: Slot,
    record: Record,
    audience: &Audience,
) -> Result<Response<Body>, Box<Stop>> {
    let Reply { mut head, body, lent, expects } = reply;
    sessions(&head.headers, head.status.is_success(), &expects, audience);
    if let Ok(value) = HeaderValue::from_str(&record.id().to_string()) {
        head.headers.insert(RECORD_HEADER, value);
    }
    let lesson = Lesson::of(&head.headers, &expects);
    let silent = expects.standing || is_event_stream(&head.headers);
    if matches!(lesson, Lesson::Events(_)) {
        // A stream of events is cut after the response, so its size is not known.
        head.headers.remove(CONTENT_LENGTH);
    }
    let ended = body.is_end_stream();
    let mut passing = Passing {
        incoming: Some(body),
        lent,
        expects,
        lesson: Some(lesson),
        digest: digest::Context::new(&digest::SHA256),
        bytes: 0,
        silent,
        silence: None,
        record: Some(record),
        slot: Some(slot),
        last: VecDeque::new(),
        state: State::Passing,
    };
    if !ended {
        return Ok(Response::from_parts(head, Body::Reply(Box::new(passing))));
    }
    // A server does not ask an empty body for its end, so the end is recorded here.
    passing.close(Ending::Complete, None);
    if let State::Closing(closing, _) = std::mem::replace(&mut passing.state, State::Ended) {
        closing.await?;
    }
    Ok(Response::from_parts(head, Body::Own(None)))
}

fn sessions(headers: &HeaderMap, success: bool, expects: &Expects, audience: &Audience) {
    if !success {
        return;
    }
    let session = headers.get("mcp-session-id").and_then(|value| value.to_str().ok());
    if let (true, Some(session)) = (expects.opens_session, session) {
        audience.sessions.bind(&audience.agent, &audience.upstream, session);
    }
    if let Some(session) = &expects.ends_session {
        audience.sessions.end(&audience.agent, &audience.upstream, session);
    }
}

/// A reply on its way.
pub struct Passing {
    incoming: Option<Incoming>,
    lent: Lent,
    expects: Expects,
    lesson: Option<Lesson>,
    digest: digest::Context,
    bytes: u64,
    /// Whether it may be silent without end, as a stream of events may.
    silent: bool,
    silence: Option<Pin<Box<Sleep>>>,
    record: Option<Record>,
    slot: Option<Slot>,
    /// Frames that wait for the outcome to be recorded.
    last: VecDeque<Frame<Bytes>>,
    state: State,
}

type Closing = Pin<Box<dyn Future<Output = Result<(), Box<Stop>>> + Send>>;

enum State {
    Passing,
    Closing(Closing, Ending),
    Ended,
}

/// What is looked for in a reply.
enum Lesson {
    /// A stream of events, of which one may be the response.
    Events(Scanner),
    /// One JSON text, kept up to a bound.
    Json(Vec<Bytes>, usize),
    /// Nothing.
    Nothing,
}

impl Lesson {
    fn of(headers: &HeaderMap, expects: &Expects) -> Lesson {
        if expects.mcp && is_event_stream(headers) {
            Lesson::Events(Scanner::new(EVENT_BYTES_MAX))
        } else if expects.mcp && media_type(headers).eq_ignore_ascii_case("application/json") {
            Lesson::Json(Vec::new(), 0)
        } else {
            Lesson::Nothing
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    media_type(headers).eq_ignore_ascii_case("text/event-stream")
}

fn media_type(headers: &HeaderMap) -> &str {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

// === impl Passing ===

impl Passing {
    /// Takes the next bytes; `Some` when they contain the response, with the number of bytes up to its end.
    fn learn(&mut self, data: &Bytes) -> Option<(usize, ReplyKind)> {
        let before = self.bytes;
        self.bytes += data.len() as u64;
        match self.lesson.as_mut()? {
            Lesson::Events(scanner) => {
                let id = self.expects.id.as_ref()?;
                let events = scanner.feed(data);
                let response = events.iter().find(|event| sse::is_response(&event.data, id))?;
                let end = usize::try_from(response.end.saturating_sub(before)).unwrap_or(data.len());
                // A CR LF may be cut after the CR: the LF then belongs to the end as well.
                let end = if data.get(end) == Some(&b'\n') && data.get(end.wrapping_sub(1)) == Some(&b'\r') {
                    end + 1
                } else {
                    end
                };
                Some((end.min(data.len()), sse::outcome(&response.data)))
            }
            Lesson::Json(kept, size) => {
                *size += data.len();
                if *size <= WINDOW_BYTES_MAX {
                    kept.push(data.clone());
                } else {
                    kept.clear();
                }
                None
            }
            Lesson::Nothing => None,
        }
    }

    fn facts(&mut self, told: Option<ReplyKind>) -> ReplyFacts {
        let kind = told.or_else(|| match self.lesson.take()? {
            Lesson::Json(kept, _) if !kept.is_empty() => Some(sse::outcome(&kept.concat())),
            _ => None,
        });
        let digest = std::mem::replace(&mut self.digest, digest::Context::new(&digest::SHA256)).finish();
        ReplyFacts {
            digest: format!("sha256:{}", hex(digest.as_ref())),
            bytes: self.bytes,
            tool_error: kind == Some(ReplyKind::ToolError),
            rpc_code: match kind {
                Some(ReplyKind::RpcError(code)) => Some(code),
                _ => None,
            },
        }
    }

    fn close(&mut self, ending: Ending, told: Option<ReplyKind>) {
        let facts = self.facts(told);
        self.slot = None;
        if ending == Ending::Complete {
            self.lent.give_back();
        }
        let Some(record) = self.record.take() else {
            self.state = State::Ended;
            return;
        };
        self.state = State::Closing(Box::pin(record.ended(ending, facts)), ending);
    }

    /// Takes a frame from the upstream: gives what may pass now.
    fn take(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => {
                self.last.push_back(trailers);
                self.close(Ending::Complete, None);
                return None;
            }
        };
        let response = self.learn(&data);
        if let Some((end, kind)) = response {
            let data = data.slice(..end);
            self.digest.update(&data);
            self.last.push_back(Frame::data(data));
            self.incoming = None;
            self.close(Ending::Complete, Some(kind));
            return None;
        }
        self.digest.update(&data);
        if self.incoming.as_ref().is_none_or(HttpBody::is_end_stream) {
            self.last.push_back(Frame::data(data));
            self.close(Ending::Complete, None);
            return None;
        }
        if self.incoming.as_ref().is_some_and(|body| body.size_hint().exact() == Some(0)) {
            // Over HTTP/2 the end may come after the last byte; whoever counts bytes would not wait for it.
            self.last.push_back(Frame::data(data));
            return None;
        }
        Some(Frame::data(data))
    }

    fn poll_passing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(incoming) = &mut self.incoming else {
            self.close(Ending::Complete, None);
            return Poll::Ready(None);
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.silence = None;
                return Poll::Ready(self.take(frame).map(Ok));
            }
            Poll::Ready(Some(Err(_))) => self.close(Ending::UpstreamBroke, None),
            Poll::Ready(None) => self.close(Ending::Complete, None),
            Poll::Pending if self.silent => return Poll::Pending,
            Poll::Pending => {
                let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(SILENCE_MAX)));
                ready!(silence.as_mut().poll(cx));
                self.incoming = None;
                self.close(Ending::UpstreamBroke, None);
            }
        }
        Poll::Ready(None)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            match &mut self.state {
                State::Passing => {
                    if let Some(frame) = ready!(self.poll_passing(cx)) {
                        return Poll::Ready(Some(frame));
                    }
                }
                State::Closing(closing, ending) => {
                    let recorded = ready!(closing.as_mut().poll(cx));
                    let broke = *ending == Ending::UpstreamBroke;
                    self.state = State::Ended;
                    if let Err(stop) = recorded {
                        self.last.clear();
                        return Poll::Ready(Some(Err(stop.operator.into())));
                    }
                    if broke {
                        return Poll::Ready(Some(Err("the upstream broke off within its reply".into())));
                    }
                }
                State::Ended => return Poll::Ready(self.last.pop_front().map(Ok)),
            }
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let State::Closing(closing, _) = std::mem::replace(&mut self.state, State::Ended) {
            // The outcome is being recorded: that goes on without the agent.
            spawn(async move {
                if let Err(stop) = closing.await {
                    tracing::error!(error = %stop.operator, "the outcome of a call could not be recorded");
                }
            });
        }
        let Some(record) = self.record.take() else { return };
        let incoming = self.incoming.take();
        let drains = self.expects.drains;
        let mut rest = Passing {
            incoming,
            lent: self.lent.take(),
            expects: self.expects.clone(),
            lesson: self.lesson.take(),
            digest: std::mem::replace(&mut self.digest, digest::Context::new(&digest::SHA256)),
            bytes: self.bytes,
            silent: self.silent,
            silence: None,
            record: Some(record),
            slot: self.slot.take(),
            last: VecDeque::new(),
            state: State::Passing,
        };
        spawn(async move {
            if drains {
                let draining = std::future::poll_fn(|cx| {
                    loop {
                        match ready!(rest.poll_next(cx)) {
                            Some(Ok(_)) => {}
                            Some(Err(_)) | None => return Poll::Ready(()),
                        }
                    }
                });
                if tokio::time::timeout(DRAIN_TIME_MAX, draining).await.is_ok() {
                    return;
                }
            }
            rest.incoming = None;
            rest.close(Ending::ClientGone, None);
            std::future::poll_fn(|cx| rest.poll_next(cx).map(|_| ())).await;
        });
    }
}

/// Runs to its end even though the agent has left. Without a runtime the record closes itself as abandoned.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}

// === impl Body ===

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Body::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Reply(passing) => passing.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Own(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::Reply(passing) => matches!(passing.state, State::Ended) && passing.last.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Reply(passing) => match (&passing.incoming, &passing.lesson) {
                (Some(incoming), Some(Lesson::Json(..) | Lesson::Nothing)) if passing.last.is_empty() => {
                    incoming.size_hint()
                }
                _ => SizeHint::default(),
            },
        }
    }
}
