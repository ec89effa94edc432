//! What an MCP upstream may say to an agent, message by message.
//!
//! An upstream of the legacy era can ask the agent for things: a completion of its model (sampling), a user's answer
//! (elicitation), its roots. One of the modern era asks within a result. What the operator does not let it ask never
//! reaches the agent, and the upstream is told so. Lists are cut down to what the agent may see, and what later messages
//! refer to is remembered: the protocol version, questions, tasks.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::value::RawValue;

use super::parked::{Parked, Waiting};
use super::watch::{self, Found};
use crate::call::{Era, Stage, Stop, StopKind, hex};
use crate::classify::catalog::Asks;
use crate::decode::jsonrpc::{Form, Id, Message};
use crate::decode::mcp::{Envelope, McpAction, TaskVerb};
use crate::decode::session::Dialogue;
use crate::decode::told::{self, Cut, List, Members};
use crate::decode::{Call, sse};
use crate::json::Limits;

/// Requests of an upstream that are refused within one stream; at the next the stream ends.
const REFUSED_MAX: usize = 16;

/// Items of one reply's lists that are withheld and named on the record.
const WITHHELD_MAX: usize = 32;
/// How much of a name is recorded.
const NAME_CHARS_MAX: usize = 128;

/// Tells the upstream that a request of its own will not be answered.
/// It takes the session that the gateway has named meanwhile, if it has.
pub type Decline = Arc<dyn Fn(&Id, Option<&Arc<str>>) + Send + Sync>;
/// Told that the upstream says its list of tools has changed.
pub type Relist = Box<dyn Fn() + Send + Sync>;
/// Told of a result that asks the client to call once more, with the state that it is to bring; empty when there is none.
pub type Continues = Box<dyn Fn(&str) + Send + Sync>;
/// Whether the agent may see an item of a list, by its name and its text.
pub type Shows = Box<dyn Fn(&str, &str) -> Shown + Send + Sync>;

/// What becomes of an item of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The agent may not see it.
    No,
    /// The agent sees it.
    Yes,
    /// It is not believed, which is found and recorded.
    Withheld(&'static str),
}

/// Judges what comes in one reply.
pub struct Judge {
    dialogue: Dialogue,
    asks: Asks,
    era: Era,
    id: Option<Id>,
    want: Want,
    ends: Ends,
    old: Option<Old>,
    decline: Option<Decline>,
    relist: Option<Relist>,
    continues: Option<Continues>,
    /// Requests of the upstream that were refused.
    refused: usize,
    /// What was withheld from the agent, for the record.
    pub withheld: Vec<Arc<str>>,
}

/// What is to be learnt from the response, or done to it.
enum Want {
    /// The version on which both agree.
    Agreement,
    /// Only what the agent may see of a list.
    Seen(List, Option<Shows>),
    /// The task that the call of this tool becomes.
    Task(Arc<str>),
    /// Nothing.
    Nothing,
}

/// The stream of a session of the transport of MCP 2024-11-05, on which everything is answered.
pub struct Old {
    /// The upstream's authority, and the path of this stream there.
    pub origin: (String, Arc<str>),
    /// What the agent posts its messages to, up to the session.
    pub prefix: String,
    /// The calls that are answered here.
    pub parked: Arc<Parked>,
    /// The session, once the upstream has named the endpoint.
    pub session: Option<Arc<str>>,
}

impl Drop for Old {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            self.parked.end(session);
        }
    }
}

/// What the call itself ends, once it has succeeded.
enum Ends {
    Nothing,
    /// A question of the upstream, which it answers.
    Question(Id),
    /// The session.
    Session,
}

/// What becomes of a message.
#[derive(Debug)]
pub enum Sentence {
    /// It passes as it is.
    Pass,
    /// Other words pass in its place.
    Replace(Vec<u8>),
    /// It is left out.
    Drop,
    /// In its place the agent is told that it was withheld.
    Withhold(Box<Stop>),
    /// The reply ends here: this cannot be told apart from what must not pass.
    Break(&'static str),
}

impl Judge {
    /// The judge of the reply to this call.
    pub fn of(call: &Call, envelope: &Envelope, asks: Asks, dialogue: Dialogue) -> Judge {
        let id = match call.message().map(Message::form) {
            Some(Form::Request { id, .. }) => Some(id.clone()),
            _ => None,
        };
        let want = match &envelope.action {
            McpAction::Initialize => Want::Agreement,
            McpAction::CallTool { name } if may_become_a_task(call, envelope) => Want::Task(Arc::clone(name)),
            action => list_of(action).map_or(Want::Nothing, |list| Want::Seen(list, None)),
        };
        let ends = match (&envelope.action, call.message().and_then(Message::id)) {
            (McpAction::EndSession, _) => Ends::Session,
            (McpAction::Reply { .. }, Some(id)) => Ends::Question(id.clone()),
            _ => Ends::Nothing,
        };
        Judge {
            dialogue,
            asks,
            era: envelope.era,
            id,
            want,
            ends,
            old: None,
            decline: None,
            relist: None,
            continues: None,
            refused: 0,
            withheld: Vec::new(),
        }
    }

