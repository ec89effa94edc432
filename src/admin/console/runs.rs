//! The pages about runs: what each has read, what was found in what it sends, and letting a frozen one go on.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::page::{self, Given, Ordering, Place, REASON, badge, columns, path, segment, text, time};
use super::path::{Sink, picture};
use super::{answer, holds, records};
use crate::admin::Admin;
use crate::admin::body::{Asked, Filled};
use crate::admin::caller::Caller;
use crate::admin::holds as held;
use crate::admin::problem::{Problem, see_other};
use crate::admin::records as told;
use crate::admin::runs::{self, Label, Run, Shown, WHOLE, Whose};
use crate::identify::svid;
use crate::store::holds::Wanted;

/// Runs on one page.
const SHOWN_MAX: usize = 200;
/// Holds that the page of a run shows.
const HOLDS_MAX: usize = 20;
/// Records of its agent among which those of a run are looked for.
const LOOKED_THROUGH: usize = 200;
/// Records that the page of a run shows.
const LAST_RECORDS: usize = 20;
/// Characters of a run's id that a row shows.
const ID_CHARS: usize = 28;

/// Which runs are shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Find {
    /// Of this agent.
    agent: String,
}

/// `GET /runs`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    asked: Result<Asked<Find>, Problem>,
) -> Response {
    let made = match asked {
        Ok(Asked(find)) => all(&admin, &caller, &find).await,
        Err(problem) => Err(problem),
    };
    answer(&admin, &caller, made).await
}

async fn all(admin: &Admin, caller: &Caller, find: &Find) -> Result<Markup, Problem> {
    let mut runs = runs::seen(admin, caller);
    if !find.agent.trim().is_empty() {
        let (agent, _) = admin.agent(find.agent.trim())?;
        runs.retain(|run| run.agent == agent.as_str());
    }
    let frozen = runs.iter().filter(|run| run.frozen.is_some()).count();
    let content = html! {
        (page::search("/runs", &html! { label { "Agent" input name="agent" value=(find.agent) placeholder="agent/support"; } }))
        p class="count" role="status" {
            (runs.len()) @if runs.len() == 1 { " run is" } @else { " runs are" } " remembered that you may see, "
            @match frozen { 0 => "none is frozen.", 1 => { strong { "1 is frozen" } "." }, more => { strong { (more) " are frozen" } "." } }
            @if runs.len() > SHOWN_MAX { " These are the last " (SHOWN_MAX) "." }
        }
        @if runs.is_empty() { p class="empty" { "No run is remembered. What was read long ago counts no more." } } @else { (table(&runs)) }
    };
    Ok(page::page(admin, caller, Place::Runs, "Runs", &content).await)
}

fn table(runs: &[Run]) -> Markup {
    html! {
        table class="cards" {
            (columns(&["Run", "Agent", "Labels", "Stopped", "Calls", "Last call", "State"]))
            tbody {
                @for run in runs.iter().take(SHOWN_MAX) {
                    tr {
                        th scope="row" { a href=(link(run)) { (title(run)) } }
                        td data-label="Agent" { (text(path(&run.agent))) }
                        td data-label="Labels" { (labels(&run.labels)) }
                        td data-label="Stopped" { (run.stopped) }
                        td data-label="Calls" { (run.calls) }
                        td data-label="Last call" { @if let Some(last) = &run.last { (time(last)) } }
                        td data-label="State" { @if run.frozen.is_some() { (badge("frozen")) } @else { "goes on" } }
                    }
                }
            }
        }
    }
}

fn labels(labels: &[Label]) -> Markup {
    html! { @for label in labels { (badge(&label.label)) " " } }
}

fn link(run: &Run) -> String {
    format!("/runs/{}?agent={}", segment(&run.id), segment(&run.agent))
}

/// The id of a run, short enough for a row.
fn title(run: &Run) -> Markup {
    if run.id == WHOLE {
        return html! { "the agent as a whole" };
    }
    let end = run.id.char_indices().nth(ID_CHARS).map(|(at, _)| at);
    html! {
        span class="mono" title=(crate::admin::literal::plain(&run.id)) { (text(end.and_then(|end| run.id.get(..end)).unwrap_or(&run.id))) @if end.is_some() { "…" } }
    }
}

/// `GET /runs/{id}`
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(whose): Query<Whose>,
) -> Response {
    answer(&admin, &caller, one(&admin, &caller, &id, &whose).await).await
}

