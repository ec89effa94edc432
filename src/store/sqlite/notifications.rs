//! Notifications in SQL.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use super::holds::{now, span};
use super::rows::{id, parsed, wrong};
use super::state::{Read, Within, bounded, changed};
use super::{Sqlite, moment, within};
use crate::call::RecordId;
use crate::store::notifications::{
    Addressee, Backlog, DEAD_MAX, EVENTS_AT_ONCE_MAX, FAILURE_BYTES_MAX, NOTIFICATIONS_LISTED_MAX,
    Notification, NotificationState, Notifications, Topic, WAITING_MAX,
};
use crate::store::{Answer, Changed};

impl Notifications for Sqlite {
    fn address(&self, to: Vec<Addressee>) -> Answer<'_, usize> {
        Box::pin(async move { self.write(async |tx| address(tx, &to).await).await })
    }

    fn due(&self, webhook: String, most: usize) -> Answer<'_, Vec<Notification>> {
        // Whatever of the same topic came before goes first.
        let due = "SELECT * FROM notification AS one WHERE webhook = ?1 AND state = 'waiting'
             AND next <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)
             AND NOT EXISTS (SELECT 1 FROM notification AS other WHERE other.topic = one.topic
                 AND other.webhook = one.webhook AND other.state = 'waiting' AND other.place < one.place)
             ORDER BY next, place LIMIT ?2";
        Box::pin(async move {
            let rows = sqlx::query(due).bind(webhook).bind(i64::try_from(most).unwrap_or(i64::MAX));
            let rows = rows.fetch_all(&self.readers).await;
            let rows = rows.and_then(|rows| rows.iter().map(notification).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn delivered(&self, id: RecordId) -> Answer<'_, ()> {
        Box::pin(async move {
            let gone = sqlx::query("DELETE FROM notification WHERE id = ?").bind(id.to_string());
            gone.execute(&self.writer).await.map(|_| ()).map_err(within(&self.path))
        })
    }

    fn undelivered(&self, id: RecordId, again: Option<Duration>, why: String) -> Answer<'_, ()> {
        Box::pin(async move {
            bounded("why a notification was not delivered", &why, FAILURE_BYTES_MAX)?;
            self.write(async |tx| {
                let next = now(tx).await? + again.map_or(0, span);
                let state =
                    if again.is_some() { NotificationState::Waiting } else { NotificationState::Dead };
                sqlx::query(
                    "UPDATE notification SET attempts = attempts + 1, next = ?, state = ?, failure = ? WHERE id = ?",
                )
                .bind(next)
                .bind(state.as_str())
                .bind(&*why)
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
                make_room(tx).await
            })
            .await
        })
    }

    fn notifications(&self, state: Option<NotificationState>) -> Answer<'_, Vec<Notification>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT * FROM notification WHERE ?1 IS NULL OR state = ?1 ORDER BY place LIMIT ?2",
            );
            let rows = rows.bind(state.map(NotificationState::as_str)).bind(NOTIFICATIONS_LISTED_MAX as i64);
            let rows = rows.fetch_all(&self.readers).await;
            let rows = rows.and_then(|rows| rows.iter().map(notification).collect());
            rows.map_err(within(&self.path))
        })
    }

    fn notification(&self, id: RecordId) -> Answer<'_, Option<Notification>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM notification WHERE id = ?").bind(id.to_string());
            let row = row.fetch_optional(&self.readers).await;
            let row = row.and_then(|row| row.as_ref().map(notification).transpose());
            row.map_err(within(&self.path))
        })
    }

    fn retry(&self, id: RecordId) -> Answer<'_, Changed> {
        Box::pin(async move {
            self.write(async |tx| {
                let now = now(tx).await?;
                let done = sqlx::query(
                    "UPDATE notification SET state = 'waiting', since = ?1, next = ?1 WHERE id = ?2",
                );
                let done = done.bind(now).bind(id.to_string()).execute(&mut *tx).await?;
                Ok(changed(done.rows_affected()))
            })
            .await
        })
    }

    fn backlog(&self) -> Answer<'_, Backlog> {
        Box::pin(async move {
            let counts = sqlx::query(
                "SELECT (SELECT count(*) FROM event) AS events,
                    (SELECT count(*) FROM notification WHERE state = 'waiting') AS waiting,
                    (SELECT count(*) FROM notification WHERE state = 'dead') AS dead",
            );
            let counts = counts.fetch_one(&self.readers).await.and_then(|row| {
                let count = |name| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
                Ok(Backlog { events: count("events")?, waiting: count("waiting")?, dead: count("dead")? })
            });
            counts.map_err(within(&self.path))
        })
    }
}

