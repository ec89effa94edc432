//! Decides a call: one policy input in, one explained decision out.

pub mod cases;
pub mod cedar;
pub mod explain;
pub mod schema;
pub mod wire;

pub use cedar::{Decision, HoldTerms, Outcome, Policy};
pub use schema::FactType;
