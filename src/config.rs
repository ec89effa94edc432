//! Configuration: YAML becomes each stage's own typed `Config` once, and every mistake is reported together.

pub mod read;
pub mod registry;
