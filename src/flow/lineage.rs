//! What a run remembers of what it read: hashes, labels and places, never the text itself.
//!
//! [`Learnt`] is what one reply, or a part of it, brings; it is what a journal keeps. [`Memory`] is what all of a run's
//! replies brought, bounded and expiring. A label is never forgotten for want of room: a memory that is full says that
//! its lineage is not known any more, and policy treats that as a match.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::index::{Entry, Filter, Index, RecordNumber};
use super::sorted::{Set, Sorted, make_room, pack, packed, places_of, renumber_packed};
use crate::call::{Confidentiality, Integrity, RecordId};

/// How long a `secret` is remembered at least.
pub const SECRET_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// What one memory may take.
pub const MEMORY_BYTES_MAX: usize = 512 << 10;
/// Records that one memory may have.
const RECORDS_MAX: usize = 32_768;

/// How often in a window it is looked for what has expired, so that not every reply costs as much as all of them.
const LOOKS_IN_A_WINDOW: u32 = 32;

/// What a reply, or a part of one, brings. Everything in it is a keyed hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// The record of the call that the reply belongs to.
    pub reply: RecordId,
    /// The upstream that it came from.
    pub upstream: Arc<str>,
    /// The tool or operation.
    pub tool: Arc<str>,
    /// How confidential the reply is, by its catalogue entry.
    pub confidentiality: Confidentiality,
    /// Who may have written it, by its catalogue entry.
    pub integrity: Integrity,
    /// Its records, as far as they were read.
    pub fragments: Vec<Fragment>,
    /// Trusted destinations that it names, by their exact form.
    pub known: Vec<u64>,
    /// Places and tokens that stand in free text of outsiders, by their folded form.
    pub planted: Vec<u64>,
    /// Words of free text of outsiders.
    pub words: Vec<u32>,
    /// URLs that it has, as they are.
    pub urls: Vec<u64>,
    /// Whether something of it could not be learnt: it could not be read, or it was too large.
    pub unknown: bool,
}

/// What of one record of a reply is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which of the reply's records it is.
    pub number: u32,
    /// How confidential it is.
    pub confidentiality: Confidentiality,
    /// Who it already belongs to, by their exact form.
    pub parties: Vec<u64>,
    /// Selected grams of its text.
    pub grams: Vec<u32>,
    /// Its rare tokens.
    pub tokens: Vec<u64>,
    /// By what it can be referred to.
    pub ids: Vec<u64>,
}

impl Learnt {
    /// Whether there is nothing to remember beside the labels.
    pub fn is_empty(&self) -> bool {
        !self.unknown
            && self.fragments.is_empty()
            && self.known.is_empty()
            && self.planted.is_empty()
            && self.words.is_empty()
            && self.urls.is_empty()
    }

    /// Whether anything of it is secret.
    pub fn is_secret(&self) -> bool {
        let of_a_fragment = |fragment: &Fragment| fragment.confidentiality == Confidentiality::Secret;
        (self.unknown && self.confidentiality == Confidentiality::Secret)
            || self.fragments.iter().any(of_a_fragment)
    }

    /// What of it is secret: that is remembered for the whole trust domain. `None` when nothing is.
    pub fn secrets(&self) -> Option<Learnt> {
        if !self.is_secret() {
            return None;
        }
        let secret = |fragment: &&Fragment| fragment.confidentiality == Confidentiality::Secret;
        let fragments: Vec<Fragment> = self.fragments.iter().filter(secret).cloned().collect();
        let unknown = self.unknown && self.confidentiality == Confidentiality::Secret;
        Some(Learnt {
            reply: self.reply,
            upstream: Arc::clone(&self.upstream),
            tool: Arc::clone(&self.tool),
            confidentiality: Confidentiality::Secret,
            integrity: self.integrity,
            fragments,
            known: Vec::new(),
            planted: Vec::new(),
            words: Vec::new(),
            urls: Vec::new(),
            unknown,
        })
    }
}

