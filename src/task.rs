//! Task scopes: what an orchestrator says that a piece of work needs, and the token by which an agent shows which piece
//! of work its call belongs to.
//!
//! A token only adds: its destinations count as known for its run. It takes no label away, and what the agent read under
//! another token, or under none, counts all the same, so that nothing is gained by choosing among tokens. One kind of
//! task is judged by less, since its orchestrator says so: that which is isolated ([`crate::flow::isolated`]). The token is
//! a compact JWS [RFC 7515 §7.1] that this gateway signed; what it allows is kept here and not in the token, so that
//! what is closed is closed at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use dashmap::DashMap;
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::json;

use crate::call::{self, AgentId, RecordId, Stage, Stop, StopKind};
use crate::classify::sink::SinkKind;
use crate::flow::isolated::{Kin, Whose};
use crate::flow::provenance::Place;
use crate::secret::ring::KeyError;
use crate::secret::signer::{PublicKey, Signer};
use crate::store::tasks::Task;

/// The header that a token comes in. It is never sent on.
pub const TASK_HEADER: HeaderName = HeaderName::from_static("holdpoint-task");
/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;
/// The only header of a token; any other is no token of this gateway, whatever it says of how it is signed.
const JOSE_HEADER: &str = r#"{"alg":"EdDSA","typ":"holdpoint-task+jwt"}"#;
/// The rule that records and agents are told for a token that does not hold.
const RULE: &str = "task-token";
/// By how many runs, or agents as a whole, an isolated task may be judged.
pub const KIN_MAX: usize = 128;

/// What a task allows.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The task as it is kept.
    pub task: Task,
    /// Its destinations in canonical form.
    places: HashSet<String>,
    /// What policy is told of it.
    pub told: call::Task,
    /// By whose reading its calls are judged, where it is isolated; [`Tasks::open`] finds that out.
    pub isolated: Option<Arc<[Kin]>>,
}

/// The tasks that are open, and the keys of their tokens.
pub struct Tasks {
    open: DashMap<RecordId, Arc<Scope>>,
    signer: Signer,
    /// By which tokens are checked: the key in use and the one before it.
    keys: Vec<PublicKey>,
}

/// What of a token is read.
#[derive(Deserialize)]
struct Claims {
    jti: String,
}

impl Scope {
    /// The scope of a task that is kept.
    pub fn new(task: Task) -> Scope {
        let places = task.destinations.iter().flat_map(|text| places(text)).collect();
        let mut systems: Vec<Arc<str>> = task.systems.iter().map(|name| Arc::from(name.as_str())).collect();
        systems.sort();
        systems.dedup();
        let purpose = Arc::from(task.purpose.as_str());
        let told = call::Task { id: Arc::from(task.id.to_string()), purpose, systems };
        Scope { task, places, told, isolated: None }
    }

    /// The run of its calls, as in records.
    pub fn run(&self) -> String {
        format!("task:{}", self.task.id)
    }

    /// Whether the task names this destination.
    pub fn grants(&self, place: &Place) -> bool {
        self.places.contains(&place.canonical())
    }
}

/// The places that an orchestrator may mean by a text. A host without a public suffix is one only where a URL is meant.
fn places(text: &str) -> Vec<String> {
    let mut places = vec![Place::guess(text).canonical()];
    if !text.contains('@') {
        places.push(Place::of(SinkKind::Http, text).canonical());
    }
    places
}

impl Tasks {
    /// The tasks that the store has, and the keys by their seeds.
    pub fn new(kept: Vec<Task>, current: &[u8; 32], previous: Option<&[u8; 32]>) -> Result<Tasks, KeyError> {
        let signer = Signer::from_seed(current)?;
        let mut keys = vec![signer.public()];
        if let Some(previous) = previous {
            keys.push(Signer::from_seed(previous)?.public());
        }
        let tasks = Tasks { open: DashMap::new(), signer, keys };
        for task in kept {
            tasks.open(Scope::new(task));
        }
        Ok(tasks)
    }

