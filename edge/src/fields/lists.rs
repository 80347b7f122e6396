//! Comma-separated lists, tokens, quoted strings and parameters (RFC 9110, 5.6).
//!
//! Reading is linear in the length of the field lines and allocates only where a quoted string holds an escape. Nothing
//! here fails: what is malformed is passed over, because these fields are read one member at a time and one bad member
//! must not hide its neighbours. Fields that fail as a whole are in [`super::structured`].

use std::borrow::Cow;

use http::HeaderValue;

/// The members of a list spread over any number of field lines, in order, without the whitespace around them
/// (RFC 9110, 5.6.1). A comma within a quoted string separates nothing, and empty members are skipped.
///
/// A member that is not UTF-8 is skipped alone. A quotation mark that is never closed on its line is an ordinary
/// character: a stray one must not hide the `no-store` behind it.
pub fn members<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    values
        .into_iter()
        .flat_map(|value| Members::new(value.as_bytes()))
        .filter_map(|member| std::str::from_utf8(member).ok())
}

/// The members of one field line as bytes, for fields that may hold obs-text.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    parts: Split<'a>,
}

impl<'a> Members<'a> {
    /// The members of `line`.
    pub fn new(line: &'a [u8]) -> Self {
        Self {
            parts: Split::new(line, b','),
        }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.parts.by_ref().map(trim_ows).find(|part| !part.is_empty())
    }
}

/// One parameter of a member: `name=value`, the value unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The name as written; compare it without case.
    pub name: &'a str,
    /// The value: the token, or what the quoted string says. Empty when there is no `=`.
    pub value: Cow<'a, str>,
}

/// Splits a member into what comes before its first `;` and its parameters (RFC 9110, 5.6.6). Parameters that are not
/// `token`, `token=token` or `token="..."` are passed over.
pub fn parameters<'a>(member: &'a str) -> (&'a str, impl Iterator<Item = Parameter<'a>>) {
    let mut parts = Split::new(member.as_bytes(), b';').filter_map(|part| std::str::from_utf8(part).ok());
    let head = parts.next().unwrap_or("").trim_matches(is_ows);
    (head, parts.filter_map(parameter))
}

/// What a quoted string says, or `None` when `text` is not exactly one (RFC 9110, 5.6.4).
pub fn unquote(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains(['"', '\\']) {
        return Some(Cow::Borrowed(inner));
    }
    let mut said = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => said.push(characters.next()?),
            other => said.push(other),
        }
    }
    Some(Cow::Owned(said))
}

/// Whether `text` is a token (RFC 9110, 5.6.2).
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Whether `byte` may stand in a token.
pub const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// `bytes` without spaces and tabs at either end.
pub fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn is_ows(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

fn parameter(part: &str) -> Option<Parameter<'_>> {
    let part = part.trim_matches(is_ows);
    let Some((name, value)) = part.split_once('=') else {
        return is_token(part).then_some(Parameter {
            name: part,
            value: Cow::Borrowed(""),
        });
    };
    let value = if is_token(value) {
        Cow::Borrowed(value)
    } else {
        unquote(value)?
    };
    is_token(name).then_some(Parameter { name, value })
}

/// Splits at a separator outside of quoted strings.
#[derive(Clone, Debug)]
struct Split<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
    /// False once a quotation mark proved to be unclosed, so that no second search runs to the end: the work stays linear.
    quotes: bool,
}

impl<'a> Split<'a> {
    fn new(line: &'a [u8], separator: u8) -> Self {
        Self {
            rest: Some(line),
            separator,
            quotes: true,
        }
    }
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.rest.take()?;
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            if byte == self.separator {
                let (part, rest) = line.split_at_checked(at)?;
                self.rest = rest.get(1..);
                return Some(part);
            }
            if byte == b'"' && self.quotes {
                match closing_quote(line, at) {
                    Some(end) => at = end,
                    None => self.quotes = false,
                }
            }
            at += 1;
        }
        Some(line)
    }
}

/// Where the quoted string that opens at `open` closes.
fn closing_quote(line: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match line.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_of_any_number_of_lines() {
        let check = |lines: &[&str], expected: &[&str]| {
            let values: Vec<HeaderValue> = lines
                .iter()
                .map(|line| HeaderValue::from_bytes(line.as_bytes()).unwrap())
                .collect();
            assert_eq!(members(&values).collect::<Vec<_>>(), expected, "{lines:?}");
        };
        check(&[], &[]);
        check(&[""], &[]);
        check(&[" , ,\t, "], &[]);
        check(&["a"], &["a"]);
        check(&["a,b ,\tc"], &["a", "b", "c"]);
        check(&["a", "", "b, c"], &["a", "b", "c"]);
        check(&["a=\"x, y\", b"], &["a=\"x, y\"", "b"]);
        check(&[r#"a="x\", y", b"#], &[r#"a="x\", y""#, "b"]);
        check(&[r#"a="x\\", b"#], &[r#"a="x\\""#, "b"]);
        // A quotation mark that nothing closes hides nothing.
        check(&["a=\"x, no-store"], &["a=\"x", "no-store"]);
        check(&["a=\"x", "no-store\""], &["a=\"x", "no-store\""]);
        check(&[r#"a="x\", no-store"#], &[r#"a="x\""#, "no-store"]);
    }

    #[test]
    fn a_member_that_is_not_utf8_is_skipped_alone() {
        let line = HeaderValue::from_bytes(b"a, \xff\xfe, no-store").unwrap();
        assert_eq!(members([&line]).collect::<Vec<_>>(), ["a", "no-store"]);
        assert_eq!(Members::new(line.as_bytes()).nth(1), Some(&b"\xff\xfe"[..]));
    }

    #[test]
    fn parameters_follow_semicolons() {
        let check = |member: &str, head: &str, expected: &[(&str, &str)]| {
            let (own, rest) = parameters(member);
            let rest: Vec<_> = rest.map(|p| (p.name.to_owned(), p.value.into_owned())).collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect();
            assert_eq!((own, rest), (head, expected), "{member}");
        };
        check("text/html", "text/html", &[]);
        check("text/html ; charset=utf-8", "text/html", &[("charset", "utf-8")]);
        check("a;b=\"c;d\\\"\";e", "a", &[("b", "c;d\""), ("e", "")]);
        check("a;;b = c;=d;e=;f=1", "a", &[("f", "1")]);
        check("", "", &[]);
    }

    #[test]
    fn quoted_strings() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(unquote(text).as_deref(), expected, "{text}");
        check(r#""""#, Some(""));
        check(r#""a b""#, Some("a b"));
        check(r#""a\"b\\c\d""#, Some(r#"a"b\cd"#));
        check(r#"""#, None);
        check(r#""a"b""#, None);
        check(r#""a\""#, None);
        check("a", None);
    }

    proptest! {
        #[test]
        fn members_hold_no_whitespace_at_the_ends_and_nothing_is_invented(line in "[a-c,\" \\\\\t]{0,40}") {
            let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            let mut at = 0;
            for member in members([&value]) {
                prop_assert!(!member.is_empty());
                prop_assert_eq!(member, member.trim_matches([' ', '\t']));
                at += line.get(at..).and_then(|rest| rest.find(member)).unwrap() + member.len();
            }
        }
    }
}
