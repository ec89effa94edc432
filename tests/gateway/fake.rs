//! An upstream on a real socket that speaks HTTP/1.1 byte by byte, so that it can misbehave at any of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What it does with a request that it has read.
#[derive(Clone)]
pub enum Does {
    /// Writes these bytes.
    Writes(String),
    /// Writes these bytes, and closes the connection.
    WritesAndCloses(String),
    /// Writes these bytes, and the others when it is let go.
    WritesThen(String, String),
    /// Writes nothing until the other side leaves.
    Nothing,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

/// The upstream.
pub struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    begun: Arc<Mutex<usize>>,
    left: Arc<Mutex<usize>>,
    connections: Arc<Mutex<usize>>,
    go: Arc<Semaphore>,
    task: tokio::task::JoinHandle<()>,
}

/// A whole JSON reply.
pub fn json(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Fake {
    /// Answers everything with a small JSON object.
    pub async fn polite() -> Fake {
        Fake::that(|_| Does::Writes(json("{\"ok\":true}"))).await
    }

    /// Does as it is told for each request.
    pub async fn that(does: impl Fn(&Seen) -> Does + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, begun, left) = (Arc::default(), Arc::default(), Arc::default());
        let go = Arc::new(Semaphore::new(0));
        let connections: Arc<Mutex<usize>> = Arc::default();
        let accepted = Arc::clone(&connections);
        let share = Share {
            does: Arc::new(does),
            seen: Arc::clone(&seen),
            begun: Arc::clone(&begun),
            left: Arc::clone(&left),
            go: Arc::clone(&go),
        };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *accepted.lock().unwrap() += 1;
                tokio::spawn(serve(stream, share.clone()));
            }
        });
        Fake { address, seen, begun, left, connections, go, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests have begun, their bodies perhaps still to come.
    pub fn begun(&self) -> usize {
        *self.begun.lock().unwrap()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// How many connections ended while a reply was still owed.
    pub fn left(&self) -> usize {
        *self.left.lock().unwrap()
    }

    /// Lets one reply that waits go on.
    pub fn go_on(&self) {
        self.go.add_permits(1);
    }

    /// Waits until it has seen so many requests.
    pub async fn has_seen(&self, count: usize) {
        eventually(|| self.seen().len() >= count, "the upstream never saw the request").await;
    }

    /// Waits until so many were left without the end of their reply.
    pub async fn was_left(&self, count: usize) {
        eventually(|| self.left() >= count, "the upstream was never left").await;
    }

    /// Stops listening.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for something that must become true.
pub async fn eventually(happened: impl Fn() -> bool, otherwise: &str) {
    for _ in 0..500 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{otherwise}");
}

#[derive(Clone)]
struct Share {
    does: Arc<dyn Fn(&Seen) -> Does + Send + Sync>,
    seen: Arc<Mutex<Vec<Seen>>>,
    begun: Arc<Mutex<usize>>,
    left: Arc<Mutex<usize>>,
    go: Arc<Semaphore>,
}

async fn serve(mut stream: TcpStream, share: Share) {
    let mut read = Vec::new();
    while let Some(seen) = request(&mut stream, &mut read, &share.begun).await {
        let does = (share.does)(&seen);
        share.seen.lock().unwrap().push(seen);
        match does {
            Does::Writes(bytes) => {
                if stream.write_all(bytes.as_bytes()).await.is_err() {
                    return;
                }
            }
            Does::WritesAndCloses(bytes) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                return;
            }
            Does::WritesThen(first, then) => {
                if stream.write_all(first.as_bytes()).await.is_err() {
                    return;
                }
                let mut byte = [0; 1];
                tokio::select! {
                    permit = share.go.acquire() => permit.unwrap().forget(),
                    _ = stream.read(&mut byte) => {
                        *share.left.lock().unwrap() += 1;
                        return;
                    }
                }
                if stream.write_all(then.as_bytes()).await.is_err() {
                    return;
                }
            }
            Does::Nothing => {
                let mut byte = [0; 1];
                let _ = stream.read(&mut byte).await;
                *share.left.lock().unwrap() += 1;
                return;
            }
        }
    }
}

/// One request; `None` when the connection ends.
async fn request(stream: &mut TcpStream, read: &mut Vec<u8>, begun: &Mutex<usize>) -> Option<Seen> {
    let mut more = async |read: &mut Vec<u8>| -> Option<()> {
        let mut buffer = [0; 16384];
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        read.extend_from_slice(&buffer[..count]);
        Some(())
    };
    let end = loop {
        if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        more(read).await?;
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    read.drain(..end);
    *begun.lock().unwrap() += 1;
    let value = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    if value("transfer-encoding").is_some() {
        while !read.ends_with(b"0\r\n\r\n") {
            more(read).await?;
        }
        return Some(Seen { head, body: std::mem::take(read) });
    }
    let length: usize = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while read.len() < length {
        more(read).await?;
    }
    Some(Seen { head, body: read.drain(..length).collect() })
}
