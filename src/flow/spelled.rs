//! Addresses and numbers that a text spells out in words, so that nobody who looks for them finds them, and a model does:
//! `ana dot example at mail dot org`, `ana[at]mail[.]org`, `U S one three three zero`.
//!
//! Words hang together where one of two neighbours is a sign, a digit or a character alone, where one is written to the
//! other, or where a sign stands between them. From where such a chain ends like a host, or like a long number, it is
//! read backwards, and each beginning that it may have gives one name. Most of these are nobody's, which does no harm:
//! they are only compared with where a call goes. English words, and some of its neighbours'.

use super::canon::{Canon, Piece};

/// The longest name, in words.
const NAME_WORDS_MAX: usize = 48;
/// The longest name, in bytes of canonical text.
const NAME_BYTES_MAX: usize = 128;
/// So many digits in words are a number that something can be sent to.
const DIGITS_MIN: usize = 6;
/// Names that one reply may spell out, whatever it is cut into.
pub const NAMES_MAX: usize = 16_384;
/// So much of a text is kept for what comes after it, in bytes: a name of the most words, each of ten letters.
const TAIL_BYTES_MAX: usize = 512;
/// What may stand between two pieces and join them, in bytes.
const GAP_BYTES_MAX: usize = 8;

const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const DOTS: [&str; 5] = ["dot", "period", "point", "punkt", "punto"];
const SIGNS: [&str; 9] = ["at", "arroba", "colon", "dash", "hyphen", "minus", "plus", "slash", "underscore"];

/// The words that something may be spelled out around.
pub const CUES: [&str; 15] = [
    "dot", "period", "point", "punkt", "punto", "zero", "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine",
];

/// More is spelled out than is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// What a word stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// A sign, which the canonical form leaves out.
    Sign,
    /// A digit.
    Digit(u8),
    /// One character, digits, or nothing.
    Short,
    /// Itself.
    Itself,
}

/// Calls back with the canonical form of every name that a text may spell out, as long as there are names `left`. `cues`
/// are the numbers of its words that may be [`CUES`], in order, and may be others too.
pub fn spelled(
    text: &str,
    canon: &Canon,
    cues: &[u32],
    left: &mut usize,
    name: &mut impl FnMut(&[u8]),
) -> Result<(), TooMany> {
    let mut reader = Reader { text, canon, left };
    reader.words_for_signs(cues, name)?;
    reader.hosts_after_at(name)?;
    reader.signs_apart(name)
}

/// The end of a text that comes in blocks. A name may begin there and end in the next block.
#[derive(Clone, Debug, Default)]
pub struct Tail(String);

impl Tail {
    /// Calls back with every name that may begin before a block and go on in it, and keeps the block's end for the next.
    pub fn across(
        &mut self,
        block: &str,
        left: &mut usize,
        name: &mut impl FnMut(&[u8]),
    ) -> Result<(), TooMany> {
        let mut said = Ok(());
        if goes_on(&self.0, block) {
            let kept = self.0.len();
            self.0.push_str(block.get(..block.floor_char_boundary(TAIL_BYTES_MAX)).unwrap_or_default());
            let canon = Canon::of(&self.0);
            let all: Vec<u32> = (0..canon.words.len() as u32).collect();
            said = spelled(&self.0, &canon, &all, left, name);
            self.0.truncate(kept);
        }
        let from = block.floor_char_boundary(block.len().saturating_sub(TAIL_BYTES_MAX));
        self.0.push_str(block.get(from..).unwrap_or_default());
        let over = self.0.floor_char_boundary(self.0.len().saturating_sub(TAIL_BYTES_MAX));
        self.0.drain(..over);
        said
    }
}

/// Whether what ends one text and what begins another may hang together: one of them stands for a sign, a digit or a
/// character alone, or is nothing but signs.
fn goes_on(before: &str, after: &str) -> bool {
    const LETTERS_MAX: usize = 16;
    // Nearly every word is one of letters alone.
    let joins = |word: Option<&str>| {
        let mut letters = [0; LETTERS_MAX];
        word.is_some_and(|word| match letters.get_mut(..word.len()) {
            Some(room) if word.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                room.iter_mut().zip(word.bytes()).for_each(|(to, byte)| *to = byte.to_ascii_lowercase());
                read(room) != Word::Itself
            }
            _ => read(&Canon::of(word).bytes) != Word::Itself,
        })
    };
    !before.is_empty()
        && (joins(before.split_whitespace().next_back()) || joins(after.split_whitespace().next()))
}

struct Reader<'t> {
    text: &'t str,
    canon: &'t Canon,
    /// How many names may still be read.
    left: &'t mut usize,
}

