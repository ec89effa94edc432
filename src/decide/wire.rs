//! The policy input as JSON: what a record keeps, so that a decision can be explained and asked again.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cedar::view;
use crate::call::{
    AgentId, AgentProfile, Approval, Auth, Autonomy, BreakGlass, Class, Consequence, Drift, Effect,
    Integrity, Lifted, PolicyAction, PolicyInput, Profile, ResourceKind, ResourceProfile, Task, Word,
};
use crate::json::Members;
use crate::units;

/// The ways of authentication that there are.
const METHODS: [&str; 1] = ["mtls"];

/// The whole input. It has no destinations and no arguments, only what policy looks at.
pub fn to_json(input: &PolicyInput) -> Value {
    let mut members = Members::default();
    members.object("agent", |members| {
        members.text("id", input.agent.id.as_str());
        members.text("owner", &input.agent.owner);
        agent_rest(&input.agent, members);
    });
    members.object("resource", |members| {
        members.text("upstream", &input.resource.upstream);
        members.text("name", &input.resource.name);
        resource_rest(&input.resource, members);
    });
    members.text("class", input.class.as_str());
    members.number("consequence", input.consequence.level());
    texts("effects", input.effects.iter().map(|effect| effect.as_str()), &mut members);
    members.object("run", |members| {
        texts("labels", words(&input.labels), members);
        texts("findings", words(&input.findings), members);
        run_rest(input, members);
    });
    members.object("auth", |members| {
        auth_rest(&input.auth, members);
        members.text("instance", &input.auth.instance);
    });
    members.plain("source_ip", input.source_ip);
    rest(input, &mut members);
    // Members are JSON by construction.
    serde_json::from_slice(&members.into_object()).unwrap_or(Value::Null)
}

/// Writes as `input` what the record of a call does not say of it anyway; what is empty is left out.
pub fn write(input: &PolicyInput, members: &mut Members) {
    members.object("input", |members| {
        members.object("agent", |members| agent_rest(&input.agent, members));
        members.object("resource", |members| resource_rest(&input.resource, members));
        members.object("run", |members| run_rest(input, members));
        members.object("auth", |members| auth_rest(&input.auth, members));
        rest(input, members);
    });
}

/// The whole input of a record, as [`to_json`] writes it, from what [`write`] and the record itself say.
pub fn of_record(record: &Value) -> Value {
    let mut input = record.get("input").cloned().unwrap_or_default();
    let peer = record.get("peer").and_then(Value::as_str).and_then(|peer| peer.parse::<SocketAddr>().ok());
    let said = [
        ("/agent", "id", record.pointer("/agent/id").cloned()),
        ("/agent", "owner", record.get("owner").cloned()),
        ("/resource", "upstream", record.get("upstream").cloned()),
        ("/resource", "name", record.get("tool").cloned()),
        ("/run", "labels", record.get("labels").cloned()),
        ("/run", "findings", record.get("findings").cloned()),
        ("/auth", "instance", record.pointer("/agent/instance").cloned()),
        ("", "class", record.get("class").cloned()),
        ("", "consequence", record.get("consequence").cloned()),
        ("", "effects", record.get("effects").cloned()),
        ("", "source_ip", peer.map(|peer| Value::String(peer.ip().to_string()))),
    ];
    for (place, name, value) in said {
        if let (Some(object), Some(value)) = (input.pointer_mut(place).and_then(Value::as_object_mut), value)
        {
            object.entry(name).or_insert(value);
        }
    }
    input
}

