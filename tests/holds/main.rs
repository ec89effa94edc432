//! Held calls through the front door: agents call, people decide on the admin listener, and the upstream's own log is the
//! judge of what ran.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod breakglass;
mod continuing;
mod deciding;
mod digest;
mod failures;
mod harness;
mod restored;
mod standing;
mod told;
mod waiting;
