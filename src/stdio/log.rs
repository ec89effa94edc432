//! What a child writes that is no message goes to the gateway's log: bounded, and with nothing in it that acts on a
//! terminal.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::io::{AsyncRead, BufReader};

use super::line::{self, Read};

/// What of a line is logged.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Lines of one child in a second, and after a pause.
const LINES_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
const LINES_BURST_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// The log of one child.
pub(super) struct Log {
    upstream: Arc<str>,
    pid: Option<u32>,
    rate: DefaultDirectRateLimiter,
    suppressed: AtomicU64,
}

impl Log {
    pub(super) fn new(upstream: &Arc<str>, pid: Option<u32>) -> Log {
        let quota = Quota::per_second(LINES_PER_SECOND_MAX).allow_burst(LINES_BURST_MAX);
        let rate = RateLimiter::direct(quota);
        Log { upstream: Arc::clone(upstream), pid, rate, suppressed: AtomicU64::new(0) }
    }

    /// Logs standard error, line by line, until it ends.
    pub(super) async fn pass_on(self: Arc<Self>, errors: impl AsyncRead + Unpin) {
        let mut errors = BufReader::new(errors);
        while let Some(read) = line::next(&mut errors, LINE_BYTES_MAX).await {
            let (line, more) = match read {
                Read::Line(line) => (line, ""),
                Read::TooLong(line) => (line, "…"),
            };
            if self.admit() {
                let line = visible(&line);
                tracing::info!(upstream = %self.upstream, pid = self.pid, "stderr: {line}{more}");
            }
        }
    }

    /// Logs a line of standard output that nobody gets, and how many that makes.
    pub(super) fn dropped(&self, line: &[u8], reason: &str, count: u64) {
        if self.admit() {
            let line = visible(line);
            tracing::warn!(
                upstream = %self.upstream, pid = self.pid, count, reason, begins = %line,
                "a line of standard output was dropped"
            );
        }
    }

    fn admit(&self) -> bool {
        if self.rate.check().is_err() {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        if suppressed > 0 {
            tracing::warn!(upstream = %self.upstream, pid = self.pid, lines = suppressed, "lines were left out of the log");
        }
        true
    }
}

/// The text with every character escaped that is not seen as itself.
fn visible(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii_end());
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\'' => out.push(char),
            _ => out.extend(char.escape_debug()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn nothing_in_a_line_acts_on_a_terminal() {
        let line = "a \u{1b}[31m\"red\" \u{202e}back\\ \u{7} b\r".as_bytes();
        assert_eq!(visible(line), r#"a \u{1b}[31m"red" \u{202e}back\\ \u{7} b"#);
        assert_eq!(visible(b"\xff"), "\u{fffd}");
    }
}
