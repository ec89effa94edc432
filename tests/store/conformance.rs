//! What every database must do, told in stories against the traits alone.

use std::sync::Arc;

use holdpoint::store::sqlite::{Index, Sqlite};
use holdpoint::store::{
    Changed, DEFINITION_BYTES_MAX, Definition, Filter, Labelled, Page, Records, SIGHTS_BYTES_MAX, Seen,
    Shadowed, Sighted, Snapshot, StoreError, Subject,
};

use super::*;
use crate::holds::*;

/// Runs each story on every database.
macro_rules! on_every_database {
    (stores: [$($store:ident),* $(,)?], indexes: [$($index:ident),* $(,)?]) => {
        mod on_sqlite {
            use super::*;

            $(#[tokio::test]
            async fn $store() {
                let dir = Dir::new();
                let store: Arc<dyn Store> = Arc::new(Sqlite::open(&dir.file("state.db")).await.unwrap());
                super::$store(Arc::clone(&store)).await;
                store.close().await.unwrap();
            })*

            $(#[tokio::test]
            async fn $index() {
                let dir = Dir::new();
                super::$index(&Index::open(&dir.file("index.db")).await.unwrap()).await;
            })*
        }
    };
}

on_every_database! {
    stores: [
        a_suspension_stands_until_it_is_lifted_and_the_history_keeps_both,
        of_many_who_suspend_at_once_one_is_the_first,
        the_history_of_one_agent_is_bounded,
        what_is_too_long_is_refused_and_nothing_is_kept,
        a_definition_is_new_once_and_accepted_once,
        definitions_are_noted_all_or_none_and_one_upstream_cannot_fill_the_disk,
        a_snapshot_of_labels_replaces_the_one_before,
        the_same_call_joins_its_hold_and_another_opens_one,
        approved_once_released_once_and_told_afterwards,
        one_denial_ends_a_hold_and_nobody_votes_twice,
        a_vote_for_another_call_does_not_count,
        what_runs_out_of_time_expires_and_is_never_released,
        a_hold_is_escalated_once_before_it_expires,
        an_agent_takes_back_its_own_call_and_no_other,
        one_agent_cannot_hold_more_than_its_part,
        the_same_idempotency_key_with_another_call_is_refused,
        a_lapsed_execution_is_found_and_settled_once,
        every_change_has_a_row_for_the_audit_and_an_event,
        a_hold_is_told_in_order_and_only_a_confirmation_takes_it_off,
        what_waits_for_a_webhook_that_is_gone_is_dead_and_not_lost,
        people_are_told_once_that_a_quarter_of_the_time_is_left,
        the_bytes_of_a_held_call_are_erased_at_its_end,
        what_waits_is_counted_by_what_policy_can_tell_apart,
        endorsements_are_kept_and_taken_back_once,
        a_lift_stands_for_its_time_and_owes_a_review_of_somebody_else,
        a_lift_ends_by_the_stores_clock_and_that_is_told_once,
        an_approval_stands_for_its_call_and_is_counted_at_each_release,
        a_standing_approval_that_is_taken_back_approves_nothing_more,
        what_nobody_knew_is_settled_by_a_person_once,
        of_many_that_open_at_once_each_is_told_what_became_of_it,
    ],
    indexes: [
        records_are_found_by_each_of_their_marks_the_newest_first,
        pages_follow_each_other_without_gap_or_repetition,
        a_story_has_everything_of_a_call_or_a_trace,
        an_index_can_be_emptied_and_filled_again,
    ]
}

// === suspensions ===

async fn a_suspension_stands_until_it_is_lifted_and_the_history_keeps_both(store: Arc<dyn Store>) {
    assert_eq!(in_force(&*store).await, [""; 0]);
    let first = order("mailer", ana(), "it mails too much", 1);
    assert_eq!(store.suspend(first.clone()).await.unwrap(), Changed::Now);
    let second = order("mailer", Who::LocalSocket, "me too", 2);
    assert_eq!(store.suspend(second).await.unwrap(), Changed::Not);
    assert_eq!(store.suspend(order("crawler", ana(), "", 3)).await.unwrap(), Changed::Now);
    assert_eq!(in_force(&*store).await, ["crawler", "mailer"]);
    let all = store.suspensions().await.unwrap();
    assert_eq!((&all[1].suspended, &all[1].resumed), (&first, &None), "the first order stands");

    let lift = order("mailer", Who::LocalSocket, "it was a test", 4);
    assert_eq!(store.resume(lift.clone()).await.unwrap(), Changed::Now);
    assert_eq!(store.resume(lift.clone()).await.unwrap(), Changed::Not);
    assert_eq!(store.resume(order("nobody", ana(), "", 5)).await.unwrap(), Changed::Not);
    assert_eq!(in_force(&*store).await, ["crawler"]);
    let again = order("mailer", ana(), "it was none", 6);
    assert_eq!(store.suspend(again.clone()).await.unwrap(), Changed::Now);
    let history = store.history(agent("mailer")).await.unwrap();
    let told: Vec<_> = history.iter().map(|one| (&one.suspended, one.resumed.as_ref())).collect();
    assert_eq!(told, [(&again, None), (&first, Some(&lift))]);
}

