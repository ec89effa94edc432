//! What the index keeps of one line of the audit.

use std::borrow::Cow;
use std::time::SystemTime;

use memchr::memchr;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::{RecordId, unhex};
use crate::store::Row;

/// The longest text of a row, in bytes; what is longer is cut off at a character.
const TEXT_BYTES_MAX: usize = 1024;

/// The members that the index looks at. A text is empty where it is missing or no text.
#[derive(Debug, Default)]
struct Line<'l> {
    seq: u64,
    ts: Cow<'l, str>,
    id: Cow<'l, str>,
    kind: Cow<'l, str>,
    trace_id: Cow<'l, str>,
    agent: Cow<'l, str>,
    owner: Cow<'l, str>,
    team: Cow<'l, str>,
    upstream: Cow<'l, str>,
    tool: Cow<'l, str>,
    asked: Cow<'l, str>,
    class: Cow<'l, str>,
    decision: Decision<'l>,
    /// What would have been, where shadow let the call pass.
    would_be: Decision<'l>,
    status: Cow<'l, str>,
    reason: Cow<'l, str>,
    run: Cow<'l, str>,
    hold: Cow<'l, str>,
    intent: Cow<'l, str>,
    call: Cow<'l, str>,
    /// The emergency lift that the record is about, or those that decided the call, with blanks between.
    lifts: Cow<'l, str>,
}

#[derive(Debug, Default)]
struct Decision<'l> {
    outcome: Cow<'l, str>,
    rule: Cow<'l, str>,
    reason: Cow<'l, str>,
}

/// The row of a line that begins at an offset of a segment; `None` when it is no record.
pub(super) fn row(bytes: &[u8], segment: u64, offset: u64) -> Option<Row> {
    let line = scan(bytes).or_else(|| parse(bytes))?;
    let id = uuid::Uuid::try_parse(&line.id).ok()?;
    let id = RecordId::from_u128(id.as_u128());
    let at: SystemTime = OffsetDateTime::parse(&line.ts, &Rfc3339).ok()?.into();
    let or = |one: Cow<'_, str>, other: Cow<'_, str>| cut(if one.is_empty() { other } else { one });
    let ordered = line.kind == "admin";
    let belongs = match &*line.kind {
        "outcome" => uuid::Uuid::try_parse(&line.intent).ok(),
        "finding" => uuid::Uuid::try_parse(&line.call).ok(),
        _ => None,
    };
    Some(Row {
        id,
        seq: line.seq,
        segment,
        offset,
        at,
        call: belongs.map_or(id, |call| RecordId::from_u128(call.as_u128())),
        trace: unhex(&line.trace_id),
        kind: cut(line.kind),
        agent: cut(line.agent),
        owner: cut(line.owner),
        team: cut(line.team),
        upstream: cut(line.upstream),
        // What the catalogue does not name is found by what the agent asked for.
        tool: if line.asked.is_empty() { cut(line.tool) } else { cut(line.asked) },
        class: cut(line.class),
        outcome: or(line.decision.outcome, line.status),
        // Where shadow let a call pass, the rule that is looked for is the one that would have stopped it.
        // What a person says is why; of a call, the sentence of policy says more than the word of a stage.
        reason: match ordered {
            true => or(line.reason, line.decision.reason),
            false => or(or(line.would_be.reason, line.decision.reason).into(), line.reason),
        },
        rule: or(line.would_be.rule, line.decision.rule),
        would_be: cut(line.would_be.outcome),
        run: cut(line.run),
        hold: cut(line.hold),
        lifts: cut(line.lifts),
    })
}

