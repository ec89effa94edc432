//! TLS towards upstreams: by the system's roots, by a bundle, or by the exact SPIFFE ID of the upstream.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::call::AgentId;
use crate::identify::svid::{Leaf, SvidError, parse_id, read_roots};

/// A client configuration: `bundle` (PEM) instead of the system's roots, `spiffe_id` instead of the DNS name.
pub fn client_config(
    bundle: Option<&[u8]>,
    spiffe_id: Option<&str>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = match (bundle, spiffe_id) {
        (None, Some(_)) => return Err("a SPIFFE ID needs the bundle of its trust domain".to_owned()),
        (Some(bundle), Some(id)) => {
            let expected = Expected::Id(parse_id(id).map_err(|error| format!("{id}: {error}"))?);
            let verifier = SpiffeServer { roots: read_roots(bundle)?, expected, provider };
            let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
            let mut config = builder.with_no_client_auth();
            config.resumption = Resumption::disabled();
            config
        }
        (Some(bundle), None) => builder.with_root_certificates(read_roots(bundle)?).with_no_client_auth(),
        (None, None) => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Which workload a server must be.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Exactly this one.
    Id(AgentId),
    /// Any one of this trust domain, by its normalised name.
    Domain(String),
}

/// A client configuration that presents an X.509-SVID and accepts a server's by `roots`, with TLS 1.3 alone.
///
/// Fails when the key does not belong to the certificate, or cannot be used.
pub fn mutual_config(
    roots: RootCertStore,
    expected: Expected,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = SpiffeServer { roots, expected, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)
        .map_err(|error| error.to_string())?;
    // A resumed session would rest on a certificate that has been replaced since.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The certificates of the operating system's store as they are now: they change without any file that configuration
/// names.
pub fn system_certificates() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// The operating system's roots. A system's store may hold relics that cannot be read, so those alone are passed over.
fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!("this system has no root certificates: {}", errors.join("; ")));
    }
    Ok(roots)
}

/// Verifies that a server is the workload that was expected, or one of the trust domain that was.
///
/// Invariant: the chain is verified by itself and never concluded from a complaint about the name.
#[derive(Debug)]
struct SpiffeServer {
    roots: RootCertStore,
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SpiffeServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let refuse =
            |error: SvidError| rustls::Error::from(CertificateError::Other(OtherError(Arc::new(error))));
        let leaf = Leaf::read(end_entity).map_err(refuse)?;
        let is_expected = match &self.expected {
            Expected::Id(id) => leaf.id == *id,
            Expected::Domain(domain) => leaf.id.trust_domain() == domain,
        };
        if !is_expected {
            return Err(refuse(SvidError::UnexpectedId(leaf.id.to_string())));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
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
