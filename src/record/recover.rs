//! What happens when the ledger is opened: the last write of a crash is set aside, and open intents are closed.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chain::{Fault, Kind, Leaf, Walker};
use super::checkpoint;
use super::ledger::{Config, Entry, LedgerError};
use super::merkle::Frontier;
use super::pen::{FLOOR, Open, Pen, Signing, append_to, sync_dir};
use super::segment::{self, End, Lines, Segment};
use crate::call::RecordId;
use crate::json::Members;

/// What was found when the ledger was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The number that the next record gets.
    pub next_seq: u64,
    /// How many records were read.
    pub scanned: u64,
    /// How many bytes of an unfinished write were set aside.
    pub torn_bytes: u64,
    /// Where they are now.
    pub torn_file: Option<PathBuf>,
    /// How many intents had no outcome and were given the outcome "unknown".
    pub dangling: u64,
}

/// Takes the directory for this process alone.
pub(super) fn lock(dir: &Path) -> Result<File, LedgerError> {
    let fail = |source| LedgerError::Io { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(dir.join("lock")).map_err(fail)?;
    // Somebody who verifies looks at the lock for an instant; only a gateway keeps it.
    for _ in 0..10 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
    }
    Err(LedgerError::Locked(dir.to_owned()))
}

/// Whether a gateway writes here now.
pub(super) fn is_live(dir: &Path) -> bool {
    File::open(dir.join("lock"))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Reads the end of the log, repairs it, and gives the pen that goes on.
pub(super) fn recover(config: &Config) -> Result<(Pen, Recovered), LedgerError> {
    let dir = &config.dir;
    let fail = |source| LedgerError::Io { path: dir.clone(), source };
    let segments = segment::list(dir).map_err(fail)?;
    let found = scan(dir, &segments)?;
    let mut recovered = Recovered { scanned: found.scanned, ..Recovered::default() };
    let mut repair = Vec::new();
    let last = segments.last();
    if let (Some(torn), Some(last)) = (found.torn, last) {
        let moved = set_aside(dir, last, torn).map_err(fail)?;
        repair.push(repaired(last, &moved, found.walker.seq));
        (recovered.torn_bytes, recovered.torn_file) = (moved.1, Some(moved.0));
    }
    let file = last.map(|last| append_to(&last.path).map(|file| (file, last.first)));
    let file = file.transpose().map_err(fail)?;
    let origin = checkpoint::origin_or_new(dir).map_err(fail)?;
    let signing = Signing::of(config, origin, found.tree);
    let head = (found.walker.seq, found.walker.prev.unwrap_or(Leaf::NONE));
    let mut pen = Pen::after(config, head, file, signing).map_err(fail)?;
    recovered.dangling = found.open.len() as u64;
    put(&mut pen, repair.into_iter(), &found.open).map_err(fail)?;
    sign(&mut pen).map_err(fail)?;
    recovered.next_seq = pen.seq;
    Ok((pen, recovered))
}

/// Writes what recovery has to say, and syncs it.
fn put(pen: &mut Pen, repair: impl Iterator<Item = Entry>, open: &HashMap<u128, Open>) -> io::Result<()> {
    let unknown = open.iter().map(|(intent, open)| {
        let mut members = Members::default();
        members.text("status", "unknown");
        members.text("reason", "the gateway stopped before the outcome was known");
        Entry::outcome(RecordId::from_u128(*intent), open.trace, members)
    });
    let mut entries = repair.chain(unknown).peekable();
    while entries.peek().is_some() {
        let group: Vec<Entry> = entries.by_ref().take(1000).collect();
        let files = pen.put(group.iter()).map_err(|error| error.source())?;
        files.sync(&*pen.machine)?;
    }
    Ok(())
}

/// A log whose last checkpoint was not found, because nobody signed it so far, gets one that covers it.
fn sign(pen: &mut Pen) -> io::Result<()> {
    let unsigned = pen.signing.as_ref().is_some_and(|signing| signing.tree.is_none());
    if unsigned && let Some(files) = pen.sign().map_err(|error| error.source())? {
        files.sync(&*pen.machine)?;
    }
    Ok(())
}

/// The record of a repair.
fn repaired(segment: &Segment, moved: &(PathBuf, u64), seq: u64) -> Entry {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut members = Members::default();
    members.text("segment", &name(&segment.path));
    members.number("torn_seq", seq);
    members.number("torn_bytes", moved.1);
    members.text("torn_file", &name(&moved.0));
    members.text("reason", "the last write was cut short");
    Entry::new(Kind::Recovered, None, members)
}

/// What reading the log gave.
struct Scan {
    walker: Walker,
    scanned: u64,
    open: HashMap<u128, Open>,
    /// The tree since the last checkpoint, or since the first record of all.
    tree: Option<Frontier>,
    /// Where the unfinished write begins in the last segment.
    torn: Option<u64>,
}

/// Reads from the segment on that the hint names, and checks the chain on the way.
fn scan(dir: &Path, segments: &[Segment]) -> Result<Scan, LedgerError> {
    let hint = std::fs::read_to_string(dir.join(FLOOR)).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let from = segments.iter().rposition(|segment| Some(segment.first) == hint).unwrap_or(0);
    // What precedes an empty last segment is in the one before it.
    let has_records = |segment: &Segment| std::fs::metadata(&segment.path).is_ok_and(|meta| meta.len() > 0);
    let from = from.min(segments.iter().rposition(has_records).unwrap_or(0));
    let segments = segments.get(from..).unwrap_or_default();
    let first = segments.first().map_or(1, |segment| segment.first);
    let tree = (first == 1).then(|| Frontier::begin(1));
    let mut scan = Scan { walker: Walker::from(first), scanned: 0, open: HashMap::new(), tree, torn: None };
    for (at, segment) in segments.iter().enumerate() {
        let place = if at + 1 == segments.len() { Place::Last } else { Place::Earlier };
        scan_segment(segment, place, &mut scan)?;
    }
    Ok(scan)
}

/// Where a segment stands: only the last one may end in an unfinished write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Earlier,
    Last,
}

