//! Turns a hop into the spans of OpenTelemetry, and spans into a tree for people.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Deref;
use std::time::{Duration, SystemTime};

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::Stages;
use super::hop::{ErrorType, HoldMoment, Hop, MomentKind, StageTime, Transport};
use super::otlp::{Batch, Kind, Span};
use super::sink::SeenSpan;
use crate::call::{Era, Protocol, Stage, TraceContext};

/// The longest attribute value, in characters.
const VALUE_CHARS_MAX: usize = 256;

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

/// Writes the spans of one hop, the server span first. As many as [`count`] says.
pub(super) fn of_hop(hop: &Hop, stages: Stages, batch: &mut Batch) {
    let name = name(hop);
    server(hop, &name, stages, batch);
    if let Some(between) = hop.timing.upstream {
        client(hop, &name, between, batch);
    }
    if stages == Stages::Spans {
        hop.timing.stages.iter().for_each(|time| stage(hop, *time, batch));
    }
}

fn server(hop: &Hop, name: &str, stages: Stages, batch: &mut Batch) {
    batch.span(hop.trace, name, Kind::Server, |span| {
        match hop.parent {
            Some(parent) => span.parent(&parent.span_id, true),
            None => span.root(),
        }
        between(span, hop.timing.start, Duration::ZERO, hop.timing.total);
        if let Some(link) = hop.link {
            span.link(link);
        }
        let error = hop.error_type();
        let mut attributes = Attributes(span);
        attributes.protocol(hop);
        attributes.caller(hop);
        attributes.decision(hop);
        attributes.outcome(error, hop.status);
        attributes.text("url.scheme", "https");
        if let Some(error) = error.filter(|error| !error.is_callers()) {
            span.error(&error.to_text());
        }
        if stages == Stages::Events {
            hop.timing.stages.iter().for_each(|time| event(hop, *time, span));
        }
    });
}

fn client(hop: &Hop, name: &str, (from, to): (Duration, Duration), batch: &mut Batch) {
    let context = TraceContext { span_id: hop.upstream.span, ..hop.trace };
    batch.span(context, name, Kind::Client, |span| {
        span.parent(&hop.trace.span_id, false);
        between(span, hop.timing.start, from, to);
        let error = hop.error.filter(|error| error.is_upstream());
        let mut attributes = Attributes(span);
        attributes.protocol(hop);
        attributes.server(hop);
        attributes.outcome(error, hop.upstream.status);
        attributes.text("holdpoint.upstream", &hop.upstream.name);
        if let Some(error) = error {
            span.error(&error.to_text());
        }
    });
}

fn stage(hop: &Hop, time: StageTime, batch: &mut Batch) {
    let Some(name) = span_name(time.stage) else { return };
    let context = TraceContext { span_id: new_span_id(), ..hop.trace };
    batch.span(context, name, Kind::Internal, |span| {
        span.parent(&hop.trace.span_id, false);
        between(span, hop.timing.start, time.start, time.end);
        if time.stage == Stage::Hold {
            Attributes(span).hold(hop);
        }
    });
}

fn event(hop: &Hop, time: StageTime, span: &mut Span<'_>) {
    let Some(name) = span_name(time.stage) else { return };
    let took = time.end.saturating_sub(time.start).as_secs_f64();
    span.event(name, after(hop.timing.start, time.start), "holdpoint.stage.duration", took);
}

/// Writes the one span of a moment in a hold's life.
pub(super) fn of_moment(moment: &HoldMoment, batch: &mut Batch) {
    let name = match moment.kind {
        MomentKind::Opened => "holdpoint.hold.opened",
        MomentKind::Decided => "holdpoint.hold.decided",
        MomentKind::Released => "holdpoint.hold.released",
        MomentKind::Ended => "holdpoint.hold.ended",
    };
    batch.span(moment.trace, name, Kind::Internal, |span| {
        match moment.parent {
            Some(parent) => span.parent(&parent.span_id, false),
            None => span.root(),
        }
        between(span, moment.start, Duration::ZERO, moment.took);
        if let Some(link) = moment.link {
            span.link(link);
        }
        let mut attributes = Attributes(span);
        attributes.text("holdpoint.hold.id", &moment.hold);
        attributes.some("holdpoint.agent.id", moment.agent.as_ref().map(|agent| agent.as_str()));
        attributes.text("holdpoint.upstream", &moment.upstream);
        attributes.text("holdpoint.rule", &moment.rule);
        attributes.text("holdpoint.decision", moment.outcome.as_str());
        attributes.list("holdpoint.hold.approvers", &moment.approvers);
    });
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

/// The name of the server and the client span: what was asked for, in the words of its protocol.
fn name(hop: &Hop) -> Cow<'_, str> {
    let target = &hop.target;
    let (first, second) = match hop.protocol {
        Protocol::Mcp(_) if !target.method.is_empty() => {
            (&*target.method, target.tool.as_deref().or(target.prompt.as_deref()))
        }
        _ => (http_method(&target.http_method).unwrap_or("HTTP"), target.route.as_deref().map(unqueried)),
    };
    match second {
        Some(second) if !second.is_empty() => Cow::Owned(format!("{} {}", clean(first), clean(second))),
        _ => clean(first),
    }
}