impl Reader<'_> {
    /// `… dot org`, and digits in words.
    fn words_for_signs(&mut self, cues: &[u32], name: &mut impl FnMut(&[u8])) -> Result<(), TooMany> {
        // The last digit in words, and how many the chain has that ends there.
        let (mut last, mut digits) = (0, 0);
        for at in cues.iter().map(|at| *at as usize) {
            let word = self.word(at).unwrap_or_default();
            if is_among(&DOTS, word) {
                self.host_at(at + 1, name)?;
                continue;
            }
            if !is_among(&DIGITS, word) {
                continue;
            }
            let chained = digits > 0 && (last + 1..=at).all(|word| self.joins(word));
            digits = if chained { digits + 1 } else { 1 };
            last = at;
            let more =
                self.word(at + 1).is_some_and(|next| matches!(read(next), Word::Digit(_) | Word::Short));
            if digits >= DIGITS_MIN && !more {
                self.backwards(at, name)?;
            }
        }
        Ok(())
    }

    /// `ana at mail.org`, `ana [@] mail.org`.
    fn hosts_after_at(&mut self, name: &mut impl FnMut(&[u8])) -> Result<(), TooMany> {
        let canon = self.canon;
        for (number, piece) in canon.odd_pieces() {
            if !piece.has_dotted_letters() || piece.has_at() {
                continue;
            }
            let first = canon.words.partition_point(|end| *end <= piece.start);
            let said = first.checked_sub(1).and_then(|before| self.word(before)) == Some(b"at");
            if said || self.gap(number).contains('@') {
                let after = canon.words.partition_point(|end| *end <= piece.end);
                self.backwards(after.saturating_sub(1), name)?;
            }
        }
        Ok(())
    }

    /// `ana at mail [.] org`.
    fn signs_apart(&mut self, name: &mut impl FnMut(&[u8])) -> Result<(), TooMany> {
        let bytes = self.text.as_bytes();
        for at in memchr::memchr_iter(b'.', bytes) {
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            if before.is_some_and(|before| before.is_ascii_whitespace() || b"[({<".contains(before)) {
                let pieces = &self.canon.pieces;
                let next = pieces.get(pieces.partition_point(|piece| (piece.raw_start as usize) < at));
                let Some(next) = next else { continue };
                self.host_at(self.canon.words.partition_point(|end| *end <= next.start), name)?;
            }
        }
        Ok(())
    }

    /// Reads what ends with this word, if a host can.
    fn host_at(&mut self, word: usize, name: &mut impl FnMut(&[u8])) -> Result<(), TooMany> {
        let last = self.word(word).unwrap_or_default();
        let known = psl::suffix(last).is_some_and(|suffix| suffix.is_known());
        if known { self.backwards(word, name) } else { Ok(()) }
    }

    /// Reads backwards from a word, and gives a name for each word that may be its first.
    fn backwards(&mut self, last: usize, name: &mut impl FnMut(&[u8])) -> Result<(), TooMany> {
        let mut written = [0; NAME_BYTES_MAX];
        let mut from = NAME_BYTES_MAX;
        for at in (0..=last).rev().take(NAME_WORDS_MAX) {
            let Some(word) = self.word(at) else { break };
            let digit;
            let spoken = match read(word) {
                Word::Sign if at != last => &[][..],
                Word::Digit(value) => {
                    digit = [b'0' + value];
                    &digit
                }
                Word::Sign | Word::Short | Word::Itself => word,
            };
            let Some(start) = from.checked_sub(spoken.len()) else { break };
            if let Some(room) = written.get_mut(start..from) {
                room.copy_from_slice(spoken);
            }
            from = start;
            if !spoken.is_empty() {
                *self.left = self.left.checked_sub(1).ok_or(TooMany)?;
                name(written.get(from..).unwrap_or_default());
            }
            if !self.joins(at) {
                break;
            }
        }
        Ok(())
    }

    fn start(&self, word: usize) -> usize {
        word.checked_sub(1).and_then(|before| self.canon.words.get(before)).map_or(0, |end| *end as usize)
    }

    fn word(&self, word: usize) -> Option<&[u8]> {
        self.canon.bytes.get(self.start(word)..*self.canon.words.get(word)? as usize)
    }

    /// Whether a word hangs together with the one before it.
    fn joins(&self, word: usize) -> bool {
        let (Some(before), Some(this)) = (word.checked_sub(1).and_then(|at| self.word(at)), self.word(word))
        else {
            return false;
        };
        if read(before) != Word::Itself || read(this) != Word::Itself {
            return true;
        }
        let start = self.start(word) as u32;
        let piece = self.canon.pieces.partition_point(|piece| piece.end <= start);
        // A word that does not begin its piece is written to the one before it.
        let begins = self.canon.pieces.get(piece).is_none_or(|piece| piece.start == start);
        !begins || self.gap(piece).contains(['@', '.', '-', '_', '/'])
    }

    /// What stands between a piece and the one before it, if it is short and does not begin as the end of a sentence.
    fn gap(&self, piece: usize) -> &str {
        let of = |at: usize| self.canon.pieces.get(at);
        let (Some(before), Some(this)) = (piece.checked_sub(1).and_then(of), of(piece)) else { return "" };
        let (Piece { raw_end, .. }, Piece { raw_start, .. }) = (before, this);
        let gap = self.text.get(*raw_end as usize..*raw_start as usize).unwrap_or_default();
        if gap.len() > GAP_BYTES_MAX || gap.starts_with('.') { "" } else { gap }
    }
}

