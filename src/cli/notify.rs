//! `holdpoint notify`: what webhooks should be told and have not confirmed.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::USAGE;
use super::client::{Failure, Gateway, items, said, segment, word};
use super::policy::{Said, table};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show notifications that wait for their webhook, or are not tried any more.
    List {
        /// Only these: waiting, dead.
        #[arg(long)]
        state: Option<String>,
    },
    /// Try one again now, also a dead one.
    Retry {
        /// The notification's id.
        id: String,
    },
}

/// Carries out a command: 0 done, 1 refused, 2 not reached, 64 bad usage.
pub(super) fn notify(gateway: &Gateway, command: &Command) -> Said {
    let done = match command {
        Command::List { state } => {
            let query = state.as_deref().map(|state| format!("?state={}", segment(state)));
            let path = format!("/v1/notifications{}", query.unwrap_or_default());
            gateway.ask(Method::GET, &path, None).map(|reply| said(reply, list))
        }
        Command::Retry { id } => {
            let path = format!("/v1/notifications/{}/retry", segment(id));
            gateway.ask(Method::POST, &path, None).map(|reply| said(reply, retried))
        }
    };
    done.unwrap_or_else(|failure| {
        let (code, text) = match failure {
            Failure::Usage(text) => (USAGE, text),
            Failure::Unreached(text) => (2, text),
        };
        Said { code, json: json!({"error": text}), text: format!("holdpoint notify: {text}\n") }
    })
}

fn list(body: &Value) -> String {
    if items(body, "notifications").is_empty() {
        return "Nothing waits to be told.\n".to_owned();
    }
    let mut rows = vec![
        ["NOTIFICATION", "WEBHOOK", "EVENT", "ABOUT", "STATE", "TRIED", "NEXT", "WHY"].map(str::to_owned),
    ];
    rows.extend(items(body, "notifications").iter().map(|one| {
        let about = if one.get("lift").is_some_and(|lift| !lift.is_null()) { "/lift" } else { "/hold" };
        ["/id", "/webhook", "/event", about, "/state", "/attempts", "/next", "/failure"]
            .map(|at| word(one, at))
    }));
    table(&rows)
}

fn retried(body: &Value) -> String {
    format!("{} is told again to {}\n", word(body, "/event"), word(body, "/webhook"))
}
