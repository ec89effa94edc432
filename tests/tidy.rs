//! What the compiler cannot hold, this does: names, sizes, who may make a proof, and documents that follow the code.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "a test ends where it cannot go on"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, in lines of code without tests, blank lines and comments.
const CODE_LINES_MAX: usize = 500;
/// Files that may be longer, and why.
const LONG: [(&str, &str); 1] =
    [("src/config/catalog.rs", "the raw form of the catalogue and its reader, one key after the other")];

struct Source {
    /// From the root, with slashes.
    path: String,
    /// Whole.
    text: String,
    /// Without tests and without comments.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    walk(&root().join("src"), &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = read(&path);
        let tests = path.ends_with("/tests.rs");
        let code = if tests { String::new() } else { code(&text) };
        Source { path, text, code }
    };
    paths.into_iter().map(source).collect()
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            walk(&entry, paths);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            paths.push(entry);
        }
    }
}

/// The lines of code: tests stand last in a file, so what follows `#[cfg(test)]` is left out.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    let lines = lines.filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Which files contain a text in their code.
fn holders(text: &str) -> Vec<String> {
    sources().into_iter().filter(|source| source.code.contains(text)).map(|source| source.path).collect()
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for source in sources().iter().filter(|source| !source.path.ends_with("/tests.rs")) {
        assert!(source.text.starts_with("//! "), "{}: the first line is no `//!` sentence", source.path);
    }
}

#[test]
fn files_are_short() {
    for source in sources() {
        let lines = source.code.lines().count();
        let excused = LONG.iter().any(|(path, _)| *path == source.path);
        assert!(excused || lines <= CODE_LINES_MAX, "{}: {lines} lines of code", source.path);
        assert!(!excused || lines > CODE_LINES_MAX, "{} is short now: take it from the list", source.path);
    }
}

#[test]
fn names_say_what_they_mean() {
    for source in sources() {
        let parts: Vec<&str> = source.path.trim_end_matches(".rs").split('/').collect();
        for word in ["util", "utils", "helper", "helpers", "common", "misc"] {
            assert!(!parts.contains(&word), "{}: a module is named after what it does", source.path);
        }
        for (at, line) in source.code.lines().enumerate() {
            let banned = line.contains("fn get_")
                || line
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|word| word.ends_with("Manager"));
            assert!(!banned, "{}: line {} of code: {line}", source.path, at + 1);
        }
    }
}

#[test]
fn nothing_is_unsafe() {
    for source in sources() {
        let words = source.code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(words.into_iter().all(|word| word != "unsafe"), "{}", source.path);
    }
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
}

#[test]
fn proofs_are_made_where_they_are_checked() {
    let only = |text: &str, expected: &[&str]| assert_eq!(holders(text), expected, "`{text}`");
    // Made: `Agent` by identify, `Call` by decode, and so on down the path.
    only("Ok(Agent { known", &["src/identify.rs"]);
    only("Decoded::One(Box::new(Call {", &["src/decode.rs"]);
    only("Permitted {", &["src/decide.rs"]);
    only("Committed {", &["src/record.rs"]);
    only("Ok(Lease {", &["src/credential.rs"]);
    only("Conn {", &["src/accept.rs"]);
    // Taken apart, once each.
    only("permitted.into_parts()", &["src/record.rs"]);
    only(".into_call()", &["src/forward.rs"]);
    only(".into_header()", &["src/forward.rs"]);
    // Called from the path alone.
    only("forward::send(", &["src/pipeline.rs"]);
    only("decide::call(", &["src/pipeline.rs"]);
    only("decide::release(", &["src/pipeline/held.rs"]);
    only("gate.release(", &["src/pipeline/held.rs"]);
    only("credential::lease(", &["src/pipeline.rs"]);
    only(".commit(", &["src/pipeline.rs"]);
}

#[test]
fn a_call_is_moved_and_never_cloned() {
    for source in sources() {
        let lines: Vec<&str> = source.code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let words =
                || line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            let proof =
                |word: &str| ["Call", "Permitted", "Committed", "Lease", "Record", "Slot"].contains(&word);
            let declares = words().any(|word| word == "struct") && words().any(proof);
            let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
            let derives = attributes.into_iter().any(|line| line.contains("Clone") || line.contains("Copy"));
            let implements = line.starts_with("impl Clone for") && words().any(proof);
            assert!(!(implements || declares && derives), "{}: {line} must not be cloned", source.path);
        }
    }
}

#[test]
fn one_place_turns_an_ending_into_a_status_or_a_code() {
    // The connector's socket, the health listener, the demo's own upstreams and its door, programs spoken to as servers,
    // and the collector of tests are servers of their own.
    let servers = [
        "src/admin/problem.rs",
        "src/answer.rs",
        "src/connect/problem.rs",
        "src/demo/door.rs",
        "src/demo/sample.rs",
        "src/health.rs",
        "src/stdio/http.rs",
        "src/telemetry/sink.rs",
    ];
    assert_eq!(holders("StatusCode::"), servers);
    for code in ["-31001", "-31002", "-31003", "-31004", "-31010"] {
        assert_eq!(holders(code), ["src/answer.rs"], "{code}");
    }
}

