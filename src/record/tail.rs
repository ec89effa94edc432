//! Reads the log for people: the last records, one line each, and single records by their id.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::segment::{self, End, Lines};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);
/// How many records one search gives.
const FIND_MAX: usize = 1000;

/// How a record is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One readable line.
    Text,
    /// The record's own line.
    Json,
}

/// Where the reading stopped.
#[derive(Clone, Debug)]
pub struct Position {
    path: Option<PathBuf>,
    first: u64,
    offset: u64,
}

/// Writes the last records and says where it stopped.
pub fn last(dir: &Path, count: usize, format: Format, out: &mut dyn Write) -> io::Result<Position> {
    let segments = segment::list(dir)?;
    let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
    let mut position = Position { path: None, first: 0, offset: 0 };
    for segment in segments.iter().rev() {
        let mut lines = Lines::open(&segment.path, 0)?;
        let room = count - kept.len().min(count);
        let mut own: VecDeque<Vec<u8>> = VecDeque::new();
        let mut whole = 0;
        while let Some(line) = lines.read()? {
            if line.end != End::Newline {
                break;
            }
            whole = line.offset + line.bytes.len() as u64 + 1;
            own.push_back(line.bytes.to_vec());
            if own.len() > room {
                own.pop_front();
            }
        }
        if position.path.is_none() {
            position = Position { path: Some(segment.path.clone()), first: segment.first, offset: whole };
        }
        own.into_iter().rev().for_each(|line| kept.push_front(line));
        if kept.len() >= count {
            break;
        }
    }
    for line in &kept {
        show(line, format, out)?;
    }
    out.flush()?;
    Ok(position)
}

/// Shows every whole record's line, in order.
pub fn each(dir: &Path, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    for segment in segment::list(dir)? {
        let mut lines = Lines::open(&segment.path, 0)?;
        while let Some(line) = lines.read()? {
            if line.end == End::Newline {
                see(line.bytes);
            }
        }
    }
    Ok(())
}

/// Shows every whole record's line, the archived ones first, in order; says how many lines were not whole.
pub fn every(dir: &Path, mut see: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut torn = 0;
    for segment in segment::all(dir)? {
        let mut lines = Lines::open(&segment.path, 0)?;
        while let Some(line) = lines.read()? {
            match line.end {
                End::Newline => see(line.bytes),
                End::File | End::TooLong => torn += 1,
            }
        }
    }
    Ok(torn)
}

/// Writes what is appended after a position, as long as it is wanted.
pub fn follow(
    dir: &Path,
    mut position: Position,
    format: Format,
    out: &mut dyn Write,
    mut wanted: impl FnMut() -> bool,
) -> io::Result<()> {
    while wanted() {
        if let Some(path) = &position.path {
            let mut lines = Lines::open(path, position.offset)?;
            while let Some(line) = lines.read()? {
                if line.end != End::Newline {
                    break;
                }
                show(line.bytes, format, out)?;
                position.offset = line.offset + line.bytes.len() as u64 + 1;
            }
        }
        out.flush()?;
        // A successor is begun only after the last write to this one, so one more look finds what is left of it.
        let next = segment::list(dir)?.into_iter().find(|segment| segment.first > position.first);
        match next {
            Some(next) if at_end(&position)? => {
                position = Position { path: Some(next.path), first: next.first, offset: 0 };
            }
            Some(_) => {}
            None => std::thread::sleep(POLL),
        }
    }
    Ok(())
}

fn at_end(position: &Position) -> io::Result<bool> {
    position.path.as_ref().map_or(Ok(true), |path| Ok(std::fs::metadata(path)?.len() <= position.offset))
}

