//! What a reply brings, learnt as its bytes pass.
//!
//! JSON is gathered up to a bound and learnt at its end, before its last bytes are released: pointers need all of it.
//! Text, and JSON beyond the bound, is learnt piece by piece as one record. How the bytes are cut makes no difference.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::blocks::{block, readable, unescape};
use super::canon::Canon;
use super::lineage::{Fragment, Learnt};
use super::pointed::{likely_ids, texts};
use super::provenance::{Place, urls};
use super::secret::{self, Labels};
use super::sorted::{Spread, sort_by_hash};
use super::spelled::{NAMES_MAX, Tail, spelled};
use super::text::{FlowKey, Kind, WINDOW_GRAMS, grams};
use super::winnow::Winnower;
use super::words::{Seen, Words};
use crate::call::{Confidentiality, Integrity, RecordId};
use crate::classify::catalog::Reply;
use crate::json::{self, Document, Value};

/// The longest reply that is parsed as JSON; a longer one is learnt as text, without its structure.
pub const JSON_BYTES_MAX: usize = 1 << 20;
/// How many records of one reply are told apart; what is beyond belongs to nobody.
const RECORDS_MAX: usize = 2048;
/// Within a record that outsiders can write to, longer texts with white space are free text.
const STRUCTURE_BYTES_MAX: usize = 24;
/// Of so many bytes one gram is kept, about.
const BYTES_A_GRAM: usize = WINDOW_GRAMS / 2;
/// What a reply's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The body of an HTTP reply that is JSON.
    Json,
    /// One JSON-RPC message of MCP: a body, or the data of one event.
    Mcp,
    /// Anything else.
    Text,
}

/// Where a reply comes from, and what its catalogue entry says of it.
#[derive(Clone)]
pub struct Source {
    /// The key under which everything is hashed.
    pub key: Arc<FlowKey>,
    /// The record of the call.
    pub reply: RecordId,
    /// The upstream.
    pub upstream: Arc<str>,
    /// The tool or operation.
    pub tool: Arc<str>,
    /// The upstream's host when it is outside: it is a party of all that came from it.
    pub host: Option<Arc<str>>,
    /// What the catalogue says; [`Reply::default`] where it says nothing.
    pub returns: Arc<Reply>,
    /// Who everything that the call carried belongs to: what it makes is theirs too.
    pub parties: Vec<u64>,
    /// What the call itself said: a public reply that only repeats it shows nothing to be public.
    pub echo: Echo,
}

/// The grams and tokens of a call's own arguments.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    grams: HashSet<u32>,
    tokens: HashSet<u64>,
}

impl Echo {
    /// Of every string that the agent chose. Only replies that are public need one.
    pub fn of<'t>(key: &FlowKey, strings: impl IntoIterator<Item = &'t str>) -> Echo {
        let mut echo = Echo::default();
        let mut canon = Canon::default();
        for text in strings {
            canon.scan(text);
            echo.grams.extend(grams(key, canon.bytes.iter().copied()));
            canon.tokens(|token| {
                echo.tokens.insert(key.hash(Kind::Token, token));
            });
        }
        echo
    }
}

/// Learns one reply.
pub struct Learner {
    source: Source,
    form: Form,
    /// JSON that is not complete, or the last piece of text.
    held: Vec<u8>,
    text: Option<Text>,
}

thread_local! {
    /// That of the reply that was learnt last, for the next one: to set it aside costs as much as learning a short reply.
    static ROOM: Cell<Room> = Cell::default();
}
/// Room for longer texts is given back.
const ROOM_BYTES_MAX: usize = 64 << 10;

/// Room that one text after another takes.
#[derive(Default)]
struct Room {
    canon: Canon,
    words: Words,
    winnower: Winnower,
    grams: Seen,
    /// How many names may still be spelled out.
    names_left: usize,
}

/// What is being learnt.
struct Learning {
    learnt: Learnt,
    room: Room,
}

impl Learner {
    /// Begins a reply.
    pub fn new(source: Source, form: Form) -> Learner {
        let text = (form == Form::Text).then(|| Text::begin(&source, 0, Writing::Plain));
        Learner { source, form, held: Vec::new(), text }
    }

