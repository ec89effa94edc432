//! Break-glass: emergency lifts in force. A person opens one for some minutes, for policies that let themselves be lifted
//! and for a scope of calls; the store keeps it, and every call looks here, in memory and without a lock.
//!
//! A lift is in force only once the audit has it, and out of force before anything else is done about it. It ends by the
//! clock of the store and by the machine's monotonic clock, whichever is first, so no clock that is set back prolongs it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;

use crate::call::{AgentProfile, BreakGlass, RecordId};
use crate::hold::Gate;
use crate::store::lifts::{Lift, Lifted, NewLift, Reviewed, Scope};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;

/// The longest that a lift stands.
pub const TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// How often it is looked whether a lift has ended, beside the moments at which one does.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The emergency lifts of this gateway.
pub struct Lifts {
    store: Arc<dyn Store>,
    gate: Arc<Gate>,
    telemetry: Arc<Telemetry>,
    /// What calls look at.
    in_force: ArcSwap<Vec<InForce>>,
    /// Changes are made one after the other.
    turn: Mutex<()>,
    changed: Notify,
    /// How many ended and nobody has reviewed.
    owed: AtomicUsize,
}

#[derive(Clone)]
struct InForce {
    lift: Lift,
    ends: Instant,
}

/// Why a change was not made, or not for good.
#[derive(Debug, thiserror::Error)]
pub enum LiftError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit.
    #[error("{0}")]
    Audit(String),
    /// It is out of force, and a restart might bring it back.
    #[error(
        "it is out of force until this gateway restarts, and no longer, because that could not be kept: {0}"
    )]
    Forgettable(StoreError),
}

