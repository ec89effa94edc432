//! What outlives the process beside the audit: opened before agents are served, kept up to date, and closed last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::StartError;
use crate::call::AgentId;
use crate::flow::journal::{self, Journal};
use crate::flow::{self, Label, Runs, planted};
use crate::pipeline::Gateway;
use crate::record::index::Index;
use crate::record::restore::{self, Since};
use crate::record::{Ledger, LedgerError};
use crate::secret::ring::{Purpose, Ring, Slot};
use crate::store::sqlite::{self, Sqlite};
use crate::store::{Labelled, Place, Snapshot, Store, StoreError};
use crate::task::Tasks;
use crate::telemetry::Telemetry;

/// How often it is looked whether there are other canaries.
const LOOK_FOR_CANARIES_EVERY: Duration = Duration::from_secs(2);
/// How often the labels of runs are kept: a restart reads what the audit got since.
const KEEP_LABELS_EVERY: Duration = Duration::from_secs(30);

/// The store, and the index of the audit's records.
pub struct State {
    /// Suspensions, first sights of definitions, labels.
    pub store: Arc<dyn Store>,
    /// By which records are found, where people can ask for them: keeping it costs something for each call.
    pub index: Option<Arc<Index>>,
}

/// Opens the store; the error names its file.
pub(super) async fn open(path: &Path) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(Sqlite::open(path).await?))
}

/// Starts to follow the audit.
pub(super) async fn index(
    store: &Path,
    audit: &Path,
    ledger: &Ledger,
    telemetry: &Arc<Telemetry>,
) -> Result<Index, StartError> {
    let records = Arc::new(sqlite::Index::open(&store.with_extension("index.db")).await?);
    let telemetry = Arc::clone(telemetry);
    let on_lag = Box::new(move |records| telemetry.metrics().index_lag(records));
    Index::start(audit, records, Box::new(ledger.end()), on_lag)
        .map_err(|source| StoreError::Io { path: audit.to_owned(), source }.into())
}

/// Brings back the labels that stood when the process ended: those of the last snapshot, and those that the audit in
/// this directory got since. A restart cleans no run, and a gateway that cannot tell what its runs have read does not
/// start. `end` is where the audit ends. Says how much of the audit was read.
pub async fn restore_labels(
    runs: &Runs,
    store: &dyn Store,
    audit: &Path,
    end: Place,
) -> Result<Since, StartError> {
    let snapshot = store.labels().await?;
    let place = snapshot.as_ref().map(|snapshot| snapshot.place);
    for Labelled { agent, label, at, .. } in snapshot.into_iter().flat_map(|snapshot| snapshot.labels) {
        let unknown =
            || StoreError::Failed(format!("it has the label `{label}`, which this version does not know"));
        runs.label(&of_whole(agent), &[Label::parse(&label).ok_or_else(unknown)?], None, at);
    }
    let bring = |agent: &AgentId, label, at| {
        runs.label(&of_whole(agent.clone()), &[label], None, at);
    };
    let since = restore::labels(audit, place, end, runs.longest(), bring)
        .map_err(|source| LedgerError::Io { path: audit.to_owned(), source })?;
    if place.is_some() && since == Since::Oldest {
        tracing::warn!("the audit is not the one by which labels were kept: all of its last day was read");
    }
    Ok(since)
}

/// An agent as a whole.
fn of_whole(agent: AgentId) -> flow::RunKey {
    flow::RunKey { agent, run: Arc::from(""), trace: None, instance: None, isolated: None }
}

/// Opens the journal beside the store, and brings back what runs have learnt and sent, and what is frozen.
pub(super) async fn journal(
    runs: &Runs,
    store: &dyn Store,
    file: &Path,
    key: &[u8; 32],
) -> Result<Journal, StartError> {
    let dir = file.with_file_name("flow");
    let config = journal::Config {
        dir: dir.clone(),
        window: runs.config().window,
        secret_window: runs.longest(),
        key: journal::key_mark(key),
    };
    let opened = Journal::open(config, |frame, readable| flow::restore(runs, frame, readable));
    let journal = opened.map_err(|source| StoreError::Io { path: dir, source })?;
    for frozen in store.frozen().await? {
        let run: Arc<str> = Arc::from(frozen.run);
        runs.freeze(&frozen.agent, (!run.is_empty()).then_some(&run), frozen.at);
    }
    Ok(journal)
}

