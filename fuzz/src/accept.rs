//! The framing of HTTP/1.1.

pub mod framing;
mod head;
