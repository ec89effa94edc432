//! What policy sees of a call: one value from which Cedar, the record and `policy explain` all work.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::{AgentId, Autonomy, Class, Consequence, Effect, Integrity};

/// A word of the gateway's own vocabulary, such as a label: known beforehand, or read from a record.
pub type Word = Cow<'static, str>;

/// One question to policy: may this agent do this to that, now?
///
/// Everything that a policy can look at is here, so that a recorded input is enough to ask again.
#[derive(Clone, Debug)]
pub struct PolicyInput {
    /// Who asks.
    pub agent: Arc<AgentProfile>,
    /// What they want to do.
    pub action: PolicyAction,
    /// To what.
    pub resource: Arc<ResourceProfile>,
    /// The class of this very call: the catalogue's `when` may have changed it from the tool's own.
    pub class: Class,
    /// The consequence of this very call.
    pub consequence: Consequence,
    /// The effects of this very call.
    pub effects: Vec<Effect>,
    /// Labels of the run, sorted.
    pub labels: Vec<Word>,
    /// Flow findings about this call, sorted.
    pub findings: Vec<Word>,
    /// By which profile of flow control the run is judged.
    pub profile: Profile,
    /// Calls of this run so far.
    pub calls: u64,
    /// The task, when an orchestrator named one.
    pub task: Option<Task>,
    /// Values that the catalogue lifts out of the arguments.
    pub facts: BTreeMap<Arc<str>, Lifted>,
    /// The tiers of this call's destinations (`internal`, `known`, `party`, `new`, `planted`), sorted.
    pub tiers: Vec<Word>,
    /// Whether there is at least one destination and every one is internal.
    pub destinations_internal: bool,
    /// The person or system on whose behalf the agent acts.
    pub on_behalf_of: Option<Arc<str>>,
    /// How the agent proved who it is.
    pub auth: Auth,
    /// When.
    pub now: SystemTime,
    /// From where.
    pub source_ip: IpAddr,
    /// People's approval of exactly this call; never present before a hold.
    pub approval: Option<Approval>,
    /// What break-glass lifts for this call.
    pub break_glass: Option<BreakGlass>,
}

/// How strictly findings of flow control are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// Evidence that data leaves, or that an outsider named a destination.
    #[default]
    Balanced,
    /// Also what only could be harmful. A run that has read a secret is judged so in any case.
    Strict,
}

impl Profile {
    /// The word in configuration, policy and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Balanced => "balanced",
            Profile::Strict => "strict",
        }
    }

    /// The profile that a word names.
    pub fn parse(word: &str) -> Option<Profile> {
        [Profile::Balanced, Profile::Strict].into_iter().find(|profile| profile.as_str() == word)
    }
}

/// The finding of a planted token that leaves: nothing puts it in shadow.
pub const CANARY: &str = "canary";

impl PolicyInput {
    /// Whether whatever policy says of this call is done, whoever is in shadow.
    pub fn is_enforced(&self) -> bool {
        self.consequence.is_enforced() || self.findings.iter().any(|finding| finding == CANARY)
    }
}

/// An agent as the registry knows it, with what is in force today.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentProfile {
    /// The verified id.
    pub id: AgentId,
    /// The accountable business owner, by e-mail; empty when there is none.
    pub owner: Arc<str>,
    /// Whether all three owners are named.
    pub owned: bool,
    /// The owning team.
    pub team: Arc<str>,
    /// Groups for policy and limits.
    pub groups: Vec<Arc<str>>,
    /// What the agent is for.
    pub purpose: Arc<str>,
    /// The autonomy in force: never more than registered, less without owners or review.
    pub autonomy: Autonomy,
    /// 0 to 4.
    pub risk: u8,
    /// Where the agent runs.
    pub region: Arc<str>,
    /// The vendor that manages the agent; `None` for our own.
    pub vendor: Option<Arc<str>>,
}

/// What kind of thing is acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    /// An operation of an HTTP API, or an MCP method that is no tool call.
    Operation,
    /// An MCP tool.
    Tool,
    /// The upstream itself: handshakes and lists.
    Upstream,
}

/// A tool or operation as catalogue and configuration know it.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceProfile {
    /// What kind of thing it is.
    pub kind: ResourceKind,
    /// The upstream's configured name.
    pub upstream: Arc<str>,
    /// The tool or operation: a catalogued name, or `*unlisted*`; empty for an upstream itself.
    pub name: Arc<str>,
    /// Whether the catalogue names it.
    pub listed: bool,
    /// The tool's own class, before `when`.
    pub class: Class,
    /// The tool's own consequence, before `when`.
    pub consequence: Consequence,
    /// Whether what it does can be undone.
    pub reversible: bool,
    /// Whether doing it twice is doing it once.
    pub idempotent: bool,
    /// Who may have written what it returns.
    pub integrity: Integrity,
    /// The upstream's environment (`production`, …); empty when not said.
    pub environment: Arc<str>,
    /// The upstream's region; empty when not said.
    pub region: Arc<str>,
    /// The upstream's data domain; empty when not said.
    pub data_domain: Arc<str>,
    /// Whether the upstream is inside the organization's boundary.
    pub inside: bool,
    /// Whether the upstream's own texts are trusted.
    pub trusted: bool,
    /// Whether the catalogue pins its definition.
    pub pinned: bool,
    /// Why its definition is not believed; then it is not listed.
    pub drift: Option<Drift>,
}

