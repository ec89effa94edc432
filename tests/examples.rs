//! The examples and the generated files are what the program understands today.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a test ends where it cannot go on")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use holdpoint::config::{self, catalog, chains, people, raw, registry};
use holdpoint::pki;
use holdpoint::yaml::{self, Mistake};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A copy of the examples with certificates of its own, removed at the end.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Copy {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("holdpoint-examples-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let copy = Copy(std::env::temp_dir().join(name));
        for dir in ["config", "catalog", "policies"] {
            fs::create_dir_all(copy.0.join(dir)).unwrap();
            for file in files(dir) {
                fs::copy(root().join(&file), copy.0.join(&file)).unwrap();
            }
        }
        pki::init(&copy.0.join("pki")).unwrap();
        copy
    }

    fn load(&self, file: &str) -> Result<config::Loaded, Vec<String>> {
        config::load(&self.0.join(file)).map_err(|mistakes| lines(&mistakes, &self.0))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files of a directory of the project, as paths from its root.
fn files(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| Path::new(dir).join(entry.file_name()))
        .collect();
    files.sort();
    files
}

fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn lines(mistakes: &[Mistake], base: &Path) -> Vec<String> {
    let base = format!("{}/", base.display());
    mistakes.iter().map(|mistake| mistake.to_string().replace(&base, "")).collect()
}

#[test]
fn every_example_is_read_and_loads_with_its_certificates() {
    let copy = Copy::new();
    for file in files("config") {
        let name = file.to_str().unwrap();
        let mut mistakes = Vec::new();
        if name.ends_with("agents.yaml") {
            registry::parse(&[(name.to_owned(), text(name))], &mut mistakes);
        } else if name.ends_with("people.yaml") {
            assert_eq!(people::parse(name, &text(name), &mut mistakes).len(), 3);
        } else {
            yaml::read::<raw::File>(name, &text(name), &mut mistakes);
            if let Err(found) = copy.load(name) {
                panic!("{name}: {found:#?}");
            }
        }
        assert!(mistakes.is_empty(), "{mistakes:#?}");
    }
}

#[test]
fn the_readme_shows_the_minimal_example() {
    let readme = text("README.md");
    let shown = readme.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0;
    let parse = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    assert_eq!(parse(shown), parse(&text("config/minimal.yaml")));
}

#[test]
fn the_example_of_a_credential_loads_once_its_file_is_private() {
    let copy = Copy::new();
    let file = copy.0.join("config/holdpoint.yaml");
    let with = text("config/holdpoint.yaml").replace("# credential: {file", "credential: {file");
    fs::write(&file, with).unwrap();
    let token = copy.0.join("pki/crm-token");
    fs::write(&token, "not-a-real-token\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let open = copy.load("config/holdpoint.yaml").err().unwrap();
    assert!(open.iter().all(|line| line.contains("chmod 600")) && open.len() == 1, "{open:#?}");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(copy.load("config/holdpoint.yaml").is_ok());
}

#[test]
fn every_catalogue_is_a_catalogue_and_every_policy_is_in_order() {
    for file in files("catalog") {
        let name = file.to_str().unwrap();
        let mut mistakes = Vec::new();
        assert!(yaml::read::<catalog::FileRaw>(name, &text(name), &mut mistakes).is_some());
        assert!(mistakes.is_empty(), "{mistakes:#?}");
    }
    let copy = Copy::new();
    let loaded = copy.load("config/holdpoint.yaml").unwrap_or_else(|found| panic!("{found:#?}"));
    let said = holdpoint::cli::policy::check(&root().join("policies"), &loaded.facts());
    assert_eq!(said.code, 0, "{}", said.text);
}

#[test]
fn the_complete_example_names_every_key_of_the_schema() {
    let example = text("config/holdpoint.yaml");
    let mut keys = BTreeSet::new();
    properties(&config::schema(), &mut keys);
    assert!(keys.len() > 50, "the schema has lost its keys: {keys:?}");
    for key in keys {
        let starts =
            |at: usize| example[..at].chars().next_back().is_none_or(|before| " {,#-\n".contains(before));
        let found = example.match_indices(&format!("{key}:")).any(|(at, _)| starts(at));
        assert!(found, "config/holdpoint.yaml does not show `{key}`");
    }
}

/// The names of all properties of a JSON Schema, at whatever depth.
fn properties(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(named)) = members.get("properties") {
                keys.extend(named.keys().cloned());
            }
            members.values().for_each(|member| properties(member, keys));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, keys)),
        _ => {}
    }
}

