//! Sorted hashes: alone, in two ages, or each with the record that it stands in.

use super::index::RecordNumber;

/// From so many on, sorting by digits is quicker than by comparing.
const DIGITS_FROM: usize = 384;

/// Sorts by a number that is spread evenly, as hashes are, and what is equal by it by itself.
pub fn sort_by_hash<T: Copy + Default + Ord>(items: &mut Vec<T>, hash: impl Fn(T) -> u32) {
    const BITS: u32 = 11;
    const VALUES: usize = 1 << BITS;
    /// The first bits are in two digits. Of what is spread evenly nearly none has the same.
    const SHIFTS: [u32; 2] = [u32::BITS - 2 * BITS, u32::BITS - BITS];
    if items.len() < DIGITS_FROM || items.is_sorted() {
        return items.sort_unstable();
    }
    let digit = |item: T, shift: u32| (hash(item) >> shift) as usize % VALUES;
    let mut starts = [[0_u32; VALUES]; SHIFTS.len()];
    for item in items.iter() {
        for (shift, starts) in SHIFTS.into_iter().zip(&mut starts) {
            if let Some(count) = starts.get_mut(digit(*item, shift)) {
                *count += 1;
            }
        }
    }
    let mut sorted = vec![T::default(); items.len()];
    for (shift, starts) in SHIFTS.into_iter().zip(&mut starts) {
        let mut start = 0;
        for count in starts.iter_mut() {
            start += std::mem::replace(count, start);
        }
        for item in items.iter() {
            let Some(start) = starts.get_mut(digit(*item, shift)) else { continue };
            if let Some(slot) = sorted.get_mut(*start as usize) {
                *slot = *item;
            }
            *start += 1;
        }
        std::mem::swap(items, &mut sorted);
    }
    settle(items);
}

/// Sorts what is nearly sorted; what turns out not to be is sorted like anything else.
fn settle<T: Copy + Ord>(items: &mut [T]) {
    let (mut sorted, mut moves_left) = (1, items.len());
    while let Some(at) =
        items.get(sorted - 1..).and_then(|rest| rest.array_windows().position(|[a, b]| a > b))
    {
        sorted += at;
        let mut place = sorted;
        while place > 0 && items.get(place - 1) > items.get(place) {
            if moves_left == 0 {
                return items.sort_unstable();
            }
            moves_left -= 1;
            items.swap(place - 1, place);
            place -= 1;
        }
        sorted += 1;
    }
}

/// Where a hash stands among some in any order. They are compared in blocks: nearly always it is in none.
pub fn places_of(hashes: &[u32], hash: u32) -> impl Iterator<Item = usize> {
    const BLOCK: usize = 64;
    let has = move |block: &[u32]| block.iter().fold(false, |has, each| has | (*each == hash));
    let blocks = hashes.chunks(BLOCK).enumerate().filter(move |(_, block)| has(block));
    let all = blocks.flat_map(|(at, block)| (at * BLOCK..).zip(block));
    all.filter(move |(_, each)| **each == hash).map(|(at, _)| at)
}

/// A hash and the number of a record in one word: 48 bits of the one, and the other.
pub fn pack(hash: u64, number: RecordNumber) -> u64 {
    (hash & !0xffff) | u64::from(number)
}

/// The records that stand with a hash.
pub fn packed<'s>(sorted: &'s Sorted<u64>, hash: u64) -> impl Iterator<Item = RecordNumber> + 's {
    let first = hash & !0xffff;
    let found = move |sorted: &[u64]| sorted.partition_point(|each| *each < first);
    let among = move |part: &'s [u64]| {
        let rest = part.get(found(part)..).unwrap_or_default().iter();
        rest.take_while(move |each| **each & !0xffff == first)
    };
    let fresh = among(&sorted.fresh).filter(|each| !is_in(&sorted.settled, **each));
    let newest =
        sorted.newest.iter().filter(move |each| **each & !0xffff == first && !sorted.has_sorted(**each));
    among(&sorted.settled).chain(fresh).chain(newest).map(|each| *each as RecordNumber)
}

/// Keeps what stands with records that still have a number, under that.
pub fn renumber_packed(sorted: &mut Sorted<u64>, number: impl Fn(RecordNumber) -> Option<RecordNumber>) {
    let all = [&sorted.settled, &sorted.fresh, &sorted.newest].into_iter().flatten();
    let renumbered = all.filter_map(|each| number(*each as RecordNumber).map(|n| pack(*each, n)));
    let renumbered: Vec<u64> = renumbered.collect();
    *sorted = Sorted::default();
    sorted.add(&renumbered);
}

/// What is spread evenly by its first bits, as hashes are.
pub trait Spread: Copy + Default + Ord {
    /// The first bits.
    fn first_bits(self) -> u32;
}

impl Spread for u32 {
    fn first_bits(self) -> u32 {
        self
    }
}

impl Spread for u64 {
    fn first_bits(self) -> u32 {
        (self >> 32) as u32
    }
}

/// Hashes, sorted. Some that are new stand apart until they are many, and the newest in any order, so that adding a few to
/// many costs little. One may stand in more than one of the three.
#[derive(Clone, Debug)]
pub struct Sorted<T> {
    settled: Vec<T>,
    fresh: Vec<T>,
    /// In any order, each once.
    newest: Vec<T>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Sorted<T> {
        Sorted { settled: Vec::new(), fresh: Vec::new(), newest: Vec::new() }
    }
}

