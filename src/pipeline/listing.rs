//! The gateway lists each MCP upstream itself: at the start, when the upstream says that its list has changed, and by the
//! clock. It asks with its own identity, and what it learns is what calls and lists of agents are then compared with.
//!
//! A list that cannot be had changes nothing: the last one stays. What is seen for the first time, and what is found to
//! differ, is on the record.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::{Gateway, Generation};
use crate::call::Drift;
use crate::classify::catalog::Upstream;
use crate::decode::told::Members as Told;
use crate::definitions::ask::{self, Items, List};
use crate::definitions::canonical::{self, Definition};
use crate::definitions::sights::First;
use crate::definitions::{Listing, Served, Standing, Tool};
use crate::json::Members;
use crate::names::{looks, visible};
use crate::record::{Entry, Kind};

/// Upstreams that are listed at one time.
const AT_ONCE_MAX: usize = 4;
/// However often an upstream says that its list has changed, it is listed no more often than this, and at most a tenth of
/// the time is spent on it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How often it is looked for another generation, beside being told.
const TURN_LOOK: Duration = Duration::from_secs(5);
/// First sights in one record.
const SIGHTS_PER_RECORD: usize = 64;
/// Findings that one list puts on the record; how many there were is in the log.
const FINDINGS_MAX: usize = 128;
/// How much of a name is recorded.
const NAME_CHARS_MAX: usize = 128;

