//! Buckets in order.

use crate::clock::Clock;
use crate::config;
use crate::drain::Drain;

use super::{Answer, Ask, BucketStatus, Error, Metrics, StartError};

/// Buckets with the same content, in order of preference.
#[derive(Debug)]
pub struct S3Origin {}

impl S3Origin {
    pub(super) fn start(
        _config: &config::S3Origin,
        _drain: &Drain,
        _metrics: Metrics,
        _clock: Clock,
    ) -> Result<Self, StartError> {
        Ok(Self {})
    }

    pub(super) async fn fetch(&self, _ask: Ask) -> Result<Answer, Error> {
        Err(Error::new(super::Kind::BreakerOpen, "not connected"))
    }

    pub(super) fn status(&self) -> Vec<BucketStatus> {
        Vec::new()
    }
}
