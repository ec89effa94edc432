//! The local socket: calls and streams pass, and who may use it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::fake::{Does, Fake};
use crate::harness::World;
use crate::side::{Side, TOKEN, files, me, status, token_file, untouched};

#[tokio::test]
async fn a_call_reaches_the_upstream_as_the_workload() {
    let world = World::start().await;
    let side = Side::open(&world, "mail").await;
    let answer = side.call("search_customers", "").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("C-1007"), "{answer}");
    assert_eq!(world.mail.seen().len(), 1);
    let intents: Vec<_> = world.records().into_iter().filter(|record| record["type"] == "intent").collect();
    assert_eq!(intents.len(), 1);
    assert!(intents[0].to_string().contains("spiffe://example.org/agent/support"), "{}", intents[0]);
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn a_denied_call_is_told_as_the_gateway_tells_it() {
    let world = World::start().await;
    let side =
        Side::with(&world, "mail", &files(&world, "reader"), &["--listen", "[::1]:0", "--no-local-auth"])
            .await;
    let answer = side.call("note", "").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("\"isError\":true") && answer.contains("denied"), "{answer}");
    world.nothing_upstream();
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn local_paths_are_those_of_the_upstream() {
    let world = World::start().await;
    let side = Side::open(&world, "crm").await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: {}", side.host());
    let answer = side.ask(&get("/v1/invoices/1001?x=1"), "").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("420.00"), "{answer}");
    assert_eq!(world.crm.seen()[0].target, "/v1/invoices/1001?x=1");

    // None leads out of the upstream, whoever decodes what.
    for path in ["/../mail/mcp", "/a/%2e%2E/b", "/v1/./x", "*"] {
        let answer = side.ask(&get(path), "").await;
        assert_eq!(status(&answer), 400, "{path}: {answer}");
    }
    assert_eq!(world.crm.seen().len(), 1);
    assert!(world.mail.seen().is_empty());
    drop(side);
    world.join().await;
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nd\r\ndata: first\n\n\r\n";

