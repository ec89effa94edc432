//! What one agent sent, and where: for what no single call shows.
//!
//! A destination that an agent brought up itself never becomes known by being read back. Bytes carried by URLs, and
//! records carried at all, are added up for each destination. What a flow finding stopped is remembered, so that trying
//! around it is seen. Nothing is forgotten by the number of calls: who pads gains nothing.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// How much of what was sent to a destination is joined with what comes next, in bytes.
pub const JOINED_BYTES_MAX: usize = 1024;
/// Destinations that one agent's history tells apart. Beyond it every further one counts as all of them.
const DESTINATIONS_MAX: usize = 1024;
/// Records that are counted for one destination.
const CARRIED_MAX: usize = 16;
/// Destinations that an agent introduced. Beyond it no destination becomes known to it any more.
const INTRODUCED_MAX: usize = 4096;
/// Stopped calls that are remembered.
const STOPPED_MAX: usize = 64;

/// What one agent sent, and where.
#[derive(Clone, Debug, Default)]
pub struct History {
    destinations: HashMap<u64, Sent>,
    introduced: HashMap<u64, SystemTime>,
    stopped: Vec<Stopped>,
}

/// What was sent to one destination within the window.
#[derive(Clone, Debug)]
struct Sent {
    at: SystemTime,
    /// The end of what was sent, which is kept in memory only.
    tail: String,
    /// Bytes that URLs carried, beyond their hosts.
    url_bytes: u64,
    /// Which confidential records were carried: reply and number, hashed.
    carried: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Stopped {
    /// The call, whole.
    digest: u64,
    destinations: Vec<u64>,
    at: SystemTime,
}

/// Something that happened, for the journal. Everything in it is a keyed hash or a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A call that leaves was allowed.
    Sent {
        /// Where it went, by exact form.
        destinations: Vec<u64>,
        /// Those of them that were not known when the agent used them.
        introduced: Vec<u64>,
        /// How many bytes URLs to them carried.
        url_bytes: u64,
        /// Which confidential records it carried.
        carried: Vec<u64>,
    },
    /// A flow finding stopped a call.
    Stopped {
        /// The call, whole.
        digest: u64,
        /// Where it would have gone, by exact form.
        destinations: Vec<u64>,
    },
    /// A person approved a call that had been stopped.
    Approved {
        /// The call, whole.
        digest: u64,
    },
}

impl History {
    /// Takes note of what happened; a restart takes the same notes again.
    pub fn note(&mut self, step: &Step, now: SystemTime, window: Duration) {
        match step {
            Step::Sent { destinations, introduced, url_bytes, carried } => {
                for place in destinations {
                    let sent = self.sent(*place, now, window);
                    sent.url_bytes = sent.url_bytes.saturating_add(*url_bytes);
                    // No more room is set aside than is kept, however much one call carried.
                    for record in carried {
                        if sent.carried.len() < CARRIED_MAX && !sent.carried.contains(record) {
                            sent.carried.push(*record);
                        }
                    }
                }
                for place in introduced {
                    if self.introduced.len() < INTRODUCED_MAX {
                        self.introduced.insert(*place, now);
                    }
                }
            }
            Step::Stopped { digest, destinations } => {
                self.stopped.retain(|stopped| stopped.digest != *digest);
                if self.stopped.len() >= STOPPED_MAX {
                    self.stopped.remove(0);
                }
                let destinations = destinations.clone();
                self.stopped.push(Stopped { digest: *digest, destinations, at: now });
            }
            Step::Approved { digest } => self.stopped.retain(|stopped| stopped.digest != *digest),
        }
    }

    /// Keeps the end of what was sent to a place, to be joined with what comes next.
    pub fn keep_tail(&mut self, place: u64, text: &str, now: SystemTime, window: Duration) {
        let tail = &mut self.sent(place, now, window).tail;
        tail.push_str(text);
        let excess = tail.len().saturating_sub(JOINED_BYTES_MAX);
        let cut = (excess..=tail.len()).find(|at| tail.is_char_boundary(*at)).unwrap_or(tail.len());
        tail.drain(..cut);
    }

    /// The end of what was sent to a place within the window.
    pub fn tail(&self, place: u64, now: SystemTime, window: Duration) -> &str {
        self.fresh(place, now, window).map(|sent| &*sent.tail).unwrap_or_default()
    }

    /// How many bytes URLs to a place carried within the window.
    pub fn url_bytes(&self, place: u64, now: SystemTime, window: Duration) -> u64 {
        self.fresh(place, now, window).map(|sent| sent.url_bytes).unwrap_or_default()
    }

    /// The confidential records that a place got within the window.
    pub fn carried(&self, place: u64, now: SystemTime, window: Duration) -> &[u64] {
        self.fresh(place, now, window).map(|sent| sent.carried.as_slice()).unwrap_or_default()
    }

    /// Whether the agent brought a place up itself, so that reading it back proves nothing.
    pub fn introduced(&self, place: u64) -> bool {
        self.introduced.contains_key(&place) || self.introduced.len() >= INTRODUCED_MAX
    }

    /// Whether another call than this one was stopped within the window, and this one tries the same place or a new one.
    pub fn is_probing(
        &self,
        digest: u64,
        places: &[u64],
        new: Option<u64>,
        now: SystemTime,
        window: Duration,
    ) -> bool {
        let fresh = |stopped: &&Stopped| now.duration_since(stopped.at).unwrap_or_default() <= window;
        let mut others = self.stopped.iter().filter(fresh).peekable();
        if others.peek().is_none() || self.stopped.iter().any(|stopped| stopped.digest == digest) {
            return false;
        }
        new.is_some() || others.any(|stopped| stopped.destinations.iter().any(|place| places.contains(place)))
    }

    /// What this takes in memory, about.
    pub fn bytes(&self) -> usize {
        let sent = |sent: &Sent| size_of::<Sent>() + 16 + sent.tail.capacity() + sent.carried.capacity() * 8;
        self.destinations.values().map(sent).sum::<usize>()
            + self.introduced.len() * 32
            + self.stopped.len() * 64
    }

    fn fresh(&self, place: u64, now: SystemTime, window: Duration) -> Option<&Sent> {
        let place = if self.destinations.contains_key(&place) { place } else { 0 };
        let sent = self.destinations.get(&place)?;
        (now.duration_since(sent.at).unwrap_or_default() <= window).then_some(sent)
    }

    fn sent(&mut self, place: u64, now: SystemTime, window: Duration) -> &mut Sent {
        if !self.destinations.contains_key(&place) && self.destinations.len() >= DESTINATIONS_MAX {
            self.destinations.retain(|_, sent| now.duration_since(sent.at).unwrap_or_default() <= window);
        }
        let full = self.destinations.len() >= DESTINATIONS_MAX;
        // All that have no room share one, so that making up destinations hides nothing.
        let place = if full && !self.destinations.contains_key(&place) { 0 } else { place };
        let new = || Sent { at: now, tail: String::new(), url_bytes: 0, carried: Vec::new() };
        let sent = self.destinations.entry(place).or_insert_with(new);
        if now.duration_since(sent.at).unwrap_or_default() > window {
            *sent = new();
        }
        sent.at = sent.at.max(now);
        sent
    }
}
