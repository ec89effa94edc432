//! Operators' sequences, from the file that `flow.chains` names: each is checked, compiled, and tried on its own cases.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use schemars::JsonSchema;
use serde::Deserialize;

use super::load::Reader;
use super::raw::File;
use crate::call::Class;
use crate::flow::Label;
use crate::flow::chain::{
    CHAINS_MAX, COUNT_MAX, Chain, Passing, Per, Progress, STEPS_MAX, Step, Then, WITHIN_MAX,
};
use crate::units;
use crate::yaml::{self, Mistake};

/// The form of the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    /// The sequences; 64 at most.
    pub chains: Vec<RawChain>,
}

/// One sequence.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawChain {
    /// Its name: lower-case letters, digits and `-`. The finding is `chain:NAME`.
    pub name: String,
    /// Its steps, in order; the last one is the call that is found. 16 at most.
    pub steps: Vec<RawStep>,
    /// From the first step to the last; `24h` at most.
    pub within: String,
    /// Whose calls it is matched against.
    pub per: RawPer,
    /// What becomes of the last step; `hold` when not said.
    #[serde(default)]
    pub then: RawThen,
    /// What it must find and what it must not, tried whenever the file is read.
    #[serde(default)]
    pub cases: Vec<RawCase>,
}

/// A step: calls that have all of these.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStep {
    /// `read`, `write` or `external`; any when not said.
    pub class: Option<RawClass>,
    /// An upstream; any when not said.
    pub upstream: Option<String>,
    /// A tool or operation; any when not said.
    pub tool: Option<String>,
    /// `confidential`, `secret`, `untrusted`: what a reply brings, for a read; what the run has read, for any other call.
    #[serde(default)]
    pub labels: Vec<String>,
    /// So many of them; 1 when not said, 1000 at most.
    pub at_least: Option<u32>,
}

/// What a call does.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the class of that name")]
pub enum RawClass {
    Read,
    Write,
    External,
}

/// Whose calls.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is whose calls of that name")]
pub enum RawPer {
    Run,
    Agent,
    TrustDomain,
}

/// What becomes of the last step.
#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is what becomes of it")]
pub enum RawThen {
    Note,
    #[default]
    Hold,
    Deny,
}

/// Calls one after another, and whether the last one is found.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCase {
    /// What it shows.
    pub name: String,
    /// The calls.
    pub calls: Vec<RawCall>,
    /// Whether the last of them completes the sequence.
    pub found: bool,
}

/// A call of a case.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCall {
    /// `read`, `write` or `external`.
    pub class: RawClass,
    /// Its upstream.
    #[serde(default)]
    pub upstream: String,
    /// Its tool or operation.
    #[serde(default)]
    pub tool: String,
    /// What its reply brings, for a read; what its run has read, for any other call.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How often; 1 when not said, 10000 at most.
    pub times: Option<u32>,
    /// How long after the call before; at once when not said.
    pub after: Option<String>,
}

/// How often a call of a case may be made.
const TIMES_MAX: u32 = 10_000;

impl Reader {
    pub(super) fn chains(&mut self, raw: &File) -> Vec<Chain> {
        let Some(path) = &raw.flow.chains else { return Vec::new() };
        let Some(bytes) = self.bytes("flow.chains", Some(path)) else { return Vec::new() };
        let file = self.path(path).display().to_string();
        let upstreams: Vec<&str> = raw.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        match String::from_utf8(bytes) {
            Ok(text) => parse(&file, &text, &upstreams, &mut self.mistakes),
            Err(_) => {
                self.mistakes.push(Mistake::new(&file, "", "is not UTF-8"));
                Vec::new()
            }
        }
    }
}

