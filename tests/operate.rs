//! What operators are given follows the code: policies and their controls, metrics of dashboards and alerts, runbooks.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it cannot go on"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holdpoint::call::{BreakerPhase, Class, Era, Protocol};
use holdpoint::telemetry::hop::Outcome;
use holdpoint::telemetry::{Config, Delivery, Hop, Telemetry, spans};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(dir: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    files.sort();
    assert!(!files.is_empty(), "{dir} has no *{ending}");
    files
}

/// The values of an annotation in a policy file, one for each policy that has it.
fn annotations<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let lines = text.lines().filter(|line| line.starts_with('@'));
    let values = lines.flat_map(|line| line.split('@').filter_map(|part| part.strip_prefix(name)));
    values.map(|value| value.trim().trim_start_matches("(\"").trim_end_matches("\")")).collect()
}

#[test]
fn every_shipped_policy_has_a_name_for_agents_controls_and_a_case() {
    let cases: String = files("policies", ".cases.yaml").iter().map(read).collect();
    let document = read("docs/policies.md");
    let table = document.split_once("| reference | is |").unwrap().1;
    let known: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"))
        .map(|(name, _)| name)
        .collect();
    let mut used = BTreeSet::new();
    for file in files("policies", ".cedar") {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(
            document.contains(&format!("| `{name}` |")),
            "docs/policies.md does not say when {name} speaks"
        );
        assert!(file.with_extension("cases.yaml").exists(), "{name} has no cases");
        let text = read(&file);
        let ids = annotations(&text, "id");
        let (public, controls) = (annotations(&text, "public"), annotations(&text, "controls"));
        assert!(
            ids.len() == public.len() && ids.len() == controls.len(),
            "{name}: {ids:?} {public:?} {controls:?}"
        );
        for (id, public) in std::iter::zip(&ids, public) {
            assert!(cases.contains(&format!("rule: {public}")), "no case expects {id} ({public})");
        }
        for reference in controls.iter().flat_map(|list| list.split(", ")) {
            assert!(
                known.contains(reference),
                "{name} names {reference:?}, which docs/policies.md does not explain"
            );
            used.insert(reference.to_owned());
        }
    }
    let unused: Vec<&&str> = known.iter().filter(|name| !used.contains(**name)).collect();
    assert!(unused.is_empty(), "no policy names {unused:?}");
}

/// Every series that `/metrics` can show, by name, with its labels.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let telemetry = Telemetry::start(&Config::default()).unwrap();
    let metrics = telemetry.metrics();
    let mut hop = Hop::new(Protocol::Mcp(Era::Legacy), spans::begin(None), SystemTime::now());
    hop.upstream.name = Arc::from("mail");
    hop.decision.class = Some(Class::Read);
    hop.timing.upstream = Some((Duration::from_millis(1), Duration::from_millis(2)));
    telemetry.finished(Box::new(hop));
    let name = Arc::from("mail");
    metrics.hold_ended(Outcome::Expired, Duration::from_secs(1));
    metrics.connection_refused("tls");
    metrics.trust_expiry(&name, 1.0);
    metrics.catalog_drift(&name, 1);
    metrics.shadow(&name, 1.0);
    metrics.notified(&name, Delivery::Delivered);
    metrics.upstream_breaker(&name, BreakerPhase::Closed);
    let text = metrics.render();
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels: &mut BTreeSet<String> = series.entry(name.to_owned()).or_default();
        let inside =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        labels.extend(
            inside.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned()),
        );
    }
    series.insert("up".to_owned(), BTreeSet::new());
    series
}

