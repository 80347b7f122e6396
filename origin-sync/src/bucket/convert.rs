//! Between the words of `s3s` and those of the store: errors, metadata, conditions, times.

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, header};
use s3s::dto::{ETag, ETagCondition, Metadata, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};

use super::condition::Expect;
use super::store::{Meta, PartFault, Record, StoreError};

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NoSuchBucket(_) => S3ErrorCode::NoSuchBucket,
            StoreError::BucketExists(_) => S3ErrorCode::BucketAlreadyOwnedByYou,
            StoreError::BucketNotEmpty(_) => S3ErrorCode::BucketNotEmpty,
            StoreError::BucketName(_) => S3ErrorCode::InvalidBucketName,
            StoreError::NoSuchKey => S3ErrorCode::NoSuchKey,
            StoreError::KeyLength => S3ErrorCode::KeyTooLongError,
            StoreError::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            StoreError::Precondition => S3ErrorCode::PreconditionFailed,
            StoreError::Part(PartFault::Unknown) => S3ErrorCode::InvalidPart,
            StoreError::Part(PartFault::Order) => S3ErrorCode::InvalidPartOrder,
            StoreError::Part(PartFault::TooSmall) => S3ErrorCode::EntityTooSmall,
            StoreError::Vanished => S3ErrorCode::SlowDown,
            StoreError::InUse(_) | StoreError::Disk(..) => S3ErrorCode::InternalError,
        };
        if let StoreError::Disk(_, cause) = &error {
            tracing::error!(%error, %cause, "the bucket failed");
        }
        Self::with_message(code, error.to_string())
    }
}

/// What went wrong while the body of a request was read. `s3s` keeps the types of these errors to itself, so they
/// are told apart by what they say.
pub(super) fn body_error(error: &StdError) -> S3Error {
    let text = error.to_string();
    let code = if text.contains("Sha256Mismatch") {
        S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into())
    } else if text.contains("SignatureMismatch") {
        S3ErrorCode::SignatureDoesNotMatch
    } else if text.contains("FormatError") || text.contains("TooLarge") || text.contains("TooMany") {
        S3ErrorCode::InvalidRequest
    } else {
        S3ErrorCode::IncompleteBody
    };
    let mut answer = S3Error::with_message(code, format!("the body of the request is not usable: {text}"));
    answer.set_status_code(match answer.code() {
        S3ErrorCode::SignatureDoesNotMatch => http::StatusCode::FORBIDDEN,
        _ => http::StatusCode::BAD_REQUEST,
    });
    answer
}

/// The conditions of a write.
pub(super) fn expect(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Expect> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Expect::Anything),
        (None, Some(ETagCondition::Any)) => Ok(Expect::Absent),
        (Some(ETagCondition::Any), None) => Ok(Expect::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Expect::Etag(etag.into_value())),
        (None, Some(ETagCondition::ETag(_))) => Err(s3_error!(
            NotImplemented,
            "If-None-Match takes only * when writing"
        )),
        (Some(_), Some(_)) => Err(s3_error!(
            InvalidRequest,
            "If-Match and If-None-Match exclude each other"
        )),
    }
}

/// The fields of [`Meta`] out of the headers of a request. `aws-chunked` is how the body travelled, not what it is.
pub(super) fn meta(headers: &HeaderMap, user: Option<Metadata>) -> Meta {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
            .map(str::to_owned)
    };
    let coding = text(header::CONTENT_ENCODING).map(|list| {
        let kept = list
            .split(',')
            .map(str::trim)
            .filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked"));
        kept.collect::<Vec<_>>().join(", ")
    });
    Meta {
        content_type: text(header::CONTENT_TYPE),
        cache_control: text(header::CACHE_CONTROL),
        content_encoding: coding.filter(|coding| !coding.is_empty()),
        content_language: text(header::CONTENT_LANGUAGE),
        content_disposition: text(header::CONTENT_DISPOSITION),
        expires: text(header::EXPIRES),
        user: user.unwrap_or_default().into_iter().collect(),
    }
}

/// The `x-amz-meta-*` of an object, as `s3s` has them.
pub(super) fn user_metadata(meta: &Meta) -> Option<Metadata> {
    (!meta.user.is_empty()).then(|| meta.user.clone().into_iter().collect())
}

/// `Expires` of an object; nothing when it is no date.
pub(super) fn expires(meta: &Meta) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, meta.expires.as_deref()?).ok()
}

/// The entity tag of an object.
pub(super) fn etag(record: &Record) -> ETag {
    ETag::Strong(record.etag.clone())
}

/// A time that a client stated, to compare with.
pub(super) fn system_time(timestamp: Timestamp) -> SystemTime {
    let seconds = {
        let mut text = Vec::new();
        let formatted = timestamp.format(TimestampFormat::EpochSeconds, &mut text);
        let text = String::from_utf8(text).unwrap_or_default();
        let whole = text.split('.').next().and_then(|whole| whole.parse::<u64>().ok());
        formatted.ok().and(whole).unwrap_or_default()
    };
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

/// A number of bytes, as the S3 API counts them.
pub(super) fn size(bytes: u64) -> Option<i64> {
    i64::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transfer_coding_of_an_upload_is_not_stored() {
        let check = |sent: &'static str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(sent))]);
            assert_eq!(
                meta(&headers, None).content_encoding.as_deref(),
                expected,
                "{sent}"
            );
        };
        check("aws-chunked", None);
        check("gzip", Some("gzip"));
        check("aws-chunked,gzip", Some("gzip"));
        check("gzip, br, aws-chunked", Some("gzip, br"));
    }

    #[test]
    fn stated_times_are_whole_seconds() {
        let timestamp = Timestamp::parse(TimestampFormat::HttpDate, "Thu, 01 Jan 1970 00:01:40 GMT").unwrap();
        assert_eq!(
            system_time(timestamp),
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(100)
        );
    }
}
