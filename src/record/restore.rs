//! What a restart takes from the audit: the labels that recent intents brought to their agents.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::segment::{self, Lines};
use crate::call::AgentId;
use crate::flow::Label;

/// How far back is looked: a `secret` label stands this long.
const BACK: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Deserialize)]
struct Intent {
    ts: String,
    agent: Agent,
    brings: Vec<String>,
}

#[derive(Deserialize)]
struct Agent {
    id: String,
}

/// Calls `restored` for each label that an intent of the last day brought, with its agent and its time.
pub fn labels(dir: &Path, mut restored: impl FnMut(&AgentId, Label, SystemTime)) -> io::Result<()> {
    let since = SystemTime::now() - BACK;
    if !dir.is_dir() {
        return Ok(());
    }
    for segment in segment::list(dir)? {
        if std::fs::metadata(&segment.path)?.modified()? < since {
            continue;
        }
        let mut lines = Lines::open(&segment.path, 0)?;
        while let Some(line) = lines.read()? {
            let line = line.bytes;
            // Only an intent that brings something has labels; the rest is not worth parsing.
            if !contains(line, b"\"type\":\"intent\"") || contains(line, b"\"brings\":[]") {
                continue;
            }
            let Ok(intent) = serde_json::from_slice::<Intent>(line) else { continue };
            let Ok(at) = OffsetDateTime::parse(&intent.ts, &Rfc3339) else { continue };
            let agent = AgentId::from_normalised(&intent.agent.id);
            for label in intent.brings.iter().filter_map(|word| Label::parse(word)) {
                restored(&agent, label, at.into());
            }
        }
    }
    Ok(())
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}
