//! The people who look after agents, in memory.

use std::collections::HashMap;
use std::sync::Arc;

use crate::call::{AgentId, Person};

/// Everybody of `people.yaml`, by the id of their certificate. Whoever is not in it is nobody.
#[derive(Clone, Debug, Default)]
pub struct People(HashMap<AgentId, Arc<Person>>);

impl People {
    /// These people; of two with one id the last one counts, so whoever reads them refuses that first.
    pub fn new(people: impl IntoIterator<Item = Person>) -> People {
        People(people.into_iter().map(|person| (person.id.clone(), Arc::new(person))).collect())
    }

    /// The person of a verified id.
    pub fn find(&self, id: &AgentId) -> Option<Arc<Person>> {
        self.0.get(id).cloned()
    }

    /// Everybody, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Person>> {
        self.0.values()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
