//! X.509-SVIDs: what a leaf certificate must be for its SPIFFE ID to be believed, and which roots vouch for which
//! trust domain [SPIFFE X509-SVID §§2, 4, 5].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertRevocationListError, CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::call::{AgentId, hex};

/// The longest SPIFFE ID, in bytes [SPIFFE-ID §2.3].
const ID_BYTES_MAX: usize = 2048;
/// The longest trust domain, in bytes [SPIFFE-ID §2.3].
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// The most intermediates that a peer may send.
const INTERMEDIATES_MAX: usize = 8;

/// Why a certificate does not authenticate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// basicConstraints are absent.
    #[error("the certificate has no basicConstraints extension")]
    BasicConstraints,
    /// A signing certificate never authenticates.
    #[error("a certificate of a CA does not authenticate")]
    CaCertificate,
    /// Too many intermediates.
    #[error("more than {INTERMEDIATES_MAX} intermediate certificates")]
    ChainTooLong,
    /// Not a certificate, or one with an extension given twice.
    #[error("the certificate cannot be read: {0}")]
    Encoding(String),
    /// Past its validity.
    #[error("the certificate has expired")]
    Expired,
    /// An extended key usage without both clientAuth and serverAuth.
    #[error("extendedKeyUsage must contain both clientAuth and serverAuth, or be absent")]
    ExtendedKeyUsage,
    /// keyUsage absent, without digitalSignature, or with a right to sign certificates or CRLs.
    #[error("keyUsage must be present with digitalSignature, without keyCertSign and cRLSign")]
    KeyUsage,
    /// No URI subject alternative name.
    #[error("the certificate has no URI subject alternative name")]
    NoUriSan,
    /// A URI of another scheme.
    #[error("the URI subject alternative name is not a spiffe: URI")]
    NotSpiffe,
    /// Before its validity.
    #[error("the certificate is not yet valid")]
    NotYetValid,
    /// Something else that path validation found.
    #[error("the certificate's chain is not acceptable: {0}")]
    Chain(String),
    /// A path that SPIFFE does not allow.
    #[error(
        "the SPIFFE ID's path is not allowed: empty or dot segments, or a character outside [A-Za-z0-9._-]"
    )]
    Path,
    /// On a CRL of its trust domain.
    #[error("the certificate is revoked")]
    Revoked,
    /// The CRLs of the trust domain do not cover it, or are out of date.
    #[error("the certificate's revocation status is not known: {0}")]
    RevocationUnknown(String),
    /// The trust domain itself.
    #[error("the SPIFFE ID names no workload: it has no path")]
    RootPath,
    /// More than [`ID_BYTES_MAX`] bytes.
    #[error("the SPIFFE ID is longer than {ID_BYTES_MAX} bytes")]
    TooLong,
    /// A trust domain that SPIFFE does not allow, such as one with a port or user information.
    #[error("the SPIFFE ID's trust domain is not allowed: a character outside [a-z0-9._-], or none at all")]
    TrustDomain,
    /// More than one URI subject alternative name, of any scheme.
    #[error("the certificate has more than one URI subject alternative name")]
    TwoUriSans,
    /// Not signed by the roots of the trust domain that it names.
    #[error("the certificate is not issued by a root of its trust domain")]
    UnknownIssuer,
    /// A trust domain that is not configured.
    #[error("trust domain {0} is not configured")]
    UnknownTrustDomain(String),
    /// Not the id that was expected of this peer.
    #[error("the peer is {0}, not the one that was expected")]
    UnexpectedId(String),
    /// A trust domain that is configured, but not for this listener.
    #[error("trust domain {0} does not authenticate here")]
    WrongRole(String),
}

