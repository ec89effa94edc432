//! Policy: the shipped rules by their cases, what is refused at load, and that nothing but a permit lets a call go.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holdpoint::call::FactType;
use holdpoint::call::{
    AgentId, AgentProfile, Approval, Auth, Autonomy, BreakGlass, Class, Consequence, Effect, Integrity,
    Lifted, PolicyAction, PolicyInput, ResourceKind, ResourceProfile, Task,
};
use holdpoint::cli::policy as command;
use holdpoint::decide::schema::Facts;
use holdpoint::decide::{Outcome, Policy, wire};
use holdpoint::json::Members;
use proptest::prelude::*;

const ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";
const UNLESS: &str =
    "unless { context has approval && context.approval.digest_ok && context.approval.count >= ";

fn load(text: &str) -> Result<Policy, Vec<String>> {
    load_with(text, &Facts::new())
}

fn load_with(text: &str, facts: &Facts) -> Result<Policy, Vec<String>> {
    Policy::load(&[("p.cedar".to_owned(), text.to_owned())], facts)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn refused(text: &str, problem: &str) {
    let mistakes = load(text).err().unwrap_or_default();
    assert!(mistakes.iter().any(|mistake| mistake.contains(problem)), "{problem:?} is not in {mistakes:#?}");
}

fn input(class: Class) -> PolicyInput {
    PolicyInput {
        agent: Arc::new(AgentProfile {
            id: AgentId::from_normalised("spiffe://example.org/agent/a"),
            owner: "ana@example.org".into(),
            owned: true,
            team: "care".into(),
            groups: vec!["tier-1".into()],
            purpose: "tests".into(),
            autonomy: Autonomy::Constrained,
            risk: 1,
            region: "eu".into(),
            vendor: None,
        }),
        action: PolicyAction::of(class),
        resource: resource(ResourceKind::Tool, "mail", "send"),
        class,
        consequence: Consequence::NONE,
        effects: vec![],
        labels: vec![],
        findings: vec![],
        profile: Default::default(),
        calls: 0,
        task: None,
        facts: BTreeMap::new(),
        tiers: vec![],
        destinations_internal: false,
        on_behalf_of: None,
        auth: Auth { method: "mtls", bound: true, instance: "01".into() },
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        approval: None,
        break_glass: None,
    }
}

fn resource(kind: ResourceKind, upstream: &str, name: &str) -> Arc<ResourceProfile> {
    Arc::new(ResourceProfile {
        kind,
        upstream: upstream.into(),
        name: name.into(),
        listed: true,
        class: Class::Read,
        consequence: Consequence::NONE,
        reversible: true,
        idempotent: true,
        integrity: Integrity::Trusted,
        environment: "".into(),
        region: "".into(),
        data_domain: "".into(),
        inside: true,
        trusted: true,
        pinned: true,
        drift: None,
    })
}

#[test]
fn the_shipped_policies_are_in_order_and_their_cases_hold() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let checked = command::check(&dir, &Facts::new());
    assert_eq!(checked.code, 0, "{}", checked.text);
    let tested = command::test(&dir, &Facts::new());
    assert_eq!(tested.code, 0, "{}", tested.text);
    assert!(tested.json["cases"].as_array().unwrap().len() >= 50);
    let shipped = Policy::shipped(&Facts::new()).unwrap();
    assert_eq!(&**shipped.revision(), checked.json["revision"].as_str().unwrap(), "every file is in SHIPPED");
}

#[test]
fn every_mistake_is_said_at_once() {
    let text = "permit (principal, action, resource);\n@id(\"a\") @colour(\"red\") permit (principal, action, resource);\n\
                @id(\"a\") forbid (principal, action, resource);\n\
                @id(\"typo\") permit (principal, action, resource) when { principal.riks > 1 };\n";
    let mistakes = load(text).unwrap_err();
    for part in [
        "policy 1 of the file: has no @id",
        "a: @colour is no annotation",
        "a: @id is used twice",
        "typo (line 4)",
    ] {
        assert!(mistakes.iter().any(|mistake| mistake.contains(part)), "{part:?} is not in {mistakes:#?}");
    }
}

