//! The SDK's client for one bucket: credentials, endpoint, connections, names. It sends; `exchange` says what.
//!
//! The SDK retries nothing and validates nothing here: retries, deadlines of a whole attempt and checksums are ours.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, IdentityCache, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use tokio::sync::{OnceCell, Semaphore};

use crate::config;
use crate::origin::{Error, Kind, StartError};

/// The connections to one endpoint. They outlive a change of credentials.
pub(super) fn connections(
    bucket: &config::Bucket,
    timeouts: &config::OriginTimeouts,
) -> Result<SharedHttpClient, StartError> {
    let plain = match bucket.endpoint.as_deref() {
        Some(endpoint) => {
            let uri: http::Uri = endpoint
                .parse()
                .map_err(|_| StartError::Endpoint(endpoint.to_owned()))?;
            match (uri.scheme_str(), uri.host()) {
                (Some("http"), Some(_)) => true,
                (Some("https"), Some(_)) => false,
                _ => return Err(StartError::Endpoint(endpoint.to_owned())),
            }
        }
        None => false,
    };
    // An endpoint in the clear needs no roots: reading them takes time, and a small container may have none.
    let roots = TrustStore::empty().with_native_roots(!plain);
    let tls = TlsContext::builder()
        .with_trust_store(roots)
        .build()
        .map_err(|_| StartError::Tls)?;
    Ok(aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(timeouts.pool_idle)
        .pool_max_idle_per_host(64)
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_with_resolver(Resolver::new(timeouts.connect / 2)))
}

/// A client with credentials that are looked for when they are first needed.
pub(super) fn client(
    bucket: &config::Bucket,
    credentials: &config::Credentials,
    timeouts: &config::OriginTimeouts,
    connections: SharedHttpClient,
) -> Client {
    let region = Region::new(bucket.region.clone());
    let builder = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(connections)
        .region(region.clone())
        .force_path_style(bucket.path_style)
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(timeouts.connect)
                .disable_read_timeout()
                .disable_operation_timeout()
                .disable_operation_attempt_timeout()
                .build(),
        )
        // The pace of bodies is watched in `body`, where only the time that S3 takes counts.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    let builder = match &bucket.endpoint {
        Some(endpoint) => builder.endpoint_url(endpoint.trim_end_matches('/')),
        None => builder,
    };
    let builder = match credentials {
        config::Credentials::Anonymous => builder.allow_no_auth(),
        config::Credentials::Static {
            access_key_id,
            secret_access_key,
        } => builder.credentials_provider(Credentials::new(
            access_key_id,
            &secret_access_key.0,
            None,
            None,
            "configuration",
        )),
        config::Credentials::Environment => builder
            .credentials_provider(Environment {
                region,
                chain: OnceCell::new(),
            })
            // Shorter than an attempt, so that the error says what was slow.
            .identity_cache(
                IdentityCache::lazy()
                    .load_timeout(timeouts.attempt.mul_f64(0.75))
                    .build(),
            ),
    };
    Client::from_conf(builder.build())
}

/// The standard chain (variables, profile, web identity, ECS, IMDSv2), made when it is first asked.
#[derive(Debug)]
struct Environment {
    region: Region,
    chain: OnceCell<DefaultCredentialsChain>,
}

impl ProvideCredentials for Environment {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let make = || {
                // The region is known: without it the chain would ask the metadata service for it.
                let region = ProviderConfig::default().with_region(Some(self.region.clone()));
                DefaultCredentialsChain::builder()
                    .configure(region)
                    .region(self.region.clone())
                    .build()
            };
            self.chain.get_or_init(make).await.provide_credentials().await
        })
    }
}

/// Lookups at once. A lookup that hangs holds a thread for as long as the system's resolver pleases.
const LOOKUPS_MAX: usize = 16;
/// Names whose last good addresses are kept.
const NAMES_MAX: usize = 64;

/// Looks a name up for every new connection, and falls back to the last good addresses when the resolver fails.
#[derive(Clone, Debug)]
struct Resolver(Arc<ResolverState>);

#[derive(Debug)]
struct ResolverState {
    deadline: Duration,
    lookups: Arc<Semaphore>,
    last_good: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Resolver {
    fn new(deadline: Duration) -> Self {
        Self(Arc::new(ResolverState {
            deadline,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            last_good: Mutex::default(),
        }))
    }
}

impl ResolverState {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let asked = self.lookup(name).await;
        let mut last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            Ok(addresses) => {
                if last_good.len() < NAMES_MAX || last_good.contains_key(name) {
                    last_good.insert(name.to_owned(), addresses.clone());
                }
                Ok(addresses)
            }
            Err(error) => match last_good.get(name) {
                Some(addresses) => {
                    tracing::warn!(name, %error, "the name does not resolve: using its last good addresses");
                    Ok(addresses.clone())
                }
                None => Err(error),
            },
        }
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let late = || {
            Error::new(
                Kind::DnsTimeout,
                format!("no address of {name} within {:?}", self.deadline),
            )
        };
        let asked = async {
            let permit = Arc::clone(&self.lookups).acquire_owned().await.ok();
            let owned = name.to_owned();
            // A task of its own, so that the permit lives as long as the thread that is held.
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(owned.as_str(), 0))?;
                Ok::<Vec<IpAddr>, std::io::Error>(addresses.map(|address| address.ip()).collect())
            })
            .await
        };
        match tokio::time::timeout(self.deadline, asked).await {
            Err(_) => Err(late()),
            Ok(Ok(Ok(addresses))) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(Ok(_))) => Err(Error::new(Kind::DnsError, format!("{name} has no address"))),
            Ok(Ok(Err(error))) => Err(Error::new(Kind::DnsError, format!("{name}: {error}"))),
            Ok(Err(error)) => Err(Error::new(Kind::DnsError, format!("{name}: {error}"))),
        }
    }
}

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { self.0.resolve(name).await.map_err(ResolveDnsError::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_stops_resolving_keeps_its_last_good_addresses() {
        let resolver = ResolverState {
            deadline: Duration::from_secs(5),
            lookups: Arc::new(Semaphore::new(3)),
            last_good: Mutex::default(),
        };
        let error = resolver.resolve("no-such-name.invalid").await.unwrap_err();
        assert!(matches!(error.kind, Kind::DnsError | Kind::DnsTimeout), "{error}");
        let known = vec![IpAddr::from([192, 0, 2, 1])];
        resolver
            .last_good
            .lock()
            .unwrap()
            .insert("no-such-name.invalid".to_owned(), known.clone());
        assert_eq!(resolver.resolve("no-such-name.invalid").await, Ok(known));
        assert!(!resolver.resolve("localhost").await.unwrap().is_empty());
        assert!(resolver.last_good.lock().unwrap().contains_key("localhost"));
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_given_up() {
        let resolver = ResolverState {
            deadline: Duration::from_millis(20),
            lookups: Arc::new(Semaphore::new(0)),
            last_good: Mutex::default(),
        };
        assert_eq!(
            resolver.resolve("localhost").await.unwrap_err().kind,
            Kind::DnsTimeout
        );
    }
}
