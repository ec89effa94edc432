//! The classify stage: what a call does to the world, by the catalogue, its `when` and the values of this very call.
//!
//! What no entry names is external and of high consequence; what cannot be understood is never lowered.

pub mod catalog;
mod graphql;
mod reply;
pub mod resource;
pub mod sink;
mod sql;
pub mod template;
pub mod view;
pub mod when;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

use crate::bench::{self, Control};
use crate::call::{
    Class, Consequence, Effect, FactType, Lifted, PolicyAction, ResourceProfile, Returns, Shade, Stage, Stop,
    StopKind, Word,
};
use crate::decode::jsonrpc::Message;
use crate::decode::mcp::{McpAction, TaskVerb};
use crate::decode::{Action, Call, Payload};
use crate::definitions::{Definitions, Standing};
use crate::json::Value;
use catalog::{Catalog, Entry, Sink, Upstream};
use sink::{Destination, Place, SinkKind};
use view::{Found, HttpView, Look, Pointer, View};

pub use view::HttpBody;

/// A call as decoding understood it; everything is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where it goes.
    pub upstream: &'a Upstream,
    /// What it is.
    pub subject: Subject<'a>,
}

/// What a call is.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A plain HTTP request.
    Http {
        /// Its method.
        method: &'a str,
        /// Its canonical path, still with its escapes.
        path: &'a str,
        /// Its query, decoded, in order.
        query: &'a [(Cow<'a, str>, Cow<'a, str>)],
        /// Its headers.
        headers: &'a HeaderMap,
        /// Its body.
        body: HttpBody<'a>,
    },
    /// An MCP request or notification that is neither a tool call nor the protocol's own chatter.
    Method {
        /// The method.
        name: &'a str,
        /// Its parameters.
        params: Option<Value<'a>>,
    },
    /// A resource of an MCP upstream.
    Resource {
        /// What is done with it.
        method: &'a str,
        /// Its URI.
        uri: &'a str,
        /// The parameters.
        params: Option<Value<'a>>,
    },
    /// The chatter of MCP: handshakes, lists, pings, notifications.
    Session,
    /// What became of a call of this tool, which has been decided.
    TaskRead {
        /// The tool.
        tool: &'a str,
    },
    /// A tool call.
    Tool {
        /// The tool.
        name: &'a str,
        /// Its arguments.
        arguments: Option<Value<'a>>,
    },
}

/// What the later stages go by.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The tool or operation; the same `Arc` for the same one as long as the catalogue lives.
    pub resource: Arc<ResourceProfile>,
    /// The catalogue's entry, where one names it.
    pub entry: Option<Arc<Entry>>,
    /// The class of this very call.
    pub class: Class,
    /// The consequence of this very call.
    pub consequence: Consequence,
    /// The effects of this very call, sorted.
    pub effects: Vec<Effect>,
    /// Where it reaches, sorted, each once.
    pub destinations: Vec<Destination>,
    /// What it sends there, in its own words.
    pub goes: Goes,
    /// Whether there is at least one destination and every one is internal.
    pub destinations_internal: bool,
    /// The tiers of the destinations, sorted.
    pub tiers: Vec<Word>,
    /// Values for policy.
    pub lifted: BTreeMap<Arc<str>, Lifted>,
    /// What the reply will bring.
    pub returns: Returns,
    /// Whether what leaves cannot be looked at.
    pub lineage_unknown: bool,
    /// Whether the body is streamed unread.
    pub opaque: bool,
    /// The longest life of a credential made for this call.
    pub max_credential_ttl: Option<Duration>,
    /// The digest of the tool's definition, as the upstream serves it, where that is known.
    pub definition: Option<Arc<str>>,
    /// What policy is asked.
    pub action: PolicyAction,
}

/// What goes by a sink, as the agent wrote it.
#[derive(Clone, Debug, Default)]
pub struct Goes {
    /// To whom, and how it is reached.
    pub to: Vec<(SinkKind, String)>,
    /// What.
    pub payload: Vec<String>,
    /// What, by reference.
    pub refs: Vec<String>,
}

