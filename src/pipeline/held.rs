//! The life of a call that waits for people: it joins its hold, its client waits as it can, and once people have approved
//! it, it is understood, judged and sent by what is so then. Nothing that was known when it was held is relied on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::dialogue::{self, Judging};
use super::leaving::InRun;
use super::{Gateway, Generation, Going, Passed, continuing, own, replied, stopped};
use crate::accept::{Conn, Gone};
use crate::answer;
use crate::call::{Approval, Asked, Era, PolicyInput, RecordId, Stage, Stop, StopKind, hex};
use crate::classify::Facts;
use crate::decide::{Held, Moment, Verdict};
use crate::decode::jsonrpc::Message;
use crate::decode::{Call, Decoder};
use crate::hold::continuing::Continued;
use crate::hold::digest::{self, Facing, Subject};
use crate::hold::ladder::{self, Carried, Rung};
use crate::hold::{self, Waiter, Wish};
use crate::observe::{Body, Later};
use crate::record::Record;
use crate::store::holds::{About, Hold, HoldState, Terms};
use crate::{classify, decide, forward, identify, limit};

/// A call that policy holds.
pub(super) struct Waiting {
    pub(super) held: Held,
    pub(super) input: Box<PolicyInput>,
    /// The policies that ask for people, by id.
    pub(super) policies: Vec<Arc<str>>,
    /// What its agent carried from the leg before.
    pub(super) carried: Option<Carried>,
}

/// Where agents ask how a hold of theirs stands.
const STATUS_PATH: &str = "/.well-known/holdpoint/holds/";
/// How long a request whose call another one executes waits for that to end.
const JOIN_TIME_MAX: Duration = Duration::from_secs(45);

/// The hold that a request asks about, if it asks how one stands.
pub(super) fn asked<B>(request: &Request<B>) -> Option<RecordId> {
    let id = request.uri().path().strip_prefix(STATUS_PATH)?;
    if request.method() == Method::GET { RecordId::parse(id) } else { None }
}

/// Says how a hold stands, to the agent whose call it is and to nobody else.
pub(super) async fn status(gw: &Gateway, conn: &Conn, record: Record, id: RecordId) -> Response<Body> {
    let hold = match gw.gate.find(id).await {
        Ok(hold) => hold.filter(|hold| hold.about.agent == *conn.agent_id()),
        Err(stop) => return stopped(record, &stop).await,
    };
    let Some(hold) = hold else {
        let text = "no such hold";
        return stopped(record, &Stop::new(Stage::Hold, StopKind::NotFound, "hold", text)).await;
    };
    let response = answer::status_of(&hold::told(&hold), hold.state.as_str(), record.id());
    record.told(response.status().as_u16());
    own(response)
}

/// The state that a call carries, when it begins as one of this gateway's.
pub(super) fn state(call: &Call) -> Option<String> {
    call.envelope().filter(|envelope| envelope.era == Era::Modern)?;
    let state = call.message()?.params()?.get("requestState")?.string()?;
    state.starts_with(ladder::STATE_PREFIX).then(|| state.into_owned())
}

/// Takes what the agent carried from the leg before out of its call, and puts back what stood there.
pub(super) fn carried(
    gw: &Gateway,
    decoder: &Decoder,
    call: Box<Call>,
    state: &str,
) -> Result<(Box<Call>, Option<Carried>), Box<Stop>> {
    let refused = || {
        let text = "the requestState is not one that this gateway gave for this call, or its time is over";
        Stop::new(Stage::Decode, StopKind::Malformed, "params", text)
    };
    let carried = Carried::open(state, gw.gate.sealer()).ok_or_else(refused)?;
    let message = call.message().ok_or_else(refused)?;
    let mine = carried.agent == call.agent().id().as_str()
        && Some(carried.method.as_str()) == message.method()
        && carried.until >= seconds(SystemTime::now());
    if !mine {
        return Err(refused());
    }
    let bytes = restored(message, &carried).ok_or_else(refused)?;
    let message = Message::read(bytes, &decoder.bounds.json)?;
    Ok((call.speaking(message), Some(carried)))
}

