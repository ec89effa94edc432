//! Drafts from what the audit says that agents asked of an HTTP API. Paths that differ in an id alone are folded to one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::draft::Drafted;
use super::openapi::by_method;
use crate::record::tail;

/// Different paths that are kept.
const PATHS_MAX: usize = 100_000;
/// The longest path that is looked at: the audit cuts longer ones.
const PATH_CHARS_MAX: usize = 250;
/// More different segments than this in one place are taken for ids, whatever they look like.
const VARIETY_MAX: usize = 20;

/// Drafts from the audit in this directory, for this upstream.
pub(super) fn drafted(
    audit: &Path,
    upstream: &str,
    inside: bool,
) -> Result<(Vec<Drafted>, Vec<String>), String> {
    let mut met: BTreeMap<(String, String), Met> = BTreeMap::new();
    let mut notes = Vec::new();
    let wrong = |error: std::io::Error| format!("{}: {error}", audit.display());
    tail::each(audit, |line| {
        if memchr::memmem::find(line, b"\"asked\"").is_none() {
            return;
        }
        let Ok(record) = serde_json::from_slice::<Value>(line) else { return };
        let text = |key: &str| record.get(key).and_then(Value::as_str);
        let (Some(asked), true) = (text("asked"), text("upstream") == Some(upstream)) else { return };
        let Some((method, path)) = asked.split_once(' ') else { return };
        let fits = path.starts_with('/') && asked.chars().count() < PATH_CHARS_MAX;
        let room = met.len() < PATHS_MAX;
        let key = (method.to_owned(), path.to_owned());
        if fits && (room || met.contains_key(&key)) {
            let met = met.entry(key).or_default();
            met.times += 1;
            let agent = record.pointer("/agent/id").and_then(Value::as_str).unwrap_or_default();
            if met.agents.len() < AGENTS_MAX {
                met.agents.insert(agent.to_owned());
            }
        }
    })
    .map_err(wrong)?;
    if met.len() >= PATHS_MAX {
        notes.push(format!("only the first {PATHS_MAX} different paths were looked at"));
    }
    let mut drafted = Vec::new();
    for ((method, template), met) in folded(met) {
        if method == "HEAD" {
            continue;
        }
        let mut entry = by_method(&method, &template, "", inside);
        let (times, agents) = (met.times, met.agents.len());
        entry.comments.insert(0, format!("Asked {times} times by {agents} agents, says the audit."));
        drafted.push(entry);
    }
    Ok((drafted, notes))
}

/// Agents that are told apart for one path.
const AGENTS_MAX: usize = 1000;

/// How often something was asked, and by whom.
#[derive(Clone, Debug, Default)]
struct Met {
    times: u64,
    agents: BTreeSet<String>,
}

/// One segment of paths, and what follows it.
#[derive(Default)]
struct Node {
    next: BTreeMap<String, Node>,
    here: Option<Met>,
}

impl Node {
    fn join(&mut self, other: Node) {
        if let Some(met) = other.here {
            let own = self.here.get_or_insert_default();
            own.times += met.times;
            own.agents.extend(met.agents);
        }
        for (segment, node) in other.next {
            self.next.entry(segment).or_default().join(node);
        }
    }

    /// Folds what varies too much to be anything but ids.
    fn fold(&mut self) {
        if self.next.len() > VARIETY_MAX {
            let mut one = Node::default();
            std::mem::take(&mut self.next).into_values().for_each(|node| one.join(node));
            self.next.insert(ID.to_owned(), one);
        }
        self.next.values_mut().for_each(Node::fold);
    }

    fn templates(self, so_far: &mut Vec<String>, found: &mut Vec<(String, Met)>) {
        if let Some(met) = self.here {
            let mut ids = 0;
            let named = so_far.iter().map(|segment| match segment.as_str() {
                ID => {
                    ids += 1;
                    if ids == 1 { "{id}".to_owned() } else { format!("{{id{ids}}}") }
                }
                other => other.to_owned(),
            });
            found.push((format!("/{}", named.collect::<Vec<_>>().join("/")), met));
        }
        for (segment, node) in self.next {
            so_far.push(segment);
            node.templates(so_far, found);
            so_far.pop();
        }
    }
}

/// What stands for an id; no segment of a path has these characters.
const ID: &str = "{}";

fn folded(met: BTreeMap<(String, String), Met>) -> Vec<((String, String), Met)> {
    let mut methods: BTreeMap<String, Node> = BTreeMap::new();
    for ((method, path), met) in met {
        let mut node = methods.entry(method).or_default();
        for segment in path.trim_start_matches('/').split('/') {
            let segment = if is_id(segment) { ID } else { segment };
            node = node.next.entry(segment.to_owned()).or_default();
        }
        let own = node.here.get_or_insert_default();
        own.times += met.times;
        own.agents.extend(met.agents);
    }
    let mut all = Vec::new();
    for (method, mut node) in methods {
        node.fold();
        let mut found = Vec::new();
        node.templates(&mut Vec::new(), &mut found);
        all.extend(found.into_iter().map(|(template, met)| ((method.clone(), template), met)));
    }
    all
}

/// Whether a segment looks like the id of one thing: a number, a UUID, an address, a long mixture of letters and digits,
/// or letters and a number as in `INV-1002`. A version such as `v1` is none.
fn is_id(segment: &str) -> bool {
    const MIXED_BYTES_MIN: usize = 12;
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let plain = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let numbered = segment.rsplit_once(['-', '_']).is_some_and(|(word, number)| {
        let short = (1..=5).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphabetic());
        short && number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    (digits > 0 && digits == segment.len())
        || uuid::Uuid::try_parse(segment).is_ok()
        || segment.contains(['@', '%'])
        || (plain && digits >= 2 && segment.len() >= MIXED_BYTES_MIN)
        || numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_folded_and_words_are_not() {
        for id in [
            "1",
            "0192",
            "C-1007",
            "550e8400-e29b-41d4-a716-446655440000",
            "a@b.test",
            "01J9ZK3V8N5Q2T7W4X6Y0ABCDE",
        ] {
            assert!(is_id(id), "{id}");
        }
        for word in ["v1", "customers", "", "oauth2", "s3", "line-items", "search-index"] {
            assert!(!is_id(word), "{word}");
        }
        let met =
            |path: &str| (("GET".to_owned(), path.to_owned()), Met { times: 1, agents: BTreeSet::new() });
        let mut all: BTreeMap<_, _> = ["/v1/c/1", "/v1/c/2", "/v1/c/2/m/77", "/v1/c/search"].map(met).into();
        all.extend((0..30).map(|at| {
            let name: String = (0..=at).map(|_| 'x').collect();
            met(&format!("/v1/users/{name}/mail"))
        }));
        let templates: Vec<String> = folded(all).into_iter().map(|((_, template), _)| template).collect();
        assert_eq!(templates, ["/v1/c/search", "/v1/c/{id}", "/v1/c/{id}/m/{id2}", "/v1/users/{id}/mail"]);
    }
}
