//! Telling people what happens to holds and emergency lifts, by webhooks [Standard Webhooks 1.0.0].
//!
//! What is to be told is in the store, written with the change itself, and leaves it only when a receiver has answered with
//! a success. So it survives this process, is told at least once, and in order for each of them. No agent's call waits for it.

pub mod post;
pub mod sign;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::Uri;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::hold::Gate;
use crate::json::Members;
use crate::store::notifications::{Addressee, EVENTS_AT_ONCE_MAX, FAILURE_BYTES_MAX, Notification, Topic};
use crate::store::{Store, StoreError};
use crate::telemetry::{Delivery, Metrics};
use crate::units;
use post::Refusal;
use sign::Key;

/// Every kind of event.
pub const EVENTS: [&str; 11] = [
    "hold.opened",
    "hold.voted",
    "hold.escalated",
    "hold.expiring",
    "hold.released",
    "hold.ended",
    "breakglass.opened",
    "breakglass.closed",
    "breakglass.expired",
    "breakglass.unreviewed",
    "breakglass.reviewed",
];
/// How many webhooks there may be.
pub const WEBHOOKS_MAX: usize = 16;
/// How long a notification is tried where nothing else is said.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it may be tried at most: a hold that has ended is kept for longer.
pub const GIVE_UP_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Notifications of one webhook that are under way at one time.
const AT_ONCE_MAX: usize = 8;
/// How long it waits after the first failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long it waits at most after a failure.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// How long a webhook is left alone after the store did not keep what became of a notification.
const STORE_PAUSE: Duration = Duration::from_secs(10);
/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whom to tell, and how.
pub struct Config {
    /// Where people open the console, without a slash at its end.
    pub console: String,
    /// How long a notification is tried before it counts as dead.
    pub give_up_after: Duration,
    /// Who is told.
    pub webhooks: Vec<Arc<Webhook>>,
}

/// One receiver.
pub struct Webhook {
    /// Its configured name.
    pub name: Arc<str>,
    /// Where: `https`, or `http` on this machine.
    pub url: Uri,
    /// How its certificate is checked, for `https`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// What it knows the gateway by: every key signs, so that one can be replaced while both are known.
    pub keys: Vec<Key>,
    /// What it is told.
    pub events: Vec<&'static str>,
}

impl Default for Config {
    fn default() -> Config {
        Config { console: String::new(), give_up_after: GIVE_UP_AFTER, webhooks: Vec::new() }
    }
}

/// Brings what is to be told to webhooks.
pub struct Courier {
    /// Whose store has it.
    pub store: Arc<dyn Store>,
    /// What says that there is more.
    pub gate: Arc<Gate>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Whom to tell; another configuration may come at any time.
    pub config: Arc<ArcSwap<Config>>,
}

impl Courier {
    /// Delivers until the drain begins. What is under way then is told again by the next start.
    pub async fn attend(self, mut drain: watch::Receiver<bool>) {
        let (mut rounds, mut busy, mut adopted) = (JoinSet::new(), HashSet::new(), None);
        loop {
            let config = self.config.load_full();
            let same = adopted.as_ref().is_some_and(|adopted| Arc::ptr_eq(adopted, &config));
            match self.look(&config, same, &mut busy, &mut rounds).await {
                Ok(()) => adopted = Some(config),
                Err(error) => {
                    self.metrics.store_failed();
                    tracing::warn!(%error, "it is not known what webhooks should be told");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.gate.happened() => {}
                Some(done) = rounds.join_next(), if !rounds.is_empty() => match done {
                    Ok(name) => drop(busy.remove(&name)),
                    // Whose it was is not known: nobody is busy once all have been ended.
                    Err(error) => {
                        tracing::error!(%error, "the delivery of notifications broke off");
                        (rounds, busy) = (JoinSet::new(), HashSet::new());
                    }
                },
                _ = drain.wait_for(|drain| *drain) => return,
            }
        }
    }

    /// Addresses what has happened, and begins to deliver what is due.
    async fn look(
        &self,
        config: &Arc<Config>,
        same: bool,
        busy: &mut HashSet<Arc<str>>,
        rounds: &mut JoinSet<Arc<str>>,
    ) -> Result<(), StoreError> {
        let mut backlog = self.store.backlog().await?;
        if !same || backlog.events > 0 {
            while self.store.address(config.addressees()).await? >= EVENTS_AT_ONCE_MAX {}
            backlog = self.store.backlog().await?;
        }
        self.metrics.notifications(backlog.waiting, backlog.dead);
        if backlog.waiting == 0 {
            return Ok(());
        }
        for webhook in &config.webhooks {
            if busy.contains(&webhook.name) {
                continue;
            }
            let due = self.store.due(webhook.name.to_string(), AT_ONCE_MAX).await?;
            if !due.is_empty() {
                busy.insert(Arc::clone(&webhook.name));
                let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
                let round =
                    Round { store, metrics, config: Arc::clone(config), webhook: Arc::clone(webhook) };
                rounds.spawn(round.deliver(due));
            }
        }
        Ok(())
    }
}

impl Config {
    fn addressees(&self) -> Vec<Addressee> {
        let to = |webhook: &Arc<Webhook>| Addressee {
            webhook: webhook.name.to_string(),
            kinds: webhook.events.clone(),
        };
        self.webhooks.iter().map(to).collect()
    }

