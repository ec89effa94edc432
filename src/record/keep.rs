//! How long the log is kept: old segments are compressed into an archive, and what is older than it must be is deleted,
//! which leaves a signed statement of what went.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::chain::{self, Leaf};
use super::ledger::{Durability, Ledger};
use super::pen::{FLOOR, sync_dir};
use super::segment::{self, End, Lines, Segment};
use super::{Entry, Kind, seal};
use crate::json::Members;
use crate::secret::signer::{PublicKey, Signer};

/// How far the clock may have been set within the life of the process before nothing is deleted any more.
const CLOCK_SET_MAX: Duration = Duration::from_secs(3600);
/// How hard segments are compressed.
const ZSTD_LEVEL: i32 = 6;

/// How long segments are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose last record is older are compressed.
    pub archive_after: Duration,
    /// Segments whose last record is older are deleted; `None` keeps them for good.
    pub retain: Option<Duration>,
}

/// What was deleted, signed by the audit's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The log.
    pub origin: String,
    /// The first record that went.
    pub first_seq: u64,
    /// Its hash.
    pub first_hash: String,
    /// The last record that went.
    pub last_seq: u64,
    /// Its hash: the next record names it as its predecessor.
    pub last_hash: String,
    /// When, UTC.
    pub at: String,
    /// The Ed25519 public key in base64.
    pub key: String,
    /// The signature over [`Deletion::signed_text`] in base64.
    pub signature: String,
}

impl Deletion {
    /// What is signed: a line for each member.
    pub fn signed_text(&self) -> String {
        let Deletion { origin, first_seq, first_hash, last_seq, last_hash, at, .. } = self;
        format!("holdpoint deletion v1\n{origin}\n{first_seq}\n{first_hash}\n{last_seq}\n{last_hash}\n{at}\n")
    }

    /// The key that it says it was signed by, if the signature is that key's.
    pub fn signer(&self) -> Option<PublicKey> {
        PublicKey::parse(&self.key).filter(|key| key.signed(&self.signed_text(), &self.signature))
    }

    fn entry(&self) -> Entry {
        let mut members = Members::default();
        members.text("action", "audit-deleted");
        members.object("deletion", |members| {
            members.text("origin", &self.origin);
            members.number("first_seq", self.first_seq);
            members.text("first_hash", &self.first_hash);
            members.number("last_seq", self.last_seq);
            members.text("last_hash", &self.last_hash);
            members.text("at", &self.at);
            members.text("key", &self.key);
            members.text("signature", &self.signature);
        });
        Entry::new(Kind::Admin, None, members)
    }
}

/// What one round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many segments were compressed.
    pub archived: u64,
    /// What was deleted.
    pub deleted: Option<Deletion>,
}

/// Keeps one log as long as it must be.
pub struct Keeper {
    dir: PathBuf,
    retention: Retention,
    signer: Arc<Signer>,
    started: (Instant, SystemTime),
}

impl Keeper {
    /// A keeper of the log in a directory.
    pub fn new(dir: &Path, retention: Retention, signer: Arc<Signer>) -> Keeper {
        Keeper { dir: dir.to_owned(), retention, signer, started: (Instant::now(), SystemTime::now()) }
    }

    /// Does what is due at this time. Blocks for as long as it takes to compress what is old.
    pub fn round(&self, ledger: &Ledger, now: SystemTime) -> io::Result<Kept> {
        if self.clock_was_set(now) {
            tracing::warn!("the clock was set: no record is archived or deleted before the next start");
            return Ok(Kept::default());
        }
        let mut kept = Kept::default();
        for segment in self.closed()? {
            if age(&segment.path, now)? >= self.retention.archive_after {
                self.archive(&segment)?;
                kept.archived += 1;
            }
        }
        let mut due = Vec::new();
        for segment in segment::archive(&self.dir)? {
            let old = |retain| Ok::<bool, io::Error>(age(&segment.path, now)? >= retain);
            // Only from the beginning on, without a gap.
            if !self.retention.retain.map_or(Ok(false), old)? {
                break;
            }
            due.push(segment);
        }
        kept.deleted = self.delete(&due, ledger, now)?;
        Ok(kept)
    }

    /// Whether somebody set the clock since the start: an age that is computed with it is worth nothing, and what is
    /// deleted does not come back.
    fn clock_was_set(&self, now: SystemTime) -> bool {
        let expected = self.started.1 + self.started.0.elapsed();
        let difference = now.duration_since(expected).unwrap_or_else(|earlier| earlier.duration());
        difference > CLOCK_SET_MAX
    }

