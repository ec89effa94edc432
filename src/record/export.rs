//! Copies of records for other systems, a line each, in bounded memory. They are copies: the log is the evidence.

mod ocsf;
mod otlp;

use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::chain::Leaf;
use super::segment::{self, End, Lines};

pub use otlp::log as otlp_log;

/// The form of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The record's own line.
    Jsonl,
    /// An OCSF event of class API Activity.
    Ocsf,
    /// OTLP logs in JSON.
    Otlp,
}

impl Form {
    /// The form that a word names.
    pub fn parse(word: &str) -> Option<Form> {
        match word {
            "jsonl" => Some(Form::Jsonl),
            "ocsf" => Some(Form::Ocsf),
            "otlp" => Some(Form::Otlp),
            _ => None,
        }
    }
}

/// Which records are copied: those that fit all that is said.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The agent's SPIFFE ID, or its end.
    pub agent: Option<String>,
    /// The tool, or `UPSTREAM.TOOL`.
    pub tool: Option<String>,
    /// The outcome of the decision, or the status of an outcome.
    pub outcome: Option<String>,
    /// The trace's id.
    pub trace: Option<String>,
    /// Not before this time.
    pub from: Option<OffsetDateTime>,
    /// Before this time.
    pub to: Option<OffsetDateTime>,
}

/// A moment on the command line: RFC 3339, or a date, which begins at midnight UTC.
pub fn moment(text: &str) -> Result<OffsetDateTime, String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    let parsed = parsed.or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339));
    parsed.map_err(|_| format!("`{text}` is neither 2026-11-21 nor 2026-11-21T10:00:00Z"))
}

/// Writes copies of all records that fit; says how many.
pub fn export(dir: &Path, form: Form, filter: &Filter, out: &mut dyn Write) -> io::Result<u64> {
    let mut copied = 0;
    let segments = segment::all(dir)?;
    if segments.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no audit segment here"));
    }
    for segment in segments {
        let mut lines = Lines::open(&segment.path, 0)?;
        while let Some(line) = lines.read()? {
            if line.end != End::Newline {
                break;
            }
            let Ok(record) = serde_json::from_slice::<Value>(line.bytes) else {
                let at = format!("{}:{}: no record", segment.path.display(), line.number);
                return Err(io::Error::new(io::ErrorKind::InvalidData, at));
            };
            if !filter.fits(&record) {
                continue;
            }
            match form {
                Form::Jsonl => out.write_all(line.bytes)?,
                Form::Ocsf => match ocsf::event(&record, &Leaf::of(line.bytes).to_string()) {
                    Some(event) => serde_json::to_writer(&mut *out, &event)?,
                    None => continue,
                },
                Form::Otlp => {
                    serde_json::to_writer(&mut *out, &otlp::log(&record, &Leaf::of(line.bytes).to_string()))?;
                }
            }
            out.write_all(b"\n")?;
            copied += 1;
        }
    }
    out.flush()?;
    Ok(copied)
}

impl Filter {
    fn fits(&self, record: &Value) -> bool {
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let is = |wanted: &Option<String>, found: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(found);
        let (agent, tool) = (text("/agent/id"), text("/tool"));
        let at = OffsetDateTime::parse(text("/ts"), &Rfc3339).ok();
        is(&self.agent, &|wanted| agent == wanted || agent.ends_with(&format!("/{wanted}")))
            && is(&self.tool, &|wanted| tool == wanted || format!("{}.{tool}", text("/upstream")) == wanted)
            && is(&self.outcome, &|wanted| text("/decision/outcome") == wanted || text("/status") == wanted)
            && is(&self.trace, &|wanted| text("/trace_id") == wanted)
            && self.from.is_none_or(|from| at.is_some_and(|at| at >= from))
            && self.to.is_none_or(|to| at.is_some_and(|at| at < to))
    }
}

/// A record's time in nanoseconds since 1970.
fn nanos(record: &Value) -> i128 {
    let text = record.get("ts").and_then(Value::as_str).unwrap_or_default();
    OffsetDateTime::parse(text, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp_nanos)
}
