//! Signed checkpoints: what the log was at one moment, so that its end cannot be cut off or exchanged unseen.
//!
//! A checkpoint names the last record before it and that record's hash, which stands for everything before, and the
//! root of a tree over the records since the last checkpoint, by which one record can be shown without the others.

use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::chain::{self, Kind, Leaf};
use super::merkle::Frontier;
use super::{Entry, pen};
use crate::call::RecordId;
use crate::json::Members;
use crate::secret::signer::{PublicKey, Signer};

/// The file in the audit's directory that says which log this is.
const ORIGIN: &str = "origin";
/// The largest file of checkpoints that is read.
const CHECKPOINTS_BYTES_MAX: u64 = 1 << 30;

/// A checkpoint, as records and published copies have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which log: the UUID that its directory was given when it was begun.
    pub origin: String,
    /// The number of the last record that it covers.
    pub seq: u64,
    /// That record's hash, 64 hexadecimal digits.
    pub head: String,
    /// The first record of the tree; one more than `seq` when the tree is empty.
    pub from: u64,
    /// The root of the tree over the records `from` to `seq` [RFC 9162 §2.1.1].
    pub root: String,
    /// When, UTC.
    pub at: String,
    /// The Ed25519 public key in base64.
    pub key: String,
    /// The signature over [`Checkpoint::signed_text`] in base64.
    pub signature: String,
}

impl Checkpoint {
    /// Signs what the log is now.
    pub(super) fn sign(
        signer: &Signer,
        origin: &str,
        (seq, head): (u64, Leaf),
        tree: &Frontier,
        now: OffsetDateTime,
    ) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            origin: origin.to_owned(),
            seq,
            head: head.to_string(),
            from: tree.from,
            root: tree.root().to_string(),
            at: chain::timestamp(now).to_string(),
            key: signer.public().to_base64(),
            signature: String::new(),
        };
        checkpoint.signature = signer.sign(&checkpoint.signed_text());
        checkpoint
    }

    /// What is signed: a line for each member.
    pub fn signed_text(&self) -> String {
        let Checkpoint { origin, seq, head, from, root, at, .. } = self;
        format!("holdpoint checkpoint v1\n{origin}\n{seq}\n{head}\n{from}\n{root}\n{at}\n")
    }

    /// The key that it says it was signed by, if the signature is that key's.
    pub fn signer(&self) -> Option<PublicKey> {
        PublicKey::parse(&self.key).filter(|key| key.signed(&self.signed_text(), &self.signature))
    }

    /// The checkpoint as a record.
    pub(super) fn entry(&self) -> Entry {
        let mut members = Members::default();
        members.object("checkpoint", |members| {
            members.text("origin", &self.origin);
            members.number("seq", self.seq);
            members.text("head", &self.head);
            members.number("from", self.from);
            members.text("root", &self.root);
            members.text("at", &self.at);
            members.text("key", &self.key);
            members.text("signature", &self.signature);
        });
        Entry::of(RecordId::new(), Kind::Checkpoint, None, members)
    }

    /// The checkpoint in a record's line.
    pub(super) fn of(line: &[u8]) -> Option<Checkpoint> {
        #[derive(Deserialize)]
        struct Body {
            checkpoint: Checkpoint,
        }
        serde_json::from_slice(line).ok().map(|body: Body| body.checkpoint)
    }
}

/// The checkpoints of a file, one in each line, as `audit.checkpoints: [file]` writes them.
pub fn read(file: &Path) -> io::Result<Vec<Checkpoint>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if fs::metadata(file)?.len() > CHECKPOINTS_BYTES_MAX {
        return Err(wrong(format!("is larger than {CHECKPOINTS_BYTES_MAX} bytes: keep its newest lines")));
    }
    let text = fs::read_to_string(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| wrong(format!("line {}: no checkpoint: {error}", at + 1)))
    };
    lines.map(parse).collect()
}

/// The name of the log in a directory, if it has one.
pub(super) fn origin(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join(ORIGIN)).ok()?;
    uuid::Uuid::try_parse(text.trim()).ok().map(|id| id.to_string())
}

/// The name of the log in a directory, given when there is none.
pub(super) fn origin_or_new(dir: &Path) -> io::Result<String> {
    if let Some(origin) = origin(dir) {
        return Ok(origin);
    }
    let origin = RecordId::new().to_string();
    let next = dir.join("origin.new");
    fs::write(&next, format!("{origin}\n"))?;
    fs::File::open(&next)?.sync_all()?;
    fs::rename(&next, dir.join(ORIGIN))?;
    pen::sync_dir(dir)?;
    Ok(origin)
}
