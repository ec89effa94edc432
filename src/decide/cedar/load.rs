//! Turns policy files into a checked set: names, annotations, types and holds, with every mistake reported at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy as Rule, PolicyId, PolicySet, PrincipalConstraint, Schema,
    ValidationMode, Validator,
};

use time::{Date, OffsetDateTime};

use super::glass;
use super::looks::Looks;
use super::person;
use super::terms::{self, HoldTerms};
use crate::decide::schema::{self, Facts};
use crate::units;
use crate::yaml::Mistake;

/// The annotations that a policy may carry.
const ANNOTATIONS: [&str; 8] = ["id", "public", "hold", "quorum", "approvers", "ttl", "mode", "controls"];
/// How long a hold waits when its policy does not say.
const TTL_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// The longest that a hold may wait.
const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The most people that a hold may ask for.
const QUORUM_MAX: u32 = 16;

/// What becomes of what a policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is stopped.
    Enforce,
    /// It passes, and what would have been is shown, but for calls of consequence 4; until this moment, if one is said.
    Shadow(Option<SystemTime>),
}

/// How far ahead the last day of a policy's shadow may be.
const AHEAD_MAX: time::Duration = time::Duration::days(30);

/// What the gateway knows of one policy beside what Cedar evaluates.
#[derive(Clone, Debug)]
pub(super) struct RuleInfo {
    pub(super) id: Arc<str>,
    pub(super) public: Arc<str>,
    pub(super) file: Arc<str>,
    pub(super) terms: Option<HoldTerms>,
    /// Whether break-glass may lift it.
    pub(super) liftable: bool,
    pub(super) mode: Mode,
    pub(super) looks: Looks,
}

impl RuleInfo {
    /// When its shadow ends, where that is said.
    pub(super) fn ends(&self) -> Option<SystemTime> {
        match self.mode {
            Mode::Enforce => None,
            Mode::Shadow(until) => until,
        }
    }

    /// Whether it is in shadow at this moment.
    pub(super) fn is_in_shadow(&self, now: SystemTime) -> bool {
        match self.mode {
            Mode::Enforce => false,
            Mode::Shadow(until) => until.is_none_or(|until| now < until),
        }
    }
}

/// A checked set of policies.
pub(super) struct Loaded {
    pub(super) schema: Schema,
    pub(super) set: PolicySet,
    /// The set without the policies in shadow.
    pub(super) enforced: PolicySet,
    pub(super) people: (Schema, PolicySet),
    pub(super) rules: HashMap<PolicyId, RuleInfo>,
    pub(super) revision: String,
}

pub(super) fn load(files: &[(String, String)], facts: &Facts) -> Result<Loaded, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let schema_text = schema::text(facts);
    let mut sources: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, text) in files {
        if name.ends_with(".cedar") {
            sources.insert(name, text);
        } else if name.ends_with(".cedarschema") && !schema::same(text, facts) {
            let problem = "is not the gateway's own schema; remove it, or replace it by the one in force";
            mistakes.push(Mistake::new(name, "", problem));
        }
    }
    if sources.is_empty() {
        mistakes.push(Mistake::new("policies", "", "no *.cedar file: every call would be denied"));
    }
    let (mut set, mut people) = (PolicySet::new(), PolicySet::new());
    let mut rules = HashMap::new();
    for (file, text) in &sources {
        for rule in parse(file, text, &mut mistakes) {
            let set = if concerns_people(&rule) { &mut people } else { &mut set };
            admit(file, rule, set, &mut rules, &mut mistakes);
        }
    }
    let build = |text: &str| {
        schema::build(text).map_err(|problem| vec![Mistake::new("schema.cedarschema", "", problem)])
    };
    // A policy that names nobody is for agents, so it is checked against what agents ask alone.
    let validator = Validator::new(build(&schema::of_agents(&schema_text))?);
    validate(&validator, &set, &rules, &sources, &mut mistakes);
    let of_people = Validator::new(build(&schema_text)?);
    validate(&of_people, &people, &rules, &sources, &mut mistakes);
    if !mistakes.is_empty() {
        mistakes.sort();
        mistakes.dedup();
        return Err(mistakes);
    }
    let revision = revision(&sources, &schema_text);
    let stands = |id: &PolicyId| rules.get(id).is_some_and(|rule| rule.mode == Mode::Enforce);
    let enforced = PolicySet::from_policies(set.policies().filter(|rule| stands(rule.id())).cloned());
    let enforced = enforced.map_err(|error| vec![Mistake::new("policies", "", error.to_string())])?;
    let people = (of_people.schema().clone(), people);
    Ok(Loaded { schema: validator.schema().clone(), set, enforced, people, rules, revision })
}

