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

/// [`format`], as a field value.
pub fn to_value(time: Timestamp) -> HeaderValue {
    HeaderValue::try_from(format(time)).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}
