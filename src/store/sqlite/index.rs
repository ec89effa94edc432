//! The index of records in a SQLite file of its own. It holds nothing that the audit does not, so a file that cannot be
//! used, or is of another format, is thrown away.

use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, QueryBuilder, Row as _, Sqlite as Database, SqliteConnection, Transaction};

use super::block;
use super::state::place;
use super::{Sync, micros, pools, private, signed, within};
use crate::call::RecordId;
use crate::store::{
    Answer, Filter, PAGE_RECORDS_MAX, PAGE_RECORDS_USUAL, Page, Place, Records, Row, STORY_RECORDS_MAX,
    StoreError, Subject,
};

/// The format that this version writes, in the file's `user_version`. Every change of the tables, of how a block is
/// written, or of what a row says of a record, is a new one.
const FORMAT: i64 = 4;
/// Records of one block: who wants one of them reads all.
const BLOCK_RECORDS_MAX: usize = 512;
/// A block that has fewer is taken up into what follows it, so that a quiet gateway does not leave one for each call.
const BLOCK_RECORDS_MIN: i64 = 64;
/// Blocks that are read together.
const BLOCKS_AT_ONCE: usize = 4;
/// Blocks that one page looks through for what a filter lets through; the next page goes on behind them.
const PAGE_BLOCKS_MAX: usize = 2000;
/// Blocks that one call of `forget` drops, so that a reader waits for no long transaction.
const FORGOTTEN_AT_ONCE: i64 = 16;

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
        let format = format!("{}; PRAGMA user_version = {FORMAT}", include_str!("index.sql"));
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
        let damaged = matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. });
        match within(&self.path)(error) {
            StoreError::Corrupt { detail, .. } => self.thrown_away(&detail),
            StoreError::Failed(detail) if damaged => self.thrown_away(&detail),
            other => other,
        }
    }

    fn thrown_away(&self, detail: &str) -> StoreError {
        let then = match throw_away(&self.path) {
            Ok(()) => "it is made anew at the next start".to_owned(),
            Err(error) => format!("remove it and start again: {error}"),
        };
        StoreError::Failed(format!("{}: the index is damaged: {detail}; {then}", self.path.display()))
    }

    async fn shut(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// The blocks that a query finds, each with its number.
    async fn blocks(&self, mut query: QueryBuilder<Database>) -> Result<Vec<(u64, Vec<Row>)>, StoreError> {
        let found = query.build().fetch_all(&self.readers).await;
        let found = found.and_then(|rows| {
            let block = |row: &SqliteRow| Ok((row.try_get::<i64, _>("first")?.unsigned_abs(), read(row)?));
            rows.iter().map(block).collect()
        });
        found.map_err(within(&self.path))
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
                add(&mut tx, rows).await?;
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
        Box::pin(async move {
            let run = async {
                let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
                let forgotten = forget(&mut tx, before).await?;
                Transaction::commit(tx).await.map(|()| forgotten)
            };
            run.await.map_err(|error| self.unusable(error))
        })
    }

    fn clear(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let run = async {
                let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
                sqlx::query("DELETE FROM place").execute(&mut *tx).await?;
                sqlx::query("DELETE FROM mark").execute(&mut *tx).await?;
                sqlx::query("DELETE FROM block").execute(&mut *tx).await?;
                Transaction::commit(tx).await
            };
            run.await.map_err(within(&self.path))
        })
    }

    fn page(&self, filter: Filter) -> Answer<'_, Page> {
        Box::pin(async move {
            let limit = filter.limit.unwrap_or(PAGE_RECORDS_USUAL).clamp(1, PAGE_RECORDS_MAX);
            let marks = block::wanted(&filter);
            let mut page = Page::default();
            let mut before = filter.cursor.unwrap_or(u64::MAX);
            for _ in 0..PAGE_BLOCKS_MAX / BLOCKS_AT_ONCE {
                let blocks = self.blocks(newest(&marks, &filter, before)).await?;
                let last = blocks.len() < BLOCKS_AT_ONCE;
                for (first, rows) in blocks {
                    let passing = rows.into_iter().rev().filter(|row| block::passes(row, &filter));
                    // One more tells whether there is a next page.
                    page.rows.extend(passing.take(limit + 1 - page.rows.len().min(limit + 1)));
                    before = first;
                }
                if page.rows.len() > limit {
                    page.rows.truncate(limit);
                    page.next = page.rows.last().map(|row| row.seq);
                    return Ok(page);
                }
                if last {
                    return Ok(page);
                }
            }
            page.next = Some(before);
            Ok(page)
        })
    }

    fn record(&self, id: RecordId) -> Answer<'_, Option<Row>> {
        Box::pin(async move {
            let mark = block::of_record(id);
            let is = |row: &Row| row.id == id;
            Ok(self.oldest(&[&mark, &mark], is, 1).await?.pop())
        })
    }

    fn related(&self, subject: Subject) -> Answer<'_, Vec<Row>> {
        Box::pin(async move {
            let subject = match subject {
                Subject::Trace(trace) => Subject::Trace(trace),
                Subject::Call(id) => Subject::Call(self.record(id).await?.map_or(id, |row| row.call)),
            };
            let [one, other] = block::related(subject);
            self.oldest(&[&one, &other], |row| block::belongs(row, subject), STORY_RECORDS_MAX).await
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.shut().await;
            Ok(())
        })
    }
}

