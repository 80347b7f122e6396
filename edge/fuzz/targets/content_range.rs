//! Content-Range of a 206: a part lies inside the whole and is as long as it says, what it serves lies inside of it, and
//! what is missing makes it whole.
#![no_main]

use edge::cache::policy::partial::Part;
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(3, |&byte| byte == b'\n');
    let (Some(first), second, range) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Some(part) = part(first, None) else {
        return;
    };
    assert!(part.length > 0 && part.end() <= part.total);
    // It is read again as the same from how one writes it, and with no other length.
    let written = format!("bytes {}-{}/{}", part.first, part.end() - 1, part.total);
    assert_eq!(self::part(written.as_bytes(), Some(part.length)), Some(part));
    assert_eq!(self::part(written.as_bytes(), Some(part.length - 1)), None);
    if let Some(rest) = part.rest() {
        assert!(!part.is_whole() && rest.start < rest.end && rest.end <= part.total);
        let rest = Part {
            first: rest.start,
            length: rest.end - rest.start,
            total: part.total,
        };
        let joined = part.join(&rest).expect("they touch");
        assert!(joined.part.is_whole() && joined.overlap == 0);
    }
    if let Some(other) = second.and_then(|line| self::part(line, None)) {
        let (one, two) = (part.join(&other), other.join(&part));
        assert_eq!(one.map(|joined| joined.part), two.map(|joined| joined.part));
        if let Some(joined) = one {
            assert!(joined.part.first <= part.first.min(other.first));
            assert_eq!(joined.part.end(), part.end().max(other.end()));
        }
    }
    if let Some(Ok(range)) = range.map(HeaderValue::from_bytes) {
        let request = HeaderMap::from_iter([(header::RANGE, range)]);
        if let Some(served) = part.serves(&request) {
            assert!(part.first <= served.start && served.start < served.end && served.end <= part.end());
        }
    }
});

/// The part that a line says, with the length that it says or with another.
fn part(line: &[u8], length: Option<u64>) -> Option<Part> {
    let fields = HeaderMap::from_iter([(header::CONTENT_RANGE, HeaderValue::from_bytes(line).ok()?)]);
    if length.is_some() {
        return Part::from_fields(&fields, length);
    }
    assert_eq!(
        Part::from_fields(&fields, None),
        None,
        "without a length it is nothing"
    );
    let text = std::str::from_utf8(line).ok()?;
    let (first, rest) = text.split_once(' ')?.1.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, rest.split_once('/')?.0.parse().ok()?);
    Part::from_fields(&fields, Some(last.checked_sub(first)?.checked_add(1)?))
}
