//! Tools that run as tasks (extension io.modelcontextprotocol/tasks), or inline where they may and the client has none.

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, CreateTaskResult,
    InputRequest, JsonObject,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::task_manager::{TaskContext, TaskExit, TaskFuture, TaskOptions};
use serde_json::{Value, json};

use crate::ask::{field, required};
use crate::fixtures::{text, typed};
use crate::handler::{Reference, complete};
use crate::seen::Seen;
use crate::tools::done;

/// How often a client should ask for a task.
const POLL_MS: u64 = 100;
const JOB_TIME: Duration = Duration::from_secs(1);
/// Nothing here takes longer.
const COMPUTE_SECONDS_MAX: f64 = 600.0;

/// Whether a tool may become a task.
pub fn is_job(tool: &str) -> bool {
    const JOBS: [&str; 6] = [
        "confirm_delete",
        "failing_job",
        "multi_input",
        "protocol_error_job",
        "slow_compute",
        "test_tool_with_task",
    ];
    JOBS.contains(&tool)
}

/// Calls such a tool.
pub async fn call(
    server: &Reference,
    call: CallToolRequestParams,
    cx: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let arguments = call.arguments.unwrap_or_default();
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let has_tasks = cx.client_capabilities().is_some_and(|client| client.supports_tasks());
    if !has_tasks {
        return match &*call.name {
            "slow_compute" => inline(server, &arguments, &cx).await,
            _ => Err(ErrorData::missing_required_client_capability(
                ClientCapabilities::builder().enable_tasks().build(),
            )),
        };
    }
    let make: Box<dyn FnOnce(TaskContext) -> TaskFuture> = match &*call.name {
        "slow_compute" => {
            let (time, label, seen) = (seconds(&arguments), argument("label"), server.seen.clone());
            Box::new(move |task| Box::pin(compute(task, time, label, seen)))
        }
        "failing_job" => Box::new(|task| Box::pin(fail(task))),
        "protocol_error_job" => Box::new(|_| Box::pin(break_down())),
        "confirm_delete" => {
            let file = argument("filename");
            Box::new(move |task| Box::pin(confirm(task, file)))
        }
        "multi_input" => Box::new(|task| Box::pin(two_answers(task))),
        _ => {
            let answer = call.input_responses.unwrap_or_default();
            let name =
                answer.get("user_name").and_then(|answer| answer.get("content")?.get("name")?.as_str());
            let Some(name) = name.map(str::to_owned) else {
                let needed = json!({"user_name": field("What is your name?", "name", "string")});
                return required(needed, None).map(CallToolResponse::InputRequired);
            };
            Box::new(move |_| Box::pin(async move { finished(format!("Hello, {name}!")) }))
        }
    };
    let task = server.tasks.spawn(TaskOptions::new().with_poll_interval_ms(POLL_MS), make);
    Ok(CallToolResponse::Task(CreateTaskResult::new(task)))
}

fn seconds(arguments: &JsonObject) -> Duration {
    let seconds = arguments.get("seconds").and_then(Value::as_f64).unwrap_or_default();
    Duration::from_secs_f64(seconds.clamp(0.0, COMPUTE_SECONDS_MAX))
}

/// Computes within the call, until it is cancelled.
pub async fn inline(
    server: &Reference,
    arguments: &JsonObject,
    cx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let label = arguments.get("label").and_then(Value::as_str).unwrap_or_default();
    let mut running = Running { seen: &server.seen, label, finished: false };
    tokio::select! {
        () = cx.ct.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
        () = tokio::time::sleep(seconds(arguments)) => {
            running.finished = true;
            done(text(format!("computed {label}")))
        }
    }
}

/// Writes down how a computation ended, also when its future is dropped because the client left.
struct Running<'a> {
    seen: &'a Seen,
    label: &'a str,
    finished: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.seen.ended(if self.finished { "finished" } else { "cancelled" }, self.label);
    }
}

async fn compute(
    task: TaskContext,
    time: Duration,
    label: String,
    seen: std::sync::Arc<Seen>,
) -> Result<CallToolResult, TaskExit> {
    let mut running = Running { seen: &seen, label: &label, finished: false };
    tokio::select! {
        () = task.cancelled() => Err(TaskExit::Cancelled),
        () = tokio::time::sleep(time) => {
            running.finished = true;
            finished(format!("computed {label}"))
        }
    }
}

async fn fail(task: TaskContext) -> Result<CallToolResult, TaskExit> {
    tokio::select! {
        () = task.cancelled() => Err(TaskExit::Cancelled),
        () = tokio::time::sleep(JOB_TIME) => {
            Ok(typed(json!({"content": [{"type": "text", "text": "the job failed"}], "isError": true}))?)
        }
    }
}

async fn break_down() -> Result<CallToolResult, TaskExit> {
    Err(TaskExit::Error(ErrorData::internal_error("the job broke down", None)))
}

async fn confirm(task: TaskContext, file: String) -> Result<CallToolResult, TaskExit> {
    let asked: InputRequest = typed(field(&format!("Delete {file}?"), "confirm", "boolean"))?;
    let answer = task.request_input("confirm", asked).await?;
    let deleted = answer.get("action").and_then(Value::as_str) == Some("accept");
    finished(format!("{file} was {}", if deleted { "deleted" } else { "kept" }))
}

async fn two_answers(task: TaskContext) -> Result<CallToolResult, TaskExit> {
    let one: InputRequest = typed(field("First?", "value", "string"))?;
    let two: InputRequest = typed(field("Second?", "value", "string"))?;
    let (one, two) = tokio::join!(task.request_input("first", one), task.request_input("second", two));
    finished(format!("{} {}", one?, two?))
}

fn finished(words: String) -> Result<CallToolResult, TaskExit> {
    Ok(typed(complete(text(words)))?)
}
