//! Cache directives: Cache-Control and Pragma of requests, Cache-Control and its targeted relatives of responses.
//!
//! Parsing never fails. What is malformed is read in its most restrictive sense where it would restrict, and ignored
//! where it would permit. What the directives then mean for a response is said by the other files of this folder.
//!
//! RFC 9111 section 4.2.1 leaves two answers for a directive that comes twice: its first occurrence, or "stale". We
//! take the first occurrence, in the order of the field lines.

use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};

use crate::fields::lists::Members;
use crate::fields::structured::{BareItem, Dictionary, Member};

const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

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
            found.no_cache = directives(headers, &PRAGMA).any(|directive| directive.is("no-cache"));
            return found;
        }
        for directive in directives(headers, &CACHE_CONTROL) {
            found.take(&directive);
        }
        found
    }

    fn take(&mut self, directive: &Directive<'_>) {
        if directive.is("max-age") {
            self.max_age
                .get_or_insert(directive.seconds().unwrap_or_default());
        } else if directive.is("max-stale") {
            // A value that cannot be read permits nothing.
            let willing = match directive.argument {
                Argument::None => Duration::MAX,
                _ => directive.seconds().unwrap_or_default(),
            };
            self.max_stale.get_or_insert(willing);
        } else if directive.is("min-fresh") {
            self.min_fresh
                .get_or_insert(directive.seconds().unwrap_or_default());
        } else if directive.is("no-cache") {
            self.no_cache = true;
        } else if directive.is("no-store") {
            self.no_store = true;
        } else if directive.is("no-transform") {
            self.no_transform = true;
        } else if directive.is("only-if-cached") {
            self.only_if_cached = true;
        } else if directive.is("stale-if-error") {
            self.stale_if_error
                .get_or_insert(directive.seconds().unwrap_or_default());
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
/// those of Cache-Control (RFC 9213 section 2.2). `device` is what Surrogate-Control calls us, if we said it.
pub fn effective(headers: &HeaderMap, targeted: &[HeaderName], device: Option<&[u8]>) -> ResponseDirectives {
    targeted
        .iter()
        .find_map(|name| ResponseDirectives::parse_targeted(headers, name, device))
        .unwrap_or_else(|| ResponseDirectives::parse(headers))
}

impl ResponseDirectives {
    /// Reads Cache-Control alone.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for directive in directives(headers, &CACHE_CONTROL) {
            found.take(&directive);
        }
        found
    }

    /// Reads the targeted field `name`; `None` when it is absent, empty or malformed.
    fn parse_targeted(headers: &HeaderMap, name: &HeaderName, device: Option<&[u8]>) -> Option<Self> {
        if !headers.contains_key(name) {
            return None;
        }
        if *name == SURROGATE_CONTROL {
            return Self::parse_surrogate_control(headers, device);
        }
        let dictionary = Dictionary::parse(headers.get_all(name)).ok()?;
        if dictionary.0.is_empty() {
            return None;
        }
        let mut found = Self {
            targeted: true,
            ..Self::default()
        };
        for (key, member) in dictionary.0.iter() {
            found.take_member(key, member);
        }
        Some(found)
    }

    /// Reads Surrogate-Control (W3C note "Edge Architecture Specification"): written like Cache-Control, but that its
    /// `max-age=60+30` also states the time it may be served stale, and that a directive with device tokens behind it
    /// is for those devices: ours, called `device`, before what is for everybody. A field that says nothing of caching
    /// to us, such as `content="ESI/1.0"` alone, does not count.
    fn parse_surrogate_control(headers: &HeaderMap, device: Option<&[u8]>) -> Option<Self> {
        let mut found = Self::default();
        let members = || {
            headers
                .get_all(&SURROGATE_CONTROL)
                .iter()
                .flat_map(|line| Members::new(line.as_bytes()))
        };
        for for_us in [true, false] {
            for member in members() {
                let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                let directive = Directive::new(parts.next().unwrap_or_default());
                let mut devices = parts.peekable();
                let suits = match (devices.peek().is_some(), for_us) {
                    (true, true) => device.is_some_and(|device| devices.any(|named| named == device)),
                    (named, for_us) => !named && !for_us,
                };
                if suits {
                    found.take_surrogate(directive);
                }
            }
        }
        if found == Self::default() {
            return None;
        }
        found.targeted = true;
        Some(found)
    }

    fn take_surrogate(&mut self, mut directive: Directive<'_>) {
        if let Argument::Text(text) = directive.argument
            && directive.is("max-age")
            && let Some(plus) = text.iter().position(|byte| *byte == b'+')
            && let Some((fresh, stale)) = text.split_at_checked(plus)
        {
            let stale = delta_seconds(stale.get(1..).unwrap_or_default()).unwrap_or_default();
            self.stale_while_revalidate.get_or_insert(stale);
            directive.argument = Argument::Text(fresh);
        }
        self.take(&directive);
    }

    /// Takes a member of a targeted field: RFC 9213 section 2.1 says which type stands for which argument. What has
    /// another type is malformed, and `?0` says that the directive is not there.
    fn take_member(&mut self, key: &str, member: &Member) {
        let digits;
        let argument = match member.as_item().map(|item| &item.value) {
            Some(BareItem::Boolean(true)) => Argument::None,
            Some(BareItem::Boolean(false)) => return,
            Some(BareItem::Integer(number)) => {
                digits = number.to_string();
                Argument::Text(digits.as_bytes())
            }
            Some(BareItem::String(text) | BareItem::Token(text)) if matches!(key, "no-cache" | "private") => {
                Argument::Text(text.as_bytes())
            }
            _ => Argument::Malformed,
        };
        let name = key.as_bytes();
        self.take(&Directive { name, argument });
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

/// The directives in all lines of a field, in order. A quotation mark that never closes hides nothing behind it.
fn directives<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Directive<'a>> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| Members::new(line.as_bytes()))
        .map(Directive::new)
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
        let spaced =
            name.trim_ascii_end().len() != name.len() || value.trim_ascii_start().len() != value.len();
        Self {
            name: name.trim_ascii_end(),
            argument: if spaced {
                Argument::Malformed
            } else {
                Argument::new(value)
            },
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        fields
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    fn names(names: &[&'static str]) -> Scope {
        Scope::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn response_directives() {
        type Edit = fn(&mut ResponseDirectives);
        let check = |lines: &[&str], edit: Edit| {
            let lines: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
            let mut expected = ResponseDirectives::default();
            edit(&mut expected);
            assert_eq!(ResponseDirectives::parse(&fields(&lines)), expected, "{lines:?}");
        };
        check(&[], |_| {});
        check(&[""], |_| {});
        check(&[", ,"], |_| {});
        check(&["max-age=60"], |d| d.max_age = seconds(60));
        check(&["MAX-AGE=60"], |d| d.max_age = seconds(60));
        check(&["max-age=\"60\""], |d| d.max_age = seconds(60));
        check(&["max-age=060"], |d| d.max_age = seconds(60));
        check(&["max-age=4294967296"], |d| d.max_age = seconds(1 << 31));
        check(&["max-age=99999999999999999999999999"], |d| {
            d.max_age = seconds(1 << 31);
        });
        for stale in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=1.5",
            "max-age=a1",
            "max-age=1a",
            "max-age='1'",
            "max-age =60",
            "max-age= 60",
            "max-age=\"60",
            "max-age=60\"",
            "max-age=+60",
            "max-age=6 0",
        ] {
            check(&[stale], |d| d.max_age = seconds(0));
        }
        // The first occurrence counts, on one line or two, valid or not.
        check(&["max-age=1, max-age=60"], |d| d.max_age = seconds(1));
        check(&["max-age=60", "max-age=1"], |d| d.max_age = seconds(60));
        check(&["max-age=x, max-age=60"], |d| d.max_age = seconds(0));
        check(&["s-maxage=2", "max-age=1"], |d| {
            (d.s_maxage, d.max_age) = (seconds(2), seconds(1));
        });
        check(&["no-store, NO-CACHE"], |d| {
            (d.no_store, d.no_cache) = (true, Scope::Whole);
        });
        check(&["no-store=1"], |d| d.no_store = true);
        check(&["public, must-understand"], |d| {
            (d.public, d.must_understand) = (true, true);
        });
        check(&["public=1, must-understand=x"], |_| {});
        check(&["must-revalidate, proxy-revalidate"], |d| {
            (d.must_revalidate, d.proxy_revalidate) = (true, true);
        });
        check(&["no-transform, immutable"], |d| {
            (d.no_transform, d.immutable) = (true, true);
        });
        check(&["stale-while-revalidate=5, stale-if-error=x"], |d| {
            (d.stale_while_revalidate, d.stale_if_error) = (seconds(5), seconds(0));
        });
    }

    #[test]
    fn quoted_text_is_not_a_directive_and_an_open_quote_hides_none() {
        let check = |line: &str, no_store: bool, max_age: Option<Duration>| {
            let found = ResponseDirectives::parse(&fields(&[("cache-control", line)]));
            assert_eq!((found.no_store, found.max_age), (no_store, max_age), "{line}");
        };
        check("a=\"b, no-store\", max-age=1", false, seconds(1));
        check("a=\"max-age=60\", max-age=1", false, seconds(1));
        check("max-age=1, a=\"max-age=60\"", false, seconds(1));
        check("a=\"\\\", no-store, \", max-age=1", false, seconds(1));
        check("a=\"b, no-store", true, None);
        check("no-storehouse, x-no-store", false, None);
    }

    #[test]
    fn directives_that_name_fields() {
        let check = |line: &str, private: Scope, no_cache: Scope| {
            let found = ResponseDirectives::parse(&fields(&[("cache-control", line)]));
            assert_eq!((found.private, found.no_cache), (private, no_cache), "{line}");
        };
        check("private", Scope::Whole, Scope::Absent);
        check("private=\"Set-Cookie\"", names(&["set-cookie"]), Scope::Absent);
        check("private=set-cookie", names(&["set-cookie"]), Scope::Absent);
        check("no-cache=\"a, b\"", Scope::Absent, names(&["a", "b"]));
        check("private=\"a\", private=\"b\"", names(&["a", "b"]), Scope::Absent);
        check("private=\"a\", private", Scope::Whole, Scope::Absent);
        check("private, private=\"a\"", Scope::Whole, Scope::Absent);
        check("private=\"\"", Scope::Whole, Scope::Absent);
        check("private=", Scope::Whole, Scope::Absent);
        check("private=\"a b\"", Scope::Whole, Scope::Absent);
        check("private=\"a", Scope::Whole, Scope::Absent);
    }

    #[test]
    fn request_directives() {
        type Edit = fn(&mut RequestDirectives);
        let check = |lines: &[(&str, &str)], edit: Edit| {
            let mut expected = RequestDirectives::default();
            edit(&mut expected);
            assert_eq!(RequestDirectives::parse(&fields(lines)), expected, "{lines:?}");
        };
        check(&[], |_| {});
        check(&[("cache-control", "no-cache, no-store")], |d| {
            (d.no_cache, d.no_store) = (true, true);
        });
        check(&[("cache-control", "max-age=0, min-fresh=5")], |d| {
            (d.max_age, d.min_fresh) = (seconds(0), seconds(5));
        });
        check(&[("cache-control", "max-stale")], |d| {
            d.max_stale = Some(Duration::MAX);
        });
        check(&[("cache-control", "max-stale=9")], |d| d.max_stale = seconds(9));
        check(&[("cache-control", "max-stale=x")], |d| d.max_stale = seconds(0));
        check(&[("cache-control", "only-if-cached, no-transform")], |d| {
            (d.only_if_cached, d.no_transform) = (true, true);
        });
        check(&[("cache-control", "stale-if-error=7")], |d| {
            d.stale_if_error = seconds(7);
        });
        check(&[("pragma", "no-cache")], |d| d.no_cache = true);
        check(&[("pragma", "x=1, No-Cache")], |d| d.no_cache = true);
        check(&[("pragma", "no-cache"), ("cache-control", "max-age=5")], |d| {
            d.max_age = seconds(5);
        });
        check(&[("pragma", "nothing")], |_| {});
    }

    #[test]
    fn the_first_valid_targeted_field_wins() {
        let targets = [
            HeaderName::from_static("portico-cache-control"),
            HeaderName::from_static("cdn-cache-control"),
            SURROGATE_CONTROL,
        ];
        let check = |lines: &[(&str, &str)], targeted: bool, max_age: Option<Duration>| {
            let mut lines = lines.to_vec();
            lines.push(("cache-control", "max-age=1"));
            let found = effective(&fields(&lines), &targets, Some(b"portico"));
            assert_eq!((found.targeted, found.max_age), (targeted, max_age), "{lines:?}");
        };
        check(&[], false, seconds(1));
        check(&[("cdn-cache-control", "max-age=2")], true, seconds(2));
        check(&[("cdn-cache-control", "max-age=2;x=y")], true, seconds(2));
        check(
            &[
                ("cdn-cache-control", "max-age=2"),
                ("portico-cache-control", "max-age=3"),
                ("surrogate-control", "max-age=4"),
            ],
            true,
            seconds(3),
        );
        check(&[("cdn-cache-control", "x")], true, None);
        check(
            &[("cdn-cache-control", "max-age=2"), ("cdn-cache-control", "x")],
            true,
            seconds(2),
        );
        // Empty or malformed: as if it were not there.
        check(&[("cdn-cache-control", "")], false, seconds(1));
        check(&[("cdn-cache-control", "MAX-AGE=2")], false, seconds(1));
        check(&[("cdn-cache-control", "max-age=2a")], false, seconds(1));
        check(&[("cdn-cache-control", "max-age =2")], false, seconds(1));
        check(
            &[("portico-cache-control", "&"), ("cdn-cache-control", "max-age=2")],
            true,
            seconds(2),
        );
        // Of the wrong type: stale.
        check(&[("cdn-cache-control", "max-age=\"2\"")], true, seconds(0));
        check(&[("cdn-cache-control", "max-age=-2")], true, seconds(0));
        check(&[("cdn-cache-control", "max-age=2.5")], true, seconds(0));
        check(&[("cdn-cache-control", "max-age")], true, seconds(0));
        check(
            &[("surrogate-control", "max-age=4, content=\"ESI/1.0\"")],
            true,
            seconds(4),
        );
        check(&[("surrogate-control", "content=\"ESI/1.0\"")], false, seconds(1));
        check(&[("surrogate-control", "max-age=4;portico")], true, seconds(4));
        check(
            &[("surrogate-control", "max-age=4; other; portico")],
            true,
            seconds(4),
        );
        check(
            &[("surrogate-control", "max-age=4, max-age=5;portico")],
            true,
            seconds(5),
        );
        check(&[("surrogate-control", "max-age=4;other")], false, seconds(1));
        check(&[("edge-control", "max-age=9")], false, seconds(1));
    }

    #[test]
    fn targeted_fields_carry_every_directive() {
        let targets = [HeaderName::from_static("cdn-cache-control"), SURROGATE_CONTROL];
        let found = effective(
            &fields(&[(
                "cdn-cache-control",
                "no-store=?0, private=\"a\", no-cache, stale-if-error=5, public",
            )]),
            &targets,
            None,
        );
        let expected = ResponseDirectives {
            private: names(&["a"]),
            no_cache: Scope::Whole,
            stale_if_error: seconds(5),
            public: true,
            targeted: true,
            ..ResponseDirectives::default()
        };
        assert_eq!(found, expected);
        let found = effective(&fields(&[("surrogate-control", "max-age=60+30")]), &targets, None);
        assert_eq!(
            (found.max_age, found.stale_while_revalidate),
            (seconds(60), seconds(30))
        );
    }

    proptest! {
        #[test]
        fn nothing_that_a_peer_sends_panics(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            let mut fields = HeaderMap::new();
            for line in lines {
                if let Ok(value) = http::HeaderValue::from_bytes(&line) {
                    fields.append(CACHE_CONTROL, value.clone());
                    fields.append(SURROGATE_CONTROL, value);
                }
            }
            let _ = RequestDirectives::parse(&fields);
            let _ = effective(&fields, &[SURROGATE_CONTROL, CACHE_CONTROL], Some(b"a"));
        }

        #[test]
        fn no_store_is_never_lost(before in "[a-z0-9=\", \\\\]{0,40}", after in "[a-z0-9=\", ]{0,20}") {
            // On a line of its own nothing on the other lines can hide it.
            let fields = fields(&[("cache-control", &before), ("cache-control", "no-store"), ("cache-control", &after)]);
            prop_assert!(ResponseDirectives::parse(&fields).no_store);
            prop_assert!(RequestDirectives::parse(&fields).no_store);
        }

        #[test]
        fn seconds_survive_any_company(n in 0_u64..1 << 31, other in "[a-z]{1,8}(=\"[a-z, ]{0,8}\")?") {
            prop_assume!(!other.starts_with("max"));
            let fields = fields(&[("cache-control", &format!("{other}, max-age={n}"))]);
            prop_assert_eq!(ResponseDirectives::parse(&fields).max_age, seconds(n));
        }
    }
}
