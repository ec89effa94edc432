//! The registry's YAML: one file or a directory of files, each a list of agents with optional defaults.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::sources::Sources;
use crate::call::{AgentId, Autonomy};
use crate::identify::directory::{Directory, Entry, Owners, State};
use crate::identify::svid;
use crate::units;
use crate::yaml::{self, Mistake};

/// The form of a file with named parts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    /// What entries of this file have when they do not say otherwise.
    pub defaults: Option<RawAgent>,
    /// The entries.
    #[serde(default)]
    pub agents: Vec<RawAgent>,
}

/// One entry, or with `defaults` alone the defaults of its file.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAgent {
    /// What entries of this file have when they do not say otherwise; such an item has nothing else.
    pub defaults: Option<Box<RawAgent>>,
    /// The SPIFFE ID; may end in `/*` below a path.
    pub id: Option<String>,
    /// The accountable people.
    #[serde(default)]
    pub owner: RawOwners,
    /// The owning team.
    pub team: Option<String>,
    /// Groups for policy and limits.
    pub groups: Option<Vec<String>>,
    /// What the agent is for.
    pub purpose: Option<String>,
    /// `read-only` (the default), `constrained` or `delegated`.
    pub autonomy: Option<RawAutonomy>,
    /// `active` (the default), `suspended` or `retired`.
    pub state: Option<RawState>,
    /// 0 to 4; 4 when nobody has said.
    pub risk: Option<u8>,
    /// Where the agent runs.
    pub region: Option<String>,
    /// The vendor that manages the agent; absent or null for our own.
    pub vendor: Option<String>,
    /// The day by which the entry must be reviewed, `2027-03-01`.
    pub review_due: Option<String>,
}

/// The accountable people, by e-mail.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawOwners {
    /// For the business.
    pub business: Option<String>,
    /// For operation.
    pub technical: Option<String>,
    /// For the risk.
    pub risk: Option<String>,
}

/// The words for autonomy.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the autonomy of that name")]
pub enum RawAutonomy {
    ReadOnly,
    Constrained,
    Delegated,
}

/// The words for the state of an agent.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the state of that name")]
pub enum RawState {
    Active,
    Suspended,
    Retired,
}

/// Reads a file, or every `.yaml` and `.yml` file of a directory, adding every mistake, and what was read.
pub fn load(path: &Path, sources: &mut Sources, mistakes: &mut Vec<Mistake>) -> Directory {
    let mut texts = Vec::new();
    sources.will_read(path);
    for file in files(path, mistakes) {
        let name = file.display().to_string();
        sources.will_read(&file);
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                sources.has_read("agents", name.as_bytes(), text.as_bytes());
                texts.push((name, text));
            }
            Err(error) => mistakes.push(Mistake::new(&name, "", format!("cannot be read: {error}"))),
        }
    }
    parse(&texts, mistakes)
}

fn files(path: &Path, mistakes: &mut Vec<Mistake>) -> Vec<std::path::PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let name = path.display().to_string();
    let yaml = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    let found = std::fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    match found {
        Ok(found) => {
            let mut files: Vec<_> = found.into_iter().filter(yaml).collect();
            files.sort();
            files
        }
        Err(error) => {
            mistakes.push(Mistake::new(&name, "", format!("cannot be read: {error}")));
            Vec::new()
        }
    }
}

/// Reads files given as name and text, adding every mistake.
pub fn parse(files: &[(String, String)], mistakes: &mut Vec<Mistake>) -> Directory {
    let mut entries = Vec::new();
    let mut seen: HashMap<(AgentId, bool), String> = HashMap::new();
    for (file, text) in files {
        for (path, raw) in raw_agents(file, text, mistakes) {
            let Some(entry) = entry(file, &path, &raw, mistakes) else { continue };
            let here = format!("{file}: {path}");
            match seen.insert((entry.id.clone(), entry.wildcard), here) {
                Some(first) => {
                    let problem = format!("this id is already registered at {first}");
                    mistakes.push(Mistake::new(file, format!("{path}.id"), problem));
                }
                None => entries.push(entry),
            }
        }
    }
    Directory::new(entries)
}

