//! An MCP stream of events on its way: each event is judged as a whole before any of it passes.
//!
//! A reader acts on an event only when it is complete, so nothing is later for being kept until then. What is between
//! events, such as the comments that keep a stream alive, passes at once.

use std::collections::VecDeque;

use aws_lc_rs::digest;
use bytes::Bytes;

use super::judge::{Judge, Sentence};
use super::parked::Waiting;
use super::tap::Tap;
use crate::call::{Stop, hex};
use crate::decode::jsonrpc::Id;
use crate::decode::sse::{self, Event, ReplyKind, Scanner};
use crate::flow::keep::Keeping;
use crate::record::ReplyFacts;

/// The largest event that is understood, in bytes.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Words for a refusal within a stream, as [`crate::answer`] has them.
pub type Words = Box<dyn Fn(&Stop) -> Vec<u8> + Send + Sync>;

/// Judges the events of one stream.
pub struct Relay {
    scanner: Scanner,
    /// Where in the stream the next piece begins.
    at: u64,
    /// The beginning of an event that is not complete.
    kept: Vec<Bytes>,
    /// The request that the response ends.
    id: Option<Id>,
    words: Words,
}

fn settled(mut waiting: Waiting, data: &[u8]) -> (Waiting, ReplyFacts) {
    let kind = sse::outcome(data);
    let facts = ReplyFacts {
        digest: format!("sha256:{}", hex(digest::digest(&digest::SHA256, data).as_ref())),
        bytes: data.len() as u64,
        // A reply on another stream than its call's is known by its digest alone.
        kept: None,
        tool_error: kind == ReplyKind::ToolError,
        rpc_code: if let ReplyKind::RpcError(code) = kind { Some(code) } else { None },
        withheld: std::mem::take(&mut waiting.judge.withheld),
    };
    (waiting, facts)
}

/// What may pass of a piece.
#[derive(Default)]
pub struct Passed {
    /// What passes now.
    pub now: VecDeque<Bytes>,
    /// The last bytes, which have the response, and how it ended.
    pub response: Option<(Bytes, ReplyKind)>,
    /// Why the stream must end here.
    pub broken: Option<&'static str>,
    /// Calls that are answered here, of which the outcome must be recorded first.
    pub settled: Vec<(Waiting, ReplyFacts)>,
    /// What was learnt, and must be kept before any of this passes.
    pub keeping: Vec<Keeping>,
}

impl Relay {
    /// The relay of a stream on which the request of this id is answered, if any is.
    pub fn new(id: Option<Id>, words: Words) -> Relay {
        Relay { scanner: Scanner::new(EVENT_BYTES_MAX), at: 0, kept: Vec::new(), id, words }
    }

    /// Whether a request is answered on this stream.
    pub fn awaits_response(&self) -> bool {
        self.id.is_some()
    }

    /// Takes the next piece of the stream.
    pub fn feed(&mut self, piece: &Bytes, judge: &mut Judge, mut tap: Option<&mut Tap>) -> Passed {
        let mut passed = Passed::default();
        let (base, mut done) = (self.at, 0);
        self.at += piece.len() as u64;
        let offset =
            |at: u64| usize::try_from(at.saturating_sub(base)).unwrap_or(usize::MAX).min(piece.len());
        for event in self.scanner.feed(piece) {
            let mut end = offset(event.end);
            // A CR LF may be cut after the CR: the LF then belongs to the end as well.
            if end > 0 && piece.get(end) == Some(&b'\n') && piece.get(end - 1) == Some(&b'\r') {
                end += 1;
            }
            let own = piece.slice(done..end);
            done = end;
            if self.event(&event, own, (&mut *judge, tap.as_deref_mut()), &mut passed) {
                return passed;
            }
        }
        if self.scanner.opaque() && judge.is_wary() {
            passed.broken = Some("event-size");
            return passed;
        }
        if self.scanner.opaque() {
            passed.keeping.extend(tap.and_then(Tap::unread));
        }
        let boundary = offset(self.scanner.boundary()).max(done);
        if boundary > done {
            self.release(piece.slice(done..boundary), &mut passed.now);
        }
        if boundary < piece.len() {
            self.kept.push(piece.slice(boundary..));
        }
        passed
    }

    /// What is left of a stream that has ended within an event: the standard discards it, yet a lax reader may act on it.
    pub fn finish(&mut self, judge: &mut Judge, tap: Option<&mut Tap>) -> Passed {
        let mut passed = Passed::default();
        let scanner = std::mem::replace(&mut self.scanner, Scanner::new(EVENT_BYTES_MAX));
        match scanner.finish() {
            Some(event) => {
                self.event(&event, Bytes::new(), (judge, tap), &mut passed);
            }
            None => self.release_kept(&mut passed.now),
        }
        passed
    }

    /// Judges one event, whose last bytes are `own`; true when nothing after it passes.
    fn event(
        &mut self,
        event: &Event,
        own: Bytes,
        (judge, tap): (&mut Judge, Option<&mut Tap>),
        passed: &mut Passed,
    ) -> bool {
        let mut answered = judge.answered_here(&event.data);
        let sentence = match &mut answered {
            Some(waiting) => waiting.judge.message(&event.data),
            None if event.kind == b"endpoint" => judge.endpoint(&event.data),
            None => judge.message(&event.data),
        };
        if matches!(sentence, Sentence::Pass) {
            let tap = match &mut answered {
                Some(waiting) => waiting.tap.as_deref_mut(),
                None => tap,
            };
            passed.keeping.extend(tap.and_then(|tap| tap.message(&event.data)));
        }
        if let Some(waiting) = answered {
            passed.settled.push(settled(waiting, &event.data));
        }
        let bytes = match sentence {
            Sentence::Pass => {
                self.release_kept(&mut passed.now);
                own
            }
            Sentence::Drop => {
                self.kept.clear();
                return false;
            }
            Sentence::Replace(data) => self.rewritten(&own, &data),
            Sentence::Withhold(stop) => {
                let data = (self.words)(&stop);
                self.rewritten(&own, &data)
            }
            Sentence::Break(reason) => {
                passed.broken = Some(reason);
                return true;
            }
        };
        if self.id.as_ref().is_some_and(|id| sse::is_response(&event.data, id)) {
            passed.response = Some((bytes, sse::outcome(&event.data)));
            return true;
        }
        passed.now.push_back(bytes);
        false
    }

    fn release(&mut self, bytes: Bytes, now: &mut VecDeque<Bytes>) {
        self.release_kept(now);
        now.push_back(bytes);
    }

    fn release_kept(&mut self, now: &mut VecDeque<Bytes>) {
        now.extend(self.kept.drain(..));
    }

    /// The event with other data: its other fields stay.
    fn rewritten(&mut self, own: &[u8], data: &[u8]) -> Bytes {
        let mut event: Vec<u8> = self.kept.drain(..).flatten().collect();
        event.extend_from_slice(own);
        let mut text = Vec::with_capacity(data.len() + 64);
        for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
            if !line.is_empty() && !line.starts_with(b"data") {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
        }
        for line in data.split(|byte| *byte == b'\n') {
            text.extend_from_slice(b"data: ");
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        text.push(b'\n');
        Bytes::from(text)
    }
}
