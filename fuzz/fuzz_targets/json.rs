//! Strict JSON: what is accepted means to serde_json what it means here, and nothing is refused for its syntax that
//! serde_json would take.
#![no_main]

use bytes::Bytes;
use holdpoint::json::{Document, Kind, Limits, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let other: Result<serde_json::Value, _> = serde_json::from_slice(data);
    match Document::parse(Bytes::copy_from_slice(data), &Limits::default()) {
        Ok(document) => {
            let root = document.root();
            assert_eq!(root.raw(), data.trim_ascii(), "the root is the whole text");
            same(root, &other.expect("serde_json refuses what was accepted"));
        }
        Err(fault) => {
            assert!(fault.at <= data.len(), "{fault}: beyond the text");
            let syntax = matches!(
                fault.reason,
                "empty" | "literal" | "number" | "string" | "surrogate" | "syntax" | "trailing-data" | "utf8"
            );
            assert!(!syntax || other.is_err(), "{fault}: serde_json accepts it");
        }
    }
});

/// Holds a value to what serde_json read, and its parts to theirs.
fn same(ours: Value<'_>, theirs: &serde_json::Value) {
    match ours.kind() {
        Kind::Array => {
            let theirs = theirs.as_array().expect("an array");
            assert_eq!(ours.items().count(), theirs.len());
            ours.items().zip(theirs).for_each(|(ours, theirs)| same(ours, theirs));
        }
        Kind::Object => {
            let theirs = theirs.as_object().expect("an object");
            assert_eq!(ours.members().count(), theirs.len(), "a key is there twice");
            for (key, value) in ours.members() {
                same(value, theirs.get(&*key).expect("the same keys"));
                assert_eq!(
                    ours.get(&key).map(|found| found.range()),
                    Some(value.range()),
                    "found by its key"
                );
            }
        }
        Kind::String => assert_eq!(ours.string().as_deref(), theirs.as_str()),
        Kind::Bool => assert_eq!(ours.boolean(), theirs.as_bool()),
        Kind::Null => assert!(theirs.is_null()),
        Kind::Number => {
            let written: f64 = ours.number().expect("a number").parse().expect("a double");
            let theirs = theirs.as_f64().expect("a number");
            // As it is built by default, serde_json may give the double beside the nearest.
            assert!((written - theirs).abs() <= written.abs() * 1e-15, "{written} and {theirs}");
        }
    }
}
