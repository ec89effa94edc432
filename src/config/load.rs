//! From the configuration file to what each stage is given, or every mistake in it and in the files it names.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::accept::tls::{Identity, provider};
use crate::call::{Class, Profile};
use crate::classify::catalog::Catalog;
use crate::classify::sink::Internal;
use crate::cli::policy::{read_dir, within};
use crate::credential::StaticFile;
use crate::decide::Policy;
use crate::decode::{self, Route};
use crate::definitions::Listing;
use crate::flow::chain::Chain;
use crate::identify::directory::Directory;
use crate::identify::people::People;
use crate::identify::svid::{DomainSource, Role, Trust};
use crate::json::Limits;
use crate::{accept, flow, forward, hold, limit, oidc, record, telemetry, webhook};

use super::audit::Keeping;
use super::listing::CatalogFile;
use super::raw::{File, OneOrMany};
use super::sources::Sources;
use super::{catalog, people, registry, upstream};
use crate::units;
use crate::yaml::{self, Mistake};

/// Everything that configuration gives, ready to be wired.
pub struct Loaded {
    /// The configuration file.
    pub file: PathBuf,
    /// What it was read from.
    pub sources: Sources,
    /// The plain settings.
    pub settings: Settings,
    /// The gateway's certificate.
    pub identity: Identity,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Agents.
    pub directory: Directory,
    /// People.
    pub people: People,
    /// What calls do.
    pub catalog: Catalog,
    /// Policy.
    pub policy: Policy,
    /// Where requests may go.
    pub routes: Vec<Route>,
    /// How upstreams are reached.
    pub upstreams: Vec<(Arc<str>, forward::Upstream)>,
    /// Static credentials.
    pub credentials: Vec<(Arc<str>, StaticFile)>,
    /// Where each upstream's catalogue is, and its OpenAPI document.
    pub catalogs: Vec<CatalogFile>,
    /// How MCP upstreams are listed.
    pub listings: Vec<(Arc<str>, Listing)>,
    /// Operators' sequences.
    pub chains: Vec<Chain>,
}

/// The plain settings.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// Where to listen for who is root on this machine.
    pub sockets: Vec<PathBuf>,
    /// What connections may be.
    pub accept: accept::Bounds,
    /// What bodies may be.
    pub decode: decode::Bounds,
    /// Limits.
    pub limits: limit::Config,
    /// How calls wait for people.
    pub holds: hold::Config,
    /// Whom to tell of them.
    pub notify: Arc<webhook::Config>,
    /// The identity provider of people.
    pub oidc: Option<oidc::Config>,
    /// Flow control.
    pub flow: flow::Config,
    /// The audit.
    pub audit: record::Config,
    /// The store's file.
    pub store: PathBuf,
    /// How evidence is kept.
    pub keeping: Keeping,
    /// The gateway's keys.
    pub keys_dir: PathBuf,
    /// Traces and metrics.
    pub telemetry: telemetry::Config,
}

/// A listening address.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// What it serves.
    pub kind: ListenerKind,
    /// Where.
    pub address: SocketAddr,
    /// The names by which agents may address it, in lower case; empty for any.
    pub hosts: Vec<String>,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// People, over mTLS.
    Admin,
    /// Agents, over mTLS.
    Agents,
    /// Health and metrics, plain.
    Health,
    /// Orchestrators, over mTLS.
    Tasks,
}

/// Loads a configuration file and all that it names.
pub fn load(path: &Path) -> Result<Loaded, Vec<Mistake>> {
    read(path).map_err(|(mistakes, _)| mistakes)
}

