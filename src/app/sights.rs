//! First sights of definitions, kept in the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::definitions::canonical::Definition;
use crate::definitions::sights::{First, Noted, Sights, Words};
use crate::store::{self, Seen, Sight, Sighted, Store};

/// First sights that outlive the process.
pub(super) struct StoredSights(pub Arc<dyn Store>);

impl Sights for StoredSights {
    fn note<'a>(&'a self, upstream: &'a Arc<str>, shown: &'a [Definition]) -> Noted<'a> {
        Box::pin(async move {
            let stored = shown.iter().map(|definition| store::Definition {
                tool: definition.name.to_string(),
                digest: definition.digest.to_string(),
                json: definition.canonical.clone(),
            });
            let seen = self.0.sight(upstream.to_string(), stored.collect(), SystemTime::now());
            let seen = seen.await.map_err(|error| error.to_string())?;
            let sights = self.0.sights(upstream.to_string()).await.map_err(|error| error.to_string())?;
            let known = known(&sights);
            Ok(shown.iter().zip(&seen).map(|(definition, seen)| first(definition, *seen, &known)).collect())
        })
    }

    fn words<'a>(&'a self, upstream: &'a str, tool: &'a str, digest: &'a str) -> Words<'a> {
        let [upstream, tool, digest] = [upstream, tool, digest].map(str::to_owned);
        Box::pin(async move {
            let words = self.0.definition(Sighted { upstream, tool, digest }).await;
            words.map_err(|error| error.to_string())
        })
    }
}

/// What each tool is held to: the definition that was accepted last, else the one that was seen first.
fn known(sights: &[Sight]) -> HashMap<&str, &Sight> {
    let mut known: HashMap<&str, &Sight> = HashMap::with_capacity(sights.len());
    let accepted = |sight: &Sight| sight.accepted.as_ref().map(|(_, at)| *at);
    for sight in sights {
        let held = known.entry(&sight.sighted.tool).or_insert(sight);
        let later = accepted(sight) > accepted(held);
        if later || (accepted(sight) == accepted(held) && sight.first < held.first) {
            *held = sight;
        }
    }
    known
}

fn first(definition: &Definition, seen: Seen, known: &HashMap<&str, &Sight>) -> First {
    match known.get(&*definition.name) {
        Some(sight) if *sight.sighted.digest != *definition.digest => {
            First::Before(Arc::from(sight.sighted.digest.as_str()))
        }
        Some(_) if seen == Seen::Again => First::Before(Arc::clone(&definition.digest)),
        _ => First::Now,
    }
}
