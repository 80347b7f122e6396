//! Range requests (RFC 9110, section 14): which bytes are asked for, and how several parts are written.
//!
//! What a range costs is bounded: at most [`RANGES_MAX`] are obeyed, and those that overlap or touch become one, so the
//! bytes sent never exceed the object's plus one part header for each range. Reading bytes is the caller's.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;

use crate::fields::lists;

/// How many ranges one request may ask for; with more, `Range` is ignored (RFC 9110, 14.2 allows it) and the answer is whole.
pub const RANGES_MAX: usize = 16;

/// The bytes that a `Range` selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Several ranges, none overlapping or touching another, in the order in which they were asked for: 206, multipart.
    Multiple(Vec<Range<u64>>),
    /// One range, never empty: 206.
    Single(Range<u64>),
    /// Nothing that exists: 416.
    Unsatisfiable,
    /// Everything: 200, as if there were no `Range`.
    Whole,
}

/// What `header` selects of a representation of `length` bytes.
///
/// A unit other than bytes, a malformed or backward range anywhere, or too many ranges select the whole. Ranges beyond the
/// end are left out; when none remains nothing can be satisfied. `bytes=0-` is a range like any other.
pub fn select(header: &HeaderValue, length: u64) -> Selection {
    let Some(asked) = parse(header) else {
        return Selection::Whole;
    };
    let suffix_of_nothing = length == 0 && asked.iter().any(|spec| matches!(spec, Spec::Last(1..)));
    if suffix_of_nothing {
        // Satisfiable by RFC 9110, 14.1.2, and yet no Content-Range can say so.
        return Selection::Whole;
    }
    let mut ranges = Vec::with_capacity(asked.len());
    for range in asked.iter().filter_map(|spec| spec.within(length)) {
        add(&mut ranges, range);
    }
    match ranges.len() {
        0 => Selection::Unsatisfiable,
        1 => ranges.pop().map_or(Selection::Whole, Selection::Single),
        _ => Selection::Multiple(ranges),
    }
}

/// The value of `Content-Range` for one range: `bytes 0-4/10`.
pub fn content_range(range: &Range<u64>, total: u64) -> HeaderValue {
    value(format!("bytes {}/{total}", Dash(range)))
}

/// The value of `Content-Range` in a 416: `bytes */10`.
pub fn unsatisfied_range(total: u64) -> HeaderValue {
    value(format!("bytes */{total}"))
}

/// A `multipart/byteranges` body, but for the bytes of the ranges (RFC 9110, 14.6).
#[derive(Clone, Debug)]
pub struct Multipart {
    content_type: HeaderValue,
    parts: Vec<Part>,
    tail: Bytes,
}

/// One part: its head, then the bytes of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The delimiter and the fields of the part, up to where its bytes begin.
    pub head: Bytes,
    /// Which bytes follow.
    pub range: Range<u64>,
}

impl Multipart {
    /// The parts for `ranges` of a representation of `total` bytes, whose own media type stands in each part.
    ///
    /// The boundary is made from `seed` and the ranges, so that each node gives the same answer to the same request; the
    /// seed is the entity tag, or whatever else names these bytes.
    pub fn new(seed: &[u8], content_type: Option<&HeaderValue>, total: u64, ranges: Vec<Range<u64>>) -> Self {
        let boundary = boundary(seed, &ranges);
        let part = |range: Range<u64>| Part {
            head: head(&boundary, content_type, total, &range),
            range,
        };
        Self {
            content_type: value(format!("multipart/byteranges; boundary={boundary}")),
            parts: ranges.into_iter().map(part).collect(),
            tail: Bytes::from(format!("\r\n--{boundary}--\r\n")),
        }
    }

    /// The value of `Content-Type` for the whole answer.
    pub fn content_type(&self) -> &HeaderValue {
        &self.content_type
    }

    /// How long the body is.
    pub fn content_length(&self) -> u64 {
        let parts = self.parts.iter().map(|part| {
            let bytes = part.range.end.saturating_sub(part.range.start);
            bytes.saturating_add(part.head.len() as u64)
        });
        parts.fold(self.tail.len() as u64, u64::saturating_add)
    }

    /// The parts, in the order in which they are sent.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What ends the body.
    pub fn tail(&self) -> Bytes {
        self.tail.clone()
    }
}

/// One range as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    /// `first-`
    From(u64),
    /// `first-last`
    FromTo(u64, u64),
    /// `-length`
    Last(u64),
}

impl Spec {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", length) => Some(Self::Last(number(length)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }

    /// The bytes of a representation of `length` bytes; `None` when there are none.
    fn within(self, length: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first) => first..length,
            Self::FromTo(first, last) => first..length.min(last.saturating_add(1)),
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        (range.start < range.end).then_some(range)
    }
}