impl Index {
    /// The first rows of their kind in the blocks that have one of two marks.
    async fn oldest(
        &self,
        marks: &[&str; 2],
        is: impl Fn(&Row) -> bool,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (mut found, mut after) = (Vec::new(), 0);
        // Each block has a row of the kind, but for one that was found by what belongs to it.
        for _ in 0..=STORY_RECORDS_MAX / BLOCKS_AT_ONCE {
            let [one, other] = marks;
            let mut query = QueryBuilder::new("SELECT first, rows FROM block WHERE first IN (");
            query.push("SELECT DISTINCT block FROM mark WHERE mark IN (").push_bind(*one);
            query.push(", ").push_bind(*other).push(") AND block > ").push_bind(signed(after));
            query.push(" ORDER BY block LIMIT ").push_bind(BLOCKS_AT_ONCE as i64).push(") ORDER BY first");
            let blocks = self.blocks(query).await?;
            let last = blocks.len() < BLOCKS_AT_ONCE;
            for (first, rows) in blocks {
                after = first;
                found.extend(rows.into_iter().filter(&is).take(limit - found.len().min(limit)));
            }
            if last || found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }
}

/// Asks for the newest blocks before a record that may have what a filter lets through, the newest first.
fn newest(marks: &[String], filter: &Filter, before: u64) -> QueryBuilder<Database> {
    let mut query = QueryBuilder::new("SELECT first, rows FROM block WHERE first IN (");
    let within = |query: &mut QueryBuilder<Database>| {
        if let Some(from) = filter.from {
            query.push(" AND until >= ").push_bind(micros(from));
        }
        if let Some(to) = filter.to {
            query.push(" AND since < ").push_bind(micros(to));
        }
    };
    match marks.split_first() {
        None => {
            query
                .push("SELECT first FROM block INDEXED BY block_time WHERE first < ")
                .push_bind(signed(before));
            within(&mut query);
            query.push(" ORDER BY first DESC");
        }
        Some((rarest, others)) => {
            query.push("SELECT block FROM mark AS one WHERE mark = ").push_bind(rarest.clone());
            query.push(" AND block < ").push_bind(signed(before));
            for mark in others {
                query.push(" AND EXISTS (SELECT 1 FROM mark WHERE block = one.block AND mark = ");
                query.push_bind(mark.clone()).push(")");
            }
            if filter.from.is_some() || filter.to.is_some() {
                query.push(" AND EXISTS (SELECT 1 FROM block INDEXED BY block_time WHERE first = one.block");
                within(&mut query);
                query.push(")");
            }
            query.push(" ORDER BY block DESC");
        }
    }
    query.push(" LIMIT ").push_bind(BLOCKS_AT_ONCE as i64).push(") ORDER BY first DESC");
    query
}

/// Adds rows behind those that are there.
async fn add(tx: &mut SqliteConnection, mut rows: Vec<Row>) -> Result<(), sqlx::Error> {
    let last = sqlx::query(
        "SELECT last, CASE WHEN records < ? THEN rows END AS rows FROM block ORDER BY first DESC LIMIT 1",
    );
    if let Some(last) = last.bind(BLOCK_RECORDS_MIN).fetch_optional(&mut *tx).await? {
        let end: i64 = last.try_get("last")?;
        rows.retain(|row| signed(row.seq) > end);
        if !rows.is_empty() && last.try_get::<Option<&[u8]>, _>("rows")?.is_some() {
            rows = read(&last)?.into_iter().chain(rows).collect();
        }
    }
    for rows in rows.chunk_by(|one, next| one.segment == next.segment) {
        for rows in rows.chunks(BLOCK_RECORDS_MAX) {
            put(tx, rows).await?;
        }
    }
    Ok(())
}

/// Writes a block, in the place of one that has the same first record.
async fn put(tx: &mut SqliteConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let times = || rows.iter().map(|row| micros(row.at));
    sqlx::query(
        "INSERT OR REPLACE INTO block (first, last, records, segment, since, until, rows)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(signed(first.seq))
    .bind(signed(last.seq))
    .bind(rows.len() as i64)
    .bind(signed(first.segment))
    .bind(times().min())
    .bind(times().max())
    .bind(block::write(rows))
    .execute(&mut *tx)
    .await?;
    // All of them by one statement: each statement costs as much as many marks.
    sqlx::query("INSERT OR IGNORE INTO mark (mark, block) SELECT value, ?2 FROM json_each(?1)")
        .bind(json(rows))
        .bind(signed(first.seq))
        .execute(tx)
        .await?;
    Ok(())
}

/// Drops some of the blocks before a record, or else what a block has of records before it; says how many records.
async fn forget(tx: &mut SqliteConnection, before: u64) -> Result<u64, sqlx::Error> {
    let oldest = sqlx::query("SELECT first, rows FROM block WHERE first < ? ORDER BY first LIMIT ?");
    let blocks = oldest.bind(signed(before)).bind(FORGOTTEN_AT_ONCE).fetch_all(&mut *tx).await?;
    let mut forgotten = 0;
    for block in blocks {
        let (first, rows): (i64, _) = (block.try_get("first")?, read(&block)?);
        sqlx::query("DELETE FROM mark WHERE block = ?2 AND mark IN (SELECT value FROM json_each(?1))")
            .bind(json(&rows))
            .bind(first)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM block WHERE first = ?").bind(first).execute(&mut *tx).await?;
        let kept = rows.iter().position(|row| row.seq >= before).unwrap_or(rows.len());
        forgotten += kept as u64;
        put(tx, rows.get(kept..).unwrap_or_default()).await?;
    }
    Ok(forgotten)
}

fn json(rows: &[Row]) -> String {
    serde_json::Value::from(block::marks(rows)).to_string()
}

fn read(row: &SqliteRow) -> Result<Vec<Row>, sqlx::Error> {
    block::read(row.try_get("rows")?).map_err(|damaged| sqlx::Error::Decode(damaged.into()))
}
