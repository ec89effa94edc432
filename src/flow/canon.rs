//! The canonical form of a text, and how it divides: pieces between white space and brackets, and their words.
//!
//! It has letters and digits in lower case and nothing else. ASCII is read in blocks of 64 bytes, of which each is one bit of
//! a number for all that are letters, or digits, or white space. Where words and pieces begin and end is found in these
//! numbers. What is beyond ASCII is decomposed character by character.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::confusable_detection::skeleton;

use super::masks::{Begins, Block, Folded, ROOM_BYTES};
use super::text::{FlowKey, Kind};

/// The shortest token, in bytes of canonical text.
const TOKEN_BYTES_MIN: usize = 5;
/// The shortest token of digits alone.
const NUMBER_BYTES_MIN: usize = 6;
/// The longest token; a longer piece is text and has grams.
const TOKEN_BYTES_MAX: usize = 128;
/// A piece of letters alone is a token from this length, if its case is mixed.
const MIXED_CASE_BYTES_MIN: usize = 20;

// The marks of a piece: what is in it.
pub(super) const DIGIT: u8 = 1;
pub(super) const UPPER: u8 = 2;
pub(super) const LOWER: u8 = 4;
const AT: u8 = 8;
const DOT: u8 = 16;
/// An upper-case letter after another character of the piece.
pub(super) const INNER_UPPER: u8 = 32;
/// Another character that joins: `_ - + #` and the like.
const JOINED: u8 = 64;

/// The mark that a character between letters and digits leaves; none where it ends the piece.
#[inline]
fn joining(byte: u8) -> u8 {
    match byte {
        b'@' => AT,
        b'.' => DOT,
        b'_' | b'-' | b'+' | b'!' | b'#' | b'$' | b'%' | b'*' | b'~' => JOINED,
        _ => 0,
    }
}

/// Whether a byte ends a piece: ASCII that is no letter, no digit, and does not join.
#[inline]
fn ends_a_piece(byte: u8) -> bool {
    byte < 0x80 && joining(byte) == 0
}

/// A piece of a text: what stands between white space, brackets, quotes and the like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// What has begun and not ended where a block ends.
#[derive(Default)]
struct Open {
    piece: Piece,
    /// Where the word begins in the canonical text.
    word: u32,
    /// What joins is a mark only once something follows it: a full stop ends a sentence.
    joins: u8,
}

