//! Hold: a call waits at the point where it would take effect, until people have decided exactly this call.
//!
//! The store keeps every hold, so that it outlives its connection and this process. What is here brings together who
//! waits with what people decide: waiting is by a notice within the process, every change is in the audit in order, and
//! an approved call is taken for execution by one request alone, once.

pub mod continuing;
pub mod digest;
pub mod ladder;
mod moments;
mod rows;
pub mod sealed;
mod settled;
mod words;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::call::{AgentId, Approval, RecordId, Stop, TraceContext, hex};
use crate::record::{Evidence, OnEnd, ReleaseEnd};
use crate::store::holds::{About, Claim, End, Hold, HoldState, NewHold, Opened, Terms, Vote, Voted, Wanted};
use crate::store::{Store, StoreError};
use crate::telemetry::hop::MomentKind;
use continuing::Legs;
use digest::Subject;
use rows::Rows;
use sealed::Sealer;
pub use words::{altered, left, pending, told, unmet, unreadable};
use words::{key_reused, too_many, unavailable};

/// How holds are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a hold waits at most, whatever its policy says.
    pub ttl_max: Duration,
    /// How many holds of one agent may be pending.
    pub pending_max: u32,
    /// How long one request waits at most for people. Zero answers at once.
    pub wait_max: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ttl_max: Duration::from_secs(24 * 60 * 60),
            pending_max: 20,
            wait_max: Duration::from_secs(280),
        }
    }
}

/// How long a gateway that executes a call may be silent before its call counts as lapsed.
const LEASE_TIME: Duration = Duration::from_secs(30);
/// How often it says that it goes on.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// When an agent may sensibly ask again.
const RETRY: Duration = Duration::from_secs(30);
/// How often at most it is looked for what runs out of time, however many are opened.
const SWEEP_EVERY_MIN: Duration = Duration::from_millis(500);
/// How long the end of a wait in the store may be away, so that a clock that was set is noticed.
const SWEEP_EVERY_MAX: Duration = Duration::from_secs(10);

/// Where calls wait for people.
pub struct Gate {
    store: Arc<dyn Store>,
    sealer: Sealer,
    evidence: Arc<Evidence>,
    rows: Rows,
    waiting: Mutex<HashMap<RecordId, watch::Sender<HoldState>>>,
    legs: Legs,
    /// This run of this gateway.
    instance: String,
    /// Told when something new will run out of time.
    opened: Notify,
    /// Told when there is something that people may be told of.
    told: Notify,
    /// Whether there is anybody who could decide.
    manned: bool,
}

/// Somebody who waits for a hold to change.
pub struct Waiter {
    gate: Arc<Gate>,
    hold: RecordId,
    seen: watch::Receiver<HoldState>,
}

/// What is known of a call that is to be held.
pub struct Wish {
    /// What it is about.
    pub about: About,
    /// What people must say.
    pub terms: Terms,
    /// How long policy lets it wait.
    pub ttl: Duration,
    /// What they approve.
    pub subject: Subject,
    /// Its upstream and its `Idempotency-Key`, if it has one.
    pub idempotency_key: Option<Vec<u8>>,
    /// The server span of the call.
    pub trace: Option<TraceContext>,
}

impl Gate {
    /// A gate over this store. Calls that a gateway of before began to execute are settled by what the audit in this
    /// directory says of them.
    pub async fn open(
        store: Arc<dyn Store>,
        sealer: Sealer,
        evidence: Arc<Evidence>,
        audit: PathBuf,
        manned: bool,
    ) -> Result<Arc<Gate>, StoreError> {
        let rows = Rows::new(Arc::clone(&store), evidence.ledger.clone(), audit);
        let gate = Gate {
            store,
            sealer,
            evidence,
            rows,
            waiting: Mutex::default(),
            legs: Legs::default(),
            instance: RecordId::new().to_string(),
            opened: Notify::new(),
            told: Notify::new(),
            manned,
        };
        gate.rows.recover().await?;
        gate.lapse().await?;
        gate.sweep().await?;
        Ok(Arc::new(gate))
    }

    /// Whether anybody could decide: with nobody, no call waits for an answer that cannot come.
    pub fn is_manned(&self) -> bool {
        self.manned
    }

    /// Waits until something has happened that people may be told of since this was asked last.
    pub async fn happened(&self) {
        self.told.notified().await;
    }

    /// What seals the states that waiting agents carry.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The next legs of approved calls that are expected.
    pub fn legs(&self) -> &Legs {
        &self.legs
    }

