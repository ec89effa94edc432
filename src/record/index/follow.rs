//! The thread that follows the audit.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::row::row;
use super::{AuditEnd, Indexed, OnLag, segment, stretch};
use crate::record::chain::Leaf;
use crate::record::segment::Line;
use crate::store::{Place, Records, Row, StoreError};
use crate::telemetry::stand_back;

/// How often the audit is looked at: how late a record is indexed when there is nothing else to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it waits after something failed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often it looks for segments that were deleted.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// Rows that are added together; what waits to be added is never more.
const BATCH_ROWS_MAX: usize = 1024;

/// What the thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nobody needs it any more.
    End,
    /// Throw everything away and begin again.
    Rebuild,
}

/// What the thread works with.
pub(super) struct Follower {
    pub(super) dir: PathBuf,
    pub(super) records: Arc<dyn Records>,
    pub(super) end: Arc<AuditEnd>,
    pub(super) on_lag: OnLag,
    pub(super) orders: Receiver<Order>,
    pub(super) tell: watch::Sender<Indexed>,
}

/// Why it stopped for now.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the audit: {0}")]
    Audit(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Follower {
    /// Starts the thread. It ends when nobody can give it orders any more, and drops `tell` last.
    pub(super) fn start(self) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("audit-index".to_owned()).spawn(move || {
            stand_back();
            self.follow(&runtime);
        })?;
        Ok(())
    }

    fn follow(&self, runtime: &Runtime) {
        let mut at = None;
        let mut forgotten = Instant::now();
        loop {
            let looked = self.look(runtime, &mut at).and_then(|order| {
                if order.is_none() && forgotten.elapsed() >= FORGET_EVERY {
                    self.forget(runtime)?;
                    forgotten = Instant::now();
                }
                Ok(order)
            });
            (self.on_lag)((self.end)().seq.saturating_sub(self.tell.borrow().seq));
            let order = match looked {
                Ok(Some(order)) => Some(order),
                Ok(None) => self.wait(LOOK_EVERY),
                Err(problem) => {
                    tracing::warn!(error = %problem, "the index of records is not up to date; it tries again");
                    at = None;
                    self.wait(AGAIN_AFTER)
                }
            };
            match order {
                Some(Order::End) => return,
                Some(Order::Rebuild) => {
                    at = None;
                    if let Err(error) = runtime.block_on(self.records.clear()) {
                        tracing::error!(%error, "the index of records could not be thrown away");
                    }
                }
                None => {}
            }
        }
    }

    fn wait(&self, most: Duration) -> Option<Order> {
        match self.orders.recv_timeout(most) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Order::End),
        }
    }

    fn ordered(&self) -> Option<Order> {
        match self.orders.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Order::End),
        }
    }

    /// Indexes what the audit has now, or goes on with that another time when there is an order.
    fn look(&self, runtime: &Runtime, at: &mut Option<Place>) -> Result<Option<Order>, Problem> {
        let end = (self.end)();
        let from = match *at {
            Some(place) => place,
            None => self.begin(runtime, end)?,
        };
        self.come_to(at, from);
        if from.seq == end.seq {
            return Ok(None);
        }
        let mut batch = Vec::with_capacity(BATCH_ROWS_MAX);
        for stretch in stretch::between(&self.dir, from, end)? {
            let mut stopped = Ok(None);
            stretch.lines(|line| {
                stopped = self.take(runtime, stretch.segment, &line, &mut batch, at);
                if matches!(stopped, Ok(None)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            match stopped {
                Ok(None) => {}
                stopped => return stopped,
            }
        }
        runtime.block_on(self.records.add(batch, end))?;
        self.come_to(at, end);
        Ok(None)
    }

    /// Where to go on: where the index is, if this log has that place, else at the begin with an empty index.
    fn begin(&self, runtime: &Runtime, end: Place) -> Result<Place, Problem> {
        match runtime.block_on(self.records.place())? {
            None => return Ok(Place::BEGIN),
            Some(place) if stretch::contains(&self.dir, place, end)? => return Ok(place),
            Some(place) => {
                tracing::info!(
                    indexed = place.seq,
                    audit = end.seq,
                    "the index of records is of another log: it is filled anew"
                );
            }
        }
        runtime.block_on(self.records.clear())?;
        Ok(Place::BEGIN)
    }

    /// Takes a line into the batch, and adds the batch when it is full.
    fn take(
        &self,
        runtime: &Runtime,
        segment: u64,
        line: &Line<'_>,
        batch: &mut Vec<Row>,
        at: &mut Option<Place>,
    ) -> Result<Option<Order>, Problem> {
        let Some(row) = row(line.bytes, segment, line.offset) else {
            // Whoever verifies the audit learns which one and why.
            self.tell.send_modify(|indexed| indexed.unreadable += 1);
            return Ok(None);
        };
        let seq = row.seq;
        batch.push(row);
        if batch.len() < BATCH_ROWS_MAX {
            return Ok(None);
        }
        let bytes = line.offset + line.bytes.len() as u64 + 1;
        let place = Place { segment, bytes, seq, leaf: *Leaf::of(line.bytes).as_bytes() };
        runtime.block_on(self.records.add(std::mem::take(batch), place))?;
        self.come_to(at, place);
        (self.on_lag)((self.end)().seq.saturating_sub(seq));
        Ok(self.ordered())
    }

    fn come_to(&self, at: &mut Option<Place>, place: Place) {
        *at = Some(place);
        self.tell.send_modify(|indexed| indexed.seq = place.seq);
    }

    /// Drops the rows of segments that are not here any more.
    fn forget(&self, runtime: &Runtime) -> Result<(), Problem> {
        let Some(oldest) = segment::all(&self.dir)?.first().map(|segment| segment.first) else {
            return Ok(());
        };
        while runtime.block_on(self.records.forget(oldest))? > 0 {}
        Ok(())
    }
}
