//! The fault plan: which requests go wrong, how, how often and when.
//!
//! It decides only; `serve` and `raw` carry it out. All rules that match a request apply to it, in the order in
//! which they were added.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::log::Seen;

/// A way to go wrong. Numbers of bytes count the body as it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Waits before the request is looked at.
    #[serde(rename = "delay_ms", with = "milliseconds")]
    Delay(Duration),
    /// 503 `SlowDown`, with `Retry-After: 1`.
    SlowDown,
    /// This status with this S3 error code, e.g. 500 `InternalError`, 403 `RequestTimeTooSkewed`.
    Status(u16, String),
    /// This status with this `Location`, as S3 sends one to another region.
    Redirect(u16, String),
    /// 304 although nothing was asked with a condition.
    Unasked304,
    /// Takes the request and never answers.
    HangBeforeHeaders,
    /// Resets the connection instead of an answer.
    ResetBeforeHeaders,
    /// Bytes that are not HTTP instead of an answer.
    Garbage,
    /// Its clock is ahead by this: the answer's `Date` lies in the future.
    #[serde(rename = "clock_ahead_ms", with = "milliseconds")]
    ClockAhead(Duration),
    /// Another entity tag than the object has.
    WrongEtag,
    /// As many bytes of header fields that nobody asked for.
    HugeHeaders(usize),
    /// 206 with the first half of the body although no range was asked for.
    StaleRange,
    /// `Content-Length` says so many bytes more, or less, than the body has; then the connection is closed.
    WrongLength(i64),
    /// The byte at this place is another.
    FlipByte(u64),
    /// The body comes no faster than this.
    Drip {
        /// The pace.
        bytes_per_second: u64,
    },
    /// After so many bytes of the body nothing more comes, and the connection stays open.
    StallAfter(u64),
    /// After so many bytes of the body the connection is closed.
    TruncateAfter(u64),
    /// After so many bytes of the body the connection is reset.
    ResetAfter(u64),
    /// The answer is made, and waits at the barrier before its first byte.
    #[serde(skip)]
    HoldUntil(Barrier),
    /// The answer waits at the barrier after so many bytes of the body.
    #[serde(skip)]
    HoldBodyUntil(u64, Barrier),
}

/// When a fault applies. Everything that is not said matches.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Only in this bucket.
    #[serde(default)]
    pub bucket: Option<String>,
    /// Only for this key.
    #[serde(default)]
    pub key: Option<String>,
    /// Only for keys that begin with this.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Only for this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only for so many requests.
    #[serde(default)]
    pub count: Option<u64>,
    /// Only so long after it was added.
    #[serde(default)]
    pub after_ms: Option<u64>,
    /// Only for so long, from then on.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// What goes wrong.
    pub fault: Fault,
}

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RuleId(pub u64);

/// The plan of one server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Plan>);

#[derive(Debug, Default)]
struct Plan {
    rules: Mutex<Vec<Active>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Active {
    id: RuleId,
    rule: Rule,
    added: Instant,
    hits: u64,
}

/// A place at which answers wait until a test lets them go on, so that the test needs no sleep.
#[derive(Clone, Debug)]
pub struct Barrier(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    arrived: watch::Sender<usize>,
    passes: Semaphore,
}

/// More rules than this are refused by the control surface; a test has no reason for so many.
pub(super) const RULES_MAX: usize = 1000;

impl Rule {
    /// A rule for every request.
    pub fn new(fault: Fault) -> Self {
        Self {
            bucket: None,
            key: None,
            prefix: None,
            method: None,
            count: None,
            after_ms: None,
            for_ms: None,
            fault,
        }
    }

    /// Only in this bucket.
    pub fn bucket(mut self, bucket: impl Into<String>) -> Self {
        self.bucket = Some(bucket.into());
        self
    }

    /// Only for this key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Only for keys that begin with this.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Only for this method.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Only for the next so many requests.
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Only within this time from when it is added.
    pub fn during(mut self, after: Duration, length: Duration) -> Self {
        let whole = |time: Duration| u64::try_from(time.as_millis()).ok();
        (self.after_ms, self.for_ms) = (whole(after), whole(length));
        self
    }

    fn matches(&self, seen: &Seen, age: Duration, hits: u64) -> bool {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let after = Duration::from_millis(self.after_ms.unwrap_or_default());
        let until = self
            .for_ms
            .map(|length| after.saturating_add(Duration::from_millis(length)));
        is(&self.bucket, &seen.bucket)
            && is(&self.key, &seen.key)
            && is(&self.method, &seen.method)
            && self
                .prefix
                .as_deref()
                .is_none_or(|prefix| seen.key.starts_with(prefix))
            && self.count.is_none_or(|count| hits < count)
            && age >= after
            && until.is_none_or(|until| age < until)
    }
}

impl Faults {
    /// Adds a rule, which applies from now on.
    pub fn add(&self, rule: Rule) -> RuleId {
        let id = RuleId(self.0.next.fetch_add(1, Ordering::Relaxed));
        let active = Active {
            id,
            rule,
            added: Instant::now(),
            hits: 0,
        };
        self.0
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(active);
        id
    }

    /// Takes a rule away; says whether it was there.
    pub fn remove(&self, id: RuleId) -> bool {
        let mut rules = self.0.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rules.len();
        rules.retain(|active| active.id != id);
        rules.len() < before
    }

