//! Suspensions, first sights and the snapshot of labels, in SQL.

use std::path::Path;
use std::time::SystemTime;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection, Transaction};

use super::{Sqlite, micros, moment, signed, within};
use crate::call::AgentId;
use crate::store::{
    Answer, Changed, DEFINITION_BYTES_MAX, Definition, FROZEN_MAX, Frozen, Labelled, Order, PAGE_RECORDS_MAX,
    Place, REASON_BYTES_MAX, SIGHTS_BYTES_MAX, SIGHTS_MAX, SUSPENSIONS_MAX, Seen, Sight, Sighted, Snapshot,
    Store, StoreError, Suspension, Who,
};

/// The longest name or digest that is kept, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Rows that one statement writes: SQLite takes at most 32,766 values.
const ROWS_AT_ONCE: usize = 500;

impl Store for Sqlite {
    fn suspend(&self, order: Order) -> Answer<'_, Changed> {
        Box::pin(async move {
            bounded("the reason", &order.reason, REASON_BYTES_MAX)?;
            self.write(async |tx| suspend(tx, &order).await).await
        })
    }

    fn resume(&self, order: Order) -> Answer<'_, Changed> {
        Box::pin(async move {
            bounded("the reason", &order.reason, REASON_BYTES_MAX)?;
            self.write(async |tx| resume(tx, &order).await).await
        })
    }

    fn suspensions(&self) -> Answer<'_, Vec<Suspension>> {
        let rows = sqlx::query("SELECT * FROM suspension WHERE resumed_at IS NULL ORDER BY agent");
        Box::pin(async move {
            let rows = rows.fetch_all(&self.readers).await;
            let rows = rows.and_then(|rows| rows.iter().map(suspension).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn history(&self, agent: AgentId) -> Answer<'_, Vec<Suspension>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM suspension WHERE agent = ? ORDER BY id DESC LIMIT ?")
                .bind(agent.as_str())
                .bind(PAGE_RECORDS_MAX as i64)
                .fetch_all(&self.readers)
                .await;
            let rows = rows.and_then(|rows| rows.iter().map(suspension).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn sight(&self, upstream: String, shown: Vec<Definition>, at: SystemTime) -> Answer<'_, Vec<Seen>> {
        Box::pin(async move {
            for Definition { tool, digest, json } in &shown {
                bounded("the name of a tool", tool, NAME_BYTES_MAX)?;
                bounded("the digest of a definition", digest, NAME_BYTES_MAX)?;
                bounded("the definition of a tool", json, DEFINITION_BYTES_MAX)?;
            }
            self.write(async |tx| sight(tx, &upstream, &shown, micros(at)).await).await
        })
    }

    fn sights(&self, upstream: String) -> Answer<'_, Vec<Sight>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT upstream, tool, digest, first_seen, last_seen, accepted_by, accepted_at FROM sight
                 WHERE upstream = ? ORDER BY tool, first_seen, digest",
            )
            .bind(upstream)
            .fetch_all(&self.readers)
            .await;
            let rows = rows.and_then(|rows| rows.iter().map(seen).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn held(&self, upstream: String) -> Answer<'_, Vec<Sight>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT upstream, tool, digest, first_seen, last_seen, accepted_by, accepted_at FROM (
                     SELECT upstream, tool, digest, first_seen, last_seen, accepted_by, accepted_at, row_number() OVER (
                         PARTITION BY tool ORDER BY accepted_at IS NULL, accepted_at DESC, first_seen, digest
                     ) AS place FROM sight WHERE upstream = ?
                 ) WHERE place = 1 ORDER BY tool",
            )
            .bind(upstream)
            .fetch_all(&self.readers)
            .await;
            let rows = rows.and_then(|rows| rows.iter().map(seen).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn definition(&self, seen: Sighted) -> Answer<'_, Option<String>> {
        Box::pin(async move {
            sqlx::query_scalar("SELECT definition FROM sight WHERE upstream = ? AND tool = ? AND digest = ?")
                .bind(seen.upstream)
                .bind(seen.tool)
                .bind(seen.digest)
                .fetch_optional(&self.readers)
                .await
                .map_err(within(&self.path))
        })
    }

    fn accept(&self, seen: Sighted, by: Who, at: SystemTime) -> Answer<'_, Changed> {
        let accept = "UPDATE sight SET accepted_by = ?, accepted_at = ?
                      WHERE upstream = ? AND tool = ? AND digest = ? AND accepted_at IS NULL";
        Box::pin(async move {
            let done = sqlx::query(accept)
                .bind(by.as_str())
                .bind(micros(at))
                .bind(seen.upstream)
                .bind(seen.tool)
                .bind(seen.digest)
                .execute(&self.writer)
                .await;
            done.map(|done| changed(done.rows_affected())).map_err(within(&self.path))
        })
    }

    fn keep_labels(&self, snapshot: Snapshot) -> Answer<'_, ()> {
        Box::pin(async move { self.write(async |tx| keep(tx, &snapshot).await).await })
    }

    fn labels(&self) -> Answer<'_, Option<Snapshot>> {
        Box::pin(async move { self.write(async |tx| kept(tx).await).await })
    }

    fn freeze(&self, frozen: Frozen) -> Answer<'_, Changed> {
        Box::pin(async move { self.write(async |tx| freeze(tx, &frozen).await).await })
    }

    fn unfreeze(&self, agent: AgentId, run: String) -> Answer<'_, Changed> {
        Box::pin(async move {
            let done = sqlx::query("DELETE FROM frozen WHERE agent = ? AND run = ?")
                .bind(agent.as_str())
                .bind(run)
                .execute(&self.writer)
                .await;
            done.map(|done| changed(done.rows_affected())).map_err(within(&self.path))
        })
    }

    fn frozen(&self) -> Answer<'_, Vec<Frozen>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT agent, run, at, why FROM frozen ORDER BY agent, run")
                .fetch_all(&self.readers)
                .await;
            let frozen = |row: &SqliteRow| {
                Ok(Frozen {
                    agent: AgentId::from_normalised(row.try_get("agent")?),
                    run: row.try_get("run")?,
                    at: moment(row.try_get("at")?),
                    why: row.try_get("why")?,
                })
            };
            let rows = rows.and_then(|rows| rows.iter().map(frozen).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.readers.close().await;
            self.writer.close().await;
            self.unlock();
            Ok(())
        })
    }
}

