//! Origins: where content comes from when the cache has none.
//!
//! An origin answers an [`Ask`] with an [`Answer`] or an [`Error`]. It knows deadlines, retries, failover and health,
//! and it keeps the origin's own noise (its XML errors, its `x-amz-*` fields) to itself. It knows nothing of the cache.

pub mod error;
mod failover;
pub mod health;
pub mod http;
mod pace;
pub mod retry;
pub mod s3;
mod vitals;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Method, StatusCode};
use bytes::Bytes;

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, OriginKind};
use crate::drain::Drain;
use crate::telemetry::metrics::{Counter, Family, Gauge, Histogram, Label, Registry};

pub use error::{Error, Kind};
pub use health::BreakerState;

/// The bucket (or server) that an answer came from: part of what is stored, as two buckets may differ.
pub type Source = Arc<str>;

/// What is asked of an origin.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The canonical path, percent-encoded, with its leading slash.
    pub path: String,
    /// The canonical query, for origins that are told it.
    pub query: Option<String>,
    /// The site's own name, for origins that are told it.
    pub site: String,
    /// The request's end-to-end fields, for origins that are told them: a bucket never is.
    pub fields: HeaderMap,
    /// Only the header section is wanted.
    pub head: bool,
    /// Answer 304 if this still holds. Only sent to the source that it came from.
    pub condition: Option<Condition>,
    /// Only these bytes: first, and last if there is one (inclusive), as of RFC 9110 14.1.2.
    pub range: Option<AskedRange>,
    /// Whom not to ask: those whose answers were no good.
    pub besides: Vec<Source>,
}

/// A request that is passed on as it is, to an origin that takes any method.
#[derive(Debug)]
pub struct Relay {
    /// The method.
    pub method: Method,
    /// The canonical path, percent-encoded, with its leading slash.
    pub path: String,
    /// The query as the client wrote it.
    pub query: Option<String>,
    /// The site's own name.
    pub site: String,
    /// The request's end-to-end fields.
    pub fields: HeaderMap,
    /// The client's address.
    pub client: IpAddr,
    /// How the client reached us: `http` or `https`.
    pub scheme: &'static str,
    /// The host that the client asked.
    pub host: String,
    /// The content, if there is any.
    pub content: Option<http::Upload>,
}

/// A stored response's validators.
#[derive(Clone, Debug)]
pub struct Condition {
    /// For If-None-Match.
    pub etag: Option<HeaderValue>,
    /// For If-Modified-Since.
    pub last_modified: Option<HeaderValue>,
    /// Where the stored response came from.
    pub source: Source,
}

/// A single byte range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedRange {
    /// From `first`, through `last` if given.
    From {
        /// The first byte's place.
        first: u64,
        /// The last byte's place, inclusive.
        last: Option<u64>,
    },
    /// The last `n` bytes.
    Suffix(u64),
}

/// An origin's answer. Of a bucket: 200, 206, 304, 404 or 410. Of a server: any final status, but a 206 and a 304 only
/// where they were asked for. Everything else is an [`Error`].
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// End-to-end fields, but for Content-Length. Of a bucket, `x-amz-*` ones are gone, the media type is put right, and
    /// tags stand in `Surrogate-Key` and `Cache-Tag`.
    pub headers: HeaderMap,
    /// The body's length, when the origin says it; for a head, that of the body which a GET would have got.
    pub length: Option<u64>,
    /// The body; empty for 204 and 304, for a head, and for a bucket's 404 and 410.
    pub body: Body,
    /// The bucket or server that answered.
    pub source: Source,
}

/// A body as it comes from an origin. One from S3 resumes by itself after a fault (Range and If-Match) within the retry
/// budget.
#[derive(Debug)]
pub enum Body {
    /// None.
    Empty,
    /// From a server.
    Http(Box<http::Body>),
    /// From S3.
    S3(Box<s3::Body>),
}

impl Body {
    /// The next chunk; `None` at a clean end, when exactly the announced length has come.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        match self {
            Self::Empty => None,
            Self::Http(body) => body.chunk().await,
            Self::S3(body) => body.chunk().await,
        }
    }

    /// What is left to be checked of a body that is not read on, where its origin says by what.
    pub fn into_proof(self) -> Option<s3::Proof> {
        match self {
            Self::Empty | Self::Http(_) => None,
            Self::S3(body) => body.into_proof(),
        }
    }

    /// What its connection may hold ready of it, at most: a piece that was handed over, and one that is being read.
    pub fn ahead_bytes(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Http(_) => http::AHEAD_BYTES,
            Self::S3(_) => s3::AHEAD_BYTES,
        }
    }
}

/// Every origin of a configuration, by name.
#[derive(Debug)]
pub struct Origins {
    by_name: HashMap<String, Arc<Origin>>,
    metrics: Metrics,
    clock: Clock,
}

impl Origins {
    /// Makes every origin of `config`, and starts the tasks that probe buckets while their breakers are open. It asks
    /// no network: credentials are looked for when they are first needed. Call it within the control plane's runtime.
    pub fn start(
        config: &Config,
        drain: &Drain,
        registry: &Registry,
        clock: Clock,
    ) -> Result<Self, StartError> {
        Self::with_metrics(config, drain, Metrics::register(registry), clock)
    }

    /// The origins of a reloaded `config`, counting on the same metrics. The old ones end when the last fetch lets go.
    pub fn reload(&self, config: &Config, drain: &Drain) -> Result<Self, StartError> {
        Self::with_metrics(config, drain, self.metrics.clone(), self.clock.clone())
    }

