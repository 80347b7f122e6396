//! HTTP-date (RFC 9110, 5.6.7): reading all three formats, writing the first.
//!
//! What is not a date is `None`, and each field says what that means: an `Expires` that cannot be read is in the past, a
//! condition that cannot be read is ignored. Names are read in any case (RFC 9111, 4.2), and a weekday that does not fit
//! its date is passed over, for nothing is counted from it. A zone other than GMT, a leap second, a year before 1970, a
//! digit too few or a space too many are no dates. A two-digit year below 70 is of this century: within the next decades
//! that is what RFC 9110 asks, and it needs no clock.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;

use crate::clock::Timestamp;

/// The last second that can be written: 9999-12-31T23:59:59Z.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The date that a field value holds.
pub fn parse(value: &HeaderValue) -> Option<Timestamp> {
    parse_str(value.to_str().ok()?)
}

/// The date that `text` holds.
pub fn parse_str(text: &str) -> Option<Timestamp> {
    let text = text.trim_matches([' ', '\t']);
    imf_fixdate(text)
        .or_else(|| rfc850_date(text))
        .or_else(|| asctime_date(text))?
        .timestamp()
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

/// A date as it is written.
struct Written {
    year: u64,
    /// From 0.
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Written {
    /// Puts a date together from its day, and the parts `hour:minute:second`.
    fn new(year: u64, month: &str, day: u64, time: &str) -> Option<Self> {
        let mut parts = time.split(':').map(|part| number(part, 2));
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            year,
            month: MONTHS
                .iter()
                .zip(0..)
                .find(|(name, _)| name.eq_ignore_ascii_case(month))?
                .1,
            day,
            hour,
            minute,
            second,
        })
    }

    fn timestamp(&self) -> Option<Timestamp> {
        let in_day = self.hour < 24 && self.minute < 60 && self.second < 60;
        if !in_day || self.year < 1970 || self.day == 0 || self.day > self.days_in_month() {
            return None;
        }
        let seconds = (self.days() * 24 + self.hour) * 3600 + self.minute * 60 + self.second;
        i64::try_from(seconds).ok().map(Timestamp::from_unix_seconds)
    }

    fn is_leap(&self) -> bool {
        (self.year.is_multiple_of(4) && !self.year.is_multiple_of(100)) || self.year.is_multiple_of(400)
    }

    fn days_in_month(&self) -> u64 {
        match self.month {
            1 if self.is_leap() => 29,
            1 => 28,
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        }
    }

    /// Days since 1970-01-01, in years that begin in March, so that the leap day is the last.
    fn days(&self) -> u64 {
        let (year, month) = match self.month {
            0 | 1 => (self.year - 1, self.month + 10),
            later => (self.year, later - 2),
        };
        let of_year = (153 * month + 2) / 5 + self.day - 1;
        // 719,468 days lie between 0000-03-01 and 1970-01-01.
        (year * 365 + year / 4 - year / 100 + year / 400 + of_year).saturating_sub(719_468)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &str) -> Option<Written> {
    let (weekday, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let (day, month, year) = (
        number(parts.next()?, 2)?,
        parts.next()?,
        number(parts.next()?, 4)?,
    );
    let (time, zone) = (parts.next()?, parts.next()?);
    let fits = is_short_weekday(weekday) && is_gmt(zone) && parts.next().is_none();
    Written::new(year, month, day, time).filter(|_| fits)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850_date(text: &str) -> Option<Written> {
    let (weekday, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let mut date = parts.next()?.split('-');
    let (day, month, year) = (number(date.next()?, 2)?, date.next()?, number(date.next()?, 2)?);
    let (time, zone) = (parts.next()?, parts.next()?);
    let known = WEEKDAYS.iter().any(|name| name.eq_ignore_ascii_case(weekday));
    let fits = known && is_gmt(zone) && date.next().is_none() && parts.next().is_none();
    let century = if year < 70 { 2000 } else { 1900 };
    Written::new(century + year, month, day, time).filter(|_| fits)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime_date(text: &str) -> Option<Written> {
    let (weekday, rest) = text.split_once(' ')?;
    let (month, rest) = rest.split_once(' ')?;
    let (day, rest) = rest.split_at_checked(2)?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(day, 2)?,
    };
    let (time, year) = rest.strip_prefix(' ')?.split_once(' ')?;
    Written::new(number(year, 4)?, month, day, time).filter(|_| is_short_weekday(weekday))
}

fn is_short_weekday(text: &str) -> bool {
    let short = |name: &str| name.get(..3).is_some_and(|name| name.eq_ignore_ascii_case(text));
    WEEKDAYS.iter().any(|name| short(name))
}

fn is_gmt(zone: &str) -> bool {
    zone.eq_ignore_ascii_case("GMT")
}

/// Exactly so many decimal digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let fits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
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
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799));
        check("Thu, 01 Mar 2400 00:00:00 GMT", Some(13_574_649_600));
        check("Sun Nov 16 08:49:37 1994", Some(784_975_777));
        // RFC 9111, 4.2: in any case; and the weekday decides nothing.
        check("sun, 06 nov 1994 08:49:37 gmt", Some(784_111_777));
        check("SUNDAY, 06-NOV-94 08:49:37 gMT", Some(784_111_777));
        check("Mon, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check(" Sun, 06 Nov 1994 08:49:37 GMT\t", Some(784_111_777));
        for invalid in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ;",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:60 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Thu, 30 Feb 2023 12:00:00 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
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
