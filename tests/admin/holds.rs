//! The console's pages of held calls: what they show, literally, and that nothing is decided but by the form that a
//! person was shown.

use serde_json::{Value, json};

use crate::harness::{World, text};

/// A call of consequence 4 that waits; its hold.
async fn held(world: &World, arguments: Value) -> Value {
    let answer = world.agent("support").tool("mail", "delete_customer", arguments).await.unwrap();
    assert_eq!(answer.outcome(), "pending");
    let id = answer.decision().unwrap()["hold"].as_str().unwrap().to_owned();
    world.person("auditor").get(&format!("/v1/holds/{id}")).await.json()["hold"].clone()
}

fn path(hold: &Value, verb: &str) -> String {
    format!("/holds/{}{verb}", hold["id"].as_str().unwrap())
}

/// The value of a hidden field.
fn field(page: &str, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let after = page.split(&mark).nth(1).unwrap_or_else(|| panic!("no {name}: {page}"));
    after.split('"').next().unwrap().to_owned()
}

async fn votes(world: &World, hold: &Value) -> Value {
    let shown = world.person("auditor").get(&format!("/v1{}", path(hold, ""))).await.json();
    shown["hold"]["votes"].clone()
}

#[tokio::test]
async fn a_form_without_token_digest_or_reason_decides_nothing() {
    let world = World::start().await;
    let hold = held(&world, json!({"id": 1})).await;
    let (oncall, admin) = (world.person("oncall"), world.person("admin"));
    let page = text(&oncall.get(&path(&hold, "")).await);
    let (own, digest) = (field(&page, "token"), field(&page, "digest"));
    assert_eq!(json!(digest), hold["digest"], "the vote carries the digest of what was shown");
    let others = field(&text(&admin.get(&path(&hold, "")).await), "token");
    let (token, digest, reason) = (("token", &*own), ("digest", &*digest), ("reason", "looked at"));
    let other = format!("sha256:{}", "0".repeat(64));
    for (fields, status, headers) in [
        (vec![digest, reason], 400, vec![]),
        (vec![token, reason], 400, vec![]),
        (vec![token, digest, ("reason", " ")], 400, vec![]),
        (vec![token, digest, reason, ("more", "x")], 400, vec![]),
        (vec![("token", ""), digest, reason], 403, vec![]),
        (vec![("token", &*others), digest, reason], 403, vec![]),
        (vec![token, ("digest", &*other), reason], 409, vec![]),
        (vec![token, ("digest", "x"), reason], 400, vec![]),
        (vec![token, digest, reason], 403, vec![("origin", "https://evil.example")]),
        (vec![token, digest, reason], 403, vec![("sec-fetch-site", "cross-site")]),
    ] {
        for verb in ["/approve", "/deny", "/remember"] {
            let tried = oncall.submits(&path(&hold, verb), &fields, &headers).await;
            // Nothing is remembered for consequence 4, whatever else is right.
            assert!(
                tried.status == status || verb == "/remember" && tried.status == 400,
                "{verb} {fields:?}: {}",
                text(&tried)
            );
        }
    }
    assert_eq!(oncall.get(&path(&hold, "/approve")).await.status, 405);
    assert_eq!(votes(&world, &hold).await, json!([]));
    world.nothing_upstream();
    // And with everything it should have, it counts.
    let done = oncall.submits(&path(&hold, "/approve"), &[token, digest, reason], &[]).await;
    assert_eq!(done.status, 303, "{}", text(&done));
    assert_eq!(done.headers["location"], path(&hold, ""));
    assert_eq!(votes(&world, &hold).await[0]["reason"], "looked at");
    world.nothing_upstream();
}

#[tokio::test]
async fn who_comes_too_late_reads_what_became_of_the_call() {
    let world = World::start().await;
    let hold = held(&world, json!({"id": 2})).await;
    let (oncall, admin) = (world.person("oncall"), world.person("admin"));
    let page = text(&oncall.get(&path(&hold, "")).await);
    let (token, digest) = (field(&page, "token"), field(&page, "digest"));
    let said = json!({"digest": digest, "reason": "not that customer"});
    assert_eq!(admin.post(&format!("/v1{}", path(&hold, "/deny")), said).await.status, 200);
    let fields = [("token", &*token), ("digest", &*digest), ("reason", "fine")];
    let late = oncall.submits(&path(&hold, "/approve"), &fields, &[]).await;
    assert_eq!(late.status, 409);
    for told in ["too late", "root@example.org", "not that customer", "is denied"] {
        assert!(text(&late).contains(told), "{told}: {}", text(&late));
    }
    assert_eq!(votes(&world, &hold).await.as_array().unwrap().len(), 1);
    // Who may see and not decide has no form, and reads why.
    let hold = held(&world, json!({"id": 3})).await;
    let page = text(&world.person("auditor").get(&path(&hold, "")).await);
    assert!(!page.contains("<form") && page.contains("Policy does not let you decide this call"), "{page}");
    assert_eq!(world.person("pia").get(&path(&hold, "")).await.status, 404);
    assert!(!text(&world.person("pia").get("/holds").await).contains("delete_customer"));
    world.nothing_upstream();
}

#[tokio::test]
async fn what_an_agent_wants_to_send_is_shown_as_what_it_is() {
    let world = World::start().await;
    let hostile = "<script>alert(1)</script>\" onmouseover=x \u{202e}gpj\u{200b}\u{200b}\u{1b}[2J&amp;";
    let arguments = json!({"id": hostile, "<script>k</script>": 9007199254740993_u64, "text": "one\ntwo"});
    let hold = held(&world, arguments).await;
    let oncall = world.person("oncall");
    let page = text(&oncall.get(&path(&hold, "")).await);
    assert_eq!(page.matches("<script").count(), 1, "its own script alone: {page}");
    assert!(!page.contains(['\u{202e}', '\u{200b}', '\u{1b}']) && !page.contains("\" onmouseover"), "{page}");
    for told in [
        "&lt;script&gt;alert(1)",
        "&lt;script&gt;k",
        "U+202E",
        "U+200B",
        "U+001B",
        "&amp;amp;",
        "9007199254740993",
        "↵",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
}

#[tokio::test]
async fn pages_of_holds_run_the_gateways_own_script_and_nothing_else() {
    let world = World::start().await;
    let hold = held(&world, json!({"id": 4})).await;
    let oncall = world.person("oncall");
    for page in ["/", "/holds", "/holds?show=ended", &path(&hold, "")] {
        let page = oncall.get(page).await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        let strict =
            ["default-src 'none'", "script-src 'self'", "trusted-types 'none'", "form-action 'self'"];
        assert!(strict.iter().all(|part| policy.contains(part)) && !policy.contains("unsafe"), "{policy}");
        assert_eq!(text(&page).matches("<script").count(), 1);
        assert!(text(&page).contains("<script src=\"/live.js\" defer></script>"));
    }
    let script = oncall.get("/live.js").await;
    assert_eq!(script.headers["content-type"], "text/javascript; charset=utf-8");
    for sink in ["innerHTML", "outerHTML", "insertAdjacent", "eval", "document.write", "createElement"] {
        assert!(!text(&script).contains(sink), "{sink}");
    }
    // Pages without it run none.
    let records = oncall.get("/records").await;
    assert!(!records.headers["content-security-policy"].to_str().unwrap().contains("script-src"));
}
