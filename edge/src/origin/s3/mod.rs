//! One bucket: one attempt at a time, under its deadline, with its breaker and its canary told of what came.
//!
//! It retries nothing but the rest of a body that broke; `failover` decides who is asked, and how often.

mod body;
mod client;
mod fields;
mod forbidden;
mod integrity;
mod key;
mod media;
mod replica;
mod report;
mod send;
mod verdict;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use http::StatusCode;
use tokio::sync::Semaphore;

use super::failover::{Failover, Server};
use super::health::{Admission, Canary};
use super::retry::Budget;
use super::vitals::Vitals;
use super::{Answer, Ask, BucketStatus, Error, Kind, Metrics, Outcome, StartError};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::drain::Drain;

pub use body::{Body, Proof};
use integrity::{Check, Md5Etags};
use send::{Raw, Request};
use verdict::{ContentRange, Verdict};

/// Requests that may wait for a bucket's head at once. One more waits as long as for a connection, and is then refused.
const WAITING_MAX: usize = 256;
/// What a connection holds of a body before it is passed on: what hyper reads at once at most, and a piece that was taken
/// from that. The SDK lets nobody set it.
pub(super) const AHEAD_BYTES: u64 = 2 * 417 * 1024;
/// What is asked for to see whether the bucket answers, when no key in it is known.
const PROBE_KEY: &str = "portico-probe";

/// Buckets with the same content, in order of preference.
#[derive(Debug)]
pub struct S3Origin(Failover<Bucket>);

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
        Ok(Self(Failover::start(
            buckets,
            &config.timeouts,
            budget,
            metrics,
            clock,
            drain,
        )))
    }

    pub(super) async fn fetch(&self, ask: Ask) -> Result<Answer, Error> {
        if key::key_of(&ask.path).is_none() {
            return self.impossible();
        }
        self.0.fetch(&ask).await
    }

    pub(super) fn status(&self) -> Vec<BucketStatus> {
        self.0.status()
    }

    /// The answer for a path that no object can have.
    fn impossible(&self) -> Result<Answer, Error> {
        let first = self.0.first();
        let first = first.ok_or_else(|| Error::new(Kind::ProxyInternalError, "no bucket"))?;
        Ok(first.empty(StatusCode::NOT_FOUND, http::HeaderMap::new()))
    }
}

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    vitals: Vitals,
    config: config::Bucket,
    credentials: config::Credentials,
    timeouts: config::OriginTimeouts,
    connections: SharedHttpClient,
    client: Mutex<Client>,
    etags: Md5Etags,
    waiting: Semaphore,
    canary_look: tokio::sync::Mutex<()>,
    health: Mutex<Health>,
    /// Shared with the other buckets of the origin.
    budget: Arc<Mutex<Budget>>,
    metrics: Metrics,
    clock: Clock,
}

#[derive(Debug)]
struct Health {
    canary: Canary,
    refreshed: Option<Timestamp>,
}

impl Bucket {
    pub(super) fn new(
        config: &config::Bucket,
        origin: &config::S3Origin,
        budget: Arc<Mutex<Budget>>,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let connections = client::connections(config, &origin.timeouts)?;
        let client = client::client(config, &origin.credentials, &origin.timeouts, connections.clone());
        let directory_bucket = config.name.ends_with("--x-s3");
        Ok(Self {
            vitals: Vitals::new(key::id(config), metrics.clone(), clock.clone()),
            config: config.clone(),
            credentials: origin.credentials.clone(),
            timeouts: origin.timeouts.clone(),
            connections,
            client: Mutex::new(client),
            etags: Md5Etags::new(config.endpoint.is_none() && !directory_bucket),
            waiting: Semaphore::new(WAITING_MAX),
            canary_look: tokio::sync::Mutex::default(),
            health: Mutex::new(Health {
                canary: Canary::new(config.canary.clone()),
                refreshed: None,
            }),
            budget,
            metrics,
            clock,
        })
    }

