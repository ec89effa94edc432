//! Secrets are a type without `Debug` or `Serialize`, erased when dropped.

pub mod ring;
pub mod signer;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// A secret text. It leaves this type only through [`Secret::expose`].
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text that must never be written or logged.
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The text, for the one place that must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The key under which destinations and credentials get their pseudonyms in records.
pub struct PseudonymKey(hmac::Key);

impl PseudonymKey {
    /// A key of 32 bytes.
    pub fn new(bytes: &[u8; 32]) -> PseudonymKey {
        PseudonymKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The first 16 bytes of HMAC-SHA-256 in hexadecimal: equal for equal texts, and nothing else is told.
    pub fn pseudonym(&self, text: &[u8]) -> String {
        let tag = hmac::sign(&self.0, text);
        crate::call::hex(tag.as_ref().get(..16).unwrap_or_default())
    }
}
