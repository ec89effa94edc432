//! `holdpoint policy`: check, test, explain and can, as functions that print nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::quantity;
use crate::call::{AgentProfile, Auth, Effect, PolicyAction, PolicyInput, ResourceKind, ResourceProfile};
use crate::decide::schema::Facts;
use crate::decide::{Decision, Outcome, Policy, cases, explain, wire};
use crate::yaml::Mistake;

/// Done, and everything is as it should be.
const DONE: u8 = 0;
/// Found wanting.
const WANTING: u8 = 1;
/// Could not run.
const UNABLE: u8 = 2;
/// Bad usage or configuration.
const BAD: u8 = 64;

/// The largest policy or case file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a command has to say.
#[derive(Clone, Debug)]
pub struct Said {
    /// The exit code.
    pub code: u8,
    /// For people.
    pub text: String,
    /// For `--json`.
    pub json: Value,
}

/// A tool or operation of the catalogue with the effects that it has before `when`.
#[derive(Clone, Debug)]
pub struct Catalogued {
    /// What it is.
    pub profile: Arc<ResourceProfile>,
    /// What it does.
    pub effects: Vec<Effect>,
}

/// Files as (name, text).
pub type Files = Vec<(String, String)>;

/// The files of a policy directory as (name, text), sorted: policies, schema, and cases (also those below `cases/`).
pub fn read_dir(dir: &Path) -> Result<Files, Mistake> {
    let mut files = Vec::new();
    for (folder, prefix) in [(dir.to_owned(), ""), (dir.join("cases"), "cases/")] {
        if prefix.is_empty() || folder.is_dir() {
            read_folder(&folder, prefix, &mut files)?;
        }
    }
    files.sort();
    Ok(files)
}

