//! The tap: what an agent will get is learnt by flow control before the agent gets it.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::decompress::Decompress;
use crate::flow::keep::{Keeper, Keeping, join};
use crate::flow::learn::{Form, Learner};
use crate::flow::lineage::Learnt;
use crate::json::Document;

/// How much of what has passed is looked at again together with what comes next, in bytes.
const TAIL_BYTES: usize = 256;
/// How much of a reply is learnt as text, in bytes. A run's memory is full before that, so more of it would only cost
/// time: beyond, what was read counts as not known.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Learns one reply in passing.
pub struct Tap {
    keeper: Keeper,
    /// How its bytes are read, once its head has said so. A stream of events is read message by message instead.
    reading: Option<Reading>,
}

struct Reading {
    decompress: Option<Decompress>,
    /// None once it could not be read any more.
    learner: Option<Learner>,
    /// Whether it is learnt at its end.
    whole: bool,
    /// The last bytes that the learner holds and that have passed.
    tail: Vec<u8>,
    /// How many bytes were learnt as text.
    bytes: usize,
    /// Whether something was not learnt, and that is still to be said.
    blind: bool,
}

impl Tap {
    /// The tap of the reply to one call.
    pub fn new(keeper: Keeper) -> Tap {
        Tap { keeper, reading: None }
    }

    /// Notes the head of the reply: how its body is to be read.
    pub fn begun(&mut self, headers: &HeaderMap, mcp: Mcp) {
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let json = kind == "application/json" || kind.ends_with("+json");
        let form = match (mcp, json) {
            (Mcp::Yes, true) => Form::Mcp,
            (Mcp::No, true) => Form::Json,
            (_, false) => Form::Text,
        };
        let decompress = Decompress::of(headers);
        let learner = decompress.is_ok().then(|| self.keeper.learner(form));
        let whole = form != Form::Text && learner.is_some();
        let blind = learner.is_none();
        self.reading = Some(Reading {
            decompress: decompress.unwrap_or_default(),
            learner,
            whole,
            tail: Vec::new(),
            bytes: 0,
            blind,
        });
    }

    /// Whether the reply should be kept back until its end: only then it can be learnt by its structure.
    pub fn reads_whole(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.whole)
    }

    /// The reply takes its time, so it will pass piece by piece, and is learnt as text.
    pub fn hurry(&mut self) {
        let learner = self.keeper.learner(Form::Text);
        if let Some(reading) = self.reading.as_mut().filter(|reading| reading.whole) {
            (reading.whole, reading.learner, reading.blind) = (false, Some(learner), true);
        }
    }

    /// Learns bytes that are to pass. They may, once what this gives has ended.
    pub fn feed(&mut self, bytes: &Bytes) -> Option<Keeping> {
        let reading = self.reading.as_mut()?;
        let learnt = reading.feed(bytes, &self.keeper);
        if std::mem::take(&mut reading.blind) {
            let mut unknown = self.keeper.unknown();
            if let Some(learnt) = learnt {
                join(&mut unknown, learnt);
            }
            return self.keeper.keep(&unknown);
        }
        let learnt = learnt?;
        if reading.whole && learnt.is_empty() {
            // None of it passes before its end, where it is learnt, and its labels are told with that.
            return None;
        }
        self.keeper.keep(&learnt)
    }

    /// Parses a reply that was read whole, where it is learnt by its structure and is as it came.
    pub fn parse(&self, bytes: &Bytes) -> Option<Document> {
        let reading = self.reading.as_ref()?;
        let plain = reading.whole && reading.learner.is_some() && reading.decompress.is_none();
        plain.then(|| Learner::parse(bytes)).flatten()
    }

    /// Learns the whole reply from what [`Tap::parse`] gave, in the place of its bytes.
    pub fn document(&mut self, document: &Document) -> Option<Keeping> {
        let learner = self.reading.as_mut().and_then(|reading| reading.learner.take())?;
        self.keeper.keep(&learner.document(document))
    }

    /// Learns what only the end of the reply shows.
    pub fn finish(&mut self) -> Option<Keeping> {
        let learner = self.reading.as_mut().and_then(|reading| reading.learner.take())?;
        self.keeper.keep(&learner.finish())
    }

    /// Learns one message of a stream of events.
    /// The data is that of the event, all of its lines.
    pub fn message(&mut self, data: &[u8]) -> Option<Keeping> {
        if data.trim_ascii().is_empty() {
            return None;
        }
        let learnt = self.keeper.message(data);
        self.keeper.keep(&learnt)
    }

    /// An event that is too long to be read passes.
    pub fn unread(&mut self) -> Option<Keeping> {
        let learnt = self.keeper.unknown();
        self.keeper.keep(&learnt)
    }
}

/// Whether a reply is one of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mcp {
    /// It is plain HTTP.
    No,
    /// It is.
    Yes,
}

impl Reading {
    /// `None` when there is nothing to learn from, since it cannot be read.
    fn feed(&mut self, bytes: &Bytes, keeper: &Keeper) -> Option<Learnt> {
        let learner = self.learner.as_mut()?;
        let plain = match &mut self.decompress {
            None => Some(bytes.clone()),
            Some(decompress) => decompress.feed(bytes).ok().map(Bytes::from),
        };
        let Some(plain) = plain else {
            (self.learner, self.blind) = (None, true);
            return None;
        };
        self.bytes += plain.len();
        if !self.whole && self.bytes > TEXT_BYTES_MAX {
            (self.learner, self.tail, self.blind) = (None, Vec::new(), true);
            return None;
        }
        let mut learnt = learner.feed(&plain);
        if self.whole {
            return Some(learnt);
        }
        // What the learner holds until it has more passes now, so it is learnt as it is beside that.
        let held = learner.unlearnt_bytes();
        self.tail.extend_from_slice(&plain);
        let from = self.tail.len().saturating_sub(held.min(plain.len() + TAIL_BYTES));
        self.tail.drain(..from);
        if !self.tail.is_empty() {
            let mut ahead = keeper.learner(Form::Text);
            join(&mut learnt, ahead.feed(&self.tail));
            join(&mut learnt, ahead.finish());
        }
        Some(learnt)
    }
}
