//! What the stages leave evidence with, shared by all calls.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::capture::Capture;
use super::{Entry, Kind, Ledger, fold};
use crate::json::Members;
use crate::secret::PseudonymKey;
use crate::telemetry::Telemetry;

/// Where evidence goes.
pub struct Evidence {
    /// The audit.
    pub ledger: Ledger,
    /// Spans and metrics.
    pub telemetry: Arc<Telemetry>,
    /// Under which destinations and credentials are named.
    pub pseudonyms: PseudonymKey,
    /// What of payloads is kept.
    pub capture: Capture,
    /// Refusals that are folded.
    pub folds: fold::Folds,
    /// The records that are not closed; the end of the program waits for them.
    pub open: TaskTracker,
}

impl Evidence {
    /// Waits until every record is closed.
    pub async fn closed(&self) {
        self.open.close();
        self.open.wait().await;
    }

    /// Records a connection that a listener refused before it carried a request; a flood of them is folded. Nobody waits
    /// for the record.
    pub fn connection_refused(&self, listener: &str, peer: SocketAddr, reason: &'static str, detail: &str) {
        self.telemetry.metrics().connection_refused(reason);
        let Some(folded) = self.folds.admit(fold::Refusal::of_connection(reason)) else { return };
        let mut members = Members::default();
        members.text("stage", "accept");
        members.text("listener", listener);
        members.plain("peer", peer);
        members.text("reason", reason);
        members.text("detail", detail);
        members.number("folded", folded);
        members.object("decision", |members| {
            members.text("outcome", "denied");
            members.text("rule", "");
        });
        self.ledger.append_detached(Entry::new(Kind::Refused, None, members));
    }

    /// Records somebody who came to where people see and order things, and is nobody here; a flood of them is folded.
    /// `by` says who it was, as far as that is known. Nobody waits for the record.
    pub fn stranger_refused(
        &self,
        reason: &'static str,
        rule: &str,
        peer: Option<SocketAddr>,
        by: impl FnOnce(&mut Members),
    ) {
        let Some(folded) = self.folds.admit(fold::Refusal::of_connection(reason)) else { return };
        let mut members = Members::default();
        members.text("action", "view");
        members.object("by", by);
        if let Some(peer) = peer {
            members.plain("peer", peer);
        }
        members.text("reason", reason);
        members.number("folded", folded);
        members.object("decision", |members| {
            members.text("outcome", "denied");
            members.text("rule", rule);
        });
        self.ledger.append_detached(Entry::new(Kind::Admin, None, members));
    }
}
