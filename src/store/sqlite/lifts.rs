//! Emergency lifts, in SQL. Each change is one transaction with its rows for the audit and for whoever is notified.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::grants::revoked;
use super::holds::{now, span};
use super::rows::{id, list_of, parsed, words};
use super::state::{Halt, Read, Within, bounded};
use super::{Sqlite, moment, within};
use crate::call::{AgentId, RecordId};
use crate::store::lifts::{
    Ended, LIFTS_LISTED_MAX, LIFTS_OPEN_MAX, Lift, LiftMoment, Lifted, Lifts, NewLift, REVIEWED_KEPT,
    Reviewed, Scope, UNREVIEWED_AFTER,
};
use crate::store::{Answer, REASON_BYTES_MAX, StoreError};

impl Lifts for Sqlite {
    fn open_lift(&self, new: NewLift) -> Answer<'_, Lifted> {
        Box::pin(async move {
            bounded("the reason", &new.reason, REASON_BYTES_MAX)?;
            self.write(async |tx| open(tx, &new).await).await
        })
    }

    fn lifts(&self) -> Answer<'_, Vec<Lift>> {
        Box::pin(async move {
            let rows =
                sqlx::query("SELECT * FROM lift ORDER BY reviewed_at IS NULL DESC, at DESC, id DESC LIMIT ?");
            let rows = rows.bind(LIFTS_LISTED_MAX as i64).fetch_all(&self.readers).await;
            let rows = rows.and_then(|rows| rows.iter().map(lift).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn close_lift(&self, id: RecordId, by: String, reason: String) -> Answer<'_, Option<Lift>> {
        Box::pin(async move {
            bounded("the reason", &reason, REASON_BYTES_MAX)?;
            self.write(async |tx| {
                let now = now(tx).await?;
                let done = sqlx::query(
                    "UPDATE lift SET closed_by = ?1, closed_reason = ?2, closed_at = ?3, ended = 1
                     WHERE id = ?4 AND ended = 0 AND until > ?3",
                );
                let done = done.bind(by).bind(reason).bind(now).bind(id.to_string());
                if done.execute(&mut *tx).await?.rows_affected() == 0 {
                    return Ok(None);
                }
                happened(tx, id, LiftMoment::Closed, RecordId::new(), now).await.map(Some)
            })
            .await
        })
    }

    fn end_lifts(&self) -> Answer<'_, Ended> {
        Box::pin(async move { self.write(async |tx| end(tx).await).await })
    }

    fn review_lift(&self, id: RecordId, by: String, reason: String) -> Answer<'_, Reviewed> {
        Box::pin(async move {
            bounded("the reason", &reason, REASON_BYTES_MAX)?;
            self.write(async |tx| review(tx, id, &by, &reason).await).await
        })
    }
}

