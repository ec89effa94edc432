//! Starting a child as configuration says, and ending it in good order.
//!
//! Nothing of what a child is comes from an agent: command, user, environment and limits are configuration alone.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};
use tokio::process::{Child, Command};

use crate::secret::Secret;

/// The `PATH` of a child whose `env` names none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is run, and as whom.
pub struct Program {
    /// The program, absolute.
    pub command: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// The user that it runs as; the gateway's own when there is none.
    pub user: Option<User>,
    /// Its `HOME`, unless `environment` names another.
    pub home: PathBuf,
    /// What its environment has beside `PATH`, `HOME` and `LANG`, or in their place.
    pub environment: Vec<(String, Value)>,
    /// What it may use.
    pub limits: Limits,
}

/// A user and its own group. Supplementary groups are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A value in a child's environment.
pub enum Value {
    /// As written.
    Plain(String),
    /// That of the gateway's own environment, read at the gateway's start.
    Secret(Secret),
    /// What a file holds, read at each start of a child.
    File(PathBuf),
}

/// What one process of a child may use [setrlimit(2)]. `None` leaves what the gateway itself has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Writable private memory in bytes (`RLIMIT_DATA`).
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the user, its others included (`RLIMIT_NPROC`); root has no such limit.
    pub processes: Option<u64>,
    /// Open files (`RLIMIT_NOFILE`).
    pub files: Option<u64>,
    /// Time on a processor in seconds, over the child's whole life (`RLIMIT_CPU`).
    pub cpu_seconds: Option<u64>,
}

/// How long a child has for each step of its end: after its input was closed, and after SIGTERM.
const STEP_TIME_MAX: Duration = Duration::from_secs(2);

/// The program that sets a child's limits and becomes it: this one, unless the gateway is part of another.
static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();

/// Names the `holdpoint` program, where the gateway is part of another one; once, before the first child.
pub fn launch_by(program: PathBuf) {
    let _ = LAUNCHER.set(program);
}

/// Starts a child. A launcher sets its limits, takes its user and becomes it: a process cannot limit another user's
/// without a capability that containers rarely have, and so there is no moment without limits either.
pub(super) fn start(program: &Program) -> Result<Child, String> {
    let failed = |what: &str, error: &dyn Display| format!("{}: {what}: {error}", program.command.display());
    let launcher = match LAUNCHER.get() {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(|error| failed("this program is not found", &error))?,
    };
    let mut command = Command::new(launcher);
    command.arg("launch").args(program.limits.words());
    if let Some(user) = program.user {
        command.args([format!("--uid={}", user.uid), format!("--gid={}", user.gid)]);
    }
    command
        .arg("--")
        .arg(&program.command)
        .args(&program.arguments)
        .current_dir(&program.directory)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", &program.home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for (name, value) in &program.environment {
        match value {
            Value::Plain(text) => command.env(name, text),
            Value::Secret(secret) => command.env(name, secret.expose()),
            Value::File(file) => command.env(name, held(file)?.expose()),
        };
    }
    command.spawn().map_err(|error| failed("cannot be started", &error))
}

/// Becomes a program of this user, with these limits: what the launcher does. It returns only when it cannot.
pub fn become_program(limits: Limits, user: Option<User>, program: &[OsString]) -> String {
    let Some((command, arguments)) = program.split_first() else { return "no program is named".to_owned() };
    if let Err(error) = limits.set() {
        return format!("its limits cannot be set: {error}");
    }
    let mut command = std::process::Command::new(command);
    command.args(arguments);
    if let Some(user) = user {
        // As root this also gives up every supplementary group.
        command.uid(user.uid).gid(user.gid);
    }
    format!("cannot be started: {}", command.exec())
}

fn held(file: &PathBuf) -> Result<Secret, String> {
    // Invariant: the message names the file, never what is in it.
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The process group of a child, which bears its process id; `None` once the child was waited for.
pub(super) fn group(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// Waits for a child whose input is closed, and helps it to its end: SIGTERM, then SIGKILL, each to its whole group
/// [MCP 2025-11-25, lifecycle, shutdown of stdio].
pub(super) async fn end(child: &mut Child) -> Option<ExitStatus> {
    let group = group(child);
    for signal in [Signal::TERM, Signal::KILL] {
        if let Ok(status) = tokio::time::timeout(STEP_TIME_MAX, child.wait()).await {
            sweep(group);
            return status.ok();
        }
        if let Some(group) = group {
            // A group that is gone needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }
    let status = tokio::time::timeout(STEP_TIME_MAX, child.wait()).await;
    sweep(group);
    status.ok()?.ok()
}

/// Ends what a child that has ended left behind in its group.
pub(super) fn sweep(group: Option<Pid>) {
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

// === impl Limits ===

impl Limits {
    /// As the launcher is told.
    fn words(self) -> impl Iterator<Item = String> {
        let limits = [
            ("memory-bytes", self.memory_bytes),
            ("processes", self.processes),
            ("files", self.files),
            ("cpu-seconds", self.cpu_seconds),
        ];
        limits.into_iter().filter_map(|(name, limit)| limit.map(|limit| format!("--{name}={limit}")))
    }

    /// Sets them for this process.
    fn set(self) -> rustix::io::Result<()> {
        let limits = [
            (Resource::Data, self.memory_bytes),
            (Resource::Nproc, self.processes),
            (Resource::Nofile, self.files),
            (Resource::Cpu, self.cpu_seconds),
            // A dump of memory would hold the secrets of its environment.
            (Resource::Core, Some(0)),
        ];
        for (resource, asked) in limits {
            let Some(asked) = asked else { continue };
            // What the gateway itself may use at most is more than it can give away.
            let most = Some(getrlimit(resource).maximum.map_or(asked, |own| own.min(asked)));
            setrlimit(resource, Rlimit { current: most, maximum: most })?;
        }
        Ok(())
    }
}
