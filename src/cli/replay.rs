//! `holdpoint policy replay`: recorded calls decided again by other policies. A record has all that policy was asked, so
//! nothing else is needed; what went wrong upstream or in flow control is taken as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::policy::{Said, read_dir, table, within};
use super::{USAGE, wanting};
use crate::call::FactType;
use crate::config;
use crate::decide::schema::Facts;
use crate::decide::{Decision, Outcome, Policy, wire};
use crate::record::tail;

/// Changes by rule and tool that are told apart; beyond it they are counted together.
const GROUPS_MAX: usize = 4096;
/// Records that are named for each.
const EXAMPLES_MAX: usize = 3;
/// Names of facts that are taken from records.
const FACTS_MAX: usize = 1024;
/// The end of the table, when there are more changes than fit.
const OTHERS: &str = "(others)";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The audit's directory; its archive is read too.
    #[arg(long)]
    audit: PathBuf,
    /// Exit with 1 when anything would change.
    #[arg(long)]
    fail_on_change: bool,
}

/// What a call would be after the change, by which rule, at which tool, and what it was.
type Group = (String, String, &'static str, &'static str);

/// What was found so far.
#[derive(Default)]
struct Report {
    replayed: u64,
    changed: u64,
    /// Calls that something else than policy stopped.
    without: u64,
    /// Inputs that are not whole.
    unreadable: u64,
    groups: BTreeMap<Group, (u64, Vec<String>)>,
}

/// Carries out the command: 0 done, 1 when something changes and that was asked, 2 not read, 64 bad usage or policies.
pub(super) fn replay(policies: Option<&Path>, config: &Path, arguments: &Arguments) -> Said {
    let Some(dir) = policies else {
        let text =
            "holdpoint policy replay: --policies DIR is required: the policies to decide by\n".to_owned();
        return Said { code: USAGE, json: json!({"error": text.trim_end()}), text };
    };
    let audit = &arguments.audit;
    let unread = |error: std::io::Error| {
        let text = format!("{}: {error}", audit.display());
        Said { code: 2, json: json!({"error": text}), text: format!("holdpoint policy replay: {text}\n") }
    };
    let facts = match facts(config, audit) {
        Ok(facts) => facts,
        Err(error) => return unread(error),
    };
    let loaded = read_dir(dir)
        .map_err(|mistake| vec![mistake])
        .and_then(|files| Policy::load(&files, &facts).map_err(|mistakes| within(dir, mistakes)));
    let policy = match loaded {
        Ok(policy) => policy,
        Err(mistakes) => return wanting(&mistakes),
    };
    let mut report = Report::default();
    let torn = tail::every(audit, |line| report.take(&policy, line));
    match torn {
        Ok(torn) => report.said(&policy, torn, arguments.fail_on_change),
        Err(error) => unread(error),
    }
}

/// The facts of calls and their types, by the configuration where there is one, and by the records.
fn facts(config: &Path, audit: &Path) -> std::io::Result<Facts> {
    let mut facts = Facts::new();
    tail::every(audit, |line| {
        let Some((_, input)) = asked(line) else { return };
        let Ok(input) = wire::from_json(&input) else { return };
        for (name, value) in &input.facts {
            if facts.len() < FACTS_MAX || facts.contains_key(name) {
                facts.insert(Arc::clone(name), FactType::of(value));
            }
        }
    })?;
    if let Ok(loaded) = config::load(config) {
        facts.extend(loaded.facts());
    }
    Ok(facts)
}

/// A record about a call that policy was asked of, and the whole of what it was asked.
fn asked(line: &[u8]) -> Option<(Value, Value)> {
    let record: Value = serde_json::from_slice(line).ok()?;
    record.get("input")?;
    let input = wire::of_record(&record);
    Some((record, input))
}

/// What policy said, in shadow or not.
fn told(decision: &Decision) -> (&'static str, Arc<str>) {
    let said = decision.shadow.as_deref().unwrap_or(decision);
    let word = match said.outcome {
        Outcome::Allow => "allowed",
        Outcome::Deny => "denied",
        Outcome::Hold(_) => "held",
    };
    (word, Arc::clone(&said.rule))
}

