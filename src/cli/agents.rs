//! `holdpoint agents`: who is registered, whose review is due, and orders to stop agents or let them go on.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime};

use super::USAGE;
use super::client::{Failure, Gateway, items, said, segment, word};
use super::policy::{Said, table};
use crate::admin::literal;

/// Reviews are due this long ahead: owners are warned then.
const WARNED_AHEAD: Duration = Duration::days(30);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show every agent that you may see.
    List,
    /// Show one agent, and the orders given about it.
    Show {
        /// The agent's SPIFFE ID, or the path of it.
        id: String,
    },
    /// Show which reviews are due, of all agents or of one.
    Review {
        /// The agent's SPIFFE ID, or the path of it.
        id: Option<String>,
    },
    /// Stop agents: from their next call on; their open connections are cut.
    Suspend(Order),
    /// Let agents go on.
    Resume(Order),
}

#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// The agent's SPIFFE ID, or the path of it.
    #[arg(group = "whom", required = true)]
    id: Option<String>,
    /// Every agent that this person owns, by e-mail.
    #[arg(long, group = "whom")]
    owner: Option<String>,
    /// Every agent of this team.
    #[arg(long, group = "whom")]
    team: Option<String>,
    /// Every agent.
    #[arg(long, group = "whom")]
    all: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Why: it is what the record says later.
    #[arg(long)]
    reason: String,
}

/// Carries out a command: 0 done, 1 refused or not done in full, 2 not reached, 64 bad usage.
pub(super) fn agents(gateway: &Gateway, command: &Command) -> Said {
    let done = match command {
        Command::List => gateway.ask(Method::GET, "/v1/agents", None).map(|reply| said(reply, list)),
        Command::Show { id } => gateway.ask(Method::GET, &path(id, ""), None).map(|reply| said(reply, show)),
        Command::Review { id } => review(gateway, id.as_deref()),
        Command::Suspend(order) => ordered(gateway, "suspend", order),
        Command::Resume(order) => ordered(gateway, "resume", order),
    };
    done.unwrap_or_else(|failure| {
        let (code, text) = match failure {
            Failure::Usage(text) => (USAGE, text),
            Failure::Unreached(text) => (2, text),
        };
        Said { code, json: json!({"error": text}), text: format!("holdpoint agents: {text}\n") }
    })
}

/// The path of an agent's resource, with the id as one segment.
fn path(id: &str, verb: &str) -> String {
    format!("/v1/agents/{}{verb}", segment(id))
}

fn list(body: &Value) -> String {
    let mut rows = vec![["AGENT", "STATE", "AUTONOMY", "TEAM", "OWNER", "REVIEW DUE"].map(str::to_owned)];
    rows.extend(items(body, "agents").iter().map(|agent| {
        ["/id", "/state", "/autonomy", "/team", "/owner/business", "/review_due"].map(|at| word(agent, at))
    }));
    let mut text = table(&rows);
    for wildcard in items(body, "wildcards").iter().filter_map(Value::as_str) {
        text.push_str(&format!(
            "{}: agents below it are shown once they have called\n",
            literal::plain(wildcard)
        ));
    }
    text
}

fn show(body: &Value) -> String {
    let agent = body.get("agent").unwrap_or(&Value::Null);
    let rows = [
        ("agent", "/id"),
        ("state", "/state"),
        ("registered", "/registered"),
        ("autonomy", "/autonomy"),
        ("purpose", "/purpose"),
        ("team", "/team"),
        ("business", "/owner/business"),
        ("technical", "/owner/technical"),
        ("risk owner", "/owner/risk"),
        ("risk", "/risk"),
        ("region", "/region"),
        ("vendor", "/vendor"),
        ("review due", "/review_due"),
    ];
    let mut text: String =
        rows.iter().map(|(name, at)| format!("{name:<11} {}\n", word(agent, at))).collect();
    for one in items(body, "history") {
        text.push_str(&format!(
            "suspended   {} by {}: {}\n",
            word(one, "/at"),
            word(one, "/by"),
            word(one, "/reason")
        ));
        if let Some(resumed) = one.get("resumed").filter(|resumed| !resumed.is_null()) {
            text.push_str(&format!(
                "  resumed   {} by {}: {}\n",
                word(resumed, "/at"),
                word(resumed, "/by"),
                word(resumed, "/reason")
            ));
        }
    }
    text
}