#[test]
fn what_cannot_be_a_policy_is_refused() {
    refused("permit (principal, action", "line 1");
    refused("@id(\"t\") permit (principal == ?principal, action, resource);", "is a template");
    refused(
        "@id(\"s\") @mode(\"off\") forbid (principal, action, resource);",
        "@mode(\"off\") must be @mode(\"shadow\") or, with its last day",
    );
    refused("@id(\"h\") @hold(\"approval\") permit (principal, action, resource);", "belongs on a forbid");
    refused(
        "@id(\"q\") @quorum(\"2\") forbid (principal, action, resource);",
        "belongs to a policy with @hold",
    );
    refused("@id(\"p\") @public(\"Secret Run\") permit (principal, action, resource);", "@public");
    let hold = |annotations: &str| {
        format!(
            "@id(\"h\") @hold(\"approval\") {annotations} forbid (principal, action, resource) {UNLESS}1 }};"
        )
    };
    load(&hold("")).unwrap();
    refused(&hold("@quorum(\"0\")"), "@quorum(\"0\")");
    refused(&hold("@ttl(\"PT30M\")"), "@ttl(\"PT30M\")");
    // A condition that is always false is a mistake too.
    refused("@id(\"n\") permit (principal, action, resource) when { principal has nothing };", "n");
    let odd =
        [("p.cedar".to_owned(), ALL.to_owned()), ("schema.cedarschema".to_owned(), "entity A;".to_owned())];
    assert!(Policy::load(&odd, &Facts::new()).is_err());
}

#[test]
fn a_hold_is_lifted_by_exactly_what_its_annotations_promise() {
    let hold = |annotations: &str, unless: &str| {
        format!("@id(\"h\") @hold(\"approval\") {annotations} forbid (principal, action, resource) {unless};")
    };
    let two = "@quorum(\"2\") @approvers(\"oncall, payments\")";
    let roles = " && context.approval.roles.containsAll([\"payments\", \"oncall\"])";
    load(&hold(two, &format!("{UNLESS}2{roles} }}"))).unwrap();
    load(&hold(two, &format!("{UNLESS}2 }}"))).unwrap();
    let glass = "unless { (context has break_glass && context.break_glass.rules.contains(\"h\")) ||
        (context has approval && context.approval.digest_ok && 2 <= context.approval.count) }";
    load(&hold("@quorum(\"2\")", glass)).unwrap();
    refused(&hold(two, &format!("{UNLESS}1{roles} }}")), "@quorum says 2 and its `unless` asks for 1");
    refused(&hold("@quorum(\"1\")", &format!("{UNLESS}2 }}")), "@quorum says 1 and its `unless` asks for 2");
    refused(&hold("", &format!("{UNLESS}1{roles} }}")), "@approvers says \"\"");
    refused(&hold("", &format!("{UNLESS}1 && principal.risk < 3 }}")), "asks more of an approved call");
    refused(&hold("", "unless { context has approval && context.approval.count >= 1 }"), "digest_ok");
    refused(&hold("", "when { context.consequence > 2 }"), "no approval would ever lift it");
    refused(&hold("", "when { !(context has approval) }"), "its `when` speaks of the approval");
}

#[test]
fn break_glass_lifts_a_forbid_that_names_itself_and_nothing_else() {
    let forbid =
        |condition: &str| format!("{ALL}@id(\"f\") forbid (principal, action, resource) {condition};");
    let glass = "unless { context has break_glass && context.break_glass.rules.contains(\"f\") }";
    let policy = load(&forbid(glass)).unwrap();
    assert_eq!(policy.liftable(), ["f".into()]);
    assert_eq!(load(&forbid("when { context.consequence > 2 }")).unwrap().liftable(), [] as [Arc<str>; 0]);
    for (condition, why) in [
        (
            "unless { context has break_glass && context.break_glass.rules.contains(\"other\") }",
            "not of this policy alone",
        ),
        ("unless { context has break_glass }", "not of this policy alone"),
        ("unless { context has break_glass || context.consequence < 2 }", "not of this policy alone"),
        ("when { !(context has break_glass) }", "its `when` speaks of break-glass"),
        ("unless { {a: context}.a has break_glass }", "not of this policy alone"),
    ] {
        refused(&forbid(condition), why);
    }
    let permit = "@id(\"p\") permit (principal, action, resource) when { context has break_glass };";
    refused(permit, "permits nothing");

    let mut call = input(Class::Write);
    assert_eq!(policy.evaluate(&call).outcome, Outcome::Deny);
    let grant = |rule: &str| BreakGlass {
        grants: vec!["g".into()],
        by: vec!["ana".into()],
        until: SystemTime::UNIX_EPOCH,
        rules: vec![rule.into()],
    };
    call.break_glass = Some(grant("other"));
    let decision = policy.evaluate(&call);
    assert_eq!((&decision.outcome, policy.lifted(&call, &decision).len()), (&Outcome::Deny, 0));
    call.break_glass = Some(grant("f"));
    let decision = policy.evaluate(&call);
    assert_eq!((&decision.outcome, policy.lifted(&call, &decision)), (&Outcome::Allow, vec!["f".into()]));
    call.break_glass = None;
    assert_eq!(policy.evaluate(&call).outcome, Outcome::Deny, "it is not remembered");
}

