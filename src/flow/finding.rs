//! The findings: what the content, the destination and the past of a call that leaves say together.
//!
//! Nothing here stops a call. Findings are facts for policy, each with its evidence: which record, from which source,
//! found how, how much of it, never the data.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::canary::Canaries;
use super::canon::Canon;
use super::history::{History, Step};
use super::lineage::{Memory, Origin};
use super::matching::{Carried, Content};
use super::provenance::{Place, Tier, Url, urls};
use super::text::{FlowKey, Kind};
use crate::call::{Class, Confidentiality};
use crate::classify::sink::{self, Internal, SinkKind};

/// What a URL that was never read may carry, in bytes, added up for its registrable domain.
const URL_BYTES_MAX: usize = 24;
/// So many confidential records for one destination are many.
const BULK_RECORDS: usize = 3;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// Three or more confidential records leave to one destination, even a known one.
    BulkLineage,
    /// A planted token leaves; its name, which operators are told.
    Canary(Arc<str>),
    /// An operator's sequence matched; its name.
    Chain(Arc<str>),
    /// A URL that was never read carries more than it needs.
    ConstructedUrl,
    /// Confidential records leave to a destination that is neither their party nor known.
    Lineage,
    /// A run that has read text of outsiders pays somebody who is only a party of what they wrote.
    PartyPayment,
    /// An argument of a consequential call came from free text of outsiders.
    PlantedArgument,
    /// A destination came from free text of outsiders.
    PlantedDestination,
    /// Another try after a flow finding stopped a call.
    Probing,
    /// A secret leaves.
    SecretLineage,
    /// A run that is confidential and untrusted calls out to a place that is new or only a party.
    Trifecta,
}

impl FindingKind {
    /// The word in policy, records and spans: `lineage`, `chain:NAME`.
    pub fn word(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            FindingKind::BulkLineage => "bulk-lineage",
            FindingKind::Canary(_) => "canary",
            FindingKind::Chain(name) => return Cow::Owned(format!("chain:{name}")),
            FindingKind::ConstructedUrl => "constructed-url",
            FindingKind::Lineage => "lineage",
            FindingKind::PartyPayment => "party-payment",
            FindingKind::PlantedArgument => "planted-argument",
            FindingKind::PlantedDestination => "planted-destination",
            FindingKind::Probing => "probing",
            FindingKind::SecretLineage => "secret-lineage",
            FindingKind::Trifecta => "trifecta",
        })
    }
}

/// A finding and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub kind: FindingKind,
    /// What it rests on; empty where the destination alone says it.
    pub evidence: Vec<Evidence>,
}

/// What a finding rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Which record; `None` for a secret that was recognised by how it is made, and for what is not known.
    pub origin: Option<Origin>,
    /// How it was found.
    pub how: How,
    /// How many fingerprints, tokens or references matched.
    pub matched: u32,
    /// About how many bytes of text that is.
    pub bytes: u32,
}

/// How something was found to come from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// By its text.
    Fingerprint,
    /// By how it is made: a key of a known kind.
    Made,
    /// By a reference.
    Reference,
    /// By a rare token.
    Token,
    /// Something was read that could not be learnt, and this may be it.
    Unknown,
}

impl How {
    /// The word in records and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            How::Fingerprint => "fingerprint",
            How::Made => "made",
            How::Reference => "reference",
            How::Token => "token",
            How::Unknown => "unknown",
        }
    }
}

/// A destination of a call, and what configuration and people say of it.
#[derive(Clone, Debug)]
pub struct Aim<'a> {
    /// How it is reached.
    pub kind: SinkKind,
    /// As it was written.
    pub text: Cow<'a, str>,
    /// What is said of it.
    pub standing: Standing,
}

/// What configuration and people say of a destination, before anything that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An approver remembered it, for what is at most so confidential.
    Endorsed(Confidentiality),
    /// The task names it.
    Granted,
    /// Nothing.
    Nothing,
}

