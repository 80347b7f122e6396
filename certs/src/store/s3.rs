//! A bucket as the store: conditional writes of S3 (`If-None-Match: *`, `If-Match`) are what orders a fleet.
//!
//! The SDK retries what S3 asks it to. A write whose answer got lost may so be refused by itself the second time: who
//! needs to know reads the object again.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials as Keys, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;

use super::{Boxed, Error, OBJECT_BYTES_MAX, Object, Objects, OnlyIf, Tag};
use crate::settings::{BucketSettings, Credentials};

/// One bucket, below one prefix.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    bucket: String,
    prefix: String,
}

impl Bucket {
    /// The store in the bucket of `settings`. Credentials are looked for; nothing is sent to the bucket yet.
    pub async fn open(settings: &BucketSettings) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .read_timeout(Duration::from_secs(4))
            .operation_attempt_timeout(Duration::from_secs(5))
            .operation_timeout(Duration::from_secs(12))
            .build();
        let region = Region::new(settings.region.clone());
        let mut builder = match &settings.credentials {
            Credentials::Static { id, secret } => aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .credentials_provider(Keys::new(id, &secret.0, None, None, "configuration")),
            Credentials::Environment => {
                let shared = aws_config::defaults(BehaviorVersion::latest())
                    .region(region.clone())
                    .load()
                    .await;
                aws_sdk_s3::config::Builder::from(&shared)
            }
        };
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let config = builder
            .region(region)
            .force_path_style(settings.path_style)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self {
            client: Client::from_conf(config),
            bucket: settings.name.clone(),
            prefix: settings.prefix.clone(),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn read(&self, key: &str) -> Result<Option<Object>, Error> {
        let sent = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .send()
            .await;
        let output = match sent {
            Ok(output) => output,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(Error::unavailable(key, error)),
        };
        if usize::try_from(output.content_length().unwrap_or(0)).is_ok_and(|n| n > OBJECT_BYTES_MAX) {
            return Err(Error::damaged(key, "is too large"));
        }
        let tag = output.e_tag().unwrap_or_default().to_owned();
        let body = output.body.collect().await;
        let body = body
            .map_err(|error| Error::unavailable(key, error))?
            .into_bytes()
            .to_vec();
        Ok(Some(Object { body, tag: Tag(tag) }))
    }

    async fn write(&self, key: &str, body: Vec<u8>, only_if: OnlyIf) -> Result<Tag, Error> {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .body(ByteStream::from(body));
        let request = match &only_if {
            OnlyIf::Absent => request.if_none_match("*"),
            OnlyIf::Unchanged(tag) => request.if_match(&tag.0),
        };
        match request.send().await {
            Ok(output) => Ok(Tag(output.e_tag().unwrap_or_default().to_owned())),
            // 409: a conditional write met another one. 404: what should be unchanged is gone.
            Err(error) if matches!(status(&error), Some(404 | 409 | 412)) => Err(Error::conflict(key)),
            Err(error) => Err(Error::unavailable(key, error)),
        }
    }

    async fn keys(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.key(prefix))
            .into_paginator()
            .send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Error::unavailable(prefix, error))?;
            let found = page.contents().iter().filter_map(|object| object.key());
            keys.extend(found.filter_map(|key| key.strip_prefix(&self.prefix).map(str::to_owned)));
        }
        Ok(keys)
    }
}

impl Objects for Bucket {
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<Object>, Error>> {
        Box::pin(self.read(key))
    }

    fn put<'a>(&'a self, key: &'a str, body: Vec<u8>, only_if: OnlyIf) -> Boxed<'a, Result<Tag, Error>> {
        Box::pin(self.write(key, body, only_if))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<(), Error>> {
        Box::pin(async move {
            let request = self
                .client
                .delete_object()
                .bucket(&self.bucket)
                .key(self.key(key));
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) => Err(Error::unavailable(key, error)),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Result<Vec<String>, Error>> {
        Box::pin(self.keys(prefix))
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}
