//! Publishes checkpoints where the log itself is not: what is known elsewhere cannot be rewritten with the log.
//!
//! Only the newest counts, since it covers all before it; so one waits at most, and no call waits for it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::checkpoint::Checkpoint;
use super::export;
use super::pen::append_to;
use crate::telemetry::poster::Poster;

/// How long after a failure it is tried again, if no newer checkpoint comes before.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Where checkpoints go.
pub enum Place {
    /// A line in a file, which is opened anew for each.
    File(PathBuf),
    /// A log record by OTLP over HTTP.
    Otlp(Poster),
    /// The body of a POST.
    Url(Poster),
}

/// Told of each checkpoint that could not be published, or that could: the metric's hook.
pub type OnPublished = Arc<dyn Fn(&Result<(), String>) + Send + Sync>;

/// The newest checkpoint, on its way to those who publish it.
pub type Newest = watch::Receiver<Option<Checkpoint>>;

/// Publishes until told to end, and then what is newest once more if it has not been.
pub async fn run(
    places: Vec<Place>,
    mut newest: Newest,
    on_published: OnPublished,
    mut end: oneshot::Receiver<()>,
) {
    let mut missing: Vec<bool> = places.iter().map(|_| false).collect();
    let mut ending = false;
    while !ending {
        let changed = tokio::select! {
            changed = newest.changed() => changed.is_ok(),
            () = tokio::time::sleep(RETRY_AFTER), if missing.contains(&true) => false,
            _ = &mut end => {
                ending = true;
                newest.has_changed().unwrap_or(false)
            }
        };
        if changed {
            missing.fill(true);
        }
        let Some(checkpoint) = newest.borrow_and_update().clone() else { continue };
        for (place, missing) in places.iter().zip(&mut missing) {
            if !*missing {
                continue;
            }
            let published = publish(place, &checkpoint).await;
            if let Err(error) = &published {
                tracing::warn!(audit.seq = checkpoint.seq, %error, "a checkpoint could not be published");
            }
            *missing = published.is_err();
            on_published(&published);
        }
    }
}

async fn publish(place: &Place, checkpoint: &Checkpoint) -> Result<(), String> {
    let body = json!(checkpoint);
    match place {
        Place::File(path) => {
            append(path, &body.to_string()).map_err(|error| format!("{}: {error}", path.display()))
        }
        Place::Url(poster) => poster.post(Bytes::from(body.to_string())).await,
        Place::Otlp(poster) => {
            let record = json!({"type": "checkpoint", "ts": checkpoint.at, "checkpoint": body});
            poster.post(Bytes::from(export::otlp_log(&record, &checkpoint.head).to_string())).await
        }
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = append_to(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}
