//! What came of calls of which nobody knew, in SQL.

use super::found::find;
use super::holds::{changed, now};
use super::state::bounded;
use super::{Sqlite, moment};
use crate::call::RecordId;
use crate::store::holds::{HoldState, Moment};
use crate::store::resolve::{Found, Resolution, Resolutions, Resolved};
use crate::store::{Answer, REASON_BYTES_MAX};

impl Resolutions for Sqlite {
    fn resolve(&self, id: RecordId, said: Resolution) -> Answer<'_, Resolved> {
        Box::pin(async move {
            bounded("the reason", &said.reason, REASON_BYTES_MAX)?;
            self.write(async |tx| {
                let now = now(tx).await?;
                let Some(hold) = find(tx, id).await? else { return Ok(Resolved::Unknown) };
                if hold.state != HoldState::Indeterminate {
                    return Ok(Resolved::Known(hold));
                }
                let may = hold.about.idempotent && moment(now) < hold.expires;
                let (state, detail) = match said.found {
                    Found::Again if !may => return Ok(Resolved::NotAgain(hold)),
                    Found::Again => (HoldState::Approved, String::new()),
                    Found::Executed => {
                        (HoldState::Executed, format!("as {} found: {}", said.by, said.reason))
                    }
                    Found::Failed => (HoldState::Failed, format!("as {} found: {}", said.by, said.reason)),
                };
                let done = sqlx::query(
                    "UPDATE hold SET state = ?1, changed = ?2, detail = ?3,
                       record = CASE ?1 WHEN 'approved' THEN NULL ELSE record END,
                       bytes = CASE ?1 WHEN 'approved' THEN bytes ELSE NULL END WHERE id = ?4",
                );
                let done = done.bind(state.as_str()).bind(now).bind(detail).bind(id.to_string());
                let rows = done.execute(&mut *tx).await?.rows_affected();
                let hold = changed(tx, id, (rows, now), Moment::Resolved(&said)).await?;
                Ok(hold.map_or(Resolved::Unknown, Resolved::Now))
            })
            .await
        })
    }
}