impl Lifts {
    /// Reads what is in force; what ended while nobody looked is on record when this returns.
    pub async fn read(
        store: Arc<dyn Store>,
        gate: Arc<Gate>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Arc<Lifts>, StoreError> {
        store.end_lifts().await?;
        gate.audited().await.map_err(StoreError::Failed)?;
        let now = store.clock().await?;
        let open = store.lifts().await?.into_iter().filter(|lift| lift.is_open(now));
        let in_force = open.map(|lift| InForce::from(lift, now)).collect();
        let (turn, changed) = (Mutex::default(), Notify::new());
        let in_force = ArcSwap::from_pointee(in_force);
        let lifts =
            Arc::new(Lifts { store, gate, telemetry, in_force, turn, changed, owed: AtomicUsize::default() });
        lifts.count().await?;
        Ok(lifts)
    }

    /// What is lifted for a call of this agent to this upstream; `None` where nothing is, which is nearly always so.
    pub fn over(&self, agent: &AgentProfile, upstream: &str, now: SystemTime) -> Option<BreakGlass> {
        let in_force = self.in_force.load();
        if in_force.is_empty() {
            return None;
        }
        let (mut grants, mut by, mut rules) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut until: Option<SystemTime> = None;
        for InForce { lift, ends } in in_force.iter() {
            if !lift.is_open(now) || Instant::now() >= *ends || !covers(&lift.scope, agent, upstream) {
                continue;
            }
            grants.insert(Arc::from(lift.id.to_string()));
            by.insert(Arc::from(lift.by.as_str()));
            rules.extend(lift.rules.iter().map(|rule| Arc::<str>::from(rule.as_str())));
            until = Some(until.map_or(lift.until, |other| other.min(lift.until)));
        }
        let sorted = |words: BTreeSet<Arc<str>>| words.into_iter().collect();
        Some(BreakGlass { grants: sorted(grants), by: sorted(by), until: until?, rules: sorted(rules) })
    }

    /// The lifts that are in force at this moment.
    pub fn in_force(&self) -> Vec<Lift> {
        let now = SystemTime::now();
        let all = self.in_force.load();
        let open = all.iter().filter(|one| one.lift.is_open(now) && Instant::now() < one.ends);
        open.map(|one| one.lift.clone()).collect()
    }

    /// How many lifts ended and nobody has reviewed.
    pub fn reviews_owed(&self) -> usize {
        self.owed.load(Ordering::Relaxed)
    }

    /// Every lift that is kept.
    pub async fn all(&self) -> Result<Vec<Lift>, StoreError> {
        self.store.lifts().await
    }

    /// Opens a lift: in the store, then in the audit, then in force. It is finished even when whoever asked leaves.
    pub async fn open(self: &Arc<Lifts>, new: NewLift) -> Result<Lifted, LiftError> {
        let lifts = Arc::clone(self);
        finished(async move {
            let _turn = lifts.turn.lock().await;
            let opened = lifts.store.open_lift(new).await?;
            let Lifted::Open(lift) = &opened else { return Ok(opened) };
            if let Err(error) = lifts.gate.audited().await {
                // What is not in the audit is not in force, and does not come into force with a restart.
                let why = "the audit could not have it".to_owned();
                lifts.store.close_lift(lift.id, lift.by.clone(), why).await?;
                return Err(LiftError::Audit(format!("nothing is lifted: {error}")));
            }
            let now = lifts.store.clock().await?;
            lifts.set(|all| all.push(InForce::from(Lift::clone(lift), now)));
            tracing::warn!(event = "breakglass.opened", lift = %lift.id, by = %lift.by, rules = %lift.rules.join(","), "an emergency lifts policies");
            lifts.count().await?;
            Ok(opened)
        })
        .await
    }

    /// Ends a lift from the next decision on, whatever the disk does. `None` when no such lift is open.
    pub async fn close(
        self: &Arc<Lifts>,
        id: RecordId,
        by: String,
        reason: String,
    ) -> Result<Option<Lift>, LiftError> {
        let lifts = Arc::clone(self);
        finished(async move {
            let _turn = lifts.turn.lock().await;
            lifts.set(|all| all.retain(|one| one.lift.id != id));
            let closed = lifts.store.close_lift(id, by, reason).await.map_err(LiftError::Forgettable)?;
            lifts.recorded().await?;
            Ok(closed)
        })
        .await
    }

    /// A person's review of a lift that ended.
    pub async fn review(
        self: &Arc<Lifts>,
        id: RecordId,
        by: String,
        reason: String,
    ) -> Result<Reviewed, LiftError> {
        let lifts = Arc::clone(self);
        finished(async move {
            let reviewed = lifts.store.review_lift(id, by, reason).await?;
            lifts.recorded().await?;
            Ok(reviewed)
        })
        .await
    }

    /// Ends what runs out of time, until the drain.
    pub async fn attend(self: Arc<Lifts>, mut drain: watch::Receiver<bool>) {
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the end of an emergency lift could not be recorded yet");
            }
            let next = self.in_force.load().iter().map(|one| one.ends).min();
            let latest = Instant::now() + LOOK_EVERY;
            tokio::select! {
                () = tokio::time::sleep_until(next.map_or(latest, |next| next.min(latest))) => {}
                () = self.changed.notified() => {}
                _ = drain.wait_for(|drain| *drain) => return,
            }
        }
    }

    async fn look(&self) -> Result<(), LiftError> {
        let now = Instant::now();
        if self.in_force.load().iter().any(|one| now >= one.ends) {
            let _turn = self.turn.lock().await;
            self.set(|all| all.retain(|one| now < one.ends));
        }
        let ended = self.store.end_lifts().await?;
        for lift in ended.expired {
            tracing::warn!(event = "breakglass.expired", lift = %lift.id, by = %lift.by, "an emergency lift has ended: its review is owed");
        }
        for lift in ended.unreviewed {
            tracing::warn!(event = "breakglass.unreviewed", lift = %lift.id, by = %lift.by, "an emergency lift ended long ago, and nobody has reviewed it");
        }
        self.recorded().await
    }

    /// Puts what changed into the audit, and tells the metrics.
    async fn recorded(&self) -> Result<(), LiftError> {
        self.gate.audited().await.map_err(LiftError::Audit)?;
        self.count().await?;
        Ok(())
    }

    async fn count(&self) -> Result<(), StoreError> {
        let all = self.store.lifts().await?;
        let now = self.store.clock().await?;
        let open = all.iter().filter(|lift| lift.is_open(now)).count();
        let owed = all.iter().filter(|lift| lift.reviewed.is_none() && !lift.is_open(now)).count();
        self.owed.store(owed, Ordering::Relaxed);
        self.telemetry.metrics().breakglass(open, owed);
        Ok(())
    }

    /// Changes what is in force, under `turn`.
    fn set(&self, change: impl FnOnce(&mut Vec<InForce>)) {
        let mut all = Vec::clone(&self.in_force.load());
        change(&mut all);
        self.in_force.store(Arc::new(all));
        self.changed.notify_one();
    }
}

impl InForce {
    fn from(lift: Lift, now: SystemTime) -> InForce {
        let left = lift.until.duration_since(now).unwrap_or_default().min(TIME_MAX);
        InForce { lift, ends: Instant::now() + left }
    }
}

/// Whether a lift is for a call.
fn covers(scope: &Scope, agent: &AgentProfile, upstream: &str) -> bool {
    let everybody = scope.agents.is_empty() && scope.groups.is_empty();
    let named = scope.agents.contains(&agent.id)
        || agent.groups.iter().any(|group| scope.groups.iter().any(|name| **name == **group));
    let there = scope.upstreams.is_empty() || scope.upstreams.iter().any(|name| name == upstream);
    (everybody || named) && there && !(everybody && scope.upstreams.is_empty())
}

/// Lets a change be finished, even when whoever asked for it leaves meanwhile.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, LiftError>> + Send + 'static,
) -> Result<T, LiftError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(LiftError::Store(StoreError::Failed(error.to_string()))))
}