/// The words of an expression, without its texts.
fn words(expression: &str) -> BTreeSet<&str> {
    let outside = expression.split('"').step_by(2);
    let words =
        outside.flat_map(|part| part.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')));
    words.filter(|word| !word.is_empty() && !word.starts_with(|c: char| c.is_ascii_digit())).collect()
}

/// What PromQL itself means by a word, and what scraping adds to each series.
const LANGUAGE: [&str; 25] = [
    "absent",
    "and",
    "by",
    "count",
    "histogram_quantile",
    "increase",
    "instance",
    "job",
    "le",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "on",
    "or",
    "rate",
    "sum",
    "unless",
    "vector",
    "m",
    "h",
    "d",
    "s",
    "__rate_interval",
    "without",
];

/// Every expression of dashboards and rules, with where it stands.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in files("observability/dashboards", ".json") {
        let dashboard: Value = serde_json::from_str(&read(&file)).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let place = format!("{}: {}", file.display(), panel["title"]);
            for target in panel["targets"].as_array().into_iter().flatten() {
                found.push((place.clone(), target["expr"].as_str().unwrap().to_owned()));
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            let (metric, label) = query.strip_prefix("label_values(").unwrap().rsplit_once(", ").unwrap();
            let place = format!("{}: variable", file.display());
            found.push((place, format!("sum by ({}) ({metric})", label.trim_end_matches(')'))));
        }
    }
    for (name, rule) in rules() {
        found.push((name, rule["expr"].as_str().unwrap().to_owned()));
    }
    found
}

/// Every rule by the name of its alert or series.
fn rules() -> Vec<(String, Value)> {
    let mut rules = Vec::new();
    for file in ["rules.yaml", "alerts.yaml"] {
        let text = read(Path::new("observability/prometheus").join(file));
        let parsed: Value = serde_saphyr::from_str(&text).unwrap();
        for group in parsed["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                let name = rule["alert"].as_str().or_else(|| rule["record"].as_str()).unwrap();
                rules.push((name.to_owned(), rule.clone()));
            }
        }
    }
    rules
}

#[test]
fn dashboards_and_rules_ask_only_for_what_the_gateway_measures() {
    let series = series();
    let recorded: BTreeSet<String> = rules().into_iter().map(|(name, _)| name).collect();
    let labels: BTreeSet<&str> = series.values().flatten().map(String::as_str).collect();
    let expressions = expressions();
    assert!(expressions.len() > 60, "{}", expressions.len());
    for (place, expression) in &expressions {
        let words = words(expression);
        let metrics: Vec<&&str> =
            words.iter().filter(|word| series.contains_key(**word) || recorded.contains(**word)).collect();
        assert!(!metrics.is_empty(), "{place}: asks for no metric: {expression}");
        for word in &words {
            let known = metrics.contains(&word) || labels.contains(word) || LANGUAGE.contains(word);
            assert!(
                known,
                "{place}: {word} is no metric of the gateway, no label and no PromQL: {expression}"
            );
        }
    }
}

#[test]
fn every_metric_of_our_own_is_on_a_dashboard() {
    let shown: String = files("observability/dashboards", ".json").iter().map(read).collect();
    for name in series().keys().filter(|name| name.starts_with("holdpoint_")) {
        let base = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        assert!(shown.contains(base), "{name} is on no dashboard");
    }
}

#[test]
fn every_alert_has_a_runbook_and_a_test_and_no_runbook_is_left_over() {
    let runbooks = read("docs/runbooks.md");
    let tests = read("observability/prometheus/tests.yaml");
    let alerts: BTreeMap<String, Value> =
        rules().into_iter().filter(|(_, rule)| rule["alert"].is_string()).collect();
    for (name, rule) in &alerts {
        let notes = &rule["annotations"];
        assert_eq!(notes["runbook_url"], format!("docs/runbooks.md#{}", name.to_lowercase()));
        assert!(notes["summary"].is_string() && notes["description"].is_string(), "{name}");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let section = runbooks.split_once(&format!("\n## {name}\n"));
        let section = section.unwrap_or_else(|| panic!("docs/runbooks.md has no section {name}")).1;
        let section = section.split("\n## ").next().unwrap();
        for part in ["**Means:**", "**Look at", "do:**", "**Ends:**"] {
            assert!(section.to_lowercase().contains(&part.to_lowercase()), "{name}: no {part}");
        }
        let fires = format!("alertname: {name}\n        exp_alerts:\n");
        let silent = format!("alertname: {name}, exp_alerts: []");
        assert!(
            tests.contains(&fires) && tests.contains(&silent),
            "{name} has no test of when it fires and when not"
        );
    }
    let sections = runbooks.lines().filter_map(|line| line.strip_prefix("## "));
    let left_over: Vec<&str> = sections.filter(|name| !alerts.contains_key(*name)).collect();
    assert!(left_over.is_empty(), "{left_over:?}");
}