/// What neither the record nor an object of its own says.
fn rest(input: &PolicyInput, members: &mut Members) {
    members.text("action", input.action.as_str());
    if !input.facts.is_empty() {
        let facts = input.facts.iter().map(|(name, value)| (&**name, value));
        members.map("facts", facts, |members, value| fact(value, members));
    }
    texts("tiers", words(&input.tiers), members);
    members.flag("destinations_internal", input.destinations_internal);
    instant("now", input.now, members);
    if let Some(task) = &input.task {
        members.object("task", |members| {
            members.text("id", &task.id);
            members.text("purpose", &task.purpose);
            texts("systems", task.systems.iter().map(|name| &**name), members);
        });
    }
    if let Some(person) = &input.on_behalf_of {
        members.text("on_behalf_of", person);
    }
    if let Some(approval) = &input.approval {
        members.object("approval", |members| {
            members.text("id", &approval.id);
            members.flag("digest_ok", approval.digest_ok);
            members.number("count", approval.count);
            members.texts("roles", approval.roles.iter().map(|role| &**role));
        });
    }
    if let Some(grant) = &input.break_glass {
        members.object("break_glass", |members| {
            members.texts("grants", grant.grants.iter().map(|id| &**id));
            members.texts("by", grant.by.iter().map(|id| &**id));
            instant("until", grant.until, members);
            members.texts("rules", grant.rules.iter().map(|id| &**id));
        });
    }
}

fn run_rest(input: &PolicyInput, members: &mut Members) {
    members.number("calls", input.calls);
    if input.profile != Profile::Balanced {
        members.text("profile", input.profile.as_str());
    }
}

fn words(words: &[Word]) -> impl ExactSizeIterator<Item = &str> {
    words.iter().map(|word| &**word)
}

fn texts<'a>(name: &'static str, texts: impl ExactSizeIterator<Item = &'a str>, members: &mut Members) {
    if texts.len() > 0 {
        members.texts(name, texts);
    }
}

fn fact(value: &Lifted, members: &mut Members) {
    match value {
        Lifted::Bool(value) => members.flag("bool", *value),
        Lifted::Decimal(value) => members.text("decimal", value),
        Lifted::Long(value) => members.number("long", *value),
        Lifted::Text(value) => members.text("text", value),
    }
}

/// RFC 3339; a time that it cannot say is left out, and then the record cannot be asked again.
fn instant(name: &'static str, time: SystemTime, members: &mut Members) {
    if let Ok(at) = view::utc(time) {
        members.plain(name, units::moment(at, 9));
    }
}

fn agent_rest(agent: &AgentProfile, members: &mut Members) {
    members.flag("owned", agent.owned);
    members.some("team", &agent.team);
    texts("groups", agent.groups.iter().map(|group| &**group), members);
    members.some("purpose", &agent.purpose);
    members.text("autonomy", agent.autonomy.as_str());
    members.number("risk", agent.risk);
    members.some("region", &agent.region);
    if let Some(vendor) = &agent.vendor {
        members.text("vendor", vendor);
    }
}

fn resource_rest(resource: &ResourceProfile, members: &mut Members) {
    members.text("kind", kind_word(resource.kind));
    members.flag("listed", resource.listed);
    members.text("class", resource.class.as_str());
    members.number("consequence", resource.consequence.level());
    members.flag("reversible", resource.reversible);
    members.flag("idempotent", resource.idempotent);
    members.text("integrity", view::integrity(resource.integrity));
    members.some("environment", &resource.environment);
    members.some("region", &resource.region);
    members.some("data_domain", &resource.data_domain);
    members.text("boundary", if resource.inside { "inside" } else { "outside" });
    members.flag("trusted", resource.trusted);
    if resource.pinned {
        members.flag("pinned", true);
    }
    if let Some(drift) = resource.drift {
        members.text("drift", drift.as_str());
    }
}

fn auth_rest(auth: &Auth, members: &mut Members) {
    members.text("method", auth.method);
    members.flag("bound", auth.bound);
}

fn kind_word(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Operation => "operation",
        ResourceKind::Tool => "tool",
        ResourceKind::Upstream => "upstream",
    }
}