impl SvidError {
    /// The stable word for records and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            SvidError::BasicConstraints => "basic-constraints",
            SvidError::CaCertificate => "ca-certificate",
            SvidError::ChainTooLong => "chain-too-long",
            SvidError::Encoding(_) => "encoding",
            SvidError::Expired => "expired",
            SvidError::ExtendedKeyUsage => "extended-key-usage",
            SvidError::KeyUsage => "key-usage",
            SvidError::NoUriSan => "no-uri-san",
            SvidError::NotSpiffe => "not-spiffe",
            SvidError::NotYetValid => "not-yet-valid",
            SvidError::Chain(_) => "chain",
            SvidError::Path => "path",
            SvidError::Revoked => "revoked",
            SvidError::RevocationUnknown(_) => "revocation-unknown",
            SvidError::RootPath => "root-path",
            SvidError::TooLong => "too-long",
            SvidError::TrustDomain => "trust-domain",
            SvidError::TwoUriSans => "two-uri-sans",
            SvidError::UnknownIssuer => "unknown-issuer",
            SvidError::UnknownTrustDomain(_) => "unknown-trust-domain",
            SvidError::UnexpectedId(_) => "unexpected-id",
            SvidError::WrongRole(_) => "wrong-role",
        }
    }

    /// What a failure of path validation means.
    pub fn of(error: rustls::Error) -> SvidError {
        use CertificateError as Cert;
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                Cert::Expired | Cert::ExpiredContext { .. } => SvidError::Expired,
                Cert::NotValidYet | Cert::NotValidYetContext { .. } => SvidError::NotYetValid,
                Cert::Revoked => SvidError::Revoked,
                // A CA that does not vouch for this domain, and a CA of the same name with another key.
                Cert::UnknownIssuer | Cert::BadSignature => SvidError::UnknownIssuer,
                Cert::BadEncoding => SvidError::Encoding("bad encoding".to_owned()),
                error @ (Cert::UnknownRevocationStatus
                | Cert::ExpiredRevocationList
                | Cert::ExpiredRevocationListContext { .. }) => {
                    SvidError::RevocationUnknown(error.to_string())
                }
                other => SvidError::Chain(other.to_string()),
            },
            rustls::Error::InvalidCertRevocationList(error) => revocation_unknown(&error),
            other => SvidError::Chain(other.to_string()),
        }
    }
}

fn revocation_unknown(error: &CertRevocationListError) -> SvidError {
    SvidError::RevocationUnknown(format!("{error:?}"))
}

/// Parses a SPIFFE ID strictly, with a path, into its normal form.
pub fn parse_id(uri: &str) -> Result<AgentId, SvidError> {
    if uri.len() > ID_BYTES_MAX {
        return Err(SvidError::TooLong);
    }
    let rest = uri.strip_prefix("spiffe://").ok_or(SvidError::NotSpiffe)?;
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    let domain = parse_trust_domain(domain)?;
    let path = path.filter(|path| !path.is_empty()).ok_or(SvidError::RootPath)?;
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if !path.split('/').all(segment) {
        return Err(SvidError::Path);
    }
    Ok(AgentId::from_normalised(&format!("spiffe://{domain}/{path}")))
}

/// Parses a trust domain's name into lower case.
pub fn parse_trust_domain(name: &str) -> Result<String, SvidError> {
    let name = name.to_ascii_lowercase();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > TRUST_DOMAIN_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(SvidError::TrustDomain);
    }
    Ok(name)
}

/// What a leaf certificate says, in the form that an SVID must have. It is believed only after its chain is verified.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The SPIFFE ID.
    pub id: AgentId,
    /// The serial number, in hexadecimal.
    pub serial: Arc<str>,
    /// When it stops being valid.
    pub not_after: SystemTime,
}

impl Leaf {
    /// Reads a leaf and checks everything about it that does not need a root.
    pub fn read(der: &[u8]) -> Result<Leaf, SvidError> {
        let unreadable = |error: &dyn fmt::Display| SvidError::Encoding(error.to_string());
        let (rest, cert) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(SvidError::Encoding("bytes after the certificate".to_owned()));
        }
        let id = the_one_uri(&cert)?;
        check_constraints(&cert)?;
        let seconds = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Leaf {
            id,
            serial: Arc::from(hex(cert.raw_serial())),
            not_after: not_after.ok_or(SvidError::Expired)?,
        })
    }
}

