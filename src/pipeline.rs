//! The life of one call, read from top to bottom. Read this first.

mod continuing;
mod dialogue;
mod generation;
mod held;
mod leaving;
pub mod listing;
mod several;
mod tasks;

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use crate::accept::{Conn, Gone};
use crate::breakglass::Lifts;
use crate::call::{PolicyInput, RecordId, Shade, Stage, Stop, StopKind};
use crate::decide::{Moment, Permitted, Verdict};
use crate::decode::{Decoded, Inbound};
use crate::flow::Runs;
use crate::flow::endorsed::Endorsed;
use crate::flow::journal::Journal;
use crate::forward::breaker::Pass;
use crate::forward::{HopHeaders, Reply};
use crate::hold::Gate;
use crate::identify::Agent;
use crate::identify::suspended::Suspensions;
use crate::limit::Slot;
use crate::observe::{Body, Parked};
use crate::record::{Evidence, Record};
use crate::store::Store;
use crate::task::Tasks;
use crate::telemetry::hop::HttpVersion;
use dialogue::Judging;
pub use generation::Generation;
use leaving::InRun;

use crate::{accept, answer, classify, credential, decide, decode, flow, forward, identify, limit, observe};

/// Everything that the stages work with.
pub struct Gateway {
    /// What configuration gives; a call takes it once.
    pub in_force: ArcSwap<Generation>,
    /// Who may not call, by an order that no registry lifts.
    pub suspensions: Suspensions,
    /// Is told when another generation is in force.
    pub turned: Notify,
    /// What runs have read.
    pub runs: Arc<Runs>,
    /// Destinations that people remembered.
    pub endorsed: ArcSwap<Endorsed>,
    /// Tasks that orchestrators opened.
    pub tasks: Tasks,
    /// What of it survives the process.
    pub journal: Arc<Journal>,
    /// Where it is kept what was frozen. No call that goes waits for it.
    pub store: Arc<dyn Store>,
    /// Audit and traces.
    pub evidence: Arc<Evidence>,
    /// Calls whose response comes on another stream.
    pub parked: Arc<Parked>,
    /// Where calls wait for people.
    pub gate: Arc<Gate>,
    /// What people lift in an emergency.
    pub lifts: Arc<Lifts>,
    /// What is told upstreams in agents' names while nobody waits for it.
    pub errands: Errands,
}

/// Requests that the gateway makes itself, at most so many at one time; the end of the program waits for them.
pub struct Errands(Arc<Semaphore>);

impl Errands {
    const AT_ONCE_MAX: u32 = 256;

    /// Makes one, if there is room for it.
    fn run(&self, errand: impl Future<Output = ()> + Send + 'static) {
        match (Arc::clone(&self.0).try_acquire_owned(), Handle::try_current()) {
            (Ok(room), Ok(runtime)) => drop(runtime.spawn(async move {
                errand.await;
                drop(room);
            })),
            _ => tracing::warn!(event = "errands.full", "an upstream was not told that it gets no answer"),
        }
    }

    /// Waits until all have been made.
    pub async fn made(&self) {
        drop(self.0.acquire_many(Errands::AT_ONCE_MAX).await);
    }
}

impl Default for Errands {
    fn default() -> Errands {
        Errands(Arc::new(Semaphore::new(Errands::AT_ONCE_MAX as usize)))
    }
}

/// Serves one request: whatever happens, it is on the record and it is answered.
pub async fn serve(gw: &Arc<Gateway>, conn: &Arc<Conn>, request: Request<Inbound>) -> Response<Body> {
    // Boxed, so that the room of a whole call is given back before it waits for people.
    match Box::pin(begin(gw, conn, request)).await {
        Begun::Answered(response) => response,
        Begun::Waits(waiting) => waiting.await,
    }
}

