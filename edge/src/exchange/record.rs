//! What an exchange did: one value, from which log and metrics are fed when its last byte has left.

use std::sync::Arc;

use http::header::{REFERER, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};

use super::message::Request;
use crate::cache::policy::storability::NotStored;
use crate::cache::status::Outcome;
use crate::clock::Clock;
use crate::representation::coding::Coding;
use crate::telemetry::access_log::{AccessLog, Entry};
use crate::telemetry::metrics::{Counter, Family, Histogram, Label, Registry};

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The body broke on our side: the client saw it end early.
    Broken,
    /// The client left, or took nothing for too long.
    ClientGone,
    /// Everything was handed over.
    Whole,
}

impl Label for End {
    const NAME: &'static str = "end";
    const VALUES: &'static [&'static str] = &["broken", "client-gone", "whole"];

    fn index(self) -> usize {
        self as usize
    }
}

/// One exchange, to be written down.
#[derive(Debug)]
pub struct Record(Then);

/// What is counted and logged.
struct Write {
    sinks: Arc<Sinks>,
    request: Request,
    site: Arc<str>,
    status: StatusCode,
    outcome: Option<Outcome>,
    first_byte: std::time::Duration,
    coding: &'static str,
}

/// What follows when the last byte has left.
#[expect(
    clippy::large_enum_variant,
    reason = "a record is boxed as it is, and nearly all are the large variant"
)]
enum Then {
    /// The exchange is counted and logged.
    Write(Write),
    /// Somebody else is told.
    Tell(Box<dyn FnOnce(u64, End) + Send>),
}

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write(write) => write.request.fmt(f),
            Self::Tell(_) => f.write_str("Tell(..)"),
        }
    }
}

impl Record {
    /// The record of `request`, answered with `status`. `site` is its name, or `-` where none has the host.
    pub fn new(
        sinks: &Arc<Sinks>,
        mut request: Request,
        site: Arc<str>,
        status: StatusCode,
        outcome: Option<Outcome>,
    ) -> Self {
        // What nobody took until now, nobody will.
        request.content = None;
        Self(Then::Write(Write {
            first_byte: sinks.clock.now().since(request.received),
            sinks: Arc::clone(sinks),
            request,
            site,
            status,
            outcome,
            coding: "-",
        }))
    }

    /// A record whose end is told to `observer`, for answers that are not the exchange's.
    pub fn observed(observer: impl FnOnce(u64, End) + Send + 'static) -> Box<Self> {
        Box::new(Self(Then::Tell(Box::new(observer))))
    }

    /// Notes the coding of the body.
    pub fn set_coding(&mut self, coding: Coding) {
        if let Then::Write(write) = &mut self.0 {
            write.coding = coding.token();
        }
    }

    /// Notes the name of a coding that only releases have.
    pub fn set_coding_token(&mut self, token: &'static str) {
        if let Then::Write(write) = &mut self.0 {
            write.coding = token;
        }
    }

    /// Writes the exchange down: `sent` bytes of the body left.
    pub fn finish(self: Box<Self>, sent: u64, end: End) {
        let write = match self.0 {
            Then::Tell(observer) => return observer(sent, end),
            Then::Write(write) => write,
        };
        let metrics = &write.sinks.metrics;
        metrics.responses.inc(Class::of(write.status));
        metrics.sent_bytes.add(sent);
        metrics.ends.inc(end);
        metrics.first_byte.observe(write.first_byte);
        if let Some(outcome) = write.outcome {
            metrics.outcomes.inc(outcome);
        }
        write.log(sent, end);
    }
}

impl Write {
    fn log(&self, sent: u64, end: End) {
        let Sinks { access, clock, .. } = &*self.sinks;
        let request = &self.request;
        if !access.wants(request.received, request.client, self.status) {
            return;
        }
        let field = |name| request.headers.get(name).map(HeaderValue::as_bytes);
        access.push(&Entry {
            method: request.method.as_str(),
            scheme: request.scheme.token(),
            host: &request.host,
            target: request.target.as_str(),
            version: request.version,
            status: self.status,
            client: request.client,
            referer: field(REFERER),
            user_agent: field(USER_AGENT),
            bytes: sent,
            received: request.received,
            duration: clock.now().since(request.received),
            first_byte: self.first_byte,
            cache: self.outcome.map_or("-", Label::token),
            coding: self.coding,
            site: &self.site,
            end: end.token(),
        });
    }
}

