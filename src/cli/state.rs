//! `holdpoint state`: a copy of the store while a gateway serves, and a copy put back in its place.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde_json::json;

use super::policy::Said;
use crate::config::Settings;
use crate::record::restore::since;
use crate::store::StoreError;
use crate::store::sqlite::backup::{self, Copied, Restored};
use crate::units;

/// A clock may have been set back by so much since the copy was taken.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a copy of the store, also while the gateway serves.
    Backup {
        /// The file to make.
        file: PathBuf,
    },
    /// Put a copy in the place of the store, of a gateway that does not run. The audit wins over it.
    Restore {
        /// The file that `backup` made.
        file: PathBuf,
    },
}

/// Runs one: 0 when it is done, 1 when it is refused, 2 when it could not be.
pub(super) fn run(settings: &Settings, command: &Command) -> Said {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| (2, error.to_string())).and_then(|runtime| {
        let done = runtime.block_on(async {
            match command {
                Command::Backup { file } => backup::backup(&settings.store, file).await.map(|()| saved(file)),
                Command::Restore { file } => {
                    let later = |copied: &Copied| later(&settings.audit.dir, copied);
                    let restored = backup::restore(&settings.store, file, later).await;
                    restored.map(|restored| told(file, &restored))
                }
            }
        });
        done.map_err(|error| (if matches!(error, StoreError::Locked(_)) { 1 } else { 2 }, error.to_string()))
    });
    done.unwrap_or_else(|(code, problem)| Said {
        code,
        text: format!("holdpoint state: {problem}\n"),
        json: json!({"error": problem}),
    })
}

/// What the audit knows of what the copy has.
fn later(audit: &Path, copied: &Copied) -> Result<crate::store::sqlite::backup::Later, StoreError> {
    let holds = copied.open.iter().map(|hold| hold.id).collect();
    // Without a time in it the copy may be from any time: every suspension that was not lifted counts.
    let since = copied.at.and_then(|at| at.checked_sub(CLOCK_ERROR_MAX)).unwrap_or(SystemTime::UNIX_EPOCH);
    since::later(audit, &holds, since).map_err(|source| StoreError::Io { path: audit.to_owned(), source })
}

fn saved(file: &Path) -> Said {
    let name = file.display().to_string();
    let text = format!(
        "wrote {name}\nIt is of no use without the keys of `keys.dir`: what is held is encrypted by them.\n"
    );
    Said { code: 0, text, json: json!({"file": name}) }
}

fn told(file: &Path, restored: &Restored) -> Said {
    let name = file.display().to_string();
    let mut text = format!("restored {name}\n");
    for (hold, state) in &restored.holds {
        text.push_str(&format!("hold {hold} is {} by the audit\n", state.as_str()));
    }
    if restored.suspended > 0 {
        text.push_str(&format!("{} agents are suspended by the audit\n", restored.suspended));
    }
    let aside = restored.aside.as_ref().map(|aside| aside.display().to_string());
    if let Some(aside) = &aside {
        text.push_str(&format!("the store of before is {aside}\n"));
    }
    text.push_str(
        "What people gave or revoked since the copy was taken must be given or revoked again: look at `holdpoint \
         endorsements list`. Calls that were held since then are held anew.\n",
    );
    let holds: Vec<_> = restored
        .holds
        .iter()
        .map(|(hold, state)| json!({"hold": hold.to_string(), "state": state.as_str()}))
        .collect();
    let at = units::moment(SystemTime::now().into(), 0).to_string();
    let json =
        json!({"file": name, "at": at, "holds": holds, "suspended": restored.suspended, "aside": aside});
    Said { code: 0, text, json }
}
