//! Isolated tasks: whose reading a call is judged by where its task says so.
//!
//! A call is judged by all that its agent has read. An orchestrator that knows that a piece of work is done apart, by one
//! certificate, can say so: then a call of it is judged by what that certificate has read, what was read in the tasks
//! above, and secrets. It is the certificate and not the run that counts, since whether a call shows a token is the
//! agent's to choose, and nothing that an agent chooses may take a label away. Isolation narrows what this run is judged
//! by and nothing else: what is read in it counts for every other run of its agent.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::lineage::Memory;
use super::remember::{Reading, read};
use super::run::{Brought, Past, Run, Shared, is_fresh, lock};
use super::{Label, RunKey, Runs};
use crate::call::AgentId;

/// Certificates that are known to have read in one run; beyond it any may have.
const CALLERS_MAX: usize = 16;

/// Runs of one agent by which an isolated one is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    /// The agent.
    pub agent: AgentId,
    /// Which of its runs.
    pub whose: Whose,
}

/// Which runs of an agent are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Each of them.
    All,
    /// One, and every other in which a certificate has read something.
    Instance {
        /// The run.
        run: Arc<str>,
        /// The certificate's serial number.
        serial: Arc<str>,
    },
}

/// The certificates that have read in a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers {
    known: Vec<Arc<str>>,
    /// Whether there were others: a certificate that was not written down, or too many.
    others: bool,
}

/// When labels came of which it is not known whose run brought them, in the order of [`Label::ALL`]. A run that is
/// isolated may have been it.
#[derive(Clone, Debug, Default)]
pub(super) struct Unplaced {
    /// Of runs that there was no room to remember.
    forgotten: [Option<SystemTime>; 3],
    /// What the audit says of the agent as a whole.
    told: [Option<SystemTime>; 3],
    /// Until when the journal says of every label in which run it came.
    placed: [Option<SystemTime>; 3],
}

impl Runs {
    /// Notes that the journal has, up to this moment, in which runs labels came.
    pub(super) fn place(&self, agent: &AgentId, labels: &[Label], until: SystemTime) {
        // What is secret is in a series of its own, which says nothing of how far the other one goes.
        if !labels.contains(&Label::Secret) {
            let past = self.past(agent);
            let mut past = lock(&past);
            labels.iter().for_each(|label| past.unplaced.place(*label, until));
        }
    }

    /// What an isolated call is examined by.
    pub(super) fn reading_of(&self, at: &RunKey, kin: &[Kin]) -> Reading {
        let (mut own, mut joined) = (Vec::new(), Vec::new());
        for one in kin {
            let past = self.past(&one.agent);
            let past = lock(&past);
            let to: &mut Vec<Shared<Memory>> = if one.agent == at.agent { &mut own } else { &mut joined };
            for memory in past.memories(&one.whose) {
                // Two tasks of one agent can mean the same run, and each memory is locked once.
                if !to.iter().any(|known| Arc::ptr_eq(known, memory)) {
                    to.push(Arc::clone(memory));
                }
            }
        }
        let sent = {
            let past = self.past(&at.agent);
            let past = lock(&past);
            // A secret is the agent's, whichever of its runs read it.
            joined.extend(past.secrets.clone());
            Arc::clone(&past.sent)
        };
        let secrets = self.secrets_but(&at.agent, &[]);
        Reading { own, joined, secrets, sent }
    }

    /// The labels that an isolated call is judged by, sorted: those that its kin brought, and that of a secret where it is
    /// among `all` that its agent is judged by.
    pub(super) fn labels_of(&self, kin: &[Kin], all: &[Label], now: SystemTime) -> Vec<Label> {
        let mut labels: Vec<Label> = all.iter().copied().filter(|label| *label == Label::Secret).collect();
        for one in kin {
            let past = self.past(&one.agent);
            labels.extend(lock(&past).labels_of(&one.whose, self.config().window, now));
        }
        labels.sort();
        labels.dedup();
        labels
    }
}

impl Past {
    /// What these runs remember. What has no room for a memory of its own may be of any run.
    pub(super) fn memories<'p>(&'p self, whose: &'p Whose) -> impl Iterator<Item = &'p Shared<Memory>> {
        let meant = self.runs.iter().filter(|(id, run)| whose.means(id, run));
        meant.filter_map(|(_, run)| run.memory.as_ref()).chain(&self.shared)
    }

