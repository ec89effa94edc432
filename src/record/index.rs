//! The index of records: a thread of its own follows the audit's segments and notes where each record lies, so that an
//! operator finds one among millions. It reads what is written and holds nothing up: a disk that is too slow for it
//! makes it late, which a metric tells, and what it has not read yet waits in the segments.

mod follow;
mod row;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::watch;

use super::chain::Header;
use super::segment::{End, Lines};
use super::{segment, stretch};
use crate::call::RecordId;
use crate::store::{Filter, Page, Place, Records, Row, StoreError, Subject};
use follow::{Follower, Order};

/// What the lines of one story may weigh together, in bytes.
const STORY_BYTES_MAX: usize = 16 << 20;
/// Archived segments that are decompressed for one story, each once and no further than its last line.
const STORY_ARCHIVES_MAX: usize = 8;

/// Told how many records of the audit are not in the index yet.
pub type OnLag = Box<dyn Fn(u64) + Send>;
/// Says where the audit ends.
pub type AuditEnd = Box<dyn Fn() -> Place + Send + Sync>;

/// The index, and the audit beside it from which the records' lines are read.
pub struct Index {
    dir: PathBuf,
    records: Arc<dyn Records>,
    orders: SyncSender<Order>,
    indexed: watch::Receiver<Indexed>,
    end: Arc<AuditEnd>,
}

/// How far the index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indexed {
    /// The last record that it has.
    pub seq: u64,
    /// Records since its start that could not be read as records; `holdpoint audit verify` says why.
    pub unreadable: u64,
}

/// A record as the index tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it was found by.
    pub row: Row,
    /// Its line in the audit, JSON, or why there is none.
    pub line: Result<String, NoLine>,
}

/// Why a record's line cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLine {
    /// Its segment is not here any more.
    #[error("the segment is not here any more: it was deleted or taken away")]
    Gone,
    /// There is another line in its place, or none.
    #[error("the audit has another line in its place: run `holdpoint audit verify`")]
    Changed,
    /// Too many segments would have to be decompressed for it.
    #[error(
        "the story is in more than {STORY_ARCHIVES_MAX} archived segments: read the others with `zstdcat`"
    )]
    TooFar,
    /// The story weighs too much to be told whole.
    #[error("the story is longer than {STORY_BYTES_MAX} bytes")]
    TooMuch,
    /// The file cannot be read.
    #[error("the segment cannot be read")]
    Unreadable,
}

impl Index {
    /// Starts the thread that follows the audit in `dir`. The index is filled from wherever it is; one that does not
    /// belong to this log, or is ahead of it, is filled anew.
    pub fn start(dir: &Path, records: Arc<dyn Records>, end: AuditEnd, on_lag: OnLag) -> io::Result<Index> {
        let (orders, taken) = sync_channel(1);
        let (tell, indexed) = watch::channel(Indexed::default());
        let end = Arc::new(end);
        let follower = Follower {
            dir: dir.to_owned(),
            records: Arc::clone(&records),
            end: Arc::clone(&end),
            on_lag,
            orders: taken,
            tell,
        };
        follower.start()?;
        Ok(Index { dir: dir.to_owned(), records, orders, indexed, end })
    }

    /// The records that a filter lets through, the newest first.
    pub async fn records(&self, filter: Filter) -> Result<Page, StoreError> {
        self.records.page(filter).await
    }

    /// One record with its line.
    pub async fn record(&self, id: RecordId) -> Result<Option<Told>, StoreError> {
        let Some(row) = self.records.record(id).await? else { return Ok(None) };
        Ok(self.told(vec![row]).await.pop())
    }

    /// Everything about one call or one trace, in the log's order, each record with its line.
    pub async fn story(&self, subject: Subject) -> Result<Vec<Told>, StoreError> {
        Ok(self.told(self.records.related(subject).await?).await)
    }

    /// How many records of the audit are not in the index yet.
    pub fn behind(&self) -> u64 {
        (self.end)().seq.saturating_sub(self.indexed.borrow().seq)
    }

    /// How far the index is.
    pub fn indexed(&self) -> Indexed {
        *self.indexed.borrow()
    }