    /// Takes all rules away. Answers that a barrier holds stay held.
    pub fn clear(&self) {
        self.0
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The rules, with how many requests each has met so far.
    pub fn list(&self) -> Vec<(RuleId, Rule, u64)> {
        let rules = self.0.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules
            .iter()
            .map(|active| (active.id, active.rule.clone(), active.hits))
            .collect()
    }

    /// How many requests a rule has met; none if it was taken away.
    pub fn hits(&self, id: RuleId) -> u64 {
        let rules = self.0.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules
            .iter()
            .find(|active| active.id == id)
            .map_or(0, |active| active.hits)
    }

    /// What goes wrong with this request; counts it.
    pub(super) fn meet(&self, seen: &Seen) -> Vec<Fault> {
        self.meet_at(seen, Instant::now())
    }

    fn meet_at(&self, seen: &Seen, now: Instant) -> Vec<Fault> {
        let mut rules = self.0.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut met = Vec::new();
        for active in rules.iter_mut() {
            if active
                .rule
                .matches(seen, now.duration_since(active.added), active.hits)
            {
                active.hits += 1;
                met.push(active.rule.fault.clone());
            }
        }
        met
    }
}

impl Default for Barrier {
    fn default() -> Self {
        Self::new()
    }
}

impl Barrier {
    /// A closed barrier.
    pub fn new() -> Self {
        Self(Arc::new(Gate {
            arrived: watch::Sender::new(0),
            passes: Semaphore::new(0),
        }))
    }

    /// Waits until so many answers have come to the barrier since it was made.
    pub async fn arrived(&self, count: usize) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self
            .0
            .arrived
            .subscribe()
            .wait_for(|arrived| *arrived >= count)
            .await;
    }

    /// Lets one answer pass: one that waits, or the next one that comes.
    pub fn release_one(&self) {
        self.0.passes.add_permits(1);
    }

    /// Opens the barrier for good.
    pub fn release(&self) {
        self.0.passes.close();
    }

    /// Comes to the barrier, and goes on when it may.
    pub(super) async fn pass(&self) {
        self.0.arrived.send_modify(|arrived| *arrived += 1);
        if let Ok(permit) = self.0.passes.acquire().await {
            permit.forget();
        }
    }
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(method: &str, path: &str) -> Seen {
        Seen::of(
            &method.parse().unwrap(),
            &path.parse().unwrap(),
            &http::HeaderMap::new(),
        )
    }

    #[test]
    fn a_rule_meets_what_it_names() {
        let rule = || Rule::new(Fault::SlowDown);
        let check = |rule: Rule, method: &str, path: &str, expected: bool| {
            assert_eq!(
                rule.matches(&seen(method, path), Duration::ZERO, 0),
                expected,
                "{rule:?} {method} {path}"
            );
        };
        check(rule(), "GET", "/b/k", true);
        check(rule().bucket("b"), "GET", "/b/k", true);
        check(rule().bucket("c"), "GET", "/b/k", false);
        check(rule().key("k"), "GET", "/b/k", true);
        check(rule().key("k"), "GET", "/b/kk", false);
        check(rule().prefix("k"), "GET", "/b/kk", true);
        check(rule().prefix("x"), "GET", "/b/kk", false);
        check(rule().method("PUT"), "GET", "/b/k", false);
        check(rule().times(0), "GET", "/b/k", false);
    }

    #[test]
    fn a_rule_has_a_count_and_a_time() {
        let faults = Faults::default();
        let counted = faults.add(Rule::new(Fault::SlowDown).times(2));
        let timed = Rule::new(Fault::WrongEtag).during(Duration::from_secs(10), Duration::from_secs(10));
        let timed = faults.add(timed);
        let start = Instant::now();
        let met_at = |seconds| {
            faults
                .meet_at(&seen("GET", "/b/k"), start + Duration::from_secs(seconds))
                .len()
        };
        assert_eq!([met_at(0), met_at(7), met_at(14), met_at(21)], [1, 1, 1, 0]);
        assert_eq!((faults.hits(counted), faults.hits(timed)), (2, 1));
        assert!(faults.remove(counted) && !faults.remove(counted));
        faults.clear();
        assert!(faults.list().is_empty());
    }

    #[test]
    fn rules_are_written_as_json() {
        let check = |text: &str, expected: &str| {
            let rule: Rule = serde_json::from_str(text).unwrap();
            assert_eq!(format!("{:?}", rule.fault), expected);
        };
        check(r#"{"fault": "slow_down", "key": "a"}"#, "SlowDown");
        check(r#"{"fault": {"delay_ms": 1500}, "count": 3}"#, "Delay(1.5s)");
        check(
            r#"{"fault": {"status": [403, "ExpiredToken"]}}"#,
            "Status(403, \"ExpiredToken\")",
        );
        check(
            r#"{"fault": {"drip": {"bytes_per_second": 9}}}"#,
            "Drip { bytes_per_second: 9 }",
        );
        assert!(serde_json::from_str::<Rule>(r#"{"fault": "slow_down", "keys": "a"}"#).is_err());
    }

    #[tokio::test]
    async fn a_barrier_holds_and_lets_go() {
        let barrier = Barrier::new();
        let mut first = Box::pin(barrier.pass());
        let waiting = std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx).is_pending()));
        assert!(waiting.await);
        barrier.arrived(1).await;
        barrier.release_one();
        first.await;
        barrier.release();
        barrier.pass().await;
        barrier.pass().await;
        barrier.arrived(3).await;
    }
}
