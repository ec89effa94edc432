//! From rows to what the store gives.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::moment;
use super::state::Read;
use crate::call::{AgentId, Class, RecordId};
use crate::store::holds::{About, AuditRow, Hold, HoldState, Says, Terms, Vote};
use crate::store::standing::Use;

pub(super) fn hold(row: &SqliteRow, votes: Vec<Vote>) -> Read<Hold> {
    let number = |name| row.try_get::<i64, _>(name);
    let level = |name| number(name).map(|level| u32::try_from(level).unwrap_or(u32::MAX));
    let word: String = row.try_get("state")?;
    let class: String = row.try_get("class")?;
    let record: Option<String> = row.try_get("record")?;
    let standing: Option<String> = row.try_get("standing")?;
    Ok(Hold {
        id: id(row, "id")?,
        state: HoldState::parse(&word).ok_or_else(|| wrong("a state of a hold"))?,
        digest: digest(row)?,
        about: About {
            call: row.try_get::<Option<String>, _>("call")?.as_deref().map(parsed).transpose()?,
            agent: AgentId::from_normalised(row.try_get("agent")?),
            owner: row.try_get("owner")?,
            team: row.try_get("team")?,
            task: row.try_get("task")?,
            on_behalf_of: row.try_get("on_behalf_of")?,
            upstream: row.try_get("upstream")?,
            tool: row.try_get("tool")?,
            class: Class::parse(&class).ok_or_else(|| wrong("a class"))?,
            consequence: u8::try_from(number("consequence")?).unwrap_or(u8::MAX),
            rule: row.try_get("rule")?,
            reason: row.try_get("reason")?,
            run: row.try_get("run")?,
            revision: row.try_get("revision")?,
            idempotent: number("idempotent")? != 0,
        },
        terms: Terms { quorum: level("quorum")?, approvers: list_of(row, "approvers")? },
        opened: moment(number("opened")?),
        expires: moment(number("expires")?),
        escalated: row.try_get::<Option<i64>, _>("escalated")?.map(moment),
        changed: moment(number("changed")?),
        votes,
        record: record.as_deref().map(parsed).transpose()?,
        detail: row.try_get("detail")?,
        executes: standing
            .map(|standing| Ok::<_, sqlx::Error>(Use { standing: parsed(&standing)?, number: level("use")? }))
            .transpose()?,
    })
}

pub(super) fn vote(row: &SqliteRow) -> Read<Vote> {
    let says: String = row.try_get("says")?;
    Ok(Vote {
        by: row.try_get("by")?,
        email: row.try_get("email")?,
        roles: list_of(row, "roles")?,
        says: Says::parse(&says).ok_or_else(|| wrong("a vote"))?,
        reason: row.try_get("reason")?,
        digest: digest(row)?,
        evidence: row.try_get("evidence")?,
        at: moment(row.try_get("at")?),
    })
}

pub(super) fn audit_row(row: &SqliteRow) -> Read<AuditRow> {
    Ok(AuditRow {
        place: row.try_get("place")?,
        id: id(row, "id")?,
        kind: row.try_get("kind")?,
        at: moment(row.try_get("at")?),
        members: row.try_get("members")?,
    })
}

pub(super) fn digest(row: &SqliteRow) -> Read<[u8; 32]> {
    let bytes: Vec<u8> = row.try_get("digest")?;
    bytes.try_into().map_err(|_| wrong("a digest"))
}

pub(super) fn id(row: &SqliteRow, name: &str) -> Read<RecordId> {
    let text: String = row.try_get(name)?;
    parsed(&text)
}

pub(super) fn parsed(text: &str) -> Read<RecordId> {
    RecordId::parse(text).ok_or_else(|| wrong("an id"))
}

pub(super) fn wrong(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("what is kept is not {what}").into())
}

/// Words as the database keeps them: a JSON array.
pub(super) fn words(words: &[String]) -> String {
    serde_json::Value::from(words).to_string()
}

pub(super) fn list_of(row: &SqliteRow, name: &str) -> Read<Vec<String>> {
    let text: String = row.try_get(name)?;
    serde_json::from_str(&text).map_err(|_| wrong("a list of words"))
}