/// Why the definition of a tool is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drift {
    /// The upstream does not list the tool.
    Absent,
    /// It is another than the one that is pinned, or that was seen first.
    Changed,
    /// It has text that nobody sees.
    HiddenText,
    /// Its name could be taken for another.
    LooksAlike,
    /// The upstream lists the name more than once.
    Repeated,
    /// Nothing pins it, and it must be pinned.
    Unpinned,
    /// It can be read in two ways, or is too large.
    Unreadable,
    /// The upstream could not be listed yet.
    Unseen,
}

impl Drift {
    /// Every reason.
    pub const ALL: [Drift; 8] = [
        Drift::Absent,
        Drift::Changed,
        Drift::HiddenText,
        Drift::LooksAlike,
        Drift::Repeated,
        Drift::Unpinned,
        Drift::Unreadable,
        Drift::Unseen,
    ];

    /// The word used in records and policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Drift::Absent => "absent",
            Drift::Changed => "changed",
            Drift::HiddenText => "hidden-text",
            Drift::LooksAlike => "looks-alike",
            Drift::Repeated => "repeated",
            Drift::Unpinned => "unpinned",
            Drift::Unreadable => "unreadable",
            Drift::Unseen => "unseen",
        }
    }

    /// The reason that a word names.
    pub fn parse(word: &str) -> Option<Drift> {
        Drift::ALL.into_iter().find(|drift| drift.as_str() == word)
    }

    /// The same for operators, as the end of a sentence about the tool.
    pub fn told(self) -> &'static str {
        match self {
            Drift::Absent => "is not in the upstream's list of tools",
            Drift::Changed => "has another definition than the one that is pinned or was seen first",
            Drift::HiddenText => "has text in its definition that nobody sees",
            Drift::LooksAlike => "has a name that could be taken for another tool's",
            Drift::Repeated => "is more than once in the upstream's list of tools",
            Drift::Unpinned => "has no pin in the catalogue, and this upstream needs one",
            Drift::Unreadable => "has a definition that can be read in two ways or is too large",
            Drift::Unseen => "cannot be compared with its pin: the upstream could not be listed yet",
        }
    }
}

/// What is asked: the Cedar action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyAction {
    /// See that it exists: handshakes and lists.
    Discover,
    /// Invoke something that leaves.
    External,
    /// Invoke a read.
    Read,
    /// Invoke a write.
    Write,
}

impl PolicyAction {
    /// The Cedar action's name.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyAction::Discover => "discover",
            PolicyAction::External => "external",
            PolicyAction::Read => "read",
            PolicyAction::Write => "write",
        }
    }

    /// The action that invokes a call of this class.
    pub fn of(class: Class) -> PolicyAction {
        match class {
            Class::Read => PolicyAction::Read,
            Class::Write => PolicyAction::Write,
            Class::External => PolicyAction::External,
        }
    }
}

/// A value lifted out of the arguments by the catalogue, so that policy need not see raw model text.
#[derive(Clone, Debug, PartialEq)]
pub enum Lifted {
    /// True or false.
    Bool(bool),
    /// A decimal with up to four digits after the point, as Cedar's `decimal` takes it.
    Decimal(String),
    /// A whole number.
    Long(i64),
    /// A short identifier, at most 256 bytes.
    Text(String),
}

/// The type of a lifted value. A fact's name has one type across the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FactType {
    /// True or false.
    Bool,
    /// A decimal with up to four digits after the point.
    Decimal,
    /// A whole number.
    Long,
    /// A short identifier.
    Text,
}

impl FactType {
    /// The word used in the catalogue.
    pub fn as_str(self) -> &'static str {
        match self {
            FactType::Bool => "bool",
            FactType::Decimal => "decimal",
            FactType::Long => "long",
            FactType::Text => "text",
        }
    }

    /// The type of a value.
    pub fn of(value: &Lifted) -> FactType {
        match value {
            Lifted::Bool(_) => FactType::Bool,
            Lifted::Decimal(_) => FactType::Decimal,
            Lifted::Long(_) => FactType::Long,
            Lifted::Text(_) => FactType::Text,
        }
    }
}

/// A task, as an orchestrator named it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The gateway's id for it.
    pub id: Arc<str>,
    /// What it is for.
    pub purpose: Arc<str>,
    /// The upstreams that it needs, sorted.
    pub systems: Vec<Arc<str>>,
}

/// How the agent proved who it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// `mtls`.
    pub method: &'static str,
    /// Whether what it presented is bound to its connection.
    pub bound: bool,
    /// The certificate's serial number, in hexadecimal.
    pub instance: Arc<str>,
}

/// People's approval of exactly one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// The hold that was approved.
    pub id: Arc<str>,
    /// Whether the approved digest is this call's.
    pub digest_ok: bool,
    /// How many people approved.
    pub count: u32,
    /// The union of their roles, sorted.
    pub roles: Vec<Arc<str>>,
}

/// The emergency lifts ("break-glass") in force for one call, together. People granted each of them, for some minutes.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakGlass {
    /// The grants' ids, sorted.
    pub grants: Vec<Arc<str>>,
    /// Who granted them, sorted.
    pub by: Vec<Arc<str>>,
    /// When the first of them ends.
    pub until: SystemTime,
    /// The policies that they lift, by `@id`, sorted.
    pub rules: Vec<Arc<str>>,
}
