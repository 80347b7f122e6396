//! What a raw head from S3 means: pure.
//!
//! Whatever was not asked for is an error, and so is a redirect.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::send::{Raw, Request};
use crate::origin::{AskedRange, Error, Kind};

/// What a head means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 200, or 206 with the range that was asked; `length` as announced.
    Content {
        /// The body's length, when it was said.
        length: Option<u64>,
        /// Where in the object the body begins, and the object's length, for a 206.
        place: Option<ContentRange>,
    },
    /// 304.
    NotModified,
    /// The object does not exist.
    NotFound,
    /// No leave, and no word about why: missing key or bad credentials.
    Forbidden,
}

/// Judges a head by what was asked. Whatever was not asked for is an error, and so is a redirect: following one would
/// let a bucket send us to any host.
pub(super) fn judge(raw: &Raw, request: &Request) -> Result<Verdict, Error> {
    let code = raw.code.as_deref().unwrap_or_default();
    let error = |kind| {
        Error::new(
            kind,
            format!("status {} {code}", raw.status.as_u16())
                .trim_end()
                .to_owned(),
        )
    };
    match raw.status.as_u16() {
        200 => Ok(Verdict::Content {
            length: content_length(&raw.headers)?,
            place: None,
        }),
        206 => judge_partial(raw, request),
        304 if request.is_conditional() => Ok(Verdict::NotModified),
        300..=399 if raw.status != StatusCode::NOT_MODIFIED => Err(redirect(raw)),
        404 if code == "NoSuchBucket" => Err(error(Kind::ProxyConfigurationError)),
        404 | 410 => Ok(Verdict::NotFound),
        412 if request.if_match.is_some() => Err(error(Kind::ObjectChanged)),
        416 if request.range.is_some() => Err(error(Kind::RangeRefused)),
        408 | 429 => Err(error(Kind::SlowDown).with_retry_after(retry_after(&raw.headers))),
        400..=499 => judge_refusal(raw.status, code).map_err(error),
        500..=599 => {
            let pause = retry_after(&raw.headers);
            let slow = matches!(
                code,
                "SlowDown" | "ReduceYourRequestRate" | "RequestLimitExceeded" | "ThrottlingException"
            );
            let kind = if slow || pause.is_some() {
                Kind::SlowDown
            } else {
                Kind::OriginStatus5xx
            };
            Err(error(kind).with_retry_after(pause))
        }
        _ => Err(error(Kind::HttpProtocolError)),
    }
}

fn judge_refusal(status: StatusCode, code: &str) -> Result<Verdict, Kind> {
    match code {
        "AccountProblem"
        | "AllAccessDisabled"
        | "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "NotSignedUp"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired" => Err(Kind::CredentialsRefused),
        "AuthorizationHeaderMalformed" | "InvalidBucketName" | "IllegalLocationConstraintException" => {
            Err(Kind::ProxyConfigurationError)
        }
        "KeyTooLongError" => Ok(Verdict::NotFound),
        "RequestTimeout" => Err(Kind::HttpResponseTimeout),
        // A head has no XML: an expired token shows as a bare 400.
        "" if status == StatusCode::BAD_REQUEST => Ok(Verdict::Forbidden),
        _ if status == StatusCode::FORBIDDEN || status == StatusCode::UNAUTHORIZED => Ok(Verdict::Forbidden),
        _ => Err(Kind::RequestRefused),
    }
}

fn judge_partial(raw: &Raw, request: &Request) -> Result<Verdict, Error> {
    let odd = |what: &str| Error::new(Kind::HttpProtocolError, format!("status 206 {what}"));
    let asked = request.range.ok_or_else(|| odd("although no range was asked"))?;
    let place = raw
        .headers
        .get(header::CONTENT_RANGE)
        .and_then(|value| ContentRange::parse(value.as_bytes()))
        .ok_or_else(|| odd("without a Content-Range that can be read"))?;
    if !place.answers(asked) {
        return Err(odd("with another range than was asked"));
    }
    let length = place.length();
    if content_length(&raw.headers)?.is_some_and(|announced| announced != length) {
        return Err(odd("with a Content-Length that is not its range's"));
    }
    Ok(Verdict::Content {
        length: Some(length),
        place: Some(place),
    })
}

