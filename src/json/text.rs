//! Text within JSON: what of a string stands as it is, what its escapes stand for, and which keys are alike.

use std::borrow::Cow;

use wide::u8x16;

/// Folds a key as the laxest reader would: Unicode simple case folding, which takes `ſ` for `s` and `K` for `k`.
pub fn fold(key: &str) -> String {
    if key.is_ascii() {
        return key.to_ascii_lowercase();
    }
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// How many bytes, in steps of sixteen, are neither a quote, a backslash nor a control character; the rest of the last
/// step is looked at byte by byte.
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    let mut run = 0;
    for some in bytes.as_chunks::<16>().0 {
        let some = u8x16::new(*some);
        let control = some.simd_eq(some.min(u8x16::splat(0x1f)));
        let found = control | some.simd_eq(u8x16::splat(b'"')) | some.simd_eq(u8x16::splat(b'\\'));
        let found = found.to_bitmask();
        if found != 0 {
            return run + found.trailing_zeros() as usize;
        }
        run += 16;
    }
    run
}

/// Resolves the escapes of a string that the parser has accepted.
pub(super) fn unescape(inner: &str) -> Cow<'_, str> {
    let mut next = memchr::memchr(b'\\', inner.as_bytes());
    if next.is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = next {
        let (plain, escaped) = rest.split_at_checked(at).unwrap_or_default();
        let escaped = escaped.strip_prefix('\\').unwrap_or_default();
        out.push_str(plain);
        let mut chars = escaped.chars();
        let code =
            |from: usize| escaped.get(from..from + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let high = code(1).unwrap_or(0xfffd);
                let pair = (0xd800..0xdc00).contains(&high);
                let point = if pair {
                    0x10000 + ((high - 0xd800) << 10) + (code(7).unwrap_or(0xdc00) - 0xdc00)
                } else {
                    high
                };
                out.push(char::from_u32(point).unwrap_or('\u{fffd}'));
                chars = escaped.get(if pair { 11 } else { 5 }..).unwrap_or_default().chars();
            }
            Some(other) => out.push(other),
            None => {}
        }
        rest = chars.as_str();
        next = memchr::memchr(b'\\', rest.as_bytes());
    }
    out.push_str(rest);
    Cow::Owned(out)
}
