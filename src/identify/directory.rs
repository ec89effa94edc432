//! The registry of agents in memory: exact ids by hash, wildcards by the longest prefix, profiles built once.

use std::collections::HashMap;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use time::{Date, Duration};

use crate::call::{AgentId, AgentProfile, Autonomy};

/// How long after its review date an agent still calls, read-only.
const REVIEW_GRACE: Duration = Duration::days(14);
/// The most concrete agents under wildcards whose profiles are kept.
const WILDCARD_PROFILES_MAX: usize = 10_000;

/// Where an agent is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// May call.
    Active,
    /// May not call, for now.
    Suspended,
    /// Will not call again.
    Retired,
}

/// The accountable people, by e-mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// For the business.
    pub business: Option<Arc<str>>,
    /// For operation.
    pub technical: Option<Arc<str>>,
    /// For the risk.
    pub risk: Option<Arc<str>>,
}

impl Owners {
    /// Whether all three are named.
    pub fn complete(&self) -> bool {
        self.business.is_some() && self.technical.is_some() && self.risk.is_some()
    }

    /// In which capacities a person owns, by e-mail: `business`, `technical`, `risk`.
    pub fn held_by(&self, email: &str) -> Vec<&'static str> {
        let owners = [("business", &self.business), ("technical", &self.technical), ("risk", &self.risk)];
        let is = |owner: &Option<Arc<str>>| {
            !email.is_empty() && owner.as_ref().is_some_and(|owner| owner.eq_ignore_ascii_case(email))
        };
        owners.into_iter().filter(|(_, owner)| is(owner)).map(|(capacity, _)| capacity).collect()
    }

    /// Whether one of them has this address; the case of letters does not matter.
    pub fn include(&self, email: &str) -> bool {
        let same =
            |owner: &Option<Arc<str>>| owner.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(email));
        !email.is_empty() && [&self.business, &self.technical, &self.risk].into_iter().any(same)
    }
}

/// One entry of the registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The id, or for a wildcard everything before its `*`, which ends in `/`.
    pub id: AgentId,
    /// Whether it stands for every id below its path.
    pub wildcard: bool,
    /// The accountable people.
    pub owners: Owners,
    /// The owning team.
    pub team: Arc<str>,
    /// Groups for policy and limits.
    pub groups: Vec<Arc<str>>,
    /// What the agent is for.
    pub purpose: Arc<str>,
    /// The autonomy as registered.
    pub autonomy: Autonomy,
    /// Where it is in its life.
    pub state: State,
    /// 0 to 4.
    pub risk: u8,
    /// Where the agent runs.
    pub region: Arc<str>,
    /// The vendor that manages it.
    pub vendor: Option<Arc<str>>,
    /// When it must be reviewed.
    pub review_due: Option<Date>,
}

/// What an entry allows on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As registered.
    InForce,
    /// Read-only: an owner is missing, or the review is due.
    Reduced,
    /// Suspended in the registry.
    Suspended,
    /// Retired.
    Retired,
    /// Past the review date by more than 14 days.
    ReviewOverdue,
}

impl Entry {
    /// What this entry allows on a day.
    pub fn standing(&self, today: Date) -> Standing {
        match self.state {
            State::Suspended => return Standing::Suspended,
            State::Retired => return Standing::Retired,
            State::Active => {}
        }
        let past = |due: Date, grace: Duration| due.checked_add(grace).is_some_and(|limit| today > limit);
        match self.review_due {
            Some(due) if past(due, REVIEW_GRACE) => Standing::ReviewOverdue,
            Some(due) if past(due, Duration::ZERO) => Standing::Reduced,
            _ if !self.owners.complete() => Standing::Reduced,
            _ => Standing::InForce,
        }
    }

    fn profile(&self, id: &AgentId, autonomy: Autonomy) -> Arc<AgentProfile> {
        Arc::new(AgentProfile {
            id: id.clone(),
            owner: self.owners.business.clone().unwrap_or_default(),
            owned: self.owners.complete(),
            team: self.team.clone(),
            groups: self.groups.clone(),
            purpose: self.purpose.clone(),
            autonomy,
            risk: self.risk,
            region: self.region.clone(),
            vendor: self.vendor.clone(),
        })
    }
}

/// A concrete agent: its entry, and its profiles for every standing in which it may call.
#[derive(Debug)]
pub struct Known {
    entry: Arc<Entry>,
    profile: Arc<AgentProfile>,
    reduced: Arc<AgentProfile>,
}

impl Known {
    fn new(entry: Arc<Entry>, id: &AgentId) -> Arc<Known> {
        let profile = entry.profile(id, entry.autonomy);
        let reduced = match entry.autonomy {
            Autonomy::ReadOnly => profile.clone(),
            _ => entry.profile(id, Autonomy::ReadOnly),
        };
        Arc::new(Known { entry, profile, reduced })
    }

    /// The entry that stands for this agent.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The profile as registered.
    pub fn profile(&self) -> &Arc<AgentProfile> {
        &self.profile
    }

    /// The profile with the autonomy in force on a day.
    pub fn profile_today(&self, today: Date) -> Arc<AgentProfile> {
        match self.entry.standing(today) {
            Standing::InForce => Arc::clone(&self.profile),
            _ => Arc::clone(&self.reduced),
        }
    }

    /// The profile with read-only autonomy.
    pub fn reduced(&self) -> &Arc<AgentProfile> {
        &self.reduced
    }
}

/// Every registered agent.
#[derive(Debug, Default)]
pub struct Directory {
    exact: HashMap<AgentId, Arc<Known>, RandomState>,
    /// By prefix, the longest first.
    wildcards: Vec<Arc<Entry>>,
    below: DashMap<AgentId, Arc<Known>>,
}

impl Directory {
    /// A directory of entries without duplicates.
    pub fn new(entries: Vec<Entry>) -> Directory {
        let mut directory = Directory::default();
        for entry in entries.into_iter().map(Arc::new) {
            if entry.wildcard {
                directory.wildcards.push(entry);
            } else {
                directory.exact.insert(entry.id.clone(), Known::new(entry.clone(), &entry.id));
            }
        }
        directory.wildcards.sort_by_key(|entry| std::cmp::Reverse(entry.id.as_str().len()));
        directory
    }

    /// The agent of a verified id: its own entry, else that of the longest wildcard above it.
    pub fn find(&self, id: &AgentId) -> Option<Arc<Known>> {
        if let Some(known) = self.exact.get(id) {
            return Some(known.clone());
        }
        if let Some(known) = self.below.get(id) {
            return Some(known.clone());
        }
        let above = |entry: &&Arc<Entry>| id.as_str().starts_with(entry.id.as_str());
        let known = Known::new(self.wildcards.iter().find(above)?.clone(), id);
        if self.below.len() >= WILDCARD_PROFILES_MAX {
            self.below.clear();
        }
        // Two first calls at once must end with one profile.
        Some(self.below.entry(id.clone()).or_insert(known).clone())
    }

    /// The concrete agents below wildcards that were looked for so far, as many as are kept.
    pub fn seen_below(&self) -> Vec<AgentId> {
        self.below.iter().map(|known| known.key().clone()).collect()
    }

    /// Every entry as an agent, in no particular order; the one of a wildcard stands for those below it.
    pub fn known(&self) -> impl Iterator<Item = Arc<Known>> {
        let below = self.wildcards.iter().map(|entry| Known::new(Arc::clone(entry), &entry.id));
        self.exact.values().cloned().chain(below)
    }

    /// Every entry, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let exact = self.exact.values().map(|known| known.entry());
        exact.chain(self.wildcards.iter().map(|entry| &**entry))
    }
}
