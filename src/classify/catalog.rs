//! The catalogue: what operators say of each tool and operation, compiled for looking up.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;

pub use super::reply::Reply;
use super::resource::{Pattern, is_fetched};
use super::sink::{Internal, SinkKind};
use super::template::{Template, Trie};
use super::view::Pointer;
use super::when::Condition;
use crate::call::{
    Class, Consequence, Drift, Effect, FactType, Integrity, ResourceKind, ResourceProfile, Returns, Shadow,
};
use crate::names::Names;

/// Every upstream with what its catalogue says.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub(super) internal: Internal,
    upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// The names of all catalogued tools, by what they look like.
    names: Arc<Names>,
}

/// The protocol of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamKind {
    /// A plain HTTP API.
    Http,
    /// An MCP server.
    Mcp,
}

/// What configuration says of an upstream, as far as classing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Its protocol.
    pub kind: UpstreamKind,
    /// Its environment; empty when not said.
    pub environment: Arc<str>,
    /// Its region; empty when not said.
    pub region: Arc<str>,
    /// Its data domain; empty when not said.
    pub data_domain: Arc<str>,
    /// Whether it is inside the organization's boundary.
    pub inside: bool,
    /// Whether its own texts are trusted.
    pub trusted: bool,
    /// Whether what no entry names is refused.
    pub strict: bool,
    /// What it may ask of agents.
    pub asks: Asks,
    /// Methods beyond those of MCP that agents may ask of it.
    pub methods: Vec<Arc<str>>,
    /// The shadow that it is in.
    pub shadow: Option<Shadow>,
}

/// What an MCP upstream may ask of agents, beside whether they are there (`ping`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// A user's answer: `elicitation/create`.
    pub elicitation: bool,
    /// The places that a client works in: `roots/list`.
    pub roots: bool,
    /// A completion by the agent's model: `sampling/createMessage`.
    pub sampling: bool,
}

impl Asks {
    /// What an upstream may ask when nothing is said: a trusted one everything, any other the agent's roots.
    pub fn usual(trusted: bool) -> Asks {
        Asks { elicitation: trusted, roots: true, sampling: trusted }
    }

    /// The words of the protocol's families: `elicitation`, `roots`, `sampling`.
    pub fn parse<'w>(words: impl IntoIterator<Item = &'w str>) -> Option<Asks> {
        let mut asks = Asks::default();
        for word in words {
            match word {
                "elicitation" => asks.elicitation = true,
                "roots" => asks.roots = true,
                "sampling" => asks.sampling = true,
                _ => return None,
            }
        }
        Some(asks)
    }

    /// Whether it may ask for all that the protocol has.
    pub fn everything(self) -> bool {
        self.elicitation && self.roots && self.sampling
    }

    /// Whether it may send a request of this method. What is not of the protocol it may not.
    pub fn allow(self, method: &str) -> bool {
        match method {
            "elicitation/create" => self.elicitation,
            "ping" => true,
            "roots/list" => self.roots,
            "sampling/createMessage" => self.sampling,
            // What became of an answer that it may ask for [MCP 2025-11-25, tasks].
            "tasks/cancel" | "tasks/get" | "tasks/list" | "tasks/result" => self.elicitation || self.sampling,
            _ => false,
        }
    }
}

/// One upstream, its profiles made once: policy remembers them by address.
#[derive(Clone, Debug)]
pub struct Upstream {
    config: UpstreamConfig,
    pub(super) itself: Arc<ResourceProfile>,
    pub(super) unlisted: Arc<ResourceProfile>,
    entries: HashMap<Arc<str>, Arc<Entry>, RandomState>,
    /// Entries for resources, those that say more first.
    resources: Vec<(Pattern, Arc<Entry>)>,
    pub(super) operations: Trie<Arc<Entry>>,
}

/// What the catalogue says of one tool or operation.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What policy sees of it.
    pub profile: Arc<ResourceProfile>,
    /// What it is for; empty when not said.
    pub description: String,
    /// Its effects, sorted.
    pub effects: Vec<Effect>,
    /// What is lifted out of its arguments.
    pub facts: Vec<Fact>,
    /// Where what it is given goes.
    pub sink: Option<Sink>,
    /// Conditions in order; the first that holds sets what it names.
    pub when: Vec<Condition>,
    /// What its reply brings.
    pub returns: Arc<Reply>,
    /// The texts of its arguments that a redacted record keeps, as JSON Pointers.
    pub kept: Vec<Arc<str>>,
    /// The longest life of a credential made for it.
    pub max_credential_ttl: Option<Duration>,
    /// The digest to which its definition is pinned: `sha256:` and 64 hexadecimal digits.
    pub pin: Option<Arc<str>>,
    /// The content types of the bodies it understands, in lower case; `None` for JSON and forms.
    pub content: Option<Vec<String>>,
    /// Whether its bodies are streamed unread.
    pub opaque: bool,
    /// What policy sees of it while its definition is not believed, by reason: each made once, and then the same `Arc`.
    drifted: [OnceLock<Arc<ResourceProfile>>; Drift::ALL.len()],
}

