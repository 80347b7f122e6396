//! Parts of responses: what a 206 holds, whom it serves, and how parts become a whole (RFC 9111 sections 3.3 and 3.4).
//!
//! Only single byte ranges with a known total are parts here, and only those that are as long as they say: a part that
//! lies about its place would put wrong bytes into somebody's file.

use std::ops::Range;

use http::header::{CONTENT_RANGE, ETAG, RANGE};
use http::{HeaderMap, HeaderValue};

use crate::representation::range::{self, Selection};

/// Where some bytes of a response stand in the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first byte's place.
    pub first: u64,
    /// How many bytes there are.
    pub length: u64,
    /// How many bytes the whole has.
    pub total: u64,
}

/// How two parts that belong together are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The part that they make.
    pub part: Part,
    /// Whether the one that was asked stands in front.
    pub in_front: bool,
    /// How many bytes of the one behind are there already.
    pub overlap: u64,
}

impl Part {
    /// The part that a 206 with these fields and a body of `length` bytes is; `None` when it is none, or is not as long
    /// as its Content-Range (RFC 9110 section 14.4).
    pub fn from_fields(fields: &HeaderMap, length: Option<u64>) -> Option<Self> {
        let mut lines = fields.get_all(CONTENT_RANGE).iter();
        let text = lines.next()?.to_str().ok()?;
        let (unit, rest) = text.split_once(' ')?;
        let (places, total) = rest.split_once('/')?;
        let (first, last) = places.split_once('-')?;
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        let part = Self {
            first,
            length: last.checked_sub(first)?.checked_add(1)?,
            total,
        };
        let is_sound = lines.next().is_none()
            && unit.eq_ignore_ascii_case("bytes")
            && part.end() <= total
            && length == Some(part.length);
        is_sound.then_some(part)
    }

    /// The place behind the last byte.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.length)
    }

    /// Whether it is everything.
    pub fn is_whole(&self) -> bool {
        self.first == 0 && self.length == self.total
    }

    /// The range that a request asks for, if it is one and stands wholly within this part (RFC 9111 section 3.3).
    pub fn serves(&self, request: &HeaderMap) -> Option<Range<u64>> {
        match range::select(request.get(RANGE)?, self.total) {
            Selection::Single(asked) => {
                (self.first <= asked.start && asked.end <= self.end()).then_some(asked)
            }
            _ => None,
        }
    }

    /// What is missing, where it is one range.
    pub fn rest(&self) -> Option<Range<u64>> {
        match (self.first, self.end()) {
            (0, end) if end < self.total => Some(end..self.total),
            (first, end) if first > 0 && end == self.total => Some(0..first),
            _ => None,
        }
    }

    /// How this part and `other` make one, if they touch or overlap.
    pub fn join(&self, other: &Self) -> Option<Joined> {
        let in_front = self.first <= other.first;
        let (front, behind) = if in_front { (self, other) } else { (other, self) };
        if self.total != other.total || behind.first > front.end() {
            return None;
        }
        let end = front.end().max(behind.end());
        Some(Joined {
            part: Self {
                first: front.first,
                length: end - front.first,
                total: self.total,
            },
            in_front,
            overlap: front.end() - behind.first,
        })
    }
}

