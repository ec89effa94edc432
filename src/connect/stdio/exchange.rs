//! One message of the host's to the upstream, and what comes back of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::message::{self, Message, on_one_line};
use super::session::{RETRY, SESSION};
use super::{Bridge, INTERNAL_ERROR, locked};
use crate::decode::sse::{Event, Position, Scanner};

/// The largest reply, and the largest event of a stream.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// The largest body of a refusal.
const REFUSAL_BYTES_MAX: usize = 1 << 20;
/// How long the rest of a stream is read when every reply on it has come.
const REST_SECONDS_MAX: u64 = 5;
/// How often a stream is taken up again without anything coming on it.
const RESUMES_MAX: u32 = 5;

/// Why a request gets no reply of the upstream's: an error in JSON-RPC.
#[derive(Clone, Debug)]
pub struct NoReply {
    code: i64,
    /// What happened.
    pub message: String,
    data: Option<Value>,
}

impl NoReply {
    fn because(message: impl Into<String>) -> NoReply {
        NoReply { code: INTERNAL_ERROR, message: message.into(), data: None }
    }

    fn to(&self, id: &Value) -> Bytes {
        message::error(id, self.code, &self.message, self.data.clone())
    }
}

/// Where messages on their way to the host come from.
pub struct Passing<'m> {
    /// The host's message that they answer.
    about: Option<&'m Message>,
    /// The ids that still wait.
    waiting: Vec<Value>,
    /// Its flight.
    key: Option<u64>,
    /// The session that the reply's headers name.
    session: Option<HeaderValue>,
}

impl<'m> Passing<'m> {
    /// Messages on the session's own stream, where nothing is waited for.
    pub fn of_the_session() -> Passing<'m> {
        Passing { about: None, waiting: Vec::new(), key: None, session: None }
    }

    fn about(message: &'m Message, key: Option<u64>) -> Passing<'m> {
        Passing { about: Some(message), waiting: message.ids.clone(), key, session: None }
    }

    fn is_done(&self) -> bool {
        self.key.is_some() && self.waiting.is_empty()
    }
}

