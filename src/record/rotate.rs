//! Keys that are rotated: the log says which key follows which, signed by the audit's key until then.

use serde::{Deserialize, Serialize};

use super::ledger::{Config, Durability, Ledger, LedgerError};
use super::{Entry, Kind};
use crate::json::Members;
use crate::secret::ring::{self, KeyError, Purpose, Ring, Slot};
use crate::secret::signer::{PublicKey, Signer};

/// A key took another's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The log that it is told in.
    pub origin: String,
    /// What the key is for.
    pub purpose: String,
    /// The fingerprint of the key until now; empty when there was none.
    pub old: String,
    /// The fingerprint of the key from now on.
    pub new: String,
    /// That key, where it is public: base64.
    pub public: Option<String>,
    /// Who signs: the audit's key until now.
    pub key: String,
    /// The Ed25519 signature over [`Rotation::signed_text`].
    pub signature: String,
}

/// Why keys were not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The audit.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Rotation {
    /// What is signed: a line for each member.
    pub fn signed_text(&self) -> String {
        let Rotation { origin, purpose, old, new, public, .. } = self;
        let public = public.as_deref().unwrap_or("-");
        format!("holdpoint key rotation v1\n{origin}\n{purpose}\n{old}\n{new}\n{public}\n")
    }

    /// The key that it says it was signed by, if the signature is that key's.
    pub fn signer(&self) -> Option<PublicKey> {
        PublicKey::parse(&self.key).filter(|key| key.signed(&self.signed_text(), &self.signature))
    }

    /// The key that signs checkpoints from now on, when this rotates that one.
    pub(super) fn signs_next(&self) -> Option<PublicKey> {
        let public = self.public.as_deref().filter(|_| self.purpose == Purpose::AuditSigning.as_str())?;
        PublicKey::parse(public)
    }

    fn entry(&self) -> Entry {
        let mut members = Members::default();
        members.text("action", "key-rotated");
        if self.purpose == Purpose::Pseudonym.as_str() {
            members.text("detail", "pseudonyms before and after this record do not match each other");
        }
        members.object("rotation", |members| {
            members.text("origin", &self.origin);
            members.text("purpose", &self.purpose);
            members.text("old", &self.old);
            members.text("new", &self.new);
            if let Some(public) = &self.public {
                members.text("public", public);
            }
            members.text("key", &self.key);
            members.text("signature", &self.signature);
        });
        Entry::new(Kind::Admin, None, members)
    }
}

/// Puts staged keys into use: first the record, durable and under a checkpoint by the key until then, then the files.
/// When a crash comes between, the next start does it again. To be called before the log is opened to serve.
pub async fn staged(ring: &Ring, config: &Config) -> Result<Vec<Rotation>, RotateError> {
    let mut rotations = Vec::new();
    // The signing key last, so that it still signs the rotations of the others.
    let mut purposes = ring.staged();
    purposes.sort_by_key(|purpose| *purpose == Purpose::AuditSigning);
    if purposes.is_empty() {
        return Ok(rotations);
    }
    let signer = std::sync::Arc::new(ring.signer()?);
    let config = Config { signer: Some(std::sync::Arc::clone(&signer)), ..config.clone() };
    let (ledger, _) = Ledger::open(config)?;
    for purpose in &purposes {
        let rotation = rotation(ring, *purpose, ledger.origin(), &signer)?;
        ledger.append(rotation.entry(), Durability::Synced).await?;
        rotations.push(rotation);
    }
    ledger.checkpoint().await?;
    drop(ledger);
    for purpose in purposes {
        ring.turn(purpose)?;
    }
    Ok(rotations)
}

fn rotation(ring: &Ring, purpose: Purpose, origin: &str, signer: &Signer) -> Result<Rotation, RotateError> {
    let missing = || KeyError::Unusable(format!("the staged {} key is gone", purpose.as_str()));
    let next = ring.key(purpose, Slot::Next)?.ok_or_else(missing)?;
    let old = ring.key(purpose, Slot::Current)?;
    let public = match purpose {
        Purpose::AuditSigning => Some(Signer::from_seed(&next)?.public().to_base64()),
        Purpose::SealingPublic => Some(PublicKey::from_bytes(*next).to_base64()),
        Purpose::Lineage | Purpose::Pseudonym => None,
    };
    let mut rotation = Rotation {
        origin: origin.to_owned(),
        purpose: purpose.as_str().to_owned(),
        old: old.map(|old| ring::name(purpose, &old)).transpose()?.unwrap_or_default(),
        new: ring::name(purpose, &next)?,
        public,
        key: signer.public().to_base64(),
        signature: String::new(),
    };
    rotation.signature = signer.sign(&rotation.signed_text());
    Ok(rotation)
}
