//! What flow control is told by the catalogue, without the catalogue.

mod reply;
#[expect(dead_code, reason = "the gateway uses all of it")]
pub mod sink;
#[expect(dead_code, reason = "the gateway uses all of it")]
pub mod view;

/// Where the gateway's files find it.
pub mod catalog {
    pub use super::reply::Reply;
}
