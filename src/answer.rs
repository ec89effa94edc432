//! Answer: the one place that turns an ending into bytes, in the shape that its protocol can bear.
//!
//! A legacy MCP client takes a bare 4xx or 5xx as the end of its whole session, so what policy, limits and people
//! say reaches it as a result or an error inside HTTP 200. Plain HTTP gets a problem [RFC 9457]. Both carry the same
//! decision object, and none says which evidence matched.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::call::{Asked, Era, Protocol, RecordId, Shape, Stop, StopKind};
use crate::decode::jsonrpc::Id;
use crate::decode::mcp::OWN_TASK_PREFIX;
use crate::record::RECORD_HEADER;
use crate::telemetry::hop::Outcome;
use crate::units;

/// The key of the decision object in results that the gateway makes.
pub const DECISION_META: &str = "dev.holdpoint/decision";
/// Our own JSON-RPC code for what may not be.
const DENIED: i32 = -31001;
/// Our own JSON-RPC code for what cannot be done just now.
const UNAVAILABLE: i32 = -31010;

/// The reason of a stop for a request about a task whose client does not declare [`TASKS`].
const TASKS_UNDECLARED: &str = "tasks-undeclared";
/// The extension of tasks.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// Renders a stop as the agent must see it.
pub fn refusal(stop: &Stop, shape: &Shape, record: RecordId) -> Response<Bytes> {
    let decision = decision(stop, record);
    let mut response = match (shape.protocol, &shape.asked) {
        (Protocol::Mcp(_), _) if before_mcp(stop.kind) => problem(stop, &decision),
        (Protocol::Mcp(_), Asked::Notification) => dropped(),
        (Protocol::Mcp(era), Asked::ToolCall(id)) if is_verdict(stop.kind) => {
            tool_result(stop, era, id, &decision)
        }
        (Protocol::Mcp(era), Asked::Request(id) | Asked::ToolCall(id)) => {
            rpc_error(stop, era, Some(id), &decision)
        }
        (Protocol::Mcp(era), Asked::Exchange) if is_message_fault(stop.kind) => {
            rpc_error(stop, era, None, &decision)
        }
        (Protocol::Mcp(_), Asked::Exchange) | (Protocol::Http, _) => problem(stop, &decision),
    };
    if stop.reason == "method-not-allowed" {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    marked(response, record)
}

/// The answer to a request of an upstream that the agent will not get, or may not answer.
pub fn declined(id: &Id) -> String {
    let error = json!({"code": DENIED, "message": "Denied. The agent's gateway does not let this request be answered."});
    json!({"jsonrpc": "2.0", "id": id.to_json(), "error": error}).to_string()
}

/// The answer to a request of a batch, by its id as it was written, when the upstream's has no message in it.
pub fn unanswered(id: &str) -> String {
    let error =
        json!({"code": UNAVAILABLE, "message": "The upstream gave no answer that could be passed on."});
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}")
}

/// What notifications and answers get: they were taken.
pub fn accepted() -> Response<Bytes> {
    dropped()
}

/// How a hold stands, for the agent whose call it is.
pub fn status_of(stop: &Stop, state: &str, record: RecordId) -> Response<Bytes> {
    let mut body = decision(stop, record);
    if let Some(members) = body.as_object_mut() {
        members.insert("state".to_owned(), json!(state));
    }
    let mut response = json_response(StatusCode::OK, "application/json", body.to_string());
    if state == "pending" {
        wait_headers(&mut response, stop);
    }
    marked(response, record)
}

/// The call waits, and its agent asked not to [RFC 7240 §4.1].
pub fn later(stop: &Stop, location: &str, record: RecordId) -> Response<Bytes> {
    let mut response = problem(stop, &decision(stop, record));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(LOCATION, location);
    }
    headers.insert(HeaderName::from_static("preference-applied"), HeaderValue::from_static("respond-async"));
    marked(response, record)
}

