//! The page about tools: what the catalogue says of each, and whether its definition is still believed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::page::{self, Place, badge, columns, segment, text};
use super::{answer, shadow};
use crate::admin::Admin;
use crate::admin::body::Asked;
use crate::admin::caller::Caller;
use crate::admin::problem::Problem;
use crate::admin::tools::{self, Tool, Tools, Upstream, Wanted};

/// Tools of several upstreams on one page; beyond, only those that have drifted, and each upstream has its own page.
const SHOWN_MAX: usize = 200;
/// Characters of a digest that are shown in a row.
const DIGEST_CHARS: usize = 19;

/// `GET /tools`
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
    let Tools { upstreams } = tools::told(admin, caller, wanted).await?;
    let total: usize = upstreams.iter().map(|upstream| upstream.tools.len()).sum();
    let drifted: usize = upstreams.iter().map(drifted).sum();
    let title =
        wanted.upstream.as_deref().map_or_else(|| "Tools".to_owned(), |name| format!("Tools of {name}"));
    let content = html! {
        p class="count" {
            (total) " entries of " (upstreams.len()) " upstreams that you may see; "
            @match drifted {
                0 => "none has drifted",
                1 => { strong { "1 has drifted" } ": until it is pinned anew, it counts as external and of consequence 3 at least" },
                more => { strong { (more) " have drifted" } ": until they are pinned anew, each counts as external and of consequence 3 at least" },
            }
            "."
        }
        @for upstream in &upstreams { (section(upstream, upstreams.len() == 1 || total <= SHOWN_MAX)) }
        @if upstreams.is_empty() { p class="empty" { "There is no upstream that you may see." } }
    };
    Ok(page::page(admin, caller, Place::Tools, &title, &content).await)
}

fn drifted(upstream: &Upstream) -> usize {
    upstream.tools.iter().filter(|tool| !tool.sound).count()
}

fn section(upstream: &Upstream, whole: bool) -> Markup {
    let tools: Vec<&Tool> = upstream.tools.iter().filter(|tool| whole || !tool.sound).collect();
    html! {
        section class="upstream" {
            h2 { a href={ "/tools?upstream=" (segment(&upstream.name)) } { (text(&upstream.name)) } }
            p class="quiet" {
                (upstream.kind.to_uppercase()) ", " (upstream.boundary) " the organization"
                @if !upstream.environment.is_empty() { ", " (text(&upstream.environment)) }
                @if upstream.strict { ", strict: what the catalogue does not name is refused" }
                @if upstream.kind == "mcp" && !upstream.listed { ". Its list of tools is not known yet" }
                ". " a href={ "/records?upstream=" (segment(&upstream.name)) } { "Records" }
            }
            @if let Some(one) = &upstream.shadow { p class="problem" { "In shadow " (shadow::until(one)) "." } }
            @if tools.is_empty() {
                p class="empty" { @if upstream.tools.is_empty() { "The catalogue names nothing of it." } @else { (upstream.tools.len()) " entries, all sound." } }
            } @else { (table(&tools)) }
            @if !upstream.uncatalogued.is_empty() {
                p {
                    "Served, and not in the catalogue: "
                    @for (at, name) in upstream.uncatalogued.iter().enumerate() { @if at > 0 { ", " } span class="mono" { (text(name)) } }
                    ". " span class="quiet" {
                        @if upstream.strict { "Calls of them are refused." } @else { "Each counts as external and of consequence 3." }
                    }
                }
            }
        }
    }
}

fn table(tools: &[&Tool]) -> Markup {
    html! {
        table class="cards" {
            (columns(&["Tool", "Class", "Consequence", "Effects", "Definition"]))
            tbody {
                @for tool in tools {
                    tr {
                        th scope="row" { span class="mono" { (text(&tool.name)) } @if !tool.description.is_empty() { div class="quiet" { (text(&tool.description)) } } }
                        td data-label="Class" {
                            (tool.class)
                            @if tool.conditions > 0 { span class="quiet" title="conditions on the arguments may set another class or consequence" { " *" } }
                        }
                        td data-label="Consequence" { (tool.consequence) @if !tool.reversible && tool.class != "read" { span class="quiet" { " not reversible" } } }
                        td data-label="Effects" { (tool.effects.join(", ")) }
                        td data-label="Definition" { (standing(tool)) }
                    }
                }
            }
        }
        @if tools.iter().any(|tool| tool.conditions > 0) { p class="quiet" { "* conditions on the call's arguments may set another class or consequence." } }
    }
}

/// How a tool's definition stands, with the difference where it has drifted.
fn standing(tool: &Tool) -> Markup {
    if tool.kind != "tool" {
        return html! { span class="quiet" { "an operation has none" } };
    }
    html! {
        @match (tool.sound, tool.held_to.as_str()) {
            (true, "pin") => { (badge("sound")) " pinned " (digest(tool.pin.as_deref())) }
            (true, "first-sight") => { (badge("sound")) " as first seen, not pinned " (digest(tool.first.as_deref())) }
            (true, _) => { span class="quiet" { "not seen yet, not pinned" } }
            (false, _) => {
                (badge("drifted")) " it " @if let Some(why) = &tool.why { (text(why)) } "."
                @if let Some(difference) = &tool.difference { (lines(difference)) }
                @else if tool.served.is_some() { div class="quiet" { "The words of one of the two definitions are not kept here: run " code { "holdpoint catalog diff" } "." } }
            }
        }
    }
}

fn digest(digest: Option<&str>) -> Markup {
    let whole = digest.unwrap_or_default();
    html! { span class="mono quiet" title=(whole) { (whole.get(..DIGEST_CHARS).unwrap_or(whole)) "…" } }
}

/// A difference: what each line does is said by its first character, and by colour.
fn lines(difference: &str) -> Markup {
    html! {
        details class="difference" open {
            summary { @if difference.lines().any(|line| line.starts_with(['+', '-'])) { "How what is served differs" } @else { "What is served" } }
            pre tabindex="0" {
                @for line in difference.lines() {
                    @match line.as_bytes().first() {
                        Some(b'+') => ins { (text(line)) },
                        Some(b'-') => del { (text(line)) },
                        _ => (text(line)),
                    }
                    "\n"
                }
            }
        }
    }
}
