//! Catalogue files: YAML becomes the compiled [`Catalog`], and every mistake is reported with its path.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::call::{Class, Confidentiality, Consequence, Effect, FactType, Integrity};
use crate::classify::catalog::{Catalog, Draft, Fact, Reply, Sink, Upstream, UpstreamConfig, UpstreamKind};
use crate::classify::sink::{Internal, SinkKind};
use crate::classify::template::Template;
use crate::classify::view::Pointer;
use crate::classify::when::{Condition, Pattern, Scalar, Settings, Test};
use crate::units;
use crate::yaml::{self, Mistake};

/// One upstream and the text of its catalogue file.
pub struct Source<'a> {
    /// What the configuration says of the upstream.
    pub upstream: UpstreamConfig,
    /// The file's name, as the operator gave it, and its text; `None` for an upstream without a catalogue.
    pub file: Option<(&'a str, &'a str)>,
}

/// Compiles every upstream's catalogue, adding every mistake that is found in any of them.
pub fn catalog(internal: Internal, sources: Vec<Source<'_>>, mistakes: &mut Vec<Mistake>) -> Catalog {
    let mut upstreams = Vec::new();
    let mut facts = BTreeMap::new();
    for source in sources {
        let drafts = match source.file {
            Some((file, text)) => drafts(file, text, source.upstream.kind, mistakes),
            None => Vec::new(),
        };
        if let Some((file, _)) = source.file {
            one_type_each(file, &drafts, &mut facts, mistakes);
        }
        upstreams.push(Upstream::new(source.upstream, drafts));
    }
    Catalog::new(internal, upstreams)
}

/// A catalogue file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CatalogFile")]
pub struct FileRaw {
    /// One entry per tool, MCP method, or `METHOD /path/{parameter}`.
    #[serde(default)]
    tools: BTreeMap<String, EntryRaw>,
}