/// The message as it was before it carried a state of this gateway.
fn restored(message: &Message, carried: &Carried) -> Option<Bytes> {
    let (params, whole) = (message.params()?, message.bytes());
    let mut members = Vec::new();
    for (key, value) in params.members() {
        if !matches!(&*key, "inputResponses" | "requestState") {
            members.push(format!(
                "{}:{}",
                serde_json::Value::from(&*key),
                std::str::from_utf8(value.raw()).ok()?
            ));
        }
    }
    members.extend(carried.answers.iter().map(|answers| format!("\"inputResponses\":{answers}")));
    members.extend(carried.state.iter().map(|state| format!("\"requestState\":{state}")));
    let range = params.range();
    let mut text = whole.get(..range.start)?.to_vec();
    text.extend_from_slice(format!("{{{}}}", members.join(",")).as_bytes());
    text.extend_from_slice(whole.get(range.end..)?);
    Some(Bytes::from(text))
}

/// Serves a held call: it waits, unless people have approved it in the leg before. Ten thousand may wait at once, so what
/// is done before and after is boxed: only what waits takes room meanwhile.
pub(super) async fn serve(
    gw: Arc<Gateway>,
    generation: Arc<Generation>,
    conn: Arc<Conn>,
    gone: Gone,
    record: Record,
    waiting: Box<Waiting>,
) -> Response<Body> {
    if let Some(continued) = continuing::of(&gw, &generation, &waiting) {
        let Waiting { held, .. } = *waiting;
        let call = held.take();
        return Box::pin(continuing::serve(&gw, &conn, gone, record, (call, continued))).await;
    }
    let begun = Instant::now();
    let legs = waiting.carried.as_ref().map_or(0, |carried| carried.leg);
    let rung = ladder::rung(waiting.held.call(), legs);
    let most = if gw.gate.is_manned() { generation.holds.wait_max } else { Duration::ZERO };
    let opened = Box::pin(Case::open(&gw, &generation, &conn, gone, record, *waiting)).await;
    // A configuration of before must not be kept by those that wait.
    drop((gw, generation, conn));
    let case = match opened {
        Ok(case) => case,
        Err(refused) => {
            let (record, stop) = *refused;
            return Box::pin(async move { stopped(record, &stop).await }).await;
        }
    };
    wait(case, rung, begun, most).await
}

/// Waits as its client can, and answers it.
async fn wait(mut case: Box<Case>, rung: Rung, begun: Instant, most: Duration) -> Response<Body> {
    if case.moves_within(most.min(ladder::PRELUDE)).await {
        return Box::pin(case.finish()).await;
    }
    let deadline = begun + most.min(ladder::time(&rung));
    match rung {
        Rung::Stream(token) if !most.is_zero() => {
            let message = format!("waiting for approval of hold {}", case.hold.id);
            let progress = token.map(|token| (token, message));
            let otherwise = case.otherwise();
            let head = answer::events_of(case.id());
            let coming = tokio::spawn(Box::pin(async move {
                case.moves_until(deadline).await;
                Box::pin(case.finish()).await
            }));
            head.map(|()| Body::Later(Box::new(Later::new(coming, ladder::BEAT_EVERY, progress, otherwise))))
        }
        Rung::Task if !most.is_zero() && super::tasks::can_be_kept(&case.subject.text) => {
            Box::pin(case.begin_task()).await
        }
        Rung::Legs(leg) if !most.is_zero() => {
            if case.moves_until(deadline).await {
                return Box::pin(case.finish()).await;
            }
            Box::pin(case.next_leg(leg)).await
        }
        Rung::RespondAsync => Box::pin(case.respond_async()).await,
        _ => {
            case.moves_until(deadline).await;
            Box::pin(case.finish()).await
        }
    }
}

/// One request that waits for its hold.
pub(super) struct Case {
    gw: Arc<Gateway>,
    conn: Arc<Conn>,
    gone: Gone,
    /// There until it is answered.
    pub(super) record: Option<Record>,
    /// There until it is judged again.
    call: Option<Box<Call>>,
    pub(super) hold: Hold,
    waiter: Waiter,
    subject: Subject,
    /// The policies that asked for people, by id; none where nobody has looked.
    policies: Vec<Arc<str>>,
    /// How long it waits for another request that executes the call.
    patience: Duration,
}

type Refused = Box<(Record, Box<Stop>)>;