/// A call as flow control sees it. Every string that the agent chose is in exactly one place.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// The class of this very call.
    pub class: Class,
    /// The upstream's host when it is outside: what the call says leaves to it, a read too.
    pub host: Option<&'a str>,
    /// What is inside, by configuration.
    pub internal: &'a Internal,
    /// Where it goes, by the catalogue's pointers.
    pub aims: Vec<Aim<'a>>,
    /// What goes, by the catalogue's pointers.
    pub payload: Vec<Cow<'a, str>>,
    /// What goes by reference.
    pub refs: Vec<Cow<'a, str>>,
    /// Every other string that the agent chose: arguments, path, query, headers and their names, `_meta`, ids.
    /// Credentials of the gateway's own are none of these.
    pub others: Vec<Cow<'a, str>>,
    /// Arguments of a consequential call, each whole. Empty where the call is of no consequence.
    pub consequential: Vec<Cow<'a, str>>,
    /// A digest of the whole call: the same for its repetition and for no other.
    pub digest: u64,
}

/// What is remembered where a call is judged.
#[derive(Clone, Copy)]
pub struct Remembered<'m> {
    /// What the agent's own runs remember.
    pub own: &'m [&'m Memory],
    /// What runs that it was joined with remember: their labels and lineage count, what they know does not.
    pub joined: &'m [&'m Memory],
    /// What the trust domain remembers of secrets.
    pub secrets: &'m [&'m Memory],
    /// What the agent sent before.
    pub history: &'m History,
    /// The canaries in force.
    pub canaries: &'m Canaries,
}

/// What examining a call came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// What was found, each kind once, sorted.
    pub findings: Vec<Finding>,
    /// The tiers of its destinations, sorted, each once.
    pub tiers: Vec<Tier>,
    /// Whether the call leaves.
    pub leaves: bool,
    /// The destinations that are not internal, by exact form, and their tiers.
    pub places: Vec<(u64, Tier)>,
    /// Which confidential records it carries, hashed.
    pub carried: Vec<u64>,
    /// How many bytes its URLs carry.
    pub url_bytes: u64,
    /// Who everything confidential that it carries belongs to, by exact form: an object that the call makes is theirs
    /// too. The reply's [`Source`](super::learn::Source) takes it.
    pub parties: Vec<u64>,
}

impl Examined {
    /// Whether this was found.
    pub fn has(&self, kind: &FindingKind) -> bool {
        self.findings.iter().any(|finding| finding.kind == *kind)
    }

    /// What the journal and the history get when the call is sent; `None` when it does not leave.
    pub fn sent(&self) -> Option<Step> {
        self.leaves.then(|| Step::Sent {
            destinations: self.places.iter().map(|(place, _)| *place).collect(),
            introduced: self
                .places
                .iter()
                .filter(|(_, tier)| *tier != Tier::Known)
                .map(|(p, _)| *p)
                .collect(),
            url_bytes: self.url_bytes,
            carried: self.carried.clone(),
        })
    }

    /// What they get when a flow finding stops it.
    pub fn stopped(&self, outgoing: &Outgoing<'_>) -> Step {
        Step::Stopped {
            digest: outgoing.digest,
            destinations: self.places.iter().map(|(place, _)| *place).collect(),
        }
    }
}

/// One destination, judged.
struct Target<'a> {
    aim: &'a Aim<'a>,
    place: Place,
    exact: u64,
    tier: Tier,
    /// A URL that was read as it is, and that is only fetched: it carries nothing of the agent's.
    verbatim: bool,
}

/// Examines a call. Costs next to nothing when it does not leave.
pub fn examine(
    key: &FlowKey,
    window: Duration,
    remembered: Remembered<'_>,
    outgoing: &Outgoing<'_>,
    now: SystemTime,
) -> Examined {
    let view = Looking { key, window, remembered, outgoing, now };
    let host = outgoing.host.map(|host| Aim {
        kind: SinkKind::Http,
        text: Cow::Borrowed(host),
        standing: Standing::Nothing,
    });
    let targets: Vec<Target<'_>> = outgoing.aims.iter().chain(&host).map(|aim| view.target(aim)).collect();
    let tiers = targets.iter().map(|target| target.tier).collect();
    let mut examined = Examined { tiers, ..Examined::default() };
    examined.tiers.sort_unstable();
    examined.tiers.dedup();
    let outside: Vec<&Target<'_>> = targets.iter().filter(|target| target.tier != Tier::Internal).collect();
    examined.leaves = outgoing.class == Class::External || !outside.is_empty();
    examined.places = outside.iter().map(|target| (target.exact, target.tier)).collect();
    examined.places.sort_unstable();
    examined.places.dedup();
    let mut found = Vec::new();
    view.urls(&outside, &mut examined, &mut found);
    view.planted_arguments(&mut found);
    if examined.leaves {
        view.destinations(&outside, &mut found);
        view.content(&outside, &mut examined, &mut found);
        view.probing(&outside, &mut found);
    } else if outgoing.class == Class::Write && view.is_confidential() {
        // What it makes inside is theirs whose content it is made of.
        examined.parties = view.carried(&[], &[]).parties;
    }
    found.sort_by(|a, b| a.kind.cmp(&b.kind));
    found.dedup_by(|b, a| {
        let same = a.kind == b.kind;
        if same {
            a.evidence.append(&mut b.evidence);
        }
        same
    });
    examined.findings = found;
    examined
}