/// The records with an id, those that refer to it (`intent`, `hold`), and those of a trace; in order.
pub fn find(dir: &Path, needle: &str) -> io::Result<Vec<Value>> {
    let mut found = Vec::new();
    if needle.is_empty() {
        return Ok(found);
    }
    let finder = memchr::memmem::Finder::new(needle);
    for segment in segment::all(dir)? {
        let mut lines = Lines::open(&segment.path, 0)?;
        while let Some(line) = lines.read()? {
            let may = finder.find(line.bytes).is_some();
            let Some(record) = may.then(|| serde_json::from_slice::<Value>(line.bytes).ok()).flatten() else {
                continue;
            };
            let refers = ["id", "trace_id", "intent", "hold"]
                .iter()
                .any(|member| record.get(member).and_then(Value::as_str) == Some(needle));
            if refers && found.len() < FIND_MAX {
                found.push(record);
            }
        }
    }
    Ok(found)
}

fn show(line: &[u8], format: Format, out: &mut dyn Write) -> io::Result<()> {
    match (format, serde_json::from_slice::<Value>(line)) {
        (Format::Text, Ok(record)) => writeln!(out, "{}", summary(&record)),
        (Format::Text, Err(error)) => writeln!(out, "not a record: {error}"),
        (Format::Json, _) => {
            out.write_all(line)?;
            out.write_all(b"\n")
        }
    }
}

/// One line about a record: time, type, agent, what was called, class and consequence, decision, rule, status, id.
pub fn summary(record: &Value) -> String {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).map(printable);
    let number = |pointer: &str| record.pointer(pointer).and_then(Value::as_u64);
    let mut words = vec![
        text("/ts").unwrap_or_default(),
        format!("{:<10}", text("/type").unwrap_or_default()),
        text("/agent/id").map(|id| short(&id)).unwrap_or_else(|| "-".to_owned()),
    ];
    let tool = text("/tool").filter(|tool| !tool.is_empty()).or_else(|| text("/method"));
    let tool = match (tool, text("/asked")) {
        (Some(tool), Some(asked)) => Some(format!("{tool} ({asked})")),
        (tool, asked) => tool.or(asked),
    };
    match (text("/upstream"), tool) {
        (Some(upstream), Some(tool)) => words.push(format!("{upstream}.{tool}")),
        (Some(one), None) | (None, Some(one)) => words.push(one),
        (None, None) => {}
    }
    match (text("/class"), number("/consequence")) {
        (Some(class), Some(consequence)) => words.push(format!("{class}/{consequence}")),
        (Some(class), None) => words.push(class),
        _ => {}
    }
    words.extend(text("/decision/outcome"));
    words.extend(text("/decision/rule").filter(|rule| !rule.is_empty()).map(|rule| format!("by {rule}")));
    words.extend(text("/stage").map(|stage| format!("at {stage}")));
    words.extend(text("/status").or_else(|| number("/status").map(|status| status.to_string())));
    words.extend(record.pointer("/duration_ms").and_then(Value::as_f64).map(|ms| format!("{ms:.1} ms")));
    words.extend(text("/reason").map(|reason| format!("({reason})")));
    words.push(text("/id").unwrap_or_default());
    words.extend(text("/intent").map(|intent| format!("of {intent}")));
    words.join("  ")
}

/// An agent's name as a person would say it: the path's last part.
fn short(id: &str) -> String {
    id.rsplit('/').find(|part| !part.is_empty()).unwrap_or(id).to_owned()
}

/// What an agent or upstream chose must not move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_readable_line() {
        let record = serde_json::json!({
            "ts": "2026-11-21T01:02:03.000004Z", "type": "intent", "id": "0192", "agent": {"id": "spiffe://a/b/mailer"},
            "upstream": "mail", "tool": "send", "class": "external", "consequence": 3,
            "decision": {"outcome": "hold", "rule": "exfiltration"}, "reason": "to\u{1b}[2J outside",
        });
        let line = summary(&record);
        assert_eq!(
            line,
            "2026-11-21T01:02:03.000004Z  intent      mailer  mail.send  external/3  hold  by exfiltration  \
             (to\u{fffd}[2J outside)  0192"
        );
    }
}