/// What one run remembers.
#[derive(Clone, Debug)]
pub struct Memory {
    window: Duration,
    bytes_max: usize,
    replies: Vec<Reply>,
    records: Vec<Kept>,
    /// A digest of all of each record, so that what is read again is kept once.
    digests: Vec<u32>,
    /// How many of the records are public.
    publics: u32,
    parties: Vec<u64>,
    grams: Index,
    /// 48 bits of a token's hash and the number of the record.
    tokens: Sorted<u64>,
    /// The same of what a record can be referred to by.
    ids: Sorted<u64>,
    known: Set<u64>,
    planted: Set<u64>,
    words: Set<u32>,
    urls: Set<u64>,
    /// When something was read that could not be learnt.
    unknown: Option<SystemTime>,
    unknown_secret: Option<SystemTime>,
    /// When something internal or secret, something secret, and something of outsiders was read last.
    labelled: [Option<SystemTime>; 3],
    /// When the sets were last aged.
    aged: Option<SystemTime>,
    /// When it was last looked for records that have expired.
    looked: Option<SystemTime>,
}

#[derive(Clone, Debug)]
struct Reply {
    id: RecordId,
    upstream: Arc<str>,
    tool: Arc<str>,
    at: SystemTime,
    /// None of its records has a lower number.
    first: u32,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    reply: u32,
    number: u32,
    /// Where its parties begin, and how many there are.
    parties: (u32, u32),
    confidentiality: Confidentiality,
}

/// What one reply adds to the indexes.
#[derive(Default)]
struct Entries {
    grams: Vec<Entry>,
    tokens: Vec<u64>,
    ids: Vec<u64>,
}

/// What is told of a record that something was found to come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The record of the call that read it.
    pub reply: RecordId,
    /// Which of that reply's records it is.
    pub number: u32,
    /// The upstream that it came from.
    pub upstream: Arc<str>,
    /// The tool or operation.
    pub tool: Arc<str>,
    /// How confidential it is.
    pub confidentiality: Confidentiality,
}

impl Memory {
    /// An empty memory. What is not secret is remembered for the window.
    pub fn new(window: Duration) -> Memory {
        Memory::bounded(window, MEMORY_BYTES_MAX)
    }

    /// An empty memory with a bound of its own.
    pub fn bounded(window: Duration, bytes_max: usize) -> Memory {
        Memory {
            window,
            bytes_max,
            replies: Vec::new(),
            records: Vec::new(),
            digests: Vec::new(),
            publics: 0,
            parties: Vec::new(),
            grams: Index::default(),
            tokens: Sorted::default(),
            ids: Sorted::default(),
            known: Set::default(),
            planted: Set::default(),
            words: Set::default(),
            urls: Set::default(),
            unknown: None,
            unknown_secret: None,
            labelled: [None; 3],
            aged: None,
            looked: None,
        }
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Memory>()
            + self.replies.capacity() * size_of::<Reply>()
            + self.records.capacity() * size_of::<Kept>()
            + self.digests.capacity() * 4
            + (self.parties.capacity() + self.tokens.capacity() + self.ids.capacity()) * 8
            + self.grams.bytes()
            + (self.known.capacity() + self.planted.capacity() + self.urls.capacity()) * 8
            + self.words.capacity() * 4
    }

    /// Whether nothing is remembered any more.
    pub fn is_over(&self, now: SystemTime) -> bool {
        !self.is_confidential(now)
            && !self.is_secret(now)
            && !self.is_untrusted(now)
            && !self.is_unknown(now)
            && self.replies.iter().all(|reply| self.age(reply.at, now) > self.window)
    }

    /// Whether something internal or secret was read within the window.
    pub fn is_confidential(&self, now: SystemTime) -> bool {
        let [confidential, _, _] = self.labelled;
        self.is_fresh(confidential, self.window, now)
    }

    /// Whether something secret was read within a day, or the window if that is longer.
    pub fn is_secret(&self, now: SystemTime) -> bool {
        let [_, secret, _] = self.labelled;
        self.is_fresh(secret, self.window.max(SECRET_WINDOW), now)
    }

