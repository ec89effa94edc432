//! Which remembered records the content of a call carries.

use std::collections::{HashMap as Map, HashSet as Set};
use std::sync::Arc;
use std::time::SystemTime;

use super::canary::Canaries;
use super::canon::Canon;
use super::finding::{Evidence, How};
use super::index::{Filter, RecordNumber};
use super::learn::reference;
use super::lineage::Memory;
use super::secret;
use super::text::{FlowKey, GRAM_BYTES, Kind, WINDOW_GRAMS, grams_three_ways, rot13};
use super::view::{self, Looked};
use crate::call::Confidentiality;

/// What is hashed here was hashed under the gateway's key, or is a number.
type HashMap<K, V> = Map<K, V, foldhash::fast::RandomState>;
type HashSet<K> = Set<K, foldhash::fast::RandomState>;

/// Different grams of one record that must be found: one alone can be a common phrase.
const GRAMS_MIN: usize = 2;
/// Pieces of evidence that are told for one finding.
const EVIDENCE_MAX: usize = 16;

/// What a call was found to carry.
#[derive(Debug, Default)]
pub struct Carried {
    /// What is internal.
    pub internal: Vec<Evidence>,
    /// What is secret.
    pub secret: Vec<Evidence>,
    /// The name of a canary.
    pub canary: Option<Arc<str>>,
    /// The records, hashed.
    pub records: Vec<u64>,
    /// Who all of them belong to.
    pub parties: Vec<u64>,
    /// Whether something was too large to be looked at.
    pub unreadable: bool,
}

/// Looks at content, string by string.
pub struct Content<'m> {
    key: &'m FlowKey,
    now: SystemTime,
    memories: &'m [(&'m Memory, Confidentiality)],
    filters: Vec<Filter<'m>>,
    canaries: &'m Canaries,
    /// Who gets it: what belongs to all of them is no evidence.
    places: &'m [u64],
    /// The destinations themselves, as tokens.
    own_names: Vec<u64>,
    canon: Canon,
    found: HashMap<(usize, RecordNumber), Found>,
    canary: HashMap<u32, HashSet<u32>>,
    /// Room for the grams of one view that pass a filter, and for the records of one gram.
    likely: Vec<u32>,
    turned: Vec<u8>,
    hits: Vec<(usize, RecordNumber)>,
    made: u32,
    strays: u32,
    unreadable: bool,
}

#[derive(Default)]
struct Found {
    grams: HashSet<u32>,
    tokens: HashSet<u64>,
    references: u32,
}

