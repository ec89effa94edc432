//! How a call learns that nobody waits for its answer any more.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;

use super::activity::Busy;
use crate::forward::Leave;

/// Tells whether the client of a call has left before the whole answer was taken. It is among the request's extensions.
#[derive(Clone, Debug)]
pub struct Gone(watch::Receiver<bool>);

impl Gone {
    /// The signal of a request; one that nobody made never fires.
    pub fn of<B>(request: &http::Request<B>) -> Gone {
        request.extensions().get::<Gone>().cloned().unwrap_or_else(|| Gone(watch::channel(false).1))
    }

    /// Waits for something; `None` when the client leaves first and its leaving ends it.
    pub async fn unless<T>(&self, leave: Leave, something: impl Future<Output = T>) -> Option<T> {
        if leave == Leave::Stays {
            return Some(something.await);
        }
        tokio::select! {
            biased;
            done = something => Some(done),
            () = self.wait() => None,
        }
    }

    /// Waits until the client has left; for ever when it takes the whole answer.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|gone| *gone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the client has left.
    pub fn is_gone(&self) -> bool {
        *self.0.borrow()
    }
}

/// The connection's end of [`Gone`]: dropped before the answer is complete, it says that the client has left.
#[derive(Debug)]
pub(super) struct Presence {
    sender: watch::Sender<bool>,
    complete: bool,
    /// Held while this call's answer is under way, so that an idle connection can be told from a busy one.
    _busy: Busy,
}

impl Presence {
    pub(super) fn new(busy: Busy) -> (Presence, Gone) {
        let (sender, receiver) = watch::channel(false);
        (Presence { sender, complete: false, _busy: busy }, Gone(receiver))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if !self.complete {
            let _ = self.sender.send(true);
        }
    }
}

/// A response body that notices whether it was taken to its end.
pub(super) struct Watched<B> {
    body: Pin<Box<B>>,
    presence: Presence,
    /// Bytes still to come, when the length is known: hyper stops asking when it has them all.
    left: Option<u64>,
}

impl<B: Body<Data = Bytes>> Watched<B> {
    pub(super) fn new(body: B, mut presence: Presence) -> Watched<B> {
        let left = body.size_hint().exact();
        presence.complete = body.is_end_stream() || left == Some(0);
        Watched { body: Box::pin(body), presence, left }
    }
}

impl<B: Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>>> Body for Watched<B> {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
        if let (Some(left), Some(data)) = (&mut this.left, data) {
            *left = left.saturating_sub(data.len() as u64);
        }
        this.presence.complete |= frame.is_none() || this.left == Some(0) || this.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