/// The shade that a call is in, by its upstream and its agent.
pub fn shade(catalog: &Catalog, call: &Call, now: SystemTime) -> Shade {
    let upstream = catalog.upstream(&call.route().name);
    Shade::of(upstream.and_then(|upstream| upstream.config().shadow.as_ref()), call.agent().profile(), now)
}

/// Says what a decoded call does to the world, and of a tool whose definition is not believed what an undescribed one
/// would. What stops it there may be in shadow.
pub fn call(
    catalog: &Catalog,
    definitions: &Definitions,
    call: &Call,
    shade: &mut Shade,
) -> Result<Facts, Box<Stop>> {
    let Some(upstream) = catalog.upstream(&call.route().name) else {
        return Err(Stop::new(
            Stage::Classify,
            StopKind::Denied,
            "no-catalogue",
            "this upstream has no catalogue",
        ));
    };
    if bench::off(Control::Classify) {
        return facts(catalog, &Question { upstream, subject: Subject::Session });
    }
    let params = call.message().and_then(Message::params);
    let subject = match call.action() {
        Action::Http { path, query, .. } => Subject::Http {
            method: call.head().method.as_str(),
            path,
            query,
            headers: &call.head().headers,
            body: match call.payload() {
                Payload::Form(_, pairs) => HttpBody::Form(pairs),
                Payload::Json(document) => HttpBody::Json(document.root()),
                Payload::None => HttpBody::None,
                Payload::Opaque(_) => HttpBody::Opaque,
                Payload::Other(_) | Payload::Rpc(_) => HttpBody::Other,
            },
        },
        Action::Mcp(envelope) => match &envelope.action {
            McpAction::CallTool { name } => {
                Subject::Tool { name, arguments: params.and_then(|params| params.get("arguments")) }
            }
            McpAction::ReadResource { uri } => Subject::Resource { method: "resources/read", uri, params },
            McpAction::Subscribe { uri } => Subject::Resource { method: "resources/subscribe", uri, params },
            McpAction::Unsubscribe { uri } => {
                Subject::Resource { method: "resources/unsubscribe", uri, params }
            }
            McpAction::Reply { to, empty_or_error: false } => {
                Subject::Method { name: to, params: call.message().and_then(Message::result) }
            }
            McpAction::Task { verb: TaskVerb::Get | TaskVerb::Result, tool, .. } => {
                Subject::TaskRead { tool }
            }
            McpAction::Task { verb: TaskVerb::Update, tool, .. } => {
                Subject::Tool { name: tool, arguments: None }
            }
            action if action.is_chatter() => Subject::Session,
            _ => {
                Subject::Method { name: call.message().and_then(Message::method).unwrap_or_default(), params }
            }
        },
    };
    let facts = shaded(catalog, &Question { upstream, subject }, shade)?;
    match subject {
        Subject::Tool { .. } => defined(definitions, upstream, facts, shade),
        _ => Ok(facts),
    }
}

/// Compares the definition of a catalogued tool, as the upstream serves it, with what the catalogue was written for.
fn defined(
    definitions: &Definitions,
    upstream: &Upstream,
    mut facts: Facts,
    shade: &mut Shade,
) -> Result<Facts, Box<Stop>> {
    let Some(entry) = facts.entry.clone() else { return Ok(facts) };
    let (name, tool) = (&upstream.config().name, &entry.profile.name);
    let drift = match definitions.standing(name, tool, entry.pin.as_deref()) {
        Standing::Sound(digest) => {
            facts.definition = digest;
            return Ok(facts);
        }
        Standing::Drifted(drift, digest) => {
            facts.definition = digest;
            drift
        }
    };
    // Invariant: nothing gets lower than the entry says.
    let consequence = facts.consequence.max(Consequence::UNLISTED).max(entry.profile.consequence);
    if upstream.config().strict {
        let mut stop = Stop::new(
            Stage::Classify,
            StopKind::Denied,
            drift.as_str(),
            "This upstream allows only what its catalogue lists, and this is not listed. Do not retry.",
        )
        .operator(format!(
            "the tool `{tool}` of `{name}`, which is strict, {}: `holdpoint catalog diff` shows more",
            drift.told()
        ));
        stop.rule = Arc::from("unlisted");
        shade.pass(stop, consequence)?;
    }
    facts.resource = entry.drifted(drift);
    facts.class = Class::External;
    facts.action = PolicyAction::External;
    facts.consequence = consequence;
    facts.effects.extend(
        entry.effects.iter().copied().filter(|effect| !facts.effects.contains(effect)).collect::<Vec<_>>(),
    );
    facts.effects.sort();
    facts.returns = Returns {
        confidentiality: facts.returns.confidentiality.max(Returns::UNLISTED.confidentiality),
        integrity: facts.returns.integrity.max(Returns::UNLISTED.integrity),
    };
    facts.destinations_internal = false;
    Ok(facts)
}

