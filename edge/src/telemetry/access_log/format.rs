//! How a line looks. Both formats are plain ASCII in one line, whatever a client sent: nothing in a line can begin
//! another one, leave its quotes, or move a terminal's cursor.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Version;

use super::Entry;
use crate::clock::Timestamp;
use crate::config::LogFormat;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Writes lines. It remembers how the last second was spelled, as the next line is most often of the same one.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// `2024-02-29T00:00:00`, and the second that it spells.
    rfc3339: Spelled,
    /// `29/Feb/2024:00:00:00`.
    combined: Spelled,
}

#[derive(Debug, Default)]
struct Spelled {
    second: Option<i64>,
    text: String,
}

impl Spelled {
    fn of(&mut self, time: Timestamp, spell: impl FnOnce(&Civil) -> String) -> &[u8] {
        let second = time.unix_seconds();
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = spell(&Civil::of(time));
        }
        self.text.as_bytes()
    }
}

impl Lines {
    /// Appends the line of `entry`, with its end.
    pub(super) fn line(
        &mut self,
        out: &mut Vec<u8>,
        entry: &Entry<'_>,
        format: LogFormat,
        truncate_address: bool,
    ) {
        let client = if truncate_address {
            truncated(entry.client)
        } else {
            entry.client
        };
        match format {
            LogFormat::Combined => combined(out, entry, client, self.combined.of(entry.received, day_first)),
            LogFormat::Json => json(out, entry, client, self.rfc3339.of(entry.received, year_first)),
        }
        out.push(b'\n');
    }
}

/// A point in time as of RFC 3339, in UTC, to the microsecond.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let micros = time.unix_micros().rem_euclid(1_000_000);
    format!("{}.{micros:06}Z", year_first(&Civil::of(time)))
}

fn year_first(civil: &Civil) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = civil;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

fn day_first(civil: &Civil) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = civil;
    let month = usize::try_from(month - 1)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .unwrap_or(&"Jan");
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02}")
}

/// The last octet of IPv4 and the last 80 bits of IPv6 as zeros.
fn truncated(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !((1 << 80) - 1)).into(),
    }
}

// Writing to a Vec cannot fail, so the results below are dropped.

fn combined(out: &mut Vec<u8>, entry: &Entry<'_>, client: IpAddr, time: &[u8]) {
    let _ = write!(out, "{client} - - [");
    out.extend_from_slice(time);
    out.extend_from_slice(b" +0000] \"");
    hex_escaped(out, entry.method.as_bytes());
    out.push(b' ');
    hex_escaped(out, entry.target.as_bytes());
    out.push(b' ');
    out.extend_from_slice(version(entry.version).as_bytes());
    out.extend_from_slice(b"\" ");
    number(out, entry.status.as_u16().into());
    out.push(b' ');
    number(out, entry.bytes);
    for field in [entry.referer, entry.user_agent] {
        out.extend_from_slice(b" \"");
        hex_escaped(out, field.unwrap_or(b"-"));
        out.push(b'"');
    }
}

/// Whether a byte stands for itself in both formats.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Six digits, with leading zeros.
fn micros(out: &mut Vec<u8>, n: u32) {
    let mut digits = [b'0'; 6];
    let mut rest = n;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

/// Printable ASCII but the quote and the backslash as it is, the rest as `\xHH`.
fn hex_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().copied().all(is_plain) {
        return out.extend_from_slice(bytes);
    }
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => {
                let _ = write!(out, "\\x{byte:02x}");
            }
            _ => out.push(*byte),
        }
    }
}

fn json(out: &mut Vec<u8>, entry: &Entry<'_>, client: IpAddr, time: &[u8]) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(time);
    out.push(b'.');
    micros(
        out,
        u32::try_from(entry.received.unix_micros().rem_euclid(1_000_000)).unwrap_or(0),
    );
    let _ = write!(out, "Z\",\"client\":\"{client}\"");
    text(out, "method", entry.method);
    text(out, "scheme", entry.scheme);
    text(out, "host", entry.host);
    text(out, "target", entry.target);
    text(out, "version", version(entry.version));
    member(out, "status");
    number(out, entry.status.as_u16().into());
    member(out, "bytes");
    number(out, entry.bytes);
    for (name, time) in [
        ("duration_seconds", entry.duration),
        ("first_byte_seconds", entry.first_byte),
    ] {
        member(out, name);
        number(out, time.as_secs());
        out.push(b'.');
        micros(out, time.subsec_micros());
    }
    text(out, "cache", entry.cache);
    text(out, "coding", entry.coding);
    text(out, "site", entry.site);
    text(out, "end", entry.end);
    for (name, field) in [("referer", entry.referer), ("user_agent", entry.user_agent)] {
        if let Some(value) = field {
            text(out, name, &String::from_utf8_lossy(value));
        }
    }
    out.push(b'}');
}

fn member(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A member with a text. Everything but printable ASCII is written as `\uHHHH`.
fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    member(out, name);
    out.push(b'"');
    if value.bytes().all(is_plain) {
        out.extend_from_slice(value.as_bytes());
        return out.push(b'"');
    }
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend([b'\\', c as u8]),
            ' '..='~' => out.push(c as u8),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push(b'"');
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// A date and time of the Gregorian calendar, in UTC.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Days are counted in eras of 400 years that begin on the first of March, so that a leap day ends its year.
    fn of(time: Timestamp) -> Self {
        let seconds = time.unix_seconds();
        let (days, of_day) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: of_year - (153 * shifted + 2) / 5 + 1,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |seconds, expected: &str| {
            assert_eq!(rfc3339(Timestamp::from_unix_seconds(seconds)), expected);
        };
        check(0, "1970-01-01T00:00:00.000000Z");
        check(951_782_399, "2000-02-28T23:59:59.000000Z");
        check(951_782_400, "2000-02-29T00:00:00.000000Z");
        check(951_868_800, "2000-03-01T00:00:00.000000Z");
        check(1_709_164_800, "2024-02-29T00:00:00.000000Z");
        check(4_107_542_400, "2100-03-01T00:00:00.000000Z");
        check(-1, "1969-12-31T23:59:59.000000Z");
        assert_eq!(
            rfc3339(Timestamp::from_unix_micros(784_111_777_000_042)),
            "1994-11-06T08:49:37.000042Z"
        );
    }

    #[test]
    fn addresses_lose_what_names_a_person() {
        let check = |address: &str, expected: &str| {
            assert_eq!(truncated(address.parse().unwrap()).to_string(), expected);
        };
        check("203.0.113.77", "203.0.113.0");
        check("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "2001:db8:aaaa::");
        check("::ffff:203.0.113.77", "203.0.113.0");
        check("::1", "::");
    }
}
