//! `holdpoint holds`: calls that wait for people. Nobody approves what they have not seen: either they give the digest of
//! what they saw, or the whole call is shown and they are asked.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value, json};

use super::USAGE;
use super::client::{Failure, Gateway, items, said, segment, word};
use super::policy::{Said, table};
use crate::admin::literal;

/// What a person types to approve.
const YES: &str = "approve";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the calls that wait.
    List {
        /// In these states, with commas between them: pending, approved, denied, expired, withdrawn, releasing, executed,
        /// failed, indeterminate.
        #[arg(long, default_value = "pending")]
        state: String,
    },
    /// Show one held call, with everything that would be sent.
    Show {
        /// The hold's id.
        id: String,
    },
    /// Approve exactly this call. Without --digest the whole call is shown, and you are asked.
    Approve {
        /// The hold's id.
        id: String,
        /// The digest of what you saw.
        #[arg(long)]
        digest: Option<String>,
        /// Why; required for consequence 4.
        #[arg(long, default_value = "")]
        reason: String,
        /// Remember the call's destinations for its agent, for so long, as in 30d.
        #[arg(long)]
        remember: Option<String>,
        /// Let the approval stand for so long, as in 30m; at most 24h, and never for consequence 4.
        #[arg(long = "for", requires = "times", conflicts_with = "remember")]
        time: Option<String>,
        /// How often exactly this call may then run, the first time among them; at most 100.
        #[arg(long, requires = "time")]
        times: Option<u32>,
    },
    /// Deny this call: one denial ends it.
    Deny {
        /// The hold's id.
        id: String,
        /// Why: it is what the record says later.
        #[arg(long)]
        reason: String,
        /// The digest of what you saw.
        #[arg(long)]
        digest: Option<String>,
    },
    /// Say what came of a call that is `indeterminate`, once you have found out. Nothing is run by that.
    #[command(group = clap::ArgGroup::new("found").required(true))]
    Resolve {
        /// The hold's id.
        id: String,
        /// It took effect.
        #[arg(long, group = "found")]
        executed: bool,
        /// It did not.
        #[arg(long, group = "found")]
        failed: bool,
        /// It may be run again: only for a tool of which the catalogue says that twice is once.
        #[arg(long, group = "found")]
        again: bool,
        /// How you know: it is what the record says later.
        #[arg(long)]
        reason: String,
    },
    /// Show and take back approvals that stand for more than one run of exactly one call.
    #[command(subcommand)]
    Standing(Standing),
}

#[derive(Debug, Subcommand)]
pub(super) enum Standing {
    /// Show them, those in force first.
    List,
    /// Take one back: what it approved and has not run ends.
    Revoke {
        /// The standing approval's id.
        id: String,
        /// Why: it is what the record says later.
        #[arg(long)]
        reason: String,
    },
}

