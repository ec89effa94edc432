//! Endorsements: people are asked once, and what they remembered is for no more than they said; and policies replayed on
//! what was recorded.

use std::process::Command;

use holdpoint::config::ListenerKind;
use holdpoint::demo::agent::Answer;
use serde_json::{Value, json};

use crate::world::{FIGURES, KEY, World, send};

async fn world() -> World {
    let mut world = World::prepared("{}").await;
    world.people = true;
    world.up().await;
    world
}

async fn ask(world: &World, person: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    world.at(ListenerKind::Admin, person).http(method, path, body).await.unwrap()
}

fn bob(confidentiality: &str) -> Value {
    json!({"agent": "agent/support", "sink": "message", "destination": "Bob <BOB@partner.test>",
        "confidentiality": confidentiality, "for": "30d", "reason": "our partner"})
}

/// The program, as a person at a shell runs it.
fn say(world: &World, arguments: &[&str]) -> (i32, Value) {
    let pem = |stem: &str| world.dir.join(format!("pki/{stem}.pem"));
    let admin = world.running.as_ref().and_then(|running| running.address(ListenerKind::Admin));
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.arg("--json").args(arguments);
    if let Some(admin) = admin {
        command.env("HOLDPOINT_ADDR", format!("https://localhost:{}", admin.port()));
    }
    command.env("HOLDPOINT_CERT", pem("oda")).env("HOLDPOINT_KEY", pem("oda-key"));
    command.env("HOLDPOINT_CACERT", pem("example.org"));
    let output = command.output().unwrap();
    let json = serde_json::from_slice(&output.stdout).or_else(|_| serde_json::from_slice(&output.stderr));
    (output.status.code().unwrap(), json.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endorsed_destination_is_known_to_one_agent_until_it_is_taken_back() {
    let mut world = world().await;
    let (agent, other) = (world.agent("support"), world.agent("other"));
    for agent in [&agent, &other] {
        agent.tool("drive", "read_drive", json!({})).await.unwrap();
    }
    assert_eq!(send(&agent, "bob@partner.test", FIGURES).await.outcome(), "pending");
    let made = ask(&world, "oda", "POST", "/v1/endorsements", Some(bob("internal"))).await;
    assert_eq!(made.status, 200, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.json()["destination"], "mail:bob@partner.test");
    let sent = send(&agent, "bob@partner.test", FIGURES).await;
    assert_eq!(
        (sent.outcome().as_str(), world.count("send_email")),
        ("allowed", 1),
        "{:#}",
        world.record(&sent)
    );
    assert_eq!(world.record(&sent)["endorsements"], json!([id]), "every use is on record");
    assert_eq!(send(&other, "bob@partner.test", FIGURES).await.outcome(), "pending", "another agent");
    assert_eq!(send(&agent, "eve@partner.test", FIGURES).await.outcome(), "pending", "another destination");
    world.down().await;
    world.up().await;
    let agent = world.agent("support");
    assert_eq!(
        send(&agent, "bob@partner.test", FIGURES).await.outcome(),
        "allowed",
        "a restart forgets none"
    );
    let (code, listed) = say(&world, &["endorsements", "list"]);
    assert_eq!((code, &listed["endorsements"][0]["state"]), (0, &json!("in-force")), "{listed}");
    assert_eq!(say(&world, &["endorsements", "revoke", &id, "--reason", " "]).0, 64);
    let (code, revoked) = say(&world, &["endorsements", "revoke", &id, "--reason", "no partner any more"]);
    assert_eq!((code, &revoked["changed"]), (0, &json!(true)), "{revoked}");
    assert_eq!(send(&agent, "bob@partner.test", FIGURES).await.outcome(), "pending");
    assert_eq!(world.count("send_email"), 2);
    let records = world.records();
    let kept = records.iter().find(|record| record["type"] == "endorsement").unwrap();
    assert_eq!((&kept["id"], &kept["by"]["email"]), (&json!(id), &json!("oda@example.org")));
    assert!(!kept.to_string().contains("partner.test"), "{kept}");
    assert!(records.iter().any(|record| record["what"] == "revoke" && record["endorsement"] == *id));
    assert_eq!(say(&world, &["endorsements", "revoke", "nothing", "--reason", "x"]).0, 1);
}

#[tokio::test]
async fn a_secret_is_let_out_only_where_it_is_named_and_no_call_of_consequence_4_is() {
    let world = world().await;
    let agent = world.agent("support");
    agent.tool("drive", "read_vault", json!({})).await.unwrap();
    ask(&world, "oda", "POST", "/v1/endorsements", Some(bob("internal"))).await;
    let held = send(&agent, "bob@partner.test", &format!("the key: {KEY}")).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
    ask(&world, "oda", "POST", "/v1/endorsements", Some(bob("secret"))).await;
    let sent = send(&agent, "bob@partner.test", &format!("the key is: {KEY}")).await;
    assert!(!world.findings(&sent).contains(&"secret-lineage".to_owned()), "{:#}", world.record(&sent));
    let mut grave = bob("internal");
    grave["consequence_max"] = json!(4);
    assert_eq!(ask(&world, "oda", "POST", "/v1/endorsements", Some(grave)).await.status, 400);
    let mut all = bob("internal");
    all["destination"] = json!("*@partner.test");
    assert_eq!(ask(&world, "oda", "POST", "/v1/endorsements", Some(all)).await.status, 400);
    // Whoever may only look remembers nothing, and that they tried is on record.
    assert_eq!(ask(&world, "aud", "POST", "/v1/endorsements", Some(bob("internal"))).await.status, 403);
    let tried = world.records().into_iter().find(|record| record["action"] == "endorse").unwrap();
    assert_eq!(tried["decision"]["outcome"], "denied");
}

#[tokio::test]
async fn whoever_approves_may_have_the_destination_remembered() {
    let world = world().await;
    let agent = world.agent("support");
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    let held = send(&agent, "bob@partner.test", FIGURES).await;
    assert_eq!(held.outcome(), "pending");
    let holds = ask(&world, "oda", "GET", "/v1/holds?state=pending", None).await.json();
    let hold = &holds["holds"][0];
    let path = format!("/v1/holds/{}/approve", hold["id"].as_str().unwrap());
    let say = json!({"digest": hold["digest"], "reason": "our partner", "remember": "30d"});
    let approved = ask(&world, "oda", "POST", &path, Some(say)).await;
    assert_eq!(
        (approved.status.as_u16(), &approved.json()["state"]),
        (200, &json!("approved")),
        "{approved:?}"
    );
    let sent = send(&agent, "bob@partner.test", FIGURES).await;
    assert_eq!((sent.outcome().as_str(), world.count("send_email")), ("allowed", 1), "what was approved");
    let listed = ask(&world, "oda", "GET", "/v1/endorsements", None).await.json();
    assert_eq!(listed["endorsements"][0]["hold"], hold["id"]);
    assert_eq!(world.record(&sent)["endorsements"], json!([listed["endorsements"][0]["id"]]));
    assert_eq!(send(&agent, "eve@partner.test", FIGURES).await.outcome(), "pending");
    // The call went by what is remembered. The approval was not needed, and stays what it is: good for this very call,
    // once, until its time is over, also when what was remembered is taken back.
    let shown = format!("/v1/holds/{}", hold["id"].as_str().unwrap());
    let state = async || ask(&world, "oda", "GET", &shown, None).await.json()["hold"]["state"].clone();
    assert_eq!(state().await, "approved");
    let id = listed["endorsements"][0]["id"].as_str().unwrap();
    let path = format!("/v1/endorsements/{id}");
    let revoked = ask(&world, "oda", "DELETE", &path, Some(json!({"reason": "no partner any more"}))).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    let again = send(&agent, "bob@partner.test", FIGURES).await;
    assert_eq!((again.outcome().as_str(), world.count("send_email")), ("allowed", 2));
    assert_eq!(state().await, "executed");
    let told = send(&agent, "bob@partner.test", FIGURES).await;
    assert_eq!((told.outcome().as_str(), world.count("send_email")), ("executed", 2), "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_policies_are_tried_on_what_was_recorded() {
    let mut world = World::start().await;
    let agent = world.agent("support");
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    let sent = send(&agent, "partner@new.test", "Shall we meet on Tuesday at ten?").await;
    let held = send(&agent, "partner@new.test", FIGURES).await;
    assert_eq!((sent.outcome().as_str(), held.outcome().as_str()), ("allowed", "pending"));
    world.down().await;
    let policies = world.dir.join("policies");
    std::fs::create_dir(&policies).unwrap();
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for file in std::fs::read_dir(shipped).unwrap().map(|file| file.unwrap().path()) {
        if file.is_file() {
            std::fs::copy(&file, policies.join(file.file_name().unwrap())).unwrap();
        }
    }
    let (audit, dir) = (world.dir.join("audit").display().to_string(), policies.display().to_string());
    let replay = |more: &[&str]| {
        let base = ["policy", "replay", "--policies", &dir, "--audit", &audit];
        say(&world, &[&base[..], more].concat())
    };
    let (code, same) = replay(&["--fail-on-change"]);
    assert_eq!((code, &same["changed"]), (0, &json!(0)), "{same:#}");
    assert!(same["replayed"].as_u64().unwrap() >= 3, "{same:#}");
    // Without flow control's rules what was held goes; with a rule against mail what went is refused.
    std::fs::remove_file(policies.join("flow.cedar")).unwrap();
    let no_mail = "@id(\"no-mail\") @public(\"no-mail\")\nforbid (principal, action == Holdpoint::Action::\"external\", resource)\n\
                   when { resource.name == \"send_email\" && !context.run.findings.contains(\"lineage\") };\n";
    std::fs::write(policies.join("no-mail.cedar"), no_mail).unwrap();
    let (code, report) = replay(&[]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(replay(&["--fail-on-change"]).0, 1);
    let changes = report["changes"].as_array().unwrap();
    let denied = changes.iter().find(|change| change["rule"] == "no-mail").unwrap();
    assert_eq!((&denied["was"], &denied["would_be"]), (&json!("allowed"), &json!("denied")));
    assert_eq!(denied["records"], json!([sent.record()]));
    let freed = changes.iter().find(|change| change["would_be"] == "allowed").unwrap();
    assert_eq!(
        (&freed["was"], &freed["tool"], &freed["records"]),
        (&json!("held"), &json!("mail/send_email"), &json!([held.record()]))
    );
    assert_eq!(report["more"], json!({"allowed": 0, "held": -1, "denied": 1}));
    assert_eq!(say(&world, &["policy", "replay", "--policies", &dir, "--audit", "/nowhere/at/all"]).0, 2);
    std::fs::write(policies.join("no-mail.cedar"), "forbid (").unwrap();
    assert_eq!(replay(&[]).0, 64);
}
