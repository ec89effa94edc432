//! Cases beside the policies: small questions with the answer that is expected, so that a changed rule shows itself.

mod person;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::cedar::{Decision, Outcome, Policy};
use super::wire;
use crate::call::{
    AgentId, AgentProfile, Approval, Auth, Autonomy, BreakGlass, Class, Consequence, Drift, Effect, FactType,
    Lifted, PolicyAction, PolicyInput, Profile, ResourceProfile, Task, Word,
};
use crate::decide::schema::Facts;
use crate::yaml::{self, Mistake};

/// One case. What it does not say is harmless: an owned, constrained agent reads a listed tool inside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    agent: RawAgent,
    #[serde(default)]
    resource: RawResource,
    #[serde(default)]
    call: RawCall,
    approval: Option<RawApproval>,
    break_glass: Option<RawGrant>,
    person: Option<person::RawPerson>,
    act: Option<String>,
    on: Option<String>,
    expect: String,
    rule: Option<String>,
    quorum: Option<u32>,
    approvers: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAgent {
    id: Option<String>,
    owner: Option<String>,
    owned: Option<bool>,
    team: Option<String>,
    groups: Vec<String>,
    purpose: Option<String>,
    autonomy: Option<String>,
    risk: Option<u8>,
    region: Option<String>,
    vendor: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawResource {
    kind: Option<String>,
    upstream: Option<String>,
    name: Option<String>,
    listed: Option<bool>,
    class: Option<String>,
    consequence: Option<u8>,
    reversible: Option<bool>,
    idempotent: Option<bool>,
    integrity: Option<String>,
    environment: Option<String>,
    region: Option<String>,
    data_domain: Option<String>,
    boundary: Option<String>,
    trusted: Option<bool>,
    pinned: Option<bool>,
    drift: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawCall {
    discover: bool,
    class: Option<String>,
    consequence: Option<u8>,
    effects: Vec<String>,
    labels: Vec<String>,
    findings: Vec<String>,
    profile: Option<String>,
    calls: u64,
    facts: BTreeMap<String, Value>,
    tiers: Vec<String>,
    destinations_internal: bool,
    on_behalf_of: Option<String>,
    task: Option<RawTask>,
    now: Option<String>,
    source_ip: Option<IpAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTask {
    id: String,
    purpose: String,
    #[serde(default)]
    systems: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApproval {
    count: u32,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default = "yes")]
    digest_ok: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    #[serde(default)]
    by: Vec<String>,
    rules: Vec<String>,
    until: Option<String>,
}

/// How one case ended.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The file.
    pub file: String,
    /// The case's name.
    pub name: String,
    /// What differs from what was expected; `None` when nothing does.
    pub failure: Option<String>,
    /// The decision.
    pub decision: Arc<Decision>,
}

/// How all cases ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One entry per case, in the order of the files.
    pub results: Vec<CaseResult>,
    /// Cases that cannot be read.
    pub mistakes: Vec<Mistake>,
}

impl Report {
    /// Whether every case was read and ended as expected.
    pub fn passed(&self) -> bool {
        self.mistakes.is_empty() && self.results.iter().all(|result| result.failure.is_none())
    }
}

/// Runs every case of these (name, text) files against a policy: `*.cases.yaml`, and every `*.yaml` below `cases/`.
pub fn run(policy: &Policy, facts: &Facts, files: &[(String, String)]) -> Report {
    let mut report = Report::default();
    for (file, text) in files.iter().filter(|(file, _)| is_cases(file)) {
        let cases: Option<Vec<Case>> = yaml::read(file, text, &mut report.mistakes);
        for (at, case) in cases.unwrap_or_default().into_iter().enumerate() {
            let mut problems = Vec::new();
            if let Some(raw) = &case.person {
                let decision = person::ask(policy, &case, raw, &mut problems);
                let path = |problem: String| Mistake::new(file, format!("[{at}] {}", case.name), problem);
                report.mistakes.extend(problems.into_iter().map(path));
                let failure = compare(&case, &decision);
                let (file, name, decision) = (file.clone(), case.name, Arc::new(decision));
                report.results.push(CaseResult { file, name, failure, decision });
                continue;
            }
            let input = input(&case, facts, &mut problems);
            if !["allow", "hold", "deny"].contains(&case.expect.as_str()) {
                problems.push(format!("expect: {:?} is none of allow, hold, deny", case.expect));
            }
            let path = |problem: String| Mistake::new(file, format!("[{at}] {}", case.name), problem);
            report.mistakes.extend(problems.into_iter().map(path));
            if let Some(input) = input {
                let decision = policy.evaluate(&input);
                let failure = compare(&case, &decision);
                report.results.push(CaseResult { file: file.clone(), name: case.name, failure, decision });
            }
        }
    }
    report
}

