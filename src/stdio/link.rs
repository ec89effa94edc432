//! What goes to one child and what comes from it: which request an answer, a token or a subscription belongs to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::line::{self, Line, Of};
use crate::decode::jsonrpc::{Form, Id, Message};

/// Requests under way at one child.
const REQUESTS_MAX: usize = 64;
/// Messages on their way to a child's input.
pub(super) const WRITES_MAX: usize = 16;
/// Messages of a child that wait on one stream.
const EVENTS_MAX: usize = 256;
/// What the waiting messages of one child hold together.
const EVENTS_BYTES_MAX: usize = 16 << 20;
/// Messages that wait for a standalone stream to be opened.
const UNHEARD_MAX: usize = 64;

/// How the ids of requests come to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// As the client wrote them: the child serves one session.
    AsSent,
    /// Numbered by us, since the requests of several clients meet at the child. Tokens are numbered as well.
    Numbered,
}

/// The way to one child. Dropping the last of it does not end the child; [`Link::end`] does.
pub(super) struct Link {
    ids: Ids,
    input: mpsc::Sender<Bytes>,
    room: Arc<Semaphore>,
    ending: watch::Sender<bool>,
    state: Mutex<State>,
}

struct State {
    requests: HashMap<Id, Waiting>,
    numbered: i64,
    stream: Option<mpsc::Sender<Event>>,
    unheard: VecDeque<Event>,
    /// Clients that wait for something just now.
    clients: usize,
    since: Instant,
    dropped: u64,
    over: bool,
}

/// A request that the child has not answered.
struct Waiting {
    /// When it was sent, among the others.
    number: i64,
    /// How the client wrote the id and the token, where we number them.
    own: Option<Own>,
    events: mpsc::Sender<Event>,
    response: oneshot::Sender<Answered>,
    /// The progress token as the child knows it.
    token: Option<Id>,
    client: Client,
}

struct Own {
    id: Bytes,
    token: Bytes,
}

/// Whether anybody waits for an answer still.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Waits,
    /// It told the child that it does not want the answer.
    Cancelled,
    Left,
}

/// A message of the child on its way to a client.
pub(super) struct Event {
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// A child's answer.
pub(super) struct Answered {
    pub bytes: Bytes,
    /// The code, when it is an error.
    pub code: Option<i64>,
}

/// What is to come back for one request.
pub(super) struct Exchange {
    /// What belongs to the request and comes before the answer.
    pub events: mpsc::Receiver<Event>,
    /// The answer; an error when the child is gone without one.
    pub response: oneshot::Receiver<Answered>,
    /// Held while the client waits.
    pub waits: Waits,
}

/// A session's standalone stream.
pub(super) struct Standalone {
    pub events: mpsc::Receiver<Event>,
    pub waits: Waits,
}

/// A client that waits; dropped when it has what it wants, or leaves.
pub(super) struct Waits {
    link: Arc<Link>,
    id: Option<Id>,
}

/// Why a message does not go to the child. None of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The child is gone.
    Over,
    /// The child has not read what it was sent before, or has too many requests.
    Busy,
    /// A request of this id is under way.
    SameId,
}

impl Link {
    /// A link, the messages for the child's input, and the signal to end.
    pub(super) fn new(ids: Ids) -> (Arc<Link>, mpsc::Receiver<Bytes>, watch::Receiver<bool>) {
        let (input, writes) = mpsc::channel(WRITES_MAX);
        let (ending, end) = watch::channel(false);
        let state = State {
            requests: HashMap::new(),
            numbered: 0,
            stream: None,
            unheard: VecDeque::new(),
            clients: 0,
            since: Instant::now(),
            dropped: 0,
            over: false,
        };
        let room = Arc::new(Semaphore::new(EVENTS_BYTES_MAX));
        (Arc::new(Link { ids, input, room, ending, state: Mutex::new(state) }), writes, end)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and each change is whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks for the child's end in good order.
    pub(super) fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Whether the child ends, or has ended.
    pub(super) fn is_ending(&self) -> bool {
        *self.ending.borrow() || self.state().over
    }

    /// Since when nobody has waited for anything; `None` while somebody does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.clients == 0).then_some(state.since)
    }

    // === to the child ===

    /// Writes a message that wants no answer, as it is.
    pub(super) fn tell(&self, message: &Message) -> Result<(), Unsent> {
        if message.method() == Some("notifications/cancelled") {
            self.cancelled(message);
        }
        self.state().since = Instant::now();
        self.write(line::one_line(message.bytes()))
    }

