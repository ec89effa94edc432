//! What an upstream tells: its JSON, read for what must be known of it, and lists cut down to what an agent may see.
//!
//! Upstreams are read leniently, and what need not change passes in its own bytes.

use std::borrow::Cow;
use std::fmt;

use http::Uri;
use http::uri::PathAndQuery;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::jsonrpc::Id;
use crate::json::fold;

/// The members of an object in their order, a key that is there twice included.
#[derive(Debug, Default)]
pub struct Members<'d>(Vec<(Cow<'d, str>, &'d RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Key<'d>(#[serde(borrow)] Cow<'d, str>);

impl<'d> Members<'d> {
    /// The members of a text that is one object.
    pub fn read(text: &'d str) -> Option<Members<'d>> {
        serde_json::from_str(text).ok()
    }

    /// The value of a key; of the last, where there are several.
    pub fn get(&self, key: &str) -> Option<&'d RawValue> {
        self.0.iter().rev().find(|(each, _)| each == key).map(|(_, value)| *value)
    }

    /// The members of the object under a key.
    pub fn object(&self, key: &str) -> Option<Members<'d>> {
        Members::read(self.get(key)?.get())
    }

    /// The string under a key.
    pub fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.get(key)?.get()).ok()
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = &'d RawValue> {
        self.0.iter().map(|(_, value)| *value)
    }
}

/// The `result` of a response.
pub fn result(text: &[u8]) -> Option<Members<'_>> {
    Members::read(std::str::from_utf8(text).ok()?)?.object("result")
}

/// The id of a response.
pub fn id(text: &[u8]) -> Option<Id> {
    let id = Members::read(std::str::from_utf8(text).ok()?)?.get("id")?;
    match serde_json::from_str(id.get()).ok()? {
        serde_json::Value::String(text) => Some(Id::Text(text.into())),
        // A server that keeps numbers as doubles may answer `1.0`.
        serde_json::Value::Number(number) => number.as_f64().map(|number| Id::Number(number as i64)),
        _ => None,
    }
}

/// Path and query of a reference [RFC 3986 §4.2] that an upstream of this authority gives at this path; `None` when it
/// leads elsewhere.
pub fn resolved(reference: &str, authority: &str, base: &str) -> Option<PathAndQuery> {
    const BYTES_MAX: usize = 2048;
    let reference = reference.trim();
    let sound = reference.len() <= BYTES_MAX && reference.bytes().all(|byte| byte.is_ascii_graphic());
    if !sound || reference.starts_with("//") || reference.contains(['\\', '#']) {
        return None;
    }
    if reference.starts_with('/') {
        return reference.parse().ok();
    }
    let scheme = reference.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
    if scheme {
        let uri: Uri = reference.parse().ok()?;
        let own = uri.authority()?.as_str().eq_ignore_ascii_case(authority);
        let web = matches!(uri.scheme_str(), Some("http" | "https"));
        return (own && web).then(|| uri.path_and_query().cloned()).flatten();
    }
    let (directory, _) = base.rsplit_once('/')?;
    format!("{directory}/{reference}").parse().ok()
}

/// A list in a reply, and by what its items are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// The key of the array in `result`.
    pub array: &'static str,
    /// The key of an item's name.
    pub name: &'static str,
}

/// What cutting a list down gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut {
    /// Everything may be seen: the bytes pass as they are.
    Whole,
    /// The text without what may not be seen, and how many items that were.
    Less(Vec<u8>, usize),
    /// It cannot be read, so nobody can say what is in it.
    Unreadable,
}

