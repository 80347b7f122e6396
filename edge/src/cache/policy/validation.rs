//! Validation of a stored response: what to ask, and what a 304 changes (RFC 9111 sections 3.2 and 4.3).
//!
//! This is our side towards the origin. What a client's conditional request gets is `representation`'s matter.

use http::header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::hop;

/// The validators of what is stored, as they are asked back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// For If-None-Match: the stored ETags, in a list.
    pub etag: Option<HeaderValue>,
    /// For If-Modified-Since: the stored Last-Modified.
    pub last_modified: Option<HeaderValue>,
}

impl Conditions {
    /// Whether there is nothing to validate with.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// What to ask the origin about the responses stored under a URI (RFC 9111 section 4.3.1): every entity tag, so that a
/// 304 may name any of them; and the date of the one that would be used, where it is the only one.
pub fn conditions<'a>(stored: impl IntoIterator<Item = &'a HeaderMap>) -> Conditions {
    let mut stored = stored.into_iter().peekable();
    let first = stored.next();
    let only = stored.peek().is_none();
    let mut tags: Vec<&HeaderValue> = Vec::new();
    for tag in first
        .into_iter()
        .chain(stored)
        .filter_map(|fields| fields.get(ETAG))
    {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    let etag = match tags.as_slice() {
        [] => None,
        [one] => Some((*one).clone()),
        [..] => {
            let list: Vec<&[u8]> = tags.iter().map(|tag| tag.as_bytes()).collect();
            HeaderValue::from_bytes(&list.join(&b", "[..])).ok()
        }
    };
    Conditions {
        etag,
        last_modified: first
            .filter(|_| only)
            .and_then(|fields| fields.get(LAST_MODIFIED).cloned()),
    }
}

/// What a 304 to our own conditions says of the stored responses that were asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// Nothing that can be relied upon: fetch again without conditions.
    None,
    /// The one at this place still holds; the fields of the 304 are about something else and update nothing.
    Unchanged(usize),
    /// The one at this place still holds, and is to be freshened with the fields of the 304.
    Updated(usize),
}

/// Which of the stored responses `asked` the 304 `answer` is about (RFC 9111 section 4.3.4).
///
/// Strong validators in it name the response to update. Where they name none, no response may be updated; yet where
/// only one was asked about, the origin has said of that one that it did not change, and it can be reused (section
/// 4.3.3).
pub fn confirmed(asked: &[&HeaderMap], answer: &HeaderMap) -> Confirmed {
    let alone = match asked {
        [_] => Confirmed::Unchanged(0),
        _ => Confirmed::None,
    };
    if let Some(tag) = answer.get(ETAG) {
        let named = asked
            .iter()
            .position(|stored| stored.get(ETAG).is_some_and(|own| same_tag(own, tag)));
        return named.map_or(alone, Confirmed::Updated);
    }
    match (answer.get(LAST_MODIFIED), asked) {
        (Some(date), [only]) if only.get(LAST_MODIFIED).is_some_and(|own| own != date) => alone,
        (_, [_]) => Confirmed::Updated(0),
        _ => Confirmed::None,
    }
}

