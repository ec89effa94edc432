//! Limit: how many calls in how long, and how many at once, before a call is decided.
//!
//! A call is counted twice: once by its certificate before its body is read, so that nobody makes the gateway parse
//! for free, and once by what it is (agent, tool, class, upstream and combinations). Rates are GCRA (`governor`).
//! The narrowest limit is asked first, so that what it refuses does not eat from the wider ones. A [`Slot`] holds the
//! call's places under concurrency limits until the end of its reply.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::bench::{self, Control};
use crate::call::{AgentId, Class, Stage, Stop, StopKind};
use crate::classify::Facts;

/// What shares a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// The agent's concrete id.
    Agent,
    /// The class of the call.
    Class,
    /// The tool or operation of an upstream.
    Tool,
    /// The upstream.
    Upstream,
}

/// One configured limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What agents are told it is called, as in `agent-tool`.
    pub name: String,
    /// What shares it, sorted.
    pub per: Vec<Dimension>,
    /// Only calls of this class.
    pub class: Option<Class>,
    /// How many in how long, and how many at once after a pause.
    pub rate: Option<Rate>,
    /// How many may be under way.
    pub concurrency: Option<u32>,
}

/// So many calls in so long, and so many in a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Calls, at least one.
    pub count: NonZeroU32,
    /// The period they are counted over, not zero.
    pub period: Duration,
    /// Calls at once after a pause, at least one.
    pub burst: NonZeroU32,
}

/// The configured limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// By certificate, before the body is read.
    pub certificate: Rate,
    /// By what the call is.
    pub rules: Vec<Rule>,
}

/// The name of the limit of a certificate.
pub const CERTIFICATE: &str = "certificate";
/// How many keys one limit remembers. While there are more, nobody gets through it: forgetting would be a way around.
const KEYS_MAX: usize = 200_000;
/// After how many calls at least the forgotten keys are swept.
const SWEEP_CALLS: usize = 4096;

/// How many calls are under way, by what shares the limit.
type Places = Arc<DashMap<Key, u32, RandomState>>;

/// The rate of a limit that has one, shared by the generations that keep it.
type Rates = Option<Arc<Meter<Key>>>;

/// The state of every limit.
pub struct Meters {
    certificates: Arc<Meter<[u8; 32]>>,
    rules: Vec<(Rule, Rates, Places)>,
    clock: DefaultClock,
}

/// The places a call holds under concurrency limits; dropping it gives them back.
#[derive(Default)]
pub struct Slot {
    places: Vec<(Places, Key)>,
}

/// What a call is, as limits see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The agent.
    pub agent: &'a AgentId,
    /// The upstream's name.
    pub upstream: &'a Arc<str>,
    /// The catalogued tool, or `*unlisted*`: never a name that the agent made up.
    pub tool: &'a Arc<str>,
    /// The class of the call.
    pub class: Class,
}

