//! Text as flow control compares it: one canonical form, its pieces, and the keyed hashes of both.
//!
//! What was read is never kept, only hashes of it under a key of the gateway's own, so two texts can be compared by who
//! has the key and read back by nobody. The canonical form has letters and digits in lower case and nothing else, so
//! that case, punctuation, white space, zero-width characters, look-alikes and diacritics make no difference.
//! Runs of [`GRAM_BYTES`] of it are hashed. Of what is read the smallest hash in each window of [`WINDOW_GRAMS`] is
//! kept (winnowing, [Schleimer, Wilkerson, Aiken 2003]): a run of `GRAM_BYTES + WINDOW_GRAMS - 1` bytes that two texts
//! share always has one of them. Of what leaves every gram is looked up.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::confusable_detection::skeleton;

/// The length of a gram, in bytes of canonical text.
pub const GRAM_BYTES: usize = 16;
/// Of how many neighbouring grams one is kept.
pub const WINDOW_GRAMS: usize = 16;
/// The shortest token, in bytes of canonical text.
const TOKEN_BYTES_MIN: usize = 5;
/// The shortest token of digits alone.
const NUMBER_BYTES_MIN: usize = 6;
/// The longest token; a longer piece is text and has grams.
const TOKEN_BYTES_MAX: usize = 128;
/// A piece of letters alone is a token from this length, if its case is mixed.
const MIXED_CASE_BYTES_MIN: usize = 20;

/// The key under which everything that was read is hashed. Two gateways, and two keys, have no hash in common.
///
/// The hashes are keyed multiplications, which are quick and spread well. They are no message authentication: what
/// keeps them from being read backwards is that neither the key nor a hash is ever told to anybody.
#[derive(Clone)]
pub struct FlowKey {
    grams: [u64; 2],
    mix: [u64; 2],
}

impl FlowKey {
    /// A key from 32 secret bytes.
    pub fn new(bytes: &[u8; 32]) -> FlowKey {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let word = |counter: u64| {
            let block = hmac::sign(&secret, &counter.to_le_bytes());
            block.as_ref().first_chunk().map(|word| u64::from_le_bytes(*word)).unwrap_or_default()
        };
        FlowKey { grams: [word(0), word(1)], mix: [word(2), word(3)] }
    }

    /// The hash of a short text. Texts of different kinds never meet.
    pub fn hash(&self, kind: Kind, bytes: &[u8]) -> u64 {
        let mut hash = self.begin(kind, bytes.len());
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            hash = self.fold_in(hash, u128::from_le_bytes(*block));
        }
        let rest = rest.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte));
        fold(self.fold_in(hash, rest), self.mix[0])
    }

    /// The same for a text of less than 16 bytes, with whatever stands after it there.
    #[inline]
    fn hash_within(&self, kind: Kind, text: &[u8; 16], len: usize) -> u64 {
        let rest = u128::from_le_bytes(*text) & ((1 << (len * 8)) - 1);
        fold(self.fold_in(self.begin(kind, len), rest), self.mix[0])
    }

    #[inline]
    fn begin(&self, kind: Kind, len: usize) -> u64 {
        self.mix[0] ^ (kind as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ len as u64
    }

    #[inline]
    fn fold_in(&self, hash: u64, block: u128) -> u64 {
        fold(hash ^ block as u64, self.mix[1] ^ (block >> 64) as u64)
    }

    /// The hash of one gram, its first byte the lowest.
    #[inline]
    fn gram(&self, gram: u128) -> u32 {
        let [one, two] = self.grams;
        (fold(gram as u64 ^ one, (gram >> 64) as u64 ^ two) >> 16) as u32
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// What a hash is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rare token, in canonical form.
    Token,
    /// A word, in canonical form.
    Word,
    /// What an object can be referred to by, in canonical form.
    Reference,
    /// A mail address, in lower case.
    Mail,
    /// A host: its registrable domain.
    Host,
    /// An account, a user, a channel, a path: any other name, in canonical form.
    Name,
    /// A whole URL, without its scheme.
    Url,
    /// Anything that is compared whole, such as a call.
    Whole,
}

/// The hash of every gram of a canonical text, in order.
pub fn grams<'k>(
    key: &'k FlowKey,
    canonical: impl IntoIterator<Item = u8> + 'k,
) -> impl Iterator<Item = u32> + 'k {
    let mut rolling = Rolling::default();
    canonical.into_iter().filter_map(move |byte| rolling.push(key, byte))
}

