//! What of a run was written to the journal a moment ago. An agent that asks for the same again and again has it written
//! from time to time, not each time: what is on the disk says all that it would say again.
//!
//! What comes back after a restart counts as read so much later, so nothing is forgotten sooner than it was read.

use std::time::{Duration, SystemTime};

use super::text::{FlowKey, Kind};
use super::{RunKey, wire};

/// What was written stands for the same again for so long at most, and for an eighth of the window.
const STANDS_TIME_MAX: Duration = Duration::from_secs(60);
/// Frames of one run that are known.
const FRAMES_MAX: usize = 4;

/// For how long what was written stands for the same again.
pub fn stands(window: Duration) -> Duration {
    STANDS_TIME_MAX.min(window / 8)
}

/// A digest of all that a frame of the journal says, but for when and for the record that the reply belongs to.
pub fn digest(key: &FlowKey, at: &RunKey, labels: u8, learnt: &[u8]) -> u64 {
    let content = key.hash(Kind::Whole, wire::without_reply(learnt));
    let caller = key.hash(Kind::Whole, at.instance.as_deref().unwrap_or_default().as_bytes());
    let mut whole = [0; 8 + 8 + 16 + 2];
    let trace = at.trace.unwrap_or_default();
    let says = content.to_le_bytes().into_iter().chain(caller.to_le_bytes());
    let says = says.chain(trace).chain([u8::from(at.trace.is_some()), labels]);
    whole.iter_mut().zip(says).for_each(|(to, from)| *to = from);
    key.hash(Kind::Whole, &whole)
}

/// The last frames of one run that the disk has.
#[derive(Clone, Debug, Default)]
pub struct Written(Vec<(u64, SystemTime)>);

impl Written {
    /// Whether a frame like this was written so lately that the same need not be written again.
    pub fn has(&self, digest: u64, now: SystemTime, window: Duration) -> bool {
        // An age that cannot be told, of a clock that went back, is none that stands.
        let fresh = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age <= stands(window));
        self.0.iter().any(|(each, at)| *each == digest && fresh(at))
    }

    /// A frame like this, of this time, is on the disk now.
    pub fn note(&mut self, digest: u64, at: SystemTime) {
        self.0.retain(|(each, _)| *each != digest);
        if self.0.len() >= FRAMES_MAX {
            self.0.remove(0);
        }
        self.0.push((digest, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::AgentId;

    #[test]
    fn what_was_written_stands_for_a_while_and_only_for_the_same() {
        let (window, start) = (Duration::from_secs(1800), SystemTime::now());
        let mut written = Written::default();
        written.note(1, start);
        assert!(written.has(1, start + STANDS_TIME_MAX, window));
        assert!(!written.has(2, start, window));
        assert!(!written.has(1, start + STANDS_TIME_MAX + Duration::from_secs(1), window));
        assert!(!written.has(1, start + Duration::from_secs(2), Duration::from_secs(8)), "of a short window");
        assert!(!written.has(1, start - Duration::from_secs(1), window), "a clock that went back");
        (2..2 + FRAMES_MAX as u64).for_each(|each| written.note(each, start));
        assert!(!written.has(1, start, window), "there is a bound");
    }

    #[test]
    fn what_says_something_else_has_another_digest() {
        let key = FlowKey::new(&[7; 32]);
        let agent = AgentId::from_normalised("spiffe://example.org/a");
        let at = |trace| RunKey {
            agent: agent.clone(),
            run: "run".into(),
            trace,
            instance: Some("1".into()),
            isolated: None,
        };
        let learnt = [3; 60];
        let same = digest(&key, &at(None), 1, &learnt);
        let mut of_another_reply = learnt;
        of_another_reply[1..17].fill(9);
        assert_eq!(digest(&key, &at(None), 1, &of_another_reply), same);
        let mut other = learnt;
        other[17] = 9;
        assert_ne!(digest(&key, &at(None), 1, &other), same);
        assert_ne!(digest(&key, &at(None), 2, &learnt), same);
        assert_ne!(digest(&key, &at(Some([0; 16])), 1, &learnt), same, "in a trace agents meet");
        let of_another = RunKey { instance: Some("2".into()), ..at(None) };
        assert_ne!(digest(&key, &of_another, 1, &learnt), same, "of another certificate");
    }
}
