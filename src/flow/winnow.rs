//! Winnowing: which grams of a text are kept, so that of any stretch of a certain length one is.
//!
//! Of each window of [`WINDOW_GRAMS`] neighbouring grams the smallest is kept, by an order of their own: a sum of their first
//! eight bytes with secret factors, which is made for many at once. So only those that are kept are hashed. A gram is the
//! smallest of some window when the largest of the smallest of all windows that it stands in is itself. All three are found
//! by doubling: the sum or the smallest of two neighbours, of four, of eight, of sixteen. Each step goes over many grams at
//! once and has no branch, since which of them are kept cannot be guessed.

use std::cell::Cell;

use wide::i16x8;

use super::text::{FlowKey, GRAM_BYTES, WINDOW_GRAMS};

/// The bytes of all grams of a window.
const WINDOW_BYTES: usize = GRAM_BYTES + WINDOW_GRAMS - 1;
/// Windows that are looked at together.
const BLOCK_WINDOWS: usize = 256;
const BLOCK_GRAMS: usize = BLOCK_WINDOWS + WINDOW_GRAMS - 1;
const BLOCK_BYTES: usize = BLOCK_GRAMS + GRAM_BYTES - 1;
/// So many bytes are gathered before they are looked at.
const HELD_BYTES: usize = 8 * BLOCK_BYTES;

/// Keeps of a text that comes in pieces the grams that winnowing selects. How it was cut makes no difference.
#[derive(Clone, Debug, Default)]
pub struct Winnower {
    /// Canonical text, from where the first window begins that was not looked at.
    held: Vec<u8>,
    /// Whether any window was looked at.
    begun: bool,
}

impl Winnower {
    /// Takes the next bytes of canonical text. What is selected may be added at once, or when it is asked for.
    pub fn push(&mut self, key: &FlowKey, canonical: &[u8], selected: &mut Vec<u32>) {
        self.held.extend_from_slice(canonical);
        if self.held.len() > HELD_BYTES {
            self.select(key, selected);
        }
    }

    /// Adds what is selected of all that came so far. What stands at the end may be added again with what comes next.
    pub fn select(&mut self, key: &FlowKey, selected: &mut Vec<u32>) {
        let windows = (self.held.len() + 1).saturating_sub(WINDOW_BYTES);
        for from in (0..windows).step_by(BLOCK_WINDOWS) {
            let rest = self.held.get(from..).unwrap_or_default();
            block(key, rest.get(..BLOCK_BYTES).unwrap_or(rest), selected);
        }
        self.held.drain(..windows);
        self.begun |= windows > 0;
    }

    /// Ends the text, and begins anew: a text too short for one window has its smallest gram selected.
    pub fn end(&mut self, key: &FlowKey, selected: &mut Vec<u32>) {
        self.select(key, selected);
        if !self.begun {
            let orders = orders(key, &self.held);
            let grams = self.held.array_windows().zip(orders).min_by_key(|(_, order)| *order);
            selected.extend(grams.map(|(gram, _)| key.gram(gram)));
        }
        self.held.clear();
        self.begun = false;
    }
}

// Eights of them are compared.
const _: () = assert!(BLOCK_GRAMS <= (BLOCK_BYTES + 1) / 8 * 8);

/// The orders of a block's grams after as many numbers as a window has earlier grams, and as many at the end.
type Lanes = [i16; WINDOW_GRAMS + BLOCK_GRAMS + 1];

/// The numbers by which the grams of up to a block are chosen. They have nothing of the hashes, so those that are chosen are
/// spread as evenly as all.
fn orders(key: &FlowKey, bytes: &[u8]) -> [i16; BLOCK_BYTES + 1] {
    let mut sums = [0_i16; BLOCK_BYTES + 1];
    sums.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum = i16::from(*byte));
    for (step, factor) in key.factors.into_iter().enumerate() {
        with_later(&mut sums, 1 << step, |one, two| one.wrapping_mul(factor).wrapping_add(two));
    }
    sums
}