/// The entries of one file with its defaults applied, each with its path.
fn raw_agents(file: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Vec<(String, RawAgent)> {
    let shape = serde_saphyr::from_str::<serde_json::Value>(text);
    let (mut defaults, agents, prefix) = match shape {
        Ok(serde_json::Value::Null) => return Vec::new(),
        Ok(serde_json::Value::Object(_)) => {
            let raw: RawFile = yaml::read(file, text, mistakes).unwrap_or_default();
            (raw.defaults, raw.agents, "agents")
        }
        _ => (None, yaml::read::<Vec<RawAgent>>(file, text, mistakes).unwrap_or_default(), ""),
    };
    let mut found = Vec::new();
    for (at, mut agent) in agents.into_iter().enumerate() {
        let path = format!("{prefix}[{at}]");
        let Some(given) = agent.defaults.take() else {
            found.push((path, agent));
            continue;
        };
        if agent.id.is_some() {
            mistakes.push(Mistake::new(file, &path, "an item is either an agent or defaults, not both"));
        } else if defaults.replace(*given).is_some() {
            mistakes.push(Mistake::new(file, &path, "a file has one set of defaults"));
        }
    }
    let defaults = defaults.unwrap_or_default();
    if defaults.id.is_some() || defaults.defaults.is_some() {
        mistakes.push(Mistake::new(file, "defaults", "defaults have no id and no defaults of their own"));
    }
    found.into_iter().map(|(path, agent)| (path, merged(agent, &defaults))).collect()
}

fn merged(agent: RawAgent, defaults: &RawAgent) -> RawAgent {
    let owner = &defaults.owner;
    RawAgent {
        defaults: None,
        id: agent.id,
        owner: RawOwners {
            business: agent.owner.business.or_else(|| owner.business.clone()),
            technical: agent.owner.technical.or_else(|| owner.technical.clone()),
            risk: agent.owner.risk.or_else(|| owner.risk.clone()),
        },
        team: agent.team.or_else(|| defaults.team.clone()),
        groups: agent.groups.or_else(|| defaults.groups.clone()),
        purpose: agent.purpose.or_else(|| defaults.purpose.clone()),
        autonomy: agent.autonomy.or(defaults.autonomy),
        state: agent.state.or(defaults.state),
        risk: agent.risk.or(defaults.risk),
        region: agent.region.or_else(|| defaults.region.clone()),
        vendor: agent.vendor.or_else(|| defaults.vendor.clone()),
        review_due: agent.review_due.or_else(|| defaults.review_due.clone()),
    }
}

fn entry(file: &str, path: &str, raw: &RawAgent, mistakes: &mut Vec<Mistake>) -> Option<Entry> {
    let mut wrong = |key: &str, problem: String| {
        mistakes.push(Mistake::new(file, format!("{path}.{key}"), problem));
    };
    let risk = raw.risk.unwrap_or(4);
    if risk > 4 {
        wrong("risk", format!("{risk} is not between 0 and 4"));
    }
    let review_due = raw.review_due.as_deref().and_then(|text| {
        let date = units::date(text);
        if date.is_none() {
            wrong("review_due", format!("{text} is not a date such as 2027-03-01"));
        }
        date
    });
    let Some(id) = raw.id.as_deref() else {
        wrong("id", "missing: a SPIFFE ID such as spiffe://example.org/agent/support".to_owned());
        return None;
    };
    let (id, wildcard) = match parse_pattern(id) {
        Ok(parsed) => parsed,
        Err(problem) => {
            wrong("id", format!("{id}: {problem}"));
            return None;
        }
    };
    let text = |value: &Option<String>| Arc::from(value.as_deref().unwrap_or_default());
    let named = |value: &Option<String>| value.as_deref().filter(|value| !value.is_empty()).map(Arc::from);
    Some(Entry {
        id,
        wildcard,
        owners: Owners {
            business: named(&raw.owner.business),
            technical: named(&raw.owner.technical),
            risk: named(&raw.owner.risk),
        },
        team: text(&raw.team),
        groups: raw.groups.iter().flatten().map(|group| Arc::from(group.as_str())).collect(),
        purpose: text(&raw.purpose),
        autonomy: match raw.autonomy.unwrap_or(RawAutonomy::ReadOnly) {
            RawAutonomy::ReadOnly => Autonomy::ReadOnly,
            RawAutonomy::Constrained => Autonomy::Constrained,
            RawAutonomy::Delegated => Autonomy::Delegated,
        },
        state: match raw.state.unwrap_or(RawState::Active) {
            RawState::Active => State::Active,
            RawState::Suspended => State::Suspended,
            RawState::Retired => State::Retired,
        },
        risk,
        region: text(&raw.region),
        vendor: named(&raw.vendor),
        review_due,
    })
}

/// An id, or a pattern that ends in `/*` below at least one path segment (kept as the prefix that ends in `/`).
fn parse_pattern(id: &str) -> Result<(AgentId, bool), String> {
    match id.strip_suffix("/*") {
        None => Ok((svid::parse_id(id).map_err(|error| error.to_string())?, false)),
        Some(above) => {
            let above = svid::parse_id(above).map_err(|error| match error {
                svid::SvidError::RootPath => {
                    "a wildcard stands below a path, never at a trust domain's root".to_owned()
                }
                other => other.to_string(),
            })?;
            Ok((AgentId::from_normalised(&format!("{above}/")), true))
        }
    }
}
