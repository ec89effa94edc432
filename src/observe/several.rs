//! The replies to a batch, as one stream of events: those that are streams pass event by event, a JSON reply becomes an
//! event of its own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame};

use super::{Body, Failure, is_event_stream, media_type};

/// The largest reply that becomes one event, in bytes.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Replies that are under way.
#[derive(Default)]
pub struct Several(Vec<One>);

struct One {
    body: Body,
    /// What the agent is told when the reply breaks off, if it waits for one.
    otherwise: Option<Bytes>,
    /// The text so far, where it is JSON; a stream of events passes as it is.
    json: Option<Vec<u8>>,
}

impl Several {
    /// Adds the reply to one message. `otherwise` is what a request is answered when its reply has no message in it, or
    /// breaks off; a notification has none.
    pub fn add(&mut self, reply: Response<Body>, otherwise: Option<String>) {
        let otherwise = otherwise.map(|text| event(text.into_bytes()));
        let (body, json) = match media_type(reply.headers()) {
            _ if is_event_stream(reply.headers()) => (reply.into_body(), None),
            "application/json" => (reply.into_body(), Some(Vec::new())),
            _ if otherwise.is_some() => (Body::Own(otherwise.clone()), None),
            _ => return,
        };
        self.0.push(One { body, otherwise, json });
    }

    /// Adds what a request is answered that ended without any reply.
    pub fn lost(&mut self, otherwise: Option<String>) {
        if let Some(text) = otherwise {
            let body = Body::Own(Some(event(text.into_bytes())));
            self.0.push(One { body, otherwise: None, json: None });
        }
    }

    /// Whether there is nothing to pass.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes of any reply. A reply that breaks off ends alone.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let mut at = 0;
        while let Some(one) = self.0.get_mut(at) {
            match Pin::new(&mut one.body).poll_frame(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    match &mut one.json {
                        None => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Some(text) if text.len() + data.len() <= EVENT_BYTES_MAX => {
                            text.extend_from_slice(&data)
                        }
                        Some(_) => {
                            let otherwise = self.0.swap_remove(at).otherwise;
                            return Poll::Ready(Some(Ok(Frame::data(otherwise.unwrap_or_default()))));
                        }
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    if let Some(otherwise) = self.0.swap_remove(at).otherwise {
                        return Poll::Ready(Some(Ok(Frame::data(otherwise))));
                    }
                }
                Poll::Ready(None) => {
                    if let Some(text) = self.0.swap_remove(at).json {
                        return Poll::Ready(Some(Ok(Frame::data(event(text)))));
                    }
                }
            }
        }
        if self.0.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// A JSON text as an event: its line breaks lie between tokens, where a space says the same.
fn event(mut text: Vec<u8>) -> Bytes {
    for byte in &mut text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    Bytes::from([b"event: message\ndata: ", text.as_slice(), b"\n\n"].concat())
}
