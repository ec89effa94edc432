//! The index of records in a SQLite file of its own. It holds nothing that the audit does not, so a file that cannot be
//! used, or is of another format, is thrown away.

use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, QueryBuilder, Row as _, Sqlite as Database, SqliteConnection, Transaction};

use super::state::place;
use super::{Sync, micros, moment, pools, private, signed, within};
use crate::call::RecordId;
use crate::store::{
    Answer, Filter, PAGE_RECORDS_MAX, PAGE_RECORDS_USUAL, Page, Place, Records, Row, STORY_RECORDS_MAX,
    StoreError, Subject,
};

/// The format that this version writes, in the file's `user_version`. Every change of the tables is a new one.
const FORMAT: i64 = 1;
/// The rows of one statement: SQLite takes at most 32,766 values.
const ROWS_AT_ONCE: usize = 256;
/// Rows that one call of `forget` drops, so that a reader waits for no long transaction.
const FORGOTTEN_AT_ONCE: i64 = 10_000;
/// The columns of a row, in the order in which they are written.
const COLUMNS: &str = "seq, id, call, trace, segment, offset, at, kind, agent, owner, team, upstream, tool, class, \
                       outcome, reason, rule, run, hold";

/// The index, open. It belongs to whoever holds the lock of the store beside it.
pub struct Index {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Index {
    /// Opens the index at a path; one that is missing, damaged or of another format is made anew, empty.
    ///
    /// Errors: [`StoreError::Io`] and [`StoreError::Failed`], when no file can be made there.
    pub async fn open(path: &Path) -> Result<Index, StoreError> {
        match Index::existing(path).await {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(index = %path.display(), %error, "the index of records is made anew")
            }
        }
        throw_away(path)?;
        private(path)?;
        let (writer, readers) = pools(path, Sync::Normal).await.map_err(within(path))?;
        let index = Index { path: path.to_owned(), writer, readers };
        let format = format!("{}; PRAGMA user_version = {FORMAT}", include_str!("0001_index.sql"));
        // Only texts of ours are in it.
        let made = sqlx::raw_sql(AssertSqlSafe(format)).execute(&index.writer).await;
        made.map_err(within(path))?;
        Ok(index)
    }

    /// The index that is there, when it is whole and of this format.
    async fn existing(path: &Path) -> Result<Option<Index>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        private(path)?;
        let (writer, readers) = pools(path, Sync::Normal).await.map_err(within(path))?;
        let index = Index { path: path.to_owned(), writer, readers };
        let format = sqlx::query_scalar::<_, i64>("PRAGMA user_version").fetch_one(&index.writer).await;
        match format {
            Ok(FORMAT) => Ok(Some(index)),
            found => {
                index.shut().await;
                found.map(|_| None).map_err(within(path))
            }
        }
    }

    /// The error of a change. A damaged file is removed, so that the next start makes it anew.
    fn unusable(&self, error: sqlx::Error) -> StoreError {
        match within(&self.path)(error) {
            StoreError::Corrupt { detail, .. } => {
                let removed = throw_away(&self.path);
                let then = match removed {
                    Ok(()) => "it is made anew at the next start".to_owned(),
                    Err(error) => format!("remove it and start again: {error}"),
                };
                StoreError::Failed(format!("{}: the index is damaged: {detail}; {then}", self.path.display()))
            }
            other => other,
        }
    }

    async fn shut(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn rows(&self, mut query: QueryBuilder<Database>) -> Result<Vec<Row>, StoreError> {
        let rows = query.build().fetch_all(&self.readers).await;
        rows.and_then(|rows| rows.iter().map(row).collect()).map_err(within(&self.path))
    }
}

