//! Break-glass: what an emergency lifts, for whom, how loud that is, and how it ends.

use std::net::SocketAddr;
use std::process::Stdio;

use holdpoint::demo::agent::{Agent, Answer};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::harness::*;

const RULE: &str = "hold-high-consequence";

fn wish(agents: &[&str]) -> Value {
    json!({"rules": [RULE], "agents": agents, "for": "30m", "reason": "the mail must go out"})
}

async fn opens(world: &World, person: &str, wish: Value) -> Answer {
    world.person(person).http("POST", "/v1/breakglass", Some(wish)).await.unwrap()
}

async fn opened(world: &World, person: &str, wish: Value) -> String {
    let answer = opens(world, person, wish).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn ends(world: &World, person: &str, id: &str) -> Answer {
    let body = json!({"reason": "the emergency is over"});
    world.person(person).http("DELETE", &format!("/v1/breakglass/{id}"), Some(body)).await.unwrap()
}

async fn reviews(world: &World, person: &str, id: &str) -> Answer {
    let body = json!({"reason": "each call was looked at"});
    world.person(person).http("POST", &format!("/v1/breakglass/{id}/review"), Some(body)).await.unwrap()
}

async fn lifts(world: &World) -> Value {
    world.person("auditor").http("GET", "/v1/breakglass", None).await.unwrap().json()
}

async fn mail(agent: &Agent, to: &str) -> String {
    outcome(&agent.tool("mail", "send_email", json!({"to": to})).await.unwrap().json())
}

fn of_type(world: &World, kind: &str) -> Vec<Value> {
    world.records().into_iter().filter(|record| record["type"] == kind).collect()
}

fn metric(world: &World, name: &str) -> String {
    let text = world.running.as_ref().unwrap().gateway().evidence.telemetry.metrics().render();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn an_emergency_lifts_what_names_itself_for_whom_it_was_opened_and_each_call_is_marked() {
    let world = World::start().await;
    let (support, other) = (world.agent("support"), world.agent("other"));
    assert_eq!(mail(&support, "a").await, "pending", "before");
    let id = opened(&world, "gus", wish(&["agent/support"])).await;
    assert_eq!(mail(&support, "b").await, "allowed", "what was remembered of before does not count");
    assert_eq!(mail(&support, "a").await, "allowed", "nor does what waits");
    assert_eq!(mail(&other, "b").await, "pending", "for nobody else");
    let grave = support.tool("mail", "delete_customer", json!({"id": 1})).await.unwrap();
    assert_eq!(outcome(&grave.json()), "pending", "the gravest calls are never lifted");
    assert_eq!(world.ran(), 2);

    let marked = of_type(&world, "intent");
    assert_eq!(marked.len(), 2);
    for record in &marked {
        assert_eq!((&record["break_glass"], &record["decision"]["lifted"]), (&json!([id]), &json!([RULE])));
        assert_eq!(record["input"]["break_glass"]["by"], json!(["spiffe://people.example.org/gus"]));
    }
    assert!(of_type(&world, "held").iter().all(|record| record.get("break_glass").is_none()));
    let told = of_type(&world, "breakglass");
    assert_eq!((told.len(), &told[0]["id"], &told[0]["what"]), (1, &json!(id), &json!("opened")));
    assert_eq!((&told[0]["reason"], &told[0]["rules"]), (&json!("the mail must go out"), &json!([RULE])));
    assert_eq!(metric(&world, "holdpoint_breakglass_calls_total"), "2");
    assert_eq!(metric(&world, "holdpoint_breakglass_open"), "1");
    // Its records are found by it, for whoever may see them.
    let found = async |person: &str, lift: &str| {
        let path = format!("/v1/records?lift={lift}");
        let told = world.person(person).http("GET", &path, None).await.unwrap().json();
        let kinds = told["records"].as_array().unwrap().iter().map(|record| record["type"].clone());
        kinds.collect::<Vec<Value>>()
    };
    assert_eq!(found("auditor", &id).await, ["intent", "intent", "breakglass"]);
    assert_eq!(found("pia", &id).await, [] as [Value; 0], "another team sees nothing of it");
    assert_eq!(found("auditor", &holdpoint::call::RecordId::new().to_string()).await, [] as [Value; 0]);
    let page = world.person("auditor").http("GET", "/agents/none", None).await.unwrap();
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("Break-glass is open") && page.contains("the mail must go out"), "{page}");
    world.join().await;
}

#[tokio::test]
async fn whoever_may_stop_the_agent_ends_it_and_the_very_next_decision_knows() {
    let world = World::start().await;
    let agent = world.agent("support");
    let id = opened(&world, "gus", wish(&["agent/support"])).await;
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("allowed", 1));
    // The other team's people may not, and it stays open.
    assert_eq!(ends(&world, "pia", &id).await.status, StatusCode::FORBIDDEN);
    assert_eq!(mail(&agent, "b").await, "allowed");
    assert_eq!(ends(&world, "olga", &id).await.status, 200);
    // The same connection, and a call like one that passed.
    assert_eq!((mail(&agent, "c").await.as_str(), mail(&agent, "a").await.as_str()), ("pending", "pending"));
    assert_eq!((world.ran(), metric(&world, "holdpoint_breakglass_open").as_str()), (2, "0"));
    assert_eq!(ends(&world, "olga", &id).await.status, StatusCode::CONFLICT, "it has ended");
    let closed = of_type(&world, "breakglass").pop().unwrap();
    assert_eq!(
        (&closed["what"], &closed["by"]["id"]),
        (&json!("closed"), &json!("spiffe://people.example.org/olga"))
    );
    assert_eq!(closed["opened_by"], "spiffe://people.example.org/gus");
    world.join().await;
}