/// Says what a call does to the world. Stops only what a strict upstream's catalogue does not name.
pub fn facts(catalog: &Catalog, question: &Question<'_>) -> Result<Facts, Box<Stop>> {
    shaded(catalog, question, &mut Shade::default())
}

fn shaded(catalog: &Catalog, question: &Question<'_>, shade: &mut Shade) -> Result<Facts, Box<Stop>> {
    let upstream = question.upstream;
    match question.subject {
        Subject::Session => Ok(session(upstream)),
        Subject::TaskRead { tool } => Ok(task_read(upstream, tool)),
        Subject::Tool { name, arguments } => match upstream.tool(name) {
            Some(entry) => Ok(listed(catalog, entry, &View::Arguments(arguments), Body::Understood)),
            None => unlisted(upstream, &format!("the tool `{name}`"), Body::Understood, shade),
        },
        Subject::Resource { method, uri, params } => match upstream.resource(method, uri) {
            Some(entry) => Ok(listed(catalog, entry, &View::Arguments(params), Body::Understood)),
            None => unlisted(upstream, &format!("the resource `{uri}`"), Body::Understood, shade),
        },
        Subject::Method { name, params } => match upstream.method(name) {
            Some(entry) => Ok(listed(catalog, entry, &View::Arguments(params), Body::Understood)),
            None => unlisted(upstream, &format!("the method `{name}`"), Body::Understood, shade),
        },
        Subject::Http { method, path, query, headers, body } => {
            match upstream.operations.find(method, path) {
                Some(found) => {
                    let understood = Body::of(found.value, headers, body);
                    let view = View::Http(HttpView { path: found.parameters, query, headers, body });
                    Ok(listed(catalog, found.value, &view, understood))
                }
                None => {
                    let understood = match body {
                        HttpBody::None | HttpBody::Json(_) | HttpBody::Form(_) => Body::Understood,
                        HttpBody::Other => Body::Foreign,
                        HttpBody::Opaque => Body::Streamed,
                    };
                    unlisted(upstream, &format!("the operation `{method} {path}`"), understood, shade)
                }
            }
        }
    }
}

/// How far the body of a call is understood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// As the catalogue says, or there is none.
    Understood,
    /// Streamed, as the catalogue says.
    Streamed,
    /// Not of the content types that the catalogue says.
    Foreign,
}

impl Body {
    fn of(entry: &Entry, headers: &HeaderMap, body: HttpBody<'_>) -> Body {
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let kind = match (types.next(), types.next()) {
            (Some(value), None) => value.to_str().ok().map(essence),
            _ => None,
        };
        let declared = match (&entry.content, &kind) {
            (Some(content), Some(kind)) => content.contains(kind),
            (Some(_), None) => false,
            (None, Some(kind)) => match body {
                HttpBody::Json(_) => kind == "application/json",
                HttpBody::Form(_) => kind == "application/x-www-form-urlencoded",
                HttpBody::None | HttpBody::Opaque => true,
                HttpBody::Other => false,
            },
            (None, None) => matches!(body, HttpBody::None | HttpBody::Opaque),
        };
        match body {
            HttpBody::None => Body::Understood,
            HttpBody::Opaque if entry.opaque && declared => Body::Streamed,
            HttpBody::Json(_) | HttpBody::Form(_) | HttpBody::Other if declared => Body::Understood,
            _ => Body::Foreign,
        }
    }
}

