//! The headers that repeat a modern message, so that whoever routes by headers sees the same call
//! [MCP 2026-07-28, basic/transports/streamable-http].

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::message::Message;

/// The most tools whose headers are remembered.
const TOOLS_MAX: usize = 4096;
/// The most headers of one tool.
const HEADERS_MAX: usize = 64;
/// How deep an annotated property can lie.
const DEPTH_MAX: usize = 16;

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// A header that repeats one argument: its name, and the properties that lead to the argument.
type Mirrored = (HeaderName, Vec<String>);

/// Which arguments of which tools are repeated in headers, as lists of tools have said.
#[derive(Debug, Default)]
pub struct Annotated(HashMap<String, Vec<Mirrored>>);

impl Annotated {
    /// Learns from the result of `tools/list`.
    pub fn learn(&mut self, result: &Value) {
        for tool in result.get("tools").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            let mut found = Vec::new();
            if let Some(schema) = tool.get("inputSchema") {
                annotations(schema, &mut Vec::new(), &mut found);
            }
            if found.is_empty() {
                self.0.remove(name);
            } else if self.0.len() < TOOLS_MAX || self.0.contains_key(name) {
                self.0.insert(name.to_owned(), found);
            }
        }
    }

    /// Adds what repeats a message. One that is no modern request adds nothing.
    pub fn repeat(&self, message: &Message, headers: &mut HeaderMap) {
        let Some(version) = &message.modern else { return };
        put(headers, VERSION, version);
        if let Some(method) = &message.method {
            put(headers, METHOD, method);
        }
        let Some(name) = message.name() else { return };
        put(headers, NAME, name);
        if !message.is("tools/call") {
            return;
        }
        for (header, path) in self.0.get(name).into_iter().flatten() {
            let argument =
                path.iter().try_fold(message.params.get("arguments"), |at, key| Some(at?.get(key)));
            match argument.flatten() {
                Some(Value::String(text)) => put(headers, header.clone(), text),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                    put(headers, header.clone(), &value.to_string());
                }
                _ => {}
            }
        }
    }
}

/// Finds `x-mcp-header` along chains of `properties`.
fn annotations(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) {
    if let Some(name) = schema.get("x-mcp-header").and_then(Value::as_str)
        && let Ok(header) = HeaderName::try_from(format!("mcp-param-{name}"))
        && found.len() < HEADERS_MAX
    {
        found.push((header, path.clone()));
    }
    if path.len() >= DEPTH_MAX {
        return;
    }
    for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        path.push(key.clone());
        annotations(property, path, found);
        path.pop();
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(encoded(value)) {
        headers.insert(name, value);
    }
}

/// A value as a header can bear it: wrapped where it has other characters than visible ASCII, spaces at its ends, or the
/// wrapping's own form.
fn encoded(value: &str) -> String {
    let is_wrapped_already = value.starts_with("=?base64?") && value.ends_with("?=");
    let ends_in_space = value.starts_with(' ') || value.ends_with(' ');
    let plain = value.bytes().all(|b| matches!(b, b' '..=b'~')) && !ends_in_space && !is_wrapped_already;
    if plain { value.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::json;

    #[test]
    fn a_modern_call_is_repeated_in_headers_with_its_annotated_arguments() {
        let mut annotated = Annotated::default();
        annotated.learn(&json!({"tools": [{"name": "naïve", "inputSchema": {"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
            "dry": {"type": "boolean", "x-mcp-header": "Dry"},
            "bad": {"type": "string", "x-mcp-header": "not a token"},
            "absent": {"type": "string", "x-mcp-header": "Absent"},
        }}}]}));
        let message = |name: &str| {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name,
                "arguments": {"region": " eu", "deep": {"count": 9007199254740993_i64}, "dry": true, "absent": null},
                "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}});
            Message::read(Bytes::from(message.to_string())).unwrap()
        };
        let mut headers = HeaderMap::new();
        annotated.repeat(&message("naïve"), &mut headers);
        let expected = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "=?base64?bmHDr3Zl?="),
            ("mcp-param-region", "=?base64?IGV1?="),
            ("mcp-param-count", "9007199254740993"),
            ("mcp-param-dry", "true"),
        ];
        for (name, value) in expected {
            assert_eq!(headers[name], value);
        }
        assert_eq!(headers.len(), expected.len());

        let mut other = HeaderMap::new();
        annotated.repeat(&message("other"), &mut other);
        assert_eq!(other.len(), 3);
    }

    #[test]
    fn only_what_a_header_cannot_bear_is_wrapped() {
        for plain in ["a b", "", "tools/list", "=?base64?a"] {
            assert_eq!(encoded(plain), plain);
        }
        for odd in [" a", "a ", "\t", "é", "=?base64?YQ==?="] {
            assert!(encoded(odd).starts_with("=?base64?"), "{odd}");
        }
    }
}
