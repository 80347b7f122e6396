//! One bucket: one attempt at a time, under its deadline, with its breaker and its canary told of what came.
//!
//! It retries nothing but the rest of a body that broke; `failover` decides who is asked, and how often.

mod body;
mod client;
mod exchange;
mod fields;
mod integrity;
mod media;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use http::StatusCode;
use tokio::sync::{Notify, Semaphore};

use super::health::{Admission, Breaker, Canary, Change};
use super::retry::Budget;
use super::{Answer, Ask, BucketStatus, Error, Kind, Metrics, Outcome, Source, StartError};
use crate::clock::{Clock, Timestamp};
use crate::config;

pub use body::Body;
use exchange::{Raw, Request, Verdict};
use integrity::{Check, Md5Etags};

/// Requests that may wait for a bucket's head at once. One more waits as long as for a connection, and is then refused.
const WAITING_MAX: usize = 256;
/// How often an alarm about one bucket is logged, and credentials are looked for anew, at most.
const ALARM_PAUSE: Duration = Duration::from_secs(30);
/// How recent the sight of a canary must be to let a 403 replace what is stored.
const CANARY_FRESH: Duration = Duration::from_secs(2);
/// What is asked for to see whether the bucket answers, when no key in it is known.
const PROBE_KEY: &str = "portico-probe";

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    id: Source,
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
    /// Told when the breaker opens, and when the bucket goes away.
    opened: Arc<Notify>,
}

