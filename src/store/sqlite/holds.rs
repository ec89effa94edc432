//! Held calls in SQL. Each change is one transaction with its rows for the audit and for whoever is notified.

use std::time::{Duration, SystemTime};

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::rows::{audit_row, hold, parsed, vote, words};
use super::state::{Halt, Read, Within, bounded};
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
            self.write(async |tx| open(tx, &new).await).await
        })
    }

    fn hold(&self, id: RecordId) -> Answer<'_, Option<Hold>> {
        Box::pin(async move { self.write(async |tx| find(tx, id).await).await })
    }

    fn holds(&self, wanted: Wanted) -> Answer<'_, Vec<Hold>> {
        Box::pin(async move { self.write(async |tx| list(tx, &wanted).await).await })
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
                changed(tx, id, rows, Moment::Ended).await
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
                let ids = ids.bind(now).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
                all(tx, ids).await
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
        Box::pin(async move { self.write(async |tx| Ok(moment(now(tx).await?))).await })
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

async fn open(tx: &mut SqliteConnection, new: &NewHold) -> Within<Opened> {
    let now = now(tx).await?;
    let agent = new.about.agent.as_str();
    if let Some(key) = new.idempotency {
        let other = sqlx::query_scalar(
            "SELECT count(*) FROM hold WHERE idempotency = ? AND agent = ? AND digest <> ? AND expires > ?",
        );
        let other: i64 =
            other.bind(&key[..]).bind(agent).bind(&new.digest[..]).bind(now).fetch_one(&mut *tx).await?;
        if other > 0 {
            return Ok(Opened::KeyReused);
        }
    }
    // What is being executed is joined even when its time is over: it must not run beside itself.
    let same = sqlx::query_scalar(
        "SELECT id FROM hold WHERE digest = ? AND agent = ? AND state <> 'withdrawn'
         AND (expires > ? OR state = 'releasing') ORDER BY opened DESC LIMIT 1",
    );
    let same: Option<String> =
        same.bind(&new.digest[..]).bind(agent).bind(now).fetch_optional(&mut *tx).await?;
    let same = match same {
        Some(id) => Some(known(tx, parsed(&id)?).await?),
        None => None,
    };
    if let Some(hold) = standing::again(tx, new, same.as_ref(), now).await? {
        return Ok(Opened::New(hold));
    }
    if let Some(hold) = same {
        return Ok(Opened::Joined(hold));
    }
    let pending =
        sqlx::query_scalar("SELECT count(*) FROM hold WHERE agent = ? AND state = 'pending' AND expires > ?");
    let pending: i64 = pending.bind(agent).bind(now).fetch_one(&mut *tx).await?;
    if pending >= i64::from(new.pending_max) {
        return Ok(Opened::TooMany);
    }
    insert(tx, new, now).await?;
    let hold = known(tx, new.id).await?;
    happened(tx, &hold, Moment::Opened, new.id, now).await?;
    Ok(Opened::New(hold))
}

