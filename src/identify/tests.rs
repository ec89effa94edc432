//! Who may call on which day, by the registry as an operator writes it.

use std::sync::Arc;

use time::macros::date;

use super::*;
use crate::call::Autonomy;
use crate::config::registry;

const REGISTRY: &str = "
- defaults: {owner: {technical: sre@example.org, risk: risk@example.org}, team: care, autonomy: delegated, risk: 2}
- {id: spiffe://Example.org/agent/support, owner: {business: ana@example.org}, review_due: 2027-03-01}
- {id: spiffe://example.org/agent/orphan}
- {id: spiffe://example.org/agent/stopped, state: suspended}
- {id: spiffe://example.org/agent/old, state: retired}
- {id: spiffe://example.org/job/*, owner: {business: ana@example.org}, team: jobs}
- {id: spiffe://example.org/job/night/*, owner: {business: ana@example.org}, team: night}
";

fn directory() -> Directory {
    let mut mistakes = Vec::new();
    let directory = registry::parse(&[("agents.yaml".to_owned(), REGISTRY.to_owned())], &mut mistakes);
    assert_eq!(mistakes, []);
    directory
}

fn ask(directory: &Directory, path: &str, today: Date) -> Result<Agent, &'static str> {
    let id = AgentId::from_normalised(&format!("spiffe://example.org/{path}"));
    identified(directory, &id, &Arc::from("01"), today).map_err(|stop| stop.reason)
}

#[test]
fn autonomy_falls_with_owners_and_review() {
    let directory = directory();
    let on = |path: &str, day: Date| ask(&directory, path, day).map(|agent| agent.profile().autonomy);
    assert_eq!(on("agent/support", date!(2027 - 03 - 01)), Ok(Autonomy::Delegated));
    assert_eq!(on("agent/support", date!(2027 - 03 - 02)), Ok(Autonomy::ReadOnly));
    assert_eq!(on("agent/support", date!(2027 - 03 - 15)), Ok(Autonomy::ReadOnly));
    assert_eq!(on("agent/support", date!(2027 - 03 - 16)), Err("review-overdue"));
    assert_eq!(on("agent/orphan", date!(2027 - 01 - 01)), Ok(Autonomy::ReadOnly));
    assert_eq!(on("agent/stopped", date!(2027 - 01 - 01)), Err("suspended"));
    assert_eq!(on("agent/old", date!(2027 - 01 - 01)), Err("retired"));
    assert_eq!(on("agent/stranger", date!(2027 - 01 - 01)), Err("unknown-agent"));
}

#[test]
fn the_longest_wildcard_wins_and_profiles_keep_their_pointer() {
    let directory = directory();
    let today = date!(2027 - 01 - 01);
    assert_eq!(&*ask(&directory, "job/day", today).unwrap().profile().team, "jobs");
    let first = ask(&directory, "job/night/a", today).unwrap();
    assert_eq!(&*first.profile().team, "night");
    assert_eq!(first.id().as_str(), "spiffe://example.org/job/night/a");
    let second = ask(&directory, "job/night/a", today).unwrap();
    assert!(Arc::ptr_eq(first.profile(), second.profile()));
    assert_eq!(ask(&directory, "job", today).map(|_| ()), Err("unknown-agent"));
    assert_eq!(ask(&directory, "jobs/x", today).map(|_| ()), Err("unknown-agent"));
}

#[test]
fn mistakes_of_a_registry_are_all_reported() {
    let text = "
defaults: {risk: 9}
agents:
- {id: spiffe://example.org/*}
- {id: spiffe://example.org/a/b}
- {id: spiffe://EXAMPLE.org/a/b}
- {team: x}
- {id: https://example.org/a}
- {id: spiffe://example.org/c, review_due: soon}
- {id: spiffe://example.org/d, autonomy: full}
";
    let mut mistakes = Vec::new();
    registry::parse(&[("agents.yaml".to_owned(), text.to_owned())], &mut mistakes);
    let all = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in [
        "agents[0].id: spiffe://example.org/*: a wildcard stands below a path",
        "agents[2].id: this id is already registered at agents.yaml: agents[1]",
        "agents[3].id: missing",
        "agents[4].id: https://example.org/a: the URI",
        "agents[5].review_due: soon is not a date",
        "agents[6].autonomy: unknown variant `full`",
        "agents[0].risk: 9 is not between 0 and 4",
    ] {
        assert!(all.contains(part), "{part}\nis not in\n{all}");
    }
}
