//! People: who looks after agents, and what they may ask for.

use std::sync::Arc;

use super::AgentId;

/// A person of `people.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The SPIFFE ID in the person's certificate.
    pub id: AgentId,
    /// The e-mail address, by which owners are named too; empty when none was given.
    pub email: Arc<str>,
    /// Roles, sorted: `approver`, `oncall`, `auditor`, `admin`, or the operator's own.
    pub roles: Vec<Arc<str>>,
    /// The teams whose agents the person looks after, sorted.
    pub teams: Vec<Arc<str>>,
}

/// What a person asks for. Policy has an action of each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PersonAction {
    /// Approve a held call.
    Approve,
    /// Open an emergency lift.
    BreakGlass,
    /// Remember a destination.
    Endorse,
    /// Take records away.
    Export,
    /// Pin a tool's definition.
    Pin,
    /// Lift a suspension.
    Resume,
    /// Stop an agent.
    Suspend,
    /// See.
    View,
}

impl PersonAction {
    /// Every action.
    pub const ALL: [PersonAction; 8] = [
        PersonAction::Approve,
        PersonAction::BreakGlass,
        PersonAction::Endorse,
        PersonAction::Export,
        PersonAction::Pin,
        PersonAction::Resume,
        PersonAction::Suspend,
        PersonAction::View,
    ];

    /// The word in policies, cases and records.
    pub fn as_str(self) -> &'static str {
        match self {
            PersonAction::Approve => "approve",
            PersonAction::BreakGlass => "breakglass",
            PersonAction::Endorse => "endorse",
            PersonAction::Export => "export",
            PersonAction::Pin => "pin",
            PersonAction::Resume => "resume",
            PersonAction::Suspend => "suspend",
            PersonAction::View => "view",
        }
    }

    /// The action that a word names.
    pub fn parse(word: &str) -> Option<PersonAction> {
        PersonAction::ALL.into_iter().find(|action| action.as_str() == word)
    }
}