pub(super) async fn insert(tx: &mut SqliteConnection, new: &NewHold, now: i64) -> Within<()> {
    let NewHold { about, terms, .. } = new;
    let expires = now.saturating_add(span(new.ttl));
    sqlx::query(
        "INSERT INTO hold (id, state, digest, idempotency, agent, owner, team, task, on_behalf_of, upstream, tool, class,
           consequence, rule, reason, run, revision, idempotent, quorum, approvers, opened, escalates, expires, changed,
           detail, bytes)
         VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?)",
    )
    .bind(new.id.to_string())
    .bind(&new.digest[..])
    .bind(new.idempotency.map(Vec::from))
    .bind(about.agent.as_str())
    .bind(&*about.owner)
    .bind(&*about.team)
    .bind(&*about.task)
    .bind(&*about.on_behalf_of)
    .bind(&*about.upstream)
    .bind(&*about.tool)
    .bind(about.class.as_str())
    .bind(i64::from(about.consequence))
    .bind(&*about.rule)
    .bind(&*about.reason)
    .bind(&*about.run)
    .bind(&*about.revision)
    .bind(i64::from(about.idempotent))
    .bind(i64::from(terms.quorum))
    .bind(words(&terms.approvers))
    .bind(now)
    .bind(now + (expires - now) / 2)
    .bind(expires)
    .bind(now)
    .bind(&*new.bytes)
    .execute(&mut *tx)
    .await?;
    Ok(())
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
        .bind(detail)
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
    }
    let hold = known(tx, id).await?;
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
    changed(tx, id, 1, Moment::Released).await
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
    changed(tx, id, done.rows_affected(), Moment::Ended).await
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
        swept.expired.extend(changed(tx, parsed(&id)?, 1, Moment::Ended).await?);
    }
    let late = sqlx::query_scalar(
        "SELECT id FROM hold WHERE state = 'pending' AND escalated IS NULL AND escalates <= ? ORDER BY expires LIMIT ?",
    );
    let late: Vec<String> = late.bind(now).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
    for id in late {
        let done = sqlx::query("UPDATE hold SET escalated = ? WHERE id = ?").bind(now).bind(&*id);
        done.execute(&mut *tx).await?;
        swept.escalated.extend(changed(tx, parsed(&id)?, 1, Moment::Escalated).await?);
    }
    let soon = sqlx::query_scalar(
        "SELECT id FROM hold WHERE state = 'pending' AND expiring IS NULL AND expires - (expires - opened) / 4 <= ?
         ORDER BY expires LIMIT ?",
    );
    let soon: Vec<String> = soon.bind(now).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
    for id in soon {
        let done = sqlx::query("UPDATE hold SET expiring = ? WHERE id = ?").bind(now).bind(&*id);
        done.execute(&mut *tx).await?;
        swept.expiring.extend(changed(tx, parsed(&id)?, 1, Moment::Expiring).await?);
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
        "SELECT min(CASE WHEN state = 'pending' AND escalated IS NULL THEN escalates
             WHEN state = 'pending' AND expiring IS NULL THEN expires - (expires - opened) / 4
             ELSE expires END) FROM hold
         WHERE state IN ('pending', 'approved')",
    );
    let next: Option<i64> = next.fetch_one(&mut *tx).await?;
    swept.next = next.map(|next| Duration::from_micros(next.saturating_sub(now).max(0).unsigned_abs()));
    Ok(swept)
}

/// The hold as it is now, with its rows for the audit and the outbox, when a statement changed it.
pub(super) async fn changed(
    tx: &mut SqliteConnection,
    id: RecordId,
    rows: u64,
    moment: Moment<'_>,
) -> Within<Option<Hold>> {
    if rows == 0 {
        return Ok(None);
    }
    let (now, hold) = (now(tx).await?, known(tx, id).await?);
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

pub(super) async fn known(tx: &mut SqliteConnection, id: RecordId) -> Within<Hold> {
    let gone = || Halt::Refused(StoreError::Failed(format!("hold {id} is gone")));
    find(tx, id).await?.ok_or_else(gone)
}

pub(super) async fn find(tx: &mut SqliteConnection, id: RecordId) -> Within<Option<Hold>> {
    let row = sqlx::query("SELECT * FROM hold WHERE id = ?").bind(id.to_string());
    let Some(row) = row.fetch_optional(&mut *tx).await? else { return Ok(None) };
    let votes = sqlx::query("SELECT * FROM vote WHERE hold = ? ORDER BY place").bind(id.to_string());
    let votes = votes.fetch_all(&mut *tx).await?.iter().map(vote).collect::<Read<Vec<_>>>()?;
    Ok(Some(hold(&row, votes)?))
}

pub(super) async fn all(tx: &mut SqliteConnection, ids: Vec<String>) -> Within<Vec<Hold>> {
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        all.push(known(tx, parsed(&id)?).await?);
    }
    Ok(all)
}

async fn list(tx: &mut SqliteConnection, wanted: &Wanted) -> Within<Vec<Hold>> {
    let states: Vec<String> = wanted.states.iter().map(|state| format!("'{}'", state.as_str())).collect();
    let such = if states.is_empty() { "1".to_owned() } else { format!("state IN ({})", states.join(", ")) };
    let open = !states.is_empty() && wanted.states.iter().all(|state| !state.is_end());
    let order = if open { "opened" } else { "opened DESC" };
    // The words are this program's own.
    let text =
        format!("SELECT id FROM hold WHERE {such} AND (?1 IS NULL OR agent = ?1) ORDER BY {order} LIMIT ?2");
    let ids = sqlx::query_scalar(AssertSqlSafe(text));
    let agent = wanted.agent.as_ref().map(|agent| agent.as_str().to_owned());
    let ids: Vec<String> = ids.bind(agent).bind(HOLDS_LISTED_MAX as i64).fetch_all(&mut *tx).await?;
    all(tx, ids).await
}
