//! What is in shadow, said on every page: whoever looks at decisions must know which of them stop nothing.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::answer;
use super::page::{self, Place, columns, segment, text, time, would_be};
use crate::admin::Admin;
use crate::admin::caller::Caller;
use crate::admin::problem::Problem;
use crate::admin::shadow::{self as told, Count, InShadow, Shadowed};

/// Lines that a banner shows unfolded.
const UNFOLDED_MAX: usize = 3;

/// The banner; nothing where everything is enforced.
pub(super) fn banner(shadow: &InShadow) -> Markup {
    if shadow.is_empty() {
        return html! {};
    }
    let lines = shadow.upstreams.len() + shadow.policies.len();
    html! {
        aside class="shadow" aria-label="In shadow" {
            details open[lines <= UNFOLDED_MAX] {
                summary { strong { "Not everything is enforced: " } (count(shadow)) " in shadow" }
                (list(shadow))
                p { a href="/shadow" { "What would have been stopped in the last day" } }
            }
        }
    }
}

/// `GET /shadow`
pub(super) async fn show(State(admin): State<Arc<Admin>>, caller: Caller) -> Response {
    answer(&admin, &caller, passed(&admin, &caller).await).await
}

async fn passed(admin: &Admin, caller: &Caller) -> Result<Markup, Problem> {
    let told = told::told(admin, caller).await?;
    let content = html! {
        @if told.in_force.is_empty() { p { "Nothing is in shadow now: every decision is enforced." } }
        h2 { "What would have been stopped since " (time(&told.since)) }
        @if told.would_be.is_empty() { p class="empty" { "No call of an agent that you may see would have been stopped." } }
        @else { (table(&told.would_be)) }
        @if told.more { p class="problem" { "There were more than can be counted: these are the newest." } }
        p { a href="/records?would_be=any" { "Each of them, the newest first" } }
    };
    Ok(page::page(admin, caller, Place::Nowhere, "In shadow", &content).await)
}

fn table(counts: &[Count]) -> Markup {
    html! {
        table class="cards" {
            (columns(&["Upstream", "Rule", "Outcome", "Calls", "Agents"]))
            tbody {
                @for count in counts {
                    tr {
                        th scope="row" { a href={ "/records?would_be=" (count.outcome) "&upstream=" (segment(&count.upstream)) } { (text(&count.upstream)) } }
                        td data-label="Rule" { (text(&count.rule)) }
                        td data-label="Outcome" { (would_be(&count.outcome)) }
                        td data-label="Calls" { (count.calls) }
                        td data-label="Agents" { (count.agents) }
                    }
                }
            }
        }
    }
}

/// What is in shadow, a line each.
pub(super) fn list(shadow: &InShadow) -> Markup {
    html! {
        ul class="plain" {
            @for one in &shadow.upstreams {
                li {
                    "Calls to " a href={ "/tools?upstream=" (segment(&one.upstream)) } { (text(&one.upstream)) }
                    " pass for " (whom(one)) ", but for those of consequence 4, " (until(one)) "."
                }
            }
            @for policy in &shadow.policies {
                li {
                    "Policy " span class="mono" { (text(&policy.policy)) } " stops nothing but calls of consequence 4, "
                    @match (&policy.until, &policy.last_day, policy.days_left) {
                        (Some(until), Some(last_day), Some(left)) => { (to_the_end_of(until, last_day, left)) "." }
                        _ => { "and no end was said." }
                    }
                }
            }
        }
    }
}

fn count(shadow: &InShadow) -> String {
    let many = |count: usize, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let (upstreams, policies) = (shadow.upstreams.len(), shadow.policies.len());
    let parts = [many(upstreams, "upstream", "upstreams"), many(policies, "policy", "policies")];
    let verb = if upstreams + policies == 1 { "is" } else { "are" };
    format!("{} {verb}", parts.into_iter().flatten().collect::<Vec<_>>().join(" and "))
}

fn whom(one: &Shadowed) -> Markup {
    html! {
        @if one.groups.is_empty() { "all agents" } @else {
            "agents of " @for (at, group) in one.groups.iter().enumerate() { @if at > 0 { ", " } b { (text(group)) } }
        }
    }
}

/// Until when, and how long that is.
pub(super) fn until(one: &Shadowed) -> Markup {
    to_the_end_of(&one.until, &one.last_day, one.days_left)
}

fn to_the_end_of(until: &str, last_day: &str, days_left: i64) -> Markup {
    html! {
        "to the end of " time datetime=(last_day) title=(until) { (last_day) } " UTC ("
        @match days_left { 0 => "today is the last day", 1 => "1 day left", days => { (days) " days left" } }
        ")"
    }
}
