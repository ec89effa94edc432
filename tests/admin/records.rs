//! Records: found, told as a story, and read as they are written; and the API's description of itself.

use holdpoint::config::ListenerKind;
use serde_json::json;

use crate::harness::{World, text};

#[tokio::test]
async fn from_the_trace_of_a_refused_call_to_rule_evidence_and_owner() {
    let world = World::start().await;
    let agent = world.agent("support");
    agent.tool("mail", "read_inbox", json!({})).await.unwrap();
    let held = agent.tool("mail", "delete_customer", json!({"id": 1})).await.unwrap();
    let record = world.records().into_iter().find(|record| record["id"] == held.record()).unwrap();
    let trace = record["trace_id"].as_str().unwrap();

    let oncall = world.person("oncall");
    let found = oncall.get(&format!("/v1/records?trace={trace}")).await.json();
    assert_eq!(found["records"][0]["id"], held.record());
    for id in [trace, &held.record()] {
        let story = oncall.get(&format!("/v1/records/{id}")).await.json();
        let call = &story["calls"][0];
        assert_eq!(call["rule"], record["decision"]["rule"], "{story:#}");
        assert_eq!(call["policies"], record["decision"]["policies"]);
        assert_eq!((&call["owner"], &call["team"]), (&json!("ana@example.org"), &json!("care")));
        assert_eq!(call["evidence"]["labels"], record["labels"]);
        assert_eq!(call["evidence"]["effects"], json!(["delete"]));
        assert_eq!(story["records"][0], record);
    }
    // Who looks after another team finds nothing, and is told no more than that.
    let pia = world.person("pia");
    assert_eq!(pia.get(&format!("/v1/records?trace={trace}")).await.json()["records"], json!([]));
    let story = pia.get(&format!("/v1/records/{trace}")).await;
    assert!(story.status == 403 && !text(&story).contains("delete_customer"));
    world.tried(|order| order["decision"]["outcome"] == "denied").await;
}

#[tokio::test]
async fn records_are_found_by_what_they_say_and_in_pages() {
    let world = World::start().await;
    for name in ["support", "payer", "support"] {
        world.calls(&world.agent(name)).await;
    }
    let auditor = world.person("auditor");
    let found = |query: &'static str| {
        let auditor = &auditor;
        async move {
            let body = auditor.get(&format!("/v1/records?{query}")).await.json();
            body["records"].as_array().unwrap_or_else(|| panic!("{query}: {body}")).len()
        }
    };
    assert_eq!(found("agent=agent/support").await, 4);
    assert_eq!(found("agent=spiffe://example.org/agent/payer&outcome=executed").await, 1);
    assert_eq!(found("tool=search_customers&upstream=mail").await, 6);
    assert_eq!(found("tool=search").await, 0);
    assert_eq!(found("from=2099-01-01").await, 0);
    assert_eq!(found("to=2020-01-01T00:00:00Z").await, 0);
    let first = auditor.get("/v1/records?agent=agent/support&limit=3").await.json();
    let cursor = &first["cursor"];
    let second =
        auditor.get(&format!("/v1/records?agent=agent/support&limit=3&cursor={cursor}")).await.json();
    assert_eq!(
        (first["records"].as_array().unwrap().len(), second["records"].as_array().unwrap().len()),
        (3, 1)
    );
    for wrong in
        ["limit=0", "limit=1001", "trace=xyz", "from=yesterday", "agent=nobody", "colour=red", "cursor=-1"]
    {
        assert_eq!(
            auditor.get(&format!("/v1/records?{wrong}")).await.status,
            400 + 4 * u16::from(wrong == "agent=nobody"),
            "{wrong}"
        );
    }
    for (path, status) in [("/v1/records/x", 400), ("/v1/records/01890000-0000-7000-8000-000000000000", 404)]
    {
        assert_eq!(auditor.get(path).await.status, status);
    }
}

#[tokio::test]
async fn what_shadow_let_pass_is_found_by_what_it_would_have_been() {
    let mut world = World::start().await;
    world.calls(&world.agent("support")).await;
    world.down().await;
    world.shadowed();
    world.up().await;
    // Nobody lists this tool: it would be held.
    let passed =
        world.agent("support").tool("mail", "send_fax", json!({"to": "x@outside.test"})).await.unwrap();
    assert_eq!(world.mail.seen().len(), 2);
    let auditor = world.person("auditor");
    for (query, count) in [("any", 1), ("held", 1), ("denied", 0), ("limited", 0)] {
        let found = auditor.get(&format!("/v1/records?would_be={query}")).await.json();
        let found = found["records"].as_array().unwrap();
        assert_eq!(found.len(), count, "{query}: {found:#?}");
        for record in found {
            assert_eq!((&record["id"], &record["would_be"]), (&json!(passed.record()), &json!("held")));
            assert_eq!(record["outcome"], "allowed");
        }
    }
    assert_eq!(auditor.get("/v1/records?would_be=allowed").await.status, 400);
}