/// Invariant: every URI name counts, also one that is not a SPIFFE ID or not even text.
fn the_one_uri(cert: &X509Certificate<'_>) -> Result<AgentId, SvidError> {
    let names = cert.subject_alternative_name().map_err(|error| SvidError::Encoding(error.to_string()))?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        GeneralName::Invalid(tag, _) if tag.0 == 6 => Some(""),
        _ => None,
    });
    let uri = uris.next().ok_or(SvidError::NoUriSan)?;
    if uris.next().is_some() {
        return Err(SvidError::TwoUriSans);
    }
    parse_id(uri)
}

fn check_constraints(cert: &X509Certificate<'_>) -> Result<(), SvidError> {
    let unreadable = |error: x509_parser::error::X509Error| SvidError::Encoding(error.to_string());
    let constraints = cert.basic_constraints().map_err(unreadable)?.ok_or(SvidError::BasicConstraints)?;
    if constraints.value.ca {
        return Err(SvidError::CaCertificate);
    }
    let usage = cert.key_usage().map_err(unreadable)?.ok_or(SvidError::KeyUsage)?.value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::KeyUsage);
    }
    match cert.extended_key_usage().map_err(unreadable)? {
        Some(usage) if !(usage.value.client_auth && usage.value.server_auth) => {
            Err(SvidError::ExtendedKeyUsage)
        }
        _ => Ok(()),
    }
}

/// Whom a trust domain holds. A domain holds one kind, so that an agent can never be a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Workloads that call tools.
    Agents,
    /// People who approve.
    People,
    /// Systems that name tasks.
    Orchestrators,
}

impl Role {
    /// The word used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Agents => "agents",
            Role::People => "people",
            Role::Orchestrators => "orchestrators",
        }
    }
}

/// One trust domain as it is configured: PEM texts, not yet read.
#[derive(Clone, Debug)]
pub struct DomainSource {
    /// The trust domain's name.
    pub name: String,
    /// Whom it holds.
    pub role: Role,
    /// Its roots, PEM.
    pub bundle: Vec<u8>,
    /// Its CRLs, PEM, when it has any.
    pub crls: Option<Vec<u8>>,
}

/// One trust domain, ready to verify.
#[derive(Debug)]
pub struct Domain {
    role: Role,
    roots: Arc<RootCertStore>,
    not_after: Option<SystemTime>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Domain {
    /// Whom it holds.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its roots.
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// When the first of its roots stops being valid.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }
}

/// Every trust domain with its own roots: a root of one domain never vouches for a leaf of another.
#[derive(Debug, Default)]
pub struct Trust {
    domains: HashMap<String, Domain>,
}

impl Trust {
    /// Reads all domains, or says everything that is wrong with them.
    pub fn build(sources: &[DomainSource], provider: &Arc<CryptoProvider>) -> Result<Trust, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut domains: HashMap<String, Domain> = HashMap::new();
        let mut keys: HashMap<Vec<u8>, (String, Role)> = HashMap::new();
        for source in sources {
            let domain = match read_domain(source, provider) {
                Ok(domain) => domain,
                Err(problem) => {
                    mistakes.push(format!("trust domain {}: {problem}", source.name));
                    continue;
                }
            };
            // By key: the same root reissued in another certificate is still the same root.
            for root in &domain.roots.roots {
                let key = root.subject_public_key_info.as_ref().to_vec();
                let (other, role) = keys.entry(key).or_insert_with(|| (source.name.clone(), source.role));
                if *role != source.role {
                    mistakes.push(format!(
                        "trust domain {}: its root is also a root of {other}, which holds {}, not {}",
                        source.name,
                        role.as_str(),
                        source.role.as_str()
                    ));
                }
            }
            match parse_trust_domain(&source.name) {
                Err(error) => mistakes.push(format!("trust domain {}: {error}", source.name)),
                Ok(name) => {
                    if domains.insert(name, domain).is_some() {
                        mistakes.push(format!("trust domain {}: given twice", source.name));
                    }
                }
            }
        }
        if mistakes.is_empty() { Ok(Trust { domains }) } else { Err(mistakes) }
    }

