//! The console's pages of what people let go for a while: emergency lifts, which are closed and reviewed there, and
//! approvals that stand, which are taken back there; by nobody but who may, with a reason, and by their own form.

use serde_json::{Value, json};

use crate::harness::{Person, World, text};

const HOSTILE: &str = "<script>alert(1)</script>\u{202e}gpj.exe\u{200b}";

/// The administrator opens an emergency lift for an agent; its id.
async fn opened(world: &World, reason: &str) -> String {
    let wish = json!({"rules": ["hold-high-consequence"], "agents": ["agent/support"], "for": "30m", "reason": reason});
    let answer = world.person("admin").post("/v1/breakglass", wish).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn page(person: &Person, path: &str) -> String {
    let page = person.get(path).await;
    assert_eq!(page.status, 200, "{path}: {}", text(&page));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("trusted-types 'none'") && !policy.contains("unsafe"), "{policy}");
    text(&page)
}

fn token(page: &str) -> String {
    let after = page.split("name=\"token\" value=\"").nth(1).unwrap_or_else(|| panic!("no form: {page}"));
    after.split('"').next().unwrap().to_owned()
}

async fn state(world: &World, path: &str) -> String {
    let told = world.person("auditor").get(&format!("/v1{path}")).await.json();
    let all = told.get("lifts").or(told.get("standing")).unwrap();
    all[0]["state"].as_str().unwrap().to_owned()
}

async fn transfers(world: &World, number: u32) -> String {
    world
        .agent("support")
        .tool("mail", "transfer", json!({"number": number, "rounds": 0}))
        .await
        .unwrap()
        .outcome()
}

/// Submits a form in every way that must not count, and says that nothing came of it.
async fn refuses(world: &World, path: &str, (who, own): (&Person, &str), others: &str, list: &str) {
    let before = state(world, list).await;
    let (token, reason) = (("token", own), ("reason", "the mail is out"));
    for (fields, status, headers) in [
        (vec![reason], 400, vec![]),
        (vec![token], 400, vec![]),
        (vec![token, ("reason", " ")], 400, vec![]),
        (vec![token, reason, ("more", "x")], 400, vec![]),
        (vec![("token", ""), reason], 403, vec![]),
        (vec![("token", others), reason], 403, vec![]),
        (vec![token, reason], 403, vec![("origin", "https://evil.example")]),
        (vec![token, reason], 403, vec![("sec-fetch-site", "cross-site")]),
    ] {
        let tried = who.submits(path, &fields, &headers).await;
        assert_eq!(tried.status, status, "{path} {fields:?} {headers:?}: {}", text(&tried));
    }
    assert_eq!(who.get(path).await.status, 405);
    assert_eq!(state(world, list).await, before);
}

#[tokio::test]
async fn an_emergency_lift_is_closed_and_reviewed_by_forms_by_whoever_may() {
    let world = World::start().await;
    let (oncall, admin, pia) = (world.person("oncall"), world.person("admin"), world.person("pia"));
    let empty = page(&oncall, "/breakglass").await;
    for told in [
        "No emergency lift is open",
        "None. Whatever was lifted",
        "No emergency lift was ever reviewed",
        "deny-riskiest-production",
    ] {
        assert!(empty.contains(told), "{told}: {empty}");
    }
    let id = opened(&world, HOSTILE).await;
    assert_eq!(
        (transfers(&world, 1).await, transfers(&world, 2).await),
        ("allowed".to_owned(), "allowed".to_owned())
    );
    let open = page(&oncall, "/breakglass").await;
    let told = [
        "hold-high-consequence",
        "agent/support",
        "people.example.org/admin",
        "2 calls",
        "mtls ",
        "Close it now",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "U+202E",
        "1 emergency lift is open, and no review is owed.",
    ];
    for told in told.into_iter().chain([&*format!("href=\"/records?lift={id}\"")]) {
        let told = told.trim_start_matches("people.example.org/");
        assert!(open.contains(told), "{told}: {open}");
    }
    assert!(!open.contains("<script>") && !open.contains(['\u{202e}', '\u{200b}']), "{open}");
    assert!(
        text(&oncall.get("/agents").await).contains(&format!("href=\"/breakglass#{id}\"")),
        "the banner leads there"
    );
    let records = text(&oncall.get(&format!("/records?lift={id}")).await);
    assert!(records.contains("mail<wbr>.transfer"), "{records}");

    // Another team sees that it is open and nothing of what was done, and may not end it.
    let seen = page(&pia, "/breakglass").await;
    assert!(!seen.contains("Close it now") && seen.contains("No call that you may see"), "{seen}");
    let close = format!("/breakglass/{id}/close");
    let foreign = token(&text(&pia.get("/agents").await));
    let tried = pia.submits(&close, &[("token", &foreign), ("reason", "x")], &[]).await;
    assert_eq!((tried.status.as_u16(), &*state(&world, "/breakglass").await), (403, "open"));
    let own = token(&open);
    refuses(&world, &close, (&oncall, &own), &foreign, "/breakglass").await;
    assert_eq!(transfers(&world, 3).await, "allowed", "it is still open");

    let done = oncall.submits(&close, &[("token", &own), ("reason", "the mail is out")], &[]).await;
    assert_eq!(done.status, 303, "{}", text(&done));
    assert_eq!(done.headers["location"], format!("/breakglass#{id}"));
    assert_eq!((&*state(&world, "/breakglass").await, &*transfers(&world, 4).await), ("ended", "pending"));
    let again = oncall.submits(&close, &[("token", &own), ("reason", "again")], &[]).await;
    assert!(again.status == 409 && text(&again).contains("has ended before"), "{}", text(&again));

    // The review: by somebody else, who sees what was done.
    let owed = page(&admin, "/breakglass").await;
    assert!(
        owed.contains("You opened it: somebody else reviews it.") && owed.contains("the mail is out"),
        "{owed}"
    );
    assert!(page(&pia, "/breakglass").await.contains("It was for agents that you may not see"));
    let review = format!("/breakglass/{id}/review");
    for who in [&admin, &pia] {
        let own = token(&text(&who.get("/agents").await));
        let tried = who.submits(&review, &[("token", &own), ("reason", "fine")], &[]).await;
        assert_eq!(tried.status, 403, "{}", text(&tried));
    }
    refuses(&world, &review, (&oncall, &own), &foreign, "/breakglass").await;
    let done = oncall.submits(&review, &[("token", &own), ("reason", "each was looked at")], &[]).await;
    assert_eq!((done.status.as_u16(), &*state(&world, "/breakglass").await), (303, "reviewed"));
    let after = page(&oncall, "/breakglass").await;
    assert!(
        after.contains("each was looked at") && after.contains("Nothing is lifted, and no review is owed."),
        "{after}"
    );
    let words: Vec<Value> = world
        .records()
        .into_iter()
        .filter(|record| record["type"] == "breakglass")
        .map(|record| record["what"].clone())
        .collect();
    assert_eq!(words, ["opened", "closed", "reviewed"]);
}