fn redirect(raw: &Raw) -> Error {
    let region = raw
        .headers
        .get("x-amz-bucket-region")
        .and_then(|region| region.to_str().ok());
    let hint = region
        .map(|region| format!("; the bucket says that its region is {region:?}"))
        .unwrap_or_default();
    Error::new(
        Kind::RedirectRefused,
        format!("status {}{hint}", raw.status.as_u16()),
    )
}

/// The announced length; more than one that do not agree is an error (RFC 9110 8.6).
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(|value| {
        let text = value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        text.and_then(|text| text.parse::<u64>().ok())
    });
    let Some(first) = lengths.next() else {
        return Ok(None);
    };
    if first.is_none() || lengths.any(|other| other != first) {
        return Err(Error::new(
            Kind::HttpProtocolError,
            "a Content-Length that cannot be read",
        ));
    }
    Ok(first)
}

/// Retry-After in seconds (RFC 9110 10.2.3), at most an hour. S3 sends no dates there.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

/// A `Content-Range: bytes first-last/total` (RFC 9110 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: Option<u64>,
}

impl ContentRange {
    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| text.parse::<u64>().ok())?
        };
        let total = match total {
            "*" => None,
            total => Some(number(total)?),
        };
        let place = Self {
            first: number(first)?,
            last: number(last)?,
            total,
        };
        let sound = place.first <= place.last && place.last < total_or_max(place.total);
        sound.then_some(place)
    }

    fn length(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Whether this is what was asked, cut at the object's end.
    fn answers(&self, asked: AskedRange) -> bool {
        let end = self.total.map(|total| total - 1);
        match asked {
            AskedRange::From { first, last } => {
                let wanted = match (last, end) {
                    (Some(last), Some(end)) => Some(last.min(end)),
                    (last, end) => last.or(end),
                };
                self.first == first && wanted.is_none_or(|wanted| self.last == wanted)
            }
            AskedRange::Suffix(length) => {
                self.length() <= length
                    && end.is_none_or(|end| self.last == end && (self.length() == length || self.first == 0))
            }
        }
    }
}

