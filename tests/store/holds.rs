//! Held calls: every database must keep them so that each runs at most once, and only when people said so.

use std::sync::Arc;

use holdpoint::call::{Class, Confidentiality};
use holdpoint::store::holds::{
    About, Claim, End, Endorsement, HELD_BYTES_MAX, HoldState, NewHold, Opened, Says, Terms, Vote, Voted,
    Wanted,
};
use holdpoint::store::inbox::Waiting;
use holdpoint::store::lifts::{Ended, LIFTS_OPEN_MAX, Lifted, NewLift, Reviewed, Scope};
use holdpoint::store::notifications::{Addressee, Backlog, Notification, NotificationState, Topic};
use holdpoint::store::resolve::{Found, Resolution, Resolved};
use holdpoint::store::standing::StandingTerms;
use holdpoint::store::{Changed, StoreError};
use holdpoint::webhook::EVENTS;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn new_hold(name: &str, digest: u8) -> NewHold {
    NewHold {
        id: RecordId::new(),
        digest: [digest; 32],
        idempotency: None,
        about: About {
            call: Some(RecordId::new()),
            agent: agent(name),
            owner: "ana@example.org".to_owned(),
            team: "care".to_owned(),
            task: String::new(),
            on_behalf_of: String::new(),
            upstream: "mail".to_owned(),
            tool: "delete_customer".to_owned(),
            class: Class::Write,
            consequence: 3,
            rule: "high-consequence".to_owned(),
            reason: "held by hold-high-consequence".to_owned(),
            run: "run".to_owned(),
            revision: "r1".to_owned(),
            idempotent: false,
        },
        terms: Terms { quorum: 1, approvers: vec!["oncall".to_owned()] },
        ttl: LONG,
        bytes: b"sealed".to_vec(),
        pending_max: 20,
    }
}

fn vote(by: &str, says: Says, digest: u8) -> Vote {
    Vote {
        by: format!("spiffe://people.example.org/{by}"),
        email: format!("{by}@example.org"),
        roles: vec!["oncall".to_owned()],
        says,
        reason: "seen".to_owned(),
        digest: [digest; 32],
        evidence: "mtls 01".to_owned(),
        at: SystemTime::UNIX_EPOCH,
    }
}

fn lease(record: RecordId) -> Claim {
    Claim { by: "this".to_owned(), time: LONG, record }
}

async fn opened(store: &dyn Store, new: NewHold) -> RecordId {
    match store.open_hold(new).await.unwrap() {
        Opened::New(hold) => hold.id,
        other => panic!("{other:?}"),
    }
}

async fn state(store: &dyn Store, id: RecordId) -> HoldState {
    store.hold(id).await.unwrap().unwrap().state
}

async fn approved(store: &dyn Store, name: &str, digest: u8) -> RecordId {
    let id = opened(store, new_hold(name, digest)).await;
    store.vote(id, vote("olga", Says::Approve, digest)).await.unwrap();
    id
}

fn end(state: HoldState, record: RecordId) -> End {
    End { state, record, detail: "so it ended".to_owned() }
}

pub async fn the_same_call_joins_its_hold_and_another_opens_one(store: Arc<dyn Store>) {
    let id = opened(&*store, new_hold("a", 1)).await;
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.open_hold(new_hold("a", 1)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        let Opened::Joined(hold) = task.await.unwrap() else { panic!("it made a second hold") };
        assert_eq!(hold.id, id);
    }
    assert_ne!(opened(&*store, new_hold("a", 2)).await, id, "another call");
    assert_ne!(opened(&*store, new_hold("b", 1)).await, id, "another agent");
    assert_eq!(store.holds(Wanted::default()).await.unwrap().len(), 3);
    assert_eq!(store.pending().await.unwrap(), 3);
    let of_b = Wanted { agent: Some(agent("b")), states: vec![HoldState::Pending] };
    assert_eq!(store.holds(of_b).await.unwrap().len(), 1);
}

