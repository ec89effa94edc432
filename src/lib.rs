//! Holdpoint: a transparent gateway between agents and the tools and APIs they call. Read `pipeline` first.

pub mod call;
pub mod cli;
pub mod config;
pub mod decide;
pub mod json;
