//! `holdpoint breakglass`: lifting policies in an emergency, for some minutes, and what is owed for it.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::USAGE;
use super::client::{Failure, Gateway, items, said, segment, word};
use super::policy::{Said, table};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lift policies for some minutes. Calls that they would hold or deny pass, and each is marked in the audit.
    Open(Box<Opening>),
    /// Show what is open, what awaits a review, and which policies may be lifted.
    List,
    /// End one now: from the next decision on, its policies stand again.
    Close {
        /// The lift's id.
        id: String,
        /// Why: it is what the record says later.
        #[arg(long, default_value = "the emergency is over")]
        reason: String,
    },
    /// Say that you have looked at what was done under a lift that somebody else opened.
    Review {
        /// The lift's id.
        id: String,
        /// What you found: it is what the record says later.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("scope").required(true).multiple(true))]
pub(super) struct Opening {
    /// A policy to lift, by its id; repeat it for several. `holdpoint breakglass list` shows which may be lifted.
    #[arg(long = "rule", required = true)]
    rules: Vec<String>,
    /// For this agent, by its SPIFFE ID or the path of it; repeat it for several.
    #[arg(long = "agent", group = "scope")]
    agents: Vec<String>,
    /// For the agents of this group of the registry; repeat it for several.
    #[arg(long = "group", group = "scope")]
    groups: Vec<String>,
    /// Only for calls to this upstream; repeat it for several.
    #[arg(long = "upstream", group = "scope")]
    upstreams: Vec<String>,
    /// For how long, as in 30m; at most 60m.
    #[arg(long = "for")]
    time: String,
    /// Why: it is what the record says later.
    #[arg(long)]
    reason: String,
    /// Who answers for it, by SPIFFE ID or e-mail address: over the machine's own socket alone, and required there.
    #[arg(long)]
    person: Option<String>,
}

/// Carries out a command: 0 done, 1 refused, 2 not reached, 64 bad usage.
pub(super) fn breakglass(gateway: &Gateway, command: &Command) -> Said {
    let done = match command {
        Command::Open(opening) => open(gateway, opening),
        Command::List => gateway.ask(Method::GET, "/v1/breakglass", None).map(|reply| said(reply, list)),
        Command::Close { id, reason } => reasoned(reason).and_then(|()| {
            let path = format!("/v1/breakglass/{}", segment(id));
            let reply = gateway.ask(Method::DELETE, &path, Some(&json!({"reason": reason})));
            reply.map(|reply| said(reply, closed))
        }),
        Command::Review { id, reason } => reasoned(reason).and_then(|()| {
            let path = format!("/v1/breakglass/{}/review", segment(id));
            let reply = gateway.ask(Method::POST, &path, Some(&json!({"reason": reason})));
            reply.map(|reply| said(reply, |body| format!("{} is reviewed\n", word(body, "/id"))))
        }),
    };
    done.unwrap_or_else(|failure| {
        let (code, text) = match failure {
            Failure::Usage(text) => (USAGE, text),
            Failure::Unreached(text) => (2, text),
        };
        Said { code, json: json!({"error": text}), text: format!("holdpoint breakglass: {text}\n") }
    })
}

fn reasoned(reason: &str) -> Result<(), Failure> {
    if reason.trim().is_empty() {
        let text = "--reason must say something: it is what the record says later";
        return Err(Failure::Usage(text.to_owned()));
    }
    Ok(())
}

fn open(gateway: &Gateway, opening: &Opening) -> Result<Said, Failure> {
    reasoned(&opening.reason)?;
    let mut body = json!({
        "rules": opening.rules, "agents": opening.agents, "groups": opening.groups,
        "upstreams": opening.upstreams, "for": opening.time, "reason": opening.reason,
    });
    if let (Some(person), Some(members)) = (&opening.person, body.as_object_mut()) {
        members.insert("person".to_owned(), json!(person));
    }
    let reply = gateway.ask(Method::POST, "/v1/breakglass", Some(&body))?;
    Ok(said(reply, opened))
}

fn opened(body: &Value) -> String {
    let [id, rules, until] = ["/id", "/rules", "/until"].map(|at| word(body, at));
    format!(
        "{rules} lifted until {until} ({id}).\nEnd it with `holdpoint breakglass close {id}`. Afterwards somebody else \
         reviews it; until then you can open no other.\n"
    )
}

fn closed(body: &Value) -> String {
    format!("{} has ended: its policies stand again. Somebody else must review it.\n", word(body, "/id"))
}

fn list(body: &Value) -> String {
    let liftable = word(body, "/liftable");
    let may = format!("May be lifted: {liftable}\n");
    if items(body, "lifts").is_empty() {
        return format!("Nothing is lifted, and no review is owed.\n{may}");
    }
    let names = ["ID", "STATE", "RULES", "FOR", "AT", "UNTIL", "BY", "REASON"];
    let mut rows = vec![names.map(str::to_owned)];
    rows.extend(items(body, "lifts").iter().map(|lift| {
        let [id, state, rules, agents, groups, upstreams, until, by, reason] =
            ["/id", "/state", "/rules", "/agents", "/groups", "/upstreams", "/until", "/by", "/reason"]
                .map(|at| word(lift, at));
        let whom: Vec<String> = [agents, groups].into_iter().filter(|words| words != "-").collect();
        let whom = if whom.is_empty() { "all agents".to_owned() } else { whom.join(", ") };
        [id, state, rules, whom, upstreams, until, by, reason]
    }));
    format!("{}{may}", table(&rows))
}