/// The input that [`to_json`] wrote; the error names the field.
pub fn from_json(json: &Value) -> Result<PolicyInput, String> {
    let root = Fields { at: "", json };
    let run = root.inside("run")?;
    let auth = root.inside("auth")?;
    Ok(PolicyInput {
        agent: Arc::new(agent(&root.inside("agent")?)?),
        action: root.word("action", action)?,
        resource: Arc::new(resource(&root.inside("resource")?)?),
        class: root.word("class", Class::parse)?,
        consequence: root.consequence("consequence")?,
        effects: root
            .words("effects")?
            .iter()
            .map(|word| Effect::parse(word).ok_or_else(|| root.wrong("effects")))
            .collect::<Result<_, _>>()?,
        labels: run.words("labels")?,
        findings: run.words("findings")?,
        // A record says it where it is not the usual one.
        profile: run
            .maybe("profile")
            .map_or(Ok(Profile::Balanced), |_| run.word("profile", Profile::parse))?,
        calls: run.value("calls", Value::as_u64)?,
        task: match root.maybe("task") {
            None => None,
            Some(task) => Some(Task {
                id: task.text("id")?,
                purpose: task.text("purpose")?,
                systems: task.texts("systems")?,
            }),
        },
        facts: facts(&root)?,
        tiers: root.words("tiers")?,
        destinations_internal: root.value("destinations_internal", Value::as_bool)?,
        on_behalf_of: root.maybe("on_behalf_of").map(|_| root.text("on_behalf_of")).transpose()?,
        auth: Auth {
            method: auth.word("method", |word| METHODS.into_iter().find(|method| *method == word))?,
            bound: auth.value("bound", Value::as_bool)?,
            instance: auth.text("instance")?,
        },
        now: root.word("now", time)?,
        source_ip: root.word("source_ip", |word| IpAddr::from_str(word).ok())?,
        approval: root.maybe("approval").map(|approval| self::approval(&approval)).transpose()?,
        break_glass: root.maybe("break_glass").map(|grant| break_glass(&grant)).transpose()?,
    })
}

fn agent(json: &Fields<'_>) -> Result<AgentProfile, String> {
    Ok(AgentProfile {
        id: AgentId::from_normalised(&json.text("id")?),
        owner: json.text("owner")?,
        owned: json.value("owned", Value::as_bool)?,
        team: json.some("team")?,
        groups: json.texts("groups")?,
        purpose: json.some("purpose")?,
        autonomy: json.word("autonomy", Autonomy::parse)?,
        risk: json.value("risk", |value| u8::try_from(value.as_u64()?).ok())?,
        region: json.some("region")?,
        vendor: json.maybe("vendor").map(|_| json.text("vendor")).transpose()?,
    })
}

fn resource(json: &Fields<'_>) -> Result<ResourceProfile, String> {
    Ok(ResourceProfile {
        kind: json.word("kind", kind)?,
        upstream: json.text("upstream")?,
        name: json.text("name")?,
        listed: json.value("listed", Value::as_bool)?,
        class: json.word("class", Class::parse)?,
        consequence: json.consequence("consequence")?,
        reversible: json.value("reversible", Value::as_bool)?,
        idempotent: json.value("idempotent", Value::as_bool)?,
        integrity: json.word("integrity", integrity)?,
        environment: json.some("environment")?,
        region: json.some("region")?,
        data_domain: json.some("data_domain")?,
        inside: json.word("boundary", boundary)?,
        trusted: json.value("trusted", Value::as_bool)?,
        // A record says it where it is so.
        pinned: json.maybe("pinned").map_or(Ok(false), |_| json.value("pinned", Value::as_bool))?,
        drift: json.maybe("drift").map(|_| json.word("drift", Drift::parse)).transpose()?,
    })
}

fn approval(json: &Fields<'_>) -> Result<Approval, String> {
    Ok(Approval {
        id: json.text("id")?,
        digest_ok: json.value("digest_ok", Value::as_bool)?,
        count: json.value("count", |value| u32::try_from(value.as_u64()?).ok())?,
        roles: json.texts("roles")?,
    })
}

fn break_glass(json: &Fields<'_>) -> Result<BreakGlass, String> {
    Ok(BreakGlass {
        grants: json.texts("grants")?,
        by: json.texts("by")?,
        until: json.word("until", time)?,
        rules: json.texts("rules")?,
    })
}

