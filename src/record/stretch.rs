//! Parts of the log: reading from one place to another, and telling whether a place is still in the log.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::chain::Header;
use super::segment::{self, End, Line};
use crate::call::hex;
use crate::store::Place;

/// Part of one segment.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    dir: PathBuf,
    /// The segment's file, when it was looked for.
    pub(super) path: PathBuf,
    /// The first record of the segment.
    pub(super) segment: u64,
    /// Where the stretch begins in the file, in bytes.
    from: u64,
    /// Where it ends; none for the end of the file.
    to: Option<u64>,
}

/// The stretches from one place to another, in order, also those that are archived by now.
pub(super) fn between(dir: &Path, from: Place, end: Place) -> io::Result<Vec<Stretch>> {
    let wanted = |segment: &segment::Segment| (from.segment..=end.segment).contains(&segment.first);
    let stretch = |segment: segment::Segment| Stretch {
        from: if segment.first == from.segment { from.bytes } else { 0 },
        to: (segment.first == end.segment).then_some(end.bytes),
        segment: segment.first,
        path: segment.path,
        dir: dir.to_owned(),
    };
    Ok(segment::all(dir)?.into_iter().filter(wanted).map(stretch).collect())
}

impl Stretch {
    /// Shows each whole line, and stops early when asked to. A segment that was deleted meanwhile has none; one that was
    /// archived has its own.
    pub(super) fn lines(&self, mut show: impl FnMut(Line<'_>) -> ControlFlow<()>) -> io::Result<()> {
        let mut lines = match segment::open(&self.dir, self.segment, self.from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        while self.to.is_none_or(|to| lines.offset < to) {
            let Some(line) = lines.read()? else { break };
            if line.end == End::Newline && show(line).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Whether the log that ends at `end` has this place: what follows it must name its record as the one before. A log that
/// was replaced, cut off, or lost its tail with the power does not.
pub(super) fn contains(dir: &Path, place: Place, end: Place) -> io::Result<bool> {
    if place.seq >= end.seq {
        return Ok((place.seq, place.leaf) == (end.seq, end.leaf));
    }
    if place == Place::BEGIN {
        return Ok(true);
    }
    let mut follows = None;
    for stretch in between(dir, place, end)? {
        stretch.lines(|line| {
            follows = Some(
                serde_json::from_slice::<Header>(line.bytes)
                    .is_ok_and(|header| header.seq == place.seq + 1 && header.prev() == hex(&place.leaf)),
            );
            ControlFlow::Break(())
        })?;
        if follows.is_some() {
            break;
        }
    }
    Ok(follows == Some(true))
}
