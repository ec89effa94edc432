//! TLS 1.3 for the listeners: agents, people and orchestrators prove who they are by X.509-SVIDs, and nothing is resumed.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::identify::svid::{Role, SvidError, Trust};

/// The one crypto provider of this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The gateway's own certificate, replaceable while connections live.
#[derive(Debug)]
pub struct Identity(ArcSwap<CertifiedKey>);

impl Identity {
    /// Reads a certificate chain and its key, both PEM, and checks that they belong together.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Identity, String> {
        Ok(Identity(ArcSwap::from_pointee(certified_key(chain, key)?)))
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> Option<SystemTime> {
        let key = self.0.load();
        let (_, leaf) = x509_parser::parse_x509_certificate(key.cert.first()?).ok()?;
        let seconds = u64::try_from(leaf.validity().not_after.timestamp()).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// Takes another's certificate for handshakes from now on.
    pub fn adopt(&self, other: &Identity) {
        self.0.store(other.0.load_full());
    }

    /// Replaces the certificate for handshakes from now on; on an error the old one stays.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), String> {
        self.0.store(Arc::new(certified_key(chain, key)?));
        Ok(())
    }
}

fn certified_key(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate is not valid PEM: {error}"))?;
    if chain.is_empty() {
        return Err("the certificate file holds no certificate".to_owned());
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key is not valid PEM: {error}"))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| format!("the certificate and the key do not go together: {error}"))
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Whether a client must prove who it is by a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is asked to; one that presents none is let in, and one that presents a wrong one is not.
    Asked,
    /// It must.
    Required,
}

/// The TLS configuration of a listener for one role. Built once: a reload replaces what `trust` and `identity` hold.
pub fn server_config(
    trust: Arc<ArcSwap<Trust>>,
    role: Role,
    identity: Arc<Identity>,
    proof: Proof,
) -> Result<Arc<ServerConfig>, String> {
    let provider = provider();
    let verifier = SvidVerifier { trust, role, proof, provider: provider.clone() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Invariant: every connection is a full handshake, so that trust taken away is felt at the next one.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Verifies clients by the trust that is in force at the time of the handshake.
#[derive(Debug)]
struct SvidVerifier {
    trust: Arc<ArcSwap<Trust>>,
    role: Role,
    proof: Proof,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for SvidVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.proof == Proof::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: the roots can change while a handshake runs, and a client has one identity anyway.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.trust.load().verify(self.role, end_entity, intermediates, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The stable reason of a failed handshake, and what the operator may read about it.
pub fn handshake_failure(error: &io::Error) -> (&'static str, String) {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let reason = match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            match other.0.downcast_ref::<SvidError>() {
                Some(svid) => return (svid.reason(), svid.to_string()),
                None => "certificate",
            }
        }
        Some(rustls::Error::NoCertificatesPresented) => "no-certificate",
        Some(rustls::Error::InvalidCertificate(_)) => "certificate",
        Some(rustls::Error::PeerIncompatible(_)) => "tls-incompatible",
        Some(rustls::Error::AlertReceived(_)) => "tls-alert",
        Some(_) => "tls",
        None => "disconnected",
    };
    (reason, error.to_string())
}
