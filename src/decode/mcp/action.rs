//! What can be asked and told in MCP: a closed set.

use std::sync::Arc;

/// Everything that an agent can ask of, or tell, an MCP upstream. What is not here is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is the MCP method of that name; names and addresses are exactly as sent"
)]
pub enum McpAction {
    CallTool {
        name: Arc<str>,
    },
    Cancelled,
    Complete,
    Discover,
    /// DELETE: ends a legacy session.
    EndSession,
    GetPrompt {
        name: Arc<str>,
    },
    Initialize,
    Initialized,
    ListPrompts,
    ListResources,
    ListResourceTemplates,
    ListTools,
    Listen,
    /// A method that configuration adds to those of MCP.
    Other {
        method: Arc<str>,
    },
    /// GET: the stream of a session of the transport of 2024-11-05, on which everything is answered.
    OpenSession,
    /// GET: the standalone stream of a legacy session.
    OpenStream,
    Ping,
    Progress,
    ReadResource {
        uri: Arc<str>,
    },
    /// An answer to a request of the upstream.
    Reply {
        /// The method of that request.
        to: Arc<str>,
        empty_or_error: bool,
    },
    RootsChanged,
    SetLevel,
    Subscribe {
        uri: Arc<str>,
    },
    Task {
        verb: TaskVerb,
        id: Arc<str>,
        /// The tool that was called for it.
        tool: Arc<str>,
    },
    Unsubscribe {
        uri: Arc<str>,
    },
}

/// What is done with tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of that name below `tasks/`")]
pub enum TaskVerb {
    Cancel,
    Get,
    List,
    Result,
    Update,
}

impl McpAction {
    /// Whether it is the protocol's own: handshakes, lists, pings, notifications, and empty answers to the upstream.
    /// Everything else is a call that the catalogue must class.
    pub fn is_chatter(&self) -> bool {
        match self {
            McpAction::Cancelled
            | McpAction::Discover
            | McpAction::EndSession
            | McpAction::Initialize
            | McpAction::Initialized
            | McpAction::ListPrompts
            | McpAction::ListResources
            | McpAction::ListResourceTemplates
            | McpAction::ListTools
            | McpAction::Listen
            | McpAction::OpenSession
            | McpAction::OpenStream
            | McpAction::Ping
            | McpAction::Progress
            | McpAction::Reply { empty_or_error: true, .. }
            | McpAction::RootsChanged
            | McpAction::SetLevel
            | McpAction::Task { verb: TaskVerb::Cancel | TaskVerb::List, .. } => true,
            McpAction::CallTool { .. }
            | McpAction::Complete
            | McpAction::GetPrompt { .. }
            | McpAction::Other { .. }
            | McpAction::ReadResource { .. }
            | McpAction::Reply { empty_or_error: false, .. }
            | McpAction::Subscribe { .. }
            | McpAction::Task { .. }
            | McpAction::Unsubscribe { .. } => false,
        }
    }

    /// What `Mcp-Name` must repeat.
    pub(super) fn mirrored(&self) -> Option<&str> {
        match self {
            McpAction::CallTool { name } | McpAction::GetPrompt { name } => Some(name),
            McpAction::ReadResource { uri } => Some(uri),
            McpAction::Task { verb: TaskVerb::Cancel | TaskVerb::Get | TaskVerb::Update, id, .. } => Some(id),
            _ => None,
        }
    }
}
