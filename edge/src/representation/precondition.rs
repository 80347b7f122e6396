//! Conditional requests (RFC 9110, section 13), in the order of 13.2.2.
//!
//! It is asked once the response that would be sent is known and is a 200; whether there is one, and what a 412 or a 304
//! look like, is the exchange's.

use http::Method;
use http::header::{self, HeaderMap, HeaderValue};

use super::validator::{self, ETag, TagList};
use crate::clock::Timestamp;
use crate::fields::dates;

/// The selected representation, as far as conditions ask about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Current<'a> {
    /// The tag of the form that would be sent.
    pub etag: Option<&'a HeaderValue>,
    /// The tag of the uncoded form, from which the tags of all forms are made; equal to `etag` when nothing is coded.
    pub base: Option<&'a HeaderValue>,
    /// The suffixes of the coded forms there may be ([`super::encoder::SUFFIXES`]).
    pub suffixes: &'a [&'a str],
    /// When it was last modified. For a stored response without `Last-Modified` the cache may give its `Date`
    /// (RFC 9111, 4.3.2).
    pub last_modified: Option<Timestamp>,
}

/// What the conditions ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A condition does not hold: 412.
    Failed,
    /// The client holds it already: 304, with this entity tag. It is the tag of the form the client holds, so that the
    /// client's cache finds what the 304 is about.
    NotModified(Option<HeaderValue>),
    /// Answer as if nothing had been asked.
    Proceed,
}

/// Evaluates the conditions of a request in the order of RFC 9110, 13.2.2. `If-Range` is not among them: see [`if_range`].
///
/// `If-Match` compares strongly with the form that would be sent and no other: whoever asks it wants these very bytes.
/// `If-None-Match` compares weakly with every form, since any of them stands for the same content.
pub fn evaluate(method: &Method, request: &HeaderMap, current: &Current<'_>) -> Outcome {
    let safe = matches!(*method, Method::GET | Method::HEAD);
    if !may_act(request, current) {
        return Outcome::Failed;
    }
    if let Some(list) = TagList::parse(request.get_all(header::IF_NONE_MATCH)) {
        return match none_match(&list, current) {
            None => Outcome::Proceed,
            Some(etag) if safe => Outcome::NotModified(etag),
            Some(_) => Outcome::Failed,
        };
    }
    if safe && unmodified_since(request, header::IF_MODIFIED_SINCE, current) == Some(true) {
        return Outcome::NotModified(current.etag.cloned());
    }
    Outcome::Proceed
}

/// Whether the `Range` of a request may be obeyed: there is no `If-Range`, or its validator is that of the form that would
/// be sent (RFC 9110, 13.1.5). `date` is the `Date` of the stored response: a date validates only when it lies a second or
/// more before that (8.8.2.2).
pub fn if_range(
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<Timestamp>,
    date: Option<Timestamp>,
) -> bool {
    let mut values = request.get_all(header::IF_RANGE).iter();
    let Some(value) = values.next() else {
        return true;
    };
    if values.next().is_some() {
        return false;
    }
    if let Some(asked) = ETag::parse(value) {
        return etag.and_then(ETag::parse).is_some_and(|own| own.strong_eq(asked));
    }
    let (Some(asked), Some(modified), Some(date)) = (dates::parse(value), last_modified, date) else {
        return false;
    };
    asked.unix_seconds() == modified.unix_seconds() && modified.unix_seconds() < date.unix_seconds()
}

/// `If-Match`, or in its absence `If-Unmodified-Since` (steps 1 and 2).
fn may_act(request: &HeaderMap, current: &Current<'_>) -> bool {
    if let Some(list) = TagList::parse(request.get_all(header::IF_MATCH)) {
        let own = current.etag.and_then(ETag::parse);
        return list.is_any() || own.is_some_and(|own| list.matches_strongly(own));
    }
    unmodified_since(request, header::IF_UNMODIFIED_SINCE, current) != Some(false)
}