fn between(span: &mut Span<'_>, start: SystemTime, from: Duration, to: Duration) {
    span.between(after(start, from), after(start, to.max(from)));
}

fn after(start: SystemTime, offset: Duration) -> SystemTime {
    start.checked_add(offset).unwrap_or(start)
}

/// The attributes of a span; every text goes through [`clean`], and what is empty is left out.
struct Attributes<'a, 'b>(&'a mut Span<'b>);

impl Attributes<'_, '_> {
    fn text(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.0.text(key, &clean(value));
        }
    }

    fn some(&mut self, key: &'static str, value: Option<&str>) {
        self.text(key, value.unwrap_or(""));
    }

    fn number(&mut self, key: &'static str, value: Option<i64>) {
        if let Some(value) = value {
            self.0.integer(key, value);
        }
    }

    fn list<T: Deref<Target = str>>(&mut self, key: &'static str, values: &[T]) {
        if !values.is_empty() {
            let values: Vec<&str> = values.iter().map(|value| &**value).collect();
            self.text(key, &values.join(","));
        }
    }

    fn protocol(&mut self, hop: &Hop) {
        let target = &hop.target;
        if let Protocol::Mcp(era) = hop.protocol {
            self.text("mcp.method.name", &target.method);
            self.some("gen_ai.tool.name", target.tool.as_deref());
            self.some("gen_ai.prompt.name", target.prompt.as_deref());
            self.some("gen_ai.operation.name", (&*target.method == "tools/call").then_some("execute_tool"));
            self.some("jsonrpc.request.id", target.rpc_id.as_deref());
            self.some("mcp.protocol.version", target.mcp_version.as_deref());
            self.some("mcp.session.id", target.session.as_deref().filter(|_| era == Era::Legacy));
            self.some("rpc.response.status_code", hop.rpc_code.map(|code| code.to_string()).as_deref());
        }
        let method = http_method(&target.http_method);
        self.some("http.request.method", method.or((!target.http_method.is_empty()).then_some("_OTHER")));
    }

    fn caller(&mut self, hop: &Hop) {
        let caller = &hop.caller;
        self.text("network.protocol.name", "http");
        self.text("network.protocol.version", caller.http.as_str());
        self.text("network.transport", "tcp");
        self.some("client.address", caller.address.map(|address| address.to_string()).as_deref());
        self.number("client.port", caller.port.map(i64::from));
        self.some("http.route", hop.target.route.as_deref().map(unqueried));
        self.some("holdpoint.agent.id", caller.agent.as_ref().map(|agent| agent.as_str()));
        self.some("holdpoint.run.id", caller.run.as_deref());
        self.some("holdpoint.task.id", caller.task.as_deref());
        self.number("http.request.body.size", i64::try_from(hop.request_bytes).ok());
        self.number("http.response.body.size", i64::try_from(hop.response_bytes).ok());
    }

    fn server(&mut self, hop: &Hop) {
        let upstream = &hop.upstream;
        let (transport, name, scheme) = match upstream.transport {
            Transport::Plain => ("tcp", "http", "http"),
            Transport::Tls => ("tcp", "http", "https"),
            Transport::Pipe => ("pipe", "", ""),
        };
        self.text("network.transport", transport);
        self.text("network.protocol.name", name);
        self.text("url.scheme", scheme);
        self.some("server.address", upstream.address.as_deref().map(without_userinfo));
        self.number("server.port", upstream.port.map(i64::from));
    }

    fn decision(&mut self, hop: &Hop) {
        let decision = &hop.decision;
        self.text("holdpoint.record.id", &hop.record.to_string());
        self.text("holdpoint.upstream", &hop.upstream.name);
        self.some("holdpoint.class", decision.class.map(|class| class.as_str()));
        self.number("holdpoint.consequence", decision.consequence.map(|level| i64::from(level.level())));
        self.text("holdpoint.decision", decision.outcome.as_str());
        self.some("holdpoint.would_be", decision.would_be.map(|would_be| would_be.as_str()));
        self.text("holdpoint.rule", &decision.rule);
        self.list("holdpoint.labels", &decision.labels);
        self.list("holdpoint.findings", &decision.findings);
        self.list("holdpoint.breakglass.id", &decision.break_glass);
        self.hold(hop);
    }

    fn hold(&mut self, hop: &Hop) {
        self.some("holdpoint.hold.id", hop.decision.hold.as_deref());
        self.list("holdpoint.hold.approvers", &hop.decision.approvers);
    }

    fn outcome(&mut self, error: Option<ErrorType>, status: Option<u16>) {
        self.some("error.type", error.map(ErrorType::to_text).as_deref());
        self.number("http.response.status_code", status.map(i64::from));
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
pub(super) fn clean(value: &str) -> Cow<'_, str> {
    if value.len() <= VALUE_CHARS_MAX && value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Cow::Borrowed(value);
    }
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
