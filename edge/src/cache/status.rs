//! What the outside is told of the cache's part in a response: Cache-Status (RFC 9211), and one outcome for metrics
//! and logs.
//!
//! Nothing is decided here.

use http::HeaderValue;

use super::key::Key;
use super::policy::staleness::Why;
use super::policy::storability::NotStored;
use crate::fields::lists::is_token_byte;
use crate::telemetry::metrics::Label;

/// Why a request went forward (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The cache was told not to handle the request.
    Bypass,
    /// The method's semantics need it.
    Method,
    /// Part of what was asked for is stored.
    Partial,
    /// The stored response would do, but the request asks for validation.
    Request,
    /// The stored response is stale.
    Stale,
    /// Nothing is stored under the URI.
    UriMiss,
    /// Something is stored under the URI, for other requests.
    VaryMiss,
}

impl Forward {
    /// The token of RFC 9211.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::Partial => "partial",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
        }
    }
}

impl From<Why> for Forward {
    fn from(why: Why) -> Self {
        match why {
            Why::Request => Self::Request,
            Why::NoCache | Why::SoftlyPurged | Why::Stale => Self::Stale,
        }
    }
}

/// What more there is to say, as `detail` (RFC 9211 section 2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The answer came from the disk tier.
    Disk,
    /// The response is a stored 404 or 410.
    Negative,
    /// The response was not stored, for this reason.
    NotStored(NotStored),
    /// The request allowed nothing but a stored response.
    OnlyIfCached,
    /// The origin failed, in the words of RFC 9209, and nothing is served instead.
    OriginFailed(&'static str),
    /// What was stored had been purged.
    Purged,
    /// What was stored is stale by a soft purge.
    SoftlyPurged,
    /// The origin failed, in the words of RFC 9209, and what was stored is served stale instead.
    StaleOnError(&'static str),
    /// What was stored is served stale while it is revalidated.
    StaleWhileRevalidate,
}

impl Detail {
    /// The word for it; every one of them is a token of RFC 9651.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Negative => "negative",
            Self::NotStored(reason) => reason.token(),
            Self::OnlyIfCached => "only-if-cached",
            Self::OriginFailed(error) => error,
            Self::Purged => "purged",
            Self::SoftlyPurged => "softly-purged",
            Self::StaleOnError(error) => error,
            Self::StaleWhileRevalidate => "stale-while-revalidate",
        }
    }
}

/// Whether the cache answered or forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The request went forward.
    Forwarded {
        /// Why.
        reason: Forward,
        /// The status that the next hop answered with; `None` when it did not answer.
        status: Option<u16>,
        /// Whether its response was stored.
        stored: bool,
        /// Whether the request shared the forward of another.
        collapsed: bool,
        /// The freshness that remains, in seconds, where it is known.
        ttl: Option<i64>,
    },
    /// Answered from the store.
    Hit {
        /// The freshness that remains, in seconds; negative once stale.
        ttl: i64,
    },
}

/// The cache's part in one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether the cache answered or forwarded.
    pub handling: Handling,
    /// What more there is to say.
    pub detail: Option<Detail>,
}

impl Status {
    /// A plain hit.
    pub const fn hit(ttl: i64) -> Self {
        Self {
            handling: Handling::Hit { ttl },
            detail: None,
        }
    }

    /// The member of Cache-Status for a cache called `name`, with `key` if that is to be shown.
    pub fn write(&self, name: &str, key: Option<&Key>) -> HeaderValue {
        // As long as most hits need, so that their value is kept as it was written.
        let room = match self.handling {
            Handling::Hit { ttl } if self.detail.is_none() && key.is_none() => {
                name.len() + "; hit; ttl=".len() + itoa::Buffer::new().format(bounded(ttl)).len()
            }
            _ => name.len() + 96,
        };
        let mut out = String::with_capacity(room);
        write_name(&mut out, name);
        match self.handling {
            Handling::Hit { ttl } => {
                out.push_str("; hit");
                write_integer(&mut out, "ttl", ttl);
            }
            Handling::Forwarded {
                reason,
                status,
                stored,
                collapsed,
                ttl,
            } => {
                out.push_str("; fwd=");
                out.push_str(reason.token());
                if let Some(status) = status {
                    write_integer(&mut out, "fwd-status", i64::from(status));
                }
                if let Some(ttl) = ttl {
                    write_integer(&mut out, "ttl", ttl);
                }
                if stored {
                    out.push_str("; stored");
                }
                if collapsed {
                    out.push_str("; collapsed");
                }
            }
        }
        if let Some(key) = key {
            // RFC 9211 section 2.7. A key is of its own making, so it is written as a string whatever it holds.
            out.push_str("; key=");
            write_string(&mut out, key.as_str());
        }
        if let Some(detail) = self.detail {
            out.push_str("; detail=");
            out.push_str(detail.token());
        }
        HeaderValue::try_from(out).unwrap_or_else(|_| HeaderValue::from_static("portico"))
    }
}

/// How an exchange ended for the cache: the one word for it in metrics, logs and X-Cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The cache took no part.
    Bypass,
    /// Answered with what another request fetched.
    Collapsed,
    /// No answer from the store nor from the origin.
    Error,
    /// Fresh from the store.
    Hit,
    /// Fresh from the store's disk tier.
    HitDisk,
    /// A 404 or 410 from the store.
    HitNegative,
    /// Stale from the store, while it is revalidated.
    HitStale,
    /// Fetched.
    Miss,
    /// `only-if-cached`, and it was not.
    NotCached,
    /// Confirmed by the origin, then from the store.
    Revalidated,
    /// Stale from the store, because the origin failed.
    StaleError,
}