/// The tag of the form that the client holds; `None` when it holds none of ours.
fn none_match(list: &TagList<'_>, current: &Current<'_>) -> Option<Option<HeaderValue>> {
    let own = current.etag.and_then(ETag::parse);
    if list.is_any() || own.is_some_and(|own| list.matches_weakly(own)) {
        return Some(current.etag.cloned());
    }
    validator::matching_form(list, current.base?, current.suffixes).map(Some)
}

/// Whether nothing changed since the date in `field`; `None` when either date is missing or cannot be read, for then the
/// field is ignored (RFC 9110, 13.1.3 and 13.1.4).
fn unmodified_since(request: &HeaderMap, field: header::HeaderName, current: &Current<'_>) -> Option<bool> {
    let asked = dates::parse_only(request.get_all(field))?;
    Some(current.last_modified?.unix_seconds() <= asked.unix_seconds())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    fn request(fields: &[(&'static str, &str)]) -> HeaderMap {
        let fields = fields.iter();
        fields
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    /// The br11 form of `"abc"` would be sent.
    #[track_caller]
    fn check_method(method: &Method, fields: &[(&'static str, &str)], expected: &Outcome) {
        let (etag, base) = (
            HeaderValue::from_static("\"abc-br11\""),
            HeaderValue::from_static("\"abc\""),
        );
        let current = Current {
            etag: Some(&etag),
            base: Some(&base),
            suffixes: &["br11", "br5b", "gzip6"],
            last_modified: dates::parse_str(MODIFIED),
        };
        assert_eq!(
            evaluate(method, &request(fields), &current),
            *expected,
            "{fields:?}"
        );
    }

    #[track_caller]
    fn check(fields: &[(&'static str, &str)], expected: &Outcome) {
        check_method(&Method::GET, fields, expected);
        check_method(&Method::HEAD, fields, expected);
    }

    fn held(etag: &'static str) -> Outcome {
        Outcome::NotModified(Some(HeaderValue::from_static(etag)))
    }

    #[test]
    fn nothing_asked() {
        check(&[], &Outcome::Proceed);
        check(
            &[("range", "bytes=0-1"), ("if-range", "\"x\"")],
            &Outcome::Proceed,
        );
    }

    #[test]
    fn if_match_holds_for_the_form_that_would_be_sent_alone() {
        check(&[("if-match", "\"abc-br11\"")], &Outcome::Proceed);
        check(&[("if-match", "\"x\", \"abc-br11\"")], &Outcome::Proceed);
        check(&[("if-match", "*")], &Outcome::Proceed);
        check(&[("if-match", "\"abc\"")], &Outcome::Failed);
        check(&[("if-match", "\"abc-br5b\"")], &Outcome::Failed);
        check(&[("if-match", "W/\"abc-br11\"")], &Outcome::Failed);
        check(&[("if-match", "")], &Outcome::Failed);
    }

    #[test]
    fn if_unmodified_since() {
        check(&[("if-unmodified-since", BEFORE)], &Outcome::Failed);
        check(&[("if-unmodified-since", MODIFIED)], &Outcome::Proceed);
        check(&[("if-unmodified-since", AFTER)], &Outcome::Proceed);
        check(&[("if-unmodified-since", "yesterday")], &Outcome::Proceed);
    }

    #[test]
    fn if_none_match_holds_back_any_form_and_names_the_one_the_client_has() {
        check(&[("if-none-match", "\"abc-br11\"")], &held("\"abc-br11\""));
        check(&[("if-none-match", "W/\"abc-br11\"")], &held("\"abc-br11\""));
        check(&[("if-none-match", "\"abc\"")], &held("\"abc\""));
        check(
            &[("if-none-match", "\"x\", \"abc-gzip6\"")],
            &held("\"abc-gzip6\""),
        );
        check(
            &[
                ("if-none-match", "\"abc-gzip6\""),
                ("if-none-match", "\"abc-br11\""),
            ],
            &held("\"abc-br11\""),
        );
        check(&[("if-none-match", "*")], &held("\"abc-br11\""));
        check(&[("if-none-match", "\"x\"")], &Outcome::Proceed);
        check(&[("if-none-match", "")], &Outcome::Proceed);
    }

    #[test]
    fn if_modified_since() {
        check(&[("if-modified-since", BEFORE)], &Outcome::Proceed);
        check(&[("if-modified-since", MODIFIED)], &held("\"abc-br11\""));
        check(&[("if-modified-since", AFTER)], &held("\"abc-br11\""));
        check(&[("if-modified-since", "0")], &Outcome::Proceed);
        check(
            &[("if-modified-since", AFTER), ("if-modified-since", AFTER)],
            &Outcome::Proceed,
        );
    }

    #[test]
    fn tags_overrule_dates_and_the_first_step_comes_first() {
        check(
            &[("if-none-match", "\"x\""), ("if-modified-since", AFTER)],
            &Outcome::Proceed,
        );
        check(
            &[("if-none-match", "\"abc\""), ("if-modified-since", BEFORE)],
            &held("\"abc\""),
        );
        check(
            &[("if-match", "\"abc-br11\""), ("if-unmodified-since", BEFORE)],
            &Outcome::Proceed,
        );
        check(
            &[("if-match", "\"x\""), ("if-none-match", "\"abc\"")],
            &Outcome::Failed,
        );
        check(
            &[("if-match", "*"), ("if-none-match", "\"abc\"")],
            &held("\"abc\""),
        );
    }

    #[test]
    fn other_methods_never_get_a_304() {
        check_method(&Method::PUT, &[("if-none-match", "\"abc\"")], &Outcome::Failed);
        check_method(&Method::PUT, &[("if-modified-since", AFTER)], &Outcome::Proceed);
        check_method(&Method::PUT, &[("if-match", "\"x\"")], &Outcome::Failed);
    }

    #[test]
    fn a_response_without_validators() {
        let none = Current::default();
        let check = |fields: &[(&'static str, &str)], expected: Outcome| {
            assert_eq!(
                evaluate(&Method::GET, &request(fields), &none),
                expected,
                "{fields:?}"
            );
        };
        check(&[("if-match", "\"a\"")], Outcome::Failed);
        check(&[("if-match", "*")], Outcome::Proceed);
        check(&[("if-none-match", "\"a\"")], Outcome::Proceed);
        check(&[("if-none-match", "*")], Outcome::NotModified(None));
        check(&[("if-modified-since", AFTER)], Outcome::Proceed);
        check(&[("if-unmodified-since", BEFORE)], Outcome::Proceed);
    }

    #[test]
    fn if_range_takes_only_the_very_same_bytes() {
        let check =
            |fields: &[(&'static str, &str)], etag: Option<&'static str>, date: Option<&str>, expected| {
                let etag = etag.map(HeaderValue::from_static);
                let date = date.and_then(dates::parse_str);
                let modified = dates::parse_str(MODIFIED);
                assert_eq!(
                    if_range(&request(fields), etag.as_ref(), modified, date),
                    expected,
                    "{fields:?}"
                );
            };
        check(&[], None, None, true);
        check(&[("if-range", "\"a\"")], Some("\"a\""), None, true);
        check(&[("if-range", "\"b\"")], Some("\"a\""), None, false);
        check(&[("if-range", "W/\"a\"")], Some("\"a\""), None, false);
        check(&[("if-range", "\"a\"")], Some("W/\"a\""), None, false);
        check(&[("if-range", "\"a\"")], None, None, false);
        check(&[("if-range", "\"a\", \"b\"")], Some("\"a\""), None, false);
        check(
            &[("if-range", "\"a\""), ("if-range", "\"a\"")],
            Some("\"a\""),
            None,
            false,
        );
        check(&[("if-range", "*")], Some("\"a\""), None, false);
        check(&[("if-range", MODIFIED)], None, Some(AFTER), true);
        check(&[("if-range", MODIFIED)], None, Some(MODIFIED), false);
        check(&[("if-range", MODIFIED)], None, None, false);
        check(&[("if-range", AFTER)], None, Some(AFTER), false);
        check(&[("if-range", BEFORE)], None, Some(AFTER), false);
    }
}
