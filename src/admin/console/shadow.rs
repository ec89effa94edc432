//! What is in shadow, said on every page: whoever looks at decisions must know which of them stop nothing.

use maud::{Markup, html};

use super::page::{segment, text};
use crate::admin::shadow::{InShadow, Shadowed};

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
                    " pass for " (whom(one)) ", but for those of consequence 4, " (until(one)) ". "
                    a href={ "/records?would_be=any&upstream=" (segment(&one.upstream)) } { "What would have been stopped" }
                }
            }
            @for policy in &shadow.policies {
                li {
                    "Policy " span class="mono" { (text(policy)) } " stops nothing, and has no end date. "
                    a href="/records?would_be=any" { "What would have been stopped" }
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
    html! {
        "to the end of " time datetime=(one.last_day) title=(one.until) { (one.last_day) } " UTC ("
        @match one.days_left { 0 => "today is the last day", 1 => "1 day left", days => { (days) " days left" } }
        ")"
    }
}
