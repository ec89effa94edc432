//! The end of a reply: what was learnt of it is kept, then its outcome is recorded, then it is released.

use crate::call::Stop;
use crate::flow::keep::Keeping;
use crate::record::{Ending, Record, ReplyFacts};

/// Ends when everything that was learnt is kept.
pub(super) async fn kept(keeping: Vec<Keeping>) -> Result<(), Box<Stop>> {
    for keeping in keeping {
        keeping.await?;
    }
    Ok(())
}

/// Records how a call ended, once what was learnt of its reply is kept. What cannot be kept does not pass.
pub(super) async fn ended(
    keeping: Vec<Keeping>,
    record: Record,
    ending: Ending,
    mut facts: ReplyFacts,
) -> Result<(), Box<Stop>> {
    match kept(keeping).await {
        Ok(()) => record.ended(ending, facts).await,
        Err(stop) => {
            facts.withheld.push(stop.reason.into());
            record.ended(Ending::UpstreamBroke, facts).await?;
            Err(stop)
        }
    }
}
