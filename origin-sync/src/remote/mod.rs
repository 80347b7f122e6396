//! A bucket somewhere else, as releases need it: read whole objects, write what is not there yet, flip one thing.
//!
//! An S3 that accepts and is silent is given up after half a minute, where the SDK's own deadlines would wait for ever; what
//! is sent adds time. Three attempts each. Errors name operation, bucket and key.

mod error;
mod read;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

pub use error::Error;
pub use read::{Listed, Object, Stat};
pub use write::{Body, Expect, Stored};

/// Which bucket, and how it is reached.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `s3://bucket/prefix`.
    pub url: String,
    /// Where S3 is, if not at AWS.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// Whether the bucket is in the path instead of the host; by default where there is an endpoint.
    pub path_style: Option<bool>,
}

/// A bucket, from a prefix on.
#[derive(Clone)]
pub struct Remote {
    client: Client,
    bucket: Arc<str>,
    prefix: Arc<str>,
}

// Nobody waits at a browser for a release: it may take its time.
const CONNECT: Duration = Duration::from_secs(10);
const READ: Duration = Duration::from_secs(20);
const ATTEMPT: Duration = Duration::from_secs(30);
const OPERATION: Duration = Duration::from_secs(120);
const ATTEMPTS: u32 = 3;
const POOL_IDLE: Duration = Duration::from_secs(20);
/// The slowest line that is waited for, in bytes per second.
const PACE_MIN: u64 = 256 * 1024;

impl Remote {
    /// A client for the bucket. Credentials are looked for where the AWS tools look, when they are first needed.
    pub async fn connect(target: &Target) -> Result<Self, Error> {
        let (bucket, prefix) = parse(&target.url).map_err(|why| Error::target(&target.url, why))?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = target
            .endpoint
            .clone()
            .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
            .or_else(|| variable("AWS_ENDPOINT_URL"));
        let connections = connections(endpoint.as_deref()).map_err(|why| Error::target(&target.url, why))?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(connections.clone());
        // Outside of AWS nobody asks what the region is, and nobody can be asked for it.
        let elsewhere = || endpoint.is_some().then(|| "us-east-1".to_owned());
        let known = || variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        if let Some(region) = target.region.clone().or_else(known).or_else(elsewhere) {
            loader = loader.region(Region::new(region));
        }
        let loaded = loader.load().await;
        let mut builder = aws_sdk_s3::config::Builder::from(&loaded)
            .http_client(connections)
            .force_path_style(target.path_style.unwrap_or(endpoint.is_some()))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts(0))
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint.trim_end_matches('/'));
        }
        Ok(Self {
            client: Client::from_conf(builder.build()),
            bucket: bucket.into(),
            prefix: prefix.into(),
        })
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What stands before every key.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key in the bucket of a key below the prefix.
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s3://{}/{}", self.bucket, self.prefix)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// Bucket and prefix of an `s3://` URL. A prefix ends with a slash, if there is one.
pub fn parse(url: &str) -> Result<(String, String), String> {
    let rest = url.strip_prefix("s3://").ok_or("it must begin with s3://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fits) {
        return Err(format!("{bucket:?} is not the name of a bucket"));
    }
    let prefix = prefix.trim_end_matches('/');
    let wrong = |segment: &str| matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control);
    if !prefix.is_empty() && prefix.split('/').any(wrong) {
        return Err(format!("{prefix:?} is not a prefix"));
    }
    let slash = if prefix.is_empty() { "" } else { "/" };
    Ok((bucket.to_owned(), format!("{prefix}{slash}")))
}

/// Deadlines for an operation that sends this many bytes.
fn timeouts(bytes: u64) -> TimeoutConfig {
    let sending = Duration::from_secs(bytes / PACE_MIN);
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(READ + sending)
        .operation_attempt_timeout(ATTEMPT + sending)
        .operation_timeout(OPERATION + sending * ATTEMPTS)
        .build()
}

fn connections(endpoint: Option<&str>) -> Result<SharedHttpClient, String> {
    let plain = match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") => true,
        Some(endpoint) if endpoint.starts_with("https://") => false,
        Some(endpoint) => return Err(format!("the endpoint {endpoint:?} is no http:// or https:// URL")),
        None => false,
    };
    // An endpoint in the clear needs no roots: reading them takes time, and a small container may have none.
    let tls = TlsContext::builder()
        .with_trust_store(TrustStore::empty().with_native_roots(!plain))
        .build()
        .map_err(|error| format!("the system's certificates cannot be used: {error}"))?;
    Ok(aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(POOL_IDLE)
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_buckets_and_prefixes() {
        let check = |url: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(bucket, prefix)| (bucket.to_owned(), prefix.to_owned()));
            assert_eq!(parse(url).ok(), expected, "{url}");
        };
        check("s3://widgets", Some(("widgets", "")));
        check("s3://widgets/", Some(("widgets", "")));
        check("s3://widgets/cdn", Some(("widgets", "cdn/")));
        check("s3://widgets/cdn/a/", Some(("widgets", "cdn/a/")));
        check("widgets", None);
        check("https://widgets/cdn", None);
        check("s3://", None);
        check("s3://Widgets", None);
        check("s3://widgets//a", None);
        check("s3://widgets/a/../b", None);
    }

    #[test]
    fn deadlines_grow_with_what_is_sent() {
        assert_eq!(timeouts(0).operation_timeout(), Some(Duration::from_secs(120)));
        assert_eq!(timeouts(16 << 20).read_timeout(), Some(Duration::from_secs(84)));
    }
}
