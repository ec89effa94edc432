//! `holdpoint keys`: what keys there are, and putting new ones in their place.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::json;
use time::OffsetDateTime;

use super::policy::Said;
use crate::config::Settings;
use crate::record::rotate::{self, RotateError};
use crate::record::{LedgerError, seal};
use crate::secret::ring::{self, Bytes, Purpose, Ring};
use crate::units;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show every key, without its bytes.
    List,
    /// Make a new key and put it in the old one's place, with a record in the audit that the old key signs.
    Rotate {
        /// audit-signing, pseudonym or sealing-public.
        #[arg(value_parser = purpose)]
        purpose: Purpose,
        /// For sealing-public: the public key that the auditor made, base64 or 32 bytes.
        #[arg(long, conflicts_with = "private")]
        public: Option<PathBuf>,
        /// For sealing-public: make both keys, and write the private one here. Give it to the auditor and delete it.
        #[arg(long)]
        private: Option<PathBuf>,
    },
}

fn purpose(word: &str) -> Result<Purpose, String> {
    let words = Purpose::ALL.map(Purpose::as_str).join(", ");
    Purpose::parse(word).ok_or_else(|| format!("`{word}` is none of {words}"))
}

/// Runs one: 0 when it is done, 2 when it could not be, 64 when something else must be said.
pub(super) fn run(settings: &Settings, command: Command) -> Said {
    let done =
        Ring::open(&settings.keys_dir).map_err(|error| (2, error.to_string())).and_then(
            |ring| match command {
                Command::List => list(&ring),
                Command::Rotate { purpose, public, private } => {
                    rotate(&ring, settings, purpose, (public.as_deref(), private.as_deref()))
                }
            },
        );
    done.unwrap_or_else(|(code, problem)| Said {
        code,
        text: format!("holdpoint keys: {problem}\n"),
        json: json!({"error": problem}),
    })
}

type Problem = (u8, String);

fn list(ring: &Ring) -> Result<Said, Problem> {
    let listed = ring.list().map_err(|error| (2, error.to_string()))?;
    let (mut text, mut keys) = (String::new(), Vec::new());
    for key in listed {
        let written = key.written.map(|at| units::moment(OffsetDateTime::from(at), 0).to_string());
        let (purpose, slot) = (key.purpose.as_str(), key.slot.as_str());
        text.push_str(&format!(
            "{purpose:<15} {slot:<9} {}  {}\n",
            key.fingerprint,
            written.as_deref().unwrap_or("-")
        ));
        keys.push(
            json!({"purpose": purpose, "slot": slot, "fingerprint": key.fingerprint, "written": written}),
        );
    }
    Ok(Said { code: 0, text, json: json!({"keys": keys}) })
}

fn rotate(
    ring: &Ring,
    settings: &Settings,
    purpose: Purpose,
    files: (Option<&Path>, Option<&Path>),
) -> Result<Said, Problem> {
    let failed = |error: ring::KeyError| (2, error.to_string());
    let next = match (purpose, files) {
        (Purpose::SealingPublic, (Some(public), _)) => read(public)?,
        (Purpose::SealingPublic, (None, Some(private))) => {
            let (public, secret) = seal::key_pair().map_err(|problem| (2, problem))?;
            let text = zeroize::Zeroizing::new(format!("{}\n", STANDARD.encode(&secret[..])));
            ring::write_new(private, text.as_bytes()).map_err(failed)?;
            Bytes::new(public)
        }
        (Purpose::SealingPublic, (None, None)) => {
            return Err((64, "sealing-public needs --public FILE or --private FILE".to_owned()));
        }
        (_, (None, None)) => ring::random().map_err(failed)?,
        (_, _) => return Err((64, format!("{} takes no file", purpose.as_str()))),
    };
    if purpose == Purpose::SealingPublic {
        seal::Auditor::new(&next).map_err(|problem| (64, problem))?;
    }
    let name = ring::name(purpose, &next).map_err(failed)?;
    ring.stage(purpose, &next).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (2, error.to_string()))?;
    let word = purpose.as_str();
    match runtime.block_on(rotate::staged(ring, &settings.audit)) {
        Ok(_) => Ok(Said {
            code: 0,
            text: format!("{word}: {name} is in use\n"),
            json: json!({"purpose": word, "fingerprint": name, "in_use": true}),
        }),
        Err(RotateError::Ledger(LedgerError::Locked(_))) => Ok(Said {
            code: 0,
            text: format!("{word}: {name} is staged; the running gateway uses it from its next start on\n"),
            json: json!({"purpose": word, "fingerprint": name, "in_use": false}),
        }),
        Err(error) => Err((2, error.to_string())),
    }
}

/// A key from a file, as base64 or as its bytes.
pub(super) fn read(path: &Path) -> Result<Bytes, Problem> {
    let bytes = std::fs::read(path).map_err(|error| (2, format!("{}: {error}", path.display())))?;
    let bytes = zeroize::Zeroizing::new(bytes);
    let decoded = str::from_utf8(&bytes).ok().and_then(|text| STANDARD.decode(text.trim()).ok());
    let raw = zeroize::Zeroizing::new(decoded.unwrap_or_else(|| bytes.to_vec()));
    let key: Result<[u8; 32], _> = raw.as_slice().try_into();
    key.map(Bytes::new).map_err(|_| (64, format!("{}: is neither 32 bytes nor their base64", path.display())))
}
