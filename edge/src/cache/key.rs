//! What a response is stored under: the key, and the one spelling of a path and of a query that goes into it.
//!
//! The path is spelled the same in the key and in the question to the origin, so that two spellings which the origin
//! tells apart never share a key. This does not know sites: host and rule are given.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use moka::Equivalent;

use crate::config::Query;

/// The primary key of a stored response. Cheap to clone.
///
/// Its text is `origin|host|path?query`. Its hash is computed once, under a key that each process draws at random, so
/// nobody outside can aim collisions at a table; equality compares the whole text.
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
    hash: u64,
    host_at: usize,
    path_at: usize,
    query_at: usize,
}

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Key {
    /// The key of a canonical path and query under a site's own host, at an origin.
    pub fn new(origin: &str, host: &str, path: &str, query: Option<&str>) -> Self {
        let query_len = query.map_or(0, |query| 1 + query.len());
        let mut text = String::with_capacity(origin.len() + host.len() + path.len() + query_len + 2);
        text.push_str(origin);
        text.push('|');
        let host_at = text.len();
        text.push_str(host);
        text.push('|');
        let path_at = text.len();
        text.push_str(path);
        let query_at = text.len();
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        Self {
            hash: hash(begun(origin, host), path, query),
            text: text.into(),
            host_at,
            path_at,
            query_at,
        }
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The origin's id.
    pub fn origin(&self) -> &str {
        self.part(0, self.host_at.saturating_sub(1))
    }

    /// The site's own host.
    pub fn host(&self) -> &str {
        self.part(self.host_at, self.path_at.saturating_sub(1))
    }

    /// The canonical path.
    pub fn path(&self) -> &str {
        self.part(self.path_at, self.query_at)
    }

    /// The canonical query, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.query_at + 1..)
    }

    /// The hash: the same for equal keys, within this process.
    pub fn hash64(&self) -> u64 {
        self.hash
    }

    /// The same, to be looked for.
    pub fn sought(&self) -> Sought<'_> {
        Sought {
            origin: self.origin(),
            host: self.host(),
            path: Cow::Borrowed(self.path()),
            query: self.query().map(Cow::Borrowed),
            hash: self.hash,
        }
    }

    /// `host|path`, and `host|path?query` when there is a query: what a purge by URL or prefix looks at.
    pub(super) fn target(&self) -> (&str, Option<&str>) {
        let path = self.part(self.host_at, self.query_at);
        let whole = self.query().map(|_| self.part(self.host_at, self.text.len()));
        (path, whole)
    }

    fn part(&self, from: usize, to: usize) -> &str {
        self.text.get(from..to).unwrap_or_default()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // The places of the bars are part of it, so that no name with a bar in it can pass for two.
        self.hash == other.hash
            && self.host_at == other.host_at
            && self.path_at == other.path_at
            && self.text == other.text
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What all keys of a site begin with, hashed already.
#[derive(Clone, Debug)]
pub struct Beginning {
    origin: Box<str>,
    host: Arc<str>,
    hasher: DefaultHasher,
}

impl Beginning {
    /// The beginning of the keys of `host` at `origin`.
    pub fn new(origin: &str, host: &Arc<str>) -> Self {
        Self {
            origin: origin.into(),
            host: Arc::clone(host),
            hasher: begun(origin, host),
        }
    }

    /// The key of a canonical path and query, to be looked for.
    pub fn seek<'a>(&'a self, path: Cow<'a, str>, query: Option<Cow<'a, str>>) -> Sought<'a> {
        Sought {
            origin: &self.origin,
            host: &self.host,
            hash: hash(self.hasher.clone(), &path, query.as_deref()),
            path,
            query,
        }
    }
}

/// A key that is looked for: it borrows its parts, so that a hit allocates nothing for it.
#[derive(Clone, Debug)]
pub struct Sought<'a> {
    origin: &'a str,
    host: &'a str,
    path: Cow<'a, str>,
    query: Option<Cow<'a, str>>,
    hash: u64,
}