fn scan_segment(segment: &Segment, place: Place, scan: &mut Scan) -> Result<(), LedgerError> {
    let fail = |source| LedgerError::Io { path: segment.path.clone(), source };
    let broken = |line, seq, fault| {
        Err(LedgerError::Broken { file: segment.path.display().to_string(), line, seq, fault })
    };
    if segment.first != scan.walker.seq {
        let fault = Fault::Seq { found: segment.first, expected: scan.walker.seq };
        return broken(1, scan.walker.seq, fault);
    }
    let len = std::fs::metadata(&segment.path).map_err(fail)?.len();
    let mut lines = Lines::open(&segment.path, 0).map_err(fail)?;
    while let Some(line) = lines.read().map_err(fail)? {
        let seq = scan.walker.seq;
        let stepped = match line.end {
            End::Newline => scan.walker.step(line.bytes),
            End::File => Err(Fault::Torn),
            End::TooLong => Err(Fault::TooLong),
        };
        match stepped {
            Ok(header) => {
                scan.scanned += 1;
                if header.kind() == Some(Kind::Checkpoint) {
                    scan.tree = Some(Frontier::begin(seq));
                }
                if let (Some(tree), Some(leaf)) = (&mut scan.tree, scan.walker.prev) {
                    tree.push(leaf);
                }
                match (header.kind(), header.id()) {
                    (Some(Kind::Intent), Some(id)) => {
                        scan.open.insert(id, Open { segment: segment.first, trace: header.trace() });
                    }
                    (Some(Kind::Outcome), _) => {
                        header.closes().and_then(|intent| scan.open.remove(&intent));
                    }
                    _ => {}
                }
            }
            Err(fault) => {
                let ended = line.offset + line.bytes.len() as u64 + u64::from(line.end == End::Newline);
                if place == Place::Last && line.end != End::TooLong && ended == len {
                    scan.torn = Some(line.offset);
                    return Ok(());
                }
                return broken(line.number, seq, fault);
            }
        }
    }
    Ok(())
}

/// Copies the unfinished write beside its segment and cuts it off; says where it is and how long.
fn set_aside(dir: &Path, segment: &Segment, offset: u64) -> io::Result<(PathBuf, u64)> {
    let mut file = OpenOptions::new().read(true).write(true).open(&segment.path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut number = 1;
    let (path, mut aside) = loop {
        let path = segment.path.with_added_extension(format!("torn-{number}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(aside) => break (path, aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    };
    let bytes = io::copy(&mut file.by_ref().take(u64::MAX), &mut aside)?;
    aside.sync_all()?;
    sync_dir(dir)?;
    file.set_len(offset)?;
    file.sync_all()?;
    Ok((path, bytes))
}
