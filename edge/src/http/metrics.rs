//! What the door counts.

use super::pulse::Closed;
use crate::exchange::error::{BadRequest, Failure};
use crate::telemetry::metrics::{Counter, Family, Label, Registry};

/// Handles to the door's metrics.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub refused: Family<RequestRefused>,
    pub closed: Family<Closed>,
    pub dozed: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            refused: registry.family(
                "edge_requests_refused_total",
                "Requests that were refused before they were looked at, by reason.",
            ),
            closed: registry.family(
                "edge_connections_closed_total",
                "Connections that ended, by reason.",
            ),
            dozed: registry.counter(
                "edge_connections_dozed_total",
                "Times that a quiet HTTP/1 connection gave its buffers back until its client's next word.",
            ),
        }
    }
}

/// Why a request was refused at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestRefused {
    /// The validator found this.
    Bad(BadRequest),
    /// Content with a method that has none.
    Body,
    /// An expectation that cannot be met.
    Expectation,
    /// Too many fields.
    Fields,
    /// CONNECT, or `OPTIONS *`.
    Method,
    /// Not HTTP by its syntax, or a header block over the limit: answered by the parser.
    Syntax,
    /// A target over the limit.
    UriTooLong,
}

impl RequestRefused {
    /// The reason in a failure, when it is one of the door's.
    pub(super) fn of(failure: &Failure) -> Option<Self> {
        Some(match failure {
            Failure::BadRequest(why) => Self::Bad(*why),
            Failure::BodyNotAllowed => Self::Body,
            Failure::ExpectationFailed => Self::Expectation,
            Failure::FieldsTooLarge => Self::Fields,
            Failure::MethodNotAllowed => Self::Method,
            Failure::UriTooLong => Self::UriTooLong,
            #[allow(unreachable_patterns, reason = "other failures are not the door's")]
            _ => return None,
        })
    }
}

impl Label for RequestRefused {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &[
        "authority-mismatch",
        "host-empty",
        "host-invalid",
        "host-missing",
        "host-repeated",
        "target-character",
        "target-form",
        "target-scheme",
        "transfer-encoding",
        "userinfo",
        "body",
        "expectation",
        "fields",
        "method",
        "syntax",
        "uri-too-long",
    ];

    fn index(self) -> usize {
        let after = BadRequest::VALUES.len();
        match self {
            Self::Bad(why) => why.index(),
            Self::Body => after,
            Self::Expectation => after + 1,
            Self::Fields => after + 2,
            Self::Method => after + 3,
            Self::Syntax => after + 4,
            Self::UriTooLong => after + 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_token() {
        assert!(RequestRefused::VALUES.starts_with(BadRequest::VALUES));
        assert_eq!(RequestRefused::Bad(BadRequest::Userinfo).token(), "userinfo");
        assert_eq!(RequestRefused::Body.token(), "body");
        assert_eq!(RequestRefused::UriTooLong.token(), "uri-too-long");
        assert_eq!(
            RequestRefused::VALUES.len(),
            RequestRefused::UriTooLong.index() + 1
        );
    }
}
