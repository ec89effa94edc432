//! Drafts from an OpenAPI document, 3.0 or 3.1: each operation is an entry `METHOD /path/{parameter}`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::draft::{Drafted, effects, quoted};

/// The largest document, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 32 << 20;
/// How many references are followed from one place; a longer way is a circle.
const REFERENCES_MAX: usize = 32;
/// Operations of one document.
const OPERATIONS_MAX: usize = 10_000;
/// The methods of an operation. HEAD is judged by the entry of GET.
const METHODS: [&str; 6] = ["delete", "get", "options", "patch", "post", "put"];

/// Drafts from a file, for an upstream whose configured URL has this base path.
pub(super) fn drafted(path: &Path, base: &str, inside: bool) -> Result<(Vec<Drafted>, Vec<String>), String> {
    let wrong = |problem: String| format!("{}: {problem}", path.display());
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > DOCUMENT_BYTES_MAX {
        return Err(wrong(format!("is larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    read(&text, base, inside).map_err(wrong)
}

fn read(text: &str, base: &str, inside: bool) -> Result<(Vec<Drafted>, Vec<String>), String> {
    let document: Value = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?
    } else {
        serde_saphyr::from_str(text).map_err(|error| format!("is no YAML: {error}"))?
    };
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.0") && !version.starts_with("3.1") {
        return Err("is no OpenAPI document of version 3.0 or 3.1".to_owned());
    }
    let mut notes = Vec::new();
    let prefix = prefix(&document, base, &mut notes);
    let empty = serde_json::Map::new();
    let paths = document.get("paths").and_then(Value::as_object).unwrap_or(&empty);
    let mut drafted = Vec::new();
    for (path, item) in paths.iter().filter(|(path, _)| path.starts_with('/')) {
        let Some(item) = resolved(&document, item) else {
            notes.push(format!("left out: `{path}` refers to nothing, elsewhere, or to itself"));
            continue;
        };
        let template = format!("{prefix}{}", parameters(path));
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            if drafted.len() >= OPERATIONS_MAX {
                notes.push(format!("left out: everything after {OPERATIONS_MAX} operations"));
                return Ok((drafted, notes));
            }
            drafted.push(entry(&document, method, &template, operation, inside));
        }
    }
    Ok((drafted, notes))
}

/// The path of the document's first server, less what the upstream's own URL has already.
fn prefix(document: &Value, base: &str, notes: &mut Vec<String>) -> String {
    let url = document.pointer("/servers/0/url").and_then(Value::as_str).unwrap_or("/");
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
        None => url,
    };
    let (path, base) = (path.trim_end_matches('/'), base.trim_end_matches('/'));
    if path.contains(['{', '}']) || (!path.is_empty() && !path.starts_with('/')) {
        notes.push(format!("the server `{url}` is not taken into the paths"));
        return String::new();
    }
    match path.strip_prefix(base) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.to_owned(),
        _ => {
            notes.push(format!("the server `{url}` has another path than the upstream's `url`"));
            String::new()
        }
    }
}

/// A value with its local references followed; `None` for one that leads elsewhere, nowhere, or in a circle.
fn resolved<'d>(document: &'d Value, mut value: &'d Value) -> Option<&'d Value> {
    for _ in 0..REFERENCES_MAX {
        let Some(reference) = value.get("$ref") else { return Some(value) };
        value = document.pointer(reference.as_str()?.strip_prefix('#')?)?;
    }
    None
}

