//! MCP's stdio transport on one side, Streamable HTTP on the other, for hosts that start their servers as processes
//! [MCP 2025-11-25 and 2026-07-28, basic/transports].
//!
//! Each line in is one POST, in the era in which it came, and its bytes are not touched. Each message back is one line.
//! Standard output carries nothing else. A request that gets no reply gets an error that says why, so that no host
//! waits for ever.

mod exchange;
mod message;
mod mirror;
mod session;

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::gateway::Gateway;
use message::Message;
use mirror::Annotated;
use session::Session;

/// The longest line from the host: what the gateway takes of a body by default.
const LINE_BYTES_MAX: usize = 4 << 20;
/// The most requests of the host under way.
const REQUESTS_MAX: usize = 256;
/// The most notifications and responses of the host under way.
const TOLD_MAX: usize = 64;
/// How long the next line waits for a notification to arrive, so that they arrive in order.
const TOLD_WAIT_SECONDS_MAX: u64 = 5;
/// The most lines for the host that wait to be written.
const LINES_MAX: usize = 64;
/// How long replies may still come when the host has closed its end.
const PENDING_SECONDS_MAX: u64 = 30;

/// JSON-RPC codes [JSON-RPC 2.0 §5.1].
const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const INTERNAL_ERROR: i64 = -32603;

/// What is written for the host.
enum Output {
    Line(Bytes),
    /// Everything before it was written.
    Flushed(oneshot::Sender<()>),
}

/// A request of the host whose reply has not come.
struct Flight {
    ids: Vec<Value>,
    is_modern: bool,
    /// A stream of notifications, which ends when the host does.
    is_subscription: bool,
    is_cancelled: bool,
    abort: AbortHandle,
}

/// The host's side and the gateway's, and what is known between messages.
struct Bridge {
    gateway: Gateway,
    out: mpsc::Sender<Output>,
    session: Mutex<Session>,
    annotated: Mutex<Annotated>,
    flights: Mutex<Flights>,
    requests: Arc<Semaphore>,
    told: Arc<Semaphore>,
    /// Whenever a flight has ended.
    settled: Notify,
}

#[derive(Default)]
struct Flights {
    next: u64,
    open: HashMap<u64, Flight>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Speaks with the host until it closes its end, or until told to stop.
///
/// Fails when standard input or output breaks.
pub async fn run(gateway: Gateway, stop: impl Future<Output = ()>) -> io::Result<()> {
    let (out, lines) = mpsc::channel(LINES_MAX);
    let bridge = Arc::new(Bridge {
        gateway,
        out,
        session: Mutex::default(),
        annotated: Mutex::default(),
        flights: Mutex::default(),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        told: Arc::new(Semaphore::new(TOLD_MAX)),
        settled: Notify::new(),
    });
    let mut writing = tokio::spawn(write(lines));
    let mut stop = pin!(stop);
    let conversation = async {
        read(&bridge).await?;
        bridge.pending().await;
        Ok(())
    };
    let ended = tokio::select! {
        ended = conversation => ended,
        written = &mut writing => written.unwrap_or_else(|error| Err(io::Error::other(error))),
        () = &mut stop => Ok(()),
    };
    bridge.end_session().await;
    let (flushed, written) = oneshot::channel();
    if bridge.out.send(Output::Flushed(flushed)).await.is_ok() {
        let _ = written.await;
    }
    ended
}

async fn write(mut lines: mpsc::Receiver<Output>) -> io::Result<()> {
    let mut stdout = tokio::io::stdout();
    while let Some(output) = lines.recv().await {
        match output {
            Output::Line(line) => {
                stdout.write_all(&line).await?;
                stdout.write_all(b"\n").await?;
                stdout.flush().await?;
            }
            Output::Flushed(tell) => drop(tell.send(())),
        }
    }
    Ok(())
}

/// Takes every line of the host.
async fn read(bridge: &Arc<Bridge>) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 * 1024, tokio::io::stdin());
    loop {
        match next_line(&mut input).await? {
            Line::End => return Ok(()),
            Line::TooLong => {
                let text = format!("a message of more than {LINE_BYTES_MAX} bytes");
                bridge.say(message::error(&Value::Null, INVALID_REQUEST, &text, None)).await;
            }
            Line::Whole(line) if line.trim_ascii().is_empty() => {}
            Line::Whole(line) => match Message::read(line) {
                Ok(message) => bridge.take(message).await,
                Err(problem) => {
                    bridge.say(message::error(&Value::Null, PARSE_ERROR, &problem, None)).await;
                }
            },
        }
    }
}

