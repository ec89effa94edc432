//! Sorted hashes: alone, in two ages, or each with the record that it stands in.

use super::index::RecordNumber;

/// A hash and the number of a record in one word: 48 bits of the one, and the other.
pub fn pack(hash: u64, number: RecordNumber) -> u64 {
    (hash & !0xffff) | u64::from(number)
}

/// The records that stand with a hash.
pub fn packed(sorted: &[u64], hash: u64) -> impl Iterator<Item = RecordNumber> + '_ {
    let first = hash & !0xffff;
    let start = sorted.partition_point(|each| *each < first);
    let rest = sorted.get(start..).unwrap_or_default().iter();
    rest.take_while(move |each| **each & !0xffff == first).map(|each| *each as RecordNumber)
}

/// Adds to what is sorted, and takes no more room than that needs.
pub fn add_exactly<T: Copy + Ord>(sorted: &mut Vec<T>, new: &[T]) {
    if new.is_empty() {
        return;
    }
    sorted.reserve_exact(new.len());
    sorted.extend_from_slice(new);
    // The standard sort finds the sorted run that was there.
    sorted.sort();
    sorted.dedup();
    if sorted.capacity() > sorted.len() + sorted.len() / 8 {
        sorted.shrink_to_fit();
    }
}

/// Keeps what stands with records that still have a number, under that.
pub fn renumber_packed(sorted: &mut Vec<u64>, number: impl Fn(RecordNumber) -> Option<RecordNumber>) {
    let renumbered = sorted.iter().filter_map(|each| number(*each as RecordNumber).map(|n| pack(*each, n)));
    *sorted = renumbered.collect();
    sorted.sort_unstable();
    sorted.shrink_to_fit();
}

/// Hashes of two ages, each sorted.
#[derive(Clone, Debug)]
pub struct Set<T> {
    young: Vec<T>,
    old: Vec<T>,
}

impl<T> Default for Set<T> {
    fn default() -> Set<T> {
        Set { young: Vec::new(), old: Vec::new() }
    }
}

impl<T: Copy + Ord> Set<T> {
    /// Adds some.
    pub fn add(&mut self, new: &[T]) {
        add_exactly(&mut self.young, new);
    }

    /// Whether it is here, young or old.
    pub fn has(&self, each: T) -> bool {
        self.young.binary_search(&each).is_ok() || self.old.binary_search(&each).is_ok()
    }

    /// What was young is old now, and what was old goes.
    pub fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.old.shrink_to_fit();
    }

    /// How many there is room for.
    pub fn capacity(&self) -> usize {
        self.young.capacity() + self.old.capacity()
    }
}
