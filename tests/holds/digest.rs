//! What makes two calls the same call: JSON as a value with its numbers as they were written, all else as bytes.

use bytes::Bytes;
use holdpoint::hold::digest::{canonical, sha256};
use holdpoint::json::{Document, Limits};
use proptest::collection::vec;
use proptest::prelude::*;

/// A JSON value whose numbers are text, so that nothing is lost.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Word(&'static str),
    Number(String),
    Text(String),
    List(Vec<Json>),
    /// Each key once.
    Object(Vec<(String, Json)>),
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(Json::Word),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?".prop_map(Json::Number),
        any::<String>().prop_map(Json::Text),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Json::List),
            vec(("[a-z]{1,6}", inner), 0..6).prop_map(|members| {
                let mut kept: Vec<(String, Json)> = Vec::new();
                for (key, value) in members {
                    if kept.iter().all(|(other, _)| *other != key) {
                        kept.push((key, value));
                    }
                }
                Json::Object(kept)
            }),
        ]
    })
}

/// The value as text, in one of many ways that mean the same.
fn written(value: &Json, way: u64) -> String {
    let (odd, next) = (way % 2 == 1, way / 2 + way.wrapping_mul(31) % 97);
    let space = [" ", "\n\t", "", ""][(way % 4) as usize];
    match value {
        Json::Word(word) => format!("{space}{word}"),
        Json::Number(number) => format!("{number}{space}"),
        Json::Text(text) if odd => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>();
            format!("\"{units}\"")
        }
        Json::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Json::List(items) => {
            let items: Vec<String> = items.iter().map(|item| written(item, next)).collect();
            format!("[{space}{}{space}]", items.join(&format!("{space},")))
        }
        Json::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(key, value)| {
                    format!("{}:{space}{}", written(&Json::Text(key.clone()), next), written(value, next))
                })
                .collect();
            if odd {
                members.reverse();
            }
            format!("{{{}}}{space}", members.join(","))
        }
    }
}

fn read(text: &str) -> String {
    let document = Document::parse(Bytes::from(text.to_owned()), &Limits::default()).expect(text);
    let mut canonical_text = String::new();
    canonical(document.root(), &mut canonical_text);
    canonical_text
}

proptest! {
    #[test]
    fn however_it_is_written_it_is_the_same_call(value in json(), one: u64, other: u64) {
        let canonical = read(&written(&value, one));
        prop_assert_eq!(&canonical, &read(&written(&value, other)));
        prop_assert_eq!(&read(&canonical), &canonical, "what is canonical stays so");
    }

    #[test]
    fn another_value_is_another_call(one in json(), other in json()) {
        prop_assume!(sorted(&one) != sorted(&other));
        prop_assert_ne!(sha256(read(&written(&one, 0)).as_bytes()), sha256(read(&written(&other, 0)).as_bytes()));
    }
}

/// The value with its keys in order, which is all that two spellings may differ in.
fn sorted(value: &Json) -> Json {
    match value {
        Json::List(items) => Json::List(items.iter().map(sorted).collect()),
        Json::Object(members) => {
            let mut members: Vec<_> =
                members.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            Json::Object(members)
        }
        other => other.clone(),
    }
}

#[test]
fn numbers_are_what_was_written_and_never_what_a_double_holds() {
    assert_ne!(read("9007199254740993"), read("9007199254740992"));
    for (one, other) in [("1", "1.0"), ("1e2", "100"), ("0", "-0"), ("1", "\"1\""), ("null", "\"null\"")] {
        assert_ne!(read(one), read(other));
    }
}
