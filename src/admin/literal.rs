//! Text that somebody else wrote, shown as what it is: nothing in it is hidden, turns the line around or moves a cursor.

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Characters that show themselves.
    Plain(&'a str),
    /// A character that does not, by its number.
    Marked(char),
}

/// Whether a character shows nothing of its own, or changes how others are shown: controls, format characters (which
/// turn text around, join, or are not there to see), separators of lines, variation selectors, tags, fillers that look
/// like blanks, and what is no character [Unicode 17, general categories Cc, Cf, Zl, Zp; UTS #39 §3.1].
pub fn is_hidden(c: char) -> bool {
    matches!(u32::from(c),
        0x00..=0x1f | 0x7f..=0x9f | 0xad | 0x034f | 0x0600..=0x0605 | 0x061c | 0x06dd | 0x070f | 0x0890..=0x0891
        | 0x08e2 | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x2000..=0x200f | 0x2028..=0x202f
        | 0x205f..=0x206f | 0x2800 | 0x3000 | 0x3164 | 0xa0 | 0x1680 | 0xe000..=0xf8ff | 0xfdd0..=0xfdef
        | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0xfffe..=0xffff | 0x110bd | 0x110cd
        | 0x13430..=0x1343f | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff | 0xf0000..=0x10ffff)
}

/// Marks that are set on other characters: a few belong to writing, a heap of them covers the lines around.
fn is_combining(c: char) -> bool {
    matches!(u32::from(c), 0x0300..=0x036f | 0x0483..=0x0489 | 0x0e47..=0x0e4e | 0x1ab0..=0x1aff
        | 0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe20..=0xfe2f)
}

/// Marks on one character that belong to writing.
const COMBINING_MAX: usize = 2;

/// The parts of a text, in order.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut begin, mut stacked) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        stacked = if is_combining(c) { stacked + 1 } else { 0 };
        if !is_hidden(c) && stacked <= COMBINING_MAX {
            continue;
        }
        if let Some(plain) = text.get(begin..at).filter(|plain| !plain.is_empty()) {
            parts.push(Part::Plain(plain));
        }
        parts.push(Part::Marked(c));
        begin = at + c.len_utf8();
    }
    if let Some(plain) = text.get(begin..).filter(|plain| !plain.is_empty()) {
        parts.push(Part::Plain(plain));
    }
    parts
}

/// The name of a marked character, as in `U+202E`.
pub fn name(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

/// The text with every marked character in angle brackets: for a terminal.
pub fn plain(text: &str) -> String {
    let show = |part: Part<'_>| match part {
        Part::Plain(plain) => plain.to_owned(),
        Part::Marked(c) => format!("<{}>", name(c)),
    };
    parts(text).into_iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_shown_by_its_number() {
        assert_eq!(plain("Straße, 東京, данные, a b"), "Straße, 東京, данные, a b");
        assert_eq!(plain("pay\u{202e}gpj.exe"), "pay<U+202E>gpj.exe");
        assert_eq!(plain("a\u{200b}b\u{2066}c\u{ad}d\u{feff}"), "a<U+200B>b<U+2066>c<U+00AD>d<U+FEFF>");
        assert_eq!(plain("\u{1b}[2Jx\r\n\u{9b}31m"), "<U+001B>[2Jx<U+000D><U+000A><U+009B>31m");
        assert_eq!(plain("\u{e0041}\u{fe0f}"), "<U+E0041><U+FE0F>");
        assert_eq!(plain("e\u{301}"), "e\u{301}");
        assert_eq!(plain("e\u{301}\u{302}\u{303}\u{304}"), "e\u{301}\u{302}<U+0303><U+0304>");
        assert_eq!(plain(""), "");
    }
}