/// What is said of one tool or operation.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CatalogEntry")]
struct EntryRaw {
    /// What it is for.
    description: Option<String>,
    /// What it does to the world. Required.
    class: Option<ClassRaw>,
    /// How bad it would be if it were wrong, 0 to 4. Required.
    consequence: Option<i64>,
    /// Kinds of effect that policy may treat on their own.
    effects: Vec<EffectRaw>,
    /// Whether it can be undone; by default only a read can.
    reversible: Option<bool>,
    /// Whether doing it twice is doing it once.
    idempotent: bool,
    /// Values to lift out of the arguments for policy, by name.
    facts: BTreeMap<String, FactRaw>,
    /// Where what it is given goes.
    sink: Option<SinkRaw>,
    /// Conditions on one call; the first that holds sets what it names.
    when: Vec<WhenRaw>,
    /// What its reply brings.
    returns: Option<ReturnsRaw>,
    /// Texts of its arguments that `audit.capture: redacted` keeps in clear, as JSON Pointers.
    kept: Vec<String>,
    /// The longest life of a credential made for it, such as `15m`.
    max_credential_ttl: Option<String>,
    /// The digest of its pinned definition, as `catalog pin` writes it.
    pin: Option<String>,
    /// The content types of the bodies it understands; JSON and forms when not said.
    content: Option<Vec<String>>,
    /// `opaque` for bodies that are streamed unread.
    body: Option<BodyRaw>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Class")]
enum ClassRaw {
    Read,
    Write,
    External,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Effect")]
enum EffectRaw {
    Spend,
    Delete,
    Deploy,
    Grant,
    Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Body")]
enum BodyRaw {
    Opaque,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Fact")]
struct FactRaw {
    /// Where it is.
    at: String,
    /// Its type, the same wherever the name is used.
    #[serde(rename = "type")]
    kind: FactTypeRaw,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "FactType")]
enum FactTypeRaw {
    Bool,
    Decimal,
    Long,
    Text,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sink")]
struct SinkRaw {
    /// How it leaves.
    kind: SinkKindRaw,
    /// JSON Pointers to whom it goes, with `*` for every element.
    #[serde(default)]
    destinations: Vec<String>,
    /// JSON Pointers to what goes.
    #[serde(default)]
    payload: Vec<String>,
    /// JSON Pointers to references to what goes.
    #[serde(default)]
    refs: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "SinkKind")]
enum SinkKindRaw {
    Message,
    Invite,
    Share,
    Payment,
    Publish,
    Form,
    Grant,
    Http,
    Dns,
}

/// Operators, all of which must hold, and what is then set.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "When")]
struct WhenRaw {
    /// Every destination of the sink is exactly one internal address or host.
    destinations: Option<DestinationsRaw>,
    /// Every value is this one.
    equals: Option<EqualsRaw>,
    /// Every value is one of these.
    #[serde(rename = "in")]
    one_of: Option<InRaw>,
    /// Every value matches the pattern from end to end.
    matches: Option<MatchesRaw>,
    /// A pointer to SQL; `reads` applies when it only reads.
    sql: Option<String>,
    /// A pointer to GraphQL; `reads` applies when it only queries.
    graphql: Option<String>,
    /// What is set when `sql` or `graphql` only reads.
    reads: Option<SettingsRaw>,
    /// The class that is set.
    class: Option<ClassRaw>,
    /// The consequence that is set.
    consequence: Option<i64>,
    /// The effects that are set.
    effects: Option<Vec<EffectRaw>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Destinations")]
enum DestinationsRaw {
    Internal,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Equals")]
struct EqualsRaw {
    at: String,
    value: serde_json::Value,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "In")]
struct InRaw {
    at: String,
    values: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Matches")]
struct MatchesRaw {
    at: String,
    regex: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Settings")]
struct SettingsRaw {
    class: Option<ClassRaw>,
    consequence: Option<i64>,
    effects: Option<Vec<EffectRaw>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Returns")]
struct ReturnsRaw {
    /// How confidential it is; `internal` when not said.
    confidentiality: Option<ConfidentialityRaw>,
    /// Who may have written it; `mixed` when not said.
    integrity: Option<IntegrityRaw>,
    /// Where the records of the reply are.
    records: Option<String>,
    /// Within a record: who took part.
    parties: Vec<String>,
    /// Within a record: by what a later call can refer to it.
    ids: Vec<String>,
    /// Within a record: what outsiders can write; for `mixed`, free text when not said.
    untrusted: Option<Vec<String>>,
    /// Within a record: trusted destinations, as a directory's.
    known: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Confidentiality")]
enum ConfidentialityRaw {
    Public,
    Internal,
    Secret,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Integrity")]
enum IntegrityRaw {
    Trusted,
    Mixed,
    Untrusted,
}

/// Where mistakes of one entry go: they know their file and the path so far.
struct Place<'m> {
    file: &'m str,
    kind: UpstreamKind,
    path: String,
    template: Option<Template>,
    mistakes: &'m mut Vec<Mistake>,
}

fn drafts(file: &str, text: &str, kind: UpstreamKind, mistakes: &mut Vec<Mistake>) -> Vec<Draft> {
    let Some(raw) = yaml::read::<FileRaw>(file, text, mistakes) else { return Vec::new() };
    let mut drafts: Vec<Draft> = Vec::new();
    for (key, entry) in raw.tools {
        let path = format!("tools.{key}");
        let mut place = Place { file, kind, path, template: None, mistakes: &mut *mistakes };
        let Some(draft) = place.entry(key, entry) else { continue };
        let other = draft.template.as_ref().and_then(|template| {
            let overlaps = |other: &&Template| template.is_ambiguous_with(other);
            drafts.iter().find(|other| other.template.as_ref().filter(overlaps).is_some())
        });
        if let Some(other) = other {
            let problem = format!("some path fits this and `{}`, and neither is more specific", other.key);
            place.mistake("", problem);
        }
        drafts.push(draft);
    }
    drafts
}

/// Holds every fact name to one type across the deployment.
fn one_type_each(
    file: &str,
    drafts: &[Draft],
    seen: &mut BTreeMap<Arc<str>, (FactType, String)>,
    mistakes: &mut Vec<Mistake>,
) {
    for draft in drafts {
        for fact in &draft.facts {
            let path = format!("tools.{}.facts.{}", draft.key, fact.name);
            match seen.get(&fact.name) {
                Some((kind, first)) if *kind != fact.kind => {
                    let (here, there) = (fact.kind.as_str(), kind.as_str());
                    let problem =
                        format!("is {here} here and {there} at {first}: one name has one type everywhere");
                    mistakes.push(Mistake::new(file, path, problem));
                }
                Some(_) => {}
                None => {
                    seen.insert(fact.name.clone(), (fact.kind, format!("{file}: {path}")));
                }
            }
        }
    }
}

// === impl Place ===

impl Place<'_> {
    fn mistake(&mut self, below: &str, problem: impl Into<String>) {
        let path = format!("{}{below}", self.path);
        self.mistakes.push(Mistake::new(self.file, path, problem));
    }

