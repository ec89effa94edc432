//! Some records that follow each other, as one value of the database: a row of its own for each record, with the indexes
//! that find it, costs several times as much. What stands in many of them, such as an agent or a tool, is written once.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{micros, moment};
use crate::call::{RecordId, hex};
use crate::store::{Filter, Row, Shadowed, Subject};

/// The longest text of a mark, in bytes: what finds a block need not say everything, its rows are looked at.
const MARK_BYTES_MAX: usize = 64;
/// The texts of a row.
const TEXTS: usize = 14;

/// A value that is no block.
#[derive(Debug, thiserror::Error)]
#[error("a block of the index is damaged")]
pub(super) struct Damaged;

fn texts(row: &Row) -> [&str; TEXTS] {
    [
        &row.kind,
        &row.agent,
        &row.owner,
        &row.team,
        &row.upstream,
        &row.tool,
        &row.class,
        &row.outcome,
        &row.would_be,
        &row.reason,
        &row.rule,
        &row.run,
        &row.hold,
        &row.lifts,
    ]
}

/// Writes rows, in the log's order.
pub(super) fn write(rows: &[Row]) -> Vec<u8> {
    let mut known: HashMap<&str, u64, FixedState> = HashMap::default();
    let (mut told, mut words) = (Vec::with_capacity(rows.len() * 64), Vec::with_capacity(4096));
    let (mut seq, mut at) = (0, 0);
    for row in rows {
        let written = micros(row.at);
        number(&mut told, row.seq.wrapping_sub(seq));
        number(&mut told, row.segment);
        number(&mut told, row.offset);
        // The clock may have been set back: the sign is the last bit.
        let later = written.wrapping_sub(at);
        number(&mut told, ((later << 1) ^ (later >> 63)).cast_unsigned());
        (seq, at) = (row.seq, written);
        told.extend_from_slice(&row.id.as_u128().to_be_bytes());
        told.push(u8::from(row.call != row.id) | u8::from(row.trace.is_some()) << 1);
        if row.call != row.id {
            told.extend_from_slice(&row.call.as_u128().to_be_bytes());
        }
        told.extend(row.trace.iter().flatten());
        for text in texts(row) {
            let next = known.len() as u64;
            let place = *known.entry(text).or_insert_with(|| {
                number(&mut words, text.len() as u64);
                words.extend_from_slice(text.as_bytes());
                next
            });
            number(&mut told, place);
        }
    }
    let mut block = Vec::with_capacity(told.len() + words.len() + 16);
    number(&mut block, known.len() as u64);
    block.extend_from_slice(&words);
    number(&mut block, rows.len() as u64);
    block.extend_from_slice(&told);
    block
}

/// Reads what [`write`] wrote.
pub(super) fn read(block: &[u8]) -> Result<Vec<Row>, Damaged> {
    let mut rest = Reader(block);
    let mut words = Vec::new();
    for _ in 0..rest.number()? {
        let bytes = usize::try_from(rest.number()?).map_err(|_| Damaged)?;
        words.push(std::str::from_utf8(rest.take(bytes)?).map_err(|_| Damaged)?);
    }
    let mut rows = Vec::new();
    let (mut seq, mut at) = (0_u64, 0_i64);
    for _ in 0..rest.number()? {
        seq = seq.wrapping_add(rest.number()?);
        let (segment, offset, later) = (rest.number()?, rest.number()?, rest.number()?);
        at = at.wrapping_add((later >> 1).cast_signed() ^ -(later & 1).cast_signed());
        let id = RecordId::from_u128(u128::from_be_bytes(rest.array()?));
        let [also] = rest.array()?;
        let call = match also & 1 {
            0 => id,
            _ => RecordId::from_u128(u128::from_be_bytes(rest.array()?)),
        };
        let trace = if also & 2 == 0 { None } else { Some(rest.array()?) };
        let mut text = || {
            let place = usize::try_from(rest.number()?).map_err(|_| Damaged)?;
            words.get(place).map(|text| (*text).to_owned()).ok_or(Damaged)
        };
        rows.push(Row {
            kind: text()?,
            agent: text()?,
            owner: text()?,
            team: text()?,
            upstream: text()?,
            tool: text()?,
            class: text()?,
            outcome: text()?,
            would_be: text()?,
            reason: text()?,
            rule: text()?,
            run: text()?,
            hold: text()?,
            lifts: text()?,
            id,
            seq,
            segment,
            offset,
            at: moment(at),
            call,
            trace,
        });
    }
    Ok(rows)
}

