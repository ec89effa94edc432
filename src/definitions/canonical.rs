//! One definition of a tool in its canonical form, and the digest by which it is pinned.
//!
//! The form is that of RFC 8785 with one exception: numbers stay as they were written. It has what a model or a client
//! acts on: `name`, `title`, `description`, `inputSchema`, `outputSchema`, `annotations`, as far as they are there. It
//! does not have `_meta`, which is for machines and may change with each reply, nor `icons`, which are references whose
//! targets no digest covers, nor `execution`, since the gateway judges tasks itself.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use crate::call::hex;
use crate::json::{Document, Kind, Limits, Value};
use crate::names;

/// What a definition is made of, in the order of the canonical form.
pub const MEMBERS: [&str; 6] = ["annotations", "description", "inputSchema", "name", "outputSchema", "title"];

/// How deep a definition may nest, and how many values it may have: beyond, nobody could say what it means.
const LIMITS: Limits = Limits { depth_max: 128, nodes_max: 1 << 16 };
/// The largest definition, in bytes of JSON.
pub const DEFINITION_BYTES_MAX: usize = 256 << 10;

/// A definition as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The tool's name.
    pub name: Arc<str>,
    /// The digest of the canonical form: `sha256:` and 64 hexadecimal digits.
    pub digest: Arc<str>,
    /// The canonical form.
    pub canonical: String,
    /// The first character in it that nobody sees, in whatever member it is.
    pub hidden: Option<char>,
}

/// Why an item of a list is no definition that can be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Parsers could read it differently.
    #[error("it cannot be read in one way only: {0}")]
    Json(crate::json::Fault),
    /// It has no name.
    #[error("it has no name")]
    Nameless,
    /// It is too large.
    #[error("it is larger than {DEFINITION_BYTES_MAX} bytes")]
    TooLarge,
}

/// Reads an item of `tools/list`.
pub fn read(item: &[u8]) -> Result<Definition, Fault> {
    if item.len() > DEFINITION_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    let document = Document::parse(Bytes::copy_from_slice(item), &LIMITS).map_err(Fault::Json)?;
    let root = document.root();
    let name = root.get("name").and_then(|name| name.string()).ok_or(Fault::Nameless)?;
    let mut canonical = String::from("{");
    for key in MEMBERS {
        let Some(value) = root.get(key) else { continue };
        if canonical.len() > 1 {
            canonical.push(',');
        }
        let _ = write!(canonical, "\"{key}\":");
        write_value(&value, &mut canonical);
    }
    canonical.push('}');
    let digest = digest_of(&canonical);
    Ok(Definition { name: Arc::from(&*name), digest, hidden: hidden(&root), canonical })
}

/// The digest of a canonical form.
pub fn digest_of(canonical: &str) -> Arc<str> {
    Arc::from(format!("sha256:{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref())))
}

fn write_value(value: &Value<'_>, into: &mut String) {
    match value.kind() {
        Kind::Object => {
            let mut members: Vec<_> = value.members().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            into.push('{');
            for (at, (key, value)) in members.iter().enumerate() {
                if at > 0 {
                    into.push(',');
                }
                into.push_str(&serde_json::Value::from(&**key).to_string());
                into.push(':');
                write_value(value, into);
            }
            into.push('}');
        }
        Kind::Array => {
            into.push('[');
            for (at, item) in value.items().enumerate() {
                if at > 0 {
                    into.push(',');
                }
                write_value(&item, into);
            }
            into.push(']');
        }
        Kind::String => {
            into.push_str(&serde_json::Value::from(&*value.string().unwrap_or_default()).to_string())
        }
        Kind::Bool | Kind::Null | Kind::Number => into.push_str(&String::from_utf8_lossy(value.raw())),
    }
}

fn hidden(value: &Value<'_>) -> Option<char> {
    match value.kind() {
        Kind::String => names::hidden(&value.string()?),
        Kind::Array => value.items().find_map(|item| hidden(&item)),
        Kind::Object => {
            value.members().find_map(|(key, value)| names::hidden(&key).or_else(|| hidden(&value)))
        }
        Kind::Bool | Kind::Null | Kind::Number => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Arc<str> {
        read(text.as_bytes()).unwrap().digest
    }

    #[test]
    fn the_form_is_what_is_said_of_it() {
        let read = read(br#" {"name":"a","title":"T","inputSchema":{"type":"object","properties":{"\u20ac":{},"\ud83d\ude00":1,"\ufb33":2,"b":1.0}},
            "_meta":{"x":1},"icons":[{"src":"y"}],"description":"\u0041\/\n"} "#)
        .unwrap();
        assert_eq!(
            read.canonical,
            "{\"description\":\"A/\\n\",\"inputSchema\":{\"properties\":{\"b\":1.0,\"\u{20ac}\":{},\"\u{1f600}\":1,\"\u{fb33}\":2},\"type\":\"object\"},\
             \"name\":\"a\",\"title\":\"T\"}"
        );
        assert_eq!(read.digest, digest_of(&read.canonical));
        assert_eq!(read.digest.len(), 71);
    }

    #[test]
    fn what_a_model_reads_changes_the_digest_and_nothing_else_does() {
        let one = digest(r#"{"name":"a","description":"x","inputSchema":{"type":"object","a":1}}"#);
        for same in [
            r#"{"inputSchema":{"a":1,"type":"object"},"description":"\u0078","name":"a"}"#,
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","a":1},"_meta":{"n":1},"icons":[]}"#,
        ] {
            assert_eq!(digest(same), one, "{same}");
        }
        for other in [
            r#"{"name":"a","description":"X","inputSchema":{"type":"object","a":1}}"#,
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","a":1.0}}"#,
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","a":1},"annotations":{}}"#,
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","a":1},"outputSchema":null}"#,
            r#"{"name":"a","title":"x","inputSchema":{"type":"object","a":1}}"#,
        ] {
            assert_ne!(digest(other), one, "{other}");
        }
    }

    #[test]
    fn hidden_text_is_found_in_any_member() {
        for text in [
            "{\"name\":\"a\u{200b}\"}",
            r#"{"name":"a","inputSchema":{"properties":{"b":{"description":"\u202e"}}}}"#,
            r#"{"name":"a","inputSchema":{"enum":["\udb40\udc41"]}}"#,
            r#"{"name":"a","inputSchema":{"x\u200b":1}}"#,
            r#"{"name":"a","_meta":{"x":"\u001b[8m"}}"#,
        ] {
            assert!(read(text.as_bytes()).unwrap().hidden.is_some(), "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_no_definition() {
        for text in
            [r#"{"name":"a","name":"b"}"#, r#"{"name":"a","description":"x","Description":"y"}"#, "[]", "{}"]
        {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{{\"name\":\"a\",\"inputSchema\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(matches!(read(deep.as_bytes()), Err(Fault::Json(_))));
        let long = format!("{{\"name\":\"a\",\"description\":\"{}\"}}", "x".repeat(DEFINITION_BYTES_MAX));
        assert_eq!(read(long.as_bytes()), Err(Fault::TooLarge));
    }
}
