//! Observe: a reply passes as it arrives, and what must be known of it is learnt in passing.
//!
//! The end of a reply is released only when the audit has its outcome: the last bytes of a sized body, the response
//! event of a stream, or else the end itself, wait for that. When the agent leaves, a read and every modern MCP call
//! end upstream at once; any other is drained for a bounded time, so that its outcome is known.

mod body;
mod decompress;
mod ending;
mod judge;
mod later;
mod parked;
mod relay;
mod several;
mod tap;
mod watch;
mod whole;

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, response};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::accept::Gone;
use crate::answer;
use crate::call::{Stage, Stop, StopKind, hex};
use crate::decode::sse::{self, ReplyKind};
use crate::flow::keep::Keeping;
use crate::flow::learn::JSON_BYTES_MAX;
use crate::forward::pool::Lent;
use crate::forward::{Expects, Reply};
use crate::limit::Slot;
use crate::record::capture::REPLY_BYTES_MAX;
use crate::record::{Ending, RECORD_HEADER, Record, ReplyFacts};
pub use body::Body;
use ending::{ended, kept};
pub use judge::{Continues, Decline, Judge, Old, Relist, Shown, Shows};
pub use later::Later;
use parked::Waiting;
pub use parked::{Elsewhere, Parked};
use relay::{Passed, Relay};
pub use several::Several;
use tap::Mcp;
pub use tap::Tap;
use watch::Watch;

/// What of a JSON reply is looked at for how it ended; a longer one passes without that being known.
const WINDOW_BYTES_MAX: usize = 256 << 10;
/// The largest reply that is read whole, because something in it must be known or changed before any of it passes.
const WHOLE_BYTES_MAX: usize = 4 << 20;
/// How long a reply may be silent, unless it is a stream.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The largest reply that is kept back until its end only so that it can be learnt by its structure.
const LEARNT_BYTES_MAX: usize = JSON_BYTES_MAX;
/// How long a reply that is kept back for that may rest before it passes piece by piece: it may be one that has no end.
const REST_TIME_MAX: Duration = Duration::from_millis(500);
/// How long a reply is drained after its agent has left.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);

type Failure = Box<dyn Error + Send + Sync>;

/// Begins to pass a reply on. One without a body has ended already, and is released when the audit has its outcome; one
/// that must be known before it passes is read whole. What the tap learns of it is kept before it is released.
///
/// It begins at once; what it gives waits, and holds little more than a box.
pub fn reply(
    reply: Reply,
    slot: Slot,
    record: Record,
    (mut judge, mut tap): (Option<Box<Judge>>, Option<Box<Tap>>),
    elsewhere: Option<Elsewhere>,
    gone: &Gone,
) -> impl Future<Output = Result<Response<Body>, Box<Stop>>> {
    let Reply { mut head, body, lent, expects } = reply;
    if let Some(judge) = &mut judge {
        judge.begun(&head.headers, head.status.is_success());
    }
    if let Ok(value) = HeaderValue::from_str(&record.id().to_string()) {
        head.headers.insert(RECORD_HEADER, value);
    }
    let lesson = Lesson::of(&head.headers, &expects, &record);
    let silent = expects.standing || is_event_stream(&head.headers);
    if matches!(lesson, Lesson::Events(_)) {
        // A stream of events is cut after the response, and some are left out, so its size is not known.
        head.headers.remove(CONTENT_LENGTH);
    }
    if let (Some(tap), false) = (&mut tap, matches!(lesson, Lesson::Events(_))) {
        tap.begun(&head.headers, if expects.mcp { Mcp::Yes } else { Mcp::No });
    }
    let ended = body.is_end_stream();
    let judged = matches!(lesson, Lesson::Json(..))
        && judge.as_ref().is_some_and(|judge| judge.reads_whole(body.size_hint().exact(), WINDOW_BYTES_MAX));
    let learnt = tap.as_deref().is_some_and(Tap::reads_whole);
    let watch = judge.as_deref().is_some_and(Judge::is_wary).then(Watch::default);
    let mut stream_gone = false;
    let open = match elsewhere.filter(|_| head.status.is_success()) {
        Some(elsewhere) => {
            let open = elsewhere.taken(record, slot);
            stream_gone = open.is_some();
            open
        }
        None => Some((record, slot)),
    };
    let (record, slot) = open.unzip();
    let passing = Box::new(Passing {
        incoming: Some(body),
        lent,
        expects,
        lesson: Some(lesson),
        watch,
        judge,
        tap,
        keeping: Vec::new(),
        digest: digest::Context::new(&digest::SHA256),
        bytes: 0,
        kept: record.as_ref().filter(|record| record.keeps_reply()).map(|_| Vec::new()),
        silent,
        silence: None,
        record,
        slot,
        early: VecDeque::new(),
        ready: VecDeque::new(),
        last: VecDeque::new(),
        left: false,
        state: State::Passing,
    });
    async move {
        if stream_gone {
            return passing.refused(Ending::UpstreamBroke, failed("stream-gone")).await;
        }
        if judged || (learnt && !ended) {
            return passing.whole(head, gone, judged).await;
        }
        if !ended {
            return Ok(Response::from_parts(head, Body::Reply(passing)));
        }
        passing.empty(head).await
    }
}

