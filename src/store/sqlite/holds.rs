//! Held calls in SQL. Each change is one transaction with its rows for the audit and for whoever is notified.

use std::time::{Duration, SystemTime};

use sqlx::SqliteConnection;

use super::found::{all, find, known, list};
use super::rows::{audit_row, parsed, words};
use super::state::{Within, bounded};
use super::{Sqlite, moment, standing, within};
use crate::call::{AgentId, RecordId};
use crate::store::holds::{
    AUDIT_ROWS_MAX, AuditRow, Claim, ENDED_KEPT, End, HELD_BYTES_MAX, HOLDS_LISTED_MAX, Hold, HoldState,
    Holds, Moment, NewHold, Opened, Swept, Vote, Voted, Wanted,
};
use crate::store::{Answer, REASON_BYTES_MAX, StoreError};

impl Holds for Sqlite {
    fn open_hold(&self, new: NewHold) -> Answer<'_, Opened> {
        Box::pin(async move {
            if new.bytes.len() > HELD_BYTES_MAX {
                return Err(StoreError::TooLarge { what: "the held call", bytes_max: HELD_BYTES_MAX });
            }
            self.opening.open(new).await
        })
    }

    fn hold(&self, id: RecordId) -> Answer<'_, Option<Hold>> {
        Box::pin(async move { self.read(async |tx| find(tx, id).await).await })
    }

    fn holds(&self, wanted: Wanted) -> Answer<'_, Vec<Hold>> {
        Box::pin(async move { self.read(async |tx| list(tx, &wanted).await).await })
    }

    fn held_bytes(&self, id: RecordId) -> Answer<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let bytes = sqlx::query_scalar("SELECT bytes FROM hold WHERE id = ?");
            let bytes: Result<Option<Option<Vec<u8>>>, _> =
                bytes.bind(id.to_string()).fetch_optional(&self.readers).await;
            bytes.map(Option::flatten).map_err(within(&self.path))
        })
    }

    fn keep_result(&self, id: RecordId, bytes: Vec<u8>) -> Answer<'_, ()> {
        Box::pin(async move {
            if bytes.len() > HELD_BYTES_MAX {
                return Err(StoreError::TooLarge {
                    what: "the result of the held call",
                    bytes_max: HELD_BYTES_MAX,
                });
            }
            let done =
                sqlx::query("UPDATE hold SET result = ? WHERE id = ?").bind(bytes).bind(id.to_string());
            done.execute(&self.writer).await.map(|_| ()).map_err(within(&self.path))
        })
    }

    fn result(&self, id: RecordId) -> Answer<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let bytes = sqlx::query_scalar("SELECT result FROM hold WHERE id = ?");
            let bytes: Result<Option<Option<Vec<u8>>>, _> =
                bytes.bind(id.to_string()).fetch_optional(&self.readers).await;
            bytes.map(Option::flatten).map_err(within(&self.path))
        })
    }

    fn vote(&self, id: RecordId, vote: Vote) -> Answer<'_, Voted> {
        Box::pin(async move {
            bounded("the reason", &vote.reason, REASON_BYTES_MAX)?;
            self.write(async |tx| count(tx, id, vote).await).await
        })
    }

    fn withdraw(&self, id: RecordId, agent: AgentId) -> Answer<'_, Option<Hold>> {
        Box::pin(async move {
            self.write(async |tx| {
                let now = now(tx).await?;
                let done = sqlx::query(
                    "UPDATE hold SET state = 'withdrawn', changed = ?, detail = 'the agent took it back', bytes = NULL
                     WHERE id = ? AND agent = ? AND state IN ('pending', 'approved') AND expires > ?",
                );
                let done = done.bind(now).bind(id.to_string()).bind(agent.as_str()).bind(now);
                let rows = done.execute(&mut *tx).await?.rows_affected();
                changed(tx, id, (rows, now), Moment::Ended).await
            })
            .await
        })
    }

    fn release(&self, id: RecordId, digest: [u8; 32], lease: Claim) -> Answer<'_, Option<Hold>> {
        Box::pin(async move { self.write(async |tx| release(tx, id, digest, &lease).await).await })
    }

    fn renew(&self, by: String, time: Duration) -> Answer<'_, ()> {
        Box::pin(async move {
            self.write(async |tx| {
                let until = now(tx).await? + span(time);
                let done =
                    sqlx::query("UPDATE hold SET lease_until = ? WHERE state = 'releasing' AND lease_by = ?");
                done.bind(until).bind(&*by).execute(&mut *tx).await?;
                Ok(())
            })
            .await
        })
    }

    fn settle(&self, id: RecordId, end: End) -> Answer<'_, Option<Hold>> {
        Box::pin(async move { self.write(async |tx| settle(tx, id, &end).await).await })
    }

    fn lapsed(&self) -> Answer<'_, Vec<Hold>> {
        Box::pin(async move {
            self.write(async |tx| {
                let now = now(tx).await?;
                let ids = sqlx::query_scalar(
                    "SELECT id FROM hold WHERE state = 'releasing' AND lease_until <= ? ORDER BY opened LIMIT ?",
                );
                let ids: Vec<String> = ids.bind(now).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
                all(tx, &ids).await
            })
            .await
        })
    }

    fn expire(&self) -> Answer<'_, Swept> {
        Box::pin(async move { self.write(async |tx| expire(tx).await).await })
    }

    fn pending(&self) -> Answer<'_, u64> {
        Box::pin(async move {
            let count = sqlx::query_scalar("SELECT count(*) FROM hold WHERE state = 'pending'");
            let count: Result<i64, _> = count.fetch_one(&self.readers).await;
            count.map(i64::unsigned_abs).map_err(within(&self.path))
        })
    }

    fn audit_rows(&self) -> Answer<'_, Vec<AuditRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM audit_row ORDER BY place LIMIT ?");
            let rows = rows.bind(AUDIT_ROWS_MAX as i64).fetch_all(&self.readers).await;
            let rows = rows.and_then(|rows| rows.iter().map(audit_row).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn audited(&self, place: i64) -> Answer<'_, ()> {
        Box::pin(async move {
            let done = sqlx::query("DELETE FROM audit_row WHERE place <= ?").bind(place);
            done.execute(&self.writer).await.map(|_| ()).map_err(within(&self.path))
        })
    }

    fn clock(&self) -> Answer<'_, SystemTime> {
        Box::pin(async move { self.read(async |tx| Ok(moment(now(tx).await?))).await })
    }
}

