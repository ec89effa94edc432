//! An index of hashes, each with the records it stands in: compact, merged as it grows, and quick to say no.

use super::sorted::places_of;

/// The number of a record within one memory.
pub type RecordNumber = u16;

/// A hash and a record that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// That a hash stands in a record.
    #[inline]
    pub fn new(hash: u32, record: RecordNumber) -> Entry {
        Entry(u64::from(hash) << 16 | u64::from(record))
    }

    /// The hash.
    #[inline]
    pub fn hash(self) -> u32 {
        (self.0 >> 16) as u32
    }

    #[inline]
    fn record(self) -> RecordNumber {
        self.0 as RecordNumber
    }
}

/// About so many entries are looked through once the place of a hash is known.
const BUCKET: usize = 64;
/// So many of a hash's first bits say at least where it stands: of those that are left three bytes are kept.
const PLACE_BITS: u32 = 8;
/// So many entries wait before they have a place.
const NEWEST_MAX: usize = 256;
/// Bits of the filter for each entry, at least: of the hashes that are not here one or two in a hundred pass it.
const FILTER_BITS: usize = 10;

/// Grams and the records that they stand in. Runs are merged as they grow, so that there are few of them.
#[derive(Clone, Debug, Default)]
pub struct Index {
    runs: Vec<Run>,
    /// What is newest, and the record of each.
    newest: (Vec<u32>, Vec<RecordNumber>),
    /// Three bits for each hash, all in one word.
    filter: Vec<u64>,
    count: usize,
}

/// Says of most hashes that are not in an index that they are not.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'i>(&'i [u64]);

impl Filter<'_> {
    /// Whether nothing is in the index.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether a hash may be there. `false` is certain.
    #[inline]
    pub fn may_have(self, hash: u32) -> bool {
        let bits = filter_bits(hash);
        self.0.get(filter_word(hash, self.0.len())).is_some_and(|word| word & bits == bits)
    }
}

/// The word of a filter for a hash, by its first bits.
#[inline]
fn filter_word(hash: u32, words: usize) -> usize {
    ((u64::from(hash) * words as u64) >> 32) as usize
}

/// Entries whose place is the first bits of their hash; at one place they stand in any order.
#[derive(Clone, Debug)]
struct Run {
    /// The last two bytes of each hash.
    low: Vec<u16>,
    /// And the one before them.
    high: Vec<u8>,
    records: Records,
    /// Where each place begins, and where the last one ends.
    starts: Vec<u32>,
}

/// The record of each hash of a run, as small as it can be written.
#[derive(Clone, Debug)]
enum Records {
    /// All stand in the same.
    One(RecordNumber),
    /// They have small numbers.
    Small(Vec<u8>),
    Any(Vec<RecordNumber>),
}

impl Default for Records {
    fn default() -> Records {
        Records::One(0)
    }
}

impl Records {
    fn of(numbers: Vec<RecordNumber>) -> Records {
        match u8::try_from(numbers.iter().copied().max().unwrap_or_default()) {
            Ok(_) => Records::Small(numbers.iter().map(|number| *number as u8).collect()),
            Err(_) => Records::Any(numbers),
        }
    }

    fn at(&self, at: usize) -> RecordNumber {
        match self {
            Records::One(number) => *number,
            Records::Small(numbers) => numbers.get(at).copied().map(RecordNumber::from).unwrap_or_default(),
            Records::Any(numbers) => numbers.get(at).copied().unwrap_or_default(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Records::One(_) => 0,
            Records::Small(numbers) => numbers.capacity(),
            Records::Any(numbers) => numbers.capacity() * size_of::<RecordNumber>(),
        }
    }
}

impl Index {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let hashes = |run: &Run| run.low.capacity() * 2 + run.high.capacity();
        let run = |run: &Run| hashes(run) + run.records.bytes() + run.starts.capacity() * 4;
        let newest = self.newest.0.capacity() * 4 + self.newest.1.capacity() * 2;
        self.runs.iter().map(run).sum::<usize>() + newest + self.filter.capacity() * 8
    }

    /// Adds entries, in any order. What is twice is found twice, and takes room twice.
    pub fn add(&mut self, mut entries: Vec<Entry>) {
        let (hashes, records) = &mut self.newest;
        if hashes.len() + entries.len() <= NEWEST_MAX {
            hashes.extend(entries.iter().map(|entry| entry.hash()));
            records.extend(entries.iter().map(|entry| entry.record()));
            self.count += entries.len();
            self.refilter(entries.iter().map(|entry| entry.hash()));
            return;
        }
        self.count -= hashes.len();
        let newest = std::mem::take(hashes).into_iter().zip(std::mem::take(records));
        entries.extend(newest.map(|(hash, record)| Entry::new(hash, record)));
        self.count += entries.len();
        self.refilter(entries.iter().map(|entry| entry.hash()));
        let mut run = Run::of(&entries);
        while let Some(last) = self.runs.pop() {
            if last.len() > run.len() * 2 {
                self.runs.push(last);
                break;
            }
            run = Run::merge(&last, &run);
        }
        self.runs.push(run);
    }

