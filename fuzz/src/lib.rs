//! What decodes, and nothing else of the gateway: the files are its own, linked from `src`, so that fuzzing needs not
//! build the policy engine, and nothing in the gateway need be public for it.

pub mod accept;
pub mod call;
pub mod decode;
pub mod json;