/// Mistakes of files of a directory, which are named as [`read_dir`] names them, with the directory before the name.
pub fn within(dir: &Path, mistakes: Vec<Mistake>) -> Vec<Mistake> {
    let place = |mistake: Mistake| Mistake { file: dir.join(&mistake.file).display().to_string(), ..mistake };
    mistakes.into_iter().map(place).collect()
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Files) -> Result<(), Mistake> {
    let wrong =
        |path: &Path, error: std::io::Error| Mistake::new(&path.display().to_string(), "", error.to_string());
    for entry in std::fs::read_dir(folder).map_err(|error| wrong(folder, error))? {
        let path = entry.map_err(|error| wrong(folder, error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let wanted = [".cedar", ".cedarschema", ".yaml"].iter().any(|ending| name.ends_with(ending));
        if !wanted || name.starts_with('.') || !path.is_file() {
            continue;
        }
        let size = std::fs::metadata(&path).map_err(|error| wrong(&path, error))?.len();
        if size > FILE_BYTES_MAX {
            return Err(Mistake::new(&path.display().to_string(), "", "is larger than 1 MiB"));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(&path, error))?;
        files.push((format!("{prefix}{name}"), text));
    }
    Ok(())
}

fn mistakes(found: &[Mistake]) -> Said {
    let list: Vec<Value> = found
        .iter()
        .map(|mistake| json!({"file": mistake.file, "path": mistake.path, "problem": mistake.problem}))
        .collect();
    let lines: Vec<String> = found.iter().map(Mistake::to_string).collect();
    Said {
        code: BAD,
        text: format!(
            "{}\n{}: nothing of this would be loaded.\n",
            lines.join("\n"),
            quantity(found.len(), "mistake")
        ),
        json: json!({"ok": false, "mistakes": list}),
    }
}

fn load(dir: &Path, facts: &Facts) -> Result<(Policy, Files), Box<Said>> {
    let files = read_dir(dir).map_err(|mistake| Box::new(Said { code: UNABLE, ..mistakes(&[mistake]) }))?;
    let policy = Policy::load(&files, facts).map_err(|found| Box::new(mistakes(&within(dir, found))))?;
    Ok((policy, files))
}

/// Loads a directory and says every mistake at once.
pub fn check(dir: &Path, facts: &Facts) -> Said {
    match load(dir, facts) {
        Err(said) => *said,
        Ok((policy, _)) => {
            let (count, revision) = (policy.len(), policy.revision());
            Said {
                code: DONE,
                text: format!("{count} policies are in order. Revision {revision}.\n"),
                json: json!({"ok": true, "policies": count, "revision": &**revision}),
            }
        }
    }
}

/// Runs the cases of a directory against its policies.
pub fn test(dir: &Path, facts: &Facts) -> Said {
    let (policy, files) = match load(dir, facts) {
        Ok(loaded) => loaded,
        Err(said) => return *said,
    };
    let report = cases::run(&policy, facts, &files);
    let passed = report.passed();
    let misread = within(dir, report.mistakes);
    let unreadable: Vec<String> = misread.iter().map(Mistake::to_string).collect();
    let mut lines = unreadable.clone();
    let mut results = Vec::new();
    for result in &report.results {
        if let Some(failure) = &result.failure {
            lines.push(format!("{}: {}: {failure}", result.file, result.name));
        }
        let (outcome, rule) = (result.decision.outcome.as_str(), &*result.decision.rule);
        results.push(json!({
            "file": result.file, "name": result.name, "passed": result.failure.is_none(),
            "failure": result.failure, "outcome": outcome, "rule": rule,
        }));
    }
    let total = report.results.len();
    let failed = report.results.iter().filter(|result| result.failure.is_some()).count();
    lines.push(format!("{} of {total} cases are as expected.", total - failed));
    let code = match (unreadable.is_empty(), passed) {
        (false, _) => BAD,
        (true, true) => DONE,
        (true, false) => WANTING,
    };
    Said {
        code,
        text: lines.join("\n") + "\n",
        json: json!({"ok": code == DONE, "cases": results, "mistakes": unreadable}),
    }
}

/// Asks a recorded input again and explains the answer. The JSON is an input, or a record that has one in `input`.
pub fn explain(policy: &Policy, recorded: &Value) -> Said {
    let json = if recorded.get("input").is_some() { &wire::of_record(recorded) } else { recorded };
    match wire::from_json(json) {
        Err(problem) => {
            let text = format!("This is no recorded policy input: {problem}.\n");
            Said { code: UNABLE, text, json: json!({"ok": false, "problem": problem}) }
        }
        Ok(input) => {
            let decision = policy.evaluate(&input);
            Said {
                code: DONE,
                text: explain::to_text(policy, &input, &decision),
                json: explain::to_json(policy, &input, &decision),
            }
        }
    }
}

/// What each agent could do now with each catalogued tool, on a run that has read nothing and has no approval.
pub fn can(policy: &Policy, agents: &[Arc<AgentProfile>], resources: &[Catalogued]) -> Said {
    let mut rows = vec![["AGENT", "TOOL", "CLASS", "OUTCOME", "RULE"].map(str::to_owned)];
    let mut list = Vec::new();
    for agent in agents {
        for resource in resources {
            let profile = &resource.profile;
            let decision = policy.evaluate(&plain(agent, resource));
            let (class, outcome) = (profile.class.as_str(), decision.outcome.as_str());
            let tool = format!("{}/{}", profile.upstream, profile.name);
            list.push(json!({
                "agent": agent.id.as_str(), "upstream": &*profile.upstream, "tool": &*profile.name,
                "class": class, "outcome": outcome, "rule": &*decision.rule, "reason": decision.reason,
            }));
            rows.push([
                agent.id.to_string(),
                tool,
                class.to_owned(),
                told(&decision),
                decision.rule.to_string(),
            ]);
        }
    }
    let note = "For a run that has read nothing: labels, destinations and arguments can hold or deny more.";
    Said { code: DONE, text: format!("{}{note}\n", table(&rows)), json: Value::Array(list) }
}

fn told(decision: &Decision) -> String {
    match &decision.outcome {
        Outcome::Hold(terms) if terms.quorum > 1 => format!("hold ({} people)", terms.quorum),
        other => other.as_str().to_owned(),
    }
}

pub(super) fn plain(agent: &Arc<AgentProfile>, resource: &Catalogued) -> PolicyInput {
    let profile = &resource.profile;
    let action = match profile.kind {
        ResourceKind::Upstream => PolicyAction::Discover,
        ResourceKind::Operation | ResourceKind::Tool => PolicyAction::of(profile.class),
    };
    PolicyInput {
        agent: Arc::clone(agent),
        action,
        resource: Arc::clone(profile),
        class: profile.class,
        consequence: profile.consequence,
        effects: resource.effects.clone(),
        labels: Vec::new(),
        findings: Vec::new(),
        profile: Default::default(),
        calls: 0,
        task: None,
        facts: Default::default(),
        tiers: Vec::new(),
        destinations_internal: false,
        on_behalf_of: None,
        auth: Auth { method: "mtls", bound: true, instance: Arc::from("") },
        now: SystemTime::now(),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        approval: None,
        break_glass: None,
    }
}

/// Columns as wide as their widest cell.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}