/// The members of a reply that tell what it answers.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Whether a response is a stream of events.
pub fn is_stream(response: &Response<Incoming>) -> bool {
    response.status().is_success() && media_type(response.headers()) == "text/event-stream"
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl Bridge {
    /// Sends a request of the host's and passes its replies on. Whoever still waits at the end is told why.
    pub async fn request(&self, key: u64, message: &Message) {
        let mut passing = Passing::about(message, Some(key));
        let ended = self.post(message, &mut passing).await;
        if !self.is_cancelled(key) {
            let why = ended
                .err()
                .unwrap_or_else(|| NoReply::because("the upstream ended its answer without a reply"));
            for id in &passing.waiting {
                self.say(why.to(id)).await;
            }
        }
        self.settle(key);
    }

    /// Sends a notification or a response of the host's; nobody waits, so what goes wrong goes to standard error.
    pub async fn told(self: &Arc<Self>, message: &Message) {
        let mut passing = Passing::about(message, None);
        match self.post(message, &mut passing).await {
            Ok(()) if message.is("notifications/initialized") && message.modern.is_none() => self.listen(),
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(method = message.method.as_deref(), error = %error.message, "not delivered");
            }
        }
    }

    async fn post(&self, message: &Message, passing: &mut Passing<'_>) -> Result<(), NoReply> {
        let response = self.exchange(Method::POST, Some(message), None).await?;
        passing.session = response.headers().get(SESSION).cloned();
        if !response.status().is_success() {
            return self.refused(response, passing).await;
        }
        if is_stream(&response) {
            return self.stream(response.into_body(), passing).await;
        }
        if media_type(response.headers()) != "application/json" {
            // Accepted, with nothing to say.
            return Ok(());
        }
        let body = whole(response.into_body(), REPLY_BYTES_MAX).await?;
        self.pass(&body, passing).await
    }

    /// Sends what a method and a message make: the body as it came, and the headers of its era.
    pub async fn exchange(
        &self,
        method: Method,
        message: Option<&Message>,
        last_id: Option<&str>,
    ) -> Result<Response<Incoming>, NoReply> {
        let body = message.map(|message| message.bytes.clone()).unwrap_or_default();
        let mut request = Request::new(Either::Right(Full::new(body)));
        let uri = self.gateway.place().uri("/mcp");
        *request.uri_mut() = uri.ok_or_else(|| NoReply::because("the gateway's address makes no URL"))?;
        let headers = request.headers_mut();
        let accept =
            if method == Method::GET { "text/event-stream" } else { "application/json, text/event-stream" };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(message) = message {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            locked(&self.annotated).repeat(message, headers);
        }
        if message.is_none_or(|message| message.modern.is_none()) {
            locked(&self.session).put(headers);
        }
        if let Some(id) = last_id.and_then(|id| HeaderValue::try_from(id).ok()) {
            headers.insert("last-event-id", id);
        }
        *request.method_mut() = method;
        self.gateway.send(request).await.map_err(|error| NoReply::because(error.to_string()))
    }

    /// An HTTP error: a JSON-RPC body is the answer, anything else is told in one.
    async fn refused(&self, response: Response<Incoming>, passing: &mut Passing<'_>) -> Result<(), NoReply> {
        let status = response.status();
        let is_legacy = passing.about.is_some_and(|about| about.modern.is_none());
        let lost = status.as_u16() == 404 && is_legacy && locked(&self.session).is_named();
        if lost {
            locked(&self.session).lose();
        }
        let body = whole(response.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if let Some(error) = body.get("error").filter(|_| body.get("jsonrpc").is_some()) {
            // One without our id would leave the host waiting, so the error is told under it.
            return Err(NoReply {
                code: error.get("code").and_then(Value::as_i64).unwrap_or(INTERNAL_ERROR),
                message: error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
                data: error.get("data").cloned(),
            });
        }
        let detail = body.get("detail").and_then(Value::as_str).unwrap_or("no further detail");
        let session = if lost { "; the session is lost: initialize again" } else { "" };
        let problem = if body.is_object() { body.clone() } else { Value::Null };
        Err(NoReply {
            code: INTERNAL_ERROR,
            message: format!("HTTP {status}: {detail}{session}"),
            data: Some(json!({"status": status.as_u16(), "problem": problem})),
        })
    }

    /// Passes a stream on, and takes it up again where a legacy upstream allows that.
    async fn stream(&self, body: Incoming, passing: &mut Passing<'_>) -> Result<(), NoReply> {
        let (mut body, mut position, mut idle) = (body, Position::default(), 0);
        loop {
            let events = self.events(body, &mut position, passing).await?;
            if passing.waiting.is_empty() {
                return Ok(());
            }
            idle = if events > 0 { 0 } else { idle + 1 };
            let is_modern = passing.about.is_some_and(|about| about.modern.is_some());
            let Some(last_id) = position.last_id.clone().filter(|_| !is_modern && idle < RESUMES_MAX) else {
                return Err(NoReply::because("the upstream's stream ended before the reply"));
            };
            tokio::time::sleep(position.retry.unwrap_or(RETRY)).await;
            let response = self.exchange(Method::GET, None, Some(&last_id)).await?;
            if !is_stream(&response) {
                return self.refused(response, passing).await;
            }
            body = response.into_body();
        }
    }

    /// Passes the messages of one stream on until it ends or breaks; gives how many events moved it on.
    pub async fn events(
        &self,
        mut body: Incoming,
        position: &mut Position,
        passing: &mut Passing<'_>,
    ) -> Result<usize, NoReply> {
        let (mut scanner, mut count) = (Scanner::resuming(REPLY_BYTES_MAX, position.clone()), 0);
        loop {
            let frame = if passing.is_done() {
                // What may still follow a reply is nobody's to wait for, but a stream that ends by itself ends well.
                let wait = Duration::from_secs(REST_SECONDS_MAX);
                match tokio::time::timeout(wait, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Ok(count),
                }
            } else {
                body.frame().await
            };
            // A stream that breaks is like one that ends: what matters is whether the reply has come.
            let Some(Ok(frame)) = frame else { return Ok(count) };
            let Ok(data) = frame.into_data() else { continue };
            let events = scanner.feed(&data);
            if scanner.opaque() {
                return Err(NoReply::because(format!("an event of more than {REPLY_BYTES_MAX} bytes")));
            }
            count += usize::from(position.last_id != scanner.position().last_id);
            position.clone_from(scanner.position());
            let is_message =
                |event: &&Event| matches!(&*event.kind, b"" | b"message") && !event.data.is_empty();
            for event in events.iter().filter(is_message) {
                count += 1;
                self.pass(&event.data, passing).await?;
            }
        }
    }

    /// Passes one message to the host, and learns from it what later messages need.
    async fn pass(&self, json: &[u8], passing: &mut Passing<'_>) -> Result<(), NoReply> {
        let line = on_one_line(json).ok_or_else(|| NoReply::because("the upstream's reply is not JSON"))?;
        let answers = match line.first() {
            Some(b'[') => serde_json::from_slice::<Vec<Answer>>(&line).unwrap_or_default(),
            _ => serde_json::from_slice::<Answer>(&line).into_iter().collect(),
        };
        for answer in answers {
            self.answered(&answer, passing);
        }
        self.say(line).await;
        if let (true, Some(key)) = (passing.is_done(), passing.key) {
            self.settle(key);
        }
        Ok(())
    }

    fn answered(&self, answer: &Answer<'_>, passing: &mut Passing<'_>) {
        if answer.result.is_none() && answer.error.is_none() {
            return;
        }
        let id: Option<Value> = answer.id.and_then(|id| serde_json::from_str(id.get()).ok());
        let Some(at) = id.and_then(|id| passing.waiting.iter().position(|waiting| *waiting == id)) else {
            return;
        };
        passing.waiting.swap_remove(at);
        let (Some(result), Some(about)) = (answer.result, passing.about) else { return };
        let learns = |method| {
            about.is(method).then(|| serde_json::from_str::<Value>(result.get()).unwrap_or_default())
        };
        if let Some(result) = learns("initialize") {
            locked(&self.session).opened(passing.session.take(), &result);
        }
        if let Some(result) = learns("tools/list") {
            locked(&self.annotated).learn(&result);
        }
    }
}

/// Reads a whole body within a bound.
async fn whole(mut body: Incoming, bytes_max: usize) -> Result<Bytes, NoReply> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NoReply::because(format!("the reply broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(NoReply::because(format!("a reply of more than {bytes_max} bytes")));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}
