//! The gateway's own figures in Prometheus text. Labels come from closed sets or from configuration, never from an agent.

mod method;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::export::Loss;
use super::hop::{Hop, Outcome, status_label};
use super::spans::http_method;
use crate::call::{BreakerPhase, Class, Protocol};
use method::mcp_method;

/// Series that one histogram may have before new label values become `other`.
const SERIES_MAX: usize = 2048;

/// The boundaries that the MCP conventions ask for, in seconds.
const MCP_SECONDS: &[f64] = &[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// The boundaries that the HTTP conventions ask for, in seconds.
const HTTP_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Fine boundaries for what the gateway itself costs, in seconds.
const OVERHEAD_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.000_75, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05,
    0.1, 0.5, 1.0, 5.0,
];
/// How long people take, in seconds: half a minute to a week.
const HOLD_SECONDS: &[f64] =
    &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0, 604_800.0];
/// How long a commit takes, in seconds.
const COMMIT_SECONDS: &[f64] =
    &[0.000_02, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct McpLabels {
    mcp_method_name: &'static str,
    holdpoint_upstream: Arc<str>,
    error_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    http_request_method: &'static str,
    http_response_status_code: &'static str,
    holdpoint_upstream: Arc<str>,
    error_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    class: &'static str,
    decision: &'static str,
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FindingLabels {
    finding: Cow<'static, str>,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabel {
    holdpoint_upstream: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    webhook: Arc<str>,
    outcome: &'static str,
}

/// What became of one attempt to tell a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It has it.
    Delivered,
    /// It does not, and is told again.
    Failed,
    /// It does not, and is not told any more.
    Dead,
}

/// Makes the histograms of a family.
#[derive(Clone, Copy, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// A family whose number of series is bounded.
#[derive(Debug)]
struct Capped<L> {
    family: Histograms<L>,
    series: AtomicUsize,
}

impl<L: Clone + Debug + Eq + Hash> Capped<L> {
    fn new(buckets: &'static [f64]) -> Capped<L> {
        Capped { family: Family::new_with_constructor(Buckets(buckets)), series: AtomicUsize::new(0) }
    }

    /// Observes under these labels, or under what they fold to once there are as many series as there may be.
    fn observe(&self, labels: L, fold: fn(L) -> L, value: f64) {
        // The guard must be gone before the family is asked to create, which takes the write lock.
        let known = self.family.get(&labels).map(|histogram| histogram.observe(value)).is_some();
        if !known {
            let full = self.series.fetch_add(1, Ordering::Relaxed) >= SERIES_MAX;
            let labels = if full { fold(labels) } else { labels };
            self.family.get_or_create(&labels).observe(value);
        }
    }
}

type Histograms<L> = Family<L, Histogram, Buckets>;
type Float = Gauge<f64, AtomicU64>;

/// Every metric of the gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    mcp_server: Capped<McpLabels>,
    mcp_client: Capped<McpLabels>,
    http_server: Capped<HttpLabels>,
    calls: Family<CallLabels, Counter>,
    flow_findings: Family<FindingLabels, Counter>,
    overhead: Histogram,
    hold: Histograms<OutcomeLabel>,
    holds_pending: Gauge,
    holds_escalated: Counter,
    holds_unmanned: Gauge,
    notified: Family<DeliveryLabels, Counter>,
    notifications_waiting: Gauge,
    notifications_dead: Gauge,
    breakglass_open: Gauge,
    breakglass_reviews: Gauge,
    breakglass_calls: Counter,
    audit_commit: Histogram,
    audit_bytes: Counter,
    dropped: Family<Reason, Counter>,
    exported: Counter,
    refused: Family<Reason, Counter>,
    checkpoint_failures: Counter,
    audit_free_bytes: Gauge,
    reload_failures: Counter,
    generation: Gauge,
    trust_expiry: Family<Named, Float>,
    shadow: Family<Named, Float>,
    reviews_due: Gauge,
    catalog_drift: Family<Named, Gauge>,
    index_lag: Gauge,
    store_failures: Counter,
    upstream_breaker: Family<UpstreamLabel, Gauge>,
    breakers_open: Mutex<BTreeSet<Arc<str>>>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Every metric, at zero.
    pub fn new() -> Metrics {
        let metrics = Metrics {
            registry: Registry::default(),
            mcp_server: Capped::new(MCP_SECONDS),
            mcp_client: Capped::new(MCP_SECONDS),
            http_server: Capped::new(HTTP_SECONDS),
            calls: Family::default(),
            flow_findings: Family::default(),
            overhead: Buckets(OVERHEAD_SECONDS).new_metric(),
            hold: Family::new_with_constructor(Buckets(HOLD_SECONDS)),
            holds_pending: Gauge::default(),
            holds_escalated: Counter::default(),
            holds_unmanned: Gauge::default(),
            notified: Family::default(),
            notifications_waiting: Gauge::default(),
            notifications_dead: Gauge::default(),
            breakglass_open: Gauge::default(),
            breakglass_reviews: Gauge::default(),
            breakglass_calls: Counter::default(),
            audit_commit: Buckets(COMMIT_SECONDS).new_metric(),
            audit_bytes: Counter::default(),
            dropped: Family::default(),
            exported: Counter::default(),
            refused: Family::default(),
            checkpoint_failures: Counter::default(),
            audit_free_bytes: Gauge::default(),
            reload_failures: Counter::default(),
            generation: Gauge::default(),
            trust_expiry: Family::default(),
            shadow: Family::default(),
            reviews_due: Gauge::default(),
            catalog_drift: Family::default(),
            index_lag: Gauge::default(),
            store_failures: Counter::default(),
            upstream_breaker: Family::default(),
            breakers_open: Mutex::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Metrics {
        let mut registry = Registry::default();
        self.register_durations(&mut registry);
        self.register_counts(&mut registry);
        self.register_people(&mut registry);
        // A loss that never happened is a zero, not an absence: alerts on rates need the first increase.
        for loss in Loss::ALL {
            drop(self.dropped.get_or_create(&Reason { reason: loss.as_str() }));
        }
        self.registry = registry;
        self
    }

    fn register_durations(&self, registry: &mut Registry) {
        let seconds = || Unit::Seconds;
        let mut add =
            |name: &str, help: &str, family| registry.register_with_unit(name, help, seconds(), family);
        let (server, client) = (self.mcp_server.family.clone(), self.mcp_client.family.clone());
        add("mcp_server_operation_duration", "MCP requests as the agent saw them", server);
        add("mcp_client_operation_duration", "MCP requests as the upstream answered them", client);
        let http = self.http_server.family.clone();
        registry.register_with_unit(
            "http_server_request_duration",
            "HTTP requests as the agent saw them",
            seconds(),
            http,
        );
        let hold = self.hold.clone();
        registry.register_with_unit(
            "holdpoint_hold_duration",
            "From the opening of a hold to its end",
            seconds(),
            hold,
        );
        let mut add = |name: &str, help: &str, one| registry.register_with_unit(name, help, seconds(), one);
        let overhead = "Time in the gateway less waiting for upstream and people";
        add("holdpoint_overhead_duration", overhead, self.overhead.clone());
        add(
            "holdpoint_audit_commit_duration",
            "From the audit's queue to its disk, for each record",
            self.audit_commit.clone(),
        );
        let left = "Time until shadow ends, by upstream; 0 when it has ended";
        registry.register_with_unit("holdpoint_shadow", left, seconds(), self.shadow.clone());
        let expiry = self.trust_expiry.clone();
        registry.register_with_unit(
            "holdpoint_trust_expiry",
            "Time until a certificate or bundle expires",
            seconds(),
            expiry,
        );
    }

    fn register_counts(&self, registry: &mut Registry) {
        registry.register(
            "holdpoint_holds_escalated",
            "Holds that nobody had decided when half of their time was over",
            self.holds_escalated.clone(),
        );
        registry.register(
            "holdpoint_breakglass_calls",
            "Calls that an emergency lift decided",
            self.breakglass_calls.clone(),
        );
        registry.register("holdpoint_calls", "Calls by class, decision and mode", self.calls.clone());
        let help = "What flow control found in calls, by what became of them";
        registry.register("holdpoint_flow_findings", help, self.flow_findings.clone());
        registry.register(
            "holdpoint_catalog_drift",
            "Tools that differ from their pins, by upstream",
            self.catalog_drift.clone(),
        );
        registry.register(
            "holdpoint_upstream_breaker",
            "Whether calls are sent: 0 all, 1 one that tries, 2 none",
            self.upstream_breaker.clone(),
        );
        let mut add = |name: &str, help: &str, counter| registry.register(name, help, counter);
        add("holdpoint_audit_bytes", "Bytes written to the audit", self.audit_bytes.clone());
        add(
            "holdpoint_audit_checkpoint_failures",
            "Signed checkpoints that could not be published",
            self.checkpoint_failures.clone(),
        );
        add("holdpoint_reload_failures", "Reloads refused because of mistakes", self.reload_failures.clone());
        add(
            "holdpoint_store_failures",
            "Labels that the store did not keep in time",
            self.store_failures.clone(),
        );
        add("holdpoint_telemetry_exported", "Spans that the collector confirmed", self.exported.clone());
        let mut add = |name: &str, help: &str, by_reason| registry.register(name, help, by_reason);
        add(
            "holdpoint_refused_connections",
            "Connections refused before any call, by reason",
            self.refused.clone(),
        );
        add(
            "holdpoint_telemetry_dropped",
            "Spans that no collector confirmed, by reason",
            self.dropped.clone(),
        );
        let mut add = |name: &str, help: &str, gauge| registry.register(name, help, gauge);
        add("holdpoint_holds_pending", "Holds that wait for people", self.holds_pending.clone());
        add("holdpoint_breakglass_open", "Emergency lifts in force", self.breakglass_open.clone());
        add(
            "holdpoint_breakglass_reviews",
            "Emergency lifts that ended and that nobody has reviewed",
            self.breakglass_reviews.clone(),
        );
        add(
            "holdpoint_audit_free_bytes",
            "What the audit's disk has left; 0 when nobody looks",
            self.audit_free_bytes.clone(),
        );
        add("holdpoint_reviews_due", "Agents whose review is due", self.reviews_due.clone());
        add(
            "holdpoint_index_lag",
            "Records of the audit that are not in the index yet",
            self.index_lag.clone(),
        );
        add("holdpoint_generation", "The generation of configuration in force", self.generation.clone());
    }

    fn register_people(&self, registry: &mut Registry) {
        registry.register(
            "holdpoint_notifications",
            "Attempts to tell webhooks of holds, by webhook and outcome",
            self.notified.clone(),
        );
        let mut add = |name: &str, help: &str, gauge| registry.register(name, help, gauge);
        add(
            "holdpoint_holds_unmanned",
            "Policies that hold calls which nobody could approve",
            self.holds_unmanned.clone(),
        );
        let waiting = self.notifications_waiting.clone();
        add("holdpoint_notifications_waiting", "Notifications that no webhook has confirmed yet", waiting);
        let dead = self.notifications_dead.clone();
        add("holdpoint_notifications_dead", "Notifications that are not tried any more", dead);
    }

    /// Counts a call that ended.
    pub(super) fn count(&self, hop: &Hop) {
        let error_type = hop.error_type().map_or("", |error| error.label());
        let upstream = || Arc::clone(&hop.upstream.name);
        let total = hop.timing.total.as_secs_f64();
        if matches!(hop.protocol, Protocol::Mcp(_)) {
            let mcp_method_name = mcp_method(&hop.target.method);
            let labels = McpLabels { mcp_method_name, holdpoint_upstream: upstream(), error_type };
            self.mcp_server.observe(labels, McpLabels::folded, total);
            if let Some((from, to)) = hop.timing.upstream {
                let error_type =
                    hop.error.filter(|error| error.is_upstream()).map_or("", |error| error.label());
                let labels = McpLabels { mcp_method_name, holdpoint_upstream: upstream(), error_type };
                self.mcp_client.observe(labels, McpLabels::folded, to.saturating_sub(from).as_secs_f64());
            }
        }
        let labels = HttpLabels {
            http_request_method: http_method(&hop.target.http_method).unwrap_or("other"),
            http_response_status_code: hop.status.map_or("", status_label),
            holdpoint_upstream: upstream(),
            error_type,
        };
        self.http_server.observe(labels, HttpLabels::folded, total);
        let labels = CallLabels {
            class: hop.decision.class.map_or("unknown", Class::as_str),
            decision: hop.decision.outcome.as_str(),
            mode: if hop.decision.would_be.is_some() { "shadow" } else { "enforce" },
        };
        self.calls.get_or_create(&labels).inc();
        if !hop.decision.break_glass.is_empty() {
            self.breakglass_calls.inc();
        }
        for finding in &hop.decision.findings {
            // Names of sequences are the operator's own, and few.
            let labels = FindingLabels { finding: finding.clone(), decision: hop.decision.outcome.as_str() };
            self.flow_findings.get_or_create(&labels).inc();
        }
        self.overhead.observe(hop.timing.overhead().as_secs_f64());
    }

    /// Counts spans that will not be seen.
    pub(super) fn lost(&self, loss: Loss, spans: u64) {
        self.dropped.get_or_create(&Reason { reason: loss.as_str() }).inc_by(spans);
    }

    /// Counts spans that the collector confirmed.
    pub(super) fn sent(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    /// Spans lost so far, for every reason together.
    pub fn dropped(&self) -> u64 {
        Loss::ALL.into_iter().map(|loss| self.dropped_by(loss)).sum()
    }

    /// Spans lost so far for one reason.
    pub fn dropped_by(&self, loss: Loss) -> u64 {
        self.dropped.get_or_create(&Reason { reason: loss.as_str() }).get()
    }

    /// Spans that the collector confirmed so far.
    pub fn exported(&self) -> u64 {
        self.exported.get()
    }

    /// A hold ended, so long after it was opened.
    pub fn hold_ended(&self, outcome: Outcome, waited: Duration) {
        let labels = OutcomeLabel { outcome: outcome.as_str() };
        self.hold.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// Nobody has decided a hold, and half of its time is over.
    pub fn hold_escalated(&self) {
        self.holds_escalated.inc();
    }

    /// So many policies hold calls which nobody could approve.
    pub fn holds_unmanned(&self, policies: usize) {
        self.holds_unmanned.set(whole(policies));
    }

    /// So many notifications wait, and so many are dead.
    pub fn notifications(&self, waiting: u64, dead: u64) {
        self.notifications_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.notifications_dead.set(i64::try_from(dead).unwrap_or(i64::MAX));
    }

    /// A webhook was told, or was not.
    pub fn notified(&self, webhook: &Arc<str>, delivery: Delivery) {
        let outcome = match delivery {
            Delivery::Delivered => "delivered",
            Delivery::Failed => "failed",
            Delivery::Dead => "dead",
        };
        self.notified.get_or_create(&DeliveryLabels { webhook: Arc::clone(webhook), outcome }).inc();
    }

    /// So many emergency lifts are in force, and so many that ended are to be reviewed.
    pub fn breakglass(&self, open: usize, reviews: usize) {
        self.breakglass_open.set(whole(open));
        self.breakglass_reviews.set(whole(reviews));
    }

    /// So many holds wait for people.
    pub fn holds_pending(&self, pending: usize) {
        self.holds_pending.set(whole(pending));
    }

    /// The audit has a record of so many bytes, so long after it was queued.
    pub fn audit_committed(&self, bytes: u64, waited: Duration) {
        self.audit_bytes.inc_by(bytes);
        self.audit_commit.observe(waited.as_secs_f64());
    }

    /// A connection was refused. The reason is a word of ours, never of theirs.
    pub fn connection_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// A reload was refused because of mistakes.
    pub fn reload_failed(&self) {
        self.reload_failures.inc();
    }

    /// This generation of configuration is in force.
    pub fn generation(&self, number: u64) {
        self.generation.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// What was trusted by this name is not configured any more.
    pub fn trust_gone(&self, name: &Arc<str>) {
        self.trust_expiry.remove(&Named { name: Arc::clone(name) });
    }

    /// What we present or trust, by its configured name, expires so many seconds from now (negative: expired).
    pub fn trust_expiry(&self, name: &Arc<str>, seconds: f64) {
        self.trust_expiry.get_or_create(&Named { name: Arc::clone(name) }).set(seconds);
    }

    /// An upstream is in shadow for so many more seconds; 0 when its shadow has ended.
    pub fn shadow(&self, upstream: &Arc<str>, seconds: f64) {
        self.shadow.get_or_create(&Named { name: Arc::clone(upstream) }).set(seconds);
    }

    /// A checkpoint could not be published.
    pub fn checkpoint_unpublished(&self) {
        self.checkpoint_failures.inc();
    }

    /// What the audit's disk has left.
    pub fn audit_free_bytes(&self, bytes: u64) {
        self.audit_free_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many agents' reviews are due.
    pub fn reviews_due(&self, due: usize) {
        self.reviews_due.set(whole(due));
    }

    /// So many tools of this upstream differ from their pins.
    pub fn catalog_drift(&self, upstream: &Arc<str>, tools: usize) {
        self.catalog_drift.get_or_create(&Named { name: Arc::clone(upstream) }).set(whole(tools));
    }

    /// So many records of the audit are not in the index yet.
    pub fn index_lag(&self, records: u64) {
        self.index_lag.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// The store did not keep the labels; a restart reads more of the audit instead.
    pub fn store_failed(&self) {
        self.store_failures.inc();
    }

    /// The breaker of this upstream turned.
    pub fn upstream_breaker(&self, upstream: &Arc<str>, phase: BreakerPhase) {
        let labels = UpstreamLabel { holdpoint_upstream: Arc::clone(upstream) };
        self.upstream_breaker.get_or_create(&labels).set(match phase {
            BreakerPhase::Closed => 0,
            BreakerPhase::Probing => 1,
            BreakerPhase::Open => 2,
        });
        let mut open = self.breakers_open.lock().unwrap_or_else(PoisonError::into_inner);
        if phase == BreakerPhase::Closed {
            open.remove(upstream)
        } else {
            open.insert(Arc::clone(upstream))
        };
    }

    /// The upstreams whose breakers are not closed, by name.
    pub fn breakers_open(&self) -> Vec<String> {
        let open = self.breakers_open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|name| name.to_string()).collect()
    }

    /// Everything as OpenMetrics text, `application/openmetrics-text; version=1.0.0`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

impl McpLabels {
    fn folded(self) -> McpLabels {
        McpLabels { holdpoint_upstream: Arc::from("other"), ..self }
    }
}

impl HttpLabels {
    fn folded(self) -> HttpLabels {
        HttpLabels { holdpoint_upstream: Arc::from("other"), ..self }
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
