//! A body as it comes from S3.

use bytes::Bytes;

use crate::origin::Error;

/// A body from S3.
#[derive(Debug)]
pub struct Body {}

impl Body {
    /// The next chunk; `None` at a clean end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        None
    }
}
