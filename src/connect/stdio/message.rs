//! One line from the host, read as far as sending it needs; its bytes go out as they came.

use bytes::Bytes;
use serde_json::Value;

/// The member of `_meta` that marks the modern era [MCP 2026-07-28, basic].
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// A message, or a batch of them.
#[derive(Clone, Debug)]
pub struct Message {
    /// The line, without its end.
    pub bytes: Bytes,
    /// The ids that a reply is owed to.
    pub ids: Vec<Value>,
    /// The method; none of a response or a batch.
    pub method: Option<String>,
    /// Its parameters.
    pub params: Value,
    /// The revision that a message of the modern era names.
    pub modern: Option<String>,
}

impl Message {
    /// Reads a line; an error says what is wrong with it.
    pub fn read(bytes: Bytes) -> Result<Message, String> {
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| format!("not JSON: {error}"))?;
        match value {
            Value::Array(batch) if !batch.is_empty() => {
                let ids = batch.iter().filter_map(owed).collect();
                Ok(Message { bytes, ids, method: None, params: Value::Null, modern: None })
            }
            Value::Object(_) => {
                let ids = owed(&value).into_iter().collect();
                let method = value.get("method").and_then(Value::as_str).map(str::to_owned);
                let params = value.get("params").cloned().unwrap_or_default();
                let modern = params.get("_meta").and_then(|meta| meta.get(META_VERSION));
                let modern = modern.and_then(Value::as_str).map(str::to_owned);
                Ok(Message { bytes, ids, method, params, modern })
            }
            _ => Err("neither an object nor a batch".to_owned()),
        }
    }

    /// Whether it is of this method.
    pub fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// Whether nobody owes it a reply, and it is no reply itself.
    pub fn is_notification(&self) -> bool {
        self.ids.is_empty() && self.method.is_some()
    }

    /// What `Mcp-Name` repeats [MCP 2026-07-28, basic/transports/streamable-http].
    pub fn name(&self) -> Option<&str> {
        let member = match self.method.as_deref()? {
            "tools/call" | "prompts/get" => "name",
            "resources/read" => "uri",
            "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
            _ => return None,
        };
        self.params.get(member)?.as_str()
    }

    /// The request that `notifications/cancelled` is about.
    pub fn cancels(&self) -> Option<&Value> {
        if self.is("notifications/cancelled") { self.params.get("requestId") } else { None }
    }
}

/// The id of a request.
fn owed(message: &Value) -> Option<Value> {
    message.get("method")?;
    message.get("id").filter(|id| !id.is_null()).cloned()
}

/// What a host is told when its request got no reply of the upstream's [JSON-RPC 2.0 §5.1].
pub fn error(id: &Value, code: i64, message: &str, data: Option<Value>) -> Bytes {
    let mut error = serde_json::json!({"code": code, "message": message});
    if let (Some(data), Some(members)) = (data, error.as_object_mut()) {
        members.insert("data".to_owned(), data);
    }
    Bytes::from(serde_json::json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
}

/// A text of JSON on one line: line breaks can stand between its tokens only, so spaces say the same.
///
/// `None` when it is no JSON, which must not reach a host that expects messages.
pub fn on_one_line(json: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(json).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let spaced = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    Some(json.iter().map(spaced).collect::<Vec<u8>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_its_era_its_name_and_whom_it_waits_for() {
        let read = |text: &'static str| Message::read(Bytes::from(text)).unwrap();
        let call = read(
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x",
            "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        assert_eq!((call.name(), call.modern.as_deref()), (Some("x"), Some("2026-07-28")));
        assert_eq!(call.ids, [Value::from("a")]);
        let reply = read(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        assert!(reply.ids.is_empty() && !reply.is_notification());
        let batch = read(r#"[{"id":1,"method":"a"},{"method":"b"},{"id":2,"method":"c"}]"#);
        assert_eq!(batch.ids.len(), 2);
        for wrong in ["", "1", "[]", "{", "\"a\""] {
            assert!(Message::read(Bytes::from(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_on_one_line_is_the_same_json_and_anything_else_is_none() {
        let text = "{\r\n \"a\" :\t\"b\\nc\",\n\"d\":1e400}\n";
        let line = on_one_line(text.as_bytes()).unwrap();
        assert_eq!(line, "{   \"a\" :\t\"b\\nc\", \"d\":1e400} ".as_bytes());
        for wrong in ["{\"a\":\"b\nc\"}", "ok", "{} {}", ""] {
            assert!(on_one_line(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
