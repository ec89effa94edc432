//! Catalogue files as text: entries are appended and pins are set so that every other byte stays as its author wrote it.
//! What was changed is read again, and must differ by exactly that.
//!
//! Beside a catalogue `mail.yaml` lies `mail.definitions.json`: the words that are pinned, so that a difference can be
//! shown. It decides nothing. What it says under a digest counts only where it has that digest.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;

use super::draft::Drafted;
use crate::classify::catalog::UpstreamConfig;
use crate::classify::sink::Internal;
use crate::config::catalog::{self, Source};
use crate::definitions::canonical;

/// The largest catalogue or file of definitions that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The text of a catalogue.
pub(super) struct CatalogText {
    /// As it is in the file.
    pub(super) text: String,
}

/// A catalogue with entries appended.
pub(super) struct Appended {
    /// The whole text.
    pub(super) text: String,
    /// What was appended.
    pub(super) draft: String,
    /// The same as a difference.
    pub(super) shown: String,
}

impl CatalogText {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<CatalogText, String> {
        let text = bounded(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(CatalogText { text })
    }

    /// A catalogue without entries.
    pub(super) fn empty() -> CatalogText {
        CatalogText { text: "tools:\n".to_owned() }
    }

    /// The text with these entries at its end.
    pub(super) fn appended(&self, entries: &[Drafted]) -> Result<Appended, String> {
        let (mut text, indent) = self.open_end()?;
        let mut draft = String::new();
        for entry in entries {
            for comment in &entry.comments {
                draft.push_str(&format!("{indent}# {comment}\n"));
            }
            draft.push_str(&format!("{indent}{}:\n", key_text(&entry.key)));
            for line in &entry.lines {
                draft.push_str(&format!("{indent}{indent}{line}\n"));
            }
        }
        text.push_str(&draft);
        let shown = draft.lines().map(|line| format!("+ {line}\n")).collect();
        if !entries.is_empty() {
            self.adds_only(&text, entries)?;
        }
        Ok(Appended { text, draft, shown })
    }

    /// The text, ready for an entry at its end, and how far entries are indented.
    fn open_end(&self) -> Result<(String, String), String> {
        let mut text = self.text.clone();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let head = text.lines().position(|line| line.starts_with("tools:"));
        let Some(at) = head else {
            let empty = text.lines().all(|line| line.trim().is_empty() || line.starts_with(['#', '-', '{']));
            if !empty {
                return Err("the catalogue has no line `tools:` to append to".to_owned());
            }
            let comments: String =
                text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
            return Ok((format!("{comments}tools:\n"), "  ".to_owned()));
        };
        let rest =
            text.lines().nth(at).and_then(|line| line.strip_prefix("tools:")).unwrap_or_default().trim();
        if rest == "{}" {
            let lines: Vec<&str> =
                text.lines().enumerate().map(|(n, line)| if n == at { "tools:" } else { line }).collect();
            return Ok((format!("{}\n", lines.join("\n")), "  ".to_owned()));
        }
        if !rest.is_empty() && !rest.starts_with('#') {
            return Err("`tools:` must have its entries on lines of their own to append to".to_owned());
        }
        let first = text.lines().skip(at + 1).find(|line| is_content(line));
        let indent: String = first.unwrap_or("  ").chars().take_while(|each| *each == ' ').collect();
        if indent.is_empty() {
            return Err("the entries of the catalogue are not indented".to_owned());
        }
        Ok((text, indent))
    }

