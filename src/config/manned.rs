//! Whether anybody could decide what policies hold, and is told of it.

use std::fmt;
use std::sync::Arc;

use super::load::{ListenerKind, Loaded};
use crate::decide::HoldTerms;
use crate::identify::people::People;

/// A policy that holds calls which nobody could approve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmanned {
    /// The policy's id.
    pub policy: Arc<str>,
    /// Why, as an operator reads it.
    pub why: String,
}

impl fmt::Display for Unmanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy `{}` holds calls that nobody could approve: {}", self.policy, self.why)
    }
}

/// The policies that hold calls which nobody could approve, by what is certain without a call: who may decide a call of
/// one agent is policy too, and can be less.
pub fn unmanned(loaded: &Loaded) -> Vec<Unmanned> {
    let admin = loaded.settings.listeners.iter().any(|listener| listener.kind == ListenerKind::Admin);
    let lacks = |(policy, terms): (Arc<str>, HoldTerms)| {
        let why = match admin {
            true => lacking(&terms, &loaded.people)?,
            false => "there is no listener of kind `admin` with an address".to_owned(),
        };
        Some(Unmanned { policy, why })
    };
    loaded.policy.holds().into_iter().filter_map(lacks).collect()
}

/// What the people lack that these terms ask for.
fn lacking(terms: &HoldTerms, people: &People) -> Option<String> {
    if people.is_empty() {
        return Some("there are no people".to_owned());
    }
    if people.len() < terms.quorum as usize {
        return Some(format!("it needs {} people, and there are {}", terms.quorum, people.len()));
    }
    let role =
        terms.approvers.iter().find(|role| !people.iter().any(|person| person.roles.contains(role)))?;
    Some(format!("nobody has the role `{role}`"))
}

/// What is worth a look: holds that nobody could approve, and holds of which nobody is told beside the console.
pub(super) fn untold(loaded: &Loaded) -> Vec<String> {
    let mut warnings = folded(&unmanned(loaded));
    if loaded.settings.notify.webhooks.is_empty() && !loaded.policy.holds().is_empty() {
        warnings.push(
            "policies hold calls, and no webhook tells anybody: whoever decides must look at the console (`notify`)"
                .to_owned(),
        );
    }
    warnings
}

/// One line for each reason, however many policies it is about.
fn folded(unmanned: &[Unmanned]) -> Vec<String> {
    let mut reasons: Vec<&str> = unmanned.iter().map(|one| one.why.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let line = |why| {
        let of: Vec<&Unmanned> = unmanned.iter().filter(|one| one.why == why).collect();
        match of.as_slice() {
            [one] => one.to_string(),
            [one, rest @ ..] => format!(
                "policy `{}` and {} more hold calls that nobody could approve: {why}",
                one.policy,
                rest.len()
            ),
            [] => String::new(),
        }
    };
    reasons.into_iter().map(line).collect()
}
