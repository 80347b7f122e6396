//! Failures and their status; the only such mapping.

use http::StatusCode;

use crate::telemetry::metrics::Label;

/// Why a request was answered with an error of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request is not one that HTTP allows.
    BadRequest(BadRequest),
    /// The target is longer than the limit.
    UriTooLong,
    /// There are more fields than the limit.
    FieldsTooLarge,
    /// Content came with a method that has none here.
    BodyNotAllowed,
    /// CONNECT, or `OPTIONS *`.
    MethodNotAllowed,
    /// An expectation other than `100-continue`.
    ExpectationFailed,
    /// The exchange panicked.
    Panicked,
}

impl Failure {
    /// The status code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BodyNotAllowed => StatusCode::BAD_REQUEST,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::FieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
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