/// Whether a policy's scope says that it is for people. What does not say so is for agents, and never about people.
fn concerns_people(rule: &Rule) -> bool {
    let acts = |uid: &EntityUid| person::ACTIONS.iter().any(|action| uid.id().unescaped() == action.as_str());
    match rule.principal_constraint() {
        PrincipalConstraint::Is(kind) | PrincipalConstraint::IsIn(kind, _) => {
            kind.to_string() == person::TYPE
        }
        PrincipalConstraint::Eq(uid) => uid.type_name().to_string() == person::TYPE,
        PrincipalConstraint::Any | PrincipalConstraint::In(_) => match rule.action_constraint() {
            ActionConstraint::Any => false,
            ActionConstraint::Eq(uid) => acts(&uid),
            ActionConstraint::In(uids) => !uids.is_empty() && uids.iter().all(acts),
        },
    }
}

/// The digest of what was loaded, 16 hexadecimal digits.
fn revision(sources: &BTreeMap<&str, &str>, schema: &str) -> String {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for (name, text) in sources.iter().chain([(&"schema.cedarschema", &schema)]) {
        for part in [name, text] {
            hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    let digest = hash.finish();
    crate::call::hex(digest.as_ref().get(..8).unwrap_or_default())
}

/// Parses one file; what cannot be parsed, and templates, are mistakes.
fn parse(file: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Vec<Rule> {
    let set = match text.parse::<PolicySet>() {
        Ok(set) => set,
        Err(errors) => {
            for error in errors.iter() {
                let detail = DetailedError::from(error);
                mistakes.push(Mistake::new(file, place(text, &detail), sentence(&detail)));
            }
            return Vec::new();
        }
    };
    for template in set.templates() {
        let id = template.annotation("id").unwrap_or_default();
        mistakes.push(Mistake::new(
            file,
            id,
            "is a template (`?principal`, `?resource`): write a policy instead",
        ));
    }
    let mut rules: Vec<Rule> = set.policies().cloned().collect();
    // Cedar names them policy0, policy1, … in the order of the file.
    rules.sort_by_key(|rule| {
        let name = rule.id().to_string();
        name.trim_start_matches("policy").parse::<u32>().unwrap_or(u32::MAX)
    });
    rules
}

fn place(text: &str, detail: &DetailedError) -> String {
    let Some(label) = detail.source_locations.first() else { return String::new() };
    let before = text.as_bytes().get(..label.loc.start).unwrap_or_default();
    format!("line {}", before.iter().filter(|byte| **byte == b'\n').count() + 1)
}

fn sentence(detail: &DetailedError) -> String {
    match &detail.help {
        Some(help) => format!("{} ({help})", detail.message),
        None => detail.message.clone(),
    }
}

/// Checks one policy's annotations and takes it into the set under its `@id`.
fn admit(
    file: &str,
    rule: Rule,
    set: &mut PolicySet,
    rules: &mut HashMap<PolicyId, RuleInfo>,
    mistakes: &mut Vec<Mistake>,
) {
    let id = match rule.annotation("id") {
        Some(id) if is_name(id) => Arc::<str>::from(id),
        Some(id) => {
            let problem = "@id must be letters, digits, `-`, `_`, `.` or `/`";
            mistakes.push(Mistake::new(file, id, problem));
            Arc::from(id)
        }
        None => {
            let number = rule.id().to_string().trim_start_matches("policy").parse::<u32>().unwrap_or(0) + 1;
            let problem = "has no @id: put `@id(\"…\")` before it";
            mistakes.push(Mistake::new(file, format!("policy {number} of the file"), problem));
            return;
        }
    };
    let mut problems = Vec::new();
    let terms = annotations(&rule, &mut problems);
    if terms.is_some() && concerns_people(&rule) {
        problems.push("@hold belongs on a policy for agents: what people do is not held".to_owned());
    }
    if let Some(terms) = &terms
        && let Err(problem) = rule
            .to_json()
            .map_err(|error| format!("its condition cannot be read: {error}"))
            .and_then(|json| terms::compare(&json, terms))
    {
        problems.push(problem);
    }
    let liftable = glass::liftable(&rule, &id).unwrap_or_else(|problem| {
        problems.push(problem);
        false
    });
    mistakes.extend(problems.into_iter().map(|problem| Mistake::new(file, &*id, problem)));
    let public = Arc::from(rule.annotation("public").unwrap_or("policy"));
    let mode = rule.annotation("mode").and_then(|words| mode(words).ok()).unwrap_or(Mode::Enforce);
    let looks = Looks::of(&rule);
    if mode != Mode::Enforce && rule.effect() == Effect::Permit {
        // A permit in shadow never permits, so there is nothing to ask it.
        return;
    }
    let renamed = rule.new_id(PolicyId::new(&id));
    let name = renamed.id().clone();
    if let Some(other) = rules.get(&name) {
        let problem = format!("@id is used twice, in {} too", other.file);
        mistakes.push(Mistake::new(file, &*id, problem));
        return;
    }
    match set.add(renamed) {
        Ok(()) => {
            rules.insert(name, RuleInfo { id, public, file: Arc::from(file), terms, liftable, mode, looks });
        }
        Err(error) => mistakes.push(Mistake::new(file, &*id, error.to_string())),
    }
}

/// What the words of `@mode` say: `shadow`, or `shadow until 2026-12-20`, which is the last day of it in UTC. A day that
/// is past is no mistake: the policy is enforced.
fn mode(words: &str) -> Result<Mode, String> {
    if words == "shadow" {
        return Ok(Mode::Shadow(None));
    }
    let last = words.strip_prefix("shadow until ").and_then(units::date);
    let expected = "must be @mode(\"shadow\") or, with its last day, @mode(\"shadow until 2026-12-20\")";
    let last = last.ok_or_else(|| format!("@mode(\"{words}\") {expected}"))?;
    if last > OffsetDateTime::now_utc().date().saturating_add(AHEAD_MAX) {
        return Err(format!("@mode(\"{words}\") must end at most 30 days ahead"));
    }
    let end = last.next_day().unwrap_or(Date::MAX).midnight().assume_utc();
    if end <= OffsetDateTime::now_utc() {
        return Ok(Mode::Enforce);
    }
    Ok(Mode::Shadow(Some(end.into())))
}

/// Checks the annotations of a policy; the terms of its hold, when it is one.
fn annotations(rule: &Rule, problems: &mut Vec<String>) -> Option<HoldTerms> {
    for (name, value) in rule.annotations() {
        if !ANNOTATIONS.contains(&name) {
            problems.push(format!(
                "@{name} is no annotation of Holdpoint's; expected one of @{}",
                ANNOTATIONS.join(", @")
            ));
        } else if value.trim().is_empty() {
            problems.push(format!("@{name} has no value"));
        }
    }
    if let Some(public) = rule.annotation("public")
        && !public.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    {
        problems.push(format!("@public(\"{public}\") must be lower-case letters, digits and `-`"));
    }
    if let Some(Err(problem)) = rule.annotation("mode").map(mode) {
        problems.push(problem);
    }
    match rule.annotation("hold") {
        None => {
            for name in ["quorum", "approvers", "ttl"] {
                if rule.annotation(name).is_some() {
                    problems.push(format!("@{name} belongs to a policy with @hold(\"approval\")"));
                }
            }
            return None;
        }
        Some("approval") => {}
        Some(other) => problems.push(format!("@hold(\"{other}\") must be @hold(\"approval\")")),
    }
    if rule.effect() != Effect::Forbid {
        problems.push("@hold belongs on a forbid: a permit cannot wait for people".to_owned());
        return None;
    }
    Some(hold(rule, problems))
}

fn hold(rule: &Rule, problems: &mut Vec<String>) -> HoldTerms {
    let quorum = match rule.annotation("quorum").map(|text| (text, text.parse::<u32>())) {
        None => 1,
        Some((_, Ok(quorum))) if (1..=QUORUM_MAX).contains(&quorum) => quorum,
        Some((text, _)) => {
            problems.push(format!("@quorum(\"{text}\") must be a whole number from 1 to {QUORUM_MAX}"));
            1
        }
    };
    let ttl = match rule.annotation("ttl").map(|text| (text, units::duration(text))) {
        None => TTL_DEFAULT,
        Some((_, Some(ttl))) if ttl <= TTL_MAX => ttl,
        Some((text, _)) => {
            problems.push(format!("@ttl(\"{text}\") must be a duration such as 30m or 1h30m, at most 7d"));
            TTL_DEFAULT
        }
    };
    let mut approvers: Vec<Arc<str>> = Vec::new();
    for role in
        rule.annotation("approvers").unwrap_or_default().split([',', ' ']).filter(|role| !role.is_empty())
    {
        if !is_name(role) {
            problems.push(format!("@approvers names \"{role}\", which cannot be a role; expected \"oncall\" or \"oncall, payments\""));
        }
        approvers.push(Arc::from(role));
    }
    approvers.sort();
    approvers.dedup();
    HoldTerms { quorum, approvers, ttl }
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
}

/// Validates strictly against the schema; warnings are mistakes too.
fn validate(
    validator: &Validator,
    set: &PolicySet,
    rules: &HashMap<PolicyId, RuleInfo>,
    sources: &BTreeMap<&str, &str>,
    mistakes: &mut Vec<Mistake>,
) {
    let result = validator.validate(set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|error| (error.policy_id(), DetailedError::from(error)));
    let warnings =
        result.validation_warnings().map(|warning| (warning.policy_id(), DetailedError::from(warning)));
    for (id, detail) in errors.chain(warnings) {
        let Some(rule) = rules.get(id) else { continue };
        let text = sources.get(&*rule.file).copied().unwrap_or_default();
        let path = match place(text, &detail).as_str() {
            "" => rule.id.to_string(),
            line => format!("{} ({line})", rule.id),
        };
        mistakes.push(Mistake::new(&rule.file, path, sentence(&detail)));
    }
}
