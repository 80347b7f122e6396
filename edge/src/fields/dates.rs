//! HTTP-date (RFC 9110, 5.6.7): reading all three formats, writing the first.
//!
//! What is not exactly a date is `None`, and each field says what that means: an `Expires` that cannot be read is in the
//! past, a condition that cannot be read is ignored. A weekday that does not fit its date, a zone other than GMT, a leap
//! second and a year before 1970 are no dates. A two-digit year below 70 is of this century: within the next decades that
//! is what RFC 9110 asks, and it needs no clock.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use httpdate::HttpDate;

use crate::clock::Timestamp;

/// The last second that can be written: 9999-12-31T23:59:59Z.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

/// The date that a field value holds.
pub fn parse(value: &HeaderValue) -> Option<Timestamp> {
    parse_str(value.to_str().ok()?)
}

/// The date that `text` holds.
pub fn parse_str(text: &str) -> Option<Timestamp> {
    let date: HttpDate = text.parse().ok()?;
    Some(Timestamp::from(std::time::SystemTime::from(date)))
}

/// The date in the one field line that `values` holds; `None` when there are several, since then none can be believed.
pub fn parse_only<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Option<Timestamp> {
    let mut values = values.into_iter();
    let only = values.next()?;
    if values.next().is_some() {
        return None;
    }
    parse(only)
}

/// `time` as an IMF-fixdate, rounded down to a second. What lies outside of the years 1970 to 9999 becomes the nearest
/// second within.
pub fn format(time: Timestamp) -> String {
    let seconds = u64::try_from(time.unix_seconds())
        .unwrap_or(0)
        .min(UNIX_SECONDS_MAX);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// [`format()`], as a field value.
pub fn to_value(time: Timestamp) -> HeaderValue {
    HeaderValue::try_from(format(time)).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_formats_and_nothing_else() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse_str(text).map(Timestamp::unix_seconds), expected, "{text}");
        };
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("Thursday, 01-Jan-26 00:00:00 GMT", Some(1_767_225_600));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000));
        for invalid in [
            "",
            "0",
            "-1",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Thu, 30 Feb 2023 12:00:00 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "sun, 06 nov 1994 08:49:37 gmt",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            check(invalid, None);
        }
    }

    #[test]
    fn two_lines_are_no_date() {
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(parse_only([&date]).is_some());
        assert_eq!(parse_only([&date, &date]), None);
        assert_eq!(parse_only([]), None);
    }

    #[test]
    fn what_cannot_be_written_becomes_the_nearest_second_that_can() {
        let check = |micros: i64, expected: &str| {
            assert_eq!(format(Timestamp::from_unix_micros(micros)), expected);
        };
        check(784_111_777_999_999, "Sun, 06 Nov 1994 08:49:37 GMT");
        check(-1, "Thu, 01 Jan 1970 00:00:00 GMT");
        check(i64::MIN, "Thu, 01 Jan 1970 00:00:00 GMT");
        check(i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0..=253_402_300_799_i64) {
            let time = Timestamp::from_unix_seconds(seconds);
            prop_assert_eq!(parse(&to_value(time)), Some(time));
        }

        #[test]
        fn nothing_read_panics(bytes in prop::collection::vec(32..=255_u8, 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = parse(&value);
            }
        }
    }
}
