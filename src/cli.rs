//! The command line: what can be said, and what it answers with.
//!
//! Exit codes: 0 done, 1 refused or found wanting, 2 could not run, 64 bad usage or configuration.

mod agents;
pub mod audit;
mod breakglass;
mod canary;
mod catalog;
mod client;
mod connect;
mod endorsements;
mod holds;
mod keys;
mod launch;
mod notify;
mod paths;
pub mod policy;
mod replay;
mod runs;
mod serve;
mod state;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::{self, Loaded};
use crate::identify::svid;
use crate::record::tail::Format;
use crate::yaml::Mistake;
use crate::{demo, pki};
use policy::{Catalogued, Said};

/// A gateway between agents and the tools and APIs they call.
#[derive(Debug, Parser)]
#[command(name = "holdpoint", version, max_term_width = 100, disable_help_subcommand = true)]
struct Arguments {
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(ConfigFile),
    /// Report every mistake in the configuration and in all that it names.
    Check(ConfigFile),
    /// Show everything in a minute: an embedded CA, sample tools, the gateway and a scripted agent.
    Demo {
        /// Nobody is asked anything; exit 0 when every step was as expected.
        #[arg(long)]
        once: bool,
    },
    /// Become a program with limits: how the gateway starts its stdio upstreams.
    #[command(hide = true)]
    Launch(launch::Arguments),
    /// Stand on the agent's machine, and speak to the gateway with the workload's SVID.
    Connect(Box<connect::Arguments>),
    /// Make certificates for development.
    Pki {
        /// Where the development CA is.
        #[arg(long, default_value = "pki", global = true)]
        dir: PathBuf,
        #[command(subcommand)]
        command: PkiCommand,
    },
    /// Check, test and question the policies.
    Policy {
        #[command(flatten)]
        config: ConfigFile,
        /// Only these policies, without a configuration.
        #[arg(long, global = true)]
        policies: Option<PathBuf>,
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Draft catalogues, compare definitions with their pins, and pin them.
    Catalog {
        #[command(flatten)]
        config: ConfigFile,
        #[command(subcommand)]
        command: catalog::Command,
    },
    /// Show agents, stop them, and let them go on, by a running gateway's admin listener.
    Agents {
        #[command(flatten)]
        gateway: client::Gateway,
        #[command(subcommand)]
        command: agents::Command,
    },
    /// Show calls that wait for people, and decide them, by a running gateway's admin listener.
    Holds {
        #[command(flatten)]
        gateway: client::Gateway,
        #[command(subcommand)]
        command: holds::Command,
    },
    /// Show what webhooks have not confirmed, and try it again, by a running gateway's admin listener.
    Notify {
        #[command(flatten)]
        gateway: client::Gateway,
        #[command(subcommand)]
        command: notify::Command,
    },
    /// Show and revoke destinations that people remembered, by a running gateway's admin listener.
    Endorsements {
        #[command(flatten)]
        gateway: client::Gateway,
        #[command(subcommand)]
        command: endorsements::Command,
    },
    /// Lift policies for some minutes in an emergency, end that, and review it, by a running gateway's admin listener.
    Breakglass {
        #[command(flatten)]
        gateway: client::Gateway,
        #[command(subcommand)]
        command: breakglass::Command,
    },
    /// Make and list planted tokens that must never leave.
    Canary {
        #[command(flatten)]
        config: ConfigFile,
        #[command(subcommand)]
        command: canary::Command,
    },
    /// Show what runs have read and sent, and let frozen ones go on, by a running gateway's admin listener.
    Runs {
        #[command(flatten)]
        gateway: client::Gateway,
        #[command(subcommand)]
        command: runs::Command,
    },
    /// Verify and read the audit.
    Audit(Box<audit::Arguments>),
    /// Copy the store, and put a copy back in its place.
    State {
        #[command(flatten)]
        config: ConfigFile,
        #[command(subcommand)]
        command: state::Command,
    },
    /// Show and rotate the gateway's keys.
    Keys {
        #[command(flatten)]
        config: ConfigFile,
        #[command(subcommand)]
        command: keys::Command,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, global = true, env = "HOLDPOINT_CONFIG", default_value = "/etc/holdpoint/holdpoint.yaml")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum PkiCommand {
    /// Make a development CA and the gateway's certificate.
    Init,
    /// Issue a certificate.
    Issue {
        /// For an agent, by the path of its SPIFFE ID, as in agent/support.
        #[arg(long, group = "whom", required = true, value_parser = path_of_id)]
        agent: Option<String>,
        /// For a person, by name.
        #[arg(long, group = "whom", value_parser = path_of_id)]
        person: Option<String>,
        /// For an orchestrator, by name.
        #[arg(long, group = "whom", value_parser = path_of_id)]
        orchestrator: Option<String>,
        /// For a gateway, by name.
        #[arg(long, group = "whom", value_parser = path_of_id)]
        gateway: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Parse and validate every policy.
    Check,
    /// Run the cases beside the policies.
    Test,
    /// Say why a recorded call was decided as it was, by today's policies.
    Explain {
        /// A record's id or a trace's id.
        record: String,
        /// The audit's directory; the configuration's by default.
        #[arg(long)]
        audit: Option<PathBuf>,
    },
    /// Decide recorded calls again by other policies, and show what would change.
    Replay(replay::Arguments),
    /// Show what an agent may do with each tool of the catalogue.
    Can {
        /// The agent's SPIFFE ID, or its end.
        #[arg(long)]
        agent: String,
    },
}

/// The path of a SPIFFE ID, without the slash that it begins with.
fn path_of_id(text: &str) -> Result<String, String> {
    let parsed = svid::parse_id(&format!("spiffe://example.org/{text}"));
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Bad usage or configuration [sysexits EX_USAGE].
const USAGE: u8 = 64;

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too; they are no failure.
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    ExitCode::from(run(arguments))
}

fn run(arguments: Arguments) -> u8 {
    let format = if arguments.json { Format::Json } else { Format::Text };
    let out = &mut std::io::stdout();
    match arguments.command {
        Command::Serve(file) => serve::serve(&file.config, format),
        Command::Check(file) => check(&file.config, format, out),
        Command::Catalog { config, command } => tell(catalog::run(&config.config, command), format, out),
        Command::Connect(arguments) => connect::connect(*arguments, format),
        Command::Launch(arguments) => launch::launch(&arguments),
        Command::Demo { once } => demo::run(once, format),
        Command::Pki { dir, command } => pki_command(&dir, command, format, out),
        Command::Policy { config, policies, command } => {
            policy_command(&config.config, policies.as_deref(), command, format, out)
        }
        Command::Agents { gateway, command } => tell(agents::agents(&gateway, &command), format, out),
        Command::Holds { gateway, command } => tell(holds::holds(&gateway, &command), format, out),
        Command::Notify { gateway, command } => tell(notify::notify(&gateway, &command), format, out),
        Command::Endorsements { gateway, command } => {
            tell(endorsements::endorsements(&gateway, &command), format, out)
        }
        Command::Breakglass { gateway, command } => {
            tell(breakglass::breakglass(&gateway, &command), format, out)
        }
        Command::Canary { config, command } => {
            let said = match config::load(&config.config) {
                Ok(loaded) => canary::run(&loaded.settings, &command),
                Err(mistakes) => wanting(&mistakes),
            };
            tell(said, format, out)
        }
        Command::Runs { gateway, command } => tell(runs::runs(&gateway, &command), format, out),
        Command::Audit(arguments) => audit::run(*arguments, format, out),
        Command::State { config, command } => {
            let said = match config::load(&config.config) {
                Ok(loaded) => state::run(&loaded.settings, &command),
                Err(mistakes) => wanting(&mistakes),
            };
            tell(said, format, out)
        }
        Command::Keys { config, command } => {
            let said = match config::load(&config.config) {
                Ok(loaded) => keys::run(&loaded.settings, command),
                Err(mistakes) => wanting(&mistakes),
            };
            tell(said, format, out)
        }
    }
}

fn check(file: &Path, format: Format, out: &mut dyn Write) -> u8 {
    match config::load(file) {
        Err(mistakes) => tell(wanting(&mistakes), format, out),
        Ok(loaded) => {
            let upstreams = loaded.catalog.upstreams().count();
            let tools: usize = loaded.catalog.upstreams().map(|upstream| upstream.entries().count()).sum();
            let agents = loaded.directory.entries().count();
            let policies = loaded.policy.len();
            let mut warnings = config::warnings(&loaded);
            let paths = paths::report(&loaded.catalog, &loaded.policy);
            warnings.extend(paths.warnings);
            let warned: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
            let text = format!(
                "{warned}{}{}: in order: {}, {} with {}, {policies} policies (revision {})\n",
                paths.text,
                file.display(),
                quantity(agents, "agent"),
                quantity(upstreams, "upstream"),
                quantity(tools, "catalogued tool"),
                loaded.policy.revision(),
            );
            let json = serde_json::json!({"ok": true, "agents": agents, "upstreams": upstreams, "tools": tools,
                "policies": policies, "revision": &**loaded.policy.revision(), "warnings": warnings, "paths": paths.json});
            tell(Said { code: 0, text, json }, format, out)
        }
    }
}

/// How many of something: `1 mistake`, `2 mistakes`.
fn quantity(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Every mistake, a line each.
fn wanting(mistakes: &[Mistake]) -> Said {
    let mut text: String = mistakes.iter().map(|mistake| format!("{mistake}\n")).collect();
    text.push_str(&format!("{}\n", quantity(mistakes.len(), "mistake")));
    let list: Vec<_> = mistakes
        .iter()
        .map(|mistake| serde_json::json!({"file": mistake.file, "path": mistake.path, "problem": mistake.problem}))
        .collect();
    Said { code: USAGE, text, json: serde_json::json!({"ok": false, "mistakes": list}) }
}

/// Says something in the form that was asked for; what went wrong goes to standard error.
fn tell(said: Said, format: Format, out: &mut dyn Write) -> u8 {
    let written = match format {
        Format::Json => writeln!(out, "{:#}", said.json),
        Format::Text if said.code >= 2 => write!(std::io::stderr(), "{}", said.text),
        Format::Text => write!(out, "{}", said.text),
    };
    if written.is_ok() { said.code } else { 2 }
}

fn pki_command(dir: &Path, command: PkiCommand, format: Format, out: &mut dyn Write) -> u8 {
    let made = match command {
        PkiCommand::Init => pki::init(dir),
        PkiCommand::Issue { agent: Some(path), .. } => pki::issue_agent(dir, &path),
        PkiCommand::Issue { person: Some(name), .. } => pki::issue_person(dir, &name),
        PkiCommand::Issue { orchestrator: Some(name), .. } => pki::issue_orchestrator(dir, &name),
        PkiCommand::Issue { gateway, .. } => pki::issue_gateway(dir, gateway.as_deref().unwrap_or("gateway")),
    };
    let said = match made {
        Ok(files) => {
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            let text = format!("wrote {} (for development only)\n", names.join(", "));
            Said { code: 0, text, json: serde_json::json!({"files": names}) }
        }
        Err(problem) => Said {
            code: 2,
            text: format!("holdpoint pki: {problem}\n"),
            json: serde_json::json!({"error": problem}),
        },
    };
    tell(said, format, out)
}

fn policy_command(
    file: &Path,
    policies: Option<&Path>,
    command: PolicyCommand,
    format: Format,
    out: &mut dyn Write,
) -> u8 {
    if let PolicyCommand::Replay(arguments) = &command {
        return tell(replay::replay(policies, file, arguments), format, out);
    }
    if let (Some(dir), PolicyCommand::Check | PolicyCommand::Test) = (policies, &command) {
        let facts = crate::decide::schema::Facts::new();
        let said = if matches!(command, PolicyCommand::Check) {
            policy::check(dir, &facts)
        } else {
            policy::test(dir, &facts)
        };
        return tell(said, format, out);
    }
    let (loaded, dir) = match (config::load(file), config::policy_dir(file)) {
        (Ok(loaded), Some(dir)) => (loaded, dir),
        (Err(mistakes), _) => return tell(wanting(&mistakes), format, out),
        (Ok(_), None) => {
            return tell(
                wanting(&[Mistake::new(&file.display().to_string(), "policy", "is missing")]),
                format,
                out,
            );
        }
    };
    let said = match command {
        PolicyCommand::Check | PolicyCommand::Replay(_) => policy::check(&dir, &loaded.facts()),
        PolicyCommand::Test => policy::test(&dir, &loaded.facts()),
        PolicyCommand::Explain { record, audit } => explain(&loaded, &record, audit.as_deref()),
        PolicyCommand::Can { agent } => can(&loaded, &agent),
    };
    tell(said, format, out)
}

fn explain(loaded: &Loaded, needle: &str, audit: Option<&Path>) -> Said {
    let dir = audit.unwrap_or(&loaded.settings.audit.dir);
    let wanting = |code, text: String| Said {
        code,
        json: serde_json::json!({"error": text}),
        text: format!("{text}\n"),
    };
    match crate::record::tail::find(dir, needle) {
        Err(error) => wanting(2, format!("{}: {error}", dir.display())),
        Ok(records) => match refused(&records) {
            Some(record) if record.get("input").is_some() => policy::explain(&loaded.policy, record),
            Some(record) => stopped(loaded, record),
            None => wanting(1, format!("no record or trace `{needle}` in {}", dir.display())),
        },
    }
}

/// The record to explain: of several in a trace the first that did not let its call go, else the first with a decision.
fn refused(records: &[serde_json::Value]) -> Option<&serde_json::Value> {
    let halted = |record: &&serde_json::Value| record["type"] == "refused" || record["type"] == "held";
    let decided = |record: &&serde_json::Value| record.get("input").is_some();
    records.iter().find(halted).or_else(|| records.iter().find(decided)).or(records.first())
}

/// Says what stopped a call before policy was asked, what was known of it by then, and who answers for its agent.
fn stopped(loaded: &Loaded, record: &serde_json::Value) -> Said {
    let said = |pointer: &str| record.pointer(pointer).and_then(serde_json::Value::as_str);
    let text = |pointer: &str| {
        let text = said(pointer).filter(|text| !text.is_empty());
        crate::admin::literal::plain(text.unwrap_or("-"))
    };
    let agent = said("/agent/id").and_then(|id| svid::parse_id(id).ok());
    let known = agent.and_then(|agent| loaded.directory.find(&agent));
    let today = known.as_ref().and_then(|known| known.entry().owners.business.clone());
    // One who was refused before the registry was read has the owner that it names today.
    let owner = said("/owner").map(str::to_owned).or_else(|| today.map(|name| name.to_string()));
    let owner = owner.map_or_else(|| "-".to_owned(), |owner| crate::admin::literal::plain(&owner));
    let known =
        ["upstream", "method", "tool", "asked", "class", "consequence", "effects", "destinations", "labels"];
    let evidence: serde_json::Map<_, _> =
        known.into_iter().filter_map(|name| Some((name.to_owned(), record.get(name)?.clone()))).collect();
    let (outcome, rule) = (text("/decision/outcome"), text("/decision/rule"));
    let (stage, reason, detail) = (text("/stage"), text("/reason"), text("/detail"));
    let mut lines = vec![
        format!("It was stopped at {stage}, before policy was asked: {outcome}."),
        format!("  rule      {}", if rule == "-" { &reason } else { &rule }),
        format!("  why       {reason}: {detail}"),
        format!("  agent     {}", text("/agent/id")),
        format!("  owner     {owner}"),
    ];
    for (name, value) in &evidence {
        let value = value.as_str().map_or_else(|| value.to_string(), crate::admin::literal::plain);
        lines.push(format!("  {name:<9} {value}"));
    }
    lines.push(format!("  record    {}\n", text("/id")));
    Said {
        code: 0,
        text: lines.join("\n"),
        json: serde_json::json!({"outcome": outcome, "rule": rule, "stage": stage, "reason": reason, "detail": detail,
            "owner": owner, "agent": text("/agent/id"), "evidence": evidence, "record": text("/id")}),
    }
}

fn can(loaded: &Loaded, agent: &str) -> Said {
    let found: Vec<_> = loaded
        .directory
        .entries()
        .filter(|entry| entry.id.as_str() == agent || entry.id.as_str().ends_with(&format!("/{agent}")))
        .filter_map(|entry| loaded.directory.find(&entry.id))
        .map(|known| known.profile_today(time::OffsetDateTime::now_utc().date()))
        .collect();
    if found.is_empty() {
        let text = format!("no agent `{agent}` in the registry");
        return Said { code: 1, json: serde_json::json!({"error": text}), text: format!("{text}\n") };
    }
    let mut resources: Vec<Catalogued> = loaded
        .catalog
        .upstreams()
        .flat_map(|upstream| upstream.entries())
        .map(|entry| Catalogued { profile: Arc::clone(&entry.profile), effects: entry.effects.clone() })
        .collect();
    resources
        .sort_by(|a, b| (&a.profile.upstream, &a.profile.name).cmp(&(&b.profile.upstream, &b.profile.name)));
    policy::can(&loaded.policy, &found, &resources)
}
