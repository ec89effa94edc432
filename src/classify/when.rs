//! The conditions of a catalogue's `when`: what must hold of a call's values for it to be classed otherwise.
//!
//! A missing pointer, an ill-typed value, a text that does not parse: none of them ever matches. So an entry that is
//! written for the strictest case, with conditions that lower it, can only be fooled towards stricter.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::view::{Found, Look, Pointer, View};
use super::{graphql, sql};
use crate::call::{Class, Consequence, Effect};

/// The most that a compiled pattern may take.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// The longest value that a pattern is tried on.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// One item of `when`: if every test holds, the settings apply.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What must hold, all of it; never empty.
    pub tests: Vec<Test>,
    /// What it sets.
    pub settings: Settings,
}

/// What a condition sets; what it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The class of this call.
    pub class: Option<Class>,
    /// The consequence of this call.
    pub consequence: Option<Consequence>,
    /// The effects of this call.
    pub effects: Option<Vec<Effect>>,
}

/// One operator.
#[derive(Clone, Debug)]
pub enum Test {
    /// Every destination is internal.
    DestinationsInternal,
    /// Every value is this one.
    Equals(Pointer, Scalar),
    /// Every value is a GraphQL document that only queries.
    Graphql(Pointer),
    /// Every value is one of these.
    In(Pointer, Vec<Scalar>),
    /// Every value is a text that the pattern matches from end to end.
    Matches(Pointer, Pattern),
    /// Every value is an SQL text that only reads.
    Sql(Pointer),
}

/// A value to compare with. A number is compared as it is written, so `1.0` is not `1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A number as written.
    Number(String),
    /// A text.
    Text(String),
}

/// A pattern that must match from end to end.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    ascii: bool,
}

impl Pattern {
    /// Compiles a pattern; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let fault = |error: regex::Error| {
            let text = error.to_string();
            format!("no valid pattern: {}", text.lines().last().unwrap_or_default())
        };
        // Compiled by itself first, so that no parenthesis of its own can break out of the anchors.
        RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build().map_err(fault)?;
        let anchored = format!("\\A(?:{text})\\z");
        let regex = RegexBuilder::new(&anchored).size_limit(REGEX_BYTES_MAX).build().map_err(fault)?;
        Ok(Pattern { regex, ascii: text.is_ascii() })
    }

    /// Whether a text matches. Letters and digits beyond ASCII match only a pattern that has some itself: `\d` is
    /// not meant to take Arabic digits, nor `(?i)k` the Kelvin sign.
    fn matches(&self, text: &str) -> bool {
        text.len() <= VALUE_BYTES_MAX && (text.is_ascii() || !self.ascii) && self.regex.is_match(text)
    }
}

impl Scalar {
    fn is(&self, found: &Found<'_>) -> bool {
        match (self, found) {
            (Scalar::Bool(wanted), Found::Json(value)) => value.boolean() == Some(*wanted),
            (Scalar::Number(wanted), Found::Json(value)) => value.number() == Some(wanted),
            (Scalar::Text(wanted), Found::Json(value)) => value.string().as_deref() == Some(wanted),
            (Scalar::Bool(wanted), Found::Text(text)) => *text == if *wanted { "true" } else { "false" },
            (Scalar::Number(wanted) | Scalar::Text(wanted), Found::Text(text)) => text == wanted,
        }
    }
}

impl Condition {
    /// Whether every test holds.
    pub(super) fn holds(&self, view: &View<'_>, destinations_internal: bool) -> bool {
        !self.tests.is_empty() && self.tests.iter().all(|test| test.holds(view, destinations_internal))
    }
}

impl Test {
    fn holds(&self, view: &View<'_>, destinations_internal: bool) -> bool {
        match self {
            Test::DestinationsInternal => destinations_internal,
            Test::Equals(at, wanted) => every(view, at, |found| wanted.is(found)),
            Test::In(at, wanted) => every(view, at, |found| wanted.iter().any(|one| one.is(found))),
            Test::Matches(at, pattern) => every_text(view, at, |text| pattern.matches(text)),
            Test::Sql(at) => every_text(view, at, sql::reads),
            Test::Graphql(at) => every_text(view, at, graphql::reads),
        }
    }

    /// The pointer that the operator looks at, if it has one of its own.
    pub fn pointer(&self) -> Option<&Pointer> {
        match self {
            Test::DestinationsInternal => None,
            Test::Equals(at, _)
            | Test::Graphql(at)
            | Test::In(at, _)
            | Test::Matches(at, _)
            | Test::Sql(at) => Some(at),
        }
    }
}

fn every<'a>(view: &View<'a>, at: &Pointer, holds: impl Fn(&Found<'a>) -> bool) -> bool {
    match view.look(at) {
        Look::Values(values) => !values.is_empty() && values.iter().all(holds),
        Look::Absent | Look::Unfit => false,
    }
}

fn every_text(view: &View<'_>, at: &Pointer, holds: impl Fn(&str) -> bool) -> bool {
    every(view, at, |found| {
        let text: Option<Cow<'_, str>> = found.text();
        text.is_some_and(|text| holds(&text))
    })
}
