//! The body of an answer, wherever it comes from.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Failure, Later, Lesson, Passing, Several, State};

/// The body of an answer.
pub enum Body {
    /// The gateway's own words.
    Own(Option<Bytes>),
    /// What is not known yet.
    Later(Box<Later>),
    /// An upstream's reply, passing.
    Reply(Box<Passing>),
    /// The replies to a batch.
    Several(Box<Several>),
}

// === impl Body ===

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Body::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Later(later) => later.poll_next(cx),
            Body::Reply(passing) => passing.poll_next(cx),
            Body::Several(replies) => replies.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Own(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::Later(_) => false,
            Body::Reply(passing) => {
                matches!(passing.state, State::Ended) && passing.last.is_empty() && passing.ready.is_empty()
            }
            Body::Several(replies) => replies.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Later(_) | Body::Several(_) => SizeHint::default(),
            Body::Reply(passing) => match (&passing.incoming, &passing.lesson) {
                (Some(incoming), Some(Lesson::Json(..) | Lesson::Nothing))
                    if passing.last.is_empty() && passing.early.is_empty() && passing.ready.is_empty() =>
                {
                    incoming.size_hint()
                }
                _ => SizeHint::default(),
            },
        }
    }
}
