//! Who is trusted no more is cut off at once, with every stream, and nobody else is.

use bytes::Bytes;
use holdpoint::pki;
use http::Request;
use http_body_util::{BodyExt, Full};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use time::OffsetDateTime;

use crate::fake::{Does, Fake};
use crate::harness::{SOON, World};
use crate::place::{edit, reload, world, world_of};

/// An upstream whose replies begin and never end.
async fn endless() -> Fake {
    let first =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"begun\":1}\n\n".to_owned();
    Fake::that(move |_| Does::WritesThen(first.clone(), String::new())).await
}

/// A stream of an agent over HTTP/2, which has begun.
async fn stream(world: &World, agent: &str) -> hyper::body::Incoming {
    let mut sender = world.h2(agent).await;
    let request = Request::get("https://localhost/odd/v1/invoices/1").body(Full::new(Bytes::new())).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("begun"));
    body
}

/// Whether a stream has ended before its end.
async fn broke_off(body: &mut hyper::body::Incoming) -> bool {
    let next = tokio::time::timeout(SOON, body.frame()).await;
    next.unwrap_or_else(|_| panic!("the stream goes on")).is_none_or(|frame| frame.is_err())
}

fn suspend(world: &World, agent: &str, state: &str) {
    edit(world, "agents.yaml", |text| {
        let lines = text.lines().map(|line| match line.contains(&format!("agent/{agent}\"")) {
            true => line.replace("state: active", &format!("state: {state}")),
            false => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    });
}

#[tokio::test]
async fn a_suspended_agents_streams_end_at_once_and_no_other_agents() {
    for state in ["suspended", "retired"] {
        let world = world_of(endless().await, "").await;
        let (mut support, mut other) = (stream(&world, "support").await, stream(&world, "other").await);
        let mut kept = world.raw("support").await;
        world.odd.has_seen(2).await;
        suspend(&world, "support", state);
        reload(&world).await;
        assert!(broke_off(&mut support).await);
        world.odd.was_left(1).await;
        assert_eq!(
            world.eventually("client-gone").await["agent"]["id"],
            "spiffe://example.org/agent/support"
        );
        assert!(!kept.until("anything").await, "a connection that waits is cut as well");

        // It may connect, and nothing else.
        let answer = world.agent("support").http("GET", "/odd/v1/invoices/1", None).await.unwrap();
        assert_eq!(answer.status, 403);
        assert_eq!(world.record(&answer.record(), "refused")["reason"], state);
        assert_eq!(world.odd.seen().len(), 2);
        let more = tokio::time::timeout(std::time::Duration::from_millis(200), other.frame()).await;
        assert!(more.is_err(), "the other agent's stream goes on");
        assert_eq!(world.odd.left(), 1);
        drop(other);
        world.join().await;
    }
}

#[tokio::test]
async fn an_agent_that_is_not_registered_any_more_is_cut_too() {
    let world = world_of(endless().await, "").await;
    let mut support = stream(&world, "support").await;
    edit(&world, "agents.yaml", |text| text.replace("agent/support\"", "agent/somebody\""));
    reload(&world).await;
    assert!(broke_off(&mut support).await);
    world.odd.was_left(1).await;
    world.join().await;
}

#[tokio::test]
async fn one_agents_connections_can_be_cut_without_any_change() {
    let world = world_of(endless().await, "").await;
    let (mut support, mut other) = (stream(&world, "support").await, stream(&world, "other").await);
    let running = world.running.as_ref().unwrap();
    assert_eq!(running.reload().cut(|agent| agent.as_str().ends_with("agent/support")), 1);
    assert_eq!(running.reload().cut(|agent| agent.as_str().ends_with("agent/nobody")), 0);
    assert!(broke_off(&mut support).await);
    let more = tokio::time::timeout(std::time::Duration::from_millis(200), other.frame()).await;
    assert!(more.is_err(), "the other agent's stream goes on");
    drop(other);
    world.join().await;
}

/// A CRL of the agents' development CA that revokes these certificates.
fn crl(world: &World, agents: &[&str]) -> String {
    let pem = |file: &str| std::fs::read_to_string(world.dir.join("pki").join(file)).unwrap();
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Holdpoint DEVELOPMENT ONLY");
    params.distinguished_name.push(DnType::CommonName, "example.org (DEVELOPMENT ONLY)");
    let issuer = Issuer::new(params, KeyPair::from_pem(&pem("example.org-key.pem")).unwrap());
    let now = OffsetDateTime::now_utc();
    let revoked = agents.iter().map(|agent| {
        let der = CertificateDer::from_pem_slice(pem(&format!("{agent}.pem")).as_bytes()).unwrap();
        let (_, read) = x509_parser::parse_x509_certificate(&der).unwrap();
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(read.raw_serial()),
            revocation_time: now - time::Duration::HOUR,
            reason_code: None,
            invalidity_date: None,
        }
    });
    let params = CertificateRevocationListParams {
        this_update: now - time::Duration::HOUR,
        next_update: now + time::Duration::HOUR,
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().pem().unwrap()
}

#[tokio::test]
async fn a_revoked_certificates_connections_are_cut_and_no_new_one_is_made() {
    let world = world_of(endless().await, "").await;
    std::fs::write(world.dir.join("example.crl"), crl(&world, &[])).unwrap();
    edit(&world, "holdpoint.yaml", |text| {
        text.replace("{bundle: pki/example.org.pem,", "{bundle: pki/example.org.pem, crl: example.crl,")
    });
    reload(&world).await;
    let (mut support, mut other) = (stream(&world, "support").await, stream(&world, "other").await);
    std::fs::write(world.dir.join("example.crl"), crl(&world, &["support"])).unwrap();
    reload(&world).await;
    assert!(broke_off(&mut support).await);
    // TLS 1.3 lets the client finish before its certificate is judged; nothing comes back on such a connection.
    let answer = world.agent("support").http("GET", "/odd/v1/invoices/1", None).await;
    assert!(answer.is_err(), "{answer:?}");
    let more = tokio::time::timeout(std::time::Duration::from_millis(200), other.frame()).await;
    assert!(more.is_err(), "the other agent's stream goes on");
    let refused = world.records().into_iter().filter(|record| record["reason"] == "revoked").count();
    assert_eq!(refused, 1);
    assert_eq!(world.odd.seen().len(), 2);
    drop(other);
    world.join().await;
}

#[tokio::test]
async fn a_withdrawn_root_cuts_all_that_it_vouched_for() {
    let world = world_of(endless().await, "").await;
    let mut support = stream(&world, "support").await;
    let second = world.dir.join("second");
    pki::init(&second).unwrap();
    pki::issue_agent(&second, "agent/support").unwrap();
    let (old, new) = (world.dir.join("pki/example.org.pem"), second.join("example.org.pem"));
    let both = [std::fs::read_to_string(&old).unwrap(), std::fs::read_to_string(&new).unwrap()].concat();

    // A rotation: first both roots are believed, and nobody is cut.
    std::fs::write(world.dir.join("bundle.pem"), both).unwrap();
    edit(&world, "holdpoint.yaml", |text| {
        text.replace("{bundle: pki/example.org.pem,", "{bundle: bundle.pem,")
    });
    reload(&world).await;
    let more = tokio::time::timeout(std::time::Duration::from_millis(200), support.frame()).await;
    assert!(more.is_err(), "the stream goes on");

    // Then the new one alone.
    std::fs::copy(&new, world.dir.join("bundle.pem")).unwrap();
    reload(&world).await;
    assert!(broke_off(&mut support).await);
    assert!(world.agent("support").http("GET", "/odd/v1/invoices/1", None).await.is_err());
    assert_eq!(world.odd.seen().len(), 1);
    world.join().await;
}

#[tokio::test]
async fn a_write_under_way_is_known_to_its_end_when_its_agent_is_cut() {
    let odd = Fake::that(|_| Does::WritesThen(String::new(), crate::fake::json("{}"))).await;
    let world = world_of(odd, "").await;
    let mut raw = world.raw("support").await;
    raw.send("POST /odd/v1/invoices HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    world.odd.has_seen(1).await;
    suspend(&world, "support", "suspended");
    reload(&world).await;
    assert!(!raw.until("anything").await);
    world.odd.go_on();
    assert_eq!(
        world.eventually("executed").await["agent"]["id"],
        json!("spiffe://example.org/agent/support")
    );
    world.join().await;
}

#[tokio::test]
async fn a_change_of_something_else_cuts_nobody() {
    let world = world("").await;
    let mut raw = world.raw("support").await;
    for _ in 0..5 {
        reload(&world).await;
        let (status, text) = raw.ask("GET /odd/v1/invoices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(status, 200, "{text}");
    }
    world.join().await;
}
