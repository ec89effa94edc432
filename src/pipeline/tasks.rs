//! Tasks of the gateway's own [MCP 2026-07-28, extension io.modelcontextprotocol/tasks]: a held call whose client asks
//! for it from time to time. The first question after the approval executes it, so that it runs only while its agent
//! is there, and the result is kept, sealed, until the hold's time is over.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::held::Case;
use super::{Gateway, Generation, Passed, own, replied, stopped};
use crate::accept::{Conn, Gone};
use crate::answer::{self, TaskStatus};
use crate::call::{Asked, Era, Protocol, RecordId, Shape, Stage, Stop, StopKind};
use crate::decode::mcp::{McpAction, OWN_TASK_PREFIX, TaskVerb};
use crate::decode::told::Members;
use crate::decode::{self, Call, Decoded, Inbound};
use crate::hold::digest::{self, Subject};
use crate::hold::ladder::POLL_EVERY;
use crate::observe::Body;
use crate::record::Record;
use crate::store::holds::{Hold, HoldState};
use crate::task::TASK_HEADER;
use crate::{hold, identify};

/// The largest result that is kept for its agent, in bytes. A larger one is told to be lost; the call was executed.
const RESULT_BYTES_MAX: usize = 4 << 20;

/// What is asked of a task that is the gateway's own.
pub(super) struct Question {
    pub(super) call: Box<Call>,
    /// What is asked, and the hold that the task is.
    pub(super) task: (TaskVerb, RecordId),
}

/// What a call asks of a task of the gateway's own, and of which, if it does.
pub(super) fn asked(call: &Call) -> Result<Option<(TaskVerb, RecordId)>, Box<Stop>> {
    let Some(McpAction::Task { verb, id, .. }) = call.envelope().map(|envelope| &envelope.action) else {
        return Ok(None);
    };
    let Some(id) = id.strip_prefix(OWN_TASK_PREFIX) else { return Ok(None) };
    match call.envelope().map(|envelope| envelope.era) {
        Some(Era::Modern) => RecordId::parse(id).map(|id| Some((*verb, id))).ok_or_else(unknown),
        _ => Ok(None),
    }
}

fn unknown() -> Box<Stop> {
    Stop::new(Stage::Decode, StopKind::TaskUnknown, "task-unknown", "no such task")
}

/// Answers a question about a task.
pub(super) async fn serve(
    gw: &Arc<Gateway>,
    generation: &Generation,
    conn: &Arc<Conn>,
    gone: Gone,
    record: Record,
    question: Question,
) -> Response<Body> {
    let Question { call, task: (verb, hold) } = question;
    let id = match &record.shape.asked {
        Asked::Request(id) => id.clone(),
        _ => return stopped(record, &unknown()).await,
    };
    let (agent, upstream) = (conn.agent_id(), &call.route().name);
    // A task is its agent's, at the upstream that it was begun at.
    let mine = |hold: &Hold| hold.about.agent == *agent && *hold.about.upstream == **upstream;
    let found = match gw.gate.find(hold).await {
        Ok(found) => found.filter(mine),
        Err(stop) => return stopped(record, &stop).await,
    };
    let Some(found) = found else { return stopped(record, &unknown()).await };
    match verb {
        TaskVerb::Get if found.state == HoldState::Approved => {
            execute(gw, generation, (conn, gone), record, (call, found), id).await
        }
        TaskVerb::Get => {
            let status = status(gw, &found).await;
            told(record, answer::task(&id, &found.id, &status))
        }
        TaskVerb::Cancel => match gw.gate.withdraw(found.id, agent).await {
            Ok(()) => told(record, answer::done(&id)),
            Err(stop) => stopped(record, &stop).await,
        },
        TaskVerb::List | TaskVerb::Result | TaskVerb::Update => {
            let text = "this task waits for people and asks its client for nothing";
            let stop = Stop::new(Stage::Hold, StopKind::Malformed, "params", text);
            stopped(record, &stop).await
        }
    }
}

fn told(record: Record, response: Response<Bytes>) -> Response<Body> {
    let response = answer::marked(response, record.id());
    record.told(response.status().as_u16());
    own(response)
}

/// How a task stands, by its hold.
pub(super) async fn status(gw: &Gateway, hold: &Hold) -> TaskStatus {
    let stop = hold::told(hold);
    let now = gw.gate.now().await.unwrap_or_else(|_| std::time::SystemTime::now());
    let (state, result) = match hold.state {
        HoldState::Pending | HoldState::Approved | HoldState::Releasing => ("working", None),
        HoldState::Withdrawn => ("cancelled", None),
        HoldState::Executed => match gw.gate.result(hold).await {
            Some(message) => ended(&message),
            None => ("failed", None),
        },
        HoldState::Denied | HoldState::Expired | HoldState::Failed | HoldState::Indeterminate => {
            ("failed", None)
        }
    };
    TaskStatus {
        state,
        result,
        message: stop.public.clone(),
        stop,
        opened: hold.opened,
        changed: hold.changed,
        poll: POLL_EVERY,
        left: hold.expires.duration_since(now).unwrap_or_default(),
    }
}

/// What a JSON-RPC response makes of a task, with the member that tells it: a `result` is one even when it says `isError`.
fn ended(message: &str) -> (&'static str, Option<(&'static str, String)>) {
    let members = Members::read(message);
    let member =
        |key| members.as_ref().and_then(|members| members.get(key)).map(|value| value.get().to_owned());
    match (member("result"), member("error")) {
        (Some(result), None) => ("completed", Some(("result", result))),
        (_, Some(error)) => ("failed", Some(("error", error))),
        (None, None) => ("failed", None),
    }
}

