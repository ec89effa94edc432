//! What Cedar is asked with: entities and the slice of policies that can match, made once and kept; the context per call.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use cedar_policy::{
    ActionConstraint, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId, PolicySet,
    ResourceConstraint, RestrictedExpression as Value, Schema,
};
use foldhash::fast::RandomState;
use time::OffsetDateTime;

use super::kept::Kept;
use super::load::{Mode, RuleInfo};
use super::looks::Looks;
use crate::call::{
    AgentProfile, Approval, Class, Consequence, Drift, Integrity, Lifted, PolicyAction, PolicyInput,
    ResourceKind, ResourceProfile,
};
use crate::units;

/// How many pairs of agent and resource are kept ready.
const PAIRS_MAX: usize = 4096;
/// How many resources are kept ready.
const RESOURCES_MAX: usize = 8192;

/// The names of the schema, parsed once.
pub(super) struct Names {
    agent: EntityTypeName,
    group: EntityTypeName,
    domain: EntityTypeName,
    upstream: EntityTypeName,
    tool: EntityTypeName,
    operation: EntityTypeName,
    action: EntityTypeName,
    invoke: EntityUid,
}

impl Names {
    pub(super) fn new() -> Result<Names, String> {
        let name = |word: &str| {
            format!("Holdpoint::{word}").parse::<EntityTypeName>().map_err(|error| error.to_string())
        };
        let action = name("Action")?;
        Ok(Names {
            agent: name("Agent")?,
            group: name("AgentGroup")?,
            domain: name("TrustDomain")?,
            upstream: name("Upstream")?,
            tool: name("Tool")?,
            operation: name("Operation")?,
            invoke: uid(&action, "invoke"),
            action,
        })
    }

    pub(super) fn action(&self, action: PolicyAction) -> EntityUid {
        uid(&self.action, action.as_str())
    }

