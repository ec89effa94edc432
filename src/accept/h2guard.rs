//! A bound on HTTP/2 control frames, which h2 answers without any limit of its own.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most control frames in one [`WINDOW`]; a client's own keep-alive and window updates stay far below.
pub const CONTROL_FRAMES_MAX: u32 = 1000;
/// How long control frames are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// How many window updates each data frame that was sent explains: its stream's and its connection's.
const UPDATES_PER_DATA_FRAME: u32 = 2;
/// The most window updates that can be saved up.
const UPDATES_MAX: u32 = 100_000;
/// The connection preface that a client sends first [RFC 9113 §3.4].
const PREFACE_BYTES: usize = 24;
/// A frame's header [RFC 9113 §4.1].
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

/// Walks over frames without keeping them.
#[derive(Debug)]
struct Frames {
    /// Bytes to pass over before the next header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    filled: usize,
}

impl Frames {
    fn after(skip: usize) -> Frames {
        Frames { skip, header: [0; HEADER_BYTES], filled: 0 }
    }

    /// Reports the type of every frame whose header ends in these bytes.
    fn feed(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8)) {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else { return };
            if self.filled < HEADER_BYTES {
                if let Some(slot) = self.header.get_mut(self.filled) {
                    *slot = *first;
                }
                self.filled += 1;
                bytes = rest;
            }
            if self.filled == HEADER_BYTES {
                let [a, b, c, kind, ..] = self.header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.filled = 0;
                frame(kind);
            }
        }
    }
}

/// A connection that ends when its peer sends too many control frames.
pub struct H2Guard<S> {
    inner: S,
    fault: Arc<OnceLock<&'static str>>,
    read: Frames,
    written: Frames,
    since: Instant,
    control: u32,
    updates: u32,
}

impl<S> H2Guard<S> {
    /// Counts the control frames of `inner`; a flood is put into `fault`.
    pub fn new(inner: S, fault: Arc<OnceLock<&'static str>>) -> H2Guard<S> {
        H2Guard {
            inner,
            fault,
            read: Frames::after(PREFACE_BYTES),
            written: Frames::after(0),
            since: Instant::now(),
            control: 0,
            updates: 0,
        }
    }

    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (control, updates) = (&mut self.control, &mut self.updates);
        self.read.feed(bytes, |kind| match kind {
            // h2 limits these itself.
            DATA | HEADERS | CONTINUATION | RST_STREAM => {}
            WINDOW_UPDATE if *updates > 0 => *updates -= 1,
            _ => *control = control.saturating_add(1),
        });
        if self.control > CONTROL_FRAMES_MAX {
            let _ = self.fault.set("h2-control-flood");
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many HTTP/2 control frames"));
        }
        if self.since.elapsed() > WINDOW {
            self.since = Instant::now();
            self.control = 0;
        }
        Ok(())
    }

    fn went(&mut self, bytes: &[u8]) {
        let updates = &mut self.updates;
        self.written.feed(bytes, |kind| {
            if kind == DATA {
                *updates = updates.saturating_add(UPDATES_PER_DATA_FRAME).min(UPDATES_MAX);
            }
        });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for H2Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        Poll::Ready(this.came(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for H2Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        this.went(buf.get(..wrote).unwrap_or_default());
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        let mut left = wrote;
        for buf in bufs {
            let part = buf.get(..left.min(buf.len())).unwrap_or_default();
            left -= part.len();
            this.went(part);
        }
        Poll::Ready(Ok(wrote))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
