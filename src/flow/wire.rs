//! How [`Learnt`] and [`Step`] are written to a journal: compact, versioned, and read back with every length checked.

use std::sync::Arc;

use super::history::Step;
use super::lineage::{Fragment, Learnt};
use crate::call::{Confidentiality, Integrity, RecordId};

/// The version of the form. A form of another version is not read.
const VERSION: u8 = 1;
/// Items that one list may have: more than one reply can bring.
const ITEMS_MAX: usize = 1 << 22;

/// What [`Learnt::encode`] gave without the record of the reply that it belongs to.
pub fn without_reply(encoded: &[u8]) -> &[u8] {
    const REPLY_END: usize = 1 + 16;
    encoded.get(REPLY_END..).unwrap_or_default()
}

impl Learnt {
    /// The bytes for a journal.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_bytes());
        out.push(VERSION);
        out.extend_from_slice(&self.reply.as_u128().to_le_bytes());
        text(&mut out, &self.upstream);
        text(&mut out, &self.tool);
        let integrity = match self.integrity {
            Integrity::Trusted => 0,
            Integrity::Mixed => 1,
            Integrity::Untrusted => 2,
        };
        out.extend([level(self.confidentiality), integrity, u8::from(self.unknown)]);
        count(&mut out, self.fragments.len());
        for fragment in &self.fragments {
            out.extend_from_slice(&fragment.number.to_le_bytes());
            out.push(level(fragment.confidentiality));
            longs(&mut out, &fragment.parties);
            words(&mut out, &fragment.grams);
            longs(&mut out, &fragment.tokens);
            longs(&mut out, &fragment.ids);
        }
        longs(&mut out, &self.known);
        longs(&mut out, &self.planted);
        words(&mut out, &self.words);
        longs(&mut out, &self.urls);
        out
    }

    /// How many bytes [`Learnt::encode`] gives: all of them are set aside at once.
    fn encoded_bytes(&self) -> usize {
        const HEAD_BYTES: usize = 1 + 16 + 3;
        let lists = |fragment: &Fragment| {
            (fragment.parties.len() + fragment.tokens.len() + fragment.ids.len()) * 8
                + fragment.grams.len() * 4
        };
        let fragments: usize = self.fragments.iter().map(|fragment| 5 + 4 * 4 + lists(fragment)).sum();
        let sets = (self.known.len() + self.planted.len() + self.urls.len()) * 8 + self.words.len() * 4;
        HEAD_BYTES + 4 + self.upstream.len() + 4 + self.tool.len() + 4 + fragments + 4 * 4 + sets
    }

    /// Reads what [`Learnt::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Learnt> {
        let mut from = Bytes(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let reply = RecordId::from_u128(u128::from_le_bytes(from.array()?));
        let (upstream, tool) = (from.text()?, from.text()?);
        let confidentiality = of_level(from.byte()?)?;
        let integrity = match from.byte()? {
            0 => Integrity::Trusted,
            1 => Integrity::Mixed,
            2 => Integrity::Untrusted,
            _ => return None,
        };
        let unknown = from.flag()?;
        let mut fragments = Vec::new();
        for _ in 0..from.count()? {
            fragments.push(Fragment {
                number: u32::from_le_bytes(from.array()?),
                confidentiality: of_level(from.byte()?)?,
                parties: from.longs()?,
                grams: from.words()?,
                tokens: from.longs()?,
                ids: from.longs()?,
            });
        }
        let (known, planted, words, urls) = (from.longs()?, from.longs()?, from.words()?, from.longs()?);
        from.0.is_empty().then_some(Learnt {
            reply,
            upstream,
            tool,
            confidentiality,
            integrity,
            fragments,
            known,
            planted,
            words,
            urls,
            unknown,
        })
    }
}

impl Step {
    /// The bytes for a journal.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Step::Sent { destinations, introduced, url_bytes, carried } => {
                out.push(0);
                longs(&mut out, destinations);
                longs(&mut out, introduced);
                out.extend_from_slice(&url_bytes.to_le_bytes());
                longs(&mut out, carried);
            }
            Step::Stopped { digest, destinations } => {
                out.push(1);
                out.extend_from_slice(&digest.to_le_bytes());
                longs(&mut out, destinations);
            }
            Step::Approved { digest } => {
                out.push(2);
                out.extend_from_slice(&digest.to_le_bytes());
            }
        }
        out
    }

    /// Reads what [`Step::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Step> {
        let mut from = Bytes(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let step = match from.byte()? {
            0 => Step::Sent {
                destinations: from.longs()?,
                introduced: from.longs()?,
                url_bytes: from.long()?,
                carried: from.longs()?,
            },
            1 => Step::Stopped { digest: from.long()?, destinations: from.longs()? },
            2 => Step::Approved { digest: from.long()? },
            _ => return None,
        };
        from.0.is_empty().then_some(step)
    }
}