    /// Takes the next bytes, and gives what is known from them alone. It must be remembered before they are released.
    pub fn feed(&mut self, bytes: &[u8]) -> Learnt {
        let mut to = self.begin(bytes.len());
        if self.text.is_none() && self.held.len() + bytes.len() > JSON_BYTES_MAX {
            // Its records are not told apart, and belong to nobody.
            to.learnt.unknown = self.source.returns.labels.confidentiality != Confidentiality::Public;
            self.text = Some(Text::begin(&self.source, 0, Writing::Escaped));
        }
        match &mut self.text {
            None => self.held.extend_from_slice(bytes),
            Some(text) => {
                if self.held.is_empty() {
                    // Nothing is copied but what is no whole block.
                    let done = text.take(&self.source, bytes, &mut to);
                    self.held.extend_from_slice(bytes.get(done..).unwrap_or_default());
                } else {
                    self.held.extend_from_slice(bytes);
                    let done = text.take(&self.source, &self.held, &mut to);
                    self.held.drain(..done);
                }
                text.give(&self.source, &mut to.learnt);
            }
        }
        self.end(to)
    }

    fn begin(&self, bytes: usize) -> Learning {
        let (learnt, mut room) = (self.source.nothing(), ROOM.take());
        room.words.begin(bytes);
        room.names_left = NAMES_MAX;
        Learning { learnt, room }
    }

    fn end(&self, mut to: Learning) -> Learnt {
        self.source.tidy(&mut to.learnt, &mut to.room.grams);
        if to.room.canon.bytes.capacity() <= ROOM_BYTES_MAX {
            ROOM.set(to.room);
        }
        to.learnt
    }

    /// How many of the bytes that were fed last are not learnt yet: at most one block of a text, and all of a reply that
    /// is parsed at its end. Bytes that are released before they are learnt can leave unseen.
    pub fn unlearnt_bytes(&self) -> usize {
        self.held.len()
    }

    /// Ends the reply, and gives the rest. It must be remembered before the reply's end is released.
    pub fn finish(mut self) -> Learnt {
        let held = std::mem::take(&mut self.held);
        let mut to = self.begin(held.len());
        match &mut self.text {
            Some(text) => {
                let done = text.take(&self.source, &held, &mut to);
                let rest = held.get(done..).unwrap_or_default();
                text.block(&self.source, &readable(rest), &mut to);
                text.end(&self.source, &mut to.learnt);
            }
            None => self.structured(Bytes::from(held), &mut to),
        }
        self.end(to)
    }

    /// Parses a whole reply as it is learnt; `None` for one that is too long for that, or is not JSON.
    pub fn parse(bytes: &Bytes) -> Option<Document> {
        let limits = json::Limits { nodes_max: 1 << 18, ..json::Limits::default() };
        if bytes.len() > JSON_BYTES_MAX {
            return None;
        }
        Document::parse(bytes.clone(), &limits).ok()
    }

    /// Learns a whole reply of JSON from what [`Learner::parse`] gave, in the place of its bytes.
    pub fn document(self, document: &Document) -> Learnt {
        let mut to = self.begin(document.bytes().len());
        self.root(document.root(), &mut to);
        self.end(to)
    }

    fn structured(&self, bytes: Bytes, to: &mut Learning) {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let Some(document) = Learner::parse(&bytes) else {
            // What cannot be parsed is text, and may say more to another reader.
            to.learnt.unknown |= self.source.returns.labels.confidentiality != Confidentiality::Public;
            return self.free(&String::from_utf8_lossy(&bytes), Writing::Escaped, to);
        };
        self.root(document.root(), to);
    }

    fn root(&self, root: Value<'_>, to: &mut Learning) {
        match self.form {
            Form::Mcp => self.message(root, to),
            Form::Json | Form::Text => self.records(root, to),
        }
    }

    /// A message of MCP: `structuredContent`, else the first text, and everything else of the result as text.
    fn message(&self, root: Value<'_>, to: &mut Learning) {
        let Some(result) = root.get("result") else {
            // An error, a notification or a request: nothing in it is a record.
            return self.whole(root, to);
        };
        if let Some(structured) = result.get("structuredContent") {
            return self.records(unwrapped(structured), to);
        }
        let blocks = result.get("content").filter(|content| content.kind() == json::Kind::Array);
        let Some(blocks) = blocks else { return self.records(result, to) };
        let mut texts = blocks.items().filter_map(|block| block.get("text")?.string());
        if let Some(first) = texts.next() {
            let bytes = Bytes::copy_from_slice(first.as_bytes());
            let structure = matches!(first.trim_start().as_bytes().first(), Some(b'{' | b'['));
            match Document::parse(bytes, &json::Limits::default()) {
                Ok(document) if structure => self.records(unwrapped(document.root()), to),
                _ => self.free(&first, Writing::Plain, to),
            }
        }
        for rest in texts {
            self.free(&rest, Writing::Plain, to);
        }
        // Resources and links that lie in the content.
        for block in blocks.items().filter(|block| block.get("text").is_none()) {
            self.whole(block, to);
        }
    }

