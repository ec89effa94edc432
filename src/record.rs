//! Record: the evidence of one call. Opened before the first stage, committed before anything leaves, closed once.
//!
//! The same value becomes the audit's records and the trace's spans, so that they cannot disagree. [`Committed`] is made
//! here alone, when the ledger has the intent. A record that nobody closed closes itself as abandoned.

mod attest;
mod bell;
pub mod capture;
pub mod chain;
pub mod checkpoint;
mod evidence;
pub mod export;
mod findings;
pub mod fold;
pub mod index;
pub mod keep;
pub mod ledger;
pub mod machine;
mod merkle;
mod note;
mod pen;
pub mod prove;
pub mod publish;
mod recover;
mod release;
pub mod restore;
pub mod rotate;
pub mod seal;
mod segment;
pub mod space;
mod stretch;
pub mod tail;
pub mod verify;
mod writer;

pub use attest::Against;
pub use chain::Kind;
pub use evidence::Evidence;
pub use ledger::{Appended, Config, Durability, Entry, Ledger, LedgerError, OnCommit, Stats};
pub use recover::Recovered;
pub use release::{Ending, OnEnd, ReleaseEnd};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::call::{AgentId, Protocol, RecordId, Shape, Stage, Stop, StopKind, TraceContext, WouldBe};
use crate::classify::Facts;
use crate::decide::{Judged, Permitted, Verdict, wire};
use crate::decode::{Action, Call, mcp::McpAction};
use crate::flow::{self, Label};
use crate::identify::Agent;
use crate::json::Members;
use crate::net::Dial;
use crate::telemetry::hop::{ErrorType, Hop, HttpVersion, StageTime};
use crate::telemetry::{hop, spans};
use capture::Capture;
use note::{durability, note_decision, note_stop, route, unavailable, unrecorded};
use seal::{Part, Sealed};

/// The header that names a call's record, on every reply and on the request upstream.
pub const RECORD_HEADER: http::HeaderName = http::HeaderName::from_static("holdpoint-record");

/// What the members of an intent usually take, in bytes.
const MEMBERS_BYTES: usize = 2048;
/// What an outcome usually repeats of it, in bytes.
const SAID_BYTES: usize = 160;

/// A call whose intent the ledger has. Only this may be sent.
pub struct Committed {
    call: Box<Call>,
    facts: Facts,
}

/// The record of one call.
pub struct Record {
    evidence: Arc<Evidence>,
    hop: Option<Box<Hop>>,
    started: Instant,
    id: RecordId,
    /// How an answer must look, as far as decoding got.
    pub shape: Shape,
    running: Option<(Stage, Duration)>,
    /// What the intent or the refusal will say.
    noted: Members,
    /// What an outcome repeats of it, so that its line can be read alone.
    said: Members,
    /// What was asked for in the agent's own words, as long as no entry of the catalogue names it.
    asked: Option<String>,
    decided: bool,
    /// The fingerprint of the credential that was used.
    credential: Option<String>,
    /// SHA-256 of the certificate that it came with.
    certificate: [u8; 32],
    /// How much was noted when it was decoded: what is decided again is noted from there on.
    marks: (usize, usize),
    /// The same before it was decoded.
    known: (usize, usize),
    /// Told how it ended, when it is a held call that was released.
    on_end: Option<OnEnd>,
    state: State,
    _open: TaskTrackerToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Committed(Durability),
    Closed,
}

impl Record {
    /// Opens the record of a request that has just arrived.
    pub fn open(
        evidence: &Arc<Evidence>,
        peer: SocketAddr,
        certificate: [u8; 32],
        http: HttpVersion,
    ) -> Record {
        let mut hop = Box::new(Hop::new(Protocol::Http, spans::begin(None), SystemTime::now()));
        hop.caller.address = Some(peer.ip());
        hop.caller.port = Some(peer.port());
        hop.caller.http = http;
        hop.upstream.span = spans::new_span_id();
        let id = hop.record;
        let mut noted = Members::with_capacity(MEMBERS_BYTES);
        noted.plain("peer", peer);
        Record {
            evidence: Arc::clone(evidence),
            hop: Some(hop),
            started: Instant::now(),
            id,
            shape: Shape::HTTP,
            running: None,
            noted,
            said: Members::with_capacity(SAID_BYTES),
            asked: None,
            decided: false,
            credential: None,
            certificate,
            marks: (0, 0),
            known: (0, 0),
            on_end: None,
            state: State::Open,
            _open: evidence.open.token(),
        }
    }

