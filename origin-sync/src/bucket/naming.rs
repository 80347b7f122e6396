//! How a listing is asked for and written down: limits, and names that XML can hold.

use std::sync::Arc;

use s3s::dto::{CommonPrefix, EncodingType, Object, ObjectStorageClass};
use s3s::{S3Result, s3_error};

use super::convert::{etag, size};
use super::listing::{After, Page, Query};
use super::store::Record;

/// A page never holds more.
const KEYS_MAX: i32 = 1000;

/// What is asked of the store, and the limit that is stated in the answer.
pub(super) fn query(
    prefix: Option<&str>,
    delimiter: Option<&str>,
    max_keys: Option<i32>,
    after: Option<After>,
) -> S3Result<(Query, i32)> {
    let max_keys = max_keys.unwrap_or(KEYS_MAX).min(KEYS_MAX);
    let limit =
        usize::try_from(max_keys).map_err(|_| s3_error!(InvalidArgument, "max-keys must not be negative"))?;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Ok((
        Query {
            prefix: text(prefix),
            delimiter: text(delimiter),
            after,
            limit,
        },
        max_keys,
    ))
}

/// How names are written in a listing: percent-encoded if the client asked for it, because XML cannot hold every
/// character that a key can.
pub(super) struct Names {
    encoded: bool,
}

impl Names {
    /// As the client asked.
    pub(super) fn of(encoding: Option<&EncodingType>) -> Self {
        Self {
            encoded: encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL),
        }
    }

    /// One name.
    pub(super) fn write(&self, name: &str) -> String {
        if !self.encoded {
            return name.to_owned();
        }
        let mut text = String::with_capacity(name.len());
        for byte in name.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => {
                    text.push(char::from(byte));
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
        text
    }

    /// The entries of a page.
    pub(super) fn entries(&self, page: &Page<Arc<Record>>) -> (Vec<Object>, Vec<CommonPrefix>) {
        let object = |record: &Arc<Record>| Object {
            key: Some(self.write(&record.key)),
            e_tag: Some(etag(record)),
            last_modified: Some(record.modified().into()),
            size: size(record.size),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..Object::default()
        };
        let prefix = |prefix: &String| CommonPrefix {
            prefix: Some(self.write(prefix)),
        };
        (
            page.entries.iter().map(object).collect(),
            page.prefixes.iter().map(prefix).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_when_the_client_asks_for_it() {
        let check = |encoded: bool, name: &str, expected: &str| {
            assert_eq!(Names { encoded }.write(name), expected);
        };
        check(false, "a b+ü", "a b+ü");
        check(true, "a/b-c_d.e*", "a/b-c_d.e*");
        check(true, "a b+ü%\u{1}", "a%20b%2B%C3%BC%25%01");
    }

    #[test]
    fn a_page_has_at_most_a_thousand_keys() {
        let limit = |max_keys| {
            query(None, None, max_keys, None)
                .map(|(query, stated)| (query.limit, stated))
                .ok()
        };
        assert_eq!(limit(None), Some((1000, 1000)));
        assert_eq!(limit(Some(7)), Some((7, 7)));
        assert_eq!(limit(Some(0)), Some((0, 0)));
        assert_eq!(limit(Some(5000)), Some((1000, 1000)));
        assert_eq!(limit(Some(-1)), None);
    }
}
