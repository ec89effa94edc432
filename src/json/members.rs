//! The members of a record as JSON text, written once and in order.

use std::fmt::Display;
use std::io::Write as _;

/// JSON members, as in `"agent":{…},"class":"read"`: valid by construction and without a newline.
#[derive(Clone, Debug, Default)]
pub struct Members(Vec<u8>);

impl Members {
    /// No members yet, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Members {
        Members(Vec::with_capacity(bytes))
    }

    /// The text, without braces.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The size of the text, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The text, with braces.
    pub fn into_object(mut self) -> Vec<u8> {
        self.0.insert(0, b'{');
        self.0.push(b'}');
        self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A text.
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.string(value);
    }

    /// A text, unless it is empty.
    pub fn some(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    /// Something whose text is plain: an id, an address, a time.
    pub fn plain(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        let start = self.0.len();
        let _ = write!(self.0, "\"{value}\"");
        // Invariant: what is written is one JSON string, even if the value was not as plain as promised.
        let inside = self.0.get(start + 1..self.0.len() - 1).unwrap_or_default();
        if inside.iter().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
            self.0.truncate(start);
            self.string(&value.to_string());
        }
    }

    /// A whole number, or anything else that JSON writes as it is.
    pub fn number(&mut self, name: &'static str, value: impl Into<serde_json::Number>) {
        self.name(name);
        let _ = write!(self.0, "{}", value.into());
    }

    /// A number with three digits after the point.
    pub fn millis(&mut self, name: &'static str, duration: std::time::Duration) {
        self.name(name);
        let micros = duration.as_micros();
        let _ = write!(self.0, "{}.{:03}", micros / 1000, micros % 1000);
    }

    /// True or false.
    pub fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A list of texts.
    pub fn texts<'a>(&mut self, name: &'static str, values: impl IntoIterator<Item = &'a str>) {
        self.name(name);
        self.0.push(b'[');
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            self.string(value);
        }
        self.0.push(b']');
    }

    /// An object.
    pub fn object(&mut self, name: &'static str, members: impl FnOnce(&mut Members)) {
        self.name(name);
        self.0.push(b'{');
        members(self);
        self.0.push(b'}');
    }

    /// A list of objects.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Members, T),
    ) {
        self.name(name);
        self.0.push(b'[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            self.0.push(b'{');
            write(self, item);
            self.0.push(b'}');
        }
        self.0.push(b']');
    }

    /// Other members after these.
    pub fn append(&mut self, others: &Members) {
        if !others.is_empty() {
            self.comma();
            self.0.extend_from_slice(&others.0);
        }
    }

    /// A name of our own, which needs no escaping.
    fn name(&mut self, name: &'static str) {
        debug_assert!(is_plain(name));
        self.comma();
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A name that is only known when it is written, as a fact's.
    fn named(&mut self, name: &str) {
        self.comma();
        self.string(name);
        self.0.push(b':');
    }

    /// An object whose names are only known when it is written.
    pub fn map<'a, T: 'a>(
        &mut self,
        name: &'static str,
        entries: impl IntoIterator<Item = (&'a str, T)>,
        mut write: impl FnMut(&mut Members, T),
    ) {
        self.object(name, |members| {
            for (name, value) in entries {
                members.named(name);
                members.0.push(b'{');
                write(members, value);
                members.0.push(b'}');
            }
        });
    }

    fn comma(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{')) {
            self.0.push(b',');
        }
    }

    fn string(&mut self, value: &str) {
        if is_plain(value) {
            self.0.push(b'"');
            self.0.extend_from_slice(value.as_bytes());
            self.0.push(b'"');
        } else {
            // Writing to memory cannot fail.
            let _ = serde_json::to_writer(&mut self.0, value);
        }
    }
}

/// Whether a text is the same inside of a JSON string.
fn is_plain(text: &str) -> bool {
    // Without an early end, so that many bytes are looked at together.
    text.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn whatever_is_written_is_json_of_one_line() {
        let hostile = "a\"b\\c\n\u{0}\u{1f}\u{2028}é";
        let mut members = Members::default();
        members.text("text", hostile);
        members.plain("plain", hostile);
        members.some("left_out", "");
        members.texts("none", []);
        members.texts("two", [hostile, "b"]);
        members.object("empty", |_| {});
        members.object("inner", |inner| {
            inner.flag("yes", true);
            inner.number("n", -3);
        });
        members.map("facts", [(hostile, 1)], |inner, n| inner.number("long", n));
        members.millis("ms", std::time::Duration::from_micros(1_002_003));
        let mut more = Members::default();
        more.flag("last", false);
        members.append(&more);
        let text = String::from_utf8(members.into_object()).unwrap();
        assert!(!text.contains('\n'));
        let read: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "text": hostile, "plain": hostile, "none": [], "two": [hostile, "b"], "empty": {},
            "inner": {"yes": true, "n": -3}, "facts": {hostile: {"long": 1}}, "ms": 1002.003,
            "last": false,
        });
        assert_eq!(read, expected);
    }
}
