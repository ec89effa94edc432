//! What waits, counted in SQL: one pass over what is pending, and no row of it is read whole.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::rows::list_of;
use super::state::Read;
use super::{Sqlite, within};
use crate::call::AgentId;
use crate::store::Answer;
use crate::store::inbox::{Inbox, WAITING_MAX, Waiting};

const COUNTED: &str = "SELECT agent, consequence, approvers, on_behalf_of, count(*) AS calls FROM hold
     WHERE state = 'pending' AND expires > CAST(unixepoch('subsec') * 1000000 AS INTEGER)
     GROUP BY agent, consequence, approvers, on_behalf_of ORDER BY calls DESC LIMIT ?";

impl Inbox for Sqlite {
    fn waiting(&self) -> Answer<'_, Vec<Waiting>> {
        Box::pin(async move {
            let rows = sqlx::query(COUNTED).bind(WAITING_MAX as i64).fetch_all(&self.readers).await;
            let rows = rows.and_then(|rows| rows.iter().map(group).collect());
            rows.map_err(within(&self.path))
        })
    }
}

fn group(row: &SqliteRow) -> Read<Waiting> {
    Ok(Waiting {
        agent: AgentId::from_normalised(row.try_get("agent")?),
        consequence: u8::try_from(row.try_get::<i64, _>("consequence")?).unwrap_or(u8::MAX),
        approvers: list_of(row, "approvers")?,
        on_behalf_of: row.try_get("on_behalf_of")?,
        calls: row.try_get::<i64, _>("calls")?.unsigned_abs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::RecordId;

    #[tokio::test]
    async fn what_waits_is_counted_without_a_look_at_any_hold() {
        let dir = std::env::temp_dir().join(format!("hp-counted-{}", RecordId::new()));
        let store = Sqlite::open(&dir.join("state.db")).await.unwrap();
        let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {COUNTED}"));
        let plan = sqlx::query(plan).bind(1).fetch_all(&store.writer).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.get("detail")).collect();
        assert!(steps.iter().any(|step| step.contains("COVERING INDEX hold_waiting")), "{steps:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
