//! Strict JSON: one pass over the bytes, no copies, and a refusal of everything that two parsers could read differently.
//!
//! RFC 8259 leaves duplicate keys, huge numbers and lone surrogates to the implementation, and Go folds the case of
//! keys: a gateway that decides on one reading while the upstream executes another enforces nothing. So a
//! [`Document`] exists only for text that every reader understands alike, and the bytes that were parsed are the
//! bytes that are forwarded. The document is a tape of byte ranges: a value is looked at where it lies.

mod members;
mod text;

pub use members::Members;
pub use text::fold;
use text::{plain_run, unescape};

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

/// What a document may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How deeply arrays and objects may nest.
    pub depth_max: usize,
    /// How many values and keys there may be.
    pub nodes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { depth_max: 64, nodes_max: 1 << 20 }
    }
}

/// Why a text is not acceptable JSON, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A stable word: `duplicate-key`, `case-folded-key`, `key-control-character`, `utf8`, `surrogate`, `depth`,
    /// `nodes`, `trailing-data`, `number`, `string`, `literal`, `syntax`, `byte-order-mark`, `empty`.
    pub reason: &'static str,
    /// The byte offset.
    pub at: usize,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.at)
    }
}

/// The kind of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[…]`
    Array,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
    /// A number, kept as written.
    Number,
    /// `{…}`
    Object,
    /// `"…"`
    String,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    kind: Kind,
    /// Whether it is a string that is not written as it reads.
    escaped: bool,
    start: u32,
    end: u32,
    /// The tape index after this value and all that is in it.
    next: u32,
}

/// A text that every JSON parser reads alike.
#[derive(Clone, Debug)]
pub struct Document {
    text: ByteString,
    nodes: Vec<Node>,
}

/// A value within a [`Document`].
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    document: &'a Document,
    node: Node,
    at: usize,
}