    /// A text that is one record without structure.
    fn free(&self, text: &str, writing: Writing, to: &mut Learning) {
        let mut free = Text::begin(&self.source, to.learnt.fragments.len() as u32, writing);
        free.block(&self.source, text, to);
        free.end(&self.source, &mut to.learnt);
    }

    /// A value without pointers of its own.
    fn whole(&self, value: Value<'_>, to: &mut Learning) {
        let mut record = Record::begin(&self.source, to.learnt.fragments.len() as u32, &mut to.room);
        record.leaves(value, "", Trust::of(&self.source), &[], to);
        record.end(to);
    }

    fn records(&self, root: Value<'_>, to: &mut Learning) {
        if let Some(text) = root.string() {
            return self.free(&text, Writing::Plain, to);
        }
        let returns = &self.source.returns;
        let mut found = Vec::new();
        match &returns.records {
            Some(pointer) => pointer.values(root, |value| found.push(value)),
            None => found.push(root),
        }
        // What lies beside the records is one more: that of the reply itself.
        let beside = returns.records.is_some();
        for (number, value) in found.iter().take(RECORDS_MAX).enumerate() {
            self.record(number as u32, *value, to);
        }
        let rest = found.get(RECORDS_MAX..).unwrap_or_default();
        if beside || !rest.is_empty() {
            let told: Vec<_> = found.iter().take(RECORDS_MAX).map(Value::range).collect();
            let mut record = Record::begin(&self.source, u32::MAX, &mut to.room);
            record.except = told;
            record.leaves(root, "", Trust::of(&self.source), &[], to);
            record.end(to);
        }
    }

    fn record(&self, number: u32, value: Value<'_>, to: &mut Learning) {
        let source = &self.source;
        let (returns, key) = (&source.returns, &*source.key);
        let mut record = Record::begin(source, number, &mut to.room);
        record.fragment.grams.reserve(value.range().len() / BYTES_A_GRAM);
        let Fragment { parties, ids, .. } = &mut record.fragment;
        texts(&returns.parties, value, |text| parties.push(Place::guess(text).exact(key)));
        texts(&returns.known, value, |text| to.learnt.known.push(Place::guess(text).exact(key)));
        match returns.ids.is_empty() {
            true => ids.extend(likely_ids(value).iter().map(|id| reference(key, id))),
            false => texts(&returns.ids, value, |id| ids.push(reference(key, id))),
        }
        let mut untrusted = Vec::new();
        for pointer in returns.untrusted.iter().flatten() {
            pointer.values(value, |value| untrusted.push(value.range()));
        }
        let trust = match &returns.untrusted {
            Some(_) if source.returns.labels.integrity == Integrity::Mixed => Trust::Pointed,
            _ => Trust::of(source),
        };
        record.leaves(value, "", trust, &untrusted, to);
        record.end(to);
    }
}

/// The hash of what something is referred to by.
pub fn reference(key: &FlowKey, id: &str) -> u64 {
    key.hash(Kind::Reference, id.trim().as_bytes())
}

/// Looks through `{"result": …}`, which servers put around what is no object.
fn unwrapped(value: Value<'_>) -> Value<'_> {
    let mut members = value.members();
    match (members.next(), members.next()) {
        (Some((name, inner)), None) if name == "result" => inner,
        _ => value,
    }
}

impl Source {
    fn nothing(&self) -> Learnt {
        let labels = self.returns.labels;
        Learnt {
            reply: self.reply,
            upstream: Arc::clone(&self.upstream),
            tool: Arc::clone(&self.tool),
            confidentiality: labels.confidentiality,
            integrity: labels.integrity,
            fragments: Vec::new(),
            known: Vec::new(),
            planted: Vec::new(),
            words: Vec::new(),
            urls: Vec::new(),
            unknown: false,
        }
    }

    /// Nearly each once, and of a public reply only what the call did not say itself. A gram or a word may be twice now and
    /// then: a memory keeps it once.
    fn tidy(&self, learnt: &mut Learnt, seen: &mut Seen) {
        for fragment in &mut learnt.fragments {
            if fragment.confidentiality == Confidentiality::Public {
                fragment.grams.retain(|gram| !self.echo.grams.contains(gram));
                fragment.tokens.retain(|token| !self.echo.tokens.contains(token));
            }
            seen.thin(&mut fragment.grams);
            once(&mut fragment.tokens);
            once(&mut fragment.ids);
            once(&mut fragment.parties);
        }
        learnt.fragments.retain(|fragment| {
            !fragment.grams.is_empty() || !fragment.tokens.is_empty() || !fragment.ids.is_empty()
        });
        once(&mut learnt.known);
        once(&mut learnt.planted);
        once(&mut learnt.urls);
    }
}

fn once(hashes: &mut Vec<u64>) {
    sort_by_hash(hashes, Spread::first_bits);
    hashes.dedup();
}

/// Which texts of a record are outsiders'.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// All.
    None,
    /// Free text.
    Structure,
    /// Free text, and what the catalogue points to.
    Pointed,
    /// None.
    All,
}

