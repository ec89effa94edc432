//! What a configuration was read from: each file as it was when it was read, and a digest of each part.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

/// The files and directories behind one reading of the configuration, whether it succeeded or not.
#[derive(Clone, Default)]
pub struct Sources {
    stamps: BTreeMap<PathBuf, Stamp>,
    parts: BTreeMap<&'static str, digest::Context>,
}

/// What tells that a file was written or replaced, through every symbolic link: device, inode, size, and when its content
/// and when it itself changed. `None` where there is none.
pub type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// A digest of each part of the configuration, by the part's name, as in `agents` or `policy`.
pub type Digests = BTreeMap<&'static str, [u8; 32]>;

impl Sources {
    /// Notes a file or a directory that is about to be read: what changes while it is read is seen as a change.
    pub(super) fn will_read(&mut self, path: &Path) {
        self.stamps.insert(path.to_owned(), stamp(path));
    }

    /// Notes a part of the configuration as it was read.
    pub(super) fn has_read(&mut self, part: &'static str, name: &[u8], bytes: &[u8]) {
        let part = self.parts.entry(part);
        let context = part.or_insert_with(|| digest::Context::new(&digest::SHA256));
        for text in [name, bytes] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text);
        }
    }

    /// Notes a file that the configuration names at this path, as a part of what that path is about.
    pub(super) fn has_read_for(&mut self, at: &str, bytes: &[u8]) {
        let part = match at {
            // A private key has no place in the audit, not even its digest; its certificate tells of it.
            "trust.identity.key" => return,
            "trust.identity.cert" => "identity",
            at if at.ends_with(".catalog") => "catalog",
            at if at.starts_with("trust") => "trust",
            at if at.starts_with("upstreams") => "upstreams",
            at if at.starts_with("people") => "people",
            _ => "other",
        };
        self.has_read(part, at.as_bytes(), bytes);
    }

    /// Whether any of it is not any more as it was read.
    pub fn changed(&self) -> bool {
        self.stamps.iter().any(|(path, before)| stamp(path) != *before)
    }

    /// Everything as it is now.
    pub fn now(&self) -> Vec<Stamp> {
        self.stamps.keys().map(|path| stamp(path)).collect()
    }

    /// Where something happens when any of it changes: a file that is replaced changes its directory.
    pub fn directories(&self) -> Vec<PathBuf> {
        let around = |path: &PathBuf| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            parent.unwrap_or(Path::new(".")).to_owned()
        };
        let within = self.stamps.keys().filter(|path| path.is_dir()).cloned();
        let mut directories: Vec<PathBuf> = self.stamps.keys().map(around).chain(within).collect();
        directories.sort();
        directories.dedup();
        directories
    }

    /// The digest of each part.
    pub fn digests(&self) -> Digests {
        self.parts.iter().map(|(part, context)| (*part, bytes(context.clone().finish()))).collect()
    }
}

/// SHA-256 of texts, each after its length, so that no two lists have one digest.
pub(super) fn digest_of<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text);
    }
    bytes(context.finish())
}

fn bytes(digest: digest::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    let (content, itself) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    Some((meta.dev(), meta.ino(), meta.size(), content, itself))
}
