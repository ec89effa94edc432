//! Wiring: from what configuration gives to a running gateway, its changes, and its orderly end.

mod ageing;
mod follow;
mod generation;
pub mod reload;

mod audit;
mod people;
mod sights;
mod state;

pub use state::{State, keep_labels, restore_labels};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::accept::{self, Conn, Connections, Door, Handler, tls};
use crate::admin;
use crate::breakglass::Lifts;
use crate::config::{self, Listener, ListenerKind, Loaded, Settings};
use crate::decode::Inbound;
use crate::flow::Runs;
use crate::flow::endorsed::Endorsed;
use crate::flow::text::FlowKey;
use crate::forward::breaker::OnChange;
use crate::health;
use crate::hold::Gate;
use crate::hold::sealed::Sealer;
use crate::identify::suspended::Suspensions;
use crate::identify::svid::{Role, Trust};
use crate::observe::Body;
use crate::pipeline::{self, Errands, Gateway, listing};
use crate::record::fold::Folds;
use crate::record::{Evidence, Ledger, OnCommit, Recovered};
use crate::secret::PseudonymKey;
use crate::secret::ring::{Purpose, Ring};
use crate::telemetry::Telemetry;
use crate::webhook;
use ageing::Ageing;
use reload::Reload;
use sights::StoredSights;