/// Asks a client of MCP 2026-07-28 to come back with the same call and this state; there is nothing to answer.
pub fn input_required(id: &str, state: &str, stop: &Stop, record: RecordId) -> Response<Bytes> {
    let result = json!({
        "resultType": "input_required",
        "requestState": state,
        "_meta": {DECISION_META: decision(stop, record)},
    });
    let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}");
    marked(json_response(StatusCode::OK, "application/json", text), record)
}

/// The head of a stream of events on which a waiting call is answered.
pub fn events_of(record: RecordId) -> Response<()> {
    let mut response = marked(events(), record);
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// How a task of the gateway's own stands.
pub struct TaskStatus {
    /// `working`, `completed`, `failed` or `cancelled`.
    pub state: &'static str,
    /// What it came to: `result` or `error`, and its JSON.
    pub result: Option<(&'static str, String)>,
    /// How it stands, for its reader.
    pub message: String,
    /// What it would be told by another protocol.
    pub stop: Box<Stop>,
    /// When it was begun.
    pub opened: SystemTime,
    /// When it changed last.
    pub changed: SystemTime,
    /// How long it is still known.
    pub left: Duration,
    /// How often it should be asked for.
    pub poll: Duration,
}

/// A call becomes a task [MCP 2026-07-28, extension io.modelcontextprotocol/tasks].
pub fn task_begun(id: &str, task: &RecordId, status: &TaskStatus) -> Response<Bytes> {
    task_result(id, "task", task, status)
}

/// How a task stands, with what it came to when it has ended.
pub fn task(id: &str, task: &RecordId, status: &TaskStatus) -> Response<Bytes> {
    task_result(id, "complete", task, status)
}

fn task_result(id: &str, kind: &str, task: &RecordId, status: &TaskStatus) -> Response<Bytes> {
    let moment = |at: SystemTime| units::moment(at.into(), 3).to_string();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut result = json!({
        "resultType": kind,
        "taskId": format!("{OWN_TASK_PREFIX}{task}"),
        "status": status.state,
        "statusMessage": status.message,
        "createdAt": moment(status.opened),
        "lastUpdatedAt": moment(status.changed),
        "ttlMs": millis(status.left),
        "pollIntervalMs": millis(status.poll),
    })
    .to_string();
    let ended = match &status.result {
        Some((member, json)) => Some((*member, json.clone())),
        None if status.state == "failed" => {
            Some(("error", json!({"code": code(&status.stop), "message": text(&status.stop)}).to_string()))
        }
        None => None,
    };
    if let Some((member, json)) = ended {
        // What the upstream said passes in its own bytes.
        result.truncate(result.len() - 1);
        result.push_str(&format!(",\"{member}\":{json}}}"));
    }
    json_response(
        StatusCode::OK,
        "application/json",
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}"),
    )
}

/// A request was carried out that gives nothing back.
pub fn done(id: &str) -> Response<Bytes> {
    let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\"}}}}");
    json_response(StatusCode::OK, "application/json", text)
}

