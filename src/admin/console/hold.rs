//! One held call: what it would do and why it waits, the very text that is approved, and the forms by which a person
//! decides it. A vote carries the digest of what was shown.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::call::{self, Call, Destinations};
use super::evidence;
use super::holds::grade;
use super::page::{self, Face, Place, badge, left, or_dash, segment, text, time};
use super::path::{Sink, picture};
use super::{LIVE_PATH, LIVE_SECURITY_POLICY, answer, answer_live, faced};
use crate::admin::Admin;
use crate::admin::agents::moment;
use crate::admin::body::Filled;
use crate::admin::caller::Caller;
use crate::admin::holds::{self as told, REASON_FROM, Say};
use crate::admin::problem::{Problem, see_other};
use crate::admin::runs::{self, Finding};
use crate::call::hex;
use crate::store::REASON_BYTES_MAX;
use crate::store::holds::{Hold, HoldState, Says};

/// For how long a destination can be remembered by the form; the API takes any time up to a year.
const TERMS: [(&str, &str); 4] = [("1d", "1 day"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days")];

/// What the form of this page brings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decided {
    token: String,
    digest: String,
    #[serde(default)]
    reason: String,
    /// For how long; it counts for the button that says so alone.
    remember: Option<String>,
}

/// Which button was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Button {
    Approve,
    Deny,
    Remember,
}

/// What did not go, with what the person had written.
struct Failed {
    problem: Problem,
    reason: String,
}

/// `GET /holds/{id}`
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Response {
    answer_live(&admin, &caller, page_of(&admin, &caller, &id, None).await).await
}

/// `POST /holds/{id}/approve`
pub(super) async fn approve(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    filled: Result<Filled<Decided>, Problem>,
) -> Response {
    pressed(&admin, &caller, &id, Button::Approve, filled).await
}

/// `POST /holds/{id}/deny`
pub(super) async fn deny(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    filled: Result<Filled<Decided>, Problem>,
) -> Response {
    pressed(&admin, &caller, &id, Button::Deny, filled).await
}

/// `POST /holds/{id}/remember`
pub(super) async fn remember(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    filled: Result<Filled<Decided>, Problem>,
) -> Response {
    pressed(&admin, &caller, &id, Button::Remember, filled).await
}

/// Carries out what a person decided. What does not go is said on the hold's own page, which shows how it stands.
async fn pressed(
    admin: &Admin,
    caller: &Caller,
    id: &str,
    button: Button,
    filled: Result<Filled<Decided>, Problem>,
) -> Response {
    let decided = match filled {
        Ok(Filled(decided)) => decided,
        Err(problem) => return answer(admin, caller, Err(problem)).await,
    };
    if let Err(problem) = page::own(admin, caller, &decided.token) {
        return answer(admin, caller, Err(problem)).await;
    }
    let (says, remember) = match button {
        Button::Approve => (Says::Approve, None),
        Button::Deny => (Says::Deny, None),
        Button::Remember => (Says::Approve, Some(decided.remember.unwrap_or_default())),
    };
    let say = Say { digest: decided.digest, reason: decided.reason.clone(), remember, standing: None };
    let problem = match told::vote(admin, caller, id, says, &say).await {
        Ok(hold) => return see_other(&format!("/holds/{}", hold.id)),
        // The listener makes the page from which one logs in again.
        Err(problem @ Problem::Challenged(_)) => return answer(admin, caller, Err(problem)).await,
        Err(problem) => problem,
    };
    let failed = Failed { problem, reason: decided.reason };
    match page_of(admin, caller, id, Some(&failed)).await {
        Ok(markup) => faced(Some(&failed.problem), LIVE_SECURITY_POLICY, markup),
        Err(_) => answer(admin, caller, Err(failed.problem)).await,
    }
}

/// What a page of a hold is made from.
struct Seen<'a> {
    admin: &'a Admin,
    caller: &'a Caller,
    hold: &'a Hold,
    /// The text that is approved, as long as the hold has not ended.
    call: Option<Call>,
    goes: Destinations,
    now: SystemTime,
}

