//! What people may do, by the policies that are for people. Nothing is remembered: people ask rarely.

use std::sync::Arc;
use std::time::SystemTime;

use cedar_policy::{
    Authorizer, Context, Decision as Answered, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    Request, RestrictedExpression as Value,
};

use super::view;
use super::{Decision, NO_PERMIT, Outcome, POLICY_ERROR, Policy};
use crate::call::{AgentProfile, Person, PersonAction, ResourceProfile};

/// The type of people in Cedar.
pub(super) const TYPE: &str = "Holdpoint::Person";
/// What people may ask for.
pub(super) const ACTIONS: [PersonAction; 8] = PersonAction::ALL;

/// What a person would act on.
#[derive(Clone, Copy, Debug)]
pub enum Object<'a> {
    /// An agent of the registry.
    Agent(&'a AgentProfile),
    /// What belongs to no team: the gateway, and the records of no agent.
    Gateway,
    /// A team by its name.
    Team(&'a str),
    /// An upstream.
    Upstream(&'a ResourceProfile),
}

/// What policy may know of a held call when it is asked who decides it.
#[derive(Clone, Copy, Debug)]
pub struct HeldCall<'a> {
    /// Its consequence, 0 to 4.
    pub consequence: u8,
    /// The roles that it asks for.
    pub approvers: &'a [String],
    /// Whether it is made on behalf of the person.
    pub on_behalf: bool,
}

/// One question about a person.
#[derive(Clone, Copy, Debug)]
pub struct PersonInput<'a> {
    /// Who asks.
    pub person: &'a Person,
    /// For what.
    pub action: PersonAction,
    /// To what.
    pub object: Object<'a>,
    /// In which capacities the person owns the object: `business`, `technical`, `risk`.
    pub owns: &'a [&'static str],
    /// The held call that it is about, if it is about one.
    pub hold: Option<HeldCall<'a>>,
    /// When.
    pub now: SystemTime,
}

impl Policy {
    /// Whether a person may do something. Without a rule that permits it is denied, and where a rule cannot be
    /// evaluated too.
    pub fn permits(&self, input: &PersonInput<'_>) -> Decision {
        let deny = |rule: &str, reason: String, policies: Vec<Arc<str>>, errors: Vec<String>| Decision {
            outcome: Outcome::Deny,
            policies,
            rule: Arc::from(rule),
            reason,
            errors,
            shadow: None,
        };
        let response = match self.ask_of_person(input) {
            Ok(response) => response,
            Err(error) => {
                let reason = format!("denied, because policy could not be evaluated: {error}");
                return deny(POLICY_ERROR, reason, Vec::new(), vec![error]);
            }
        };
        let mut rules: Vec<_> = response.diagnostics().reason().filter_map(|id| self.rules.get(id)).collect();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        let policies: Vec<Arc<str>> = rules.iter().map(|rule| Arc::clone(&rule.id)).collect();
        let mut errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
        errors.sort();
        if !errors.is_empty() {
            let reason = format!("denied, because policy could not be evaluated: {}", errors.join("; "));
            return deny(POLICY_ERROR, reason, policies, errors);
        }
        let Some(rule) = rules.first() else {
            return deny(NO_PERMIT, "denied: no policy permits it".to_owned(), policies, errors);
        };
        let (outcome, word) = match response.decision() {
            Answered::Allow => (Outcome::Allow, "permitted"),
            Answered::Deny => (Outcome::Deny, "forbidden"),
        };
        let reason = format!("{word} by {}", policies.join(", "));
        Decision { outcome, rule: Arc::clone(&rule.public), policies, reason, errors, shadow: None }
    }

    fn ask_of_person(&self, input: &PersonInput<'_>) -> Result<cedar_policy::Response, String> {
        let (schema, policies) = &self.people;
        let person = input.person;
        let principal = uid("Person", person.id.as_str())?;
        let fields = [
            ("id", text(person.id.as_str())),
            ("email", text(&person.email)),
            ("roles", view::set(&person.roles)),
            ("teams", view::set(&person.teams)),
        ];
        let mut all = vec![entity(principal.clone(), fields.map(named))?];
        let resource = self.object(input.object, &mut all)?;
        let entities = Entities::from_entities(all, Some(schema)).map_err(|error| error.to_string())?;
        let now = view::utc(input.now)?;
        let capacities = input.owns.iter().map(|capacity| text(capacity)).collect::<Vec<_>>();
        let hold = input.hold.map(|hold| {
            let fields = [
                ("consequence", Value::new_long(i64::from(hold.consequence))),
                ("approvers", Value::new_set(hold.approvers.iter().map(|role| text(role)))),
                ("on_behalf", Value::new_bool(hold.on_behalf)),
            ];
            Value::new_record(fields.map(named)).map_err(|error| error.to_string())
        });
        let hold = hold.transpose()?.map(|hold| ("hold", hold));
        let context = [
            ("owns", Value::new_bool(!input.owns.is_empty())),
            ("owns_as", Value::new_set(capacities)),
            ("now", Value::new_datetime(view::datetime(now))),
            ("hour_utc", Value::new_long(i64::from(now.hour()))),
        ];
        let context = context.into_iter().chain(hold).map(named);
        let context = Context::from_pairs(context).map_err(|error| error.to_string())?;
        let action = uid("Action", input.action.as_str())?;
        let request = Request::new(principal, action, resource, context, Some(schema))
            .map_err(|error| error.to_string())?;
        Ok(Authorizer::new().is_authorized(&request, policies, &entities))
    }

    /// The entity of an object, put among the others; its id.
    fn object(&self, object: Object<'_>, all: &mut Vec<Entity>) -> Result<EntityUid, String> {
        let (id, fields) = match object {
            Object::Agent(agent) => {
                let (agent, others) = view::agent(&self.names, agent)?;
                let id = agent.uid();
                all.extend(others.into_iter().chain([agent]));
                return Ok(id);
            }
            Object::Gateway => (uid("Gateway", "gateway")?, Vec::new()),
            Object::Team(name) => (uid("Team", name)?, vec![named(("name", text(name)))]),
            Object::Upstream(profile) => {
                let fields = view::resource_fields(&view::itself(profile.clone()));
                (uid("Upstream", &profile.upstream)?, fields.into_iter().collect())
            }
        };
        all.push(entity(id.clone(), fields)?);
        Ok(id)
    }
}

fn entity(id: EntityUid, fields: impl IntoIterator<Item = (String, Value)>) -> Result<Entity, String> {
    Entity::new(id, fields.into_iter().collect(), Default::default()).map_err(|error| error.to_string())
}

fn named((name, value): (&str, Value)) -> (String, Value) {
    (name.to_owned(), value)
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind: EntityTypeName =
        format!("Holdpoint::{kind}").parse().map_err(|error: cedar_policy::ParseErrors| error.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}