async fn address(tx: &mut SqliteConnection, to: &[Addressee]) -> Within<usize> {
    let mut unwanted = QueryBuilder::new(
        "UPDATE notification SET state = 'dead', failure = 'its webhook is not configured any more'
         WHERE state = 'waiting'",
    );
    if !to.is_empty() {
        let mut names = unwanted.push(" AND webhook NOT IN (").separated(", ");
        for one in to {
            names.push_bind(&*one.webhook);
        }
        names.push_unseparated(")");
    }
    unwanted.build().execute(&mut *tx).await?;
    let events = sqlx::query("SELECT place, kind FROM event ORDER BY place LIMIT ?");
    let events = events.bind(EVENTS_AT_ONCE_MAX as i64).fetch_all(&mut *tx).await?;
    let mut last = None;
    for event in &events {
        let (place, kind): (i64, String) = (event.try_get("place")?, event.try_get("kind")?);
        for one in to.iter().filter(|one| one.kinds.contains(&&*kind)) {
            insert(tx, one, place).await?;
        }
        last = Some(place);
    }
    if let Some(last) = last {
        sqlx::query("DELETE FROM event WHERE place <= ?").bind(last).execute(&mut *tx).await?;
    }
    make_room(tx).await?;
    Ok(events.len())
}

async fn insert(tx: &mut SqliteConnection, to: &Addressee, event: i64) -> Within<()> {
    let now = now(tx).await?;
    sqlx::query(
        "INSERT INTO notification (id, webhook, kind, hold, lift, at, data, attempts, since, next, state, failure)
         SELECT ?1, ?2, event.kind, event.hold, event.lift, event.at, event.data, 0, ?3, ?3,
             CASE WHEN full.reached THEN 'dead' ELSE 'waiting' END,
             CASE WHEN full.reached THEN 'too many wait for this webhook' ELSE '' END
         FROM event, (SELECT count(*) >= ?4 AS reached FROM notification WHERE webhook = ?2 AND state = 'waiting') AS full
         WHERE event.place = ?5",
    )
    .bind(RecordId::new().to_string())
    .bind(&*to.webhook)
    .bind(now)
    .bind(WAITING_MAX as i64)
    .bind(event)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Takes the oldest dead ones away where there are too many.
async fn make_room(tx: &mut SqliteConnection) -> Within<()> {
    sqlx::query(
        "DELETE FROM notification WHERE state = 'dead' AND place <= (
             SELECT place FROM notification WHERE state = 'dead' ORDER BY place DESC LIMIT 1 OFFSET ?)",
    )
    .bind(DEAD_MAX as i64)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

fn notification(row: &SqliteRow) -> Read<Notification> {
    let state: String = row.try_get("state")?;
    Ok(Notification {
        id: id(row, "id")?,
        webhook: row.try_get("webhook")?,
        kind: row.try_get("kind")?,
        topic: match row.try_get::<Option<String>, _>("hold")? {
            Some(hold) => Topic::Hold(parsed(&hold)?),
            None => Topic::Lift(id(row, "lift")?),
        },
        at: moment(row.try_get("at")?),
        data: row.try_get("data")?,
        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        since: moment(row.try_get("since")?),
        next: moment(row.try_get("next")?),
        state: NotificationState::parse(&state).ok_or_else(|| wrong("a state of a notification"))?,
        failure: row.try_get("failure")?,
    })
}
