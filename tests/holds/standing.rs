//! Approvals that stand for more than one execution of exactly one call, and what people find out of calls of which
//! nobody knew.

use std::sync::Arc;

use holdpoint::call::RecordId;
use holdpoint::demo::agent::{Agent, Answer};
use holdpoint::store::Store as _;
use holdpoint::store::holds::{Claim, End, HoldState, Holds as _};
use holdpoint::store::sqlite::Sqlite;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::*;

async fn mail(agent: &Agent, to: &str) -> String {
    outcome(&agent.tool("mail", "send_email", json!({"to": to})).await.unwrap().json())
}

/// The hold of a call of the agent `support` that waits.
async fn held(world: &World, tool: &str, arguments: Value) -> Value {
    let before = world.holds("oda", "pending").await.len();
    world.agent("support").tool("mail", tool, arguments).await.unwrap();
    world.pending(before + 1).await.pop().unwrap()
}

async fn stands(world: &World, person: &str, hold: &Value, terms: Value) -> Answer {
    let path = format!("/v1/holds/{}/approve", hold["id"].as_str().unwrap());
    let body = json!({"digest": hold["digest"], "reason": "each night the same", "standing": terms});
    world.person(person).http("POST", &path, Some(body)).await.unwrap()
}

async fn standings(world: &World) -> Vec<Value> {
    let answer = world.person("auditor").http("GET", "/v1/standing", None).await.unwrap();
    answer.json()["standing"].as_array().unwrap().clone()
}

async fn takes_back(world: &World, person: &str, id: &Value) -> Answer {
    let path = format!("/v1/standing/{}", id.as_str().unwrap());
    world.person(person).http("DELETE", &path, Some(json!({"reason": "no more"}))).await.unwrap()
}

#[tokio::test]
async fn an_approval_that_stands_runs_this_very_call_as_often_as_people_said_and_no_other() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    let hold = held(&world, "send_email", json!({"to": "a"})).await;
    let answer = stands(&world, "olga", &hold, json!({"for": "30m", "times": 3})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.json()["standing"].clone();
    assert!(id.is_string(), "{answer:?}");
    for number in 1..=2 {
        assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("allowed", number));
    }
    // Another call, and the same call of another agent, stand on nothing.
    assert_eq!(mail(&agent, "b").await, "pending");
    assert_eq!(mail(&world.agent("other"), "a").await, "pending");
    assert_eq!(standings(&world).await[0]["used"], 2);
    world.restart().await;
    let agent = world.agent("support");
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("allowed", 3), "a restart forgets nothing");
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("executed", 3), "and three is three");
    assert_eq!(
        (&standings(&world).await[0]["state"], &standings(&world).await[0]["used"]),
        (&json!("used-up"), &json!(3))
    );

    let of = |kind: &str, what: &str| -> Vec<Value> {
        let is =
            |record: &Value| record["type"] == *kind && record["what"] == *what && record["standing"] == id;
        world.records().into_iter().filter(is).collect()
    };
    let made = &of("vote", "standing")[0];
    assert_eq!((&made["times"], &made["digest"]), (&json!(3), &hold["digest"]));
    let uses = of("released", "released");
    let numbers: Vec<&Value> = uses.iter().map(|used| &used["use"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(
        uses.iter().all(|used| used["approved_by"] == json!(["spiffe://people.example.org/olga"])),
        "{uses:#?}"
    );
    let keys: std::collections::BTreeSet<String> = world
        .mail
        .seen()
        .iter()
        .map(|seen| seen.headers["idempotency-key"].to_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 3, "each is a call of its own for the upstream");
    world.join().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_the_same_time_never_exceed_what_people_said() {
    let world = World::start().await;
    let hold = held(&world, "send_email", json!({"to": "a"})).await;
    assert_eq!(stands(&world, "olga", &hold, json!({"for": "30m", "times": 4})).await.status, 200);
    let agents: Vec<_> = (0..8).map(|_| Arc::new(world.agent("support"))).collect();
    let waves = (0..5).flat_map(|_| &agents).map(|agent| calls(agent, "send_email", json!({"to": "a"})));
    let mut outcomes = Vec::new();
    for wave in waves.collect::<Vec<_>>() {
        outcomes.push(outcome(&wave.await.unwrap()));
    }
    let allowed = outcomes.iter().filter(|outcome| *outcome == "allowed").count();
    assert_eq!(allowed, world.ran(), "{outcomes:?}");
    assert!((1..=4).contains(&world.ran()), "{} ran", world.ran());
    // What is left is used up one by one, and then it is over.
    for _ in 0..8 {
        mail(&agents[0], "a").await;
    }
    assert_eq!((world.ran(), &standings(&world).await[0]["used"]), (4, &json!(4)));
    world.join().await;
}

#[tokio::test]
async fn what_is_taken_back_ends_what_has_not_run() {
    let world = World::start().await;
    let agent = world.agent("support");
    let hold = held(&world, "send_email", json!({"to": "a"})).await;
    let id =
        stands(&world, "olga", &hold, json!({"for": "30m", "times": 5})).await.json()["standing"].clone();
    assert_eq!(takes_back(&world, "pia", &id).await.status, StatusCode::FORBIDDEN, "not the other team's");
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("allowed", 1));
    assert_eq!(takes_back(&world, "oda", &id).await.status, 200);
    assert_eq!(takes_back(&world, "oda", &id).await.status, StatusCode::CONFLICT);
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("executed", 1), "what ran is told");
    assert_eq!(standings(&world).await[0]["state"], "revoked");

    // Approved and not run yet: the approval goes with what it stood on, and the call is held anew.
    let hold = held(&world, "send_email", json!({"to": "b"})).await;
    let id =
        stands(&world, "olga", &hold, json!({"for": "30m", "times": 5})).await.json()["standing"].clone();
    assert_eq!(takes_back(&world, "olga", &id).await.status, 200);
    assert_eq!(world.hold(hold["id"].as_str().unwrap()).await["hold"]["state"], "expired");
    assert_eq!((mail(&agent, "b").await.as_str(), world.ran()), ("pending", 1));
    assert_ne!(world.pending(1).await[0]["id"], hold["id"]);
    let revoked = world.records().into_iter().rfind(|record| record["what"] == "standing-revoked").unwrap();
    assert_eq!(
        (&revoked["standing"], &revoked["by"]["id"]),
        (&id, &json!("spiffe://people.example.org/olga"))
    );
    world.join().await;
}