impl Case {
    /// Joins the hold of a call, or opens it.
    async fn open(
        gw: &Arc<Gateway>,
        generation: &Generation,
        conn: &Arc<Conn>,
        gone: Gone,
        mut record: Record,
        waiting: Waiting,
    ) -> Result<Box<Case>, Refused> {
        let Waiting { held, input, policies, carried } = waiting;
        let (trace, this) = (record.context(), record.id());
        let entered = async {
            let task = input.task.as_ref().map(|task| Arc::clone(&task.id)).unwrap_or_default();
            let subject = subject(generation, held.call(), held.facts(), &task)?;
            let subject = subject.ok_or_else(|| hold::unreadable(&held.rule))?;
            if carried.is_some_and(|carried| carried.digest != hex(&subject.digest)) {
                let text = "the requestState is of another call";
                return Err(Stop::new(Stage::Hold, StopKind::Malformed, "params", text));
            }
            let mut wish = Wish { trace, ..wish(&held, &input, generation, subject.clone()) };
            wish.about.call = Some(this);
            let (hold, waiter) = gw.gate.enter(wish, generation.holds).await?;
            Ok((subject, hold, waiter))
        };
        match entered.await {
            Ok((subject, hold, waiter)) => {
                record.held(hold.id);
                let (gw, conn) = (Arc::clone(gw), Arc::clone(conn));
                let call = Some(held.take());
                let patience = generation.holds.wait_max.min(JOIN_TIME_MAX);
                let record = Some(record);
                Ok(Box::new(Case { gw, conn, gone, record, call, hold, waiter, subject, policies, patience }))
            }
            Err(stop) => Err(Box::new((record, stop))),
        }
    }

    /// A call that was made again from what was approved.
    pub(super) fn resumed(
        gw: &Arc<Gateway>,
        conn: &Arc<Conn>,
        gone: Gone,
        record: Record,
        (call, hold, subject): (Box<Call>, Hold, Subject),
    ) -> Case {
        let waiter = gw.gate.waits_for(&hold);
        let (gw, conn) = (Arc::clone(gw), Arc::clone(conn));
        let (record, call, patience) = (Some(record), Some(call), JOIN_TIME_MAX);
        Case { gw, conn, gone, record, call, hold, waiter, subject, policies: Vec::new(), patience }
    }

    fn id(&self) -> RecordId {
        self.record.as_ref().map(Record::id).unwrap_or_default()
    }

    /// What is said in a stream when what came is no message.
    fn otherwise(&self) -> String {
        match self.record.as_ref().map(|record| &record.shape.asked) {
            Some(Asked::ToolCall(id) | Asked::Request(id)) => answer::unanswered(id),
            _ => answer::unanswered("null"),
        }
    }

    async fn moves_within(&mut self, time: Duration) -> bool {
        self.moves_until(Instant::now() + time).await
    }

    /// Waits until people have decided, the agent has left, or the moment has come; whether it is worth going on.
    async fn moves_until(&mut self, deadline: Instant) -> bool {
        if !matches!(self.hold.state, HoldState::Pending | HoldState::Releasing) {
            return true;
        }
        tokio::select! {
            biased;
            moved = self.waiter.moved() => moved,
            () = self.gone.wait() => true,
            () = tokio::time::sleep_until(deadline) => false,
        }
    }

    /// Answers by how the hold stands now: an approved call is executed, by one request alone.
    async fn finish(mut self: Box<Case>) -> Response<Body> {
        let outcome = self.conclude().await;
        let Some(record) = self.record.take() else {
            return own(Response::new(Bytes::new()));
        };
        match outcome {
            Ok(Passed::Reply(reply, slot, judging)) => {
                replied(record, reply, slot, judging, &self.gone).await
            }
            // A released call is one that is sent or stopped, and nothing else.
            Ok(_) => stopped(record, &hold::told(&self.hold)).await,
            Err(stop) => stopped(record, &stop).await,
        }
    }

    pub(super) async fn conclude(&mut self) -> Result<Passed, Box<Stop>> {
        if self.gone.is_gone() {
            return Err(hold::left());
        }
        self.look().await?;
        if self.hold.state == HoldState::Approved {
            if let Some(passed) = self.release().await? {
                return Ok(passed);
            }
            self.look().await?;
        }
        if self.hold.state == HoldState::Releasing {
            // Another request of this agent executes it: one execution for all that joined.
            self.moves_within(self.patience).await;
            self.look().await?;
        }
        Err(hold::told(&self.hold))
    }

    async fn look(&mut self) -> Result<(), Box<Stop>> {
        if let Some(hold) = self.gw.gate.find(self.hold.id).await? {
            self.hold = hold;
        }
        Ok(())
    }

