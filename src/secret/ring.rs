//! The gateway's own keys, one for each purpose: files of 32 bytes that only their owner may read, the current one, the
//! previous one, and one that is staged and becomes current when the gateway starts next.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::signer::{PublicKey, Signer};
use crate::call::hex;

/// The file with every public key that ever signed the audit, a line each: hand it to auditors.
pub const PUBLIC_KEYS: &str = "audit-signing.pub";

/// The first word of such a line.
const PUBLIC_WORD: &str = "holdpoint-audit";

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Signs the audit's checkpoints: the seed of an Ed25519 key.
    AuditSigning,
    /// Hashes what flow control remembers of texts: a secret key.
    Lineage,
    /// Names destinations, credentials and sessions in records: an HMAC key.
    Pseudonym,
    /// Whom payloads are sealed to: the auditor's X25519 public key. Its private key is never here.
    SealingPublic,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Purpose; 4] =
        [Purpose::AuditSigning, Purpose::Lineage, Purpose::Pseudonym, Purpose::SealingPublic];

    /// The word in file names, commands and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::AuditSigning => "audit-signing",
            Purpose::Lineage => "lineage",
            Purpose::Pseudonym => "pseudonym",
            Purpose::SealingPublic => "sealing-public",
        }
    }

    /// The purpose that a word names.
    pub fn parse(word: &str) -> Option<Purpose> {
        Purpose::ALL.into_iter().find(|purpose| purpose.as_str() == word)
    }
}

/// Which key of a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The one in use.
    Current,
    /// The one before it.
    Previous,
    /// The one that is used from the next start on.
    Next,
}

impl Slot {
    /// Every slot.
    pub const ALL: [Slot; 3] = [Slot::Current, Slot::Previous, Slot::Next];

    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Slot::Current => "current",
            Slot::Previous => "previous",
            Slot::Next => "staged",
        }
    }

    fn file(self, purpose: Purpose) -> String {
        let end = match self {
            Slot::Current => "key",
            Slot::Previous => "previous.key",
            Slot::Next => "next.key",
        };
        format!("{}.{end}", purpose.as_str())
    }
}

/// Why a key cannot be used. No message has a key's bytes.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has another size.
    #[error("{0}: is not 32 bytes")]
    Size(PathBuf),
    /// Others than its owner may read or change the file.
    #[error("{path}: has mode {mode:03o}, and others than its owner may use it: chmod 600")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The bytes are no key.
    #[error("{0}")]
    Unusable(String),
}

/// A key's bytes, erased when dropped.
pub type Bytes = Zeroizing<[u8; 32]>;

/// A key as `keys list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is for.
    pub purpose: Purpose,
    /// Which one it is.
    pub slot: Slot,
    /// How records name it.
    pub fingerprint: String,
    /// When its file was written.
    pub written: Option<SystemTime>,
}

/// The directory of keys.
#[derive(Clone, Debug)]
pub struct Ring {
    dir: PathBuf,
}

