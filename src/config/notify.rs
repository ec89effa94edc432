//! Who is told of held calls and emergency lifts, from the section `notify`.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use http::Uri;
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::load::Reader;
use super::raw::File;
use crate::net::tls;
use crate::webhook::sign::Key;
use crate::webhook::{self, EVENTS, GIVE_UP_AFTER, GIVE_UP_AFTER_MAX, WEBHOOKS_MAX};

/// Who is told of held calls and emergency lifts, beside the console.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// Where people open the console, as in `https://gateway.internal:8480`: notifications link to its pages.
    pub console: String,
    /// How long a notification is tried before it counts as dead: `24h` when not given, `7d` at most.
    pub give_up_after: Option<String>,
    /// The receivers.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
}

/// One receiver of Standard Webhooks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its name in metrics and lists.
    pub name: String,
    /// Where: `https`, or `http` to an address of this machine.
    pub url: String,
    /// A file of shared secrets, `whsec_…`, one a line; each signs, so that one can be replaced. Only its owner may read it.
    pub secret_file: Option<String>,
    /// A file of Ed25519 private keys, PEM or `whsk_…`, one a line; each signs. Only its owner may read it.
    pub key_file: Option<String>,
    /// What it is told: `hold.opened`, `hold.voted`, `hold.escalated`, `hold.expiring`, `hold.released`, `hold.ended`,
    /// `breakglass.opened`, `breakglass.closed`, `breakglass.expired`, `breakglass.unreviewed`, `breakglass.reviewed`;
    /// everything when not given.
    pub events: Option<Vec<String>>,
    /// The roots of the receiver's certificate, PEM; the system's by default.
    pub ca_file: Option<String>,
}

/// What an address of a receiver must be.
const URL: &str = "must be an https URL without user, password and fragment, or an http one of this machine, as in \
                   https://chat.internal/holdpoint or http://127.0.0.1:9000/";

impl Reader {
    pub(super) fn notify(&mut self, raw: &File) -> webhook::Config {
        let Some(raw) = &raw.notify else { return webhook::Config::default() };
        let console = console(&raw.console);
        if console.is_none() {
            self.mistake(
                "notify.console",
                "must be where people open the console, as in https://gateway.internal:8480",
            );
        }
        let usual = GIVE_UP_AFTER.as_secs();
        let give_up_after = self.duration("notify.give_up_after", raw.give_up_after.as_deref(), usual);
        if give_up_after.is_zero() || give_up_after > GIVE_UP_AFTER_MAX {
            self.mistake("notify.give_up_after", "must be more than 0s and at most 7d");
        }
        if raw.webhooks.is_empty() || raw.webhooks.len() > WEBHOOKS_MAX {
            self.mistake("notify.webhooks", format!("must have 1 to {WEBHOOKS_MAX} receivers"));
        }
        let mut webhooks: Vec<Arc<webhook::Webhook>> = Vec::new();
        for (at, webhook) in raw.webhooks.iter().enumerate() {
            let path = format!("notify.webhooks[{at}]");
            if webhooks.iter().any(|other| *other.name == *webhook.name) {
                self.mistake(&format!("{path}.name"), "two webhooks have this name");
            }
            webhooks.extend(self.webhook(&path, webhook).map(Arc::new));
        }
        webhook::Config { console: console.unwrap_or_default(), give_up_after, webhooks }
    }

    fn webhook(&mut self, path: &str, raw: &Webhook) -> Option<webhook::Webhook> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if raw.name.is_empty() || raw.name.len() > 64 || !raw.name.chars().all(plain) {
            self.mistake(&format!("{path}.name"), "must be 1 to 64 letters, digits, `-`, `_` and `.`");
        }
        let url = receiver(&raw.url);
        if url.is_none() {
            self.mistake(&format!("{path}.url"), URL);
        }
        let roots = match &raw.ca_file {
            None => None,
            Some(file) => Some(self.bytes(&format!("{path}.ca_file"), Some(file))?),
        };
        let secure = url.as_ref().is_some_and(|url| url.scheme_str() == Some("https"));
        if roots.is_some() && !secure && url.is_some() {
            self.mistake(&format!("{path}.ca_file"), "belongs to an https URL");
        }
        let tls = if secure {
            let config = tls::client_config(roots.as_deref(), None, &[b"http/1.1"]);
            let key = if roots.is_some() { "ca_file" } else { "url" };
            config.map_err(|problem| self.mistake(&format!("{path}.{key}"), problem)).ok()
        } else {
            None
        };
        let keys = self.webhook_keys(path, raw);
        let events = match &raw.events {
            None => EVENTS.to_vec(),
            Some(words) => self.events(&format!("{path}.events"), words),
        };
        Some(webhook::Webhook { name: Arc::from(&*raw.name), url: url?, tls, keys, events })
    }

    fn webhook_keys(&mut self, path: &str, raw: &Webhook) -> Vec<Key> {
        let mut keys = Vec::new();
        if let Some(file) = &raw.secret_file {
            keys.extend(self.keys_in(&format!("{path}.secret_file"), file, Key::shared));
        }
        if let Some(file) = &raw.key_file {
            keys.extend(self.keys_in(&format!("{path}.key_file"), file, Key::ed25519));
        }
        if raw.secret_file.is_none() && raw.key_file.is_none() {
            self.mistake(path, "needs a `secret_file` or a `key_file`: nobody believes what is not signed");
        }
        keys
    }

    fn keys_in(&mut self, at: &str, file: &str, read: impl Fn(&str) -> Result<Vec<Key>, String>) -> Vec<Key> {
        let file = self.path(file);
        self.sources.will_read(&file);
        let text = std::fs::read_to_string(&file).map(Zeroizing::new);
        let mode = std::fs::metadata(&file).map(|metadata| metadata.permissions().mode());
        let (text, mode) = match (text, mode) {
            (Ok(text), Ok(mode)) => (text, mode),
            (Err(error), _) | (_, Err(error)) => {
                self.mistake(at, format!("{}: {error}", file.display()));
                return Vec::new();
            }
        };
        if mode & 0o077 != 0 {
            self.mistake(at, format!("{}: others may read it: chmod 600", file.display()));
        }
        match read(&text) {
            Ok(keys) => {
                // Another key is another configuration; the key itself has no place in the audit, not even its digest.
                for key in &keys {
                    self.sources.has_read("notify", at.as_bytes(), &key.fingerprint());
                }
                keys
            }
            Err(problem) => {
                self.mistake(at, format!("{}: {problem}", file.display()));
                Vec::new()
            }
        }
    }

    fn events(&mut self, at: &str, words: &[String]) -> Vec<&'static str> {
        let mut events = Vec::new();
        for word in words {
            match EVENTS.into_iter().find(|event| event == word) {
                Some(event) => events.push(event),
                None => self.mistake(at, format!("`{word}` is none of {}", EVENTS.join(", "))),
            }
        }
        if words.is_empty() {
            self.mistake(at, format!("must name at least one of {}", EVENTS.join(", ")));
        }
        events
    }
}

/// The address of the console without a slash at its end.
fn console(text: &str) -> Option<String> {
    let url: Uri = text.parse().ok()?;
    let whole = url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty());
    let plain = url.query().is_none() && !text.contains(['@', '#', '"']);
    (whole && plain).then(|| text.trim_end_matches('/').to_owned())
}

/// The address of a receiver.
fn receiver(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let host = url.host().filter(|host| !host.is_empty())?;
    if text.contains(['@', '#']) {
        return None;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here =
        bare == "localhost" || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    match url.scheme_str() {
        Some("https") => Some(url),
        Some("http") if here => Some(url),
        _ => None,
    }
}
