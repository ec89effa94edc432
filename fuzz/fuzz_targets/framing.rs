//! Framing of HTTP/1.1: however a stream is cut into reads, the same bytes are approved, and httparse finds requests in
//! them that follow on each other without a gap.
#![no_main]

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use holdpoint::accept::framing::{Framing, HeadBounds, MARK, TOKEN};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

const BOUNDS: HeadBounds = HeadBounds { bytes_max: 512, fields_max: 16, wait_max: Duration::from_secs(3600) };

/// Deadlines need a clock; it is never waited for.
static CLOCK: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

fuzz_target!(|data: &[u8]| {
    // The first byte says how many of the next are cuts.
    let [cuts, rest @ ..] = data else { return };
    let (cuts, stream) = rest.split_at(usize::from(*cuts % 16).min(rest.len()));
    let _clock = CLOCK.enter();
    let whole = read(stream, &[], 1 << 16);
    let cut = read(stream, cuts, 1 << 16);
    assert_eq!(cut, whole, "cuts change what is approved");
    assert_eq!(read(stream, cuts, 7), whole, "a small buffer changes what is approved");
    follow(&whole.0, stream);
});

/// What came through, and whether a fault was found.
fn read(stream: &[u8], cuts: &[u8], buffer_bytes: usize) -> (Vec<u8>, bool) {
    let fault = Arc::new(OnceLock::new());
    let mut framing = Framing::new(Cut { stream, cuts }, BOUNDS, Arc::clone(&fault));
    let mut context = Context::from_waker(Waker::noop());
    let (mut out, mut buffer) = (Vec::new(), vec![0; buffer_bytes]);
    loop {
        let mut buf = ReadBuf::new(&mut buffer);
        match Pin::new(&mut framing).poll_read(&mut context, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => out.extend_from_slice(buf.filled()),
            // The end, or a fault after which nothing comes.
            Poll::Ready(_) | Poll::Pending => return (out, fault.get().is_some()),
        }
    }
}

/// A connection that gives what it has in pieces, as long as the cuts say.
struct Cut<'s> {
    stream: &'s [u8],
    cuts: &'s [u8],
}

impl AsyncRead for Cut<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let cut = this.cuts.split_first().map(|(cut, rest)| {
            this.cuts = rest;
            usize::from(*cut).max(1)
        });
        let part = cut.unwrap_or(usize::MAX).min(this.stream.len()).min(buf.remaining());
        let (now, later) = this.stream.split_at(part);
        buf.put_slice(now);
        this.stream = later;
        Poll::Ready(Ok(()))
    }
}

/// Steps from request to request as an upstream would; only the last may be unfinished, and only the gateway's own may
/// differ from what came.
fn follow(approved: &[u8], stream: &[u8]) {
    let mut rest = approved;
    let mut changed = false;
    while !rest.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(head) = request.parse(rest).expect("a head that httparse reads")
        else {
            panic!("an unfinished head was approved");
        };
        if request.headers.iter().any(|field| field.name == MARK && field.value == TOKEN.as_bytes()) {
            assert_eq!(rest.len(), head, "something follows a refusal");
            return;
        }
        let at = approved.len() - rest.len();
        assert!(changed || stream.get(at..at + head) == rest.get(..head), "a head was changed");
        let of = |name: &str| -> Vec<&[u8]> {
            let found = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            found.map(|field| field.value).collect()
        };
        let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
        assert!(lengths.len() + codings.len() <= 1, "two lengths");
        rest = &rest[head..];
        if let [length] = lengths[..] {
            let length: usize = std::str::from_utf8(length).expect("digits").parse().expect("a length");
            rest = &rest[length.min(rest.len())..];
        } else if let [coding] = codings[..] {
            assert_eq!(coding, b"chunked");
            // Trailers are dropped, so that what follows lies elsewhere.
            changed = true;
            rest = after_chunks(rest);
        }
    }
}

fn after_chunks(mut rest: &[u8]) -> &[u8] {
    while !rest.is_empty() {
        let size = httparse::parse_chunk_size(rest).expect("a size that httparse reads");
        let httparse::Status::Complete((line, size)) = size else { panic!("half a size was approved") };
        rest = &rest[line..];
        if size == 0 {
            return rest.strip_prefix(b"\r\n").unwrap_or_else(|| {
                assert!(rest.is_empty(), "trailers were approved");
                rest
            });
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        rest = &rest[size.min(rest.len())..];
        rest = rest.strip_prefix(b"\r\n").unwrap_or_else(|| {
            assert!(rest.is_empty(), "a chunk without its end");
            rest
        });
    }
    rest
}
