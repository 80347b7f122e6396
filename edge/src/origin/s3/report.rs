//! What an attempt means for the bucket: its vitals, its canary, its credentials.

use std::sync::PoisonError;

use super::{Bucket, client};
use crate::clock::Timestamp;
use crate::config;
use crate::origin::health::Admission;
use crate::origin::vitals::ALARM_PAUSE;
use crate::origin::{Error, Kind};

impl Bucket {
    pub(super) fn note_success(&self, admission: Admission, readable: Option<&str>) {
        if let Some(key) = readable {
            self.health().canary.readable(key, self.clock.now());
        }
        self.vitals.note_success(admission);
    }

    pub(super) fn note_failure(&self, admission: Admission, error: &Error, path: &str) {
        self.vitals.note_failure(admission, error, path);
        if error.kind == Kind::CredentialsRefused {
            self.refresh_credentials(self.clock.now());
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
        tracing::info!(bucket = %self.vitals.id(), "the credentials are looked for anew");
    }
}
