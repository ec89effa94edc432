//! What the ledger asks of the machine: its clock and its disk. A seam, so that tests can be a disk that fails.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use time::OffsetDateTime;

/// The clock and the disk under a ledger.
pub trait Machine: Send + Sync {
    /// The time of day.
    fn now(&self) -> OffsetDateTime;

    /// Appends all of these bytes to an open file.
    fn append(&self, file: &File, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was appended to a file durable.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// How many bytes the disk of a directory has left for us.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// The machine that this program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real;

impl Machine for Real {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn append(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}