#[derive(Debug)]
struct Health {
    breaker: Breaker,
    canary: Canary,
    last_error: Option<(Timestamp, Error)>,
    last_success: Option<Timestamp>,
    alarmed: Option<Timestamp>,
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
            id: id(config),
            config: config.clone(),
            credentials: origin.credentials.clone(),
            timeouts: origin.timeouts.clone(),
            connections,
            client: Mutex::new(client),
            etags: Md5Etags::new(config.endpoint.is_none() && !directory_bucket),
            waiting: Semaphore::new(WAITING_MAX),
            canary_look: tokio::sync::Mutex::default(),
            health: Mutex::new(Health {
                breaker: Breaker::default(),
                canary: Canary::new(config.canary.clone()),
                last_error: None,
                last_success: None,
                alarmed: None,
                refreshed: None,
            }),
            budget,
            metrics,
            clock,
            opened: Arc::new(Notify::new()),
        })
    }

    pub(super) fn id(&self) -> &Source {
        &self.id
    }

    pub(super) fn admit(&self) -> Admission {
        self.health().breaker.admit(self.clock.now())
    }

    pub(super) fn probe_in(&self) -> Option<Duration> {
        self.health().breaker.probe_in(self.clock.now())
    }

    pub(super) fn opened(&self) -> Arc<Notify> {
        Arc::clone(&self.opened)
    }

    pub(super) fn status(&self) -> BucketStatus {
        let health = self.health();
        BucketStatus {
            id: Arc::clone(&self.id),
            breaker: health.breaker.state(),
            last_error: health.last_error.clone(),
            last_success: health.last_success,
        }
    }

    /// One attempt for the object at `key` (without the bucket's prefix), with its consequences for the bucket.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        ask: &Ask,
        key: &str,
        admission: Admission,
    ) -> Result<Answer, Error> {
        let answer = self.attempt(ask, key).await;
        self.metrics.requests.inc(Outcome::of(&answer));
        match &answer {
            Ok(answer) => {
                self.note_success(admission, (answer.status != StatusCode::NOT_FOUND).then_some(key))
            }
            Err(error) => self.note_failure(admission, error, &ask.path),
        }
        answer
    }

    /// Looks whether the bucket is back, for its breaker.
    pub(super) async fn probe(&self) {
        let known = {
            let mut health = self.health();
            health.breaker.begin_probe(self.clock.now());
            health.canary.keys().into_iter().next()
        };
        let request = self.head(known.as_deref().unwrap_or(PROBE_KEY));
        let seen = match self
            .send(&request)
            .await
            .and_then(|raw| exchange::judge(&raw, &request))
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
            .filter(|condition| condition.source == self.id);
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
        match exchange::judge(&raw, &request)? {
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
        place: Option<exchange::ContentRange>,
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
            source: Arc::clone(&self.id),
        }
    }

    /// S3 answers 403 for a missing key to who may not list the bucket. If some other object can be read, then the
    /// credentials are good and the key is missing.
    async fn judge_forbidden(&self, ask: &Ask, key: &str, raw: &Raw) -> Result<Answer, Error> {
        // One look at a time; the others use what it showed.
        let _look = self.canary_look.lock().await;
        // What is stored must not fall to a memory from before the credentials were lost.
        let memory = if ask.condition.is_some() {
            CANARY_FRESH
        } else {
            super::health::CANARY_MEMORY
        };
        let (recent, keys) = {
            let health = self.health();
            (
                health.canary.recent(self.clock.now(), memory),
                health.canary.keys(),
            )
        };
        let readable = match recent {
            Some(readable) => readable,
            None => {
                self.look_at_canaries(
                    keys.iter()
                        .filter(|canary| self.config.canary.is_some() || *canary != key),
                )
                .await?
            }
        };
        if readable && self.config.canary.as_deref() != Some(key) {
            return Ok(self.not_found(raw));
        }
        let detail = format!("status {} for the key and for the canary", raw.status.as_u16());
        Err(Error::new(Kind::CredentialsRefused, detail))
    }

    /// Whether one of `keys` can be read.
    async fn look_at_canaries<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Result<bool, Error> {
        let mut asked = false;
        for key in keys {
            asked = true;
            let request = self.head(key);
            let raw = self.send(&request).await?;
            if exchange::judge(&raw, &request)? != Verdict::Forbidden {
                self.health().canary.looked(true, self.clock.now());
                return Ok(true);
            }
        }
        if !asked {
            return Err(Error::new(
                Kind::Forbidden,
                "a missing key, or bad credentials? Name a key that always exists as `canary` of the bucket, or grant ListBucket",
            ));
        }
        self.health().canary.looked(false, self.clock.now());
        Ok(false)
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
        let sent = exchange::send(&client, &self.config.name, request);
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

    fn note_success(&self, admission: Admission, readable: Option<&str>) {
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

    fn note_failure(&self, admission: Admission, error: &Error, path: &str) {
        let now = self.clock.now();
        self.metrics.errors.inc(error.kind);
        let (change, alarm) = {
            let mut health = self.health();
            health.last_error = Some((now, error.clone()));
            let change = if error.kind.counts_against_bucket() {
                health.breaker.failed(admission, now, fastrand::f64())
            } else {
                // It answered, if not as one would wish.
                health.breaker.succeeded(admission, now)
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

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if self.health().breaker.state() != super::BreakerState::Closed {
            self.metrics.breakers_open.add(-1);
        }
        self.opened.notify_one();
    }
}

fn raw_status(place: Option<exchange::ContentRange>) -> StatusCode {
    if place.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    }
}

/// Name and region, and what else tells two buckets apart.
fn id(config: &config::Bucket) -> Source {
    let place = config
        .endpoint
        .as_deref()
        .map_or(String::new(), |endpoint| format!(" at {endpoint}"));
    let prefix = if config.prefix.is_empty() {
        String::new()
    } else {
        format!("/{}", config.prefix)
    };
    format!("{}{prefix} ({}){place}", config.name, config.region).into()
}

/// The longest key that S3 takes, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// The key for a canonical path, or `None` when no object can have it: the whole bucket, a key that is not UTF-8 or
/// too long, and dot segments, which some stores resolve across the border of the bucket.
pub(super) fn key_of(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.strip_prefix('/')?.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded).ok()?;
        bytes.extend(decoded);
    }
    let key = String::from_utf8(bytes).ok()?;
    let sound = !key.is_empty()
        && key.len() <= KEY_BYTES_MAX
        && !key.contains('\0')
        && key.split('/').all(|segment| segment != "." && segment != "..");
    sound.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_key_unless_no_object_can_have_it() {
        let check =
            |path: &str, expected: Option<&str>| assert_eq!(key_of(path).as_deref(), expected, "{path}");
        check("/client/w.js", Some("client/w.js"));
        check("/a%20b/%C3%A9%3f", Some("a b/é?"));
        check("//a", Some("/a"));
        check("/a%2fb", Some("a/b"));
        for none in [
            "",
            "/",
            "a",
            "/%ff",
            "/%",
            "/%2",
            "/%zz",
            "/%00",
            "/..",
            "/a/../b",
            "/a/%2e%2e/b",
            "/a/.",
            "/..%2fb",
        ] {
            check(none, None);
        }
        check("/...", Some("..."));
        check(&format!("/{}", "a".repeat(1024)), Some(&"a".repeat(1024)));
        check(&format!("/{}", "a".repeat(1025)), None);
    }

    #[test]
    fn ids_tell_buckets_apart() {
        let bucket = config::Bucket {
            name: "widgets".to_owned(),
            region: "eu-west-1".to_owned(),
            prefix: String::new(),
            endpoint: None,
            path_style: false,
            canary: None,
        };
        assert_eq!(&*id(&bucket), "widgets (eu-west-1)");
        let other = config::Bucket {
            prefix: "cdn/".to_owned(),
            endpoint: Some("http://127.0.0.1:9000".to_owned()),
            ..bucket
        };
        assert_eq!(&*id(&other), "widgets/cdn/ (eu-west-1) at http://127.0.0.1:9000");
    }
}
