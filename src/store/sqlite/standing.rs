//! Standing approvals, in SQL: made with the vote that completes a hold, counted with each release.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::found::known;
use super::grants::revoked;
use super::holds::{changed, count, happened, now, span};
use super::opening::insert;
use super::rows::{digest, id, list_of, parsed, words};
use super::state::{Halt, Read, Within, bounded};
use super::{Sqlite, moment, within};
use crate::call::{AgentId, RecordId};
use crate::store::holds::{Hold, HoldState, Moment, NewHold, Vote, Voted};
use crate::store::standing::{
    STANDING_CONSEQUENCE_MAX, STANDING_LISTED_MAX, STANDING_TIME_MAX, STANDING_TIMES_MAX, Standing,
    StandingTerms, Standings,
};
use crate::store::{Answer, REASON_BYTES_MAX, StoreError};

impl Standings for Sqlite {
    fn stand(&self, id: RecordId, vote: Vote, terms: StandingTerms) -> Answer<'_, Voted> {
        Box::pin(async move {
            bounded("the reason", &vote.reason, REASON_BYTES_MAX)?;
            self.write(async |tx| {
                let (by, reason) = (vote.by.clone(), vote.reason.clone());
                let voted = count(tx, id, vote).await?;
                match &voted {
                    Voted::Counted(hold) if hold.state == HoldState::Approved => {
                        stand(tx, hold, terms, (&by, &reason)).await?;
                        Ok(Voted::Counted(known(tx, id).await?))
                    }
                    _ => Ok(voted),
                }
            })
            .await
        })
    }

    fn standings(&self) -> Answer<'_, Vec<Standing>> {
        Box::pin(async move {
            let now = self.read(async |tx| now(tx).await).await?;
            let rows = sqlx::query(
                "SELECT * FROM standing ORDER BY revoked_at IS NULL AND until > ? AND used < times DESC, at DESC, id DESC
                 LIMIT ?",
            );
            let rows = rows.bind(now).bind(STANDING_LISTED_MAX as i64).fetch_all(&self.readers).await;
            let rows = rows.and_then(|rows| rows.iter().map(standing).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn revoke_standing(
        &self,
        id: RecordId,
        by: String,
        reason: String,
    ) -> Answer<'_, Option<(Standing, Vec<Hold>)>> {
        Box::pin(async move {
            bounded("the reason", &reason, REASON_BYTES_MAX)?;
            self.write(async |tx| revoke(tx, id, &by, &reason).await).await
        })
    }
}

async fn stand(
    tx: &mut SqliteConnection,
    hold: &Hold,
    terms: StandingTerms,
    (by, reason): (&str, &str),
) -> Within<()> {
    let allowed = hold.about.consequence <= STANDING_CONSEQUENCE_MAX
        && (1..=STANDING_TIMES_MAX).contains(&terms.times)
        && terms.time <= STANDING_TIME_MAX;
    if !allowed {
        return Err(Halt::Refused(StoreError::Failed("such an approval does not stand".to_owned())));
    }
    let (now, id) = (now(tx).await?, RecordId::new());
    let people: Vec<String> = hold.approvals().map(|vote| vote.by.clone()).collect();
    sqlx::query(
        "INSERT INTO standing (id, hold, digest, agent, upstream, tool, consequence_max, people, by, reason, at, until, times)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(hold.id.to_string())
    .bind(&hold.digest[..])
    .bind(hold.about.agent.as_str())
    .bind(&*hold.about.upstream)
    .bind(&*hold.about.tool)
    .bind(i64::from(hold.about.consequence))
    .bind(words(&people))
    .bind(by)
    .bind(reason)
    .bind(now)
    .bind(now.saturating_add(span(terms.time)))
    .bind(i64::from(terms.times))
    .execute(&mut *tx)
    .await?;
    let done = sqlx::query("UPDATE hold SET standing = ? WHERE id = ?").bind(id.to_string());
    done.bind(hold.id.to_string()).execute(&mut *tx).await?;
    told(tx, id, id, now).await?;
    Ok(())
}

/// A hold of this call that is approved from its beginning, where people let their approval of it stand. One of a call
/// whose last hold is open, or of which nobody knows what came, waits for that; so does a call that its agent gave an
/// `Idempotency-Key`, because such a repeat is the same call and not another one.
pub(super) async fn again(
    tx: &mut SqliteConnection,
    new: &NewHold,
    same: Option<&Hold>,
    now: i64,
) -> Within<Option<Hold>> {
    let over =
        |hold: &Hold| matches!(hold.state, HoldState::Executed | HoldState::Failed | HoldState::Expired);
    if new.idempotency.is_some() || !same.is_none_or(over) {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT * FROM standing WHERE digest = ?1 AND agent = ?2 AND until > ?3 AND revoked_at IS NULL AND used < times
           AND consequence_max >= ?4 AND NOT EXISTS
             (SELECT 1 FROM hold WHERE hold.standing = standing.id
                AND (state IN ('releasing', 'indeterminate') OR state = 'approved' AND expires > ?3))
         ORDER BY until DESC LIMIT 1",
    );
    let row = row.bind(&new.digest[..]).bind(new.about.agent.as_str()).bind(now);
    let row = row.bind(i64::from(new.about.consequence)).fetch_optional(&mut *tx).await?;
    let Some(standing) = row.as_ref().map(standing).transpose()? else { return Ok(None) };
    // Policy may ask for more today than people gave then.
    let first = known(tx, standing.hold).await?;
    if !(Hold { terms: new.terms.clone(), ..first }).is_carried() {
        return Ok(None);
    }
    insert(tx, new, now).await?;
    sqlx::query("UPDATE hold SET state = 'approved', standing = ?, expires = min(expires, ?) WHERE id = ?")
        .bind(standing.id.to_string())
        .bind(super::micros(standing.until))
        .bind(new.id.to_string())
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO vote (hold, place, by, email, roles, says, reason, digest, evidence, at)
         SELECT ?, place, by, email, roles, says, reason, digest, evidence, at FROM vote WHERE hold = ? AND says = 'approve'",
    )
    .bind(new.id.to_string())
    .bind(standing.hold.to_string())
    .execute(&mut *tx)
    .await?;
    let hold = known(tx, new.id).await?;
    happened(tx, &hold, Moment::Opened, new.id, now).await?;
    Ok(Some(hold))
}

/// Counts a use in the transaction that releases the hold. Where the approval does not stand any more, the hold ends
/// instead, and this says so.
pub(super) async fn counted(tx: &mut SqliteConnection, hold: RecordId, now: i64) -> Within<bool> {
    let standing = sqlx::query_scalar("SELECT standing FROM hold WHERE id = ?").bind(hold.to_string());
    let standing: Option<String> = standing.fetch_one(&mut *tx).await?;
    let Some(standing) = standing else { return Ok(true) };
    let number = sqlx::query_scalar(
        "UPDATE standing SET used = used + 1 WHERE id = ? AND used < times AND until > ? AND revoked_at IS NULL
         RETURNING used",
    );
    let number: Option<i64> = number.bind(&*standing).bind(now).fetch_optional(&mut *tx).await?;
    if let Some(number) = number {
        let done = sqlx::query("UPDATE hold SET use = ? WHERE id = ?").bind(number).bind(hold.to_string());
        done.execute(&mut *tx).await?;
        return Ok(true);
    }
    ended(tx, hold, now, "what it stood on was used up, or its time was over").await?;
    Ok(false)
}

async fn ended(tx: &mut SqliteConnection, hold: RecordId, now: i64, why: &str) -> Within<Option<Hold>> {
    let done = sqlx::query(
        "UPDATE hold SET state = 'expired', changed = ?1, expires = min(expires, ?1), bytes = NULL, record = NULL,
           lease_by = NULL, lease_until = NULL, detail = ?2 WHERE id = ?3",
    );
    let done = done.bind(now).bind(why).bind(hold.to_string()).execute(&mut *tx).await?;
    changed(tx, hold, (done.rows_affected(), now), Moment::Ended).await
}

async fn revoke(
    tx: &mut SqliteConnection,
    id: RecordId,
    by: &str,
    reason: &str,
) -> Within<Option<(Standing, Vec<Hold>)>> {
    let now = now(tx).await?;
    let done = sqlx::query(
        "UPDATE standing SET revoked_by = ?1, revoked_reason = ?2, revoked_at = ?3
         WHERE id = ?4 AND revoked_at IS NULL AND until > ?3 AND used < times",
    );
    let done = done.bind(by).bind(reason).bind(now).bind(id.to_string()).execute(&mut *tx).await?;
    if done.rows_affected() == 0 {
        return Ok(None);
    }
    let standing = told(tx, id, RecordId::new(), now).await?;
    let open = sqlx::query_scalar("SELECT id FROM hold WHERE standing = ? AND state = 'approved'");
    let open: Vec<String> = open.bind(id.to_string()).fetch_all(&mut *tx).await?;
    let mut holds = Vec::with_capacity(open.len());
    for hold in open {
        let why = format!("what it stood on was taken back by {by}");
        holds.extend(ended(tx, parsed(&hold)?, now, &why).await?);
    }
    Ok(Some((standing, holds)))
}

/// The standing approval as it is now, with its row for the audit.
async fn told(tx: &mut SqliteConnection, id: RecordId, record: RecordId, now: i64) -> Within<Standing> {
    let row = sqlx::query("SELECT * FROM standing WHERE id = ?").bind(id.to_string());
    let standing = standing(&row.fetch_one(&mut *tx).await?)?;
    sqlx::query("INSERT INTO audit_row (id, kind, at, members) VALUES (?, 'vote', ?, ?)")
        .bind(record.to_string())
        .bind(now)
        .bind(standing.members().as_bytes())
        .execute(&mut *tx)
        .await?;
    Ok(standing)
}

fn standing(row: &SqliteRow) -> Read<Standing> {
    let number = |name| row.try_get::<i64, _>(name).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    Ok(Standing {
        id: id(row, "id")?,
        hold: id(row, "hold")?,
        digest: digest(row)?,
        agent: AgentId::from_normalised(row.try_get("agent")?),
        upstream: row.try_get("upstream")?,
        tool: row.try_get("tool")?,
        consequence_max: u8::try_from(number("consequence_max")?).unwrap_or(0),
        people: list_of(row, "people")?,
        by: row.try_get("by")?,
        reason: row.try_get("reason")?,
        at: moment(row.try_get("at")?),
        until: moment(row.try_get("until")?),
        times: number("times")?,
        used: number("used")?,
        revoked: revoked(row, ["revoked_by", "revoked_reason", "revoked_at"])?,
    })
}
