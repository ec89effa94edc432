//! The demo: everything embedded, on real sockets.

pub mod agent;
pub mod sample;

use crate::record::tail::Format;

/// Runs the demo.
pub fn run(_once: bool, _format: Format) -> u8 {
    2
}