    fn labels_of(&self, whose: &Whose, window: Duration, now: SystemTime) -> Vec<Label> {
        if *whose == Whose::All {
            return self.in_force(window, now);
        }
        let meant = self.runs.iter().filter(|(id, run)| whose.means(id, run));
        let brought = meant.flat_map(|(_, run)| &run.brought).map(|one| (one.label, one.at));
        let unplaced = self.unplaced.all();
        let brought = brought.chain(unplaced).filter(|(label, at)| is_fresh(*label, *at, window, now));
        let mut labels: Vec<Label> = brought.map(|(label, _)| label).collect();
        if let Some(shared) = &self.shared {
            let shared = read(shared);
            let says = [shared.is_confidential(now), shared.is_secret(now), shared.is_untrusted(now)];
            labels.extend(Label::ALL.into_iter().zip(says).filter(|(_, says)| *says).map(|(label, _)| label));
        }
        labels
    }
}

impl Kin {
    /// All that an agent has read.
    pub fn whole(agent: &AgentId) -> Kin {
        Kin { agent: agent.clone(), whose: Whose::All }
    }
}

impl Whose {
    fn means(&self, id: &Arc<str>, run: &Run) -> bool {
        match self {
            Whose::All => true,
            Whose::Instance { run: own, serial } => own == id || run.callers.may_include(serial),
        }
    }
}

impl Callers {
    /// Notes who reads.
    #[inline]
    pub(super) fn note(&mut self, serial: Option<&Arc<str>>) {
        match serial {
            Some(serial) if self.known.contains(serial) => {}
            Some(serial) if self.known.len() < CALLERS_MAX => self.known.push(Arc::clone(serial)),
            Some(_) | None => self.others = true,
        }
    }

    fn may_include(&self, serial: &Arc<str>) -> bool {
        self.others || self.known.contains(serial)
    }
}

impl Unplaced {
    /// Notes what a run brought that is forgotten.
    pub(super) fn forget(&mut self, brought: &[Brought]) {
        brought.iter().for_each(|one| later(&mut self.forgotten, one.label, one.at));
    }

    /// Notes a label of which only the agent is known.
    pub(super) fn tell(&mut self, label: Label, at: SystemTime) {
        later(&mut self.told, label, at);
    }

    /// Notes that the journal has, up to this moment, in which run a label came. It stops at what a loss of power took,
    /// and what the audit has beyond that stays without a run.
    pub(super) fn place(&mut self, label: Label, until: SystemTime) {
        later(&mut self.placed, label, until);
    }

    fn all(&self) -> impl Iterator<Item = (Label, SystemTime)> {
        let told = self
            .told
            .iter()
            .zip(&self.placed)
            .map(|(told, placed)| told.filter(|told| Some(*told) > *placed));
        let forgotten = Label::ALL.into_iter().zip(self.forgotten);
        forgotten.chain(Label::ALL.into_iter().zip(told)).filter_map(|(label, at)| Some((label, at?)))
    }
}