async fn page_of(
    admin: &Admin,
    caller: &Caller,
    id: &str,
    failed: Option<&Failed>,
) -> Result<Markup, Problem> {
    let hold = told::find(admin, caller, id).await?;
    let whole = if hold.state.is_end() { None } else { admin.gate().text(&hold).await? };
    let goes = whole.as_deref().map(call::destinations).unwrap_or_default();
    let findings = evidence::of(admin, &hold).await?;
    let now = admin.gate().now().await?;
    let seen = Seen { admin, caller, hold: &hold, call: whole.map(Call::of), goes, now };
    let content = html! {
        @if let Some(failed) = failed { (seen.failed(failed)) }
        div class="hold" data-live={ "/holds/" (hold.id) } data-titled data-now=(moment(now)) {
            div class="what" {
                div data-list="standing" { (seen.standing()) }
                p class="quiet live" id="live" { noscript { "Reload the page to see whether something has changed." } }
                (seen.facts())
                (seen.call())
                (seen.why(findings.as_deref()))
                (seen.rest())
            }
            div class="decide" id="decide" data-list="decide" { (seen.decide(failed)) }
            div class="then" data-list="history" { (seen.history()) }
        }
        div data-list="jump" { @if seen.can_vote().is_ok() { a class="jump" data-key="jump" data-version="" href="#decide" { "Decide" } } }
    };
    let title = format!("{}.{}", hold.about.upstream, hold.about.tool);
    let face = Face { place: Place::Inbox, title: &title, tab: None, script: Some(LIVE_PATH) };
    Ok(page::whole(admin, caller, &face, &content).await)
}

// === impl Seen ===

