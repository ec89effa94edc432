//! The classify stage through its front door: a catalogue in YAML, a call, and what it is taken for.

#![expect(clippy::unwrap_used, reason = "a test's own helpers fail by panicking")]

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use holdpoint::call::FactType;
use holdpoint::call::{Class, Lifted, PolicyAction, Returns, StopKind};
use holdpoint::classify::catalog::{Catalog, UpstreamConfig, UpstreamKind};
use holdpoint::classify::sink::{Internal, Place};
use holdpoint::classify::{self, Facts, HttpBody, Question, Subject};
use holdpoint::config::catalog::{Source, catalog};
use holdpoint::json::{Document, Limits};
use holdpoint::yaml::Mistake;
use http::{HeaderMap, HeaderValue};

fn upstream(name: &str, kind: UpstreamKind) -> UpstreamConfig {
    let none: Arc<str> = Arc::from("");
    UpstreamConfig {
        name: Arc::from(name),
        kind,
        environment: none.clone(),
        region: none.clone(),
        data_domain: none,
        inside: true,
        trusted: false,
        strict: name.starts_with("strict"),
        asks: holdpoint::classify::catalog::Asks::usual(false),
        methods: Vec::new(),
        shadow: None,
    }
}

fn internal() -> Internal {
    let mut internal = Internal::default();
    for pattern in ["*@example.org", "*.example.org", "ops@partner.com"] {
        internal.add(pattern).unwrap();
    }
    internal
}

fn read(name: &str, kind: UpstreamKind, text: &str) -> (Catalog, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    let source = Source { upstream: upstream(name, kind), file: Some(("c.yaml", text)) };
    let catalog = catalog(internal(), vec![source], &mut mistakes);
    (catalog, mistakes)
}

fn sound(name: &str, kind: UpstreamKind, text: &str) -> Catalog {
    let (catalog, mistakes) = read(name, kind, text);
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    catalog
}

fn document(text: &str) -> Document {
    Document::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
}

fn tool(catalog: &Catalog, name: &str, arguments: &str) -> Facts {
    let upstream = catalog.upstreams().next().unwrap();
    let document = document(arguments);
    let subject = Subject::Tool { name, arguments: Some(document.root()) };
    classify::facts(catalog, &Question { upstream, subject }).unwrap()
}

fn http(catalog: &Catalog, operation: &str, content_type: Option<&str>, body: HttpBody<'_>) -> Facts {
    let upstream = catalog.upstreams().next().unwrap();
    let (method, path) = operation.split_once(' ').unwrap();
    let mut headers = HeaderMap::new();
    if let Some(kind) = content_type {
        headers.insert("content-type", HeaderValue::from_str(kind).unwrap());
    }
    let subject = Subject::Http { method, path, query: &[], headers: &headers, body };
    classify::facts(catalog, &Question { upstream, subject }).unwrap()
}

fn name(facts: &Facts) -> &str {
    &facts.resource.name
}