/// Carries out a command: 0 done, 1 refused, 2 not reached, 64 bad usage.
pub(super) fn holds(gateway: &Gateway, command: &Command) -> Said {
    let done = match command {
        Command::List { state } => gateway
            .ask(Method::GET, &format!("/v1/holds?state={}", segment(state)), None)
            .map(|reply| said(reply, list)),
        Command::Show { id } => gateway.ask(Method::GET, &path(id, ""), None).map(|reply| said(reply, show)),
        Command::Approve { id, digest, reason, remember, time, times } => {
            let mut body = Map::from_iter([("reason".to_owned(), json!(reason))]);
            if let Some(remember) = remember {
                body.insert("remember".to_owned(), json!(remember));
            }
            if let (Some(time), Some(times)) = (time, times) {
                body.insert("standing".to_owned(), json!({"for": time, "times": times}));
            }
            approve(gateway, id, digest.as_deref(), body)
        }
        Command::Deny { id, reason, digest } => deny(gateway, id, reason, digest.as_deref()),
        Command::Resolve { id, executed, again, reason, .. } => {
            let found = match (executed, again) {
                (true, _) => "executed",
                (_, true) => "again",
                _ => "failed",
            };
            let body = json!({"found": found, "reason": reason});
            gateway.ask(Method::POST, &path(id, "/resolve"), Some(&body)).map(|reply| said(reply, voted))
        }
        Command::Standing(Standing::List) => {
            gateway.ask(Method::GET, "/v1/standing", None).map(|reply| said(reply, standings))
        }
        Command::Standing(Standing::Revoke { id, reason }) => {
            let path = format!("/v1/standing/{}", segment(id));
            let reply = gateway.ask(Method::DELETE, &path, Some(&json!({"reason": reason})));
            reply.map(|reply| said(reply, |body| format!("{} is taken back\n", word(body, "/id"))))
        }
    };
    done.unwrap_or_else(|failure| {
        let (code, text) = match failure {
            Failure::Usage(text) => (USAGE, text),
            Failure::Unreached(text) => (2, text),
        };
        Said { code, json: json!({"error": text}), text: format!("holdpoint holds: {text}\n") }
    })
}

fn approve(
    gateway: &Gateway,
    id: &str,
    digest: Option<&str>,
    mut body: Map<String, Value>,
) -> Result<Said, Failure> {
    let digest = match digest {
        Some(digest) => digest.to_owned(),
        None => {
            let reply = gateway.ask(Method::GET, &path(id, ""), None)?;
            if reply.status != 200 {
                return Ok(said(reply, |_| String::new()));
            }
            let seen = word(&reply.body, "/hold/digest");
            if !confirmed(&show(&reply.body))? {
                let text = "Nothing was approved.\n".to_owned();
                return Ok(Said { code: 1, json: json!({"error": text.trim()}), text });
            }
            seen
        }
    };
    body.insert("digest".to_owned(), json!(digest));
    let reply = gateway.ask(Method::POST, &path(id, "/approve"), Some(&Value::Object(body)))?;
    Ok(said(reply, voted))
}

/// Shows a call and asks. Where nobody can be asked, nobody is.
fn confirmed(shown: &str) -> Result<bool, Failure> {
    let (input, mut output) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() {
        let text = "--digest D is required where nobody can be asked: `holdpoint holds show` says it";
        return Err(Failure::Usage(text.to_owned()));
    }
    let mut answer = String::new();
    let asked =
        write!(output, "{shown}\nType `{YES}` to approve exactly this call: ").and_then(|()| output.flush());
    let read = asked.and_then(|()| input.lock().read_line(&mut answer));
    read.map(|_| answer.trim() == YES).map_err(|error| Failure::Unreached(error.to_string()))
}

fn deny(gateway: &Gateway, id: &str, reason: &str, digest: Option<&str>) -> Result<Said, Failure> {
    let digest = match digest {
        Some(digest) => digest.to_owned(),
        None => {
            let reply = gateway.ask(Method::GET, &path(id, ""), None)?;
            if reply.status != 200 {
                return Ok(said(reply, |_| String::new()));
            }
            word(&reply.body, "/hold/digest")
        }
    };
    let body = json!({"digest": digest, "reason": reason});
    let reply = gateway.ask(Method::POST, &path(id, "/deny"), Some(&body))?;
    Ok(said(reply, voted))
}

/// The path of a hold's resource, with the id as one segment.
fn path(id: &str, verb: &str) -> String {
    format!("/v1/holds/{}{verb}", segment(id))
}

fn list(body: &Value) -> String {
    if items(body, "holds").is_empty() {
        return "Nothing waits.\n".to_owned();
    }
    let mut rows =
        vec![["HOLD", "STATE", "AGENT", "TOOL", "CONSEQUENCE", "RULE", "UNTIL"].map(str::to_owned)];
    rows.extend(items(body, "holds").iter().map(|hold| {
        let tool = format!("{} {}", word(hold, "/upstream"), word(hold, "/tool"));
        let [id, state, agent, level, rule, until] =
            ["/id", "/state", "/agent", "/consequence", "/rule", "/expires"].map(|at| word(hold, at));
        [id, state, agent, tool, level, rule, until]
    }));
    table(&rows)
}

