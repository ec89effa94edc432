//! Understands a request: bytes and headers become one closed action, and what could be read in two ways is refused.

pub mod http;
pub mod jsonrpc;
pub mod mcp;
pub mod splice;
pub mod sse;

use crate::call::{Stage, Stop, StopKind};

/// A stop for what two readers could understand differently.
fn ambiguous(reason: &'static str, text: &str) -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::Ambiguous, reason, text)
}

/// A stop for what is not what its protocol says it must be.
fn malformed(reason: &'static str, text: &str) -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::Malformed, reason, text)
}
