//! Which request fields a stored response depends on, and whether another request matches them (RFC 9111 section 4.1).
//!
//! Accept-Encoding takes no part: codings are negotiated here, on one stored response.
//!
//! Values are compared after what section 4.1 allows: lines joined, white space around them and around commas taken
//! away; and for the Accept family, whose lists are known to be case-insensitive and unordered, in lowercase, without
//! inner white space, sorted. Nothing else is folded in a field whose syntax is not known here.

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::storability::NotStored;
use crate::fields::lists::Members;

/// At most so many request fields; beyond, the response is not stored.
pub const FIELDS_MAX: usize = 8;

/// A field's value, normalised, is at most so long; beyond, the response is not stored.
pub const VALUE_BYTES_MAX: usize = 512;

/// What a response's Vary says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// `*`, or something that cannot be read: it matches no other request.
    Any,
    /// It depends on these fields.
    Key(VaryKey),
    /// It depends on nothing.
    None,
    /// It depends on more than is kept.
    TooWide,
}

impl Vary {
    /// What to store beside the response; `None` when it depends on nothing.
    pub fn stored(self) -> Result<Option<VaryKey>, NotStored> {
        match self {
            Self::Any => Err(NotStored::VaryStar),
            Self::Key(key) => Ok(Some(key)),
            Self::None => Ok(None),
            Self::TooWide => Err(NotStored::VaryTooWide),
        }
    }
}

/// The request fields that a stored response depends on, with their values: none for a field that was absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaryKey(Box<[(HeaderName, Value)]>);

/// A field's value, normalised; `None` when it is absent.
type Value = Option<Box<[u8]>>;

impl VaryKey {
    /// Whether a request with these fields may be answered with the stored response.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0
            .iter()
            .all(|(name, value)| match (value, request.contains_key(name)) {
                (None, present) => !present,
                (Some(_), false) => false,
                (Some(value), true) => normalised(name, request).as_deref() == Some(&**value),
            })
    }

    /// The names of the fields, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The fields with their normalised values, for a store that writes them down.
    pub fn fields(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// What [`VaryKey::fields`] gave.
    pub fn of_fields(fields: Vec<(HeaderName, Option<Box<[u8]>>)>) -> Self {
        Self(fields.into())
    }

    /// The fields with their values as they are compared, for people to read.
    pub fn shown(&self) -> impl Iterator<Item = (&HeaderName, Option<String>)> {
        self.0.iter().map(|(name, value)| {
            let text = value
                .as_deref()
                .map(|value| String::from_utf8_lossy(value).into_owned());
            (name, text)
        })
    }

    /// The bytes that this takes up, about.
    pub fn size(&self) -> usize {
        self.0
            .iter()
            .map(|(name, value)| 64 + name.as_str().len() + value.as_ref().map_or(0, |value| value.len()))
            .sum()
    }
}

/// What a response with the fields `headers` to a request with the fields `request` depends on, but for `ignored`.
pub fn vary(headers: &HeaderMap, request: &HeaderMap, ignored: &[HeaderName]) -> Vary {
    let Ok(names) = nominated(headers, ignored) else {
        return Vary::Any;
    };
    if names.is_empty() {
        return Vary::None;
    }
    if names.len() > FIELDS_MAX {
        return Vary::TooWide;
    }
    let fields: Box<[_]> = names
        .into_iter()
        .map(|name| {
            let value = normalised(&name, request);
            (name, value.map(Vec::into_boxed_slice))
        })
        .collect();
    let too_long =
        |value: &Option<Box<[u8]>>| value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX);
    if fields.iter().any(|(_, value)| too_long(value)) {
        return Vary::TooWide;
    }
    Vary::Key(VaryKey(fields))
}

/// Whether a line of Vary has a member `*`.
pub(super) fn is_star(line: &HeaderValue) -> bool {
    members(line).any(|member| member == b"*")
}

/// Vary holds `*` or something that is not a field name.
struct Unreadable;

/// The fields that Vary names, sorted, each once.
fn nominated(headers: &HeaderMap, ignored: &[HeaderName]) -> Result<Vec<HeaderName>, Unreadable> {
    let mut names = Vec::new();
    for member in headers.get_all(VARY).iter().flat_map(members) {
        // `*` is a token too, so it has to be told apart.
        let name = HeaderName::from_bytes(member).ok().filter(|name| name != "*");
        let name = name.ok_or(Unreadable)?;
        if name != ACCEPT_ENCODING && !ignored.contains(&name) {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Ok(names)
}

/// The members of one line of a list.
fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    Members::new(line.as_bytes())
}

/// The value of a request field, for comparison; `None` when it is absent.
fn normalised(name: &HeaderName, request: &HeaderMap) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    let mut lines = request.get_all(name).iter().peekable();
    lines.peek()?;
    for (at, line) in lines.enumerate() {
        if at > 0 {
            joined.push(b',');
        }
        push_tight(&mut joined, line.as_bytes());
    }
    let unordered = name == ACCEPT || name == ACCEPT_LANGUAGE || name == "accept-charset";
    // A quoted parameter of Accept may hold commas and spaces that mean something.
    Some(if unordered && !joined.contains(&b'"') {
        sorted_list(&joined)
    } else {
        joined
    })
}

/// Adds a line without the white space at its ends and around its commas; as it is where quotes may hold a comma.
fn push_tight(joined: &mut Vec<u8>, line: &[u8]) {
    if line.contains(&b'"') {
        joined.extend_from_slice(line.trim_ascii());
        return;
    }
    for (at, part) in line.split(|byte| *byte == b',').enumerate() {
        if at > 0 {
            joined.push(b',');
        }
        joined.extend_from_slice(part.trim_ascii());
    }
}