    /// Whether something was already found wrong below a path: what is then missing was not left out.
    fn is_known(&self, below: &str) -> bool {
        let path = format!("{}{below}", self.path);
        self.mistakes.iter().any(|mistake| mistake.file == self.file && mistake.path == path)
    }

    fn entry(&mut self, key: String, raw: EntryRaw) -> Option<Draft> {
        self.template = match self.kind {
            UpstreamKind::Mcp => None,
            UpstreamKind::Http => match Template::parse(&key) {
                Ok(template) => Some(template),
                Err(problem) => {
                    self.mistake("", problem);
                    None
                }
            },
        };
        if self.kind == UpstreamKind::Mcp {
            self.only_http(&key, &raw);
        }
        let class = self.required(".class", raw.class.map(class), "read, write or external");
        let consequence = raw.consequence.map(|level| self.consequence(".consequence", level));
        let consequence = self.required(".consequence", consequence, "a whole number from 0 to 4").flatten();
        let sink = raw.sink.map(|sink| self.sink(sink));
        let when = raw.when.into_iter().enumerate();
        let when = when.filter_map(|(at, item)| self.condition(at, item, sink.as_ref())).collect();
        let facts = raw.facts.into_iter().filter_map(|(name, fact)| self.fact(&name, fact)).collect();
        let returns = raw.returns.map(|returns| self.returns(returns)).unwrap_or_default();
        let kept = raw.kept.iter().enumerate();
        let kept = kept.filter_map(|(at, text)| {
            self.pointer(&format!(".kept[{at}]"), text).map(|_| Arc::from(text.as_str()))
        });
        let kept = kept.collect();
        let max_credential_ttl = raw.max_credential_ttl.and_then(|text| {
            let parsed = units::duration(&text);
            if parsed.is_none() {
                self.mistake(".max_credential_ttl", format!("`{text}` is no duration: expected 15m, 1h30m"));
            }
            parsed
        });
        let pin = raw.pin.and_then(|pin| self.pin(pin));
        let content = raw.content.map(|types| self.content(types));
        if self.kind == UpstreamKind::Http && self.template.is_none() {
            return None;
        }
        let (class, consequence) = (class?, consequence?);
        Some(Draft {
            key,
            class,
            consequence,
            reversible: raw.reversible.unwrap_or(class == Class::Read),
            idempotent: raw.idempotent,
            description: raw.description.unwrap_or_default(),
            effects: effects(&raw.effects),
            facts,
            sink,
            when,
            returns,
            kept,
            max_credential_ttl,
            pin,
            content,
            opaque: raw.body == Some(BodyRaw::Opaque),
            template: self.template.take(),
        })
    }

