//! Follows the files behind the configuration, so that what changes there comes into force without being asked for.
//!
//! The system's notices say that something may have happened; what counts is how the files stand. So a notice that is
//! lost costs time and nothing else, and where the system gives none, looking again and again is enough.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::reload::{Cause, Reload};

/// How long files must stand still before they are read.
const STILL: Duration = Duration::from_millis(200);
/// How long that is waited for.
const STILL_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long what is wrong may stay so before it is said aloud: a certificate comes before its key, or the other way.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often is looked while something is awaited.
const LOOK: Duration = Duration::from_millis(100);
/// How often is looked without a notice, and at least so much for each file.
const POLL: Duration = Duration::from_secs(5);
const POLL_PER_FILE: Duration = Duration::from_millis(1);

/// Follows until the drain begins.
pub(super) async fn follow(reload: Arc<Reload>, mut drain: watch::Receiver<bool>) {
    loop {
        let sources = reload.sources();
        let mut notices = Notices::of(sources.directories());
        let poll =
            POLL.max(POLL_PER_FILE.saturating_mul(u32::try_from(sources.now().len()).unwrap_or(u32::MAX)));
        while !changed(&reload).await {
            tokio::select! {
                _ = drain.wait_for(|drain| *drain) => return,
                () = notices.next() => {}
                () = tokio::time::sleep(poll) => {}
            }
        }
        tokio::select! {
            _ = drain.wait_for(|drain| *drain) => return,
            () = bring(&reload) => {}
        }
    }
}

/// Brings what has changed into force, or says why not.
async fn bring(reload: &Arc<Reload>) {
    let until = Instant::now() + PATIENCE;
    loop {
        still(reload).await;
        let Err(mistakes) = reload.attempt(Cause::Touched).await else { return };
        // The other half may be on its way.
        while !changed(reload).await {
            if Instant::now() >= until {
                return reload.refuse(&mistakes);
            }
            tokio::time::sleep(LOOK).await;
        }
        if Instant::now() >= until {
            return reload.refuse(&mistakes);
        }
    }
}

/// Waits until nothing changes any more.
async fn still(reload: &Arc<Reload>) {
    let until = Instant::now() + STILL_WAIT_MAX;
    let sources = reload.sources();
    let mut before = sources.now();
    while Instant::now() < until {
        tokio::time::sleep(STILL).await;
        let now = sources.now();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Looks off the path of calls, since a disk may be slow.
async fn changed(reload: &Arc<Reload>) -> bool {
    let reload = Arc::clone(reload);
    tokio::task::spawn_blocking(move || reload.changed()).await.unwrap_or(false)
}

/// The system's notices of what happens in some directories, as far as it gives any.
struct Notices {
    /// Held, since they end with it.
    _watcher: Option<RecommendedWatcher>,
    happened: mpsc::Receiver<()>,
}

impl Notices {
    fn of(directories: Vec<PathBuf>) -> Notices {
        let (happens, happened) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(&event.kind)) {
                // One that waits to be taken stands for all.
                let _ = happens.try_send(());
            }
        });
        let watched = watcher.and_then(|mut watcher| {
            for directory in directories.iter().filter(|directory| directory.is_dir()) {
                watcher.watch(directory, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        let watcher = watched
            .map_err(|error| {
                tracing::warn!(event = "reload.no_notices", %error, "changes of files are found by looking");
            })
            .ok();
        Notices { _watcher: watcher, happened }
    }

    async fn next(&mut self) {
        if self.happened.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether something may have changed: reading, as this gateway does itself, is none.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