#[tokio::test]
async fn records_are_read_as_they_are_written_by_those_who_may_see_them() {
    let world = World::start().await;
    let mut pia = world.raw("pia", ListenerKind::Admin).await;
    let mut oncall = world.raw("oncall", ListenerKind::Admin).await;
    for reader in [&mut pia, &mut oncall] {
        reader.send("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(reader.until("text/event-stream").await && reader.until(": \n\n").await);
    }
    // Both are subscribed; the index is looked at from here on.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    world.calls(&world.agent("payer")).await;
    world.calls(&world.agent("support")).await;
    assert!(oncall.until("agent/support").await && pia.until("agent/payer").await);
    assert!(oncall.text().contains("event: record\r\n") || oncall.text().contains("event: record\n"));
    assert!(!oncall.text().contains("agent/payer"), "{}", oncall.text());
    // What an emergency lifts is everybody's to see, for whomever it is lifted.
    let wish =
        json!({"rules": ["hold-deploy"], "agents": ["agent/support"], "for": "5m", "reason": "tonight"});
    assert_eq!(world.person("admin").post("/v1/breakglass", wish).await.status, 200);
    assert!(pia.until("\"type\":\"breakglass\"").await && oncall.until("\"type\":\"breakglass\"").await);
    assert!(!pia.text().contains("agent/support"), "{}", pia.text());
}

#[tokio::test]
async fn the_api_describes_every_route_it_has() {
    let world = World::start().await;
    let admin = world.person("admin");
    let described = admin.get("/openapi.json").await.json();
    assert_eq!(described["openapi"], "3.1.1");
    assert_eq!(described, holdpoint::admin::openapi());
    let expected = [
        ("/v1/agents", "get"),
        ("/v1/agents/resume", "post"),
        ("/v1/agents/suspend", "post"),
        ("/v1/agents/{id}", "get"),
        ("/v1/agents/{id}/resume", "post"),
        ("/v1/agents/{id}/suspend", "post"),
        ("/v1/breakglass", "get"),
        ("/v1/breakglass/{id}", "delete"),
        ("/v1/breakglass/{id}/review", "post"),
        ("/v1/endorsements", "get"),
        ("/v1/endorsements/{id}", "delete"),
        ("/v1/events", "get"),
        ("/v1/health", "get"),
        ("/v1/holds", "get"),
        ("/v1/holds/{id}", "get"),
        ("/v1/holds/{id}/approve", "post"),
        ("/v1/holds/{id}/deny", "post"),
        ("/v1/holds/{id}/resolve", "post"),
        ("/v1/notifications", "get"),
        ("/v1/notifications/{id}/retry", "post"),
        ("/v1/records", "get"),
        ("/v1/records/{id}", "get"),
        ("/v1/runs", "get"),
        ("/v1/runs/{id}", "get"),
        ("/v1/runs/{id}/unfreeze", "post"),
        ("/v1/shadow", "get"),
        ("/v1/standing", "get"),
        ("/v1/standing/{id}", "delete"),
        ("/v1/tasks", "post"),
        ("/v1/tasks/{id}", "delete"),
        ("/v1/tools", "get"),
    ];
    let paths = described["paths"].as_object().unwrap();
    assert_eq!(paths.len(), expected.len());
    for (path, method) in expected {
        let operation = &paths[path][method];
        assert!(operation["responses"]["200"]["content"].is_object(), "{method} {path}: {operation:#}");
        // It is there, whatever it says to a question without a body.
        let status = match method {
            "get" if path == "/v1/events" => continue,
            // Their own stories ask these.
            "delete" => continue,
            // That is on the listener for orchestrators.
            "post" if path == "/v1/tasks" => {
                assert_eq!(admin.post(path, json!({})).await.status, 404);
                continue;
            }
            "get" if path == "/v1/runs/{id}" => {
                let none = admin.get("/v1/runs/none").await;
                assert!(none.status == 404 && none.json()["detail"].to_string().contains("no run `none`"));
                continue;
            }
            "get" => admin.get(&path.replace("{id}", "agent%2Fsupport")).await.status,
            _ => admin.post(&path.replace("{id}", "agent%2Fsupport"), json!({})).await.status,
        };
        // There is no such hold, and nothing to be told of it.
        let there = if path.starts_with("/v1/holds/") || path.starts_with("/v1/notifications/") {
            status == 404 || status == 400
        } else {
            status == 200 || status == 400
        };
        assert!(there, "{method} {path}: {status}");
    }
    assert_eq!(described["components"]["schemas"]["Reason"]["required"], json!(["reason"]));
    let text = described.to_string();
    for (at, _) in text.match_indices("\"$ref\":\"#/components/schemas/") {
        let name = text[at + 29..].split('"').next().unwrap();
        assert!(described["components"]["schemas"].get(name).is_some(), "{name}");
    }
    assert_eq!(admin.get("/v1/health").await.json()["status"], "ready");
}