    /// One attempt for the object at `key` (without the bucket's prefix), with its consequences for the bucket.
    async fn fetch_key(
        self: &Arc<Self>,
        ask: &Ask,
        key: &str,
        admission: Admission,
    ) -> Result<Answer, Error> {
        let answer = self.attempt(ask, key).await;
        self.metrics.requests.inc(Outcome::of(&answer));
        match &answer {
            Ok(answer) => {
                let readable = !matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE);
                self.note_success(admission, readable.then_some(key));
            }
            Err(error) => self.note_failure(admission, error, &ask.path),
        }
        answer
    }

    async fn look(&self) {
        self.vitals.begin_probe();
        let known = self.health().canary.keys().into_iter().next();
        let request = self.head(known.as_deref().unwrap_or(PROBE_KEY));
        let seen = match self
            .send(&request)
            .await
            .and_then(|raw| verdict::judge(&raw, &request))
        {
            Ok(Verdict::Forbidden) if known.is_some() => {
                Err(Error::new(Kind::CredentialsRefused, "the canary is refused"))
            }
            Err(error) if error.kind.counts_against_bucket() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        };
        match seen {
            Ok(()) => self.note_success(Admission::Probe, None),
            Err(error) => self.note_failure(Admission::Probe, &error, "(probe)"),
        }
    }

    async fn attempt(self: &Arc<Self>, ask: &Ask, key: &str) -> Result<Answer, Error> {
        let condition = ask
            .condition
            .as_ref()
            .filter(|condition| condition.source == *self.vitals.id());
        let etag = condition.and_then(|condition| condition.etag.clone());
        let request = Request {
            key: self.full_key(key),
            head: ask.head,
            range: ask.range,
            // RFC 9110 13.1.3: with If-None-Match there is no use for a date.
            if_modified_since: condition
                .filter(|_| etag.is_none())
                .and_then(|condition| condition.last_modified.clone()),
            if_none_match: etag,
            if_match: None,
        };
        let raw = self.send(&request).await?;
        match verdict::judge(&raw, &request)? {
            Verdict::Content { length, place } => Ok(self.content(ask, request, raw, length, place)),
            Verdict::NotModified => {
                Ok(self.empty(raw.status, fields::of_not_modified(&raw.headers, &ask.path)))
            }
            Verdict::NotFound => Ok(self.not_found(&raw)),
            Verdict::Forbidden => self.judge_forbidden(ask, key, &raw).await,
        }
    }

    fn content(
        self: &Arc<Self>,
        ask: &Ask,
        request: Request,
        raw: Raw,
        length: Option<u64>,
        place: Option<ContentRange>,
    ) -> Answer {
        let headers = fields::of_content(&raw.headers, &ask.path);
        let body = if ask.head || length == Some(0) {
            super::Body::Empty
        } else {
            super::Body::S3(Box::new(Body::new(Arc::clone(self), request, raw, length, place)))
        };
        Answer {
            length,
            body,
            ..self.empty(raw_status(place), headers)
        }
    }

    fn not_found(&self, raw: &Raw) -> Answer {
        let status = if raw.status == StatusCode::GONE {
            raw.status
        } else {
            StatusCode::NOT_FOUND
        };
        self.empty(status, fields::of_not_found(&raw.headers))
    }

    fn empty(&self, status: StatusCode, headers: http::HeaderMap) -> Answer {
        Answer {
            status,
            headers,
            length: None,
            body: super::Body::Empty,
            source: Arc::clone(self.vitals.id()),
        }
    }

    fn head(&self, key: &str) -> Request {
        Request {
            key: self.full_key(key),
            head: true,
            ..Request::default()
        }
    }

    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.config.prefix)
    }

    /// One HTTP exchange, up to the head of the answer, within the deadline of an attempt.
    async fn send(&self, request: &Request) -> Result<Raw, Error> {
        let gate = tokio::time::timeout(self.timeouts.connect, self.waiting.acquire()).await;
        let Ok(Ok(_place)) = gate else {
            return Err(Error::new(
                Kind::ConnectionLimitReached,
                format!("{WAITING_MAX} requests wait already"),
            ));
        };
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let began = self.clock.now();
        let sent = send::send(&client, &self.config.name, request);
        let raw = match tokio::time::timeout(self.timeouts.attempt, sent).await {
            Ok(raw) => raw?,
            Err(_) => {
                let detail = format!("no head within {:?}", self.timeouts.attempt);
                return Err(Error::new(Kind::HttpResponseTimeout, detail));
            }
        };
        self.metrics.first_byte.observe(self.clock.now().since(began));
        Ok(raw)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server for Bucket {
    fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    async fn fetch(self: &Arc<Self>, ask: &Ask, admission: Admission) -> Result<Answer, Error> {
        let key = key::key_of(&ask.path);
        let key = key.ok_or_else(|| Error::new(Kind::ProxyInternalError, "no object can have this path"))?;
        self.fetch_key(ask, &key, admission).await
    }

    /// Looks whether the bucket is back, for its breaker.
    async fn probe(&self) {
        self.look().await;
    }

    fn counts(answer: Answer, ask: &Ask, place: usize, _last: bool) -> Result<Answer, Error> {
        replica::counts(answer, ask, place)
    }

    fn is_worth_another_try(error: &Error) -> bool {
        error.kind.is_transient()
    }
}

fn raw_status(place: Option<ContentRange>) -> StatusCode {
    if place.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    }
}