/// The ranges asked for; `None` when the header is to be ignored.
fn parse(header: &HeaderValue) -> Option<Vec<Spec>> {
    let (unit, set) = header.to_str().ok()?.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for member in lists::Members::new(set.as_bytes()) {
        if specs.len() == RANGES_MAX {
            return None;
        }
        specs.push(Spec::parse(std::str::from_utf8(member).ok()?)?);
    }
    (!specs.is_empty()).then_some(specs)
}

/// Decimal digits only; what does not fit is the largest number, which lies beyond the end of anything.
fn number(digits: &str) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Adds a range, at the place of the first one that it overlaps or touches.
fn add(ranges: &mut Vec<Range<u64>>, mut new: Range<u64>) {
    let mut place = ranges.len();
    while let Some(at) = ranges
        .iter()
        .position(|old| old.start <= new.end && new.start <= old.end)
    {
        let old = ranges.remove(at);
        new = new.start.min(old.start)..new.end.max(old.end);
        place = place.min(at);
    }
    ranges.insert(place.min(ranges.len()), new);
}

fn head(boundary: &str, content_type: Option<&HeaderValue>, total: u64, range: &Range<u64>) -> Bytes {
    let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
    if let Some(media_type) = content_type {
        head.extend_from_slice(b"Content-Type: ");
        head.extend_from_slice(media_type.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"Content-Range: ");
    head.extend_from_slice(content_range(range, total).as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    Bytes::from(head)
}

fn boundary(seed: &[u8], ranges: &[Range<u64>]) -> String {
    let numbers = ranges
        .iter()
        .flat_map(|range| [range.start, range.end])
        .flat_map(u64::to_be_bytes);
    let bytes = seed.iter().copied().chain(numbers);
    format!(
        "{:016x}{:016x}",
        fnv1a(bytes.clone(), 0),
        fnv1a(bytes, 0x9e37_79b9_7f4a_7c15)
    )
}

/// `first-last`, both included.
struct Dash<'a>(&'a Range<u64>);

impl std::fmt::Display for Dash<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0.start, self.0.end.saturating_sub(1))
    }
}

#[expect(
    clippy::expect_used,
    reason = "each caller formats ASCII that it wrote itself, and numbers"
)]
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("visible ASCII")
}

