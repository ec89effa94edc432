//! What the index keeps of one line of the audit.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::{RecordId, unhex};
use crate::store::Row;

/// The longest text of a row, in bytes; what is longer is cut off at a character.
const TEXT_BYTES_MAX: usize = 1024;

/// The members that the index looks at; everything else is skipped unread.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    seq: u64,
    ts: String,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    trace_id: Option<String>,
    agent: Named,
    owner: String,
    upstream: String,
    tool: String,
    asked: String,
    class: String,
    decision: Decision,
    status: Value,
    reason: String,
    run: String,
    hold: Value,
    intent: Value,
    input: Input,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Decision {
    outcome: String,
    rule: String,
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    agent: Team,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Team {
    team: String,
}

/// The row of a line that begins at an offset of a segment; `None` when it is no record.
pub(super) fn row(bytes: &[u8], segment: u64, offset: u64) -> Option<Row> {
    let line = read(bytes)?;
    let id = uuid::Uuid::try_parse(&line.id).ok()?;
    let id = RecordId::from_u128(id.as_u128());
    let at: SystemTime = OffsetDateTime::parse(&line.ts, &Rfc3339).ok()?.into();
    let outcome = if line.decision.outcome.is_empty() { text(line.status) } else { line.decision.outcome };
    let closes = line.intent.as_str().filter(|_| line.kind == "outcome");
    let closes = closes.and_then(|intent| uuid::Uuid::try_parse(intent).ok());
    Some(Row {
        id,
        seq: line.seq,
        segment,
        offset,
        at,
        call: closes.map_or(id, |intent| RecordId::from_u128(intent.as_u128())),
        trace: line.trace_id.as_deref().and_then(unhex),
        kind: cut(line.kind),
        agent: cut(line.agent.id),
        owner: cut(line.owner),
        team: cut(line.input.agent.team),
        upstream: cut(line.upstream),
        tool: cut(if line.tool.is_empty() { line.asked } else { line.tool }),
        class: cut(line.class),
        outcome: cut(outcome),
        reason: cut(if line.reason.is_empty() { line.decision.reason } else { line.reason }),
        rule: cut(line.decision.rule),
        run: cut(line.run),
        hold: cut(text(line.hold)),
    })
}

/// A record of a kind that gives one of these names another meaning, or one of them twice, is read the slow way.
fn read(bytes: &[u8]) -> Option<Line> {
    serde_json::from_slice(bytes).ok().or_else(|| {
        let record: Value = serde_json::from_slice(bytes).ok()?;
        let at =
            |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Line {
            seq: record.get("seq")?.as_u64()?,
            ts: at("/ts"),
            id: at("/id"),
            kind: at("/type"),
            trace_id: Some(at("/trace_id")),
            agent: Named { id: at("/agent/id") },
            owner: at("/owner"),
            upstream: at("/upstream"),
            tool: at("/tool"),
            asked: at("/asked"),
            class: at("/class"),
            decision: Decision {
                outcome: at("/decision/outcome"),
                rule: at("/decision/rule"),
                reason: at("/decision/reason"),
            },
            status: record.get("status").cloned().unwrap_or_default(),
            reason: at("/reason"),
            run: at("/run"),
            hold: record.get("hold").cloned().unwrap_or_default(),
            intent: record.get("intent").cloned().unwrap_or_default(),
            input: Input { agent: Team { team: at("/input/agent/team") } },
        })
    })
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01940000-0000-7000-8000-000000000001";

    #[test]
    fn a_row_has_what_its_line_says() {
        let line = format!(
            r#"{{"v":1,"seq":7,"prev":"","ts":"2026-11-21T01:02:03.5Z","id":"{ID}","type":"intent","trace_id":"{}","agent":{{"id":"spiffe://a.example/x"}},"owner":"ana","upstream":"mail","tool":"send","class":"external","decision":{{"outcome":"allowed","rule":"act"}},"run":"r","input":{{"agent":{{"team":"care"}}}}}}"#,
            "07".repeat(16)
        );
        let row = row(line.as_bytes(), 3, 40).unwrap();
        assert_eq!((row.seq, row.segment, row.offset, row.call), (7, 3, 40, row.id));
        assert_eq!(
            [&*row.agent, &row.owner, &row.team, &row.tool],
            ["spiffe://a.example/x", "ana", "care", "send"]
        );
        assert_eq!([&*row.outcome, &row.rule, &row.run, &row.hold], ["allowed", "act", "r", ""]);
        assert_eq!(row.trace, Some([7; 16]));
    }

    #[test]
    fn an_outcome_belongs_to_its_intent() {
        let call = "01940000-0000-7000-8000-000000000002";
        let line = format!(
            r#"{{"seq":8,"ts":"2026-11-21T01:02:03.5Z","id":"{ID}","type":"outcome","trace_id":null,"status":"executed","intent":"{call}"}}"#
        );
        let row = row(line.as_bytes(), 1, 0).unwrap();
        assert_eq!((row.call.to_string(), &*row.outcome), (call.to_owned(), "executed"));
    }

    #[test]
    fn a_record_with_a_member_twice_or_of_another_kind_is_still_found() {
        let line = format!(
            r#"{{"seq":8,"ts":"2026-11-21T01:02:03.5Z","id":"{ID}","type":"admin","trace_id":null,"agent":"x","reason":"a","reason":"b","tool":"t"}}"#
        );
        let row = row(line.as_bytes(), 1, 0).unwrap();
        assert_eq!([&*row.kind, &row.agent, &row.reason, &row.tool], ["admin", "", "b", "t"]);
        assert_eq!(super::row(b"{\"seq\":", 1, 0), None);
    }
}