/// Calls back with the hash of every gram of a canonical text, and with those of the same gram reversed and turned by
/// rot13: one pass for the three ways in which letters hide without an encoding. `turned` is room for the last.
#[inline]
pub fn grams_three_ways(
    key: &FlowKey,
    canonical: &[u8],
    turned: &mut Vec<u8>,
    mut each: impl FnMut([u32; 3]),
) {
    turned.clear();
    turned.extend(canonical.iter().copied().map(rot13));
    let whole = |bytes: &[u8]| bytes.first_chunk().map(|gram| u128::from_le_bytes(*gram)).unwrap_or_default();
    for (plain, turned) in canonical.windows(GRAM_BYTES).zip(turned.windows(GRAM_BYTES)) {
        let (plain, turned) = (whole(plain), whole(turned));
        each([key.gram(plain), key.gram(plain.swap_bytes()), key.gram(turned)]);
    }
}

/// A canonical byte turned by thirteen letters; digits stay.
#[inline]
pub fn rot13(byte: u8) -> u8 {
    // Without a branch, so that many are turned at once.
    let (first, second) = (byte.wrapping_sub(b'a') < 13, byte.wrapping_sub(b'n') < 13);
    byte.wrapping_add(13 * u8::from(first)).wrapping_sub(13 * u8::from(second))
}

/// The last [`GRAM_BYTES`] bytes, the newest highest.
#[derive(Clone, Default)]
struct Rolling {
    last: u128,
    count: usize,
}

impl Rolling {
    #[inline]
    fn shift(&mut self, byte: u8) {
        self.last = self.last >> 8 | u128::from(byte) << 120;
        self.count += 1;
    }

    #[inline]
    fn push(&mut self, key: &FlowKey, byte: u8) -> Option<u32> {
        self.shift(byte);
        (self.count >= GRAM_BYTES).then(|| key.gram(self.last))
    }
}

const _: () = assert!(GRAM_BYTES == size_of::<u128>());

/// Keeps of a text that comes in pieces the grams that winnowing selects. How it was cut makes no difference.
///
/// Grams are taken in blocks as long as a window, so that each window is the end of one block and the beginning of the
/// next, and its smallest gram is the smaller of two that are known. Each step goes over a whole block, without a
/// branch that hangs on what the grams are: which of them are selected cannot be guessed.
#[derive(Clone)]
pub struct Winnower {
    rolling: Rolling,
    /// How many grams there were.
    count: usize,
    /// This block.
    block: [u32; WINDOW_GRAMS],
    /// The smallest of the last block from each place on to its end; nothing is left of it at the last.
    before: [u32; WINDOW_GRAMS + 1],
    /// What was selected last; [`NO_GRAM`] at first.
    selected: u64,
}

/// No hash of a gram is this.
const NO_GRAM: u64 = u64::MAX;

impl Default for Winnower {
    fn default() -> Winnower {
        let (block, before) = ([u32::MAX; WINDOW_GRAMS], [u32::MAX; WINDOW_GRAMS + 1]);
        Winnower { rolling: Rolling::default(), count: 0, block, before, selected: NO_GRAM }
    }
}

impl Winnower {
    /// Takes the next bytes of canonical text, and adds what is selected.
    pub fn push(&mut self, key: &FlowKey, canonical: &[u8], selected: &mut Vec<u32>) {
        // About two of a window are selected.
        selected.reserve(canonical.len() * 2 / WINDOW_GRAMS + 1);
        // The first gram of a text is whole with its last byte.
        let short = (GRAM_BYTES - 1).saturating_sub(self.rolling.count).min(canonical.len());
        let (first, mut rest) = canonical.split_at_checked(short).unwrap_or_default();
        first.iter().for_each(|byte| self.rolling.shift(*byte));
        while !rest.is_empty() {
            let from = self.count % WINDOW_GRAMS;
            let (now, later) = rest.split_at_checked(WINDOW_GRAMS - from).unwrap_or((rest, &[]));
            let mut rolling = self.rolling.clone();
            for (slot, byte) in self.block.iter_mut().skip(from).zip(now) {
                rolling.shift(*byte);
                *slot = key.gram(rolling.last);
            }
            self.rolling = rolling;
            self.select(from, from + now.len(), selected);
            rest = later;
        }
    }

