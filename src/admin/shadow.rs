//! `/v1/shadow`: what is in shadow now, and so is decided and recorded but not enforced, and what it let pass. Everybody
//! who looks must see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::Admin;
use super::agents::moment;
use super::caller::Caller;
use super::problem::Problem;
use super::records::Sight;
use crate::store::{self, Filter, PAGE_RECORDS_MAX};

/// How far back what would have been stopped is counted.
const COUNTED: Duration = Duration::DAY;
/// Pages of the index that one count looks through, the newest first.
const PAGES_MAX: usize = 20;

/// What passes for now although it would be stopped.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InShadow {
    /// Upstreams whose calls pass, by name.
    pub upstreams: Vec<Shadowed>,
    /// Policies that forbid and stop nothing (`@mode("shadow")`), by id.
    pub policies: Vec<ShadowPolicy>,
}

/// A policy in shadow. It stops calls of consequence 4 all the same.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ShadowPolicy {
    /// Its id.
    pub policy: String,
    /// When it ends, as for upstreams; none where nobody said so.
    pub until: Option<String>,
    /// The last day of it, in UTC.
    pub last_day: Option<String>,
    /// Days after today (UTC) until the last day.
    pub days_left: Option<i64>,
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
            let (last_day, days_left) = last_day(shadow.until, now);
            Some(Shadowed {
                upstream: config.name.to_string(),
                groups: shadow.groups.iter().map(|group| group.to_string()).collect(),
                until: moment(shadow.until),
                last_day,
                days_left,
            })
        });
        let policies = generation.policy.in_shadow().into_iter();
        let policies =
            policies.filter(|(_, until)| until.is_none_or(|until| now < until)).map(|(id, until)| {
                let (last_day, days_left) = until.map(|until| last_day(until, now)).unzip();
                ShadowPolicy { policy: id.to_string(), until: until.map(moment), last_day, days_left }
            });
        InShadow { upstreams: upstreams.collect(), policies: policies.collect() }
    }

    /// As far as it is about an agent of these groups.
    pub(super) fn of_groups(mut self, groups: &[String]) -> InShadow {
        let about =
            |one: &Shadowed| one.groups.is_empty() || one.groups.iter().any(|group| groups.contains(group));
        self.upstreams.retain(about);
        self
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.upstreams.is_empty() && self.policies.is_empty()
    }
}

/// The last day before a moment, and how many days after today that is.
fn last_day(until: SystemTime, now: SystemTime) -> (String, i64) {
    let last = (OffsetDateTime::from(until) - Duration::DAY).date();
    (last.to_string(), (last - OffsetDateTime::from(now).date()).whole_days())
}

/// What is in shadow, and what that let pass of late.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Told {
    /// What passes for now.
    pub in_force: InShadow,
    /// Since when calls are counted, RFC 3339: a day ago.
    pub since: String,
    /// Calls that would have been stopped, of agents that the caller may see, by upstream, rule and outcome; the most
    /// first.
    pub would_be: Vec<Count>,
    /// Whether there were more of them than could be counted; then these are the newest.
    pub more: bool,
}

/// Calls that would have been stopped alike.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Count {
    /// The upstream.
    pub upstream: String,
    /// The rule that would have stopped them.
    pub rule: String,
    /// What would have become of them: `held`, `denied` or `limited`.
    pub outcome: String,
    /// How many.
    pub calls: u64,
    /// Of how many agents.
    pub agents: usize,
}

/// `GET /v1/shadow`
pub(super) async fn show(State(admin): State<Arc<Admin>>, caller: Caller) -> Result<Json<Told>, Problem> {
    told(&admin, &caller).await.map(Json)
}

/// What is in shadow, and what it let pass of calls of agents that the caller may see.
pub(super) async fn told(admin: &Admin, caller: &Caller) -> Result<Told, Problem> {
    let since = OffsetDateTime::now_utc() - COUNTED;
    let mut filter = Filter {
        would_be: Some(store::Shadowed::Any),
        from: Some(since.into()),
        limit: Some(PAGE_RECORDS_MAX),
        ..Filter::default()
    };
    let mut sight = Sight::new(admin, caller);
    // By upstream, rule and outcome: the calls of each agent.
    let mut counted: BTreeMap<[String; 3], BTreeMap<String, u64>> = BTreeMap::new();
    for _ in 0..PAGES_MAX {
        let page = admin.index.records(filter.clone()).await?;
        for row in page.rows.into_iter().filter(|row| sight.shows(&row.agent)) {
            let agents = counted.entry([row.upstream, row.rule, row.would_be]).or_default();
            *agents.entry(row.agent).or_default() += 1;
        }
        filter.cursor = page.next;
        if page.next.is_none() {
            break;
        }
    }
    let count = |([upstream, rule, outcome], agents): ([String; 3], BTreeMap<String, u64>)| Count {
        upstream,
        rule,
        outcome,
        calls: agents.values().sum(),
        agents: agents.len(),
    };
    let mut would_be: Vec<Count> = counted.into_iter().map(count).collect();
    would_be.sort_by_key(|count| std::cmp::Reverse(count.calls));
    Ok(Told {
        in_force: InShadow::now(admin),
        since: moment(since.into()),
        would_be,
        more: filter.cursor.is_some(),
    })
}