/// An entry before it is an upstream's own: everything but what the upstream adds.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The key: a tool's name, an MCP method, or `METHOD /path`.
    pub key: String,
    /// Its class.
    pub class: Class,
    /// Its consequence.
    pub consequence: Consequence,
    /// Whether what it does can be undone.
    pub reversible: bool,
    /// Whether doing it twice is doing it once.
    pub idempotent: bool,
    /// See [`Entry`].
    pub description: String,
    /// See [`Entry`].
    pub effects: Vec<Effect>,
    /// See [`Entry`].
    pub facts: Vec<Fact>,
    /// See [`Entry`].
    pub sink: Option<Sink>,
    /// See [`Entry`].
    pub when: Vec<Condition>,
    /// See [`Entry`].
    pub returns: Reply,
    /// See [`Entry`].
    pub kept: Vec<Arc<str>>,
    /// See [`Entry`].
    pub max_credential_ttl: Option<Duration>,
    /// See [`Entry`].
    pub pin: Option<Arc<str>>,
    /// See [`Entry`].
    pub content: Option<Vec<String>>,
    /// See [`Entry`].
    pub opaque: bool,
    /// The key, parsed, where the upstream speaks plain HTTP.
    pub template: Option<Template>,
}

/// A value that is lifted out of the arguments for policy.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its name in policy.
    pub name: Arc<str>,
    /// Where it is.
    pub at: Pointer,
    /// Its type, the same wherever the name is used.
    pub kind: FactType,
}

/// Where what an operation is given goes.
#[derive(Clone, Debug)]
pub struct Sink {
    /// How.
    pub kind: SinkKind,
    /// To whom.
    pub destinations: Vec<Pointer>,
    /// What.
    pub payload: Vec<Pointer>,
    /// What, by reference.
    pub refs: Vec<Pointer>,
}

// === impl Catalog ===

impl Catalog {
    /// A catalogue of these upstreams, where `internal` says what counts as inside.
    pub fn new(internal: Internal, upstreams: impl IntoIterator<Item = Upstream>) -> Catalog {
        let upstreams: BTreeMap<Arc<str>, Arc<Upstream>> = upstreams
            .into_iter()
            .map(|upstream| (upstream.config.name.clone(), Arc::new(upstream)))
            .collect();
        let mut names = Names::default();
        for upstream in upstreams.values() {
            for entry in upstream.entries().filter(|entry| entry.profile.kind == ResourceKind::Tool) {
                names.add(&upstream.config.name, &entry.profile.name);
            }
        }
        Catalog { internal, upstreams, names: Arc::new(names) }
    }

    /// The names of all catalogued tools, by what they look like.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// The upstream of a name.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// Every upstream, by name.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// What counts as inside.
    pub fn internal(&self) -> &Internal {
        &self.internal
    }

    /// The type of every fact: policy's schema is made from it.
    pub fn fact_types(&self) -> BTreeMap<Arc<str>, FactType> {
        let entries = self.upstreams().flat_map(|upstream| upstream.entries());
        entries.flat_map(|entry| &entry.facts).map(|fact| (fact.name.clone(), fact.kind)).collect()
    }
}

// === impl Upstream ===

impl Upstream {
    /// An upstream with its entries.
    pub fn new(config: UpstreamConfig, drafts: Vec<Draft>) -> Upstream {
        let base = ResourceProfile {
            kind: ResourceKind::Upstream,
            upstream: config.name.clone(),
            name: Arc::from(""),
            listed: true,
            class: Class::Read,
            consequence: Consequence::NONE,
            reversible: true,
            idempotent: true,
            integrity: Integrity::Trusted,
            environment: config.environment.clone(),
            region: config.region.clone(),
            data_domain: config.data_domain.clone(),
            inside: config.inside,
            trusted: config.trusted,
            pinned: false,
            drift: None,
        };
        let unlisted = ResourceProfile {
            kind: match config.kind {
                UpstreamKind::Http => ResourceKind::Operation,
                UpstreamKind::Mcp => ResourceKind::Tool,
            },
            name: Arc::from("*unlisted*"),
            listed: false,
            class: Class::External,
            consequence: Consequence::UNLISTED,
            reversible: false,
            idempotent: false,
            integrity: Returns::UNLISTED.integrity,
            ..base.clone()
        };
        let (mut entries, mut operations) = (HashMap::default(), Trie::default());
        let mut resources = Vec::new();
        for draft in drafts {
            let template = draft.template.clone();
            let method = config.methods.iter().any(|method| **method == draft.key);
            let entry = Arc::new(draft.entry(&base, method));
            if let (UpstreamKind::Mcp, Some(pattern)) = (config.kind, Pattern::of_key(&entry.profile.name)) {
                resources.push((pattern, Arc::clone(&entry)));
            }
            if let Some(template) = template {
                operations.put(&template, entry.clone());
            }
            entries.insert(entry.profile.name.clone(), entry);
        }
        resources.sort_by_key(|(pattern, _): &(Pattern, _)| std::cmp::Reverse(pattern.literal_bytes()));
        let (itself, unlisted) = (Arc::new(base), Arc::new(unlisted));
        Upstream { config, itself, unlisted, entries, resources, operations }
    }