    /// Whether something that outsiders can write was read within the window.
    pub fn is_untrusted(&self, now: SystemTime) -> bool {
        let [_, _, untrusted] = self.labelled;
        self.is_fresh(untrusted, self.window, now)
    }

    /// Whether something was read that is not in here: what leaves may come from it.
    pub fn is_unknown(&self, now: SystemTime) -> bool {
        self.is_fresh(self.unknown, self.window, now)
            || self.is_fresh(self.unknown_secret, self.window.max(SECRET_WINDOW), now)
    }

    fn is_fresh(&self, at: Option<SystemTime>, window: Duration, now: SystemTime) -> bool {
        at.is_some_and(|at| self.age(at, now) <= window)
    }

    /// A clock that went back must not forget: an age that cannot be told counts as none.
    fn age(&self, at: SystemTime, now: SystemTime) -> Duration {
        now.duration_since(at).unwrap_or_default()
    }

    /// Remembers what a reply brought.
    pub fn learn(&mut self, learnt: &Learnt, now: SystemTime) {
        self.label(learnt, now);
        self.forget(now);
        if self.is_full(learnt) {
            self.forget_dead(now);
        }
        if self.is_full(learnt) {
            // Invariant: labels stand, and what has no room is unknown rather than forgotten.
            self.overflow(learnt, now);
            return;
        }
        let reply = self.reply(learnt, now);
        let (mut entries, fragments) = (Entries::default(), &learnt.fragments);
        make_room(&mut self.records, fragments.len());
        make_room(&mut self.digests, fragments.len());
        make_room(&mut self.parties, fragments.iter().map(|fragment| fragment.parties.len()).sum());
        entries.grams.reserve(fragments.iter().map(|fragment| fragment.grams.len()).sum());
        for fragment in fragments {
            self.remember(reply, fragment, learnt, &mut entries, now);
        }
        self.grams.add(entries.grams);
        self.tokens.add(&entries.tokens);
        self.ids.add(&entries.ids);
        self.known.add(&learnt.known);
        self.planted.add(&learnt.planted);
        self.words.add(&learnt.words);
        self.urls.add(&learnt.urls);
    }

    fn is_full(&self, learnt: &Learnt) -> bool {
        self.bytes() + learnt.bytes() > self.bytes_max
            || self.records.len() + learnt.fragments.len() > RECORDS_MAX
    }

    fn label(&mut self, learnt: &Learnt, now: SystemTime) {
        let most = learnt.fragments.iter().map(|fragment| fragment.confidentiality).max();
        let most = most.unwrap_or(learnt.confidentiality).max(learnt.confidentiality);
        let [confidential, secret, untrusted] = &mut self.labelled;
        if most >= Confidentiality::Internal {
            *confidential = (*confidential).max(Some(now));
        }
        if most == Confidentiality::Secret {
            *secret = (*secret).max(Some(now));
        }
        if learnt.integrity != Integrity::Trusted {
            *untrusted = (*untrusted).max(Some(now));
        }
        if learnt.unknown {
            self.overflow(learnt, now);
        }
    }

    fn overflow(&mut self, learnt: &Learnt, now: SystemTime) {
        let most = learnt.fragments.iter().map(|fragment| fragment.confidentiality).max();
        match most.unwrap_or(learnt.confidentiality).max(learnt.confidentiality) {
            // What is public needs no lineage: nothing is subtracted for it, which only asks for more.
            Confidentiality::Public => {}
            Confidentiality::Internal => self.unknown = self.unknown.max(Some(now)),
            Confidentiality::Secret => self.unknown_secret = self.unknown_secret.max(Some(now)),
        }
    }