impl Sqlite {
    /// Reads what is so at one moment, without waiting for whoever writes.
    pub(super) async fn read<T>(
        &self,
        statements: impl AsyncFnOnce(&mut SqliteConnection) -> Within<T>,
    ) -> Result<T, StoreError> {
        let run = async {
            let mut tx = self.readers.begin().await?;
            let done = statements(&mut tx).await?;
            Transaction::commit(tx).await?;
            Ok(done)
        };
        run.await.map_err(halted(&self.path))
    }

    /// Runs statements as one transaction. It takes the writer's lock at its begin, so that it never finds out halfway
    /// that another writer was faster.
    pub(super) async fn write<T>(
        &self,
        statements: impl AsyncFnOnce(&mut SqliteConnection) -> Within<T>,
    ) -> Result<T, StoreError> {
        let run = async {
            let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let done = statements(&mut tx).await?;
            Transaction::commit(tx).await?;
            Ok(done)
        };
        run.await.map_err(halted(&self.path))
    }
}

/// Why a transaction was undone.
pub(super) enum Halt {
    Failed(sqlx::Error),
    Refused(StoreError),
}

/// The error of a transaction on a database.
pub(super) fn halted(path: &Path) -> impl FnOnce(Halt) -> StoreError {
    move |halt| match halt {
        Halt::Failed(error) => within(path)(error),
        Halt::Refused(why) => why,
    }
}

impl From<sqlx::Error> for Halt {
    fn from(error: sqlx::Error) -> Halt {
        Halt::Failed(error)
    }
}

/// What a transaction gives.
pub(super) type Within<T> = Result<T, Halt>;
/// What a row gives.
pub(super) type Read<T> = Result<T, sqlx::Error>;