/// How far a request has come.
enum Begun {
    Answered(Response<Body>),
    /// It waits for people, without the room of what went before.
    Waits(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

async fn begin(gw: &Arc<Gateway>, conn: &Arc<Conn>, request: Request<Inbound>) -> Begun {
    let http = if conn.is_h2() { HttpVersion::Two } else { HttpVersion::One };
    let mut record = Record::open(&gw.evidence, conn.peer(), conn.fingerprint(), http);
    record.traced(decode::header_context(request.headers()));
    let gone = Gone::of(&request);
    // Another may come into force at any time; this call knows only this one.
    let generation = gw.in_force.load_full();
    Begun::Answered(match run(gw, &generation, conn, &gone, request, &mut record).await {
        Ok(Passed::Reply(reply, slot, judging)) => replied(record, reply, slot, judging, &gone).await,
        Ok(Passed::Held(waiting)) => {
            let (gw, conn) = (Arc::clone(gw), Arc::clone(conn));
            return Begun::Waits(Box::pin(held::serve(gw, generation, conn, gone, record, waiting)));
        }
        Ok(Passed::Task(question)) => {
            // Boxed, as below: what few calls need must not make the state of every call larger.
            Box::pin(tasks::serve(gw, &generation, conn, gone, record, *question)).await
        }
        Ok(Passed::Status(id)) => Box::pin(held::status(gw, conn, record, id)).await,
        Ok(Passed::Batch(messages)) => {
            record.split();
            Box::pin(several::serve(gw, conn, messages)).await
        }
        Err(stop) => Box::pin(stopped(record, &stop)).await,
    })
}

/// Passes a reply on.
fn replied(
    record: Record,
    reply: Reply,
    slot: Slot,
    judging: Judging,
    gone: &Gone,
) -> impl Future<Output = Response<Body>> {
    let (shape, id) = (record.shape.clone(), record.id());
    let Judging { judge, tap, elsewhere } = judging;
    let passing = Box::pin(observe::reply(reply, slot, record, (judge, tap), elsewhere, gone));
    async move { passing.await.unwrap_or_else(|stop| own(answer::refusal(&stop, &shape, id))) }
}

/// Says why a call did not go on.
async fn stopped(record: Record, stop: &Stop) -> Response<Body> {
    let response = answer::refusal(stop, &record.shape, record.id());
    record.stopped(stop, response.status().as_u16()).await;
    own(response)
}

fn own(response: Response<Bytes>) -> Response<Body> {
    response.map(|bytes| Body::Own(Some(bytes)))
}

/// What came of a request that was not stopped.
#[expect(clippy::large_enum_variant, reason = "one is made for each request, and taken apart at once")]
enum Passed {
    /// Its messages go on one by one.
    Batch(Vec<Request<Inbound>>),
    /// It waits for people.
    Held(Box<held::Waiting>),
    /// The upstream replies.
    Reply(Reply, Slot, Judging),
    /// The agent asks how a hold of its own stands.
    Status(RecordId),
    /// The agent asks about a task that is the gateway's own.
    Task(Box<tasks::Question>),
}

/// A call that may go, with what goes with it. It goes in a box, since what acts on it would else hold it twice.
struct Going<'a> {
    permitted: Permitted,
    pass: Pass<'a>,
    slot: Slot,
    judging: Judging,
    answer: dialogue::Answer,
    input: Box<PolicyInput>,
    shade: Shade,
    /// Where it belongs, and what was found in it.
    in_run: InRun,
    /// The hold that it was released from.
    hold: Option<RecordId>,
}

/// Who calls, in a request that can be read in one way.
fn caller(
    gw: &Gateway,
    generation: &Generation,
    conn: &Arc<Conn>,
    request: &Request<Inbound>,
    record: &mut Record,
) -> Result<Agent, Box<Stop>> {
    record.enter(Stage::Accept);
    limit::admit(&generation.meters, &conn.fingerprint())?;
    accept::sound(conn, request)?;
    record.enter(Stage::Identify);
    let today = OffsetDateTime::now_utc().date();
    let agent = identify::agent(&generation.directory, &gw.suspensions, conn, today)
        .inspect_err(|_| record.certified(conn.agent_id(), conn.serial()))?;
    record.identified(&agent);
    Ok(agent)
}

async fn run(
    gw: &Arc<Gateway>,
    generation: &Generation,
    conn: &Arc<Conn>,
    gone: &Gone,
    request: Request<Inbound>,
    record: &mut Record,
) -> Result<Passed, Box<Stop>> {
    // Understand: nothing outside this process has been touched.
    let agent = caller(gw, generation, conn, &request, record)?;
    if let Some(hold) = held::asked(&request) {
        return Ok(Passed::Status(hold));
    }
    record.enter(Stage::Decode);
    let mut call = match decode::call(&generation.decoder, agent, request, &mut record.shape).await? {
        Decoded::One(call) => call,
        Decoded::Batch(messages) => return Ok(Passed::Batch(messages)),
    };
    let mut carried = None;
    if let Some(state) = held::state(&call) {
        (call, carried) = held::carried(gw, &generation.decoder, call, &state)?;
    }
    record.decoded(&call);
    if let Some(task) = tasks::asked(&call)? {
        return Ok(Passed::Task(Box::new(tasks::Question { call, task })));
    }
    let now = SystemTime::now();
    let scope = gw.tasks.scope(&call.head().headers, call.agent().id(), call.agent().instance(), now)?;
    let answer = dialogue::Answer::of(gw, conn, &call);
    record.enter(Stage::Classify);
    let mut shade = classify::shade(&generation.catalog, &call, now);
    let facts = classify::call(&generation.catalog, &generation.definitions, &call, &mut shade)?;
    record.understood(&call, &facts);
    record.enter(Stage::Limit);
    let slot = limit::acquire(&generation.meters, limit::Subject::of(call.agent().id(), &facts));
    let slot = slot.or_else(|stop| shade.pass(stop, facts.consequence).map(|()| Slot::default()))?;
    record.enter(Stage::Flow);
    let agent = call.agent().id().clone();
    let (in_run, entry) = InRun::enter(gw, generation, (&call, &facts), scope.as_deref(), now);
    record.entered(&entry);
    let judging = Judging::of(gw, generation, conn, &call);

    // Decide: from here on the call exists only inside a verdict.
    record.enter(Stage::Decide);
    let break_glass = gw.lifts.over(call.agent().profile(), &call.route().name, now);
    let moment = Moment { now, source_ip: conn.peer().ip(), break_glass };
    let judged = decide::call(&generation.policy, call, facts, entry, moment, &mut shade);
    record.decided(&judged, shade.would_be(), generation.policy.revision());
    in_run.judged(gw, record, &judged).await;
    let permitted = match judged.verdict {
        Verdict::Allow(permitted) => permitted,
        Verdict::Deny(stop) => return Err(stop),
        Verdict::Hold(held) => {
            record.enter(Stage::Hold);
            let policies = judged.decision.policies.clone();
            return Ok(Passed::Held(Box::new(held::Waiting {
                held,
                input: judged.input,
                policies,
                carried,
            })));
        }
    };

    // An upstream that fails is left alone: nothing is sent, so nothing is intended.
    let pass = forward::admit(&generation.upstreams, &permitted.call().route().name, &agent)?;
    let input = judged.input;
    let going = Going { permitted, pass, slot, judging, answer, input, shade, in_run, hold: None };
    act(gw, generation, gone, record, Box::new(going)).await
}

/// Acts: nothing leaves before the ledger has it.
async fn act(
    gw: &Arc<Gateway>,
    generation: &Generation,
    gone: &Gone,
    record: &mut Record,
    going: Box<Going<'_>>,
) -> Result<Passed, Box<Stop>> {
    let Going { permitted, pass, slot, mut judging, answer, input, shade, in_run, hold } = *going;
    let agent = permitted.call().agent().id().clone();
    let mut known = permitted.entry().labels.clone();
    record.enter(Stage::Commit);
    let brings = flow::brings(permitted.facts().returns);
    judging.tap = in_run.sends(gw, generation, &permitted, record.id(), &brings).await?;
    known.extend_from_slice(&brings);
    let steady = Box::new(flow::steady(&gw.runs, in_run.key(), known));
    judging.see(gw, generation, permitted.call(), &input, &shade)?;
    identify::still(&gw.suspensions, &agent)?;
    let committed = record.commit(permitted, &brings).await?;
    // Once more: whoever was suspended while the disk was waited for sends nothing.
    identify::still(&gw.suspensions, &agent)?;
    answer.given();
    record.enter(Stage::Credential);
    let lease = credential::lease(&generation.broker, &committed, &gw.evidence.pseudonyms)?;
    record.leased(lease.fingerprint());
    record.enter(Stage::Forward);
    record.sending(generation.upstreams.dial(&committed));
    let hop = HopHeaders { record: record.id(), context: record.upstream_context(), hold };
    let leave = forward::leave(&committed);
    let sending = Box::pin(forward::send(&generation.upstreams, committed, lease, hop, steady, pass));
    let reply = gone.unless(leave, sending).await.unwrap_or_else(|| Err(left()))?;
    record.replied(reply.head.status.as_u16());
    record.enter(Stage::Observe);
    Ok(Passed::Reply(reply, slot, judging))
}

fn left() -> Box<Stop> {
    Stop::new(
        Stage::Forward,
        StopKind::UpstreamFailed,
        "client-gone",
        "the agent left before the reply began",
    )
}
