//! Each kind of change takes effect for the next call, and drops none.

use holdpoint::pki;
use serde_json::{Value, json};

use crate::fake::{Does, Fake, json as reply};
use crate::harness::World;
use crate::place::{edit, generation, generations, metric, ready, reload, world, world_of};

async fn outcome(world: &World, tool: &str) -> String {
    world.agent("support").tool("mail", tool, json!({})).await.unwrap().outcome()
}

#[tokio::test]
async fn another_policy_decides_the_next_call_and_the_audit_says_which() {
    let world = world("").await;
    let agent = world.agent("support");
    let before = agent.tool("mail", "note", json!({})).await.unwrap();
    assert_eq!(before.outcome(), "allowed");
    let forbids = "@id(\"no-notes\") @public(\"quiet\")\nforbid (principal, action, resource)\n\
                   when { resource.name == \"note\" };\n";
    std::fs::write(world.dir.join("policies/quiet.cedar"), forbids).unwrap();
    let number = reload(&world).await;

    let seen = world.mail.seen().len();
    // On the connection that is open.
    let after = agent.tool("mail", "note", json!({})).await.unwrap();
    assert_eq!(after.decision().unwrap()["rule"], "quiet");
    assert_eq!(world.mail.seen().len(), seen, "a refused call is not sent");
    let (first, last) = (world.record(&before.record(), "intent"), world.record(&after.record(), "refused"));
    let told = generations(&world);
    let last_told = told.last().unwrap();
    assert_eq!(last_told["type"], "policy");
    assert_eq!(
        (&last_told["generation"], &last_told["revision"]),
        (&json!(number), &last["decision"]["revision"])
    );
    assert_ne!(first["decision"]["revision"], last["decision"]["revision"]);
    assert!(last_told["changed"]["policy"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(
        told.iter().map(|record| record["generation"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    world.join().await;
}

#[tokio::test]
async fn another_catalogue_classifies_the_next_call() {
    let world = world("").await;
    let answer = world.agent("reader").tool("mail", "search_customers", json!({})).await.unwrap();
    assert_eq!(answer.outcome(), "allowed");
    edit(&world, "mcp.yaml", |text| {
        text.replace(
            "search_customers: {class: read, consequence: 0",
            "search_customers: {class: write, consequence: 1",
        )
    });
    reload(&world).await;
    let answer = world.agent("reader").tool("mail", "search_customers", json!({})).await.unwrap();
    assert_eq!(answer.outcome(), "denied");
    assert_eq!(world.mail.seen().len(), 1);
    assert!(generations(&world).last().unwrap()["changed"].get("catalog").is_some());
    world.join().await;
}

#[tokio::test]
async fn another_registry_lets_strangers_in_and_lowers_autonomy() {
    let world = world("").await;
    let stranger = world.agent("stranger");
    assert_eq!(stranger.tool("mail", "note", json!({})).await.unwrap().status, 403);
    world.nothing_upstream();
    edit(&world, "agents.yaml", |text| {
        text.replace("agent/reader\"", "agent/stranger\"")
            .replace("autonomy: constrained, state: active", "autonomy: read-only, state: active")
    });
    reload(&world).await;
    let stranger = world.agent("stranger");
    assert_eq!(stranger.tool("mail", "search_customers", json!({})).await.unwrap().outcome(), "allowed");
    assert_eq!(outcome(&world, "note").await, "denied");
    assert_eq!(world.mail.seen().len(), 1);
    assert_eq!(generations(&world).last().unwrap()["type"], "admin");
    world.join().await;
}

#[tokio::test]
async fn other_limits_count_on_from_where_the_others_are() {
    let world = world("limits: [{per: agent, rate: 2/1h}]").await;
    assert_eq!(outcome(&world, "note").await, "allowed");
    // The limit that stays has one call left; a reload does not give it two again.
    edit(&world, "holdpoint.yaml", |text| {
        text.replace("[{per: agent, rate: 2/1h}]", "[{per: agent, rate: 2/1h}, {per: tool, rate: 100/1s}]")
    });
    reload(&world).await;
    assert_eq!(outcome(&world, "note").await, "allowed");
    assert_eq!(outcome(&world, "note").await, "limited");
    edit(&world, "holdpoint.yaml", |text| text.replace("rate: 2/1h", "rate: 50/1h"));
    reload(&world).await;
    assert_eq!(outcome(&world, "note").await, "allowed");
    world.join().await;
}

#[tokio::test]
async fn upstreams_come_and_go_and_the_connections_of_the_others_stay() {
    let world = world("").await;
    let agent = world.agent("support");
    let invoice = async |upstream: &str| {
        agent.http("GET", &format!("/{upstream}/v1/invoices/1"), None).await.unwrap().status.as_u16()
    };
    assert_eq!((invoice("odd").await, invoice("crm2").await), (200, 404));
    let connections = world.odd.connections();
    let address = world.odd.address();
    let added = format!("  - {{name: crm2, kind: http, url: \"http://{address}\", catalog: http.yaml}}");
    edit(&world, "holdpoint.yaml", |text| text.replace("\npolicy:", &format!("\n{added}\npolicy:")));
    reload(&world).await;
    assert_eq!(invoice("odd").await, 200);
    assert_eq!(world.odd.connections(), connections, "what is not changed keeps its connections");
    assert_eq!(invoice("crm2").await, 200);
    assert_eq!(world.odd.connections(), connections + 1);

    edit(&world, "holdpoint.yaml", |text| {
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("name: crm2")).collect();
        lines.join("\n") + "\n"
    });
    reload(&world).await;
    assert_eq!(invoice("crm2").await, 404);
    let other = Fake::that(|_| Does::Writes(reply("{\"other\":true}"))).await;
    let (before, after) = (world.odd.address().to_string(), other.address().to_string());
    edit(&world, "holdpoint.yaml", |text| text.replace(&before, &after));
    reload(&world).await;
    let seen = world.odd.seen().len();
    assert_eq!(invoice("odd").await, 200);
    assert_eq!((world.odd.seen().len(), other.seen().len()), (seen, 1));
    drop(agent);
    world.join().await;
}

#[tokio::test]
async fn a_call_under_way_ends_as_it_began_and_the_next_is_judged_anew() {
    let odd = Fake::that(|_| Does::WritesThen(String::new(), reply("{\"slow\":true}"))).await;
    let world = world_of(odd, "").await;
    let mut raw = world.raw("support").await;
    raw.send("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    world.odd.has_seen(1).await;
    // Its upstream goes, and what it does becomes more than a reader may do.
    edit(&world, "http.yaml", |text| {
        text.replace(
            "\"GET /v1/invoices/{id}\": {class: read, consequence: 0",
            "\"GET /v1/invoices/{id}\": {class: write, consequence: 4",
        )
    });
    edit(&world, "holdpoint.yaml", |text| {
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("name: odd,")).collect();
        lines.join("\n") + "\n"
    });
    reload(&world).await;
    world.odd.go_on();
    assert!(raw.until("slow").await, "{}", raw.text());
    assert_eq!(world.outcome_of(&raw.header("holdpoint-record"))["status"], "executed");
    // On the same connection, by the new generation.
    let (status, _) = raw.ask("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(status, 404);
    assert_eq!(world.odd.seen().len(), 1);
    world.join().await;
}

#[tokio::test]
async fn the_gateways_certificate_is_another_at_the_next_handshake() {
    let world = world("").await;
    let serial = async |world: &World| {
        let stream = world.knock("support", b"http/1.1").await.unwrap();
        let der = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        x509_parser::parse_x509_certificate(&der).unwrap().1.raw_serial_as_string()
    };
    let before = serial(&world).await;
    let pki = world.dir.join("pki");
    pki::issue_gateway(&pki, "second").unwrap();
    for (from, to) in [("second.pem", "gateway.pem"), ("second-key.pem", "gateway-key.pem")] {
        std::fs::rename(pki.join(from), pki.join(to)).unwrap();
    }
    reload(&world).await;
    assert_ne!(serial(&world).await, before);
    let told = generations(&world);
    assert_eq!(told.last().unwrap()["type"], "trust");
    let changed = told.last().unwrap()["changed"].as_object().unwrap();
    assert_eq!(changed.keys().collect::<Vec<_>>(), ["identity"], "one digest, of the certificate alone");
    world.join().await;
}

#[tokio::test]
async fn the_names_of_the_gateway_and_the_bounds_of_bodies_change() {
    let world = world("bounds: {body_bytes_max: 64KiB}").await;
    let agent = world.agent("support");
    let large = json!({"text": "x".repeat(8 << 10)});
    assert_eq!(agent.tool("mail", "note", large.clone()).await.unwrap().outcome(), "allowed");
    edit(&world, "holdpoint.yaml", |text| text.replace("body_bytes_max: 64KiB", "body_bytes_max: 1KiB"));
    reload(&world).await;
    assert_eq!(world.agent("support").tool("mail", "note", large).await.unwrap().status, 413);
    assert_eq!(world.mail.seen().len(), 1);
    edit(&world, "holdpoint.yaml", |text| text.replace("hosts: []", "hosts: [gateway.internal]"));
    reload(&world).await;
    let answer = world.agent("support").tool("mail", "note", json!({})).await.unwrap();
    assert_ne!(answer.status, 200, "the agent asks for localhost, which is nobody now");
    assert_eq!(world.mail.seen().len(), 1);
    world.join().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_applies() {
    let world = world("").await;
    edit(&world, "holdpoint.yaml", |text| {
        text.replace("audit: {dir: audit}", "audit: {dir: elsewhere}")
            .replace("organization:", "limits: [{per: agent, rate: 1/1h}]\norganization:")
    });
    reload(&world).await;
    assert_eq!(ready(&world).await["configuration"]["restart_needed_for"], json!(["audit.dir"]));
    assert_eq!(outcome(&world, "note").await, "allowed");
    assert_eq!(outcome(&world, "note").await, "limited");
    assert!(!world.dir.join("elsewhere").exists());
    edit(&world, "holdpoint.yaml", |text| text.replace("dir: elsewhere", "dir: audit"));
    let number = reload(&world).await;
    assert_eq!(ready(&world).await["configuration"]["restart_needed_for"], json!([]));
    assert_eq!((generation(&world), metric(&world, "holdpoint_generation").await), (number, number as f64));
    world.join().await;
}

#[tokio::test]
async fn roots_and_certificates_are_told_by_when_they_end() {
    let world = world("").await;
    let left = async |world: &World, name: &str| -> Option<f64> {
        let page = world.page("/metrics").await;
        let line = page
            .lines()
            .find(|line| line.starts_with("holdpoint_trust_expiry") && line.contains(&format!("\"{name}\"")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
    };
    let (gateway, root) =
        (left(&world, "gateway").await.unwrap(), left(&world, "example.org").await.unwrap());
    assert!(gateway > 0.0 && root > gateway, "{gateway} {root}");
    assert_eq!(left(&world, "people.example.org").await, None);
    let people = ", people.example.org: {bundle: pki/people.pem, roles: [people]}}";
    edit(&world, "holdpoint.yaml", |text| {
        text.replace("roles: [agents]}}", &format!("roles: [agents]}}{people}"))
    });
    reload(&world).await;
    assert!(left(&world, "people.example.org").await.unwrap() > 0.0);
    edit(&world, "holdpoint.yaml", |text| text.replace(people, "}"));
    reload(&world).await;
    assert_eq!(left(&world, "people.example.org").await, None);
    world.join().await;
}

#[tokio::test]
async fn labels_and_sessions_outlive_a_change() {
    let world = world("").await;
    let agent = world.agent("support");
    assert_eq!(agent.tool("mail", "read_inbox", json!({})).await.unwrap().outcome(), "allowed");
    let labels = |record: &Value| record["labels"].clone();
    reload(&world).await;
    let answer = agent.tool("mail", "note", json!({})).await.unwrap();
    let record = world.records().into_iter().find(|record| record["id"] == json!(answer.record())).unwrap();
    assert_eq!(labels(&record), json!(["confidential", "untrusted"]), "{record:#}");
    world.join().await;
}