    /// Adds what the windows select whose last grams are those of this block from one place to another.
    fn select(&mut self, from: usize, to: usize, selected: &mut Vec<u32>) {
        // Of each place, as if the block were full: what stands behind it has no part in it.
        let (mut smallest, mut least) = ([0; WINDOW_GRAMS], u32::MAX);
        for ((smallest, gram), before) in smallest.iter_mut().zip(&self.block).zip(self.before.iter().skip(1))
        {
            least = least.min(*gram);
            *smallest = least.min(*before);
        }
        // In the first block only the last place ends a window.
        let first = if self.count < WINDOW_GRAMS { from.max(WINDOW_GRAMS - 1) } else { from };
        self.count += to - from;
        let (mut new, mut len, mut last) = ([0; WINDOW_GRAMS], 0, self.selected);
        for smallest in smallest.get(first..to).unwrap_or_default() {
            if let Some(slot) = new.get_mut(len) {
                *slot = *smallest;
            }
            len += usize::from(last != u64::from(*smallest));
            last = u64::from(*smallest);
        }
        self.selected = last;
        selected.extend_from_slice(new.get(..len).unwrap_or_default());
        if to == WINDOW_GRAMS {
            let mut least = u32::MAX;
            for (before, gram) in self.before.iter_mut().zip(&self.block).rev() {
                least = least.min(*gram);
                *before = least;
            }
        }
    }

    /// Ends the text: a text too short for one window has its smallest gram selected.
    pub fn finish(self, selected: &mut Vec<u32>) {
        if self.count < WINDOW_GRAMS {
            selected.extend(self.block.iter().take(self.count).min());
        }
    }
}

/// What a byte is to the canonical form. The low bits are the marks of a [`Piece`].
const DIGIT: u8 = 1;
const UPPER: u8 = 2;
const LOWER: u8 = 4;
const AT: u8 = 8;
const DOT: u8 = 16;
/// An upper-case letter after another character of the piece.
const INNER_UPPER: u8 = 32;
/// Another character that joins: `_ - + #` and the like.
const JOINED: u8 = 64;

static CLASS: LazyLock<[u8; 256]> = LazyLock::new(|| std::array::from_fn(|byte| class(byte as u8)));

fn class(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => DIGIT,
        // The first of a piece is none within it: that is taken off again.
        b'A'..=b'Z' => UPPER | INNER_UPPER,
        b'a'..=b'z' => LOWER,
        b'@' => AT,
        b'.' => DOT,
        b'_' | b'-' | b'+' | b'!' | b'#' | b'$' | b'%' | b'*' | b'~' => JOINED,
        _ => 0,
    }
}

/// A piece of a text: what stands between white space, brackets, quotes and the like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Piece {
    /// Where it begins and ends in the canonical text.
    pub start: u32,
    /// See `start`.
    pub end: u32,
    /// Where it begins and ends in the text itself.
    pub raw_start: u32,
    /// See `raw_start`.
    pub raw_end: u32,
    marks: u8,
}

/// The canonical form of a text and how it divides.
#[derive(Clone, Debug, Default)]
pub struct Canon {
    /// Letters and digits in lower case; beyond ASCII as UTF-8.
    pub bytes: Vec<u8>,
    /// Its pieces, in order: they cover it.
    pub pieces: Vec<Piece>,
    /// Where each of its words ends: they cover it too.
    pub words: Vec<u32>,
}

impl Canon {
    /// The canonical form of a text.
    pub fn of(text: &str) -> Canon {
        let mut canon = Canon::default();
        canon.scan(text);
        canon
    }

