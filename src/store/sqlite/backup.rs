//! Copies of the store: one that is taken while a gateway serves, and one that is put in its place, with what the audit
//! knows better.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::found::all;
use super::holds::{happened, now};
use super::state::{Halt, Within};
use super::{BUSY_TIME_MAX, FORMAT, Sqlite, lock, micros, moment, within};
use crate::call::RecordId;
use crate::json::Members;
use crate::store::holds::{Grants as _, Hold, HoldState, Moment};
use crate::store::{Frozen, Order, Store as _, StoreError};

/// Who takes back what a restored store would let go.
const BY: &str = "restore";
/// Why.
const LAPSED: &str = "an older copy of the store was put back";

/// What the audit knows, by which a copy of before is put right.
#[derive(Clone, Debug, Default)]
pub struct Later {
    /// What it says of holds, by their ids.
    pub holds: std::collections::HashMap<RecordId, Became>,
    /// Agents that were suspended since, and not resumed.
    pub suspensions: Vec<Order>,
    /// Runs that were frozen since, and that nobody let go on.
    pub frozen: Vec<Frozen>,
    /// Endorsements that were taken back, whenever that was.
    pub revoked: Vec<RecordId>,
}

/// What the audit says of a hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Became {
    /// The state that its last record tells.
    pub state: Option<HoldState>,
    /// Whether it was ever released.
    pub released: bool,
    /// The record of the call that executed it.
    pub record: Option<RecordId>,
}

/// What a copy has, before anything is put right.
#[derive(Clone, Debug)]
pub struct Copied {
    /// When it was taken; none for a file that `backup` did not make.
    pub at: Option<SystemTime>,
    /// Holds that are open in it.
    pub open: Vec<Hold>,
}

/// What was restored.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Holds that are not as the copy has them, with the state that they have now.
    pub holds: Vec<(RecordId, HoldState)>,
    /// How many agents are suspended that the copy does not know to be.
    pub suspended: usize,
    /// Where the store of before is.
    pub aside: Option<PathBuf>,
}

/// Writes a consistent copy of the store at `path` to a new file that only its owner may read. A gateway may serve from
/// the store meanwhile.
pub async fn backup(path: &Path, to: &Path) -> Result<(), StoreError> {
    let mut store = connect(path).await?;
    let found = format(&mut store).await.map_err(within(path))?;
    if found > FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let file = made.map_err(|source| StoreError::Io { path: to.to_owned(), source })?;
    let copied = async {
        let name = to.to_str().ok_or_else(|| StoreError::Failed(format!("{}: not UTF-8", to.display())))?;
        sqlx::query("VACUUM INTO ?").bind(name).execute(&mut store).await.map_err(within(path))?;
        let mut copy = connect(to).await?;
        sqlx::query("CREATE TABLE backup AS SELECT ? AS at")
            .bind(micros(SystemTime::now()))
            .execute(&mut copy)
            .await
            .map_err(within(to))?;
        copy.close().await.map_err(within(to))?;
        file.sync_all()
            .and_then(|()| sync_directory(to))
            .map_err(|source| StoreError::Io { path: to.to_owned(), source })
    };
    let done = copied.await;
    if done.is_err() {
        // Half a copy is none.
        let _ = fs::remove_file(to);
    }
    done
}

/// Puts a copy in the place of the store at `path`, which no gateway may have open. `later` is asked what the audit knows
/// of what the copy has. The store of before is kept beside it.
pub async fn restore(
    path: &Path,
    from: &Path,
    later: impl FnOnce(&Copied) -> Result<Later, StoreError>,
) -> Result<Restored, StoreError> {
    let locked = lock(path)?;
    let next = path.with_added_extension("restoring");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { path, source }
    };
    let mut source = File::open(from).map_err(io(from))?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&next);
    let mut file = file.map_err(io(&next))?;
    io::copy(&mut source, &mut file).and_then(|_| file.sync_all()).map_err(io(&next))?;
    let done = put_right(&next, from, later).await;
    let (mut restored, done) = match done {
        Ok(restored) => (restored, Ok(())),
        Err(error) => (Restored::default(), Err(error)),
    };
    let _ = fs::remove_file(next.with_added_extension("lock"));
    if let Err(error) = done {
        let _ = fs::remove_file(&next);
        return Err(error);
    }
    restored.aside = set_aside(path).map_err(io(path))?;
    fs::rename(&next, path).and_then(|()| sync_directory(path)).map_err(io(path))?;
    drop(locked);
    Ok(restored)
}