struct Looking<'a> {
    key: &'a FlowKey,
    window: Duration,
    remembered: Remembered<'a>,
    outgoing: &'a Outgoing<'a>,
    now: SystemTime,
}

impl<'a> Looking<'a> {
    fn joined(&self) -> impl Iterator<Item = &'a Memory> + use<'a> {
        self.remembered.own.iter().chain(self.remembered.joined).copied()
    }

    fn is_confidential(&self) -> bool {
        self.joined().any(|memory| memory.is_confidential(self.now) || memory.is_secret(self.now))
    }

    fn target(&self, aim: &'a Aim<'a>) -> Target<'a> {
        let place = Place::of(aim.kind, &aim.text);
        let exact = place.exact(self.key);
        let fetched =
            matches!(aim.kind, SinkKind::Http | SinkKind::Dns) && self.outgoing.class == Class::Read;
        let read = || Url::parse(&aim.text).is_some_and(|url| self.was_read(&url));
        let verbatim = fetched && read();
        Target { aim, tier: self.tier(aim, &place, exact), place, exact, verbatim }
    }

    fn was_read(&self, url: &Url<'_>) -> bool {
        let hash = url.hash(self.key);
        self.remembered.own.iter().any(|memory| memory.has_url(hash))
    }

    fn tier(&self, aim: &Aim<'_>, place: &Place, exact: u64) -> Tier {
        // A name within an upstream that is inside, in a call that the catalogue does not call external, is inside.
        let within = self.outgoing.class != Class::External && self.outgoing.host.is_none();
        let name = matches!(place, Place::Name(_)) && within;
        if name || self.is_internal(aim, place) {
            return Tier::Internal;
        }
        if aim.standing != Standing::Nothing {
            return Tier::Known;
        }
        let own = self.remembered.own;
        if own.iter().any(|memory| memory.knows(exact)) && !self.remembered.history.introduced(exact) {
            return Tier::Known;
        }
        if self.is_planted(place) {
            return Tier::Planted;
        }
        if own.iter().any(|memory| memory.is_party(exact, self.now)) {
            return Tier::Party;
        }
        Tier::New
    }

    fn is_internal(&self, aim: &Aim<'_>, place: &Place) -> bool {
        let internal = self.outgoing.internal;
        if internal.contains_text(&aim.text) {
            return true;
        }
        match place {
            Place::Host(_) => Url::parse(&aim.text).is_some_and(|url| self.is_internal_host(&url, &aim.text)),
            Place::Mail(mail) => sink::Place::parse(mail).is_some_and(|place| internal.contains(&place)),
            Place::Name(_) => false,
        }
    }

    /// Whether a URL written without a scheme leads inside.
    fn is_internal_host(&self, url: &Url<'_>, text: &str) -> bool {
        let host = text.strip_suffix(url.rest).unwrap_or(text);
        self.outgoing.internal.contains_text(host)
    }

    fn is_planted(&self, place: &Place) -> bool {
        let folded = place.folded(self.key);
        if self.joined().any(|memory| memory.is_planted(folded)) {
            return true;
        }
        let Place::Name(name) = place else { return false };
        self.is_planted_text(name)
    }

    /// Whether every word of a name, or a value, stands in free text of outsiders.
    fn is_planted_text(&self, text: &str) -> bool {
        let canon = Canon::of(text);
        let mut words = canon.words().filter(|word| word.len() >= 3).peekable();
        words.peek().is_some()
            && words.all(|word| {
                let word = self.key.hash(Kind::Word, word) as u32;
                self.joined().any(|memory| memory.has_planted_word(word))
            })
    }

    fn destinations(&self, outside: &[&Target<'_>], found: &mut Vec<Finding>) {
        if outside.iter().any(|target| target.tier == Tier::Planted && !target.verbatim) {
            found.push(Finding { kind: FindingKind::PlantedDestination, evidence: Vec::new() });
        }
        let untrusted = self.joined().any(|memory| memory.is_untrusted(self.now));
        let unproven = outside.iter().any(|target| matches!(target.tier, Tier::New | Tier::Party));
        if unproven && untrusted && self.is_confidential() {
            found.push(Finding { kind: FindingKind::Trifecta, evidence: Vec::new() });
        }
        // Money needs no text to do harm, and a few words in its subject carry what no fingerprint can tell.
        let paid =
            |target: &&Target<'_>| target.tier == Tier::Party && matches!(target.aim.kind, SinkKind::Payment);
        if untrusted && outside.iter().any(paid) {
            found.push(Finding { kind: FindingKind::PartyPayment, evidence: Vec::new() });
        }
    }

    fn planted_arguments(&self, found: &mut Vec<Finding>) {
        let planted = |value: &Cow<'_, str>| {
            let canon = Canon::of(value);
            let whole = self.key.hash(Kind::Name, &canon.bytes);
            // What a trusted field names is not planted because somebody mentions it. Words alone are too common.
            let known = || {
                let exact = Place::guess(value).exact(self.key);
                self.remembered.own.iter().any(|memory| memory.knows(exact))
            };
            self.joined().any(|memory| memory.is_planted(whole)) && !known()
        };
        let matched = self.outgoing.consequential.iter().filter(|value| planted(value)).count() as u32;
        if matched > 0 {
            let evidence = Evidence { origin: None, how: How::Token, matched, bytes: 0 };
            found.push(Finding { kind: FindingKind::PlantedArgument, evidence: vec![evidence] });
        }
    }

    /// URLs that were never read, as destinations and within what is sent, even inside: whoever opens or previews the
    /// message fetches them.
    fn urls(&self, outside: &[&Target<'_>], examined: &mut Examined, found: &mut Vec<Finding>) {
        if !self.is_confidential() {
            return;
        }
        let mut beyond = false;
        let mut carry = |url: &Url<'_>, examined: &mut Examined| {
            let place = Place::Host(url.host.clone());
            let exact = place.exact(self.key);
            let known = self.remembered.own.iter().any(|memory| memory.knows(exact));
            if known && !self.remembered.history.introduced(exact) || self.was_read(url) {
                return;
            }
            let before = self.remembered.history.url_bytes(exact, self.now, self.window);
            examined.url_bytes += url.carries_bytes() as u64;
            if !examined.places.iter().any(|(place, _)| *place == exact) {
                examined.places.push((exact, Tier::New));
            }
            beyond |= url.carries_bytes() > 0 && before + examined.url_bytes >= URL_BYTES_MAX as u64;
        };
        for target in outside.iter().filter(|target| target.tier != Tier::Known) {
            if let (Place::Host(_), Some(url)) = (&target.place, Url::parse(&target.aim.text)) {
                carry(&url, examined);
            }
        }
        if self.outgoing.class != Class::Read {
            for text in self.outgoing.payload.iter().filter(|text| text.contains('.')) {
                let canon = Canon::of(text);
                urls(text, &canon, |url| {
                    let inside = self.outgoing.internal.contains_text(&url.host);
                    if !inside && url.carries_bytes() >= URL_BYTES_MAX {
                        carry(&url, examined);
                    }
                });
            }
        }
        if beyond {
            found.push(Finding { kind: FindingKind::ConstructedUrl, evidence: Vec::new() });
        }
    }

    fn probing(&self, outside: &[&Target<'_>], found: &mut Vec<Finding>) {
        let places: Vec<u64> = outside.iter().map(|target| target.exact).collect();
        let new = outside
            .iter()
            .find(|target| matches!(target.tier, Tier::New | Tier::Planted) && !target.verbatim);
        let new = new.map(|target| target.exact);
        let history = self.remembered.history;
        if history.is_probing(self.outgoing.digest, &places, new, self.now, self.window) {
            found.push(Finding { kind: FindingKind::Probing, evidence: Vec::new() });
        }
    }

    fn content(&self, outside: &[&Target<'_>], examined: &mut Examined, found: &mut Vec<Finding>) {
        // Who gets it, beside those that are known: what they all had already is no leak.
        let unknown = |target: &&&Target<'_>| target.tier != Tier::Known && !target.verbatim;
        let unproven: Vec<u64> = outside.iter().filter(unknown).map(|target| target.exact).collect();
        let mut carried = self.carried(outside, &unproven);
        examined.parties = std::mem::take(&mut carried.parties);
        self.judge(outside, &unproven, carried, examined, found);
    }

    /// What the call carries, whatever else is said of it.
    fn carried(&self, outside: &[&Target<'_>], unproven: &[u64]) -> Carried {
        let Remembered { own, joined, secrets, canaries, history } = self.remembered;
        let all: Vec<u64> = outside.iter().map(|target| target.exact).collect();
        let memories: Vec<(&Memory, Confidentiality)> = own
            .iter()
            .chain(joined)
            .map(|memory| (*memory, Confidentiality::Internal))
            .chain(secrets.iter().map(|memory| (*memory, Confidentiality::Secret)))
            .collect();
        let own_names: Vec<u64> = outside
            .iter()
            .map(|target| self.key.hash(Kind::Token, &Canon::of(&target.aim.text).bytes))
            .collect();
        let parties = if unproven.is_empty() { &all } else { unproven };
        let mut content = Content::new(self.key, self.now, &memories, canaries, parties, own_names);
        for text in self.outgoing.payload.iter().chain(&self.outgoing.others) {
            content.look(text);
        }
        for target in outside.iter().filter(|target| !target.verbatim) {
            match Url::parse(&target.aim.text) {
                Some(url) if matches!(target.place, Place::Host(_)) => {
                    content.look(&url.labels);
                    content.look(url.rest);
                }
                // An address that was never seen may itself be the message.
                _ if target.tier == Tier::New => content.look(&target.aim.text),
                _ => {}
            }
        }
        for id in &self.outgoing.refs {
            content.refer(id, unproven.is_empty());
        }
        for place in &all {
            let tail = history.tail(*place, self.now, self.window);
            if !tail.is_empty() {
                content.look(&format!("{tail}{}", self.outgoing.payload.concat()));
            }
        }
        content.end()
    }

    fn judge(
        &self,
        outside: &[&Target<'_>],
        unproven: &[u64],
        carried: Carried,
        examined: &mut Examined,
        found: &mut Vec<Finding>,
    ) {
        let window = self.window;
        let endorsed = outside.iter().filter_map(|target| match target.aim.standing {
            Standing::Endorsed(most) => Some(most),
            Standing::Granted | Standing::Nothing => None,
        });
        let endorsed = endorsed.min().unwrap_or(Confidentiality::Secret);
        let mut push = |kind: FindingKind, evidence: Vec<Evidence>| found.push(Finding { kind, evidence });
        if let Some(name) = carried.canary {
            push(FindingKind::Canary(name), Vec::new());
        }
        // An endorsement is for secrets only where it names them.
        let named = Standing::Endorsed(Confidentiality::Secret);
        let named = !outside.is_empty() && outside.iter().all(|target| target.aim.standing == named);
        if !carried.secret.is_empty() && !named {
            push(FindingKind::SecretLineage, carried.secret);
        }
        let external = outside.is_empty() || !unproven.is_empty() || endorsed < Confidentiality::Internal;
        if external && !carried.internal.is_empty() {
            push(FindingKind::Lineage, carried.internal);
        }
        let verbatim = !outside.is_empty() && outside.iter().all(|target| target.verbatim);
        let is_unknown = self.joined().any(|memory| memory.is_unknown(self.now)) || carried.unreadable;
        if external && is_unknown && !verbatim && (self.is_confidential() || !carried.unreadable) {
            let evidence = Evidence { origin: None, how: How::Unknown, matched: 0, bytes: 0 };
            push(FindingKind::Lineage, vec![evidence]);
        }
        examined.carried = carried.records;
        let bulk = |place: &u64| {
            let before = self.remembered.history.carried(*place, self.now, window);
            let new = examined.carried.iter().filter(|record| !before.contains(record)).count();
            new > 0 && before.len() + new >= BULK_RECORDS
        };
        if outside.iter().any(|target| bulk(&target.exact)) {
            push(FindingKind::BulkLineage, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Integrity, RecordId, Returns};
    use crate::classify::catalog::Reply;
    use crate::flow::learn::{Echo, Form, Learner, Source};

    const WINDOW: Duration = Duration::from_secs(1800);
    const MAILS: [&str; 3] = [
        "The board meets on Tuesday in the old brewery and will vote on closing the northern plant.",
        "Marta earns more than her manager does, and nobody but payroll may hear of that before spring.",
        "The buyer offered eleven million and wants the patents without the people who wrote them.",
    ];

    struct Run {
        key: Arc<FlowKey>,
        memory: Memory,
        history: History,
        canaries: Canaries,
        internal: Internal,
        now: SystemTime,
    }

    impl Run {
        /// A run that has read these mails, each as a reply of its own.
        fn that_read(mails: &[&str]) -> Run {
            let key = Arc::new(FlowKey::new(&[3; 32]));
            let mut memory = Memory::new(WINDOW);
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            for (number, mail) in mails.iter().enumerate() {
                let labels =
                    Returns { confidentiality: Confidentiality::Internal, integrity: Integrity::Trusted };
                let source = Source {
                    key: Arc::clone(&key),
                    reply: RecordId::from_u128(number as u128 + 1),
                    upstream: Arc::from("mail"),
                    tool: Arc::from("read"),
                    host: None,
                    returns: Arc::new(Reply { labels, ..Reply::default() }),
                    parties: Vec::new(),
                    echo: Echo::default(),
                };
                let mut learner = Learner::new(source, Form::Text);
                memory.learn(&learner.feed(mail.as_bytes()), now);
                memory.learn(&learner.finish(), now);
            }
            let (history, canaries) = (History::default(), Canaries::default());
            Run { key, memory, history, canaries, internal: Internal::default(), now }
        }

        fn examine(&self, call: &Sending<'_>) -> Examined {
            let own = [&self.memory];
            let remembered = Remembered {
                own: &own,
                joined: &[],
                secrets: &[],
                history: &self.history,
                canaries: &self.canaries,
            };
            let outgoing = Outgoing {
                class: Class::External,
                host: None,
                internal: &self.internal,
                aims: vec![Aim { kind: call.kind, text: call.to.into(), standing: call.standing }],
                payload: vec![call.text.into()],
                refs: Vec::new(),
                others: Vec::new(),
                consequential: Vec::new(),
                digest: call.digest,
            };
            examine(&self.key, WINDOW, remembered, &outgoing, self.now)
        }

        fn note(&mut self, step: Step) {
            self.history.note(&step, self.now, WINDOW);
        }
    }

    #[derive(Clone, Copy)]
    struct Sending<'a> {
        kind: SinkKind,
        to: &'a str,
        text: &'a str,
        standing: Standing,
        digest: u64,
    }

    fn mail<'a>(to: &'a str, text: &'a str) -> Sending<'a> {
        Sending { kind: SinkKind::Message, to, text, standing: Standing::Nothing, digest: 1 }
    }

    #[test]
    fn a_canary_that_leaves_is_found_however_it_is_written() {
        const TOKEN: &str = "zq-7f3kd81m-bluebird-0042-x9";
        let mut run = Run::that_read(&[]);
        assert!(run.canaries.add(&run.key, "short", "too-short-1").is_err());
        run.canaries.add(&run.key, "vault", TOKEN).unwrap();
        let reversed: String = TOKEN.chars().rev().collect();
        let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
        for (text, found) in [
            (TOKEN, true),
            ("see ZQ 7F3KD81M bluebird 0042 today", true),
            (&*reversed, true),
            (&*hex, true),
            ("zq-7f3kd81m alone is too little", false),
            ("nothing of the kind", false),
        ] {
            let examined = run.examine(&mail("x@example.com", text));
            assert_eq!(examined.has(&FindingKind::Canary(Arc::from("vault"))), found, "{text}");
        }
    }

    #[test]
    fn three_records_for_one_place_are_many_even_where_it_is_known() {
        let mut run = Run::that_read(&MAILS);
        let all = MAILS.concat();
        let granted = |text| Sending { standing: Standing::Granted, ..mail("ana@example.org", text) };
        let two = run.examine(&granted(MAILS[..2].concat().leak()));
        assert!(!two.has(&FindingKind::BulkLineage) && !two.has(&FindingKind::Lineage));
        assert!(run.examine(&granted(&all)).has(&FindingKind::BulkLineage), "all at once");
        run.note(two.sent().unwrap());
        assert!(run.examine(&granted(MAILS[2])).has(&FindingKind::BulkLineage), "one after another");
        assert!(!run.examine(&granted(MAILS[0])).has(&FindingKind::BulkLineage), "what it has already");
        let other = Sending { to: "bob@example.org", ..granted(MAILS[2]) };
        assert!(!run.examine(&other).has(&FindingKind::BulkLineage), "each place is counted alone");
        run.now += WINDOW + Duration::from_secs(1);
        assert!(!run.examine(&granted(&all)).has(&FindingKind::BulkLineage), "after the window");
    }

    #[test]
    fn another_try_after_a_stopped_call_is_probing() {
        let mut run = Run::that_read(&[]);
        let first = mail("x@example.com", "hello");
        let examined = run.examine(&first);
        assert!(!examined.has(&FindingKind::Probing));
        let places: Vec<u64> = examined.places.iter().map(|(place, _)| *place).collect();
        run.note(Step::Stopped { digest: 1, destinations: places });
        let again = Sending { digest: 2, ..first };
        let granted = |to| Sending { to, standing: Standing::Granted, ..again };
        for (call, found, why) in [
            (first, false, "the repeat of the call itself"),
            (again, true, "the same place"),
            (granted("x@example.com"), true, "the same place, even a known one"),
            (Sending { to: "y@example.net", ..again }, true, "a new place"),
            (granted("ana@example.org"), false, "a known place"),
        ] {
            assert_eq!(run.examine(&call).has(&FindingKind::Probing), found, "{why}");
        }
        let stopped = run.now;
        run.now += WINDOW + Duration::from_secs(1);
        assert!(!run.examine(&again).has(&FindingKind::Probing), "after the window");
        run.now = stopped;
        run.note(Step::Approved { digest: 1 });
        assert!(!run.examine(&again).has(&FindingKind::Probing), "a person approved");
    }

    #[test]
    fn a_url_that_was_never_read_and_carries_much_is_found() {
        let get = |to| Sending { kind: SinkKind::Http, ..mail(to, "") };
        let mut run = Run::that_read(&[
            MAILS[0],
            "See https://docs.example.org/guides/a-long-path/to/read?page=12 first.",
        ]);
        for (to, found) in [
            ("https://log.example.com/p?d=dGhlIGJvYXJkIG1lZXRzIG9u", true),
            ("https://thefirsthalf.ofthesecret.in.the.labels.example.com/", true),
            ("https://log.example.com/", false),
            ("https://www.example.com/about", false),
            ("https://docs.example.org/guides/a-long-path/to/read?page=12", false),
        ] {
            assert_eq!(run.examine(&get(to)).has(&FindingKind::ConstructedUrl), found, "{to}");
            let nothing_read = Run::that_read(&[]);
            assert!(!nothing_read.examine(&get(to)).has(&FindingKind::ConstructedUrl), "{to}");
        }
        // Little by little: what one registrable domain gets is added up.
        let parts = ["https://a.example.net/0123456789", "https://b.example.net/abcdefghij"];
        let first = run.examine(&get(parts[0]));
        assert!(!first.has(&FindingKind::ConstructedUrl));
        run.note(first.sent().unwrap());
        let second = run.examine(&get(parts[1]));
        run.note(second.sent().unwrap());
        assert!(run.examine(&get(parts[0])).has(&FindingKind::ConstructedUrl));
    }
}
