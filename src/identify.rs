//! Who calls.

pub mod svid;
