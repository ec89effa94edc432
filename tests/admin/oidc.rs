//! People who come by way of an identity provider, and everybody who would like to look like one of them.

use holdpoint::config;
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{SOON, World, of, text};
use crate::provider::{Browser, CLIENT, CONSOLE, Login, Provider, Signed, fields, now, refused_for};

/// A gateway with a provider, by which some of its people are known.
async fn start(more: &str) -> (World, Provider) {
    let provider = Provider::start().await;
    let mut world = World::prepared().await;
    world.more = provider.section(more);
    std::fs::write(world.dir.join("secret"), format!("{}\n", crate::provider::SECRET)).unwrap();
    people(&world, &provider, "roles: [approver, oncall], teams: [care]");
    world.up().await;
    (world, provider)
}

fn people(world: &World, provider: &Provider, ona: &str) {
    let issuer = &provider.issuer;
    let people = format!(
        "- {{id: spiffe://people.example.org/ona, email: ona@example.org, {ona}, oidc: {{iss: \"{issuer}\", sub: u-ona}}}}\n\
         - {{id: spiffe://people.example.org/bea, email: bea@example.org, roles: [admin], oidc: {{iss: \"{issuer}\", sub: u-bea}}}}\n\
         - {{id: spiffe://people.example.org/admin, email: root@example.org, roles: [admin]}}\n"
    );
    std::fs::write(world.dir.join("people.yaml"), people).unwrap();
}

/// A held call, and the digest of it.
async fn held(world: &World, browser: &mut Browser<'_>) -> (String, Value) {
    let held = world.agent("support").tool("mail", "delete_customer", json!({"id": 7})).await.unwrap();
    assert_eq!(held.outcome(), "pending", "{held:?}");
    let holds = browser.api("/v1/holds?state=pending").await.json();
    let hold = &holds["holds"][0];
    let path = format!("/v1/holds/{}/approve", hold["id"].as_str().unwrap());
    (path, json!({"digest": hold["digest"], "reason": "it was asked for"}))
}

fn token(page: &str) -> String {
    let after = page.split("name=\"token\" value=\"").nth(1).unwrap_or_else(|| panic!("no form: {page}"));
    after.split('"').next().unwrap().to_owned()
}

const OWN: [(&str, &str); 1] = [("origin", CONSOLE)];

#[tokio::test]
async fn somebody_logs_in_approves_a_call_and_leaves() {
    let (world, provider) = start("").await;
    let mut ona = Browser::new(&world);
    // Nobody yet: a page leads to the login, a program is told what it lacks.
    let sent = ona.get("/records?tool=a").await;
    assert_eq!(
        (sent.status.as_u16(), &sent.headers["location"]),
        (303, &"/login?why=see&to=%2Frecords%3Ftool%3Da".parse().unwrap())
    );
    let refused = ona.api("/v1/holds").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["www-authenticate"]),
        (401, &"Bearer realm=\"holdpoint\"".parse().unwrap())
    );
    let location = ona.begins(sent.headers["location"].to_str().unwrap()).await;
    let asked = fields(location.split_once('?').unwrap().1);
    assert_eq!(asked["redirect_uri"], format!("{CONSOLE}/login/callback"));
    assert_eq!((asked["scope"].as_str(), asked["max_age"].as_str()), ("openid", "28800"));
    assert!(!asked.contains_key("prompt"));
    let back = provider.authorizes(&location, Login::of("u-ona"));
    let entered = ona.returns(&back).await;
    assert_eq!(entered.status, 200, "{}", text(&entered));
    let strict = entered.headers.get_all("set-cookie").iter().any(|set| {
        let set = set.to_str().unwrap();
        set.starts_with("__Host-holdpoint-session=") && set.contains("SameSite=Strict")
    });
    assert!(strict, "{:?}", entered.headers);
    assert!(text(&entered).contains("content=\"0;url=/records?tool=a\""), "{}", text(&entered));
    assert!(text(&ona.get("/").await).contains("ona@example.org"));
    let (path, say) = held(&world, &mut ona).await;
    let voted = ona.orders(&path, say.clone(), &OWN).await;
    assert_eq!(voted.json()["votes"][0]["email"], "ona@example.org", "{}", text(&voted));
    assert_eq!(ona.orders(&path, say.clone(), &OWN).await.status, 409, "nobody votes twice");
    // Two must approve: the other one comes with a certificate.
    let approved = world.person("admin").post(&path, say).await;
    assert_eq!(approved.json()["state"], "approved", "{}", text(&approved));
    let done = world.agent("support").tool("mail", "delete_customer", json!({"id": 7})).await.unwrap();
    assert_eq!(done.outcome(), "allowed");
    let votes = world.records().into_iter().filter(|record| record["type"] == "vote");
    let votes: Vec<String> = votes.map(|vote| vote.to_string()).collect();
    for told in [format!("oidc {} auth_time=", provider.issuer), "acr=gold amr=hwk,pin".to_owned()] {
        assert!(votes[0].contains(&told), "{told}: {votes:?}");
    }
    assert!(votes.len() == 2 && votes[1].contains("mtls "), "{votes:?}");
    let order = world.orders().into_iter().find(|order| order["action"] == "login").unwrap();
    assert_eq!(order["by"]["oidc"]["subject"], "u-ona");
    // Leaving ends the session for whoever still has its cookie.
    let cookies = ona.cookies.clone();
    let page = text(&ona.get("/").await);
    assert_eq!(ona.submits("/logout", &token(&page), &OWN).await.status, 303);
    assert!(ona.cookies.is_empty() && !ona.is_somebody().await);
    ona.cookies = cookies;
    assert!(!ona.is_somebody().await);
}