fn is_among(words: &[&str], word: &[u8]) -> bool {
    words.iter().any(|each| each.as_bytes() == word)
}

/// What a word stands for.
fn read(word: &[u8]) -> Word {
    if word.len() == 1 || word.iter().all(u8::is_ascii_digit) {
        return Word::Short;
    }
    let place = |words: &[&str]| words.iter().position(|each| each.as_bytes() == word);
    match (place(&DIGITS), place(&DOTS).or(place(&SIGNS))) {
        (Some(digit), _) => Word::Digit(digit as u8),
        (None, Some(_)) => Word::Sign,
        (None, None) => Word::Itself,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled_in(text: &str, left: &mut usize, name: &mut impl FnMut(&[u8])) -> Result<(), TooMany> {
        let canon = Canon::of(text);
        let all: Vec<u32> = (0..canon.words.len() as u32).collect();
        spelled(text, &canon, &all, left, name)
    }

    #[test]
    fn the_cues_are_what_signs_and_digits_are_read_around() {
        assert_eq!([&DOTS[..], &DIGITS[..]].concat(), CUES);
    }

    fn names(text: &str) -> Vec<String> {
        let mut names = Vec::new();
        let read = spelled_in(text, &mut { NAMES_MAX }, &mut |name| {
            names.push(String::from_utf8(name.to_vec()).unwrap());
        });
        assert_eq!(read, Ok(()));
        names
    }

    #[test]
    fn an_address_in_words_is_found() {
        for (text, name) in [
            (
                "Write to mark dot black dash two one three four at gmail dot com, please.",
                "markblack2134gmailcom",
            ),
            ("Write to mark.black-2134 at gmail.com today", "markblack2134gmailcom"),
            ("Mail goes to ANA (at) mail [dot] example [dot] org soon", "anamailexampleorg"),
            ("ana [@] mail [.] org", "anamailorg"),
            ("it is ana @ mail.org", "anamailorg"),
            ("open www dot my dash site dash two dot com slash x", "mysite2com"),
            ("pay US one three three zero zero one two now", "us1330012"),
            ("pay U S one three three zero zero one two", "us1330012"),
            ("account GB two nine NWBK six zero one six one three", "gb29nwbk601613"),
        ] {
            let found = names(text);
            assert!(found.iter().any(|each| each == name), "{text}: {found:?}");
        }
    }

    #[test]
    fn an_address_is_found_wherever_the_text_was_cut_into_blocks() {
        let words = [
            "write", "to", "mark", "dot", "black", "dash", "two", "one", "at", "gmail", "dot", "com", "today",
        ];
        for cut in 3..words.len() {
            let (before, after) = words.split_at(cut);
            let (mut tail, mut found, mut left) = (Tail::default(), Vec::new(), NAMES_MAX);
            for block in [before.join(" ") + "\n", after.join(" ")] {
                let mut name = |name: &[u8]| found.push(name.to_vec());
                spelled_in(&block, &mut left, &mut name).unwrap();
                tail.across(&block, &mut left, &mut name).unwrap();
            }
            assert!(found.contains(&b"markblack21gmailcom".to_vec()), "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_tail_is_bounded_and_no_block_breaks_it() {
        let (mut tail, mut left) = (Tail::default(), NAMES_MAX);
        for block in [
            "one \u{e9}".repeat(300),
            "\u{1f600}".repeat(200),
            String::new(),
            "dot ".repeat(2000),
            "a".to_owned(),
        ] {
            tail.across(&block, &mut left, &mut |_| {}).unwrap();
            assert!(tail.0.len() <= TAIL_BYTES_MAX + 3, "{}", tail.0.len());
        }
    }

    #[test]
    fn what_spells_nothing_out_gives_nothing() {
        for text in [
            "We met at noon. It was one of two dinners, and the third at my place. To point out: dot the i.",
            "See the section at example.org's end. Me too. In time.",
            "Twenty one, thirty two and four; one point five percent",
        ] {
            let found = names(text);
            assert!(found.iter().all(|each| each.len() < 24), "{text}: {found:?}");
        }
        assert!(names("Nothing is spelled out here. In no way. So be it.").is_empty());
    }

    #[test]
    fn more_than_can_be_read_is_said() {
        // Each of these texts is small enough by itself.
        let (text, mut left, mut count) = ("dot com ".repeat(20), NAMES_MAX, 0);
        let mut read = || spelled_in(&text, &mut left, &mut |_| count += 1);
        assert_eq!(read(), Ok(()));
        assert!((0..4096).any(|_| read() == Err(TooMany)));
        assert_eq!(count, NAMES_MAX);
    }
}