fn facts(root: &Fields<'_>) -> Result<std::collections::BTreeMap<Arc<str>, Lifted>, String> {
    if root.json.get("facts").is_none() {
        return Ok(std::collections::BTreeMap::new());
    }
    let object = root.value("facts", Value::as_object)?;
    let lifted = |value: &Value| {
        let (kind, value) = value.as_object()?.iter().next()?;
        match kind.as_str() {
            "bool" => value.as_bool().map(Lifted::Bool),
            "decimal" => value.as_str().map(|text| Lifted::Decimal(text.to_owned())),
            "long" => value.as_i64().map(Lifted::Long),
            "text" => value.as_str().map(|text| Lifted::Text(text.to_owned())),
            _ => None,
        }
    };
    object
        .iter()
        .map(|(name, value)| {
            lifted(value)
                .map(|value| (Arc::from(name.as_str()), value))
                .ok_or_else(|| format!("facts.{name} is none of {{bool|decimal|long|text: …}}"))
        })
        .collect()
}

/// The action that a word names.
fn action(word: &str) -> Option<PolicyAction> {
    [PolicyAction::Discover, PolicyAction::External, PolicyAction::Read, PolicyAction::Write]
        .into_iter()
        .find(|action| action.as_str() == word)
}

/// The kind of resource that a word names.
pub(super) fn kind(word: &str) -> Option<ResourceKind> {
    [ResourceKind::Operation, ResourceKind::Tool, ResourceKind::Upstream]
        .into_iter()
        .find(|kind| kind_word(*kind) == word)
}

/// The integrity that a word names.
pub(super) fn integrity(word: &str) -> Option<Integrity> {
    [Integrity::Trusted, Integrity::Mixed, Integrity::Untrusted]
        .into_iter()
        .find(|value| view::integrity(*value) == word)
}

fn boundary(word: &str) -> Option<bool> {
    match word {
        "inside" => Some(true),
        "outside" => Some(false),
        _ => None,
    }
}

/// The time that RFC 3339 text names.
pub(super) fn time(word: &str) -> Option<SystemTime> {
    let at = OffsetDateTime::parse(word, &Rfc3339).ok()?;
    let nanos = u64::try_from(at.unix_timestamp_nanos()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_nanos(nanos))
}

/// An object whose fields are read with their names in every error.
struct Fields<'a> {
    at: &'a str,
    json: &'a Value,
}

impl<'a> Fields<'a> {
    fn wrong(&self, name: &str) -> String {
        let dot = if self.at.is_empty() { "" } else { "." };
        format!("{}{dot}{name} is missing or not what it must be", self.at)
    }

    fn value<T>(&self, name: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<T, String> {
        self.json.get(name).and_then(read).ok_or_else(|| self.wrong(name))
    }

    fn word<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        self.value(name, |value| value.as_str().and_then(&read))
    }

    fn text(&self, name: &str) -> Result<Arc<str>, String> {
        self.word(name, |word| Some(Arc::from(word)))
    }

    /// A text that may be left out when it is empty.
    fn some(&self, name: &str) -> Result<Arc<str>, String> {
        if self.json.get(name).is_some() { self.text(name) } else { Ok(Arc::from("")) }
    }

    /// A list that may be left out when it is empty.
    fn texts(&self, name: &str) -> Result<Vec<Arc<str>>, String> {
        if self.json.get(name).is_none() {
            return Ok(Vec::new());
        }
        self.value(name, |value| value.as_array()?.iter().map(|word| word.as_str().map(Arc::from)).collect())
    }

    fn words(&self, name: &str) -> Result<Vec<Word>, String> {
        Ok(self.texts(name)?.iter().map(|text| Word::Owned(text.to_string())).collect())
    }

    fn consequence(&self, name: &str) -> Result<Consequence, String> {
        self.value(name, |value| Consequence::new(u8::try_from(value.as_u64()?).ok()?))
    }

    fn inside(&self, name: &'a str) -> Result<Fields<'a>, String> {
        self.value(name, |json| json.is_object().then_some(Fields { at: name, json }))
    }

    fn maybe(&self, name: &'a str) -> Option<Fields<'a>> {
        self.json.get(name).filter(|json| !json.is_null()).map(|json| Fields { at: name, json })
    }
}
