//! What signatures add to the chain: who vouches for it up to which record, and whether it still is what was signed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::chain::{Kind, Leaf};
use super::checkpoint::Checkpoint;
use super::keep::Deletion;
use super::merkle::Frontier;
use super::rotate::Rotation;
use crate::secret::signer::PublicKey;

/// How many keys a report names.
const SIGNERS_MAX: usize = 16;

/// What a log is held against, beside itself.
#[derive(Clone, Debug, Default)]
pub struct Against {
    /// Keys that are believed. With none, the first key that signs is, which shows changes but not who made the log.
    pub keys: Vec<PublicKey>,
    /// Checkpoints that were kept elsewhere.
    pub checkpoints: Vec<Checkpoint>,
}

/// What a log's signatures came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attested {
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// The last record that one covers.
    pub covered: Option<u64>,
    /// The fingerprints of the keys that signed them.
    pub signed_by: Vec<String>,
    /// How many checkpoints kept elsewhere were found to hold.
    pub held: u64,
    /// Why what is here cannot be called signed, though keys were given.
    pub unsigned: Option<String>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Follows the signatures record by record.
pub(super) struct Attest {
    given: bool,
    trusted: Vec<PublicKey>,
    origin: Option<String>,
    tree: Option<Frontier>,
    /// What checkpoints kept elsewhere say of each record, and which key says so.
    outside: BTreeMap<u64, Vec<Checkpoint>>,
    deletion: Option<Deletion>,
    /// Checkpoints before the first that a given key signed.
    unknown: u64,
    /// Whether a given key signed any.
    known: bool,
    /// Where a key took over that no rotation names.
    untold: Option<u64>,
    attested: Attested,
}

impl Attest {
    /// Begins with the record of a number. Says what is wrong with the checkpoints themselves.
    pub(super) fn begin(first: u64, against: &Against) -> Result<Attest, String> {
        let mut outside: BTreeMap<u64, Vec<Checkpoint>> = BTreeMap::new();
        for checkpoint in &against.checkpoints {
            if checkpoint.signer().is_none() {
                let Checkpoint { seq, at, .. } = checkpoint;
                return Err(format!(
                    "the checkpoint of record {seq} at {at} is not signed by the key that it names"
                ));
            }
            outside.entry(checkpoint.seq).or_default().push(checkpoint.clone());
        }
        Ok(Attest {
            given: !against.keys.is_empty(),
            trusted: against.keys.clone(),
            origin: None,
            tree: (first == 1).then(|| Frontier::begin(1)),
            outside,
            deletion: None,
            unknown: 0,
            known: false,
            untold: None,
            attested: Attested::default(),
        })
    }

    /// Takes the next record; says what is wrong with it.
    pub(super) fn record(
        &mut self,
        (seq, kind): (u64, Option<Kind>),
        (prev, leaf): (Option<Leaf>, Leaf),
        line: &[u8],
    ) -> Result<(), String> {
        match kind {
            Some(Kind::Checkpoint) => self.checkpoint(seq, prev, line)?,
            Some(Kind::Admin) => self.admin(line)?,
            _ => {}
        }
        if let Some(tree) = &mut self.tree {
            tree.push(leaf);
        }
        for outside in self.outside.remove(&seq).unwrap_or_default() {
            if outside.head != leaf.to_string() {
                return Err(format!(
                    "a checkpoint kept elsewhere, signed at {}, has another record of this number: this log was \
                     written anew, or is an older copy that went on",
                    outside.at
                ));
            }
            self.of_this_log(&outside)?;
            self.attested.held += 1;
        }
        Ok(())
    }

    fn checkpoint(&mut self, seq: u64, prev: Option<Leaf>, line: &[u8]) -> Result<(), String> {
        let Some(checkpoint) = Checkpoint::of(line) else { return Err("it is no checkpoint".to_owned()) };
        let Some(key) = checkpoint.signer() else {
            return Err("its signature is not by the key that it names".to_owned());
        };
        if checkpoint.seq + 1 != seq || prev.is_some_and(|prev| prev.to_string() != checkpoint.head) {
            return Err("it signs something else than the record before it".to_owned());
        }
        if self.origin.as_ref().is_some_and(|origin| *origin != checkpoint.origin) {
            return Err("it is a checkpoint of another log".to_owned());
        }
        let empty = checkpoint.from == seq && checkpoint.root == Leaf::nothing().to_string();
        let whole = match &self.tree {
            Some(tree) => checkpoint.from == tree.from && checkpoint.root == tree.root().to_string(),
            // What it covers is not here.
            None => true,
        };
        if !whole && !empty {
            return Err("its tree is not that of the records since the last checkpoint".to_owned());
        }
        self.signed_by(key, seq)?;
        self.tree = Some(Frontier::begin(seq));
        self.attested.checkpoints += 1;
        self.attested.covered = Some(checkpoint.seq);
        self.origin = Some(checkpoint.origin);
        Ok(())
    }

