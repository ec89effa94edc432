//! Who gets in where: agents, people, strangers, and whoever is root on the machine.

use std::os::unix::fs::PermissionsExt;

use holdpoint::config::ListenerKind;
use serde_json::json;

use crate::harness::{World, of};

#[tokio::test]
async fn an_agents_certificate_does_not_open_the_admin_listener() {
    let world = World::start().await;
    assert!(world.at("support", ListenerKind::Admin).is_shut_out("/v1/agents").await);
    let refused = world.refusal_at("admin").await;
    assert_eq!((&refused["type"], &refused["reason"]), (&json!("refused"), &json!("wrong-role")));
}

#[tokio::test]
async fn a_persons_certificate_does_not_open_the_agents_listener() {
    let world = World::start().await;
    assert!(world.at("admin", ListenerKind::Agents).is_shut_out("/mail/mcp").await);
    let refused = world.refusal_at("agents").await;
    assert_eq!(refused["reason"], "wrong-role");
    world.nothing_upstream();
}

#[tokio::test]
async fn whoever_is_not_among_the_people_sees_no_page_and_is_on_record() {
    let world = World::start().await;
    let nobody = world.person("nobody");
    for path in [
        "/",
        "/v1/agents",
        "/v1/records",
        "/v1/health",
        "/v1/events",
        "/openapi.json",
        "/style.css",
        "/live.js",
        "/agents",
        "/breakglass",
        "/holds",
        "/runs",
        "/standing",
        "/nothing",
    ] {
        assert_eq!(nobody.get(path).await.status, 403, "{path}");
    }
    let tried = nobody.post(&of("support", "/suspend"), json!({"reason": "x"})).await;
    assert_eq!(tried.status, 403);
    let order = world.tried(|order| order["reason"] == "unknown-person").await;
    assert_eq!(order["by"]["id"], "spiffe://people.example.org/nobody");
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_gateway() {
    let mut world = World::start().await;
    let socket = world.dir.join("admin.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    world.down().await;
    assert!(!socket.exists());
}

#[test]
fn an_admin_listener_needs_people_and_a_domain_of_theirs() {
    let dir = std::env::temp_dir().join(format!("hp-admin-config-{}", holdpoint::call::RecordId::new()));
    std::fs::create_dir_all(&dir).unwrap();
    holdpoint::pki::init(&dir.join("pki")).unwrap();
    std::fs::write(dir.join("agents.yaml"), "").unwrap();
    std::fs::write(dir.join("people.yaml"), "- {id: spiffe://example.org/ana, roles: [admin]}").unwrap();
    let check = |domains: &str, more: &str| {
        let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let yaml = format!(
            "organization: {{name: example}}
trust:
  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}
  domains: {{example.org: {{bundle: pki/example.org.pem, roles: [agents]}}{domains}}}
listeners:
  - {{name: agents, kind: agents, address: \"127.0.0.1:0\"{more}}}
  - {{name: admin, kind: admin, address: \"127.0.0.1:0\"}}
agents: agents.yaml
policy: {{cedar: \"{}\"}}
audit: {{dir: audit}}
keys: {{dir: keys}}
",
            policies.display()
        );
        std::fs::write(dir.join("holdpoint.yaml"), yaml).unwrap();
        let mistakes = holdpoint::config::load(&dir.join("holdpoint.yaml")).err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let told = check("", "");
    assert!(told.contains("people: is required") && told.contains("roles: [people]"), "{told}");
    let told = check(", people.example.org: {bundle: pki/example.org.pem, roles: [people]}", ", socket: x");
    assert!(told.contains("its root is also a root of"), "{told}");
    assert!(told.contains("listeners[0].socket: belongs to a listener of kind `admin`"), "{told}");
    let text = std::fs::read_to_string(dir.join("holdpoint.yaml")).unwrap();
    std::fs::write(dir.join("people-too.yaml"), text + "people: people.yaml\n").unwrap();
    let mistakes = holdpoint::config::load(&dir.join("people-too.yaml")).err().unwrap();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert!(told.iter().all(|line| !line.contains("people: is required")), "{told:#?}");
    std::fs::remove_dir_all(&dir).unwrap();
}
