//! The append-only log that a call must be in before it is forwarded.
//!
//! Callers put entries into one bounded queue. One thread owns the file: it numbers, chains and writes all that is
//! queued with one `write`; a second one only syncs what was written, so that a read never waits for another's fsync.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::bell::{Bell, Ring};
use super::chain::{Fault, HEAD_BYTES_MAX, Kind, RECORD_BYTES_MAX};
use super::checkpoint::{self, Checkpoint};
use super::machine::{Machine, Real};
use super::recover::{self, Recovered};
use super::seal::Sealed;
use super::space::{Gauge, Room};
use super::writer;
use crate::bench::{self, Control};
use crate::call::RecordId;
use crate::json::Members;
use crate::secret::signer::Signer;
use crate::store::Place;

/// What the entries in the queue may weigh together.
const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// Told of each record that is as durable as asked: the bytes of its line, and how long it took from the queue to the
/// disk. It runs on the ledger's threads, so it must not wait.
pub type OnCommit = Arc<dyn Fn(u64, Duration) + Send + Sync>;

/// Told of each signed checkpoint once it and all that it covers are synced. It must not wait.
pub type OnCheckpoint = Arc<dyn Fn(&Checkpoint) + Send + Sync>;

/// Where the ledger is and what it may take.
#[derive(Clone)]
pub struct Config {
    /// The directory of the segments; made when it is missing.
    pub dir: PathBuf,
    /// A segment is closed before it would grow beyond this.
    pub segment_bytes_max: u64,
    /// How long a sync waits for company when there was company the last time.
    pub linger: Duration,
    /// How many entries may wait; more are refused.
    pub queue_max: usize,
    /// How long a caller waits for the disk before it takes it for hung.
    pub wait: Duration,
    /// The metric's hook.
    pub on_commit: Option<OnCommit>,
    /// Who signs checkpoints; without one there are none.
    pub signer: Option<Arc<Signer>>,
    /// A checkpoint is signed after so many records,
    pub checkpoint_records_max: u64,
    /// or when the oldest record that none covers is so old.
    pub checkpoint_interval: Duration,
    /// The hook for those who publish them.
    pub on_checkpoint: Option<OnCheckpoint>,
    /// Below so many free bytes writes and external calls are refused; 0 turns that off.
    pub free_bytes_min: u64,
    /// The clock and the disk.
    pub machine: Arc<dyn Machine>,
}

impl Config {
    /// The usual limits: segments of 64 MiB, 1 ms of linger, 4096 waiting, 5 s for the disk; no checkpoints and no
    /// low-water mark.
    pub fn new(dir: impl Into<PathBuf>) -> Config {
        Config {
            dir: dir.into(),
            segment_bytes_max: 64 << 20,
            linger: Duration::from_millis(1),
            queue_max: 4096,
            wait: Duration::from_secs(5),
            on_commit: None,
            signer: None,
            checkpoint_records_max: 1000,
            checkpoint_interval: Duration::from_secs(60),
            on_checkpoint: None,
            free_bytes_min: 0,
            machine: Arc::new(Real),
        }
    }
}

/// One record to be written. Its number, time and predecessor are given by the writer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is about.
    pub(super) kind: Kind,
    /// Its own id; an intent's is the id of the call's record.
    pub(super) id: RecordId,
    /// The trace it belongs to.
    pub(super) trace_id: Option<[u8; 16]>,
    /// The intent that this outcome closes.
    pub(super) closes: Option<RecordId>,
    /// What it says beside the common members.
    pub(super) members: Members,
    /// What is written beside the chain, of which the members have the digest.
    pub(super) sealed: Option<Box<Sealed>>,
}

impl Entry {
    /// An entry with a new id.
    pub fn new(kind: Kind, trace_id: Option<[u8; 16]>, members: Members) -> Entry {
        Entry::of(RecordId::new(), kind, trace_id, members)
    }

    /// Says more.
    #[must_use]
    pub fn also(mut self, name: &'static str, text: &str) -> Entry {
        self.members.text(name, text);
        self
    }

    /// An entry with an id of its own that was given before, by which one that is written twice is known.
    pub fn of(id: RecordId, kind: Kind, trace_id: Option<[u8; 16]>, members: Members) -> Entry {
        Entry { kind, id, trace_id, closes: None, members, sealed: None }
    }