fn later(times: &mut [Option<SystemTime>; 3], label: Label, at: SystemTime) {
    if let Some(time) = times.get_mut(label as usize) {
        *time = Some(time.map_or(at, |before| before.max(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Frame, Kind, Readable};
    use super::super::text::FlowKey;
    use super::super::{Config, enter, restore, sent};
    use super::*;
    use crate::call::{Confidentiality, Integrity, Profile, RecordId};
    use crate::flow::lineage::Learnt;

    const INTERNAL: [Label; 1] = [Label::Confidential];

    fn runs() -> Runs {
        let config = Config { window: Duration::from_secs(1800), profile: Profile::Balanced };
        Runs::new(config, FlowKey::new(&[7; 32]))
    }

    fn agent() -> AgentId {
        AgentId::from_normalised("spiffe://example.org/a")
    }

    /// A call of a run that is not isolated.
    fn at(run: &str, serial: Option<&str>) -> RunKey {
        let instance = serial.map(Arc::from);
        RunKey { agent: agent(), run: Arc::from(run), trace: None, instance, isolated: None }
    }

    /// A call of the isolated task that is bound to the certificate 1.
    fn apart() -> RunKey {
        let whose = Whose::Instance { run: Arc::from("task:1"), serial: Arc::from("1") };
        let kin = [Kin { agent: agent(), whose }];
        RunKey { isolated: Some(Arc::from(kin)), ..at("task:1", Some("1")) }
    }

    fn labels(runs: &Runs) -> Vec<Label> {
        enter(runs, &apart(), SystemTime::now()).labels
    }

    fn frame(run: &str, serial: Option<&str>, at: SystemTime) -> Frame {
        let learnt = Learnt {
            reply: RecordId::from_u128(1),
            upstream: Arc::from("u"),
            tool: Arc::from("t"),
            confidentiality: Confidentiality::Internal,
            integrity: Integrity::Trusted,
            fragments: Vec::new(),
            known: Vec::new(),
            planted: Vec::new(),
            words: Vec::new(),
            urls: Vec::new(),
            unknown: true,
        };
        Frame {
            kind: Kind::Learnt,
            agent: agent(),
            run: run.to_owned(),
            trace: None,
            instance: serial.map(str::to_owned),
            labels: Label::bits(&INTERNAL),
            at,
            data: learnt.encode(),
        }
    }

    #[test]
    fn what_a_certificate_reads_in_any_run_counts_and_what_another_reads_does_not() {
        let (runs, now) = (runs(), SystemTime::now());
        sent(&runs, &at("session:1", Some("2")), &INTERNAL, RecordId::new(), now);
        assert!(labels(&runs).is_empty());
        assert_eq!(enter(&runs, &at("session:9", Some("1")), now).labels, INTERNAL, "without isolation");
        sent(&runs, &at("session:1", Some("1")), &[Label::Untrusted], RecordId::new(), now);
        assert_eq!(labels(&runs), [Label::Confidential, Label::Untrusted], "of a run that both read in, all");
    }

    #[test]
    fn a_secret_counts_whoever_read_it() {
        let (runs, now) = (runs(), SystemTime::now());
        let secret = [Label::Confidential, Label::Secret];
        sent(&runs, &at("session:1", Some("2")), &secret, RecordId::new(), now);
        assert_eq!(labels(&runs), [Label::Secret]);
    }

    #[test]
    fn what_was_read_by_whom_nobody_knows_counts() {
        let (runs, now) = (runs(), SystemTime::now());
        restore(&runs, frame("session:1", None, now), Readable::Wholly);
        assert_eq!(labels(&runs), INTERNAL, "an older journal does not say which certificate it was");
        let runs = self::runs();
        for serial in 0..=CALLERS_MAX {
            sent(&runs, &at("session:1", Some(&format!("s{serial}"))), &INTERNAL, RecordId::new(), now);
        }
        assert_eq!(labels(&runs), INTERNAL, "of so many certificates not all are known");
    }

    #[test]
    fn what_the_audit_has_and_the_journal_lost_counts() {
        let (runs, now) = (runs(), SystemTime::now());
        let agent_as_a_whole = at("", None);
        restore(&runs, frame("session:1", Some("2"), now), Readable::Wholly);
        runs.label(&agent_as_a_whole, &INTERNAL, None, now - Duration::from_secs(1));
        assert!(labels(&runs).is_empty(), "the journal says in which run the label came");
        runs.label(&agent_as_a_whole, &INTERNAL, None, now + Duration::from_secs(100));
        assert_eq!(labels(&runs), INTERNAL, "a later one may have come in any");
    }

    #[test]
    fn what_there_was_no_room_to_remember_counts() {
        let (runs, now) = (runs(), SystemTime::now());
        sent(&runs, &at("first", Some("2")), &INTERNAL, RecordId::new(), now);
        assert!(labels(&runs).is_empty());
        for number in 0..1100 {
            enter(&runs, &at(&format!("made-up-{number}"), Some("2")), now);
        }
        assert_eq!(labels(&runs), INTERNAL, "its run was forgotten, its label was not");
        let runs = self::runs();
        for number in 0..128 {
            restore(&runs, frame(&format!("session:{number}"), Some("2"), now), Readable::Wholly);
        }
        assert!(labels(&runs).is_empty());
        restore(&runs, frame("one more", Some("2"), now), Readable::Wholly);
        assert_eq!(labels(&runs), INTERNAL, "runs that share a memory cannot be told apart");
    }

    #[test]
    fn what_an_isolated_run_reads_counts_for_every_other_run() {
        let (runs, now) = (runs(), SystemTime::now());
        sent(&runs, &apart(), &INTERNAL, RecordId::new(), now);
        assert_eq!(labels(&runs), INTERNAL);
        assert_eq!(enter(&runs, &at("session:1", Some("2")), now).labels, INTERNAL);
    }
}