/// Why the gateway cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The audit.
    #[error("audit: {0}")]
    Audit(#[from] crate::record::LedgerError),
    /// An address is taken, or is not ours.
    #[error("listener `{name}` at {address}: {source}")]
    Bind {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The keys.
    #[error("keys: {0}")]
    Keys(#[from] crate::secret::ring::KeyError),
    /// The keys that are made for one run of the program.
    #[error("keys: {0}")]
    Random(String),
    /// The auditor's public key.
    #[error("keys: {0}")]
    Sealing(String),
    /// A socket of the admin listener.
    #[error("admin socket {path}: {why}")]
    Socket {
        /// Where it should be.
        path: std::path::PathBuf,
        /// Why it is not.
        why: String,
    },
    /// The store, or the index of records beside it.
    #[error("store: {0}")]
    Store(#[from] crate::store::StoreError),
    /// Traces.
    #[error(transparent)]
    Telemetry(#[from] crate::telemetry::StartError),
    /// TLS.
    #[error("tls: {0}")]
    Tls(String),
}

/// A gateway that serves.
pub struct Running {
    /// Every listener with the address it got.
    pub listeners: Vec<Listener>,
    /// What was found in the audit at the start.
    pub recovered: Recovered,
    gateway: Arc<Gateway>,
    state: State,
    reload: Arc<Reload>,
    tasks: JoinSet<()>,
    drain: watch::Sender<bool>,
    publishing: audit::Publishing,
}

/// Starts everything; when this returns, agents are served. Changes come into force by [`Reload`].
pub async fn start(loaded: Loaded) -> Result<Running, StartError> {
    let (settings, file, sources) = (loaded.settings.clone(), loaded.file.clone(), loaded.sources.clone());
    let bound = bind(&settings.listeners).await?;
    let sockets = people::bind(&settings.sockets).await?;
    let people = Arc::new(ArcSwap::from_pointee(loaded.people.clone()));
    let (unmanned, notify) =
        (config::unmanned(&loaded), Arc::new(ArcSwap::new(Arc::clone(&settings.notify))));
    audit::rotate(&settings).await?;
    let Wired { gateway, identity, trust, recovered, state, keeping, lineage } = gateway(loaded).await?;
    let (gateway, connections) = (Arc::new(gateway), Arc::new(Connections::default()));
    let (drain, draining) = watch::channel(false);
    let ageing = Arc::new(Ageing {
        gateway: Arc::clone(&gateway),
        identity: Arc::clone(&identity),
        trust: Arc::clone(&trust),
        people: Arc::clone(&people),
        notify: Arc::clone(&notify),
        connections: Arc::clone(&connections),
        told: Default::default(),
    });
    let begun = (settings.clone(), unmanned);
    let reload = Arc::new(Reload::new(file, sources, begun, Arc::clone(&ageing), draining.clone()));
    let admin = people::admin(&gateway, people, &state, &reload, settings.oidc.clone(), draining.clone())?;
    let mut tasks = JoinSet::new();
    attend(&gateway, notify, &mut tasks, &draining);
    tasks.spawn(Arc::clone(&gateway.lifts).attend(draining.clone()));
    tasks.spawn(ageing.watch(draining.clone()));
    let canaries = crate::flow::planted::file(&settings.store);
    tasks.spawn(state::planting(Arc::clone(&gateway.runs), canaries, lineage, draining.clone()));
    tasks.spawn(state::keeping(Arc::clone(&gateway), Arc::clone(&state.store), draining.clone()));
    let publishing = keeping.start(&gateway.evidence, &mut tasks, &draining);
    let mut listeners = Vec::new();
    for (listener, socket) in bound {
        let address = socket.local_addr().unwrap_or(listener.address);
        listeners.push(Listener { address, ..listener.clone() });
        match listener.kind {
            ListenerKind::Admin => {
                let Some(admin) = &admin else { continue };
                let bounds = admin::PeopleListener::bounds(&settings.accept);
                let people = admin::PeopleListener::new(Arc::clone(admin), &listener.name);
                let door = people::door(&trust, &identity, &connections, settings.oidc.as_ref())?;
                tasks.spawn(accept::serve(socket, door, bounds, people, draining.clone()));
            }
            ListenerKind::Agents => {
                let door = Door::new(&trust, Role::Agents, Arc::clone(&identity), &connections)
                    .map_err(StartError::Tls)?;
                let agents =
                    Arc::new(Agents { gateway: Arc::clone(&gateway), listener: listener.name.clone() });
                tasks.spawn(accept::serve(socket, door, settings.accept.clone(), agents, draining.clone()));
            }
            ListenerKind::Tasks => {
                let bounds = admin::PeopleListener::bounds(&settings.accept);
                let orchestrators = admin::OrchestratorListener::new(Arc::clone(&gateway), &listener.name);
                let door = Door::new(&trust, Role::Orchestrators, Arc::clone(&identity), &connections)
                    .map_err(StartError::Tls)?;
                tasks.spawn(accept::serve(socket, door, bounds, orchestrators, draining.clone()));
            }
            ListenerKind::Health => {
                let evidence = Arc::clone(&gateway.evidence);
                let standing = Arc::clone(reload.standing());
                tasks.spawn(health::serve(socket, evidence, standing, draining.clone()));
            }
        }
    }
    if let Some(admin) = &admin {
        people::serve(&mut tasks, sockets, admin, &draining);
    }
    Ok(Running { listeners, recovered, gateway, state, reload, tasks, drain, publishing })
}

/// Looks after holds, whom to tell of them, and lists of tools, until the drain.
fn attend(
    gateway: &Arc<Gateway>,
    notify: Arc<ArcSwap<webhook::Config>>,
    tasks: &mut JoinSet<()>,
    draining: &watch::Receiver<bool>,
) {
    let courier = webhook::Courier {
        store: Arc::clone(&gateway.store),
        gate: Arc::clone(&gateway.gate),
        metrics: Arc::clone(gateway.evidence.telemetry.metrics()),
        config: notify,
    };
    tasks.spawn(Arc::clone(&gateway.gate).attend(draining.clone()));
    tasks.spawn(courier.attend(draining.clone()));
    tasks.spawn(listing::attend(Arc::clone(gateway), draining.clone()));
}

async fn bind(listeners: &[Listener]) -> Result<Vec<(Listener, TcpListener)>, StartError> {
    let mut bound = Vec::new();
    for listener in listeners {
        let socket = TcpListener::bind(listener.address).await.map_err(|source| StartError::Bind {
            name: listener.name.clone(),
            address: listener.address,
            source,
        })?;
        bound.push((listener.clone(), socket));
    }
    Ok(bound)
}

/// What is ready to serve.
struct Wired {
    gateway: Gateway,
    identity: Arc<tls::Identity>,
    trust: Arc<ArcSwap<Trust>>,
    recovered: Recovered,
    state: State,
    keeping: audit::Keeping,
    lineage: crate::secret::ring::Bytes,
}

async fn gateway(loaded: Loaded) -> Result<Wired, StartError> {
    let settings: Settings = loaded.settings.clone();
    let ring = Ring::open(&settings.keys_dir)?;
    let pseudonyms = PseudonymKey::new(&*ring.current_or_new(Purpose::Pseudonym)?);
    let telemetry = Arc::new(Telemetry::start(&settings.telemetry)?);
    let lineage = ring.current_or_new(Purpose::Lineage)?;
    let runs = Arc::new(Runs::new(settings.flow, FlowKey::new(&lineage)));
    let dir = settings.audit.dir.clone();
    let watched = Arc::clone(&telemetry);
    let on_commit: OnCommit = Arc::new(move |bytes, waited| watched.metrics().audit_committed(bytes, waited));
    let store = state::open(&settings.store).await?;
    let capture = audit::capture(&ring, settings.keeping.capturing)?;
    let config = crate::record::Config { on_commit: Some(on_commit), ..settings.audit };
    let (config, keeping) = audit::Keeping::of(config, &settings.keeping, &ring)?;
    let (ledger, recovered) = Ledger::open(config)?;
    restore_labels(&runs, &*store, &dir, (ledger.end())()).await?;
    state::plant(&runs, &crate::flow::planted::file(&settings.store), &lineage);
    let journal = state::journal(&runs, &*store, &settings.store, &lineage).await?;
    let tasks = state::tasks(&runs, &*store, &ring).await?;
    let endorsed = Endorsed::of(&store.endorsements().await?);
    let asked = settings.listeners.iter().any(|listener| listener.kind == ListenerKind::Admin);
    let index = match asked || !settings.sockets.is_empty() {
        true => Some(Arc::new(state::index(&settings.store, &dir, &ledger, &telemetry).await?)),
        false => None,
    };
    let suspensions = Suspensions::read(Arc::clone(&store)).await?;
    let watched = Arc::clone(&telemetry);
    let breakers: OnChange = Arc::new(move |name, phase| watched.metrics().upstream_breaker(name, phase));
    let evidence = Evidence {
        ledger,
        telemetry,
        pseudonyms,
        capture,
        folds: Folds::default(),
        open: TaskTracker::new(),
    };
    let evidence = Arc::new(evidence);
    // Nobody is waited for where nobody can decide: people do so on the admin listener alone.
    let gate = Gate::open(Arc::clone(&store), Sealer::of(&ring)?, Arc::clone(&evidence), dir, asked).await?;
    let watched = Arc::clone(&evidence.telemetry);
    let lifts = Lifts::read(Arc::clone(&store), Arc::clone(&gate), watched).await?;
    let first = generation::First { breakers, sights: Arc::new(StoredSights(Arc::clone(&store))) };
    let (generation, identity, trust) = generation::first(first, loaded);
    let gateway = Gateway {
        in_force: ArcSwap::from_pointee(generation),
        turned: tokio::sync::Notify::new(),
        suspensions,
        runs,
        endorsed: ArcSwap::from_pointee(endorsed),
        tasks,
        journal: Arc::new(journal),
        store: Arc::clone(&store),
        evidence,
        gate,
        lifts,
        parked: Arc::default(),
        errands: Errands::default(),
    };
    Ok(Wired {
        gateway,
        identity: Arc::new(identity),
        trust: Arc::new(ArcSwap::from_pointee(trust)),
        recovered,
        state: State { store, index },
        keeping,
        lineage,
    })
}

// === impl Running ===

impl Running {
    /// The address of the first listener of a kind.
    pub fn address(&self, kind: ListenerKind) -> Option<SocketAddr> {
        self.listeners.iter().find(|listener| listener.kind == kind).map(|listener| listener.address)
    }

    /// What the stages work with; tests look at it.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// The store and the index of records.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What brings changes of the configuration into force.
    pub fn reload(&self) -> &Arc<Reload> {
        &self.reload
    }

    /// Follows the configuration's files from now on.
    pub fn follow(&mut self) {
        self.tasks.spawn(follow::follow(Arc::clone(&self.reload), self.drain.subscribe()));
    }

    /// Stops accepting, lets calls end, writes what is queued.
    pub async fn drain(mut self) {
        // Receivers that are gone have ended already.
        let _ = self.drain.send(true);
        let ended = async {
            while self.tasks.join_next().await.is_some() {}
            self.gateway.errands.made().await;
            self.gateway.evidence.closed().await;
            self.reload.ended().await;
        };
        if tokio::time::timeout(DRAIN_TIME_MAX, ended).await.is_err() {
            tracing::warn!("calls were still under way when the drain time ended");
            self.tasks.shutdown().await;
        }
        self.gateway.in_force.load_full().upstreams.end().await;
        self.state.end(&self.gateway).await;
        self.publishing.end(&self.gateway.evidence).await;
        self.gateway.evidence.telemetry.shutdown().await;
    }
}

/// How long calls may go on after the program was told to end.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(40);

/// The agents' listener.
struct Agents {
    gateway: Arc<Gateway>,
    listener: String,
}

impl Handler for Agents {
    type Body = Body;

    async fn call(self: Arc<Self>, conn: Arc<Conn>, request: Request<Incoming>) -> Response<Body> {
        pipeline::serve(&self.gateway, &conn, request.map(Inbound::Arriving)).await
    }

    fn refused(&self, peer: SocketAddr, reason: &'static str, detail: String) {
        self.gateway.evidence.connection_refused(&self.listener, peer, reason, &detail);
    }
}
