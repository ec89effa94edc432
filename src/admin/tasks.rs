//! `/v1/tasks`, on the listener for orchestrators: what a task needs, and the token that its agents show.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{FromRequestParts, Path, State};
use axum::routing::{delete, post};
use axum::{Json, Router};
use http::request::Parts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::agents::moment;
use super::body::Told;
use super::caller::Peer;
use super::problem::Problem;
use crate::call::{AgentId, RecordId};
use crate::identify::svid;
use crate::json::Members;
use crate::pipeline::Gateway;
use crate::record::{Durability, Entry, Kind};
use crate::store::tasks::{TASKS_MAX, Task};
use crate::task::{KIN_MAX, Scope};
use crate::units;

/// The longest that a task lasts.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The agents of one task.
const AGENTS_MAX: usize = 16;
/// The agents of the tasks above one.
const ABOVE_MAX: usize = 64;
/// The destinations, and the systems, of one task.
const NAMES_MAX: usize = 256;
/// The longest destination, purpose or serial number, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// What a task needs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The agent that works on it, by its SPIFFE ID. This or `agents`.
    pub agent: Option<String>,
    /// The agents that work on it: what one of them reads counts for all.
    #[serde(default)]
    pub agents: Vec<String>,
    /// Where it may send, each exactly one address, host or account.
    #[serde(default)]
    pub destinations: Vec<String>,
    /// The upstreams that it needs, by name; policy sees them as `context.task.systems`.
    #[serde(default)]
    pub systems: Vec<String>,
    /// What it is for; policy sees it as `context.task.purpose`, and it is in every record.
    pub purpose: String,
    /// How long it lasts, as in `30m`; at most 24h.
    pub ttl: String,
    /// Whether its calls are judged only by what its certificate has read, by what was read in the tasks above it, and by
    /// secrets. It needs `instance`, and one agent.
    #[serde(default)]
    pub isolated: bool,
    /// The serial number of the one certificate that may show its token, in lower-case hexadecimal.
    pub instance: Option<String>,
    /// The task of yours that it is a part of: what was read there counts here, and it ends with it.
    pub parent: Option<String>,
}

/// A task that was opened.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Opened {
    /// Its id.
    pub id: String,
    /// What its agents send as `Holdpoint-Task`. It is shown once.
    pub token: String,
    /// The run of its calls, as in records.
    pub run: String,
    /// When it ends, RFC 3339.
    pub until: String,
}

/// A task that was closed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Closed {
    /// Its id.
    pub id: String,
    /// The tasks below it that ended with it.
    pub below: Vec<String>,
}

/// An orchestrator, by its certificate.
pub(super) struct Orchestrator {
    id: AgentId,
    serial: Arc<str>,
}

impl<S: Send + Sync> FromRequestParts<S> for Orchestrator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Orchestrator, Problem> {
        match parts.extensions.get::<Peer>() {
            Some(Peer::Certificate { id, serial, .. }) => {
                Ok(Orchestrator { id: id.clone(), serial: Arc::clone(serial) })
            }
            Some(Peer::Guest { .. } | Peer::Local { .. }) | None => {
                Err(Problem::Forbidden("only an orchestrator opens tasks, with a certificate".to_owned()))
            }
        }
    }
}

/// Everything that an orchestrator reaches.
pub(super) fn router(gateway: &Arc<Gateway>) -> Router {
    Router::new()
        .route("/v1/tasks", post(open))
        .route("/v1/tasks/{id}", delete(close))
        .fallback(|_: Orchestrator| async { Problem::NotFound("there is no such page".to_owned()) })
        .method_not_allowed_fallback(|_: Orchestrator| async { Problem::Method })
        .with_state(Arc::clone(gateway))
}

