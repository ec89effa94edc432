//! The fixtures as they are on the wire.

use rmcp::ErrorData;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A red pixel as PNG.
pub const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";
/// A WAV file without samples.
pub const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";

/// Reads a fixture as one of rmcp's types. A fixture that does not fit is the server's own fault.
pub fn typed<T: DeserializeOwned>(fixture: Value) -> Result<T, ErrorData> {
    serde_json::from_value(fixture).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// Text as tool content.
pub fn text(text: impl Into<String>) -> Value {
    json!({"content": [{"type": "text", "text": text.into()}]})
}

/// A resource inside a message.
pub fn embedded(uri: &str, media: &str, text: &str) -> Value {
    json!({"type": "resource", "resource": {"uri": uri, "mimeType": media, "text": text}})
}

/// Tools that answer with one and the same content.
pub fn content(tool: &str) -> Option<Value> {
    let image = json!({"type": "image", "data": PNG, "mimeType": "image/png"});
    Some(match tool {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => json!({"content": [image]}),
        "test_audio_content" => json!({"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]}),
        "test_embedded_resource" => json!({"content": [
            embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."),
        ]}),
        "test_multiple_content_types" => json!({"content": [
            {"type": "text", "text": "Multiple content types test:"},
            image,
            embedded("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
        ]}),
        "test_error_handling" => json!({
            "content": [{"type": "text", "text": "This tool intentionally returns an error for testing"}],
            "isError": true,
        }),
        "json_schema_2020_12_tool" => text("valid"),
        _ => return None,
    })
}

fn tool(name: &str, description: &str, properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    json!({"name": name, "description": description, "inputSchema": schema})
}

const PLAIN: [(&str, &str); 29] = [
    ("test_simple_text", "Returns text"),
    ("test_image_content", "Returns an image"),
    ("test_audio_content", "Returns audio"),
    ("test_embedded_resource", "Returns a resource"),
    ("test_multiple_content_types", "Returns text, an image and a resource"),
    ("test_tool_with_logging", "Logs while it runs"),
    ("test_logging_tool", "Logs while it runs, if the request asks for logs"),
    ("test_error_handling", "Returns a tool error"),
    ("test_tool_with_progress", "Reports progress while it runs"),
    ("test_reconnection", "Takes a moment"),
    ("test_elicitation_sep1034_defaults", "Asks the user, with a default for every field"),
    ("test_elicitation_sep1330_enums", "Asks the user to choose, in each form of a choice"),
    ("test_missing_capability", "Needs a client that can sample"),
    ("test_streaming_elicitation", "Asks the user by way of its result"),
    ("test_trigger_tool_change", "Announces a change of the tools"),
    ("test_trigger_prompt_change", "Announces a change of the prompts"),
    ("test_input_required_result_elicitation", "Needs a name from the user"),
    ("test_input_required_result_sampling", "Needs a sample"),
    ("test_input_required_result_list_roots", "Needs the client's roots"),
    ("test_input_required_result_request_state", "Needs a confirmation, and its state back"),
    ("test_input_required_result_multiple_inputs", "Needs three things at once"),
    ("test_input_required_result_multi_round", "Needs two things, one after the other"),
    ("test_input_required_result_tampered_state", "Needs its state back as it was"),
    ("test_input_required_result_capabilities", "Needs whatever the client can give"),
    ("test_tool_with_task", "Needs a name, then runs as a task"),
    ("failing_job", "A task that ends with a tool error"),
    ("protocol_error_job", "A task that ends with a protocol error"),
    ("multi_input", "A task that needs two things at once"),
    ("test_write", "Says that it wrote; whether an agent may is for policy"),
];

/// Every tool.
pub fn tools() -> Value {
    let string = json!({"type": "string"});
    let mut tools: Vec<Value> =
        PLAIN.iter().map(|(name, description)| tool(name, description, json!({}), &[])).collect();
    tools.extend([
        tool("test_sampling", "Asks the client for a sample", json!({"prompt": string}), &["prompt"]),
        tool("test_elicitation", "Asks the user", json!({"message": string}), &["message"]),
        tool("greet", "Greets", json!({"name": string}), &["name"]),
        tool(
            "confirm_delete",
            "A task that asks before it deletes",
            json!({"filename": string}),
            &["filename"],
        ),
        tool(
            "slow_compute",
            "Takes some seconds, as a task where the client has tasks",
            json!({"seconds": {"type": "number"}, "label": string}),
            &["seconds"],
        ),
        tool(
            "test_slow",
            "Takes some seconds, and never as a task",
            json!({"seconds": {"type": "number"}, "label": string}),
            &["seconds"],
        ),
        tool(
            "test_header_mirror",
            "Has an argument that a header must repeat",
            json!({"region": {"type": "string", "x-mcp-header": "Region"}}),
            &["region"],
        ),
        json!({
            "name": "json_schema_2020_12_tool",
            "description": "Has a schema with what JSON Schema 2020-12 can say",
            "inputSchema": schema_2020_12(),
        }),
    ]);
    Value::Array(tools)
}

fn schema_2020_12() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }},
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false,
    })
}

