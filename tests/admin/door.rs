//! The demo's door: who has its link sees the console, and nobody else does, from wherever they come.

use std::net::SocketAddr;

use holdpoint::config::ListenerKind;
use holdpoint::demo::agent::Agent;
use holdpoint::demo::door::Door;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::World;

async fn open(world: &World) -> (Door, SocketAddr, String) {
    let key = world.pem("admin-key");
    let bundle = world.pem("example.org");
    let admin = Agent::new(world.address(ListenerKind::Admin), &world.pem("admin"), &key, &bundle).unwrap();
    let door = Door::open(admin).await.unwrap();
    let link = door.link();
    let (authority, key) = link.strip_prefix("http://").unwrap().split_once("/enter?key=").unwrap();
    let (address, key) = (authority.parse().unwrap(), key.to_owned());
    (door, address, key)
}

/// One request, and the whole answer.
async fn says(door: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let length = body.len();
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn the_link_leads_to_the_console_and_its_forms_work() {
    let world = World::start().await;
    let (_door, at, key) = open(&world).await;
    let entered = says(at, &format!("GET /enter?key={key} HTTP/1.1\r\nhost: {at}"), "").await;
    assert_eq!(status(&entered), "303", "{entered}");
    let cookie = entered.split("set-cookie: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let head = |line: &str| format!("{line} HTTP/1.1\r\nhost: {at}\r\ncookie: {cookie}");
    let page = says(at, &head("GET /"), "").await;
    assert!(status(&page) == "200" && page.contains("Nothing waits for people."), "{page}");
    let page = says(at, &head("GET /agents"), "").await;
    assert!(status(&page) == "200" && page.contains("agent/support") && page.contains("root@example.org"));
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    // There is the console, and nothing for programs.
    assert_eq!(status(&says(at, &head("GET /v1/agents"), "").await), "404");
    assert_eq!(status(&says(at, &head("DELETE /"), "").await), "404");
    // A form of another page is refused by the listener, as it would be without the door.
    let token = page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = format!("token={token}&reason=it+loops");
    let post = head("POST /agents/agent%2Fsupport/suspend");
    let kind = "content-type: application/x-www-form-urlencoded";
    for origin in ["https://evil.example", "null", "https://localhost", "http://127.0.0.1:1"] {
        let tried = says(at, &format!("{post}\r\n{kind}\r\norigin: {origin}"), &form).await;
        assert_eq!(status(&tried), "403", "{origin}: {tried}");
    }
    assert!(world.orders().is_empty());
    let done = says(at, &format!("{post}\r\n{kind}\r\norigin: http://{at}"), &form).await;
    assert_eq!(status(&done), "303", "{done}");
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
}

#[tokio::test]
async fn without_the_link_or_under_another_name_nobody_gets_in() {
    let world = World::start().await;
    let (_door, at, key) = open(&world).await;
    let cookie = format!("cookie: holdpoint-demo-{}={key}", at.port());
    let wrong = format!("cookie: holdpoint-demo-{}={}", at.port(), "0".repeat(key.len()));
    for head in [
        format!("GET / HTTP/1.1\r\nhost: {at}"),
        format!("GET / HTTP/1.1\r\nhost: {at}\r\n{wrong}"),
        format!("GET /enter?key= HTTP/1.1\r\nhost: {at}"),
        format!("GET /enter?key={}0 HTTP/1.1\r\nhost: {at}", &key[1..]),
        format!("GET /enter HTTP/1.1\r\nhost: {at}"),
        // A name that somebody made lead to this machine.
        format!("GET / HTTP/1.1\r\nhost: evil.example:{}\r\n{cookie}", at.port()),
        format!("GET /enter?key={key} HTTP/1.1\r\nhost: evil.example"),
    ] {
        let answer = says(at, &head, "").await;
        assert_eq!(status(&answer), "403", "{head}: {answer}");
        assert!(!answer.contains("agent/support"), "{answer}");
    }
}
