//! Why an origin gave no answer: one closed enum whose token feeds log, metric and Cache-Status.
//!
//! The names are the proxy error types of RFC 9209 section 2.3 where one fits, and our own where none does. What the
//! client is told is decided in `exchange`; here stands only who may be asked next.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::telemetry::metrics::Label;

/// An origin that did not answer, or not as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: Kind,
    /// What was seen, for the log only: it may name hosts and keys, and never goes to a client.
    pub detail: String,
    /// When it makes sense to ask again, if that is known.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error of `kind`, with what was seen.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// The same error, with a time after which it makes sense to ask again.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// An error of the `kind` that the causes of `error` show, or of `otherwise`.
    pub fn from_causes(error: &(dyn StdError + 'static), otherwise: Kind) -> Self {
        let kind = causes(error).find_map(recognise).unwrap_or(otherwise);
        let mut texts: Vec<String> = causes(error).map(ToString::to_string).collect();
        texts.dedup();
        Self::new(kind, texts.join(": "))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.token(), self.detail)
    }
}

impl StdError for Error {}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Every bucket's breaker is open: nobody was asked.
    BreakerOpen,
    /// The body's checksum is not the announced one.
    ChecksumMismatch,
    /// As many requests wait for this origin as may.
    ConnectionLimitReached,
    /// Nothing more came within the deadline between bytes.
    ConnectionReadTimeout,
    /// Nobody listens.
    ConnectionRefused,
    /// The connection was closed or reset.
    ConnectionTerminated,
    /// No connection within its deadline.
    ConnectionTimeout,
    /// The origin refuses our credentials, or there are none.
    CredentialsRefused,
    /// There is no way to the host.
    DestinationUnavailable,
    /// The name does not resolve.
    DnsError,
    /// The resolver does not answer.
    DnsTimeout,
    /// A 403 of which it is not known whether the key is missing or the credentials are wrong.
    Forbidden,
    /// What came is not HTTP, or not an answer to what was asked.
    HttpProtocolError,
    /// The body ended before its end.
    HttpResponseIncomplete,
    /// No head within its deadline.
    HttpResponseTimeout,
    /// The object changed while its body was on the way.
    ObjectChanged,
    /// A 5xx of the origin.
    OriginStatus5xx,
    /// The bucket does not exist, or cannot be asked in this way: the configuration is wrong.
    ProxyConfigurationError,
    /// A mistake of ours.
    ProxyInternalError,
    /// The range does not overlap the object.
    RangeRefused,
    /// A redirect: never followed, as it could lead anywhere.
    RedirectRefused,
    /// Only a replica answered, and it lacks the object: the first choice may have it.
    ReplicaMissing,
    /// Only a replica answered, with less than what is stored already.
    ReplicaStale,
    /// The origin refuses this one request (a 4xx without a meaning of its own here).
    RequestRefused,
    /// The origin asks for fewer requests.
    SlowDown,
    /// The origin's certificate does not verify.
    TlsCertificateError,
    /// The TLS handshake failed.
    TlsProtocolError,
}

impl Kind {
    /// Every kind, in the order of [`Label::VALUES`].
    pub const ALL: [Self; 27] = [
        Self::BreakerOpen,
        Self::ChecksumMismatch,
        Self::ConnectionLimitReached,
        Self::ConnectionReadTimeout,
        Self::ConnectionRefused,
        Self::ConnectionTerminated,
        Self::ConnectionTimeout,
        Self::CredentialsRefused,
        Self::DestinationUnavailable,
        Self::DnsError,
        Self::DnsTimeout,
        Self::Forbidden,
        Self::HttpProtocolError,
        Self::HttpResponseIncomplete,
        Self::HttpResponseTimeout,
        Self::ObjectChanged,
        Self::OriginStatus5xx,
        Self::ProxyConfigurationError,
        Self::ProxyInternalError,
        Self::RangeRefused,
        Self::RedirectRefused,
        Self::ReplicaMissing,
        Self::ReplicaStale,
        Self::RequestRefused,
        Self::SlowDown,
        Self::TlsCertificateError,
        Self::TlsProtocolError,
    ];

    /// Whether the same bucket may answer differently a moment later.
    pub fn is_transient(self) -> bool {
        match self {
            Self::ChecksumMismatch
            | Self::ConnectionReadTimeout
            | Self::ConnectionRefused
            | Self::ConnectionTerminated
            | Self::ConnectionTimeout
            | Self::DnsError
            | Self::DnsTimeout
            | Self::HttpProtocolError
            | Self::HttpResponseIncomplete
            | Self::HttpResponseTimeout
            | Self::OriginStatus5xx
            | Self::SlowDown => true,
            Self::BreakerOpen
            | Self::ConnectionLimitReached
            | Self::CredentialsRefused
            | Self::DestinationUnavailable
            | Self::Forbidden
            | Self::ObjectChanged
            | Self::ProxyConfigurationError
            | Self::ProxyInternalError
            | Self::RangeRefused
            | Self::RedirectRefused
            | Self::ReplicaMissing
            | Self::ReplicaStale
            | Self::RequestRefused
            | Self::TlsCertificateError
            | Self::TlsProtocolError => false,
        }
    }