/// A reply on its way.
pub struct Passing {
    incoming: Option<Incoming>,
    lent: Lent,
    expects: Expects,
    lesson: Option<Lesson>,
    /// What an upstream that may not ask everything is watched by, where its reply is not judged by messages.
    watch: Option<Watch>,
    judge: Option<Box<Judge>>,
    tap: Option<Box<Tap>>,
    /// What was learnt and must be kept before the reply's end is released.
    keeping: Vec<Keeping>,
    digest: digest::Context,
    bytes: u64,
    /// Its beginning, when the audit seals it.
    kept: Option<Vec<u8>>,
    /// Whether it may be silent without end, as a stream of events may.
    silent: bool,
    silence: Option<Pin<Box<Sleep>>>,
    record: Option<Record>,
    slot: Option<Slot>,
    /// Pieces that were read before the reply began to pass.
    early: VecDeque<Bytes>,
    /// Pieces that may pass now.
    ready: VecDeque<Bytes>,
    /// Frames that wait for the outcome to be recorded.
    last: VecDeque<Frame<Bytes>>,
    /// Whether its agent has left already: then its own end, as at the end of the program, begins nothing again.
    left: bool,
    state: State,
}

type Closing = Pin<Box<dyn Future<Output = Result<(), Box<Stop>>> + Send>>;

enum State {
    Passing,
    /// Calls that are answered on this stream are being recorded; until then nothing passes.
    Settling(Closing),
    Closing(Closing, Ending),
    Ended,
}

/// What is looked for in a reply.
enum Lesson {
    /// A stream of events, of which one may be the response.
    Events(Box<Relay>),
    /// One JSON text, kept up to a bound.
    Json(Vec<Bytes>, usize),
    /// Nothing.
    Nothing,
}