    fn reply(&mut self, learnt: &Learnt, now: SystemTime) -> u32 {
        // A reply that comes in parts is one of the last.
        const PARALLEL: usize = 64;
        let from = self.replies.len().saturating_sub(PARALLEL);
        let same = self.replies.iter().skip(from).position(|reply| reply.id == learnt.reply);
        if let Some(at) = same.map(|at| from + at) {
            if let Some(reply) = self.replies.get_mut(at) {
                reply.at = reply.at.max(now);
            }
            return at as u32;
        }
        let (upstream, tool) = (Arc::clone(&learnt.upstream), Arc::clone(&learnt.tool));
        make_room(&mut self.replies, 1);
        let first = self.records.len() as u32;
        self.replies.push(Reply { id: learnt.reply, upstream, tool, at: now, first });
        self.replies.len() as u32 - 1
    }

    fn remember(
        &mut self,
        reply: u32,
        fragment: &Fragment,
        learnt: &Learnt,
        entries: &mut Entries,
        now: SystemTime,
    ) {
        let digest = fragment.digest();
        let part = |record: &Kept| {
            let same_record = record.reply == reply && record.number == fragment.number;
            same_record && record.confidentiality == fragment.confidentiality
        };
        // The same record read again takes no room, and is as fresh as it was just read.
        let again = |at: &usize| self.records.get(*at).is_some_and(|record| !part(record));
        let again = places_of(&self.digests, digest).find(again);
        if let Some(record) = again.and_then(|at| self.records.get_mut(at))
            && record.confidentiality == fragment.confidentiality
        {
            record.reply = record.reply.max(reply);
            let (record, at) = (record.reply, again.unwrap_or_default() as u32);
            if let Some(reply) = self.replies.get_mut(record as usize) {
                reply.first = reply.first.min(at);
            }
            return;
        }
        let first = self.replies.get(reply as usize).map(|reply| reply.first as usize).unwrap_or_default();
        let parts = self.records.get(first..).unwrap_or_default();
        let before = parts.iter().rposition(part);
        let at = match before {
            Some(at) => first + at,
            None if self.records.len() >= RECORDS_MAX => return self.overflow(learnt, now),
            None => {
                let parties = (self.parties.len() as u32, fragment.parties.len() as u32);
                self.parties.extend_from_slice(&fragment.parties);
                let (number, confidentiality) = (fragment.number, fragment.confidentiality);
                self.records.push(Kept { reply, number, parties, confidentiality });
                self.digests.push(digest);
                self.publics += u32::from(confidentiality == Confidentiality::Public);
                self.records.len() - 1
            }
        };
        let Ok(number) = RecordNumber::try_from(at) else { return self.overflow(learnt, now) };
        let subtracts = self.subtracts(fragment);
        // A stream that says the same again and again takes no more room.
        let left_out =
            |record| (before.is_some() && record == number) || (subtracts && self.is_public(record, now));
        let is_new = |entry: &Entry| !self.grams.any(entry.hash(), left_out);
        let grams = fragment.grams.iter().map(|gram| Entry::new(*gram, number));
        match before.is_some() || subtracts {
            true => entries.grams.extend(grams.filter(is_new)),
            false => entries.grams.extend(grams),
        }
        entries.tokens.extend(self.new_tokens(fragment, now).map(|token| pack(token, number)));
        entries.ids.extend(fragment.ids.iter().map(|id| pack(*id, number)));
    }

    /// Whether what a public reply said before is no evidence of this record. From a secret nothing is subtracted.
    fn subtracts(&self, fragment: &Fragment) -> bool {
        fragment.confidentiality == Confidentiality::Internal && self.publics > 0
    }

    fn new_tokens(&self, fragment: &Fragment, now: SystemTime) -> impl Iterator<Item = u64> {
        let subtracts = self.subtracts(fragment);
        let tokens = fragment.tokens.iter().copied();
        tokens.filter(move |token| {
            !subtracts || !packed(&self.tokens, *token).any(|number| self.is_public(number, now))
        })
    }

    fn is_public(&self, number: RecordNumber, now: SystemTime) -> bool {
        let record = self.records.get(usize::from(number));
        record.is_some_and(|record| {
            record.confidentiality == Confidentiality::Public && self.is_live(record, now)
        })
    }

