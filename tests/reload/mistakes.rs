//! Each kind of mistake leaves the last good generation in force, and is said aloud with its place.

use serde_json::{Value, json};

use crate::harness::World;
use crate::place::{edit, generation, generations, metric, ready, reload, world};

/// A file of the gateway's directory, what it is made to say, and what is told of that.
const MISTAKES: [(&str, &str, &str); 12] = [
    ("holdpoint.yaml", "organization: [", "holdpoint.yaml: not valid YAML"),
    ("holdpoint.yaml", "nonsense: true\n", "nonsense"),
    ("agents.yaml", "- {id: \"spiffe://example.org\"}\n", "agents.yaml: [0].id: "),
    ("agents.yaml", "- {id: \"spiffe://example.org/a\", risk: 9}\n", "agents.yaml: [0].risk: 9 is not"),
    ("mcp.yaml", "tools: {note: {class: wirte}}\n", "tools.note.class"),
    ("http.yaml", "tools: 7\n", "http.yaml: tools"),
    ("policies/flow.cedar", "permit (principal, action, resource", "flow.cedar"),
    ("policies/extra.cedar", "permit (principal, action, resource);", "extra.cedar"),
    ("pki/example.org.pem", "no certificate", "the bundle holds no certificate"),
    ("pki/gateway.pem", "no certificate", "the certificate file holds no certificate"),
    ("pki/gateway-key.pem", "no key", "the key is not valid PEM"),
    ("pki/gateway.pem", "OTHER", "the certificate and the key do not go together"),
];

async fn allowed(world: &World) -> bool {
    world.agent("support").tool("mail", "note", json!({})).await.unwrap().outcome() == "allowed"
}

#[tokio::test]
async fn each_kind_of_mistake_leaves_the_last_good_one_in_force() {
    let world = world("").await;
    // The one mistake that is in the agents' own bundle must not be theirs.
    let agent = world.agent("support");
    let mut failures = 0.0;
    let number = generation(&world);
    for (file, text, told) in MISTAKES {
        let path = world.dir.join(file);
        let good = std::fs::read_to_string(&path).ok();
        let text = match text {
            "OTHER" => std::fs::read_to_string(world.dir.join("pki/support.pem")).unwrap(),
            text => text.to_owned(),
        };
        std::fs::write(&path, text).unwrap();
        let reload = world.running.as_ref().unwrap().reload();
        let mistakes = reload.now().await.unwrap_err();
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|mistake| mistake.contains(told)), "{file}: {told}: {said:#?}");
        failures += 1.0;
        assert_eq!(metric(&world, "holdpoint_reload_failures_total").await, failures, "{file}");
        let ready = ready(&world).await;
        assert_eq!(ready["status"], "degraded", "{file}");
        let refused = &ready["configuration"]["refused"];
        assert!(refused["at"].as_str().unwrap().starts_with("20"), "{refused}");
        assert!(refused["mistakes"].to_string().contains(told.split('"').next().unwrap()), "{refused}");
        assert_eq!(generation(&world), number, "{file}");
        let answer = agent.tool("mail", "note", json!({})).await.unwrap();
        assert_eq!(answer.outcome(), "allowed", "{file}");
        match good {
            Some(good) => std::fs::write(&path, good).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
    assert_eq!(reload_count(&world), 2);
    assert_eq!(reload(&world).await, number + 1);
    let ready = ready(&world).await;
    assert_eq!(ready["configuration"]["refused"], Value::Null);
    // Calls would wait for people, and nobody could come in: it is ready, and not as it should be.
    assert_eq!(ready["status"], "degraded");
    assert!(ready["holds"]["unmanned"][0].as_str().unwrap().contains("nobody could approve"), "{ready:#}");
    world.join().await;
}

fn reload_count(world: &World) -> usize {
    generations(world).len()
}

#[tokio::test]
async fn every_mistake_is_told_at_once_and_half_a_change_is_none() {
    let world = world("").await;
    // The registry would suspend the agent, and the catalogue has a mistake: neither comes into force.
    edit(&world, "agents.yaml", |text| text.replacen("state: active", "state: suspended", 1));
    edit(&world, "mcp.yaml", |text| text.replace("note: {class: write", "note: {class: wirte"));
    edit(&world, "http.yaml", |text| text.replacen("class: read", "class: raed", 1));
    let mistakes = world.running.as_ref().unwrap().reload().now().await.unwrap_err();
    let of = |file: &str| mistakes.iter().filter(|mistake| mistake.file.ends_with(file)).count();
    assert!(of("mcp.yaml") > 0 && of("http.yaml") > 0, "{mistakes:#?}");
    assert!(allowed(&world).await);
    edit(&world, "mcp.yaml", |text| text.replace("wirte", "write"));
    edit(&world, "http.yaml", |text| text.replace("raed", "read"));
    reload(&world).await;
    let answer = world.agent("support").tool("mail", "note", json!({})).await.unwrap();
    assert_eq!(answer.status, 403);
    world.join().await;
}

#[tokio::test]
async fn a_file_that_is_gone_is_a_mistake_and_no_empty_registry() {
    let world = world("").await;
    std::fs::remove_file(world.dir.join("agents.yaml")).unwrap();
    assert!(world.running.as_ref().unwrap().reload().now().await.is_err());
    assert!(allowed(&world).await);
    std::fs::remove_file(world.dir.join("holdpoint.yaml")).unwrap();
    let mistakes = world.running.as_ref().unwrap().reload().now().await.unwrap_err();
    assert!(mistakes[0].to_string().contains("cannot be read"), "{mistakes:#?}");
    assert!(allowed(&world).await);
    world.join().await;
}