impl Seen<'_> {
    /// How the hold stands now: one that ran out of time and was not swept yet has expired.
    fn state(&self) -> HoldState {
        match self.hold.state {
            HoldState::Pending if self.hold.expires <= self.now => HoldState::Expired,
            state => state,
        }
    }

    /// Whether this person could decide it now; why not.
    fn can_vote(&self) -> Result<(), String> {
        match self.state() {
            HoldState::Pending => told::may_decide(self.admin, self.caller, self.hold),
            state => Err(format!("Nobody decides it any more: it is {}.", state.as_str())),
        }
    }

    /// What did not go, and what is so instead.
    fn failed(&self, failed: &Failed) -> Markup {
        let late = matches!(failed.problem, Problem::Conflict(_)) && self.state() != HoldState::Pending;
        html! {
            div class="problem" role="alert" id="failed" tabindex="-1" autofocus {
                @if late {
                    strong { "Your vote came too late and changed nothing." } " The call is " (self.state().as_str())
                    @if let Some(vote) = self.hold.votes.last() { ": " (text(named(&vote.email, &vote.by))) " said " (vote.says.as_str()) " " (time(&moment(vote.at))) @if !vote.reason.is_empty() { ", " q { (text(&vote.reason)) } } }
                    "."
                } @else {
                    strong { "Nothing was decided by this." } " " (text(&sentence(&failed.problem.detail())))
                }
            }
        }
    }

    /// Where it stands, in one line.
    fn standing(&self) -> Markup {
        let (hold, state) = (self.hold, self.state());
        let record = hold.record.map(|record| record.to_string());
        html! {
            p class="state" data-key="standing" data-version={ (state.as_str()) "-" (hold.votes.len()) "-" (self.awaited()) } {
                (badge(state.as_str())) " " (grade(hold)) " "
                @match state {
                    HoldState::Pending => {
                        span class="clock" { (left(hold.expires, self.now)) " left" } ". Nothing has run. "
                        span class="quiet" { @match self.awaited() { Awaited::Here => "Its agent waits for the answer.", Awaited::Gone => "Its agent was told to ask again." } }
                    },
                    HoldState::Approved => {
                        strong { "Nothing has run yet." } " It runs once: when the request that waits for it takes it, or when the agent repeats the very same call, within "
                        span class="clock" { (left(hold.expires, self.now)) } ". "
                    },
                    HoldState::Releasing => "It is being executed now.",
                    HoldState::Denied => "It has not run, and does not run.",
                    HoldState::Expired => "Its time is over. It has not run.",
                    HoldState::Withdrawn => "The agent took it back. It has not run.",
                    HoldState::Executed => "It ran, once.",
                    HoldState::Failed => "It was approved, and was not carried out.",
                    HoldState::Indeterminate => { strong { "It may have run: nobody knows." } " It is not run again. A person must find out." },
                }
                @if let Some(record) = &record { " " a href={ "/records/" (record) } { "Record of the call" } }
            }
        }
    }

    fn awaited(&self) -> Awaited {
        if self.admin.gate().is_awaited(self.hold.id) { Awaited::Here } else { Awaited::Gone }
    }

    /// Who, what and where to.
    fn facts(&self) -> Markup {
        let about = &self.hold.about;
        let said = |name: &str| self.call.as_ref().map(|call| call.said(name)).unwrap_or_default();
        let asks = format!("{} {}", said("method"), said("target"));
        html! {
            dl class="facts" {
                div class="goes" { dt { "Goes to" } dd {
                    @if self.goes.is_empty() { span class="quiet" { @if self.call.is_some() { "the upstream alone" } @else { "erased with the call" } } }
                    @for (kind, place) in &self.goes { p { span class="quiet" { (text(kind)) " " } strong { (text(place)) } } }
                } }
                div { dt { "Agent" } dd { a href={ "/agents/" (segment(about.agent.as_str())) } { (text(about.agent.as_str())) } } }
                div { dt { "Owner" } dd { (text(or_dash(&about.owner))) @if !about.team.is_empty() { ", team " (text(&about.team)) } } }
                div { dt { "On behalf of" } dd { @if about.on_behalf_of.is_empty() { "nobody in particular" } @else { (text(&about.on_behalf_of)) } } }
                @if !about.task.is_empty() { div { dt { "Task" } dd class="mono" { (text(&about.task)) } } }
                @if asks.trim() != "" { div { dt { "Sends" } dd class="mono" { (text(&asks)) } } }
            }
        }
    }

    /// Why it is held, and what was found.
    fn why(&self, findings: Option<&[Finding]>) -> Markup {
        let about = &self.hold.about;
        let sink = Sink { upstream: &about.upstream, tool: &about.tool, destinations: &self.goes };
        html! {
            h2 { "Why it is held" }
            p { "Rule " strong { (text(&about.rule)) } ": " (text(&about.reason)) "." }
            @match findings {
                None => p class="problem" { "What was found in it is not known: look at its run." },
                Some([]) => p class="quiet" { "Nothing that was read before was found in it." },
                Some(found) => (picture(found, &sink)),
            }
            @if runs::is_remembered(self.admin, &about.agent, &about.run) {
                p { a href={ "/runs/" (segment(run(&about.run))) "?agent=" (segment(about.agent.as_str())) } { "What else this run has read and tried" } }
            }
        }
    }

    /// The text that is approved. It is no part of what is kept up to date: whoever reads it goes on reading.
    fn call(&self) -> Markup {
        html! {
            @match &self.call {
                Some(call) => section aria-label="What would be sent" { (call.sent()) },
                None => p class="quiet" { "The hold has ended, so the call itself is erased. Its digest stays." },
            }
        }
    }

    /// What else is approved, and the digest of it all.
    fn rest(&self) -> Markup {
        html! {
            @if let Some(call) = &self.call { (call.rest()) }
            p class="quiet" { "SHA-256 of exactly this call: " span class="mono id" { "sha256:" (hex(&self.hold.digest)) } }
        }
    }

    /// The forms, or why there are none.
    fn decide(&self, failed: Option<&Failed>) -> Markup {
        let (hold, may) = (self.hold, self.can_vote());
        let version = format!("{}-{}", self.state().as_str(), may.is_ok());
        html! {
            section data-key="decide" data-version=(version) aria-labelledby="decide-title" {
                h2 id="decide-title" { @if self.state() == HoldState::Pending { "Decide" } @else { "Decision" } }
                (needs(hold))
                @match may {
                    Ok(()) => (self.form(failed)),
                    Err(why) if self.state() == HoldState::Pending => p class="problem" { (text(&why)) },
                    Err(why) => p { (text(&why)) },
                }
            }
        }
    }

    fn form(&self, failed: Option<&Failed>) -> Markup {
        let hold = self.hold;
        let to = format!("/holds/{}", hold.id);
        let grave = hold.about.consequence >= REASON_FROM;
        let remembers = !self.goes.is_empty() && told::may_remember(self.admin, self.caller, hold);
        html! {
            form method="post" action={ (to) "/approve" } {
                input type="hidden" name="token" value=(page::token(self.admin, self.caller));
                input type="hidden" name="digest" value={ "sha256:" (hex(&hold.digest)) };
                label for="reason" { "Reason " span class="quiet" { @if grave { "(required)" } @else { "(required to deny)" } } }
                textarea id="reason" name="reason" required rows="3" maxlength=(REASON_BYTES_MAX) { (failed.map_or("", |failed| failed.reason.as_str())) }
                div class="buttons" {
                    button class="approve" formnovalidate[!grave] { "Approve this call, once" }
                    button class="deny" formaction={ (to) "/deny" } { "Deny" }
                }
                @if remembers {
                    details class="remember" {
                        summary { "Approve, and remember the destination…" }
                        p {
                            @for (at, (_, place)) in self.goes.iter().enumerate() { @if at > 0 { ", " } strong { (text(place)) } }
                            " is then known for this agent: what is internal may go there, up to consequence " (hold.about.consequence) ", and nobody is asked."
                        }
                        label for="remember" { "For" }
                        select id="remember" name="remember" { @for (term, words) in TERMS { option value=(term) selected[term == "30d"] { (words) } } }
                        button formaction={ (to) "/remember" } formnovalidate[!grave] { "Approve and remember" }
                    }
                }
            }
        }
    }

    /// What happened, in order.
    fn history(&self) -> Markup {
        let (hold, state) = (self.hold, self.state());
        let version = format!("{}-{}-{}", state.as_str(), hold.votes.len(), hold.escalated.is_some());
        html! {
            section data-key="history" data-version=(version) aria-labelledby="history-title" {
                h2 id="history-title" { "History" }
                ol class="history" {
                    li { (time(&moment(hold.opened))) " asked by " (text(page::path(hold.about.agent.as_str()))) }
                    @if let Some(escalated) = hold.escalated { li { (time(&moment(escalated))) " escalated: half of its time was over" } }
                    @for vote in &hold.votes {
                        li {
                            (time(&moment(vote.at))) " " strong { @match vote.says { Says::Approve => "approved", Says::Deny => "denied" } } " by " (text(named(&vote.email, &vote.by)))
                            @if !vote.roles.is_empty() { span class="quiet" { " (" (text(&vote.roles.join(", "))) ")" } }
                            @if !vote.reason.is_empty() { ": " q { (text(&vote.reason)) } }
                            @if vote.digest != hold.digest { span class="badge bad" { "saw another call" } }
                        }
                    }
                    @if state.is_end() && state != HoldState::Denied {
                        li { (time(&moment(if hold.state.is_end() { hold.changed } else { hold.expires }))) " " strong { (state.as_str()) } @if !hold.detail.is_empty() { ": " (text(&hold.detail)) } }
                    }
                    @if !state.is_end() { li class="quiet" { (time(&moment(hold.expires))) " its time will be over" } }
                }
                p { a href={ "/records/" (hold.id) } { "Everything in the audit about this hold" } }
            }
        }
    }
}