fn standings(body: &Value) -> String {
    if items(body, "standing").is_empty() {
        return "No approval stands.\n".to_owned();
    }
    let mut rows = vec![["ID", "STATE", "AGENT", "TOOL", "RAN", "UNTIL", "APPROVED BY"].map(str::to_owned)];
    rows.extend(items(body, "standing").iter().map(|one| {
        let [id, state, agent, upstream, tool, used, times, until, people] =
            ["/id", "/state", "/agent", "/upstream", "/tool", "/used", "/times", "/until", "/people"]
                .map(|at| word(one, at));
        [id, state, agent, format!("{upstream} {tool}"), format!("{used} of {times}"), until, people]
    }));
    table(&rows)
}

fn show(body: &Value) -> String {
    let hold = body.get("hold").unwrap_or(&Value::Null);
    let rows = [
        ("hold", "/id"),
        ("state", "/state"),
        ("agent", "/agent"),
        ("team", "/team"),
        ("owner", "/owner"),
        ("on behalf", "/on_behalf_of"),
        ("upstream", "/upstream"),
        ("tool", "/tool"),
        ("class", "/class"),
        ("consequence", "/consequence"),
        ("rule", "/rule"),
        ("why", "/reason"),
        ("quorum", "/quorum"),
        ("approvers", "/approvers"),
        ("opened", "/opened"),
        ("until", "/expires"),
        ("standing", "/standing"),
        ("record", "/record"),
        ("detail", "/detail"),
        ("digest", "/digest"),
    ];
    let mut text: String = rows.iter().map(|(name, at)| format!("{name:<12} {}\n", word(hold, at))).collect();
    for vote in items(hold, "votes") {
        let [says, by, at, reason] = ["/says", "/by", "/at", "/reason"].map(|at| word(vote, at));
        text.push_str(&format!("{says:<12} {by} at {at}: {reason}\n"));
    }
    match body.get("text").and_then(Value::as_str) {
        Some(call) => text
            .push_str(&format!("\nWhat would be sent, exactly what the digest is of:\n{}\n", laid_out(call))),
        None => text.push_str("\nThe hold has ended: what was held is erased.\n"),
    }
    text
}

fn voted(body: &Value) -> String {
    let (id, state) = (word(body, "/id"), word(body, "/state"));
    match state.as_str() {
        "approved" => {
            let until = word(body, "/expires");
            let stands = match word(body, "/standing").as_str() {
                "-" => String::new(),
                standing => {
                    format!("The approval stands: `holdpoint holds standing revoke {standing}` ends that\n")
                }
            };
            format!(
                "{id} is approved. Nothing has run yet: it runs once, when its agent is there, until {until}\n{stands}"
            )
        }
        "pending" => format!("{id} has your approval, and needs more\n"),
        _ => format!("{id} is {state}\n"),
    }
}

/// A JSON text, a member a line; nothing within strings is changed but what would not show itself.
fn laid_out(json: &str) -> String {
    let (mut text, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    };
    for c in json.chars() {
        if quoted {
            text.push_str(&literal::plain(c.encode_utf8(&mut [0; 4])));
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            '{' | '[' => {
                text.push(c);
                depth += 1;
                line(&mut text, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                quoted = c == '"';
                text.push(c);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_laid_out_and_nothing_of_it_is_hidden_or_acted_on() {
        let shown = laid_out("{\"to\":\"a\\\",{}\u{202e}b\",\"n\":9007199254740993}");
        assert_eq!(shown, "{\n  \"to\": \"a\\\",{}<U+202E>b\",\n  \"n\": 9007199254740993\n}");
    }
}
