//! A held call on a page: the very text that people approve, read as JSON and shown value by value, literally. Nothing
//! of it is left out, and no text in it, however long or odd, makes the page do anything or grow without bound.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use maud::{Markup, html};

use super::page::{hidden, text};
use crate::admin::literal::{self, Part};
use crate::json::{Document, Kind, Limits, Value};

/// Values that are shown one by one; a call of more is shown as one text.
const VALUES_MAX: usize = 2_000;
/// How deeply the text of a call may nest: what agents may send, and what is around it.
const DEPTH_MAX: usize = 1_024;
/// How deeply values are shown one by one; a call that nests deeper is shown as one text.
const SHOWN_DEPTH_MAX: usize = 80;
/// A text of more characters is folded.
const UNFOLDED_CHARS_MAX: usize = 600;
/// What is shown of a folded text, in characters.
const FOLDED_CHARS: usize = 160;
/// Places of one text where something is marked as an element of its own; a text with more of them is marked in writing.
const MARKS_MAX: usize = 5_000;

/// What people approve, on a page.
pub(super) struct Call {
    document: Option<Document>,
    whole: String,
}

/// Where a call would go: the kind of sink, and the place.
pub(super) type Destinations = Vec<(String, String)>;

impl Call {
    /// The call of the text that is approved.
    pub(super) fn of(whole: String) -> Call {
        let limits = Limits { depth_max: DEPTH_MAX, ..Limits::default() };
        let document = Document::parse(Bytes::copy_from_slice(whole.as_bytes()), &limits).ok();
        let document = document.filter(|document| is_small(document.root()));
        Call { document, whole }
    }

    /// A text that stands in it.
    pub(super) fn said(&self, name: &str) -> String {
        let value = self.document.as_ref().and_then(|document| document.root().get(name));
        value.and_then(|value| value.string()).map(|text| text.into_owned()).unwrap_or_default()
    }

    /// What the agent would send: the arguments of a tool, or a body. With it what it is called.
    pub(super) fn sent(&self) -> Markup {
        let Some(document) = &self.document else {
            return html! {
                p class="quiet" { "The call has too many values to be shown one by one. This is the whole text that is approved, " (bytes(self.whole.len())) "." }
                (long(&laid_out(&self.whole), self.whole.len()))
            };
        };
        let root = document.root();
        let (name, value) = sent(root);
        let encoded = value.filter(|_| name == ENCODED).and_then(|value| value.string());
        html! {
            h2 { (name) " " span class="quiet" { "– every word of it is the agent's own" } }
            @match (encoded, value) {
                (Some(encoded), _) => (decoded(&encoded)),
                (None, Some(value)) => div class="call" { (shown(value, None)) },
                (None, None) => p class="quiet" { "none" },
            }
        }
    }

    /// Everything else that the digest is of.
    pub(super) fn rest(&self) -> Markup {
        let Some(document) = &self.document else { return html! {} };
        let root = document.root();
        let above = sent(root).1.map(|value| value.range().start);
        let names: Vec<String> = headers(root).map(|(name, _)| name).collect();
        html! {
            details class="rest" {
                summary {
                    strong { "Also sent, and approved with it" } ": method, target, credential, "
                    @if names.is_empty() { "no headers" } @else { (names.len()) " headers (" (text(&names.join(", "))) ")" }
                }
                div class="call" { (shown(root, above)) }
            }
        }
    }
}

/// Where the call of the text that is approved would go.
pub(super) fn destinations(whole: &str) -> Destinations {
    #[derive(serde::Deserialize)]
    struct Approved {
        destinations: Destinations,
    }
    serde_json::from_str::<Approved>(whole).map(|approved| approved.destinations).unwrap_or_default()
}

const ENCODED: &str = "Body";

/// The part of a call that says what it does, and what it is called.
fn sent<'d>(root: Value<'d>) -> (&'static str, Option<Value<'d>>) {
    let at = |pointer: &str| root.pointer(pointer).first().copied();
    if let Some(arguments) = at("/body/json/params/arguments") {
        return ("Arguments", Some(arguments));
    }
    match (at("/body/json/jsonrpc"), at("/body/json/params"), at("/body/json")) {
        (Some(_), params, _) => ("Parameters", params),
        (None, _, Some(json)) => ("Body, JSON", Some(json)),
        (None, _, None) => (ENCODED, at("/body/base64")),
    }
}