    /// The list that must be cut down, if the reply is one.
    pub fn list(&self) -> Option<List> {
        match self.want {
            Want::Seen(list, _) => Some(list),
            _ => None,
        }
    }

    /// Says what the agent may see of the list.
    pub fn see(&mut self, shows: Shows) {
        if let Want::Seen(_, seen) = &mut self.want {
            *seen = Some(shows);
        }
    }

    /// Whether the upstream could ask here what it may not.
    pub fn is_wary(&self) -> bool {
        !self.asks.everything()
    }

    /// Says that this is the stream of an old session.
    pub fn on_old_transport(&mut self, old: Old) {
        self.old = Some(old);
    }

    /// The call that an event on the stream of an old session answers.
    pub fn answered_here(&self, data: &[u8]) -> Option<Waiting> {
        let old = self.old.as_ref()?;
        let session = old.session.as_ref()?;
        if watch::found(data) == Some(Found::Method) {
            return None;
        }
        old.parked.take(session, told::id(data)?)
    }

    /// Judges the event that names the endpoint of an old session [MCP 2024-11-05, HTTP with SSE]: it must be the
    /// upstream's own, and the agent gets one of the gateway's in its place.
    pub fn endpoint(&mut self, data: &[u8]) -> Sentence {
        let Some(old) = &mut self.old else { return Sentence::Pass };
        if old.session.is_some() {
            return Sentence::Break("endpoint-twice");
        }
        let (authority, base) = &old.origin;
        let endpoint = std::str::from_utf8(data).ok().and_then(|text| told::resolved(text, authority, base));
        let (Some(endpoint), Some(session)) = (endpoint, unguessable()) else {
            return Sentence::Break("endpoint-foreign");
        };
        self.dialogue.open_at(&session, endpoint);
        let ours = format!("{}{session}", old.prefix);
        old.session = Some(session);
        Sentence::Replace(ours.into_bytes())
    }

    /// Gives the way to tell the upstream that it will not be answered.
    pub fn declining(&mut self, decline: Decline) {
        self.decline = Some(decline);
    }

    /// Gives the way to have the upstream listed anew.
    pub fn relisting(&mut self, relist: Relist) {
        self.relist = Some(relist);
    }

    /// Gives who is to know of a result that asks for one more leg.
    pub fn continuing(&mut self, continues: Continues) {
        self.continues = Some(continues);
    }

    /// Whether a JSON reply of this size, where it is known, must be judged before any of it passes: always when
    /// something of it is wanted, and where it may ask what it may not, if it is small enough to be kept.
    pub fn reads_whole(&self, size: Option<u64>, small_bytes_max: usize) -> bool {
        let small = size.is_some_and(|size| size <= small_bytes_max as u64);
        !matches!(self.want, Want::Nothing)
            || self.continues.is_some()
            || (small && self.era == Era::Modern && self.is_wary())
    }

    /// Notes what the head of a reply says of its session, and that a question has been answered.
    pub fn begun(&mut self, headers: &HeaderMap, success: bool) {
        if !success {
            return;
        }
        match &self.ends {
            Ends::Nothing => {}
            Ends::Question(id) => self.dialogue.answered(id),
            Ends::Session => self.dialogue.end(),
        }
        if let Want::Agreement = &self.want
            && let Some(session) = headers.get("mcp-session-id").and_then(|value| value.to_str().ok())
        {
            self.dialogue.open(session);
        }
    }

    /// Judges one whole message.
    pub fn message(&mut self, data: &[u8]) -> Sentence {
        if data.trim_ascii().is_empty() {
            // The event that begins a stream which can be resumed has an id and no message [MCP 2025-11-25, transports].
            return Sentence::Pass;
        }
        match watch::found(data) {
            None => self.response(data),
            Some(Found::Method) => self.said(data),
            Some(Found::InputRequests) => self.input_requests(data),
        }
    }

    fn response(&mut self, data: &[u8]) -> Sentence {
        // Few replies are looked into, and reading one costs.
        let awaited = || self.id.as_ref().is_some_and(|id| sse::is_response(data, id));
        if let Some(continues) = &self.continues
            && awaited()
        {
            let result = told::result(data);
            let asks = |result: &Members<'_>| result.text("resultType").as_deref() == Some("input_required");
            if let Some(result) = result.filter(asks) {
                continues(&result.text("requestState").unwrap_or_default());
            }
        }
        match &self.want {
            Want::Nothing => {}
            Want::Agreement if awaited() => {
                if let Some(version) = told::result(data).and_then(|result| result.text("protocolVersion")) {
                    self.dialogue.agreed(&version);
                }
            }
            Want::Task(tool) if awaited() => {
                let task = |result: Members<'_>| match result.object("task") {
                    Some(task) => task.text("taskId"),
                    None => result.text("taskId"),
                };
                if let Some(task) = told::result(data).and_then(task) {
                    self.dialogue.became(&task, tool);
                }
            }
            Want::Seen(..) => return self.seen(data),
            Want::Agreement | Want::Task(_) => {}
        }
        Sentence::Pass
    }

