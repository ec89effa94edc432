//! What the catalogue says of the reply to a call.

use super::view::Pointer;
use crate::call::{Confidentiality, Integrity, Returns};

/// What a reply brings, and where in it things are.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its labels.
    pub labels: Returns,
    /// Where its records are.
    pub records: Option<Pointer>,
    /// Within a record: who took part.
    pub parties: Vec<Pointer>,
    /// Within a record: by what it can be referred to.
    pub ids: Vec<Pointer>,
    /// Within a record: what outsiders can write; `None` for the default.
    pub untrusted: Option<Vec<Pointer>>,
    /// Within a record: trusted destinations.
    pub known: Vec<Pointer>,
}

impl Default for Reply {
    fn default() -> Reply {
        Reply {
            labels: Returns::UNLISTED,
            records: None,
            parties: Vec::new(),
            ids: Vec::new(),
            untrusted: None,
            known: Vec::new(),
        }
    }
}

impl Reply {
    /// The labels that a confidentiality and an integrity make; what is not said is as for the unlisted.
    pub fn labels(confidentiality: Option<Confidentiality>, integrity: Option<Integrity>) -> Returns {
        Returns {
            confidentiality: confidentiality.unwrap_or(Returns::UNLISTED.confidentiality),
            integrity: integrity.unwrap_or(Returns::UNLISTED.integrity),
        }
    }
}