/// The agents whose review is due within 30 days, the most overdue first; or the state of one.
fn review(gateway: &Gateway, id: Option<&str>) -> Result<Said, Failure> {
    let reply = match id {
        None => gateway.ask(Method::GET, "/v1/agents", None)?,
        Some(id) => gateway.ask(Method::GET, &path(id, ""), None)?,
    };
    if reply.status != 200 {
        return Ok(said(reply, |_| String::new()));
    }
    let (one, all) = (reply.body.get("agent").cloned(), items(&reply.body, "agents").to_vec());
    let today = OffsetDateTime::now_utc().date();
    let mut due: Vec<(Date, Value)> =
        one.iter().chain(&all).filter_map(|agent| Some((due(agent)?, agent.clone()))).collect();
    due.retain(|(day, _)| id.is_some() || *day <= today.saturating_add(WARNED_AHEAD));
    due.sort_by_key(|(day, agent)| (*day, word(agent, "/id")));
    let mut rows = vec![["AGENT", "REVIEW DUE", "DAYS", "STATE", "OWNER"].map(str::to_owned)];
    rows.extend(due.iter().map(|(day, agent)| {
        let days = (*day - today).whole_days().to_string();
        [word(agent, "/id"), day.to_string(), days, word(agent, "/state"), word(agent, "/owner/business")]
    }));
    let text = if due.is_empty() { "No review is due.\n".to_owned() } else { table(&rows) };
    let json = json!({"due": due.into_iter().map(|(_, agent)| agent).collect::<Vec<_>>()});
    Ok(Said { code: 0, text, json })
}

fn due(agent: &Value) -> Option<Date> {
    let day = agent.get("review_due")?.as_str()?;
    Date::parse(day, format_description!("[year]-[month]-[day]")).ok()
}

fn ordered(gateway: &Gateway, verb: &str, order: &Order) -> Result<Said, Failure> {
    if order.reason.trim().is_empty() {
        return Err(Failure::Usage(
            "--reason must say something: it is what the record says later".to_owned(),
        ));
    }
    let Some(id) = &order.id else { return many(gateway, verb, order) };
    if order.dry_run {
        let reply = gateway.ask(Method::GET, &path(id, ""), None)?;
        return Ok(said(reply, |body| {
            let agent = body.get("agent").unwrap_or(&Value::Null);
            format!("would {verb} {}, which is {}\n", word(agent, "/id"), word(agent, "/state"))
        }));
    }
    let body = json!({"reason": order.reason});
    let reply = gateway.ask(Method::POST, &path(id, &format!("/{verb}")), Some(&body))?;
    Ok(said(reply, |body| {
        let cut = body.get("connections_cut").and_then(Value::as_u64).unwrap_or(0);
        let was = if body.get("changed") == Some(&Value::Bool(true)) { "is now" } else { "was already" };
        let (id, state, record) =
            (word(body, "/agent/id"), word(body, "/agent/state"), word(body, "/record"));
        format!("{id} {was} {state}; {cut} connections cut; record {record}\n")
    }))
}

fn many(gateway: &Gateway, verb: &str, order: &Order) -> Result<Said, Failure> {
    let mut body = json!({"reason": order.reason, "dry_run": order.dry_run});
    if let Some(members) = body.as_object_mut() {
        members.extend(order.owner.clone().map(|owner| ("owner".to_owned(), json!(owner))));
        members.extend(order.team.clone().map(|team| ("team".to_owned(), json!(team))));
        members.extend(order.all.then(|| ("all".to_owned(), json!(true))));
    }
    let reply = gateway.ask(Method::POST, &format!("/v1/agents/{verb}"), Some(&body))?;
    let mut told = said(reply, |body| {
        let mut rows = vec![["AGENT", "TEAM", "OUTCOME", "WHY"].map(str::to_owned)];
        let cells = |one: &Value| ["/id", "/team", "/outcome", "/detail"].map(|at| word(one, at));
        rows.extend(items(body, "agents").iter().map(cells));
        let mut text = table(&rows);
        for wildcard in items(body, "not_covered").iter().filter_map(Value::as_str) {
            text.push_str(&format!(
                "NOT COVERED {}: agents below it that have not called; change the registry\n",
                literal::plain(wildcard)
            ));
        }
        let counts = ["/changed", "/unchanged", "/refused", "/failed", "/connections_cut"];
        let [changed, unchanged, refused, failed, cut] = counts.map(|at| word(body, at));
        let would = if order.dry_run { "Nothing was done. Would be: " } else { "" };
        text.push_str(&format!(
            "{would}{changed} changed, {unchanged} unchanged, {refused} refused, {failed} failed, {cut} connections cut\n"
        ));
        text
    });
    let count = |name: &str| told.json.get(name).and_then(Value::as_u64).unwrap_or(0);
    if told.code == 0 && count("failed") > 0 {
        told.code = 2;
    } else if told.code == 0 && count("refused") > 0 {
        told.code = 1;
    }
    Ok(told)
}
