//! Watches JSON as it passes for what an upstream may not say: a request of its own, or questions to the client.
//!
//! It looks at keys alone, and only at those near the top. It is deliberately laxer than any parser: what some client
//! could read as a request is one, whatever the case of its key, its escapes, and whatever else is wrong with the text.
//! So nothing has to be kept until the text is whole; a text that breaks off where such a key stands executes nothing.

use crate::json::fold;

/// How deep keys are looked at, a batch's own array included.
const DEPTH_MAX: usize = 3;
/// More bytes than a watched key has when every character of it is escaped.
const KEY_BYTES_MAX: usize = 128;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A message with a method: a request or a notification.
    Method,
    /// A result with `inputRequests` [MCP 2026-07-28, multi round-trip requests].
    InputRequests,
}

/// The state between two pieces of a text.
#[derive(Debug, Default)]
pub struct Watch {
    depth: usize,
    /// Whether what is open at each depth is an object.
    objects: [bool; DEPTH_MAX + 1],
    /// Whether the whole is a batch, so that everything lies one deeper.
    batch: bool,
    /// Whether a string that begins now is a key.
    key_next: bool,
    string: Option<Text>,
}

/// A string that is being read.
#[derive(Debug)]
struct Text {
    escaped: bool,
    /// Its bytes, where it is a key that is looked at.
    key: Option<Vec<u8>>,
}

impl Watch {
    /// Takes the next bytes; the first watched key among them is given.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Found> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = match self.string.take() {
                Some(text) => match self.string(text, rest) {
                    (_, Some(found)) => return Some(found),
                    (rest, None) => rest,
                },
                None => self.structure(rest),
            };
        }
        None
    }

    /// Reads on to the end of a string.
    fn string<'b>(&mut self, mut text: Text, mut rest: &'b [u8]) -> (&'b [u8], Option<Found>) {
        while let Some((&first, after)) = rest.split_first() {
            if text.escaped {
                text.escaped = false;
                text.take(&[first]);
                rest = after;
                continue;
            }
            let plain = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            let (taken, left) = rest.split_at_checked(plain).unwrap_or((rest, &[]));
            text.take(taken);
            match left.split_first() {
                Some((b'"', after)) => return (after, self.judge(text)),
                Some((backslash, after)) => {
                    text.escaped = true;
                    text.take(&[*backslash]);
                    rest = after;
                }
                None => rest = left,
            }
        }
        self.string = Some(text);
        (rest, None)
    }

    /// Reads on to the next string.
    fn structure<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    let looked_at = std::mem::take(&mut self.key_next).then(Vec::new);
                    self.string = Some(Text { escaped: false, key: looked_at });
                    return bytes.get(at + 1..).unwrap_or_default();
                }
                b'{' | b'[' => {
                    let object = *byte == b'{';
                    if self.depth == 0 {
                        self.batch = !object;
                    }
                    self.depth += 1;
                    if let Some(open) = self.objects.get_mut(self.depth) {
                        *open = object;
                    }
                    self.key_next = self.in_object();
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.key_next = false;
                }
                b',' => self.key_next = self.in_object(),
                b':' => self.key_next = false,
                _ => {}
            }
        }
        &[]
    }

    /// Whether what is open is an object whose keys are looked at.
    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects.get(self.depth).copied().unwrap_or(false)
    }

    fn judge(&self, text: Text) -> Option<Found> {
        let raw = text.key?;
        let at = self.depth.saturating_sub(usize::from(self.batch));
        if raw.is_ascii() && !raw.contains(&b'\\') {
            // What nearly every key is: itself, and folding is a matter of case.
            return match at {
                1 if raw.eq_ignore_ascii_case(b"method") => Some(Found::Method),
                2 if raw.eq_ignore_ascii_case(b"inputrequests") => Some(Found::InputRequests),
                _ => None,
            };
        }
        let quoted = [b"\"", raw.as_slice(), b"\""].concat();
        let key = match serde_json::from_slice::<String>(&quoted) {
            Ok(key) => key,
            Err(_) => String::from_utf8_lossy(&raw).into_owned(),
        };
        match (at, fold(&key).as_str()) {
            (1, "method") => Some(Found::Method),
            (2, "inputrequests") => Some(Found::InputRequests),
            _ => None,
        }
    }
}

impl Text {
    fn take(&mut self, bytes: &[u8]) {
        if let Some(key) = &mut self.key {
            key.extend_from_slice(bytes);
            if key.len() > KEY_BYTES_MAX {
                self.key = None;
            }
        }
    }
}

/// What a whole text has.
pub fn found(text: &[u8]) -> Option<Found> {
    Watch::default().feed(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_found_however_it_is_written() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}"#,
            r#"{"id":1,"result":{},"METHOD":"x"}"#,
            r#"{"id":1,"m\u0065thod":"x"}"#,
            r#"{"id":1,"\u006d\u0065\u0074\u0068\u006f\u0064":"x"}"#,
            r#"[{"id":1,"result":{}},{"id":2,"method":"x"}]"#,
            r#"{"id":1,"params":{"x":NaN},"method":"x"}"#,
            r#" {"id":1,"params":[{"a":"\"}"}],"method":"x"}"#,
            r#"{"id":1}{"method":"x"}"#,
        ] {
            assert_eq!(found(text.as_bytes()), Some(Found::Method), "{text}");
        }
        for text in [
            r#"{"id":1,"result":{"inputRequests":{}}}"#,
            r#"[{"id":1,"result":{"InputRequests":{}}}]"#,
            r#"{"id":1,"result":{"resultType":"input_required","input\u0052equests":{}}}"#,
        ] {
            assert_eq!(found(text.as_bytes()), Some(Found::InputRequests), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not_found() {
        for text in [
            r#"{"id":1,"result":{"method":"x","content":[{"inputRequests":1}]}}"#,
            r#"{"id":1,"result":{"text":"{\"method\":\"x\"}"}}"#,
            r#"{"id":"method","result":["method","inputRequests"]}"#,
            r#"{"id":1,"result":{"a":{"inputRequests":{}}}}"#,
            r#"{"inputRequests":{},"id":1}"#,
            r#"{"id":1,"methods":"x","":{}}"#,
            "",
            "method",
        ] {
            assert_eq!(found(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn how_a_text_is_cut_changes_nothing(
            text in prop_oneof![
                "[{}\\[\\],:\"\\\\ methodinputRequests0-9]{0,60}",
                Just(r#"{"id":1,"result":{"a":[1,{"b":"\""}],"input\u0052equests":{}}}"#.to_owned()),
            ],
            cuts in prop::collection::vec(0..80usize, 0..6),
        ) {
            let mut watch = Watch::default();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]);
            let mut found_in_pieces = None;
            for piece in pieces {
                found_in_pieces = found_in_pieces.or_else(|| watch.feed(piece));
            }
            prop_assert_eq!(found_in_pieces, found(text.as_bytes()));
        }
    }
}
