//! `/v1/runs`: what runs have read, what was found in what they send, and letting a frozen one go on.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::agents::{Reason, moment};
use super::body::Told;
use super::caller::{Caller, Target};
use super::order;
use super::problem::Problem;
use crate::call::{AgentId, PersonAction};
use crate::flow::{self, RunView};
use crate::identify::directory::Known;
use crate::record::Durability;

/// Runs that one answer has at most; the last used ones come first.
const RUNS_SHOWN_MAX: usize = 1000;
/// How the agent as a whole is named where a run is expected.
pub(super) const WHOLE: &str = "*";

/// A run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Run {
    /// Its id, as in records; `*` for the agent as a whole.
    pub id: String,
    /// Whose it is: a SPIFFE ID.
    pub agent: String,
    /// Its calls since the gateway started.
    pub calls: u64,
    /// When it called last, RFC 3339; absent when only what it has read came back after a restart.
    pub last: Option<String>,
    /// What it has read.
    pub labels: Vec<Label>,
    /// Since when it is frozen; absent when it is not.
    pub frozen: Option<String>,
    /// Its calls that findings stopped within the window.
    pub stopped: usize,
}

/// A label of a run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Label {
    /// `confidential`, `secret` or `untrusted`.
    pub label: String,
    /// When it was brought last, RFC 3339.
    pub at: String,
    /// The record of the call that brought it.
    pub record: Option<String>,
}

/// Runs that the caller may see.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Runs {
    /// Those that called last first, and before them those that are frozen.
    pub runs: Vec<Run>,
}

/// One run with what was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// The run.
    pub run: Run,
    /// What was found in its calls, the newest first.
    pub findings: Vec<Found>,
}

/// What was found in one call: the sink.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    /// The record of the call.
    pub record: String,
    /// When, RFC 3339.
    pub at: String,
    /// The upstream that it went to, or would have gone to.
    pub upstream: String,
    /// The tool or operation.
    pub tool: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// Its word in policy.
    pub finding: String,
    /// The sources that it rests on.
    pub evidence: Vec<Evidence>,
}

/// A source: something that was read and is found again in the call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Evidence {
    /// The record of the call that read it; absent for a secret that was told by how it is made, and for what could not
    /// be learnt.
    pub record: Option<String>,
    /// The upstream that it came from.
    pub upstream: Option<String>,
    /// The tool or operation.
    pub tool: Option<String>,
    /// By what it was found: `fingerprint`, `token`, `reference`, `made` or `unknown`.
    pub how: String,
    /// How many of them.
    pub matched: u32,
    /// About how many bytes of text that is.
    pub bytes: u32,
}

/// Which of several runs of the same id.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// The agent, by its SPIFFE ID or the path of it; needed where a trace is a run of several agents, and for `*`.
    pub agent: Option<String>,
}

/// What became of an order to let a run go on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Unfrozen {
    /// The run.
    pub run: Run,
    /// Whether it was frozen.
    pub changed: bool,
    /// The record of the order.
    pub record: String,
}

/// `GET /v1/runs`
pub(super) async fn list(State(admin): State<Arc<Admin>>, caller: Caller) -> Json<Runs> {
    Json(Runs { runs: seen(&admin, &caller) })
}

/// Every run that the caller may see.
pub(super) fn seen(admin: &Admin, caller: &Caller) -> Vec<Run> {
    let mut views: Vec<RunView> = admin.gateway.runs.views();
    views.sort_by_key(|view| std::cmp::Reverse((view.frozen.is_some(), view.at)));
    let mut seen: HashMap<AgentId, bool> = HashMap::new();
    views.retain(|view| {
        *seen.entry(view.agent.clone()).or_insert_with(|| {
            let known = admin.directory().find(&view.agent);
            known.is_some_and(|known| caller.sees(admin, Target::Agent(&view.agent, &known)))
        })
    });
    views.truncate(RUNS_SHOWN_MAX);
    views.iter().map(run).collect()
}

/// `GET /v1/runs/{id}`
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(whose): Query<Whose>,
) -> Result<Json<Shown>, Problem> {
    shown(&admin, &caller, &id, &whose).await.map(Json)
}

/// Whether something of a run is still remembered.
pub(super) fn is_remembered(admin: &Admin, agent: &AgentId, run: &str) -> bool {
    admin.gateway.runs.views().iter().any(|view| view.agent == *agent && *view.run == *run)
}

/// One run, if the caller may see it.
pub(super) async fn shown(admin: &Admin, caller: &Caller, id: &str, whose: &Whose) -> Result<Shown, Problem> {
    let (view, known) = find(admin, id, whose.agent.as_deref())?;
    caller.may(admin, PersonAction::View, Target::Agent(&view.agent, &known), "").await?;
    let mut findings: Vec<Found> =
        admin.gateway.runs.found(&view.agent, &view.run).iter().map(found).collect();
    findings.reverse();
    Ok(Shown { run: run(&view), findings })
}

