//! How a text is cut into blocks that are learnt one by one, and what stands in one that is JSON nobody parsed.

use std::borrow::Cow;

/// Text is learnt in blocks of lines, each at least so long,
const BLOCK_BYTES_MIN: usize = 256;
/// and at most: so much of a text may not be learnt yet when its bytes are there.
const BLOCK_BYTES_MAX: usize = 4096;

/// Where the first block of a text ends; `None` while it is not complete. It goes by the text alone, so that how the
/// text comes in makes no difference: up to a line end after [`BLOCK_BYTES_MIN`], else to the last white space before
/// [`BLOCK_BYTES_MAX`], else that far.
pub fn block(held: &[u8]) -> Option<usize> {
    let reach = held.get(..BLOCK_BYTES_MAX).unwrap_or(held);
    let line = memchr::memchr(b'\n', reach.get(BLOCK_BYTES_MIN..).unwrap_or_default());
    if let Some(at) = line {
        return Some(BLOCK_BYTES_MIN + at + 1);
    }
    if held.len() < BLOCK_BYTES_MAX {
        return None;
    }
    if let Some(at) = reach.iter().rposition(u8::is_ascii_whitespace) {
        return Some(at + 1);
    }
    // Not within a character.
    let inside = |at: &usize| held.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    Some((BLOCK_BYTES_MAX - 3..=BLOCK_BYTES_MAX - 1).rev().find(|at| !inside(at)).unwrap_or(BLOCK_BYTES_MAX))
}

/// Bytes as text, with a mark in the place of what is none. Nearly always they are text as they are, which is quicker to
/// check for alone.
pub fn readable(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The escapes of JSON in a text that is not parsed: what they stand for, and white space for the rest.
pub fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(each) = chars.next() {
        if each != '\\' {
            plain.push(each);
            continue;
        }
        match chars.next() {
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                plain.push(code.unwrap_or(' '));
            }
            Some(other @ ('"' | '\\' | '/')) => plain.push(other),
            _ => plain.push(' '),
        }
    }
    plain
}