    fn only_http(&mut self, key: &str, raw: &EntryRaw) {
        if key.is_empty() || key.contains(char::is_control) {
            self.mistake("", "a tool's name cannot be empty or have control characters");
        }
        for (below, given) in [(".content", raw.content.is_some()), (".body", raw.body.is_some())] {
            if given {
                self.mistake(below, "is for upstreams of kind http only");
            }
        }
    }

    fn required<T>(&mut self, below: &str, value: Option<T>, expected: &str) -> Option<T> {
        if value.is_none() && !self.is_known(below) {
            self.mistake(below, format!("missing: expected {expected}"));
        }
        value
    }

    fn consequence(&mut self, below: &str, level: i64) -> Option<Consequence> {
        let parsed = u8::try_from(level).ok().and_then(Consequence::new);
        if parsed.is_none() {
            self.mistake(below, format!("{level} is out of range: expected a whole number from 0 to 4"));
        }
        parsed
    }

    fn pin(&mut self, pin: String) -> Option<Arc<str>> {
        let digits = pin.strip_prefix("sha256:").unwrap_or_default();
        if digits.len() != 64 || !digits.bytes().all(|byte| b"0123456789abcdef".contains(&byte)) {
            self.mistake(".pin", "expected sha256: and 64 hexadecimal digits in lower case");
            return None;
        }
        Some(Arc::from(pin))
    }

    fn content(&mut self, types: Vec<String>) -> Vec<String> {
        if types.is_empty() {
            self.mistake(".content", "expected at least one content type");
        }
        for (at, kind) in types.iter().enumerate() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/+-._".contains(&byte);
            if kind.split('/').count() != 2 || !kind.bytes().all(plain) {
                let problem = format!("`{kind}` is no content type: expected type/subtype, no parameters");
                self.mistake(&format!(".content[{at}]"), problem);
            }
        }
        types.iter().map(|kind| kind.to_ascii_lowercase()).collect()
    }

    /// A pointer into the call.
    fn pointer(&mut self, below: &str, text: &str) -> Option<Pointer> {
        let pointer = self.reply_pointer(below, text)?;
        if self.kind == UpstreamKind::Http {
            let stray = match (pointer.path_parameter(), &self.template) {
                (Some(name), Some(template)) if !template.has_parameter(name) => {
                    Some(format!("`{text}` leads nowhere: the path has no parameter {{{name}}}"))
                }
                _ => pointer.fault_in_http(),
            };
            if let Some(problem) = stray {
                self.mistake(below, problem);
                return None;
            }
        }
        Some(pointer)
    }

    /// A pointer into the reply.
    fn reply_pointer(&mut self, below: &str, text: &str) -> Option<Pointer> {
        match Pointer::parse(text) {
            Ok(pointer) => Some(pointer),
            Err(problem) => {
                self.mistake(below, problem);
                None
            }
        }
    }

    fn pointers(&mut self, below: &str, texts: &[String]) -> Vec<Pointer> {
        let texts = texts.iter().enumerate();
        texts.filter_map(|(at, text)| self.pointer(&format!("{below}[{at}]"), text)).collect()
    }

    fn reply_pointers(&mut self, below: &str, texts: &[String]) -> Vec<Pointer> {
        let texts = texts.iter().enumerate();
        texts.filter_map(|(at, text)| self.reply_pointer(&format!("{below}[{at}]"), text)).collect()
    }

    fn fact(&mut self, name: &str, raw: FactRaw) -> Option<Fact> {
        let below = format!(".facts.{name}");
        let sound = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !sound {
            self.mistake(&below, "a fact's name is made of lower-case letters, digits and _");
        }
        let at = self.pointer(&format!("{below}.at"), &raw.at)?;
        if at.is_many() {
            self.mistake(&format!("{below}.at"), "a fact is one value: no * in its pointer");
            return None;
        }
        let kind = match raw.kind {
            FactTypeRaw::Bool => FactType::Bool,
            FactTypeRaw::Decimal => FactType::Decimal,
            FactTypeRaw::Long => FactType::Long,
            FactTypeRaw::Text => FactType::Text,
        };
        sound.then(|| Fact { name: Arc::from(name), at, kind })
    }

