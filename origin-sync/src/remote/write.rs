//! Writing: once, or over exactly what was read. Every body goes with its SHA-256, so a wrong bit is S3's to refuse.

use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier,
};
use bytes::Bytes;

use super::{Error, Remote, timeouts};
use crate::release::Sha256;

/// The metadata that holds tags, as words.
pub(super) const TAGS: &str = "surrogate-key";

/// Larger bodies go in parts.
const WHOLE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a part; S3 takes 10,000 of them.
const PART_BYTES: usize = 16 * 1024 * 1024;
/// How often a write is tried that met another one at the same moment.
const CONFLICTS_MAX: u32 = 8;
const DELETED_AT_ONCE: usize = 1_000;

/// What is written.
#[derive(Clone, Debug)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Their SHA-256.
    pub sha256: Sha256,
    /// Content-Type.
    pub media_type: String,
    /// Cache-Control.
    pub cache_control: String,
    /// Tags, as words.
    pub tags: Option<String>,
}

/// What must be there when something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// Whatever there is.
    Anything,
    /// What was read with this entity tag.
    Etag(String),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// What was expected was not there; nothing was written.
    Not,
    /// It is there now.
    Now,
}

impl Remote {
    /// Writes an object if what is there is what was expected. A write whose answer was lost may come back as
    /// [`Stored::Not`]: the caller looks at what is there then.
    pub async fn put(&self, key: &str, body: &Body, expect: &Expect) -> Result<Stored, Error> {
        let mut conflicts = 0;
        loop {
            let done = match body.bytes.len() {
                0..=WHOLE_BYTES_MAX => self.put_whole(key, body, expect).await,
                _ => self.put_in_parts(key, body, expect).await,
            };
            match done {
                // 409: somebody wrote at the same moment, and S3 has not decided. It has, a little later.
                Err(error) if error.status() == Some(409) && conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    tokio::time::sleep(Duration::from_millis(50) * conflicts).await;
                }
                Err(error) if error.status() == Some(412) => return Ok(Stored::Not),
                // There is nothing that an entity tag could match.
                Err(error) if error.status() == Some(404) && matches!(expect, Expect::Etag(_)) => {
                    return Ok(Stored::Not);
                }
                done => return done,
            }
        }
    }

    /// Deletes objects; keys that are not there are no error.
    pub async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        for some in keys.chunks(DELETED_AT_ONCE) {
            let first = some.first().map(String::as_str).unwrap_or_default();
            let named = some
                .iter()
                .map(|key| ObjectIdentifier::builder().key(self.full(key)).build());
            let odd = |why: String| Error::odd(self, "DELETE", first, why);
            let objects: Result<Vec<ObjectIdentifier>, _> = named.collect();
            let objects = objects.map_err(|error| odd(error.to_string()))?;
            let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
            let delete = delete.map_err(|error| odd(error.to_string()))?;
            let sent = self
                .client
                .delete_objects()
                .bucket(self.bucket())
                .delete(delete)
                .send()
                .await;
            let output = sent.map_err(|error| Error::sdk(self, "DELETE", first, error))?;
            if let Some(error) = output.errors.unwrap_or_default().first() {
                let key = error.key.as_deref().unwrap_or_default();
                let why = error
                    .message
                    .as_deref()
                    .or(error.code.as_deref())
                    .unwrap_or_default();
                return Err(odd(format!("{key}: {why}")));
            }
        }
        Ok(())
    }

    async fn put_whole(&self, key: &str, body: &Body, expect: &Expect) -> Result<Stored, Error> {
        let (absent, etag) = conditions(expect);
        let operation = self
            .client
            .put_object()
            .bucket(self.bucket())
            .key(self.full(key))
            .content_type(&body.media_type)
            .cache_control(&body.cache_control)
            .set_metadata(
                body.tags
                    .as_ref()
                    .map(|tags| [(TAGS.to_owned(), tags.clone())].into()),
            )
            .checksum_sha256(body.sha256.base64())
            .set_if_none_match(absent)
            .set_if_match(etag)
            .body(ByteStream::from(body.bytes.clone()));
        let patience = aws_sdk_s3::config::Builder::new().timeout_config(timeouts(body.bytes.len() as u64));
        let sent = operation.customize().config_override(patience).send().await;
        sent.map(|_| Stored::Now)
            .map_err(|error| self.failed("PUT", key, error))
    }

    async fn put_in_parts(&self, key: &str, body: &Body, expect: &Expect) -> Result<Stored, Error> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(self.bucket())
            .key(self.full(key))
            .content_type(&body.media_type)
            .cache_control(&body.cache_control)
            .set_metadata(
                body.tags
                    .as_ref()
                    .map(|tags| [(TAGS.to_owned(), tags.clone())].into()),
            )
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .send()
            .await;
        let begun = begun.map_err(|error| self.failed("begin an upload of", key, error))?;
        let upload = begun.upload_id.unwrap_or_default();
        let done = self.parts(key, &upload, body, expect).await;
        if done.is_err() {
            // What was sent is paid for until it is given up; that this fails too changes nothing.
            let aborted = self
                .client
                .abort_multipart_upload()
                .bucket(self.bucket())
                .key(self.full(key))
                .upload_id(&upload)
                .send();
            let _ = aborted.await;
        }
        done
    }

    async fn parts(&self, key: &str, upload: &str, body: &Body, expect: &Expect) -> Result<Stored, Error> {
        let mut completed = Vec::new();
        let mut rest = body.bytes.clone();
        let mut number = 0;
        while !rest.is_empty() {
            number += 1;
            let piece = rest.split_to(rest.len().min(PART_BYTES));
            let checksum = Sha256::of(&piece).base64();
            let patience = aws_sdk_s3::config::Builder::new().timeout_config(timeouts(piece.len() as u64));
            let sent = self
                .client
                .upload_part()
                .bucket(self.bucket())
                .key(self.full(key))
                .upload_id(upload)
                .part_number(number)
                .checksum_sha256(&checksum)
                .body(ByteStream::from(piece))
                .customize()
                .config_override(patience)
                .send()
                .await;
            let part = sent.map_err(|error| self.failed("PUT a part of", key, error))?;
            completed.push(
                CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(part.e_tag)
                    .checksum_sha256(checksum)
                    .build(),
            );
        }
        let (absent, etag) = conditions(expect);
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(completed))
            .build();
        // S3 reads all parts before it answers.
        let patience = aws_sdk_s3::config::Builder::new().timeout_config(timeouts(body.bytes.len() as u64));
        let sent = self
            .client
            .complete_multipart_upload()
            .bucket(self.bucket())
            .key(self.full(key))
            .upload_id(upload)
            .multipart_upload(parts)
            .set_if_none_match(absent)
            .set_if_match(etag)
            .customize()
            .config_override(patience)
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(Stored::Now);
        };
        let error = self.failed("complete the upload of", key, error);
        // The upload is gone because an attempt whose answer was lost has completed it: the caller looks at what is there.
        if error.status() == Some(404) && self.stat(key).await?.is_some() {
            return Ok(Stored::Not);
        }
        Err(error)
    }

    fn failed<E>(&self, operation: &'static str, key: &str, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        Error::sdk(self, operation, key, error)
    }
}

/// If-None-Match and If-Match.
fn conditions(expect: &Expect) -> (Option<String>, Option<String>) {
    match expect {
        Expect::Absent => (Some("*".to_owned()), None),
        Expect::Anything => (None, None),
        Expect::Etag(etag) => (None, Some(etag.clone())),
    }
}
