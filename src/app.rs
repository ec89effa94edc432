//! Wiring: from what configuration gives to a running gateway, and its orderly end.

mod people;
mod state;

pub use state::{State, keep_labels, restore_labels};

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::accept::{self, Conn, Handler, tls};
use crate::admin;
use crate::config::{Listener, ListenerKind, Loaded, Settings};
use crate::credential::Broker;
use crate::decode::{Decoder, Inbound, Room, Route, Routes};
use crate::flow::Runs;
use crate::forward::Upstreams;
use crate::health;
use crate::identify::suspended::Suspensions;
use crate::identify::svid::Role;
use crate::json::Members;
use crate::limit::Meters;
use crate::observe::Body;
use crate::pipeline::{self, Errands, Gateway};
use crate::record::fold::Folds;
use crate::record::{Entry, Evidence, Kind, Ledger, OnCommit, Recovered};
use crate::secret::PseudonymKey;
use crate::telemetry::Telemetry;

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
    Keys(String),
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
    tasks: JoinSet<()>,
    drain: watch::Sender<bool>,
}

/// Starts everything; when this returns, agents are served.
pub async fn start(loaded: Loaded) -> Result<Running, StartError> {
    let settings = loaded.settings.clone();
    let bound = bind(&settings.listeners).await?;
    let sockets = people::bind(&settings.sockets).await?;
    let people = loaded.people.clone();
    let Wired { gateway, identity, trust, recovered, state } = gateway(loaded).await?;
    let gateway = Arc::new(gateway);
    let server = tls::server_config(Arc::clone(&trust), Role::Agents, Arc::clone(&identity));
    let server = server.map_err(StartError::Tls)?;
    let of_people =
        tls::server_config(trust, Role::People, Arc::clone(&identity)).map_err(StartError::Tls)?;
    let (drain, draining) = watch::channel(false);
    let admin = people::admin(&gateway, people, &state, draining.clone())?;
    let mut tasks = JoinSet::new();
    tasks.spawn(ageing(Arc::clone(&gateway), identity, draining.clone()));
    tasks.spawn(state::keeping(Arc::clone(&gateway), Arc::clone(&state.store), draining.clone()));
    let mut listeners = Vec::new();
    for (listener, socket) in bound {
        let address = socket.local_addr().unwrap_or(listener.address);
        listeners.push(Listener { address, ..listener.clone() });
        match listener.kind {
            ListenerKind::Admin => {
                let bounds = admin::PeopleListener::bounds(&settings.accept);
                let people = admin::PeopleListener::new(Arc::clone(&admin), &listener.name);
                let server = Arc::clone(&of_people);
                tasks.spawn(accept::serve(socket, server, bounds, people, draining.clone()));
            }
            ListenerKind::Agents => {
                let agents =
                    Arc::new(Agents { gateway: Arc::clone(&gateway), listener: listener.name.clone() });
                tasks.spawn(accept::serve(
                    socket,
                    Arc::clone(&server),
                    settings.accept.clone(),
                    agents,
                    draining.clone(),
                ));
            }
            ListenerKind::Health => {
                let evidence = Arc::clone(&gateway.evidence);
                tasks.spawn(health::serve(socket, evidence, draining.clone()));
            }
        }
    }
    people::serve(&mut tasks, sockets, &admin, &draining);
    Ok(Running { listeners, recovered, gateway, state, tasks, drain })
}

/// Tells the metrics what ages: the gateway's certificate, and reviews of agents.
async fn ageing(gateway: Arc<Gateway>, identity: Arc<tls::Identity>, mut drain: watch::Receiver<bool>) {
    const EVERY: Duration = Duration::from_secs(60);
    const WARNED_AHEAD: time::Duration = time::Duration::days(30);
    let name: Arc<str> = Arc::from("gateway");
    let metrics = gateway.evidence.telemetry.metrics();
    loop {
        if let Some(end) = identity.not_after() {
            let now = std::time::SystemTime::now();
            let left = match end.duration_since(now) {
                Ok(left) => left.as_secs_f64(),
                Err(past) => -past.duration().as_secs_f64(),
            };
            metrics.trust_expiry(&name, left);
        }
        let soon = time::OffsetDateTime::now_utc().date().saturating_add(WARNED_AHEAD);
        let due = gateway.directory.entries().filter(|entry| entry.review_due.is_some_and(|due| due <= soon));
        metrics.reviews_due(due.count());
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = drain.wait_for(|drain| *drain) => return,
        }
    }
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
    trust: Arc<ArcSwap<crate::identify::svid::Trust>>,
    recovered: Recovered,
    state: State,
}

