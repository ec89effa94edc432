//! The inbox: calls that wait for people, those that were approved and have not run, and what came of the others.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::call::{self, Destinations};
use super::page::{self, Face, Place, age, badge, columns, left, path, segment, text};
use super::{LIVE_PATH, answer_live};
use crate::admin::Admin;
use crate::admin::agents::moment;
use crate::admin::body::Asked;
use crate::admin::caller::Caller;
use crate::admin::holds as told;
use crate::admin::problem::{Problem, see_other};
use crate::store::holds::{Hold, HoldState, Wanted};

/// Holds on one page.
const SHOWN_MAX: usize = 50;
/// Destinations that a row names.
const DESTINATIONS_MAX: usize = 2;
/// How long ago what has ended is still listed.
const ENDED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Which holds are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Which {
    /// Those that wait for people.
    #[default]
    Waiting,
    /// Those that were approved and have not run.
    Approved,
    /// Those that ended within the last day.
    Ended,
    /// Those of which nobody knows whether they ran.
    Unclear,
}

/// What the inbox is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Find {
    show: Which,
    /// Of this agent.
    agent: String,
    /// How many are passed over: those of the pages before.
    after: usize,
}

impl Which {
    const ALL: [Which; 4] = [Which::Waiting, Which::Approved, Which::Ended, Which::Unclear];

    fn word(self) -> &'static str {
        match self {
            Which::Waiting => "waiting",
            Which::Approved => "approved",
            Which::Ended => "ended",
            Which::Unclear => "unclear",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Which::Waiting => "Waiting",
            Which::Approved => "Approved, not run",
            Which::Ended => "Ended in the last day",
            Which::Unclear => "Unclear",
        }
    }

    fn states(self) -> Vec<HoldState> {
        match self {
            Which::Waiting => vec![HoldState::Pending],
            Which::Approved => vec![HoldState::Approved, HoldState::Releasing],
            Which::Unclear => vec![HoldState::Indeterminate],
            Which::Ended => HoldState::ALL.into_iter().filter(|state| state.is_end()).collect(),
        }
    }

    fn none(self) -> &'static str {
        match self {
            Which::Waiting => "Nothing waits for people.",
            Which::Approved => "Nothing is approved that has not run.",
            Which::Ended => "Nothing ended in the last day.",
            Which::Unclear => "Of every approved call it is known whether it ran.",
        }
    }
}

/// Which tab of the inbox a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    /// Held calls.
    Holds(Which),
    /// Approvals that stand for more than one execution.
    Standing,
}

/// `GET /`: the inbox. What is searched for among agents was once searched for here.
pub(super) async fn front(
    admin: State<Arc<Admin>>,
    caller: Caller,
    RawQuery(query): RawQuery,
    asked: Result<Asked<Find>, Problem>,
) -> Response {
    let query = query.unwrap_or_default();
    let mut names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    if names.any(|name| matches!(name, "q" | "state")) {
        return see_other(&format!("/agents?{query}"));
    }
    list(admin, caller, asked).await
}

/// `GET /holds`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    asked: Result<Asked<Find>, Problem>,
) -> Response {
    let made = match asked {
        Ok(Asked(find)) => inbox(&admin, &caller, &find).await,
        Err(problem) => Err(problem),
    };
    answer_live(&admin, &caller, made).await
}

async fn inbox(admin: &Admin, caller: &Caller, find: &Find) -> Result<Markup, Problem> {
    let now = admin.gate().now().await?;
    let holds = wanted(admin, caller, find, now).await?;
    let (total, shown) = (holds.len(), holds.get(find.after.min(holds.len())..).unwrap_or_default());
    let lines = lines(admin, caller, shown, SHOWN_MAX).await?;
    let below = total.saturating_sub(find.after + lines.len());
    let here = |which: Which, after: usize| {
        let agent =
            if find.agent.is_empty() { String::new() } else { format!("&agent={}", segment(&find.agent)) };
        let after = if after == 0 { String::new() } else { format!("&after={after}") };
        format!("/holds?show={}{agent}{after}", which.word())
    };
    let content = html! {
        (tabs(Tab::Holds(find.show), &find.agent))
        @if !find.agent.is_empty() { p { "Of " (text(&find.agent)) " alone. " a href={ "/holds?show=" (find.show.word()) } { "Of all agents" } } }
        div data-live=(here(find.show, find.after)) data-titled data-now=(moment(now)) {
            (headline(find.show, total))
            (table(&lines, find.show, now))
            div data-list="below" {
                @if below > 0 {
                    p data-key="below" data-version=(below) {
                        (below) " more " @if find.show == Which::Waiting { "wait, later than these. " }
                        a href=(here(find.show, find.after + lines.len())) { "Show them" }
                    }
                }
            }
        }
    };
    let tab = match (find.show, total) {
        (Which::Waiting, 1..) => format!("({total}) Inbox"),
        _ => "Inbox".to_owned(),
    };
    let face = Face { place: Place::Inbox, title: "Inbox", tab: Some(&tab), script: Some(LIVE_PATH) };
    Ok(page::whole(admin, caller, &face, &content).await)
}

