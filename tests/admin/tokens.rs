//! Programs that show an access token of the identity provider.

use holdpoint::config::ListenerKind;
use http::Request;
use serde_json::json;
use tokio::process::Command;

use crate::harness::{World, of, text};
use crate::provider::{AUDIENCE, Browser, CLIENT, Login, Provider, Signed, now, refused_for};

async fn start(more: &str) -> (World, Provider) {
    let provider = Provider::start().await;
    let mut world = World::prepared().await;
    world.more = provider.section(more);
    std::fs::write(world.dir.join("secret"), "x").unwrap();
    let issuer = &provider.issuer;
    let person = format!(
        "- {{id: spiffe://people.example.org/bea, email: bea@example.org, roles: [admin], oidc: {{iss: \"{issuer}\", sub: u-bea}}}}\n\
         - {{id: spiffe://people.example.org/admin, email: root@example.org, roles: [admin]}}\n"
    );
    std::fs::write(world.dir.join("people.yaml"), person).unwrap();
    world.up().await;
    (world, provider)
}

fn bea() -> Login {
    Login::of("u-bea").kind(Some("at+jwt"))
}

async fn shows(world: &World, token: &str) -> holdpoint::demo::agent::Answer {
    let request = Request::get("/v1/agents").header("authorization", format!("Bearer {token}"));
    Browser::new(world).asks(request, String::new()).await
}

#[tokio::test]
async fn a_program_with_a_token_is_its_person_and_nobody_else() {
    let (world, provider) = start("").await;
    assert_eq!(shows(&world, &provider.token(bea())).await.status, 200);
    let also = bea().with(json!({"aud": [AUDIENCE, "others"]})).kind(Some("application/at+jwt"));
    assert_eq!(shows(&world, &provider.token(also)).await.status, 200);
    for (reason, login) in [
        // An ID token is no access token, whomever it is for.
        ("token-type", bea().kind(Some("JWT"))),
        ("token-type", bea().kind(None)),
        ("token-type", bea().kind(Some("JWT")).with(json!({"aud": CLIENT}))),
        ("token-audience", bea().with(json!({"aud": CLIENT}))),
        ("token-issuer", bea().with(json!({"iss": "https://id.example.org"}))),
        ("token-expired", bea().with(json!({"exp": now() - 60}))),
        ("token-malformed", bea().with(json!({"aud": null}))),
        ("token-bound", bea().with(json!({"cnf": {"x5t#S256": "x"}}))),
        ("token-algorithm", bea().signed(Signed::Not)),
        ("token-algorithm", bea().signed(Signed::ByPublicKey)),
        ("token-signature", bea().signed(Signed::ByAnother)),
        ("token-key", bea().signed(Signed::ByUnknownName)),
    ] {
        let answer = shows(&world, &provider.token(login.clone())).await;
        assert_eq!(answer.status, 401, "{login:?}: {}", text(&answer));
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        refused_for(&world, reason).await;
    }
    for token in ["", "x", "a.b.c", "....", &"A".repeat(20_000)] {
        assert_eq!(shows(&world, token).await.status, 401, "{token:.10}");
    }
    assert_eq!(
        shows(&world, &provider.token(Login { subject: "u-other".to_owned(), ..bea() })).await.status,
        403
    );
}

#[tokio::test]
async fn a_token_of_an_old_login_sees_and_does_not_decide() {
    let (world, provider) = start("").await;
    let mut program = Browser::new(&world);
    let order = json!({"reason": "x"});
    let bearer = |token: &str| format!("Bearer {token}");
    let old = bearer(&provider.token(bea().ago(3600)));
    let old = [("authorization", &*old)];
    assert_eq!(program.orders(&of("support", "/suspend"), order.clone(), &old).await.status, 200);
    let mut unsaid = bea().with(json!({"auth_time": null}));
    unsaid.ago = std::time::Duration::ZERO;
    for token in [provider.token(bea().ago(3600)), provider.token(unsaid)] {
        let token = bearer(&token);
        let refused =
            program.orders(&of("support", "/resume"), order.clone(), &[("authorization", &token)]).await;
        let challenge = refused.headers["www-authenticate"].to_str().unwrap().to_owned();
        assert!(refused.status == 401 && challenge.contains("max_age=\"900\""), "{challenge}");
    }
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    let fresh = bearer(&provider.token(bea()));
    let fresh = [("authorization", &*fresh)];
    assert_eq!(program.orders(&of("support", "/resume"), order, &fresh).await.status, 200);
}

#[tokio::test]
async fn a_key_that_nobody_has_heard_of_is_asked_for_once() {
    let (world, provider) = start("").await;
    assert_eq!(shows(&world, &provider.token(bea())).await.status, 200);
    assert_eq!(provider.asked(), 1);
    provider.rotates();
    assert_eq!(shows(&world, &provider.token(bea())).await.status, 200, "the new key is asked for");
    for at in 0..50 {
        let login = bea().signed(Signed::ByUnknownName).with(json!({"jti": at}));
        assert_eq!(shows(&world, &provider.token(login)).await.status, 401);
    }
    assert_eq!(provider.asked(), 2, "whoever invents keys does not make the gateway ask");
}

#[tokio::test]
async fn nobody_shows_two_things_and_nothing_is_taken_that_was_not_configured() {
    let (world, provider) = start("").await;
    let token = format!("Bearer {}", provider.token(bea()));
    let request = Request::get("/v1/agents").header("host", "localhost").header("authorization", &token);
    let both = world.person("admin").sends(request.body(Default::default()).unwrap()).await;
    assert_eq!(both.status, 400);
    let twice = Request::get("/v1/agents").header("authorization", &token).header("authorization", &token);
    assert_eq!(Browser::new(&world).asks(twice, String::new()).await.status, 400);
    let basic = Request::get("/v1/agents").header("authorization", "Basic YTpi");
    assert_eq!(Browser::new(&world).asks(basic, String::new()).await.status, 401);
    let mut world = world;
    world.down().await;
    world.more = world.more.replace(&format!(", audience: \"{AUDIENCE}\""), "");
    world.up().await;
    assert_eq!(shows(&world, &provider.token(bea())).await.status, 401);
}

#[tokio::test]
async fn the_command_line_takes_a_token_from_a_file() {
    let (world, provider) = start("").await;
    let file = world.dir.join("token");
    let run = async |token: String, arguments: &[&str]| {
        std::fs::write(&file, token + "\n").unwrap();
        let port = world.address(ListenerKind::Admin).port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
        command
            .arg("agents")
            .args(arguments)
            .env("HOLDPOINT_ADDR", format!("https://localhost:{port}"))
            .env("HOLDPOINT_TOKEN_FILE", &file)
            .env("HOLDPOINT_CACERT", world.pem("example.org"));
        let output = command.output().await.unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out) =
        run(provider.token(bea().ago(3600)), &["suspend", "agent/support", "--reason", "it loops"]).await;
    assert!(code == 0 && out.contains("is now suspended"), "{out}");
    let (code, out) =
        run(provider.token(bea().ago(3600)), &["resume", "agent/support", "--reason", "mended"]).await;
    assert!(code == 1 && out.contains("log in again"), "{code} {out}");
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    let (code, out) = run(provider.token(bea()), &["resume", "agent/support", "--reason", "mended"]).await;
    assert!(code == 0, "{out}");
    let (code, out) = run("not a token".to_owned(), &["list"]).await;
    assert!(code == 1 && !out.contains("agent/support"), "{code} {out}");
}