/// The same, and with the mistakes what was read, so that it can be known when to try again.
pub fn read(path: &Path) -> Result<Loaded, (Vec<Mistake>, Sources)> {
    let file = path.display().to_string();
    let mut sources = Sources::default();
    let mut mistakes = Vec::new();
    sources.will_read(path);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            return Err((vec![Mistake::new(&file, "", format!("cannot be read: {error}"))], sources));
        }
    };
    sources.has_read("config", b"", text.as_bytes());
    let raw: Option<File> = yaml::read(&file, &text, &mut mistakes);
    let base = path.parent().unwrap_or(Path::new(".")).to_owned();
    let mut reader = Reader { file, base, mistakes, sources };
    let parts = raw.and_then(|raw| reader.file(raw));
    match parts {
        Some(parts) if reader.mistakes.is_empty() => {
            Ok(Loaded { file: path.to_owned(), sources: reader.sources, ..parts })
        }
        _ => Err((reader.mistakes, reader.sources)),
    }
}

/// The directory of policies that a configuration file names.
pub fn policy_dir(path: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(path).ok()?;
    let raw: File = yaml::read("", &text, &mut Vec::new())?;
    let dir = raw.policy?.cedar?;
    Some(path.parent().unwrap_or(Path::new(".")).join(dir))
}

/// Reads one file's values, collecting mistakes.
pub(super) struct Reader {
    pub(super) file: String,
    base: PathBuf,
    pub(super) mistakes: Vec<Mistake>,
    /// What was read so far.
    pub(super) sources: Sources,
}

impl Reader {
    fn file(&mut self, raw: File) -> Option<Loaded> {
        self.reserved(&raw);
        let internal = self.organization(&raw);
        let (identity, trust) = self.trust(&raw);
        let settings = self.settings(&raw);
        let directory = match &raw.agents {
            Some(path) => {
                let path = self.path(path);
                registry::load(&path, &mut self.sources, &mut self.mistakes)
            }
            None => {
                self.mistake("agents", "is required: the registry's file or directory");
                Directory::new(Vec::new())
            }
        };
        let path = raw.people.as_deref().map(|path| self.path(path));
        let people = path.map(|path| people::load(&path, &mut self.sources, &mut self.mistakes));
        self.of_people(&raw, people.as_ref(), trust.as_ref());
        people.iter().for_each(|people| self.of_subjects(&raw, people));
        self.of_orchestrators(&raw, trust.as_ref());
        let mut parts = upstream::Parts::default();
        for (at, upstream) in raw.upstreams.iter().enumerate() {
            self.upstream(at, upstream, &mut parts);
        }
        let sources = parts.sources.iter().map(upstream::Source::borrow).collect();
        let catalog = catalog::catalog(internal, sources, &mut self.mistakes);
        let policy = self.policy(&raw, &catalog);
        let chains = self.chains(&raw);
        upstream::check_credentials(self, &catalog, &parts);
        let routes = parts.routes(&catalog);
        Some(Loaded {
            file: PathBuf::new(),
            sources: Sources::default(),
            settings: settings?,
            identity: identity?,
            trust: trust?,
            directory,
            people: people.unwrap_or_default(),
            catalog,
            policy: policy?,
            routes,
            upstreams: parts.upstreams,
            credentials: parts.credentials,
            catalogs: parts.catalogs,
            listings: parts.listings,
            chains,
        })
    }

    fn reserved(&mut self, raw: &File) {
        let sections = [
            ("store.postgres", &raw.store.postgres),
            ("credentials", &raw.credentials),
            ("tasks", &raw.tasks),
            ("connect", &raw.connect),
            ("egress", &raw.egress),
        ];
        for (path, section) in sections {
            self.not_yet(path, section.is_some());
        }
    }

    fn organization(&mut self, raw: &File) -> Internal {
        let mut internal = Internal::default();
        match &raw.organization {
            None => self.mistake("organization", "is required: {name: …, internal: [\"*@example.org\"]}"),
            Some(organization) => {
                for (at, pattern) in organization.internal.iter().enumerate() {
                    if let Err(problem) = internal.add(pattern) {
                        self.mistake(&format!("organization.internal[{at}]"), problem);
                    }
                }
            }
        }
        internal
    }