/// Finds the members in a line as the gateway writes it, without reading what lies between them: the index sees every
/// record, and most of a record is no concern of it. `None` for a line in any other form.
fn scan(bytes: &[u8]) -> Option<Line<'_>> {
    let mut line = Line::default();
    members(bytes, |name, value| {
        let place = match name {
            b"seq" => {
                line.seq =
                    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
                return;
            }
            b"agent" => return line.agent = member(value, b"id"),
            b"decision" => {
                line.decision = Decision {
                    outcome: member(value, b"outcome"),
                    rule: member(value, b"rule"),
                    reason: member(value, b"reason"),
                };
                return;
            }
            b"would_be" => {
                line.would_be = Decision {
                    outcome: member(value, b"outcome"),
                    rule: member(value, b"rule"),
                    reason: member(value, b"detail"),
                };
                return;
            }
            b"input" => {
                return line.team =
                    find(value, b"agent").map(|agent| member(agent, b"team")).unwrap_or_default();
            }
            b"break_glass" => return line.lifts = joined(serde_json::from_slice(value).ok()),
            b"lift" => &mut line.lifts,
            b"ts" => &mut line.ts,
            b"id" => &mut line.id,
            b"type" => &mut line.kind,
            b"trace_id" => &mut line.trace_id,
            b"owner" => &mut line.owner,
            b"upstream" => &mut line.upstream,
            b"tool" => &mut line.tool,
            b"asked" => &mut line.asked,
            b"class" => &mut line.class,
            b"status" => &mut line.status,
            b"reason" => &mut line.reason,
            b"run" => &mut line.run,
            b"hold" => &mut line.hold,
            b"intent" => &mut line.intent,
            b"call" => &mut line.call,
            _ => return,
        };
        *place = text(value);
    })?;
    (line.seq > 0).then_some(line)
}

/// Shows each member of an object, its name as it is written and its value's text. `None` when there is a space in it, or
/// it is no object.
fn members<'l>(object: &'l [u8], mut show: impl FnMut(&'l [u8], &'l [u8])) -> Option<()> {
    let mut rest = object.strip_prefix(b"{")?;
    if rest == b"}" {
        return Some(());
    }
    loop {
        let (name, after) = rest.split_at_checked(string_end(rest)?)?;
        let after = after.strip_prefix(b":")?;
        let (value, after) = after.split_at_checked(value_end(after)?)?;
        show(name.get(1..name.len() - 1)?, value);
        match after.split_first()? {
            (b',', more) => rest = more,
            (b'}', []) => return Some(()),
            _ => return None,
        }
    }
}

/// The value of a member of an object, as text.
fn find<'l>(object: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let mut found = None;
    members(object, |member, value| {
        if member == name {
            found = Some(value);
        }
    })?;
    found
}

/// A text that is a member of an object.
fn member<'l>(object: &'l [u8], name: &[u8]) -> Cow<'l, str> {
    find(object, name).map(text).unwrap_or_default()
}

/// Where a string ends, behind its quote.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut end = 1;
    text.strip_prefix(b"\"")?;
    loop {
        let quote = end + memchr(b'"', text.get(end..)?)?;
        end = quote + 1;
        // An odd number of backslashes before it escapes it.
        let before = text.get(1..quote)?.iter().rev();
        if before.take_while(|byte| **byte == b'\\').count().is_multiple_of(2) {
            return Some(end);
        }
    }
}

/// Where a value ends that something follows.
fn value_end(text: &[u8]) -> Option<usize> {
    let (mut end, mut depth) = (0, 0_usize);
    loop {
        match text.get(end)? {
            b'"' => end += string_end(text.get(end..)?)?,
            b'{' | b'[' => (end, depth) = (end + 1, depth + 1),
            b'}' | b']' if depth == 0 => return Some(end),
            b'}' | b']' => (end, depth) = (end + 1, depth - 1),
            b',' if depth == 0 => return Some(end),
            b' ' => return None,
            _ => end += 1,
        }
    }
}

/// A JSON string or number as text; nothing for anything else.
fn text(value: &[u8]) -> Cow<'_, str> {
    let inside = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let plain = inside.filter(|inside| memchr(b'\\', inside).is_none());
    if let Some(plain) = plain.and_then(|plain| std::str::from_utf8(plain).ok()) {
        return Cow::Borrowed(plain);
    }
    match serde_json::from_slice(value) {
        Ok(Value::String(text)) => Cow::Owned(text),
        Ok(Value::Number(number)) => Cow::Owned(number.to_string()),
        _ => Cow::default(),
    }
}

/// A record in a form that the gateway does not write is read the slow way.
fn parse(bytes: &[u8]) -> Option<Line<'static>> {
    let record: Value = serde_json::from_slice(bytes).ok()?;
    let at = |pointer: &str| match record.pointer(pointer) {
        Some(Value::String(text)) => Cow::Owned(text.clone()),
        Some(Value::Number(number)) => Cow::Owned(number.to_string()),
        _ => Cow::default(),
    };
    Some(Line {
        seq: record.get("seq")?.as_u64()?,
        ts: at("/ts"),
        id: at("/id"),
        kind: at("/type"),
        trace_id: at("/trace_id"),
        agent: at("/agent/id"),
        owner: at("/owner"),
        team: at("/input/agent/team"),
        upstream: at("/upstream"),
        tool: at("/tool"),
        asked: at("/asked"),
        class: at("/class"),
        decision: Decision {
            outcome: at("/decision/outcome"),
            rule: at("/decision/rule"),
            reason: at("/decision/reason"),
        },
        would_be: Decision {
            outcome: at("/would_be/outcome"),
            rule: at("/would_be/rule"),
            reason: at("/would_be/detail"),
        },
        status: at("/status"),
        reason: at("/reason"),
        run: at("/run"),
        hold: at("/hold"),
        intent: at("/intent"),
        call: at("/call"),
        lifts: match record.get("break_glass") {
            Some(ids) => joined(serde_json::from_value(ids.clone()).ok()),
            None => at("/lift"),
        },
    })
}

