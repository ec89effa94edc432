//! The pages about records: a search, and the whole story of one call.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::answer;
use super::page::{self, Place, badge, choice, columns, path, segment, text, time, would_be};
use crate::admin::Admin;
use crate::admin::body::Asked;
use crate::admin::caller::Caller;
use crate::admin::literal;
use crate::admin::problem::Problem;
use crate::admin::records::{self as told, Call, Record, Wanted};

/// What a call may have come to, as the search offers it.
const OUTCOMES: [&str; 10] = [
    "",
    "allowed",
    "denied",
    "held",
    "limited",
    "malformed",
    "unavailable",
    "executed",
    "tool-error",
    "unknown",
];

/// What would have become of calls that shadow let pass, as the search offers it.
const WOULD_BE: [&str; 5] = ["", "any", "held", "denied", "limited"];

/// `GET /records`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    asked: Result<Asked<Wanted>, Problem>,
) -> Response {
    let made = match asked {
        Ok(Asked(wanted)) => found(&admin, &caller, &wanted).await,
        Err(problem) => Err(problem),
    };
    answer(&admin, &caller, made).await
}

async fn found(admin: &Admin, caller: &Caller, wanted: &Wanted) -> Result<Markup, Problem> {
    let records = told::page(admin, caller, wanted).await?;
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    let content = html! {
        (page::search("/records", &html! {
            label { "Agent" input name="agent" value=(given(&wanted.agent)) placeholder="agent/support"; }
            label { "Upstream" input name="upstream" value=(given(&wanted.upstream)); }
            label { "Tool" input name="tool" value=(given(&wanted.tool)); }
            (choice("Outcome", "outcome", (&OUTCOMES, &given(&wanted.outcome)), page::or_any))
            (choice("In shadow", "would_be", (&WOULD_BE, &given(&wanted.would_be)), shadowed))
            label { "Trace" input name="trace" value=(given(&wanted.trace)) placeholder="32 hexadecimal digits" size="30"; }
            @if let Some(lift) = &wanted.lift { input type="hidden" name="lift" value=(lift); }
            label { "From (UTC)" input name="from" value=(given(&wanted.from)) placeholder="2026-11-20T12:00"; }
            label { "To (UTC)" input name="to" value=(given(&wanted.to)) placeholder="2026-11-20T13:00"; }
        }))
        @if records.behind > 0 {
            p class="problem" role="status" { "The index is " (records.behind) " records behind the audit: the newest may be missing here." }
        }
        @if let Some(lift) = wanted.lift.as_deref().filter(|lift| !lift.is_empty()) {
            p { "About the emergency lift " span class="mono" { (text(lift)) } ", or decided by it. " a href={ "/breakglass#" (segment(lift)) } { "The lift" } ", " a href="/records" { "all records" } }
        }
        (table(&records.records))
        @if let Some(cursor) = records.cursor {
            p { a rel="next" href={ "/records?" (query(wanted)) "cursor=" (cursor) } { "Older records" } }
        }
    };
    Ok(page::page(admin, caller, Place::Records, "Records", &content).await)
}

/// What would have become of calls, as the search says it.
fn shadowed(would_be: &str) -> String {
    match would_be {
        "" => "–".to_owned(),
        "any" => "would be stopped".to_owned(),
        word => format!("would be {word}"),
    }
}

/// A search's query again, without its cursor.
fn query(wanted: &Wanted) -> String {
    let pairs = [
        ("agent", &wanted.agent),
        ("tool", &wanted.tool),
        ("upstream", &wanted.upstream),
        ("outcome", &wanted.outcome),
        ("would_be", &wanted.would_be),
        ("lift", &wanted.lift),
        ("trace", &wanted.trace),
        ("from", &wanted.from),
        ("to", &wanted.to),
    ];
    let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    given
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}&", segment(value)))
        .collect()
}

/// Records, a row each.
pub(super) fn table(records: &[Record]) -> Markup {
    if records.is_empty() {
        return html! { p class="empty" { "No records." } };
    }
    html! {
        table class="cards" {
            (columns(&["Time", "Type", "Agent", "Called", "Outcome", "Rule", "Why"]))
            tbody {
                @for record in records {
                    tr {
                        th scope="row" { a href={ "/records/" (record.call) } { (time(&record.at)) } }
                        td data-label="Type" class="word" { (text(&record.kind)) }
                        td data-label="Agent" class="name" { (text(path(&record.agent))) }
                        td data-label="Called" class="name" { (called(&record.upstream, &record.tool)) @if !record.class.is_empty() { " " span class="quiet" { (text(&record.class)) } } }
                        td data-label="Outcome" { @if !record.outcome.is_empty() { (badge(&record.outcome)) } @if !record.would_be.is_empty() { " " (would_be(&record.would_be)) } }
                        td data-label="Rule" class="rule" { (text(&record.rule)) }
                        td data-label="Why" class="why" { @if !record.reason.is_empty() { div title=(literal::plain(&record.reason)) { (text(&record.reason)) } } }
                    }
                }
            }
        }
    }
}