impl Ring {
    /// The keys of a directory, which is made when it is missing.
    pub fn open(dir: &Path) -> Result<Ring, KeyError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| KeyError::Io { path: dir.to_owned(), source })?;
        Ok(Ring { dir: dir.to_owned() })
    }

    /// A key, if there is one. Refuses a file that others may use.
    pub fn key(&self, purpose: Purpose, slot: Slot) -> Result<Option<Bytes>, KeyError> {
        read(&self.path(purpose, slot))
    }

    /// The current key, made when there is none.
    pub fn current_or_new(&self, purpose: Purpose) -> Result<Bytes, KeyError> {
        if let Some(bytes) = self.key(purpose, Slot::Current)? {
            return Ok(bytes);
        }
        let bytes = random()?;
        write_new(&self.path(purpose, Slot::Current), &bytes[..])?;
        Ok(bytes)
    }

    /// The signer of checkpoints, made when there is none; its public key is added to [`PUBLIC_KEYS`].
    pub fn signer(&self) -> Result<Signer, KeyError> {
        let signer = Signer::from_seed(&*self.current_or_new(Purpose::AuditSigning)?)?;
        self.tell_public(signer.public())?;
        Ok(signer)
    }

    /// Puts a key where the next start finds it; one that was staged before is replaced.
    pub fn stage(&self, purpose: Purpose, bytes: &[u8; 32]) -> Result<(), KeyError> {
        let path = self.path(purpose, Slot::Next);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KeyError::Io { path, source }),
            _ => write_new(&path, bytes),
        }
    }

    /// The purposes that have a staged key.
    pub fn staged(&self) -> Vec<Purpose> {
        let staged = |purpose: &Purpose| self.path(*purpose, Slot::Next).exists();
        Purpose::ALL.into_iter().filter(staged).collect()
    }

    /// Makes the staged key current and the current one previous. There is a current key at every moment.
    pub fn turn(&self, purpose: Purpose) -> Result<(), KeyError> {
        let [current, previous, next] =
            [Slot::Current, Slot::Previous, Slot::Next].map(|slot| self.path(purpose, slot));
        let aside = previous.with_extension("new");
        let fail = |source| KeyError::Io { path: current.clone(), source };
        if current.exists() {
            match std::fs::remove_file(&aside) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(fail(source)),
                _ => {}
            }
            std::fs::hard_link(&current, &aside).map_err(fail)?;
            std::fs::rename(&aside, &previous).map_err(fail)?;
        }
        std::fs::rename(&next, &current).map_err(fail)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(fail)?;
        if purpose == Purpose::AuditSigning {
            self.signer()?;
        }
        Ok(())
    }

    /// Every key, without its bytes.
    pub fn list(&self) -> Result<Vec<Listed>, KeyError> {
        let mut listed = Vec::new();
        for purpose in Purpose::ALL {
            for slot in Slot::ALL {
                let Some(bytes) = self.key(purpose, slot)? else { continue };
                let written = std::fs::metadata(self.path(purpose, slot)).and_then(|meta| meta.modified());
                let fingerprint = name(purpose, &bytes)?;
                listed.push(Listed { purpose, slot, fingerprint, written: written.ok() });
            }
        }
        Ok(listed)
    }

    /// Adds a public key to those that auditors are given.
    fn tell_public(&self, key: PublicKey) -> Result<(), KeyError> {
        let path = self.dir.join(PUBLIC_KEYS);
        let fail = |source| KeyError::Io { path: path.clone(), source };
        let line = format!("{PUBLIC_WORD}+{}+{}", key.fingerprint(), key.to_base64());
        let told = std::fs::read_to_string(&path).unwrap_or_default();
        if told.lines().any(|known| known == line) {
            return Ok(());
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(&path).map_err(fail)?;
        file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(fail)
    }

    fn path(&self, purpose: Purpose, slot: Slot) -> PathBuf {
        self.dir.join(slot.file(purpose))
    }
}

/// How records name a key: of the signing key by its public key, of the others by their bytes, which are too random
/// to be guessed from it.
pub fn name(purpose: Purpose, bytes: &[u8; 32]) -> Result<String, KeyError> {
    match purpose {
        Purpose::AuditSigning => Ok(Signer::from_seed(bytes)?.public().fingerprint()),
        Purpose::Lineage | Purpose::Pseudonym | Purpose::SealingPublic => Ok(fingerprint(bytes)),
    }
}

/// 32 random bytes.
pub fn random() -> Result<Bytes, KeyError> {
    let mut bytes = Zeroizing::new([0; 32]);
    let filled = SystemRandom::new().fill(&mut bytes[..]);
    filled.map_err(|_| KeyError::Unusable("the system gives no random numbers".to_owned()))?;
    Ok(bytes)
}

/// The public keys of a file as [`PUBLIC_KEYS`] has them: `holdpoint-audit+FINGERPRINT+BASE64`, or the base64 alone.
pub fn public_keys(text: &str) -> Result<Vec<PublicKey>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &str| {
        let last = line.splitn(3, '+').nth(2).filter(|_| line.starts_with(PUBLIC_WORD)).unwrap_or(line);
        PublicKey::parse(last).ok_or_else(|| format!("`{line}` is no line of {PUBLIC_KEYS}"))
    };
    lines.map(parse).collect()
}

/// The first 16 bytes of a hash that is used for nothing else.
pub(super) fn fingerprint(bytes: &[u8; 32]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"holdpoint key fingerprint\0");
    context.update(bytes);
    hex(context.finish().as_ref().get(..16).unwrap_or_default())
}

/// The 32 bytes of a file that only its owner may use; `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<Bytes>, KeyError> {
    let fail = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(fail)?,
    };
    let mode = file.metadata().map_err(fail)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    let (mut bytes, mut more) = (Zeroizing::new([0; 32]), [0; 1]);
    let size = |_| KeyError::Size(path.to_owned());
    file.read_exact(&mut bytes[..]).map_err(size)?;
    if file.read(&mut more).map_err(fail)? > 0 {
        return Err(KeyError::Size(path.to_owned()));
    }
    Ok(Some(bytes))
}

/// Writes a file that only its owner may use, and that must not be there yet.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let fail = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)
}