    /// What a receiver gets: the event, and where people see what it is about. It is the same text each time.
    fn body(&self, notification: &Notification) -> Vec<u8> {
        let mut members = Members::default();
        members.text("type", &notification.kind);
        members.plain("timestamp", units::moment(notification.at.into(), 6));
        let page = match notification.topic {
            Topic::Hold(hold) => format!("/holds/{hold}"),
            Topic::Lift(lift) => format!("/breakglass#{lift}"),
        };
        members.text("link", &format!("{}{page}", self.console));
        members.object("data", |members| members.append(&Members::written(notification.data.clone())));
        members.into_object()
    }
}

/// Some notifications of one webhook, each of another topic.
struct Round {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    config: Arc<Config>,
    webhook: Arc<Webhook>,
}

impl Round {
    /// Delivers them side by side; gives the webhook's name.
    async fn deliver(self, due: Vec<Notification>) -> Arc<str> {
        let (round, mut tasks) = (Arc::new(self), JoinSet::new());
        for notification in due {
            let round = Arc::clone(&round);
            tasks.spawn(async move { round.one(&notification).await });
        }
        while let Some(done) = tasks.join_next().await {
            let failed = match done {
                Ok(done) => done.err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = failed {
                tracing::warn!(webhook = %round.webhook.name, %error, "what became of a notification was not kept");
                // It is still due. A receiver must not be told a thousand times because a disk is full.
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
        Arc::clone(&round.webhook.name)
    }

    async fn one(&self, notification: &Notification) -> Result<(), StoreError> {
        let (webhook, body) = (&self.webhook, self.config.body(notification));
        let outcome = match post::post(webhook, notification.id, body).await {
            Ok(()) => {
                self.store.delivered(notification.id).await?;
                Delivery::Delivered
            }
            Err(refusal) => {
                let again = again(notification, &refusal, self.config.give_up_after);
                let why = bounded(&refusal.why);
                tracing::warn!(event = "webhook.failed", webhook = %webhook.name, notification = %notification.id, about = %notification.topic.id(), attempts = notification.attempts + 1, dead = again.is_none(), why, "a notification was not delivered");
                self.store.undelivered(notification.id, again, why).await?;
                if again.is_none() { Delivery::Dead } else { Delivery::Failed }
            }
        };
        self.metrics.notified(&webhook.name, outcome);
        Ok(())
    }
}

/// In how long it is tried again; `None` for a receiver that wants no more of it, and when its time would be over by then.
fn again(notification: &Notification, refusal: &Refusal, give_up_after: Duration) -> Option<Duration> {
    if refusal.gone {
        return None;
    }
    let asked = refusal.retry_after.unwrap_or_default().min(WAIT_MAX);
    let wait = wait(notification.attempts).max(asked);
    let tried = SystemTime::now().duration_since(notification.since).unwrap_or_default();
    (tried + wait <= give_up_after).then_some(wait)
}

/// How long it waits after so many failures: twice as long each time, and a part of that left to chance, so that what
/// failed together does not come back together.
fn wait(failures: u32) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1_u32.checked_shl(failures.min(30)).unwrap_or(1)).min(WAIT_MAX);
    let mut chance = [0; 1];
    // Without random numbers all of it is waited.
    if aws_lc_rs::rand::fill(&mut chance).is_err() {
        return longest;
    }
    longest / 2 + longest / 2 * u32::from(chance.first().copied().unwrap_or_default()) / 255
}

fn bounded(why: &str) -> String {
    let mut text = why.to_owned();
    while text.len() > FAILURE_BYTES_MAX {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_up_to_its_bound() {
        for failures in 0..40 {
            let longest = Duration::from_secs(1 << failures.min(30)).min(WAIT_MAX);
            let waited = wait(failures);
            assert!(waited >= longest / 2 && waited <= longest, "{failures}: {waited:?}");
        }
    }
}
