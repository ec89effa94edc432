//! What each MCP upstream says its tools are: listed by the gateway with its own identity, and compared with what an
//! operator has pinned.
//!
//! A tool's definition is what a model goes by, and an upstream can change it after it was reviewed. So the catalogue pins
//! a definition by its digest, and a tool that is served otherwise counts as one that nobody described. Where nothing is
//! pinned, the definition that was seen first holds.

pub mod ask;
pub mod canonical;
pub mod difference;
pub mod sights;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::call::Drift;
use canonical::Definition;
use sights::Sights;

/// What an upstream's definitions must have before they are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pins {
    /// Nothing: the first sight holds where there is no pin.
    FirstSight,
    /// A pin.
    Required,
}

/// How one upstream is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// How often, beside the start and its own notices; `None` for never at all.
    pub every: Option<Duration>,
    /// What its definitions must have.
    pub pins: Pins,
}

/// What each MCP upstream serves now, as far as is known.
pub struct Definitions {
    upstreams: HashMap<Arc<str>, Arc<Slot>, RandomState>,
    /// What was seen first.
    pub sights: Arc<dyn Sights>,
}

struct Slot {
    listing: Listing,
    served: ArcSwapOption<Served>,
    changed: Notify,
}

impl Slot {
    fn new(listing: Listing) -> Arc<Slot> {
        Arc::new(Slot { listing, served: ArcSwapOption::empty(), changed: Notify::new() })
    }
}

/// One list of an upstream's tools.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Its tools by name.
    pub tools: HashMap<Arc<str>, Tool>,
}

/// One tool as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The digest of its definition; empty for one that cannot be read.
    pub digest: Arc<str>,
    /// The digest of the definition that was seen first.
    pub first: Arc<str>,
    /// Why it is not believed without a pin.
    pub suspicion: Option<Drift>,
}

/// How a tool stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As its catalogue's entry says; with the digest of its definition, where it is known.
    Sound(Option<Arc<str>>),
    /// Not as it was described, and why.
    Drifted(Drift, Option<Arc<str>>),
}

impl Definitions {
    /// Definitions of these upstreams, of which none is known yet.
    pub fn new(
        upstreams: impl IntoIterator<Item = (Arc<str>, Listing)>,
        sights: Arc<dyn Sights>,
    ) -> Definitions {
        let upstreams = upstreams.into_iter().map(|(name, listing)| (name, Slot::new(listing))).collect();
        Definitions { upstreams, sights }
    }

    /// Definitions of these upstreams: what is known of those that are listed as before stays known.
    pub fn then(&self, upstreams: impl IntoIterator<Item = (Arc<str>, Listing)>) -> Definitions {
        let kept = |(name, listing): (Arc<str>, Listing)| {
            let before = self.upstreams.get(&name).filter(|slot| slot.listing == listing);
            let slot = before.map_or_else(|| Slot::new(listing), Arc::clone);
            (name, slot)
        };
        let upstreams = upstreams.into_iter().map(kept).collect();
        Definitions { upstreams, sights: Arc::clone(&self.sights) }
    }

    /// Every upstream that has definitions, and how it is listed.
    pub fn listings(&self) -> impl Iterator<Item = (&Arc<str>, Listing)> {
        self.upstreams.iter().map(|(name, slot)| (name, slot.listing))
    }

    /// How a catalogued tool stands, whose entry has this pin. What has no definitions is sound.
    pub fn standing(&self, upstream: &str, tool: &str, pin: Option<&str>) -> Standing {
        let Some(slot) = self.upstreams.get(upstream) else { return Standing::Sound(None) };
        let served = slot.served.load();
        let required = slot.listing.pins == Pins::Required;
        let Some(served) = &*served else {
            return if required { Standing::Drifted(Drift::Unseen, None) } else { Standing::Sound(None) };
        };
        let Some(tool) = served.tools.get(tool) else {
            let held = required || pin.is_some();
            return if held { Standing::Drifted(Drift::Absent, None) } else { Standing::Sound(None) };
        };
        let digest = Some(Arc::clone(&tool.digest)).filter(|digest| !digest.is_empty());
        let drift = match pin {
            Some(pin) if *tool.digest == *pin => None,
            Some(_) => Some(tool.suspicion.filter(|_| digest.is_none()).unwrap_or(Drift::Changed)),
            None => match tool.suspicion {
                Some(drift) => Some(drift),
                None if tool.digest != tool.first => Some(Drift::Changed),
                None => required.then_some(Drift::Unpinned),
            },
        };
        match drift {
            Some(drift) => Standing::Drifted(drift, digest),
            None => Standing::Sound(digest),
        }
    }

