//! The files of the ledger: their names, their order, and reading their lines in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chain::RECORD_BYTES_MAX;

/// The directory of compressed segments, below the audit's.
const ARCHIVE: &str = "archive";
/// The largest window that a compressed segment may ask for: 128 MiB of memory.
const WINDOW_LOG_MAX: u32 = 27;

/// One file of the ledger.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Where it is.
    pub(super) path: PathBuf,
    /// The number of its first record, by its name.
    pub(super) first: u64,
}

/// The file name of the segment that begins with a record.
pub(super) fn name(first: u64) -> String {
    format!("audit-{first:020}.jsonl")
}

/// The file of a segment once it is compressed.
pub(super) fn archived(dir: &Path, first: u64) -> PathBuf {
    dir.join(ARCHIVE).join(format!("{}.zst", name(first)))
}

/// The number in a segment's file name.
fn first(name: &str, end: &str) -> Option<u64> {
    let digits = name.strip_prefix("audit-")?.strip_suffix(end)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Opens the segment that begins with a record, archived or not.
pub(super) fn open(dir: &Path, first: u64, offset: u64) -> io::Result<Lines> {
    match Lines::open(&dir.join(name(first)), offset) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Lines::open(&archived(dir, first), offset),
        opened => opened,
    }
}

/// Every segment of a directory that is not archived, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<Segment>> {
    of(dir, ".jsonl")
}

/// Every archived segment of a directory, in order.
pub(super) fn archive(dir: &Path) -> io::Result<Vec<Segment>> {
    match of(&dir.join(ARCHIVE), ".jsonl.zst") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// Every segment of a directory, archived or not, in order. One that is both, because a crash came between, is taken as
/// it was written.
pub(super) fn all(dir: &Path) -> io::Result<Vec<Segment>> {
    // Those that are not archived are listed first: one that moves meanwhile is then seen twice and not missed.
    let mut segments = list(dir)?;
    segments.extend(archive(dir)?);
    segments.sort_by_key(|segment| segment.first);
    segments.dedup_by_key(|segment| segment.first);
    Ok(segments)
}

fn of(dir: &Path, end: &str) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(first) = entry.file_name().to_str().and_then(|name| first(name, end)) {
            segments.push(Segment { path: entry.path(), first });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its newline.
    Newline,
    /// With the file.
    File,
    /// Not within `RECORD_BYTES_MAX`.
    TooLong,
}

/// One line of a segment.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// The bytes without the newline.
    pub(super) bytes: &'a [u8],
    /// How it ended.
    pub(super) end: End,
    /// Its number in the file, from 1.
    pub(super) number: u64,
    /// Where it begins in the file.
    pub(super) offset: u64,
}

/// Reads a segment line by line.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    number: u64,
    /// Where the next line begins.
    pub(super) offset: u64,
}

impl Lines {
    /// Reads from a place in the segment on. A compressed one has to be decompressed up to there.
    pub(super) fn open(path: &Path, offset: u64) -> io::Result<Lines> {
        const BUFFER_BYTES: usize = 256 << 10;
        let mut file = File::open(path)?;
        let reader: Box<dyn BufRead + Send> = if path.extension().is_some_and(|end| end == "zst") {
            let mut decoder = zstd::Decoder::new(file)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            let mut reader = BufReader::with_capacity(BUFFER_BYTES, decoder);
            io::copy(&mut reader.by_ref().take(offset), &mut io::sink())?;
            Box::new(reader)
        } else {
            file.seek(SeekFrom::Start(offset))?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, file))
        };
        Ok(Lines { reader, buffer: Vec::new(), number: 0, offset })
    }

    /// Goes on to a place further on.
    pub(super) fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        let between = offset.saturating_sub(self.offset);
        self.offset += io::copy(&mut self.reader.by_ref().take(between), &mut io::sink())?;
        Ok(())
    }

    /// The next line, whole or not; `None` at the end.
    pub(super) fn read(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let limit = RECORD_BYTES_MAX as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let offset = self.offset;
        self.offset += read as u64;
        self.number += 1;
        let end = if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            End::Newline
        } else if read as u64 == limit {
            End::TooLong
        } else {
            End::File
        };
        Ok(Some(Line { bytes: &self.buffer, end, number: self.number, offset }))
    }
}
