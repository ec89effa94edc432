//! The ground that other modules stand on to reach a peer.

pub mod tls;
