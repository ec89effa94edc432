//! Starting a child as configuration says, and ending it in good order.
//!
//! Nothing of what a child is comes from an agent: command, user, environment and limits are configuration alone.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, prlimit};
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

/// What one process of a child may use [prlimit(2)]. `None` leaves what the gateway itself has.
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

/// Starts a child. Its limits are in force before it is written the first byte.
pub(super) fn start(program: &Program) -> Result<Child, String> {
    let mut command = Command::new(&program.command);
    command
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
    if let Some(user) = program.user {
        // As root this also gives up every supplementary group.
        command.uid(user.uid).gid(user.gid);
    }
    let failed = |what: &str, error: &dyn Display| format!("{}: {what}: {error}", program.command.display());
    let mut child = command.spawn().map_err(|error| failed("cannot be started", &error))?;
    if let Err(error) = program.limits.set(group(&child)) {
        // A child without its limits serves nobody.
        let _ = child.start_kill();
        return Err(failed("its limits cannot be set", &error));
    }
    Ok(child)
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
    fn set(self, child: Option<Pid>) -> rustix::io::Result<()> {
        let limits = [
            (Resource::Data, self.memory_bytes),
            (Resource::Nproc, self.processes),
            (Resource::Nofile, self.files),
            (Resource::Cpu, self.cpu_seconds),
            // A dump of memory would hold the secrets of its environment.
            (Resource::Core, Some(0)),
        ];
        let Some(child) = child else { return Err(rustix::io::Errno::SRCH) };
        for (resource, asked) in limits {
            let Some(asked) = asked else { continue };
            // What the gateway itself may use at most is more than it can give away.
            let most = Some(getrlimit(resource).maximum.map_or(asked, |own| own.min(asked)));
            prlimit(Some(child), resource, Rlimit { current: most, maximum: most })?;
        }
        Ok(())
    }
}