#[tokio::test]
async fn it_ends_by_the_clock_and_a_review_is_owed_by_somebody_else() {
    let world = World::start().await;
    let agent = world.agent("support");
    let short = json!({"rules": [RULE], "groups": ["care"], "for": "1s", "reason": "short"});
    let id = opened(&world, "gus", short).await;
    let end = tokio::time::Instant::now() + SOON;
    while of_type(&world, "breakglass").last().unwrap()["what"] != "expired" {
        assert!(tokio::time::Instant::now() < end, "it never ended");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("pending", 0));
    assert_eq!(lifts(&world).await["lifts"][0]["state"], "ended");
    assert_eq!(metric(&world, "holdpoint_breakglass_reviews"), "1");
    // Until then the same person opens no other: an hour is not two.
    assert_eq!(opens(&world, "gus", wish(&["agent/support"])).await.status, StatusCode::CONFLICT);
    assert_eq!(reviews(&world, "gus", &id).await.status, StatusCode::FORBIDDEN, "not by whoever opened it");
    assert_eq!(reviews(&world, "pia", &id).await.status, StatusCode::FORBIDDEN, "nor by who sees none of it");
    assert_eq!(reviews(&world, "auditor", &id).await.status, 200);
    assert_eq!(reviews(&world, "olga", &id).await.status, StatusCode::CONFLICT, "once is enough");
    let told = lifts(&world).await;
    assert_eq!(told["lifts"][0]["state"], "reviewed", "{told:#}");
    assert_eq!(metric(&world, "holdpoint_breakglass_reviews"), "0");
    opened(&world, "gus", wish(&["agent/support"])).await;
    let words: Vec<Value> =
        of_type(&world, "breakglass").iter().map(|record| record["what"].clone()).collect();
    assert_eq!(words, ["opened", "expired", "reviewed", "opened"]);
    world.join().await;
}

#[tokio::test]
async fn what_is_open_cannot_be_reviewed_nor_doubled() {
    let world = World::start().await;
    let id = opened(&world, "gus", wish(&["agent/support"])).await;
    assert_eq!(reviews(&world, "auditor", &id).await.status, StatusCode::CONFLICT);
    assert_eq!(opens(&world, "gus", wish(&["agent/other"])).await.status, StatusCode::CONFLICT);
    world.join().await;
}

