//! `upstreams[].enforcement`: until when an upstream's calls are in shadow, and whose.

use std::sync::Arc;
use std::time::SystemTime;

use time::{Date, Duration, OffsetDateTime};

use super::load::{Loaded, Reader};
use super::raw;
use crate::call::Shadow;
use crate::units;

/// How far ahead shadow may end.
const AHEAD_MAX: Duration = Duration::days(30);

impl Reader {
    pub(super) fn shadow(&mut self, path: &str, raw: &raw::Upstream) -> Option<Shadow> {
        let enforcement = raw.enforcement.as_ref()?;
        let path = format!("{path}.enforcement");
        match enforcement.mode.as_str() {
            "shadow" => {}
            "enforce" => return None,
            _ => {
                self.mistake(&format!("{path}.mode"), "must be `enforce` or `shadow`");
                return None;
            }
        }
        let Some(last) = enforcement.until.as_deref().map(units::date) else {
            let expected = "is required: the last day of shadow, as in 2026-12-20, at most 30 days ahead";
            self.mistake(&format!("{path}.until"), expected);
            return None;
        };
        let Some(last) = last else {
            self.mistake(&format!("{path}.until"), "must be a date such as 2026-12-20");
            return None;
        };
        if last > OffsetDateTime::now_utc().date().saturating_add(AHEAD_MAX) {
            self.mistake(&format!("{path}.until"), "must be at most 30 days ahead");
        }
        let until = last.next_day().unwrap_or(Date::MAX).midnight().assume_utc().into();
        Some(Shadow {
            until,
            groups: enforcement.groups.iter().map(|group| Arc::from(group.as_str())).collect(),
        })
    }
}

/// What is in shadow, or was until a day that is past, a sentence each: `check` says it, and the log at the start.
pub(super) fn in_shadow(loaded: &Loaded) -> Vec<String> {
    let now = SystemTime::now();
    let upstreams = loaded.catalog.upstreams().filter_map(|upstream| {
        let config = upstream.config();
        let shadow = config.shadow.as_ref()?;
        let last = (OffsetDateTime::from(shadow.until) - Duration::DAY).date();
        let whom = match shadow.groups.join(", ") {
            groups if groups.is_empty() => "all agents".to_owned(),
            groups => format!("agents of {groups}"),
        };
        Some(match shadow.until > now {
            true => format!("upstream `{}` is in shadow for {whom} to the end of {last} (UTC)", config.name),
            false => {
                format!("upstream `{}`: its shadow ended on {last}, everything is enforced", config.name)
            }
        })
    });
    let mut said: Vec<String> = upstreams.collect();
    said.extend(loaded.policy.in_shadow().iter().map(|(id, until)| match until {
        None => format!(
            "policy `{id}` is in shadow and no end was said: @mode(\"shadow until DATE\") says one, at most 30 days ahead"
        ),
        Some(until) => {
            let last = (OffsetDateTime::from(*until) - Duration::DAY).date();
            format!("policy `{id}` is in shadow to the end of {last} (UTC)")
        }
    }));
    said
}