    /// The record's id, as the agent and the upstream see it.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Notes the trace that the request says it belongs to: it is found by it however early it is stopped.
    pub fn traced(&mut self, parent: Option<TraceContext>) {
        if let (Some(parent), Some(hop)) = (parent, &mut self.hop) {
            hop.parent = Some(parent);
            hop.trace.trace_id = parent.trace_id;
        }
    }

    /// Notes that a stage begins, and so that the one before has ended.
    pub fn enter(&mut self, stage: Stage) {
        let now = self.started.elapsed();
        if let (Some((stage, start)), Some(hop)) = (self.running.take(), &mut self.hop) {
            hop.timing.stages.push(StageTime { stage, start, end: now });
        }
        self.running = Some((stage, now));
    }

    /// Notes who calls.
    pub fn identified(&mut self, agent: &Agent) {
        let profile = agent.profile();
        self.certified(&profile.id, agent.instance());
        self.said.object("agent", |members| members.text("id", profile.id.as_str()));
        self.noted.text("owner", &profile.owner);
        if let Some(hop) = &mut self.hop {
            hop.caller.agent = Some(profile.id.clone());
        }
    }

    /// Notes whose certificate the call came with.
    pub fn certified(&mut self, id: &AgentId, instance: &str) {
        self.noted.object("agent", |members| {
            members.text("id", id.as_str());
            members.text("instance", instance);
        });
    }

    /// Notes what is called, before anything is known of what it does.
    pub fn decoded(&mut self, call: &Call) {
        self.known = (self.noted.len(), self.said.len());
        self.noted.text("upstream", &call.route().name);
        self.said.text("upstream", &call.route().name);
        if let Some(digest) = capture::arguments_digest(call) {
            self.noted.plain("arguments", digest);
        }
        self.asked = capture::asked(call);
        if let Some(method) = call.message().and_then(|message| message.method()) {
            self.noted.text("method", method);
        }
        self.traced(call.trace().parent);
        let Some(hop) = &mut self.hop else { return };
        hop.protocol = self.shape.protocol;
        hop.upstream.name = Arc::clone(&call.route().name);
        hop.request_bytes = call.payload().len() as u64;
        hop.target.http_method = Arc::from(call.head().method.as_str());
        hop.link = call.trace().link;
        if let Action::Mcp(envelope) = call.action() {
            hop.target.method =
                Arc::from(call.message().and_then(|message| message.method()).unwrap_or_default());
            hop.target.mcp_version = envelope.version.clone();
            hop.target.rpc_id = call.message().and_then(|message| message.id()).map(|id| match id {
                crate::decode::jsonrpc::Id::Number(number) => Arc::from(number.to_string()),
                crate::decode::jsonrpc::Id::Text(text) => Arc::clone(text),
            });
            if let McpAction::CallTool { name } = &envelope.action {
                hop.target.tool = Some(Arc::clone(name));
            }
        }
        self.marks = (self.noted.len(), self.said.len());
    }

    /// Notes what the call does.
    pub fn understood(&mut self, call: &Call, facts: &Facts) {
        if let Capture::Redacted = self.evidence.capture
            && let Some(redacted) = capture::redacted(call, facts)
        {
            self.noted.text("redacted", &redacted);
        }
        self.noted.text("tool", &facts.resource.name);
        self.said.text("tool", &facts.resource.name);
        if facts.resource.listed {
            self.asked = None;
        }
        if let Some(definition) = &facts.definition {
            self.noted.plain("definition", definition);
        }
        self.noted.text("class", facts.class.as_str());
        self.noted.number("consequence", facts.consequence.level());
        self.noted.texts("effects", facts.effects.iter().map(|effect| effect.as_str()));
        let destinations: Vec<String> = facts
            .destinations
            .iter()
            .map(|to| self.evidence.pseudonyms.pseudonym(to.canonical.as_bytes()))
            .collect();
        self.noted.texts("destinations", destinations.iter().map(String::as_str));
        if let Some(hop) = &mut self.hop {
            hop.decision.class = Some(facts.class);
            hop.decision.consequence = Some(facts.consequence);
            hop.target.route = route(self.shape.protocol, &facts.resource.name);
        }
    }

