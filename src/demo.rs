//! The demo: everything embedded, on real sockets, in a minute. Each step says what the agent tries, what became of
//! it and why, the record that was kept, and the trace that was sent.

pub mod agent;
pub mod door;
pub mod sample;
mod stage;

use std::time::Duration;

use serde_json::{Value, json};

use crate::call::unhex;
use crate::config::ListenerKind;
use crate::record::tail::{self, Format};
use crate::record::verify;
use crate::telemetry::spans::tree_text;
use agent::{Agent, Answer};
use stage::Scene;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One thing that an agent tries.
struct Step {
    title: &'static str,
    lesson: &'static str,
    agent: &'static str,
    call: Call,
    expected: &'static str,
    /// Whether the trace is printed: once for each kind of ending is enough.
    traced: bool,
}

enum Call {
    /// The person reads the call that waits, and approves exactly that one.
    Approve,
    Http(&'static str, &'static str),
    Tool(&'static str, Value),
}

/// What each step teaches.
const LESSONS: [&str; 11] = [
    "a listed read of an agent in good standing goes through",
    "HTTP APIs pass the same stages as MCP tools",
    "the same tool, twice more",
    "three reads a minute per agent and tool: the answer says when to come back",
    "the reporter is read-only: nothing reaches the tool",
    "high consequence waits for people; nothing is sent meanwhile",
    "whoever decides sees the very call, and the vote carries its digest",
    "the same call again joins its hold, which is approved: it runs, once",
    "an internal address makes this a write, and a harmless one",
    "its mails are confidential, and outsiders wrote some of them: the run is labelled",
    "read, then send outside: a mail named the place, and what was read goes there; each step alone looks harmless",
];

fn steps() -> Vec<Step> {
    let search = || Call::Tool("search_customers", json!({"name": "Weber"}));
    let step =
        |title, lesson, agent, call, expected| Step { title, lesson, agent, call, expected, traced: false };
    let tool = |name, arguments| Call::Tool(name, arguments);
    let delete = || tool("delete_customer", json!({"id": "C-1007"}));
    let mail = |to: &str, body: &str| tool("send_email", json!({"to": to, "subject": "Hello", "body": body}));
    let invoice = Call::Http("GET", "/billing/v1/invoices/1001");
    let list: [(_, _, _, Call, _); 12] = [
        ("Search customers", LESSONS[0], "assistant", search(), "allowed"),
        ("Get an invoice over plain HTTP", LESSONS[1], "assistant", invoice, "allowed"),
        ("Search again", LESSONS[2], "assistant", search(), "allowed"),
        ("… and again", "", "assistant", search(), "allowed"),
        ("… and once too often", LESSONS[3], "assistant", search(), "limited"),
        ("Delete a customer, as the reporter", LESSONS[4], "reporter", delete(), "denied"),
        ("Delete a customer, as the assistant", LESSONS[5], "assistant", delete(), "pending"),
        ("Approve it, as olga, who is on call", LESSONS[6], "olga", Call::Approve, "approved"),
        ("Delete the customer, the very same call", LESSONS[7], "assistant", delete(), "allowed"),
        (
            "Mail to a colleague",
            LESSONS[8],
            "assistant",
            mail("ana@example.org", "See you at ten."),
            "allowed",
        ),
        ("Read the inbox", LESSONS[9], "assistant", tool("read_inbox", json!({})), "allowed"),
        (
            "Send what a mail asked for to its author",
            LESSONS[10],
            "assistant",
            mail("mallory@outside.test", "C-1007 Ana Weber"),
            "denied",
        ),
    ];
    let mut steps: Vec<Step> = list
        .into_iter()
        .map(|(title, lesson, agent, call, expected)| step(title, lesson, agent, call, expected))
        .collect();
    for at in [0, 5, 11] {
        if let Some(step) = steps.get_mut(at) {
            step.traced = true;
        }
    }
    steps
}

/// Runs the demo: 0 when every step was as expected. Unless `once`, the gateway stays up to be tried by hand.
pub fn run(once: bool, format: Format) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holdpoint demo: {error}");
            return 2;
        }
    };
    match runtime.block_on(play(once, format)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdpoint demo: {error}");
            2
        }
    }
}

async fn play(once: bool, format: Format) -> Result<u8, Failure> {
    let scene = Scene::set().await?;
    if format == Format::Text {
        println!(
            "Holdpoint stands between two agents and two upstreams: an MCP server (`mail`) and an HTTP API (`billing`).\n\
             Every agent proves itself by its own certificate. Policies: the shipped set.\n"
        );
    }
    let (assistant, reporter, olga) = (scene.agent("assistant")?, scene.agent("reporter")?, scene.person()?);
    let mut results = Vec::new();
    let mut wrong = 0;
    for (at, step) in steps().iter().enumerate() {
        let agent = match step.agent {
            "olga" => &olga,
            "reporter" => &reporter,
            _ => &assistant,
        };
        let before = scene.mail.seen().len() + scene.billing.seen().len();
        let answer = step.call.make(agent).await?;
        let reached = scene.mail.seen().len() + scene.billing.seen().len() > before;
        let outcome = step.call.outcome(&answer);
        let as_expected = outcome == step.expected && reached == (step.expected == "allowed");
        wrong += u8::from(!as_expected);
        if format == Format::Text {
            print(at + 1, step, &answer, reached, &scene).await?;
        }
        results.push(json!({"step": step.title, "outcome": outcome, "expected": step.expected,
            "reached_upstream": reached, "record": answer.record()}));
    }
    let code = finish(&scene, &results, wrong, format)?;
    if !once && format == Format::Text {
        linger(&scene).await?;
    }
    scene.strike().await;
    Ok(code)
}

