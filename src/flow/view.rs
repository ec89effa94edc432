//! The ways in which a text can be hidden: each is undone, to a bounded depth and size, and looked at like the text itself.
//!
//! Reversal and rot13 are of the canonical form, so whoever looks does them. What is here is decoding: base64 in both
//! alphabets, base32, hexadecimal, percent, and gzip or zlib inside. All runs of one encoding are decoded into one view,
//! so that padding with harmless runs hides nothing, and a view is never longer than what it was made from, but for
//! compression, which has a bound of its own.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};

/// How deeply encodings may be nested.
const DEPTH_MAX: usize = 2;
/// What all that is decompressed in one text may come to; beyond it, the text counts as unreadable.
const INFLATED_BYTES_MAX: usize = 256 << 10;
/// The shortest run that is decoded, in characters.
const RUN_CHARS_MIN: usize = 12;

/// What looking at all views came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Looked {
    /// Everything was looked at.
    Whole,
    /// Something was too large to be looked at.
    Beyond,
}

/// Calls back with a text and with everything that is encoded in it.
pub fn each(text: &str, visit: &mut impl FnMut(&str)) -> Looked {
    visit(text);
    let mut inflated = 0;
    decoded(text.as_bytes(), 0, &mut inflated, visit);
    if inflated > INFLATED_BYTES_MAX { Looked::Beyond } else { Looked::Whole }
}

fn decoded(bytes: &[u8], depth: usize, inflated: &mut usize, visit: &mut impl FnMut(&str)) {
    if depth >= DEPTH_MAX {
        return;
    }
    let bytes = without_invisible(bytes);
    let mut views = [const { Vec::new() }; 4];
    let mut compressed = Vec::new();
    let [base64, base32, hex, percent] = &mut views;
    runs(&bytes, |run| {
        let mut take = |view: &mut Vec<u8>, decoded: Vec<u8>| {
            if is_compressed(&decoded) {
                compressed.push(decoded);
            } else if is_text(&decoded) {
                view.push(b'\n');
                view.extend_from_slice(&decoded);
            }
        };
        if run.iter().all(u8::is_ascii_hexdigit) {
            take(hex, HEX.pack(run));
        }
        if run.iter().all(|byte| BASE32.value(*byte) != Alphabet::NONE || *byte == b'=') {
            take(base32, BASE32.pack(run));
        }
        for shift in 0..4 {
            let decoded = BASE64.pack(run.get(shift..).unwrap_or_default());
            if is_compressed(&decoded) || is_text(&decoded) {
                take(base64, decoded);
                break;
            }
        }
    });
    if bytes.contains(&b'%') {
        let plain: Vec<u8> = percent_encoding::percent_decode(&bytes).collect();
        if plain.len() < bytes.len() {
            *percent = plain;
        }
    }
    for packed in compressed {
        inflate(&packed, inflated, |plain| {
            visit(&String::from_utf8_lossy(plain));
        });
    }
    for view in views.iter().filter(|view| !view.is_empty()) {
        visit(&String::from_utf8_lossy(view));
        decoded(view, depth + 1, inflated, visit);
    }
}

/// Zero-width and other characters beyond ASCII break no run.
fn without_invisible(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.is_ascii() {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(bytes.iter().copied().filter(u8::is_ascii).collect())
}

/// Runs that could be base64, base32 or hexadecimal, with the lines of wrapped ones put together.
fn runs(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let mut run: Vec<u8> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if run.is_empty() {
            // Nearly everything is words: none of them is looked at but for its end.
            let Some(start) = first_long(rest) else { break };
            rest = rest.get(start..).unwrap_or_default();
        }
        let end = rest.iter().position(|byte| !is_of_a_run(*byte)).unwrap_or(rest.len());
        let (segment, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        let breaks = after.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(after.len());
        // A line that is long, or goes on a long one, is a part of what the next line goes on.
        let wrapped = breaks > 0 && (segment.len() >= RUN_CHARS_MIN || !run.is_empty());
        if wrapped || !run.is_empty() {
            run.extend_from_slice(segment);
        }
        if !wrapped {
            let whole = if run.is_empty() { segment } else { &run };
            if whole.len() >= RUN_CHARS_MIN {
                each(whole);
            }
            run.clear();
        }
        rest = after.get(breaks.max(1)..).unwrap_or_default();
    }
    if run.len() >= RUN_CHARS_MIN {
        each(&run);
    }
}

/// Where the first run of at least [`RUN_CHARS_MIN`] begins: what breaks the end of a stretch breaks all of it.
fn first_long(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let stretch = bytes.get(start..start + RUN_CHARS_MIN)?;
        match stretch.iter().rposition(|byte| !is_of_a_run(*byte)) {
            Some(at) => start += at + 1,
            None => return Some(start),
        }
    }
}

