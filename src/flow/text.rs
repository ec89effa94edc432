//! Text as flow control compares it: one canonical form, its pieces, and the keyed hashes of both.
//!
//! What was read is never kept, only hashes of it under a key of the gateway's own, so two texts can be compared by who
//! has the key and read back by nobody. The canonical form has letters and digits in lower case and nothing else, so
//! that case, punctuation, white space, zero-width characters, look-alikes and diacritics make no difference.
//! Runs of [`GRAM_BYTES`] of it are hashed. Of what is read the smallest hash in each window of [`WINDOW_GRAMS`] is
//! kept (winnowing, [Schleimer, Wilkerson, Aiken 2003]): a run of `GRAM_BYTES + WINDOW_GRAMS - 1` bytes that two texts
//! share always has one of them. Of what leaves every gram is looked up.

use aws_lc_rs::hmac;

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
}

impl FlowKey {
    /// A key from 32 secret bytes.
    pub fn new(bytes: &[u8; 32]) -> FlowKey {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let word = |counter: u64| {
            let block = hmac::sign(&secret, &counter.to_le_bytes());
            block.as_ref().first_chunk().map(|word| u64::from_le_bytes(*word)).unwrap_or_default()
        };
        FlowKey { grams: [word(0), word(1)], mix: [word(2), word(3)] }
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

    /// The same for a text of less than 16 bytes, with whatever stands after it there.
    #[inline]
    pub(super) fn hash_within(&self, kind: Kind, text: &[u8; 16], len: usize) -> u64 {
        let rest = u128::from_le_bytes(*text) & ((1 << (len * 8)) - 1);
        fold(self.fold_in(self.begin(kind, len), rest), self.mix[0])
    }

    #[inline]
    fn begin(&self, kind: Kind, len: usize) -> u64 {
        self.mix[0] ^ (kind as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ len as u64
    }

    #[inline]
    fn fold_in(&self, hash: u64, block: u128) -> u64 {
        fold(hash ^ block as u64, self.mix[1] ^ (block >> 64) as u64)
    }

    /// The hash of one gram, its first byte the lowest.
    #[inline]
    fn gram(&self, gram: u128) -> u32 {
        let [one, two] = self.grams;
        (fold(gram as u64 ^ one, (gram >> 64) as u64 ^ two) >> 16) as u32
    }
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
        each([key.gram(plain), key.gram(plain.swap_bytes()), key.gram(turned)]);
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

    /// Stands where it would after each byte of a text that ends here, of which it has seen the first
    /// [`GRAM_BYTES`] - 1.
    fn end(&mut self, text: &[u8]) {
        if let Some(last) = text.last_chunk::<GRAM_BYTES>() {
            self.last = u128::from_le_bytes(*last);
            self.count = self.count.max(GRAM_BYTES);
        }
    }

    #[inline]
    fn push(&mut self, key: &FlowKey, byte: u8) -> Option<u32> {
        self.shift(byte);
        (self.count >= GRAM_BYTES).then(|| key.gram(self.last))
    }
}

const _: () = assert!(GRAM_BYTES == size_of::<u128>());

/// Keeps of a text that comes in pieces the grams that winnowing selects. How it was cut makes no difference.
///
/// Grams are taken in blocks as long as a window, so that each window is the end of one block and the beginning of the
/// next, and its smallest gram is the smaller of two that are known. Each step goes over a whole block, without a
/// branch that hangs on what the grams are: which of them are selected cannot be guessed.
#[derive(Clone)]
pub struct Winnower {
    rolling: Rolling,
    /// How many grams there were.
    count: usize,
    /// This block.
    block: [u32; WINDOW_GRAMS],
    /// The smallest of the last block from each place on to its end; nothing is left of it at the last.
    before: [u32; WINDOW_GRAMS + 1],
    /// What was selected last; [`NO_GRAM`] at first.
    selected: u64,
}

/// The bytes of all grams of a block.
const BLOCK_BYTES: usize = GRAM_BYTES + WINDOW_GRAMS - 1;

/// What was selected and is not given yet.
struct New {
    grams: [u32; New::MOST],
    len: usize,
    /// What was selected last.
    last: u64,
}

impl New {
    const MOST: usize = 64;

    fn after(last: u64) -> New {
        New { grams: [0; New::MOST], len: 0, last }
    }

    /// Adds the smallest gram of a window, unless it was that of the window before.
    #[inline]
    fn add(&mut self, smallest: u32) {
        if let Some(slot) = self.grams.get_mut(self.len % New::MOST) {
            *slot = smallest;
        }
        self.len += usize::from(self.last != u64::from(smallest));
        self.last = u64::from(smallest);
    }

    fn flush(&mut self, selected: &mut Vec<u32>) {
        selected.extend_from_slice(self.grams.get(..self.len).unwrap_or_default());
        self.len = 0;
    }
}

/// No hash of a gram is this.
const NO_GRAM: u64 = u64::MAX;

impl Default for Winnower {
    fn default() -> Winnower {
        let (block, before) = ([u32::MAX; WINDOW_GRAMS], [u32::MAX; WINDOW_GRAMS + 1]);
        Winnower { rolling: Rolling::default(), count: 0, block, before, selected: NO_GRAM }
    }
}

impl Winnower {
    /// Takes the next bytes of canonical text, and adds what is selected.
    pub fn push(&mut self, key: &FlowKey, canonical: &[u8], selected: &mut Vec<u32>) {
        // About two of a window are selected.
        selected.reserve(canonical.len() * 2 / WINDOW_GRAMS + 1);
        // The first gram of a text is whole with its last byte.
        let short = (GRAM_BYTES - 1).saturating_sub(self.rolling.count).min(canonical.len());
        let (first, mut rest) = canonical.split_at_checked(short).unwrap_or_default();
        first.iter().for_each(|byte| self.rolling.shift(*byte));
        // Grams that begin before these bytes are put together byte by byte, all others are read where they lie.
        let mut whole = canonical;
        let mut before = GRAM_BYTES - 1 - short.min(GRAM_BYTES - 1);
        let mut new = New::after(self.selected);
        while !rest.is_empty() {
            let from = self.count % WINDOW_GRAMS;
            let (now, later) = rest.split_at_checked(WINDOW_GRAMS - from).unwrap_or((rest, &[]));
            if before == 0
                && now.len() == WINDOW_GRAMS
                && let Some(bytes) = whole.first_chunk::<BLOCK_BYTES>()
            {
                for (slot, gram) in self.block.iter_mut().zip(bytes.windows(GRAM_BYTES)) {
                    *slot = key.gram(whole_gram(gram));
                }
                whole = whole.get(WINDOW_GRAMS..).unwrap_or_default();
            } else {
                let mut slots = self.block.iter_mut().skip(from);
                let begun = before.min(now.len());
                for (byte, slot) in now.iter().take(begun).zip(slots.by_ref()) {
                    self.rolling.shift(*byte);
                    *slot = key.gram(self.rolling.last);
                }
                before -= begun;
                let read = now.len() - begun;
                for (gram, slot) in whole.windows(GRAM_BYTES).take(read).zip(slots) {
                    *slot = key.gram(whole_gram(gram));
                }
                whole = whole.get(read..).unwrap_or_default();
            }
            self.select(from, from + now.len(), &mut new);
            if new.len > New::MOST - WINDOW_GRAMS {
                new.flush(selected);
            }
            rest = later;
        }
        new.flush(selected);
        self.selected = new.last;
        self.rolling.end(canonical);
    }

    /// Adds what the windows select whose last grams are those of this block from one place to another.
    fn select(&mut self, from: usize, to: usize, new: &mut New) {
        let mut least = u32::MAX;
        // In the first block only the last place ends a window.
        let first = if self.count < WINDOW_GRAMS { from.max(WINDOW_GRAMS - 1) } else { from };
        self.count += to - from;
        let places = self.block.iter().zip(self.before.iter().skip(1));
        if first == 0 && to == WINDOW_GRAMS {
            for (gram, before) in places {
                least = least.min(*gram);
                new.add(least.min(*before));
            }
        } else {
            for (at, (gram, before)) in places.enumerate().take(to) {
                least = least.min(*gram);
                if at >= first {
                    new.add(least.min(*before));
                }
            }
        }
        if to == WINDOW_GRAMS {
            let mut least = u32::MAX;
            for (before, gram) in self.before.iter_mut().zip(&self.block).rev() {
                least = least.min(*gram);
                *before = least;
            }
        }
    }

    /// Ends the text: a text too short for one window has its smallest gram selected.
    pub fn finish(self, selected: &mut Vec<u32>) {
        if self.count < WINDOW_GRAMS {
            selected.extend(self.block.iter().take(self.count).min());
        }
    }
}