#[tokio::test]
async fn an_approval_that_stands_is_shown_with_its_uses_and_taken_back_by_a_form() {
    let world = World::start().await;
    let (oncall, pia) = (world.person("oncall"), world.person("pia"));
    assert!(page(&oncall, "/standing").await.contains("No approval stands for more than one execution."));
    let answer =
        world.agent("support").tool("mail", "transfer", json!({"number": 1, "rounds": 0})).await.unwrap();
    let id = answer.decision().unwrap()["hold"].as_str().unwrap().to_owned();
    let hold = oncall.get(&format!("/v1/holds/{id}")).await.json()["hold"].clone();
    let terms = json!({"for": "30m", "times": 5});
    let say = json!({"digest": hold["digest"], "reason": HOSTILE, "standing": terms});
    assert_eq!(oncall.post(&format!("/v1/holds/{id}/approve"), say).await.status, 200);
    assert_eq!(
        (transfers(&world, 1).await, transfers(&world, 1).await),
        ("allowed".to_owned(), "allowed".to_owned())
    );

    let shown = page(&oncall, "/standing").await;
    let link = format!("href=\"/holds/{id}\"");
    for told in [
        "1 approval stands.",
        "mail<wbr>.transfer",
        "agent/support",
        "2 of 5",
        "oncall",
        "&lt;script&gt;",
        "U+202E",
        "Take it back",
        &link,
    ] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    assert!(!shown.contains("<script>") && !shown.contains(['\u{202e}', '\u{200b}']), "{shown}");
    let seen = page(&pia, "/standing").await;
    assert!(
        !seen.contains("transfer") && seen.contains("No approval stands"),
        "another team sees nothing: {seen}"
    );
    let auditor = page(&world.person("auditor"), "/standing").await;
    assert!(auditor.contains("not yours to take back"), "{auditor}");

    let standing = world.person("auditor").get("/v1/standing").await.json()["standing"][0]["id"].clone();
    let revoke = format!("/standing/{}/revoke", standing.as_str().unwrap());
    let (own, foreign) = (token(&shown), token(&text(&pia.get("/agents").await)));
    let tried = pia.submits(&revoke, &[("token", &foreign), ("reason", "x")], &[]).await;
    assert_eq!(tried.status, 403, "{}", text(&tried));
    refuses(&world, &revoke, (&oncall, &own), &foreign, "/standing").await;
    assert_eq!(transfers(&world, 1).await, "allowed", "it still stands");
    let done = oncall.submits(&revoke, &[("token", &own), ("reason", "no more of that")], &[]).await;
    assert_eq!(done.status, 303, "{}", text(&done));
    assert_eq!(done.headers["location"], "/standing");
    assert_eq!(
        (&*state(&world, "/standing").await, &*transfers(&world, 1).await),
        ("revoked", "executed"),
        "a repeat is told what came of it"
    );
    let ran = world.mail.seen().len();
    assert_eq!((transfers(&world, 2).await, world.mail.seen().len()), ("pending".to_owned(), ran));
    let over = page(&oncall, "/standing").await;
    assert!(over.contains("no more of that") && over.contains("3 of 5"), "{over}");
    let again = oncall.submits(&revoke, &[("token", &own), ("reason", "again")], &[]).await;
    assert!(again.status == 409 && text(&again).contains("is revoked already"), "{}", text(&again));
}
