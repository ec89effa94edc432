//! `holdpoint audit`: verify a log, and read it.

use std::io::{self, Write};
use std::path::Path;

use crate::record::tail::{self, Format};
use crate::record::verify::{self, Report, Status};

/// `audit verify DIR`: 0 when the log holds, 1 when it is tampered with or incomplete, 2 when it could not be read.
pub fn verify(dir: &Path, format: Format, out: &mut dyn Write) -> u8 {
    let shown = match verify::verify(dir) {
        Ok(report) => show(&report, format, out).map(|()| u8::from(report.status != Status::Ok)),
        Err(error) => Ok(unable("verify", dir, &error, format, out)),
    };
    shown.unwrap_or(2)
}

/// Says why the log could not be read.
fn unable(what: &str, dir: &Path, error: &io::Error, format: Format, out: &mut dyn Write) -> u8 {
    let text = format!("could not {what} {}: {error}", dir.display());
    // If nobody reads this either, the exit code is what is left to say it.
    let _ = match format {
        Format::Text => writeln!(io::stderr(), "{text}"),
        Format::Json => writeln!(out, "{}", serde_json::json!({ "error": text })),
    };
    2
}

fn show(report: &Report, format: Format, out: &mut dyn Write) -> io::Result<()> {
    if format == Format::Json {
        let text = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
        return writeln!(out, "{text}");
    }
    let status = match report.status {
        Status::Ok => "ok",
        Status::Incomplete => "incomplete",
        Status::Tampered => "TAMPERED",
    };
    writeln!(
        out,
        "{status}: {} records in {} segments, up to {}",
        report.records, report.segments, report.last_seq
    )?;
    if let Some(bad) = &report.first_bad {
        writeln!(out, "  first: {bad}")?;
    }
    if let Some(head) = &report.head {
        writeln!(out, "  head: {head}")?;
    }
    let counts = [
        ("intents without outcome", report.open_intents),
        ("of these perhaps still running", report.in_flight),
        ("repeated outcomes", report.repeated_outcomes),
        ("outcomes of archived intents", report.archived_intents),
        ("repairs after a crash", report.repairs),
    ];
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        writeln!(out, "  {name}: {count}")?;
    }
    report.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
}

/// Whether the reading goes on with what is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Stop at the end.
    Stop,
    /// Wait for more, until the output is closed.
    Follow,
}

/// `audit tail DIR [-n N] [--follow]`: 0, or 2 when the log could not be read.
pub fn tail(dir: &Path, count: usize, then: Then, format: Format, out: &mut dyn Write) -> u8 {
    let shown = tail::last(dir, count, format, out).and_then(|position| match then {
        Then::Stop => Ok(()),
        Then::Follow => tail::follow(dir, position, format, out, || true),
    });
    match shown {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => unable("read", dir, &error, format, out),
    }
}
