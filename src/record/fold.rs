//! Repeated refusals, folded: those of one certificate for one reason get so many records a second, and the others are
//! counted in the next. A flood of them must not fill the disk on which every other call depends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Entry, Kind};
use crate::call::{Stop, hex};
use crate::json::Members;

/// Records of one kind of refusal in one second.
const REFUSED_RECORDS_MAX: u64 = 50;
/// How many kinds are told apart at one time; beyond that they are taken together by reason.
const KINDS_MAX: usize = 4096;

/// What makes refusals alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// SHA-256 of the certificate; zeros where none was shown.
    certificate: [u8; 32],
    reason: &'static str,
    rule: Arc<str>,
}

impl Refusal {
    /// The kind of a stopped call.
    pub fn of(certificate: [u8; 32], stop: &Stop) -> Refusal {
        Refusal { certificate, reason: stop.reason, rule: Arc::clone(&stop.rule) }
    }

    /// The kind of what a person may not do.
    pub fn of_person(rule: &Arc<str>) -> Refusal {
        Refusal { certificate: [0; 32], reason: "person", rule: Arc::clone(rule) }
    }

    /// The kind of a connection that came to nothing.
    pub fn of_connection(reason: &'static str) -> Refusal {
        Refusal { certificate: [0; 32], reason, rule: Arc::from("") }
    }
}

/// Bounds how many refusals of a kind get a record of their own.
#[derive(Default)]
pub struct Folds {
    kinds: Mutex<HashMap<Refusal, Count>>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    second: u64,
    written: u64,
    folded: u64,
}

impl Folds {
    /// The number of refusals of this kind folded since its last record, or `None` when this one is folded too.
    pub fn admit(&self, refusal: Refusal) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = match kinds.len() < KINDS_MAX || kinds.contains_key(&refusal) {
            true => refusal,
            false => Refusal::of_connection(refusal.reason),
        };
        let (now, count) = (second(), kinds.entry(refusal).or_default());
        if count.second != now {
            (count.second, count.written) = (now, 0);
        }
        if count.written < REFUSED_RECORDS_MAX {
            count.written += 1;
            return Some(std::mem::take(&mut count.folded));
        }
        count.folded += 1;
        None
    }

    /// The records of what was folded in floods that have ended, to be called about once a second. What nothing was
    /// refused of lately is forgotten.
    pub fn ended(&self) -> Vec<Entry> {
        let (now, mut ended) = (second(), Vec::new());
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.retain(|refusal, count| {
            let over = count.second.abs_diff(now) > 1;
            if over && count.folded > 0 {
                ended.push(counted(refusal, count.folded));
            }
            !over
        });
        ended
    }

    /// Everything that was folded and is in no record, at the end of the program.
    pub fn rest(&self) -> Vec<Entry> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = kinds.drain().filter(|(_, count)| count.folded > 0);
        rest.map(|(refusal, count)| counted(&refusal, count.folded)).collect()
    }
}

/// The record of refusals that have none of their own.
fn counted(refusal: &Refusal, folded: u64) -> Entry {
    let mut members = Members::default();
    members.text("certificate", &hex(&refusal.certificate));
    members.text("reason", refusal.reason);
    members.number("folded", folded);
    members.object("decision", |members| {
        members.text("outcome", "denied");
        members.text("rule", &refusal.rule);
    });
    Entry::new(Kind::Refused, None, members)
}

fn second() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(folds: &Folds) -> u64 {
        folds.kinds.lock().unwrap().values().map(|count| count.folded).sum()
    }

    #[test]
    fn a_flood_is_written_in_few_records_and_every_refusal_is_counted() {
        let folds = Folds::default();
        let told: Vec<u64> =
            (0..10_000).filter_map(|_| folds.admit(Refusal::of_connection("handshake"))).collect();
        // The second may turn within the loop.
        assert!(told.len() as u64 <= 5 * REFUSED_RECORDS_MAX, "{}", told.len());
        let counted = told.iter().sum::<u64>() + told.len() as u64 + folded(&folds);
        assert_eq!(counted, 10_000);
        let rest = folds.rest();
        assert_eq!((rest.len(), folded(&folds)), (1, 0));
    }

    #[test]
    fn one_flood_hides_no_other_refusal() {
        let folds = Folds::default();
        let of = |byte: u8, reason| Refusal { certificate: [byte; 32], reason, rule: Arc::from("") };
        for _ in 0..1000 {
            folds.admit(of(1, "rate"));
        }
        assert_eq!(folds.admit(of(2, "rate")), Some(0));
        assert_eq!(folds.admit(of(1, "suspended")), Some(0));
    }

    #[test]
    fn kinds_without_end_are_taken_together() {
        let folds = Folds::default();
        for kind in 0..3 * KINDS_MAX as u64 {
            let mut certificate = [1; 32];
            certificate[..8].copy_from_slice(&kind.to_be_bytes());
            folds.admit(Refusal { certificate, reason: "rate", rule: Arc::from("") });
        }
        assert!(folds.kinds.lock().unwrap().len() <= KINDS_MAX + 1);
    }
}
