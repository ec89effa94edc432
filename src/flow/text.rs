//! Text as flow control compares it: one canonical form, its pieces, and the keyed hashes of both.
//!
//! What was read is never kept, only hashes of it under a key of the gateway's own, so two texts can be compared by who
//! has the key and read back by nobody. The canonical form has letters and digits in lower case and nothing else, so
//! that case, punctuation, white space, zero-width characters, look-alikes and diacritics make no difference.
//! Runs of [`GRAM_BYTES`] of it are hashed. Of what is read the smallest hash in each window of [`WINDOW_GRAMS`] is
//! kept (winnowing, [Schleimer, Wilkerson, Aiken 2003]): a run of `GRAM_BYTES + WINDOW_GRAMS - 1` bytes that two texts
//! share always has one of them. Of what leaves every gram is looked up.

use aws_lc_rs::hmac;

use super::spelled::CUES;

/// The length of a gram, in bytes of canonical text.
pub const GRAM_BYTES: usize = 16;
/// Of how many neighbouring grams one is kept.
pub const WINDOW_GRAMS: usize = 16;

/// The key under which everything that was read is hashed. Two gateways, and two keys, have no hash in common.
///
/// The hashes are keyed multiplications, which are quick and spread well. They are no message authentication: what
/// keeps them from being read backwards is that neither the key nor a hash is ever told to anybody.
#[derive(Clone)]
pub struct FlowKey {
    grams: [u64; 2],
    mix: [u64; 2],
    /// By what the first bytes of a gram are multiplied for the order in which grams are chosen; all are odd.
    pub(super) factors: [i16; 3],
    /// A bit for each value of the hashes of [`CUES`], by their last bits.
    cues: [u64; 16],
}

impl FlowKey {
    /// A key from 32 secret bytes.
    pub fn new(bytes: &[u8; 32]) -> FlowKey {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let word = |counter: u64| {
            let block = hmac::sign(&secret, &counter.to_le_bytes());
            block.as_ref().first_chunk().map(|word| u64::from_le_bytes(*word)).unwrap_or_default()
        };
        let factors = [0, 16, 32].map(|shift| (word(4) >> shift) as i16 | 1);
        let mut key = FlowKey { grams: [word(0), word(1)], mix: [word(2), word(3)], factors, cues: [0; 16] };
        for cue in CUES {
            let hash = key.hash(Kind::Word, cue.as_bytes()) as u32;
            if let Some(bits) = key.cues.get_mut((hash >> 6) as usize % 16) {
                *bits |= 1 << (hash % 64);
            }
        }
        key
    }

    /// Whether the hash of a word may be that of one of [`CUES`]. `false` is certain.
    #[inline]
    pub(super) fn may_be_cue(&self, word: u32) -> bool {
        self.cues.get((word >> 6) as usize % 16).is_some_and(|bits| bits >> (word % 64) & 1 == 1)
    }

    /// The hash of a short text. Texts of different kinds never meet.
    pub fn hash(&self, kind: Kind, bytes: &[u8]) -> u64 {
        let mut hash = self.begin(kind, bytes.len());
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            hash = self.fold_in(hash, u128::from_le_bytes(*block));
        }
        let rest = rest.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte));
        fold(self.fold_in(hash, rest), self.mix[0])
    }

    /// The same for a text of less than 16 bytes, with whatever stands after it there; `None` for a longer one.
    #[inline]
    pub(super) fn hash_within(&self, kind: Kind, text: &[u8; 16], len: usize) -> Option<u64> {
        let rest = u128::from_le_bytes(*text) & FIRST_BYTES.get(len)?;
        Some(fold(self.fold_in(self.begin(kind, len), rest), self.mix[0]))
    }

    #[inline]
    fn begin(&self, kind: Kind, len: usize) -> u64 {
        self.mix[0] ^ (kind as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ len as u64
    }

    #[inline]
    fn fold_in(&self, hash: u64, block: u128) -> u64 {
        fold(hash ^ block as u64, self.mix[1] ^ (block >> 64) as u64)
    }

    /// The hash of one gram, as it lies in a text.
    #[inline]
    pub(super) fn gram(&self, gram: &[u8; GRAM_BYTES]) -> u32 {
        self.gram_of(u128::from_le_bytes(*gram))
    }

    /// The same, the first byte the lowest.
    #[inline]
    fn gram_of(&self, gram: u128) -> u32 {
        let [one, two] = self.grams;
        (fold(gram as u64 ^ one, (gram >> 64) as u64 ^ two) >> 16) as u32
    }
}

