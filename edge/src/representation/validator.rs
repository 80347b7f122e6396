//! Validators (RFC 9110, 8.8): entity tags, and the tags of the coded forms of one stored response.
//!
//! Each coding of a stored response has its own strong entity tag, made from the tag of the uncoded form and a suffix that
//! names the coding and its level, so that it is equal on every node: `"abc"` coded by brotli at level 11 is `"abc-br11"`.
//! Read backwards, the suffix lets a client that holds any form have its copy confirmed.

use http::header::{self, HeaderMap, HeaderValue};

use crate::clock::Timestamp;
use crate::fields::{dates, lists};

/// An entity tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ETag<'a> {
    /// Whether it is marked `W/`.
    pub weak: bool,
    /// What stands between the quotation marks.
    pub opaque: &'a [u8],
}

impl<'a> ETag<'a> {
    /// The tag that `value` is, whole.
    pub fn parse(value: &'a HeaderValue) -> Option<Self> {
        let (tag, rest) = Self::take(lists::trim_ows(value.as_bytes()))?;
        rest.is_empty().then_some(tag)
    }

    /// Strong comparison: both strong, and the same (RFC 9110, 8.8.3.2).
    pub fn strong_eq(self, other: ETag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Weak comparison: the same, whatever their strength (RFC 9110, 8.8.3.2).
    pub fn weak_eq(self, other: ETag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// Reads a tag from the front of `text`. There is no escape within a tag: a backslash is itself.
    fn take(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|&byte| byte == b'"')?;
        let (opaque, rest) = inner.split_at_checked(end)?;
        let valid = opaque.iter().all(|&byte| byte > b' ' && byte != 0x7f);
        valid.then_some((Self { weak, opaque }, rest.get(1..)?))
    }
}

/// What identifies the state of a stored response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag, kept only if it is one.
    pub etag: Option<HeaderValue>,
    /// The time of the last modification.
    pub last_modified: Option<Timestamp>,
}

impl Validators {
    /// The validators among `fields`. A field that comes twice or cannot be read validates nothing.
    pub fn from_fields(fields: &HeaderMap) -> Self {
        let mut tags = fields.get_all(header::ETAG).iter();
        let etag = match (tags.next(), tags.next()) {
            (Some(only), None) => ETag::parse(only).is_some().then(|| only.clone()),
            _ => None,
        };
        Self {
            etag,
            last_modified: dates::parse_only(fields.get_all(header::LAST_MODIFIED)),
        }
    }

    /// Whether there is nothing to validate with.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// The value of `If-Match` or `If-None-Match`: `*`, or any number of tags.
///
/// Members that are no tags are passed over; `*` counts only when it stands alone. The work is linear in the length of the
/// field, which the limits on a request bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagList<'a> {
    any: bool,
    tags: Vec<ETag<'a>>,
}

impl<'a> TagList<'a> {
    /// Reads the list from all its field lines; `None` when there is no line.
    pub fn parse(values: impl IntoIterator<Item = &'a HeaderValue>) -> Option<Self> {
        let (mut lines, mut stars) = (0_usize, 0_usize);
        let mut tags = Vec::new();
        for value in values {
            lines += 1;
            let mut rest = value.as_bytes();
            loop {
                while let [b' ' | b'\t' | b',', more @ ..] = rest {
                    rest = more;
                }
                if rest.is_empty() {
                    break;
                }
                rest = if let Some((tag, more)) = ETag::take(rest).filter(|(_, more)| ends_member(more)) {
                    tags.push(tag);
                    more
                } else {
                    if rest.strip_prefix(b"*").is_some_and(ends_member) {
                        stars += 1;
                    }
                    skip_member(rest)
                };
            }
        }
        (lines > 0).then_some(Self {
            any: stars == 1 && tags.is_empty(),
            tags,
        })
    }

    /// Whether it says `*`.
    pub fn is_any(&self) -> bool {
        self.any
    }

    /// The tags, in order.
    pub fn tags(&self) -> &[ETag<'a>] {
        &self.tags
    }

    /// Whether it says `*`, or lists a tag that equals `etag` by strong comparison.
    pub fn matches_strongly(&self, etag: ETag<'_>) -> bool {
        self.any || self.tags.iter().any(|tag| tag.strong_eq(etag))
    }