    fn resource_type(&self, kind: ResourceKind) -> &EntityTypeName {
        match kind {
            ResourceKind::Operation => &self.operation,
            ResourceKind::Tool => &self.tool,
            ResourceKind::Upstream => &self.upstream,
        }
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// What is known of a resource: its ids, and the policies that can match it, by action.
pub(super) struct ResourceView {
    /// Kept, so that no other profile can have this one's address.
    profile: Arc<ResourceProfile>,
    pub(super) uid: EntityUid,
    upstream: EntityUid,
    slices: [OnceLock<Slice>; 4],
}

/// The policies that can match a resource and an action, and what they look at.
pub(super) struct Slice {
    pub(super) policies: PolicySet,
    /// Those of them that are enforced, where some are in shadow.
    pub(super) enforced: Option<PolicySet>,
    pub(super) looks: Looks,
}

impl ResourceView {
    fn new(names: &Names, profile: &Arc<ResourceProfile>) -> ResourceView {
        let upstream = uid(&names.upstream, &profile.upstream);
        let own = match profile.kind {
            ResourceKind::Upstream => upstream.clone(),
            ResourceKind::Tool | ResourceKind::Operation => {
                uid(names.resource_type(profile.kind), &format!("{}/{}", profile.upstream, profile.name))
            }
        };
        ResourceView { profile: Arc::clone(profile), uid: own, upstream, slices: Default::default() }
    }

    /// The policies whose scope can match this resource and action: the others could only be false.
    pub(super) fn slice(
        &self,
        names: &Names,
        all: &PolicySet,
        rules: &HashMap<PolicyId, RuleInfo>,
        action: PolicyAction,
    ) -> &Slice {
        let [discover, external, read, write] = &self.slices;
        let slot = match action {
            PolicyAction::Discover => discover,
            PolicyAction::External => external,
            PolicyAction::Read => read,
            PolicyAction::Write => write,
        };
        slot.get_or_init(|| {
            let own = names.action(action);
            let matching = all
                .policies()
                .filter(|policy| self.in_scope(&policy.resource_constraint()))
                .filter(|policy| acts(names, &own, action, &policy.action_constraint()))
                .cloned();
            // Ids were unique in the whole, so they are in a part of it; were they not, the whole is right too.
            let policies = PolicySet::from_policies(matching).unwrap_or_else(|_| all.clone());
            let looks = policies.policies().map(|policy| match rules.get(policy.id()) {
                Some(rule) => rule.looks,
                None => Looks::of(policy),
            });
            let looks = looks.fold(Looks::default(), Looks::and);
            let shadow = |id: &PolicyId| rules.get(id).is_some_and(|rule| rule.mode != Mode::Enforce);
            let enforced = policies.policies().any(|policy| shadow(policy.id())).then(|| {
                let rest = policies.policies().filter(|policy| !shadow(policy.id())).cloned();
                PolicySet::from_policies(rest).unwrap_or_else(|_| policies.clone())
            });
            Slice { policies, enforced, looks }
        })
    }

    fn in_scope(&self, scope: &ResourceConstraint) -> bool {
        let within = |other: &EntityUid| *other == self.uid || *other == self.upstream;
        match scope {
            ResourceConstraint::Any => true,
            ResourceConstraint::In(other) => within(other),
            ResourceConstraint::Eq(other) => *other == self.uid,
            ResourceConstraint::Is(kind) => kind == self.uid.type_name(),
            ResourceConstraint::IsIn(kind, other) => kind == self.uid.type_name() && within(other),
        }
    }
}

fn acts(names: &Names, own: &EntityUid, action: PolicyAction, scope: &ActionConstraint) -> bool {
    let within = |other: &EntityUid| {
        other == own || (*other == names.invoke && !matches!(action, PolicyAction::Discover))
    };
    match scope {
        ActionConstraint::Any => true,
        ActionConstraint::In(others) => others.iter().any(within),
        ActionConstraint::Eq(other) => other == own,
    }
}

/// An agent before a resource: all entities that a policy can reach from there.
pub(super) struct PairView {
    /// Kept, so that no other profile can have this one's address.
    agent: Arc<AgentProfile>,
    pub(super) principal: EntityUid,
    pub(super) resource: Arc<ResourceView>,
    pub(super) entities: Entities,
}

/// The views of one generation of policy.
pub(super) struct Views {
    resources: Kept<Arc<ResourceView>>,
    pairs: Kept<Arc<PairView>>,
    keys: RandomState,
}

impl Default for Views {
    fn default() -> Views {
        Views {
            resources: Kept::new(RESOURCES_MAX),
            pairs: Kept::new(PAIRS_MAX),
            keys: RandomState::default(),
        }
    }
}

impl Views {
    /// The view of this input's agent and resource.
    // Invariant: a view keeps the Arcs alive whose addresses it is found by, so they can name nothing else.
    pub(super) fn of(
        &self,
        names: &Names,
        schema: &Schema,
        input: &PolicyInput,
    ) -> Result<Arc<PairView>, String> {
        let addresses = (Arc::as_ptr(&input.agent).addr(), Arc::as_ptr(&input.resource).addr());
        let key = self.keys.hash_one(addresses);
        let is = |view: &Arc<PairView>| {
            Arc::ptr_eq(&view.agent, &input.agent) && Arc::ptr_eq(&view.resource.profile, &input.resource)
        };
        if let Some(view) = self.pairs.find(key, is) {
            return Ok(view);
        }
        let resource = self.resource(names, &input.resource);
        let view = Arc::new(pair(names, schema, &input.agent, resource)?);
        self.pairs.put(key, Arc::clone(&view));
        Ok(view)
    }

    /// The view of a resource.
    pub(super) fn resource(&self, names: &Names, profile: &Arc<ResourceProfile>) -> Arc<ResourceView> {
        let key = self.keys.hash_one(Arc::as_ptr(profile).addr());
        if let Some(view) = self.resources.find(key, |view| Arc::ptr_eq(&view.profile, profile)) {
            return view;
        }
        let view = Arc::new(ResourceView::new(names, profile));
        self.resources.put(key, Arc::clone(&view));
        view
    }
}

fn pair(
    names: &Names,
    schema: &Schema,
    agent: &Arc<AgentProfile>,
    resource: Arc<ResourceView>,
) -> Result<PairView, String> {
    let wrong = |error: cedar_policy::EntityAttrEvaluationError| error.to_string();
    let (own, mut all) = self::agent(names, agent)?;
    let principal = own.uid();
    all.push(own);
    let profile = &resource.profile;
    let mut upstream = (**profile).clone();
    if resource.uid != resource.upstream {
        let parents = [resource.upstream.clone()].into();
        all.push(Entity::new(resource.uid.clone(), resource_fields(profile), parents).map_err(wrong)?);
        upstream = itself(upstream);
    }
    let upstream = Entity::new(resource.upstream.clone(), resource_fields(&upstream), Default::default());
    all.push(upstream.map_err(wrong)?);
    let entities = Entities::from_entities(all, Some(schema)).map_err(|error| error.to_string())?;
    Ok(PairView { agent: Arc::clone(agent), principal, resource, entities })
}

/// An agent, and what it is in.
pub(super) fn agent(names: &Names, agent: &AgentProfile) -> Result<(Entity, Vec<Entity>), String> {
    let domain = uid(&names.domain, agent.id.trust_domain());
    let groups: Vec<EntityUid> = agent.groups.iter().map(|group| uid(&names.group, group)).collect();
    let parents = groups.iter().chain([&domain]).cloned().collect();
    let mut others = vec![Entity::new_no_attrs(domain, Default::default())];
    for group in groups {
        if others.iter().all(|entity| entity.uid() != group) {
            others.push(Entity::new_no_attrs(group, Default::default()));
        }
    }
    let own = Entity::new(uid(&names.agent, agent.id.as_str()), agent_fields(agent), parents);
    Ok((own.map_err(|error| error.to_string())?, others))
}

/// The upstream of a tool or operation, as a policy sees it when it names the upstream itself.
pub(super) fn itself(mut profile: ResourceProfile) -> ResourceProfile {
    profile.kind = ResourceKind::Upstream;
    profile.name = Arc::from("");
    profile.listed = true;
    profile.class = Class::Read;
    profile.consequence = Consequence::NONE;
    profile.reversible = true;
    profile.idempotent = true;
    profile.pinned = false;
    profile.drift = None;
    profile
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

pub(super) fn set<T: std::ops::Deref<Target = str>>(words: &[T]) -> Value {
    Value::new_set(words.iter().map(|word| text(word)))
}

fn record<const N: usize>(fields: [(&str, Value); N]) -> Result<Value, String> {
    Value::new_record(fields.map(|(name, value)| (name.to_owned(), value))).map_err(|error| error.to_string())
}

fn agent_fields(agent: &AgentProfile) -> HashMap<String, Value> {
    let fields = [
        ("id", text(agent.id.as_str())),
        ("trust_domain", text(agent.id.trust_domain())),
        ("owner", text(&agent.owner)),
        ("owned", Value::new_bool(agent.owned)),
        ("team", text(&agent.team)),
        ("groups", set(&agent.groups)),
        ("purpose", text(&agent.purpose)),
        ("autonomy", text(agent.autonomy.as_str())),
        ("risk", Value::new_long(i64::from(agent.risk))),
        ("region", text(&agent.region)),
    ];
    let vendor = agent.vendor.as_deref().map(|vendor| ("vendor", text(vendor)));
    fields.into_iter().chain(vendor).map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn resource_fields(profile: &ResourceProfile) -> HashMap<String, Value> {
    let fields = [
        ("upstream", text(&profile.upstream)),
        ("name", text(&profile.name)),
        ("listed", Value::new_bool(profile.listed)),
        ("class", text(profile.class.as_str())),
        ("consequence", Value::new_long(i64::from(profile.consequence.level()))),
        ("reversible", Value::new_bool(profile.reversible)),
        ("idempotent", Value::new_bool(profile.idempotent)),
        ("integrity", text(integrity(profile.integrity))),
        ("environment", text(&profile.environment)),
        ("region", text(&profile.region)),
        ("data_domain", text(&profile.data_domain)),
        ("boundary", text(if profile.inside { "inside" } else { "outside" })),
        ("trusted", Value::new_bool(profile.trusted)),
        ("pinned", Value::new_bool(profile.pinned)),
        ("drift", text(profile.drift.map_or("", Drift::as_str))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The word for an integrity, as in the catalogue.
pub(in crate::decide) fn integrity(integrity: Integrity) -> &'static str {
    match integrity {
        Integrity::Trusted => "trusted",
        Integrity::Mixed => "mixed",
        Integrity::Untrusted => "untrusted",
    }
}

/// The context of one question.
pub(super) fn context(input: &PolicyInput, approval: Option<&Approval>) -> Result<Context, String> {
    let now = utc(input.now)?;
    let effects = input.effects.iter().map(|effect| text(effect.as_str()));
    let mut pairs = Vec::with_capacity(16);
    pairs.push(("class", text(input.class.as_str())));
    pairs.push(("consequence", Value::new_long(i64::from(input.consequence.level()))));
    pairs.push(("effects", Value::new_set(effects)));
    if let Some(task) = &input.task {
        let fields =
            [("id", text(&task.id)), ("purpose", text(&task.purpose)), ("systems", set(&task.systems))];
        pairs.push(("task", record(fields)?));
    }
    let calls = i64::try_from(input.calls).unwrap_or(i64::MAX);
    let run = record([
        ("labels", set(&input.labels)),
        ("findings", set(&input.findings)),
        ("profile", text(input.profile.as_str())),
        ("calls", Value::new_long(calls)),
    ])?;
    pairs.push(("run", run));
    let facts = input.facts.iter().map(|(name, value)| (name.to_string(), fact(value)));
    pairs.push(("facts", Value::new_record(facts).map_err(|error| error.to_string())?));
    pairs.push(("tiers", set(&input.tiers)));
    pairs.push(("destinations_internal", Value::new_bool(input.destinations_internal)));
    if let Some(person) = &input.on_behalf_of {
        pairs.push(("on_behalf_of", text(person)));
    }
    let auth = record([
        ("method", text(input.auth.method)),
        ("bound", Value::new_bool(input.auth.bound)),
        ("instance", text(&input.auth.instance)),
    ])?;
    pairs.push(("auth", auth));
    pairs.push(("now", Value::new_datetime(datetime(now))));
    pairs.push(("hour_utc", Value::new_long(i64::from(now.hour()))));
    pairs.push(("source_ip", Value::new_ip(input.source_ip.to_string())));
    if let Some(approval) = approval {
        pairs.push(("approval", approved(approval)?));
    }
    if let Some(grant) = &input.break_glass {
        let until = Value::new_datetime(datetime(utc(grant.until)?));
        let fields = [
            ("grants", set(&grant.grants)),
            ("by", set(&grant.by)),
            ("until", until),
            ("rules", set(&grant.rules)),
        ];
        pairs.push(("break_glass", record(fields)?));
    }
    let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value));
    Context::from_pairs(pairs).map_err(|error| error.to_string())
}

fn approved(approval: &Approval) -> Result<Value, String> {
    record([
        ("id", text(&approval.id)),
        ("digest_ok", Value::new_bool(approval.digest_ok)),
        ("count", Value::new_long(i64::from(approval.count))),
        ("roles", set(&approval.roles)),
    ])
}

fn fact(value: &Lifted) -> Value {
    match value {
        Lifted::Bool(value) => Value::new_bool(*value),
        Lifted::Decimal(value) => Value::new_decimal(value),
        Lifted::Long(value) => Value::new_long(*value),
        Lifted::Text(value) => text(value),
    }
}

/// A point in time as a date; a clock before 1970 or after the year 9999 is an error, and an error denies.
pub(in crate::decide) fn utc(time: SystemTime) -> Result<OffsetDateTime, String> {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i128::try_from(since.as_nanos()).ok())
        .and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())
        .ok_or_else(|| "the time is outside of 1970 to 9999".to_owned())
}

/// Cedar's `datetime` has milliseconds.
pub(super) fn datetime(at: OffsetDateTime) -> String {
    units::moment(at, 3).to_string()
}