#[tokio::test]
async fn no_token_that_is_not_exactly_right_logs_anybody_in() {
    let (world, provider) = start("").await;
    let ona = || Login::of("u-ona");
    for (what, login) in [
        ("token-issuer", ona().with(json!({"iss": "http://127.0.0.1:1/realm"}))),
        ("token-audience", ona().with(json!({"aud": "another client"}))),
        ("token-audience", ona().with(json!({"aud": [CLIENT, "another client"], "azp": CLIENT}))),
        ("token-audience", ona().with(json!({"azp": "another client"}))),
        ("token-nonce", ona().with(json!({"nonce": "of another login"}))),
        ("token-nonce", ona().with(json!({"nonce": null}))),
        ("token-expired", ona().with(json!({"exp": now() - 60}))),
        ("token-malformed", ona().with(json!({"exp": "tomorrow"}))),
        ("token-malformed", ona().with(json!({"exp": null}))),
        ("token-not-yet", ona().with(json!({"nbf": now() + 300}))),
        ("token-not-yet", ona().with(json!({"iat": now() + 300}))),
        ("token-bound", ona().with(json!({"cnf": {"jkt": "x"}}))),
        ("token-malformed", ona().with(json!({"sub": ""}))),
        ("token-type", ona().kind(Some("at+jwt"))),
        ("token-algorithm", ona().signed(Signed::Not)),
        ("token-algorithm", ona().signed(Signed::ByPublicKey)),
        ("token-signature", ona().signed(Signed::ByAnother)),
        ("token-key", ona().signed(Signed::ByUnknownName)),
        ("login-insufficient", ona().ago(9 * 3600)),
        ("login-insufficient", ona().with(json!({"auth_time": null}))),
        ("unknown-person", Login::of("u-nobody")),
    ] {
        let mut browser = Browser::new(&world);
        let answer = browser.logs_in(&provider, login.clone()).await;
        assert_eq!(answer.status, 403, "{what} {login:?}: {}", text(&answer));
        assert!(!browser.cookies.contains_key("__Host-holdpoint-session") && !browser.is_somebody().await);
        refused_for(&world, what).await;
    }
    // The same way leads in with a token that is right.
    assert_eq!(Browser::new(&world).logs_in(&provider, ona().kind(None)).await.status, 200);
    world.nothing_upstream();
}

#[tokio::test]
async fn an_answer_of_the_provider_counts_once_and_in_the_browser_that_asked() {
    let (world, provider) = start("").await;
    let mut ona = Browser::new(&world);
    let location = ona.begins("/login").await;
    let back = provider.authorizes(&location, Login::of("u-ona"));
    let refused = |answer: &holdpoint::demo::agent::Answer| answer.status == 403 || answer.status == 503;
    // Another browser, whether it has begun a login of its own or not: nobody is logged in as somebody else's choice.
    let mut other = Browser::new(&world);
    assert!(refused(&other.returns(&back).await) && !other.is_somebody().await);
    other.begins("/login").await;
    assert!(refused(&other.returns(&back).await) && !other.is_somebody().await);
    for (name, value) in
        [("state", ""), ("state", "AAAA"), ("iss", "https://evil.example"), ("iss", ""), ("code", "")]
    {
        let mut wrong = back.clone();
        wrong.insert(name.to_owned(), value.to_owned());
        assert!(refused(&ona.returns(&wrong).await) && !ona.is_somebody().await, "{name} {value}");
    }
    let mut declined = back.clone();
    declined.insert("error".to_owned(), "access_denied<script>".to_owned());
    let page = ona.returns(&declined).await;
    assert!(refused(&page) && !text(&page).contains("<script>"), "{}", text(&page));
    let before = ona.cookies.clone();
    assert_eq!(ona.returns(&back).await.status, 200);
    assert!(ona.is_somebody().await);
    // The code is spent, with the cookie of the login and without.
    let mut again = Browser::new(&world);
    for cookies in [before, ona.cookies.clone()] {
        again.cookies = cookies;
        again.cookies.remove("__Host-holdpoint-session");
        assert!(refused(&again.returns(&back).await) && !again.is_somebody().await);
    }
    // A cookie that was changed tells of no login.
    let location = again.begins("/login").await;
    let cookie = again.cookies.get_mut("__Host-holdpoint-login").unwrap();
    let (body, tag) = cookie.split_once('.').unwrap();
    *cookie = format!("{}A.{tag}", &body[..body.len() - 1]);
    assert!(refused(&again.returns(&provider.authorizes(&location, Login::of("u-ona"))).await));
}

