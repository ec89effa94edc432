//! A record as an event of the Open Cybersecurity Schema Framework, class API Activity (6003).

use serde_json::{Map, Value, json};

use super::nanos;

/// The version of the schema.
const VERSION: &str = "1.6.0";
/// Category Application Activity.
const CATEGORY: u64 = 6;
/// Class API Activity.
const CLASS: u64 = 6003;

/// The event; `None` for records that are about no call.
pub(super) fn event(record: &Value, leaf: &str) -> Option<Value> {
    let text =
        |pointer: &str| record.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = text("/type")?;
    if !matches!(kind, "intent" | "outcome" | "refused" | "held") {
        return None;
    }
    let activity = activity(record);
    let outcome = text("/decision/outcome").or(text("/status")).unwrap_or("unknown");
    let agent = text("/agent/id");
    let operation = text("/tool").or(text("/method")).or(text("/stage")).unwrap_or("unknown");
    let mut event = json!({
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "activity_id": activity,
        "type_uid": CLASS * 100 + activity,
        "severity_id": severity(record, kind),
        "time": i64::try_from(nanos(record) / 1_000_000).unwrap_or_default(),
        "message": format!("{kind} {outcome}"),
        "metadata": {
            "version": VERSION,
            "product": {"name": "Holdpoint", "vendor_name": "Holdpoint", "version": env!("CARGO_PKG_VERSION")},
            "uid": text("/id"),
            "sequence": record.get("seq"),
            "correlation_uid": text("/trace_id"),
            "event_code": kind,
            "original_time": text("/ts"),
        },
        // An actor is somebody even where nobody was recognised.
        "actor": {"user": {"uid": agent.unwrap_or("unknown"), "type": "System", "type_id": 3}, "app_name": agent},
        "api": {"operation": operation, "service": {"name": text("/upstream").unwrap_or("holdpoint")}},
        "src_endpoint": source(record),
        "status": outcome,
        "status_id": status(record, kind),
        "status_detail": text("/decision/reason").or(text("/reason")),
    });
    if let Some(members) = event.as_object_mut() {
        members.insert("unmapped".to_owned(), unmapped(record, leaf));
        without_null(members);
    }
    Some(event)
}

/// Create 1, Read 2, Update 3, Delete 4, Other 99, Unknown 0.
fn activity(record: &Value) -> u64 {
    let deletes = record.get("effects").and_then(Value::as_array);
    match record.get("class").and_then(Value::as_str) {
        Some(_) if deletes.is_some_and(|effects| effects.iter().any(|effect| effect == "delete")) => 4,
        Some("read") => 2,
        Some("write") => 3,
        Some("external") => 99,
        _ => 0,
    }
}

/// Informational 1, Low 2, Medium 3, High 4: what was refused or held, by its consequence.
fn severity(record: &Value, kind: &str) -> u64 {
    let consequence = record.get("consequence").and_then(Value::as_u64).unwrap_or(0);
    match kind {
        "refused" | "held" => (consequence + 1).clamp(2, 4),
        _ => 1,
    }
}

/// Unknown 0, Success 1, Failure 2.
fn status(record: &Value, kind: &str) -> u64 {
    match (kind, record.get("status").and_then(Value::as_str)) {
        ("refused" | "held", _) => 2,
        ("outcome", Some("executed")) => 1,
        ("outcome", Some("unknown")) => 0,
        ("outcome", _) => 2,
        _ => 0,
    }
}

/// Where the call came from: its address, else the gateway's own name for where.
fn source(record: &Value) -> Value {
    let peer = record.get("peer").and_then(Value::as_str).and_then(|peer| peer.parse().ok());
    match peer {
        Some(std::net::SocketAddr::V4(peer)) => json!({"ip": peer.ip().to_string(), "port": peer.port()}),
        Some(std::net::SocketAddr::V6(peer)) => json!({"ip": peer.ip().to_string(), "port": peer.port()}),
        None => json!({"name": "agent"}),
    }
}

/// What the schema has no place for. The hash ties the copy to the log.
fn unmapped(record: &Value, leaf: &str) -> Value {
    let mut members = Map::new();
    members.insert("leaf".to_owned(), Value::from(leaf));
    let names = [
        "class",
        "consequence",
        "effects",
        "labels",
        "findings",
        "destinations",
        "decision",
        "run",
        "intent",
        "folded",
    ];
    for name in names {
        if let Some(value) = record.get(name) {
            members.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(members)
}

/// Takes what is not known out, at every depth of objects.
fn without_null(members: &mut Map<String, Value>) {
    members.retain(|_, value| !value.is_null());
    members.values_mut().filter_map(Value::as_object_mut).for_each(without_null);
}