/// Whether two responses may be combined: both carry the same strong validator (RFC 9111 section 3.4).
pub fn combinable(one: &HeaderMap, other: &HeaderMap) -> bool {
    let strong = |fields: &HeaderMap| -> Option<HeaderValue> {
        let tag = fields.get(ETAG)?;
        tag.as_bytes().starts_with(b"\"").then(|| tag.clone())
    };
    strong(one).is_some_and(|tag| strong(other) == Some(tag))
}

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, length: u64, total: u64) -> Part {
        Part { first, length, total }
    }

    #[test]
    fn which_206_is_a_part() {
        let check = |range: &str, length: Option<u64>, expected: Option<Part>| {
            let fields = HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_str(range).unwrap())]);
            assert_eq!(Part::from_fields(&fields, length), expected, "{range} {length:?}");
        };
        check("bytes 0-4/10", Some(5), Some(part(0, 5, 10)));
        check("Bytes 5-9/10", Some(5), Some(part(5, 5, 10)));
        check("bytes 0-9/10", Some(10), Some(part(0, 10, 10)));
        check("bytes 4-9/10", Some(5), None);
        check("bytes 0-4/10", None, None);
        for bad in [
            "bytes 0-4/*",
            "bytes */10",
            "bytes 4-0/10",
            "bytes 0-4/4",
            "bytes=0-4/10",
            "lines 0-4/10",
            "bytes +0-4/10",
            "bytes 0-18446744073709551615/10",
            "",
        ] {
            check(bad, Some(5), None);
        }
        let mut two = HeaderMap::new();
        two.append(CONTENT_RANGE, HeaderValue::from_static("bytes 0-4/10"));
        two.append(CONTENT_RANGE, HeaderValue::from_static("bytes 0-4/10"));
        assert_eq!(Part::from_fields(&two, Some(5)), None);
    }

    #[test]
    fn whom_a_part_serves() {
        let check = |asked: &str, expected: Option<Range<u64>>| {
            let request = HeaderMap::from_iter([(RANGE, HeaderValue::from_str(asked).unwrap())]);
            assert_eq!(part(4, 6, 10).serves(&request), expected, "{asked}");
        };
        check("bytes=4-9", Some(4..10));
        check("bytes=6-8", Some(6..9));
        check("bytes=6-", Some(6..10));
        check("bytes=-1", Some(9..10));
        check("bytes=-6", Some(4..10));
        check("bytes=-7", None);
        check("bytes=3-5", None);
        check("bytes=4-5,8-9", None);
        check("bytes=10-", None);
        check("bytes=x", None);
        assert_eq!(part(4, 6, 10).serves(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_missing() {
        let check = |held: Part, expected: Option<Range<u64>>| assert_eq!(held.rest(), expected, "{held:?}");
        check(part(0, 5, 10), Some(5..10));
        check(part(5, 5, 10), Some(0..5));
        check(part(2, 5, 10), None);
        check(part(0, 10, 10), None);
    }

    #[test]
    fn parts_that_touch_make_one() {
        let check = |one: Part, other: Part, expected: Option<(Part, bool, u64)>| {
            let joined = one
                .join(&other)
                .map(|joined| (joined.part, joined.in_front, joined.overlap));
            assert_eq!(joined, expected, "{one:?} {other:?}");
        };
        check(part(0, 5, 10), part(5, 5, 10), Some((part(0, 10, 10), true, 0)));
        check(part(5, 5, 10), part(0, 5, 10), Some((part(0, 10, 10), false, 0)));
        check(part(0, 5, 10), part(3, 4, 10), Some((part(0, 7, 10), true, 2)));
        check(part(0, 8, 10), part(3, 2, 10), Some((part(0, 8, 10), true, 5)));
        check(part(0, 4, 10), part(5, 5, 10), None);
        check(part(0, 5, 10), part(5, 5, 11), None);
        assert!(part(0, 10, 10).is_whole() && !part(0, 9, 10).is_whole());
    }

    #[test]
    fn only_the_same_strong_validator_combines() {
        let check = |one: &str, other: &str, expected: bool| {
            let fields = |tag: &str| HeaderMap::from_iter([(ETAG, HeaderValue::from_str(tag).unwrap())]);
            assert_eq!(
                combinable(&fields(one), &fields(other)),
                expected,
                "{one} {other}"
            );
        };
        check("\"a\"", "\"a\"", true);
        check("\"a\"", "\"b\"", false);
        check("W/\"a\"", "W/\"a\"", false);
        assert!(!combinable(&HeaderMap::new(), &HeaderMap::new()));
    }
}
