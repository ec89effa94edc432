//! The console: what it shows, literally; and what it does, for nobody but the person in front of it.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::harness::{World, of, text};

fn token(page: &str) -> &str {
    let after = page.split("name=\"token\" value=\"").nth(1).unwrap_or_else(|| panic!("no form: {page}"));
    after.split('"').next().unwrap()
}

#[tokio::test]
async fn an_agent_is_stopped_by_a_form_with_a_reason() {
    let world = World::start().await;
    let oncall = world.person("oncall");
    let page = oncall.get("/agents").await;
    assert_eq!(page.status, 200);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(
        !text(&page).contains("<script")
            && !text(&page).contains("style=\"")
            && !text(&page).contains("payer")
    );
    let page = text(&page);
    let own = token(&page);
    let fields = [("token", own), ("reason", "it loops")];
    let done =
        oncall.submits("/agents/agent%2Fsupport/suspend", &fields, &[("origin", "https://localhost")]).await;
    assert_eq!(done.status, 303, "{}", text(&done));
    assert_eq!(world.calls(&world.agent("support")).await.status, 403);
    let page = oncall.get(done.headers["location"].to_str().unwrap()).await;
    assert!(text(&page).contains("it loops") && text(&page).contains("Resume"), "{}", text(&page));
}

#[tokio::test]
async fn a_form_of_another_page_or_of_another_person_does_nothing() {
    let world = World::start().await;
    let (oncall, admin) = (world.person("oncall"), world.person("admin"));
    let page = text(&oncall.get("/agents").await);
    let own = token(&page);
    let others = text(&admin.get("/agents").await);
    let path = "/agents/agent%2Fsupport/suspend";
    let reason = ("reason", "x");
    for (fields, headers) in [
        (vec![reason], vec![]),
        (vec![("token", ""), reason], vec![]),
        (vec![("token", "AAAA"), reason], vec![]),
        (vec![("token", token(&others)), reason], vec![]),
        (vec![("token", own), reason], vec![("origin", "https://evil.example")]),
        (vec![("token", own), reason], vec![("origin", "null")]),
        (vec![("token", own), reason], vec![("sec-fetch-site", "cross-site")]),
        (vec![("token", own), reason], vec![("sec-fetch-site", "same-site")]),
        (vec![("token", own), ("reason", " ")], vec![]),
    ] {
        let tried = oncall.submits(path, &fields, &headers).await;
        assert!(tried.status == 403 || tried.status == 400, "{fields:?} {headers:?}: {}", tried.status);
    }
    // The API takes no body that a page could send without asking.
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request =
            Request::post(of("support", "/suspend")).header("host", "localhost").header("content-type", kind);
        let body = Full::new(Bytes::from(json!({"reason": "x"}).to_string()));
        assert_eq!(oncall.sends(request.body(body).unwrap()).await.status, 415, "{kind}");
    }
    let request = Request::post(of("support", "/suspend"))
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("origin", "https://evil.example");
    let body = Full::new(Bytes::from(json!({"reason": "x"}).to_string()));
    assert_eq!(oncall.sends(request.body(body).unwrap()).await.status, 403);
    assert!(world.orders().is_empty());
    assert_eq!(world.calls(&world.agent("support")).await.outcome(), "allowed");
}

#[tokio::test]
async fn what_an_agent_wrote_is_shown_as_what_it_is() {
    let world = World::start().await;
    let hostile = "<script>alert(1)</script>\" onmouseover=x \u{202e}gpj.exe\u{200b}\u{feff}&amp;";
    let refused = world.agent("support").tool("mail", hostile, json!({})).await.unwrap();
    let auditor = world.person("auditor");
    let page = text(&auditor.get(&format!("/records/{}", refused.record())).await);
    assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
    let order = json!({"reason": hostile});
    let order = world.person("admin").post(&of("support", "/suspend"), order).await.json();
    let story = format!("/records/{}", order["record"].as_str().unwrap());
    for path in ["/records", &story, "/records?agent=agent/support", "/agents/agent%2Fsupport"] {
        let page = text(&auditor.get(path).await);
        assert!(!page.contains("<script"), "{path}: {page}");
        assert!(!page.contains(['\u{202e}', '\u{200b}', '\u{feff}']), "{path}");
        let told = page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("U+202E");
        assert!(told, "{path}: {page}");
        assert!(!page.contains("\" onmouseover"), "{path}");
    }
    // What comes back in a search field is text too.
    let echoed = text(&auditor.get("/records?tool=%22%3E%3Cscript%3E%E2%80%AE").await);
    assert!(!echoed.contains("<script") && echoed.contains("&lt;script&gt;"), "{echoed}");
    let missing = text(&auditor.get("/records/%3Cscript%3E").await);
    assert!(!missing.contains("<script"), "{missing}");
}

#[tokio::test]
async fn two_clicks_lead_from_a_trace_to_rule_evidence_and_owner() {
    let world = World::start().await;
    let held = world.agent("support").tool("mail", "delete_customer", json!({"id": 1})).await.unwrap();
    let record = world.records().into_iter().find(|record| record["id"] == held.record()).unwrap();
    let oncall = world.person("oncall");
    let found = text(&oncall.get(&format!("/records?trace={}", record["trace_id"].as_str().unwrap())).await);
    let link = format!("/records/{}", held.record());
    assert!(found.contains(&format!("href=\"{link}\"")), "{found}");
    let story = text(&oncall.get(&link).await);
    let rule = record["decision"]["rule"].as_str().unwrap();
    for told in [rule, "ana@example.org", "<dt>effects</dt>", "delete", "spiffe://example.org/agent/support"]
    {
        assert!(story.contains(told), "{told}: {story}");
    }
}