/// What policy said when the call was made, in shadow or not.
fn recorded(record: &Value) -> Option<&'static str> {
    let shadow = record.get("would_be").filter(|would_be| would_be.get("reason") == Some(&json!("policy")));
    let word = shadow.or_else(|| record.get("decision")).and_then(|said| said.get("outcome"));
    match word?.as_str()? {
        "allowed" => Some("allowed"),
        "denied" => Some("denied"),
        "held" | "pending" => Some("held"),
        _ => None,
    }
}

impl Report {
    fn take(&mut self, policy: &Policy, line: &[u8]) {
        let Some((record, input)) = asked(line) else {
            self.without += u64::from(is_call(line));
            return;
        };
        let (Ok(input), Some(was)) = (wire::from_json(&input), recorded(&record)) else {
            self.unreadable += 1;
            return;
        };
        self.replayed += 1;
        let (would, rule) = told(&policy.evaluate(&input));
        if was == would {
            return;
        }
        self.changed += 1;
        let tool = format!("{}/{}", input.resource.upstream, input.resource.name);
        let mut group: Group = (rule.to_string(), tool, was, would);
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
            group = (OTHERS.to_owned(), OTHERS.to_owned(), was, would);
        }
        let (count, examples) = self.groups.entry(group).or_default();
        *count += 1;
        if let Some(id) = record.get("id").and_then(Value::as_str).filter(|_| examples.len() < EXAMPLES_MAX) {
            examples.push(id.to_owned());
        }
    }

    fn said(self, policy: &Policy, torn: u64, fail_on_change: bool) -> Said {
        let mut rows = vec![["RULE", "TOOL", "WAS", "WOULD BE", "CALLS", "RECORDS"].map(str::to_owned)];
        let mut changes = Vec::new();
        for ((rule, tool, was, would), (calls, records)) in &self.groups {
            changes.push(json!({"rule": rule, "tool": tool, "was": was, "would_be": would, "calls": calls,
                "records": records}));
            let [was, would] = [was, would].map(|word| (*word).to_owned());
            let rule = if rule.is_empty() { "-".to_owned() } else { rule.clone() };
            rows.push([rule, tool.clone(), was, would, calls.to_string(), records.join(" ")]);
        }
        let more = |word: &str| -> i64 {
            let sum = |of: fn(&Group) -> &'static str| -> i64 {
                let calls = self.groups.iter().filter(|(group, _)| of(group) == word);
                calls.map(|(_, (calls, _))| i64::try_from(*calls).unwrap_or(i64::MAX)).sum()
            };
            sum(|group| group.3) - sum(|group| group.2)
        };
        let [allowed, held, denied] = ["allowed", "held", "denied"].map(more);
        let Report { replayed, changed, without, unreadable, .. } = self;
        let mut text = if changed > 0 { table(&rows) } else { String::new() };
        text.push_str(&format!(
            "{changed} of {replayed} calls would change: allowed {allowed:+}, held {held:+}, denied {denied:+}.\n"
        ));
        for (count, what) in [
            (without, "calls were stopped before policy was asked, and are as they were"),
            (unreadable, "records have no whole input, and could not be decided again"),
            (torn, "lines of the audit are not whole"),
        ] {
            if count > 0 {
                text.push_str(&format!("{count} {what}.\n"));
            }
        }
        Said {
            code: u8::from(fail_on_change && changed > 0),
            text,
            json: json!({"replayed": replayed, "changed": changed, "changes": changes,
                "more": {"allowed": allowed, "held": held, "denied": denied}, "without_input": without,
                "unreadable": unreadable, "torn": torn, "revision": &**policy.revision()}),
        }
    }
}

/// Whether a line is the first record of a call that nothing was asked about.
fn is_call(line: &[u8]) -> bool {
    let Ok(record) = serde_json::from_slice::<Value>(line) else { return false };
    matches!(record.get("type").and_then(Value::as_str), Some("intent" | "refused"))
        && record.get("agent").is_some()
}
