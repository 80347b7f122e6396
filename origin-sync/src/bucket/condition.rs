//! Conditional requests: whether a read is answered in full, and whether a write may happen.
//!
//! Pure: it compares what was asked with what is stored, and touches neither the disk nor the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::{ETag, ETagCondition};

/// What must be true of a key at the moment of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: write in any case.
    #[default]
    Anything,
    /// The key does not exist (`If-None-Match: *`).
    Absent,
    /// The key exists (`If-Match: *`).
    Present,
    /// The key exists with this entity tag, written without quotes (`If-Match: "..."`).
    Etag(String),
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `If-Match` was asked of a key that does not exist: S3 answers 404.
    Missing,
    /// The key exists and does not fulfil the condition: 412.
    Failed,
}

impl Expect {
    /// Compares with the entity tag that the key has now, if it exists.
    pub fn check(&self, current: Option<&str>) -> Result<(), Refusal> {
        match (self, current) {
            (Self::Anything, _) | (Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Absent, Some(_)) => Err(Refusal::Failed),
            (Self::Present | Self::Etag(_), None) => Err(Refusal::Missing),
            (Self::Etag(wanted), Some(etag)) if wanted == etag => Ok(()),
            (Self::Etag(_), Some(_)) => Err(Refusal::Failed),
        }
    }
}

/// The preconditions of a read, as the client sent them.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    /// `If-Match`.
    pub if_match: Option<ETagCondition>,
    /// `If-None-Match`.
    pub if_none_match: Option<ETagCondition>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<SystemTime>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<SystemTime>,
}

/// What the preconditions of a read come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer as if there were no preconditions.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Preconditions {
    /// Judges them in the order of RFC 9110 section 13.2.2.
    pub fn judge(&self, etag: &str, modified: SystemTime) -> Verdict {
        let etag = ETag::Strong(etag.to_owned());
        let modified = whole_seconds(modified);
        match (&self.if_match, self.if_unmodified_since) {
            (Some(ETagCondition::ETag(wanted)), _) if !wanted.strong_cmp(&etag) => return Verdict::Failed,
            (None, Some(since)) if modified > since => return Verdict::Failed,
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(ETagCondition::Any), _) => Verdict::NotModified,
            (Some(ETagCondition::ETag(held)), _) if held.weak_cmp(&etag) => Verdict::NotModified,
            (None, Some(since)) if modified <= since => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }
}

/// HTTP dates have no fractions (RFC 9110 section 5.6.7), so neither has what they are compared with.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn tag(value: &str) -> Option<ETagCondition> {
        Some(ETagCondition::parse_http_header(value.as_bytes()).unwrap())
    }

    #[test]
    fn reads_are_judged_in_the_order_of_the_rfc() {
        let none = Preconditions::default;
        // The object has the tag "a" and was modified at 100.4 seconds.
        let check = |preconditions: Preconditions, expected: Verdict| {
            let modified = at(100) + Duration::from_millis(400);
            assert_eq!(preconditions.judge("a", modified), expected, "{preconditions:?}");
        };
        check(none(), Verdict::Proceed);
        check(
            Preconditions {
                if_match: tag("\"a\""),
                ..none()
            },
            Verdict::Proceed,
        );
        check(
            Preconditions {
                if_match: tag("*"),
                ..none()
            },
            Verdict::Proceed,
        );
        check(
            Preconditions {
                if_match: tag("\"b\""),
                ..none()
            },
            Verdict::Failed,
        );
        check(
            Preconditions {
                if_match: tag("W/\"a\""),
                ..none()
            },
            Verdict::Failed,
        );
        check(
            Preconditions {
                if_none_match: tag("\"a\""),
                ..none()
            },
            Verdict::NotModified,
        );
        check(
            Preconditions {
                if_none_match: tag("W/\"a\""),
                ..none()
            },
            Verdict::NotModified,
        );
        check(
            Preconditions {
                if_none_match: tag("*"),
                ..none()
            },
            Verdict::NotModified,
        );
        check(
            Preconditions {
                if_none_match: tag("\"b\""),
                ..none()
            },
            Verdict::Proceed,
        );
        check(
            Preconditions {
                if_modified_since: Some(at(100)),
                ..none()
            },
            Verdict::NotModified,
        );
        check(
            Preconditions {
                if_modified_since: Some(at(99)),
                ..none()
            },
            Verdict::Proceed,
        );
        check(
            Preconditions {
                if_unmodified_since: Some(at(100)),
                ..none()
            },
            Verdict::Proceed,
        );
        check(
            Preconditions {
                if_unmodified_since: Some(at(99)),
                ..none()
            },
            Verdict::Failed,
        );
        // A tag silences the date beside it.
        check(
            Preconditions {
                if_match: tag("\"a\""),
                if_unmodified_since: Some(at(1)),
                ..none()
            },
            Verdict::Proceed,
        );
        check(
            Preconditions {
                if_none_match: tag("\"b\""),
                if_modified_since: Some(at(100)),
                ..none()
            },
            Verdict::Proceed,
        );
        // A failed If-Match comes before a matching If-None-Match.
        check(
            Preconditions {
                if_match: tag("\"b\""),
                if_none_match: tag("\"a\""),
                ..none()
            },
            Verdict::Failed,
        );
        check(
            Preconditions {
                if_match: tag("\"a\""),
                if_none_match: tag("\"a\""),
                ..none()
            },
            Verdict::NotModified,
        );
    }

    #[test]
    fn writes_happen_only_as_expected() {
        let check = |expect: Expect, current: Option<&str>, expected: Result<(), Refusal>| {
            assert_eq!(expect.check(current), expected, "{expect:?} {current:?}");
        };
        check(Expect::Anything, None, Ok(()));
        check(Expect::Anything, Some("a"), Ok(()));
        check(Expect::Absent, None, Ok(()));
        check(Expect::Absent, Some("a"), Err(Refusal::Failed));
        check(Expect::Present, None, Err(Refusal::Missing));
        check(Expect::Present, Some("a"), Ok(()));
        check(Expect::Etag("a".into()), Some("a"), Ok(()));
        check(Expect::Etag("a".into()), Some("b"), Err(Refusal::Failed));
        check(Expect::Etag("a".into()), None, Err(Refusal::Missing));
    }
}
