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
            let held = self.0.held(upstream.to_string()).await.map_err(|error| error.to_string())?;
            let known: HashMap<&str, &Sight> =
                held.iter().map(|sight| (&*sight.sighted.tool, sight)).collect();
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

fn first(definition: &Definition, seen: Seen, known: &HashMap<&str, &Sight>) -> First {
    match known.get(&*definition.name) {
        Some(sight) if *sight.sighted.digest != *definition.digest => {
            First::Before(Arc::from(sight.sighted.digest.as_str()))
        }
        Some(_) if seen == Seen::Again => First::Before(Arc::clone(&definition.digest)),
        _ => First::Now,
    }
}
