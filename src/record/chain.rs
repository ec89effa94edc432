//! The form of one record's line, and the chain of hashes that joins the lines.

use std::fmt;
use std::io::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Entry;
use crate::call::{hex, push_hex, unhex};
use crate::units;

/// The longest line that is written or read.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// What a line weighs beside its members, at most.
pub(super) const HEAD_BYTES_MAX: usize = 400;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A call is about to be forwarded.
    Intent,
    /// How a forwarded call ended.
    Outcome,
    /// A call was refused.
    Refused,
    /// A call waits for people.
    Held,
    /// A person voted on a held call.
    Vote,
    /// A held call was released.
    Released,
    /// A run gained a label.
    Label,
    /// Something was found in a call or a reply.
    Finding,
    /// A credential was minted or given back.
    Credential,
    /// A task was opened, changed or closed.
    Task,
    /// A destination was endorsed, or an endorsement withdrawn.
    Endorsement,
    /// An emergency lift was opened or closed.
    BreakGlass,
    /// An operator changed something.
    Admin,
    /// Trust material changed.
    Trust,
    /// Policy changed.
    Policy,
    /// The log was repaired after a crash.
    Recovered,
    /// The log's head was published.
    Checkpoint,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 17] = [
        Kind::Intent,
        Kind::Outcome,
        Kind::Refused,
        Kind::Held,
        Kind::Vote,
        Kind::Released,
        Kind::Label,
        Kind::Finding,
        Kind::Credential,
        Kind::Task,
        Kind::Endorsement,
        Kind::BreakGlass,
        Kind::Admin,
        Kind::Trust,
        Kind::Policy,
        Kind::Recovered,
        Kind::Checkpoint,
    ];

    /// The word in the record's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Intent => "intent",
            Kind::Outcome => "outcome",
            Kind::Refused => "refused",
            Kind::Held => "held",
            Kind::Vote => "vote",
            Kind::Released => "released",
            Kind::Label => "label",
            Kind::Finding => "finding",
            Kind::Credential => "credential",
            Kind::Task => "task",
            Kind::Endorsement => "endorsement",
            Kind::BreakGlass => "breakglass",
            Kind::Admin => "admin",
            Kind::Trust => "trust",
            Kind::Policy => "policy",
            Kind::Recovered => "recovered",
            Kind::Checkpoint => "checkpoint",
        }
    }

    /// The kind that a word names.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The hash of one line: SHA-256 of a zero byte and the line without its newline [RFC 9162 §2.1.1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf([u8; 32]);

impl Leaf {
    /// What the first record names as its predecessor.
    pub const NONE: Leaf = Leaf([0; 32]);

    /// The leaf of a line.
    pub fn of(line: &[u8]) -> Leaf {
        Leaf::hash(&[&[0], line])
    }

    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of two subtrees: SHA-256 of a one byte and both [RFC 9162 §2.1.1].
    pub(super) fn node(left: Leaf, right: Leaf) -> Leaf {
        Leaf::hash(&[&[1], &left.0, &right.0])
    }

    /// The root of no leaves: SHA-256 of nothing [RFC 9162 §2.1.1].
    pub(super) fn nothing() -> Leaf {
        Leaf::hash(&[])
    }

