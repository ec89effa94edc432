//! From what configuration gives to the generation that stages work with.

use std::collections::HashSet;
use std::sync::Arc;

use crate::accept::tls::Identity;
use crate::config::{Digests, Listener, Loaded};
use crate::credential::Broker;
use crate::decode::{Decoder, Room, Route, Routes};
use crate::definitions::Definitions;
use crate::definitions::sights::Sights;
use crate::forward::Upstreams;
use crate::forward::breaker::OnChange;
use crate::identify::svid::Trust;
use crate::json::Members;
use crate::limit::Meters;
use crate::pipeline::Generation;
use crate::record::{Entry, Kind};

/// What the first generation is given, and every later one has from it.
pub(super) struct First {
    /// Is told when a breaker turns.
    pub breakers: OnChange,
    /// First sights of definitions.
    pub sights: Arc<dyn Sights>,
}

/// The first generation, with the identity and the trust that listeners go by.
pub(super) fn first(first: First, loaded: Loaded) -> (Generation, Identity, Trust) {
    let definitions = Definitions::new(Vec::new(), first.sights);
    let upstreams = Upstreams::new(Vec::new()).watched(first.breakers);
    after(None, (&definitions, &upstreams), loaded)
}

/// The generation after this one, with the identity and the trust that listeners go by. What is not changed goes on from
/// where it is: limits, the room of bodies, sessions, definitions, connections to upstreams and their breakers.
pub(super) fn next(before: &Generation, loaded: Loaded) -> (Generation, Identity, Trust) {
    after(Some(before), (&before.definitions, &before.upstreams), loaded)
}

fn after(
    before: Option<&Generation>,
    (definitions, upstreams): (&Definitions, &Upstreams),
    loaded: Loaded,
) -> (Generation, Identity, Trust) {
    let settings = loaded.settings;
    let same_room = before.filter(|old| old.decoder.bounds.body_bytes_max == settings.decode.body_bytes_max);
    let generation = Generation {
        number: before.map_or(1, |before| before.number.saturating_add(1)),
        directory: loaded.directory,
        decoder: Decoder {
            room: same_room.map_or_else(|| Room::new(&settings.decode), |old| old.decoder.room.clone()),
            bounds: settings.decode,
            hosts: hosts(&settings.listeners, &loaded.routes),
            routes: Routes::new(loaded.routes),
            sessions: before.map(|before| Arc::clone(&before.decoder.sessions)).unwrap_or_default(),
        },
        catalog: loaded.catalog,
        meters: match before {
            Some(before) => before.meters.then(settings.limits),
            None => Meters::new(settings.limits),
        },
        policy: Arc::new(loaded.policy),
        holds: settings.holds,
        chains: loaded.chains,
        broker: Broker::new(loaded.credentials),
        definitions: Arc::new(definitions.then(loaded.listings)),
        upstreams: upstreams.then(loaded.upstreams),
    };
    (generation, loaded.identity, loaded.trust)
}

/// What the audit says of a generation: its number, its revision of policy, and the digest of each part that is not as
/// it was before.
pub(super) fn record(generation: &Generation, before: &Digests, now: &Digests) -> Entry {
    let changed = || now.iter().filter(|(part, digest)| before.get(*part) != Some(*digest));
    let gone = before.keys().filter(|part| !now.contains_key(*part));
    let has = |parts: &[&str]| changed().any(|(part, _)| parts.contains(part));
    let kind = match () {
        () if has(&["policy"]) => Kind::Policy,
        () if has(&["identity", "trust"]) => Kind::Trust,
        () => Kind::Admin,
    };
    let mut members = Members::default();
    members.text("what", "generation");
    members.number("generation", generation.number);
    members.text("revision", generation.policy.revision());
    members.object("changed", |members| {
        for (part, digest) in changed() {
            members.plain(part, format_args!("sha256:{}", crate::call::hex(digest)));
        }
    });
    members.texts("gone", gone.copied());
    Entry::new(kind, None, members)
}

/// The names by which agents may address the gateway, where its listeners name any.
fn hosts(listeners: &[Listener], routes: &[Route]) -> HashSet<String> {
    let named: HashSet<String> =
        listeners.iter().flat_map(|listener| listener.hosts.iter().cloned()).collect();
    if named.is_empty() {
        return named;
    }
    routes.iter().filter_map(|route| route.host.clone()).chain(named).collect()
}
