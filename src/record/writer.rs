//! The threads that write and sync the ledger, and the pen that keeps the file whole.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::chain::{self, HEAD_BYTES_MAX, Kind, Leaf};
use super::ledger::{Config, Durability, Entry, Pending, Shared};
use super::segment;
use crate::call::RecordId;
use crate::store::Place;

/// What one `write` may weigh, unless one record alone weighs more.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// How many open intents are remembered; the rest is found at the next open.
const OPEN_MAX: usize = 1 << 20;
/// The file that says where the oldest open intent was at the last rotation: a hint for the next open, no evidence.
pub(super) const FLOOR: &str = "floor";

/// An intent whose outcome is not written yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// The first record of the segment it is in.
    pub(super) segment: u64,
    /// Its trace.
    pub(super) trace: Option<[u8; 16]>,
}

/// Why a group was not written.
pub(super) enum PenError {
    /// The file is as it was before; the next group may succeed.
    Refused(io::Error),
    /// The file's state is unknown; only opening it again helps.
    Broken(io::Error),
}

impl PenError {
    /// What the system said.
    pub(super) fn source(self) -> io::Error {
        match self {
            PenError::Refused(error) | PenError::Broken(error) => error,
        }
    }
}

/// Owns the open segment and knows the head of the chain.
pub(super) struct Pen {
    pub(super) dir: PathBuf,
    /// The open segment and the number of its first record.
    pub(super) file: Option<(Arc<File>, u64)>,
    pub(super) len: u64,
    pub(super) seq: u64,
    pub(super) prev: Leaf,
    pub(super) open: HashMap<u128, Open>,
    pub(super) segment_bytes_max: u64,
    pub(super) buffer: Vec<u8>,
    /// What each line in the buffer weighs.
    pub(super) lines: Vec<u64>,
}

impl Pen {
    /// Writes entries as the next records, all or none.
    pub(super) fn put<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry> + Clone,
    ) -> Result<Arc<File>, PenError> {
        self.buffer.clear();
        self.lines.clear();
        let (mut seq, mut prev) = (self.seq, self.prev);
        for entry in entries.clone() {
            let begin = self.buffer.len();
            prev = chain::write(&mut self.buffer, seq, prev, entry);
            self.lines.push((self.buffer.len() - begin) as u64);
            seq += 1;
        }
        let bytes = self.buffer.len() as u64;
        let (file, first) = self.segment(bytes)?;
        if let Err(error) = (&*file).write_all(&self.buffer) {
            // Invariant: the file ends with the last record that somebody was told about.
            return Err(match file.set_len(self.len) {
                Ok(()) => PenError::Refused(error),
                Err(_) => PenError::Broken(error),
            });
        }
        (self.seq, self.prev, self.len) = (seq, prev, self.len + bytes);
        for entry in entries {
            self.note(entry, first);
        }
        Ok(file)
    }

    /// Where the log ends.
    pub(super) fn place(&self) -> Place {
        let segment = self.file.as_ref().map_or(0, |(_, first)| *first);
        Place { segment, bytes: self.len, seq: self.seq.saturating_sub(1), leaf: *self.prev.as_bytes() }
    }

    /// Whether the intent of every outcome among these was written, as far as can be known; else which was not.
    fn orphan(&self, group: &[Pending]) -> Option<usize> {
        let written = |intent: RecordId| {
            self.open.len() >= OPEN_MAX
                || self.open.contains_key(&intent.as_u128())
                || group.iter().any(|other| other.entry.kind == Kind::Intent && other.entry.id == intent)
        };
        group.iter().position(|pending| pending.entry.closes.is_some_and(|intent| !written(intent)))
    }

    /// The segment that has room, a new one if need be.
    fn segment(&mut self, bytes: u64) -> Result<(Arc<File>, u64), PenError> {
        if let Some((file, first)) = &self.file {
            if self.len == 0 || self.len + bytes <= self.segment_bytes_max {
                return Ok((file.clone(), *first));
            }
            // Whoever syncs the new segment may take the old one for synced.
            file.sync_data().map_err(PenError::Broken)?;
        }
        let path = self.dir.join(segment::name(self.seq));
        let file = append_to(&path).map_err(PenError::Refused)?;
        if file.metadata().map_err(PenError::Refused)?.len() != 0 {
            return Err(PenError::Broken(io::Error::other(format!("{} is not empty", path.display()))));
        }
        sync_dir(&self.dir).map_err(PenError::Refused)?;
        let file = Arc::new(file);
        self.file = Some((file.clone(), self.seq));
        self.len = 0;
        self.note_floor();
        Ok((file, self.seq))
    }

    fn note(&mut self, entry: &Entry, first: u64) {
        if let Some(intent) = entry.closes {
            self.open.remove(&intent.as_u128());
        } else if entry.kind == Kind::Intent && self.open.len() < OPEN_MAX {
            self.open.insert(entry.id.as_u128(), Open { segment: first, trace: entry.trace_id });
        }
    }

    /// Leaves the hint; without it the next open only takes longer, so a failure to write it is none.
    fn note_floor(&self) {
        if self.open.len() >= OPEN_MAX {
            return;
        }
        let floor = self.open.values().map(|open| open.segment).min().unwrap_or(self.seq);
        let next = self.dir.join("floor.new");
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next);
        if written.and_then(|mut file| writeln!(file, "{floor}")).is_ok() {
            let _ = std::fs::rename(&next, self.dir.join(FLOOR));
        }
    }
}

