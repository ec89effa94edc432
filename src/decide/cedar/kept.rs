//! A bounded table of what was worked out before. When it is full, a new entry takes the place of one other and never of
//! all, so that a working set somewhat too large costs somewhat more, and no call pays for clearing the table.

use std::sync::{PoisonError, RwLock};

/// How many entries share a set. A new one takes the place of the one that has stood there longest.
const WAYS: usize = 8;

/// What was worked out, by a hash of what it was worked out from.
pub(super) struct Kept<V> {
    sets: Box<[RwLock<Set<V>>]>,
}

struct Set<V> {
    ways: [Option<(u64, V)>; WAYS],
    next: usize,
}

impl<V: Clone> Kept<V> {
    /// An empty table for so many entries.
    pub(super) fn new(entries_max: usize) -> Kept<V> {
        let sets = 0..(entries_max / WAYS).max(1);
        Kept { sets: sets.map(|_| RwLock::new(Set { ways: Default::default(), next: 0 })).collect() }
    }

    /// The entry of this hash that is the one asked for: hashes may collide.
    pub(super) fn find(&self, hash: u64, is: impl Fn(&V) -> bool) -> Option<V> {
        self.homes(hash).into_iter().flatten().find_map(|home| {
            let set = home.read().unwrap_or_else(PoisonError::into_inner);
            let mut entries = set.ways.iter().flatten();
            entries.find(|(other, value)| *other == hash && is(value)).map(|(_, value)| value.clone())
        })
    }

    /// Keeps an entry, in the one of its two sets that has more room.
    pub(super) fn put(&self, hash: u64, value: V) {
        let free = |home: &&RwLock<Set<V>>| {
            let set = home.read().unwrap_or_else(PoisonError::into_inner);
            set.ways.iter().filter(|way| way.is_none()).count()
        };
        let Some(home) = self.homes(hash).into_iter().flatten().max_by_key(free) else { return };
        let mut set = home.write().unwrap_or_else(PoisonError::into_inner);
        let place = set.next;
        set.next = (place + 1) % WAYS;
        // What stood there is dropped when nobody waits for this set any more.
        let before = set.ways.get_mut(place).and_then(|way| way.replace((hash, value)));
        drop(set);
        drop(before);
    }

    /// The two sets that an entry may stand in: with one alone, some would be full while others are empty.
    fn homes(&self, hash: u64) -> [Option<&RwLock<Set<V>>>; 2] {
        [hash, hash.rotate_left(32)].map(|half| self.sets.get(half as u32 as usize % self.sets.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(number: u64) -> u64 {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    #[test]
    fn what_fits_is_kept() {
        let kept = Kept::new(1024);
        (0..870_u64).for_each(|number| kept.put(spread(number), number));
        let left =
            (0..870_u64).filter(|number| kept.find(spread(*number), |value| value == number).is_some());
        assert!(left.count() >= 860);
    }

    #[test]
    fn too_many_entries_push_out_some_and_not_all() {
        let kept = Kept::new(1024);
        for number in 0..2048_u64 {
            kept.put(spread(number), number);
            let here = |number: &u64| kept.find(spread(*number), |value| value == number).is_some();
            assert!(here(&number), "the newest is there");
            let left = (0..=number).filter(here).count();
            assert!(left <= 1024);
            assert!(left >= usize::try_from(number).unwrap().min(800), "{left} of {number} are left");
        }
    }

    #[test]
    fn two_of_one_hash_are_told_apart() {
        let kept = Kept::new(64);
        kept.put(7, "one");
        kept.put(7, "two");
        assert_eq!(kept.find(7, |value| *value == "one"), Some("one"));
        assert_eq!(kept.find(7, |value| *value == "two"), Some("two"));
        assert_eq!(kept.find(7, |value| *value == "three"), None);
        assert_eq!(kept.find(7 + 64, |_| true), None);
    }
}