#[tokio::test]
async fn an_event_arrives_before_the_reply_ends() {
    let stream =
        Fake::that(|_| Does::WritesThen(STREAM.to_owned(), "c\r\ndata: last\n\n\r\n0\r\n\r\n".to_owned()));
    let world = World::odd(stream.await, "", "").await;
    let side = Side::open(&world, "odd").await;
    let mut asked = side.begin(&format!("GET /v1/events HTTP/1.1\r\nhost: {}", side.host()), "").await;
    asked.until("data: first").await;
    // The upstream has sent no more than that, and does only now.
    world.odd.go_on();
    let whole = asked.rest().await;
    assert!(whole.contains("data: last") && whole.ends_with("0\r\n\r\n"), "{whole}");
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_call_upstream() {
    let world =
        World::odd(Fake::that(|_| Does::WritesThen(STREAM.to_owned(), String::new())).await, "", "").await;
    let side = Side::open(&world, "odd").await;
    let mut asked = side.begin(&format!("GET /v1/events HTTP/1.1\r\nhost: {}", side.host()), "").await;
    asked.until("data: first").await;
    drop(asked);
    world.odd.was_left(1).await;
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_no_whole_reply() {
    let world = World::odd(Fake::that(|_| Does::WritesAndCloses(STREAM.to_owned())).await, "", "").await;
    let side = Side::open(&world, "odd").await;
    let answer = side.ask(&format!("GET /v1/events HTTP/1.1\r\nhost: {}", side.host()), "").await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn only_the_right_token_is_let_in_and_it_goes_no_further() {
    let world = World::start().await;
    let file = token_file(&world);
    let local = ["--listen", "127.0.0.1:0", "--token-file", &file];
    let side = Side::with(&world, "mail", &files(&world, "support"), &local).await;
    let twice = format!("\r\nauthorization: Bearer {TOKEN}\r\nauthorization: Bearer x");
    let longer = format!("\r\nauthorization: Bearer {TOKEN}0");
    let basic = format!("\r\nauthorization: Basic {TOKEN}");
    for wrong in ["", "\r\nauthorization: Bearer", "\r\nauthorization: Bearer 0", &twice, &longer, &basic] {
        let answer = side.call("search_customers", wrong).await;
        assert_eq!(status(&answer), 401, "{wrong}: {answer}");
        assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
    }
    world.nothing_upstream();
    assert!(crate::side::heard_nothing(&world));

    let answer = side.call("search_customers", &format!("\r\nauthorization: bearer {TOKEN}")).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(world.mail.seen()[0].headers.get("authorization").is_none());
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn only_processes_of_the_named_user_are_let_in() {
    let world = World::start().await;
    let (mine, other) = (me().to_string(), (me() + 1).to_string());
    let socket = format!("unix://{}", world.dir.join("agent.sock").display());
    for listen in ["127.0.0.1:0", "[::1]:0", &socket] {
        let refusing = Side::with(
            &world,
            "mail",
            &files(&world, "support"),
            &["--listen", listen, "--allow-uid", &other],
        )
        .await;
        let answer = refusing.call("search_customers", "").await;
        assert_eq!(status(&answer), 403, "{listen}: {answer}");
        assert!(answer.contains("local-user"), "{answer}");
        drop(refusing);
    }
    world.nothing_upstream();

    for (count, listen) in ["127.0.0.1:0", "[::1]:0", &socket].into_iter().enumerate() {
        let side = Side::with(
            &world,
            "mail",
            &files(&world, "support"),
            &["--listen", listen, "--allow-uid", &mine],
        )
        .await;
        let answer = side.call("search_customers", "").await;
        assert_eq!(status(&answer), 200, "{listen}: {answer}");
        assert_eq!(world.mail.seen().len(), count + 1);
    }
    world.join().await;
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone() {
    let world = World::start().await;
    let path = world.dir.join("agent.sock");
    // What an earlier process left behind, on which nothing listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listen = format!("unix://{}", path.display());
    let side =
        Side::with(&world, "mail", &files(&world, "support"), &["--listen", &listen, "--no-local-auth"])
            .await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(status(&side.call("search_customers", "").await), 200);
    let left: Vec<_> =
        std::fs::read_dir(&world.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| Path::new(name).starts_with(".hp")), "{left:?}");
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn a_web_page_cannot_use_the_socket() {
    let world = World::start().await;
    let side = Side::open(&world, "mail").await;
    let port = side.host().rsplit(':').next().unwrap().to_owned();
    let ask = async |host: &str, more: &str| {
        let head = format!("POST /mcp HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json{more}");
        side.ask(&head, &crate::side::call(1, "search_customers").to_string()).await
    };
    for host in ["evil.example.com", &format!("evil.example.com:{port}"), "localhost", "127.0.0.1:1", ""] {
        let answer = ask(host, "").await;
        assert_eq!(status(&answer), 403, "{host}: {answer}");
    }
    let origins = ["http://evil.example.com", "null", "http://localhost:1", "file://"];
    for origin in origins.map(str::to_owned).into_iter().chain([format!("https://localhost:{port}")]) {
        let answer = ask(&side.host(), &format!("\r\norigin: {origin}")).await;
        assert_eq!(status(&answer), 403, "{origin}: {answer}");
    }
    let two = ask(&side.host(), &format!("\r\nhost: {}", side.host())).await;
    assert!((400..500).contains(&status(&two)), "{two}");
    world.nothing_upstream();
    assert!(crate::side::heard_nothing(&world));

    for host in [format!("localhost:{port}"), format!("[::1]:{port}"), side.host()] {
        let answer =
            ask(&host, &format!("\r\norigin: http://{host}\r\naccept: application/json, text/event-stream"))
                .await;
        assert_eq!(status(&answer), 200, "{host}: {answer}");
    }
    drop(side);
    world.join().await;
}

#[tokio::test]
async fn without_a_gateway_the_answer_says_so() {
    let mut world = World::start().await;
    let side = Side::open(&world, "mail").await;
    world.down().await;
    let answer = side.call("search_customers", "").await;
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("cannot be reached"), "{answer}");
    drop(side);
    untouched(world).await;
}

#[tokio::test]
async fn nothing_is_said_to_a_gateway_that_is_not_the_one_named() {
    let mut world = World::start().await;
    let imposter =
        ["--listen", "127.0.0.1:0", "--no-local-auth", "--gateway-id", "spiffe://example.org/gateway/other"];
    let side = Side::with(&world, "mail", &files(&world, "support"), &imposter).await;
    let answer = side.call("search_customers", "").await;
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(answer.contains("not the one that was expected"), "{answer}");
    drop(side);
    world.down().await;
    world.nothing_upstream();
    // The gateway may have noted the handshake that was broken off, and nothing else.
    assert!(world.records().iter().all(|record| record["type"] != "intent"), "{:#?}", world.records());
}
