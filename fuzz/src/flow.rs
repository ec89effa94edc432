//! Flow control without runs: what learns from replies, what looks at calls, and the forms of the journal.

mod blocks;
pub mod canary;
mod canon;
pub mod chain;
pub mod finding;
pub mod history;
#[expect(dead_code, reason = "the gateway uses all of it")]
mod index;
pub mod journal;
pub mod learn;
pub mod lineage;
mod masks;
mod matching;
mod pointed;
#[expect(dead_code, reason = "the gateway uses all of it")]
mod provenance;
mod secret;
mod sorted;
mod spelled;
pub mod text;
pub mod view;
#[expect(dead_code, reason = "what is left out of a digest is not needed here")]
mod wire;
mod winnow;
mod words;