    fn sink(&mut self, raw: SinkRaw) -> Sink {
        Sink {
            kind: match raw.kind {
                SinkKindRaw::Message => SinkKind::Message,
                SinkKindRaw::Invite => SinkKind::Invite,
                SinkKindRaw::Share => SinkKind::Share,
                SinkKindRaw::Payment => SinkKind::Payment,
                SinkKindRaw::Publish => SinkKind::Publish,
                SinkKindRaw::Form => SinkKind::Form,
                SinkKindRaw::Grant => SinkKind::Grant,
                SinkKindRaw::Http => SinkKind::Http,
                SinkKindRaw::Dns => SinkKind::Dns,
            },
            destinations: self.pointers(".sink.destinations", &raw.destinations),
            payload: self.pointers(".sink.payload", &raw.payload),
            refs: self.pointers(".sink.refs", &raw.refs),
        }
    }

    fn returns(&mut self, raw: ReturnsRaw) -> Reply {
        let confidentiality = raw.confidentiality.map(|word| match word {
            ConfidentialityRaw::Public => Confidentiality::Public,
            ConfidentialityRaw::Internal => Confidentiality::Internal,
            ConfidentialityRaw::Secret => Confidentiality::Secret,
        });
        let integrity = raw.integrity.map(|word| match word {
            IntegrityRaw::Trusted => Integrity::Trusted,
            IntegrityRaw::Mixed => Integrity::Mixed,
            IntegrityRaw::Untrusted => Integrity::Untrusted,
        });
        Reply {
            labels: Reply::labels(confidentiality, integrity),
            records: raw.records.and_then(|text| self.reply_pointer(".returns.records", &text)),
            parties: self.reply_pointers(".returns.parties", &raw.parties),
            ids: self.reply_pointers(".returns.ids", &raw.ids),
            untrusted: raw.untrusted.map(|texts| self.reply_pointers(".returns.untrusted", &texts)),
            known: self.reply_pointers(".returns.known", &raw.known),
        }
    }

    fn condition(&mut self, at: usize, raw: WhenRaw, sink: Option<&Sink>) -> Option<Condition> {
        let below = format!(".when[{at}]");
        let before = self.mistakes.len();
        let WhenRaw { class, consequence, effects, reads, .. } = raw;
        let parses = raw.sql.is_some() || raw.graphql.is_some();
        let mut tests = Vec::new();
        if let Some(DestinationsRaw::Internal) = raw.destinations {
            if sink.is_none_or(|sink| sink.destinations.is_empty()) {
                self.mistake(&format!("{below}.destinations"), "the entry has no sink.destinations");
            }
            tests.push(Test::DestinationsInternal);
        }
        if let Some(EqualsRaw { at, value }) = raw.equals {
            let below = format!("{below}.equals");
            let value = self.scalar(&format!("{below}.value"), &value);
            let pointer = self.pointer(&format!("{below}.at"), &at);
            tests.extend(pointer.zip(value).map(|(at, value)| Test::Equals(at, value)));
        }
        if let Some(InRaw { at, values }) = raw.one_of {
            tests.extend(self.one_of(&format!("{below}.in"), &at, &values));
        }
        if let Some(MatchesRaw { at, regex }) = raw.matches {
            tests.extend(self.matches(&format!("{below}.matches"), &at, &regex));
        }
        let sql = raw.sql.and_then(|text| self.pointer(&format!("{below}.sql"), &text));
        tests.extend(sql.map(Test::Sql));
        let graphql = raw.graphql.and_then(|text| self.pointer(&format!("{below}.graphql"), &text));
        tests.extend(graphql.map(Test::Graphql));
        let flat = self.settings(&below, SettingsRaw { class, consequence, effects });
        let nested = reads.map(|reads| self.settings(&format!("{below}.reads"), reads));
        if nested.is_some() != parses {
            self.mistake(&below, "`sql` and `graphql` go with `reads: {class: …}`, and only they do");
        }
        let settings = self.joined(&below, flat, nested.unwrap_or_default());
        let wrong = self.mistakes.len() > before;
        if !wrong && tests.is_empty() {
            let expected = "destinations, equals, in, matches, sql or graphql";
            self.mistake(&below, format!("has no operator: expected at least one of {expected}"));
        }
        if !wrong && settings == Settings::default() {
            self.mistake(&below, "sets nothing: expected class, consequence or effects");
        }
        Some(Condition { tests, settings })
    }

