//! The workload's own SVID: from files that something else rotates, or from the SPIFFE Workload API.
//!
//! What is given is always the newest that was whole. A rotation that is half written (a certificate without its key) is
//! passed over until its other half comes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{TrustDomain, X509Source};
use tokio::sync::watch;

use super::Failure;
use crate::call::AgentId;
use crate::identify::svid::{Leaf, read_roots};
use crate::net::tls::{Expected, mutual_config};

/// How often files are looked at for a rotation.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The largest file of certificates that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long the Workload API may take to give the first SVID.
const WORKLOAD_API_SECONDS_MAX: u64 = 30;
/// HTTP/2 where the gateway speaks it, and HTTP/1.1 otherwise.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the SVID comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// PEM files.
    Files {
        /// The certificate and its intermediates.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
        /// The roots by which the gateway is verified.
        bundle: PathBuf,
    },
    /// A Workload API, as `unix:///PATH`.
    WorkloadApi(String),
}

/// An SVID that can be presented, with what it accepts of the gateway.
#[derive(Debug)]
pub struct Identity {
    /// Whose it is.
    pub id: AgentId,
    /// When it stops being valid.
    pub not_after: SystemTime,
    /// TLS that presents it.
    pub tls: Arc<ClientConfig>,
}

/// The SVID now; the text says why there is none.
pub type Current = Result<Arc<Identity>, String>;

/// Reads the SVID, and keeps it up to date for as long as somebody looks at it.
///
/// Fails when there is none to begin with.
pub async fn open(source: Source, gateway: Option<AgentId>) -> Result<watch::Receiver<Current>, Failure> {
    match source {
        Source::Files { cert, key, bundle } => {
            let files = Files { cert, key, bundle, gateway };
            // The stamp comes first: what changes while it is read is read again.
            let stamp = files.stamp();
            let identity = files.read().map_err(Failure::Usage)?;
            let (sender, receiver) = watch::channel(Ok(Arc::new(identity)));
            tokio::spawn(follow_files(files, stamp, sender));
            Ok(receiver)
        }
        Source::WorkloadApi(endpoint) => {
            let refused = |error: &dyn std::fmt::Display| {
                Failure::CouldNotRun(format!("--workload-api {endpoint}: no X.509-SVID: {error}"))
            };
            let api = X509Source::builder()
                .endpoint(&endpoint)
                .initial_sync_timeout(Duration::from_secs(WORKLOAD_API_SECONDS_MAX))
                .build()
                .await
                .map_err(|error| refused(&error))?;
            let updates = api.updated();
            let identity = fetched(&api, gateway.as_ref()).map_err(|error| refused(&error))?;
            let (sender, receiver) = watch::channel(Ok(Arc::new(identity)));
            tokio::spawn(follow_api(api, updates, gateway, sender));
            Ok(receiver)
        }
    }
}

/// Verifies that an SVID is one, and makes what presents it.
fn identity(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: impl FnOnce(&str) -> Result<RootCertStore, String>,
    gateway: Option<&AgentId>,
) -> Result<Identity, String> {
    let leaf = chain.first().ok_or("holds no certificate")?;
    let Leaf { id, not_after, .. } =
        Leaf::read(leaf).map_err(|error| format!("is no X.509-SVID: {error}"))?;
    let (domain, expected) = match gateway {
        Some(gateway) => (gateway.trust_domain(), Expected::Id(gateway.clone())),
        None => (id.trust_domain(), Expected::Domain(id.trust_domain().to_owned())),
    };
    let tls = mutual_config(roots(domain)?, expected, chain, key, &ALPN)?;
    Ok(Identity { id, not_after, tls })
}

// === files ===

struct Files {
    cert: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    gateway: Option<AgentId>,
}

/// What tells that a file was written or replaced: device, inode, size, and when it changed.
type Stamp = Vec<Option<(u64, u64, u64, i64, i64)>>;

impl Files {
    fn stamp(&self) -> Stamp {
        let of = |path: &PathBuf| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
        };
        [&self.cert, &self.key, &self.bundle].map(of).to_vec()
    }

    /// Reads all three; an error names the flag and the file.
    fn read(&self) -> Result<Identity, String> {
        let wrong = |flag: &str, path: &Path, what: &dyn std::fmt::Display| {
            format!("{flag} {}: {what}", path.display())
        };
        let open = |flag, path: &Path| read_bounded(path).map_err(|error| wrong(flag, path, &error));
        let (cert, key) = (open("--cert", &self.cert)?, open("--key", &self.key)?);
        let bundle = open("--bundle", &self.bundle)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
        let chain = chain.map_err(|error| {
            wrong("--cert", &self.cert, &format!("expected certificates in PEM: {error}"))
        })?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| wrong("--key", &self.key, &format!("expected a private key in PEM: {error}")))?;
        let roots = read_roots(&bundle).map_err(|error| wrong("--bundle", &self.bundle, &error))?;
        identity(chain, key, |_| Ok(roots), self.gateway.as_ref()).map_err(|error| {
            format!("{} (with --key {})", wrong("--cert", &self.cert, &error), self.key.display())
        })
    }
}

fn read_bounded(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

async fn follow_files(files: Files, mut seen: Stamp, sender: watch::Sender<Current>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sender.closed() => return,
            _ = look.tick() => {}
        }
        let stamp = files.stamp();
        if stamp == seen {
            continue;
        }
        seen = stamp;
        match files.read() {
            Ok(identity) => rotated(identity, &sender),
            Err(error) => tracing::warn!(%error, "the SVID on disk cannot be used yet; the one before stays"),
        }
    }
}

fn rotated(identity: Identity, sender: &watch::Sender<Current>) {
    tracing::info!(id = %identity.id, "a new SVID is in use");
    let _ = sender.send(Ok(Arc::new(identity)));
}

// === Workload API ===

fn fetched(api: &X509Source, gateway: Option<&AgentId>) -> Result<Identity, String> {
    let svid = api.svid().map_err(|error| error.to_string())?;
    let bundles = api.bundle_set().map_err(|error| error.to_string())?;
    let chain = svid.cert_chain().iter().map(|cert| CertificateDer::from(cert.as_bytes().to_vec())).collect();
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    let roots = |domain: &str| {
        let name = TrustDomain::new(domain).map_err(|error| error.to_string())?;
        let bundle =
            bundles.get_ref(&name).ok_or_else(|| format!("it gave no bundle for trust domain {domain}"))?;
        let mut roots = RootCertStore::empty();
        for authority in bundle.authorities() {
            let root = CertificateDer::from(authority.as_bytes().to_vec());
            roots.add(root).map_err(|error| format!("a root of {domain} cannot be read: {error}"))?;
        }
        Ok(roots)
    };
    identity(chain, key.into(), roots, gateway)
}

async fn follow_api(
    api: X509Source,
    mut updates: spiffe::X509SourceUpdates,
    gateway: Option<AgentId>,
    sender: watch::Sender<Current>,
) {
    loop {
        let changed = tokio::select! {
            () = sender.closed() => break,
            changed = updates.changed() => changed,
        };
        if let Err(error) = changed {
            let why = format!("the Workload API's updates ended: {error}");
            tracing::error!("{why}");
            let _ = sender.send(Err(why));
            return;
        }
        match fetched(&api, gateway.as_ref()) {
            Ok(identity) => rotated(identity, &sender),
            // The API withdrew the identity, so it must not be presented any more.
            Err(error) => {
                tracing::warn!(%error, "the Workload API gives no SVID any more");
                let _ = sender.send(Err(format!("the Workload API gives no SVID: {error}")));
            }
        }
    }
    api.shutdown().await;
}
