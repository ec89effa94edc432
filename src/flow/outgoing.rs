//! From a call to what flow control looks at: where it goes, what goes, and every other string that the agent chose.

use std::borrow::Cow;
use std::collections::HashSet;

use aws_lc_rs::digest;
use http::HeaderMap;

use super::Label;
use super::finding::{Aim, Outgoing, Standing};
use crate::call::{Class, PolicyAction};
use crate::classify::Facts;
use crate::classify::catalog::UpstreamConfig;
use crate::classify::sink::{Internal, SinkKind};
use crate::decode::{Action, Call, Payload};
use crate::json::{Kind, Value};

/// Numbers with fewer digits say too little to be looked at.
const DIGITS_MIN: usize = 5;
/// From this consequence on arguments are looked at for what outsiders wrote.
const CONSEQUENTIAL: u8 = 2;

/// Whether anything of a call can be found: it leaves, it matters what it does, or what it makes inside is made of what
/// was read. All others cost nothing.
pub fn concerns(facts: &Facts, labels: &[Label], upstream: &UpstreamConfig) -> bool {
    let inside = facts.goes.to.is_empty() || facts.destinations_internal;
    let makes = facts.class == Class::Write && !labels.is_empty();
    facts.class == Class::External || !upstream.inside || !inside || makes || is_consequential(facts)
}

/// What flow control looks at of a call. `host` is the upstream's own, for one that is outside.
pub fn of<'a>(
    call: &'a Call,
    facts: &'a Facts,
    host: Option<&'a str>,
    internal: &'a Internal,
    mut standing: impl FnMut(SinkKind, &str) -> Standing,
) -> Outgoing<'a> {
    let goes = &facts.goes;
    let aims = goes.to.iter().map(|(kind, text)| Aim {
        kind: *kind,
        text: Cow::Borrowed(text.as_str()),
        standing: standing(*kind, text),
    });
    let told: HashSet<&str> = goes
        .payload
        .iter()
        .chain(&goes.refs)
        .map(String::as_str)
        .chain(goes.to.iter().map(|(_, text)| text.as_str()))
        .collect();
    let mut others = Vec::new();
    let arguments = gather(call, &mut others);
    others.retain(|text| !told.contains(&**text));
    let consequential = match is_consequential(facts) {
        true => arguments.into_iter().filter(|text| !told.contains(&**text)).collect(),
        false => Vec::new(),
    };
    let borrowed = |texts: &'a [String]| texts.iter().map(|text| Cow::Borrowed(text.as_str())).collect();
    Outgoing {
        class: facts.class,
        host,
        internal,
        aims: aims.collect(),
        payload: borrowed(&goes.payload),
        refs: borrowed(&goes.refs),
        others,
        consequential,
        digest: digest(call),
    }
}

fn is_consequential(facts: &Facts) -> bool {
    facts.action != PolicyAction::Discover
        && facts.class != Class::Read
        && (facts.consequence.level() >= CONSEQUENTIAL || !facts.effects.is_empty())
}

/// Every string that the agent chose.
pub fn strings(call: &Call) -> Vec<Cow<'_, str>> {
    let mut all = Vec::new();
    gather(call, &mut all);
    all
}

/// Gathers every string that the agent chose, and gives those that are values of arguments.
fn gather<'a>(call: &'a Call, all: &mut Vec<Cow<'a, str>>) -> Vec<Cow<'a, str>> {
    let mut arguments = Vec::new();
    match call.action() {
        Action::Mcp(_) => {
            if let Some(message) = call.message() {
                let root = message.document().root();
                for (name, value) in
                    root.members().filter(|(name, _)| !matches!(&**name, "jsonrpc" | "method"))
                {
                    leaves(value, &mut |text| all.push(text));
                    all.push(name);
                }
                if let Some(value) = message.params().and_then(|params| params.get("arguments")) {
                    leaves(value, &mut |text| arguments.push(text));
                }
            }
        }
        Action::Http { path, query, .. } => {
            all.extend(path.split('/').filter(|part| !part.is_empty()).map(Cow::Borrowed));
            for (name, value) in query {
                all.extend([Cow::Borrowed(&**name), Cow::Borrowed(&**value)]);
                arguments.push(Cow::Borrowed(&**value));
            }
        }
    }
    match call.payload() {
        Payload::Form(_, pairs) => {
            for (name, value) in pairs {
                all.extend([Cow::Borrowed(&**name), Cow::Borrowed(&**value)]);
                arguments.push(Cow::Borrowed(&**value));
            }
        }
        Payload::Json(document) => {
            leaves(document.root(), &mut |text| all.push(text));
            leaves(document.root(), &mut |text| arguments.push(text));
        }
        Payload::Other(bytes) => all.push(String::from_utf8_lossy(bytes)),
        Payload::None | Payload::Opaque(_) | Payload::Rpc(_) => {}
    }
    headers(&call.head().headers, all);
    arguments
}

/// Every string in a value, keys and long numbers included.
fn leaves<'a>(value: Value<'a>, each: &mut impl FnMut(Cow<'a, str>)) {
    match value.kind() {
        Kind::Array => value.items().for_each(|item| leaves(item, each)),
        Kind::Object => value.members().for_each(|(name, member)| {
            each(name);
            leaves(member, each);
        }),
        Kind::String => {
            if let Some(text) = value.string() {
                each(text);
            }
        }
        Kind::Number => {
            if let Some(number) = value.number().filter(|number| number.len() >= DIGITS_MIN) {
                each(Cow::Borrowed(number));
            }
        }
        Kind::Bool | Kind::Null => {}
    }
}

/// The headers that an agent chooses and that go upstream. Its `Authorization` is a credential, and goes only where the
/// operator has it passed on.
fn headers<'a>(headers: &'a HeaderMap, all: &mut Vec<Cow<'a, str>>) {
    for (name, value) in headers {
        let name = name.as_str();
        let fixed = matches!(
            name,
            "accept"
                | "accept-encoding"
                | "authorization"
                | "baggage"
                | "connection"
                | "content-length"
                | "content-type"
                | "expect"
                | "holdpoint-task"
                | "host"
                | "mcp-method"
                | "mcp-name"
                | "mcp-protocol-version"
                | "mcp-session-id"
                | "te"
                | "traceparent"
                | "transfer-encoding"
        );
        if !fixed {
            all.extend([Cow::Borrowed(name), String::from_utf8_lossy(value.as_bytes())]);
        }
    }
}

/// The same for a call and its repetition: ids and trace context of a message are no part of it.
fn digest(call: &Call) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    };
    part(call.route().name.as_bytes());
    match call.action() {
        Action::Mcp(_) => {
            let message = call.message();
            part(message.and_then(|message| message.method()).unwrap_or_default().as_bytes());
            for (name, value) in message.and_then(|message| message.params()).iter().flat_map(Value::members)
            {
                if name != "_meta" {
                    part(name.as_bytes());
                    part(value.raw());
                }
            }
        }
        Action::Http { path, raw_query, .. } => {
            part(call.head().method.as_str().as_bytes());
            part(path.as_bytes());
            part(raw_query.as_deref().unwrap_or_default().as_bytes());
        }
    }
    match call.payload() {
        Payload::Form(bytes, _) | Payload::Other(bytes) => part(bytes),
        Payload::Json(document) => part(document.bytes()),
        Payload::None | Payload::Opaque(_) | Payload::Rpc(_) => {}
    }
    let digest = context.finish();
    digest.as_ref().first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default()
}