    /// Notes the run and what it remembers.
    pub fn entered(&mut self, entry: &flow::Entry) {
        self.noted.text("run", &entry.run);
        self.noted.texts("labels", entry.labels.iter().map(|label| label.as_str()));
        if !entry.endorsements.is_empty() {
            let ids: Vec<String> = entry.endorsements.iter().map(ToString::to_string).collect();
            self.noted.texts("endorsements", ids.iter().map(String::as_str));
        }
        if let Some(hop) = &mut self.hop {
            hop.caller.run = Some(Arc::clone(&entry.run));
            hop.caller.task = entry.task.as_ref().map(|task| Arc::clone(&task.id));
            hop.decision.findings = entry.findings.clone();
            hop.decision.labels = entry.labels.iter().map(|label| label.as_str().into()).collect();
        }
    }

    /// Notes what was decided, by which revision of policy, and everything that it went by.
    pub fn decided(&mut self, judged: &Judged, would_be: Option<&WouldBe>, revision: &str) {
        let decision = &judged.decision;
        self.decided = true;
        note_decision(&mut self.noted, judged, would_be, revision);
        wire::write(&judged.input, &mut self.noted);
        note::note_lifted(&mut self.noted, judged, self.id, self.hop.as_deref_mut());
        if let Some(hop) = &mut self.hop {
            hop.decision.rule = Arc::clone(&decision.rule);
            hop.decision.outcome = match judged.verdict {
                Verdict::Allow(_) => hop::Outcome::Allowed,
                Verdict::Deny(_) => hop::Outcome::Denied,
                Verdict::Hold(_) => hop::Outcome::Held,
            };
            hop.decision.would_be = would_be.map(|would_be| hop::Outcome::of(would_be.kind));
            if let Some(would_be) = would_be {
                hop.decision.rule = Arc::clone(&would_be.rule);
            }
        }
    }

    /// Writes the intent: from here on the call may be sent.
    pub async fn commit(&mut self, permitted: Permitted, brings: &[Label]) -> Result<Committed, Box<Stop>> {
        let (call, facts) = permitted.into_parts();
        self.noted.texts("brings", brings.iter().map(|label| label.as_str()));
        let durability = durability(&facts);
        let sealed = self.seal(&call)?;
        let entry = Entry { sealed, ..self.first(Kind::Intent) };
        // From here on the intent may reach the disk, even if nobody waits for that any more, and must not stand there
        // as if the call had gone.
        self.state = State::Committed(Durability::Written);
        if let Err(error) = self.evidence.ledger.append(entry, durability).await {
            if !matches!(error, LedgerError::Hung) {
                self.state = State::Open;
                (self.noted, self.decided) = (self.said.clone(), false);
            }
            return Err(unavailable(&error.to_string()));
        }
        self.state = State::Committed(durability);
        Ok(Committed { call, facts })
    }

    /// Seals what the agent sent, when that is what the audit keeps. What must be kept and cannot be is not sent.
    fn seal(&mut self, call: &Call) -> Result<Option<Box<Sealed>>, Box<Stop>> {
        let (Capture::Sealed(auditor), Some(payload)) = (&self.evidence.capture, capture::payload(call))
        else {
            return Ok(None);
        };
        let sealed = auditor.seal(self.id, Part::Arguments, payload);
        let sealed = sealed.ok_or_else(|| unavailable("the arguments could not be sealed"))?;
        sealed.note(&mut self.noted);
        Ok(Some(Box::new(sealed)))
    }

    /// Whether the beginning of the reply is wanted for the audit.
    pub fn keeps_reply(&self) -> bool {
        matches!(self.evidence.capture, Capture::Sealed(_))
    }

    /// The context that the upstream is given: a child of this hop's server span.
    pub fn upstream_context(&self) -> TraceContext {
        match &self.hop {
            Some(hop) => TraceContext { span_id: hop.upstream.span, ..hop.trace },
            None => spans::begin(None),
        }
    }

    /// Notes that the request goes to the upstream now.
    pub fn sending(&mut self, dial: Option<&Dial>) {
        let now = self.started.elapsed();
        if let (Some(hop), Some(dial)) = (&mut self.hop, dial) {
            hop.upstream.transport = match (&dial.inside, &dial.tls) {
                (Some(_), _) => hop::Transport::Pipe,
                (None, Some(_)) => hop::Transport::Tls,
                (None, None) => hop::Transport::Plain,
            };
            // A pipe has no address.
            if dial.inside.is_none() {
                hop.upstream.address = Some(Arc::clone(&dial.name));
                hop.upstream.port = Some(dial.port);
            }
            hop.timing.upstream = Some((now, now));
        }
    }

