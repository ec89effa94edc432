//! What flow control has to do with a call: examining it before it is decided, learning from its reply, and noting what
//! became of it.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Gateway, Generation};
use crate::call::{Confidentiality, Integrity};
use crate::classify::Facts;
use crate::classify::catalog::Reply;
use crate::decide::{Judged, Verdict};
use crate::decode::Call;
use crate::flow::finding::Standing;
use crate::flow::journal::{Frame, Kind, Series};
use crate::flow::keep::Keeper;
use crate::flow::learn::{Echo, Source};
use crate::flow::{self, Entry, Found, Label, Leaving, Readable, RunKey, history, outgoing};
use crate::observe::Tap;
use crate::record::Record;
use crate::store::Frozen;

/// Examines a call that leaves, or whose consequence makes it matter who wrote its arguments. Nothing is given for any
/// other, and it costs nothing.
pub(super) fn examine(
    gw: &Gateway,
    generation: &Generation,
    (call, facts): (&Call, &Facts),
    key: &RunKey,
    entry: &mut Entry,
    now: SystemTime,
) -> Option<Leaving> {
    let upstream = generation.catalog.upstream(&call.route().name)?;
    if flow::is_off() || !outgoing::concerns(facts, upstream.config()) {
        return None;
    }
    let host = host(generation, &call.route().name).filter(|_| !upstream.config().inside);
    // What an approver remembered and what a task grants is asked here.
    let standing = |_: &str| Standing::Nothing;
    let leaving = outgoing::of(call, facts, host.as_deref(), generation.catalog.internal(), standing);
    let readable = if facts.lineage_unknown || facts.opaque { Readable::No } else { Readable::Yes };
    Some(flow::examine(&gw.runs, key, entry, (&leaving, readable), now))
}

/// Notes what was found and, where a finding stopped the call, that it was; that may freeze its run.
pub(super) async fn judged(
    gw: &Gateway,
    record: &mut Record,
    (call, key): (&Arc<str>, &RunKey),
    judged: &Judged,
    leaving: Option<&Leaving>,
    now: SystemTime,
) {
    let Some(leaving) = leaving else { return };
    if !leaving.findings.is_empty() {
        record.found(key, &leaving.findings);
        let tool = Arc::clone(&judged.input.resource.name);
        let findings = leaving.findings.clone();
        gw.runs.find(key, Found { record: record.id(), at: now, upstream: Arc::clone(call), tool, findings });
    }
    if matches!(judged.verdict, Verdict::Allow(_)) {
        return;
    }
    let Some((step, froze)) = flow::stopped(&gw.runs, key, leaving, now) else { return };
    note(gw, key, &step, now).await;
    for froze in froze {
        record.froze(key, &froze);
        let run = froze.run.as_deref().unwrap_or_default().to_owned();
        let frozen = Frozen { agent: key.agent.clone(), run, at: now, why: froze.why };
        if let Err(error) = gw.store.freeze(frozen).await {
            gw.evidence.telemetry.metrics().store_failed();
            tracing::error!(agent = %key.agent, %error, "a run is frozen until the gateway restarts, and no longer");
        }
    }
}

/// Notes that a call leaves.
pub(super) async fn sent(gw: &Gateway, key: &RunKey, leaving: Option<&Leaving>, now: SystemTime) {
    if let Some(step) = leaving.and_then(|leaving| flow::leaves(&gw.runs, key, leaving, now)) {
        note(gw, key, &step, now).await;
    }
}

/// Keeps what was done over a restart. A disk that does not take it is said aloud; what was read is refused by then.
async fn note(gw: &Gateway, key: &RunKey, step: &history::Step, now: SystemTime) {
    let frame = Frame {
        kind: Kind::Sent,
        agent: key.agent.clone(),
        run: key.run.to_string(),
        trace: key.trace,
        labels: 0,
        at: now,
        data: step.encode(),
    };
    if let Err(error) = gw.journal.append(Series::Read, &frame).await {
        tracing::error!(%error, "what an agent sent is forgotten at the next restart");
    }
}

/// Who learns from the reply to a call; nobody where there is nothing to learn.
pub(super) fn tap(
    gw: &Gateway,
    generation: &Generation,
    (call, facts): (&Call, &Facts),
    key: &RunKey,
    record: &Record,
    brings: &[Label],
) -> Option<Tap> {
    let returns = returns(facts)?;
    if flow::is_off() {
        return None;
    }
    let name = &call.route().name;
    let outside = generation.catalog.upstream(name).is_none_or(|upstream| !upstream.config().inside);
    let key_of = gw.runs.key();
    // Only of a reply that is public it matters what the call said itself.
    let echo = match returns.labels.confidentiality {
        Confidentiality::Public => {
            let strings = outgoing::strings(call);
            Echo::of(key_of, strings.iter().map(|text| &**text))
        }
        Confidentiality::Internal | Confidentiality::Secret => Echo::default(),
    };
    let source = Source {
        key: Arc::clone(key_of),
        reply: record.id(),
        upstream: Arc::clone(name),
        tool: Arc::clone(&facts.resource.name),
        host: host(generation, name).filter(|_| outside).map(Arc::from),
        returns,
        echo,
    };
    Some(Tap::new(Keeper::new(&gw.runs, &gw.journal, key.clone(), source, brings)))
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