    /// A record that has not expired.
    fn live(&self, number: RecordNumber, now: SystemTime) -> Option<&Kept> {
        let record = self.records.get(usize::from(number))?;
        self.is_live(record, now).then_some(record)
    }

    fn is_live(&self, record: &Kept, now: SystemTime) -> bool {
        let window = match record.confidentiality {
            Confidentiality::Secret => self.window.max(SECRET_WINDOW),
            Confidentiality::Public | Confidentiality::Internal => self.window,
        };
        let reply = self.replies.get(record.reply as usize);
        reply.is_some_and(|reply| self.age(reply.at, now) <= window)
    }

    /// Frees what has expired. Labels have a time of their own and are not touched.
    fn forget(&mut self, now: SystemTime) {
        let aged = *self.aged.get_or_insert(now);
        if self.age(aged, now) > self.window {
            // What is older than one window and younger than two is still known: that is the safe side.
            self.aged = Some(now);
            self.known.age();
            self.planted.age();
            self.words.age();
            self.urls.age();
        }
        let looked = *self.looked.get_or_insert(now);
        if self.age(looked, now) > self.window / LOOKS_IN_A_WINDOW {
            self.looked = Some(now);
            self.forget_dead(now);
        }
    }

    fn forget_dead(&mut self, now: SystemTime) {
        let dead = self.records.iter().filter(|record| !self.is_live(record, now)).count();
        if dead == 0 || dead * 4 < self.records.len() {
            // Replies that brought nothing but labels.
            if self.replies.len() > 2 * self.records.len() + 256 {
                self.forget_replies();
            }
            return;
        }
        let mut numbers: Vec<Option<RecordNumber>> = Vec::with_capacity(self.records.len());
        let (mut records, mut digests, mut parties) = (Vec::new(), Vec::new(), Vec::new());
        let mut publics = 0;
        for (record, digest) in self.records.iter().zip(&self.digests) {
            if !self.is_live(record, now) {
                numbers.push(None);
                continue;
            }
            numbers.push(RecordNumber::try_from(records.len()).ok());
            let start = parties.len() as u32;
            parties.extend_from_slice(self.parties_of(record));
            records.push(Kept { parties: (start, record.parties.1), ..*record });
            digests.push(*digest);
            publics += u32::from(record.confidentiality == Confidentiality::Public);
        }
        let number = |old: RecordNumber| numbers.get(usize::from(old)).copied().flatten();
        self.grams.renumber(number);
        renumber_packed(&mut self.tokens, number);
        renumber_packed(&mut self.ids, number);
        (self.records, self.digests, self.parties) = (records, digests, parties);
        self.publics = publics;
        self.replies.iter_mut().for_each(|reply| reply.first = 0);
        self.forget_replies();
    }

    fn forget_replies(&mut self) {
        let mut used = vec![false; self.replies.len()];
        for record in &self.records {
            if let Some(used) = used.get_mut(record.reply as usize) {
                *used = true;
            }
        }
        let mut numbers = Vec::with_capacity(used.len());
        let mut next = 0;
        for used in &used {
            numbers.push(next);
            next += u32::from(*used);
        }
        let mut used = used.into_iter();
        self.replies.retain(|_| used.next().unwrap_or_default());
        for record in &mut self.records {
            record.reply = numbers.get(record.reply as usize).copied().unwrap_or_default();
        }
    }

    fn parties_of(&self, record: &Kept) -> &[u64] {
        let (start, count) = (record.parties.0 as usize, record.parties.1 as usize);
        self.parties.get(start..start + count).unwrap_or_default()
    }
}

/// What the findings ask.
impl Memory {
    /// Whether a place was in a trusted field.
    pub fn knows(&self, exact: u64) -> bool {
        self.known.has(exact)
    }

    /// Whether a place or token stood in free text of outsiders.
    pub fn is_planted(&self, folded: u64) -> bool {
        self.planted.has(folded)
    }

    /// Whether a word stood in free text of outsiders.
    pub fn has_planted_word(&self, word: u32) -> bool {
        self.words.has(word)
    }

