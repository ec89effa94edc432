//! Ed25519: the key that signs the audit's checkpoints, and checking what it signed [RFC 8032].

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ring::{KeyError, fingerprint};

/// Signs in the gateway's name.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// The key that checks a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl Signer {
    /// The signer of a seed of 32 bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Signer, KeyError> {
        let unusable = || KeyError::Unusable("an Ed25519 seed was not accepted".to_owned());
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| unusable())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| unusable())?;
        Ok(Signer { pair, public: PublicKey(public) })
    }

    /// The key that checks what this one signed.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The signature of a text, in base64.
    pub fn sign(&self, text: &str) -> String {
        STANDARD.encode(self.pair.sign(text.as_bytes()))
    }
}

impl PublicKey {
    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key from its base64.
    pub fn parse(text: &str) -> Option<PublicKey> {
        STANDARD.decode(text).ok()?.try_into().ok().map(PublicKey)
    }

    /// The key in base64.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }

    /// How records and people name it: 32 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0)
    }

    /// Whether a signature in base64 is this key's over a text.
    pub fn signed(&self, text: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, self.0).verify(text.as_bytes(), &signature).is_ok()
    }
}