    /// What a condition sets beside its operators and below `reads`, each at one of the two places.
    fn joined(&mut self, below: &str, flat: Settings, nested: Settings) -> Settings {
        let twice = (flat.class.is_some() && nested.class.is_some())
            || (flat.consequence.is_some() && nested.consequence.is_some())
            || (flat.effects.is_some() && nested.effects.is_some());
        if twice {
            self.mistake(below, "sets the same thing beside and below `reads`");
        }
        Settings {
            class: flat.class.or(nested.class),
            consequence: flat.consequence.or(nested.consequence),
            effects: flat.effects.or(nested.effects),
        }
    }

    fn settings(&mut self, below: &str, raw: SettingsRaw) -> Settings {
        Settings {
            class: raw.class.map(class),
            consequence: raw
                .consequence
                .and_then(|level| self.consequence(&format!("{below}.consequence"), level)),
            effects: raw.effects.map(|words| effects(&words)),
        }
    }

    fn one_of(&mut self, below: &str, at: &str, values: &[serde_json::Value]) -> Option<Test> {
        if values.is_empty() {
            self.mistake(&format!("{below}.values"), "expected at least one value");
        }
        let mut scalars = Vec::new();
        for (index, value) in values.iter().enumerate() {
            scalars.extend(self.scalar(&format!("{below}.values[{index}]"), value));
        }
        Some(Test::In(self.pointer(&format!("{below}.at"), at)?, scalars))
    }

    fn matches(&mut self, below: &str, at: &str, regex: &str) -> Option<Test> {
        let pattern = Pattern::parse(regex);
        if let Err(problem) = &pattern {
            self.mistake(&format!("{below}.regex"), problem.clone());
        }
        Some(Test::Matches(self.pointer(&format!("{below}.at"), at)?, pattern.ok()?))
    }

    fn scalar(&mut self, below: &str, value: &serde_json::Value) -> Option<Scalar> {
        match value {
            serde_json::Value::Bool(value) => Some(Scalar::Bool(*value)),
            serde_json::Value::Number(value) => Some(Scalar::Number(value.to_string())),
            serde_json::Value::String(value) => Some(Scalar::Text(value.clone())),
            _ => {
                self.mistake(below, "expected a text, a number, true or false");
                None
            }
        }
    }
}

fn class(raw: ClassRaw) -> Class {
    match raw {
        ClassRaw::Read => Class::Read,
        ClassRaw::Write => Class::Write,
        ClassRaw::External => Class::External,
    }
}

fn effects(raw: &[EffectRaw]) -> Vec<Effect> {
    let mut effects: Vec<Effect> = raw
        .iter()
        .map(|effect| match effect {
            EffectRaw::Spend => Effect::Spend,
            EffectRaw::Delete => Effect::Delete,
            EffectRaw::Deploy => Effect::Deploy,
            EffectRaw::Grant => Effect::Grant,
            EffectRaw::Secret => Effect::Secret,
        })
        .collect();
    effects.sort();
    effects.dedup();
    effects
}