    /// Notes the head of the upstream's reply.
    pub fn replied(&mut self, status: u16) {
        let now = self.started.elapsed();
        if let Some(hop) = &mut self.hop {
            hop.status = Some(status);
            hop.upstream.status = Some(status);
            if let Some((_, to)) = &mut hop.timing.upstream {
                *to = now;
            }
        }
    }

    /// Notes the fingerprint of the credential that was used.
    pub fn leased(&mut self, fingerprint: Option<&str>) {
        self.credential = fingerprint.map(str::to_owned);
    }

    /// Closes the record of a request whose messages each have a record of their own.
    pub fn split(mut self) {
        self.state = State::Closed;
    }

    /// Closes a call that did not go on: a refusal, or the failed outcome of an intent.
    pub async fn stopped(mut self, stop: &Stop, status: u16) {
        let now = self.started.elapsed();
        if let Some(hop) = &mut self.hop {
            if let Some((_, to)) = &mut hop.timing.upstream {
                *to = now;
            }
            hop.decision.outcome = hop::Outcome::of(stop.kind);
            hop.error = ErrorType::of(stop);
            hop.status = Some(status);
            hop.protocol = self.shape.protocol;
            if !stop.rule.is_empty() {
                hop.decision.rule = Arc::clone(&stop.rule);
            }
        }
        if self.state == State::Open && stop.kind != StopKind::Held {
            let refusal = fold::Refusal::of(self.certificate, stop);
            match self.evidence.folds.admit(refusal) {
                Some(0) => {}
                Some(folded) => self.noted.number("folded", folded),
                None => return self.finish(),
            }
        }
        let end = self.end_by(stop);
        let (entry, durability) = self.stopping(stop);
        if let Err(error) = self.evidence.ledger.append(entry, durability).await {
            tracing::error!(record = %self.id, %error, "a refusal could not be recorded");
        }
        if let Some(on_end) = self.on_end.take() {
            on_end(end).await;
        }
        self.finish();
    }

    fn stopping(&mut self, stop: &Stop) -> (Entry, Durability) {
        if let State::Committed(durability) = self.state {
            let status = match (stop.kind, stop.reason) {
                (_, "client-gone") => "client-gone",
                (StopKind::UpstreamFailed, _) => "failed",
                _ => "not-sent",
            };
            let mut members = Members::with_capacity(MEMBERS_BYTES);
            note_stop(&mut members, stop);
            return (self.outcome(status, members), durability);
        }
        note_stop(&mut self.noted, stop);
        if !self.decided {
            self.noted.object("decision", |members| {
                members.text("outcome", hop::Outcome::of(stop.kind).as_str());
                members.text("rule", &stop.rule);
            });
        }
        let kind = if stop.kind == StopKind::Held { Kind::Held } else { Kind::Refused };
        (self.first(kind), Durability::Written)
    }

    /// Closes a call whose reply ended; the reply's end may be released once this returns.
    pub async fn ended(mut self, ending: Ending, reply: ReplyFacts) -> Result<(), Box<Stop>> {
        let (entry, durability) = self.ending(ending, &reply);
        let appended = self.evidence.ledger.append(entry, durability).await;
        if let Some(on_end) = self.on_end.take() {
            on_end(ReleaseEnd::of(ending)).await;
        }
        self.finish();
        appended.map(|_| ()).map_err(|error| unrecorded(&error.to_string()))
    }

