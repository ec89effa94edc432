//! An MCP server that serves what it is told, and remembers which calls it got.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How it answers what is asked of its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// The whole list at once, in the legacy era.
    Usual,
    /// Three tools a page.
    Pages,
    /// Always one page more.
    Endless,
    /// Only the modern era.
    Modern,
    /// No list at all.
    Refuses,
}

#[derive(Default)]
pub struct State {
    pub tools: Vec<Value>,
    /// What agents are shown in place of `tools`, when that is something else.
    pub shown: Option<Vec<Value>>,
    pub manner: Option<Manner>,
    /// The names of the tools that were called.
    pub calls: Vec<String>,
    /// Pages that the gateway itself asked for.
    pub listed: usize,
    /// Whether the answer to the next call says first that the list has changed.
    pub says_changed: bool,
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

/// A tool with a description.
pub fn tool(name: &str, description: &str) -> Value {
    json!({"name": name, "description": description, "inputSchema": {"type": "object", "properties": {}}})
}

impl Server {
    pub async fn with(tools: Vec<Value>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { tools, ..State::default() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let io = TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        });
        Server { address, state, task }
    }

    pub fn manner(self, manner: Manner) -> Server {
        self.state.lock().unwrap().manner = Some(manner);
        self
    }

    /// Serves these tools from now on.
    pub fn serve(&self, tools: Vec<Value>) {
        self.state.lock().unwrap().tools = tools;
    }

    pub fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let reply = |status: u16, kind: &str, text: String| {
        Ok(Response::builder()
            .status(status)
            .header("content-type", kind)
            .body(Full::new(text.into()))
            .unwrap())
    };
    if head.method != Method::POST {
        return reply(200, "text/plain", String::new());
    }
    let body = Limited::new(body, 16 << 20).collect().await.unwrap().to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap();
    let own =
        head.headers.get("user-agent").is_some_and(|agent| agent.to_str().unwrap().starts_with("holdpoint/"));
    let Some(id) = message.get("id") else { return reply(202, "text/plain", String::new()) };
    let modern = message.pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion").is_some();
    let mut state = state.lock().unwrap();
    let manner = state.manner.unwrap_or(Manner::Usual);
    let error =
        |code: i64| json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "no"}}).to_string();
    let method = message["method"].as_str().unwrap_or_default();
    if manner == Manner::Modern && !modern && own {
        return reply(404, "application/json", error(-32601));
    }
    if manner == Manner::Refuses && own {
        return reply(500, "text/plain", "no".to_owned());
    }
    let result = match method {
        "initialize" => {
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}})
        }
        "tools/list" => {
            let shown = state.shown.clone().filter(|_| !own).unwrap_or_else(|| state.tools.clone());
            if own {
                state.listed += 1;
            }
            let from: usize = message
                .pointer("/params/cursor")
                .and_then(Value::as_str)
                .map_or(0, |text| text.parse().unwrap());
            let mut result = match manner {
                Manner::Endless => json!({"tools": [], "nextCursor": (from + 1).to_string()}),
                Manner::Pages => {
                    let page: Vec<Value> = shown.iter().skip(from).take(3).cloned().collect();
                    let mut result = json!({"tools": page});
                    if from + 3 < shown.len() {
                        result["nextCursor"] = json!((from + 3).to_string());
                    }
                    result
                }
                _ => json!({"tools": shown}),
            };
            if modern {
                result["resultType"] = json!("complete");
            }
            result
        }
        "tools/call" => {
            state.calls.push(message["params"]["name"].as_str().unwrap_or_default().to_owned());
            json!({"content": [{"type": "text", "text": "done"}]})
        }
        _ => return reply(200, "application/json", error(-32601)),
    };
    let text = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
    if method == "tools/call" && std::mem::take(&mut state.says_changed) {
        let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        let events = format!("event: message\ndata: {changed}\n\nevent: message\ndata: {text}\n\n");
        return reply(200, "text/event-stream", events);
    }
    reply(200, "application/json", text)
}