    /// Whether a URL was read as it is.
    pub fn has_url(&self, url: u64) -> bool {
        self.urls.has(url)
    }

    /// Whether a place is a party of something that was read.
    pub fn is_party(&self, exact: u64, now: SystemTime) -> bool {
        self.records
            .iter()
            .any(|record| self.parties_of(record).contains(&exact) && self.is_live(record, now))
    }

    /// What says quickly that a gram stands in nothing that was read.
    pub fn filter(&self) -> Filter<'_> {
        self.grams.filter()
    }

    /// The records that a gram stands in, without public and expired ones.
    pub fn by_gram(&self, gram: u32, now: SystemTime, mut found: impl FnMut(RecordNumber)) {
        self.grams.find(gram, |number| {
            if self.is_evidence(number, now) {
                found(number);
            }
        });
    }

    /// The records that a token stands in, without public and expired ones.
    pub fn by_token(&self, token: u64, now: SystemTime) -> impl Iterator<Item = RecordNumber> {
        packed(&self.tokens, token).filter(move |number| self.is_evidence(*number, now))
    }

    /// The records that something refers to, without public and expired ones.
    pub fn by_reference(&self, id: u64, now: SystemTime) -> impl Iterator<Item = RecordNumber> {
        packed(&self.ids, id).filter(move |number| self.is_evidence(*number, now))
    }

    /// Whether anything that was read can be referred to by this, public or not.
    pub fn has_reference(&self, id: u64, now: SystemTime) -> bool {
        packed(&self.ids, id).any(|number| self.live(number, now).is_some())
    }

    fn is_evidence(&self, number: RecordNumber, now: SystemTime) -> bool {
        self.live(number, now).is_some_and(|record| record.confidentiality != Confidentiality::Public)
    }

    /// Whether every one of these places is a party of a record.
    pub fn belongs_to(&self, number: RecordNumber, places: &[u64]) -> bool {
        let Some(record) = self.records.get(usize::from(number)) else { return false };
        let parties = self.parties_of(record);
        !places.is_empty() && places.iter().all(|place| parties.contains(place))
    }

    /// Who a record belongs to.
    pub fn parties(&self, number: RecordNumber) -> &[u64] {
        self.records.get(usize::from(number)).map(|record| self.parties_of(record)).unwrap_or_default()
    }

    /// How confidential a record is.
    pub fn confidentiality(&self, number: RecordNumber) -> Option<Confidentiality> {
        self.records.get(usize::from(number)).map(|record| record.confidentiality)
    }

    /// What is told of a record.
    pub fn origin(&self, number: RecordNumber) -> Option<Origin> {
        let record = self.records.get(usize::from(number))?;
        let reply = self.replies.get(record.reply as usize)?;
        Some(Origin {
            reply: reply.id,
            number: record.number,
            upstream: Arc::clone(&reply.upstream),
            tool: Arc::clone(&reply.tool),
            confidentiality: record.confidentiality,
        })
    }
}

impl Learnt {
    /// About what remembering it takes.
    fn bytes(&self) -> usize {
        let fragment = |fragment: &Fragment| {
            size_of::<Kept>()
                + fragment.grams.len() * 7
                + (fragment.parties.len() + fragment.tokens.len() + fragment.ids.len()) * 8
        };
        self.fragments.iter().map(fragment).sum::<usize>()
            + (self.known.len() + self.planted.len() + self.urls.len()) * 8
            + self.words.len() * 4
            + size_of::<Reply>()
    }
}

impl Fragment {
    fn digest(&self) -> u32 {
        let mut digest = self.grams.len() as u64;
        let mut mix = |word: u64| digest = (digest.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.parties.iter().chain(&self.tokens).chain(&self.ids).copied().for_each(&mut mix);
        // Two at once: each step waits for the one before.
        let (pairs, last) = self.grams.as_chunks();
        pairs.iter().for_each(|[one, two]| mix(u64::from(*one) << 32 | u64::from(*two)));
        last.iter().for_each(|gram| mix(u64::from(*gram)));
        (digest >> 32) as u32
    }
}