/// An answer with the id of its record.
pub fn marked<B>(mut response: Response<B>, record: RecordId) -> Response<B> {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&record.to_string()) {
        headers.insert(RECORD_HEADER, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The head of a stream of events that the gateway puts together.
pub fn events() -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The word for an ending: the record's, but that an agent is told what a hold or a broken upstream means to it.
fn outcome(kind: StopKind) -> &'static str {
    match kind {
        StopKind::Held => Outcome::Pending.as_str(),
        StopKind::Settled => Outcome::Executed.as_str(),
        StopKind::UpstreamFailed => Outcome::Unavailable.as_str(),
        kind => Outcome::of(kind).as_str(),
    }
}

/// The HTTP status of an ending, where HTTP is what carries it.
fn status(stop: &Stop) -> StatusCode {
    match stop.kind {
        StopKind::Ambiguous | StopKind::HeaderMismatch | StopKind::Malformed | StopKind::TaskUnknown => {
            StatusCode::BAD_REQUEST
        }
        StopKind::Denied | StopKind::Expired | StopKind::Unidentified => StatusCode::FORBIDDEN,
        StopKind::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        StopKind::Settled => StatusCode::CONFLICT,
        StopKind::Held | StopKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        StopKind::Limited => StatusCode::TOO_MANY_REQUESTS,
        StopKind::NotFound if stop.reason == "method-not-allowed" => StatusCode::METHOD_NOT_ALLOWED,
        StopKind::MethodUnknown | StopKind::NotFound | StopKind::SessionUnknown => StatusCode::NOT_FOUND,
        StopKind::Oversize => StatusCode::PAYLOAD_TOO_LARGE,
        StopKind::UpstreamFailed if stop.reason == "upstream-timeout" => StatusCode::GATEWAY_TIMEOUT,
        StopKind::UpstreamFailed => StatusCode::BAD_GATEWAY,
    }
}

/// What the agent may know of a decision.
fn decision(stop: &Stop, record: RecordId) -> Value {
    let mut decision = json!({
        "outcome": outcome(stop.kind),
        "rule": &*stop.rule,
        "reason": stop.public,
        "record": record.to_string(),
    });
    if let Some(members) = decision.as_object_mut() {
        if let Some(hold) = &stop.hold {
            members.insert("hold".to_owned(), json!(&**hold));
        }
        if let Some(wait) = stop.retry_after {
            members.insert(
                "retry_after_ms".to_owned(),
                json!(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            );
        }
    }
    decision
}

/// Endings that come before MCP is reached: the transport's own statuses are the right ones.
fn before_mcp(kind: StopKind) -> bool {
    matches!(kind, StopKind::NotFound | StopKind::SessionUnknown | StopKind::Unidentified)
}

/// Endings that a model should read as the result of its tool call.
fn is_verdict(kind: StopKind) -> bool {
    matches!(
        kind,
        StopKind::Denied | StopKind::Expired | StopKind::Held | StopKind::Limited | StopKind::Settled
    )
}

/// Endings that are about the message itself, for which JSON-RPC has codes even without an id.
fn is_message_fault(kind: StopKind) -> bool {
    matches!(
        kind,
        StopKind::Ambiguous
            | StopKind::HeaderMismatch
            | StopKind::Malformed
            | StopKind::MethodUnknown
            | StopKind::Oversize
    )
}

fn dropped() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

fn tool_result(stop: &Stop, era: Era, id: &str, decision: &Value) -> Response<Bytes> {
    let mut result = json!({
        "content": [{"type": "text", "text": text(stop)}],
        "isError": true,
        "_meta": {DECISION_META: decision},
    });
    if let (Era::Modern, Some(members)) = (era, result.as_object_mut()) {
        members.insert("resultType".to_owned(), json!("complete"));
    }
    json_response(
        StatusCode::OK,
        "application/json",
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}"),
    )
}

fn rpc_error(stop: &Stop, era: Era, id: Option<&str>, decision: &Value) -> Response<Bytes> {
    let status = match (era, stop.kind) {
        (_, kind) if is_message_fault(kind) && kind != StopKind::MethodUnknown => status(stop),
        (Era::Legacy, _) => StatusCode::OK,
        (Era::Modern, _) => status(stop),
    };
    let mut data = json!({DECISION_META: decision});
    if let (true, Some(members)) = (stop.reason == TASKS_UNDECLARED, data.as_object_mut()) {
        // [MCP 2026-07-28, extension io.modelcontextprotocol/tasks]
        members.insert("requiredCapabilities".to_owned(), json!({"extensions": {TASKS: {}}}));
    }
    let error = json!({"code": code(stop), "message": text(stop), "data": data});
    let id = id.unwrap_or("null");
    let mut response = json_response(
        status,
        "application/json",
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}"),
    );
    if status != StatusCode::OK {
        wait_headers(&mut response, stop);
    }
    response
}