/// A list of case-insensitive, unordered members in one spelling.
fn sorted_list(list: &[u8]) -> Vec<u8> {
    let mut members: Vec<Vec<u8>> = list
        .split(|byte| *byte == b',')
        .map(|member| {
            member
                .iter()
                .filter(|byte| !byte.is_ascii_whitespace())
                .map(u8::to_ascii_lowercase)
                .collect::<Vec<u8>>()
        })
        .filter(|member| !member.is_empty())
        .collect();
    members.sort_unstable();
    members.join(&b","[..])
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

    fn of(nominated: &str, request: &[(&str, &str)]) -> Vary {
        vary(&fields(&[("vary", nominated)]), &fields(request), &[])
    }

    #[test]
    fn what_vary_says() {
        assert_eq!(vary(&fields(&[]), &fields(&[]), &[]), Vary::None);
        assert_eq!(of("", &[]), Vary::None);
        assert_eq!(of("Accept-Encoding", &[("accept-encoding", "br")]), Vary::None);
        for any in ["*", "a, *", "*, a", "a b", "a, \"b\""] {
            assert_eq!(of(any, &[]), Vary::Any, "{any}");
        }
        let lines = fields(&[("vary", "a"), ("vary", "*")]);
        assert_eq!(vary(&lines, &fields(&[]), &[]), Vary::Any);
        assert_eq!(
            of("B, a", &[("a", "1")]),
            of("a, b, A, accept-encoding", &[("a", "1")])
        );
        let origin = [HeaderName::from_static("origin")];
        assert_eq!(
            vary(&fields(&[("vary", "Origin")]), &fields(&[]), &origin),
            Vary::None
        );
    }

    #[test]
    fn what_is_too_wide_is_not_stored() {
        assert!(matches!(of("a,b,c,d,e,f,g,h", &[]), Vary::Key(_)));
        assert_eq!(of("a,b,c,d,e,f,g,h,i", &[]), Vary::TooWide);
        assert!(matches!(of("a,a,a,a,a,a,a,a,a", &[]), Vary::Key(_)));
        let long = "x".repeat(VALUE_BYTES_MAX);
        assert!(matches!(of("a", &[("a", &long)]), Vary::Key(_)));
        assert_eq!(of("a", &[("a", &format!("{long}x"))]), Vary::TooWide);
        assert_eq!(of("a", &[("a", &long), ("a", "y")]), Vary::TooWide);
        assert_eq!(Vary::TooWide.stored(), Err(NotStored::VaryTooWide));
        assert_eq!(Vary::Any.stored(), Err(NotStored::VaryStar));
        assert_eq!(Vary::None.stored(), Ok(None));
    }

    #[test]
    fn which_requests_match() {
        let check = |nominated: &str, first: &[(&str, &str)], second: &[(&str, &str)], expected: bool| {
            let key = of(nominated, first).stored().unwrap().unwrap();
            assert_eq!(
                key.matches(&fields(second)),
                expected,
                "{nominated} {first:?} {second:?}"
            );
            let other = of(nominated, second).stored().unwrap().unwrap();
            assert_eq!(key == other, expected, "keys: {nominated} {first:?} {second:?}");
        };
        check("foo", &[("foo", "1")], &[("foo", "1")], true);
        check("foo", &[("foo", "1")], &[("foo", "1"), ("bar", "2")], true);
        check("foo", &[("foo", "1")], &[("foo", "2")], false);
        check("foo", &[("foo", "1")], &[], false);
        check("foo", &[], &[("foo", "1")], false);
        check("foo", &[], &[("foo", "")], false);
        check("foo", &[], &[], true);
        check(
            "foo, bar",
            &[("foo", "1"), ("bar", "2")],
            &[("foo", "1"), ("bar", "2")],
            true,
        );
        check("foo, bar", &[("foo", "1"), ("bar", "2")], &[("foo", "1")], false);
        // Lines are joined and trimmed; nothing more is known of this field.
        check("foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")], true);
        check("foo", &[("foo", "1")], &[("foo", " 1 ")], true);
        check("foo", &[("foo", "1,2")], &[("foo", " 1 ,\t2 ")], true);
        check("foo", &[("foo", "1 2")], &[("foo", "12")], false);
        check("foo", &[("foo", "\"1, 2\"")], &[("foo", "\"1,2\"")], false);
        check("foo", &[("foo", "")], &[("foo", ""), ("foo", "")], false);
        check("foo", &[("foo", "a")], &[("foo", "A")], false);
        check("foo", &[("foo", "1, 2")], &[("foo", "2, 1")], false);
        check("foo", &[("foo", "1"), ("foo", "")], &[("foo", "1")], false);
        // Of these more is known.
        check(
            "accept-language",
            &[("accept-language", "en, de;q=0.5")],
            &[("accept-language", "DE; q=0.5,en")],
            true,
        );
        check(
            "accept-language",
            &[("accept-language", "en")],
            &[("accept-language", "de")],
            false,
        );
        check(
            "accept",
            &[("accept", "a/b, c/d")],
            &[("accept", "c/d"), ("accept", "a/b")],
            true,
        );
        check(
            "accept",
            &[("accept", "a/b;x=\"1, 2\"")],
            &[("accept", "a/b;x=\"2, 1\"")],
            false,
        );
    }
}
