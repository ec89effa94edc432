//! Forward.
pub mod outgoing;
pub mod pool;
