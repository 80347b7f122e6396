//! Reading structured fields: the algorithms of RFC 9651, 4.2, one function each.

use http::HeaderValue;

use super::{
    BareItem, Dictionary, Error, InnerList, Item, LENGTH_MAX, List, MEMBERS_MAX, Map, Member, PARAMETERS_MAX,
    Parameters,
};
use crate::fields::lists::is_token_byte;

/// Fifteen digits.
pub(super) const INTEGER_MAX: u64 = 999_999_999_999_999;

/// Joins the lines of a field, reads them with `read`, and fails if anything is left over.
pub(super) fn whole<'a, T>(
    values: impl IntoIterator<Item = &'a HeaderValue>,
    read: impl FnOnce(&mut Parser<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut values = values.into_iter();
    let first = values.next().map_or(&[][..], HeaderValue::as_bytes);
    let mut joined = Vec::new();
    for value in values {
        if joined.is_empty() {
            joined.extend_from_slice(first);
        }
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value.as_bytes());
        if joined.len() > LENGTH_MAX {
            return Err(Error::TooLarge);
        }
    }
    let bytes = if joined.is_empty() { first } else { &joined };
    if bytes.len() > LENGTH_MAX {
        return Err(Error::TooLarge);
    }
    let mut parser = Parser { bytes, at: 0 };
    parser.skip_spaces();
    let value = read(&mut parser)?;
    parser.skip_spaces();
    parser.expect_end()?;
    Ok(value)
}

pub(super) const fn begins_key(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'*')
}

pub(super) const fn continues_key(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')
}

pub(super) const fn begins_token(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'*'
}

pub(super) const fn continues_token(byte: u8) -> bool {
    is_token_byte(byte) || matches!(byte, b':' | b'/')
}

pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    /// RFC 9651, 4.2.1.
    pub(super) fn list(&mut self) -> Result<List, Error> {
        let mut members = Vec::new();
        while self.peek().is_some() {
            if members.len() == MEMBERS_MAX {
                return Err(Error::TooLarge);
            }
            members.push(self.member()?);
            self.comma()?;
        }
        Ok(List(members))
    }

    /// RFC 9651, 4.2.2.
    pub(super) fn dictionary(&mut self) -> Result<Dictionary, Error> {
        let mut members = Map::default();
        while self.peek().is_some() {
            let key = self.key()?;
            let member = if self.take(b'=') {
                self.member()?
            } else {
                Member::Item(Item {
                    value: BareItem::Boolean(true),
                    parameters: self.parameters()?,
                })
            };
            members.insert(key, member);
            if members.len() > MEMBERS_MAX {
                return Err(Error::TooLarge);
            }
            self.comma()?;
        }
        Ok(Dictionary(members))
    }

    /// RFC 9651, 4.2.3.
    pub(super) fn item(&mut self) -> Result<Item, Error> {
        Ok(Item {
            value: self.bare_item()?,
            parameters: self.parameters()?,
        })
    }

    /// RFC 9651, 4.2.1.1.
    fn member(&mut self) -> Result<Member, Error> {
        if self.peek() == Some(b'(') {
            return self.inner_list().map(Member::InnerList);
        }
        self.item().map(Member::Item)
    }

    /// RFC 9651, 4.2.1.2.
    fn inner_list(&mut self) -> Result<InnerList, Error> {
        self.expect(b'(')?;
        let mut items = Vec::new();
        loop {
            self.skip_spaces();
            if self.take(b')') {
                let parameters = self.parameters()?;
                return Ok(InnerList { items, parameters });
            }
            if items.len() == MEMBERS_MAX {
                return Err(Error::TooLarge);
            }
            items.push(self.item()?);
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return Err(self.malformed());
            }
        }
    }

    /// What stands between two members; a comma must have a member behind it.
    fn comma(&mut self) -> Result<(), Error> {
        self.skip_ows();
        if self.peek().is_none() {
            return Ok(());
        }
        self.expect(b',')?;
        self.skip_ows();
        match self.peek() {
            Some(_) => Ok(()),
            None => Err(self.malformed()),
        }
    }

    /// RFC 9651, 4.2.3.1.
    fn bare_item(&mut self) -> Result<BareItem, Error> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'"') => self.string().map(BareItem::String),
            Some(b':') => self.byte_sequence().map(BareItem::Bytes),
            Some(b'?') => self.boolean().map(BareItem::Boolean),
            Some(b'@') => self.date().map(BareItem::Date),
            Some(b'%') => self.display_string().map(BareItem::Display),
            Some(byte) if begins_token(byte) => {
                Ok(BareItem::Token(self.text_while(continues_token).to_owned()))
            }
            _ => Err(self.malformed()),
        }
    }

    /// RFC 9651, 4.2.3.2.
    fn parameters(&mut self) -> Result<Parameters, Error> {
        let mut parameters = Parameters::default();
        while self.take(b';') {
            self.skip_spaces();
            let key = self.key()?;
            let value = if self.take(b'=') {
                self.bare_item()?
            } else {
                BareItem::Boolean(true)
            };
            parameters.insert(key, value);
            if parameters.len() > PARAMETERS_MAX {
                return Err(Error::TooLarge);
            }
        }
        Ok(parameters)
    }

    /// RFC 9651, 4.2.3.3.
    fn key(&mut self) -> Result<&'a str, Error> {
        match self.peek() {
            Some(byte) if begins_key(byte) => Ok(self.text_while(continues_key)),
            _ => Err(self.malformed()),
        }
    }

    /// RFC 9651, 4.2.4.
    fn number(&mut self) -> Result<BareItem, Error> {
        let sign = if self.take(b'-') { -1 } else { 1 };
        let whole = self.digits(15)?;
        if !self.take(b'.') {
            return Ok(BareItem::Integer(sign * whole.0));
        }
        if whole.1 > 12 {
            return Err(self.malformed());
        }
        let (decimals, count) = self.digits(3)?;
        let scale = if count == 1 {
            100
        } else if count == 2 {
            10
        } else {
            1
        };
        Ok(BareItem::Decimal(sign * (whole.0 * 1000 + decimals * scale)))
    }

    /// A number of one to `count_max` digits, and how many they are.
    fn digits(&mut self, count_max: usize) -> Result<(i64, usize), Error> {
        let text = self.text_while(|byte| byte.is_ascii_digit());
        if text.is_empty() || text.len() > count_max {
            return Err(self.malformed());
        }
        let number = text.parse().map_err(|_| self.malformed())?;
        Ok((number, text.len()))
    }

    /// RFC 9651, 4.2.5.
    fn string(&mut self) -> Result<String, Error> {
        self.expect(b'"')?;
        let mut text = String::new();
        loop {
            match self.next() {
                Some(b'"') => return Ok(text),
                Some(b'\\') => match self.next() {
                    Some(escaped @ (b'"' | b'\\')) => text.push(char::from(escaped)),
                    _ => return Err(self.malformed()),
                },
                Some(byte @ b' '..=b'~') => text.push(char::from(byte)),
                _ => return Err(self.malformed()),
            }
        }
    }

    /// RFC 9651, 4.2.7. Padding may be missing, and the bits it leaves over may be set, as that section advises.
    fn byte_sequence(&mut self) -> Result<Vec<u8>, Error> {
        self.expect(b':')?;
        let digits = self.text_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        let padding = self.text_while(|byte| byte == b'=');
        let padded = (digits.len() + padding.len()).is_multiple_of(4) && padding.len() <= 2;
        let whole = digits.len() % 4 != 1 && (padding.is_empty() || padded);
        if !whole || !self.take(b':') {
            return Err(self.malformed());
        }
        let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
        let (mut bits, mut held) = (0_u32, 0_u32);
        for digit in digits.bytes() {
            bits = (bits << 6 | sextet(digit)) & 0xffff;
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(bits >> held & 0xff).unwrap_or(0));
            }
        }
        Ok(bytes)
    }

    /// RFC 9651, 4.2.8.
    fn boolean(&mut self) -> Result<bool, Error> {
        self.expect(b'?')?;
        match self.next() {
            Some(b'1') => Ok(true),
            Some(b'0') => Ok(false),
            _ => Err(self.malformed()),
        }
    }

    /// RFC 9651, 4.2.9.
    fn date(&mut self) -> Result<i64, Error> {
        self.expect(b'@')?;
        match self.number()? {
            BareItem::Integer(seconds) => Ok(seconds),
            _ => Err(self.malformed()),
        }
    }

    /// RFC 9651, 4.2.10.
    fn display_string(&mut self) -> Result<String, Error> {
        self.expect(b'%')?;
        self.expect(b'"')?;
        let mut bytes = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => return String::from_utf8(bytes).map_err(|_| self.malformed()),
                Some(b'%') => {
                    let (high, low) = (self.hex_digit()?, self.hex_digit()?);
                    bytes.push(high << 4 | low);
                }
                Some(byte @ b' '..=b'~') => bytes.push(byte),
                _ => return Err(self.malformed()),
            }
        }
    }

    fn hex_digit(&mut self) -> Result<u8, Error> {
        match self.next() {
            Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
            Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
            _ => Err(self.malformed()),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }

    fn expect_end(&self) -> Result<(), Error> {
        if self.peek().is_none() {
            return Ok(());
        }
        Err(self.malformed())
    }

    fn skip_spaces(&mut self) {
        while self.take(b' ') {}
    }

    fn skip_ows(&mut self) {
        while self.take(b' ') || self.take(b'\t') {}
    }

    /// The longest run of ASCII bytes that `belongs` admits; it is never asked about any other byte.
    fn text_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let length = rest
            .iter()
            .position(|&byte| !byte.is_ascii() || !belongs(byte))
            .unwrap_or(rest.len());
        self.at += length;
        rest.get(..length)
            .and_then(|run| std::str::from_utf8(run).ok())
            .unwrap_or("")
    }

    fn malformed(&self) -> Error {
        Error::Malformed(self.at)
    }
}

fn sextet(digit: u8) -> u32 {
    u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        _ => 63,
    })
}
