//! HTTP/1.1 framing, checked on the bytes before hyper sees them: what RFC 9112 leaves open is refused here.
//!
//! Approved bytes pass unchanged. At the first violation hyper is given one synthetic request instead of the
//! offending bytes, marked with a token that no peer can know, so that the ordinary path answers and records it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::head::{self, Content};

/// How much is read from the connection at once, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// The longest chunk extension, in bytes.
const EXTENSION_BYTES_MAX: usize = 256;
/// The longest trailer section, in bytes.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// The most hexadecimal digits of a chunk's size.
const CHUNK_DIGITS_MAX: usize = 16;

/// The header that marks the synthetic request.
pub const MARK: &str = "x-holdpoint-framing";

/// The mark's value: 128 random bits, new in every process and never sent anywhere.
pub static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let mut bytes = [0; 16];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => crate::call::hex(&bytes),
        // Without randomness no TLS handshake succeeds either, so nothing can reach this mark.
        Err(_) => uuid::Uuid::now_v7().simple().to_string(),
    }
});

/// What a head may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadBounds {
    /// The longest head, in bytes.
    pub bytes_max: usize,
    /// The most header fields.
    pub fields_max: usize,
    /// How long a head may take from its first byte.
    pub wait_max: Duration,
}

/// A connection whose bytes in are checked.
pub struct Framing<S> {
    inner: S,
    bounds: HeadBounds,
    fault: Arc<OnceLock<&'static str>>,
    state: State,
    /// Read but not yet checked.
    raw: BytesMut,
    /// Checked and waiting to be taken.
    approved: BytesMut,
    /// Runs while a head is expected and its first byte, or the connection's first, is here.
    deadline: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a head, of which so many bytes are looked at.
    Head(usize),
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers(usize),
    /// A fault: only what is approved will ever be given.
    Faulted,
    /// A fault inside a body: the body ends in an error.
    Broken,
}

/// Whether looking at the bytes went forward.
enum Step {
    Forward,
    NeedMore,
}

impl<S> Framing<S> {
    /// Checks everything that comes in on `inner`; the first fault is put into `fault`.
    pub fn new(inner: S, bounds: HeadBounds, fault: Arc<OnceLock<&'static str>>) -> Framing<S> {
        Framing {
            inner,
            bounds,
            fault,
            state: State::Head(0),
            raw: BytesMut::new(),
            approved: BytesMut::new(),
            deadline: Some(Box::pin(tokio::time::sleep(bounds.wait_max))),
        }
    }

    /// Looks at `raw` as far as it goes.
    fn check(&mut self) {
        loop {
            let outcome = match self.state {
                State::Head(seen) => self.check_head(seen),
                State::Length(left) => Ok(self.pass(left, State::Length)),
                State::ChunkSize => self.check_chunk_size(),
                State::ChunkData(left) => Ok(self.pass(left, State::ChunkData)),
                State::ChunkEnd => self.check_chunk_end(),
                State::Trailers(seen) => self.check_trailers(seen),
                State::Faulted | State::Broken => return,
            };
            match outcome {
                Ok(Step::Forward) => {}
                Ok(Step::NeedMore) => return,
                Err(reason) => return self.refuse(reason),
            }
        }
    }

    /// Puts a fault on the connection. Requests that were approved before it are not touched.
    fn refuse(&mut self, reason: &'static str) {
        let _ = self.fault.set(reason);
        self.raw = BytesMut::new();
        self.deadline = None;
        if matches!(self.state, State::Head(_)) {
            let synthetic =
                format!("GET / HTTP/1.1\r\nhost: invalid\r\n{MARK}: {}\r\nconnection: close\r\n\r\n", *TOKEN);
            self.approved.extend_from_slice(synthetic.as_bytes());
            self.state = State::Faulted;
        } else {
            self.state = State::Broken;
        }
    }

    fn approve(&mut self, bytes: usize) {
        let checked = self.raw.split_to(bytes.min(self.raw.len()));
        if self.approved.is_empty() {
            self.approved = checked;
        } else {
            self.approved.extend_from_slice(&checked);
        }
    }

