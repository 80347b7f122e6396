//! What went wrong with a bucket: which operation, on which key, and what S3 said.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::Remote;

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} s3://{bucket}/{key}{answer}")]
pub struct Error {
    operation: &'static str,
    bucket: String,
    key: String,
    answer: String,
    status: Option<u16>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The status of S3's answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// A target that cannot be used.
    pub(super) fn target(url: &str, why: String) -> Self {
        let (bucket, key) = url
            .strip_prefix("s3://")
            .unwrap_or(url)
            .split_once('/')
            .unwrap_or((url, ""));
        Self {
            operation: "use",
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            answer: format!(": {why}"),
            status: None,
            source: None,
        }
    }

    /// Something that S3 said, or that was found, which makes no sense.
    pub(crate) fn odd(
        remote: &Remote,
        operation: &'static str,
        key: &str,
        why: impl std::fmt::Display,
    ) -> Self {
        Self {
            operation,
            bucket: remote.bucket().to_owned(),
            key: remote.full(key),
            answer: format!(": {why}"),
            status: None,
            source: None,
        }
    }

    /// What the SDK reports.
    pub(super) fn sdk<E>(
        remote: &Remote,
        operation: &'static str,
        key: &str,
        error: SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error
            .as_service_error()
            .and_then(|error| error.meta().code().map(str::to_owned));
        let said = error
            .as_service_error()
            .and_then(|error| error.meta().message().map(str::to_owned));
        let mut answer = String::new();
        if let Some(status) = status {
            answer = format!(": {status}");
            answer.extend(code.iter().map(|code| format!(" {code}")));
            answer.extend(said.iter().map(|said| format!(" ({said})")));
            if status == 403 {
                answer.push_str("; a missing object looks like this too, without the right to list");
            }
        }
        // With an answer, what the SDK makes of it adds nothing.
        let source: Option<Box<dyn std::error::Error + Send + Sync>> = match status {
            Some(_) => None,
            None => Some(Box::new(error)),
        };
        Self {
            operation,
            bucket: remote.bucket().to_owned(),
            key: remote.full(key),
            answer,
            status,
            source,
        }
    }
}