    /// Keeps the entries of the records that still have a number, under that.
    pub fn renumber(&mut self, number: impl Fn(RecordNumber) -> Option<RecordNumber>) {
        let mut entries = Vec::with_capacity(self.count);
        let (hashes, records) = &self.newest;
        let newest = hashes.iter().zip(records).map(|(hash, record)| Entry::new(*hash, *record));
        let mut keep = |entry: Entry| {
            entries.extend(number(entry.record()).map(|number| Entry::new(entry.hash(), number)));
        };
        self.runs.iter().for_each(|run| run.each(&mut keep));
        newest.for_each(keep);
        *self = Index::default();
        self.add(entries);
    }

    /// Calls back with each record that a hash stands in.
    #[inline]
    pub fn find(&self, hash: u32, mut found: impl FnMut(RecordNumber)) {
        if self.may_have(hash) {
            for run in &self.runs {
                run.find(hash, &mut found);
            }
            let (hashes, records) = &self.newest;
            places_of(hashes, hash).filter_map(|at| records.get(at)).for_each(|record| found(*record));
        }
    }

    /// Whether a hash stands in a record of which this is so.
    pub fn any(&self, hash: u32, mut is: impl FnMut(RecordNumber) -> bool) -> bool {
        let mut any = false;
        self.find(hash, |record| any |= is(record));
        any
    }

    /// Whether a hash may be here. `false` is certain.
    #[inline]
    pub fn may_have(&self, hash: u32) -> bool {
        self.filter().may_have(hash)
    }

    /// What says quickly that a hash is not here.
    pub fn filter(&self) -> Filter<'_> {
        Filter(&self.filter)
    }

    /// Has the filter say yes to what is new, too.
    fn refilter(&mut self, new: impl Iterator<Item = u32>) {
        /// A filter that is smaller than this, in words, has more room to grow.
        const SMALL: usize = 1024;
        let words = (self.count * FILTER_BITS).div_ceil(64);
        if words > self.filter.len() {
            // Room to grow, so that it is not made anew for every reply.
            let room = match self.filter.len() {
                // Much may be read once, and no more.
                0 if words >= SMALL => 0,
                _ if words < SMALL => words / 2,
                _ => words / 8,
            };
            self.filter = vec![0; words + room];
            let filter = &mut self.filter;
            self.runs.iter().for_each(|run| run.each(|entry| mark(filter, entry.hash())));
            self.newest.0.iter().for_each(|hash| mark(filter, *hash));
        }
        new.for_each(|hash| mark(&mut self.filter, hash));
    }
}

#[inline]
fn mark(filter: &mut [u64], hash: u32) {
    let words = filter.len();
    if let Some(word) = filter.get_mut(filter_word(hash, words)) {
        *word |= filter_bits(hash);
    }
}

/// Three bits of a word, by the last bits of a hash.
#[inline]
fn filter_bits(hash: u32) -> u64 {
    PATTERNS.get(hash as usize % PATTERNS.len()).copied().unwrap_or_default()
}

/// Words with three bits each. To look one up is quicker than to make it, and it is done for every gram that leaves.
static PATTERNS: [u64; 1024] = patterns();

#[expect(clippy::indexing_slicing, reason = "it is done when this is compiled")]
const fn patterns() -> [u64; 1024] {
    let (mut all, mut at, mut state) = ([0_u64; 1024], 0, 1_u64);
    while at < all.len() {
        // The three bits that are nearest at hand in the numbers of a generator, as long as they are different.
        while all[at].count_ones() < 3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            all[at] |= 1 << (state >> 58);
        }
        at += 1;
    }
    all
}