#[tokio::test]
async fn a_login_that_is_too_long_ago_shows_everything_and_decides_nothing() {
    let (world, provider) = start(", fresh: 5m, acr: [gold, platinum], amr: [hwk]").await;
    let mut ona = Browser::new(&world);
    assert_eq!(ona.logs_in(&provider, Login::of("u-ona").ago(3600)).await.status, 200);
    let (path, say) = held(&world, &mut ona).await;
    let page = text(&ona.get("/agents/agent%2Fsupport").await);
    assert!(page.contains("Log in again to decide"), "{page}");
    let refused = ona.orders(&path, say.clone(), &OWN).await;
    assert_eq!(refused.status, 401);
    let challenge = refused.headers["www-authenticate"].to_str().unwrap();
    for told in
        ["error=\"insufficient_user_authentication\"", "max_age=\"300\"", "acr_values=\"gold platinum\""]
    {
        assert!(challenge.starts_with("Bearer ") && challenge.contains(told), "{challenge}");
    }
    // An agent is stopped at once; letting it go on is a decision.
    let form = "/agents/agent%2Fsupport/suspend";
    assert_eq!(ona.submits(form, &token(&page), &OWN).await.status, 303);
    let page = text(&ona.get("/agents/agent%2Fsupport").await);
    let referer = format!("{CONSOLE}/agents/agent%2Fsupport");
    let from = [("origin", CONSOLE), ("referer", &*referer)];
    let asked = ona.submits("/agents/agent%2Fsupport/resume", &token(&page), &from).await;
    assert_eq!(asked.status, 401);
    let link = text(&asked)
        .split("class=\"button\" href=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .replace("&amp;", "&");
    assert_eq!(link, "/login?why=decide&to=%2Fagents%2Fagent%252Fsupport");
    // A provider that lets an old login do is not believed, nor one that did it in another way.
    for login in [
        Login::of("u-ona").ago(3600),
        Login::of("u-ona").with(json!({"acr": "silver"})),
        Login::of("u-ona").with(json!({"amr": ["pwd"]})),
        Login::of("u-ona").with(json!({"auth_time": now() + 300})),
    ] {
        let location = ona.begins(&link).await;
        let asked = fields(location.split_once('?').unwrap().1);
        assert_eq!((asked["prompt"].as_str(), asked["max_age"].as_str()), ("login", "300"));
        assert_eq!(asked["acr_values"], "gold platinum");
        assert_eq!(ona.returns(&provider.authorizes(&location, login)).await.status, 403);
        assert_eq!(ona.orders(&path, say.clone(), &OWN).await.status, 401);
    }
    let location = ona.begins(&link).await;
    let entered = ona.returns(&provider.authorizes(&location, Login::of("u-ona"))).await;
    assert!(text(&entered).contains("content=\"0;url=/agents/agent%2Fsupport\""), "{}", text(&entered));
    // Nothing was decided by coming back.
    world.nothing_upstream();
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    let page = text(&ona.get("/agents/agent%2Fsupport").await);
    assert!(!page.contains("Log in again to decide"));
    assert_eq!(ona.submits("/agents/agent%2Fsupport/resume", &token(&page), &from).await.status, 303);
    assert_eq!(ona.orders(&path, say, &OWN).await.json()["votes"][0]["email"], "ona@example.org");
}

#[tokio::test]
async fn connections_that_show_nothing_leave_room_for_certificates() {
    let (world, _provider) = start("").await;
    let mut open = Vec::new();
    for _ in 0..holdpoint::admin::GUEST_CONNECTIONS_MAX {
        open.push(Browser::new(&world).connects().await.unwrap());
    }
    // One more is let in by TLS and then cut.
    let mut more = Browser::new(&world).connects().await.unwrap();
    more.stream.write_all(b"GET /login HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = more.stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(world.refusal_at("admin").await["reason"], "overload");
    assert_eq!(world.person("admin").get("/v1/agents").await.status, 200);
    drop(open);
}

#[tokio::test]
async fn a_session_does_nothing_for_a_page_of_somebody_else() {
    let (world, provider) = start("").await;
    let (mut bea, mut second) = (Browser::new(&world), Browser::new(&world));
    bea.logs_in(&provider, Login::of("u-bea")).await;
    second.logs_in(&provider, Login::of("u-bea")).await;
    let own = token(&text(&bea.get("/").await));
    let others = token(&text(&second.get("/").await));
    let form = "/agents/agent%2Fsupport/suspend";
    for (what, token, headers) in [
        ("no token", "", vec![("origin", CONSOLE)]),
        ("a token of nothing", "AAAA", vec![("origin", CONSOLE)]),
        ("the token of another session", &others, vec![("origin", CONSOLE)]),
        ("another origin", &own, vec![("origin", "https://evil.example")]),
        ("no origin that can be told", &own, vec![("origin", "null")]),
        ("another site", &own, vec![("sec-fetch-site", "cross-site"), ("origin", CONSOLE)]),
        ("nothing said", &own, vec![]),
    ] {
        assert_eq!(bea.submits(form, token, &headers).await.status, 403, "{what}");
    }
    let order = json!({"reason": "x"});
    for headers in [vec![], vec![("origin", "https://evil.example")], vec![("sec-fetch-site", "same-site")]] {
        assert_eq!(bea.orders(&of("support", "/suspend"), order.clone(), &headers).await.status, 403);
    }
    assert_eq!(bea.submits("/logout", &others, &OWN).await.status, 403);
    assert!(bea.is_somebody().await);
    let orders = world.orders();
    assert!(orders.iter().all(|order| order["action"] != "suspend"), "{orders:#?}");
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");
    // Two cookies of one name: one of them is somebody else's.
    let twice = format!(
        "__Host-holdpoint-session=x; {}",
        bea.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect::<String>()
    );
    let cookies = std::mem::take(&mut bea.cookies);
    assert_eq!(bea.asks(Request::get("/v1/health").header("cookie", twice), String::new()).await.status, 401);
    bea.cookies = cookies;
    assert_eq!(bea.submits(form, &own, &OWN).await.status, 303);
}

#[tokio::test]
async fn whoever_shows_nothing_sees_nothing_and_a_wrong_certificate_is_still_refused() {
    let (world, provider) = start("").await;
    let mut nobody = Browser::new(&world);
    for path in ["/v1/agents", "/v1/records", "/v1/health", "/v1/events", "/openapi.json", "/v1/nothing"] {
        let answer = nobody.api(path).await;
        assert_eq!((answer.status.as_u16(), answer.json()["status"].as_u64()), (401, Some(401)), "{path}");
    }
    for path in ["/", "/records", "/nothing", "/agents/agent%2Fsupport"] {
        assert_eq!(nobody.get(path).await.status, 303, "{path}");
    }
    assert_eq!(nobody.get("/style.css").await.status, 200);
    // From a link elsewhere, a `Strict` cookie does not come along: the page asks once more, of its own.
    let from = Request::get("/records").header("accept", "text/html").header("sec-fetch-site", "cross-site");
    let page = nobody.asks(from, String::new()).await;
    assert!(page.status == 200 && text(&page).contains("content=\"0;url=/records\""), "{}", text(&page));
    nobody.cookies.insert("__Host-holdpoint-session".to_owned(), "A".repeat(43));
    assert!(!nobody.is_somebody().await);
    let tried = nobody.orders(&of("support", "/suspend"), json!({"reason": "x"}), &OWN).await;
    assert_eq!(tried.status, 401);
    for path in ["/login?to=//evil.example", "/login?to=https://evil.example/", "/login?to=/%5Cevil.example"]
    {
        let location = nobody.begins(path).await;
        let entered = nobody.returns(&provider.authorizes(&location, Login::of("u-ona"))).await;
        assert!(text(&entered).contains("content=\"0;url=/\""), "{path}: {}", text(&entered));
        nobody.cookies.clear();
    }
    assert!(world.at("support", holdpoint::config::ListenerKind::Admin).is_shut_out("/v1/agents").await);
    assert_eq!(world.refusal_at("admin").await["reason"], "wrong-role");
    assert_eq!(world.person("admin").get("/v1/agents").await.status, 200);
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");
}

#[tokio::test]
async fn whoever_is_taken_from_the_people_is_nobody_at_once() {
    let (world, provider) = start("").await;
    let mut ona = Browser::new(&world);
    ona.logs_in(&provider, Login::of("u-ona")).await;
    let (path, say) = held(&world, &mut ona).await;
    people(&world, &provider, "roles: [auditor]");
    world.running.as_ref().unwrap().reload().now().await.unwrap();
    assert_eq!(ona.orders(&path, say.clone(), &OWN).await.status, 403, "the role is gone");
    let file = world.dir.join("people.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("u-ona", "u-somebody-else");
    std::fs::write(&file, text).unwrap();
    world.running.as_ref().unwrap().reload().now().await.unwrap();
    assert_eq!(ona.api("/v1/holds").await.status, 403, "the person is");
    assert_eq!(ona.orders(&path, say, &OWN).await.status, 403);
    world.nothing_upstream();
}

#[tokio::test]
async fn a_provider_that_is_down_lets_nobody_in_and_keeps_nobody_with_a_certificate_out() {
    let (world, mut provider) = start("").await;
    provider.down().await;
    let mut ona = Browser::new(&world);
    let refused = ona.get("/login").await;
    assert_eq!(refused.status, 503, "{}", text(&refused));
    let token = format!("Bearer {}", provider.token(Login::of("u-bea").kind(Some("at+jwt"))));
    let bearer = ("authorization", &*token);
    let tried = ona.orders(&of("support", "/suspend"), json!({"reason": "x"}), &[bearer]).await;
    assert_eq!(tried.status, 503);
    let admin = world.person("admin");
    let order = json!({"reason": "the provider is down"});
    assert_eq!(admin.post(&of("support", "/suspend"), order.clone()).await.status, 200);
    assert_eq!(admin.post(&of("support", "/resume"), order).await.status, 200);
    provider.up().await;
    let end = tokio::time::Instant::now() + SOON;
    while ona.get("/login").await.status != 303 {
        assert!(tokio::time::Instant::now() < end, "nobody can log in any more");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    ona.logs_in(&provider, Login::of("u-ona")).await;
    // Sessions need the provider no more.
    provider.down().await;
    assert!(ona.is_somebody().await);
}

#[tokio::test]
async fn mistakes_in_the_section_are_told_where_they_are() {
    let (mut world, provider) = start("").await;
    world.down().await;
    let file = world.dir.join("holdpoint.yaml");
    let whole = std::fs::read_to_string(&file).unwrap();
    let check = |text: String| {
        std::fs::write(&file, text).unwrap();
        let mistakes = config::load(&file).err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(check(whole.clone()), "");
    let section = provider.section("");
    let told = check(whole.replace(&section, ""));
    assert!(told.contains("/ona: has `oidc`, and the configuration has no section `oidc`"), "{told}");
    let bad = "oidc: {issuer: \"http://id.example.org\", client_id: x, client_secret_file: missing, redirect: \"http://a/b\", \
               audience: x, fresh: 25h, acr: [\"a b\"], ca_file: secret}\n";
    let told = check(whole.replace(&section, bad));
    for mistake in [
        "oidc.issuer: must be an https address",
        "oidc.audience: must not be the client_id",
        "oidc.fresh: must be more than 0s and at most 24h",
        "oidc.acr: must be words without blanks",
        "oidc.redirect: must be the console's public origin",
        "oidc.client_secret_file: missing: ",
        "oidc.ca_file: ",
        "/ona: has `oidc.iss`",
    ] {
        assert!(told.contains(mistake), "{mistake}: {told}");
    }
    // With a provider nobody needs a certificate, and so no domain of people; but an agent's name is never a person's.
    let alone = whole.replace("    people.example.org: {bundle: pki/people.pem, roles: [people]}\n", "");
    let told = check(alone);
    assert!(
        told.contains("/admin: is of no trust domain")
            && !told.contains("/ona: ")
            && !told.contains("trust.domains"),
        "{told}"
    );
    let people = std::fs::read_to_string(world.dir.join("people.yaml")).unwrap();
    std::fs::write(
        world.dir.join("people.yaml"),
        people.replace("people.example.org/ona", "example.org/ona"),
    )
    .unwrap();
    assert!(check(whole).contains("spiffe://example.org/ona: is of no trust domain with roles: [people]"));
}
