//! The framing of HTTP/1.1.

pub mod framing;
#[expect(dead_code, reason = "the check of HTTP/2 has no bytes to look at")]
mod head;