/// The headers by name and value.
fn headers<'d>(root: Value<'d>) -> impl Iterator<Item = (String, Value<'d>)> {
    let pairs = root.get("headers").into_iter().flat_map(|headers| headers.items());
    pairs.filter_map(|pair| {
        let mut pair = pair.items();
        Some((pair.next()?.string()?.into_owned(), pair.next()?))
    })
}

/// Whether a value is small and flat enough to be shown value by value.
fn is_small(root: Value<'_>) -> bool {
    let (mut left, mut waiting) = (VALUES_MAX, vec![(root, 0)]);
    while let Some((value, depth)) = waiting.pop() {
        let inside: Vec<Value<'_>> = match value.kind() {
            Kind::Object => value.members().take(left + 1).map(|(_, value)| value).collect(),
            _ => value.items().take(left + 1).collect(),
        };
        if inside.len() > left || depth > SHOWN_DEPTH_MAX {
            return false;
        }
        left -= inside.len();
        waiting.extend(inside.into_iter().map(|value| (value, depth + 1)));
    }
    true
}

/// A value; one that begins at `above` is shown elsewhere.
fn shown(value: Value<'_>, above: Option<usize>) -> Markup {
    if above == Some(value.range().start) {
        return html! { span class="quiet" { "(shown above)" } };
    }
    match value.kind() {
        Kind::Object if value.members().next().is_none() => html! { span class="mono" { "{}" } },
        Kind::Array if value.items().next().is_none() => html! { span class="mono" { "[]" } },
        Kind::Object => html! {
            dl class="tree" {
                @for (name, value) in value.members() {
                    div {
                        dt class="mono" { (text(&name)) }
                        dd {
                            @if is_own_words(&name) { p class="own" { "What the agent says of itself. Nobody has checked it." } }
                            (shown(value, above))
                        }
                    }
                }
            }
        },
        Kind::Array => {
            html! { ol class="tree" start="0" { @for item in value.items() { li { (shown(item, above)) } } } }
        }
        Kind::String => string(&value.string().unwrap_or_default()),
        Kind::Bool | Kind::Null | Kind::Number => {
            html! { span class="mono scalar" { (text(&String::from_utf8_lossy(value.raw()))) } }
        }
    }
}

/// Members in which clients describe themselves [MCP, `_meta`].
fn is_own_words(name: &str) -> bool {
    name == "_meta"
}

/// A text in quotes, literally; a long one is folded.
fn string(value: &str) -> Markup {
    if value.chars().nth(UNFOLDED_CHARS_MAX).is_none() {
        return html! { span class="text" { (literally(value)) } };
    }
    let end = value.char_indices().nth(FOLDED_CHARS).map_or(value.len(), |(at, _)| at);
    html! {
        details class="long" {
            summary { span class="text" { (literally(value.get(..end).unwrap_or_default())) } " … " span class="badge plain" { (bytes(value.len())) } }
            div class="text" tabindex="0" { (literally(value)) }
        }
    }
}

/// A body of bytes: its text where it is one, else the bytes as they were approved, in base64.
fn decoded(encoded: &str) -> Markup {
    let raw = STANDARD.decode(encoded).unwrap_or_default();
    match String::from_utf8(raw) {
        Ok(words) => html! {
            p class="quiet" { (bytes(words.len())) ", no JSON, as text:" }
            div class="call" { (string(&words)) }
        },
        Err(error) => html! {
            p class="quiet" { (bytes(error.as_bytes().len())) " that are no text, in base64:" }
            div class="call" { (string(encoded)) }
        },
    }
}

/// A text that is one piece.
fn long(words: &str, length: usize) -> Markup {
    html! {
        details class="long" {
            summary { "The whole text " span class="badge plain" { (bytes(length)) } }
            div class="text" tabindex="0" { (literally(words)) }
        }
    }
}

/// A text as it is. What does not show itself is marked, the same thing many times over once with how often; lines
/// break where the text breaks them, behind a mark.
fn literally(words: &str) -> Markup {
    let groups = grouped(words);
    if groups.iter().filter(|(part, _)| matches!(part, Part::Marked(_))).count() > MARKS_MAX {
        return html! {
            span class="problem" { "More than " (MARKS_MAX) " characters of this text do not show themselves: each is written by its number, in angle brackets." }
            (in_writing(words))
        };
    }
    html! {
        @for (part, times) in groups {
            @match part {
                Part::Plain(plain) => (plain),
                Part::Marked('\n') => { @for _ in 0..times.min(MARKS_MAX) { span class="line-end" title="a line break, U+000A" { "↵" } "\n" } @if times > MARKS_MAX { (hidden('\n')) " ×" (times) "\n" } },
                Part::Marked(c) => { (hidden(c)) @if times > 1 { span class="times" { "×" (times) } } },
            }
        }
    }
}

