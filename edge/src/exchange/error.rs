//! From failure to answer: the only place where a failure becomes a status code, fields and a body.
//!
//! The body suits the path: where a page expects a script it gets a small valid script that says what happened, so that
//! the browser's console shows the status and not a syntax error.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::cache::key::PathError;
use crate::cache::status::{Detail, Forward, Handling, Outcome, Status};
use crate::origin::{self, error::Kind};
use crate::telemetry::metrics::Label;

/// Why a request gets no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request is malformed.
    BadRequest(BadRequest),
    /// The path cannot be a key.
    BadPath(PathError),
    /// A body where none is allowed.
    BodyNotAllowed,
    /// The content is larger than allowed.
    ContentTooLarge,
    /// `Expect` asks for something other than 100-continue.
    ExpectationFailed,
    /// The header block is over a limit.
    FieldsTooLarge,
    /// The method is none that the site serves.
    MethodNotAllowed,
    /// No site has this host.
    Misdirected,
    /// The client refuses every coding there is, identity too.
    NotAcceptable,
    /// No form that the client takes could be made: too many are in the making, or the body cannot be decoded.
    NotCoded,
    /// The path leads to nothing that was released.
    NotFound,
    /// `only-if-cached`, and nothing is.
    OnlyIfCached,
    /// The origin failed, and nothing stale may be served.
    Origin {
        /// How it failed.
        kind: Kind,
        /// When it is worth asking again.
        retry_after: Option<Duration>,
    },
    /// The memory cap has no room for another body on its way.
    OverBudget,
    /// We failed.
    Panicked,
    /// The header block did not arrive in time.
    RequestTimeout,
    /// It may be a copy that somebody else has sent, and more than a look into the cache is needed (RFC 8470).
    TooEarly,
    /// `PURGE` without a token that allows it.
    Unauthorized,
    /// The target is too long.
    UriTooLong,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// `:authority` and `Host` differ (RFC 9113, 8.3.1).
    AuthorityMismatch,
    /// `Host` is there but empty.
    HostEmpty,
    /// `Host` is not a `uri-host [":" port]`.
    HostInvalid,
    /// There is no `Host` (RFC 9112, 3.2).
    HostMissing,
    /// There is more than one `Host`.
    HostRepeated,
    /// The target has a character that no URI has.
    TargetCharacter,
    /// The target is of a form that its method does not have (RFC 9112, 3.2).
    TargetForm,
    /// The target names a scheme other than http and https.
    TargetScheme,
    /// A transfer coding on a request: none has content here.
    TransferEncoding,
    /// Host or target hold userinfo (RFC 9110, 4.2.4).
    Userinfo,
}

impl Label for BadRequest {
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
    ];

    fn index(self) -> usize {
        self as usize
    }
}