    /// Joins the hold of this very call, or opens one.
    pub async fn enter(self: &Arc<Gate>, wish: Wish, config: Config) -> Result<(Hold, Waiter), Box<Stop>> {
        let (id, rule) = (RecordId::new(), Arc::<str>::from(&*wish.about.rule));
        let Subject { text, digest } = &wish.subject;
        // What joins another hold is opened by that one's id, so the purpose is the digest.
        let bytes = self.sealer.seal(&purpose(digest), text.as_bytes());
        let bytes = bytes.ok_or_else(|| unavailable("the call could not be sealed"))?;
        let key = wish.idempotency_key.map(|key| digest::sha256(&key));
        let new = NewHold {
            id,
            digest: *digest,
            idempotency: key,
            about: wish.about,
            terms: wish.terms,
            ttl: wish.ttl.min(config.ttl_max),
            bytes,
            pending_max: config.pending_max,
        };
        // Whatever happens to it once it is kept is told to who waits already.
        let waiter = self.wait_for(id, HoldState::Pending);
        let opened = self.store.open_hold(new).await.map_err(|error| unavailable(&error.to_string()))?;
        let (hold, is_new) = match opened {
            Opened::Joined(hold) => (hold, false),
            Opened::New(hold) => {
                self.emit(MomentKind::Opened, &hold, wish.trace);
                self.opened.notify_one();
                self.told.notify_one();
                self.count().await;
                let pending = hold.state == HoldState::Pending;
                (hold, pending)
            }
            Opened::TooMany => return Err(too_many(config.pending_max, rule)),
            Opened::KeyReused => return Err(key_reused()),
        };
        self.rows.write().await.map_err(|error| unavailable(&error))?;
        if is_new {
            return Ok((hold, waiter));
        }
        let waiter = self.wait_for(hold.id, hold.state);
        // Between opening and waiting it may have changed.
        let hold = self.find(hold.id).await?.unwrap_or(hold);
        Ok((hold, waiter))
    }

    /// A hold by its id.
    pub async fn find(&self, id: RecordId) -> Result<Option<Hold>, Box<Stop>> {
        self.store.hold(id).await.map_err(|error| unavailable(&error.to_string()))
    }

    /// Holds for people to see.
    pub async fn list(&self, wanted: Wanted) -> Result<Vec<Hold>, StoreError> {
        self.store.holds(wanted).await
    }

    /// A hold for people to see.
    pub async fn show(&self, id: RecordId) -> Result<Option<Hold>, StoreError> {
        self.store.hold(id).await
    }

    /// The very text that is approved, as long as the hold has not ended. One that is not what the digest says is none.
    pub async fn text(&self, hold: &Hold) -> Result<Option<String>, StoreError> {
        let Some(bytes) = self.store.held_bytes(hold.id).await? else { return Ok(None) };
        let text = self.sealer.open(&purpose(&hold.digest), &bytes);
        let text = text.filter(|text| digest::sha256(text) == hold.digest);
        let broken = || StoreError::Failed(format!("what hold {} keeps is not what is held", hold.id));
        text.and_then(|text| String::from_utf8(text).ok()).map(Some).ok_or_else(broken)
    }

    /// Keeps what an executed call came to, for its agent, until the hold's time is over.
    pub async fn keep_result(&self, hold: &Hold, message: &str) {
        let sealed = self.sealer.seal(&result_purpose(hold.id), message.as_bytes());
        let kept = match sealed {
            Some(sealed) => self.store.keep_result(hold.id, sealed).await.map_err(|error| error.to_string()),
            None => Err("it could not be sealed".to_owned()),
        };
        if let Err(error) = kept {
            tracing::error!(hold = %hold.id, %error, "the result of a held call could not be kept");
        }
    }

    /// What was kept of an executed call.
    pub async fn result(&self, hold: &Hold) -> Option<String> {
        let sealed = self.store.result(hold.id).await.ok().flatten()?;
        String::from_utf8(self.sealer.open(&result_purpose(hold.id), &sealed)?).ok()
    }

    /// The store's clock.
    pub async fn now(&self) -> Result<SystemTime, StoreError> {
        self.store.clock().await
    }

    /// A person's vote; whoever waits is told at once.
    pub async fn vote(&self, id: RecordId, vote: Vote) -> Result<Voted, StoreError> {
        let voted = self.store.vote(id, vote).await?;
        if let Voted::Counted(hold) = &voted {
            self.emit(MomentKind::Decided, hold, None);
            self.changed(hold);
            self.count().await;
            self.written().await;
        }
        Ok(voted)
    }

