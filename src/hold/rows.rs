//! From the store into the audit: every change of a hold becomes a record, in order, and one that was written before a
//! crash is known by its id.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

use crate::call::RecordId;
use crate::json::Members;
use crate::record::restore::{self, Known};
use crate::record::{Durability, Entry, Kind, Ledger};
use crate::store::holds::AuditRow;
use crate::store::{Store, StoreError};

/// A clock may have been set back by so much while the gateway was down.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The way of rows into the audit.
pub(super) struct Rows {
    store: Arc<dyn Store>,
    ledger: Ledger,
    audit: PathBuf,
    /// How often somebody wanted rows written.
    wanted: AtomicU64,
    /// Whoever has this writes.
    written: Mutex<Written>,
}

/// What has been written.
#[derive(Default)]
struct Written {
    /// The last row.
    row: i64,
    /// Of those who wanted rows written, whoever came before this one has them.
    wanted: u64,
}

impl Rows {
    pub(super) fn new(store: Arc<dyn Store>, ledger: Ledger, audit: PathBuf) -> Rows {
        Rows { store, ledger, audit, wanted: AtomicU64::new(0), written: Mutex::default() }
    }

    /// Writes every row that the audit does not have; when this returns they are synced.
    pub(super) async fn write(&self) -> Result<(), String> {
        let mine = self.wanted.fetch_add(1, Ordering::SeqCst);
        let mut written = self.written.lock().await;
        if mine < written.wanted {
            return Ok(());
        }
        // What these keep for the audit is in the store already.
        let wanted = self.wanted.load(Ordering::SeqCst);
        loop {
            let rows = self.store.audit_rows().await.map_err(|error| error.to_string())?;
            let Some(end) = rows.last().map(|row| row.place) else {
                written.wanted = wanted;
                return Ok(());
            };
            for row in rows {
                let place = row.place;
                if place <= written.row {
                    continue;
                }
                // A sync of the last one is a sync of all before it.
                let durability = if place == end { Durability::Synced } else { Durability::Written };
                self.ledger.append(entry(row), durability).await.map_err(|error| error.to_string())?;
                written.row = place;
            }
            self.store.audited(end).await.map_err(|error| error.to_string())?;
        }
    }

    /// Drops the rows that the audit has, and writes the others.
    pub(super) async fn recover(&self) -> Result<(), StoreError> {
        loop {
            let rows = self.store.audit_rows().await?;
            let Some(first) = rows.first() else { return Ok(()) };
            let known = self.about(first.at, rows.iter().map(|row| row.id).collect()).await?;
            // They are written in order, so those that are there come first.
            match rows.iter().take_while(|row| known.records.contains(&row.id)).last() {
                Some(row) => self.store.audited(row.place).await?,
                None => return self.write().await.map_err(StoreError::Failed),
            }
        }
    }

    /// What the audit says of these records, written since a moment or not long before it.
    pub(super) async fn about(&self, since: SystemTime, ids: HashSet<RecordId>) -> Result<Known, StoreError> {
        let since = since.checked_sub(CLOCK_ERROR_MAX).unwrap_or(SystemTime::UNIX_EPOCH);
        let (audit, end) = (self.audit.clone(), (self.ledger.end())());
        let read = move || restore::about(&audit, end, since, &ids);
        let read = tokio::task::spawn_blocking(read).await;
        let read = read.map_err(|error| StoreError::Failed(error.to_string()))?;
        read.map_err(|source| StoreError::Io { path: self.audit.clone(), source })
    }
}

fn entry(row: AuditRow) -> Entry {
    let kind = Kind::parse(&row.kind).unwrap_or(Kind::Held);
    Entry::of(row.id, kind, None, Members::written(row.members))
}