    /// A hash from its 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Leaf> {
        unhex(text).map(Leaf)
    }

    fn hash(parts: &[&[u8]]) -> Leaf {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        let digest = context.finish();
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Leaf(bytes)
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Appends the line of an entry, with its newline, and says its leaf.
pub(super) fn write(
    into: &mut Vec<u8>,
    seq: u64,
    prev: Leaf,
    now: time::OffsetDateTime,
    entry: &Entry,
) -> Leaf {
    let start = into.len();
    // Writing to memory cannot fail.
    let _ = write!(into, r#"{{"v":1,"seq":{seq},"prev":""#);
    push_hex(into, &prev.0);
    let (ts, id, kind) = (timestamp(now), entry.id, entry.kind.as_str());
    let _ = write!(into, r#"","ts":"{ts}","id":"{id}","type":"{kind}","trace_id":"#);
    match &entry.trace_id {
        Some(trace) => {
            into.push(b'"');
            push_hex(into, trace);
            into.push(b'"');
        }
        None => into.extend_from_slice(b"null"),
    }
    if !entry.members.is_empty() {
        into.push(b',');
        into.extend_from_slice(entry.members.as_bytes());
    }
    into.push(b'}');
    let leaf = Leaf::of(into.get(start..).unwrap_or_default());
    into.push(b'\n');
    leaf
}

/// A moment as the records write it: UTC with microseconds.
pub(super) fn timestamp(at: time::OffsetDateTime) -> impl fmt::Display {
    units::moment(at, 6)
}

/// What every record has, read from its line.
#[derive(Debug, Deserialize)]
pub(super) struct Header<'a> {
    v: u8,
    pub(super) seq: u64,
    prev: &'a str,
    pub(super) ts: &'a str,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    trace_id: Option<&'a str>,
    /// Only an outcome's is the id of an intent; elsewhere the member may be anything.
    #[serde(default, borrow)]
    intent: Option<&'a RawValue>,
}

impl Header<'_> {
    /// The kind, when it is one we know.
    pub(super) fn kind(&self) -> Option<Kind> {
        Kind::parse(self.kind)
    }

    /// The record's id.
    pub(super) fn id(&self) -> Option<u128> {
        uuid::Uuid::try_parse(self.id).ok().map(|id| id.as_u128())
    }

    /// The hash of the record before it, in hexadecimal.
    pub(super) fn prev(&self) -> &str {
        self.prev
    }

    /// The id of the intent that an outcome closes.
    pub(super) fn closes(&self) -> Option<u128> {
        self.intent.and_then(|raw| quoted_id(raw.get()))
    }

    /// The trace that the record belongs to.
    pub(super) fn trace(&self) -> Option<[u8; 16]> {
        self.trace_id.and_then(unhex)
    }
}

/// A UUID from its JSON string.
pub(super) fn quoted_id(json: &str) -> Option<u128> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    uuid::Uuid::try_parse(text).ok().map(|id| id.as_u128())
}

/// Why a line does not continue the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no record.
    #[error("the line is not a record: {0}")]
    NotARecord(String),
    /// Its number is not the next one.
    #[error("its seq is {found}, and {expected} was expected: records were removed, inserted or reordered")]
    Seq {
        /// The number in the line.
        found: u64,
        /// The number that follows its predecessor's.
        expected: u64,
    },
    /// It names another predecessor than the line before it.
    #[error("its prev is not the hash of the record before it: that record or this one was changed")]
    Prev,
    /// It is longer than any record.
    #[error("the line is longer than {RECORD_BYTES_MAX} bytes")]
    TooLong,
    /// It does not end.
    #[error("the line has no end: its last write was cut short")]
    Torn,
}

/// Follows the chain line by line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walker {
    /// The number of the next record.
    pub(super) seq: u64,
    /// The leaf of the last one; `None` when its predecessors are not here to be hashed.
    pub(super) prev: Option<Leaf>,
}

impl Walker {
    /// Starts before the record of a number.
    pub(super) fn from(first: u64) -> Walker {
        Walker { seq: first, prev: (first == 1).then_some(Leaf::NONE) }
    }

    /// Checks the next line and steps over it.
    pub(super) fn step<'a>(&mut self, line: &'a [u8]) -> Result<Header<'a>, Fault> {
        let header: Header<'a> =
            serde_json::from_slice(line).map_err(|error| Fault::NotARecord(error.to_string()))?;
        let bad = |why: &str| Err(Fault::NotARecord(why.to_owned()));
        if header.v != 1 {
            return bad("its v is not 1");
        }
        if header.seq != self.seq {
            return Err(Fault::Seq { found: header.seq, expected: self.seq });
        }
        let named: Option<[u8; 32]> = unhex(header.prev);
        let Some(named) = named else { return bad("its prev is not 64 hexadecimal digits") };
        if self.prev.is_some_and(|prev| prev.0 != named) {
            return Err(Fault::Prev);
        }
        if header.kind().is_none() {
            return bad("its type is unknown");
        }
        if header.id().is_none() {
            return bad("its id is not a UUID");
        }
        self.seq += 1;
        self.prev = Some(Leaf::of(line));
        Ok(header)
    }
}
