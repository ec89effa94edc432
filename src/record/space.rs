//! Room on the disk: below the low-water mark writes and external calls are refused, below the floor reads too, and the
//! outcomes of calls that were sent find room in a reserve that was set aside before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use super::chain::Kind;
use super::ledger::{Durability, Entry};
use super::machine::Machine;

/// How often the disk is asked.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The largest reserve: the outcomes of some ten thousand calls.
const RESERVE_BYTES_MAX: u64 = 16 << 20;
/// The file that is freed when outcomes find no other room.
const RESERVE: &str = "reserve";

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Room {
    /// Enough.
    Ample = 0,
    /// Less than `free_bytes_min`: nothing that changes the world is begun.
    Low = 1,
    /// Less than the floor: nothing is begun at all.
    Floor = 2,
}

impl Room {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Room::Ample => "ample",
            Room::Low => "low",
            Room::Floor => "none",
        }
    }

    /// Whether an entry may still be written.
    pub(super) fn admits(self, entry: &Entry, durability: Durability) -> bool {
        match (self, entry.kind) {
            (Room::Ample, _) => true,
            (Room::Low, Kind::Intent) => durability == Durability::Written,
            (Room::Low, _) => true,
            (Room::Floor, kind) => !matches!(kind, Kind::Intent | Kind::Refused | Kind::Held),
        }
    }
}

/// What callers see of it.
#[derive(Default)]
pub(super) struct Gauge {
    room: AtomicU8,
    free_bytes: AtomicU64,
}

impl Gauge {
    pub(super) fn room(&self) -> Room {
        match self.room.load(Ordering::Relaxed) {
            0 => Room::Ample,
            1 => Room::Low,
            _ => Room::Floor,
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }
}

/// The low-water mark as the writer keeps it.
pub(super) struct Space {
    dir: PathBuf,
    /// Zero turns all of this off.
    free_bytes_min: u64,
    reserve_bytes: u64,
    looked: Option<Instant>,
}

impl Space {
    /// Watches the disk of a directory.
    pub(super) fn of(dir: &Path, free_bytes_min: u64) -> Space {
        let reserve_bytes = RESERVE_BYTES_MAX.min(free_bytes_min / 4);
        Space { dir: dir.to_owned(), free_bytes_min, reserve_bytes, looked: None }
    }

    /// Whether there is anything to watch.
    pub(super) fn watches(&self) -> bool {
        self.free_bytes_min > 0
    }

    /// Asks the disk, unless it was asked just now, and sets the reserve aside again when there is room.
    pub(super) fn look(&mut self, machine: &dyn Machine, gauge: &Gauge) {
        if !self.watches() || self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        // A disk that does not say is treated as it was before: a write will say more.
        let Ok(free) = machine.free_bytes(&self.dir) else { return };
        let reserved = fs::metadata(self.dir.join(RESERVE)).map_or(0, |meta| meta.len());
        let before = gauge.room();
        let room = match free {
            free if free < self.reserve_bytes => Room::Floor,
            free if free < self.free_bytes_min => Room::Low,
            _ => Room::Ample,
        };
        if room == Room::Ample
            && reserved < self.reserve_bytes
            && let Err(error) = self.set_aside()
        {
            tracing::warn!(audit.dir = %self.dir.display(), %error, "the audit's reserve could not be set aside");
        }
        gauge.free_bytes.store(free, Ordering::Relaxed);
        gauge.room.store(room as u8, Ordering::Relaxed);
        if room != before {
            let dir = self.dir.display();
            match room {
                Room::Ample => {
                    tracing::info!(audit.dir = %dir, audit.free_bytes = free, "the audit has room again")
                }
                Room::Low => {
                    tracing::error!(audit.dir = %dir, audit.free_bytes = free, "the audit's disk is low: writes and external calls are refused")
                }
                Room::Floor => {
                    tracing::error!(audit.dir = %dir, audit.free_bytes = free, "the audit's disk is full: every call is refused")
                }
            }
        }
    }

    /// Gives up the reserve; whether there was one.
    pub(super) fn free_reserve(&mut self) -> bool {
        self.looked = None;
        fs::remove_file(self.dir.join(RESERVE)).is_ok()
    }

    fn set_aside(&self) -> io::Result<()> {
        let path = self.dir.join(RESERVE);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let made = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.reserve_bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => fill(&mut file, self.reserve_bytes),
            made => made.map_err(io::Error::from),
        };
        if made.is_err() {
            fs::remove_file(&path)?;
        }
        made
    }
}

/// For file systems that cannot set room aside without writing.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    const BLOCK: [u8; 4096] = [0; 4096];
    for _ in 0..bytes.div_ceil(BLOCK.len() as u64) {
        file.write_all(&BLOCK)?;
    }
    Ok(())
}