/// `POST /v1/tasks`
async fn open(
    State(gateway): State<Arc<Gateway>>,
    orchestrator: Orchestrator,
    Told(opening): Told<Opening>,
) -> Result<Json<Opened>, Problem> {
    let now = SystemTime::now();
    let task = task(&gateway, &orchestrator, opening, now)?;
    if gateway.tasks.count(now) >= TASKS_MAX {
        return Err(Problem::Busy("too many tasks are open: close those that have ended"));
    }
    if task.isolated && gateway.tasks.kin(&Scope::new(task.clone())).is_none() {
        return Err(Problem::Invalid(format!("`parent`: an isolated task has at most {KIN_MAX} above it")));
    }
    // The audit first, then the store: a token is given when nothing can forget what it allows.
    let entry = recorded(&gateway, &orchestrator, &task);
    let appended = gateway.evidence.ledger.append(entry, Durability::Synced).await;
    appended.map_err(|error| Problem::Unavailable(format!("the task is not opened: the audit: {error}")))?;
    gateway.store.open_task(task.clone()).await?;
    gateway.runs.meet_by_task(&task.agents, &task.above, now);
    let scope = gateway.tasks.open(Scope::new(task));
    Ok(Json(Opened {
        id: scope.task.id.to_string(),
        token: gateway.tasks.token(&scope.task),
        run: scope.run(),
        until: moment(scope.task.until),
    }))
}

/// `DELETE /v1/tasks/{id}`
async fn close(
    State(gateway): State<Arc<Gateway>>,
    orchestrator: Orchestrator,
    Path(id): Path<String>,
) -> Result<Json<Closed>, Problem> {
    let scope = own(&gateway, &orchestrator, &id)?;
    // Out of force first, whatever the disk does.
    let closed = gateway.tasks.close(scope.task.id);
    let forgotten = |error: &dyn std::fmt::Display| {
        Problem::Unavailable(format!("task {id} is closed, but not for good: {error}"))
    };
    for each in &closed {
        let mut members = Members::default();
        members.text("what", "close");
        members.plain("task", each);
        members.object("by", |members| orchestrator.describe(members));
        let entry = Entry::new(Kind::Task, None, members);
        let appended = gateway.evidence.ledger.append(entry, Durability::Synced).await;
        appended.map_err(|error| forgotten(&error))?;
        gateway.store.close_task(*each).await.map_err(|error| forgotten(&error))?;
    }
    let below = closed.iter().filter(|each| **each != scope.task.id).map(ToString::to_string).collect();
    Ok(Json(Closed { id, below }))
}

/// A task of this orchestrator that is open. One of another is not there.
fn own(gateway: &Gateway, orchestrator: &Orchestrator, id: &str) -> Result<Arc<Scope>, Problem> {
    let scope = RecordId::parse(id).and_then(|id| gateway.tasks.find(id));
    let scope = scope
        .filter(|scope| scope.task.by == orchestrator.id.as_str() && SystemTime::now() < scope.task.until);
    scope.ok_or_else(|| Problem::NotFound(format!("no task `{id}` of yours is open")))
}