/// Whether a file's name says that it holds cases.
fn is_cases(file: &str) -> bool {
    file.ends_with(".cases.yaml") || (file.contains("cases/") && file.ends_with(".yaml"))
}

fn compare(case: &Case, decision: &Decision) -> Option<String> {
    let mut wrong = Vec::new();
    let got = decision.outcome.as_str();
    if case.expect != got {
        wrong.push(format!("expected {} and got {got}", case.expect));
    }
    if let Some(rule) = &case.rule
        && **rule != *decision.rule
    {
        wrong.push(format!("expected rule {rule} and got {}", decision.rule));
    }
    if let Outcome::Hold(terms) = &decision.outcome {
        if case.quorum.is_some_and(|quorum| quorum != terms.quorum) {
            wrong.push(format!("got quorum {}", terms.quorum));
        }
        if case.approvers.as_ref().is_some_and(|roles| {
            !roles.iter().map(String::as_str).eq(terms.approvers.iter().map(|role| &**role))
        }) {
            wrong.push(format!("got approvers {}", terms.approvers.join(", ")));
        }
    }
    (!wrong.is_empty()).then(|| format!("{} ({})", wrong.join("; "), decision.reason))
}

fn arc(text: Option<&String>, default: &str) -> Arc<str> {
    Arc::from(text.map_or(default, String::as_str))
}

fn words(words: &[String]) -> Vec<Word> {
    let mut words: Vec<Word> = words.iter().map(|word| Word::Owned(word.clone())).collect();
    words.sort();
    words
}

fn arcs(words: &[String]) -> Vec<Arc<str>> {
    let mut words: Vec<Arc<str>> = words.iter().map(|word| Arc::from(word.as_str())).collect();
    words.sort();
    words
}

/// A word that must be one of a vocabulary; the default when it is not given.
fn word<T>(
    field: &str,
    given: Option<&String>,
    default: T,
    parse: impl Fn(&str) -> Option<T>,
    problems: &mut Vec<String>,
) -> T {
    match given {
        None => default,
        Some(text) => parse(text).unwrap_or_else(|| {
            problems.push(format!("{field}: {text:?} is not a word of this field"));
            default
        }),
    }
}

fn level(field: &str, given: Option<u8>, problems: &mut Vec<String>) -> Option<Consequence> {
    given.and_then(|level| {
        let consequence = Consequence::new(level);
        if consequence.is_none() {
            problems.push(format!("{field}: {level} is not 0 to 4"));
        }
        consequence
    })
}

/// The question that a case asks; `None` when something in it cannot be understood.
fn input(case: &Case, facts: &Facts, problems: &mut Vec<String>) -> Option<PolicyInput> {
    let call = &case.call;
    let given = call.class.as_ref().or(case.resource.class.as_ref());
    let class = word("call.class", given, Class::Read, Class::parse, problems);
    let consequence = level("call.consequence", call.consequence.or(case.resource.consequence), problems)
        .unwrap_or(Consequence::NONE);
    let noon = "2026-11-20T12:00:00Z".to_owned();
    let now = call.now.as_ref().unwrap_or(&noon);
    let now = word("call.now", Some(now), std::time::SystemTime::UNIX_EPOCH, wire::time, problems);
    let input = PolicyInput {
        agent: Arc::new(agent(&case.agent, problems)),
        action: if call.discover { PolicyAction::Discover } else { PolicyAction::of(class) },
        resource: Arc::new(resource(&case.resource, class, consequence, problems)),
        class,
        consequence,
        effects: effects(&call.effects, problems),
        labels: words(&call.labels),
        findings: words(&call.findings),
        profile: word("call.profile", call.profile.as_ref(), Profile::Balanced, Profile::parse, problems),
        calls: call.calls,
        task: call.task.as_ref().map(|task| Task {
            id: Arc::from(task.id.as_str()),
            purpose: Arc::from(task.purpose.as_str()),
            systems: task.systems.iter().map(|name| Arc::from(name.as_str())).collect(),
        }),
        facts: lifted(&call.facts, facts, problems),
        tiers: words(&call.tiers),
        destinations_internal: call.destinations_internal,
        on_behalf_of: call.on_behalf_of.as_deref().map(Arc::from),
        auth: Auth { method: "mtls", bound: true, instance: Arc::from("01") },
        now,
        source_ip: call.source_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        approval: case.approval.as_ref().map(|approval| Approval {
            id: Arc::from("case"),
            digest_ok: approval.digest_ok,
            count: approval.count,
            roles: arcs(&approval.roles),
        }),
        break_glass: case.break_glass.as_ref().map(|grant| BreakGlass {
            grants: vec![Arc::from("case")],
            by: arcs(&grant.by),
            until: grant.until.as_deref().and_then(wire::time).unwrap_or(now),
            rules: arcs(&grant.rules),
        }),
    };
    problems.is_empty().then_some(input)
}

