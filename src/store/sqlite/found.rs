//! Reading holds, without the sealed bytes that a row has besides: those are read where they are wanted.

use std::collections::HashMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::rows::{hold, id, vote};
use super::state::{Halt, Read, Within};
use crate::call::RecordId;
use crate::store::StoreError;
use crate::store::holds::{HOLDS_LISTED_MAX, Hold, Vote, Wanted};

/// The columns that a hold is made of.
const COLUMNS: &str = "id, state, digest, call, agent, owner, team, task, on_behalf_of, upstream, tool, class, consequence, \
    rule, reason, run, revision, idempotent, quorum, approvers, opened, expires, escalated, changed, record, detail, \
    standing, use";

/// A hold that must be there.
pub(super) async fn known(tx: &mut SqliteConnection, id: RecordId) -> Within<Hold> {
    let gone = || Halt::Refused(StoreError::Failed(format!("hold {id} is gone")));
    find(tx, id).await?.ok_or_else(gone)
}

pub(super) async fn find(tx: &mut SqliteConnection, id: RecordId) -> Within<Option<Hold>> {
    let row = sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM hold WHERE id = ?")));
    let Some(row) = row.bind(id.to_string()).fetch_optional(&mut *tx).await? else { return Ok(None) };
    let votes = sqlx::query("SELECT * FROM vote WHERE hold = ? ORDER BY place").bind(id.to_string());
    let votes = votes.fetch_all(&mut *tx).await?.iter().map(vote).collect::<Read<Vec<_>>>()?;
    Ok(Some(hold(&row, votes)?))
}

/// These holds, by when they were opened.
pub(super) async fn all(tx: &mut SqliteConnection, ids: &[String]) -> Within<Vec<Hold>> {
    let such = "id IN (SELECT value FROM json_each(?1)) ORDER BY opened, id";
    let rows = sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM hold WHERE {such}")));
    let rows = rows.bind(serde_json::Value::from(ids).to_string()).fetch_all(&mut *tx).await?;
    with_votes(tx, &rows).await
}

pub(super) async fn list(tx: &mut SqliteConnection, wanted: &Wanted) -> Within<Vec<Hold>> {
    let states: Vec<String> = wanted.states.iter().map(|state| format!("'{}'", state.as_str())).collect();
    let such = if states.is_empty() { "1".to_owned() } else { format!("state IN ({})", states.join(", ")) };
    let open = !states.is_empty() && wanted.states.iter().all(|state| !state.is_end());
    let order = if open { "opened, id" } else { "opened DESC, id DESC" };
    // The words are this program's own.
    let rows = sqlx::query(AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM hold WHERE {such} AND (?1 IS NULL OR agent = ?1) ORDER BY {order} LIMIT ?2"
    )));
    let agent = wanted.agent.as_ref().map(|agent| agent.as_str().to_owned());
    let rows = rows.bind(agent).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
    with_votes(tx, &rows).await
}

/// The holds of rows, in their order.
async fn with_votes(tx: &mut SqliteConnection, rows: &[SqliteRow]) -> Within<Vec<Hold>> {
    let ids = rows.iter().map(|row| row.try_get("id")).collect::<Read<Vec<String>>>()?;
    let votes = "SELECT * FROM vote WHERE hold IN (SELECT value FROM json_each(?)) ORDER BY hold, place";
    let votes = sqlx::query(votes).bind(serde_json::Value::from(ids).to_string()).fetch_all(&mut *tx).await?;
    let mut of: HashMap<RecordId, Vec<Vote>> = HashMap::new();
    for row in &votes {
        of.entry(id(row, "hold")?).or_default().push(vote(row)?);
    }
    let with = |row| Ok(hold(row, of.remove(&id(row, "id")?).unwrap_or_default())?);
    rows.iter().map(with).collect()
}
