//! The audit's wiring: its keys, what of payloads it keeps, and what is done for it in the background.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::StartError;
use crate::config::Settings;
use crate::config::audit::{Capturing, Keeping as Kept, Target};
use crate::json::Members;
use crate::record::capture::Capture;
use crate::record::keep::Keeper;
use crate::record::publish::{self, Newest, OnPublished, Place};
use crate::record::rotate::{self, RotateError};
use crate::record::seal::Auditor;
use crate::record::{Config, Entry, Evidence, Kind};
use crate::secret::ring::{Purpose, Ring, Slot};
use crate::telemetry::poster::Poster;

/// How often old segments are looked for.
const KEEP_EVERY: Duration = Duration::from_secs(3600);
/// How often what was folded in floods that ended is written, and the disk's room is told.
const TICK: Duration = Duration::from_secs(1);
/// How long the last checkpoint may take to be published when the program ends.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// Puts staged keys into use, before anything uses the old ones.
pub(super) async fn rotate(settings: &Settings) -> Result<(), StartError> {
    let ring = Ring::open(&settings.keys_dir)?;
    let rotated = rotate::staged(&ring, &settings.audit).await.map_err(|error| match error {
        RotateError::Key(error) => StartError::Keys(error),
        RotateError::Ledger(error) => StartError::Audit(error),
    })?;
    for rotation in rotated {
        tracing::warn!(key.purpose = %rotation.purpose, key.old = %rotation.old, key.new = %rotation.new, "a key was rotated");
    }
    Ok(())
}

/// What of payloads is kept. Without the auditor's key nothing can be sealed, and the gateway does not start.
pub(super) fn capture(ring: &Ring, capturing: Capturing) -> Result<Capture, StartError> {
    match capturing {
        Capturing::Digest => Ok(Capture::Digest),
        Capturing::Redacted => Ok(Capture::Redacted),
        Capturing::Sealed => {
            let missing = || {
                StartError::Sealing(
                    "audit.capture: sealed needs the auditor's public key: run `holdpoint keys rotate sealing-public`"
                        .to_owned(),
                )
            };
            let public = ring.key(Purpose::SealingPublic, Slot::Current)?.ok_or_else(missing)?;
            Ok(Capture::Sealed(Arc::new(Auditor::new(&public).map_err(StartError::Sealing)?)))
        }
    }
}

/// What is done for the audit in the background.
pub(super) struct Keeping {
    keeper: Keeper,
    places: Vec<Place>,
    newest: Newest,
    /// The fingerprint of a signing key that had to be made though there was a log.
    made: Option<String>,
}

/// The task that publishes checkpoints.
pub(super) struct Publishing {
    task: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Keeping {
    /// Completes the ledger's configuration with who signs and who is told.
    pub(super) fn of(config: Config, kept: &Kept, ring: &Ring) -> Result<(Config, Keeping), StartError> {
        let lost = ring.key(Purpose::AuditSigning, Slot::Current)?.is_none() && segments(&config.dir);
        let signer = Arc::new(ring.signer()?);
        let made = lost.then(|| signer.public().fingerprint());
        let keeper = Keeper::new(&config.dir, kept.retention, Arc::clone(&signer));
        let (tell, newest) = watch::channel(None);
        let places =
            kept.targets.iter().map(place).collect::<Result<_, String>>().map_err(StartError::Sealing)?;
        let config = Config {
            signer: Some(signer),
            on_checkpoint: Some(Arc::new(move |checkpoint| {
                tell.send_replace(Some(checkpoint.clone()));
            })),
            ..config
        };
        Ok((config, Keeping { keeper, places, newest, made }))
    }

    /// Starts all of it.
    pub(super) fn start(
        self,
        evidence: &Arc<Evidence>,
        tasks: &mut JoinSet<()>,
        drain: &watch::Receiver<bool>,
    ) -> Publishing {
        if let Some(key) = &self.made {
            tracing::warn!(%key, "the audit had no signing key: a new one was made, and no older one vouches for it");
            let mut members = Members::default();
            members.text("action", "key-made");
            members.text("purpose", Purpose::AuditSigning.as_str());
            members.text("new", key);
            evidence.ledger.append_detached(Entry::new(Kind::Admin, None, members));
        }
        tasks.spawn(keep(Arc::new(self.keeper), Arc::clone(evidence), drain.clone()));
        tasks.spawn(tick(Arc::clone(evidence), drain.clone()));
        let telemetry = Arc::clone(&evidence.telemetry);
        let on_published: OnPublished = Arc::new(move |published| {
            if published.is_err() {
                telemetry.metrics().checkpoint_unpublished();
            }
        });
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(publish::run(self.places, self.newest, on_published, ended));
        Publishing { task, end }
    }
}

impl Publishing {
    /// Signs and publishes the end of the log.
    pub(super) async fn end(self, evidence: &Evidence) {
        evidence.folds.rest().into_iter().for_each(|entry| evidence.ledger.append_detached(entry));
        if let Err(error) = evidence.ledger.checkpoint().await {
            tracing::error!(%error, "the end of the audit could not be signed");
        }
        // A task that is gone has nothing to publish.
        let _ = self.end.send(());
        if tokio::time::timeout(END_TIME_MAX, self.task).await.is_err() {
            tracing::warn!("the last checkpoint was not published before the program ended");
        }
    }
}

/// Whether there is a log in a directory.
fn segments(dir: &Path) -> bool {
    let named = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("audit-");
    std::fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(named))
}

fn place(target: &Target) -> Result<Place, String> {
    Ok(match target {
        Target::File(path) => Place::File(path.clone()),
        Target::Otlp(endpoint) => Place::Otlp(Poster::otlp_logs(endpoint)?),
        Target::Url(url) => Place::Url(Poster::new(url)?),
    })
}

/// Archives and deletes what is due, by the hour.
async fn keep(keeper: Arc<Keeper>, evidence: Arc<Evidence>, mut drain: watch::Receiver<bool>) {
    loop {
        let (keeper, ledger) = (Arc::clone(&keeper), evidence.ledger.clone());
        let round = tokio::task::spawn_blocking(move || keeper.round(&ledger, SystemTime::now())).await;
        match round {
            Ok(Ok(kept)) if kept.archived > 0 || kept.deleted.is_some() => {
                let deleted = kept.deleted.map(|deletion| deletion.last_seq);
                tracing::info!(
                    audit.archived = kept.archived,
                    audit.deleted_to = deleted,
                    "old records were put away"
                );
            }
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "old records could not be put away"),
        }
        tokio::select! {
            () = tokio::time::sleep(KEEP_EVERY) => {}
            _ = drain.wait_for(|drain| *drain) => return,
        }
    }
}

/// Writes what was folded in floods that have ended, and tells how much room there is.
async fn tick(evidence: Arc<Evidence>, mut drain: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = drain.wait_for(|drain| *drain) => return,
        }
        evidence.folds.ended().into_iter().for_each(|entry| evidence.ledger.append_detached(entry));
        evidence.telemetry.metrics().audit_free_bytes(evidence.ledger.free_bytes());
    }
}