/// The type and subtype of a content type, in lower case, without parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn session(upstream: &Upstream) -> Facts {
    let mut facts = bare(&upstream.itself, Returns::NOTHING);
    facts.action = PolicyAction::Discover;
    facts
}

/// To ask after a task reads what its tool returns, and does no more.
fn task_read(upstream: &Upstream, tool: &str) -> Facts {
    let mut facts = match upstream.tool(tool) {
        Some(entry) => bare(&entry.profile, entry.returns.labels),
        None => bare(&upstream.unlisted, Returns::UNLISTED),
    };
    facts.class = Class::Read;
    facts.consequence = Consequence::NONE;
    facts.action = PolicyAction::Read;
    facts
}

fn unlisted(upstream: &Upstream, what: &str, body: Body, shade: &mut Shade) -> Result<Facts, Box<Stop>> {
    if upstream.config().strict {
        let name = &upstream.config().name;
        let mut stop = Stop::new(
            Stage::Classify,
            StopKind::Denied,
            "unlisted",
            "This upstream allows only what its catalogue lists, and this is not listed. Do not retry.",
        )
        .operator(format!("{what} is in no entry of the catalogue of `{name}`, which is strict"));
        stop.rule = Arc::from("unlisted");
        shade.pass(stop, Consequence::UNLISTED)?;
    }
    let mut facts = bare(&upstream.unlisted, Returns::UNLISTED);
    facts.lineage_unknown = body != Body::Understood;
    facts.opaque = body == Body::Streamed;
    Ok(facts)
}

/// What a profile alone says.
fn bare(resource: &Arc<ResourceProfile>, returns: Returns) -> Facts {
    Facts {
        resource: resource.clone(),
        entry: None,
        class: resource.class,
        consequence: resource.consequence,
        effects: Vec::new(),
        destinations: Vec::new(),
        goes: Goes::default(),
        destinations_internal: false,
        tiers: Vec::new(),
        lifted: BTreeMap::new(),
        returns,
        lineage_unknown: false,
        opaque: false,
        max_credential_ttl: None,
        definition: None,
        action: PolicyAction::of(resource.class),
    }
}

fn listed(catalog: &Catalog, entry: &Arc<Entry>, view: &View<'_>, body: Body) -> Facts {
    let mut facts = bare(&entry.profile, entry.returns.labels);
    facts.entry = Some(entry.clone());
    facts.effects = entry.effects.clone();
    facts.max_credential_ttl = entry.max_credential_ttl;
    facts.lineage_unknown = body != Body::Understood;
    facts.opaque = entry.opaque || body == Body::Streamed;
    if let Some(sink) = &entry.sink {
        reach(catalog, sink, view, &mut facts);
    }
    for fact in &entry.facts {
        if let Some(value) = lift(view, fact) {
            facts.lifted.insert(fact.name.clone(), value);
        }
    }
    // Invariant: what is not understood is never lowered.
    let judged = body == Body::Understood || (body == Body::Streamed && entry.content.is_some());
    let first = entry.when.iter().find(|condition| condition.holds(view, facts.destinations_internal));
    if let Some(condition) = first.filter(|_| judged) {
        let settings = &condition.settings;
        facts.class = settings.class.unwrap_or(facts.class);
        facts.consequence = settings.consequence.unwrap_or(facts.consequence);
        if let Some(effects) = &settings.effects {
            facts.effects = effects.clone();
        }
    }
    if body == Body::Foreign {
        facts.class = Class::External;
        facts.destinations_internal = false;
    }
    facts.action = PolicyAction::of(facts.class);
    facts
}