/// Whether a request of the agent waits for the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Gone,
    Here,
}

impl maud::Render for Awaited {
    fn render(&self) -> Markup {
        html! { @match self { Awaited::Gone => "gone", Awaited::Here => "here" } }
    }
}

/// Who must still approve.
fn needs(hold: &Hold) -> Markup {
    let (quorum, have) = (hold.terms.quorum.max(1) as usize, hold.approvals().count());
    let roles: Vec<&str> = hold
        .terms
        .approvers
        .iter()
        .filter(|role| !hold.approvals().any(|vote| vote.roles.contains(role)))
        .map(String::as_str)
        .collect();
    let missing = quorum.saturating_sub(have).max(usize::from(!roles.is_empty()));
    html! {
        p class="needs" {
            strong { (have) " of " (quorum) } @if quorum == 1 { " approval" } @else { " approvals" }
            @if hold.state == HoldState::Pending {
                ". " @match missing { 1 => "One more person", more => { (more) " more people" } } " must approve"
                @if !roles.is_empty() { ", with the role " strong { (text(&roles.join(" and "))) } " among theirs" }
                "; one denial ends it."
            }
        }
    }
}

/// How a run is named in a path: one that has no id is the agent as a whole.
fn run(run: &str) -> &str {
    if run.is_empty() { runs::WHOLE } else { run }
}

fn named<'a>(email: &'a str, id: &'a str) -> &'a str {
    if email.is_empty() { id } else { email }
}

/// A sentence from what a program says.
fn sentence(detail: &str) -> String {
    let mut chars = detail.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if detail.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}
