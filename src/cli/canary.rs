//! `holdpoint canary`: planted tokens that must never leave.

use clap::Subcommand;
use serde_json::json;
use time::OffsetDateTime;

use super::policy::{Said, table};
use crate::call::hex;
use crate::config::Settings;
use crate::flow::planted::{self, Planted};
use crate::secret::ring::{self, Purpose, Ring};
use crate::units;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token to plant where only an intruder would look. It is shown once; the gateway keeps a keyed digest.
    New {
        /// Where you will plant it, as you will be told when it leaves.
        #[arg(long)]
        name: String,
    },
    /// Show every canary, without its token.
    List,
}

/// Runs one: 0 when it is done, 2 when it could not be.
pub(super) fn run(settings: &Settings, command: &Command) -> Said {
    let done = match command {
        Command::New { name } => new(settings, name),
        Command::List => list(settings),
    };
    done.unwrap_or_else(|problem| Said {
        code: 2,
        text: format!("holdpoint canary: {problem}\n"),
        json: json!({"error": problem}),
    })
}

fn key(settings: &Settings) -> Result<ring::Bytes, String> {
    let ring = Ring::open(&settings.keys_dir).map_err(|error| error.to_string())?;
    ring.current_or_new(Purpose::Lineage).map_err(|error| error.to_string())
}

fn new(settings: &Settings, name: &str) -> Result<Said, String> {
    let file = planted::file(&settings.store);
    let token = hex(ring::random().map_err(|error| error.to_string())?.get(..20).unwrap_or_default());
    let created = units::moment(OffsetDateTime::now_utc(), 0).to_string();
    let planted = Planted::new(&*key(settings)?, name, created, &token);
    planted::add(&file, &planted).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Said {
        code: 0,
        text: format!(
            "{token}\nPlant it as `{name}`: in a record, a document, a vault. It is not shown again. A running gateway \
             knows it within seconds.\n"
        ),
        json: json!({"name": name, "token": token, "created": planted.created}),
    })
}

fn list(settings: &Settings) -> Result<Said, String> {
    let file = planted::file(&settings.store);
    let all = planted::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let key = key(settings)?;
    let mut rows = vec![["NAME", "CREATED", "STATE"].map(str::to_owned)];
    let state = |one: &Planted| if one.is_of(&key) { "in force" } else { "of another key: make it anew" };
    rows.extend(all.iter().map(|one| [one.name.clone(), one.created.clone(), state(one).to_owned()]));
    let list: Vec<_> = all
        .iter()
        .map(|one| json!({"name": one.name, "created": one.created, "in_force": one.is_of(&key)}))
        .collect();
    Ok(Said { code: 0, text: table(&rows), json: json!({"canaries": list}) })
}
