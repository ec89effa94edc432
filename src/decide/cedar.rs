//! The policy of one generation: loaded whole or not at all, and asked once per call.

mod glass;
mod kept;
mod load;
mod looks;
mod memo;
mod person;
mod terms;
pub(super) mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use cedar_policy::{Authorizer, Decision as Answered, PolicyId, PolicySet, Request, Schema};

use crate::bench::{self, Control};
use crate::call::{Approval, FactType, PolicyInput};
use crate::decide::schema::Facts;
use crate::yaml::Mistake;
use load::{Mode, RuleInfo};
use memo::Memo;
pub use person::{HeldCall, Object, PersonInput};
pub use terms::HoldTerms;
use view::{Names, PairView, Views};

/// The policies that are shipped, by file name.
pub const SHIPPED: [(&str, &str); 10] = [
    ("autonomy.cedar", include_str!("../../policies/autonomy.cedar")),
    ("consequence.cedar", include_str!("../../policies/consequence.cedar")),
    ("effects.cedar", include_str!("../../policies/effects.cedar")),
    ("environments.cedar", include_str!("../../policies/environments.cedar")),
    ("flow.cedar", include_str!("../../policies/flow.cedar")),
    ("high-impact.cedar", include_str!("../../policies/high-impact.cedar")),
    ("people.cedar", include_str!("../../policies/people.cedar")),
    ("residency.cedar", include_str!("../../policies/residency.cedar")),
    ("unlisted.cedar", include_str!("../../policies/unlisted.cedar")),
    ("vendors.cedar", include_str!("../../policies/vendors.cedar")),
];

/// What an agent is told when no policy permits.
pub const NO_PERMIT: &str = "no-permit";
/// What an agent is told when a policy could not be evaluated.
pub const POLICY_ERROR: &str = "policy-error";

/// What policy says to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may go.
    Allow,
    /// It may not.
    Deny,
    /// It may go once people have approved it.
    Hold(HoldTerms),
}

impl Outcome {
    /// The word used in records, cases and tables.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Allow => "allow",
            Outcome::Deny => "deny",
            Outcome::Hold(_) => "hold",
        }
    }
}

/// A decision with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What policy says.
    pub outcome: Outcome,
    /// The ids of the policies that determined it, sorted; none by default denial.
    pub policies: Vec<Arc<str>>,
    /// What the agent is told: the alias of the deciding policy. It never says what matched.
    pub rule: Arc<str>,
    /// Why, as an operator reads it.
    pub reason: String,
    /// What went wrong in evaluation. Anything here denies.
    pub errors: Vec<String>,
    /// What it would be if the policies in shadow were enforced, where that differs.
    pub shadow: Option<Box<Decision>>,
}

/// One generation of policy. It never changes; a reload makes another one.
pub struct Policy {
    schema: Schema,
    all: PolicySet,
    /// Without those in shadow.
    enforced: PolicySet,
    /// Whether any is in shadow.
    shadow: bool,
    /// What is enforced from each moment on at which a shadow ends, in order.
    later: Vec<(SystemTime, PolicySet)>,
    /// What is asked about people alone, with its schema.
    people: (Schema, PolicySet),
    rules: HashMap<PolicyId, RuleInfo>,
    facts: Facts,
    revision: Arc<str>,
    names: Names,
    views: Views,
    memo: Memo,
    authorizer: Authorizer,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("revision", &self.revision)
            .field("policies", &self.rules.len())
            .finish()
    }
}

/// What Cedar answered to one question.
struct Answer<'a> {
    allowed: bool,
    rules: Vec<&'a RuleInfo>,
    errors: Vec<String>,
}

/// Which policies are asked.
#[derive(Clone, Copy)]
enum Extent {
    Slice,
    Whole,
}

/// Whether policies in shadow are asked too.
#[derive(Clone, Copy)]
enum Reach {
    All,
    Enforced,
    /// Those that are enforced, and those whose shadow has ended.
    Now,
}