fn level(confidentiality: Confidentiality) -> u8 {
    match confidentiality {
        Confidentiality::Public => 0,
        Confidentiality::Internal => 1,
        Confidentiality::Secret => 2,
    }
}

fn of_level(level: u8) -> Option<Confidentiality> {
    match level {
        0 => Some(Confidentiality::Public),
        1 => Some(Confidentiality::Internal),
        2 => Some(Confidentiality::Secret),
        _ => None,
    }
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn longs(out: &mut Vec<u8>, items: &[u64]) {
    count(out, items.len());
    let start = out.len();
    out.resize(start + items.len() * 8, 0);
    let (slots, _) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<8>();
    slots.iter_mut().zip(items).for_each(|(slot, item)| *slot = item.to_le_bytes());
}

fn words(out: &mut Vec<u8>, items: &[u32]) {
    count(out, items.len());
    let start = out.len();
    out.resize(start + items.len() * 4, 0);
    let (slots, _) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<4>();
    slots.iter_mut().zip(items).for_each(|(slot, item)| *slot = item.to_le_bytes());
}

/// What is left to read.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn long(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Option<usize> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        (count <= ITEMS_MAX).then_some(count)
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let count = self.count()?;
        std::str::from_utf8(self.take(count)?).ok().map(Arc::from)
    }

    /// The bytes are there before anything is set aside for them, so a length that lies costs nothing.
    fn longs(&mut self) -> Option<Vec<u64>> {
        let count = self.count()?;
        let bytes = self.take(count.checked_mul(8)?)?;
        Some(bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect())
    }

    fn words(&mut self) -> Option<Vec<u32>> {
        let count = self.count()?;
        let bytes = self.take(count.checked_mul(4)?)?;
        Some(bytes.as_chunks::<4>().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learnt() -> impl Strategy<Value = Learnt> {
        let longs = || prop::collection::vec(any::<u64>(), 0..5);
        let words = || prop::collection::vec(any::<u32>(), 0..5);
        let fragment = (any::<u32>(), 0_u8..3, longs(), words(), longs(), longs()).prop_map(
            |(number, level, parties, grams, tokens, ids)| Fragment {
                number,
                confidentiality: of_level(level).unwrap(),
                parties,
                grams,
                tokens,
                ids,
            },
        );
        let fragments = prop::collection::vec(fragment, 0..4);
        let lists = (longs(), longs(), words(), longs(), any::<bool>());
        (any::<u128>(), ".{0,8}", ".{0,8}", 0_u8..3, fragments, lists).prop_map(
            |(reply, upstream, tool, level, fragments, (known, planted, words, urls, unknown))| Learnt {
                reply: RecordId::from_u128(reply),
                upstream: Arc::from(upstream),
                tool: Arc::from(tool),
                confidentiality: of_level(level).unwrap(),
                integrity: Integrity::Mixed,
                fragments,
                known,
                planted,
                words,
                urls,
                unknown,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(learnt in learnt()) {
            let bytes = learnt.encode();
            prop_assert_eq!(bytes.len(), learnt.encoded_bytes());
            prop_assert_eq!(Learnt::decode(&bytes), Some(learnt));
            prop_assert_eq!(Learnt::decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn no_bytes_are_misread(learnt in learnt(), at in any::<prop::sample::Index>(), byte: u8, noise: Vec<u8>) {
            let _ = Learnt::decode(&noise);
            let _ = Step::decode(&noise);
            let mut bytes = learnt.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // Whatever is read is written as it was read.
            if let Some(read) = Learnt::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }

        #[test]
        fn steps_are_read_back(destinations: Vec<u64>, carried: Vec<u64>, url_bytes: u64, digest: u64) {
            for step in [
                Step::Sent { destinations: destinations.clone(), introduced: carried.clone(), url_bytes, carried },
                Step::Stopped { digest, destinations },
                Step::Approved { digest },
            ] {
                prop_assert_eq!(Step::decode(&step.encode()), Some(step));
            }
        }
    }
}
