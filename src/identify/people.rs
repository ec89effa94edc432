//! The people who look after agents, in memory.

use std::collections::HashMap;
use std::sync::Arc;

use crate::call::{AgentId, Person};

/// Everybody of `people.yaml`, by the id of their certificate. Whoever is not in it is nobody.
#[derive(Clone, Debug, Default)]
pub struct People {
    people: HashMap<AgentId, Arc<Person>>,
    /// By issuer and subject, as an identity provider names them.
    subjects: HashMap<(String, String), AgentId>,
}

impl People {
    /// These people; of two with one id the last one counts, so whoever reads them refuses that first.
    pub fn new(people: impl IntoIterator<Item = Person>) -> People {
        let people = people.into_iter().map(|person| (person.id.clone(), Arc::new(person))).collect();
        People { people, subjects: HashMap::new() }
    }

    /// The same people, of whom these are known to an identity provider: by its name, and its name for the person.
    pub fn known_as(self, subjects: impl IntoIterator<Item = ((String, String), AgentId)>) -> People {
        People { subjects: subjects.into_iter().collect(), ..self }
    }

    /// The person whom an identity provider names so.
    pub fn named(&self, issuer: &str, subject: &str) -> Option<Arc<Person>> {
        self.find(self.subjects.get(&(issuer.to_owned(), subject.to_owned()))?)
    }

    /// Everybody whom an identity provider knows: its name and its name for them, and their id here.
    pub fn subjects(&self) -> impl Iterator<Item = (&(String, String), &AgentId)> {
        self.subjects.iter()
    }

    /// Whether an identity provider knows this person.
    pub fn has_subject(&self, id: &AgentId) -> bool {
        self.subjects.values().any(|known| known == id)
    }

    /// The person of a verified id.
    pub fn find(&self, id: &AgentId) -> Option<Arc<Person>> {
        self.people.get(id).cloned()
    }

    /// Everybody, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Person>> {
        self.people.values()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }
}