/// JSON-RPC codes: the specification's where it has one, our own outside its reserved range.
fn code(stop: &Stop) -> i32 {
    match stop.kind {
        StopKind::Ambiguous => -31004,
        StopKind::Denied if stop.reason == "denied-by-people" => -31003,
        StopKind::Denied | StopKind::NotFound | StopKind::SessionUnknown | StopKind::Unidentified => DENIED,
        StopKind::HeaderMismatch => -32020,
        StopKind::Expired | StopKind::Held | StopKind::Settled => -31003,
        StopKind::Limited => -31002,
        StopKind::Malformed if stop.reason == "meta-missing" => -32602,
        StopKind::Malformed if stop.reason == "params" => -32602,
        StopKind::Malformed if is_no_json(stop.reason) => -32700,
        StopKind::KeyReused | StopKind::Malformed | StopKind::Oversize => -32600,
        StopKind::MethodUnknown => -32601,
        StopKind::TaskUnknown if stop.reason == TASKS_UNDECLARED => -32021,
        StopKind::TaskUnknown => -32602,
        StopKind::Unavailable | StopKind::UpstreamFailed => UNAVAILABLE,
    }
}

/// Reasons of [`crate::json`] for a text that is no JSON at all, rather than more of it than is taken.
fn is_no_json(reason: &str) -> bool {
    matches!(reason, "empty" | "literal" | "number" | "string" | "syntax" | "trailing-data")
}

/// One sentence that says what happened and what to do; the model reads it.
fn text(stop: &Stop) -> String {
    let rule = if stop.rule.is_empty() { String::new() } else { format!(" (rule `{}`)", stop.rule) };
    match stop.kind {
        StopKind::Denied => format!("Denied{rule}. Not executed. {}", stop.public),
        StopKind::Held if stop.reason == "releasing" => stop.public.clone(),
        StopKind::Held => format!("Approval pending{rule}. Not executed. {}", stop.public),
        StopKind::Expired => format!("Expired{rule}. Not executed. {}", stop.public),
        StopKind::Limited => format!("Limited. Not executed. {}", stop.public),
        _ => stop.public.clone(),
    }
}

fn problem(stop: &Stop, decision: &Value) -> Response<Bytes> {
    let status = status(stop);
    let kind = if stop.kind == StopKind::Held { "hold-pending" } else { stop.reason };
    let body = json!({
        "type": format!("urn:holdpoint:problem:{kind}"),
        "title": title(stop.kind),
        "status": status.as_u16(),
        "detail": text(stop),
        DECISION_META: decision,
    });
    let mut response = json_response(status, "application/problem+json", body.to_string());
    wait_headers(&mut response, stop);
    response
}

fn title(kind: StopKind) -> &'static str {
    match kind {
        StopKind::Ambiguous => "Ambiguous request",
        StopKind::Denied => "Denied",
        StopKind::HeaderMismatch => "Header and body disagree",
        StopKind::Expired => "Approval expired",
        StopKind::Held => "Approval pending",
        StopKind::KeyReused => "Idempotency-Key reused",
        StopKind::Settled => "Decided before",
        StopKind::Limited => "Limited",
        StopKind::Malformed => "Malformed request",
        StopKind::MethodUnknown => "Unknown method",
        StopKind::NotFound => "Not found",
        StopKind::Oversize => "Too large",
        StopKind::SessionUnknown => "Unknown session",
        StopKind::TaskUnknown => "Unknown task",
        StopKind::Unavailable => "Unavailable",
        StopKind::Unidentified => "Agent not admitted",
        StopKind::UpstreamFailed => "Upstream failed",
    }
}

fn wait_headers(response: &mut Response<Bytes>, stop: &Stop) {
    let headers = response.headers_mut();
    if let Some(wait) = stop.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds_up(wait)));
        if let Some(limit) = &stop.limit {
            let policy = format!("\"{}\";q={};w={}", limit.name, limit.quota, seconds_up(limit.window));
            let left = format!("\"{}\";r=0;t={}", limit.name, seconds_up(wait));
            for (name, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
    }
}