    fn trust(&mut self, raw: &File) -> (Option<Identity>, Option<Trust>) {
        let Some(trust) = &raw.trust else {
            self.mistake("trust", "is required: the gateway's identity and the trust domains");
            return (None, None);
        };
        let identity = trust.identity.as_ref().and_then(|identity| {
            self.not_yet("trust.identity.workload_api", identity.workload_api.is_some());
            let cert = self.bytes("trust.identity.cert", identity.cert.as_deref())?;
            let key = self.bytes("trust.identity.key", identity.key.as_deref())?;
            Identity::read(&cert, &key).map_err(|problem| self.mistake("trust.identity", problem)).ok()
        });
        if trust.identity.is_none() {
            self.mistake("trust.identity", "is required: {cert: FILE, key: FILE}");
        }
        let mut sources = Vec::new();
        for (name, domain) in &trust.domains {
            let path = format!("trust.domains.{name}");
            self.not_yet(&format!("{path}.bundle_endpoint"), domain.bundle_endpoint.is_some());
            let role = match domain.roles.as_slice() {
                [role] if role == "agents" => Some(Role::Agents),
                [role] if role == "people" => Some(Role::People),
                [role] if role == "orchestrators" => Some(Role::Orchestrators),
                _ => {
                    self.mistake(
                        &format!("{path}.roles"),
                        "must be one of [agents], [people], [orchestrators]",
                    );
                    None
                }
            };
            let bundle = self.bytes(&format!("{path}.bundle"), domain.bundle.as_deref());
            let crls = domain.crl.as_deref().and_then(|crl| self.bytes(&format!("{path}.crl"), Some(crl)));
            if let (Some(role), Some(bundle)) = (role, bundle) {
                sources.push(DomainSource { name: name.clone(), role, bundle, crls });
            }
        }
        if trust.domains.is_empty() {
            self.mistake("trust.domains", "must name at least one trust domain");
        }
        let trust = Trust::build(&sources, &provider());
        (
            identity,
            trust
                .map_err(|problems| problems.into_iter().for_each(|p| self.mistake("trust.domains", p)))
                .ok(),
        )
    }

    fn settings(&mut self, raw: &File) -> Option<Settings> {
        let (listeners, sockets) = self.listeners(raw);
        if !raw.listeners.iter().any(|listener| listener.kind == "agents") {
            self.mistake("listeners", "must have one of kind `agents`");
        }
        let window = self.duration("flow.window", raw.flow.window.as_deref(), 30 * 60);
        let keys_dir = raw.keys.as_ref().map(|keys| self.path(&keys.dir));
        if keys_dir.is_none() {
            self.mistake("keys", "is required: {dir: …}");
        }
        let (accept, decode) = self.bounds(raw);
        let (limits, audit, telemetry) = (self.limits(raw), self.audit(raw), self.telemetry(raw));
        let (audit, keeping) = audit.unzip();
        let audit = audit?;
        Some(Settings {
            listeners,
            sockets,
            accept,
            decode,
            limits,
            holds: self.holds(raw),
            notify: Arc::new(self.notify(raw)),
            oidc: self.oidc(raw),
            flow: flow::Config { window, profile: self.profile(raw) },
            store: match &raw.store.sqlite {
                Some(path) => self.path(path),
                None => audit.dir.with_file_name("holdpoint.db"),
            },
            audit,
            keeping: keeping?,
            keys_dir: keys_dir?,
            telemetry,
        })
    }

    fn profile(&mut self, raw: &File) -> Profile {
        match raw.flow.profile.as_deref().map(Profile::parse) {
            None => Profile::Balanced,
            Some(Some(profile)) => profile,
            Some(None) => {
                self.mistake("flow.profile", "must be `balanced` or `strict`");
                Profile::Balanced
            }
        }
    }