/// Opens or makes a file that only its owner may read, for appending.
pub(super) fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Starts both threads; the receiver is told when they are done. The lock is held until then.
pub(super) fn start(
    pen: Pen,
    lock: File,
    entries: Receiver<Pending>,
    shared: Arc<Shared>,
    config: &Config,
) -> io::Result<Receiver<()>> {
    let (tell, done) = sync_channel(1);
    let (syncs, to_sync) = sync_channel(config.queue_max.max(1));
    let (linger, for_sync) = (config.linger, shared.clone());
    let syncer = std::thread::Builder::new()
        .name("audit-sync".to_owned())
        .spawn(move || sync(&to_sync, &for_sync, linger))?;
    std::thread::Builder::new().name("audit-write".to_owned()).spawn(move || {
        write(pen, &entries, syncs, &shared);
        let _ = syncer.join();
        drop(lock);
        let _ = tell.send(());
    })?;
    Ok(done)
}

/// A record that is written and waits to be synced.
struct Written {
    pending: Pending,
    seq: u64,
    file: Arc<File>,
}

fn write(mut pen: Pen, entries: &Receiver<Pending>, syncs: SyncSender<Written>, shared: &Shared) {
    let mut carry = None;
    while let Some(first) = carry.take().or_else(|| entries.recv().ok()) {
        let group;
        (group, carry) = gather(first, entries, pen.segment_bytes_max.saturating_sub(pen.len));
        for pending in &group {
            shared.taken(pending);
        }
        commit(&mut pen, group, &syncs, shared);
    }
    end(&pen);
}

/// A clean end leaves nothing that a power loss could take. Nobody waits for this sync any more: whoever was promised
/// one has had it, so a failure breaks no promise and refuses no call, but an operator must learn of it.
fn end(pen: &Pen) {
    if let Some((file, _)) = &pen.file
        && let Err(error) = file.sync_data()
    {
        let dir = pen.dir.display();
        tracing::error!(audit.dir = %dir, %error, "the audit's end could not be synced: loss of power may take it");
    }
}

/// All that is queued, as far as one write and the segment take it, and the entry that did not fit.
fn gather(first: Pending, entries: &Receiver<Pending>, room: u64) -> (Vec<Pending>, Option<Pending>) {
    let limit = GROUP_BYTES_MAX.min(usize::try_from(room).unwrap_or(usize::MAX));
    let mut bytes = first.entry.members.len() + HEAD_BYTES_MAX;
    let mut group = vec![first];
    while let Ok(next) = entries.try_recv() {
        bytes += next.entry.members.len() + HEAD_BYTES_MAX;
        if bytes > limit {
            return (group, Some(next));
        }
        group.push(next);
    }
    (group, None)
}

