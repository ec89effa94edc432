//! Turns a hop into the spans of OpenTelemetry, and spans into a tree for people.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Deref;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};

use super::Stages;
use super::hop::{ErrorType, HoldMoment, Hop, MomentKind, StageTime, Transport};
use super::sink::SeenSpan;
use crate::call::{Era, Protocol, Stage, TraceContext};

/// The longest attribute value, in characters.
const VALUE_CHARS_MAX: usize = 256;

static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("holdpoint").with_version(env!("CARGO_PKG_VERSION")).build()
});

/// The context of a new span: in the parent's trace, or the root of a new one.
pub fn begin(parent: Option<TraceContext>) -> TraceContext {
    let trace_id =
        parent.map_or_else(|| RandomIdGenerator::default().new_trace_id().to_bytes(), |p| p.trace_id);
    TraceContext { trace_id, span_id: new_span_id(), flags: 1 }
}

/// A new span id.
pub fn new_span_id() -> [u8; 8] {
    RandomIdGenerator::default().new_span_id().to_bytes()
}

/// How many spans a hop becomes.
pub(super) fn count(hop: &Hop, stages: Stages) -> u64 {
    let shown = match stages {
        Stages::Spans => hop.timing.stages.iter().filter(|time| span_name(time.stage).is_some()).count(),
        Stages::Events => 0,
    };
    1 + u64::from(hop.timing.upstream.is_some()) + u64::try_from(shown).unwrap_or(u64::MAX)
}

/// The spans of one hop, the server span first. As many as [`count`] says.
pub(super) fn of_hop(hop: &Hop, stages: Stages) -> Vec<SpanData> {
    let mut spans = Vec::with_capacity(2 + hop.timing.stages.len());
    spans.push(server(hop, stages));
    if let Some(between) = hop.timing.upstream {
        spans.push(client(hop, between));
    }
    if stages == Stages::Spans {
        spans.extend(hop.timing.stages.iter().filter_map(|time| stage(hop, *time)));
    }
    spans
}

fn server(hop: &Hop, stages: Stages) -> SpanData {
    let mut span = blank(hop.trace, server_name(hop), SpanKind::Server);
    if let Some(parent) = hop.parent {
        span.parent_span_id = SpanId::from_bytes(parent.span_id);
        span.parent_span_is_remote = true;
    }
    between(&mut span, hop.timing.start, Duration::ZERO, hop.timing.total);
    span.links.links.extend(hop.link.map(|link| Link::with_context(remote(link))));
    span.attributes = Attributes::default()
        .protocol(hop)
        .caller(hop)
        .decision(hop)
        .outcome(hop.error_type(), hop.status)
        .text("url.scheme", "https")
        .0;
    if let Some(error) = hop.error_type().filter(|error| !error.is_callers()) {
        span.status = Status::error(error.to_text());
    }
    if stages == Stages::Events {
        span.events.events.extend(hop.timing.stages.iter().filter_map(|time| event(hop, *time)));
    }
    span
}

fn client(hop: &Hop, (from, to): (Duration, Duration)) -> SpanData {
    let context = TraceContext { span_id: hop.upstream.span, ..hop.trace };
    let mut span = blank(context, client_name(hop), SpanKind::Client);
    span.parent_span_id = SpanId::from_bytes(hop.trace.span_id);
    between(&mut span, hop.timing.start, from, to);
    let error = hop.error.filter(|error| error.is_upstream());
    let mut attributes = Attributes::default().protocol(hop).server(hop);
    attributes = attributes.outcome(error, hop.upstream.status);
    attributes = attributes.text("holdpoint.upstream", &hop.upstream.name);
    span.attributes = attributes.0;
    if let Some(error) = error {
        span.status = Status::error(error.to_text());
    }
    span
}

fn stage(hop: &Hop, time: StageTime) -> Option<SpanData> {
    let context = TraceContext { span_id: new_span_id(), ..hop.trace };
    let mut span = blank(context, Cow::Borrowed(span_name(time.stage)?), SpanKind::Internal);
    span.parent_span_id = SpanId::from_bytes(hop.trace.span_id);
    between(&mut span, hop.timing.start, time.start, time.end);
    if time.stage == Stage::Hold {
        span.attributes = Attributes::default().hold(hop).0;
    }
    Some(span)
}

fn event(hop: &Hop, time: StageTime) -> Option<Event> {
    let took = time.end.saturating_sub(time.start);
    let took = KeyValue::new("holdpoint.stage.duration", took.as_secs_f64());
    Some(Event::new(span_name(time.stage)?, hop.timing.start + time.start, vec![took], 0))
}