/// A number in groups of seven bits, the lowest first; the eighth says that more follow.
fn number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }
}

/// By what a block is found: each of its rows' marks, once.
pub(super) fn marks(rows: &[Row]) -> Vec<String> {
    let mut marks = Vec::with_capacity(rows.len() * 2);
    let mut texts: HashMap<(char, &str), (), FixedState> = HashMap::default();
    for row in rows {
        marks.push(of_record(row.id));
        if row.call != row.id {
            marks.push(of_record(row.call));
        }
        marks.extend(row.trace.map(|trace| of_trace(&trace)));
        let named = [
            ('a', &row.agent),
            ('h', &row.hold),
            ('o', &row.outcome),
            ('n', &row.tool),
            ('u', &row.upstream),
            ('w', &row.would_be),
        ];
        texts.extend(
            named.into_iter().filter(|(_, text)| !text.is_empty()).map(|(tag, text)| ((tag, &**text), ())),
        );
    }
    texts.extend(
        rows.iter()
            .flat_map(|row| row.lifts.split(' '))
            .filter(|id| !id.is_empty())
            .map(|id| (('l', id), ())),
    );
    if texts.keys().any(|(tag, _)| *tag == 'w') {
        texts.insert(('w', ""), ());
    }
    marks.extend(texts.keys().map(|(tag, text)| of_text(*tag, text)));
    // In their order, so that the database goes through its pages once.
    marks.sort_unstable();
    marks.dedup();
    marks
}

/// The mark of the record of this id, and of everything that belongs to its call.
pub(super) fn of_record(id: RecordId) -> String {
    format!("r{}", hex(&id.as_u128().to_be_bytes()))
}

fn of_trace(trace: &[u8; 16]) -> String {
    format!("t{}", hex(trace))
}

/// SQLite ends some texts at a NUL, so a mark has none.
fn of_text(tag: char, text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(MARK_BYTES_MAX)).unwrap_or_default();
    let text = if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text.into() };
    format!("{tag}{text}")
}

/// The marks that a block must have when one of its rows passes a filter, the rarest first as far as anybody knows.
pub(super) fn wanted(filter: &Filter) -> Vec<String> {
    let named = [
        ('n', filter.tool.as_deref()),
        ('a', filter.agent.as_deref()),
        ('w', filter.would_be.as_ref().map(Shadowed::word)),
        ('o', filter.outcome.as_deref()),
        ('u', filter.upstream.as_deref()),
    ];
    let texts = named.into_iter().filter_map(|(tag, text)| Some(of_text(tag, text?)));
    let lift = filter.lift.iter().map(|lift| of_text('l', &lift.to_string()));
    filter.trace.iter().map(of_trace).chain(lift).chain(texts).collect()
}

/// The marks of which a block has one when a row of it belongs to a story.
pub(super) fn related(subject: Subject) -> [String; 2] {
    match subject {
        Subject::Trace(trace) => [of_trace(&trace), of_trace(&trace)],
        Subject::Call(call) => [of_record(call), of_text('h', &call.to_string())],
    }
}

/// Whether a row belongs to a story.
pub(super) fn belongs(row: &Row, subject: Subject) -> bool {
    match subject {
        Subject::Trace(trace) => row.trace == Some(trace),
        Subject::Call(call) => row.call == call || row.hold == call.to_string(),
    }
}

