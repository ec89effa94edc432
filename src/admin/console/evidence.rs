//! What was found in the call that a hold waits for: from the audit, so that it is told after a restart too.

use std::time::Duration;

use serde_json::Value;

use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::admin::records::CATCH_UP_MAX;
use crate::admin::runs::{Evidence, Finding};
use crate::call::RecordId;
use crate::store::holds::Hold;
use crate::store::{Filter, PAGE_RECORDS_MAX};

/// How long before its hold is opened a call may have been looked at.
const BEFORE: Duration = Duration::from_secs(5);
/// Records of findings that are looked at, the newest first.
const FINDINGS_MAX: usize = 16;
/// How far the clocks of the store and of the audit may be apart.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(2);

/// How it is known which call something was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The record of the call names the hold.
    ByRecord,
    /// By agent, run, tool and time: it may have been another call of that moment.
    ByTime,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Findings {
    /// What was found in the call; in each of the calls that it may be, where they cannot be told apart.
    pub(super) found: Vec<Vec<Finding>>,
    /// How that is known.
    pub(super) told: Told,
}

/// What was found in the call that opened a hold. The record of a call names its hold once the call is answered; until
/// then it is told by agent, run, tool and time.
pub(super) async fn of(admin: &Admin, hold: &Hold) -> Result<Findings, Problem> {
    admin.index.caught_up(CATCH_UP_MAX).await;
    let about = &hold.about;
    let filter = Filter {
        agent: Some(about.agent.to_string()),
        upstream: Some(about.upstream.clone()),
        tool: Some(about.tool.clone()),
        from: hold.opened.checked_sub(BEFORE),
        to: Some(hold.opened + CLOCK_ERROR_MAX),
        limit: Some(PAGE_RECORDS_MAX),
        ..Filter::default()
    };
    let page = admin.index.records(filter).await?;
    let mut found = Vec::new();
    let rows = page.rows.iter().filter(|row| row.kind == "finding" && row.run == about.run);
    for row in rows.take(FINDINGS_MAX) {
        let Some(told) = admin.index.record(row.id).await? else { continue };
        let Ok(Ok(line)) = told.line.map(|line| serde_json::from_str::<Value>(&line)) else { continue };
        let findings = findings(&line);
        if findings.is_empty() {
            continue;
        }
        match holding(admin, &line).await? {
            Some(other) if other != hold.id.to_string() => {}
            Some(_) => return Ok(Findings { found: vec![findings], told: Told::ByRecord }),
            None => found.push(findings),
        }
    }
    found.dedup();
    Ok(Findings { found, told: Told::ByTime })
}

/// The hold that the call of a finding was answered with; none while it waits.
async fn holding(admin: &Admin, line: &Value) -> Result<Option<String>, Problem> {
    let call = line.get("call").and_then(Value::as_str).and_then(RecordId::parse);
    let Some(call) = call else { return Ok(None) };
    Ok(admin.index.record(call).await?.map(|told| told.row.hold))
}

/// The findings that a record tells, each with what it rests on.
fn findings(line: &Value) -> Vec<Finding> {
    let words = line.get("findings").and_then(Value::as_array).into_iter().flatten();
    let evidence: Vec<&Value> =
        line.get("evidence").and_then(Value::as_array).into_iter().flatten().collect();
    let of = |word: &str| -> Vec<Evidence> {
        let own = evidence.iter().filter(|one| one.get("finding").and_then(Value::as_str) == Some(word));
        own.filter_map(|one| serde_json::from_value((*one).clone()).ok()).collect()
    };
    words
        .filter_map(Value::as_str)
        .map(|word| Finding { finding: word.to_owned(), evidence: of(word) })
        .collect()
}
