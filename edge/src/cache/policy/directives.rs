//! Cache directives: Cache-Control and Pragma of requests, Cache-Control and its targeted relatives of responses.
//!
//! Parsing never fails. What is malformed is read in its most restrictive sense where it would restrict, and ignored
//! where it would permit. What the directives then mean for a response is said by the other files of this folder.
//!
//! RFC 9111 section 4.2.1 leaves two answers for a directive that comes twice: its first occurrence, or "stale". We
//! take the first occurrence, in the order of the field lines.

use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The largest delta-seconds: RFC 9111 section 1.2.2.
const DELTA_SECONDS_MAX: u64 = 1 << 31;

/// Directives of a request, RFC 9111 section 5.2.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `max-stale`; without a value it is [`Duration::MAX`].
    pub max_stale: Option<Duration>,
    /// `min-fresh`.
    pub min_fresh: Option<Duration>,
    /// `no-cache`, also as `Pragma: no-cache` where there is no Cache-Control.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `stale-if-error`, RFC 5861 section 4.
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Reads the directives of a request. Allocates nothing.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            found.no_cache = headers.get_all(PRAGMA).iter().any(is_pragma_no_cache);
            return found;
        }
        for line in headers.get_all(CACHE_CONTROL) {
            for directive in Directives::new(line.as_bytes()) {
                found.take(&directive);
            }
        }
        found
    }

    fn take(&mut self, directive: &Directive<'_>) {
        if directive.is("max-age") {
            self.max_age.get_or_insert(directive.seconds().unwrap_or_default());
        } else if directive.is("max-stale") {
            // A value that cannot be read permits nothing.
            let willing = match directive.argument {
                Argument::None => Duration::MAX,
                _ => directive.seconds().unwrap_or_default(),
            };
            self.max_stale.get_or_insert(willing);
        } else if directive.is("min-fresh") {
            self.min_fresh.get_or_insert(directive.seconds().unwrap_or_default());
        } else if directive.is("no-cache") {
            self.no_cache = true;
        } else if directive.is("no-store") {
            self.no_store = true;
        } else if directive.is("no-transform") {
            self.no_transform = true;
        } else if directive.is("only-if-cached") {
            self.only_if_cached = true;
        } else if directive.is("stale-if-error") {
            self.stale_if_error.get_or_insert(directive.seconds().unwrap_or_default());
        }
    }
}

/// What a directive that may name fields (`no-cache`, `private`) applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The directive is absent.
    #[default]
    Absent,
    /// Only these fields of the response.
    Fields(Vec<HeaderName>),
    /// The whole response.
    Whole,
}

impl Scope {
    /// Whether the directive concerns the whole response.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// The fields that the directive concerns; none when it is absent or concerns the whole response.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Absent | Self::Whole => &[],
        }
    }

    /// Adds one more occurrence. The most restrictive wins: the whole response over some of its fields.
    fn take(&mut self, argument: &Argument<'_>) {
        let names = match argument {
            Argument::None | Argument::Malformed => None,
            Argument::Text(text) => field_names(text),
        };
        let Some(mut names) = names else {
            *self = Self::Whole;
            return;
        };
        match self {
            Self::Absent => *self = Self::Fields(names),
            Self::Fields(already) => already.append(&mut names),
            Self::Whole => {}
        }
    }
}

/// Directives of a response, RFC 9111 section 5.2.2, and of RFC 5861 and RFC 8246.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `immutable`.
    pub immutable: bool,
    /// `max-age`; zero when it is malformed (RFC 9111 section 4.2.1).
    pub max_age: Option<Duration>,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `no-cache`.
    pub no_cache: Scope,
    /// `no-store`.
    pub no_store: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `private`.
    pub private: Scope,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `public`.
    pub public: bool,
    /// `s-maxage`; zero when it is malformed.
    pub s_maxage: Option<Duration>,
    /// `stale-if-error`; zero when it is malformed.
    pub stale_if_error: Option<Duration>,
    /// `stale-while-revalidate`; zero when it is malformed.
    pub stale_while_revalidate: Option<Duration>,
    /// Whether a targeted field spoke, so that Cache-Control and Expires count for nothing (RFC 9213 section 2.2).
    pub targeted: bool,
}

/// The directives that a response puts on us: those of the first field of `targeted` that is present and valid, else
/// those of Cache-Control (RFC 9213 section 2.2).
pub fn effective(headers: &HeaderMap, targeted: &[HeaderName]) -> ResponseDirectives {
    targeted
        .iter()
        .find_map(|name| ResponseDirectives::parse_targeted(headers, name))
        .unwrap_or_else(|| ResponseDirectives::parse(headers))
}