/// The canonical form of a text and how it divides.
#[derive(Clone, Debug, Default)]
pub struct Canon {
    /// Letters and digits in lower case; beyond ASCII as UTF-8.
    pub bytes: Vec<u8>,
    /// Its pieces, in order: they cover it.
    pub pieces: Vec<Piece>,
    /// The numbers of those that are no plain words: only these can be tokens, secrets, places or parts of numbers.
    odd: Vec<u32>,
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
        const WORD_BYTES: usize = 6;
        self.bytes.clear();
        self.pieces.clear();
        self.odd.clear();
        self.words.clear();
        self.bytes.reserve(text.len() + ROOM_BYTES);
        self.pieces.reserve(text.len() / WORD_BYTES);
        self.words.reserve(text.len() / WORD_BYTES);
        let (mut from, mut open) = (0, Open::default());
        while let Some(rest) = text.as_bytes().get(from..).filter(|rest| !rest.is_empty()) {
            let block = Block::of(rest);
            let whole =
                if self.begins(&open.piece) == Begins::Piece { block.whole_pieces(rest.len()) } else { 0 };
            if whole == 0 {
                from += self.block(&block, text, from, &mut open);
                continue;
            }
            match block.is_plain(whole) {
                true => self.plain(&block, rest, whole, from),
                false => self.whole(&block, rest, whole, from),
            }
            from += whole;
            let end = self.bytes.len() as u32;
            open = Open { piece: Piece { start: end, ..Piece::default() }, word: end, joins: 0 };
        }
        self.end_word(open.word);
        self.end_piece(open.piece);
    }

    /// Takes so many bytes of a text: pieces of one word each, with no digit, nor a capital within.
    #[inline]
    fn plain(&mut self, block: &Block, text: &[u8], count: usize, from: usize) {
        let (mut runs, first, from) = (block.runs(count), self.pieces.len(), from as u32);
        self.pieces.resize(first + runs.len(), Piece::default());
        let (folded, mut written) = (Folded::of(text), [0; ROOM_BYTES]);
        let (mut len, before) = (0, self.bytes.len() as u32);
        for piece in self.pieces.iter_mut().skip(first) {
            let (at, end) = runs.take();
            folded.copy(at, end - at, &mut written, len);
            let start = before + len as u32;
            len += end - at;
            let (raw_start, raw_end) = (from + at as u32, from + end as u32);
            *piece =
                Piece { start, end: before + len as u32, raw_start, raw_end, marks: block.plain_marks(at) };
        }
        self.write(&written, len);
        self.words.extend(self.pieces.get(first..).unwrap_or_default().iter().map(|piece| piece.end));
    }

    /// Takes so many bytes of a text: pieces that are whole, and what stands between them.
    #[inline]
    fn whole(&mut self, block: &Block, text: &[u8], count: usize, from: usize) {
        let (mut runs, first) = (block.runs(count), self.pieces.len());
        let (folded, mut written) = (Folded::of(text), [0; ROOM_BYTES]);
        let (mut len, before) = (0, self.bytes.len() as u32);
        self.pieces.resize(first + runs.len(), Piece::default());
        let (mut slots, mut number) = (self.pieces.iter_mut().skip(first), first as u32);
        let words = self.words.len();
        self.words.resize(words + runs.len(), 0);
        let mut piece = Piece { start: before, ..Piece::default() };
        for word in self.words.iter_mut().skip(words) {
            let (at, end) = runs.take();
            folded.copy(at, end - at, &mut written, len);
            len += end - at;
            *word = before + len as u32;
            let begins = if piece.marks == 0 { Begins::Piece } else { Begins::Nothing };
            piece.marks |= block.marks(at, end - at, begins);
            if begins == Begins::Piece {
                piece.raw_start = (from + at) as u32;
            }
            (piece.end, piece.raw_end) = (*word, (from + end) as u32);
            if !block.has_space(end)
                && let Some(gap) = runs.start().and_then(|next| text.get(end..next))
                && !gap.iter().copied().any(ends_a_piece)
            {
                piece.marks |= gap.iter().fold(0, |marks, byte| marks | joining(*byte));
                continue;
            }
            if !piece.is_plain_word() {
                self.odd.push(number);
            }
            number += 1;
            slots.by_ref().take(1).for_each(|slot| *slot = piece);
            piece = Piece { start: *word, ..Piece::default() };
        }
        self.pieces.truncate(number as usize);
        self.write(&written, len);
    }

    /// Adds so many bytes of what was written, in one piece of a length that is known.
    #[inline]
    fn write(&mut self, written: &[u8; ROOM_BYTES], len: usize) {
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(written);
        self.bytes.truncate(end);
    }

    /// Takes about as many bytes of a text as a block has, and gives how many.
    fn block(&mut self, block: &Block, text: &str, from: usize, open: &mut Open) -> usize {
        let Open { mut piece, mut word, mut joins } = *open;
        let rest = text.as_bytes().get(from..).unwrap_or_default();
        let count = rest.len().min(Block::BYTES);
        let mut at = 0;
        while at < count {
            let run = block.run(at);
            let next = rest.get(at + run).copied().filter(|_| at + run < count);
            if run > 0 {
                let begins = self.begins(&piece);
                let marks = block.marks(at, run, begins);
                let letters = rest.get(at..at + run).unwrap_or_default();
                self.bytes.extend(letters.iter().map(u8::to_ascii_lowercase));
                if begins == Begins::Piece && next.is_some_and(ends_a_piece) {
                    // Nearly every piece is one word.
                    let (start, end) = (piece.start, self.bytes.len() as u32);
                    let (raw_start, raw_end) = ((from + at) as u32, (from + at + run) as u32);
                    self.end_piece(Piece { start, end, raw_start, raw_end, marks });
                    self.words.push(end);
                    (piece, word, joins) = (Piece { start: end, ..Piece::default() }, end, 0);
                    at += run + 1;
                    continue;
                }
                if begins == Begins::Piece {
                    piece.raw_start = (from + at) as u32;
                }
                piece.marks |= marks | std::mem::take(&mut joins);
                at += run;
                piece.raw_end = (from + at) as u32;
            }
            let Some(byte) = next else { break };
            if byte < 0x80 {
                word = self.end_word(word);
                let mark = joining(byte);
                if mark == 0 {
                    piece = self.end_piece(piece);
                    joins = 0;
                } else if self.begins(&piece) == Begins::Nothing {
                    joins |= mark;
                }
                at += 1;
            } else {
                let each = text.get(from + at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
                word = self.wide(each, from + at, &mut piece, word);
                if self.begins(&piece) == Begins::Piece {
                    joins = 0;
                }
                at += each.len_utf8().max(1);
            }
        }
        *open = Open { piece, word, joins };
        at
    }

    fn begins(&self, piece: &Piece) -> Begins {
        if self.bytes.len() as u32 == piece.start { Begins::Piece } else { Begins::Nothing }
    }

    /// A character beyond ASCII: decomposed, without marks, and what looks like ASCII as that.
    /// Gives where the word begins that it is a part of.
    #[cold]
    #[inline(never)]
    fn wide(&mut self, each: char, at: usize, piece: &mut Piece, word: u32) -> u32 {
        if each.is_whitespace() {
            *piece = self.end_piece(*piece);
            return self.end_word(word);
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
        word
    }

    /// Ends the word that begins here, and gives where the next one does.
    #[inline]
    fn end_word(&mut self, start: u32) -> u32 {
        let end = self.bytes.len() as u32;
        if start < end {
            self.words.push(end);
        }
        end
    }

    /// Ends a piece, and gives the next.
    #[inline]
    fn end_piece(&mut self, mut piece: Piece) -> Piece {
        piece.end = self.bytes.len() as u32;
        if piece.end > piece.start {
            self.push_piece(piece)
        } else {
            Piece { start: piece.end, ..Piece::default() }
        }
    }

    /// Adds a piece, and gives the next.
    #[inline]
    fn push_piece(&mut self, piece: Piece) -> Piece {
        if !piece.is_plain_word() {
            self.odd.push(self.pieces.len() as u32);
        }
        self.pieces.push(piece);
        Piece { start: piece.end, ..Piece::default() }
    }

    /// The pieces that are no plain words, each with its number among all.
    pub fn odd_pieces(&self) -> impl Iterator<Item = (usize, &Piece)> {
        self.odd.iter().filter_map(|at| Some((*at as usize, self.pieces.get(*at as usize)?)))
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

    /// Calls back with the length in bytes of every word and its hash as of [`Kind::Word`], up to 64 of them at a time, and
    /// with the number of the first of these.
    #[inline]
    pub fn word_hashes(&self, key: &FlowKey, mut each: impl FnMut(u32, &[(u32, u32)])) {
        let (mut start, mut number, mut hashes) = (0, 0, [(0, 0); 64]);
        for ends in self.words.chunks(hashes.len()) {
            for (slot, end) in hashes.iter_mut().zip(ends) {
                let (from, len) = (start as usize, (end - start) as usize);
                start = *end;
                let text = self.bytes.get(from..from + 16).and_then(<[u8]>::first_chunk);
                let hash =
                    text.and_then(|text| key.hash_within(Kind::Word, text, len)).unwrap_or_else(|| {
                        key.hash(Kind::Word, self.bytes.get(from..from + len).unwrap_or_default())
                    });
                *slot = (len as u32, hash as u32);
            }
            each(number, hashes.get(..ends.len()).unwrap_or_default());
            number += ends.len() as u32;
        }
    }

    /// Every rare token: pieces that are tokens by themselves, and groups of short ones that are one number together.
    pub fn tokens(&self, mut token: impl FnMut(&[u8])) {
        let mut group = Group::default();
        for (at, piece) in self.odd_pieces() {
            if at != group.next {
                // What stands between is a word, and a part of no number.
                self.flush(&mut group, &mut token);
            }
            let bytes = self.piece(piece);
            if piece.is_token(bytes) {
                token(bytes);
            }
            if piece.joins_a_number(bytes) {
                group.start = if group.count == 0 { piece.start } else { group.start };
                group.end = piece.end;
                group.marks |= piece.marks;
                group.count += 1;
            } else {
                self.flush(&mut group, &mut token);
            }
            group.next = at + 1;
        }
        self.flush(&mut group, &mut token);
    }

    fn flush(&self, group: &mut Group, token: &mut impl FnMut(&[u8])) {
        let Group { start, end, marks, count, .. } = std::mem::take(group);
        let bytes = self.bytes.get(start as usize..end as usize).unwrap_or_default();
        if count > 1 && marks & DIGIT != 0 && is_rare(bytes, marks) {
            token(bytes);
        }
    }
}

/// Neighbouring pieces that may be one number together.
#[derive(Default)]
struct Group {
    start: u32,
    end: u32,
    marks: u8,
    count: u32,
    /// The number of the piece that would be the next.
    next: usize,
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

    /// Whether it is a word of more than one character in which nothing but its first letter may be a capital.
    fn is_plain_word(&self) -> bool {
        self.marks & !(UPPER | LOWER) == 0 && self.marks & LOWER != 0 && self.end - self.start > 1
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The form of a text, character by character.
    fn one_by_one(text: &str) -> Canon {
        let mut canon = Canon::default();
        let (mut piece, mut word, mut joins) = (Piece::default(), 0, 0);
        for (at, each) in text.char_indices() {
            let begins = canon.begins(&piece) == Begins::Piece;
            if each.is_ascii_alphanumeric() {
                let (inner, byte) = (!begins, each as u8);
                piece.marks |= std::mem::take(&mut joins)
                    | match byte {
                        b'0'..=b'9' => DIGIT,
                        b'A'..=b'Z' => UPPER | if inner { INNER_UPPER } else { 0 },
                        _ => LOWER,
                    };
                if begins {
                    piece.raw_start = at as u32;
                }
                piece.raw_end = at as u32 + 1;
                canon.bytes.push(byte.to_ascii_lowercase());
            } else if each.is_ascii() {
                word = canon.end_word(word);
                if ends_a_piece(each as u8) {
                    (piece, joins) = (canon.end_piece(piece), 0);
                } else if !begins {
                    joins |= joining(each as u8);
                }
            } else {
                word = canon.wide(each, at, &mut piece, word);
                joins = if canon.begins(&piece) == Begins::Piece { 0 } else { joins };
            }
        }
        canon.end_word(word);
        canon.end_piece(piece);
        canon
    }

    proptest! {
        #[test]
        fn a_text_in_blocks_is_the_same_as_character_by_character(
            parts in prop::collection::vec(
                prop_oneof![
                    6 => "[a-z]{2,9} ", 2 => "[A-Z][a-z]{1,8}[,.;] ", 2 => "[a-zA-Z0-9]{1,3}[ .]", 1 => "[ -~]{0,12}",
                    1 => "[a-z]{1,90}", 1 => "[a-z@._-]{1,40}", 1 => "[éß№ﷺ\u{a0}\u{200b}äя]{1,3}", 1 => "\\PC{0,4}",
                ],
                0..60,
            ),
        ) {
            let text = parts.concat();
            let (blocks, expected) = (Canon::of(&text), one_by_one(&text));
            prop_assert_eq!(&blocks.bytes, &expected.bytes);
            prop_assert_eq!(&blocks.words, &expected.words);
            prop_assert_eq!(&blocks.odd, &expected.odd);
            prop_assert_eq!(&blocks.pieces, &expected.pieces);
        }
    }
}
