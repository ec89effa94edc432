//! The agent's side through its own front door: the program as a process, a real gateway, real sockets. A refusal also
//! shows that no upstream saw anything.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

#[path = "../gateway/fake.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod fake;
#[path = "../gateway/harness.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod harness;
mod listener;
mod rotation;
mod side;
mod start;
mod stdio;
mod workload_api;
