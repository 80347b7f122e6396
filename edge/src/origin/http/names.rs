//! Names to addresses: asked anew when their time to live is over, and the last good addresses when nobody answers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::sync::OnceCell;

use crate::origin::{Error, Kind};

/// Names whose last good addresses are kept.
const NAMES_MAX: usize = 64;

/// The resolver of one origin. It keeps what it has learnt for as long as the answer's TTL says.
pub(super) struct Names {
    deadline: Duration,
    /// Made when it is first needed, within the runtime that asks.
    resolver: OnceCell<TokioResolver>,
    last_good: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Names {
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            resolver: OnceCell::new(),
            last_good: Mutex::default(),
        }
    }

    /// The addresses of `name`; never empty.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        // RFC 6761 6.3: the loopback addresses, and nobody is asked.
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let asked = match tokio::time::timeout(self.deadline, self.lookup(name)).await {
            Ok(asked) => asked,
            Err(_) => Err(Error::new(
                Kind::DnsTimeout,
                format!("no address of {name} within {:?}", self.deadline),
            )),
        };
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
        let failed = |error: &dyn std::fmt::Display| Error::new(Kind::DnsError, format!("{name}: {error}"));
        let resolver = self
            .resolver
            .get_or_try_init(|| async { resolver() })
            .await
            .map_err(|error| failed(&error))?;
        let found = resolver.lookup_ip(name).await.map_err(|error| failed(&error))?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        match addresses.is_empty() {
            true => Err(Error::new(Kind::DnsError, format!("{name} has no address"))),
            false => Ok(addresses),
        }
    }
}

/// As the system resolves: its servers, its hosts file, its search list.
fn resolver() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_stops_resolving_keeps_its_last_good_addresses() {
        let names = Names::new(Duration::from_secs(5));
        let error = names.addresses("no-such-name.invalid").await.unwrap_err();
        assert!(matches!(error.kind, Kind::DnsError | Kind::DnsTimeout), "{error}");
        let known = vec![IpAddr::from([192, 0, 2, 1])];
        names
            .last_good
            .lock()
            .unwrap()
            .insert("no-such-name.invalid".to_owned(), known.clone());
        assert_eq!(names.addresses("no-such-name.invalid").await, Ok(known));
    }

    #[tokio::test]
    async fn the_loopback_needs_no_server() {
        let names = Names::new(Duration::ZERO);
        for name in ["localhost", "app.localhost"] {
            let addresses = names.addresses(name).await.unwrap();
            assert!(addresses.iter().all(IpAddr::is_loopback), "{name}");
        }
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_given_up() {
        let names = Names::new(Duration::ZERO);
        let error = names.addresses("name.invalid").await.unwrap_err();
        assert_eq!(error.kind, Kind::DnsTimeout);
    }
}
