//! Time: the only caller of `now()` in the crate.
//!
//! Everything that decides takes `now: Timestamp` as an argument. A [`Clock`] is either the real one or one that a
//! test moves by hand. The real clock reads the wall once, at start, and then counts monotonic time from there, so a
//! step of the system's clock moves neither an age nor a lifetime.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time, in microseconds since 1970-01-01T00:00:00Z; negative before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point `seconds` after (before, when negative) the Unix epoch.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// The point `micros` after (before, when negative) the Unix epoch.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Microseconds since the Unix epoch.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As the system's own type, for formatting; the epoch itself for anything before it.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |n| -n),
        };
        Self(micros)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Timestamp({}.{:06})",
            self.unix_seconds(),
            self.0.rem_euclid(1_000_000)
        )
    }
}

/// Where time comes from. Cheap to clone; clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Real { wall: Timestamp, monotonic: Instant },
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's time.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the machine for the time"
    )]
    pub fn real() -> Self {
        Self(Source::Real {
            wall: SystemTime::now().into(),
            monotonic: Instant::now(),
        })
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// The time now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the machine for the time"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Real { wall, monotonic } => *wall + Instant::now().saturating_duration_since(*monotonic),
            Source::Manual(micros) => Timestamp(micros.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; does nothing to a real one.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(micros) = &self.0 {
            micros.fetch_add(
                i64::try_from(by.as_micros()).unwrap_or(i64::MAX),
                Ordering::SeqCst,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(Timestamp::from_unix_seconds(100));
        let twin = clock.clone();
        assert_eq!(clock.now(), Timestamp::from_unix_seconds(100));
        twin.advance(Duration::from_millis(1500));
        assert_eq!(clock.now().unix_micros(), 101_500_000);
    }

    #[test]
    fn since_never_goes_below_zero() {
        let early = Timestamp::from_unix_seconds(1);
        let late = early + Duration::from_secs(5);
        assert_eq!(late.since(early), Duration::from_secs(5));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn times_before_the_epoch_survive() {
        let before = UNIX_EPOCH - Duration::from_secs(3);
        assert_eq!(Timestamp::from(before).unix_seconds(), -3);
        assert_eq!(Timestamp::from(before).to_system_time(), UNIX_EPOCH);
    }
}
