//! The operations of S3 on uploads in parts.

use std::collections::BTreeMap;

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::{self, Algorithm, Checksums, fill_checksums};
use super::convert::{etag, expect, meta, size};
use super::store::{PartRecord, Store, Upload, UploadId};
use super::writing::{receive, verify};

const PARTS_MAX: i32 = 1000;
const PART_NUMBER_MAX: i32 = 10_000;

/// `CreateMultipartUpload`.
pub(super) async fn create(
    store: &Store,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let S3Request { input, headers, .. } = request;
    let (algorithm, composite) = kind(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let upload = Upload::new(&input.key, meta(&headers, input.metadata), algorithm, composite);
    let id = store.begin_upload(&input.bucket, upload).await?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: Some(checksum_type(composite)),
        ..CreateMultipartUploadOutput::default()
    }))
}

/// `UploadPart`.
pub(super) async fn upload_part(
    store: &Store,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let S3Request {
        input,
        headers,
        trailing_headers,
        ..
    } = request;
    if !(1..=PART_NUMBER_MAX).contains(&input.part_number) {
        return Err(s3_error!(
            InvalidArgument,
            "Part number must be an integer between 1 and 10000, inclusive"
        ));
    }
    let at = UploadId {
        bucket: input.bucket,
        key: input.key,
        id: input.upload_id,
    };
    let upload = store.upload(&at)?;
    let mut algorithms = checksum::wanted(&headers);
    algorithms.push(upload.algorithm);
    let draft = store.draft(&at.bucket, &algorithms)?;
    let written = receive(draft, input.body, input.content_length).await?;
    verify(&written, &headers, trailing_headers.as_ref())?;
    let part = store.put_part(&at, input.part_number, written).await?;
    let mut output = UploadPartOutput {
        e_tag: Some(ETag::Strong(part.etag)),
        ..UploadPartOutput::default()
    };
    fill_checksums!(output, part.checksums);
    Ok(S3Response::new(output))
}

/// `CompleteMultipartUpload`.
pub(super) async fn complete(
    store: &Store,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let S3Request { input, headers, .. } = request;
    let expect = expect(input.if_match, input.if_none_match)?;
    let at = UploadId {
        bucket: input.bucket,
        key: input.key,
        id: input.upload_id,
    };
    let named = input
        .multipart_upload
        .and_then(|upload| upload.parts)
        .unwrap_or_default();
    let parts = named
        .into_iter()
        .map(|part| Some((part.part_number?, part.e_tag?.into_value())))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| s3_error!(MalformedXML, "a part has no number or no entity tag"))?;
    let stated = Checksums::from_headers(&headers);
    let record = store
        .complete_upload(&at, parts, stated, expect)
        .await?
        .map_err(|algorithm| {
            let name = algorithm.name();
            s3_error!(
                BadDigest,
                "The {name} you specified did not match the calculated checksum."
            )
        })?;
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", at.bucket, at.key)),
        bucket: Some(at.bucket),
        key: Some(at.key),
        e_tag: Some(etag(&record)),
        checksum_type: record.checksums.kind().map(ChecksumType::from_static),
        ..CompleteMultipartUploadOutput::default()
    };
    fill_checksums!(output, record.checksums);
    Ok(S3Response::new(output))
}

/// `AbortMultipartUpload`.
pub(super) async fn abort(
    store: &Store,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    let at = UploadId {
        bucket: input.bucket,
        key: input.key,
        id: input.upload_id,
    };
    store.abort_upload(&at).await?;
    Ok(S3Response::with_status(
        AbortMultipartUploadOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

/// `ListParts`.
pub(super) fn list_parts(store: &Store, input: ListPartsInput) -> S3Result<S3Response<ListPartsOutput>> {
    let at = UploadId {
        bucket: input.bucket,
        key: input.key,
        id: input.upload_id,
    };
    let upload = store.upload(&at)?;
    let marker = input.part_number_marker.unwrap_or_default();
    let max_parts = input.max_parts.unwrap_or(PARTS_MAX).clamp(0, PARTS_MAX);
    let (page, truncated) = page(&upload.parts, marker, max_parts);
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(at.bucket),
        key: Some(at.key),
        upload_id: Some(at.id),
        next_part_number_marker: page.last().map(|part| part.number),
        parts: Some(page.into_iter().map(part).collect()),
        is_truncated: Some(truncated),
        max_parts: Some(max_parts),
        part_number_marker: Some(marker),
        checksum_algorithm: Some(ChecksumAlgorithm::from(upload.algorithm.name().to_owned())),
        checksum_type: Some(checksum_type(upload.composite)),
        ..ListPartsOutput::default()
    }))
}

/// `ListMultipartUploads`: in one page, by key.
pub(super) fn list_uploads(
    store: &Store,
    input: ListMultipartUploadsInput,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let prefix = input.prefix.clone().unwrap_or_default();
    let mut uploads = store.uploads(&input.bucket)?;
    uploads.retain(|(_, upload)| upload.key.starts_with(&prefix));
    uploads.sort_by(|(_, a), (_, b)| (&a.key, a.initiated_ms).cmp(&(&b.key, b.initiated_ms)));
    let shown = |(id, upload): (String, Upload)| MultipartUpload {
        initiated: Some(upload.initiated().into()),
        key: Some(upload.key),
        upload_id: Some(id),
        ..MultipartUpload::default()
    };
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: input.prefix,
        is_truncated: Some(false),
        uploads: Some(uploads.into_iter().map(shown).collect()),
        ..ListMultipartUploadsOutput::default()
    }))
}

/// Which checksum the object will have, and of what. The SHAs can only be taken of the parts; CRC-64/NVME only of
/// the whole; the other CRCs are of the parts unless the whole is asked for.
fn kind(algorithm: Option<&ChecksumAlgorithm>, of: Option<&ChecksumType>) -> S3Result<(Algorithm, bool)> {
    let Some(algorithm) = algorithm else {
        return Ok((Algorithm::Crc64nvme, false));
    };
    let algorithm = Algorithm::by_name(algorithm.as_str())
        .ok_or_else(|| s3_error!(InvalidRequest, "the checksum algorithm is not known"))?;
    let stated = of.map(|of| of.as_str() == ChecksumType::COMPOSITE);
    match (algorithm, stated) {
        (Algorithm::Crc64nvme, Some(true)) | (Algorithm::Sha1 | Algorithm::Sha256, Some(false)) => {
            Err(s3_error!(
                InvalidRequest,
                "that checksum algorithm does not go with that checksum type"
            ))
        }
        (_, Some(composite)) => Ok((algorithm, composite)),
        (Algorithm::Crc64nvme, None) => Ok((algorithm, false)),
        (_, None) => Ok((algorithm, true)),
    }
}

fn checksum_type(composite: bool) -> ChecksumType {
    ChecksumType::from_static(if composite {
        ChecksumType::COMPOSITE
    } else {
        ChecksumType::FULL_OBJECT
    })
}

fn page(parts: &BTreeMap<i32, PartRecord>, marker: i32, limit: i32) -> (Vec<PartRecord>, bool) {
    let limit = usize::try_from(limit).unwrap_or_default();
    let mut behind = parts.values().filter(|part| part.number > marker);
    let page: Vec<PartRecord> = behind.by_ref().take(limit).cloned().collect();
    (page, behind.next().is_some())
}

fn part(record: PartRecord) -> Part {
    let mut part = Part {
        last_modified: Some(record.modified().into()),
        part_number: Some(record.number),
        size: size(record.size),
        ..Part::default()
    };
    fill_checksums!(part, record.checksums);
    part.e_tag = Some(ETag::Strong(record.etag));
    part
}
