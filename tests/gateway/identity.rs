//! Who may call, what an agent may not claim, and what it never sees.

use std::os::unix::fs::PermissionsExt;

use holdpoint::call::RecordId;
use serde_json::json;

use crate::fake::Fake;
use crate::harness::World;

#[tokio::test]
async fn only_an_agent_in_good_standing_calls() {
    let world = World::start().await;
    let cases = [
        ("stranger", "unknown-agent"),
        ("suspended", "suspended"),
        ("retired", "retired"),
        ("overdue", "review-overdue"),
    ];
    for (name, reason) in cases {
        let agent = world.agent(name);
        let answer = agent.tool("mail", "search_customers", json!({})).await.unwrap();
        assert_eq!(answer.status, 403, "{name}");
        world.refused(&answer, reason);
        let answer = agent.http("GET", "/crm/v1/invoices/1001", None).await.unwrap();
        assert_eq!(answer.status, 403, "{name}");
        world.refused(&answer, reason);
    }
    world.join().await;
}

#[tokio::test]
async fn a_refusal_is_found_by_the_agents_trace_however_early_it_comes() {
    let world = World::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let context = format!("00-{trace}-00f067aa0ba902b7-01");
    for (name, reason) in [("suspended", "suspended"), ("stranger", "unknown-agent")] {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        let answer = world.agent(name).message("mail", message, &[("traceparent", &*context)]).await.unwrap();
        world.refused(&answer, reason);
        assert_eq!(world.record(&answer.record(), "refused")["trace_id"], trace);
    }
    world.join().await;
}

#[tokio::test]
async fn an_agent_without_owners_only_reads() {
    let world = World::start().await;
    let agent = world.agent("ownerless");
    let denied = agent.tool("mail", "note", json!({})).await.unwrap();
    assert_eq!(denied.outcome(), "denied");
    world.refused(&denied, "policy");
    assert_eq!(agent.tool("mail", "search_customers", json!({})).await.unwrap().outcome(), "allowed");
    world.join().await;
}

#[tokio::test]
async fn a_certificate_of_another_root_does_not_get_in() {
    let world = World::start().await;
    let stranger = World::start().await;
    let forged = holdpoint::demo::agent::Agent::new(
        world.address(holdpoint::config::ListenerKind::Agents),
        &stranger.dir.join("pki/support.pem"),
        &stranger.dir.join("pki/support-key.pem"),
        &world.dir.join("pki/example.org.pem"),
    )
    .unwrap();
    assert!(forged.tool("mail", "search_customers", json!({})).await.is_err());
    world.nothing_upstream();
    crate::fake::eventually(
        || world.records().iter().any(|record| record["type"] == "refused" && record["stage"] == "accept"),
        "the refused connection is not on record",
    )
    .await;
    drop(stranger);
    world.join().await;
}

#[tokio::test]
async fn what_an_agent_claims_about_itself_ends_at_the_gateway() {
    let world = World::start().await;
    let mut raw = world.raw("support").await;
    let claims = [
        "authorization: Bearer agents-own-token",
        "baggage: user=admin-canary",
        "forwarded: for=admin-canary",
        "holdpoint-record: admin-canary",
        "x-agent-id: admin-canary",
        "x-forwarded-client-cert: By=admin-canary",
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-user: admin-canary",
        "x-spiffe-id: spiffe://example.org/admin-canary",
        "connection: keep-alive, te, proxy-connection",
        "proxy-connection: admin-canary",
        "keep-alive: timeout=admin-canary",
        "proxy-authorization: Basic admin-canary",
        "te: trailers, admin-canary",
        "x-harmless: stays",
    ];
    // A task is no claim but a token, and one that is none of ours is refused.
    let forged = "GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\nholdpoint-task: admin-canary\r\n\r\n";
    assert_eq!(raw.ask(forged).await.0, 403);
    world.nothing_upstream();
    let request =
        format!("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n{}\r\n\r\n", claims.join("\r\n"));
    let (status, text) = raw.ask(&request).await;
    assert_eq!(status, 200, "{text}");
    let head = world.odd.seen()[0].head.to_ascii_lowercase();
    for absent in ["canary", "agents-own-token", "baggage", "10.0.0.1", "proxy-", "\r\nte:"] {
        assert!(!head.contains(absent), "{absent} in {head}");
    }
    assert!(head.contains("x-harmless: stays"), "{head}");
    assert_eq!(head.matches("\r\nholdpoint-").count(), 1, "{head}");
    assert!(head.contains(&format!("holdpoint-record: {}", raw.header("holdpoint-record"))), "{head}");
    assert_eq!(head.matches("\r\ntraceparent:").count(), 1, "{head}");
    assert!(head.contains(&format!("host: {}", world.odd.address())), "{head}");
    let hiding = "GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\nconnection: x-internal\r\nx-internal: 1\r\n\r\n";
    let (status, text) = raw.ask(hiding).await;
    assert_eq!(status, 400, "{text}");
    assert_eq!(world.odd.seen().len(), 1, "a header cannot be kept from the upstream by naming it");
    drop(raw);
    world.join().await;
}

const CANARY: &str = "sk-canary-7f3a9c";

#[tokio::test]
async fn a_credential_reaches_the_upstream_and_nothing_else() {
    let dir = std::env::temp_dir().join(format!("holdpoint-gateway-{}", RecordId::new()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("token");
    std::fs::write(&file, format!("{CANARY}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut world = World::odd_in(dir, Fake::polite().await, ", credential: {file: token}", "").await;
    let agent = world.agent("support");
    let mut shown = Vec::new();
    for answer in [
        agent.http("GET", "/odd/v1/invoices/1", None).await.unwrap(),
        agent.tool("oddmcp", "note", json!({})).await.unwrap(),
        agent.http("POST", "/odd/v1/payments", Some(json!({}))).await.unwrap(),
    ] {
        shown.push(format!("{:?} {:?}", answer.headers, answer.body));
    }
    let seen = world.odd.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.head.contains(&format!("Bearer {CANARY}"))), "{seen:?}");
    assert!(world.records().iter().any(|record| record["credential"].is_string()));
    shown.push(world.page("/metrics").await);
    shown.extend(world.records().iter().map(ToString::to_string));

    // A file that went away is not replaced by nothing.
    std::fs::remove_file(&file).unwrap();
    let answer = agent.http("GET", "/odd/v1/invoices/1", None).await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(world.outcome(&answer)["status"], "not-sent");
    assert_eq!(world.odd.seen().len(), 2);
    shown.push(format!("{:?} {:?}", answer.headers, answer.body));
    assert!(shown.iter().all(|text| !text.contains(CANARY)), "{shown:#?}");
    drop(agent);
    world.down().await;
    world.join().await;
}
