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