fn commit(pen: &mut Pen, mut group: Vec<Pending>, syncs: &SyncSender<Written>, shared: &Shared) {
    // A caller that did not wait for its intent may close one that the disk refused meanwhile.
    while let Some(orphan) = pen.orphan(&group) {
        shared.drop_orphan(group.remove(orphan));
    }
    let failed = shared.failure().map(str::to_owned);
    let first = pen.seq;
    let put = match failed {
        Some(why) => Err(why),
        None => match pen.put(group.iter().map(|pending| &pending.entry)) {
            Ok(file) => Ok(file),
            Err(PenError::Refused(error)) => Err(error.to_string()),
            Err(PenError::Broken(error)) => {
                let why = format!("{error}; restart the gateway so that the log is checked");
                shared.fail(why.clone());
                Err(why)
            }
        },
    };
    match put {
        Ok(file) => {
            shared.come_to(pen.place());
            shared.wrote(group.len() as u64, pen.buffer.len() as u64);
            for ((mut pending, seq), bytes) in group.into_iter().zip(first..).zip(&pen.lines) {
                pending.bytes = *bytes;
                match pending.durability {
                    Durability::Written => shared.accept(pending, seq),
                    Durability::Synced => {
                        hand_over(syncs, Written { pending, seq, file: file.clone() }, shared)
                    }
                }
            }
        }
        Err(why) => group.into_iter().for_each(|pending| shared.refuse(pending, &why)),
    }
}

fn hand_over(syncs: &SyncSender<Written>, written: Written, shared: &Shared) {
    if let Err(error) = syncs.send(written) {
        shared.refuse(error.0.pending, "the thread that syncs stopped");
    }
}

/// Syncs what was written, everything that waits at once.
fn sync(written: &Receiver<Written>, shared: &Shared, linger: Duration) {
    let mut company = 1;
    while let Ok(first) = written.recv() {
        let waiting = assemble(first, written, linger, company);
        company = waiting.len();
        // The last file covers all: a segment is synced before its successor is begun.
        let Some(file) = waiting.last().map(|last| last.file.clone()) else { continue };
        match file.sync_data() {
            Ok(()) => {
                shared.synced();
                waiting.into_iter().for_each(|one| shared.accept(one.pending, one.seq));
            }
            Err(error) => {
                // After a failed fsync the kernel may have dropped the pages: nothing about the file is known.
                let why = format!("fsync: {error}; restart the gateway so that the log is checked");
                shared.fail(why.clone());
                waiting.into_iter().for_each(|one| shared.refuse(one.pending, &why));
            }
        }
    }
}

/// Who waits now and, when there was company the last time, who comes until as many are here again or the linger ends.
fn assemble(first: Written, written: &Receiver<Written>, linger: Duration, company: usize) -> Vec<Written> {
    let mut waiting = vec![first];
    waiting.extend(written.try_iter().take(company.max(1024)));
    let end = Instant::now() + linger;
    while waiting.len() < company {
        match written.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(next) => waiting.push(next),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A log that is kept.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_end_that_cannot_be_synced_is_in_the_log() {
        let log = Log::default();
        let kept = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || kept.clone()).finish();
        // The system refuses to sync what is no file.
        let unsynced = File::options().append(true).open("/dev/null").unwrap();
        let pen = Pen {
            dir: PathBuf::from("state/audit"),
            file: Some((Arc::new(unsynced), 1)),
            len: 0,
            seq: 1,
            prev: Leaf::NONE,
            open: HashMap::new(),
            segment_bytes_max: 1,
            buffer: Vec::new(),
            lines: Vec::new(),
        };
        tracing::subscriber::with_default(subscriber, || end(&pen));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ERROR") && text.contains("state/audit"), "{text}");
    }
}
