//! `/v1/tools`: what the catalogue says of each tool and operation, and whether its definition is still believed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::body::Asked;
use super::caller::{Caller, Target};
use super::problem::Problem;
use super::shadow::{InShadow, Shadowed};
use crate::call::{PersonAction, ResourceKind};
use crate::classify::catalog::{self, Entry, UpstreamKind};
use crate::definitions::difference;
use crate::definitions::{Definitions, Standing};

/// Differences in one answer: each is read from the store. What drifted beyond says so without its difference.
const DIFFERENCES_MAX: usize = 32;

/// Which tools are wanted. What is not said lets everything through.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// Of this upstream.
    pub upstream: Option<String>,
}

/// The catalogue in force, as far as the caller may see it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tools {
    /// By name.
    pub upstreams: Vec<Upstream>,
}

/// One upstream and its tools.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// `mcp` or `http`.
    pub kind: String,
    /// `inside` or `outside` the organization.
    pub boundary: String,
    /// Its environment; empty when not said.
    pub environment: String,
    /// Whether what the catalogue does not name is refused; else it is external and of consequence 3.
    pub strict: bool,
    /// The shadow that it is in, if it is in one.
    pub shadow: Option<Shadowed>,
    /// Whether its list of tools is known; always false for `http`, which has none.
    pub listed: bool,
    /// What the catalogue names: what has drifted first, then by name.
    pub tools: Vec<Tool>,
    /// Tools that it serves and the catalogue does not name, by name.
    pub uncatalogued: Vec<String>,
}

/// One entry of the catalogue.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tool {
    /// The tool, MCP method, or operation as in `GET /v1/customers/{id}`.
    pub name: String,
    /// `tool` or `operation`.
    pub kind: String,
    /// What it is for; empty when not said.
    pub description: String,
    /// `read`, `write` or `external`, before its conditions.
    pub class: String,
    /// 0 to 4, before its conditions.
    pub consequence: u8,
    /// Its effects.
    pub effects: Vec<String>,
    /// Whether what it does can be undone.
    pub reversible: bool,
    /// Conditions that set class, consequence or effects by the call's arguments.
    pub conditions: usize,
    /// What its definition is held to: `pin`, `first-sight`, or `nothing` where no definition is known.
    pub held_to: String,
    /// Whether its definition is believed. If not, it counts as a tool that nobody described.
    pub sound: bool,
    /// Why not: `absent`, `changed`, `hidden-text`, `looks-alike`, `repeated`, `unpinned`, `unreadable` or `unseen`.
    pub drift: Option<String>,
    /// The same as a sentence.
    pub why: Option<String>,
    /// The digest to which it is pinned.
    pub pin: Option<String>,
    /// The digest of the definition that was seen first, or was accepted since.
    pub first: Option<String>,
    /// The digest of the definition that is served.
    pub served: Option<String>,
    /// How what is served differs from what it is held to, in lines that begin with `-`, `+` or a space; what is served,
    /// where it is suspicious in itself. Absent where the words are not kept.
    pub difference: Option<String>,
}

/// `GET /v1/tools`
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Tools>, Problem> {
    told(&admin, &caller, &wanted).await.map(Json)
}

/// What a caller wants and may see of the catalogue in force.
pub(super) async fn told(admin: &Admin, caller: &Caller, wanted: &Wanted) -> Result<Tools, Problem> {
    let generation = admin.gateway.in_force.load_full();
    let named = wanted.upstream.as_deref().map(str::trim).filter(|name| !name.is_empty());
    if let Some(name) = named {
        let Some(upstream) = generation.catalog.upstream(name) else {
            return Err(Problem::NotFound(format!("no upstream `{name}`")));
        };
        caller.may(admin, PersonAction::View, Target::Upstream(upstream.profile()), "").await?;
    }
    let shadows = InShadow::now(admin).upstreams;
    let (mut upstreams, mut differences) = (Vec::new(), 0);
    for upstream in generation.catalog.upstreams() {
        let config = upstream.config();
        if named.is_some_and(|name| *config.name != *name)
            || !caller.sees(admin, Target::Upstream(upstream.profile()))
        {
            continue;
        }
        let mut one = described(upstream, &generation.definitions);
        one.shadow = shadows.iter().find(|shadow| *shadow.upstream == *config.name).cloned();
        for tool in one.tools.iter_mut().filter(|tool| !tool.sound) {
            if differences < DIFFERENCES_MAX {
                tool.difference = differs(&generation.definitions, &config.name, tool).await?;
                differences += usize::from(tool.difference.is_some());
            }
        }
        upstreams.push(one);
    }
    Ok(Tools { upstreams })
}