    /// How a call ended, whose intent this closes.
    pub fn outcome(intent: RecordId, trace_id: Option<[u8; 16]>, mut members: Members) -> Entry {
        members.plain("intent", intent);
        Entry { closes: Some(intent), ..Entry::new(Kind::Outcome, trace_id, members) }
    }

    /// The record's id.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// What it weighs in the queue, in bytes.
    pub(super) fn weight(&self) -> u64 {
        (self.members.len() + self.sealed.as_ref().map_or(0, |sealed| sealed.line().len())) as u64
    }
}

/// What an entry must survive before its caller goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of this process.
    Written,
    /// The loss of power.
    Synced,
}

/// Where an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's number.
    pub seq: u64,
}

/// Why the ledger took nothing.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Too many entries wait.
    #[error("the audit's queue is full")]
    Full,
    /// The disk refused, now or for good.
    #[error("the audit cannot be written: {0}")]
    Failed(String),
    /// The disk did not answer in time. The entry may still be written: after an intent that was not forwarded
    /// because of this, append an outcome that says so with [`Ledger::append_detached`].
    #[error("the audit's disk does not answer")]
    Hung,
    /// The disk is below the low-water mark, and this is nothing that must still be written.
    #[error("the audit's disk has only {free_bytes} bytes left: below audit.free_bytes_min")]
    NoRoom {
        /// What is left.
        free_bytes: u64,
    },
    /// The entry is too large to be read again.
    #[error("the record is longer than {RECORD_BYTES_MAX} bytes")]
    TooLarge,
    /// Another process writes here.
    #[error("{0} is in use by another gateway: every replica needs an audit directory of its own")]
    Locked(PathBuf),
    /// What is on the disk is not a chain.
    #[error(
        "{file}:{line}: record {seq}: {fault}. Nothing was changed. Keep the directory as evidence (run `holdpoint \
         audit verify` on it, move it away) and start with an empty audit.dir, or restore it from a copy that verifies"
    )]
    Broken {
        /// The segment's path.
        file: String,
        /// The line in it, from 1.
        line: u64,
        /// The number that this line should have.
        seq: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The directory cannot be read or prepared.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What was written since the ledger was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records written.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Calls of fsync; fewer than the records when they were committed together.
    pub syncs: u64,
    /// Detached entries that could not be written. Each is an intent without outcome, or worse: alert on it.
    pub lost: u64,
}

/// The open log. Clones share it; when the last one goes, what is queued is written and synced.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Option<SyncSender<Pending>>,
    bell: Bell,
    shared: Arc<Shared>,
    done: Mutex<Receiver<()>>,
    wait: Duration,
    origin: String,
}

impl Ledger {
    /// Locks the directory, repairs what a crash left, and starts the writer. Blocks: call it before serving.
    pub fn open(config: Config) -> Result<(Ledger, Recovered), LedgerError> {
        let lock = recover::lock(&config.dir)?;
        let (mut pen, recovered) = recover::recover(&config)?;
        let origin = checkpoint::origin_or_new(&config.dir)
            .map_err(|source| LedgerError::Io { path: config.dir.clone(), source })?;
        let shared = Arc::new(Shared::new(config.on_commit.clone(), config.on_checkpoint.clone()));
        shared.come_to(pen.place());
        pen.look(&shared.space);
        let (queue, entries) = std::sync::mpsc::sync_channel(config.queue_max);
        let bell = Bell::default();
        let done = writer::start(pen, lock, entries, &bell, shared.clone(), &config)
            .map_err(|source| LedgerError::Io { path: config.dir.clone(), source })?;
        let inner =
            Inner { queue: Some(queue), bell, shared, done: Mutex::new(done), wait: config.wait, origin };
        Ok((Ledger { inner: Arc::new(inner) }, recovered))
    }