impl Policy {
    /// Loads the `*.cedar` files among these (name, text), for a deployment with these facts, or gives every mistake.
    pub fn load(files: &[(String, String)], facts: &Facts) -> Result<Policy, Vec<Mistake>> {
        let now = SystemTime::now();
        let loaded = load::load(files, facts)?;
        let later = later(&loaded.set, &loaded.rules, now);
        let names = Names::new().map_err(|problem| vec![Mistake::new("schema.cedarschema", "", problem)])?;
        Ok(Policy {
            schema: loaded.schema,
            enforced: loaded.enforced,
            shadow: loaded.rules.values().any(|rule| rule.mode != Mode::Enforce),
            later,
            all: loaded.set,
            people: loaded.people,
            rules: loaded.rules,
            facts: facts.clone(),
            revision: Arc::from(loaded.revision),
            names,
            views: Views::default(),
            memo: Memo::default(),
            authorizer: Authorizer::new(),
        })
    }

    /// The policies that are shipped.
    pub fn shipped(facts: &Facts) -> Result<Policy, Vec<Mistake>> {
        Policy::load(&SHIPPED.map(|(name, text)| (name.to_owned(), text.to_owned())), facts)
    }

    /// The digest of the sources, as it stands in every record.
    pub fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// The policies with `@mode("shadow")`, sorted by id, and when the shadow of each ends or has ended; `None` where no
    /// end was said.
    pub fn in_shadow(&self) -> Vec<(Arc<str>, Option<SystemTime>)> {
        let shadow = self.rules.values().filter(|rule| rule.mode != Mode::Enforce);
        let mut all: Vec<_> = shadow.map(|rule| (Arc::clone(&rule.id), rule.ends())).collect();
        all.sort();
        all
    }

    /// Whether a shadow has ended that stood when these policies were loaded.
    fn is_past(&self, now: SystemTime) -> bool {
        self.later.first().is_some_and(|(end, _)| now >= *end)
    }

    /// What each policy that holds calls asks of people, by the policy's id.
    pub fn holds(&self) -> Vec<(Arc<str>, HoldTerms)> {
        let asks = |rule: &RuleInfo| Some((Arc::clone(&rule.id), rule.terms.clone()?));
        let mut holds: Vec<_> = self.rules.values().filter_map(asks).collect();
        holds.sort_by(|(a, _), (b, _)| a.cmp(b));
        holds
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The file that a policy is in, and its alias for agents.
    pub fn describe(&self, id: &str) -> Option<(Arc<str>, Arc<str>)> {
        let rule = self.rules.get(&PolicyId::new(id))?;
        Some((Arc::clone(&rule.file), Arc::clone(&rule.public)))
    }

    /// What the policy says to this call, over the policies that can match it; remembered where nothing that these
    /// policies look at can change between calls.
    pub fn evaluate(&self, input: &PolicyInput) -> Arc<Decision> {
        if bench::off(Control::Decide) {
            let none = Answer { allowed: true, rules: Vec::new(), errors: Vec::new() };
            return Arc::new(allowed(&none));
        }
        // What is remembered may have been decided while a shadow stood that has ended since.
        if self.is_past(input.now) || self.conforms(input).is_err() || view::utc(input.now).is_err() {
            return Arc::new(self.evaluate_fresh(input));
        }
        let resource = self.views.resource(&self.names, &input.resource);
        let looks = resource.slice(&self.names, &self.all, &self.rules, input.action).looks;
        self.memo.decide(looks, input, || self.evaluate_fresh(input))
    }

    /// The same, decided anew: the oracle that what is remembered is compared with.
    pub fn evaluate_fresh(&self, input: &PolicyInput) -> Decision {
        self.decide(input, Extent::Slice)
    }

    /// The same over all policies: the oracle that the slices are compared with.
    pub fn evaluate_whole(&self, input: &PolicyInput) -> Decision {
        self.decide(input, Extent::Whole)
    }

    /// With policies in shadow, what all would say is kept beside what the enforced ones say.
    fn decide(&self, input: &PolicyInput, extent: Extent) -> Decision {
        let all = self.judge(input, extent, Reach::All);
        if !self.shadow || all.outcome == Outcome::Allow || input.is_enforced() {
            return all;
        }
        let reach = if self.is_past(input.now) { Reach::Now } else { Reach::Enforced };
        let enforced = self.judge(input, extent, reach);
        if enforced.outcome.as_str() == all.outcome.as_str() {
            return all;
        }
        Decision { shadow: Some(Box::new(all)), ..enforced }
    }

    /// The policies without those whose shadow stands at this moment.
    fn enforced_at(&self, now: SystemTime) -> &PolicySet {
        let over = self.later.iter().take_while(|(end, _)| now >= *end).last();
        over.map_or(&self.enforced, |(_, policies)| policies)
    }

    fn judge(&self, input: &PolicyInput, extent: Extent, reach: Reach) -> Decision {
        let ask = |approval: Option<&Approval>| self.ask(input, approval, extent, reach);
        let first = ask(input.approval.as_ref());
        if !first.errors.is_empty() {
            return failed(first);
        }
        match (&input.approval, first.allowed) {
            (None, true) => allowed(&first),
            (Some(approval), true) => released(&first, ask(None), approval),
            (Some(_), false) => denied(&first, None),
            (None, false) => match curable(&first) {
                None => denied(&first, None),
                Some(terms) => {
                    let second = ask(Some(&terms.approval()));
                    if !second.errors.is_empty() {
                        failed(second)
                    } else if second.allowed {
                        held(&first, terms)
                    } else {
                        denied(&first, Some(&second))
                    }
                }
            },
        }
    }

    fn ask(
        &self,
        input: &PolicyInput,
        approval: Option<&Approval>,
        extent: Extent,
        reach: Reach,
    ) -> Answer<'_> {
        match self.try_ask(input, approval, extent, reach) {
            Ok(answer) => answer,
            Err(error) => Answer { allowed: false, rules: Vec::new(), errors: vec![error] },
        }
    }