#[tokio::test]
async fn nobody_lifts_more_than_is_theirs_or_longer_or_without_a_reason() {
    let world = World::start().await;
    let with = |member: &str, value: Value| {
        let mut wish = wish(&["agent/support"]);
        wish[member] = value;
        wish
    };
    for (what, wish) in [
        ("a reason is required", with("reason", json!(" "))),
        ("at most 60m", with("for", json!("61m"))),
        ("at most 60m", with("for", json!("0s"))),
        ("`deny-canary` is no policy that break-glass may lift", with("rules", json!([RULE, "deny-canary"]))),
        ("names no policy", with("rules", json!([]))),
        ("no agent of the registry", with("groups", json!(["nobody"]))),
        ("there is no upstream", with("upstreams", json!(["nowhere"]))),
        ("one of `agents`, `groups` and `upstreams`", with("agents", json!([]))),
        ("you answer for what you open", with("person", json!("gus@example.org"))),
    ] {
        let answer = opens(&world, "gus", wish).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}: {answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(what), "{what}: {answer:?}");
    }
    for (person, wish) in [
        ("olga", wish(&["agent/support"])),
        ("gus", wish(&["agent/payer"])),
        // By an upstream alone, every agent of the registry is meant.
        ("gus", json!({"rules": [RULE], "upstreams": ["mail"], "for": "5m", "reason": "all of it"})),
        // An administrator who answers for an agent lifts nothing for it.
        ("ada", wish(&["agent/other"])),
    ] {
        assert_eq!(opens(&world, person, wish).await.status, StatusCode::FORBIDDEN, "{person}");
    }
    let refused: Vec<Value> =
        of_type(&world, "admin").iter().map(|record| record["action"].clone()).collect();
    assert_eq!(refused, ["breakglass"; 4], "each attempt is on record");
    assert_eq!(lifts(&world).await["lifts"], json!([]));
    assert_eq!((mail(&world.agent("support"), "a").await.as_str(), world.ran()), ("pending", 0));
    world.join().await;
}

#[tokio::test]
async fn an_agent_never_reaches_it() {
    let world = World::start().await;
    let agent = world.agent("support");
    let answer = agent.http("POST", "/v1/breakglass", Some(wish(&["agent/support"]))).await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "not on its own listener");
    let stranger = world.stranger("support");
    assert!(stranger.http("POST", "/v1/breakglass", Some(wish(&["agent/support"]))).await.is_err());
    assert_eq!(lifts(&world).await["lifts"], json!([]));
    assert_eq!((mail(&agent, "a").await.as_str(), world.ran()), ("pending", 0));
    // Nor does a lift help one that was stopped.
    opened(&world, "gus", wish(&["agent/support"])).await;
    let body = json!({"reason": "it loops"});
    let order =
        world.person("olga").http("POST", "/v1/agents/agent%2Fsupport/suspend", Some(body)).await.unwrap();
    assert_eq!(order.status, 200, "{order:?}");
    let refused = world.agent("support").tool("mail", "send_email", json!({"to": "b"})).await.unwrap();
    assert_eq!((refused.status, world.ran()), (StatusCode::FORBIDDEN, 0));
    world.join().await;
}