/// The words of the numbered stages in ARCHITECTURE.md, in order: `1. **accept** (…`.
fn stages_told() -> Vec<String> {
    let text = read("ARCHITECTURE.md");
    let numbered = |line: &str| {
        let (number, rest) = line.split_once(". **")?;
        number.parse::<u8>().ok()?;
        Some(rest.split_once("**")?.0.to_owned())
    };
    text.lines().filter_map(numbered).collect()
}

#[test]
fn the_stages_are_told_in_the_order_in_which_they_run() {
    let pipeline = read("src/pipeline.rs");
    let entered = pipeline.match_indices("record.enter(Stage::").map(|(at, found)| {
        let rest = &pipeline[at + found.len()..];
        rest.split_once(')').unwrap().0.to_lowercase()
    });
    // The answer is no stage that can stop: it is what `serve` does with whatever came out.
    let run: Vec<String> = entered.chain(["answer".to_owned()]).collect();
    assert_eq!(stages_told(), run);
}

/// The rows of the table of imports in ARCHITECTURE.md: a module, and what it uses.
fn imports_told() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("ARCHITECTURE.md");
    let table = text.split_once("| module | uses |").expect("a table of imports").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let uses = cells[2].split([' ', ',', '`']).filter(|word| !word.is_empty() && *word != "–");
        (cells[1].to_owned(), uses.map(str::to_owned).collect())
    })
    .collect()
}

/// What puts things together, and so may use everything.
const WIRING: [&str; 8] = ["app", "cli", "config", "demo", "health", "lib", "main", "pki"];

/// What each module on the path uses of the others, by the paths that begin with `crate::`.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        let module = source.path.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if WIRING.contains(&&*module) {
            continue;
        }
        let used = uses.entry(module.clone()).or_default();
        for (at, found) in source.code.match_indices("crate::") {
            let rest = &source.code[at + found.len()..];
            let names = match rest.strip_prefix('{') {
                Some(list) => list.split_once('}').unwrap().0.split(',').collect(),
                None => vec![rest],
            };
            for name in names {
                let name: String =
                    name.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if !name.is_empty() && name != module {
                    used.insert(name);
                }
            }
        }
    }
    uses
}

#[test]
fn the_table_of_imports_is_what_is_imported() {
    let (told, found) = (imports_told(), imports());
    let row = |(module, uses): (&String, &BTreeSet<String>)| {
        let uses: Vec<&str> = uses.iter().map(String::as_str).collect();
        format!("| `{module}` | {} |\n", if uses.is_empty() { "–".to_owned() } else { uses.join(", ") })
    };
    let expected: String = found.iter().map(row).collect();
    assert_eq!(told, found, "the rows would be:\n{expected}");
}

#[test]
fn every_file_of_the_code_map_exists() {
    let text = read("ARCHITECTURE.md");
    let map = text.split_once("## Code map").expect("a code map").1.split("\n## ").next().unwrap();
    let told: BTreeSet<&str> =
        map.split('`').skip(1).step_by(2).filter(|word| word.starts_with("src/")).collect();
    for path in &told {
        assert!(root().join(path).exists(), "{path} is in the code map and not in the tree");
    }
    for source in sources().iter().filter(|source| source.path.matches('/').count() == 1) {
        assert!(told.contains(&*source.path), "{} is not in the code map", source.path);
    }
}

#[test]
fn each_known_attack_names_a_test_that_exists() {
    let text = read("docs/attacks.md");
    let mut named = 0;
    // A test is named as `path::function`.
    for word in text.split('`').skip(1).step_by(2) {
        let Some((path, function)) = word.split_once(".rs::") else { continue };
        let file = read(&format!("{path}.rs"));
        let at = file.find(&format!("fn {function}(")).unwrap_or_else(|| panic!("{word} does not exist"));
        let before: Vec<&str> = file[..at].lines().rev().take(4).collect();
        let test = before.iter().any(|line| line.contains("test]") || line.contains("test("))
            || file.contains("proptest!");
        assert!(test, "{word} is no test");
        named += 1;
    }
    assert!(named > 40, "only {named} tests are named");
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack")) {
        assert!(row.contains(".rs::"), "no test resists: {row}");
    }
}

#[test]
fn documents_link_to_files_that_exist() {
    let mut documents =
        vec!["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
            .into_iter()
            .map(PathBuf::from)
            .collect::<Vec<_>>();
    for dir in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap());
        let markdown = entries.map(|entry| Path::new(dir).join(entry.file_name()));
        documents.extend(markdown.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    for document in documents {
        let text = read(document.to_str().unwrap());
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = rest.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = root().join(document.parent().unwrap()).join(target);
            assert!(path.exists(), "{}: {target} does not exist", document.display());
        }
    }
}