/// Adds what all windows of a text select that is at least one window long, and at most a block.
fn block(key: &FlowKey, bytes: &[u8], selected: &mut Vec<u32>) {
    let count = bytes.len() + 1 - GRAM_BYTES;
    let orders = orders(key, bytes);
    // Invariant: what is no gram is smaller than all, so it is the smallest of whatever is no whole window.
    let mut lanes: Lanes = [i16::MIN; WINDOW_GRAMS + BLOCK_GRAMS + 1];
    let places = lanes.iter_mut().skip(WINDOW_GRAMS - 1);
    places.zip(orders.iter().take(count)).for_each(|(lane, order)| *lane = *order);
    // The smallest of what begins at each place, and then the largest of these: at the place of a gram now stands what is
    // known of the windows that have it, which begin as much earlier as the lanes do.
    (0..WINDOW_GRAMS.ilog2()).for_each(|step| with_later(&mut lanes, 1 << step, i16::min));
    (0..WINDOW_GRAMS.ilog2()).for_each(|step| with_later(&mut lanes, 1 << step, i16::max));
    for (at, (orders, least)) in (0..count).step_by(64).zip(orders.chunks(64).zip(lanes.chunks(64))) {
        let mut chosen = chosen(orders, least);
        if count - at < 64 {
            chosen &= (1 << (count - at)) - 1;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        selected.extend((0..chosen.count_ones()).map(|_| {
            let gram = rest.get(chosen.trailing_zeros() as usize..).and_then(<[u8]>::first_chunk);
            chosen &= chosen.wrapping_sub(1);
            gram.map(|gram| key.gram(gram)).unwrap_or_default()
        }));
    }
}

/// Puts in the place of each lane what it makes with the one that stands so much later.
#[inline]
fn with_later<T: Copy>(lanes: &mut [T], by: usize, make: impl Fn(T, T) -> T) {
    let lanes = Cell::from_mut(lanes).as_slice_of_cells();
    let later = lanes.get(by..).unwrap_or_default();
    lanes.iter().zip(later).for_each(|(one, two)| one.set(make(one.get(), two.get())));
}

/// Which of up to 64 grams are chosen, a bit for each.
#[inline]
fn chosen(orders: &[i16], least: &[i16]) -> u64 {
    let all = orders.as_chunks().0.iter().zip(least.as_chunks().0);
    let bits = all.map(|(order, least)| i16x8::new(*order).simd_eq(i16x8::new(*least)).to_bitmask());
    bits.rev().fold(0, |chosen, eight| chosen << 8 | u64::from(eight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::text::grams;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn of_every_window_one_gram_is_kept_however_the_text_was_cut(
            text in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), b'a'..=b'z'], 0..4000),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..8),
        ) {
            let key = FlowKey::new(&[3; 32]);
            let (mut winnower, mut whole) = (Winnower::default(), Vec::new());
            winnower.push(&key, &text, &mut whole);
            winnower.end(&key, &mut whole);
            let whole: BTreeSet<u32> = whole.into_iter().collect();
            let all: Vec<u32> = grams(&key, text.iter().copied()).collect();
            for window in all.windows(WINDOW_GRAMS) {
                prop_assert!(window.iter().any(|gram| whole.contains(gram)));
            }
            prop_assert!(all.is_empty() || !whole.is_empty());
            prop_assert!(whole.iter().all(|gram| all.contains(gram)));
            let mut at: Vec<_> = cuts.iter().map(|(at, asked)| (at.index(text.len() + 1), *asked)).collect();
            at.sort_unstable();
            // The same winnower again: nothing of the text before is left.
            let (mut cut, mut from) = (Vec::new(), 0);
            for (to, asked) in at.into_iter().chain([(text.len(), false)]) {
                winnower.push(&key, &text[from..to], &mut cut);
                if asked {
                    winnower.select(&key, &mut cut);
                }
                from = to;
            }
            winnower.end(&key, &mut cut);
            prop_assert_eq!(cut.into_iter().collect::<BTreeSet<u32>>(), whole);
        }
    }

    #[test]
    fn about_two_grams_of_a_window_and_one_are_kept() {
        let key = FlowKey::new(&[3; 32]);
        let mut state = 1_u64;
        let text: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                b'a' + (state >> 33) as u8 % 26
            })
            .collect();
        let (mut winnower, mut kept) = (Winnower::default(), Vec::new());
        winnower.push(&key, &text, &mut kept);
        winnower.end(&key, &mut kept);
        let expected = 2 * text.len() / (WINDOW_GRAMS + 1);
        assert!(kept.len().abs_diff(expected) < expected / 20, "{} of {expected}", kept.len());
    }
}