/// A path as a template of the catalogue: names of parameters have letters, digits and `_`, each once.
fn parameters(path: &str) -> String {
    let mut seen = BTreeSet::new();
    let segment = |text: &str| {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let Some(inner) = inner.filter(|inner| !inner.contains(['{', '}'])) else { return text.to_owned() };
        let plain: String =
            inner.chars().map(|each| if each.is_ascii_alphanumeric() { each } else { '_' }).collect();
        let mut name = plain.clone();
        let mut count = 1;
        while !seen.insert(name.clone()) {
            count += 1;
            name = format!("{plain}{count}");
        }
        format!("{{{name}}}")
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

fn entry(document: &Value, method: &str, template: &str, operation: &Value, inside: bool) -> Drafted {
    let method = method.to_ascii_uppercase();
    let text = |key: &str| operation.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut comments = Vec::new();
    if let Some(words) = text("summary").or(text("description")).or(text("operationId")) {
        comments.push(format!("The document's words: {}", quoted(words)));
    }
    if operation.get("deprecated") == Some(&Value::Bool(true)) {
        comments.push("The document calls it deprecated.".to_owned());
    }
    let name = text("operationId").unwrap_or_default();
    let mut drafted = by_method(&method, template, name, inside);
    comments.append(&mut drafted.comments);
    let types = content(document, operation);
    let usual = ["application/json", "application/x-www-form-urlencoded"];
    if types.iter().any(|kind| !usual.contains(&kind.as_str())) {
        drafted.lines.push(format!("content: [{}]", types.join(", ")));
        comments.push("content: as the document says.".to_owned());
    }
    Drafted { comments, ..drafted }
}

/// The content types of an operation's body, as far as they are plain ones.
fn content(document: &Value, operation: &Value) -> Vec<String> {
    let body = operation.get("requestBody").and_then(|body| resolved(document, body));
    let types = body.and_then(|body| body.get("content")).and_then(Value::as_object);
    let plain = |kind: &String| {
        kind.split('/').count() == 2
            && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+-._".contains(&byte))
    };
    let types = types.into_iter().flat_map(|types| types.keys());
    types
        .map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .filter(plain)
        .collect()
}

/// An entry by what its method says [RFC 9110 §9.2.1], and by where it leads.
pub(super) fn by_method(method: &str, template: &str, name: &str, inside: bool) -> Drafted {
    let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
    let mut effects: Vec<&str> = if reads { Vec::new() } else { effects(&format!("{template} {name}")) };
    if method == "DELETE" && !effects.contains(&"delete") {
        effects.push("delete");
    }
    effects.sort_unstable();
    let high = !effects.is_empty();
    let (class, consequence) = match (inside, reads) {
        (true, true) => ("read", 1),
        (true, false) => ("write", if high { 3 } else { 2 }),
        (false, true) => ("external", 2),
        (false, false) => ("external", 3),
    };
    let mut comments = vec![match (inside, reads) {
        (true, true) => format!("read: {method} is safe by HTTP. Check that it changes nothing."),
        (true, false) => format!("write: {method} is not safe by HTTP."),
        (false, _) => {
            "external: this upstream is not `boundary: inside`, so whatever is sent leaves.".to_owned()
        }
    }];
    let mut lines = vec![format!("class: {class}"), format!("consequence: {consequence}")];
    if high {
        comments.push(format!("effects: {} by its method and its words.", effects.join(", ")));
        lines.push(format!("effects: [{}]", effects.join(", ")));
    }
    Drafted { key: format!("{method} {template}"), comments, lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str, base: &str) -> Vec<String> {
        read(text, base, true).unwrap().0.into_iter().map(|entry| entry.key).collect()
    }

    #[test]
    fn operations_of_both_versions_become_entries() {
        let yaml = "openapi: 3.0.3\nservers: [{url: 'https://x.test/api/v2/'}]\npaths:\n  /c/{customer-id}/m/{customer_id}:\n    get: {summary: one}\n    head: {}\n  /c:\n    post: {requestBody: {content: {multipart/form-data: {}}}}\n";
        assert_eq!(keys(yaml, "/"), ["GET /api/v2/c/{customer_id}/m/{customer_id2}", "POST /api/v2/c"]);
        assert_eq!(keys(yaml, "/api"), ["GET /v2/c/{customer_id}/m/{customer_id2}", "POST /v2/c"]);
        let (entries, _) = read(yaml, "/", true).unwrap();
        assert!(entries[1].lines.contains(&"content: [multipart/form-data]".to_owned()), "{entries:?}");
        let json = r##"{"openapi":"3.1.0","webhooks":{"x":{"post":{}}},"paths":{"/a":{"$ref":"#/components/pathItems/A"}},
            "components":{"pathItems":{"A":{"delete":{}}}}}"##;
        assert_eq!(keys(json, ""), ["DELETE /a"]);
        assert!(read("swagger: '2.0'\npaths: {}\n", "/", true).is_err());
    }

    #[test]
    fn references_in_a_circle_come_to_an_end() {
        let text = r##"{"openapi":"3.1.0","paths":{"/a":{"$ref":"#/components/pathItems/A"},"/b":{"post":{"requestBody":{"$ref":"#/components/requestBodies/B"}}},"/c":{"$ref":"https://evil.test/x"}},
            "components":{"pathItems":{"A":{"$ref":"#/components/pathItems/A"}},"requestBodies":{"B":{"$ref":"#/components/requestBodies/C"},"C":{"$ref":"#/components/requestBodies/B"}}}}"##;
        let (entries, notes) = read(text, "/", true).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(notes.len(), 2, "{notes:?}");
    }
}
