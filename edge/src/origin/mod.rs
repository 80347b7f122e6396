//! Origins: where content comes from when the cache has none.
//!
//! An origin answers an [`Ask`] with an [`Answer`] or an [`Error`]. It knows deadlines, retries, failover and health,
//! and it keeps the origin's own noise (its XML errors, its `x-amz-*` fields) to itself. It knows nothing of the cache.

pub mod error;
pub mod failover;
pub mod health;
pub mod retry;
pub mod s3;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

pub use error::Error;

/// The bucket (or server) that an answer came from: part of what is stored, as two buckets may differ.
pub type Source = Arc<str>;

/// What is asked of an origin.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The canonical path, percent-encoded, with its leading slash.
    pub path: String,
    /// Only the header section is wanted.
    pub head: bool,
    /// Answer 304 if this still holds. Only sent to the source that it came from.
    pub condition: Option<Condition>,
    /// Only these bytes: first, and last if there is one (inclusive), as of RFC 9110 14.1.2.
    pub range: Option<AskedRange>,
}

/// A stored response's validators.
#[derive(Clone, Debug)]
pub struct Condition {
    /// For If-None-Match.
    pub etag: Option<HeaderValue>,
    /// For If-Modified-Since.
    pub last_modified: Option<HeaderValue>,
    /// Where the stored response came from.
    pub source: Source,
}

/// A single byte range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedRange {
    /// From `first`, through `last` if given.
    From {
        /// The first byte's place.
        first: u64,
        /// The last byte's place, inclusive.
        last: Option<u64>,
    },
    /// The last `n` bytes.
    Suffix(u64),
}

/// An origin's answer: 200, 206, 304, 404 or 410. Everything else is an [`Error`].
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// End-to-end fields: hop-by-hop and `x-amz-*` ones are gone, the media type is put right, and tags stand in
    /// `Surrogate-Key` and `Cache-Tag`.
    pub headers: HeaderMap,
    /// The body's length, when the origin says it.
    pub length: Option<u64>,
    /// The body; empty for 304, 404, 410 and for a head.
    pub body: Body,
    /// The bucket that answered.
    pub source: Source,
}

/// A body as it comes from an origin. It resumes by itself after a fault (Range and If-Match) within the retry budget.
#[derive(Debug)]
pub enum Body {
    /// None.
    Empty,
    /// From S3.
    S3(Box<s3::Body>),
}

impl Body {
    /// The next chunk; `None` at a clean end, when exactly the announced length has come.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        match self {
            Self::Empty => None,
            Self::S3(body) => body.chunk().await,
        }
    }
}
