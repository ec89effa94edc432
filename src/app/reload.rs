//! Changes while the gateway runs: the whole configuration is read anew, off the path of calls, and comes into force
//! whole or not at all.
//!
//! What is read and found valid becomes the next generation. If anything in it is wrong, the last good one stays, and
//! that is said aloud: in the log with every mistake, in a metric, and in `/readyz`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls_pki_types::UnixTime;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::ageing::Ageing;
use super::generation;
use crate::call::AgentId;
use crate::config::{self, Digests, Loaded, Settings, Sources, Unmanned};
use crate::identify::svid::Role;
use crate::net::Inside;
use crate::oidc;
use crate::pipeline::Generation;
use crate::yaml::Mistake;

/// How often a configuration that changes while it is read is read again.
const READS_MAX: usize = 5;
/// How long programs of an upstream that was changed or removed may go on with what they do.
const LEFT_TIME_MAX: Duration = Duration::from_secs(600);
/// How often it is looked whether they have come to an end.
const LEFT_LOOK: Duration = Duration::from_millis(250);

/// Whether the configuration on disk is in force, for `/readyz`.
#[derive(Default)]
pub struct Standing {
    /// The last attempt, when it was refused.
    pub refused: ArcSwapOption<Refused>,
    /// What has changed and waits for a restart, by its key.
    pub restart: ArcSwap<Vec<&'static str>>,
    /// Policies that hold calls which nobody could approve.
    pub unmanned: ArcSwap<Vec<Unmanned>>,
}

/// An attempt that was refused.
pub struct Refused {
    /// When.
    pub at: SystemTime,
    /// Why.
    pub mistakes: Vec<Mistake>,
}

/// What an attempt is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Somebody asked: there is a new generation whatever was changed.
    Asked,
    /// A file was touched, perhaps without any change.
    Touched,
}

/// Brings what is on disk into force.
pub struct Reload {
    file: PathBuf,
    /// As at the start; some of it cannot change any more.
    settings: Settings,
    ageing: Arc<Ageing>,
    standing: Arc<Standing>,
    /// Held by the one attempt that is made at a time.
    turn: Mutex<()>,
    last: Mutex<Last>,
    /// What ends on its own after it was taken out of the configuration.
    left: TaskTracker,
    drain: watch::Receiver<bool>,
}

/// What was read last.
struct Last {
    /// Whether it is in force or not.
    sources: Sources,
    /// Of the generation in force.
    digests: Digests,
}

impl Reload {
    pub(super) fn new(
        file: PathBuf,
        sources: Sources,
        (settings, unmanned): (Settings, Vec<Unmanned>),
        ageing: Arc<Ageing>,
        drain: watch::Receiver<bool>,
    ) -> Reload {
        let gateway = &ageing.gateway;
        let digests = sources.digests();
        let generation = gateway.in_force.load_full();
        let entry = generation::record(&generation, &Digests::new(), &digests);
        gateway.evidence.ledger.append_detached(entry);
        gateway.evidence.telemetry.metrics().generation(generation.number);
        let last = Mutex::new(Last { sources, digests });
        let (standing, turn, left) = (Arc::default(), Mutex::default(), TaskTracker::new());
        let reload = Reload { file, settings, ageing, standing, turn, last, left, drain };
        reload.manned(unmanned);
        reload
    }

    /// Whether the configuration on disk is in force.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Reads the configuration now, and gives the number of the generation that is in force with it; or every mistake,
    /// and the last good one stays.
    pub async fn now(self: &Arc<Self>) -> Result<u64, Vec<Mistake>> {
        let attempt = self.attempt(Cause::Asked).await;
        if let Err(mistakes) = &attempt {
            self.refuse(mistakes);
        }
        attempt
    }

    /// Cuts the connections of these agents, with their streams, and says how many.
    pub fn cut(&self, which: impl Fn(&AgentId) -> bool) -> usize {
        self.ageing.connections.cut(Role::Agents, |conn| which(conn.agent_id()))
    }

    /// The same as [`Reload::now`], without saying aloud what is wrong.
    pub(super) async fn attempt(self: &Arc<Self>, cause: Cause) -> Result<u64, Vec<Mistake>> {
        let (this, runtime) = (Arc::clone(self), Handle::current());
        let attempt = tokio::task::spawn_blocking(move || this.read(cause, &runtime));
        attempt.await.unwrap_or_else(|error| Err(vec![self.mistake(format!("cannot be read: {error}"))]))
    }

    /// Says aloud that what is on disk is not in force, and why.
    pub(super) fn refuse(&self, mistakes: &[Mistake]) {
        let metrics = self.ageing.gateway.evidence.telemetry.metrics();
        metrics.reload_failed();
        let generation = self.ageing.gateway.in_force.load().number;
        tracing::error!(
            event = "reload.refused",
            generation,
            mistakes = mistakes.len(),
            "the configuration on disk is not valid; the last good one stays in force"
        );
        for mistake in mistakes {
            tracing::error!(event = "reload.mistake", "{mistake}");
        }
        let refused = Refused { at: SystemTime::now(), mistakes: mistakes.to_vec() };
        self.standing.refused.store(Some(Arc::new(refused)));
    }

    /// Whether anything is not any more as it was read last.
    pub(super) fn changed(&self) -> bool {
        self.last().sources.changed()
    }

    /// What was read last, to be looked at.
    pub(super) fn sources(&self) -> Sources {
        self.last().sources.clone()
    }

