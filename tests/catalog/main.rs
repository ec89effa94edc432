//! Definitions of tools through the front door: upstreams that change their minds, hide text, pose as others, or never
//! come to an end; and the commands that draft, compare and pin.

#![expect(clippy::unwrap_used, reason = "what the stories share stops at the first surprise")]
#![expect(clippy::panic, reason = "what the stories share stops at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "what the stories share stops at the first surprise")]

mod commands;
mod definitions;
mod server;
mod world;
