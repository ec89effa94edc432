//! Stories of the admin listener, through real sockets and with real certificates.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test ends where it cannot go on"
)]

mod agents;
mod command;
mod console;
mod door;
mod doors;
mod emergency;
mod harness;
mod holds;
mod inbox;
mod oidc;
mod provider;
mod records;
mod runs;
mod tokens;
mod tools;
