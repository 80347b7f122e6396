//! The operations of S3 on objects and buckets. Uploads in parts stand in `multipart`.
//!
//! Each takes what `s3s` has parsed and verified, asks the store, and says the answer in the words of `s3s`.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use super::checksum::{self, fill_checksums};
use super::condition::{Expect, Preconditions, Verdict};
use super::convert::{etag, expect, meta, size, system_time};
use super::listing::{After, Query};
use super::multipart;
use super::naming::{Names, query};
use super::reading::{Selection, describe, judge};
use super::store::{Meta, Record, Store, StoreError};
use super::writing::{receive, verify};

/// The store as an S3.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) store: Store,
    pub(super) list_allowed: bool,
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let preconditions = Preconditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since.map(system_time),
            if_unmodified_since: input.if_unmodified_since.map(system_time),
        };
        loop {
            let record = self.find(&input.bucket, &input.key)?;
            judge(&preconditions, &record)?;
            let part = Selection::of(&record, input.range.as_ref(), input.part_number)?;
            let body = match self.store.body(&input.bucket, &record, part.range.clone()).await {
                // It was replaced between lookup and opening: everything is asked again of the new one.
                Err(StoreError::Vanished) => continue,
                other => other?,
            };
            let mut output = GetObjectOutput {
                body: Some(StreamingBlob::new(body)),
                content_length: size(part.range.end - part.range.start),
                content_range: part.content_range(&record),
                parts_count: part.parts_count,
                ..describe(&record)
            };
            if input.checksum_mode.is_some() && output.content_range.is_none() {
                fill_checksums!(output, record.checksums);
                output.checksum_type = record.checksums.kind().map(ChecksumType::from_static);
            }
            return Ok(S3Response::new(output));
        }
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let preconditions = Preconditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since.map(system_time),
            if_unmodified_since: input.if_unmodified_since.map(system_time),
        };
        let record = self.find(&input.bucket, &input.key)?;
        judge(&preconditions, &record)?;
        let part = Selection::of(&record, input.range.as_ref(), input.part_number)?;
        let got = describe(&record);
        let mut output = HeadObjectOutput {
            accept_ranges: got.accept_ranges,
            cache_control: got.cache_control,
            content_disposition: got.content_disposition,
            content_encoding: got.content_encoding,
            content_language: got.content_language,
            content_length: size(part.range.end - part.range.start),
            content_range: part.content_range(&record),
            content_type: got.content_type,
            e_tag: got.e_tag,
            expires: got.expires,
            last_modified: got.last_modified,
            metadata: got.metadata,
            parts_count: part.parts_count,
            ..HeadObjectOutput::default()
        };
        let is_part = output.content_range.is_some();
        if input.checksum_mode.is_some() && !is_part {
            fill_checksums!(output, record.checksums);
            output.checksum_type = record.checksums.kind().map(ChecksumType::from_static);
        }
        let mut response = S3Response::new(output);
        if is_part {
            response.status = Some(http::StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request {
            input,
            headers,
            trailing_headers,
            ..
        } = request;
        let expect = expect(input.if_match, input.if_none_match)?;
        let meta = meta(&headers, input.metadata);
        let draft = self.store.draft(&input.bucket, &checksum::wanted(&headers))?;
        let written = receive(draft, input.body, input.content_length).await?;
        verify(&written, &headers, trailing_headers.as_ref())?;
        let record = Record::of(&input.key, &written, meta);
        let record = self.store.commit(&input.bucket, record, written, expect).await?;
        let mut output = PutObjectOutput {
            e_tag: Some(etag(&record)),
            ..PutObjectOutput::default()
        };
        fill_checksums!(output, record.checksums);
        output.checksum_type = record.checksums.kind().map(ChecksumType::from_static);
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let expect = expect(input.if_match, None)?;
        self.store.delete_if(&input.bucket, &input.key, expect).await?;
        Ok(S3Response::with_status(
            DeleteObjectOutput::default(),
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let S3Request { input, .. } = request;
        self.store.list(&input.bucket, &Query::default())?;
        let quiet = input.delete.quiet.unwrap_or_default();
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in input.delete.objects {
            match self.store.delete(&input.bucket, &object.key).await {
                Ok(_) if quiet => {}
                Ok(_) => deleted.push(DeletedObject {
                    key: Some(object.key),
                    ..DeletedObject::default()
                }),
                Err(error) => {
                    let error = S3Error::from(error);
                    errors.push(Error {
                        code: Some(error.code().as_str().to_owned()),
                        key: Some(object.key),
                        message: error.message().map(str::to_owned),
                        version_id: None,
                    });
                }
            }
        }
        let (deleted, errors) = (Some(deleted), Some(errors));
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted,
            errors,
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let S3Request { input, headers, .. } = request;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "only a bucket can be copied from"));
        };
        let replaces = input
            .metadata_directive
            .as_ref()
            .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        if !replaces && **bucket == *input.bucket && **key == *input.key {
            return Err(s3_error!(
                InvalidRequest,
                "a copy onto itself must replace the metadata"
            ));
        }
        let preconditions = Preconditions {
            if_match: input.copy_source_if_match.clone(),
            if_none_match: input.copy_source_if_none_match.clone(),
            if_modified_since: input.copy_source_if_modified_since.clone().map(system_time),
            if_unmodified_since: input.copy_source_if_unmodified_since.clone().map(system_time),
        };
        let given = meta(&headers, input.metadata.clone());
        let record = loop {
            let source = self.find(bucket, key)?;
            if preconditions.judge(&source.etag, source.modified()) != Verdict::Proceed {
                return Err(StoreError::Precondition.into());
            }
            let meta = if replaces {
                given.clone()
            } else {
                source.meta.clone()
            };
            match self.copy(bucket, &source, &input, meta).await {
                Err(StoreError::Vanished) => {}
                other => break other?,
            }
        };
        let mut result = CopyObjectResult {
            e_tag: Some(etag(&record)),
            last_modified: Some(record.modified().into()),
            ..CopyObjectResult::default()
        };
        fill_checksums!(result, record.checksums);
        let output = CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let after =
            match (&input.continuation_token, &input.start_after) {
                (Some(token), _) => Some(After::from_token(token).ok_or_else(|| {
                    s3_error!(InvalidArgument, "The continuation token provided is incorrect")
                })?),
                (None, start) => start.clone().map(After::Key),
            };
        let names = Names::of(input.encoding_type.as_ref());
        let (query, max_keys) = query(
            input.prefix.as_deref(),
            input.delimiter.as_deref(),
            input.max_keys,
            after,
        )?;
        let page = self.store.list(&input.bucket, &query)?;
        let (contents, common_prefixes) = names.entries(&page);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            prefix: Some(names.write(&query.prefix)),
            delimiter: input.delimiter.map(|delimiter| names.write(&delimiter)),
            start_after: input.start_after.map(|start| names.write(&start)),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_ref().map(After::token),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type,
            request_charged: None,
        }))
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        // A marker that is itself a common prefix stands for all that it rolls up.
        let delimiter = input.delimiter.as_deref().unwrap_or_default();
        let after = input
            .marker
            .clone()
            .filter(|marker| !marker.is_empty())
            .map(
                |marker| match !delimiter.is_empty() && marker.ends_with(delimiter) {
                    true => After::Prefix(marker),
                    false => After::Key(marker),
                },
            );
        let names = Names::of(input.encoding_type.as_ref());
        let (query, max_keys) = query(input.prefix.as_deref(), Some(delimiter), input.max_keys, after)?;
        let page = self.store.list(&input.bucket, &query)?;
        let (contents, common_prefixes) = names.entries(&page);
        let next = page
            .next
            .as_ref()
            .map(|(After::Key(place) | After::Prefix(place))| names.write(place));
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            prefix: Some(names.write(&query.prefix)),
            delimiter: input.delimiter.map(|delimiter| names.write(&delimiter)),
            marker: Some(names.write(&input.marker.unwrap_or_default())),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            next_marker: next,
            encoding_type: input.encoding_type,
            request_charged: None,
        }))
    }

    async fn list_buckets(
        &self,
        _request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let bucket = |(name, created): (String, std::time::SystemTime)| Bucket {
            name: Some(name),
            creation_date: Some(created.into()),
            bucket_region: None,
        };
        let buckets = Some(self.store.buckets().into_iter().map(bucket).collect());
        Ok(S3Response::new(ListBucketsOutput {
            buckets,
            ..ListBucketsOutput::default()
        }))
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.store.create_bucket(&request.input.bucket)?;
        let location = Some(format!("/{}", request.input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.store.delete_bucket(&request.input.bucket)?;
        Ok(S3Response::with_status(
            DeleteBucketOutput::default(),
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.list(&request.input.bucket, &Query::default())?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.store.list(&request.input.bucket, &Query::default())?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        multipart::create(&self.store, request).await
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        multipart::upload_part(&self.store, request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        multipart::complete(&self.store, request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        multipart::abort(&self.store, request).await
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        multipart::list_parts(&self.store, request.input)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        multipart::list_uploads(&self.store, request.input)
    }
}

impl Service {
    /// The record of a key. Those who may not list are not told whether there is none (as S3 does).
    fn find(&self, bucket: &str, key: &str) -> S3Result<Arc<Record>> {
        match self.store.record(bucket, key) {
            Err(StoreError::NoSuchKey) if !self.list_allowed => Err(s3_error!(AccessDenied, "Access Denied")),
            Err(StoreError::NoSuchKey) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            other => Ok(other?),
        }
    }

    async fn copy(
        &self,
        bucket: &str,
        source: &Record,
        input: &CopyObjectInput,
        meta: Meta,
    ) -> Result<Arc<Record>, StoreError> {
        let written = self.store.copy(bucket, source, &input.bucket).await?;
        let mut record = Record::of(&input.key, &written, meta);
        // The bytes are the same, and so is what names them.
        record.etag.clone_from(&source.etag);
        record.parts.clone_from(&source.parts);
        self.store
            .commit(&input.bucket, record, written, Expect::Anything)
            .await
    }
}