pub(super) fn bounded(what: &'static str, text: &str, bytes_max: usize) -> Result<(), StoreError> {
    if text.len() > bytes_max {
        return Err(StoreError::TooLarge { what, bytes_max });
    }
    Ok(())
}

pub(super) fn changed(rows: u64) -> Changed {
    if rows == 0 { Changed::Not } else { Changed::Now }
}

async fn suspend(tx: &mut SqliteConnection, order: &Order) -> Within<Changed> {
    let others =
        sqlx::query_scalar("SELECT count(*) FROM suspension WHERE resumed_at IS NULL AND agent <> ?");
    let others: i64 = others.bind(order.agent.as_str()).fetch_one(&mut *tx).await?;
    if others >= SUSPENSIONS_MAX as i64 {
        return Err(Halt::Refused(StoreError::Full("suspensions")));
    }
    let done = sqlx::query(
        "INSERT INTO suspension (agent, by, reason, at) VALUES (?, ?, ?, ?)
         ON CONFLICT (agent) WHERE resumed_at IS NULL DO NOTHING",
    )
    .bind(order.agent.as_str())
    .bind(order.by.as_str())
    .bind(&*order.reason)
    .bind(micros(order.at))
    .execute(&mut *tx)
    .await?;
    Ok(changed(done.rows_affected()))
}