/// Runs the command, over the machine's own socket where nobody is named.
async fn says(world: &World, person: Option<&str>, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.arg("breakglass").args(arguments);
    match person {
        None => command.env("HOLDPOINT_ADDR", format!("unix://{}", world.dir.join("admin.sock").display())),
        Some(person) => world.speaks_as(&mut command, person),
    };
    let output = command.output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn from_the_command_line_and_from_the_machine_itself_in_a_persons_name() {
    let world = World::start().await;
    let open =
        ["open", "--rule", RULE, "--agent", "agent/support", "--for", "5m", "--reason", "the mail is down"];
    let (code, said) = says(&world, None, &open).await;
    assert!(code == 64 && said.contains("`person` is required"), "{said}");
    let (code, said) = says(&world, None, &[&open[..], &["--person", "olga@example.org"]].concat()).await;
    assert!(code == 1 && said.contains("may not breakglass"), "root names nobody who may not: {said}");
    let (code, said) = says(&world, None, &[&open[..], &["--person", "gus@example.org"]].concat()).await;
    assert!(code == 0 && said.contains("lifted until"), "{said}");
    assert_eq!((mail(&world.agent("support"), "a").await.as_str(), world.ran()), ("allowed", 1));
    let told = of_type(&world, "breakglass").pop().unwrap();
    assert_eq!(told["by"]["id"], "spiffe://people.example.org/gus");
    assert!(told["by"]["evidence"].as_str().unwrap().starts_with("local socket"), "{told:#}");

    let (code, said) = says(&world, Some("auditor"), &["list"]).await;
    assert!(code == 0 && said.contains("open") && said.contains("May be lifted: deny-riskiest"), "{said}");
    let id = lifts(&world).await["lifts"][0]["id"].as_str().unwrap().to_owned();
    let (code, said) = says(&world, None, &["close", &id]).await;
    assert!(code == 0 && said.contains("its policies stand again"), "{said}");
    assert_eq!(of_type(&world, "breakglass").pop().unwrap()["by"]["kind"], "local");
    assert_eq!((mail(&world.agent("support"), "b").await.as_str(), world.ran()), ("pending", 1));
    let (code, said) = says(&world, None, &["review", &id, "--reason", "fine"]).await;
    assert!(code == 1 && said.contains("only a person reviews"), "{said}");
    let (code, said) = says(&world, Some("auditor"), &["review", &id, "--reason", "fine"]).await;
    assert!(code == 0 && said.contains("is reviewed"), "{said}");
    let (code, said) =
        says(&world, Some("gus"), &["open", "--rule", RULE, "--for", "5m", "--reason", "x"]).await;
    assert!(code == 64 && said.contains("--agent"), "it is always for somebody: {said}");
    world.join().await;
}

/// `holdpoint serve` in a process of its own, with the addresses of its listeners.
struct Served {
    process: Child,
    agents: SocketAddr,
    admin: SocketAddr,
}

async fn serve(world: &World) -> Served {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.args(["serve", "--json", "--config"]).arg(world.dir.join("holdpoint.yaml"));
    let mut process = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let (mut agents, mut admin) = (None, None);
    while agents.is_none() || admin.is_none() {
        let line = lines.next_line().await.unwrap().unwrap();
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        let address = line["fields"]["address"].as_str().and_then(|address| address.parse().ok());
        match line["fields"]["listener.name"].as_str() {
            Some("agents") => agents = address,
            Some("admin") => admin = address,
            _ => {}
        }
    }
    // Nobody reads the rest, and the program must not wait for that.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Served { process, agents: agents.unwrap(), admin: admin.unwrap() }
}

#[tokio::test]
async fn what_was_opened_survives_kill_9_and_ends_when_it_was_to_end() {
    let mut world = World::start().await;
    world.down().await;
    let mut first = serve(&world).await;
    let wish = wish(&["agent/support"]);
    let answer =
        world.client_at("gus", first.admin).http("POST", "/v1/breakglass", Some(wish)).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let until = answer.json()["until"].clone();
    first.process.kill().await.unwrap();
    let mut second = serve(&world).await;
    let told =
        world.client_at("auditor", second.admin).http("GET", "/v1/breakglass", None).await.unwrap().json();
    assert_eq!((&told["lifts"][0]["state"], &told["lifts"][0]["until"]), (&json!("open"), &until));
    assert_eq!(mail(&world.client_at("support", second.agents), "a").await, "allowed");
    assert_eq!(world.ran(), 1);
    second.process.kill().await.unwrap();
    world.up().await;
    let opened = of_type(&world, "breakglass");
    assert_eq!(opened.len(), 1, "it is in the audit once");
    world.join().await;
}