impl Call {
    async fn make(&self, agent: &Agent) -> Result<Answer, Failure> {
        match self {
            Call::Approve => {
                let waiting = agent.http("GET", "/v1/holds?state=pending", None).await?.json();
                let hold = waiting.pointer("/holds/0").ok_or("no call waits")?;
                let text = |key| hold.get(key).and_then(Value::as_str).unwrap_or_default();
                let say = json!({"digest": text("digest"), "reason": "the customer asked for it in writing"});
                agent.http("POST", &format!("/v1/holds/{}/approve", text("id")), Some(say)).await
            }
            Call::Http(method, path) => agent.http(method, path, None).await,
            Call::Tool(name, arguments) => agent.tool("mail", name, arguments.clone()).await,
        }
    }

    fn outcome(&self, answer: &Answer) -> String {
        match self {
            Call::Approve => {
                let state = answer.json().get("state").and_then(Value::as_str).map(str::to_owned);
                state.unwrap_or_else(|| answer.status.to_string())
            }
            Call::Http(..) | Call::Tool(..) => answer.outcome(),
        }
    }
}

async fn print(
    number: usize,
    step: &Step,
    answer: &Answer,
    reached: bool,
    scene: &Scene,
) -> Result<(), Failure> {
    println!("{number}. {}", step.title);
    if !step.lesson.is_empty() {
        println!("   {}", step.lesson);
    }
    let asked = match &step.call {
        Call::Approve => "POST /v1/holds/{id}/approve, with the call's digest".to_owned(),
        Call::Http(method, path) => format!("{method} {path}"),
        Call::Tool(name, arguments) => format!("mail.{name} {arguments}"),
    };
    println!("   {} calls  {asked}", step.agent);
    let decision = match step.call {
        Call::Approve => format!("{}: the call may run, once", step.call.outcome(answer)),
        Call::Http(..) | Call::Tool(..) => verdict(answer, reached),
    };
    println!("   decision  {decision}");
    let records = tail::find(&scene.audit(), &answer.record())?;
    for record in &records {
        println!("   record    {}", tail::summary(record));
    }
    let trace = records.iter().find_map(|record| record.get("trace_id")?.as_str().and_then(unhex::<16>));
    if let (true, Some(trace)) = (step.traced, trace) {
        let spans = scene.sink.trace(trace, Duration::from_secs(3)).await;
        println!("   trace     {}", tree_text(&spans).trim_end().replace('\n', "\n             "));
    }
    println!();
    Ok(())
}

fn verdict(answer: &Answer, reached: bool) -> String {
    let upstream = if reached { "the upstream replied" } else { "the upstream saw nothing" };
    match answer.decision() {
        None => format!("allowed; {upstream}"),
        Some(decision) => {
            let text = |key: &str| decision.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let rule =
                if text("rule").is_empty() { String::new() } else { format!(" by `{}`", text("rule")) };
            format!("{}{rule}; {upstream}\n             \"{}\"", text("outcome"), text("reason"))
        }
    }
}

fn finish(scene: &Scene, results: &[Value], wrong: u8, format: Format) -> Result<u8, Failure> {
    let report = verify::verify(&scene.audit())?;
    let sound = report.status == verify::Status::Ok;
    let code = u8::from(wrong > 0 || !sound);
    match format {
        Format::Json => {
            println!("{:#}", json!({"steps": results, "as_expected": wrong == 0, "audit": report}))
        }
        Format::Text => {
            let audit = if sound { "verifies" } else { "DOES NOT VERIFY" };
            println!(
                "The audit of {} records {audit}: each names the one before it by its digest.",
                report.records
            );
            println!("{} of {} steps were as expected.", results.len() - usize::from(wrong), results.len());
        }
    }
    Ok(code)
}

/// Leaves the gateway up, to be tried by hand and looked at in a browser.
async fn linger(scene: &Scene) -> Result<(), Failure> {
    let address = |kind| scene.gateway.address(kind).ok_or("a listener is missing");
    let (agents, admin) = (address(ListenerKind::Agents)?, address(ListenerKind::Admin)?);
    let (health, door, dir) = (address(ListenerKind::Health)?, scene.door().await?, scene.dir.display());
    println!(
        "\nThe gateway stays up until Ctrl-C. See what people see, in a browser on this machine:\n\n  {}\n\n\
         Whoever has this link is olga, an administrator of this demo. The admin listener itself, \
         https://localhost:{},\nlets nobody in without a person's certificate; docs/console.md says how a browser gets one.\n\n\
         Or try it yourself:\n\n  cd {dir}\n  \
         curl --cacert pki/example.org.pem --cert pki/assistant.pem --key pki/assistant-key.pem \\\n       \
         https://localhost:{}/billing/v1/invoices/1001\n  curl http://{health}/metrics\n  \
         holdpoint audit tail state/audit --follow\n  holdpoint policy can --agent reporter --config holdpoint.yaml\n  \
         holdpoint agents suspend agent/assistant --reason 'trying it' --addr \"unix://$PWD/admin.sock\"",
        door.link(),
        admin.port(),
        agents.port()
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}