async fn open(tx: &mut SqliteConnection, new: &NewLift) -> Within<Lifted> {
    let now = now(tx).await?;
    let owed =
        sqlx::query_scalar("SELECT id FROM lift WHERE by = ? AND reviewed_at IS NULL ORDER BY at LIMIT 1");
    let owed: Option<String> = owed.bind(&*new.by).fetch_optional(&mut *tx).await?;
    if let Some(id) = owed {
        return Ok(Lifted::Owed(parsed(&id)?));
    }
    let opened = sqlx::query_scalar("SELECT count(*) FROM lift WHERE ended = 0 AND until > ?");
    let opened: i64 = opened.bind(now).fetch_one(&mut *tx).await?;
    if opened >= LIFTS_OPEN_MAX as i64 {
        return Ok(Lifted::TooMany);
    }
    let agents: Vec<String> = new.scope.agents.iter().map(|agent| agent.as_str().to_owned()).collect();
    sqlx::query(
        "INSERT INTO lift (id, rules, agents, agent_groups, upstreams, by, evidence, reason, at, until)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id.to_string())
    .bind(words(&new.rules))
    .bind(words(&agents))
    .bind(words(&new.scope.groups))
    .bind(words(&new.scope.upstreams))
    .bind(&*new.by)
    .bind(&*new.evidence)
    .bind(&*new.reason)
    .bind(now)
    .bind(now.saturating_add(span(new.time)))
    .execute(&mut *tx)
    .await?;
    let lift = happened(tx, new.id, LiftMoment::Opened, new.id, now).await?;
    Ok(Lifted::Open(Box::new(lift)))
}

async fn end(tx: &mut SqliteConnection) -> Within<Ended> {
    let (now, mut ended) = (now(tx).await?, Ended::default());
    let over = sqlx::query_scalar("SELECT id FROM lift WHERE ended = 0 AND until <= ? ORDER BY until");
    let over: Vec<String> = over.bind(now).fetch_all(&mut *tx).await?;
    for id in over {
        sqlx::query("UPDATE lift SET ended = 1 WHERE id = ?").bind(&*id).execute(&mut *tx).await?;
        ended.expired.push(happened(tx, parsed(&id)?, LiftMoment::Expired, RecordId::new(), now).await?);
    }
    let owed = sqlx::query_scalar(
        "SELECT id FROM lift WHERE reviewed_at IS NULL AND ended = 1 AND unreviewed IS NULL
         AND coalesce(closed_at, until) <= ? ORDER BY until LIMIT ?",
    );
    let owed = owed.bind(now - span(UNREVIEWED_AFTER)).bind(LIFTS_LISTED_MAX as i64);
    let owed: Vec<String> = owed.fetch_all(&mut *tx).await?;
    for id in owed {
        let done = sqlx::query("UPDATE lift SET unreviewed = ? WHERE id = ?").bind(now).bind(&*id);
        done.execute(&mut *tx).await?;
        let lift = happened(tx, parsed(&id)?, LiftMoment::Unreviewed, RecordId::new(), now).await?;
        ended.unreviewed.push(lift);
    }
    let old = sqlx::query("DELETE FROM lift WHERE reviewed_at < ?").bind(now - span(REVIEWED_KEPT));
    old.execute(&mut *tx).await?;
    Ok(ended)
}

async fn review(tx: &mut SqliteConnection, id: RecordId, by: &str, reason: &str) -> Within<Reviewed> {
    let now = now(tx).await?;
    let Some(found) = find(tx, id).await? else { return Ok(Reviewed::Unknown) };
    if found.by == by {
        return Ok(Reviewed::Own);
    }
    if found.reviewed.is_some() {
        return Ok(Reviewed::Before(found));
    }
    if found.closed.is_none() && moment(now) < found.until {
        return Ok(Reviewed::Open);
    }
    let done =
        sqlx::query("UPDATE lift SET reviewed_by = ?, reviewed_reason = ?, reviewed_at = ? WHERE id = ?");
    done.bind(by).bind(reason).bind(now).bind(id.to_string()).execute(&mut *tx).await?;
    happened(tx, id, LiftMoment::Reviewed, RecordId::new(), now).await.map(Reviewed::Now)
}

/// The lift as it is now, with its rows for the audit and for whoever is notified.
async fn happened(
    tx: &mut SqliteConnection,
    id: RecordId,
    what: LiftMoment,
    record: RecordId,
    now: i64,
) -> Within<Lift> {
    let gone = || Halt::Refused(StoreError::Failed(format!("lift {id} is gone")));
    let lift = find(tx, id).await?.ok_or_else(gone)?;
    sqlx::query("INSERT INTO audit_row (id, kind, at, members) VALUES (?, 'breakglass', ?, ?)")
        .bind(record.to_string())
        .bind(now)
        .bind(lift.members(what).as_bytes())
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO event (kind, lift, at, data) VALUES (?, ?, ?, ?)")
        .bind(format!("breakglass.{}", what.as_str()))
        .bind(id.to_string())
        .bind(now)
        .bind(lift.told(what).as_bytes())
        .execute(&mut *tx)
        .await?;
    Ok(lift)
}

async fn find(tx: &mut SqliteConnection, id: RecordId) -> Within<Option<Lift>> {
    let row = sqlx::query("SELECT * FROM lift WHERE id = ?").bind(id.to_string());
    Ok(row.fetch_optional(&mut *tx).await?.as_ref().map(lift).transpose()?)
}

fn lift(row: &SqliteRow) -> Read<Lift> {
    let agents = list_of(row, "agents")?;
    Ok(Lift {
        id: id(row, "id")?,
        rules: list_of(row, "rules")?,
        scope: Scope {
            agents: agents.iter().map(|agent| AgentId::from_normalised(agent)).collect(),
            groups: list_of(row, "agent_groups")?,
            upstreams: list_of(row, "upstreams")?,
        },
        by: row.try_get("by")?,
        evidence: row.try_get("evidence")?,
        reason: row.try_get("reason")?,
        at: moment(row.try_get("at")?),
        until: moment(row.try_get("until")?),
        closed: revoked(row, ["closed_by", "closed_reason", "closed_at"])?,
        reviewed: revoked(row, ["reviewed_by", "reviewed_reason", "reviewed_at"])?,
    })
}
