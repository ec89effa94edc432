//! Calls whose response comes on another stream: the transport of MCP 2024-11-05 takes a request with 202, and answers it
//! on the stream that the session began with. The record of such a call is parked until its response passes there.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::oneshot;

use super::judge::Judge;
use super::tap::Tap;
use crate::call::{Stage, Stop, StopKind};
use crate::decode::jsonrpc::Id;
use crate::limit::Slot;
use crate::record::{Ending, Record, ReplyFacts};

/// Calls that are parked at one time.
const PARKED_MAX: usize = 16_384;
/// How long a response waits for the word that its request was taken.
const TAKEN_WAIT_MAX: Duration = Duration::from_secs(30);

type Key = (Arc<str>, Id);

/// The calls that are parked, by session and id.
#[derive(Default)]
pub struct Parked(DashMap<Key, Waiting>);

/// What the response to a call is judged by, and its record once the request was taken.
pub struct Waiting {
    /// Who judges the response.
    pub judge: Box<Judge>,
    /// Who learns from it.
    pub tap: Option<Box<Tap>>,
    record: oneshot::Receiver<(Record, Slot)>,
}

/// The call's own end of it.
pub struct Elsewhere {
    parked: Arc<Parked>,
    key: Key,
    record: Option<oneshot::Sender<(Record, Slot)>>,
}

impl Parked {
    /// Parks a call before it is sent, since its response may come before the word that it was taken.
    pub fn park(
        self: &Arc<Parked>,
        session: Arc<str>,
        id: Id,
        judge: Box<Judge>,
        tap: Option<Box<Tap>>,
    ) -> Result<Elsewhere, Box<Stop>> {
        if self.0.len() >= PARKED_MAX {
            let text = "too many calls wait for their response; nothing was sent. Try again.";
            return Err(Stop::new(Stage::Commit, StopKind::Unavailable, "overload", text)
                .retry_after(Duration::from_secs(1)));
        }
        let (sender, record) = oneshot::channel();
        let key = (session, id);
        self.0.insert(key.clone(), Waiting { judge, tap, record });
        Ok(Elsewhere { parked: Arc::clone(self), key, record: Some(sender) })
    }

    /// The call that this response answers.
    pub fn take(&self, session: &Arc<str>, id: Id) -> Option<Waiting> {
        self.0.remove(&(Arc::clone(session), id)).map(|(_, waiting)| waiting)
    }

    /// The stream of a session has ended: nothing on it will be answered, and open records say so.
    pub fn end(&self, session: &str) {
        self.0.retain(|(of, _), _| **of != *session);
    }
}

impl Waiting {
    /// Records the outcome of the call; its response may pass once this returns.
    pub async fn settle(self, facts: ReplyFacts) -> Result<(), Box<Stop>> {
        match tokio::time::timeout(TAKEN_WAIT_MAX, self.record).await {
            Ok(Ok((record, slot))) => {
                drop(slot);
                record.ended(Ending::Complete, facts).await
            }
            // The request was refused, and its record says so.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

impl Elsewhere {
    /// The request was taken; gives the record back when the stream has gone meanwhile.
    pub fn taken(mut self, record: Record, slot: Slot) -> Option<(Record, Slot)> {
        match self.record.take() {
            Some(sender) => sender.send((record, slot)).err(),
            None => Some((record, slot)),
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if self.record.is_some() {
            self.parked.0.remove(&self.key);
        }
    }
}
