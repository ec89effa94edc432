//! Holdpoint: a transparent gateway between agents and the tools and APIs they call. Read `pipeline` first.

pub mod answer;
pub mod call;
/// The commands, as plain functions.
pub mod cli {
    pub mod audit;
}
pub mod classify;
pub mod config;
pub mod demo;
pub mod flow;
pub mod forward;
pub mod decode;
pub mod cli;
pub mod config;
pub mod decide;
pub mod json;
pub mod limit;
pub mod secret;
pub mod telemetry;
pub mod record;
