//! Keeping what a reply brings: in memory and in the journal, before the bytes that it came in are released.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::history::Step;
use super::journal::{Frame, Journal, JournalError, Kind, Series};
use super::learn::{Form, Learner, Source};
use super::lineage::Learnt;
use super::{Label, RunKey, Runs, written};
use crate::call::{AgentId, Confidentiality, Stage, Stop, StopKind};

/// Ends when what was learnt is in the journal.
pub type Keeping = Pin<Box<dyn Future<Output = Result<(), Box<Stop>>> + Send>>;

/// Keeps what the reply to one call brings.
pub struct Keeper {
    runs: Arc<Runs>,
    journal: Arc<Journal>,
    at: RunKey,
    source: Source,
    /// The labels of the call.
    brings: Vec<Label>,
    /// Whether the journal has the labels.
    told: bool,
    /// How many records were told apart in earlier messages of this reply.
    records: u32,
}

impl Keeper {
    /// The keeper of what a call's reply brings.
    pub fn new(
        runs: &Arc<Runs>,
        journal: &Arc<Journal>,
        at: RunKey,
        source: Source,
        brings: &[Label],
    ) -> Keeper {
        let (runs, journal) = (Arc::clone(runs), Arc::clone(journal));
        Keeper { runs, journal, at, source, brings: brings.to_vec(), told: false, records: 0 }
    }

    /// Who learns a reply of this form.
    pub fn learner(&self, form: Form) -> Learner {
        Learner::new(self.source.clone(), form)
    }

    /// That something was read which could not be learnt.
    pub fn unknown(&self) -> Learnt {
        let unknown = self.source.returns.labels.confidentiality != Confidentiality::Public;
        Learnt { unknown, ..self.nothing() }
    }

    /// That nothing was read.
    pub fn nothing(&self) -> Learnt {
        self.learner(Form::Text).finish()
    }

    /// Takes one message of several: its records are not those of the one before.
    pub fn message(&mut self, data: &[u8]) -> Learnt {
        let mut learner = self.learner(Form::Mcp);
        let mut learnt = learner.feed(data);
        join(&mut learnt, learner.finish());
        let told_apart = learnt.fragments.iter_mut().filter(|fragment| fragment.number != u32::MAX);
        let mut most = self.records;
        for fragment in told_apart {
            fragment.number = fragment.number.saturating_add(self.records);
            most = most.max(fragment.number.saturating_add(1));
        }
        self.records = most;
        learnt
    }

    /// Remembers; what it gives must have ended before anything that this was learnt from is released. `None` when there
    /// is nothing to wait for: nothing was learnt, or the journal has just that already.
    pub fn keep(&mut self, learnt: &Learnt) -> Option<Keeping> {
        let first = !self.told && !self.brings.is_empty();
        if learnt.is_empty() && !first {
            return None;
        }
        self.told = true;
        let at = SystemTime::now();
        self.runs.remember(&self.at, learnt, at);
        let secret = self.brings.contains(&Label::Secret) || learnt.is_secret();
        let (labels, data) = (Label::bits(&self.brings), learnt.encode());
        // What is secret is written each time.
        let digest = (!secret).then(|| written::digest(self.runs.key(), &self.at, labels, &data));
        if digest.is_some_and(|digest| self.runs.has_written(&self.at, digest, at)) {
            return None;
        }
        let frame = Frame {
            kind: Kind::Learnt,
            agent: self.at.agent.clone(),
            run: self.at.run.to_string(),
            trace: self.at.trace,
            instance: self.at.instance.as_deref().map(str::to_owned),
            labels,
            at,
            data,
        };
        let (journal, runs, place) = (Arc::clone(&self.journal), Arc::clone(&self.runs), self.at.clone());
        let series = if secret { Series::Secret } else { Series::Read };
        Some(Box::pin(async move {
            journal.append(series, &frame).await.map_err(|error| unkept(&error))?;
            digest.into_iter().for_each(|digest| runs.note_written(&place, digest, at));
            Ok(())
        }))
    }
}

/// Puts what was learnt of one reply together.
pub fn join(learnt: &mut Learnt, more: Learnt) {
    learnt.unknown |= more.unknown;
    learnt.fragments.extend(more.fragments);
    learnt.known.extend(more.known);
    learnt.planted.extend(more.planted);
    learnt.words.extend(more.words);
    learnt.urls.extend(more.urls);
}

/// Sees that what a call will read can be kept, before it is sent. A disk that failed is tried again.
pub async fn ready(journal: &Journal, agent: &AgentId, brings: &[Label]) -> Result<(), Box<Stop>> {
    if brings.is_empty() || !journal.is_failing() {
        return Ok(());
    }
    let text = "what was read cannot be kept, so nothing confidential can be read just now; nothing was sent. Try again.";
    journal.probe(agent).await.map_err(|error| unsent(text, &error))
}

/// Keeps a step of a sequence that a call is, before it is sent. What is not kept would begin anew with a restart.
pub async fn step(journal: &Journal, series: Series, frame: &Frame) -> Result<(), Box<Stop>> {
    let text =
        "that this call was made cannot be kept just now, and it must be; nothing was sent. Try again.";
    journal.append(series, frame).await.map_err(|error| unsent(text, &error))
}

fn unsent(text: &'static str, error: &JournalError) -> Box<Stop> {
    Stop::new(Stage::Commit, StopKind::Unavailable, "flow-journal", text)
        .operator(error.to_string())
        .retry_after(Duration::from_secs(5))
}

/// Lets a run go on, or the agent as a whole, and keeps over a restart that what was stopped before counts no more.
/// Whether it was frozen.
pub async fn unfreeze(
    runs: &Runs,
    journal: &Journal,
    agent: &AgentId,
    run: Option<&Arc<str>>,
) -> Result<bool, JournalError> {
    let (changed, calls) = runs.unfreeze(agent, run);
    let run = run.cloned().unwrap_or_else(|| Arc::from(""));
    let at = RunKey { agent: agent.clone(), run, trace: None, instance: None, isolated: None };
    for digest in calls {
        let (step, now) = (Step::Approved { digest }, SystemTime::now());
        runs.step(&at, &step, now);
        let frame = Frame {
            kind: Kind::Sent,
            agent: at.agent.clone(),
            run: at.run.to_string(),
            trace: None,
            instance: None,
            labels: 0,
            at: now,
            data: step.encode(),
        };
        journal.append(Series::Read, &frame).await?;
    }
    Ok(changed)
}

/// The upstream has replied, so the agent must not be invited to make the call again.
fn unkept(error: &JournalError) -> Box<Stop> {
    let text =
        "the upstream has replied, but what was read could not be kept; the call may have had its effect";
    Stop::new(Stage::Observe, StopKind::Unavailable, "flow-journal", text).operator(error.to_string())
}