    /// What configuration says of it.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// What policy sees of the upstream itself.
    pub fn profile(&self) -> &Arc<ResourceProfile> {
        &self.itself
    }

    /// Every entry, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// The entry of a tool; a catalogued MCP method is no tool, whatever a server calls its tools.
    pub fn tool(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.get(name).filter(|entry| entry.profile.kind == ResourceKind::Tool)
    }

    /// The entry of an MCP method that is no tool call.
    pub fn method(&self, name: &str) -> Option<&Arc<Entry>> {
        let entry = self.entries.get(name)?;
        (self.config.kind == UpstreamKind::Mcp && entry.profile.kind == ResourceKind::Operation)
            .then_some(entry)
    }

    /// The entry that speaks for a resource: the one whose pattern says most, else that of the method, unless the
    /// upstream fetches the resource from elsewhere.
    pub fn resource(&self, method: &str, uri: &str) -> Option<&Arc<Entry>> {
        let own = self.resources.iter().find(|(pattern, _)| pattern.fits(uri)).map(|(_, entry)| entry);
        own.or_else(|| self.method(method).filter(|_| !is_fetched(uri)))
    }

    /// What policy is asked about before an agent sees this item in a list; `None` for what no agent may use.
    pub fn listed(&self, list: &str, name: &str) -> Option<&Arc<ResourceProfile>> {
        let entry = match list {
            "tools" => self.tool(name),
            "prompts" => self.method("prompts/get"),
            "resources" | "resourceTemplates" => self.resource("resources/read", name),
            _ => return None,
        };
        match entry {
            Some(entry) => Some(&entry.profile),
            None => (!self.config.strict).then_some(&self.unlisted),
        }
    }

    /// Whether an HTTP operation's bodies are streamed unread. The path is canonical, still with its escapes.
    pub fn is_opaque(&self, method: &str, path: &str) -> bool {
        self.operations.find(method, path).is_some_and(|found| found.value.opaque)
    }

    /// What an HTTP request is called in names of spans: the catalogued operation, if one fits.
    pub fn operation(&self, method: &str, path: &str) -> Option<&Arc<Entry>> {
        self.operations.find(method, path).map(|found| found.value)
    }
}

/// Whether a catalogue key of an MCP upstream is a method of the protocol rather than a tool's name.
pub fn is_mcp_method(key: &str) -> bool {
    const FAMILIES: [&str; 8] =
        ["completion", "elicitation", "logging", "prompts", "resources", "roots", "sampling", "tasks"];
    key.split_once('/').is_some_and(|(family, _)| FAMILIES.contains(&family))
}

impl Draft {
    fn entry(self, upstream: &ResourceProfile, method: bool) -> Entry {
        let kind = match method || self.template.is_some() || is_mcp_method(&self.key) {
            true => ResourceKind::Operation,
            false => ResourceKind::Tool,
        };
        let profile = ResourceProfile {
            kind,
            name: Arc::from(self.key),
            class: self.class,
            consequence: self.consequence,
            reversible: self.reversible,
            idempotent: self.idempotent,
            integrity: self.returns.labels.integrity,
            pinned: self.pin.is_some(),
            ..upstream.clone()
        };
        Entry {
            profile: Arc::new(profile),
            description: self.description,
            effects: self.effects,
            facts: self.facts,
            sink: self.sink,
            when: self.when,
            returns: Arc::new(self.returns),
            kept: self.kept,
            max_credential_ttl: self.max_credential_ttl,
            pin: self.pin,
            content: self.content,
            opaque: self.opaque,
            drifted: Default::default(),
        }
    }
}

impl Entry {
    /// What policy sees of it while its definition is not believed: an unlisted tool, under its own name.
    pub fn drifted(&self, drift: Drift) -> Arc<ResourceProfile> {
        let make = || {
            Arc::new(ResourceProfile {
                listed: false,
                class: Class::External,
                consequence: self.profile.consequence.max(Consequence::UNLISTED),
                reversible: false,
                idempotent: false,
                integrity: self.profile.integrity.max(Returns::UNLISTED.integrity),
                drift: Some(drift),
                ..(*self.profile).clone()
            })
        };
        let slot = Drift::ALL.iter().position(|each| *each == drift).and_then(|at| self.drifted.get(at));
        slot.map_or_else(make, |slot| Arc::clone(slot.get_or_init(make)))
    }
}
