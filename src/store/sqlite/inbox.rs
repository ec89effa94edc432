//! What waits, counted in SQL: one pass over what is pending, and no row of it is read whole.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::rows::list_of;
use super::state::Read;
use super::{Sqlite, within};
use crate::call::AgentId;
use crate::store::Answer;
use crate::store::inbox::{Inbox, WAITING_MAX, Waiting};

impl Inbox for Sqlite {
    fn waiting(&self) -> Answer<'_, Vec<Waiting>> {
        let waiting = "SELECT agent, consequence, approvers, on_behalf_of, count(*) AS calls FROM hold
             WHERE state = 'pending' AND expires > CAST(unixepoch('subsec') * 1000000 AS INTEGER)
             GROUP BY agent, consequence, approvers, on_behalf_of ORDER BY calls DESC LIMIT ?";
        Box::pin(async move {
            let rows = sqlx::query(waiting).bind(WAITING_MAX as i64).fetch_all(&self.readers).await;
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
