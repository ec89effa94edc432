//! What is wrong at the start is named, with the code that a script can act on, before anything is listened on.

use std::os::unix::fs::PermissionsExt;

use crate::harness::World;
use crate::side::{files, place, program, token_file, untouched};

async fn ends(arguments: &[String], code: i32, says: &str) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = tokio::time::timeout(crate::side::SOON, program(&arguments).output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(says), "{arguments:?}: {said}");
    assert!(ended.stdout.is_empty());
}

fn with(base: &[String], more: &[&str]) -> Vec<String> {
    base.iter().cloned().chain(more.iter().map(|text| (*text).to_owned())).collect()
}

#[tokio::test]
async fn wrong_usage_ends_with_64_and_names_the_flag() {
    let world = World::start().await;
    let base = [place(&world, "mail"), files(&world, "support")].concat();
    let local = ["--listen", "127.0.0.1:0"];
    ends(&with(&base, &local), 64, "--allow-uid").await;
    ends(&base, 64, "--listen").await;
    ends(&with(&base, &["--stdio", "--no-local-auth"]), 64, "--stdio").await;
    ends(&with(&base, &["--listen", "0.0.0.0:0", "--no-local-auth"]), 64, "loopback").await;
    ends(&with(&base, &["--listen", "192.0.2.1:80", "--no-local-auth"]), 64, "loopback").await;
    ends(&with(&base, &["--listen", "nowhere", "--no-local-auth"]), 64, "--listen nowhere").await;
    ends(&with(&base, &["--stdio", "--gateway-id", "example.org"]), 64, "--gateway-id").await;
    ends(&with(&place(&world, "mail"), &["--stdio"]), 64, "--workload-api").await;
    ends(&with(&place(&world, "mail"), &["--stdio", "--workload-api", "/run/a"]), 64, "unix:///PATH").await;
    ends(&with(&place(&world, "a/b"), &["--stdio", "--workload-api", "unix:///x"]), 64, "--upstream a/b")
        .await;
    let plain = ["--gateway", "http://127.0.0.1:1", "--upstream", "mail", "--stdio"].map(str::to_owned);
    ends(&[plain.to_vec(), files(&world, "support")].concat(), 64, "expected https://").await;
    untouched(world).await;
}

#[tokio::test]
async fn a_file_that_will_not_do_is_named() {
    let world = World::start().await;
    let stdio = |files: Vec<String>| with(&[place(&world, "mail"), files].concat(), &["--stdio"]);
    let mut absent = files(&world, "support");
    absent[1] = "/nonexistent.pem".to_owned();
    ends(&stdio(absent), 64, "--cert /nonexistent.pem").await;
    let mut foreign = files(&world, "support");
    foreign[3] = files(&world, "other")[3].clone();
    ends(&stdio(foreign.clone()), 64, &foreign[3]).await;

    let token = token_file(&world);
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o640)).unwrap();
    let base = [place(&world, "mail"), files(&world, "support")].concat();
    let local = ["--listen", "127.0.0.1:0", "--token-file", &token];
    ends(&with(&base, &local), 64, "mode 0640").await;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&token, "short\n").unwrap();
    ends(&with(&base, &local), 64, "at least 16").await;
    untouched(world).await;
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone() {
    let world = World::start().await;
    let base = [place(&world, "mail"), files(&world, "support")].concat();
    let path = world.dir.join("s");
    let listen = format!("unix://{}", path.display());
    let local = ["--listen", &listen, "--no-local-auth"];
    std::fs::write(&path, "precious").unwrap();
    ends(&with(&base, &local), 2, "no socket").await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let held = std::os::unix::net::UnixListener::bind(&path).unwrap();
    ends(&with(&base, &local), 2, "another process listens there").await;
    drop(held);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    ends(&with(&base, &["--listen", &address, "--no-local-auth"]), 2, &address).await;
    untouched(world).await;
}