pub async fn approved_once_released_once_and_told_afterwards(store: Arc<dyn Store>) {
    let id = opened(&*store, new_hold("a", 1)).await;
    let record = RecordId::new();
    assert_eq!(store.release(id, [1; 32], lease(record)).await.unwrap(), None, "nobody approved it");
    let Voted::Counted(hold) = store.vote(id, vote("olga", Says::Approve, 1)).await.unwrap() else {
        panic!("the vote counts")
    };
    assert_eq!((hold.state, hold.votes.len()), (HoldState::Approved, 1));
    assert!(hold.votes[0].at >= hold.opened, "the vote has the store's time");
    assert_eq!(store.release(id, [2; 32], lease(record)).await.unwrap(), None, "another call");
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.release(id, [1; 32], lease(RecordId::new())).await.unwrap() })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        won.extend(task.await.unwrap());
    }
    let [hold] = &won[..] else { panic!("released {} times", won.len()) };
    let record = hold.record.unwrap();
    assert_eq!(store.settle(id, end(HoldState::Executed, RecordId::new())).await.unwrap(), None);
    store.settle(id, end(HoldState::Executed, record)).await.unwrap().unwrap();
    assert_eq!(store.settle(id, end(HoldState::Failed, record)).await.unwrap(), None, "it has ended");
    let Opened::Joined(hold) = store.open_hold(new_hold("a", 1)).await.unwrap() else { panic!("a second") };
    assert_eq!((hold.state, hold.record), (HoldState::Executed, Some(record)));
    assert_eq!(store.release(id, [1; 32], lease(record)).await.unwrap(), None, "it ran already");
}

pub async fn one_denial_ends_a_hold_and_nobody_votes_twice(store: Arc<dyn Store>) {
    let mut two = new_hold("a", 1);
    two.terms.quorum = 2;
    let id = opened(&*store, two).await;
    assert!(matches!(store.vote(id, vote("olga", Says::Approve, 1)).await.unwrap(), Voted::Counted(_)));
    assert!(matches!(store.vote(id, vote("olga", Says::Approve, 1)).await.unwrap(), Voted::Again(_)));
    assert_eq!(state(&*store, id).await, HoldState::Pending);
    let mut other = vote("pia", Says::Deny, 1);
    other.roles.clear();
    store.vote(id, other).await.unwrap();
    assert_eq!(state(&*store, id).await, HoldState::Denied);
    assert!(matches!(store.vote(id, vote("oda", Says::Approve, 1)).await.unwrap(), Voted::Over(_)));
    assert_eq!(store.release(id, [1; 32], lease(RecordId::new())).await.unwrap(), None);

    // The roles that are asked for must be among those who approve.
    let id = opened(&*store, new_hold("a", 2)).await;
    let mut ownerly = vote("ana", Says::Approve, 2);
    ownerly.roles = vec!["approver".to_owned()];
    store.vote(id, ownerly).await.unwrap();
    assert_eq!(state(&*store, id).await, HoldState::Pending);
    store.vote(id, vote("olga", Says::Approve, 2)).await.unwrap();
    assert_eq!(state(&*store, id).await, HoldState::Approved);
}

pub async fn a_vote_for_another_call_does_not_count(store: Arc<dyn Store>) {
    let id = opened(&*store, new_hold("a", 1)).await;
    assert!(matches!(store.vote(id, vote("olga", Says::Approve, 2)).await.unwrap(), Voted::Digest(_)));
    assert!(matches!(store.vote(id, vote("olga", Says::Deny, 2)).await.unwrap(), Voted::Digest(_)));
    assert_eq!(state(&*store, id).await, HoldState::Pending);
    let unknown = store.vote(RecordId::new(), vote("olga", Says::Approve, 1)).await.unwrap();
    assert_eq!(unknown, Voted::Unknown);
    let long = Vote { reason: "x".repeat(REASON_BYTES_MAX + 1), ..vote("olga", Says::Approve, 1) };
    assert!(matches!(store.vote(id, long).await, Err(StoreError::TooLarge { .. })));
}