    fn adds_only(&self, after: &str, entries: &[Drafted]) -> Result<(), String> {
        let wrong = || "the draft would change what is there: append it by hand".to_owned();
        let (before, mut after) = (tools(&self.text)?, tools(after)?);
        for entry in entries {
            after.remove(&entry.key).ok_or_else(wrong)?;
        }
        if before == after { Ok(()) } else { Err(wrong()) }
    }
}

impl Appended {
    /// Whether the gateway would take this catalogue.
    pub(super) fn check(&self, upstream: &UpstreamConfig) -> Result<(), String> {
        let mut mistakes = Vec::new();
        let source = Source { upstream: upstream.clone(), file: Some(("the draft", &self.text)) };
        catalog::catalog(Internal::default(), vec![source], &mut mistakes);
        match mistakes.first() {
            None => Ok(()),
            Some(mistake) => Err(format!("nothing was written: {mistake}")),
        }
    }
}

/// The entries of a catalogue as plain values.
fn tools(text: &str) -> Result<BTreeMap<String, Value>, String> {
    let tree: Value =
        serde_saphyr::from_str(text).map_err(|error| format!("the catalogue is no YAML: {error}"))?;
    let tools = tree.get("tools").and_then(Value::as_object);
    Ok(tools.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn is_content(line: &str) -> bool {
    let trimmed = line.trim_start();
    !trimmed.is_empty() && !trimmed.starts_with('#')
}

fn indent_of(line: &str) -> usize {
    line.chars().take_while(|each| *each == ' ').count()
}

/// A key as YAML writes it: plain where nothing could take it for something else.
fn key_text(key: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let letter = key.starts_with(|each: char| each.is_ascii_alphabetic() || each == '_');
    let plain = key.chars().all(|each| each.is_ascii_alphanumeric() || matches!(each, '_' | '-' | '.' | '/'));
    match letter && plain && !WORDS.contains(&key.to_ascii_lowercase().as_str()) {
        true => key.to_owned(),
        // What JSON escapes, YAML reads the same way in double quotes.
        false => ascii(&Value::from(key).to_string()),
    }
}

/// JSON with every character beyond ASCII escaped, so that nothing hidden stands in a file.
fn ascii(json: &str) -> String {
    let mut text = String::new();
    for each in json.chars() {
        if each.is_ascii() {
            text.push(each);
        } else {
            let mut units = [0; 2];
            // A character beyond the first plane is written whole: YAML does not join halves.
            match each.len_utf16() {
                1 => text.extend(each.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}"))),
                _ => text.push_str(&format!("\\U{:08x}", u32::from(each))),
            }
        }
    }
    text
}

// === pins ===

/// The text with the pin of one entry set.
pub(super) fn pinned(text: &str, key: &str, digest: &str) -> Result<String, String> {
    let by_hand =
        || format!("the entry `{}` must be pinned by hand: `pin: {digest}`", crate::names::visible(key));
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (at, rest) = entry_line(&lines, key).ok_or_else(by_hand)?;
    let after = match rest.trim().chars().next() {
        Some('{') => in_flow(&lines, at, rest, digest),
        None | Some('#') => in_block(&lines, at, digest),
        Some(_) => None,
    };
    let after = after.ok_or_else(by_hand)?;
    let (mut before, mut now) = (tools(text)?, tools(&after)?);
    let take = |tools: &mut BTreeMap<String, Value>| {
        tools.get_mut(key).and_then(Value::as_object_mut).and_then(|entry| entry.remove("pin"))
    };
    take(&mut before);
    if take(&mut now) != Some(Value::from(digest)) || before != now {
        return Err(by_hand());
    }
    Ok(after)
}

/// The line of an entry, and what stands on it after its key.
fn entry_line<'t>(lines: &[&'t str], key: &str) -> Option<(usize, &'t str)> {
    let head = lines.iter().position(|line| line.starts_with("tools:"))?;
    let indent = lines.iter().skip(head + 1).find(|line| is_content(line)).map(|line| indent_of(line))?;
    lines.iter().enumerate().skip(head + 1).find_map(|(at, line)| {
        let own = indent_of(line) == indent && is_content(line);
        let rest = own.then(|| after_key(line.trim_start(), key)).flatten()?;
        Some((at, rest))
    })
}

/// What follows a key and its colon, if the line begins with this key.
fn after_key<'t>(line: &'t str, key: &str) -> Option<&'t str> {
    let quote = line.chars().next().filter(|each| matches!(each, '"' | '\''));
    let (token, rest) = match quote {
        None => line.split_once(':')?,
        Some(quote) => {
            let mut escaped = false;
            let end = line.char_indices().skip(1).find_map(|(at, each)| {
                let ends = each == quote && !escaped;
                escaped = quote == '"' && each == '\\' && !escaped;
                ends.then_some(at)
            })?;
            let (token, rest) = line.split_at_checked(end + 1)?;
            (token, rest.trim_start().strip_prefix(':')?)
        }
    };
    let found: String = serde_saphyr::from_str(token.trim()).ok()?;
    (found == key).then_some(rest)
}

