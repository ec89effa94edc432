//! `/v1/records`: what the audit has, found by its index, and the whole story of one call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Admin;
use super::agents::moment;
use super::body::Asked;
use super::caller::{Caller, Target};
use super::problem::Problem;
use crate::call::{AgentId, PersonAction, RecordId, hex, unhex};
use crate::identify::svid;
use crate::record::index::Told;
use crate::store::{Filter, PAGE_RECORDS_MAX, PAGE_RECORDS_USUAL, Row, Shadowed, Subject};

/// How long a question waits for the index to have what the audit has.
pub(super) const CATCH_UP_MAX: Duration = Duration::from_secs(2);
/// Pages that one question looks through for records that the caller may see.
const PAGES_MAX: usize = 20;

/// Which records are wanted. What is not said lets everything through.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// Of this agent: a SPIFFE ID, or its path.
    pub agent: Option<String>,
    /// Of this upstream.
    pub upstream: Option<String>,
    /// Of this tool or operation.
    pub tool: Option<String>,
    /// Decided so (`allowed`, `denied`, `held`, …), or ended so (`executed`, `tool-error`, …).
    pub outcome: Option<String>,
    /// Let pass by shadow: what would have been `held`, `denied` or `limited`, or `any` of them.
    pub would_be: Option<String>,
    /// About this emergency lift, or decided by it.
    pub lift: Option<String>,
    /// Of this trace, 32 hexadecimal digits.
    pub trace: Option<String>,
    /// Written then or later, RFC 3339.
    pub from: Option<String>,
    /// Written before then, RFC 3339.
    pub to: Option<String>,
    /// Where the page before ended.
    pub cursor: Option<u64>,
    /// How many, 1 to 1000; 100 by default.
    pub limit: Option<usize>,
}

/// A record as the index knows it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Its number in the log.
    pub seq: u64,
    /// When it was written, RFC 3339.
    pub at: String,
    /// What it is about: `intent`, `outcome`, `refused`, `held`, `admin`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The record of the call that it belongs to.
    pub call: String,
    /// The agent.
    pub agent: String,
    /// Who answers for the agent in business.
    pub owner: String,
    /// The agent's team.
    pub team: String,
    /// The upstream.
    pub upstream: String,
    /// The tool or operation; for what the catalogue does not name, what the agent asked for.
    pub tool: String,
    /// `read`, `write` or `external`.
    pub class: String,
    /// What was decided, or how the call ended.
    pub outcome: String,
    /// What would have become of a call that shadow let pass: `held`, `denied` or `limited`.
    pub would_be: String,
    /// The rule that decided; where shadow let the call pass, the one that would have stopped it.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// The trace.
    pub trace_id: Option<String>,
    /// The run.
    pub run: String,
}

/// Some records, the newest first.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Records {
    /// Those that the caller may see.
    pub records: Vec<Record>,
    /// What to ask with for those that follow; absent when these are the last.
    pub cursor: Option<u64>,
    /// Records that are written and not in the index yet.
    pub behind: u64,
}

/// One call, as far as its first record tells.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Call {
    /// The record of the call.
    pub id: String,
    /// The agent.
    pub agent: String,
    /// Who answers for the agent in business.
    pub owner: String,
    /// The agent's team.
    pub team: String,
    /// The trace.
    pub trace_id: Option<String>,
    /// The upstream.
    pub upstream: String,
    /// The tool or operation.
    pub tool: String,
    /// What was decided.
    pub outcome: String,
    /// What the agent was told as the rule.
    pub rule: String,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// Why, as an operator reads it.
    pub reason: String,
    /// The stage that stopped the call, when one did.
    pub stage: Option<String>,
    /// What was asked for where the catalogue has no name for it, class, consequence, effects, destinations (as pseudonyms), labels and findings that the decision went by.
    pub evidence: Value,
    /// What would have become of it, where shadow let it pass: `outcome`, `rule`, `policies`, `reason` and `detail`.
    pub would_be: Option<Value>,
    /// How it ended, when it was sent.
    pub ended: Option<String>,
}

/// The whole story of one call, or of one trace.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Story {
    /// The calls in it, in order.
    pub calls: Vec<Call>,
    /// Every record as it is in the audit, in the log's order.
    pub records: Vec<Value>,
    /// Records whose line cannot be shown, and why.
    pub missing: Vec<Missing>,
    /// Records of agents that the caller may not see.
    pub withheld: usize,
}

/// A record whose line cannot be shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Missing {
    /// Its id.
    pub id: String,
    /// Why.
    pub why: String,
}

/// What a caller may see, remembered for one request.
pub(super) struct Sight<'a> {
    admin: &'a Admin,
    caller: &'a Caller,
    agents: HashMap<String, bool>,
}

