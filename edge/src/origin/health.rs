//! Whether a bucket is worth asking: a circuit breaker, and the keys by which its credentials are known to be good.
//!
//! Both are state machines that are told what happened and when. They ask nobody; `failover` does.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;

/// Failures in a row that open the breaker.
const CONSECUTIVE_MAX: u32 = 5;
/// The window in which the share of failures is counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Requests in a window below which their share of failures says nothing.
const WINDOW_REQUESTS_MIN: u32 = 20;
/// How long the breaker stays open at first. It is longer than the pause between probes, so that a client's request
/// goes through an open breaker only when nobody probes any more.
const OPEN_FIRST: Duration = Duration::from_secs(10);
/// How long it stays open at most.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// From the opening to the first probe.
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// From one probe to the next.
pub const PROBE_PAUSE: Duration = Duration::from_secs(5);

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests go through.
    Closed,
    /// One request or probe is out to see whether the bucket is back.
    HalfOpen,
    /// Nobody asks.
    Open,
}

impl BreakerState {
    /// The token for status pages and logs.
    pub fn token(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// Whether a request may go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Go,
    /// It may, as the one that finds out whether the bucket is back.
    Probe,
    /// It may not; the bucket is probed again after this time.
    Refused(Duration),
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The breaker opened.
    Opened,
    /// The breaker closed.
    Closed,
}

/// A circuit breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    consecutive: u32,
    window: Window,
    open: Option<Open>,
}

#[derive(Debug, Default)]
struct Window {
    start: Option<Timestamp>,
    requests: u32,
    failures: u32,
}

#[derive(Debug)]
struct Open {
    /// How often in a row it was opened or a probe failed.
    times: u32,
    /// From here on one client's request goes through.
    until: Timestamp,
    probe_at: Timestamp,
    probing: bool,
}

impl Breaker {
    /// Asks for a request of a client.
    pub fn admit(&mut self, now: Timestamp) -> Admission {
        let Some(open) = &mut self.open else {
            return Admission::Go;
        };
        if now < open.until {
            return Admission::Refused(open.probe_at.since(now).max(PROBE_FIRST));
        }
        // The next one must wait for this one, or for as long again if it never reports.
        open.until = now + open_time(open.times);
        open.probing = true;
        Admission::Probe
    }

    /// How long until the background may probe; `None` while the breaker is closed.
    pub fn probe_in(&self, now: Timestamp) -> Option<Duration> {
        self.open.as_ref().map(|open| open.probe_at.since(now))
    }

    /// Notes that the background probes now.
    pub fn begin_probe(&mut self, now: Timestamp) {
        if let Some(open) = &mut self.open {
            open.probing = true;
            open.probe_at = now + PROBE_PAUSE;
        }
    }

    /// An answer came, to a request that was let through with `admission`.
    pub fn succeeded(&mut self, admission: Admission, now: Timestamp) -> Change {
        self.consecutive = 0;
        self.window.count(now, false);
        // A straggler from before the opening does not close the breaker.
        if admission != Admission::Probe || self.open.take().is_none() {
            return Change::None;
        }
        self.window = Window::default();
        Change::Closed
    }

    /// No answer came. `jitter`, 0.0 to 1.0, spreads the probes of many nodes.
    pub fn failed(&mut self, admission: Admission, now: Timestamp, jitter: f64) -> Change {
        if let Some(open) = &mut self.open {
            if admission == Admission::Probe {
                open.times = open.times.saturating_add(1);
                open.until = now + open_time(open.times);
                open.probe_at = now + spread(PROBE_PAUSE, jitter);
                open.probing = false;
            }
            return Change::None;
        }
        self.consecutive = self.consecutive.saturating_add(1);
        let share_is_bad = self.window.count(now, true);
        if self.consecutive < CONSECUTIVE_MAX && !share_is_bad {
            return Change::None;
        }
        self.open = Some(Open {
            times: 0,
            until: now + open_time(0),
            probe_at: now + spread(PROBE_FIRST, jitter),
            probing: false,
        });
        Change::Opened
    }

    /// How it stands.
    pub fn state(&self) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(open) if open.probing => BreakerState::HalfOpen,
            Some(_) => BreakerState::Open,
        }
    }
}

impl Window {
    /// Counts one request; whether at least half of enough requests failed.
    fn count(&mut self, now: Timestamp, failed: bool) -> bool {
        if self.start.is_none_or(|start| now.since(start) >= WINDOW) {
            *self = Self {
                start: Some(now),
                ..Self::default()
            };
        }
        self.requests = self.requests.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(failed));
        self.requests >= WINDOW_REQUESTS_MIN && self.failures.saturating_mul(2) >= self.requests
    }
}

fn open_time(times: u32) -> Duration {
    OPEN_FIRST.saturating_mul(1 << times.min(4)).min(OPEN_MAX)
}