/// Removes the file and what SQLite keeps beside it.
fn throw_away(path: &Path) -> Result<(), StoreError> {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match std::fs::remove_file(&name) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Io { path: name.into(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

impl Records for Index {
    fn place(&self) -> Answer<'_, Option<Place>> {
        Box::pin(async move {
            let found =
                sqlx::query("SELECT segment, bytes, seq, leaf FROM place").fetch_optional(&self.writer);
            let found = found.await.and_then(|found| found.as_ref().map(place).transpose());
            found.map_err(within(&self.path))
        })
    }

    fn add(&self, rows: Vec<Row>, place: Place) -> Answer<'_, ()> {
        Box::pin(async move {
            let run = async {
                let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
                for rows in rows.chunks(ROWS_AT_ONCE) {
                    add(&mut tx, rows).await?;
                }
                sqlx::query(
                    "INSERT OR REPLACE INTO place (one, segment, bytes, seq, leaf) VALUES (1, ?, ?, ?, ?)",
                )
                .bind(signed(place.segment))
                .bind(signed(place.bytes))
                .bind(signed(place.seq))
                .bind(place.leaf.as_slice())
                .execute(&mut *tx)
                .await?;
                Transaction::commit(tx).await
            };
            run.await.map_err(|error| self.unusable(error))
        })
    }

    fn forget(&self, before: u64) -> Answer<'_, u64> {
        let oldest =
            "DELETE FROM record WHERE seq IN (SELECT seq FROM record WHERE seq < ? ORDER BY seq LIMIT ?)";
        Box::pin(async move {
            let done = sqlx::query(oldest).bind(signed(before)).bind(FORGOTTEN_AT_ONCE).execute(&self.writer);
            done.await.map(|done| done.rows_affected()).map_err(within(&self.path))
        })
    }

    fn clear(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let run = async {
                let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
                sqlx::query("DELETE FROM place").execute(&mut *tx).await?;
                sqlx::query("DELETE FROM record").execute(&mut *tx).await?;
                Transaction::commit(tx).await
            };
            run.await.map_err(within(&self.path))
        })
    }

    fn page(&self, filter: Filter) -> Answer<'_, Page> {
        Box::pin(async move {
            let limit = filter.limit.unwrap_or(PAGE_RECORDS_USUAL).clamp(1, PAGE_RECORDS_MAX);
            // One more tells whether there is a next page.
            let mut rows = self.rows(filtered(filter, limit + 1)).await?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            let next = if more { rows.last().map(|row| row.seq) } else { None };
            Ok(Page { rows, next })
        })
    }

    fn record(&self, id: RecordId) -> Answer<'_, Option<Row>> {
        Box::pin(async move {
            let mut query = select("id = ");
            query.push_bind(bytes(id)).push(" ORDER BY seq LIMIT 1");
            Ok(self.rows(query).await?.pop())
        })
    }

    fn related(&self, subject: Subject) -> Answer<'_, Vec<Row>> {
        Box::pin(async move {
            let mut query = match subject {
                Subject::Trace(trace) => {
                    let mut query = select("trace = ");
                    query.push_bind(trace.to_vec());
                    query
                }
                Subject::Call(id) => {
                    let call = self.record(id).await?.map_or(id, |row| row.call);
                    let mut query = select("(call = ");
                    query.push_bind(bytes(call)).push(" OR hold = ").push_bind(call.to_string()).push(")");
                    query
                }
            };
            query.push(" ORDER BY seq LIMIT ").push_bind(STORY_RECORDS_MAX as i64);
            self.rows(query).await
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.shut().await;
            Ok(())
        })
    }
}

fn select(condition: &str) -> QueryBuilder<Database> {
    QueryBuilder::new(format!("SELECT {COLUMNS} FROM record WHERE {condition}"))
}

fn filtered(filter: Filter, limit: usize) -> QueryBuilder<Database> {
    let mut query = select("true");
    let texts = [
        ("agent", filter.agent),
        ("upstream", filter.upstream),
        ("tool", filter.tool),
        ("outcome", filter.outcome),
    ];
    for (column, text) in texts {
        if let Some(text) = text {
            query.push(format!(" AND {column} = ")).push_bind(text);
        }
    }
    if let Some(trace) = filter.trace {
        query.push(" AND trace = ").push_bind(trace.to_vec());
    }
    if let Some(from) = filter.from {
        query.push(" AND at >= ").push_bind(micros(from));
    }
    if let Some(to) = filter.to {
        query.push(" AND at < ").push_bind(micros(to));
    }
    if let Some(cursor) = filter.cursor {
        query.push(" AND seq < ").push_bind(signed(cursor));
    }
    query.push(" ORDER BY seq DESC LIMIT ").push_bind(limit as i64);
    query
}

async fn add(tx: &mut SqliteConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    let mut insert = QueryBuilder::new(format!("INSERT OR IGNORE INTO record ({COLUMNS}) "));
    insert.push_values(rows, |mut to, row| {
        to.push_bind(signed(row.seq))
            .push_bind(bytes(row.id))
            .push_bind(bytes(row.call))
            .push_bind(row.trace.map(|trace| trace.to_vec()))
            .push_bind(signed(row.segment))
            .push_bind(signed(row.offset))
            .push_bind(micros(row.at));
        let texts = [
            &row.kind,
            &row.agent,
            &row.owner,
            &row.team,
            &row.upstream,
            &row.tool,
            &row.class,
            &row.outcome,
            &row.reason,
            &row.rule,
            &row.run,
            &row.hold,
        ];
        for text in texts {
            to.push_bind(text.as_str());
        }
    });
    // Only the usual statement is worth keeping: it is large, and every count of rows has one of its own.
    insert.build().persistent(rows.len() == ROWS_AT_ONCE).execute(tx).await?;
    Ok(())
}

fn row(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let text = |name| row.try_get::<String, _>(name);
    let number = |name| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    let id = |name| row.try_get(name).and_then(fixed).map(|id| RecordId::from_u128(u128::from_be_bytes(id)));
    Ok(Row {
        id: id("id")?,
        seq: number("seq")?,
        segment: number("segment")?,
        offset: number("offset")?,
        at: moment(row.try_get("at")?),
        kind: text("kind")?,
        call: id("call")?,
        agent: text("agent")?,
        owner: text("owner")?,
        team: text("team")?,
        upstream: text("upstream")?,
        tool: text("tool")?,
        class: text("class")?,
        outcome: text("outcome")?,
        reason: text("reason")?,
        rule: text("rule")?,
        trace: row.try_get::<Option<Vec<u8>>, _>("trace")?.map(fixed).transpose()?,
        run: text("run")?,
        hold: text("hold")?,
    })
}

fn bytes(id: RecordId) -> Vec<u8> {
    id.as_u128().to_be_bytes().to_vec()
}

fn fixed(bytes: Vec<u8>) -> Result<[u8; 16], sqlx::Error> {
    bytes.try_into().map_err(|_| sqlx::Error::Decode("an id is not 16 bytes".into()))
}