fn in_block(lines: &[&str], at: usize, digest: &str) -> Option<String> {
    let own = indent_of(lines.get(at)?);
    let children = lines.iter().enumerate().skip(at + 1);
    let block: Vec<(usize, &&str)> =
        children.take_while(|(_, line)| !is_content(line) || indent_of(line) > own).collect();
    let child = block.iter().find(|(_, line)| is_content(line)).map(|(_, line)| indent_of(line))?;
    let pin = format!("{}pin: {digest}\n", " ".repeat(child));
    let old =
        block.iter().find(|(_, line)| indent_of(line) == child && line.trim_start().starts_with("pin:"));
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        match old {
            Some((replaced, _)) if *replaced == number => text.push_str(&pin),
            _ => text.push_str(line),
        }
        if old.is_none() && number == at {
            text.push_str(&pin);
        }
    }
    Some(text)
}

/// Sets the pin of an entry that is written in braces.
fn in_flow(lines: &[&str], at: usize, rest: &str, digest: &str) -> Option<String> {
    let line = lines.get(at)?;
    let before: String = lines.get(..at)?.concat();
    let start = before.len() + (line.len() - rest.len()) + rest.find('{')?;
    let whole: String = lines.concat();
    let end = closing(whole.get(start..)?)? + start;
    let (head, inside, tail) = (whole.get(..start + 1)?, whole.get(start + 1..end)?, whole.get(end..)?);
    if let Some(found) = inside.find("sha256:") {
        let old = inside.get(found..found + digest.len())?;
        return Some(format!("{head}{}{tail}", inside.replacen(old, digest, 1)));
    }
    let trimmed = inside.trim_end();
    let comma = if trimmed.is_empty() || trimmed.ends_with(',') { "" } else { "," };
    let space = if trimmed.is_empty() { "" } else { " " };
    Some(format!("{head}{trimmed}{comma}{space}pin: \"{digest}\"{}{tail}", inside.get(trimmed.len()..)?))
}

/// Where the brace closes with which a text begins; braces in quotes and comments do not count.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped, mut comment) = (0_usize, None, false, false);
    let mut before = ' ';
    for (at, each) in text.char_indices() {
        if comment {
            comment = each != '\n';
        } else if let Some(open) = quote {
            if each == open && !escaped {
                quote = None;
            }
            escaped = open == '"' && each == '\\' && !escaped;
        } else {
            match each {
                '"' | '\'' if matches!(before, ' ' | '{' | '[' | ',' | ':' | '\n') => quote = Some(each),
                '#' if before.is_whitespace() => comment = true,
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => {}
            }
        }
        before = each;
    }
    None
}

// === the words that are pinned ===

fn kept_path(catalog: &Path) -> PathBuf {
    catalog.with_extension("definitions.json")
}

/// The canonical forms that are kept beside a catalogue, by digest. What is not what its digest says is left out.
pub(super) fn kept(catalog: &Path) -> BTreeMap<String, String> {
    let text = bounded(&kept_path(catalog)).unwrap_or_default();
    let Ok(all) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(&text) else {
        return BTreeMap::new();
    };
    let sound = |(digest, raw): (String, Box<RawValue>)| {
        let read = canonical::read(raw.get().as_bytes()).ok()?;
        (*read.digest == *digest).then_some((digest, read.canonical))
    };
    all.into_iter().filter_map(sound).collect()
}

/// Keeps the words of every pin in a catalogue's text.
pub(super) fn keep(catalog: &Path, kept: &BTreeMap<String, String>, text: &str) -> Result<(), String> {
    let pinned = kept.iter().filter(|(digest, _)| text.contains(digest.as_str()));
    let lines: Vec<String> = pinned.map(|(digest, canonical)| format!("\"{digest}\": {canonical}")).collect();
    replace(&kept_path(catalog), &format!("{{\n{}\n}}\n", lines.join(",\n")))
}

// === files ===

fn bounded(path: &Path) -> std::io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is too large"));
    }
    fs::read_to_string(path)
}

