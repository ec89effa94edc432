//! The pen that writes the ledger's files and keeps them whole, and signs what it wrote.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chain::{self, Kind, Leaf};
use super::checkpoint::Checkpoint;
use super::ledger::{Config, Entry, Pending};
use super::machine::Machine;
use super::merkle::Frontier;
use super::space::{Gauge, Space};
use super::{seal, segment};
use crate::call::RecordId;
use crate::secret::signer::Signer;
use crate::store::Place;

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
    /// The files are as they were before; the next group may succeed.
    Refused(io::Error),
    /// The files' state is unknown; only opening them again helps.
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

/// The files that a group went to, and that must be synced for it.
#[derive(Clone)]
pub(super) struct Files {
    /// The segment.
    pub(super) segment: Arc<File>,
    /// What is sealed beside it.
    pub(super) sealed: Option<Arc<File>>,
}

impl Files {
    /// Makes them durable: what a record has the digest of, before the record.
    pub(super) fn sync(&self, machine: &dyn Machine) -> io::Result<()> {
        self.sealed.iter().try_for_each(|sealed| machine.sync(sealed))?;
        machine.sync(&self.segment)
    }
}

/// What checkpoints are signed with, and what the next one will cover.
pub(super) struct Signing {
    signer: Arc<Signer>,
    origin: String,
    /// The records since the last checkpoint; `None` when they are not known.
    pub(super) tree: Option<Frontier>,
    /// How many records other than checkpoints no checkpoint covers.
    uncovered: u64,
    /// Since when.
    since: Instant,
    records_max: u64,
    interval: Duration,
}

impl Signing {
    /// Begins after what recovery found: the tree since the last checkpoint, if it found one.
    pub(super) fn of(config: &Config, origin: String, tree: Option<Frontier>) -> Option<Signing> {
        let signer = Arc::clone(config.signer.as_ref()?);
        let (records_max, interval) = (config.checkpoint_records_max.max(1), config.checkpoint_interval);
        // What ends in a checkpoint is covered.
        let uncovered = u64::from(!tree.as_ref().is_some_and(Frontier::is_bare));
        Some(Signing { signer, origin, tree, uncovered, since: Instant::now(), records_max, interval })
    }

    fn due(&self) -> bool {
        self.uncovered >= self.records_max || (self.uncovered > 0 && self.since.elapsed() >= self.interval)
    }
}

/// Owns the open segment and knows the head of the chain.
pub(super) struct Pen {
    dir: PathBuf,
    /// The open segment and the number of its first record.
    file: Option<(Arc<File>, u64)>,
    pub(super) len: u64,
    pub(super) seq: u64,
    prev: Leaf,
    /// The intents without outcome.
    pub(super) open: HashMap<u128, Open>,
    pub(super) segment_bytes_max: u64,
    pub(super) buffer: Vec<u8>,
    /// What each line in the buffer weighs.
    pub(super) lines: Vec<u64>,
    leaves: Vec<Leaf>,
    /// What is sealed beside the lines in the buffer.
    sealed: Vec<u8>,
    /// The file of sealed payloads beside the open segment, and its length.
    sealed_file: Option<(Arc<File>, u64)>,
    pub(super) signing: Option<Signing>,
    /// Checkpoints that are written and not told yet.
    pub(super) made: Vec<Checkpoint>,
    space: Space,
    pub(super) machine: Arc<dyn Machine>,
}

impl Pen {
    /// Where the log ends.
    pub(super) fn place(&self) -> Place {
        let segment = self.file.as_ref().map_or(0, |(_, first)| *first);
        Place { segment, bytes: self.len, seq: self.seq.saturating_sub(1), leaf: *self.prev.as_bytes() }
    }

    /// Goes on after the last record, in the segment that it is in.
    pub(super) fn after(
        config: &Config,
        (seq, prev): (u64, Leaf),
        last: Option<(File, u64)>,
        signing: Option<Signing>,
    ) -> io::Result<Pen> {
        let len = last.as_ref().map_or(Ok(0), |(file, _)| file.metadata().map(|meta| meta.len()))?;
        Ok(Pen {
            dir: config.dir.clone(),
            file: last.map(|(file, first)| (Arc::new(file), first)),
            len,
            seq,
            prev,
            open: HashMap::new(),
            segment_bytes_max: config.segment_bytes_max,
            buffer: Vec::new(),
            lines: Vec::new(),
            leaves: Vec::new(),
            sealed: Vec::new(),
            sealed_file: None,
            signing,
            made: Vec::new(),
            space: Space::of(&config.dir, config.free_bytes_min),
            machine: Arc::clone(&config.machine),
        })
    }