/// The parts of a text, a mark that repeats itself once with how often.
fn grouped(words: &str) -> Vec<(Part<'_>, usize)> {
    let mut groups: Vec<(Part<'_>, usize)> = Vec::new();
    for part in literal::parts(words) {
        match (groups.last_mut(), &part) {
            (Some((Part::Marked(before), times)), Part::Marked(now)) if before == now => *times += 1,
            _ => groups.push((part, 1)),
        }
    }
    groups
}

/// A text in which every mark is written in angle brackets: one piece, however many they are.
fn in_writing(words: &str) -> String {
    let mut written = String::with_capacity(words.len());
    for part in literal::parts(words) {
        match part {
            Part::Plain(plain) => written.push_str(plain),
            Part::Marked(c) => {
                written.push('<');
                written.push_str(&literal::name(c));
                written.push('>');
                if c == '\n' {
                    written.push('\n');
                }
            }
        }
    }
    written
}

/// A JSON text with a blank after each comma between values, so that its lines can break. Nothing in a value is changed.
fn laid_out(json: &str) -> String {
    let (mut text, mut quoted, mut escaped) = (String::with_capacity(json.len() * 2), false, false);
    for c in json.chars() {
        text.push(c);
        if quoted {
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if c == '"' {
            quoted = true;
        } else if c == ',' {
            text.push(' ');
        }
    }
    text
}

/// A size as people read it, and exactly.
fn bytes(count: usize) -> Markup {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let mut grouped = String::with_capacity(digits.len() + 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % 3 == first {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    html! { (grouped) " bytes" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(value: &str) -> String {
        let whole = serde_json::json!({"v": 1, "headers": [], "destinations": [["message", "bob@x.test"]],
            "body": {"json": {"jsonrpc": "2.0", "params": {"arguments": {"text": value}}}}});
        let call = Call::of(whole.to_string());
        format!("{}{}", call.sent().into_string(), call.rest().into_string())
    }

    #[test]
    fn what_an_agent_wrote_is_text() {
        let shown = page("<script>x</script>\u{202e}a\u{200b}\u{200b}\u{200b}b\u{1b}[31m\nnext");
        assert!(!shown.contains("<script") && shown.contains("&lt;script&gt;x&lt;/script&gt;"), "{shown}");
        assert!(!shown.contains(['\u{202e}', '\u{200b}', '\u{1b}']), "{shown}");
        for told in ["U+202E", "U+200B", "×3", "U+001B", "↵", "(shown above)"] {
            assert!(shown.contains(told), "{told}: {shown}");
        }
    }

    #[test]
    fn a_long_text_is_folded_and_whole() {
        let shown = page(&"x".repeat(1 << 20));
        assert!(shown.contains("<details class=\"long\">") && shown.contains("1,048,576 bytes"));
        assert!(shown.contains(&"x".repeat(1 << 20)) && shown.len() < (1 << 20) + 10_000);
    }

    #[test]
    fn no_text_makes_a_page_without_bound() {
        let odd = "a\u{200b}".repeat(200_000);
        let shown = page(&odd);
        assert!(!shown.contains('\u{200b}') && shown.contains("do not show themselves"));
        assert!(shown.len() < odd.len() * 8, "{} of {}", shown.len(), odd.len());
        assert!(page(&"\u{200b}".repeat(200_000)).len() < 10_000);
        assert!(page(&"\n".repeat(200_000)).len() < MARKS_MAX * 120);
    }

    #[test]
    fn a_call_of_many_values_is_one_text() {
        let many: Vec<u32> = (0..100_000).collect();
        let whole = serde_json::json!({"v": 1, "body": {"json": many}}).to_string();
        let shown = Call::of(whole).sent().into_string();
        assert!(shown.contains("99999") && !shown.contains("<li>"));
        let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
        let shown = Call::of(format!("{{\"body\":{{\"json\":{deep}}}}}")).sent().into_string();
        assert!(!shown.contains("<li>") && shown.contains("[[[[1]]]]"));
    }

    #[test]
    fn numbers_are_shown_as_they_were_written() {
        let whole = r#"{"body":{"json":{"n":9007199254740993,"m":1.0}}}"#.to_owned();
        let shown = Call::of(whole).sent().into_string();
        assert!(shown.contains("9007199254740993") && shown.contains("1.0"), "{shown}");
    }
}
