//! How calls that were sent end, and the record of a held one: what is noted again when it is judged again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Record, State};
use crate::call::{RecordId, Stop, TraceContext};
use crate::decode::Call;

/// How a call that was sent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The agent left before the end, and the upstream was left too.
    ClientGone,
    /// The reply came to its end.
    Complete,
    /// The upstream broke off within its reply.
    UpstreamBroke,
}

/// How the execution of a held call ended, as far as is known. Each has what an operator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseEnd {
    /// The upstream replied.
    Executed(String),
    /// Nothing was sent.
    NotSent(String),
    /// It was sent, and whether it had an effect is not known.
    Unknown(String),
}

/// Told how the execution of a held call ended, once the audit has its outcome.
pub type OnEnd = Box<dyn FnOnce(ReleaseEnd) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

impl ReleaseEnd {
    /// What the ending of a reply is for a held call.
    pub(super) fn of(ending: Ending) -> ReleaseEnd {
        match ending {
            Ending::Complete => ReleaseEnd::Executed(String::new()),
            Ending::ClientGone => ReleaseEnd::Executed("the agent left before the reply's end".to_owned()),
            Ending::UpstreamBroke => {
                ReleaseEnd::Unknown("the upstream broke off within its reply".to_owned())
            }
        }
    }
}

impl Record {
    /// The context of this hop's server span.
    pub fn context(&self) -> Option<TraceContext> {
        self.hop.as_ref().map(|hop| hop.trace)
    }

    /// Forgets what was noted since the call was decoded: it is understood and decided again.
    pub fn again(&mut self) {
        self.noted.truncate(self.marks.0);
        self.said.truncate(self.marks.1);
        self.decided = false;
    }

    /// Forgets what was noted of the call: it is this one that is sent.
    pub fn instead(&mut self, call: &Call) {
        self.noted.truncate(self.known.0);
        self.said.truncate(self.known.1);
        self.decided = false;
        self.decoded(call);
    }

    /// Notes the hold that the call is in.
    pub fn held(&mut self, hold: RecordId) {
        self.noted.plain("hold", hold);
        self.said.plain("hold", hold);
        if let Some(hop) = &mut self.hop {
            hop.decision.hold = Some(Arc::from(hold.to_string()));
        }
    }

    /// From now on this call is the execution of a hold, and its end is told.
    pub fn releasing(&mut self, on_end: OnEnd) {
        self.on_end = Some(on_end);
    }

    /// Closes a request that was answered from what the gateway itself knows, and that nothing came of.
    pub fn told(mut self, status: u16) {
        if let Some(hop) = &mut self.hop {
            hop.status = Some(status);
        }
        self.finish();
    }

    /// What a stop is for a held call: after the intent some reasons leave it open whether it had an effect.
    pub(super) fn end_by(&self, stop: &Stop) -> ReleaseEnd {
        let open = ["client-gone", "upstream-broken", "upstream-protocol", "upstream-timeout"];
        match self.state {
            State::Committed(_) if open.contains(&stop.reason) => ReleaseEnd::Unknown(stop.operator.clone()),
            _ => ReleaseEnd::NotSent(stop.operator.clone()),
        }
    }
}