    /// Writes an entry and waits until it is as durable as asked. Once polled, it is written even if the future is
    /// dropped.
    pub async fn append(&self, entry: Entry, durability: Durability) -> Result<Appended, LedgerError> {
        if bench::off(Control::Ledger) {
            return Ok(Appended { seq: 0 });
        }
        let (shared, wait) = (&self.inner.shared, self.inner.wait);
        if !shared.space.room().admits(&entry, durability) {
            return Err(LedgerError::NoRoom { free_bytes: shared.space.free_bytes() });
        }
        if shared.hung(durability) {
            return Err(LedgerError::Hung);
        }
        let (answer, written) = oneshot::channel();
        let told = self.push(entry, durability, Some(answer))?;
        // Calls that came together are written together.
        tokio::task::yield_now().await;
        drop(told);
        match tokio::time::timeout(wait, written).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(LedgerError::Failed("the writer stopped".to_owned())),
            Err(_) => {
                shared.hang(durability, wait);
                Err(LedgerError::Hung)
            }
        }
    }

    /// Writes an entry without waiting, for where nobody can wait. What cannot be written is counted in
    /// [`Stats::lost`], also when the disk fails later.
    pub fn append_detached(&self, entry: Entry) {
        let admitted = self.inner.shared.space.room().admits(&entry, Durability::Written);
        if !admitted || self.push(entry, Durability::Written, None).is_err() {
            self.inner.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As [`Ledger::append`], for threads that may block.
    pub fn append_blocking(&self, entry: Entry, durability: Durability) -> Result<Appended, LedgerError> {
        let (answer, written) = oneshot::channel();
        drop(self.push(entry, durability, Some(answer))?);
        let stopped = |_| Err(LedgerError::Failed("the writer stopped".to_owned()));
        written.blocking_recv().unwrap_or_else(stopped)
    }

    /// Which log this is: the UUID that its directory was given when it was begun.
    pub fn origin(&self) -> &str {
        &self.inner.origin
    }

    /// Signs what was written so far, and waits until the checkpoint is durable and told. Says the last record's
    /// number. Without a signer it only syncs.
    pub async fn checkpoint(&self) -> Result<Appended, LedgerError> {
        self.append(Entry::new(Kind::Checkpoint, None, Members::default()), Durability::Synced).await
    }

    /// How much room the disk has, by the low-water mark.
    pub fn room(&self) -> Room {
        self.inner.shared.space.room()
    }

    /// The free bytes that were seen last; 0 before the first look, and when nobody looks.
    pub fn free_bytes(&self) -> u64 {
        self.inner.shared.space.free_bytes()
    }

    /// Whether the ledger takes nothing until it is opened again, and why.
    pub fn failure(&self) -> Option<&str> {
        self.inner.shared.failure()
    }

    /// What was written since the ledger was opened.
    pub fn stats(&self) -> Stats {
        self.inner.shared.stats()
    }

    /// Where the log ends: everything before is written, and whoever wrote it was told, or will be. It can be asked for
    /// as long as the asker likes, and keeps no ledger open.
    pub fn end(&self) -> impl Fn() -> Place + Send + Sync + use<> {
        let shared = Arc::clone(&self.inner.shared);
        move || shared.place()
    }

    fn push(
        &self,
        entry: Entry,
        durability: Durability,
        answer: Option<oneshot::Sender<Result<Appended, LedgerError>>>,
    ) -> Result<Ring<'_>, LedgerError> {
        let shared = &self.inner.shared;
        if entry.members.len() + HEAD_BYTES_MAX > RECORD_BYTES_MAX {
            return Err(LedgerError::TooLarge);
        }
        if let Some(why) = shared.failed.get() {
            return Err(LedgerError::Failed(why.clone()));
        }
        let bytes = entry.weight();
        if shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(LedgerError::Full);
        }
        let pending = Pending { entry, durability, answer, since: Instant::now(), bytes: 0 };
        let sent = match &self.inner.queue {
            Some(queue) => queue.try_send(pending),
            None => Err(TrySendError::Disconnected(pending)),
        };
        sent.map(|()| self.inner.bell.put()).map_err(|error| {
            shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => LedgerError::Full,
                TrySendError::Disconnected(_) => LedgerError::Failed("the writer stopped".to_owned()),
            }
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        self.bell.ring();
        // A hung disk must not hang the program's end.
        if let Ok(done) = self.done.get_mut()
            && let Err(error) = done.recv_timeout(self.wait)
        {
            tracing::error!(%error, "the audit did not end in time: what was queued last may not be written");
        }
    }
}

