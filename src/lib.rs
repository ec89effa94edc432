//! Holdpoint: a transparent gateway between agents and the tools and APIs they call. Read [`pipeline`] first.

pub mod accept;
pub mod answer;
pub mod app;
pub mod call;
pub mod classify;
pub mod cli;
pub mod config;
pub mod credential;
pub mod decide;
pub mod decode;
pub mod demo;
pub mod flow;
pub mod forward;
pub mod health;
pub mod hold;
pub mod identify;
pub mod json;
pub mod limit;
pub mod net;
pub mod observe;
pub mod pipeline;
pub mod pki;
pub mod record;
pub mod secret;
pub mod telemetry;
pub mod yaml;