impl<'a> Sought<'a> {
    /// The canonical path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The key, to be kept.
    pub fn to_key(&self) -> Key {
        Key::new(self.origin, self.host, &self.path, self.query.as_deref())
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.hash == key.hash
            && self.path == key.path()
            && self.query.as_deref() == key.query()
            && self.host == key.host()
            && self.origin == key.origin()
    }
}

/// Keys are hashed part by part, so that a key and one that is looked for come to the same.
fn begun(origin: &str, host: &str) -> DefaultHasher {
    let mut hasher = HASHER.build_hasher();
    write(&mut hasher, origin);
    write(&mut hasher, host);
    hasher
}

fn hash(mut begun: DefaultHasher, path: &str, query: Option<&str>) -> u64 {
    write(&mut begun, path);
    if let Some(query) = query {
        write(&mut begun, query);
    }
    begun.finish()
}

fn write(hasher: &mut DefaultHasher, part: &str) {
    hasher.write(part.as_bytes());
    // No text in UTF-8 holds this byte.
    hasher.write_u8(0xff);
}

/// Why a path is refused; always the client's fault, 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A backslash, as it is or escaped.
    #[error("the path holds a backslash")]
    Backslash,
    /// A control character, as it is or escaped.
    #[error("the path holds a control character")]
    Control,
    /// A character that cannot stand in a path: a space, `#` or `?`.
    #[error("the path holds a character that ends it")]
    Delimiter,
    /// A segment `.` or `..`, in whatever spelling.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// An escaped slash.
    #[error("the path holds an escaped slash")]
    EscapedSlash,
    /// A percent sign without two hexadecimal digits.
    #[error("the path holds a broken escape")]
    Escape,
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// Its escapes are not UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
}

/// The one spelling of a path: unreserved characters unescaped, all other escapes kept, in uppercase; what must be
/// escaped, escaped (RFC 3986 section 6.2.2).
///
/// Nothing else is folded: `//`, `;`, `%23`, `%3F` make keys of their own. What different software reads differently
/// is refused rather than interpreted.
pub fn canonical_path(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    // One pass finds what most paths are: plain, and without a segment that begins with a dot.
    let (mut plain, mut dotted, mut before) = (true, false, b'/');
    for byte in raw.bytes() {
        plain &= stays(byte);
        dotted |= before == b'/' && byte == b'.';
        before = byte;
    }
    let path = if plain { Cow::Borrowed(raw) } else { respell(raw)? };
    let suspect = dotted || !plain;
    if suspect && path.split('/').any(is_dot_segment) {
        return Err(PathError::DotSegment);
    }
    Ok(path)
}

/// Whether a segment of a canonical path means another place (RFC 3986 section 5.2.4). Some servers take what follows a
/// semicolon off a segment before they look.
fn is_dot_segment(segment: &str) -> bool {
    if !segment.starts_with('.') {
        return false;
    }
    let name = segment.split(';').next().unwrap_or_default();
    matches!(name.split("%3B").next(), Some("." | ".."))
}

/// The key of the object that a canonical path names in a bucket: decoded, without the leading slash.
pub fn object_key(canonical_path: &str) -> String {
    let mut decoded = Vec::with_capacity(canonical_path.len());
    let mut rest = canonical_path
        .strip_prefix('/')
        .unwrap_or(canonical_path)
        .as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escape = (*byte == b'%').then(|| unescape(after)).flatten();
        let (byte, after) = escape.unwrap_or((*byte, after));
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// At most so many parameters are sorted; with more, the query stays as it came.
const PARAMETERS_MAX: usize = 64;

/// The one spelling of a query under a site's rule; `None` when none takes part.
///
/// Parameters are kept byte for byte; sorting is stable, so the order of equal names still counts. A query with more
/// than 64 parameters to sort stays as it came: it then has a key of its own for each order, which is a miss but never
/// a mistake.
pub fn canonical_query<'a>(raw: Option<&'a str>, rule: &Query) -> Option<Cow<'a, str>> {
    let raw = raw?;
    match rule {
        Query::Ignore => None,
        Query::Keep => Some(Cow::Borrowed(raw)),
        Query::Sort => Some(sorted(raw, |_| true)),
        Query::Allow(names) => Some(sorted(raw, |name| names.iter().any(|allowed| allowed == name)))
            .filter(|query| !query.is_empty()),
    }
}

