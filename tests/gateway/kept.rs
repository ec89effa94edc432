//! What the audit keeps of a call's payload, for how long it can be read, and what agents see when its disk is low.

use holdpoint::cli::audit;
use holdpoint::record::tail::Format;
use holdpoint::record::verify::{Status, verify_against};
use holdpoint::record::{Against, checkpoint, seal};
use holdpoint::secret::ring::{self, Purpose, Ring};
use serde_json::{Value, json};

use crate::harness::World;

/// A gateway whose audit has more settings than where it is.
async fn keeping(audit: &str) -> World {
    let mut world = World::start().await;
    world.down().await;
    world.audit = audit.to_owned();
    world.up().await;
    world
}

#[tokio::test]
async fn a_redacted_audit_has_the_shape_of_what_was_sent_and_none_of_its_words() {
    let world = keeping(", capture: redacted").await;
    let agent = world.agent("support");
    let arguments = json!({"text": "call Ana Petrova", "amount": 12.5, "urgent": true, "tags": ["vip"]});
    let answer = agent.tool("mail", "note", arguments).await.unwrap();
    assert_eq!(answer.outcome(), "allowed");
    let record = world.record(&answer.record(), "intent");
    let shape: Value = serde_json::from_str(record["redacted"].as_str().unwrap()).unwrap();
    assert_eq!(shape, json!({"text": "[text]", "amount": 12.5, "urgent": true, "tags": ["[text]"]}));
    let all = json!(world.records()).to_string();
    assert!(!all.contains("Petrova") && !all.contains("vip"), "{all}");
    world.join().await;
}

