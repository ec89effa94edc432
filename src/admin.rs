//! The admin listener: what people see and do, over mutual TLS, and over a socket of this machine for whoever is root
//! on it. It is no part of the path of a call, and nothing on it lets a call through.

mod agents;
mod api;
mod body;
mod breakglass;
mod caller;
mod console;
mod endorsements;
mod events;
mod holds;
mod listen;
pub mod literal;
mod login;
mod notifications;
mod order;
mod problem;
mod proof;
mod records;
mod runs;
mod sessions;
mod settled;
mod shadow;
mod tasks;
mod tools;

pub use api::openapi;
pub use listen::{
    GUEST_CONNECTIONS_MAX, Orchestrators as OrchestratorListener, People as PeopleListener, local,
};

use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use tokio::sync::{Semaphore, broadcast, watch};

use crate::call::AgentId;
use crate::decide::Policy;
use crate::hold::Gate;
use crate::identify::directory::{Directory, Known};
use crate::identify::people::People;
use crate::identify::suspended::Suspensions;
use crate::identify::svid;
use crate::oidc;
use crate::pipeline::{Gateway, Generation};
use crate::record::Evidence;
use crate::record::index::Index;
use problem::Problem;
use sessions::Sessions;

/// Ends every connection of an agent, and says how many they were.
pub type Cut = Arc<dyn Fn(&AgentId) -> usize + Send + Sync>;

/// Readers of events at one time.
const STREAMS_MAX: usize = 32;
/// Records that wait for the slowest reader of events; beyond it records are dropped for that reader, with a mark.
const EVENTS_MAX: usize = 1024;

/// What the admin listener works with.
pub struct Admin {
    gateway: Arc<Gateway>,
    people: Arc<ArcSwap<People>>,
    index: Arc<Index>,
    cut: Cut,
    /// By which forms of the console are known to be its own. It lives as long as the process.
    forms: hmac::Key,
    /// How people come who have no certificate.
    logins: Option<Logins>,
    live: broadcast::Sender<events::Live>,
    streams: Arc<Semaphore>,
    drain: watch::Receiver<bool>,
}

/// How people come who have no certificate.
struct Logins {
    provider: oidc::Provider,
    sessions: Sessions,
}

/// The registry of the generation that is in force.
struct Registry(Arc<Generation>);

impl Deref for Registry {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.0.directory
    }
}

impl Admin {
    /// The admin side of a gateway; with an identity provider, people come to it without certificates too. Streams of
    /// events end when `drain` turns true.
    pub fn new(
        gateway: Arc<Gateway>,
        people: Arc<ArcSwap<People>>,
        index: Arc<Index>,
        cut: Cut,
        oidc: Option<oidc::Config>,
        drain: watch::Receiver<bool>,
    ) -> Result<Arc<Admin>, String> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let forms = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| "no random numbers")?;
        let provider = oidc.map(oidc::Provider::new).transpose()?;
        let logins = provider.map(|provider| Logins { provider, sessions: Sessions::default() });
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        let live = broadcast::Sender::new(EVENTS_MAX);
        Ok(Arc::new(Admin { gateway, people, index, cut, forms, logins, live, streams, drain }))
    }

    /// Follows the audit for whoever reads events, until the drain.
    pub async fn follow(self: Arc<Self>) {
        events::follow(&self).await;
    }

    /// The registry in force.
    fn directory(&self) -> Registry {
        Registry(self.gateway.in_force.load_full())
    }

    /// The policies in force.
    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.gateway.in_force.load().policy)
    }

    /// Where calls wait for people.
    fn gate(&self) -> &Gate {
        &self.gateway.gate
    }

    fn suspensions(&self) -> &Suspensions {
        &self.gateway.suspensions
    }

    fn evidence(&self) -> &Evidence {
        &self.gateway.evidence
    }

    /// The agent that a SPIFFE ID or its path names, concretely.
    fn agent(&self, name: &str) -> Result<(AgentId, Arc<Known>), Problem> {
        let directory = self.directory();
        let named = |name: &str| {
            let id = svid::parse_id(name).ok()?;
            let known = directory.find(&id)?;
            Some((id, known))
        };
        if name.starts_with("spiffe://") {
            return named(name).ok_or_else(|| Problem::no_agent(name));
        }
        let domains: BTreeSet<&str> = directory.entries().map(|entry| entry.id.trust_domain()).collect();
        let path = name.trim_start_matches('/');
        let mut found = domains.iter().filter_map(|domain| named(&format!("spiffe://{domain}/{path}")));
        match (found.next(), found.next()) {
            (Some(found), None) => Ok(found),
            (Some((one, _)), Some((other, _))) => Err(Problem::Invalid(format!(
                "`{name}` could be {one} or {other}: use the whole SPIFFE ID, percent-encoded"
            ))),
            (None, _) => Err(Problem::no_agent(name)),
        }
    }

    /// Every agent that is known by a concrete id, by id: those of the registry, and those below a wildcard that are
    /// suspended or have called.
    async fn agents(&self) -> Result<Vec<(AgentId, Arc<Known>)>, Problem> {
        let suspended = self.suspensions().all().await?.into_iter().map(|one| one.suspended.agent);
        let directory = self.directory();
        let exact = directory.entries().filter(|entry| !entry.wildcard).map(|entry| entry.id.clone());
        let mut agents: HashMap<AgentId, Arc<Known>> = HashMap::new();
        for id in exact.chain(suspended).chain(directory.seen_below()) {
            if let Some(known) = directory.find(&id) {
                agents.insert(id, known);
            }
        }
        let mut agents: Vec<_> = agents.into_iter().collect();
        agents.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        Ok(agents)
    }
}
