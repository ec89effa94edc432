//! The children of one upstream: how many there may be, when one is started, and what becomes of one that died.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::line::{self, Read};
use super::link::{Ids, Link};
use super::log::Log;
use super::{Config, MESSAGE_BYTES_MAX, process};

/// A child that lived this long was well: its death begins a new count.
const WELL_TIME_MIN: Duration = Duration::from_secs(60);
/// The pause after the first death, which doubles with each that follows.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a start waits for a child that makes room. It covers every step of an end.
const ROOM_TIME_MAX: Duration = Duration::from_secs(7);
/// How long what a child wrote before its end may take to be read.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_secs(1);
/// How long all children may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(9);

/// Whose a child is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// One session of legacy MCP, by its id.
    Session(Arc<str>),
    /// Every modern request of one agent.
    Agent(Arc<str>),
}

/// The children of one upstream.
pub(super) struct Children {
    pub config: Config,
    table: Mutex<Table>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Table {
    children: HashMap<Key, Entry>,
    failing: HashMap<Arc<str>, Failing>,
    closed: bool,
}

struct Entry {
    agent: Arc<str>,
    link: Arc<Link>,
}

/// An agent whose children died, one after the other.
struct Failing {
    times: u32,
    until: Instant,
    last: String,
}

/// Why no child can take a request. Nothing was sent.
#[derive(Clone, Debug)]
pub(super) struct Unavailable {
    /// For the operator.
    pub text: String,
}

/// How a child came to its end.
enum End {
    Asked,
    Itself,
}

impl Children {
    pub(super) fn new(config: Config) -> Arc<Children> {
        Arc::new(Children { config, table: Mutex::default(), changes: watch::Sender::new(()) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock, and each change is whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The child of a session that this agent opened.
    pub(super) fn session(&self, agent: &str, session: &str) -> Option<Arc<Link>> {
        let table = self.table();
        let entry = table.children.get(&Key::Session(Arc::from(session)))?;
        (&*entry.agent == agent && !entry.link.is_ending()).then(|| Arc::clone(&entry.link))
    }

    /// The child of this key, started if there is none. An agent with as many as it may have loses the one that nobody
    /// has used for longest.
    pub(super) async fn start(
        self: &Arc<Self>,
        key: &Key,
        agent: &Arc<str>,
    ) -> Result<Arc<Link>, Unavailable> {
        let deadline = Instant::now() + ROOM_TIME_MAX;
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(link) = self.find_or_start(key, agent)? {
                return Ok(link);
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(Unavailable::new("a child that is to make room does not end"));
            }
        }
    }

    /// `None` when a child must end first, which has been asked to.
    fn find_or_start(
        self: &Arc<Self>,
        key: &Key,
        agent: &Arc<str>,
    ) -> Result<Option<Arc<Link>>, Unavailable> {
        let mut table = self.table();
        if table.closed {
            return Err(Unavailable::new("the gateway ends"));
        }
        if let Some(entry) = table.children.get(key) {
            return Ok((!entry.link.is_ending()).then(|| Arc::clone(&entry.link)));
        }
        if let Some(failing) = table.failing.get(agent) {
            let left = failing.until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let text = format!("{}; the next start is in {} ms", failing.last, left.as_millis());
                return Err(Unavailable { text });
            }
        }
        if !self.has_room(&table, agent)? {
            return Ok(None);
        }
        let child = process::start(&self.config.program).map_err(|text| {
            tracing::error!(upstream = %self.config.name, error = %text, "a child cannot be started");
            table.failed(agent, Duration::ZERO, &text);
            Unavailable { text }
        })?;
        let ids = match key {
            Key::Session(_) => Ids::AsSent,
            Key::Agent(_) => Ids::Numbered,
        };
        let (link, writes, end) = Link::new(ids);
        let entry = Entry { agent: Arc::clone(agent), link: Arc::clone(&link) };
        table.children.insert(key.clone(), entry);
        let whose = (key.clone(), Arc::clone(agent), Arc::clone(&link));
        tokio::spawn(Arc::clone(self).attend(whose, child, writes, end));
        Ok(Some(link))
    }

    fn has_room(&self, table: &Table, agent: &Arc<str>) -> Result<bool, Unavailable> {
        let own = || table.children.values().filter(|entry| entry.agent == *agent).map(|entry| &entry.link);
        if table.children.len() < self.config.children_max
            && own().count() < self.config.children_per_agent_max
        {
            return Ok(true);
        }
        if own().any(|link| link.is_ending()) {
            return Ok(false);
        }
        let idle = own().filter_map(|link| Some((link.idle_since()?, link))).min_by_key(|(since, _)| *since);
        let Some((_, link)) = idle else {
            return Err(Unavailable::new("there are as many children as there may be, and all are in use"));
        };
        link.end();
        Ok(false)
    }

    /// A child's whole life.
    async fn attend(
        self: Arc<Self>,
        (key, agent, link): (Key, Arc<str>, Arc<Link>),
        mut child: Child,
        writes: mpsc::Receiver<Bytes>,
        mut end: watch::Receiver<bool>,
    ) {
        let started = Instant::now();
        let log = Arc::new(Log::new(&self.config.name, child.id()));
        tracing::info!(upstream = %self.config.name, agent = %agent, pid = child.id(), "a child was started");
        let group = process::group(&child);
        if let Some(input) = child.stdin.take() {
            tokio::spawn(write(input, writes, end.clone()));
        }
        let reading = tokio::spawn(read(child.stdout.take(), Arc::clone(&link), Arc::clone(&log)));
        let mut reading = Some(reading);
        let errors = child.stderr.take().map(|errors| tokio::spawn(Arc::clone(&log).pass_on(errors)));
        let how = tokio::select! {
            _ = end.wait_for(|end| *end) => End::Asked,
            () = idle(&link, self.config.idle_time_max) => End::Asked,
            _ = child.wait() => End::Itself,
            () = ended(&mut reading) => End::Itself,
        };
        // This closes the child's input, and nobody is given this child any more.
        link.end();
        if matches!(how, End::Asked) {
            link.over();
        }
        let status = process::end(&mut child).await;
        process::sweep(group);
        // What it wrote before its end is still for those who wait.
        let _ = tokio::time::timeout(LAST_WORDS_TIME_MAX, ended(&mut reading)).await;
        link.over();
        if let Some(mut errors) = errors
            && tokio::time::timeout(LAST_WORDS_TIME_MAX, &mut errors).await.is_err()
        {
            errors.abort();
        }
        let status =
            status.map_or_else(|| "it could not be waited for".to_owned(), |status| status.to_string());
        let mut table = self.table();
        table.children.remove(&key);
        match how {
            End::Asked => {
                tracing::info!(upstream = %self.config.name, agent = %agent, %status, "a child ended")
            }
            End::Itself => {
                let text = format!("the child ended by itself ({status})");
                tracing::warn!(upstream = %self.config.name, agent = %agent, %status, "a child ended by itself");
                table.failed(&agent, started.elapsed(), &text);
            }
        }
        drop(table);
        self.changes.send_replace(());
    }

    /// Whether nobody uses any.
    pub(super) fn are_idle(&self) -> bool {
        self.table().children.values().all(|entry| entry.link.idle_since().is_some())
    }

    /// Ends every child in good order, and starts none any more.
    pub(super) async fn end(&self) {
        let mut changes = self.changes.subscribe();
        {
            let mut table = self.table();
            table.closed = true;
            table.children.values().for_each(|entry| entry.link.end());
        }
        let ended = async {
            while !self.table().children.is_empty() {
                // The sender is ours, so this cannot fail.
                let _ = changes.changed().await;
            }
        };
        if tokio::time::timeout(END_TIME_MAX, ended).await.is_err() {
            tracing::warn!(upstream = %self.config.name, "children were still there when their time ended");
        }
    }
}

impl Table {
    fn failed(&mut self, agent: &Arc<str>, lived: Duration, text: &str) {
        let now = Instant::now();
        self.failing.retain(|_, failing| failing.until + WELL_TIME_MIN > now);
        let before = self.failing.get(agent).filter(|_| lived < WELL_TIME_MIN);
        let times = before.map_or(0, |failing| failing.times).saturating_add(1);
        let until = now + pause(times);
        self.failing.insert(Arc::clone(agent), Failing { times, until, last: text.to_owned() });
    }
}

impl Unavailable {
    pub(super) fn new(text: &str) -> Unavailable {
        Unavailable { text: text.to_owned() }
    }
}

/// The pause after so many deaths in a row: between half and all of what doubling gives, so that agents do not start
/// theirs in step.
fn pause(times: u32) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << times.saturating_sub(1).min(16)).min(PAUSE_MAX);
    let mut byte = [0];
    // Without a random number the pause is only in step.
    let _ = SystemRandom::new().fill(&mut byte);
    let [byte] = byte;
    doubled / 2 + doubled * u32::from(byte) / 512
}