impl Document {
    /// Parses a whole text; anything after the value but white space is refused.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Document, Fault> {
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(Fault { reason: "byte-order-mark", at: 0 });
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(Fault { reason: "nodes", at: 0 });
        }
        let text =
            ByteString::try_from(bytes).map_err(|error| Fault { reason: "utf8", at: error.valid_up_to() })?;
        // A reply of records has a value for every so many bytes.
        const BYTES_A_NODE: usize = 32;
        let nodes = Vec::with_capacity((text.len() / BYTES_A_NODE).clamp(32, 1 << 12));
        let mut parser =
            Parser { text: &text, bytes: text.as_bytes(), at: 0, nodes, keys: Vec::new(), limits };
        parser.space();
        if parser.at == text.len() {
            return Err(parser.fault("empty"));
        }
        parser.value(0)?;
        parser.space();
        if parser.at != text.len() {
            return Err(parser.fault("trailing-data"));
        }
        let nodes = parser.nodes;
        Ok(Document { text, nodes })
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        const NULL: Node = Node { kind: Kind::Null, escaped: false, start: 0, end: 0, next: 1 };
        Value { document: self, node: self.nodes.first().copied().unwrap_or(NULL), at: 0 }
    }

    /// The bytes that were parsed, untouched.
    pub fn bytes(&self) -> &Bytes {
        self.text.as_bytes()
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    fn at(document: &'a Document, at: usize) -> Option<Value<'a>> {
        document.nodes.get(at).map(|node| Value { document, node: *node, at })
    }

    /// The kind of this value.
    pub fn kind(&self) -> Kind {
        self.node.kind
    }

    /// Where this value lies in the document's bytes.
    pub fn range(&self) -> Range<usize> {
        self.node.start as usize..self.node.end as usize
    }

    /// This value exactly as written.
    pub fn raw(&self) -> &'a [u8] {
        self.written().as_bytes()
    }

    /// The same as text.
    fn written(&self) -> &'a str {
        self.document.text.get(self.range()).unwrap_or_default()
    }

    /// The text of a string, unescaped.
    pub fn string(&self) -> Option<Cow<'a, str>> {
        if self.kind() != Kind::String {
            return None;
        }
        let raw = self.written();
        let inner = raw.get(1..raw.len().checked_sub(1)?)?;
        Some(if self.node.escaped { unescape(inner) } else { Cow::Borrowed(inner) })
    }

    /// A number as written.
    pub fn number(&self) -> Option<&'a str> {
        (self.kind() == Kind::Number).then(|| self.written())
    }

    /// A boolean.
    pub fn boolean(&self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.raw() == b"true")
    }

    /// The member of an object by its (unescaped) key.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let end = if self.kind() == Kind::Object { self.node.next as usize } else { 0 };
        let nodes = &self.document.nodes;
        let mut at = self.at + 1;
        while at < end {
            let (name, value) = (nodes.get(at)?, nodes.get(at + 1)?);
            // By its size alone most names are another, and need not be read.
            let is_it = (name.escaped || (name.end - name.start) as usize == key.len() + 2)
                && Value { document: self.document, node: *name, at }.is_text(key);
            if is_it {
                return Some(Value { document: self.document, node: *value, at: at + 1 });
            }
            at = value.next as usize;
        }
        None
    }

    /// Whether this is a string of exactly this (unescaped) text.
    fn is_text(&self, text: &str) -> bool {
        if self.node.escaped {
            return self.string().as_deref() == Some(text);
        }
        let raw = self.raw();
        raw.get(1..raw.len().saturating_sub(1)) == Some(text.as_bytes())
    }

    /// The elements of an array; nothing for any other kind.
    pub fn items(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let document = self.document;
        let end = if self.kind() == Kind::Array { self.node.next as usize } else { 0 };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            let value = (at < end).then(|| Value::at(document, at)).flatten()?;
            at = value.node.next as usize;
            Some(value)
        })
    }

    /// The members of an object, in order; nothing for any other kind.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> + use<'a> {
        let document = self.document;
        let end = if self.kind() == Kind::Object { self.node.next as usize } else { 0 };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            let key = (at < end).then(|| Value::at(document, at)).flatten()?;
            let value = Value::at(document, at + 1)?;
            at = value.node.next as usize;
            Some((key.string()?, value))
        })
    }

    /// The members of an object whose key folds to the same as this one; nothing for any other kind.
    pub fn folding_to<'k>(&self, key: &'k str) -> impl Iterator<Item = Value<'a>> + use<'a, 'k> {
        let document = self.document;
        let end = if self.kind() == Kind::Object { self.node.next as usize } else { 0 };
        let mut at = self.at + 1;
        let member = move || {
            let name = (at < end).then(|| Value::at(document, at)).flatten()?;
            let value = Value::at(document, at + 1)?;
            at = value.node.next as usize;
            Some((name, value))
        };
        let found = move |(name, value): (Value<'a>, Value<'a>)| name.folds_to(key).then_some(value);
        std::iter::from_fn(member).filter_map(found)
    }

    /// Whether this is a string that folds to the same as this text. What is ASCII is folded by its case alone.
    fn folds_to(&self, text: &str) -> bool {
        let Range { start, end } = self.range();
        let inner = self.document.text.as_bytes().get(start + 1..end.saturating_sub(1)).unwrap_or_default();
        if self.node.escaped {
            return self.string().is_some_and(|name| fold(&name) == fold(text));
        }
        // Each character is folded by itself, so most names are another one by their first.
        if let (Some(one), Some(two)) = (inner.first(), text.as_bytes().first())
            && one.is_ascii()
            && two.is_ascii()
            && !one.eq_ignore_ascii_case(two)
        {
            return false;
        }
        inner.eq_ignore_ascii_case(text.as_bytes())
            || !(inner.is_ascii() && text.is_ascii())
                && self.string().is_some_and(|name| fold(&name) == fold(text))
    }

    /// Every value that a JSON Pointer [RFC 6901] leads to; a `*` segment stands for every element or member.
    pub fn pointer(&self, pointer: &str) -> Vec<Value<'a>> {
        let mut found = vec![*self];
        for segment in pointer.split('/').skip(1) {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            found = found.iter().flat_map(|value| value.step(&segment)).collect();
        }
        found
    }

    fn step(&self, segment: &str) -> Vec<Value<'a>> {
        match self.kind() {
            Kind::Array if segment == "*" => self.items().collect(),
            Kind::Array => segment.parse().ok().and_then(|at| self.items().nth(at)).into_iter().collect(),
            Kind::Object if segment == "*" => self.members().map(|(_, value)| value).collect(),
            Kind::Object => self.get(segment).into_iter().collect(),
            Kind::Bool | Kind::Null | Kind::Number | Kind::String => Vec::new(),
        }
    }
}

// === impl Parser ===

struct Parser<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    nodes: Vec<Node>,
    /// Those of the objects that are open, the innermost last.
    keys: Vec<Key<'t>>,
    limits: &'t Limits,
}