    fn write(&self, line: Bytes) -> Result<(), Unsent> {
        self.input.try_send(line).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unsent::Busy,
            mpsc::error::TrySendError::Closed(_) => Unsent::Over,
        })
    }

    /// Writes a request, and gives what will come back.
    pub(super) fn ask(self: &Arc<Self>, message: &Message) -> Result<Exchange, Unsent> {
        let Form::Request { id, .. } = message.form() else { return Err(Unsent::Over) };
        let mut state = self.state();
        if state.over || *self.ending.borrow() {
            return Err(Unsent::Over);
        }
        if state.requests.len() >= REQUESTS_MAX {
            return Err(Unsent::Busy);
        }
        let token = message.meta().and_then(|meta| meta.get("progressToken"));
        state.numbered += 1;
        let number = state.numbered;
        let (id, token, own, bytes) = match self.ids {
            Ids::AsSent => {
                let token = token.and_then(|token| line::token(token.raw()));
                (id.clone(), token, None, message.bytes().clone())
            }
            Ids::Numbered => {
                let (own, bytes) = numbered(message, number);
                (Id::Number(number), token.map(|_| Id::Number(number)), Some(own), bytes)
            }
        };
        if state.requests.contains_key(&id) {
            return Err(Unsent::SameId);
        }
        self.write(line::one_line(&bytes))?;
        let (telling, events) = mpsc::channel(EVENTS_MAX);
        let (answering, response) = oneshot::channel();
        let waiting =
            Waiting { number, own, events: telling, response: answering, token, client: Client::Waits };
        state.requests.insert(id.clone(), waiting);
        state.clients += 1;
        Ok(Exchange { events, response, waits: Waits { link: Arc::clone(self), id: Some(id) } })
    }

    /// Opens the standalone stream; `None` when there is one.
    pub(super) fn listen(self: &Arc<Self>) -> Option<Standalone> {
        let mut state = self.state();
        if state.over || state.stream.as_ref().is_some_and(|stream| !stream.is_closed()) {
            return None;
        }
        let (stream, events) = mpsc::channel(EVENTS_MAX);
        for event in std::mem::take(&mut state.unheard) {
            // It is empty and larger than what may have waited.
            let _ = stream.try_send(event);
        }
        state.stream = Some(stream);
        state.clients += 1;
        Some(Standalone { events, waits: Waits { link: Arc::clone(self), id: None } })
    }

    /// The client will not wait for an answer that it cancelled, and the child need not send one.
    fn cancelled(&self, message: &Message) {
        let named = message.params().and_then(|params| params.get("requestId"));
        let Some(id) = named.and_then(|id| line::token(id.raw())) else { return };
        let mut state = self.state();
        match state.requests.get_mut(&id).map(|waiting| &mut waiting.client) {
            Some(client @ Client::Waits) => *client = Client::Cancelled,
            Some(Client::Left) => drop(state.requests.remove(&id)),
            Some(Client::Cancelled) | None => {}
        }
    }

    // === from the child ===

    /// Takes a line of the child's output; an error says why nobody gets it.
    pub(super) fn received(&self, bytes: Vec<u8>) -> Result<(), &'static str> {
        let bytes = Bytes::from(bytes);
        match line::read(&bytes).ok_or("it is no JSON-RPC message")? {
            Line::Response { id, at, code } => {
                let waiting = self.state().requests.remove(&id).ok_or("it answers no request")?;
                let bytes = match &waiting.own {
                    Some(own) => line::with(&bytes, &[(at, &own.id)]),
                    None => bytes,
                };
                // A client that left does not want it.
                let _ = waiting.response.send(Answered { bytes, code });
                Ok(())
            }
            Line::Notification { of } => self.told(&bytes, of),
            Line::Request { id } => self.asked(bytes, &id),
        }
    }

    fn told(&self, bytes: &Bytes, of: Of) -> Result<(), &'static str> {
        let mut state = self.state();
        let (found, place) = match of {
            Of::Progress(token, at) => {
                let of = state.requests.values().find(|waiting| waiting.token.as_ref() == Some(&token));
                (of.map(|waiting| (waiting, waiting.own.as_ref().map(|own| &own.token))), Some(at))
            }
            Of::Subscription(id, at) => {
                let of = state.requests.get(&id);
                (of.map(|waiting| (waiting, waiting.own.as_ref().map(|own| &own.id))), Some(at))
            }
            Of::Nothing => (None, None),
        };
        if let Some((waiting, own)) = found {
            let event = match (own, place) {
                (Some(own), Some(at)) => line::with(bytes, &[(at, own)]),
                _ => bytes.clone(),
            };
            return self.send(&waiting.events, event).map_err(|_| FULL);
        }
        match self.ids {
            Ids::AsSent => self.unrelated(&mut state, bytes.clone()),
            // What names nobody goes to nobody when there is a choice.
            Ids::Numbered => {
                let mut clients = state.requests.values();
                match (clients.next(), clients.next(), place) {
                    (Some(only), None, None) => self.send(&only.events, bytes.clone()).map_err(|_| FULL),
                    _ => Err("it names no request that is under way"),
                }
            }
        }
    }

    fn asked(&self, bytes: Bytes, id: &str) -> Result<(), &'static str> {
        let sent = match self.ids {
            Ids::AsSent => self.unrelated(&mut self.state(), bytes),
            Ids::Numbered => Err("servers ask nothing in this era of MCP"),
        };
        if sent.is_err() {
            let refusal = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32601,\"message\":\"no client takes requests\"}}}}"
            );
            // A child that reads nothing does not wait for this either.
            let _ = self.write(line::one_line(refusal.as_bytes()));
        }
        sent
    }

    /// What belongs to no request goes to the standalone stream, else to the oldest request that somebody waits for,
    /// else it waits for a stream.
    fn unrelated(&self, state: &mut State, bytes: Bytes) -> Result<(), &'static str> {
        if let Some(stream) = state.stream.as_ref().filter(|stream| !stream.is_closed()) {
            return self.send(stream, bytes).map_err(|_| FULL);
        }
        let open = state.requests.values().filter(|waiting| !waiting.events.is_closed());
        if let Some(waiting) = open.min_by_key(|waiting| waiting.number) {
            return self.send(&waiting.events, bytes).map_err(|_| FULL);
        }
        if state.unheard.len() >= UNHEARD_MAX {
            return Err(FULL);
        }
        let event = self.event(bytes).ok_or(FULL)?;
        state.unheard.push_back(event);
        Ok(())
    }

    fn send(&self, stream: &mpsc::Sender<Event>, bytes: Bytes) -> Result<(), ()> {
        stream.try_send(self.event(bytes).ok_or(())?).map_err(|_| ())
    }

    fn event(&self, bytes: Bytes) -> Option<Event> {
        let room = u32::try_from(bytes.len()).ok()?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(room).ok()?;
        Some(Event { bytes, _room: room })
    }

    /// Counts a line that nobody got: how many there are by now.
    pub(super) fn dropped(&self) -> u64 {
        let mut state = self.state();
        state.dropped += 1;
        state.dropped
    }

    /// The child is gone: whoever waits is told so by what is dropped here.
    pub(super) fn over(&self) {
        let mut state = self.state();
        state.over = true;
        state.requests.clear();
        state.stream = None;
        state.unheard.clear();
    }

    // === clients that leave ===

    fn left(&self, id: Option<&Id>) {
        let mut state = self.state();
        state.clients = state.clients.saturating_sub(1);
        state.since = Instant::now();
        let Some(id) = id else { return };
        let Some(waiting) = state.requests.get_mut(id) else { return };
        let was = std::mem::replace(&mut waiting.client, Client::Left);
        match (self.ids, was) {
            // A legacy client that leaves does not cancel: the child's answer is taken and dropped.
            (Ids::AsSent, Client::Waits | Client::Left) => {}
            (Ids::AsSent, Client::Cancelled) => drop(state.requests.remove(id)),
            (Ids::Numbered, _) => {
                state.requests.remove(id);
                drop(state);
                let Id::Number(number) = id else { return };
                let cancel = format!(
                    "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{number},\
                     \"reason\":\"the client left\"}}}}"
                );
                // A child that does not read would not learn it anyhow.
                let _ = self.write(line::one_line(cancel.as_bytes()));
            }
        }
    }
}

const FULL: &str = "too much waits for its clients already";

/// A request with our number in place of its id and of its progress token, and how the client wrote them.
fn numbered(message: &Message, number: i64) -> (Own, Bytes) {
    let root = message.document().root();
    let number = number.to_string();
    let id = root.get("id");
    let token = message.meta().and_then(|meta| meta.get("progressToken"));
    let raw = |value: Option<crate::json::Value<'_>>| {
        Bytes::copy_from_slice(value.map(|value| value.raw()).unwrap_or_default())
    };
    let own = Own { id: raw(id), token: raw(token) };
    let mut changes: Vec<_> =
        [id, token].into_iter().flatten().map(|value| (value.range(), number.as_bytes())).collect();
    changes.sort_by_key(|(place, _)| place.start);
    (own, line::with(message.bytes(), &changes))
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.link.left(self.id.as_ref());
    }
}