    /// Waits for what was taken out of the configuration; the drain has told it to end.
    pub(super) async fn ended(&self) {
        self.left.close();
        self.left.wait().await;
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        // Each change is whole.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mistake(&self, problem: String) -> Mistake {
        Mistake::new(&self.file.display().to_string(), "", problem)
    }

    /// One attempt at a time, on a thread of its own.
    fn read(&self, cause: Cause, runtime: &Handle) -> Result<u64, Vec<Mistake>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..READS_MAX {
            let read = config::read(&self.file);
            let sources = match &read {
                Ok(loaded) => &loaded.sources,
                Err((_, sources)) => sources,
            };
            let changed = sources.changed();
            self.last().sources = sources.clone();
            // Half of what is there now and half of what was there before is nobody's configuration.
            if changed {
                continue;
            }
            let loaded = read.map_err(|(mistakes, _)| mistakes)?;
            let digests = loaded.sources.digests();
            self.standing.refused.store(None);
            let before = self.last().digests.clone();
            if cause == Cause::Touched && digests == before {
                return Ok(self.ageing.gateway.in_force.load().number);
            }
            let number = self.adopt(loaded, &before, &digests, runtime);
            self.last().digests = digests;
            return Ok(number);
        }
        Err(vec![self.mistake("changes again and again while it is read".to_owned())])
    }

    fn adopt(&self, loaded: Loaded, before: &Digests, digests: &Digests, runtime: &Handle) -> u64 {
        let Ageing { gateway, identity, trust, people: known, connections, notify, .. } = &*self.ageing;
        self.warn(&loaded.settings);
        let (unmanned, told) = (config::unmanned(&loaded), Arc::clone(&loaded.settings.notify));
        let people = Arc::new(loaded.people.clone());
        let old = gateway.in_force.load_full();
        let (next, presented, trusted) = generation::next(&old, loaded);
        let (next, trusted) = (Arc::new(next), Arc::new(trusted));
        // Invariant: it is queued before any call can be decided by it, so the audit tells of it first.
        gateway.evidence.ledger.append_detached(generation::record(&next, before, digests));
        identity.adopt(&presented);
        trust.store(Arc::clone(&trusted));
        known.store(people);
        notify.store(told);
        self.manned(unmanned);
        gateway.in_force.store(Arc::clone(&next));
        gateway.turned.notify_waiters();
        let untrusted = match ["config", "trust"].iter().all(|part| before.get(*part) == digests.get(*part)) {
            true => 0,
            false => connections.cut_untrusted(&trusted, UnixTime::now()),
        };
        let cut = untrusted + self.ageing.look();
        gateway.evidence.telemetry.metrics().generation(next.number);
        tracing::info!(
            event = "reload.in_force",
            generation = next.number,
            cut,
            "another configuration is in force"
        );
        for inside in old.upstreams.left_by(&next.upstreams) {
            let ending = leave(inside, Arc::downgrade(&old), self.drain.clone());
            self.left.spawn_on(ending, runtime);
        }
        next.number
    }

    /// Notes which policies hold calls that nobody could approve.
    fn manned(&self, unmanned: Vec<Unmanned>) {
        self.ageing.gateway.evidence.telemetry.metrics().holds_unmanned(unmanned.len());
        self.standing.unmanned.store(Arc::new(unmanned));
    }

    /// Says what has changed and cannot change while the gateway runs. The rest is applied.
    fn warn(&self, settings: &Settings) {
        let (before, now) = (fixed(&self.settings), fixed(settings));
        let differ = before.into_iter().zip(now).filter(|((_, before), (_, now))| before != now);
        let mut keys = Vec::new();
        for ((key, before), (_, now)) in differ {
            tracing::warn!(event = "reload.restart_needed", key, before, now, "a restart is needed for this");
            keys.push(key);
        }
        self.standing.restart.store(Arc::new(keys));
    }
}

/// What cannot change while the gateway runs, by the key that it is configured by.
fn fixed(settings: &Settings) -> Vec<(&'static str, String)> {
    let listeners = settings.listeners.iter();
    let listeners =
        listeners.map(|listener| format!("{} {:?} {}", listener.name, listener.kind, listener.address));
    let telemetry = &settings.telemetry;
    vec![
        ("listeners", listeners.collect::<Vec<_>>().join(", ")),
        ("oidc", settings.oidc.as_ref().map(oidc::Config::told).unwrap_or_default()),
        ("bounds of connections", format!("{:?}", settings.accept)),
        ("flow.profile", settings.flow.profile.as_str().to_owned()),
        ("flow.window", format!("{:?}", settings.flow.window)),
        ("audit.dir", settings.audit.dir.display().to_string()),
        ("store", settings.store.display().to_string()),
        ("keys.dir", settings.keys_dir.display().to_string()),
        ("telemetry", format!("{:?} {} {:?}", telemetry.otlp, telemetry.sample, telemetry.stages)),
    ]
}

/// Ends the programs of an upstream that is not configured any more, once the calls that know it have ended.
async fn leave(inside: Arc<dyn Inside>, known: Weak<Generation>, mut drain: watch::Receiver<bool>) {
    let unused = async {
        while known.strong_count() > 0 || !inside.is_idle() {
            tokio::time::sleep(LEFT_LOOK).await;
        }
    };
    tokio::select! {
        () = unused => {}
        () = tokio::time::sleep(LEFT_TIME_MAX) => {
            tracing::warn!(event = "reload.left_busy", "programs of a changed upstream are ended while in use");
        }
        _ = drain.wait_for(|drain| *drain) => {}
    }
    inside.end().await;
}
