//! A copy of the store that is put back: what the audit knows wins over it.

use std::collections::HashSet;
use std::path::PathBuf;

use holdpoint::call::{AgentId, RecordId};
use holdpoint::record::restore::since;
use holdpoint::store::holds::HoldState;
use holdpoint::store::sqlite::backup::{self, Became, Copied, Later, Restored};
use holdpoint::store::{Frozen, StoreError};
use serde_json::{Value, json};

use crate::harness::*;

struct Place {
    store: PathBuf,
    copy: PathBuf,
    audit: PathBuf,
}

impl Place {
    fn of(world: &World) -> Place {
        let dir = &world.dir;
        let (store, copy) = (dir.join("state/holdpoint.db"), dir.join("copy.db"));
        Place { store, copy, audit: dir.join("audit") }
    }

    async fn taken(&self) {
        backup::backup(&self.store, &self.copy).await.unwrap();
    }

    async fn put_back(&self) -> Result<Restored, StoreError> {
        let later = |copied: &Copied| {
            let holds: HashSet<RecordId> = copied.open.iter().map(|hold| hold.id).collect();
            Ok(since::later(&self.audit, &holds, copied.at.unwrap()).unwrap())
        };
        backup::restore(&self.store, &self.copy, later).await
    }
}

async fn approved(world: &World) -> Value {
    send(world).await;
    let hold = world.pending(1).await.remove(0);
    world.approved("olga", &hold).await;
    hold
}

async fn send(world: &World) -> Value {
    let answer = world.agent("support").tool("mail", "send_email", json!({"to": "bob@example.com"})).await;
    answer.unwrap().json()
}

#[tokio::test]
async fn what_was_executed_after_the_copy_was_taken_is_never_executed_again() {
    let mut world = World::start().await;
    let hold = approved(&world).await;
    let place = Place::of(&world);
    place.taken().await;
    assert_eq!((outcome(&send(&world).await).as_str(), world.ran()), ("allowed", 1));
    let refused = place.put_back().await.unwrap_err();
    assert!(matches!(refused, StoreError::Locked(_)), "a gateway serves from it: {refused}");
    world.down().await;
    let restored = place.put_back().await.unwrap();
    let id = RecordId::parse(hold["id"].as_str().unwrap()).unwrap();
    assert_eq!(restored.holds, [(id, HoldState::Executed)]);
    assert!(restored.aside.is_some_and(|aside| aside.exists()), "the store of before is kept");
    world.up().await;
    assert_eq!((outcome(&send(&world).await).as_str(), world.ran()), ("executed", 1));
    let story = world.story(&hold["id"]);
    let said: Vec<_> = world.records().iter().map(|record| record["what"].clone()).collect();
    assert_eq!(story.last().unwrap(), "held ended executed", "{story:#?}");
    assert!(said.contains(&json!("state-restored")), "the audit tells of it");
    world.join().await;
}

#[tokio::test]
async fn what_was_released_and_whose_end_nobody_saw_is_a_matter_for_people() {
    let mut world = World::start().await;
    let hold = approved(&world).await;
    let place = Place::of(&world);
    place.taken().await;
    world.down().await;
    let id = RecordId::parse(hold["id"].as_str().unwrap()).unwrap();
    let became = Became { state: Some(HoldState::Releasing), released: true, record: Some(RecordId::new()) };
    let later = Later { holds: [(id, became)].into(), ..Later::default() };
    let restored = backup::restore(&place.store, &place.copy, |_| Ok(later)).await.unwrap();
    assert_eq!(restored.holds, [(id, HoldState::Indeterminate)]);
    world.up().await;
    assert_eq!(send(&world).await["result"]["isError"], json!(true));
    assert_eq!(world.ran(), 0, "it is not run");
    assert_eq!(world.hold(hold["id"].as_str().unwrap()).await["hold"]["state"], "indeterminate");
    world.join().await;
}

