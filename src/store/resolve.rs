//! What a person found out of a call of which nobody knew whether it took effect.

use super::Answer;
use super::holds::Hold;
use crate::call::RecordId;

/// Holds that are `indeterminate` until a person says what came of them.
pub trait Resolutions: Send + Sync {
    /// Says what came of it. Nothing is executed by it.
    fn resolve(&self, id: RecordId, found: Resolution) -> Answer<'_, Resolved>;
}

/// What a person found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// What came of it.
    pub found: Found,
    /// Who says so.
    pub by: String,
    /// How they know.
    pub reason: String,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It may be done again, because doing it twice is doing it once: the approval stands again.
    Again,
    /// It took effect.
    Executed,
    /// It did not.
    Failed,
}

/// What became of a resolution.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// It is so from now on.
    Now(Hold),
    /// The call must not be done again: twice may be two, or its time is over.
    NotAgain(Hold),
    /// It is not open what came of it.
    Known(Hold),
    /// There is no such hold.
    Unknown,
}

impl Found {
    /// What may be said.
    pub const ALL: [Found; 3] = [Found::Again, Found::Executed, Found::Failed];

    /// The word in requests and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Found::Again => "again",
            Found::Executed => "executed",
            Found::Failed => "failed",
        }
    }

    /// What a word says.
    pub fn parse(word: &str) -> Option<Found> {
        Found::ALL.into_iter().find(|found| found.as_str() == word)
    }
}