/// Reads a file's text, adding every mistake. `upstreams` are those that a step may name.
pub fn parse(file: &str, text: &str, upstreams: &[&str], mistakes: &mut Vec<Mistake>) -> Vec<Chain> {
    let Some(raw) = yaml::read::<RawFile>(file, text, mistakes) else { return Vec::new() };
    if raw.chains.len() > CHAINS_MAX {
        mistakes.push(Mistake::new(file, "chains", format!("has more than {CHAINS_MAX}")));
    }
    let mut chains: Vec<Chain> = Vec::new();
    for (at, raw) in raw.chains.iter().enumerate() {
        let place = format!("chains[{at}]");
        let mut said = |path: &str, problem: String| {
            mistakes.push(Mistake::new(file, format!("{place}{path}"), problem));
        };
        let chain = compile(raw, upstreams, &mut said);
        if chains.iter().any(|other| other.name == chain.name) {
            said(".name", format!("`{}` is there already", chain.name));
        }
        for (number, case) in raw.cases.iter().enumerate() {
            let path = format!(".cases[{number}]");
            match is_found(&chain, case) {
                Ok(found) if found == case.found => {}
                Ok(true) => said(&path, format!("`{}` is found, and was expected not to be", case.name)),
                Ok(false) => said(&path, format!("`{}` is not found, and was expected to be", case.name)),
                Err(problem) => said(&path, problem),
            }
        }
        chains.push(chain);
    }
    chains
}

fn compile(raw: &RawChain, upstreams: &[&str], said: &mut impl FnMut(&str, String)) -> Chain {
    let plain = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if raw.name.is_empty() || raw.name.len() > 64 || !plain(&raw.name) {
        said(".name", format!("`{}` must be lower-case letters, digits and `-`, 64 at most", raw.name));
    }
    if raw.steps.is_empty() || raw.steps.len() > STEPS_MAX {
        said(".steps", format!("must be from 1 to {STEPS_MAX} steps"));
    }
    let within = units::duration(&raw.within).filter(|within| !within.is_zero() && *within <= WITHIN_MAX);
    if within.is_none() {
        said(".within", format!("`{}` must be a duration of at most 24h, as in 10m", raw.within));
    }
    let mut steps = Vec::new();
    for (at, step) in raw.steps.iter().enumerate() {
        let at_least = step.at_least.unwrap_or(1);
        if !(1..=COUNT_MAX).contains(&at_least) {
            said(&format!(".steps[{at}].at_least"), format!("must be from 1 to {COUNT_MAX}"));
        }
        if let Some(upstream) = step.upstream.as_deref().filter(|upstream| !upstreams.contains(upstream)) {
            said(&format!(".steps[{at}].upstream"), format!("`{upstream}` is no upstream of this gateway"));
        }
        if step.class.is_none() && step.upstream.is_none() && step.tool.is_none() && step.labels.is_empty() {
            said(&format!(".steps[{at}]"), "must say a class, an upstream, a tool or labels".to_owned());
        }
        for unknown in step.labels.iter().filter(|label| Label::parse(label).is_none()) {
            said(
                &format!(".steps[{at}].labels"),
                format!("`{unknown}` must be `confidential`, `secret` or `untrusted`"),
            );
        }
        steps.push(Step {
            class: step.class.map(class),
            upstream: step.upstream.as_deref().map(Arc::from),
            tool: step.tool.as_deref().map(Arc::from),
            labels: step.labels.iter().map(|label| Arc::from(label.as_str())).collect::<BTreeSet<_>>(),
            at_least,
        });
    }
    let per = match raw.per {
        RawPer::Run => Per::Run,
        RawPer::Agent => Per::Agent,
        RawPer::TrustDomain => Per::TrustDomain,
    };
    let then = match raw.then {
        RawThen::Note => Then::Note,
        RawThen::Hold => Then::Hold,
        RawThen::Deny => Then::Deny,
    };
    let (name, within) = (Arc::from(raw.name.as_str()), within.unwrap_or_default());
    Chain { id: id(&raw.name, &steps, within, per), name, steps, within, per, then }
}

fn class(raw: RawClass) -> Class {
    match raw {
        RawClass::Read => Class::Read,
        RawClass::Write => Class::Write,
        RawClass::External => Class::External,
    }
}