async fn gateway(loaded: Loaded) -> Result<Wired, StartError> {
    let settings: Settings = loaded.settings;
    let pseudonyms = PseudonymKey::new(&key(&settings.keys_dir, "pseudonym")?);
    let telemetry = Arc::new(Telemetry::start(&settings.telemetry)?);
    let runs = Runs::new(settings.flow);
    let audit = settings.audit.dir.clone();
    let watched = Arc::clone(&telemetry);
    let on_commit: OnCommit = Arc::new(move |bytes, waited| watched.metrics().audit_committed(bytes, waited));
    let store = state::open(&settings.store).await?;
    let (ledger, recovered) =
        Ledger::open(crate::record::Config { on_commit: Some(on_commit), ..settings.audit })?;
    restore_labels(&runs, &*store, &audit, (ledger.end())()).await?;
    let index = state::index(&settings.store, &audit, &ledger, &telemetry).await?;
    let suspensions = Suspensions::read(Arc::clone(&store)).await?;
    let evidence = Evidence {
        ledger,
        telemetry,
        pseudonyms,
        policy_revision: Arc::clone(loaded.policy.revision()),
        folds: Folds::default(),
        open: TaskTracker::new(),
    };
    let gateway = Gateway {
        directory: loaded.directory,
        suspensions,
        decoder: Decoder {
            room: Room::new(&settings.decode),
            bounds: settings.decode,
            hosts: hosts(&settings.listeners, &loaded.routes),
            routes: Routes::new(loaded.routes),
            sessions: Arc::default(),
        },
        catalog: loaded.catalog,
        meters: Meters::new(settings.limits),
        runs,
        policy: Arc::new(loaded.policy),
        evidence: Arc::new(evidence),
        broker: Broker::new(loaded.credentials),
        upstreams: Upstreams::new(loaded.upstreams),
        parked: Arc::default(),
        errands: Errands::default(),
    };
    Ok(Wired {
        gateway,
        identity: Arc::new(loaded.identity),
        trust: Arc::new(ArcSwap::from_pointee(loaded.trust)),
        recovered,
        state: State { store, index: Arc::new(index) },
    })
}

/// The names by which agents may address the gateway, where its listeners name any.
fn hosts(listeners: &[Listener], routes: &[Route]) -> HashSet<String> {
    let named: HashSet<String> =
        listeners.iter().flat_map(|listener| listener.hosts.iter().cloned()).collect();
    if named.is_empty() {
        return named;
    }
    routes.iter().filter_map(|route| route.host.clone()).chain(named).collect()
}

/// A key of 32 bytes, made when there is none.
fn key(dir: &Path, purpose: &str) -> Result<[u8; 32], StartError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let fail = |error: std::io::Error| StartError::Keys(format!("{}: {error}", dir.join(purpose).display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    let path = dir.join(format!("{purpose}.key"));
    if let Ok(bytes) = std::fs::read(&path) {
        return bytes
            .try_into()
            .map_err(|_| StartError::Keys(format!("{}: is not 32 bytes", path.display())));
    }
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::Keys("no random numbers".to_owned()))?;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(fail)?;
    std::io::Write::write_all(&mut file, &bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    Ok(bytes)
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

    /// Stops accepting, lets calls end, writes what is queued.
    pub async fn drain(mut self) {
        // Receivers that are gone have ended already.
        let _ = self.drain.send(true);
        let ended = async {
            while self.tasks.join_next().await.is_some() {}
            self.gateway.errands.made().await;
            self.gateway.evidence.closed().await;
        };
        if tokio::time::timeout(DRAIN_TIME_MAX, ended).await.is_err() {
            tracing::warn!("calls were still under way when the drain time ended");
            self.tasks.shutdown().await;
        }
        self.gateway.upstreams.end().await;
        self.state.end(&self.gateway).await;
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
        let evidence = &self.gateway.evidence;
        evidence.telemetry.metrics().connection_refused(reason);
        let Some(folded) = evidence.folds.admit() else { return };
        let mut members = Members::default();
        members.text("stage", "accept");
        members.text("listener", &self.listener);
        members.plain("peer", peer);
        members.text("reason", reason);
        members.text("detail", &detail);
        members.number("folded", folded);
        members.object("decision", |members| {
            members.text("outcome", "denied");
            members.text("rule", "");
        });
        evidence.ledger.append_detached(Entry::new(Kind::Refused, None, members));
    }
}
