//! What is served and what is catalogued and pinned, side by side, as text for people.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::value::RawValue;

use crate::call::ResourceKind;
use crate::classify::catalog::Upstream;
use crate::decode::told::Members;
use crate::definitions::ask::Items;
use crate::definitions::canonical::Definition;
use crate::definitions::difference::{difference, told};
use crate::names::{Names, looks, visible};

/// One difference.
pub(super) struct Found {
    /// The tool or operation.
    pub(super) name: String,
    /// A word: `added`, `removed`, `changed`, `hidden-text`, `looks-alike`, `repeated`, `unreadable`.
    pub(super) what: &'static str,
    /// More of it.
    pub(super) detail: String,
    /// All of it for people.
    pub(super) text: String,
}

impl Found {
    fn new(name: &str, what: &'static str, detail: String) -> Found {
        let name = visible(name);
        let more: String = detail.lines().map(|line| format!("      {line}\n")).collect();
        Found { text: format!("  {what}: {name}\n{more}"), name, what, detail }
    }
}

/// An item of a list: its name, as far as it has one, and what it defines.
pub(super) fn read(item: &RawValue) -> (String, Result<Definition, String>) {
    let name = Members::read(item.get()).and_then(|item| item.text("name")).unwrap_or_default();
    (name, super::definition(item.get()))
}

/// Compares the tools that are served with an upstream's catalogue. `kept` are the words of pinned definitions.
pub(super) fn tools(
    upstream: &Upstream,
    names: &Names,
    items: &Items,
    kept: &BTreeMap<String, String>,
) -> Vec<Found> {
    let mut served: BTreeMap<String, Vec<Result<Definition, String>>> = BTreeMap::new();
    let mut alike: HashMap<String, usize> = HashMap::new();
    for item in items {
        let (name, read) = read(item);
        served.entry(name).or_default().push(read);
    }
    for name in served.keys() {
        *alike.entry(looks(name)).or_default() += 1;
    }
    let mut found = Vec::new();
    for (name, definitions) in &served {
        let entry = upstream.tool(name);
        let definition = match definitions.as_slice() {
            [Ok(definition)] => definition,
            [Err(problem)] => {
                found.push(Found::new(name, "unreadable", problem.clone()));
                continue;
            }
            _ => {
                found.push(Found::new(name, "repeated", "the upstream lists it more than once".to_owned()));
                continue;
            }
        };
        let pin = entry.and_then(|entry| entry.pin.as_deref());
        if pin == Some(&*definition.digest) {
            continue;
        }
        let taken_for = names.taken_for(&upstream.config().name, name).filter(|_| entry.is_none());
        if let Some(other) = taken_for {
            let detail = format!("it could be taken for {}/{}", other.upstream, visible(&other.name));
            found.push(Found::new(name, "looks-alike", detail));
        } else if entry.is_none() && alike.get(&looks(name)).is_some_and(|count| *count > 1) {
            found.push(Found::new(
                name,
                "looks-alike",
                "another tool of the same list looks like it".to_owned(),
            ));
        }
        if let Some(hidden) = definition.hidden {
            let detail =
                format!("it has {} in its text:\n{}", hidden.escape_unicode(), told(&definition.canonical));
            found.push(Found::new(name, "hidden-text", detail));
        }
        match (entry, pin) {
            (None, _) => found.push(Found::new(name, "added", told(&definition.canonical))),
            (Some(_), Some(pin)) => found.push(Found::new(name, "changed", changed(pin, definition, kept))),
            (Some(_), None) => {}
        }
    }
    let tools = upstream.entries().filter(|entry| entry.profile.kind == ResourceKind::Tool);
    let mut gone: Vec<&str> =
        tools.map(|entry| &*entry.profile.name).filter(|name| !served.contains_key(*name)).collect();
    gone.sort_unstable();
    found.extend(gone.into_iter().map(|name| Found::new(name, "removed", String::new())));
    found
}

/// Compares the operations of an OpenAPI document with an upstream's catalogue.
pub(super) fn operations(upstream: &Upstream, documented: &BTreeSet<&str>) -> Vec<Found> {
    let known: BTreeSet<&str> = upstream.entries().map(|entry| &*entry.profile.name).collect();
    let added = documented.difference(&known).map(|key| Found::new(key, "added", String::new()));
    let removed = known.difference(documented).map(|key| Found::new(key, "removed", String::new()));
    added.chain(removed).collect()
}

/// What is about to be pinned, and how it differs from what was.
pub(super) fn pinning(
    label: &str,
    before: Option<&str>,
    definition: &Definition,
    kept: &BTreeMap<String, String>,
) -> String {
    let detail = match before {
        Some(pin) if *pin != *definition.digest => changed(pin, definition, kept),
        _ => told(&definition.canonical),
    };
    let lines: String = detail.lines().map(|line| format!("    {line}\n")).collect();
    format!("{label}\n  pin: {}\n{lines}", definition.digest)
}

fn changed(pin: &str, definition: &Definition, kept: &BTreeMap<String, String>) -> String {
    match kept.get(pin) {
        Some(before) => difference(before, &definition.canonical),
        None => format!(
            "the words that were pinned are not kept here; served is {}\n{}",
            definition.digest,
            told(&definition.canonical)
        ),
    }
}
