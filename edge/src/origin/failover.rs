//! Buckets in order: who is asked, who is skipped, whose answer counts.
//!
//! The first bucket is the truth; later ones are its replicas, which lag. So a replica's "not found" is no answer, and
//! neither is content that is older than what is stored. Nothing here waits for a bucket whose breaker is open.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::health::Admission;
use super::retry::{Budget, Plan};
use super::s3::{self, Bucket};
use super::{Answer, Ask, Body, BucketStatus, Condition, Error, Kind, Metrics, StartError};
use crate::clock::Clock;
use crate::config;
use crate::drain::Drain;

/// Buckets with the same content, in order of preference.
#[derive(Debug)]
pub struct S3Origin {
    buckets: Vec<Arc<Bucket>>,
    timeouts: config::OriginTimeouts,
    budget: Arc<Mutex<Budget>>,
    metrics: Metrics,
    clock: Clock,
}

impl S3Origin {
    pub(super) fn start(
        config: &config::S3Origin,
        drain: &Drain,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, StartError> {
        if config.buckets.is_empty() {
            return Err(StartError::NoBucket);
        }
        let budget = Arc::new(Mutex::new(Budget::new(clock.now())));
        let mut buckets = Vec::with_capacity(config.buckets.len());
        for bucket in &config.buckets {
            let made = Bucket::new(
                bucket,
                config,
                Arc::clone(&budget),
                metrics.clone(),
                clock.clone(),
            )?;
            buckets.push(Arc::new(made));
        }
        for bucket in &buckets {
            drain.spawn("origin-probe", keep_probing(bucket, drain.clone()));
        }
        Ok(Self {
            buckets,
            timeouts: config.timeouts.clone(),
            budget,
            metrics,
            clock,
        })
    }

    pub(super) async fn fetch(&self, ask: Ask) -> Result<Answer, Error> {
        let Some(key) = s3::key_of(&ask.path) else {
            return self.impossible();
        };
        self.budget().request();
        let plan = Plan::new(self.timeouts.attempts, self.timeouts.operation, self.clock.now());
        // In the first round every bucket has its turn, in the later ones those that may be better by now.
        let mut candidates: Vec<usize> = (0..self.buckets.len()).collect();
        let mut last = None;
        for made in 1.. {
            let round = self.round(&ask, &key, &candidates, plan).await;
            let failed = match round {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let refused = failed.refused();
            candidates = failed.again;
            let error = failed.error.or(last);
            let pause = error
                .as_ref()
                .filter(|_| !candidates.is_empty())
                .and_then(|error| plan.pause(made, error.retry_after, fastrand::f64(), self.clock.now()));
            let Some(pause) = pause.filter(|_| self.take_retry()) else {
                return Err(error.unwrap_or(refused));
            };
            last = error;
            tokio::time::sleep(pause).await;
        }
        Err(Error::new(Kind::ProxyInternalError, "the rounds have no end"))
    }

    pub(super) fn status(&self) -> Vec<BucketStatus> {
        self.buckets.iter().map(|bucket| bucket.status()).collect()
    }

    /// Asks `candidates` in order, until one has an answer that counts.
    async fn round(&self, ask: &Ask, key: &str, candidates: &[usize], plan: Plan) -> Result<Answer, Failed> {
        let mut failed = Failed {
            error: None,
            again: Vec::new(),
            probe_in: None,
        };
        for &place in candidates {
            let Some(bucket) = self.buckets.get(place) else {
                continue;
            };
            let admission = match bucket.admit() {
                Admission::Refused(probe_in) => {
                    failed.probe_in = Some(failed.probe_in.map_or(probe_in, |least| least.min(probe_in)));
                    continue;
                }
                admission => admission,
            };
            let left = plan.left(self.clock.now());
            let fetched = tokio::time::timeout(left, bucket.fetch(ask, key, admission)).await;
            let late = || Error::new(Kind::HttpResponseTimeout, "no time is left");
            match fetched
                .unwrap_or_else(|_| Err(late()))
                .and_then(|answer| counts(answer, ask, place))
            {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if error.kind.is_transient() {
                        failed.again.push(place);
                    }
                    let goes_on = error.kind.may_fail_over();
                    failed.error = Some(error);
                    if !goes_on {
                        failed.again.clear();
                        break;
                    }
                }
            }
        }
        Err(failed)
    }

    fn take_retry(&self) -> bool {
        let granted = self.budget().take(self.clock.now());
        let counter = if granted {
            &self.metrics.retries
        } else {
            &self.metrics.retries_refused
        };
        counter.inc();
        granted
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer for a path that no object can have.
    fn impossible(&self) -> Result<Answer, Error> {
        let first = self
            .buckets
            .first()
            .ok_or_else(|| Error::new(Kind::ProxyInternalError, "no bucket"))?;
        Ok(Answer {
            status: StatusCode::NOT_FOUND,
            headers: HeaderMap::new(),
            length: None,
            body: Body::Empty,
            source: Arc::clone(first.id()),
        })
    }
}

/// A round without an answer.
struct Failed {
    /// The last error; none when every breaker is open.
    error: Option<Error>,
    /// Who may be asked again.
    again: Vec<usize>,
    /// Until the first of the open breakers is probed.
    probe_in: Option<Duration>,
}

impl Failed {
    fn refused(&self) -> Error {
        Error::new(Kind::BreakerOpen, "no bucket is healthy").with_retry_after(self.probe_in)
    }
}

/// Whether the answer of the bucket at `place` counts.
fn counts(answer: Answer, ask: &Ask, place: usize) -> Result<Answer, Error> {
    if place == 0 {
        return Ok(answer);
    }
    if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Err(Error::new(
            Kind::ReplicaMissing,
            format!("{} lacks it", answer.source),
        ));
    }
    let stored = ask
        .condition
        .as_ref()
        .filter(|condition| condition.source != answer.source);
    if stored.is_some_and(|stored| is_older(&answer.headers, stored)) {
        return Err(Error::new(
            Kind::ReplicaStale,
            format!("{} has an older one than is stored", answer.source),
        ));
    }
    Ok(answer)
}

fn is_older(headers: &HeaderMap, stored: &Condition) -> bool {
    let time = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let theirs = headers.get(header::LAST_MODIFIED).and_then(time);
    let ours = stored.last_modified.as_ref().and_then(time);
    matches!((theirs, ours), (Some(theirs), Some(ours)) if theirs < ours)
}

/// Probes the bucket while its breaker is open, so that no client pays for finding out. Ends with the bucket, or when
/// a drain begins; from then on clients' own requests find out.
fn keep_probing(bucket: &Arc<Bucket>, drain: Drain) -> impl Future<Output = ()> + Send + 'static {
    let opened = bucket.opened();
    let bucket: Weak<Bucket> = Arc::downgrade(bucket);
    async move {
        let probing = async {
            while let Some(wait) = bucket.upgrade().map(|bucket| bucket.probe_in()) {
                match wait {
                    None => opened.notified().await,
                    Some(wait) if wait.is_zero() => {
                        let Some(bucket) = bucket.upgrade() else { return };
                        bucket.probe().await;
                    }
                    Some(wait) => tokio::time::sleep(wait).await,
                }
            }
        };
        tokio::select! {
            () = probing => {}
            () = drain.begun() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, last_modified: Option<&'static str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(date) = last_modified {
            headers.insert(header::LAST_MODIFIED, HeaderValue::from_static(date));
        }
        let status = StatusCode::from_u16(status).unwrap();
        Answer {
            status,
            headers,
            length: None,
            body: Body::Empty,
            source: "b".into(),
        }
    }

