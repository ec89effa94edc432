//! Tools and a prompt that answer with what they need from the client, and go on when it comes back (2026-07-28).

use rmcp::ErrorData;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, GetPromptRequestParams, GetPromptResponse, InputRequiredResult,
    InputResponses,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Map, Value, json};

use crate::fixtures::{text, typed};
use crate::handler::{Reference, complete};
use crate::tools::done;

const PREFIX: &str = "test_input_required_result_";

/// Whether a tool asks in its result.
pub fn asks(tool: &str) -> bool {
    tool.starts_with(PREFIX) || tool == "test_streaming_elicitation"
}

/// An elicitation of one field.
pub fn field(message: &str, name: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "properties": {name: {"type": kind}}, "required": [name]});
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}})
}

fn sample(prompt: &str, tokens_max: u32) -> Value {
    let message = json!({"role": "user", "content": {"type": "text", "text": prompt}});
    json!({"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": tokens_max}})
}

fn roots() -> Value {
    json!({"method": "roots/list", "params": {}})
}

/// What the client sent back, read leniently: what is missing or ill-formed is asked for again.
struct Answers(InputResponses);

impl Answers {
    fn field(&self, key: &str, name: &str) -> Option<&Value> {
        let answer = self.0.get(key)?;
        (answer.get("action")?.as_str()? == "accept").then(|| answer.get("content")?.get(name)).flatten()
    }

    fn text(&self, key: &str, name: &str) -> Option<&str> {
        self.field(key, name)?.as_str()
    }

    fn sample(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.get("content")?.get("text")?.as_str()
    }

    fn roots(&self, key: &str) -> Option<String> {
        let roots = self.0.get(key)?.get("roots")?.as_array()?;
        let uris: Option<Vec<&str>> = roots.iter().map(|root| root.get("uri")?.as_str()).collect();
        Some(uris?.join(", "))
    }
}

/// Calls a tool that asks.
pub fn call(
    server: &Reference,
    call: CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let state = call.request_state.as_deref().map(|state| opened(server, state)).transpose()?;
    let answers = Answers(call.input_responses.unwrap_or_default());
    let seal = |state: &str| Some(server.states.seal(state.as_bytes()));
    let confirm = json!({"confirm": field("Please confirm", "ok", "boolean")});
    match call.name.strip_prefix(PREFIX).unwrap_or("elicitation") {
        "sampling" => match answers.sample("capital_question") {
            Some(sample) => done(text(sample)),
            None => ask(json!({"capital_question": sample("What is the capital of France?", 100)}), None),
        },
        "list_roots" => match answers.roots("client_roots") {
            Some(roots) => done(text(format!("Roots: {roots}"))),
            None => ask(json!({"client_roots": roots()}), None),
        },
        "request_state" | "tampered_state" => match (answers.field("confirm", "ok"), state.as_deref()) {
            (Some(_), Some("confirm")) => done(text("state-ok")),
            _ => ask(confirm, seal("confirm")),
        },
        "multiple_inputs" => multiple(&answers, state.as_deref(), seal("inputs")),
        "multi_round" => {
            match (state.as_deref(), answers.text("step1", "name"), answers.text("step2", "color")) {
                (Some("step1"), Some(name), _) => ask(
                    json!({"step2": field("Step 2: What is your favorite color?", "color", "string")}),
                    seal(name),
                ),
                (Some(name), _, Some(color)) => done(text(format!("{name} likes {color}"))),
                _ => ask(
                    json!({"step1": field("Step 1: What is your name?", "name", "string")}),
                    seal("step1"),
                ),
            }
        }
        "capabilities" => whatever_the_client_can(cx),
        "elicitation" => match answers.text("user_name", "name") {
            Some(name) => done(text(format!("Hello, {name}!"))),
            None => ask(json!({"user_name": field("What is your name?", "name", "string")}), None),
        },
        _ => Err(ErrorData::invalid_params(format!("no tool `{}`", call.name), None)),
    }
}

fn opened(server: &Reference, state: &str) -> Result<String, ErrorData> {
    let refused = |reason: String| ErrorData::invalid_params(format!("requestState: {reason}"), None);
    let bytes = server.states.open(state).map_err(|error| refused(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| refused(error.to_string()))
}

fn multiple(
    answers: &Answers,
    state: Option<&str>,
    sealed: Option<String>,
) -> Result<CallToolResponse, ErrorData> {
    let all = (answers.text("user_name", "name"), answers.sample("greeting"), answers.roots("client_roots"));
    match (all, state) {
        ((Some(name), Some(greeting), Some(roots)), Some("inputs")) => {
            done(text(format!("{greeting}, {name}: {roots}")))
        }
        _ => ask(
            json!({
                "user_name": field("What is your name?", "name", "string"),
                "greeting": sample("Generate a greeting", 50),
                "client_roots": roots(),
            }),
            sealed,
        ),
    }
}

fn whatever_the_client_can(cx: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    let client = cx.client_capabilities().unwrap_or_default();
    let mut needed = Map::new();
    if client.elicitation.is_some() {
        needed.insert("name".into(), field("What is your name?", "name", "string"));
    }
    if client.sampling.is_some() {
        needed.insert("greeting".into(), sample("Generate a greeting", 50));
    }
    if client.roots.is_some() {
        needed.insert("roots".into(), roots());
    }
    if needed.is_empty() { done(text("the client can give nothing")) } else { ask(needed.into(), None) }
}

fn ask(requests: Value, state: Option<String>) -> Result<CallToolResponse, ErrorData> {
    required(requests, state).map(CallToolResponse::InputRequired)
}

/// The result that asks for these.
pub fn required(requests: Value, state: Option<String>) -> Result<InputRequiredResult, ErrorData> {
    Ok(InputRequiredResult::new(Some(typed(requests)?), state))
}

/// The prompt that asks.
pub fn prompt(
    get: GetPromptRequestParams,
    _: &RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    let answers = Answers(get.input_responses.unwrap_or_default());
    let Some(context) = answers.text("user_context", "context") else {
        let needed =
            json!({"user_context": field("What context should the prompt use?", "context", "string")});
        return required(needed, None).map(GetPromptResponse::InputRequired);
    };
    let message = json!({"role": "user", "content": {"type": "text", "text": format!("Context: {context}")}});
    typed(complete(json!({"messages": [message]}))).map(GetPromptResponse::Complete)
}