#[tokio::test]
async fn a_sealed_audit_is_opened_by_the_auditor_alone_and_erased_without_breaking_the_chain() {
    let mut world = World::start().await;
    world.down().await;
    let (public, private) = seal::key_pair().unwrap();
    let (_, another) = seal::key_pair().unwrap();
    Ring::open(&world.dir.join("keys")).unwrap().stage(Purpose::SealingPublic, &public).unwrap();
    world.audit = ", capture: sealed".to_owned();
    world.up().await;
    let agent = world.agent("support");
    let answer = agent.tool("mail", "note", json!({"text": "call Ana Petrova"})).await.unwrap();
    assert_eq!(answer.outcome(), "allowed");
    let id = answer.record();
    let (intent, outcome) = (world.record(&id, "intent"), world.outcome(&answer));
    assert_eq!(
        (&intent["sealed"]["part"], &outcome["sealed"]["part"]),
        (&"arguments".into(), &"reply".into())
    );
    world.down().await;
    let dir = world.dir.join("audit");

    // Nothing of it can be read without the auditor's key: not in the chain, and not beside it.
    let sealed = std::fs::read_dir(dir.join("sealed")).unwrap().next().unwrap().unwrap().path();
    assert!(!std::fs::read_to_string(&sealed).unwrap().contains("Petrova"));
    let opened = seal::open(&dir, &id, &private).unwrap().unwrap();
    assert_eq!(opened[0].payload, br#"{"text":"call Ana Petrova"}"#);
    assert_eq!(opened[1].payload, answer.body.as_ref());
    let refused = seal::open(&dir, &id, &another).unwrap().unwrap_err().to_string();
    assert!(refused.contains("this key does not open"), "{refused}");
    let key = world.dir.join("auditor.key");
    std::fs::write(&key, &private[..]).unwrap();
    let mut out = Vec::new();
    assert_eq!(audit::open(&dir, &id, &key, Format::Text, &mut out), 0);
    assert!(String::from_utf8(out).unwrap().contains("Petrova"));

    // Another payload in its place is found, and one that is erased is missed by nobody who verifies.
    let text = std::fs::read_to_string(&sealed).unwrap();
    let mut line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    line["ciphertext"] = "AAAA".into();
    std::fs::write(&sealed, format!("{line}\n")).unwrap();
    let refused = seal::open(&dir, &id, &private).unwrap().unwrap_err().to_string();
    assert!(refused.contains("is not what the record has the digest of"), "{refused}");
    std::fs::remove_file(&sealed).unwrap();
    let refused = seal::open(&dir, &id, &private).unwrap().unwrap_err().to_string();
    assert!(refused.contains("it was erased"), "{refused}");
    world.join().await;
}

#[tokio::test]
async fn a_gateway_that_should_seal_and_cannot_does_not_start() {
    let mut world = World::start().await;
    world.down().await;
    let file = world.dir.join("holdpoint.yaml");
    let text =
        std::fs::read_to_string(&file).unwrap().replace("{dir: audit}", "{dir: audit, capture: sealed}");
    std::fs::write(&file, text).unwrap();
    let loaded = holdpoint::config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    let Err(error) = holdpoint::app::start(loaded).await else { panic!("it started") };
    assert!(error.to_string().contains("keys rotate sealing-public"), "{error}");
    world.nothing_upstream();
    // With what it needs, it is up again.
    world.up().await;
    world.agent("support").tool("mail", "search_customers", json!({"name": "Ana"})).await.unwrap();
    world.join().await;
}

#[tokio::test]
async fn the_end_of_an_audit_is_signed_and_published() {
    let mut world = keeping(", checkpoints: [file, {file: elsewhere.jsonl}]").await;
    let agent = world.agent("support");
    agent.tool("mail", "note", json!({"text": "x"})).await.unwrap();
    world.down().await;
    let dir = world.dir.join("audit");
    let keys = std::fs::read_to_string(world.dir.join("keys").join(ring::PUBLIC_KEYS)).unwrap();
    let keys = ring::public_keys(&keys).unwrap();
    let mut checkpoints = checkpoint::read(&world.dir.join("elsewhere.jsonl")).unwrap();
    checkpoints.extend(checkpoint::read(&dir.join("checkpoints.jsonl")).unwrap());
    let held = checkpoints.len() as u64;
    let report = verify_against(&dir, &Against { keys, checkpoints }).unwrap();
    assert_eq!((report.status, report.held), (Status::Ok, held), "{report:?}");
    assert_eq!(report.covered, Some(report.last_seq - 1));
    world.join().await;
}

#[tokio::test]
async fn agents_of_a_gateway_whose_disk_is_low_may_read_and_not_write() {
    // No disk has so much room.
    let world = keeping(", free_bytes_min: 4000000GiB").await;
    let agent = world.agent("support");
    let refused = agent.tool("mail", "note", json!({"text": "x"})).await.unwrap();
    assert_eq!(refused.json()["error"]["code"], -31010, "{}", refused.json());
    world.refused(&refused, "audit");
    let refused = agent.http("POST", "/crm/v1/invoices", Some(json!({"amount": 1}))).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
    world.refused(&refused, "audit");
    let read = agent.tool("mail", "search_customers", json!({"name": "Ana"})).await.unwrap();
    assert_eq!(read.outcome(), "allowed");
    let ready = world.page("/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains("degraded") && ready.contains("\"room\":\"low\""),
        "{ready}"
    );
    world.join().await;
}

#[tokio::test]
async fn a_flood_of_refusals_of_one_certificate_is_folded_and_hides_nobody_else_s() {
    const FLOOD: usize = 300;
    let mut world = World::start().await;
    let (flooding, other) = (world.agent("support"), world.agent("other"));
    for _ in 0..FLOOD {
        let denied = flooding.tool("strict", "drop_tables", json!({})).await.unwrap();
        assert_eq!(denied.outcome(), "denied");
    }
    let one = other.tool("strict", "drop_tables", json!({})).await.unwrap();
    let stopped = |record: &&Value| record["type"] == "refused";
    let own = world.records().into_iter().filter(|record| stopped(&record) && record["id"] == one.record());
    assert_eq!(own.count(), 1, "another's refusal has its own record");
    world.nothing_upstream();
    world.down().await;
    let records = world.records();
    let stopped: Vec<&Value> = records.iter().filter(stopped).collect();
    let folded: u64 = stopped.iter().filter_map(|record| record["folded"].as_u64()).sum();
    let counters = stopped.iter().filter(|record| record["certificate"].is_string()).count();
    assert_eq!(stopped.len() as u64 - counters as u64 + folded, FLOOD as u64 + 1);
    world.join().await;
}