impl<T: Spread> Sorted<T> {
    /// Of what is settled, so much may stand apart.
    const FRESH_PART: usize = 8;
    /// So many may be in any order.
    const NEWEST_MAX: usize = 1024 / size_of::<T>();

    /// Adds some, in any order; what is twice is here once.
    pub fn add(&mut self, new: &[T]) {
        if self.newest.len() + new.len() <= Self::NEWEST_MAX {
            for each in new {
                if !self.newest.contains(each) {
                    self.newest.push(*each);
                }
            }
            return;
        }
        let mut new = [&*std::mem::take(&mut self.newest), new].concat();
        sort_by_hash(&mut new, T::first_bits);
        if self.is_few(new.len()) {
            add_exactly(&mut self.fresh, new);
            if self.is_few(self.fresh.len()) {
                return;
            }
        } else {
            add_exactly(&mut self.settled, new);
        }
        // Some of what is new may have stood apart.
        add_exactly(&mut self.settled, std::mem::take(&mut self.fresh));
    }

    fn is_few(&self, count: usize) -> bool {
        count <= self.settled.len() / Self::FRESH_PART
    }

    /// Whether it is here.
    pub fn has(&self, each: T) -> bool {
        self.newest.contains(&each) || self.has_sorted(each)
    }

    fn has_sorted(&self, each: T) -> bool {
        is_in(&self.settled, each) || is_in(&self.fresh, each)
    }

    /// How many there is room for.
    pub fn capacity(&self) -> usize {
        self.settled.capacity() + self.fresh.capacity() + self.newest.capacity()
    }
}

/// Makes room for so many more, and a little for what comes after them: what is kept for long has none to spare.
pub fn make_room<T>(items: &mut Vec<T>, more: usize) {
    if items.capacity() < items.len() + more {
        items.reserve_exact(more.max(1 + items.len() / 16));
    }
}

fn is_in<T: Ord>(sorted: &[T], each: T) -> bool {
    sorted.binary_search(&each).is_ok()
}

/// Adds what is sorted to what is sorted, and takes no more room than that needs.
fn add_exactly<T: Copy + Ord>(sorted: &mut Vec<T>, mut new: Vec<T>) {
    if sorted.is_empty() {
        new.dedup();
        new.shrink_to_fit();
        *sorted = new;
        return;
    }
    if new.is_empty() {
        return;
    }
    sorted.reserve_exact(new.len());
    sorted.extend_from_slice(&new);
    // The standard sort finds the two sorted runs.
    sorted.sort();
    sorted.dedup();
    if sorted.capacity() > sorted.len() + sorted.len() / 8 {
        sorted.shrink_to_fit();
    }
}

/// Hashes of two ages, each sorted.
#[derive(Clone, Debug)]
pub struct Set<T> {
    young: Sorted<T>,
    old: Sorted<T>,
}

impl<T> Default for Set<T> {
    fn default() -> Set<T> {
        Set { young: Sorted::default(), old: Sorted::default() }
    }
}

impl<T: Spread> Set<T> {
    /// Adds some.
    pub fn add(&mut self, new: &[T]) {
        self.young.add(new);
    }

    /// Whether it is here, young or old.
    pub fn has(&self, each: T) -> bool {
        self.young.has(each) || self.old.has(each)
    }

    /// What was young is old now, and what was old goes.
    pub fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }

    /// How many there is room for.
    pub fn capacity(&self) -> usize {
        self.young.capacity() + self.old.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sorted_by_hash_is_sorted(
            items in prop::collection::vec((any::<u32>(), any::<u16>()), 0..4000),
            spread in prop_oneof![Just(u32::MAX), Just(0xff)],
        ) {
            let mut items: Vec<(u32, u16)> = items.into_iter().map(|(hash, each)| (hash & spread, each)).collect();
            let mut expected = items.clone();
            sort_by_hash(&mut items, |(hash, _)| hash);
            expected.sort_unstable();
            prop_assert_eq!(items, expected);
        }

        #[test]
        fn what_is_packed_stands_with_each_record_once(
            batches in prop::collection::vec(prop::collection::vec((0_u64..50, 0_u16..9), 0..90), 0..20),
        ) {
            let (mut sorted, mut all) = (Sorted::default(), std::collections::BTreeSet::new());
            for batch in batches {
                sorted.add(&batch.iter().map(|(hash, number)| pack(hash << 40, *number)).collect::<Vec<_>>());
                all.extend(batch);
                for hash in 0..50 {
                    let mut found: Vec<u16> = packed(&sorted, hash << 40).collect();
                    found.sort_unstable();
                    let expected: Vec<u16> = all.range((hash, 0)..=(hash, u16::MAX)).map(|(_, n)| *n).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }

        #[test]
        fn what_was_added_is_here_once_however_much_came_at_once(
            batches in prop::collection::vec(prop::collection::vec(0_u32..3000, 0..300), 0..20),
        ) {
            let (mut sorted, mut all) = (Sorted::default(), std::collections::BTreeSet::new());
            for batch in batches {
                sorted.add(&batch);
                all.extend(batch);
                prop_assert!((0..3000).all(|each| sorted.has(each) == all.contains(&each)));
            }
            let Sorted { settled, fresh, newest } = &sorted;
            prop_assert!(settled.is_sorted_by(|a, b| a < b) && fresh.is_sorted_by(|a, b| a < b));
            prop_assert!(settled.len() <= all.len() && fresh.len() <= all.len() && newest.len() <= 256);
        }
    }
}