async fn one(admin: &Admin, caller: &Caller, id: &str, whose: &Whose) -> Result<Markup, Problem> {
    let Shown { run, findings } = runs::shown(admin, caller, id, whose).await?;
    let now = admin.gate().now().await?;
    let wanted = Wanted { states: Vec::new(), agent: svid::parse_id(&run.agent).ok() };
    let mut held = held::seen(admin, caller, wanted).await?;
    held.retain(|hold| run.id == WHOLE || hold.about.run == run.id);
    held.sort_by_key(|hold| std::cmp::Reverse(hold.opened));
    let lines = holds::lines(admin, caller, &held, HOLDS_MAX).await?;
    let last = last(admin, caller, &run).await?;
    let content = html! {
        p class="state" {
            @match &run.frozen {
                Some(at) => { (badge("frozen")) " since " (time(at)) ": none of its calls goes until a person has looked." },
                None => { (badge("active")) " " (run.stopped) " of its calls were stopped by what was found in them." },
            }
        }
        @if run.frozen.is_some() { (order(&run, &page::token(admin, caller))) }
        dl {
            div { dt { "Run" } dd class="mono id" { (text(&run.id)) } }
            div { dt { "Agent" } dd { a href={ "/agents/" (segment(&run.agent)) } { (text(&run.agent)) } } }
            div { dt { "Calls" } dd { (run.calls) " since the gateway started" } }
            div { dt { "Last call" } dd { @if let Some(last) = &run.last { (time(last)) } @else { "–" } } }
        }
        h2 { "What it has read" }
        @if run.labels.is_empty() { p class="quiet" { "Nothing confidential, and nothing of outsiders." } }
        ul class="plain" {
            @for label in &run.labels {
                li { (badge(&label.label)) " last " (time(&label.at)) @if let Some(record) = &label.record { " by " a href={ "/records/" (segment(record)) } { "this call" } } }
            }
        }
        h2 { "Where it went, or would have gone" }
        @if findings.is_empty() { p class="quiet" { "Nothing was found in its calls." } }
        @for found in &findings {
            section class="found" {
                p { (time(&found.at)) " " a href={ "/records/" (segment(&found.record)) } { (text(&found.upstream)) "." (text(&found.tool)) } }
                (picture(&found.findings, &Sink { upstream: &found.upstream, tool: &found.tool, destinations: &[] }))
            }
        }
        @if !lines.is_empty() { h2 { "Its held calls" } (holds::table(&lines, holds::Which::Ended, now)) }
        h2 { "Its last records" }
        (records::table(&last))
        p { a href={ "/records?agent=" (segment(&run.agent)) } { "All records of its agent" } }
    };
    let title = if run.id == WHOLE {
        format!("All of {}", path(&run.agent))
    } else {
        format!("Run of {}", path(&run.agent))
    };
    Ok(page::page(admin, caller, Place::Runs, &title, &content).await)
}

/// The last records of a run, of those that its agent has.
async fn last(admin: &Admin, caller: &Caller, run: &Run) -> Result<Vec<told::Record>, Problem> {
    let wanted = told::Wanted {
        agent: Some(run.agent.clone()),
        limit: Some(LOOKED_THROUGH),
        ..told::Wanted::default()
    };
    let mut records = told::page(admin, caller, &wanted).await?.records;
    records.retain(|record| run.id == WHOLE || record.run == run.id);
    records.truncate(LAST_RECORDS);
    Ok(records)
}

/// The form by which a frozen run is let go on.
fn order(run: &Run, token: &str) -> Markup {
    let to = format!("/runs/{}/unfreeze?agent={}", segment(&run.id), segment(&run.agent));
    let (folded, button) = ("Let it go on", html! { "Let it go on" });
    page::order(&Ordering { folded, reason: REASON, to, button, class: "resume" }, token)
}

/// `POST /runs/{id}/unfreeze`
pub(super) async fn unfreeze(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(whose): Query<Whose>,
    filled: Result<Filled<Given>, Problem>,
) -> Response {
    let done = async {
        let reason = page::given(&admin, &caller, filled)?;
        runs::unfrozen(&admin, &caller, &id, &whose, &reason).await
    };
    match done.await {
        Ok(done) => see_other(&link(&done.run)),
        Err(problem) => answer(&admin, &caller, Err(problem)).await,
    }
}