impl<'a> Sight<'a> {
    pub(super) fn new(admin: &'a Admin, caller: &'a Caller) -> Sight<'a> {
        Sight { admin, caller, agents: HashMap::new() }
    }

    /// Whether records of this agent are shown. Those of no agent, and of one that is registered no more, are the
    /// gateway's own.
    pub(super) fn shows(&mut self, agent: &str) -> bool {
        if let Some(shows) = self.agents.get(agent) {
            return *shows;
        }
        let id = svid::parse_id(agent).ok();
        let known = id.as_ref().and_then(|id| self.admin.directory().find(id));
        let shows = match (&id, &known) {
            (Some(id), Some(known)) => self.caller.sees(self.admin, Target::Agent(id, known)),
            _ => self.caller.sees(self.admin, Target::Gateway),
        };
        self.agents.insert(agent.to_owned(), shows);
        shows
    }
}

/// `GET /v1/records`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Records>, Problem> {
    page(&admin, &caller, &wanted).await.map(Json)
}

/// A page of what a caller wants and may see.
pub(super) async fn page(admin: &Admin, caller: &Caller, wanted: &Wanted) -> Result<Records, Problem> {
    let (mut filter, limit) = filter(admin, wanted)?;
    admin.index.caught_up(CATCH_UP_MAX).await;
    let mut sight = Sight::new(admin, caller);
    let mut found = Records { behind: admin.index.behind(), ..Records::default() };
    for _ in 0..PAGES_MAX {
        filter.limit = Some(limit.saturating_sub(found.records.len()));
        let page = admin.index.records(filter.clone()).await?;
        let rows = page.rows.into_iter().filter(|row| sight.shows(&row.agent));
        found.records.extend(rows.map(|row| record(admin, row)));
        (found.cursor, filter.cursor) = (page.next, page.next);
        if page.next.is_none() || found.records.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// What the index is asked, and for how many.
fn filter(admin: &Admin, wanted: &Wanted) -> Result<(Filter, usize), Problem> {
    let said = |text: &Option<String>| {
        text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let invalid = |text: String| Err(Problem::Invalid(text));
    let limit = wanted.limit.unwrap_or(PAGE_RECORDS_USUAL);
    if !(1..=PAGE_RECORDS_MAX).contains(&limit) {
        return invalid(format!("limit: must be 1 to {PAGE_RECORDS_MAX}"));
    }
    let agent = match said(&wanted.agent) {
        None => None,
        // One that is registered no more has records still.
        Some(name) => match (admin.agent(&name), svid::parse_id(&name)) {
            (Ok((id, _)), _) | (Err(_), Ok(id)) => Some(id.to_string()),
            (Err(problem), Err(_)) => return Err(problem),
        },
    };
    let trace = match said(&wanted.trace) {
        None => None,
        Some(text) => match unhex(&text.to_ascii_lowercase()) {
            Some(trace) => Some(trace),
            None => return invalid(format!("trace: `{text}` is not 32 hexadecimal digits")),
        },
    };
    let would_be = match said(&wanted.would_be) {
        None => None,
        Some(text) if text == "any" => Some(Shadowed::Any),
        Some(text) if ["held", "denied", "limited"].contains(&&*text) => Some(Shadowed::As(text)),
        Some(text) => return invalid(format!("would_be: `{text}` is not held, denied, limited or any")),
    };
    let lift = match said(&wanted.lift) {
        None => None,
        Some(text) => match RecordId::parse(&text) {
            Some(lift) => Some(lift),
            None => return invalid(format!("lift: `{text}` is no id of an emergency lift")),
        },
    };
    let time = |key: &str, text: &Option<String>| match said(text) {
        None => Ok(None),
        Some(text) => instant(&text).map(Some).ok_or_else(|| {
            Problem::Invalid(format!("{key}: `{text}` is not a time such as 2026-11-20T12:00:00Z"))
        }),
    };
    let filter = Filter {
        agent,
        upstream: said(&wanted.upstream),
        tool: said(&wanted.tool),
        outcome: said(&wanted.outcome),
        would_be,
        lift,
        trace,
        from: time("from", &wanted.from)?,
        to: time("to", &wanted.to)?,
        cursor: wanted.cursor,
        limit: None,
    };
    Ok((filter, limit))
}

/// A moment, RFC 3339, or as a form of the console gives it: without seconds or zone, which is UTC then.
fn instant(text: &str) -> Option<SystemTime> {
    let forms = [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")];
    forms.iter().find_map(|form| OffsetDateTime::parse(form, &Rfc3339).ok()).map(SystemTime::from)
}

/// A row as it is told, with the owner and team that the registry names today where the record has none.
pub(super) fn record(admin: &Admin, row: Row) -> Record {
    let known = svid::parse_id(&row.agent).ok().and_then(|id| admin.directory().find(&id));
    let entry = known.as_ref().map(|known| known.entry());
    let or = |text: String, today: Option<&str>| {
        if text.is_empty() { today.unwrap_or_default().to_owned() } else { text }
    };
    Record {
        id: row.id.to_string(),
        seq: row.seq,
        at: moment(row.at),
        kind: row.kind,
        call: row.call.to_string(),
        agent: row.agent,
        owner: or(row.owner, entry.and_then(|entry| entry.owners.business.as_deref())),
        team: or(row.team, entry.map(|entry| &*entry.team)),
        upstream: row.upstream,
        tool: row.tool,
        class: row.class,
        outcome: row.outcome,
        would_be: row.would_be,
        rule: row.rule,
        reason: row.reason,
        trace_id: row.trace.map(|trace| hex(&trace)),
        run: row.run,
    }
}

/// `GET /v1/records/{id}`
pub(super) async fn story(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Story>, Problem> {
    told(&admin, &caller, &id).await.map(Json)
}

/// The story of a record's call, or of a trace, as far as the caller may see it.
pub(super) async fn told(admin: &Admin, caller: &Caller, id: &str) -> Result<Story, Problem> {
    admin.index.caught_up(CATCH_UP_MAX).await;
    let told = match subject(admin, id).await? {
        Some(subject) => admin.index.story(subject).await?,
        None => Vec::new(),
    };
    let Some(first) = told.first() else {
        return Err(Problem::NotFound(format!("no record and no trace `{id}`")));
    };
    let first = first.row.agent.clone();
    let (mut sight, count) = (Sight::new(admin, caller), told.len());
    let told: Vec<Told> = told.into_iter().filter(|told| sight.shows(&told.row.agent)).collect();
    if told.is_empty() {
        refuse(admin, caller, &first).await?;
    }
    let mut story =
        Story { calls: Vec::new(), records: Vec::new(), missing: Vec::new(), withheld: count - told.len() };
    for Told { row, line } in told {
        match line
            .map_err(|why| why.to_string())
            .and_then(|line| serde_json::from_str::<Value>(&line).map_err(|error| error.to_string()))
        {
            Ok(value) => {
                add(&mut story.calls, record(admin, row), &value);
                story.records.push(value);
            }
            Err(why) => story.missing.push(Missing { id: row.id.to_string(), why }),
        }
    }
    Ok(story)
}

/// The refusal of somebody who may see nothing of a story; it is on record.
async fn refuse(admin: &Admin, caller: &Caller, agent: &str) -> Result<(), Problem> {
    let id: Option<AgentId> = svid::parse_id(agent).ok();
    let known = id.as_ref().and_then(|id| admin.directory().find(id));
    let target = match (&id, &known) {
        (Some(id), Some(known)) => Target::Agent(id, known),
        _ => Target::Gateway,
    };
    caller.may(admin, PersonAction::View, target, "").await.map(|_| ())
}

/// What an id names: a trace, or the call of a record.
async fn subject(admin: &Admin, id: &str) -> Result<Option<Subject>, Problem> {
    let id = id.trim().to_ascii_lowercase();
    if let Some(trace) = unhex(&id) {
        return Ok(Some(Subject::Trace(trace)));
    }
    let Ok(id) = uuid::Uuid::try_parse(&id) else {
        return Err(Problem::Invalid(format!("`{id}` is neither a record's id nor a trace's")));
    };
    let told = admin.index.record(RecordId::from_u128(id.as_u128())).await?;
    Ok(told.map(|told| Subject::Call(told.row.call)))
}

/// Adds what a record says of a call: its first record what was decided, and its outcome how it ended.
fn add(calls: &mut Vec<Call>, record: Record, line: &Value) {
    let text = |pointer: &str| line.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    if record.kind == "outcome" {
        if let Some(call) = calls.iter_mut().find(|call| call.id == record.call) {
            call.ended = text("/status");
        }
        return;
    }
    if !["intent", "refused", "held"].contains(&record.kind.as_str()) {
        return;
    }
    let policies = line.pointer("/decision/policies").and_then(Value::as_array);
    let told = ["asked", "class", "consequence", "effects", "destinations", "labels", "findings"];
    let evidence = told.iter().filter_map(|name| Some(((*name).to_owned(), line.get(name)?.clone())));
    // A refusal before policy was asked has the reason of its stage alone.
    let reason = [text("/decision/reason"), text("/detail"), text("/reason")].into_iter().flatten();
    calls.push(Call {
        id: record.id,
        agent: record.agent,
        owner: record.owner,
        team: record.team,
        trace_id: record.trace_id,
        upstream: record.upstream,
        tool: record.tool,
        outcome: record.outcome,
        rule: record.rule,
        policies: policies.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
        reason: reason.into_iter().find(|reason| !reason.is_empty()).unwrap_or_default(),
        stage: text("/stage"),
        evidence: Value::Object(evidence.collect()),
        would_be: line.get("would_be").cloned(),
        ended: None,
    });
}