/// As many first bytes as the place says.
static FIRST_BYTES: [u128; 16] = first_bytes();

#[expect(clippy::indexing_slicing, reason = "it is done when this is compiled")]
const fn first_bytes() -> [u128; 16] {
    let (mut all, mut count) = ([0; 16], 0);
    while count < all.len() {
        all[count] = (1 << (count * 8)) - 1;
        count += 1;
    }
    all
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// What a hash is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rare token, in canonical form.
    Token,
    /// A word, in canonical form.
    Word,
    /// What an object can be referred to by, in canonical form.
    Reference,
    /// A mail address, in lower case.
    Mail,
    /// A host: its registrable domain.
    Host,
    /// An account, a user, a channel, a path: any other name, in canonical form.
    Name,
    /// A whole URL, without its scheme.
    Url,
    /// Anything that is compared whole, such as a call.
    Whole,
}

/// The hash of every gram of a canonical text, in order.
pub fn grams<'k>(
    key: &'k FlowKey,
    canonical: impl IntoIterator<Item = u8> + 'k,
) -> impl Iterator<Item = u32> + 'k {
    let mut rolling = Rolling::default();
    canonical.into_iter().filter_map(move |byte| rolling.push(key, byte))
}

/// Calls back with the hash of every gram of a canonical text, and with those of the same gram reversed and turned by
/// rot13: one pass for the three ways in which letters hide without an encoding. `turned` is room for the last.
#[inline]
pub fn grams_three_ways(
    key: &FlowKey,
    canonical: &[u8],
    turned: &mut Vec<u8>,
    mut each: impl FnMut([u32; 3]),
) {
    turned.clear();
    turned.extend(canonical.iter().copied().map(rot13));
    for (plain, turned) in canonical.windows(GRAM_BYTES).zip(turned.windows(GRAM_BYTES)) {
        let (plain, turned) = (whole_gram(plain), whole_gram(turned));
        each([key.gram_of(plain), key.gram_of(plain.swap_bytes()), key.gram_of(turned)]);
    }
}

/// A canonical byte turned by thirteen letters; digits stay.
#[inline]
pub fn rot13(byte: u8) -> u8 {
    // Without a branch, so that many are turned at once.
    let (first, second) = (byte.wrapping_sub(b'a') < 13, byte.wrapping_sub(b'n') < 13);
    byte.wrapping_add(13 * u8::from(first)).wrapping_sub(13 * u8::from(second))
}

/// A gram as it lies in a text, its first byte the lowest.
#[inline]
fn whole_gram(bytes: &[u8]) -> u128 {
    bytes.first_chunk().map(|gram| u128::from_le_bytes(*gram)).unwrap_or_default()
}

/// The last [`GRAM_BYTES`] bytes, the newest highest.
#[derive(Clone, Default)]
struct Rolling {
    last: u128,
    count: usize,
}

impl Rolling {
    #[inline]
    fn shift(&mut self, byte: u8) {
        self.last = self.last >> 8 | u128::from(byte) << 120;
        self.count += 1;
    }

    #[inline]
    fn push(&mut self, key: &FlowKey, byte: u8) -> Option<u32> {
        self.shift(byte);
        (self.count >= GRAM_BYTES).then(|| key.gram_of(self.last))
    }
}

const _: () = assert!(GRAM_BYTES == size_of::<u128>());
