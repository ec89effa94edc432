//! What decodes and what flow control learns and looks at, and nothing else of the gateway: the files are its own, linked
//! from `src`, so that fuzzing needs not build the policy engine, and nothing in the gateway need be public for it.

pub mod accept;
pub mod call;
pub mod classify;
pub mod decode;
pub mod flow;
pub mod json;
