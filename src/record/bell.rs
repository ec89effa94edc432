//! How the ledger's writer is told that entries wait: once for all that come at the same time.
//!
//! Whoever puts an entry into the queue may let others do so first, and tells the writer after that. The writer then takes
//! them all with one `write`, rather than each alone, with a change of threads for each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Wakes the writer.
#[derive(Debug, Default)]
pub(super) struct Bell {
    writer: OnceLock<Thread>,
    /// Whether there are entries that it was not told of.
    untold: AtomicBool,
}

/// Tells the writer when it goes, unless another did meanwhile.
#[must_use = "the writer is told when this goes"]
pub(super) struct Ring<'b>(&'b Bell);

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        if self.0.untold.swap(false, Ordering::AcqRel) {
            self.0.ring();
        }
    }
}

impl Bell {
    /// Says who the writer is. Nobody puts an entry into its queue before.
    pub(super) fn is_for(&self, writer: Thread) {
        let _ = self.writer.set(writer);
    }

    /// Tells the writer now.
    pub(super) fn ring(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// An entry was put into the queue; the writer is told of it when what this gives goes, at the latest.
    pub(super) fn put(&self) -> Ring<'_> {
        self.untold.store(true, Ordering::Release);
        Ring(self)
    }
}

/// The writer's end of the queue.
pub(super) struct Intake<T> {
    entries: Receiver<T>,
}

impl<T> Intake<T> {
    /// Of the thread that its bell is for.
    pub(super) fn new(entries: Receiver<T>) -> Intake<T> {
        Intake { entries }
    }

    /// The next entry, if it is there.
    pub(super) fn next(&self) -> Result<T, TryRecvError> {
        self.entries.try_recv()
    }

    /// Waits for the next entry, and at most so long.
    pub(super) fn wait(&self, at_most: Option<Duration>) -> Result<T, RecvTimeoutError> {
        let end = at_most.map(|at_most| Instant::now() + at_most);
        loop {
            match self.entries.try_recv() {
                Ok(entry) => return Ok(entry),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            match end.map(|end| end.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Err(RecvTimeoutError::Timeout),
                Some(left) => std::thread::park_timeout(left),
                None => std::thread::park(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn the_writer_is_told_once_of_all_that_came_at_the_same_time() {
        let (queue, entries) = sync_channel(1000);
        let (tell, told) = sync_channel(1000);
        let bell = Arc::new(Bell::default());
        let writer = std::thread::spawn(move || {
            let intake = Intake::new(entries);
            while let Ok(first) = intake.wait(None) {
                let mut group = vec![first];
                group.extend(std::iter::from_fn(|| intake.next().ok()));
                tell.send(group).unwrap();
            }
        });
        bell.is_for(writer.thread().clone());
        for round in 0..1000 {
            let rings: Vec<Ring<'_>> = (0..3)
                .map(|entry| {
                    queue.send((round, entry)).unwrap();
                    bell.put()
                })
                .collect();
            drop(rings);
            let mut all = Vec::new();
            while all.len() < 3 {
                all.extend(told.recv_timeout(Duration::from_secs(5)).unwrap());
            }
            assert_eq!(all, [(round, 0), (round, 1), (round, 2)]);
        }
        drop(queue);
        bell.ring();
        writer.join().unwrap();
    }

    #[test]
    fn a_wait_ends_in_time_and_with_the_last_sender() {
        let (queue, entries) = sync_channel::<u32>(1);
        let intake = Intake::new(entries);
        assert_eq!(intake.wait(Some(Duration::from_millis(5))), Err(RecvTimeoutError::Timeout));
        drop(queue);
        assert_eq!(intake.wait(None), Err(RecvTimeoutError::Disconnected));
    }
}
