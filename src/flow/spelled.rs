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

/// The words that something may be spelled out around.
pub const CUES: [&str; 15] = [
    "dot", "period", "point", "punkt", "punto", "zero", "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine",
];

/// More is spelled out than is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// What a word stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// The dot of a host.
    Dot,
    /// Another sign, which the canonical form leaves out too.
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

/// The end of a text that comes in blocks, as far as it hangs together. A name may begin there and end in the next block.
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
        let said = self.goes_on(block).map_or(Ok(()), |text| {
            let canon = Canon::of(&text);
            let all: Vec<u32> = (0..canon.words.len() as u32).collect();
            spelled(&text, &canon, &all, left, name)
        });
        self.keep(block);
        said
    }

    /// What is kept and what of a block hangs together with it; `None` when nothing does.
    fn goes_on(&self, block: &str) -> Option<String> {
        let near = block.get(..block.floor_char_boundary(TAIL_BYTES_MAX)).unwrap_or_default();
        let ended = self.0.ends_with(|last: char| last.is_ascii_whitespace());
        let last = self.0.split_ascii_whitespace().next_back().filter(|_| ended);
        let mut after = hanging(last.unwrap_or_default(), near.split_ascii_whitespace());
        let first = after.next().filter(|_| !self.0.is_empty())?;
        let mut text = [&self.0, first].concat();
        after.for_each(|word| text.extend([" ", word]));
        Some(text)
    }

    fn keep(&mut self, block: &str) {
        if !block.ends_with(|last: char| last.is_ascii_whitespace()) {
            let from = block.floor_char_boundary(block.len().saturating_sub(TAIL_BYTES_MAX));
            self.0.replace_range(.., block.get(from..).unwrap_or_default());
            return;
        }
        let before = std::mem::take(&mut self.0);
        let mut words = block.split_ascii_whitespace().rev().chain(before.split_ascii_whitespace().rev());
        let Some(last) = words.next() else { return };
        let mut room = TAIL_BYTES_MAX;
        let fits = |word: &&str| {
            let left = room.checked_sub(word.len() + 1);
            room = left.unwrap_or_default();
            left.is_some()
        };
        let kept: Vec<&str> = std::iter::once(last).chain(hanging(last, words)).take_while(fits).collect();
        kept.iter().rev().for_each(|word| self.0.extend([*word, " "]));
    }
}

/// Of words that stand one after the other, away from this one, those that may hang together with it.
fn hanging<'t>(from: &str, words: impl Iterator<Item = &'t str>) -> impl Iterator<Item = &'t str> {
    words.scan(stands_alone(from), |alone, word| {
        let before = std::mem::replace(alone, stands_alone(word));
        (!before || !*alone).then_some(word)
    })
}

/// Whether what stands between white space is a word of letters alone that stands for itself, with no sign but one at its
/// end. Two of these do not hang together.
fn stands_alone(word: &str) -> bool {
    const LETTERS_MAX: usize = 16;
    let bytes = word.as_bytes();
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'.' | b',' | b';' | b':' | b'!' | b'?'));
    let word = bytes.get(..end.map_or(0, |end| end + 1)).unwrap_or_default();
    let mut letters = [0; LETTERS_MAX];
    word.iter().all(u8::is_ascii_alphabetic)
        && letters.get_mut(..word.len()).is_none_or(|room| {
            room.iter_mut().zip(word).for_each(|(to, byte)| *to = byte.to_ascii_lowercase());
            read(room) == Word::Itself
        })
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
            match read(self.word(at).unwrap_or_default()) {
                Word::Digit(_) => {}
                Word::Dot => {
                    self.host_at(at + 1, name)?;
                    continue;
                }
                Word::Sign | Word::Short | Word::Itself => continue,
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
                Word::Dot | Word::Sign if at != last => &[][..],
                Word::Digit(value) => {
                    digit = [b'0' + value];
                    &digit
                }
                Word::Dot | Word::Sign | Word::Short | Word::Itself => word,
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

/// What a word stands for.
fn read(word: &[u8]) -> Word {
    match word {
        b"dot" | b"period" | b"point" | b"punkt" | b"punto" => Word::Dot,
        b"at" | b"arroba" | b"colon" | b"dash" | b"hyphen" | b"minus" | b"plus" | b"slash"
        | b"underscore" => Word::Sign,
        b"zero" => Word::Digit(0),
        b"one" => Word::Digit(1),
        b"two" => Word::Digit(2),
        b"three" => Word::Digit(3),
        b"four" => Word::Digit(4),
        b"five" => Word::Digit(5),
        b"six" => Word::Digit(6),
        b"seven" => Word::Digit(7),
        b"eight" => Word::Digit(8),
        b"nine" => Word::Digit(9),
        _ if word.len() == 1 || word.iter().all(u8::is_ascii_digit) => Word::Short,
        _ => Word::Itself,
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
        let mut digits = Vec::new();
        for cue in CUES {
            match read(cue.as_bytes()) {
                Word::Dot => {}
                Word::Digit(digit) => digits.push(digit),
                other => panic!("{cue}: {other:?}"),
            }
        }
        assert_eq!(digits, Vec::from_iter(0..10));
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
        let cuts = (3..words.len()).flat_map(|one| (one..=words.len()).map(move |two| (one, two)));
        for (one, two) in cuts {
            let (mut tail, mut found, mut left) = (Tail::default(), Vec::new(), NAMES_MAX);
            for block in [&words[..one], &words[one..two], &words[two..]] {
                let block = block.join(" ") + "\n";
                let mut name = |name: &[u8]| found.push(name.to_vec());
                spelled_in(&block, &mut left, &mut name).unwrap();
                tail.across(&block, &mut left, &mut name).unwrap();
            }
            assert!(found.contains(&b"markblack21gmailcom".to_vec()), "{one} {two}");
        }
    }

    #[test]
    fn a_tail_has_what_hangs_together_and_a_word_that_was_cut() {
        for (blocks, kept) in [
            (&["We met at noon, and that was all.\n"][..], "all. "),
            (&["Write to mark dot\n"], "mark dot "),
            (
                &["Write to mark dot\n", "black dash two at\n", "\n", "gmail\n"],
                "mark dot black dash two at gmail ",
            ),
            (&["Write to ana@\n"], "to ana@ "),
            (&["from here to the\n", "next dot exam"], "next dot exam"),
        ] {
            let (mut tail, mut left) = (Tail::default(), NAMES_MAX);
            blocks.iter().for_each(|block| tail.across(block, &mut left, &mut |_| {}).unwrap());
            assert_eq!(tail.0, kept);
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
