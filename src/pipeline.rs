//! The life of one call, read from top to bottom. Read this first.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use time::OffsetDateTime;

use crate::accept::{Conn, Gone};
use crate::call::{Stage, Stop, StopKind};
use crate::classify::catalog::Catalog;
use crate::credential::Broker;
use crate::decide::{Moment, Policy, Verdict};
use crate::decode::Decoder;
use crate::flow::Runs;
use crate::forward::{HopHeaders, Reply, Upstreams};
use crate::identify::directory::Directory;
use crate::limit::{Meters, Slot};
use crate::observe::{Audience, Body};
use crate::record::{Evidence, Record};
use crate::telemetry::hop::HttpVersion;
use crate::{
    accept, answer, classify, credential, decide, decode, flow, forward, hold, identify, limit, observe,
};

/// Everything that the stages work with.
pub struct Gateway {
    /// Who may call.
    pub directory: Directory,
    /// What requests may be, and where they may go.
    pub decoder: Decoder,
    /// What calls do.
    pub catalog: Catalog,
    /// Limits.
    pub meters: Meters,
    /// What runs have read.
    pub runs: Runs,
    /// Policy.
    pub policy: Policy,
    /// Audit and traces.
    pub evidence: Arc<Evidence>,
    /// Credentials.
    pub broker: Broker,
    /// Where calls go.
    pub upstreams: Upstreams,
}

/// Serves one request: whatever happens, it is on the record and it is answered.
pub async fn serve(gw: &Gateway, conn: &Conn, request: Request<Incoming>) -> Response<Body> {
    let http = if conn.is_h2() { HttpVersion::Two } else { HttpVersion::One };
    let mut record = Record::open(&gw.evidence, conn.peer(), http);
    match run(gw, conn, request, &mut record).await {
        Ok((reply, slot, audience)) => {
            let (shape, id) = (record.shape.clone(), record.id());
            let passing = observe::reply(reply, slot, record, &audience).await;
            passing.unwrap_or_else(|stop| own(answer::refusal(&stop, &shape, id)))
        }
        Err(stop) => {
            let response = answer::refusal(&stop, &record.shape, record.id());
            record.stopped(&stop, response.status().as_u16()).await;
            own(response)
        }
    }
}

fn own(response: Response<Bytes>) -> Response<Body> {
    response.map(|bytes| Body::Own(Some(bytes)))
}

async fn run(
    gw: &Gateway,
    conn: &Conn,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<(Reply, Slot, Audience), Box<Stop>> {
    // Understand: nothing outside this process has been touched.
    let gone = Gone::of(&request);
    record.enter(Stage::Accept);
    limit::admit(&gw.meters, &conn.fingerprint())?;
    accept::sound(conn, &request)?;
    record.enter(Stage::Identify);
    let agent = identify::agent(&gw.directory, conn, OffsetDateTime::now_utc().date())?;
    record.identified(&agent);
    record.enter(Stage::Decode);
    let call = decode::call(&gw.decoder, agent, request, &mut record.shape).await?;
    record.decoded(&call);
    record.enter(Stage::Classify);
    let facts = classify::call(&gw.catalog, &call)?;
    record.understood(&facts);
    record.enter(Stage::Limit);
    let slot = limit::acquire(&gw.meters, limit::Subject::of(call.agent().id(), &facts))?;
    record.enter(Stage::Flow);
    let now = SystemTime::now();
    let audience = Audience::of(&call, &gw.decoder.sessions);
    let entry = flow::enter(&gw.runs, &audience.agent, flow::run_of(&call, &gw.evidence.pseudonyms), now);
    record.entered(&entry);
    let mut known = entry.labels.clone();

    // Decide: from here on the call exists only inside a verdict.
    record.enter(Stage::Decide);
    let judged = decide::call(&gw.policy, call, facts, entry, Moment { now, source_ip: conn.peer().ip() });
    record.decided(&judged);
    let permitted = match judged.verdict {
        Verdict::Allow(permitted) => permitted,
        Verdict::Deny(stop) => return Err(stop),
        Verdict::Hold(held) => {
            record.enter(Stage::Hold);
            return Err(hold::pending(&held.terms, &held.rule));
        }
    };

    // Act: nothing leaves before the ledger has it.
    record.enter(Stage::Commit);
    let brings = flow::brings(permitted.facts().returns);
    flow::sent(&gw.runs, &audience.agent, &brings, now);
    known.extend_from_slice(&brings);
    let steady = Box::new(flow::steady(&gw.runs, &audience.agent, known));
    let committed = record.commit(permitted, &brings).await?;
    record.enter(Stage::Credential);
    let lease = credential::lease(&gw.broker, &committed, &gw.evidence.pseudonyms)?;
    record.leased(lease.fingerprint());
    record.enter(Stage::Forward);
    record.sending(gw.upstreams.dial(&committed));
    let hop = HopHeaders { record: record.id(), context: record.upstream_context() };
    let leave = forward::leave(&committed);
    let sending = pin!(forward::send(&gw.upstreams, committed, lease, hop, steady));
    let reply = gone.unless(leave, sending).await.unwrap_or_else(|| Err(left()))?;
    record.replied(reply.head.status.as_u16());
    record.enter(Stage::Observe);
    Ok((reply, slot, audience))
}

fn left() -> Box<Stop> {
    Stop::new(
        Stage::Forward,
        StopKind::UpstreamFailed,
        "client-gone",
        "the agent left before the reply began",
    )
}