    fn try_ask(
        &self,
        input: &PolicyInput,
        approval: Option<&Approval>,
        extent: Extent,
        reach: Reach,
    ) -> Result<Answer<'_>, String> {
        self.conforms(input)?;
        let view: Arc<PairView> = self.views.of(&self.names, &self.schema, input)?;
        let context = view::context(input, approval)?;
        let action = self.names.action(input.action);
        // The schema is not asked again here: entities are checked when made, facts above, and the rest is typed.
        let request = Request::new(view.principal.clone(), action, view.resource.uid.clone(), context, None)
            .map_err(|error| error.to_string())?;
        let slice = view.resource.slice(&self.names, &self.all, &self.rules, input.action);
        let policies = match (extent, reach) {
            (_, Reach::Now) => self.enforced_at(input.now),
            (Extent::Slice, Reach::All) => &slice.policies,
            (Extent::Slice, Reach::Enforced) => slice.enforced.as_ref().unwrap_or(&slice.policies),
            (Extent::Whole, Reach::All) => &self.all,
            (Extent::Whole, Reach::Enforced) => &self.enforced,
        };
        let response = self.authorizer.is_authorized(&request, policies, &view.entities);
        let mut rules: Vec<&RuleInfo> =
            response.diagnostics().reason().filter_map(|id| self.rules.get(id)).collect();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        let mut errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
        errors.sort();
        Ok(Answer { allowed: response.decision() == Answered::Allow, rules, errors })
    }

    /// The facts must be of the types that the policies were checked against.
    fn conforms(&self, input: &PolicyInput) -> Result<(), String> {
        for (name, value) in &input.facts {
            let kind = FactType::of(value);
            match self.facts.get(name) {
                Some(declared) if *declared == kind => {}
                Some(declared) => {
                    let (is, expected) = (kind.as_str(), declared.as_str());
                    return Err(format!("fact `{name}` is {is} and was declared {expected}"));
                }
                None => return Err(format!("fact `{name}` is declared by no catalogue")),
            }
        }
        Ok(())
    }
}

fn ids(answer: &Answer<'_>) -> Vec<Arc<str>> {
    answer.rules.iter().map(|rule| Arc::clone(&rule.id)).collect()
}

/// The joint terms, when there is a determining policy and every one is a hold.
fn curable(answer: &Answer<'_>) -> Option<HoldTerms> {
    let mut rules = answer.rules.iter();
    let first = rules.next()?.terms.clone()?;
    rules.try_fold(first, |terms, rule| Some(terms.join(rule.terms.as_ref()?)))
}