impl<'a> Subject<'a> {
    /// The subject of a call by this agent.
    pub fn of(agent: &'a AgentId, facts: &'a Facts) -> Subject<'a> {
        let resource = &facts.resource;
        Subject { agent, upstream: &resource.upstream, tool: &resource.name, class: facts.class }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Key {
    agent: Option<AgentId>,
    upstream: Option<Arc<str>>,
    tool: Option<Arc<str>>,
    class: Option<Class>,
}

/// Counts a request against its certificate, before its body is read.
pub fn admit(meters: &Meters, fingerprint: &[u8; 32]) -> Result<(), Box<Stop>> {
    if bench::off(Control::Limit) {
        return Ok(());
    }
    meters
        .certificates
        .check(fingerprint, &meters.clock)
        .map_err(|wait| limited(CERTIFICATE, meters.certificates.rate, wait))
}

/// Counts a call against every limit that it falls under, and takes its places.
pub fn acquire(meters: &Meters, subject: Subject<'_>) -> Result<Slot, Box<Stop>> {
    let mut slot = Slot::default();
    if bench::off(Control::Limit) {
        return Ok(slot);
    }
    for (rule, meter, places) in &meters.rules {
        if rule.class.is_some_and(|class| class != subject.class) {
            continue;
        }
        let key = Key::of(&rule.per, subject);
        slot.take(rule, places, &key)?;
        if let Some(meter) = meter {
            meter.check(&key, &meters.clock).map_err(|wait| limited(&rule.name, meter.rate, wait))?;
        }
    }
    Ok(slot)
}

/// Takes the places of a call again that gave them back while it waited for people. It was counted when it came.
pub fn resume(meters: &Meters, subject: Subject<'_>) -> Result<Slot, Box<Stop>> {
    let mut slot = Slot::default();
    if bench::off(Control::Limit) {
        return Ok(slot);
    }
    for (rule, _, places) in &meters.rules {
        if rule.class.is_none_or(|class| class == subject.class) {
            slot.take(rule, places, &Key::of(&rule.per, subject))?;
        }
    }
    Ok(slot)
}

fn limited(name: &str, rate: Rate, wait: Duration) -> Box<Stop> {
    let text = format!(
        "over the limit `{name}` of {} calls in {} s: try again in {:.1} s",
        rate.count,
        rate.period.as_secs_f64(),
        wait.as_secs_f64()
    );
    Stop::new(Stage::Limit, StopKind::Limited, "rate", text)
        .limited(name, rate.count.get(), rate.period)
        .retry_after(wait)
}

fn take(places: &Places, key: &Key, most: u32) -> bool {
    let mut taken = places.entry(key.clone()).or_insert(0);
    if *taken >= most {
        return false;
    }
    *taken += 1;
    true
}

// === impl Meters ===

impl Meters {
    /// Meters at rest.
    pub fn new(config: Config) -> Meters {
        let certificates = Arc::new(Meter::new(config.certificate));
        Meters { certificates, rules: Vec::new(), clock: DefaultClock::default() }.then(config)
    }

    /// The meters of other limits, which go on from these: a rate that stays is used as far as it is, and what is under
    /// way counts against a concurrency limit of the same kind, whatever its number. A rate that changed begins at rest.
    pub fn then(&self, config: Config) -> Meters {
        let certificates = match self.certificates.rate == config.certificate {
            true => Arc::clone(&self.certificates),
            false => Arc::new(Meter::new(config.certificate)),
        };
        let mut rules = config.rules;
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.per.len()));
        let mut before: Vec<_> = self.rules.iter().collect();
        let rules = rules
            .into_iter()
            .map(|rule| {
                let alike = |(old, ..): &&(Rule, _, _)| old.per == rule.per && old.class == rule.class;
                let same = before.iter().position(|(old, ..)| *old == rule);
                let at = same.or_else(|| before.iter().position(alike));
                // Each is gone on from once, so that two limits never share what they count.
                let old = at.map(|at| before.remove(at));
                let kept =
                    old.filter(|(old, ..)| old.rate == rule.rate).and_then(|(_, meter, _)| meter.clone());
                let meter = kept.or_else(|| rule.rate.map(|rate| Arc::new(Meter::new(rate))));
                let places = old.map(|(_, _, places)| Arc::clone(places)).unwrap_or_default();
                (rule, meter, places)
            })
            .collect();
        Meters { certificates, rules, clock: self.clock.clone() }
    }
}

// === impl Slot ===