/// Whoever opens this store has it alone, so executions of before are nobody's.
pub(super) async fn abandon(tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE hold SET lease_until = 0 WHERE state = 'releasing'").execute(&mut *tx).await?;
    Ok(())
}

/// The store's clock, in microseconds since 1970.
pub(super) async fn now(tx: &mut SqliteConnection) -> Within<i64> {
    let now = sqlx::query_scalar("SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER)");
    Ok(now.fetch_one(&mut *tx).await?)
}

pub(super) fn span(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2)
}

pub(super) async fn count(tx: &mut SqliteConnection, id: RecordId, mut vote: Vote) -> Within<Voted> {
    let at = now(tx).await?;
    let Some(mut hold) = find(tx, id).await? else { return Ok(Voted::Unknown) };
    if hold.state != HoldState::Pending || hold.expires <= moment(at) {
        return Ok(Voted::Over(hold));
    }
    if hold.digest != vote.digest {
        return Ok(Voted::Digest(hold));
    }
    if hold.votes.iter().any(|other| other.by == vote.by) {
        return Ok(Voted::Again(hold));
    }
    vote.at = moment(at);
    sqlx::query(
        "INSERT INTO vote (hold, place, by, email, roles, says, reason, digest, evidence, at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(hold.votes.len() as i64)
    .bind(&*vote.by)
    .bind(&*vote.email)
    .bind(words(&vote.roles))
    .bind(vote.says.as_str())
    .bind(&*vote.reason)
    .bind(&vote.digest[..])
    .bind(&*vote.evidence)
    .bind(at)
    .execute(&mut *tx)
    .await?;
    hold.votes.push(vote.clone());
    let state = hold.after(&vote);
    if state != HoldState::Pending {
        let detail =
            if state == HoldState::Denied { format!("denied by {}", vote.by) } else { String::new() };
        sqlx::query(
            "UPDATE hold SET state = ?1, changed = ?2, detail = ?3,
             bytes = CASE ?1 WHEN 'denied' THEN NULL ELSE bytes END WHERE id = ?4",
        )
        .bind(state.as_str())
        .bind(at)
        .bind(&*detail)
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        (hold.state, hold.changed, hold.detail) = (state, moment(at), detail);
    }
    happened(tx, &hold, Moment::Voted(&vote), RecordId::new(), at).await?;
    Ok(Voted::Counted(hold))
}

async fn release(
    tx: &mut SqliteConnection,
    id: RecordId,
    digest: [u8; 32],
    lease: &Claim,
) -> Within<Option<Hold>> {
    let now = now(tx).await?;
    let done = sqlx::query(
        "UPDATE hold SET state = 'releasing', changed = ?1, lease_by = ?2, lease_until = ?3, record = ?4
         WHERE id = ?5 AND state = 'approved' AND digest = ?6 AND expires > ?1",
    )
    .bind(now)
    .bind(&*lease.by)
    .bind(now + span(lease.time))
    .bind(lease.record.to_string())
    .bind(id.to_string())
    .bind(&digest[..])
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 || !standing::counted(tx, id, now).await? {
        return Ok(None);
    }
    changed(tx, id, (1, now), Moment::Released).await
}

async fn settle(tx: &mut SqliteConnection, id: RecordId, end: &End) -> Within<Option<Hold>> {
    let now = now(tx).await?;
    // An approval whose time is over meanwhile is found so by the next sweep.
    let done = sqlx::query(
        "UPDATE hold SET state = ?1, changed = ?2, detail = ?3, lease_by = NULL, lease_until = NULL,
           record = CASE ?1 WHEN 'approved' THEN NULL ELSE record END,
           bytes = CASE WHEN ?1 = 'approved' OR (?1 = 'indeterminate' AND idempotent = 1) THEN bytes ELSE NULL END
         WHERE id = ?4 AND state = 'releasing' AND record = ?5",
    )
    .bind(end.state.as_str())
    .bind(now)
    .bind(&*end.detail)
    .bind(id.to_string())
    .bind(end.record.to_string())
    .execute(&mut *tx)
    .await?;
    changed(tx, id, (done.rows_affected(), now), Moment::Ended).await
}

async fn expire(tx: &mut SqliteConnection) -> Within<Swept> {
    let now = now(tx).await?;
    let mut swept = Swept::default();
    let over = sqlx::query_scalar(
        "SELECT id FROM hold WHERE state IN ('pending', 'approved') AND expires <= ? ORDER BY expires LIMIT ?",
    );
    let over: Vec<String> = over.bind(now).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
    for id in over {
        sqlx::query(
            "UPDATE hold SET state = 'expired', changed = ?1, bytes = NULL, detail = CASE state WHEN 'approved'
               THEN 'it was approved and never run' ELSE 'nobody decided in time' END WHERE id = ?2",
        )
        .bind(now)
        .bind(&*id)
        .execute(&mut *tx)
        .await?;
        swept.expired.extend(changed(tx, parsed(&id)?, (1, now), Moment::Ended).await?);
    }
    let late = sqlx::query_scalar(
        "SELECT id FROM hold WHERE state = 'pending' AND escalated IS NULL AND escalates <= ? ORDER BY escalates LIMIT ?",
    );
    let late: Vec<String> = late.bind(now).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
    for id in late {
        let done = sqlx::query("UPDATE hold SET escalated = ? WHERE id = ?").bind(now).bind(&*id);
        done.execute(&mut *tx).await?;
        swept.escalated.extend(changed(tx, parsed(&id)?, (1, now), Moment::Escalated).await?);
    }
    let soon = sqlx::query_scalar(
        "SELECT id FROM hold WHERE state = 'pending' AND expiring IS NULL AND expires - (expires - opened) / 4 <= ?
         ORDER BY expires - (expires - opened) / 4 LIMIT ?",
    );
    let soon: Vec<String> = soon.bind(now).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
    for id in soon {
        let done = sqlx::query("UPDATE hold SET expiring = ? WHERE id = ?").bind(now).bind(&*id);
        done.execute(&mut *tx).await?;
        swept.expiring.extend(changed(tx, parsed(&id)?, (1, now), Moment::Expiring).await?);
    }
    let results = sqlx::query("UPDATE hold SET result = NULL WHERE result IS NOT NULL AND expires <= ?");
    results.bind(now).execute(&mut *tx).await?;
    // A call that a person may let be done again keeps its bytes until its time is over.
    let bytes = sqlx::query(
        "UPDATE hold SET bytes = NULL WHERE state = 'indeterminate' AND bytes IS NOT NULL AND expires <= ?",
    );
    bytes.bind(now).execute(&mut *tx).await?;
    let stood = sqlx::query("DELETE FROM standing WHERE until < ?").bind(now - span(ENDED_KEPT));
    stood.execute(&mut *tx).await?;
    let old = sqlx::query(
        "DELETE FROM hold WHERE changed < ? AND state NOT IN ('pending', 'approved', 'releasing')",
    );
    old.bind(now - span(ENDED_KEPT)).execute(&mut *tx).await?;
    let next = sqlx::query_scalar(
        "SELECT min(next) FROM (
           SELECT min(escalates) AS next FROM hold WHERE state = 'pending' AND escalated IS NULL
           UNION ALL SELECT min(expires - (expires - opened) / 4) FROM hold WHERE state = 'pending' AND expiring IS NULL
           UNION ALL SELECT min(expires) FROM hold WHERE state = 'pending'
           UNION ALL SELECT min(expires) FROM hold WHERE state = 'approved')",
    );
    let next: Option<i64> = next.fetch_one(&mut *tx).await?;
    swept.next = next.map(|next| Duration::from_micros(next.saturating_sub(now).max(0).unsigned_abs()));
    Ok(swept)
}

