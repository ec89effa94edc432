//! What flow control has to do with a call: examining it before it is decided, learning from its reply, and noting what
//! became of it.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Gateway, Generation};
use crate::call::{AgentId, Class, Confidentiality, Integrity, PolicyAction, RecordId, Stop};
use crate::classify::Facts;
use crate::classify::catalog::Reply;
use crate::classify::sink::SinkKind;
use crate::decide::{Judged, Permitted, Verdict};
use crate::decode::Call;
use crate::flow::chain::{Chain, Passing};
use crate::flow::endorsed::{Endorsed, Wanted};
use crate::flow::finding::Standing;
use crate::flow::journal::{Frame, Kind, Series};
use crate::flow::keep::Keeper;
use crate::flow::learn::{Echo, Source};
use crate::flow::provenance::Place;
use crate::flow::{self, Entry, Found, Label, Leaving, Readable, RunKey, history, outgoing};
use crate::observe::Tap;
use crate::record::Record;
use crate::store::Frozen;
use crate::task::Scope;

/// A call in its run, and what was found in it.
pub(super) struct InRun {
    /// Where it belongs.
    key: RunKey,
    /// What came of examining it; `None` where there was nothing to examine.
    leaving: Option<Box<Leaving>>,
    now: SystemTime,
}

impl InRun {
    /// Enters a call into its run, and examines it where it leaves, or where its consequence makes it matter who wrote
    /// its arguments. Examining any other costs nothing.
    pub(super) fn enter(
        gw: &Gateway,
        generation: &Generation,
        (call, facts): (&Call, &Facts),
        scope: Option<&Scope>,
        now: SystemTime,
    ) -> (InRun, Entry) {
        let mut key = RunKey::of(call, scope.map(|scope| scope.task.id), &gw.evidence.pseudonyms);
        if let Some(Scope { task, isolated, .. }) = scope {
            key.isolated = isolated.clone();
            gw.runs.meet_by_task(&task.agents, &task.above, now);
        }
        let mut entry = flow::enter(&gw.runs, &key, now);
        entry.task = scope.map(|scope| scope.told.clone());
        let upstream = generation.catalog.upstream(&call.route().name);
        let completes = match generation.chains.is_empty() || flow::is_off() {
            true => Vec::new(),
            false => as_step(facts, &entry.labels, |passing| {
                gw.runs.completes(&generation.chains, &key, passing, now)
            }),
        };
        let upstream = upstream.filter(|upstream| {
            !completes.is_empty() || outgoing::concerns(facts, &entry.labels, upstream.config())
        });
        let leaving = upstream.filter(|_| !flow::is_off()).map(|upstream| {
            let host = host(generation, &call.route().name).filter(|_| !upstream.config().inside);
            let endorsed = gw.endorsed.load();
            let mut remembered = Remembered::of(&key, facts, scope, &endorsed, now);
            let standing = |sink, text: &str| remembered.standing(sink, text);
            let leaving = outgoing::of(call, facts, host.as_deref(), generation.catalog.internal(), standing);
            entry.endorsements = remembered.used;
            let readable = if facts.lineage_unknown || facts.opaque { Readable::No } else { Readable::Yes };
            let outgoing = (&leaving, readable, completes.as_slice());
            Box::new(flow::examine(&gw.runs, &key, &mut entry, outgoing, now))
        });
        (InRun { key, leaving, now }, entry)
    }

    /// Where the call belongs.
    pub(super) fn key(&self) -> &RunKey {
        &self.key
    }

