//! The gateway through its front door: the real program in this process, on free ports, with samples behind it that
//! remember what they saw. Each refusal asserts that they saw nothing, and that the audit names the reason.

#![expect(clippy::unwrap_used, reason = "what the stories share stops at the first surprise")]
#![expect(clippy::panic, reason = "what the stories share stops at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "what the stories share stops at the first surprise")]

mod ambiguity;
mod breaker;
mod broken;
mod dialogue;
mod fake;
mod harness;
mod http;
mod identity;
mod mcp;
mod overload;
mod trace;
mod wire;
