//! What tools do.

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, CreateMessageRequestParams,
    ElicitRequestParams, JsonObject, LoggingLevel, LoggingMessageNotificationParam,
    ProgressNotificationParam, SamplingMessage,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};

use crate::fixtures::{self, text, typed};
use crate::handler::{Change, Reference, complete};
use crate::{ask, jobs};

/// Between two notifications of a tool, so that they arrive one by one.
const PAUSE: Duration = Duration::from_millis(50);
const SAMPLE_TOKENS_MAX: u32 = 100;

type Context = RequestContext<RoleServer>;

/// Calls a tool.
pub async fn call(
    server: &Reference,
    call: CallToolRequestParams,
    cx: Context,
) -> Result<CallToolResponse, ErrorData> {
    if let Some(content) = fixtures::content(&call.name) {
        return done(content);
    }
    if jobs::is_job(&call.name) {
        return jobs::call(server, call, cx).await;
    }
    if ask::asks(&call.name) {
        return ask::call(server, call, &cx);
    }
    let arguments = call.arguments.unwrap_or_default();
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    match &*call.name {
        "greet" => done(text(format!("Hello, {}!", argument("name")))),
        "test_write" => done(text("written")),
        "test_slow" => jobs::inline(server, &arguments, &cx).await,
        "test_header_mirror" => done(text(argument("region"))),
        "test_reconnection" => {
            tokio::time::sleep(PAUSE * 2).await;
            done(text("reconnected"))
        }
        "test_tool_with_logging" => logs(&cx).await,
        "test_logging_tool" if cx.meta.log_level().is_some() => logs(&cx).await,
        "test_logging_tool" => done(text("nobody asked for logs")),
        "test_tool_with_progress" => progress(&cx).await,
        "test_sampling" => sample(&cx, argument("prompt")).await,
        "test_missing_capability" => needs_sampling(&cx),
        "test_trigger_tool_change" => announce(server, Change::Tools),
        "test_trigger_prompt_change" => announce(server, Change::Prompts),
        name if fixtures::form(name).is_some() => elicit(&cx, name, &arguments).await,
        name => Err(ErrorData::invalid_params(format!("no tool `{name}`"), None)),
    }
}

/// A tool's whole result.
pub fn done(result: Value) -> Result<CallToolResponse, ErrorData> {
    typed(complete(result)).map(CallToolResponse::Complete)
}

async fn logs(cx: &Context) -> Result<CallToolResponse, ErrorData> {
    for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        let log = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(line));
        sent(cx.peer.notify_logging_message(log).await)?;
        tokio::time::sleep(PAUSE).await;
    }
    done(text("logged"))
}

async fn progress(cx: &Context) -> Result<CallToolResponse, ErrorData> {
    for percent in [0.0, 50.0, 100.0] {
        if let Some(token) = cx.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, percent).with_total(100.0);
            sent(cx.peer.notify_progress(progress).await)?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    done(text("progressed"))
}

async fn sample(cx: &Context, prompt: &str) -> Result<CallToolResponse, ErrorData> {
    let asked = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], SAMPLE_TOKENS_MAX);
    match cx.peer.create_message(asked).await {
        Ok(sample) => {
            let content = sample.message.content.first().and_then(|content| content.as_text());
            done(text(format!("LLM response: {}", content.map_or("", |content| &content.text))))
        }
        Err(error) => done(tool_error(&error.to_string())),
    }
}

async fn elicit(cx: &Context, tool: &str, arguments: &JsonObject) -> Result<CallToolResponse, ErrorData> {
    let message = arguments.get("message").and_then(Value::as_str).unwrap_or("Please answer").to_owned();
    let requested_schema = typed(fixtures::form(tool).unwrap_or_default())?;
    let asked = ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema };
    match cx.peer.create_elicitation(asked).await {
        Ok(answer) => {
            let action = json!(answer.action);
            let content = answer.content.unwrap_or_default();
            done(text(format!(
                "User response: action={}, content={content}",
                action.as_str().unwrap_or_default()
            )))
        }
        Err(error) => done(tool_error(&error.to_string())),
    }
}

fn needs_sampling(cx: &Context) -> Result<CallToolResponse, ErrorData> {
    if cx.client_capabilities().is_some_and(|client| client.sampling.is_some()) {
        return done(text("the client can sample"));
    }
    let needed = ClientCapabilities::builder().enable_sampling().build();
    Err(ErrorData::missing_required_client_capability(needed))
}

fn announce(server: &Reference, change: Change) -> Result<CallToolResponse, ErrorData> {
    // Nobody may be listening.
    let _ = server.changes.send(change);
    done(text(format!("announced {change:?}")))
}

fn tool_error(reason: &str) -> Value {
    json!({"content": [{"type": "text", "text": reason}], "isError": true})
}

/// A notification that cannot be sent ends the call: a client that has gone hears nothing anyway.
fn sent<E: std::fmt::Display>(result: Result<(), E>) -> Result<(), ErrorData> {
    result.map_err(|error| ErrorData::internal_error(error.to_string(), None))
}