impl Failure {
    /// The status code.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BadPath(_) | Self::BodyNotAllowed => StatusCode::BAD_REQUEST,
            Self::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::FieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::NotCoded | Self::OverBudget => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
            Self::Origin { kind, .. } => origin_status(*kind),
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooEarly => StatusCode::TOO_EARLY,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
        }
    }

    /// One token for log and metric.
    pub fn token(&self) -> &'static str {
        match self {
            Self::BadRequest(why) => why.token(),
            Self::BadPath(_) => "bad-path",
            Self::BodyNotAllowed => "body-not-allowed",
            Self::ContentTooLarge => "content-too-large",
            Self::ExpectationFailed => "expectation-failed",
            Self::FieldsTooLarge => "fields-too-large",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Misdirected => "misdirected",
            Self::NotAcceptable => "not-acceptable",
            Self::NotCoded => "not-coded",
            Self::NotFound => "not-found",
            Self::OnlyIfCached => "only-if-cached",
            Self::Origin { kind, .. } => kind.token(),
            Self::OverBudget => "over-budget",
            Self::Panicked => "panicked",
            Self::RequestTimeout => "request-timeout",
            Self::TooEarly => "too-early",
            Self::Unauthorized => "unauthorized",
            Self::UriTooLong => "uri-too-long",
        }
    }

    /// What an origin's failure means for the client.
    pub fn from_origin(error: &origin::Error) -> Self {
        Self::Origin {
            kind: error.kind,
            retry_after: error.retry_after,
        }
    }

    /// What the cache says of itself (RFC 9211), where it had a part.
    pub fn cache_status(&self, name: &str) -> Option<HeaderValue> {
        let (reason, detail) = match self {
            Self::Origin { kind, .. } => (Forward::UriMiss, Detail::OriginFailed(kind.token())),
            Self::OnlyIfCached => (Forward::UriMiss, Detail::OnlyIfCached),
            _ => return None,
        };
        let handling = Handling::Forwarded {
            reason,
            status: None,
            stored: false,
            collapsed: false,
            ttl: None,
        };
        Some(
            Status {
                handling,
                detail: Some(detail),
            }
            .write(name, None),
        )
    }

    /// The word for it in the cache's metrics.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Origin { .. } => Some(Outcome::Error),
            Self::OnlyIfCached => Some(Outcome::NotCached),
            _ => None,
        }
    }

    /// The fields that belong to this failure. None of them lets another cache keep the answer.
    pub fn fields(&self, allow: &'static str) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(8);
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::MethodNotAllowed => {
                fields.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::Origin { retry_after, .. } => {
                let seconds = retry_after.map_or(1, |after| after.as_secs().max(1));
                fields.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::NotCoded | Self::OverBudget => {
                fields.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Unauthorized => {
                fields.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        fields
    }
}

/// A failure for which no origin can be blamed.
pub fn no_origin() -> Failure {
    Failure::Origin {
        kind: Kind::ProxyInternalError,
        retry_after: None,
    }
}

/// RFC 9110 15.6: whom the status blames. Nothing here is a 404: only an origin that answers can say that.
fn origin_status(kind: Kind) -> StatusCode {
    match kind {
        Kind::BreakerOpen
        | Kind::ConnectionLimitReached
        | Kind::ReplicaMissing
        | Kind::ReplicaStale
        | Kind::SlowDown => StatusCode::SERVICE_UNAVAILABLE,
        Kind::ConnectionReadTimeout
        | Kind::ConnectionTimeout
        | Kind::DnsTimeout
        | Kind::HttpResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::ProxyInternalError => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// A body that says `status` in the media type that `path` makes its reader expect, and that media type.
pub fn body_for(status: StatusCode, path: &str) -> (HeaderValue, Bytes) {
    let code = status.as_u16();
    let reason = status.canonical_reason().unwrap_or("Error");
    let extension = path
        .rsplit('/')
        .next()
        .and_then(|name| name.rsplit_once('.'))
        .map_or("", |(_, last)| last);
    let (media_type, text) = match extension {
        "js" | "mjs" | "cjs" => (
            "text/javascript; charset=utf-8",
            format!("console.error(\"{code} {reason}\");\n"),
        ),
        "css" => ("text/css; charset=utf-8", format!("/* {code} {reason} */\n")),
        "json" | "map" => (
            "application/problem+json",
            format!("{{\"type\":\"about:blank\",\"title\":\"{reason}\",\"status\":{code}}}\n"),
        ),
        "html" | "htm" | "" => (
            "text/html; charset=utf-8",
            format!(
                "<!doctype html><html lang=\"en\"><title>{code} {reason}</title><h1>{code} {reason}</h1>\n"
            ),
        ),
        "svg" => (
            "image/svg+xml",
            format!("<svg xmlns=\"http://www.w3.org/2000/svg\"><title>{code} {reason}</title></svg>\n"),
        ),
        _ => ("text/plain; charset=utf-8", format!("{code} {reason}\n")),
    };
    (HeaderValue::from_static(media_type), Bytes::from(text))
}

/// Puts the body for `status` and `path` into `fields`, and gives it back.
pub fn fill(fields: &mut HeaderMap, status: StatusCode, path: &str) -> Bytes {
    let (media_type, body) = body_for(status, path);
    fields.insert(CONTENT_TYPE, media_type);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_script_is_a_small_valid_script() {
        let (media_type, body) = body_for(StatusCode::NOT_FOUND, "/lock/12/lock.min.js");
        assert_eq!(media_type, "text/javascript; charset=utf-8");
        assert!(body.starts_with(b"console.error(\"404 Not Found"));
    }

    #[test]
    fn each_path_gets_the_media_type_that_its_reader_expects() {
        let check =
            |path, expected: &str| assert_eq!(body_for(StatusCode::BAD_GATEWAY, path).0, expected, "{path}");
        check("/a.css", "text/css; charset=utf-8");
        check("/client/abc.json", "application/problem+json");
        check("/", "text/html; charset=utf-8");
        check("/index.html", "text/html; charset=utf-8");
        check("/font.woff2", "text/plain; charset=utf-8");
        check("/v1.2/widget", "text/html; charset=utf-8");
    }

    #[test]
    fn a_failed_origin_says_when_to_come_back() {
        let failure = Failure::Origin {
            kind: Kind::ConnectionRefused,
            retry_after: Some(Duration::from_secs(7)),
        };
        let fields = failure.fields("GET, HEAD");
        assert_eq!(fields.get(RETRY_AFTER).unwrap(), "7");
        assert_eq!(fields.get(CACHE_CONTROL).unwrap(), "no-store");
    }

    #[test]
    fn bad_requests_have_a_token_each() {
        assert_eq!(BadRequest::Userinfo.token(), "userinfo");
        assert_eq!(BadRequest::VALUES.len(), BadRequest::Userinfo.index() + 1);
    }
}
