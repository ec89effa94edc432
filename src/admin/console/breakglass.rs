//! Break-glass, said on every page: whoever looks at decisions must know which policies an emergency lifts just now.

use maud::{Markup, html};

use super::page::{path, text, time};
use crate::admin::Admin;
use crate::admin::agents::moment;
use crate::store::lifts::Lift;

/// The banner; nothing while nothing is lifted and no review is owed.
pub(super) fn banner(admin: &Admin) -> Markup {
    let (open, owed) = (admin.gateway.lifts.in_force(), admin.gateway.lifts.reviews_owed());
    if open.is_empty() && owed == 0 {
        return html! {};
    }
    html! {
        aside class="shadow glass" role="alert" aria-label="Break-glass" {
            @for lift in &open {
                p {
                    strong { "Break-glass is open: " }
                    @for (at, rule) in lift.rules.iter().enumerate() {
                        @if at > 0 { ", " } span class="mono" { (text(rule)) }
                    }
                    " lifted for " (text(&scope(lift))) " until " (time(&moment(lift.until))) ". Opened by "
                    (text(path(&lift.by))) ": “" (text(&lift.reason)) "”. End it with "
                    code { "holdpoint breakglass close " (lift.id) }
                }
            }
            @match owed {
                0 => {},
                1 => p { "1 emergency lift ended and is not reviewed: " code { "holdpoint breakglass list" } },
                owed => p { (owed) " emergency lifts ended and are not reviewed: " code { "holdpoint breakglass list" } },
            }
        }
    }
}

fn scope(lift: &Lift) -> String {
    let scope = &lift.scope;
    let agents = scope.agents.iter().map(|agent| path(agent.as_str()).to_owned());
    let groups = scope.groups.iter().map(|group| format!("the group {group}"));
    let whom: Vec<String> = agents.chain(groups).collect();
    let whom = if whom.is_empty() { "all agents".to_owned() } else { whom.join(", ") };
    match scope.upstreams.as_slice() {
        [] => whom,
        upstreams => format!("{whom} at {}", upstreams.join(", ")),
    }
}
