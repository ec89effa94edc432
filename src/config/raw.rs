//! The configuration file exactly as written: the source of the JSON Schema, and of nothing else.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// The configuration of one gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Who runs this gateway, and what counts as inside.
    pub organization: Option<Organization>,
    /// The gateway's own identity, and whose certificates are believed.
    pub trust: Option<Trust>,
    /// Where the gateway listens.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// The registry of agents: a file or a directory.
    pub agents: Option<String>,
    /// The MCP servers and HTTP APIs behind the gateway.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// What a connection and a call may be at most.
    #[serde(default)]
    pub bounds: Bounds,
    /// Policies.
    pub policy: Option<Policy>,
    /// Rates and concurrency.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Flow control.
    #[serde(default)]
    pub flow: Flow,
    /// The audit.
    pub audit: Option<Audit>,
    /// The gateway's own keys.
    pub keys: Option<Keys>,
    /// Traces.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Who looks after agents: a file.
    pub people: Option<String>,
    /// Where the gateway keeps what must outlive it beside the audit.
    #[serde(default)]
    pub store: Store,
    /// How calls wait for people.
    #[serde(default)]
    pub holds: Holds,
    /// Who is told of held calls, beside the console.
    pub notify: Option<super::notify::Notify>,
    /// The identity provider by which people come to the admin listener, beside certificates.
    pub oidc: Option<Oidc>,
    /// Not supported yet.
    pub credentials: Option<Value>,
    /// Not supported yet.
    pub tasks: Option<Value>,
    /// Not supported yet.
    pub connect: Option<Value>,
    /// Not supported yet.
    pub egress: Option<Value>,
}

/// Who runs this gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// The organization's name.
    pub name: String,
    /// Addresses (`*@example.org`) and hosts (`*.example.org`) that are inside.
    #[serde(default)]
    pub internal: Vec<String>,
}

/// Identity and trust.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The gateway's certificate and key.
    pub identity: Option<Identity>,
    /// Trust domains by name.
    #[serde(default)]
    pub domains: BTreeMap<String, Domain>,
}

/// The gateway's certificate and key, PEM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Certificate chain, leaf first.
    pub cert: Option<String>,
    /// Private key.
    pub key: Option<String>,
    /// Not supported yet.
    pub workload_api: Option<Value>,
}

/// One trust domain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// The domain's root certificates, PEM.
    pub bundle: Option<String>,
    /// What certificates of this domain are for: `agents` (more later).
    #[serde(default)]
    pub roles: Vec<String>,
    /// Certificate revocation lists, PEM.
    pub crl: Option<String>,
    /// Not supported yet.
    pub bundle_endpoint: Option<Value>,
}

/// How calls wait for people.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Holds {
    /// How long a hold waits at most, whatever its policy says: `24h` when not given, and never longer.
    pub ttl: Option<String>,
    /// How many calls of one agent may wait at one time: 20 when not given.
    pub pending_max: Option<u32>,
    /// How long one request waits at most for people: `280s` when not given. `0s` answers at once that approval is pending.
    pub wait: Option<String>,
}

/// The identity provider of people [OpenID Connect Core 1.0].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The provider, exactly as it names itself: an https address.
    pub issuer: String,
    /// What the provider knows this gateway by.
    pub client_id: String,
    /// The file of the client's secret; without one the client is public.
    pub client_secret_file: Option<String>,
    /// The console's public origin, as in `https://holdpoint.example.org`; the provider sends people back to
    /// `/login/callback` below it.
    pub redirect: String,
    /// What is asked for; `[openid]` by default.
    pub scopes: Option<Vec<String>>,
    /// How a person must have been authenticated to decide: one of these values of `acr`. Any way by default.
    #[serde(default)]
    pub acr: Vec<String>,
    /// By which means: all of these values of `amr`. Any by default.
    #[serde(default)]
    pub amr: Vec<String>,
    /// How long ago a person who decides may have been authenticated; `15m` by default, `24h` at most.
    pub fresh: Option<String>,
    /// Root certificates of the provider, PEM; the system's by default.
    pub ca_file: Option<String>,
    /// What access tokens of programs must be made for; without it none is taken.
    pub audience: Option<String>,
}