fn fnv1a(bytes: impl Iterator<Item = u8>, seed: u64) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn what_is_selected() {
        use Selection::{Multiple, Single, Unsatisfiable, Whole};
        let check = |text: &str, length: u64, expected: Selection| {
            assert_eq!(select(&header(text), length), expected, "{text} of {length}");
        };
        check("bytes=0-4", 10, Single(0..5));
        check("Bytes=0-0", 10, Single(0..1));
        check("bytes=0-", 10, Single(0..10));
        check("bytes=9-", 10, Single(9..10));
        check("bytes=5-100", 10, Single(5..10));
        check("bytes=5-99999999999999999999999", 10, Single(5..10));
        check("bytes=-3", 10, Single(7..10));
        check("bytes=-30", 10, Single(0..10));
        check("bytes= 1-2 ,, ", 10, Single(1..3));
        check("bytes=10-", 10, Unsatisfiable);
        check("bytes=10-11, 99999999999999999999999-", 10, Unsatisfiable);
        check("bytes=-0", 10, Unsatisfiable);
        check("bytes=0-", 0, Unsatisfiable);
        check("bytes=-0", 0, Unsatisfiable);
        check("bytes=-5", 0, Whole);
        check("bytes=0-1, 50-60", 10, Single(0..2));
        check("bytes=0-1,4-5", 10, Multiple(vec![0..2, 4..6]));
        check("bytes=8-9,0-1", 10, Multiple(vec![8..10, 0..2]));
        // Overlapping and adjacent ones become one, at the place of the first of them.
        check("bytes=0-4,2-6", 10, Single(0..7));
        check("bytes=0-4,5-6", 10, Single(0..7));
        check("bytes=8-9,0-1,1-3,6-6", 10, Multiple(vec![8..10, 0..4, 6..7]));
        check("bytes=0-1,4-5,2-3", 10, Single(0..6));
        check("bytes=6-6,0-1,4-4,1-5", 10, Single(0..7));
        check("bytes=0-,0-,0-,-1", 10, Single(0..10));
        for ignored in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=4-2",
            "bytes=0-1,4-2",
            "bytes=0-1,x",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 - 2",
            "bytes =0-1",
            "bytes=0-1-2",
            "bytes=--1",
            "bytes=\"0-1\"",
            "lines=0-1",
            "0-1",
        ] {
            check(ignored, 10, Whole);
        }
    }

    #[test]
    fn too_many_ranges_are_ignored() {
        let ask = |count: u64| {
            let ranges: Vec<_> = (0..count).map(|n| format!("{}-{}", n * 10, n * 10)).collect();
            select(&header(&format!("bytes={}", ranges.join(","))), 1_000_000)
        };
        assert!(matches!(ask(16), Selection::Multiple(ranges) if ranges.len() == 16));
        assert_eq!(ask(17), Selection::Whole);
        assert_eq!(ask(1000), Selection::Whole);
    }

    #[test]
    fn values_of_content_range() {
        assert_eq!(content_range(&(0..5), 10), "bytes 0-4/10");
        assert_eq!(
            content_range(&(5..u64::MAX), u64::MAX),
            "bytes 5-18446744073709551614/18446744073709551615"
        );
        assert_eq!(unsatisfied_range(0), "bytes */0");
    }

    #[test]
    fn a_multipart_body_is_as_long_as_it_says() {
        let content = b"0123456789";
        let text = HeaderValue::from_static("text/plain");
        let multipart = Multipart::new(b"\"abc\"", Some(&text), 10, vec![8..10, 0..2]);
        let mut body = Vec::new();
        for part in multipart.parts() {
            body.extend_from_slice(&part.head);
            let (start, end) = (part.range.start as usize, part.range.end as usize);
            body.extend_from_slice(&content[start..end]);
        }
        body.extend_from_slice(&multipart.tail());
        assert_eq!(multipart.content_length(), body.len() as u64);
        let content_type = multipart.content_type().to_str().unwrap();
        let boundary = content_type
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap();
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
             \r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn the_boundary_follows_from_what_is_sent() {
        let of = |seed: &[u8], ranges: Vec<Range<u64>>| Multipart::new(seed, None, 10, ranges).content_type;
        assert_eq!(of(b"a", vec![0..1, 3..4]), of(b"a", vec![0..1, 3..4]));
        assert_ne!(of(b"a", vec![0..1, 3..4]), of(b"b", vec![0..1, 3..4]));
        assert_ne!(of(b"a", vec![0..1, 3..4]), of(b"a", vec![0..1, 3..5]));
    }

    fn spec() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..120_u64).prop_map(|first| format!("{first}-")),
            (0..120_u64, 0..40_u64).prop_map(|(first, more)| format!("{first}-{}", first + more)),
            (0..120_u64).prop_map(|count| format!("-{count}")),
        ]
    }

    /// Whether `spec` asks for byte `at` of `length`.
    fn asks(spec: &str, at: u64, length: u64) -> bool {
        let (first, last) = spec.split_once('-').unwrap();
        match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&at),
            (Ok(first), Err(_)) => first <= at,
            (Err(_), Ok(count)) => at + count >= length,
            (Err(_), Err(_)) => unreachable!(),
        }
    }

    proptest! {
        #[test]
        fn exactly_what_was_asked_for_once_each(specs in prop::collection::vec(spec(), 1..=16), length in 1..100_u64) {
            let ranges = match select(&header(&format!("bytes={}", specs.join(", "))), length) {
                Selection::Multiple(ranges) => {
                    prop_assert!(ranges.len() > 1);
                    ranges
                }
                Selection::Single(range) => vec![range],
                Selection::Unsatisfiable => vec![],
                Selection::Whole => return Err(TestCaseError::fail("never the whole")),
            };
            for at in 0..length {
                let sent = ranges.iter().filter(|range| range.contains(&at)).count();
                let asked = specs.iter().any(|spec| asks(spec, at, length));
                prop_assert_eq!(sent, usize::from(asked), "byte {}", at);
            }
            for range in &ranges {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }

        #[test]
        fn several_parts_cost_no_more_than_the_whole_and_their_heads(
            specs in prop::collection::vec(spec(), 1..=20),
            length in 1..100_u64,
        ) {
            if let Selection::Multiple(ranges) = select(&header(&format!("bytes={}", specs.join(","))), length) {
                let multipart = Multipart::new(b"x", None, length, ranges);
                prop_assert!(multipart.content_length() <= length + 40 + 120 * RANGES_MAX as u64);
            }
        }

        #[test]
        fn what_is_written_is_what_is_read(first in any::<u64>(), more in 1..1_000_000_u64, beyond in 0..1000_u64) {
            let range = first..first.saturating_add(more);
            prop_assume!(range.start < range.end);
            let total = range.end.saturating_add(beyond);
            let written = content_range(&range, total);
            let asked = written.to_str().unwrap().replace("bytes ", "bytes=");
            let (asked, said) = asked.split_once('/').unwrap();
            prop_assert_eq!(said, total.to_string());
            prop_assert_eq!(select(&header(asked), total), Selection::Single(range));
        }

        #[test]
        fn nothing_panics(text in "(bytes=)?[-0-9, a]{0,40}", length: u64) {
            let _ = select(&header(&text), length);
        }
    }
}
