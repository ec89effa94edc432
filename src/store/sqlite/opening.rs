//! Opening holds. Those that are asked for at the same time are opened in one transaction: a thousand calls that come to
//! wait at once cost few syncs, and none of them stands in line for the connection so long that it is turned away.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::{Row as _, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::holds::{happened, span};
use super::rows::{parsed, words};
use super::state::{Halt, Within, halted};
use super::{found, moment, standing};
use crate::store::StoreError;
use crate::store::holds::{Hold, HoldState, Moment, NewHold, Opened};

/// Holds that are opened in one transaction at most.
const AT_ONCE_MAX: usize = 64;
/// Calls that may wait for a transaction; whoever comes later waits before they are counted.
const WAITING_MAX: usize = 1024;
/// How long a call waits at most for its hold to be kept.
const WAIT_TIME_MAX: Duration = Duration::from_secs(30);

/// A call that is to be held, and whom to tell.
struct Wanted {
    new: NewHold,
    told: oneshot::Sender<Result<Opened, StoreError>>,
}

/// The way to whoever opens holds.
pub(super) struct Opening {
    wanted: mpsc::Sender<Wanted>,
}

impl Opening {
    /// Opens holds with this connection until this is dropped.
    pub(super) fn start(writer: SqlitePool, path: PathBuf) -> Opening {
        let (wanted, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(attend(writer, path, waiting));
        Opening { wanted }
    }

    /// Opens a hold, or says which it joins.
    pub(super) async fn open(&self, new: NewHold) -> Result<Opened, StoreError> {
        let over = || StoreError::Failed("it is being closed".to_owned());
        let late = || StoreError::Failed(format!("no hold was kept within {} s", WAIT_TIME_MAX.as_secs()));
        let asked = async {
            let (told, answer) = oneshot::channel();
            self.wanted.send(Wanted { new, told }).await.map_err(|_| over())?;
            answer.await.map_err(|_| over())?
        };
        tokio::time::timeout(WAIT_TIME_MAX, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

async fn attend(writer: SqlitePool, path: PathBuf, mut waiting: mpsc::Receiver<Wanted>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, AT_ONCE_MAX).await > 0 {
        // Nobody is there any more to wait for it.
        batch.retain(|wanted| !wanted.told.is_closed());
        let together = all(&writer, batch.iter().map(|wanted| &wanted.new)).await;
        if let Ok(opened) = together {
            for (wanted, opened) in batch.drain(..).zip(opened) {
                let _gone = wanted.told.send(Ok(opened));
            }
            continue;
        }
        // Nothing of it was kept. What is wrong with one of them is told to that one alone.
        for Wanted { new, told } in batch.drain(..).filter(|wanted| !wanted.told.is_closed()) {
            let alone = all(&writer, [&new].into_iter()).await;
            let alone =
                alone.and_then(|mut opened| opened.pop().ok_or(Halt::Failed(sqlx::Error::RowNotFound)));
            let _gone = told.send(alone.map_err(halted(&path)));
        }
    }
}

async fn all(writer: &SqlitePool, news: impl ExactSizeIterator<Item = &NewHold>) -> Within<Vec<Opened>> {
    let mut opened = Vec::with_capacity(news.len());
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    for new in news {
        opened.push(open(&mut tx, new).await?);
    }
    Transaction::commit(tx).await?;
    Ok(opened)
}

async fn open(tx: &mut SqliteConnection, new: &NewHold) -> Within<Opened> {
    // What is being executed is joined even when its time is over: it must not run beside itself.
    let row = sqlx::query(
        "WITH clock (now) AS (SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER))
         SELECT now,
           (SELECT count(*) FROM hold WHERE idempotency = ?3 AND agent = ?1 AND digest <> ?2 AND expires > now) AS others,
           (SELECT id FROM hold WHERE digest = ?2 AND agent = ?1 AND state <> 'withdrawn'
              AND (expires > now OR state = 'releasing') ORDER BY opened DESC LIMIT 1) AS same,
           (SELECT count(*) FROM hold WHERE agent = ?1 AND state = 'pending' AND expires > now) AS pending
         FROM clock",
    );
    let row = row.bind(new.about.agent.as_str()).bind(&new.digest[..]).bind(new.idempotency.map(Vec::from));
    let row = row.fetch_one(&mut *tx).await?;
    let now: i64 = row.try_get("now")?;
    if row.try_get::<i64, _>("others")? > 0 {
        return Ok(Opened::KeyReused);
    }
    let same = match row.try_get::<Option<String>, _>("same")? {
        Some(id) => Some(found::known(tx, parsed(&id)?).await?),
        None => None,
    };
    if let Some(hold) = standing::again(tx, new, same.as_ref(), now).await? {
        return Ok(Opened::New(hold));
    }
    if let Some(hold) = same {
        return Ok(Opened::Joined(hold));
    }
    if row.try_get::<i64, _>("pending")? >= i64::from(new.pending_max) {
        return Ok(Opened::TooMany);
    }
    insert(tx, new, now).await?;
    let hold = opened(new, now);
    happened(tx, &hold, Moment::Opened, new.id, now).await?;
    Ok(Opened::New(hold))
}

/// The hold that has just been kept.
fn opened(new: &NewHold, now: i64) -> Hold {
    Hold {
        id: new.id,
        state: HoldState::Pending,
        digest: new.digest,
        about: new.about.clone(),
        terms: new.terms.clone(),
        opened: moment(now),
        expires: moment(expires(new, now)),
        escalated: None,
        changed: moment(now),
        votes: Vec::new(),
        record: None,
        detail: String::new(),
        executes: None,
    }
}

fn expires(new: &NewHold, now: i64) -> i64 {
    now.saturating_add(span(new.ttl))
}

pub(super) async fn insert(tx: &mut SqliteConnection, new: &NewHold, now: i64) -> Within<()> {
    let NewHold { about, terms, .. } = new;
    let expires = expires(new, now);
    sqlx::query(
        "INSERT INTO hold (id, state, digest, idempotency, call, agent, owner, team, task, on_behalf_of, upstream, tool, class,
           consequence, rule, reason, run, revision, idempotent, quorum, approvers, opened, escalates, expires, changed,
           detail, bytes)
         VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?)",
    )
    .bind(new.id.to_string())
    .bind(&new.digest[..])
    .bind(new.idempotency.map(Vec::from))
    .bind(about.call.map(|call| call.to_string()))
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
