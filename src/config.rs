//! Configuration: YAML becomes each stage's own typed `Config` once, and every mistake is reported together.

pub mod raw;
pub mod registry;
pub mod catalog;
pub mod read;
pub mod units;