    /// The segments that nothing is written to and that a restart does not need.
    fn closed(&self) -> io::Result<Vec<Segment>> {
        let segments = segment::list(&self.dir)?;
        let floor = fs::read_to_string(self.dir.join(FLOOR)).ok().and_then(|text| text.trim().parse().ok());
        let floor: u64 = floor.unwrap_or(1);
        // The last is written to; the one before it is what an empty last one is read with.
        let closed = segments.len().saturating_sub(2);
        Ok(segments.into_iter().take(closed).filter(|segment| segment.first < floor).collect())
    }

    /// Compresses one, and takes the original away when the copy is durable and was read back.
    fn archive(&self, segment: &Segment) -> io::Result<()> {
        let to = segment::archived(&self.dir, segment.first);
        let beside = to.parent().unwrap_or(&self.dir);
        DirBuilder::new().recursive(true).mode(0o700).create(beside)?;
        let next = to.with_extension("new");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        let mut original = File::open(&segment.path)?;
        let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL)?;
        encoder.include_checksum(true)?;
        io::copy(&mut original, &mut encoder)?;
        let file = encoder.finish()?;
        file.set_modified(fs::metadata(&segment.path)?.modified()?)?;
        file.sync_all()?;
        if !same(original_bytes(&segment.path)?, zstd::Decoder::new(File::open(&next)?)?)? {
            return Err(io::Error::other(format!("{}: the copy is not what was written", next.display())));
        }
        fs::rename(&next, &to)?;
        sync_dir(beside)?;
        sync_dir(&self.dir)?;
        fs::remove_file(&segment.path)
    }

    /// Says what goes, and only when that is durable, lets it go.
    fn delete(&self, due: &[Segment], ledger: &Ledger, now: SystemTime) -> io::Result<Option<Deletion>> {
        let (Some(first), Some(last)) = (due.first(), due.last()) else { return Ok(None) };
        let (first_hash, _) = ends(first)?;
        let (_, (last_seq, last_hash)) = ends(last)?;
        let mut deletion = Deletion {
            origin: ledger.origin().to_owned(),
            first_seq: first.first,
            first_hash: first_hash.to_string(),
            last_seq,
            last_hash: last_hash.to_string(),
            at: chain::timestamp(now.into()).to_string(),
            key: self.signer.public().to_base64(),
            signature: String::new(),
        };
        deletion.signature = self.signer.sign(&deletion.signed_text());
        ledger.append_blocking(deletion.entry(), Durability::Synced).map_err(io::Error::other)?;
        for segment in due {
            match fs::remove_file(seal::file(&self.dir, segment.first)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => fs::remove_file(&segment.path)?,
            }
        }
        Ok(Some(deletion))
    }
}

/// The hash of a segment's first record, and number and hash of its last.
fn ends(segment: &Segment) -> io::Result<(Leaf, (u64, Leaf))> {
    let mut lines = Lines::open(&segment.path, 0)?;
    let (mut first, mut last) = (None, None);
    while let Some(line) = lines.read()? {
        if line.end != End::Newline {
            break;
        }
        let leaf = Leaf::of(line.bytes);
        first.get_or_insert(leaf);
        last = Some((segment.first + line.number - 1, leaf));
    }
    let empty = || io::Error::other(format!("{}: has no record", segment.path.display()));
    first.zip(last).ok_or_else(empty)
}

fn original_bytes(path: &Path) -> io::Result<io::BufReader<File>> {
    Ok(io::BufReader::with_capacity(256 << 10, File::open(path)?))
}

/// Whether two readers give the same bytes.
fn same(one: impl io::Read, other: impl io::Read) -> io::Result<bool> {
    let sum = |reader: &mut dyn io::Read| {
        let mut sum = Sum(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256));
        io::copy(reader, &mut sum).map(|_| sum.0.finish())
    };
    let (mut one, mut other) = (one, other);
    Ok(sum(&mut one)?.as_ref() == sum(&mut other)?.as_ref())
}

/// Hashes what is written to it.
struct Sum(aws_lc_rs::digest::Context);

impl io::Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long ago the last record was written; nothing when the clock says that is yet to come.
fn age(path: &Path, now: SystemTime) -> io::Result<Duration> {
    Ok(now.duration_since(fs::metadata(path)?.modified()?).unwrap_or_default())
}