impl Trust {
    fn of(source: &Source) -> Trust {
        match source.returns.labels.integrity {
            Integrity::Trusted => Trust::All,
            Integrity::Mixed => Trust::Structure,
            Integrity::Untrusted => Trust::None,
        }
    }
}

/// One record on its way.
struct Record<'s> {
    source: &'s Source,
    fragment: Fragment,
    secrets: Vec<u64>,
    winnower: Winnower,
    /// What belongs to other records, as ranges of the document.
    except: Vec<std::ops::Range<usize>>,
}

impl<'s> Record<'s> {
    fn begin(source: &'s Source, number: u32, room: &mut Room) -> Record<'s> {
        Record {
            source,
            fragment: source.fragment(number),
            secrets: Vec::new(),
            winnower: std::mem::take(&mut room.winnower),
            except: Vec::new(),
        }
    }

    fn leaves(
        &mut self,
        value: Value<'_>,
        name: &str,
        trust: Trust,
        untrusted: &[std::ops::Range<usize>],
        to: &mut Learning,
    ) {
        if !self.except.is_empty() && self.except.contains(&value.range()) {
            return;
        }
        let trust =
            if trust == Trust::Pointed && untrusted.contains(&value.range()) { Trust::None } else { trust };
        match value.kind() {
            json::Kind::Array => {
                value.items().for_each(|item| self.leaves(item, name, trust, untrusted, to));
            }
            json::Kind::Object => {
                for (name, member) in value.members() {
                    // A name of the schema is no data; one with white space or an address is.
                    if name.contains(|each: char| each.is_whitespace() || each == '@') {
                        self.leaf(&name, "", trust, to);
                    }
                    self.leaves(member, &name, trust, untrusted, to);
                }
            }
            json::Kind::String => {
                self.leaf(&value.string().unwrap_or_default(), name, trust, to);
            }
            json::Kind::Number => self.leaf(value.number().unwrap_or_default(), name, Trust::All, to),
            json::Kind::Bool | json::Kind::Null => {}
        }
    }

    fn leaf(&mut self, text: &str, name: &str, trust: Trust, to: &mut Learning) {
        let key = &*self.source.key;
        let Learning { learnt, room } = to;
        let canon = &mut room.canon;
        canon.scan(text);
        self.winnower.push(key, &canon.bytes, &mut self.fragment.grams);
        let free = match trust {
            Trust::None => true,
            // What the catalogue points to is more than this, never less.
            Trust::Structure | Trust::Pointed => {
                text.len() > STRUCTURE_BYTES_MAX && text.contains(char::is_whitespace)
            }
            Trust::All => false,
        };
        let tokens = &mut self.fragment.tokens;
        canon.tokens(|token| {
            tokens.push(key.hash(Kind::Token, token));
            if free {
                learnt.planted.push(key.hash(Kind::Name, token));
            }
        });
        let secrets = &mut self.secrets;
        secret::find(text, canon, Labels::named(name), |secret| secrets.push(key.hash(Kind::Token, secret)));
        urls(text, canon, |url| learnt.urls.push(url.hash(key)));
        if free {
            plant(key, text, room, learnt);
        }
    }

    fn end(mut self, to: &mut Learning) {
        self.winnower.end(&self.source.key, &mut self.fragment.grams);
        to.room.winnower = self.winnower;
        push_fragment(self.fragment, self.secrets, &mut to.learnt);
    }
}

impl Source {
    fn fragment(&self, number: u32) -> Fragment {
        let host = self.host.iter().map(|host| Place::guess(host).exact(&self.key));
        Fragment {
            number,
            confidentiality: self.returns.labels.confidentiality,
            parties: host.chain(self.parties.iter().copied()).collect(),
            grams: Vec::new(),
            tokens: Vec::new(),
            ids: Vec::new(),
        }
    }
}

/// A record, and the secrets that were recognised in it as one that is secret.
fn push_fragment(fragment: Fragment, secrets: Vec<u64>, learnt: &mut Learnt) {
    if !secrets.is_empty() {
        learnt.fragments.push(Fragment {
            confidentiality: Confidentiality::Secret,
            parties: fragment.parties.clone(),
            tokens: secrets,
            grams: Vec::new(),
            ids: Vec::new(),
            number: fragment.number,
        });
    }
    learnt.fragments.push(fragment);
}

/// Free text of outsiders: its places and its words. Its tokens are found already.
fn plant(key: &FlowKey, text: &str, room: &mut Room, learnt: &mut Learnt) {
    let Room { canon, words, names_left, .. } = room;
    words.add(key, canon, &mut learnt.words);
    for (_, piece) in canon.odd_pieces() {
        if piece.has_dotted_letters() || piece.has_at() {
            // `www.evil.com` and `mailto:x@evil.com` as the place that they are.
            let raw = text.get(piece.raw_start as usize..piece.raw_end as usize).unwrap_or_default();
            learnt.planted.push(Place::guess(raw).folded(key));
        } else if piece.has_digit() {
            learnt.planted.push(key.hash(Kind::Name, canon.piece(piece)));
        }
    }
    let planted = &mut learnt.planted;
    let read =
        spelled(text, canon, &words.cues, names_left, &mut |name| planted.push(key.hash(Kind::Name, name)));
    learnt.unknown |= read.is_err();
}

/// How a text is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// As it is.
    Plain,
    /// With the escapes of JSON.
    Escaped,
}