impl Lesson {
    fn of(headers: &HeaderMap, expects: &Expects, record: &Record) -> Lesson {
        if expects.mcp && is_event_stream(headers) {
            let (shape, id) = (record.shape.clone(), record.id());
            let words = Box::new(move |stop: &Stop| answer::refusal(stop, &shape, id).into_body().to_vec());
            Lesson::Events(Box::new(Relay::new(expects.id.clone(), words)))
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

fn failed(reason: &'static str) -> Box<Stop> {
    let text = "the upstream's reply is not one that may pass; the call may have had its effect";
    Stop::new(Stage::Observe, StopKind::UpstreamFailed, reason, text)
}

// === impl Passing ===

impl Passing {
    /// Learns bytes that are to pass.
    fn learn(&mut self, data: &Bytes) {
        self.keeping.extend(self.tap.as_mut().and_then(|tap| tap.feed(data)));
    }

    /// What is ready passes once everything that was learnt is kept.
    fn settle(&mut self, settled: Vec<(Waiting, ReplyFacts)>) {
        let keeping = std::mem::take(&mut self.keeping);
        if settled.is_empty() && keeping.is_empty() {
            return;
        }
        self.state = State::Settling(Box::pin(async move {
            kept(keeping).await?;
            for (waiting, facts) in settled {
                waiting.settle(facts).await?;
            }
            Ok(())
        }));
    }

    /// Ends a reply of which nothing passes: the outcome is recorded, and the agent is told.
    async fn refused(
        mut self: Box<Self>,
        ending: Ending,
        stop: Box<Stop>,
    ) -> Result<Response<Body>, Box<Stop>> {
        self.incoming = None;
        self.early.clear();
        self.withheld(stop.reason);
        self.close(ending, None);
        self.recorded().await?;
        Err(stop)
    }

    /// Ends a reply without a body. A server does not ask an empty body for its end, so the end is recorded here.
    async fn empty(mut self: Box<Self>, head: response::Parts) -> Result<Response<Body>, Box<Stop>> {
        self.close(Ending::Complete, None);
        self.recorded().await?;
        Ok(Response::from_parts(head, Body::Own(None)))
    }

    fn withheld(&mut self, reason: &'static str) {
        if let Some(judge) = &mut self.judge {
            judge.withheld.push(reason.into());
        }
    }

    /// Waits until the outcome is recorded.
    async fn recorded(&mut self) -> Result<(), Box<Stop>> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Closing(closing, _) => closing.await,
            State::Passing | State::Settling(_) | State::Ended => Ok(()),
        }
    }

    /// Notes bytes that pass.
    fn note(&mut self, data: &Bytes) {
        self.bytes += data.len() as u64;
        self.digest.update(data);
        if let Some(kept) = &mut self.kept {
            let room = REPLY_BYTES_MAX.saturating_sub(kept.len());
            kept.extend_from_slice(data.get(..room).unwrap_or(data));
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
            kept: self.kept.take(),
            tool_error: kind == Some(ReplyKind::ToolError),
            rpc_code: match kind {
                Some(ReplyKind::RpcError(code)) => Some(code),
                _ => None,
            },
            withheld: self
                .judge
                .as_mut()
                .map(|judge| std::mem::take(&mut judge.withheld))
                .unwrap_or_default(),
        }
    }

    fn close(&mut self, ending: Ending, told: Option<ReplyKind>) {
        let awaits = matches!(&self.lesson, Some(Lesson::Events(relay)) if relay.awaits_response());
        let resumable = awaits && told.is_none() && self.expects.resumes;
        let facts = self.facts(told);
        self.slot = None;
        if ending == Ending::Complete {
            self.lent.give_back();
        }
        self.keeping.extend(self.tap.as_deref_mut().and_then(Tap::finish));
        // A response that did not come may come on another stream, when the agent resumes this one there: what it says is
        // not learnt then, so it counts as anything that was read.
        if resumable {
            self.keeping.extend(self.tap.as_deref_mut().and_then(Tap::unread));
        }
        let keeping = std::mem::take(&mut self.keeping);
        self.state = match self.record.take() {
            Some(record) => State::Closing(Box::pin(ended(keeping, record, ending, facts)), ending),
            None if keeping.is_empty() => State::Ended,
            None => State::Closing(Box::pin(kept(keeping)), ending),
        };
    }

    /// Takes a piece from the upstream: what may pass is then ready, or the reply closes.
    fn take(&mut self, frame: Frame<Bytes>) {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => {
                self.last.push_back(trailers);
                self.close(Ending::Complete, None);
                return;
            }
        };
        if let (Some(Lesson::Events(relay)), Some(judge)) = (&mut self.lesson, &mut self.judge) {
            let passed = relay.feed(&data, judge, self.tap.as_deref_mut());
            return self.pass(passed);
        }
        if self.watch.as_mut().and_then(|watch| watch.feed(&data)).is_some() {
            // Nothing that was passed so far can be acted on: the text has no end.
            self.withheld("request-of-upstream");
            self.incoming = None;
            return self.close(Ending::UpstreamBroke, None);
        }
        if let Some(Lesson::Json(kept, size)) = &mut self.lesson {
            *size += data.len();
            if *size <= WINDOW_BYTES_MAX {
                kept.push(data.clone());
            } else {
                kept.clear();
            }
        }
        self.learn(&data);
        self.note(&data);
        if self.incoming.as_ref().is_none_or(HttpBody::is_end_stream) {
            self.last.push_back(Frame::data(data));
            self.close(Ending::Complete, None);
        } else if self.incoming.as_ref().is_some_and(|body| body.size_hint().exact() == Some(0)) {
            // Over HTTP/2 the end may come after the last byte; whoever counts bytes would not wait for it.
            self.last.push_back(Frame::data(data));
        } else {
            self.ready.push_back(data);
            self.settle(Vec::new());
        }
    }