    /// Whether it says `*`, or lists a tag that equals `etag` by weak comparison.
    pub fn matches_weakly(&self, etag: ETag<'_>) -> bool {
        self.any || self.tags.iter().any(|tag| tag.weak_eq(etag))
    }
}

/// The tag of the form of `base` that `suffix` names; weak stays weak. An empty suffix gives `base` itself. `None` when
/// `base` is not an entity tag or `suffix` cannot stand in one.
pub fn coded_etag(base: &HeaderValue, suffix: &str) -> Option<HeaderValue> {
    let tag = ETag::parse(base)?;
    if suffix.is_empty() {
        return Some(base.clone());
    }
    let suffix_fits = suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let mut coded = Vec::with_capacity(base.len() + suffix.len() + 1);
    coded.extend_from_slice(if tag.weak { b"W/\"" } else { b"\"" });
    coded.extend_from_slice(tag.opaque);
    coded.push(b'-');
    coded.extend_from_slice(suffix.as_bytes());
    coded.push(b'"');
    suffix_fits
        .then(|| HeaderValue::from_maybe_shared(coded).ok())
        .flatten()
}

/// Whether `list` holds any form of `base`: the uncoded one, or one that `suffixes` name. By weak comparison, as
/// `If-None-Match` asks (RFC 9110, 13.1.2).
pub fn matches_any_form(list: &TagList<'_>, base: &HeaderValue, suffixes: &[&str]) -> bool {
    list.any || matching_form(list, base, suffixes).is_some()
}

/// The entity tag of the first form of `base` that `list` holds by name (`*` names none). A 304 carries this tag and not
/// that of the form we would have sent: a strong tag that the client does not hold updates nothing it has
/// (RFC 9111, 4.3.4).
pub fn matching_form(list: &TagList<'_>, base: &HeaderValue, suffixes: &[&str]) -> Option<HeaderValue> {
    let own = ETag::parse(base)?;
    list.tags.iter().find_map(|tag| {
        let rest = tag.opaque.strip_prefix(own.opaque)?;
        if rest.is_empty() {
            return Some(base.clone());
        }
        let named = rest.strip_prefix(b"-")?;
        let suffix = suffixes
            .iter()
            .find(|suffix| !suffix.is_empty() && suffix.as_bytes() == named)?;
        coded_etag(base, suffix)
    })
}

fn ends_member(rest: &[u8]) -> bool {
    matches!(lists::trim_ows(rest), [] | [b',', ..])
}

