//! Wiring: from what configuration gives to a running gateway, its changes, and its orderly end.

mod ageing;
mod follow;
mod generation;
pub mod reload;

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

use crate::accept::{self, Conn, Connections, Door, Handler, tls};
use crate::config::{Listener, ListenerKind, Loaded, Settings};
use crate::decode::Inbound;
use crate::flow::Runs;
use crate::health;
use crate::identify::svid::{Role, Trust};
use crate::json::Members;
use crate::observe::Body;
use crate::pipeline::{self, Errands, Gateway};
use crate::record::fold::Folds;
use crate::record::{Entry, Evidence, Kind, Ledger, OnCommit, Recovered};
use crate::secret::PseudonymKey;
use crate::telemetry::Telemetry;
use ageing::Ageing;
use reload::Reload;

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
    reload: Arc<Reload>,
    tasks: JoinSet<()>,
    drain: watch::Sender<bool>,
}

/// Starts everything; when this returns, agents are served. Changes come into force by [`Reload`].
pub async fn start(loaded: Loaded) -> Result<Running, StartError> {
    let (settings, file, sources) = (loaded.settings.clone(), loaded.file.clone(), loaded.sources.clone());
    let bound = bind(&settings.listeners).await?;
    let (gateway, identity, trust, recovered) = gateway(loaded)?;
    let (gateway, connections) = (Arc::new(gateway), Arc::new(Connections::default()));
    let (drain, draining) = watch::channel(false);
    let ageing = Arc::new(Ageing {
        gateway: Arc::clone(&gateway),
        identity: Arc::clone(&identity),
        trust: Arc::clone(&trust),
        connections: Arc::clone(&connections),
        told: Default::default(),
    });
    let reload =
        Arc::new(Reload::new(file, sources, settings.clone(), Arc::clone(&ageing), draining.clone()));
    let mut tasks = JoinSet::new();
    tasks.spawn(ageing.watch(draining.clone()));
    let mut listeners = Vec::new();
    for (listener, socket) in bound {
        let address = socket.local_addr().unwrap_or(listener.address);
        listeners.push(Listener { address, ..listener.clone() });
        match listener.kind {
            ListenerKind::Agents => {
                let door = Door::new(&trust, Role::Agents, Arc::clone(&identity), &connections)
                    .map_err(StartError::Tls)?;
                let agents =
                    Arc::new(Agents { gateway: Arc::clone(&gateway), listener: listener.name.clone() });
                tasks.spawn(accept::serve(socket, door, settings.accept.clone(), agents, draining.clone()));
            }
            ListenerKind::Health => {
                let evidence = Arc::clone(&gateway.evidence);
                let standing = Arc::clone(reload.standing());
                tasks.spawn(health::serve(socket, evidence, standing, draining.clone()));
            }
        }
    }
    Ok(Running { listeners, recovered, gateway, reload, tasks, drain })
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

type Wired = (Gateway, Arc<tls::Identity>, Arc<ArcSwap<Trust>>, Recovered);

fn gateway(loaded: Loaded) -> Result<Wired, StartError> {
    let settings: Settings = loaded.settings.clone();
    let pseudonyms = PseudonymKey::new(&key(&settings.keys_dir, "pseudonym")?);
    let telemetry = Arc::new(Telemetry::start(&settings.telemetry)?);
    let runs = Runs::new(settings.flow);
    let audit = settings.audit.dir.clone();
    let watched = Arc::clone(&telemetry);
    let on_commit: OnCommit = Arc::new(move |bytes, waited| watched.metrics().audit_committed(bytes, waited));
    let (ledger, recovered) =
        Ledger::open(crate::record::Config { on_commit: Some(on_commit), ..settings.audit })?;
    restore(&runs, &audit)?;
    let evidence =
        Evidence { ledger, telemetry, pseudonyms, folds: Folds::default(), open: TaskTracker::new() };
    let (generation, identity, trust) = generation::after(None, loaded);
    let gateway = Gateway {
        in_force: ArcSwap::from_pointee(generation),
        runs,
        evidence: Arc::new(evidence),
        parked: Arc::default(),
        errands: Errands::default(),
    };
    Ok((gateway, Arc::new(identity), Arc::new(ArcSwap::from_pointee(trust)), recovered))
}

/// Brings back the labels that the intents of the last day carry: a restart cleans no run, and a gateway that cannot
/// tell what its runs have read does not start.
fn restore(runs: &Runs, audit: &Path) -> Result<(), StartError> {
    let bring = |agent: &crate::call::AgentId, label, at| crate::flow::sent(runs, agent, &[label], at);
    crate::record::restore::labels(audit, bring)
        .map_err(|source| crate::record::LedgerError::Io { path: audit.to_owned(), source }.into())
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