/// Whole seconds, rounded up: an agent that waits as told is never too early.
fn seconds_up(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn json_response(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Stage;

    fn shape(era: Era, asked: Asked) -> Shape {
        Shape { protocol: Protocol::Mcp(era), asked }
    }

    fn body(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn a_denied_tool_call_is_a_result_that_the_model_reads() {
        let stop = Stop::new(Stage::Decide, StopKind::Denied, "policy", "Ask for a wider scope.");
        for era in [Era::Legacy, Era::Modern] {
            let id = RecordId::new();
            let response = refusal(&stop, &shape(era, Asked::ToolCall("\"a\"".to_owned())), id);
            assert_eq!(response.status(), StatusCode::OK);
            let body = body(&response);
            assert_eq!(body["id"], "a");
            assert_eq!(body["result"]["isError"], true);
            assert_eq!(body["result"]["_meta"][DECISION_META]["outcome"], "denied");
            assert_eq!(body["result"]["_meta"][DECISION_META]["record"], id.to_string());
            assert_eq!(body["result"].get("resultType").is_some(), era == Era::Modern);
            assert_eq!(response.headers()[RECORD_HEADER], id.to_string());
        }
    }

    #[test]
    fn other_requests_get_an_error_in_the_status_of_their_era() {
        let stop = Stop::new(Stage::Limit, StopKind::Limited, "rate", "later")
            .retry_after(Duration::from_millis(1500));
        let legacy = refusal(&stop, &shape(Era::Legacy, Asked::Request("7".to_owned())), RecordId::new());
        assert_eq!(
            (legacy.status(), body(&legacy)["error"]["code"].as_i64()),
            (StatusCode::OK, Some(-31002))
        );
        let modern = refusal(&stop, &shape(Era::Modern, Asked::Request("7".to_owned())), RecordId::new());
        assert_eq!(modern.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(modern.headers()[RETRY_AFTER], "2");
        let http = refusal(&stop.limited("agent", 5, Duration::from_secs(10)), &Shape::HTTP, RecordId::new());
        assert_eq!(http.headers()["ratelimit-policy"], "\"agent\";q=5;w=10");
        assert_eq!(http.headers()["ratelimit"], "\"agent\";r=0;t=2");
        assert_eq!(body(&http)[DECISION_META]["retry_after_ms"], 1500);
    }

    #[test]
    fn a_held_http_call_never_looks_done_and_a_notification_is_dropped() {
        let stop = Stop::new(Stage::Hold, StopKind::Held, "held", "Repeat the same call after approval.");
        let http = refusal(&stop, &Shape::HTTP, RecordId::new());
        assert_eq!(http.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body(&http)["type"], "urn:holdpoint:problem:hold-pending");
        let dropped = refusal(&stop, &shape(Era::Legacy, Asked::Notification), RecordId::new());
        assert_eq!((dropped.status(), dropped.body().len()), (StatusCode::ACCEPTED, 0));
    }

    #[test]
    fn what_cannot_be_read_gets_the_codes_of_json_rpc() {
        let cases = [
            (StopKind::Malformed, "syntax", -32700, 400),
            (StopKind::Malformed, "meta-missing", -32602, 400),
            (StopKind::Ambiguous, "duplicate-key", -31004, 400),
            (StopKind::HeaderMismatch, "header-mismatch", -32020, 400),
            (StopKind::MethodUnknown, "method", -32601, 404),
        ];
        for (kind, reason, code, status) in cases {
            let stop = Stop::new(Stage::Decode, kind, reason, "no");
            let response =
                refusal(&stop, &shape(Era::Modern, Asked::Request("1".to_owned())), RecordId::new());
            assert_eq!(
                (body(&response)["error"]["code"].as_i64(), response.status().as_u16()),
                (Some(code), status)
            );
        }
    }
}