/// The one span of a moment in a hold's life.
pub(super) fn of_moment(moment: &HoldMoment) -> SpanData {
    let name = match moment.kind {
        MomentKind::Opened => "holdpoint.hold.opened",
        MomentKind::Decided => "holdpoint.hold.decided",
        MomentKind::Released => "holdpoint.hold.released",
    };
    let mut span = blank(moment.trace, Cow::Borrowed(name), SpanKind::Internal);
    if let Some(parent) = moment.parent {
        span.parent_span_id = SpanId::from_bytes(parent.span_id);
    }
    between(&mut span, moment.start, Duration::ZERO, moment.took);
    span.links.links.extend(moment.link.map(|link| Link::with_context(remote(link))));
    span.attributes = Attributes::default()
        .text("holdpoint.hold.id", &moment.hold)
        .some("holdpoint.agent.id", moment.agent.as_ref().map(|agent| agent.as_str()))
        .text("holdpoint.upstream", &moment.upstream)
        .text("holdpoint.rule", &moment.rule)
        .text("holdpoint.decision", moment.outcome.as_str())
        .list("holdpoint.hold.approvers", &moment.approvers)
        .0;
    span
}

/// The span name of a stage; none for those that the server and client spans already show.
fn span_name(stage: Stage) -> Option<&'static str> {
    Some(match stage {
        Stage::Accept | Stage::Forward | Stage::Answer => return None,
        Stage::Identify => "holdpoint.identify",
        Stage::Decode => "holdpoint.decode",
        Stage::Classify => "holdpoint.classify",
        Stage::Limit => "holdpoint.limit",
        Stage::Flow => "holdpoint.flow",
        Stage::Decide => "holdpoint.decide",
        Stage::Hold => "holdpoint.hold",
        Stage::Commit => "holdpoint.commit",
        Stage::Credential => "holdpoint.credential",
        Stage::Observe => "holdpoint.observe",
    })
}

fn server_name(hop: &Hop) -> Cow<'static, str> {
    let target = &hop.target;
    match hop.protocol {
        Protocol::Mcp(_) if !target.method.is_empty() => {
            named(&target.method, target.tool.as_deref().or(target.prompt.as_deref()))
        }
        _ => {
            named(http_method(&target.http_method).unwrap_or("HTTP"), target.route.as_deref().map(unqueried))
        }
    }
}

fn client_name(hop: &Hop) -> Cow<'static, str> {
    server_name(hop)
}

fn named(first: &str, second: Option<&str>) -> Cow<'static, str> {
    match second {
        Some(second) if !second.is_empty() => Cow::Owned(format!("{} {}", clean(first), clean(second))),
        _ => Cow::Owned(clean(first)),
    }
}

fn blank(context: TraceContext, name: Cow<'static, str>, span_kind: SpanKind) -> SpanData {
    SpanData {
        span_context: span_context(context, Origin::Local),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind,
        name,
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: SCOPE.clone(),
    }
}

fn between(span: &mut SpanData, start: SystemTime, from: Duration, to: Duration) {
    span.start_time = start.checked_add(from).unwrap_or(start);
    span.end_time = start.checked_add(to.max(from)).unwrap_or(start);
}

enum Origin {
    Local,
    Remote,
}

fn remote(context: TraceContext) -> SpanContext {
    span_context(context, Origin::Remote)
}

fn span_context(context: TraceContext, origin: Origin) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id),
        SpanId::from_bytes(context.span_id),
        TraceFlags::SAMPLED,
        matches!(origin, Origin::Remote),
        TraceState::default(),
    )
}

