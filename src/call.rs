//! The vocabulary of a call: plain values that every stage understands. No I/O, no async, no serde.

mod input;
mod person;
mod shadow;
mod stop;

pub use input::{
    AgentProfile, Approval, Auth, BreakGlass, CANARY, Drift, FactType, Lifted, PolicyAction, PolicyInput,
    Profile, ResourceKind, ResourceProfile, Task, Word,
};
pub use person::{Person, PersonAction};
pub use shadow::{Shade, Shadow, WouldBe};
pub use stop::{Limited, Stage, Stop, StopKind};

use std::fmt;
use std::sync::Arc;

/// What a call does to the world. Ordered by how strictly it is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Changes nothing and leaves nothing outside.
    Read,
    /// Changes state inside.
    Write,
    /// Reaches outside the organization, or is not known well enough to say otherwise.
    External,
}

impl Class {
    /// The word used in configuration, records, spans and policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Read => "read",
            Class::Write => "write",
            Class::External => "external",
        }
    }

    /// The class that a word names.
    pub fn parse(word: &str) -> Option<Class> {
        [Class::Read, Class::Write, Class::External].into_iter().find(|class| class.as_str() == word)
    }
}

/// How bad it would be if this call were wrong: 0 (nothing) to 4 (cannot be undone, reaches many). 3 and 4 are high.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Consequence(u8);

impl Consequence {
    /// What an operation that nobody described is held to.
    pub const UNLISTED: Consequence = Consequence(3);
    /// No consequence: handshakes and lists.
    pub const NONE: Consequence = Consequence(0);

    /// A consequence from 0 to 4; anything else is `None`.
    pub fn new(level: u8) -> Option<Consequence> {
        (level <= 4).then_some(Consequence(level))
    }

    /// Whether it is so high that nothing puts it in shadow.
    pub fn is_enforced(self) -> bool {
        self.0 >= 4
    }

    /// The level, 0 to 4.
    pub fn level(self) -> u8 {
        self.0
    }
}

/// A kind of effect that policy may treat on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Removes data.
    Delete,
    /// Changes what runs.
    Deploy,
    /// Gives somebody access.
    Grant,
    /// Reveals or creates a credential.
    Secret,
    /// Costs money.
    Spend,
}

impl Effect {
    /// Every effect.
    pub const ALL: [Effect; 5] =
        [Effect::Delete, Effect::Deploy, Effect::Grant, Effect::Secret, Effect::Spend];

    /// The word used in configuration, records and policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Delete => "delete",
            Effect::Deploy => "deploy",
            Effect::Grant => "grant",
            Effect::Secret => "secret",
            Effect::Spend => "spend",
        }
    }

    /// The effect that a word names.
    pub fn parse(word: &str) -> Option<Effect> {
        Effect::ALL.into_iter().find(|effect| effect.as_str() == word)
    }
}

/// How much an agent may do on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Autonomy {
    /// May read, nothing else.
    ReadOnly,
    /// May write; what is of high consequence waits for people.
    Constrained,
    /// May act within its task's scope.
    Delegated,
}

impl Autonomy {
    /// The word used in the registry, records and policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Autonomy::ReadOnly => "read-only",
            Autonomy::Constrained => "constrained",
            Autonomy::Delegated => "delegated",
        }
    }

    /// The autonomy that a word names.
    pub fn parse(word: &str) -> Option<Autonomy> {
        [Autonomy::ReadOnly, Autonomy::Constrained, Autonomy::Delegated]
            .into_iter()
            .find(|autonomy| autonomy.as_str() == word)
    }
}

/// How confidential what a reply carries is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidentiality {
    /// Anybody may know it.
    Public,
    /// The organization's own.
    Internal,
    /// Keys, passwords, codes.
    Secret,
}

/// Who may have written what a reply carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Integrity {
    /// Only the organization.
    Trusted,
    /// Outsiders can write its free text.
    Mixed,
    /// Outsiders wrote it.
    Untrusted,
}

/// What a reply will bring into the agent's run, by the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returns {
    /// How confidential the reply is.
    pub confidentiality: Confidentiality,
    /// Who may have written it.
    pub integrity: Integrity,
}