/// One listening address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name in records.
    pub name: String,
    /// `agents`, `admin` and `tasks` (mTLS), or `health` (plain).
    pub kind: String,
    /// Address and port; for `admin` also `unix:///PATH`, a socket that root and the gateway's own user alone may use.
    pub address: String,
    /// For `admin`: such a socket beside the address, by its path.
    pub socket: Option<String>,
    /// For `agents`: the names by which agents may address it, besides those of its upstreams. By default any.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// One MCP server or HTTP API.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The first segment of the agents' path.
    pub name: String,
    /// `mcp` or `http`.
    pub kind: String,
    /// `http://` or `https://`; for `mcp` the endpoint itself. This or `stdio`.
    pub url: Option<String>,
    /// The catalogue file; without one everything is unlisted.
    pub catalog: Option<String>,
    /// A host name under which agents reach this upstream as well.
    pub host: Option<String>,
    /// `production`, `staging`, …
    pub environment: Option<String>,
    /// Where the data is.
    pub region: Option<String>,
    /// Whose data it is.
    pub data_domain: Option<String>,
    /// `inside` or `outside` (the default).
    pub boundary: Option<String>,
    /// Whether the upstream's own texts are believed; `false` by default.
    pub trusted: Option<bool>,
    /// What an MCP upstream may ask of agents: `elicitation`, `roots`, `sampling`. By default `[roots]`, and everything
    /// for a trusted one.
    pub may_ask: Option<Vec<String>>,
    /// Where an MCP server opens sessions of the transport of 2024-11-05 (HTTP with SSE), beside `url` or alone.
    pub sse: Option<String>,
    /// Methods beyond those of MCP that agents may ask of this upstream; each should have an entry in the catalogue.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Whether what the catalogue does not name is refused; `false` by default.
    pub strict: Option<bool>,
    /// TLS to the upstream.
    pub tls: Option<UpstreamTls>,
    /// How long a reply may take to begin; `30s` by default.
    pub timeout: Option<String>,
    /// When calls are refused at once because the upstream fails.
    pub breaker: Option<Breaker>,
    /// What becomes of the agent's own `Authorization`: `strip` (the default) or `pass`.
    pub authorization: Option<String>,
    /// A static credential that the agent never sees.
    pub credential: Option<StaticCredential>,
    /// An OpenAPI document of the upstream, from which `catalog discover` and `catalog diff` work.
    pub openapi: Option<String>,
    /// For `mcp`: how often the gateway lists the upstream's tools, beside its start and the upstream's own notices;
    /// `15m` by default, or `never`.
    pub list_every: Option<String>,
    /// For `mcp`: `required`, and a tool without a pin counts as unlisted. By default so where `strict`; elsewhere the
    /// definition that was seen first holds (`first-sight`).
    pub pins: Option<String>,
    /// Whether decisions bind, or what they would stop is let pass and shown.
    pub enforcement: Option<Enforcement>,
    /// For `mcp`, in place of `url`: a program that the gateway runs, and speaks to over its standard input and output.
    pub stdio: Option<Stdio>,
}

/// Shadow for a while, for all agents or for groups of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enforcement {
    /// `enforce` (the default without this section) or `shadow`.
    pub mode: String,
    /// The last day of shadow, as in 2026-12-20 (UTC), at most 30 days ahead; past it everything is enforced.
    pub until: Option<String>,
    /// Only for agents of these groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// When calls to an upstream that fails are refused at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Failures in a row that open it, 1000 at most; 5 by default, and 0 for no breaker.
    pub failures: Option<u32>,
    /// How long nothing is sent then, before one call at a time tries; `10s` by default, `1h` at most.
    pub open_for: Option<String>,
}

/// A program that is an MCP server on its standard input and output.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stdio {
    /// The program and its arguments. One without a slash is found in `PATH`, one with a slash relative to this file.
    #[serde(default)]
    pub command: Vec<String>,
    /// The user that runs it; by default the gateway's own, unless that is root. Anybody else needs a gateway of root.
    pub user: Option<String>,
    /// Its environment beside `PATH`, `HOME` and `LANG`: texts, or `${env:NAME}` and `${file:PATH}` for secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its working directory; `/` by default.
    pub directory: Option<String>,
    /// What each of its processes may use.
    #[serde(default)]
    pub limits: StdioLimits,
    /// Running at once; 64 by default.
    pub children_max: Option<usize>,
    /// Running at once for one agent; 8 by default.
    pub children_per_agent_max: Option<usize>,
    /// How long one stays that nobody uses; `10m` by default.
    pub idle_time_max: Option<String>,
}

