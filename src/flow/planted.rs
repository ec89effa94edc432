//! The file of canaries beside the store: their names and keyed digests, a line each, never the tokens.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::canary::Canaries;
use super::text::FlowKey;
use crate::call::hex;
use crate::flow::journal::key_mark;

/// Canaries that one gateway may have.
const CANARIES_MAX: usize = 1000;
/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A canary, as the file keeps it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// Its name.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// By what the key is known that it was hashed with.
    pub key: String,
    /// Its digest.
    pub digest: Vec<u32>,
}

impl Planted {
    /// A new canary of this token.
    pub fn new(key: &[u8; 32], name: &str, created: String, token: &str) -> Planted {
        let digest = Canaries::digest(&FlowKey::new(key), token);
        Planted { name: name.to_owned(), created, key: hex(&key_mark(key)), digest }
    }

    /// Whether it was hashed with this key; else it cannot be found.
    pub fn is_of(&self, key: &[u8; 32]) -> bool {
        self.key == hex(&key_mark(key))
    }
}

/// The file beside a store.
pub fn file(store: &Path) -> PathBuf {
    store.with_file_name("canaries.jsonl")
}

/// Every canary of a file; none when there is no file.
///
/// Errors: a file that cannot be read, and a line that is none, with its number.
pub fn read(file: &Path) -> io::Result<Vec<Planted>> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
        Ok(meta) if meta.len() > FILE_BYTES_MAX => {
            return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let canary = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| io::Error::other(format!("line {}: {error}", at + 1)))
    };
    lines.map(canary).collect()
}

/// Adds a canary to a file, durably.
pub fn add(file: &Path, planted: &Planted) -> io::Result<()> {
    if read(file)?.len() >= CANARIES_MAX {
        return Err(io::Error::other(format!("there are {CANARIES_MAX} canaries, and no more are kept")));
    }
    let mut line = serde_json::to_vec(planted).map_err(io::Error::other)?;
    line.push(b'\n');
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    file.write_all(&line)?;
    file.sync_all()
}

/// The canaries of a file that were hashed with this key, and the names of the others.
pub fn in_force(file: &Path, key: &[u8; 32]) -> io::Result<(Canaries, Vec<String>)> {
    let (mut canaries, mut others) = (Canaries::default(), Vec::new());
    for planted in read(file)? {
        match planted.is_of(key) {
            true => canaries.add_digest(&planted.name, &planted.digest),
            false => others.push(planted.name),
        }
    }
    Ok((canaries, others))
}