async fn resume(tx: &mut SqliteConnection, order: &Order) -> Within<Changed> {
    let done = sqlx::query(
        "UPDATE suspension SET resumed_by = ?, resumed_reason = ?, resumed_at = ?
         WHERE agent = ? AND resumed_at IS NULL",
    )
    .bind(order.by.as_str())
    .bind(&*order.reason)
    .bind(micros(order.at))
    .bind(order.agent.as_str())
    .execute(&mut *tx)
    .await?;
    // The history is bounded; the audit has all of it.
    sqlx::query(
        "DELETE FROM suspension WHERE agent = ?1 AND resumed_at IS NOT NULL AND id <=
         (SELECT id FROM suspension WHERE agent = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(order.agent.as_str())
    .bind(PAGE_RECORDS_MAX as i64)
    .execute(&mut *tx)
    .await?;
    Ok(changed(done.rows_affected()))
}

async fn freeze(tx: &mut SqliteConnection, frozen: &Frozen) -> Within<Changed> {
    let held: i64 = sqlx::query_scalar("SELECT count(*) FROM frozen").fetch_one(&mut *tx).await?;
    if held >= FROZEN_MAX as i64 {
        return Err(Halt::Refused(StoreError::Full("frozen runs")));
    }
    let done = sqlx::query(
        "INSERT INTO frozen (agent, run, at, why) VALUES (?, ?, ?, ?) ON CONFLICT (agent, run) DO NOTHING",
    )
    .bind(frozen.agent.as_str())
    .bind(&*frozen.run)
    .bind(micros(frozen.at))
    .bind(&*frozen.why)
    .execute(&mut *tx)
    .await?;
    Ok(changed(done.rows_affected()))
}

fn suspension(row: &SqliteRow) -> Read<Suspension> {
    let agent = AgentId::from_normalised(row.try_get("agent")?);
    let order = |by: &str, reason: String, at| Order {
        agent: agent.clone(),
        by: Who::parse(by),
        reason,
        at: moment(at),
    };
    let suspended = order(row.try_get("by")?, row.try_get("reason")?, row.try_get("at")?);
    let resumed = match row.try_get::<Option<i64>, _>("resumed_at")? {
        Some(at) => Some(order(row.try_get("resumed_by")?, row.try_get("resumed_reason")?, at)),
        None => None,
    };
    Ok(Suspension { suspended, resumed })
}

async fn sight(
    tx: &mut SqliteConnection,
    upstream: &str,
    shown: &[Definition],
    at: i64,
) -> Within<Vec<Seen>> {
    let room = sqlx::query_as("SELECT count(*), coalesce(sum(bytes), 0) FROM sight WHERE upstream = ?");
    let (mut count, mut bytes): (i64, i64) = room.bind(upstream).fetch_one(&mut *tx).await?;
    let mut all = Vec::with_capacity(shown.len());
    for Definition { tool, digest, json } in shown {
        let again = sqlx::query(
            "UPDATE sight SET last_seen = max(last_seen, ?) WHERE upstream = ? AND tool = ? AND digest = ?",
        );
        let again = again.bind(at).bind(upstream).bind(&**tool).bind(&**digest).execute(&mut *tx).await?;
        if again.rows_affected() > 0 {
            all.push(Seen::Again);
            continue;
        }
        (count, bytes) = (count + 1, bytes + json.len() as i64);
        if count > SIGHTS_MAX as i64 || bytes > SIGHTS_BYTES_MAX as i64 {
            return Err(Halt::Refused(StoreError::Full("definitions of this upstream")));
        }
        sqlx::query(
            "INSERT INTO sight (upstream, tool, digest, first_seen, last_seen, bytes, definition)
             VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6)",
        )
        .bind(upstream)
        .bind(&**tool)
        .bind(&**digest)
        .bind(at)
        .bind(json.len() as i64)
        .bind(&**json)
        .execute(&mut *tx)
        .await?;
        all.push(Seen::First);
    }
    Ok(all)
}

fn seen(row: &SqliteRow) -> Read<Sight> {
    let accepted = match row.try_get::<Option<i64>, _>("accepted_at")? {
        Some(at) => Some((Who::parse(row.try_get("accepted_by")?), moment(at))),
        None => None,
    };
    Ok(Sight {
        sighted: Sighted {
            upstream: row.try_get("upstream")?,
            tool: row.try_get("tool")?,
            digest: row.try_get("digest")?,
        },
        first: moment(row.try_get("first_seen")?),
        last: moment(row.try_get("last_seen")?),
        accepted,
    })
}

async fn keep(tx: &mut SqliteConnection, snapshot: &Snapshot) -> Within<()> {
    sqlx::query("DELETE FROM label").execute(&mut *tx).await?;
    for labels in snapshot.labels.chunks(ROWS_AT_ONCE) {
        let mut insert = QueryBuilder::new("INSERT INTO label (agent, run, label, at) ");
        insert.push_values(labels, |mut row, labelled| {
            row.push_bind(labelled.agent.as_str())
                .push_bind(&*labelled.run)
                .push_bind(&*labelled.label)
                .push_bind(micros(labelled.at));
        });
        // The same label twice is the later one.
        insert.push(" ON CONFLICT (agent, run, label) DO UPDATE SET at = max(at, excluded.at)");
        insert.build().persistent(false).execute(&mut *tx).await?;
    }
    let Place { segment, bytes, seq, leaf } = &snapshot.place;
    sqlx::query("INSERT OR REPLACE INTO label_place (one, segment, bytes, seq, leaf) VALUES (1, ?, ?, ?, ?)")
        .bind(signed(*segment))
        .bind(signed(*bytes))
        .bind(signed(*seq))
        .bind(leaf.as_slice())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

async fn kept(tx: &mut SqliteConnection) -> Within<Option<Snapshot>> {
    let place = sqlx::query("SELECT segment, bytes, seq, leaf FROM label_place").fetch_optional(&mut *tx);
    let Some(place) = place.await?.as_ref().map(self::place).transpose()? else { return Ok(None) };
    let rows = sqlx::query("SELECT agent, run, label, at FROM label").fetch_all(&mut *tx).await?;
    let labels = rows.iter().map(|row| {
        Ok(Labelled {
            agent: AgentId::from_normalised(row.try_get("agent")?),
            run: row.try_get("run")?,
            label: row.try_get("label")?,
            at: moment(row.try_get("at")?),
        })
    });
    Ok(Some(Snapshot { place, labels: labels.collect::<Read<_>>()? }))
}

/// A place in the audit, from a row that has its four columns.
pub(super) fn place(row: &SqliteRow) -> Read<Place> {
    let leaf: Vec<u8> = row.try_get("leaf")?;
    let leaf = leaf.try_into().map_err(|_| sqlx::Error::Decode("a leaf is not 32 bytes".into()))?;
    let number = |name| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    Ok(Place { segment: number("segment")?, bytes: number("bytes")?, seq: number("seq")?, leaf })
}
