//! `holdpoint launch`: what stands between the gateway and a child of it for a moment. Nobody calls it by hand.

use std::ffi::OsString;

use crate::stdio::process::{Limits, User, become_program};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Writable private memory, in bytes.
    #[arg(long)]
    memory_bytes: Option<u64>,
    /// Processes and threads of the user.
    #[arg(long)]
    processes: Option<u64>,
    /// Open files.
    #[arg(long)]
    files: Option<u64>,
    /// Time on a processor, in seconds.
    #[arg(long)]
    cpu_seconds: Option<u64>,
    /// The user to become.
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// The group of that user.
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Becomes the program; 2 when that cannot be.
pub(super) fn launch(arguments: &Arguments) -> u8 {
    let limits = Limits {
        memory_bytes: arguments.memory_bytes,
        processes: arguments.processes,
        files: arguments.files,
        cpu_seconds: arguments.cpu_seconds,
    };
    let user = arguments.uid.zip(arguments.gid).map(|(uid, gid)| User { uid, gid });
    let problem = become_program(limits, user, &arguments.program);
    // The gateway's log has what its children say here.
    eprintln!("holdpoint launch: {problem}");
    2
}