/// A digest of all that a sequence's progress hangs on.
fn id(name: &str, steps: &[Step], within: Duration, per: Per) -> u64 {
    let text = format!("{name} {steps:?} {within:?} {per:?}");
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default()
}

/// Whether the last call of a case completes the sequence.
fn is_found(chain: &Chain, case: &RawCase) -> Result<bool, String> {
    let (mut progress, mut now, mut found) = (Progress::default(), SystemTime::now(), false);
    for call in &case.calls {
        let after = call.after.as_deref().map_or(Some(Duration::ZERO), units::duration);
        let after = after.ok_or_else(|| format!("`{}`: `after` must be a duration, as in 10m", case.name))?;
        let times = call.times.unwrap_or(1);
        if !(1..=TIMES_MAX).contains(&times) {
            return Err(format!("`{}`: `times` must be from 1 to {TIMES_MAX}", case.name));
        }
        let labels: Vec<&str> = call.labels.iter().map(String::as_str).collect();
        let passing =
            Passing { class: class(call.class), upstream: &call.upstream, tool: &call.tool, labels: &labels };
        now += after;
        for _ in 0..times {
            found = chain.would_complete(&progress, &passing, now);
            chain.advance(&mut progress, &passing, now);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
chains:
  - name: collect-then-send
    steps: [{class: read, upstream: crm, labels: [confidential], at_least: 20}, {class: external}]
    within: 10m
    per: agent
    cases:
      - name: twenty customers and a mail
        calls: [{class: read, upstream: crm, labels: [confidential], times: 20}, {class: external, after: 5m}]
        found: true
      - name: a mail much later
        calls: [{class: read, upstream: crm, labels: [confidential], times: 20}, {class: external, after: 11m}]
        found: false
";

    fn mistakes(text: &str) -> String {
        let mut found = Vec::new();
        parse("chains.yaml", text, &["crm"], &mut found);
        found.iter().map(|mistake| format!("{mistake}\n")).collect()
    }

    #[test]
    fn a_file_is_compiled_and_its_cases_hold() {
        let mut found = Vec::new();
        let chains = parse("chains.yaml", TEXT, &["crm"], &mut found);
        assert_eq!(found, []);
        let chain = chains.first().unwrap();
        assert_eq!((&*chain.name, chain.then, chain.per), ("collect-then-send", Then::Hold, Per::Agent));
        let longer = parse("chains.yaml", &TEXT.replace("within: 10m", "within: 9m"), &["crm"], &mut found);
        assert_ne!(longer.first().unwrap().id, chain.id, "what was changed begins anew");
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        for (from, to, told) in [
            ("name: collect-then-send", "name: Collect", "chains[0].name: `Collect` must be"),
            ("within: 10m", "within: 25h", "chains[0].within: `25h` must be a duration of at most 24h"),
            (
                "upstream: crm, labels: [confidential], at_least: 20}, {class: ex",
                "upstream: cmr, at_least: 20}, {class: ex",
                "chains[0].steps[0].upstream: `cmr` is no upstream",
            ),
            ("at_least: 20}", "at_least: 2000}", "chains[0].steps[0].at_least: must be from 1 to 1000"),
            (
                "labels: [confidential], at_least",
                "labels: [private], at_least",
                "`private` must be `confidential`",
            ),
            ("{class: external}]", "{}]", "chains[0].steps[1]: must say a class"),
            (
                "found: true",
                "found: false",
                "chains[0].cases[0]: `twenty customers and a mail` is found, and was",
            ),
            (
                "at_least: 20}",
                "at_least: 21}",
                "`twenty customers and a mail` is not found, and was expected to be",
            ),
            ("per: agent", "per: nobody", "chains[0].per"),
        ] {
            let text = TEXT.replacen(from, to, 1);
            assert_ne!(text, TEXT, "{from}");
            assert!(mistakes(&text).contains(told), "{to}: {}", mistakes(&text));
        }
        let twice = format!("{TEXT}{}", TEXT.replacen("\nchains:\n", "", 1));
        assert!(mistakes(&twice).contains("chains[1].name: `collect-then-send` is there already"));
    }
}
