//! Which configured tools together make a path from what is confidential, or what outsiders write, to an outside sink, and
//! which rule covers it. No call is needed to see that.

use std::sync::Arc;

use serde_json::{Value, json};

use super::policy::{Catalogued, plain, table};
use crate::call::{
    AgentId, AgentProfile, Autonomy, Class, Confidentiality, Integrity, PolicyInput, ResourceKind, Word,
};
use crate::classify::catalog::{Catalog, Entry};
use crate::decide::{Outcome, Policy};

/// Sinks that are shown one by one.
const SHOWN_MAX: usize = 50;

/// What was looked for, and what it came to.
pub(super) struct Report {
    /// A table for people; empty when there is no path.
    pub(super) text: String,
    /// The same for programs.
    pub(super) json: Value,
    /// What no rule covers, a sentence each.
    pub(super) warnings: Vec<String>,
}

/// Looks at every pair of a source and an outside sink. The questions that policy is asked are those of a chain that flow
/// control would find.
pub(super) fn report(catalog: &Catalog, policy: &Policy) -> Report {
    let entries: Vec<(&Arc<Entry>, bool)> = catalog
        .upstreams()
        .flat_map(|upstream| upstream.entries().map(|entry| (entry, upstream.config().inside)))
        .collect();
    let sources = |fits: &dyn Fn(&Entry) -> bool| {
        let mut names: Vec<String> =
            entries.iter().filter(|(entry, _)| fits(entry)).map(|(entry, _)| name(entry)).collect();
        names.sort();
        names
    };
    let confidential = sources(&|entry| entry.returns.labels.confidentiality >= Confidentiality::Internal);
    let secret = sources(&|entry| entry.returns.labels.confidentiality == Confidentiality::Secret);
    let untrusted = sources(&|entry| entry.returns.labels.integrity != Integrity::Trusted);
    let mut sinks: Vec<&Arc<Entry>> = entries
        .iter()
        .filter(|(entry, inside)| leads_outside(entry, *inside))
        .map(|(entry, _)| *entry)
        .collect();
    sinks.sort_by_key(|entry| name(entry));
    let agent = agent();
    let (mut rows, mut list, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for sink in &sinks {
        let asked = |names: &[String], findings: &[&'static str]| {
            (!names.is_empty()).then(|| answer(policy, &agent, sink, findings))
        };
        let answers = [
            ("confidential", asked(&confidential, &["lineage"])),
            ("named by outsiders", asked(&untrusted, &["planted-destination"])),
            (
                "both",
                asked(
                    if untrusted.is_empty() { &[] } else { &confidential },
                    &["lineage", "planted-destination"],
                ),
            ),
            ("secret", asked(&secret, &["secret-lineage"])),
        ];
        for (what, answer) in answers.iter().filter_map(|(what, answer)| Some((*what, answer.as_ref()?))) {
            if answer.0 == "allow" {
                warnings.push(format!("no rule covers what is {what} on its way to {}", name(sink)));
            }
        }
        let cell = |at: usize| {
            let answer = answers.get(at).and_then(|(_, answer)| answer.as_ref());
            answer.map_or_else(|| "-".to_owned(), |(outcome, rules)| format!("{outcome} ({rules})"))
        };
        list.push(json!({"sink": name(sink), "confidential": cell(0), "planted": cell(1), "both": cell(2), "secret": cell(3)}));
        rows.push([name(sink), cell(0), cell(1), cell(2), cell(3)]);
    }
    let json = json!({"confidential_sources": confidential, "secret_sources": secret, "untrusted_sources": untrusted, "sinks": list});
    if sinks.is_empty() || (confidential.is_empty() && untrusted.is_empty()) {
        return Report { text: String::new(), json, warnings };
    }
    let more = rows.len().saturating_sub(SHOWN_MAX);
    rows.truncate(SHOWN_MAX);
    rows.insert(
        0,
        ["OUTSIDE SINK", "CONFIDENTIAL", "NAMED BY OUTSIDERS", "BOTH", "SECRET"].map(str::to_owned),
    );
    let mut text = format!(
        "paths: {} tools bring something confidential, {} something that outsiders write; {} lead outside\n{}",
        confidential.len(),
        untrusted.len(),
        sinks.len(),
        table(&rows)
    );
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    Report { text, json, warnings }
}

fn name(entry: &Entry) -> String {
    format!("{}/{}", entry.profile.upstream, entry.profile.name)
}

/// Whether something can leave by a tool: its class says so, or its destinations are the agent's to choose, or all that
/// it is told goes to an upstream outside.
fn leads_outside(entry: &Entry, inside: bool) -> bool {
    let reachable = matches!(entry.profile.kind, ResourceKind::Tool | ResourceKind::Operation);
    reachable && (entry.profile.class == Class::External || entry.sink.is_some() || !inside)
}

/// An agent that nothing speaks against.
fn agent() -> Arc<AgentProfile> {
    Arc::new(AgentProfile {
        id: AgentId::from_normalised("spiffe://example.org/any"),
        owner: Arc::from("owner@example.org"),
        owned: true,
        team: Arc::from(""),
        groups: Vec::new(),
        purpose: Arc::from(""),
        autonomy: Autonomy::Constrained,
        risk: 1,
        region: Arc::from(""),
        vendor: None,
    })
}

/// What policy says to a call that flow control found this in, and by which policies.
fn answer(
    policy: &Policy,
    agent: &Arc<AgentProfile>,
    sink: &Entry,
    findings: &[&'static str],
) -> (&'static str, String) {
    let resource = Catalogued { profile: Arc::clone(&sink.profile), effects: sink.effects.clone() };
    let planted = findings.contains(&"planted-destination");
    let input = PolicyInput {
        findings: findings.iter().map(|word| Word::Borrowed(*word)).collect(),
        labels: vec![Word::Borrowed("confidential")],
        tiers: vec![Word::Borrowed(if planted { "planted" } else { "new" })],
        ..plain(agent, &resource)
    };
    let decision = policy.evaluate(&input);
    let rules = decision.policies.join(", ");
    match decision.outcome {
        Outcome::Allow => ("allow", rules),
        Outcome::Deny => ("deny", rules),
        Outcome::Hold(_) => ("hold", rules),
    }
}