    /// The agent takes its call back.
    pub async fn withdraw(&self, id: RecordId, agent: &AgentId) -> Result<(), Box<Stop>> {
        let withdrawn = self.store.withdraw(id, agent.clone()).await;
        if let Some(hold) = withdrawn.map_err(|error| unavailable(&error.to_string()))? {
            self.changed(&hold);
            self.count().await;
            self.written().await;
        }
        Ok(())
    }

    /// Takes an approved hold for execution by this record. When this returns it, the audit has the release, synced;
    /// `None` when somebody was faster, or its time is over.
    pub async fn release(
        self: &Arc<Gate>,
        hold: &Hold,
        digest: [u8; 32],
        (record, trace): (RecordId, Option<TraceContext>),
    ) -> Result<Option<OnEnd>, Box<Stop>> {
        let lease = Claim { by: self.instance.clone(), time: LEASE_TIME, record };
        let released = self.store.release(hold.id, digest, lease).await;
        let Some(hold) = released.map_err(|error| unavailable(&error.to_string()))? else {
            // What it stood on may have ended, and that is on record too.
            self.written().await;
            return Ok(None);
        };
        self.emit(MomentKind::Released, &hold, trace);
        self.changed(&hold);
        if let Err(error) = self.rows.write().await {
            self.settle(hold.id, record, ReleaseEnd::NotSent(format!("not sent: {error}"))).await;
            return Err(unavailable(&error));
        }
        let gate = Arc::clone(self);
        Ok(Some(Box::new(move |end| Box::pin(async move { gate.settle(hold.id, record, end).await }))))
    }

    async fn settle(&self, id: RecordId, record: RecordId, end: ReleaseEnd) {
        let (state, detail) = match end {
            ReleaseEnd::Executed(detail) => (HoldState::Executed, detail),
            ReleaseEnd::NotSent(detail) => (HoldState::Failed, detail),
            ReleaseEnd::Unknown(detail) => (HoldState::Indeterminate, detail),
        };
        match self.store.settle(id, End { state, record, detail }).await {
            Ok(Some(hold)) => {
                self.changed(&hold);
                self.written().await;
            }
            Ok(None) => {
                tracing::error!(hold = %id, "an execution ended that was not this gateway's any more")
            }
            // The lease runs out, and then the audit says what came of it.
            Err(error) => tracing::error!(hold = %id, %error, "the end of a held call could not be kept"),
        }
    }