    /// Whether this key may sign here.
    fn signed_by(&mut self, key: PublicKey, seq: u64) -> Result<(), String> {
        let name = key.fingerprint();
        if !self.attested.signed_by.contains(&name) && self.attested.signed_by.len() < SIGNERS_MAX {
            self.attested.signed_by.push(name.clone());
        }
        if self.trusted.contains(&key) {
            self.known = true;
            return Ok(());
        }
        match (self.given, self.known) {
            (true, true) => Err(format!("it is signed by the key {name}, which no rotation names")),
            (true, false) => {
                self.unknown += 1;
                Ok(())
            }
            (false, _) => {
                if !self.trusted.is_empty() {
                    self.untold.get_or_insert(seq);
                }
                self.trusted.push(key);
                Ok(())
            }
        }
    }

    /// Rotations and deletions are signed on their own.
    fn admin(&mut self, line: &[u8]) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Body {
            rotation: Option<Rotation>,
            deletion: Option<Deletion>,
        }
        let Ok(body) = serde_json::from_slice::<Body>(line) else {
            return Err("its rotation or deletion cannot be read".to_owned());
        };
        if let Some(rotation) = body.rotation {
            let Some(by) = rotation.signer() else {
                return Err("its rotation is not signed by the key that it names".to_owned());
            };
            self.is_ours(&rotation.origin)?;
            let believed = self.trusted.contains(&by);
            self.trusted
                .extend(rotation.signs_next().filter(|next| believed && !self.trusted.contains(next)));
        }
        if let Some(deletion) = body.deletion {
            let Some(by) = deletion.signer() else {
                return Err("its deletion is not signed by the key that it names".to_owned());
            };
            self.is_ours(&deletion.origin)?;
            if self.given && self.known && !self.trusted.contains(&by) {
                return Err(format!(
                    "its deletion is signed by the key {}, which is not believed",
                    by.fingerprint()
                ));
            }
            self.deletion = Some(deletion);
        }
        Ok(())
    }

    /// Whether a statement is about this log.
    fn is_ours(&self, origin: &str) -> Result<(), String> {
        match &self.origin {
            Some(own) if own != origin => Err(format!("it is about another log, {origin}")),
            _ => Ok(()),
        }
    }

    /// Whether a checkpoint kept elsewhere is of this log, and by a key that is believed.
    fn of_this_log(&self, outside: &Checkpoint) -> Result<(), String> {
        if self.origin.as_ref().is_some_and(|origin| *origin != outside.origin) {
            return Err(format!(
                "the checkpoint of record {} is of another log, {}",
                outside.seq, outside.origin
            ));
        }
        let believed = outside.signer().is_some_and(|key| self.trusted.contains(&key));
        if self.given && !believed {
            return Err(format!(
                "the checkpoint of record {} is signed by the key {}, which is not believed",
                outside.seq,
                PublicKey::parse(&outside.key).map(|key| key.fingerprint()).unwrap_or_default()
            ));
        }
        Ok(())
    }

    /// What all of it comes to, with what is missing at the log's end. `first` is the number of the first record that is
    /// here, and what it names as its predecessor.
    pub(super) fn end(mut self, last: u64, first: (u64, Option<String>)) -> (Attested, Option<String>) {
        let mut wrong = None;
        // Checkpoints of records that are archived elsewhere cannot be held against anything.
        let before = self.outside.split_off(&first.0);
        let (archived, missing) = (std::mem::replace(&mut self.outside, before), &self.outside);
        if let Some((seq, checkpoints)) = missing.last_key_value() {
            let at = checkpoints.last().map(|checkpoint| checkpoint.at.clone()).unwrap_or_default();
            wrong = Some(format!(
                "the log ends at record {last}, and a checkpoint kept elsewhere signed record {seq} at {at}: its newest \
                 records were cut off, or this is an older copy"
            ));
        } else if self.given && !self.known && self.attested.checkpoints > 0 {
            wrong = Some(
                "none of its checkpoints is signed by a key that was given: it was written by another"
                    .to_owned(),
            );
        }
        let covered = self.attested.covered;
        self.attested.unsigned = match covered.filter(|_| self.known) {
            _ if !self.given => None,
            None => Some("no checkpoint is signed by a key that was given".to_owned()),
            Some(covered) if covered + 1 < last => {
                Some(format!("no checkpoint signs the records from {} on", covered + 1))
            }
            Some(_) => None,
        };
        let notes = &mut self.attested.notes;
        if !archived.is_empty() {
            notes.push("some checkpoints cover records that are not here".to_owned());
        }
        if self.unknown > 0 {
            notes.push(format!("{} checkpoints before the first by a given key are by others", self.unknown));
        }
        if let Some(seq) = self.untold {
            notes.push(format!("from record {seq} on another key signs, and no rotation names it"));
        }
        match self.attested.covered {
            None => notes.push("no checkpoint signs any of it".to_owned()),
            Some(covered) if covered + 1 < last => {
                notes.push(format!("records {} to {last} are covered by no checkpoint yet", covered + 1));
            }
            Some(_) => {}
        }
        if let Some(deletion) = self.deletion.filter(|_| first.0 > 1) {
            let follows = deletion.last_seq + 1 == first.0;
            if follows && first.1.is_some_and(|prev| prev != deletion.last_hash) {
                wrong.get_or_insert(format!("record {} does not follow what was deleted before it", first.0));
            }
            let Deletion { first_seq, last_seq, at, .. } = deletion;
            notes.push(format!("records {first_seq} to {last_seq} were deleted at {at} by retention: a signed statement says so"));
        }
        (self.attested, wrong)
    }
}