    fn seen(&mut self, data: &[u8]) -> Sentence {
        let Want::Seen(list, shows) = &self.want else { return Sentence::Pass };
        let withheld = &mut self.withheld;
        let cut = told::cut(data, *list, |name, item| match shows.as_ref().map(|shows| shows(name, item)) {
            Some(Shown::Yes) => true,
            Some(Shown::Withheld(why)) => {
                if withheld.len() < WITHHELD_MAX {
                    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                    withheld.push(format!("{why}: {name}").into());
                }
                false
            }
            Some(Shown::No) | None => false,
        });
        match cut {
            Cut::Whole => Sentence::Pass,
            Cut::Less(less, _) => Sentence::Replace(less),
            Cut::Unreadable => Sentence::Break("list-unreadable"),
        }
    }

    /// A message with a method: a notification passes, a request if it may be asked.
    fn said(&mut self, data: &[u8]) -> Sentence {
        if data.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return self.batch(data);
        }
        let Ok(message) = Message::read(Bytes::copy_from_slice(data), &Limits::default()) else {
            return if self.is_wary() { Sentence::Break("request-unreadable") } else { Sentence::Pass };
        };
        let Form::Request { id, method } = message.form() else {
            if message.method() == Some("notifications/tools/list_changed")
                && let Some(relist) = &self.relist
            {
                relist();
            }
            return Sentence::Pass;
        };
        if self.era == Era::Modern {
            // Nobody could answer it [MCP 2026-07-28, basic/transports]: there are no requests of servers.
            return if self.is_wary() { Sentence::Break("request-of-upstream") } else { Sentence::Pass };
        }
        // A refusal is an answer too, and goes the way of answers.
        self.dialogue.asked(id.clone(), Arc::clone(method));
        if self.asks.allow(method) {
            return Sentence::Pass;
        }
        self.withheld.push(Arc::clone(method));
        self.refused += 1;
        if self.refused > REFUSED_MAX {
            return Sentence::Break("requests-of-upstream");
        }
        if let Some(decline) = &self.decline {
            decline(id, self.old.as_ref().and_then(|old| old.session.as_ref()));
        }
        Sentence::Drop
    }

    /// A batch of 2025-03-26 passes whole or not at all.
    fn batch(&mut self, data: &[u8]) -> Sentence {
        let Ok(messages) = serde_json::from_slice::<Vec<&RawValue>>(data) else {
            return if self.is_wary() { Sentence::Break("batch-unreadable") } else { Sentence::Pass };
        };
        for message in messages {
            if !matches!(self.message(message.get().as_bytes()), Sentence::Pass) {
                return Sentence::Break("request-of-upstream");
            }
        }
        Sentence::Pass
    }

    /// A result that asks the client [MCP 2026-07-28, multi round-trip requests].
    fn input_requests(&mut self, data: &[u8]) -> Sentence {
        if !self.is_wary() {
            return self.response(data);
        }
        let asked = told::result(data).and_then(|result| result.object("inputRequests"));
        let Some(asked) = asked else { return Sentence::Break("input-requests-unreadable") };
        let methods: Option<Vec<String>> =
            asked.values().map(|request| Members::read(request.get())?.text("method")).collect();
        let Some(methods) = methods else { return Sentence::Break("input-requests-unreadable") };
        let refused: Vec<Arc<str>> =
            methods.into_iter().filter(|method| !self.asks.allow(method)).map(Arc::from).collect();
        if refused.is_empty() {
            return self.response(data);
        }
        let what = refused.join(", ");
        self.withheld.extend(refused);
        let mut stop = Stop::new(
            Stage::Observe,
            StopKind::Denied,
            "upstream-asks",
            "The tool asked for something that it may not ask for. It did not finish. Do not retry.",
        )
        .operator(format!("the upstream asked for {what}, which `upstreams[].may_ask` does not name"));
        stop.rule = Arc::from("upstream-asks");
        Sentence::Withhold(stop)
    }
}

/// The id of a session, 128 random bits in hexadecimal.
fn unguessable() -> Option<Arc<str>> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(Arc::from(hex(&bytes)))
}

/// Whether the reply to a tool call may say that it has become a task.
fn may_become_a_task(call: &Call, envelope: &Envelope) -> bool {
    let asked = || call.message().and_then(Message::params).and_then(|params| params.get("task"));
    envelope.tasks_extension || asked().is_some()
}

fn list_of(action: &McpAction) -> Option<List> {
    Some(match action {
        McpAction::ListPrompts => List { array: "prompts", name: "name" },
        McpAction::ListResources => List { array: "resources", name: "uri" },
        McpAction::ListResourceTemplates => List { array: "resourceTemplates", name: "uriTemplate" },
        McpAction::ListTools => List { array: "tools", name: "name" },
        McpAction::Task { verb: TaskVerb::List, .. } => List { array: "tasks", name: "taskId" },
        _ => return None,
    })
}
