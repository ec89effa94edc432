//! What tools are said to do, for the people who decide about calls of them.

use serde_json::{Value, json};

use crate::harness::{World, text};

#[tokio::test]
async fn who_decides_about_calls_sees_what_their_tools_do() {
    let world = World::start().await;
    for person in ["oncall", "pia", "auditor", "admin"] {
        let told = world.person(person).get("/v1/tools?upstream=mail").await;
        assert_eq!(told.status, 200, "{person}: {}", text(&told));
        let told = told.json();
        let mail = &told["upstreams"][0];
        assert_eq!((&mail["name"], &mail["kind"]), (&json!("mail"), &json!("mcp")));
        let tools: Vec<&Value> = mail["tools"].as_array().unwrap().iter().collect();
        let delete = tools.iter().find(|tool| tool["name"] == "delete_customer").unwrap();
        assert_eq!((&delete["class"], &delete["consequence"]), (&json!("write"), &json!(4)));
        assert_eq!(delete["effects"], json!(["delete"]));
        let page = text(&world.person(person).get("/tools").await);
        assert!(page.contains("delete_customer") && !page.contains("<script"), "{page}");
    }
    assert_eq!(world.person("nobody").get("/v1/tools").await.status, 403);
    assert_eq!(world.person("admin").get("/v1/tools?upstream=none").await.status, 404);
    assert_eq!(world.person("admin").get("/v1/tools?tool=x").await.status, 400);
}

#[tokio::test]
async fn where_everything_is_enforced_no_page_says_otherwise() {
    let world = World::start().await;
    let admin = world.person("admin");
    let told = admin.get("/v1/shadow").await.json();
    assert_eq!(told["in_force"], json!({"upstreams": [], "policies": []}));
    assert_eq!(told["would_be"], json!([]));
    for path in ["/", "/records", "/tools", "/shadow"] {
        assert!(!text(&admin.get(path).await).contains("Not everything is enforced"), "{path}");
    }
}