/// The tabs of the inbox, of one agent alone where one is named.
pub(super) fn tabs(here: Tab, agent: &str) -> Markup {
    let of = if agent.is_empty() { String::new() } else { format!("&agent={}", segment(agent)) };
    let current = |tab: Tab| (tab == here).then_some("true");
    html! {
        nav class="tabs" aria-label="Which calls" {
            @for which in Which::ALL { a href={ "/holds?show=" (which.word()) (of) } aria-current=[current(Tab::Holds(which))] { (which.name()) } }
            a href="/standing" aria-current=[current(Tab::Standing)] { "Standing approvals" }
        }
    }
}

fn headline(which: Which, total: usize) -> Markup {
    let said = match (which, total) {
        (_, 0) => which.none().to_owned(),
        (Which::Waiting, 1) => "1 call waits for people.".to_owned(),
        (Which::Waiting, total) => format!("{total} calls wait for people."),
        (_, 1) => "1 call.".to_owned(),
        (_, total) => format!("{total} calls."),
    };
    html! {
        div class="headline" {
            p class={ "count " @if total == 0 { "none" } @else { "some" } } id="count" role="status" data-said { (said) }
            p class="quiet" id="live" { noscript { "Reload the page to see what is new." } }
        }
    }
}

/// The holds that are wanted, as far as the caller may see them.
async fn wanted(admin: &Admin, caller: &Caller, find: &Find, now: SystemTime) -> Result<Vec<Hold>, Problem> {
    let agent = match find.agent.trim() {
        "" => None,
        name => Some(admin.agent(name)?.0),
    };
    let mut holds = told::seen(admin, caller, Wanted { states: find.show.states(), agent }).await?;
    if find.show == Which::Ended {
        holds.retain(|hold| now.duration_since(hold.changed).unwrap_or_default() < ENDED_FOR);
    }
    Ok(holds)
}

/// A row of the inbox.
pub(super) struct Line<'a> {
    hold: &'a Hold,
    /// Where it would go; empty once it has ended.
    goes: Destinations,
    /// Whether this person could decide it.
    may: bool,
}

/// The first of these holds, with what a row tells.
pub(super) async fn lines<'a>(
    admin: &Admin,
    caller: &Caller,
    holds: &'a [Hold],
    most: usize,
) -> Result<Vec<Line<'a>>, Problem> {
    let mut lines = Vec::new();
    for hold in holds.iter().take(most) {
        // What cannot be opened is told on its own page; it must not take the inbox with it.
        let whole = if hold.state.is_end() { None } else { admin.gate().text(hold).await.ok().flatten() };
        let goes = whole.as_deref().map(call::destinations).unwrap_or_default();
        lines.push(Line { hold, goes, may: told::may_decide(admin, caller, hold).is_ok() });
    }
    Ok(lines)
}

/// Holds, a row each.
pub(super) fn table(lines: &[Line<'_>], which: Which, now: SystemTime) -> Markup {
    let waits = which == Which::Waiting;
    let (approvals, time) = if waits { ("Approvals", "Time left") } else { ("State", "Since") };
    html! {
        table class="cards inbox" {
            (columns(&["Call", "Agent", "Consequence", "Goes to", "Held by", approvals, time]))
            tbody data-list="holds" data-gone="no longer here" {
                @for line in lines { (row(line, waits, now)) }
            }
        }
    }
}

fn row(line: &Line<'_>, waits: bool, now: SystemTime) -> Markup {
    let Line { hold, goes, may } = line;
    let about = &hold.about;
    let version = format!("{}-{}-{}", hold.state.as_str(), hold.votes.len(), hold.escalated.is_some());
    html! {
        tr data-key=(hold.id) data-version=(version) {
            th scope="row" {
                a href={ "/holds/" (hold.id) } { span class="mono" { (text(&about.upstream)) wbr; "." (text(&about.tool)) } }
                div class="quiet" { "asked " (age(hold.opened, now)) " ago" }
            }
            td data-label="Agent" { (text(path(about.agent.as_str()))) div class="quiet" { (text(&about.owner)) } }
            td data-label="Consequence" class="word" { (grade(hold)) }
            td data-label="Goes to" class="goes" { (places(goes)) }
            td data-label="Held by" class="rule" { (text(&about.rule)) }
            @if waits {
                td data-label="Approvals" class="word" {
                    (hold.approvals().count()) " of " (hold.terms.quorum.max(1))
                    @if !may { div class="quiet" { "not yours" } }
                    @if hold.escalated.is_some() { div { span class="badge warn" { "escalated" } } }
                }
                td data-label="Time left" class="word" { (left(hold.expires, now)) }
            } @else {
                td data-label="State" { (badge(hold.state.as_str())) }
                td data-label="Since" class="word" { (age(hold.changed, now)) }
            }
        }
    }
}

/// Class and consequence, in words; the gravest are marked.
pub(super) fn grade(hold: &Hold) -> Markup {
    let tone = match hold.about.consequence {
        0..=2 => "plain",
        3 => "warn",
        _ => "bad",
    };
    html! { span class={ "badge " (tone) } title="the class of the call, and its consequence from 0 to 4" { (hold.about.class.as_str()) " · " (hold.about.consequence) } }
}

fn places(goes: &Destinations) -> Markup {
    html! {
        @for (_, place) in goes.iter().take(DESTINATIONS_MAX) { div { (text(place)) } }
        @if goes.len() > DESTINATIONS_MAX { div class="quiet" { "and " (goes.len() - DESTINATIONS_MAX) " more" } }
    }
}
