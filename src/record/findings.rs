//! Records of what flow control found in a call, and of what that froze.

use super::{Entry, Kind, MEMBERS_BYTES, Record};
use crate::flow::finding::FindingKind;
use crate::flow::{self, RunKey};
use crate::json::Members;

/// Sources that the record of one finding names.
const EVIDENCE_MAX: usize = 32;

impl Record {
    /// Records what was found in the call, and by what.
    pub fn found(&mut self, key: &RunKey, findings: &[flow::Finding]) {
        let mut members = Members::with_capacity(MEMBERS_BYTES);
        members.plain("call", self.id);
        members.append(&self.said);
        members.text("run", &key.run);
        let words: Vec<String> = findings.iter().map(|finding| finding.kind.word().into_owned()).collect();
        members.texts("findings", words.iter().map(String::as_str));
        let canary = findings.iter().find_map(|finding| match &finding.kind {
            FindingKind::Canary(name) => Some(name),
            _ => None,
        });
        if let Some(name) = canary {
            members.text("canary", name);
        }
        members.list("evidence", findings.iter().flat_map(evidence_of), |members, (word, evidence)| {
            members.text("finding", &word);
            members.text("how", evidence.how.as_str());
            members.number("matched", evidence.matched);
            members.number("bytes", evidence.bytes);
            if let Some(origin) = &evidence.origin {
                members.plain("record", origin.reply);
                members.text("upstream", &origin.upstream);
                members.text("tool", &origin.tool);
            }
        });
        self.evidence.ledger.append_detached(Entry::new(Kind::Finding, self.trace_id(), members));
    }

    /// Records that a run was frozen.
    pub fn froze(&mut self, key: &RunKey, froze: &flow::Froze) {
        let mut members = Members::default();
        members.text("what", "frozen");
        members.plain("call", self.id);
        members.append(&self.said);
        members.text("run", froze.run.as_deref().unwrap_or("*"));
        members.text("reason", &froze.why);
        self.evidence.ledger.append_detached(Entry::new(Kind::Finding, self.trace_id(), members));
        tracing::error!(event = "flow.frozen", agent = %key.agent, run = froze.run.as_deref().unwrap_or("*"),
            "{}; nothing goes until a person has looked: holdpoint runs unfreeze", froze.why);
    }
}

/// The evidence of a finding, each with the finding's word. Of one that rests on much only the first is told.
fn evidence_of(finding: &flow::Finding) -> impl Iterator<Item = (String, &flow::Evidence)> {
    let word = finding.kind.word();
    finding.evidence.iter().take(EVIDENCE_MAX).map(move |evidence| (word.clone().into_owned(), evidence))
}