    /// Judges the call again with the approval that it has; then takes the hold and sends it. `None` when somebody else
    /// has taken it.
    async fn release(&mut self) -> Result<Option<Passed>, Box<Stop>> {
        let (Some(call), Some(record)) = (self.call.take(), self.record.as_mut()) else { return Ok(None) };
        let gw = Arc::clone(&self.gw);
        let generation = gw.in_force.load_full();
        let approval = hold::approval(&self.hold, &self.subject.digest);
        let approved = (self.hold.id, approval.clone());
        let is_it = |call: &Call, facts: &Facts, task: &str| match subject(&generation, call, facts, task)? {
            Some(subject) if subject == self.subject => Ok(()),
            _ => Err(hold::altered(&self.hold)),
        };
        let judged = judged_again(&gw, &generation, &self.conn, record, call, approved, is_it).await?;
        let Some(mut going) = judged else { return Err(hold::told(&self.hold)) };
        if self.gone.is_gone() {
            return Err(hold::left());
        }
        let released =
            gw.gate.release(&self.hold, self.subject.digest, (record.id(), record.context())).await?;
        let Some(on_end) = released else { return Ok(None) };
        record.releasing(on_end);
        going.in_run.approved(&gw).await;
        // Whoever left meanwhile is sent nothing for.
        if self.gone.is_gone() {
            return Err(hold::left());
        }
        going.hold = Some(self.hold.id);
        let policies = std::mem::take(&mut self.policies);
        let (hold, until) = (self.hold.id, self.hold.expires);
        continuing::expect(
            &gw,
            &generation,
            &mut going,
            Continued { hold, approval, policies, legs: 0, until },
        );
        super::act(&gw, &generation, &self.gone, record, going).await.map(Some)
    }

    /// Asks a modern client to come back, with a state that only this gateway can read.
    async fn next_leg(mut self: Box<Case>, leg: u8) -> Response<Body> {
        let stop = hold::pending(&self.hold);
        let Some(record) = self.record.take() else { return own(Response::new(Bytes::new())) };
        let state =
            self.call.as_ref().and_then(|call| self.carries(call, leg + 1)?.sealed(self.gw.gate.sealer()));
        let (Some(state), Asked::ToolCall(id)) = (state, record.shape.asked.clone()) else {
            return stopped(record, &stop).await;
        };
        let response = answer::input_required(&id, &state, &stop, record.id());
        record.stopped(&stop, response.status().as_u16()).await;
        own(response)
    }

    /// Tells a plain HTTP client where it may look.
    async fn respond_async(mut self: Box<Case>) -> Response<Body> {
        let stop = hold::pending(&self.hold);
        let Some(record) = self.record.take() else { return own(Response::new(Bytes::new())) };
        let response = answer::later(&stop, &format!("{STATUS_PATH}{}", self.hold.id), record.id());
        record.stopped(&stop, response.status().as_u16()).await;
        own(response)
    }

    /// Gives a modern client a task, for which it asks from time to time.
    async fn begin_task(mut self: Box<Case>) -> Response<Body> {
        let stop = hold::pending(&self.hold);
        let Some(record) = self.record.take() else { return own(Response::new(Bytes::new())) };
        let Asked::ToolCall(id) = record.shape.asked.clone() else { return stopped(record, &stop).await };
        let status = super::tasks::status(&self.gw, &self.hold).await;
        let response = answer::marked(answer::task_begun(&id, &self.hold.id, &status), record.id());
        record.stopped(&stop, response.status().as_u16()).await;
        own(response)
    }

    fn carries(&self, call: &Call, leg: u8) -> Option<Carried> {
        let message = call.message()?;
        let member = |key| {
            let value = message.params()?.get(key)?;
            std::str::from_utf8(value.raw()).ok().map(str::to_owned)
        };
        Some(Carried {
            hold: self.hold.id.to_string(),
            agent: call.agent().id().to_string(),
            method: message.method()?.to_owned(),
            digest: hex(&self.subject.digest),
            leg,
            until: seconds(self.hold.expires),
            state: member("requestState"),
            answers: member("inputResponses"),
        })
    }
}

