//! Holdpoint: a transparent gateway between agents and the tools and APIs they call. Read `pipeline` first.

pub mod call;
/// The commands, as plain functions.
pub mod cli {
    pub mod audit;
}
pub mod config;
pub mod json;
pub mod record;
