//! The pages about agents: all of them, and one with what can be done about it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::page::{
    self, Given, Ordering, Place, REASON, badge, choice, columns, or_dash, path, segment, text, time,
};
use super::{answer, records, shadow};
use crate::admin::agents::{self, Agent, Suspended};
use crate::admin::body::{Asked, Filled};
use crate::admin::caller::Caller;
use crate::admin::order::What;
use crate::admin::problem::{Problem, see_other};
use crate::admin::records as told;
use crate::admin::shadow::InShadow;
use crate::admin::{Admin, agents::Shown};

/// The states that the search offers.
const STATES: [&str; 6] = ["", "active", "read-only", "suspended", "review-overdue", "retired"];
/// Records among which an agent's last call is looked for: orders about it are among them.
const LOOKED_THROUGH: usize = 10;
/// Records that an agent's page shows.
const LAST_RECORDS: usize = 20;

/// Which agents are shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Find {
    /// What stands in the id, the owner, the team or the purpose.
    q: String,
    /// In this state.
    state: String,
}

/// `GET /agents`
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
    let agents = agents::seen(admin, caller).await?;
    let total = agents.len();
    let shown: Vec<&Agent> = agents.iter().filter(|agent| find.finds(agent)).collect();
    let mut last = Vec::with_capacity(shown.len());
    for agent in &shown {
        last.push(last_call(admin, caller, &agent.id).await?);
    }
    let content = html! {
        (page::search("/agents", &html! {
            label { "Find" input type="search" name="q" value=(find.q) placeholder="id, owner, team, purpose" size="26"; }
            (choice("State", "state", (&STATES, &find.state), page::or_any))
        }))
        p class="count" role="status" { (shown.len()) " of " (total) " agents that you may see" }
        @if shown.is_empty() { p class="empty" { @if total == 0 { "There is no agent that you may see." } @else { "No agent is like this. " a href="/agents" { "All agents" } } } }
        @else { (table(&shown, &last, &page::token(admin, caller))) }
    };
    Ok(page::page(admin, caller, Place::Agents, "Agents", &content).await)
}

fn table(agents: &[&Agent], last: &[Option<Markup>], token: &str) -> Markup {
    html! {
        table class="cards" {
            (columns(&["Agent", "State", "Autonomy", "Team", "Owner", "Review due", "Last call", "Order"]))
            tbody {
                @for (agent, last) in agents.iter().zip(last) {
                    tr {
                        th scope="row" { a href={ "/agents/" (segment(&agent.id)) } { (text(path(&agent.id))) } div class="quiet" { (text(&agent.purpose)) } }
                        td data-label="State" { (badge(&agent.state)) }
                        td data-label="Autonomy" { (text(&agent.autonomy)) }
                        td data-label="Team" { (text(&agent.team)) }
                        td data-label="Owner" { (text(agent.owner.business.as_deref().unwrap_or("nobody"))) }
                        td data-label="Review due" { @if let Some(day) = &agent.review_due { time datetime=(day) { (day) } } }
                        td data-label="Last call" { @if let Some(last) = last { (last) } }
                        td data-label="Order" { (order(agent, token)) }
                    }
                }
            }
        }
    }
}

/// The last call of an agent, as a link to its story.
async fn last_call(admin: &Admin, caller: &Caller, id: &str) -> Result<Option<Markup>, Problem> {
    let wanted =
        told::Wanted { agent: Some(id.to_owned()), limit: Some(LOOKED_THROUGH), ..told::Wanted::default() };
    let page = told::page(admin, caller, &wanted).await?;
    let is_call = |record: &&told::Record| record.kind != "admin";
    let Some(record) = page.records.iter().find(is_call) else { return Ok(None) };
    Ok(Some(
        html! { a href={ "/records/" (record.call) } { (time(&record.at)) } " " (badge(&record.outcome)) },
    ))
}

/// `GET /agents/{id}`
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Response {
    answer(&admin, &caller, one(&admin, &caller, &name).await).await
}

