//! Held calls and the states that agents carry, under a key of this gateway: AES-256-GCM [NIST SP 800-38D] with a random
//! nonce, bound to what they are for.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

use crate::secret::ring::{KeyError, Purpose, Ring, Slot};

/// The first byte of what is sealed: the form of the rest.
const FORM: u8 = 1;

/// Seals and opens.
pub struct Sealer {
    current: RandomizedNonceKey,
    previous: Option<RandomizedNonceKey>,
}

impl Sealer {
    /// The keys of a ring for this purpose; the current one is made when there is none.
    pub fn of(ring: &Ring) -> Result<Sealer, KeyError> {
        let key = |bytes: &[u8; 32]| {
            let unusable = |_| KeyError::Unusable("the key of held calls cannot be used".to_owned());
            RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(unusable)
        };
        let current = key(&*ring.current_or_new(Purpose::Holds)?)?;
        let previous = ring.key(Purpose::Holds, Slot::Previous)?;
        Ok(Sealer { current, previous: previous.map(|bytes| key(&bytes)).transpose()? })
    }

    /// Seals a text for a purpose; only the same purpose opens it.
    pub fn seal(&self, purpose: &str, text: &[u8]) -> Option<Vec<u8>> {
        let mut body = text.to_vec();
        let nonce = self.current.seal_in_place_append_tag(Aad::from(purpose), &mut body).ok()?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(FORM);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut body);
        Some(sealed)
    }

    /// Opens what was sealed for this purpose; `None` when it was not, or was changed.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (&FORM, rest) = sealed.split_first()? else { return None };
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let open = |key: &RandomizedNonceKey| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut body = body.to_vec();
            let length = key.open_in_place(nonce, Aad::from(purpose), &mut body).ok()?.len();
            body.truncate(length);
            Some(body)
        };
        open(&self.current).or_else(|| open(self.previous.as_ref()?))
    }
}