/// Cuts a list down to what `shows` lets through by its name and its text; a shared cache must then not keep it for others [MCP 2026-07-28,
/// caching]. A key counts in whatever case it is written, since some reader would take it for the list.
pub fn cut(text: &[u8], list: List, mut shows: impl FnMut(&str, &str) -> bool) -> Cut {
    let Some(message) = std::str::from_utf8(text).ok().and_then(Members::read) else {
        return Cut::Unreadable;
    };
    let mut hidden = 0;
    let mut unreadable = false;
    let whole = object(&message, |key, value| {
        if fold(key) != "result" {
            return None;
        }
        let result = Members::read(value)?;
        let less = object(&result, |key, value| {
            if fold(key) != list.array.to_ascii_lowercase() {
                return None;
            }
            let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value) else {
                unreadable = true;
                return None;
            };
            let seen: Vec<&str> =
                items.iter().map(|item| item.get()).filter(|item| seen(item, list, &mut shows)).collect();
            hidden += items.len() - seen.len();
            Some(format!("[{}]", seen.join(",")))
        });
        Some(if hidden == 0 { less } else { object_of(&less, private) })
    });
    match (unreadable, hidden) {
        (true, _) => Cut::Unreadable,
        (false, 0) => Cut::Whole,
        (false, hidden) => Cut::Less(whole.into_bytes(), hidden),
    }
}

fn seen(item: &str, list: List, shows: &mut impl FnMut(&str, &str) -> bool) -> bool {
    Members::read(item).and_then(|item| item.text(list.name)).is_some_and(|name| shows(&name, item))
}

fn private(key: &str, value: &str) -> Option<String> {
    (key == "cacheScope" && value == "\"public\"").then(|| "\"private\"".to_owned())
}

fn object_of(text: &str, change: impl FnMut(&str, &str) -> Option<String>) -> String {
    object(&Members::read(text).unwrap_or_default(), change)
}

/// An object again, with the values that `change` gives in place of theirs.
fn object(members: &Members<'_>, mut change: impl FnMut(&str, &str) -> Option<String>) -> String {
    let mut text = String::from("{");
    for (key, value) in &members.0 {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(&**key).to_string());
        text.push(':');
        text.push_str(change(key, value.get()).as_deref().unwrap_or(value.get()));
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: List = List { array: "tools", name: "name" };

    fn without_b(text: &str) -> Cut {
        cut(text.as_bytes(), TOOLS, |name, _| name != "b")
    }

    #[test]
    fn a_list_loses_what_may_not_be_seen_and_nothing_else() {
        let text = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","x":1.0},{"name":"b"}],"cacheScope":"public","ttlMs":5}}"#;
        let less = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","x":1.0}],"cacheScope":"private","ttlMs":5}}"#;
        assert_eq!(without_b(text), Cut::Less(less.into(), 1));
        assert_eq!(without_b(&text.replace("\"b\"", "\"c\"")), Cut::Whole);
        assert_eq!(without_b(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#), Cut::Whole);
    }

    #[test]
    fn an_endpoint_is_the_upstreams_own_or_none() {
        let at = |reference: &str| resolved(reference, "127.0.0.1:3101", "/old/sse").map(|at| at.to_string());
        assert_eq!(at("/messages?sessionId=1").as_deref(), Some("/messages?sessionId=1"));
        assert_eq!(at("messages/?s=1").as_deref(), Some("/old/messages/?s=1"));
        assert_eq!(at("http://127.0.0.1:3101/m").as_deref(), Some("/m"));
        for foreign in [
            "http://127.0.0.1:3102/m",
            "//evil.test/m",
            "ftp://127.0.0.1:3101/m",
            "http://a@127.0.0.1:3101/m",
        ] {
            assert_eq!(at(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn no_spelling_hides_an_item_from_the_cut() {
        for text in [
            r#"{"id":1,"result":{"TOOLS":[{"name":"b"}]}}"#,
            r#"{"id":1,"Result":{"tools":[{"name":"b"}]}}"#,
            r#"{"id":1,"result":{"tools":[],"tools":[{"name":"b"}]}}"#,
            r#"{"id":1,"result":{"tools":[{"name":"\u0062"}]}}"#,
            r#"{"id":1,"result":{"tools":[{"name":"a","name":"b"}]}}"#,
            r#"{"id":1,"result":{"tools":[{"title":"no name"}]}}"#,
        ] {
            assert!(matches!(without_b(text), Cut::Less(_, 1)), "{text}");
        }
        for text in
            ["", "[]", r#"{"id":1,"result":{"tools":{"b":1}}}"#, "{\"id\":1,\"result\":{\"tools\":[NaN]}}"]
        {
            assert_eq!(without_b(text), Cut::Unreadable, "{text}");
        }
    }
}