#[test]
fn example_catalogues_parse() {
    let mail = sound("mail", UpstreamKind::Mcp, include_str!("../catalog/mail.yaml"));
    let crm = sound("crm", UpstreamKind::Http, include_str!("../catalog/crm.yaml"));
    assert_eq!(crm.fact_types().get("amount"), Some(&FactType::Decimal));
    let facts = tool(&mail, "send_email", r#"{"recipients":["ana@example.org"],"subject":"x","body":"y"}"#);
    assert_eq!((facts.class, facts.consequence.level()), (Class::Write, 1));
    assert_eq!(facts.action, PolicyAction::Write);
    let again = tool(&mail, "send_email", "{}");
    assert!(Arc::ptr_eq(&facts.resource, &again.resource), "one profile per operation");
    assert_eq!(again.class, Class::External);
}

#[test]
fn only_recipients_that_are_all_plainly_internal_lower_the_class() {
    let mail = sound("mail", UpstreamKind::Mcp, include_str!("../catalog/mail.yaml"));
    let internal = [
        r#"{"recipients":["ana@example.org"]}"#,
        r#"{"recipients":["ANA@Example.ORG"]}"#,
        r#"{"recipients":["ana@example.org."]}"#,
        r#"{"recipients":["ana@example.org","bo.c+x@example.org"],"cc":["ops@partner.com"]}"#,
        r#"{"recipients":["mx1.example.org"]}"#,
        r#"{"cc":["ana@example.org"]}"#,
    ];
    for arguments in internal {
        let facts = tool(&mail, "send_email", arguments);
        assert!(facts.destinations_internal, "{arguments}");
        assert_eq!(facts.class, Class::Write, "{arguments}");
        assert_eq!(facts.tiers, ["internal"], "{arguments}");
    }
    let hostile = [
        r#"{}"#,
        r#"{"recipients":[]}"#,
        r#"{"recipients":null}"#,
        r#"{"recipients":"ana@example.org"}"#,
        r#"{"recipients":{"0":"ana@example.org"}}"#,
        r#"{"recipients":[["ana@example.org"]]}"#,
        r#"{"recipients":["ana@example.org",null]}"#,
        r#"{"recipients":["ana@example.org",7]}"#,
        r#"{"recipients":["ana@example.org",{"email":"x@evil.com"}]}"#,
        r#"{"recipients":["ana@example.org","x@evil.com"]}"#,
        r#"{"recipients":["ana@example.org"],"cc":["x@evil.com"]}"#,
        r#"{"recipients":["ana@example.org"],"cc":"x@evil.com"}"#,
        r#"{"recipients":["ana@example.org"],"Cc":["x@evil.com"]}"#,
        r#"{"recipients":["ana@example.org"],"cc":[]}"#,
        r#"{"recipients":["a@example.org,b@evil.com"]}"#,
        r#"{"recipients":["a@evil.com;b@example.org"]}"#,
        r#"{"recipients":["b@evil.com a@example.org"]}"#,
        r#"{"recipients":["a@example.org\nbcc: b@evil.com"]}"#,
        r#"{"recipients":["a@example.org\n"]}"#,
        r#"{"recipients":[" a@example.org"]}"#,
        r#"{"recipients":["Ana <a@example.org>"]}"#,
        r#"{"recipients":["b@evil.com (a@example.org)"]}"#,
        r#"{"recipients":["\"b@evil.com\"@example.org"]}"#,
        r#"{"recipients":["b@evil.com@example.org"]}"#,
        r#"{"recipients":["b%evil.com@example.org"]}"#,
        r#"{"recipients":["evil.com!b@example.org"]}"#,
        r#"{"recipients":["-oQ@example.org"]}"#,
        r#"{"recipients":["a@example\u3002org"]}"#,
        r#"{"recipients":["a@ex\u0430mple.org"]}"#,
        r#"{"recipients":["a@example.org\u0000"]}"#,
        r#"{"recipients":["a@example.org.."]}"#,
        r#"{"recipients":["a@example.org.evil.com"]}"#,
        r#"{"recipients":["a@evilexample.org"]}"#,
        r#"{"recipients":["a@mx.example.org"]}"#,
        r#"{"recipients":["@example.org"]}"#,
        r#"{"recipients":[""]}"#,
        r#"{"recipients":["example.org"]}"#,
        r#"[]"#,
    ];
    for arguments in hostile {
        let facts = tool(&mail, "send_email", arguments);
        assert!(!facts.destinations_internal, "{arguments}");
        assert_eq!(facts.class, Class::External, "{arguments}");
    }
}

#[test]
fn no_destination_is_missed_and_each_is_written_one_way() {
    let mail = sound("mail", UpstreamKind::Mcp, include_str!("../catalog/mail.yaml"));
    let canonical = |arguments: &str| -> Vec<String> {
        tool(&mail, "send_email", arguments).destinations.into_iter().map(|to| to.canonical).collect()
    };
    assert_eq!(canonical(r#"{"recipients":["A@Evil.com","a@evil.COM."]}"#), ["address:a@evil.com"]);
    assert_eq!(canonical(r#"{"recipients":"a@evil.com"}"#), ["address:a@evil.com"]);
    assert_eq!(canonical(r#"{"Bcc":["a@evil.com"]}"#), ["address:a@evil.com"]);
    assert_eq!(canonical(r#"{"cc":["Ops Team "]}"#), ["other:ops team"]);
    let mixed = tool(&mail, "send_email", r#"{"recipients":["a@example.org","a@evil.com"]}"#);
    assert_eq!(mixed.tiers, ["internal", "new"]);
}

#[test]
fn a_url_is_its_host_or_nothing() {
    let host = |text: &str| Place::parse(text).map(|place| place.to_string());
    assert_eq!(host("https://A.Example.org:8443/x?y=@"), Some("host:a.example.org".to_owned()));
    for text in [
        "https://a.example.org@evil.com/",
        "https://evil.com\\@a.example.org/",
        "https://a.example.org#@evil.com/",
        "https://a.example.org?@evil.com/",
        "https://a.example%2eorg/",
        "https://a.example.org:80:81/",
        "https:///a.example.org",
        "//a.example.org",
        "https://a.example.org /",
        "https://[::1]/",
        "java\tscript://a.example.org",
    ] {
        assert_eq!(host(text), None, "{text}");
    }
}

const OPERATORS: &str = r#"
tools:
  by_value:
    class: external
    consequence: 3
    effects: [spend, delete]
    when:
      - {equals: {at: /mode, value: dry-run}, in: {at: /n, values: [1, 2]}, class: read, effects: []}
      - {matches: {at: "/paths/*", regex: "/tmp/[a-z]+|/var/tmp/\\d+"}, class: write, consequence: 1}
      - {equals: {at: /flag, value: true}, consequence: 2}
  query:
    class: write
    consequence: 3
    when: [{sql: /q, reads: {class: read}}]
  graph:
    class: write
    consequence: 3
    when: [{graphql: /q, reads: {class: read, consequence: 1}}]
"#;

#[test]
fn values_are_compared_by_type_and_patterns_from_end_to_end() {
    let catalog = sound("tools", UpstreamKind::Mcp, OPERATORS);
    let cases = [
        (r#"{"mode":"dry-run","n":1}"#, Class::Read, 3),
        (r#"{"mode":"dry-run","n":"1"}"#, Class::External, 3),
        (r#"{"mode":"dry-run","n":1.0}"#, Class::External, 3),
        (r#"{"mode":"DRY-RUN","n":1}"#, Class::External, 3),
        (r#"{"mode":["dry-run"],"n":1}"#, Class::External, 3),
        (r#"{"mode":"dry-run"}"#, Class::External, 3),
        (r#"{"paths":["/tmp/a","/var/tmp/7"]}"#, Class::Write, 1),
        (r#"{"paths":["/tmp/a","/etc/passwd"]}"#, Class::External, 3),
        (r#"{"paths":["/tmp/a\n/etc/passwd"]}"#, Class::External, 3),
        (r#"{"paths":["/tmp/a\n"]}"#, Class::External, 3),
        (r#"{"paths":["/var/tmp/\u0667"]}"#, Class::External, 3),
        (r#"{"paths":["x/tmp/a"]}"#, Class::External, 3),
        (r#"{"paths":"/tmp/a"}"#, Class::External, 3),
        (r#"{"paths":[]}"#, Class::External, 3),
        (r#"{"flag":true}"#, Class::External, 2),
        (r#"{"flag":"true"}"#, Class::External, 3),
    ];
    for (arguments, class, consequence) in cases {
        let facts = tool(&catalog, "by_value", arguments);
        assert_eq!((facts.class, facts.consequence.level()), (class, consequence), "{arguments}");
    }
    assert!(tool(&catalog, "by_value", r#"{"mode":"dry-run","n":2}"#).effects.is_empty());
    assert_eq!(tool(&catalog, "by_value", "{}").effects.len(), 2);
}

fn class_of(catalog: &Catalog, name: &str, text: &str) -> Class {
    tool(catalog, name, &serde_json::json!({ "q": text }).to_string()).class
}

#[test]
fn sql_is_a_read_only_when_every_database_reads_it_so() {
    let catalog = sound("tools", UpstreamKind::Mcp, OPERATORS);
    for text in [
        "SELECT 1",
        "select id, lower(name) from customers where id = $1 and city in ('Bern', 'Genève');",
        "WITH recent AS (SELECT * FROM orders WHERE day > DATE '2026-01-01') SELECT count(*) FROM recent",
        "SELECT a.id, sum(b.x) FROM a JOIN b ON (a.id = b.a_id) GROUP BY a.id HAVING count(*) > 2 ORDER BY 2 LIMIT 5",
        "SELECT 'it''s; DROP TABLE x' AS t -- a note\n FROM dual",
        "SELECT 1; SELECT 2",
        "VALUES (1), (2)",
        "SELECT replace(name, 'a', 'b') FROM t UNION ALL SELECT x FROM `u`",
        "EXPLAIN SELECT 1",
        "SELECT /* plain */ 1",
        "SHOW TABLES",
    ] {
        assert_eq!(class_of(&catalog, "query", text), Class::Read, "{text}");
    }
    for text in HOSTILE_SQL {
        assert_eq!(class_of(&catalog, "query", text), Class::Write, "{text}");
    }
    let deep = format!("SELECT {}1{}", "(".repeat(4000), ")".repeat(4000));
    assert_eq!(class_of(&catalog, "query", &deep), Class::Write);
    assert_eq!(tool(&catalog, "query", r#"{"q":["SELECT 1"]}"#).class, Class::Write);
}

const HOSTILE_SQL: &[&str] = &[
    "",
    ";",
    "-- nothing",
    "nonsense",
    "DELETE FROM t",
    "SELECT 1; DROP TABLE t",
    "SELECT 1;DELETE FROM t;SELECT 2",
    "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING id) SELECT 1",
    "SELECT * FROM (UPDATE t SET a = 1 RETURNING *) x",
    "SELECT pg_sleep(10)",
    "SELECT pg_sleep (10)",
    "SELECT pg_sleep/**/(10)",
    "SELECT \"pg_sleep\"(10)",
    "SELECT pg_catalog.pg_sleep(10)",
    "SELECT evil.lower(1)",
    "SELECT * FROM t WHERE id = (SELECT pg_terminate_backend(7))",
    "SELECT * FROM dblink('host=evil', 'x')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT load_extension('x')",
    "SELECT load_file('/etc/passwd')",
    "SELECT nextval('s')",
    "SELECT s.nextval FROM dual",
    "SELECT set_config('a', 'b', false)",
    "SELECT * INTO copy FROM t",
    "SELECT * FROM t INTO OUTFILE '/tmp/x'",
    "SELECT * FROM t INTO DUMPFILE '/tmp/x'",
    "SELECT 1 INTO @a",
    "SELECT @a := 1",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR SHARE",
    "SELECT * FROM t LOCK IN SHARE MODE",
    "SELECT 1 /*! INTO OUTFILE '/tmp/x' */",
    "SELECT 1 /*!50000 ; DROP TABLE t */",
    "SELECT 1 /*M! ; DROP TABLE t */",
    "SELECT /*+ SET_VAR(x=1) */ 1",
    "SELECT 1 /* /* */ ; DROP TABLE t -- */",
    "SELECT '\\'; DROP TABLE t; -- '",
    "SELECT '\\\\'; DROP TABLE t",
    "SELECT $$a'$$; DROP TABLE t; --'",
    "SELECT $x$'$x$",
    "SELECT E'\\''",
    "SELECT q'[']'",
    "SELECT 1--1\n; DROP TABLE t",
    "SELECT 1 # ' \n; DROP TABLE t -- '",
    "SELECT [a'] ; DROP TABLE t -- '",
    "SELECT `a\"` ; DROP TABLE t -- \"",
    "SELECT 1 -- x\r; DROP TABLE t",
    "SELECT 1\u{a0}; DROP TABLE t",
    "SELECT 'open",
    "SELECT 1 SHUTDOWN",
    "EXPLAIN ANALYZE DELETE FROM t",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN DELETE FROM t",
    "COPY t TO PROGRAM 'sh'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "CALL evil()",
    "EXEC xp_cmdshell 'x'",
    "DO 'begin end'",
    "SET ROLE admin",
    "PRAGMA writable_schema = 1",
    "ATTACH DATABASE 'x' AS y",
    "BEGIN; SELECT 1; COMMIT",
    "REPLACE INTO t VALUES (1)",
    "TRUNCATE t",
    "GRANT ALL ON t TO x",
    "LISTEN x",
    "SELECT * FROM 'https://evil.com/x.csv'",
];

#[test]
fn graphql_is_a_read_only_when_every_operation_is_a_query() {
    let catalog = sound("tools", UpstreamKind::Mcp, OPERATORS);
    for text in [
        "{ me { id } }",
        "query A($id: ID!) { customer(id: $id) { name } }",
        "query A { a } query B { b }",
        "query A { ...F } fragment F on Customer { name } # a note",
    ] {
        assert_eq!(class_of(&catalog, "graph", text), Class::Read, "{text}");
    }
    let deep = format!("{}a{}", "{a".repeat(5000), "}".repeat(5000));
    let lists = format!("{{ a(x: {}{}) }}", "[".repeat(9000), "]".repeat(9000));
    let types = format!("query A($x: {}I{}) {{ a }}", "[".repeat(9000), "]".repeat(9000));
    for text in [
        "",
        "mutation { gone }",
        "query A { a } mutation B { gone }",
        "{ a } mutation { gone }",
        "subscription { s }",
        "fragment F on Customer { name }",
        "query A { a",
        "# x\rmutation { gone }",
        "{ a(x: \"\"\" \\\"\"\" \"\"\") }",
        "type T { a: Int }",
        &deep,
        &lists,
        &types,
    ] {
        assert_eq!(class_of(&catalog, "graph", text), Class::Write, "{text}");
    }
}

#[test]
fn what_no_entry_names_is_external_or_refused() {
    let lax = sound("lax", UpstreamKind::Mcp, OPERATORS);
    let facts = tool(&lax, "rm_rf", "{}");
    assert_eq!((facts.class, facts.consequence.level(), name(&facts)), (Class::External, 3, "*unlisted*"));
    assert_eq!((facts.returns, facts.resource.listed), (Returns::UNLISTED, false));
    assert!(Arc::ptr_eq(&facts.resource, &tool(&lax, "other", "{}").resource));

    let strict = sound("strict", UpstreamKind::Mcp, OPERATORS);
    let upstream = strict.upstream("strict").unwrap();
    for subject in [
        Subject::Tool { name: "rm_rf", arguments: None },
        Subject::Tool { name: "resources/read", arguments: None },
        Subject::Method { name: "query", params: None },
        Subject::Method { name: "resources/read", params: None },
    ] {
        let stop = classify::facts(&strict, &Question { upstream, subject }).unwrap_err();
        assert_eq!((stop.kind, stop.reason, &*stop.rule), (StopKind::Denied, "unlisted", "unlisted"));
    }
    let session = classify::facts(&strict, &Question { upstream, subject: Subject::Session }).unwrap();
    assert_eq!((session.action, session.returns), (PolicyAction::Discover, Returns::NOTHING));
}

#[test]
fn the_most_specific_template_wins_and_odd_paths_match_none() {
    let crm = sound("crm", UpstreamKind::Http, include_str!("../catalog/crm.yaml"));
    let cases = [
        ("GET /v1/customers/7", "GET /v1/customers/{id}"),
        ("HEAD /v1/customers/7", "GET /v1/customers/{id}"),
        ("GET /v1/customers/a%20b", "GET /v1/customers/{id}"),
        ("GET /v1/customers/search", "GET /v1/customers/search"),
        ("GET /v1/customers/%73earch", "GET /v1/customers/search"),
        ("DELETE /v1/customers/search", "DELETE /v1/customers/{id}"),
        ("GET /v1/customers/SEARCH", "*unlisted*"),
        ("GET /v1/customers/search;x=1", "*unlisted*"),
        ("GET /v1/customers/", "*unlisted*"),
        ("GET /v1/customers//", "*unlisted*"),
        ("GET /v1/customers/7/", "*unlisted*"),
        ("GET /v1/customers/..", "*unlisted*"),
        ("GET /v1/customers/%2e%2e", "*unlisted*"),
        ("GET /v1/customers/a%2Fb", "*unlisted*"),
        ("GET /v1/customers/a%5cb", "*unlisted*"),
        ("GET /v1/customers/%252e", "*unlisted*"),
        ("GET /v1/customers/%zz", "*unlisted*"),
        ("GET /v1/customers/%ff", "*unlisted*"),
        ("GET /V1/customers/7", "*unlisted*"),
        ("get /v1/customers/7", "*unlisted*"),
        ("POST /v1/customers/7", "*unlisted*"),
    ];
    for (operation, expected) in cases {
        assert_eq!(name(&http(&crm, operation, None, HttpBody::None)), expected, "{operation}");
    }
    let facts = http(&crm, "GET /v1/customers/a%20b", None, HttpBody::None);
    assert_eq!(facts.lifted.get("customer_id"), Some(&Lifted::Text("a b".to_owned())));
}

#[test]
fn a_body_of_another_content_type_is_external_and_never_lowered() {
    let crm = sound("crm", UpstreamKind::Http, include_str!("../catalog/crm.yaml"));
    let read = document(r#"{"sql":"SELECT 1"}"#);
    let json = HttpBody::Json(read.root());
    let class = |kind: Option<&str>, body| {
        let facts = http(&crm, "POST /v1/query", kind, body);
        (facts.class, facts.lineage_unknown)
    };
    assert_eq!(class(Some("application/json; charset=utf-8"), json), (Class::Read, false));
    assert_eq!(class(Some("text/plain"), json), (Class::External, true));
    assert_eq!(class(None, json), (Class::External, true));
    assert_eq!(class(Some("text/plain"), HttpBody::Other), (Class::External, true));
    assert_eq!(class(Some("application/json"), HttpBody::Opaque), (Class::External, true));
    let form = [(Cow::Borrowed("sql"), Cow::Borrowed("SELECT 1"))];
    let form_type = Some("application/x-www-form-urlencoded");
    assert_eq!(class(form_type, HttpBody::Form(&form)), (Class::External, true));

    let upstream = crm.upstream("crm").unwrap();
    assert!(upstream.is_opaque("PUT", "/v1/files/a") && !upstream.is_opaque("POST", "/v1/query"));
    let file = http(&crm, "PUT /v1/files/a", Some("application/octet-stream"), HttpBody::Opaque);
    assert_eq!((file.class, file.opaque, file.lineage_unknown), (Class::Write, true, true));
}

#[test]
fn amounts_are_lifted_exactly_or_not_at_all() {
    let crm = sound("crm", UpstreamKind::Http, include_str!("../catalog/crm.yaml"));
    let cases = [
        ("12", Some("12.0")),
        ("12.50", Some("12.5")),
        ("-0.0001", Some("-0.0001")),
        ("5e3", Some("5000.0")),
        ("1.5e-3", Some("0.0015")),
        ("\"7.25\"", Some("7.25")),
        ("0.00001", None),
        ("1e300", None),
        ("922337203685477.5808", None),
        ("\"1,000\"", None),
        ("null", None),
        ("[1]", None),
    ];
    for (amount, expected) in cases {
        let body = document(&format!("{{\"amount\":{amount}}}"));
        let body = HttpBody::Json(body.root());
        let facts = http(&crm, "POST /v1/refunds", Some("application/json"), body);
        let expected = expected.map(|text| Lifted::Decimal(text.to_owned()));
        assert_eq!(facts.lifted.get("amount"), expected.as_ref(), "{amount}");
    }
}

#[test]
fn ten_mistakes_are_reported_at_once() {
    let text = r#"
tools:
  "GET /a/{x}/c": {class: reed, consequence: 1}
  "GET /b/{x}": {consequence: 9}
  "GET /c/{x}/c": {class: read, consequence: 1}
  "GET /c/b/{y}": {class: read, consequence: 1}
  nonsense: {class: read, consequence: 1}
  "GET /d":
    class: read
    consequence: 1
    colour: red
    effects: [explode]
    facts: {n: {at: /path/zzz, type: long}}
    sink: {kind: message, destinations: [body/to]}
    when:
      - {class: read}
      - {matches: {at: /body/x, regex: "("}, class: read}
    max_credential_ttl: soon
    pin: sha256:abc
"#;
    let (_, mistakes) = read("crm", UpstreamKind::Http, text);
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    for expected in [
        "tools.GET /a/{x}/c.class: unknown variant",
        "tools.GET /b/{x}.class: missing",
        "tools.GET /b/{x}.consequence: 9 is out of range",
        "neither is more specific",
        "tools.nonsense: `nonsense` is no operation",
        "tools.GET /d.colour: unknown field",
        "tools.GET /d.effects[0]: unknown variant",
        "tools.GET /d.facts.n.at: `/path/zzz` leads nowhere",
        "tools.GET /d.sink.destinations[0]: `body/to` is no JSON Pointer",
        "tools.GET /d.when[0]: has no operator",
        "tools.GET /d.when[1].matches.regex: no valid pattern",
        "tools.GET /d.max_credential_ttl: `soon` is no duration",
        "tools.GET /d.pin: expected sha256:",
    ] {
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected}: {lines:#?}");
    }
    assert_eq!(lines.len(), 13, "{lines:#?}");
}

#[test]
fn one_fact_name_has_one_type() {
    let text = |kind: &str| {
        format!("tools: {{t: {{class: read, consequence: 1, facts: {{n: {{at: /n, type: {kind}}}}}}}}}")
    };
    let (long, decimal) = (text("long"), text("decimal"));
    let mut mistakes = Vec::new();
    let sources = vec![
        Source { upstream: upstream("a", UpstreamKind::Mcp), file: Some(("a.yaml", &long)) },
        Source { upstream: upstream("b", UpstreamKind::Mcp), file: Some(("b.yaml", &decimal)) },
    ];
    catalog(internal(), sources, &mut mistakes);
    let line = mistakes.first().unwrap().to_string();
    assert!(
        line.starts_with("b.yaml: tools.t.facts.n:") && line.contains("a.yaml: tools.t.facts.n"),
        "{line}"
    );
}