/// The parameters whose names are `allowed`, in order of name.
fn sorted<'a>(raw: &'a str, allowed: impl Fn(&str) -> bool) -> Cow<'a, str> {
    let parameters = || raw.split('&').filter(|parameter| allowed(name_of(parameter)));
    let kept: Vec<&str> = parameters().take(PARAMETERS_MAX + 1).collect();
    let everything = kept.iter().map(|parameter| parameter.len() + 1).sum::<usize>() == raw.len() + 1;
    let in_order = kept.is_sorted_by_key(|parameter| name_of(parameter));
    if kept.len() > PARAMETERS_MAX || (everything && in_order) {
        return Cow::Borrowed(raw);
    }
    let mut kept = kept;
    kept.sort_by_key(|parameter| name_of(parameter));
    Cow::Owned(kept.join("&"))
}

fn name_of(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a byte stands in a canonical path as it is: `pchar` of RFC 3986 section 3.3 without escapes, or a slash.
fn stays(byte: u8) -> bool {
    const PLAIN: u128 = {
        let (mut set, mut byte) = (0_u128, 0_u8);
        while byte < 128 {
            let is_plain = byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~')
                || matches!(
                    byte,
                    b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';'
                )
                || matches!(byte, b'=' | b':' | b'@' | b'/');
            if is_plain {
                set |= 1 << byte;
            }
            byte += 1;
        }
        set
    };
    byte < 128 && (PLAIN >> byte) & 1 == 1
}

/// Spells a path that holds more than plain characters.
fn respell(raw: &str) -> Result<Cow<'_, str>, PathError> {
    let mut spelled = String::with_capacity(raw.len() + 8);
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = *first == b'%';
        let (byte, after) = if escaped {
            unescape(after).ok_or(PathError::Escape)?
        } else {
            (*first, after)
        };
        refuse(byte, escaped)?;
        let plain = if escaped { is_unreserved(byte) } else { stays(byte) };
        if plain {
            spelled.push(char::from(byte));
        } else {
            spelled.push('%');
            spelled.push(hex_digit(byte >> 4));
            spelled.push(hex_digit(byte & 15));
        }
        decoded.push(byte);
        rest = after;
    }
    let text = std::str::from_utf8(&decoded).map_err(|_| PathError::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    Ok(if spelled == raw {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(spelled)
    })
}

/// Refuses what different software reads differently.
fn refuse(byte: u8, escaped: bool) -> Result<(), PathError> {
    match byte {
        b'/' if escaped => Err(PathError::EscapedSlash),
        b'\\' => Err(PathError::Backslash),
        _ if byte.is_ascii_control() => Err(PathError::Control),
        b' ' | b'#' | b'?' if !escaped => Err(PathError::Delimiter),
        _ => Ok(()),
    }
}