fn described(upstream: &catalog::Upstream, definitions: &Definitions) -> Upstream {
    let config = upstream.config();
    let served = definitions.served(&config.name);
    let mut tools: Vec<Tool> = upstream.entries().map(|entry| tool(definitions, entry)).collect();
    tools.sort_by(|a, b| (a.sound, &a.name).cmp(&(b.sound, &b.name)));
    let names = served.iter().flat_map(|served| served.tools.keys());
    let unnamed = names.filter(|name| upstream.tool(name).is_none());
    let mut uncatalogued: Vec<String> = unnamed.map(|name| name.to_string()).collect();
    uncatalogued.sort();
    Upstream {
        name: config.name.to_string(),
        kind: match config.kind {
            UpstreamKind::Http => "http",
            UpstreamKind::Mcp => "mcp",
        }
        .to_owned(),
        boundary: if config.inside { "inside" } else { "outside" }.to_owned(),
        environment: config.environment.to_string(),
        strict: config.strict,
        shadow: None,
        listed: served.is_some(),
        tools,
        uncatalogued,
    }
}

fn tool(definitions: &Definitions, entry: &Entry) -> Tool {
    let profile = &entry.profile;
    let is_tool = profile.kind == ResourceKind::Tool;
    let served = definitions.served(&profile.upstream).filter(|_| is_tool);
    let served = served.and_then(|served| served.tools.get(&profile.name).cloned());
    let standing = match is_tool {
        true => definitions.standing(&profile.upstream, &profile.name, entry.pin.as_deref()),
        false => Standing::Sound(None),
    };
    let drift = match standing {
        Standing::Sound(_) => None,
        Standing::Drifted(drift, _) => Some(drift),
    };
    let digest = |text: &Arc<str>| Some(text.to_string()).filter(|text| !text.is_empty());
    Tool {
        name: profile.name.to_string(),
        kind: if is_tool { "tool" } else { "operation" }.to_owned(),
        description: entry.description.clone(),
        class: profile.class.as_str().to_owned(),
        consequence: profile.consequence.level(),
        effects: entry.effects.iter().map(|effect| effect.as_str().to_owned()).collect(),
        reversible: profile.reversible,
        conditions: entry.when.len(),
        held_to: match (&entry.pin, &served) {
            (Some(_), _) => "pin",
            (None, Some(_)) => "first-sight",
            (None, None) => "nothing",
        }
        .to_owned(),
        sound: drift.is_none(),
        drift: drift.map(|drift| drift.as_str().to_owned()),
        why: drift.map(|drift| drift.told().to_owned()),
        pin: entry.pin.as_deref().map(str::to_owned),
        first: served.as_ref().and_then(|served| digest(&served.first)),
        served: served.as_ref().and_then(|served| digest(&served.digest)),
        difference: None,
    }
}

/// How what is served differs from what a tool is held to, or what it says; none where the words of either are not kept.
async fn differs(definitions: &Definitions, upstream: &str, tool: &Tool) -> Result<Option<String>, Problem> {
    let Some(served) = &tool.served else { return Ok(None) };
    let sights = &definitions.sights;
    let words = |digest: &str| {
        let digest = digest.to_owned();
        async move { sights.words(upstream, &tool.name, &digest).await.map_err(Problem::Unavailable) }
    };
    let Some(after) = words(served).await? else { return Ok(None) };
    if let Some(held_to) = tool.pin.as_deref().or(tool.first.as_deref()).filter(|digest| *digest != served) {
        return Ok(words(held_to).await?.map(|before| difference::difference(&before, &after)));
    }
    Ok(Some(difference::told(&after)))
}
