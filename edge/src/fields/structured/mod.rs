//! Structured fields (RFC 9651): items, lists and dictionaries, read strictly and written.
//!
//! Any error fails the whole field, as section 4.2 asks. What a field may cost is bounded: by its length, by the number of
//! members and parameters, and its depth is that of the types, for an inner list holds items only.

use std::fmt::Write as _;

use http::HeaderValue;

mod parse;

/// The longest field that is read, its lines together.
pub const LENGTH_MAX: usize = 64 * 1024;

/// The most members of a list, a dictionary or an inner list. RFC 9651 asks for 1024, 1024 and 256.
pub const MEMBERS_MAX: usize = 1024;

/// The most parameters of one item. RFC 9651 asks for 256.
pub const PARAMETERS_MAX: usize = 256;

/// Why a field could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not what RFC 9651 allows, at this byte of the lines joined by `, `.
    #[error("not a structured field, at byte {0}")]
    Malformed(usize),
    /// More than [`LENGTH_MAX`], [`MEMBERS_MAX`] or [`PARAMETERS_MAX`].
    #[error("the structured field is too long or has too many members")]
    TooLarge,
    /// A value cannot be written: a number out of range, a string that is not ASCII, a key or token that is none.
    #[error("the value cannot be written as a structured field")]
    Unwritable,
}

/// A single value (RFC 9651, 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BareItem {
    /// `?1`, `?0`.
    Boolean(bool),
    /// `:aGVsbG8=:`.
    Bytes(Vec<u8>),
    /// `@1659578233`: seconds since the Unix epoch.
    Date(i64),
    /// `4.5`, in thousandths: at most twelve digits, and three decimals.
    Decimal(i64),
    /// `%"f%c3%bc"`: a string for people.
    Display(String),
    /// `42`: at most fifteen digits.
    Integer(i64),
    /// `"hello"`: visible ASCII and spaces.
    String(String),
    /// `hello`.
    Token(String),
}

impl BareItem {
    /// The whole number, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// What a token or a string says.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Token(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }
}

/// Parameters, or the members of a dictionary: keys in the order of their first appearance, each with its last value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map<T>(Vec<(String, T)>);

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Map<T> {
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.iter().find(|(own, _)| *own == key).map(|(_, value)| value)
    }

    /// Puts `value` under `key`, in place of an earlier one.
    pub fn insert(&mut self, key: &str, value: T) {
        match self.0.iter_mut().find(|(own, _)| own == key) {
            Some((_, earlier)) => *earlier = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The parameters of an item or an inner list (RFC 9651, 3.1.2).
pub type Parameters = Map<BareItem>;

/// A value with its parameters (RFC 9651, 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub value: BareItem,
    /// Its parameters.
    pub parameters: Parameters,
}

impl From<BareItem> for Item {
    fn from(value: BareItem) -> Self {
        Self {
            value,
            parameters: Parameters::default(),
        }
    }
}

impl Item {
    /// Reads an item from the lines of a field.
    ///
    /// # Errors
    ///
    /// When they are not exactly one.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Result<Self, Error> {
        parse::whole(values, |parser| parser.item())
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`].
    pub fn write(&self) -> Result<String, Error> {
        written(|to| write_item(to, self))
    }
}

/// Items in parentheses (RFC 9651, 3.1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InnerList {
    /// The items.
    pub items: Vec<Item>,
    /// The parameters of the list itself.
    pub parameters: Parameters,
}

/// A member of a list or a dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// Several items, in parentheses.
    InnerList(InnerList),
    /// One item.
    Item(Item),
}

impl Member {
    /// The item, if it is one.
    pub fn as_item(&self) -> Option<&Item> {
        match self {
            Self::InnerList(_) => None,
            Self::Item(item) => Some(item),
        }
    }

    /// The parameters of the item or of the inner list.
    pub fn parameters(&self) -> &Parameters {
        match self {
            Self::InnerList(list) => &list.parameters,
            Self::Item(item) => &item.parameters,
        }
    }
}

/// A list (RFC 9651, 3.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(pub Vec<Member>);

impl List {
    /// Reads a list from the lines of a field; with no line it is empty.
    ///
    /// # Errors
    ///
    /// When any part is malformed or there is too much of it.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Result<Self, Error> {
        parse::whole(values, |parser| parser.list())
    }

    /// Writes it. An empty list is written as nothing at all: the field is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`].
    pub fn write(&self) -> Result<String, Error> {
        written(|to| {
            for (index, member) in self.0.iter().enumerate() {
                to.push_str(if index == 0 { "" } else { ", " });
                write_member(to, member)?;
            }
            Ok(())
        })
    }
}

/// A dictionary (RFC 9651, 3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dictionary(pub Map<Member>);

