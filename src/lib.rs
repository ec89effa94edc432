//! Holdpoint: a transparent gateway between agents and the tools and APIs they call. Read `pipeline` first.

pub mod call;
pub mod classify;
pub mod config;
pub mod json;