impl Returns {
    /// What an operation that no entry names is taken to return.
    pub const UNLISTED: Returns =
        Returns { confidentiality: Confidentiality::Internal, integrity: Integrity::Mixed };
    /// The gateway-level chatter of a protocol: handshakes and lists.
    pub const NOTHING: Returns =
        Returns { confidentiality: Confidentiality::Public, integrity: Integrity::Trusted };
}

/// Whether calls are sent to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerPhase {
    /// All are.
    Closed,
    /// None is, since it failed several times in a row.
    Open,
    /// One is, to try.
    Probing,
}

/// A verified SPIFFE ID in its normal form (lower-case trust domain).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// Wraps an id that [`crate::identify`] has parsed and normalised.
    pub fn from_normalised(id: &str) -> AgentId {
        AgentId(Arc::from(id))
    }

    /// The whole id: `spiffe://TRUST_DOMAIN/PATH`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain, without scheme and path.
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or(&self.0);
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one record, a UUID of version 7 [RFC 9562 §5.7]. It is on the reply, upstream, in the trace and in the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId(uuid::Uuid);

impl RecordId {
    /// A new id, ordered by time.
    pub fn new() -> RecordId {
        RecordId(uuid::Uuid::now_v7())
    }

    /// The id as a number.
    pub fn as_u128(&self) -> u128 {
        self.0.as_u128()
    }

    /// The id that a number is.
    pub fn from_u128(number: u128) -> RecordId {
        RecordId(uuid::Uuid::from_u128(number))
    }
}

impl Default for RecordId {
    fn default() -> RecordId {
        RecordId::new()
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which generation of MCP a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: `initialize`, sessions, GET streams.
    Legacy,
    /// 2026-07-28 and later: stateless, mirrored headers.
    Modern,
}

/// The protocol in which an answer must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// MCP over Streamable HTTP.
    Mcp(Era),
}

/// What an answer must fit, as far as decoding got.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The protocol in which to answer.
    pub protocol: Protocol,
    /// What is being answered.
    pub asked: Asked,
}

impl Shape {
    /// Plain HTTP: what every request is until its route is known.
    pub const HTTP: Shape = Shape { protocol: Protocol::Http, asked: Asked::Exchange };
}

/// What is being answered.
#[derive(Clone, Debug)]
pub enum Asked {
    /// An HTTP exchange without a JSON-RPC id: plain HTTP, a stream, the end of a session, an unreadable message.
    Exchange,
    /// A notification or a reply: nobody waits for an answer.
    Notification,
    /// A JSON-RPC request other than a tool call, with its id as it was written.
    Request(String),
    /// A tool call, with its id as it was written.
    ToolCall(String),
}

/// W3C trace context of a hop [W3C Trace Context §3.2].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// 16 bytes, not all zero.
    pub trace_id: [u8; 16],
    /// 8 bytes, not all zero.
    pub span_id: [u8; 8],
    /// The flags; bit 0 is "sampled".
    pub flags: u8,
}

impl TraceContext {
    /// Parses a `traceparent` of version 00; anything else is `None`.
    pub fn parse(header: &str) -> Option<TraceContext> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "00" || parts.next().is_some() || flags.len() != 2 {
            return None;
        }
        let context = TraceContext {
            trace_id: unhex(trace)?,
            span_id: unhex(span)?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (context.trace_id != [0; 16] && context.span_id != [0; 8]).then_some(context)
    }

    /// The `traceparent` header value of this context.
    pub fn to_traceparent(self) -> String {
        let mut text = Vec::with_capacity(55);
        text.extend_from_slice(b"00-");
        push_hex(&mut text, &self.trace_id);
        text.push(b'-');
        push_hex(&mut text, &self.span_id);
        text.push(b'-');
        push_hex(&mut text, &[self.flags]);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    String::from_utf8(text).unwrap_or_default()
}

/// Appends lower-case hexadecimal.
pub fn push_hex(into: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    into.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

/// Bytes of exactly `N` from lower-case hexadecimal.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    if text.len() != N * 2 || !text.as_bytes().iter().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}
