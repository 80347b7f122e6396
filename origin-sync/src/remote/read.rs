//! Reading: whole objects below a limit, what is known of one, and lists.

use std::time::Duration;

use aws_sdk_s3::types::ChecksumMode;
use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::{ATTEMPT, ATTEMPTS, Error, PACE_MIN, Remote};
use crate::release::{Sha256, Version, layout};

/// An object that was read.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its entity tag, as S3 wrote it.
    pub etag: String,
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// How many bytes it has.
    pub size: u64,
    /// The SHA-256 that S3 computed when it was written in one piece, in base64.
    pub sha256: Option<String>,
    /// Its media type.
    pub media_type: Option<String>,
    /// Its Cache-Control.
    pub cache_control: Option<String>,
    /// Its tags, as words.
    pub tags: Option<String>,
}

/// An object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key, below the prefix.
    pub key: String,
    /// How many bytes it has.
    pub size: u64,
    /// When it was written, in seconds since 1970.
    pub modified: i64,
}

impl Listed {
    /// The versions of a list of manifests, the last one pushed first. S3 tells the second only, so of one second the
    /// higher version counts as the later one.
    pub fn newest_first(listed: &[Self]) -> Vec<(Version, &Self)> {
        let version = |object: &Self| Some(layout::manifest_of(&object.key)?.1);
        let mut versions: Vec<(Version, &Self)> = listed
            .iter()
            .filter_map(|object| Some((version(object)?, object)))
            .collect();
        versions.sort_by(|(one, object), (other, later)| {
            later
                .modified
                .cmp(&object.modified)
                .then_with(|| other.count_order(one))
        });
        versions
    }
}

impl Remote {
    /// The object at this key, if there is one. More than `bytes_max` is an error.
    pub async fn get(&self, key: &str, bytes_max: u64) -> Result<Option<Object>, Error> {
        let mut attempt = 1;
        loop {
            match self.get_once(key, bytes_max).await {
                // A body that broke: the SDK's own attempts end with the head.
                Err((_, true)) if attempt < ATTEMPTS => attempt += 1,
                Err((error, _)) => return Err(error),
                Ok(object) => return Ok(object),
            }
        }
    }

    /// The blob of this digest: what came was hashed.
    pub async fn blob(&self, digest: &Sha256, bytes_max: u64) -> Result<Option<Bytes>, Error> {
        let key = layout::blob(digest);
        let Some(object) = self.get(&key, bytes_max).await? else {
            return Ok(None);
        };
        let found = Sha256::of(&object.bytes);
        if found != *digest {
            return Err(Error::odd(
                self,
                "trust",
                &key,
                format!("its bytes have the SHA-256 {found}"),
            ));
        }
        Ok(Some(object.bytes))
    }

    async fn get_once(&self, key: &str, bytes_max: u64) -> Result<Option<Object>, (Error, bool)> {
        let sent = self
            .client
            .get_object()
            .bucket(self.bucket())
            .key(self.full(key))
            .send()
            .await;
        let output = match sent {
            Ok(output) => output,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_no_such_key()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err((Error::sdk(self, "GET", key, error), false)),
        };
        let etag = output.e_tag.unwrap_or_default();
        let length = output
            .content_length
            .and_then(|length| u64::try_from(length).ok());
        let too_long = || Error::odd(self, "GET", key, format!("it has more than {bytes_max} bytes"));
        if length.is_some_and(|length| length > bytes_max) {
            return Err((too_long(), false));
        }
        let mut body = output.body;
        let mut bytes = BytesMut::new();
        let deadline = ATTEMPT + Duration::from_secs(length.unwrap_or_default() / PACE_MIN);
        let read = async {
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(|error| (Error::odd(self, "GET", key, error), true))?;
                bytes.extend_from_slice(&piece);
                if bytes.len() as u64 > bytes_max {
                    return Err((too_long(), false));
                }
            }
            Ok(())
        };
        match timeout(deadline, read).await {
            Ok(read) => read?,
            Err(_) => {
                return Err((
                    Error::odd(self, "GET", key, "the body did not come in time"),
                    true,
                ));
            }
        }
        if length.is_some_and(|length| length != bytes.len() as u64) {
            return Err((Error::odd(self, "GET", key, "the body broke off"), true));
        }
        Ok(Some(Object {
            bytes: bytes.freeze(),
            etag,
        }))
    }

    /// What is known of the object at this key, if there is one.
    pub async fn stat(&self, key: &str) -> Result<Option<Stat>, Error> {
        let sent = self
            .client
            .head_object()
            .bucket(self.bucket())
            .key(self.full(key))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        match sent {
            Ok(output) => Ok(Some(Stat {
                size: output
                    .content_length
                    .and_then(|length| u64::try_from(length).ok())
                    .unwrap_or_default(),
                // That of a multipart object is made of those of its parts, and ends with their number.
                sha256: output.checksum_sha256.filter(|checksum| !checksum.contains('-')),
                media_type: output.content_type,
                cache_control: output.cache_control,
                tags: output
                    .metadata
                    .and_then(|mut metadata| metadata.remove(super::write::TAGS)),
            })),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(None),
            Err(error) => Err(Error::sdk(self, "HEAD", key, error)),
        }
    }

    /// The objects whose keys begin so, in the order of their keys.
    pub async fn list(&self, beginning: &str) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        let mut token = None;
        loop {
            let sent = self
                .client
                .list_objects_v2()
                .bucket(self.bucket())
                .prefix(self.full(beginning))
                .set_continuation_token(token)
                .send()
                .await;
            let page = sent.map_err(|error| Error::sdk(self, "list", beginning, error))?;
            for object in page.contents.unwrap_or_default() {
                let key = object.key.unwrap_or_default();
                let Some(key) = key.strip_prefix(self.prefix()) else {
                    continue;
                };
                listed.push(Listed {
                    key: key.to_owned(),
                    size: object
                        .size
                        .and_then(|size| u64::try_from(size).ok())
                        .unwrap_or_default(),
                    modified: object.last_modified.map(|time| time.secs()).unwrap_or_default(),
                });
            }
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok(listed);
            }
        }
    }
}