    fn with_metrics(
        config: &Config,
        drain: &Drain,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let mut by_name = HashMap::new();
        for origin in &config.origins {
            let made = match &origin.kind {
                OriginKind::Http(http) => Origin::Http(http::HttpOrigin::start(
                    http,
                    &config.name,
                    drain,
                    metrics.clone(),
                    clock.clone(),
                )?),
                OriginKind::S3(s3) => {
                    Origin::S3(s3::S3Origin::start(s3, drain, metrics.clone(), clock.clone())?)
                }
            };
            by_name.insert(origin.name.clone(), Arc::new(made));
        }
        Ok(Self {
            by_name,
            metrics,
            clock,
        })
    }

    /// The origin called `name`.
    pub fn find(&self, name: &str) -> Option<Arc<Origin>> {
        self.by_name.get(name).cloned()
    }

    /// Every origin, in order of name.
    pub fn all(&self) -> Vec<(&str, Arc<Origin>)> {
        let mut all: Vec<_> = self
            .by_name
            .iter()
            .map(|(name, origin)| (name.as_str(), Arc::clone(origin)))
            .collect();
        all.sort_by_key(|(name, _)| *name);
        all
    }
}

/// Why the origins could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file with authorities.
    #[error("{0}: cannot be used: {1}")]
    Ca(PathBuf, String),
    /// An origin without a bucket.
    #[error("an origin of kind s3 has no bucket")]
    NoBucket,
    /// An endpoint that is not an http or https URL.
    #[error("{0:?} is not an http:// or https:// URL")]
    Endpoint(String),
    /// An origin without a server.
    #[error("an origin of kind http has no server")]
    NoServer,
    /// No authority is known by which TLS could be verified.
    #[error(
        "this machine knows no certificate authorities: install them, or name a file as ca of the origin"
    )]
    Roots,
    /// The TLS client could not be made.
    #[error("the TLS client could not be made")]
    Tls,
}

/// Where content comes from.
#[derive(Debug)]
pub enum Origin {
    /// Servers of the same application.
    Http(http::HttpOrigin),
    /// Buckets with the same content.
    S3(s3::S3Origin),
}

impl Origin {
    /// Asks. Retries, failover and deadlines are within; the body streams afterwards.
    pub async fn fetch(&self, ask: Ask) -> Result<Answer, Error> {
        match self {
            Self::Http(origin) => origin.fetch(ask).await,
            Self::S3(origin) => origin.fetch(ask).await,
        }
    }

    /// Passes a request on as it is, once. A bucket takes none.
    pub async fn relay(&self, relay: Relay) -> Result<Answer, Error> {
        match self {
            Self::Http(origin) => origin.relay(relay).await,
            Self::S3(_) => Err(Error::new(Kind::RequestRefused, "a bucket takes no such request")),
        }
    }

    /// How each bucket or server stands, first choice first.
    pub fn status(&self) -> Vec<BucketStatus> {
        match self {
            Self::Http(origin) => origin.status(),
            Self::S3(origin) => origin.status(),
        }
    }
}

/// How a bucket or a server stands, for the operator.
#[derive(Clone, Debug)]
pub struct BucketStatus {
    /// The bucket's name and region, or the server's URL.
    pub id: Source,
    /// How its breaker stands.
    pub breaker: BreakerState,
    /// What went wrong last, and when.
    pub last_error: Option<(Timestamp, Error)>,
    /// When it last answered.
    pub last_success: Option<Timestamp>,
}

/// How a request to an origin ended, for the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 2xx but 206.
    Ok,
    /// 206.
    Partial,
    /// 304.
    NotModified,
    /// 404 or 410.
    NotFound,
    /// No answer; why is counted by kind.
    Error,
    /// 3xx but 304.
    Redirect,
    /// Any other 4xx.
    ClientError,
    /// 5xx.
    ServerError,
}

impl Outcome {
    fn of(answer: &Result<Answer, Error>) -> Self {
        answer
            .as_ref()
            .map_or(Self::Error, |answer| Self::of_status(answer.status))
    }

    fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            206 => Self::Partial,
            304 => Self::NotModified,
            404 | 410 => Self::NotFound,
            ..300 => Self::Ok,
            300..400 => Self::Redirect,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

impl Label for Outcome {
    const NAME: &'static str = "result";
    const VALUES: &'static [&'static str] = &[
        "ok",
        "partial",
        "not_modified",
        "not_found",
        "error",
        "redirect",
        "client_error",
        "server_error",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// The metrics of all origins.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<Outcome>,
    errors: Family<Kind>,
    retries: Counter,
    retries_refused: Counter,
    resumes: Counter,
    breakers_open: Gauge,
    idle_connections: Gauge,
    first_byte: Histogram,
}

/// Seconds. A bucket on the same host answers within 100 µs, one across an ocean in 300 ms.
const FIRST_BYTE_BOUNDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

impl Metrics {
    fn register(registry: &Registry) -> Self {
        Self {
            requests: registry.family(
                "edge_origin_requests_total",
                "Requests to origins, by how they ended.",
            ),
            errors: registry.family(
                "edge_origin_errors_total",
                "Requests and bodies that failed, by reason.",
            ),
            retries: registry.counter("edge_origin_retries_total", "Requests that were repeated."),
            retries_refused: registry.counter(
                "edge_origin_retries_refused_total",
                "Requests that were not repeated as the retry budget was empty.",
            ),
            resumes: registry.counter(
                "edge_origin_resumes_total",
                "Bodies that were taken up again after a fault.",
            ),
            breakers_open: registry.gauge(
                "edge_origin_breaker_open",
                "Buckets and servers whose circuit breaker is open.",
            ),
            idle_connections: registry.gauge(
                "edge_origin_idle_connections",
                "Connections to the servers of applications that wait for a request.",
            ),
            first_byte: registry.histogram(
                "edge_origin_first_byte_seconds",
                "From the request to the head of the answer.",
                FIRST_BYTE_BOUNDS,
            ),
        }
    }
}
