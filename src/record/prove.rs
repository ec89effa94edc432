//! What shows that one record is in the log that a checkpoint signed, without the other records.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::chain::{Header, Kind, Leaf};
use super::checkpoint::Checkpoint;
use super::merkle;
use super::segment::{self, End, Lines};
use crate::secret::signer::PublicKey;

/// How many records may stand between two checkpoints for a proof to be made: 32 MiB of hashes.
const TREE_RECORDS_MAX: usize = 1 << 20;
/// The longest path that is read: a tree of more records than there can be.
const PATH_MAX: usize = 64;

/// A record, the way from it to the root of its tree, and the checkpoint that signs the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The record's line as it stands in the log, without its newline.
    pub record: String,
    /// The number of the record.
    pub seq: u64,
    /// The hashes beside the way to the root, the lowest first, hexadecimal [RFC 9162 §2.1.3.1].
    pub path: Vec<String>,
    /// Who signs the root.
    pub checkpoint: Checkpoint,
}

/// What a proof that holds says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proven {
    /// The number of the record.
    pub seq: u64,
    /// The log.
    pub origin: String,
    /// When the checkpoint was signed.
    pub at: String,
    /// The fingerprint of the key that signed it.
    pub key: String,
    /// Whether that key was given; if not, the proof shows only that whoever has it signed this.
    pub believed: bool,
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The signature.
    #[error("the checkpoint is not signed by the key that it names")]
    Signature,
    /// The key.
    #[error("the checkpoint is signed by the key {0}, which is not among those given")]
    Key(String),
    /// The way to the root.
    #[error("the record does not lead to the root that the checkpoint signs: one of them was changed")]
    Root,
    /// The record.
    #[error("what it proves is no record of number {0}")]
    Record(u64),
}

impl Proof {
    /// Checks it offline. Without keys, whoever signed is believed.
    pub fn check(&self, keys: &[PublicKey]) -> Result<Proven, ProofError> {
        let key = self.checkpoint.signer().ok_or(ProofError::Signature)?;
        if !keys.is_empty() && !keys.contains(&key) {
            return Err(ProofError::Key(key.fingerprint()));
        }
        let Checkpoint { seq, from, origin, at, root, .. } = &self.checkpoint;
        let path: Option<Vec<Leaf>> =
            self.path.iter().take(PATH_MAX + 1).map(|hash| Leaf::parse(hash)).collect();
        let index = self.seq.checked_sub(*from).filter(|_| self.seq <= *seq);
        let size = seq.checked_add(1).and_then(|end| end.checked_sub(*from));
        let leaf = Leaf::of(self.record.as_bytes());
        let led = index
            .zip(size)
            .zip(path)
            .and_then(|((index, size), path)| merkle::root_of(leaf, index, size, &path));
        if led.is_none_or(|led| led.to_string() != *root) {
            return Err(ProofError::Root);
        }
        let header: Option<Header<'_>> = serde_json::from_str(&self.record).ok();
        if header.is_none_or(|header| header.seq != self.seq) {
            return Err(ProofError::Record(self.seq));
        }
        let (origin, at) = (origin.clone(), at.clone());
        Ok(Proven { seq: self.seq, origin, at, key: key.fingerprint(), believed: !keys.is_empty() })
    }
}

/// The proof of the record with an id; `Err` in words when there is none.
pub fn prove(dir: &Path, id: &str) -> io::Result<Result<Proof, String>> {
    let Ok(id) = uuid::Uuid::try_parse(id).map(|id| id.as_u128()) else {
        return Ok(Err(format!("`{id}` is no record's id")));
    };
    // The hashes since the last checkpoint; where they begin; and the record with its place among them.
    let (mut leaves, mut from, mut found): (Vec<Leaf>, u64, Option<(String, u64)>) = (Vec::new(), 1, None);
    let segments = segment::all(dir)?;
    let mut seq = segments.first().map_or(1, |segment| segment.first);
    for segment in &segments {
        let mut lines = Lines::open(&segment.path, 0)?;
        while let Some(line) = lines.read()? {
            let (End::Newline, Ok(header)) = (line.end, serde_json::from_slice::<Header<'_>>(line.bytes))
            else {
                break;
            };
            seq = header.seq;
            if header.kind() == Some(Kind::Checkpoint) {
                if let Some((record, seq)) = found.take() {
                    let checkpoint = Checkpoint::of(line.bytes).filter(|checkpoint| checkpoint.from == from);
                    return Ok(proof(record, seq, &leaves, checkpoint));
                }
                (leaves, from) = (Vec::new(), seq);
            }
            if leaves.len() >= TREE_RECORDS_MAX {
                return Ok(Err("there are too many records between two checkpoints".to_owned()));
            }
            leaves.push(Leaf::of(line.bytes));
            if header.id() == Some(id) {
                let text = String::from_utf8(line.bytes.to_vec());
                found = text.ok().map(|text| (text, seq));
            }
        }
    }
    Ok(Err(match found {
        Some(_) => "no checkpoint covers the record yet: ask again in a minute".to_owned(),
        None => format!("no record with this id among those up to {seq}"),
    }))
}

fn proof(record: String, seq: u64, leaves: &[Leaf], checkpoint: Option<Checkpoint>) -> Result<Proof, String> {
    let index = checkpoint.as_ref().and_then(|checkpoint| seq.checked_sub(checkpoint.from));
    let index = index.and_then(|index| usize::try_from(index).ok()).filter(|index| *index < leaves.len());
    let (Some(checkpoint), Some(index)) = (checkpoint, index) else {
        return Err("the record is older than the first checkpoint: only the chain shows it".to_owned());
    };
    let path = merkle::path(leaves, index).iter().map(Leaf::to_string).collect();
    Ok(Proof { record, seq, path, checkpoint })
}
