//! Holdpoint: a transparent gateway between agents and the tools and APIs they call. Read `pipeline` first.

pub mod accept;
pub mod call;
pub mod config;
pub mod identify;
pub mod json;
pub mod net;
pub mod pki;
