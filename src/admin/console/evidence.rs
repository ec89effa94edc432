//! What was found in the call that a hold waits for: from the audit, so that it is told after a restart too.

use serde_json::Value;

use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::admin::records::CATCH_UP_MAX;
use crate::admin::runs::{Evidence, Finding};
use crate::record::Kind;
use crate::store::Subject;
use crate::store::holds::Hold;

/// What was found in the call that opened a hold; `None` when that is not known.
pub(super) async fn of(admin: &Admin, hold: &Hold) -> Result<Option<Vec<Finding>>, Problem> {
    let Some(call) = hold.about.call else { return Ok(None) };
    admin.index.caught_up(CATCH_UP_MAX).await;
    let mut found = Vec::new();
    for told in admin.index.story(Subject::Call(call)).await? {
        if told.row.kind != Kind::Finding.as_str() {
            continue;
        }
        let line = told.line.ok().and_then(|line| serde_json::from_str::<Value>(&line).ok());
        let Some(line) = line else { return Ok(None) };
        found.extend(findings(&line));
    }
    Ok(Some(found))
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
