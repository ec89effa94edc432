//! Flow control through the front door: what agents read does not leave by any of the ways around, and honest work goes
//! through. Each story asserts what arrived upstream, and so that what was stopped did not.

#![expect(clippy::unwrap_used, reason = "what the stories share stops at the first surprise")]
#![expect(clippy::panic, reason = "what the stories share stops at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "what the stories share stops at the first surprise")]

mod around;
mod check;
mod endorsed;
mod evidence;
#[path = "../gateway/fake.rs"]
#[expect(dead_code, reason = "the stories of the gateway use all of it")]
mod fake;
mod frozen;
mod isolated;
mod kept;
mod replies;
mod sequences;
mod tasks;
mod world;