/// What the 200 to a HEAD request says of a stored response with the same length (RFC 9111 section 4.3.5): whether it
/// may be freshened with the fields of `answer`. If not, it is to be considered stale.
pub fn head_updates(stored: &HeaderMap, answer: &HeaderMap) -> bool {
    let same = |name: HeaderName| answer.get(&name).is_none_or(|new| stored.get(&name) == Some(new));
    same(ETAG) && same(LAST_MODIFIED)
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

/// Fields of a 304 that change nothing: they belong to its own framing, or the integrity of the stored content depends
/// on them (section 3.2). A digest speaks of the content it came with, and a 304 has none (RFC 9530 section 2).
fn keeps_stored(name: &HeaderName) -> bool {
    const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
    const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
    [
        CONTENT_DIGEST,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_MD5,
        CONTENT_RANGE,
    ]
    .contains(name)
}

/// Whether the tag in a 304 is that of a stored response: exactly if it is strong, weakly if not (RFC 9110 section
/// 8.8.3.2).
fn same_tag(own: &HeaderValue, new: &HeaderValue) -> bool {
    match is_weak(new) {
        true => opaque(new) == opaque(own),
        false => new == own,
    }
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
    fn what_is_asked_back() {
        let check = |stored: &[&[(&str, &str)]], etag: Option<&str>, date: Option<&str>| {
            let stored: Vec<_> = stored.iter().map(|lines| fields(lines)).collect();
            let expected = Conditions {
                etag: etag.map(|text| text.parse().unwrap()),
                last_modified: date.map(|text| text.parse().unwrap()),
            };
            assert_eq!(conditions(&stored), expected, "{stored:?}");
        };
        let strong: &[_] = &[("etag", "\"a\""), ("last-modified", DAY)];
        let weak: &[_] = &[("etag", "W/\"b\"")];
        let dated: &[_] = &[("last-modified", DAY)];
        check(&[], None, None);
        check(&[&[("x", "y")]], None, None);
        check(&[strong], Some("\"a\""), Some(DAY));
        check(&[dated], None, Some(DAY));
        check(&[strong, weak], Some("\"a\", W/\"b\""), None);
        check(&[strong, strong, dated], Some("\"a\""), None);
        assert!(conditions(&[fields(&[("x", "y")])]).is_empty());
    }

    #[test]
    fn which_stored_response_a_304_is_about() {
        use Confirmed::{None, Unchanged, Updated};
        let check = |stored: &[&[(&str, &str)]], answer: &[(&str, &str)], expected: Confirmed| {
            let stored: Vec<_> = stored.iter().map(|lines| fields(lines)).collect();
            let asked: Vec<_> = stored.iter().collect();
            assert_eq!(
                confirmed(&asked, &fields(answer)),
                expected,
                "{stored:?} {answer:?}"
            );
        };
        let (strong, weak, day) = (("etag", "\"a\""), ("etag", "W/\"a\""), ("last-modified", DAY));
        let other = ("etag", "\"b\"");
        check(&[&[strong]], &[strong], Updated(0));
        check(&[&[strong]], &[other], Unchanged(0));
        check(&[&[strong]], &[weak], Updated(0));
        check(&[&[weak]], &[weak], Updated(0));
        check(&[&[weak]], &[strong], Unchanged(0));
        check(&[&[day]], &[strong, day], Unchanged(0));
        check(
            &[&[strong, day]],
            &[strong, ("last-modified", NEXT_DAY)],
            Updated(0),
        );
        check(&[&[day]], &[day], Updated(0));
        check(&[&[day]], &[("last-modified", NEXT_DAY)], Unchanged(0));
        check(&[&[strong]], &[day], Updated(0));
        check(&[&[strong, day]], &[], Updated(0));
        check(&[&[]], &[], Updated(0));
        // Of several, only the one that is named.
        check(&[&[strong], &[other]], &[other], Updated(1));
        check(&[&[strong], &[other]], &[("etag", "\"c\"")], None);
        check(&[&[strong], &[other]], &[], None);
        check(&[&[strong, day], &[other, day]], &[day], None);
        check(&[], &[strong], None);
    }

    #[test]
    fn what_a_head_request_may_update() {
        let check = |stored: &[(&str, &str)], answer: &[(&str, &str)], expected: bool| {
            let updates = head_updates(&fields(stored), &fields(answer));
            assert_eq!(updates, expected, "{stored:?} {answer:?}");
        };
        let (tag, day) = (("etag", "\"a\""), ("last-modified", DAY));
        check(&[tag, day], &[], true);
        check(&[tag, day], &[day], true);
        check(&[tag, day], &[tag, day], true);
        check(&[tag], &[("etag", "\"b\"")], false);
        check(&[], &[tag], false);
        check(&[tag, day], &[tag, ("last-modified", NEXT_DAY)], false);
        check(&[tag], &[tag, ("x", "1")], true);
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
            "content-md5",
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