    fn bounds(&mut self, raw: &File) -> (accept::Bounds, decode::Bounds) {
        let bounds = &raw.bounds;
        let mut accept = accept::Bounds::default();
        if let Some(most) = bounds.connections_max {
            accept.connections_max = most;
        }
        accept.headers_bytes_max =
            self.size("bounds.headers_bytes_max", bounds.headers_bytes_max.as_deref(), 64 << 10);
        let decode = decode::Bounds {
            body_bytes_max: self.size("bounds.body_bytes_max", bounds.body_bytes_max.as_deref(), 4 << 20),
            body_time_max: self.duration("bounds.body_time_max", bounds.body_time_max.as_deref(), 30),
            json: Limits { depth_max: bounds.json_depth_max.unwrap_or(64), ..Limits::default() },
        };
        if decode.json.depth_max > 128 {
            self.mistake("bounds.json_depth_max", "must be at most 128: other parsers stop there");
        }
        (accept, decode)
    }

    fn limits(&mut self, raw: &File) -> limit::Config {
        let mut config = limit::Config { certificate: DEFAULT_CERTIFICATE_RATE, rules: Vec::new() };
        for (at, limit) in raw.limits.iter().enumerate() {
            let path = format!("limits[{at}]");
            let rate = limit.rate.as_deref().and_then(|text| self.rate(&path, text, limit.burst));
            let per = match &limit.per {
                OneOrMany::One(word) => vec![word.clone()],
                OneOrMany::Many(words) => words.clone(),
            };
            if per.as_slice() == ["certificate"] {
                match rate {
                    Some(rate) if limit.class.is_none() && limit.concurrency.is_none() => {
                        config.certificate = rate
                    }
                    _ => self.mistake(
                        &path,
                        "a limit per certificate has a rate, and neither class nor concurrency",
                    ),
                }
                continue;
            }
            let dimensions = self.dimensions(&path, &per);
            let class = limit.class.as_deref().and_then(|word| {
                let class = Class::parse(word);
                if class.is_none() {
                    self.mistake(&format!("{path}.class"), "must be `read`, `write` or `external`");
                }
                class
            });
            if limit.rate.is_none() && limit.concurrency.is_none() {
                self.mistake(&path, "needs a `rate` or a `concurrency`");
            }
            let mut name = per.join("-");
            if let Some(class) = class {
                name = format!("{name}-{}", class.as_str());
            }
            config.rules.push(limit::Rule {
                name,
                per: dimensions,
                class,
                rate,
                concurrency: limit.concurrency,
            });
        }
        config
    }

    fn rate(&mut self, path: &str, text: &str, burst: Option<u32>) -> Option<limit::Rate> {
        let parsed = units::rate(text);
        if parsed.is_none() {
            self.mistake(&format!("{path}.rate"), "must be a count and a time, as in 50/s or 10/1m");
        }
        let (count, period) = parsed?;
        let count = NonZeroU32::new(count)?;
        let burst = match burst {
            None => Some(count),
            Some(burst) => NonZeroU32::new(burst),
        };
        if burst.is_none() {
            self.mistake(&format!("{path}.burst"), "must be at least 1");
        }
        Some(limit::Rate { count, period, burst: burst? })
    }

    fn dimensions(&mut self, path: &str, words: &[String]) -> Vec<limit::Dimension> {
        let mut dimensions = Vec::new();
        for word in words {
            match word.as_str() {
                "agent" => dimensions.push(limit::Dimension::Agent),
                "class" => dimensions.push(limit::Dimension::Class),
                "tool" => dimensions.push(limit::Dimension::Tool),
                "upstream" => dimensions.push(limit::Dimension::Upstream),
                _ => self.mistake(
                    &format!("{path}.per"),
                    format!("`{word}` is none of agent, tool, class, upstream (or certificate, alone)"),
                ),
            }
        }
        dimensions.sort_unstable();
        dimensions
    }