fn failed(answer: Answer<'_>) -> Decision {
    Decision {
        outcome: Outcome::Deny,
        policies: ids(&answer),
        rule: Arc::from(POLICY_ERROR),
        reason: format!("denied, because policy could not be evaluated: {}", answer.errors.join("; ")),
        errors: answer.errors,
        shadow: None,
    }
}

fn allowed(answer: &Answer<'_>) -> Decision {
    let policies = ids(answer);
    Decision {
        reason: format!("allowed by {}", policies.join(", ")),
        rule: answer.rules.first().map_or_else(|| Arc::from(""), |rule| Arc::clone(&rule.public)),
        outcome: Outcome::Allow,
        policies,
        errors: Vec::new(),
        shadow: None,
    }
}

/// An approved call that the policies let go: the annotations of the holds that it lifts bind as well.
fn released(answer: &Answer<'_>, without: Answer<'_>, approval: &Approval) -> Decision {
    if !without.errors.is_empty() {
        return failed(without);
    }
    let unmet =
        without.rules.iter().find(|rule| rule.terms.as_ref().is_some_and(|terms| !terms.met_by(approval)));
    match unmet.filter(|_| !without.allowed) {
        None => allowed(answer),
        Some(rule) => {
            let asked = rule.terms.as_ref().map(HoldTerms::sentence).unwrap_or_default();
            Decision {
                outcome: Outcome::Deny,
                policies: vec![Arc::clone(&rule.id)],
                rule: Arc::clone(&rule.public),
                reason: format!("denied: {} needs {asked}, and the approval is less than that", rule.id),
                errors: Vec::new(),
                shadow: None,
            }
        }
    }
}

fn held(answer: &Answer<'_>, terms: HoldTerms) -> Decision {
    let policies = ids(answer);
    // The agent is told the rule that asks most; among equals the first by id.
    let quorum = |rule: &&&RuleInfo| rule.terms.as_ref().map_or(0, |terms| terms.quorum);
    let rule = answer.rules.iter().rev().max_by_key(quorum);
    Decision {
        reason: format!("held by {}: needs {}", policies.join(", "), terms.sentence()),
        rule: rule.map_or_else(|| Arc::from(NO_PERMIT), |rule| Arc::clone(&rule.public)),
        outcome: Outcome::Hold(terms),
        policies,
        errors: Vec::new(),
        shadow: None,
    }
}

/// A denial; `second` is what was answered with the approval that the holds ask for, when it was asked.
fn denied(first: &Answer<'_>, second: Option<&Answer<'_>>) -> Decision {
    let policies = ids(first);
    let last = second.unwrap_or(first);
    let rule = last.rules.iter().find(|rule| rule.terms.is_none()).or(last.rules.first());
    let reason = match (policies.is_empty(), second) {
        (true, _) => "denied, because no policy permits it".to_owned(),
        (false, None) => format!("denied by {}", policies.join(", ")),
        (false, Some(second)) if second.rules.is_empty() => format!(
            "denied: {} would hold it, but no policy permits it even with an approval",
            policies.join(", ")
        ),
        (false, Some(second)) => format!(
            "denied: {} would hold it, but {} denies it even with an approval",
            policies.join(", "),
            ids(second).join(", ")
        ),
    };
    Decision {
        outcome: Outcome::Deny,
        policies,
        rule: rule.map_or_else(|| Arc::from(NO_PERMIT), |rule| Arc::clone(&rule.public)),
        reason,
        errors: Vec::new(),
        shadow: None,
    }
}

/// What is enforced from each moment after this one on at which a shadow ends, in order.
fn later(
    all: &PolicySet,
    rules: &HashMap<PolicyId, RuleInfo>,
    now: SystemTime,
) -> Vec<(SystemTime, PolicySet)> {
    let mut ends: Vec<SystemTime> =
        rules.values().filter_map(RuleInfo::ends).filter(|end| *end > now).collect();
    ends.sort_unstable();
    ends.dedup();
    let from = |end: SystemTime| {
        let enforced = |rule: &RuleInfo| !rule.is_in_shadow(end);
        let policies = all.policies().filter(|policy| rules.get(policy.id()).is_none_or(enforced));
        // What cannot be put together is no reason to enforce less.
        (end, PolicySet::from_policies(policies.cloned()).unwrap_or_else(|_| all.clone()))
    };
    ends.into_iter().map(from).collect()
}
