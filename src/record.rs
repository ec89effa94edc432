//! What happened, kept so that it can be proven: the ledger, its recovery, its verification and its reading.

pub mod chain;
pub mod ledger;
mod recover;
mod segment;
pub mod tail;
pub mod verify;
mod writer;

pub use chain::Kind;
pub use ledger::{Appended, Config, Durability, Entry, Ledger, LedgerError, Stats};
pub use recover::Recovered;