impl<'t> Parser<'t> {
    fn fault(&self, reason: &'static str) -> Fault {
        Fault { reason, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn open(&mut self, kind: Kind) -> Result<usize, Fault> {
        if self.nodes.len() >= self.limits.nodes_max {
            return Err(self.fault("nodes"));
        }
        let index = self.nodes.len();
        self.nodes.push(Node { kind, escaped: false, start: self.at as u32, end: 0, next: 0 });
        Ok(index)
    }

    fn close(&mut self, index: usize) {
        let (end, next) = (self.at as u32, self.nodes.len() as u32);
        if let Some(node) = self.nodes.get_mut(index) {
            node.end = end;
            node.next = next;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b't') => self.literal("true", Kind::Bool),
            Some(b'f') => self.literal("false", Kind::Bool),
            Some(b'n') => self.literal("null", Kind::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.fault("syntax")),
        }
    }

    fn literal(&mut self, word: &str, kind: Kind) -> Result<(), Fault> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return Err(self.fault("literal"));
        }
        let index = self.open(kind)?;
        self.at += word.len();
        self.close(index);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.fault("number")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Fault> {
        let index = self.open(Kind::Number)?;
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        // A number beyond a double is `null` to one reader and an error or infinity to others.
        let finite = self
            .text
            .get(start..self.at)
            .and_then(|text| text.parse::<f64>().ok())
            .is_some_and(f64::is_finite);
        if !finite {
            return Err(Fault { reason: "number", at: start });
        }
        self.close(index);
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        let index = self.open(Kind::String)?;
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_run(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.escape()?;
                    escaped = true;
                }
                Some(0..=0x1f) | None => return Err(self.fault("string")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        self.close(index);
        if let Some(node) = self.nodes.get_mut(index) {
            node.escaped = escaped;
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += 2;
        match self.bytes.get(start + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let high = self.hex4()?;
                if (0xdc00..0xe000).contains(&high) {
                    return Err(Fault { reason: "surrogate", at: start });
                }
                if (0xd800..0xdc00).contains(&high) {
                    let follows = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u"));
                    self.at += 2;
                    if !follows || !(0xdc00..0xe000).contains(&self.hex4()?) {
                        return Err(Fault { reason: "surrogate", at: start });
                    }
                }
                Ok(())
            }
            _ => Err(Fault { reason: "string", at: start }),
        }
    }

    fn hex4(&mut self) -> Result<u32, Fault> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(self.fault("string"))?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.fault("string"));
        }
        let text = std::str::from_utf8(digits).unwrap_or_default();
        self.at += 4;
        u32::from_str_radix(text, 16).map_err(|_| self.fault("string"))
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        if depth >= self.limits.depth_max {
            return Err(self.fault("depth"));
        }
        let index = self.open(Kind::Array)?;
        self.at += 1;
        self.space();
        if self.peek() != Some(b']') {
            loop {
                self.value(depth + 1)?;
                if !self.comma(b']')? {
                    break;
                }
            }
        }
        self.at += 1;
        self.close(index);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        if depth >= self.limits.depth_max {
            return Err(self.fault("depth"));
        }
        let index = self.open(Kind::Object)?;
        let (first, mut many) = (self.keys.len(), None);
        self.at += 1;
        self.space();
        if self.peek() != Some(b'}') {
            loop {
                let start = self.at;
                if self.peek() != Some(b'"') {
                    return Err(self.fault("syntax"));
                }
                self.string()?;
                let inner = self.text.get(start + 1..self.at - 1).unwrap_or_default();
                let key = Key::of(inner).and_then(|key| key.add(&mut self.keys, first, &mut many));
                key.map_err(|reason| Fault { reason, at: start })?;
                self.space();
                if self.peek() != Some(b':') {
                    return Err(self.fault("syntax"));
                }
                self.at += 1;
                self.space();
                self.value(depth + 1)?;
                if !self.comma(b'}')? {
                    break;
                }
            }
        }
        self.keys.truncate(first);
        self.at += 1;
        self.close(index);
        Ok(())
    }

    /// Steps over a comma; `false` when the closing character is next.
    fn comma(&mut self, closing: u8) -> Result<bool, Fault> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(found) if found == closing => Ok(false),
            _ => Err(self.fault("syntax")),
        }
    }
}

/// The key of an object that is open.
struct Key<'t> {
    name: Cow<'t, str>,
    /// Whether it is of visible ASCII alone.
    visible: bool,
}

/// The keys of one object, where they are too many to be compared in turn.
struct Many {
    exact: HashSet<String>,
    folded: HashSet<String>,
}

impl Many {
    fn add(&mut self, key: &str) -> Result<(), &'static str> {
        if !self.exact.insert(key.to_owned()) {
            return Err("duplicate-key");
        }
        if self.folded.insert(fold(key)) { Ok(()) } else { Err("case-folded-key") }
    }
}

impl<'t> Key<'t> {
    fn of(inner: &'t str) -> Result<Key<'t>, &'static str> {
        let name = unescape(inner);
        // Nearly every key is.
        let visible = name.bytes().fold(true, |visible, byte| visible & matches!(byte, b' '..=b'~'));
        if !visible && name.chars().any(char::is_control) {
            return Err("key-control-character");
        }
        Ok(Key { name, visible })
    }

    /// Adds a key to those of the objects that are open; those of its own begin at `first`.
    fn add(self, open: &mut Vec<Key<'t>>, first: usize, many: &mut Option<Many>) -> Result<(), &'static str> {
        const FEW: usize = 12;
        let few = open.get(first..).unwrap_or_default();
        if few.len() < FEW {
            few.iter().try_for_each(|other| self.differs(other))?;
            open.push(self);
            return Ok(());
        }
        let many = many.get_or_insert_with(|| Many {
            exact: few.iter().map(|key| key.name.to_string()).collect(),
            folded: few.iter().map(|key| fold(&key.name)).collect(),
        });
        many.add(&self.name)
    }

    fn differs(&self, other: &Key<'_>) -> Result<(), &'static str> {
        if self.name == other.name {
            return Err("duplicate-key");
        }
        let same = match self.visible && other.visible {
            true => self.name.eq_ignore_ascii_case(&other.name),
            false => fold(&self.name) == fold(&other.name),
        };
        if same { Err("case-folded-key") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
