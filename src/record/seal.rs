//! Payloads sealed to an auditor: written beside the chain, which has only the digest of what was written. Without the
//! auditor's private key nobody can read them, the gateway neither; destroying that key, or a file of them, erases them
//! and leaves the chain whole.
//!
//! HPKE base mode [RFC 9180] with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::segment::{self, Lines};
use crate::call::{RecordId, hex};
use crate::json::Members;
use crate::secret::ring::{self, Purpose};

/// Binds what is sealed to this use of the key.
const INFO: &[u8] = b"holdpoint sealed payload v1";
/// Where the files of sealed payloads are, below the audit's directory.
const DIRECTORY: &str = "sealed";

/// Which payload of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What the agent sent: of a tool call its arguments, of an HTTP request its body.
    Arguments,
    /// The beginning of what the upstream replied.
    Reply,
}

impl Part {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Arguments => "arguments",
            Part::Reply => "reply",
        }
    }
}

/// A sealed payload, ready to be written beside its record.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// With its newline.
    line: Vec<u8>,
    part: Part,
    /// SHA-256 of the ciphertext.
    digest: String,
    bytes: usize,
    key: String,
}

/// The auditor's public key.
pub struct Auditor {
    key: HpkePublicKey,
    fingerprint: String,
}

/// One line of a file of sealed payloads.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    id: &'a str,
    part: Part,
    /// The encapsulated key, base64.
    enc: &'a str,
    /// Base64.
    ciphertext: &'a str,
}

impl Auditor {
    /// Seals to this public key; refuses what no key is.
    pub fn new(public: &[u8; 32]) -> Result<Auditor, String> {
        let fail = |error| format!("the auditor's public key: {error}");
        let fingerprint = ring::name(Purpose::SealingPublic, public).map_err(|error| error.to_string())?;
        let auditor = Auditor { key: HpkePublicKey(public.to_vec()), fingerprint };
        SUITE.setup_sealer(INFO, &auditor.key).map_err(fail)?;
        Ok(auditor)
    }

    /// Seals a payload of the call with this id. `None` when the cryptographic library fails.
    pub fn seal(&self, id: RecordId, part: Part, payload: &[u8]) -> Option<Sealed> {
        let about = about(&id.to_string(), part);
        let (enc, ciphertext) = SUITE.seal(INFO, about.as_bytes(), payload, &self.key).ok()?;
        let line = Line {
            id: &id.to_string(),
            part,
            enc: &STANDARD.encode(&enc.0),
            ciphertext: &STANDARD.encode(&ciphertext),
        };
        let mut text = serde_json::to_vec(&line).ok()?;
        text.push(b'\n');
        let (digest, bytes) = (digest_of(&ciphertext), payload.len());
        Some(Sealed { line: text, part, digest, bytes, key: self.fingerprint.clone() })
    }
}

impl Sealed {
    /// The line that is written beside the chain.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// What the record says of it.
    pub(super) fn note(&self, members: &mut Members) {
        members.object("sealed", |members| {
            members.text("part", self.part.as_str());
            members.text("digest", &self.digest);
            members.number("bytes", self.bytes as u64);
            members.text("key", &self.key);
        });
    }
}

/// An opened payload.
#[derive(Debug)]
pub struct Opened {
    /// Which one.
    pub part: Part,
    /// What was sealed.
    pub payload: Vec<u8>,
}

/// Why a payload is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The log has no such call.
    #[error("no record `{0}`, or none with a sealed payload")]
    Unknown(String),
    /// The payload was erased.
    #[error("the sealed {part} of `{id}` is not there: it was erased. The record stands")]
    Erased {
        /// The call.
        id: String,
        /// Which payload.
        part: &'static str,
    },
    /// What is there is not what was recorded.
    #[error("the sealed {part} of `{id}` is not what the record has the digest of")]
    Changed {
        /// The call.
        id: String,
        /// Which payload.
        part: &'static str,
    },
    /// Another key is needed.
    #[error("this key does not open the sealed {part} of `{id}`: it is sealed to the key {key}")]
    Key {
        /// The call.
        id: String,
        /// Which payload.
        part: &'static str,
        /// The fingerprint of the public key that it was sealed to.
        key: String,
    },
}

