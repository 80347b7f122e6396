//! Tags: the names under which responses are purged together, and the fields that carry them.
//!
//! A tag lives in the stored response that carries it; there is no second index that could drift from the store. What
//! a purge of a tag does is `epoch`'s matter.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::structured::{BareItem, List, Member};

/// Tags of one response at most.
pub const TAGS_MAX: usize = 128;

/// Bytes of one tag at most.
pub const TAG_BYTES_MAX: usize = 256;

/// A name under which responses are purged together. Exact: case counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    /// The tag of this text; `None` when it is empty or longer than 256 bytes.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= TAG_BYTES_MAX).then(|| Self(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tags of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tagging {
    /// The first 128 tags, each once.
    pub tags: Box<[Tag]>,
    /// How many more there were, or were longer than 256 bytes: by these it cannot be purged, which the operator
    /// should be told.
    pub excess: usize,
}

/// The tag of a group of a site (RFC 9875). Groups of the same name at two sites are two, so that no site can
/// invalidate what is another's; an operator who purges by the bare name reaches both.
pub fn group(site: &str, name: &str) -> Option<Tag> {
    Tag::new(&format!("group {site} {name}"))
}

/// Reads the tags of a response of `site`: Surrogate-Key, Cache-Tag, Cache-Groups (RFC 9875), and the same two names as
/// S3 user metadata, in this order. A group counts twice, under its name and as [`group`].
pub fn tags(headers: &HeaderMap, site: &str) -> Tagging {
    let mut found = Tagging::default();
    let mut tags = Vec::new();
    let mut take = |tag: Option<Tag>| match tag {
        Some(tag) if tags.contains(&tag) => {}
        Some(tag) if tags.len() < TAGS_MAX => tags.push(tag),
        _ => found.excess += 1,
    };
    for (name, syntax) in TAG_FIELDS {
        for line in headers.get_all(&name) {
            for text in syntax.split(line).iter().filter(|text| !text.is_empty()) {
                take(Tag::new(text));
                if name == CACHE_GROUPS {
                    take(group(site, text));
                }
            }
        }
    }
    found.tags = tags.into_boxed_slice();
    found
}

/// How tags are written in a field.
#[derive(Clone, Copy, Debug)]
enum TagSyntax {
    Commas,
    Spaces,
    Strings,
}

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

const TAG_FIELDS: [(HeaderName, TagSyntax); 5] = [
    (HeaderName::from_static("surrogate-key"), TagSyntax::Spaces),
    (HeaderName::from_static("cache-tag"), TagSyntax::Commas),
    (CACHE_GROUPS, TagSyntax::Strings),
    (
        HeaderName::from_static("x-amz-meta-surrogate-key"),
        TagSyntax::Spaces,
    ),
    (HeaderName::from_static("x-amz-meta-cache-tag"), TagSyntax::Commas),
];

impl TagSyntax {
    fn split(self, line: &HeaderValue) -> Vec<String> {
        let Ok(text) = std::str::from_utf8(line.as_bytes()) else {
            return Vec::new();
        };
        let owned = |tag: &str| tag.trim().to_owned();
        match self {
            Self::Commas => text.split(',').map(owned).collect(),
            Self::Spaces => text.split_ascii_whitespace().map(owned).collect(),
            Self::Strings => List::parse([line])
                .map(|List(members)| members.iter().filter_map(string).collect())
                .unwrap_or_default(),
        }
    }
}

/// The text of a member that is a string.
fn string(member: &Member) -> Option<String> {
    match &member.as_item()?.value {
        BareItem::String(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_from_every_field_that_carries_them() {
        let check = |lines: &[(&'static str, &str)], expected: &[&str], excess: usize| {
            let mut fields = HeaderMap::new();
            for (name, value) in lines {
                fields.append(HeaderName::from_static(name), value.parse().unwrap());
            }
            let found = tags(&fields, "s");
            let texts: Vec<_> = found.tags.iter().map(Tag::as_str).collect();
            assert_eq!((texts.as_slice(), found.excess), (expected, excess), "{lines:?}");
        };
        check(&[], &[], 0);
        check(&[("surrogate-key", " a  b\tc ")], &["a", "b", "c"], 0);
        check(&[("cache-tag", "a b, c,,")], &["a b", "c"], 0);
        check(
            &[("cache-groups", "\"a\", \"b, c\";x=1")],
            &["a", "group s a", "b, c", "group s b, c"],
            0,
        );
        check(&[("cache-groups", "\"a\", b")], &["a", "group s a"], 0);
        check(&[("cache-groups", "\"a")], &[], 0);
        check(&[("x-amz-meta-surrogate-key", "a b")], &["a", "b"], 0);
        check(&[("x-amz-meta-cache-tag", "a, b")], &["a", "b"], 0);
        check(
            &[
                ("cache-tag", "b,a"),
                ("surrogate-key", "a"),
                ("surrogate-key", "c"),
            ],
            &["a", "c", "b"],
            0,
        );
        check(&[("cache-tag", &"x".repeat(TAG_BYTES_MAX + 1))], &[], 1);
        let many: Vec<String> = (0..TAGS_MAX + 3).map(|n| n.to_string()).collect();
        let kept: Vec<&str> = many.iter().take(TAGS_MAX).map(String::as_str).collect();
        check(&[("surrogate-key", &many.join(" "))], &kept, 3);
    }
}
