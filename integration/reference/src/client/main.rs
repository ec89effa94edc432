//! An agent on rmcp: reads a plan on stdin, writes what came of it on stdout, as the other agents in `clients/` do.

use std::error::Error;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
    ElicitRequestParams, ElicitResult, ElicitationAction, Implementation, ProgressNotificationParam,
    ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt, NotificationContext, PeerRequestOptions, RequestContext,
};
use rmcp::service::{RoleClient, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ErrorData};
use serde::Deserialize;
use serde_json::{Map, Value, json};

type Failure = Box<dyn Error + Send + Sync>;

/// What an agent does, in one session.
#[derive(Deserialize)]
struct Plan {
    url: String,
    /// `legacy`, or `auto` for 2026-07-28 where the server speaks it.
    mode: Option<String>,
    #[serde(flatten)]
    files: Option<Files>,
    steps: Vec<Step>,
}

/// The agent's certificate, its key, and whom it trusts, as PEM files.
#[derive(Deserialize)]
struct Files {
    ca: String,
    cert: String,
    key: String,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Step {
    Call(Call),
    List,
    Parallel { steps: Vec<Step> },
}

#[derive(Deserialize)]
struct Call {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    /// Whether to tell which progress was heard.
    #[serde(default)]
    progress: bool,
    /// In seconds.
    cancel_after: Option<f64>,
}

/// The host: it says yes to whatever a server asks of the user, and hears progress.
#[derive(Clone, Default)]
struct Host {
    progress: Arc<Mutex<Vec<f64>>>,
}

impl Host {
    fn heard(&self) -> Vec<f64> {
        std::mem::take(&mut *self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientHandler for Host {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::builder().enable_elicitation().build(),
            Implementation::new("rmcp", "1.0.0"),
        )
    }

    async fn create_elicitation(
        &self,
        asked: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let asked = json!(asked);
        let fields = asked["requestedSchema"]["required"].as_array().cloned().unwrap_or_default();
        let content: Map<String, Value> =
            fields.iter().filter_map(Value::as_str).map(|field| (field.to_owned(), json!("Ada"))).collect();
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content.into()))
    }

    async fn on_progress(&self, progress: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).push(progress.progress);
    }
}

type Client = RunningService<RoleClient, Host>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let plan: Plan = serde_json::from_str(&text)?;
    let transport = StreamableHttpClientTransport::with_client(
        http(plan.files.as_ref())?,
        StreamableHttpClientTransportConfig::with_uri(plan.url.as_str()),
    );
    let host = Host::default();
    let client = host.clone().serve_with_lifecycle(transport, lifecycle(plan.mode.as_deref())).await?;
    let initialize = client.peer_info().map(|info| json!(*info));
    let mut results = Vec::new();
    for each in &plan.steps {
        results.push(step(&client, &host, each).await);
    }
    println!("{}", json!({"initialize": initialize, "results": results}));
    client.cancel().await?;
    Ok(())
}

fn lifecycle(mode: Option<&str>) -> ClientLifecycleMode {
    match mode {
        Some("legacy") => ClientLifecycleMode::Initialize,
        _ => ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: None,
        },
    }
}

/// An HTTP client that presents the agent's certificate, if it has one.
fn http(files: Option<&Files>) -> Result<reqwest::Client, Failure> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider was already there")?;
    let Some(files) = files else {
        return Ok(reqwest::Client::builder().tls_certs_only([]).build()?);
    };
    let mut identity = std::fs::read(&files.cert)?;
    identity.extend(std::fs::read(&files.key)?);
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&files.ca)?)?;
    let builder = reqwest::Client::builder().tls_certs_only([authority]);
    Ok(builder.identity(reqwest::Identity::from_pem(&identity)?).build()?)
}

/// Does one step; an error is an answer too, because a refusal must not end the session.
fn step<'a>(client: &'a Client, host: &'a Host, what: &'a Step) -> BoxFuture<'a, Value> {
    async move {
        match what {
            Step::Parallel { steps } => {
                json!({"ok": join_all(steps.iter().map(|each| step(client, host, each))).await})
            }
            Step::List => told(client.list_tools(None).await.map(|list| json!(list))),
            Step::Call(call) => match call.cancel_after {
                Some(seconds) => told(cancelled(client, call, Duration::from_secs_f64(seconds)).await),
                None => called(client, host, call).await,
            },
        }
    }
    .boxed()
}

fn told(result: Result<Value, ServiceError>) -> Value {
    match result {
        Ok(result) => json!({"ok": result}),
        Err(error) => {
            let code = match &error {
                ServiceError::McpError(error) => Some(error.code.0),
                _ => None,
            };
            json!({"error": {"type": "ServiceError", "code": code, "message": error.to_string()}})
        }
    }
}

fn params(call: &Call) -> CallToolRequestParams {
    CallToolRequestParams::new(call.name.clone()).with_arguments(call.arguments.clone())
}

async fn called(client: &Client, host: &Host, call: &Call) -> Value {
    host.heard();
    let mut answer = told(client.call_tool(params(call)).await.map(|result| json!(result)));
    if call.progress {
        answer["progress"] = json!(host.heard());
    }
    answer
}

/// Calls a tool and cancels it after a while.
async fn cancelled(client: &Client, call: &Call, after: Duration) -> Result<Value, ServiceError> {
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params(call)));
    let handle = client.send_cancellable_request(request, PeerRequestOptions::no_options()).await?;
    tokio::time::sleep(after).await;
    handle.cancel(Some("no longer wanted".to_owned())).await?;
    Err(ServiceError::Cancelled { reason: Some("by the host".to_owned()) })
}