    /// Writes entries as the next records, all or none.
    pub(super) fn put<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry> + Clone,
    ) -> Result<Files, PenError> {
        let mut head = self.fill(entries.clone());
        if self.is_full() {
            self.turn()?;
            // Every segment begins with a checkpoint of all before it, so that it can stand alone.
            if self.signing.is_some() {
                self.sign()?;
                head = self.fill(entries.clone());
            }
        }
        self.write(head, entries)
    }

    /// Signs what was written so far, as a record. The file that it went to, or `None` when there is nothing to sign or
    /// nobody who signs.
    pub(super) fn sign(&mut self) -> Result<Option<Files>, PenError> {
        let (Some(signing), Some(last)) = (&self.signing, self.seq.checked_sub(1).filter(|last| *last > 0))
        else {
            return Ok(None);
        };
        let unknown = Frontier::begin(self.seq);
        let tree = signing.tree.as_ref().unwrap_or(&unknown);
        let now = self.machine.now();
        let checkpoint = Checkpoint::sign(&signing.signer, &signing.origin, (last, self.prev), tree, now);
        let entry = checkpoint.entry();
        let head = self.fill(std::iter::once(&entry));
        let tree = Frontier::begin(self.seq);
        // The checkpoint is the first record of the next tree.
        let kept = self.signing.as_mut().map(|signing| signing.tree.replace(tree));
        match self.write(head, std::iter::once(&entry)) {
            Ok(files) => {
                if let Some(signing) = &mut self.signing {
                    signing.uncovered = 0;
                }
                self.made.push(checkpoint);
                Ok(Some(files))
            }
            Err(error) => {
                if let (Some(signing), Some(tree)) = (&mut self.signing, kept) {
                    signing.tree = tree;
                }
                Err(error)
            }
        }
    }

    /// Whether a checkpoint is due.
    pub(super) fn due(&self) -> bool {
        self.signing.as_ref().is_some_and(Signing::due)
    }

    /// Whether there are records that no checkpoint covers.
    pub(super) fn uncovered(&self) -> bool {
        self.signing.as_ref().is_some_and(|signing| signing.uncovered > 0)
    }

    /// How long nothing needs to be done when nothing arrives.
    pub(super) fn idle(&self) -> Option<Duration> {
        let look = self.space.watches().then_some(super::space::LOOK_EVERY);
        let sign = self.signing.as_ref().filter(|signing| signing.uncovered > 0);
        let sign = sign.map(|signing| signing.interval.saturating_sub(signing.since.elapsed()));
        look.into_iter().chain(sign).min()
    }

    /// Asks the disk how much room there is.
    pub(super) fn look(&mut self, gauge: &Gauge) {
        self.space.look(&*self.machine, gauge);
    }

    /// Whether the intent of every outcome among these was written, as far as can be known; else which was not.
    pub(super) fn orphan(&self, group: &[Pending]) -> Option<usize> {
        let written = |intent: RecordId| {
            self.open.len() >= OPEN_MAX
                || self.open.contains_key(&intent.as_u128())
                || group.iter().any(|other| other.entry.kind == Kind::Intent && other.entry.id == intent)
        };
        group.iter().position(|pending| pending.entry.closes.is_some_and(|intent| !written(intent)))
    }

    /// The files that are written to now.
    pub(super) fn files(&self) -> Option<Files> {
        let (segment, _) = self.file.as_ref()?;
        let sealed = self.sealed_file.as_ref().map(|(file, _)| Arc::clone(file));
        Some(Files { segment: Arc::clone(segment), sealed })
    }

    /// Writes the lines of entries into the buffer; says what the head will be.
    fn fill<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) -> (u64, Leaf) {
        self.buffer.clear();
        self.lines.clear();
        self.leaves.clear();
        self.sealed.clear();
        let (mut seq, mut prev) = (self.seq, self.prev);
        let now = self.machine.now();
        for entry in entries {
            let begin = self.buffer.len();
            prev = chain::write(&mut self.buffer, seq, prev, now, entry);
            self.leaves.push(prev);
            self.lines.push((self.buffer.len() - begin) as u64);
            if let Some(sealed) = &entry.sealed {
                self.sealed.extend_from_slice(sealed.line());
            }
            seq += 1;
        }
        (seq, prev)
    }

    /// Whether the buffer needs another segment than the open one.
    fn is_full(&self) -> bool {
        self.file.is_none() || (self.len > 0 && self.len + self.buffer.len() as u64 > self.segment_bytes_max)
    }

    /// Appends the buffer to the open segment.
    fn write<'a>(
        &mut self,
        head: (u64, Leaf),
        entries: impl Iterator<Item = &'a Entry> + Clone,
    ) -> Result<Files, PenError> {
        let mut written = self.try_write();
        let full =
            matches!(&written, Err(PenError::Refused(error)) if error.kind() == io::ErrorKind::StorageFull);
        if full && entries.clone().any(|entry| entry.closes.is_some()) && self.space.free_reserve() {
            written = self.try_write();
        }
        let (files, first) = written?;
        (self.seq, self.prev, self.len) = (head.0, head.1, self.len + self.buffer.len() as u64);
        if let Some((_, len)) = &mut self.sealed_file {
            *len += self.sealed.len() as u64;
        }
        if let Some(signing) = &mut self.signing {
            if let Some(tree) = &mut signing.tree {
                self.leaves.iter().for_each(|leaf| tree.push(*leaf));
            }
            if signing.uncovered == 0 {
                signing.since = Instant::now();
            }
            signing.uncovered += self.leaves.len() as u64;
        }
        for entry in entries {
            self.note(entry, first);
        }
        Ok(files)
    }

    fn try_write(&mut self) -> Result<(Files, u64), PenError> {
        let Some((file, first)) = self.file.clone() else {
            return Err(PenError::Refused(io::Error::other("no segment is open")));
        };
        if !self.sealed.is_empty() {
            self.write_sealed(first)?;
        }
        if let Err(error) = self.machine.append(&file, &self.buffer) {
            // Invariant: the file ends with the last record that somebody was told about.
            let whole = file.set_len(self.len);
            let sealed = self.sealed_file.iter().try_for_each(|(file, len)| file.set_len(*len));
            return Err(match whole.and(sealed) {
                Ok(()) => PenError::Refused(error),
                Err(_) => PenError::Broken(error),
            });
        }
        let sealed = self.sealed_file.as_ref().map(|(file, _)| Arc::clone(file));
        Ok((Files { segment: file, sealed }, first))
    }

    /// Appends what is sealed to the file beside the segment.
    fn write_sealed(&mut self, first: u64) -> Result<(), PenError> {
        if self.sealed_file.is_none() {
            let opened = open_sealed(&self.dir, first).map_err(PenError::Refused)?;
            self.sealed_file = Some((Arc::new(opened.0), opened.1));
        }
        let Some((file, len)) = &self.sealed_file else { return Ok(()) };
        self.machine.append(file, &self.sealed).map_err(|error| match file.set_len(*len) {
            Ok(()) => PenError::Refused(error),
            Err(_) => PenError::Broken(error),
        })
    }

    /// Goes on in a new segment.
    fn turn(&mut self) -> Result<(), PenError> {
        if let Some(files) = self.files() {
            // Whoever syncs the new segment may take the old one for synced.
            files.sync(&*self.machine).map_err(PenError::Broken)?;
        }
        let path = self.dir.join(segment::name(self.seq));
        let file = append_to(&path).map_err(PenError::Refused)?;
        if file.metadata().map_err(PenError::Refused)?.len() != 0 {
            return Err(PenError::Broken(io::Error::other(format!("{} is not empty", path.display()))));
        }
        sync_dir(&self.dir).map_err(PenError::Refused)?;
        self.file = Some((Arc::new(file), self.seq));
        (self.len, self.sealed_file) = (0, None);
        self.note_floor();
        Ok(())
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
            let _ = fs::rename(&next, self.dir.join(FLOOR));
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

/// The file of what is sealed beside a segment, and its length. A write that a crash cut short is ended first.
fn open_sealed(dir: &Path, first: u64) -> io::Result<(File, u64)> {
    let path = seal::file(dir, first);
    let beside = path.parent().unwrap_or(dir);
    DirBuilder::new().recursive(true).mode(0o700).create(beside)?;
    let mut file = append_to(&path)?;
    let len = file.metadata()?.len();
    if len > 0 {
        file.write_all(b"\n")?;
    }
    sync_dir(beside)?;
    sync_dir(dir)?;
    Ok((file, len + u64::from(len > 0)))
}
