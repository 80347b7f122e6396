//! Validation of a stored response: what to ask, and what a 304 changes (RFC 9111 sections 3.2 and 4.3).
//!
//! This is our side towards the origin. What a client's conditional request gets is `representation`'s matter.

use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::hop;

/// The validators of a stored response, as they are asked back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// For If-None-Match: the stored ETag.
    pub etag: Option<HeaderValue>,
    /// For If-Modified-Since: the stored Last-Modified.
    pub last_modified: Option<HeaderValue>,
}

impl Conditions {
    /// Whether there is nothing to validate with.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Puts the conditions on a request.
    pub fn apply(self, request: &mut HeaderMap) {
        if let Some(etag) = self.etag {
            request.insert(IF_NONE_MATCH, etag);
        }
        if let Some(last_modified) = self.last_modified {
            request.insert(IF_MODIFIED_SINCE, last_modified);
        }
    }
}

/// What to ask the origin about a stored response (RFC 9111 section 4.3.1).
pub fn conditions(stored: &HeaderMap) -> Conditions {
    Conditions {
        etag: stored.get(ETAG).cloned(),
        last_modified: stored.get(LAST_MODIFIED).cloned(),
    }
}

/// Whether the 304 `answer` to our own conditions is about the stored response (RFC 9111 section 4.3.4).
///
/// If not, it must not be used: fetch again without conditions. A 304 without any validator answers the validators
/// that we sent, which are those of this one stored response.
pub fn selects(stored: &HeaderMap, answer: &HeaderMap) -> bool {
    if let Some(new) = answer.get(ETAG) {
        let Some(old) = stored.get(ETAG) else {
            return false;
        };
        return if is_weak(new) {
            opaque(new) == opaque(old)
        } else {
            new == old
        };
    }
    match answer.get(LAST_MODIFIED) {
        Some(new) => stored.get(LAST_MODIFIED).is_none_or(|old| old == new),
        None => true,
    }
}

/// The stored fields after the 304 `answer` has freshened them (RFC 9111 section 3.2).
///
/// Every field of the answer replaces the stored one, but for those that are never stored and those that say how the
/// stored content is framed or coded. Age and Date of the old response go in any case: they would make it older than
/// its validation. What a qualified `private` or `no-cache` names still has to go: see
/// [`stored_fields`](super::storability::stored_fields).
pub fn freshen(stored: &HeaderMap, answer: &HeaderMap) -> HeaderMap {
    let mut fresh = stored.clone();
    fresh.remove(AGE);
    fresh.remove(DATE);
    let mut answer = answer.clone();
    hop::remove(&mut answer);
    for name in answer.keys() {
        if keeps_stored(name) || (name == ETAG && stored.contains_key(ETAG)) {
            continue;
        }
        fresh.remove(name);
        for value in answer.get_all(name) {
            fresh.append(name.clone(), value.clone());
        }
    }
    fresh
}

/// Fields of a 304 that change nothing: they belong to its own framing, or the stored content depends on them. A Content-Digest speaks of the content it came with, and a 304 has none.
fn keeps_stored(name: &HeaderName) -> bool {
    const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
    [CONTENT_DIGEST, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE].contains(name)
}

fn is_weak(etag: &HeaderValue) -> bool {
    etag.as_bytes().starts_with(b"W/")
}

/// An entity tag without its weakness (RFC 9110 section 8.8.3.2: weak comparison).
fn opaque(etag: &HeaderValue) -> &[u8] {
    let bytes = etag.as_bytes();
    bytes.strip_prefix(b"W/").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        fields
    }

    const DAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEXT_DAY: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

    #[test]
    fn both_validators_are_asked_back() {
        let mut request = HeaderMap::new();
        conditions(&fields(&[("etag", "W/\"a\""), ("last-modified", DAY)])).apply(&mut request);
        assert_eq!(
            request,
            fields(&[("if-none-match", "W/\"a\""), ("if-modified-since", DAY)])
        );
        assert!(conditions(&fields(&[("x", "y")])).is_empty());
    }

    #[test]
    fn which_304_is_about_the_stored_response() {
        let check = |stored: &[(&str, &str)], answer: &[(&str, &str)], expected: bool| {
            assert_eq!(
                selects(&fields(stored), &fields(answer)),
                expected,
                "{stored:?} {answer:?}"
            );
        };
        let strong = ("etag", "\"a\"");
        let weak = ("etag", "W/\"a\"");
        let day = ("last-modified", DAY);
        check(&[strong], &[strong], true);
        check(&[strong], &[("etag", "\"b\"")], false);
        check(&[strong], &[weak], true);
        check(&[weak], &[weak], true);
        check(&[weak], &[("etag", "W/\"b\"")], false);
        check(&[weak], &[strong], false);
        check(&[day], &[strong, day], false);
        check(&[strong, day], &[strong, ("last-modified", NEXT_DAY)], true);
        check(&[day], &[day], true);
        check(&[day], &[("last-modified", NEXT_DAY)], false);
        check(&[strong], &[day], true);
        check(&[strong, day], &[], true);
        check(&[], &[], true);
    }

    #[test]
    fn freshening() {
        let check = |stored: &[(&str, &str)], answer: &[(&str, &str)], expected: &[(&str, &str)]| {
            assert_eq!(
                freshen(&fields(stored), &fields(answer)),
                fields(expected),
                "{answer:?}"
            );
        };
        check(&[("a", "1")], &[("a", "2")], &[("a", "2")]);
        check(&[("a", "1"), ("a", "2")], &[("a", "3")], &[("a", "3")]);
        check(
            &[("a", "1")],
            &[("a", "3"), ("a", "4")],
            &[("a", "3"), ("a", "4")],
        );
        check(&[("a", "1")], &[("b", "2")], &[("a", "1"), ("b", "2")]);
        for kept in [
            "content-length",
            "content-encoding",
            "content-range",
            "content-digest",
            "etag",
        ] {
            check(&[(kept, "1")], &[(kept, "2")], &[(kept, "1")]);
        }
        for kept_out in [
            "content-length",
            "content-encoding",
            "content-range",
            "connection",
            "transfer-encoding",
        ] {
            check(&[("a", "1")], &[(kept_out, "2")], &[("a", "1")]);
        }
        check(
            &[("x-hop", "1")],
            &[("connection", "x-hop"), ("x-hop", "2")],
            &[("x-hop", "1")],
        );
        check(
            &[("a", "1")],
            &[("etag", "\"x\"")],
            &[("a", "1"), ("etag", "\"x\"")],
        );
        for updated in [
            "content-type",
            "cache-control",
            "expires",
            "last-modified",
            "vary",
            "content-location",
        ] {
            check(&[(updated, "1")], &[(updated, "2")], &[(updated, "2")]);
        }
        check(
            &[("age", "100"), ("date", DAY)],
            &[("date", NEXT_DAY)],
            &[("date", NEXT_DAY)],
        );
        check(&[("age", "100")], &[("age", "3")], &[("age", "3")]);
        check(&[("age", "100"), ("date", DAY), ("a", "1")], &[], &[("a", "1")]);
    }
}
