//! How one bucket or server stands: its breaker, what went wrong last, and what of it an operator is told.
//!
//! It is told what came of each request; whom to ask next is decided in `failover`.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::health::{Admission, Breaker, BreakerState, Change};
use super::{BucketStatus, Error, Metrics, Source};
use crate::clock::{Clock, Timestamp};

/// How often an alarm about one bucket is logged, at most.
pub(super) const ALARM_PAUSE: Duration = Duration::from_secs(30);

/// How long a path stays accused, and how many do.
const ACCUSED_FOR: Duration = Duration::from_secs(60);
const ACCUSED_MAX: usize = 64;

/// The vital signs of one bucket or server.
#[derive(Debug)]
pub(super) struct Vitals {
    id: Source,
    state: Mutex<State>,
    metrics: Metrics,
    clock: Clock,
    /// Told when the breaker opens, and when the bucket goes away.
    opened: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    last_error: Option<(Timestamp, Error)>,
    last_success: Option<Timestamp>,
    alarmed: Option<Timestamp>,
    accused: Accused,
}

/// Paths on which a server failed lately. One that keeps failing on the same few speaks against these, not against the
/// server: a single broken page must not take a site down, nor whoever asks for it again and again.
#[derive(Debug, Default)]
struct Accused(VecDeque<(u64, Timestamp)>);

impl Accused {
    /// Whether `path` is not among them yet. It is from now on, for a while.
    fn is_news(&mut self, path: &str, now: Timestamp) -> bool {
        self.0.retain(|(_, since)| now.since(*since) < ACCUSED_FOR);
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let path = hasher.finish();
        if self.0.iter().any(|(accused, _)| *accused == path) {
            return false;
        }
        if self.0.len() >= ACCUSED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((path, now));
        true
    }
}

impl Vitals {
    pub(super) fn new(id: Source, metrics: Metrics, clock: Clock) -> Self {
        Self {
            id,
            state: Mutex::default(),
            metrics,
            clock,
            opened: Arc::new(Notify::new()),
        }
    }

    pub(super) fn id(&self) -> &Source {
        &self.id
    }

    /// Asks for a request of a client.
    pub(super) fn admit(&self) -> Admission {
        self.state().breaker.admit(self.clock.now())
    }

    /// How long until the background may probe; `None` while the breaker is closed.
    pub(super) fn probe_in(&self) -> Option<Duration> {
        self.state().breaker.probe_in(self.clock.now())
    }

    /// Notes that the background probes now.
    pub(super) fn begin_probe(&self) {
        self.state().breaker.begin_probe(self.clock.now());
    }

    /// Told when the breaker opens, and when the bucket goes away.
    pub(super) fn opened(&self) -> Arc<Notify> {
        Arc::clone(&self.opened)
    }

    pub(super) fn status(&self) -> BucketStatus {
        let state = self.state();
        BucketStatus {
            id: Arc::clone(&self.id),
            breaker: state.breaker.state(),
            last_error: state.last_error.clone(),
            last_success: state.last_success,
        }
    }

    /// An answer came to a request that was let through with `admission`.
    pub(super) fn note_success(&self, admission: Admission) {
        let now = self.clock.now();
        let change = {
            let mut state = self.state();
            state.last_success = Some(now);
            state.breaker.succeeded(admission, now)
        };
        if change == Change::Closed {
            self.metrics.breakers_open.add(-1);
            tracing::info!(origin = %self.id, "it answers again: its breaker is closed");
        }
    }

    /// No answer came, or none that counts. `path` is for the log.
    pub(super) fn note_failure(&self, admission: Admission, error: &Error, path: &str) {
        self.note(admission, error, path, |_, _| true);
    }

    /// The same, of a server that may fail on one path and be well on all others: what may be the path's own fault
    /// counts once.
    pub(super) fn note_failure_at(&self, admission: Admission, error: &Error, path: &str) {
        let may_be_its_own = admission == Admission::Go && error.kind.may_be_of_one_path();
        self.note(admission, error, path, |accused, now| {
            !may_be_its_own || accused.is_news(path, now)
        });
    }

    fn note(
        &self,
        admission: Admission,
        error: &Error,
        path: &str,
        is_news: impl FnOnce(&mut Accused, Timestamp) -> bool,
    ) {
        let now = self.clock.now();
        self.metrics.errors.inc(error.kind);
        let (change, alarm) = {
            let mut state = self.state();
            state.last_error = Some((now, error.clone()));
            let change = if error.kind.counts_against_bucket() && !is_news(&mut state.accused, now) {
                Change::None
            } else if error.kind.counts_against_bucket() {
                state.breaker.failed(admission, now, fastrand::f64())
            } else if error.kind.is_answer() {
                state.breaker.succeeded(admission, now)
            } else {
                Change::None
            };
            let due = state.alarmed.is_none_or(|last| now.since(last) >= ALARM_PAUSE);
            let alarm = error.kind.is_alarm() && due;
            if alarm {
                state.alarmed = Some(now);
            }
            (change, alarm)
        };
        if alarm {
            tracing::error!(origin = %self.id, path, %error, "the origin needs an operator");
        } else {
            tracing::debug!(origin = %self.id, path, %error, "the origin did not answer");
        }
        if change == Change::Opened {
            self.metrics.breakers_open.add(1);
            tracing::warn!(origin = %self.id, %error, "its breaker is open: it is asked no more until a probe succeeds");
            self.opened.notify_one();
        }
        if change == Change::Closed {
            self.metrics.breakers_open.add(-1);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        if self.state().breaker.state() != BreakerState::Closed {
            self.metrics.breakers_open.add(-1);
        }
        self.opened.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_news_once_a_minute_and_few_are_remembered() {
        let (mut accused, start) = (Accused::default(), Timestamp::from_unix_seconds(1_000));
        assert!(accused.is_news("/a", start));
        assert!(!accused.is_news("/a", start + Duration::from_secs(59)));
        assert!(accused.is_news("/b", start + Duration::from_secs(59)));
        assert!(accused.is_news("/a", start + Duration::from_secs(60)));
        for n in 0..1000 {
            accused.is_news(&n.to_string(), start + Duration::from_secs(60));
        }
        assert_eq!(accused.0.len(), ACCUSED_MAX);
    }
}