/// `POST /v1/runs/{id}/unfreeze`
pub(super) async fn unfreeze(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(whose): Query<Whose>,
    Told(told): Told<Reason>,
) -> Result<Json<Unfrozen>, Problem> {
    unfrozen(&admin, &caller, &id, &whose, &told.reason).await.map(Json)
}

/// Lets a frozen run go on, if the caller may.
pub(super) async fn unfrozen(
    admin: &Admin,
    caller: &Caller,
    id: &str,
    whose: &Whose,
    reason: &str,
) -> Result<Unfrozen, Problem> {
    let reason = order::reason(reason)?;
    let (view, known) = find(admin, id, whose.agent.as_deref())?;
    let target = Target::Agent(&view.agent, &known);
    let decision = caller.may(admin, PersonAction::Resume, target, reason).await?;
    let entry = caller.entry(admin, PersonAction::Resume, target, reason, &decision);
    let entry = entry.ok_or_else(|| Problem::Unavailable("the order cannot be recorded".to_owned()))?;
    let entry =
        entry.also("what", "unfreeze").also("run", if view.run.is_empty() { WHOLE } else { &view.run });
    let record = entry.id().to_string();
    // The audit first: what it does not have is not lifted.
    let appended = admin.evidence().ledger.append(entry, Durability::Synced).await;
    appended.map_err(|error| Problem::Unavailable(format!("it stays frozen: the audit: {error}")))?;
    let kept = admin.gateway.store.unfreeze(view.agent.clone(), view.run.to_string()).await;
    kept.map_err(|error| Problem::Unavailable(format!("it stays frozen: {error}")))?;
    let (runs, journal) = (&admin.gateway.runs, &admin.gateway.journal);
    let unfrozen = flow::keep::unfreeze(runs, journal, &view.agent, some(&view.run)).await;
    let changed = unfrozen.map_err(|error| {
        Problem::Unavailable(format!("it goes on, but a restart may freeze it again: {error}"))
    })?;
    let view = RunView { frozen: None, stopped: 0, ..view };
    Ok(Unfrozen { run: run(&view), changed, record })
}

/// The run, where an empty one is the agent as a whole.
fn some(run: &Arc<str>) -> Option<&Arc<str>> {
    (!run.is_empty()).then_some(run)
}

/// The one run of this id, or the agent as a whole.
fn find(admin: &Admin, id: &str, agent: Option<&str>) -> Result<(RunView, Arc<Known>), Problem> {
    let agent = agent.map(|name| admin.agent(name)).transpose()?;
    let wanted = if id == WHOLE { "" } else { id };
    let fits =
        |view: &RunView| *view.run == *wanted && agent.as_ref().is_none_or(|(agent, _)| view.agent == *agent);
    let mut found = admin.gateway.runs.views().into_iter().filter(fits);
    let none = || Problem::NotFound(format!("no run `{id}` is remembered"));
    match (found.next(), found.next()) {
        (Some(view), None) => {
            let known = admin.directory().find(&view.agent).ok_or_else(none)?;
            Ok((view, known))
        }
        (Some(one), Some(other)) => Err(Problem::Invalid(format!(
            "`{id}` is a run of {} and of {}: say which by `agent`",
            one.agent, other.agent
        ))),
        (None, _) => Err(none()),
    }
}

fn run(view: &RunView) -> Run {
    Run {
        id: if view.run.is_empty() { WHOLE.to_owned() } else { view.run.to_string() },
        agent: view.agent.to_string(),
        calls: view.calls,
        last: view.at.map(moment),
        labels: view
            .labels
            .iter()
            .map(|brought| Label {
                label: brought.label.as_str().to_owned(),
                at: moment(brought.at),
                record: brought.record.map(|record| record.to_string()),
            })
            .collect(),
        frozen: view.frozen.map(moment),
        stopped: view.stopped,
    }
}

fn found(found: &flow::Found) -> Found {
    let evidence = |one: &flow::Evidence| Evidence {
        record: one.origin.as_ref().map(|origin| origin.reply.to_string()),
        upstream: one.origin.as_ref().map(|origin| origin.upstream.to_string()),
        tool: one.origin.as_ref().map(|origin| origin.tool.to_string()),
        how: one.how.as_str().to_owned(),
        matched: one.matched,
        bytes: one.bytes,
    };
    let finding = |one: &flow::Finding| Finding {
        finding: one.kind.word().into_owned(),
        evidence: one.evidence.iter().map(evidence).collect(),
    };
    Found {
        record: found.record.to_string(),
        at: moment(found.at),
        upstream: found.upstream.to_string(),
        tool: found.tool.to_string(),
        findings: found.findings.iter().map(finding).collect(),
    }
}
