//! The store in one file on this machine: SQLite with a write-ahead log, one writer, and readers beside it.

pub mod backup;
mod block;
mod found;
mod grants;
mod holds;
mod inbox;
mod index;
mod lifts;
mod notifications;
mod opening;
mod resolve;
mod rows;
mod standing;
mod state;
mod tasks;

pub use index::Index;

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::StoreError;

/// The format that this version writes: the number of the last migration.
const FORMAT: i64 = 9;
/// How long a statement waits for another program that has the file locked.
const BUSY_TIME_MAX: Duration = Duration::from_secs(5);
/// How long somebody waits for a connection.
const ACQUIRE_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections that only read.
const READERS_MAX: u32 = 4;

/// The store, open for this process alone.
pub struct Sqlite {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
    opening: opening::Opening,
    /// Held until the store is closed.
    lock: Mutex<Option<File>>,
}

/// What a loss of power may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    /// Nothing that was answered.
    Full,
    /// The last changes, never the file's order: for what can be made again.
    Normal,
}

impl Sqlite {
    /// Opens the store at a path, or makes it; only its owner may read it. A second process is refused.
    ///
    /// Errors: [`StoreError::Locked`], [`StoreError::Newer`], [`StoreError::Corrupt`], [`StoreError::Io`] and
    /// [`StoreError::Failed`], each with the file's name.
    pub async fn open(path: &Path) -> Result<Sqlite, StoreError> {
        let lock = lock(path)?;
        private(path)?;
        let (writer, readers) = pools(path, Sync::Full).await.map_err(within(path))?;
        let opening = opening::Opening::start(writer.clone(), path.to_owned());
        let opened = Sqlite { path: path.to_owned(), writer, readers, opening, lock: Mutex::new(Some(lock)) };
        opened.check().await?;
        let migrated = migrations().run(&opened.writer).await;
        migrated.map_err(|error| opened.unmigrated(error))?;
        let mut writer = opened.writer.acquire().await.map_err(within(path))?;
        holds::abandon(&mut writer).await.map_err(within(path))?;
        drop(writer);
        Ok(opened)
    }

    /// A database that is damaged is found before it is relied on.
    async fn check(&self) -> Result<(), StoreError> {
        let told: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&self.writer)
            .await
            .map_err(within(&self.path))?;
        if told == "ok" {
            return Ok(());
        }
        Err(StoreError::Corrupt { path: self.path.clone(), detail: told })
    }

    fn unlock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn unmigrated(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::VersionMissing(found) => {
                StoreError::Newer { path: self.path.clone(), found, known: FORMAT }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                within(&self.path)(error)
            }
            other => StoreError::Failed(format!("{}: {other}", self.path.display())),
        }
    }
}

fn migrations() -> Migrator {
    let step = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        step(1, "state", include_str!("sqlite/0001_state.sql")),
        step(2, "frozen", include_str!("sqlite/0002_frozen.sql")),
        step(3, "holds", include_str!("sqlite/0003_holds.sql")),
        step(4, "tasks", include_str!("sqlite/0004_tasks.sql")),
        step(5, "notifications", include_str!("sqlite/0005_notifications.sql")),
        step(6, "grants", include_str!("sqlite/0006_grants.sql")),
        step(7, "waiting", include_str!("sqlite/0007_waiting.sql")),
        step(8, "topics", include_str!("sqlite/0008_topics.sql")),
        step(9, "isolated", include_str!("sqlite/0009_isolated.sql")),
    ])
}

/// One connection that writes, and some that read.
async fn pools(path: &Path, sync: Sync) -> Result<(SqlitePool, SqlitePool), sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match sync {
            Sync::Full => SqliteSynchronous::Full,
            Sync::Normal => SqliteSynchronous::Normal,
        })
        .busy_timeout(BUSY_TIME_MAX)
        .foreign_keys(true)
        .pragma("trusted_schema", "OFF");
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIME_MAX)
        .connect_with(options.clone())
        .await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(ACQUIRE_TIME_MAX)
        .connect_lazy_with(options.read_only(true));
    Ok((writer, readers))
}

/// Takes a store for this process alone. The lock is a file of its own: SQLite loses its own locks when another handle
/// of the database's file is closed within the process.
fn lock(path: &Path) -> Result<File, StoreError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir))?;
    let name = path.with_added_extension("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&name).map_err(io(&name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::Io { path: name, source }),
    }
}

/// Makes the file when there is none. Only its owner may read it, and what SQLite makes beside it is as private.
fn private(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(io(path))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

/// SQLite's code for a damaged file, and for a file that is no database.
const CORRUPT: [u32; 2] = [11, 26];

/// The error of a statement on a database.
fn within(path: &Path) -> impl FnOnce(sqlx::Error) -> StoreError {
    let path = path.to_owned();
    move |error| {
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        // The lower byte is the primary code.
        if code.is_some_and(|code| CORRUPT.contains(&(code & 0xff))) {
            return StoreError::Corrupt { path, detail: error.to_string() };
        }
        StoreError::Failed(format!("{}: {error}", path.display()))
    }
}

/// A moment as the database keeps it, in microseconds since 1970. What lies before is 1970.
fn micros(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn moment(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs())
}

/// A number of the log as SQLite keeps it; it has no unsigned ones, and no log is that long.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::RecordId;
    use crate::store::notifications::{Notifications as _, Topic};

    #[tokio::test]
    async fn what_people_had_to_be_told_before_they_were_told_of_lifts_is_still_to_be_told() {
        let dir = std::env::temp_dir().join(format!("hp-migrated-{}", RecordId::new()));
        let path = dir.join("state.db");
        std::fs::create_dir_all(&dir).unwrap();
        private(&path).unwrap();
        let (writer, _) = pools(&path, Sync::Full).await.unwrap();
        let before = migrations().iter().filter(|step| step.version <= 6).cloned().collect();
        Migrator::with_migrations(before).run(&writer).await.unwrap();
        let (hold, id) = (RecordId::new(), RecordId::new());
        let rows = format!(
            "INSERT INTO hold (id, state, digest, agent, owner, team, task, on_behalf_of, upstream, tool, class, consequence,
               rule, reason, run, revision, idempotent, quorum, approvers, opened, escalates, expires, changed, detail)
             VALUES ('{hold}', 'pending', x'00', 'a', '', '', '', '', 'mail', 't', 'write', 3, 'r', '', '', '', 0, 1, '[]', 1, 2, 3, 1, '');
             INSERT INTO event (kind, hold, at, data) VALUES ('hold.voted', '{hold}', 2, x'');
             INSERT INTO notification (id, webhook, kind, hold, at, data, attempts, since, next, state, failure)
             VALUES ('{id}', 'chat', 'hold.opened', '{hold}', 1, x'', 3, 1, 1, 'waiting', 'not reached');"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&writer).await.unwrap();
        writer.close().await;
        let store = Sqlite::open(&path).await.unwrap();
        assert_eq!(store.backlog().await.unwrap().events, 1);
        let [told] = &store.due("chat".to_owned(), 10).await.unwrap()[..] else { panic!("it is due") };
        assert_eq!((told.id, told.topic, told.attempts), (id, Topic::Hold(hold), 3));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