/// Opens every payload of a call with the auditor's private key, checking each against its record.
pub fn open(dir: &Path, id: &str, private: &[u8; 32]) -> io::Result<Result<Vec<Opened>, OpenError>> {
    let mut opened = Vec::new();
    for record in super::tail::find(dir, id)? {
        let (Some(sealed), Some(seq)) = (record.get("sealed"), record.get("seq").and_then(Value::as_u64))
        else {
            continue;
        };
        let text = |name: &str| sealed.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let part = if text("part") == Part::Reply.as_str() { Part::Reply } else { Part::Arguments };
        // A call's records are found by any of their ids; what is sealed has the call's own.
        let call = record.get("intent").or(record.get("id")).and_then(Value::as_str).unwrap_or_default();
        match open_one(dir, (call, seq), part, (&text("digest"), &text("key")), private)? {
            Ok(payload) => opened.push(Opened { part, payload }),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(if opened.is_empty() { Err(OpenError::Unknown(id.to_owned())) } else { Ok(opened) })
}

fn open_one(
    dir: &Path,
    (id, seq): (&str, u64),
    part: Part,
    (recorded, key): (&str, &str),
    private: &[u8; 32],
) -> io::Result<Result<Vec<u8>, OpenError>> {
    let (name, word) = (id.to_owned(), part.as_str());
    let Some((enc, ciphertext)) = find(dir, (id, seq), part)? else {
        return Ok(Err(OpenError::Erased { id: name, part: word }));
    };
    if digest_of(&ciphertext) != recorded {
        return Ok(Err(OpenError::Changed { id: name, part: word }));
    }
    let private = HpkePrivateKey::from(private.to_vec());
    let opened =
        SUITE.open(&EncapsulatedSecret(enc), INFO, about(id, part).as_bytes(), &ciphertext, &private);
    Ok(opened.map_err(|_| OpenError::Key { id: name, part: word, key: key.to_owned() }))
}

/// The encapsulated key and the ciphertext of a payload, if it is still there.
fn find(dir: &Path, (id, seq): (&str, u64), part: Part) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let segments = segment::all(dir)?;
    let Some(first) = segments.iter().rev().map(|segment| segment.first).find(|first| *first <= seq) else {
        return Ok(None);
    };
    let mut lines = match Lines::open(&file(dir, first), 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lines => lines?,
    };
    while let Some(line) = lines.read()? {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line.bytes) else { continue };
        if line.id == id && line.part == part {
            let decode = |text: &str| STANDARD.decode(text).unwrap_or_default();
            return Ok(Some((decode(line.enc), decode(line.ciphertext))));
        }
    }
    Ok(None)
}

/// A new key pair for an auditor: the public key and the private one.
pub fn key_pair() -> Result<([u8; 32], ring::Bytes), String> {
    let (public, private) = SUITE.generate_key_pair().map_err(|error| error.to_string())?;
    let size = |_| "the key has an unexpected size".to_owned();
    let mut secret = ring::Bytes::default();
    let bytes: &[u8; 32] = private.secret_bytes().try_into().map_err(|_| size(()))?;
    secret.copy_from_slice(bytes);
    Ok((public.0.try_into().map_err(|_| size(()))?, secret))
}

/// The file beside the segment that begins with a record.
pub(super) fn file(dir: &Path, first: u64) -> PathBuf {
    dir.join(DIRECTORY).join(format!("sealed-{first:020}.jsonl"))
}

/// What a ciphertext is bound to.
fn about(id: &str, part: Part) -> String {
    format!("{id}/{}", part.as_str())
}

fn digest_of(ciphertext: &[u8]) -> String {
    format!("sha256:{}", hex(digest::digest(&digest::SHA256, ciphertext).as_ref()))
}
