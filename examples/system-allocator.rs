//! The gateway with the allocator of the system, or another that is preloaded: what `integration/bench` compares with.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdpoint::cli::main()
}