fn total_or_max(total: Option<u64>) -> u64 {
    total.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;
    use http::HeaderValue;

    use super::*;

    fn raw(status: u16, code: &str, fields: &[(&'static str, &'static str)]) -> Raw {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Raw {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: SdkBody::empty(),
            code: (!code.is_empty()).then(|| code.to_owned()),
        }
    }

    fn ranged(first: u64, last: Option<u64>) -> Request {
        Request {
            range: Some(AskedRange::From { first, last }),
            ..Request::default()
        }
    }

    fn conditional() -> Request {
        Request {
            if_none_match: Some(HeaderValue::from_static("\"a\"")),
            ..Request::default()
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn a_head_is_judged_by_what_was_asked() {
        let plain = Request::default();
        let content = |length| Ok(Verdict::Content { length, place: None });
        let check = |status, code, fields: &[_], request: &Request, expected: Result<Verdict, Kind>| {
            let verdict = judge(&raw(status, code, fields), request).map_err(|error| error.kind);
            assert_eq!(verdict, expected, "{status} {code} {fields:?}");
        };
        check(200, "", &[], &plain, content(None));
        check(200, "", &[("content-length", "7")], &plain, content(Some(7)));
        check(
            200,
            "",
            &[("content-length", "7"), ("content-length", "7")],
            &plain,
            content(Some(7)),
        );
        check(
            200,
            "",
            &[("content-length", "7"), ("content-length", "8")],
            &plain,
            Err(Kind::HttpProtocolError),
        );
        check(
            200,
            "",
            &[("content-length", "+7")],
            &plain,
            Err(Kind::HttpProtocolError),
        );
        check(200, "", &[], &ranged(0, None), content(None));
        for odd in [201, 202, 203, 204, 205, 207, 226, 299, 600, 999] {
            check(odd, "", &[], &plain, Err(Kind::HttpProtocolError));
        }
        check(
            206,
            "",
            &[("content-range", "bytes 0-1/2")],
            &plain,
            Err(Kind::HttpProtocolError),
        );
        check(304, "", &[], &conditional(), Ok(Verdict::NotModified));
        check(304, "", &[], &plain, Err(Kind::HttpProtocolError));
        for moved in [300, 301, 302, 303, 307, 308] {
            check(
                moved,
                "",
                &[("location", "http://169.254.169.254/")],
                &conditional(),
                Err(Kind::RedirectRefused),
            );
        }
        check(404, "NoSuchKey", &[], &plain, Ok(Verdict::NotFound));
        check(404, "", &[], &plain, Ok(Verdict::NotFound));
        check(410, "", &[], &plain, Ok(Verdict::NotFound));
        check(
            404,
            "NoSuchBucket",
            &[],
            &plain,
            Err(Kind::ProxyConfigurationError),
        );
        check(403, "AccessDenied", &[], &plain, Ok(Verdict::Forbidden));
        check(403, "", &[], &plain, Ok(Verdict::Forbidden));
        check(400, "", &[], &plain, Ok(Verdict::Forbidden));
        for code in [
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "RequestTimeTooSkewed",
        ] {
            check(403, code, &[], &plain, Err(Kind::CredentialsRefused));
        }
        check(400, "ExpiredToken", &[], &plain, Err(Kind::CredentialsRefused));
        check(
            400,
            "AuthorizationHeaderMalformed",
            &[],
            &plain,
            Err(Kind::ProxyConfigurationError),
        );
        check(400, "RequestTimeout", &[], &plain, Err(Kind::HttpResponseTimeout));
        check(400, "InvalidArgument", &[], &plain, Err(Kind::RequestRefused));
        check(405, "MethodNotAllowed", &[], &plain, Err(Kind::RequestRefused));
        check(412, "", &[], &plain, Err(Kind::RequestRefused));
        check(416, "", &[], &plain, Err(Kind::RequestRefused));
        check(416, "", &[], &ranged(9, None), Err(Kind::RangeRefused));
        check(429, "", &[], &plain, Err(Kind::SlowDown));
        check(503, "SlowDown", &[], &plain, Err(Kind::SlowDown));
        check(503, "", &[("retry-after", "1")], &plain, Err(Kind::SlowDown));
        check(503, "", &[], &plain, Err(Kind::OriginStatus5xx));
        check(500, "InternalError", &[], &plain, Err(Kind::OriginStatus5xx));
    }

    #[test]
    fn a_partial_answer_must_be_the_part_that_was_asked() {
        let check = |request: &Request, value: &'static str, expected: Option<u64>| {
            let verdict = judge(&raw(206, "", &[("content-range", value)]), request);
            let length = verdict.ok().map(|verdict| match verdict {
                Verdict::Content { length, .. } => length.unwrap(),
                other => panic!("{other:?}"),
            });
            assert_eq!(length, expected, "{request:?} {value}");
        };
        check(&ranged(0, Some(9)), "bytes 0-9/100", Some(10));
        check(&ranged(0, Some(999)), "bytes 0-99/100", Some(100));
        check(&ranged(90, None), "bytes 90-99/100", Some(10));
        check(&ranged(90, None), "bytes 90-99/*", Some(10));
        check(&ranged(0, Some(9)), "bytes 1-9/100", None);
        check(&ranged(0, Some(9)), "bytes 0-8/100", None);
        check(&ranged(90, None), "bytes 90-98/100", None);
        check(&ranged(0, Some(9)), "bytes 0-9/9", None);
        check(&ranged(0, Some(9)), "bytes 9-0/100", None);
        check(&ranged(0, Some(9)), "bytes */100", None);
        check(&ranged(0, None), "bytes 0-18446744073709551615/*", None);
        check(&ranged(0, None), "bytes 0-0/0", None);
        check(&ranged(0, Some(9)), "octets 0-9/100", None);
        let suffix = Request {
            range: Some(AskedRange::Suffix(10)),
            ..Request::default()
        };
        check(&suffix, "bytes 90-99/100", Some(10));
        check(&suffix, "bytes 0-4/5", Some(5));
        check(&suffix, "bytes 80-89/100", None);
        check(&suffix, "bytes 95-99/100", None);
    }

    #[test]
    fn retry_after_is_bounded() {
        let check = |value, expected: Option<u64>| {
            let seen = retry_after(&raw(503, "", &[("retry-after", value)]).headers);
            assert_eq!(seen, expected.map(Duration::from_secs), "{value}");
        };
        check("7", Some(7));
        check("99999999", Some(3600));
        check("-1", None);
        check("soon", None);
    }
}
