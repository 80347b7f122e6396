//! The checksums of S3: which are wanted of a body, what they came to, and whether that is what the client said.
//!
//! The arithmetic is that of `s3s`; nothing here reads a body.

use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::dto::Checksum;
use serde::{Deserialize, Serialize};

/// The checksums of one object or part, each in base64. A multipart object may have them `composite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums {
    /// CRC-32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    /// CRC-32C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
    /// CRC-64/NVME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    /// SHA-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    /// SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether they are made of the checksums of the parts instead of the bytes.
    #[serde(default)]
    pub composite: bool,
}

/// An algorithm by its S3 name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// CRC-32.
    Crc32,
    /// CRC-32C.
    Crc32c,
    /// CRC-64/NVME, which S3 takes when the client names none.
    Crc64nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// As the S3 API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The algorithm of that name, in any case.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The header, or trailer, that carries it.
    pub fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }
}

impl Checksums {
    /// The value for one algorithm.
    pub fn value(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Crc32 => self.crc32.as_deref(),
            Algorithm::Crc32c => self.crc32c.as_deref(),
            Algorithm::Crc64nvme => self.crc64nvme.as_deref(),
            Algorithm::Sha1 => self.sha1.as_deref(),
            Algorithm::Sha256 => self.sha256.as_deref(),
        }
    }

    /// Puts in the value for one algorithm.
    pub fn insert(&mut self, algorithm: Algorithm, value: String) {
        let place = match algorithm {
            Algorithm::Crc32 => &mut self.crc32,
            Algorithm::Crc32c => &mut self.crc32c,
            Algorithm::Crc64nvme => &mut self.crc64nvme,
            Algorithm::Sha1 => &mut self.sha1,
            Algorithm::Sha256 => &mut self.sha256,
        };
        *place = Some(value);
    }

    /// The algorithms it has a value for.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> + '_ {
        Algorithm::ALL
            .into_iter()
            .filter(|algorithm| self.value(*algorithm).is_some())
    }

    /// The checksums that headers, or trailers, state.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut stated = Self::default();
        for algorithm in Algorithm::ALL {
            if let Some(value) = headers
                .get(algorithm.header())
                .and_then(|value| value.to_str().ok())
            {
                stated.insert(algorithm, value.trim().to_owned());
            }
        }
        stated
    }

    /// The first algorithm for which `stated` says something else than was computed.
    pub fn differs_from(&self, stated: &Self) -> Option<Algorithm> {
        stated
            .algorithms()
            .find(|algorithm| self.value(*algorithm) != stated.value(*algorithm))
    }

    /// `COMPOSITE` or `FULL_OBJECT`; nothing when there are none.
    pub fn kind(&self) -> Option<&'static str> {
        self.algorithms().next()?;
        Some(if self.composite {
            "COMPOSITE"
        } else {
            "FULL_OBJECT"
        })
    }
}

impl From<Checksum> for Checksums {
    fn from(sum: Checksum) -> Self {
        Self {
            crc32: sum.checksum_crc32,
            crc32c: sum.checksum_crc32c,
            crc64nvme: sum.checksum_crc64nvme,
            sha1: sum.checksum_sha1,
            sha256: sum.checksum_sha256,
            composite: false,
        }
    }
}

/// A hasher for these algorithms.
pub(crate) fn hasher(algorithms: &[Algorithm]) -> ChecksumHasher {
    let wants = |algorithm| algorithms.contains(&algorithm);
    ChecksumHasher {
        crc32: wants(Algorithm::Crc32).then(Default::default),
        crc32c: wants(Algorithm::Crc32c).then(Default::default),
        crc64nvme: wants(Algorithm::Crc64nvme).then(Default::default),
        sha1: wants(Algorithm::Sha1).then(Default::default),
        sha256: wants(Algorithm::Sha256).then(Default::default),
    }
}

/// Which algorithms a write asks for: by a stated value, by a trailer that is to come, or by name.
pub(crate) fn wanted(headers: &HeaderMap) -> Vec<Algorithm> {
    let mut wanted: Vec<Algorithm> = Checksums::from_headers(headers).algorithms().collect();
    let trailers = headers
        .get_all("x-amz-trailer")
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    for name in trailers.flat_map(|list| list.split(',')).map(str::trim) {
        wanted.extend(
            Algorithm::ALL
                .into_iter()
                .find(|known| known.header().eq_ignore_ascii_case(name)),
        );
    }
    for header in ["x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm"] {
        let named = headers.get(header).and_then(|value| value.to_str().ok());
        wanted.extend(named.and_then(Algorithm::by_name));
    }
    if wanted.is_empty() {
        wanted.push(Algorithm::Crc64nvme);
    }
    wanted
}

/// Copies [`Checksums`] into the five like-named fields that most outputs of `s3s` have.
macro_rules! fill_checksums {
    ($output:expr, $checksums:expr) => {{
        $output.checksum_crc32 = $checksums.crc32.clone();
        $output.checksum_crc32c = $checksums.crc32c.clone();
        $output.checksum_crc64nvme = $checksums.crc64nvme.clone();
        $output.checksum_sha1 = $checksums.sha1.clone();
        $output.checksum_sha256 = $checksums.sha256.clone();
    }};
}
pub(crate) use fill_checksums;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_write_names_its_checksums_in_three_ways() {
        let check = |list: &[(&'static str, &str)], expected: &[Algorithm]| {
            assert_eq!(wanted(&headers(list)), expected, "{list:?}");
        };
        check(&[], &[Algorithm::Crc64nvme]);
        check(&[("x-amz-checksum-sha256", "x")], &[Algorithm::Sha256]);
        check(&[("x-amz-trailer", "x-amz-checksum-crc32")], &[Algorithm::Crc32]);
        check(
            &[("x-amz-sdk-checksum-algorithm", "crc32c")],
            &[Algorithm::Crc32c],
        );
        check(
            &[("x-amz-sdk-checksum-algorithm", "MD5")],
            &[Algorithm::Crc64nvme],
        );
    }

    #[test]
    fn a_stated_checksum_must_be_the_computed_one() {
        let mut hasher = hasher(&[Algorithm::Crc32, Algorithm::Sha256]);
        hasher.update(b"hello");
        let computed = Checksums::from(hasher.finalize());
        let check = |list: &[(&'static str, &str)], expected: Option<Algorithm>| {
            let stated = Checksums::from_headers(&headers(list));
            assert_eq!(computed.differs_from(&stated), expected, "{list:?}");
        };
        check(&[], None);
        check(&[("x-amz-checksum-crc32", "NhCmhg==")], None);
        check(&[("x-amz-checksum-crc32", "NhCmhQ==")], Some(Algorithm::Crc32));
        // Stated, but not computed: that is no match either.
        check(
            &[("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00=")],
            Some(Algorithm::Sha1),
        );
    }
}
