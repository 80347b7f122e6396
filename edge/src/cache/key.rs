//! What a response is stored under: the key, and the one spelling of a path and of a query that goes into it.
//!
//! The path is spelled the same in the key and in the question to the origin, so that two spellings which the origin
//! tells apart never share a key. This does not know sites: host and rule are given.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

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
            hash: HASHER.hash_one(&text),
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
    let path = if raw.bytes().all(stays) {
        Cow::Borrowed(raw)
    } else {
        respell(raw)?
    };
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(PathError::DotSegment);
    }
    Ok(path)
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
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether a byte stands in a canonical path as it is: `pchar` of RFC 3986 section 3.3 without escapes, or a slash.
fn stays(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@/".contains(&byte)
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
