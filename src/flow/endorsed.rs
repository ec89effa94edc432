//! Destinations that people remembered: for one agent and one kind of sink, up to a confidentiality and a consequence,
//! until they expire or are taken back. A call looks here without a lock.

use std::collections::HashMap;
use std::time::SystemTime;

use super::provenance::Place;
use crate::call::{AgentId, Confidentiality, RecordId};
use crate::classify::sink::SinkKind;
use crate::store::holds::Endorsement;

/// The endorsements in force.
#[derive(Clone, Debug, Default)]
pub struct Endorsed {
    of: HashMap<AgentId, Vec<One>>,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq)]
struct One {
    id: RecordId,
    sink: SinkKind,
    destination: String,
    most: Confidentiality,
    consequence_max: u8,
    until: SystemTime,
}

/// A call's destination as endorsements know it.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// How it is reached.
    pub sink: SinkKind,
    /// The place.
    pub place: &'a Place,
    /// The consequence of this very call.
    pub consequence: u8,
}

impl Endorsed {
    /// Those of the store that nobody took back. What cannot be understood is in force for nobody, and is told.
    pub fn of(kept: &[Endorsement]) -> Endorsed {
        kept.iter().filter(|one| one.revoked.is_none()).fold(Endorsed::default(), |all, one| all.with(one))
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, one: &Endorsement) -> Endorsed {
        let Some(sink) = SinkKind::parse(&one.sink) else {
            tracing::error!(id = %one.id, sink = one.sink, "an endorsement is for a kind of sink that is not known");
            return self;
        };
        self.of.entry(one.agent.clone()).or_default().push(One {
            id: one.id,
            sink,
            destination: one.destination.clone(),
            most: one.confidentiality,
            consequence_max: one.consequence_max,
            until: one.until,
        });
        self
    }

    /// These without one.
    #[must_use]
    pub fn without(mut self, id: RecordId) -> Endorsed {
        self.of.values_mut().for_each(|all| all.retain(|one| one.id != id));
        self
    }

    /// Whether there is any for an agent.
    pub fn has(&self, agent: &AgentId) -> bool {
        self.of.get(agent).is_some_and(|all| !all.is_empty())
    }

    /// The endorsement of a destination for what is most confidential, if there is one.
    pub fn find(
        &self,
        agent: &AgentId,
        wanted: &Wanted<'_>,
        now: SystemTime,
    ) -> Option<(RecordId, Confidentiality)> {
        let canonical = wanted.place.canonical();
        let fits = |one: &&One| {
            one.sink == wanted.sink
                && one.destination == canonical
                && wanted.consequence <= one.consequence_max
                && now < one.until
        };
        let best = self.of.get(agent)?.iter().filter(fits).max_by_key(|one| one.most)?;
        Some((best.id, best.most))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_endorsement_is_for_its_agent_its_sink_its_place_its_consequence_and_its_time() {
        let agent = |name: &str| AgentId::from_normalised(&format!("spiffe://example.org/{name}"));
        let now = SystemTime::now();
        let place = Place::of(SinkKind::Message, "Bob <BOB@partner.test>");
        let one = Endorsement {
            id: RecordId::new(),
            agent: agent("a"),
            upstream: String::new(),
            tool: String::new(),
            sink: "message".to_owned(),
            destination: place.canonical(),
            confidentiality: Confidentiality::Internal,
            consequence_max: 2,
            rule: String::new(),
            hold: None,
            by: "ana".to_owned(),
            reason: "a partner".to_owned(),
            at: now,
            until: now + Duration::from_secs(60),
            revoked: None,
        };
        let all = Endorsed::of(std::slice::from_ref(&one));
        let find = |name: &str, sink, text: &str, consequence, later| {
            let place = Place::of(sink, text);
            let wanted = Wanted { sink, place: &place, consequence };
            all.find(&agent(name), &wanted, now + Duration::from_secs(later)).map(|(id, _)| id)
        };
        assert_eq!(find("a", SinkKind::Message, "bob@partner.test", 2, 0), Some(one.id));
        assert_eq!(find("b", SinkKind::Message, "bob@partner.test", 2, 0), None, "another agent");
        assert_eq!(find("a", SinkKind::Share, "bob@partner.test", 2, 0), None, "another kind of sink");
        assert_eq!(find("a", SinkKind::Message, "bob@partner.tests", 2, 0), None, "another place");
        assert_eq!(find("a", SinkKind::Message, "bob@partner.test", 3, 0), None, "a graver call");
        assert_eq!(find("a", SinkKind::Message, "bob@partner.test", 2, 60), None, "later");
        assert!(!all.without(one.id).has(&agent("a")));
    }
}