impl Slot {
    /// Takes a place under a limit of calls under way, where it has one.
    fn take(&mut self, rule: &Rule, places: &Places, key: &Key) -> Result<(), Box<Stop>> {
        let Some(most) = rule.concurrency else { return Ok(()) };
        if take(places, key, most) {
            self.places.push((Arc::clone(places), key.clone()));
            return Ok(());
        }
        let name = &rule.name;
        let text = format!(
            "{most} calls are already under way (limit `{name}`): wait for one to end, then try again"
        );
        let stop = Stop::new(Stage::Limit, StopKind::Limited, "concurrency", text);
        Err(stop.limited(name, most, Duration::from_secs(1)).retry_after(Duration::from_secs(1)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for (places, key) in self.places.drain(..) {
            places.alter(&key, |_, taken| taken.saturating_sub(1));
            places.remove_if(&key, |_, taken| *taken == 0);
        }
    }
}

// === impl Key ===

impl Key {
    fn of(per: &[Dimension], subject: Subject<'_>) -> Key {
        let mut key = Key::default();
        for dimension in per {
            match dimension {
                Dimension::Agent => key.agent = Some(subject.agent.clone()),
                Dimension::Class => key.class = Some(subject.class),
                Dimension::Tool => {
                    key.tool = Some(Arc::clone(subject.tool));
                    key.upstream = Some(Arc::clone(subject.upstream));
                }
                Dimension::Upstream => key.upstream = Some(Arc::clone(subject.upstream)),
            }
        }
        key
    }
}

/// One rate, kept for each key.
struct Meter<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, DashMapStateStore<K, RandomState>, DefaultClock>,
    rate: Rate,
    /// How many calls there are until the next sweep.
    sweep_in: AtomicUsize,
    /// Whether the last sweep left more keys than there may be.
    full: AtomicBool,
}

impl<K: Hash + Eq + Clone> Meter<K> {
    fn new(rate: Rate) -> Meter<K> {
        let each = rate.period / rate.count.get();
        let quota = Quota::with_period(each.max(Duration::from_nanos(1)))
            .unwrap_or(Quota::per_second(rate.count))
            .allow_burst(rate.burst);
        Meter {
            limiter: RateLimiter::dashmap_with_hasher(quota, RandomState::default()),
            rate,
            sweep_in: AtomicUsize::new(SWEEP_CALLS),
            full: AtomicBool::new(false),
        }
    }

    /// Counts one call; the wait until the next is allowed when there is no room.
    fn check(&self, key: &K, clock: &DefaultClock) -> Result<(), Duration> {
        // Who takes the last one sweeps; who comes meanwhile finds more than enough left.
        if self.sweep_in.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.sweep();
        }
        if self.full.load(Ordering::Relaxed) {
            return Err(self.rate.period);
        }
        self.limiter.check_key(key).map_err(|not_until| not_until.wait_time_from(clock.now()))
    }

    fn sweep(&self) {
        self.limiter.retain_recent();
        let keys = self.limiter.len();
        self.full.store(keys > KEYS_MAX, Ordering::Relaxed);
        self.sweep_in.store(calls_until_sweep(keys), Ordering::Relaxed);
    }
}

