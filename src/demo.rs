//! The demo: everything embedded, on real sockets.

pub mod agent;
pub mod sample;
