//! How many calls wait that a person may see or decide: beside "Inbox" on every page.

use crate::admin::Admin;
use crate::admin::caller::{Caller, Target};
use crate::call::PersonAction;
use crate::decide::Outcome;
use crate::store::inbox::{WAITING_MAX, Waiting};

/// Beyond so many it is said that there are more, and nobody counts on.
const SAID_MAX: u64 = 99;

/// The number as it is said: nothing where nothing waits, and a question mark where the store does not say.
pub(super) async fn said(admin: &Admin, caller: &Caller) -> String {
    match admin.gateway.store.waiting().await {
        Ok(groups) => number(&groups, |group| sees(admin, caller, group)),
        Err(error) => {
            tracing::warn!(%error, "it is not known how many calls wait");
            "?".to_owned()
        }
    }
}

fn number(groups: &[Waiting], mut sees: impl FnMut(&Waiting) -> bool) -> String {
    let mut calls = 0_u64;
    for group in groups {
        if sees(group) {
            calls = calls.saturating_add(group.calls);
        }
        if calls > SAID_MAX {
            return format!("{SAID_MAX}+");
        }
    }
    match calls {
        // There may be groups that were not counted.
        0 if groups.len() >= WAITING_MAX => "?".to_owned(),
        calls if groups.len() >= WAITING_MAX => format!("{calls}+"),
        0 => String::new(),
        calls => calls.to_string(),
    }
}

/// Who sees the agent sees what of it waits, and so does who may decide it.
fn sees(admin: &Admin, caller: &Caller, group: &Waiting) -> bool {
    let Some(known) = admin.directory().find(&group.agent) else {
        return caller.sees(admin, Target::Gateway);
    };
    let target = Target::Waiting(&known, group);
    [PersonAction::View, PersonAction::Approve]
        .into_iter()
        .any(|action| caller.asks(admin, action, target).outcome == Outcome::Allow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::AgentId;

    fn groups(calls: &[u64]) -> Vec<Waiting> {
        let agent = AgentId::from_normalised("spiffe://example.org/agent/a");
        let of = |calls: &u64| Waiting {
            agent: agent.clone(),
            consequence: 3,
            approvers: Vec::new(),
            on_behalf_of: String::new(),
            calls: *calls,
        };
        calls.iter().map(of).collect()
    }

    #[test]
    fn the_number_is_exact_up_to_its_bound_and_says_where_there_may_be_more() {
        assert_eq!(number(&[], |_| true), "");
        assert_eq!(number(&groups(&[60, 39]), |_| true), "99");
        assert_eq!(number(&groups(&[60, 40]), |_| true), "99+");
        assert_eq!(number(&groups(&[60, 40]), |group| group.calls == 40), "40");
        assert_eq!(number(&groups(&[u64::MAX, u64::MAX]), |_| true), "99+");
        let full = [1; WAITING_MAX];
        assert_eq!(number(&groups(&full), |group| group.calls == 2), "?");
        let mut few = groups(&full).into_iter().enumerate();
        assert_eq!(number(&groups(&full), |_| few.next().is_some_and(|(at, _)| at < 7)), "7+");
    }
}
