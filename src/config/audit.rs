//! The audit's section: what is kept of payloads, for how long, and where checkpoints go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::Reader;
use super::raw::{Audit, CheckpointPlace, File};
use crate::record;
use crate::record::keep::Retention;
use crate::telemetry::poster::Poster;
use crate::yaml;

/// When segments are compressed if nothing else is said: 30 days.
const ARCHIVE_AFTER_SECONDS: u64 = 30 * 86_400;
/// The labels of a day come back from segments that are not archived.
const ARCHIVE_AFTER_MIN: Duration = Duration::from_secs(2 * 86_400);

/// What of payloads the audit keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capturing {
    /// Their digests.
    #[default]
    Digest,
    /// Their shape.
    Redacted,
    /// A copy sealed to the auditor.
    Sealed,
}

/// Where a checkpoint is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file.
    File(PathBuf),
    /// The collector of traces, as a log record.
    Otlp(String),
    /// An address that is posted to.
    Url(String),
}

/// How evidence is kept, beside where.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// What of payloads is kept.
    pub capturing: Capturing,
    /// For how long records are.
    pub retention: Retention,
    /// Where checkpoints are published.
    pub targets: Vec<Target>,
}

impl Reader {
    pub(super) fn audit(&mut self, raw: &File) -> Option<(record::Config, Keeping)> {
        let Some(audit) = &raw.audit else {
            self.mistake("audit", "is required: {dir: …}");
            return None;
        };
        let capturing = match audit.capture.as_deref() {
            None | Some("digest") => Capturing::Digest,
            Some("redacted") => Capturing::Redacted,
            Some("sealed") => Capturing::Sealed,
            Some(_) => {
                self.mistake("audit.capture", "must be `digest`, `redacted` or `sealed`");
                Capturing::Digest
            }
        };
        let dir = self.path(&audit.dir);
        let free = self.size("audit.free_bytes_min", audit.free_bytes_min.as_deref(), 0);
        let retention = self.retention(audit);
        let targets = self.targets(audit, raw, &dir);
        let config = record::Config { free_bytes_min: free as u64, ..record::Config::new(dir) };
        Some((config, Keeping { capturing, retention, targets }))
    }

    fn retention(&mut self, audit: &Audit) -> Retention {
        let after =
            self.duration("audit.archive_after", audit.archive_after.as_deref(), ARCHIVE_AFTER_SECONDS);
        if !after.is_zero() && after < ARCHIVE_AFTER_MIN {
            self.mistake(
                "audit.archive_after",
                "must be at least 2d: a restart reads the labels of the last day",
            );
        }
        let retain = audit.retain.as_deref().map(|text| self.duration("audit.retain", Some(text), 0));
        if retain.is_some_and(|retain| !retain.is_zero() && retain < after) {
            self.mistake(
                "audit.retain",
                "must not be shorter than `audit.archive_after` (30d when not said)",
            );
        }
        Retention { archive_after: after, retain }
    }

    fn targets(&mut self, audit: &Audit, raw: &File, dir: &Path) -> Vec<Target> {
        let mut targets = Vec::new();
        for (at, place) in audit.checkpoints.iter().enumerate() {
            let path = format!("audit.checkpoints[{at}]");
            match place {
                CheckpointPlace::Word(word) if word == "file" => {
                    targets.push(Target::File(dir.join("checkpoints.jsonl")));
                }
                CheckpointPlace::Word(word) if word == "otlp" => match &raw.telemetry.otlp {
                    Some(otlp) => targets.push(Target::Otlp(otlp.endpoint.clone())),
                    None => self.mistake(&path, "needs `telemetry.otlp.endpoint`"),
                },
                CheckpointPlace::File { file } => targets.push(Target::File(self.path(file))),
                CheckpointPlace::Url { url } => match Poster::new(url) {
                    Ok(_) if url.starts_with("https:") => targets.push(Target::Url(url.clone())),
                    Ok(_) => self.mistake(&path, "must be an https URL"),
                    Err(problem) => self.mistake(&path, problem),
                },
                CheckpointPlace::Word(_) => {
                    self.mistake(&path, "must be `file`, `otlp`, {file: PATH} or {url: https://…}");
                }
            }
        }
        targets
    }
}

/// The audit's directory that a configuration file names.
pub fn audit_dir(path: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(path).ok()?;
    let raw: File = yaml::read("", &text, &mut Vec::new())?;
    Some(path.parent().unwrap_or(Path::new(".")).join(raw.audit?.dir))
}