/// Judges a held call again, by today's registry, catalogue, policy and runs, and with its approval, of this hold. `None`
/// when people would have to be asked for more than that.
pub(super) async fn judged_again<'g>(
    gw: &Arc<Gateway>,
    generation: &'g Generation,
    conn: &'g Arc<Conn>,
    record: &mut Record,
    call: Box<Call>,
    (hold, approval): (RecordId, Approval),
    is_it: impl Fn(&Call, &Facts, &str) -> Result<(), Box<Stop>>,
) -> Result<Option<Box<Going<'g>>>, Box<Stop>> {
    let today = OffsetDateTime::now_utc().date();
    let agent = identify::agent(&generation.directory, &gw.suspensions, conn, today)?;
    let call = call.renewed(agent);
    record.again();
    let now = SystemTime::now();
    let scope = gw.tasks.scope(&call.head().headers, call.agent().id(), call.agent().instance(), now)?;
    let mut shade = classify::shade(&generation.catalog, &call, now);
    let facts = classify::call(&generation.catalog, &generation.definitions, &call, &mut shade)?;
    record.understood(&call, &facts);
    let task = scope.as_ref().map(|scope| Arc::clone(&scope.told.id)).unwrap_or_default();
    is_it(&call, &facts, &task)?;
    let slot = limit::resume(&generation.meters, limit::Subject::of(call.agent().id(), &facts))?;
    let (in_run, entry) = InRun::enter(gw, generation, (&call, &facts), scope.as_deref(), now);
    record.entered(&entry);
    let judging = Judging::of(gw, generation, conn, &call);
    let answer = dialogue::Answer::of(gw, conn, &call);
    let break_glass = gw.lifts.over(call.agent().profile(), &call.route().name, now);
    let moment = Moment { now, source_ip: conn.peer().ip(), break_glass };
    let judged = decide::release(&generation.policy, call, facts, entry, (moment, approval), &mut shade);
    record.decided(&judged, shade.would_be(), generation.policy.revision());
    record.held(hold);
    in_run.judged(gw, record, &judged).await;
    let upstream = Arc::clone(&judged.input.resource.upstream);
    let permitted = match judged.verdict {
        Verdict::Allow(permitted) => permitted,
        Verdict::Deny(stop) => return Err(stop),
        Verdict::Hold(_) => return Ok(None),
    };
    let pass = forward::admit(&generation.upstreams, &upstream, conn.agent_id())?;
    // The credential first: where it is not to be had, the approval is not used up.
    generation.broker.ready(&upstream)?;
    let input = judged.input;
    let going = Going { permitted, pass, slot, judging, answer, input, shade, in_run, hold: None };
    Ok(Some(Box::new(going)))
}

/// What of a call is approved.
fn subject(
    generation: &Generation,
    call: &Call,
    facts: &Facts,
    task: &str,
) -> Result<Option<Subject>, Box<Stop>> {
    let (uri, headers) = forward::facing(&generation.upstreams, call)?;
    let credential = generation.broker.scope(&call.route().name);
    let facing = Facing { uri: &uri, headers: &headers, credential: &credential, task };
    Ok(digest::subject(call, facts, &facing))
}

fn wish(held: &Held, input: &PolicyInput, generation: &Generation, subject: Subject) -> Wish {
    let (agent, resource) = (&input.agent, &input.resource);
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    let key = held.call().head().headers.get("idempotency-key");
    // The name that the agent asked for says more than that no entry names it.
    let asked = held.call().message().and_then(|message| message.params()?.get("name")?.string());
    let tool = match (resource.listed, asked) {
        (false, Some(name)) => name.into_owned(),
        _ => resource.name.to_string(),
    };
    Wish {
        about: About {
            call: None,
            agent: agent.id.clone(),
            owner: agent.owner.to_string(),
            team: agent.team.to_string(),
            task: input.task.as_ref().map(|task| task.id.to_string()).unwrap_or_default(),
            on_behalf_of: text(&input.on_behalf_of),
            upstream: resource.upstream.to_string(),
            tool,
            class: input.class,
            consequence: input.consequence.level(),
            rule: held.rule.to_string(),
            reason: held.reason.clone(),
            run: held.run.to_string(),
            revision: generation.policy.revision().to_string(),
            idempotent: resource.idempotent,
        },
        terms: Terms {
            quorum: held.terms.quorum,
            approvers: held.terms.approvers.iter().map(|role| role.to_string()).collect(),
        },
        ttl: held.terms.ttl,
        subject,
        trace: None,
        idempotency_key: key.map(|key| [resource.upstream.as_bytes(), b" ", key.as_bytes()].concat()),
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