    /// Waits until the index has all that the audit has at this moment; false when that takes longer than `most`.
    pub async fn caught_up(&self, most: Duration) -> bool {
        let (wanted, mut indexed) = ((self.end)().seq, self.indexed.clone());
        let caught = indexed.wait_for(|indexed| indexed.seq >= wanted);
        tokio::time::timeout(most, caught).await.is_ok_and(|found| found.is_ok())
    }

    /// Throws the index away and fills it anew from the audit's segments, in the background.
    pub fn rebuild(&self) {
        // An order that waits already is the same one.
        let _ = self.orders.try_send(Order::Rebuild);
    }

    /// Ends the thread, once it has finished what it is at, and closes the index.
    pub async fn end(self) {
        let Index { orders, mut indexed, records, .. } = self;
        drop(orders);
        while indexed.changed().await.is_ok() {}
        if let Err(error) = records.close().await {
            tracing::warn!(%error, "the index of records was not closed");
        }
    }

    async fn told(&self, rows: Vec<Row>) -> Vec<Told> {
        let (dir, count) = (self.dir.clone(), rows.len());
        let read = tokio::task::spawn_blocking(move || {
            let mut reading = Reading::of(&dir);
            rows.into_iter().map(|row| Told { line: reading.line(&row), row }).collect::<Vec<_>>()
        });
        read.await.unwrap_or_else(|error| {
            tracing::error!(%error, records = count, "the lines of records could not be read");
            Vec::new()
        })
    }
}

/// Reads the lines of one story.
struct Reading<'d> {
    dir: &'d Path,
    /// What its lines may still weigh, in bytes.
    room: usize,
    /// Archived segments that were opened.
    archives: usize,
    /// The archived segment that was opened last, where it was read to.
    archive: Option<(u64, Lines)>,
}

impl Reading<'_> {
    fn of(dir: &Path) -> Reading<'_> {
        Reading { dir, room: STORY_BYTES_MAX, archives: 0, archive: None }
    }

    /// The line of a record, as long as there is room for it.
    fn line(&mut self, row: &Row) -> Result<String, NoLine> {
        if self.room == 0 {
            return Err(NoLine::TooMuch);
        }
        let mut plain;
        let lines = match Lines::open(&self.dir.join(segment::name(row.segment)), row.offset) {
            Ok(lines) => {
                plain = lines;
                &mut plain
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.archived(row)?,
            Err(_) => return Err(NoLine::Unreadable),
        };
        let Some(line) = lines.read().map_err(|_| NoLine::Unreadable)? else { return Err(NoLine::Changed) };
        let header = serde_json::from_slice::<Header>(line.bytes).map_err(|_| NoLine::Changed)?;
        if line.end != End::Newline || header.seq != row.seq || header.id() != Some(row.id.as_u128()) {
            return Err(NoLine::Changed);
        }
        let text = String::from_utf8(line.bytes.to_vec()).map_err(|_| NoLine::Changed)?;
        let left = self.room.checked_sub(text.len());
        self.room = left.unwrap_or(0);
        left.map(|_| text).ok_or(NoLine::TooMuch)
    }

    /// The archived segment of a record, at its line. Those of one story are in order, so each segment is read once.
    fn archived(&mut self, row: &Row) -> Result<&mut Lines, NoLine> {
        let behind = |(segment, lines): &(u64, Lines)| *segment == row.segment && lines.offset <= row.offset;
        let mut lines = match self.archive.take().filter(behind) {
            Some((_, lines)) => lines,
            None if self.archives == STORY_ARCHIVES_MAX => return Err(NoLine::TooFar),
            None => {
                self.archives += 1;
                Lines::open(&segment::archived(self.dir, row.segment), 0).map_err(|error| {
                    match error.kind() {
                        io::ErrorKind::NotFound => NoLine::Gone,
                        _ => NoLine::Unreadable,
                    }
                })?
            }
        };
        lines.skip_to(row.offset).map_err(|_| NoLine::Unreadable)?;
        Ok(&mut self.archive.insert((row.segment, lines)).1)
    }
}