/// Makes the call again from what was approved, releases it, and keeps what came of it.
async fn execute(
    gw: &Arc<Gateway>,
    generation: &Generation,
    (conn, gone): (&Arc<Conn>, Gone),
    mut record: Record,
    (poll, hold): (Box<Call>, Hold),
    id: String,
) -> Response<Body> {
    let prepared = again(gw, generation, conn, &poll, &hold, &id).await;
    let (call, subject) = match prepared {
        Ok(prepared) => prepared,
        Err(stop) => return stopped(record, &stop).await,
    };
    record.instead(&call);
    let (name, number) = (hold.id, record.id());
    let mut case = Case::resumed(gw, conn, gone.clone(), record, (call, hold, subject));
    let outcome = case.conclude().await;
    let Some(record) = case.record.take() else { return own(Response::new(Bytes::new())) };
    match outcome {
        Ok(Passed::Reply(reply, slot, judging)) => {
            let reply = replied(record, reply, slot, judging, &gone).await;
            if let Some(message) = message(reply).await {
                gw.gate.keep_result(&case.hold, &message).await;
            }
        }
        Ok(_) => drop(record),
        Err(stop) => record.stopped(&stop, 200).await,
    }
    let response = match gw.gate.find(name).await {
        Ok(Some(hold)) => answer::task(&id, &hold.id, &status(gw, &hold).await),
        Ok(None) | Err(_) => {
            let shape = Shape { protocol: Protocol::Mcp(Era::Modern), asked: Asked::Request(id) };
            answer::refusal(&unknown(), &shape, number)
        }
    };
    own(answer::marked(response, number))
}

/// The call as it was approved, read and understood from the very text that was.
async fn again(
    gw: &Gateway,
    generation: &Generation,
    conn: &Conn,
    poll: &Call,
    hold: &Hold,
    id: &str,
) -> Result<(Box<Call>, Subject), Box<Stop>> {
    let lost = |detail: String| {
        let text = "the held call cannot be read; nothing was sent";
        Stop::new(Stage::Hold, StopKind::Unavailable, "hold", text).operator(detail)
    };
    let text = gw.gate.text(hold).await.map_err(|error| lost(error.to_string()))?;
    let text = text.ok_or_else(|| lost("it has ended".to_owned()))?;
    let request = request(&text, poll, id).ok_or_else(|| lost("it cannot be made again".to_owned()))?;
    let today = OffsetDateTime::now_utc().date();
    let agent = identify::agent(&generation.directory, &gw.suspensions, conn, today)?;
    let mut shape = Shape::HTTP;
    match decode::call(&generation.decoder, agent, request, &mut shape).await? {
        Decoded::One(call) => {
            let digest = digest::sha256(text.as_bytes());
            Ok((call, Subject { text, digest }))
        }
        Decoded::Batch(_) => Err(lost("it is a batch".to_owned())),
    }
}

/// What is read of the text that was approved.
#[derive(serde::Deserialize)]
struct Kept<'t> {
    headers: Vec<(String, String)>,
    #[serde(borrow)]
    body: KeptBody<'t>,
}

#[derive(serde::Deserialize)]
struct KeptBody<'t> {
    #[serde(borrow)]
    json: &'t RawValue,
}

/// The request that the approved text is, to where the question about it came, under the question's id. A text with
/// headers that people were not shown cannot be made a request again.
fn request(text: &str, poll: &Call, id: &str) -> Option<Request<Inbound>> {
    let Kept { headers, body } = serde_json::from_str(text).ok()?;
    let rest = body.json.get().strip_prefix('{')?;
    let mut request = Request::new(Inbound::Whole(Bytes::from(format!("{{\"id\":{id},{rest}"))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = Uri::clone(&poll.head().uri);
    for (name, value) in headers {
        if name != HOST.as_str() {
            let name: HeaderName = name.parse().ok()?;
            request.headers_mut().append(name, HeaderValue::from_str(&value).ok()?);
        }
    }
    // The token was not sent on, so it is not in the text: the question itself must bring it.
    if let Some(token) = poll.head().headers.get(TASK_HEADER) {
        request.headers_mut().insert(TASK_HEADER, token.clone());
    }
    if let Some(host) = poll.head().headers.get(HOST) {
        request.headers_mut().insert(HOST, host.clone());
    }
    Some(request)
}

/// Whether a task could be made of what is approved: everything must be in the text.
pub(super) fn can_be_kept(text: &str) -> bool {
    serde_json::from_str::<Kept<'_>>(text).is_ok()
}

/// The JSON-RPC message of a reply, once the whole of it is there and on record.
async fn message(reply: Response<Body>) -> Option<String> {
    let events = reply.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let events = events.is_some_and(|kind| kind.starts_with("text/event-stream"));
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let body = Limited::new(reply.into_body(), RESULT_BYTES_MAX).collect().await.ok()?.to_bytes();
    let text = String::from_utf8(body.to_vec()).ok()?;
    if !events {
        return Some(text);
    }
    // The response is the last event, and ends the stream.
    let last = text.trim_end().rsplit("\n\n").next()?;
    let data = last.lines().filter_map(|line| line.strip_prefix("data:"));
    Some(data.map(str::trim_start).collect::<Vec<_>>().join("\n"))
}