    const OLD: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    const NEW: &str = "Fri, 02 Jan 2026 00:00:00 GMT";

    #[test]
    fn a_replica_that_lags_is_not_an_answer() {
        let check =
            |place, answer: Answer, stored: Option<(&'static str, &str)>, expected: Result<(), Kind>| {
                let condition = stored.map(|(last_modified, source)| Condition {
                    etag: None,
                    last_modified: Some(HeaderValue::from_static(last_modified)),
                    source: source.into(),
                });
                let ask = Ask {
                    condition,
                    ..Ask::default()
                };
                let seen = format!("{place} {answer:?} {stored:?}");
                assert_eq!(
                    counts(answer, &ask, place).map(drop).map_err(|error| error.kind),
                    expected,
                    "{seen}"
                );
            };
        check(0, answer(404, None), None, Ok(()));
        check(1, answer(404, None), None, Err(Kind::ReplicaMissing));
        check(1, answer(410, None), None, Err(Kind::ReplicaMissing));
        check(1, answer(200, Some(OLD)), None, Ok(()));
        check(
            1,
            answer(200, Some(OLD)),
            Some((NEW, "a")),
            Err(Kind::ReplicaStale),
        );
        check(1, answer(200, Some(NEW)), Some((NEW, "a")), Ok(()));
        check(1, answer(200, Some(OLD)), Some((NEW, "b")), Ok(()));
        check(0, answer(200, Some(OLD)), Some((NEW, "a")), Ok(()));
        check(1, answer(200, None), Some((NEW, "a")), Ok(()));
    }
}