/// The byte that two hexadecimal digits at the start of `rest` spell, and what follows them.
fn unescape(rest: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = rest.split_at_checked(2)?;
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let (high, low) = (value(digits.first()?)?, value(digits.get(1)?)?);
    Some((u8::try_from(high * 16 + low).ok()?, after))
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).map_or('0', |digit| digit.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_looked_for_is_equal_to_its_own_key_only() {
        let parts = [
            ("o", "h", "/p", None),
            ("o", "h", "/p", Some("")),
            ("o", "h", "/p", Some("q")),
            ("o", "h", "/pq", None),
            ("o", "hh", "/p", None),
            ("oo", "h", "/p", None),
            ("o|h", "h", "/p", None),
            ("o", "h|h", "/p", None),
        ];
        for (n, (origin, host, path, query)) in parts.into_iter().enumerate() {
            let beginning = Beginning::new(origin, &host.into());
            let sought = beginning.seek(path.into(), query.map(Cow::Borrowed));
            assert_eq!(sought.to_key(), Key::new(origin, host, path, query));
            assert_eq!(sought.to_key().sought().to_key(), sought.to_key());
            for (m, (origin, host, path, query)) in parts.into_iter().enumerate() {
                let key = Key::new(origin, host, path, query);
                assert_eq!(sought.equivalent(&key), n == m, "{sought:?} {key:?}");
                assert_eq!(sought.hash == key.hash64(), n == m, "{sought:?} {key:?}");
            }
        }
    }

    #[test]
    fn paths_that_are_kept_or_spelled_anew() {
        let check = |raw: &str, expected: &str, object: &str| {
            let path = canonical_path(raw).unwrap();
            assert_eq!(path, expected, "{raw}");
            assert_eq!(
                matches!(path, Cow::Borrowed(_)),
                raw == expected,
                "{raw} is borrowed when it is right"
            );
            assert_eq!(object_key(&path), object, "{raw}");
        };
        check("/", "/", "");
        check("/client/app.js", "/client/app.js", "client/app.js");
        check("/%61%2Dz%7e", "/a-z~", "a-z~");
        check("/a%c3%a9", "/a%C3%A9", "a\u{e9}");
        check("/a%C3%A9", "/a%C3%A9", "a\u{e9}");
        check("/a\u{e9}", "/a%C3%A9", "a\u{e9}");
        check("/a%20b", "/a%20b", "a b");
        check("/a+b%2b", "/a+b%2B", "a+b+");
        check("/a|b\"{}", "/a%7Cb%22%7B%7D", "a|b\"{}");
        check("/a%25b", "/a%25b", "a%b");
        check("/a%2561", "/a%2561", "a%61");
        // No folding: each of these is a key of its own.
        check("//a//b/", "//a//b/", "/a//b/");
        check("/a.js;x.css", "/a.js;x.css", "a.js;x.css");
        check("/a.js%23x", "/a.js%23x", "a.js#x");
        check("/a.js%3fx", "/a.js%3Fx", "a.js?x");
        check("/...", "/...", "...");
        check("/.a/a./a..b", "/.a/a./a..b", ".a/a./a..b");
        check("/!$&'()*+,;=:@", "/!$&'()*+,;=:@", "!$&'()*+,;=:@");
    }

    #[test]
    fn paths_that_are_refused() {
        let check = |raw: &str, expected: PathError| assert_eq!(canonical_path(raw), Err(expected), "{raw}");
        for dots in [
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e%2e/a",
            "/.%2E",
            "/%2e",
            "/%2e./",
            "/a/%2E%2e/b",
            "/a/..;/b",
            "/a/..%3bx/b",
            "/.;",
        ] {
            check(dots, PathError::DotSegment);
        }
        check("/a%2fb", PathError::EscapedSlash);
        check("/a%2Fb", PathError::EscapedSlash);
        check("/..%2f", PathError::EscapedSlash);
        check("/a%5cb", PathError::Backslash);
        check("/a\\b", PathError::Backslash);
        for control in [
            "/%00",
            "/a.js%00.css",
            "/%0d%0a",
            "/%7f",
            "/a\tb",
            "/a\0",
            "/%C2%80",
        ] {
            check(control, PathError::Control);
        }
        for escape in ["/%", "/%4", "/%zz", "/a%+1", "/%u0041"] {
            check(escape, PathError::Escape);
        }
        for overlong in [
            "/%c0%ae",
            "/%c0%af",
            "/%ff",
            "/%e9",
            "/%ed%a0%80",
            "/%f8%80%80%80%af",
        ] {
            check(overlong, PathError::NotUtf8);
        }
        for relative in ["", "a", "*", "http://a/b", "%2fa", "\\a"] {
            check(relative, PathError::NotAbsolute);
        }
        for delimiter in ["/a b", "/a#b", "/a?b"] {
            check(delimiter, PathError::Delimiter);
        }
    }

    #[test]
    fn queries() {
        let allow = || Query::Allow(vec!["b".into(), "a".into()]);
        let check = |raw: Option<&str>, rule: Query, expected: Option<&str>| {
            assert_eq!(
                canonical_query(raw, &rule).as_deref(),
                expected,
                "{raw:?} {rule:?}"
            );
        };
        check(Some("b=1&a=2"), Query::Ignore, None);
        check(Some("b=1&a=2"), Query::Keep, Some("b=1&a=2"));
        check(Some(""), Query::Keep, Some(""));
        check(Some("b=1&a=2"), Query::Sort, Some("a=2&b=1"));
        check(Some("b=1&a=2&a=1"), Query::Sort, Some("a=2&a=1&b=1"));
        check(Some("a&b"), Query::Sort, Some("a&b"));
        check(Some("a=1&&"), Query::Sort, Some("&&a=1"));
        check(Some("c=3&b=1&a=2"), allow(), Some("a=2&b=1"));
        check(Some("b=1&utm=x"), allow(), Some("b=1"));
        check(Some("utm=x"), allow(), None);
        check(Some(""), allow(), None);
        check(Some("A=1"), allow(), None);
        for rule in [Query::Ignore, Query::Keep, Query::Sort, allow()] {
            check(None, rule, None);
        }
    }

    #[test]
    fn too_many_parameters_stay_as_they_came() {
        let many: Vec<String> = (0..PARAMETERS_MAX).rev().map(|n| format!("a{n:02}")).collect();
        let just = many.join("&");
        assert_ne!(
            canonical_query(Some(&just), &Query::Sort).as_deref(),
            Some(just.as_str())
        );
        let beyond = format!("{just}&a");
        assert_eq!(
            canonical_query(Some(&beyond), &Query::Sort).as_deref(),
            Some(beyond.as_str())
        );
        // Those that do not take part do not count.
        let rule = Query::Allow(vec!["a".into()]);
        assert_eq!(canonical_query(Some(&beyond), &rule).as_deref(), Some("a"));
    }

    #[test]
    fn keys_tell_their_parts_and_are_equal_only_as_a_whole() {
        let key = Key::new("widgets@eu", "cdn.example.com", "/a/b.js", Some("v=1"));
        assert_eq!(key.as_str(), "widgets@eu|cdn.example.com|/a/b.js?v=1");
        assert_eq!(
            (key.origin(), key.host(), key.path(), key.query()),
            ("widgets@eu", "cdn.example.com", "/a/b.js", Some("v=1"))
        );
        let twin = Key::new("widgets@eu", "cdn.example.com", "/a/b.js", Some("v=1"));
        assert_eq!((&key, key.hash64()), (&twin, twin.hash64()));
        let others = [
            Key::new("widgets@us", "cdn.example.com", "/a/b.js", Some("v=1")),
            Key::new("widgets@eu", "other.example.com", "/a/b.js", Some("v=1")),
            Key::new("widgets@eu", "cdn.example.com", "/a/B.js", Some("v=1")),
            Key::new("widgets@eu", "cdn.example.com", "/a/b.js", Some("")),
            Key::new("widgets@eu", "cdn.example.com", "/a/b.js", None),
        ];
        for other in others {
            assert_ne!(key, other);
        }
        let bare = Key::new("o", "h", "/", None);
        assert_eq!(
            (bare.path(), bare.query(), bare.target()),
            ("/", None, ("h|/", None))
        );
        assert_eq!(Key::new("o", "h", "/", Some("")).query(), Some(""));
        assert_ne!(Key::new("a|b", "c", "/", None), Key::new("a", "b|c", "/", None));
    }

    proptest! {
        #[test]
        fn a_canonical_path_is_a_fixed_point(raw in "/[a-z0-9./%~;\\\\?# |éFcC2eE5-]{0,40}") {
            if let Ok(path) = canonical_path(&raw) {
                prop_assert_eq!(canonical_path(&path), Ok(Cow::Borrowed(&*path)));
                let object = object_key(&path);
                for segment in object.split('/').chain(path.split('/')) {
                    prop_assert!(segment != "." && segment != "..", "{}", raw);
                }
                prop_assert_eq!(object.matches('/').count() + 1, path.matches('/').count());
                prop_assert!(!object.contains(['\0', '\\']));
            }
        }

        #[test]
        fn nothing_that_a_client_sends_panics(raw in any::<String>(), query in any::<String>()) {
            let _ = canonical_path(&raw);
            let _ = canonical_path(&format!("/{raw}"));
            let _ = object_key(&raw);
            for rule in [Query::Sort, Query::Allow(vec!["a".into()])] {
                if let Some(once) = canonical_query(Some(&query), &rule) {
                    prop_assert_eq!(canonical_query(Some(&once), &rule), Some(Cow::Borrowed(&*once)));
                }
            }
        }
    }
}