async fn one(admin: &Admin, caller: &Caller, name: &str) -> Result<Markup, Problem> {
    let Shown { agent, history } = agents::shown(admin, caller, name).await?;
    let wanted =
        told::Wanted { agent: Some(agent.id.clone()), limit: Some(LAST_RECORDS), ..told::Wanted::default() };
    let last = told::page(admin, caller, &wanted).await?;
    let shadowed = InShadow::now(admin).of_groups(&agent.groups);
    let owner = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".to_owned());
    let rows = [
        ("SPIFFE ID", agent.id.clone()),
        ("Purpose", agent.purpose.clone()),
        ("Team", agent.team.clone()),
        ("Business owner", owner(&agent.owner.business)),
        ("Technical owner", owner(&agent.owner.technical)),
        ("Risk owner", owner(&agent.owner.risk)),
        ("Autonomy today", agent.autonomy.clone()),
        ("In the registry", agent.registered.clone()),
        ("Groups", agent.groups.join(", ")),
        ("Risk", agent.risk.to_string()),
        ("Region", agent.region.clone()),
        ("Vendor", agent.vendor.clone().unwrap_or_else(|| "our own".to_owned())),
        ("Review due", agent.review_due.clone().unwrap_or_default()),
    ];
    let content = html! {
        p class="state" { (badge(&agent.state)) @if let Some(one) = &agent.suspension { " " (suspended(one)) } }
        (order(&agent, &page::token(admin, caller)))
        dl { @for (name, value) in &rows { div { dt { (name) } dd { (text(or_dash(value))) } } } }
        @if !shadowed.upstreams.is_empty() {
            h2 { "In shadow for this agent" }
            (shadow::list(&InShadow { policies: Vec::new(), ..shadowed }))
            p { a href={ "/records?would_be=any&agent=" (segment(&agent.id)) } { "What would have been stopped of its calls" } }
        }
        h2 { "Last records" }
        (records::table(&last.records))
        p {
            a href={ "/records?agent=" (segment(&agent.id)) } { "All records of this agent" } ", "
            a href={ "/holds?agent=" (segment(&agent.id)) } { "its held calls" } ", "
            a href={ "/runs?agent=" (segment(&agent.id)) } { "its runs" }
        }
        @if !history.is_empty() {
            h2 { "Orders" }
            ul class="plain" { @for one in &history { li { (suspended(one)) } } }
        }
    };
    Ok(page::page(admin, caller, Place::Agents, path(&agent.id), &content).await)
}

fn suspended(one: &Suspended) -> Markup {
    html! {
        "suspended " (time(&one.at)) " by " (text(&one.by)) ": " q { (text(&one.reason)) }
        @if let Some(resumed) = &one.resumed {
            "; resumed " (time(&resumed.at)) " by " (text(&resumed.by)) ": " q { (text(&resumed.reason)) }
        }
    }
}

/// The form by which an agent is stopped, or let go on; nothing where neither can be done.
fn order(agent: &Agent, token: &str) -> Markup {
    let (word, verb) = match (&agent.suspension, agent.state.as_str()) {
        (_, "retired") => return html! {},
        (Some(_), _) => ("Resume", "resume"),
        (None, "suspended") => return html! { span class="quiet" { "by the registry" } },
        (None, _) => ("Suspend", "suspend"),
    };
    let to = format!("/agents/{}/{verb}", segment(&agent.id));
    let button = html! { (word) " " (text(path(&agent.id))) };
    page::order(&Ordering { folded: word, reason: REASON, to, button, class: verb }, token)
}

/// `POST /agents/{id}/suspend`
pub(super) async fn suspend(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(name): Path<String>,
    filled: Result<Filled<Given>, Problem>,
) -> Response {
    carried(&admin, &caller, What::Suspend, &name, filled).await
}

/// `POST /agents/{id}/resume`
pub(super) async fn resume(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(name): Path<String>,
    filled: Result<Filled<Given>, Problem>,
) -> Response {
    carried(&admin, &caller, What::Resume, &name, filled).await
}

async fn carried(
    admin: &Admin,
    caller: &Caller,
    what: What,
    name: &str,
    filled: Result<Filled<Given>, Problem>,
) -> Response {
    let done = async {
        let reason = page::given(admin, caller, filled)?;
        agents::ordered(admin, caller, what, name, &reason).await
    };
    match done.await {
        Ok(done) => see_other(&format!("/agents/{}", segment(&done.agent.id))),
        Err(problem) => answer(admin, caller, Err(problem)).await,
    }
}

impl Find {
    fn finds(&self, agent: &Agent) -> bool {
        let words = self.q.to_lowercase();
        let owners = [&agent.owner.business, &agent.owner.technical, &agent.owner.risk];
        let mut texts =
            [&agent.id, &agent.team, &agent.purpose].into_iter().chain(owners.into_iter().flatten());
        (self.state.is_empty() || agent.state == self.state)
            && texts.any(|text| text.to_lowercase().contains(words.trim()))
    }
}
