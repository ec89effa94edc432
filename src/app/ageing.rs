//! What ages without any change: certificates, roots, and reviews of agents.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::accept::{Connections, tls};
use crate::call::AgentId;
use crate::identify;
use crate::identify::people::People;
use crate::identify::svid::{Role, Trust};
use crate::pipeline::{Gateway, Generation};
use crate::telemetry::Metrics;
use crate::webhook;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(60);
/// How long before a review is due its agent is counted.
const WARNED_AHEAD: time::Duration = time::Duration::days(30);

/// What is looked at.
pub(super) struct Ageing {
    pub gateway: Arc<Gateway>,
    pub identity: Arc<tls::Identity>,
    pub trust: Arc<ArcSwap<Trust>>,
    pub people: Arc<ArcSwap<People>>,
    pub notify: Arc<ArcSwap<webhook::Config>>,
    pub connections: Arc<Connections>,
    /// The trust domains that the metrics know.
    pub told: Mutex<HashSet<Arc<str>>>,
}

impl Ageing {
    /// Looks again and again until the drain begins.
    pub(super) async fn watch(self: Arc<Self>, mut drain: watch::Receiver<bool>) {
        let mut suspended = self.gateway.suspensions.changes();
        loop {
            self.look();
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                Ok(()) = suspended.changed() => {}
                _ = drain.wait_for(|drain| *drain) => return,
            }
        }
    }

    /// Tells the metrics, and cuts the connections of agents that may not call any more. Gives how many were cut.
    pub(super) fn look(&self) -> usize {
        let metrics = self.gateway.evidence.telemetry.metrics();
        let now = SystemTime::now();
        if let Some(end) = self.identity.not_after() {
            metrics.trust_expiry(&Arc::from("gateway"), left(end, now));
        }
        let trust = self.trust.load_full();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|name| {
            let stays = trust.domain(name).is_some();
            if !stays {
                metrics.trust_gone(name);
            }
            stays
        });
        for (name, domain) in trust.domains() {
            let Some(end) = domain.not_after() else { continue };
            let name: Arc<str> = Arc::from(name);
            metrics.trust_expiry(&name, left(end, now));
            told.insert(name);
        }
        drop(told);
        let today = OffsetDateTime::now_utc().date();
        let soon = today.saturating_add(WARNED_AHEAD);
        let generation = self.gateway.in_force.load_full();
        shadowed(metrics, &generation);
        let directory = &generation.directory;
        let due = directory.entries().filter(|entry| entry.review_due.is_some_and(|due| due <= soon));
        metrics.reviews_due(due.count());
        let suspensions = &self.gateway.suspensions;
        let may_call = |id: &AgentId| identify::may_call(directory, suspensions, id, today);
        self.connections.cut(Role::Agents, |conn| !may_call(conn.agent_id()))
    }
}

/// Seconds that are left, less than none once it is past.
fn left(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}

/// Tells the metrics what is in shadow, and for how long.
fn shadowed(metrics: &Metrics, generation: &Generation) {
    let now = SystemTime::now();
    for upstream in generation.catalog.upstreams() {
        if let Some(shadow) = &upstream.config().shadow {
            let left = shadow.until.duration_since(now).unwrap_or_default();
            metrics.shadow(&upstream.config().name, left.as_secs_f64());
        }
    }
}
