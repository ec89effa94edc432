//! Decoding without sockets: the parts of `src/decode`, and the two refusals that `src/decode.rs` makes for them.

pub mod http;
pub mod jsonrpc;
pub mod mcp;
pub mod splice;
pub mod sse;

use crate::call::{Stage, Stop, StopKind};

fn malformed(reason: &'static str, text: &str) -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::Malformed, reason, text)
}

fn ambiguous(reason: &'static str, text: &str) -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::Ambiguous, reason, text)
}