fn called(upstream: &str, tool: &str) -> Markup {
    html! {
        @if !upstream.is_empty() || !tool.is_empty() {
            span class="mono" { (text(upstream)) @if !tool.is_empty() { wbr; "." (text(tool)) } }
        }
    }
}

/// `GET /records/{id}`
pub(super) async fn story(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Response {
    answer(&admin, &caller, whole(&admin, &caller, &id).await).await
}

async fn whole(admin: &Admin, caller: &Caller, id: &str) -> Result<Markup, Problem> {
    let story = told::told(admin, caller, id).await?;
    let title = match story.calls.as_slice() {
        [] => "Record".to_owned(),
        [call] => format!("{}.{}", call.upstream, call.tool).trim_matches('.').to_owned(),
        calls => format!("{} calls of one trace", calls.len()),
    };
    let title = if title.is_empty() { "Record".to_owned() } else { title };
    let content = html! {
        @for call in &story.calls { (verdict(call)) }
        (related(&story.records))
        @if story.withheld > 0 {
            p class="problem" { (story.withheld) " records of agents that you may not see are not shown." }
        }
        h2 { "Records" }
        @for record in &story.records { (line(record)) }
        @for missing in &story.missing { p class="problem" { (text(&missing.id)) ": " (text(&missing.why)) } }
    };
    Ok(page::page(admin, caller, Place::Records, &title, &content).await)
}

/// The holds and the runs that the records of a story name.
fn related(records: &[Value]) -> Markup {
    let named = |name: &str| {
        let agent = |record: &Value| record.pointer("/agent/id").and_then(Value::as_str).map(str::to_owned);
        let texts = records.iter().filter_map(|record| {
            let text = record.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())?;
            Some((text.to_owned(), agent(record)?))
        });
        texts.collect::<BTreeSet<(String, String)>>()
    };
    let (holds, runs) = (named("hold"), named("run"));
    html! {
        @if !holds.is_empty() || !runs.is_empty() {
            ul class="plain" {
                @for (hold, _) in &holds { li { "Hold " a class="mono" href={ "/holds/" (segment(hold)) } { (text(hold)) } } }
                @for (run, agent) in &runs { li { "Run " a class="mono" href={ "/runs/" (segment(run)) "?agent=" (segment(agent)) } { (text(run)) } } }
            }
        }
    }
}

/// What was decided about a call, by which rule and evidence, and who answers for the agent.
fn verdict(call: &Call) -> Markup {
    let policies = call.policies.join(", ");
    let shadowed = call.would_be.as_ref();
    let would = |name: &str| shadowed.and_then(|would_be| would_be.get(name)).and_then(Value::as_str);
    let rows: [(&str, &str); 6] = [
        ("Rule", &call.rule),
        ("Owner", &call.owner),
        ("Team", &call.team),
        ("Stopped at", call.stage.as_deref().unwrap_or_default()),
        ("Ended", call.ended.as_deref().unwrap_or_default()),
        ("Policies", &policies),
    ];
    html! {
        section class="verdict" {
            p class="state" { (badge(&call.outcome)) " " (called(&call.upstream, &call.tool)) }
            @if !call.reason.is_empty() && would("detail") != Some(&call.reason) { p { (text(&call.reason)) } }
            @if let Some(outcome) = would("outcome") {
                p class="problem" {
                    "It passed because of shadow. Enforced, it " (would_be(outcome)) " by " strong { (text(would("rule").unwrap_or_default())) }
                    ": " (text(would("detail").unwrap_or_default()))
                }
            }
            dl {
                div { dt { "Agent" } dd { a href={ "/agents/" (segment(&call.agent)) } { (text(&call.agent)) } } }
                @for (name, value) in rows { @if !value.is_empty() { div { dt { (name) } dd { (text(value)) } } } }
                @if let Some(trace) = &call.trace_id {
                    div { dt { "Trace" } dd class="mono" { a href={ "/records?trace=" (trace) } { (trace) } } }
                }
                div { dt { "Record" } dd class="mono id" { (text(&call.id)) } }
            }
            h2 class="minor" { "Evidence" }
            dl {
                @for (name, value) in call.evidence.as_object().into_iter().flatten() {
                    div { dt { (text(name)) } dd { (evidence(value)) } }
                }
            }
        }
    }
}

fn evidence(value: &Value) -> Markup {
    match value {
        Value::Array(items) if items.is_empty() => html! { "none" },
        Value::Array(items) => {
            html! { @for (at, item) in items.iter().enumerate() { @if at > 0 { ", " } (evidence(item)) } }
        }
        Value::String(word) => text(word),
        other => text(&other.to_string()),
    }
}

/// One record as it is in the audit.
fn line(record: &Value) -> Markup {
    let member = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
    let pretty = serde_json::to_string_pretty(record).unwrap_or_default();
    html! {
        details class="record" {
            summary { (time(member("ts"))) " " strong { (text(member("type"))) } " " span class="quiet mono" { (text(member("id"))) } }
            pre tabindex="0" { @for line in pretty.lines() { (text(line)) "\n" } }
        }
    }
}
