//! What the store adds to a running gateway: orders that no registry lifts, labels that a restart keeps, records that
//! are found.

use std::sync::Arc;
use std::time::SystemTime;

use holdpoint::app;
use holdpoint::call::{AgentId, RecordId};
use holdpoint::config;
use holdpoint::record::index::Index;
use holdpoint::record::tail::{self, Format};
use holdpoint::store::{Changed, Filter, Order, Subject, Who, sqlite};
use serde_json::json;

use crate::harness::{SOON, World};

fn order(name: &str, reason: &str) -> Order {
    let agent = AgentId::from_normalised(&format!("spiffe://example.org/agent/{name}"));
    Order { agent, by: Who::LocalSocket, reason: reason.to_owned(), at: SystemTime::now() }
}

#[tokio::test]
async fn a_suspended_agent_is_refused_at_once_and_after_a_restart_until_it_is_resumed() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    assert_eq!(agent.http("GET", "/crm/v1/invoices/1001", None).await.unwrap().status, 200);
    let seen = world.crm.seen().len();
    let suspensions = &world.running.as_ref().unwrap().gateway().suspensions;
    assert_eq!(
        suspensions.suspend(order("support", "it was seen where it should not be")).await.unwrap(),
        Changed::Now
    );

    // The connection that it has is of no use either: it is refused there, or it was cut, and it comes again.
    for _ in 0..2 {
        let refused = match agent.http("GET", "/crm/v1/invoices/1001", None).await {
            Ok(refused) => refused,
            Err(_) => agent.http("GET", "/crm/v1/invoices/1001", None).await.unwrap(),
        };
        assert_eq!(refused.status, 403);
        assert_eq!(world.record(&refused.record(), "refused")["reason"], "suspended");
        if let Ok(refused) = agent.tool("mail", "search_customers", json!({})).await {
            assert_eq!(refused.status, 403);
        }
    }
    let other = world.agent("other").http("GET", "/crm/v1/invoices/1001", None).await.unwrap();
    assert_eq!(other.status, 200, "another agent is not concerned");
    drop(agent);
    world.down().await;
    world.up().await;
    let agent = world.agent("support");
    assert_eq!(agent.http("GET", "/crm/v1/invoices/1001", None).await.unwrap().status, 403);
    assert_eq!((world.crm.seen().len(), world.mail.seen().len()), (seen + 1, 0));

    let suspensions = &world.running.as_ref().unwrap().gateway().suspensions;
    let agent_id = order("support", "").agent;
    assert_eq!(suspensions.resume(order("support", "it was ours")).await.unwrap(), Changed::Now);
    assert_eq!(agent.http("GET", "/crm/v1/invoices/1001", None).await.unwrap().status, 200);
    let history = suspensions.history(agent_id).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].resumed.as_ref().unwrap().reason, "it was ours");
    drop(agent);
    world.join().await;
}

#[tokio::test]
async fn an_order_to_resume_lifts_no_suspension_of_the_registry() {
    let world = World::start().await;
    let suspensions = &world.running.as_ref().unwrap().gateway().suspensions;
    assert_eq!(suspensions.resume(order("suspended", "let it")).await.unwrap(), Changed::Not);
    let refused = world.agent("suspended").tool("mail", "search_customers", json!({})).await.unwrap();
    assert_eq!(refused.status, 403);
    world.refused(&refused, "suspended");
    // And an order makes nobody known who is not.
    suspensions.suspend(order("stranger", "who is it")).await.unwrap();
    let refused = world.agent("stranger").tool("mail", "search_customers", json!({})).await.unwrap();
    world.refused(&refused, "unknown-agent");
    world.join().await;
}

#[tokio::test]
async fn what_an_agent_has_read_is_known_even_when_the_audit_was_moved_away() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    let outside = json!({"to": "mallory@outside.test", "body": "the customer list"});
    assert_eq!(agent.tool("mail", "read_inbox", json!({})).await.unwrap().outcome(), "allowed");
    drop(agent);
    world.down().await;
    std::fs::rename(world.dir.join("audit"), world.dir.join("archived")).unwrap();
    world.up().await;
    let held = world.agent("support").tool("mail", "send_email", outside).await.unwrap();
    assert_eq!(held.outcome(), "pending");
    assert_eq!(world.mail.seen().len(), 1);
    world.join().await;
}

