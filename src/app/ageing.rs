//! What ages without any change: certificates, roots, and reviews of agents.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::accept::{Connections, tls};
use crate::identify;
use crate::identify::svid::{Role, Trust};
use crate::pipeline::Gateway;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(60);
/// How long before a review is due its agent is counted.
const WARNED_AHEAD: time::Duration = time::Duration::days(30);

/// What is looked at.
pub(super) struct Ageing {
    pub gateway: Arc<Gateway>,
    pub identity: Arc<tls::Identity>,
    pub trust: Arc<ArcSwap<Trust>>,
    pub connections: Arc<Connections>,
    /// The trust domains that the metrics know.
    pub told: Mutex<HashSet<Arc<str>>>,
}

impl Ageing {
    /// Looks again and again until the drain begins.
    pub(super) async fn watch(self: Arc<Self>, mut drain: watch::Receiver<bool>) {
        loop {
            self.look();
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
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
        let directory = &self.gateway.in_force.load_full().directory;
        let due = directory.entries().filter(|entry| entry.review_due.is_some_and(|due| due <= soon));
        metrics.reviews_due(due.count());
        self.connections.cut(Role::Agents, |conn| !identify::may_call(directory, conn.agent_id(), today))
    }
}

/// Seconds that are left, less than none once it is past.
fn left(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}