impl Label for Outcome {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [&'static str] = &[
        "bypass",
        "collapsed",
        "error",
        "hit",
        "hit-disk",
        "hit-negative",
        "hit-stale",
        "miss",
        "not-cached",
        "revalidated",
        "stale-error",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// The largest integer of a structured field, RFC 9651 section 3.3.1.
const INTEGER_MAX: i64 = 999_999_999_999_999;

fn write_integer(out: &mut String, name: &str, value: i64) {
    out.push_str("; ");
    out.push_str(name);
    out.push('=');
    out.push_str(itoa::Buffer::new().format(bounded(value)));
}

fn bounded(value: i64) -> i64 {
    value.clamp(-INTEGER_MAX, INTEGER_MAX)
}

/// The cache's name: as a token where it is one, else as a string (RFC 9651 sections 3.3.3 and 3.3.4).
fn write_name(out: &mut String, name: &str) {
    let begins = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'*';
    let is_token = name.as_bytes().first().is_some_and(begins) && name.bytes().all(may_be_in_token);
    if is_token {
        out.push_str(name);
        return;
    }
    write_string(out, name);
}

/// RFC 9651 section 3.3.4: a token's bytes, and two more.
fn may_be_in_token(byte: u8) -> bool {
    is_token_byte(byte) || matches!(byte, b':' | b'/')
}

/// RFC 9651 section 4.1.6; what is not visible ASCII is left out.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::structured::List;

    fn forwarded(reason: Forward) -> Handling {
        Handling::Forwarded {
            reason,
            status: None,
            stored: false,
            collapsed: false,
            ttl: None,
        }
    }

    #[test]
    fn the_member_of_cache_status() {
        let check = |handling: Handling, detail: Option<Detail>, expected: &str| {
            let written = Status { handling, detail }.write("portico", None);
            assert_eq!(written, expected);
            assert!(List::parse([&written]).is_ok(), "{expected}");
        };
        check(Handling::Hit { ttl: 30 }, None, "portico; hit; ttl=30");
        check(
            Handling::Hit { ttl: -5 },
            Some(Detail::StaleWhileRevalidate),
            "portico; hit; ttl=-5; detail=stale-while-revalidate",
        );
        check(forwarded(Forward::Bypass), None, "portico; fwd=bypass");
        check(
            Handling::Forwarded {
                reason: Forward::UriMiss,
                status: Some(200),
                stored: true,
                collapsed: true,
                ttl: Some(60),
            },
            None,
            "portico; fwd=uri-miss; fwd-status=200; ttl=60; stored; collapsed",
        );
        check(
            forwarded(Forward::Stale),
            Some(Detail::StaleOnError("connection_timeout")),
            "portico; fwd=stale; detail=connection_timeout",
        );
        check(
            forwarded(Forward::VaryMiss),
            Some(Detail::NotStored(NotStored::VaryTooWide)),
            "portico; fwd=vary-miss; detail=vary-too-wide",
        );
        check(
            Handling::Hit { ttl: i64::MIN },
            None,
            "portico; hit; ttl=-999999999999999",
        );
    }

    #[test]
    fn the_name_is_a_token_or_a_string() {
        let check = |name: &str, expected: &str| {
            let written = Status::hit(1).write(name, None);
            assert_eq!(written, expected);
            assert!(List::parse([&written]).is_ok(), "{expected}");
        };
        check("portico", "portico; hit; ttl=1");
        check("edge.example:443/a", "edge.example:443/a; hit; ttl=1");
        check("1st", "\"1st\"; hit; ttl=1");
        check("my \"edge\"\\", "\"my \\\"edge\\\"\\\\\"; hit; ttl=1");
        check("a\r\nb\u{e9}", "\"ab\"; hit; ttl=1");
        check("", "\"\"; hit; ttl=1");
    }

    #[test]
    fn the_key_is_a_string() {
        let key = Key::new("app", "cdn.test", "/a\"b\\", Some("x=1"));
        let written = Status::hit(1).write("portico", Some(&key));
        assert_eq!(
            written,
            "portico; hit; ttl=1; key=\"app|cdn.test|/a\\\"b\\\\?x=1\""
        );
        assert!(List::parse([&written]).is_ok());
    }

    #[test]
    fn each_outcome_has_its_own_token() {
        let all = [
            (Outcome::Bypass, "bypass"),
            (Outcome::Collapsed, "collapsed"),
            (Outcome::Error, "error"),
            (Outcome::Hit, "hit"),
            (Outcome::HitDisk, "hit-disk"),
            (Outcome::HitNegative, "hit-negative"),
            (Outcome::HitStale, "hit-stale"),
            (Outcome::Miss, "miss"),
            (Outcome::NotCached, "not-cached"),
            (Outcome::Revalidated, "revalidated"),
            (Outcome::StaleError, "stale-error"),
        ];
        assert_eq!(all.len(), Outcome::VALUES.len());
        for (outcome, token) in all {
            assert_eq!(outcome.token(), token);
        }
    }

    #[test]
    fn every_reason_to_validate_has_a_reason_to_forward() {
        assert_eq!(Forward::from(Why::Request).token(), "request");
        for why in [Why::NoCache, Why::SoftlyPurged, Why::Stale] {
            assert_eq!(Forward::from(why).token(), "stale");
        }
    }
}
