//! Objects of releases out of buckets: whole, bounded, and judged before anybody sees them. Where what a bucket has is no
//! good, the next one is asked.

use aws_lc_rs::digest::Context;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use origin_sync::release::{Sha256, layout};

use super::metrics::{Metrics, Rejected};
use crate::origin::{Ask, Error, Kind, Origin, Source};

/// Bytes whose digest was computed here.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub sha256: Sha256,
}

/// What one bucket has.
pub(super) struct Got {
    /// Which one; none when nobody is left to be asked.
    pub(super) source: Option<Source>,
    /// What it has: nothing, or these bytes.
    pub(super) object: Result<Option<Checked>, Error>,
}

/// Asks for the object at `key`, of at most `bytes_max` bytes, anybody but `besides`.
pub(super) async fn object(origin: &Origin, key: &str, besides: &[Source], bytes_max: u64) -> Got {
    let ask = Ask {
        path: format!("/{key}"),
        besides: besides.to_vec(),
        ..Ask::default()
    };
    let answer = match origin.fetch(ask).await {
        Ok(answer) => answer,
        Err(error) => {
            return Got {
                source: None,
                object: Err(error),
            };
        }
    };
    let source = Some(answer.source);
    if answer.status != StatusCode::OK {
        return Got {
            source,
            object: Ok(None),
        };
    }
    let object = whole(answer.body, answer.length, bytes_max).await.map(Some);
    Got { source, object }
}

async fn whole(
    mut body: crate::origin::Body,
    announced: Option<u64>,
    bytes_max: u64,
) -> Result<Checked, Error> {
    let too_long = || {
        let detail = format!("more than the {bytes_max} bytes that it may have");
        Error::new(Kind::ChecksumMismatch, detail)
    };
    if announced.is_some_and(|announced| announced > bytes_max) {
        return Err(too_long());
    }
    let mut hasher: Context = Sha256::hasher();
    let room = usize::try_from(announced.unwrap_or_default()).unwrap_or_default();
    let mut bytes = BytesMut::with_capacity(room);
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk?;
        if (bytes.len() + chunk.len()) as u64 > bytes_max {
            return Err(too_long());
        }
        hasher.update(&chunk);
        bytes.extend_from_slice(&chunk);
    }
    Ok(Checked {
        bytes: bytes.freeze(),
        sha256: Sha256::finished(hasher),
    })
}

/// The blob of this digest, from the first bucket that has it. Bytes of another digest are seen by nobody.
pub(super) async fn blob(
    origin: &Origin,
    digest: &Sha256,
    size: u64,
    metrics: &Metrics,
) -> Result<Checked, Error> {
    let key = layout::blob(digest);
    let mut besides = Vec::new();
    let mut first = None;
    loop {
        let got = object(origin, &key, &besides, size).await;
        let asked = got.source.as_deref().unwrap_or("no bucket").to_owned();
        let error = match got.object {
            Ok(Some(checked)) if checked.sha256 == *digest => return Ok(checked),
            Ok(Some(checked)) => {
                metrics.rejections.inc(Rejected::Blob);
                tracing::error!(
                    bucket = asked, wanted = %digest, found = %checked.sha256, bytes = checked.bytes.len(),
                    "a blob is not what its name says; it is not served"
                );
                Error::new(
                    Kind::ChecksumMismatch,
                    format!("{asked} has other bytes as {key}"),
                )
            }
            Ok(None) => Error::new(Kind::RequestRefused, format!("{asked} lacks {key}")),
            Err(error) => {
                if error.kind == Kind::ChecksumMismatch {
                    metrics.rejections.inc(Rejected::Blob);
                    tracing::error!(bucket = asked, wanted = %digest, %error, "a blob is not what its name says");
                }
                error
            }
        };
        let Some(source) = got.source else {
            return Err(first.unwrap_or(error));
        };
        first.get_or_insert(error);
        besides.push(source);
    }
}
