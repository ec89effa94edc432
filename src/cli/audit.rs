//! `holdpoint audit`: verify a log, read it, and take out of it what others need.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::json;
use time::OffsetDateTime;

use super::ConfigFile;
use crate::config;
use crate::record::export::{self, Filter, Form};
use crate::record::prove::{self, Proof};
use crate::record::tail::{self, Format};
use crate::record::verify::{self, Report, Status};
use crate::record::{Against, checkpoint, seal};
use crate::secret::ring;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// The audit's directory; the configuration's by default.
    #[arg(long, global = true)]
    audit: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify that no record was changed, removed or put in.
    Verify {
        /// The audit's directory; the configuration's by default.
        dir: Option<PathBuf>,
        /// The public keys that are believed: audit-signing.pub of the keys' directory, from where you kept it.
        #[arg(long)]
        key: Option<PathBuf>,
        /// Checkpoints that were kept elsewhere: they show whether the end was cut off or the log exchanged.
        #[arg(long)]
        checkpoint: Option<PathBuf>,
        /// Verify a proof of one record, and no directory.
        #[arg(long, conflicts_with_all = ["dir", "checkpoint"])]
        proof: Option<PathBuf>,
    },
    /// Write a proof that one record is in the log that a checkpoint signed.
    Prove {
        /// The record's id.
        id: String,
    },
    /// Open what was sealed of one call.
    Open {
        /// The id of the call's record.
        id: String,
        /// The auditor's private key: base64 or 32 bytes.
        #[arg(long)]
        key: PathBuf,
    },
    /// Copy records, a line each.
    Export {
        /// ocsf, otlp or jsonl.
        #[arg(long, value_parser = form)]
        format: Form,
        /// The agent's SPIFFE ID, or its end.
        #[arg(long)]
        agent: Option<String>,
        /// The tool, or UPSTREAM.TOOL.
        #[arg(long)]
        tool: Option<String>,
        /// A decision such as denied or held, or a status such as executed.
        #[arg(long)]
        outcome: Option<String>,
        /// The trace's id.
        #[arg(long)]
        trace: Option<String>,
        /// Not before: a date, or a time as 2026-11-21T10:00:00Z.
        #[arg(long, value_parser = export::moment)]
        from: Option<OffsetDateTime>,
        /// Before.
        #[arg(long, value_parser = export::moment)]
        to: Option<OffsetDateTime>,
    },
    /// Show the newest records.
    Tail {
        /// The audit's directory; the configuration's by default.
        dir: Option<PathBuf>,
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        count: usize,
        /// Wait for more.
        #[arg(short, long)]
        follow: bool,
    },
}

fn form(word: &str) -> Result<Form, String> {
    Form::parse(word).ok_or_else(|| format!("`{word}` is none of ocsf, otlp, jsonl"))
}

/// Runs one of the commands.
pub(super) fn run(arguments: Arguments, format: Format, out: &mut dyn Write) -> u8 {
    let Arguments { config, audit: named, command } = arguments;
    let dir =
        |own: Option<PathBuf>| own.or_else(|| named.clone()).or_else(|| config::audit_dir(&config.config));
    let missing = || {
        let error = io::Error::new(io::ErrorKind::NotFound, "has no audit.dir; say --audit DIR");
        unable("read", &config.config, &error, Format::Text, &mut io::stderr());
        super::USAGE
    };
    match command {
        Command::Verify { proof: Some(proof), key, .. } => verify_proof(&proof, key.as_deref(), format, out),
        Command::Verify { dir: own, key, checkpoint, .. } => match dir(own) {
            Some(dir) => verify_against(&dir, (key.as_deref(), checkpoint.as_deref()), format, out),
            None => missing(),
        },
        Command::Prove { id } => dir(None).map_or_else(missing, |dir| prove(&dir, &id, format, out)),
        Command::Open { id, key } => dir(None).map_or_else(missing, |dir| open(&dir, &id, &key, format, out)),
        Command::Export { format: form, agent, tool, outcome, trace, from, to } => {
            let filter = Filter { agent, tool, outcome, trace, from, to };
            dir(None).map_or_else(missing, |dir| copy(&dir, form, &filter, format, out))
        }
        Command::Tail { dir: own, count, follow } => match dir(own) {
            Some(dir) => tail(&dir, count, if follow { Then::Follow } else { Then::Stop }, format, out),
            None => missing(),
        },
    }
}

/// `audit verify DIR`: 0 when the log holds, 1 when it is tampered with or incomplete, 2 when it could not be read.
pub fn verify(dir: &Path, format: Format, out: &mut dyn Write) -> u8 {
    verify_against(dir, (None, None), format, out)
}

