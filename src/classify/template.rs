//! The templates of HTTP operations, `METHOD /path/{param}`, compiled to a trie of segments.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::Method;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    method: Method,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(String),
}

impl Template {
    /// Parses `METHOD /path/{param}/…`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Template, String> {
        let fault = || format!("`{text}` is no operation: expected `METHOD /path/{{parameter}}/…`");
        let (method, path) = text.split_once(' ').ok_or_else(fault)?;
        let path = path.strip_prefix('/').ok_or_else(fault)?;
        let upper = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|_| upper).ok_or_else(fault)?;
        if method == Method::HEAD {
            return Err("HEAD is judged by the entry of GET: name that".to_owned());
        }
        let mut segments: Vec<Segment> = Vec::new();
        let last = path.split('/').count() - 1;
        for (at, text) in path.split('/').enumerate() {
            let segment = segment(text).filter(|_| !text.is_empty() || at == last).ok_or_else(fault)?;
            if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
                return Err(format!("`{text}` stands twice in one path"));
            }
            segments.push(segment);
        }
        Ok(Template { method, segments })
    }

    /// Whether the path has a parameter of this name.
    pub fn has_parameter(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Parameter(known) if known == name))
    }

    /// Whether some path fits both and neither is the more specific one everywhere.
    pub fn is_ambiguous_with(&self, other: &Template) -> bool {
        if self.method != other.method || self.segments.len() != other.segments.len() {
            return false;
        }
        let (mut here, mut there) = (false, false);
        for pair in self.segments.iter().zip(&other.segments) {
            match pair {
                (Segment::Literal(one), Segment::Literal(two)) if one != two => return false,
                (Segment::Literal(one), Segment::Parameter(_)) if !one.is_empty() => here = true,
                (Segment::Parameter(_), Segment::Literal(two)) if !two.is_empty() => there = true,
                (Segment::Literal(_), Segment::Parameter(_))
                | (Segment::Parameter(_), Segment::Literal(_)) => {
                    return false;
                }
                _ => {}
            }
        }
        here == there
    }
}

fn segment(text: &str) -> Option<Segment> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}%\\?#;".contains(&byte);
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        return sound.then(|| Segment::Parameter(name.to_owned()));
    }
    let sound = text.bytes().all(plain) && text != "." && text != "..";
    sound.then(|| Segment::Literal(text.to_owned()))
}

/// All the templates of an upstream.
#[derive(Clone, Debug)]
pub struct Trie<T> {
    root: Node<T>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    literals: BTreeMap<String, Node<T>>,
    parameter: Option<Box<Node<T>>>,
    /// By method: what was put there, and the names of the path's parameters in order.
    here: Vec<(Method, Vec<String>, T)>,
}

// Not derived: that would ask for a default of what is stored.
impl<T> Default for Node<T> {
    fn default() -> Node<T> {
        Node { literals: BTreeMap::new(), parameter: None, here: Vec::new() }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Trie<T> {
        Trie { root: Node::default() }
    }
}

/// What a request matched, with the path's parameters by name.
pub struct Match<'t, 'p, T> {
    /// What was put at the template.
    pub value: &'t T,
    /// The parameters, decoded.
    pub parameters: Vec<(&'t str, Cow<'p, str>)>,
}

impl<T> Trie<T> {
    /// Puts a value at a template.
    pub fn put(&mut self, template: &Template, value: T) {
        let mut node = &mut self.root;
        let mut names = Vec::new();
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Parameter(name) => {
                    names.push(name.clone());
                    node.parameter.get_or_insert_default()
                }
            };
        }
        node.here.push((template.method.clone(), names, value));
    }

    /// The value whose template a request fits best. HEAD fits where GET does.
    pub fn find<'t, 'p>(&'t self, method: &str, path: &'p str) -> Option<Match<'t, 'p, T>> {
        let method = if method == "HEAD" { "GET" } else { method };
        let segments = segments(path)?;
        let mut parameters = Vec::new();
        let (_, names, value) = self.root.find(method, &segments, &mut parameters)?;
        let parameters = names.iter().map(String::as_str).zip(parameters).collect();
        Some(Match { value, parameters })
    }
}

impl<T> Node<T> {
    /// Literals first: templates that are not ambiguous make the first match the most specific one.
    fn find<'p>(
        &self,
        method: &str,
        segments: &[Cow<'p, str>],
        parameters: &mut Vec<Cow<'p, str>>,
    ) -> Option<&(Method, Vec<String>, T)> {
        let Some((first, rest)) = segments.split_first() else {
            return self.here.iter().find(|(known, _, _)| known.as_str() == method);
        };
        if let Some(found) = self.literals.get(&**first).and_then(|node| node.find(method, rest, parameters))
        {
            return Some(found);
        }
        // Many routers ignore case: `SEARCH` beside a literal `search` is nobody's parameter.
        let other_case =
            self.literals.keys().any(|known| known.eq_ignore_ascii_case(first) && **known != **first);
        let node = self.parameter.as_deref().filter(|_| !first.is_empty() && !other_case)?;
        parameters.push(first.clone());
        let found = node.find(method, rest, parameters);
        if found.is_none() {
            parameters.pop();
        }
        found
    }
}

/// The decoded segments of a path; `None` for a path that routers could split in another way.
fn segments(path: &str) -> Option<Vec<Cow<'_, str>>> {
    path.strip_prefix('/')?.split('/').map(decode).collect()
}

fn decode(segment: &str) -> Option<Cow<'_, str>> {
    let text = if segment.contains('%') { Cow::Owned(unescape(segment)?) } else { Cow::Borrowed(segment) };
    // `;` begins matrix parameters, a slash or a backslash another segment, and a second escape another round.
    let odd = |c: char| matches!(c, '/' | '\\' | ';' | '%' | '?' | '#') || c.is_control();
    let sound = !text.contains(odd) && &*text != "." && &*text != "..";
    sound.then_some(text)
}

fn unescape(segment: &str) -> Option<String> {
    let mut parts = segment.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