/// Where records go.
#[derive(Debug)]
pub struct Sinks {
    /// The counters.
    pub metrics: Metrics,
    /// The access log.
    pub access: AccessLog,
    /// For durations.
    pub clock: Clock,
}

impl Sinks {
    /// Registers the metrics and opens the access log.
    ///
    /// # Errors
    ///
    /// When the log's file cannot be opened.
    pub fn new(
        registry: &Registry,
        log: Option<&crate::config::AccessLog>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        Ok(Self {
            metrics: Metrics::register(registry),
            access: AccessLog::start(log, registry)?,
            clock,
        })
    }
}

/// The metrics of exchanges.
#[derive(Debug)]
pub struct Metrics {
    responses: Family<Class>,
    outcomes: Family<Outcome>,
    ends: Family<End>,
    sent_bytes: Counter,
    first_byte: Histogram,
    /// Responses that entered the store.
    pub stored: Counter,
    /// Responses that did not, by reason.
    pub not_stored: Family<NotStored>,
    /// Bodies that found no room even to stream past.
    pub no_room: Counter,
    /// Revalidations that were not begun, as too many were under way.
    pub revalidations_skipped: Counter,
    /// Coded forms that were made.
    pub forms_made: Counter,
    /// Coded forms that were not made, as too many were being made.
    pub forms_skipped: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Self {
        Self {
            responses: registry.family("edge_responses_total", "Responses, by class of status code."),
            outcomes: registry.family("edge_cache_outcomes_total", "Exchanges, by what the cache did."),
            ends: registry.family("edge_response_ends_total", "Responses, by how they ended."),
            sent_bytes: registry.counter("edge_sent_bytes_total", "Bytes of bodies sent to clients."),
            first_byte: registry.histogram(
                "edge_first_byte_seconds",
                "From the end of a request's header block to its response's head.",
                &FIRST_BYTE_BOUNDS,
            ),
            stored: registry.counter("edge_cache_stored_total", "Responses stored."),
            not_stored: registry.family("edge_cache_not_stored_total", "Responses not stored, by reason."),
            no_room: registry.counter(
                "edge_no_room_total",
                "Bodies refused, for the memory cap had no room to pass them on.",
            ),
            revalidations_skipped: registry.counter(
                "edge_revalidations_skipped_total",
                "Background revalidations over the limit.",
            ),
            forms_made: registry.counter("edge_forms_made_total", "Coded forms made."),
            forms_skipped: registry.counter(
                "edge_forms_skipped_total",
                "Coded forms not made, over the limit.",
            ),
        }
    }
}

/// Seconds; from 50 µs, where a hit lies, to the longest that an origin may take.
const FIRST_BYTE_BOUNDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0,
];

/// The class of a status code.
#[derive(Clone, Copy, Debug)]
struct Class(usize);

impl Class {
    fn of(status: StatusCode) -> Self {
        Self(usize::from(status.as_u16() / 100).clamp(1, 5) - 1)
    }
}

impl Label for Class {
    const NAME: &'static str = "class";
    const VALUES: &'static [&'static str] = &["1xx", "2xx", "3xx", "4xx", "5xx"];

    fn index(self) -> usize {
        self.0
    }
}

impl Label for NotStored {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &[
        "authorization",
        "corrupt",
        "incomplete",
        "method",
        "no-lifetime",
        "no-store",
        "over-budget",
        "partial",
        "private",
        "purged",
        "set-cookie",
        "status-not-understood",
        "too-large",
        "vary-star",
        "vary-too-wide",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// What stands for a target that could not be read.
pub fn unreadable() -> PathAndQuery {
    PathAndQuery::from_static("/")
}