/// The task that is asked for; the error names what is wrong with it.
fn task(
    gateway: &Gateway,
    orchestrator: &Orchestrator,
    opening: Opening,
    now: SystemTime,
) -> Result<Task, Problem> {
    let Opening { agent, agents, destinations, systems, purpose, ttl, isolated, instance, parent } = opening;
    let time = units::duration(&ttl).filter(|time| !time.is_zero() && *time <= TIME_MAX);
    let time =
        time.ok_or_else(|| Problem::Invalid("`ttl` must be a time such as 30m, at most 24h".to_owned()))?;
    let agents = self::agents(gateway, agent.into_iter().chain(agents))?;
    if isolated {
        apart(&agents, instance.as_deref())?;
    }
    if destinations.len() > NAMES_MAX || systems.len() > NAMES_MAX {
        return Err(Problem::Invalid(format!("at most {NAMES_MAX} destinations and as many systems")));
    }
    let texts = destinations.iter().map(|text| ("destinations", text));
    let texts = texts.chain([("purpose", &purpose)]).chain(instance.as_ref().map(|text| ("instance", text)));
    for (name, text) in texts {
        if text.trim().is_empty()
            || text.len() > TEXT_BYTES_MAX
            || name == "destinations" && text.contains('*')
        {
            return Err(Problem::Invalid(format!(
                "`{name}`: each must say exactly one thing, in at most {TEXT_BYTES_MAX} bytes"
            )));
        }
    }
    let generation = gateway.in_force.load();
    if let Some(name) = systems.iter().find(|name| generation.catalog.upstream(name).is_none()) {
        return Err(Problem::Invalid(format!("`systems`: there is no upstream `{name}`")));
    }
    let parent = parent.map(|id| own(gateway, orchestrator, &id)).transpose()?;
    let mut until = now + time;
    let mut above: Vec<AgentId> = Vec::new();
    if let Some(parent) = &parent {
        until = until.min(parent.task.until);
        let all = parent.task.agents.iter().chain(&parent.task.above).cloned();
        all.for_each(|agent| {
            if !above.contains(&agent) {
                above.push(agent)
            }
        });
    }
    if above.len() > ABOVE_MAX {
        return Err(Problem::Invalid(format!("`parent`: more than {ABOVE_MAX} agents are above this task")));
    }
    Ok(Task {
        id: RecordId::new(),
        by: orchestrator.id.to_string(),
        agents,
        destinations,
        systems,
        purpose,
        instance,
        isolated,
        parent: parent.map(|parent| parent.task.id),
        above,
        at: now,
        until,
    })
}

/// Refuses to isolate what more than one certificate may do: others could have read anything.
fn apart(agents: &[AgentId], instance: Option<&str>) -> Result<(), Problem> {
    if instance.is_none() {
        return Err(Problem::Invalid(
            "`isolated` needs `instance`, the serial number of the one certificate that does the work: without it, every \
             instance of the agent could show the token, whatever it has read"
                .to_owned(),
        ));
    }
    match agents {
        [_] => Ok(()),
        _ => Err(Problem::Invalid("`isolated` is for one agent: a certificate is no other one's".to_owned())),
    }
}

/// The agents by their SPIFFE IDs, each of which must be in the registry.
fn agents(gateway: &Gateway, names: impl Iterator<Item = String>) -> Result<Vec<AgentId>, Problem> {
    let directory = &gateway.in_force.load().directory;
    let mut agents = Vec::new();
    for name in names {
        let id = svid::parse_id(&name).map_err(|error| Problem::Invalid(format!("`{name}`: {error}")))?;
        if directory.find(&id).is_none() {
            return Err(Problem::no_agent(&name));
        }
        if !agents.contains(&id) {
            agents.push(id);
        }
    }
    if agents.is_empty() || agents.len() > AGENTS_MAX {
        return Err(Problem::Invalid(format!("`agent`, or 1 to {AGENTS_MAX} `agents`, must be named")));
    }
    Ok(agents)
}

fn recorded(gateway: &Gateway, orchestrator: &Orchestrator, task: &Task) -> Entry {
    let key = &gateway.evidence.pseudonyms;
    let places: Vec<String> = task.destinations.iter().map(|text| key.pseudonym(text.as_bytes())).collect();
    let mut members = Members::default();
    members.text("what", "open");
    members.plain("task", task.id);
    members.object("by", |members| orchestrator.describe(members));
    members.texts("agents", task.agents.iter().map(AgentId::as_str));
    members.texts("destinations", places.iter().map(String::as_str));
    members.texts("systems", task.systems.iter().map(String::as_str));
    members.text("purpose", &task.purpose);
    if let Some(instance) = &task.instance {
        members.text("instance", instance);
    }
    if task.isolated {
        members.flag("isolated", true);
    }
    if let Some(parent) = task.parent {
        members.plain("parent", parent);
    }
    members.text("until", &moment(task.until));
    Entry::new(Kind::Task, None, members)
}

impl Orchestrator {
    fn describe(&self, members: &mut Members) {
        members.text("kind", "orchestrator");
        members.text("id", self.id.as_str());
        members.text("instance", &self.serial);
    }
}