async fn of_many_who_suspend_at_once_one_is_the_first(store: Arc<dyn Store>) {
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let store = Arc::clone(&store);
            let person = Who::Person(format!("person-{number}"));
            tokio::spawn(async move { store.suspend(order("mailer", person, "", number)).await.unwrap() })
        })
        .collect();
    let mut now = 0;
    for task in tasks {
        now += usize::from(task.await.unwrap() == Changed::Now);
    }
    assert_eq!((now, in_force(&*store).await.len()), (1, 1));
}

async fn the_history_of_one_agent_is_bounded(store: Arc<dyn Store>) {
    store.suspend(order("other", ana(), "", 0)).await.unwrap();
    store.resume(order("other", ana(), "", 0)).await.unwrap();
    for number in 0..1010 {
        store.suspend(order("mailer", ana(), "", number)).await.unwrap();
        store.resume(order("mailer", ana(), "", number)).await.unwrap();
    }
    let history = store.history(agent("mailer")).await.unwrap();
    assert_eq!((history.len(), history[0].suspended.at), (1000, second(1009)));
    assert_eq!(store.history(agent("other")).await.unwrap().len(), 1, "others keep theirs");
}

async fn what_is_too_long_is_refused_and_nothing_is_kept(store: Arc<dyn Store>) {
    let refused = store.suspend(order("mailer", ana(), &"x".repeat(REASON_BYTES_MAX + 1), 1)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(in_force(&*store).await, [""; 0]);
    let long = "x".repeat(REASON_BYTES_MAX);
    store.suspend(order("mailer", ana(), &long, 1)).await.unwrap();
    let refused = store.resume(order("mailer", ana(), &format!("{long}x"), 2)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(in_force(&*store).await, ["mailer"]);
}

// === first sights ===

fn definition(tool: &str, json: &str) -> Definition {
    Definition { tool: tool.to_owned(), digest: format!("sha256:{json}"), json: json.to_owned() }
}

fn sighted(upstream: &str, tool: &str, json: &str) -> Sighted {
    Sighted { upstream: upstream.to_owned(), tool: tool.to_owned(), digest: format!("sha256:{json}") }
}

async fn a_definition_is_new_once_and_accepted_once(store: Arc<dyn Store>) {
    let sight = async |upstream: &str, shown: &[Definition], at| {
        store.sight(upstream.to_owned(), shown.to_vec(), second(at)).await.unwrap()
    };
    let (send, read) = (definition("send", "{\"a\":1}"), definition("read", "{\"b\":1}"));
    assert_eq!(sight("mail", &[send.clone(), read.clone()], 1).await, [Seen::First, Seen::First]);
    assert_eq!(sight("mail", &[read.clone(), send.clone()], 5).await, [Seen::Again, Seen::Again]);
    assert_eq!(sight("mail", &[definition("send", "{\"a\":2}")], 6).await, [Seen::First], "it changed");
    assert_eq!(sight("mail", std::slice::from_ref(&send), 3).await, [Seen::Again], "the clock went back");
    assert_eq!(sight("other", &[send.clone(), send], 7).await, [Seen::First, Seen::Again]);

    let seen = store.sights("mail".to_owned()).await.unwrap();
    let told: Vec<_> = seen.iter().map(|one| (&*one.sighted.tool, one.first, one.last)).collect();
    let expected =
        [("read", second(1), second(5)), ("send", second(1), second(5)), ("send", second(6), second(6))];
    assert_eq!(told, expected);
    let json = store.definition(sighted("mail", "send", "{\"a\":2}")).await.unwrap();
    assert_eq!(json.as_deref(), Some("{\"a\":2}"));
    assert_eq!(store.definition(sighted("mail", "read", "{\"a\":2}")).await.unwrap(), None);

    let accept = async |which| store.accept(which, ana(), second(9)).await.unwrap();
    assert_eq!(accept(sighted("mail", "send", "{\"a\":2}")).await, Changed::Now);
    assert_eq!(accept(sighted("mail", "send", "{\"a\":2}")).await, Changed::Not);
    assert_eq!(accept(sighted("mail", "send", "{\"a\":3}")).await, Changed::Not);
    let seen = store.sights("mail".to_owned()).await.unwrap();
    let accepted: Vec<_> = seen.into_iter().map(|one| one.accepted).collect();
    assert_eq!(accepted, [None, None, Some((ana(), second(9)))]);

    // Held to what was accepted last, else to what was seen first, each tool once.
    sight("mail", &[definition("read", "{\"b\":2}"), definition("send", "{\"a\":4}")], 10).await;
    let held = async || {
        let held = store.held("mail".to_owned()).await.unwrap();
        held.into_iter().map(|one| one.sighted).collect::<Vec<_>>()
    };
    let read = sighted("mail", "read", "{\"b\":1}");
    assert_eq!(held().await, [read.clone(), sighted("mail", "send", "{\"a\":2}")]);
    let later = sighted("mail", "send", "{\"a\":4}");
    assert_eq!(store.accept(later.clone(), ana(), second(11)).await.unwrap(), Changed::Now);
    assert_eq!(held().await, [read, later]);
}

async fn definitions_are_noted_all_or_none_and_one_upstream_cannot_fill_the_disk(store: Arc<dyn Store>) {
    let sight = async |upstream: &str, shown: Vec<Definition>| {
        store.sight(upstream.to_owned(), shown, second(1)).await
    };
    let long = definition("long", &"x".repeat(DEFINITION_BYTES_MAX + 1));
    let refused = sight("mail", vec![definition("a", "{}"), long]).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.sights("mail".to_owned()).await.unwrap(), []);

    let large = |number: usize| Definition {
        tool: format!("tool-{number}"),
        digest: "d".to_owned(),
        json: "x".repeat(DEFINITION_BYTES_MAX),
    };
    let room = SIGHTS_BYTES_MAX / DEFINITION_BYTES_MAX;
    for number in 0..room - 1 {
        sight("mail", vec![large(number)]).await.unwrap();
    }
    let refused = sight("mail", vec![large(room), large(room + 1)]).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(store.sights("mail".to_owned()).await.unwrap().len(), room - 1, "all or none");
    assert_eq!(sight("mail", vec![large(0)]).await.unwrap(), [Seen::Again], "what is known is still seen");
    assert_eq!(sight("other", vec![large(0)]).await.unwrap(), [Seen::First], "others have room of their own");
}

// === labels ===

fn labelled(name: &str, label: &str, at: u64) -> Labelled {
    Labelled { agent: agent(name), run: String::new(), label: label.to_owned(), at: second(at) }
}

async fn a_snapshot_of_labels_replaces_the_one_before(store: Arc<dyn Store>) {
    assert_eq!(store.labels().await.unwrap(), None);
    let mut labels: Vec<_> =
        (0..1200).map(|number| labelled(&format!("a{number}"), "secret", number)).collect();
    labels.sort_by(|a, b| a.agent.as_str().cmp(b.agent.as_str()));
    let place = Place { segment: 1, bytes: 99, seq: 7, leaf: [3; 32] };
    store.keep_labels(Snapshot { place, labels: labels.clone() }).await.unwrap();
    let mut kept = store.labels().await.unwrap().unwrap();
    kept.labels.sort_by(|a, b| a.agent.as_str().cmp(b.agent.as_str()));
    assert_eq!(kept, Snapshot { place, labels });

    let place = Place { segment: 8, bytes: 0, seq: 8, leaf: [4; 32] };
    let twice = vec![labelled("x", "secret", 5), labelled("x", "secret", 9), labelled("x", "secret", 7)];
    store.keep_labels(Snapshot { place, labels: twice }).await.unwrap();
    let kept = store.labels().await.unwrap().unwrap();
    assert_eq!(kept, Snapshot { place, labels: vec![labelled("x", "secret", 9)] }, "the latest counts");
}

// === the index ===

fn seqs(page: &Page) -> Vec<u64> {
    page.rows.iter().map(|row| row.seq).collect()
}

async fn records_are_found_by_each_of_their_marks_the_newest_first(index: &dyn Records) {
    index.add((1..=60).map(row).collect(), after(60)).await.unwrap();
    let found = async |filter: Filter| seqs(&index.page(filter).await.unwrap());
    let like = |wanted: &dyn Fn(&Row) -> bool| {
        (1..=60).rev().map(row).filter(|row| wanted(row)).map(|row| row.seq).collect::<Vec<_>>()
    };
    let all = Filter::default;
    assert_eq!(found(all()).await, (1..=60).rev().collect::<Vec<_>>());
    let even = agent("even").as_str().to_owned();
    assert_eq!(found(Filter { agent: Some(even.clone()), ..all() }).await, like(&|row| row.agent == even));
    let tool = Some("tool-2".to_owned());
    assert_eq!(found(Filter { tool: tool.clone(), ..all() }).await, like(&|row| row.tool == "tool-2"));
    let denied = Some("denied".to_owned());
    let both = Filter { tool, outcome: denied.clone(), agent: Some(even.clone()), ..all() };
    let all_three = |row: &Row| row.tool == "tool-2" && row.outcome == "denied" && row.agent == even;
    assert_eq!(found(both).await, like(&all_three));
    let would_be = |shadowed| Filter { would_be: Some(shadowed), ..all() };
    assert_eq!(found(would_be(Shadowed::Any)).await, like(&|row| row.would_be == "held"));
    assert_eq!(
        found(would_be(Shadowed::As("held".to_owned()))).await,
        like(&|row| row.seq.is_multiple_of(7))
    );
    assert_eq!(found(would_be(Shadowed::As("denied".to_owned()))).await, [0; 0]);
    let trace = Some([3; 16]);
    assert_eq!(found(Filter { trace, ..all() }).await, like(&|row| row.trace == trace));
    let (from, to) = (Some(second(10)), Some(second(20)));
    assert_eq!(found(Filter { from, to, ..all() }).await, (10..20).rev().collect::<Vec<_>>());
    assert_eq!(found(Filter { upstream: Some("crm".to_owned()), ..all() }).await, [0; 0]);
    let hostile = Some("x' OR 1=1 --".to_owned());
    assert_eq!(found(Filter { tool: hostile, ..all() }).await, [0; 0]);
    assert_eq!(index.record(RecordId::from_u128(1007)).await.unwrap(), Some(row(7)));
    assert_eq!(index.record(RecordId::from_u128(7)).await.unwrap(), None);
}

async fn pages_follow_each_other_without_gap_or_repetition(index: &dyn Records) {
    index.add((1..=250).map(row).collect(), after(250)).await.unwrap();
    let (mut told, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = index.page(Filter { cursor, limit: Some(50), ..Filter::default() }).await.unwrap();
        told.extend(seqs(&page));
        pages += 1;
        // What is written meanwhile does not move the pages.
        index.add(vec![row(250 + pages)], after(250 + pages)).await.unwrap();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((pages, told), (5, (1..=250).rev().collect::<Vec<_>>()));
    let greedy = index.page(Filter { limit: Some(usize::MAX), ..Filter::default() }).await.unwrap();
    assert_eq!(greedy.rows.len(), 255);
    let none = index.page(Filter { limit: Some(0), ..Filter::default() }).await.unwrap();
    assert_eq!(none.rows.len(), 1, "a page has at least one record, so that paging ends");
}

async fn a_story_has_everything_of_a_call_or_a_trace(index: &dyn Records) {
    let held = Row { kind: "held".to_owned(), ..row(1) };
    let vote = Row { hold: held.id.to_string(), kind: "vote".to_owned(), ..row(2) };
    let intent = row(3);
    let outcome = Row { call: intent.id, kind: "outcome".to_owned(), trace: intent.trace, ..row(5) };
    let rows = [held.clone(), vote.clone(), intent.clone(), row(4), outcome.clone(), row(7)];
    index.add(rows.to_vec(), after(7)).await.unwrap();
    let story = async |subject| {
        let rows = index.related(subject).await.unwrap();
        rows.iter().map(|row| row.seq).collect::<Vec<_>>()
    };
    assert_eq!(story(Subject::Call(intent.id)).await, [3, 5]);
    assert_eq!(story(Subject::Call(outcome.id)).await, [3, 5], "an outcome leads to its intent");
    assert_eq!(story(Subject::Call(held.id)).await, [1, 2]);
    assert_eq!(story(Subject::Trace([3; 16])).await, [3, 5, 7]);
    assert_eq!(story(Subject::Call(RecordId::from_u128(1))).await, [0; 0]);
}

async fn an_index_can_be_emptied_and_filled_again(index: &dyn Records) {
    assert_eq!(index.place().await.unwrap(), None);
    index.add((1..=1000).map(row).collect(), after(1000)).await.unwrap();
    index.add((990..=1010).map(row).collect(), after(1010)).await.unwrap();
    assert_eq!(index.place().await.unwrap(), Some(after(1010)));
    let all = Filter { limit: Some(1000), ..Filter::default() };
    assert_eq!(seqs(&index.page(all.clone()).await.unwrap()), (11..=1010).rev().collect::<Vec<_>>());
    while index.forget(1000).await.unwrap() > 0 {}
    assert_eq!(seqs(&index.page(all.clone()).await.unwrap()), (1000..=1010).rev().collect::<Vec<_>>());
    index.clear().await.unwrap();
    assert_eq!((index.place().await.unwrap(), index.page(all).await.unwrap()), (None, Page::default()));
}
