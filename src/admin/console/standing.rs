//! Approvals that stand for more than one execution of exactly one call: what stands, how much of it is used, and taking
//! it back.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};

use super::holds::{Tab, tabs};
use super::page::{self, Face, Given, Ordering, Place, REASON, badge, columns, left, path, text, time};
use super::{LIVE_PATH, answer, answer_live};
use crate::admin::Admin;
use crate::admin::agents::moment;
use crate::admin::body::Filled;
use crate::admin::caller::Caller;
use crate::admin::problem::{Problem, see_other};
use crate::admin::settled as told;
use crate::store::holds::Revoked;
use crate::store::standing::{IN_FORCE, Standing};

/// Approvals that stand no more and are listed.
const OVER_MAX: usize = 100;

/// `GET /standing`
pub(super) async fn list(State(admin): State<Arc<Admin>>, caller: Caller) -> Response {
    answer_live(&admin, &caller, all(&admin, &caller).await).await
}

async fn all(admin: &Admin, caller: &Caller) -> Result<Markup, Problem> {
    let (all, now) = (told::seen(admin, caller).await?, admin.gate().now().await?);
    let (stand, over): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.state(now) == IN_FORCE);
    let token = page::token(admin, caller);
    let order = |one: &Standing| {
        let may = told::may_revoke(admin, caller, one);
        html! { @if may { (form(one, &token)) } @else { span class="quiet" { "not yours to take back" } } }
    };
    let content = html! {
        (tabs(Tab::Standing, ""))
        div data-live="/standing" data-now=(moment(now)) {
            div class="headline" {
                p class={ "count " @if stand.is_empty() { "none" } @else { "some" } } id="count" role="status" data-said { (headline(stand.len())) }
                p class="quiet" id="live" { noscript { "Reload the page to see what is new." } }
            }
            table class="cards" {
                (columns(&["Call", "Agent", "Used", "Time left", "Approved by", "Why", "Order"]))
                tbody data-list="stand" { @for one in &stand { (row(one, now, &order(one))) } }
            }
            h2 { "Over" }
            div data-list="never" {
                @if over.is_empty() { p class="empty" data-key="none" { "No approval that you may see has stood before." } }
            }
            table class="cards" {
                (columns(&["Call", "Agent", "Used", "State", "Approved by", "Why"]))
                tbody data-list="over" { @for one in over.iter().take(OVER_MAX) { (past(one, now)) } }
            }
            @if over.len() > OVER_MAX { p class="quiet" { "These are the last " (OVER_MAX) "." } }
        }
        p class="quiet" {
            "An approval stands for the very call that was approved and no other, for at most 24 hours and 100 executions: "
            code { "holdpoint holds approve ID --for 30m --times 5" }
        }
    };
    let face = Face { place: Place::Inbox, title: "Standing approvals", tab: None, script: Some(LIVE_PATH) };
    Ok(page::whole(admin, caller, &face, &content).await)
}

fn headline(stand: usize) -> String {
    match stand {
        0 => "No approval stands for more than one execution.".to_owned(),
        1 => "1 approval stands.".to_owned(),
        stand => format!("{stand} approvals stand."),
    }
}

/// Which call, as a link to the hold whose approval it is.
fn call(one: &Standing) -> Markup {
    html! {
        a href={ "/holds/" (one.hold) } { span class="mono" { (text(&one.upstream)) wbr; "." (text(&one.tool)) } }
        div class="quiet" { "approved " (time(&moment(one.at))) }
    }
}

fn used(one: &Standing) -> Markup {
    html! { (one.used) " of " (one.times) }
}

fn people(one: &Standing) -> Markup {
    html! { @for (at, person) in one.people.iter().enumerate() { @if at > 0 { ", " } (text(path(person))) } }
}

fn row(one: &Standing, now: SystemTime, order: &Markup) -> Markup {
    html! {
        // What changes while it stands is exchanged alone, so that a reason that is being typed stays.
        tr data-key=(one.id) data-version="" {
            th scope="row" { (call(one)) }
            td data-label="Agent" class="name" { (text(path(one.agent.as_str()))) }
            td data-label="Used" class="word" data-list={ "used-" (one.id) } { span data-key="used" data-version=(one.used) { (used(one)) } }
            td data-label="Time left" class="word" { (left(one.until, now)) }
            td data-label="Approved by" { (people(one)) }
            td data-label="Why" { (text(&one.reason)) }
            td data-label="Order" { (order) }
        }
    }
}

fn past(one: &Standing, now: SystemTime) -> Markup {
    html! {
        tr data-key=(one.id) data-version="" {
            th scope="row" { (call(one)) }
            td data-label="Agent" class="name" { (text(path(one.agent.as_str()))) }
            td data-label="Used" class="word" { (used(one)) }
            td data-label="State" {
                (badge(one.state(now)))
                @match &one.revoked {
                    Some(Revoked { by, reason, at }) => div class="quiet" { (time(&moment(*at))) " by " (text(path(by))) ": " q { (text(reason)) } },
                    None => {},
                }
            }
            td data-label="Approved by" { (people(one)) }
            td data-label="Why" { (text(&one.reason)) }
        }
    }
}

fn form(one: &Standing, token: &str) -> Markup {
    let to = format!("/standing/{}/revoke", one.id);
    let (folded, button) = ("Take it back", html! { "Take it back" });
    page::order(&Ordering { folded, reason: REASON, to, button, class: "suspend" }, token)
}

/// `POST /standing/{id}/revoke`
pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    filled: Result<Filled<Given>, Problem>,
) -> Response {
    let done = async {
        let reason = page::given(&admin, &caller, filled)?;
        told::revoked(&admin, &caller, &id, &reason).await
    };
    match done.await {
        Ok(_) => see_other("/standing"),
        Err(problem) => answer(&admin, &caller, Err(problem)).await,
    }
}
