//! What the catalogue's pointers look at: a tool's arguments, or path, query, headers and body of an HTTP request.
//!
//! Two ways of looking, because two sides gain by a mistake. [`View::look`] is strict: whatever is absent, empty or
//! of another form than the pointer says is told apart, so that a `when` never lowers what it does not understand.
//! [`View::gather`] is generous: it takes everything that a lax upstream could mean, so that no destination is missed.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;

use crate::json::{Kind, Value, fold};

/// A JSON Pointer [RFC 6901] in which `*` stands for every element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: Arc<str>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Each,
    Key(String),
}

impl Pointer {
    /// Parses a pointer; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Pointer, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("`{text}` is no JSON Pointer: expected /name/…, with * for every element"));
        };
        let steps: Option<Vec<Step>> = rest.split('/').map(step).collect();
        match steps {
            Some(steps) => Ok(Pointer { text: Arc::from(text), steps }),
            None => Err(format!("`{text}` is no JSON Pointer: ~ must be written ~0, and / in a name ~1")),
        }
    }

    /// Whether it can lead to more than one value.
    pub fn is_many(&self) -> bool {
        self.steps.contains(&Step::Each)
    }

    /// The pointer as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Calls back with every value that it leads to in a reply, as generously as [`View::gather`] looks.
    pub fn values<'a>(&self, root: Value<'a>, mut found: impl FnMut(Value<'a>)) {
        reach(root, &self.steps, &mut found);
    }

    /// Calls back with every text or number that it leads to in a reply. Of an object at its end the keys are meant too:
    /// some upstreams name people by them.
    pub fn texts<'a>(&self, root: Value<'a>, mut found: impl FnMut(Cow<'a, str>)) {
        self.values(root, |value| match value.kind() {
            Kind::Array => value.items().filter_map(scalar).for_each(&mut found),
            Kind::Object => value.members().for_each(|(name, _)| found(name)),
            Kind::Bool | Kind::Null | Kind::Number | Kind::String => {
                scalar(value).into_iter().for_each(&mut found)
            }
        });
    }

    /// Says why this pointer leads nowhere in an HTTP request, if so.
    pub fn fault_in_http(&self) -> Option<String> {
        let sound = match self.steps.split_first() {
            Some((Step::Key(part), rest)) => match part.as_str() {
                "path" | "headers" => matches!(rest, [Step::Key(_)]),
                "query" => rest.len() == 1,
                "body" => !rest.is_empty(),
                _ => false,
            },
            _ => false,
        };
        (!sound).then(|| {
            format!("`{self}` leads nowhere: expected /path/NAME, /query/NAME, /headers/NAME or /body/…")
        })
    }

    /// The name of the path parameter that it leads to.
    pub fn path_parameter(&self) -> Option<&str> {
        match self.steps.as_slice() {
            [Step::Key(part), Step::Key(name)] if part == "path" => Some(name),
            _ => None,
        }
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn step(segment: &str) -> Option<Step> {
    if segment == "*" {
        return Some(Step::Each);
    }
    let sound = segment.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    sound.then(|| Step::Key(segment.replace("~1", "/").replace("~0", "~")))
}

/// The body of an HTTP request, as it was decoded.
#[derive(Clone, Copy, Debug)]
pub enum HttpBody<'a> {
    /// There is none.
    None,
    /// JSON.
    Json(Value<'a>),
    /// A form: names and values, decoded.
    Form(&'a [(Cow<'a, str>, Cow<'a, str>)]),
    /// Read whole, and neither JSON nor a form.
    Other,
    /// Not read: it streams.
    Opaque,
}

/// An HTTP request, matched to its template.
#[derive(Clone, Debug)]
pub(super) struct HttpView<'a> {
    pub path: Vec<(&'a str, Cow<'a, str>)>,
    pub query: &'a [(Cow<'a, str>, Cow<'a, str>)],
    pub headers: &'a HeaderMap,
    pub body: HttpBody<'a>,
}

/// What pointers apply to.
#[derive(Clone, Debug)]
pub(super) enum View<'a> {
    Arguments(Option<Value<'a>>),
    Http(HttpView<'a>),
}

/// A value that a pointer led to.
#[derive(Clone, Debug)]
pub(super) enum Found<'a> {
    /// From JSON: it has a type.
    Json(Value<'a>),
    /// From a path, a query, a header or a form: always text.
    Text(Cow<'a, str>),
}

/// What strict looking finds.
pub(super) enum Look<'a> {
    /// At least one value, and nothing that did not fit the pointer.
    Values(Vec<Found<'a>>),
    /// The member is not there at all, in no spelling.
    Absent,
    /// Something is there that does not fit: another type, an empty list, another spelling, a repetition.
    Unfit,
}

impl<'a> Found<'a> {
    /// The text of a string.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Found::Json(value) => value.string(),
            Found::Text(text) => Some(text.clone()),
        }
    }
}

// === impl View ===

impl<'a> View<'a> {
    /// Looks strictly.
    pub fn look(&self, pointer: &Pointer) -> Look<'a> {
        match self {
            View::Arguments(None) => Look::Absent,
            View::Arguments(Some(value)) => look(*value, &pointer.steps),
            View::Http(http) => http.look(pointer),
        }
    }

    /// Gathers generously.
    pub fn gather(&self, pointer: &Pointer, found: &mut Vec<Found<'a>>) {
        match self {
            View::Arguments(None) => {}
            View::Arguments(Some(value)) => gather(*value, &pointer.steps, found),
            View::Http(http) => http.gather(pointer, found),
        }
    }
}

