//! The body of a request that goes upstream.

use std::collections::VecDeque;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// The bytes that were decided on, or a stream whose operation the catalogue marks opaque.
pub enum Outgoing {
    /// Whole: pieces of the bytes that were parsed.
    Whole(VecDeque<Bytes>),
    /// Passed on as it arrives. Trailers are dropped.
    Stream(Incoming, Upload),
}

/// Whether what was known of the agent when its call was decided is still all there is.
pub type Steady = Box<dyn Fn() -> bool + Send + Sync>;

/// What is to be known of a body that streams.
pub struct Upload {
    /// Dropped with the body, which tells that it has ended.
    pub ended: oneshot::Sender<()>,
    /// Asked before every piece of what leaves.
    pub steady: Option<Steady>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Outgoing::Whole(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Outgoing::Stream(incoming, upload) => loop {
                match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                    Some(Ok(_)) if upload.steady.as_ref().is_some_and(|steady| !steady()) => {
                        return Poll::Ready(Some(Err(
                            "the agent has read what the decision did not know".into()
                        )));
                    }
                    Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    None => return Poll::Ready(None),
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(pieces) => pieces.is_empty(),
            Outgoing::Stream(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Outgoing::Stream(incoming, _) => incoming.size_hint(),
        }
    }
}