/// The attributes of a span; every text goes through [`clean`], and what is empty is left out.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(mut self, key: &'static str, value: &str) -> Attributes {
        if !value.is_empty() {
            self.0.push(KeyValue::new(key, clean(value)));
        }
        self
    }

    fn some(self, key: &'static str, value: Option<&str>) -> Attributes {
        self.text(key, value.unwrap_or(""))
    }

    fn number(mut self, key: &'static str, value: Option<i64>) -> Attributes {
        self.0.extend(value.map(|value| KeyValue::new(key, value)));
        self
    }

    fn list<T: Deref<Target = str>>(self, key: &'static str, values: &[T]) -> Attributes {
        let values: Vec<&str> = values.iter().map(|value| &**value).collect();
        self.text(key, &values.join(","))
    }

    fn protocol(self, hop: &Hop) -> Attributes {
        let target = &hop.target;
        let attributes = match hop.protocol {
            Protocol::Http => self,
            Protocol::Mcp(era) => self
                .text("mcp.method.name", &target.method)
                .some("gen_ai.tool.name", target.tool.as_deref())
                .some("gen_ai.prompt.name", target.prompt.as_deref())
                .some("gen_ai.operation.name", (&*target.method == "tools/call").then_some("execute_tool"))
                .some("jsonrpc.request.id", target.rpc_id.as_deref())
                .some("mcp.protocol.version", target.mcp_version.as_deref())
                .some("mcp.session.id", target.session.as_deref().filter(|_| era == Era::Legacy))
                .some("rpc.response.status_code", hop.rpc_code.map(|code| code.to_string()).as_deref()),
        };
        let method = http_method(&target.http_method);
        let method = method.or((!target.http_method.is_empty()).then_some("_OTHER"));
        attributes.some("http.request.method", method)
    }

    fn caller(self, hop: &Hop) -> Attributes {
        let caller = &hop.caller;
        let address = caller.address.map(|address| address.to_string());
        self.text("network.protocol.name", "http")
            .text("network.protocol.version", caller.http.as_str())
            .text("network.transport", "tcp")
            .some("client.address", address.as_deref())
            .number("client.port", caller.port.map(i64::from))
            .some("http.route", hop.target.route.as_deref().map(unqueried))
            .some("holdpoint.agent.id", caller.agent.as_ref().map(|agent| agent.as_str()))
            .some("holdpoint.run.id", caller.run.as_deref())
            .some("holdpoint.task.id", caller.task.as_deref())
            .number("http.request.body.size", i64::try_from(hop.request_bytes).ok())
            .number("http.response.body.size", i64::try_from(hop.response_bytes).ok())
    }

    fn server(self, hop: &Hop) -> Attributes {
        let upstream = &hop.upstream;
        let (transport, name, scheme) = match upstream.transport {
            Transport::Plain => ("tcp", "http", "http"),
            Transport::Tls => ("tcp", "http", "https"),
            Transport::Pipe => ("pipe", "", ""),
        };
        self.text("network.transport", transport)
            .text("network.protocol.name", name)
            .text("url.scheme", scheme)
            .some("server.address", upstream.address.as_deref().map(without_userinfo))
            .number("server.port", upstream.port.map(i64::from))
    }

    fn decision(self, hop: &Hop) -> Attributes {
        let decision = &hop.decision;
        self.text("holdpoint.record.id", &hop.record.to_string())
            .text("holdpoint.upstream", &hop.upstream.name)
            .some("holdpoint.class", decision.class.map(|class| class.as_str()))
            .number("holdpoint.consequence", decision.consequence.map(|level| i64::from(level.level())))
            .text("holdpoint.decision", decision.outcome.as_str())
            .some("holdpoint.would_be", decision.would_be.map(|would_be| would_be.as_str()))
            .text("holdpoint.rule", &decision.rule)
            .list("holdpoint.labels", &decision.labels)
            .list("holdpoint.findings", &decision.findings)
            .hold(hop)
    }

    fn hold(self, hop: &Hop) -> Attributes {
        self.some("holdpoint.hold.id", hop.decision.hold.as_deref())
            .list("holdpoint.hold.approvers", &hop.decision.approvers)
    }

    fn outcome(self, error: Option<ErrorType>, status: Option<u16>) -> Attributes {
        self.some("error.type", error.map(ErrorType::to_text).as_deref())
            .number("http.response.status_code", status.map(i64::from))
    }
}

/// The method, when it is one that the conventions know.
pub(super) fn http_method(method: &str) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method)
}

/// A route without a query or fragment, should one have strayed in.
fn unqueried(route: &str) -> &str {
    route.split(['?', '#']).next().unwrap_or("")
}

/// A host without user information, should one have strayed in.
fn without_userinfo(host: &str) -> &str {
    host.rsplit('@').next().unwrap_or("")
}

/// At most 256 characters, none of which can move a cursor, forge a line or turn the direction of text.
pub(super) fn clean(value: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let replaced = value.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c });
    replaced.take(VALUE_CHARS_MAX).collect()
}

/// The spans of a trace as an indented tree with durations, for people.
pub fn tree_text(spans: &[SeenSpan]) -> String {
    let known = |id: &str| spans.iter().any(|span| span.span_id == id);
    let mut roots: Vec<&SeenSpan> = spans.iter().filter(|span| !known(&span.parent_id)).collect();
    roots.sort_by_key(|span| span.start_ns);
    let mut text = String::new();
    // Invariant: each span is written at most once, so parents in a circle cannot make this endless.
    let mut left: Vec<&SeenSpan> = spans.iter().filter(|span| known(&span.parent_id)).collect();
    left.sort_by_key(|span| span.start_ns);
    for root in roots {
        branch(root, 0, &mut left, &mut text);
    }
    text
}

fn branch<'a>(span: &'a SeenSpan, depth: usize, left: &mut Vec<&'a SeenSpan>, text: &mut String) {
    line(span, depth, text);
    let of_span = |child: &&SeenSpan| child.parent_id == span.span_id;
    let (children, rest) = std::mem::take(left).into_iter().partition::<Vec<_>, _>(of_span);
    *left = rest;
    for child in children {
        branch(child, depth + 1, left, text);
    }
}

fn line(span: &SeenSpan, depth: usize, text: &mut String) {
    let took = Duration::from_nanos(span.end_ns.saturating_sub(span.start_ns));
    let label = format!("{:indent$}{}", "", span.name, indent = depth * 2);
    let _ = write!(text, "{label:<48} {:>9.3} ms  {}", took.as_secs_f64() * 1000.0, span.kind);
    for key in ["holdpoint.decision", "holdpoint.rule", "error.type"] {
        if let Some(value) = span.attributes.get(key) {
            let _ = write!(text, "  {}={value}", key.trim_start_matches("holdpoint."));
        }
    }
    text.push('\n');
}