enum Line {
    Whole(Bytes),
    TooLong,
    End,
}

/// The next line; one over the bound is passed over to its end.
async fn next_line(input: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<Line> {
    let (mut line, mut too_long) = (Vec::new(), false);
    loop {
        let chunk = input.fill_buf().await?;
        if chunk.is_empty() {
            // A line that the host did not end is one that it did not finish.
            return Ok(Line::End);
        }
        let (taken, is_end) = match chunk.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at, true),
            None => (chunk.len(), false),
        };
        too_long |= line.len() + taken > LINE_BYTES_MAX;
        if too_long {
            line = Vec::new();
        } else {
            line.extend_from_slice(chunk.get(..taken).unwrap_or_default());
        }
        input.consume(taken + usize::from(is_end));
        if is_end {
            return Ok(if too_long { Line::TooLong } else { Line::Whole(line.into()) });
        }
    }
}

impl Bridge {
    /// Writes a line for the host.
    async fn say(&self, line: Bytes) {
        // Whoever runs this sees that the writer has ended.
        let _ = self.out.send(Output::Line(line)).await;
    }

    /// Does with a message of the host what it asks for.
    async fn take(self: &Arc<Self>, message: Message) {
        if let Some(id) = message.cancels()
            && !self.passes_on_cancel(id, &message)
        {
            return;
        }
        if message.ids.is_empty() {
            self.tell(message).await;
            return;
        }
        if message.is("initialize") && message.modern.is_none() {
            locked(&self.session).begin();
        }
        let Ok(place) = self.requests.clone().try_acquire_owned() else {
            let text = format!("more than {REQUESTS_MAX} requests under way");
            for id in &message.ids {
                self.say(message::error(id, INTERNAL_ERROR, &text, None)).await;
            }
            return;
        };
        // The task cannot settle its flight before this lock is free, so what it settles is there.
        let mut flights = locked(&self.flights);
        flights.next += 1;
        let (key, bridge) = (flights.next, self.clone());
        let (ids, is_modern) = (message.ids.clone(), message.modern.is_some());
        let is_subscription = message.is("subscriptions/listen");
        let task = tokio::spawn(async move {
            bridge.request(key, &message).await;
            drop(place);
        });
        let abort = task.abort_handle();
        flights.open.insert(key, Flight { ids, is_modern, is_subscription, is_cancelled: false, abort });
    }

    /// Cancels a request. A modern one is cancelled by closing its exchange, and nothing is sent; a legacy one by the
    /// host's own notification, which this says is to be passed on.
    fn passes_on_cancel(&self, id: &Value, message: &Message) -> bool {
        let mut flights = locked(&self.flights);
        let found = flights.open.iter_mut().find(|(_, flight)| flight.ids.contains(id));
        match found {
            Some((key, flight)) if flight.is_modern => {
                flight.abort.abort();
                let key = *key;
                flights.open.remove(&key);
                self.settled.notify_waiters();
                false
            }
            Some((_, flight)) => {
                flight.is_cancelled = true;
                true
            }
            None => message.modern.is_none() && locked(&self.session).has_begun(),
        }
    }

    /// Passes on a notification or a response. The next line waits a while, because notifications have an order.
    async fn tell(self: &Arc<Self>, message: Message) {
        let Ok(place) = self.told.clone().acquire_owned().await else { return };
        let in_order = message.is_notification();
        let bridge = self.clone();
        let told = tokio::spawn(async move {
            bridge.told(&message).await;
            drop(place);
        });
        if in_order {
            let _ = tokio::time::timeout(Duration::from_secs(TOLD_WAIT_SECONDS_MAX), told).await;
        }
    }

    fn is_cancelled(&self, key: u64) -> bool {
        locked(&self.flights).open.get(&key).is_none_or(|flight| flight.is_cancelled)
    }

    /// A request has all that it waited for.
    fn settle(&self, key: u64) {
        locked(&self.flights).open.remove(&key);
        self.settled.notify_waiters();
    }

    /// Waits for the replies that the host is still owed.
    async fn pending(&self) {
        let all = async {
            loop {
                let settled = self.settled.notified();
                let is_owed = locked(&self.flights).open.values().any(|flight| !flight.is_subscription);
                if !is_owed {
                    return;
                }
                settled.await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(PENDING_SECONDS_MAX), all).await.is_err() {
            tracing::warn!("replies were still owed {PENDING_SECONDS_MAX} s after standard input had ended");
        }
    }
}