impl<'a> HttpView<'a> {
    fn look(&self, pointer: &Pointer) -> Look<'a> {
        match pointer.steps.split_first() {
            Some((Step::Key(part), rest)) => match (part.as_str(), rest) {
                ("path", [Step::Key(name)]) => match self.path.iter().find(|(known, _)| known == name) {
                    Some((_, value)) => Look::Values(vec![Found::Text(value.clone())]),
                    None => Look::Absent,
                },
                ("query", [step]) => look_pairs(self.query, step),
                ("headers", [Step::Key(name)]) => self.look_header(name),
                ("body", steps) => match self.body {
                    HttpBody::None => Look::Absent,
                    HttpBody::Json(value) => look(value, steps),
                    HttpBody::Form(pairs) => match steps {
                        [step] => look_pairs(pairs, step),
                        _ => Look::Unfit,
                    },
                    HttpBody::Other | HttpBody::Opaque => Look::Unfit,
                },
                _ => Look::Unfit,
            },
            _ => Look::Unfit,
        }
    }

    fn look_header(&self, name: &str) -> Look<'a> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Look::Absent,
            (Some(value), None) => match value.to_str() {
                Ok(text) => Look::Values(vec![Found::Text(Cow::Borrowed(text))]),
                Err(_) => Look::Unfit,
            },
            (Some(_), Some(_)) => Look::Unfit,
        }
    }

    fn gather(&self, pointer: &Pointer, found: &mut Vec<Found<'a>>) {
        let Some((Step::Key(part), rest)) = pointer.steps.split_first() else { return };
        match (part.as_str(), rest) {
            ("query", [step]) => gather_pairs(self.query, step, found),
            ("headers", [Step::Key(name)]) => {
                for value in self.headers.get_all(name) {
                    found.push(Found::Text(String::from_utf8_lossy(value.as_bytes())));
                }
            }
            ("body", steps) => match self.body {
                HttpBody::Json(value) => gather(value, steps, found),
                HttpBody::Form(pairs) => {
                    if let Some(step) = steps.first() {
                        gather_pairs(pairs, step, found);
                    }
                }
                HttpBody::None | HttpBody::Other | HttpBody::Opaque => {}
            },
            _ => {
                if let Look::Values(values) = self.look(pointer) {
                    found.extend(values);
                }
            }
        }
    }
}

fn look_pairs<'a>(pairs: &'a [(Cow<'a, str>, Cow<'a, str>)], step: &Step) -> Look<'a> {
    let mut values = Vec::new();
    for (name, value) in pairs {
        match step {
            Step::Each => values.push(Found::Text(Cow::Borrowed(value))),
            Step::Key(key) if name == key => values.push(Found::Text(Cow::Borrowed(value))),
            Step::Key(key) if fold(name) == fold(key) => return Look::Unfit,
            // `to[]=` and `to[0]=` are lists to PHP, Rails and Express.
            Step::Key(key) if name.split_once('[').is_some_and(|(start, _)| fold(start) == fold(key)) => {
                return Look::Unfit;
            }
            Step::Key(_) => {}
        }
    }
    match (values.len(), step) {
        (0, _) => Look::Absent,
        (1, _) | (_, Step::Each) => Look::Values(values),
        (_, Step::Key(_)) => Look::Unfit,
    }
}