    /// Passes what a stream's relay lets through.
    fn pass(&mut self, passed: Passed) {
        self.keeping.extend(passed.keeping);
        for piece in &passed.now {
            self.note(piece);
        }
        if let Some((bytes, kind)) = passed.response {
            self.note(&bytes);
            self.last.extend(passed.now.into_iter().chain([bytes]).map(Frame::data));
            self.incoming = None;
            return self.close(Ending::Complete, Some(kind));
        }
        self.ready.extend(passed.now);
        self.settle(passed.settled);
        if let Some(reason) = passed.broken {
            self.withheld(reason);
            self.incoming = None;
            self.close(Ending::UpstreamBroke, None);
        }
    }

    /// The upstream's reply has come to its end.
    fn finish(&mut self) {
        self.incoming = None;
        if let (Some(Lesson::Events(relay)), Some(judge)) = (&mut self.lesson, &mut self.judge) {
            let passed = relay.finish(judge, self.tap.as_deref_mut());
            self.pass(passed);
        }
        if matches!(self.state, State::Passing) {
            self.close(Ending::Complete, None);
        }
    }

    /// Goes on until something may pass, or the reply closes.
    fn poll_passing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(piece) = self.early.pop_front() {
            self.take(Frame::data(piece));
            return Poll::Ready(());
        }
        let Some(incoming) = &mut self.incoming else {
            self.finish();
            return Poll::Ready(());
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.silence = None;
                self.take(frame);
            }
            Poll::Ready(Some(Err(_))) => self.close(Ending::UpstreamBroke, None),
            Poll::Ready(None) => self.finish(),
            Poll::Pending if self.silent => return Poll::Pending,
            Poll::Pending => {
                let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(SILENCE_MAX)));
                ready!(silence.as_mut().poll(cx));
                self.incoming = None;
                self.close(Ending::UpstreamBroke, None);
            }
        }
        Poll::Ready(())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            if let State::Settling(settling) = &mut self.state {
                let settled = ready!(settling.as_mut().poll(cx));
                self.state = State::Passing;
                if settled.is_err() {
                    self.ready.clear();
                    self.incoming = None;
                    self.close(Ending::UpstreamBroke, None);
                }
            }
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match &mut self.state {
                State::Settling(_) => {}
                State::Passing => ready!(self.poll_passing(cx)),
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
        if self.left {
            return;
        }
        let Some(record) = self.record.take() else { return };
        let incoming = self.incoming.take();
        let drains = self.expects.drains;
        let mut rest = Passing {
            incoming,
            lent: self.lent.take(),
            expects: self.expects.clone(),
            lesson: self.lesson.take(),
            watch: self.watch.take(),
            judge: self.judge.take(),
            tap: self.tap.take(),
            keeping: std::mem::take(&mut self.keeping),
            digest: std::mem::replace(&mut self.digest, digest::Context::new(&digest::SHA256)),
            bytes: self.bytes,
            kept: self.kept.take(),
            silent: self.silent,
            silence: None,
            record: Some(record),
            slot: self.slot.take(),
            early: std::mem::take(&mut self.early),
            ready: VecDeque::new(),
            last: VecDeque::new(),
            left: true,
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