pub async fn what_runs_out_of_time_expires_and_is_never_released(store: Arc<dyn Store>) {
    let soon = |digest| NewHold { ttl: Duration::from_millis(300), ..new_hold("a", digest) };
    let (pending, granted) = (opened(&*store, soon(1)).await, opened(&*store, soon(2)).await);
    store.vote(granted, vote("olga", Says::Approve, 2)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    // Whether or not anybody has swept: the time is over.
    assert!(matches!(store.vote(pending, vote("olga", Says::Approve, 1)).await.unwrap(), Voted::Over(_)));
    assert_eq!(store.release(granted, [2; 32], lease(RecordId::new())).await.unwrap(), None);
    let swept = store.expire().await.unwrap();
    assert_eq!(swept.expired.len(), 2);
    assert!(swept.expired.iter().all(|hold| hold.state == HoldState::Expired));
    assert_eq!(swept.next, None);
    assert_eq!(store.expire().await.unwrap().expired, [], "once");
    assert_ne!(opened(&*store, new_hold("a", 1)).await, pending, "a repeat is a new hold");
}

pub async fn a_hold_is_escalated_once_before_it_expires(store: Arc<dyn Store>) {
    let id = opened(&*store, NewHold { ttl: Duration::from_millis(600), ..new_hold("a", 1) }).await;
    let first = store.expire().await.unwrap();
    assert!(first.next.is_some_and(|next| next <= Duration::from_millis(300)), "{first:?}");
    tokio::time::sleep(Duration::from_millis(320)).await;
    let swept = store.expire().await.unwrap();
    let late: Vec<_> = swept.escalated.iter().chain(&swept.expired).map(|hold| hold.id).collect();
    assert!(late.contains(&id), "{swept:?}");
    assert_eq!(store.expire().await.unwrap().escalated, [], "once");
}

pub async fn an_agent_takes_back_its_own_call_and_no_other(store: Arc<dyn Store>) {
    let id = approved(&*store, "a", 1).await;
    assert_eq!(store.withdraw(id, agent("b")).await.unwrap(), None);
    let hold = store.withdraw(id, agent("a")).await.unwrap().unwrap();
    assert_eq!(hold.state, HoldState::Withdrawn);
    assert_eq!(store.withdraw(id, agent("a")).await.unwrap(), None);
    assert_eq!(store.release(id, [1; 32], lease(RecordId::new())).await.unwrap(), None);
    assert_ne!(opened(&*store, new_hold("a", 1)).await, id);
}

pub async fn one_agent_cannot_hold_more_than_its_part(store: Arc<dyn Store>) {
    for digest in 0..3 {
        opened(&*store, NewHold { pending_max: 3, ..new_hold("a", digest) }).await;
    }
    let over = store.open_hold(NewHold { pending_max: 3, ..new_hold("a", 9) }).await.unwrap();
    assert_eq!(over, Opened::TooMany);
    let same = store.open_hold(NewHold { pending_max: 3, ..new_hold("a", 1) }).await.unwrap();
    assert!(matches!(same, Opened::Joined(_)), "what waits already is joined");
    opened(&*store, NewHold { pending_max: 3, ..new_hold("b", 9) }).await;
}

pub async fn the_same_idempotency_key_with_another_call_is_refused(store: Arc<dyn Store>) {
    let keyed = |name: &str, digest| NewHold { idempotency: Some([7; 32]), ..new_hold(name, digest) };
    let id = opened(&*store, keyed("a", 1)).await;
    assert_eq!(store.open_hold(keyed("a", 2)).await.unwrap(), Opened::KeyReused);
    assert!(matches!(store.open_hold(keyed("a", 1)).await.unwrap(), Opened::Joined(hold) if hold.id == id));
    opened(&*store, keyed("b", 2)).await;
}

pub async fn a_lapsed_execution_is_found_and_settled_once(store: Arc<dyn Store>) {
    let (id, record) = (approved(&*store, "a", 1).await, RecordId::new());
    let short = Claim { time: Duration::from_millis(50), ..lease(record) };
    store.release(id, [1; 32], short).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.renew("another".to_owned(), LONG).await.unwrap();
    assert_eq!(store.lapsed().await.unwrap().len(), 1);
    store.renew("this".to_owned(), LONG).await.unwrap();
    assert_eq!(store.lapsed().await.unwrap(), [], "its gateway goes on");
    store.renew("this".to_owned(), Duration::ZERO).await.unwrap();
    let Opened::Joined(hold) = store.open_hold(new_hold("a", 1)).await.unwrap() else {
        panic!("beside itself")
    };
    assert_eq!(hold.state, HoldState::Releasing);
    store.settle(id, end(HoldState::Indeterminate, record)).await.unwrap().unwrap();
    assert_eq!(store.settle(id, end(HoldState::Executed, record)).await.unwrap(), None);
    assert_eq!(store.lapsed().await.unwrap(), []);

    // Doing it twice is doing it once: it may be released again, with the same approval.
    let id = approved(&*store, "a", 2).await;
    store.release(id, [2; 32], lease(record)).await.unwrap().unwrap();
    store.settle(id, end(HoldState::Approved, record)).await.unwrap().unwrap();
    assert!(store.held_bytes(id).await.unwrap().is_some());
    store.release(id, [2; 32], lease(RecordId::new())).await.unwrap().unwrap();
}

pub async fn every_change_has_a_row_for_the_audit_and_an_event(store: Arc<dyn Store>) {
    let (id, record) = (approved(&*store, "a", 1).await, RecordId::new());
    store.release(id, [1; 32], lease(record)).await.unwrap().unwrap();
    store.settle(id, end(HoldState::Executed, record)).await.unwrap().unwrap();
    let rows = store.audit_rows().await.unwrap();
    let kinds: Vec<_> = rows.iter().map(|row| &*row.kind).collect();
    assert_eq!(kinds, ["held", "vote", "released", "held"]);
    assert_eq!(rows[0].id, id, "the first record of a hold has its id");
    let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| row.id.to_string()).collect();
    assert_eq!(ids.len(), 4);
    let text = String::from_utf8(rows[1].members.clone()).unwrap();
    let members: serde_json::Value = serde_json::from_str(&format!("{{{text}}}")).unwrap();
    assert_eq!((&members["vote"], &members["state"]), (&"approve".into(), &"approved".into()));
    assert_eq!(members["seen"], members["digest"]);
    store.audited(rows[1].place).await.unwrap();
    assert_eq!(store.audit_rows().await.unwrap(), rows[2..]);

    store.address(vec![to("chat", &["hold.opened", "hold.released", "hold.ended"])]).await.unwrap();
    let told = store.notifications(None).await.unwrap();
    let kinds: Vec<_> = told.iter().map(|one| &*one.kind).collect();
    assert_eq!(kinds, ["hold.opened", "hold.released", "hold.ended"], "in order, and nothing else");
    let data: Vec<serde_json::Value> = told
        .iter()
        .map(|one| format!("{{{}}}", String::from_utf8_lossy(&one.data)))
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect();
    let states: Vec<_> = data.iter().map(|data| data["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["pending", "releasing", "executed"], "each tells what was so then");
    assert_eq!(data[0]["hold"], id.to_string());
}

fn to(webhook: &str, kinds: &[&'static str]) -> Addressee {
    Addressee { webhook: webhook.to_owned(), kinds: kinds.to_vec() }
}

async fn due(store: &dyn Store, webhook: &str) -> Vec<Notification> {
    store.due(webhook.to_owned(), 10).await.unwrap()
}

pub async fn a_hold_is_told_in_order_and_only_a_confirmation_takes_it_off(store: Arc<dyn Store>) {
    let everything = || vec![to("chat", &EVENTS), to("pager", &["hold.opened"])];
    let first = approved(&*store, "a", 1).await;
    let second = opened(&*store, new_hold("b", 2)).await;
    assert_eq!(store.backlog().await.unwrap(), Backlog { events: 3, waiting: 0, dead: 0 });
    assert_eq!(store.address(everything()).await.unwrap(), 3);
    assert_eq!(store.address(everything()).await.unwrap(), 0, "each event is addressed once");
    assert_eq!(store.backlog().await.unwrap(), Backlog { events: 0, waiting: 5, dead: 0 });

    // Of each hold the first alone; the other waits until that is confirmed.
    let told = due(&*store, "chat").await;
    assert_eq!(
        told.iter().map(|one| (one.topic.id(), &*one.kind)).collect::<Vec<_>>(),
        [(first, "hold.opened"), (second, "hold.opened")]
    );
    store.undelivered(told[0].id, Some(LONG), "it answered 500".to_owned()).await.unwrap();
    let left = due(&*store, "chat").await;
    assert_eq!(left, told[1..], "what failed waits, and what comes after it in its hold waits with it");
    let failed = store.notification(told[0].id).await.unwrap().unwrap();
    assert_eq!((failed.attempts, &*failed.failure, failed.id), (1, "it answered 500", told[0].id));

    // A dead one does not hold up what comes after it, and can be tried again.
    store.undelivered(told[0].id, None, "it answered 410".to_owned()).await.unwrap();
    let mut kinds: Vec<_> = due(&*store, "chat").await.iter().map(|one| one.kind.clone()).collect();
    kinds.sort();
    assert_eq!(kinds, ["hold.opened", "hold.voted"]);
    let dead = store.notifications(Some(NotificationState::Dead)).await.unwrap();
    assert_eq!(dead.iter().map(|one| (one.id, one.attempts)).collect::<Vec<_>>(), [(told[0].id, 2)]);
    assert_eq!(store.retry(told[0].id).await.unwrap(), Changed::Now);
    assert_eq!(store.notifications(Some(NotificationState::Dead)).await.unwrap(), []);
    let again: Vec<_> = due(&*store, "chat").await.iter().map(|one| one.id).collect();
    assert!(again.len() == 2 && again.contains(&told[0].id), "under the same id, and before what follows it");
    assert_eq!(store.retry(RecordId::new()).await.unwrap(), Changed::Not);

    for one in store.notifications(None).await.unwrap() {
        store.delivered(one.id).await.unwrap();
    }
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
}

pub async fn what_waits_for_a_webhook_that_is_gone_is_dead_and_not_lost(store: Arc<dyn Store>) {
    opened(&*store, new_hold("a", 1)).await;
    store.address(vec![to("chat", &EVENTS), to("pager", &EVENTS)]).await.unwrap();
    store.address(vec![to("pager", &EVENTS)]).await.unwrap();
    let dead = store.notifications(Some(NotificationState::Dead)).await.unwrap();
    assert_eq!(dead.iter().map(|one| &*one.webhook).collect::<Vec<_>>(), ["chat"]);
    assert_eq!(due(&*store, "pager").await.len(), 1);
    // With nobody to tell, events are not kept for anybody.
    opened(&*store, new_hold("a", 2)).await;
    assert_eq!(store.address(Vec::new()).await.unwrap(), 1);
    assert_eq!(store.backlog().await.unwrap(), Backlog { events: 0, waiting: 0, dead: 2 });
}

pub async fn people_are_told_once_that_a_quarter_of_the_time_is_left(store: Arc<dyn Store>) {
    let decided = approved(&*store, "a", 2).await;
    let end = std::time::Instant::now() + Duration::from_secs(30);
    let id = opened(&*store, NewHold { ttl: Duration::from_secs(8), ..new_hold("a", 3) }).await;
    let mut soon = Vec::new();
    while soon.is_empty() {
        let swept = store.expire().await.unwrap();
        soon.extend(swept.expiring.into_iter().map(|hold| (hold.id, hold.state)));
        assert!(std::time::Instant::now() < end, "nobody was told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(soon, [(id, HoldState::Pending)]);
    assert_eq!(store.expire().await.unwrap().expiring, [], "once");
    assert_eq!(store.hold(decided).await.unwrap().unwrap().state, HoldState::Approved);
}

pub async fn the_bytes_of_a_held_call_are_erased_at_its_end(store: Arc<dyn Store>) {
    let (id, record) = (approved(&*store, "a", 1).await, RecordId::new());
    assert_eq!(store.held_bytes(id).await.unwrap().as_deref(), Some(&b"sealed"[..]));
    store.release(id, [1; 32], lease(record)).await.unwrap().unwrap();
    assert!(store.held_bytes(id).await.unwrap().is_some());
    store.settle(id, end(HoldState::Executed, record)).await.unwrap().unwrap();
    assert_eq!(store.held_bytes(id).await.unwrap(), None);
    let id = opened(&*store, new_hold("a", 2)).await;
    store.vote(id, vote("olga", Says::Deny, 2)).await.unwrap();
    assert_eq!(store.held_bytes(id).await.unwrap(), None);
    let id = opened(&*store, new_hold("a", 3)).await;
    store.withdraw(id, agent("a")).await.unwrap().unwrap();
    assert_eq!(store.held_bytes(id).await.unwrap(), None);
}

pub async fn endorsements_are_kept_and_taken_back_once(store: Arc<dyn Store>) {
    let endorsement = Endorsement {
        id: RecordId::new(),
        agent: agent("a"),
        upstream: "mail".to_owned(),
        tool: "send_email".to_owned(),
        sink: "message".to_owned(),
        destination: "bob@partner.example".to_owned(),
        confidentiality: Confidentiality::Internal,
        rule: "flow".to_owned(),
        consequence_max: 2,
        hold: Some(RecordId::new()),
        by: "ana".to_owned(),
        reason: "a partner".to_owned(),
        at: second(1),
        until: second(2),
        revoked: None,
    };
    store.endorse(endorsement.clone()).await.unwrap();
    assert_eq!(store.endorsements().await.unwrap(), std::slice::from_ref(&endorsement));
    let revoke = || store.revoke_endorsement(endorsement.id, "olga".to_owned(), "no partner".to_owned());
    assert_eq!(revoke().await.unwrap(), Changed::Now);
    assert_eq!(revoke().await.unwrap(), Changed::Not);
    assert_eq!(store.endorsements().await.unwrap()[0].revoked.as_ref().unwrap().by, "olga");
}

pub async fn what_waits_is_counted_by_what_policy_can_tell_apart(store: Arc<dyn Store>) {
    assert_eq!(store.waiting().await.unwrap(), []);
    let first = opened(&*store, new_hold("a", 1)).await;
    opened(&*store, new_hold("a", 2)).await;
    opened(&*store, new_hold("b", 3)).await;
    let mut other = new_hold("a", 4);
    (other.about.consequence, other.about.on_behalf_of) = (4, "ana@example.org".to_owned());
    opened(&*store, other).await;
    // Neither of these waits: one is approved, and the time of the other is over.
    approved(&*store, "c", 5).await;
    opened(&*store, NewHold { ttl: Duration::ZERO, ..new_hold("c", 6) }).await;
    let group = |name: &str, consequence: u8, on_behalf_of: &str, calls: u64| Waiting {
        agent: agent(name),
        consequence,
        approvers: vec!["oncall".to_owned()],
        on_behalf_of: on_behalf_of.to_owned(),
        calls,
    };
    let mut waiting = store.waiting().await.unwrap();
    assert_eq!(waiting.remove(0), group("a", 3, "", 2), "the largest first");
    waiting.sort_by_key(|group| group.consequence);
    assert_eq!(waiting, [group("b", 3, "", 1), group("a", 4, "ana@example.org", 1)]);
    store.vote(first, vote("olga", Says::Deny, 1)).await.unwrap();
    assert!(store.waiting().await.unwrap().contains(&group("a", 3, "", 1)));
}

fn lift(by: &str, time: Duration) -> NewLift {
    NewLift {
        id: RecordId::new(),
        rules: vec!["hold-deploy".to_owned()],
        scope: Scope {
            agents: vec![agent("a"), agent("b")],
            groups: vec!["tier-1".to_owned()],
            upstreams: vec![],
        },
        by: by.to_owned(),
        evidence: "mtls 01".to_owned(),
        reason: "everything burns".to_owned(),
        time,
    }
}

pub async fn a_lift_stands_for_its_time_and_owes_a_review_of_somebody_else(store: Arc<dyn Store>) {
    let wish = lift("ana", LONG);
    let Lifted::Open(open) = store.open_lift(wish.clone()).await.unwrap() else { panic!("it opens") };
    assert_eq!((&open.rules, &open.scope, open.until), (&wish.rules, &wish.scope, open.at + LONG));
    assert_eq!(store.lifts().await.unwrap(), std::slice::from_ref(&*open));
    assert_eq!(store.open_lift(lift("ana", LONG)).await.unwrap(), Lifted::Owed(open.id), "one at a time");
    let review = |by: &str| store.review_lift(open.id, by.to_owned(), "looked at".to_owned());
    assert_eq!(review("olga").await.unwrap(), Reviewed::Open);
    let close = || store.close_lift(open.id, "olga".to_owned(), "it is out".to_owned());
    let closed = close().await.unwrap().unwrap();
    assert_eq!(closed.closed.as_ref().unwrap().by, "olga");
    assert_eq!(close().await.unwrap(), None, "once");
    assert_eq!(store.open_lift(lift("ana", LONG)).await.unwrap(), Lifted::Owed(open.id), "a review is owed");
    assert_eq!(review("ana").await.unwrap(), Reviewed::Own);
    assert!(matches!(review("olga").await.unwrap(), Reviewed::Now(lift) if lift.reviewed.is_some()));
    assert!(matches!(review("oda").await.unwrap(), Reviewed::Before(_)));
    assert_eq!(
        store.review_lift(RecordId::new(), "olga".to_owned(), String::new()).await.unwrap(),
        Reviewed::Unknown
    );
    assert!(matches!(store.open_lift(lift("ana", LONG)).await.unwrap(), Lifted::Open(_)), "and is paid");
    let kinds: Vec<String> = store.audit_rows().await.unwrap().into_iter().map(|row| row.kind).collect();
    assert_eq!(kinds, ["breakglass"; 4]);
    let told = ["breakglass.opened", "breakglass.closed", "breakglass.reviewed", "breakglass.opened"];
    assert_eq!(told_of_lifts(&*store).await, told);
    // Of one lift in order, and of another at the same time.
    let first = due(&*store, "chat").await;
    assert_eq!(first.iter().map(|one| &*one.kind).collect::<Vec<_>>(), ["breakglass.opened"; 2]);
    assert_eq!(first[0].topic, Topic::Lift(open.id));
    let data: serde_json::Value =
        serde_json::from_str(&format!("{{{}}}", String::from_utf8_lossy(&first[0].data))).unwrap();
    assert_eq!((&data["state"], &data["opened_by"]), (&"open".into(), &"ana".into()));
    assert_eq!(
        data["agents"],
        serde_json::json!(["spiffe://example.org/agent/a", "spiffe://example.org/agent/b"])
    );
    assert!(!data.to_string().contains("everything burns"), "{data}");
    store.delivered(first[0].id).await.unwrap();
    assert!(due(&*store, "chat").await.iter().any(|one| one.kind == "breakglass.closed"));
}

/// What a webhook that wants everything is to be told.
async fn told_of_lifts(store: &dyn Store) -> Vec<String> {
    store.address(vec![to("chat", &EVENTS)]).await.unwrap();
    store.notifications(None).await.unwrap().into_iter().map(|one| one.kind).collect()
}

pub async fn a_lift_ends_by_the_stores_clock_and_that_is_told_once(store: Arc<dyn Store>) {
    let Lifted::Open(open) = store.open_lift(lift("ana", Duration::ZERO)).await.unwrap() else {
        panic!("it opens")
    };
    assert_eq!(store.close_lift(open.id, "olga".to_owned(), "late".to_owned()).await.unwrap(), None);
    let ended = Ended { expired: vec![*open], unreviewed: Vec::new() };
    assert_eq!(store.end_lifts().await.unwrap(), ended);
    assert_eq!(store.end_lifts().await.unwrap(), Ended::default());
    assert_eq!(told_of_lifts(&*store).await, ["breakglass.opened", "breakglass.expired"]);
    for number in 0..LIFTS_OPEN_MAX {
        let opened = store.open_lift(lift(&format!("person-{number}"), LONG)).await.unwrap();
        assert!(matches!(opened, Lifted::Open(_)), "{opened:?}");
    }
    assert_eq!(store.open_lift(lift("one more", LONG)).await.unwrap(), Lifted::TooMany);
}

const FIVE: StandingTerms = StandingTerms { time: LONG, times: 5 };

/// A hold of a call that is approved, and stands for so many executions.
async fn standing(store: &dyn Store, digest: u8, times: u32) -> RecordId {
    let id = opened(store, new_hold("a", digest)).await;
    let terms = StandingTerms { times, ..FIVE };
    let voted = store.stand(id, vote("olga", Says::Approve, digest), terms).await.unwrap();
    let Voted::Counted(hold) = voted else { panic!("{voted:?}") };
    assert_eq!((hold.state, hold.executes.unwrap().number), (HoldState::Approved, 0));
    id
}

async fn runs(store: &dyn Store, id: RecordId, digest: u8) -> Option<u32> {
    let record = RecordId::new();
    let hold = store.release(id, [digest; 32], lease(record)).await.unwrap()?;
    store.settle(id, end(HoldState::Executed, record)).await.unwrap().unwrap();
    Some(hold.executes.unwrap().number)
}

pub async fn an_approval_stands_for_its_call_and_is_counted_at_each_release(store: Arc<dyn Store>) {
    let first = standing(&*store, 1, 2).await;
    let Opened::Joined(same) = store.open_hold(new_hold("a", 1)).await.unwrap() else { panic!("it is open") };
    assert_eq!(same.id, first, "what has not run is joined");
    assert_eq!(runs(&*store, first, 1).await, Some(1));
    assert!(
        matches!(store.open_hold(new_hold("a", 2)).await.unwrap(), Opened::New(hold) if hold.executes.is_none())
    );
    assert!(
        matches!(store.open_hold(new_hold("b", 1)).await.unwrap(), Opened::New(hold) if hold.executes.is_none())
    );
    let graver = NewHold { about: About { consequence: 4, ..new_hold("a", 1).about }, ..new_hold("a", 1) };
    assert!(matches!(store.open_hold(graver).await.unwrap(), Opened::Joined(_)), "it has become graver");
    let more = NewHold { terms: Terms { quorum: 2, approvers: vec![] }, ..new_hold("a", 1) };
    assert!(matches!(store.open_hold(more).await.unwrap(), Opened::Joined(_)), "policy asks for more");
    let second = opened(&*store, new_hold("a", 1)).await;
    let hold = store.hold(second).await.unwrap().unwrap();
    assert_eq!((hold.state, hold.votes.len()), (HoldState::Approved, 1));
    assert_eq!(runs(&*store, second, 1).await, Some(2));
    assert!(
        matches!(store.open_hold(new_hold("a", 1)).await.unwrap(), Opened::Joined(hold) if hold.id == second)
    );
    let one = store.standings().await.unwrap().remove(0);
    assert_eq!((one.used, one.times, one.state(SystemTime::now())), (2, 2, "used-up"));
}

pub async fn a_standing_approval_that_is_taken_back_approves_nothing_more(store: Arc<dyn Store>) {
    let first = standing(&*store, 1, 5).await;
    let id = store.standings().await.unwrap()[0].id;
    let revoke = || store.revoke_standing(id, "oda".to_owned(), "no more".to_owned());
    let (revoked, ended) = revoke().await.unwrap().unwrap();
    assert_eq!(
        (revoked.revoked.unwrap().by.as_str(), ended[0].id, ended[0].state),
        ("oda", first, HoldState::Expired)
    );
    assert!(revoke().await.unwrap().is_none(), "once");
    assert_eq!(runs(&*store, first, 1).await, None);
    assert_eq!(store.held_bytes(first).await.unwrap(), None);
    let anew = opened(&*store, new_hold("a", 1)).await;
    assert_eq!(state(&*store, anew).await, HoldState::Pending);
    // One whose time ends while a hold waits for its agent approves nothing either.
    let id = opened(&*store, new_hold("a", 2)).await;
    let short = StandingTerms { time: Duration::ZERO, times: 5 };
    store.stand(id, vote("olga", Says::Approve, 2), short).await.unwrap();
    assert_eq!((runs(&*store, id, 2).await, state(&*store, id).await), (None, HoldState::Expired));
    let too_much = StandingTerms { times: 101, ..FIVE };
    let id = opened(&*store, new_hold("a", 3)).await;
    assert!(store.stand(id, vote("olga", Says::Approve, 3), too_much).await.is_err());
    assert_eq!(state(&*store, id).await, HoldState::Pending, "and the vote is undone with it");
}

pub async fn what_nobody_knew_is_settled_by_a_person_once(store: Arc<dyn Store>) {
    let said = |found| Resolution { found, by: "olga".to_owned(), reason: "looked".to_owned() };
    for (digest, idempotent, found, expected) in [
        (1, false, Found::Executed, Some(HoldState::Executed)),
        (2, false, Found::Failed, Some(HoldState::Failed)),
        (3, false, Found::Again, None),
        (4, true, Found::Again, Some(HoldState::Approved)),
    ] {
        let mut new = new_hold("a", digest);
        new.about.idempotent = idempotent;
        let id = opened(&*store, new).await;
        assert!(matches!(store.resolve(id, said(found)).await.unwrap(), Resolved::Known(_)), "it waits");
        store.vote(id, vote("olga", Says::Approve, digest)).await.unwrap();
        let record = RecordId::new();
        store.release(id, [digest; 32], lease(record)).await.unwrap().unwrap();
        store.settle(id, end(HoldState::Indeterminate, record)).await.unwrap().unwrap();
        assert_eq!(store.held_bytes(id).await.unwrap().is_some(), idempotent);
        match (store.resolve(id, said(found)).await.unwrap(), expected) {
            (Resolved::Now(hold), Some(state)) => assert_eq!(hold.state, state),
            (Resolved::NotAgain(hold), None) => assert_eq!(hold.state, HoldState::Indeterminate),
            (other, _) => panic!("{other:?}"),
        }
        assert_eq!(store.held_bytes(id).await.unwrap().is_some(), idempotent);
    }
    assert_eq!(store.resolve(RecordId::new(), said(Found::Failed)).await.unwrap(), Resolved::Unknown);
}

pub async fn of_many_that_open_at_once_each_is_told_what_became_of_it(store: Arc<dyn Store>) {
    let twice = RecordId::new();
    let one = |at: u8| {
        let mut new =
            NewHold { pending_max: 200, ..new_hold(if at < 200 { "support" } else { "other" }, at % 100) };
        if at == 7 {
            new.bytes = vec![0; HELD_BYTES_MAX + 1];
        }
        // No two holds have one id: this is what a database that fails for one of them looks like.
        if [200, 201].contains(&at) {
            new.id = twice;
        }
        let store = Arc::clone(&store);
        tokio::spawn(async move { (new.id, store.open_hold(new).await) })
    };
    let opening: Vec<_> = (0..=249).map(one).collect();
    let (mut opened, mut joined, mut refused, mut failed) = (0, 0, 0, 0);
    for (at, opening) in opening.into_iter().enumerate() {
        match opening.await.unwrap() {
            (id, Ok(Opened::New(hold))) => {
                assert_eq!(Some(&hold), store.hold(id).await.unwrap().as_ref(), "it is told as it is kept");
                opened += 1;
            }
            (id, Ok(Opened::Joined(hold))) => {
                assert_ne!(hold.id, id);
                assert_eq!(hold.digest[0], (at % 100) as u8);
                joined += 1;
            }
            (_, Err(StoreError::TooLarge { .. })) => refused += 1,
            (id, Err(StoreError::Failed(_))) if id == twice => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    // A hundred different calls of one agent, each made twice but for the one that was too large once; fifty of another.
    assert_eq!((opened, joined, refused, failed), (149, 99, 1, 1));
    assert_eq!(store.pending().await.unwrap(), 149);
    let wanted = Wanted { agent: None, states: vec![HoldState::Pending] };
    let listed = store.holds(wanted).await.unwrap();
    assert!(listed.is_sorted_by_key(|hold| hold.opened), "the oldest first");
    assert_eq!(listed.len(), 149);
}
