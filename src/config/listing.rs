//! What the `upstreams` section says of definitions: where catalogues are, how an upstream is listed, and what it needs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::call::ResourceKind;
use crate::classify::catalog::{Catalog, UpstreamConfig, UpstreamKind};
use crate::definitions::{Listing, Pins};
use crate::names::visible;
use crate::units;

use super::load::{Loaded, Reader};
use super::manned::untold;
use super::raw;
use super::shadow::in_shadow;
use super::upstream::Parts;

/// How often an upstream is listed where nothing else is said.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// More often would be an attack on it.
const EVERY_MIN: Duration = Duration::from_secs(10);

/// Where an upstream's catalogue is, and what it can be drafted from.
#[derive(Clone, Debug)]
pub struct CatalogFile {
    /// The upstream.
    pub upstream: Arc<str>,
    /// Its protocol.
    pub kind: UpstreamKind,
    /// The catalogue's file.
    pub catalog: Option<PathBuf>,
    /// Its OpenAPI document.
    pub openapi: Option<PathBuf>,
}

impl Reader {
    /// Reads what an upstream says of its definitions.
    pub(super) fn definitions(
        &mut self,
        path: &str,
        raw: &raw::Upstream,
        config: &UpstreamConfig,
        parts: &mut Parts,
    ) {
        let mcp = config.kind == UpstreamKind::Mcp;
        for (key, given) in [("list_every", raw.list_every.is_some()), ("pins", raw.pins.is_some())] {
            if given && !mcp {
                self.mistake(&format!("{path}.{key}"), "is for `kind: mcp` alone");
            }
        }
        if raw.openapi.is_some() && mcp {
            self.mistake(&format!("{path}.openapi"), "is for `kind: http` alone");
        }
        let openapi = raw.openapi.as_deref().map(|file| self.path(file));
        if let Some(file) = openapi.as_ref().filter(|file| !file.is_file()) {
            self.mistake(&format!("{path}.openapi"), format!("{}: there is no such file", file.display()));
        }
        parts.catalogs.push(CatalogFile {
            upstream: Arc::clone(&config.name),
            kind: config.kind,
            catalog: raw.catalog.as_deref().map(|file| self.path(file)),
            openapi,
        });
        if mcp {
            let listing = self.listing(path, raw, config);
            parts.listings.push((Arc::clone(&config.name), listing));
        }
    }

    fn listing(&mut self, path: &str, raw: &raw::Upstream, config: &UpstreamConfig) -> Listing {
        let pins = match raw.pins.as_deref() {
            None if config.strict => Pins::Required,
            None => Pins::FirstSight,
            Some("required") => Pins::Required,
            Some("first-sight") if !config.strict => Pins::FirstSight,
            Some("first-sight") => {
                self.mistake(&format!("{path}.pins"), "must be `required` where `strict` is true");
                Pins::Required
            }
            Some(_) => {
                self.mistake(&format!("{path}.pins"), "must be `required` or `first-sight`");
                Pins::Required
            }
        };
        let every = match raw.list_every.as_deref() {
            None => Some(EVERY),
            Some("never") => None,
            Some(text) => {
                let every = units::duration(text).filter(|every| *every >= EVERY_MIN);
                if every.is_none() {
                    let problem = "must be a duration of at least 10s, as in 15m, or `never`";
                    self.mistake(&format!("{path}.list_every"), problem);
                }
                every
            }
        };
        let unseen = every.is_none() && raw.list_every.as_deref() == Some("never");
        if unseen && pins == Pins::Required {
            let problem = "cannot be `never` where pins are required: nothing could be compared with them";
            self.mistake(&format!("{path}.list_every"), problem);
        }
        Listing { every, pins }
    }
}

/// What is in order and yet worth a look: tools that will be refused because nothing pins them, and names of catalogued
/// tools that look alike.
pub fn warnings(loaded: &Loaded) -> Vec<String> {
    let mut warnings = in_shadow(loaded);
    warnings.extend(untold(loaded));
    for (name, _) in loaded.listings.iter().filter(|(_, listing)| listing.pins == Pins::Required) {
        let unpinned = unpinned(&loaded.catalog, name);
        if !unpinned.is_empty() {
            warnings.push(format!(
                "upstream `{name}` needs pins, and nothing pins {}: calls of these are refused or held until `holdpoint catalog pin --upstream {name}`",
                list(&unpinned)
            ));
        }
    }
    for group in loaded.catalog.names().alike() {
        let names: Vec<String> =
            group.iter().map(|owned| format!("{}/{}", owned.upstream, visible(&owned.name))).collect();
        warnings.push(format!("these names of tools look alike: {}", list(&names)));
    }
    warnings
}

fn unpinned(catalog: &Catalog, name: &str) -> Vec<String> {
    let Some(upstream) = catalog.upstream(name) else { return Vec::new() };
    let tools =
        upstream.entries().filter(|entry| entry.profile.kind == ResourceKind::Tool && entry.pin.is_none());
    let mut names: Vec<String> = tools.map(|entry| format!("`{}`", visible(&entry.profile.name))).collect();
    names.sort();
    names
}

/// The first few, and how many more there are.
fn list(names: &[String]) -> String {
    const SHOWN_MAX: usize = 10;
    let shown: Vec<&str> = names.iter().take(SHOWN_MAX).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
