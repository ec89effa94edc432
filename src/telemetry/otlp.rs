//! Spans as OTLP protobuf, written straight into the bytes of an export: no tree of objects stands in between.
//!
//! The numbers are those of `opentelemetry/proto/{common,resource,trace}/v1` of OTLP 1.x.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::Value;
use opentelemetry_sdk::Resource;

use crate::call::TraceContext;

/// The fields of messages that are numbered alike, and their numbers in what holds them.
const REQUEST_RESOURCE_SPANS: u32 = 1;
const RESOURCE_SPANS_RESOURCE: u32 = 1;
const RESOURCE_SPANS_SCOPE_SPANS: u32 = 2;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SCOPE_SPANS_SCOPE: u32 = 1;
const SCOPE_SPANS_SPANS: u32 = 2;
const SCOPE_NAME: u32 = 1;
const SCOPE_VERSION: u32 = 2;
const SPAN_TRACE_ID: u32 = 1;
const SPAN_SPAN_ID: u32 = 2;
const SPAN_PARENT_SPAN_ID: u32 = 4;
const SPAN_NAME: u32 = 5;
const SPAN_KIND: u32 = 6;
const SPAN_START: u32 = 7;
const SPAN_END: u32 = 8;
const SPAN_ATTRIBUTES: u32 = 9;
const SPAN_EVENTS: u32 = 11;
const SPAN_LINKS: u32 = 13;
const SPAN_STATUS: u32 = 15;
const SPAN_FLAGS: u32 = 16;
const EVENT_TIME: u32 = 1;
const EVENT_NAME: u32 = 2;
const EVENT_ATTRIBUTES: u32 = 3;
const LINK_TRACE_ID: u32 = 1;
const LINK_SPAN_ID: u32 = 2;
const LINK_FLAGS: u32 = 6;
const STATUS_MESSAGE: u32 = 2;
const STATUS_CODE: u32 = 3;
const STATUS_ERROR: u64 = 2;
const KEY: u32 = 1;
const VALUE: u32 = 2;
const VALUE_STRING: u32 = 1;
const VALUE_INT: u32 = 3;
const VALUE_DOUBLE: u32 = 4;

/// Sampled, and whether the parent is remote is known [OTLP `SpanFlags`].
const FLAGS_LOCAL: u32 = 0x101;
/// The same, and it is remote.
const FLAGS_REMOTE: u32 = 0x301;

/// What a span is to its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Within this process.
    Internal = 1,
    /// It answers a call.
    Server = 2,
    /// It makes a call.
    Client = 3,
}

/// Spans on their way, as the bytes of `ScopeSpans.spans`.
#[derive(Debug, Default)]
pub(super) struct Batch {
    spans: Vec<u8>,
    /// The span being written, whose length must stand before it.
    span: Vec<u8>,
    count: usize,
}

impl Batch {
    /// How many spans there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Writes one more span: what [`Span::new`] takes, then whatever `write` adds.
    pub(super) fn span(
        &mut self,
        context: TraceContext,
        name: &str,
        kind: Kind,
        write: impl FnOnce(&mut Span<'_>),
    ) {
        self.span.clear();
        let mut span = Span(&mut self.span);
        bytes(span.0, SPAN_TRACE_ID, &context.trace_id);
        bytes(span.0, SPAN_SPAN_ID, &context.span_id);
        bytes(span.0, SPAN_NAME, name.as_bytes());
        number(span.0, SPAN_KIND, kind as u64);
        write(&mut span);
        bytes(&mut self.spans, SCOPE_SPANS_SPANS, &self.span);
        self.count += 1;
    }

    /// Takes the spans out as the body of one export.
    pub(super) fn take(&mut self, origin: &Origin) -> Vec<u8> {
        let scope_spans = origin.scope.len() + self.spans.len();
        let resource_spans = origin.resource.len() + message_len(RESOURCE_SPANS_SCOPE_SPANS, scope_spans);
        let mut body = Vec::with_capacity(message_len(REQUEST_RESOURCE_SPANS, resource_spans));
        length(&mut body, REQUEST_RESOURCE_SPANS, resource_spans);
        body.extend_from_slice(&origin.resource);
        length(&mut body, RESOURCE_SPANS_SCOPE_SPANS, scope_spans);
        body.extend_from_slice(&origin.scope);
        body.extend_from_slice(&self.spans);
        self.spans.clear();
        self.count = 0;
        body
    }
}

/// Who made the spans: written once.
#[derive(Debug)]
pub(super) struct Origin {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Origin {
    /// This program, as its resource describes it.
    pub(super) fn new(described: &Resource) -> Origin {
        let mut attributes = Vec::new();
        for (key, value) in described {
            match value {
                Value::I64(value) => integer(&mut attributes, RESOURCE_ATTRIBUTES, key.as_str(), *value),
                other => text(&mut attributes, RESOURCE_ATTRIBUTES, key.as_str(), &other.as_str()),
            }
        }
        let mut names = Vec::new();
        bytes(&mut names, SCOPE_NAME, b"holdpoint");
        bytes(&mut names, SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
        let mut origin = Origin { resource: Vec::new(), scope: Vec::new() };
        bytes(&mut origin.resource, RESOURCE_SPANS_RESOURCE, &attributes);
        bytes(&mut origin.scope, SCOPE_SPANS_SCOPE, &names);
        origin
    }
}

/// A span being written.
pub(super) struct Span<'a>(&'a mut Vec<u8>);

impl Span<'_> {
    /// Its parent, in this process or not.
    pub(super) fn parent(&mut self, span_id: &[u8; 8], remote: bool) {
        bytes(self.0, SPAN_PARENT_SPAN_ID, span_id);
        fixed32(self.0, SPAN_FLAGS, if remote { FLAGS_REMOTE } else { FLAGS_LOCAL });
    }