    /// Replaces what is here by the form of another text.
    pub fn scan(&mut self, text: &str) {
        self.bytes.clear();
        self.pieces.clear();
        self.words.clear();
        const WORD_BYTES: usize = 6;
        self.bytes.reserve(text.len());
        self.pieces.reserve(text.len() / WORD_BYTES);
        self.words.reserve(text.len() / WORD_BYTES);
        let (bytes, classes) = (text.as_bytes(), &*CLASS);
        let class_of = |byte: u8| classes.get(usize::from(byte)).copied().unwrap_or_default();
        let (mut at, mut piece) = (0, Piece::default());
        // What joins is a mark only once something follows it: a full stop ends a sentence.
        let mut joins = 0;
        while let Some(byte) = bytes.get(at).copied() {
            let class = class_of(byte);
            if class & (DIGIT | UPPER | LOWER) != 0 {
                let first = self.bytes.len() as u32 == piece.start;
                let mut marks = if first { class & !INNER_UPPER } else { class };
                let start = at;
                self.bytes.push(byte);
                at += 1;
                // Most words are too short to be worth being copied as a whole.
                while let Some(byte) = bytes.get(at).copied()
                    && let class = class_of(byte)
                    && class & (DIGIT | UPPER | LOWER) != 0
                {
                    marks |= class;
                    self.bytes.push(byte);
                    at += 1;
                }
                if first {
                    piece.raw_start = start as u32;
                }
                piece.raw_end = at as u32;
                piece.marks |= marks | std::mem::take(&mut joins);
            } else if byte < 0x80 {
                self.end_word();
                if class == 0 {
                    self.end_piece(&mut piece);
                    joins = 0;
                } else if self.bytes.len() as u32 > piece.start {
                    joins |= class;
                }
                at += 1;
            } else {
                let each = text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
                self.wide(each, at, &mut piece);
                at += each.len_utf8().max(1);
            }
        }
        self.end_word();
        self.end_piece(&mut piece);
        self.bytes.make_ascii_lowercase();
    }

    /// A character beyond ASCII: decomposed, without marks, and what looks like ASCII as that.
    fn wide(&mut self, each: char, at: usize, piece: &mut Piece) {
        if each.is_whitespace() {
            self.end_word();
            return self.end_piece(piece);
        }
        let start = self.bytes.len() as u32 == piece.start;
        let mut written = false;
        let mut four = [0; 4];
        for part in std::iter::once(each).nfkd().filter(|part| !is_combining_mark(*part)) {
            let shown = if part.is_ascii() { None } else { skeleton(part.encode_utf8(&mut four)).next() };
            let shown = shown.filter(char::is_ascii_alphanumeric).unwrap_or(part);
            for lower in shown.to_lowercase().filter(|lower| lower.is_alphanumeric()) {
                let mut four = [0; 4];
                self.bytes.extend_from_slice(lower.encode_utf8(&mut four).as_bytes());
                piece.marks |= if lower.is_ascii_digit() { DIGIT } else { LOWER };
                written = true;
            }
        }
        if written {
            if start {
                piece.raw_start = at as u32;
            }
            piece.raw_end = (at + each.len_utf8()) as u32;
        }
    }

    fn end_word(&mut self) {
        let end = self.bytes.len() as u32;
        if self.words.last().copied().unwrap_or_default() < end {
            self.words.push(end);
        }
    }

    fn end_piece(&mut self, piece: &mut Piece) {
        piece.end = self.bytes.len() as u32;
        if piece.end > piece.start {
            self.pieces.push(*piece);
        }
        *piece = Piece { start: piece.end, ..Piece::default() };
    }

    /// The canonical text of a piece.
    pub fn piece(&self, piece: &Piece) -> &[u8] {
        self.bytes.get(piece.start as usize..piece.end as usize).unwrap_or_default()
    }

    /// Every word.
    pub fn words(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.words.iter().copied());
        starts
            .zip(&self.words)
            .map(|(start, end)| self.bytes.get(start as usize..*end as usize).unwrap_or_default())
    }

    /// The hash of every word of at least so many bytes, as of [`Kind::Word`].
    pub fn word_hashes<'c>(&'c self, key: &'c FlowKey, bytes_min: u32) -> impl Iterator<Item = u32> + 'c {
        let starts = std::iter::once(0).chain(self.words.iter().copied());
        let long = starts.zip(&self.words).filter(move |(start, end)| **end - start >= bytes_min);
        long.map(|(start, end)| {
            let (len, rest) = ((end - start) as usize, self.bytes.get(start as usize..).unwrap_or_default());
            let hash = match rest.first_chunk() {
                Some(text) if len < 16 => key.hash_within(Kind::Word, text, len),
                _ => key.hash(Kind::Word, rest.get(..len).unwrap_or_default()),
            };
            hash as u32
        })
    }

    /// Every rare token: pieces that are tokens by themselves, and groups of short ones that are one number together.
    pub fn tokens(&self, mut token: impl FnMut(&[u8])) {
        let mut group = (0, 0, 0_u8, 0);
        let flush = |group: &mut (u32, u32, u8, u32), token: &mut dyn FnMut(&[u8])| {
            if group.3 == 0 {
                return;
            }
            let (start, end, marks, count) = std::mem::take(group);
            let bytes = self.bytes.get(start as usize..end as usize).unwrap_or_default();
            if count > 1 && marks & DIGIT != 0 && is_rare(bytes, marks) {
                token(bytes);
            }
        };
        for piece in &self.pieces {
            // Nearly all are words, which are neither.
            if piece.marks == LOWER && piece.end - piece.start > 1 {
                flush(&mut group, &mut token);
                continue;
            }
            let bytes = self.piece(piece);
            if piece.is_token(bytes) {
                token(bytes);
            }
            if piece.joins_a_number(bytes) {
                let (start, _, marks, count) = group;
                let start = if count == 0 { piece.start } else { start };
                group = (start, piece.end, marks | piece.marks, count + 1);
            } else {
                flush(&mut group, &mut token);
            }
        }
        flush(&mut group, &mut token);
    }
}

