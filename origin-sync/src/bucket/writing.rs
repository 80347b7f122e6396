//! The body of a write: taken in, and compared with what the client said of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_core::Stream;
use http::HeaderMap;
use s3s::dto::StreamingBlob;
use s3s::{S3Result, TrailingHeaders, s3_error};

use super::checksum::Checksums;
use super::convert::{body_error, size};
use super::store::{Draft, Written};

/// Writes the body of a request into a draft. It must be as long as was announced.
pub(super) async fn receive(
    mut draft: Draft,
    body: Option<StreamingBlob>,
    announced: Option<i64>,
) -> S3Result<Written> {
    if let Some(mut body) = body {
        let mut next = async || std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_next(cx)).await;
        while let Some(bytes) = next().await {
            draft.write(bytes.map_err(|error| body_error(&error))?).await?;
        }
    }
    let written = draft.finish().await?;
    if announced.is_some() && announced != size(written.size()) {
        return Err(s3_error!(
            IncompleteBody,
            "the body is not as long as was announced"
        ));
    }
    Ok(written)
}

/// Compares what arrived with every checksum that the client stated: in headers, in trailers, and as MD5.
pub(super) fn verify(
    written: &Written,
    headers: &HeaderMap,
    trailers: Option<&TrailingHeaders>,
) -> S3Result<()> {
    let mut stated = vec![Checksums::from_headers(headers)];
    stated.extend(trailers.and_then(|trailers| trailers.read(Checksums::from_headers)));
    for stated in stated {
        if let Some(algorithm) = written.checksums().differs_from(&stated) {
            let name = algorithm.name();
            return Err(s3_error!(
                BadDigest,
                "The {name} you specified did not match the calculated checksum."
            ));
        }
    }
    let Some(md5) = headers.get("content-md5") else {
        return Ok(());
    };
    match STANDARD.decode(md5.as_bytes()) {
        Ok(md5) if md5 == written.md5() => Ok(()),
        Ok(md5) if md5.len() == 16 => Err(s3_error!(
            BadDigest,
            "The Content-MD5 you specified did not match what we received."
        )),
        _ => Err(s3_error!(
            InvalidDigest,
            "The Content-MD5 you specified is not valid."
        )),
    }
}
