//! Refusals that cost their sender nothing, folded: connections that come to nothing, and requests beyond what a
//! certificate may ask. A flood of them must not fill the disk on which every other call depends.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds how many such refusals a second get a record of their own; the others are counted in the next one.
#[derive(Default)]
pub struct Folds {
    second: AtomicU64,
    written: AtomicU64,
    folded: AtomicU64,
}

/// Records of such refusals in one second.
const REFUSED_RECORDS_MAX: u64 = 50;

impl Folds {
    /// The number of refusals folded since the last record, or `None` when this one is folded too.
    pub fn admit(&self) -> Option<u64> {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.written.store(0, Ordering::Relaxed);
        }
        if self.written.fetch_add(1, Ordering::Relaxed) < REFUSED_RECORDS_MAX {
            return Some(self.folded.swap(0, Ordering::Relaxed));
        }
        self.folded.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_written_in_few_records_and_every_refusal_is_counted() {
        let folds = Folds::default();
        let told: Vec<u64> = (0..10_000).filter_map(|_| folds.admit()).collect();
        // The second may turn once within the loop.
        assert!(told.len() as u64 <= 3 * REFUSED_RECORDS_MAX, "{}", told.len());
        let left = folds.folded.load(Ordering::Relaxed);
        assert_eq!(told.iter().sum::<u64>() + told.len() as u64 + left, 10_000);
    }
}