/// What follows the next comma. A malformed member may hold an odd quotation mark, so none is honoured here.
fn skip_member(rest: &[u8]) -> &[u8] {
    let comma = rest.iter().position(|&byte| byte == b',');
    comma.and_then(|at| rest.get(at + 1..)).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_bytes(text.as_bytes()).unwrap()
    }

    const SUFFIXES: [&str; 4] = ["br11", "br5b", "gzip6", "zstd3"];

    #[test]
    fn tags_are_read_whole_or_not_at_all() {
        let check = |text: &str, expected: Option<(bool, &str)>| {
            let value = value(text);
            let read = ETag::parse(&value).map(|tag| (tag.weak, std::str::from_utf8(tag.opaque).unwrap()));
            assert_eq!(read, expected, "{text}");
        };
        check("\"abc\"", Some((false, "abc")));
        check("W/\"abc\"", Some((true, "abc")));
        check("\"\"", Some((false, "")));
        check("\"a\\\"", Some((false, "a\\")));
        check("\"a,b\"", Some((false, "a,b")));
        check("\"ü\"", Some((false, "ü")));
        for text in [
            "abc",
            "\"abc",
            "abc\"",
            "w/\"abc\"",
            "W/abc",
            "\"a b\"",
            "\"a\"b",
            "\"a\", \"b\"",
            "",
            "*",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn strong_and_weak_comparison() {
        // The table of RFC 9110, 8.8.3.2.
        for (one, other, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            let (one, other) = (value(one), value(other));
            let (one, other) = (ETag::parse(&one).unwrap(), ETag::parse(&other).unwrap());
            assert_eq!((one.strong_eq(other), one.weak_eq(other)), (strong, weak));
        }
    }

    #[test]
    fn lists_of_tags() {
        let check = |lines: &[&str], any: bool, expected: &[&str]| {
            let values: Vec<_> = lines.iter().map(|line| value(line)).collect();
            let list = TagList::parse(&values).unwrap();
            let tags: Vec<_> = list
                .tags()
                .iter()
                .map(|tag| std::str::from_utf8(tag.opaque).unwrap())
                .collect();
            assert_eq!((list.is_any(), tags.as_slice()), (any, expected), "{lines:?}");
        };
        check(&["*"], true, &[]);
        check(&[" * "], true, &[]);
        check(&["*, \"a\""], false, &["a"]);
        check(&["*", "*"], false, &[]);
        check(&["\"a\", W/\"b,c\" ,, \"d\""], false, &["a", "b,c", "d"]);
        check(&["\"a\"", "\"b\""], false, &["a", "b"]);
        check(&["\"a\\\", \"b\""], false, &["a\\", "b"]);
        check(&["bare, \"b\""], false, &["b"]);
        check(&["\"a\" x, \"b\""], false, &["b"]);
        check(&["\"open, \"b\""], false, &["b"]);
        check(&[""], false, &[]);
        assert_eq!(TagList::parse([]), None);
    }

    #[test]
    fn the_tag_of_a_coded_form() {
        let check = |base: &str, suffix: &str, expected: Option<&str>| {
            assert_eq!(
                coded_etag(&value(base), suffix),
                expected.map(value),
                "{base} {suffix}"
            );
        };
        check("\"abc\"", "br11", Some("\"abc-br11\""));
        check("W/\"abc\"", "gzip6", Some("W/\"abc-gzip6\""));
        check("\"abc\"", "", Some("\"abc\""));
        check("\"\"", "br5b", Some("\"-br5b\""));
        check("abc", "br5b", None);
        check("\"abc\"", "a\"b", None);
    }

    #[test]
    fn any_form_the_client_holds_is_the_same_response() {
        let check = |list: &str, base: &str, expected: Option<&str>| {
            let (list, base) = (value(list), value(base));
            let list = TagList::parse([&list]).unwrap();
            assert_eq!(matching_form(&list, &base, &SUFFIXES), expected.map(value));
            assert_eq!(matches_any_form(&list, &base, &SUFFIXES), expected.is_some());
        };
        check("\"abc\"", "\"abc\"", Some("\"abc\""));
        check("W/\"abc-br5b\"", "\"abc\"", Some("\"abc-br5b\""));
        check("\"x\", \"abc-zstd3\"", "W/\"abc\"", Some("W/\"abc-zstd3\""));
        check("\"abc-br4\"", "\"abc\"", None);
        check("\"abc-\"", "\"abc\"", None);
        check("\"abcbr5b\"", "\"abc\"", None);
        check("\"ab\"", "\"abc\"", None);
        check("\"abc-br5b-br5b\"", "\"abc\"", None);
        check("\"abc\"", "broken", None);
        let star = value("*");
        assert!(matches_any_form(
            &TagList::parse([&star]).unwrap(),
            &value("\"abc\""),
            &[]
        ));
    }

    #[test]
    fn validators_of_a_response() {
        let mut fields = HeaderMap::new();
        assert!(Validators::from_fields(&fields).is_empty());
        fields.insert("etag", value("\"a\""));
        fields.insert("last-modified", value("Sun, 06 Nov 1994 08:49:37 GMT"));
        let read = Validators::from_fields(&fields);
        assert_eq!(read.etag, Some(value("\"a\"")));
        assert_eq!(
            read.last_modified,
            Some(Timestamp::from_unix_seconds(784_111_777))
        );
        fields.append("etag", value("\"b\""));
        assert_eq!(Validators::from_fields(&fields).etag, None);
        fields.insert("etag", value("unquoted"));
        assert_eq!(Validators::from_fields(&fields).etag, None);
    }

    proptest! {
        #[test]
        fn a_listed_form_is_found_among_anything(
            before in "[a-z\"*,W/ \\\\-]{0,20}",
            opaque in "[!#-~]{0,12}",
            weak: bool,
            form in 0..SUFFIXES.len(),
        ) {
            let base = value(&format!("{}\"{opaque}\"", if weak { "W/" } else { "" }));
            let held = coded_etag(&base, SUFFIXES[form]).unwrap();
            let lines = [value(&before), held.clone()];
            let list = TagList::parse(&lines).unwrap();
            prop_assert!(matches_any_form(&list, &base, &SUFFIXES));
            prop_assert!(ETag::parse(&held).is_some());
            prop_assert!(!list.is_any());
        }
    }
}
