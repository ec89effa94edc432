use super::*;

fn parse(text: &[u8]) -> Result<Document, Fault> {
    Document::parse(Bytes::copy_from_slice(text), &Limits::default())
}

fn reason(text: &[u8]) -> &'static str {
    parse(text).map_or_else(|fault| fault.reason, |_| "accepted")
}

#[test]
fn what_parsers_read_differently_is_refused() {
    let cases: &[(&[u8], &str)] = &[
        (br#"{"name":"read","name":"rm"}"#, "duplicate-key"),
        (br#"{"name":"read","na\u006de":"rm"}"#, "duplicate-key"),
        (br#"{"name":"read","Name":"rm"}"#, "case-folded-key"),
        ("{\"params\":1,\"param\u{17f}\":2}".as_bytes(), "case-folded-key"),
        ("{\"k\":1,\"\u{212a}\":2}".as_bytes(), "case-folded-key"),
        (br#"{"name\u0000":1}"#, "key-control-character"),
        (br#"{"a":{"b":1,"b":2}}"#, "duplicate-key"),
        (br#"{"a":{"b":1},"a":2}"#, "duplicate-key"),
        (br#"{"a":{"A":{"a":1,"b":2}},"b":[{"a":1},{"a":1}],"A":0}"#, "case-folded-key"),
        (br#""\ud800""#, "surrogate"),
        (br#""\udc00""#, "surrogate"),
        (br#""\ud800\ud800""#, "surrogate"),
        (b"\"\xff\"", "utf8"),
        (b"\"\xc0\xaf\"", "utf8"),
        (b"\xef\xbb\xbf{}", "byte-order-mark"),
        (b"{\0}\0", "syntax"),
        (b"1e400", "number"),
        (b"NaN", "syntax"),
        (b"-Infinity", "number"),
        (b"01", "trailing-data"),
        (b"1.", "number"),
        (b".5", "syntax"),
        (b"+1", "syntax"),
        (b"{} {}", "trailing-data"),
        (b"{}\0", "trailing-data"),
        (b"[1,]", "syntax"),
        (b"{\"a\":1,}", "syntax"),
        (b"{'a':1}", "syntax"),
        (b"// x\n{}", "syntax"),
        (b"\"a\nb\"", "string"),
        (br#""\x41""#, "string"),
        (b"", "empty"),
        (b"  ", "empty"),
        (b"tru", "literal"),
        (b"True", "syntax"),
    ];
    for (text, expected) in cases {
        assert_eq!(reason(text), *expected, "{}", String::from_utf8_lossy(text));
    }
    assert_eq!(reason("[".repeat(65).as_bytes()), "depth");
    assert_eq!(reason("[".repeat(200_000).as_bytes()), "depth");
}

#[test]
fn duplicates_are_found_among_many_keys() {
    let keys: Vec<String> = (0..100).map(|n| format!("\"k{n}\":0")).collect();
    assert_eq!(reason(format!("{{{}}}", keys.join(",")).as_bytes()), "accepted");
    assert_eq!(reason(format!("{{{},\"k50\":1}}", keys.join(",")).as_bytes()), "duplicate-key");
    assert_eq!(reason(format!("{{{},\"K50\":1}}", keys.join(",")).as_bytes()), "case-folded-key");
    // Those of an object within are its own, and those before it are still there.
    let (few, within) = (keys[..9].join(","), keys.join(","));
    let around = |last: &str| format!("{{{few},\"in\":{{{within}}},{last}}}");
    assert_eq!(reason(around("\"k50\":1").as_bytes()), "accepted");
    assert_eq!(reason(around("\"k3\":1").as_bytes()), "duplicate-key");
    assert_eq!(reason(around("\"K3\":1").as_bytes()), "case-folded-key");
}

#[test]
fn values_are_found_where_they_lie() {
    let text = br#" {"a":[1,{"b":"x\n\u00e9\ud83d\ude00"},[2,3]],"c/d":{"e":null},"t":true} "#;
    let document = parse(text).unwrap();
    let root = document.root();
    assert_eq!(root.pointer("/a/1/b")[0].string().unwrap(), "x\n\u{e9}\u{1f600}");
    assert_eq!(root.pointer("/a/2/*").iter().map(|v| v.number().unwrap()).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(root.pointer("/c~1d/e")[0].kind(), Kind::Null);
    assert_eq!(root.get("t").unwrap().boolean(), Some(true));
    assert!(root.pointer("/a/b").is_empty());
    assert_eq!(root.pointer("/a/2")[0].raw(), b"[2,3]");
    assert_eq!(&document.bytes()[root.range()], text.trim_ascii());
}

proptest::proptest! {
    #[test]
    fn accepted_text_is_what_serde_reads(text in r#"[\[\]{}:,"a-c0-9\\u.eE+ tfn\-]{0,40}"#) {
        if let Ok(document) = parse(text.as_bytes()) {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            proptest::prop_assert_eq!(plain(document.root()), value);
        }
    }
}

fn plain(value: Value<'_>) -> serde_json::Value {
    match value.kind() {
        Kind::Array => value.items().map(plain).collect(),
        Kind::Object => serde_json::Value::Object(
            value.members().map(|(key, value)| (key.into_owned(), plain(value))).collect(),
        ),
        Kind::String => serde_json::Value::String(value.string().unwrap().into_owned()),
        Kind::Bool | Kind::Null | Kind::Number => serde_json::from_slice(value.raw()).unwrap(),
    }
}