    /// Ends what runs out of time, says that this gateway goes on, and keeps the audit up to date, until the drain.
    pub async fn attend(self: Arc<Gate>, mut drain: watch::Receiver<bool>) {
        let mut renewed = Instant::now();
        loop {
            let next = match self.sweep().await {
                Ok(next) => next.unwrap_or(SWEEP_EVERY_MAX).min(SWEEP_EVERY_MAX),
                Err(error) => {
                    self.evidence.telemetry.metrics().store_failed();
                    tracing::warn!(%error, "holds could not be looked through");
                    Duration::from_secs(1)
                }
            };
            if renewed.elapsed() >= RENEW_EVERY {
                renewed = Instant::now();
                if let Err(error) = self.keep().await {
                    tracing::warn!(%error, "this gateway could not say that it goes on with held calls");
                }
            }
            let soonest = Instant::now() + SWEEP_EVERY_MIN;
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = self.opened.notified() => {}
                _ = drain.wait_for(|drain| *drain) => return,
            }
            tokio::select! {
                () = tokio::time::sleep_until(soonest) => {}
                _ = drain.wait_for(|drain| *drain) => return,
            }
        }
    }

    async fn keep(&self) -> Result<(), StoreError> {
        self.store.renew(self.instance.clone(), LEASE_TIME).await?;
        self.lapse().await
    }

    /// Ends what ran out of time; in how long something else does.
    async fn sweep(&self) -> Result<Option<Duration>, StoreError> {
        let swept = self.store.expire().await?;
        for hold in &swept.expired {
            self.changed(hold);
        }
        for hold in &swept.escalated {
            self.evidence.telemetry.metrics().hold_escalated();
            tracing::warn!(event = "hold.escalated", hold = %hold.id, holdpoint.upstream = %hold.about.upstream, team = %hold.about.team, "half of a hold's time is over, and nobody has decided");
        }
        for hold in &swept.expiring {
            tracing::warn!(event = "hold.expiring", hold = %hold.id, holdpoint.upstream = %hold.about.upstream, team = %hold.about.team, "a quarter of a hold's time is left, and nobody has decided");
        }
        if !(swept.expired.is_empty() && swept.escalated.is_empty() && swept.expiring.is_empty()) {
            self.count().await;
            self.written().await;
        }
        Ok(swept.next)
    }

    /// Settles executions whose gateway is gone. What the audit knows to have ended has ended; of anything else nobody
    /// knows whether it ran, so it is not run again, unless doing it twice is doing it once.
    async fn lapse(&self) -> Result<(), StoreError> {
        let lapsed = self.store.lapsed().await?;
        if lapsed.is_empty() {
            return Ok(());
        }
        let ids = lapsed.iter().filter_map(|hold| hold.record).collect();
        let since = lapsed.iter().map(|hold| hold.changed).min().unwrap_or(SystemTime::UNIX_EPOCH);
        let known = self.rows.about(since, ids).await?;
        for hold in lapsed {
            let Some(record) = hold.record else { continue };
            let (state, detail) = match known.ended.get(&record).map(String::as_str) {
                Some("executed" | "tool-error" | "error") => (HoldState::Executed, "by the audit"),
                Some("not-sent") => (HoldState::Failed, "by the audit"),
                _ if hold.about.idempotent => (HoldState::Approved, ""),
                _ => (HoldState::Indeterminate, "its gateway ended while it was executed"),
            };
            if let Some(hold) =
                self.store.settle(hold.id, End { state, record, detail: detail.to_owned() }).await?
            {
                self.changed(&hold);
            }
        }
        self.written().await;
        Ok(())
    }

    /// Tells whoever waits, and the metrics.
    fn changed(&self, hold: &Hold) {
        self.tell(hold);
        // A further use of an approval that stands waited for nobody.
        let used = hold.executes.is_some_and(|by| by.number != 1);
        if hold.state.is_end() && !used {
            let waited = hold.changed.duration_since(hold.opened).unwrap_or_default();
            self.emit(MomentKind::Ended, hold, None);
            let outcome = moments::outcome(hold.state);
            self.evidence.telemetry.metrics().hold_ended(outcome, waited);
        }
    }

    /// Tells whoever waits.
    fn tell(&self, hold: &Hold) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.get(&hold.id) {
            sender.send_replace(hold.state);
        }
    }

    async fn count(&self) {
        if let Ok(pending) = self.store.pending().await {
            let pending = usize::try_from(pending).unwrap_or(usize::MAX);
            self.evidence.telemetry.metrics().holds_pending(pending);
        }
    }

    /// Puts into the audit what it does not have yet of what the store keeps for it; when this returns it is synced.
    pub async fn audited(&self) -> Result<(), String> {
        self.told.notify_one();
        self.rows.write().await
    }

    /// Writes what the audit does not have yet. What cannot be written now is written later, in its order.
    async fn written(&self) {
        self.told.notify_one();
        if let Err(error) = self.rows.write().await {
            tracing::warn!(%error, "the audit does not have the last changes of holds yet");
        }
    }

    /// Whether a request of the agent waits for a hold in this process.
    pub fn is_awaited(&self, hold: RecordId) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(&hold).is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Waits for a hold that is known.
    pub fn waits_for(self: &Arc<Gate>, hold: &Hold) -> Waiter {
        self.wait_for(hold.id, hold.state)
    }

    fn wait_for(self: &Arc<Gate>, hold: RecordId, state: HoldState) -> Waiter {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = waiting.entry(hold).or_insert_with(|| watch::Sender::new(state));
        Waiter { gate: Arc::clone(self), hold, seen: sender.subscribe() }
    }
}

/// What a held call is sealed for.
fn purpose(digest: &[u8; 32]) -> String {
    format!("held call {}", hex(digest))
}

/// What the result of a held call is sealed for.
fn result_purpose(hold: RecordId) -> String {
    format!("result of {hold}")
}

/// The approval that a hold's votes are, for a call of this digest.
pub fn approval(hold: &Hold, digest: &[u8; 32]) -> Approval {
    let mut roles: Vec<Arc<str>> =
        hold.approvals().flat_map(|vote| vote.roles.iter().map(|role| Arc::from(&**role))).collect();
    roles.sort();
    roles.dedup();
    Approval {
        id: Arc::from(hold.id.to_string()),
        digest_ok: hold.digest == *digest,
        count: u32::try_from(hold.approvals().count()).unwrap_or(u32::MAX),
        roles,
    }
}

// === impl Waiter ===

impl Waiter {
    /// Waits until the hold is no longer pending, nor executed by somebody else; true when it is so.
    pub async fn moved(&mut self) -> bool {
        let settled = |state: &HoldState| !matches!(state, HoldState::Pending | HoldState::Releasing);
        self.seen.wait_for(settled).await.is_ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.gate.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // This one is still counted.
        if waiting.get(&self.hold).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.hold);
        }
    }
}
