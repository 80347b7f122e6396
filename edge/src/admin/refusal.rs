//! Why the admin API refuses, and the one place where that becomes a response (RFC 9457).

use std::time::Duration;

use http::header::{ALLOW, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::Reply;

/// Why a request is refused. The text is the `detail` that the client reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the target must be a path")]
    Target,
    #[error("the Host field must stand there, once, and name a host")]
    Host,
    #[error("{0}")]
    Purge(String),
    #[error("{0}")]
    NotOnRecord(String),
    #[error("the node is not up yet")]
    NotUp,
    #[error("this needs a token: Authorization: Bearer <token>")]
    NoToken,
    #[error("this token is not known here")]
    WrongToken,
    #[error("the token does not have the scope that this needs: {0}")]
    Scope(&'static str),
    #[error("requests of web pages are not answered here")]
    Browser,
    #[error("there is nothing at this path; /openapi.json lists what there is")]
    NotFound,
    #[error("the path does not answer this method")]
    Method(&'static str),
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    #[error("the body must be JSON, and Content-Type must say so: application/json")]
    NotJson,
    #[error(
        "this listener is not known under that name: ask by address, bring a token, or add the name to admin.hosts"
    )]
    ForeignHost,
    #[error("too many connections to the admin listener")]
    Full,
    #[error("more purges than admin.purges_per_second allows to one token")]
    TooOften(Duration),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Target | Self::Host | Self::Purge(_) => StatusCode::BAD_REQUEST,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::Scope(_) | Self::Browser => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Full | Self::NotOnRecord(_) | Self::NotUp => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The response.
    pub(super) fn reply(&self) -> Reply {
        let status = self.status();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.to_string(),
        });
        let mut reply = super::reply(status, "application/problem+json", format!("{problem}\n"));
        let headers = reply.headers_mut();
        match self {
            // RFC 6750 section 3: no error code when no token was shown.
            Self::NoToken => {
                headers.insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"admin\""),
                );
            }
            Self::WrongToken => {
                let value = "Bearer realm=\"admin\", error=\"invalid_token\"";
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(value));
            }
            Self::Scope(_) => {
                let value = "Bearer realm=\"admin\", error=\"insufficient_scope\"";
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(value));
            }
            // RFC 9110 section 15.5.6: it must say what is allowed.
            Self::Method(allow) => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::TooOften(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            // The rest of the body is not read.
            Self::Slow | Self::TooLarge => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        reply
    }

    /// Writes an audit line about what looks like a try to do what one may not.
    pub(super) fn tell(&self, peer: &str) {
        if matches!(
            self,
            Self::WrongToken | Self::Scope(_) | Self::Browser | Self::TooOften(_)
        ) {
            tracing::warn!(target: "audit", peer, status = self.status().as_u16(), reason = %self, "refused");
        }
    }
}