#[test]
fn a_rule_that_errs_denies() {
    let facts: Facts = [(Arc::from("n"), FactType::Long), (Arc::from("amount"), FactType::Decimal)].into();
    let text = format!(
        "{ALL}@id(\"sum\") forbid (principal, action, resource) when {{ context.facts has n && context.facts.n + 1 < 0 }};"
    );
    let policy = load_with(&text, &facts).unwrap();
    let mut call = input(Class::Read);
    call.facts.insert("n".into(), Lifted::Long(1));
    assert_eq!(policy.evaluate(&call).outcome, Outcome::Allow);
    call.facts.insert("n".into(), Lifted::Long(i64::MAX));
    let decision = policy.evaluate(&call);
    assert_eq!(
        (decision.outcome.clone(), &*decision.rule, decision.errors.len()),
        (Outcome::Deny, "policy-error", 1)
    );
    for (name, value) in [
        ("amount", Lifted::Decimal("99999999999999999999.5".to_owned())),
        ("n", Lifted::Text("1".to_owned())),
        ("unknown", Lifted::Bool(true)),
    ] {
        let mut call = input(Class::Read);
        call.facts.insert(name.into(), value);
        assert_eq!(&*policy.evaluate(&call).rule, "policy-error", "{name}");
    }
}

#[test]
fn a_forbid_in_shadow_says_what_would_be_and_a_permit_in_shadow_permits_nothing() {
    let permit = "@id(\"p\") permit (principal, action, resource);";
    let shadow = "@id(\"s\") @mode(\"shadow\") @public(\"later\") forbid (principal, action, resource);";
    let policy = load(&format!("{permit}\n{shadow}")).unwrap();
    assert_eq!(policy.in_shadow(), [(Arc::from("s"), None)]);
    let mut call = input(Class::Write);
    let decision = policy.evaluate(&call);
    assert_eq!(decision.outcome, Outcome::Allow);
    let would_be = decision.shadow.as_deref().unwrap();
    assert_eq!((&would_be.outcome, &*would_be.rule), (&Outcome::Deny, "later"));
    call.consequence = Consequence::new(4).unwrap();
    let decision = policy.evaluate(&call);
    assert_eq!((&decision.outcome, &decision.shadow), (&Outcome::Deny, &None));
    let policy = load("@id(\"p\") @mode(\"shadow\") permit (principal, action, resource);").unwrap();
    assert_eq!(policy.evaluate(&input(Class::Read)).outcome, Outcome::Deny);
}

