//! What a read is answered with: which bytes, what is said of them, or why not.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header};
use s3s::dto::{GetObjectOutput, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::condition::{Preconditions, Verdict};
use super::convert::{etag, expires, user_metadata};
use super::store::Record;

/// Which bytes of an object are asked for.
pub(super) struct Selection {
    pub(super) range: Range<u64>,
    partial: bool,
    pub(super) parts_count: Option<i32>,
}

impl Selection {
    /// The bytes of a range, of a part, or all of them.
    pub(super) fn of(record: &Record, range: Option<&s3s::dto::Range>, part: Option<i32>) -> S3Result<Self> {
        let whole = || Self {
            range: 0..record.size,
            partial: false,
            parts_count: None,
        };
        if let Some(number) = part {
            return Self::part(record, number).ok_or_else(|| unsatisfiable(record));
        }
        let Some(range) = range else { return Ok(whole()) };
        let range = range.check(record.size).map_err(|_| unsatisfiable(record))?;
        if range.is_empty() {
            return Err(unsatisfiable(record));
        }
        Ok(Self {
            range,
            partial: true,
            parts_count: None,
        })
    }

    fn part(record: &Record, number: i32) -> Option<Self> {
        if record.parts.is_empty() {
            return (number == 1 && record.size > 0).then_some(Self {
                range: 0..record.size,
                partial: true,
                parts_count: None,
            });
        }
        let before = usize::try_from(number).ok()?.checked_sub(1)?;
        let length = record.parts.get(before)?;
        let start: u64 = record.parts.iter().take(before).sum();
        let parts_count = i32::try_from(record.parts.len()).ok();
        Some(Self {
            range: start..start + length,
            partial: true,
            parts_count,
        })
    }

    /// `Content-Range`, unless all bytes are meant.
    pub(super) fn content_range(&self, record: &Record) -> Option<String> {
        let last = self.range.end.saturating_sub(1);
        self.partial
            .then(|| format!("bytes {}-{last}/{}", self.range.start, record.size))
    }
}

/// 304 and 412, with the fields that RFC 9110 section 15.4.5 wants of a 304.
pub(super) fn judge(preconditions: &Preconditions, record: &Record) -> S3Result<()> {
    match preconditions.judge(&record.etag, record.modified()) {
        Verdict::Proceed => Ok(()),
        Verdict::Failed => Err(s3_error!(
            PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold"
        )),
        Verdict::NotModified => {
            let mut error = S3Error::new(S3ErrorCode::NotModified);
            let mut headers = HeaderMap::new();
            let quoted = format!("\"{}\"", record.etag);
            let modified: Timestamp = record.modified().into();
            let mut date = Vec::new();
            if modified.format(TimestampFormat::HttpDate, &mut date).is_ok() {
                insert(&mut headers, header::LAST_MODIFIED, &date);
            }
            insert(&mut headers, header::ETAG, quoted.as_bytes());
            if let Some(value) = &record.meta.cache_control {
                insert(&mut headers, header::CACHE_CONTROL, value.as_bytes());
            }
            if let Some(value) = &record.meta.expires {
                insert(&mut headers, header::EXPIRES, value.as_bytes());
            }
            error.set_headers(headers);
            Err(error)
        }
    }
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(name, value);
    }
}

fn unsatisfiable(record: &Record) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    let mut headers = HeaderMap::new();
    insert(&mut headers, header::CONTENT_TYPE, b"application/xml");
    insert(
        &mut headers,
        header::CONTENT_RANGE,
        format!("bytes */{}", record.size).as_bytes(),
    );
    error.set_headers(headers);
    error
}

/// What is said of an object whether or not its body follows.
pub(super) fn describe(record: &Record) -> GetObjectOutput {
    let meta = &record.meta;
    GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: meta.cache_control.clone(),
        content_disposition: meta.content_disposition.clone(),
        content_encoding: meta.content_encoding.clone(),
        content_language: meta.content_language.clone(),
        content_type: Some(
            meta.content_type
                .clone()
                .unwrap_or_else(|| "binary/octet-stream".to_owned()),
        ),
        e_tag: Some(etag(record)),
        expires: expires(meta),
        last_modified: Some(record.modified().into()),
        metadata: user_metadata(meta),
        ..GetObjectOutput::default()
    }
}