    /// Why an item of a list on its way to an agent must be left out, if it must. It is judged by what it says itself,
    /// since an upstream may tell an agent something else than it tells the gateway; then the upstream is listed anew.
    pub fn withheld(&self, upstream: &str, pin: Option<&str>, item: &[u8]) -> Option<Drift> {
        let slot = self.upstreams.get(upstream)?;
        let Ok(Definition { name, digest, hidden, .. }) = canonical::read(item) else {
            return Some(Drift::Unreadable);
        };
        let drift = match pin {
            Some(pin) => (*digest != *pin).then_some(Drift::Changed),
            None if hidden.is_some() => Some(Drift::HiddenText),
            None => {
                let served = slot.served.load();
                let known = served.as_ref().and_then(|served| served.tools.get(&name));
                known.and_then(|tool| tool.suspicion.or((tool.first != digest).then_some(Drift::Changed)))
            }
        };
        if drift == Some(Drift::Changed) {
            slot.changed.notify_one();
        }
        drift
    }

    /// What an upstream serves, by its last list.
    pub fn served(&self, upstream: &str) -> Option<Arc<Served>> {
        self.upstreams.get(upstream)?.served.load_full()
    }

    /// Replaces what is known of an upstream.
    pub fn replace(&self, upstream: &str, served: Served) {
        if let Some(slot) = self.upstreams.get(upstream) {
            slot.served.store(Some(Arc::new(served)));
        }
    }

    /// Says that an upstream's list has changed, so that it is listed soon.
    pub fn changed(&self, upstream: &str) {
        if let Some(slot) = self.upstreams.get(upstream) {
            slot.changed.notify_one();
        }
    }

    /// Waits until an upstream's list has changed; for ever where there is no such upstream.
    pub async fn until_changed(&self, upstream: &str) {
        match self.upstreams.get(upstream) {
            Some(slot) => slot.changed.notified().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sights::Remembered;
    use super::*;

    fn definitions(pins: Pins) -> Definitions {
        let listing = Listing { every: None, pins };
        Definitions::new([(Arc::from("mail"), listing)], Arc::new(Remembered::default()))
    }

    fn serve(definitions: &Definitions, digest: &str, first: &str, suspicion: Option<Drift>) {
        let tool = Tool { digest: digest.into(), first: first.into(), suspicion };
        definitions.replace("mail", Served { tools: [(Arc::from("send"), tool)].into() });
    }

    fn drift(definitions: &Definitions, tool: &str, pin: Option<&str>) -> Option<Drift> {
        match definitions.standing("mail", tool, pin) {
            Standing::Sound(_) => None,
            Standing::Drifted(drift, _) => Some(drift),
        }
    }

    #[test]
    fn a_pin_holds_a_tool_to_its_definition() {
        for pins in [Pins::FirstSight, Pins::Required] {
            let known = definitions(pins);
            serve(&known, "sha256:a", "sha256:a", None);
            assert_eq!(drift(&known, "send", Some("sha256:a")), None);
            assert_eq!(drift(&known, "send", Some("sha256:b")), Some(Drift::Changed));
            assert_eq!(drift(&known, "other", Some("sha256:a")), Some(Drift::Absent));
            serve(&known, "sha256:a", "sha256:b", Some(Drift::HiddenText));
            assert_eq!(drift(&known, "send", Some("sha256:a")), None, "a pin is the operator's word");
            serve(&known, "", "", Some(Drift::Unreadable));
            assert_eq!(drift(&known, "send", Some("sha256:a")), Some(Drift::Unreadable));
        }
    }

    #[test]
    fn without_a_pin_the_first_sight_holds_or_nothing_does() {
        let (usual, strict) = (definitions(Pins::FirstSight), definitions(Pins::Required));
        assert_eq!(drift(&usual, "send", Some("sha256:a")), None, "nothing is known yet");
        assert_eq!(drift(&strict, "send", Some("sha256:a")), Some(Drift::Unseen));
        assert_eq!(drift(&strict, "send", None), Some(Drift::Unseen));
        for known in [&usual, &strict] {
            serve(known, "sha256:a", "sha256:a", None);
        }
        assert_eq!(drift(&usual, "send", None), None);
        assert_eq!(drift(&usual, "other", None), None);
        assert_eq!(drift(&strict, "send", None), Some(Drift::Unpinned));
        assert_eq!(drift(&strict, "other", None), Some(Drift::Absent));
        serve(&usual, "sha256:b", "sha256:a", None);
        assert_eq!(drift(&usual, "send", None), Some(Drift::Changed));
        serve(&usual, "sha256:a", "sha256:a", Some(Drift::HiddenText));
        assert_eq!(drift(&usual, "send", None), Some(Drift::HiddenText));
    }
}
