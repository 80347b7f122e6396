//! Durations and sizes as people write them: `"500ms"`, `"24h"`, `"64KiB"`.

use std::time::Duration;

/// No lifetime and no deadline needs to be longer, and no sum of two of them overflows.
const YEARS_MAX: u64 = 10;

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A whole number with a unit: ms, s, m, h, d.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("expected a duration such as \"500ms\", \"10s\", \"5m\", \"24h\" or \"7d\", not {text:?}");
    let millis = number_with_unit(text, &DURATIONS).ok_or_else(expected)?;
    let duration = millis.map(Duration::from_millis);
    duration
        .filter(|duration| duration.as_secs() <= YEARS_MAX * 365 * 86_400)
        .ok_or_else(|| format!("{text} is more than {YEARS_MAX} years"))
}

/// A whole number with a unit: B, KiB, MiB, GiB, TiB, KB, MB, GB, TB.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let expected =
        || format!("expected a size such as \"64KiB\", \"512MiB\", \"20GiB\" or \"1MB\", not {text:?}");
    let bytes = number_with_unit(text, &SIZES).ok_or_else(expected)?;
    bytes
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| format!("{text} is more than this machine can count"))
}

/// `None` when it is no number with one of the units, `Some(None)` when it is too large.
fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<Option<u64>> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).filter(|_| digits > 0)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    Some(number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_millis), "{text}");
        };
        check("0s", Some(0));
        check("500ms", Some(500));
        check("10s", Some(10_000));
        check("5m", Some(300_000));
        check("24h", Some(86_400_000));
        check("7d", Some(604_800_000));
        check("10 s", Some(10_000));
        for bad in [
            "",
            "s",
            "10",
            "-1s",
            "1.5s",
            "10S",
            "10min",
            "1h30m",
            " 10s",
            "10s ",
            "3651d",
            "99999999999999999999s",
            "\u{661}s",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn sizes_are_whole_numbers_with_a_unit() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(size(text).ok(), expected, "{text}");
        check("0B", Some(0));
        check("64KiB", Some(65_536));
        check("512MiB", Some(536_870_912));
        check("20GiB", Some(21_474_836_480));
        check("1MB", Some(1_000_000));
        for bad in [
            "",
            "MiB",
            "512",
            "512mib",
            "1.5GiB",
            "-1B",
            "9999999TiB",
            "99999999999999999999B",
        ] {
            check(bad, None);
        }
    }
}