/// Lists every upstream until the program drains, those of later generations too.
pub async fn attend(gateway: Arc<Gateway>, mut drain: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let (mut tasks, mut attended) = (JoinSet::new(), HashMap::new());
    loop {
        let turned = gateway.turned.notified();
        let generation = gateway.in_force.load_full();
        let now: HashMap<Arc<str>, Listing> =
            generation.definitions.listings().map(|(name, listing)| (Arc::clone(name), listing)).collect();
        drop(generation);
        attended.retain(|name: &Arc<str>, (listing, task): &mut (Listing, AbortHandle)| {
            let stays = now.get(name) == Some(listing);
            if !stays {
                task.abort();
            }
            stays
        });
        for (upstream, listing) in now {
            let Some(every) = listing.every.filter(|_| !attended.contains_key(&upstream)) else { continue };
            let one =
                one(Arc::clone(&gateway), Arc::clone(&upstream), every, Arc::clone(&room), drain.clone());
            attended.insert(upstream, (listing, tasks.spawn(one)));
        }
        tokio::select! {
            () = turned => {}
            () = tokio::time::sleep(TURN_LOOK) => {}
            _ = drain.wait_for(|drain| *drain) => break,
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn one(
    gateway: Arc<Gateway>,
    upstream: Arc<str>,
    every: Duration,
    room: Arc<Semaphore>,
    mut drain: watch::Receiver<bool>,
) {
    let mut last_problem = String::new();
    loop {
        let listing = async {
            let _room = room.acquire().await;
            let begun = Instant::now();
            (take(&gateway, &upstream).await, begun.elapsed())
        };
        let (taken, took) = tokio::select! {
            taken = listing => taken,
            _ = drain.wait_for(|drain| *drain) => return,
        };
        match taken {
            Ok(()) => last_problem.clear(),
            // The same problem each time is one line in the log.
            Err(problem) if problem == last_problem => {}
            Err(problem) => {
                tracing::warn!(event = "catalog.unlisted", holdpoint.upstream = %upstream, problem = %problem, "an upstream cannot be listed");
                last_problem = problem;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(every)) => {}
            () = async {
                tokio::time::sleep(PAUSE_MIN.max(took * 9)).await;
                let definitions = Arc::clone(&gateway.in_force.load().definitions);
                definitions.until_changed(&upstream).await;
            } => {}
            _ = drain.wait_for(|drain| *drain) => return,
        }
    }
}

/// A tenth earlier or later, so that gateways do not ask together.
fn jittered(every: Duration) -> Duration {
    let mut random = [0; 2];
    // Without random numbers it is asked on the minute, which is no harm.
    let _ = SystemRandom::new().fill(&mut random);
    let part = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    every.mul_f64(0.9 + 0.2 * part)
}

/// Lists one upstream once, and takes what it says in. The error is a sentence.
pub async fn take(gateway: &Gateway, name: &Arc<str>) -> Result<(), String> {
    let generation = gateway.in_force.load_full();
    let (Some(upstream), Some(way)) = (generation.catalog.upstream(name), generation.upstreams.named(name))
    else {
        return Err("there is no such upstream".to_owned());
    };
    let credential = generation.broker.own(name)?;
    let lists = ask::lists(way, credential, &[List::Tools]).await.map_err(|problem| problem.to_string())?;
    let items = lists.into_iter().next().unwrap_or_default();
    // A long list is a long computation, and others wait for this thread.
    let read =
        tokio::task::spawn_blocking(move || Read::of(&items)).await.map_err(|error| error.to_string())?;
    let firsts = generation.definitions.sights.note(name, &read.definitions).await?;
    let mut served = read.served(upstream, &firsts);
    let before = generation.definitions.served(name).unwrap_or_default();
    suspect_looks(&generation, upstream, &mut served);
    first_sights(gateway, &generation, name, &read, &firsts);
    let after = served.clone();
    generation.definitions.replace(name, served);
    findings(gateway, &generation, upstream, &before, &after);
    Ok(())
}

/// What a list says, item by item.
struct Read {
    definitions: Vec<Definition>,
    /// Names of items that can be read in two ways.
    unreadable: Vec<Arc<str>>,
}

impl Read {
    fn of(items: &Items) -> Read {
        let mut read = Read { definitions: Vec::with_capacity(items.len()), unreadable: Vec::new() };
        for item in items {
            match canonical::read(item.get().as_bytes()) {
                Ok(definition) => read.definitions.push(definition),
                // A lax reader may know its name, and then that tool is not to be believed.
                Err(_) => read
                    .unreadable
                    .extend(Told::read(item.get()).and_then(|item| item.text("name")).map(Arc::<str>::from)),
            }
        }
        read
    }

    fn served(&self, upstream: &Upstream, firsts: &[First]) -> Served {
        let mut tools: HashMap<Arc<str>, Tool> = HashMap::with_capacity(self.definitions.len());
        for (definition, first) in self.definitions.iter().zip(firsts) {
            let first = match first {
                First::Now => Arc::clone(&definition.digest),
                First::Before(digest) => Arc::clone(digest),
            };
            let mut suspicion = definition.hidden.map(|_| Drift::HiddenText);
            let mut digest = Arc::clone(&definition.digest);
            if let Some(other) = tools.get(&definition.name) {
                suspicion = Some(Drift::Repeated);
                // Two definitions of one name: no pin can say which of them is meant.
                if other.digest != digest {
                    digest = Arc::from("");
                }
            }
            tools.insert(Arc::clone(&definition.name), Tool { digest, first, suspicion });
        }
        for name in &self.unreadable {
            let tool =
                Tool { digest: Arc::from(""), first: Arc::from(""), suspicion: Some(Drift::Unreadable) };
            tools.insert(Arc::clone(name), tool);
        }
        // One `Arc` for each digest that the catalogue has too.
        for (name, tool) in &mut tools {
            let pin = upstream.tool(name).and_then(|entry| entry.pin.clone());
            if let Some(pin) = pin.filter(|pin| *pin == tool.digest) {
                tool.digest = pin;
            }
        }
        Served { tools }
    }
}

/// Finds the tools that nobody catalogued and that look like another: a catalogued one, or one of the same list.
fn suspect_looks(generation: &Generation, upstream: &Upstream, served: &mut Served) {
    let mut alike: HashMap<String, usize> = HashMap::with_capacity(served.tools.len());
    for name in served.tools.keys() {
        *alike.entry(looks(name)).or_default() += 1;
    }
    for (name, tool) in &mut served.tools {
        let known = upstream.tool(name).is_some();
        let twin = alike.get(&looks(name)).is_some_and(|count| *count > 1);
        let taken_for = generation.catalog.names().taken_for(&upstream.config().name, name).is_some();
        if !known && tool.suspicion.is_none() && (twin || taken_for) {
            tool.suspicion = Some(Drift::LooksAlike);
        }
    }
}

/// Puts on the record what was seen for the first time and is pinned nowhere.
fn first_sights(gateway: &Gateway, generation: &Generation, name: &Arc<str>, read: &Read, firsts: &[First]) {
    let pinned = |definition: &Definition| {
        let entry =
            generation.catalog.upstream(name).and_then(|upstream| upstream.tool(&definition.name).cloned());
        entry.is_some_and(|entry| entry.pin.is_some())
    };
    let new = read.definitions.iter().zip(firsts).filter(|(_, first)| **first == First::Now);
    let new: Vec<&Definition> = new.map(|(definition, _)| definition).filter(|one| !pinned(one)).collect();
    for some in new.chunks(SIGHTS_PER_RECORD) {
        let mut members = Members::default();
        members.text("event", "first-sight");
        members.text("upstream", name);
        let shown: Vec<String> = some
            .iter()
            .map(|definition| format!("{} {}", definition.digest, cut(&definition.name)))
            .collect();
        members.texts("definitions", shown.iter().map(String::as_str));
        gateway.evidence.ledger.append_detached(Entry::new(Kind::Trust, None, members));
    }
}

/// The tool, why it is not believed, its pin, and the digest of what is served.
type Finding = (Arc<str>, Drift, Option<Arc<str>>, Option<Arc<str>>);

/// Puts on the record what is found to differ, once, and tells the metric how much does.
fn findings(
    gateway: &Gateway,
    generation: &Generation,
    upstream: &Upstream,
    before: &Served,
    after: &Served,
) {
    let name = &upstream.config().name;
    let mut drifted = 0;
    let mut found: Vec<Finding> = Vec::new();
    for entry in upstream.entries() {
        let tool = &entry.profile.name;
        if upstream.tool(tool).is_none() {
            continue;
        }
        let Standing::Drifted(drift, digest) =
            generation.definitions.standing(name, tool, entry.pin.as_deref())
        else {
            continue;
        };
        if drift == Drift::Unpinned {
            continue;
        }
        drifted += 1;
        // What the list before said as well is on the record already.
        let said = before.tools.get(tool) == after.tools.get(tool) && !before.tools.is_empty();
        if !said {
            found.push((Arc::clone(tool), drift, entry.pin.clone(), digest));
        }
    }
    for (tool, served) in &after.tools {
        let Some(drift) = served.suspicion.filter(|_| upstream.tool(tool).is_none()) else { continue };
        if before.tools.get(tool) != Some(served) {
            found.push((Arc::clone(tool), drift, None, Some(Arc::clone(&served.digest))));
        }
    }
    gateway.evidence.telemetry.metrics().catalog_drift(name, drifted);
    if found.is_empty() {
        return;
    }
    tracing::warn!(event = "catalog.drift", holdpoint.upstream = %name, findings = found.len(), "definitions are not believed: `holdpoint catalog diff` shows which");
    found.sort();
    for (tool, drift, pin, digest) in found.into_iter().take(FINDINGS_MAX) {
        let mut members = Members::default();
        members.text("finding", "definition");
        members.text("upstream", name);
        members.text("tool", &cut(&tool));
        members.text("reason", drift.as_str());
        if let Some(pin) = pin {
            members.plain("pin", pin);
        }
        if let Some(digest) = digest.filter(|digest| !digest.is_empty()) {
            members.plain("definition", digest);
        }
        gateway.evidence.ledger.append_detached(Entry::new(Kind::Finding, None, members));
    }
}

fn cut(name: &str) -> String {
    visible(name).chars().take(NAME_CHARS_MAX).collect()
}