/// `audit verify DIR --key K --checkpoint F`, with the same codes.
pub fn verify_against(
    dir: &Path,
    (key, checkpoint): (Option<&Path>, Option<&Path>),
    format: Format,
    out: &mut dyn Write,
) -> u8 {
    let named =
        |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let against = || {
        let keys = key.map(|key| keys(key).map_err(|error| named(key, error))).transpose()?;
        let read = |path| checkpoint::read(path).map_err(|error| named(path, error));
        let checkpoints = checkpoint.map(read).transpose()?;
        Ok(Against { keys: keys.unwrap_or_default(), checkpoints: checkpoints.unwrap_or_default() })
    };
    let shown = match against().and_then(|against| verify::verify_against(dir, &against)) {
        Ok(report) => show(&report, format, out).map(|()| u8::from(report.status != Status::Ok)),
        Err(error) => Ok(unable("verify", dir, &error, format, out)),
    };
    shown.unwrap_or(2)
}

/// The public keys of a file; one without any believes nobody, so it is refused.
fn keys(path: &Path) -> io::Result<Vec<crate::secret::signer::PublicKey>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let keys = ring::public_keys(&std::fs::read_to_string(path)?).map_err(wrong)?;
    if keys.is_empty() { Err(wrong("has no key".to_owned())) } else { Ok(keys) }
}

/// `audit verify --proof FILE [--key K]`: 0 when the proof holds, 1 when it does not, 2 when it could not be read.
pub fn verify_proof(file: &Path, key: Option<&Path>, format: Format, out: &mut dyn Write) -> u8 {
    let read = || {
        let proof: Proof = serde_json::from_slice(&std::fs::read(file)?)?;
        Ok((proof, key.map(keys).transpose()?.unwrap_or_default()))
    };
    let (proof, keys) = match read() {
        Ok(read) => read,
        Err(error) => return unable("read", file, &error, format, out),
    };
    let shown = match (proof.check(&keys), format) {
        (Ok(proven), Format::Json) => writeln!(out, "{:#}", json!(proven)).map(|()| 0),
        (Ok(proven), Format::Text) => {
            let whose =
                if proven.believed { "" } else { ", which is believed only because it says so: give --key" };
            writeln!(
                out,
                "ok: record {} is in the log {}, as it was when {} signed it at {}{whose}",
                proven.seq, proven.origin, proven.key, proven.at
            )
            .map(|()| 0)
        }
        (Err(error), Format::Json) => writeln!(out, "{:#}", json!({"error": error.to_string()})).map(|()| 1),
        (Err(error), Format::Text) => writeln!(out, "NOT PROVEN: {error}").map(|()| 1),
    };
    shown.unwrap_or(2)
}

/// `audit prove ID`: writes the proof: 0, 1 when there is none, 2 when the log could not be read.
pub fn prove(dir: &Path, id: &str, format: Format, out: &mut dyn Write) -> u8 {
    match prove::prove(dir, id) {
        Ok(Ok(proof)) => writeln!(out, "{:#}", json!(proof)).map_or(2, |()| 0),
        Ok(Err(why)) => refused(&why, format, out),
        Err(error) => unable("read", dir, &error, format, out),
    }
}

/// `audit open ID --key K`: writes what was sealed: 0, 1 when it is erased or the key is another's, 2 when it could not be
/// read.
pub fn open(dir: &Path, id: &str, key: &Path, format: Format, out: &mut dyn Write) -> u8 {
    let private = match super::keys::read(key) {
        Ok(private) => private,
        Err((_, problem)) => return unable("read", key, &io::Error::other(problem), format, out),
    };
    let opened = match seal::open(dir, id, &private) {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return refused(&error.to_string(), format, out),
        Err(error) => return unable("read", dir, &error, format, out),
    };
    let written = opened.iter().try_for_each(|one| match format {
        Format::Json => {
            let text = str::from_utf8(&one.payload).ok();
            let raw = STANDARD.encode(&one.payload);
            writeln!(out, "{}", json!({"part": one.part.as_str(), "text": text, "base64": raw}))
        }
        Format::Text => {
            writeln!(out, "{}:", one.part.as_str())?;
            out.write_all(&one.payload)?;
            writeln!(out)
        }
    });
    written.map_or(2, |()| 0)
}

/// `audit export`: 0, or 2 when the log could not be read.
pub fn copy(dir: &Path, form: Form, filter: &Filter, format: Format, out: &mut dyn Write) -> u8 {
    let mut out = io::BufWriter::new(out);
    match export::export(dir, form, filter, &mut out) {
        Ok(_) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => unable("export", dir, &error, format, &mut out),
    }
}

/// Says what was found wanting.
fn refused(why: &str, format: Format, out: &mut dyn Write) -> u8 {
    let written = match format {
        Format::Text => writeln!(io::stderr(), "{why}"),
        Format::Json => writeln!(out, "{}", json!({ "error": why })),
    };
    written.map_or(2, |()| 1)
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
        ("signed checkpoints", report.checkpoints),
        ("last record that one covers", report.covered.unwrap_or(0)),
        ("checkpoints kept elsewhere that hold", report.held),
    ];
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        writeln!(out, "  {name}: {count}")?;
    }
    report.signed_by.iter().try_for_each(|key| writeln!(out, "  signed by: {key}"))?;
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