/// Replaces a file by a new text, whole or not at all, with the permissions that it had.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    // A link stays one, and what it points to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        if let Ok(metadata) = fs::metadata(&path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    let written: std::io::Result<()> = write();
    written.map_err(|error| {
        // The file that is there has not been touched.
        let _ = fs::remove_file(&temporary);
        wrong(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const OLD: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn a_pin_is_set_and_nothing_else_changes() {
        for (before, after) in [
            (
                "# top\ntools:\n  a: {class: read, consequence: 0}   # why\n  b: {class: read, consequence: 1}\n".to_owned(),
                format!("# top\ntools:\n  a: {{class: read, consequence: 0, pin: \"{PIN}\"}}   # why\n  b: {{class: read, consequence: 1}}\n"),
            ),
            (
                "tools:\n    a:\n        # first\n        class: read   # x\n        consequence: 0\n\n    b: {class: read, consequence: 1}\n".to_owned(),
                format!("tools:\n    a:\n        pin: {PIN}\n        # first\n        class: read   # x\n        consequence: 0\n\n    b: {{class: read, consequence: 1}}\n"),
            ),
            (
                format!("tools:\n  a:\n    class: read\n    pin: {OLD}  # old\n    consequence: 0\n"),
                format!("tools:\n  a:\n    class: read\n    pin: {PIN}\n    consequence: 0\n"),
            ),
            (
                format!("tools:\n  \"a\": {{class: read, pin: '{OLD}', consequence: 0, description: \"}}\"}}\n"),
                format!("tools:\n  \"a\": {{class: read, pin: '{PIN}', consequence: 0, description: \"}}\"}}\n"),
            ),
            (
                "tools:\n  'a': {class: read,\n    consequence: 0 # } no\n  }\n".to_owned(),
                format!("tools:\n  'a': {{class: read,\n    consequence: 0 # }} no\n  , pin: \"{PIN}\"}}\n"),
            ),
        ] {
            match pinned(&before, "a", PIN) {
                Ok(text) => assert_eq!(text, after),
                // Where a comment ends the braces, no text is better than a wrong one.
                Err(problem) => assert!(before.contains("# } no") && problem.contains("by hand"), "{problem}"),
            }
        }
        for text in
            ["tools: {a: {class: read, consequence: 0}}\n", "tools:\n  b: &x {class: read}\n  a: *x\n"]
        {
            assert!(pinned(text, "a", PIN).unwrap_err().contains("by hand"), "{text}");
        }
    }

    #[test]
    fn entries_are_appended_and_what_is_there_stays() {
        let entry = |key: &str| Drafted {
            key: key.to_owned(),
            comments: vec!["why".to_owned()],
            lines: vec!["class: external".to_owned(), "consequence: 3".to_owned()],
        };
        let append = |text: &str, key: &str| {
            CatalogText { text: text.to_owned() }.appended(&[entry(key)]).map(|appended| appended.text)
        };
        let block = |indent: &str, key: &str| {
            format!(
                "{indent}# why\n{indent}{key}:\n{indent}{indent}class: external\n{indent}{indent}consequence: 3\n"
            )
        };
        let text = "# mine\ntools:\n   a: {class: read}   # keep\n";
        assert_eq!(append(text, "b.c").unwrap(), format!("{text}{}", block("   ", "b.c")));
        assert_eq!(
            append("# mine\ntools: {}", "b").unwrap(),
            format!("# mine\ntools:\n{}", block("  ", "b"))
        );
        assert_eq!(append("", "no").unwrap(), format!("tools:\n{}", block("  ", "\"no\"")));
        assert_eq!(
            append("tools:\n", "GET /v1/{id}").unwrap(),
            format!("tools:\n{}", block("  ", "\"GET /v1/{id}\""))
        );
        assert_eq!(
            append("tools:\n", "a\u{200b}").unwrap(),
            format!("tools:\n{}", block("  ", "\"a\\u200b\""))
        );
        assert!(append("tools: {a: {class: read}}\n", "b").is_err());
        assert!(append("tools:\n  a: {class: read}\n", "a").is_err(), "what is there is never written again");
    }
}