/// The fields that an elicitation asks for: a message and a schema.
pub fn form(tool: &str) -> Option<Value> {
    let schema = |properties: Value| json!({"type": "object", "properties": properties});
    Some(match tool {
        "test_elicitation" => json!({
            "type": "object",
            "properties": {
                "username": {"type": "string", "description": "User's response"},
                "email": {"type": "string", "description": "User's email address"},
            },
            "required": ["username", "email"],
        }),
        "test_elicitation_sep1034_defaults" => schema(json!({
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": true},
        })),
        "test_elicitation_sep1330_enums" => schema(json!({
            "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
            "titledSingle": {"type": "string", "oneOf": [
                {"const": "value1", "title": "First Option"},
                {"const": "value2", "title": "Second Option"},
                {"const": "value3", "title": "Third Option"},
            ]},
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {
                "type": "array",
                "items": {"type": "string", "enum": ["option1", "option2", "option3"]},
            },
            "titledMulti": {"type": "array", "items": {"anyOf": [
                {"const": "value1", "title": "First Choice"},
                {"const": "value2", "title": "Second Choice"},
                {"const": "value3", "title": "Third Choice"},
            ]}},
        })),
        _ => return None,
    })
}

/// Every resource.
pub fn resources() -> Value {
    json!([
        {"uri": "test://static-text", "name": "text", "description": "A text", "mimeType": "text/plain"},
        {"uri": "test://static-binary", "name": "image", "description": "An image", "mimeType": "image/png"},
        {"uri": "test://watched-resource", "name": "watched", "description": "Can be watched", "mimeType": "text/plain"},
    ])
}

/// Every template of resources.
pub fn resource_templates() -> Value {
    json!([{
        "uriTemplate": "test://template/{id}/data", "name": "template",
        "description": "Data by id", "mimeType": "application/json",
    }])
}

/// What a resource holds; nothing where there is no such resource.
pub fn resource(uri: &str) -> Option<Value> {
    let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
    let contents = match (uri, id) {
        ("test://static-text", _) => json!({
            "uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource.",
        }),
        ("test://static-binary", _) => json!({"uri": uri, "mimeType": "image/png", "blob": PNG}),
        ("test://watched-resource", _) => json!({"uri": uri, "mimeType": "text/plain", "text": "watched"}),
        (_, Some(id)) => {
            let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            json!({"uri": uri, "mimeType": "application/json", "text": data.to_string()})
        }
        _ => return None,
    };
    Some(json!({"contents": [contents]}))
}

/// Every prompt.
pub fn prompts() -> Value {
    let argument = |name: &str| json!({"name": name, "description": "An argument", "required": true});
    json!([
        {"name": "test_simple_prompt", "description": "Has no arguments"},
        {"name": "test_prompt_with_arguments", "description": "Has two arguments",
            "arguments": [argument("arg1"), argument("arg2")]},
        {"name": "test_prompt_with_embedded_resource", "description": "Has a resource",
            "arguments": [argument("resourceUri")]},
        {"name": "test_prompt_with_image", "description": "Has an image"},
        {"name": "test_input_required_result_prompt", "description": "Needs a context from the user"},
    ])
}

/// The messages of a prompt; nothing where there is no such prompt.
pub fn prompt(name: &str, argument: impl Fn(&str) -> String) -> Option<Value> {
    let text = |text: &str| json!({"role": "user", "content": {"type": "text", "text": text}});
    let messages = match name {
        "test_simple_prompt" => json!([text("This is a simple prompt for testing.")]),
        "test_prompt_with_arguments" => {
            let (one, two) = (argument("arg1"), argument("arg2"));
            json!([text(&format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))])
        }
        "test_prompt_with_embedded_resource" => {
            let uri = argument("resourceUri");
            let resource = embedded(&uri, "text/plain", "Embedded resource content for testing.");
            json!([{"role": "user", "content": resource}, text("Please process the embedded resource above.")])
        }
        "test_prompt_with_image" => json!([
            {"role": "user", "content": {"type": "image", "data": PNG, "mimeType": "image/png"}},
            text("Please analyze the image above."),
        ]),
        _ => return None,
    };
    Some(json!({"messages": messages}))
}