/// Ids with blanks between.
fn joined<'l>(ids: Option<Vec<String>>) -> Cow<'l, str> {
    Cow::Owned(ids.unwrap_or_default().join(" "))
}

fn cut(text: Cow<'_, str>) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    match text {
        Cow::Borrowed(text) => text.get(..end).unwrap_or_default().to_owned(),
        Cow::Owned(mut text) => {
            text.truncate(end);
            text
        }
    }
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
    fn a_row_names_the_emergency_lifts_that_decided_its_call_or_that_it_is_about() {
        let head = format!(r#"{{"seq":8,"ts":"2026-11-21T01:02:03.5Z","id":"{ID}""#);
        let decided =
            format!(r#"{head},"type":"intent","input":{{"break_glass":{{}}}},"break_glass":["a","b"]}}"#);
        let about = format!(r#"{head},"type":"breakglass","lift":"a"}}"#);
        let neither = format!(r#"{head},"type":"intent","break_glass":7}}"#);
        let lifts = [decided, about, neither].map(|line| row(line.as_bytes(), 1, 0).unwrap().lifts);
        assert_eq!(lifts, ["a b", "a", ""]);
    }

    #[test]
    fn an_outcome_belongs_to_its_intent_and_a_finding_to_its_call() {
        let call = "01940000-0000-7000-8000-000000000002";
        let of = |kind: &str, member: &str| {
            let line = format!(
                r#"{{"seq":8,"ts":"2026-11-21T01:02:03.5Z","id":"{ID}","type":"{kind}","trace_id":null,"status":"executed","{member}":"{call}"}}"#
            );
            row(line.as_bytes(), 1, 0).unwrap()
        };
        assert_eq!(
            (of("outcome", "intent").call.to_string(), &*of("outcome", "intent").outcome),
            (call.to_owned(), "executed")
        );
        assert_eq!(of("finding", "call").call.to_string(), call);
        assert_eq!(of("finding", "intent").call.to_string(), ID);
        assert_eq!(of("intent", "call").call.to_string(), ID);
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

    #[test]
    fn a_line_is_read_alike_in_passing_and_the_slow_way() {
        let head =
            format!(r#""seq":8,"ts":"2026-11-21T01:02:03.5Z","id":"{ID}","type":"intent","trace_id":"{ID}""#);
        let members = [
            r#""owner":"a\"b\\","tool":"\u00fc\ud83d\ude00","class":"\\""#,
            r#""agent":{"id":"x","instance":"}"},"input":{"a":[{"agent":{"team":"no"}}],"agent":{"x":["]"],"team":"care"}}"#,
            r#""status":503,"hold":17,"reason":null,"run":true,"rule":"no","decision":{"rule":"a","errors":["{",",\""]}"#,
            r#""would_be":{"outcome":"held","rule":"flow","detail":"why not"},"decision":{"outcome":"allowed","reason":"why"}"#,
            r#""input":{"break_glass":["no"]},"break_glass":["a","b"],"decision":{"lifted":["no"]}"#,
            r#""what":"closed","lift":"a","rules":["no"]"#,
            r#""x":{"tool":"no","reason":"no"},"empty":{},"none":[],"asked":"PUT \/x""#,
        ];
        for members in members {
            let written = format!("{{{head},{members}}}");
            let spaced = format!("{{ {head},{members} }}");
            assert!(scan(written.as_bytes()).is_some() && scan(spaced.as_bytes()).is_none(), "{members}");
            let told = row(written.as_bytes(), 1, 0).unwrap();
            assert_eq!(row(spaced.as_bytes(), 1, 0).unwrap(), told);
            for cut in 0..written.len() {
                assert_eq!(row(&written.as_bytes()[..cut], 1, 0), None);
            }
        }
    }
}