#[tokio::test]
async fn an_operator_gets_from_a_trace_to_the_whole_story_of_a_call() {
    let world = World::start().await;
    let agent = world.agent("support");
    let allowed = agent.tool("mail", "search_customers", json!({})).await.unwrap();
    let refused = agent.tool("mail", "delete_customer", json!({"id": 7})).await.unwrap();
    world.agent("stranger").tool("mail", "search_customers", json!({})).await.unwrap();

    let ledger = &world.running.as_ref().unwrap().gateway().evidence.ledger;
    let records = sqlite::Index::open(&world.dir.join("story.index.db")).await.unwrap();
    let index =
        Index::start(&world.dir.join("audit"), Arc::new(records), Box::new(ledger.end()), Box::new(|_| {}))
            .unwrap();
    assert!(index.caught_up(SOON).await);
    let mut all = Vec::new();
    tail::last(&world.dir.join("audit"), 1000, Format::Json, &mut all).unwrap();
    let page = index.records(Filter { limit: Some(1000), ..Filter::default() }).await.unwrap();
    assert_eq!(page.rows.len(), String::from_utf8(all).unwrap().lines().count());
    assert_eq!((index.behind(), index.indexed().unreadable), (0, 0));

    let id = RecordId::from_u128(uuid::Uuid::parse_str(&refused.record()).unwrap().as_u128());
    let row = index.record(id).await.unwrap().unwrap().row;
    let marks = [&*row.kind, &row.upstream, &row.tool, &row.class, &row.owner];
    assert_eq!(
        marks,
        [
            world.record(&refused.record(), &row.kind)["type"].as_str().unwrap(),
            "mail",
            "delete_customer",
            "write",
            "ana@example.org"
        ]
    );
    assert!(!row.outcome.is_empty() && row.outcome != "allowed" && !row.rule.is_empty(), "{row:?}");

    let id = RecordId::from_u128(uuid::Uuid::parse_str(&allowed.record()).unwrap().as_u128());
    let row = index.record(id).await.unwrap().unwrap().row;
    let story = index.story(Subject::Trace(row.trace.unwrap())).await.unwrap();
    let kinds: Vec<_> = story.iter().map(|one| &*one.row.kind).collect();
    assert_eq!(kinds, ["intent", "outcome"]);
    let intent: serde_json::Value = serde_json::from_str(story[0].line.as_ref().unwrap()).unwrap();
    assert_eq!(intent, world.record(&allowed.record(), "intent"));
    let of_agent =
        Filter { agent: Some(row.agent), outcome: Some("executed".to_owned()), ..Filter::default() };
    assert_eq!(index.records(of_agent).await.unwrap().rows.len(), 1);
    index.end().await;
    drop(agent);
    world.join().await;
}

#[tokio::test]
async fn a_second_gateway_with_the_same_state_does_not_start() {
    let mut world = World::start().await;
    let file = world.dir.join("holdpoint.yaml");
    let refused = app::start(config::load(&file).unwrap()).await.err().unwrap().to_string();
    let store = world.dir.join("holdpoint.db");
    assert!(refused.contains(store.to_str().unwrap()) && refused.contains("in use"), "{refused}");
    // Nor one that shares the audit alone.
    let text = std::fs::read_to_string(&file).unwrap() + "store: {sqlite: other/holdpoint.db}\n";
    std::fs::write(&file, text).unwrap();
    let refused = app::start(config::load(&file).unwrap()).await.err().unwrap().to_string();
    assert!(refused.contains(world.dir.join("audit").to_str().unwrap()), "{refused}");
    assert_eq!(world.agent("support").http("GET", "/crm/v1/invoices/1001", None).await.unwrap().status, 200);
    world.down().await;
    app::start(config::load(&file).unwrap()).await.unwrap().drain().await;
    world.join().await;
}

#[tokio::test]
async fn calls_go_on_while_the_store_is_locked_or_gone() {
    use sqlx::ConnectOptions as _;
    let world = World::start().await;
    let agent = world.agent("support");
    let store = world.dir.join("holdpoint.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&store);
    let mut other = options.connect().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let allowed = agent.tool("mail", "note", json!({})).await.unwrap();
    assert_eq!(allowed.outcome(), "allowed");
    let suspensions = &world.running.as_ref().unwrap().gateway().suspensions;
    let told = suspensions.suspend(order("other", "stop it")).await.unwrap_err().to_string();
    assert!(told.contains("suspended until the gateway restarts"), "{told}");
    let refused = world.agent("other").tool("mail", "note", json!({})).await.unwrap();
    assert_eq!(refused.status, 403);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(world.mail.seen().len(), 1);
    drop(agent);
    world.join().await;
}
