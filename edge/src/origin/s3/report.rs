//! What an attempt means for the bucket: its breaker, its canary, its alarms, its credentials.

use std::sync::PoisonError;
use std::time::Duration;

use super::{Bucket, client};
use crate::clock::Timestamp;
use crate::config;
use crate::origin::health::{Admission, Change};
use crate::origin::{Error, Kind};

/// How often an alarm about one bucket is logged, and credentials are looked for anew, at most.
const ALARM_PAUSE: Duration = Duration::from_secs(30);

impl Bucket {
    pub(super) fn note_success(&self, admission: Admission, readable: Option<&str>) {
        let now = self.clock.now();
        let change = {
            let mut health = self.health();
            health.last_success = Some(now);
            if let Some(key) = readable {
                health.canary.readable(key, now);
            }
            health.breaker.succeeded(admission, now)
        };
        if change == Change::Closed {
            self.metrics.breakers_open.add(-1);
            tracing::info!(bucket = %self.id, "the bucket answers again: its breaker is closed");
        }
    }

    pub(super) fn note_failure(&self, admission: Admission, error: &Error, path: &str) {
        let now = self.clock.now();
        self.metrics.errors.inc(error.kind);
        let (change, alarm) = {
            let mut health = self.health();
            health.last_error = Some((now, error.clone()));
            let change = if error.kind.counts_against_bucket() {
                health.breaker.failed(admission, now, fastrand::f64())
            } else if error.kind.is_answer() {
                health.breaker.succeeded(admission, now)
            } else {
                Change::None
            };
            let due = health.alarmed.is_none_or(|last| now.since(last) >= ALARM_PAUSE);
            let alarm = error.kind.is_alarm() && due;
            if alarm {
                health.alarmed = Some(now);
            }
            (change, alarm)
        };
        if alarm {
            tracing::error!(bucket = %self.id, path, %error, "the bucket needs an operator");
        } else {
            tracing::debug!(bucket = %self.id, path, %error, "the bucket did not answer");
        }
        if change == Change::Opened {
            self.metrics.breakers_open.add(1);
            tracing::warn!(bucket = %self.id, %error, "the bucket's breaker is open: it is asked no more until a probe succeeds");
            self.opened.notify_one();
        }
        if change == Change::Closed {
            self.metrics.breakers_open.add(-1);
        }
        if error.kind == Kind::CredentialsRefused {
            self.refresh_credentials(now);
        }
    }

    /// Forgets the credentials that were refused, so that rotated ones are found without a restart.
    fn refresh_credentials(&self, now: Timestamp) {
        if self.credentials != config::Credentials::Environment {
            return;
        }
        {
            let mut health = self.health();
            if health.refreshed.is_some_and(|last| now.since(last) < ALARM_PAUSE) {
                return;
            }
            health.refreshed = Some(now);
        }
        let client = client::client(
            &self.config,
            &self.credentials,
            &self.timeouts,
            self.connections.clone(),
        );
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        tracing::info!(bucket = %self.id, "the credentials are looked for anew");
    }
}
