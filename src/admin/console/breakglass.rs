//! Break-glass: the banner on every page, since whoever looks at decisions must know which policies an emergency lifts just
//! now; and the page on which a lift is closed, and what was done under it is looked at and reviewed.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};

use super::page::{self, Face, Given, Ordering, Place, REASON, badge, columns, left, path, text, time};
use super::{LIVE_PATH, answer, answer_live};
use crate::admin::Admin;
use crate::admin::agents::moment;
use crate::admin::body::Filled;
use crate::admin::breakglass as told;
use crate::admin::caller::Caller;
use crate::admin::problem::{Problem, see_other};
use crate::admin::records as found;
use crate::record::Kind;
use crate::store::holds::Revoked;
use crate::store::lifts::Lift;

/// Lifts that are shown whole; those beyond it, the oldest, are counted.
const WHOLE_MAX: usize = 20;
/// Lifts of the history that are listed.
const HISTORY_MAX: usize = 100;
/// Calls of one lift that are shown with it.
const CALLS_SHOWN: usize = 5;
/// Records of one lift among which its calls are counted.
const LOOKED_THROUGH: usize = 100;

/// The banner; empty while nothing is lifted and no review is owed, and on the page that says it all. Pages that keep
/// themselves up to date exchange it.
pub(super) fn banner(admin: &Admin, place: Place) -> Markup {
    let (open, owed) = (admin.gateway.lifts.in_force(), admin.gateway.lifts.reviews_owed());
    let ids: Vec<String> = open.iter().map(|lift| lift.id.to_string()).collect();
    html! {
        div data-list="banner" {
            @if place != Place::BreakGlass && (!open.is_empty() || owed > 0) {
                aside class="shadow" aria-label="Break-glass" data-key="glass" data-version={ (ids.join("-")) "-" (owed) } {
                    div class="glass" role="alert" {
                        @for lift in &open {
                            p {
                                strong { "Break-glass is open: " } (rules(lift)) " lifted for " (text(&scope(lift))) " until "
                                (time(&moment(lift.until))) ". Opened by " (text(path(&lift.by))) ": “" (text(&lift.reason)) "”. "
                                a href={ "/breakglass#" (lift.id) } { "Look at it, or close it" }
                            }
                        }
                        @if owed > 0 {
                            p {
                                (owed) @if owed == 1 { " emergency lift has ended and is" } @else { " emergency lifts have ended and are" }
                                " not reviewed: " a href="/breakglass#owed" { "review what was done" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn rules(lift: &Lift) -> Markup {
    html! { @for (at, rule) in lift.rules.iter().enumerate() { @if at > 0 { ", " } span class="mono" { (text(rule)) } } }
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

/// `GET /breakglass`
pub(super) async fn list(State(admin): State<Arc<Admin>>, caller: Caller) -> Response {
    answer_live(&admin, &caller, all(&admin, &caller).await).await
}

/// What is done about a lift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Close,
    Review,
}

/// A lift that is shown whole.
struct Shown<'a> {
    lift: &'a Lift,
    verb: Verb,
    /// Whether this person may do that; why not.
    may: Result<(), &'static str>,
    done: Done,
}

/// What was done under a lift, as far as this person may see it.
struct Done {
    /// The last of the calls that it decided.
    last: Vec<found::Record>,
    calls: usize,
    /// Whether there are more than were counted.
    more: bool,
}

async fn all(admin: &Admin, caller: &Caller) -> Result<Markup, Problem> {
    let (lifts, now) = (admin.gateway.lifts.all().await?, admin.gate().now().await?);
    let open: Vec<&Lift> = lifts.iter().filter(|lift| lift.is_open(now)).collect();
    let owed: Vec<&Lift> =
        lifts.iter().filter(|lift| !lift.is_open(now) && lift.reviewed.is_none()).collect();
    let reviewed: Vec<&Lift> = lifts.iter().filter(|lift| lift.reviewed.is_some()).collect();
    let mut whole = Vec::new();
    for (lift, verb) in
        open.iter().map(|lift| (*lift, Verb::Close)).chain(owed.iter().map(|lift| (*lift, Verb::Review)))
    {
        if whole.len() < WHOLE_MAX {
            whole.push(shown(admin, caller, lift, verb).await?);
        }
    }
    let token = page::token(admin, caller);
    let (opened, ended): (Vec<_>, Vec<_>) = whole.iter().partition(|one| one.verb == Verb::Close);
    let content = html! {
        div data-live="/breakglass" data-now=(moment(now)) {
            div class="headline" {
                p class={ "count " @if open.is_empty() { "none" } @else { "some" } } id="count" role="status" data-said { (headline(open.len(), owed.len())) }
                p class="quiet" id="live" { noscript { "Reload the page to see what is new." } }
            }
            div data-list="open" data-gone="It has ended meanwhile." {
                @for one in &opened { (article(one, now, &token)) }
                @if open.is_empty() { p class="empty" data-key="none" { "No emergency lift is open: every policy stands for every call." } }
            }
            h2 id="owed" { "Reviews that are owed" }
            div data-list="owed" data-gone="It was reviewed meanwhile." {
                @for one in &ended { (article(one, now, &token)) }
                @if owed.is_empty() { p class="empty" data-key="none" { "None. Whatever was lifted has been looked at." } }
                @if owed.len() > ended.len() { p data-key="more" data-version=(owed.len()) { "And " (owed.len() - ended.len()) " that ended before these: " code { "holdpoint breakglass list" } } }
            }
            h2 { "History" }
            (history(&reviewed))
        }
        (how(admin))
    };
    let face = Face { place: Place::BreakGlass, title: "Break-glass", tab: None, script: Some(LIVE_PATH) };
    Ok(page::whole(admin, caller, &face, &content).await)
}

fn headline(open: usize, owed: usize) -> String {
    let open = match open {
        0 => "Nothing is lifted".to_owned(),
        1 => "1 emergency lift is open".to_owned(),
        open => format!("{open} emergency lifts are open"),
    };
    match owed {
        0 => format!("{open}, and no review is owed."),
        1 => format!("{open}, and 1 review is owed."),
        owed => format!("{open}, and {owed} reviews are owed."),
    }
}

async fn shown<'a>(admin: &Admin, caller: &Caller, lift: &'a Lift, verb: Verb) -> Result<Shown<'a>, Problem> {
    let wanted = found::Wanted {
        lift: Some(lift.id.to_string()),
        limit: Some(LOOKED_THROUGH),
        ..found::Wanted::default()
    };
    let page = found::page(admin, caller, &wanted).await?;
    let mut last: Vec<found::Record> =
        page.records.into_iter().filter(|record| record.kind != Kind::BreakGlass.as_str()).collect();
    let (calls, more) = (last.len(), page.cursor.is_some());
    last.truncate(CALLS_SHOWN);
    let may = match verb {
        Verb::Close if told::may_close(admin, caller, lift) => Ok(()),
        Verb::Close => {
            Err("Whoever opened it, could have opened it, or may stop one of its agents closes it.")
        }
        Verb::Review => told::may_review(admin, caller, lift),
    };
    Ok(Shown { lift, verb, may, done: Done { last, calls, more } })
}

/// One lift: what it lifts and for whom, who answers for it, what was done, and what is to be done about it.
fn article(one: &Shown<'_>, now: SystemTime, token: &str) -> Markup {
    let (lift, id) = (one.lift, one.lift.id.to_string());
    let version = format!("{:?}-{}-{}", one.verb, lift.closed.is_some(), one.may.is_ok());
    html! {
        article class="lift" id=(id) data-key=(id) data-version=(version) aria-label={ "Emergency lift of " (path(&lift.by)) } {
            p class="state" {
                @match one.verb {
                    Verb::Close => { (badge("open")) " " span class="clock" { (left(lift.until, now)) } " left" },
                    Verb::Review => { (badge("review owed")) " " (ended(lift)) },
                }
            }
            dl class="facts" {
                div class="goes" { dt { "Lifts" } dd { (rules(lift)) " for " strong { (text(&scope(lift))) } } }
                div class="goes" { dt { "Reason" } dd { (text(&lift.reason)) } }
                div { dt { "Opened by" } dd { strong { (text(path(&lift.by))) } ", " (time(&moment(lift.at))) } }
                div { dt { "Until" } dd { (time(&moment(lift.until))) } }
                div class="goes" { dt { "Came by" } dd class="quiet" { (text(&lift.evidence)) } }
            }
            div data-list={ "done-" (id) } { (done(lift, &one.done)) }
            @match one.may {
                Ok(()) => (form(one.verb, &id, token)),
                Err(why) => p class="quiet" { (why) },
            }
        }
    }
}

/// How a lift came to its end.
fn ended(lift: &Lift) -> Markup {
    html! {
        @match &lift.closed {
            Some(Revoked { by, reason, at }) => { "closed " (time(&moment(*at))) " by " (text(path(by))) ": " q { (text(reason)) } },
            None => { "its time was over " (time(&moment(lift.until))) },
        }
    }
}

fn done(lift: &Lift, done: &Done) -> Markup {
    let all = format!("/records?lift={}", lift.id);
    html! {
        div data-key="done" data-version={ (done.calls) "-" (done.more) } {
            @match (done.calls, done.more) {
                (0, false) => p class="quiet" { "No call that you may see was decided by it. " a href=(all) { "Its records" } },
                (calls, more) => {
                    p {
                        strong { @if more { "More than " (calls) " calls" } @else { (calls) @if calls == 1 { " call" } @else { " calls" } } }
                        " that you may see went because of it. " a href=(all) { "All of them" }
                        @if calls > done.last.len() { span class="quiet" { " These are the last " (done.last.len()) "." } }
                    }
                    ul class="plain" { @for record in &done.last { (call(record)) } }
                }
            }
        }
    }
}

/// A call in one line, as a link to its story.
fn call(record: &found::Record) -> Markup {
    html! {
        li {
            a href={ "/records/" (record.call) } { (time(&record.at)) } " " (text(path(&record.agent))) " "
            span class="mono" { (text(&record.upstream)) wbr; "." (text(&record.tool)) } " "
            span class="quiet" { (text(&record.class)) } " " (badge(&record.outcome))
        }
    }
}

fn form(verb: Verb, id: &str, token: &str) -> Markup {
    let said = match verb {
        Verb::Close => Ordering {
            folded: "Close it",
            reason: REASON,
            to: format!("/breakglass/{id}/close"),
            button: html! { "Close it now" },
            class: "suspend",
        },
        Verb::Review => Ordering {
            folded: "Review it",
            reason: "What you found, for the record",
            to: format!("/breakglass/{id}/review"),
            button: html! { "I have looked at what was done" },
            class: "resume",
        },
    };
    page::order(&said, token)
}

fn history(lifts: &[&Lift]) -> Markup {
    html! {
        div data-list="unreviewed" {
            @if lifts.is_empty() { p class="empty" data-key="none" { "No emergency lift was ever reviewed, or only so long ago that the audit alone knows it." } }
        }
        table class="cards" {
            (columns(&["Opened", "By", "Lifted", "For", "Why", "Ended", "Reviewed"]))
            tbody data-list="history" {
                @for lift in lifts.iter().take(HISTORY_MAX) {
                    tr id=(lift.id) data-key=(lift.id) data-version="" {
                        th scope="row" { a href={ "/records?lift=" (lift.id) } { (time(&moment(lift.at))) } }
                        td data-label="By" class="word" { (text(path(&lift.by))) }
                        td data-label="Lifted" class="name" { (rules(lift)) }
                        td data-label="For" class="name" { (text(&scope(lift))) }
                        td data-label="Why" { (text(&lift.reason)) }
                        td data-label="Ended" { (ended(lift)) }
                        td data-label="Reviewed" {
                            @if let Some(Revoked { by, reason, at }) = &lift.reviewed { (time(&moment(*at))) " by " (text(path(by))) ": " q { (text(reason)) } }
                        }
                    }
                }
            }
        }
        @if lifts.len() > HISTORY_MAX { p class="quiet" { "These are the last " (HISTORY_MAX) "." } }
    }
}

/// How one is opened, and what it may lift.
fn how(admin: &Admin) -> Markup {
    let liftable = admin.policy().liftable();
    html! {
        h2 { "Opening one" }
        @if liftable.is_empty() { p { "No policy in force lets itself be lifted." } } @else {
            p {
                "These policies let themselves be lifted: "
                @for (at, rule) in liftable.iter().enumerate() { @if at > 0 { ", " } span class="mono" { (text(rule)) } }
                ". A person who may do that opens one from the command line, for 60 minutes at most:"
            }
            pre { "holdpoint breakglass open --rule RULE --agent AGENT --for 30m --reason \"why\"" }
        }
    }
}

/// `POST /breakglass/{id}/close`
pub(super) async fn close(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    filled: Result<Filled<Given>, Problem>,
) -> Response {
    carried(&admin, &caller, &id, Verb::Close, filled).await
}

/// `POST /breakglass/{id}/review`
pub(super) async fn review(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    filled: Result<Filled<Given>, Problem>,
) -> Response {
    carried(&admin, &caller, &id, Verb::Review, filled).await
}

async fn carried(
    admin: &Admin,
    caller: &Caller,
    id: &str,
    verb: Verb,
    filled: Result<Filled<Given>, Problem>,
) -> Response {
    let done = async {
        let reason = page::given(admin, caller, filled)?;
        match verb {
            Verb::Close => told::closed(admin, caller, id, &reason).await,
            Verb::Review => told::reviewed(admin, caller, id, &reason).await,
        }
    };
    match done.await {
        Ok(lift) => see_other(&format!("/breakglass#{}", lift.id)),
        Err(problem) => answer(admin, caller, Err(problem)).await,
    }
}