    /// Puts a task in force.
    pub fn open(&self, mut scope: Scope) -> Arc<Scope> {
        scope.isolated = self.kin(&scope);
        let scope = Arc::new(scope);
        self.open.insert(scope.task.id, Arc::clone(&scope));
        scope
    }

    /// By whose reading the calls of a task are judged, where it is isolated: its own, and that of the tasks above it. The
    /// work of one that is not isolated can carry whatever its agents and those above them have read. A task of which
    /// this cannot be told is judged like any other.
    pub fn kin(&self, scope: &Scope) -> Option<Arc<[Kin]>> {
        let Task { agents, instance: Some(serial), isolated: true, parent, .. } = &scope.task else {
            return None;
        };
        let [agent] = agents.as_slice() else { return None };
        let whose = Whose::Instance { run: Arc::from(scope.run()), serial: Arc::from(serial.as_str()) };
        let mut kin = vec![Kin { agent: agent.clone(), whose }];
        if let Some(parent) = parent {
            let parent = self.find(*parent)?;
            match &parent.isolated {
                Some(above) => kin.extend_from_slice(above),
                None => kin.extend(parent.task.agents.iter().chain(&parent.task.above).map(Kin::whole)),
            }
        }
        (kin.len() <= KIN_MAX).then(|| Arc::from(kin))
    }

    /// Takes a task and those below it out of force, and says which were.
    pub fn close(&self, id: RecordId) -> Vec<RecordId> {
        let mut closed: Vec<RecordId> = self.open.remove(&id).map(|(id, _)| id).into_iter().collect();
        let mut at = 0;
        while let Some(above) = closed.get(at).copied() {
            let below = self.open.iter().filter(|scope| scope.task.parent == Some(above));
            let below: Vec<RecordId> = below.map(|scope| scope.task.id).collect();
            closed.extend(below.into_iter().filter(|id| self.open.remove(id).is_some()));
            at += 1;
        }
        closed
    }

    /// Forgets what has ended, and says how many are open.
    pub fn count(&self, now: SystemTime) -> usize {
        self.open.retain(|_, scope| now < scope.task.until);
        self.open.len()
    }

    /// A task that has not ended.
    pub fn find(&self, id: RecordId) -> Option<Arc<Scope>> {
        self.open.get(&id).map(|scope| Arc::clone(&scope))
    }

    /// Every task that is open.
    pub fn all(&self) -> Vec<Arc<Scope>> {
        self.open.iter().map(|scope| Arc::clone(&scope)).collect()
    }