/// An entry on its way to the disk.
pub(super) struct Pending {
    pub(super) entry: Entry,
    pub(super) durability: Durability,
    pub(super) answer: Option<oneshot::Sender<Result<Appended, LedgerError>>>,
    pub(super) since: Instant,
    /// What its line weighs, once it is written.
    pub(super) bytes: u64,
}

/// What callers and threads both see.
pub(super) struct Shared {
    records: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    lost: AtomicU64,
    queued_bytes: AtomicU64,
    /// Why nothing more is taken until the ledger is opened again.
    failed: OnceLock<String>,
    started: Instant,
    /// Until which millisecond since `started` callers are refused at once because the disk hangs; 0 when it does not.
    write_hung_until: AtomicU64,
    sync_hung_until: AtomicU64,
    on_commit: Option<OnCommit>,
    /// Where the log ends. Held for a copy alone.
    end: Mutex<Place>,
    on_checkpoint: Option<OnCheckpoint>,
    /// How much room the disk has.
    pub(super) space: Gauge,
}

impl Shared {
    fn new(on_commit: Option<OnCommit>, on_checkpoint: Option<OnCheckpoint>) -> Shared {
        Shared {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            failed: OnceLock::new(),
            started: Instant::now(),
            write_hung_until: AtomicU64::new(0),
            sync_hung_until: AtomicU64::new(0),
            on_commit,
            end: Mutex::new(Place::BEGIN),
            on_checkpoint,
            space: Gauge::default(),
        }
    }

    fn place(&self) -> Place {
        *self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The log ends here now.
    pub(super) fn come_to(&self, place: Place) {
        *self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = place;
    }

    fn stats(&self) -> Stats {
        Stats {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn hung(&self, durability: Durability) -> bool {
        let now = self.now_ms();
        let hangs = |until: &AtomicU64| now < until.load(Ordering::Relaxed);
        hangs(&self.write_hung_until) || (durability == Durability::Synced && hangs(&self.sync_hung_until))
    }

    /// The mark runs out by itself, so that somebody tries again even if no progress clears it.
    fn hang(&self, durability: Durability, wait: Duration) {
        let until = self.now_ms().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        match durability {
            Durability::Written => self.write_hung_until.store(until, Ordering::Relaxed),
            Durability::Synced => self.sync_hung_until.store(until, Ordering::Relaxed),
        }
    }

    /// A write came back.
    pub(super) fn wrote(&self, records: u64, bytes: u64) {
        self.write_hung_until.store(0, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A sync came back.
    pub(super) fn synced(&self) {
        self.sync_hung_until.store(0, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// An entry left the queue.
    pub(super) fn taken(&self, pending: &Pending) {
        self.queued_bytes.fetch_sub(pending.entry.weight(), Ordering::Relaxed);
    }

    /// Nothing more is taken until the ledger is opened again.
    pub(super) fn fail(&self, why: String) {
        let _ = self.failed.set(why);
    }

    /// Why nothing more is taken.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Tells a caller that its entry is safe.
    pub(super) fn accept(&self, pending: Pending, seq: u64) {
        if let Some(on_commit) = &self.on_commit {
            on_commit(pending.bytes, pending.since.elapsed());
        }
        if let Some(answer) = pending.answer {
            let _ = answer.send(Ok(Appended { seq }));
        }
    }

    /// Tells of a checkpoint that is durable.
    pub(super) fn signed(&self, checkpoint: &Checkpoint) {
        if let Some(on_checkpoint) = &self.on_checkpoint {
            on_checkpoint(checkpoint);
        }
    }

    /// Tells a caller that its outcome has no intent to close. Nothing is lost: the call was never sent.
    pub(super) fn drop_orphan(&self, pending: Pending) {
        if let Some(answer) = pending.answer {
            let _ = answer.send(Err(LedgerError::Failed("the intent was never written".to_owned())));
        }
    }

    /// Tells a caller that its entry is not safe.
    pub(super) fn refuse(&self, pending: Pending, why: &str) {
        match pending.answer {
            Some(answer) => {
                let _ = answer.send(Err(LedgerError::Failed(why.to_owned())));
            }
            None => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