/// Whether a filter lets a row through.
pub(super) fn passes(row: &Row, filter: &Filter) -> bool {
    let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
    let at = micros(row.at);
    is(&filter.agent, &row.agent)
        && is(&filter.upstream, &row.upstream)
        && is(&filter.tool, &row.tool)
        && is(&filter.outcome, &row.outcome)
        && filter.would_be.as_ref().is_none_or(|would_be| would_be.is(&row.would_be))
        && filter.lift.is_none_or(|lift| row.lifts.split(' ').any(|id| *id == lift.to_string()))
        && filter.trace.is_none_or(|trace| row.trace == Some(trace))
        && filter.from.is_none_or(|from| at >= micros(from))
        && filter.to.is_none_or(|to| at < micros(to))
        && filter.cursor.is_none_or(|cursor| row.seq < cursor)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn lift(seq: u64) -> RecordId {
        RecordId::from_u128(0xabc << 64 | u128::from(seq))
    }

    fn row(seq: u64) -> Row {
        let id = RecordId::from_u128(u128::from(seq) << 90);
        Row {
            id,
            seq,
            segment: 1,
            offset: seq << 40,
            // Now and then the clock goes back.
            at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_800_000_000_000_000 + (seq * 7919) % 1000),
            kind: "intent".to_owned(),
            call: if seq.is_multiple_of(2) { id } else { RecordId::from_u128(7) },
            agent: format!("agent-{}", seq % 5),
            owner: "ana@example.org".to_owned(),
            team: String::new(),
            upstream: "mail".to_owned(),
            tool: format!("Überweisung {seq} {}", "x".repeat(200)),
            class: "write".to_owned(),
            outcome: "allowed".to_owned(),
            would_be: if seq == 3 { "held" } else { "" }.to_owned(),
            reason: "a\0b".to_owned(),
            rule: "act".to_owned(),
            trace: (!seq.is_multiple_of(3)).then_some([seq as u8; 16]),
            run: "r".to_owned(),
            hold: String::new(),
            lifts: if seq < 3 { format!("{} {}", lift(1), lift(seq)) } else { String::new() },
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_off_or_changed_is_damaged_or_other_rows() {
        let rows: Vec<Row> = (1..12).map(row).collect();
        let block = write(&rows);
        assert_eq!(read(&block).unwrap(), rows);
        assert_eq!(read(&write(&[])).unwrap(), []);
        for cut in 0..block.len() {
            assert!(read(&block[..cut]).is_err(), "{cut}");
        }
        for at in 0..block.len() {
            let mut changed = block.clone();
            changed[at] ^= 0xff;
            // Whatever it says, it is said without a panic and without more memory than the block gives reason for.
            assert!(read(&changed).is_err() || read(&changed).is_ok());
        }
    }

    #[test]
    fn a_block_has_the_marks_of_each_filter_that_lets_a_row_through() {
        let rows: Vec<Row> = (1..20).map(row).collect();
        let marks = marks(&rows);
        let all = Filter::default;
        for row in &rows {
            let filters = [
                Filter { agent: Some(row.agent.clone()), ..all() },
                Filter { tool: Some(row.tool.clone()), outcome: Some(row.outcome.clone()), ..all() },
                Filter { trace: row.trace, upstream: Some(row.upstream.clone()), ..all() },
            ];
            for filter in filters {
                assert!(passes(row, &filter) && wanted(&filter).iter().all(|mark| marks.contains(mark)));
            }
            assert!(related(Subject::Call(row.call)).iter().any(|mark| marks.contains(mark)));
            assert!(marks.contains(&of_record(row.id)));
        }
        for shadowed in [Shadowed::Any, Shadowed::As("held".to_owned())] {
            let filter = Filter { would_be: Some(shadowed), ..all() };
            assert!(wanted(&filter).iter().all(|mark| marks.contains(mark)));
            assert_eq!(rows.iter().filter(|row| passes(row, &filter)).count(), 1);
        }
        for (number, count) in [(1, 2), (2, 1)] {
            let filter = Filter { lift: Some(lift(number)), ..all() };
            assert!(wanted(&filter).iter().all(|mark| marks.contains(mark)));
            assert_eq!(rows.iter().filter(|row| passes(row, &filter)).count(), count);
        }
        let filter = Filter { would_be: Some(Shadowed::As("denied".to_owned())), ..all() };
        assert!(wanted(&filter).iter().all(|mark| !marks.contains(mark)));
    }
}
