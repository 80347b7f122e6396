//! Whether a head is a sound answer to what was asked: pure.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

use crate::fields::lists;
use crate::origin::{Ask, Error, Kind};

/// Judges a head; returns the announced length.
///
/// # Errors
///
/// Why it is no answer to `ask`.
pub fn judge(status: StatusCode, fields: &HeaderMap, ask: &Ask) -> Result<Option<u64>, Error> {
    let odd = |what: &str| Err(Error::new(Kind::HttpProtocolError, what));
    let length = check_framing(fields)?;
    match status.as_u16() {
        206 if ask.range.is_none() => odd("status 206 although no range was asked"),
        304 if ask.condition.is_none() => odd("status 304 although nothing was to be validated"),
        200..=599 => Ok(length),
        other => odd(&format!("status {other} ends no exchange")),
    }
}

/// Judges the head of an answer to a request that was passed on as it was: the client knows what it asked for.
///
/// # Errors
///
/// Why it is no answer at all.
pub fn judge_relayed(status: StatusCode, fields: &HeaderMap) -> Result<Option<u64>, Error> {
    let length = check_framing(fields)?;
    match status.as_u16() {
        200..=599 => Ok(length),
        other => Err(Error::new(
            Kind::HttpProtocolError,
            format!("status {other} ends no exchange"),
        )),
    }
}

/// RFC 9112 6.1 and 6.3: a message whose length two readers could see differently is an attack or a fault, and a coding of
/// the transfer that nobody asked for cannot be taken off.
fn check_framing(fields: &HeaderMap) -> Result<Option<u64>, Error> {
    let odd = |what: &str| Err(Error::new(Kind::HttpProtocolError, what));
    let length = content_length(fields)?;
    if !fields.contains_key(TRANSFER_ENCODING) {
        return Ok(length);
    }
    if length.is_some() {
        return odd("Content-Length beside Transfer-Encoding");
    }
    let mut codings = lists::members(fields.get_all(TRANSFER_ENCODING));
    let is_chunked = codings
        .next()
        .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    match is_chunked && codings.next().is_none() {
        true => Ok(None),
        false => odd("a Transfer-Encoding other than chunked"),
    }
}

/// The announced length. RFC 9110 8.6: a list of the same number may be taken for one; here it is refused, for no
/// sound server sends it.
fn content_length(fields: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut values = fields.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = value
        .to_str()
        .ok()
        .filter(digits)
        .and_then(|text| text.parse().ok());
    match (length, values.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(Error::new(
            Kind::HttpProtocolError,
            "a Content-Length that cannot be read",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::origin::{AskedRange, Condition};

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn every_final_status_is_an_answer_but_for_what_was_not_asked() {
        let plain = Ask::default();
        let ranged = Ask {
            range: Some(AskedRange::Suffix(1)),
            ..Ask::default()
        };
        let conditional = Ask {
            condition: Some(Condition {
                etag: None,
                last_modified: None,
                source: "a".into(),
            }),
            ..Ask::default()
        };
        let check = |status: u16, ask: &Ask, expected: bool| {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                judge(status, &HeaderMap::new(), ask).is_ok(),
                expected,
                "{status}"
            );
        };
        for status in [200, 204, 299, 301, 307, 399, 404, 416, 418, 500, 503, 599] {
            check(status, &plain, true);
        }
        check(206, &plain, false);
        check(206, &ranged, true);
        check(304, &plain, false);
        check(304, &conditional, true);
        for status in [101, 199, 600, 999] {
            check(status, &plain, false);
        }
    }

    #[test]
    fn a_length_that_two_readers_could_see_differently_is_no_answer() {
        let check = |pairs: &[(&'static str, &'static str)], expected: Option<Option<u64>>| {
            let seen = judge(StatusCode::OK, &fields(pairs), &Ask::default());
            assert_eq!(seen.ok(), expected, "{pairs:?}");
        };
        check(&[], Some(None));
        check(&[("content-length", "0")], Some(Some(0)));
        check(&[("content-length", "12")], Some(Some(12)));
        check(&[("transfer-encoding", "chunked")], Some(None));
        check(&[("transfer-encoding", "Chunked")], Some(None));
        for bad in ["", "+1", "-1", "0x1", "1, 1", "1 ", "99999999999999999999"] {
            check(&[("content-length", bad)], None);
        }
        check(&[("content-length", "1"), ("content-length", "1")], None);
        check(&[("content-length", "1"), ("transfer-encoding", "chunked")], None);
        check(&[("transfer-encoding", "gzip, chunked")], None);
        check(&[("transfer-encoding", "gzip")], None);
        check(
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            None,
        );
        check(&[("transfer-encoding", "xchunked")], None);
    }
}