/// Waits for a task once; one that has been waited for has ended.
async fn ended(task: &mut Option<JoinHandle<()>>) {
    if let Some(waiting) = task {
        // A task that panicked has ended too.
        let _ = waiting.await;
        *task = None;
    }
}

/// Ends when nobody has used a child for so long.
async fn idle(link: &Link, time_max: Duration) {
    loop {
        let left = match link.idle_since() {
            None => time_max,
            Some(since) => time_max.saturating_sub(since.elapsed()),
        };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

async fn write(mut input: ChildStdin, mut writes: mpsc::Receiver<Bytes>, mut end: watch::Receiver<bool>) {
    let writing = async {
        while let Some(line) = writes.recv().await {
            if input.write_all(&line).await.is_err() || input.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        _ = end.wait_for(|end| *end) => {}
    }
}

async fn read(output: Option<ChildStdout>, link: Arc<Link>, log: Arc<Log>) {
    let Some(output) = output else { return };
    let mut output = BufReader::with_capacity(64 << 10, output);
    while let Some(read) = line::next(&mut output, MESSAGE_BYTES_MAX).await {
        let (begins, refused) = match read {
            Read::Line(line) if line.trim_ascii().is_empty() => continue,
            Read::Line(line) => (beginning(&line), link.received(flat(line)).err()),
            Read::TooLong(line) => (beginning(&line), Some("it is too long")),
        };
        if let Some(reason) = refused {
            log.dropped(&begins, reason, link.dropped());
        }
    }
}

/// How a line begins that is a text for people. What may be a message is not shown: no body goes to a log.
fn beginning(line: &[u8]) -> Vec<u8> {
    const SHOWN_BYTES_MAX: usize = 80;
    if matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Vec::new();
    }
    line.get(..SHOWN_BYTES_MAX).unwrap_or(line).to_vec()
}

/// A carriage return ends a line of an event stream; in JSON it stands only between tokens.
fn flat(mut line: Vec<u8>) -> Vec<u8> {
    line.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_are_not_in_step() {
        for (times, most) in [(1, 250), (2, 500), (3, 1000), (8, 30_000), (200, 30_000)] {
            for _ in 0..50 {
                let pause = pause(times).as_millis();
                assert!((most / 2..=most).contains(&pause), "{times}: {pause}");
            }
        }
        assert!((0..50).any(|_| pause(9) != pause(9)));
    }
}
