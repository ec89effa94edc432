//! The identity provider of people, from the section `oidc`.

use std::time::Duration;

use super::load::Reader;
use super::raw::{File, Oidc};
use crate::identify::people::People;
use crate::net::tls::client_config;
use crate::oidc;
use crate::yaml::Mistake;

/// How recent an authentication must be when nothing else is said: 15 minutes.
const FRESH_SECONDS: u64 = 15 * 60;
/// What it may be at most.
const FRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// What is asked of a provider's address.
const ADDRESS: &str = "must be an https address without query or fragment (http only on this machine)";

impl Reader {
    /// The section `oidc`, where there is one.
    pub(super) fn oidc(&mut self, raw: &File) -> Option<oidc::Config> {
        let section = raw.oidc.as_ref()?;
        if !raw.listeners.iter().any(|one| one.kind == "admin" && !one.address.starts_with("unix://")) {
            self.mistake("oidc", "needs a listener of kind `admin` with an address and a port");
        }
        if !oidc::is_acceptable(&section.issuer) || section.issuer.contains(['?', '#']) {
            self.mistake("oidc.issuer", ADDRESS);
        }
        if section.client_id.trim().is_empty() {
            self.mistake(
                "oidc.client_id",
                "must not be empty: it is what the provider knows this gateway by",
            );
        }
        if section.audience.as_ref() == Some(&section.client_id) {
            self.mistake("oidc.audience", "must not be the client_id: ID tokens are made for that");
        }
        if section.audience.as_ref().is_some_and(|audience| audience.trim().is_empty()) {
            self.mistake("oidc.audience", "must not be empty: leave it out to take no bearer tokens");
        }
        let fresh = self.duration("oidc.fresh", section.fresh.as_deref(), FRESH_SECONDS);
        if fresh.is_zero() || fresh > FRESH_MAX {
            self.mistake("oidc.fresh", "must be more than 0s and at most 24h");
        }
        self.oidc_words(section);
        let console = section.redirect.trim_end_matches('/');
        // Browsers leave the usual port out.
        let console = console.strip_suffix(":443").unwrap_or(console).to_owned();
        let uri: Option<http::Uri> = console.parse().ok();
        let is_origin = uri.is_some_and(|uri| {
            let bare = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            uri.scheme_str() == Some("https") && bare && uri.path() == "/" && uri.query().is_none()
        });
        if !is_origin || console.contains('#') || console.chars().any(|c| c.is_ascii_uppercase()) {
            let text =
                "must be the console's public origin in lower case, as in https://holdpoint.example.org:8480";
            self.mistake("oidc.redirect", text);
        }
        let client_secret = section.client_secret_file.as_deref().map(|file| {
            // Read now so that a file that is not there is told; each login reads it anew.
            let read = std::fs::read(self.path(file)).map(|_| ());
            read.unwrap_or_else(|error| self.mistake("oidc.client_secret_file", format!("{file}: {error}")));
            self.path(file)
        });
        let bundle = section.ca_file.as_deref().and_then(|file| self.bytes("oidc.ca_file", Some(file)));
        let tls = client_config(bundle.as_deref(), None, &[b"http/1.1"]);
        let tls = tls.map_err(|problem| self.mistake("oidc.ca_file", problem)).ok()?;
        Some(oidc::Config {
            issuer: section.issuer.clone(),
            client_id: section.client_id.clone(),
            client_secret,
            console,
            scopes: scopes(section),
            acr: section.acr.clone(),
            amr: section.amr.clone(),
            fresh,
            audience: section.audience.clone(),
            tls,
        })
    }

    /// What goes into a list with blanks between, or into a header, has none of its own.
    fn oidc_words(&mut self, section: &Oidc) {
        let plain = |word: &String| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'))
        };
        let scopes = section.scopes.as_deref().unwrap_or_default();
        for (path, words) in [("oidc.scopes", scopes), ("oidc.acr", &section.acr), ("oidc.amr", &section.amr)]
        {
            if !words.iter().all(plain) {
                self.mistake(path, "must be words without blanks, quotes and backslashes");
            }
        }
    }

    /// People are known by the provider that is configured, and by no other.
    pub(super) fn of_subjects(&mut self, raw: &File, people: &People) {
        let file = self.path(raw.people.as_deref().unwrap_or_default()).display().to_string();
        let mut mistakes: Vec<Mistake> = people
            .subjects()
            .filter_map(|((issuer, _), id)| {
                let problem = match &raw.oidc {
                    None => "has `oidc`, and the configuration has no section `oidc`".to_owned(),
                    Some(oidc) if oidc.issuer != *issuer => {
                        format!("has `oidc.iss` {issuer}, and the issuer is {}", oidc.issuer)
                    }
                    Some(_) => return None,
                };
                Some(Mistake::new(&file, id.as_str(), problem))
            })
            .collect();
        mistakes.sort();
        self.mistakes.extend(mistakes);
    }
}

fn scopes(section: &Oidc) -> Vec<String> {
    let mut scopes = section.scopes.clone().unwrap_or_default();
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    scopes
}