fn gather_pairs<'a>(pairs: &'a [(Cow<'a, str>, Cow<'a, str>)], step: &Step, found: &mut Vec<Found<'a>>) {
    for (name, value) in pairs {
        let start = name.split_once('[').map_or(&**name, |(start, _)| start);
        let meant = match step {
            Step::Each => true,
            Step::Key(key) => fold(start) == fold(key) || fold(name) == fold(key),
        };
        if meant {
            found.push(Found::Text(Cow::Borrowed(value)));
        }
    }
}

fn look<'a>(value: Value<'a>, steps: &[Step]) -> Look<'a> {
    let Some((step, rest)) = steps.split_first() else {
        return Look::Values(vec![Found::Json(value)]);
    };
    match (value.kind(), step) {
        (Kind::Array, Step::Each) => {
            let mut all = Vec::new();
            for item in value.items() {
                match look(item, rest) {
                    Look::Values(values) => all.extend(values),
                    Look::Absent | Look::Unfit => return Look::Unfit,
                }
            }
            if all.is_empty() { Look::Unfit } else { Look::Values(all) }
        }
        (Kind::Array, Step::Key(key)) => match index(key) {
            Some(at) => value.items().nth(at).map_or(Look::Absent, |item| look(item, rest)),
            None => Look::Unfit,
        },
        (Kind::Object, Step::Key(key)) => match value.get(key) {
            Some(member) => look(member, rest),
            // Go's decoder takes `Cc` for `cc`.
            None if value.members().any(|(name, _)| fold(&name) == fold(key)) => Look::Unfit,
            None => Look::Absent,
        },
        _ => Look::Unfit,
    }
}

fn scalar(value: Value<'_>) -> Option<Cow<'_, str>> {
    value.string().or_else(|| value.number().map(Cow::Borrowed))
}

fn reach<'a>(value: Value<'a>, steps: &[Step], found: &mut dyn FnMut(Value<'a>)) {
    let Some((step, rest)) = steps.split_first() else {
        return found(value);
    };
    match (value.kind(), step) {
        (Kind::Array, Step::Key(key)) if index(key).is_some() => {
            index(key).and_then(|at| value.items().nth(at)).into_iter().for_each(found);
        }
        (Kind::Array, Step::Key(_)) => value.items().for_each(|item| reach(item, steps, found)),
        (Kind::Array, Step::Each) => value.items().for_each(|item| reach(item, rest, found)),
        (Kind::Object, Step::Each) => value.members().for_each(|(_, member)| reach(member, rest, found)),
        (Kind::Object, Step::Key(key)) => {
            value.folding_to(key).for_each(|member| reach(member, rest, found));
        }
        // A lone value where a list was described is a list of one.
        (Kind::Bool | Kind::Number | Kind::String, Step::Each) => reach(value, rest, found),
        (Kind::Bool | Kind::Number | Kind::String | Kind::Null, _) => {}
    }
}

fn gather<'a>(value: Value<'a>, steps: &[Step], found: &mut Vec<Found<'a>>) {
    let Some((step, rest)) = steps.split_first() else {
        return match value.kind() {
            Kind::Array => value.items().for_each(|item| gather(item, steps, found)),
            Kind::Null => {}
            Kind::Bool | Kind::Number | Kind::Object | Kind::String => found.push(Found::Json(value)),
        };
    };
    match (value.kind(), step) {
        (Kind::Array, Step::Key(key)) => {
            if let Some(item) = index(key).and_then(|at| value.items().nth(at)) {
                gather(item, rest, found);
            }
        }
        (Kind::Array, Step::Each) => value.items().for_each(|item| gather(item, rest, found)),
        (Kind::Object, Step::Each) => value.members().for_each(|(_, member)| gather(member, rest, found)),
        (Kind::Object, Step::Key(key)) => {
            value.folding_to(key).for_each(|member| gather(member, rest, found));
        }
        // A lone value where a list was described is a list of one to a lax upstream.
        (Kind::Bool | Kind::Number | Kind::String, Step::Each) => gather(value, rest, found),
        (Kind::String, Step::Key(_)) => found.push(Found::Json(value)),
        (Kind::Bool | Kind::Number | Kind::Null, _) => {}
    }
}

fn index(key: &str) -> Option<usize> {
    let canonical = key == "0" || (!key.starts_with('0') && key.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { key.parse().ok() } else { None }
}
