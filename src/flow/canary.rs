//! Canaries: tokens that operators plant where only an intruder would look. One that leaves is certain evidence.

use std::collections::HashMap;
use std::sync::Arc;

use super::canon::Canon;
use super::text::{FlowKey, grams};

/// Grams of one canary that must be found. Two are not found by chance, and a part of a canary is enough.
const GRAMS_MIN: usize = 2;

/// The canaries in force: keyed digests of them, with their names.
#[derive(Clone, Debug, Default)]
pub struct Canaries {
    names: Vec<Arc<str>>,
    /// What is hashed here was hashed under the gateway's key.
    grams: HashMap<u32, u32, foldhash::fast::RandomState>,
}

impl Canaries {
    /// Adds a canary. It needs at least 20 letters and digits.
    pub fn add(&mut self, key: &FlowKey, name: &str, token: &str) -> Result<(), &'static str> {
        let digest: Vec<u32> = grams(key, Canon::of(token).bytes).collect();
        if digest.len() < 5 {
            return Err("a canary needs at least 20 letters and digits");
        }
        self.add_digest(name, &digest);
        Ok(())
    }

    /// Adds a canary by its digest, as [`Canaries::digest`] gives it: what a store keeps.
    pub fn add_digest(&mut self, name: &str, digest: &[u32]) {
        let number = self.names.len() as u32;
        self.names.push(Arc::from(name));
        self.grams.extend(digest.iter().map(|gram| (*gram, number)));
    }

    /// The keyed digest of a canary.
    pub fn digest(key: &FlowKey, token: &str) -> Vec<u32> {
        grams(key, Canon::of(token).bytes).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The canary that a gram belongs to.
    pub fn of_gram(&self, gram: u32) -> Option<u32> {
        if self.grams.is_empty() { None } else { self.grams.get(&gram).copied() }
    }

    /// The name of a canary that so many different grams were found of; `None` when that is too few.
    pub fn found(&self, number: u32, grams: usize) -> Option<Arc<str>> {
        (grams >= GRAMS_MIN).then(|| self.names.get(number as usize).cloned()).flatten()
    }
}