/// A sweep looks at every key, so the more there are, the more calls pay for it; but never so many that the keys they
/// might add exceed the bound.
fn calls_until_sweep(keys: usize) -> usize {
    (keys / 2).min(KEYS_MAX.saturating_sub(keys)).max(SWEEP_CALLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, seconds: u64, burst: u32) -> Rate {
        Rate {
            count: NonZeroU32::new(count).unwrap(),
            period: Duration::from_secs(seconds),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    fn meters(rules: Vec<Rule>) -> Meters {
        Meters::new(Config { certificate: rate(1000, 1, 1000), rules })
    }

    fn rule(per: Vec<Dimension>, rate: Option<Rate>, concurrency: Option<u32>) -> Rule {
        Rule { name: "test".to_owned(), per, class: None, rate, concurrency }
    }

    fn ask(meters: &Meters, agent: &str, tool: &str, class: Class) -> Result<Slot, Box<Stop>> {
        let agent = AgentId::from_normalised(agent);
        acquire(
            meters,
            Subject { agent: &agent, upstream: &Arc::from("mail"), tool: &Arc::from(tool), class },
        )
    }

    #[test]
    fn each_agent_has_its_own_burst_and_an_exact_wait() {
        let meters = meters(vec![rule(vec![Dimension::Agent], Some(rate(1, 10, 2)), None)]);
        assert!(ask(&meters, "a", "x", Class::Read).is_ok());
        assert!(ask(&meters, "a", "y", Class::Read).is_ok());
        let stop = ask(&meters, "a", "x", Class::Read).err().unwrap();
        let wait = stop.retry_after.unwrap();
        assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
        assert!(ask(&meters, "b", "x", Class::Read).is_ok());
    }

    #[test]
    fn what_a_narrow_limit_refuses_costs_the_wide_one_nothing() {
        let narrow = rule(vec![Dimension::Agent, Dimension::Tool], Some(rate(1, 60, 1)), None);
        let wide = rule(vec![Dimension::Agent], Some(rate(1, 60, 3)), None);
        let meters = meters(vec![wide, narrow]);
        assert!(ask(&meters, "a", "x", Class::Read).is_ok());
        for _ in 0..10 {
            assert!(ask(&meters, "a", "x", Class::Read).is_err());
        }
        assert!(ask(&meters, "a", "y", Class::Read).is_ok());
        assert!(ask(&meters, "a", "z", Class::Read).is_ok());
        assert!(ask(&meters, "a", "w", Class::Read).is_err());
    }

    #[test]
    fn places_are_given_back_when_the_slot_goes() {
        let mut limit = rule(vec![Dimension::Agent], None, Some(2));
        limit.class = Some(Class::External);
        let meters = meters(vec![limit]);
        let first = ask(&meters, "a", "x", Class::External).unwrap();
        let _second = ask(&meters, "a", "y", Class::External).unwrap();
        assert_eq!(ask(&meters, "a", "z", Class::External).err().unwrap().reason, "concurrency");
        assert!(ask(&meters, "a", "z", Class::Read).is_ok());
        drop(first);
        assert!(ask(&meters, "a", "z", Class::External).is_ok());
        let left: usize = meters.rules.iter().map(|(_, _, places)| places.len()).sum();
        assert_eq!(left, 1);
    }

    #[test]
    fn other_limits_go_on_from_where_these_are() {
        let kept = rule(vec![Dimension::Agent], Some(rate(1, 60, 2)), None);
        let places = rule(vec![Dimension::Upstream], None, Some(2));
        let before = meters(vec![kept.clone(), places.clone()]);
        let under_way = ask(&before, "a", "x", Class::Read).unwrap();

        let added = rule(vec![Dimension::Tool], Some(rate(9, 1, 9)), None);
        let fewer = Rule { concurrency: Some(1), ..places };
        let config = Config { certificate: rate(1000, 1, 1000), rules: vec![added, fewer, kept.clone()] };
        let after = before.then(config);
        assert_eq!(ask(&after, "b", "x", Class::Read).err().unwrap().reason, "concurrency");
        drop(under_way);
        assert!(ask(&after, "a", "x", Class::Read).is_ok(), "one of the burst of two is left");
        assert_eq!(ask(&after, "a", "x", Class::Read).err().unwrap().reason, "rate");

        let wider = Rule { rate: Some(rate(1, 60, 3)), ..kept };
        let after = after.then(Config { certificate: rate(1000, 1, 1000), rules: vec![wider] });
        assert!(ask(&after, "a", "x", Class::Read).is_ok(), "a rate that changed begins at rest");
    }

    #[test]
    fn a_certificate_is_counted_before_anything_is_read() {
        let meters = Meters::new(Config { certificate: rate(1, 60, 1), rules: vec![] });
        assert!(admit(&meters, &[1; 32]).is_ok());
        assert_eq!(admit(&meters, &[1; 32]).err().unwrap().kind, StopKind::Limited);
        assert!(admit(&meters, &[2; 32]).is_ok());
    }

    #[test]
    fn a_sweep_is_paid_by_so_many_calls_that_each_pays_little_and_the_bound_holds() {
        for keys in [0, 1, 5_000, 20_000, 100_000, 150_000, KEYS_MAX - 1, KEYS_MAX, 2 * KEYS_MAX] {
            let calls = calls_until_sweep(keys);
            assert!(calls >= SWEEP_CALLS && (keys >= KEYS_MAX || keys + calls <= KEYS_MAX + SWEEP_CALLS));
            assert!(keys > KEYS_MAX / 2 || keys <= 2 * calls, "{keys} keys are swept by {calls} calls");
        }
    }

    #[test]
    fn keys_that_are_at_rest_again_are_swept() {
        let meter = Meter::<u32>::new(rate(1_000_000, 1, 1));
        let clock = DefaultClock::default();
        let one_sweep_is_due = u32::try_from(SWEEP_CALLS).unwrap() - 1;
        for key in 0..one_sweep_is_due {
            let _ = meter.check(&key, &clock);
        }
        assert_eq!(meter.limiter.len(), SWEEP_CALLS - 1);
        std::thread::sleep(Duration::from_millis(1));
        let _ = meter.check(&0, &clock);
        assert_eq!(meter.limiter.len(), 1, "the key that was asked for last is counted after the sweep");
    }
}
