//! Endorsements, in SQL.

use std::time::SystemTime;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::rows::id;
use super::state::{Read, bounded, changed};
use super::{Sqlite, micros, moment, within};
use crate::call::{AgentId, Confidentiality, RecordId};
use crate::store::holds::{Endorsement, Grants, HOLDS_LISTED_MAX, Revoked};
use crate::store::{Answer, Changed, REASON_BYTES_MAX};

impl Grants for Sqlite {
    fn endorse(&self, one: Endorsement) -> Answer<'_, ()> {
        Box::pin(async move {
            bounded("the reason", &one.reason, REASON_BYTES_MAX)?;
            sqlx::query(
                "INSERT INTO endorsement (id, agent, upstream, tool, destination, consequence_max, hold, by, reason, at,
                   until, sink, confidentiality, rule) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(one.id.to_string())
            .bind(one.agent.as_str())
            .bind(&*one.upstream)
            .bind(&*one.tool)
            .bind(&*one.destination)
            .bind(i64::from(one.consequence_max))
            .bind(one.hold.map(|hold| hold.to_string()))
            .bind(&*one.by)
            .bind(&*one.reason)
            .bind(micros(one.at))
            .bind(micros(one.until))
            .bind(&*one.sink)
            .bind(one.confidentiality.as_str())
            .bind(&*one.rule)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(within(&self.path))
        })
    }

    fn endorsements(&self) -> Answer<'_, Vec<Endorsement>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT * FROM endorsement ORDER BY revoked_at IS NULL AND until > ? DESC, at DESC, id DESC LIMIT ?",
            );
            let rows = rows
                .bind(micros(SystemTime::now()))
                .bind(HOLDS_LISTED_MAX as i64)
                .fetch_all(&self.readers)
                .await;
            let rows = rows.and_then(|rows| rows.iter().map(endorsement).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn revoke_endorsement(&self, id: RecordId, by: String, reason: String) -> Answer<'_, Changed> {
        Box::pin(async move {
            bounded("the reason", &reason, REASON_BYTES_MAX)?;
            let done = sqlx::query(
                "UPDATE endorsement SET revoked_by = ?, revoked_reason = ?, revoked_at = ?
                 WHERE id = ? AND revoked_at IS NULL",
            );
            let done = done.bind(by).bind(reason).bind(micros(SystemTime::now())).bind(id.to_string());
            let done = done.execute(&self.writer).await.map_err(within(&self.path))?;
            Ok(changed(done.rows_affected()))
        })
    }
}

fn endorsement(row: &SqliteRow) -> Read<Endorsement> {
    let hold: Option<String> = row.try_get("hold")?;
    Ok(Endorsement {
        id: id(row, "id")?,
        agent: AgentId::from_normalised(row.try_get("agent")?),
        upstream: row.try_get("upstream")?,
        tool: row.try_get("tool")?,
        sink: row.try_get("sink")?,
        destination: row.try_get("destination")?,
        // What cannot be read is for nothing that is confidential.
        confidentiality: Confidentiality::parse(row.try_get("confidentiality")?)
            .unwrap_or(Confidentiality::Public),
        rule: row.try_get("rule")?,
        consequence_max: u8::try_from(row.try_get::<i64, _>("consequence_max")?).unwrap_or(0),
        hold: hold.as_deref().and_then(RecordId::parse),
        by: row.try_get("by")?,
        reason: row.try_get("reason")?,
        at: moment(row.try_get("at")?),
        until: moment(row.try_get("until")?),
        revoked: revoked(row, ["revoked_by", "revoked_reason", "revoked_at"])?,
    })
}

pub(super) fn revoked(row: &SqliteRow, [by, reason, at]: [&str; 3]) -> Read<Option<Revoked>> {
    let Some(at) = row.try_get::<Option<i64>, _>(at)? else { return Ok(None) };
    Ok(Some(Revoked { by: row.try_get(by)?, reason: row.try_get(reason)?, at: moment(at) }))
}
