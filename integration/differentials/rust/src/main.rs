//! Says how Rust reads requests: serde_json into its own values, or with the argument `struct` into structs as servers do;
//! and form_urlencoded and percent-encoding, which web frameworks use.
//!
//! A line on standard input is a kind (json, query, path) and the bytes in Base64; a line of JSON on standard output is
//! what was read, or {"ok": false}.

use std::collections::BTreeMap;
use std::io::BufRead as _;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Call {
    method: Value,
    #[serde(default)]
    id: Value,
    #[serde(default)]
    params: Option<Params>,
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    arguments: Value,
}

fn main() {
    let typed = std::env::args().nth(1).is_some_and(|word| word == "struct");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let (kind, encoded) = line.split_once(' ').expect("a kind and bytes");
        let text = base64::engine::general_purpose::STANDARD.decode(encoded).expect("Base64");
        let told = match (kind, typed) {
            ("json", true) => read_struct(&text),
            ("json", false) => read_value(&text),
            ("query", _) => Some(read_query(&text)),
            ("path", _) => read_path(&text),
            _ => panic!("{kind}"),
        };
        println!("{}", told.unwrap_or_else(|| json!({"ok": false})));
    }
}

fn read_value(text: &[u8]) -> Option<Value> {
    let read: Value = serde_json::from_slice(text).ok()?;
    let (params, arguments) = (&read["params"], &read["params"]["arguments"]);
    Some(json!({
        "ok": true, "method": read["method"], "id": read["id"], "name": params["name"], "arguments": arguments,
        "mode": arguments["mode"],
    }))
}

fn read_struct(text: &[u8]) -> Option<Value> {
    let Call { method, id, params } = serde_json::from_slice(text).ok()?;
    let Params { name, arguments } = params.unwrap_or(Params { name: Value::Null, arguments: Value::Null });
    let mode = arguments["mode"].clone();
    Some(json!({"ok": true, "method": method, "id": id, "name": name, "arguments": arguments, "mode": mode}))
}

fn read_query(text: &[u8]) -> Value {
    let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(text) {
        pairs.entry(key.into_owned()).or_default().push(value.into_owned());
    }
    json!({"ok": true, "pairs": pairs})
}

fn read_path(text: &[u8]) -> Option<Value> {
    let path = text.split(|byte| *byte == b'?').next()?;
    let decoded = percent_encoding::percent_decode(path).decode_utf8().ok()?;
    Some(json!({"ok": true, "path": decoded}))
}
