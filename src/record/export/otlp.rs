//! A record as OTLP logs in the JSON form of OTLP/HTTP, one request a line as the file exporter writes them.

use serde_json::{Value, json};

use super::nanos;

/// The severity INFO.
const INFO: u64 = 9;
/// The severity WARN.
const WARN: u64 = 13;

/// One record as a whole request. The hash of its line ties the copy to the log.
pub fn log(record: &Value, leaf: &str) -> Value {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = text("/type");
    let time = nanos(record).to_string();
    let attributes: Vec<Value> = [
        ("holdpoint.record.id", text("/id")),
        ("holdpoint.record.leaf", leaf),
        ("holdpoint.agent.id", text("/agent/id")),
        ("holdpoint.run.id", text("/run")),
        ("holdpoint.upstream", text("/upstream")),
        ("gen_ai.tool.name", text("/tool")),
        ("holdpoint.class", text("/class")),
        ("holdpoint.decision", text("/decision/outcome")),
        ("holdpoint.rule", text("/decision/rule")),
        ("holdpoint.status", text("/status")),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
    .collect();
    let refused = matches!(kind, "refused" | "held");
    let mut log = json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "eventName": format!("holdpoint.audit.{kind}"),
        "severityNumber": if refused { WARN } else { INFO },
        "severityText": if refused { "WARN" } else { "INFO" },
        // The record itself, as text: what a collector does to structure would end the tie to its hash.
        "body": {"stringValue": record.to_string()},
        "attributes": attributes,
    });
    if let (Some(log), trace) = (log.as_object_mut(), text("/trace_id"))
        && !trace.is_empty()
    {
        log.insert("traceId".to_owned(), Value::from(trace));
    }
    json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "holdpoint"}}]},
        "scopeLogs": [{
            "scope": {"name": "holdpoint.audit", "version": env!("CARGO_PKG_VERSION")},
            "logRecords": [log],
        }],
    }]})
}
