//! The provider's keys [RFC 7517], and for which algorithms each may be used. That is said by the key alone, and never by
//! a token: a public key is no secret of an HMAC.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Keys of one provider.
const KEYS_MAX: usize = 64;
/// RSA keys, in bits: shorter ones prove nothing, and longer ones cost much.
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The provider's keys.
pub(super) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads a set of keys. Those that sign nothing here (secrets, keys for encryption, curves that are not spoken) are
    /// passed over.
    pub(super) fn read(json: &[u8]) -> Result<Keys, String> {
        let set: Set = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("more than {KEYS_MAX} keys"));
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err("no key that signs tokens".to_owned());
        }
        Ok(Keys(keys))
    }

    /// The key of this id for this algorithm; without an id, the only one for it.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fit = self.0.iter().filter(|key| key.algorithms.contains(&algorithm));
        match id {
            Some(id) => fit.find(|key| key.id.as_deref() == Some(id)).map(|key| key.key.clone()),
            None => match (fit.next(), fit.next()) {
                (Some(only), None) => Some(only.key.clone()),
                _ => None,
            },
        }
    }
}

fn key(json: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(json).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let family: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if is_sound(&rsa.n) => RSA,
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    let algorithms = match jwk.common.key_algorithm {
        None => family.to_vec(),
        Some(said) => {
            let said: Algorithm = said.to_string().parse().ok()?;
            family.iter().copied().filter(|algorithm| *algorithm == said).collect()
        }
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (!algorithms.is_empty()).then_some(Key { id: jwk.common.key_id, algorithms, key })
}

/// Whether a modulus is as long as it must be, and not longer than it may.
fn is_sound(modulus: &str) -> bool {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(modulus) else { return false };
    let bits = bytes.iter().skip_while(|byte| **byte == 0).count() * 8;
    (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_itself_what_it_is_for() {
        let modulus = URL_SAFE_NO_PAD.encode([0xff; 256]);
        let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
        let set = serde_json::json!({"keys": [
            {"kty": "RSA", "kid": "any", "n": modulus, "e": "AQAB"},
            {"kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig", "n": modulus, "e": "AQAB"},
            {"kty": "RSA", "kid": "sealing", "use": "enc", "n": modulus, "e": "AQAB"},
            {"kty": "RSA", "kid": "short", "n": short, "e": "AQAB"},
            {"kty": "RSA", "kid": "confused", "alg": "HS256", "n": modulus, "e": "AQAB"},
            {"kty": "oct", "kid": "secret", "k": "AAAA"},
            {"kty": "what", "kid": "else"},
        ]});
        let keys = Keys::read(set.to_string().as_bytes()).unwrap();
        let found = |id, algorithm| keys.find(Some(id), algorithm).is_some();
        assert!(found("any", Algorithm::RS256) && found("any", Algorithm::PS512));
        assert!(found("one", Algorithm::RS256) && !found("one", Algorithm::PS256));
        for id in ["any", "one", "secret", "confused"] {
            assert!(!found(id, Algorithm::HS256) && !found(id, Algorithm::ES256), "{id}");
        }
        for id in ["sealing", "short", "secret", "confused", "else"] {
            assert!(!found(id, Algorithm::RS256), "{id}");
        }
        // Two keys would do for a token without an id, so none does; of one algorithm there is only one.
        assert!(keys.find(None, Algorithm::RS256).is_none() && keys.find(None, Algorithm::PS256).is_some());
        assert!(Keys::read(b"{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}]}").is_err());
    }
}
