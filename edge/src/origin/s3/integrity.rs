//! Whether the bytes that came are the bytes that were stored.
//!
//! S3 sends a checksum with every whole object that has one (all that were uploaded since December 2024 do). Without
//! one, the ETag of an object in one part is its MD5, unless it is encrypted with a key of KMS or of the customer, or
//! lies in a directory bucket. Stores that are merely compatible may make ETags of any kind: there they are trusted
//! to be MD5s only once one was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_smithy_checksums::ChecksumAlgorithm;
use aws_smithy_checksums::http::HttpChecksum;
use http::{HeaderMap, header};
use md5::{Digest, Md5};

use crate::origin::{Error, Kind};

/// In order of what they cost.
const ALGORITHMS: [(&str, ChecksumAlgorithm); 5] = [
    ("x-amz-checksum-crc64nvme", ChecksumAlgorithm::Crc64Nvme),
    ("x-amz-checksum-crc32c", ChecksumAlgorithm::Crc32c),
    ("x-amz-checksum-crc32", ChecksumAlgorithm::Crc32),
    ("x-amz-checksum-sha1", ChecksumAlgorithm::Sha1),
    ("x-amz-checksum-sha256", ChecksumAlgorithm::Sha256),
];

/// Whether the ETags of a bucket are known to be MD5s. Shared by all bodies of the bucket.
#[derive(Clone, Debug)]
pub(super) struct Md5Etags(Arc<AtomicBool>);

impl Md5Etags {
    pub(super) fn new(known: bool) -> Self {
        Self(Arc::new(AtomicBool::new(known)))
    }
}

/// A check that runs along with a body.
pub(super) struct Check {
    running: Running,
    expected: String,
}

enum Running {
    Checksum(Box<dyn HttpChecksum>),
    Md5(Md5, Md5Etags),
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl Check {
    /// The check that the header section of a whole object calls for, if it calls for one.
    pub(super) fn of(headers: &HeaderMap, etags: &Md5Etags) -> Option<Self> {
        Self::of_checksum(headers).or_else(|| Self::of_etag(headers, etags))
    }

    fn of_checksum(headers: &HeaderMap) -> Option<Self> {
        let composite = headers
            .get("x-amz-checksum-type")
            .is_some_and(|kind| kind.as_bytes() != b"FULL_OBJECT");
        if composite {
            return None;
        }
        ALGORITHMS.into_iter().find_map(|(name, algorithm)| {
            let expected = headers.get(name)?.to_str().ok()?;
            // `<checksum of checksums>-<parts>` says nothing about the whole.
            (!expected.contains('-')).then(|| Self {
                running: Running::Checksum(algorithm.into_impl()),
                expected: expected.to_owned(),
            })
        })
    }

    fn of_etag(headers: &HeaderMap, etags: &Md5Etags) -> Option<Self> {
        let foreign_key = headers
            .get("x-amz-server-side-encryption")
            .is_some_and(|kind| kind.as_bytes() != b"AES256")
            || headers.contains_key("x-amz-server-side-encryption-customer-algorithm");
        if foreign_key {
            return None;
        }
        let expected = headers
            .get(header::ETAG)?
            .to_str()
            .ok()?
            .strip_prefix('"')?
            .strip_suffix('"')?;
        let is_md5 = expected.len() == 32
            && expected
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_md5.then(|| Self {
            running: Running::Md5(Md5::new(), etags.clone()),
            expected: expected.to_owned(),
        })
    }

    /// More of the body came.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.running {
            Running::Checksum(checksum) => checksum.update(bytes),
            Running::Md5(md5, _) => md5.update(bytes),
        }
    }

    /// The body has ended.
    pub(super) fn finish(self) -> Result<(), Error> {
        let (name, seen) = match self.running {
            Running::Checksum(checksum) => {
                let name = checksum.header_name();
                let seen = checksum.header_value();
                (name, seen.to_str().unwrap_or_default().to_owned())
            }
            Running::Md5(md5, known) => {
                let seen = hex::encode(md5.finalize());
                if seen == self.expected {
                    known.0.store(true, Ordering::Relaxed);
                } else if !known.0.load(Ordering::Relaxed) {
                    return Ok(());
                }
                ("etag", seen)
            }
        };
        if seen == self.expected {
            return Ok(());
        }
        let detail = format!("{name} is {:?}, but the body's is {seen:?}", self.expected);
        Err(Error::new(Kind::ChecksumMismatch, detail))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    /// Whether a body passes, `None` when nothing checks it.
    fn passes(fields: &[(&'static str, &'static str)], known: bool, body: &str) -> Option<bool> {
        let mut check = Check::of(&map(fields), &Md5Etags::new(known))?;
        for byte in body.bytes() {
            check.update(&[byte]);
        }
        Some(check.finish().is_ok())
    }

    const HELLO_MD5: &str = "\"5d41402abc4b2a76b9719d911017c592\"";
    const HELLO_CRC32: &str = "NhCmhg==";
    const HELLO_SHA256: &str = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";

    #[test]
    fn a_checksum_is_checked_and_an_etag_where_it_is_an_md5() {
        let crc = [("x-amz-checksum-crc32", HELLO_CRC32)];
        assert_eq!(passes(&crc, false, "hello"), Some(true));
        assert_eq!(passes(&crc, false, "hellp"), Some(false));
        let sha = [
            ("x-amz-checksum-sha256", HELLO_SHA256),
            ("x-amz-checksum-type", "FULL_OBJECT"),
        ];
        assert_eq!(passes(&sha, false, "hello"), Some(true));
        assert_eq!(passes(&sha, false, ""), Some(false));
        let composite = [
            ("x-amz-checksum-sha256", HELLO_SHA256),
            ("x-amz-checksum-type", "COMPOSITE"),
        ];
        assert_eq!(passes(&composite, false, "x"), None);
        assert_eq!(
            passes(&[("x-amz-checksum-crc32", "NhCmhg==-3")], false, "x"),
            None
        );

        let etag = [("etag", HELLO_MD5)];
        assert_eq!(passes(&etag, true, "hello"), Some(true));
        assert_eq!(passes(&etag, true, "hellp"), Some(false));
        assert_eq!(passes(&etag, false, "hellp"), Some(true), "perhaps no MD5");
        let managed = ("x-amz-server-side-encryption", "AES256");
        assert_eq!(
            passes(&[("etag", HELLO_MD5), managed], true, "hellp"),
            Some(false)
        );
        for (name, value) in [
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ] {
            assert_eq!(passes(&[("etag", HELLO_MD5), (name, value)], true, "x"), None);
        }
        assert_eq!(
            passes(&[("etag", "\"5d41402abc4b2a76b9719d911017c592-2\"")], true, "x"),
            None
        );
        assert_eq!(
            passes(&[("etag", "W/\"5d41402abc4b2a76b9719d911017c592\"")], true, "x"),
            None
        );
        assert_eq!(passes(&[], true, "x"), None);
    }

    #[test]
    fn one_etag_that_is_an_md5_makes_the_next_one_count() {
        let etags = Md5Etags::new(false);
        let check = |body: &[u8]| {
            let mut check = Check::of(&map(&[("etag", HELLO_MD5)]), &etags).unwrap();
            check.update(body);
            check.finish().is_ok()
        };
        assert!(check(b"hellp") && check(b"hello"));
        assert!(!check(b"hellp"));
    }
}
