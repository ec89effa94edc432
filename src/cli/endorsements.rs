//! `holdpoint endorsements`: destinations that people remembered for agents, and taking them back.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::USAGE;
use super::client::{Failure, Gateway, items, said, segment, word};
use super::policy::{Said, table};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what is remembered for the agents that you may see.
    List,
    /// Take one back: from the next call on its destination is not known by it.
    Revoke {
        /// The endorsement's id.
        id: String,
        /// Why: it is what the record says later.
        #[arg(long)]
        reason: String,
    },
}

/// Carries out a command: 0 done, 1 refused, 2 not reached, 64 bad usage.
pub(super) fn endorsements(gateway: &Gateway, command: &Command) -> Said {
    let done = match command {
        Command::List => gateway.ask(Method::GET, "/v1/endorsements", None).map(|reply| said(reply, list)),
        Command::Revoke { reason, .. } if reason.trim().is_empty() => {
            Err(Failure::Usage("--reason must say something: it is what the record says later".to_owned()))
        }
        Command::Revoke { id, reason } => {
            let path = format!("/v1/endorsements/{}", segment(id));
            let reply = gateway.ask(Method::DELETE, &path, Some(&json!({"reason": reason})));
            reply.map(|reply| said(reply, revoked))
        }
    };
    done.unwrap_or_else(|failure| {
        let (code, text) = match failure {
            Failure::Usage(text) => (USAGE, text),
            Failure::Unreached(text) => (2, text),
        };
        Said { code, json: json!({"error": text}), text: format!("holdpoint endorsements: {text}\n") }
    })
}

fn list(body: &Value) -> String {
    let names = ["ID", "AGENT", "SINK", "DESTINATION", "UP TO", "STATE", "UNTIL", "BY"];
    let mut rows = vec![names.map(str::to_owned)];
    let at = ["/id", "/agent", "/sink", "/destination", "/confidentiality", "/state", "/until", "/by"];
    rows.extend(items(body, "endorsements").iter().map(|one| at.map(|at| word(one, at))));
    table(&rows)
}

fn revoked(body: &Value) -> String {
    let was =
        if body.get("changed") == Some(&Value::Bool(true)) { "is revoked" } else { "was revoked before" };
    format!("{} {was}; record {}\n", word(body, "/id"), word(body, "/record"))
}