impl Piece {
    /// Whether it has an `@`.
    pub fn has_at(&self) -> bool {
        self.marks & AT != 0
    }

    /// Whether it has a dot and letters, as hosts have.
    pub fn has_dotted_letters(&self) -> bool {
        self.marks & DOT != 0 && self.marks & (UPPER | LOWER) != 0
    }

    /// Whether it has a digit.
    pub fn has_digit(&self) -> bool {
        self.marks & DIGIT != 0
    }

    /// Whether it is made like something that a machine gave out or a person chose as a secret, rather than a word.
    pub fn is_made_up(&self) -> bool {
        self.marks & (DIGIT | INNER_UPPER) != 0
            || (self.marks & (JOINED | AT | DOT) != 0 && self.end - self.start >= 8)
    }

    /// Whether it is rare enough to say by itself where it came from.
    pub fn is_token(&self, canonical: &[u8]) -> bool {
        is_rare(canonical, self.marks)
    }

    /// Whether it can be a part of a number that is written with spaces: short, and of digits or capitals, or one
    /// character alone.
    fn joins_a_number(&self, canonical: &[u8]) -> bool {
        const PART_BYTES_MAX: usize = 6;
        let capitals = self.marks & LOWER == 0 && canonical.len() <= 4;
        canonical.len() == 1
            || (canonical.len() <= PART_BYTES_MAX
                && self.marks & (AT | DOT) == 0
                && (self.marks & DIGIT != 0 || capitals)
                && !is_date(canonical))
    }
}

fn is_rare(canonical: &[u8], marks: u8) -> bool {
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&canonical.len()) {
        return false;
    }
    if marks & AT != 0 {
        return true;
    }
    if marks & DIGIT == 0 {
        return marks & INNER_UPPER != 0 && marks & LOWER != 0 && canonical.len() >= MIXED_CASE_BYTES_MIN;
    }
    let letters = marks & (UPPER | LOWER) != 0;
    // `1100.00` is an amount.
    let amount = !letters && marks & DOT != 0 && canonical.len() < 10;
    (letters || canonical.len() >= NUMBER_BYTES_MIN) && !amount && !is_date(canonical)
}

/// Whether digits are a day of this or the last century, with or without a time: `20240515`, `202405151630`.
fn is_date(canonical: &[u8]) -> bool {
    // `2024-05-15T16:30` has a letter in the middle.
    let digits = |range: std::ops::Range<usize>| {
        let text = std::str::from_utf8(canonical.get(range)?).ok()?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?
    };
    let date = |year: Option<u32>, month: Option<u32>, day: Option<u32>| {
        year.is_some_and(|year| (1900..2100).contains(&year))
            && month.is_some_and(|month| (1..=12).contains(&month))
            && day.is_some_and(|day| (1..=31).contains(&day))
    };
    match canonical.len() {
        8 => date(digits(0..4), digits(4..6), digits(6..8)) || date(digits(4..8), digits(2..4), digits(0..2)),
        9..=24 => {
            let rest = canonical.get(8..).unwrap_or_default();
            let time = rest.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b't' | b'z'));
            let clock = rest.len() <= 6 || rest.first() == Some(&b't');
            time && clock && date(digits(0..4), digits(4..6), digits(6..8))
        }
        _ => false,
    }
}