    /// Whether another bucket may be asked instead.
    pub fn may_fail_over(self) -> bool {
        !matches!(
            self,
            Self::ConnectionLimitReached
                | Self::ObjectChanged
                | Self::ProxyInternalError
                | Self::RangeRefused
        )
    }

    /// Whether it speaks against the bucket as a whole, rather than against one request or one key.
    pub fn counts_against_bucket(self) -> bool {
        let is_ours = matches!(
            self,
            Self::BreakerOpen
                | Self::ConnectionLimitReached
                | Self::ProxyInternalError
                | Self::ReplicaMissing
                | Self::ReplicaStale
        );
        !is_ours && !self.is_answer()
    }

    /// Whether it may be the fault of the one thing that was asked for: a connection was there, and what went wrong
    /// went wrong on it.
    pub fn may_be_of_one_path(self) -> bool {
        matches!(
            self,
            Self::ConnectionReadTimeout
                | Self::ConnectionTerminated
                | Self::HttpProtocolError
                | Self::HttpResponseIncomplete
                | Self::HttpResponseTimeout
        )
    }

    /// Whether the bucket is well and answered, if not as one would wish.
    pub fn is_answer(self) -> bool {
        matches!(
            self,
            Self::ChecksumMismatch
                | Self::Forbidden
                | Self::ObjectChanged
                | Self::RangeRefused
                | Self::RequestRefused
        )
    }

    /// Whether an operator has to act before it can get better.
    pub fn is_alarm(self) -> bool {
        matches!(
            self,
            Self::CredentialsRefused
                | Self::Forbidden
                | Self::ProxyConfigurationError
                | Self::RedirectRefused
                | Self::TlsCertificateError
        )
    }
}

impl Label for Kind {
    const NAME: &'static str = "error";
    const VALUES: &'static [&'static str] = &[
        "breaker_open",
        "checksum_mismatch",
        "connection_limit_reached",
        "connection_read_timeout",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "credentials_refused",
        "destination_unavailable",
        "dns_error",
        "dns_timeout",
        "forbidden",
        "http_protocol_error",
        "http_response_incomplete",
        "http_response_timeout",
        "object_changed",
        "origin_status_5xx",
        "proxy_configuration_error",
        "proxy_internal_error",
        "range_refused",
        "redirect_refused",
        "replica_missing",
        "replica_stale",
        "request_refused",
        "slow_down",
        "tls_certificate_error",
        "tls_protocol_error",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// `error` and its causes. An `io::Error` hides its payload from `source()`, so it is asked for it.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
    .take(16)
}

/// The kind that one cause shows by itself, if it does.
fn recognise(cause: &(dyn StdError + 'static)) -> Option<Kind> {
    if let Some(error) = cause.downcast_ref::<Error>() {
        return Some(error.kind);
    }
    if cause.is::<aws_credential_types::provider::error::CredentialsError>() {
        return Some(Kind::CredentialsRefused);
    }
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(match error {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                Kind::TlsCertificateError
            }
            _ => Kind::TlsProtocolError,
        });
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        return if error.is_parse() || error.is_parse_too_large() {
            Some(Kind::HttpProtocolError)
        } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            Some(Kind::ConnectionTerminated)
        } else {
            None
        };
    }
    let io = cause.downcast_ref::<std::io::Error>()?;
    match io.kind() {
        std::io::ErrorKind::ConnectionRefused => Some(Kind::ConnectionRefused),
        std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::ConnectionAborted
        | std::io::ErrorKind::BrokenPipe
        | std::io::ErrorKind::NotConnected
        | std::io::ErrorKind::UnexpectedEof => Some(Kind::ConnectionTerminated),
        std::io::ErrorKind::TimedOut => Some(Kind::ConnectionTimeout),
        std::io::ErrorKind::HostUnreachable
        | std::io::ErrorKind::NetworkUnreachable
        | std::io::ErrorKind::AddrNotAvailable => Some(Kind::DestinationUnavailable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_kind_has_its_own_token() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), place, "{kind:?}");
        }
        assert_eq!(Kind::ALL.len(), Kind::VALUES.len());
        assert_eq!(Kind::TlsProtocolError.token(), "tls_protocol_error");
        assert_eq!(Kind::HttpResponseTimeout.token(), "http_response_timeout");
        assert_eq!(Kind::OriginStatus5xx.token(), "origin_status_5xx");
    }

    #[test]
    fn the_first_cause_that_says_something_decides() {
        let check = |error: io::Error, expected| {
            let seen = Error::from_causes(&error, Kind::HttpProtocolError);
            assert_eq!(seen.kind, expected, "{seen}");
        };
        check(
            io::Error::from(io::ErrorKind::ConnectionRefused),
            Kind::ConnectionRefused,
        );
        check(
            io::Error::from(io::ErrorKind::ConnectionReset),
            Kind::ConnectionTerminated,
        );
        check(io::Error::other("odd"), Kind::HttpProtocolError);
        check(
            io::Error::other(Error::new(Kind::DnsTimeout, "s3.test")),
            Kind::DnsTimeout,
        );
        check(
            io::Error::other(io::Error::other(rustls::Error::NoCertificatesPresented)),
            Kind::TlsCertificateError,
        );
        check(
            io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError),
            Kind::TlsProtocolError,
        );
    }
}