    /// The token of a task [RFC 7519].
    pub fn token(&self, task: &Task) -> String {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let agents: Vec<&str> = task.agents.iter().map(AgentId::as_str).collect();
        let mut claims = json!({"jti": task.id.to_string(), "sub": agents.first(), "agents": agents,
            "iat": seconds(task.at), "exp": seconds(task.until)});
        if let (Some(claims), Some(serial)) = (claims.as_object_mut(), &task.instance) {
            claims.insert("instance".to_owned(), json!(serial));
            claims.insert("isolated".to_owned(), json!(task.isolated));
        }
        let signed = format!("{}.{}", encode(JOSE_HEADER.as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = STANDARD.decode(self.signer.sign(&signed)).unwrap_or_default();
        format!("{signed}.{}", encode(&signature))
    }

    /// The task that a call belongs to by its token; `None` when it has none. A token that does not hold for this call
    /// refuses it: an agent that shows one must not be judged as if it had shown none.
    pub fn scope(
        &self,
        headers: &HeaderMap,
        agent: &AgentId,
        instance: &str,
        now: SystemTime,
    ) -> Result<Option<Arc<Scope>>, Box<Stop>> {
        let mut given = headers.get_all(TASK_HEADER).iter();
        let Some(token) = given.next() else { return Ok(None) };
        if given.next().is_some() {
            let text = "Holdpoint-Task is given more than once";
            return Err(Stop::new(Stage::Identify, StopKind::Ambiguous, "task-twice", text));
        }
        let token = token.to_str().ok().filter(|token| token.len() <= TOKEN_BYTES_MAX);
        let id = token.and_then(|token| self.verified(token)).ok_or_else(|| {
            refused("task-forged", "the task token is none that this gateway signed".to_owned())
        })?;
        let scope = self.find(id).filter(|scope| now < scope.task.until);
        let scope =
            scope.ok_or_else(|| refused("task-over", format!("task {id} has expired or was closed")))?;
        if !scope.task.agents.contains(agent) {
            return Err(refused("task-agent", format!("task {id} is not one of {agent}")));
        }
        match &scope.task.instance {
            Some(bound) if bound != instance => Err(refused(
                "task-instance",
                format!("task {id} is bound to certificate {bound}, not {instance}"),
            )),
            _ => Ok(Some(scope)),
        }
    }

    /// The task that a token of this gateway names.
    fn verified(&self, token: &str) -> Option<RecordId> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if header != encode(JOSE_HEADER.as_bytes()) {
            return None;
        }
        let signature = STANDARD.encode(URL_SAFE_NO_PAD.decode(signature).ok()?);
        if !self.keys.iter().any(|key| key.signed(signed, &signature)) {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        RecordId::parse(&claims.jti)
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn refused(reason: &'static str, operator: String) -> Box<Stop> {
    let public =
        "The task token does not hold for this call. Nothing was executed; ask the orchestrator for another.";
    let mut stop = Stop::new(Stage::Identify, StopKind::Denied, reason, public).operator(operator);
    stop.rule = Arc::from(RULE);
    stop
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    fn task(agent: &str, parent: Option<RecordId>) -> Task {
        let now = SystemTime::now();
        Task {
            id: RecordId::new(),
            by: "spiffe://jobs.example.org/planner".to_owned(),
            agents: vec![AgentId::from_normalised(agent)],
            destinations: vec!["bob@partner.test".to_owned(), "https://files.partner.test/in".to_owned()],
            systems: Vec::new(),
            purpose: "quarterly report".to_owned(),
            instance: None,
            isolated: false,
            parent,
            above: Vec::new(),
            at: now,
            until: now + Duration::from_secs(60),
        }
    }

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TASK_HEADER, HeaderValue::from_str(token).unwrap());
        headers
    }

    const A: &str = "spiffe://example.org/a";

    #[test]
    fn a_token_holds_for_its_agent_and_its_time_and_no_changed_one_does() {
        let tasks = Tasks::new(Vec::new(), &[7; 32], None).unwrap();
        let task = task(A, None);
        let token = tasks.token(&task);
        let (agent, until) = (task.agents[0].clone(), task.until);
        let scope = |token: &str, agent: &AgentId, now| tasks.scope(&with(token), agent, "1", now);
        let now = SystemTime::now();
        assert_eq!(scope(&token, &agent, now).unwrap_err().reason, "task-over", "not open yet");
        tasks.open(Scope::new(task));
        assert!(scope(&token, &agent, now).unwrap().is_some());
        assert!(tasks.scope(&HeaderMap::new(), &agent, "1", now).unwrap().is_none());
        let other = AgentId::from_normalised("spiffe://example.org/b");
        assert_eq!(scope(&token, &other, now).unwrap_err().reason, "task-agent");
        assert_eq!(scope(&token, &agent, until).unwrap_err().reason, "task-over");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character of a signature has bits that say nothing: a strict decoder refuses those too.
            assert_eq!(scope(&changed, &agent, now).unwrap_err().reason, "task-forged", "byte {at}");
        }
        let (header, rest) = token.split_once('.').unwrap();
        let none = encode(br#"{"alg":"none"}"#);
        let (claims, _) = rest.split_once('.').unwrap();
        for forged in
            [format!("{none}.{claims}."), format!("{header}.{claims}."), "x".to_owned(), "..".to_owned()]
        {
            assert_eq!(scope(&forged, &agent, now).unwrap_err().reason, "task-forged", "{forged}");
        }
    }

    #[test]
    fn a_token_of_the_key_before_holds_and_one_of_another_gateway_does_not() {
        let task = task(A, None);
        let [before, other] =
            [[1; 32], [2; 32]].map(|seed| Tasks::new(vec![task.clone()], &seed, None).unwrap());
        let after = Tasks::new(vec![task.clone()], &[3; 32], Some(&[1; 32])).unwrap();
        let scope = |token: &str| after.scope(&with(token), &task.agents[0], "1", task.at);
        assert!(scope(&before.token(&task)).unwrap().is_some());
        assert_eq!(scope(&other.token(&task)).unwrap_err().reason, "task-forged");
    }

    #[test]
    fn an_isolated_task_is_judged_by_its_certificate_and_by_what_is_above_it() {
        let isolated = |agent: &str, serial: &str, parent: Option<RecordId>| Task {
            instance: Some(serial.to_owned()),
            isolated: true,
            ..task(agent, parent)
        };
        let tasks = Tasks::new(Vec::new(), &[7; 32], None).unwrap();
        let open = |task: Task| tasks.open(Scope::new(task));
        let of = |scope: &Scope| scope.isolated.as_deref().map(<[Kin]>::to_vec);
        let by = |scope: &Scope, serial: &str| Kin {
            agent: scope.task.agents[0].clone(),
            whose: Whose::Instance { run: Arc::from(scope.run()), serial: Arc::from(serial) },
        };
        let above = open(isolated(A, "1", None));
        assert_eq!(of(&above), Some(vec![by(&above, "1")]));
        let below = open(isolated("spiffe://example.org/b", "2", Some(above.task.id)));
        assert_eq!(of(&below), Some(vec![by(&below, "2"), by(&above, "1")]));
        // What is above and not isolated brings all that its agents have read.
        let shared =
            open(Task { above: vec![AgentId::from_normalised("spiffe://example.org/c")], ..task(A, None) });
        let below = open(isolated("spiffe://example.org/b", "2", Some(shared.task.id)));
        let whole = |id: &str| Kin::whole(&AgentId::from_normalised(id));
        assert_eq!(of(&below), Some(vec![by(&below, "2"), whole(A), whole("spiffe://example.org/c")]));
        // Without one certificate, one agent, or with a task above that is not there, it is like any other.
        let two = vec![AgentId::from_normalised(A), AgentId::from_normalised("spiffe://example.org/b")];
        for other in [
            Task { instance: None, ..isolated(A, "1", None) },
            Task { agents: two, ..isolated(A, "1", None) },
            isolated(A, "1", Some(RecordId::new())),
            Task { isolated: false, ..isolated(A, "1", None) },
        ] {
            assert_eq!(of(&open(other)), None);
        }
    }

    #[test]
    fn a_task_grants_its_destinations_and_ends_with_the_one_above_it() {
        let parent = task(A, None);
        let child = task("spiffe://example.org/b", Some(parent.id));
        let tasks = Tasks::new(vec![child.clone(), parent.clone()], &[7; 32], None).unwrap();
        let scope = tasks.find(child.id).unwrap();
        assert!(scope.grants(&Place::of(SinkKind::Message, "Bob <bob@PARTNER.test>")));
        assert!(scope.grants(&Place::of(SinkKind::Http, "https://files.partner.test/out?x=1")));
        assert!(!scope.grants(&Place::of(SinkKind::Message, "eve@partner.test")));
        assert_eq!(tasks.close(parent.id), [parent.id, child.id]);
        assert!(tasks.close(child.id).is_empty());
    }
}