    fn telemetry(&mut self, raw: &File) -> telemetry::Config {
        let mut config = telemetry::Config::default();
        let section = &raw.telemetry;
        if let Some(otlp) = &section.otlp {
            if otlp.protocol.as_deref().is_some_and(|protocol| protocol != "http/protobuf") {
                self.mistake("telemetry.otlp.protocol", "must be `http/protobuf`");
            }
            config.otlp = Some(telemetry::Otlp { endpoint: otlp.endpoint.clone() });
        }
        config.sample = section.sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&config.sample) {
            self.mistake("telemetry.sample", "must be from 0 to 1");
        }
        config.stages = match section.stages.as_deref() {
            None | Some("spans") => telemetry::Stages::Spans,
            Some("events") => telemetry::Stages::Events,
            Some(_) => {
                self.mistake("telemetry.stages", "must be `spans` or `events`");
                telemetry::Stages::Spans
            }
        };
        config
    }

    fn policy(&mut self, raw: &File, catalog: &Catalog) -> Option<Policy> {
        self.not_yet("policy.rego", raw.policy.as_ref().is_some_and(|policy| policy.rego.is_some()));
        let Some(cedar) = raw.policy.as_ref().and_then(|policy| policy.cedar.as_deref()) else {
            self.mistake(
                "policy.cedar",
                "is required: a directory of policies; without one everything is denied",
            );
            return None;
        };
        let facts = catalog.fact_types();
        let dir = self.path(cedar);
        for dir in [&dir, &dir.join("cases")] {
            self.sources.will_read(dir);
        }
        let files = match read_dir(&dir) {
            Ok(files) => {
                for (name, text) in &files {
                    self.sources.has_read("policy", name.as_bytes(), text.as_bytes());
                }
                files
            }
            Err(mistake) => {
                self.mistakes.push(mistake);
                return None;
            }
        };
        Policy::load(&files, &facts).map_err(|found| self.mistakes.extend(within(&dir, found))).ok()
    }

    pub(super) fn mistake(&mut self, path: &str, problem: impl Into<String>) {
        self.mistakes.push(Mistake::new(&self.file, path, problem));
    }

    pub(super) fn not_yet(&mut self, path: &str, present: bool) {
        if present {
            self.mistake(path, "not supported yet");
        }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    pub(super) fn bytes(&mut self, at: &str, path: Option<&str>) -> Option<Vec<u8>> {
        let Some(path) = path else {
            self.mistake(at, "is required: a file");
            return None;
        };
        let path = self.path(path);
        self.sources.will_read(&path);
        let read = std::fs::read(&path);
        let bytes = read.map_err(|error| self.mistake(at, format!("{}: {error}", path.display()))).ok()?;
        self.sources.has_read_for(at, &bytes);
        Some(bytes)
    }

    pub(super) fn duration(&mut self, at: &str, text: Option<&str>, default_seconds: u64) -> Duration {
        let parsed = text.map_or(Some(Duration::from_secs(default_seconds)), units::duration);
        if parsed.is_none() {
            self.mistake(at, "must be a duration, as in 30s, 30m or 1h30m");
        }
        parsed.unwrap_or_default()
    }

    pub(super) fn size(&mut self, at: &str, text: Option<&str>, default: usize) -> usize {
        let parsed = text.map_or(Some(default), units::bytes);
        if parsed.is_none() {
            self.mistake(at, "must be a size, as in 64KiB or 4MiB");
        }
        parsed.unwrap_or(default)
    }
}

impl Loaded {
    /// The types of the facts that policies may look at.
    pub fn facts(&self) -> crate::decide::schema::Facts {
        self.catalog.fact_types()
    }
}

/// What a certificate may ask before its calls are looked at: far above what an agent needs.
const DEFAULT_CERTIFICATE_RATE: limit::Rate = limit::Rate {
    count: NonZeroU32::MIN.saturating_add(1999),
    period: Duration::from_secs(1),
    burst: NonZeroU32::MIN.saturating_add(3999),
};