#[test]
fn what_is_reserved_is_refused_as_not_supported_yet() {
    let copy = Copy::new();
    let words = ["credentials", "tasks", "connect", "egress"];
    let mut reserved: String = words.iter().map(|word| format!("{word}: {{}}\n")).collect();
    reserved.push_str("store: {postgres: \"postgres://localhost/holdpoint\"}\n");
    fs::write(copy.0.join("config/minimal.yaml"), text("config/minimal.yaml") + &reserved).unwrap();
    let found = copy.load("config/minimal.yaml").err().unwrap();
    let mut expected: Vec<String> =
        words.iter().map(|word| format!("config/minimal.yaml: {word}: not supported yet")).collect();
    expected.insert(0, "config/minimal.yaml: store.postgres: not supported yet".to_owned());
    assert_eq!(found, expected);
}

/// Ten mistakes of form and of meaning, in one file.
const TEN_MISTAKES: &str = r#"
organisation: {name: example}
organization: {name: example, internal: ["*@example.org"]}
trust:
  identity: {cert: ../pki/gateway.pem, key: ../pki/gateway-key.pem}
  domains:
    example.org: {bundle: ../pki/example.org.pem, roles: [robots]}
    other.org: {bundle: ../pki/nothing.pem, roles: [agents]}
listeners:
  - {name: agents, kind: agents, address: localhost}
agents: agents.yaml
upstreams:
  - {name: mail, kind: smtp, url: "http://127.0.0.1:3101/mcp"}
  - {name: crm, kind: http, url: "ftp://127.0.0.1"}
bounds: {body_bytes_max: 4MB, json_depth_max: deep}
policy: {cedar: ../policies}
limits:
  - {per: agent, rate: often}
audit: {dir: ../state/audit, capture: everything}
keys: {dir: ../state/keys}
"#;

#[test]
fn a_file_with_many_mistakes_is_told_each_with_its_path() {
    let copy = Copy::new();
    fs::write(copy.0.join("config/bad.yaml"), TEN_MISTAKES).unwrap();
    let found = copy.load("config/bad.yaml").err().unwrap();
    let starts = |(found, expected): (&String, &&str)| found.starts_with(*expected);
    assert_eq!(found.len(), TOLD.len(), "{found:#?}");
    assert!(found.iter().zip(&TOLD).all(starts), "{found:#?}");
}

/// What is told of them: how each line begins.
const TOLD: [&str; 10] = [
    "config/bad.yaml: organisation: unknown field `organisation`, expected one of `organization`, `trust`",
    "config/bad.yaml: bounds.json_depth_max: invalid type: string \"deep\", expected usize",
    "config/bad.yaml: trust.domains.example.org.roles: must be one of [agents], [people], [orchestrators]",
    "config/bad.yaml: trust.domains.other.org.bundle: config/../pki/nothing.pem: No such file or directory",
    "config/bad.yaml: listeners[0].address: must be an address and a port, as in 127.0.0.1:8443",
    "config/bad.yaml: bounds.body_bytes_max: must be a size, as in 64KiB or 4MiB",
    "config/bad.yaml: limits[0].rate: must be a count and a time, as in 50/s or 10/1m",
    "config/bad.yaml: audit.capture: must be `digest`",
    "config/bad.yaml: upstreams[0].kind: must be `mcp` or `http`",
    "config/bad.yaml: upstreams[1].url: must be a URL, as in http://127.0.0.1:3101/mcp or https://crm.internal",
];

#[test]
fn the_schemas_are_those_of_the_types() {
    same("docs/schema/holdpoint.schema.json", &config::schema());
    same("docs/schema/catalog.schema.json", &of::<catalog::FileRaw>());
    same("docs/schema/agents.schema.json", &of::<registry::RawFile>());
    same("docs/schema/chains.schema.json", &of::<chains::RawFile>());
    same("docs/schema/people.schema.json", &of::<Vec<people::RawPerson>>());
}

fn of<T: schemars::JsonSchema>() -> Value {
    serde_json::to_value(schemars::schema_for!(T)).unwrap()
}

/// Compares a checked-in file with what it is made from; with `UPDATE=1` writes it.
fn same(file: &str, schema: &Value) {
    let path = root().join(file);
    let made = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &made).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == made, "{file} is out of date: UPDATE=1 cargo test --test examples the_schemas");
}
