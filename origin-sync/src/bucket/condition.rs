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

    fn tag(value: &str) -> ETagCondition {
        ETagCondition::parse_http_header(value.as_bytes()).unwrap()
    }

    /// If-Match, If-None-Match, seconds of If-Modified-Since and of If-Unmodified-Since.
    type Asked<'a> = (&'a str, &'a str, u64, u64);

    #[test]
    fn reads_are_judged_in_the_order_of_the_rfc() {
        // The object has the tag "a" and was modified at 100.4 seconds.
        let modified = at(100) + Duration::from_millis(400);
        let check = |(if_match, if_none_match, since, unless): Asked<'_>, expected: Verdict| {
            let preconditions = Preconditions {
                if_match: (!if_match.is_empty()).then(|| tag(if_match)),
                if_none_match: (!if_none_match.is_empty()).then(|| tag(if_none_match)),
                if_modified_since: (since > 0).then(|| at(since)),
                if_unmodified_since: (unless > 0).then(|| at(unless)),
            };
            assert_eq!(preconditions.judge("a", modified), expected, "{preconditions:?}");
        };
        check(("", "", 0, 0), Verdict::Proceed);
        check(("\"a\"", "", 0, 0), Verdict::Proceed);
        check(("*", "", 0, 0), Verdict::Proceed);
        check(("\"b\"", "", 0, 0), Verdict::Failed);
        check(("W/\"a\"", "", 0, 0), Verdict::Failed);
        check(("", "\"a\"", 0, 0), Verdict::NotModified);
        check(("", "W/\"a\"", 0, 0), Verdict::NotModified);
        check(("", "*", 0, 0), Verdict::NotModified);
        check(("", "\"b\"", 0, 0), Verdict::Proceed);
        check(("", "", 100, 0), Verdict::NotModified);
        check(("", "", 99, 0), Verdict::Proceed);
        check(("", "", 0, 100), Verdict::Proceed);
        check(("", "", 0, 99), Verdict::Failed);
        // A tag silences the date beside it.
        check(("\"a\"", "", 0, 1), Verdict::Proceed);
        check(("", "\"b\"", 100, 0), Verdict::Proceed);
        // What fails comes before what is not modified.
        check(("\"b\"", "\"a\"", 0, 0), Verdict::Failed);
        check(("\"a\"", "\"a\"", 0, 0), Verdict::NotModified);
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