impl Run {
    /// Two passes: how many entries each place has, and then each to its own.
    fn of(entries: &[Entry]) -> Run {
        let bits = (entries.len() / BUCKET).max(1 << PLACE_BITS).next_power_of_two().trailing_zeros();
        let place = |entry: Entry| (entry.hash() >> (u32::BITS - bits)) as usize;
        // Two further on, so that the second pass moves each to where it belongs.
        let mut starts = vec![0_u32; (1 << bits) + 2];
        for entry in entries {
            if let Some(count) = starts.get_mut(place(*entry) + 2) {
                *count += 1;
            }
        }
        let mut sum = 0;
        starts.iter_mut().for_each(|start| {
            sum += *start;
            *start = sum;
        });
        let count = entries.len();
        let (mut low, mut high) = (vec![0; count], vec![0; count]);
        let first = entries.first().map(|entry| entry.record()).unwrap_or_default();
        let one = entries.iter().all(|entry| entry.record() == first);
        let mut records = vec![0; if one { 0 } else { count }];
        for entry in entries {
            let Some(next) = starts.get_mut(place(*entry) + 1) else { continue };
            let at = *next as usize;
            *next += 1;
            if let (Some(low), Some(high)) = (low.get_mut(at), high.get_mut(at)) {
                (*low, *high) = (entry.hash() as u16, (entry.hash() >> u16::BITS) as u8);
            }
            if let Some(record) = records.get_mut(at) {
                *record = entry.record();
            }
        }
        starts.truncate((1 << bits) + 1);
        let records = if one { Records::One(first) } else { Records::of(records) };
        Run { low, high, records, starts }
    }

    fn len(&self) -> usize {
        self.low.len()
    }

    /// How many of a hash's first bits are its place.
    fn place_bits(&self) -> u32 {
        (self.starts.len().saturating_sub(1)).trailing_zeros()
    }

    /// Calls back with each entry.
    #[inline]
    fn each(&self, mut each: impl FnMut(Entry)) {
        let bits = self.place_bits();
        let mut all = (0..).zip(self.low.iter().zip(&self.high));
        for (place, [start, end]) in (0_u32..).zip(self.starts.array_windows()) {
            let first = place << (u32::BITS - bits);
            for (at, (low, high)) in all.by_ref().take((end - start) as usize) {
                let last = u32::from(*high) << u16::BITS | u32::from(*low);
                each(Entry::new(first | last & (u32::MAX >> bits), self.records.at(at)));
            }
        }
    }

    fn merge(one: &Run, two: &Run) -> Run {
        let mut merged = Vec::with_capacity(one.len() + two.len());
        one.each(|entry| merged.push(entry));
        two.each(|entry| merged.push(entry));
        Run::of(&merged)
    }

    fn find(&self, hash: u32, found: &mut impl FnMut(RecordNumber)) {
        let place = (hash >> (u32::BITS - self.place_bits())) as usize;
        let [start, end] =
            [place, place + 1].map(|at| self.starts.get(at).copied().unwrap_or_default() as usize);
        let low = self.low.get(start..end).unwrap_or_default();
        let last = hash as u16;
        // Nearly always it is not here: all of a few are compared at once, rather than some by turns that cannot be guessed.
        if !low.iter().fold(false, |here, each| here | (*each == last)) {
            return;
        }
        let before = (hash >> u16::BITS) as u8;
        let high = self.high.get(start..end).unwrap_or_default();
        let all = (start..).zip(low.iter().zip(high));
        let same = all.filter(|(_, (low, high))| **low == last && **high == before);
        same.map(|(at, _)| self.records.at(at)).for_each(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_added_is_found_and_nothing_else(
            batches in prop::collection::vec(prop::collection::vec((0_u32..5000, prop_oneof![0_u16..40, 0_u16..400]), 0..600), 0..12),
            spread in prop_oneof![Just(1_u32), Just(858_993)],
        ) {
            let mut index = Index::default();
            let mut all = std::collections::BTreeSet::new();
            for batch in batches {
                let batch: Vec<(u32, u16)> = batch.into_iter().map(|(h, r)| (h.wrapping_mul(spread), r)).collect();
                all.extend(batch.iter().copied());
                index.add(batch.into_iter().map(|(hash, record)| Entry::new(hash, record)).collect());
            }
            let halve = |record: u16| record.is_multiple_of(2).then_some(record / 2);
            let mut halved = index.clone();
            halved.renumber(halve);
            for hash in (0..5000_u32).map(|hash| hash.wrapping_mul(spread)) {
                let collect = |index: &Index| {
                    let mut found = std::collections::BTreeSet::new();
                    index.find(hash, |record| found.extend([record]));
                    found
                };
                let expected: std::collections::BTreeSet<u16> =
                    all.range((hash, 0)..=(hash, u16::MAX)).map(|(_, record)| *record).collect();
                prop_assert_eq!(collect(&halved), expected.iter().filter_map(|r| halve(*r)).collect());
                prop_assert_eq!(collect(&index), expected);
            }
        }
    }
}