#[tokio::test]
async fn todays_policy_wins_over_an_approval_that_stands() {
    let world = World::start().await;
    let agent = world.agent("support");
    let hold = held(&world, "send_email", json!({"to": "a"})).await;
    assert_eq!(stands(&world, "olga", &hold, json!({"for": "30m", "times": 5})).await.status, 200);
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("allowed", 1));
    let forbid = "@id(\"no-mail\") @public(\"no-mail\") forbid (principal, action in Holdpoint::Action::\"invoke\", resource) when { context.class == \"external\" };";
    std::fs::write(world.dir.join("policies/no-mail.cedar"), forbid).unwrap();
    world.reload().await;
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("denied", 1));
    // Policy that asks for more people than gave their approval has them asked.
    let two = "@id(\"two\") @public(\"two\") @hold(\"approval\") @quorum(\"2\") forbid (principal, action in Holdpoint::Action::\"invoke\", resource) when { context.class == \"external\" } unless { context has approval && context.approval.digest_ok && context.approval.count >= 2 };";
    std::fs::write(world.dir.join("policies/no-mail.cedar"), two).unwrap();
    world.reload().await;
    let told = agent.tool("mail", "send_email", json!({"to": "a"})).await.unwrap().json();
    assert_eq!((outcome(&told).as_str(), world.ran()), ("executed", 1), "{told:#}");
    std::fs::remove_file(world.dir.join("policies/no-mail.cedar")).unwrap();
    world.reload().await;
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("allowed", 2), "it stands again");
    world.join().await;
}

#[tokio::test]
async fn only_so_much_stands_and_only_by_who_completes_the_approval() {
    let world = World::start().await;
    let hold = held(&world, "send_email", json!({"to": "a"})).await;
    for (terms, why) in [
        (json!({"for": "25h", "times": 2}), "at most 24h"),
        (json!({"for": "0s", "times": 2}), "at most 24h"),
        (json!({"for": "1h", "times": 0}), "1 to 100"),
        (json!({"for": "1h", "times": 101}), "1 to 100"),
        (json!({"for": "1h"}), "times"),
    ] {
        let answer = stands(&world, "olga", &hold, terms).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{why}: {answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(why), "{answer:?}");
    }
    let grave = held(&world, "delete_customer", json!({"id": 1})).await;
    assert_eq!(stands(&world, "olga", &grave, json!({"for": "1h", "times": 2})).await.status, 400);
    assert_eq!(stands(&world, "auditor", &hold, json!({"for": "1h", "times": 2})).await.status, 403);
    assert_eq!(world.pending(2).await[0]["votes"], json!([]), "nothing was voted by that");
    assert!(standings(&world).await.is_empty());
    assert_eq!(world.ran(), 0);
    world.join().await;
}

