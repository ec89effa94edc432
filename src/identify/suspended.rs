//! Who is suspended by an order: kept in the store, and beside it in memory, where each call looks.
//!
//! The registry may suspend an agent too. The state in force is the stricter of both, so no change of the registry lifts
//! what was ordered here: only an order to resume does.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use crate::call::AgentId;
use crate::store::{Changed, Order, Store, StoreError, Suspension};

/// Suspensions in force.
pub struct Suspensions {
    store: Arc<dyn Store>,
    /// What calls look at, without a lock.
    in_force: ArcSwap<HashSet<AgentId>>,
    /// Orders are carried out one after the other.
    turn: Mutex<()>,
    changed: watch::Sender<()>,
}

/// Why an order was not carried out, or not for good.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The agent is suspended now, but a restart would forget it.
    #[error(
        "the agent is suspended until the gateway restarts, and no longer, because it could not be kept: {0}"
    )]
    Forgettable(#[source] StoreError),
    /// Nothing was changed.
    #[error(transparent)]
    Refused(#[from] StoreError),
}

impl Suspensions {
    /// Reads what is in force.
    pub async fn read(store: Arc<dyn Store>) -> Result<Suspensions, StoreError> {
        let in_force = store.suspensions().await?.into_iter().map(|one| one.suspended.agent).collect();
        Ok(Suspensions {
            store,
            in_force: ArcSwap::from_pointee(in_force),
            turn: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// Whether an agent is suspended by an order.
    pub fn includes(&self, agent: &AgentId) -> bool {
        self.in_force.load().contains(agent)
    }

    /// Suspends an agent from its next call on, before the store has it: an agent that must be stopped is stopped even
    /// when the store cannot keep it. Then the error says so, and the order should be repeated.
    pub async fn suspend(&self, order: Order) -> Result<Changed, OrderError> {
        let _turn = self.turn.lock().await;
        let agent = order.agent.clone();
        self.set(|agents| agents.insert(agent));
        let store = Arc::clone(&self.store);
        finished(async move { store.suspend(order).await }).await.map_err(OrderError::Forgettable)
    }

    /// Lifts a suspension, once the store has it.
    pub async fn resume(&self, order: Order) -> Result<Changed, OrderError> {
        let _turn = self.turn.lock().await;
        let agent = order.agent.clone();
        let store = Arc::clone(&self.store);
        let stored = finished(async move { store.resume(order).await }).await?;
        // An agent whose suspension could not be kept is lifted too.
        let lifted = self.set(|agents| agents.remove(&agent));
        Ok(if lifted { Changed::Now } else { stored })
    }

    /// Every suspension that the store has in force, by agent.
    pub async fn all(&self) -> Result<Vec<Suspension>, StoreError> {
        self.store.suspensions().await
    }

    /// The last suspensions of an agent, in force or lifted, the newest first.
    pub async fn history(&self, agent: AgentId) -> Result<Vec<Suspension>, StoreError> {
        self.store.history(agent).await
    }

    /// Tells when somebody was suspended or resumed, so that connections can be looked at again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes the set, under `turn`; says whether it differs now.
    fn set(&self, change: impl FnOnce(&mut HashSet<AgentId>) -> bool) -> bool {
        let mut agents = HashSet::clone(&self.in_force.load());
        let differs = change(&mut agents);
        if differs {
            self.in_force.store(Arc::new(agents));
            self.changed.send_replace(());
        }
        differs
    }
}

/// Lets the store finish what was begun, even when whoever asked for it leaves meanwhile.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}
