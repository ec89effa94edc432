//! What the stages leave evidence with, shared by all calls.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::capture::Capture;
use super::{Ledger, fold};
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
}