    fn ending(&mut self, ending: Ending, reply: &ReplyFacts) -> (Entry, Durability) {
        let now = self.started.elapsed();
        if let Some(hop) = &mut self.hop {
            if let Some((_, to)) = &mut hop.timing.upstream {
                *to = now;
            }
            hop.response_bytes = reply.bytes;
            hop.rpc_code = reply.rpc_code;
            hop.error = match ending {
                Ending::ClientGone => Some(ErrorType::Cancelled),
                Ending::UpstreamBroke => Some(ErrorType::Connection),
                Ending::Complete if reply.tool_error => Some(ErrorType::Tool),
                Ending::Complete => match (reply.rpc_code, hop.status) {
                    (Some(code), _) => Some(ErrorType::Rpc(code)),
                    (None, Some(status)) if status >= 400 => Some(ErrorType::Status(status)),
                    (None, _) => None,
                },
            };
        }
        let status = match ending {
            Ending::ClientGone => "client-gone",
            Ending::UpstreamBroke => "broken",
            Ending::Complete if reply.tool_error => "tool-error",
            Ending::Complete if reply.rpc_code.is_some() => "error",
            Ending::Complete => "executed",
        };
        let mut members = Members::with_capacity(MEMBERS_BYTES);
        if let Some(status) = self.hop.as_ref().and_then(|hop| hop.status) {
            members.number("http_status", status);
        }
        members.object("reply", |members| {
            members.plain("digest", &reply.digest);
            members.number("bytes", reply.bytes);
        });
        if let Some(code) = reply.rpc_code {
            members.number("rpc_code", code);
        }
        if !reply.withheld.is_empty() {
            members.texts("withheld", reply.withheld.iter().map(|what| &**what));
        }
        let durability = match self.state {
            State::Committed(durability) => durability,
            State::Open | State::Closed => Durability::Written,
        };
        let kept = self.sealed_reply(reply, &mut members);
        (Entry { sealed: kept, ..self.outcome(status, members) }, durability)
    }

    /// Seals what was kept of a reply. One that cannot be sealed is not: its digest stands, and it has passed already.
    fn sealed_reply(&self, reply: &ReplyFacts, members: &mut Members) -> Option<Box<Sealed>> {
        let (Capture::Sealed(auditor), Some(kept)) = (&self.evidence.capture, &reply.kept) else {
            return None;
        };
        let sealed = auditor.seal(self.id, Part::Reply, kept)?;
        sealed.note(members);
        Some(Box::new(sealed))
    }

    /// The record of how a call that was sent ended. What else is known of the call stands in its intent.
    fn outcome(&self, status: &str, mut members: Members) -> Entry {
        members.append(&self.said);
        if let Some(credential) = &self.credential {
            members.text("credential", credential);
        }
        members.text("status", status);
        members.millis("duration_ms", self.started.elapsed());
        Entry::outcome(self.id, self.trace_id(), members)
    }

    /// The first record of a call: its intent, or why there is none. It has the call's own id.
    fn first(&mut self, kind: Kind) -> Entry {
        let mut members = std::mem::take(&mut self.noted);
        if let Some(asked) = self.asked.take() {
            members.text("asked", &asked);
        }
        Entry::of(self.id, kind, self.trace_id(), members)
    }

    fn trace_id(&self) -> Option<[u8; 16]> {
        self.hop.as_ref().map(|hop| hop.trace.trace_id)
    }

    /// Hands the hop to telemetry; the record is closed.
    fn finish(&mut self) {
        let now = self.started.elapsed();
        self.state = State::Closed;
        let Some(mut hop) = self.hop.take() else { return };
        if let Some((stage, start)) = self.running.take() {
            hop.timing.stages.push(StageTime { stage, start, end: now });
        }
        hop.timing.total = now;
        self.evidence.telemetry.finished(hop);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.state == State::Closed {
            return;
        }
        let entry = match self.state {
            State::Committed(_) => self.outcome("abandoned", Members::default()),
            State::Open | State::Closed => {
                self.noted.text("reason", "abandoned");
                self.first(Kind::Refused)
            }
        };
        self.evidence.ledger.append_detached(entry);
        if let (Some(on_end), Ok(runtime)) = (self.on_end.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(on_end(ReleaseEnd::Unknown("abandoned".to_owned())));
        }
        if let Some(hop) = &mut self.hop {
            hop.error = Some(ErrorType::Cancelled);
        }
        self.finish();
    }
}

/// What was learnt from a reply in passing.
#[derive(Clone, Debug, Default)]
pub struct ReplyFacts {
    /// SHA-256 of its body, as `sha256:` and hexadecimal.
    pub digest: String,
    /// Its body's size.
    pub bytes: u64,
    /// Whether it says `isError`.
    pub tool_error: bool,
    /// Its JSON-RPC error code.
    pub rpc_code: Option<i64>,
    /// Its beginning, when the audit seals it.
    pub kept: Option<Vec<u8>>,
    /// What of it was kept from the agent, and why: methods that the upstream asked for, or a reason.
    pub withheld: Vec<Arc<str>>,
}

impl Committed {
    /// The call.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// What it does.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes the call out, to send it.
    pub(crate) fn into_call(self) -> Box<Call> {
        self.call
    }
}