#[tokio::test]
async fn a_call_with_an_idempotency_key_is_one_call_however_long_an_approval_stands() {
    let world = World::start().await;
    let agent = world.agent("support");
    let call = async || {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "send_email", "arguments": {"to": "a"}}});
        let headers = [("mcp-protocol-version", "2025-11-25"), ("idempotency-key", "\"k1\"")];
        outcome(&message(&agent.message("mail", body.to_string(), &headers).await.unwrap()))
    };
    assert_eq!(call().await, "pending");
    let hold = world.pending(1).await.remove(0);
    assert_eq!(stands(&world, "olga", &hold, json!({"for": "1h", "times": 5})).await.status, 200);
    assert_eq!((call().await.as_str(), world.ran()), ("allowed", 1));
    assert_eq!((call().await.as_str(), world.ran()), ("executed", 1), "a repeat is no second call");
    world.join().await;
}

/// As if the upstream had broken off within its reply: it may have run, and nobody knows.
async fn nobody_knows(world: &mut World, hold: &Value) {
    world.down().await;
    let store = Sqlite::open(&world.dir.join("state/holdpoint.db")).await.unwrap();
    let (id, record) = (RecordId::parse(hold["id"].as_str().unwrap()).unwrap(), RecordId::new());
    let digest = store.hold(id).await.unwrap().unwrap().digest;
    let claim = Claim { by: "it".to_owned(), time: std::time::Duration::from_secs(60), record };
    assert!(store.release(id, digest, claim).await.unwrap().is_some());
    let end = End { state: HoldState::Indeterminate, record, detail: "it broke off".to_owned() };
    assert!(store.settle(id, end).await.unwrap().is_some());
    store.close().await.unwrap();
    world.up().await;
}

async fn resolves(world: &World, person: &str, hold: &Value, found: &str) -> Answer {
    let path = format!("/v1/holds/{}/resolve", hold["id"].as_str().unwrap());
    let body = json!({"found": found, "reason": "the outbox of the upstream says so"});
    world.person(person).http("POST", &path, Some(body)).await.unwrap()
}

#[tokio::test]
async fn a_person_finds_out_what_came_of_a_call_and_its_agent_is_told() {
    let mut world = World::start().await;
    let hold = held(&world, "send_email", json!({"to": "a"})).await;
    assert_eq!(
        resolves(&world, "olga", &hold, "failed").await.status,
        StatusCode::CONFLICT,
        "it is only pending"
    );
    assert_eq!(stands(&world, "olga", &hold, json!({"for": "1h", "times": 5})).await.status, 200);
    nobody_knows(&mut world, &hold).await;
    // Nothing of this call runs while nobody knows, whatever stands.
    let told = world.agent("support").tool("mail", "send_email", json!({"to": "a"})).await.unwrap().json();
    assert!(told["result"]["content"][0]["text"].as_str().unwrap().contains("not known"), "{told:#}");
    for person in ["auditor", "pia"] {
        let refused = resolves(&world, person, &hold, "executed").await.status;
        assert!([StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&refused), "{person}");
    }
    assert_eq!(resolves(&world, "olga", &hold, "perhaps").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        resolves(&world, "olga", &hold, "again").await.status,
        StatusCode::CONFLICT,
        "twice may be two"
    );
    assert_eq!(resolves(&world, "olga", &hold, "executed").await.status, 200);
    assert_eq!(
        resolves(&world, "oda", &hold, "failed").await.status,
        StatusCode::CONFLICT,
        "it is known now"
    );
    let status = format!("/.well-known/holdpoint/holds/{}", hold["id"].as_str().unwrap());
    let told = world.agent("support").http("GET", &status, None).await.unwrap().json();
    assert_eq!((&told["state"], world.ran()), (&json!("executed"), 0), "and nothing ran by that");
    let record = world.records().into_iter().find(|record| record["what"] == "resolved").unwrap();
    assert_eq!((&record["found"], &record["state"]), (&json!("executed"), &json!("executed")));
    assert_eq!(record["reason"], "the outbox of the upstream says so");
    world.join().await;
}

#[tokio::test]
async fn what_may_be_done_twice_is_released_again_by_a_person_and_runs_once_more() {
    let mut world = World::start().await;
    let hold = held(&world, "read_again", json!({"to": "a"})).await;
    world.approved("olga", &hold).await;
    nobody_knows(&mut world, &hold).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.args([
        "holds",
        "resolve",
        hold["id"].as_str().unwrap(),
        "--again",
        "--reason",
        "it does no harm",
    ]);
    let said = world.speaks_as(&mut command, "olga").output().await.unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(world.hold(hold["id"].as_str().unwrap()).await["hold"]["state"], "approved");
    assert_eq!(world.ran(), 0, "nothing runs by that");
    let again = async || world.agent("support").tool("mail", "read_again", json!({"to": "a"})).await.unwrap();
    again().await;
    assert_eq!(world.ran(), 1);
    again().await;
    assert_eq!(world.ran(), 1, "once");
    world.join().await;
}
