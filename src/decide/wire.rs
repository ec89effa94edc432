//! The policy input as JSON: what a record keeps, so that a decision can be explained and asked again.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cedar::view;
use crate::call::{
    AgentId, AgentProfile, Approval, Auth, Autonomy, BreakGlass, Class, Consequence, Effect, Integrity,
    Lifted, PolicyAction, PolicyInput, ResourceKind, ResourceProfile, Task,
};

/// The ways of authentication that there are.
const METHODS: [&str; 1] = ["mtls"];

/// The whole input. It has no destinations and no arguments, only what policy looks at.
pub fn to_json(input: &PolicyInput) -> Value {
    let effects: Vec<&str> = input.effects.iter().map(|effect| effect.as_str()).collect();
    let facts: Map<String, Value> =
        input.facts.iter().map(|(name, value)| (name.to_string(), fact(value))).collect();
    let mut json = json!({
        "agent": agent_json(&input.agent),
        "action": input.action.as_str(),
        "resource": resource_json(&input.resource),
        "class": input.class.as_str(),
        "consequence": input.consequence.level(),
        "effects": effects,
        "run": {"labels": words(&input.labels), "findings": words(&input.findings), "calls": input.calls},
        "facts": facts,
        "tiers": words(&input.tiers),
        "destinations_internal": input.destinations_internal,
        "auth": {"method": input.auth.method, "bound": input.auth.bound, "instance": &*input.auth.instance},
        "now": instant(input.now),
        "source_ip": input.source_ip.to_string(),
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let (Some(object), Some(value)) = (json.as_object_mut(), value) {
            object.insert(name.to_owned(), value);
        }
    };
    put("task", input.task.as_ref().map(|task| json!({"id": &*task.id, "purpose": &*task.purpose})));
    put("on_behalf_of", input.on_behalf_of.as_ref().map(|person| json!(&**person)));
    put(
        "approval",
        input.approval.as_ref().map(|approval| {
            let (id, digest_ok, count) = (&*approval.id, approval.digest_ok, approval.count);
            json!({"id": id, "digest_ok": digest_ok, "count": count, "roles": words(&approval.roles)})
        }),
    );
    put(
        "break_glass",
        input.break_glass.as_ref().map(|grant| {
            let (by, until) = (&*grant.by, instant(grant.until));
            json!({"grant": &*grant.grant, "by": by, "until": until, "roles": words(&grant.roles)})
        }),
    );
    json
}

fn words(words: &[Arc<str>]) -> Vec<&str> {
    words.iter().map(|word| &**word).collect()
}

fn fact(value: &Lifted) -> Value {
    match value {
        Lifted::Bool(value) => json!({"bool": value}),
        Lifted::Decimal(value) => json!({"decimal": value}),
        Lifted::Long(value) => json!({"long": value}),
        Lifted::Text(value) => json!({"text": value}),
    }
}

/// RFC 3339; a time that it cannot say is `null`, and then the record cannot be asked again.
fn instant(time: SystemTime) -> Value {
    view::utc(time).ok().and_then(|at| at.format(&Rfc3339).ok()).map_or(Value::Null, Value::String)
}

fn agent_json(agent: &AgentProfile) -> Value {
    json!({
        "id": agent.id.as_str(),
        "owner": &*agent.owner,
        "owned": agent.owned,
        "team": &*agent.team,
        "groups": words(&agent.groups),
        "purpose": &*agent.purpose,
        "autonomy": agent.autonomy.as_str(),
        "risk": agent.risk,
        "region": &*agent.region,
        "vendor": agent.vendor.as_deref(),
    })
}

fn resource_json(resource: &ResourceProfile) -> Value {
    json!({
        "kind": kind_word(resource.kind),
        "upstream": &*resource.upstream,
        "name": &*resource.name,
        "listed": resource.listed,
        "class": resource.class.as_str(),
        "consequence": resource.consequence.level(),
        "reversible": resource.reversible,
        "idempotent": resource.idempotent,
        "integrity": view::integrity(resource.integrity),
        "environment": &*resource.environment,
        "region": &*resource.region,
        "data_domain": &*resource.data_domain,
        "boundary": if resource.inside { "inside" } else { "outside" },
        "trusted": resource.trusted,
    })
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
            .texts("effects")?
            .iter()
            .map(|word| Effect::parse(word).ok_or_else(|| root.wrong("effects")))
            .collect::<Result<_, _>>()?,
        labels: run.texts("labels")?,
        findings: run.texts("findings")?,
        calls: run.value("calls", Value::as_u64)?,
        task: match root.maybe("task") {
            None => None,
            Some(task) => Some(Task { id: task.text("id")?, purpose: task.text("purpose")? }),
        },
        facts: facts(&root)?,
        tiers: root.texts("tiers")?,
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
        team: json.text("team")?,
        groups: json.texts("groups")?,
        purpose: json.text("purpose")?,
        autonomy: json.word("autonomy", Autonomy::parse)?,
        risk: json.value("risk", |value| u8::try_from(value.as_u64()?).ok())?,
        region: json.text("region")?,
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
        environment: json.text("environment")?,
        region: json.text("region")?,
        data_domain: json.text("data_domain")?,
        inside: json.word("boundary", boundary)?,
        trusted: json.value("trusted", Value::as_bool)?,
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
        grant: json.text("grant")?,
        by: json.text("by")?,
        until: json.word("until", time)?,
        roles: json.texts("roles")?,
    })
}

fn facts(root: &Fields<'_>) -> Result<std::collections::BTreeMap<Arc<str>, Lifted>, String> {
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

    fn texts(&self, name: &str) -> Result<Vec<Arc<str>>, String> {
        self.value(name, |value| value.as_array()?.iter().map(|word| word.as_str().map(Arc::from)).collect())
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