impl ResponseDirectives {
    /// Reads Cache-Control alone.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for directive in Directives::new(line.as_bytes()) {
                found.take(&directive);
            }
        }
        found
    }

    /// Reads the targeted field `name`; `None` when it is absent, empty or malformed.
    fn parse_targeted(_headers: &HeaderMap, _name: &HeaderName) -> Option<Self> {
        None
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let seconds = || directive.seconds().unwrap_or_default();
        if directive.is("max-age") {
            self.max_age.get_or_insert_with(seconds);
        } else if directive.is("s-maxage") {
            self.s_maxage.get_or_insert_with(seconds);
        } else if directive.is("no-store") {
            self.no_store = true;
        } else if directive.is("no-cache") {
            self.no_cache.take(&directive.argument);
        } else if directive.is("private") {
            self.private.take(&directive.argument);
        } else if directive.is("public") {
            // It permits, so it counts only as it is written in the RFC.
            self.public |= directive.argument == Argument::None;
        } else if directive.is("must-revalidate") {
            self.must_revalidate = true;
        } else if directive.is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if directive.is("must-understand") {
            // It permits too: it lifts no-store.
            self.must_understand |= directive.argument == Argument::None;
        } else if directive.is("no-transform") {
            self.no_transform = true;
        } else if directive.is("immutable") {
            self.immutable = true;
        } else if directive.is("stale-while-revalidate") {
            self.stale_while_revalidate.get_or_insert_with(seconds);
        } else if directive.is("stale-if-error") {
            self.stale_if_error.get_or_insert_with(seconds);
        }
    }
}

/// `Pragma: no-cache`, RFC 9111 section 5.4.
fn is_pragma_no_cache(line: &HeaderValue) -> bool {
    Directives::new(line.as_bytes()).any(|directive| directive.is("no-cache"))
}

/// One directive as written.
#[derive(Debug)]
struct Directive<'a> {
    name: &'a [u8],
    argument: Argument<'a>,
}

/// What follows a directive's name.
#[derive(Debug, PartialEq, Eq)]
enum Argument<'a> {
    None,
    /// A token, or the inside of a quoted string, escapes and all.
    Text(&'a [u8]),
    /// Neither: white space around the equals sign, text around the quotes.
    Malformed,
}

impl<'a> Directive<'a> {
    fn new(member: &'a [u8]) -> Self {
        let Some(at) = member.iter().position(|byte| *byte == b'=') else {
            return Self {
                name: member,
                argument: Argument::None,
            };
        };
        let (name, rest) = member.split_at_checked(at).unwrap_or((member, b""));
        let value = rest.get(1..).unwrap_or_default();
        let spaced = name.trim_ascii_end().len() != name.len() || value.trim_ascii_start().len() != value.len();
        Self {
            name: name.trim_ascii_end(),
            argument: if spaced { Argument::Malformed } else { Argument::new(value) },
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The argument as delta-seconds, RFC 9111 section 1.2.2: what is too large counts as 2^31.
    fn seconds(&self) -> Option<Duration> {
        match self.argument {
            Argument::Text(digits) => delta_seconds(digits),
            Argument::None | Argument::Malformed => None,
        }
    }
}

impl<'a> Argument<'a> {
    fn new(value: &'a [u8]) -> Self {
        if let Some(inside) = value.strip_prefix(b"\"") {
            return match inside.strip_suffix(b"\"") {
                Some(text) => Self::Text(text),
                None => Self::Malformed,
            };
        }
        if value.is_empty() || value.contains(&b'"') {
            return Self::Malformed;
        }
        Self::Text(value)
    }
}

/// The non-negative integer that `digits` spell, at most 2^31; `None` for anything but digits.
pub(super) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits.iter().fold(0_u64, |sum, digit| {
        (sum * 10 + u64::from(digit - b'0')).min(DELTA_SECONDS_MAX)
    });
    Some(Duration::from_secs(seconds))
}

/// The field names in the argument of `no-cache` or `private`; `None` when there is none, or one is not a name.
fn field_names(text: &[u8]) -> Option<Vec<HeaderName>> {
    let names = text
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .map(|name| HeaderName::from_bytes(name).ok())
        .collect::<Option<Vec<_>>>()?;
    (!names.is_empty()).then_some(names)
}

/// The members of one field line, split at commas outside of quotes.
struct Directives<'a>(&'a [u8]);

impl<'a> Directives<'a> {
    fn new(line: &'a [u8]) -> Self {
        Self(line)
    }
}

impl<'a> Iterator for Directives<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        while !self.0.is_empty() {
            let end = member_end(self.0);
            let (member, rest) = self.0.split_at_checked(end).unwrap_or((self.0, b""));
            self.0 = rest.get(1..).unwrap_or_default();
            let member = member.trim_ascii();
            if !member.is_empty() {
                return Some(Directive::new(member));
            }
        }
        None
    }
}

/// Where the first member of `line` ends: at the first comma outside of quotes.
///
/// A quote that never closes hides nothing: the member then ends at the first comma, so that a `no-store` behind it
/// is still seen.
fn member_end(line: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    if !quoted {
        return line.len();
    }
    line.iter().position(|byte| *byte == b',').unwrap_or(line.len())
}
