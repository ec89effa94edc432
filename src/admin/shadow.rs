//! What is in shadow now, and so is decided and recorded but not enforced: everybody who looks must see it.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::Admin;
use super::agents::moment;

/// What passes for now although it would be stopped.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InShadow {
    /// Upstreams whose calls pass, by name.
    pub upstreams: Vec<Shadowed>,
    /// Policies that forbid and stop nothing (`@mode("shadow")`), by id. They have no end date.
    pub policies: Vec<String>,
}

/// An upstream in shadow. Calls of consequence 4 are stopped all the same.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Shadowed {
    /// The upstream.
    pub upstream: String,
    /// The groups of agents whose calls pass; empty for all agents.
    pub groups: Vec<String>,
    /// When it ends, RFC 3339: from here on everything is enforced.
    pub until: String,
    /// The last day of it, in UTC, as in `2026-12-05`.
    pub last_day: String,
    /// Days after today (UTC) until the last day; 0 when it ends tonight.
    pub days_left: i64,
}

impl InShadow {
    /// What the generation in force has in shadow at this moment.
    pub(super) fn now(admin: &Admin) -> InShadow {
        let now = SystemTime::now();
        let generation = admin.gateway.in_force.load();
        let upstreams = generation.catalog.upstreams().filter_map(|upstream| {
            let config = upstream.config();
            let shadow = config.shadow.as_ref().filter(|shadow| now < shadow.until)?;
            let last_day = (OffsetDateTime::from(shadow.until) - Duration::DAY).date();
            Some(Shadowed {
                upstream: config.name.to_string(),
                groups: shadow.groups.iter().map(|group| group.to_string()).collect(),
                until: moment(shadow.until),
                last_day: last_day.to_string(),
                days_left: (last_day - OffsetDateTime::from(now).date()).whole_days(),
            })
        });
        let policies = generation.policy.in_shadow();
        InShadow {
            upstreams: upstreams.collect(),
            policies: policies.iter().map(|id| id.to_string()).collect(),
        }
    }

    /// As far as it is about an agent of these groups.
    pub(super) fn of_groups(mut self, groups: &[String]) -> InShadow {
        let about = |one: &Shadowed| one.groups.is_empty() || one.groups.iter().any(|group| groups.contains(group));
        self.upstreams.retain(about);
        self
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.upstreams.is_empty() && self.policies.is_empty()
    }
}