impl<'m> Content<'m> {
    /// Nothing looked at yet.
    pub fn new(
        key: &'m FlowKey,
        now: SystemTime,
        memories: &'m [(&'m Memory, Confidentiality)],
        canaries: &'m Canaries,
        places: &'m [u64],
        own_names: Vec<u64>,
    ) -> Content<'m> {
        Content {
            key,
            now,
            memories,
            filters: memories.iter().map(|(memory, _)| memory.filter()).filter(|f| !f.is_empty()).collect(),
            canaries,
            places,
            own_names,
            canon: Canon::default(),
            found: HashMap::default(),
            canary: HashMap::default(),
            likely: Vec::new(),
            turned: Vec::new(),
            hits: Vec::new(),
            made: 0,
            strays: 0,
            unreadable: false,
        }
    }

    /// Looks at a string in all its views.
    pub fn look(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let mut canon = std::mem::take(&mut self.canon);
        let looked = view::each(text, &mut |view| {
            canon.scan(view);
            self.made += secret::made(view, &canon);
            self.probe(&canon);
        });
        self.canon = canon;
        self.unreadable |= looked == Looked::Beyond;
    }

    fn probe(&mut self, canon: &Canon) {
        let mut likely = std::mem::take(&mut self.likely);
        let mut turned = std::mem::take(&mut self.turned);
        let (key, canaries) = (self.key, self.canaries);
        match &*self.filters {
            [filter] if canaries.is_empty() => {
                keep_likely(key, canon, (&mut turned, &mut likely), |gram| filter.may_have(gram));
            }
            filters => keep_likely(key, canon, (&mut turned, &mut likely), |gram| {
                filters.iter().any(|filter| filter.may_have(gram)) || canaries.of_gram(gram).is_some()
            }),
        }
        likely.drain(..).for_each(|gram| self.gram(gram));
        (self.likely, self.turned) = (likely, turned);
        let mut other = Vec::new();
        canon.tokens(|token| {
            self.token(token);
            other.clear();
            other.extend(token.iter().rev());
            self.token(&other);
            other.clear();
            other.extend(token.iter().copied().map(rot13));
            self.token(&other);
        });
    }

    fn gram(&mut self, gram: u32) {
        if let Some(number) = self.canaries.of_gram(gram) {
            self.canary.entry(number).or_default().insert(gram);
        }
        let mut hits = std::mem::take(&mut self.hits);
        let mut owned = false;
        for (at, (memory, least)) in self.memories.iter().enumerate() {
            memory.by_gram(gram, self.now, |number| {
                owned |= memory.belongs_to(number, self.places);
                if memory.confidentiality(number).is_some_and(|level| level >= *least) {
                    hits.push((at, number));
                }
            });
        }
        // What stands in a record of theirs too is nothing new to them.
        if !owned {
            for hit in &hits {
                self.found.entry(*hit).or_default().grams.insert(gram);
            }
        }
        hits.clear();
        self.hits = hits;
    }

    fn token(&mut self, token: &[u8]) {
        let token = self.key.hash(Kind::Token, token);
        if self.own_names.contains(&token) {
            return;
        }
        let hits = self.hits(|memory| memory.by_token(token, self.now).collect());
        for hit in hits {
            self.found.entry(hit).or_default().tokens.insert(token);
        }
    }

    /// Looks at a reference. What nobody read is somebody's object all the same, unless its destination is trusted.
    pub fn refer(&mut self, id: &str, trusted: bool) {
        let id = reference(self.key, id);
        let any = self.memories.iter().any(|(memory, _)| memory.has_reference(id, self.now));
        if !any && !trusted {
            self.strays += 1;
        }
        let hits = self.hits(|memory| memory.by_reference(id, self.now).collect());
        for hit in hits {
            self.found.entry(hit).or_default().references += 1;
        }
    }

    fn hits(&self, numbers: impl Fn(&Memory) -> Vec<RecordNumber>) -> Vec<(usize, RecordNumber)> {
        let mut hits = Vec::new();
        for (at, (memory, least)) in self.memories.iter().enumerate() {
            for number in numbers(memory) {
                if memory.belongs_to(number, self.places) {
                    return Vec::new();
                }
                if memory.confidentiality(number).is_some_and(|level| level >= *least) {
                    hits.push((at, number));
                }
            }
        }
        hits
    }

    /// What all of it came to.
    pub fn end(self) -> Carried {
        let mut carried = Carried { unreadable: self.unreadable, ..Carried::default() };
        let found = self.canary.iter().find_map(|(number, grams)| self.canaries.found(*number, grams.len()));
        carried.canary = found;
        let mut parties: Option<Vec<u64>> = None;
        for ((at, number), found) in &self.found {
            let Some((memory, _)) = self.memories.get(*at) else { continue };
            let enough = found.grams.len() >= GRAMS_MIN;
            if !enough && found.tokens.is_empty() && found.references == 0 {
                continue;
            }
            let Some(origin) = memory.origin(*number) else { continue };
            let theirs = memory.parties(*number);
            parties = Some(match parties {
                None => theirs.to_vec(),
                Some(common) => common.into_iter().filter(|party| theirs.contains(party)).collect(),
            });
            let whole = format!("{}/{}", origin.reply, origin.number);
            carried.records.push(self.key.hash(Kind::Whole, whole.as_bytes()));
            let evidence = match origin.confidentiality {
                Confidentiality::Secret => &mut carried.secret,
                Confidentiality::Internal | Confidentiality::Public => &mut carried.internal,
            };
            let bytes = (found.grams.len() * WINDOW_GRAMS / 2 + GRAM_BYTES) as u32;
            let mut tell = |how, matched: usize, bytes| {
                if matched > 0 && evidence.len() < EVIDENCE_MAX {
                    let origin = Some(origin.clone());
                    evidence.push(Evidence { origin, how, matched: matched as u32, bytes });
                }
            };
            tell(How::Fingerprint, if enough { found.grams.len() } else { 0 }, bytes);
            tell(How::Token, found.tokens.len(), 0);
            tell(How::Reference, found.references as usize, 0);
        }
        let made = |evidence: &mut Vec<Evidence>, how, matched| {
            if matched > 0 {
                evidence.push(Evidence { origin: None, how, matched, bytes: 0 });
            }
        };
        made(&mut carried.secret, How::Made, self.made);
        made(&mut carried.internal, How::Reference, self.strays);
        carried.parties = parties.unwrap_or_default();
        carried.records.sort_unstable();
        carried.records.dedup();
        carried
    }
}

/// Keeps the grams of a text, read in three ways, that may be of something. Nearly all are of nothing, and are done
/// with here.
#[inline]
fn keep_likely(
    key: &FlowKey,
    canon: &Canon,
    (turned, likely): (&mut Vec<u8>, &mut Vec<u32>),
    may_have: impl Fn(u32) -> bool,
) {
    grams_three_ways(key, &canon.bytes, turned, |three| {
        let [plain, reversed, turned] = three;
        if may_have(plain) | may_have(reversed) | may_have(turned) {
            likely.extend(three.into_iter().filter(|gram| may_have(*gram)));
        }
    });
}