    /// A configured trust domain by its normalised name.
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.get(name)
    }

    /// Whether a trust domain holds peers of a role.
    pub fn has(&self, role: Role) -> bool {
        self.domains.values().any(|domain| domain.role == role)
    }

    /// Every trust domain, by its normalised name.
    pub fn domains(&self) -> impl Iterator<Item = (&str, &Domain)> {
        self.domains.iter().map(|(name, domain)| (name.as_str(), domain))
    }

    /// Verifies a peer's certificate for a role: its form, its domain, and its chain to that domain's roots only.
    pub fn verify(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Leaf, SvidError> {
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(SvidError::ChainTooLong);
        }
        let read = Leaf::read(leaf)?;
        let name = read.id.trust_domain();
        let domain = self.domains.get(name).ok_or_else(|| SvidError::UnknownTrustDomain(name.to_owned()))?;
        if domain.role != role {
            return Err(SvidError::WrongRole(name.to_owned()));
        }
        domain.verifier.verify_client_cert(leaf, intermediates, now).map_err(SvidError::of)?;
        Ok(read)
    }
}

/// Reads every root of a PEM bundle; one that cannot be read fails them all, rather than being dropped in silence.
pub fn read_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("the bundle is not valid PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a root cannot be read: {error}"))?;
    }
    if roots.is_empty() {
        return Err("the bundle holds no certificate".to_owned());
    }
    Ok(roots)
}

fn read_domain(source: &DomainSource, provider: &Arc<CryptoProvider>) -> Result<Domain, String> {
    let roots = Arc::new(read_roots(&source.bundle)?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    if let Some(pem) = &source.crls {
        let crls: Vec<CertificateRevocationListDer<'static>> =
            CertificateRevocationListDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|error| format!("the CRLs are not valid PEM: {error}"))?;
        if crls.is_empty() {
            return Err("the CRL file holds no CRL".to_owned());
        }
        // An unknown status denies, and so does a CRL past its next update: whoever configures CRLs relies on them.
        builder = builder.with_crls(crls).enforce_revocation_expiration();
    }
    let verifier = builder.build().map_err(|error| error.to_string())?;
    Ok(Domain { role: source.role, roots, not_after: earliest_end(&source.bundle), verifier })
}

/// When the first certificate of a PEM bundle stops being valid.
fn earliest_end(pem: &[u8]) -> Option<SystemTime> {
    let ends = CertificateDer::pem_slice_iter(pem).filter_map(|certificate| {
        let certificate = certificate.ok()?;
        let (_, read) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        u64::try_from(read.validity().not_after.timestamp()).ok()
    });
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(ends.min()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strict_ids_are_read() {
        assert_eq!(
            parse_id("spiffe://Example.ORG/agent/Support").unwrap().as_str(),
            "spiffe://example.org/agent/Support"
        );
        let cases = [
            ("https://example.org/a", "not-spiffe"),
            ("SPIFFE://example.org/a", "not-spiffe"),
            ("spiffe:/example.org/a", "not-spiffe"),
            ("spiffe://example.org", "root-path"),
            ("spiffe://example.org/", "root-path"),
            ("spiffe://example.org/a/", "path"),
            ("spiffe://example.org//a", "path"),
            ("spiffe://example.org/a/../b", "path"),
            ("spiffe://example.org/./b", "path"),
            ("spiffe://example.org/a%2fb", "path"),
            ("spiffe://example.org/a?b", "path"),
            ("spiffe://example.org/a#b", "path"),
            ("spiffe://example.org/é", "path"),
            ("spiffe://example.org:443/a", "trust-domain"),
            ("spiffe://user@example.org/a", "trust-domain"),
            ("spiffe:///a", "trust-domain"),
        ];
        for (uri, reason) in cases {
            assert_eq!(parse_id(uri).unwrap_err().reason(), reason, "{uri}");
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(2048));
        assert_eq!(parse_id(&long).unwrap_err().reason(), "too-long");
    }
}
