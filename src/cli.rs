//! The commands, as plain functions: each gives an exit code, text for people and JSON for programs.

pub mod audit;
pub mod policy;