/// The hold as it is now, with its rows for the audit and the outbox, when a statement changed it.
pub(super) async fn changed(
    tx: &mut SqliteConnection,
    id: RecordId,
    (rows, now): (u64, i64),
    moment: Moment<'_>,
) -> Within<Option<Hold>> {
    if rows == 0 {
        return Ok(None);
    }
    let hold = known(tx, id).await?;
    happened(tx, &hold, moment, RecordId::new(), now).await?;
    Ok(Some(hold))
}

pub(super) async fn happened(
    tx: &mut SqliteConnection,
    hold: &Hold,
    moment: Moment<'_>,
    id: RecordId,
    now: i64,
) -> Within<()> {
    sqlx::query("INSERT INTO audit_row (id, kind, at, members) VALUES (?, ?, ?, ?)")
        .bind(id.to_string())
        .bind(moment.kind())
        .bind(now)
        .bind(moment.members(hold).as_bytes())
        .execute(&mut *tx)
        .await?;
    // Nobody is woken for what they have let stand.
    if hold.executes.is_some() && moment == Moment::Opened {
        return Ok(());
    }
    event(tx, hold, moment, now).await?;
    // A denial is the end as well, and whoever waits for the end is told of it.
    if matches!(moment, Moment::Voted(_)) && hold.state.is_end() {
        event(tx, hold, Moment::Ended, now).await?;
    }
    Ok(())
}

/// What people are told.
async fn event(tx: &mut SqliteConnection, hold: &Hold, moment: Moment<'_>, now: i64) -> Within<()> {
    sqlx::query("INSERT INTO event (kind, hold, at, data) VALUES (?, ?, ?, ?)")
        .bind(format!("hold.{}", moment.word()))
        .bind(hold.id.to_string())
        .bind(now)
        .bind(moment.told(hold).as_bytes())
        .execute(&mut *tx)
        .await?;
    Ok(())
}
