//! Signatures of webhooks: HMAC-SHA256 (`v1`) and Ed25519 (`v1a`) [Standard Webhooks 1.0.0, "Signature scheme"].

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::call::RecordId;

/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 24;
/// The longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 64;
/// Keys that one webhook may have, each of which signs.
pub const KEYS_MAX: usize = 4;
/// The seed of an Ed25519 key, in bytes [RFC 8032, 5.1.5].
const SEED_BYTES: usize = 32;

/// What signs. It has neither `Debug` nor `Clone`.
pub enum Key {
    /// Known to the receiver too.
    Shared(Box<hmac::Key>),
    /// The receiver knows its public half.
    Ed25519(Box<Ed25519KeyPair>),
}

impl Key {
    /// Reads shared secrets, one a line: `whsec_` and 24 to 64 bytes in base64.
    pub fn shared(text: &str) -> Result<Vec<Key>, String> {
        lines(text, "whsec_", "whsec_ and base64", |bytes| {
            let fits = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len());
            let key = fits.then(|| Key::Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))));
            key.ok_or_else(|| format!("a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"))
        })
    }

    /// Reads Ed25519 private keys: PEM (PKCS #8), or one a line, `whsk_` and the seed in base64, alone or with the public
    /// key after it.
    pub fn ed25519(text: &str) -> Result<Vec<Key>, String> {
        let unusable = |error: &dyn std::fmt::Display| format!("is no Ed25519 private key: {error}");
        if text.contains("-----BEGIN") {
            let keys = PrivatePkcs8KeyDer::pem_slice_iter(text.as_bytes()).map(|der| {
                let der = der.map_err(|error| unusable(&error))?;
                let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der());
                pair.map(|pair| Key::Ed25519(Box::new(pair))).map_err(|error| unusable(&error))
            });
            return counted(keys.collect::<Result<Vec<Key>, String>>()?);
        }
        lines(text, "whsk_", "a PEM file, or whsk_ and base64", |bytes| {
            let (seed, public) = bytes.split_at_checked(SEED_BYTES).ok_or("a key has 32 or 64 bytes")?;
            let pair = match public {
                [] => Ed25519KeyPair::from_seed_unchecked(seed),
                public => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            };
            pair.map(|pair| Key::Ed25519(Box::new(pair))).map_err(|error| unusable(&error))
        })
    }

    /// What tells this key from another one, and does not tell the key.
    pub fn fingerprint(&self) -> Vec<u8> {
        match self {
            Key::Shared(key) => hmac::sign(key, b"holdpoint webhook key").as_ref().to_vec(),
            Key::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn signature(&self, text: &[u8]) -> String {
        match self {
            Key::Shared(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, text))),
            Key::Ed25519(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(text))),
        }
    }
}

/// The value of `webhook-signature`: a signature of every key, with spaces between them.
pub fn signatures(keys: &[Key], id: RecordId, seconds: u64, body: &[u8]) -> String {
    let text = [format!("{id}.{seconds}.").as_bytes(), body].concat();
    let all: Vec<String> = keys.iter().map(|key| key.signature(&text)).collect();
    all.join(" ")
}

/// Reads a key from each line that is not empty. What is wrong is told without what is there.
fn lines(
    text: &str,
    prefix: &str,
    expected: &str,
    read: impl Fn(&[u8]) -> Result<Key, String>,
) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |problem: &str| format!("line {}: {problem}", at + 1);
        let key = line.trim().strip_prefix(prefix).and_then(|base64| STANDARD.decode(base64).ok());
        let key = key.map(Zeroizing::new).ok_or_else(|| wrong(&format!("must be {expected}")))?;
        keys.push(read(&key).map_err(|problem| wrong(&problem))?);
    }
    counted(keys)
}

fn counted(keys: Vec<Key>) -> Result<Vec<Key>, String> {
    match keys.len() {
        0 => Err("has no key".to_owned()),
        1..=KEYS_MAX => Ok(keys),
        _ => Err(format!("has more than {KEYS_MAX} keys")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let keys = Key::shared("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let [key] = keys.as_slice() else { panic!("one key") };
        let text = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
        assert_eq!(key.signature(text), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_key_that_cannot_be_used_is_refused_and_never_repeated() {
        let secret = "whsec_dG9vIHNob3J0";
        let refused = Key::shared(secret).err().unwrap();
        assert_eq!(refused, "line 1: a secret has 24 to 64 bytes");
        assert_eq!(Key::shared("\n").err().unwrap(), "has no key");
        let refused = Key::shared("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").err().unwrap();
        assert_eq!(refused, "line 1: must be whsec_ and base64");
        assert_eq!(Key::ed25519("whsk_AAAA").err().unwrap(), "line 1: a key has 32 or 64 bytes");
    }

    #[test]
    fn every_key_signs_while_one_is_replaced() {
        let seed = STANDARD.encode([7; 32]);
        let mut keys = Key::ed25519(&format!("whsk_{seed}")).unwrap();
        keys.extend(Key::shared(&format!("whsec_{seed}\nwhsec_{}\n", STANDARD.encode([8; 32]))).unwrap());
        let id = RecordId::new();
        let header = signatures(&keys, id, 1_614_265_330, b"{}");
        let parts: Vec<&str> = header.split(' ').collect();
        let [one, two, three] = parts.as_slice() else { panic!("{header}") };
        assert!(two.starts_with("v1,") && three.starts_with("v1,") && two != three, "{header}");
        let signature = STANDARD.decode(one.strip_prefix("v1a,").unwrap()).unwrap();
        let Some(Key::Ed25519(pair)) = keys.first() else { panic!("an Ed25519 key comes first") };
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ED25519,
            pair.public_key().as_ref(),
        );
        public.verify(format!("{id}.1614265330.{{}}").as_bytes(), &signature).unwrap();
    }
}