/// Brings back the tasks that are open: whoever works on one of them has met the others.
pub(super) async fn tasks(runs: &Runs, store: &dyn Store, ring: &Ring) -> Result<Tasks, StartError> {
    let (current, previous) =
        (ring.current_or_new(Purpose::Tasks)?, ring.key(Purpose::Tasks, Slot::Previous)?);
    let tasks = Tasks::new(store.tasks().await?, &current, previous.as_deref())?;
    let now = SystemTime::now();
    for scope in tasks.all() {
        runs.meet_by_task(&scope.task.agents, &scope.task.above, now);
    }
    Ok(tasks)
}

/// Keeps the labels of all runs, by the place where the audit ends at this moment, which it gives.
pub async fn keep_labels(
    runs: &Runs,
    store: &dyn Store,
    end: impl Fn() -> Place,
) -> Result<Place, StoreError> {
    // Invariant: a label is in memory before its intent is written, so what is read after the place was taken has all
    // labels that came before it.
    let place = end();
    let labelled = |(agent, label, at): (_, Label, _)| Labelled {
        agent,
        run: String::new(),
        label: label.as_str().to_owned(),
        at,
    };
    let labels = runs.labels(SystemTime::now()).into_iter().map(labelled).collect();
    store.keep_labels(Snapshot { place, labels }).await.map(|()| place)
}

/// Keeps the labels from time to time, as long as the gateway serves.
pub(super) async fn keeping(gateway: Arc<Gateway>, store: Arc<dyn Store>, mut drain: watch::Receiver<bool>) {
    let mut kept = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(KEEP_LABELS_EVERY) => {}
            _ = drain.wait_for(|drain| *drain) => return,
        }
        if kept != Some((gateway.evidence.ledger.end())()) {
            kept = keep(&gateway, &*store).await.or(kept);
        }
    }
}

async fn keep(gateway: &Gateway, store: &dyn Store) -> Option<Place> {
    match keep_labels(&gateway.runs, store, gateway.evidence.ledger.end()).await {
        Ok(place) => Some(place),
        Err(error) => {
            gateway.evidence.telemetry.metrics().store_failed();
            tracing::warn!(%error, "the labels of runs were not kept: a restart reads more of the audit");
            None
        }
    }
}

/// Reads the canaries again whenever their file has changed, as long as the gateway serves.
pub(super) async fn planting(
    runs: Arc<Runs>,
    file: PathBuf,
    key: Zeroizing<[u8; 32]>,
    mut drain: watch::Receiver<bool>,
) {
    let mut read = None;
    loop {
        let changed = std::fs::metadata(&file).and_then(|meta| meta.modified()).ok();
        if changed.is_some() && changed != read {
            plant(&runs, &file, &key);
            read = changed;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_FOR_CANARIES_EVERY) => {}
            _ = drain.wait_for(|drain| *drain) => return,
        }
    }
}

/// Puts the canaries of a file in force. A file that cannot be read leaves those that are.
pub(super) fn plant(runs: &Runs, file: &Path, key: &[u8; 32]) {
    match planted::in_force(file, key) {
        Ok((canaries, others)) => {
            runs.plant(canaries);
            for name in others {
                tracing::warn!(%name, "this canary is of another key and cannot be found: make it anew");
            }
        }
        Err(error) => tracing::error!(file = %file.display(), %error, "canaries cannot be read"),
    }
}

impl State {
    /// Keeps the labels a last time and closes everything. Nothing may be asked of it afterwards.
    pub(super) async fn end(self, gateway: &Gateway) {
        keep(gateway, &*self.store).await;
        // Whoever still reads an event ends it with the last use of it.
        if let Some(index) = self.index.and_then(Arc::into_inner) {
            index.end().await;
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the store was not closed");
        }
    }
}
