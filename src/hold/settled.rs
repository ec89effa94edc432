//! What people say beside yes and no: that an approval stands for more than one execution, and what came of a call of
//! which nobody knew.

use super::Gate;
use crate::call::RecordId;
use crate::store::StoreError;
use crate::store::holds::{Vote, Voted};
use crate::store::resolve::{Resolution, Resolved};
use crate::store::standing::{Standing, StandingTerms};

impl Gate {
    /// A person's approval that stands, if it completes the hold's.
    pub async fn stand(&self, id: RecordId, vote: Vote, terms: StandingTerms) -> Result<Voted, StoreError> {
        let voted = self.store.stand(id, vote, terms).await?;
        if let Voted::Counted(hold) = &voted {
            self.changed(hold);
            self.count().await;
            self.written().await;
        }
        Ok(voted)
    }

    /// Standing approvals, those in force first.
    pub async fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        self.store.standings().await
    }

    /// Takes a standing approval back. What it approved and has not run ends, and whoever waits for that is told.
    pub async fn revoke_standing(
        &self,
        id: RecordId,
        by: String,
        reason: String,
    ) -> Result<Option<Standing>, StoreError> {
        let Some((standing, ended)) = self.store.revoke_standing(id, by, reason).await? else {
            return Ok(None);
        };
        for hold in &ended {
            self.changed(hold);
        }
        self.written().await;
        Ok(Some(standing))
    }

    /// A person says what came of a call. Nothing is executed by it; whoever asks for the call again is told.
    pub async fn resolve(&self, id: RecordId, said: Resolution) -> Result<Resolved, StoreError> {
        let resolved = self.store.resolve(id, said).await?;
        if let Resolved::Now(hold) = &resolved {
            // Its end was counted before.
            self.tell(hold);
            self.written().await;
        }
        Ok(resolved)
    }
}