    /// Notes what was found and, where a finding stopped the call, that it was; that may freeze its run.
    pub(super) async fn judged(&self, gw: &Gateway, record: &mut Record, judged: &Judged) {
        let Some(leaving) = self.leaving.as_deref().filter(|leaving| leaving.is_evidence()) else { return };
        let resource = &judged.input.resource;
        record.found(&self.key, &leaving.findings);
        gw.runs.find(
            &self.key,
            Found {
                record: record.id(),
                at: self.now,
                upstream: Arc::clone(&resource.upstream),
                tool: Arc::clone(&resource.name),
                findings: leaving.findings.clone(),
            },
        );
        // What is frozen is not stopped once more.
        let frozen = judged.input.findings.iter().any(|finding| finding == flow::FROZEN);
        if frozen || matches!(judged.verdict, Verdict::Allow(_)) {
            return;
        }
        let Some((step, froze)) = flow::stopped(&gw.runs, &self.key, leaving, self.now) else { return };
        self.note(gw, &step).await;
        for froze in froze {
            record.froze(&self.key, &froze);
            let run = froze.run.as_deref().unwrap_or_default().to_owned();
            let agent = self.key.agent.clone();
            let frozen = Frozen { agent, run, at: self.now, why: froze.why };
            if let Err(error) = gw.store.freeze(frozen).await {
                gw.evidence.telemetry.metrics().store_failed();
                tracing::error!(agent = %self.key.agent, %error, "a run is frozen until the gateway restarts, and no longer");
            }
        }
    }

    /// Notes that people approved the call, so that it is no try that others are held to.
    pub(super) async fn approved(&self, gw: &Gateway) {
        if let Some(leaving) = &self.leaving {
            self.note(gw, &flow::approved(&gw.runs, &self.key, leaving, self.now)).await;
        }
    }

    /// Labels the run with what a call brings that is about to be sent, notes where it goes, and gives who learns from its
    /// reply. What must be kept and could not be is refused.
    pub(super) async fn sends(
        &self,
        gw: &Gateway,
        generation: &Generation,
        permitted: &Permitted,
        record: RecordId,
        brings: &[Label],
    ) -> Result<Option<Box<Tap>>, Box<Stop>> {
        let (call, facts) = (permitted.call(), permitted.facts());
        flow::keep::ready(&gw.journal, &self.key.agent, brings).await?;
        if !generation.chains.is_empty() && !flow::is_off() {
            self.passes(gw, &generation.chains, facts).await?;
        }
        flow::sent(&gw.runs, &self.key, brings, record, self.now);
        let leaving = self.leaving.as_deref();
        if let Some(step) = leaving.and_then(|leaving| flow::leaves(&gw.runs, &self.key, leaving, self.now)) {
            self.note(gw, &step).await;
        }
        let Some(returns) = returns(facts).filter(|_| !flow::is_off()) else { return Ok(None) };
        let name = &call.route().name;
        let outside = generation.catalog.upstream(name).is_none_or(|upstream| !upstream.config().inside);
        // Only of a reply that is public it matters what the call said itself.
        let echo = match returns.labels.confidentiality {
            Confidentiality::Public => {
                let strings = outgoing::strings(call);
                Echo::of(gw.runs.key(), strings.iter().map(|text| &**text))
            }
            Confidentiality::Internal | Confidentiality::Secret => Echo::default(),
        };
        let source = Source {
            key: Arc::clone(gw.runs.key()),
            reply: record,
            upstream: Arc::clone(name),
            tool: Arc::clone(&facts.resource.name),
            host: host(generation, name).filter(|_| outside).map(Arc::from),
            returns,
            parties: leaving.map(|leaving| leaving.parties.clone()).unwrap_or_default(),
            echo,
        };
        let keeper = Keeper::new(&gw.runs, &gw.journal, self.key.clone(), source, brings);
        Ok(Some(Box::new(Tap::new(keeper))))
    }

    /// Notes the steps of sequences that a call is which is about to be sent. One that cannot be kept is refused; it counts
    /// as a step all the same.
    async fn passes(&self, gw: &Gateway, chains: &[Chain], facts: &Facts) -> Result<(), Box<Stop>> {
        let labels = gw.runs.in_force(&self.key, self.now);
        let taken = as_step(facts, &labels, |passing| gw.runs.passes(chains, &self.key, passing, self.now));
        for (advanced, within) in taken {
            // Segments of the one series go with the window, those of the other stay as long as any sequence may take.
            let series = if within > gw.runs.config().window { Series::Secret } else { Series::Read };
            flow::keep::step(&gw.journal, series, &self.frame(Kind::Passed, advanced.encode())).await?;
        }
        Ok(())
    }

