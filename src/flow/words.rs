//! The words of a reply, and the grams of a record, most of them once: few are quicker to sort and to keep than many.

use super::canon::Canon;
use super::text::FlowKey;

/// The words of one reply that were there already, as far as there is room to know them.
#[derive(Default)]
pub struct Words {
    seen: Vec<u32>,
    /// The numbers of the words of the last text that may be cues of something spelled out.
    pub cues: Vec<u32>,
}

impl Words {
    /// Begins anew, for a text of about so many bytes.
    pub fn begin(&mut self, bytes: usize) {
        const BYTES_EACH: usize = 8;
        const SEEN_MAX: usize = 4096;
        none_seen(&mut self.seen, (bytes / BYTES_EACH).min(SEEN_MAX));
    }

    /// Adds the words of a text that are not known to have been there.
    pub fn add(&mut self, key: &FlowKey, canon: &Canon, words: &mut Vec<u32>) {
        const WORD_BYTES_MIN: u32 = 3;
        let mask = self.seen.len().wrapping_sub(1);
        let Words { seen, cues } = self;
        cues.clear();
        canon.word_hashes(key, |first, hashes| {
            // Whether a word is too short or was there cannot be guessed, so nothing hangs on it but where the next one goes.
            let (mut kept, mut len) = ([0; 64], 0);
            for (number, (bytes, word)) in (first..).zip(hashes) {
                if let Some(slot) = kept.get_mut(len % 64) {
                    *slot = *word;
                }
                if key.may_be_cue(*word) {
                    cues.push(number);
                }
                let before = seen.get_mut(*word as usize & mask).map(|seen| std::mem::replace(seen, *word));
                len += usize::from((before != Some(*word)) & (*bytes >= WORD_BYTES_MIN));
            }
            words.extend_from_slice(kept.get(..len).unwrap_or_default());
        });
    }
}

/// Makes about so many places, two at least. The place of a hash is its last bits, and each has a number whose last bits are
/// others: so no hash is there.
fn none_seen(seen: &mut Vec<u32>, places: usize) {
    seen.clear();
    seen.extend(1..=places.max(2).next_power_of_two() as u32);
}

/// The hashes of one list that were there already, as far as there is room to know them.
#[derive(Default)]
pub struct Seen(Vec<u32>);

impl Seen {
    /// Leaves out nearly all that is twice, and keeps the order. What is left out was there before, for certain.
    pub fn thin(&mut self, hashes: &mut Vec<u32>) {
        const SEEN_MAX: usize = 8192;
        let seen = &mut self.0;
        none_seen(seen, (hashes.len() * 2).min(SEEN_MAX));
        let mask = seen.len().wrapping_sub(1);
        hashes.retain(|hash| {
            let before = seen.get_mut(*hash as usize & mask).map(|seen| std::mem::replace(seen, *hash));
            before != Some(*hash)
        });
    }
}