/// What each process of a program may use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdioLimits {
    /// Writable private memory; `2GiB` by default.
    pub memory: Option<String>,
    /// Processes and threads of its user together; 256 by default where it runs as another user than the gateway.
    pub processes: Option<u64>,
    /// Open files; 1024 by default.
    pub files: Option<u64>,
    /// Seconds on a processor over its whole life; without end by default.
    pub cpu_seconds: Option<u64>,
}

/// TLS to an upstream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// Root certificates, PEM; the system's by default.
    pub bundle: Option<String>,
    /// The SPIFFE ID that the upstream must prove, instead of its host name.
    pub spiffe_id: Option<String>,
}

/// A credential read from a file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticCredential {
    /// The file that holds the secret; only its owner may read it.
    pub file: String,
    /// The header to set; `Authorization` by default.
    pub header: Option<String>,
    /// What stands before the secret; `Bearer ` by default for `Authorization`.
    pub prefix: Option<String>,
}

/// What a connection and a call may be at most.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// A body that is decided on; `4MiB` by default.
    pub body_bytes_max: Option<String>,
    /// A request's head; `64KiB` by default.
    pub headers_bytes_max: Option<String>,
    /// JSON nesting; 64 by default.
    pub json_depth_max: Option<usize>,
    /// Connections at once; 10000 by default.
    pub connections_max: Option<usize>,
    /// How long a body may take to arrive; `30s` by default.
    pub body_time_max: Option<String>,
}

/// Policies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// A directory of Cedar policies.
    pub cedar: Option<String>,
    /// Not supported yet.
    pub rego: Option<Value>,
}

/// One limit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What shares the limit: `certificate`, or one or several of `agent`, `tool`, `class`, `upstream`.
    pub per: OneOrMany,
    /// Only calls of this class.
    pub class: Option<String>,
    /// Calls per time, as in `50/s` or `10/1m`.
    pub rate: Option<String>,
    /// How many at once after a pause; the rate's count by default.
    pub burst: Option<u32>,
    /// How many may be under way.
    pub concurrency: Option<u32>,
}

/// A word or a list of words.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A single word.
    One(String),
    /// Several words.
    Many(Vec<String>),
}

/// Flow control.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// How long what a run has read is remembered; `30m` by default.
    pub window: Option<String>,
    /// How strictly findings are taken: `balanced` by default, or `strict`.
    pub profile: Option<String>,
    /// A file of sequences: steps that are harmless one by one.
    pub chains: Option<String>,
}

/// The audit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Where the records are.
    pub dir: String,
    /// What is kept of payloads: `digest` (the default), `redacted` (numbers, booleans and structure) or `sealed` (a copy
    /// that only the auditor's key opens).
    pub capture: Option<String>,
    /// How long records are kept, such as `400d`; for good when not said.
    pub retain: Option<String>,
    /// When segments are compressed into the archive; 30d when not said, 2d at least.
    pub archive_after: Option<String>,
    /// Below so much room on the disk writes and external calls are refused; without it, when the disk is full.
    pub free_bytes_min: Option<String>,
    /// Where signed checkpoints are published, beside the log.
    #[serde(default)]
    pub checkpoints: Vec<CheckpointPlace>,
}

/// Where signed checkpoints are published.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CheckpointPlace {
    /// `file`: beside the log. `otlp`: to the collector of traces, as log records.
    Word(String),
    /// A file elsewhere, a line each.
    File {
        /// Its path.
        file: String,
    },
    /// An address that each is posted to.
    Url {
        /// An https URL.
        url: String,
    },
}

/// What must outlive the gateway beside the audit: suspensions, first sights of tools, labels; and the index of records.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The database's file, made when absent; `holdpoint.db` beside the audit's directory by default. The index of
    /// records is in a file beside it.
    pub sqlite: Option<String>,
    /// Not supported yet.
    pub postgres: Option<Value>,
}

/// The gateway's own keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Where they are; made when absent.
    pub dir: String,
}

/// Traces.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The collector.
    pub otlp: Option<Otlp>,
    /// The share of allowed calls whose trace is exported, 0 to 1; 1 by default. Refusals always are.
    pub sample: Option<f64>,
    /// `spans` (the default): one span a stage; `events`: events on the server span.
    pub stages: Option<String>,
}

/// The collector.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// Base URL, as in `http://127.0.0.1:4318`.
    pub endpoint: String,
    /// `http/protobuf`.
    pub protocol: Option<String>,
}
