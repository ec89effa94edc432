//! The front page of the console: what waits, and how many calls that is on every other page.

use serde_json::{Value, json};

use crate::harness::{Person, World, text};

/// A call that waits; its hold.
async fn held(world: &World, agent: &str, number: u32) -> Value {
    let answer =
        world.agent(agent).tool("mail", "transfer", json!({"number": number, "rounds": 0})).await.unwrap();
    assert_eq!(answer.outcome(), "pending");
    let id = answer.decision().unwrap()["hold"].as_str().unwrap().to_owned();
    world.person("auditor").get(&format!("/v1/holds/{id}")).await.json()["hold"].clone()
}

/// What a page says beside "Inbox".
async fn number(person: &Person, path: &str) -> String {
    let page = text(&person.get(path).await);
    let after = page.split("id=\"waiting\"").nth(1).unwrap_or_else(|| panic!("no number: {page}"));
    let after = after.split_once('>').unwrap().1;
    after.split('<').next().unwrap().to_owned()
}

#[tokio::test]
async fn every_page_says_how_many_calls_wait_that_this_person_may_see_or_decide() {
    let world = World::start().await;
    let (oncall, pia, auditor) = (world.person("oncall"), world.person("pia"), world.person("auditor"));
    assert_eq!(number(&oncall, "/").await, "", "nothing waits");
    let first = held(&world, "support", 1).await;
    held(&world, "support", 2).await;
    held(&world, "payer", 3).await;
    let hold = format!("/holds/{}", first["id"].as_str().unwrap());
    for path in [
        "/",
        "/holds?show=ended",
        &hold,
        "/agents",
        "/runs",
        "/records",
        "/tools",
        "/breakglass",
        "/standing",
    ] {
        assert_eq!(number(&oncall, path).await, "2", "{path}");
    }
    for path in ["/shadow", "/nowhere", "/agents/agent%2Fpayer"] {
        let request = http::Request::get(path).header("host", "localhost").header("accept", "text/html");
        let page = oncall.sends(request.body(http_body_util::Full::default()).unwrap()).await;
        assert!(text(&page).contains("that you may see\">2<"), "{path}: {}", text(&page));
    }
    assert_eq!(
        (number(&pia, "/agents").await, number(&auditor, "/agents").await),
        ("1".to_owned(), "3".to_owned())
    );
    // What waits no more is counted no more.
    let say = json!({"digest": first["digest"], "reason": "not that one"});
    let denied = oncall.post(&format!("/v1{hold}/deny"), say).await;
    assert_eq!(denied.status, 200, "{denied:?}");
    assert_eq!(
        (number(&oncall, "/agents").await, number(&auditor, "/agents").await),
        ("1".to_owned(), "2".to_owned())
    );
    world.nothing_upstream();
}

#[tokio::test]
async fn the_front_page_is_the_inbox_and_agents_are_found_where_they_were() {
    let world = World::start().await;
    let hold = held(&world, "support", 1).await;
    let oncall = world.person("oncall");
    for path in ["/", "/holds", "/?show=waiting", "/?agent=agent/support"] {
        let page = oncall.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(text(&page).contains(&format!("href=\"/holds/{}\"", hold["id"].as_str().unwrap())), "{path}");
        assert!(text(&page).contains("<a href=\"/\" aria-current=\"page\">"), "{path}");
    }
    assert!(text(&oncall.get("/agents?q=tickets").await).contains("answers tickets"));
    assert!(text(&oncall.get("/agents").await).contains("<a href=\"/agents\" aria-current=\"page\">"));
    // A search for agents that somebody has kept.
    for query in ["q=support", "state=active", "q=a%26b&state="] {
        let answer = oncall.get(&format!("/?{query}")).await;
        assert_eq!(answer.status, 303, "{query}");
        assert_eq!(answer.headers["location"], format!("/agents?{query}"));
    }
    assert_eq!(oncall.get("/?nothing=1").await.status, 400);
}