fn agent(raw: &RawAgent, problems: &mut Vec<String>) -> AgentProfile {
    let autonomy = raw.autonomy.as_ref();
    AgentProfile {
        id: AgentId::from_normalised(&arc(raw.id.as_ref(), "spiffe://example.org/agent/support")),
        owner: arc(raw.owner.as_ref(), "ana@example.org"),
        owned: raw.owned.unwrap_or(true),
        team: arc(raw.team.as_ref(), "care"),
        groups: arcs(&raw.groups),
        purpose: arc(raw.purpose.as_ref(), "answers customer tickets"),
        autonomy: word("agent.autonomy", autonomy, Autonomy::Constrained, Autonomy::parse, problems),
        risk: raw.risk.unwrap_or(1),
        region: arc(raw.region.as_ref(), "eu"),
        vendor: raw.vendor.as_deref().map(Arc::from),
    }
}

fn resource(
    raw: &RawResource,
    class: Class,
    consequence: Consequence,
    problems: &mut Vec<String>,
) -> ResourceProfile {
    use crate::call::{Integrity, ResourceKind};
    let boundary = |text: &str| ["outside", "inside"].iter().position(|word| *word == text).map(|at| at == 1);
    ResourceProfile {
        kind: word("resource.kind", raw.kind.as_ref(), ResourceKind::Tool, wire::kind, problems),
        upstream: arc(raw.upstream.as_ref(), "crm"),
        name: arc(raw.name.as_ref(), "tool"),
        listed: raw.listed.unwrap_or(true),
        class: word("resource.class", raw.class.as_ref(), class, Class::parse, problems),
        consequence: level("resource.consequence", raw.consequence, problems).unwrap_or(consequence),
        reversible: raw.reversible.unwrap_or(true),
        idempotent: raw.idempotent.unwrap_or(true),
        integrity: word(
            "resource.integrity",
            raw.integrity.as_ref(),
            Integrity::Trusted,
            wire::integrity,
            problems,
        ),
        environment: arc(raw.environment.as_ref(), ""),
        region: arc(raw.region.as_ref(), ""),
        data_domain: arc(raw.data_domain.as_ref(), ""),
        inside: word("resource.boundary", raw.boundary.as_ref(), true, boundary, problems),
        trusted: raw.trusted.unwrap_or(true),
        pinned: raw.pinned.unwrap_or(true),
        drift: raw.drift.as_deref().and_then(|text| {
            let drift = Drift::parse(text);
            if drift.is_none() {
                problems.push(format!("resource.drift: {text:?} is no reason"));
            }
            drift
        }),
    }
}

fn effects(words: &[String], problems: &mut Vec<String>) -> Vec<Effect> {
    let mut effects = Vec::new();
    for word in words {
        match Effect::parse(word) {
            Some(effect) => effects.push(effect),
            None => problems.push(format!("call.effects: {word:?} is no effect")),
        }
    }
    effects.sort();
    effects
}

/// Facts take the types that the deployment declares; a decimal is written as text, `"10.00"`.
fn lifted(
    given: &BTreeMap<String, Value>,
    facts: &Facts,
    problems: &mut Vec<String>,
) -> BTreeMap<Arc<str>, Lifted> {
    let mut lifted = BTreeMap::new();
    for (name, value) in given {
        let kind = facts.get(name.as_str());
        let value = match kind {
            Some(FactType::Bool) => value.as_bool().map(Lifted::Bool),
            Some(FactType::Decimal) => value.as_str().map(|text| Lifted::Decimal(text.to_owned())),
            Some(FactType::Long) => value.as_i64().map(Lifted::Long),
            Some(FactType::Text) => value.as_str().map(|text| Lifted::Text(text.to_owned())),
            None => None,
        };
        match (value, kind) {
            (Some(value), _) => {
                lifted.insert(Arc::from(name.as_str()), value);
            }
            (None, Some(kind)) => problems.push(format!("call.facts.{name} must be {}", kind.as_str())),
            (None, None) => problems.push(format!("call.facts.{name} is declared by no catalogue")),
        }
    }
    lifted
}