impl Dictionary {
    /// Reads a dictionary from the lines of a field; with no line it is empty.
    ///
    /// # Errors
    ///
    /// When any part is malformed or there is too much of it.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Result<Self, Error> {
        parse::whole(values, |parser| parser.dictionary())
    }

    /// The member under `key`.
    pub fn get(&self, key: &str) -> Option<&Member> {
        self.0.get(key)
    }

    /// Writes it. An empty dictionary is written as nothing at all: the field is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`].
    pub fn write(&self) -> Result<String, Error> {
        written(|to| {
            for (index, (key, member)) in self.0.iter().enumerate() {
                to.push_str(if index == 0 { "" } else { ", " });
                write_key(to, key)?;
                if let Member::Item(Item {
                    value: BareItem::Boolean(true),
                    parameters,
                }) = member
                {
                    write_parameters(to, parameters)?;
                } else {
                    to.push('=');
                    write_member(to, member)?;
                }
            }
            Ok(())
        })
    }
}

fn written(write: impl FnOnce(&mut String) -> Result<(), Error>) -> Result<String, Error> {
    let mut text = String::new();
    write(&mut text)?;
    Ok(text)
}

fn write_member(to: &mut String, member: &Member) -> Result<(), Error> {
    let list = match member {
        Member::InnerList(list) => list,
        Member::Item(item) => return write_item(to, item),
    };
    to.push('(');
    for (index, item) in list.items.iter().enumerate() {
        to.push_str(if index == 0 { "" } else { " " });
        write_item(to, item)?;
    }
    to.push(')');
    write_parameters(to, &list.parameters)
}

fn write_item(to: &mut String, item: &Item) -> Result<(), Error> {
    write_bare(to, &item.value)?;
    write_parameters(to, &item.parameters)
}

fn write_parameters(to: &mut String, parameters: &Parameters) -> Result<(), Error> {
    for (key, value) in parameters.iter() {
        to.push(';');
        write_key(to, key)?;
        if *value != BareItem::Boolean(true) {
            to.push('=');
            write_bare(to, value)?;
        }
    }
    Ok(())
}

fn write_key(to: &mut String, key: &str) -> Result<(), Error> {
    let mut bytes = key.bytes();
    let valid = bytes.next().is_some_and(parse::begins_key) && bytes.all(parse::continues_key);
    ensure(valid)?;
    to.push_str(key);
    Ok(())
}

fn write_bare(to: &mut String, value: &BareItem) -> Result<(), Error> {
    match value {
        BareItem::Boolean(truth) => to.push_str(if *truth { "?1" } else { "?0" }),
        BareItem::Bytes(bytes) => write_base64(to, bytes),
        BareItem::Date(seconds) => write_integer(to, "@", *seconds)?,
        BareItem::Decimal(thousandths) => write_decimal(to, *thousandths)?,
        BareItem::Display(text) => write_display(to, text),
        BareItem::Integer(number) => write_integer(to, "", *number)?,
        BareItem::String(text) => write_string(to, text)?,
        BareItem::Token(token) => {
            let mut bytes = token.bytes();
            ensure(bytes.next().is_some_and(parse::begins_token) && bytes.all(parse::continues_token))?;
            to.push_str(token);
        }
    }
    Ok(())
}

fn write_integer(to: &mut String, sign: &str, number: i64) -> Result<(), Error> {
    ensure(number.unsigned_abs() <= parse::INTEGER_MAX)?;
    write!(to, "{sign}{number}").map_err(|_| Error::Unwritable)
}

fn write_decimal(to: &mut String, thousandths: i64) -> Result<(), Error> {
    let size = thousandths.unsigned_abs();
    ensure(size <= parse::INTEGER_MAX)?;
    let sign = if thousandths < 0 { "-" } else { "" };
    let decimals = format!("{:03}", size % 1000);
    let decimals = match decimals.trim_end_matches('0') {
        "" => "0",
        shorter => shorter,
    };
    write!(to, "{sign}{}.{decimals}", size / 1000).map_err(|_| Error::Unwritable)
}

fn write_string(to: &mut String, text: &str) -> Result<(), Error> {
    ensure(text.bytes().all(|byte| matches!(byte, b' '..=b'~')))?;
    to.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            to.push('\\');
        }
        to.push(character);
    }
    to.push('"');
    Ok(())
}

fn write_display(to: &mut String, text: &str) {
    to.push_str("%\"");
    for byte in text.bytes() {
        if matches!(byte, b'%' | b'"') || !matches!(byte, b' '..=b'~') {
            to.push('%');
            to.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        } else {
            to.push(char::from(byte));
        }
    }
    to.push('"');
}

fn write_base64(to: &mut String, bytes: &[u8]) {
    to.push(':');
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain(&[0, 0])
            .take(3)
            .fold(0_u32, |group, &byte| group << 8 | u32::from(byte));
        for place in 0..4 {
            let sextet = (group >> (18 - 6 * place)) & 63;
            to.push(if place > chunk.len() {
                '='
            } else {
                base64_digit(sextet)
            });
        }
    }
    to.push(':');
}

fn base64_digit(sextet: u32) -> char {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    DIGITS
        .get(sextet as usize)
        .map_or('=', |&digit| char::from(digit))
}

fn ensure(valid: bool) -> Result<(), Error> {
    valid.then_some(()).ok_or(Error::Unwritable)
}

#[cfg(test)]
mod tests;
