//! When to ask again: how often, after which pause, and out of which budget.
//!
//! Everything here is arithmetic on what it is told; the pauses are slept in `failover` and `s3::body`.

use std::time::Duration;

use crate::clock::Timestamp;

/// The pause before the first retry is at most this.
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
/// Any pause of ours is at most this.
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// What one operation may spend: attempts, and time.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    attempts: u32,
    deadline: Timestamp,
}

impl Plan {
    /// `attempts` in all (at least one), until `operation` after `now`.
    pub fn new(attempts: u32, operation: Duration, now: Timestamp) -> Self {
        Self {
            attempts: attempts.max(1),
            deadline: now + operation,
        }
    }

    /// The time that is left.
    pub fn left(&self, now: Timestamp) -> Duration {
        self.deadline.since(now)
    }

    /// The pause before the next attempt when `made` were made, or `None` when there is none. `jitter` is 0.0 to 1.0;
    /// `retry_after` is what the origin asked for, and is never undercut.
    pub fn pause(
        &self,
        made: u32,
        retry_after: Option<Duration>,
        jitter: f64,
        now: Timestamp,
    ) -> Option<Duration> {
        if made >= self.attempts {
            return None;
        }
        let pause = back_off(made, jitter).max(retry_after.unwrap_or_default());
        (pause < self.left(now)).then_some(pause)
    }
}

/// Exponential back-off with full jitter: anything from nothing to the step's height.
pub fn back_off(made: u32, jitter: f64) -> Duration {
    let doublings = made.saturating_sub(1).min(10);
    BACK_OFF_FIRST
        .saturating_mul(1 << doublings)
        .min(BACK_OFF_MAX)
        .mul_f64(jitter.clamp(0.0, 1.0))
}

/// Retries per request that the budget allows in the long run, in thousandths.
const SHARE_MILLI: u64 = 200;
/// Retries per second that are always allowed.
const FLOOR_PER_SECOND: u64 = 10;
/// What can be saved up.
const SAVED_MAX_MILLI: u64 = 100_000;

/// A budget of retries, so that they never multiply an outage: a fifth of all requests, and ten a second besides.
#[derive(Debug)]
pub struct Budget {
    milli: u64,
    refilled: Timestamp,
}

impl Budget {
    /// A budget that holds a second's worth.
    pub fn new(now: Timestamp) -> Self {
        Self {
            milli: FLOOR_PER_SECOND * 1000,
            refilled: now,
        }
    }

    /// Counts a request that is not a retry.
    pub fn request(&mut self) {
        self.milli = self.milli.saturating_add(SHARE_MILLI).min(SAVED_MAX_MILLI);
    }

    /// Takes one retry out, if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let millis = u64::try_from(now.since(self.refilled).as_millis()).unwrap_or(u64::MAX);
        if millis > 0 {
            self.refilled = now;
            let refill = millis.saturating_mul(FLOOR_PER_SECOND);
            self.milli = self.milli.saturating_add(refill).min(SAVED_MAX_MILLI);
        }
        match self.milli.checked_sub(1000) {
            Some(rest) => {
                self.milli = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_seconds(1_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_plan_ends_with_its_attempts_or_with_its_time() {
        let plan = Plan::new(3, SECOND * 8, START);
        let check = |made, retry_after, after, expected: Option<u64>| {
            assert_eq!(
                plan.pause(made, retry_after, 1.0, START + after),
                expected.map(Duration::from_millis),
                "{made} {retry_after:?} {after:?}"
            );
        };
        check(1, None, Duration::ZERO, Some(50));
        check(2, None, Duration::ZERO, Some(100));
        check(3, None, Duration::ZERO, None);
        check(1, Some(SECOND * 3), Duration::ZERO, Some(3000));
        check(1, Some(SECOND * 9), Duration::ZERO, None);
        check(1, None, SECOND * 8, None);
        assert_eq!(
            Plan::new(0, SECOND, START).pause(0, None, 0.0, START),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn pauses_grow_to_a_limit_and_jitter_spreads_them_from_nothing() {
        assert_eq!(back_off(1, 0.0), Duration::ZERO);
        assert_eq!(back_off(3, 0.5), Duration::from_millis(100));
        assert_eq!(back_off(u32::MAX, 1.0), BACK_OFF_MAX);
        assert_eq!(back_off(1, 7.0), BACK_OFF_FIRST);
    }

    #[test]
    fn an_outage_is_not_multiplied() {
        let mut budget = Budget::new(START);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.request();
            for _ in 0..2 {
                retries += u32::from(budget.take(START));
            }
        }
        assert_eq!(retries, 210, "a fifth, and the ten to start with");
        assert!(!budget.take(START));
        assert!(budget.take(START + SECOND));
        let saved = (0..1000).filter(|_| budget.take(START + SECOND * 3600)).count();
        assert_eq!(saved, 100, "what is saved up is bounded");
    }
}
