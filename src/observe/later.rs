//! An answer that begins before it is known: a stream of events that says from time to time that its call still waits,
//! and then is the answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Body, Failure, is_event_stream, media_type};

/// An answer that is still being made by a task of its own, which goes on when nobody reads this any more.
pub struct Later {
    beats: Interval,
    beaten: u64,
    /// The token by which progress is told, JSON, and what is said with it.
    progress: Option<(String, String)>,
    /// The message for when what comes is none.
    otherwise: String,
    state: State,
}

enum State {
    Waiting(JoinHandle<Response<Body>>),
    /// A stream of events passes as it is.
    Events(Box<Body>),
    /// A message becomes an event: its first bytes have still to be announced, or not.
    Message(Box<Body>),
    Ended,
}

/// Makes a client read on.
const COMMENT: &[u8] = b": waiting\n\n";

impl Later {
    /// The answer of this task. Until it is there, the client is told so each `every`.
    pub fn new(
        coming: JoinHandle<Response<Body>>,
        every: Duration,
        progress: Option<(String, String)>,
        otherwise: String,
    ) -> Later {
        let mut beats = interval(every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Later { beats, beaten: 0, progress, otherwise, state: State::Waiting(coming) }
    }

    /// The next sign of life. Progress grows by so little that what the upstream tells later is more.
    fn beat(&mut self) -> Bytes {
        let mut text = COMMENT.to_vec();
        if let Some((token, message)) = &self.progress {
            let progress = format!("0.{:06}", self.beaten + 1);
            let message = serde_json::Value::from(message.as_str());
            text.extend_from_slice(
                format!(
                    "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":\
                     {{\"progressToken\":{token},\"progress\":{progress},\"message\":{message}}}}}\n\n"
                )
                .as_bytes(),
            );
        }
        self.beaten += 1;
        Bytes::from(text)
    }

    /// What is said when the answer cannot be passed on as a message.
    fn otherwise(&mut self) -> Bytes {
        self.state = State::Ended;
        Bytes::from(format!("event: message\ndata: {}\n\n", self.otherwise))
    }

    fn arrived(&mut self, response: Response<Body>) -> Option<Bytes> {
        let (head, body) = response.into_parts();
        if is_event_stream(&head.headers) {
            self.state = State::Events(Box::new(body));
            return None;
        }
        if !media_type(&head.headers).eq_ignore_ascii_case("application/json") {
            return Some(self.otherwise());
        }
        self.state = State::Message(Box::new(body));
        Some(Bytes::from_static(b"event: message\ndata: "))
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            match &mut self.state {
                State::Waiting(coming) => {
                    if let Poll::Ready(response) = Pin::new(coming).poll(cx) {
                        let bytes = match response {
                            Ok(response) => self.arrived(response),
                            Err(_) => Some(self.otherwise()),
                        };
                        if let Some(bytes) = bytes {
                            return Poll::Ready(Some(Ok(Frame::data(bytes))));
                        }
                        continue;
                    }
                    ready!(self.beats.poll_tick(cx));
                    return Poll::Ready(Some(Ok(Frame::data(self.beat()))));
                }
                State::Events(body) => return Pin::new(&mut **body).poll_frame(cx),
                State::Message(body) => match ready!(Pin::new(&mut **body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let Ok(data) = frame.into_data() else { continue };
                        return Poll::Ready(Some(Ok(Frame::data(one_line(&data)))));
                    }
                    Some(Err(error)) => {
                        self.state = State::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => {
                        self.state = State::Ended;
                        return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"\n\n")))));
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

/// Ends of lines mean nothing in JSON, and end an event.
fn one_line(data: &Bytes) -> Bytes {
    if !data.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return data.clone();
    }
    data.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}
