//! Credential: what an upstream is shown, which the agent never sees.
//!
//! This version reads a static secret from a file, each time anew when the file has changed. It never leaves this
//! process but in the header it is for; records name it by a keyed fingerprint.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use http::{HeaderName, HeaderValue};

use crate::call::{Stage, Stop, StopKind};
use crate::record::Committed;
use crate::secret::{PseudonymKey, Secret};

/// A secret in a file, and the header that it is for.
#[derive(Clone, Debug)]
pub struct StaticFile {
    /// The file.
    pub file: PathBuf,
    /// The header.
    pub header: HeaderName,
    /// What stands before the secret in the header.
    pub prefix: String,
}

/// Gives each upstream its credential.
#[derive(Default)]
pub struct Broker {
    upstreams: HashMap<Arc<str>, Source>,
}

struct Source {
    config: StaticFile,
    read: Mutex<Option<(SystemTime, Arc<Secret>)>>,
}

/// The credential for one call; made only for a committed one.
pub struct Lease {
    header: Option<(HeaderName, HeaderValue)>,
    fingerprint: Option<String>,
}

/// The credential for this call.
pub fn lease(broker: &Broker, committed: &Committed, key: &PseudonymKey) -> Result<Lease, Box<Stop>> {
    let Some(source) = broker.upstreams.get(&committed.call().route().name) else {
        return Ok(Lease { header: None, fingerprint: None });
    };
    let secret = source.secret().map_err(|error| {
        // Invariant: the message names the file, never what is in it.
        unavailable(format!("{}: {error}", source.config.file.display()))
    })?;
    let header = source
        .header(&secret)
        .ok_or_else(|| unavailable(format!("{}: not a header value", source.config.file.display())))?;
    Ok(Lease { header: Some(header), fingerprint: Some(key.pseudonym(secret.expose().as_bytes())) })
}

fn unavailable(detail: String) -> Box<Stop> {
    let text = "the upstream's credential is not available; nothing was sent";
    Stop::new(Stage::Credential, StopKind::Unavailable, "credential", text).operator(detail)
}

impl Broker {
    /// A broker for these upstreams.
    pub fn new(sources: impl IntoIterator<Item = (Arc<str>, StaticFile)>) -> Broker {
        let upstreams = sources
            .into_iter()
            .map(|(name, config)| (name, Source { config, read: Mutex::new(None) }))
            .collect();
        Broker { upstreams }
    }
}

impl Broker {
    /// What an upstream is shown for calls, by name and never by value; empty when nothing is.
    pub fn scope(&self, upstream: &str) -> String {
        let named =
            |source: &Source| format!("{} from {}", source.config.header, source.config.file.display());
        self.upstreams.get(upstream).map(named).unwrap_or_default()
    }

    /// Makes sure that the credential is there before an approval is used up.
    pub fn ready(&self, upstream: &str) -> Result<(), Box<Stop>> {
        self.own(upstream).map(|_| ()).map_err(unavailable)
    }

    /// The header that the gateway shows an upstream when it asks for itself, where there is one. The error names the
    /// file, never what is in it.
    pub fn own(&self, upstream: &str) -> Result<Option<(HeaderName, HeaderValue)>, String> {
        let Some(source) = self.upstreams.get(upstream) else { return Ok(None) };
        let file = source.config.file.display();
        let secret = source.secret().map_err(|error| format!("{file}: {error}"))?;
        source.header(&secret).map(Some).ok_or_else(|| format!("{file}: not a header value"))
    }
}

impl Source {
    fn header(&self, secret: &Secret) -> Option<(HeaderName, HeaderValue)> {
        let mut value = HeaderValue::from_str(&format!("{}{}", self.config.prefix, secret.expose())).ok()?;
        value.set_sensitive(true);
        Some((self.config.header.clone(), value))
    }

    fn secret(&self) -> std::io::Result<Arc<Secret>> {
        let changed = std::fs::metadata(&self.config.file)?.modified()?;
        let mut read = self.read.lock().map_err(|_| std::io::Error::other("the cache is poisoned"))?;
        if let Some((at, secret)) = &*read
            && *at == changed
        {
            return Ok(Arc::clone(secret));
        }
        let text = std::fs::read_to_string(&self.config.file)?;
        let secret = Arc::new(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()));
        *read = Some((changed, Arc::clone(&secret)));
        Ok(secret)
    }
}

impl Lease {
    /// How records name the credential.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// The header to set, once.
    pub(crate) fn into_header(self) -> Option<(HeaderName, HeaderValue)> {
        self.header
    }
}
