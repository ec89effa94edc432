//! The ladder: how a client can wait, as measured with real clients. The first rung that it can bear is taken, and the
//! last one is always there: the call is answered as pending, and its repeat joins the hold.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};

use super::sealed::Sealer;
use crate::call::Era;
use crate::decode::Call;
use crate::decode::mcp::McpAction;

/// Before any rung, so that a plain reply stays possible: how long an instant decision is waited for.
pub const PRELUDE: Duration = Duration::from_secs(2);
/// A legacy client that asked for progress is kept by it; beyond this the clients that were measured give up.
pub const PROGRESS_TIME_MAX: Duration = Duration::from_secs(280);
/// A legacy client that did not: most give up after a minute.
pub const SILENT_TIME_MAX: Duration = Duration::from_secs(45);
/// One leg of a modern client that comes back by itself.
pub const LEG_TIME: Duration = Duration::from_secs(40);
/// How often it may come back: clients count ten rounds.
pub const LEGS_MAX: u8 = 9;
/// How often a waiting client is told that its call still waits.
pub const BEAT_EVERY: Duration = Duration::from_secs(10);

/// How often a client should ask for its task.
pub const POLL_EVERY: Duration = Duration::from_secs(5);

/// How the states that this gateway gives begin; any other is an upstream's.
pub const STATE_PREFIX: &str = "hp1.";

/// How a client waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rung {
    /// It comes back with a state that it was given, so many times already.
    Legs(u8),
    /// It is told that approval is pending.
    Pending,
    /// Plain HTTP: as long as it prefers, then it is told.
    Preferred(Duration),
    /// Plain HTTP: it wants to be told where to look.
    RespondAsync,
    /// A stream is begun at once; with a token, as JSON, progress is told on it.
    Stream(Option<String>),
    /// It is given a task, and asks for it.
    Task,
}

/// What an agent carries from one leg of its call to the next; only this gateway can make or read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The hold.
    pub hold: String,
    /// Whose call it is.
    pub agent: String,
    /// The method of the call.
    pub method: String,
    /// SHA-256 of the call, in hexadecimal.
    pub digest: String,
    /// Which leg it is, from 1.
    pub leg: u8,
    /// Until when it is good, in seconds since 1970.
    pub until: u64,
    /// The state of the upstream that stood in the call, as JSON.
    pub state: Option<String>,
    /// The answers to the upstream that stood in the call, as JSON.
    pub answers: Option<String>,
}

/// The longest state of an upstream, and the longest answers to it, that are carried, in bytes together.
const CARRIED_BYTES_MAX: usize = 16 << 10;

/// The rung of a call that came over its own request, after so many legs.
pub fn rung(call: &Call, legs: u8) -> Rung {
    let headers = &call.head().headers;
    let Some(envelope) = call.envelope() else { return preference(headers) };
    if !matches!(envelope.action, McpAction::CallTool { .. }) || envelope.endpoint.is_some() {
        return Rung::Pending;
    }
    match envelope.era {
        Era::Modern if envelope.tasks_extension && legs == 0 => Rung::Task,
        Era::Modern if legs < LEGS_MAX => Rung::Legs(legs),
        Era::Modern => Rung::Pending,
        Era::Legacy if !accepts_events(headers) => Rung::Pending,
        Era::Legacy => {
            let token = call.message().and_then(|message| message.meta()?.get("progressToken"));
            let raw = token.and_then(|token| std::str::from_utf8(token.raw()).ok());
            Rung::Stream(raw.map(str::to_owned))
        }
    }
}

/// How long a rung may take in one request.
pub fn time(rung: &Rung) -> Duration {
    match rung {
        Rung::Legs(_) => LEG_TIME,
        Rung::Pending | Rung::RespondAsync | Rung::Task => Duration::ZERO,
        Rung::Preferred(wait) => *wait,
        Rung::Stream(Some(_)) => PROGRESS_TIME_MAX,
        Rung::Stream(None) => SILENT_TIME_MAX,
    }
}

/// What a plain HTTP client prefers [RFC 7240 §4.1, §4.3].
fn preference(headers: &HeaderMap) -> Rung {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = preferences.flat_map(|value| value.split(',')).map(str::trim);
    let mut wait = Duration::ZERO;
    for preference in preferences {
        if preference.eq_ignore_ascii_case("respond-async") {
            return Rung::RespondAsync;
        }
        if let Some((name, seconds)) = preference.split_once('=')
            && name.trim().eq_ignore_ascii_case("wait")
            && let Ok(seconds) = seconds.trim().trim_matches('"').parse::<u32>()
        {
            wait = Duration::from_secs(u64::from(seconds));
        }
    }
    Rung::Preferred(wait)
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = ranges.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next());
    ranges.any(|range| range.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// What a state is sealed for.
const STATE: &str = "request state";

impl Carried {
    /// The state as the agent carries it; `None` when what it would have to carry is too long.
    pub fn sealed(&self, sealer: &Sealer) -> Option<String> {
        let carried = [&self.state, &self.answers].into_iter().flatten().map(String::len).sum::<usize>();
        if carried > CARRIED_BYTES_MAX {
            return None;
        }
        let sealed = sealer.seal(STATE, &serde_json::to_vec(self).ok()?)?;
        Some(format!("{STATE_PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// What a state that begins as this gateway's carries; `None` when it is not its own, or was changed.
    pub fn open(text: &str, sealer: &Sealer) -> Option<Carried> {
        let sealed = URL_SAFE_NO_PAD.decode(text.strip_prefix(STATE_PREFIX)?).ok()?;
        serde_json::from_slice(&sealer.open(STATE, &sealed)?).ok()
    }
}