    /// That it has none.
    pub(super) fn root(&mut self) {
        fixed32(self.0, SPAN_FLAGS, FLAGS_LOCAL);
    }

    /// When it began and ended.
    pub(super) fn between(&mut self, start: SystemTime, end: SystemTime) {
        fixed64(self.0, SPAN_START, nanos(start));
        fixed64(self.0, SPAN_END, nanos(end));
    }

    /// A span elsewhere that belongs to it.
    pub(super) fn link(&mut self, context: TraceContext) {
        let mut link = Vec::with_capacity(40);
        bytes(&mut link, LINK_TRACE_ID, &context.trace_id);
        bytes(&mut link, LINK_SPAN_ID, &context.span_id);
        fixed32(&mut link, LINK_FLAGS, FLAGS_REMOTE);
        bytes(self.0, SPAN_LINKS, &link);
    }

    /// Something that happened within it, and how many seconds it took.
    pub(super) fn event(&mut self, name: &str, at: SystemTime, key: &str, seconds: f64) {
        let mut event = Vec::with_capacity(64);
        fixed64(&mut event, EVENT_TIME, nanos(at));
        bytes(&mut event, EVENT_NAME, name.as_bytes());
        double(&mut event, EVENT_ATTRIBUTES, key, seconds);
        bytes(self.0, SPAN_EVENTS, &event);
    }

    /// That it failed.
    pub(super) fn error(&mut self, message: &str) {
        let mut status = Vec::with_capacity(message.len() + 8);
        bytes(&mut status, STATUS_MESSAGE, message.as_bytes());
        number(&mut status, STATUS_CODE, STATUS_ERROR);
        bytes(self.0, SPAN_STATUS, &status);
    }

    /// An attribute.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        text(self.0, SPAN_ATTRIBUTES, key, value);
    }

    /// An attribute.
    pub(super) fn integer(&mut self, key: &str, value: i64) {
        integer(self.0, SPAN_ATTRIBUTES, key, value);
    }
}

fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

// === protobuf ===

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

fn varint(into: &mut Vec<u8>, value: u64) {
    match u8::try_from(value) {
        // Nearly every tag and length is one byte.
        Ok(byte @ 0..0x80) => into.push(byte),
        _ => prost::encoding::encode_varint(value, into),
    }
}

fn tag(into: &mut Vec<u8>, field: u32, wire: u32) {
    varint(into, u64::from(field << 3 | wire));
}

fn length(into: &mut Vec<u8>, field: u32, length: usize) {
    tag(into, field, LENGTH);
    varint(into, length as u64);
}

/// The size of a field that is a message of so many bytes.
fn message_len(field: u32, length: usize) -> usize {
    prost::encoding::key_len(field) + prost::encoding::encoded_len_varint(length as u64) + length
}

fn bytes(into: &mut Vec<u8>, field: u32, value: &[u8]) {
    length(into, field, value.len());
    into.extend_from_slice(value);
}

fn number(into: &mut Vec<u8>, field: u32, value: u64) {
    tag(into, field, VARINT);
    varint(into, value);
}

fn fixed32(into: &mut Vec<u8>, field: u32, value: u32) {
    tag(into, field, FIXED32);
    into.extend_from_slice(&value.to_le_bytes());
}

fn fixed64(into: &mut Vec<u8>, field: u32, value: u64) {
    tag(into, field, FIXED64);
    into.extend_from_slice(&value.to_le_bytes());
}

/// The beginning of a `KeyValue` whose `AnyValue` has so many bytes.
fn pair(into: &mut Vec<u8>, field: u32, key: &str, value_len: usize) {
    length(into, field, message_len(KEY, key.len()) + message_len(VALUE, value_len));
    bytes(into, KEY, key.as_bytes());
    length(into, VALUE, value_len);
}

fn text(into: &mut Vec<u8>, field: u32, key: &str, value: &str) {
    pair(into, field, key, message_len(VALUE_STRING, value.len()));
    bytes(into, VALUE_STRING, value.as_bytes());
}

fn integer(into: &mut Vec<u8>, field: u32, key: &str, value: i64) {
    // A negative number is its two's complement, in ten bytes.
    let value = value.cast_unsigned();
    pair(into, field, key, prost::encoding::key_len(VALUE_INT) + prost::encoding::encoded_len_varint(value));
    number(into, VALUE_INT, value);
}

fn double(into: &mut Vec<u8>, field: u32, key: &str, value: f64) {
    pair(into, field, key, prost::encoding::key_len(VALUE_DOUBLE) + 8);
    fixed64(into, VALUE_DOUBLE, value.to_bits());
}