    /// Keeps over a restart what was done. A disk that does not take it is said aloud; what was read is refused by then.
    async fn note(&self, gw: &Gateway, step: &history::Step) {
        if let Err(error) = gw.journal.append(Series::Read, &self.frame(Kind::Sent, step.encode())).await {
            tracing::error!(%error, "what an agent sent is forgotten at the next restart");
        }
    }

    fn frame(&self, kind: Kind, data: Vec<u8>) -> Frame {
        Frame {
            kind,
            agent: self.key.agent.clone(),
            run: self.key.run.to_string(),
            trace: self.key.trace,
            instance: self.key.instance.as_deref().map(str::to_owned),
            labels: 0,
            at: self.now,
            data,
        }
    }
}

/// A call as operators' sequences see it: a read with what its reply brings, any other with what its run has read. What only
/// asks what there is is no step.
fn as_step<T: Default>(facts: &Facts, labels: &[Label], with: impl FnOnce(&Passing<'_>) -> T) -> T {
    if facts.action == PolicyAction::Discover {
        return T::default();
    }
    let brings;
    let labels = match facts.class {
        Class::Read => {
            brings = flow::brings(facts.returns);
            &brings
        }
        Class::Write | Class::External => labels,
    };
    let labels: Vec<&str> = labels.iter().map(|label| label.as_str()).collect();
    let (upstream, tool) = (&facts.resource.upstream, &facts.resource.name);
    with(&Passing { class: facts.class, upstream, tool, labels: &labels })
}

/// What an approver remembered, and what the task grants, of the destinations of one call.
struct Remembered<'a> {
    agent: &'a AgentId,
    scope: Option<&'a Scope>,
    /// None where there is nothing for the agent.
    endorsed: Option<&'a Endorsed>,
    consequence: u8,
    now: SystemTime,
    /// The endorsements that it went by.
    used: Vec<RecordId>,
}

impl<'a> Remembered<'a> {
    fn of(
        key: &'a RunKey,
        facts: &Facts,
        scope: Option<&'a Scope>,
        endorsed: &'a Endorsed,
        now: SystemTime,
    ) -> Remembered<'a> {
        let agent = &key.agent;
        let endorsed = endorsed.has(agent).then_some(endorsed);
        Remembered { agent, scope, endorsed, consequence: facts.consequence.level(), now, used: Vec::new() }
    }

    fn standing(&mut self, sink: SinkKind, text: &str) -> Standing {
        if self.scope.is_none() && self.endorsed.is_none() {
            return Standing::Nothing;
        }
        let place = &Place::of(sink, text);
        if self.scope.is_some_and(|scope| scope.grants(place)) {
            return Standing::Granted;
        }
        let wanted = Wanted { sink, place, consequence: self.consequence };
        let found = self.endorsed.and_then(|endorsed| endorsed.find(self.agent, &wanted, self.now));
        let Some((id, most)) = found else { return Standing::Nothing };
        if !self.used.contains(&id) {
            self.used.push(id);
        }
        Standing::Endorsed(most)
    }
}

/// What the reply to a call brings; `None` where that is nothing. What is public and trusted is only of use where the
/// catalogue says what its records are.
fn returns(facts: &Facts) -> Option<Arc<Reply>> {
    let entry = facts.entry.as_ref().map(|entry| &entry.returns);
    let returns = match entry {
        Some(returns) if returns.labels == facts.returns => Arc::clone(returns),
        Some(returns) => Arc::new(Reply { labels: facts.returns, ..Reply::clone(returns) }),
        None => Arc::new(Reply { labels: facts.returns, ..Reply::default() }),
    };
    let plain = returns.labels.confidentiality == Confidentiality::Public
        && returns.labels.integrity == Integrity::Trusted
        && returns.records.is_none()
        && returns.known.is_empty()
        && returns.ids.is_empty();
    (!plain).then_some(returns)
}

/// The host of an upstream, without its port.
fn host(generation: &Generation, name: &str) -> Option<String> {
    let authority = generation.upstreams.authority(name)?.to_str().ok()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    Some(host.to_owned())
}
