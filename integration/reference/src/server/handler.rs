//! What the server answers, method by method.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
    CompletionInfo, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, RequestStateCodec,
    RequestStateError, ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams,
    SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::task_manager::TaskManager;
use rmcp::{ErrorData, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::fixtures::{self, typed};
use crate::seen::Seen;
use crate::{ask, tools};

/// How many announcements a slow subscriber may lag behind.
const CHANGES_MAX: usize = 16;
/// Seals the states of a fixture: it protects nothing.
const STATE_KEY: &[u8; 32] = b"a fixture's key protects nothing";

/// What changed.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// The prompts.
    Prompts,
    /// The tools.
    Tools,
}

/// The server; clones share all of it.
#[derive(Clone)]
pub struct Reference {
    /// Running tasks.
    pub tasks: TaskManager,
    /// Announcements for those who listen.
    pub changes: broadcast::Sender<Change>,
    /// Seals what clients carry for the server.
    pub states: Arc<RequestStateCodec>,
    /// What was asked.
    pub seen: Arc<Seen>,
    tools: Arc<Vec<Tool>>,
}

impl Reference {
    /// A server that writes down what becomes of its tools.
    pub fn new(seen: Arc<Seen>) -> Result<Reference, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Reference {
            tasks: TaskManager::new(),
            changes: broadcast::Sender::new(CHANGES_MAX),
            states: Arc::new(codec()?),
            seen,
            tools: Arc::new(serde_json::from_value(fixtures::tools())?),
        })
    }
}

fn codec() -> Result<RequestStateCodec, RequestStateError> {
    RequestStateCodec::try_new(STATE_KEY.as_slice())
}

type Context = RequestContext<RoleServer>;

impl ServerHandler for Reference {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("holdpoint-reference", "0.1.0"))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        typed(json!({"resultType": "complete", "tools": *self.tools}))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        cx: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, call, cx).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        typed(json!({"resultType": "complete", "resources": fixtures::resources()}))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        typed(json!({"resultType": "complete", "resourceTemplates": fixtures::resource_templates()}))
    }

    async fn read_resource(
        &self,
        read: ReadResourceRequestParams,
        _: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let missing = || ErrorData::resource_not_found("Resource not found", Some(json!({"uri": read.uri})));
        let found = fixtures::resource(&read.uri).ok_or_else(missing)?;
        typed(complete(found)).map(ReadResourceResponse::Complete)
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, listener: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        loop {
            let change = tokio::select! {
                () = listener.cancelled() => return Ok(()),
                change = changes.recv() => change,
            };
            // What this listener did not ask for is refused by its sink.
            let _ = match change {
                Ok(Change::Prompts) => listener.sink().notify_prompt_list_changed().await,
                Ok(Change::Tools) => listener.sink().notify_tool_list_changed().await,
                Err(broadcast::error::RecvError::Lagged(_)) => Ok(()),
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            };
        }
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        typed(json!({"resultType": "complete", "prompts": fixtures::prompts()}))
    }

    async fn get_prompt(
        &self,
        get: GetPromptRequestParams,
        cx: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        if get.name == "test_input_required_result_prompt" {
            return ask::prompt(get, &cx);
        }
        let arguments = get.arguments.unwrap_or_default();
        let argument =
            |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let missing = || ErrorData::invalid_params(format!("no prompt `{}`", get.name), None);
        let found = fixtures::prompt(&get.name, argument).ok_or_else(missing)?;
        typed(complete(found)).map(GetPromptResponse::Complete)
    }

    async fn complete(&self, _: CompleteRequestParams, _: Context) -> Result<CompleteResult, ErrorData> {
        let values = ["paris", "park", "party"].map(str::to_owned).to_vec();
        let info = CompletionInfo::new(values).map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(info))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn get_task(&self, get: GetTaskParams, _: Context) -> Result<GetTaskResult, ErrorData> {
        self.tasks.get_task(&get.task_id).map(GetTaskResult::new)
    }

    async fn update_task(&self, update: UpdateTaskParams, _: Context) -> Result<(), ErrorData> {
        self.tasks.update_task(&update.task_id, update.input_responses)
    }

    async fn cancel_task(&self, cancel: CancelTaskParams, _: Context) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&cancel.task_id)
    }
}

/// Marks a result as the whole one, as 2026-07-28 asks; rmcp takes the mark away for older clients.
pub fn complete(mut result: Value) -> Value {
    result["resultType"] = json!("complete");
    result
}
