//! Changes while the gateway runs: each takes effect without a call that is dropped, a mistake leaves what was good, and
//! who is trusted no more is cut off at once.

#![expect(clippy::unwrap_used, reason = "what the stories share stops at the first surprise")]
#![expect(clippy::panic, reason = "what the stories share stops at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "what the stories share stops at the first surprise")]

mod changes;
mod cut;
#[path = "../gateway/fake.rs"]
#[expect(dead_code, reason = "these stories need a part of it")]
mod fake;
mod follow;
#[path = "../gateway/harness.rs"]
#[expect(dead_code, reason = "these stories need a part of it")]
mod harness;
mod load;
mod mistakes;
mod place;