/// Finds the destinations of a call, generously, and whether all are internal, strictly.
fn reach(catalog: &Catalog, sink: &Sink, view: &View<'_>, facts: &mut Facts) {
    let mut found = Vec::new();
    for pointer in &sink.destinations {
        view.gather(pointer, &mut found);
    }
    for value in &found {
        let text = written(value);
        facts.goes.to.push((sink.kind, text.clone().into_owned()));
        facts.destinations.push(Place::destination(sink.kind, &text));
        let tier = if catalog.internal.contains_text(&text) { "internal" } else { "new" };
        if !facts.tiers.iter().any(|known| &**known == tier) {
            facts.tiers.push(tier.into());
        }
    }
    facts.tiers.sort();
    facts.destinations.sort();
    facts.destinations.dedup();
    facts.destinations_internal = all_internal(catalog, sink, view);
    let texts = |pointers: &[Pointer]| {
        let mut found = Vec::new();
        pointers.iter().for_each(|pointer| view.gather(pointer, &mut found));
        found.iter().map(|value| written(value).into_owned()).collect()
    };
    (facts.goes.payload, facts.goes.refs) = (texts(&sink.payload), texts(&sink.refs));
}

/// A value as the agent wrote it.
fn written<'a>(value: &Found<'a>) -> Cow<'a, str> {
    match (value, value.text()) {
        (_, Some(text)) => text,
        (Found::Json(value), None) => String::from_utf8_lossy(value.raw()),
        (Found::Text(text), None) => text.clone(),
    }
}

fn all_internal(catalog: &Catalog, sink: &Sink, view: &View<'_>) -> bool {
    let mut any = false;
    for pointer in &sink.destinations {
        match view.look(pointer) {
            Look::Values(values) => {
                let inside = |value: &Found<'_>| {
                    value.text().is_some_and(|text| catalog.internal.contains_text(&text))
                };
                if values.is_empty() || !values.iter().all(inside) {
                    return false;
                }
                any = true;
            }
            // An optional destination that is not given; one of the others must be.
            Look::Absent => {}
            Look::Unfit => return false,
        }
    }
    any
}

/// The longest text that is lifted.
const TEXT_BYTES_MAX: usize = 256;

fn lift(view: &View<'_>, fact: &catalog::Fact) -> Option<Lifted> {
    let Look::Values(values) = view.look(&fact.at) else { return None };
    let [value] = values.as_slice() else { return None };
    let number = || match value {
        Found::Json(value) => value.number().map(Cow::Borrowed).or_else(|| value.string()),
        Found::Text(text) => Some(text.clone()),
    };
    match fact.kind {
        FactType::Bool => match value {
            Found::Json(value) => value.boolean(),
            Found::Text(text) => text.parse().ok(),
        }
        .map(Lifted::Bool),
        FactType::Long => number()?.parse().ok().map(Lifted::Long),
        FactType::Decimal => decimal(&number()?).map(Lifted::Decimal),
        FactType::Text => {
            let text = value.text()?;
            let sound = text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control);
            sound.then(|| Lifted::Text(text.into_owned()))
        }
    }
}

/// A number as policy's decimal takes it: `12` is `12.0`. More than four digits after the point cannot be said.
fn decimal(text: &str) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() + part.len() > 32 || !all(whole) || !all(part) {
        return None;
    }
    // In ten-thousandths, exactly.
    let mut value: i128 = format!("{whole}{part}").parse().ok()?;
    let shift = exponent.checked_sub(i32::try_from(part.len()).ok()?)?.checked_add(4)?;
    for _ in 0..shift.unsigned_abs().min(64) {
        value = match shift > 0 {
            true => value.checked_mul(10)?,
            false if value % 10 == 0 => value / 10,
            false => return None,
        };
    }
    i64::try_from(value).ok()?;
    let (whole, part) = (value / 10_000, format!("{:04}", value % 10_000));
    let part = part.trim_end_matches('0');
    let sign = if value == 0 { "" } else { sign };
    Some(format!("{sign}{whole}.{}", if part.is_empty() { "0" } else { part }))
}