#[tokio::test]
async fn what_still_waits_goes_on_waiting_and_whoever_was_suspended_stays_so() {
    let mut world = World::start().await;
    send(&world).await;
    let hold = world.pending(1).await.remove(0);
    let place = Place::of(&world);
    place.taken().await;
    let socket = format!("unix://{}", world.dir.join("admin.sock").display());
    let ordered = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdpoint"))
        .args(["agents", "suspend", "agent/other", "--reason", "it was odd", "--addr", &socket])
        .output()
        .await
        .unwrap();
    assert!(ordered.status.success(), "{ordered:?}");
    world.down().await;
    let restored = place.put_back().await.unwrap();
    assert_eq!((restored.holds, restored.suspended), (Vec::new(), 1));
    world.up().await;
    let other = world.agent("other").tool("mail", "search_customers", json!({})).await.unwrap();
    assert_eq!(other.status, 403, "{other:?}");
    world.approved("olga", &hold).await;
    assert_eq!((outcome(&send(&world).await).as_str(), world.ran()), ("allowed", 1));
    world.join().await;
}

#[tokio::test]
async fn what_is_no_copy_is_refused_and_nothing_is_changed() {
    let mut world = World::start().await;
    let hold = approved(&world).await;
    let place = Place::of(&world);
    place.taken().await;
    let again = backup::backup(&place.store, &place.copy).await.unwrap_err();
    assert!(matches!(again, StoreError::Io { .. }), "a copy is never written over: {again}");
    world.down().await;
    std::fs::write(&place.copy, "not a database at all, but a text").unwrap();
    let refused = place.put_back().await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    world.up().await;
    assert_eq!(world.hold(hold["id"].as_str().unwrap()).await["hold"]["state"], "approved");
    world.join().await;
}

#[tokio::test]
async fn what_was_let_go_for_a_while_is_over_and_what_was_frozen_or_taken_back_stays_so() {
    let mut world = World::start().await;
    send(&world).await;
    let hold = world.pending(1).await.remove(0);
    let path = format!("/v1/holds/{}/approve", hold["id"].as_str().unwrap());
    let say =
        json!({"digest": hold["digest"], "reason": "each night", "standing": {"for": "30m", "times": 5}});
    assert_eq!(world.person("olga").http("POST", &path, Some(say)).await.unwrap().status, 200);
    let endorsed = json!({"agent": "agent/support", "sink": "message", "destination": "bob@example.com",
        "confidentiality": "internal", "for": "30d", "reason": "our partner"});
    let endorsed = world.person("oda").http("POST", "/v1/endorsements", Some(endorsed)).await.unwrap();
    assert_eq!(endorsed.status, 200, "{endorsed:?}");
    let endorsement = endorsed.json()["id"].as_str().unwrap().to_owned();
    let place = Place::of(&world);
    place.taken().await;
    assert_eq!((outcome(&send(&world).await).as_str(), world.ran()), ("allowed", 1), "it stands");
    let path = format!("/v1/endorsements/{endorsement}");
    let taken_back = world.person("oda").http("DELETE", &path, Some(json!({"reason": "no more"}))).await;
    assert_eq!(taken_back.unwrap().status, 200);
    world.down().await;
    let frozen = Frozen {
        agent: AgentId::from_normalised("spiffe://example.org/agent/other"),
        run: String::new(),
        at: std::time::SystemTime::now(),
        why: "ten calls".to_owned(),
    };
    let restored = backup::restore(&place.store, &place.copy, |copied| {
        let open = copied.open.iter().map(|hold| hold.id).collect();
        let mut later = since::later(&place.audit, &open, copied.at.unwrap()).unwrap();
        later.frozen.push(frozen);
        Ok(later)
    });
    restored.await.unwrap();
    world.up().await;
    let listed = world.person("auditor").http("GET", "/v1/standing", None).await.unwrap().json();
    assert_eq!(listed["standing"][0]["state"], "revoked", "{listed}");
    let listed = world.person("auditor").http("GET", "/v1/endorsements", None).await.unwrap().json();
    assert_eq!(listed["endorsements"][0]["state"], "revoked", "{listed}");
    assert_eq!((outcome(&send(&world).await).as_str(), world.ran()), ("executed", 1), "and stands no more");
    let other = world.agent("other").tool("mail", "send_email", json!({"to": "x"})).await.unwrap();
    assert_eq!((other.decision().unwrap()["rule"].clone(), world.ran()), (json!("flow"), 1), "{other:?}");
    world.join().await;
}