/// Brings a copy to this version's format, and to what the audit knows.
async fn put_right(
    next: &Path,
    from: &Path,
    later: impl FnOnce(&Copied) -> Result<Later, StoreError>,
) -> Result<Restored, StoreError> {
    let mut copy = connect(next).await?;
    // Another program's database is none of ours, however sound it is.
    format(&mut copy).await.map_err(|_| StoreError::Corrupt {
        path: from.to_owned(),
        detail: "it is no store of Holdpoint".to_owned(),
    })?;
    copy.close().await.map_err(within(next))?;
    let store = Sqlite::open(next).await?;
    let copied = store.write(async |tx| copied(tx).await).await?;
    let known = later(&copied)?;
    let mut restored = Restored::default();
    for order in known.suspensions.iter().cloned() {
        restored.suspended += usize::from(store.suspend(order).await? == crate::store::Changed::Now);
    }
    for frozen in known.frozen.iter().cloned() {
        store.freeze(frozen).await?;
    }
    for id in &known.revoked {
        store.revoke_endorsement(*id, BY.to_owned(), "the audit has it taken back".to_owned()).await?;
    }
    store.write(lapsed).await?;
    restored.holds = store.write(async |tx| ended(tx, &copied, &known, from).await).await?;
    let done = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&store.writer).await;
    done.map_err(within(next))?;
    store.close().await?;
    Ok(restored)
}

async fn copied(tx: &mut SqliteConnection) -> Within<Copied> {
    let marked: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'backup'")
            .fetch_one(&mut *tx)
            .await?;
    let at: Option<i64> = match marked {
        0 => None,
        _ => sqlx::query_scalar("SELECT max(at) FROM backup").fetch_one(&mut *tx).await?,
    };
    sqlx::query("DROP TABLE IF EXISTS backup").execute(&mut *tx).await?;
    let ids = sqlx::query_scalar(
        "SELECT id FROM hold WHERE state IN ('pending', 'approved', 'releasing') ORDER BY opened",
    );
    let ids: Vec<String> = ids.fetch_all(&mut *tx).await?;
    Ok(Copied { at: at.map(moment), open: all(tx, &ids).await? })
}

/// Ends what was let go for a while: how much of it was used since the copy was taken, and who took it back, is not in it.
async fn lapsed(tx: &mut SqliteConnection) -> Within<()> {
    let at = now(tx).await?;
    sqlx::query(
        "UPDATE lift SET closed_by = ?1, closed_reason = ?2, closed_at = ?3, ended = 1 WHERE ended = 0 AND until > ?3",
    )
    .bind(BY)
    .bind(LAPSED)
    .bind(at)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE standing SET revoked_by = ?1, revoked_reason = ?2, revoked_at = ?3
         WHERE revoked_at IS NULL AND until > ?3",
    )
    .bind(BY)
    .bind(LAPSED)
    .bind(at)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Ends what the audit shows ended, and never runs again what it shows released.
async fn ended(
    tx: &mut SqliteConnection,
    copied: &Copied,
    known: &Later,
    from: &Path,
) -> Within<Vec<(RecordId, HoldState)>> {
    let at = now(tx).await?;
    let mut changed = Vec::new();
    for hold in &copied.open {
        let Some(became) = known.holds.get(&hold.id) else { continue };
        let (state, detail) = match became.state {
            Some(state) if state.is_end() => (state, "by the audit, after a restore"),
            _ if became.released => {
                (HoldState::Indeterminate, "the audit has its release, and the restored store did not")
            }
            _ => continue,
        };
        sqlx::query(
            "UPDATE hold SET state = ?1, changed = ?2, detail = ?3, record = coalesce(?4, record), bytes = NULL,
               lease_by = NULL, lease_until = NULL WHERE id = ?5",
        )
        .bind(state.as_str())
        .bind(at)
        .bind(detail)
        .bind(became.record.map(|record| record.to_string()))
        .bind(hold.id.to_string())
        .execute(&mut *tx)
        .await?;
        let hold = super::found::known(tx, hold.id).await?;
        happened(tx, &hold, Moment::Ended, RecordId::new(), at).await?;
        changed.push((hold.id, state));
    }
    let mut members = Members::default();
    members.text("what", "state-restored");
    members.text("from", &from.display().to_string());
    if let Some(at) = copied.at {
        members.plain("taken", crate::units::moment(at.into(), 6));
    }
    members.number("holds", changed.len());
    sqlx::query("INSERT INTO audit_row (id, kind, at, members) VALUES (?, 'admin', ?, ?)")
        .bind(RecordId::new().to_string())
        .bind(at)
        .bind(members.as_bytes())
        .execute(&mut *tx)
        .await?;
    Ok::<_, Halt>(changed)
}

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIME_MAX)
        .pragma("trusted_schema", "OFF");
    options.connect().await.map_err(within(path))
}

async fn format(store: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(store).await
}

/// Keeps what is there now under another name. The file itself stays until the new one takes its place, so that a gateway
/// never starts from nothing.
fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    if !path.exists() {
        return Ok(None);
    }
    let aside = path.with_added_extension(format!("before-restore-{}", RecordId::new()));
    fs::hard_link(path, &aside)?;
    // A log of the old file must never be taken for one of the new.
    for end in ["-wal", "-shm"] {
        let of = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        match fs::rename(of(path), of(&aside)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(Some(aside))
}

fn sync_directory(of: &Path) -> io::Result<()> {
    let dir = of.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
