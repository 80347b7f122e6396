//! Names, versions, aliases and paths: text that was checked once, where it came in.
//!
//! They become parts of object keys and of URLs, so their alphabets are small: nothing in them needs an escape in either,
//! and none of them can climb (`..`), hide (`//`, control characters) or be spelled in two ways (`%`).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// Bytes of a release's name at most.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a version or an alias at most.
pub const VERSION_BYTES_MAX: usize = 128;
/// Bytes of a path at most.
pub const PATH_BYTES_MAX: usize = 1024;

/// Makes a newtype of text that [`FromStr`] checks, on every way in.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(checked: $name) -> Self {
                checked.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

checked_text! {
    /// What is released: the first segment of its URLs. Lowercase letters, digits, `.`, `_`, `-`; a letter or digit first.
    Name, check_name
}
checked_text! {
    /// One version of it: letters, digits, `.`, `_`, `+`, `-`; a letter or digit first.
    Version, check_version
}
checked_text! {
    /// A name that points to a version, such as `12` or `latest`. Spelled as a version is.
    Alias, check_version
}
checked_text! {
    /// The path of a file in its release: segments between single slashes, none at either end. What a URL can hold
    /// without an escape (RFC 3986, section 3.3), no empty segment, no `.`, no `..`.
    FilePath, check_path
}

impl Version {
    /// Orders versions as people count: numbers as numbers, the rest by its letters. `10.0` is behind `9.1`.
    pub fn count_order(&self, other: &Self) -> std::cmp::Ordering {
        runs(self.as_str()).cmp(runs(other.as_str()))
    }
}

/// Runs of digits without leading zeros, by length and then by digits; and what stands between them.
fn runs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let digits = rest.bytes().next()?.is_ascii_digit();
        let end = rest
            .bytes()
            .position(|byte| byte.is_ascii_digit() != digits)
            .unwrap_or(rest.len());
        let (run, behind) = rest.split_at_checked(end)?;
        rest = behind;
        let number = run.trim_start_matches('0');
        Some(if digits {
            (number.len() + 1, number)
        } else {
            (0, run)
        })
    })
}

fn check_name(text: &str) -> Result<(), Invalid> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    check_word("name", text, NAME_BYTES_MAX, fits, b"._-")
}

fn check_version(text: &str) -> Result<(), Invalid> {
    check_word(
        "version",
        text,
        VERSION_BYTES_MAX,
        |byte| byte.is_ascii_alphanumeric(),
        b"._+-",
    )
}

fn check_word(
    what: &str,
    text: &str,
    bytes_max: usize,
    fits: impl Fn(u8) -> bool,
    marks: &[u8],
) -> Result<(), Invalid> {
    let shown = shown(text);
    let Some(first) = text.bytes().next() else {
        return Err(Invalid::new(format!("a {what} must not be empty")));
    };
    if text.len() > bytes_max {
        return Err(Invalid::new(format!(
            "the {what} {shown} is longer than {bytes_max} bytes"
        )));
    }
    if !fits(first) {
        return Err(Invalid::new(format!(
            "the {what} {shown} must begin with a letter or digit"
        )));
    }
    if text.contains("..") {
        return Err(Invalid::new(format!(
            "the {what} {shown} holds two dots in a row"
        )));
    }
    match text
        .chars()
        .find(|char| !u8::try_from(*char).is_ok_and(|byte| fits(byte) || marks.contains(&byte)))
    {
        Some(char) => Err(Invalid::new(format!("the {what} {shown} holds {char:?}"))),
        None => Ok(()),
    }
}

fn check_path(text: &str) -> Result<(), Invalid> {
    let shown = shown(text);
    if text.is_empty() {
        return Err(Invalid::new("a path must not be empty"));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(Invalid::new(format!(
            "the path {shown} is longer than {PATH_BYTES_MAX} bytes"
        )));
    }
    if let Some(char) = text
        .chars()
        .find(|char| !u8::try_from(*char).is_ok_and(stands_in_path))
    {
        return Err(Invalid::new(format!("the path {shown} holds {char:?}")));
    }
    for segment in text.split('/') {
        match segment {
            "" => return Err(Invalid::new(format!("the path {shown} has an empty segment"))),
            "." | ".." => return Err(Invalid::new(format!("the path {shown} has a dot segment"))),
            _ => {}
        }
    }
    Ok(())
}

/// pchar without escapes, and the slash.
fn stands_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)
}

/// Text for an error: escaped, and not longer than a line.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_hold_what_urls_and_keys_hold() {
        let check = |text: &str, name: bool, version: bool| {
            assert_eq!(text.parse::<Name>().is_ok(), name, "{text:?}");
            assert_eq!(text.parse::<Version>().is_ok(), version, "{text:?}");
            assert_eq!(text.parse::<Alias>().is_ok(), version, "{text:?}");
        };
        check("lock", true, true);
        check("auth0.js", true, true);
        check("12.5.1", true, true);
        check("12.5.1-rc.1+build_7", false, true);
        check("Lock", false, true);
        check(&"a".repeat(64), true, true);
        check(&"a".repeat(65), false, true);
        check(&"a".repeat(128), false, true);
        check(&"a".repeat(129), false, false);
        for bad in [
            "", ".", "..", "a..b", "-a", "_a", ".a", "a/b", "a b", "a\n", "a\0", "ä", "a%2f", "a\\b", "@a",
        ] {
            check(bad, false, false);
        }
    }

    #[test]
    fn paths_cannot_climb_hide_or_be_spelled_twice() {
        let check = |text: &str, expected: &str| {
            let found = text
                .parse::<FilePath>()
                .map_or_else(|error| error.to_string(), String::from);
            assert!(found.contains(expected), "{text:?}: {found}");
        };
        check("lock.min.js", "lock.min.js");
        check("fonts/a(1)@2x~.woff2", "fonts/a(1)@2x~.woff2");
        check("a/..b/c..", "a/..b/c..");
        check("", "must not be empty");
        check("/a", "an empty segment");
        check("a/", "an empty segment");
        check("a//b", "an empty segment");
        check(".", "a dot segment");
        check("a/./b", "a dot segment");
        check("../a", "a dot segment");
        check("a/..", "a dot segment");
        check("a\\b", "holds '\\\\'");
        check("a%2e", "holds '%'");
        check("a?b", "holds '?'");
        check("a#b", "holds '#'");
        check("a b", "holds ' '");
        check("a\u{7f}", "holds '\\u{7f}'");
        check("a\nb", "holds '\\n'");
        check("ä", "holds 'ä'");
        check(&"a".repeat(1025), "longer than 1024 bytes");
    }

    #[test]
    fn versions_are_counted_as_people_do() {
        let check = |less: &str, more: &str| {
            let (less, more): (Version, Version) = (less.parse().unwrap(), more.parse().unwrap());
            assert!(less.count_order(&more).is_lt(), "{less} {more}");
            assert!(more.count_order(&less).is_gt(), "{less} {more}");
        };
        check("9.1", "10.0");
        check("1.9.9", "1.10.0");
        check("1.0", "1.0.1");
        check("1.0.0-rc.2", "1.0.0-rc.10");
        check("0", "1");
        check("99999999999999999999998", "99999999999999999999999");
    }

    #[test]
    fn what_comes_from_json_is_checked_too() {
        assert!(serde_json::from_str::<FilePath>(r#""../a""#).is_err());
        assert_eq!(
            serde_json::to_string(&"a/b".parse::<FilePath>().unwrap()).unwrap(),
            r#""a/b""#
        );
    }
}
