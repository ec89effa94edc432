//! Configuration: YAML becomes each stage's own typed `Config` once, and every mistake is reported together.

pub mod audit;
pub mod catalog;
pub mod chains;
mod holds;
mod listeners;
mod listing;
mod load;
mod manned;
pub mod notify;
mod oidc;
pub mod people;
pub mod raw;
pub mod registry;
mod shadow;
mod sources;
mod stdio;
mod upstream;

pub use audit::audit_dir;
pub use listing::{CatalogFile, warnings};
pub use load::{Listener, ListenerKind, Loaded, Settings, load, policy_dir, read};
pub use manned::{Unmanned, unmanned};
pub use sources::{Digests, Sources};

/// The JSON Schema of the configuration file.
pub fn schema() -> serde_json::Value {
    serde_json::to_value(schemars::schema_for!(raw::File)).unwrap_or_default()
}