#[test]
fn a_policy_in_shadow_is_enforced_from_the_end_of_its_last_day_on() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let today = time::OffsetDateTime::now_utc().date();
    let last = today + time::Duration::days(3);
    let text = |day: time::Date| {
        format!(
            "@id(\"p\") permit (principal, action, resource);
             @id(\"s\") @mode(\"shadow until {day}\") forbid (principal, action, resource);
             @id(\"t\") @mode(\"shadow\") @public(\"no-end\") forbid (principal, action, resource) when {{ context.class == \"write\" }};"
        )
    };
    let policy = load(&text(last)).unwrap();
    let end: SystemTime = last.next_day().unwrap().midnight().assume_utc().into();
    assert_eq!(policy.in_shadow(), [(Arc::from("s"), Some(end)), (Arc::from("t"), None)]);
    let mut call = input(Class::Read);
    for (now, outcome) in [(end - DAY, Outcome::Allow), (end, Outcome::Deny), (end + DAY, Outcome::Deny)] {
        call.now = now;
        for _ in 0..2 {
            let decision = policy.evaluate(&call);
            assert_eq!((&decision.outcome, *decision == policy.evaluate_whole(&call)), (&outcome, true));
            assert_eq!(decision.shadow.is_some(), outcome == Outcome::Allow, "{decision:?}");
        }
    }
    refused(&text(today + time::Duration::days(31)), "must end at most 30 days ahead");
    refused(&text(last).replace("until 20", "until 20x"), "with its last day");
    // A day that is past is no mistake: it is enforced.
    let past = load(&text(today - time::Duration::days(1))).unwrap();
    call.now = SystemTime::now();
    assert_eq!(past.evaluate(&call).outcome, Outcome::Deny);
}

#[test]
fn what_is_remembered_of_a_policy_in_shadow_is_what_is_decided_anew() {
    let text = "@id(\"p\") permit (principal, action, resource);
        @id(\"s\") @mode(\"shadow\") forbid (principal, action, resource) when { context.consequence >= 2 };
        @id(\"t\") forbid (principal, action, resource) when { principal.risk >= 3 };";
    let policy = load(text).unwrap();
    for level in 0..=4 {
        let mut call = input(Class::Read);
        call.consequence = Consequence::new(level).unwrap();
        for _ in 0..2 {
            let decision = policy.evaluate(&call);
            assert_eq!(*decision, policy.evaluate_fresh(&call));
            assert_eq!(*decision, policy.evaluate_whole(&call));
            assert_eq!(decision.shadow.is_some(), (2..4).contains(&level), "{level}");
        }
    }
}

#[test]
fn two_holds_ask_for_what_satisfies_both() {
    let text = format!(
        "{ALL}@id(\"a\") @public(\"a\") @hold(\"approval\") @quorum(\"2\") @ttl(\"1h30m\") forbid (principal, action, resource) {UNLESS}2 }};\n\
         @id(\"b\") @public(\"b\") @hold(\"approval\") @approvers(\"payments\") @ttl(\"10m\") forbid (principal, action, resource)\n\
         {UNLESS}1 && context.approval.roles.contains(\"payments\") }};"
    );
    let policy = load(&text).unwrap();
    let mut call = input(Class::Write);
    let decision = policy.evaluate(&call);
    let Outcome::Hold(terms) = &decision.outcome else { panic!("{decision:?}") };
    assert_eq!((terms.quorum, terms.ttl), (2, Duration::from_secs(600)));
    assert_eq!(terms.approvers, [Arc::from("payments")]);
    assert_eq!((&*decision.rule, decision.policies.len()), ("a", 2));
    let approval = |count, role: &str| {
        Some(Approval { id: "h".into(), digest_ok: true, count, roles: vec![role.into()] })
    };
    for (given, outcome) in [
        (approval(2, "payments"), Outcome::Allow),
        (approval(1, "payments"), Outcome::Deny),
        (approval(2, "oncall"), Outcome::Deny),
    ] {
        call.approval = given;
        assert_eq!(policy.evaluate(&call).outcome, outcome, "{:?}", call.approval);
    }
}

#[test]
fn an_approval_is_held_to_the_annotations_even_where_the_condition_is_silent() {
    let text = format!(
        "{ALL}@id(\"h\") @hold(\"approval\") @approvers(\"oncall\") forbid (principal, action, resource) {UNLESS}1 }};"
    );
    let policy = load(&text).unwrap();
    let mut call = input(Class::Write);
    call.approval =
        Some(Approval { id: "h".into(), digest_ok: true, count: 1, roles: vec!["intern".into()] });
    assert_eq!(policy.evaluate(&call).outcome, Outcome::Deny);
    call.approval =
        Some(Approval { id: "h".into(), digest_ok: true, count: 1, roles: vec!["oncall".into()] });
    assert_eq!(policy.evaluate(&call).outcome, Outcome::Allow);
}

#[test]
fn nobody_is_woken_for_a_call_that_would_be_denied_anyway() {
    let hold = format!(
        "@id(\"h\") @public(\"h\") @hold(\"approval\") forbid (principal, action, resource) {UNLESS}1 }};\n"
    );
    let only = load(&hold).unwrap().evaluate(&input(Class::Read));
    assert_eq!((only.outcome.clone(), &*only.rule), (Outcome::Deny, "no-permit"));
    let text = format!("{ALL}{hold}@id(\"no\") @public(\"no\") forbid (principal, action, resource);");
    let both = load(&text).unwrap().evaluate(&input(Class::Read));
    assert_eq!((both.outcome.clone(), &*both.rule), (Outcome::Deny, "no"));
}

/// The record of a call, as far as it concerns policy.
fn recorded(call: &PolicyInput) -> serde_json::Value {
    let mut members = Members::default();
    members.plain("peer", std::net::SocketAddr::new(call.source_ip, 4711));
    members.object("agent", |agent| {
        agent.text("id", call.agent.id.as_str());
        agent.text("instance", &call.auth.instance);
    });
    members.text("owner", &call.agent.owner);
    members.text("upstream", &call.resource.upstream);
    members.text("tool", &call.resource.name);
    members.text("class", call.class.as_str());
    members.number("consequence", call.consequence.level());
    members.texts("effects", call.effects.iter().map(|effect| effect.as_str()));
    members.texts("labels", call.labels.iter().map(|label| &**label));
    members.texts("findings", call.findings.iter().map(|finding| &**finding));
    wire::write(call, &mut members);
    serde_json::from_slice(&members.into_object()).unwrap()
}

#[test]
fn explain_and_can_are_readable() {
    let policy = Policy::shipped(&Facts::new()).unwrap();
    let mut call = input(Class::External);
    call.labels = vec!["confidential".into()];
    call.findings = vec!["lineage".into()];
    let said = command::explain(&policy, &recorded(&call));
    assert_eq!((said.code, said.json["outcome"].as_str()), (0, Some("hold")), "{}", said.text);
    assert!(said.text.contains("hold-flow (flow.cedar)"), "{}", said.text);
    assert!(said.text.contains("one person, with the role oncall"), "{}", said.text);
    assert_eq!(command::explain(&policy, &serde_json::json!({"agent": {}})).code, 2);
    let tool = command::Catalogued { profile: Arc::clone(&call.resource), effects: vec![Effect::Grant] };
    let can = command::can(&policy, &[Arc::clone(&call.agent)], &[tool]);
    assert!(can.text.contains("mail/send  read   hold     grant"), "{}", can.text);
}

fn scope() -> impl Strategy<Value = String> {
    let resource = prop_oneof![
        Just("resource".to_owned()),
        Just("resource is Holdpoint::Tool".to_owned()),
        Just("resource is Holdpoint::Operation".to_owned()),
        ("[mc]", "[st]").prop_map(|(u, t)| format!("resource == Holdpoint::Tool::\"{u}/{t}\"")),
        "[mc]".prop_map(|u| format!("resource in Holdpoint::Upstream::\"{u}\"")),
        "[mc]".prop_map(|u| format!("resource is Holdpoint::Operation in Holdpoint::Upstream::\"{u}\"")),
    ];
    let action = prop_oneof![
        Just("action in Holdpoint::Action::\"invoke\"".to_owned()),
        Just("action".to_owned()),
        "(read|write|external|discover)".prop_map(|a| format!("action == Holdpoint::Action::\"{a}\"")),
        "(read|write|external|discover)".prop_map(|a| format!("action in [Holdpoint::Action::\"{a}\"]")),
    ];
    (resource, action, any::<bool>(), 0..4u8).prop_map(|(resource, action, permit, level)| {
        let effect = if permit { "permit" } else { "forbid" };
        format!("{effect} (principal, {action}, {resource}) when {{ context.consequence >= {level} }};")
    })
}

/// Conditions over everything that a policy can look at.
fn condition() -> impl Strategy<Value = String> {
    const PARTS: &[&str] = &[
        "context.class == \"read\"",
        "context.consequence > 1",
        "context.effects.contains(\"delete\")",
        "context.run.labels.contains(\"secret\")",
        "context.run.findings.isEmpty()",
        "context.run.calls > 2",
        "context.tiers.contains(\"new\")",
        "context.destinations_internal",
        "context has task && context.task.purpose == \"b\"",
        "context has on_behalf_of && context.on_behalf_of == \"b\"",
        "context.auth.bound",
        "context.auth.instance == \"02\"",
        "context.facts has amount && context.facts.amount > 2",
        "context.hour_utc > 11",
        "context.now < datetime(\"2027-01-15\")",
        "context.source_ip.isLoopback()",
        "context has approval && context.approval.count > 0",
        "principal.autonomy == \"constrained\"",
        "principal.owned",
        "principal.risk > 1",
        "principal has vendor && principal.vendor == \"b\"",
        "principal.team == \"b\"",
        "principal.purpose == \"b\"",
        "principal in Holdpoint::AgentGroup::\"b\"",
        "principal.groups.contains(\"b\")",
        "principal == Holdpoint::Agent::\"spiffe://example.org/agent/b\"",
        "resource.trusted",
    ];
    // Each part at most once: what contradicts itself is refused at load.
    (prop::sample::subsequence(PARTS, 1..4), any::<[bool; 3]>()).prop_map(|(parts, nots)| {
        let parts: Vec<String> = std::iter::zip(parts, nots)
            .map(|(part, not)| if not { format!("!({part})") } else { format!("({part})") })
            .collect();
        parts.join(" && ")
    })
}

/// Questions that differ in one or more of the things that a policy can look at.
fn question() -> impl Strategy<Value = PolicyInput> {
    // Each bit is one thing, and few are set, so that many questions differ in one alone.
    (prop::collection::vec(0..24u32, 0..3), 0..3usize).prop_map(|(bits, class)| {
        let differs = |bit: u32| bits.contains(&bit);
        let b = |bit| if differs(bit) { "b" } else { "a" };
        let mut call = input([Class::Read, Class::Write, Class::External][class]);
        let agent = Arc::make_mut(&mut call.agent);
        agent.id = AgentId::from_normalised(&format!("spiffe://example.org/agent/{}", b(0)));
        agent.owned = !differs(1);
        agent.risk = if differs(2) { 3 } else { 1 };
        agent.vendor = differs(3).then(|| "b".into());
        agent.team = b(4).into();
        agent.purpose = b(5).into();
        agent.groups = vec![b(6).into()];
        agent.autonomy = if differs(7) { Autonomy::ReadOnly } else { Autonomy::Constrained };
        call.consequence = Consequence::new(if differs(8) { 3 } else { 0 }).unwrap();
        call.effects = if differs(9) { vec![Effect::Delete] } else { vec![] };
        call.labels = if differs(10) { vec!["secret".into()] } else { vec![] };
        call.findings = if differs(11) { vec!["chain".into()] } else { vec![] };
        call.calls = if differs(12) { 3 } else { 0 };
        call.tiers = if differs(13) { vec!["new".into()] } else { vec![] };
        call.destinations_internal = differs(14);
        call.task =
            differs(15).then(|| Task { id: "t".into(), purpose: b(16).into(), systems: vec![b(18).into()] });
        call.on_behalf_of = differs(16).then(|| "b".into());
        call.auth.instance = if differs(17) { "02".into() } else { "01".into() };
        call.facts = if differs(18) { [("amount".into(), Lifted::Long(3))].into() } else { BTreeMap::new() };
        call.now += Duration::from_secs(if differs(19) { 6 * 3600 } else { 0 });
        call.source_ip = if differs(20) { "10.0.0.1".parse().unwrap() } else { call.source_ip };
        call.approval =
            differs(21).then(|| Approval { id: "h".into(), digest_ok: true, count: 1, roles: vec![] });
        call.break_glass = differs(22).then(|| BreakGlass {
            grants: vec!["g".into()],
            by: vec!["p".into()],
            until: call.now,
            rules: vec!["p0".into()],
        });
        call.auth.bound = !differs(23);
        call
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_slice_answers_as_the_whole_does(
        scopes in prop::collection::vec(scope(), 1..12),
        calls in prop::collection::vec(("[mc]", "[st]", 0..4usize, 0..3usize, 0..4u8), 1..12),
    ) {
        let text: String =
            scopes.iter().enumerate().map(|(at, scope)| format!("@id(\"p{at}\") {scope}\n")).collect();
        let policy = load(&text).unwrap();
        for (upstream, name, kind, class, level) in calls {
            let discovered = kind >= 2;
            let mut call = input([Class::Read, Class::Write, Class::External][class]);
            let kind = [ResourceKind::Tool, ResourceKind::Operation, ResourceKind::Tool, ResourceKind::Upstream][kind];
            // 2 and 3 are questions of discovery, about a tool and about an upstream itself.
            if discovered {
                call.action = PolicyAction::Discover;
            }
            call.resource = resource(kind, &upstream, &name);
            call.consequence = Consequence::new(level).unwrap();
            prop_assert_eq!(policy.evaluate_fresh(&call), policy.evaluate_whole(&call));
        }
    }

    #[test]
    fn a_recorded_input_is_the_input(
        text in "\\PC{0,8}", calls in any::<u64>(), nanos in 0..4_000_000_000_000_000_000u64,
        long in any::<i64>(), flags in any::<[bool; 5]>(),
    ) {
        let word: Arc<str> = Arc::from(text.as_str());
        let mut call = input(Class::External);
        call.calls = calls;
        call.now = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        call.labels = vec![text.clone().into()];
        call.effects = if flags[0] { Effect::ALL.to_vec() } else { vec![] };
        call.task = flags[1].then(|| Task { id: Arc::clone(&word), purpose: Arc::clone(&word), systems: vec![Arc::clone(&word)] });
        call.on_behalf_of = flags[2].then(|| Arc::clone(&word));
        call.approval =
            flags[3].then(|| Approval { id: Arc::clone(&word), digest_ok: flags[0], count: 3, roles: vec![Arc::clone(&word)] });
        call.break_glass =
            flags[4].then(|| BreakGlass { grants: vec![Arc::clone(&word)], by: vec![], until: call.now, rules: vec![Arc::clone(&word)] });
        call.facts.insert(Arc::clone(&word), Lifted::Long(long));
        call.facts.insert("d".into(), Lifted::Decimal(text));
        let json = serde_json::from_str(&wire::to_json(&call).to_string()).unwrap();
        prop_assert_eq!(format!("{:?}", wire::from_json(&json).unwrap()), format!("{call:?}"));
        let record = wire::of_record(&recorded(&call));
        prop_assert_eq!(format!("{:?}", wire::from_json(&record).unwrap()), format!("{call:?}"));
    }

    #[test]
    fn what_is_remembered_is_what_would_be_decided_anew(
        conditions in prop::collection::vec((any::<bool>(), condition()), 1..6),
        calls in prop::collection::vec(question(), 1..40),
    ) {
        let rules = conditions.iter().enumerate().map(|(at, (permit, condition))| {
            let effect = if *permit { "permit" } else { "forbid" };
            let glass = format!("unless {{ context has break_glass && context.break_glass.rules.contains(\"p{at}\") }}");
            let glass = if *permit { "" } else { &glass };
            format!("@id(\"p{at}\") {effect} (principal, action, resource) when {{ {condition} }} {glass};\n")
        });
        let facts = Facts::from([("amount".into(), FactType::Long)]);
        let policy = load_with(&(ALL.to_owned() + &rules.collect::<String>()), &facts).unwrap();
        let tool = resource(ResourceKind::Tool, "mail", "send");
        for call in calls.iter().chain(calls.iter().rev()) {
            let call = PolicyInput { resource: Arc::clone(&tool), ..call.clone() };
            prop_assert_eq!(&*policy.evaluate(&call), &policy.evaluate_fresh(&call));
        }
    }
}

/// `cargo test --release --test policy evaluate_speed -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures and asserts nothing"]
fn evaluate_speed() {
    for count in [10, 100] {
        let mut files: Vec<(String, String)> =
            holdpoint::decide::cedar::SHIPPED.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
        let extra: String = (0..count)
            .map(|at| {
                format!(
                    "@id(\"x{at}\") permit (principal, action, resource == Holdpoint::Tool::\"u/{at}\");\n"
                )
            })
            .collect();
        files.push(("extra.cedar".to_owned(), extra));
        let policy = Policy::load(&files, &Facts::new()).unwrap();
        for (name, class) in [("read", Class::Read), ("external", Class::External)] {
            let call = input(class);
            let mut sliced: Vec<Duration> = Vec::new();
            let mut whole: Vec<Duration> = Vec::new();
            for _ in 0..3000 {
                let start = std::time::Instant::now();
                std::hint::black_box(policy.evaluate(&call));
                sliced.push(start.elapsed());
                let start = std::time::Instant::now();
                std::hint::black_box(policy.evaluate_whole(&call));
                whole.push(start.elapsed());
            }
            sliced.sort();
            whole.sort();
            println!(
                "{name}, {} policies: p50 sliced {:?}, whole {:?}",
                policy.len(),
                sliced[1500],
                whole[1500]
            );
        }
    }
}
