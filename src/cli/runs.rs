//! `holdpoint runs`: what runs have read, what was found in what they send, and letting a frozen one go on.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::USAGE;
use super::client::{Failure, Gateway, items, said, segment, word};
use super::policy::{Said, table};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the runs that you may see, the frozen ones first.
    List,
    /// Show one run: what it has read, and where that went or would have gone.
    Show(Which),
    /// Let a frozen run go on.
    Unfreeze {
        #[command(flatten)]
        which: Which,
        /// Why: it is what the record says later.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The run's id, as in records; `*` for an agent as a whole.
    id: String,
    /// The agent, where the run is one of several agents, by its SPIFFE ID or the path of it.
    #[arg(long)]
    agent: Option<String>,
}

/// Carries out a command: 0 done, 1 refused, 2 not reached, 64 bad usage.
pub(super) fn runs(gateway: &Gateway, command: &Command) -> Said {
    let done = match command {
        Command::List => gateway.ask(Method::GET, "/v1/runs", None).map(|reply| said(reply, list)),
        Command::Show(which) => {
            gateway.ask(Method::GET, &path(which, ""), None).map(|reply| said(reply, show))
        }
        Command::Unfreeze { reason, .. } if reason.trim().is_empty() => {
            Err(Failure::Usage("--reason must say something: it is what the record says later".to_owned()))
        }
        Command::Unfreeze { which, reason } => {
            let body = json!({"reason": reason});
            let reply = gateway.ask(Method::POST, &path(which, "/unfreeze"), Some(&body));
            reply.map(|reply| said(reply, unfrozen))
        }
    };
    done.unwrap_or_else(|failure| {
        let (code, text) = match failure {
            Failure::Usage(text) => (USAGE, text),
            Failure::Unreached(text) => (2, text),
        };
        Said { code, json: json!({"error": text}), text: format!("holdpoint runs: {text}\n") }
    })
}

fn path(which: &Which, verb: &str) -> String {
    let whose = which.agent.as_ref().map(|agent| format!("?agent={}", segment(agent))).unwrap_or_default();
    format!("/v1/runs/{}{verb}{whose}", segment(&which.id))
}

fn labels(run: &Value) -> String {
    let labels: Vec<String> = items(run, "labels").iter().map(|label| word(label, "/label")).collect();
    if labels.is_empty() { "-".to_owned() } else { labels.join(",") }
}

fn list(body: &Value) -> String {
    let mut rows = vec![["RUN", "AGENT", "CALLS", "LAST", "LABELS", "STOPPED", "FROZEN"].map(str::to_owned)];
    rows.extend(items(body, "runs").iter().map(|run| {
        let [id, agent, calls, last, stopped, frozen] =
            ["/id", "/agent", "/calls", "/last", "/stopped", "/frozen"].map(|at| word(run, at));
        [id, agent, calls, last, labels(run), stopped, frozen]
    }));
    table(&rows)
}

fn show(body: &Value) -> String {
    let run = body.get("run").unwrap_or(&Value::Null);
    let rows =
        [("run", "/id"), ("agent", "/agent"), ("calls", "/calls"), ("last", "/last"), ("frozen", "/frozen")];
    let mut text: String = rows.iter().map(|(name, at)| format!("{name:<8} {}\n", word(run, at))).collect();
    for label in items(run, "labels") {
        let [name, at, record] = ["/label", "/at", "/record"].map(|at| word(label, at));
        text.push_str(&format!("{name:<13} since {at} by {record}\n"));
    }
    for found in items(body, "findings") {
        let [at, record, upstream, tool] = ["/at", "/record", "/upstream", "/tool"].map(|at| word(found, at));
        text.push_str(&format!("\n{at}  {record}\n"));
        for finding in items(found, "findings") {
            let evidence = items(finding, "evidence");
            let name = word(finding, "/finding");
            if evidence.is_empty() {
                text.push_str(&format!("  {name}: {upstream}.{tool}\n"));
            }
            for source in evidence {
                let [from, read, record, how, matched, bytes] =
                    ["/upstream", "/tool", "/record", "/how", "/matched", "/bytes"]
                        .map(|at| word(source, at));
                text.push_str(&format!(
                    "  {name}: {from}.{read} ({record}) → {upstream}.{tool}   {matched} by {how}, {bytes} bytes\n"
                ));
            }
        }
    }
    text
}

fn unfrozen(body: &Value) -> String {
    let was = if body.get("changed") == Some(&Value::Bool(true)) { "goes on" } else { "was not frozen" };
    format!(
        "{} of {} {was}; record {}\n",
        word(body, "/run/id"),
        word(body, "/run/agent"),
        word(body, "/record")
    )
}