    fn check_head(&mut self, seen: usize) -> Result<Step, &'static str> {
        let end = head::find_end(&self.raw, seen)?;
        let length = end.unwrap_or(self.raw.len());
        if length > self.bounds.bytes_max {
            return Err("head-too-long");
        }
        if end.is_none() {
            self.state = State::Head(length);
            return Ok(Step::NeedMore);
        }
        let content = head::check(self.raw.get(..length).unwrap_or_default(), self.bounds.fields_max)?;
        self.approve(length);
        self.deadline = None;
        self.state = match content {
            Content::Length(0) => State::Head(0),
            Content::Length(length) => State::Length(length),
            Content::Chunked => State::ChunkSize,
        };
        Ok(Step::Forward)
    }

    /// Approves the next part of a body or chunk of which `left` bytes are to come.
    fn pass(&mut self, left: u64, state: fn(u64) -> State) -> Step {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.raw.len());
        self.approve(here);
        let left = left - here as u64;
        self.state = match (left, state(0)) {
            (0, State::ChunkData(_)) => State::ChunkEnd,
            (0, _) => State::Head(0),
            _ => state(left),
        };
        if left == 0 { Step::Forward } else { Step::NeedMore }
    }

    fn check_chunk_size(&mut self) -> Result<Step, &'static str> {
        let Some(end) = self.raw.iter().position(|byte| *byte == b'\n') else {
            let longest = CHUNK_DIGITS_MAX + 1 + EXTENSION_BYTES_MAX + 1;
            return if self.raw.len() > longest { Err("chunk-extension") } else { Ok(Step::NeedMore) };
        };
        let line = self.raw.get(..end).unwrap_or_default().strip_suffix(b"\r").ok_or("bare-lf")?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at_checked(digits).ok_or("chunk-size")?;
        if size.is_empty() || size.len() > CHUNK_DIGITS_MAX {
            return Err("chunk-size");
        }
        match extension {
            [] => {}
            [b';', rest @ ..] => {
                if rest.len() > EXTENSION_BYTES_MAX || !rest.iter().all(|b| (0x20..0x7f).contains(b)) {
                    return Err("chunk-extension");
                }
            }
            _ => return Err("chunk-size"),
        }
        let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        self.state = match size.ok_or("chunk-size")? {
            0 => State::Trailers(0),
            size => State::ChunkData(size),
        };
        self.approve(end + 1);
        Ok(Step::Forward)
    }

    fn check_chunk_end(&mut self) -> Result<Step, &'static str> {
        match self.raw.first_chunk::<2>() {
            Some(b"\r\n") => {
                self.approve(2);
                self.state = State::ChunkSize;
                Ok(Step::Forward)
            }
            Some(_) => Err("chunk-end"),
            None => Ok(Step::NeedMore),
        }
    }

    /// Trailers are read and dropped: nothing in them may be acted on.
    fn check_trailers(&mut self, seen: usize) -> Result<Step, &'static str> {
        let end = if self.raw.starts_with(b"\r\n") { Some(2) } else { head::find_end(&self.raw, seen)? };
        let length = end.unwrap_or(self.raw.len());
        if length > TRAILER_BYTES_MAX {
            return Err("trailers-too-long");
        }
        if end.is_none() {
            self.state = State::Trailers(length);
            return Ok(Step::NeedMore);
        }
        head::check_trailers(self.raw.get(..length).unwrap_or_default())?;
        self.raw.advance(length);
        self.approved.extend_from_slice(b"\r\n");
        self.state = State::Head(0);
        Ok(Step::Forward)
    }

    /// Gives up on a head that takes too long; `true` when the connection should simply end.
    fn overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if !matches!(self.state, State::Head(_)) {
            return false;
        }
        if !self.raw.is_empty() && self.deadline.is_none() {
            self.deadline = Some(Box::pin(tokio::time::sleep(self.bounds.wait_max)));
        }
        let due = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if due && !self.raw.is_empty() {
            self.refuse("slow-head");
            return false;
        }
        due
    }
}

impl<S: AsyncRead + Unpin> Framing<S> {
    /// Reads into hyper's own buffer and leaves there what can be approved where it is, so that the bytes of nearly
    /// every request are neither copied nor kept here. Whether hyper has something to take, be it the end.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        // An idle connection keeps no buffer here.
        (self.raw, self.approved) = (BytesMut::new(), BytesMut::new());
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let bytes = buf.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let approved = self.approve_in_place(bytes);
        self.raw.extend_from_slice(bytes.get(approved..).unwrap_or_default());
        buf.set_filled(before + approved);
        self.check();
        Poll::Ready(Ok(approved > 0))
    }

    /// How many of these bytes are a part of a body, or a whole head with no more than its body behind it.
    fn approve_in_place(&mut self, bytes: &[u8]) -> usize {
        let (head, left) = match self.state {
            State::Length(left) => (0, left),
            State::Head(0) => match self.whole_head(bytes) {
                Some((head, left)) => (head, left),
                None => return 0,
            },
            _ => return 0,
        };
        let body = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - head);
        self.state = match left - body as u64 {
            0 => State::Head(0),
            left => State::Length(left),
        };
        head + body
    }

    /// The length of a sound head at the front of these bytes, and of the body that it announces.
    fn whole_head(&mut self, bytes: &[u8]) -> Option<(usize, u64)> {
        let end = head::find_end(bytes, 0).ok()?.filter(|end| *end <= self.bounds.bytes_max)?;
        match head::check(bytes.get(..end)?, self.bounds.fields_max).ok()? {
            Content::Length(length) => {
                self.deadline = None;
                Some((end, length))
            }
            Content::Chunked => None,
        }
    }

    /// Reads more into `raw`; 0 is the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.raw.reserve(READ_BYTES);
        std::pin::pin!(self.inner.read_buf(&mut self.raw)).poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framing<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.approved.is_empty() {
                let part = this.approved.len().min(buf.remaining());
                buf.put_slice(this.approved.get(..part).unwrap_or_default());
                this.approved.advance(part);
                return Poll::Ready(Ok(()));
            }
            match this.state {
                // The answer to the synthetic request closes the connection; an end here would cut that answer off.
                State::Faulted => return Poll::Pending,
                State::Broken => {
                    let reason = this.fault.get().copied().unwrap_or("framing");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
                _ => {}
            }
            if this.overdue(cx) {
                return Poll::Ready(Ok(()));
            }
            if this.state == State::Faulted {
                continue;
            }
            if this.raw.is_empty() {
                if ready!(this.poll_direct(cx, buf))? {
                    return Poll::Ready(Ok(()));
                }
            } else {
                match ready!(this.poll_more(cx))? {
                    0 => return Poll::Ready(Ok(())),
                    _ => this.check(),
                }
            }
            // Registers the deadline of a head whose first byte has just come.
            if this.overdue(cx) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framing<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
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
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
