//! What of S3's header section goes on: content, validators, caching, and tags. All else is the bucket's own noise.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::media;

/// Fields that go on under their own name. `Vary` does not: no field of a client ever reaches the bucket, so its
/// answer cannot vary by one.
const KEPT: [HeaderName; 10] = [
    header::AGE,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
];

/// User metadata that stands for a field which S3 cannot store.
const TRANSLATED: [(&str, HeaderName); 3] = [
    ("x-amz-meta-cache-tag", HeaderName::from_static("cache-tag")),
    (
        "x-amz-meta-cdn-cache-control",
        HeaderName::from_static("cdn-cache-control"),
    ),
    (
        "x-amz-meta-surrogate-key",
        HeaderName::from_static("surrogate-key"),
    ),
];

/// The fields of an answer with content: a 200 or a 206.
pub(super) fn of_content(raw: &HeaderMap, path: &str) -> HeaderMap {
    let mut headers = pick(raw);
    let media_type = media::correct(headers.get(header::CONTENT_TYPE), path);
    headers.insert(header::CONTENT_TYPE, media_type);
    headers
}

/// The fields of a 304, which freshen what is stored: a media type is put right, but never made up.
pub(super) fn of_not_modified(raw: &HeaderMap, path: &str) -> HeaderMap {
    let mut headers = pick(raw);
    headers.remove(header::CONTENT_RANGE);
    if let Some(said) = headers.get(header::CONTENT_TYPE) {
        let media_type = media::correct(Some(said), path);
        headers.insert(header::CONTENT_TYPE, media_type);
    }
    headers
}

/// The fields of a 404: nothing of the bucket's but the time.
pub(super) fn of_not_found(raw: &HeaderMap) -> HeaderMap {
    raw.get(header::DATE)
        .map(|date| (header::DATE, date.clone()))
        .into_iter()
        .collect()
}

fn pick(raw: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in KEPT {
        for value in raw.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (metadata, name) in TRANSLATED {
        for value in raw.get_all(metadata) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(coding) = content_encoding(raw) {
        headers.insert(header::CONTENT_ENCODING, coding);
    }
    headers
}

/// Content-Encoding without `aws-chunked`: a coding of uploads that some stores keep by mistake.
fn content_encoding(raw: &HeaderMap) -> Option<HeaderValue> {
    let values: Vec<_> = raw.get_all(header::CONTENT_ENCODING).iter().collect();
    let texts: Option<Vec<&str>> = values.iter().map(|value| value.to_str().ok()).collect();
    let Some(texts) = texts else {
        return values.first().map(|value| (*value).clone());
    };
    let codings: Vec<&str> = texts
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!codings.is_empty()).then(|| HeaderValue::from_str(&codings.join(", ")).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const NOISY: &[(&str, &str)] = &[
        ("x-amz-id-2", "secret"),
        ("x-amz-request-id", "R"),
        ("x-amz-version-id", "v"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-meta-owner", "somebody"),
        ("x-amz-meta-surrogate-key", "a b"),
        ("x-amz-meta-cache-tag", "c,d"),
        ("x-amz-meta-cdn-cache-control", "max-age=9"),
        ("x-amz-website-redirect-location", "/elsewhere"),
        ("server", "AmazonS3"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "a=b"),
        ("accept-ranges", "bytes"),
        ("vary", "Origin"),
        ("content-length", "3"),
        ("content-type", "binary/octet-stream"),
        ("content-encoding", "gzip"),
        ("content-encoding", "aws-chunked"),
        ("cache-control", "max-age=60"),
        ("etag", "\"abc\""),
        ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("date", "Thu, 01 Jan 1970 00:00:01 GMT"),
        ("expires", "0"),
    ];

    #[test]
    fn only_what_clients_need_goes_on() {
        let headers = of_content(&map(NOISY), "/client/w.js");
        let expected = map(&[
            ("content-type", "text/javascript; charset=utf-8"),
            ("content-encoding", "gzip"),
            ("cache-control", "max-age=60"),
            ("etag", "\"abc\""),
            ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("date", "Thu, 01 Jan 1970 00:00:01 GMT"),
            ("expires", "0"),
            ("surrogate-key", "a b"),
            ("cache-tag", "c,d"),
            ("cdn-cache-control", "max-age=9"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_304_has_no_media_type_that_the_bucket_did_not_say() {
        assert!(!of_not_modified(&map(&[("etag", "\"a\"")]), "/a.js").contains_key("content-type"));
        let headers = of_not_modified(&map(NOISY), "/a.css");
        assert_eq!(headers["content-type"], "text/css; charset=utf-8");
    }

    #[test]
    fn a_404_keeps_only_the_time() {
        let headers = of_not_found(&map(NOISY));
        assert_eq!(headers, map(&[("date", "Thu, 01 Jan 1970 00:00:01 GMT")]));
    }

    #[test]
    fn a_coding_of_uploads_alone_is_no_coding() {
        let coding = |value| content_encoding(&map(&[("content-encoding", value)]));
        assert_eq!(coding("aws-chunked"), None);
        assert_eq!(coding("br, AWS-chunked").unwrap(), "br");
        assert_eq!(coding(""), None);
    }
}