/// Text that is learnt in passing, as one record, block by block.
struct Text {
    writing: Writing,
    /// What is learnt and not given yet.
    fragment: Fragment,
    secrets: Vec<u64>,
    winnower: Winnower,
    tail: Tail,
}

impl Text {
    fn begin(source: &Source, number: u32, writing: Writing) -> Text {
        let (fragment, winnower) = (source.fragment(number), Winnower::default());
        Text { writing, fragment, secrets: Vec::new(), winnower, tail: Tail::default() }
    }

    /// Takes the blocks that are complete, and gives how many bytes that was.
    fn take(&mut self, source: &Source, held: &[u8], to: &mut Learning) -> usize {
        let mut done = 0;
        while let Some(end) = block(held.get(done..).unwrap_or_default()) {
            let block = held.get(done..done + end).unwrap_or_default();
            self.block(source, &readable(block), to);
            done += end;
        }
        done
    }

    fn block(&mut self, source: &Source, text: &str, to: &mut Learning) {
        let unescaped = (self.writing == Writing::Escaped).then(|| unescape(text));
        let text = unescaped.as_deref().unwrap_or(text);
        let key = &*source.key;
        let Text { fragment, secrets, winnower, tail, .. } = self;
        let Learning { learnt, room } = to;
        let canon = &mut room.canon;
        canon.scan(text);
        winnower.push(key, &canon.bytes, &mut fragment.grams);
        let free = source.returns.labels.integrity != Integrity::Trusted;
        canon.tokens(|token| {
            fragment.tokens.push(key.hash(Kind::Token, token));
            if free {
                learnt.planted.push(key.hash(Kind::Name, token));
            }
        });
        secret::find(text, canon, Labels::None, |secret| secrets.push(key.hash(Kind::Token, secret)));
        urls(text, canon, |url| learnt.urls.push(url.hash(key)));
        if free {
            plant(key, text, room, learnt);
            let (planted, left) = (&mut learnt.planted, &mut room.names_left);
            let read = tail.across(text, left, &mut |name| planted.push(key.hash(Kind::Name, name)));
            learnt.unknown |= read.is_err();
        }
    }

    fn end(&mut self, source: &Source, learnt: &mut Learnt) {
        self.winnower.end(&source.key, &mut self.fragment.grams);
        self.give(source, learnt);
    }

    /// Gives what was learnt since the last time.
    fn give(&mut self, source: &Source, learnt: &mut Learnt) {
        self.winnower.select(&source.key, &mut self.fragment.grams);
        let next = source.fragment(self.fragment.number);
        let fragment = std::mem::replace(&mut self.fragment, next);
        push_fragment(fragment, std::mem::take(&mut self.secrets), learnt);
    }
}