#[inline]
fn is_of_a_run(byte: u8) -> bool {
    BASE64.value(byte) != Alphabet::NONE || byte == b'='
}

/// What each character of an encoding stands for.
struct Alphabet {
    values: [u8; 256],
    /// How many bits a character has.
    bits: u32,
}

static BASE64: Alphabet = Alphabet::of(
    6,
    &[(b'A', b'Z', 0), (b'a', b'z', 26), (b'0', b'9', 52), (b'+', b'+', 62), (b'/', b'/', 63)],
)
.and(&[(b'-', b'-', 62), (b'_', b'_', 63)]);
static BASE32: Alphabet = Alphabet::of(5, &[(b'A', b'Z', 0), (b'a', b'z', 0), (b'2', b'7', 26)]);
static HEX: Alphabet = Alphabet::of(4, &[(b'0', b'9', 0), (b'a', b'f', 10), (b'A', b'F', 10)]);

impl Alphabet {
    /// No value of a character.
    const NONE: u8 = u8::MAX;

    /// From ranges of characters, each with the value of its first.
    const fn of(bits: u32, ranges: &[(u8, u8, u8)]) -> Alphabet {
        Alphabet { values: [Alphabet::NONE; 256], bits }.and(ranges)
    }

    #[expect(clippy::indexing_slicing, reason = "it is done when this is compiled")]
    const fn and(mut self, ranges: &[(u8, u8, u8)]) -> Alphabet {
        let mut at = 0;
        while at < ranges.len() {
            let (first, last, value) = ranges[at];
            let mut byte = first;
            while byte <= last {
                self.values[byte as usize] = value + (byte - first);
                byte += 1;
            }
            at += 1;
        }
        self
    }

    #[inline]
    fn value(&self, byte: u8) -> u8 {
        self.values.get(usize::from(byte)).copied().unwrap_or(Alphabet::NONE)
    }

    /// Puts the characters of a run together; what is none of this alphabet is left out.
    fn pack(&self, run: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(run.len() * self.bits as usize / 8 + 1);
        let (mut held, mut count) = (0_u32, 0);
        for value in run.iter().map(|byte| self.value(*byte)).filter(|value| *value != Alphabet::NONE) {
            held = held << self.bits | u32::from(value);
            count += self.bits;
            if count >= 8 {
                count -= 8;
                bytes.push((held >> count) as u8);
                held &= (1 << count) - 1;
            }
        }
        bytes
    }
}

/// Whether decoded bytes can be text at all. Random bytes are printable about one time in three.
fn is_text(bytes: &[u8]) -> bool {
    // Text in UTF-16 has a zero in every other byte.
    let plain = |byte: &&u8| matches!(**byte, b' '..=b'~' | b'\n' | b'\r' | b'\t' | 0);
    let count = bytes.iter().filter(plain).count();
    bytes.len() >= 6 && (count * 10 >= bytes.len() * 7 || std::str::from_utf8(bytes).is_ok())
}

fn is_compressed(bytes: &[u8]) -> bool {
    matches!(bytes, [0x1f, 0x8b, 8, ..] | [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..])
}

fn inflate(bytes: &[u8], inflated: &mut usize, plain: impl FnOnce(&[u8])) {
    let room = INFLATED_BYTES_MAX.saturating_sub(*inflated) as u64 + 1;
    let mut out = Vec::new();
    // A stream that breaks off gives what came before.
    let read = match bytes.first() {
        Some(0x1f) => MultiGzDecoder::new(bytes).take(room).read_to_end(&mut out),
        _ => ZlibDecoder::new(bytes).take(room).read_to_end(&mut out),
    };
    *inflated += out.len();
    if read.is_ok() || !out.is_empty() {
        plain(&out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_wherever_they_stand_and_wrapped_lines_are_one() {
        let long = "abcdefghijkl";
        for (text, found) in [
            (long.to_owned(), vec![long.to_owned()]),
            ("abcdefghijk".to_owned(), vec![]),
            (format!("see {long}, and {long}m."), vec![long.to_owned(), format!("{long}m")]),
            (format!("a b c\n{long}\nmnop\nqr end"), vec![format!("{long}mnopqr")]),
            (format!("abcdefghijk\n{long}"), vec![long.to_owned()]),
            (format!("{long}\r\n{long}\n"), vec![format!("{long}{long}")]),
        ] {
            let mut all = Vec::new();
            runs(text.as_bytes(), |run| all.push(String::from_utf8(run.to_vec()).unwrap()));
            assert_eq!(all, found, "{text:?}");
        }
    }
}