/// `pause`, a fifth shorter to a fifth longer.
fn spread(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

/// How long a look at the canary is believed.
pub const CANARY_MEMORY: Duration = Duration::from_secs(30);
/// Keys that were readable, kept as canaries when none is configured. Two, so that the deletion of one object does not
/// look like lost credentials.
const LAST_GOOD_KEPT: usize = 2;

/// The keys by which a 403 for a missing key is told from bad credentials.
#[derive(Debug, Default)]
pub struct Canary {
    configured: Option<String>,
    last_good: VecDeque<String>,
    seen: Option<(Timestamp, bool)>,
}

impl Canary {
    /// With the `configured` key, if there is one.
    pub fn new(configured: Option<String>) -> Self {
        Self {
            configured,
            ..Self::default()
        }
    }

    /// Notes that `key` was readable just now.
    pub fn readable(&mut self, key: &str, now: Timestamp) {
        self.seen = Some((now, true));
        if self.last_good.front().is_some_and(|last| last == key) {
            return;
        }
        self.last_good.retain(|good| good != key);
        self.last_good.push_front(key.to_owned());
        self.last_good.truncate(LAST_GOOD_KEPT);
    }

    /// Notes what a look at the canaries showed.
    pub fn looked(&mut self, readable: bool, now: Timestamp) {
        self.seen = Some((now, readable));
    }

    /// What is known without a look: whether some object was readable less than `memory` ago.
    pub fn recent(&self, now: Timestamp, memory: Duration) -> Option<bool> {
        self.seen
            .filter(|(at, _)| now.since(*at) < memory)
            .map(|(_, readable)| readable)
    }

    /// The keys to look at, best first.
    pub fn keys(&self) -> Vec<String> {
        match &self.configured {
            Some(key) => vec![key.clone()],
            None => self.last_good.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_seconds(1_000);

    fn at(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 1..CONSECUTIVE_MAX {
            assert_eq!(breaker.failed(Admission::Go, START, 0.5), Change::None);
        }
        assert_eq!(breaker.failed(Admission::Go, START, 0.5), Change::Opened);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not_let_it() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..CONSECUTIVE_MAX {
                assert_eq!(breaker.failed(Admission::Go, START, 0.5), Change::None);
            }
            assert_eq!(breaker.succeeded(Admission::Go, at(1)), Change::None);
        }
        assert_eq!(open().state(), BreakerState::Open);
    }

    #[test]
    fn half_of_many_failing_opens_it() {
        let mut breaker = Breaker::default();
        let mut changes = Vec::new();
        for _ in 0..WINDOW_REQUESTS_MIN {
            breaker.succeeded(Admission::Go, START);
            changes.push(breaker.failed(Admission::Go, START, 0.5));
        }
        assert!(changes.contains(&Change::Opened));
        // The same in windows that are too thin says nothing.
        let mut breaker = Breaker::default();
        for n in 0..100 {
            breaker.succeeded(Admission::Go, at(n * 2));
            assert_eq!(breaker.failed(Admission::Go, at(n * 2), 0.5), Change::None);
        }
    }

    #[test]
    fn while_open_nobody_waits_and_the_answer_says_when_to_come_back() {
        let mut breaker = open();
        assert_eq!(breaker.admit(START), Admission::Refused(PROBE_FIRST));
        assert_eq!(breaker.probe_in(START), Some(PROBE_FIRST));
        assert_eq!(breaker.probe_in(at(2)), Some(Duration::ZERO));
    }

    #[test]
    fn a_probe_that_succeeds_closes_it() {
        let mut breaker = open();
        breaker.begin_probe(at(1));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(
            breaker.succeeded(Admission::Go, at(1)),
            Change::None,
            "a straggler"
        );
        assert_eq!(breaker.succeeded(Admission::Probe, at(1)), Change::Closed);
        assert_eq!(
            (breaker.state(), breaker.admit(at(1))),
            (BreakerState::Closed, Admission::Go)
        );
    }

    #[test]
    fn probes_that_fail_keep_clients_out_for_as_long_as_they_go_on() {
        let mut breaker = open();
        for n in 0..20 {
            let now = at(1 + n * PROBE_PAUSE.as_secs());
            assert!(matches!(breaker.admit(now), Admission::Refused(_)), "{n}");
            breaker.begin_probe(now);
            assert_eq!(breaker.failed(Admission::Probe, now, 0.5), Change::None);
        }
    }

    #[test]
    fn without_a_prober_one_client_at_a_time_goes_through() {
        let mut breaker = open();
        assert_eq!(breaker.admit(at(10)), Admission::Probe);
        assert!(matches!(breaker.admit(at(10)), Admission::Refused(_)));
        assert_eq!(breaker.failed(Admission::Probe, at(11), 0.5), Change::None);
        assert!(
            matches!(breaker.admit(at(30)), Admission::Refused(_)),
            "the time grows"
        );
        assert_eq!(breaker.admit(at(31)), Admission::Probe);
        assert_eq!(
            breaker.admit(at(61)),
            Admission::Probe,
            "the first one never reported"
        );
        assert_eq!(breaker.succeeded(Admission::Probe, at(62)), Change::Closed);
    }

    #[test]
    fn the_canary_is_what_the_operator_says_or_what_was_readable_last() {
        let mut canary = Canary::new(None);
        assert_eq!(
            (canary.keys(), canary.recent(START, CANARY_MEMORY)),
            (vec![], None)
        );
        for key in ["a", "b", "b", "c", "b"] {
            canary.readable(key, START);
        }
        assert_eq!(canary.keys(), ["b", "c"]);
        assert_eq!(canary.recent(at(29), CANARY_MEMORY), Some(true));
        assert_eq!(canary.recent(at(30), CANARY_MEMORY), None);
        canary.looked(false, at(31));
        assert_eq!(canary.recent(at(32), CANARY_MEMORY), Some(false));

        let mut canary = Canary::new(Some("health".to_owned()));
        canary.readable("a", START);
        assert_eq!(canary.keys(), ["health"]);
    }
}
