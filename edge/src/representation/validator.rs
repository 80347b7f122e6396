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
